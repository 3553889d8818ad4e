#!/usr/bin/env bash
# The runs behind benchmark/results/laptop.csv: laptop settings, one thread each (--num-threads, the default), two at a
# time on two cores; 60 000 steps take 12 to 20 minutes. Then:
#   python benchmark/collect.py benchmark/results/laptop.csv runs/*
#   python benchmark/plot.py benchmark/results/laptop.csv benchmark/results/laptop.png
laptop="--num-envs 2 --batch-size 64 --hidden-dim 128 --eval-frequency 10000 --checkpoint-frequency 20000"
run() { echo "--env-id metaworld-$1 --total-timesteps $2 --seed $3 $laptop --exp-name $4"; }
for job in "button-press-topdown 60000" "button-press-topdown-wall 100000"; do
  for seed in 1 2 3; do
    run $job $seed "rpg --rnd-dim 128"
    run $job $seed "nornd --rnd-coef 0"
    run $job $seed "mbsac --rnd-dim 128 --latent none"
  done
done | xargs -P 2 -L 1 python rpg.py
# laptop_5envs.csv: the same with --num-envs 5 (the paper's five steps an update), on the tasks and seeds it lists.

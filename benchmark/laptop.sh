#!/usr/bin/env bash
# The runs behind benchmark/results/laptop.csv: laptop settings, one thread and 8 to 12 minutes each, two at a time on two
# cores. Then: python benchmark/collect.py runs/* > benchmark/results/laptop.csv
export OMP_NUM_THREADS=1
laptop="--total-timesteps 50000 --batch-size 64 --hidden-dim 128 --eval-frequency 10000 --checkpoint-frequency 25000"
for task in button-press window-open; do
  for seed in 1 2 3; do
    echo "--exp-name rpg   --env-id metaworld-$task --seed $seed $laptop --rnd-dim 128"
    echo "--exp-name mbsac --env-id metaworld-$task --seed $seed $laptop --rnd-dim 128 --latent none"
    echo "--exp-name nornd --env-id metaworld-$task --seed $seed $laptop --rnd-coef 0"
  done
done | xargs -P 2 -L 1 python rpg.py
python rpg.py --exp-name rpg --env-id metaworld-basketball --seed 1 $laptop --rnd-dim 128 --total-timesteps 100000
# What was run: mbsac button-press 1-2, window-open 1-3; nornd 1-2 (button-press 2 to 31 000); basketball to 88 500.
# Seed 1 of rpg on both tasks, below 0.9 at 50 000 steps, went on: python rpg.py --resume runs/NAME --total-timesteps 75000

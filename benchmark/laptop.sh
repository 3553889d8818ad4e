#!/usr/bin/env bash
# The runs behind benchmark/results/laptop.csv: laptop settings, one thread and about 10 minutes each, two side by side
# on two cores. Then: python benchmark/collect.py runs/* > benchmark/results/laptop.csv
export OMP_NUM_THREADS=1
laptop="--batch-size 64 --hidden-dim 128 --eval-frequency 10000 --checkpoint-frequency 25000"
for task in button-press window-open; do
  for seed in 1 2 3; do
    echo "--exp-name rpg   --total-timesteps 50000 --env-id metaworld-$task --seed $seed $laptop --rnd-dim 128"
    echo "--exp-name mbsac --total-timesteps 50000 --env-id metaworld-$task --seed $seed $laptop --rnd-dim 128 --latent none"
    echo "--exp-name nornd --total-timesteps 25000 --env-id metaworld-$task --seed $seed $laptop --rnd-coef 0"
  done
done | xargs -P 2 -L 1 python rpg.py
python rpg.py --exp-name rpg --total-timesteps 60000 --env-id metaworld-basketball --seed 1 $laptop --rnd-dim 128
# A run that was below 0.9 at its end goes on: python rpg.py --resume runs/NAME --total-timesteps 75000

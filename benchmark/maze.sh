#!/usr/bin/env bash
# Every curve of Fig. 8, five seeds each, one thread and 15 to 25 minutes each on a free core, two at a time on two cores.
# Those first that matter most. (In benchmark/results/maze.csv the ablations have four seeds, with --total-timesteps
# 100000.) Then:
#   python benchmark/maze.py runs/maze__*                 # adds the runs to maze.csv and draws maze.png
{
for seed in 1 2 3 4 5; do
  echo "--exp-name ours --seed $seed"
  echo "--exp-name none --seed $seed --latent none"
done
for seed in 1 2 3 4 5; do
  echo "--exp-name categorical --seed $seed --latent categorical"
  for beta in 0 0.0001 0.005 0.05; do echo "--exp-name beta-$beta --seed $seed --beta $beta"; done
  for dim in 6 3 1; do echo "--exp-name d-$dim --seed $seed --latent-dim $dim"; done
  echo "--exp-name no-encoding --seed $seed --num-frequencies 0"
  echo "--exp-name small-replay --seed $seed --buffer-size 2000"
  echo "--exp-name small-buffer --seed $seed --rnd-buffer-size 2000"
  echo "--exp-name no-buffer --seed $seed --rnd-buffer-size 250"
  echo "--exp-name no-normalisation --seed $seed --no-rnd-normalize"
  for policy in gmm flow cem; do echo "--exp-name $policy --seed $seed --latent none --policy $policy"; done
done
} | xargs -P 2 -L 1 python rpg_maze.py --compile

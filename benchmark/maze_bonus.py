"""What does the RND of a run of rpg_maze.py pay for the squares that it has visited, and for those it hasn't?

    OMP_NUM_THREADS=1 python benchmark/maze_bonus.py runs/maze__*        # seconds; benchmark/results/maze_bonus.md

From a run's newest checkpoint: the bonus, in the error's standard deviations above its mean (without --rnd-normalize
the error itself), averaged over each unit square; the share of pairs of an unvisited and a visited square in which the
unvisited one pays more, 1 where RND has forgotten nothing and 0.5 where it knows nothing; and how evenly the run spends
its time, as the exponential of its visits' entropy: the number of squares that equal visits to each would need.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from envs import MAZE_HALF, Maze, maze_observation  # noqa: E402
from rpg_maze import RND, Args, read_checkpoint  # noqa: E402

POINTS = 10  # a side of each unit square


@torch.no_grad()
def row(run_dir):
    """(method, seed, the other cells of its row)."""
    args = Args(**json.loads((run_dir / "args.json").read_text()))
    state, _ = read_checkpoint(run_dir, "cpu")
    rnd = RND(Maze.observation_space.shape[0], Maze.object_dim, args)
    rnd.load_state_dict({key.removeprefix("rnd."): x for key, x in state["agent"].items() if key.startswith("rnd.")})
    along = (np.arange(10 * POINTS) + 0.5) / POINTS - MAZE_HALF
    obs = maze_observation(np.stack(np.meshgrid(along, along, indexing="ij"), -1))  # (100, 100, 4)
    bonus = rnd.bonus(torch.as_tensor(obs)).view(10, POINTS, 10, POINTS).mean((1, 3))
    visits = state["visits"].double()  # (10, 10)
    visited = visits > 0
    first = (bonus[~visited][:, None] > bonus[visited]).double().mean()
    p = visits[visited] / visits.sum()
    cells = (
        f"{state['progress'][0]:,}",
        f"{visited.double().mean():.2f}",
        f"{bonus[~visited].mean():.3g}",
        f"{bonus[visited].mean():.3g}",
        f"{first:.2f}",
        f"{(-p * p.log()).sum().exp():.0f}",
    )
    return args.exp_name, args.seed, cells


if __name__ == "__main__":
    runs = [path for path in map(Path, sys.argv[1:]) if (path / "checkpoint.pt").exists()]
    if not runs:
        sys.exit(
            "no run of rpg_maze.py with a checkpoint among the arguments: python benchmark/maze_bonus.py runs/maze__*"
        )
    rows = "".join(f"| {method} | {seed} | {' | '.join(cells)} |\n" for method, seed, cells in sorted(map(row, runs)))
    header = "| curve | seed | step | coverage | bonus, unvisited | visited | unvisited pays more | as if squares |"
    (ROOT / "benchmark/results/maze_bonus.md").write_text(f"{header}\n{'|---' * 8}|\n{rows}")
    print(rows, end="")

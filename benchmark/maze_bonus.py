"""What does the RND of a run of rpg_maze.py pay for the squares that it has visited, and for those it hasn't?

    python benchmark/maze_bonus.py runs/maze__*        # seconds; writes benchmark/results/maze_bonus.md

From a run's newest checkpoint: the bonus, in the error's standard deviations above its mean (without --rnd-normalize
the error itself), averaged over each unit square; the share of pairs of an unvisited and a visited square in which the
unvisited one pays more, 1 where RND has forgotten nothing and 0.5 where it knows nothing; and how evenly the run spends
its time, as the exponential of its visits' entropy: the number of squares that equal visits to each would need.
"""

import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from collect import write_markdown  # noqa: E402

from envs import MAZE_HALF, Maze, command_line, load_args, maze_observation, read_checkpoint  # noqa: E402
from rpg_maze import RND, Args  # noqa: E402

POINTS = 10  # a side of each unit square
SIDE = 10  # unit squares a side of the maze
HEADER = "| curve | seed | step | coverage | bonus, unvisited | visited | unvisited pays more | as if squares |"


def square_bonus(rnd):
    """(SIDE, SIDE): the mean bonus over POINTS × POINTS places in each unit square."""
    along = (np.arange(SIDE * POINTS) + 0.5) / POINTS - MAZE_HALF
    positions = np.stack(np.meshgrid(along, along, indexing="ij"), -1)  # (SIDE * POINTS, SIDE * POINTS, 2)
    with torch.no_grad():
        bonus = rnd.bonus(torch.as_tensor(maze_observation(positions)))
    return bonus.view(SIDE, POINTS, SIDE, POINTS).mean((1, 3))


def row(run_dir):
    """(method, seed, the other cells of its row). OSError or ValueError if it is no such run; other exceptions from
    damaged files."""
    args = load_args(run_dir, Args)
    if args.rnd_coef == 0:
        raise ValueError("a run without RND")
    state = read_checkpoint(run_dir)
    rnd = RND(Maze.observation_space.shape[0], Maze.object_dim, args)
    weights = {key.removeprefix("rnd."): x for key, x in state["agent"].items() if key.startswith("rnd.")}
    rnd.load_state_dict(weights)
    bonus = square_bonus(rnd)
    global_step, *_, visits, _ = state["progress"]
    visits = visits.double()  # (SIDE, SIDE)
    visited = visits > 0
    pays_more = (bonus[~visited][:, None] > bonus[visited]).double().mean()
    p = visits[visited] / visits.sum()
    entropy = -(p * p.log()).sum()
    cells = (
        f"{global_step:,}",
        f"{visited.double().mean():.2f}",
        f"{bonus[~visited].mean():.3g}",
        f"{bonus[visited].mean():.3g}",
        f"{pays_more:.2f}",
        f"{entropy.exp():.0f}",
    )
    return args.exp_name, args.seed, cells


def main():
    parser = command_line(__doc__)
    parser.add_argument("run_dirs", type=Path, nargs="+", metavar="run_dir", help="runs of rpg_maze.py")
    parser.add_argument("--num-threads", type=int, default=1, help="of torch (default: 1)")
    args = parser.parse_args()
    torch.set_num_threads(max(args.num_threads, 1))
    none = "no run of rpg_maze.py with a checkpoint among the arguments: python benchmark/maze_bonus.py runs/maze__*"
    write_markdown(ROOT / "benchmark/results/maze_bonus.md", HEADER, row, args.run_dirs, none)


if __name__ == "__main__":
    main()

"""How near do runs of block-push come to both blocks on their goals, and what do their RND and V say of it?

    python benchmark/block_bonus.py runs/block-push__*        # seconds; writes benchmark/results/block_bonus.md

From a run's newest checkpoint. On goal: shares of the states seen from FROM environment steps on, of the block on the
left, of the one ahead of the pusher, and of both at once. RND's bonus, in the error's standard deviations above its
mean, and V (the lesser twin, z from the prior), of the newest states as they are, of these with one block put anywhere,
and of these with both blocks on their goals.
"""

import sys
from pathlib import Path

import torch
from collect import write_markdown
from modes import read_replay

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
import envs  # noqa: E402
import rpg  # noqa: E402

FROM = 100_000
NEWEST = 20_000  # states, of which STATES are taken at random
STATES = 4000
GOALS = torch.tensor(envs.BLOCK_GOALS)  # (2, 2)
HEADER = (
    "| method | seed | step | on goal: left, ahead, both | bonus: newest, left anywhere, ahead anywhere, both on goal "
    "| V: newest, both on goal |"
)


def place(obs, block, position):
    """Observations (B, 22) of envs.BlockPush with block 0 or 1 at rest at `position` (B, 2) or (2,), in metres."""
    obs = obs.clone()
    x_y = torch.tensor([2 * block, 2 * block + 1])
    moved = position - obs[:, x_y] / 0.1
    obs[:, x_y] += 0.1 * moved
    obs[:, x_y + 4] = 0  # velocity
    obs[:, x_y + 8] -= 0.1 * moved  # goal − position
    obs[:, x_y + 16] += 0.5 * moved  # for the positional encoding
    return obs


def on_goal(obs):
    """(2, ...) bool: whether each block is on its goal in observations (..., 22)."""
    distance = obs[..., 8:12].unflatten(-1, (2, 2)).norm(dim=-1) / 0.1  # (..., 2)
    return (distance <= envs.BLOCK_TOLERANCE).movedim(-1, 0)


@torch.no_grad()
def row(run_dir):
    """(method, seed, the other cells of its row). Exceptions of many kinds if it is no such run."""
    args = envs.load_args(run_dir, rpg.Args)
    if args.env_id != "block-push" or args.env_options or args.rnd_coef == 0:
        raise ValueError("not a run of block-push, with its blocks in their usual places and with RND")
    env = envs.make_env(args.env_id, 0)
    replay, order, step = read_replay(rpg, run_dir, args, env)
    env.close()
    if step[-1] <= FROM:
        raise ValueError(f"its checkpoint is of step {int(step[-1]):,}, not beyond {FROM:,}")
    agent = rpg.load_policy(run_dir)
    seen = replay.fields(replay.data[order]).obs  # (rows, N, O)
    left, ahead = on_goal(seen[step > FROM])
    newest = seen.flatten(0, 1)[-NEWEST:]
    newest = newest[torch.randperm(len(newest))[:STATES]]
    anywhere = envs.SLIDER_RANGE * (2 * torch.rand(len(newest), 2) - 1)
    both = place(place(newest, 0, GOALS[0]), 1, GOALS[1])
    bonus = [agent.rnd.bonus(x).mean() for x in (newest, place(newest, 0, anywhere), place(newest, 1, anywhere), both)]
    z = agent.sample_z(newest)
    v = [agent.model.value(agent.model.encoder(x), z, twins=2).amin(0).mean() for x in (newest, both)]
    shares = [share.double().mean() for share in (left, ahead, left & ahead)]
    cells = [f"{int(step[-1]):,}", ", ".join(f"{share:.2%}" for share in shares)]
    cells += [", ".join(f"{number:.1f}" for number in numbers) for numbers in (bonus, v)]
    return args.exp_name, args.seed, cells


def main():
    parser = envs.command_line(__doc__)
    parser.add_argument("run_dirs", type=Path, nargs="+", metavar="run_dir", help="runs of rpg.py on block-push")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    none = "no run of block-push with a checkpoint among the arguments: runs/block-push__*"
    write_markdown(ROOT / "benchmark/results/block_bonus.md", HEADER, row, args.run_dirs, none)


if __name__ == "__main__":
    main()

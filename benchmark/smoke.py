"""Does rpg.py learn at all on every task? 3000 steps of each with small networks, then a look at its RND.

    OMP_NUM_THREADS=1 python benchmark/smoke.py                       # all that have state observations: 3 minutes
    OMP_NUM_THREADS=1 python benchmark/smoke.py maze block-push

A run that ends has finite losses: rpg.py stops at a nan. Its RND error is compared with that of an untrained g, on the
states of its replay, `visited`, where it should fall, and on the same states with a few entries where the run has not
been, `unvisited`, where it should stay high; so should the bonus there: the error's standard deviations above the mean.
"""

import json
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from envs import make_env  # noqa: E402
from rpg import RND, Args  # noqa: E402

FLAGS = "--total-timesteps 3000 --batch-size 64 --hidden-dim 64 --rnd-dim 128 --eval-frequency 0 --exp-name smoke"
UNVISITED = {  # id -> entries of the observation, and what is added to them
    "adroit-door": ([-7], 1.0),  # hinge, rad
    "adroit-hammer": ([-2], 0.1),  # nail, m
    "adroit-pen": ([-6, -5, -4], 0.3),  # pen - target, m
    "adroit-relocate": ([-1], 0.3),  # ball upwards, m; it is seen at many heights, as it falls off the table
    "ant-push": ([1], 16.0),  # y of the torso, m
    "ant-push-sparse": ([1], 16.0),
    "block-push": ([-6, -5, -4, -3], 0.5),  # both blocks, 1 m
    "block-push-1": ([-4, -3], 0.5),
    "cabinet-dense": ([3, 4], 1.4),  # doors, rad
    "cabinet-sparse": ([-2, -1], 1.4),
    "cheetah-back": ([0], -10.0),  # x, m
    "maze": ([-2, -1], 0.6),  # 3 units
    "metaworld-basketball": ([-2], 0.5),  # ball upwards, 0.26 m
}


def novelty(run_dir):
    """Of visited and unvisited states: the RND error by an untrained g, that by the run's g, and its bonus; each as the
    mean over the states."""
    args = json.loads((run_dir / "args.json").read_text())
    env = make_env(args["env_id"])
    obs_dim, object_dim = env.observation_space.shape[0], env.unwrapped.object_dim
    visited = torch.load(run_dir / "buffer.pt", weights_only=True)["data"].flatten(0, 1)[:, :obs_dim]
    entries, shift = UNVISITED[args["env_id"]]
    unvisited = visited.clone()
    unvisited[:, entries] += shift
    torch.manual_seed(args["seed"])
    rnd, weights = RND(obs_dim, object_dim, Args(**args)), torch.load(run_dir / "model.pt", weights_only=True)
    rnd.g_fixed.load_state_dict({key[12:]: value for key, value in weights.items() if key.startswith("rnd.g_fixed.")})
    with torch.no_grad():
        yield from (rnd.error(obs).mean() for obs in (visited, unvisited))
        rnd.load_state_dict({key[4:]: value for key, value in weights.items() if key.startswith("rnd.")})
        yield from (measure(obs).mean() for measure in (rnd.error, rnd.bonus) for obs in (visited, unvisited))


if __name__ == "__main__":
    print("| id | steps/s | visited: untrained g, trained g | unvisited: the same | bonus: visited, unvisited |")
    print("|---|---|---|---|---|")
    for env_id in sys.argv[1:] or UNVISITED:
        command = [sys.executable, ROOT / "rpg.py", "--env-id", env_id, *FLAGS.split()]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode != 0:
            print(f"| `{env_id}` | failed: {run.stderr.splitlines()[-1]} |")
            continue
        summary = json.loads(run.stdout.splitlines()[-1])
        before, far_before, after, far_after, *bonus = novelty(Path(summary["run_dir"]))
        cells = f"{before:.3f}, {after:.4f} | {far_before:.3f}, {far_after:.4f} | {bonus[0]:.1f}, {bonus[1]:.1f}"
        print(f"| `{env_id}` | {summary['sps']:.0f} | {cells} |", flush=True)

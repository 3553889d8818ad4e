"""Does rpg.py learn at all on every task? 3000 steps of each with small networks, then a look at its RND.

    OMP_NUM_THREADS=1 python benchmark/smoke.py                       # all that have state observations: 3 minutes
    OMP_NUM_THREADS=1 python benchmark/smoke.py maze block-push       # some; only printed

A run that ends has finite losses: rpg.py stops at a nan. Its RND is compared with that of an untrained g on the states
of its replay, `visited`, where error and bonus should fall, and on `unvisited` ones, where the bonus should stay high.
The latter are the simulator's own observations, after an object, or the agent, was put where the run has hardly been;
in the maze, of the cells that it has not entered. A bonus is in the error's standard deviations above its mean, both as
they are at the end of the run, and clipped at 100.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
import envs  # noqa: E402
from rpg import RND, Args  # noqa: E402

FLAGS = "--total-timesteps 3000 --batch-size 64 --hidden-dim 64 --rnd-dim 128 --eval-frequency 0 --exp-name smoke"
STATES = 256
PLACES = {  # id -> entries of the simulator's qpos, and their values in unvisited states
    "adroit-door": ([28], [1.2]),  # hinge, rad
    "adroit-hammer": ([26], [0.08]),  # the nail, which can be driven in by 0.09 m
    "adroit-pen": ([26], [0.3]),  # upwards, m, from its start; as the ball
    "adroit-relocate": ([32], [0.4]),
    "ant-push": ([0, 1], [0.0, 19.0]),  # torso in the upper room, m
    "ant-push-sparse": ([0, 1], [0.0, 19.0]),
    "block-push": ([0, 1, 2, 3], [-1.4, 1.4, 0.0, 1.4]),  # blocks at their goals, m
    "block-push-1": ([0, 1], [-1.4, 1.4]),
    "cabinet-dense": ([-2, -1], [-1.4, 1.4]),  # doors open, rad
    "cabinet-sparse": ([-2, -1], [-1.4, 1.4]),
    "cheetah-back": ([0], [-10.0]),  # x, m
    "maze": None,
    "metaworld-basketball": ([11], [0.3]),  # ball at the hoop's height, m
}


def unvisited_states(env_id, visited):
    """(STATES or less, O): each from a new episode of random length and actions; but for those entries as usual."""
    env, rng, observations = envs.make_env(env_id, seed=1), np.random.default_rng(0), []
    if env_id == "maze":
        obs = envs.maze_observation(rng.uniform(-envs.MAZE_HALF, envs.MAZE_HALF, (STATES, 2)))
        cells, entered = (np.floor((x[:, -2:] + 1.0) / 2.0 * envs.MAZE_CELLS) @ (1, 10) for x in (obs, visited.numpy()))
        return torch.from_numpy(obs[~np.isin(cells, entered)])
    for _ in range(STATES):
        env.reset()
        for _ in range(rng.integers(20)):
            env.step(env.action_space.sample())
        entries, values = PLACES[env_id]
        env.unwrapped.data.qpos[entries] = values
        observations.append(env.step(env.action_space.sample())[0])
    return torch.from_numpy(np.stack(observations))


def novelty(run_dir):
    """Means over states, each (untrained g, the run's g): error of visited, bonus of visited, bonus of unvisited."""
    args = json.loads((run_dir / "args.json").read_text())
    env = envs.make_env(args["env_id"])
    obs_dim, object_dim = env.observation_space.shape[0], env.unwrapped.object_dim
    visited = torch.load(run_dir / "buffer.pt", weights_only=True)["data"].flatten(0, 1)[:, :obs_dim]
    unvisited = unvisited_states(args["env_id"], visited)
    torch.manual_seed(args["seed"])
    rnd, weights = RND(obs_dim, object_dim, Args(**args)), torch.load(run_dir / "model.pt", weights_only=True)
    weights = {key[4:]: value for key, value in weights.items() if key.startswith("rnd.")}
    trained = [key for key in weights if key.startswith("g.")]
    means = []
    for state in ({**weights, **{key: rnd.state_dict()[key].clone() for key in trained}}, weights):
        rnd.load_state_dict(state)
        with torch.no_grad():
            means.append(
                [
                    f(obs).mean().item()
                    for f, obs in ((rnd.error, visited), (rnd.bonus, visited), (rnd.bonus, unvisited))
                ]
            )
    return zip(*means)


def main():
    lines = ["| id | steps/s | visited: error | visited: bonus | unvisited: bonus |", "|---|---|---|---|---|"]
    print(*lines, sep="\n")
    for env_id in sys.argv[1:] or PLACES:
        command = [sys.executable, ROOT / "rpg.py", "--env-id", env_id, *FLAGS.split()]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode != 0:
            reason = (run.stderr.splitlines() or ["without a message"])[-1]
            lines.append(f"| `{env_id}` | failed ({run.returncode}): {reason} | | | |")
        else:
            summary = json.loads(run.stdout.splitlines()[-1])
            error, *bonuses = novelty(Path(summary["run_dir"]))
            cells = ["{:.3f} → {:.4f}".format(*error), *("{:.1f} → {:.1f}".format(*bonus) for bonus in bonuses)]
            lines.append(" | ".join((f"| `{env_id}`", f"{summary['sps']:.0f}", *cells)) + " |")
        print(lines[-1], flush=True)
    if not sys.argv[1:]:
        note = "Each cell: with an untrained g → with the run's. What was run and measured: `benchmark/smoke.py`.\n\n"
        (ROOT / "benchmark/results/smoke.md").write_text(note + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

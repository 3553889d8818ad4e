"""Does rpg.py learn at all on every task? 3000 steps of each with small networks, then a look at its RND.

    python benchmark/smoke.py                       # all with state observations: 3 minutes; benchmark/results/smoke.md
    python benchmark/smoke.py maze block-push       # some; only printed

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
import rpg  # noqa: E402

FLAGS = "--total-timesteps 3000 --batch-size 64 --hidden-dim 64 --rnd-dim 128 --eval-frequency 0 --exp-name smoke"
STATES = 256  # unvisited ones, at most
NOTE = "Each cell: with an untrained g → with the run's. What was run and measured: `benchmark/smoke.py`.\n\n"
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


def maze_cells(obs):
    """The cell (...) of the maze, numbered, of observations (..., 4), whose last entries are the position in ±1."""
    return np.floor((obs[..., -2:] + 1.0) / 2.0 * envs.MAZE_CELLS) @ (1, 10)


def unvisited_states(env_id, visited):
    """(STATES or less, O) float32, each from a new episode of random length and actions, usual but for PLACES; in the
    maze, of cells that none of the states `visited` (n, O) is in."""
    rng = np.random.default_rng(0)
    if env_id == "maze":
        obs = envs.maze_observation(rng.uniform(-envs.MAZE_HALF, envs.MAZE_HALF, (STATES, 2)))
        return obs[~np.isin(maze_cells(obs), maze_cells(visited))]
    env = envs.make_env(env_id, seed=1)
    entries, values = PLACES[env_id]
    observations = []
    for _ in range(STATES):
        env.reset()
        for _ in range(rng.integers(20)):
            env.step(env.action_space.sample())
        env.unwrapped.data.qpos[entries] = values
        obs, *_ = env.step(env.action_space.sample())
        observations.append(obs)
    env.close()
    return np.stack(observations)


def novelty(run_dir):
    """(untrained g, the run's g), each the means over states (error of visited, bonus of visited, bonus of unvisited);
    the run's normaliser and fixed network in both."""
    agent = rpg.load_policy(run_dir)
    args = agent.args
    env = envs.make_env(args.env_id)
    obs_dim, object_dim, act_dim = envs.state_sizes(env)
    env.close()
    replay = rpg.Replay(args.buffer_size, args.num_envs, obs_dim, act_dim, rpg.latent_size(args), torch.device("cpu"))
    replay.load_state_dict(envs.read_checkpoint(run_dir)["replay"])
    visited = replay.in_order().obs.flatten(0, 1)  # (n, O)
    unvisited = torch.from_numpy(unvisited_states(args.env_id, visited.numpy()))

    def measure(rnd):
        with torch.no_grad():
            return (
                rnd.error(visited).mean().item(),
                rnd.bonus(visited).mean().item(),
                rnd.bonus(unvisited).mean().item(),
            )

    trained = measure(agent.rnd)
    torch.manual_seed(args.seed)
    agent.rnd.g.load_state_dict(rpg.RND(obs_dim, object_dim, args).g.state_dict())
    return measure(agent.rnd), trained


def row(env_id, num_threads):
    """A row of the table: train on the environment, then look at the run's RND."""
    command = [sys.executable, ROOT / "rpg.py", "--env-id", env_id, "--num-threads", str(num_threads), *FLAGS.split()]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode != 0:
        reason = (run.stderr.splitlines() or ["without a message"])[-1]
        return f"| `{env_id}` | failed ({run.returncode}): {reason} | | | |"
    summary = json.loads(run.stdout.splitlines()[-1])
    (error_before, *before), (error, *after) = novelty(Path(summary["run_dir"]))
    cells = [f"`{env_id}`", f"{summary['sps']:.0f}", f"{error_before:.3f} → {error:.4f}"]
    for bonus_before, bonus in zip(before, after):
        cells.append(f"{bonus_before:.1f} → {bonus:.1f}")
    return f"| {' | '.join(cells)} |"


def main():
    parser = envs.command_line(__doc__)
    parser.add_argument("env_ids", nargs="*", metavar="env_id", help=f"default: all of {', '.join(PLACES)}")
    parser.add_argument("--num-threads", type=int, default=1, help="of each run (default: 1)")
    args = parser.parse_args()
    for env_id in args.env_ids:
        if env_id not in PLACES:
            envs.refuse(f"{env_id}: known are {', '.join(PLACES)}")
    if args.num_threads < 1:
        envs.refuse("--num-threads must be at least 1")
    torch.set_num_threads(args.num_threads)
    lines = ["| id | steps/s | visited: error | visited: bonus | unvisited: bonus |", "|---|---|---|---|---|"]
    print(*lines, sep="\n")
    for env_id in args.env_ids or PLACES:
        lines.append(row(env_id, args.num_threads))
        print(lines[-1], flush=True)
    if not args.env_ids:
        (ROOT / "benchmark/results/smoke.md").write_text(NOTE + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

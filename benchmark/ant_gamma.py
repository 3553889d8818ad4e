"""Which way is worth more in ant-push, straight ahead or around the block? By discount and by the ant's speed.

    python benchmark/ant_gamma.py                       # a Markdown table
    python benchmark/ant_gamma.py runs/ant-push__*      # and how fast the ants of these runs walk ahead

In this model an ant's torso moves along either way at a constant speed, and stays at its end. The value of a way is
that of its first state, the discounted sum of the environment's rewards without an end, as time limits bootstrap; for
γ = 1, which has no such sum, that over an episode. Left out are the block, which slows an ant, and the ELBO's terms.
The way around is one on which a dragged ant reaches the room (tests/test_benchmark.py); on shorter ones it often fails.

Speeds are medians over the last EPISODES episodes in the replay of a run's newest checkpoint, of those in which the ant
passes y = PASSED, pushing the block before it.
"""

import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from modes import ends_whole, read_replay  # noqa: E402

import rpg  # noqa: E402
from envs import ANT_GOAL, ANT_TIMESTEP, AntPush, command_line, failure, load_args, make_env, say  # noqa: E402

DECISION = AntPush.substeps * ANT_TIMESTEP  # s
AHEAD = ((0.0, 0.0), (0.0, 11.2))  # m; there the block, in the room's entrance, ends the way
AROUND = ((0.0, 0.0), (-6.0, 3.0), (-6.5, 8.0), (-1.5, 8.5), (-1.5, 14.0), ANT_GOAL)
GAMMAS = (0.99, 0.995, 0.998, 1.0)
SPEEDS = np.arange(0.2, 5.0, 0.05)  # m/s
SHOWN = (0.5, 0.8, 2.0)  # m/s
WITHOUT_END = 10_000  # decisions: 0.998 to this power is 2e-9
EPISODES, PASSED = 50, 9.0  # ..., m


def walk(way, speed, decisions):
    """(decisions, 2) places (m) after each decision on a polyline of points (m), at a speed in m/s."""
    points = np.array(way)
    reached = np.concatenate(([0.0], np.linalg.norm(np.diff(points, axis=0), axis=1).cumsum()))  # m, at each point
    travelled = speed * DECISION * np.arange(1, decisions + 1)
    return np.stack([np.interp(travelled, reached, points[:, axis]) for axis in range(2)], 1)


def value(way, speed, gamma):
    """Of the first state, in the units of the reward: -0.1 a metre from the goal."""
    decisions = WITHOUT_END if gamma < 1.0 else AntPush.horizon
    rewards = -0.1 * np.linalg.norm(walk(way, speed, decisions) - ANT_GOAL, axis=1)
    return gamma ** np.arange(decisions) @ rewards


def least_speed(gamma):
    """The first of SPEEDS (m/s) at which the way around is worth more."""
    return next(speed for speed in SPEEDS if value(AROUND, speed, gamma) > value(AHEAD, speed, gamma))


def speed_ahead(run_dir):
    """(m/s, how many of how many episodes it is of). ValueError if the run is of another task, or no ant passes."""
    args = load_args(run_dir, rpg.Args)
    if args.env_id != "ant-push":
        raise ValueError(f"{args.env_id} is not ant-push")
    env = make_env(args.env_id, 0)
    replay, order, _ = read_replay(rpg, run_dir, args, env)
    env.close()
    rows = replay.fields(replay.data[order])
    speeds, episodes = [], 0
    for whole, y in zip(ends_whole(rows, AntPush.horizon).T, rows.obs[..., 1].T):  # of each environment
        ends = np.flatnonzero(whole)[-EPISODES // args.num_envs :]
        for end in ends:
            start = end - AntPush.horizon
            passed = np.flatnonzero(y[start : end + 1] >= PASSED)
            if len(passed) > 0:
                speeds.append(PASSED / (DECISION * passed[0]))
        episodes += len(ends)
    if not speeds:
        raise ValueError(f"no ant passes y = {PASSED:g} m")
    return np.median(speeds), len(speeds), episodes


def main():
    parser = command_line(__doc__)
    parser.add_argument("run_dirs", type=Path, nargs="*", metavar="run_dir", help="runs of rpg.py on ant-push")
    args = parser.parse_args()
    say(f"| γ | around is worth more from | {' '.join(f'ahead, around at {speed} m/s |' for speed in SHOWN)}")
    say("| --- |" + " --- |" * (1 + len(SHOWN)))
    for gamma in GAMMAS:
        pairs = [f"{value(AHEAD, speed, gamma):.0f}, {value(AROUND, speed, gamma):.0f}" for speed in SHOWN]
        say(f"| {gamma} | {least_speed(gamma):.2f} m/s | {' | '.join(pairs)} |")
    for run_dir in args.run_dirs:
        try:
            speed, passed, episodes = speed_ahead(run_dir)
        except Exception as error:  # no run, of another task or version, without a checkpoint, damaged
            say(f"{run_dir} skipped: {failure(error)}")
            continue
        say(f"{run_dir}: {speed:.2f} m/s ahead in {passed} of {episodes} episodes")


if __name__ == "__main__":
    main()

"""Which way is worth more in ant-push, straight ahead or around the block? By discount and by the ant's speed.

    python benchmark/ant_gamma.py                  # a Markdown table, at once

An ant's torso moves along either way at a constant speed, and stays at its end. The value of a way is that of its first
state, discounted by γ, as rpg.py estimates it: the time limit bootstraps, so the last distance goes on for ever. γ = 1
has no such value; its row is the sum over an episode. An ant whose torso is dragged along these ways ends behind the
block and in the room (tests/test_benchmark.py); that the block slows it is left out, which favours the way around.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from envs import ANT_GOAL, AntPush, refuse  # noqa: E402

DECISION = 0.1  # s
AHEAD = ((0.0, 0.0), (0.0, 11.5))  # m; there the block, in the room's entrance, ends the way
AROUND = ((0.0, 0.0), (-6.0, 3.0), (-6.5, 8.0), (-1.5, 8.5), (-1.5, 14.0), ANT_GOAL)
GAMMAS = (0.99, 0.995, 0.998, 1.0)
SPEEDS = np.arange(0.2, 5.0, 0.05)  # m/s
SHOWN = (0.5, 0.8, 2.0)  # m/s


def walk(way, speed):
    """(400, 2) places (m) after each decision on a polyline of points (m), at a speed in m/s."""
    points = np.array(way)
    reached = np.concatenate(([0.0], np.linalg.norm(np.diff(points, axis=0), axis=1).cumsum()))  # m, at each point
    travelled = speed * DECISION * np.arange(1, AntPush.horizon + 1)
    return np.stack([np.interp(travelled, reached, points[:, axis]) for axis in range(2)], 1)


def value(way, speed, gamma):
    """Of the first state, in the units of the reward: -0.1 a metre from the goal."""
    rewards = -0.1 * np.linalg.norm(walk(way, speed) - ANT_GOAL, axis=1)
    total = gamma ** np.arange(AntPush.horizon) @ rewards
    if gamma < 1.0:
        total += gamma**AntPush.horizon / (1.0 - gamma) * rewards[-1]
    return total


def least_speed(gamma):
    """The first of SPEEDS (m/s) at which the way around is worth more."""
    return next(speed for speed in SPEEDS if value(AROUND, speed, gamma) > value(AHEAD, speed, gamma))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = refuse  # one line
    parser.parse_args()
    print("| γ | around is worth more from |", *(f"ahead, around at {speed} m/s |" for speed in SHOWN))
    print("| --- |" + " --- |" * (1 + len(SHOWN)))
    for gamma in GAMMAS:
        pairs = [f"{value(AHEAD, speed, gamma):.0f}, {value(AROUND, speed, gamma):.0f}" for speed in SHOWN]
        print(f"| {gamma} | {least_speed(gamma):.2f} m/s |", " | ".join(pairs), "|")


if __name__ == "__main__":
    main()

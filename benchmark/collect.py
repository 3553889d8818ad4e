"""Add runs of rpg.py to a CSV: the mean over the last 50 training episodes, every 1000 environment steps.

    python benchmark/collect.py curves.csv runs/*
    python benchmark/plot.py curves.csv curves.png

Columns: env_id, options, method (the run's --exp-name), seed, step, success_final, success_any, episodic_return. A run
replaces the rows of an earlier one of the same environment, options, method and seed. What is no such run, or has no
finished episode yet, is skipped with a line that says why. Success is empty where the environment's info has none.
"""

import argparse
import csv
import json
import logging
import os
import sys
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from envs import refuse  # noqa: E402

WINDOW, EVERY = 50, 1000  # episodes a mean is over; environment steps between two rows
RUN = ["env_id", "options", "method", "seed"]  # the columns that tell runs apart
KEYS = ["success_final", "success_any", "episodic_return"]
HEADER = [*RUN, "step", *KEYS]


def curve(run_dir):
    """Rows [step, mean of each of KEYS over the last WINDOW episodes up to it], from the first episode's end on.

    A key that the run does not log is "". ValueError if no episode has ended.
    """
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0}).Reload()
    steps, values = {}, {}  # key -> (points,) each: where, and what was logged
    for key in [*KEYS, "episodic_length"]:
        logged = events.Scalars(f"charts/{key}") if f"charts/{key}" in events.Tags()["scalars"] else []
        steps[key] = np.array([event.step for event in logged], int)
        values[key] = np.array([event.value for event in logged])
    ends = steps["episodic_length"]
    if len(ends) == 0:
        raise ValueError("no episode has ended yet")
    # Episodes that end together are one point. Their number is that of the steps since the last point, in lengths.
    episodes = np.cumsum(np.diff(ends, prepend=0) / values["episodic_length"])  # finished by each of `ends`
    rows = []
    for step in range(EVERY, ends[-1] + EVERY, EVERY):
        if step < ends[0]:
            continue
        last = np.searchsorted(ends, step, side="right") - 1
        first = np.searchsorted(episodes, episodes[last] - WINDOW + 1e-6)
        row = [step]
        for key in KEYS:
            window = values[key][(steps[key] >= ends[first]) & (steps[key] <= step)]
            row.append(round(float(np.mean(window)), 4) if len(window) else "")
        rows.append(row)
    return rows


def read_run(run_dir):
    """(its values of RUN, its `curve`). ValueError: why this is no run that can be collected."""
    if not run_dir.is_dir():
        raise ValueError("no such directory" if not run_dir.exists() else "not a directory")
    if (run_dir / "maze.npz").exists():
        raise ValueError("a run of rpg_maze.py, which benchmark/maze.py draws")
    if (run_dir / "bandit.png").exists():
        raise ValueError("a run of rpg_bandit.py, whose result is its bandit.png")
    try:
        args = json.loads((run_dir / "args.json").read_text())
        name = args["env_id"], " ".join(args.get("env_options", ())), args["exp_name"], str(args["seed"])
    except FileNotFoundError:
        raise ValueError("not the directory of a run: no args.json") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ValueError("not a run of rpg.py: its args.json names no env_id, exp_name and seed") from None
    try:
        return name, curve(run_dir)
    except ValueError:
        raise
    except Exception as error:  # the reader of damaged event files raises what it meets
        raise ValueError(f"its event files cannot be read: {type(error).__name__} {error}") from error


def read_table(table):
    """The rows of a CSV of ours, without its header; [] if it is empty or not there yet."""
    if not table.exists():
        return []
    with open(table, newline="") as file:
        header, *rows = [*csv.reader(file)] or [HEADER]
    if header != HEADER:
        raise ValueError(f"{table} is not a CSV of collect.py: its first line is not {','.join(HEADER)}")
    return rows


def write_table(table, rows):
    """A kill leaves the old file or the new one."""
    new = table.with_name(f"{table.name}.new")
    with open(new, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows(rows)
    os.replace(new, table)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="the CSV; it is made if it is not there")
    parser.add_argument("run_dirs", type=Path, nargs="+", metavar="run_dir", help="directories under runs/")
    parser.error = refuse  # one line
    args = parser.parse_args()
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it notes each resume as out of order
    if args.table.is_dir():
        refuse(f"{args.table} is a directory: the first argument is the CSV, for example curves.csv")
    try:
        rows = read_table(args.table)
        if args.table.exists() and not os.access(args.table, os.W_OK):
            raise PermissionError(f"{args.table} is read-only")
    except (OSError, ValueError, csv.Error) as error:
        refuse(error)

    collected = {}  # values of RUN -> the directory
    for run_dir in args.run_dirs:
        try:
            name, points = read_run(run_dir)
        except ValueError as error:
            print(f"{run_dir} skipped: {error}")
            continue
        if name in collected:
            print(f"{collected[name]} is replaced by {run_dir}: the same environment, options, --exp-name and seed")
        collected[name] = run_dir
        rows = [row for row in rows if tuple(row[: len(RUN)]) != name]
        for point in points:
            rows.append([*name, *point])
    if not collected:
        refuse(f"none of these is a run that can be collected; {args.table} is as it was")
    try:
        write_table(args.table, rows)
    except OSError as error:
        refuse(error)
    print(f"{args.table}: {len(collected)} runs added, {len({tuple(row[: len(RUN)]) for row in rows})} in all")


if __name__ == "__main__":
    main()

"""Add runs to a CSV: the mean over the last 50 training episodes, every 1000 environment steps.

    python benchmark/collect.py benchmark/results/laptop.csv runs/*

Columns: env_id, options, method (the run's --exp-name), seed, step, success_final, success_any, episodic_return. A run
replaces the rows of an earlier one of the same environment, options, method and seed.
"""

import csv
import json
import sys
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

WINDOW, EVERY = 50, 1000  # episodes, environment steps
KEYS = ("success_final", "success_any", "episodic_return")


def curve(run_dir):
    """Rows (step, mean of each of KEYS over the last WINDOW episodes before it); a key the run lacks is empty."""
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0}).Reload()
    logged = [events.Scalars(f"charts/{key}") if f"charts/{key}" in events.Tags()["scalars"] else [] for key in KEYS]
    steps = np.array([event.step for event in logged[-1]])
    for step in range(EVERY, steps[-1] + EVERY, EVERY):
        seen = np.searchsorted(steps, step, side="right")  # episodes that ended by then
        windows = [[event.value for event in events[max(0, seen - WINDOW) : seen]] for events in logged]
        yield step, *(round(float(np.mean(window)), 4) if window else "" for window in windows)


if __name__ == "__main__":
    table, run_dirs = Path(sys.argv[1]), map(Path, sys.argv[2:])
    rows = [tuple(row) for row in csv.reader(open(table))][1:] if table.exists() else []
    for run_dir in run_dirs:
        args = json.loads((run_dir / "args.json").read_text())
        run = args["env_id"], " ".join(args["env_options"]), args["exp_name"], str(args["seed"])
        rows = [row for row in rows if row[:4] != run] + [(*run, *point) for point in curve(run_dir)]
    with open(table, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([("env_id", "options", "method", "seed", "step", *KEYS), *rows])

"""Add runs to a CSV: means over the last 50 training episodes, every 1000 environment steps, or 5000 after 100 000.

    python benchmark/collect.py fig7             # those of a figure of experiments.py: benchmark/results/fig7.csv
    python benchmark/collect.py curves.csv runs/*
    python benchmark/plot.py curves.csv curves.png

Columns: env_id, options, method (the run's --exp-name), seed, step, success_final, success_any, return; coverage (of
the maze, so far); hours (of training up to there, by the clock); commit (of commit.txt, which launch.py writes; a +
where the script differed from it); flags, a hash of those that change what is learned (launch.flags_hash). What a run
does not have is empty. The last row is at the multiple after the run's end. A run replaces the rows of the same
environment, options, method and seed, if it goes as far as they do. Runs of one method on one task whose flags differ
in more than the seed are refused. What is no such run, is shorter, or has no finished episode yet, is skipped with a
line that says why; for a figure, so is a run of one of its methods with other flags.
"""

import csv
import io
import itertools
import json
import logging
import os
import sys
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from experiments import EXPERIMENTS  # noqa: E402
from launch import UNCOUNTED, Run, flags_hash, read_progress  # noqa: E402

from envs import command_line, failure, refuse, replace_file, say  # noqa: E402

RESULTS = Path(__file__).parent / "results"
WINDOW = 50  # episodes a mean is over
LOGGED = 1000  # environment steps, at most, between two points of some curve in a log, once there are updates
EVERY, FINE, EVERY_LATER = 1000, 100_000, 5000  # environment steps between two rows, until when, and after that
TASK = ["env_id", "options", "method"]
RUN = [*TASK, "seed"]  # the columns that tell runs apart
KEYS = ["success_final", "success_any", "return"]
HEADER = [*RUN, "step", *KEYS, "coverage", "hours", "commit", "flags"]
OLD_HEADER = [*RUN, "step", "success_final", "success_any", "episodic_return"]  # before there were flags in it


def curve(run_dir):
    """Rows [step, mean of each of KEYS over the last WINDOW episodes up to it, coverage, hours of training], from the
    first episode's end on. What the run does not log is "". ValueError if no episode has ended, or if the log ends
    before the checkpoint, for its reader stops at a damaged place without a word."""
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    tags = {"return": "charts/episodic_return", "length": "charts/episodic_length"}
    steps, values = {}, {}  # key -> (points,) each: where, and what was logged
    for key in [*KEYS, "length", "episodes", "coverage"]:
        tag = tags.get(key, f"charts/{key}")
        logged = events.Scalars(tag) if tag in events.Tags()["scalars"] else []
        steps[key] = np.array([event.step for event in logged], int)
        values[key] = np.array([event.value for event in logged])
        if key == "length":
            clock = np.array([event.wall_time for event in logged])
    ends = steps["length"]
    if len(ends) == 0:
        raise ValueError("no episode has ended yet")
    newest = max(events.Scalars(tag)[-1].step for tag in events.Tags()["scalars"])
    saved, _ = read_progress(run_dir)
    if newest + LOGGED < saved:
        raise ValueError(f"its log ends at step {newest:,}, its checkpoint is of {saved:,}: a damaged event file?")
    # Episodes that end together are one point. Older runs do not log how many have ended: as many as the steps since
    # the last point are lengths, which is right where all are equally long.
    episodes = values["episodes"]  # finished by each of `ends`
    if len(episodes) != len(ends):
        episodes = np.cumsum(np.diff(ends, prepend=0) / values["length"])
    hours = np.cumsum(clock - begins(events, clock)) / 3600
    rows = []
    for step in grid(ends[-1]):
        if step < ends[0]:
            continue
        last = np.searchsorted(ends, step, side="right") - 1
        before = max(episodes[last] - WINDOW, 0)
        weights = np.diff(np.maximum(episodes[: last + 1] - before, 0), prepend=0)  # episodes of each point that count
        row = [step]
        for key in KEYS:
            at = np.searchsorted(ends[: last + 1], steps[key][steps[key] <= step])  # not every point has a success
            mean = ""
            if weights[at].sum() > 0:  # where others are known, an unknown one is 0, as in envs.average
                mean = round(float((weights[at] * values[key][: len(at)]).sum() / weights.sum()), 4)
            row.append(mean)
        covered = values["coverage"][steps["coverage"] <= step]
        row.append(round(float(covered[-1]), 4) if len(covered) else "")
        rows.append([*row, round(hours[last], 4)])
    return rows


def grid(end):
    """The steps of the rows of a run whose last episode ended at step `end`; the last one is not before it."""
    steps = list(range(EVERY, FINE, EVERY)) + list(range(FINE, end + EVERY_LATER, EVERY_LATER))
    return steps[: np.searchsorted(steps, end) + 1]


def begins(events, clock):
    """(points,): when the time that led to each point of `clock` (points,) began: at the point before it, or at a start
    of the script after that. So the time between a run's end and its resumption does not count."""
    tag = "hyperparameters/text_summary"  # written at each start
    starts = clock[:1]
    if tag in events.Tags()["tensors"]:
        starts = np.array([event.wall_time for event in events.Tensors(tag)])
    newest = starts[np.maximum(np.searchsorted(starts, clock, side="right") - 1, 0)]
    return np.maximum(newest, np.concatenate([[-np.inf], clock[:-1]]))


def read_args(run_dir):
    """(its values of RUN, its flags as a dict). ValueError: why this is no run that can be collected."""
    if not run_dir.is_dir():
        raise ValueError("no such directory" if not run_dir.exists() else "not a directory")
    if (run_dir / "bandit.png").exists():
        raise ValueError("a run of rpg_bandit.py, whose result is its bandit.png")
    try:
        args = json.loads((run_dir / "args.json").read_text())
        env_id, options = args.get("env_id"), args.get("env_options", ())
        if env_id is None and "goal" in args:  # rpg_maze.py
            env_id, options = "maze", [f"goal={args['goal']}"] if args["goal"] else ()
        name = str(env_id or args["env_id"]), " ".join(options), args["exp_name"], str(args["seed"])
        return name, args
    except FileNotFoundError:
        raise ValueError("not the directory of a run: no args.json") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ValueError("not a run of rpg.py: its args.json names no env_id, exp_name and seed") from None


def read_curve(run_dir):
    """Its `curve`. ValueError: why there is none."""
    try:
        return curve(run_dir)
    except ValueError:
        raise
    except Exception as error:  # the reader of damaged event files raises what it meets
        raise ValueError(f"its event files cannot be read: {type(error).__name__} {error}") from error


def read_commit(run_dir):
    """The commits that a run was made with, joined by a space; "" where launch.py did not start it."""
    path = run_dir / "commit.txt"
    return " ".join(dict.fromkeys(path.read_text().split())) if path.exists() else ""


def read_table(table):
    """The rows of a CSV of ours, dicts of text; [] if it is empty or not there yet. What an older one lacks is ""."""
    if not table.exists():
        return []
    with open(table, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames not in (None, HEADER, OLD_HEADER):
            raise ValueError(f"{table} is not a CSV of collect.py: its first line is not {','.join(HEADER)}")
        rows = []
        for row in reader:
            if None in row.values() or None in row:
                raise ValueError(f"{table}: line {reader.line_num} has not {len(reader.fieldnames)} cells")
            if reader.fieldnames == OLD_HEADER:
                row["return"] = row.pop("episodic_return")
            rows.append({name: row.get(name, "") for name in HEADER})
    return rows


def write_table(table, rows, header=HEADER):
    """Write a CSV. A kill leaves the old file or the new one. Raises OSError."""
    text = io.StringIO()
    writer = csv.DictWriter(text, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    replace_file(table.resolve(), lambda file: file.write(text.getvalue().encode()))


def write_markdown(path, header, row, run_dirs, none):
    """Write the table of these runs to `path`, and print it: row(run_dir) gives (method, seed, other cells). Rows of
    other methods and seeds stay. A run of which it raises is skipped with a line; if it is every one, the program ends
    with the line `none`. Refuses a file with another header."""
    rows = {}
    for run_dir in run_dirs:
        try:
            method, seed, cells = row(run_dir)
        except Exception as error:  # whatever it is, there is no row for it
            say(f"{run_dir} skipped: {failure(error)}")
            continue
        if (method, str(seed)) in rows:
            say(f"{run_dir} is another {method}, seed {seed}: it replaces the first")
        rows[method, str(seed)] = cells
    if not rows:
        refuse(none)
    try:
        known, *lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else [header]
        if known != header:
            raise ValueError(f"its first line is not {header}")
        for line in lines[1:]:
            method, seed, *cells = line[2:-2].split(" | ")
            rows.setdefault((method, seed), cells)
        keys = sorted(rows, key=lambda key: (key[0], int(key[1])))
        lines = [f"| {' | '.join([*key, *rows[key]])} |" for key in keys]
        text = "\n".join([header, "|---" * (header.count("|") - 1) + "|", *lines]) + "\n"
        replace_file(path, lambda file: file.write(text.encode()))
    except (OSError, ValueError) as error:
        refuse(f"{path}: {error}")
    say("\n".join(lines))


def differing(a, b):
    """The flags that change what is learned and in which two dicts of flags differ, as text."""
    names = sorted(name for name in {*a, *b} - UNCOUNTED if a.get(name) != b.get(name))
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def check_flags(rows, flags, directories):
    """ValueError if runs of one method on one task differ in more than the seed, or some have no hash, so that nothing
    is known. `flags`, `directories`: {values of RUN: flags as a dict, directory} of the runs that are added."""
    found = {}  # values of TASK -> {hash: a run}
    for row in rows:
        found.setdefault(tuple(row[key] for key in TASK), {})[row["flags"]] = tuple(row[key] for key in RUN)
    for task, hashes in found.items():
        if len(hashes) == 1:
            continue
        a, b, *_ = hashes.values()
        differ = "flags (which, only the directories could tell)"
        if a in flags and b in flags:
            differ = differing(flags[a], flags[b])
        a, b = (directories.get(run, f"seed {run[-1]} in the table") for run in (a, b))
        raise ValueError(
            f"{a} and {b} are both {task[2]} on {task[0]} {task[1]}".rstrip()
            + f", but differ in {differ}: collect one of them into another CSV"
        )


def planned_hashes(figure):
    """{(task, method): hash of its runs' flags} of a figure of experiments.py, at both sizes; {} for any other name."""
    experiments = [experiment for experiment in EXPERIMENTS if experiment.figure == figure]
    planned = [Run(experiment, 1, at_paper_size) for experiment in experiments for at_paper_size in (False, True)]
    return {(run.task, run.method): flags_hash(run.args) for run in planned}


def parse_args():
    """(the CSV, directories of runs, of a figure {(task, method): hash of its runs' flags}, else None)."""
    parser = command_line(__doc__)
    parser.add_argument("table", type=Path, help="the CSV, which is made if it is not there, or a figure: fig7")
    parser.add_argument("run_dirs", type=Path, nargs="*", metavar="run_dir", help="default for a figure: all in runs/")
    args = parser.parse_args()
    wanted = planned_hashes(str(args.table))
    if wanted:
        run_dirs = args.run_dirs or [path.parent for path in sorted(Path("runs").glob("*/args.json"))]
        return RESULTS / f"{args.table}.csv", run_dirs, wanted
    if args.table.is_dir():
        refuse(f"{args.table} is a directory: the first argument is the CSV, for example curves.csv")
    if not args.run_dirs:
        figures = dict.fromkeys(experiment.figure for experiment in EXPERIMENTS)
        refuse(f"{args.table}: no run_dir, for example runs/*, and no figure: {', '.join(figures)}")
    return args.table, args.run_dirs, None


def read_run(run_dir, wanted):
    """(its values of RUN, its flags as a dict, its `curve`); None if it is of no method of the figure that `wanted` is
    of. ValueError: why it is not collected."""
    name, flags = read_args(run_dir)
    if wanted is not None:
        experiment = f"{name[0]} {name[1]}".strip(), name[2]
        if experiment not in wanted:
            return None
        if flags_hash(flags) != wanted[experiment]:
            raise ValueError(f"its flags are not those of {name[2]} on {experiment[0]} in experiments.py")
    return name, flags, read_curve(run_dir)


def main():
    table, run_dirs, wanted = parse_args()
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it notes each resume as out of order
    try:
        rows = read_table(table)
        if table.exists() and not os.access(table, os.W_OK):
            raise PermissionError(f"{table} is read-only")
    except (OSError, ValueError, csv.Error) as error:
        refuse(error)

    curves = {}  # values of RUN -> its rows
    for row in rows:
        curves.setdefault(tuple(row[key] for key in RUN), []).append(row)
    flags, directories = {}, {}  # values of RUN -> its flags, its directory
    for run_dir in run_dirs:
        try:
            run = read_run(run_dir, wanted)
            if run is None:
                continue
            name, run_flags, points = run
            before = curves.get(name, [])
            if before and int(before[-1]["step"]) > points[-1][0]:
                known = directories.get(name, f"its curve in {table}")
                raise ValueError(f"it ends at step {points[-1][0]:,}, and {known} at {int(before[-1]['step']):,}")
        except ValueError as error:
            say(f"{run_dir} skipped: {error}")
            continue
        if name in directories:
            what = f"{directories[name]} and {run_dir} have the same environment, options, --exp-name and seed"
            if flags_hash(flags[name]) != flags_hash(run_flags):
                refuse(f"{what}, but differ in {differing(flags[name], run_flags)}: leave one of them out")
            say(f"{what}; the second replaces the first")
        flags[name], directories[name] = run_flags, run_dir
        curves.pop(name, None)  # the new one goes to the table's end
        origin = read_commit(run_dir), flags_hash(run_flags)
        curves[name] = [dict(zip(HEADER, [*name, *point, *origin])) for point in points]
    if not directories:
        refuse(f"none of these is a run that can be collected; {table} is as it was")
    rows = list(itertools.chain.from_iterable(curves.values()))
    try:
        check_flags(rows, flags, directories)
        write_table(table, rows)
    except (OSError, ValueError) as error:
        refuse(error)
    say(f"{table}: {len(directories)} runs added, {len(curves)} in all")


if __name__ == "__main__":
    main()

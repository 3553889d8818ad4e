"""Which optimum do the training episodes of a dense task end in? By environment step, and by z.

    python benchmark/optima.py benchmark/results/optima.csv runs/cabinet-dense__*   # adds runs, draws optima_TASK.png
    python benchmark/optima.py benchmark/results/optima.csv                         # only draws
    python benchmark/optima.py benchmark/results/optima.csv --table                 # no picture, what results.md shows

The two dense tasks of the paper's Fig. 6 have a local optimum: in cabinet-dense the nearer, left door; in ant-push the
block pushed forward, which closes the way to the upper room. Counted are the last states of the whole episodes in the
replay of a run's newest checkpoint, not of those that a checkpoint cut short.

Columns of the CSV: env_id, method (the run's --exp-name), seed, step (the end of EVERY steps), z (its category; empty
without a categorical z), episodes (that ended in these steps), local and best (shares of these in either optimum),
prior_entropy (of π(z|s₁), nats, its mean over these steps; empty without a learned one), commit.
"""

import csv
import math
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from collect import read_commit, write_table
from matplotlib.patches import Patch
from modes import ends_whole, read_replay
from plot import LABELS, in_order, thousands
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
import envs  # noqa: E402
import rpg  # noqa: E402

EVERY = 20_000  # environment steps between two rows
OF_TABLE = 100_000  # environment steps in a cell of the table
LEVELS = 20  # of a cell of the picture
HEADER = ["env_id", "method", "seed", "step", "z", "episodes", "local", "best", "prior_entropy", "commit"]
RUN = HEADER[:3]  # the columns that tell runs apart
LOCAL, BEST, NO_EPISODE = (0.90, 0.60, 0.0), (0.0, 0.35, 0.70), (0.8, 0.8, 0.8)  # colours; neither optimum is white
PUSHED = 2.0  # m forward, a quarter of a cell, from where on a block counts as pushed


class Optima(NamedTuple):
    """What ends an episode of a task."""

    local: str  # names
    best: str
    of: Callable  # obs (n, O) -> (local (n,), best (n,)) bool


def doors(obs):
    left, right = obs[:, 3:5].T / envs.DOOR_RANGE >= envs.FULLY_OPEN
    return left & ~right, right


def block(obs):
    best = np.linalg.norm(obs[:, :2] - envs.ANT_GOAL, axis=1) < envs.ANT_GOAL_RADIUS
    pushed = obs[:, -2] > envs.ANT_CELL + PUSHED
    return pushed & ~best, best


TASKS = {
    "cabinet-dense": Optima("left door open alone", "right door open", doors),
    "ant-push": Optima("block pushed forward", "ant in the upper room", block),
}


def prior_entropy(run_dir):
    """{end of EVERY steps: the mean of losses/prior_entropy in them}; {} if the run logs none."""
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0}).Reload()
    tag = "losses/prior_entropy"
    values = defaultdict(list)
    for event in events.Scalars(tag) if tag in events.Tags()["scalars"] else []:
        values[end_of_bin(event.step)].append(event.value)
    return {step: np.mean(found) for step, found in values.items()}


def end_of_bin(step):
    """Of a step, or of each in an array."""
    return -(-step // EVERY) * EVERY


def count(run_dir):
    """Rows of the CSV, dicts, of one run. ValueError if it is of another task, or has none; others from damaged
    files."""
    args = envs.load_args(run_dir, rpg.Args)
    if args.env_id not in TASKS:
        raise ValueError(f"{args.env_id} is none of {', '.join(TASKS)}")
    env = envs.make_env(args.env_id, 0)
    replay, order, step = read_replay(rpg, run_dir, args, env)
    env.close()
    replayed = replay.fields(replay.data[order])
    whole = ends_whole(replayed, env.unwrapped.horizon)
    if not whole.any():
        raise ValueError("no whole episode in its replay")
    row, _ = torch.nonzero(whole, as_tuple=True)
    local, best = TASKS[args.env_id].of(replayed.obs[whole].numpy())
    bins = end_of_bin(step[row].numpy())
    categorical = args.latent == "categorical"
    category = replayed.z[whole].argmax(-1).numpy() if categorical else np.zeros(len(bins), int)
    entropy, commit = prior_entropy(run_dir), read_commit(run_dir)
    rows = []
    for end in np.unique(bins):
        for z in np.unique(category):
            chosen = (bins == end) & (category == z)
            if not chosen.any():
                continue
            values = [args.env_id, args.exp_name, args.seed, end, z if categorical else ""]
            values += [chosen.sum(), round(local[chosen].mean(), 4), round(best[chosen].mean(), 4)]
            values += [round(entropy[end], 4) if end in entropy else "", commit]
            rows.append({name: str(value) for name, value in zip(HEADER, values)})
    return rows


def read_table(table):
    """The rows of the CSV, dicts of text; [] if it is not there yet."""
    if not table.exists():
        return []
    with open(table, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != HEADER:
            raise ValueError(f"{table} is not a CSV of optima.py: its first line is not {','.join(HEADER)}")
        rows = list(reader)
    for row in rows:
        numbers = [row[key] or "" for key in ("seed", "step", "episodes")]
        shares = [(row[key] or "").replace(".", "", 1) for key in ("local", "best")]
        if row["env_id"] not in TASKS or not all(text.isdecimal() for text in numbers + shares):
            raise ValueError(f"{table} has a row that is not of a run: {row['env_id']!r} at step {row['step']!r}")
    return rows


def stack(row):
    """(LEVELS, 3): the colours of a row of the CSV, one above the other, as much of each as its share of the episodes;
    white is what ends in neither optimum."""
    share = (np.arange(LEVELS) + 0.5) / LEVELS
    best, local = float(row["best"]), float(row["local"])
    colours = np.ones((LEVELS, 3))
    colours[share < best + local] = LOCAL
    colours[share < best] = BEST
    return colours


def draw_run(axis, rows, end):
    """An image, a line a z, of one run's rows up to the step `end`."""
    zs = sorted({int(row["z"] or 0) for row in rows})
    image = np.tile(np.array(NO_EPISODE), (len(zs), LEVELS, end // EVERY, 1))
    for row in rows:
        image[zs.index(int(row["z"] or 0)), :, int(row["step"]) // EVERY - 1] = stack(row)
    axis.imshow(
        image.reshape(-1, *image.shape[2:]), aspect="auto", interpolation="nearest", extent=(0, end, len(zs), 0)
    )
    axis.hlines(range(1, len(zs)), 0, end, color="black", linewidth=0.4)
    axis.set_yticks([])
    axis.set_ylabel(f"{len(zs)} z" if len(zs) > 1 else "all", rotation=0, ha="right", va="center")


def draw(env_id, rows):
    """The figure of one task: a column a seed; a block a method, and the entropy of π(z|s₁) below."""
    runs = defaultdict(list)  # (method, seed) -> rows
    for row in rows:
        runs[row["method"], row["seed"]].append(row)
    methods = in_order({method for method, _ in runs})
    seeds = sorted({seed for _, seed in runs}, key=int)
    end = max(int(row["step"]) for row in rows)
    heights = [1.0 if any(row["z"] for row in rows if row["method"] == method) else 0.35 for method in methods]
    figure, axes = plt.subplots(
        len(methods) + 1,
        len(seeds),
        figsize=(1.5 + 3.6 * len(seeds), 1.6 + 2.2 * (sum(heights) + 0.6)),
        height_ratios=[*heights, 0.6],
        squeeze=False,
        sharex=True,
        layout="constrained",
    )
    for column, seed in enumerate(seeds):
        axes[0, column].set_title(f"seed {seed}", fontsize=10)
        for axis, method in zip(axes[:, column], methods):
            found = runs.get((method, seed))
            if found is None:
                axis.axis("off")
                continue
            draw_run(axis, found, end)
            axis.text(0.01, 1.0, LABELS.get(method, method), transform=axis.transAxes, va="bottom", fontsize=9)
        axis = axes[-1, column]
        for method in methods:
            with_prior = [row for row in runs.get((method, seed), []) if row["prior_entropy"]]
            curve = {int(row["step"]): float(row["prior_entropy"]) for row in with_prior}
            axis.plot(curve.keys(), curve.values(), color="black", linewidth=1)
        axis.set_ylim(0, 2.7)
        axis.grid(alpha=0.3)
        axis.xaxis.set_major_formatter(thousands)
        axis.set_xlabel("environment steps")
    axes[-1, 0].set_ylabel("entropy of\nπ(z|s₁), nats")
    task = TASKS[env_id]
    patches = [Patch(facecolor=LOCAL, label=task.local), Patch(facecolor=BEST, label=task.best)]
    patches += [
        Patch(facecolor="white", edgecolor="black", label="neither"),
        Patch(facecolor=NO_EPISODE, label="no episode"),
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=min(4, 2 * len(seeds)), frameon=False, fontsize=9)
    figure.suptitle(f"{env_id}: what the training episodes of each z end in", fontsize=11)
    return figure


def table(rows):
    """Markdown: a line a run, and for every OF_TABLE steps the shares of its episodes that end in either optimum."""
    totals = defaultdict(lambda: np.zeros(3))  # (run, cell) -> episodes, of these in the local one, in the best one
    for row in rows:
        cell = math.ceil(int(row["step"]) / OF_TABLE)
        episodes = int(row["episodes"])
        totals[tuple(row[key] for key in RUN), cell] += episodes * np.array(
            [1, float(row["local"]), float(row["best"])]
        )
    last = max(cell for _, cell in totals)
    lines = [["task", "method", "seed", *[f"to {cell * OF_TABLE // 1000}k" for cell in range(1, last + 1)]]]
    lines.append(["---"] * len(lines[0]))
    methods = in_order({row["method"] for row in rows})
    runs = {run for run, _ in totals}
    for env_id, method, seed in sorted(runs, key=lambda run: (run[0], methods.index(run[1]), int(run[2]))):
        line = [env_id, LABELS.get(method, method), seed]
        for cell in range(1, last + 1):
            found = totals.get(((env_id, method, seed), cell))
            line.append("" if found is None else f"{found[1] / found[0]:.2f} {found[2] / found[0]:.2f}")
        lines.append(line)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main():
    parser = envs.command_line(__doc__)
    parser.add_argument("table", type=Path, help="the CSV, which is made if it is not there")
    parser.add_argument("run_dirs", type=Path, nargs="*", metavar="run_dir", help="runs of rpg.py on a task of TASKS")
    parser.add_argument("--table", action="store_true", dest="as_table", help="only print a table, in Markdown")
    args = parser.parse_args()
    try:
        rows = read_table(args.table)
    except (OSError, ValueError, csv.Error) as error:
        envs.refuse(error)
    added = {}  # values of RUN -> its directory
    for run_dir in args.run_dirs:
        try:
            found = count(run_dir)
            run = tuple(found[0][key] for key in RUN)
            before = max((int(row["step"]) for row in rows if tuple(row[key] for key in RUN) == run), default=0)
            if int(found[-1]["step"]) < before:
                raise ValueError(f"it ends before {added.get(run, f'its rows in {args.table}')}, at {before:,}")
        except Exception as error:  # no run, of another task or version, without a checkpoint, damaged
            envs.say(f"{run_dir} skipped: {envs.failure(error)}")
            continue
        if run in added:
            envs.say(
                f"{added[run]} and {run_dir} have the same task, --exp-name and seed; the second replaces the first"
            )
        added[run] = run_dir
        rows = [row for row in rows if tuple(row[key] for key in RUN) != run] + found
    if not rows or (args.run_dirs and not added):
        envs.refuse(
            f"no run of {' or '.join(TASKS)} that can be added among the arguments: runs/{next(iter(TASKS))}__*"
        )
    try:
        if added:
            write_table(args.table, rows, HEADER)
        if args.as_table:
            envs.say(table(rows))
            return
        for env_id in dict.fromkeys(row["env_id"] for row in rows):
            picture = args.table.with_name(f"{args.table.stem}_{env_id}.png")
            draw(env_id, [row for row in rows if row["env_id"] == env_id]).savefig(picture, dpi=130)
            envs.say(str(picture))
    except OSError as error:
        envs.refuse(error)


if __name__ == "__main__":
    main()

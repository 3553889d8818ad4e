"""Draw the curves of a CSV by collect.py: a panel an environment, seeds thin, their mean thick, the paper's dashed.

    python benchmark/plot.py curves.csv curves.png

A mean is drawn where all its seeds have a value. Success at the episode's end, or, for an environment without success,
the return. The paper's curves, digitised from Fig. 7, are in benchmark/results/paper.csv.
"""

import argparse
import csv
import sys
import textwrap
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.lines import Line2D

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from envs import refuse  # noqa: E402

PAPER = Path(__file__).parent / "results" / "paper.csv"
LABELS = {"rpg": "RPG", "mbsac": "no latent (MBSAC)", "nornd": "no RND"}  # of our methods; others have their own name
COLOURS = {"rpg": "tab:red", "mbsac": "tab:blue", "nornd": "tab:gray"}
FURTHER_COLOURS = ["tab:green", "tab:orange", "tab:purple", "tab:brown", "tab:pink", "tab:olive", "tab:cyan", "black"]
STYLES = ["-", "-.", ":"]  # of the means, when the colours are used up; dashed is the paper's
COLUMNS = 3  # panels side by side
SUCCESS, RETURN = "success_final", "episodic_return"


def read(path):
    """{(env_id, options): {method: {seed: {step: value}}}} and the names of those whose value is the return.

    An environment's value is its success, or the return if none of its rows has one. A row without a value is left out.
    """
    rows = defaultdict(list)  # (env_id, options) -> rows
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            rows[row["env_id"], row.get("options", "")].append(row)
    curves, without_success = {}, set()
    for name in rows:
        key = SUCCESS
        if not any(row[SUCCESS] for row in rows[name]):
            key = RETURN
            without_success.add(name)
        curves[name] = defaultdict(lambda: defaultdict(dict))
        for row in rows[name]:
            if row.get(key):
                curves[name][row["method"]][row.get("seed")][int(row["step"])] = float(row[key])
    return curves, without_success


def mean_curve(seeds):
    """(steps (T,), mean (T,)) over the seeds {seed: {step: value}}, at the steps that all of them have."""
    common = set.intersection(*(set(points) for points in seeds.values()))
    steps = sorted(common)
    return np.array(steps), np.array([np.mean([points[step] for points in seeds.values()]) for step in steps])


def plain(text):
    """`text` as matplotlib shows it as it is: a $ begins no formula, and a leading _ hides no entry of a legend."""
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def looks(methods):
    """{method: (colour, line style)}, the same in every panel."""
    found, others = {}, 0
    for method in methods:
        if method in COLOURS:
            found[method] = COLOURS[method], "-"
        else:
            colour = FURTHER_COLOURS[others % len(FURTHER_COLOURS)]
            found[method] = colour, STYLES[others // len(FURTHER_COLOURS) % len(STYLES)]
            others += 1
    return found


def seeds_of(method, curves):
    """How many seeds it has, in words: "3 seeds", or "2 to 5 seeds" where that depends on the environment."""
    counts = sorted({len(methods[method]) for methods in curves.values() if method in methods})
    if counts == [1]:
        return "1 seed"
    return f"{' to '.join(map(str, {counts[0]: 0, counts[-1]: 0}))} seeds"


def draw_panel(axis, methods, paper, look):
    """The curves of one environment; `paper` {method: {None: {step: value}}} may be empty."""
    for method, (colour, style) in reversed(look.items()):  # the first one ends on top
        if method not in methods:
            continue
        seeds = methods[method]
        for points in seeds.values():
            steps = sorted(points)
            axis.plot(steps, [points[step] for step in steps], color=colour, alpha=0.35, linewidth=0.8)
        axis.plot(*mean_curve(seeds), style, color=colour, linewidth=2, marker="." if is_short(seeds) else None)
    end = axis.get_xlim()[1]
    for method, curve in paper.items():
        points = curve[None]
        axis.plot([*points], [*points.values()], "--", color=COLOURS[method], linewidth=1.3)
    axis.set_xlim(0, end)  # the paper's go on further
    axis.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:g}k" if x else "0")
    axis.set_xlabel("environment steps")
    axis.grid(alpha=0.3)


def is_short(seeds):
    """Whether a line through them would not be seen: one point."""
    return len(mean_curve(seeds)[0]) == 1


def draw(curves, without_success, paper):
    """The figure; arguments as `read` gives them."""
    found = {method for methods in curves.values() for method in methods}
    look = looks([method for method in COLOURS if method in found] + sorted(found - set(COLOURS)))
    columns = min(COLUMNS, len(curves))
    rows = -(-len(curves) // columns)
    size = max(5.5, 4.8 * columns), 3.4 * rows + 0.6
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    with_paper = []  # the methods whose curves of the paper are drawn
    for axis, name in zip(axes.flat, sorted(curves)):
        paper_curves = {} if name in without_success else paper.get((name[0], ""), {})
        draw_panel(axis, curves[name], paper_curves, look)
        with_paper += paper_curves
        title = plain(f"{name[0]} {name[1]}".strip())
        axis.set_title(textwrap.fill(title, 44), fontsize=11)
        label = "return\n(mean of 50 episodes)"
        if name not in without_success:
            label = "success at the episode's end\n(mean of 50 episodes)"
            axis.set_ylim(-0.03, 1.03)
        if axis in axes[:, 0] or without_success:  # else it is that of the panel to the left
            axis.set_ylabel(label)
    for axis in axes.flat[len(curves) :]:
        axis.axis("off")

    handles = []
    for method, (colour, style) in look.items():
        label = f"{plain(LABELS.get(method, method))} ({seeds_of(method, curves)})"
        handles.append(Line2D([], [], color=colour, linestyle=style, linewidth=2, label=label))
    for method in COLOURS:
        if method in with_paper:
            label = f"paper, {LABELS[method]}"
            handles.append(Line2D([], [], color=COLOURS[method], linestyle="--", linewidth=1.3, label=label))
    longest = max(len(handle.get_label()) for handle in handles)
    fit = max(1, int(size[0] * 14 / (longest + 8)))  # 14 letters of this size an inch, 8 for the line beside them
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), fit), fontsize=8, frameon=False)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="a CSV by collect.py")
    parser.add_argument(
        "picture", type=Path, nargs="?", help="a .png, .pdf or .svg; default: the table's name with .png"
    )
    parser.error = refuse  # one line
    args = parser.parse_args()
    picture = args.picture or args.table.with_suffix(".png")
    try:
        curves, without_success = read(args.table)
        curves = {name: methods for name, methods in curves.items() if methods}
        if not curves:
            raise ValueError("it has no curves; benchmark/collect.py adds some")
    except OSError as error:
        refuse(error)
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        missing = f"no column {error}" if isinstance(error, KeyError) else error
        refuse(f"{args.table} is not a CSV of collect.py: {missing}")
    try:
        draw(curves, without_success, read(PAPER)[0]).savefig(picture, dpi=130)
    except (OSError, ValueError) as error:  # a directory that is not there, a format that matplotlib does not know
        refuse(f"{picture}: {error}")
    print(f"{picture}: {len(curves)} environments")


if __name__ == "__main__":
    main()

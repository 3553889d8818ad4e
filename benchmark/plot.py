"""Draw the curves of a CSV by collect.py: a panel an environment; seeds thin, their mean thick, the paper's dashed.

    python benchmark/plot.py benchmark/results/fig7.csv     # draws benchmark/results/fig7.png
    python benchmark/plot.py curves.csv curves.png
    python benchmark/plot.py curves.csv --table             # no picture: what docs/results.md shows of it

A panel shows success at the episode's end, or, where the environment has none, coverage, or the return. A mean, and the
95 % bootstrap interval of the mean over seeds, is drawn where all its seeds have a value. Steps are the agent's
decisions: two simulator calls each in Meta-World and Adroit. Hours are by the clock, on the machine that was used. The
paper's curves, digitised from Figs. 6, 7, 11, 12 and 13, are in benchmark/results/paper.csv; they go on further.
"""

import csv
import math
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
from envs import command_line, refuse, say  # noqa: E402

PAPER = Path(__file__).parent / "results" / "paper.csv"
LABELS = {"rpg": "RPG", "mbsac": "no latent (MBSAC)", "nornd": "no RND"}  # of our methods; others have their own name
LOOKS = {"rpg": ("#b2001d", "o"), "mbsac": ("#3f8fd8", "s"), "nornd": ("#a0a0a0", "^")}  # dark to light: also in grey
FURTHER_COLOURS = ["tab:green", "tab:orange", "tab:purple", "tab:brown", "tab:pink", "tab:olive", "tab:cyan", "black"]
FURTHER_MARKERS = ["D", "v", "P", "X", "*", "<", ">"]
COLUMNS = 3  # panels side by side
MARKS = 0.12  # between two markers on a curve, in diagonals of its panel
SHOWN = {  # what a panel shows, the first that it has -> the label of its axis
    "success_final": "success at the episode's end\n(mean of 50 episodes)",
    "coverage": "coverage so far",
    "return": "return\n(mean of 50 episodes)",
}
STEPS = "Steps: the agent's decisions"  # the note below the panels
TWO_CALLS = ", two simulator calls each in Meta-World and Adroit"  # where there are any
BAND = "Band: 95 % bootstrap interval of the mean over seeds (of two or three: their range), as far as all seeds go."
LEVELS = [0.5, 0.8, 0.9]  # of success or coverage, whose first steps the table shows


def read(path):
    """The rows of a CSV as dicts of text. ValueError: a seed is no number."""
    with open(path, newline="", encoding="utf-8-sig") as file:  # a spreadsheet's mark at its start is none of it
        rows = list(csv.DictReader(file))
    for row in rows:
        row.setdefault("return", row.get("episodic_return"))  # its name in older tables
        row.setdefault("options", "")
        row.setdefault("seed", "")  # the paper's curves are means
        int(row["seed"] or 0)
    return rows


def curves_of(rows):
    """{(env_id, options): {method: {seed: {step: value}}}}, and {(env_id, options): which of SHOWN the values are}. A
    row without a value is left out, and so is an environment without any."""
    panels = defaultdict(list)  # (env_id, options) -> rows
    for row in rows:
        panels[row["env_id"], row.get("options", "")].append(row)
    curves, keys = {}, {}
    for name in panels:
        for key in SHOWN:
            if any(row.get(key) for row in panels[name]):
                keys[name] = key
                curves[name] = defaultdict(lambda: defaultdict(dict))
                for row in panels[name]:
                    if row.get(key) and math.isfinite(float(row[key])):
                        curves[name][row["method"]][row["seed"]][int(row["step"])] = float(row[key])
                break
    return curves, keys


def hours_per_million(rows):
    """{method: (least, most)}: hours of a million environment steps, of each task over all its runs; those without
    hours are left out."""
    ends = {}  # run -> (step, hours)
    for row in rows:
        if row.get("hours"):
            ends[row["method"], row["env_id"], row["options"], row["seed"]] = int(row["step"]), float(row["hours"])
    totals = defaultdict(lambda: np.zeros(2))
    for (*task, _), end in ends.items():
        totals[tuple(task)] += end
    found = defaultdict(list)
    for (method, *_), (steps, hours) in totals.items():
        found[method].append(1e6 * hours / steps)
    return {method: (min(hours), max(hours)) for method, hours in found.items()}


def mean_curve(seeds):
    """(steps (T,), values (seeds, T)) of {seed: {step: value}}, at the steps that all of them have."""
    steps = sorted(set.intersection(*(set(points) for points in seeds.values())))
    return np.array(steps), np.array([[points[step] for step in steps] for points in seeds.values()])


def interval(values):
    """(low (T,), high (T,)): the 95 % bootstrap interval of the mean over the first dimension of `values` (seeds, T),
    by percentiles, for with few seeds the finer methods are not defined."""
    from scipy.stats import bootstrap  # here, for it takes a second

    found = bootstrap((values,), np.mean, axis=0, n_resamples=2000, method="percentile", random_state=0)
    return found.confidence_interval


def plain(text):
    """`text` as matplotlib shows it as it is: a $ begins no formula, and a leading _ hides no entry of a legend."""
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def in_order(methods):
    """The methods of this project first."""
    return [method for method in LABELS if method in methods] + sorted(set(methods) - set(LABELS))


def looks(methods):
    """{method: (colour, marker)}, the same in every panel."""
    found, others = {}, 0
    for method in methods:
        found[method] = LOOKS.get(method)
        if found[method] is None:
            colour = FURTHER_COLOURS[others % len(FURTHER_COLOURS)]
            found[method] = colour, FURTHER_MARKERS[others % len(FURTHER_MARKERS)]
            others += 1
    return found


def seeds_of(method, curves):
    """How many seeds it has, in words: "3 seeds", or "2 to 5 seeds" where that depends on the environment."""
    counts = sorted({len(methods[method]) for methods in curves.values() if method in methods})
    if counts == [1]:
        return "1 seed"
    return f"{' to '.join(map(str, {counts[0]: 0, counts[-1]: 0}))} seeds"


def thousands(step, _=None):
    """12k; also as matplotlib calls it."""
    return f"{step / 1000:g}k" if step else "0"


def style_of_mean(look):
    """How a mean is drawn: with markers along it, by which it is known without its colour."""
    colour, marker = look
    return {"color": colour, "linewidth": 2, "marker": marker, "markersize": 5, "markevery": MARKS, "zorder": 3}


def style_of_paper(look):
    return style_of_mean(look) | {"linewidth": 1.2, "linestyle": "--", "fillstyle": "none"}


def draw_panel(axis, methods, paper, look):
    """The curves of one environment; `paper` {method: {"": {step: value}}} may be empty."""
    for method in reversed(look):  # the first one ends on top
        if method not in methods:
            continue
        seeds = methods[method]
        for points in seeds.values():
            axis.plot(*zip(*sorted(points.items())), color=look[method][0], alpha=0.4, linewidth=0.7)
        steps, values = mean_curve(seeds)
        if len(values) > 1 and len(steps) > 0:
            axis.fill_between(steps, *interval(values), color=look[method][0], alpha=0.12, linewidth=0)
        style = style_of_mean(look[method])
        if len(steps) == 1:
            style["markevery"] = None  # with a distance none would be drawn
        axis.plot(steps, values.mean(0), **style)
    end = axis.get_xlim()[1]
    for method, curve in paper.items():
        if method in look:
            axis.plot(*zip(*curve[""].items()), **style_of_paper(look[method]))
    axis.set_xlim(0, end)  # the paper's go on further
    axis.xaxis.set_major_formatter(thousands)
    axis.set_xlabel("environment steps")
    axis.grid(alpha=0.3)


def rates(hours):
    """`hours`, as by hours_per_million, in words; "" if there are none."""
    if not hours:
        return ""
    words = []
    for method in in_order(hours):
        least, most = (f"{number:.1f}" for number in hours[method])
        words.append(f"{LABELS.get(method, method)} {least if least == most else f'{least} to {most}'}")
    return f"Hours per million steps, by task, on the machine that was used: {', '.join(words)}."


def draw(curves, keys, paper, hours):
    """The figure; arguments as curves_of and hours_per_million give them, `paper` the curves of PAPER."""
    look = looks(in_order({method for methods in curves.values() for method in methods}))
    columns = min(COLUMNS, len(curves))
    rows = -(-len(curves) // columns)
    size = max(5.5, 4.8 * columns), 3.4 * rows + 1
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    with_paper = set()  # the methods whose curves of the paper are drawn
    for axis, name in zip(axes.flat, sorted(curves)):
        paper_curves = paper.get((name[0], ""), {})
        draw_panel(axis, curves[name], paper_curves, look)
        with_paper |= set(paper_curves) & set(look)
        title = plain(f"{name[0]} {name[1]}".strip())
        axis.set_title(textwrap.fill(title, 44), fontsize=11)
        if keys[name] != "return":
            axis.set_ylim(-0.03, 1.03)
        if axis in axes[:, 0] or len(set(keys.values())) > 1:  # else it is that of the panel to the left
            axis.set_ylabel(SHOWN[keys[name]])
    for axis in axes.flat[len(curves) :]:
        axis.axis("off")

    handles = []
    for method in look:
        label = f"{plain(LABELS.get(method, method))} ({seeds_of(method, curves)})"
        handles.append(Line2D([], [], label=label, **style_of_mean(look[method])))
    for method in look:
        if method in with_paper:
            label = f"paper, {plain(LABELS.get(method, method))}"
            handles.append(Line2D([], [], label=label, **style_of_paper(look[method])))
    longest = max(len(handle.get_label()) for handle in handles)
    fit = max(1, int(size[0] * 14 / (longest + 8)))  # 14 letters of this size an inch, 8 for the line beside them
    legend = {"ncols": min(len(handles), fit), "fontsize": 8, "frameon": False}
    note = STEPS
    if any(env_id.startswith(("metaworld", "adroit")) for env_id, _ in curves):
        note += TWO_CALLS
    note += f". {BAND} {plain(rates(hours))}"
    legend |= {"title": textwrap.fill(note, int(size[0] * 15)), "title_fontsize": 8}
    figure.legend(handles=handles, loc="outside lower center", **legend)
    return figure


def first_step(points, level):
    """The first step at which {step: value} is at `level` or above, in words; "–" if it never is."""
    return next((thousands(step) for step, value in sorted(points.items()) if value >= level), "–")


def crossing(points, level):
    """As first_step, for the paper's curves, whose points are far apart: on the line between two of them."""
    steps, values = zip(*sorted(points.items()))
    after = next((i for i, value in enumerate(values) if value >= level), None)
    if after is None:
        return "–"
    near = slice(max(after - 1, 0), after + 1)
    return thousands(round(np.interp(level, values[near], steps[near]), -3))


def table(rows, curves, keys, paper):
    """Markdown: a line for every method on every task, with a value for each of its seeds, in their order."""
    any_success = defaultdict(dict)  # run -> {step: success_any}
    for row in rows:
        if row.get("success_any"):
            run = row["env_id"], row["options"], row["method"], row["seed"]
            any_success[run][int(row["step"])] = float(row["success_any"])
    of_means = f"{', '.join(map(str, LEVELS))}, end"
    header = ["task", "method", "seeds", "first success", *map(str, LEVELS), "at the end"]
    header.append(f"mean: {of_means} [95 % interval]")
    with_paper = any(method in paper.get((name[0], ""), {}) for name in curves for method in curves[name])
    if with_paper:
        header.append(f"paper: {of_means}")
    lines = [header, ["---"] * len(header)]
    for name in sorted(curves):
        digits, levels = (".0f", []) if keys[name] == "return" else (".2f", LEVELS)
        for method in in_order(curves[name]):
            seeds = dict(sorted(curves[name][method].items(), key=lambda item: int(item[0] or 0)))
            successes = [any_success[(*name, method, seed)] for seed in seeds]
            ends = []
            for points, any_points in zip(seeds.values(), successes):
                step = max(points)
                also = f"/{any_points[step]:.2f}" if step in any_points else ""
                ends.append(f"{points[step]:{digits}}{also} at {thousands(step)}")
            line = [" ".join(name).strip(), LABELS.get(method, method), " ".join(seeds)]
            line.append(" ".join(first_step(points, 1e-9) for points in successes if points))
            for level in LEVELS:
                line.append(" ".join(first_step(points, level) for points in seeds.values() if level in levels))
            line.append(", ".join(ends))
            steps, values = mean_curve(seeds)
            line.append("")
            if len(values) > 1 and len(steps) > 0:
                mean = dict(zip(steps, values.mean(0)))
                low, high = (f"{end[0]:{digits}}" for end in interval(values[:, -1:]))
                end = f"{mean[steps[-1]]:{digits}} [{low}, {high}] at {thousands(steps[-1])}"
                line[-1] = ", ".join([*(first_step(mean, level) for level in levels), end])
            points = paper.get((name[0], ""), {}).get(method, {}).get("")
            if points:
                end = f"{points[max(points)]:{digits}} at {thousands(max(points))}"
                line.append(", ".join([*(crossing(points, level) for level in levels), end]))
            elif with_paper:
                line.append("")
            lines.append(line)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main():
    parser = command_line(__doc__)
    parser.add_argument("table", type=Path, help="a CSV by collect.py")
    parser.add_argument(
        "picture", type=Path, nargs="?", help="a .png, .pdf or .svg; default: the table's name with .png"
    )
    parser.add_argument("--table", action="store_true", dest="as_table", help="only print a table, in Markdown")
    args = parser.parse_args()
    if args.as_table and args.picture:
        refuse(f"{args.picture}: --table draws no picture")
    picture = args.picture or args.table.with_suffix(".png")
    try:
        rows = read(args.table)
        curves, keys = curves_of(rows)
        if not curves:
            raise ValueError("it has no curves; benchmark/collect.py adds some")
        hours = hours_per_million(rows)
    except OSError as error:
        refuse(error)
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        missing = f"no column {error}" if isinstance(error, KeyError) else error
        refuse(f"{args.table} is not a CSV of collect.py: {missing}")
    paper, _ = curves_of(read(PAPER))
    if args.as_table:
        say(table(rows, curves, keys, paper))
        if hours:
            say(f"\n{rates(hours)}")
        return
    try:
        draw(curves, keys, paper, hours).savefig(picture, dpi=130)
    except (OSError, ValueError) as error:  # a directory that is not there, a format that matplotlib does not know
        refuse(f"{picture}: {error}")
    say(f"{picture}: {len(curves)} environments")


if __name__ == "__main__":
    main()

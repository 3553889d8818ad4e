"""Collect runs of rpg_maze.py in benchmark/results/maze.csv, and draw Fig. 8 from it, the paper's curves beside ours.

    python benchmark/maze.py runs/maze__*                 # add these runs, draw benchmark/results/maze.png
    python benchmark/maze.py                              # only draw; prints the table and the order of docs/results.md
    python benchmark/maze.py --beside RUN_DIR RUN_DIR     # two runs' figures in one, benchmark/results/maze_runs.png

Columns of maze.csv: method (the run's --exp-name: fig8 of experiments.py), seed, step, coverage. A run replaces
the rows of an earlier one of its method and seed, if it goes as far. The paper's curves, digitised from Fig. 8, are in
paper_maze.csv.
"""

import csv
import sys
from collections import defaultdict
from itertools import permutations
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from collect import flags_hash, planned_hashes, read_args, write_table  # noqa: E402
from plot import FURTHER_MARKERS, style_of_mean, style_of_paper  # noqa: E402

from envs import command_line, failure, refuse, say  # noqa: E402

RESULTS = Path(__file__).parent / "results"
EVERY = 5_000  # environment steps between two points of a curve
APART = 0.1  # of coverage: curves of the paper that end closer together are not ordered
PANELS = {  # {our method: the paper's name for it, None if it has none}
    "Fig. 8 A: latent": {"ours": "latent=Gaussian", "categorical": "latent=Discrete", "none": "latent=None"},
    "Fig. 8 B: β": {
        "ours": "beta=0.01",
        "beta-0.005": "beta=0.005",
        "beta-0.0001": "beta=0.0001",
        "beta-0": "beta=0.0",
        "beta-0.05": "beta=0.05",
    },
    "Fig. 8 C: dimensions of z": {"ours": "d=12", "d-6": "d=6", "d-3": "d=3", "d-1": "d=1"},
    "Fig. 8 D: RND": {
        "ours": "Ours",
        "no-encoding": "No embedding",
        "small-replay": "No buffer",  # --buffer-size 2000 for everything, as in the official code
        "rnd-window-2000": None,  # --rnd-buffer-size
        "rnd-window-250": None,
        "no-normalisation": None,
    },
    "Fig. 8 E: policy": {"ours": "Ours", "none": "Gaussian", "gmm": "GMM", "flow": "Flow", "cem": "CEM"},
    "not in the paper": dict.fromkeys(
        ("ours", "no-baseline", "no-baseline-beta-0.005", "lr-3e-4", "none-lr-3e-4", "rnd-init")
    ),
}

FIXED = {"ours": ("black", "o"), "none": ("tab:blue", "s")}  # looks of the curves that stand in several panels
NAMES = {"ours": "RPG", "none": "without z"}  # in headings


def panel_letter(title):
    """ "A" of "Fig. 8 A: latent"; what paper_maze.csv calls a panel."""
    return title.split(":")[0][-1]


def read(path, *keys):
    """{values of `keys`: [(step, coverage)]} of a CSV; empty if there is none. Exits if two runs have one name."""
    curves = defaultdict(list)
    if not path.exists():
        return curves
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            try:
                name = tuple(row[key] for key in keys)
                step, coverage = float(row["step"]), float(row["coverage"])
            except (KeyError, ValueError, TypeError) as error:
                sys.exit(f"{path}: a row without {error}")
            if name in curves and step <= curves[name][-1][0]:
                last = curves[name][-1][0]
                sys.exit(f"{path}: step {step:g} of {', '.join(name)} comes after {last:g}: two runs mixed?")
            curves[name].append((step, coverage))
    return curves


def run_name(run_dir):
    """((--exp-name, seed as text), flags as a dict) of a run of rpg_maze.py. ValueError: why it is none."""
    if not (run_dir / "maze.npz").exists():
        raise ValueError("it has no maze.npz: not a run of rpg_maze.py, or not far enough")
    (*_, method, seed), args = read_args(run_dir)
    return (method, seed), args


def read_run(run_dir, wanted):
    """((method, seed), [(step, coverage)] every EVERY steps) of a run. ValueError if it has another method's flags:
    `wanted` is by planned_hashes; exceptions of many kinds from damaged files."""
    (method, seed), flags = run_name(run_dir)
    planned = wanted.get(("maze", method))
    if planned not in (None, flags_hash(flags)):
        raise ValueError(f"its flags are not those of {method} in experiments.py")
    steps, coverage = np.load(run_dir / "maze.npz")["coverage"].T
    grid = np.arange(EVERY, steps[-1] + 1, EVERY)  # ends early where the run diverged
    return (method, seed), list(zip(grid, np.interp(grid, steps, coverage)))


def collect(run_dirs):
    """Add the runs to maze.csv; those that are none, or shorter than what is there, are skipped with a line. ValueError
    if that is every one."""
    table = RESULTS / "maze.csv"
    curves, added = read(table, "method", "seed"), {}  # the latter: (method, seed) -> its directory
    wanted = planned_hashes("fig8")
    for run_dir in run_dirs:
        try:
            name, points = read_run(run_dir, wanted)
            if not points:
                raise ValueError(f"it ends before step {EVERY:,}")
            if len(points) < len(curves.get(name, ())):
                raise ValueError(f"it is shorter than {added.get(name, f'its curve in {table}')}")
        except Exception as error:  # NumPy raises what it meets in a damaged file
            say(f"{run_dir} skipped: {error}")
            continue
        if name in added:
            say(f"{added[name]} and {run_dir} have the same --exp-name and seed; the second replaces the first")
        curves[name], added[name] = points, run_dir
    if not added:
        raise ValueError(f"none of these is a run that can be collected; {table} is as it was")
    rows = []
    for method, seed in sorted(curves):
        for step, share in curves[method, seed]:
            rows.append({"method": method, "seed": seed, "step": int(step), "coverage": round(share, 4)})
    write_table(table, rows, ["method", "seed", "step", "coverage"])


def draw_curve(axis, runs, look, label):
    """`runs` [(2, points): steps, coverage] thin, with a cross where one ends; their mean thick, as far as all go.
    `look` as in plot.looks: (colour, marker)."""
    colour, _ = look
    lengths = [run.shape[1] for run in runs]
    for run in runs:
        axis.plot(*run, color=colour, linewidth=0.7, alpha=0.4)
        if run.shape[1] < max(lengths):
            axis.plot(*run[:, -1], "x", color=colour)
    steps, mean = np.mean([run[:, : min(lengths)] for run in runs], 0)
    axis.plot(steps, mean, label=label, **style_of_mean(look))


def draw(ours, paper):
    """Write maze.png, from curves as `read` gives them: the panels of Fig. 8 and one for our own choices; ours solid,
    the paper's dashed."""
    figure, axes = plt.subplots(2, 3, figsize=(13, 9.5), sharey=True)
    figure.subplots_adjust(left=0.05, right=0.98, top=0.92, bottom=0.13, wspace=0.12, hspace=0.5)
    for axis, (title, methods) in zip(axes.flat, PANELS.items()):
        looks = zip(plt.cm.tab10.colors[1:], FURTHER_MARKERS)  # told apart in grey, too
        for method, name in methods.items():
            look = FIXED.get(method) or next(looks)
            runs = [np.array(curve).T for (key, _), curve in ours.items() if key == method]
            if runs:
                draw_curve(axis, runs, look, f"{method} ({len(runs)})")
            if name is not None:
                curve = np.array(paper[panel_letter(title), name])
                label = None if runs else f"{method} (paper)"
                axis.plot(*curve.T, label=label, **style_of_paper(look))
        axis.set(title=title, xlabel="environment steps", ylim=(0, 1.02), xlim=(0, 250_000))
        axis.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:g}k")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, frameon=False)
    for axis in axes[:, 0]:
        axis.set_ylabel("coverage")
    figure.suptitle(
        "mean over (seeds), each seed thin, × where one ends before the others; dashed, hollow: the paper", fontsize=11
    )
    figure.savefig(RESULTS / "maze.png", dpi=110)


def table(ours, paper):
    """Print a row of Markdown for every curve of Fig. 8: coverage at some steps, every seed's that got there, and the
    paper's, whose curves end at 240 000 steps."""
    say("| curve | at 100 000 steps, by seed | mean | paper | at 250 000 | mean | paper |\n" + "|---" * 7 + "|")
    shown = {}  # method -> the paper's curve, None if it has none
    for title, methods in PANELS.items():
        for method, name in methods.items():
            shown.setdefault(method, paper.get((panel_letter(title), name)))
    for method, curve in shown.items():
        cells = []
        for step in (100_000, 250_000):
            seeds = [dict(run).get(step) for (key, _), run in ours.items() if key == method]
            reached = [share for share in seeds if share is not None]
            row, mean, papers = "", "", ""
            if reached:
                row = " ".join("–" if share is None else f"{share:.2f}" for share in seeds)
                mean = f"{np.mean(reached):.2f}"
            if curve is not None:
                papers = f"{np.interp(step, *np.array(curve).T):.2f}"
            cells += [row, mean, papers]
        say(f"| {method} | {' | '.join(cells)} |")


def order(ours, paper):
    """Print, for every two curves in one panel of Fig. 8 that end more than APART apart in the paper, the better one
    first, our means at the last step that all their seeds reached; and how many pairs keep the paper's order."""
    say("\n| the paper's order | paper, at its end | ours | at step | holds |\n" + "|---" * 5 + "|")
    runs = defaultdict(list)
    for (method, _), curve in ours.items():
        runs[method].append(dict(curve))
    holds = {}  # pair -> bool; one pair is in two panels
    for title, methods in PANELS.items():
        end = {}  # method -> the paper's coverage at its curve's end
        for method, name in methods.items():
            if name is not None and method in runs:
                end[method] = paper[panel_letter(title), name][-1][1]
        for better, worse in permutations(end, 2):
            if end[better] - end[worse] <= APART or (better, worse) in holds:
                continue
            step = min(max(run) for run in runs[better] + runs[worse])
            a = np.mean([run[step] for run in runs[better]])
            b = np.mean([run[step] for run in runs[worse]])
            holds[better, worse] = a > b
            seeds = f"{len(runs[better])}, {len(runs[worse])} seeds"
            say(
                f"| {better} > {worse} | {end[better]:.2f} > {end[worse]:.2f} | {a:.2f}, {b:.2f} ({seeds}) "
                f"| {step:,.0f} | {'yes' if a > b else 'no'} |"
            )
    say(f"\n{sum(holds.values())} of {len(holds)} in the paper's order")


def beside(run_dirs):
    """Write maze_runs.png: the figures of some runs, one below the other. ValueError if one is no run."""
    size = 16, 2.8 * len(run_dirs)
    figure, axes = plt.subplots(len(run_dirs), 1, figsize=size, squeeze=False, layout="constrained")
    for axis, run_dir in zip(axes.flat, run_dirs):
        try:
            (method, seed), _ = run_name(run_dir)
            axis.imshow(plt.imread(run_dir / "maze.png"))
        except Exception as error:  # what the reader of a damaged picture raises
            raise ValueError(f"{run_dir}: {failure(error)}") from None
        axis.set_title(f"{NAMES.get(method, method)}, seed {seed}".replace("$", r"\$"), fontsize=14, loc="left")
        axis.axis("off")
    figure.savefig(RESULTS / "maze_runs.png", dpi=90)


def main():
    parser = command_line(__doc__)
    parser.add_argument("run_dirs", type=Path, nargs="*", metavar="run_dir", help="runs to add to maze.csv")
    parser.add_argument(
        "--beside", type=Path, nargs="+", metavar="run_dir", help="only draw these runs' figures in one"
    )
    args = parser.parse_args()
    try:
        if args.beside and args.run_dirs:
            raise ValueError("with --beside no runs are added: give its runs alone")
        if args.beside:
            beside(args.beside)
            return
        if args.run_dirs:
            collect(args.run_dirs)
    except (OSError, ValueError) as error:
        refuse(error)
    ours = read(RESULTS / "maze.csv", "method", "seed")
    paper = read(RESULTS / "paper_maze.csv", "panel", "method")
    ours = dict(sorted(ours.items(), key=lambda item: int(item[0][1])))
    draw(ours, paper)
    table(ours, paper)
    order(ours, paper)


if __name__ == "__main__":
    main()

"""Collect runs of rpg_maze.py in benchmark/results/maze.csv, and draw Fig. 8 from it, the paper's curves beside ours.

    python benchmark/maze.py runs/maze__*                      # add these runs, draw benchmark/results/maze.png
    python benchmark/maze.py                                   # only draw; prints the README's table, the order
    python benchmark/maze.py --beside RUN_DIR RUN_DIR          # two runs' figures in one, benchmark/results/maze_runs.png

Columns of maze.csv: method (the run's --exp-name, see maze.sh), seed, step, coverage. A run replaces the rows of an
earlier one of the same method and seed. The paper's curves, digitised from Fig. 8, are in paper_maze.csv.
"""

import csv
import json
import sys
from collections import defaultdict
from itertools import permutations
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

RESULTS = Path(__file__).parent / "results"
EVERY = 5_000  # environment steps
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
        "small-buffer": "No buffer",
        "no-buffer": "No buffer",
        "no-normalisation": None,
    },  # whose size the paper doesn't give
    "Fig. 8 E: policy": {"ours": "Ours", "none": "Gaussian", "gmm": "GMM", "flow": "Flow", "cem": "CEM"},
    "ours, not in the paper: with and without baseline": dict.fromkeys(
        ("ours", "no-baseline", "no-baseline-beta-0.005", "lr-3e-4", "none-lr-3e-4")
    ),
}


def read(path, *keys):
    """{values of `keys`: [(step, coverage)]} of a CSV; empty if there is none. Exits if two runs have one name."""
    curves = defaultdict(list)
    for row in csv.DictReader(open(path)) if path.exists() else ():
        name, step = tuple(row[key] for key in keys), float(row["step"])
        if name in curves and step <= curves[name][-1][0]:
            sys.exit(f"{path}: step {step:g} of {', '.join(name)} comes after {curves[name][-1][0]:g}: two runs mixed?")
        curves[name].append((step, float(row["coverage"])))
    return curves


def collect(run_dirs):
    """Add the runs to maze.csv."""
    curves = read(RESULTS / "maze.csv", "method", "seed")
    for run_dir in map(Path, run_dirs):
        if not (run_dir / "maze.npz").exists():
            print(f"{run_dir} left out: it has no maze.npz yet")
            continue
        args = json.loads((run_dir / "args.json").read_text())
        steps, coverage = np.load(run_dir / "maze.npz")["coverage"].T
        grid = np.arange(EVERY, steps[-1] + 1, EVERY)  # ends early where the run diverged
        curves[args["exp_name"], str(args["seed"])] = [*zip(grid, np.interp(grid, steps, coverage))]
    with open(RESULTS / "maze.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("method", "seed", "step", "coverage"))
        for method, seed in sorted(curves):
            writer.writerows((method, seed, int(n), round(share, 4)) for n, share in curves[method, seed])


def draw(ours, paper):
    """maze.png, from curves as `read` gives them: the panels of Fig. 8 and one for our own choices; ours solid (thick:
    the mean, as far as all seeds go; thin: each seed, a cross where one ended before the longest), the paper's dashed."""
    figure, axes = plt.subplots(2, 3, figsize=(13, 7.5), sharey=True, layout="constrained")
    for axis, (title, methods) in zip(axes.flat, PANELS.items()):
        for colour, (method, name) in zip(plt.cm.tab10.colors, methods.items()):
            runs = [np.array(curve).T for (key, _), curve in ours.items() if key == method]
            for run in runs:
                axis.plot(*run, color=colour, linewidth=0.7, alpha=0.4)
            if runs:
                lengths = [run.shape[1] for run in runs]
                steps, mean = np.mean([run[:, : min(lengths)] for run in runs], 0)
                axis.plot(steps, mean, color=colour, linewidth=2, label=f"{method} ({len(runs)})")
                for run, length in zip(runs, lengths):
                    if length < max(lengths):
                        axis.plot(*run[:, -1], "x", color=colour)
            if name:
                curve, label = np.array(paper[title.split(":")[0][-1], name]), None if runs else f"{method} (paper)"
                axis.plot(*curve.T, "--", color=colour, linewidth=1.3, label=label)
        axis.set(title=title, xlabel="environment steps", ylim=(0, 1.02), xlim=(0, 250_000))
        axis.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:g}k")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, title="ours (seeds); dashed: paper", title_fontsize=8, loc="lower right")
    for axis in axes[:, 0]:
        axis.set_ylabel("coverage")
    figure.savefig(RESULTS / "maze.png", dpi=110)


def table(ours, paper):
    """Print a row of Markdown for every curve of Fig. 8: coverage at some steps, every seed's that got there, and the
    paper's, whose curves end at 240 000 steps."""
    print("| curve | at 100 000 steps, by seed | mean | paper | at 250 000 | mean | paper |\n" + "|---" * 7 + "|")
    shown = {}
    for title, methods in PANELS.items():
        for method, name in methods.items():
            shown.setdefault(method, paper.get((title.split(":")[0][-1], name)))
    for method, curve in shown.items():
        cells = []
        for step in (100_000, 250_000):
            seeds = {seed: dict(run).get(step) for (key, seed), run in ours.items() if key == method}
            reached = [share for share in seeds.values() if share is not None]
            row = " ".join("–" if share is None else f"{share:.2f}" for share in seeds.values())
            cells.append(row if reached else "")
            cells.append(f"{np.mean(reached):.2f}" if reached else "")
            cells.append(f"{np.interp(step, *np.array(curve).T):.2f}" if curve else "")
        print(f"| {method} | {' | '.join(cells)} |")


def order(ours, paper):
    """Print, for every two curves in one panel of Fig. 8 that end more than 0.1 apart in the paper, the better one first,
    our means at the last step that all their seeds reached; and how many pairs keep the paper's order. Both of our
    small buffers stand for the paper's, whose size it doesn't give."""
    print("\n| the paper's order | paper, at its end | ours | at step | holds |\n" + "|---" * 5 + "|")
    runs = defaultdict(list)
    for (method, _), curve in ours.items():
        runs[method].append(dict(curve))
    holds = {}  # pair -> bool; one pair is in two panels
    for title, methods in PANELS.items():
        end = {method: paper[title.split(":")[0][-1], name][-1][1] for method, name in methods.items() if name}
        for better, worse in permutations([method for method in end if method in runs], 2):
            if end[better] - end[worse] > 0.1 and (better, worse) not in holds:
                step = min(max(run) for run in runs[better] + runs[worse])
                a, b = (np.mean([run[step] for run in runs[method]]) for method in (better, worse))
                holds[better, worse] = a > b
                print(
                    f"| {better} > {worse} | {end[better]:.2f} > {end[worse]:.2f} | {a:.2f}, {b:.2f} ({len(runs[better])}, "
                    f"{len(runs[worse])} seeds) | {step:,.0f} | {'yes' if a > b else 'no'} |"
                )
    print(f"\n{sum(holds.values())} of {len(holds)} in the paper's order")


def beside(run_dirs):
    """maze_runs.png: the figures of some runs, one below the other."""
    size = 16, 2.8 * len(run_dirs)
    figure, axes = plt.subplots(len(run_dirs), 1, figsize=size, squeeze=False, layout="constrained")
    for axis, run_dir in zip(axes.flat, map(Path, run_dirs)):
        args = json.loads((run_dir / "args.json").read_text())
        axis.imshow(plt.imread(run_dir / "maze.png"))
        axis.set_title(f"{args['exp_name']}, seed {args['seed']}", fontsize=14, loc="left")
        axis.axis("off")
    figure.savefig(RESULTS / "maze_runs.png", dpi=90)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--beside"]:
        if not sys.argv[2:]:
            sys.exit("--beside wants directories of runs: python benchmark/maze.py --beside RUN_DIR RUN_DIR")
        beside(sys.argv[2:])
    else:
        if sys.argv[1:]:
            collect(sys.argv[1:])
        ours, paper = read(RESULTS / "maze.csv", "method", "seed"), read(RESULTS / "paper_maze.csv", "panel", "method")
        ours = dict(sorted(ours.items(), key=lambda item: int(item[0][1])))
        draw(ours, paper)
        table(ours, paper)
        order(ours, paper)

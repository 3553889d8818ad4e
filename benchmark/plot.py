"""Draw the curves of a CSV by collect.py: every seed thin, the mean thick, the paper's dashed.

    python benchmark/plot.py benchmark/results/laptop.csv benchmark/results/laptop.png

The paper's curves, digitised from Fig. 7, are in benchmark/results/paper.csv.
"""

import csv
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

LABELS = {"rpg": "RPG", "mbsac": "no latent (MBSAC)", "nornd": "no RND"}
COLOURS = {"rpg": "tab:red", "mbsac": "tab:blue", "nornd": "tab:gray"}


def read(path):
    """{env_id and options: {method: {seed: [(step, success_final)]}}}; the paper's curves are means and have no seed."""
    curves = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    with open(path) as file:
        for row in csv.DictReader(file):
            name = f"{row['env_id']} {row.get('options', '')}".strip()
            point = int(row["step"]), float(row["success_final"])
            curves[name][row["method"]][row.get("seed")].append(point)
    return curves


if __name__ == "__main__":
    curves, picture = read(sys.argv[1]), sys.argv[2]
    paper = read(Path(__file__).parent / "results" / "paper.csv")
    figure, axes = plt.subplots(1, len(curves), figsize=(4.8 * len(curves), 3.7), sharey=True, squeeze=False)
    for axis, (name, methods) in zip(axes[0], curves.items()):
        for method, seeds in methods.items():
            runs = [np.array(points).T for points in seeds.values()]  # (2, steps) each
            for step, success in runs:
                axis.plot(step, success, color=COLOURS[method], alpha=0.35, linewidth=0.8)
            length = min(run.shape[1] for run in runs)  # the mean ends where the first seed does
            mean = np.mean([run[1, :length] for run in runs], 0)
            label = f"{LABELS[method]} ({len(runs)} seed{'s' * (len(runs) > 1)})"
            axis.plot(runs[0][0, :length], mean, color=COLOURS[method], linewidth=2, label=label)
        end = axis.get_xlim()[1]
        for method, (points,) in ((method, curve.values()) for method, curve in paper[name.split()[0]].items()):
            axis.plot(*np.array(points).T, "--", color=COLOURS[method], label=f"paper, {LABELS[method]}")
        axis.set_xlim(0, end)
        axis.set(title=name, xlabel="environment steps", ylim=(-0.03, 1.03))
        axis.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:g}k")
        axis.grid(alpha=0.3)
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3, fontsize=7.5, frameon=False)
    axes[0, 0].set_ylabel("success at the episode's end\n(mean of 50 episodes)")
    figure.tight_layout()
    figure.savefig(picture, dpi=130)

"""The experiments of the paper's figures, and of the tasks shown on the front page: data that launch.py runs.

    python benchmark/launch.py fig7 --list     # every run of a figure, and how far it is
    python benchmark/launch.py adroit-door     # make those of a task

Fig. 4 is not here: `python rpg_bandit.py` takes ten seconds a seed. In Fig. 7 the paper's methods but RPG and MBSAC
are baselines that this project does not have.
"""

from typing import NamedTuple


class Experiment(NamedTuple):
    figure: str  # of the paper; "laptop": ours
    task: str  # the environment's id, and its --env-options
    method: str  # --exp-name, and the method in the CSVs; mbsac: no z, nornd: no RND
    script: str
    flags: str  # what makes the method, at every size
    laptop: str  # further flags at laptop size
    steps: int  # --total-timesteps at laptop size
    paper: str  # further flags at the paper's size, where the script's defaults differ
    paper_steps: int
    half: int | None = None  # the paper's mean passes 0.5 at this step; None: never, or no curve
    most: int | None = None  # and 0.8 at this one
    final: float | None = None  # the paper's mean at the end of its curve: success, coverage, or return


# Laptop sizes, one constant a kind of task. Without RND there is no --rnd-dim.
SMALL = (
    "--num-envs 5 --batch-size 64 --hidden-dim 128 --learning-rate 1e-3 --compile "
    "--eval-frequency 10000 --checkpoint-frequency 25000"
)
SPARSE = f"{SMALL} --rnd-dim 128"
DENSE = SMALL
PIXELS_NORND = f"{SMALL} --channels 16 32 32 32 --strides 4 2 1 1 --buffer-size 100000"
PIXELS = f"{PIXELS_NORND} --rnd-dim 128"
MAZE = "--compile"
# the settings of benchmark/results/laptop.csv, which is older
BUTTON_NORND = "--num-envs 2 --batch-size 64 --hidden-dim 128 --eval-frequency 10000 --checkpoint-frequency 20000"
BUTTON = f"{BUTTON_NORND} --rnd-dim 128"

# The paper's sizes of the maze; the other scripts' defaults are the paper's.
FULL = "--batch-size 512 --hidden-dim 256 --rnd-dim 512 --learning-rate 3e-4"

# What makes a method: script and flags.
RPG, RPG_PIXELS, RPG_MAZE = "rpg.py", "rpg_pixels.py", "rpg_maze.py"
NO_Z = "--latent none"
NO_RND = "--rnd-coef 0"
DENSE_RPG = "--rnd-coef 0 --reward-scale 1 --alpha 1 --beta 0.1 --latent categorical --learned-prior"
DENSE_NO_Z = "--rnd-coef 0 --reward-scale 1 --alpha 1 --latent none"
# RND on, a larger discount and little reward, as in the official release: of ant-push's pilots the one that went around
# the block (docs/results.md)
ANT_RPG = "--reward-scale 0.1 --gamma 0.995 --alpha 1 --beta 0.1 --latent categorical --learned-prior"
ANT_NO_Z = "--reward-scale 0.1 --gamma 0.995 --alpha 1 --latent none"

M = 1_000_000

# fmt: off
ROWS = [
    # figure, task, method, script, flags, laptop, steps, paper, paper_steps, half, most, final
    ("fig7", "adroit-door", "rpg", RPG, "", SPARSE, 250_000, "", 2 * M, 106_000, 197_000, 0.89),
    ("fig7", "adroit-door", "mbsac", RPG, NO_Z, SPARSE, 250_000, "", 2 * M, 121_000, 283_000, 0.84),
    ("fig7", "adroit-door", "nornd", RPG, NO_RND, SMALL, 250_000, "", 2 * M),

    ("fig11", "cheetah-back", "rpg", RPG, "", SPARSE, 250_000, "", 400_000, 181_000, 212_000, 1.0),
    ("fig11", "cheetah-back", "mbsac", RPG, NO_Z, SPARSE, 250_000, "", 400_000, 134_000, 216_000, 0.93),
    ("fig11", "cheetah-back", "nornd", RPG, NO_RND, SMALL, 250_000, "", 400_000, None, None, 0.0),

    ("fig7", "block-push", "rpg", RPG, "", SPARSE, 500_000, "", 2 * M, 263_000, 486_000, 0.995),
    ("fig7", "block-push", "mbsac", RPG, NO_Z, SPARSE, 500_000, "", 2 * M, None, None, 0.33),
    ("fig7", "block-push", "nornd", RPG, NO_RND, SMALL, 500_000, "", 2 * M),

    ("fig13", "block-push-pixels", "rpg", RPG_PIXELS, "", PIXELS, 180_000, "", 300_000, 64_000, 176_000, 0.98),
    ("fig13", "block-push-pixels", "mbsac", RPG_PIXELS, NO_Z, PIXELS, 180_000, "", 300_000, 131_000, 206_000, 0.95),
    ("fig13", "block-push-pixels", "nornd", RPG_PIXELS, NO_RND, PIXELS_NORND, 180_000, "", 300_000, None, None, 0.24),
    # ours: the same task by its state, and an image task that random actions never solve
    ("fig13", "block-push-1", "rpg", RPG, "", SPARSE, 100_000, "", 300_000),
    ("fig13", "metaworld-button-press-topdown-pixels", "rpg", RPG_PIXELS, "", PIXELS, 100_000, "", 300_000),

    # The paper's basketball has its ball in one place: fixed-ball is nearest to it.
    ("fig7", "metaworld-basketball fixed-ball", "rpg", RPG, "", SPARSE, 400_000, "", 2 * M, 341_000, 739_000, 0.89),
    ("fig7", "metaworld-basketball fixed-ball", "mbsac", RPG, NO_Z, SPARSE, 400_000, "", 2 * M, 403_000, 784_000, 0.86),
    ("fig7", "metaworld-basketball fixed-ball", "nornd", RPG, NO_RND, SMALL, 400_000, "", 2 * M),
    ("fig7", "metaworld-basketball", "rpg", RPG, "", SPARSE, 400_000, "", 2 * M, 341_000, 739_000, 0.89),
    ("fig7", "metaworld-basketball", "mbsac", RPG, NO_Z, SPARSE, 400_000, "", 2 * M, 403_000, 784_000, 0.86),

    ("fig7", "adroit-hammer", "rpg", RPG, "", SPARSE, 400_000, "", 2 * M, 315_000, 1_207_000, 0.82),
    ("fig7", "adroit-hammer", "mbsac", RPG, NO_Z, SPARSE, 400_000, "", 2 * M, 506_000, 1_337_000, 0.86),
    ("fig7", "adroit-hammer", "nornd", RPG, NO_RND, SMALL, 400_000, "", 2 * M),

    ("fig6", "cabinet-dense", "rpg", RPG, DENSE_RPG, DENSE, 400_000, "", 800_000, 379_000, 402_000, 0.98),
    ("fig6", "cabinet-dense", "mbsac", RPG, DENSE_NO_Z, DENSE, 400_000, "", 800_000, None, None, 0.17),
    ("fig6", "ant-push", "rpg", RPG, ANT_RPG, SPARSE, 560_000, "", M, 551_000, None, 0.72),
    ("fig6", "ant-push", "mbsac", RPG, ANT_NO_Z, SPARSE, 400_000, "", M, None, None, 0.23),

    ("fig7", "metaworld-stick-pull", "rpg", RPG, "", SPARSE, M, "", 2 * M, 826_000, None, 0.75),
    ("fig7", "metaworld-stick-pull", "mbsac", RPG, NO_Z, SPARSE, M, "", 2 * M, None, None, 0.11),
    ("fig7", "metaworld-stick-pull", "nornd", RPG, NO_RND, SMALL, M, "", 2 * M),

    ("fig7", "cabinet-sparse", "rpg", RPG, "", SPARSE, M, "", 2 * M, 913_000, 959_000, 0.985),
    ("fig7", "cabinet-sparse", "mbsac", RPG, NO_Z, SPARSE, M, "", 2 * M, 1_307_000, 1_464_000, 0.97),
    ("fig7", "cabinet-sparse", "nornd", RPG, NO_RND, SMALL, M, "", 2 * M),

    ("fig12", "HalfCheetah-v5", "rpg", RPG, DENSE_RPG, DENSE, 300_000, "", M, None, None, 16_055),
    ("fig12", "Humanoid-v5", "rpg", RPG, DENSE_RPG, DENSE, 300_000, "", M, None, None, 5_222),

    # Fig. 8: coverage of the maze; benchmark/maze.py draws it. small-replay is the paper's "No buffer"; it has no
    # rnd-window-2000 and rnd-window-250 (RND's window alone) and no no-normalisation.
    ("fig8", "maze", "ours", RPG_MAZE, "", MAZE, 250_000, FULL, 250_000, 41_000, 143_000, 0.92),
    ("fig8", "maze", "none", RPG_MAZE, NO_Z, MAZE, 250_000, FULL, 250_000, 104_000, None, 0.66),
    ("fig8", "maze", "categorical", RPG_MAZE, "--latent categorical", MAZE, 100_000, FULL, 250_000, 47_000, None, 0.79),
    ("fig8", "maze", "beta-0", RPG_MAZE, "--beta 0", MAZE, 100_000, FULL, 250_000, 91_000, None, 0.66),
    ("fig8", "maze", "beta-0.0001", RPG_MAZE, "--beta 0.0001", MAZE, 100_000, FULL, 250_000, 80_000, None, 0.68),
    ("fig8", "maze", "beta-0.005", RPG_MAZE, "--beta 0.005", MAZE, 100_000, FULL, 250_000, 35_000, 182_000, 0.86),
    ("fig8", "maze", "beta-0.05", RPG_MAZE, "--beta 0.05", MAZE, 100_000, FULL, 250_000, 112_000, None, 0.65),
    ("fig8", "maze", "d-6", RPG_MAZE, "--latent-dim 6", MAZE, 100_000, FULL, 250_000, 26_000, 148_000, 0.90),
    ("fig8", "maze", "d-3", RPG_MAZE, "--latent-dim 3", MAZE, 100_000, FULL, 250_000, 51_000, 184_000, 0.85),
    ("fig8", "maze", "d-1", RPG_MAZE, "--latent-dim 1", MAZE, 100_000, FULL, 250_000, 76_000, None, 0.73),
    ("fig8", "maze", "no-encoding", RPG_MAZE, "--num-frequencies 0", MAZE, 100_000, FULL, 250_000, None, None, 0.44),
    ("fig8", "maze", "small-replay", RPG_MAZE, "--buffer-size 2000", MAZE, 100_000, FULL, 250_000, None, None, 0.40),
    ("fig8", "maze", "rnd-window-2000", RPG_MAZE, "--rnd-buffer-size 2000", MAZE, 100_000, FULL, 250_000),
    ("fig8", "maze", "rnd-window-250", RPG_MAZE, "--rnd-buffer-size 250", MAZE, 100_000, FULL, 250_000),
    ("fig8", "maze", "no-normalisation", RPG_MAZE, "--no-rnd-normalize", MAZE, 100_000, FULL, 250_000),
    ("fig8", "maze", "gmm", RPG_MAZE, f"{NO_Z} --policy gmm", MAZE, 100_000, FULL, 250_000, None, None, 0.46),
    ("fig8", "maze", "flow", RPG_MAZE, f"{NO_Z} --policy flow", MAZE, 100_000, FULL, 250_000, None, None, 0.37),
    ("fig8", "maze", "cem", RPG_MAZE, f"{NO_Z} --policy cem", MAZE, 100_000, FULL, 250_000, 169_000, None, 0.55),

    # Not of the paper: benchmark/results/laptop.csv
    ("laptop", "metaworld-button-press-topdown", "rpg", RPG, "", BUTTON, 60_000, "", M),
    ("laptop", "metaworld-button-press-topdown", "mbsac", RPG, NO_Z, BUTTON, 60_000, "", M),
    ("laptop", "metaworld-button-press-topdown", "nornd", RPG, NO_RND, BUTTON_NORND, 60_000, "", M),
    ("laptop", "metaworld-button-press-topdown-wall", "rpg", RPG, "", BUTTON, 100_000, "", M),
    ("laptop", "metaworld-button-press-topdown-wall", "mbsac", RPG, NO_Z, BUTTON, 60_000, "", M),
    ("laptop", "metaworld-button-press-topdown-wall", "nornd", RPG, NO_RND, BUTTON_NORND, 100_000, "", M),
]
# fmt: on
EXPERIMENTS = [Experiment(*row) for row in ROWS]

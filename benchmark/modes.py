"""What does z do? Several z from one start state, and the states that training visited: the paper's Figs. 9 and 10.

    python benchmark/modes.py runs/block-push-1__rpg__1__1790000000        # modes.png and modes.mp4 in that directory
    python benchmark/modes.py RUN_DIR --num-z 6 --seed 3 --out /tmp --no-video

The trained policy plays one episode for each z, all from one start state (the environment's seed is the same) and with
its mean action, so that whatever differs comes from z: draws from π(z|s₁), or every category of a categorical z. A run
with --latent none has no z: its episodes sample their actions and differ by that noise alone.

modes.png: above, the paths of objects (or of what else the environment shows, see `panels_of`), a colour a z; below, on
the same axes, the states of the replay in checkpoint.pt, from the oldest to the newest; right, each z's return. Of a
run of rpg_pixels.py both are found in its images.
modes.mp4: the episodes side by side, each in a frame of its z's colour; left out where nothing can be rendered.
"""

import contextlib
import functools
import importlib.util
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
import envs  # noqa: E402
from envs import command_line, refuse, say  # noqa: E402

SCRIPTS = ROOT / "rpg.py", ROOT / "rpg_pixels.py"  # whose runs are known by their flags
POINTS = 20_000  # states of the replay that are drawn, at most
ROWS = 50  # of the replay that are read at once: those with images are large
VIDEO_FRAMES, CELL = 100, 160  # frames of the video, at most; pixels a side of one episode in it, at most
DECISIONS = 2000  # of an episode that does not end by itself
BORDER = 5  # pixels of a z's colour around its episode
SQUARE = 4  # pixels a side of what images are averaged over for their principal components
TIME = None  # on an axis: the decisions since the episode's start

# What to draw of our environments: environment -> (title, what is on x and y, labels of x and y, units an entry is).
# What is on an axis: an entry of the observation, or TIME.
SCALED = 1.0 / envs.OBS_SCALE
XY, XZ, YZ = ("x, m", "y, m"), ("x, m", "z, m"), ("y, m", "z, m")
ANT = [("ant, from above", (0, 1), XY, 1.0), ("block, from above", (-3, -2), XY, 1.0)]
DOORS = "left door, rad", "right door, rad"
BLOCK = [("block", (-4, -3), XY, 2.0), ("pusher", (-2, -1), XY, 2.0)]
BLOCKS = {"block-push": 2, "block-push-1": 1, "block-push-pixels": 1}  # whose images `features` can read
PATHS = {
    "adroit-door": [
        ("door", (TIME, 30), ("decision", "hinge, rad"), 1.0),
        ("palm, from above", (27, 28), XY, SCALED),
    ],
    "adroit-hammer": [("hammer, from the side", (-6, -4), XZ, 1.0), ("nail, from above", (-3, -2), XY, 1.0)],
    "adroit-pen": [
        ("pen − its target, from the side", (-6, -4), XZ, 1.0),
        ("pen's direction", (-3, -2), ("x", "y"), 1.0),
    ],
    "adroit-relocate": [("palm − ball, from the side", (-6, -4), XZ, 1.0), ("ball − target", (-3, -1), XZ, 1.0)],
    "ant-push": ANT,
    "ant-push-sparse": ANT,
    "block-push": [("block 1", (-6, -5), XY, 2.0), ("block 2", (-4, -3), XY, 2.0), ("pusher", (-2, -1), XY, 2.0)],
    "block-push-1": BLOCK,
    "block-push-pixels": BLOCK,
    "cabinet-dense": [("hand, from above", (0, 1), XY, 1.0), ("doors", (3, 4), DOORS, 1.0)],
    "cabinet-sparse": [("hand, from above", (-5, -4), XY, 1.0), ("doors", (-2, -1), DOORS, 1.0)],
    "cheetah-back": [("cheetah", (TIME, 0), ("decision", "x, m"), 1.0)],
    "maze": [("agent", (-2, -1), ("x", "y"), envs.MAZE_HALF)],
}
METAWORLD_PATHS = [
    ("hand, from above", (0, 1), XY, SCALED),
    ("hand, from the side", (1, 2), YZ, SCALED),
    ("object, from above", (4, 5), XY, SCALED),
    ("object, from the side", (5, 6), YZ, SCALED),
]

BLOCK_GOALS = {"block 1": 0, "block 2": 1, "block": 0}  # title of a panel -> which of envs.BLOCK_GOALS is its goal


class Panel(NamedTuple):
    """A pair of axes, and what puts states on them."""

    title: str
    labels: tuple[str, str]  # of x and y
    place: Callable  # (obs (..., D), t (...), decisions since the episode's start) -> (..., 2)
    equal: bool  # whether both axes have one scale


class Episode(NamedTuple):
    """One episode of T decisions."""

    obs: np.ndarray  # (T + 1, D), the features of its observations
    frames: list  # of (height, width, 3) uint8; empty without a renderer
    summary: dict  # envs.SUMMARY's names -> values, nan if unknown


def position(images, colour):
    """Where block-push draws its square of this colour, a triple: images (..., 3, 64, 64) → (..., 2), in m, by the
    centroid of its pixels: within 3 cm.

    How much of the square a pixel holds is told by how far the colour's strongest channel passes the two others. A
    goal, half as pale, has half of that, which is taken off; and with it what the edges hold."""
    strongest = int(np.argmax(colour))
    others = [channel for channel in range(3) if channel != strongest]
    full = 255.0 * (colour[strongest] - max(colour[channel] for channel in others))
    images = images.astype(np.float32)
    excess = images[..., strongest, :, :] - images[..., others, :, :].max(-3)
    weights = np.maximum(excess - (full / 2 + 1), 0.0)  # (..., 64, 64); 1: rounding
    pixels = images.shape[-1]
    places = (np.arange(pixels) + 0.5) * (2 * envs.ARENA_HALF / pixels) - envs.ARENA_HALF  # of pixels, in m
    total = weights.sum((-2, -1))
    x = (weights.sum(-2) @ places) / total
    y = -(weights.sum(-1) @ places) / total  # row 0 is the largest y
    return np.stack([x, y], -1)


def features(env_id, obs):
    """What is drawn of observations (..., O) → (..., D). States: all of them. Images, (..., F, 3, 64, 64) uint8: of the
    newest, where it shows block-push the entries that its states end with, positions / 2 of blocks and pusher; else
    the means of squares of pixels, 0 to 1."""
    if obs.dtype != np.uint8:
        return obs
    images = obs[..., -1, :, :, :]
    if env_id in BLOCKS:
        colours = *envs.BLOCK_COLORS[: BLOCKS[env_id]], envs.PUSHER_COLOR
        return np.concatenate([position(images, colour) / 2 for colour in colours], -1)
    *batch, channels, height, width = images.shape
    squares = images.reshape(*batch, channels, height // SQUARE, SQUARE, width // SQUARE, SQUARE)
    return squares.mean((-3, -1), dtype=np.float32).reshape(*batch, -1) / 255


def entries_panel(title, entries, labels, scale):
    """A Panel of two entries of the observation; arguments as in PATHS."""

    def place(obs, t):
        axes = [t if entry is TIME else scale * obs[..., entry] for entry in entries]
        return np.stack(axes, -1)

    return Panel(title, labels, place, equal=TIME not in entries)


def components_panel(title, columns, obs, images):
    """A Panel of the first two principal components of the entries `columns` (a slice) over the states `obs` (n, D).
    Each in its own standard deviations; those of images, which have one unit, as they are."""
    x = obs[:, columns].astype(np.float64)
    mean, std = x.mean(0), np.ones(x.shape[1])
    if not images:
        std = x.std(0)
        std = np.where(std > 1e-8, std, 1.0)  # an entry that never changes is 0 then
    scaled = (x - mean) / std
    variances, directions = np.linalg.eigh(scaled.T @ scaled)  # ascending; (a svd of 20 000 images takes 10 s)
    shares = variances[::-1] / max(variances.sum(), 1e-12)
    labels = [f"principal component {i + 1} ({shares[i]:.0%} of variance)" for i in range(2)]

    def place(obs, t):
        return ((obs[..., columns] - mean) / std) @ directions[:, :-3:-1]

    return Panel(title, tuple(labels), place, equal=True)


def panels_of(env_id, object_dim, obs, images=False):
    """The Panels for an environment; `obs` (n, D): features of states, or of `images`, from which principal components
    are found.

    Our environments: PATHS. Others: their object coordinates, the last `object_dim` entries, or without these the whole
    observation; one or two such entries as they are, more by their first two principal components. So all images but
    those of block-push.
    """
    if images and env_id not in BLOCKS:
        return [components_panel("image", slice(None), obs, images)]
    if env_id.startswith(envs.METAWORLD):
        return [entries_panel(*path) for path in METAWORLD_PATHS]
    if env_id in PATHS:
        return [entries_panel(*path) for path in PATHS[env_id]]
    size = obs.shape[1]
    start, name = (size - object_dim, "object coordinates") if object_dim else (0, "observation")
    if size - start == 1:
        return [entries_panel(name, (TIME, start), ("decision", f"entry {start}"), 1.0)]
    if size - start == 2:
        return [entries_panel(name, (start, start + 1), (f"entry {start}", f"entry {start + 1}"), 1.0)]
    return [components_panel(f"{name}, {size - start} entries", slice(start, None), obs, images)]


def choose_z(agent, obs, num_z, seed):
    """(z (K, Z), K names): draws from π(z|s₁) at the start state `obs` (O,), or the categories, at most num_z."""
    if agent.args.latent == "categorical":
        z = torch.eye(agent.args.latent_dim)[:num_z]
        return z, [f"category {i}" for i in range(len(z))]
    obs = np.stack([obs] * num_z)  # (K, O)
    z = agent.sample_z(obs, torch.Generator().manual_seed(seed))
    return z, [f"{'z' if agent.args.latent == 'gaussian' else 'episode'} {i + 1}" for i in range(num_z)]


def shrink(frame):
    """A frame as (h, w, 3) uint8, made smaller by a whole number, by means over squares, until it fits CELL × CELL."""
    frame = envs.rgb_frame(frame)
    factor = math.ceil(max(frame.shape[:2]) / CELL)
    height, width = frame.shape[0] // factor, frame.shape[1] // factor
    squares = frame[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
    return squares.mean((1, 3)).astype(np.uint8)


@torch.no_grad()
def play(agent, env, seed, z, greedy, render, every):
    """An Episode from the start state of `seed` under z (Z,); with render, a frame of every `every`-th state. One that
    does not end by itself is left after DECISIONS, without a summary but its length."""
    obs, info = env.reset(seed=seed)
    states, frames = [features(agent.args.env_id, obs)], []
    while envs.SUMMARY_KEY not in info and len(states) <= DECISIONS:
        if render and (len(states) - 1) % every == 0:
            frames.append(shrink(env.render()))
        action = agent.act(obs, z, greedy)
        obs, _, _, _, info = env.step(action.numpy())
        states.append(features(agent.args.env_id, obs))
    if render:
        frames.append(shrink(env.render()))
    summary = dict.fromkeys(envs.SUMMARY, math.nan) | {"episodic_length": len(states) - 1}
    if envs.SUMMARY_KEY in info:
        summary = dict(zip(envs.SUMMARY, info[envs.SUMMARY_KEY].tolist()))
    return Episode(np.stack(states), frames, summary)


def read_replay(script, run_dir, args, env):
    """What checkpoint.pt of a run with these Args holds: its Replay; order (rows,), the indices of its rows from the
    oldest to the newest; step (rows,), the environment step at which each was written."""
    state = envs.read_checkpoint(run_dir)
    filled = int(state["replay"]["filled"])  # the rest of the ring is not needed here
    sizes = [env.action_space.shape[0], script.latent_size(args)]
    if not sees_images(env):  # a replay of images knows their size
        sizes.insert(0, env.observation_space.shape[0])
    replay = script.Replay(filled * args.num_envs, args.num_envs, *sizes, torch.device("cpu"))
    replay.load_state_dict(state["replay"])
    order = (replay.head - filled + torch.arange(filled)) % filled
    last = replay.fields(replay.data).last[order]  # (rows, N)
    # A row counts one step for each environment that acted; where an episode had ended none did.
    steps_after = (last == 0).sum(1).flip(0).cumsum(0).flip(0)  # (rows,)
    return replay, order, state["progress"][0] - steps_after


def ends_whole(rows, horizon):
    """(rows, N) bool: where an episode ends that no checkpoint cut short; of Rows (rows, N, ·), oldest first, of a task
    whose episodes end after `horizon` decisions alone."""
    return (rows.last == 1) & (rows.t == horizon)


def read_visits(script, run_dir, agent, env):
    """States of the replay of checkpoint.pt: (obs (n, D), features; t (n,) decisions since the episode's start; step
    (n,) the environment step at which it was seen), oldest first, n at most POINTS."""
    args = agent.args
    replay, order, step = read_replay(script, run_dir, args, env)
    keep = slice(None, None, math.ceil(len(order) * args.num_envs / POINTS))
    obs, t = [], []
    for row in order[keep].split(ROWS):
        rows = replay.rows(*torch.broadcast_tensors(row[:, None], torch.arange(args.num_envs)))  # (ROWS, N, ·)
        obs.append(features(args.env_id, rows.obs.flatten(0, 1).numpy()))
        t.append(rows.t.flatten().numpy())
    return np.concatenate(obs), np.concatenate(t), step[keep].repeat_interleave(args.num_envs).numpy()


def landmarks_of(env_id, env_options, title):
    """Patches for a panel: around the goal, where it has one place, the circle in which it is reached; the ant's
    walls."""

    def goal(place, radius):
        return plt.Circle(place, radius, fill=False, color="green", linestyle="--")

    if env_id in BLOCKS and title in BLOCK_GOALS and not env_options:
        return [goal(envs.BLOCK_GOALS[BLOCK_GOALS[title]], envs.BLOCK_TOLERANCE)]
    if title != "ant, from above":
        return []
    found = [goal(envs.ANT_GOAL, envs.ANT_GOAL_RADIUS)]
    for row, cells in enumerate(envs.ANT_MAZE):
        for column, cell in enumerate(cells):
            if cell == "#":
                corner = (column - 2.5) * envs.ANT_CELL, (row - 1.5) * envs.ANT_CELL
                found.append(plt.Rectangle(corner, envs.ANT_CELL, envs.ANT_CELL, color="lightgrey"))
    return found


def draw(episodes, names, colours, visits, panels, landmarks, title):
    """The figure. episodes, names, colours (K, 4): one a z; visits: as `read_visits` returns them, or None; landmarks:
    title of a panel → what lies behind its states."""
    rows = 2 if visits else 1
    figure = plt.figure(figsize=(3.7 * len(panels) + 3.6, 3.6 * rows + 0.5), layout="constrained")
    grid = figure.add_gridspec(rows, len(panels) + 1, width_ratios=[1.0] * len(panels) + [0.7])
    below, points = [], None
    for column, panel in enumerate(panels):
        paths = [panel.place(episode.obs, np.arange(len(episode.obs))) for episode in episodes]  # (T + 1, 2) each
        axis = figure.add_subplot(grid[0, column])
        for path, colour in zip(paths, colours):
            axis.plot(*path.T, color=colour, linewidth=1.3 if len(path) < 300 else 0.4, alpha=0.85)
            axis.plot(*path[-1], "o", color=colour, markersize=5, markeredgecolor="black", markeredgewidth=0.5)
        axis.plot(*paths[0][0], "X", color="black", markersize=7, zorder=5)
        axis.set_title(panel.title)
        axes, shown = [axis], np.concatenate(paths)
        if visits:
            obs, t, step = visits
            seen = panel.place(obs, t)
            axis = figure.add_subplot(grid[1, column])
            points = axis.scatter(*seen.T, c=step, s=3, cmap="viridis", linewidths=0, rasterized=True)
            axis.set_title(f"{panel.title}: visited in training")
            axes.append(axis)
            below.append(axis)
            shown = np.concatenate([shown, seen])
        low, high = shown.min(0), shown.max(0)
        centre = (low + high) / 2
        half = 1.06 * np.maximum((high - low) / 2, 0.05 + 0.05 * np.abs(centre))  # some width for what never moves
        if panel.equal:
            half = np.full(2, half.max())
        for axis in axes:
            axis.set_xlim(centre[0] - half[0], centre[0] + half[0])
            axis.set_ylim(centre[1] - half[1], centre[1] + half[1])
            axis.set_xlabel(panel.labels[0])
            axis.set_ylabel(panel.labels[1])
            axis.locator_params(nbins=6)
            axis.grid(alpha=0.3)
            for patch in landmarks(panel.title):
                axis.add_patch(patch).set_zorder(0)
            if panel.equal:
                axis.set_aspect("equal")
    if points is not None:
        figure.colorbar(points, ax=below, label="environment step", shrink=0.8, format=lambda x, _: f"{x:,.0f}")
    draw_returns(figure.add_subplot(grid[:, -1]), episodes, names, colours)
    figure.suptitle(title, fontsize=11)
    return figure


def draw_returns(axis, episodes, names, colours):
    """A bar for each z: its return, and whether the episode ended in success, where the environment tells."""
    returns = [episode.summary["episodic_return"] for episode in episodes]
    successes = [episode.summary["success_final"] for episode in episodes]
    places = np.arange(len(names))
    axis.barh(places, returns, color=colours, edgecolor="black", linewidth=0.5)
    axis.axvline(0, color="black", linewidth=0.8)
    if not any(returns):
        axis.set_xlim(0, 1)
    labels = []
    for name, success in zip(names, successes):
        labels.append(f"{name} ✓" if success == 1 else name)
    axis.set_yticks(places, labels)
    for label, colour in zip(axis.get_yticklabels(), colours):
        label.set_bbox({"facecolor": colour, "alpha": 0.35, "edgecolor": "none", "pad": 1.5})
    axis.locator_params(axis="x", nbins=4)
    axis.invert_yaxis()
    known = not math.isnan(successes[0])
    axis.set_title("return" + ("\n(✓: ends in success)" if known else ""))
    axis.grid(alpha=0.3, axis="x")


def write_video(path, episodes, colours, fps):
    """All episodes side by side, each in a frame of its colour; the last frame of one that is over stays."""
    columns = math.ceil(math.sqrt(len(episodes)))
    rows = math.ceil(len(episodes) / columns)
    height, width = (side + 2 * BORDER for side in episodes[0].frames[0].shape[:2])
    sides = 16 * math.ceil(rows * height / 16), 16 * math.ceil(columns * width / 16)  # what video codecs want
    video = envs.Video(path, fps)
    for i in range(max(len(episode.frames) for episode in episodes)):
        picture = np.full((*sides, 3), 255, np.uint8)
        for place, (episode, colour) in enumerate(zip(episodes, colours)):
            top, left = place // columns * height, place % columns * width
            picture[top : top + height, left : left + width] = np.rint(255 * colour[:3])
            frame = episode.frames[min(i, len(episode.frames) - 1)]
            picture[top + BORDER : top + height - BORDER, left + BORDER : left + width - BORDER] = frame
        video.add(picture)
    video.close()


def parse_args():
    parser = command_line(__doc__)
    parser.add_argument("run_dir", type=Path, help="directory of a run of rpg.py or rpg_pixels.py")
    parser.add_argument("--num-z", type=int, default=9, help="how many z, or at most so many categories (default: 9)")
    parser.add_argument("--seed", type=int, default=0, help="of the start state and of the z (default: 0)")
    parser.add_argument("--out", type=Path, help="directory for the files (default: the run's)")
    parser.add_argument("--no-video", action="store_true", help="only modes.png")
    parser.add_argument("--script", type=Path, help="what made the run, if neither of these: a fork")
    parser.add_argument("--num-threads", type=int, default=1, help="of torch (default: 1)")
    args = parser.parse_args()
    if args.num_z < 1 or args.num_threads < 1 or not 0 <= args.seed < 2**63:
        refuse("--num-z and --num-threads must be at least 1, --seed at least 0 and below 2**63")
    if not args.run_dir.is_dir():
        refuse(f"{args.run_dir} is not the directory of a run")
    if (args.run_dir / "maze.npz").exists():
        refuse(f"{args.run_dir} is a run of rpg_maze.py: its maze.png shows what z does")
    if (args.run_dir / "bandit.png").exists():
        refuse(f"{args.run_dir} is a run of rpg_bandit.py: its bandit.png shows what z does")
    if not (args.run_dir / "model.pt").exists():
        refuse(f"{args.run_dir} has no model.pt: not the directory of a run, or one without a checkpoint yet")
    if args.script is not None and not args.script.is_file():
        refuse(f"--script {args.script}: no such file")
    args.out = args.out or args.run_dir
    if not args.out.is_dir():
        refuse(f"--out {args.out}: no such directory")
    return args


def import_script(path):
    """The module of a script, which may lie anywhere and have a dot in its name."""
    sys.path.insert(0, str(path.resolve().parent))
    if path.stem not in sys.modules:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        sys.modules[path.stem] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[path.stem]


def script_of(run_dir):
    """The one of SCRIPTS that has the flags of a run; ValueError if none has, OSError if the run has no args.json."""
    for path in SCRIPTS:
        with contextlib.suppress(ValueError, TypeError):
            envs.load_args(run_dir, import_script(path).Args)
            return path
    raise ValueError("the flags of another version, or of a fork: --script names what made the run")


def sees_images(env):
    return env.observation_space.dtype == np.uint8


def make_env_to_show(args, frames, with_video):
    """(the environment of a run with these Args, seen as so many `frames` or as a state, whether it renders);
    ValueError if it cannot be made at all."""

    def make(render_mode):
        env_kwargs = envs.parse_env_kwargs(args.env_kwargs)
        return envs.make_env(args.env_id, 0, render_mode, args.env_options, env_kwargs, frames)

    if with_video:
        try:
            return make("rgb_array"), True
        except ValueError as error:
            env = make(None)  # else it isn't the renderer
            say(f"no video: {envs.one_line(error)}")
            return env, False
    return make(None), False


def main():
    args = parse_args()
    torch.set_num_threads(args.num_threads)
    try:
        script = import_script(args.script or script_of(args.run_dir))
        agent = script.load_policy(args.run_dir)
        frames = getattr(script, "FRAMES", 0)  # only a script for images has it
        env, renders = make_env_to_show(agent.args, frames, not args.no_video)
    except Exception as error:  # foreign or damaged files, an environment that is not installed here
        refuse(f"{args.run_dir}: {envs.failure(error)}")

    obs, _ = env.reset(seed=args.seed)
    z, names = choose_z(agent, obs, args.num_z, args.seed)
    greedy = agent.args.latent != "none"
    torch.manual_seed(args.seed)
    length = env.spec.max_episode_steps if env.spec else getattr(env.unwrapped, "horizon", None)
    every = math.ceil((length or DECISIONS) / VIDEO_FRAMES)
    episodes = []
    for name, one in zip(names, z):
        episode = play(agent, env, args.seed, one, greedy, renders, every)
        shown = [f"{key} {value:.6g}" for key, value in episode.summary.items() if not math.isnan(value)]
        say(f"{name}: {', '.join(shown)}")
        episodes.append(episode)
    if any(not np.array_equal(episode.obs[0], episodes[0].obs[0]) for episode in episodes):
        say(f"note: {agent.args.env_id} starts differently at one seed, so that not all differences come from z")

    visits = None
    try:
        visits = read_visits(script, args.run_dir, agent, env)
    except Exception as error:  # no file, or a damaged one: the rest can still be shown
        say(f"states visited in training are left out: {envs.failure(error)}")

    states = [episode.obs for episode in episodes] + ([visits[0]] if visits else [])
    object_dim = getattr(env.unwrapped, "object_dim", 0)
    panels = panels_of(agent.args.env_id, object_dim, np.concatenate(states), sees_images(env))
    colours = matplotlib.colormaps["turbo"](np.linspace(0.04, 0.96, len(z)))
    what = f"{len(z)} z, mean actions" if greedy else f"no latent: {len(z)} episodes of sampled actions, noise alone"
    title = [agent.args.env_id, args.run_dir.resolve().name, f"{what}, from one start state (×: seed {args.seed})"]
    landmarks = functools.partial(landmarks_of, agent.args.env_id, agent.args.env_options)
    figure = draw(episodes, names, colours, visits, panels, landmarks, "\n".join(title).replace("$", r"\$"))
    try:
        figure.savefig(args.out / "modes.png", dpi=110)
        say(str(args.out / "modes.png"))
        if renders:
            fps = envs.frame_rate(env.metadata.get("render_fps")) / every
            write_video(args.out / "modes.mp4", episodes, colours, fps)
            say(str(args.out / "modes.mp4"))
    except (OSError, ValueError) as error:
        refuse(f"--out {args.out}: {error}")
    env.close()


if __name__ == "__main__":
    main()

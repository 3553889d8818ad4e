"""What does the RND of rpg_pixels.py pay for a block that is somewhere else? Its networks and its inputs compared.

    python benchmark/pixels_bonus.py        # minutes; writes benchmark/results/pixels_bonus.md

Each kind is trained, as in a run at the laptop's sizes, on frames of block-push-pixels under random actions, which
hardly ever move the block. The table gives the bonus, in standard deviations of the error over what was trained on: of
frames that were trained on, of frames of other such episodes, and where the block stands 0.5, 1 or 1.6 m nearer to its
goal's side of the arena; each as the mean over pusher positions, and over three seeds (smallest to largest).
"""

import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from envs import command_line, make_env, say  # noqa: E402
from rpg_pixels import FRAMES, Agent, Args  # noqa: E402

KINDS = {
    "MLP, 4 x 4 means, normalised (default)": {},
    "MLP, 4 x 4 means, raw": {"rnd_normalize_obs": False},
    "convolutions, normalised": {"rnd_conv": True},
    "convolutions, raw (paper)": {"rnd_conv": True, "rnd_normalize_obs": False},
}
SEEDS = 1, 2, 3
EPISODES = 80  # of random actions
UPDATES = 3000  # of RND: those of 15 000 environment steps
DISTANCES = 0.5, 1.0, 1.6  # m
PUSHERS = 50  # positions of the pusher that a moved block is seen with
LAPTOP = dict(batch_size=64, hidden_dim=128, rnd_dim=128, channels=(16, 32, 32, 32), strides=(4, 2, 1, 1))


def random_frames(env, seed):
    """Observations (n, F, 3, 64, 64) of EPISODES episodes under random actions."""
    rng = np.random.default_rng(seed)
    seen = []
    for _ in range(EPISODES):
        obs, info = env.reset(seed=seed)
        while not info:
            seen.append(obs)
            obs, _, _, _, info = env.step(rng.uniform(-1, 1, 2).astype(np.float32))
    return torch.from_numpy(np.stack(seen))


def moved_frames(env, distance, seed):
    """Observations (PUSHERS, F, 3, 64, 64): the block `distance` m above its place, the pusher anywhere below."""
    task = env.unwrapped
    rng = np.random.default_rng(seed)
    obs, _ = env.reset(seed=seed)
    frames = []
    for _ in range(PUSHERS):
        block, pusher = task.data.qpos.reshape(-1, 2)
        start = block.copy()
        block[1] += distance
        pusher[:] = rng.uniform(-1.6, 1.6), rng.uniform(-1.6, -1.0)
        image = np.moveaxis(task.picture(obs.shape[-1]), -1, 0)
        frames.append(np.stack([image] * FRAMES))
        block[:] = start
    return torch.from_numpy(np.stack(frames))


def bonuses(kind, seed):
    """The mean bonus of: frames trained on, unseen frames of random actions, and the block moved by each of
    DISTANCES."""
    torch.manual_seed(seed)
    env = make_env("block-push-pixels", seed, frames=FRAMES)
    seen = random_frames(env, seed)
    agent = Agent(2, 12, Args(**LAPTOP, **KINDS[kind]), torch.device("cpu"))
    for _ in range(UPDATES):
        loss = agent.rnd_loss(seen[torch.randint(len(seen), (agent.args.batch_size,))])
        agent.rnd_optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(agent.rnd.g.parameters(), agent.args.max_grad_norm)
        agent.rnd_optimizer.step()
    shown = [seen[::10], random_frames(env, 100 + seed)[::10]]
    shown += [moved_frames(env, distance, seed) for distance in DISTANCES]
    with torch.no_grad():
        return [agent.rnd.bonus(obs).mean().item() for obs in shown]


def main():
    command_line(__doc__).parse_args()
    torch.set_num_threads(1)
    header = ["RND", "trained on", "other episodes", *[f"block moved by {distance} m" for distance in DISTANCES]]
    lines = [" | ".join(["", *header, ""]).strip(), "|---" * len(header) + "|"]
    for kind in KINDS:
        table = np.array([bonuses(kind, seed) for seed in SEEDS])  # (seeds, columns)
        cells = [f"{column.mean():.2f} ({column.min():.2f} to {column.max():.2f})" for column in table.T]
        lines.append(" | ".join(["", kind, *cells, ""]).strip())
        say(lines[-1])
    path = ROOT / "benchmark/results/pixels_bonus.md"
    path.write_text("\n".join(lines) + "\n")
    say(str(path))


if __name__ == "__main__":
    main()

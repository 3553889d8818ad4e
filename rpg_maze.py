"""Reparameterized Policy Gradient (RPG): Huang et al., Reparameterized Policy Learning for Multimodal Trajectory
Optimization, ICML 2023. Pure exploration of the maze of Fig. 5, with every ablation of Fig. 8; all in this file but the
maze, which is in envs.py.

    python rpg_maze.py                                          # RPG: z ~ N(0, I), RND, no reward; minutes on a CPU
    python rpg_maze.py --latent none                            # one Gaussian, the paper's MBSAC (Figs. 5 and 8A)
    python rpg_maze.py --latent none --policy gmm               # other policies (Fig. 8E): gmm, flow, cem

A latent z ~ π(z|s₁) is drawn once an episode, actions from π(a|s,z). A GRU world model, learned without
reconstruction (Eq. 4), is rolled out under the policy to estimate values (Eq. 3), and the policy climbs their
gradient. The reward is r − α log π(a|s,z) + β log p(z|s,a) (Sec. 4.3), less a term of z alone (Posterior.baseline);
r is an RND bonus (Sec. 4.3.2).
The metric: coverage, the share of the 10 x 10 unit squares of the maze visited so far.

    paper  here    shape    what
    o      obs     (B, O)   observation: position x 0.01, then position / 5, which is encoded
    s      s       (B, S)   latent state s = f(o)  (TD-MPC calls this z)
    z      z       (B, Z)   latent of the policy, constant over an episode; Z = 0 for --latent none
    a      a       (B, A)   action in [-1, 1]: a move along x and y
    K      horizon  H       steps the model is rolled out
"""

import contextlib
import copy
import json
import math
import os
import signal
import sys
import threading
import time
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn as nn
import tyro
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

from envs import (
    MAZE_HALF,
    MAZE_LENGTH,
    MAZE_WALLS,
    Maze,
    average,
    keep_freed_memory,
    make_vector_env,
    one_line,
    refuse,
    show_progress,
)


@dataclass
class Args:
    # --- experiment
    exp_name: str = Path(__file__).stem  # name of the experiment, part of the run's name
    seed: int = 1  # seed of networks, sampling and environments
    cuda: bool = True  # run on a GPU where there is one
    figure_frequency: int = 50_000  # environment steps between the policies drawn in maze.png; 0: the last one only
    checkpoint_frequency: int = 50_000  # steps between checkpoints, which end the running episodes; 0: one at the end
    resume: str | None = None  # directory of a run to continue up to --total-timesteps, with its own flags
    # --- environment
    goal: str | None = None  # x,y (0 to 4 each): reward 1 in that cell; default: no reward but RND's
    num_envs: int = 5  # agents moved side by side; one update for each step of all (paper: 5 steps an update)
    # --- replay and schedule
    total_timesteps: int = 250_000  # environment steps, summed over the agents (paper Fig. 8)
    buffer_size: int = 800_000  # transitions the replay holds (paper Table 1)
    learning_starts: int = 1_000  # environment steps before the first update (paper Table 1: seed step)
    batch_size: int = 64  # segments in a model update, states in a policy or RND update (paper Table 1: 512)
    learning_rate: float = 1e-3  # Adam's step size, for all networks (paper Table 1: 3e-4, at batch 512)
    max_grad_norm: float = 1.0  # gradients are clipped to this norm (paper Table 1)
    gamma: float = 0.99  # discount factor (paper Table 1)
    tau: float = 0.005  # share of the online weights mixed into the target network (paper Table 1)
    policy_frequency: int = 2  # updates between policy updates (paper Table 1)
    target_network_frequency: int = 2  # updates between target network updates (official code)
    reward_scale: float = 5.0  # 1/T of the ELBO reward, multiplies the reward of --goal (official sparse runs)
    # --- world model
    horizon: int = 3  # steps the model is rolled out, in training and for values (paper Table 1; K in Eqs. 3 and 4)
    hidden_dim: int = 128  # width of all hidden layers and of the GRU (paper App. A: 256)
    state_dim: int = 100  # size of the latent state s (paper Table 1)
    num_frequencies: int = 6  # of the positional encoding, for all networks (paper Table 1); 0: none (Fig. 8D)
    consistency_coef: float = 1000.0  # L1 of Eq. 4, weight of the latent state's error
    reward_coef: float = 0.5  # L2 of Eq. 4, weight of the reward's error
    value_coef: float = 0.5  # L3 of Eq. 4, weight of the value's error
    # --- latent policy
    latent: Literal["gaussian", "categorical", "none"] = "gaussian"  # z (Fig. 8A); none: no z anywhere
    latent_dim: int = 12  # dimensions, or categories, of z (paper Table 1; Fig. 8C)
    beta: float = 0.01  # β, weight of log p(z|s,a) in the reward (the curve "ours" of Fig. 8; Table 1: 0.005)
    posterior_std: float = 0.38  # standard deviation of the Gaussian p(z|s,a) (paper Table 1)
    z_baseline: bool = True  # leave the term of z alone out of β log p(z|s,a), see Posterior.baseline (paper: it stays)
    policy: Literal["gaussian", "gmm", "flow", "cem"] = "gaussian"  # π(a|s,z) (Fig. 8E); cem: gaussian, but it plans
    alpha: float = 0.01  # α, weight of the action entropy: fixed, or --autotune's first value (paper Table 1)
    autotune: bool = True  # tune α so that the entropy of π(a|s,z) approaches −|A| (paper Table 1)
    # --- exploration
    rnd_coef: float = 0.1  # weight of the RND bonus (paper Table 1); 0: no RND
    rnd_dim: int = 128  # width and output size of the RND networks (paper App. A: 512)
    rnd_buffer_size: int | None = None  # newest transitions that RND learns from (Fig. 8D); default: all
    rnd_normalize: bool = True  # subtract the running mean of the RND error and divide by its deviation (Sec. 4.3.2)
    # --- speed
    compile: bool = False  # torch.compile the losses and their gradients: a minute's wait, then faster updates
    cudagraphs: bool = False  # replay each kind of update as one captured CUDA graph; on a CPU: no effect, and a note


N_STEP_DECAY = 0.97  # V_est weights its k-step estimates by 0.97^(k-1) (official code)
RND_WARMUP, RND_CLIP = 100, 100.0  # updates before RND's normaliser counts; bound of the bonus, in std (official code)
LOG_FREQUENCY, RECENT = 1_000, 50  # environment steps between rows of losses; episodes in the progress and the summary
GRAPH_WARMUP, BURN_IN = 3, 20  # eager updates of a kind before its capture; updates before the clock of the SPS starts
COMPONENTS, COUPLINGS = 12, 4  # of --policy gmm and of --policy flow (official code)
CEM_SAMPLES, CEM_ELITES, CEM_ITERATIONS, CEM_MIN_STD = 64, 8, 3, 0.05  # --policy cem: sequences tried, kept, rounds
TRAJECTORIES, SHOWN = 64, 6  # episodes in a snapshot of the policy; snapshots in maze.png, at most
CHANGEABLE = {"resume", "total_timesteps", "figure_frequency", "checkpoint_frequency", "cuda", "compile", "cudagraphs"}


def check_args(args, given):
    """Refuse impossible values, and flags (names in the set `given`) that would have no effect."""
    may_be_0 = {
        "seed",
        "figure_frequency",
        "checkpoint_frequency",
        "num_frequencies",
        "consistency_coef",
        "reward_coef",
        "value_coef",
        "beta",
        "rnd_coef",
    }
    for name, value in vars(args).items():
        if type(value) in (int, float) and not (0 < value < math.inf or value == 0 and name in may_be_0):
            refuse(f"--{name.replace('_', '-')} {value}: must be {'at least' if name in may_be_0 else 'above'} 0")
    start, size, rows = args.learning_starts, args.buffer_size, args.num_envs * (args.horizon + 2)
    for wrong, message in (
        (max(args.gamma, args.tau) > 1 or args.seed >= 2**20, "--gamma, --tau must be at most 1, --seed below 2**20"),
        (start < args.batch_size, f"--batch-size {args.batch_size} is more than --learning-starts {start} can fill"),
        (start < rows, f"--learning-starts {start} must be at least num_envs * (horizon + 2) = {rows}"),
        (size < max(start, args.rnd_buffer_size or 0), "--buffer-size is below --learning-starts or --rnd-buffer-size"),
        (args.goal is None and given & {"reward_scale"}, "no --goal"),
        (args.latent == "none" and given & {"latent_dim", "beta", "posterior_std", "z_baseline"}, "--latent none"),
        (args.latent == "categorical" and given & {"posterior_std"}, "--latent categorical"),
        (args.beta == 0 and given & {"z_baseline"}, "--beta 0"),
        (args.rnd_coef == 0 and given & {"rnd_dim", "rnd_buffer_size", "rnd_normalize"}, "--rnd-coef 0"),
    ):
        if wrong:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(wrong)) if wrong is not True else ""
            refuse(f"{flags}: no effect with {message}" if flags else message)


def mlp(in_dim, width, out_dim, act=nn.ELU):
    """A network with two hidden layers (paper App. A)."""
    return nn.Sequential(nn.Linear(in_dim, width), act(), nn.Linear(width, width), act(), nn.Linear(width, out_dim))


def normal_log_prob(x, mean, log_std):
    """log N(x; mean, exp(log_std)²), summed over the last dimension."""
    return (-0.5 * ((x - mean) * (-log_std).exp()).square() - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)


class PositionalEncoding(nn.Module):
    """Append sin 2ᵏx, then cos 2ᵏx, k < `num_frequencies`, of the last `object_dim` entries of obs (Sec. 4.3.2)."""

    def __init__(self, obs_dim, object_dim, num_frequencies):
        super().__init__()
        self.start, self.out_dim = obs_dim - object_dim, obs_dim + 2 * num_frequencies * object_dim
        self.register_buffer("frequencies", 2.0 ** torch.arange(num_frequencies), persistent=False)

    def forward(self, obs):
        angles = (obs[..., self.start :, None] * self.frequencies).flatten(-2)  # (..., object_dim * num_frequencies)
        return torch.cat([obs, angles.sin(), angles.cos()], -1)  # (..., out_dim)


# ALGO LOGIC: replay
class Replay:
    """Ring of shape (rows, num_envs, width). A row holds [o_t | a_t | z | r_t, terminated_t, last_t, t] of each
    environment; last = 1 marks an episode's final observation: no action was taken, o_{t+1} is always the next row."""

    def __init__(self, capacity, num_envs, obs_dim, act_dim, latent_dim, device):
        self.sizes = [obs_dim, act_dim, latent_dim, 4]
        self.data = torch.zeros(capacity // num_envs, num_envs, sum(self.sizes), device=device)
        self.head, self.filled = torch.zeros(2, dtype=torch.long, device=device)  # next row to write; rows with data

    def add(self, obs, a, z, outcome):
        """Write one row: obs (N, O), a (N, A), z (N, Z), outcome (N, 4) = reward, terminated, last, t."""
        self.data.index_copy_(0, self.head.view(1), torch.cat([obs, a, z, outcome], -1)[None])
        self.head.add_(1).remainder_(len(self.data))
        self.filled.add_(1).clamp_(max=len(self.data))

    def draw(self, shape, span, newest=None):
        """Indices (row, env), uniform over the rows (of the `newest` entries) that begin `span` rows of the ring."""
        rows = self.filled if newest is None else self.filled.clamp(max=math.ceil(newest / self.data.shape[1]))
        offset = torch.rand(shape, dtype=torch.float64, device=self.data.device) * (rows - span + 1)
        row = (self.head - rows + offset.long()) % len(self.data)
        return row, torch.randint(self.data.shape[1], shape, device=self.data.device)

    def sample_states(self, batch_size, newest=None):
        """obs (B, O), uniform (over the `newest` entries), and its z (B, Z)."""
        obs, _, z, _ = self.data[self.draw((batch_size,), 1, newest)].split(self.sizes, -1)
        return obs, z

    def sample_segments(self, batch_size, horizon):
        """Segments of `horizon` transitions for Eq. 4: obs (H+1, B, O); a (H, B, A); z (B, Z); reward, terminated, mask
        (H, B). They start at any transition; mask is 0 after the one that ends the episode: the next one's rows."""
        row, env = self.draw((4, batch_size), horizon + 1)  # four candidates each: take the first that is a transition
        first = (self.data[row, env, -2] == 0).float().argmax(0, keepdim=True)  # (if none is, its mask is all zeros)
        row, env = row.gather(0, first), env.gather(0, first)  # (1, B)
        rows = (row + torch.arange(horizon + 1, device=row.device)[:, None]) % len(self.data)  # (H+1, B)
        obs, a, z, outcome = self.data[rows, env].split(self.sizes, -1)  # (H+1, B, ·)
        reward, terminated, last, _ = outcome[:-1].unbind(-1)  # (H, B)
        return obs, a[:-1], z[0], reward, terminated, (1 - last).cumprod(0)


# ALGO LOGIC: networks
class WorldModel(nn.Module):
    """Encoder f, GRU dynamics h, reward R and twin value V (Sec. 4.3.1); Q(s_t, a_t, z) is R + γ V(s_{t+1}, z)."""

    def __init__(self, obs_dim, object_dim, act_dim, latent_dim, args):
        super().__init__()
        width, state_dim = args.hidden_dim, args.state_dim
        encoding = PositionalEncoding(obs_dim, object_dim, args.num_frequencies)
        self.encoder = nn.Sequential(encoding, mlp(encoding.out_dim, width, state_dim))  # s = f(o)
        self.action_encoder = mlp(act_dim, width, width)  # e
        self.init_hidden = mlp(state_dim, width, width)  # h₀
        self.gru = nn.GRUCell(width, width)  # (e_t, h_t) → h_{t+1}
        self.state_head = mlp(width, width, state_dim)  # s_{t+1}
        self.reward_head = mlp(state_dim + width, width, 1)
        self.values = nn.ModuleList(mlp(state_dim + latent_dim, width, 1) for _ in range(2))

    def reward(self, next_s, e):
        """R(s_t, a_t), from what the model made of both: next_s (..., S), e (..., D) → (...)."""
        return self.reward_head(torch.cat([next_s, e], -1)).squeeze(-1)

    def value(self, s, z, twins):
        """V_i(s, z) of the first `twins` twins: s (..., S), z (..., Z) → (twins, ...)."""
        x = torch.cat([s, z], -1)
        return torch.stack([value(x).squeeze(-1) for value in self.values[:twins]])


def squash(u, logp_u):
    """a = tanh(u) and log π(a) from log π(u): u (..., A), logp_u (...)."""
    log_slope = 2 * (math.log(2) - u - nn.functional.softplus(-2 * u))  # log(1 − tanh²u), exact for large |u| too
    return u.tanh(), logp_u - log_slope.sum(-1)


class GaussianPolicy(nn.Module):
    """π(a|s,z), a tanh-Normal: a = tanh(u), u ~ N(mean, std²), std = 0.4 exp(clip(log std, −20, 2))."""

    def __init__(self, act_dim, latent_dim, args):
        super().__init__()
        self.net = mlp(args.state_dim + latent_dim, args.hidden_dim, 2 * act_dim)

    def forward(self, s, z):
        """a (..., A), reparameterised, and log π(a|s,z) (...) at s (..., S), z (..., Z)."""
        mean, log_std = self.net(torch.cat([s, z], -1)).chunk(2, -1)
        log_std = log_std.clamp(-20, 2) + math.log(0.4)
        u = mean + log_std.exp() * torch.randn_like(mean)
        return squash(u, normal_log_prob(u, mean, log_std))


class GMMPolicy(nn.Module):
    """π(a|s,z), a mixture of tanh-Normals. A component is drawn by Gumbel-softmax, one-hot going forward and soft going
    back; the log-probability is that of the mixture."""

    def __init__(self, act_dim, latent_dim, args):
        super().__init__()
        self.act_dim = act_dim
        self.net = mlp(args.state_dim + latent_dim, args.hidden_dim, COMPONENTS * (1 + 2 * act_dim))

    def forward(self, s, z):
        """As GaussianPolicy.forward."""
        logits, rest = self.net(torch.cat([s, z], -1)).split([COMPONENTS, 2 * COMPONENTS * self.act_dim], -1)
        mean, log_std = rest.unflatten(-1, (COMPONENTS, -1)).chunk(2, -1)  # (..., C, A)
        log_std = log_std.clamp(-20, 2) + math.log(0.4)
        draws = mean + log_std.exp() * torch.randn_like(mean)
        u = (nn.functional.gumbel_softmax(logits, hard=True)[..., None] * draws).sum(-2)  # (..., A)
        logp = logits.log_softmax(-1) + normal_log_prob(u[..., None, :], mean, log_std)  # (..., C)
        return squash(u, logp.logsumexp(-1))


class FlowPolicy(nn.Module):
    """π(a|s,z), a normalising flow: noise ~ N(0, 0.4²) through affine couplings, then tanh."""

    def __init__(self, act_dim, latent_dim, args):
        super().__init__()
        self.sizes, in_dim = (act_dim // 2, act_dim - act_dim // 2), args.state_dim + latent_dim
        self.nets = nn.ModuleList(
            mlp(in_dim + self.sizes[i % 2], args.hidden_dim, 2 * self.sizes[1 - i % 2]) for i in range(COUPLINGS)
        )  # an even number: the parts end in their order

    def forward(self, s, z):
        """As GaussianPolicy.forward."""
        condition = torch.cat([s, z], -1)
        zeros = condition.new_zeros(*condition.shape[:-1], sum(self.sizes))
        u = 0.4 * torch.randn_like(zeros)
        logp = normal_log_prob(u, zeros, zeros + math.log(0.4))
        stays, moves = u.split(self.sizes, -1)
        for net in self.nets:
            shift, log_scale = net(torch.cat([condition, stays], -1)).chunk(2, -1)
            log_scale = log_scale.clamp(-5, 5)
            stays, moves = moves * log_scale.exp() + shift, stays  # the next coupling moves the other part
            logp = logp - log_scale.sum(-1)
        return squash(torch.cat([stays, moves], -1), logp)


POLICIES = {"gaussian": GaussianPolicy, "gmm": GMMPolicy, "flow": FlowPolicy, "cem": GaussianPolicy}


def sample_z(n, args, device):
    """z (n, Z) ~ π(z|s₁), which is fixed: N(0, I), or uniform over one-hot z; Z = 0 for --latent none."""
    if args.latent == "categorical":
        index = torch.randint(args.latent_dim, (n,), device=device)
        return nn.functional.one_hot(index, args.latent_dim).float()
    return torch.randn(n, args.latent_dim * (args.latent != "none"), device=device)


class Posterior(nn.Module):
    """p(z|s,a), the auxiliary distribution p_φ of Sec. 4.2, with log p(z|τ) = Σ_t log p(z|s_t,a_t)."""

    def __init__(self, act_dim, latent_dim, args):
        super().__init__()
        self.categorical, self.log_std = args.latent == "categorical", math.log(args.posterior_std)
        self.net = mlp(args.state_dim + act_dim, args.hidden_dim, latent_dim)  # logits, or the mean

    def log_prob(self, s, a, z):
        """log p(z|s,a): s (..., S), a (..., A), z (..., Z) → (...)."""
        out = self.net(torch.cat([s, a], -1))
        if self.categorical:
            return (z * out.log_softmax(-1)).sum(-1)
        return normal_log_prob(z, out, torch.full_like(out, self.log_std))

    def baseline(self, z):
        """log p(z|s,a) where (s, a) tell nothing: uniform, or with mean 0; z (..., Z) → (...). π(z|s₁) is fixed and no
        episode terminates, so a term of z alone in each reward shifts V by a number of z and moves no optimum. But
        this one is −41 on average (Gaussian z, 12 dimensions), and V would spend itself on learning its sum."""
        if self.categorical:
            return torch.full_like(z[..., 0], -math.log(z.shape[-1]))
        return normal_log_prob(z, torch.zeros_like(z), torch.full_like(z, self.log_std))


class RND(nn.Module):
    """Object-centric random network distillation (Sec. 4.3.2): g learns to copy a fixed random network g′ on states of
    the replay, and fails where states are new. The error is normalised by its running mean and deviation."""

    def __init__(self, obs_dim, object_dim, args):
        super().__init__()
        self.encoding = PositionalEncoding(obs_dim, object_dim, args.num_frequencies)
        self.g, self.g_fixed = (mlp(self.encoding.out_dim, args.rnd_dim, args.rnd_dim, nn.LeakyReLU) for _ in range(2))
        self.g_fixed.requires_grad_(False)
        self.normalize = args.rnd_normalize
        for name in ("updates", "count", "mean", "m2"):  # m2: sum of squared deviations; float64, as counts pass 2²⁴
            self.register_buffer(name, torch.zeros((), dtype=torch.float64))

    def error(self, obs):
        """‖g(o) − g′(o)‖², as the mean over the output's entries: (..., O) → (...)."""
        x = self.encoding(obs)
        return (self.g(x) - self.g_fixed(x)).square().mean(-1)

    def update_normalizer(self, error):
        """Merge a batch of errors (B,) into the running statistics (Welford's method, Chan's rule for batches)."""
        self.updates += 1
        error = error.double()
        n = error.numel() * (self.updates > RND_WARMUP)  # 0 in the warm-up, when nothing below changes
        delta, total = error.mean() - self.mean, (self.count + n).clamp(min=1)
        self.m2 += (n > 0) * (error - error.mean()).square().sum() + delta.square() * self.count * n / total
        self.mean += delta * n / total
        self.count += n

    def bonus(self, obs):
        """clip((error − mean) / std, ±100), 0 during the warm-up: (..., O) → (...). Well-known states cost. Without
        --rnd-normalize the error itself."""
        if not self.normalize:
            return self.error(obs)
        std = (self.m2 / self.count.clamp(min=1)).sqrt().clamp(min=1e-8)
        return (((self.error(obs) - self.mean) / std).clamp(-RND_CLIP, RND_CLIP) * (self.count > 0)).to(obs.dtype)


# ALGO LOGIC: values and losses
def mean_k_step_value(rewards, values, gamma):
    """Eq. 3 for every k = 1…H, V_k = Σ_{t<k} γᵗ(r_t + r′_t) + γᵏ V(s_k, z), averaged with weights 0.97^(k−1).
    Args: rewards (H, B), the r_t + r′_t; values (twins, H, B), from V(s_1) to V(s_H). Returns: (twins, B)."""
    t = torch.arange(len(rewards), device=rewards.device, dtype=rewards.dtype)[:, None]  # (H, 1)
    v_k = (gamma**t * rewards).cumsum(0) + gamma ** (t + 1) * values  # (twins, H, B)
    weights = N_STEP_DECAY**t / (N_STEP_DECAY**t).sum()
    return (weights * v_k).sum(-2)


def value_estimate(model, policy, posterior, s, z, alpha, args, twins):
    """V_est(s, z) of Eq. 3: the model is rolled out from s (B, S) with actions a ~ π(a|s,z), z (B, Z).
    Returns: V_est of the first `twins` twins (twins, B); s (H, B, S), where it acted; a (H, B, A); logp_a (H, B)."""
    rollout, h = [], model.init_hidden(s)
    for _ in range(args.horizon):
        a, logp_a = policy(s, z)
        e = model.action_encoder(a)
        h = model.gru(e, h)
        next_s = model.state_head(h)
        rollout.append((s, a, e, logp_a, next_s))
        s = next_s
    s, a, e, logp_a, next_s = (torch.stack(x) for x in zip(*rollout))  # (H, B, ·)
    z = z.expand(args.horizon, *z.shape)  # (H, B, Z)
    r_elbo = -alpha * logp_a  # r′_t = −α log π(a_t|s_t,z) + β log p(z|s_t,a_t), Sec. 4.3, less a baseline
    if posterior is not None:
        r_elbo = r_elbo + args.beta * (posterior.log_prob(s, a, z) - args.z_baseline * posterior.baseline(z))
    v_est = mean_k_step_value(model.reward(next_s, e) + r_elbo, model.value(next_s, z, twins), args.gamma)
    return v_est, s, a, logp_a


def as_cuda_graphs(update):
    """`update` of one replay, where each kind, (with_policy, with_target), becomes a CUDA graph after some eager calls:
    the same kernels and random numbers, launched at once. A call's logs are overwritten by the next of its kind."""
    calls, graphs = Counter(), {}

    def update_or_replay(replay, *kind):
        calls[kind] += 1
        if calls[kind] <= GRAPH_WARMUP:  # makes Adam's state, library handles, compiled code
            return update(replay, *kind)
        if kind not in graphs:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):  # recorded, not run
                graphs[kind] = graph, update(replay, *kind)
        graph, logs = graphs[kind]
        graph.replay()
        return logs

    return update_or_replay


class Agent(nn.Module):
    """All networks, the losses that train them, their optimiser, and the update: one step of each."""

    def __init__(self, obs_dim, object_dim, act_dim, latent_dim, args, device):
        super().__init__()
        self.args, self.act_dim = args, act_dim
        self.model = WorldModel(obs_dim, object_dim, act_dim, latent_dim, args)
        self.policy = POLICIES[args.policy](act_dim, latent_dim, args)
        self.posterior = Posterior(act_dim, latent_dim, args) if latent_dim else None
        self.rnd = RND(obs_dim, object_dim, args) if args.rnd_coef else None
        for parameter in self.parameters():
            nn.init.orthogonal_(parameter) if parameter.ndim > 1 else nn.init.zeros_(parameter)
        self.target_model = copy.deepcopy(self.model).requires_grad_(False)
        self.log_alpha = nn.ParameterList([torch.zeros(())])  # α = args.alpha exp(log α)
        self.to(device)
        trained = {
            "rnd_loss": self.rnd and self.rnd.g,
            "model_loss": self.model,
            "policy_loss": self.policy,
            "alpha_loss": self.log_alpha,
            "info_loss": self.posterior,
        }
        self.trained = {loss: [*net.parameters()] for loss, net in trained.items() if net}  # which loss trains what
        self.adam = torch.optim.Adam(
            sum(self.trained.values(), []),
            args.learning_rate,
            fused=True,
            capturable=args.cudagraphs and device.type == "cuda",
        )
        if args.compile:  # the random numbers stay those of a run that is not compiled
            options = {"fallback_random": True, "guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe}
            torch._dynamo.config.trace_autograd_ops = True
            self.gradients = torch.compile(self.gradients, fullgraph=True, options=options)
        if args.cudagraphs and device.type == "cuda":
            self.update = as_cuda_graphs(self.update)

    def rnd_losses(self, obs, *_):
        """Fit g to states of the replay, obs (B, O), and the normaliser to their errors."""
        error = self.rnd.error(obs)
        with torch.no_grad():
            self.rnd.update_normalizer(error)
        return {"rnd_loss": error.mean()}, {}

    def model_losses(self, obs, a, z, reward, terminated, mask):
        """Eq. 4 on segments of H replayed transitions: obs (H+1, B, O); a (H, B, A); z (B, Z); the others (H, B)."""
        args, model, target_model, logs = self.args, self.model, self.target_model, {}
        reward, z = args.reward_scale * reward, z.expand(args.horizon, *z.shape)  # R / T; (H, B, Z)
        with torch.no_grad():
            if self.rnd:  # relabel: the bonus is never stored
                bonus = self.rnd.bonus(obs[1:])  # (H, B)
                reward = reward + args.rnd_coef * bonus
                logs["rnd_reward"] = (mask * bonus).sum() / mask.sum().clamp(min=1)
            # targets: f̄(o_{t+1}) and V̄_est(o_{t+1}, z), lesser twin, no entropy (official code)
            next_s_target = target_model.encoder(obs[1:])  # (H, B, S)
            v_target = value_estimate(
                target_model,
                self.policy,
                self.posterior,
                next_s_target.flatten(0, 1),
                z.flatten(0, 1),
                0.0,
                args,
                twins=2,
            )[0]  # (2, H * B)
            v_target = v_target.amin(0).view_as(mask) * (1 - terminated)  # 0 if terminated, not at a time limit
        h, e, hidden = model.init_hidden(model.encoder(obs[0])), model.action_encoder(a), []
        for t in range(args.horizon):
            h = model.gru(e[t], h)
            hidden.append(h)
        next_s = model.state_head(torch.stack(hidden))  # (H, B, S)
        values = model.value(next_s, z, twins=2)  # (2, H, B); as Q = R + γV, Eq. 4 compares V
        consistency_loss = (mask * (next_s - next_s_target).square().mean(-1)).mean()
        reward_loss = (mask * (model.reward(next_s, e) - reward).square()).mean()
        value_loss = (mask * (values - v_target).square().sum(0)).mean()
        loss = args.consistency_coef * consistency_loss + args.reward_coef * reward_loss + args.value_coef * value_loss
        return {"model_loss": loss}, logs | {
            "consistency_loss": consistency_loss,
            "reward_loss": reward_loss,
            "value_loss": value_loss,
            "values": values.mean(),
        }

    def policy_losses(self, obs, z):
        """Improve π(a|s,z), α and p(z|s,a) in imagination: obs (B, O), z (B, Z)."""
        args, posterior, nets = self.args, self.posterior, (self.model, self.policy, self.posterior)
        alpha = args.alpha * self.log_alpha[0].detach().exp()
        v_est, s, a, logp_a = value_estimate(*nets, self.model.encoder(obs).detach(), z, alpha, args, twins=1)
        losses = {"policy_loss": -v_est.mean()}  # the gradient flows through the model and p(z|s,a) into π only
        logs = {"alpha": alpha, "entropy": -logp_a.detach().mean()}
        if args.autotune:  # α falls while the entropy is above its target −|A|
            losses["alpha_loss"] = args.alpha * self.log_alpha[0].exp() * (logs["entropy"] + self.act_dim)
        if posterior:  # the cross entropy −log p(z|s,a) of Eq. 2, on the imagined trajectories
            losses["info_loss"] = -posterior.log_prob(s.detach(), a.detach(), z).mean()
            logs["info_reward"] = -args.beta * (losses["info_loss"] + args.z_baseline * posterior.baseline(z).mean())
        return losses, logs

    def gradients(self, losses_of, *sample):
        """({loss: its clipped gradients}, logs), where losses_of(*sample) gives ({loss: its value}, further logs)."""
        (losses, logs), gradients = losses_of(*sample), {}
        for key, loss in losses.items():
            gradient = torch.autograd.grad(loss, self.trained[key])
            norm = nn.utils.get_total_norm(gradient)
            gradients[key] = torch._foreach_mul(gradient, (self.args.max_grad_norm / (norm + 1e-6)).clamp(max=1))
            logs |= {"grad_norm": norm} if key == "model_loss" else {}
        return gradients, {key: value.detach() for key, value in (losses | logs).items()}

    def descend(self, losses_of, sample):
        """One step of Adam down the gradients of these losses; it leaves all other networks alone. Returns the logs."""
        gradients, logs = self.gradients(losses_of, *sample)
        self.adam.zero_grad()
        for key in gradients:
            for parameter, gradient in zip(self.trained[key], gradients[key]):
                parameter.grad = gradient
        self.adam.step()
        return logs

    def update(self, replay, with_policy, with_target):
        """Algorithm 1: one step of every network that is due, on fresh samples, with no host sync. Returns the logs."""
        args, logs = self.args, {}
        segments = replay.sample_segments(args.batch_size, args.horizon)
        if self.rnd:
            logs |= self.descend(self.rnd_losses, replay.sample_states(args.batch_size, args.rnd_buffer_size))
        logs |= self.descend(self.model_losses, segments)
        if with_policy:
            logs |= self.descend(self.policy_losses, replay.sample_states(args.batch_size))
        if with_target:
            online = [p.detach() for p in self.model.parameters()]
            torch._foreach_lerp_([*self.target_model.parameters()], online, args.tau)
        return logs


def write_checkpoint(run_dir, state, replay):
    """Renaming checkpoint.pt, when all files are complete, makes them count; read_checkpoint finishes the renaming."""
    ring = {"data": replay.data[: int(replay.filled)].clone(), "head": replay.head, "filled": replay.filled}
    files = {"checkpoint.pt": state, "buffer.pt": ring | {"rng": torch.cat(state["rng"])}, "model.pt": state["agent"]}
    for name, content in files.items():
        with open(run_dir / f"{name}.new", "wb") as file:
            torch.save(content, file)
            file.flush(), os.fsync(file.fileno())  # a power cut must not leave the name with nothing behind it
    for name in files:
        os.replace(run_dir / f"{name}.new", run_dir / name)


def read_checkpoint(run_dir, device):
    """The newest complete checkpoint: (state, ring). An exception if there is none, or if a bit of it has changed."""
    complete = not (run_dir / "checkpoint.pt.new").exists()  # else a kill came before the renaming
    for path in sorted(run_dir.glob("*.new"), key=lambda path: "checkpoint" in path.name):  # that one last
        path.replace(path.with_suffix("")) if complete and path.stem.endswith(".pt") else path.unlink()
    files = run_dir / "checkpoint.pt", run_dir / "buffer.pt"
    state, ring = (torch.load(file, device, weights_only=True) for file in files)  # this looks at no checksum
    if any(zipfile.ZipFile(file).testzip() for file in files) or not torch.equal(torch.cat(state["rng"]), ring["rng"]):
        raise ValueError("wrong checksum, or files of two checkpoints")
    return state, ring


@torch.no_grad()
def plan(model, posterior, s, z, act_dim, args):
    """--policy cem: actions (B, A) at s (B, S), z (B, Z), by the cross-entropy method. Sequences of `horizon` actions
    are drawn from a Gaussian, valued in the model as in Eq. 3, and the Gaussian is fitted to the best of them. It only
    acts: the values that it plans with, and α, are those of the Gaussian π(a|s,z), trained as ever."""
    shape = args.horizon, len(s), CEM_SAMPLES, act_dim
    mean, std = s.new_zeros(args.horizon, len(s), 1, act_dim), s.new_ones(args.horizon, len(s), 1, act_dim)
    s, z = s.repeat_interleave(CEM_SAMPLES, 0), z.repeat_interleave(CEM_SAMPLES, 0)
    for _ in range(CEM_ITERATIONS):
        a = (mean + std * torch.randn(shape, device=s.device)).clamp(-1, 1)
        steps = iter(a.flatten(1, 2))  # (B * samples, A) each
        planned = lambda s, z: (next(steps), s.new_zeros(len(s)))  # noqa: E731  in the place of π(a|s,z)
        v_est, *_ = value_estimate(model, planned, posterior, s, z, 0.0, args, twins=2)
        best = v_est.amin(0).view(shape[1:3]).topk(CEM_ELITES, -1).indices  # (B, elites)
        elites = a.gather(2, best[None, :, :, None].expand(args.horizon, -1, -1, act_dim))
        mean, std = elites.mean(2, keepdim=True), elites.std(2, keepdim=True).clamp(min=CEM_MIN_STD)
    return (mean[0, :, 0] + std[0, :, 0] * torch.randn_like(mean[0, :, 0])).clamp(-1, 1)


def plot(snapshots, visits, coverage, path, latent):
    """Fig. 5 as a PNG: trajectories of the policy, coloured by z, in some of the snapshots [(step, positions (T, N, 2),
    z (N, Z))]; how often each unit square was visited, visits (10, 10); coverage [(step, share)]."""
    shown = np.unique(np.linspace(0, len(snapshots) - 1, SHOWN).astype(int)) if snapshots else []
    figure = Figure(figsize=(3.1 * len(shown) + 7, 3.4), layout="constrained")
    axes = figure.subplots(1, len(shown) + 2)
    for axis in axes[:-1]:
        for flip, walls in zip((1, -1), MAZE_WALLS):
            for place, low, high in walls:
                axis.plot(*((place, place), (low, high))[::flip], color="black" if axis is not axes[-2] else "white")
        axis.set(aspect="equal", xticks=[], yticks=[], xlim=(-5.1, 5.1), ylim=(-5.1, 5.1))
    for axis, (step, positions, z) in zip(axes, (snapshots[i] for i in shown)):
        colours = np.full((len(z), 3), 0.4)
        if latent == "categorical":
            colours = colormaps["turbo"](z.argmax(-1) / z.shape[1])
        elif latent == "gaussian":  # its first three dimensions as red, green and blue
            colours[:, : z.shape[1]] = 1 / (1 + np.exp(-1.7 * z[:, :3]))
        for i, colour in enumerate(colours):
            axis.plot(*positions[:, i].T, color=colour, linewidth=0.8, alpha=0.8)
        axis.set_title(f"policy at step {step:,}")
    image = axes[-2].imshow(np.log10(1 + visits.T), origin="lower", extent=(-5, 5, -5, 5), cmap="magma")
    axes[-2].set_title("visits")
    figure.colorbar(image, ax=axes[-2], label="log10(1 + steps in the square)", shrink=0.8)
    axes[-1].plot(*np.array(coverage).T, color="tab:red")
    axes[-1].set(title="coverage", xlabel="environment steps", ylim=(0, 1.02))
    axes[-1].xaxis.set_major_formatter(lambda x, _: f"{x / 1000:g}k")
    axes[-1].grid(alpha=0.3)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    args = tyro.cli(Args, description=__doc__.split("\n\n")[0])
    given = {word[2:].split("=")[0].replace("-", "_").removeprefix("no_") for word in sys.argv[1:] if word[:2] == "--"}
    if args.resume is not None:
        run_dir = Path(args.resume)
        try:
            saved = json.loads((run_dir / "args.json").read_text())
            args = tyro.cli(Args, default=Args(**saved))
            if saved.keys() != vars(args).keys():  # another version's: the missing ones would be today's defaults
                raise KeyError
        except (OSError, ValueError, KeyError, TypeError):
            refuse(f"--resume {run_dir}: not the directory of a run (no args.json with just this script's flags)")
        for name in sorted(given - CHANGEABLE):  # the other flags define the run
            if getattr(args, name) != saved[name]:
                refuse(f"--{name.replace('_', '-')} {getattr(args, name)}: this run has {saved[name]}, for good")
    check_args(args, given)
    # TRY NOT TO MODIFY: seeding
    torch.manual_seed(args.seed)
    device = torch.device("cuda" if args.cuda and torch.cuda.is_available() else "cpu")
    if "cuda" in given and args.cuda and device.type == "cpu":
        print("warning: --cuda, but torch finds no GPU here: running on the CPU", file=sys.stderr)
    if device.type == "cpu":
        keep_freed_memory()
        if args.cudagraphs:
            print("note: --cudagraphs is for a GPU: off", file=sys.stderr)
    # environments, replay, networks, optimisers
    latent_dim = 0 if args.latent == "none" else args.latent_dim
    obs_dim, act_dim, object_dim = *Maze.observation_space.shape, *Maze.action_space.shape, Maze.object_dim
    try:
        options = [] if args.goal is None else [f"goal={args.goal}"]
        envs = make_vector_env("maze", args.num_envs, args.seed, options=options)
        replay = Replay(args.buffer_size, args.num_envs, obs_dim, act_dim, latent_dim, device)
        agent = Agent(obs_dim, object_dim, act_dim, latent_dim, args, device)
        if args.resume is None:
            run_dir = Path("runs", f"maze__{args.exp_name}__{args.seed}__{int(time.time())}")
            run_dir.mkdir(parents=True)
    except (ValueError, OSError, RuntimeError) as error:  # no such cell, an unwritable directory, too little memory
        refuse(error)

    @torch.no_grad()
    def act(obs, z):
        """Actions (N, A) at obs (N, O), z (N, Z)."""
        s = agent.model.encoder(obs)
        if args.policy == "cem":
            return plan(agent.model, agent.posterior, s, z, act_dim, args)
        return agent.policy(s, z)[0]

    def mark(obs):
        """Count the unit square where each agent is; obs (N, O)."""
        np.add.at(visits, tuple(((obs[:, -2:] + 1) * MAZE_HALF).astype(int).clip(0, 9).T), 1)

    def covered():
        """The share of the unit squares visited so far."""
        return float((visits > 0).mean())

    def snapshot():
        """Play TRAJECTORIES episodes, always from the same seed: (step, positions (T, N, 2), z (N, Z))."""
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            mazes, positions = make_vector_env("maze", TRAJECTORIES, 0), []
            obs, z = mazes.reset()[0], sample_z(TRAJECTORIES, args, device)
            for _ in range(MAZE_LENGTH):
                positions.append(MAZE_HALF * obs[:, -2:])
                obs = mazes.step(act(torch.as_tensor(obs, device=device), z).cpu().numpy())[0]
        return global_step, np.stack(positions), z.cpu().numpy()

    def write_figures():
        """maze.png, and maze.npz with what is drawn there."""
        steps, positions, z = map(np.array, zip(*snapshots)) if snapshots else ([], [], [])
        with open(run_dir / "maze.npz.new", "wb") as file:
            np.savez(file, steps=steps, positions=positions, z=z, visits=visits, coverage=coverage)
        os.replace(run_dir / "maze.npz.new", run_dir / "maze.npz")
        plot(snapshots, visits, coverage, run_dir / "maze.png", args.latent)

    def save():
        """End the running episodes, as a time limit does, and save everything that a resumed run needs."""
        outcome = torch.tensor(np.stack([0 * age, 0 * age, 0 * age + 1, age], -1), dtype=torch.float32, device=device)
        replay.add(torch.as_tensor(obs, device=device), torch.zeros_like(a), z, outcome)
        rng = [torch.get_rng_state()] + ([torch.cuda.get_rng_state()] if device.type == "cuda" else [])
        state = {
            "agent": agent.state_dict(),
            "adam": agent.adam.state_dict()["state"],
            "rng": rng,
            "coverage": coverage,
            "visits": torch.tensor(visits),
            "progress": (global_step, updates, episodes, recent),
            "snapshots": [(step, torch.tensor(x), torch.tensor(z)) for step, x, z in snapshots],
        }
        write_checkpoint(run_dir, state, replay)

    def halt(kind, error, trace):
        """Where the code is not at fault (nan, a full disk, no g++): figures and one line, no traceback."""
        if not isinstance(error, (OSError, FloatingPointError, torch._dynamo.exc.BackendCompilerFailed)):
            return sys.__excepthook__(kind, error, trace)
        error = next((f"losses/{key} is nan or infinite" for key, x in sums.items() if not x.isfinite()), error)
        if isinstance(error, torch._dynamo.exc.BackendCompilerFailed):  # a kill while it compiles cuts files short
            error = f"--compile ({one_line(error)[:90]}...) needs g++, or its cache, /tmp/torchinductor_*, deleted"
        coverage.append((global_step, covered()))
        with contextlib.suppress(OSError, RuntimeError):
            write_figures(), writer.close()
        refuse(f"{error}, at step {global_step}; --resume {run_dir} goes on from the newest checkpoint, if any", 1)

    global_step, updates, episodes, recent, sums = 0, 0, 0, [], {}
    snapshots, visits, coverage = [], np.zeros((10, 10), np.int64), []
    if args.resume is not None:  # from the newest complete checkpoint
        try:
            state, ring = read_checkpoint(run_dir, "cpu")
            agent.load_state_dict(state["agent"])
            agent.adam.load_state_dict(agent.adam.state_dict() | {"state": state["adam"]})
            replay.data[: len(ring["data"])] = ring["data"].view_as(replay.data[: len(ring["data"])])
            replay.head.copy_(ring["head"]), replay.filled.copy_(ring["filled"])
            for set_state, rng_state in zip((torch.set_rng_state, torch.cuda.set_rng_state), state["rng"]):
                set_state(rng_state.cpu())
            (global_step, updates, episodes), recent = map(int, state["progress"][:3]), state["progress"][3]
            coverage, visits = state["coverage"], state["visits"].numpy()
            snapshots = [(step, x.numpy(), z.numpy()) for step, x, z in state["snapshots"]]
            every = args.figure_frequency or math.inf
            if snapshots and snapshots[-1][0] % every >= args.num_envs:  # there only because the run ended there
                snapshots.pop()
        except Exception as error:  # whatever it is, the run can't go on from these files
            refuse(f"--resume {run_dir}: no checkpoint yet, or damaged, or of another shape: {str(error)[:150]}")
    if global_step < args.total_timesteps:
        (run_dir / "args.json.new").write_text(json.dumps(vars(args), indent=2))
        os.replace(run_dir / "args.json.new", run_dir / "args.json")
    writer = SummaryWriter(run_dir, purge_step=global_step + 1)
    sys.excepthook = halt
    threading.excepthook = lambda failure: None  # TensorBoard's thread: its error comes up at the next write or flush
    # TRY NOT TO MODIFY: start the game
    start_step, start_updates, clock, print_time = global_step, updates, (global_step, time.time()), 0.0
    counts, restart, signals = {}, True, []
    over = global_step >= args.total_timesteps
    for number in () if over else (signal.SIGINT, signal.SIGTERM):  # Ctrl-C and kill: end with a checkpoint
        signal.signal(number, lambda number, _: signals.append(number))
    while not over:
        if restart:  # a resumed run goes on like the uninterrupted one
            obs, _ = envs.reset()
            mark(obs)
            age, done = np.zeros(args.num_envs), np.zeros(args.num_envs, bool)  # steps into the episode; whether over
            z = torch.zeros(args.num_envs, latent_dim, device=device)

        # ALGO LOGIC: put action logic here
        obs_tensor = torch.as_tensor(obs, device=device)
        if not age.all():  # z ~ π(z|s₁), once an episode
            z = torch.where(torch.as_tensor(age == 0, device=device)[:, None], sample_z(len(z), args, device), z)
        a = act(obs_tensor, z)
        actions = a.cpu().numpy()  # before the update is launched, or it would wait for that
        # ALGO LOGIC: training
        if global_step >= args.learning_starts:
            updates += 1
            due = updates % args.policy_frequency == 0, updates % args.target_network_frequency == 0
            for key, value in agent.update(replay, *due).items():
                sums[key], counts[key] = sums.get(key, 0) + value, counts.get(key, 0) + 1
        # TRY NOT TO MODIFY: execute the game and log data
        if not np.isfinite(actions).all():
            raise FloatingPointError("an action is nan")
        next_obs, rewards, terminations, truncations, infos = envs.step(actions)
        # CRUCIAL step easy to overlook: where done, obs ends an episode, a is ignored and next_obs starts the next one
        outcome = np.stack([rewards, terminations, done, age], -1).astype(np.float32)
        replay.add(obs_tensor, a, z, torch.as_tensor(outcome, device=device))
        last_step, global_step = global_step, global_step + int((~done).sum())
        obs, age, done = next_obs, np.where(done, 0, age + 1), terminations | truncations
        mark(obs)
        for i in np.flatnonzero(done):
            episodes += 1
            recent = recent[1 - RECENT :] + [infos["summary"][i].tolist()]
            for key, value in average(recent[-1:]).items():
                writer.add_scalar(f"charts/{key}", value, global_step)
        over = global_step >= args.total_timesteps or bool(signals)
        log_due, figure_due, checkpoint_due = (
            over or f and global_step // f > last_step // f
            for f in (LOG_FREQUENCY, args.figure_frequency, args.checkpoint_frequency)
        )
        sps = (global_step - clock[0]) / (time.time() - clock[1])
        if log_due or figure_due or checkpoint_due:
            for key, value in sums.items():
                if not math.isfinite(mean := value.item() / counts[key]):  # one read from the device for both
                    raise FloatingPointError(f"losses/{key} is nan or infinite")
                writer.add_scalar(f"losses/{key}", mean, global_step)
            coverage.append((global_step, covered()))
            writer.add_scalar("charts/coverage", coverage[-1][1], global_step)
            writer.add_scalar("charts/SPS", sps, global_step)
            sums.clear(), counts.clear()
            if figure_due:
                snapshots.append(snapshot())
                write_figures()
        if over or time.time() - print_time > (0.2 if sys.stdout.isatty() else 10):
            print_time = time.time()
            show_progress(global_step, args.total_timesteps, sps, {"coverage": covered()}, over)
        if restart := checkpoint_due:
            writer.flush(), save()
        if updates == start_updates + BURN_IN:  # compilation and captures, at usual frequencies, are over
            clock = global_step, time.time()

    if global_step == start_step:
        print(f"{run_dir} is at step {global_step:,} already: no steps to take")
        coverage, sps = [(global_step, covered())], 0.0
    envs.close(), writer.close()
    print(
        json.dumps(
            {
                "run_dir": str(run_dir),
                "env_id": "maze",
                "seed": args.seed,
                "global_step": global_step,
                "episodes": episodes,
                "coverage": coverage[-1][1],
                **average(recent),
                "sps": round(sps, 1),
            }
        )
    )

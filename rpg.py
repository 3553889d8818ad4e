"""Reparameterized Policy Gradient (RPG): Huang et al., Reparameterized Policy Learning for Multimodal Trajectory
Optimization, ICML 2023. The whole algorithm, for state observations, is in this file; the environments are in envs.py.

    python rpg.py --env-id metaworld-basketball --total-timesteps 2000000  # on a laptop: settings in README.md

A latent z ~ π(z|s₁) is drawn once an episode, actions from π(a|s,z). A GRU world model, learned without
reconstruction (Eq. 4), is rolled out under the policy to estimate values (Eq. 3), and the policy climbs their
gradient. The reward is the ELBO's (Sec. 4.3): R/T − α log π(a|s,z) + β log p(z|s,a), plus an RND bonus.

    paper  here    shape    what
    o      obs     (B, O)   observation: scaled state, then `object_dim` raw object coordinates
    s      s       (B, S)   latent state s = f(o)  (TD-MPC calls this z)
    z      z       (B, Z)   latent of the policy, constant over an episode; Z = 0 for --latent none
    a      a       (B, A)   action in [-1, 1]
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
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn as nn
import tyro
from torch.utils.tensorboard import SummaryWriter

from envs import (
    SUMMARY,
    average,
    finite,
    keep_freed_memory,
    make_env,
    make_vector_env,
    one_line,
    refuse,
    save_gif,
    save_summaries,
    show_progress,
    state_sizes,
)


@dataclass
class Args:
    # --- experiment
    exp_name: str = Path(__file__).stem  # name of the experiment, part of the run's name
    seed: int = 1  # seed of networks, sampling and environments
    torch_deterministic: bool = False  # ask torch for deterministic kernels on a GPU (slower); on a CPU they always are
    cuda: bool = True  # run on a GPU where there is one
    track: bool = False  # mirror the run to Weights & Biases (pip install wandb)
    wandb_project_name: str = "rpg"  # Weights & Biases: project
    wandb_entity: str | None = None  # Weights & Biases: team or user
    capture_video: bool = False  # save a GIF of the first episode of each evaluation
    eval_frequency: int = 50_000  # environment steps between evaluations; 0: none
    eval_episodes: int = 10  # episodes an evaluation: mean action, z ~ π(z|s₁), the same seeds every time
    checkpoint_frequency: int = 50_000  # steps between checkpoints, which end the running episodes; 0: one at the end
    resume: str | None = None  # directory of a run to continue up to --total-timesteps, with its own flags
    # --- environment, replay, schedule
    env_id: str = "metaworld-basketball"  # metaworld-<task>, or any id that gymnasium.make knows (module:Id too)
    env_options: tuple[str, ...] = ()  # switches of the environment, e.g. fixed-ball for metaworld-basketball
    num_envs: int = 5  # environments stepped side by side; one update for each step of all (paper: 5 steps an update)
    async_envs: bool = False  # step the environments in worker processes: for slow simulators and many cores
    total_timesteps: int = 1_000_000  # environment steps, summed over the environments
    buffer_size: int = 800_000  # transitions the replay holds (paper Table 1)
    learning_starts: int = 1_000  # environment steps before the first update (paper Table 1: seed step)
    batch_size: int = 512  # segments in a model update, states in a policy or RND update (paper Table 1)
    learning_rate: float = 3e-4  # Adam's step size, for all networks (paper Table 1)
    max_grad_norm: float = 1.0  # gradients are clipped to this norm (paper Table 1)
    gamma: float = 0.99  # discount factor (paper Table 1)
    tau: float = 0.005  # share of the online weights mixed into the target network (paper Table 1)
    policy_frequency: int = 2  # updates between policy updates (paper Table 1)
    target_network_frequency: int = 2  # updates between target network updates (official code)
    reward_scale: float = 5.0  # 1/T of the ELBO reward, multiplies the environment's reward (official sparse runs)
    # --- world model
    horizon: int = 3  # steps the model is rolled out, in training and for values (paper Table 1; K in Eqs. 3 and 4)
    hidden_dim: int = 256  # width of all hidden layers and of the GRU (paper App. A)
    state_dim: int = 100  # size of the latent state s (paper Table 1)
    num_frequencies: int = 6  # of the positional encoding of object coordinates (paper Table 1); 0: no encoding
    consistency_coef: float = 1000.0  # L1 of Eq. 4, weight of the latent state's error (official sparse runs: 10000)
    reward_coef: float = 0.5  # L2 of Eq. 4, weight of the reward's error (official sparse runs: 10)
    value_coef: float = 0.5  # L3 of Eq. 4, weight of the value's error (official sparse runs: 1)
    # --- latent policy
    latent: Literal["gaussian", "categorical", "none"] = "gaussian"  # z; none is the paper's MBSAC: no z anywhere
    latent_dim: int = 12  # dimensions, or categories, of z (paper Table 1)
    beta: float = 0.005  # β, weight of log p(z|s,a) in the reward (paper Table 1; 0.001 to 0.01 works)
    posterior_std: float = 0.38  # standard deviation of the Gaussian p(z|s,a) (paper Table 1)
    alpha: float = 0.01  # α, weight of the action entropy: fixed, or --autotune's first value (paper Table 1)
    autotune: bool = True  # tune α so that the entropy of π(a|s,z) approaches −|A| (paper Table 1)
    learned_prior: bool = False  # learn π(z|s₁), as the paper does for dense rewards; else N(0, I), or uniform
    prior_alpha: float = 0.01  # α_z, first weight of the entropy of a learned π(z|s₁)
    prior_decay_start: int = 300_000  # environment step at which α_z starts to fall, linearly (paper, under Table 1)
    prior_decay_end: int = 1_000_000  # environment step at which α_z has come to 0 (paper, under Table 1)
    # --- exploration
    rnd_coef: float = 0.1  # weight of the RND bonus (paper Table 1); 0: no RND
    rnd_dim: int = 512  # width and output size of the RND networks (paper App. A)
    rnd_buffer_size: int | None = None  # newest transitions that RND learns from (Fig. 8D); default: all
    compile: bool = False  # torch.compile the losses and their gradients: a minute's wait, then faster updates
    cudagraphs: bool = False  # replay each kind of update as one captured CUDA graph; on a CPU: no effect, and a note


N_STEP_DECAY = 0.97  # V_est weights its k-step estimates by 0.97^(k-1) (official code)
RND_WARMUP, RND_CLIP = 100, 100.0  # updates before RND's normaliser counts; bound of the bonus, in std (official code)
LOG_FREQUENCY, RECENT = 1_000, 50  # environment steps between rows of losses; episodes in the progress and the summary
GRAPH_WARMUP, BURN_IN = 3, 20  # eager updates of a kind before its capture; updates before the clock of the SPS starts
EVAL_SEED = 2**31  # of the first episode of every evaluation; the next ones follow
CHANGEABLE = {
    "resume",
    "total_timesteps",
    "eval_frequency",
    "eval_episodes",
    "checkpoint_frequency",
    "capture_video",
    "cuda",
    "torch_deterministic",
    "track",
    "wandb_project_name",
    "wandb_entity",
    "async_envs",
    "compile",
    "cudagraphs",
}


def check_args(args, given):
    """Refuse impossible values, and flags (names in the set `given`) that would have no effect."""
    may_be_0 = {
        "seed",
        "eval_frequency",
        "checkpoint_frequency",
        "num_frequencies",
        "consistency_coef",
        "reward_coef",
        "value_coef",
        "beta",
        "prior_alpha",
        "prior_decay_start",
        "rnd_coef",
        args.resume and "total_timesteps",
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
        (args.prior_decay_end <= args.prior_decay_start, "--prior-decay-end must come after --prior-decay-start"),
        (args.track and not find_spec("wandb"), "--track needs Weights & Biases: pip install wandb"),
        (args.latent == "none" and given & {"latent_dim", "beta", "posterior_std", "learned_prior"}, "--latent none"),
        (args.latent == "categorical" and given & {"posterior_std"}, "--latent categorical"),
        (not args.learned_prior and {name for name in given if name.startswith("prior_")}, "no --learned-prior"),
        (args.rnd_coef == 0 and given & {"rnd_dim", "rnd_buffer_size"}, "--rnd-coef 0"),
        (not args.track and given & {"wandb_project_name", "wandb_entity"}, "no --track"),
        (not (args.eval_frequency or args.resume) and given & {"eval_episodes", "capture_video"}, "--eval-frequency 0"),
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
        """obs (B, O), uniform (over the `newest` entries), its z (B, Z), its episode's first obs (B, O)."""
        row, env = self.draw((batch_size,), 1, newest)
        obs, _, z, outcome = self.data[row, env].split(self.sizes, -1)
        t, older = outcome[:, -1].long(), (row - self.head + self.filled) % len(self.data)  # older rows in the ring
        t = torch.where(t <= older, t, 0)  # if the ring has forgotten the first, obs stands for it
        return obs, z, self.data[(row - t) % len(self.data), env, : self.sizes[0]]

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


class Policy(nn.Module):
    """π(a|s,z), a tanh-Normal: a = tanh(u), u ~ N(mean, std²), std = 0.4 exp(clip(log std, −20, 2))."""

    def __init__(self, act_dim, latent_dim, args):
        super().__init__()
        self.net = mlp(args.state_dim + latent_dim, args.hidden_dim, 2 * act_dim)

    def forward(self, s, z, greedy=False):
        """a (..., A), reparameterised (greedy: tanh mean), and log π(a|s,z) (...) at s (..., S), z (..., Z)."""
        mean, log_std = self.net(torch.cat([s, z], -1)).chunk(2, -1)
        log_std = log_std.clamp(-20, 2) + math.log(0.4)
        u = mean if greedy else mean + log_std.exp() * torch.randn_like(mean)
        log_slope = 2 * (math.log(2) - u - nn.functional.softplus(-2 * u))  # log(1 − tanh²u), exact for large |u| too
        return u.tanh(), normal_log_prob(u, mean, log_std) - log_slope.sum(-1)


class Prior(nn.Module):
    """π(z|s₁): fixed, N(0, I) or uniform over one-hot z; or learned, and starting as that."""

    def __init__(self, latent_dim, args):
        super().__init__()
        self.categorical, self.latent_dim = args.latent == "categorical", latent_dim
        self.out_dim = latent_dim if self.categorical else 2 * latent_dim  # logits, or mean and log std
        self.net = mlp(args.state_dim, args.hidden_dim, self.out_dim) if args.learned_prior else None

    def sample(self, s, generator=None):
        """One z (B, Z) for each s (B, S)."""
        out = self.net(s) if self.net else s.new_zeros(len(s), self.out_dim)
        if self.categorical:  # Gumbel-max, argmax(logits − log Exp(1)) ~ softmax(logits): no host sync
            noise = torch.empty_like(out).exponential_(generator=generator).log()
            return nn.functional.one_hot((out - noise).argmax(-1), self.latent_dim).to(s.dtype)
        mean, log_std = out.chunk(2, -1)
        return mean + log_std.clamp(-5, 2).exp() * torch.empty_like(mean).normal_(generator=generator)

    def log_prob(self, s, z):
        """log π(z|s) (B,) of a learned prior: s (B, S), z (B, Z)."""
        if self.categorical:
            return (z * self.net(s).log_softmax(-1)).sum(-1)
        mean, log_std = self.net(s).chunk(2, -1)
        return normal_log_prob(z, mean, log_std.clamp(-5, 2))


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


class RND(nn.Module):
    """Object-centric random network distillation (Sec. 4.3.2): g learns to copy a fixed random network g′ on states of
    the replay, and fails where states are new. The error is normalised by its running mean and deviation."""

    def __init__(self, obs_dim, object_dim, args):
        super().__init__()
        self.encoding = PositionalEncoding(obs_dim, object_dim, args.num_frequencies)
        self.g, self.g_fixed = (mlp(self.encoding.out_dim, args.rnd_dim, args.rnd_dim, nn.LeakyReLU) for _ in range(2))
        self.g_fixed.requires_grad_(False)
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
        """clip((error − mean) / std, ±100), 0 during the warm-up: (..., O) → (...). Well-known states cost."""
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
    r_elbo = -alpha * logp_a  # r′_t = −α log π(a_t|s_t,z) + β log p(z|s_t,a_t), Sec. 4.3
    if posterior is not None:
        r_elbo = r_elbo + args.beta * posterior.log_prob(s, a, z)
    v_est = mean_k_step_value(model.reward(next_s, e) + r_elbo, model.value(next_s, z, twins), args.gamma)
    return v_est, s, a, logp_a


def prior_loss(prior, s, z, v_est, prior_alpha):
    """Score-function gradient of E[V_est(s₁, z) − α_z log π(z|s₁)] (Algorithm 1); of the two draws of z for each s₁,
    one is the other's baseline. Args: s (B, S); z (2, B, Z) ~ prior; v_est (2, B). Returns: the loss, the entropy."""
    logp = torch.stack([prior.log_prob(s, draw) for draw in z])  # (2, B)
    objective = (v_est - prior_alpha * logp).detach()
    return -((objective - objective.flip(0)) * logp).mean(), -logp.detach().mean()


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
        self.policy, self.prior = Policy(act_dim, latent_dim, args), Prior(latent_dim, args)
        self.posterior = Posterior(act_dim, latent_dim, args) if latent_dim else None
        self.rnd = RND(obs_dim, object_dim, args) if args.rnd_coef else None
        for parameter in self.parameters():
            nn.init.orthogonal_(parameter) if parameter.ndim > 1 else nn.init.zeros_(parameter)
        if self.prior.net:  # starts as the fixed one
            nn.init.zeros_(self.prior.net[-1].weight)
        self.target_model = copy.deepcopy(self.model).requires_grad_(False)
        self.log_alpha = nn.ParameterList([torch.zeros(())])  # α = args.alpha exp(log α)
        self.register_buffer("prior_alpha", torch.zeros(()), persistent=False)  # α_z
        self.to(device)
        trained = {
            "rnd_loss": self.rnd and self.rnd.g,
            "model_loss": self.model,
            "policy_loss": self.policy,
            "alpha_loss": self.log_alpha,
            "info_loss": self.posterior,
            "prior_loss": self.prior,
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

    def policy_losses(self, obs, z, start_obs):
        """Improve π(a|s,z), α, p(z|s,a) and a learned π(z|s₁) in imagination. Shapes as in Replay.sample_states."""
        args, posterior, nets = self.args, self.posterior, (self.model, self.policy, self.posterior)
        alpha = args.alpha * self.log_alpha[0].detach().exp()
        v_est, s, a, logp_a = value_estimate(*nets, self.model.encoder(obs).detach(), z, alpha, args, twins=1)
        losses = {"policy_loss": -v_est.mean()}  # the gradient flows through the model and p(z|s,a) into π only
        logs = {"alpha": alpha, "entropy": -logp_a.detach().mean()}
        if args.autotune:  # α falls while the entropy is above its target −|A|
            losses["alpha_loss"] = args.alpha * self.log_alpha[0].exp() * (logs["entropy"] + self.act_dim)
        if posterior:  # the cross entropy −log p(z|s,a) of Eq. 2, on the imagined trajectories
            losses["info_loss"] = -posterior.log_prob(s.detach(), a.detach(), z).mean()
            logs["info_reward"] = -args.beta * losses["info_loss"]
        if args.learned_prior:
            with torch.no_grad():  # two z for each start state
                s_1 = self.model.encoder(start_obs)
                z_1 = torch.stack([self.prior.sample(s_1), self.prior.sample(s_1)])  # (2, B, Z)
                v_1 = value_estimate(*nets, s_1.repeat(2, 1), z_1.flatten(0, 1), alpha, args, twins=1)[0].view(2, -1)
            losses["prior_loss"], logs["prior_entropy"] = prior_loss(self.prior, s_1, z_1, v_1, self.prior_alpha)
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


if __name__ == "__main__":
    args = tyro.cli(Args, description=__doc__.split("\n\n")[0])
    given = {word[2:].split("=")[0].replace("-", "_").removeprefix("no_") for word in sys.argv[1:] if word[:2] == "--"}
    if args.resume is not None:
        run_dir = Path(args.resume)
        try:
            saved = json.loads((run_dir / "args.json").read_text())
            args = tyro.cli(Args, default=Args(**saved | {"env_options": tuple(saved["env_options"])}))
            if saved.keys() != vars(args).keys():  # another version's: the missing ones would be today's defaults
                raise KeyError
        except (OSError, ValueError, KeyError, TypeError):
            refuse(f"--resume {run_dir}: not the directory of a run (no args.json with just this script's flags)")
        for name in sorted(given - CHANGEABLE):  # the other flags define the run
            if json.dumps(getattr(args, name)) != json.dumps(saved[name]):
                refuse(f"--{name.replace('_', '-')} {getattr(args, name)}: this run has {saved[name]}, for good")
    check_args(args, given)
    torch.manual_seed(args.seed)
    if args.torch_deterministic:  # (the call imports the compiler: a second)
        torch.use_deterministic_algorithms(True, warn_only=True)
    device = torch.device("cuda" if args.cuda and torch.cuda.is_available() else "cpu")
    if "cuda" in given and args.cuda and device.type == "cpu":
        print("warning: --cuda, but torch finds no GPU here: running on the CPU", file=sys.stderr)
    if device.type == "cpu":
        keep_freed_memory()
        if args.cudagraphs:
            print("note: --cudagraphs is for a GPU: off", file=sys.stderr)
    latent_dim = 0 if args.latent == "none" else args.latent_dim
    try:
        eval_env = make_env(args.env_id, EVAL_SEED, "rgb_array" if args.capture_video else None, args.env_options)
        obs_dim, object_dim, act_dim = state_sizes(eval_env)
        if "num_frequencies" in given and not object_dim:
            raise ValueError(f"--num-frequencies: no effect, {args.env_id} has no object coordinates to encode")
        envs = make_vector_env(args.env_id, args.num_envs, args.seed, args.async_envs, args.env_options)
        replay = Replay(args.buffer_size, args.num_envs, obs_dim, act_dim, latent_dim, device)
        agent = Agent(obs_dim, object_dim, act_dim, latent_dim, args, device)
        if args.resume is None:
            run_dir = Path("runs", f"{args.env_id}__{args.exp_name}__{args.seed}__{int(time.time())}".replace("/", "-"))
            run_dir.mkdir(parents=True)
    except (ValueError, OSError, RuntimeError) as error:  # bad ids, an unwritable directory, too little memory
        refuse(error)

    @torch.no_grad()
    def evaluate():
        """Play --eval-episodes episodes, always the same; write eval.csv, TensorBoard, a video. Returns the rows."""
        rows, frames = [], []
        for episode in range(args.eval_episodes):
            generator = torch.Generator(device).manual_seed(EVAL_SEED + episode)  # leaves the run's own RNG alone
            (obs, info), z = eval_env.reset(seed=EVAL_SEED + episode), None
            while "summary" not in info:
                frames += [eval_env.render()] if args.capture_video and episode == 0 else []
                s = agent.model.encoder(torch.as_tensor(finite(obs), device=device)[None])
                z = agent.prior.sample(s, generator) if z is None else z
                obs, _, _, _, info = eval_env.step(agent.policy(s, z, greedy=True)[0][0].cpu().numpy())
            rows.append(info["summary"].tolist())
        save_summaries(run_dir / "eval.csv", global_step, rows)
        for key, mean in average(rows).items() if global_step > start_step else ():  # else they are there already
            writer.add_scalar(f"eval/{key}", mean, global_step)
        save_gif(run_dir / f"videos/step-{global_step}.gif", frames, eval_env.metadata.get("render_fps", 25))
        return rows

    def save():
        """End the running episodes, as a time limit does; write what was good when the losses were last looked at."""
        outcome = torch.tensor(np.stack([0 * age, 0 * age, 0 * age + 1, age], -1), dtype=torch.float32, device=device)
        replay.add(torch.as_tensor(obs, device=device), torch.zeros_like(a), z, outcome)
        write_checkpoint(run_dir, good, replay)

    def halt(kind, error, trace):
        """Where the code is not at fault (nan, a dead worker, a full disk, no g++): one line, no traceback."""
        if not isinstance(error, (OSError, FloatingPointError, torch._dynamo.exc.BackendCompilerFailed)):
            return sys.__excepthook__(kind, error, trace)
        error = next((f"losses/{key} is nan or infinite" for key, x in sums.items() if not x.isfinite()), error)
        if isinstance(error, torch._dynamo.exc.BackendCompilerFailed):  # a kill while it compiles cuts files short
            error = f"--compile ({one_line(error)[:90]}...) needs g++, or its cache, /tmp/torchinductor_*, deleted"
        with contextlib.suppress(OSError, RuntimeError):  # on a full disk the last checkpoint has to do
            restart or good and save()
        refuse(f"{error}, at step {global_step}; --resume {run_dir} goes on from the newest checkpoint, if any", 1)

    global_step, updates, episodes, recent, restart, sums = 0, 0, 0, [], True, {}
    if args.resume is not None:  # from the newest complete checkpoint
        try:
            state, ring = read_checkpoint(run_dir, device)
            agent.load_state_dict(state["agent"])
            agent.adam.load_state_dict(agent.adam.state_dict() | {"state": state["adam"]})
            replay.data[: len(ring["data"])] = ring["data"].view_as(replay.data[: len(ring["data"])])
            replay.head.copy_(ring["head"]), replay.filled.copy_(ring["filled"])
            for set_state, rng_state in zip((torch.set_rng_state, torch.cuda.set_rng_state), state["rng"]):
                set_state(rng_state.cpu())
            (global_step, updates, episodes), recent = map(int, state["progress"][:3]), state["progress"][3]
        except Exception as error:  # whatever it is, the run can't go on from these files
            refuse(f"--resume {run_dir}: no checkpoint yet, or damaged, or of another shape: {str(error)[:150]}")
    sys.excepthook = halt
    threading.excepthook = lambda failure: None  # TensorBoard's thread: its error comes up at the next write or flush
    if global_step < args.total_timesteps:
        (run_dir / "args.json.new").write_text(json.dumps(vars(args), indent=2))
        os.replace(run_dir / "args.json.new", run_dir / "args.json")
    if args.track:
        import wandb

        wandb.init(
            project=args.wandb_project_name,
            entity=args.wandb_entity,
            sync_tensorboard=True,
            config=vars(args),
            name=run_dir.name,
            id=run_dir.name.replace(":", "-"),
            resume="allow",
        )
    writer = SummaryWriter(run_dir, purge_step=global_step + 1)
    writer.add_text("hyperparameters", ("\n" + json.dumps(vars(args), indent=2)).replace("\n", "\n    "), global_step)
    if device.type == "cpu" and args.batch_size * args.hidden_dim >= 512 * 256:
        print("no GPU: expect 13 to 25 steps/s on 2 cores at these settings; README.md has settings for a laptop")

    start_step, start_updates, clock, print_time = global_step, updates, (global_step, time.time()), 0.0
    counts, good, signals = {}, None, []
    over = global_step >= args.total_timesteps
    for number in () if over else (signal.SIGINT, signal.SIGTERM):  # Ctrl-C and kill: end with a checkpoint
        signal.signal(number, lambda number, _: signals.append(number))
    while not over:
        if restart:  # seeded by the step, so that a resumed run goes on like the uninterrupted one
            obs = finite(envs.reset(seed=1000 * args.seed + global_step)[0])
            age, done = np.zeros(args.num_envs), np.zeros(args.num_envs, bool)  # steps into the episode; whether over
            z = torch.zeros(args.num_envs, latent_dim, device=device)
        with torch.no_grad():  # act
            obs_tensor = torch.as_tensor(obs, device=device)
            s = agent.model.encoder(obs_tensor)
            if not age.all():  # z ~ π(z|s₁), once an episode
                z = torch.where(torch.as_tensor(age == 0, device=device)[:, None], agent.prior.sample(s), z)
            a, _ = agent.policy(s, z)
            actions = finite(a.cpu().numpy())  # before the update is launched, or it would wait for that
        if global_step >= args.learning_starts:  # launched before the environments step: a GPU works meanwhile
            updates += 1
            decay = (args.prior_decay_start, args.prior_decay_end), (args.prior_alpha, 0)
            agent.prior_alpha.fill_(np.interp(global_step, *decay))
            due = updates % args.policy_frequency == 0, updates % args.target_network_frequency == 0
            for key, value in agent.update(replay, *due).items():
                sums[key], counts[key] = sums.get(key, 0) + value, counts.get(key, 0) + 1
        next_obs, rewards, terminations, truncations, infos = envs.step(actions)
        finite(next_obs, rewards)
        # CRUCIAL step easy to overlook: where done, obs ends an episode, a is ignored and next_obs starts the next one
        outcome = np.stack([rewards, terminations, done, age], -1).astype(np.float32)
        replay.add(obs_tensor, a, z, torch.as_tensor(outcome, device=device))
        last_step, global_step = global_step, global_step + int((~done).sum())
        obs, age, done = next_obs, np.where(done, 0, age + 1), terminations | truncations
        for i in np.flatnonzero(done):
            episodes += 1
            recent = recent[1 - RECENT :] + [infos["summary"][i].tolist()]
            for key, value in average(recent[-1:]).items():
                writer.add_scalar(f"charts/{key}", value, global_step)
        over = global_step >= args.total_timesteps or bool(signals)
        log_due, eval_due, checkpoint_due = (
            over or f and global_step // f > last_step // f
            for f in (LOG_FREQUENCY, args.eval_frequency, args.checkpoint_frequency)
        )
        sps = (global_step - clock[0]) / (time.time() - clock[1])
        if log_due or eval_due or checkpoint_due:
            for key, value in sums.items():
                writer.add_scalar(f"losses/{key}", finite(value.item() / counts[key]), global_step)
            writer.add_scalar("charts/SPS", sps, global_step)
            sums.clear(), counts.clear()
            rng = [torch.get_rng_state()] + ([torch.cuda.get_rng_state()] if device.type == "cuda" else [])
            good = {"args": vars(args), "agent": agent.state_dict(), "adam": agent.adam.state_dict()["state"]}
            good = copy.deepcopy(good | {"rng": rng, "progress": (global_step, updates, episodes, recent)})
        if eval_due and args.eval_frequency and not signals:
            evaluate()
        if over or time.time() - print_time > (0.2 if sys.stdout.isatty() else 10):
            print_time = time.time()
            show_progress(global_step, args.total_timesteps, sps, average(recent), over)
        if restart := checkpoint_due:
            writer.flush(), save()
        if updates == start_updates + BURN_IN:  # compilation and captures, at usual frequencies, are over
            clock = global_step, time.time()

    if global_step == start_step:
        print(f"{run_dir} is at step {global_step:,} already: no steps to take, evaluating it")
        recent, sps = evaluate(), 0.0
    envs.close(), eval_env.close(), writer.close()
    print(
        json.dumps(
            {
                "run_dir": str(run_dir),
                "env_id": args.env_id,
                "seed": args.seed,
                "global_step": global_step,
                "episodes": episodes,
                **dict.fromkeys(SUMMARY),
                **average(recent),
                "sps": round(sps, 1),
            }
        )
    )

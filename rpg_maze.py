# /// script
# requires-python = ">=3.10,<3.14"
# dependencies = [
#     "torch>=2.10,<2.14",
#     "gymnasium[mujoco]>=1.4,<1.5",
#     "mujoco==3.3.0",
#     "metaworld==3.1.1",
#     "gymnasium-robotics==1.4.2",
#     "imageio-ffmpeg>=0.6",
#     "tyro>=1.0,<2",
#     "tensorboard>=2.16",
#     "matplotlib>=3.8",
# ]
# ///
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
    K      horizon  H       steps the model is rolled out; in shapes also: B batch, D --hidden-dim, N environments
"""

import contextlib
import copy
import math
import os
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn as nn
from torch.nn.utils import clip_grad_norm_

from envs import (
    MAZE_HALF,
    MAZE_LENGTH,
    MAZE_WALLS,
    SUMMARY_KEY,
    Maze,
    NotFinite,
    Progress,
    Speed,
    Stop,
    average,
    check_gradients,
    check_optimizers,
    choose_device,
    crossed,
    end_on_error,
    end_on_nan,
    finite,
    introduce,
    load_optimizer_states,
    lock,
    make_run_dir,
    make_vector_env,
    optimizer_states,
    parse_args,
    read_checkpoint,
    refuse,
    replace_file,
    report,
    require_memory,
    restore_rng,
    say,
    short,
    start_log,
    warn,
    write_checkpoint,
)


@dataclass
class Args:
    # --- experiment
    exp_name: str = Path(__file__).stem  # name of the experiment, part of the run's name
    seed: int = 1  # seed of networks, sampling and environments
    cuda: bool = True  # run on a GPU where there is one; CUDA_VISIBLE_DEVICES chooses which
    num_threads: int = 1  # CPU threads of torch; 2, on two idle cores: 1.8 x as fast at the paper's sizes, 1.2 x small
    figure_frequency: int = 50_000  # environment steps between the policies drawn in maze.png; 0: the last one only
    checkpoint_frequency: int = 50_000  # steps between checkpoints, which end the running episodes; 0: one at the end
    resume: str | None = None  # directory of a run to continue up to --total-timesteps, with its own flags
    # --- environment and schedule
    goal: str | None = None  # x,y (0 to 4 each): reward 1 in that cell; default: no reward but RND's
    num_envs: int = 5  # agents moved side by side; one update for each step of all (paper: 5 steps an update)
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
    reward_scale: float = 5.0  # 1/T of the ELBO reward R/T, multiplies the reward of --goal (official sparse runs)
    # --- world model
    horizon: int = 3  # steps the model is rolled out, in training and for values (paper Table 1; K in Eqs. 3 and 4)
    hidden_dim: int = 128  # width of all hidden layers and of the GRU (paper App. A: 256)
    state_dim: int = 100  # size of the latent state s (paper Table 1)
    num_frequencies: int = 6  # of the positional encoding, for all networks (paper Table 1); 0: none (Fig. 8D)
    consistency_coef: float = 1000.0  # L1 of Eq. 4, weight of the latent state's error (official sparse runs: 10000)
    reward_coef: float = 0.5  # L2 of Eq. 4, weight of the reward's error (official sparse runs: 10)
    value_coef: float = 0.5  # L3 of Eq. 4, weight of the twins' summed value errors (official sparse runs: 1, mean)
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
    rnd_buffer_size: int | None = None  # newest transitions that RND learns from; default: all
    rnd_normalize: bool = True  # subtract the running mean of the RND error and divide by its deviation (Sec. 4.3.2)
    # --- speed
    compile: bool = False  # torch.compile the losses and their gradients: a minute's wait, then faster updates
    cudagraphs: bool = True  # on a GPU, replay each kind of update as one captured CUDA graph: docs/speed.md


N_STEP_DECAY = 0.97  # V_est weights its k-step estimates by 0.97^(k-1) (official code)
RND_WARMUP = 100  # updates before RND's normaliser counts (official code)
RND_CLIP = 100.0  # bound of the bonus, in standard deviations (official code)
LOG_FREQUENCY = 1_000  # environment steps between rows of losses
RECENT = 50  # training episodes that the means of the progress and of the last line are over
GRAPH_WARMUP = 3  # eager updates of a kind before its capture
BURN_IN = 20  # updates before the clock of the SPS starts: compilation and captures are over
COMPONENTS = 12  # of --policy gmm (official code)
COUPLINGS = 4  # of --policy flow (official code)
CEM_SAMPLES, CEM_ELITES, CEM_ITERATIONS, CEM_MIN_STD = 64, 8, 3, 0.05  # --policy cem: sequences tried, kept, rounds
TRAJECTORIES = 64  # episodes in a snapshot of the policy
SHOWN = 6  # snapshots in maze.png, at most

# flags that --resume may change; all others define the run
CHANGEABLE = {"resume", "total_timesteps", "figure_frequency", "checkpoint_frequency", "cuda", "num_threads", "compile"}
CHANGEABLE |= {"cudagraphs"}
# numeric flags that must be above 0, or at least 0; all others may be any finite number
POSITIVE = {"num_threads", "num_envs", "total_timesteps", "buffer_size", "learning_starts"}
POSITIVE |= {"batch_size", "learning_rate", "max_grad_norm", "gamma", "tau", "policy_frequency"}
POSITIVE |= {"target_network_frequency", "reward_scale", "horizon", "hidden_dim", "state_dim", "latent_dim"}
POSITIVE |= {"posterior_std", "alpha", "rnd_dim", "rnd_buffer_size"}
NOT_NEGATIVE = {"seed", "figure_frequency", "checkpoint_frequency", "num_frequencies", "consistency_coef"}
NOT_NEGATIVE |= {"reward_coef", "value_coef", "beta", "rnd_coef"}


def check_args(args, given):
    """Refuse impossible values, and flags (names in the set `given`) that would have no effect: one line, exit code
    2."""
    for name, value in vars(args).items():
        if type(value) not in (int, float):
            continue
        flag = f"--{name.replace('_', '-')} {value}"
        if not math.isfinite(value):
            refuse(f"{flag}: must be a finite number")
        if type(value) is int and value >= 2**63:
            refuse(f"{flag}: must be below 2**63")
        if name == "total_timesteps" and args.resume is not None and value == 0:  # only look
            continue
        if name in POSITIVE and value <= 0:
            refuse(f"{flag}: must be above 0")
        if name in NOT_NEGATIVE and value < 0:
            refuse(f"{flag}: must be at least 0")
    if args.num_frequencies > 20:
        refuse(f"--num-frequencies {args.num_frequencies}: must be at most 20: the last one is 2**19")
    if args.latent == "categorical" and args.latent_dim < 2:
        refuse(f"--latent-dim {args.latent_dim}: a categorical z needs at least 2")
    if args.gamma > 1:
        refuse(f"--gamma {args.gamma}: must be at most 1")
    if args.tau > 1:
        refuse(f"--tau {args.tau}: must be at most 1")
    if args.learning_starts < args.batch_size:
        refuse(f"--batch-size {args.batch_size} is more than --learning-starts {args.learning_starts} can fill")
    rows = args.num_envs * (args.horizon + 2)  # of a segment, H + 1, and one for a start that is no transition
    if args.learning_starts < rows:
        refuse(f"--learning-starts {args.learning_starts} must be at least num_envs * (horizon + 2) = {rows}")
    if args.buffer_size < max(args.learning_starts, args.rnd_buffer_size or 0):
        refuse(f"--buffer-size {args.buffer_size} is below --learning-starts or --rnd-buffer-size")
    if args.resume is None and args.learning_starts >= args.total_timesteps:
        warn(f"no update: --learning-starts {args.learning_starts} of {args.total_timesteps} steps")

    def idle(names, setting):
        for name in sorted(given & names):
            refuse(f"--{name.replace('_', '-')}: no effect with {setting}")

    if args.goal is None:
        idle({"reward_scale"}, "no --goal")
    if args.latent == "none":
        idle({"latent_dim", "beta", "posterior_std", "z_baseline"}, "--latent none")
    if args.latent == "categorical":
        idle({"posterior_std"}, "--latent categorical")
    if args.beta == 0:
        idle({"z_baseline"}, "--beta 0")
    if args.rnd_coef == 0:
        idle({"rnd_dim", "rnd_buffer_size", "rnd_normalize"}, "--rnd-coef 0")


def z_is_due(age):
    """Whether z is drawn at step `age` (an array) of an episode: at its first one."""
    return age == 0


def latent_size(args):
    """Z, the dimensions or categories of z; 0 for --latent none."""
    return 0 if args.latent == "none" else args.latent_dim


# ALGO LOGIC: networks
def mlp(in_dim, width, out_dim, act=nn.ELU):
    """A network with two hidden layers (paper App. A)."""
    return nn.Sequential(nn.Linear(in_dim, width), act(), nn.Linear(width, width), act(), nn.Linear(width, out_dim))


def normal_log_prob(x, mean, log_std):
    """log N(x; mean, exp(log_std)²), summed over the last dimension."""
    scaled = (x - mean) * (-log_std).exp()
    return (-0.5 * scaled.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)


class PositionalEncoding(nn.Module):
    """Append sin 2ᵏx, then cos 2ᵏx, k < `num_frequencies`, of the last `object_dim` entries of obs (Sec. 4.3.2)."""

    def __init__(self, obs_dim, object_dim, num_frequencies):
        super().__init__()
        self.start = obs_dim - object_dim
        self.out_dim = obs_dim + 2 * num_frequencies * object_dim
        self.register_buffer("frequencies", 2.0 ** torch.arange(num_frequencies), persistent=False)

    def forward(self, obs):
        angles = (obs[..., self.start :, None] * self.frequencies).flatten(-2)  # (..., object_dim * num_frequencies)
        return torch.cat([obs, angles.sin(), angles.cos()], -1)  # (..., out_dim)


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
        self.values = nn.ModuleList([mlp(state_dim + latent_dim, width, 1) for _ in range(2)])

    def step(self, h, e):
        """One step of the dynamics: h_t (B, D), e_t (B, D) → h_{t+1} (B, D), s_{t+1} (B, S)."""
        h = self.gru(e, h)
        return h, self.state_head(h)

    def reward(self, next_s, e):
        """R(s_t, a_t), from what the model made of both: next_s (..., S), e (..., D) → (...)."""
        return self.reward_head(torch.cat([next_s, e], -1)).squeeze(-1)

    def value(self, s, z, twins):
        """V_i(s, z) of the first `twins` twins: s (..., S), z (..., Z) → (twins, ...)."""
        x = torch.cat([s, z], -1)
        return torch.stack([twin(x).squeeze(-1) for twin in self.values[:twins]])


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
        self.sizes = act_dim // 2, act_dim - act_dim // 2
        in_dim = args.state_dim + latent_dim
        nets = []
        for i in range(COUPLINGS):  # an even number: the parts end in their order
            nets.append(mlp(in_dim + self.sizes[i % 2], args.hidden_dim, 2 * self.sizes[1 - i % 2]))
        self.nets = nn.ModuleList(nets)

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


class Prior(nn.Module):
    """π(z|s₁), fixed: N(0, I), or uniform over one-hot z."""

    def __init__(self, latent_dim, args):
        super().__init__()
        self.categorical = args.latent == "categorical"
        self.latent_dim = latent_dim

    def sample(self, s, generator=None):
        """One z (..., Z) for each s (..., S)."""
        out = s.new_zeros(*s.shape[:-1], self.latent_dim)
        if self.categorical:
            index = out.exponential_(generator=generator).argmax(-1)
            return nn.functional.one_hot(index, self.latent_dim).to(s.dtype)
        return out.normal_(generator=generator)


class Posterior(nn.Module):
    """p(z|s,a), the auxiliary distribution p_φ of Sec. 4.2, with log p(z|τ) = Σ_t log p(z|s_t,a_t)."""

    def __init__(self, act_dim, latent_dim, args):
        super().__init__()
        self.categorical = args.latent == "categorical"
        self.log_std = math.log(args.posterior_std)
        self.z_baseline = args.z_baseline
        self.net = mlp(args.state_dim + act_dim, args.hidden_dim, latent_dim)  # logits, or the mean

    def log_prob(self, s, a, z):
        """log p(z|s,a): s (..., S), a (..., A), z (..., Z) → (...)."""
        out = self.net(torch.cat([s, a], -1))
        if self.categorical:
            return (z * out.log_softmax(-1)).sum(-1)
        return normal_log_prob(z, out, torch.full_like(out, self.log_std))

    def baseline(self, z):
        """log p(z|s,a) where (s, a) tell nothing (uniform, or mean 0): z (..., Z) → (...); 0 if --z-baseline is off.
        π(z|s₁) is fixed and no episode terminates, so a term of z alone in each reward shifts V by a number of z and
        moves no optimum. But this one is −41 on average (Gaussian z, 12 dimensions), and V would spend itself on
        learning its sum."""
        if not self.z_baseline:
            return torch.zeros_like(z[..., 0])
        if self.categorical:
            return torch.full_like(z[..., 0], -math.log(z.shape[-1]))
        return normal_log_prob(z, torch.zeros_like(z), torch.full_like(z, self.log_std))


class Moments(nn.Module):
    """Running mean and standard deviation of batches (Welford's method, Chan's rule for batches)."""

    def __init__(self, *shape):
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))  # float64, as counts pass 2²⁴
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("m2", torch.zeros(shape, dtype=torch.float64))  # sum of squared deviations

    def update(self, x, counts=1.0):
        """Merge x (B, *shape); `counts` 0: leave it."""
        x = x.double()
        n = counts * len(x)
        total = (self.count + n).clamp(min=1)
        delta = x.mean(0) - self.mean
        self.m2 += counts * (x - x.mean(0)).square().sum(0) + delta.square() * self.count * n / total
        self.mean += delta * n / total
        self.count += n

    def normalize(self, x, min_std):
        """(x − mean) / max(std, min_std), x (..., *shape)."""
        std = (self.m2 / self.count.clamp(min=1)).sqrt().clamp(min=min_std)
        return ((x - self.mean) / std).to(x.dtype)


class RND(nn.Module):
    """Object-centric random network distillation (Sec. 4.3.2): g learns to copy a fixed random network g′ on states of
    the replay, and fails where states are new. The error is normalised by its running mean and deviation."""

    def __init__(self, obs_dim, object_dim, args):
        super().__init__()
        self.encoding = PositionalEncoding(obs_dim, object_dim, args.num_frequencies)
        self.g = mlp(self.encoding.out_dim, args.rnd_dim, args.rnd_dim, nn.LeakyReLU)
        self.g_fixed = mlp(self.encoding.out_dim, args.rnd_dim, args.rnd_dim, nn.LeakyReLU)
        self.g_fixed.requires_grad_(False)
        self.normalize = args.rnd_normalize
        self.errors = Moments()
        self.register_buffer("updates", torch.zeros((), dtype=torch.float64))

    def error(self, obs):
        """‖g(o) − g′(o)‖², as the mean over the output's entries: (..., O) → (...)."""
        x = self.encoding(obs)
        return (self.g(x) - self.g_fixed(x)).square().mean(-1)

    def update_normalizer(self, error):
        """Merge a batch of errors (B,) into the running moments, once the warm-up is over."""
        self.updates += 1
        self.errors.update(error, counts=(self.updates > RND_WARMUP).double())

    def bonus(self, obs):
        """clip((error − mean) / std, ±100), 0 during the warm-up: (..., O) → (...). Well-known states cost. With
        --no-rnd-normalize the error, summed over the outputs (official code)."""
        if not self.normalize:
            return self.error(obs) * self.g[-1].out_features
        bonus = self.errors.normalize(self.error(obs), min_std=1e-8).clamp(-RND_CLIP, RND_CLIP)
        return torch.where(self.errors.count > 0, bonus, 0)


# ALGO LOGIC: replay
class Rows(NamedTuple):
    """What the replay holds of each step of each environment; all of these with the same leading shape."""

    obs: torch.Tensor  # (..., O)
    a: torch.Tensor  # (..., A)
    z: torch.Tensor  # (..., Z)
    reward: torch.Tensor  # (...)
    terminated: torch.Tensor  # (...) 1 where the action ended the episode for good, not by a time limit
    last: torch.Tensor  # (...) 1 on an episode's final observation: no action was taken there
    t: torch.Tensor  # (...) steps into the episode


class Segments(NamedTuple):
    """H transitions in a row, for Eq. 4."""

    obs: torch.Tensor  # (H+1, B, O)
    a: torch.Tensor  # (H, B, A)
    z: torch.Tensor  # (H, B, Z)
    reward: torch.Tensor  # (H, B)
    terminated: torch.Tensor  # (H, B)
    mask: torch.Tensor  # (H, B) 0 from the step after the episode's end on


class States(NamedTuple):
    """Replayed states."""

    obs: torch.Tensor  # (B, O)
    z: torch.Tensor  # (B, Z) of their episodes


class Replay:
    """Ring of `capacity` transitions in rows of `num_envs`: o_{t+1} is always the row after o_t. The fields of Rows lie
    side by side in one tensor, so that a sample is one gather; how, only this class knows."""

    def __init__(self, capacity, num_envs, obs_dim, act_dim, latent_dim, device):
        self.widths = [obs_dim, act_dim, latent_dim, 1, 1, 1, 1]  # of the fields of Rows
        shape = capacity // num_envs, num_envs, sum(self.widths)
        require_memory(4.0 * math.prod(shape), f"a replay of {capacity:,} transitions", device)
        self.data = torch.zeros(shape, device=device)
        self.head = torch.zeros((), dtype=torch.long, device=device)  # the row to be written next
        self.filled = torch.zeros((), dtype=torch.long, device=device)  # rows with data

    def fields(self, data):
        """The Rows that lie in data (..., width), without a copy."""
        obs, a, z, *numbers = data.split(self.widths, -1)
        return Rows(obs, a, z, *[number.squeeze(-1) for number in numbers])

    def rows(self, row, env):
        """The Rows at indices row, env (...)."""
        return self.fields(self.data[row, env])

    def add(self, obs, a, z, reward, terminated, last, t):
        """Write one row: obs (N, O), a (N, A), z (N, Z) tensors; reward, terminated, last, t arrays (N,)."""
        numbers = np.stack([reward, terminated, last, t], -1).astype(np.float32)
        numbers = torch.as_tensor(numbers, device=self.data.device)
        row = torch.cat([obs, a, z, numbers.to(self.data.dtype)], -1)
        self.data.index_copy_(0, self.head.view(1), row[None])
        self.head.add_(1).remainder_(len(self.data))
        self.filled.add_(1).clamp_(max=len(self.data))

    def end_episodes(self, obs, z, t):
        """Write obs (N, O) as the final observations of the running episodes, as a time limit does; z (N, Z), t
        (N,)."""
        no_action = torch.zeros(len(obs), self.widths[1], device=obs.device)
        zeros = np.zeros(len(obs))
        self.add(obs, no_action, z, reward=zeros, terminated=zeros, last=zeros + 1, t=t)

    def draw(self, shape, span, newest=None):
        """Indices (row, env), uniform over the rows (of the `newest` entries) that begin `span` rows of the ring."""
        rows = self.filled
        if newest is not None:
            rows = rows.clamp(max=math.ceil(newest / self.data.shape[1]))
        offset = torch.rand(shape, dtype=torch.float64, device=self.data.device) * (rows - span + 1)
        row = (self.head - rows + offset.long()) % len(self.data)
        env = torch.randint(self.data.shape[1], shape, device=self.data.device)
        return row, env

    def sample_states(self, batch_size, newest=None):
        """States, uniform over all (the `newest`) entries."""
        row, env = self.draw((batch_size,), 1, newest)
        rows = self.rows(row, env)
        return States(rows.obs, rows.z)

    def sample_segments(self, batch_size, horizon):
        """Segments that start at any transition; none crosses the write head, and the mask ends one with its
        episode."""
        # Four candidates each, of which the first that starts with a transition is taken. (If none does: mask 0.)
        row, env = self.draw((4, batch_size), horizon + 1)
        starts = self.fields(self.data).last[row, env] == 0
        first = starts.float().argmax(0, keepdim=True)  # (1, B)
        row = row.gather(0, first)
        env = env.gather(0, first)
        steps = torch.arange(horizon + 1, device=row.device)[:, None]
        rows = self.rows((row + steps) % len(self.data), env)  # (H+1, B, ·)
        mask = (1 - rows.last[:-1]).cumprod(0)
        return Segments(rows.obs, rows.a[:-1], rows.z[:-1], rows.reward[:-1], rows.terminated[:-1], mask)

    def in_order(self):
        """All Rows (filled, N, ·), oldest first."""
        row = self.head - self.filled + torch.arange(int(self.filled), device=self.data.device)
        env = torch.arange(self.data.shape[1], device=self.data.device)
        return self.rows(row[:, None] % len(self.data), env)

    def state_dict(self):
        """What a checkpoint needs; on a CPU it shares the ring's memory, of which only the filled part is written."""
        data = torch.from_numpy(self.data[: int(self.filled)].cpu().numpy())
        return {"data": data, "head": self.head, "filled": self.filled}

    def load_state_dict(self, state):
        """Go on from a state_dict. ValueError if that is of another shape."""
        filled = self.data[: len(state["data"])]
        if filled.shape != state["data"].shape:  # which copy_ might broadcast
            raise ValueError(f"a replay of shape {tuple(state['data'].shape)}, not {tuple(filled.shape)}")
        filled.copy_(state["data"])
        self.head.copy_(state["head"])
        self.filled.copy_(state["filled"])
        if self.head != self.filled and self.filled < len(self.data):
            raise ValueError("a replay of another capacity, which was full")


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
    rollout = []
    h = model.init_hidden(s)
    for _ in range(args.horizon):
        a, logp_a = policy(s, z)
        e = model.action_encoder(a)
        h, next_s = model.step(h, e)
        rollout.append((s, a, e, logp_a, next_s))
        s = next_s
    states, actions, e, logp_a, next_s = (torch.stack(steps) for steps in zip(*rollout))  # (H, B, ·)
    z = z.expand(args.horizon, *z.shape)  # (H, B, Z)
    r_elbo = -alpha * logp_a  # r′_t = −α log π(a_t|s_t,z) + β log p(z|s_t,a_t), Sec. 4.3, less a baseline
    if posterior is not None:
        r_elbo = r_elbo + args.beta * (posterior.log_prob(states, actions, z) - posterior.baseline(z))
    v_est = mean_k_step_value(model.reward(next_s, e) + r_elbo, model.value(next_s, z, twins), args.gamma)
    return v_est, states, actions, logp_a


@torch.no_grad()
def plan(model, posterior, s, z, act_dim, args):
    """--policy cem: actions (B, A) at s (B, S), z (B, Z), by the cross-entropy method. Sequences of `horizon` actions
    are drawn from a Gaussian, valued in the model as in Eq. 3, and the Gaussian is fitted to the best of them. It only
    acts: the values that it plans with, and α, are those of the Gaussian π(a|s,z), trained as ever."""
    batch_size = len(s)
    shape = args.horizon, batch_size, CEM_SAMPLES, act_dim
    mean = s.new_zeros(args.horizon, batch_size, 1, act_dim)
    std = torch.ones_like(mean)
    s = s.repeat_interleave(CEM_SAMPLES, 0)
    z = z.repeat_interleave(CEM_SAMPLES, 0)
    for _ in range(CEM_ITERATIONS):
        a = (mean + std * torch.randn(shape, device=s.device)).clamp(-1, 1)
        planned = PlannedActions(a.flatten(1, 2))
        v_est, *_ = value_estimate(model, planned, posterior, s, z, 0.0, args, twins=2)
        best = v_est.amin(0).view(shape[1:3]).topk(CEM_ELITES, -1).indices  # (B, elites)
        elites = a.gather(2, best[None, :, :, None].expand(args.horizon, -1, -1, act_dim))
        mean = elites.mean(2, keepdim=True)
        std = elites.std(2, keepdim=True).clamp(min=CEM_MIN_STD)
    first_mean, first_std = mean[0, :, 0], std[0, :, 0]  # (B, A)
    return (first_mean + first_std * torch.randn_like(first_mean)).clamp(-1, 1)


class PlannedActions:
    """In the place of π(a|s,z): the next of some actions (H, B, A) at each call, with log π = 0."""

    def __init__(self, actions):
        self.actions = iter(actions)

    def __call__(self, s, z):
        a = next(self.actions)
        return a, torch.zeros_like(a[..., 0])


@contextlib.contextmanager
def frozen(*nets):
    """A gradient passes through these networks (None: there is none), but is not computed for their parameters: that of
    the policy's loss for the model would be a third of the work, and thrown away."""
    parameters = [parameter for net in nets if net is not None for parameter in net.parameters()]
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


class Agent(nn.Module):
    """All networks, their losses and optimisers, and the update: one step of each."""

    def __init__(self, obs_dim, object_dim, act_dim, latent_dim, args, device):
        super().__init__()
        self.args = args
        self.act_dim = act_dim
        self.device = device
        self.model = WorldModel(obs_dim, object_dim, act_dim, latent_dim, args)
        self.policy = POLICIES[args.policy](act_dim, latent_dim, args)
        self.prior = Prior(latent_dim, args)
        self.posterior = Posterior(act_dim, latent_dim, args) if latent_dim else None
        self.rnd = RND(obs_dim, object_dim, args) if args.rnd_coef else None
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.GRUCell)):
                for name, parameter in module.named_parameters():
                    if name.startswith("bias"):
                        nn.init.zeros_(parameter)
                    else:
                        nn.init.orthogonal_(parameter)
        self.target_model = copy.deepcopy(self.model).requires_grad_(False)
        self.log_alpha = nn.Parameter(torch.zeros(()), requires_grad=args.autotune)  # log (α / args.alpha)
        self.to(device)

        def adam(parameters):
            graphed = args.cudagraphs and device.type == "cuda"
            return torch.optim.Adam(parameters, args.learning_rate, fused=True, capturable=graphed)

        self.model_optimizer = adam(self.model.parameters())
        self.policy_optimizer = adam(self.policy.parameters())
        if args.autotune:
            self.alpha_optimizer = adam([self.log_alpha])
        if self.rnd is not None:
            self.rnd_optimizer = adam(self.rnd.g.parameters())
        if self.posterior is not None:
            self.posterior_optimizer = adam(self.posterior.parameters())
        if args.compile:  # the random numbers stay those of a run that is not compiled
            for name in ("model_loss", "policy_loss", "posterior_loss"):  # (not rnd_loss: slower)
                compiled = torch.compile(getattr(self, name), fullgraph=True, options={"fallback_random": True})
                setattr(self, name, compiled)
        if args.cudagraphs and device.type == "cuda":
            self.update = as_cuda_graphs(self)

    def optimizers(self):
        """{name: optimiser} of all that this agent has."""
        return {name: value for name, value in vars(self).items() if isinstance(value, torch.optim.Optimizer)}

    @torch.no_grad()
    def sample_z(self, obs, generator=None):
        """z (..., Z) ~ π(z|s₁) for first observations obs (..., O), an array or a tensor."""
        obs = torch.as_tensor(obs, dtype=torch.float32, device=self.device)
        return self.prior.sample(self.model.encoder(obs), generator)

    @torch.no_grad()
    def act(self, obs, z):
        """Actions (B, A) ~ π(a|s,z), or planned (--policy cem), at obs (B, O), an array or a tensor, and z (B, Z)."""
        obs = torch.as_tensor(obs, dtype=torch.float32, device=self.device)
        s = self.model.encoder(obs)
        if self.args.policy == "cem":
            return plan(self.model, self.posterior, s, z, self.act_dim, self.args)
        a, _ = self.policy(s, z)
        return a

    def rnd_loss(self, obs):
        """Fit g to states of the replay, obs (B, O), and the normaliser to their errors."""
        error = self.rnd.error(obs)
        with torch.no_grad():
            self.rnd.update_normalizer(error)
        return error.mean()

    def model_loss(self, segments):
        """Eq. 4 on Segments. Returns: the loss, its parts."""
        args, model, target_model = self.args, self.model, self.target_model
        obs, a, z, reward, terminated, mask = segments
        logs = {}
        target_reward = args.reward_scale * reward  # R / T
        with torch.no_grad():
            if self.rnd is not None:  # relabel: the bonus is never stored
                bonus = self.rnd.bonus(obs[1:])  # (H, B)
                assert bonus.shape == mask.shape
                target_reward = target_reward + args.rnd_coef * bonus
                logs["rnd_reward"] = (mask * bonus).sum() / mask.sum().clamp(min=1)
            # targets: f̄(o_{t+1}) and V̄_est(o_{t+1}, z), lesser twin, no entropy (official code)
            next_s_target = target_model.encoder(obs[1:])  # (H, B, S)
            flat_s, flat_z = next_s_target.flatten(0, 1), z.flatten(0, 1)  # (H * B, ·)
            v_target, *_ = value_estimate(
                target_model, self.policy, self.posterior, flat_s, flat_z, alpha=0.0, args=args, twins=2
            )  # (2, H * B)
            v_target = v_target.amin(0).view_as(mask) * (1 - terminated)  # 0 if terminated, not at a time limit
        h = model.init_hidden(model.encoder(obs[0]))
        e = model.action_encoder(a)  # (H, B, D)
        rollout = []
        for t in range(args.horizon):
            h, next_s = model.step(h, e[t])
            rollout.append(next_s)
        next_s = torch.stack(rollout)  # (H, B, S)
        values = model.value(next_s, z, twins=2)  # (2, H, B); as Q = R + γV, Eq. 4 compares V
        assert next_s.shape == next_s_target.shape and values.shape[1:] == v_target.shape == target_reward.shape
        consistency_loss = (mask * (next_s - next_s_target).square().mean(-1)).mean()
        reward_loss = (mask * (model.reward(next_s, e) - target_reward).square()).mean()
        value_loss = (mask * (values - v_target).square().sum(0)).mean()
        loss = args.consistency_coef * consistency_loss + args.reward_coef * reward_loss + args.value_coef * value_loss
        logs |= {"consistency_loss": consistency_loss, "reward_loss": reward_loss, "value_loss": value_loss}
        logs["values"] = values.mean()
        logs["state_std"] = next_s_target.std((0, 1), correction=0).mean()  # near 0: the latent state has collapsed
        return loss, logs

    def policy_loss(self, obs, z, alpha):
        """−V_est of the first twin (Eq. 3) at obs (B, O), z (B, Z): its gradient flows through model and p(z|s,a) into
        π. Returns: the loss; where it acted, s (H, B, S) and a (H, B, A); the entropy of π."""
        s = self.model.encoder(obs).detach()
        v_est, s, a, logp_a = value_estimate(self.model, self.policy, self.posterior, s, z, alpha, self.args, twins=1)
        return -v_est.mean(), s.detach(), a.detach(), -logp_a.detach().mean()

    def posterior_loss(self, s, a, z):
        """The cross entropy −log p(z|s,a) of Eq. 2, where the policy acted: s (H, B, S), a (H, B, A); z (B, Z)."""
        return -self.posterior.log_prob(s, a, z).mean()

    def update(self, replay, with_policy, with_target):
        """Algorithm 1: one step of every network that is due, on fresh samples, with no host sync. Returns the logs."""
        args, logs = self.args, {}
        segments = replay.sample_segments(args.batch_size, args.horizon)

        # the density estimator g, on states of the replay (Sec. 4.3.2)
        if self.rnd is not None:
            states = replay.sample_states(args.batch_size, args.rnd_buffer_size)
            rnd_loss = self.rnd_loss(states.obs)
            self.rnd_optimizer.zero_grad()
            rnd_loss.backward()
            clip_grad_norm_(self.rnd.g.parameters(), args.max_grad_norm)
            self.rnd_optimizer.step()
            logs["rnd_loss"] = rnd_loss

        # the world model ψ (Eq. 4)
        model_loss, model_logs = self.model_loss(segments)
        self.model_optimizer.zero_grad()
        model_loss.backward()
        grad_norm = clip_grad_norm_(self.model.parameters(), args.max_grad_norm)
        self.model_optimizer.step()
        logs |= {"model_loss": model_loss, "grad_norm": grad_norm, **model_logs}

        if with_policy:
            # π(a|s,z) (Eq. 3)
            states = replay.sample_states(args.batch_size)
            alpha = args.alpha * self.log_alpha.detach().exp()
            with frozen(self.model, self.posterior):
                policy_loss, s, a, entropy = self.policy_loss(states.obs, states.z, alpha)
                self.policy_optimizer.zero_grad()
                policy_loss.backward()
            clip_grad_norm_(self.policy.parameters(), args.max_grad_norm)
            self.policy_optimizer.step()
            logs |= {"policy_loss": policy_loss, "entropy": entropy, "alpha": alpha}

            # p(z|s,a), on the imagined trajectories (Eq. 2)
            if self.posterior is not None:
                info_loss = self.posterior_loss(s, a, states.z)
                self.posterior_optimizer.zero_grad()
                info_loss.backward()
                clip_grad_norm_(self.posterior.parameters(), args.max_grad_norm)
                self.posterior_optimizer.step()
                info = -info_loss - self.posterior.baseline(states.z).mean()
                logs |= {"info_loss": info_loss, "info_reward": args.beta * info}

            # α falls while the entropy is above its target −|A|
            if args.autotune:
                alpha_loss = args.alpha * self.log_alpha.exp() * (entropy + self.act_dim)
                self.alpha_optimizer.zero_grad()
                alpha_loss.backward()
                clip_grad_norm_([self.log_alpha], args.max_grad_norm)
                self.alpha_optimizer.step()
                logs["alpha_loss"] = alpha_loss

        # the target network, a running mean of the model
        if with_target:
            with torch.no_grad():
                for target, online in zip(self.target_model.parameters(), self.model.parameters()):
                    target.lerp_(online, args.tau)
                for target, online in zip(self.target_model.buffers(), self.model.buffers()):
                    target.copy_(online)

        return {name: value.detach() for name, value in logs.items()}


def as_cuda_graphs(agent):
    """`agent.update` of one replay, where each kind, (with_policy, with_target), becomes a CUDA graph after some eager
    calls: the same kernels and random numbers, launched at once. It is recorded again when args or learning rates have
    changed; else what changes between updates must be in tensors, for a graph repeats numbers and branches of Python's
    as they were. A call's logs are overwritten by the next of its kind. Raises RuntimeError if the update waits for the
    GPU."""
    update, calls, graphs = agent.update, Counter(), {}

    def settings():
        groups = [group for optimizer in agent.optimizers().values() for group in optimizer.param_groups]
        return [*vars(agent.args).values(), *[group["lr"] for group in groups]]

    def update_or_replay(replay, *kind):
        calls[kind] += 1
        if calls[kind] <= GRAPH_WARMUP:  # makes Adam's state, library handles, compiled code
            return update(replay, *kind)
        if kind not in graphs or graphs[kind][0] != settings():
            recorded_with = settings()
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph):  # recorded, not run
                    logs = update(replay, *kind)
            except RuntimeError as error:
                raise RuntimeError(f"no CUDA graph of the update (.item()? an if? --no-cudagraphs): {error}") from error
            graphs[kind] = recorded_with, graph, logs
        _, graph, logs = graphs[kind]
        graph.replay()
        return logs

    return update_or_replay


def mark(visits, obs):
    """Count the unit square of visits, a tensor (10, 10), where each agent is; obs (N, O)."""
    x, y = torch.as_tensor((obs[:, -2:] + 1) * MAZE_HALF).long().clamp(0, 9).T
    visits.index_put_((x, y), torch.ones_like(x), accumulate=True)


def share(visits):
    """Coverage: the share of the unit squares visited so far."""
    return int((visits > 0).sum()) / visits.numel()


def snapshot(agent):
    """Play TRAJECTORIES episodes, always from the same seed: tensors on the CPU, positions (T, N, 2), z (N, Z)."""
    gpus = [agent.device] if agent.device.type == "cuda" else []
    with torch.random.fork_rng(gpus):
        torch.manual_seed(0)
        mazes = make_vector_env("maze", TRAJECTORIES, 0)
        obs, _ = mazes.reset()
        z = agent.sample_z(obs)
        positions = []
        for _ in range(MAZE_LENGTH):
            positions.append(MAZE_HALF * obs[:, -2:])
            obs, *_ = mazes.step(agent.act(obs, z).cpu().numpy())
    return torch.tensor(np.stack(positions)), z.cpu()


def write_figures(run_dir, snapshots, visits, coverage, latent):
    """maze.png, and then maze.npz with what is drawn there."""
    plot(snapshots, visits.numpy(), coverage, run_dir / "maze.png", latent)
    arrays = {
        "steps": [step for step, _, _ in snapshots],
        "positions": [positions.numpy() for _, positions, _ in snapshots],
        "z": [z.numpy() for _, _, z in snapshots],
        "visits": visits.numpy(),
        "coverage": coverage,
    }
    replace_file(run_dir / "maze.npz", lambda file: np.savez(file, **arrays))


def figures_step(run_dir):
    """The step that a run's figures are of; -1 if there are none, or a damaged maze.npz."""
    try:
        return np.load(run_dir / "maze.npz")["coverage"][-1][0]
    except Exception:  # NumPy raises what it meets
        return -1


def plot(snapshots, visits, coverage, path, latent):
    """Fig. 5 as a PNG: trajectories of the policy, coloured by z, in some of the snapshots [(step, positions (T, N, 2),
    z (N, Z))]; how often each unit square was visited, visits (10, 10); coverage [(step, share)]."""
    os.environ["MPLBACKEND"] = "agg"  # a notebook's may not be there
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    shown = np.unique(np.linspace(0, len(snapshots) - 1, SHOWN).astype(int)) if snapshots else []
    figure = Figure(figsize=(3.1 * len(shown) + 7, 3.4), layout="constrained")
    *policy_axes, visits_axis, coverage_axis = figure.subplots(1, len(shown) + 2)
    walls_across_x, walls_across_y = MAZE_WALLS
    for axis in (*policy_axes, visits_axis):
        colour = "white" if axis is visits_axis else "black"
        for place, low, high in walls_across_x:
            axis.plot((place, place), (low, high), color=colour)
        for place, low, high in walls_across_y:
            axis.plot((low, high), (place, place), color=colour)
        axis.set(aspect="equal", xticks=[], yticks=[], xlim=(-5.1, 5.1), ylim=(-5.1, 5.1))
    for axis, i in zip(policy_axes, shown):
        step, positions, z = snapshots[i]
        positions, z = positions.numpy(), z.numpy()
        colours = np.full((len(z), 3), 0.4)
        if latent == "categorical":
            colours = colormaps["turbo"](z.argmax(-1) / z.shape[1])
        elif latent == "gaussian":  # its first three dimensions as red, green and blue
            colours[:, : z.shape[1]] = 1 / (1 + np.exp(-1.7 * z[:, :3]))
        for k, colour in enumerate(colours):
            axis.plot(*positions[:, k].T, color=colour, linewidth=0.8, alpha=0.8)
        axis.set_title(f"policy at step {step:,}")
    image = visits_axis.imshow(np.log10(1 + visits.T), origin="lower", extent=(-5, 5, -5, 5), cmap="magma")
    visits_axis.set_title("visits")
    figure.colorbar(image, ax=visits_axis, label="log10(1 + steps in the square)", shrink=0.8)
    coverage_axis.plot(*np.array(coverage).T, color="tab:red")
    coverage_axis.set(title="coverage", xlabel="environment steps", ylim=(0, 1.02))
    coverage_axis.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:g}k")
    coverage_axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def save(run_dir, agent, replay, obs, z, age, progress):
    """End the running episodes in the replay, for where the agents are is not saved, and write all that a resumed run
    needs. obs (N, O), z (N, Z), age (N,): where the environments are; progress: what `restore` is to return."""
    replay.end_episodes(torch.as_tensor(obs, device=z.device), z, age)
    optimizers = optimizer_states(agent)
    state = {"agent": agent.state_dict(), "optimizers": optimizers, "replay": replay.state_dict(), "progress": progress}
    write_checkpoint(run_dir, state)


def restore(run_dir, agent, replay):
    """Undo `save` from the newest checkpoint. Returns its progress. Any kind of exception if the files don't fit."""
    state = read_checkpoint(run_dir)
    agent.load_state_dict(state["agent"])
    load_optimizer_states(agent, state["optimizers"])
    replay.load_state_dict(state["replay"])
    restore_rng(state["rng"])
    return state["progress"]


if __name__ == "__main__":
    args, given = parse_args(Args, __doc__, CHANGEABLE, POSITIVE | NOT_NEGATIVE)
    check_args(args, given)
    stop = Stop()
    stop.listen()
    runs = Path("runs").absolute()  # an environment's code may change the working directory
    # TRY NOT TO MODIFY: seeding
    torch.manual_seed(args.seed)
    device = choose_device(args, given)
    latent_dim = latent_size(args)
    sizes = *Maze.observation_space.shape, Maze.object_dim, *Maze.action_space.shape
    obs_dim, object_dim, act_dim = sizes
    try:
        options = [] if args.goal is None else [f"goal={args.goal}"]
        envs = make_vector_env("maze", args.num_envs, args.seed, options=options)
        replay = Replay(args.buffer_size, args.num_envs, obs_dim, act_dim, latent_dim, device)
        agent = Agent(*sizes, latent_dim, args, device)
        check_optimizers(agent, agent.optimizers())
    except (ValueError, OSError, RuntimeError) as error:  # no such cell, too little memory
        refuse(error)

    # a new run, or the newest checkpoint of an old one
    global_step, updates, episodes, recent = 0, 0, 0, []
    visits = torch.zeros(10, 10, dtype=torch.long)
    coverage, snapshots = [], []  # [(step, share)], [(step, positions, z)]
    try:
        if args.resume is None:
            run_dir = make_run_dir(runs, "maze", args.exp_name, args.seed)
        else:
            run_dir = Path(args.resume).absolute()
        may_write = lock(run_dir)
    except OSError as error:
        refuse(error)
    if args.resume is not None:
        try:
            *numbers, recent, coverage, visits, snapshots = restore(run_dir, agent, replay)
            global_step, updates, episodes = map(int, numbers)
            visits = visits.cpu()
            snapshots = [(step, positions.cpu(), z.cpu()) for step, positions, z in snapshots]
        except Exception as error:  # whatever it is, the run can't go on from these files
            refuse(f"--resume {args.resume}: no checkpoint yet, or damaged, or of another shape: {str(error)[:150]}")
    if global_step >= args.total_timesteps:
        say(f"{short(run_dir)} is at step {global_step:,} already: no steps to take")
        if may_write and figures_step(run_dir) < global_step:  # a kill came before they were drawn
            try:
                write_figures(run_dir, snapshots, visits, coverage, args.latent)
            except OSError as error:
                warn(f"its figures stay as they are: {error}")
        report(run_dir, "maze", args.seed, global_step, episodes, recent, coverage=share(visits), sps=None)
        sys.exit()
    if not may_write:
        refuse(f"--resume {args.resume}: another process is training this run")
    if snapshots and not crossed(args.figure_frequency, snapshots[-1][0] - args.num_envs, snapshots[-1][0]):
        snapshots.pop()  # it is there only because the run ended there

    introduce(run_dir, "maze", sizes, args.num_envs, device)
    if args.compile:
        say("--compile: the first updates take a minute or two")
    try:
        writer = start_log(run_dir, args, global_step)
    except OSError as error:  # a full disk, a directory that cannot be written
        refuse(error)
    stop.listen()  # environments may have handlers of their own
    progress = Progress(args.total_timesteps)

    # TRY NOT TO MODIFY: start the game
    speed = Speed()
    start_updates = updates
    sums, counts = {}, Counter()  # of the losses, since the last row of them
    sps = None  # steps a second, of the last row
    over = False
    restart = True
    try:
        while not over:
            if restart:  # a resumed run goes on like the uninterrupted one
                obs, _ = envs.reset()
                mark(visits, obs)
                age = np.zeros(args.num_envs)  # steps into the episode
                done = np.zeros(args.num_envs, bool)  # whether obs is its last observation
                z = torch.zeros(args.num_envs, latent_dim, device=device)
                restart = False

            # ALGO LOGIC: act
            obs_tensor = torch.as_tensor(obs, device=device)
            due = z_is_due(age)
            if due.any():  # z ~ π(z|s₁)
                z = torch.where(torch.as_tensor(due, device=device)[:, None], agent.sample_z(obs_tensor), z)
            a = agent.act(obs_tensor, z)
            actions = finite(a.cpu().numpy())

            # ALGO LOGIC: update. It is launched here, and not after the step, because a GPU then works while the
            # environments do; and after the actions have come back, which would have to wait for it.
            if global_step >= args.learning_starts:
                updates += 1
                with_policy = updates % args.policy_frequency == 0
                with_target = updates % args.target_network_frequency == 0
                for key, value in agent.update(replay, with_policy, with_target).items():
                    sums[key] = sums.get(key, 0) + value
                    counts[key] += 1
                if updates == start_updates + BURN_IN:
                    speed.start(global_step)

            # TRY NOT TO MODIFY: execute the game, store what happened
            next_obs, rewards, terminations, truncations, infos = envs.step(actions)
            # CRUCIAL step easy to overlook: where done, obs ends an episode, a is ignored, next_obs starts the next one
            replay.add(obs_tensor, a, z, rewards, terminations, last=done, t=age)
            last_step = global_step
            global_step += int((~done).sum())
            obs = next_obs
            mark(visits, obs)
            age = np.where(done, 0, age + 1)
            done = terminations | truncations

            # log
            if done.any():
                summaries = infos[SUMMARY_KEY][done].tolist()
                episodes += len(summaries)
                recent = (recent + summaries)[-RECENT:]
                for key, mean in average(summaries).items():  # of those that end together: one point a step
                    writer.add_scalar(f"charts/{key}", mean, global_step)
                writer.add_scalar("charts/episodes", episodes, global_step)
            over = global_step >= args.total_timesteps or stop.requested
            checkpoint_due = over or crossed(args.checkpoint_frequency, last_step, global_step)
            figure_due = over or crossed(args.figure_frequency, last_step, global_step)
            if checkpoint_due or figure_due or crossed(LOG_FREQUENCY, last_step, global_step):
                for key, total in sums.items():
                    mean = total.item() / counts[key]
                    if not math.isfinite(mean):
                        raise NotFinite(f"losses/{key} is nan or infinite")
                    writer.add_scalar(f"losses/{key}", mean, global_step)
                sums, counts = {}, Counter()
                coverage.append((global_step, share(visits)))
                writer.add_scalar("charts/coverage", share(visits), global_step)
                sps = speed.sps(global_step)
                if sps is not None:
                    writer.add_scalar("charts/SPS", sps, global_step)
                if updates >= start_updates + BURN_IN:
                    check_gradients(agent, agent.optimizers())
            progress.show(global_step, speed.sps(global_step), {"coverage": share(visits)}, over)

            counts_so_far = global_step, updates, episodes, recent, coverage, visits, snapshots

            # checkpoint, with the policy that is drawn at the same step
            if figure_due:
                snapshots.append((global_step, *snapshot(agent)))
            if checkpoint_due:
                restart = True
                writer.flush()
                save(run_dir, agent, replay, obs, z, age, counts_so_far)
            if figure_due:
                write_figures(run_dir, snapshots, visits, coverage, args.latent)
        envs.close()
        writer.close()
    except NotFinite as error:  # a nan: the newest checkpoint stands
        coverage.append((global_step, share(visits)))
        with contextlib.suppress(OSError):
            write_figures(run_dir, snapshots, visits, coverage, args.latent)
            writer.close()
        end_on_nan(error, sums, global_step, run_dir)
    except (Exception, SystemExit, KeyboardInterrupt) as error:  # anything else: the last finished step is saved
        with contextlib.suppress(Exception):  # on a full disk, say, the newest checkpoint has to do
            if not restart:
                save(run_dir, agent, replay, obs, z, age, counts_so_far)
            writer.close()
        end_on_error(error, global_step, run_dir)
        raise
    covered = {"coverage": share(visits), "sps": sps}
    report(run_dir, "maze", args.seed, global_step, episodes, recent, **covered)

# /// script
# requires-python = ">=3.10,<3.14"
# dependencies = [
#     "torch>=2.10,<2.14",
#     "gymnasium[mujoco]>=1.4,<1.5",
#     "tyro>=1.0,<2",
#     "tensorboard>=2.16",
#     "matplotlib>=3.8",
# ]
# ///
"""Reparameterized Policy Gradient (RPG): Huang et al., Reparameterized Policy Learning for Multimodal Trajectory
Optimization, ICML 2023. The variational bound (Eq. 2) alone, on the 1-D continuous bandit of Sec. 5.1 and Fig. 4.

    python rpg_bandit.py                        # RPG ends on the high, narrow mode on the left; seconds
    python rpg_bandit.py --method gaussian      # one Gaussian by REINFORCE ends on the low, wide mode on the right

There is no state, and a trajectory τ is one action a. RPG draws z ~ π(z), then a ~ π(a|z), and climbs

    E[ R(a)/T + β log p(z|a) − log π(z) − log π(a|z) ]              (Eq. 2, whose log p(τ) is constant and whose β is 1)

by the reparameterised gradient through R, p(z|a) and π(a|z), and by the score-function gradient of π(z). T falls.
β, which the paper adds in Sec. 4.3, is 2 by default: at --beta 1 most seeds end on the low mode (see docs/results.md).
"""

import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn as nn
from torch.distributions import Independent, Normal, OneHotCategorical, TanhTransform, TransformedDistribution

from envs import make_run_dir, parse_args, refuse, say, short, start_log


@dataclass
class Args:
    # --- experiment
    exp_name: str = Path(__file__).stem  # name of the experiment, part of the run's name
    seed: int = 1  # seed of networks and sampling
    method: Literal["rpg", "gaussian"] = "rpg"  # gaussian: one tanh-Normal, no z (the paper's comparison)
    reparameterized: bool = False  # --method gaussian: climb the pathwise gradient instead of REINFORCE's
    # --- optimisation
    iterations: int = 500  # updates
    batch_size: int = 512  # actions an update
    learning_rate: float = 0.01  # Adam's step size
    hidden_dim: int = 64  # width of the hidden layers
    temperature_start: float = 0.3  # T of Eq. 2 at the first iteration; falls geometrically ...
    temperature_end: float = 0.03  # ... to this at the last
    # --- latent
    latent: Literal["gaussian", "categorical"] = (
        "categorical"  # z; a Gaussian ends in the local mode (see docs/results.md)
    )
    latent_dim: int = 12  # dimensions, or categories, of z (paper Table 1)
    beta: float = 2.0  # β, weight of log p(z|a): 1 in Eq. 2, which pays nothing for a z that a depends on
    posterior_std: float = 0.38  # standard deviation of the Gaussian p(z|a) (paper Table 1)


SHOWN = 0, 10, 20, 60  # iterations before which Fig. 4 shows the policy; and at the end
VALLEY = -0.3  # an action between the two modes, where R = 0
BEST_REWARD = 1.1  # the highest R


def check_args(args, given):
    """Refuse impossible values, and flags (names in the set `given`) that would have no effect: one line, exit code
    2."""
    least_of = {"seed": 0, "beta": 0, "batch_size": 2}  # (one draw of z would have no baseline)
    for name, value in vars(args).items():
        if type(value) not in (int, float):
            continue
        least = least_of.get(name, 1 if type(value) is int else 1e-9)
        if not least <= value < 2**31:
            refuse(f"--{name.replace('_', '-')} {value}: must be at least {least} and below 2**31")
    if args.temperature_end > args.temperature_start:
        refuse("--temperature-end must not be above --temperature-start")
    idle = {"reparameterized"}
    if args.method == "gaussian":
        idle = {"hidden_dim", "latent", "latent_dim", "beta", "posterior_std"}
    elif args.latent == "categorical":
        idle.add("posterior_std")
    for name in sorted(given & idle):
        refuse(f"--{name.replace('_', '-')}: no effect with --method {args.method} --latent {args.latent}")


# ALGO LOGIC: the bandit
def reward(a):
    """R(a) of any shape, a in [-1, 1]: 1.1 at a = -0.6, where the mode is 0.25 wide; nearly 0.5 below the step at
    0.875, where the mode is 1 wide (official tutorial). The pathwise gradient doesn't see the step."""
    high = (1.1 - 18 * (2 * a + 1.2).square()).clamp(min=0)
    low = (0.5 - 0.125 * (2 * a - 1.75).square()).clamp(min=0)
    return high + torch.where(a < 0.875, low, torch.zeros_like(low))


# ALGO LOGIC: distributions
def mlp(in_dim, hidden_dim, out_dim):
    """A network with two hidden layers (paper App. A), orthogonal weights and zero biases."""
    net = nn.Sequential(
        nn.Linear(in_dim, hidden_dim),
        nn.ELU(),
        nn.Linear(hidden_dim, hidden_dim),
        nn.ELU(),
        nn.Linear(hidden_dim, out_dim),
    )
    for parameter in net.parameters():
        if parameter.ndim > 1:
            nn.init.orthogonal_(parameter)
        else:
            nn.init.zeros_(parameter)
    return net


class Agent(nn.Module):
    """π(z), π(a|z) and p(z|a) as torch distributions; --method gaussian has π(a) alone, tanh of N(0, 1) at first."""

    def __init__(self, args):
        super().__init__()
        self.rpg = args.method == "rpg"
        self.categorical = args.latent == "categorical"
        self.posterior_std = args.posterior_std
        if self.rpg:
            parameters = args.latent_dim if self.categorical else 2 * args.latent_dim  # logits, or mean and log std
            self.z_out = nn.Parameter(torch.zeros(parameters))
            self.a_net = mlp(args.latent_dim, args.hidden_dim, 2)
            self.posterior_net = mlp(1, args.hidden_dim, args.latent_dim)
        else:
            self.a_out = nn.Parameter(torch.zeros(2))  # mean and log std

    def prior(self):
        """π(z) over (Z,), learned: uniform over one-hot z, or N(0, I), at first."""
        if self.categorical:
            return OneHotCategorical(logits=self.z_out)
        mean, log_std = self.z_out.chunk(2)
        return Independent(Normal(mean, log_std.exp()), 1)

    def policy(self, z):
        """π(a|z) over (B, 1) at z (B, Z), a tanh-Normal."""
        out = self.a_net(z) if self.rpg else self.a_out.expand(len(z), 2)
        mean, log_std = out.chunk(2, -1)
        normal = Independent(Normal(mean, log_std.clamp(-20, 2).exp()), 1)
        return TransformedDistribution(normal, TanhTransform(cache_size=1))  # cached: exact for large |atanh a| too

    def posterior(self, a):
        """p(z|a) over (B, Z) at a (B, 1): the auxiliary distribution p_φ of Sec. 4.2."""
        out = self.posterior_net(a)  # logits, or the mean
        if self.categorical:
            return OneHotCategorical(logits=out)
        return Independent(Normal(out, self.posterior_std), 1)


def objective(agent, batch_size, temperature, beta, reparameterized=True):
    """Eq. 2 on fresh draws. Returns: a scalar with the ELBO's gradient; its terms {name: (B,)}; a (B,); z (B, Z)."""
    z = torch.ones(batch_size, 1)
    if agent.rpg:
        z = agent.prior().sample((batch_size,))
    policy = agent.policy(z)
    if reparameterized:
        a = policy.rsample()
        logp_a = policy.log_prob(a)
        drawn = torch.zeros_like(logp_a)  # log-probability of what was drawn without a path for the gradient
        terms = {"reward": reward(a[:, 0]) / temperature, "entropy_a": -logp_a}
    else:
        a = policy.sample()
        drawn = policy.log_prob(a)
        terms = {"reward": reward(a[:, 0]) / temperature, "entropy_a": -drawn.detach()}
    if agent.rpg:
        drawn = agent.prior().log_prob(z)
        terms["cross_entropy"] = beta * agent.posterior(a).log_prob(z)
        terms["entropy_z"] = -drawn.detach()
    elbo = sum(terms.values())
    advantage = (elbo - elbo.mean()).detach()
    return (elbo + advantage * drawn).mean(), terms, a[:, 0].detach(), z


def plot(snapshots, mean_rewards, path, args):
    """Fig. 4 as a PNG: reward and density of actions, coloured by z (a Gaussian z: twelve shares by its first
    dimension), at each of the snapshots [(iteration, a (B,), z (B, Z))]; last the curve of the mean reward."""
    os.environ["MPLBACKEND"] = "agg"  # a notebook's may not be there
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    columns = math.ceil((len(snapshots) + 1) / 2)
    figure = Figure(figsize=(3.2 * columns, 5.6), layout="constrained")
    axes = figure.subplots(2, columns).flatten()
    curve = axes[len(snapshots)]
    for axis in axes[len(snapshots) + 1 :]:
        axis.axis("off")
    x = torch.linspace(-1, 1, 801)
    groups = 12
    if args.method == "gaussian":
        groups = 1
    elif args.latent == "categorical":
        groups = args.latent_dim
    colours = colormaps["turbo"](torch.linspace(0.05, 0.95, groups).numpy())
    for axis, (iteration, a, z) in zip(axes, snapshots):
        group = z.argmax(-1)
        if args.latent == "gaussian":
            group = z[:, 0].argsort().argsort() * 12 // len(z)
        parts = [a[group == i].numpy() for i in range(groups)]
        axis.hist(parts, bins=80, range=(-1, 1), density=True, stacked=True, color=colours)
        axis.plot(x, reward(x), color="black", linewidth=1.5)
        axis.set(title=f"iteration {iteration}", xlabel="action", xlim=(-1, 1), ylim=(0, 3))
    title = "reward (line) and density of the actions (bars, cut at 3)"
    if groups > 1:
        title += f", in {groups} colours by z"
    figure.suptitle(title, fontsize=11)
    curve.plot(mean_rewards, color="tab:red")
    curve.axhline(BEST_REWARD, color="black", linestyle="--", linewidth=1)
    curve.set(title="mean reward (dashed: the best)", xlabel="iteration", ylim=(0, 1.2))
    figure.savefig(path, dpi=160)


if __name__ == "__main__":
    args, given = parse_args(Args, __doc__)
    check_args(args, given)
    # TRY NOT TO MODIFY: seeding
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)  # the networks are tiny
    torch.distributions.Distribution.set_default_validate_args(False)  # for speed
    try:
        agent = Agent(args)
        run_dir = make_run_dir(Path("runs").absolute(), f"bandit-{args.method}", args.exp_name, args.seed)
        writer = start_log(run_dir, args, step=0)
    except (OSError, RuntimeError) as error:  # an unwritable directory, sizes beyond the memory
        refuse(error)
    say(f"{short(run_dir)}: {args.method}, {args.iterations} iterations")
    optimizer = torch.optim.Adam(agent.parameters(), args.learning_rate)
    start_time = time.perf_counter()
    snapshots, mean_rewards = [], []
    for iteration in range(args.iterations + 1):
        if iteration in SHOWN or iteration == args.iterations:
            with torch.no_grad():
                _, _, a, z = objective(agent, 20_000, 1.0, args.beta)
            snapshots.append((iteration, a, z))
        if iteration == args.iterations:
            break
        # ALGO LOGIC: one step up the gradient of Eq. 2
        progress = iteration / max(1, args.iterations - 1)
        temperature = args.temperature_start ** (1 - progress) * args.temperature_end**progress
        reparameterized = args.method == "rpg" or args.reparameterized
        surrogate, terms, a, _ = objective(agent, args.batch_size, temperature, args.beta, reparameterized)
        loss = -temperature * surrogate  # in units of the reward
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

        mean_rewards.append(reward(a).mean().item())
        logs = {f"elbo/{name}": term.mean().item() for name, term in terms.items()}
        logs["elbo/elbo"] = sum(logs.values())
        logs |= {"charts/temperature": temperature, "charts/mean_reward": mean_rewards[-1]}
        for key, value in logs.items():
            writer.add_scalar(key, value, iteration)
        if not math.isfinite(logs["elbo/elbo"]):
            writer.close()
            refuse(f"the ELBO is nan or infinite at iteration {iteration}: try a smaller --learning-rate", 1)

    _, a, _ = snapshots[-1]
    left = (a < VALLEY).float().mean()
    try:
        plot(snapshots, mean_rewards, run_dir / "bandit.png", args)
        writer.close()
    except OSError as error:  # a full disk, a directory that went away
        refuse(f"bandit.png cannot be written: {error}", 1)
    result = {"run_dir": short(run_dir), "method": args.method, "seed": args.seed}
    result |= {"mean_reward": round(reward(a).mean().item(), 4), "best_reward": BEST_REWARD}
    result |= {"mode": "global" if left > 0.5 else "local", "seconds": round(time.perf_counter() - start_time, 1)}
    say(json.dumps(result))

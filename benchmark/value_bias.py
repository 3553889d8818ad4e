"""Is V what then comes? At the first states of a run's newest training episodes: V, and the discounted rewards after
them.

    python benchmark/value_bias.py runs/adroit-hammer__*      # adds rows to benchmark/results/value_bias.md

Of the newest whole episodes in the replay of runs of rpg.py that no checkpoint cut short: the mean of V(s₁, z), the
lesser twin; and of Σ γᵗ r_t + γᵀ V(s_T, z) over the T decisions of an episode, with r_t = R/T + RND's bonus +
β log p(z|s_t,a_t), all by the networks of the newest checkpoint: the terms of the value's target, with the actions that
were taken, some by older policies, instead of imagined ones. The difference is by how much V is too high at the start
of an episode; the policy climbs V. Of our own tasks, whose episodes end by their time limit alone.
"""

import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from collect import write_markdown  # noqa: E402
from modes import ends_whole, read_replay  # noqa: E402

import envs  # noqa: E402
import rpg  # noqa: E402

EPISODES = 200
HEADER = "| run | seed | step | episodes | with reward | V | then: rewards | bonus | β log p | V at the end | in all |"


def newest_episodes(rows, horizon):
    """Rows (horizon + 1, episodes, ·) of the newest EPISODES whole episodes in Rows (rows, N, ·), oldest first."""
    end, env = torch.nonzero(ends_whole(rows, horizon), as_tuple=True)
    held = end >= horizon  # the ring may have forgotten the first one's start
    end, env = end[held][-EPISODES:], env[held][-EPISODES:]
    if len(end) == 0:
        raise ValueError("no whole episode in its replay")
    row = end - horizon + torch.arange(horizon + 1)[:, None]
    return rpg.Rows(*[field[row, env] for field in rows])


@torch.no_grad()
def parts(agent, episodes):
    """{name: (episodes,)}: V at the first state; the discounted rewards, bonus, β log p and V at the last state."""
    args = agent.args
    s = agent.model.encoder(episodes.obs)  # (T + 1, episodes, S)
    z, a = episodes.z[:-1], episodes.a[:-1]
    weights = args.gamma ** torch.arange(len(a))[:, None]  # (T, 1)
    found = {"V": agent.model.value(s[0], z[0], twins=2).amin(0)}
    found["rewards"] = (weights * args.reward_scale * episodes.reward[:-1]).sum(0)
    found["bonus"] = torch.zeros(len(z[0]))
    found["log p"] = torch.zeros(len(z[0]))
    if agent.rnd is not None:
        found["bonus"] = (weights * args.rnd_coef * agent.rnd.bonus(episodes.obs[1:])).sum(0)
    if agent.posterior is not None:
        found["log p"] = (weights * args.beta * agent.posterior.log_prob(s[:-1], a, z)).sum(0)
    found["end"] = args.gamma ** len(a) * agent.model.value(s[-1], z[-1], twins=2).amin(0)
    return found


def row(run_dir):
    """(method, seed, the other cells of its row). Exceptions of many kinds if it is no such run."""
    args = envs.load_args(run_dir, rpg.Args)
    env = envs.make_env(args.env_id, 0, options=args.env_options)
    replay, order, step = read_replay(rpg, run_dir, args, env)
    horizon = env.unwrapped.horizon
    env.close()
    episodes = newest_episodes(replay.fields(replay.data[order]), horizon)
    found = parts(rpg.load_policy(run_dir), episodes)
    means = {name: values.mean().item() for name, values in found.items()}
    after = sum(means[name] for name in ("rewards", "bonus", "log p", "end"))
    rewarded = (episodes.reward[:-1] > 0).any(0).double().mean()
    cells = [f"{int(step[-1]):,}", str(episodes.a.shape[1]), f"{rewarded:.2f}"]
    cells += [f"{number:.1f}" for number in [*means.values(), after]]
    return " ".join([args.env_id, *args.env_options, args.exp_name]), args.seed, cells


def main():
    parser = envs.command_line(__doc__)
    parser.add_argument("run_dirs", type=Path, nargs="+", metavar="run_dir", help="runs of rpg.py on our own tasks")
    args = parser.parse_args()
    torch.set_num_threads(1)
    none = "no run of rpg.py with a checkpoint among the arguments: python benchmark/value_bias.py runs/adroit-door__*"
    write_markdown(ROOT / "benchmark/results/value_bias.md", HEADER, row, args.run_dirs, none)


if __name__ == "__main__":
    main()

"""rpg_maze.py: what it shares with rpg.py is the same, its policies' densities, planning, its files; small runs."""

import inspect
import json
import math
from types import SimpleNamespace

import imageio
import numpy as np
import pytest
import torch
from conftest import check_capturable, run_script
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import rpg
import rpg_maze as maze

TINY = "--hidden-dim 16 --state-dim 8 --rnd-dim 16 --batch-size 16 --learning-starts 50".split()


def run(cwd, *flags):
    """Exit code, standard output, standard error."""
    return run_script(cwd, "rpg_maze.py", *flags)


SHARED = """
latent_size mlp normal_log_prob PositionalEncoding Rows Segments Replay.__init__ Replay.fields Replay.add
Replay.end_episodes Replay.draw Replay.sample_segments Replay.in_order Replay.state_dict Replay.load_state_dict
Replay.rows WorldModel Posterior Moments RND.error RND.update_normalizer mean_k_step_value value_estimate frozen
Agent.optimizers Agent.sample_z Agent.rnd_loss Agent.model_loss Agent.policy_loss Agent.posterior_loss Agent.update
as_cuda_graphs restore
""".split()
OWN = {  # the maze's z is never learned, and its term in log p(z|s,a) can be left out
    "Posterior": {
        """        self.z_baseline = args.z_baseline
""": "",
        "\n" + inspect.getsource(maze.Posterior.baseline): "",
    },
    "value_estimate": {
        ", less a baseline": "",
        "(posterior.log_prob(states, actions, z) - posterior.baseline(z))": "posterior.log_prob(states, actions, z)",
    },
    "Agent.update": {
        """                info = -info_loss - self.posterior.baseline(states.z).mean()
                logs |= {"info_loss": info_loss, "info_reward": args.beta * info}
""": """                logs |= {"info_loss": info_loss, "info_reward": -args.beta * info_loss}

            # π(z|s₁)
            if args.learned_prior:
                prior_loss, s = self.prior_loss(states.start_obs, alpha)
                self.prior_optimizer.zero_grad()
                prior_loss.backward()
                clip_grad_norm_(self.prior.parameters(), args.max_grad_norm)
                self.prior_optimizer.step()
                prior_entropy = self.prior.follow_target(s)
                logs |= {"prior_loss": prior_loss, "prior_entropy": prior_entropy}
"""
    },
}


@pytest.mark.parametrize("name", SHARED)
def test_what_stands_in_both_scripts_is_the_same(name):
    """tests/test_rpg.py holds these to their references; here they must not drift apart."""

    def source(module):
        thing = module
        for part in name.split("."):
            thing = getattr(thing, part)
        return inspect.getsource(thing)

    text = source(maze)
    for own, other in OWN.get(name, {}).items():
        assert own in text
        text = text.replace(own, other)
    assert text == source(rpg)


@pytest.mark.parametrize("latent", ["gaussian", "categorical"])
def test_baseline_is_the_log_prob_of_a_posterior_that_knows_nothing(latent):
    """And, subtracted from the reward, changes V_est by a number of z's, whatever the actions."""
    args = small_args(latent=latent, latent_dim=3, alpha=0.0, beta=0.5)
    torch.manual_seed(0)
    posterior, model = maze.Posterior(2, 3, args), maze.WorldModel(4, 2, 2, 3, args)
    s, a = torch.randn(6, 5), torch.randn(6, 2)
    z = maze.Prior(3, args).sample(s)
    nothing = maze.Posterior(2, 3, args)
    for parameter in nothing.parameters():
        torch.nn.init.zeros_(parameter)
    torch.testing.assert_close(posterior.baseline(z), nothing.log_prob(s, a, z))
    estimates = []
    for posterior.z_baseline in (True, False):
        changes = []
        for seed in range(2):
            torch.manual_seed(seed)  # of the actions
            policy = lambda s, z: (torch.randn(6, 2).tanh(), torch.zeros(6))  # noqa: E731
            changes.append(maze.value_estimate(model, policy, posterior, s, z, 0.0, args, twins=2)[0])
        estimates.append(torch.stack(changes))
    constant = estimates[1] - estimates[0]  # (seeds, twins, 6)
    torch.testing.assert_close(constant, constant[:1, :1].expand_as(constant))
    k_steps = sum(0.97**k * sum(0.99**t for t in range(k + 1)) for k in range(3)) / sum(0.97**k for k in range(3))
    torch.testing.assert_close(constant[0, 0], 0.5 * k_steps * nothing.log_prob(s, a, z))
    for args.z_baseline in (True, False):  # in the log, too: on a replay with one z
        agent = maze.Agent(4, 2, 2, 3, args, torch.device("cpu"))
        replay = maze.Replay(100, 6, 4, 2, 3, torch.device("cpu"))
        for t in range(8):
            zeros = np.zeros(6)
            replay.add(torch.randn(6, 4), torch.randn(6, 2).tanh(), z[:1].expand(6, 3), zeros, zeros, zeros, zeros + t)
        logs = agent.update(replay, with_policy=True, with_target=True)
        shift = nothing.log_prob(s, a, z)[0].item() if args.z_baseline else 0.0
        assert logs["info_reward"].item() == pytest.approx(-0.5 * (logs["info_loss"].item() + shift))


def small_args(**changes):
    return maze.Args(**{"state_dim": 5, "hidden_dim": 16, "rnd_dim": 8, **changes})


@pytest.mark.parametrize(
    "flags",
    [
        {"latent": "categorical"},
        {"rnd_normalize": False, "rnd_buffer_size": 20},
        *[{"latent": "none", "policy": policy} for policy in maze.POLICIES],
    ],
    ids=str,
)
def test_updates_are_capturable(flags):
    args = small_args(batch_size=8, **flags)
    latent_dim = maze.latent_size(args)
    replay = maze.Replay(100, 6, 4, 2, latent_dim, torch.device("cpu"))
    zeros = np.zeros(6)
    for t in range(8):
        z = torch.randn(6, latent_dim)
        replay.add(torch.randn(6, 4), torch.randn(6, 2).tanh(), z, zeros, zeros, zeros, zeros + t)
    check_capturable(maze.Agent(4, 2, 2, latent_dim, args, torch.device("cpu")), replay)


def make_policy(name, act_dim=2, latent_dim=3, away=0.15):
    """A policy `away` from its initialisation: components, couplings and conditions all matter."""
    torch.manual_seed(0)
    policy = maze.POLICIES[name](act_dim, latent_dim, small_args()).double()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(away * torch.randn_like(parameter))
    return policy


def feed(monkeypatch, noise):
    """Let the next torch.randn_like return `noise`."""
    monkeypatch.setattr(torch, "randn_like", lambda like: noise.to(like.dtype).expand_as(like))


@pytest.mark.parametrize("name, act_dim", [("gaussian", 2), ("flow", 2), ("flow", 3)])
def test_log_prob_is_that_of_the_change_of_variables(monkeypatch, name, act_dim):
    """log π(a) = log N(noise; 0, I) − log |det ∂a/∂noise|, the Jacobian by autograd, one point at a time."""
    policy, generator = make_policy(name, act_dim, away=0.08), torch.Generator().manual_seed(1)
    for _ in range(20):
        s, z, noise = (torch.randn(n, generator=generator, dtype=torch.float64) for n in (5, 3, act_dim))

        def action(x):
            feed(monkeypatch, x)
            return policy(s, z)[0]

        jacobian = torch.autograd.functional.jacobian(action, noise)
        feed(monkeypatch, noise)
        expected = sum(-0.5 * x**2 - 0.5 * math.log(2 * math.pi) for x in noise.tolist())
        expected -= math.log(abs(np.linalg.det(jacobian.numpy())))
        assert policy(s, z)[1].item() == pytest.approx(expected, abs=1e-4)  # a near 1 costs digits


@pytest.mark.parametrize("name", ["gaussian", "flow"])
def test_density_integrates_to_one(monkeypatch, name):
    """∫ da = ∫ N(noise) / π(a(noise)) d noise over a fine grid: the area of the square of actions."""
    policy = make_policy(name, away=0.05)
    axis = torch.linspace(-30, 30, 1001, dtype=torch.float64)
    noise = torch.cartesian_prod(axis, axis)
    feed(monkeypatch, noise)
    with torch.no_grad():
        s, z = torch.zeros(len(noise), 5).double(), torch.ones(len(noise), 3).double()
        _, logp = policy(s, z)
    log_normal = -0.5 * noise.square().sum(-1) - math.log(2 * math.pi)
    area = (log_normal - logp).exp().sum() * (axis[1] - axis[0]) ** 2
    assert area.item() == pytest.approx(4, rel=0.01)


def test_mixture_density_and_draws():
    """Against the mixture's density by loops, its integral over the square, and the shares of the components."""
    policy, n = make_policy("gmm"), 40_000
    s, z = torch.full((5,), 0.3).double(), torch.tensor([1.0, -1.0, 0.5]).double()
    out = policy.net(torch.cat([s, z])).tolist()
    logits, rest = out[: maze.COMPONENTS], np.array(out[maze.COMPONENTS :]).reshape(maze.COMPONENTS, 4)
    weights = np.exp(logits) / np.exp(logits).sum()

    def density(a):
        total = 0.0
        for weight, (m0, m1, l0, l1) in zip(weights, rest):
            term = weight
            for u, mean, log_std in ((np.arctanh(a[0]), m0, l0), (np.arctanh(a[1]), m1, l1)):
                std = 0.4 * math.exp(min(max(log_std, -20), 2))
                term = term * np.exp(-0.5 * ((u - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))
            total = total + term
        return total / ((1 - a[0] ** 2) * (1 - a[1] ** 2))

    torch.manual_seed(3)
    with torch.no_grad():
        a, logp = policy(s.expand(n, -1), z.expand(n, -1))
    for action, value in zip(a[:200].numpy(), logp[:200].tolist()):
        assert value == pytest.approx(math.log(density(action)), abs=1e-6)
    u = np.linspace(-9, 9, 1801)  # integrate over atanh a, where the density is smooth
    grid = np.tanh(np.meshgrid(u, u, indexing="ij"))
    cells = density(grid) * (1 - grid[0] ** 2) * (1 - grid[1] ** 2) * (u[1] - u[0]) ** 2
    assert cells.sum() == pytest.approx(1, abs=1e-3)
    for quadrant in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        expected = cells[(np.sign(grid[0]) == quadrant[0]) & (np.sign(grid[1]) == quadrant[1])].sum()
        drawn = ((a[:, 0].sign() == quadrant[0]) & (a[:, 1].sign() == quadrant[1])).float().mean().item()
        assert drawn == pytest.approx(expected, abs=0.015)


@pytest.mark.parametrize("name", ["gaussian", "gmm", "flow"])
def test_gradient_reaches_every_parameter(name):
    policy = make_policy(name)
    a, logp = policy(torch.randn(64, 5).double(), torch.randn(64, 3).double())
    ((a - 0.3).square().sum(-1) + 0.1 * logp).mean().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in policy.parameters())


def test_policies_climb():
    """Each policy, trained on −|a − goal|² with an entropy bonus, ends at the goal."""
    goal = torch.tensor([0.5, -0.4])
    for name in ("gaussian", "gmm", "flow"):
        torch.manual_seed(0)
        policy = maze.POLICIES[name](2, 0, small_args())
        optimizer = torch.optim.Adam(policy.parameters(), 3e-3)
        s, z = torch.zeros(64, 5), torch.zeros(64, 0)
        for _ in range(300):
            a, logp = policy(s, z)
            loss = ((a - goal).square().sum(-1) + 0.003 * logp).mean()
            optimizer.zero_grad(), loss.backward(), optimizer.step()
        assert (policy(s, z)[0] - goal).norm(dim=-1).mean() < 0.12, name


def test_planning_finds_the_best_first_action():
    """A model whose state is the sum of actions and whose reward is −|state − goal|²: the plan goes to the goal."""
    args, goal = small_args(horizon=3, latent="none"), torch.tensor([0.6, -0.3])
    model = SimpleNamespace(
        init_hidden=lambda s: s,
        action_encoder=lambda a: a,
        step=lambda h, e: (h + e, h + e),
        reward=lambda next_s, e: -(next_s - goal).square().sum(-1),
        value=lambda s, z, twins: torch.zeros(twins, *s.shape[:-1]),
    )
    torch.manual_seed(0)
    start = torch.tensor([[0.0, 0.0], [0.9, 0.9], [0.6, 1.0]])
    a = maze.plan(model, None, start, torch.zeros(3, 0), 2, args)
    assert a.shape == (3, 2) and (a.abs() <= 1).all()
    assert (a - (goal - start).clamp(-1, 1)).abs().max() < 0.3


def test_rnd_without_normalisation_is_the_error():
    torch.manual_seed(0)
    obs, rnd = torch.randn(7, 4), maze.RND(4, 2, small_args(rnd_normalize=False))
    x = rnd.encoding(obs)
    torch.testing.assert_close(rnd.bonus(obs), (rnd.g(x) - rnd.g_fixed(x)).square().sum(-1))  # over the outputs
    normalized, reference = maze.RND(4, 2, small_args()), rpg.RND(4, 2, small_args())
    reference.load_state_dict(normalized.state_dict())
    for _ in range(rpg.RND_WARMUP + 5):
        error = torch.rand(9)
        normalized.update_normalizer(error), reference.update_normalizer(error)
    torch.testing.assert_close(normalized.bonus(obs), reference.bonus(obs))
    assert not torch.allclose(normalized.bonus(obs), normalized.error(obs))


def test_states_are_drawn_with_their_own_z():
    replay = maze.Replay(40, 2, 1, 1, 1, torch.device("cpu"))
    for t in range(30):  # wraps around
        mark = torch.tensor([[t], [100 + t]]).float()
        replay.add(mark, 0 * mark, mark + 0.5, *np.zeros((4, 2)))
    obs, z = replay.sample_states(5000)
    assert torch.equal(z, obs + 0.5) and set(obs[:, 0].tolist()) == {*range(10, 30), *range(110, 130)}
    newest, _ = replay.sample_states(5000, newest=8)
    assert set(newest[:, 0].tolist()) == {*range(26, 30), *range(126, 130)}


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A run of 3000 steps: (directory above runs/, run directory, summary)."""
    cwd = tmp_path_factory.mktemp("maze")
    code, out, err = run(
        cwd, "--total-timesteps", 3000, "--hidden-dim", 32, "--rnd-dim", 32, "--figure-frequency", 1500
    )
    assert code == 0, err
    summary = json.loads(out.splitlines()[-1])
    return cwd, cwd / summary["run_dir"], summary


def test_learning_explores(learned):
    """RND tells squares it knows from others, its error falls, and p(z|s,a) reads z from the actions ever better."""
    _, run_dir, _ = learned
    rnd = maze.RND(4, 2, maze.Args(rnd_dim=32))
    weights = torch.load(run_dir / "model.pt", weights_only=True)
    rnd.load_state_dict({key.removeprefix("rnd."): value for key, value in weights.items() if key.startswith("rnd.")})
    visits = np.load(run_dir / "maze.npz")["visits"]
    centres = torch.tensor(np.argwhere(visits >= 0).reshape(10, 10, 2) - 4.5, dtype=torch.float32)
    with torch.no_grad():
        error = rnd.error(torch.cat([0.01 * centres, centres / 5], -1)).numpy()
    assert error[visits > 100].mean() < 0.5 * error[visits == 0].mean()
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0}).Reload()
    rnd_loss = [event.value for event in events.Scalars("losses/rnd_loss")]
    assert rnd_loss[-1] < 0.5 * rnd_loss[0]
    info_loss = [event.value for event in events.Scalars("losses/info_loss")]
    assert info_loss[-1] < info_loss[0] - 1
    assert {f"losses/{key}" for key in ("consistency_loss", "info_loss", "policy_loss")} <= set(
        events.Tags()["scalars"]
    )


def test_coverage_is_what_the_replay_saw(learned):
    _, run_dir, summary = learned
    data = torch.load(run_dir / "checkpoint.pt", weights_only=True)["replay"]["data"]
    squares = {(math.floor(x * 5 + 5), math.floor(y * 5 + 5)) for x, y in data[..., 2:4].flatten(0, 1).tolist()}
    arrays = np.load(run_dir / "maze.npz")
    assert squares == {tuple(square) for square in np.argwhere(arrays["visits"]).tolist()}
    assert arrays["visits"].sum() == data.shape[0] * data.shape[1]
    assert summary["coverage"] == len(squares) / 100 == arrays["coverage"][-1, 1]
    assert (np.diff(arrays["coverage"], axis=0) >= 0).all() and arrays["coverage"][-1, 0] == 3000
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0}).Reload()
    logged = [(event.step, event.value) for event in events.Scalars("charts/coverage")]
    np.testing.assert_allclose(logged, arrays["coverage"], rtol=1e-6)


def test_figure(learned):
    _, run_dir, _ = learned
    arrays = np.load(run_dir / "maze.npz")
    assert arrays["steps"].tolist() == [1500, 3000] and arrays["positions"].shape == (2, 50, maze.TRAJECTORIES, 2)
    assert (arrays["positions"][:, 0] == 0).all() and np.abs(arrays["positions"]).max() < 5
    picture = imageio.v3.imread(run_dir / "maze.png")
    assert picture.shape[1] > 1000 and len(np.unique(picture.reshape(-1, picture.shape[-1]), axis=0)) > 200


def test_resumed_run_is_the_uninterrupted_one(tmp_path):
    flags = [*TINY, "--checkpoint-frequency", 200, "--figure-frequency", 300]
    _, out, _ = run(tmp_path, *flags, "--total-timesteps", 600, "--exp-name", "whole")
    whole = tmp_path / json.loads(out.splitlines()[-1])["run_dir"]
    _, out, _ = run(tmp_path, *flags, "--total-timesteps", 400, "--exp-name", "halves")
    halves = tmp_path / json.loads(out.splitlines()[-1])["run_dir"]
    code, out, err = run(tmp_path, "--resume", halves, "--total-timesteps", 600)
    assert code == 0, err
    a, b = (torch.load(run_dir / "checkpoint.pt", weights_only=True) for run_dir in (whole, halves))
    for part in ("agent", "replay"):
        assert a[part].keys() == b[part].keys() and all(torch.equal(a[part][key], b[part][key]) for key in a[part])
    assert torch.equal(a["rng"][0], b["rng"][0]) and a["optimizers"].keys() == b["optimizers"].keys()
    a, b = (np.load(run_dir / "maze.npz") for run_dir in (whole, halves))
    for key in a:
        np.testing.assert_array_equal(a[key], b[key])
    for coverage in (None, [(0, 0.0), (500, 0.1)], [(0, 0.0), (700, 0.2)]):  # of figures that a kill left
        for name in ("maze.npz", "maze.png"):
            (halves / name).unlink()
        if coverage is not None:
            np.savez(halves / "maze.npz", coverage=coverage)
        _, out, err = run(tmp_path, "--resume", halves, "--total-timesteps", 600)
        assert "no steps" in out and json.loads(out.splitlines()[-1])["global_step"] == 600 and not err
        newer = coverage is not None and coverage[-1][0] > 600
        assert (halves / "maze.png").exists() != newer
        if not newer:
            np.testing.assert_array_equal(np.load(halves / "maze.npz")["coverage"], a["coverage"])
    saved = json.loads((halves / "args.json").read_text())
    saved.pop("z_baseline")  # as a version without this flag would have written it
    (halves / "args.json").write_text(json.dumps(saved))
    code, _, err = run(tmp_path, "--resume", halves, "--total-timesteps", 700)
    assert code == 2 and "args.json" in err and len(err.splitlines()) == 1
    assert json.loads((halves / "args.json").read_text()) == saved


@pytest.mark.parametrize(
    "flags",
    [
        "--latent categorical --policy gmm --goal 2,2",
        "--latent none --policy cem",
        "--latent none --policy flow",
        "--num-frequencies 0 --goal 0,0",
        "--rnd-buffer-size 100 --no-rnd-normalize --latent-dim 1 --beta 0",
    ],
)
def test_every_variant_runs(tmp_path, flags):
    code, out, err = run(tmp_path, *TINY, "--total-timesteps", 300, *flags.split())
    assert code == 0, err
    summary = json.loads(out.splitlines()[-1])
    assert summary["global_step"] == 300 and 0 < summary["coverage"] < 0.3
    assert (summary["success_final"] is not None) == ("--goal" in flags)
    assert (summary["episodic_return"] > 10) == ("2,2" in flags)  # it starts in that cell


def test_no_rnd_builds_none(tmp_path):
    code, out, err = run(tmp_path, *TINY[:4], *TINY[6:], "--rnd-coef", 0, "--total-timesteps", 300)
    assert code == 0, err
    weights = torch.load(tmp_path / json.loads(out.splitlines()[-1])["run_dir"] / "model.pt", weights_only=True)
    assert not any(key.startswith("rnd") for key in weights)


@pytest.mark.parametrize("policy", ["gmm", "flow"])
def test_numerical_trouble_is_reported(tmp_path, policy):
    code, out, err = run(tmp_path, *TINY, "--total-timesteps", 5000, "--learning-rate", 1e30, "--policy", policy)
    assert code == 1 and "nan, infinite" in err and len(err.splitlines()) == 1
    (arrays,) = map(np.load, tmp_path.glob("runs/*/maze.npz"))  # coverage up to there is kept
    assert arrays["coverage"][-1, 0] < 5000 and arrays["coverage"][-1, 1] > 0


def test_latents():
    torch.manual_seed(0)
    s = torch.zeros(20_000, 5)
    gaussian = maze.Prior(3, small_args(latent_dim=3)).sample(s)
    assert gaussian.shape == (20_000, 3) and gaussian.mean(0).abs().max() < 0.03
    assert (gaussian.T.cov() - torch.eye(3)).abs().max() < 0.05
    one_hot = maze.Prior(4, small_args(latent="categorical", latent_dim=4)).sample(s)
    assert (one_hot.sum(-1) == 1).all() and (one_hot.mean(0) - 0.25).abs().max() < 0.02
    assert maze.Prior(0, small_args(latent="none")).sample(s[:7]).shape == (7, 0)


def test_an_error_leaves_a_checkpoint_and_its_traceback(tmp_path):
    """Also of the maze: a mistake in the environment's code at step 300."""
    broken = """
import envs
step = envs.VectorMaze.step
def fail(self, actions):
    self.count = getattr(self, "count", 0) + 1
    if self.count == 61:
        raise KeyError("a mistake")
    return step(self, actions)
envs.VectorMaze.step = fail
"""
    code, _, err = run_script(tmp_path, "rpg_maze.py", *TINY, "--total-timesteps", 1000, before=broken)
    (run_dir,) = tmp_path.glob("runs/*")
    assert code == 1 and "a mistake" in err and "Traceback" in err
    assert torch.load(run_dir / "checkpoint.pt", weights_only=True)["progress"][0] > 250
    code, out, err = run(tmp_path, "--resume", run_dir, "--total-timesteps", 400)
    assert code == 0 and json.loads(out.splitlines()[-1])["global_step"] == 400, err


def test_a_notebook_s_backend_does_no_harm(tmp_path):
    notebook = "import os; os.environ['MPLBACKEND'] = 'module://not_there.backend_inline'"
    code, _, err = run_script(tmp_path, "rpg_maze.py", *TINY, "--total-timesteps", 100, before=notebook)
    assert code == 0 and list(tmp_path.glob("runs/*/maze.png")), err


@pytest.mark.parametrize(
    "flags, names",
    [
        (dict(horizon=0), "--horizon"),
        (dict(batch_size=5000), "--batch-size"),
        (dict(gamma=1.5), "--gamma"),
        (dict(latent="none", beta=0.1), "--beta"),
        (dict(latent="categorical", posterior_std=1.0), "--posterior-std"),
        (dict(rnd_coef=0.0, rnd_normalize=False), "--rnd-normalize"),
        (dict(beta=0.0, z_baseline=False), "--z-baseline"),
        (dict(reward_scale=1.0), "--reward-scale"),
        (dict(learning_starts=64, num_envs=50), "--learning-starts"),
        (dict(buffer_size=999), "--buffer-size"),
    ],
)
def test_bad_flags(capsys, flags, names):
    with pytest.raises(SystemExit) as stop:
        maze.check_args(maze.Args(**flags), set(flags))
    err = capsys.readouterr().err
    assert stop.value.code == 2 and names in err and len(err.splitlines()) == 1


def test_bad_input_as_typed(tmp_path):
    for flags, names in (
        ("--goal 5,5", "goal=5,5"),
        ("--resume nowhere", "nowhere"),
        ("--hidden-dim 6000000", "memory"),
        ("--no-rnd-normalize --rnd-coef 0", "--rnd-normalize"),
    ):
        code, out, err = run(tmp_path, *flags.split())
        assert code == 2 and names in err and len(err.splitlines()) == 1 and not out
    assert not list(tmp_path.iterdir())

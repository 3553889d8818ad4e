"""rpg_bandit.py: its mathematics against slow references, its figure, and both of its claims on one seed."""

import json
import math

import imageio
import numpy as np
import pytest
import torch
from conftest import run_script
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import rpg_bandit as bandit


def run(cwd, *flags):
    """Exit code, last line of standard output, standard error."""
    code, out, err = run_script(cwd, "rpg_bandit.py", *flags)
    return code, (out.splitlines() or [""])[-1], err


def make_agent(method="rpg", latent="categorical", latent_dim=3, seed=0):
    torch.manual_seed(seed)
    args = bandit.Args(method=method, latent=latent, latent_dim=latent_dim, hidden_dim=8)
    agent = bandit.Agent(args).double()
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return agent


def slow_reward(x):
    high = max(0.0, -18 * (2 * x + 1.2) ** 2 + 1.1)
    low = max(0.0, -0.125 * (2 * x - 1.75) ** 2 + 0.5) if x < 0.875 else 0.0
    return high + low


def test_reward():
    x = np.linspace(-1, 1, 4001)
    expected = [slow_reward(value) for value in x]
    np.testing.assert_allclose(bandit.reward(torch.tensor(x)).numpy(), expected, atol=1e-12)
    assert max(expected) == pytest.approx(bandit.BEST_REWARD)
    assert slow_reward(bandit.VALLEY) == 0


@pytest.mark.parametrize("method", ["rpg", "gaussian"])
def test_policy_density_integrates_to_one_and_is_the_histogram(method):
    agent = make_agent(method)
    z = torch.eye(3, dtype=torch.float64)[1:2] if method == "rpg" else torch.ones(1, 1)
    edges = torch.linspace(-1, 1, 40_001, dtype=torch.float64)
    centres = (edges[1:] + edges[:-1]) / 2
    with torch.no_grad():
        policy = agent.policy(z.expand(len(centres), -1))
        density = policy.log_prob(centres[:, None]).exp()
        assert (density.sum() * 2 / 40_000).item() == pytest.approx(1, abs=1e-4)
        draws = agent.policy(z.expand(200_000, -1)).sample()[:, 0]
    expected = density.view(20, -1).sum(1) * 2 / 40_000
    counts = torch.histc(draws, 20, -1, 1) / len(draws)
    np.testing.assert_allclose(counts, expected, atol=0.005)


@pytest.mark.parametrize("latent", ["categorical", "gaussian"])
def test_terms_of_the_elbo(latent):
    """Each term by hand, one draw at a time."""
    agent = make_agent(latent=latent)
    torch.manual_seed(1)
    with torch.no_grad():
        _, terms, a, z = bandit.objective(agent, 50, 0.2, 1.7)
        for i in range(50):
            hidden = agent.posterior_net(a[i].view(1, 1))[0]
            mean, log_std = agent.a_net(z[i]).tolist()
            log_std = min(log_std, 2)
            if latent == "categorical":
                k = z[i].argmax().item()
                logp_z = agent.z_out[k].item() - math.log(sum(math.exp(v) for v in agent.z_out.tolist()))
                cross = hidden[k].item() - math.log(sum(math.exp(v) for v in hidden.tolist()))
            else:

                def log_normal(x, m, s):
                    return -0.5 * ((x - m) / s) ** 2 - math.log(s) - 0.5 * math.log(2 * math.pi)

                m, s = agent.z_out[:3].tolist(), agent.z_out[3:].exp().tolist()
                logp_z = sum(log_normal(*x) for x in zip(z[i].tolist(), m, s))
                cross = sum(log_normal(x, m, 0.38) for x, m in zip(z[i].tolist(), hidden.tolist()))
            u, std = math.atanh(a[i].item()), math.exp(log_std)
            normal = -0.5 * ((u - mean) / std) ** 2 - log_std - 0.5 * math.log(2 * math.pi)
            logp_a = normal - math.log(1 - a[i].item() ** 2)
            assert terms["reward"][i].item() == pytest.approx(slow_reward(a[i].item()) / 0.2)
            assert terms["entropy_z"][i].item() == pytest.approx(-logp_z)
            assert terms["cross_entropy"][i].item() == pytest.approx(1.7 * cross)
            assert terms["entropy_a"][i].item() == pytest.approx(-logp_a, abs=1e-6)


def smooth_reward(a):
    return (3 * a).sin() + a  # no step: the pathwise gradient is unbiased


def exact_elbo(agent, temperature, beta):
    """E over the categories of z (in a sum) and over a (by quadrature on u), differentiable in every parameter."""
    total = 0.0
    grid = torch.linspace(-9, 9, 6001, dtype=torch.float64)
    eps = torch.exp(-0.5 * grid**2) / math.sqrt(2 * math.pi) * (grid[1] - grid[0])
    for k, p in enumerate(agent.z_out.softmax(-1)) if agent.rpg else ((0, torch.ones(())),):
        z = torch.eye(3, dtype=torch.float64)[k]
        mean, log_std = agent.a_net(z) if agent.rpg else agent.a_out
        u = mean + log_std.exp() * grid
        a = u.tanh()
        log_slope = 2 * (math.log(2) - u - torch.nn.functional.softplus(-2 * u))
        entropy = 0.5 * grid**2 + log_std + 0.5 * math.log(2 * math.pi) + log_slope
        inner = smooth_reward(a) / temperature + entropy
        if agent.rpg:
            inner = inner + beta * agent.posterior_net(a[:, None]).log_softmax(-1)[:, k] - p.log()
        total = total + p * (eps * inner).sum()
    return total


@pytest.mark.parametrize("method, reparameterized", [("rpg", True), ("gaussian", True), ("gaussian", False)])
def test_gradient_of_the_objective_is_the_elbos(monkeypatch, method, reparameterized):
    """The mean of many estimates against the gradient of the exact bound, for all parameters."""
    monkeypatch.setattr(bandit, "reward", smooth_reward)
    agent = make_agent(method)
    with torch.no_grad():  # away from the ends, where quadrature and tanh are delicate
        (agent.a_net[-1].weight if method == "rpg" else agent.a_out).mul_(0.5)
    names, parameters = zip(*agent.named_parameters())
    exact = torch.autograd.grad(exact_elbo(agent, 0.5, 1.5), parameters)
    torch.manual_seed(2)
    draws = [
        torch.autograd.grad(bandit.objective(agent, 10_000, 0.5, 1.5, reparameterized)[0], parameters)
        for _ in range(20)
    ]
    for name, truth, *estimates in zip(names, exact, *draws):
        estimates = torch.stack(estimates)
        error = (estimates.mean(0) - truth).abs()
        allowed = 5 * estimates.std(0) / math.sqrt(len(draws)) + 1e-4 + 2e-3 * truth.abs()
        assert (error <= allowed).all(), name


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """{flags: (summary, run directory)} of default runs."""
    cwd, runs = tmp_path_factory.mktemp("bandit"), {}
    for flags in ((), ("--method", "gaussian")):
        code, out, err = run(cwd, *flags)
        assert code == 0, err
        summary = json.loads(out)
        runs[flags] = summary, cwd / summary["run_dir"]
    return runs


def test_both_claims_on_one_seed(finished):
    (rpg, _), (gaussian, _) = finished.values()
    assert rpg["mode"] == "global" and rpg["mean_reward"] >= 0.9 * rpg["best_reward"]
    assert gaussian["mode"] == "local" and gaussian["mean_reward"] <= 0.5
    assert rpg["best_reward"] == pytest.approx(1.1)


def test_what_a_run_writes(finished):
    for flags, (summary, run_dir) in finished.items():
        picture = imageio.v3.imread(run_dir / "bandit.png")
        assert picture.shape[1] > 1500 and len(np.unique(picture.reshape(-1, picture.shape[-1]), axis=0)) > 20
        assert json.loads((run_dir / "args.json").read_text())["seed"] == summary["seed"]
        events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0}).Reload()
        terms = {"reward", "entropy_a", "elbo"} | (set() if flags else {"cross_entropy", "entropy_z"})
        keys = {f"elbo/{term}" for term in terms} | {"charts/mean_reward", "charts/temperature"}
        assert set(events.Tags()["scalars"]) == keys
        curve = [event.value for event in events.Scalars("charts/mean_reward")]
        assert len(curve) == 500 and np.mean(curve[-20:]) > np.mean(curve[:20])


@pytest.mark.parametrize("flags", ["--latent gaussian", "--method gaussian --reparameterized"])
def test_variants_run_and_draw(tmp_path, flags):
    code, out, err = run(tmp_path, "--iterations", "12", *flags.split())
    assert code == 0, err
    assert imageio.v3.imread(tmp_path / json.loads(out)["run_dir"] / "bandit.png").std() > 20


def test_colours_follow_z(monkeypatch, tmp_path):
    """One part of the histogram for each category, or for each twelfth of a Gaussian z by its first dimension."""
    from matplotlib.axes import Axes

    drawn, hist = [], Axes.hist
    monkeypatch.setattr(Axes, "hist", lambda axis, parts, **rest: (drawn.append(parts), hist(axis, parts, **rest)))
    torch.manual_seed(0)
    z = torch.randn(1200, 12)
    a = z[:, 0].clamp(-4, 4) / 4  # an action that gives z away
    bandit.plot([(0, a, z)], [0.5], tmp_path / "gaussian.png", bandit.Args(latent="gaussian"))
    one_hot = torch.eye(12)[torch.randint(12, (1200,))]
    bandit.plot([(0, one_hot.argmax(-1) / 12, one_hot)], [0.5], tmp_path / "categorical.png", bandit.Args())
    bandit.plot([(0, a, torch.ones(1200, 1))], [0.5], tmp_path / "none.png", bandit.Args(method="gaussian"))
    gaussian, categorical, none = drawn
    assert [len(part) for part in gaussian] == [100] * 12 and [len(part) for part in none] == [1200]
    assert all(low.max() <= high.min() for low, high in zip(gaussian, gaussian[1:]))
    assert all((part == np.float32(i / 12)).all() and len(part) for i, part in enumerate(categorical))


def test_numerical_trouble_is_reported(tmp_path):
    code, out, err = run(
        tmp_path,
        "--temperature-start",
        "1e-9",
        "--temperature-end",
        "1e-9",
        "--beta",
        "2e9",
        "--learning-rate",
        "2e9",
        "--hidden-dim",
        "512",
        "--iterations",
        "200",
    )
    assert code == 1 and "nan or infinite" in err and len(err.splitlines()) == 1


def test_seed_decides_everything(tmp_path):
    first, again, other = (
        json.loads(run(tmp_path, "--iterations", "5", "--exp-name", name, "--seed", seed)[1])
        for name, seed in (("a", "7"), ("b", "7"), ("c", "8"))
    )
    assert first["mean_reward"] == again["mean_reward"] != other["mean_reward"]


@pytest.mark.parametrize(
    "flags, names",
    [
        (dict(iterations=0), "--iterations 0: must be at least 1 "),
        (dict(seed=10**20), "below 2**31"),
        (dict(learning_rate=1e38), "--learning-rate"),
        (dict(batch_size=1), "--batch-size 1: must be at least 2 "),
        (dict(batch_size=-1), "--batch-size"),
        (dict(beta=-1.0), "--beta"),
        (dict(learning_rate=math.nan), "--learning-rate"),
        (dict(latent_dim=0), "--latent-dim"),
        (dict(temperature_end=9.0), "--temperature-end"),
        (dict(reparameterized=True), "--reparameterized"),
        (dict(method="gaussian", latent="gaussian"), "--latent"),
        (dict(method="gaussian", hidden_dim=8), "--hidden-dim"),
    ],
)
def test_bad_flags(capsys, flags, names):
    with pytest.raises(SystemExit) as stop:
        bandit.check_args(bandit.Args(**flags), set(flags))
    err = capsys.readouterr().err
    assert stop.value.code == 2 and names in err and len(err.splitlines()) == 1


def test_bad_input_as_typed(tmp_path):
    for flags in ("--posterior-std 0.1", "--method=gaussian --beta=1", "--no-reparameterized"):
        code, out, err = run(tmp_path, *flags.split())
        assert code == 2 and "no effect" in err and len(err.splitlines()) == 1 and not out
    code, out, err = run(tmp_path, "--hidden-dim", 6_000_000)
    assert code == 2 and "memory" in err and len(err.splitlines()) == 1 and not list(tmp_path.iterdir())
    (tmp_path / "runs").write_text("a file where the directory should go")
    code, out, err = run(tmp_path)
    assert code == 2 and "runs" in err and len(err.splitlines()) == 1

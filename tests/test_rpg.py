"""The mathematics and the replay of rpg.py against slow reference code: loops over single numbers, in float64."""

import contextlib
import copy
import dataclasses
import io
import math
import shutil
import types

import numpy as np
import pytest
import torch
from conftest import check_capturable
from scipy import optimize, special, stats

import envs
import rpg

OBS, OBJ, ACT, LAT = 4, 2, 2, 3  # sizes of the observation, its object coordinates, the action and z
CPU = torch.device("cpu")


def small_args(**changes):
    """Settings of networks so small that a loop over single numbers is quick."""
    return rpg.Args(**dict(hidden_dim=8, state_dim=5, latent_dim=LAT, num_frequencies=2, rnd_dim=16) | changes)


def small_nets(args, seed=0):
    """World model, policy and posterior (None without z) in float64, every parameter random and none of them zero."""
    torch.manual_seed(seed)
    lat = 0 if args.latent == "none" else args.latent_dim
    nets = [rpg.WorldModel(OBS, OBJ, ACT, lat, args), rpg.Policy(ACT, lat, args)]
    nets += [rpg.Posterior(ACT, lat, args) if lat else None]
    for net in nets:
        if net is not None:
            net.double()
            for parameter in net.parameters():
                torch.nn.init.normal_(parameter, std=0.5)
    return nets


def small_agent(args, seed=0):
    """An agent in float64 with the networks of small_nets, others of the target network, and a normaliser past its
    warm-up."""
    torch.manual_seed(seed)
    latent_dim = 0 if args.latent == "none" else args.latent_dim
    agent = rpg.Agent(OBS, OBJ, ACT, latent_dim, args, CPU).double()
    for net, small in zip((agent.model, agent.policy, agent.posterior), small_nets(args, seed)):
        net and net.load_state_dict(small.state_dict())
    agent.target_model.load_state_dict(small_nets(args, 22)[0].state_dict())  # its twins take turns as the lesser one
    if agent.rnd:
        agent.rnd.updates.fill_(rpg.RND_WARMUP)
        agent.rnd.update_normalizer(agent.rnd.error(torch.randn(50, OBS, dtype=torch.float64)).detach())
    return agent


def out(net, *parts):
    """What a torch network makes of the concatenated vectors: one sample, numpy in and out."""
    return net(torch.tensor(np.concatenate(parts))).detach().numpy()


def encode(obs, object_dim, num_frequencies):
    """Positional encoding of one observation: obs, all sines (coordinate by coordinate), all cosines."""
    objects = [float(x) for x in obs[len(obs) - object_dim :]]
    sines = [math.sin(2**k * x) for x in objects for k in range(num_frequencies)]
    cosines = [math.cos(2**k * x) for x in objects for k in range(num_frequencies)]
    return np.array([float(x) for x in obs] + sines + cosines)


def k_step_values(rewards, values, gamma):
    """[V_1 … V_H]: V_k = Σ_{t<k} γᵗ rewards[t] + γᵏ V(s_k), for lists in which values[k - 1] is V(s_k)."""
    result = []
    for k in range(1, len(rewards) + 1):
        v = 0.0
        for t in range(k):
            v += gamma**t * rewards[t]
        result.append(v + gamma**k * values[k - 1])
    return result


def weighted_mean(v):
    """Mean of [V_1 … V_H] with weights proportional to 0.97^(k-1)."""
    weights = [0.97 ** (k - 1) for k in range(1, len(v) + 1)]
    return sum(w * x for w, x in zip(weights, v)) / sum(weights)


def log_p(posterior, z, s, a, args):
    """log p(z|s,a) of numbers: a normal of the given deviation, or the log softmax of z's category."""
    y = out(posterior.net, s, a)
    if args.latent == "categorical":
        return y[z.argmax()] - math.log(sum(math.exp(x) for x in y))
    return sum(stats.norm.logpdf(z[i], y[i], args.posterior_std) for i in range(len(z)))


def imagine(model, policy, posterior, s, z, alpha, args, noise):
    """Roll one latent state out step by step. Returns the states, actions and log π met, and [V_1 … V_H] of each twin;
    `z` may be None: nothing then knows of a latent."""
    latent = [] if z is None else [z]
    h, states, actions, logps, rewards, values = out(model.init_hidden, s), [], [], [], [], [[], []]
    for t in range(args.horizon):
        mean, log_std = np.split(out(policy.net, s, *latent), 2)
        std = 0.4 * np.exp(np.clip(log_std, -20, 2))
        u = mean + std * noise[t]
        a = np.tanh(u)
        logp = sum(stats.norm.logpdf(u[i], mean[i], std[i]) + 2 * math.log(math.cosh(u[i])) for i in range(ACT))
        r = -alpha * logp
        if posterior is not None:
            r += args.beta * log_p(posterior, z, s, a, args)
        states.append(s), actions.append(a), logps.append(logp)
        e = out(model.action_encoder, a)
        h = model.gru(torch.tensor(e), torch.tensor(h)).detach().numpy()
        s = out(model.state_head, h)
        rewards.append(r + out(model.reward_head, s, e)[0])
        for twin in range(2):
            values[twin].append(out(model.values[twin], s, *latent)[0])
    return states, actions, logps, [k_step_values(rewards, v, args.gamma) for v in values]


# values (Eq. 3)
@pytest.mark.parametrize("horizon", [1, 2, 3, 5])
@pytest.mark.parametrize("gamma", [0.9, 0.99, 1.0])
@pytest.mark.parametrize("twins", [1, 2])
def test_mean_k_step_value_equals_nested_loops(horizon, gamma, twins):
    """Eq. 3 for every k up to the horizon, averaged with weights 0.97^(k-1)."""
    rng = np.random.default_rng(horizon)
    rewards, values = rng.normal(size=(horizon, 4)), rng.normal(size=(twins, horizon, 4))
    expected = [
        [weighted_mean(k_step_values(rewards[:, b], values[i, :, b], gamma)) for b in range(4)] for i in range(twins)
    ]
    result = rpg.mean_k_step_value(torch.tensor(rewards), torch.tensor(values), gamma)
    assert result.shape == (twins, 4)
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-12)


def test_mean_k_step_value_of_one_step_is_r_plus_gamma_v():
    """A number that one can check by hand: V_1 = 2 + 0.5 · 10, V_2 = 2 + 0.5 · 4 + 0.25 · 20."""
    v_1 = rpg.mean_k_step_value(torch.tensor([[2.0]]), torch.tensor([[[10.0]]]), 0.5)
    assert v_1.item() == pytest.approx(7.0)
    mean = rpg.mean_k_step_value(torch.tensor([[2.0], [4.0]]), torch.tensor([[[10.0], [20.0]]]), 0.5)
    assert mean.item() == pytest.approx((7.0 + 0.97 * 9.0) / 1.97)


@pytest.mark.parametrize("horizon", [1, 3])
@pytest.mark.parametrize("alpha,beta", [(0.0, 0.3), (0.7, 0.0), (0.7, 0.3)])
def test_value_estimate_equals_a_step_by_step_rollout(horizon, alpha, beta):
    """r′ = −α log π(a|s,z) + β log p(z|s_t,a_t) with the state before the action; r and V with the state after it."""
    args = small_args(horizon=horizon, beta=beta, gamma=0.9)
    model, policy, posterior = small_nets(args)
    s, z = torch.randn(3, 5, dtype=torch.float64), torch.randn(3, LAT, dtype=torch.float64)
    torch.manual_seed(7)
    v_est, states, actions, logps = rpg.value_estimate(model, policy, posterior, s, z, alpha, args, twins=2)
    torch.manual_seed(7)
    noise = torch.stack([torch.randn(3, ACT, dtype=torch.float64) for _ in range(horizon)]).numpy()
    for b in range(3):
        ref = imagine(model, policy, posterior, s[b].numpy(), z[b].numpy(), alpha, args, noise[:, b])
        np.testing.assert_allclose(states[:, b].detach(), ref[0], rtol=1e-9)
        np.testing.assert_allclose(actions[:, b].detach(), ref[1], rtol=1e-9)
        np.testing.assert_allclose(logps[:, b].detach(), ref[2], rtol=1e-9)
        np.testing.assert_allclose(v_est[:, b].detach(), [weighted_mean(v) for v in ref[3]], rtol=1e-6)
    torch.manual_seed(7)
    first = rpg.value_estimate(model, policy, posterior, s, z, alpha, args, twins=1)[0]
    assert first.shape == (1, 3) and torch.equal(first[0], v_est[0]), "twins=1 is the first twin"


def test_value_estimate_differentiates_through_the_model():
    """The policy's gradient of V_est, through model, log π and p(z|s,a), is that of finite differences."""
    args = small_args(horizon=3, beta=0.3)
    model, policy, posterior = small_nets(args)
    s, z = torch.randn(2, 5, dtype=torch.float64), torch.randn(2, LAT, dtype=torch.float64)

    def objective():
        torch.manual_seed(3)
        return rpg.value_estimate(model, policy, posterior, s, z, 0.7, args, twins=1)[0].mean()

    bias, eps = policy.net[-1].bias, 1e-6
    gradient = torch.autograd.grad(objective(), bias)[0]
    for i in range(2 * ACT):
        with torch.no_grad():
            bias[i] += eps
            above = objective().item()
            bias[i] -= 2 * eps
            below = objective().item()
            bias[i] += eps
        assert gradient[i].item() == pytest.approx((above - below) / (2 * eps), rel=1e-5)


# model loss (Eq. 4)
def segments(horizon, seed=0):
    """Five hand-made segments: whole, ended by a termination, by a time limit, all masked, terminated at the last step.
    Each transition has a z of its own. What the mask hides is absurd, so that it shows where it leaks."""
    rng = np.random.default_rng(seed)
    obs, a = rng.normal(size=(horizon + 1, 5, OBS)), rng.uniform(-1, 1, size=(horizon, 5, ACT))
    z, reward = rng.normal(size=(horizon, 5, LAT)), rng.normal(size=(horizon, 5))
    terminated, mask = np.zeros((horizon, 5)), np.ones((horizon, 5))
    terminated[0, 1] = 1
    mask[1:, 1], mask[1:, 2], mask[:, 3], terminated[-1, 4] = 0, 0, 0, 1
    for t in range(horizon):
        for b in range(5):
            if not mask[t, b]:
                obs[t + 1, b], reward[t, b], terminated[t, b] = 50 + rng.normal(size=OBS), 1e3, rng.integers(2)
    return rpg.Segments(*[torch.tensor(x) for x in (obs, a, z, reward, terminated, mask)])


def model_loss_agent(horizon):
    """An agent whose policy has so little noise that it doesn't matter."""
    agent = small_agent(
        small_args(
            horizon=horizon,
            beta=0.3,
            gamma=0.9,
            consistency_coef=7.0,
            reward_coef=3.0,
            value_coef=2.0,
            reward_scale=4.0,
            rnd_coef=0.6,
        )
    )
    with torch.no_grad():
        agent.policy.net[-1].weight[ACT:], agent.policy.net[-1].bias[ACT:] = 0.0, -20.0
    return agent


@pytest.mark.parametrize("horizon", [1, 2, 3])
def test_model_loss_equals_loops(horizon):
    """Eq. 4: three parts, mask, weights; the reward is relabelled, reward_scale r + rnd_coef bonus(o_{t+1}); targets: 0
    if terminated, else the lesser of the twins' averages."""
    agent = model_loss_agent(horizon)
    args, model, target_model = agent.args, agent.model, agent.target_model
    policy, posterior = agent.policy, agent.posterior
    batch = segments(horizon)
    obs, a, z, reward, terminated, mask = (x.numpy() for x in batch)
    consistency, reward_error, value_error, values, bonuses, early_minimum_differs = 0.0, 0.0, 0.0, [], [], False
    targets = []  # of s, all of them
    for b in range(5):
        s = out(model.encoder[1], encode(obs[0, b], OBJ, args.num_frequencies))
        h = out(model.init_hidden, s)
        for t in range(horizon):
            e = out(model.action_encoder, a[t, b])
            h = model.gru(torch.tensor(e), torch.tensor(h)).detach().numpy()
            next_s = out(model.state_head, h)
            v = [out(net, next_s, z[t, b])[0] for net in model.values]
            values += v
            x = encode(obs[t + 1, b], OBJ, args.num_frequencies)
            targets.append(out(target_model.encoder[1], x))
            if mask[t, b]:
                error = np.mean((out(agent.rnd.g, x) - out(agent.rnd.g_fixed, x)) ** 2)
                std = math.sqrt(agent.rnd.errors.m2.item() / agent.rnd.errors.count.item())
                bonuses.append((error - agent.rnd.errors.mean.item()) / std)
                r = 4.0 * reward[t, b] + 0.6 * bonuses[-1]
                s_target = targets[-1]
                zeros = np.zeros((horizon, ACT))
                v_k = imagine(target_model, policy, posterior, s_target, z[t, b], 0.0, args, zeros)[3]
                v_target = min(weighted_mean(v_k[0]), weighted_mean(v_k[1]))
                early = weighted_mean([min(pair) for pair in zip(*v_k)])
                early_minimum_differs |= not terminated[t, b] and abs(early - v_target) > 1e-3
                v_target = 0.0 if terminated[t, b] else v_target
                consistency += sum((x - y) ** 2 for x, y in zip(next_s, s_target)) / len(next_s) / (5 * horizon)
                reward_error += (out(model.reward_head, next_s, e)[0] - r) ** 2 / (5 * horizon)
                value_error += ((v[0] - v_target) ** 2 + (v[1] - v_target) ** 2) / (5 * horizon)
    assert horizon == 1 or early_minimum_differs, "these networks can't tell when the minimum is taken"
    assert max(map(abs, bonuses)) < 100 and np.std(bonuses) > 0.1, "these states can't tell the bonus"
    loss, logs = agent.model_loss(batch)
    assert list(logs) == ["rnd_reward", "consistency_loss", "reward_loss", "value_loss", "values", "state_std"]
    expected = [
        7 * consistency + 3 * reward_error + 2 * value_error,
        np.mean(bonuses),
        consistency,
        reward_error,
        value_error,
        np.mean(values),
        np.std(targets, axis=0).mean(),
    ]
    np.testing.assert_allclose([x.item() for x in [loss, *logs.values()]], expected, rtol=1e-6)


def test_model_loss_without_rnd_has_no_bonus():
    """--rnd-coef 0: the reward is scaled, and that is all; the loss is then that of a bonus of 0."""
    args = small_args(rnd_coef=0.0, consistency_coef=0.0, value_coef=0.0, reward_coef=1.0, reward_scale=4.0)
    loss, logs = small_agent(args).model_loss(segments(3))
    assert "rnd_reward" not in logs
    agent = small_agent(small_args(**{**vars(args), "rnd_coef": 0.6}))
    agent.rnd.errors.count.zero_()
    warming_up, logs = agent.model_loss(segments(3))
    assert logs["rnd_reward"] == 0 and warming_up.item() == pytest.approx(loss.item())


def test_model_loss_trains_the_model_and_nothing_else():
    """Targets carry no gradient, neither into the target network, the policy, p(z|s,a) and RND, nor into o_{t+1}."""
    agent = model_loss_agent(3)
    agent.target_model.requires_grad_(True), agent.rnd.requires_grad_(True)
    batch = segments(3)
    batch.obs.requires_grad_(True)
    agent.model_loss(batch)[0].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in agent.model.parameters())
    for net in (agent.target_model, agent.policy, agent.posterior, agent.rnd):
        assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert batch.obs.grad[0].abs().sum() > 0 and torch.count_nonzero(batch.obs.grad[1:]) == 0


def test_model_loss_of_a_masked_batch_is_zero():
    """Where the mask is all zero there is neither loss nor gradient."""
    agent = model_loss_agent(3)
    batch = segments(3)
    loss, logs = agent.model_loss(batch._replace(mask=torch.zeros_like(batch.mask)))
    loss.backward()
    logs.pop("values"), logs.pop("state_std")  # of all states
    assert loss.item() == 0 and [x.item() for x in logs.values()] == [0, 0, 0, 0]
    assert all(torch.count_nonzero(p.grad) == 0 for p in agent.model.parameters())


def test_model_loss_of_a_time_limit_bootstraps():
    """`terminated` zeroes the value target of its own step only; a time limit (mask alone) leaves it as it is."""
    agent = model_loss_agent(2)
    batch = segments(2)
    losses = {}
    for name, rows in (("time limit", []), ("terminated", [0]), ("hidden", [1])):
        batch.terminated.zero_()
        batch.terminated[rows, 2] = 1
        torch.manual_seed(0)
        logs = agent.model_loss(batch)[1]
        losses[name] = [logs[key].item() for key in ("consistency_loss", "reward_loss", "value_loss")]
    assert losses["time limit"] == losses["hidden"], "what the mask hides may not matter"
    assert losses["time limit"][:2] == losses["terminated"][:2] and losses["time limit"][2] != losses["terminated"][2]


# policy losses
def policy_batch(args, batch_size=4):
    """obs, z, start_obs for the policy's losses; z is one-hot if categorical."""
    obs, start_obs = torch.randn(2, batch_size, OBS, dtype=torch.float64)
    z = torch.randn(batch_size, 0 if args.latent == "none" else LAT, dtype=torch.float64)
    return obs, torch.eye(LAT, dtype=torch.float64)[z.argmax(-1)] if args.latent == "categorical" else z, start_obs


@pytest.mark.parametrize("latent", ["gaussian", "categorical", "none"])
def test_policy_and_posterior_loss_equal_loops(latent):
    """In imagination from f(o): −mean V_est of the first twin, and the cross entropy −log p(z|s,a) at the states where
    it acted."""
    args = small_args(latent=latent, beta=0.2, gamma=0.9)
    agent = small_agent(args)
    alpha, (obs, z, _) = 0.45, policy_batch(args)
    torch.manual_seed(7)
    loss, s_met, a_met, entropy = agent.policy_loss(obs, z, alpha)
    torch.manual_seed(7)
    noise = torch.stack([torch.randn(4, ACT, dtype=torch.float64) for _ in range(3)]).numpy()
    v_est, logps, cross_entropies = [], [], []
    for b in range(4):
        s = out(agent.model.encoder[1], encode(obs[b], OBJ, args.num_frequencies))
        z_b = z[b].numpy()
        states, actions, logp, v_k = imagine(
            agent.model, agent.policy, agent.posterior, s, None if latent == "none" else z_b, alpha, args, noise[:, b]
        )
        v_est.append(weighted_mean(v_k[0])), logps.extend(logp)
        np.testing.assert_allclose(s_met[:, b], states, rtol=1e-6)
        np.testing.assert_allclose(a_met[:, b], actions, rtol=1e-6)
        if latent != "none":
            cross_entropies += [-log_p(agent.posterior, z_b, s, a, args) for s, a in zip(states, actions)]
    assert loss.item() == pytest.approx(-np.mean(v_est), rel=1e-6)
    assert entropy.item() == pytest.approx(-np.mean(logps), rel=1e-6)
    if latent != "none":
        info_loss = agent.posterior_loss(s_met, a_met, z)
        assert info_loss.item() == pytest.approx(np.mean(cross_entropies), rel=1e-6)


def test_policy_and_posterior_loss_keep_to_their_networks():
    """The encoder gets nothing from the policy's loss, nor the policy and the model from the cross entropy; what α and
    p(z|s,a) are made of carries no gradient, and none goes into z."""
    agent = small_agent(small_args())
    obs, z, _ = policy_batch(agent.args)
    loss, s, a, entropy = agent.policy_loss(obs, z, 0.3)
    assert not (s.requires_grad or a.requires_grad or entropy.requires_grad)
    gradients = torch.autograd.grad(loss, [*agent.model.encoder.parameters()], retain_graph=True, allow_unused=True)
    assert all(gradient is None for gradient in gradients)
    loss.backward()
    assert all(parameter.grad is not None for parameter in agent.policy.parameters())
    agent.zero_grad()
    agent.posterior_loss(s, a, z).backward()
    with_gradient = {name.split(".")[0] for name, p in agent.named_parameters() if p.grad is not None}
    assert with_gradient == {"posterior"}


def test_prior_loss_of_the_agent_imagines_from_the_first_observation():
    """Two z ~ π(z|s₁) for each first state, and their V_est."""
    agent = small_agent(small_args(learned_prior=True))
    torch.nn.init.normal_(agent.prior.net[-1].weight)
    start_obs = policy_batch(agent.args)[2]
    s_1 = agent.model.encoder(start_obs).detach()
    torch.manual_seed(7)
    loss, first_states = agent.prior_loss(start_obs, 0.3)
    torch.manual_seed(7)
    draws = [agent.prior.sample(s_1).detach() for _ in range(2)]
    noise = torch.stack([torch.randn(8, ACT, dtype=torch.float64) for _ in range(3)]).numpy()
    nets = agent.model, agent.policy, agent.posterior
    v_est = [
        [
            weighted_mean(
                imagine(*nets, s_1[b].numpy(), draws[i][b].numpy(), 0.3, agent.args, noise[:, 4 * i + b])[3][0]
            )
            for b in range(4)
        ]
        for i in range(2)
    ]
    expected = agent.prior.loss(s_1, torch.stack(draws), torch.tensor(v_est))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(first_states, s_1)
    loss.backward()
    with_gradient = {name.split(".")[0] for name, p in agent.named_parameters() if p.grad is not None}
    assert with_gradient == {"prior"}


# updates
TRAINED = {
    "rnd_optimizer": "rnd.g",
    "model_optimizer": "model",
    "policy_optimizer": "policy",
    "posterior_optimizer": "posterior",
    "prior_optimizer": "prior",
    "alpha_optimizer": "log_alpha",
}  # which optimiser trains what, in the order of Algorithm 1


def trained_by(agent, name):
    """{name: parameter} of the network that this optimiser trains."""
    net = TRAINED[name]
    return {key: value for key, value in agent.named_parameters() if key == net or key.startswith(f"{net}.")}


def random_replay(dtype=torch.float64, num_envs=3, latent="gaussian"):
    """A full replay of 40 rows of random numbers, in episodes of 7 steps of which every other one terminates."""
    torch.manual_seed(5)
    latent_dim = 0 if latent == "none" else LAT
    replay = rpg.Replay(40 * num_envs, num_envs, OBS, ACT, latent_dim, CPU)
    replay.data = replay.data.to(dtype)
    for row in range(45):
        t = row % 8
        z = torch.randn(num_envs, latent_dim, dtype=dtype)
        if latent == "categorical":
            z = torch.eye(LAT, dtype=dtype)[z.argmax(-1)]
        replay.add(
            torch.randn(num_envs, OBS, dtype=dtype),
            torch.rand(num_envs, ACT, dtype=dtype) * 2 - 1,
            z,
            reward=torch.randn(num_envs).numpy(),
            terminated=[t == 6 and row % 16 > 8] * num_envs,
            last=[t == 7] * num_envs,
            t=[t] * num_envs,
        )
    return replay


def test_a_step_moves_the_network_of_its_optimiser_and_no_other():
    """Bit for bit, in the order of Algorithm 1, and with Adam's moments of an earlier update there, which would move a
    network by themselves. Between the steps only RND's normaliser changes, after them only the target network."""
    agent, replay, events, last = small_agent(small_args(learned_prior=True, batch_size=16)), random_replay(), [], {}
    torch.nn.init.normal_(agent.prior.net[-1].weight)  # which is 0, and lets no gradient pass

    def note(event):
        state = {name: value.clone() for name, value in agent.state_dict().items()}
        events.append((event, {name for name, value in state.items() if last and not torch.equal(value, last[name])}))
        last.update(state)

    for name, optimizer in agent.optimizers().items():
        optimizer.register_step_pre_hook(lambda *_, name=name: note("before " + name))
        optimizer.register_step_post_hook(lambda *_, name=name: note(name))
    for _ in range(2):
        events.clear()
        note("start")
        agent.update(replay, True, True)
        note("end")
        assert [event for event, _ in events] == [
            "start",
            *(x for name in TRAINED for x in ("before " + name, name)),
            "end",
        ]
        moved = dict(events)
        assert moved.pop("before rnd_optimizer") == {
            "rnd.updates",
            *(f"rnd.errors.{name}" for name in ("count", "mean", "m2")),
        }
        assert moved.pop("before prior_optimizer") == {"prior.value_variance"}
        targets = {f"target_model.{name}" for name, _ in agent.model.named_parameters()}
        assert moved.pop("end") == targets
        for name in TRAINED:
            assert moved[name] == trained_by(agent, name).keys(), name
            assert not moved.get("before " + name)
    assert agent.rnd.updates == rpg.RND_WARMUP + 3, "the normaliser counts each update"


def update_by_hand(agent, adams, replay, with_policy, with_target):
    """Algorithm 1 with loops over single parameters: fit RND, then the model to rewards with the fitted RND's bonus,
    then the policy in the fitted model, p(z|s,a) where it has acted, π(z|s₁) and α. ({loss: value}, {optimiser: its
    clipped gradients})."""
    args, logs, gradients = agent.args, {}, {}

    def step(name, loss):
        parameters = list(trained_by(agent, name).values())
        gradient = torch.autograd.grad(loss, parameters)
        norm = math.sqrt(sum(x * x for g in gradient for x in g.flatten().tolist()))
        if norm > args.max_grad_norm:
            gradient = [g * (args.max_grad_norm / (norm + 1e-6)) for g in gradient]
        for parameter, g in zip(parameters, gradient):
            parameter.grad = g
        gradients[name] = gradient
        adams[name].step()
        return loss.item(), norm

    segments = replay.sample_segments(args.batch_size, args.horizon)
    if args.rnd_coef:
        error = agent.rnd.error(replay.sample_states(args.batch_size, args.rnd_buffer_size).obs)
        agent.rnd.update_normalizer(error.detach())
        logs["rnd_loss"], _ = step("rnd_optimizer", error.mean())
    loss, parts = agent.model_loss(segments)
    logs |= {name: value.item() for name, value in parts.items()}
    logs["model_loss"], logs["grad_norm"] = step("model_optimizer", loss)
    if with_policy:
        states = replay.sample_states(args.batch_size)
        logs["alpha"] = args.alpha * math.exp(agent.log_alpha.item())
        loss, s, a, entropy = agent.policy_loss(states.obs, states.z, logs["alpha"])
        logs["policy_loss"], _ = step("policy_optimizer", loss)
        logs["entropy"] = entropy.item()
        if args.latent != "none":
            logs["info_loss"], _ = step("posterior_optimizer", agent.posterior_loss(s, a, states.z))
            logs["info_reward"] = -args.beta * logs["info_loss"]
        if args.learned_prior:
            loss, s_1 = agent.prior_loss(states.start_obs, logs["alpha"])
            logs["prior_loss"], _ = step("prior_optimizer", loss)
            logs["prior_entropy"] = agent.prior.follow_target(s_1).item()
        if args.autotune:
            alpha_loss = args.alpha * agent.log_alpha.exp() * (logs["entropy"] + ACT)
            logs["alpha_loss"], slope = step("alpha_optimizer", alpha_loss)
            assert slope == pytest.approx(abs(logs["alpha_loss"]))
    if with_target:
        for target, online in zip(agent.target_model.parameters(), agent.model.parameters()):
            target.data = (1 - args.tau) * target.data + args.tau * online.data
    return logs, gradients


@pytest.mark.parametrize("max_grad_norm", [1e-3, 0.5, 1e6])
@pytest.mark.parametrize(
    "changes",
    [dict(learned_prior=True), dict(latent="categorical", autotune=False), dict(latent="none", rnd_coef=0.0)],
    ids=str,
)
def test_update_equals_the_steps_by_hand(changes, max_grad_norm):
    """Four updates, every other one with the policy, from one RNG state: the same gradients, each network's clipped by
    itself, parameters, losses and RNG state."""
    args = small_args(
        batch_size=16, rnd_buffer_size=20, tau=0.1, max_grad_norm=max_grad_norm, learning_rate=1e-2, **changes
    )
    agent, other, replay, clipped = small_agent(args), small_agent(args), random_replay(latent=args.latent), []
    adams = {name: torch.optim.Adam(trained_by(other, name).values(), 1e-2) for name in agent.optimizers()}
    for name, optimizer in agent.optimizers().items():
        parameters = trained_by(agent, name).values()
        optimizer.register_step_pre_hook(
            lambda *_, name=name, parameters=parameters: clipped[-1].update(
                {name: [p.grad.clone() for p in parameters]}
            )
        )
    torch.manual_seed(9)
    logs = []
    for i in range(4):
        clipped.append({})
        logs.append(agent.update(replay, i % 2 == 1, i != 2))
    after = torch.get_rng_state()
    torch.manual_seed(9)
    by_hand = [update_by_hand(other, adams, replay, i % 2 == 1, i != 2) for i in range(4)]
    assert torch.equal(after, torch.get_rng_state())
    for i, (expected, gradients) in enumerate(by_hand):
        assert not any(value.requires_grad for value in logs[i].values())
        assert {key: value.item() for key, value in logs[i].items()} == pytest.approx(expected, rel=1e-6)
        assert ("policy_loss" in logs[i]) == (i % 2 == 1)
        assert (expected["grad_norm"] > max_grad_norm) == (max_grad_norm < 1)
        assert clipped[i].keys() == gradients.keys()
        for name in gradients:
            for one, two in zip(clipped[i][name], gradients[name]):
                torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-12, msg=f"{name}, update {i}")
    assert args.rnd_coef == 0 or logs[0]["rnd_reward"] != 0
    for (name, one), two in zip(agent.state_dict().items(), other.state_dict().values()):
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-9, msg=name)


def test_frozen_gives_back_what_it_took():
    """Inside, a gradient flows through and none is kept; afterwards, also after an exception, parameters need gradients
    that needed them before, and no others."""
    model, policy, posterior = small_nets(small_args())
    policy.net[0].weight.requires_grad_(False)  # a fork's own choice
    needed = [p.requires_grad for net in (model, policy) for p in net.parameters()]
    assert needed.count(False) == 1
    x = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    with rpg.frozen(model, policy, None):
        assert not any(p.requires_grad for net in (model, policy) for p in net.parameters())
        assert all(p.requires_grad for p in posterior.parameters())
        model.init_hidden(x).sum().backward()
    assert x.grad.abs().sum() > 0 and all(p.grad is None for p in model.parameters())
    assert [p.requires_grad for net in (model, policy) for p in net.parameters()] == needed
    with pytest.raises(ZeroDivisionError), rpg.frozen(model, policy):
        1 / 0  # noqa: B018
    assert [p.requires_grad for net in (model, policy) for p in net.parameters()] == needed


@pytest.mark.parametrize("changes", [{}, dict(learned_prior=True), dict(latent="none", rnd_coef=0.0, autotune=False)])
def test_a_parameter_that_nothing_trains_is_named(changes, monkeypatch, capsys):
    """One without an optimiser, one that is not the agent's, and (a warning) one that no loss reaches, with moments of
    a checkpoint too; the agent's own are fine."""
    monkeypatch.setattr(envs.check_gradients, "warned", False, raising=False)
    agent = small_agent(small_args(batch_size=16, **changes))
    replay = random_replay(latent=agent.args.latent)
    envs.check_optimizers(agent, agent.optimizers())
    agent.update(replay, True, True)
    envs.check_gradients(agent, agent.optimizers())
    assert capsys.readouterr().err == ""
    agent.decoder = torch.nn.Linear(5, OBS)
    with pytest.raises(ValueError, match=r"no optimiser trains Agent\.decoder\.weight: .*requires_grad_\(False\)"):
        envs.check_optimizers(agent, agent.optimizers())
    agent.decoder.weight.requires_grad_(False)
    with pytest.raises(ValueError, match=r"Agent\.decoder\.bias"):
        envs.check_optimizers(agent, agent.optimizers())
    agent.decoder_optimizer = torch.optim.Adam([agent.decoder.bias])
    envs.check_optimizers(agent, agent.optimizers())
    agent.decoder_optimizer.state[agent.decoder.bias] = {"step": torch.ones(())}  # as after a resume
    agent.update(replay, True, True)
    for _ in range(2):
        envs.check_gradients(agent, agent.optimizers())
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "decoder_optimizer has not trained Agent.decoder.bias yet" in err
    head = torch.nn.Linear(2, 2)  # no part of the agent, so that no checkpoint would hold it
    agent.head_optimizer = torch.optim.Adam(head.parameters())
    with pytest.raises(ValueError, match=r"head_optimizer trains a parameter of shape \(2, 2\) .* would not be saved"):
        envs.check_optimizers(agent, agent.optimizers())
    del agent.head_optimizer
    agent.model.blocks = [head]  # nor one in a plain list, which no loop over parameters finds
    with pytest.raises(ValueError, match=r"Agent\.model\.blocks: .* nn.ModuleList"):
        envs.check_optimizers(agent, agent.optimizers())
    agent.model.blocks = {"a": head}
    with pytest.raises(ValueError, match=r"Agent\.model\.blocks: .* nn.ModuleDict"):
        envs.check_optimizers(agent, agent.optimizers())
    agent.memory = torch.nn.GRU(2, 2).requires_grad_(False)  # which has its parameters in a plain list, too
    for visits in (torch.zeros(3), [torch.nn.Parameter(torch.zeros(3))]):  # what no state_dict holds
        agent.model.blocks = visits
        with pytest.raises(ValueError, match=r"Agent\.model\.blocks: a tensor that is not saved: .*register_buffer"):
            envs.check_optimizers(agent, agent.optimizers())


def test_optimizer_states_go_by_name():
    """A resumed run gets each parameter's moments where a fork has put its networks in another order; other optimisers,
    or one that trains less, are refused."""
    agent, fork = small_agent(small_args(batch_size=16)), small_agent(small_args(batch_size=16))
    agent.update(random_replay(latent=agent.args.latent), True, True)
    states = envs.optimizer_states(agent)
    assert states["model_optimizer"].keys() == dict(agent.model.named_parameters(prefix="model")).keys()
    modules = fork.model._modules
    modules["encoder"] = modules.pop("encoder")  # now the last
    fork.model_optimizer = torch.optim.Adam(fork.model.parameters())
    envs.load_optimizer_states(fork, states)
    moments = envs.optimizer_states(fork)
    for optimizer, parameters in states.items():
        assert moments[optimizer].keys() == parameters.keys()
        for name, state in parameters.items():
            assert torch.equal(moments[optimizer][name]["exp_avg"], state["exp_avg"])
    fork.model_optimizer = torch.optim.Adam(fork.model.encoder.parameters())
    with pytest.raises(ValueError, match="model_optimizer does not train model"):
        envs.load_optimizer_states(fork, states)
    fork.encoder_optimizer = fork.model_optimizer
    with pytest.raises(ValueError, match="the script .*encoder_optimizer"):
        envs.load_optimizer_states(fork, states)


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler")
def test_compiled_updates_are_the_eager_ones():
    """--compile changes neither the random numbers nor the steps, of any loss: 20 updates from one state and one RNG
    state."""
    replay, agents, states = random_replay(torch.float32), [], []
    for compiled in (False, True):
        args = small_args(batch_size=32, horizon=1, alpha=0.1, learned_prior=True, compile=compiled)
        torch.manual_seed(0)
        agents.append(rpg.Agent(OBS, OBJ, ACT, LAT, args, CPU))
        agents[-1].rnd.updates.fill_(rpg.RND_WARMUP - 10)  # so that the bonus sets in halfway
        for i in range(20):
            logs = agents[-1].update(replay, i % 2 == 1, i % 2 == 1)
        assert logs["rnd_reward"] != 0
        states.append(torch.get_rng_state())
    assert torch.equal(*states)
    # Measured: 6e-8, half of what starting from weights that differ by their last bit makes; by then the weights have
    # moved by 6e-3. Roundings grow from step to step, faster for larger networks and horizons, hence the room.
    for (name, one), two in zip(agents[0].named_parameters(), agents[1].parameters()):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-5, msg=name)


def test_each_kind_of_update_becomes_one_graph(monkeypatch):
    """Three eager calls of a kind, then one capture, in which nothing runs, then replays of what was captured; a new
    capture when a flag or a learning rate has changed, as by a schedule of a fork."""
    log, capturing = [], []

    class Graph:
        def replay(self):
            log.append(("replay", self.kind))

    @contextlib.contextmanager
    def capture(graph):
        capturing.append(graph)
        yield
        capturing.pop()

    def update(replay, *kind):
        log.append(("capture" if capturing else "eager", kind))
        if capturing:
            capturing[0].kind = kind
        return {"logs of": kind, "replay": replay}

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    group = {"lr": 1.0}
    optimizers = {"adam": types.SimpleNamespace(param_groups=[group])}
    agent = types.SimpleNamespace(update=update, args=small_args(), optimizers=lambda: optimizers)
    graphed = rpg.as_cuda_graphs(agent)
    for i in range(12):
        assert graphed("ring", i % 2 == 1, False) == {"logs of": (i % 2 == 1, False), "replay": "ring"}
    for kind in ((False, False), (True, False)):
        assert [what for what, of in log if of == kind] == ["eager"] * 3 + ["capture"] + ["replay"] * 3
    assert len(log) == 14  # the first call after a capture replays it
    agent.args.beta /= 2
    graphed("ring", True, False), graphed("ring", True, False)
    group["lr"] /= 2
    graphed("ring", True, False), graphed("ring", True, False)
    assert [what for what, _ in log[14:]] == ["capture", "replay", "replay"] * 2


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"latent": "none", "rnd_buffer_size": 20, "autotune": False},
        {"latent": "categorical", "learned_prior": True, "rnd_coef": 0.0},
        {"learned_prior": True},
    ],
    ids=str,
)
def test_updates_are_capturable(flags):
    args = small_args(batch_size=8, **flags)
    replay = random_replay(torch.float32, latent=args.latent)
    check_capturable(rpg.Agent(OBS, OBJ, ACT, rpg.latent_size(args), args, CPU), replay)


def test_an_update_that_waits_for_the_gpu_is_found(monkeypatch):
    """By check_capturable; where a GPU finds it, by a message that names the flag."""
    args = small_args(batch_size=8)
    agent, update = rpg.Agent(OBS, OBJ, ACT, LAT, args, CPU), rpg.Agent.update
    harmful = [lambda x: x.item(), lambda x: x + torch.tensor([1.0]), lambda x: x.view(1)[x.view(1) > 0]]
    harmful += [lambda x: x.tolist(), lambda x: x.detach().cpu(), lambda x: torch.equal(x, x), lambda x: f"{x}"]
    for harm in harmful:
        agent.update = lambda *call: harm(update(agent, *call)["model_loss"])  # noqa: B023 (called in this turn)
        with pytest.raises((AssertionError, TypeError)):
            check_capturable(agent, random_replay(torch.float32))

    @contextlib.contextmanager
    def capture(graph):
        yield
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    agent.update = lambda *call: {}
    graphed = rpg.as_cuda_graphs(agent)
    for _ in range(rpg.GRAPH_WARMUP):
        graphed("ring", True, True)
    with pytest.raises(RuntimeError, match="--no-cudagraphs"):
        graphed("ring", True, True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("modes", [["compile"], ["cudagraphs"], ["compile", "cudagraphs"]], ids=str)
def test_gpu_updates_are_the_eager_ones(modes):
    """On a GPU too: 20 updates from one state and one RNG state, and the same random numbers left."""
    replay, agents, states, device = random_replay(torch.float32), [], [], torch.device("cuda")
    for name in ("data", "head", "filled"):
        setattr(replay, name, getattr(replay, name).to(device))
    eager = {"compile": False, "cudagraphs": False}
    for changes in (eager, eager | dict.fromkeys(modes, True)):
        torch.manual_seed(0)
        agents.append(rpg.Agent(OBS, OBJ, ACT, LAT, small_args(batch_size=32, horizon=1, alpha=0.1, **changes), device))
        agents[-1].rnd.updates.fill_(rpg.RND_WARMUP - 10)
        for i in range(20):
            logs = agents[-1].update(replay, i % 2 == 1, i % 2 == 1)
        assert logs["rnd_reward"] != 0
        states.append(torch.cuda.get_rng_state())
    assert torch.equal(*states)
    for (name, one), two in zip(agents[0].named_parameters(), agents[1].parameters()):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-5, msg=name)


# policy
def policy_with(mean, log_std, dtype=torch.float64):
    """A policy of one action dimension per entry whose network returns (mean, log_std) whatever the state."""
    policy = rpg.Policy(len(mean), 0, small_args()).to(dtype)
    with torch.no_grad():
        policy.net[-1].weight.zero_()
        policy.net[-1].bias.copy_(torch.tensor([*mean, *log_std], dtype=dtype))
    return policy


def no_state(batch_size, dtype=torch.float64):
    """A batch of zero states, and z of no dimensions."""
    return torch.zeros(batch_size, 5, dtype=dtype), torch.zeros(batch_size, 0, dtype=dtype)


@pytest.mark.parametrize("mean,log_std", [(0.0, 0.0), (0.8, 0.5), (-1.5, -1.0)])
def test_policy_density_integrates_to_one_and_fits_the_samples(mean, log_std):
    """exp(log π) integrates to 1, and up to each sampled action to the share of samples below it."""
    torch.manual_seed(0)
    a, logp = (x.detach().numpy() for x in policy_with([mean], [log_std])(*no_state(20_000)))
    assert a.shape == (20_000, 1) and logp.shape == (20_000,)
    order = a[:, 0].argsort()
    x, density = a[order, 0], np.exp(logp[order])
    below = np.concatenate([[0], np.cumsum(np.diff(x) * (density[1:] + density[:-1]) / 2)])
    assert below[-1] == pytest.approx(1, abs=2e-3)
    assert stats.kstest(below, "uniform").pvalue > 1e-3
    std = 0.4 * math.exp(log_std)

    def cdf(y):
        return stats.norm.cdf(np.arctanh(y), mean, std)  # P(a < y) = P(u < arctanh y)

    some, eps = x[::500], 1e-6
    np.testing.assert_allclose(density[::500], (cdf(some + eps) - cdf(some - eps)) / (2 * eps), rtol=1e-3, atol=1e-6)


def test_policy_log_prob_sums_over_the_dimensions():
    """log π of several dimensions is the sum of those of each, by change of variables."""
    mean, log_std = [0.3, -0.9, 1.2], [0.1, -0.6, 0.4]
    a, logp = (x.detach().numpy() for x in policy_with(mean, log_std)(*no_state(50)))
    for b in range(50):
        expected = 0.0
        for i in range(3):
            expected += stats.norm.logpdf(math.atanh(a[b, i]), mean[i], 0.4 * math.exp(log_std[i]))
            expected -= math.log(1 - a[b, i] ** 2)
        assert logp[b] == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("dtype,rel", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("mean", [-40.0, -15.0, -3.0, 0.0, 3.0, 15.0, 40.0])
def test_policy_log_prob_is_exact_where_tanh_saturates(mean, dtype, rel):
    """1 − tanh²u = 1/cosh²u; for |u| > 19 even float64 has tanh u = ±1, and log(1 − tanh²u) would be −inf."""
    a, logp = policy_with([mean], [0.0], dtype)(*no_state(1, dtype), greedy=True)
    expected = stats.norm.logpdf(0, 0, 0.4) + 2 * math.log(math.cosh(mean))
    assert logp.item() == pytest.approx(expected, rel=rel, abs=rel / 10)
    assert a.item() == pytest.approx(math.tanh(mean), rel=1e-6)


@pytest.mark.parametrize("log_std,clipped", [(-100, -20), (-20, -20), (-1, -1), (0, 0), (2, 2), (9, 2)])
def test_policy_std_is_clipped_and_scaled(log_std, clipped):
    """std = 0.4 exp(clip(log std, −20, 2)), in the density and in the samples."""
    policy, std = policy_with([0.0], [log_std]), 0.4 * math.exp(clipped)
    logp = policy(*no_state(1), greedy=True)[1].item()  # at u = 0: −log(std √2π)
    assert math.exp(-logp) / math.sqrt(2 * math.pi) == pytest.approx(std, rel=1e-9)
    torch.manual_seed(0)
    a = policy(*no_state(7))[0].detach()[:, 0]
    torch.manual_seed(0)
    noise = torch.randn(7, 1, dtype=torch.float64)[:, 0]
    np.testing.assert_allclose(a, np.tanh(std * noise.numpy()), rtol=1e-9)


def test_policy_gradient_is_reparameterised():
    """Gradients of a and log π for mean and log std equal finite differences under fixed noise."""
    policy = policy_with([0.4, -0.7], [0.2, -0.5])
    bias, eps = policy.net[-1].bias, 1e-6

    def evaluate():
        torch.manual_seed(5)
        a, logp = policy(*no_state(1))
        return torch.cat([a[0], logp])

    for output in range(3):
        gradient = torch.autograd.grad(evaluate()[output], bias)[0]
        for i in range(4):
            with torch.no_grad():
                bias[i] += eps
                above = evaluate()[output].item()
                bias[i] -= 2 * eps
                below = evaluate()[output].item()
                bias[i] += eps
            assert gradient[i].item() == pytest.approx((above - below) / (2 * eps), rel=1e-5, abs=1e-7)


def test_policy_greedy_action_is_tanh_of_the_mean():
    """Greedy actions hold no noise, sampled ones do; both depend on s and on z."""
    policy = small_nets(small_args())[1]
    s, z = torch.randn(4, 5, dtype=torch.float64), torch.randn(4, LAT, dtype=torch.float64)
    greedy = policy(s, z, greedy=True)[0].detach()
    for b in range(4):
        np.testing.assert_allclose(greedy[b], np.tanh(out(policy.net, s[b], z[b])[:ACT]), rtol=1e-12)
    assert not torch.isclose(policy(s, z)[0], greedy).any()
    assert not torch.isclose(policy(s, z + 1, greedy=True)[0], greedy).any()


# posterior
def test_gaussian_posterior_is_a_normal_around_its_network():
    """log p(z|s,a) of the ELBO reward: std 0.38 (paper Table 1), summed over z's dimensions, for any leading shape."""
    args = small_args()
    assert args.posterior_std == 0.38
    posterior = small_nets(args)[2]
    s, a, z = (torch.randn(2, 3, n, dtype=torch.float64) for n in (5, ACT, LAT))
    result = posterior.log_prob(s, a, z)
    assert result.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            expected = stats.norm.logpdf(z[i, j], out(posterior.net, s[i, j], a[i, j]), 0.38).sum()
            assert result[i, j].item() == pytest.approx(expected, rel=1e-6)


def test_categorical_posterior_is_a_log_softmax():
    """log p(z|s,a) of a one-hot z is the log softmax of its category."""
    posterior = small_nets(small_args(latent="categorical"))[2]
    s, a = torch.randn(6, 5, dtype=torch.float64), torch.randn(6, ACT, dtype=torch.float64)
    category = [0, 1, 2, 2, 1, 0]
    result = posterior.log_prob(s, a, torch.eye(LAT, dtype=torch.float64)[category])
    for b in range(6):
        p = np.exp(out(posterior.net, s[b], a[b]))
        assert result[b].item() == pytest.approx(math.log(p[category[b]] / p.sum()), rel=1e-9)


# prior
def test_fixed_gaussian_prior_is_standard_normal():
    """z ~ N(0, I), whatever the state, from no parameters."""
    prior = rpg.Prior(LAT, small_args())
    torch.manual_seed(0)
    z = prior.sample(1e6 * torch.randn(20_000, 5)).numpy()
    assert z.shape == (20_000, LAT) and not list(prior.parameters())
    for i in range(LAT):
        assert stats.kstest(z[:, i], "norm").pvalue > 1e-3
    np.testing.assert_allclose(np.cov(z.T), np.eye(LAT), atol=0.04)


def test_fixed_categorical_prior_is_uniform_one_hot():
    """z is one of the unit vectors, each as often as the others."""
    prior = rpg.Prior(LAT, small_args(latent="categorical"))
    torch.manual_seed(0)
    z = prior.sample(torch.randn(9_000, 5))
    assert z.dtype == torch.float32 and z.shape == (9_000, LAT) and not list(prior.parameters())
    assert set(map(tuple, z.tolist())) == set(map(tuple, np.eye(LAT).tolist()))
    assert stats.chisquare(z.sum(0).numpy()).pvalue > 1e-3


@pytest.mark.parametrize("latent", ["gaussian", "categorical"])
def test_learned_prior_starts_as_the_fixed_one(latent):
    """Before training, a learned prior gives every state the fixed one's distribution, and can be trained."""
    args = small_args(latent=latent, learned_prior=True)
    prior = rpg.Agent(OBS, OBJ, ACT, LAT, args, CPU).prior.double()
    s = torch.randn(3, 5, dtype=torch.float64)
    z = torch.eye(LAT, dtype=torch.float64) if latent == "categorical" else torch.randn(3, LAT, dtype=torch.float64)
    logp = prior.log_prob(s, z)
    for b in range(3):
        expected = math.log(1 / LAT) if latent == "categorical" else stats.norm.logpdf(z[b]).sum()
        assert logp[b].item() == pytest.approx(expected, rel=1e-9)
    logp.square().sum().backward()
    assert prior.net[-1].weight.grad.abs().sum() > 0


def learned_prior(latent, output):
    """A learned prior in float64 whose network returns `output` whatever the state."""
    prior = rpg.Prior(LAT, small_args(latent=latent, learned_prior=True)).double()
    with torch.no_grad():
        prior.net[-1].weight.zero_()
        prior.net[-1].bias.copy_(torch.tensor(output, dtype=torch.float64))
    return prior


def test_learned_categorical_prior_samples_follow_its_logits():
    """Frequencies of the sampled categories against softmax(φ / α_z); log_prob is its logarithm."""
    phi, alpha = np.array([0.5, -1.0, 1.5]), 0.7
    p = np.exp(phi / alpha) / np.exp(phi / alpha).sum()
    prior = learned_prior("categorical", phi)
    prior.alpha.fill_(alpha)
    torch.manual_seed(0)
    s = torch.zeros(20_000, 5, dtype=torch.float64)
    z = prior.sample(s)
    assert stats.chisquare(z.sum(0).numpy(), 20_000 * p).pvalue > 1e-3
    np.testing.assert_allclose(prior.log_prob(s[:3], torch.eye(3, dtype=torch.float64)).detach(), np.log(p), rtol=1e-9)


def test_learned_gaussian_prior_samples_follow_its_network():
    """z ~ N(2 tanh(φ / 2), σ²); log_prob is that normal's."""
    out, std = np.array([1.0, -9.0, 0.0]), 0.3
    mean = 2 * np.tanh(out / 2)
    prior = learned_prior("gaussian", out)
    prior.std.fill_(std)
    torch.manual_seed(0)
    s = torch.zeros(20_000, 5, dtype=torch.float64)
    z = prior.sample(s).detach().numpy()
    logp = prior.log_prob(s[:50], torch.tensor(z[:50])).detach()
    for i in range(3):
        assert stats.kstest((z[:, i] - mean[i]) / std, "norm").pvalue > 1e-3
    np.testing.assert_allclose(logp, [stats.norm.logpdf(x, mean, std).sum() for x in z[:50]], rtol=1e-9)


@pytest.mark.parametrize("latent", ["gaussian", "categorical"])
def test_prior_sampling_with_a_generator_leaves_the_global_rng_alone(latent):
    """A generator of its own (evaluation) reproduces z; without one, the global RNG advances."""
    prior, s = rpg.Prior(LAT, small_args(latent=latent)), torch.zeros(64, 5)
    before = torch.get_rng_state()
    one, two, other = (prior.sample(s, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, two) and not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(prior.sample(s), prior.sample(s)) and not torch.equal(torch.get_rng_state(), before)


# the prior's loss and entropy
def test_prior_loss_gradient_is_that_of_the_bandit_objective():
    """Expected over all pairs of draws, it is −α_z d/dφ Σ_z p(z)(V(z) − α_z log p(z)), p = softmax(φ/α_z), by finite
    differences."""
    phi, v, alpha = np.array([0.5, -1.0, 1.5]), np.array([2.0, -1.0, 0.3]), 0.7

    def objective(phi):
        p = np.exp(phi / alpha) / np.exp(phi / alpha).sum()
        return sum(p[z] * (v[z] - alpha * math.log(p[z])) for z in range(3))

    prior, s, eye = learned_prior("categorical", phi), torch.zeros(1, 5, dtype=torch.float64), np.eye(3)
    prior.alpha.fill_(alpha)
    p, gradient = np.exp(phi / alpha) / np.exp(phi / alpha).sum(), np.zeros(3)
    for first in range(3):
        for second in range(3):
            z, v_est = torch.tensor(eye[[first, second]])[:, None], torch.tensor(v[[first, second]])[:, None]
            prior.value_variance.fill_((1 - 0.01 * (v[first] - v[second]) ** 2) / 0.99)  # its running mean comes to 1
            loss = prior.loss(s, z, v_est)
            gradient += p[first] * p[second] * torch.autograd.grad(loss, prior.net[-1].bias)[0].numpy()
    expected = [(objective(phi + 1e-5 * eye[i]) - objective(phi - 1e-5 * eye[i])) / 2e-5 for i in range(3)]
    np.testing.assert_allclose(gradient, -alpha * np.array(expected), rtol=1e-6)


@pytest.mark.parametrize("latent", ["gaussian", "categorical"])
def test_prior_loss_pairs_the_draws_of_each_state(latent):
    """The loss of a batch is the mean of those of its states: one state's draw is no baseline for another."""
    prior, s = learned_prior(latent, [0.3, -0.2, 0.1]), torch.randn(4, 5, dtype=torch.float64)
    torch.nn.init.normal_(prior.net[-1].weight)
    z, v_est = torch.stack([prior.sample(s), prior.sample(s)]).detach(), torch.randn(2, 4, dtype=torch.float64)
    whole, each = prior.loss(s, z, v_est).item(), []
    v_est = v_est / prior.value_variance.sqrt()
    for b in range(4):
        pair = v_est[:, b : b + 1]
        difference = (pair[0] - pair[1]).square().item() * (z[0, b] != z[1, b]).any().item()
        prior.value_variance.fill_((1.0 - 0.01 * difference) / 0.99)  # so that the running mean comes to 1
        each.append(prior.loss(s[b : b + 1], z[:, b : b + 1], pair).item())
    assert whole == pytest.approx(np.mean(each))


def test_gaussian_prior_loss_is_the_score_function_s():
    """−(V₁ − V₂)(log π(z₁) − log π(z₂)) / 2 of each state; its gradient climbs E[V], here a linear V's: φ → φ + V."""
    prior, s = learned_prior("gaussian", [0.3, -0.2, 0.1]), torch.zeros(2, 5, dtype=torch.float64)
    prior.std.fill_(0.5)
    z, v = torch.randn(2, 2, LAT, dtype=torch.float64), torch.randn(2, 2, dtype=torch.float64)
    mean = 2 * np.tanh(np.array([0.3, -0.2, 0.1]) / 2)
    logp = [[stats.norm.logpdf(z[i, b], mean, 0.5).sum() for b in range(2)] for i in range(2)]
    differences = [v[0, b].item() - v[1, b].item() for b in range(2)]
    scale = math.sqrt(np.mean(np.square(differences)))  # values are in units of their spread over z
    expected = np.mean([-differences[b] / scale * (logp[0][b] - logp[1][b]) / 2 for b in range(2)])
    assert prior.loss(s, z, v).item() == pytest.approx(expected)


@pytest.mark.parametrize("spread", [0.01, 1.0, 100.0])
def test_categorical_prior_s_entropy_follows_its_target(spread):
    """A bandit of 12 arms whose values differ by `spread`: while the target falls from log 12 to 0 the entropy stays
    within 2 % of it, at states that the update did not see too; half-way π is softmax(V / α_z), at the end the best
    arm."""
    torch.manual_seed(0)
    prior = rpg.Prior(12, small_args(latent="categorical", latent_dim=12, learned_prior=True, hidden_dim=32))
    torch.nn.init.zeros_(prior.net[-1].weight)
    adam = torch.optim.Adam(prior.parameters(), 1e-3)
    v = spread * torch.linspace(0, 1, 12)[torch.randperm(12)]
    steps = 2000
    for i in range(steps + 1):
        prior.share.fill_(1 - i / steps)
        s = torch.randn(64, 5)
        z = torch.stack([prior.sample(s), prior.sample(s)]).detach()
        loss = prior.loss(s, z, (z * v).sum(-1))
        adam.zero_grad()
        loss.backward()
        adam.step()
        entropy = prior.follow_target(s).item()
        if i % 10 == 0:
            p = (prior(torch.randn(500, 5)) / prior.alpha).softmax(-1).detach().numpy().clip(1e-30)
            unseen = -(p * np.log(p)).sum(-1).mean()
            target = (1 - i / steps) * math.log(12)
            assert abs(unseen - target) < 0.02 * target + 1e-3, i
            assert abs(entropy - target) < 1e-3 * math.log(12), i
        if i == steps // 2:
            boltzmann = (v / prior.value_variance.sqrt() / prior.alpha).softmax(-1).numpy()
            np.testing.assert_allclose(p.mean(0), boltzmann, atol=0.05)
    assert (prior.sample(torch.randn(500, 5)) @ v).mean() > 0.9 * spread


def test_the_spread_of_values_outlives_batches_of_one_z():
    """Once π(z|s₁) has settled, most pairs of draws are equal, and say nothing of how values differ over z."""
    prior, s, eye = learned_prior("categorical", [0.0] * 3), torch.zeros(1, 5, dtype=torch.float64), torch.eye(3)
    v_est = torch.tensor([[5.0], [2.0]], dtype=torch.float64)
    prior.loss(s, eye[[0, 1], None].double(), v_est)
    assert prior.value_variance.item() == 9
    for _ in range(1000):
        prior.loss(s, eye[[0, 0], None].double(), v_est)
    assert prior.value_variance.item() == 9


@pytest.mark.parametrize("phi", [[0.5, -1.0, 1.5], [50.0, -100.0, 150.0]])
@pytest.mark.parametrize("share", [1.0, 0.7, 0.1, 0.01])
def test_alpha_z_is_the_root_of_entropy_minus_target(phi, share):
    """By scipy's root finder, in float64."""
    prior, s = learned_prior("categorical", phi), torch.zeros(4, 5, dtype=torch.float64)
    prior.share.fill_(share)
    entropy = prior.follow_target(s).item()
    assert entropy == pytest.approx(share * math.log(3), rel=1e-4)
    if share < 1:  # else any large α_z will do

        def excess(log_alpha):
            return stats.entropy(special.softmax(np.array(phi) / math.exp(log_alpha))) - share * math.log(3)

        assert prior.alpha.item() == pytest.approx(math.exp(optimize.brentq(excess, -6, 12)), rel=1e-3)


def test_gaussian_prior_s_entropy_follows_its_target():
    """The entropy of N(φ, σ²) in d dimensions is d (log σ + ½ log 2πe), linear in the share of its way down."""
    prior = learned_prior("gaussian", [0.0] * 3)
    s = torch.zeros(2, 5, dtype=torch.float64)
    for share, std in ((1.0, 1.0), (0.5, math.sqrt(rpg.PRIOR_STD_END)), (0.0, rpg.PRIOR_STD_END)):
        prior.share.fill_(share)
        entropy = prior.follow_target(s).item()
        assert prior.std.item() == pytest.approx(std)
        assert entropy == pytest.approx(stats.norm(0, std).entropy() * 3)


def test_gaussian_prior_climbs_to_the_best_z():
    """V = −‖z − m‖²: the mean ends at m, whatever V's scale."""
    m = torch.tensor([0.5, -1.0, 0.0], dtype=torch.float64)
    for scale in (0.01, 100.0):
        torch.manual_seed(0)
        prior, s = learned_prior("gaussian", [0.0] * 3), torch.zeros(256, 5, dtype=torch.float64)
        prior.std.fill_(0.3)
        adam = torch.optim.Adam(prior.parameters(), 0.01)
        for _ in range(400):
            z = torch.stack([prior.sample(s), prior.sample(s)]).detach()
            loss = prior.loss(s, z, -scale * (z - m).square().sum(-1))
            adam.zero_grad()
            loss.backward()
            adam.step()
        np.testing.assert_allclose(prior(s[0]).detach(), m, atol=0.1)


# random network distillation
def test_rnd_error_sees_the_positional_encoding():
    """The error is the mean of (g − g′)² over the outputs, both fed with the encoded object coordinates."""
    rnd = rpg.RND(OBS, OBJ, small_args(num_frequencies=3)).double()
    obs = torch.randn(2, 3, OBS, dtype=torch.float64)
    error = rnd.error(obs)
    assert error.shape == (2, 3) and rnd.g[0].in_features == OBS + 2 * 3 * OBJ
    for i in range(2):
        for j in range(3):
            x = encode(obs[i, j], OBJ, 3)
            assert error[i, j].item() == pytest.approx(np.mean((out(rnd.g, x) - out(rnd.g_fixed, x)) ** 2), rel=1e-9)


def test_rnd_normaliser_equals_numpy_after_the_warm_up():
    """Mean and variance of all errors but those of the first 100 updates, during which the bonus is 0."""
    torch.manual_seed(0)
    rnd = rpg.Agent(OBS, OBJ, ACT, LAT, small_args(), CPU).rnd.double()
    rng = np.random.default_rng(0)
    obs = torch.randn(20, OBS, dtype=torch.float64)
    obs[10:] *= 3  # ten common states, ten strange ones
    for _ in range(100):
        rnd.update_normalizer(torch.tensor(rng.normal(1e5, 1e3, 8)))
        assert torch.count_nonzero(rnd.bonus(obs)) == 0
    batches = [rng.gamma(2, 0.1 * (i + 1), size) for i, size in enumerate((8, 8, 1, 5, 30, 8))]
    for i, batch in enumerate(batches):
        rnd.update_normalizer(torch.tensor(batch))
        seen = np.concatenate(batches[: i + 1])
        expected = (rnd.error(obs).detach().numpy() - seen.mean()) / seen.std()
        assert np.abs(expected).max() < 100
        np.testing.assert_allclose(rnd.bonus(obs).detach(), expected, rtol=1e-6)
    assert (expected < 0).any() and (expected > 0).any(), "the mean is subtracted: known states cost"
    assert rnd.errors.count.item() == len(seen)


def test_rnd_bonus_is_clipped_at_100_deviations():
    """However rare a state is, its bonus stays within ±100."""
    rnd, obs = rpg.RND(OBS, OBJ, small_args()).double(), torch.randn(20, OBS, dtype=torch.float64)
    for center, clipped in ((0.0, 100), (1e3, -100)):
        rnd.updates.fill_(100), rnd.errors.count.zero_(), rnd.errors.mean.zero_(), rnd.errors.m2.zero_()
        rnd.update_normalizer(center + torch.tensor([-1e-7, 1e-7], dtype=torch.float64))
        assert (rnd.bonus(obs) == clipped).all()


def test_rnd_counts_beyond_float32():
    """In a float32 network, the 2²⁴ + 1st error still counts, and statistics and bonus keep their types."""
    rnd = rpg.RND(OBS, OBJ, small_args())
    rnd.updates.fill_(2**24), rnd.errors.count.fill_(2**24), rnd.errors.mean.fill_(1.0), rnd.errors.m2.fill_(2.0**24)
    rnd.update_normalizer(torch.tensor([3.0]))
    assert rnd.updates.item() == rnd.errors.count.item() == 2**24 + 1
    assert rnd.errors.mean.item() == pytest.approx(1 + 2 / (2**24 + 1), rel=1e-14)
    assert rnd.errors.m2.item() == pytest.approx(2**24 + 4 * 2**24 / (2**24 + 1), rel=1e-14)
    assert rnd.bonus(torch.zeros(3, OBS)).dtype == torch.float32


def test_rnd_training_lowers_the_bonus_of_visited_states_only():
    """After training on one region its bonus is about 0 or less, another's high; g′ never changes."""
    torch.manual_seed(0)
    rnd = rpg.Agent(OBS, 1, ACT, LAT, small_args(), CPU).rnd
    fixed = copy.deepcopy(rnd.g_fixed.state_dict())
    visited, unvisited = 0.3 * torch.randn(256, OBS), 0.3 * torch.randn(256, OBS)
    unvisited[:, -1] += 3  # another place of the object
    before = rnd.error(visited).mean().item(), rnd.error(unvisited).mean().item()
    adam = torch.optim.Adam([p for p in rnd.parameters() if p.requires_grad], 3e-3)
    for _ in range(400):
        error = rnd.error(visited[torch.randint(256, (64,))])
        adam.zero_grad(), error.mean().backward(), adam.step()
        rnd.update_normalizer(error.detach())
    after = rnd.error(visited).mean().item(), rnd.error(unvisited).mean().item()
    assert after[0] < 0.05 * before[0] and after[1] > 0.3 * before[1]
    assert rnd.bonus(visited).mean() < 0.1 and rnd.bonus(unvisited).mean() > 10
    assert all(torch.equal(fixed[name], value) for name, value in rnd.g_fixed.state_dict().items())
    assert not any(p.requires_grad for p in rnd.g_fixed.parameters())


# positional encoding and networks
@pytest.mark.parametrize("object_dim,num_frequencies", [(2, 6), (1, 1), (4, 3), (0, 6), (2, 0)])
def test_positional_encoding_equals_loops(object_dim, num_frequencies):
    """Only the last `object_dim` entries are encoded; no frequencies or no object is the identity."""
    encoding = rpg.PositionalEncoding(OBS, object_dim, num_frequencies).double()
    obs = torch.randn(2, 3, OBS, dtype=torch.float64)
    result = encoding(obs)
    assert result.shape == (2, 3, OBS + 2 * object_dim * num_frequencies) and encoding.out_dim == result.shape[-1]
    for i in range(2):
        for j in range(3):
            np.testing.assert_allclose(result[i, j], encode(obs[i, j], object_dim, num_frequencies), rtol=1e-12)
    if object_dim * num_frequencies == 0:
        assert torch.equal(result, obs)


def test_networks_are_those_of_the_appendix():
    """Two hidden layers with ELU (RND: LeakyReLU), orthogonal weights and zero biases, in the GRU too."""
    args = small_args()
    agent = rpg.Agent(OBS, OBJ, ACT, LAT, args, CPU)
    model, rnd = agent.model, agent.rnd
    nets = [model.encoder[1], model.action_encoder, model.init_hidden, model.state_head, model.reward_head]
    nets += [*model.values, agent.policy.net, agent.posterior.net, rnd.g, rnd.g_fixed]
    for net in nets:
        kinds = [type(layer).__name__ for layer in net]
        activation = "LeakyReLU" if net in (rnd.g, rnd.g_fixed) else "ELU"
        width = args.rnd_dim if net in (rnd.g, rnd.g_fixed) else args.hidden_dim
        assert kinds == ["Linear", activation, "Linear", activation, "Linear"]
        assert net[0].out_features == net[2].in_features == net[2].out_features == net[4].in_features == width
    for parameter in [p for net in [*nets, model.gru] for p in net.parameters()]:
        if parameter.ndim == 1:
            assert torch.count_nonzero(parameter) == 0
        else:
            w = parameter.detach().numpy()
            w = w if w.shape[0] <= w.shape[1] else w.T
            np.testing.assert_allclose(w @ w.T, np.eye(len(w)), atol=1e-5)
    assert not torch.equal(model.values[0][0].weight, model.values[1][0].weight), "twins must differ"
    assert not torch.equal(rnd.g[0].weight, rnd.g_fixed[0].weight), "nothing to distil"
    target = agent.target_model.state_dict()
    assert all(torch.equal(value, target[name]) for name, value in model.state_dict().items())
    assert not any(p.requires_grad for p in agent.target_model.parameters())


# no latent
def test_latent_none_knows_of_no_z():
    """--latent none is a model without z by construction: the shapes are those of networks of (s) and (s, a) alone."""
    args = small_args(latent="none")
    model, policy, posterior = small_nets(args)
    width, state_dim, encoded = 8, 5, OBS + 2 * args.num_frequencies * OBJ

    def layers(name, in_dim, out_dim):
        pairs = ((0, width, in_dim), (2, width, width), (4, out_dim, width))
        return {
            f"{name}.{i}.{kind}": shape
            for i, rows, columns in pairs
            for kind, shape in (("weight", (rows, columns)), ("bias", (rows,)))
        }

    expected = layers("encoder.1", encoded, state_dim) | layers("action_encoder", ACT, width)
    expected |= layers("init_hidden", state_dim, width) | layers("state_head", width, state_dim)
    expected |= layers("reward_head", state_dim + width, 1)
    expected |= layers("values.0", state_dim, 1) | layers("values.1", state_dim, 1)
    expected |= {
        f"gru.{kind}_{side}": (3 * width, width)[: 2 if kind == "weight" else 1]
        for kind in ("weight", "bias")
        for side in ("ih", "hh")
    }
    assert {name: tuple(p.shape) for name, p in model.named_parameters()} == expected
    assert {name: tuple(p.shape) for name, p in policy.named_parameters()} == layers("net", state_dim, 2 * ACT)
    assert posterior is None
    prior = rpg.Prior(0, args)
    assert prior.sample(torch.zeros(3, 5)).shape == (3, 0) and not list(prior.parameters())
    assert rpg.Replay(30, 3, OBS, ACT, 0, CPU).data.shape == (10, 3, OBS + ACT + 4)


def test_latent_none_values_equal_a_z_free_rollout():
    """V_est and Eq. 4 run with a z of no dimensions, and V_est equals a roll-out in which no z occurs."""
    args = small_args(latent="none", gamma=0.9)
    model, policy, posterior = small_nets(args)
    s = torch.randn(3, 5, dtype=torch.float64)
    torch.manual_seed(7)
    v_est = rpg.value_estimate(model, policy, posterior, s, s[:, :0], 0.7, args, twins=2)[0].detach()
    torch.manual_seed(7)
    noise = torch.stack([torch.randn(3, ACT, dtype=torch.float64) for _ in range(3)]).numpy()
    for b in range(3):
        v_k = imagine(model, policy, None, s[b].numpy(), None, 0.7, args, noise[:, b])[3]
        np.testing.assert_allclose(v_est[:, b], [weighted_mean(v) for v in v_k], rtol=1e-9)
    batch = segments(3)
    assert small_agent(args).model_loss(batch._replace(z=batch.z[..., :0]))[0].item() > 0


# replay
NUM_ENVS, CAPACITY = 3, 50  # 16 rows: the capacity is no multiple of the environments
ROWS = CAPACITY // NUM_ENVS


def fill_replay(rows, lengths=(0, 1, 1, 2, 3, 5, 9, 30), seed=0):
    """A replay and the plain lists it should mirror: per environment, one dict a row, since the start of time. Every
    row has an id of its own. Episode of T steps: T rows with an action, then one row with `last` and nothing to use."""
    rng, replay, episodes = np.random.default_rng(seed), rpg.Replay(CAPACITY, NUM_ENVS, 2, 1, 2, CPU), 0
    assert replay.data.shape[:2] == (ROWS, NUM_ENVS) and replay.data.dtype == torch.float32
    stories = [[] for _ in range(NUM_ENVS)]
    for env, story in enumerate(stories):
        while len(story) < rows:
            length, episodes, terminates = int(rng.choice(lengths)), episodes + 1, int(rng.integers(2))
            for t in range(length + 1):
                last, number = t == length, NUM_ENVS * len(story) + env + 1
                story.append(
                    dict(
                        obs=[number, -number],
                        a=[-7e5 if last else number + 0.5],
                        z=[episodes, t],
                        t=t,
                        last=int(last),
                        reward=999 if last else number / 4,
                        terminated=int(terminates and t == length - 1),
                        row=len(story),
                    )
                )
        del story[rows:]
    for row in range(rows):
        now = [story[row] for story in stories]
        obs, a, z = (torch.tensor([x[key] for x in now], dtype=torch.float32) for key in ("obs", "a", "z"))
        numbers = (np.array([x[key] for x in now]) for key in ("reward", "terminated", "last", "t"))
        replay.add(obs, a, z, *numbers)
    return replay, stories


def find(number):
    """(environment, row since the start of time) of an id."""
    return (int(number) - 1) % NUM_ENVS, (int(number) - 1) // NUM_ENVS


FILLS = [5, ROWS - 1, ROWS, ROWS + 1, 2 * ROWS, 2 * ROWS + 7, 5 * ROWS + 3]


@pytest.mark.parametrize("rows", FILLS)
@pytest.mark.parametrize("horizon", [1, 3])
def test_replay_segments_equal_the_episodes(rows, horizon):
    """Every step that the mask keeps is a transition as it happened; no segment joins episodes or crosses the head."""
    replay, stories = fill_replay(rows)
    torch.manual_seed(0)
    obs, a, z, reward, terminated, mask = replay.sample_segments(2_000, horizon)
    shapes = [tuple(x.shape) for x in (obs, a, z, reward, terminated, mask)]
    flat = (horizon, 2_000)
    assert shapes == [(horizon + 1, 2_000, 2), (*flat, 1), (*flat, 2), flat, flat, flat]
    obs, a, z, reward, terminated, mask = (x.tolist() for x in (obs, a, z, reward, terminated, mask))
    for b in range(2_000):
        assert obs[0][b][0] > 0, "a row that was never written"
        env, row = find(obs[0][b][0])
        assert max(0, rows - ROWS) <= row and row + horizon < rows, "beyond the write head"
        story, alive = stories[env], 1
        for t in range(horizon):
            now, after = story[row + t], story[row + t + 1]
            alive = 0 if now["last"] else alive
            assert mask[t][b] == alive
            if alive:
                assert now["t"] + 1 == after["t"] and now["z"][0] == after["z"][0], "joins two episodes"
                assert z[t][b] == now["z"]
                assert obs[t][b] == now["obs"] and obs[t + 1][b] == after["obs"]
                assert a[t][b] == now["a"] and reward[t][b] == now["reward"]
                assert terminated[t][b] == now["terminated"]


@pytest.mark.parametrize("rows", FILLS)
def test_replay_draws_every_transition_equally_often(rows):
    """All that have `horizon` rows up to the write head, by chi-square; few draws miss the transitions."""
    replay, stories = fill_replay(rows)
    starts = [x for story in stories for x in story[max(0, rows - ROWS) : rows - 3]]
    counts = {x["obs"][0]: 0 for x in starts if not x["last"]}
    torch.manual_seed(0)
    obs, *_, mask = replay.sample_segments(400 * len(counts), 3)
    wasted = 1 - mask[0].mean().item()
    for number in obs[0, mask[0] == 1, 0].int().tolist():
        counts[number] += 1
    assert len(counts) > 2 and stats.chisquare(list(counts.values())).pvalue > 1e-3
    assert wasted == pytest.approx((1 - len(counts) / len(starts)) ** 4, abs=0.02), "four tries each"


@pytest.mark.parametrize("rows", FILLS)
@pytest.mark.parametrize("newest", [None, 1, 6, 25, 1000])
def test_replay_states_are_the_newest_rows_with_their_first_observation(rows, newest):
    """Uniform over the newest entries, in whole rows; s₁'s observation is the episode's first, or obs where the
    ring has forgotten it."""
    replay, stories = fill_replay(rows)
    kept = min(rows, ROWS, math.ceil((newest or 1000) / NUM_ENVS))
    counts = {x["obs"][0]: 0 for story in stories for x in story[rows - kept :]}
    torch.manual_seed(0)
    obs, z, start = (x.tolist() for x in replay.sample_states(150 * len(counts), newest))
    for b in range(len(obs)):
        env, row = find(obs[b][0])
        now = stories[env][row]
        first = stories[env][row - now["t"]] if row - now["t"] >= max(0, rows - ROWS) else now
        assert obs[b] == now["obs"] and z[b] == now["z"] and start[b] == first["obs"]
        counts[now["obs"][0]] += 1
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_replay_tests_meet_every_case():
    """The streams above hold forgotten and remembered starts, endings of both kinds, and empty episodes."""
    _, stories = fill_replay(5 * ROWS + 3)
    kept = [x for story in stories for x in story[-ROWS:]]
    assert {x["row"] - x["t"] >= 4 * ROWS + 3 for x in kept} == {True, False}
    assert any(x["last"] and x["t"] == 0 for story in stories for x in story)
    assert {(x["last"], x["terminated"]) for story in stories for x in story} == {(0, 0), (0, 1), (1, 0)}


def test_replay_mask_of_one_episode_by_hand():
    """Two transitions, then the final observation: every mask written out."""
    replay = rpg.Replay(18, 1, 1, 1, 0, CPU)
    for row, (last, t) in enumerate([(0, 0), (0, 1), (1, 2), (0, 0), (0, 1), (0, 2), (0, 3)]):
        obs = torch.tensor([[float(row)]])
        replay.add(obs, torch.zeros(1, 1), torch.zeros(1, 0), [1.0], [False], last=[last], t=[t])
    torch.manual_seed(0)
    obs, *_, mask = replay.sample_segments(500, 3)
    masks = {int(obs[0, b, 0]): mask[:, b].tolist() for b in range(500)}
    masks.pop(2, None)  # a row without an action: four tries that all met it
    assert masks == {0: [1, 1, 0], 1: [1, 0, 0], 3: [1, 1, 1]}


@pytest.mark.parametrize("rows", FILLS)
def test_replay_in_order_and_its_state(rows):
    """in_order: all rows, oldest first. A state holds the filled part alone, in the ring's own memory; a ring that goes
    on from it is the same ring."""
    replay, stories = fill_replay(rows)
    kept = [story[max(0, rows - ROWS) :] for story in stories]
    in_order = replay.in_order()
    for name, value in zip(rpg.Rows._fields, in_order):
        expected = np.array([[row[name] for row in story] for story in kept], np.float32).swapaxes(0, 1)
        assert np.array_equal(value.numpy(), expected), name

    state = replay.state_dict()
    assert state["data"].shape[0] == min(rows, ROWS) and state["data"].data_ptr() == replay.data.data_ptr()
    file = io.BytesIO()
    torch.save(state, file)
    assert file.tell() < state["data"].numel() * 4 + 3000, "the rest of the ring is in the file"
    file.seek(0)
    other = rpg.Replay(CAPACITY, NUM_ENVS, 2, 1, 2, CPU)
    other.load_state_dict(torch.load(file, weights_only=True))
    for _ in range(2):
        assert torch.equal(other.data, replay.data)
        assert torch.equal(other.head, replay.head) and torch.equal(other.filled, replay.filled)
        for ring in (replay, other):
            ring.end_episodes(torch.ones(NUM_ENVS, 2), torch.ones(NUM_ENVS, 2), np.ones(NUM_ENVS))
    for shape in ((NUM_ENVS + 1, 2), (1, 2), (NUM_ENVS, 3)):  # 16 rows of 3 have as many numbers as 12 of 4
        with pytest.raises(ValueError, match="a replay of shape"):
            rpg.Replay(CAPACITY, *shape, 1, 2, CPU).load_state_dict(state)
    with pytest.raises(ValueError, match="a replay of shape"):  # nor is one environment's spread over three
        other.load_state_dict(state | {"data": state["data"][:, :1]})
    larger = rpg.Replay(2 * CAPACITY, NUM_ENVS, 2, 1, 2, CPU)
    if replay.head != replay.filled:  # its oldest row is not the first
        with pytest.raises(ValueError, match="another capacity"):
            larger.load_state_dict(state)
    else:
        larger.load_state_dict(state)


def test_replay_ends_the_running_episodes():
    """As a time limit does: no transition goes on beyond that row, none is terminated, all before it stay."""
    replay = rpg.Replay(60, 2, 2, 1, 1, CPU)
    obs, z = torch.tensor([[1.0, 2], [3, 4]]), torch.tensor([[5.0], [6]])
    for t in range(3):
        replay.add(obs + 10 * t, torch.ones(2, 1), z, [1.0, 1], [False, False], [False, False], np.array([t, t + 7]))
    replay.end_episodes(obs + 30, z, np.array([3, 10]))
    rows = replay.in_order()
    assert rows.obs[3].tolist() == (obs + 30).tolist() and rows.z[3].tolist() == z.tolist()
    assert rows.a[3].tolist() == [[0], [0]] and rows.reward[3].tolist() == rows.terminated[3].tolist() == [0, 0]
    assert rows.last.tolist() == [[0, 0], [0, 0], [0, 0], [1, 1]] and rows.t[3].tolist() == [3, 10]
    for t in range(3):  # the next episodes
        replay.add(-obs - t, torch.ones(2, 1), -z, [2.0, 2], [False, False], [False, False], np.array([t, t]))
    torch.manual_seed(0)
    segments = replay.sample_segments(500, 2)
    ends, cut = segments.obs[0, :, 0] > 30, segments.obs[1, :, 0] > 30
    assert (segments.mask[0, ~ends] == 1).all() and (segments.mask[:, ends] == 0).all(), "no action was taken there"
    assert cut.any() and (segments.mask[1, cut] == 0).all()
    assert segments.terminated.count_nonzero() == 0


def test_replay_draws_odd_rows_of_a_huge_ring():
    """With 2²⁶ rows, random numbers of 24 bits would only ever reach every fourth row."""
    replay = rpg.Replay(4, 1, 1, 1, 0, CPU)
    replay.data = torch.zeros(2**26, 1, 0)
    replay.filled.fill_(2**26)
    row = replay.draw((4_000,), 1)[0]
    assert stats.chisquare(np.bincount(row.numpy() % 4, minlength=4)).pvalue > 1e-3
    assert row.min() >= 0 and row.max() < 2**26


# flags
BAD = [
    ({name: value}, set(), f"--{name.replace('_', '-')} ")
    for name, values in {
        "gamma": (0.0, -0.1, math.nan),
        "tau": (0.0, -1.0),
        "horizon": (0, -1),
        "batch_size": (0,),
        "num_envs": (0, -5),
        "learning_rate": (0.0, -1e-4, math.inf, math.nan),
        "hidden_dim": (0, -1),
        "state_dim": (0,),
        "latent_dim": (0, -2),
        "rnd_dim": (0,),
        "rnd_buffer_size": (0, -1),
        "rnd_coef": (-0.1, math.nan),
        "beta": (-0.1,),
        "alpha": (-1.0,),
        "posterior_std": (0.0,),
        "reward_scale": (0.0,),
        "policy_frequency": (0,),
        "target_network_frequency": (0,),
        "eval_frequency": (-1,),
        "eval_episodes": (0,),
        "checkpoint_frequency": (-1,),
        "seed": (-1, 2**63),
        "buffer_size": (0,),
        "num_frequencies": (-1,),
        "total_timesteps": (0, -1),
        "learning_starts": (0,),
        "max_grad_norm": (0.0, -1.0),
        "consistency_coef": (-1.0,),
        "reward_coef": (-1.0,),
        "value_coef": (-1.0,),
    }.items()
    for value in values
] + [
    ({"gamma": 1.01}, set(), "--gamma"),
    ({"tau": 1.01}, set(), "--tau"),
    ({"batch_size": 1001}, set(), "--learning-starts 1000"),
    ({"learning_starts": 24, "batch_size": 8}, set(), "25"),  # 5 environments * (3 + 2) rows
    ({"horizon": 199}, set(), "1005"),
    ({"buffer_size": 999}, set(), "--buffer-size 999 is below"),
    ({"learned_prior": True, "prior_decay_start": 10, "prior_decay_end": 10}, set(), "--prior-decay-end"),
    ({"latent": "none"}, {"latent", "latent_dim"}, "--latent-dim"),
    ({"latent": "none"}, {"latent", "beta"}, "--beta"),
    ({"latent": "none"}, {"posterior_std"}, "--posterior-std"),
    ({"latent": "none", "learned_prior": True}, {"learned_prior"}, "--learned-prior"),
    ({"latent": "categorical"}, {"posterior_std"}, "--posterior-std"),
    ({}, {"prior_decay_start"}, "--prior-decay-start"),
    ({}, {"prior_decay_end"}, "--prior-decay-end"),
    ({"rnd_coef": 0.0}, {"rnd_coef", "rnd_dim"}, "--rnd-dim"),
    ({"rnd_coef": 0.0, "rnd_buffer_size": 10}, {"rnd_buffer_size"}, "--rnd-buffer-size"),
    ({}, {"wandb_project_name"}, "--wandb-project-name"),
    ({}, {"wandb_entity"}, "--wandb-entity"),
    ({"eval_frequency": 0}, {"eval_episodes"}, "--eval-episodes"),
    ({"eval_frequency": 0, "capture_video": True}, {"capture_video"}, "--capture-video"),
]


@pytest.mark.parametrize("changes,given,word", BAD)
def test_check_args_refuses(changes, given, word, capsys, monkeypatch):
    """Impossible values and idle flags end with code 2 and one line that names the script and the flag."""
    monkeypatch.setattr("sys.argv", ["somewhere/rpg.py"])
    with pytest.raises(SystemExit) as exit_:
        rpg.check_args(rpg.Args(**changes), set(changes) | given)
    stdout, stderr = capsys.readouterr()
    assert exit_.value.code == 2 and stdout == ""
    assert stderr.startswith("rpg.py: error: ") and stderr.count("\n") == 1 and stderr.endswith("\n")
    assert word in stderr


GOOD = (
    [{}]
    + [
        {name: value}
        for name, value in dict(
            gamma=1.0,
            tau=1.0,
            batch_size=1000,
            buffer_size=1000,
            horizon=198,
            latent="none",
            rnd_coef=0.0,
            rnd_buffer_size=1,
            eval_frequency=0,
            checkpoint_frequency=0,
            num_frequencies=0,
            beta=0.0,
            consistency_coef=0.0,
            reward_coef=0.0,
            value_coef=0.0,
            autotune=False,
            compile=True,
            cuda=False,
        ).items()
    ]
    + [
        {"seed": 0},
        {"seed": 2**63 - 1},
        {"learning_starts": 25, "batch_size": 25},
        {"latent": "categorical", "latent_dim": 4, "beta": 0.01},
        {"learned_prior": True, "prior_decay_start": 0, "prior_decay_end": 1},
        {"resume": "runs/x", "total_timesteps": 0},
        {"resume": "runs/x", "eval_frequency": 0, "eval_episodes": 3},
        {"eval_episodes": 3, "capture_video": True},
    ]
)


@pytest.mark.parametrize("changes", GOOD)
def test_check_args_accepts(changes, capsys):
    """What is possible and of use is no error, at its bounds either."""
    rpg.check_args(rpg.Args(**changes), set(changes))
    assert capsys.readouterr() == ("", "")


def test_check_args_wants_wandb_for_track(monkeypatch, capsys):
    """--track names the package that it needs, and is fine where it is there."""
    monkeypatch.setattr(rpg, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        rpg.check_args(rpg.Args(track=True), {"track"})
    assert "pip install wandb" in capsys.readouterr().err
    monkeypatch.setattr(rpg, "find_spec", lambda name: name)
    rpg.check_args(rpg.Args(track=True, wandb_entity="us"), {"track", "wandb_entity"})


def test_a_new_number_may_be_anything_finite_unless_it_is_listed(monkeypatch, capsys):
    """A fork's own flags; of Args itself every number is listed, and nothing else is."""

    @dataclasses.dataclass
    class Fork(rpg.Args):
        offset: float = -1.5
        shift: int = 0

    rpg.check_args(Fork(), {"offset", "shift"})
    rpg.check_args(Fork(offset=0.0, shift=-3), {"offset", "shift"})
    with pytest.raises(SystemExit):
        rpg.check_args(Fork(offset=math.nan), {"offset"})
    assert "--offset nan: must be a finite number" in capsys.readouterr().err
    for listed, bad, words in (("POSITIVE", 0, "must be above 0"), ("NOT_NEGATIVE", -1, "must be at least 0")):
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            patch.setattr(rpg, listed, getattr(rpg, listed) | {"shift"})
            rpg.check_args(Fork(shift=bad), {"shift"})
        assert f"--shift {bad}: {words}" in capsys.readouterr().err
    numbers = {field.name for field in dataclasses.fields(rpg.Args) if type(field.default) in (int, float)}
    assert numbers | {"rnd_buffer_size"} == rpg.POSITIVE | rpg.NOT_NEGATIVE
    assert not rpg.POSITIVE & rpg.NOT_NEGATIVE
    assert {field.name for field in dataclasses.fields(rpg.Args)} >= rpg.CHANGEABLE

"""Contracts of envs.py. Meta-World's own step and evaluate_state are the reference for ours."""

import functools
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import envs  # noqa: E402
from envs import make_env, make_vector_env  # noqa: E402

METAWORLD_IDS = envs.metaworld_ids()

COUNTERS = '''
"""An environment that counts its steps: observation (step, last action), three steps an episode, then terminated."""
import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict


class Counter(gym.Env):
    def __init__(self, low=-1.0, high=1.0, as_dict=False, image=False, missing=False, render_mode=None):
        if missing:
            raise gym.error.DependencyNotInstalled("counting needs an abacus,\\nrun `pip install abacus`")
        self.action_space = Box(low, high, (1,), np.float64)
        one = Box(-10.0, 10.0, (1,), np.float64)
        self.observation_space = Box(-10.0, 10.0, (2,), np.float64)
        self.as_dict, self.render_mode = as_dict, render_mode
        if as_dict:
            self.observation_space = Dict(a=one, b=one)
        if image:
            self.observation_space = Box(0, 255, (4, 4, 3), np.uint8)

    def observe(self, action):
        parts = np.array([float(self.t)]), np.array([float(action)])
        return dict(zip("ab", parts)) if self.as_dict else np.concatenate(parts)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.observe(0.0), {}

    def step(self, action):
        self.t += 1
        return self.observe(action[0]), 1.0, self.t == 3, False, {}


class NoMode(Counter):
    def __init__(self):
        super().__init__()


class NoRender(Counter):
    metadata = {"render_modes": ["rgb_array"]}


gym.register("NoMode-v0", entry_point=NoMode)
gym.register("NoRender-v0", entry_point=NoRender)
for name, kwargs in {
    "Counter": {}, "Wide": dict(low=-2.0, high=3.0), "Dict": dict(as_dict=True), "Image": dict(image=True),
    "Unbounded": dict(low=-np.inf, high=np.inf), "Missing": dict(missing=True),
}.items():
    gym.register(f"{name}-v0", entry_point=Counter, kwargs=kwargs)
'''


@pytest.fixture
def counters(tmp_path, monkeypatch):
    """A module `counters` on the path, that registers the environments above."""
    (tmp_path / "counters.py").write_text(COUNTERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("counters", None)
    registered = {name: getattr(spec.entry_point, "__module__", None) for name, spec in gym.registry.items()}
    for name in [name for name, module in registered.items() if module == "counters"]:
        del gym.registry[name]


def python(code, **environment):
    """Run code in a fresh interpreter in the repository's root; its standard output."""
    env = {key: value for key, value in {**os.environ, **environment}.items() if value is not None}
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def trajectory(env_id, seed, decisions=30, **kwargs):
    """(decisions + 1, O) observations of an episode with random actions, both from `seed`."""
    env = make_env(env_id, seed, **kwargs)
    observations = [env.reset()[0]]
    for _ in range(decisions):
        observations.append(env.step(env.action_space.sample())[0])
    return np.array(observations)


# --- Meta-World


def package_env(env_id):
    """The package's environment, nothing stubbed, with the goal visible and the layout taken from _last_rand_vec."""
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    env = ALL_V3_ENVIRONMENTS[env_id.removeprefix("metaworld-") + "-v3"]()
    env._partially_observable, env._freeze_rand_vec, env._set_task_called = False, True, True
    env.__dict__.pop("sawyer_observation_space", None)
    return env


def policy(env_id):
    """The package's scripted policy for the raw 39 numbers, with noise; actions in [-1, 1]."""
    from metaworld.policies import ENV_POLICY_MAP

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = ENV_POLICY_MAP[env_id.removeprefix("metaworld-") + "-v3"]()

    def act(obs, noise=np.zeros(4)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # actions beyond [-1, 1]
            return np.clip(script.get_action(obs) + noise, -1.0, 1.0).astype(np.float32)

    return act


@functools.cache
def episode_beside_package(env_id):
    """One noisy scripted episode in our environment and in the package's: (our successes, the package's successes)."""
    env, package, act, rng = make_env(env_id, seed=3), package_env(env_id), policy(env_id), np.random.default_rng(0)
    obs, _ = env.reset()
    package._last_rand_vec = env.unwrapped.sim._last_rand_vec.copy()
    package.reset()
    raw = package.step(np.zeros(4))[0]
    assert env.observation_space.contains(obs) and obs.dtype == np.float32 and obs.shape == (46,)
    ours, theirs = [], []
    for decision in range(100):
        # The tolerance is float32's. Measured: the same bits in 49 tasks; stick-pull 1e-15 (its quaternion).
        np.testing.assert_allclose(obs[:39], 0.05 * raw, atol=1e-6, rtol=1e-6, err_msg=f"{env_id}, {decision}")
        action = act(raw, rng.normal(0.0, 0.1, 4))
        obs, reward, terminated, truncated, info = env.step(action)
        package.step(action.astype(np.float64))
        raw, _, _, _, package_info = package.step(action.astype(np.float64))
        assert env.observation_space.contains(obs) and np.isfinite(obs).all()
        assert reward in (0.0, 1.0) and reward == info["success"] and isinstance(info["success"], float)
        assert not terminated and truncated == (decision == 99)
        ours.append(reward)
        theirs.append(float(package_info["success"]))
    env.close()
    return ours, theirs


def test_stick_in_any_orientation():
    """Scripts keep the stick level; the sign of our quaternion must be the package's in every orientation."""
    import mujoco

    env, rng = make_env("metaworld-stick-pull", seed=1).unwrapped, np.random.default_rng(0)
    for _ in range(100):
        env.sim.data.qpos[12:16] = rng.normal(size=4)  # of the stick's free joint
        mujoco.mj_forward(env.sim.model, env.sim.data)
        np.testing.assert_allclose(env._observe()[4:], env.sim._get_curr_obs_combined_no_goal()[4:], atol=1e-12)


@pytest.mark.parametrize("env_id", ["metaworld-basketball", "metaworld-stick-pull"])
def test_success_at_its_thresholds(env_id):
    """Our few lines against the package's evaluate_state, in made-up states on both sides of every threshold."""
    env, rng, flags = make_env(env_id, seed=1).unwrapped, np.random.default_rng(0), []
    for _ in range(1000):
        obs = rng.normal(0.0, 0.1, 39)
        if env_id == "metaworld-basketball":
            obs[4:7] = np.array([*env.sim._target_pos[:2], 0.3]) + rng.normal(0.0, [0.05, 0.05, 0.03])
        else:
            obs[11:14] = env.sim._target_pos + rng.normal(0.0, 0.06, 3)
            env.sim.data.site("stick_end").xpos = obs[11:14] + rng.normal([0.03, 0.0, 0.0], [0.03, 0.03, 0.05])
        flags.append(env._success(obs, np.zeros(4)))
        assert flags[-1] == env.sim.evaluate_state(obs, np.zeros(4))[1]["success"]
    assert 0.2 < np.mean(flags) < 0.8


def test_all_tasks_are_there():
    assert len(METAWORLD_IDS) == 50 and {"metaworld-basketball", "metaworld-stick-pull"} < set(METAWORLD_IDS)


@pytest.mark.parametrize("env_id", METAWORLD_IDS)
def test_task_equals_the_packages(env_id):
    ours, theirs = episode_beside_package(env_id)
    assert ours == theirs


def test_scripts_succeed_in_most_tasks():
    """Without successes, the comparison above would compare nothing."""
    assert sum(any(episode_beside_package(env_id)[0]) for env_id in METAWORLD_IDS) >= 35


@pytest.mark.parametrize("env_id", METAWORLD_IDS)
def test_episode_depends_on_its_seed_only(env_id):
    env = make_env(env_id, seed=3)
    assert env.unwrapped.object_dim == 7
    first, second = env.reset()[0], env.reset()[0]
    assert np.abs(first - second).max() > 1e-4  # a new layout
    for _ in range(20):
        env.step(env.action_space.sample())
    fresh = make_env(env_id, seed=4)
    again = env.reset(seed=8)[0]
    np.testing.assert_array_equal(again, fresh.reset(seed=8)[0])  # whatever came before
    assert np.abs(again - first).max() > 1e-4
    action = np.array([0.3, -0.5, -1.0, 1.0], np.float32)
    np.testing.assert_array_equal(env.step(action)[0], fresh.step(action)[0])


@pytest.mark.parametrize("env_id", ["metaworld-stick-pull", "metaworld-box-close"])
def test_gymnasium_accepts(env_id):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # infinite bounds, no spec
        check_env(make_env(env_id, seed=1).unwrapped, skip_render_check=True)


@pytest.mark.parametrize("env_id", ["metaworld-basketball", "metaworld-stick-pull"])
def test_official_coordinates(env_id):
    """The seven numbers of the official code, here from the package's own accessors."""
    env = make_env(env_id, seed=5)
    sim = env.unwrapped.sim
    for _ in range(10):
        obs = env.step(env.action_space.sample())[0].astype(np.float64)
        object1, object2, fingers = obs[4:7] / 0.05, obs[11:14] / 0.05, sim.tcp_center
        vectors = {
            "metaworld-basketball": [fingers - object1, object1],
            "metaworld-stick-pull": [object1 - object2, object1 - fingers],
        }[env_id]
        x = np.concatenate(vectors) / 0.4
        np.testing.assert_allclose(obs[39:45], np.sign(x) * np.log(1.0 + np.abs(x)), atol=1e-5)
        assert obs[45] == pytest.approx(obs[3] / 0.05, abs=1e-5) and 0.0 < obs[45] <= 1.0


def test_coordinates_of_other_tasks():
    """object to fingers, then object to goal or, where there is one, to the second object; reach has no object."""
    for env_id, pair in {"push": "goal", "hammer": "object2", "reach": "reach"}.items():
        env = make_env(f"metaworld-{env_id}", seed=5)
        obs = env.reset()[0].astype(np.float64)
        raw, fingers = obs[:39] / 0.05, env.unwrapped.sim.tcp_center
        vectors = {
            "goal": [fingers - raw[4:7], raw[4:7] - raw[36:39]],
            "object2": [fingers - raw[4:7], raw[4:7] - raw[11:14]],
            "reach": [fingers - raw[36:39], raw[36:39]],
        }[pair]
        x = np.concatenate(vectors) / 0.4
        np.testing.assert_allclose(obs[39:45], np.sign(x) * np.log(1.0 + np.abs(x)), atol=1e-5)


def test_script_solves_basketball_through_make_env():
    """Measured: 98 % of the episodes at some decision, 90 % at the last one."""
    env, act = make_env("metaworld-basketball", seed=1), policy("metaworld-basketball")
    any_success, final_success = 0, 0
    for _ in range(20):
        obs, successes = env.reset()[0], []
        truncated = False
        while not truncated:
            obs, _, _, truncated, info = env.step(act(obs[:39].astype(np.float64) / 0.05))
            successes.append(info["success"])
        assert len(successes) == 100
        any_success += max(successes)
        final_success += successes[-1]
    assert any_success >= 16 and final_success >= 13


def test_fixed_ball():
    def starts(options):
        env = make_env("metaworld-basketball", seed=1, options=options)
        return np.array([env.reset()[0][:39] / 0.05 for _ in range(6)])

    fixed, free = starts(("fixed-ball",)), starts(())
    np.testing.assert_allclose(fixed[:, 4:7], np.tile([0.0, 0.6, 0.03], (6, 1)), atol=2e-3)
    assert np.ptp(fixed[:, 36]) > 0.02  # the basket stays random
    assert np.ptp(free[:, 4]) > 0.02 and np.ptp(free[:, 5]) > 0.02


@pytest.mark.parametrize("env_id", ["metaworld-basketball", "metaworld-stick-pull"])
def test_decision_costs_little_more_than_the_simulator(env_id):
    """Measured: 1.3 to 1.7 times the ten mj_step calls; the standard is 2. The best of 8 rounds counts, or of up
    to 100 where other processes disturb them."""
    import mujoco

    env = make_env(env_id, seed=1)
    sim, actions = env.unwrapped.sim, np.random.default_rng(0).uniform(-1.0, 1.0, (50, 4)).astype(np.float32)

    def decisions():
        for action in actions:
            env.step(action)

    def simulator():
        for action in actions:
            for _ in range(2):
                position = sim.data.mocap_pos[0] + 0.01 * action[:3]
                sim.data.mocap_pos[0] = np.minimum(np.maximum(position, sim.mocap_low), sim.mocap_high)
                sim.data.ctrl[:] = action[3], -action[3]
                mujoco.mj_step(sim.model, sim.data, nstep=5)

    best = {}
    for rounds in range(1, 101):
        for work in (decisions, simulator):
            env.reset(seed=2)
            start = time.process_time()
            work()
            best[work] = min(best.get(work, np.inf), time.process_time() - start)
        if rounds >= 8 and best[decisions] < 2.5 * best[simulator]:
            break
    assert best[decisions] < 2.5 * best[simulator]


def test_imports_are_light():
    """A user of another environment waits for neither torch nor Meta-World; Meta-World's brings no torch either."""
    heavy = "print([name for name in ('torch', 'metaworld', 'mujoco') if name in sys.modules])"
    assert python(f"import sys, envs; envs.make_env('Pendulum-v1'); {heavy}").strip() == "[]"
    made = python(f"import sys, envs; envs.make_env('metaworld-reach'); {heavy}")
    assert made.strip() == "['metaworld', 'mujoco']"


# --- rendering


def test_frames_are_upright_and_move(opengl):
    env = make_env("metaworld-plate-slide", seed=1, render_mode="rgb_array")
    env.reset()
    frame = env.render()
    assert frame.shape == (320, 320, 3) and frame.dtype == np.uint8 and frame.std() > 20
    brown = frame[:, :, 0].astype(float) - frame[:, :, 2]  # the table below is wood, the wall above is grey
    assert brown[200:280, 100:200].mean() > 15 and abs(brown[5:60, 240:315].mean()) < 10
    for _ in range(10):
        env.step(np.array([0.0, 0.0, 1.0, 0.0], np.float32))
    later = env.render()
    assert (np.abs(later.astype(int) - frame) > 30).mean() > 0.005
    rows = [np.nonzero((image[:, :, 2] > 180) & (image[:, :, 0] < 100))[0].mean() for image in (frame, later)]
    assert rows[1] < rows[0] - 5  # the hand went up, and so did its cyan finger in the picture
    env.close()
    assert make_env("metaworld-plate-slide").render() is None


def test_no_renderer_is_one_line():
    """GLFW without a display cannot draw; everything else works."""
    code = (
        "import envs; envs.make_env('{0}')\n"
        "try: envs.make_env('{0}', render_mode='rgb_array')\n"
        "except ValueError as error: print(error)"
    )
    for env_id in ("metaworld-reach", "HalfCheetah-v5"):
        lines = python(code.format(env_id), MUJOCO_GL="glfw", DISPLAY=None, WAYLAND_DISPLAY=None).splitlines()
        assert len(lines) == 1 and "apt install libegl1" in lines[0] and "MUJOCO_GL=osmesa" in lines[0]


@pytest.mark.parametrize(
    "env_id, mode, words",
    [
        ("counters:NoMode-v0", "rgb_array", "its class takes no render_mode"),  # README.md's own example is one
        ("counters:Counter-v0", "rgb_array", "its metadata names no render mode 'rgb_array'"),
        ("counters:NoRender-v0", "rgb_array", "its class has no render()"),
        ("Pendulum-v1", "human", "render_mode 'human'"),  # without a display GLFW would end the process
        ("block-push", "depth_array", "render_mode 'depth_array'"),
    ],
)
def test_what_cannot_be_rendered_is_one_line(counters, env_id, mode, words):
    with pytest.raises(ValueError) as caught, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make_env(env_id, render_mode=mode)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    make_env(env_id)


# --- any Gymnasium id


@pytest.mark.parametrize(
    "env_id, action_dim, length", [("HalfCheetah-v5", 6, 1000), ("Pendulum-v1", 1, 200), ("Humanoid-v5", 17, None)]
)
def test_gymnasium_ids(env_id, action_dim, length):
    env = make_env(env_id, seed=1)
    assert env.action_space == gym.spaces.Box(-1.0, 1.0, (action_dim,), np.float32)
    obs, steps, done = env.reset()[0], 0, False
    while not done:
        assert obs.dtype == np.float32 and env.observation_space.contains(obs)
        obs, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        done = terminated or truncated
        steps += 1
    assert truncated and steps == length if length else terminated and steps < 1000  # a random humanoid falls
    np.testing.assert_array_equal(trajectory(env_id, 5), trajectory(env_id, 5))
    assert not np.array_equal(trajectory(env_id, 5), trajectory(env_id, 6))


def test_actions_are_rescaled(counters):
    ours, theirs = make_env("Pendulum-v1"), gym.make("Pendulum-v1")
    np.testing.assert_allclose(ours.reset(seed=3)[0], theirs.reset(seed=3)[0])
    for action in np.linspace(-1.0, 1.0, 9, dtype=np.float32)[:, None]:
        ours_step, theirs_step = ours.step(action), theirs.step(2.0 * action)
        np.testing.assert_allclose(ours_step[0], theirs_step[0], rtol=1e-6)
        assert ours_step[1] == pytest.approx(theirs_step[1])
    env = make_env("counters:Wide-v0")  # [-2, 3], float64
    assert (env.action_space.low, env.action_space.high) == (-1.0, 1.0)
    for action, expected in ((-1.0, -2.0), (0.0, 0.5), (1.0, 3.0)):
        env.reset()
        assert env.step(np.array([action], np.float32))[0][1] == pytest.approx(expected)


def test_module_id_and_dict_observations(counters):
    env = make_env("counters:Dict-v0")
    assert env.observation_space.shape == (2,) and env.observation_space.dtype == np.float32
    env.reset()
    obs, reward, terminated, truncated, _ = env.step(np.array([0.5], np.float32))
    assert obs.dtype == np.float32 and obs.tolist() == [1.0, 0.5]
    assert (reward, terminated, truncated) == (1.0, False, False)


# --- what a user gets wrong


@pytest.mark.parametrize(
    "env_id, words",
    [
        ("metaworld-baskitball", ["'metaworld-baskitball'", "metaworld-basketball"]),
        ("halfcheetah-v5", ["'halfcheetah-v5'", "HalfCheetah-v5"]),
        ("basketball", ["metaworld-basketball"]),
        ("adroit-dor", ["nearest known: adroit-door"]),
        ("ant-pusch", ["nearest known: ant-push"]),
        ("mase", ["nearest known: maze"]),
        ("HalfCheetah-v99", ["HalfCheetah-v5"]),
        ("two words", ["'two words'", "Malformed"]),
        ("a:b:c", ["'a:b:c'"]),
        ("no_such_module:Some-v0", ["'no_such_module'"]),
        ("HalfCheetah-v3", ["'HalfCheetah-v3' cannot be made"]),
        ("CartPole-v1", ["CartPole-v1 has discrete actions", "Pendulum-v1"]),
        ("counters:Unbounded-v0", ["action space Box(-inf, inf, (1,), float64)"]),
        ("counters:Image-v0", ["observation space Box(0, 255, (4, 4, 3), uint8)"]),
        ("counters:Missing-v0", ["pip install abacus"]),
    ],
)
def test_bad_ids_are_one_line(counters, env_id, words):
    with pytest.raises(ValueError) as caught, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make_env(env_id)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "env_id, option, known",
    [
        ("metaworld-basketball", "fixed-bal", "fixed-ball"),
        ("metaworld-reach", "fixed-ball", "no options"),
        ("adroit-pen", "strict", "no options"),
        ("Pendulum-v1", "fixed-ball", "no options"),
    ],
)
def test_unknown_options_name_the_known(env_id, option, known):
    with pytest.raises(ValueError, match=f"^{env_id} has no option '{option}'.*{known}"):
        make_env(env_id, options=(option,))


def test_without_metaworld(monkeypatch):
    monkeypatch.setitem(sys.modules, "metaworld.env_dict", None)  # what an import of it then raises is ImportError
    with pytest.raises(ValueError, match="^metaworld-reach needs Meta-World: pip install metaworld"):
        make_env("metaworld-reach")
    with pytest.raises(ValueError, match="HalfCheetah-v5"):
        make_env("halfcheetah-v5")


def test_other_errors_are_not_swallowed(monkeypatch):
    for error in (AttributeError("'Foo' object has no attribute 'glow'"), TypeError("a bug")):
        monkeypatch.setattr(envs, "make_gymnasium", lambda *_, error=error: (_ for _ in ()).throw(error))
        with pytest.raises(type(error)):
            make_env("Pendulum-v1")


# --- several environments


def test_next_step_autoreset(counters):
    """The row after an episode's end is the next episode's first observation: its action is ignored, its reward 0."""
    vector = make_vector_env("counters:Counter-v0", 2, seed=1)
    assert vector.metadata["autoreset_mode"] == gym.vector.AutoresetMode.NEXT_STEP
    vector.reset(seed=1)
    rows = []
    for _ in range(5):
        obs, rewards, terminations, truncations, _ = vector.step(np.full((2, 1), 0.5, np.float32))
        assert not truncations.any() and (obs[0] == obs[1]).all()
        rows.append((*obs[0].tolist(), rewards[0], terminations[0]))
    assert rows == [(1, 0.5, 1, False), (2, 0.5, 1, False), (3, 0.5, 1, True), (0, 0, 0, False), (1, 0.5, 1, False)]
    vector.close()


def test_worker_processes_give_the_same_trajectory():
    sync, workers = (make_vector_env("metaworld-basketball", 2, 5, async_envs=flag) for flag in (False, True))
    first = sync.reset(seed=11)[0]
    np.testing.assert_array_equal(first, workers.reset(seed=11)[0])
    singles = [make_env("metaworld-basketball").reset(seed=11 + i)[0] for i in range(2)]
    np.testing.assert_array_equal(first, np.array(singles))  # sub-environment i has seed + i
    rng, ends = np.random.default_rng(0), []
    for step in range(104):  # over an episode's end
        actions = rng.uniform(-1.0, 1.0, (2, 4)).astype(np.float32)
        a, b = sync.step(actions), workers.step(actions)
        for x, y in zip(a[:4], b[:4]):
            np.testing.assert_array_equal(x, y)
        assert not a[2].any()
        if a[3].any():
            ends.append(step)
    assert ends == [99]
    sync.close(), workers.close()


def test_vector_envs_are_seeded_at_construction():
    a, b, c = (make_vector_env("metaworld-reach", 2, seed).reset()[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a[0], a[1]) and not np.array_equal(a, c)
    np.testing.assert_array_equal(a[1], c[0])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_workers_do_not_outlive_a_killed_parent():
    code = (
        "import envs, time\n"
        "vector = envs.make_vector_env('Pendulum-v1', 2, 1, async_envs=True)\n"
        "print(*[p.pid for p in vector.processes], flush=True); time.sleep(60)"
    )
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, **pipes)
    workers = [int(pid) for pid in parent.stdout.readline().split()]

    def alive(pid):
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except FileNotFoundError:
            return False

    assert len(workers) == 2 and all(map(alive, workers))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 10.0
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, workers))

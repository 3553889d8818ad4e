"""Contracts of envs.py. Meta-World's own step and evaluate_state are the reference for ours."""

import contextlib
import functools
import os
import random
import signal
import subprocess
import sys
import time
import tracemalloc
import warnings
import weakref
from pathlib import Path

import gymnasium as gym
import imageio.v2 as imageio
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

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
    (tmp_path / "broken_import.py").write_text("import no_such_package")
    (tmp_path / "broken_syntax.py").write_text("import (")
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

    def act(obs, noise=0.0):
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
        obs, reward, terminated, truncated, _ = env.step(action)
        package.step(action.astype(np.float64))
        raw, _, _, _, package_info = package.step(action.astype(np.float64))
        assert env.observation_space.contains(obs) and np.isfinite(obs).all()
        assert reward in (0.0, 1.0) and reward == env.success and isinstance(env.success, float)
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
            obs, _, _, truncated, _ = env.step(act(obs[:39].astype(np.float64) / 0.05))
            successes.append(env.success)
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


# --- environments as users write them: toy_envs.py


def rollout(env, steps=45):
    """Observations, rewards, summaries of an environment or a vector of them, with fixed actions; resets at ends."""
    rng, rows, summaries = np.random.default_rng(0), [], []
    vector = isinstance(env, gym.vector.VectorEnv)
    rows.append(env.reset(seed=envs.derive_seeds(env.num_envs, 5) if vector else 5)[0])
    for _ in range(steps):
        obs, _, terminated, truncated, info = env.step(rng.uniform(-1, 1, env.action_space.shape).astype(np.float32))
        assert obs.dtype == env.observation_space.dtype and obs.shape == env.observation_space.shape
        rows.append(obs)
        over = np.any(terminated) or np.any(truncated)
        assert set(info) - {f"_{envs.SUMMARY_KEY}"} == ({envs.SUMMARY_KEY} if over else set())
        if over:
            summaries.append(np.array(info[envs.SUMMARY_KEY]))
            if not vector:
                env.reset()
    env.close()
    return np.array(rows), np.array(summaries)


@pytest.mark.parametrize(
    "name, size",
    [("Float64", 2), ("List", 2), ("Float64Space", 2), ("Integers", 2), ("Scalar", 1), ("Matrix", 4), ("Dict", 11)],
)
def test_observations_are_one_float32_vector(name, size):
    """Cast and flattened in one place: alone, in a vector, and in worker processes."""
    env = make_env(f"toy_envs:Toy{name}-v0", 5)
    assert env.observation_space.shape == (size,) and env.observation_space.dtype == np.float32
    rows, _ = rollout(env)
    assert envs.state_sizes(env) == (size, 0, 1)
    assert np.ptp(rows, 0).max() > 0.2
    inside = make_vector_env(f"toy_envs:Toy{name}-v0", 2, 5)
    np.testing.assert_array_equal(rollout(inside)[0], rollout(make_vector_env(f"toy_envs:Toy{name}-v0", 2, 5))[0])


def test_flattening_keeps_every_entry():
    env = make_env("toy_envs:ToyDict-v0", 5)
    obs = env.reset(seed=5)[0]
    x, goal = env.unwrapped.x, np.float32(env.unwrapped.goal)
    np.testing.assert_array_equal(obs, np.float32([x, goal, goal, goal, goal, 1, 0, 0, 0, 1, x]))
    matrix = make_env("toy_envs:ToyMatrix-v0", 5).reset(seed=5)[0]
    np.testing.assert_allclose(matrix, [0, 0, goal, 2 * goal], rtol=1e-6)


@pytest.mark.parametrize(
    "name, words",
    [
        ("Row", "an observation has the shape (1, 2), its space declares (2,)"),
        ("Longer", "an observation has the shape (3,), its space declares (2,)"),
        ("DictImage", "without images"),
        ("Text", "RPG needs numbers"),
    ],
)
def test_observations_that_will_not_do_are_one_line(name, words):
    with pytest.raises(ValueError) as caught:
        make_env(f"toy_envs:Toy{name}-v0")
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name, shape", [("Image", (8, 8, 3)), ("Grey", (8, 8))])
def test_images_stay_images(name, shape):
    env = make_env(f"toy_envs:Toy{name}-v0")
    assert env.observation_space.shape == shape and env.reset()[0].dtype == np.uint8
    with pytest.raises(ValueError, match="seen as an image"):
        envs.state_sizes(env)


@pytest.mark.parametrize("name", ["Big", "Negative", "Half", "None", "True"])
def test_object_dim_is_checked(name):
    with pytest.raises(ValueError, match="object_dim.* from 0 to the 2 entries"):
        envs.state_sizes(make_env(f"toy_envs:ToyObject{name}-v0"))
    assert envs.state_sizes(make_env("toy_envs:ToyObjectAll-v0")) == (2, 2, 1)


def test_fixed_actions_are_kept():
    """low == high; the others are rescaled, and never beyond their bounds by rounding."""
    env = make_env("toy_envs:ToyFixed-v0")
    assert env.action_space == gym.spaces.Box(-1.0, 1.0, (3,), np.float64)
    env.reset()
    for action in ([1, 1, 1], [-1, -1, -1], [0, 0.25, 0.7]):
        env.step(np.array(action, np.float32))
        np.testing.assert_array_equal(env.unwrapped.last_action, [-0.3, 2.0 * action[1], 0.0])
    rng = np.random.default_rng(0)
    low = rng.uniform(-3, 3, 1000).astype(np.float32)
    space = gym.spaces.Box(low, low + rng.uniform(0.001, 3, 1000).astype(np.float32))

    class Wide(gym.Env):
        action_space = space

        def step(self, action):
            assert space.contains(action)
            return action, 0.0, False, False, {}

    wide = envs.with_unit_actions(Wide(), "wide")
    for sign in (-1.0, 1.0):
        reached = wide.step(np.full(1000, sign, np.float32))[0]
        np.testing.assert_allclose(reached, space.low if sign < 0 else space.high, atol=1e-5)


@pytest.mark.parametrize("name", ["OwnSummary", "InfoChanges", "InfoNested", "InfoLock", "SuccessNone", "IsSuccess"])
def test_infos_do_no_harm(name):
    """Whatever an environment tells, alone, in a vector and in worker processes: only our summary leaves."""
    plain, summaries = rollout(make_env("toy_envs:Toy-v0", 5))
    rows, ours = rollout(make_env(f"toy_envs:Toy{name}-v0", 5))
    np.testing.assert_array_equal(rows, plain)
    np.testing.assert_array_equal(ours[:, :2], summaries[:, :2])
    sync = rollout(make_vector_env(f"toy_envs:Toy{name}-v0", 2, 5))
    workers = rollout(make_vector_env(f"toy_envs:Toy{name}-v0", 2, 5, async_envs=True))
    for a, b in zip(sync, workers):
        np.testing.assert_array_equal(a, b)
    assert sync[1].shape == (2, 2, 4)


def test_rewards_in_other_forms():
    for make in (make_env, functools.partial(make_vector_env, num_envs=2, seed=5)):
        odd, plain = make("toy_envs:ToyRewardArray-v0"), make("toy_envs:Toy-v0")
        for a, b in zip(rollout(odd), rollout(plain)):
            np.testing.assert_array_equal(a, b)
    env = make_env("toy_envs:ToyRewardArray-v0")
    env.reset()
    assert [type(value) for value in env.step(np.zeros(1))[1:4]] == [float, bool, bool]


@pytest.mark.parametrize("name", ["SuccessArray", "SuccessArrays", "SuccessBool", "IsSuccess"])
def test_success_in_other_forms(name):
    np.testing.assert_array_equal(
        rollout(make_env(f"toy_envs:Toy{name}-v0"))[1], rollout(make_env("toy_envs:Toy-v0"))[1]
    )


@pytest.mark.parametrize(
    "info, success",
    [
        ({"success": 1.0}, 1.0),
        ({"success": True}, 1.0),
        ({"success": 0}, 0.0),
        ({"success": np.bool_(True)}, 1.0),
        ({"success": np.array([[0.0]])}, 0.0),
        ({"success": [True, False]}, 0.0),
        ({"success": np.array([1.0, 1.0])}, 1.0),
        ({"success": None, "is_success": True}, 1.0),
        ({"success": False, "is_success": True}, 0.0),
        ({"is_success": 1}, 1.0),
        ({"success": None}, np.nan),
        ({"success": np.array([])}, np.nan),
        ({"success": [1.0, np.nan]}, np.nan),
        ({"success": "yes"}, np.nan),
        ({"success": {"agent": True}}, np.nan),
        ({}, np.nan),
    ],
)
def test_success_of(info, success):
    np.testing.assert_equal(envs.success_of(info), success)


class Named(gym.Env):
    """Every fifth episode of three decisions is one of success, which info names there alone."""

    observation_space = gym.spaces.Box(-1, 1, (1,))
    action_space = gym.spaces.Box(-1, 1, (1,))

    def __init__(self):
        self.episode = -1

    def reset(self, **kwargs):
        self.episode += 1
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        info = {"is_success": True} if self.episode % 5 == 2 and self.steps == 2 else {}
        return np.zeros(1, np.float32), 0.0, False, self.steps == 3, info


def test_success_that_is_named_only_where_it_happens():
    """It is unknown before it is first named, then 0 where it is not; a mean over both counts what is unknown as 0."""
    env, summaries = envs.Standard(Named()), []
    for _ in range(10):
        env.reset()
        info = {}
        while not info:
            *_, info = env.step(np.zeros(1))
        summaries.append(info[envs.SUMMARY_KEY].tolist())
    final, some = np.transpose(summaries)[2:]
    np.testing.assert_equal(final, [np.nan, np.nan, *[0] * 8])
    np.testing.assert_equal(some, [np.nan, np.nan, 1, *[0] * 4, 1, 0, 0])
    assert envs.average(summaries) == {
        "episodic_return": 0, "episodic_length": 3, "success_final": 0, "success_any": 0.2
    }  # fmt: skip
    assert set(envs.average(summaries[:2])) == {"episodic_return", "episodic_length"} and envs.average([]) == {}


def test_derived_seeds():
    """Below 2**31, prefix-stable, and the paths of neighbouring seeds and steps have none in common."""
    paths = [(seed, step) for seed in range(6) for step in range(0, 300_000, 25_000)] + [(seed,) for seed in range(6)]
    seeds = [envs.derive_seeds(10, *path) for path in paths]
    few, many = envs.derive_seeds(4, 3, 1000), envs.derive_seeds(10, 3, 1000)
    assert few == many[:4] and envs.derive_seeds(0, 3) == []
    flat = [seed for row in seeds for seed in row]
    assert len(set(flat)) == len(flat) and min(flat) >= 0 and max(flat) < 2**31 and type(flat[0]) is int
    assert envs.derive_seeds(2, 2**40, 5) != envs.derive_seeds(2, 0, 5)
    make_vector_env("toy_envs:ToySeed32-v0", 3, 2**31 - 1).close()


@pytest.mark.parametrize("async_envs", [False, True])
def test_global_generators_are_seeded(async_envs):
    """Environments that draw from `random`, `np.random` and their spaces repeat, whatever was drawn before."""
    runs = []
    for other in (1, 2):
        random.seed(other)
        np.random.seed(other)
        vector = make_vector_env("toy_envs:ToyGlobalRandom-v0", 2, 5, async_envs)
        first = vector.reset()[0]
        random.random()
        np.random.random()
        runs.append((first, rollout(vector)[0]))
    for a, b in zip(*runs):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(runs[0][1][0, 0], runs[0][1][0, 1])  # two environments differ


def test_own_rng():
    env = make_env("toy_envs:ToyGlobalRandom-v0", 3)

    def draws():
        return random.random(), np.random.random(), np.random.normal()

    random.seed(4)
    np.random.seed(4)
    np.random.normal()  # the second of a pair is kept for the next call: part of the state
    expected = draws()
    random.seed(4)
    np.random.seed(4)
    np.random.normal()
    with pytest.raises(KeyError), envs.own_rng():
        env.reset(seed=7)
        env.step(np.zeros(1))
        raise KeyError
    assert draws() == expected


def test_env_kwargs():
    words = ["a=0.5", "b=None", "c=(1, 2)", "d=word", "e=x=y", "f=", "g=true", "h=False", "i='1'", "j={[]: 1}", "k=-3"]
    assert envs.parse_env_kwargs(words) == {
        "a": 0.5, "b": None, "c": (1, 2), "d": "word", "e": "x=y", "f": "", "g": True, "h": False, "i": "1",
        "j": "{[]: 1}", "k": -3,
    }  # fmt: skip
    for word in ("a", "=1", "a b=1", ""):
        with pytest.raises(ValueError, match="key=value"):
            envs.parse_env_kwargs([word])
    with pytest.raises(ValueError, match="a is given twice"):
        envs.parse_env_kwargs(["a=1", "b=1", "a=2"])
    rows = {}
    for scale in (0.5, 1.0):
        kwargs = {"scale": scale, "max_episode_steps": 7}
        rows[scale], summaries = rollout(make_env("toy_envs:ToyNoPictures-v0", env_kwargs=kwargs))
        assert (summaries[:, 1] == 7).all()
        for async_envs in (False, True):
            vector = make_vector_env("toy_envs:ToyNoPictures-v0", 1, 5, async_envs, env_kwargs=kwargs)
            assert (rollout(vector)[1][..., 1] == 7).all()
    np.testing.assert_allclose(rows[0.5][1, 0], 0.5 * rows[1.0][1, 0], rtol=1e-6)
    for env_id, kwargs, words in (
        ("toy_envs:ToyNoPictures-v0", {"size": 3}, "unexpected keyword argument 'size'"),
        ("toy_envs:Toy-v0", {"render_mode": "human"}, "--capture-video"),
        ("toy_envs:Toy-v0", {"id": 1}, "cannot be made"),
        ("block-push", {"n": 3}, "takes no --env-kwargs"),
        ("metaworld-reach", {"n": 3}, "takes no --env-kwargs"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            make_env(env_id, env_kwargs=kwargs)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="takes no --env-kwargs"):
        make_vector_env("maze", 2, 1, env_kwargs={"n": 3})


def test_franka_kitchen():
    """A Dict of Dicts in float64."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = make_env("gymnasium_robotics:FrankaKitchen-v1", 1)
    obs = env.reset(seed=1)[0]
    assert obs.dtype == np.float32 and env.observation_space.contains(obs) and envs.state_sizes(env) == (93, 0, 9)
    np.testing.assert_array_equal(obs, env.reset(seed=1)[0])
    env.step(env.action_space.sample())


def test_dm_control():
    """State-based tasks of dm_control, by Shimmy: Dicts with scalars."""
    pytest.importorskip("dm_control")
    pytest.importorskip("shimmy")
    for env_id in ("dm_control/cartpole-balance-v0", "dm_control/reacher-easy-v0", "dm_control/hopper-stand-v0"):
        rows, _ = rollout(make_env(f"shimmy:{env_id}", 1), 10)
        assert rows.dtype == np.float32 and rows.ndim == 2 and np.isfinite(rows).all()


# --- films


def film_of(path):
    """Frames (n, height, width, 3), and what ffmpeg says of the file."""
    with imageio.get_reader(path) as reader:
        frames = [frame for frame in reader]  # list() would ask for its length, which is infinite
        return np.array(frames), reader.get_meta_data()


def played(env_id, path, steps=20):
    """The path of a film of an episode, written as a script does."""
    env = make_env(env_id, 1, "rgb_array")
    video = envs.Video(path, env.metadata.get("render_fps"))
    for _ in range(steps):
        env.step(env.action_space.sample())
        video.draw(env)
    video.close()
    return video


def test_a_film_shows_what_was_drawn(tmp_path, capsys):
    video = played("toy_envs:Toy-v0", tmp_path / "a" / "b" / "film.mp4")
    frames, data = film_of(video.path)
    assert frames.shape == (20, 32, 64, 3) and (data["codec"], data["fps"]) == ("h264", 20.0)
    assert data["pix_fmt"].startswith("yuv420p")  # what browsers play
    assert os.listdir(tmp_path / "a" / "b") == ["film.mp4"] and capsys.readouterr().err == ""
    env = make_env("toy_envs:Toy-v0", 1, "rgb_array")
    drawn = []
    for _ in range(20):
        env.step(env.action_space.sample())
        drawn.append(env.render())
    assert np.abs(frames.astype(int) - drawn).mean() < 8  # an encoder's loss


@pytest.mark.parametrize(
    "name, shape",
    [
        ("Float", (20, 32, 64, 3)),
        ("Grey", (20, 32, 64, 3)),
        ("Channel", (20, 32, 64, 3)),
        ("RGBA", (20, 32, 64, 3)),
        ("Buffer", (20, 32, 64, 3)),
        ("Sizes", (20, 30, 64, 3)),
        ("None", (10, 32, 64, 3)),
    ],
)
def test_odd_frames(tmp_path, capsys, name, shape):
    frames, _ = film_of(played(f"toy_envs:ToyFrame{name}-v0", tmp_path / "film.mp4").path)
    assert frames.shape == shape and capsys.readouterr().err == ""
    assert frames.max() > 150 and np.ptp(frames, 0).max() > 100  # the point is bright, and it moves


@pytest.mark.parametrize(
    "name, fps, count",
    [("None", 25, 20), ("Zero", 25, 20), ("NaN", 25, 20), ("Text", 25, 20), ("Tiny", 1, 20), ("Many", 55.56, 3)],
)
def test_odd_rates(tmp_path, capsys, name, fps, count):
    frames, data = film_of(played(f"toy_envs:ToyFps{name}-v0", tmp_path / "film.mp4").path)
    assert len(frames) == count and data["fps"] == fps and capsys.readouterr().err == ""


def test_frame_rate():
    for fps in (None, 0, -3, float("nan"), float("inf"), "fast", [1]):
        assert envs.frame_rate(fps) == 25.0
    assert envs.frame_rate(np.float32(30)) == 30.0 and envs.frame_rate("12") == 12.0 and envs.frame_rate(0.01) == 1.0


def test_a_film_takes_no_memory(tmp_path):
    """1000 frames of 320 x 320, 307 MB: none is kept, and the file has another name until it is closed."""
    video = envs.Video(tmp_path / "film.mp4", 25)
    alive = []
    tracemalloc.start()
    for i in range(1000):
        frame = np.full((320, 320, 3), i % 256, np.uint8)
        alive.append(weakref.ref(frame))
        video.add(frame)
        del frame
        assert i % 100 or sum(reference() is not None for reference in alive) == 0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6 and os.listdir(tmp_path) == ["film.part.mp4"]
    video.close()
    video.close()
    assert os.listdir(tmp_path) == ["film.mp4"]
    with imageio.get_reader(tmp_path / "film.mp4") as reader:
        assert reader.count_frames() == 1000


def one_warning(capsys):
    """The line that was printed, and no other."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "warning: no video" in lines[0] and lines[0].endswith("the run goes on without it")
    return lines[0]


def test_a_film_never_ends_a_run(tmp_path, capsys, monkeypatch):
    """Frames that are no pictures, a renderer that fails, a directory that is none, a dead ffmpeg, none installed."""
    monkeypatch.setattr(envs.Video, "warnings", set())
    played("toy_envs:ToyFrameFails-v0", tmp_path / "fails.mp4")
    assert "RuntimeError: the renderer is gone (toy_envs.py, line " in one_warning(capsys)
    played("toy_envs:ToyFrameNoPicture-v0", tmp_path / "none.mp4")
    assert "a frame of shape (3,) is no picture" in one_warning(capsys)
    played("toy_envs:ToyFrameNoPicture-v0", tmp_path / "none.mp4")
    assert capsys.readouterr().err == ""  # not at every evaluation
    (tmp_path / "file").write_text("")
    played("toy_envs:Toy-v0", tmp_path / "file" / "film.mp4")
    assert "file" in one_warning(capsys)
    frame = np.zeros((320, 320, 3), np.uint8)
    video = envs.Video(tmp_path / "killed.mp4", 25)
    video.add(frame)
    for child in children():
        os.kill(child, signal.SIGKILL)
    for _ in range(20):
        video.add(frame)
    video.close()
    assert "Broken pipe" in one_warning(capsys)
    envs.Video(tmp_path / "empty.mp4", 25).close()
    video = envs.Video(tmp_path / "renamed.mp4", 25)
    video.add(frame)
    (tmp_path / "renamed.mp4").mkdir()
    video.close()
    one_warning(capsys)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    monkeypatch.setitem(sys.modules, "imageio.plugins.ffmpeg", None)
    played("toy_envs:Toy-v0", tmp_path / "missing.mp4")
    one_warning(capsys)
    assert not [*tmp_path.glob("*.part.mp4")] and not [path for path in tmp_path.glob("*.mp4") if path.is_file()]


def children():
    """Process ids of the ffmpegs that this process has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, _, rest = path.read_text().partition("(")[2].rpartition(")")
            if int(rest.split()[1]) == os.getpid() and name.startswith("ffmpeg"):
                found.append(int(path.parent.name))
    return found


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
        ("no_such_module:Some-v0", ["'no_such_module'", str(ROOT), "PYTHONPATH"]),
        ("no_such_module.deeper:Some-v0", ["'no_such_module.deeper'", "PYTHONPATH"]),
        ("counters.deeper:Some-v0", ["'counters.deeper'"]),
        ("counters:Countr-v0", ["nearest known: counters:Counter-v0"]),
        ("counters:Zebra-v0", ["its module registers NoMode-v0, NoRender-v0, "]),
        ("broken_import:Some-v0", ["'broken_import' cannot be imported", "'no_such_package'"]),
        ("broken_syntax:Some-v0", ["'broken_syntax' cannot be imported", "SyntaxError"]),
        (":Some-v0", ["module:Id"]),
        ("Cartpole-v1", ["none that RPG can train has a similar name"]),
        ("zzzz", ["none that RPG can train has a similar name", "python envs.py"]),
        ("METAWORLD-Reach", ["nearest known: metaworld-reach"]),
        ("Hopper-v1", ["Hopper-v5"]),
        ("Swimer-v3", ["nearest known: Swimmer-v5"]),
        ("HalfCheetah-v3", ["'HalfCheetah-v3' cannot be made"]),
        ("CartPole-v1", ["CartPole-v1 has discrete actions", "Pendulum-v1"]),
        ("counters:Unbounded-v0", ["action space Box(-inf, inf, (1,), float64)"]),
        ("counters:Missing-v0", ["pip install abacus"]),
    ],
)
def test_bad_ids_are_one_line(counters, env_id, words):
    with pytest.raises(ValueError) as caught, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make_env(env_id)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
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
    """Our own mistakes keep their type and traceback."""
    for error in (AttributeError("'Foo' object has no attribute 'glow'"), TypeError("a bug")):
        monkeypatch.setattr(envs, "make_task", lambda *_, error=error: (_ for _ in ()).throw(error))
        with pytest.raises(type(error)):
            make_env("block-push")


@pytest.mark.parametrize(
    "where, words",
    [
        ("Init", "'toy_envs:ToyBrokenInit-v0' cannot be made: KeyError: 'no such\\nkey' (toy_envs.py, line "),
        ("Reset", "its first reset fails: RuntimeError: no licence for the simulator (toy_envs.py, line "),
    ],
)
def test_an_environment_s_own_mistake_is_one_line(where, words):
    """At the start. In a step it keeps its type, for the script to show the traceback."""
    with pytest.raises(ValueError) as caught:
        make_env(f"toy_envs:ToyBroken{where}-v0")
    assert words in str(caught.value) and "\n" not in str(caught.value)
    for async_envs in (False, True):
        with pytest.raises(ValueError):
            make_vector_env(f"toy_envs:ToyBroken{where}-v0", 2, 1, async_envs)
    env = make_env("toy_envs:ToyBrokenStep-v0")
    with pytest.raises(ZeroDivisionError):
        for _ in range(61):
            env.unwrapped.step(np.zeros(1))


# --- several environments


@pytest.mark.parametrize("seconds", ["5m", "0", ""])
def test_the_workers_time_limit_is_seconds(monkeypatch, seconds):
    monkeypatch.setattr(envs, "WORKER_TIMEOUT", seconds)
    with pytest.raises(ValueError, match=f"RPG_WORKER_TIMEOUT={seconds}: must be whole seconds"):
        make_vector_env("toy_envs:Toy-v0", 2, 1, async_envs=True)


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
    np.testing.assert_array_equal(first, np.array(singles))  # of a seed that is a number, Gymnasium makes seed + i
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
    assert not np.array_equal(a[1], c[0])  # no neighbour's
    for row, seed in zip(a, envs.derive_seeds(2, 1)):
        np.testing.assert_array_equal(row, make_env("metaworld-reach", seed).reset()[0])


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
    deadline = time.monotonic() + 60.0
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, workers))


def test_what_a_worker_cannot_send_is_sent_as_text():
    """An exception that cannot be pickled ends the wait of the main process, too."""
    envs = make_vector_env("toy_envs:ToyLocked-v0", 2, 1, async_envs=True)
    envs.reset(seed=[1, 2])
    with pytest.raises(RuntimeError, match="Locked: a mistake with a lock"):
        for _ in range(6):
            envs.step(np.zeros((2, 1), np.float32))

"""Contracts of ant-push and the cabinet tasks, and scripts that solve them."""

import hashlib
import importlib.util
import sys
import time
import warnings

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from test_envs import opengl, python, trajectory  # noqa: F401

import envs
from envs import make_env

LENGTHS = {"ant-push": 400, "ant-push-sparse": 400, "cabinet-sparse": 60, "cabinet-dense": 60}
ANT = (33, 8, 0)  # observation, action, object_dim
SIZES = {"ant-push": ANT, "ant-push-sparse": ANT, "cabinet-sparse": (36, 9, 5), "cabinet-dense": (37, 12, 0)}


@pytest.mark.parametrize("env_id", LENGTHS)
def test_contract(env_id):
    """Spaces, types, the time limit, and gymnasium's own checks."""
    env = make_env(env_id, seed=1)
    obs_size, act_size, object_dim = SIZES[env_id]
    assert env.action_space == gym.spaces.Box(-1.0, 1.0, (act_size,), np.float32)
    assert env.observation_space == gym.spaces.Box(-np.inf, np.inf, (obs_size,), np.float32)
    assert env.unwrapped.object_dim == object_dim
    for _ in range(2):
        obs, length, truncated = env.reset()[0], 0, False
        while not truncated:
            assert obs.dtype == np.float32 and env.observation_space.contains(obs)
            obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
            assert type(reward) is float and type(info["success"]) is float and info["success"] in (0.0, 1.0)
            assert not terminated and ("sparse" not in env_id or reward == info["success"])
            length += 1
        assert length == LENGTHS[env_id]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # infinite bounds, no spec
        check_env(make_env(env_id, seed=1).unwrapped, skip_render_check=True)


def test_same_seed_same_trajectory_in_another_process():
    """Actions and resets from the seed; a reset forgets all of the episode before it."""
    digest = "hashlib.sha1(trajectory(i, {}).tobytes()).hexdigest()"
    here = [eval(digest.format(7)) for i in LENGTHS]
    assert here == [eval(digest.format(7)) for i in LENGTHS] and here != [eval(digest.format(8)) for i in LENGTHS]
    code = "import sys, hashlib; sys.path.insert(0, 'tests'); from test_envs import trajectory\n"
    code += f"for i in {list(LENGTHS)}: print({digest.format(7)})"
    assert python(code, PYTHONHASHSEED="5").split() == here
    for env_id in LENGTHS:
        used, fresh = make_env(env_id, seed=1), make_env(env_id, seed=2)
        for _ in range(30):
            used.step(used.action_space.sample())
        np.testing.assert_array_equal(used.reset(seed=7)[0], fresh.reset(seed=7)[0])
        for _ in range(20):
            np.testing.assert_array_equal(*(env.step(-np.ones(env.action_space.shape))[0] for env in (used, fresh)))


@pytest.mark.parametrize("env_id", LENGTHS)
def test_random_actions(env_id):
    """10 000 decisions, half of them with actions held for 7: nothing breaks or leaves, and nothing succeeds."""
    env, rng = make_env(env_id, seed=1), np.random.default_rng(0)
    data, positions = env.unwrapped.data, []
    for t in range(10_000):
        if t < 5000 or t % 7 == 0:
            action = rng.uniform(-1.0, 1.0, env.action_space.shape).astype(np.float32)
        obs, _, _, truncated, info = env.step(action)
        assert np.isfinite(obs).all() and not info["success"]
        positions.append(data.qpos.copy())
        if truncated:
            assert not any(warning.number for warning in data.warning)  # counted since the last reset
            env.reset()
    positions = np.array(positions)
    if "ant" in env_id:  # random actions carry it about 3 m, not to the block
        assert np.abs(positions[:, :2]).max() < 4.0 and 0.1 < positions[:, 2].min() and positions[:, 2].max() < 2.0
        assert np.abs(positions[:, 15:]).max() < 0.1
    else:
        low, high = env.unwrapped.model.jnt_range.T
        beyond = np.maximum(low - positions, positions - high).max(0)  # the joints' ends give a little: m or rad
        assert beyond.max() < 0.3 and np.delete(beyond, slice(2, 3) if len(beyond) == 14 else []).max() < 0.12  # yaw


# What is asserted is looser than the standard (1.2), for a busy machine.
@pytest.mark.parametrize("env_id", ["ant-push", "cabinet-sparse", "cabinet-dense"])
def test_decision_costs_little_more_than_the_simulator(env_id):
    """Measured: 1.02 times the raw simulator steps in ant-push, 1.07-1.10 in cabinet-sparse, 1.08-1.15 in -dense."""
    env = make_env(env_id, seed=1).unwrapped
    model, data, substeps = env.model, env.data, 5 if "ant" in env_id else 10
    low, high = model.actuator_ctrlrange.T
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, (100, model.nu)).astype(np.float32)
    controls = (high + low) / 2.0 + (high - low) / 2.0 * actions

    def decisions():
        for action in actions:
            env.step(action)

    def simulator():
        for control in controls:
            data.ctrl[:] = control
            mujoco.mj_step(model, data, nstep=substeps)

    best = {}
    for _ in range(10):
        for work in (env.reset, decisions, simulator):
            env.reset(seed=2)
            start = time.process_time()
            work()
            best[work] = min(best.get(work, np.inf), time.process_time() - start)
    assert best[decisions] < 1.3 * best[simulator]
    assert best[env.reset] < 0.002  # seconds; measured: 0.0001


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_five_take_little_more_memory_than_one():
    """Measured: 5 MB more in ant-push, 22 MB in cabinet-dense; the standard is 400 MB."""
    resident = "int(open('/proc/self/statm').read().split()[1]) * 4096 / 1e6"
    for env_id in ("ant-push", "cabinet-dense"):
        code = f"import envs\na = envs.make_env('{env_id}'); m = {resident}\n"
        code += f"b = envs.make_vector_env('{env_id}', 4, 1); b.reset(); print({resident} - m)"
        assert float(python(code)) < 100.0


# --- ant-push


def drag(points, speed=1.8, force=60.0, decisions=400):
    """An episode in which a force (N) on the torso drags the ant past the points (m), and holds it at the last.

    Returns rewards, successes, and the positions at the end: ant xy, block xy.
    """
    env = make_env("ant-push", seed=3)
    data, points, rewards, successes = env.unwrapped.data, [np.array(point, float) for point in points], [], []
    env.reset()
    for _ in range(decisions):
        if len(points) > 1 and np.linalg.norm(points[0] - data.qpos[:2]) < 0.6:
            points.pop(0)
        way = points[0] - data.qpos[:2]
        velocity = way * min(1.0, speed / np.linalg.norm(way))
        push = 40.0 * (velocity - data.qvel[:2])
        data.body("torso").xfrc_applied[:2] = push * min(1.0, force / np.linalg.norm(push))
        obs, reward, _, _, info = env.step(np.zeros(8))
        rewards.append(reward)
        successes.append(info["success"])
    np.testing.assert_allclose(obs[30:32], [data.qpos[15], 8.0 + data.qpos[16]], atol=1e-5)
    return np.array(rewards), np.array(successes), data.qpos[:2].copy(), obs[30:32]


def test_ant_push_has_a_way_and_a_local_optimum():
    """Left, up, right, up reaches the room; straight ahead earns more early and ends behind the block, for good.

    Measured at 1.8 m/s: success at decision 189, return -292; ahead -341, but -123 against -178 in the first 100.
    An ant below about 1.5 m/s returns less on the right way within 400 decisions (1.2 m/s: -446 against -382).
    """
    rewards, successes, ant, block = drag([(-7, 0), (-7, 8), (-0.5, 8), (-1.3, 16), (0, 19)])
    assert successes[-1] and 100 < successes.argmax() < 250
    assert np.linalg.norm(ant - (0, 19)) < 1.0 and np.abs(block).max() < 12.5
    ahead, never, ant, block = drag([(0, 19)])
    assert not never.any()
    np.testing.assert_allclose(block, (0, 16), atol=0.3)  # in the room's entrance, against its far wall
    assert ahead[:100].sum() > rewards[:100].sum() + 20.0 and ahead.sum() < rewards.sum() - 20.0
    right, never, ant, block = drag([(7, 0), (7, 8)])  # a wall stands to the right of the start
    assert not never.any() and ant[0] < 4.0


def test_ant_cannot_squeeze_the_block_through_a_wall():
    """HIRO's block of 0.0002 kg, lifted and shrunk or not, lets the ant in at this push."""
    _, successes, ant, block = drag([(0, 19)], speed=5.0, force=200.0)
    assert not successes.any() and block[1] < 16.1 and ant[1] < 12.5


def test_ant_push_rewards_and_observations():
    dense, sparse = make_env("ant-push", seed=4), make_env("ant-push-sparse", seed=4)
    dense.reset(), sparse.reset()
    for t in range(1, 20):
        action = dense.action_space.sample()
        obs, reward, _, _, _ = dense.step(action)
        data = dense.unwrapped.data
        np.testing.assert_array_equal(obs, sparse.step(action)[0])
        np.testing.assert_allclose(obs[:15], data.qpos[:15], rtol=1e-6)
        np.testing.assert_allclose(obs[15:29], data.qvel[:14], rtol=1e-6)
        np.testing.assert_allclose(obs[29:], [0.001 * t, 0.0, 8.0, 2.05], rtol=1e-6)
        assert reward == pytest.approx(-0.1 * np.hypot(data.qpos[0], data.qpos[1] - 19.0))
    for y, success in ((13.9, 0.0), (14.1, 1.0)):  # 5 m before (0, 19)
        sparse.unwrapped.data.qpos[:3], sparse.unwrapped.data.qvel[:] = (0.0, y, 0.75), 0.0
        assert sparse.step(np.zeros(8))[1] == success


# --- cabinet

DECISION = 0.05  # s
HANDLE, HINGE = (0.302, -0.128), (0.38, 0.68)  # m: right handle from its hinge, mirrored; hinge from the arm's base
HEIGHT = 0.75
LEVEL = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])  # fingers forward, opening sideways


def handle_at(side, angle):
    """(3,) place of a handle (side -1 left, 1 right) with its door open by `angle` (rad)."""
    x, y = -HANDLE[0], HANDLE[1]
    x, y = np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y
    return np.array([side * (HINGE[0] + x), HINGE[1] + y, HEIGHT])


class Hand:
    """Moves the hand, held level, by inverse kinematics of the arm; a mobile base drives to its middle meanwhile."""

    def __init__(self, env_id, seed, base_goal=(0.0, 0.0, 0.0)):
        self.env, self.base_goal = make_env(env_id, seed), np.array(base_goal)
        self.env.reset(seed=seed)
        self.model, self.data = self.env.unwrapped.model, self.env.unwrapped.data
        self.scratch, self.base = mujoco.MjData(self.model), self.model.nu - 9  # base joints: 0 or 3
        self.arm = slice(self.base, self.base + 7)
        self.target = self.data.qpos[self.arm].copy()
        self.place = self.data.site("end_effector").xpos
        self.rewards, self.successes = [], []

    def joints_for(self, place, base):
        """(7,) angles by damped least squares, from the last ones on."""
        scratch, site = self.scratch, self.scratch.site("end_effector")
        scratch.qpos[:], scratch.qpos[: self.base], scratch.qpos[self.arm] = self.data.qpos, base, self.target
        jacobian = np.zeros((6, self.model.nv))
        for _ in range(8):
            mujoco.mj_kinematics(self.model, scratch)
            mujoco.mj_comPos(self.model, scratch)
            mujoco.mj_jacSite(self.model, scratch, jacobian[:3], jacobian[3:], site.id)
            turn = 0.5 * np.cross(site.xmat.reshape(3, 3).T, LEVEL.T).sum(0)
            J, error = jacobian[:, self.arm], np.concatenate((place - site.xpos, turn))
            scratch.qpos[self.arm] += np.clip(J.T @ np.linalg.solve(J @ J.T + 1e-4 * np.eye(6), error), -0.3, 0.3)
        low, high = self.model.jnt_range[self.arm].T
        self.target = np.clip(scratch.qpos[self.arm], low + 0.01, high - 0.01)
        return self.target

    def move(self, place, grip):
        """One decision towards `place`; grip 1 opens, -1 closes."""
        if len(self.rewards) == 60:
            return
        action, base = np.zeros(self.model.nu), self.data.qpos[: self.base].copy()
        if self.base:
            speeds = np.array([row[3] for row in envs.BASE])
            action[:3] = np.clip((self.base_goal - base) / DECISION / speeds, -1.0, 1.0)
            base += 0.8 * DECISION * speeds * action[:3]  # where it will be; it needs time to speed up
        speed = (self.joints_for(place, base) - self.data.qpos[self.arm]) / DECISION / envs.ARM_SPEED
        action[self.arm] = speed / max(1.0, np.abs(speed).max())
        action[-2:] = grip
        _, reward, _, _, info = self.env.step(action.astype(np.float32))
        self.rewards.append(reward)
        self.successes.append(info["success"])

    def go(self, place, tolerance, settle=False):
        """Moves with the gripper open, 7 cm a decision at most, until there and, to settle, slow."""
        last, here = np.full(3, np.inf), self.place.copy()
        while np.linalg.norm(here - place) > tolerance or settle and np.linalg.norm(here - last) > 0.015:
            if len(self.rewards) == 60:
                return
            way = place - here
            self.move(here + way * min(0.75, 0.07 / np.linalg.norm(way)), 1.0)
            last, here = here, self.place.copy()

    def open_door(self, side, angle, step):
        """Grasps a handle and pulls it along its arc, `step` rad a decision, then lets go of it."""
        handle = handle_at(side, 0.0)
        self.go(np.array([handle[0], 0.45, HEIGHT]), 0.015, settle=True)
        self.go(handle, 0.02)
        for _ in range(2):
            self.move(handle, -1.0)
        for part in [*np.arange(step, angle, step), angle, angle]:
            self.move(handle_at(side, part), -1.0)
        self.move(self.place.copy(), 1.0)

    def rest(self):
        """Backs off until the episode's end. Returns rewards, successes (60,), openings of the doors (2,) in rad."""
        while len(self.rewards) < 60:
            self.move(self.place - (0.0, 0.02, 0.0), 1.0)
        return np.array(self.rewards), np.array(self.successes), np.abs(self.data.qpos[-2:])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_cabinet_sparse_is_solvable(seed):
    """Left door, round its edge, right door. Measured: success from decision 50 or 51 of 60 on, doors at 1.19, 1.22."""
    hand = Hand("cabinet-sparse", seed)
    hand.open_door(-1, 1.22, 0.15)
    assert abs(hand.data.qpos[-2]) > 0.72 * 1.57 and not any(hand.successes)  # one door is not enough
    hand.go(np.array([hand.place[0], 0.22, HEIGHT]), 0.04)
    hand.go(np.array([-handle_at(-1, 0.0)[0], 0.25, HEIGHT]), 0.06)
    hand.open_door(1, 1.22, 0.15)
    rewards, successes, doors = hand.rest()
    assert successes[-1] and rewards.sum() >= 3.0 and (doors > 0.72 * 1.57).all()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_cabinet_dense_has_a_way_and_a_local_optimum(seed):
    """The left door pays more early and fails; the right one returns more. Measured, seeds 1 to 3: right door open at
    decision 30 or 31, return 76 to 79; left door 54 to 56, ahead by 3 to 6 after 30 decisions; idle -60 to -48."""
    outcomes = {}
    for side, base_goal in ((1, (0.0, 0.0, 0.0)), (-1, (0.0, 0.4, 0.0))):
        hand = Hand("cabinet-dense", seed, base_goal)
        hand.open_door(side, 1.47, 0.12)
        outcomes[side] = hand.rest()
    (right, success, doors), (left, failure, other_doors) = outcomes[1], outcomes[-1]
    assert success[-1] and doors[1] > 0.9 * 1.57 and doors[0] < 0.1
    assert not failure.any() and other_doors[0] > 0.9 * 1.57
    assert left[:30].sum() > right[:30].sum() + 1.0 and right.sum() > left.sum() + 10.0


def test_cabinet_dense_reward():
    """The formula of the official code, from the simulator's sites, doors set by hand."""
    env = make_env("cabinet-dense", seed=1).unwrapped
    for left, right in ((0.0, 0.0), (0.5, 0.0), (1.5, 0.3), (0.2, 1.5), (1.5, 1.5)):
        env.reset()
        env.data.qpos[-2:] = -left, right
        obs, reward, _, _, info = env.step(np.zeros(12))
        openings = np.abs(env.data.qpos[-2:]) / 1.57
        fingers = [env.data.site(f"{name}finger").xpos for name in ("left", "right")]
        handles = [env.data.site(f"hinge_site{i}").xpos for i in (1, 2)]
        distances = [np.mean([np.linalg.norm(finger - handle) for finger in fingers]) for handle in handles]
        expected = np.clip(openings / 0.9, 0.0, 1.0).sum() + 1.0 * (openings[0] >= 0.9) + 2.0 * (openings[1] >= 0.9)
        assert reward == pytest.approx(expected - 2.0 * min(distances))
        assert info["success"] == float(openings[1] >= 0.9)
        np.testing.assert_allclose(obs[3:5], np.abs(env.data.qpos[-2:]), atol=1e-6)


def test_cabinet_observations():
    """Both tasks: the same state and rest; the sparse one scaled, with the raw state for the positional encoding."""
    for env_id, scale in (("cabinet-sparse", 0.05), ("cabinet-dense", 1.0)):
        env = make_env(env_id, seed=3).unwrapped
        for _ in range(5):
            obs = env.step(env.action_space.sample())[0]
        data, robot = env.data, env.model.nu
        mujoco.mj_kinematics(env.model, data)  # changes nothing: what is observed is up to date
        state = [*data.site("end_effector").xpos, -data.qpos[-2], data.qpos[-1]]
        rest = [*data.qpos[:robot], *data.qvel[:robot], -data.qvel[-2], data.qvel[-1]]
        handles = [*data.site("hinge_site1").xpos, *data.site("hinge_site2").xpos]
        raw = state if env_id == "cabinet-sparse" else []
        np.testing.assert_allclose(obs, [*(scale * np.array([*state, *rest, *handles])), *raw], atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(handles, [*handle_at(-1, state[3]), *handle_at(1, state[4])], atol=1e-6)


def test_cabinet_starts():
    """Every reset draws the doors' damping and, in cabinet-dense, the base's place, nearer to the left handle."""
    sparse, dense = make_env("cabinet-sparse", seed=1).unwrapped, make_env("cabinet-dense", seed=1).unwrapped
    damping, bases = [], []
    for _ in range(10):
        obs = sparse.reset()[0]
        np.testing.assert_allclose(obs[31:34], [0.0, 0.435, 0.749], atol=1e-3)
        damping.append(sparse.model.dof_damping[-2:].copy())
        obs = dense.reset()[0]
        bases.append(obs[5:8])
        left, right = (np.linalg.norm(obs[:3] - handle) for handle in (obs[-6:-3], obs[-3:]))
        assert left + 0.05 < right
    assert np.ptp(damping, 0).min() > 0.5 and np.min(damping) >= 1.0 and np.max(damping) <= 5.0
    np.testing.assert_allclose(np.array(bases)[:, 1], 0.5)
    assert np.ptp(np.array(bases)[:, 0]) > 0.02 and np.ptp(np.array(bases)[:, 2]) > 0.05


# --- rendering, imports, errors


def test_frames(opengl):  # noqa: F811
    """Upright and with the task in view: what lies ahead of the ant is above it; a raised arm is higher up."""
    env = make_env("ant-push", seed=1, render_mode="rgb_array")
    frame = env.render().astype(int)
    red = (frame[:, :, 0] > 180) & (frame[:, :, 1] < 90)
    skin = (frame[:, :, 0] > frame[:, :, 2] + 30) & (frame[:, :, 1] > 90)
    assert frame.shape == (320, 320, 3) and red.mean() > 0.03 and skin.sum() > 30
    assert np.nonzero(red)[0].mean() < np.nonzero(skin)[0].mean() - 20
    env.close()
    for env_id in ("cabinet-sparse", "cabinet-dense"):
        env = make_env(env_id, seed=1, render_mode="rgb_array")
        frames, action = [env.render().astype(int)], np.zeros(env.action_space.shape, np.float32)
        action[-9 + 3] = 1.0  # straightens the elbow: the hand goes up
        for _ in range(8):
            env.step(action)
        frames.append(env.render().astype(int))
        assert frames[0].shape == (320, 320, 3) and frames[0].std() > 20
        brighter = (frames[1] - frames[0]).sum(2)  # where the arm has come to, and below 0 where it has gone from
        rows = [np.nonzero(pixels)[0].mean() for pixels in (brighter > 60, brighter < -60)]
        assert (np.abs(brighter) > 60).mean() > 0.01 and rows[0] < rows[1] - 20
        env.close()


def test_imports_are_light():
    heavy = "print([name for name in ('torch', 'metaworld', 'gymnasium_robotics') if name in sys.modules])"
    code = f"import sys, envs; envs.make_env('ant-push'), envs.make_env('cabinet-dense'); {heavy}"
    assert python(code).strip() == "[]"


def test_without_gymnasium_robotics(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="^the cabinet tasks need gymnasium-robotics: pip install gymnasium-robotics"):
        make_env("cabinet-sparse")


def test_misspelt_ids_and_options():
    with pytest.raises(ValueError, match="unknown environment 'ant-pusch'; nearest known: ant-push"):
        make_env("ant-pusch")
    with pytest.raises(ValueError, match="cabinet-dense has no option 'x'; it has no options"):
        make_env("cabinet-dense", options=("x",))

"""What every task of envs.py promises, what each of them is, and scripts that solve them (solutions.py).

The 50 Meta-World tasks are in test_envs.py, the maze's walls in test_maze.py; here they keep the common promises.
"""

import hashlib
import importlib.util
import math
import subprocess
import sys
import time
import warnings

import gymnasium as gym
import mujoco
import numpy as np
import pytest
import solutions
from gymnasium.utils.env_checker import check_env
from solutions import HEIGHT, Hand, drag, handle_at
from test_envs import ROOT, python, trajectory

import envs
from envs import make_env

IDS = {  # observation, object coordinates, actions, decisions an episode, reward
    "adroit-door": ((37,), 7, 28, 100, "sparse"),
    "adroit-hammer": ((64,), 9, 26, 125, "sparse"),
    "adroit-pen": ((51,), 6, 24, 100, "sparse"),
    "adroit-relocate": ((45,), 6, 30, 100, "sparse"),
    "ant-push": ((33,), 0, 8, 400, "dense"),
    "ant-push-sparse": ((33,), 0, 8, 400, "sparse"),
    "block-push": ((22,), 6, 2, 60, "sparse"),
    "block-push-1": ((14,), 4, 2, 60, "sparse"),
    "block-push-pixels": ((64, 64, 3), 0, 2, 60, "sparse"),
    "cabinet-dense": ((37,), 0, 12, 60, "dense"),
    "cabinet-sparse": ((36,), 5, 9, 60, "sparse"),
    "cheetah-back": ((18,), 0, 6, 200, "sparse"),
    "maze": ((4,), 2, 2, 50, "none"),
    "metaworld-basketball": ((46,), 7, 4, 100, "sparse"),
}
ADROIT = [env_id for env_id in IDS if env_id.startswith("adroit")]
BLOCKS = [env_id for env_id in IDS if env_id.startswith("block")]
DRAWN_BY_OPENGL = [*ADROIT, "ant-push", "cabinet-dense", "cabinet-sparse", "cheetah-back"]
NAMES = [*IDS, *(f"{env_id} random-blocks" for env_id in BLOCKS), "maze goal=2,2"]  # an id and its options
SAME_STARTS = {*BLOCKS, "cabinet-sparse", "maze", "maze goal=2,2"}  # the cabinet's doors alone differ, in their damping


def make(name, seed=1):
    env_id, *options = name.split()
    return make_env(env_id, seed, options=options)


def random_episodes(env, episodes, each=lambda: None, hold=1):
    """Successes (episodes, decisions) of random actions, each kept for `hold` decisions; each() is called after one."""
    rows, sparse, decision = [], env.unwrapped.rewards == "sparse", 0
    for _ in range(episodes):
        obs, row, truncated = env.reset()[0], [], False
        while not truncated:
            assert env.observation_space.contains(obs) and np.isfinite(obs).all()
            if decision % hold == 0:
                action = env.action_space.sample()
            obs, reward, terminated, truncated, _ = env.step(action)
            success = 0.0 if math.isnan(env.success) else env.success  # the maze without a goal has none
            assert type(reward) is type(success) is float and success in (0.0, 1.0) and terminated is False
            assert reward == success or not sparse
            decision += 1
            row.append(success)
            each()
        rows.append(row)
        if hasattr(env.unwrapped, "data"):
            assert not any(warning.number for warning in env.unwrapped.data.warning)  # since the last reset
    return np.array(rows)


# --- what every task promises


def test_these_are_all():
    assert [*IDS][:-1] == [*envs.TASKS]


@pytest.mark.parametrize("env_id", IDS)
def test_spaces_and_time_limit(env_id):
    env, (shape, object_dim, act_dim, horizon, rewards) = make(env_id), IDS[env_id]
    task = env.unwrapped
    assert env.observation_space.shape == shape and task.object_dim == object_dim and task.rewards == rewards
    assert env.observation_space.dtype == (np.uint8 if env_id == "block-push-pixels" else np.float32)
    assert env.action_space == gym.spaces.Box(-1.0, 1.0, (act_dim,), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # infinite bounds, no spec
        check_env(make(env_id).unwrapped, skip_render_check=True)
    assert random_episodes(env, 2).shape == (2, horizon)
    far, near = make(env_id), make(env_id)
    action = np.full(act_dim, 1.0, np.float32)
    for _ in range(5):  # actions are clipped
        np.testing.assert_allclose(far.step(7.0 * action)[0], near.step(action)[0], atol=1e-5)
    if env_id != "maze":  # whose decisions have no duration
        start = far.unwrapped.data.time
        far.step(action)
        assert env.metadata["render_fps"] == round(1.0 / (far.unwrapped.data.time - start))


def digests(names, seed):
    """SHA-1 of the observations of a random episode, for each name."""
    parts = [(env_id, options) for env_id, *options in map(str.split, names)]
    return [hashlib.sha1(trajectory(i, seed, options=options).tobytes()).hexdigest() for i, options in parts]


def test_same_seed_same_trajectory_in_another_process():
    names = [*NAMES, "metaworld-stick-pull", "metaworld-box-close", "HalfCheetah-v5"]
    here = digests(names, 7)
    assert here == digests(names, 7)
    code = f"import sys; sys.path.insert(0, 'tests'); import test_tasks; print(*test_tasks.digests({names}, 7))"
    assert python(code, PYTHONHASHSEED="5").split() == here


@pytest.mark.parametrize("name", NAMES)
def test_starts_differ_by_seed_and_by_episode(name):
    env = make(name, 7)
    first, second, other = env.reset(seed=7)[0], env.reset()[0], env.reset(seed=8)[0]
    for x, y in ((first, second), (first, other)):
        assert (x == y).all() == (name in SAME_STARTS)


@pytest.mark.parametrize("env_id", IDS)
def test_an_episode_depends_on_its_seed_only(env_id):
    def episode(env):
        observations = [env.reset(seed=3)[0]]
        observations += [env.step(action)[0] for action in actions]
        return np.array(observations)

    used, fresh = make_env(env_id, seed=1), make_env(env_id, seed=2)
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, (20, *used.action_space.shape)).astype(np.float32)
    for _ in range(30):
        used.step(used.action_space.sample())
    np.testing.assert_array_equal(episode(used), episode(fresh))


def stays(task):
    """How far what moves has left its scene, in m (rad for joints): at most 0 inside."""
    if isinstance(task, envs.Adroit) and task.task == "door":  # hinge 0 to 1.57, latch 0 to 1.8; soft ends
        hinge, latch = task.data.qpos[28:30]
        return max(-0.1 - hinge, hinge - 1.67, -0.7 - latch, latch - 2.6)
    if isinstance(task, envs.Adroit):  # hammer, pen and ball can fall to the floor at -1 m; the ball flies up to 8 m
        place = task.data.body("Object").xpos
        return max(np.abs(place).max() - 10.0, -1.05 - place[2])
    if isinstance(task, envs.MetaWorld):  # basketball's, on the table
        x, y, z = task._frame[4:7]
        return max(math.hypot(x, y - 0.6) - 0.8, -z)
    if isinstance(task, envs.AntPush):  # the torso is in no wall; at times random actions carry it to the block
        x, y, z = task.data.qpos[:3]
        wall = envs.ANT_MAZE[round(y / envs.ANT_CELL) + 1][round(x / envs.ANT_CELL) + 2] == "#"
        return max(float(wall), 0.1 - z, z - 2.0, np.abs(task.data.qpos[15:]).max() - 8.1)
    if isinstance(task, envs.BlockPush):  # the sliders' ends are soft; blocks overlap by less than 0.1 m
        gaps = np.abs(task._positions[:, None] - task._positions).max(-1)[np.triu_indices(task.n + 1, 1)]
        return max(np.abs(task._positions).max() - 1.9, 0.3 - gaps.min())
    if isinstance(task, envs.Cabinet):  # the joints' ends give a little, the base's yaw more
        low, high = task.model.jnt_range.T
        give = np.where(np.arange(len(low)) == 2, 0.3, 0.12) if task.mobile else 0.12
        return (np.maximum(low - task.data.qpos, task.data.qpos - high) - give).max()
    if isinstance(task, envs.CheetahBack):  # it stays near its start, the torso above the floor and below 1.7 m
        x, z = task.data.qpos[:2]
        return max(abs(x) - 9.0, abs(z) - 0.7 if z < 0.0 else z - 1.0)
    return np.abs(task._position).max() - 5.0


@pytest.mark.parametrize(
    "name, decisions, share",
    [
        *((env_id, 10_000, 0.15 if env_id == "adroit-pen" else 0.04) for env_id in ADROIT),
        *((name, 5000 if "pixels" in name else 10_000, 0.02) for name in NAMES if name.startswith("block")),
        *((env_id, 10_000, 0.0) for env_id in ("ant-push", "cabinet-dense", "cabinet-sparse", "cheetah-back", "maze")),
        ("metaworld-basketball", 10_000, 0.0),
    ],
)
def test_random_actions(name, decisions, share):
    """Nothing breaks, nothing leaves the scene, and at most this share of the episodes succeeds at some decision, 0.02
    at the last; in half of them an action is kept for 7 decisions. README.md has the shares of many more episodes.

    One thing does leave: a ball of adroit-relocate that is hit hard flies, at this seed, 8.2 m from the table.
    """
    env, out = make(name, seed=5), []
    episodes = -(-decisions // (2 * env.unwrapped.horizon))
    successes = [random_episodes(env, episodes, lambda: out.append(stays(env.unwrapped)), hold) for hold in (1, 7)]
    successes = np.concatenate(successes)
    assert len(out) >= decisions and max(out) <= 0.0
    assert successes.any(1).mean() <= share and successes[:, -1].mean() <= 0.02


@pytest.mark.parametrize("env_id", [*ADROIT, "ant-push", *BLOCKS, "cabinet-dense", "cabinet-sparse", "cheetah-back"])
def test_decision_costs_little_more_than_the_simulator(env_id):
    """Measured: see docs/environments.md; the standard is 1.2 times the raw simulator steps, which the drawn image
    misses. Tested with a margin on the best of 4 rounds, 30 of the short ones, and of up to 200 where other processes
    disturb them."""
    task = make_env(env_id, seed=1).unwrapped
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, (50, *task.action_space.shape)).astype(np.float32)
    controls, best, bound = [], {}, 2.7 if env_id == "block-push-pixels" else 1.5

    def decisions():
        for action in actions:
            task.step(action)
            controls.append(task.data.ctrl.copy())

    def simulator():
        for control in controls[:50]:
            task.data.ctrl[:] = control
            mujoco.mj_step(task.model, task.data, nstep=task.substeps)

    enough = 30 if env_id in (*BLOCKS, "cheetah-back") else 4
    for rounds in range(1, 201):
        for work in (task.reset, decisions, simulator):
            task.reset(seed=2)
            start = time.process_time()
            work()
            best[work] = min(best.get(work, np.inf), time.process_time() - start)
        if rounds >= enough and best[decisions] < bound * best[simulator] and best[task.reset] < 0.005:
            break
    assert best[decisions] < bound * best[simulator]
    assert best[task.reset] < 0.005  # seconds; measured: up to 0.0012


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_five_take_little_more_memory_than_one():
    """MB by which four more raise the resident memory; some reuse what those before them gave back. Measured, each in a
    process of its own: see docs/environments.md. The standard is 400."""
    code = (
        "import envs\n"
        "def resident(): return int(open('/proc/self/statm').read().split()[1]) * 4096 / 1e6\n"
        f"for env_id in {[*IDS]}:\n"
        "    one = envs.make_env(env_id); one.reset(); before = resident()\n"
        "    four = envs.make_vector_env(env_id, 4, 1); four.reset(); print(env_id, resident() - before)"
    )
    more = dict(line.split() for line in python(code).splitlines())
    assert len(more) == len(IDS) and max(map(float, more.values())) < 250.0, more


@pytest.mark.parametrize(
    "env_id, place",
    [
        (
            "ant-push-sparse",
            lambda d, error: d.qpos.__setitem__(slice(3), (0.0, 14.0 - error, 0.75)),
        ),  # 5 m before (0, 19)
        (
            "block-push",
            lambda d, error: d.qpos.__setitem__(slice(4), (-1.4, 1.4, 0.0, 1.2 - error)),
        ),  # 0.2 m from its goal
        ("block-push-1", lambda d, error: d.qpos.__setitem__(slice(2), (-1.2 + error, 1.4))),
        ("cheetah-back", lambda d, error: d.qpos.__setitem__(0, -10.0 + error)),
        ("cabinet-sparse", lambda d, error: d.qpos.__setitem__(slice(-2, None), (-1.5, 0.72 * 1.57 - error))),
        ("cabinet-sparse", lambda d, error: d.qpos.__setitem__(slice(-2, None), (-0.72 * 1.57 + error, 1.5))),
    ],
)
def test_success_flips_at_its_threshold(env_id, place):
    """A state just short of success and one just beyond it, at rest, and a decision of doing nothing."""
    for error, success in ((0.02, 0.0), (-0.02, 1.0)):
        env = make_env(env_id, seed=1)
        env.reset()
        env.unwrapped.data.qvel[:] = 0.0
        place(env.unwrapped.data, error)
        reward = env.step(np.zeros(env.action_space.shape, np.float32))[1]
        assert reward == env.success == success


# --- Adroit


def package_env(task):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import gymnasium_robotics  # noqa: F401
        from gymnasium_robotics.envs import adroit_hand
    module = getattr(adroit_hand, f"adroit_{task}")
    return getattr(module, f"AdroitHand{task.title()}Env")(reward_type="sparse")


@pytest.mark.parametrize("task", ["door", "hammer", "pen", "relocate"])
def test_adroit_is_the_package(task):
    """Two of the package's steps are one of ours, bit for bit; observations as the official code composes them."""
    options = ("strict",) if task in ("door", "hammer") else ()
    env, package = make_env(f"adroit-{task}", seed=4, options=options), package_env(task)
    obs, theirs = env.reset(seed=4)[0], package.reset(seed=4)[0]
    for _ in range(15):
        site = lambda name: package.data.site(name).xpos  # noqa: E731
        state, objects = {
            "door": lambda: ([theirs[:27], theirs[29:32]], [theirs[28:29], site("S_handle"), theirs[35:38]]),
            "hammer": lambda: (
                [theirs[33:36], site("tool"), theirs[42:45], theirs],
                [site("S_grasp"), site("tool"), site("S_target")],
            ),
            "pen": lambda: ([theirs], [theirs[39:42], theirs[33:36]]),
            "relocate": lambda: ([theirs], [theirs[30:33], theirs[36:39]]),
        }[task]()
        expected = np.concatenate([0.05 * np.concatenate(state), *objects]).astype(np.float32)
        exact = task != "hammer"  # whose rotation, computed otherwise, differs where it is 1e-17
        np.testing.assert_allclose(obs, expected, rtol=0, atol=0 if exact else 1e-15)
        action = env.action_space.sample()
        obs = env.step(action)[0]
        package.step(action)
        theirs, _, _, _, their_info = package.step(action)
        assert env.success == their_info["success"]


def test_hammer_observes_the_packages_rotation():
    """Through whole episodes of a hammer that is knocked over, too."""
    env, turned = make_env("adroit-hammer", seed=1), []
    for _ in range(250):
        if not turned or len(turned) == 125:
            env.reset()
        env.step(env.action_space.sample())
        ours, theirs = env.unwrapped._hammer_obs(), env.unwrapped.sim._get_obs()
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
        turned.append(np.abs(ours[39:42]).max())
    assert max(turned) > 1.5


@pytest.mark.parametrize("task, official, strict", [("door", 1.0, 1.35), ("hammer", 0.02, 0.01)])
def test_adroit_thresholds(task, official, strict):
    """The success flips at the threshold of the official code, or of the package with the option."""
    for options, threshold in (((), official), (("strict",), strict)):
        env = make_env(f"adroit-{task}", seed=1, options=options).unwrapped
        obs, flags = env.sim._get_obs(), []
        for error in (-1e-3, 1e-3):
            if task == "door":
                obs[28] = threshold + error
            else:
                obs[42:45] = env._nail_goal + (0.0, threshold + error, 0.0)
            flags.append(bool(env._success(obs)))
        assert flags == ([False, True] if task == "door" else [True, False])


def test_pen_starts_away_from_its_goal():
    """In direction: in place it starts at it. Measured: cosines of -0.84 to 0.84; success begins above 0.95."""
    env, cosines = make_env("adroit-pen", seed=1), []
    for _ in range(100):
        env.reset()
        obs = env.unwrapped.sim._get_obs()
        cosines.append(obs[33:36].dot(obs[36:39]))
    assert max(cosines) < 0.9 and min(cosines) < -0.7


@pytest.mark.parametrize(
    "task, seed, settings",
    [
        ("door", 1, {}),
        ("hammer", 1, {}),
        ("pen", 2, {}),
        ("relocate", 0, dict(samples=30, horizon=14, knots=3, noise=0.4)),
    ],
)
def test_adroit_is_solved_by_planning(task, seed, settings):
    """Measured, decisions until success: door 22 and hammer 15 at the package's stricter thresholds, pen 14, relocate
    26. The palm, latch or tool, and door or nail move as the task wants: nothing is solved at the start."""
    options = ("strict",) if task in ("door", "hammer") else ()
    env = make_env(f"adroit-{task}", seed=seed, options=options)
    env.reset(seed=seed)
    successes = solutions.plan(env, getattr(solutions, f"{task}_cost"), **settings)
    assert len(successes) > 5 and successes[-1] == 1.0


# --- BlockPush


def test_block_push_observation():
    env = make_env("block-push", seed=1)
    obs = env.reset()[0]
    blocks, goals, pusher = [-1.2, 0.0, 0.0, 0.0], [-1.4, 1.4, 0.0, 1.4], [0.0, -1.4]
    state = [*blocks, 0, 0, 0, 0, *np.subtract(goals, blocks), *pusher, 0, 0]
    np.testing.assert_allclose(obs, [*np.multiply(state, 0.1), *np.divide(blocks + pusher, 2.0)], rtol=1e-6)
    obs = env.step(np.array([1.0, 0.0], np.float32))[0]
    np.testing.assert_allclose(obs[12:16], [0.032, -0.14, 0.4, 0.0], atol=5e-3)  # 4 m/s for 80 ms, but for the start
    np.testing.assert_allclose(obs[20:], 5.0 * obs[12:14], rtol=1e-5)


@pytest.mark.parametrize("env_id", BLOCKS)
def test_pusher_script_solves(env_id):
    """Measured: at decision 33 with two blocks, 18 with one, and it stays."""
    env = make_env(env_id, seed=1)
    env.reset()
    successes = solutions.play(env, solutions.pusher_script(env))
    assert successes[-1] == 1.0 and sum(successes) >= 20 and successes[0] == 0.0


@pytest.mark.parametrize("env_id", BLOCKS)
def test_pusher_script_solves_random_blocks(env_id):
    """Measured: 40 of 40 layouts, with one block and with two. Both blocks and goals move."""
    env, starts, final = make_env(env_id, seed=1, options=("random-blocks",)), [], []
    for _ in range(8):
        env.reset()
        task = env.unwrapped
        starts.append(np.concatenate((task._blocks, task._goals)).ravel())
        final.append(solutions.play(env, solutions.pusher_script(env))[-1])
    assert sum(final) >= 7 and (np.ptp(starts, 0) > 0.5).all() and np.abs(starts).max() <= 1.2


def test_going_straight_is_not_enough():
    """Pushing the block up, as far as its goal lies, leaves it 0.2 m beside it: no success without a push sideways."""
    env = make_env("block-push-1", seed=1)
    env.reset()
    task = env.unwrapped
    goal, straight = task._goals.copy(), task._goals.copy()
    straight[0, 0] = task._blocks[0, 0]
    task._goals[:] = straight  # for the script
    script = solutions.pusher_script(env)
    successes = solutions.play(env, lambda: script() if task._blocks[0, 1] < 1.35 else np.zeros(2, np.float32))
    assert not any(successes), "the reward is that of the true goal"
    np.testing.assert_allclose(task._blocks, straight, atol=0.1)
    assert np.linalg.norm(task._blocks - goal) > 0.2


@pytest.mark.parametrize("size", [envs.PIXELS, envs.FRAME_SIZE])
def test_paint_blends_each_pixel_by_the_share_covered(size):
    """Against the area of square and pixel in common; shares are of 1/256 at each edge. A tenth of a pixel shows."""
    rng, edges, color = np.random.default_rng(0), np.linspace(-2.2, 2.2, size + 1), (0.1, 0.5, 0.9)
    for half in (0.2, 0.24, 2.0):
        for center in rng.uniform(-2.15 + half, 2.15 - half, (10, 2)).tolist():
            image = rng.integers(0, 256, (size, size, 3), np.uint8)
            before, moved = image.astype(float), image.copy()
            across, up = (
                np.maximum(np.minimum(edges[1:], x + half) - np.maximum(edges[:-1], x - half), 0.0) * size / 4.4
                for x in center
            )
            cover = np.outer(up[::-1], across)[:, :, None]  # row 0 is the largest y
            envs.paint(image.reshape(size, -1), center, half, color)
            error = np.abs(image - (before + cover * (255.0 * np.array(color) - before)))
            assert error.max() < 0.5 + 2.0 * 255.0 / 256.0 and error.mean() < 0.5
            envs.paint(moved.reshape(size, -1), (center[0] + 0.44 / size, center[1]), half, color)
            assert (moved != image).sum() > 10


def test_pixels_show_the_state():
    """Colours at their places, y up, and exact shares of the pixels on the border: a motion of 5 mm shows."""
    env, state = make_env("block-push-pixels", seed=1), make_env("block-push-1", seed=1)
    image = env.reset()[0]
    state.reset()

    def pixel(x, y):
        return image[int((2.2 - y) / 4.4 * 64), int((x + 2.2) / 4.4 * 64)].tolist()

    assert pixel(0.0, -1.4) == [191, 64, 64] and pixel(-1.2, 0.0) == [64, 64, 191]  # pusher, block
    assert pixel(-1.4, 1.4) == [159, 159, 223] and pixel(1.0, 0.0) == [230] * 3 and pixel(2.15, 0.0) == [102] * 3
    task = env.unwrapped
    floor = 230.0
    for shift in (0.0, 0.005, 0.3):
        task._positions[1, 0] = shift
        row = task._observation()[int((2.2 + 1.4) / 4.4 * 64)][20:50].astype(float)
        assert ((floor - row[:, 1]) / (floor - 64)).sum() * 4.4 / 64 == pytest.approx(0.4, abs=2e-3)  # its width
        center = ((floor - row[:, 1]) * (np.arange(20, 50) + 0.5)).sum() / (floor - row[:, 1]).sum()
        assert center * 4.4 / 64 - 2.2 == pytest.approx(shift, abs=1e-3)
    env.reset()
    for _ in range(20):  # the same physics as with the state
        action = state.action_space.sample()
        (_, reward, *_), (_, other, *_) = env.step(action), state.step(action)
        assert reward == other
    np.testing.assert_array_equal(env.unwrapped._positions, state.unwrapped._positions)


# --- cheetah-back


def test_cheetah_is_gymnasiums():
    env, package = (
        make_env("cheetah-back", seed=3),
        gym.make("HalfCheetah-v5", exclude_current_positions_from_observation=False),
    )
    obs, theirs = env.reset(seed=3)[0], package.reset(seed=3)[0]
    for _ in range(50):
        np.testing.assert_array_equal(obs, theirs.astype(np.float32))
        action = env.action_space.sample()
        obs, theirs = env.step(action)[0], package.step(action)[0]


def test_sinusoids_run_back():
    """Measured: ten of ten seeds, at decision 67 to 172, ending at -15 to -32 m."""
    env, final = make_env("cheetah-back", seed=1), []
    for seed in range(5):
        env.reset(seed=seed)
        successes = solutions.play(env, solutions.sinusoids(env))
        assert successes[0] == 0.0
        final.append(successes[-1])
        assert successes[-1] == (env.unwrapped.data.qpos[0] <= -10.0)
    assert sum(final) >= 4


# --- ant-push


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_ant_push_has_a_way_and_a_local_optimum(seed):
    """Left, up, right, up reaches the room; straight ahead earns more early and ends behind the block, for good.

    Measured at 1.8 m/s, ten of ten seeds: success; ahead none, but 47 to 66 more in the first 100 decisions. The whole
    episode returns -268 to -393, ahead -335 to -352: the right way returned more on eight of the ten.
    """
    rewards, successes, ant, block = drag([(-7, 0), (-7, 8), (-0.5, 8), (-1.3, 16), (0, 19)], seed)
    assert successes[-1] and not successes[:100].any()
    assert np.linalg.norm(ant - (0, 19)) < 1.0 and np.abs(block).max() < 12.5
    ahead, never, ant, block = drag([(0, 19)], seed)
    assert not never.any() and ahead[:100].sum() > rewards[:100].sum() + 20.0
    np.testing.assert_allclose(block, (0, 16), atol=0.3)  # in the room's entrance, against its far wall


def test_ant_push_has_a_wall_to_the_right():
    _, never, ant, _ = drag([(7, 0), (7, 8)])
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


def test_ant_s_starts_and_motors():
    env = make_env("ant-push", seed=1)
    starts = np.array([env.reset()[0] for _ in range(50)])
    spread = np.abs(starts[:, :15] - env.unwrapped.model.qpos0[:15]).max(0)
    assert (spread > 0.05).all() and (spread <= 0.1 + 1e-6).all()
    assert (starts[:, 15:29].std(0) > 0.05).all() and (starts[:, 15:29].std(0) < 0.15).all()
    assert (env.unwrapped.model.actuator_gear[:, 0] == 30.0).all()


# --- cabinet


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
    for left, right in ((0.0, 0.0), (0.5, 0.0), (1.5, 0.3), (0.2, 1.5), (1.5, 1.5), (-0.05, 0.3), (0.3, -0.05)):
        env.reset()
        env.data.qpos[-2:] = -left, right
        obs, reward, _, _, info = env.step(np.zeros(12))  # of the task, without its wrapper
        angles = env.data.qpos[-2:] * (-1.0, 1.0)  # openings; a door pushed inwards pays nothing
        openings = np.maximum(angles, 0.0) / 1.57
        fingers = [env.data.site(f"{name}finger").xpos for name in ("left", "right")]
        handles = [env.data.site(f"hinge_site{i}").xpos for i in (1, 2)]
        distances = [np.mean([np.linalg.norm(finger - handle) for finger in fingers]) for handle in handles]
        expected = np.clip(openings / 0.9, 0.0, 1.0).sum() + 1.0 * (openings[0] >= 0.9) + 2.0 * (openings[1] >= 0.9)
        assert reward == pytest.approx(expected - 2.0 * min(distances))
        assert info["success"] == float(openings[1] >= 0.9)
        assert min(left, right) >= 0.0 or angles.min() < -5e-4  # it is still inside
        np.testing.assert_allclose(obs[3:5], angles, atol=1e-6)


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


# --- rendering


def render_after(env_id, action, decisions):
    """Frames before and after some decisions."""
    env = make_env(env_id, seed=1, render_mode="rgb_array")
    env.reset()
    frames = [env.render()]
    for _ in range(decisions):
        env.step(action(env))
    frames.append(env.render())
    env.close()
    return frames


@pytest.mark.parametrize("env_id", DRAWN_BY_OPENGL)
def test_frames(opengl, env_id):
    """Looked at by eye; here: the right size, not black, and moving, with up above and the task in view."""

    def action(env):
        action = np.zeros(env.action_space.shape, np.float32)
        action[slice(-9 + 3, -9 + 4) if "cabinet" in env_id else slice(None)] = 1.0  # the arm: straightens the elbow
        return action

    frames = render_after(env_id, action, 8)
    assert frames[0].shape == (320, 320, 3) and frames[0].dtype == np.uint8 and frames[0].std() > 20
    frame, later = (frame.astype(int) for frame in frames)
    assert (np.abs(later - frame) > 30).mean() > (0.0005 if env_id == "ant-push" else 0.005)
    if env_id in ADROIT:  # nothing but black behind, at the top; the marble table at the bottom
        assert frame[:5].mean() < 20 < 100 < frame[240:300, 100:220].mean()
    if env_id == "ant-push":  # the block is ahead of the ant, above it
        red = (frame[:, :, 0] > 180) & (frame[:, :, 1] < 90)
        blue = frame[:, :, 2] > frame[:, :, 0] + 60
        assert red.mean() > 0.03 and blue.sum() > 30
        assert np.nonzero(red)[0].mean() < np.nonzero(blue)[0].mean() - 20
    if "cabinet" in env_id:  # the hand goes up: where the arm has come to is above where it has gone from
        brighter = (later - frame).sum(2)
        rows = [np.nonzero(pixels)[0].mean() for pixels in (brighter > 60, brighter < -60)]
        assert rows[0] < rows[1] - 20


def test_numpy_draws_without_opengl():
    code = (
        "import envs\n"
        "for i in ('block-push', 'block-push-pixels', 'maze'):\n"
        "    env = envs.make_env(i, render_mode='rgb_array'); env.reset(); f = env.render()\n"
        "    print(f.shape, f.dtype, f[262, 160].tolist(), f[160, 73].tolist(), f[160, 160].tolist())"
    )
    lines = python(code, MUJOCO_GL="disable", DISPLAY=None).splitlines()
    assert lines[0] == lines[1].replace("[230, 230, 230]", "[64, 191, 64]")  # there is no second block
    assert lines[0] == "(320, 320, 3) uint8 [191, 64, 64] [64, 64, 191] [64, 191, 64]"
    assert lines[2].endswith("[255, 255, 255] [200, 30, 30]")


# --- the command line, imports, errors


def command(cwd, script, *arguments):
    return subprocess.run([sys.executable, ROOT / script, *arguments], cwd=cwd, capture_output=True, text=True)


def test_list(tmp_path):
    lines = [line.split() for line in command(tmp_path, "envs.py").stdout.splitlines()]
    for env_id, (shape, object_dim, act_dim, horizon, rewards) in IDS.items():
        options = "goal=0,0 to goal=4,4" if env_id == "maze" else ", ".join(envs.OPTIONS.get(env_id, ()))
        row = [env_id, "x".join(map(str, shape)), object_dim, act_dim, horizon, rewards, *options.split()]
        assert list(map(str, row)) in lines
    assert any("metaworld-window-open" in line for line in lines)


@pytest.mark.parametrize("name, frames", [("block-push-1 random-blocks", 61), ("maze goal=4,4", 51)])
def test_film(tmp_path, name, frames):
    import imageio.v2 as imageio

    env_id, option = name.split()
    run = command(tmp_path, "envs.py", env_id, "--seed", "3", "--env-options", option)
    assert run.returncode == 0 and run.stdout.startswith(f"videos/{env_id}.mp4: {{'episodic_return': 0.0"), run.stderr
    with imageio.get_reader(tmp_path / f"videos/{env_id}.mp4") as reader:
        assert reader.count_frames() == frames and reader.get_data(0).shape == (320, 320, 3)


def test_an_episode_without_pictures_or_end(tmp_path, monkeypatch):
    """`python envs.py module:Id` plays it all the same; ':' and '/' are no part of a file's name."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))
    run = command(tmp_path, "envs.py", "toy_envs:ToyNoPictures-v0", "--env-kwargs", "scale=0.5")
    lines = run.stdout.splitlines()
    assert lines[0] == "no pictures: toy_envs:ToyNoPictures-v0 cannot be rendered: its class takes no render_mode"
    assert (
        lines[1].startswith("toy_envs:ToyNoPictures-v0: {'episodic_return': ") and "'episodic_length': 20.0" in lines[1]
    )
    assert len(lines) == 2 and not (tmp_path / "videos").exists()
    run = command(tmp_path, "envs.py", "toy_envs:Toy/Endless-v0")
    assert run.stdout.startswith("videos/toy_envs-Toy-Endless-v0.mp4: no end within 1000 decisions"), run.stderr


def test_what_a_user_gets_wrong(tmp_path):
    for arguments, words in (("block-pus", "nearest known: block-push"), ("Pendulum-v1 --env-options x", "no options")):
        run = command(tmp_path, "envs.py", *arguments.split())
        assert run.returncode == 2 and words in run.stderr and run.stderr.count("\n") == 1


def test_the_readmes_own_environment_has_no_frames(tmp_path, monkeypatch):
    blocks = [part.split("```")[0] for part in (ROOT / "README.md").read_text().split("```python\n")[1:]]
    (tmp_path / "mine.py").write_text(next(block for block in blocks if "class Mine(gym.Env)" in block))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    reason = "mine:Mine-v0 cannot be rendered: its class takes no render_mode"
    run = command(tmp_path, "rpg.py", "--env-id", "mine:Mine-v0", "--capture-video")
    assert run.returncode and "Traceback" not in run.stderr and run.stderr.endswith(f"{reason}\n")
    run = command(tmp_path, "envs.py", "mine:Mine-v0")
    assert run.returncode == 0 and run.stdout.startswith(f"no pictures: {reason}\nmine:Mine-v0: ")


def test_state_script_refuses_images(tmp_path):
    run = command(tmp_path, "rpg.py", "--env-id", "block-push-pixels")
    what = "this environment is seen as an image, (64, 64, 3)"
    advice = "this script is for state observations, rpg_pixels.py for images"
    assert (run.returncode, run.stderr) == (2, f"rpg.py: error: {what}; {advice}\n")


@pytest.mark.parametrize("env_id", ["adroit-door", "cabinet-sparse"])
def test_without_gymnasium_robotics(monkeypatch, env_id):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=f"^{env_id} needs gymnasium-robotics: pip install gymnasium-robotics==1"):
        make_env(env_id)


def test_making_tasks_is_quiet_and_light():
    heavy = "print([name for name in ('torch', 'metaworld', 'gymnasium_robotics', 'mujoco') if name in sys.modules])"
    code = f"import sys, envs; envs.make_env('maze'); {heavy}; envs.make_env('ant-push')"
    code += f"; envs.make_env('cabinet-dense'); {heavy}; envs.make_env('adroit-door'); {heavy}"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout.splitlines() == ["[]", "['mujoco']", "['gymnasium_robotics', 'mujoco']"] and run.stderr == ""

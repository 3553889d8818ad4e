"""The maze of envs.py: its geometry against a slow reference, its contract, and the vector of mazes."""

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import envs

# The walls as segments, straight from the list of closed sides; independent of envs.maze_walls.
CLOSED_BELOW = [(0, 2), (1, 2), (3, 2), (4, 2), (1, 3), (3, 3)]
CLOSED_LEFT = [(1, 0), (2, 0), (3, 1), (4, 1), (2, 3), (4, 3), (1, 4), (2, 4), (3, 4), (4, 4)]


def segments():
    walls = [((0, 0), (0, 5)), ((0, 5), (5, 5)), ((5, 5), (5, 0)), ((5, 0), (0, 0))]
    for x in range(5):
        for y in range(5):
            if y > 0:
                walls += (
                    [((x, y), (x + 1, y))]
                    if (x, y) in CLOSED_BELOW
                    else [((x, y), (x + 0.4, y)), ((x + 0.6, y), (x + 1, y))]
                )
            if x > 0:
                walls += (
                    [((x, y), (x, y + 1))]
                    if (x, y) in CLOSED_LEFT
                    else [((x, y), (x, y + 0.4)), ((x, y + 0.6), (x, y + 1))]
                )
    return np.array(walls) * 2.0 - 5.0  # (W, 2, 2)


def cross(o, a, b):
    return (a[0] - o[0]) * (b[1] - o[1]) - (a[1] - o[1]) * (b[0] - o[0])


def crosses(p, q, a, b):
    """Whether the segments pq and ab properly cross."""
    return cross(p, q, a) * cross(p, q, b) < 0 and cross(a, b, p) * cross(a, b, q) < 0


def test_a_move_ends_where_the_first_wall_is():
    """Against bisection with one segment-segment test after another."""
    rng = np.random.default_rng(0)
    positions, actions = rng.uniform(-4.9, 4.9, (3000, 2)), rng.uniform(-1.5, 1.5, (3000, 2))
    moved, walls, stopped = envs.maze_move(positions, actions), segments(), 0
    for position, action, result in zip(positions, actions, moved):
        step = 0.25 * np.clip(action, -1, 1)
        near = [wall for wall in walls if crosses(position, position + step, *wall)]
        low, high = 0.0, 1.0
        if near:
            stopped += 1
            for _ in range(40):
                middle = (low + high) / 2
                free = not any(crosses(position, position + middle * step, *wall) for wall in near)
                low, high = (middle, high) if free else (low, middle)
        np.testing.assert_allclose(result, position + high * step, atol=1e-4)  # at a shallow angle the margin is long
    assert stopped > 200


def test_no_path_leaves_the_maze_or_passes_a_wall():
    """10⁵ steps of agents that keep a direction for a while, which press against walls and into corners."""
    rng, walls = np.random.default_rng(1), segments()
    position, steps = np.zeros((1000, 2)), 0
    (ax, ay), (bx, by) = walls[:, 0].T, walls[:, 1].T  # (W,)
    for t in range(100):
        if t % 8 == 0:
            action = rng.uniform(-1.3, 1.3, position.shape) * rng.integers(0, 2, position.shape) ** (t % 3 == 0)
        new = envs.maze_move(position, action)
        assert (np.abs(new) < 5).all()
        (px, py), (qx, qy) = position.T[:, :, None], new.T[:, :, None]  # (N, 1)
        side_a = (qx - px) * (ay - py) - (qy - py) * (ax - px)  # (N, W)
        side_b = (qx - px) * (by - py) - (qy - py) * (bx - px)
        side_p = (bx - ax) * (py - ay) - (by - ay) * (px - ax)
        side_q = (bx - ax) * (qy - ay) - (by - ay) * (qx - ax)
        assert not ((side_a * side_b < 0) & (side_p * side_q < 0)).any()
        position, steps = new, steps + len(position)
    assert steps == 100_000


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("axis", [0, 1])
def test_no_move_ends_on_a_wall(axis, side):
    """A whole step towards the outer wall from a quarter before it, or an ulp more or less: it stops before it."""
    for share in (1.0, np.nextafter(1, 0), np.nextafter(1, 2), np.nextafter(np.float32(1), np.float32(0))):
        for start in (4.75, np.nextafter(4.75, 0), np.nextafter(4.75, 5)):
            position, action = np.array([0.5, 0.5]), np.zeros(2)
            position[axis], action[axis] = side * start, side * share
            moved = envs.maze_move(position, action)
            assert moved[1 - axis] == 0.5 and 5 - 1.1e-6 < side * moved[axis] < 5 - 0.9e-6
            assert abs(envs.maze_move(moved, -action)[axis]) < 4.8  # it is not stuck there


def test_all_cells_are_reached_through_the_passages_alone():
    """From cell to cell through the middle of a side where no wall is; those are the sides that maze_move lets by."""
    reached, front = {(2, 2)}, [(2, 2)]
    while front:
        x, y = front.pop()
        for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            position = np.array([x, y]) * 2.0 - 4.0
            for _ in range(8):
                position = envs.maze_move(position, np.array([dx, dy]))
            cell = x + dx, y + dy
            side, closed = ((max(x, cell[0]), y), CLOSED_LEFT) if dx else ((x, max(y, cell[1])), CLOSED_BELOW)
            open_side = min(cell) >= 0 and max(cell) < 5 and side not in closed
            assert (np.floor((position + 5) / 2) == cell).all() == open_side
            if open_side and cell not in reached:
                reached.add(cell), front.append(cell)
    assert len(reached) == 25


def test_environment_contract():
    env = envs.make_env("maze", 0, "rgb_array", ("goal=3,2",))
    check_env(env.unwrapped, skip_render_check=True)
    obs, _ = env.reset()
    np.testing.assert_array_equal(obs, 0)
    rewards = []
    for t in range(50):
        obs, reward, terminated, truncated, info = env.step(np.array([0.45, 0.0]))
        position = obs[-2:] * 5
        np.testing.assert_allclose(obs[:2], 0.01 * position, rtol=1e-5)
        assert not terminated and truncated == (t == 49) and env.success == reward == (1 < position[0] < 3)
        rewards.append(reward)
    assert position[0] > 3 and 10 < sum(rewards) < 20
    np.testing.assert_array_equal(info[envs.SUMMARY_KEY], [sum(rewards), 50, 0, 1])
    no_goal = envs.make_env("maze")
    no_goal.step(np.zeros(2))
    assert np.isnan(no_goal.success)


def test_vector_of_mazes_is_many_mazes():
    import gymnasium as gym

    options = ("goal=2,3",)
    one_call = envs.make_vector_env("maze", 4, 0, options=options)
    loop = gym.vector.SyncVectorEnv(
        [lambda: envs.make_env("maze", 0, None, options)] * 4, autoreset_mode=gym.vector.AutoresetMode.NEXT_STEP
    )
    assert isinstance(one_call, envs.VectorMaze)
    np.testing.assert_array_equal(one_call.reset(seed=1)[0], loop.reset(seed=1)[0])
    rng, summaries = np.random.default_rng(2), 0
    for _ in range(160):
        actions = (rng.uniform(-1, 1, (4, 2)) + [0, 0.4]).astype(np.float32)
        ours, theirs = one_call.step(actions), loop.step(actions)
        for a, b in zip(ours[:4], theirs[:4]):
            np.testing.assert_allclose(a, b, atol=1e-7)
        assert set(ours[4]) == set(theirs[4]) - {f"_{envs.SUMMARY_KEY}"}
        if ours[4]:
            summaries += 1
            np.testing.assert_array_equal(ours[4][envs.SUMMARY_KEY], theirs[4][envs.SUMMARY_KEY])
    assert summaries == 3


def test_picture():
    env = envs.make_env("maze", 0, "rgb_array", ("goal=0,4",))
    for _ in range(3):
        env.step(np.array([1.0, 0.0]))
    frame = env.render()
    assert frame.shape == (320, 320, 3) and frame.dtype == np.uint8
    green, red = ((frame == colour).all(-1).nonzero() for colour in ((160, 220, 160), (200, 30, 30)))
    assert green[0].max() < 70 and green[1].max() < 70  # cell (0, 4) is top left
    assert red[1].mean() > 175 and abs(red[0].mean() - 160) < 4  # the agent right of the centre


def test_bad_input():
    with pytest.raises(ValueError, match="no option 'goal=5,0'.*goal=0,0"):
        envs.make_env("maze", 0, None, ("goal=5,0",))
    with pytest.raises(ValueError, match="no option"):
        envs.make_vector_env("maze", 3, 0, options=("x",))
    with pytest.raises(ValueError, match="nearest known: maze"):
        envs.make_env("mase")

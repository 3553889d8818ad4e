"""Scripts that solve the tasks of envs.py, for test_tasks.py: they see the simulator, and act through step()."""

import copy
import itertools

import mujoco
import numpy as np

import envs
from envs import make_env


def play(env, act):
    """Play the current episode to its end with act(); the success at each decision."""
    successes, truncated = [], False
    while not truncated:
        _, reward, terminated, truncated, _ = env.step(act())
        assert reward == env.success and reward in (0.0, 1.0) and not terminated
        successes.append(reward)
    return successes


# --- Adroit: short-horizon planning


def distance(x, y):
    return np.linalg.norm(x - y)


def door_cost(data):
    palm, handle = data.site("S_grasp").xpos, data.site("S_handle").xpos
    hinge, latch = data.qpos[28:30]
    return 0.3 * distance(palm, handle) - 0.5 * min(latch, 1.5) - 4.0 * hinge


def hammer_cost(data):
    palm, tool, nail, goal = (data.site(name).xpos for name in ("S_grasp", "tool", "S_target", "nail_goal"))
    return distance(palm, data.body("Object").xpos) + 2.0 * distance(tool, nail) + 20.0 * distance(nail, goal)


def pen_cost(data):
    ends = ("object_top", "object_bottom", "target_top", "target_bottom")
    top, bottom, target_top, target_bottom = (data.site(name).xpos for name in ends)
    cosine = (top - bottom) @ (target_top - target_bottom) / distance(top, bottom) / distance(target_top, target_bottom)
    return 3.0 * distance(data.body("Object").xpos, data.site("eps_ball").xpos) + 1.0 - cosine


def relocate_cost(data):
    palm, ball, target = data.site("S_grasp").xpos, data.body("Object").xpos, data.site("target").xpos
    return distance(palm, ball) + 2.0 * distance(ball, target)


def plan(env, cost, samples=40, horizon=16, knots=4, noise=0.5, elites=6):
    """Plan anew at each decision, with random splines around the last plan, until success; the successes so far.

    The planner's simulator is the true one at twice its time step and without its slip correction: 2.5 times as fast.
    """
    task, rng = env.unwrapped, np.random.default_rng(0)
    data, middle, half_range = task.data, task.sim.act_mean, task.sim.act_rng
    model = copy.copy(task.model)
    model.opt.timestep, model.opt.noslip_iterations = 2.0 * model.opt.timestep, 0
    imagined, spec = mujoco.MjData(model), mujoco.mjtState.mjSTATE_INTEGRATION
    state = np.empty(mujoco.mj_stateSize(model, spec))
    posture = data.qpos[model.jnt_qposadr[model.actuator_trnid[:, 0]]]
    mean = np.tile(np.clip((posture - middle) / half_range, -1.0, 1.0), (horizon, 1))
    splines = np.stack([np.interp(np.linspace(0, knots - 1, horizon), range(knots), row) for row in np.eye(knots)], 1)
    successes, truncated = [0.0], False
    while not (successes[-1] or truncated):
        mujoco.mj_getState(task.model, data, state, spec)
        plans = mean + noise * splines @ rng.standard_normal((samples, knots, model.nu))
        plans[0] = mean
        plans, costs = np.clip(plans, -1.0, 1.0), np.zeros(samples)
        for i, actions in enumerate(plans):
            mujoco.mj_setState(model, imagined, state, spec)
            for action in actions:
                imagined.ctrl[:] = middle + half_range * action
                mujoco.mj_step(model, imagined, nstep=task.substeps // 2)
                costs[i] += cost(imagined)
        best = np.argsort(costs)[:elites]
        weights = np.exp((costs[best[0]] - costs[best]) / (costs[best].std() + 1e-9))
        mean = np.tensordot(weights / weights.sum(), plans[best], 1)
        _, reward, _, truncated, _ = env.step(mean[0].astype(np.float32))
        successes.append(reward)
        mean = np.concatenate((mean[1:], mean[-1:]))
    return successes[1:]


# --- BlockPush: go behind a block, push it along one axis, then along the other

TOUCH, REACH = 0.4, 0.32  # m: between the centres of blocks that touch; how far the pusher gets in a decision
GRID = np.round(np.arange(-1.8, 1.81, 0.1), 1)


def is_free(point, blocks):
    return bool((np.abs(point - blocks).max(-1) > TOUCH + 0.01).all())


def way(start, target, blocks):
    """Breadth-first over a grid from the target; the farthest point of the way that can be reached in a line."""

    def line_is_free(point):
        return all(is_free(start + t * (point - start), blocks) for t in np.linspace(0.2, 1.0, 9))

    if line_is_free(target):
        return target
    cells = {(i, j): is_free(np.array((x, y)), blocks) for i, x in enumerate(GRID) for j, y in enumerate(GRID)}
    goal, here = (tuple(np.abs(GRID[:, None] - point).argmin(0).tolist()) for point in (target, start))
    came_from, queue = {goal: goal}, [goal]
    for cell in queue:
        for move in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            following = cell[0] + move[0], cell[1] + move[1]
            if following not in came_from and (cells.get(following) or following == here):
                came_from[following] = cell
                queue.append(following)
    path, cell = [], here
    while cell in came_from and cell != goal:
        cell = came_from[cell]
        path.append(np.array((GRID[cell[0]], GRID[cell[1]])))
    reachable = [point for point in path if line_is_free(point)]
    return reachable[-1] if reachable else path[0] if path else target


def legs(blocks, goals):
    """The first order of pushes (block, axis) whose ways no other block bars."""
    n = len(blocks)
    for order in itertools.permutations(range(n)):
        for first_axes in itertools.product((0, 1), repeat=n):
            places, pushes, barred = blocks.copy(), [], False
            for i in order:
                for axis in (first_axes[i], 1 - first_axes[i]):
                    shift = goals[i, axis] - places[i, axis]
                    if abs(shift) < 0.1:  # near enough
                        continue
                    side, end = np.sign(shift) * np.eye(2)[axis], places[i] + shift * np.eye(2)[axis]
                    others = np.delete(places, i, 0)
                    swept = [places[i] - 1.05 * TOUCH * side, *np.linspace(places[i], end, 12)]
                    barred |= not all(is_free(point, others) for point in swept)
                    pushes.append((i, axis))
                    places[i] = end
            if not barred:
                return pushes
    return pushes


def pusher_script(env, noise=0.0, seed=0):
    """act() for play(): solves BlockPush from the state of the simulator."""
    task, rng = env.unwrapped, np.random.default_rng(seed)
    goals, pushes = task._goals, []  # pushes: (block, axis) still to do

    def act():
        blocks, pusher = task._blocks, task._positions[-1].copy()
        if not pushes:
            pushes.extend([] if (np.abs(goals - blocks) < 0.12).all() else legs(blocks, goals))
        while pushes and abs(goals[pushes[0]] - blocks[pushes[0]]) < 0.05:
            pushes.pop(0)
        if not pushes:
            return np.zeros(2, np.float32)
        i, axis = pushes[0]
        along = np.eye(2)[axis]
        side = np.sign(goals[i, axis] - blocks[i, axis]) * along
        behind = blocks[i] - 1.05 * TOUCH * side
        off = pusher - behind
        if abs(off @ (1.0 - along)) < 0.1 and abs(off @ along) < 0.1:  # there: push
            step = goals[i] - TOUCH * side - pusher
            step = step * along * REACH / 0.18 + (behind - pusher) * (1.0 - along)  # pushing is slower than moving
        else:
            step = way(pusher, behind, blocks) - pusher
        step = step / REACH
        step = step / max(1.0, np.abs(step).max())
        return np.clip(step + noise * rng.standard_normal(2), -1.0, 1.0).astype(np.float32)

    return act


# --- cheetah-back

FREQUENCY, PHASES = 19.9, np.array([3.4, 0.5, 1.2, 5.6, 2.0, 1.5])  # rad/s, rad: found by random search


def sinusoids(env):
    times = itertools.count()
    dt = 1.0 / env.metadata["render_fps"]
    return lambda: np.sin(FREQUENCY * dt * next(times) + PHASES).astype(np.float32)


# --- ant-push: a dragged torso


def drag(points, seed=3, speed=1.8, force=60.0, decisions=400):
    """An episode in which a force (N) on the torso drags the ant past the points (m), and holds it at the last.

    Returns rewards, successes, and the positions at the end: ant xy, block xy.
    """
    env, points, rewards, successes = make_env("ant-push", seed), [np.array(point, float) for point in points], [], []
    data = env.unwrapped.data
    env.reset()
    for _ in range(decisions):
        if len(points) > 1 and np.linalg.norm(points[0] - data.qpos[:2]) < 0.6:
            points.pop(0)
        way = points[0] - data.qpos[:2]
        velocity = way * min(1.0, speed / np.linalg.norm(way))
        push = 40.0 * (velocity - data.qvel[:2])
        data.body("torso").xfrc_applied[:2] = push * min(1.0, force / np.linalg.norm(push))
        obs, reward, _, _, _ = env.step(np.zeros(8))
        rewards.append(reward)
        successes.append(env.success)
    np.testing.assert_allclose(obs[30:32], [data.qpos[15], 8.0 + data.qpos[16]], atol=1e-5)
    return np.array(rewards), np.array(successes), data.qpos[:2].copy(), obs[30:32]


# --- cabinet: inverse kinematics

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
        _, reward, _, _, _ = self.env.step(action.astype(np.float32))
        self.rewards.append(reward)
        self.successes.append(self.env.success)

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

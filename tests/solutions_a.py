"""Solutions of the tasks that test_tasks_a.py shows to be solvable: they see the simulator, and act through step()."""

import copy
import itertools

import mujoco
import numpy as np


def play(env, act):
    """Play the current episode to its end with act(); the success at each decision."""
    successes, truncated = [], False
    while not truncated:
        _, reward, terminated, truncated, info = env.step(act())
        assert reward == info["success"] and reward in (0.0, 1.0) and not terminated
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
    model.opt.timestep, model.opt.noslip_iterations = 0.004, 0
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
                mujoco.mj_step(model, imagined, nstep=5)
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
    goals, pushes = task._goals.reshape(-1, 2), []  # pushes: (block, axis) still to do

    def act():
        blocks, pusher = task._blocks.reshape(-1, 2), task._pusher.copy()
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

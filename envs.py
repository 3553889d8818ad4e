"""Environments for RPG: Meta-World's 50 v3 tasks with a sparse reward, and every id that gymnasium.make knows.

    make_env("metaworld-basketball", seed=1)        one environment
    make_vector_env("Humanoid-v5", 5, seed=1)       five of them, in this process or in worker processes

Every environment has a 1-D action space [-1, 1] and a 1-D float32 observation. What a user can get wrong (an unknown
id, a missing package, discrete actions, no renderer) raises ValueError with one line that names the fix.
"""

from __future__ import annotations

import ctypes.util
import difflib
import functools
import math
import os
import re
import signal
import sys
import warnings
from pathlib import Path
from typing import Any, Sequence

import gymnasium as gym
import numpy as np

# MuJoCo reads this once, at its import, and that import fails if the library is missing: name EGL only where it is.
if sys.platform.startswith("linux") and not os.environ.get("DISPLAY") and ctypes.util.find_library("EGL"):
    os.environ.setdefault("MUJOCO_GL", "egl")

METAWORLD = "metaworld-"  # our ids are this and the package's task name without its '-v3'
OPTIONS = {  # environment id -> its switches
    "metaworld-basketball": ("fixed-ball",),  # ball at (0, .6, .03) m as in the paper's v2 task; the basket is random
}

# Meta-World: lengths in metres, thresholds of success as in metaworld 3.1.1
ACTION_REPEAT = 2  # simulator calls a decision, each 5 substeps of 2.5 ms
EPISODE_LENGTH = 100  # decisions
OBS_SCALE = 0.05  # official code: on the package's 39 numbers
COORDINATE_SCALE = 0.4  # official code: object coordinates are divided by it before symlog
GRIPPER_RANGE = 0.1  # distance between the claws that is observed as an opening of 1
FIXED_BALL_XY = (0.0, 0.6)
HOOP_HEIGHT, HOOP_RADIUS = 0.3, 0.08  # basketball: ball within this radius of a point above the hoop, z errors doubled
THERMOS_RADIUS = 0.12  # stick-pull: thermos handle to goal
STICK_Y, STICK_Z = 0.04, 0.06  # stick-pull: how far the stick's end may be off the handle
FRAME_SIZE = 320  # pixels, height and width of a rendered frame


class Scene(gym.Env):
    """What the simulated tasks here share: frames of `self.model` and `self.data` from the class's free camera."""

    metadata = {"render_modes": ["rgb_array"]}
    camera: dict[str, Any]  # lookat and distance in m, azimuth and elevation in degrees; z is up
    _renderer = None

    def render(self) -> np.ndarray | None:
        if self.render_mode != "rgb_array":
            return None
        if self._renderer is None:
            from gymnasium.envs.mujoco.mujoco_rendering import MujocoRenderer

            self.model.vis.quality.shadowsize = 0  # software rendering spends 99 % of its time on the shadow map
            self._renderer = MujocoRenderer(self.model, self.data, self.camera, FRAME_SIZE, FRAME_SIZE)
        return self._renderer.render("rgb_array")

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def sparse(task_class: type) -> type:
    """The package's task without the costly parts of its dense reward that `info["success"]` does not read."""

    class Sparse(task_class):
        def _reset_hand(self, steps: int = 50) -> None:
            super()._reset_hand(steps if self._freeze_rand_vec else 1)  # a reset's first pass wants only the layout

        def _gripper_caging_reward(self, *args: Any, **kwargs: Any) -> float:
            return 0.0

        if task_class.__name__ != "SawyerStickPushEnvV3":  # stick-push alone needs the grasp for its success
            touching_main_object = False

    return Sparse


class MetaWorld(Scene):
    """A Meta-World v3 task with sparse reward; fresh random goal and objects at every reset.

    Action (4,): [hand xyz, one unit moves the hand's target by 0.01 m; gripper, -1 opens and 1 closes], for 2 calls of
      the simulator.
    Observation (46,) float32: the package's 39 numbers times 0.05 (m): hand 3, gripper opening 0..1, first object's
      position 3 and quaternion 4, second object's (zeros if none), these 18 as they were one call ago, goal 3; then
      `object_dim` = 7 raw coordinates for the script's positional encoding (see `_observation`).
    Reward: 1.0 if the task's success holds after the decision's last simulator call, else 0.0; also info["success"].
    Never terminated, not on success either; truncated after 100 decisions.
    """

    metadata = Scene.metadata | {"render_fps": 40}  # 25 ms a decision
    # Not one of the package's cameras: the corner ones are upside down in v3.
    camera = {"lookat": (0.0, 0.65, 0.15), "distance": 1.3, "azimuth": 130.0, "elevation": -25.0}
    object_dim = 7

    def __init__(self, task: str, render_mode: str | None = None, options: Sequence[str] = ()) -> None:
        import mujoco  # both here: whoever uses other environments should not wait for these
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS

        self.task, self.render_mode, self._mujoco = task, render_mode, mujoco
        self.sim = sim = sparse(ALL_V3_ENVIRONMENTS[f"{task}-v3"])()
        sim._partially_observable = False  # show the goal ...
        sim.__dict__.pop("sawyer_observation_space", None)  # ... which bounds cached while it was hidden would clip
        sim._freeze_rand_vec, sim.seeded_rand_vec, sim._set_task_called = False, True, True  # new goals, from our seed
        if "fixed-ball" in options:
            space = sim._random_reset_space
            space.low[:2] = space.high[:2] = FIXED_BALL_XY
        self.action_space = gym.spaces.Box(-1.0, 1.0, (4,), np.float32)
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (39 + self.object_dim,), np.float32)
        self._low, self._high = sim.sawyer_observation_space.low, sim.sawyer_observation_space.high

        self.model, self.data = sim.model, sim.data
        data = sim.data  # what follows are views into the simulator's memory, which stay valid
        self._hand, self._right_claw, self._left_claw = (data.body(b).xpos for b in ("hand", "rightclaw", "leftclaw"))
        self._right_finger, self._left_finger = (data.site(s).xpos for s in ("rightEndEffector", "leftEndEffector"))
        self._mocap, self._ctrl = data.mocap_pos[0], data.ctrl
        if task == "stick-pull":
            self._stick, self._stick_quat = data.body("stick").xpos, data.body("stick").xquat
            self._handle, self._stick_end = data.site("insertion").xpos, data.site("stick_end").xpos

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        sim, mujoco = self.sim, self._mujoco
        sim.np_random = self.np_random  # the package's own reset ignores a seed
        # Two passes, as in the package: draw and place everything, then let hand and objects settle there. If they
        # settled among the bodies of the last episode, an episode would depend on those before it.
        for keep_layout in (False, True):
            sim._freeze_rand_vec = keep_layout
            mujoco.mj_resetData(sim.model, sim.data)
            sim.reset_model()
        self._frame = self._observe()
        self._decisions = 0
        self._simulate(np.zeros(4))  # official code: one zero action after a reset
        return self._observation(self._package_obs()), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        action = np.minimum(np.maximum(np.asarray(action, np.float64), -1.0), 1.0)
        for _ in range(ACTION_REPEAT):
            self._simulate(action)
        self._decisions += 1
        obs = self._package_obs()
        success = float(self._success(obs, action))
        return self._observation(obs), success, False, self._decisions >= EPISODE_LENGTH, {"success": success}

    def _simulate(self, action: np.ndarray) -> None:
        """One simulator call, state for state that of SawyerXYZEnv.step; keeps the frames before and after it."""
        sim, mocap = self.sim, self._mocap
        np.minimum(np.maximum(mocap + action[:3] * sim.action_scale, sim.mocap_low), sim.mocap_high, out=mocap)
        self._ctrl[:] = action[3], -action[3]
        self._mujoco.mj_step(sim.model, sim.data, nstep=sim.frame_skip)
        self._mujoco.mj_forward(sim.model, sim.data)  # mj_step leaves positions one substep behind
        self._previous, self._frame = self._frame, self._observe()

    def _observe(self) -> np.ndarray:
        """(18,): hand 3, gripper opening, then 7 numbers each for the first and the second object."""
        frame = np.zeros(18)
        frame[:3] = self._hand
        claws = self._right_claw - self._left_claw
        frame[3] = math.sqrt(claws.dot(claws)) / GRIPPER_RANGE
        if self.task == "stick-pull":  # the package spends 0.13 ms on this quaternion
            frame[4:7], frame[11:14] = self._stick, self._handle
            w, x, y, z = self._stick_quat.tolist()
            sign = math.copysign(1.0, max(w, x, y, z, key=abs))
            frame[7:11] = sign * x, sign * y, sign * z, sign * w
        else:
            positions, quaternions = self.sim._get_pos_objects(), self.sim._get_quat_objects()
            frame[4:7], frame[7:11] = positions[:3], quaternions[:4]
            if len(positions) == 6:
                frame[11:14], frame[14:18] = positions[3:], quaternions[4:]
        return frame

    def _package_obs(self) -> np.ndarray:
        """(39,) float64, as the package returns it; the bounds also keep the gripper's opening below 1."""
        obs = np.concatenate((self._frame, self._previous, self.sim._get_pos_goal()))
        return np.minimum(np.maximum(obs, self._low), self._high)

    def _observation(self, obs: np.ndarray) -> np.ndarray:
        """(46,) float32 from the package's (39,): these scaled, two vectors as symlog(./0.4 m), the gripper's opening.

        The vectors of basketball and stick-pull are the official code's. Ours for the others: the object to the
        fingers, and to what it must meet: the second object if there is one (a tool's target), else the goal. In the
        reach tasks the object is a distractor, and it is the fingers that must meet the goal.
        """
        fingers = (self._right_finger + self._left_finger) / 2.0
        object1, object2, goal = obs[4:7], obs[11:14], obs[36:39]
        if self.task == "basketball":
            vectors = fingers - object1, object1
        elif self.task == "stick-pull":
            vectors = object1 - object2, object1 - fingers
        elif self.task in ("reach", "reach-wall"):
            vectors = fingers - goal, goal
        else:
            vectors = fingers - object1, object1 - (object2 if object2.any() else goal)
        coordinates = np.concatenate(vectors) / COORDINATE_SCALE
        coordinates = np.sign(coordinates) * np.log1p(np.abs(coordinates))  # symlog
        return np.concatenate((obs * OBS_SCALE, coordinates, obs[3:4]), dtype=np.float32)

    def _success(self, obs: np.ndarray, action: np.ndarray) -> bool:
        if self.task == "basketball":
            error = obs[4:7] - self.sim._target_pos
            error[2] = 2.0 * (obs[6] - HOOP_HEIGHT)
            return math.sqrt(error.dot(error)) <= HOOP_RADIUS
        if self.task == "stick-pull":
            x, y, z = (self._stick_end - obs[11:14]).tolist()
            inserted = x >= 0.0 and abs(y) <= STICK_Y and abs(z) <= STICK_Z
            return inserted and math.dist(obs[11:14], self.sim._target_pos) <= THERMOS_RADIUS
        return bool(self.sim.evaluate_state(obs, action)[1]["success"])


def one_line(text: Any) -> str:
    return " ".join(str(text).split())


def metaworld_ids() -> list[str]:
    try:
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS
    except ImportError:
        return []
    return [METAWORLD + name.removesuffix("-v3") for name in ALL_V3_ENVIRONMENTS]


def unknown_id(env_id: str) -> ValueError:
    if env_id.startswith(METAWORLD) and not metaworld_ids():
        return ValueError(f"{env_id} needs Meta-World: pip install metaworld==3.1.1")
    nearest = difflib.get_close_matches(env_id, [*metaworld_ids(), *gym.registry], n=3, cutoff=0.0)
    return ValueError(f"unknown environment {env_id!r}; nearest known: {', '.join(nearest)}")


def make_gymnasium(env_id: str, render_mode: str | None) -> gym.Env:
    """gymnasium.make with actions rescaled to [-1, 1] and observations as one float32 vector."""
    try:
        env = gym.make(env_id, **({"render_mode": render_mode} if render_mode else {}))  # not every class takes it
    except gym.error.UnregisteredEnv as error:
        raise unknown_id(env_id) from error
    except (gym.error.Error, ImportError, ValueError) as error:  # if a package is missing, they say which to install
        raise ValueError(f"{env_id!r} cannot be made: {one_line(error)}") from error
    Box, space = gym.spaces.Box, env.action_space
    is_vector = isinstance(space, Box) and np.issubdtype(space.dtype, np.floating) and len(space.shape) == 1
    if not is_vector or not np.isfinite([space.low, space.high]).all():
        discrete = isinstance(space, (gym.spaces.Discrete, gym.spaces.MultiDiscrete, gym.spaces.MultiBinary))
        has = "discrete actions" if discrete else f"the action space {one_line(space)}"
        raise ValueError(f"{env_id} has {has}; RPG needs a bounded Box action space (for example Pendulum-v1)")
    if (space.low != -1.0).any() or (space.high != 1.0).any():
        env = gym.wrappers.RescaleAction(env, space.dtype.type(-1.0), space.dtype.type(1.0))

    space = env.observation_space
    parts = space.values() if isinstance(space, gym.spaces.Dict) else [space]
    if not all(isinstance(part, Box) and len(part.shape) == 1 for part in parts):
        raise ValueError(f"{env_id} has the observation space {one_line(space)}; RPG needs a 1-D Box or a Dict of them")
    if isinstance(space, gym.spaces.Dict):
        env = gym.wrappers.FlattenObservation(env)
    if env.observation_space.dtype != np.float32:
        low, high = env.observation_space.low.astype(np.float32), env.observation_space.high.astype(np.float32)
        env = gym.wrappers.TransformObservation(env, lambda obs: obs.astype(np.float32), Box(low, high))
    return env


def is_opengl_error(error: Exception) -> bool:
    """MuJoCo, PyOpenGL and GLFW share no exception; without its library, PyOpenGL looks functions up in a None."""
    from_opengl = type(error).__module__.split(".")[0] in ("mujoco", "OpenGL", "glfw")
    return from_opengl or re.search(r"\bEGL|OSMesa|MUJOCO_GL|'(egl|gl)[A-Z]", str(error)) is not None


SUMMARY = ("episodic_return", "episodic_length", "success_final", "success_any")


class EpisodeSummary(gym.Wrapper):
    """Adds info["summary"] at an episode's last step: float64 (4,), in the order of SUMMARY. Success is that of the last
    step (the paper's curves) and that of any step, as 0 or 1; nan where the environment's info has no "success"."""

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict]:
        self._return, self._length, self._success_any = 0.0, 0, math.nan
        return self.env.reset(**kwargs)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        success = float(info.get("success", math.nan))
        self._return, self._length = self._return + float(reward), self._length + 1
        self._success_any = np.fmax(self._success_any, success)
        if terminated or truncated:
            info["summary"] = np.array([self._return, self._length, success, self._success_any])
        return obs, reward, terminated, truncated, info


def average(summaries: Sequence[Sequence[float]]) -> dict[str, float]:
    """{name of SUMMARY: mean over the episodes}, without those that are unknown."""
    means = np.mean(summaries, 0).tolist() if summaries else []
    return {name: mean for name, mean in zip(SUMMARY, means) if not math.isnan(mean)}


def save_gif(path: Path, frames: list[np.ndarray], fps: float) -> None:
    """Write frames (height, width, 3) uint8, `fps` a second, as an endless GIF."""
    import imageio  # comes with gymnasium[mujoco]

    skip = math.ceil(fps / 25)  # viewers slow a GIF of more frames a second down
    path.parent.mkdir(exist_ok=True)
    imageio.mimsave(path, frames[::skip], duration=1000 * skip / fps, loop=0)  # milliseconds


def make_env(env_id: str, seed: int = 0, render_mode: str | None = None, options: Sequence[str] = ()) -> gym.Env:
    """One environment. All its episodes follow from `seed`, or from the seed of its last reset(seed=).

    render_mode: None or "rgb_array"; a first frame is drawn at once, so that a missing renderer is found early.
    options: switches out of OPTIONS[env_id].
    """
    for option in options:
        if option not in OPTIONS.get(env_id, ()):
            known = f"its options: {', '.join(OPTIONS[env_id])}" if env_id in OPTIONS else "it has no options"
            raise ValueError(f"{env_id} has no option {option!r}; {known}")
    try:
        if env_id.startswith(METAWORLD):
            if env_id not in metaworld_ids():
                raise unknown_id(env_id)
            env = MetaWorld(env_id.removeprefix(METAWORLD), render_mode, options)
        else:
            env = make_gymnasium(env_id, render_mode)
        env = EpisodeSummary(env)
        env.reset(seed=seed)
        env.action_space.seed(seed)
        if render_mode is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # GLFW's, before it fails
                env.render()
    except gym.error.DependencyNotInstalled as error:  # a renderer in Python, for example pygame
        raise ValueError(f"{env_id} cannot be rendered: {one_line(error)}") from error
    except Exception as error:
        if not is_opengl_error(error):
            raise
        raise ValueError(
            f"no OpenGL ({one_line(error)}): apt install libegl1 libegl-mesa0 libgl1-mesa-dri, or set MUJOCO_GL=osmesa "
            "(apt install libosmesa6); to train without rendering, unset MUJOCO_GL"
        ) from error
    return env


def make_vector_env(
    env_id: str, num_envs: int, seed: int, async_envs: bool = False, options: Sequence[str] = ()
) -> gym.vector.VectorEnv:
    """`num_envs` environments, the i-th made from seed + i. The step after an episode's last one ignores its action
    and returns the next episode's first observation with reward 0 (NEXT_STEP)."""
    makers = [functools.partial(make_env, env_id, seed + i, None, tuple(options)) for i in range(num_envs)]
    mode = gym.vector.AutoresetMode.NEXT_STEP
    if async_envs:
        ctrl_c = signal.signal(signal.SIGINT, signal.SIG_IGN)  # for the workers: a terminal sends it to them too
        try:
            return gym.vector.AsyncVectorEnv(makers, context="spawn", autoreset_mode=mode)
        finally:
            signal.signal(signal.SIGINT, ctrl_c)
    return gym.vector.SyncVectorEnv(makers, autoreset_mode=mode)

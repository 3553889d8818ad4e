"""Environments for RPG: the paper's tasks, and every id that gymnasium.make knows.

    make_env("metaworld-basketball", seed=1)        one environment
    make_vector_env("Humanoid-v5", 5, seed=1)       five of them, in this process or in worker processes
    python envs.py                                  lists the ids of this file with their sizes
    python envs.py ant-push                         shows an episode of one

Every environment has a 1-D action space [-1, 1] and a 1-D float32 observation, or, with frames=n, the last n images.
What a user can get wrong (an unknown id, a missing package, discrete actions, no renderer) raises ValueError
with one line that names the fix.
"""

from __future__ import annotations

import argparse
import ast
import atexit
import contextlib
import ctypes.util
import dataclasses
import datetime
import difflib
import functools
import importlib.util
import inspect
import io
import itertools
import json
import logging
import math
import os
import pickle
import random
import re
import signal
import sys
import threading
import time
import traceback
import warnings
import weakref
import zipfile
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TextIO, get_args, get_origin, get_type_hints

import gymnasium as gym
import numpy as np

# MuJoCo reads this once, at its import, and that import fails if the library is missing: name EGL only where it is.
if sys.platform.startswith("linux") and not os.environ.get("DISPLAY") and ctypes.util.find_library("EGL"):
    os.environ.setdefault("MUJOCO_GL", "egl")
warnings.filterwarnings("ignore", r"\(65\d{3}\) ")  # GLFW's, by their numbers: an exception follows, and says the same

FRAME_SIZE = 320  # pixels, height and width of a rendered frame
PIXELS = 64  # those of an image that is observed
OBS_SCALE = 0.05  # official code: on the observations of Meta-World, Adroit and cabinet-sparse


class Task(gym.Env):
    """What the tasks simulated by MuJoCo share: the spaces, the time limit, what a step returns, and the video.

    Never terminated, not on success either. Actions beyond [-1, 1] are clipped: by MuJoCo, to the actuators' ranges, or
    in `step`.
    """

    metadata = {"render_modes": ["rgb_array"]}  # and render_fps, decisions a second
    horizon: int  # decisions an episode
    substeps: int  # simulator steps a decision
    camera: str | dict[str, Any]  # one of the model's, or lookat and distance in m, azimuth and elevation in degrees
    object_dim = 0  # how many raw coordinates the observation ends in, for the script's positional encoding
    rewards = "sparse"  # 0/1, the success; else "dense"

    def __init__(self, model: Any, data: Any, act_dim: int, obs_dim: int, render_mode: str | None) -> None:
        import mujoco  # here: users of other environments should not wait for it

        self.model = model
        self.data = data
        self.render_mode = render_mode
        self._mujoco = mujoco
        self.metadata = self.metadata | {"render_fps": round(1.0 / (self.substeps * model.opt.timestep))}
        self.action_space = gym.spaces.Box(-1.0, 1.0, (act_dim,), np.float32)
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (obs_dim,), np.float32)
        self._simulate = functools.partial(mujoco.mj_step, model, data, self.substeps)  # a decision; nstep= is slower
        self._renderers: dict[int, Any] = {}  # by the size of their pictures

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> None:
        """What every reset begins with."""
        super().reset(seed=seed)
        self._mujoco.mj_resetData(self.model, self.data)
        self._decisions = 0

    def _end(self, obs: np.ndarray, success: bool, reward: float | None = None) -> tuple:
        """What every step returns; in a sparse task the success is the reward."""
        self._decisions += 1
        success = 1.0 if success else 0.0
        if reward is None:
            reward = success
        return obs, reward, False, self._decisions >= self.horizon, {"success": success}

    def render(self) -> np.ndarray | None:
        if self.render_mode != "rgb_array":
            return None
        return self.picture(FRAME_SIZE)

    def picture(self, size: int) -> np.ndarray:
        """(size, size, 3) uint8, what `camera` sees. Drawn twice as large, and the mean of 2 x 2 pixels taken: as
        smooth as multisampling, in less than half the time where there is no GPU."""
        renderer = self._renderers.get(size)
        if renderer is None:
            renderer = self._make_renderer(2 * size)
            self._renderers[size] = renderer
        frame = draw_by_mujoco(self, renderer, functools.partial(renderer.render, "rgb_array")).astype(np.uint16)
        total = frame[::2, ::2] + frame[::2, 1::2] + frame[1::2, ::2] + frame[1::2, 1::2]
        return ((total + 2) // 4).astype(np.uint8)

    def _make_renderer(self, size: int) -> Any:
        from gymnasium.envs.mujoco.mujoco_rendering import MujocoRenderer

        self.model.vis.quality.offsamples = 0  # no multisampling
        self.model.vis.quality.numslices = 16  # of a round thing, by default 28
        self.model.vis.global_.offwidth = size
        self.model.vis.global_.offheight = size
        camera = {"default_cam_config": self.camera}
        if isinstance(self.camera, str):
            camera = {"camera_name": self.camera}
        return MujocoRenderer(self.model, self.data, width=size, height=size, **camera)

    def close(self) -> None:
        for renderer in self._renderers.values():
            close_renderer(renderer)
        self._renderers.clear()


def draw_by_mujoco(env: gym.Env, renderer: Any, draw: Callable[[], np.ndarray]) -> np.ndarray:
    """draw(), by which a MujocoRenderer of gymnasium's draws for `env`. By itself it uses the OpenGL context that was
    used last, be it another environment's, and none after another one was closed."""
    if renderer.viewer is None:
        import mujoco

        renderer.model.vis.quality.shadowsize = 0  # software rendering spends 99 % of its time on the shadow map ...
        draw()  # makes the viewer
        renderer.viewer.scn.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0  # ... and half of the rest on this
        if "lookat" not in (renderer.default_cam_config or {}):  # not the centre of what happens to be there now
            renderer.viewer.cam.lookat[:] = renderer.model.stat.center
        closer = weakref.finalize(env, close_renderer, renderer)
        closer.atexit = False  # but by a handler of its own, which comes before MuJoCo's, that ends OpenGL
        atexit.register(closer)
    renderer.viewer.make_context_current()
    return draw()


def close_renderer(renderer: Any) -> None:
    """Free what a MujocoRenderer has in its OpenGL context, then the context. Gymnasium frees the context first, then
    what has the same numbers in another environment's, whose pictures are black from then on."""
    if renderer.viewer is not None:
        renderer.viewer.make_context_current()
        renderer.viewer.con.free()
        renderer.close()
        renderer.viewer = None


# Meta-World: lengths in metres, thresholds of success as in metaworld 3.1.1
ACTION_REPEAT = 2  # simulator calls a decision, each 5 steps of 2.5 ms
COORDINATE_SCALE = 0.4  # official code: object coordinates are divided by it before symlog
GRIPPER_RANGE = 0.1  # distance between the claws that is observed as an opening of 1
FIXED_BALL_XY = (0.0, 0.6)
HOOP_HEIGHT, HOOP_RADIUS = 0.3, 0.08  # basketball: ball within this radius of a point above the hoop, z errors doubled
THERMOS_RADIUS = 0.12  # stick-pull: thermos handle to goal
STICK_Y, STICK_Z = 0.04, 0.06  # stick-pull: how far the stick's end may be off the handle


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


class MetaWorld(Task):
    """A Meta-World v3 task with sparse reward; fresh random goal and objects at every reset.

    Action (4,): [hand xyz, one unit moves the hand's target by 0.01 m; gripper, -1 opens and 1 closes], for 2 calls of
      the simulator.
    Observation (46,) float32: the package's 39 numbers times 0.05 (m): hand 3, gripper opening 0..1, first object's
      position 3 and quaternion 4, second object's (zeros if none), these 18 as they were one call ago, goal 3; then
      `object_dim` = 7 raw coordinates for the script's positional encoding (see `_observation`).
    Reward: 1.0 if the task's success holds after the decision's last simulator call, else 0.0; also info["success"].
    Truncated after 100 decisions.
    """

    horizon = 100
    substeps = 5 * ACTION_REPEAT
    object_dim = 7
    # Not one of the package's cameras: the corner ones are upside down in v3. Hand, objects and goals of all tasks are
    # in view, and in an image of 64 x 64 the fastest decision of the hand, 2 cm, moves it by a pixel.
    camera = {"lookat": (0.0, 0.65, 0.1), "distance": 1.2, "azimuth": 142.0, "elevation": -32.0}

    def __init__(self, task: str, render_mode: str | None = None, options: Sequence[str] = ()) -> None:
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS  # here, as above

        self.task = task
        self.sim = sparse(ALL_V3_ENVIRONMENTS[f"{task}-v3"])()
        sim = self.sim
        super().__init__(sim.model, sim.data, 4, 39 + self.object_dim, render_mode)
        sim._partially_observable = False  # show the goal ...
        sim.__dict__.pop("sawyer_observation_space", None)  # ... which bounds cached while it was hidden would clip
        sim._freeze_rand_vec = False  # new goals at every reset ...
        sim.seeded_rand_vec = True  # ... from our seed
        sim._set_task_called = True
        if "fixed-ball" in options:
            space = sim._random_reset_space
            space.low[:2] = FIXED_BALL_XY
            space.high[:2] = FIXED_BALL_XY
        self._low = sim.sawyer_observation_space.low
        self._high = sim.sawyer_observation_space.high

        data = sim.data  # what follows are views into the simulator's memory, which stay valid
        self._hand = data.body("hand").xpos
        self._right_claw = data.body("rightclaw").xpos
        self._left_claw = data.body("leftclaw").xpos
        self._right_finger = data.site("rightEndEffector").xpos
        self._left_finger = data.site("leftEndEffector").xpos
        self._mocap = data.mocap_pos[0]
        self._ctrl = data.ctrl
        if task == "stick-pull":
            self._stick = data.body("stick").xpos
            self._stick_quat = data.body("stick").xquat
            self._handle = data.site("insertion").xpos
            self._stick_end = data.site("stick_end").xpos

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        sim = self.sim
        sim.np_random = self.np_random  # the package's own reset ignores a seed
        # Two passes, as in the package: draw and place everything, then let hand and objects settle there. If they
        # settled among the bodies of the last episode, an episode would depend on those before it.
        for keep_layout in (False, True):
            sim._freeze_rand_vec = keep_layout
            self._mujoco.mj_resetData(sim.model, sim.data)
            sim.reset_model()
        self._frame = self._observe()
        self._package_step(np.zeros(4))  # official code: one zero action after a reset
        return self._observation(self._package_obs()), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        action = np.minimum(np.maximum(np.asarray(action, np.float64), -1.0), 1.0)
        for _ in range(ACTION_REPEAT):
            self._package_step(action)
        obs = self._package_obs()
        return self._end(self._observation(obs), self._success(obs, action))

    def _package_step(self, action: np.ndarray) -> None:
        """One simulator call, state for state that of SawyerXYZEnv.step; keeps the frames before and after it."""
        sim = self.sim
        mocap = self._mocap
        np.minimum(np.maximum(mocap + action[:3] * sim.action_scale, sim.mocap_low), sim.mocap_high, out=mocap)
        self._ctrl[:] = action[3], -action[3]
        self._mujoco.mj_step(sim.model, sim.data, nstep=sim.frame_skip)
        self._mujoco.mj_forward(sim.model, sim.data)  # mj_step leaves positions one substep behind
        self._previous = self._frame
        self._frame = self._observe()

    def _observe(self) -> np.ndarray:
        """(18,): hand 3, gripper opening, then 7 numbers each for the first and the second object."""
        frame = np.zeros(18)
        frame[:3] = self._hand
        claws = self._right_claw - self._left_claw
        frame[3] = math.sqrt(claws.dot(claws)) / GRIPPER_RANGE
        if self.task == "stick-pull":  # the package spends 0.13 ms on this quaternion
            frame[4:7] = self._stick
            frame[11:14] = self._handle
            w, x, y, z = self._stick_quat.tolist()
            sign = math.copysign(1.0, max(w, x, y, z, key=abs))
            frame[7:11] = sign * x, sign * y, sign * z, sign * w
        else:
            positions = self.sim._get_pos_objects()
            quaternions = self.sim._get_quat_objects()
            frame[4:7] = positions[:3]
            frame[7:11] = quaternions[:4]
            if len(positions) == 6:
                frame[11:14] = positions[3:]
                frame[14:18] = quaternions[4:]
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
        object1 = obs[4:7]
        object2 = obs[11:14]
        goal = obs[36:39]
        if self.task == "basketball":
            vectors = fingers - object1, object1
        elif self.task == "stick-pull":
            vectors = object1 - object2, object1 - fingers
        elif self.task in ("reach", "reach-wall"):
            vectors = fingers - goal, goal
        elif object2.any():
            vectors = fingers - object1, object1 - object2
        else:
            vectors = fingers - object1, object1 - goal
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


# Adroit: the package's models
DOOR_ANGLE = {"official": 1.0, "strict": 1.35}  # rad; official code, package
NAIL_DISTANCE = {"official": 0.02, "strict": 0.01}  # m, from the nail to where it is driven in
PEN_DISTANCE, PEN_COSINE = 0.075, 0.95  # m, and of the angle to the wanted direction
BALL_DISTANCE = 0.1  # m, from the ball to its target


class Adroit(Task):
    """gymnasium-robotics' Adroit hand, with the task's XML, reset and 24 to 30 position actuators.

    Action (28,) door, (26,) hammer, (24,) pen, (30,) relocate: target positions, [-1, 1] over each actuator's range,
      for 20 ms. The paper says 26 for the door too; package and official code have 28.
    Observation, float32, m and rad; after the `;` raw, for the positional encoding:
      door (37,): [hand's joints 27, palm 3] x 0.05; hinge 1, handle 3 (it turns with the latch), palm - handle 3
      hammer (64,): [palm 3, tool 3, nail 3, package's 46] x 0.05; palm, tool, nail
      pen (51,): package's 45 x 0.05; pen - its target 3, pen's direction 3
      relocate (45,): package's 39 x 0.05; palm - ball 3, ball - target 3
      Door and hammer as in the official code. The paper does not have the others: their last six are our choice.
    Reward: 1.0 if at the decision's end the hinge is at 1.0 rad or more, or the nail within 0.02 m, as in the official
      code ("strict": the package's 1.35 rad, 0.01 m); pen and relocate have the package's thresholds. Nail, pen and
      ball are judged where they were one simulator step (2 ms) before the decision's end, as in the package. The paper
      gives 1, the official code the mean over its two repeats: we follow the paper.
    Truncated after 100 decisions, hammer 125. What falls off the table stays on the floor, 1 m below, until the reset;
    a ball that was hit hard flies up to about 8 m. Walls or a damped ball would end that, and be another task.
    Random actions succeed at some decision of 7 % of the pen's episodes, in passing, as it rolls off the hand: it
    starts 0.57 rad or more from its goal's direction, and 0.32 will do. At the last decision they do in 1 of 2150. The
    authors of the task ask for more than 20 of their steps, 10 decisions, at the goal: 12 of 2150.
    """

    substeps = 10  # of 2 ms: the paper's action repeat 2, of the package's 5
    camera = {"lookat": (0.0, -0.1, 0.2), "distance": 1.1, "azimuth": 60.0, "elevation": -25.0}

    def __init__(self, task: str, render_mode: str | None = None, options: Sequence[str] = ()) -> None:
        with contextlib.redirect_stderr(io.StringIO()):  # a notice about its dense rewards, in every process
            module = importlib.import_module(f"gymnasium_robotics.envs.adroit_hand.adroit_{task}")
        self.task = task
        self.horizon = 125 if task == "hammer" else 100
        self.object_dim = {"door": 7, "hammer": 9, "pen": 6, "relocate": 6}[task]
        self.sim = getattr(module, f"AdroitHand{task.title()}Env")()
        sim = self.sim
        state_dim = {"door": 30, "hammer": 55, "pen": 45, "relocate": 39}[task]
        super().__init__(sim.model, sim.data, sim.model.nu, state_dim + self.object_dim, render_mode)
        self._threshold = "strict" if "strict" in options else "official"
        if task == "hammer":
            self._tool = sim.data.site("tool").xpos
            self._nail_goal = sim.data.site("nail_goal").xpos

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.sim.np_random = self.np_random
        return self._observation(self.sim.reset_model()), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.data.ctrl[:] = self.sim.act_mean + self.sim.act_rng * action
        self._simulate()
        # as in the package, positions in space are one simulator step old
        obs = self._hammer_obs() if self.task == "hammer" else self.sim._get_obs()
        return self._end(self._observation(obs), self._success(obs))

    def _hammer_obs(self) -> np.ndarray:
        """The package's 46 numbers without its conversion of rotations, which takes a tenth of a decision. The angles
        differ from the package's in a gimbal lock only."""
        sim = self.sim
        data = self.data
        m = data.xmat[sim.obj_body_id].tolist()  # the hammer's rotation, row by row
        euler = -math.atan2(m[5], m[8]), math.atan2(m[2], math.hypot(m[5], m[8])), -math.atan2(m[1], m[0])
        return np.concatenate(
            (
                data.qpos[:-6],
                data.qvel[-6:].clip(-1, 1),
                data.site_xpos[sim.S_grasp_site_id],
                data.xpos[sim.obj_body_id],
                euler,
                data.site_xpos[sim.target_obj_site_id],
                data.sensor("S_nail").data.clip(-1, 1),
            )
        )

    def _observation(self, obs: np.ndarray) -> np.ndarray:
        state = (obs,)
        if self.task == "door":
            state = (obs[:27], obs[29:32])
            objects = obs[[28, 32, 33, 34, 35, 36, 37]]
        elif self.task == "hammer":
            objects = np.concatenate((obs[33:36], self._tool, obs[42:45]))
            state = (objects, obs)
        elif self.task == "pen":
            objects = obs[[39, 40, 41, 33, 34, 35]]
        else:
            objects = obs[[30, 31, 32, 36, 37, 38]]
        return np.concatenate((np.concatenate(state) * OBS_SCALE, objects), dtype=np.float32)

    def _success(self, obs: np.ndarray) -> bool:
        if self.task == "door":
            return obs[28] >= DOOR_ANGLE[self._threshold]
        if self.task == "hammer":
            return math.dist(obs[42:45], self._nail_goal) <= NAIL_DISTANCE[self._threshold]
        if self.task == "pen":
            return math.hypot(*obs[39:42]) < PEN_DISTANCE and obs[33:36].dot(obs[36:39]) > PEN_COSINE
        return math.hypot(*obs[36:39]) < BALL_DISTANCE


# BlockPush, official code: metres, seconds, newtons
BLOCK_TIMESTEP = 0.01
BLOCK_HALF, BLOCK_DENSITY = 0.2, 1000.0  # cubes of 0.4 m, 64 kg; the pusher is one too
SLIDER_RANGE, SLIDER_DAMPING = 1.8, 5000.0  # of a block's centre; the pusher has no damping
WALL_CENTER, WALL_HALF = 2.1, 0.1
ARENA_HALF = WALL_CENTER + WALL_HALF  # with its walls
PUSHER_SPEED = 4.0  # m/s, at an action of 1
PUSHER_GAIN, PUSHER_FORCE = 6400.0, 25000.0  # ours: N per m/s of speed error, and the most it pushes with
PUSHER_START = (0.0, -1.4)
BLOCK_STARTS, BLOCK_GOALS = ((-1.2, 0.0), (0.0, 0.0)), ((-1.4, 1.4), (0.0, 1.4))
BLOCK_TOLERANCE = 0.2  # from a block to its goal
RANDOM_RANGE, RANDOM_GAP = 1.2, 0.6  # random-blocks: centres in +-range; each two `gap` apart in x or in y
BLOCK_COLORS = ((0.25, 0.25, 0.75), (0.25, 0.75, 0.25))  # the paper's blue and green, and its red pusher
PUSHER_COLOR, FLOOR_COLOR, WALL_COLOR = (0.75, 0.25, 0.25), (0.9, 0.9, 0.9), (0.4, 0.4, 0.4)


def block_push_model(n: int) -> Any:
    """mujoco.MjModel with `n` blocks; qpos: x, y of each block, then of the pusher (m)."""
    import mujoco

    spec = mujoco.MjSpec()
    spec.option.timestep = BLOCK_TIMESTEP
    spec.option.gravity = (0.0, 0.0, 0.0)
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    box = {"type": mujoco.mjtGeom.mjGEOM_BOX, "condim": 1}  # condim 1: no friction
    slide = {"type": mujoco.mjtJoint.mjJNT_SLIDE, "limited": True, "range": (-SLIDER_RANGE, SLIDER_RANGE)}
    for x, y in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        size = [WALL_HALF if side else ARENA_HALF for side in (x, y)]
        spec.worldbody.add_geom(pos=(x * WALL_CENTER, y * WALL_CENTER, 0.0), size=[*size, BLOCK_HALF], **box)
    names = [*(f"block{i}" for i in range(n)), "pusher"]
    colors = [*BLOCK_COLORS[:n], PUSHER_COLOR]
    for name, color in zip(names, colors):
        body = spec.worldbody.add_body(name=name)
        damping = 0.0 if name == "pusher" else SLIDER_DAMPING
        body.add_geom(size=[BLOCK_HALF] * 3, density=BLOCK_DENSITY, rgba=[*color, 1.0], **box)
        for axis in ("x", "y"):
            body.add_joint(name=name + axis, axis=(axis == "x", axis == "y", 0.0), damping=damping, **slide)
    for axis in ("x", "y"):  # force = gain * (speed * action - velocity)
        motor = spec.add_actuator(target=f"pusher{axis}", trntype=mujoco.mjtTrn.mjTRN_JOINT)
        motor.gainprm[0] = PUSHER_GAIN * PUSHER_SPEED
        motor.biastype = mujoco.mjtBias.mjBIAS_AFFINE
        motor.biasprm[2] = -PUSHER_GAIN
        motor.forcelimited = True
        motor.forcerange = (-PUSHER_FORCE, PUSHER_FORCE)
        motor.ctrllimited = True
        motor.ctrlrange = (-1.0, 1.0)
    return spec.compile()


@functools.cache
def brush(width: float, color: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What `paint` needs of a square `width` >= 1 pixels wide, which lies in a window of N x N pixels: the shares of N
    pixels in a row that it covers if it begins at 0, 1/256, ... of the first, as (256, N, 1) for the rows of the window
    and (256, 3N) for its columns, a pixel's three channels side by side; and a row (3N,) of its color, 0 to 255."""
    start = np.arange(256)[:, None] / 256.0
    pixels = np.arange(math.ceil(width) + 1)
    shares = np.minimum(start + width, pixels + 1.0) - np.maximum(start, pixels)
    shares = np.maximum(shares, 0.0).astype(np.float32)
    color_row = np.tile(255.0 * np.array(color, np.float32), len(pixels))
    return shares[:, :, None], np.repeat(shares, 3, 1), color_row


def paint(image: np.ndarray, center: Sequence[float], half: float, color: tuple[float, ...]) -> None:
    """Blend a square (m) into an image (N, 3N) uint8, red, green and blue side by side, of BlockPush's arena: each
    pixel by the share that it covers, so that motions of less than a pixel (7 cm) show. Row 0 is the largest y."""
    scale = len(image) / (2.0 * ARENA_HALF)  # pixels a metre
    top = (ARENA_HALF - center[1] - half) * scale
    left = (ARENA_HALF + center[0] - half) * scale
    row = int(top)
    column = int(left)
    row_shares, column_shares, color_row = brush(2.0 * half * scale, color)
    window = image[row : row + row_shares.shape[1], 3 * column : 3 * column + len(color_row)]
    blend = color_row - window
    blend *= row_shares[int(256.0 * (top - row))] * column_shares[int(256.0 * (left - column))]
    blend += window
    np.rint(blend, out=window, casting="unsafe")  # into uint8


class BlockPush(Task):
    """A square pusher that shoves `n` blocks (2, or 1) to their goals on a plane without friction, inside four walls.

    Action (2,): the pusher's velocity, one unit 4 m/s, for 80 ms (10 ms to get there). The official code overwrites the
      velocity before each simulator step; a velocity actuator, our choice, stays out of the blocks at any time step.
    Observation (8n + 6,) float32, m and m/s: [positions of the blocks 2n, velocities 2n, goals - positions 2n, pusher's
      position 2, velocity 2] x 0.1; then raw, for the positional encoding, positions / 2 of blocks 2n and pusher 2.
      As in the official code, which puts the encoding first.
    Reward: 1.0 if every block is within 0.2 m of its goal, else 0.0. The official info counts the blocks, ours is 0/1.
    Truncated after 60 decisions. As in the official code every episode starts alike; "random-blocks" draws blocks and
    goals. Frames are drawn by NumPy: no OpenGL.
    """

    horizon = 60
    substeps = 8

    def __init__(self, n: int, render_mode: str | None = None, options: Sequence[str] = ()) -> None:
        import mujoco

        self.n = n
        self.object_dim = 2 * n + 2
        self._random = "random-blocks" in options
        self._colors = (*BLOCK_COLORS[:n], PUSHER_COLOR)
        model = block_push_model(n)
        data = mujoco.MjData(model)
        super().__init__(model, data, 2, 8 * n + 6, render_mode)
        self._positions = data.qpos.reshape(-1, 2)  # these are views into the simulator's memory
        self._blocks = self._positions[:-1]
        self._ctrl = data.ctrl
        self._qpos = data.qpos
        self._qvel = data.qvel
        # An observation is matrix @ state: more calls of NumPy than that would cost a fifth of the simulator's time.
        self._state = np.zeros(6 * n + 4, np.float32)
        self._state_qpos, self._state_qvel, self._state_goals = np.split(self._state, (2 * n + 2, 4 * n + 4))
        rows = np.eye(6 * n + 4, dtype=np.float32)
        blocks, pusher, speeds, pusher_speed, goals = np.split(rows, np.cumsum((2 * n, 2, 2 * n, 2)))
        scaled = np.concatenate((blocks, speeds, goals - blocks, pusher, pusher_speed))
        encoded = np.concatenate((blocks, pusher))
        self._matrix = np.concatenate((0.1 * scaled, 0.5 * encoded))

    def _layout(self) -> np.ndarray:
        """(2n, 2): blocks, then goals."""
        if not self._random:
            return np.array(BLOCK_STARTS[: self.n] + BLOCK_GOALS[: self.n])
        points = [np.array(PUSHER_START)]
        while len(points) < 1 + 2 * self.n:
            point = self.np_random.uniform(-RANDOM_RANGE, RANDOM_RANGE, 2)
            if all(np.abs(point - other).max() >= RANDOM_GAP for other in points):
                points.append(point)
        return np.array(points[1:])

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        layout = self._layout()
        self._goals = layout[self.n :]
        self._positions[:] = (*layout[: self.n], PUSHER_START)
        self._goal_tuples = [*map(tuple, self._goals.tolist())]  # what math.dist takes without a copy
        self._state_goals[:] = self._goals.ravel()
        self._mujoco.mj_forward(self.model, self.data)
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self._ctrl[:] = action
        self._simulate()
        distances = map(math.dist, self._blocks.tolist(), self._goal_tuples)
        return self._end(self._observation(), max(distances) <= BLOCK_TOLERANCE)

    def _observation(self) -> np.ndarray:
        self._state_qpos[:] = self._qpos
        self._state_qvel[:] = self._qvel
        return self._matrix.dot(self._state)

    def _background(self, size: int) -> np.ndarray:
        """(size, 3 size): walls, floor, goals as lighter blocks 1.2 times as large. x to the right, y up."""
        image = np.tile(np.rint(255.0 * np.array(WALL_COLOR)).astype(np.uint8), (size, size))
        paint(image, (0.0, 0.0), WALL_CENTER - WALL_HALF, FLOOR_COLOR)
        for goal, color in zip(self._goal_tuples, BLOCK_COLORS):
            paint(image, goal, 1.2 * BLOCK_HALF, tuple((channel + 1.0) / 2.0 for channel in color))
        return image

    def _draw(self, image: np.ndarray) -> np.ndarray:
        """(size, size, 3): a background, painted over with blocks and pusher."""
        for center, color in zip(self._positions.tolist(), self._colors):
            paint(image, center, BLOCK_HALF, color)
        return image.reshape(len(image), -1, 3)

    def picture(self, size: int) -> np.ndarray:
        return self._draw(self._background(size))


class BlockPushPixels(BlockPush):
    """BlockPush with one block, seen as an image (64, 64, 3) uint8 of the whole arena; all else as there.

    The paper shows two consecutive frames, for the velocities: make_env(..., frames=2). Drawing one takes nearly as
    long as the simulator: a decision costs twice its simulator steps.
    """

    def __init__(self, render_mode: str | None = None, options: Sequence[str] = ()) -> None:
        super().__init__(1, render_mode, options)
        self.object_dim = 0
        self.observation_space = gym.spaces.Box(0, 255, (PIXELS, PIXELS, 3), np.uint8)

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict]:
        self._empty = None
        return super().reset(**kwargs)

    def _observation(self) -> np.ndarray:
        if self._empty is None:  # what stays as it is for an episode is drawn once
            self._empty = self._background(PIXELS)
        return self._draw(self._empty.copy())


CHEETAH_GOAL = -10.0  # m


class CheetahBack(Task):
    """Gymnasium's HalfCheetah-v5 that must run backwards: sparse, where any other reward would point the way.

    Action (6,): torques, one unit the package's. Observation (18,) float32: qpos 9 (m, rad; x first), qvel 9, unscaled.
    Reward: 1.0 while x <= -10 m, else 0.0. Truncated after 200 decisions of 50 ms.
    There is no official code, and the paper says only "a certain distance": distance and time limit are ours. Random
    actions drift backwards, by up to 7 m in 500 episodes.
    """

    horizon = 200
    substeps = 5
    camera = "track"  # at its side, 3 m away; it follows

    def __init__(self, render_mode: str | None = None, options: Sequence[str] = ()) -> None:
        from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv

        self.sim = HalfCheetahEnv()
        model = self.sim.model
        data = self.sim.data
        super().__init__(model, data, model.nu, model.nq + model.nv, render_mode)
        self._qpos = data.qpos
        self._qvel = data.qvel
        self._ctrl = data.ctrl

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.sim.np_random = self.np_random
        self.sim.reset_model()
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self._ctrl[:] = action
        self._simulate()
        return self._end(self._observation(), self._qpos[0] <= CHEETAH_GOAL)

    def _observation(self) -> np.ndarray:
        return np.concatenate((self._qpos, self._qvel), dtype=np.float32)


# AntPush: HIRO's maze around the ant; lengths in metres, x to the right, y up, the ant starts at (0, 0)
ANT_MAZE = ("#####", "#..##", "#.B.#", "##.##", "#####")  # rows of cells upwards: # wall, B block; the ant in (1, 2)
ANT_CELL, ANT_WALL_HEIGHT = 8.0, 4.0
ANT_BLOCK_LIFT = 0.05  # off the floor, whose friction would hold it ...
ANT_BLOCK_SHRINK = 0.99  # ... and off the walls beside it
ANT_BLOCK_MASS = 0.2  # kg; HIRO's 0.0002 kg let a fast ant squeeze it through the wall behind it and reach the goal
ANT_GEAR, ANT_TIMESTEP = 30.0, 0.02  # N m at an action of 1; s, HIRO's
ANT_GOAL, ANT_GOAL_RADIUS = (0.0, 19.0), 5.0  # in the upper room


class AntPush(Task):
    """HIRO's AntPush with Gymnasium's ant: walk left, up, push the block to the right, and go up into the upper room.

    Straight ahead the distance falls faster at first, but a block pushed up closes the way to the room for good. HIRO's
    block is heavier here and hangs free of floor and walls (see ANT_BLOCK_MASS); the maze and the ant are the same.
    Action (8,): torques of the ant's motors, for 5 simulator steps of 20 ms.
    Observation (33,) float32, as in the official code: qpos 15 (m, quaternion, rad), qvel 14, time (s) x 0.01, block
      xyz 3 (m). None of it is encoded there, nor scaled.
    Reward: -0.1 x distance (m) of torso to (0, 19), as the official code; the paper's "l2 distance" names no factor.
      sparse: 1.0 if within 5 m of it, else 0.0. info["success"]: within 5 m.
    Truncated after 400 decisions of 0.1 s. Start: qpos + U(-0.1, 0.1), qvel 0.1 x N(0, 1), block at rest.
    """

    horizon = 400
    substeps = 5
    camera = {"lookat": (0.0, 8.0, 0.0), "distance": 38.0, "azimuth": 90.0, "elevation": -75.0}

    def __init__(self, rewards: str, render_mode: str | None = None, options: Sequence[str] = ()) -> None:
        import mujoco

        self.rewards = rewards
        spec = mujoco.MjSpec.from_file(str(Path(gym.__file__).parent / "envs/mujoco/assets/ant.xml"))
        spec.option.timestep = ANT_TIMESTEP  # with Runge-Kutta, as in the file
        for actuator in spec.actuators:
            actuator.gear[0] = ANT_GEAR
        for geom in spec.geoms:  # the ant, seen from 38 m away on a plain floor
            geom.material = ""
            geom.rgba = (0.1, 0.2, 0.9, 1.0)
        spec.geom("floor").rgba = (0.85, 0.85, 0.85, 1.0)
        box = {"type": mujoco.mjtGeom.mjGEOM_BOX, "conaffinity": 1}  # the ant's own parts have 0
        slide = {"type": mujoco.mjtJoint.mjJNT_SLIDE, "limited": False, "damping": 0.0, "armature": 0.0}
        half = ANT_CELL / 2.0
        z = ANT_WALL_HEIGHT / 2.0
        for row, cells in enumerate(ANT_MAZE):
            for column, cell in enumerate(cells):
                x = (column - 2) * ANT_CELL
                y = (row - 1) * ANT_CELL
                if cell == "#":
                    spec.worldbody.add_geom(pos=(x, y, z), size=(half, half, z), rgba=(0.4, 0.4, 0.4, 1.0), **box)
                elif cell == "B":
                    self._block_rest = np.array((x, y, z + ANT_BLOCK_LIFT))
                    block = spec.worldbody.add_body(name="block", pos=self._block_rest)
                    side = half * ANT_BLOCK_SHRINK
                    block.add_joint(name="block_x", axis=(1, 0, 0), **slide)
                    block.add_joint(name="block_y", axis=(0, 1, 0), **slide)
                    block.add_geom(size=(side, side, z), mass=ANT_BLOCK_MASS, rgba=(0.9, 0.1, 0.1, 1.0), **box)
        for geom in spec.geoms:
            geom.solimp[:3] = 0.995, 0.995, 0.01  # HIRO's: stiffer contacts
        model = spec.compile()
        super().__init__(model, mujoco.MjData(model), 8, 33, render_mode)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.data.qpos[:15] += self.np_random.uniform(-0.1, 0.1, 15)
        self.data.qvel[:14] = 0.1 * self.np_random.standard_normal(14)
        self._mujoco.mj_forward(self.model, self.data)  # for a frame before the first step
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.data.ctrl[:] = action
        self._simulate()
        distance = math.dist(self.data.qpos[:2].tolist(), ANT_GOAL)
        success = distance < ANT_GOAL_RADIUS
        if self.rewards == "dense":
            return self._end(self._observation(), success, -0.1 * distance)
        return self._end(self._observation(), success)

    def _observation(self) -> np.ndarray:
        data = self.data
        block = self._block_rest.copy()
        block[:2] += data.qpos[15:]
        return np.concatenate((data.qpos[:15], data.qvel[:14], (0.01 * data.time,), block), dtype=np.float32)


# Cabinet: metres, radians, seconds; x to the right, y forward from the arm to the cabinet, z up
ARM_HOME = (0.0, -0.785, 0.0, -2.45, 0.0, 1.665, 0.0)  # hand level, fingers forward at the handles' height
CABINET_POSITION = (0.0, 1.0, 0.75)  # its centre; lower, and joint 6 cannot keep the hand level over a door's arc
BASE_START_LEFT = 0.5  # cabinet-dense: the base starts this far to the left, ManiSkill's; the left handle is nearer
BASE_START_BACK, BASE_START_YAW = 0.1, 0.05 * math.pi  # ... U(0, .) back (ours), and turned by U(-., .) (ManiSkill's)
BASE = (("forward", (1, 0, 0), 1.0, 0.5), ("left", (0, 1, 0), 1.0, 0.5), ("yaw", (0, 0, 1), math.pi, math.pi))
# of the base: name, axis, range to both sides (m or rad), speed at an action of 1 (m/s or rad/s); ManiSkill's speeds
ARM_SPEED = math.pi  # rad/s
ARM_DRIVE, BASE_DRIVE = (100.0, 100.0), (1000.0, 500.0)  # velocity drives: N m s/rad and N m, or N s/m and N
FINGER_DRIVE = (500.0, 70.0)  # position drive, the package's: N/m, N
FINGER_TRAVEL = 0.04
FINGERTIP = (0.0, 0.01, 0.08)  # in a finger's frame, y away from the other finger
DOOR_DAMPING = (1.0, 5.0)  # N m s/rad, U(., .) at each reset; from ManiSkill's U(5, 20) this gripper's fingers slip off
DOOR_RANGE = 1.57
DOOR_SIGNS = np.array((-1.0, 1.0))  # the left door opens to negative angles
FULLY_OPEN, BOTH_OPEN = 0.9, 0.72  # of the range: cabinet-dense, cabinet-sparse
CABINET_TIMESTEP = 0.005


def cabinet_model(mobile: bool) -> Any:
    """mujoco.MjModel: gymnasium-robotics' Franka arm before its kitchen's hinge cabinet, with drives like ManiSkill's.

    Joints and actuators in order: base forward, left, yaw (mobile), arm 7, fingers 2; then the left and right door.
    """
    import mujoco

    package = importlib.util.find_spec("gymnasium_robotics")  # its import takes 0.4 s and is not needed
    kitchen = Path(package.submodule_search_locations[0]) / "envs/assets/kitchen_franka"
    franka = kitchen / "franka_assets"
    items = kitchen / "kitchen_assets/item_assets"
    spec = mujoco.MjSpec.from_string(f"""
        <mujoco>
          <include file="{franka}/assets.xml"/>
          <include file="{items}/hingecabinet_asset.xml"/>
          <compiler inertiafromgeom="auto" inertiagrouprange="3 5" angle="radian" meshdir="{franka}/meshes"
            texturedir="{kitchen}/kitchen_assets/textures"/>
          <worldbody>
            <include file="{franka}/chain.xml"/>
            <include file="{items}/hingecabinet_chain.xml"/>
          </worldbody>
        </mujoco>""")
    base = spec.body("panda0_link0")
    base.quat = math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5)  # turned to face the cabinet
    spec.body("hingecab").pos = CABINET_POSITION
    shapes = [geom for geom in spec.geoms if geom.meshname.endswith("_viz")]
    meshes = [mesh for mesh in spec.meshes if mesh.name.endswith("_viz")]
    for part in shapes + meshes:
        part.delete()  # the shapes to look at take 0.5 s to compile and 30 MB; those that collide look alike
    spec.option.timestep = CABINET_TIMESTEP
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    for body in spec.bodies:
        body.gravcomp = float(body.name.startswith("panda0"))  # else the arm sags under a velocity drive
    spec.worldbody.add_light(pos=(0.0, -1.0, 3.0), dir=(0.0, 0.5, -1.0))
    for name, side in (("leftfinger", 1.0), ("rightfinger", -1.0)):
        spec.body(f"panda0_{name}").add_site(name=name, pos=(FINGERTIP[0], side * FINGERTIP[1], FINGERTIP[2]))

    def drive(joint: Any, speed: float, gains: tuple[float, float]) -> None:
        actuator = spec.add_actuator(name=joint.name, target=joint.name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        actuator.biastype = mujoco.mjtBias.mjBIAS_AFFINE
        actuator.gainprm[0] = gains[0]
        actuator.forcerange = -gains[1], gains[1]
        if speed:  # force = gain (target speed - speed)
            actuator.biasprm[2] = -gains[0]
            actuator.ctrlrange = (-speed, speed)
        else:  # force = gain (target position - position)
            actuator.biasprm[1] = -gains[0]
            actuator.ctrlrange = (0.0, FINGER_TRAVEL)

    if mobile:
        for name, axis, reach, speed in BASE:
            kind = mujoco.mjtJoint.mjJNT_HINGE if name == "yaw" else mujoco.mjtJoint.mjJNT_SLIDE
            joint = base.add_joint(name=name, type=kind, axis=axis, range=(-reach, reach))
            drive(joint, speed, BASE_DRIVE)
    for i in range(1, 8):
        joint = spec.joint(f"robot:panda0_joint{i}")
        joint.damping = 2.0
        joint.armature = 0.1
        drive(joint, ARM_SPEED, ARM_DRIVE)
    for i in (1, 2):
        joint = spec.joint(f"robot:panda0_finger_joint{i}")
        joint.damping = 5.0
        joint.armature = 0.1
        drive(joint, 0.0, FINGER_DRIVE)
    for joint in spec.joints:  # hard ends: with the default ones, doors were pushed 0.17 rad into the cabinet
        joint.solref_limit[0] = 2.0 * CABINET_TIMESTEP
        joint.solimp_limit[:3] = (0.99, 0.999, 0.001)
    model = spec.compile()
    model.geom_group[model.geom_group == 3] = 2  # groups 0 to 2 are drawn: the robot's collision shapes are to be
    return model


class Cabinet(Task):
    """A Franka arm and gripper open the two hinged doors of a cabinet; in place of ManiSkill's cabinet 1018.

    Action (9,) or (12,) for 50 ms: [base's forward, left and yaw speed (mobile only); arm's speeds 7; fingers 2, -1
      closed and 1 open]. The paper's "9 dof" and "12 dof"; the official code has 12 in both (base with a lift, one
      number for the gripper) and in the sparse task blocks the base by joint limits.
    Observation, from state = [end effector xyz 3 (m), openings of left and right door 2 (rad)] and rest = [robot qpos,
      robot qvel, doors' speeds 2 (rad/s), left and right handle xyz 6 (m)], where the official code has 75 numbers:
      sparse (36,) float32: 0.05 x [state, rest], then state raw, `object_dim` = 5; dense (37,): [state, rest], none.
    Reward, cabinet-sparse: 1.0 while both doors are open by 0.72 of their range, the official rule (the paper says
      "fully opened"), else 0.0. cabinet-dense, the official formula: sum over doors of min(opening / 0.9 range, 1), + 2
      if the right door is open by 0.9 of its range, + 1 if the left one is, - 2 x the fingertips' mean distance (m) to
      the nearer handle; an opening below 0, a door pushed inwards, counts 0. info["success"] there: right door open by
      0.9.
    Truncated after 60 decisions. A reset draws the doors' damping and, if mobile, the base's place.
    """

    horizon = 60
    substeps = 10
    camera = {"lookat": (-0.1, 0.4, 0.55), "distance": 2.4, "azimuth": 60.0, "elevation": -30.0}

    def __init__(self, rewards: str, render_mode: str | None = None, options: Sequence[str] = ()) -> None:
        import mujoco

        self.rewards = rewards
        self.mobile = rewards == "dense"
        self.object_dim = 0 if self.mobile else 5
        model = cabinet_model(self.mobile)
        data = mujoco.MjData(model)
        size = model.nu
        super().__init__(model, data, size, 13 + 2 * size + self.object_dim, render_mode)
        low, high = model.actuator_ctrlrange.T
        self._ctrl_mean = (high + low) / 2.0
        self._ctrl_scale = (high - low) / 2.0
        self._hand = data.site("end_effector").xpos  # views into the simulator's memory
        self._handles = [data.site(f"hinge_site{i}").xpos for i in (1, 2)]
        self._fingers = [data.site(f"{side}finger").xpos for side in ("left", "right")]
        self._door_dofs = model.jnt_dofadr[-2:]

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.model.dof_damping[self._door_dofs] = self.np_random.uniform(*DOOR_DAMPING, 2)
        robot = self.data.qpos[: self.model.nu]
        if self.mobile:
            back, yaw = self.np_random.uniform((0.0, -BASE_START_YAW), (BASE_START_BACK, BASE_START_YAW))
            robot[:3] = -back, BASE_START_LEFT, yaw
        robot[-9:-2] = ARM_HOME
        robot[-2:] = FINGER_TRAVEL
        self._mujoco.mj_forward(self.model, self.data)
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.data.ctrl[:] = self._ctrl_mean + self._ctrl_scale * action
        self._simulate()
        self._mujoco.mj_kinematics(self.model, self.data)  # mj_step leaves positions one substep behind
        left, right = (max(angle, 0.0) / DOOR_RANGE for angle in (self.data.qpos[-2:] * DOOR_SIGNS).tolist())
        if not self.mobile:
            return self._end(self._observation(), min(left, right) >= BOTH_OPEN)
        fingers = [finger.tolist() for finger in self._fingers]
        handles = [handle.tolist() for handle in self._handles]
        distances = [sum(math.dist(finger, handle) for finger in fingers) for handle in handles]
        doors = min(left / FULLY_OPEN, 1.0) + min(right / FULLY_OPEN, 1.0)
        if left >= FULLY_OPEN:
            doors += 1.0
        if right >= FULLY_OPEN:
            doors += 2.0
        reward = doors - min(distances)  # a sum over two fingers is 2 x their mean
        return self._end(self._observation(), right >= FULLY_OPEN, reward)

    def _observation(self) -> np.ndarray:
        qpos = self.data.qpos
        qvel = self.data.qvel
        state = np.concatenate((self._hand, qpos[-2:] * DOOR_SIGNS))
        features = np.concatenate((state, qpos[:-2], qvel[:-2], qvel[-2:] * DOOR_SIGNS, *self._handles))
        if self.mobile:
            return features.astype(np.float32)
        return np.concatenate((features * OBS_SCALE, state), dtype=np.float32)


# Maze: units of length, the centre of the maze at the origin; a cell (x, y), 0..4, is 2 x 2
MAZE_CELLS, MAZE_HALF, MAZE_GAP = 5, 5.0, 0.4  # cells a side; half of the side; width of a passage between cells
MAZE_CLOSED_BELOW = {(0, 2), (1, 2), (3, 2), (4, 2), (1, 3), (3, 3)}  # no passage on the side towards lower y
MAZE_CLOSED_LEFT = {(1, 0), (2, 0), (3, 1), (4, 1), (2, 3), (4, 3), (1, 4), (2, 4), (3, 4), (4, 4)}  # towards lower x
MAZE_STEP = 0.25  # largest move along each axis, at an action of 1
MAZE_LENGTH = 50  # decisions an episode
MAZE_MARGIN = 1e-6  # how far from a wall a move stops


def maze_walls() -> tuple[np.ndarray, np.ndarray]:
    """Walls across x and walls across y, each (W, 3): where on that axis, and from where to where on the other."""
    walls: tuple[list, list] = ([], [])
    for axis, closed in enumerate((MAZE_CLOSED_LEFT, MAZE_CLOSED_BELOW)):
        for x in range(MAZE_CELLS):
            for y in range(MAZE_CELLS):
                place = 2 * (x, y)[axis] - MAZE_HALF
                low = 2 * (x, y)[1 - axis] - MAZE_HALF
                if place == -MAZE_HALF or (x, y) in closed:
                    walls[axis].append((place, low, low + 2))
                else:
                    walls[axis].extend([(place, low, low + 1 - MAZE_GAP / 2), (place, low + 1 + MAZE_GAP / 2, low + 2)])
        walls[axis].append((MAZE_HALF, -MAZE_HALF, MAZE_HALF))
    return np.array(walls[0]), np.array(walls[1])


MAZE_WALLS = maze_walls()


def maze_move(position: np.ndarray, action: np.ndarray) -> np.ndarray:
    """Positions (..., 2) after moves of 0.25 action, action (..., 2) in [-1, 1]; a move ends at the first wall in its
    way, without sliding along it (official code)."""
    step = MAZE_STEP * np.clip(np.asarray(action, np.float64), -1, 1)
    share = np.ones(step.shape[:-1])  # of the step that can be made
    for axis, walls in enumerate(MAZE_WALLS):
        place, low, high = walls.T  # (W,)
        with np.errstate(divide="ignore", invalid="ignore"):  # a step along the wall never meets it
            meets = (place - position[..., axis, None]) / step[..., axis, None]  # (..., W)
            other = position[..., 1 - axis, None] + meets * step[..., 1 - axis, None]
            margin = MAZE_MARGIN / np.abs(step[..., axis, None])  # as a share of the step
            blocked = (meets >= 0) & (meets <= 1 + margin) & (low <= other) & (other <= high)
            stops = np.where(blocked, meets - margin, 1.0)
        share = np.minimum(share, stops.min(-1))
    return position + np.maximum(share, 0)[..., None] * step


def maze_observation(position: np.ndarray) -> np.ndarray:
    """(..., 4) float32: position (..., 2) x 0.01, then `object_dim` = 2 coordinates, position / 5 (official code)."""
    return np.concatenate((0.01 * position, position / MAZE_HALF), -1, dtype=np.float32)


def maze_reward(position: np.ndarray, goal: tuple[int, int] | None) -> np.ndarray:
    """(...) 1.0 in the cell `goal`, else 0.0."""
    if goal is None:
        return np.zeros(position.shape[:-1])
    cell = np.floor((position + MAZE_HALF) / 2)
    return (cell == goal).all(-1).astype(np.float64)


def maze_goal(options: Sequence[str]) -> tuple[int, int] | None:
    """The cell of the last "goal=x,y" in `options`; None without one."""
    if not options:
        return None
    x, y = options[-1].removeprefix("goal=").split(",")
    return int(x), int(y)


class Maze(gym.Env):
    """The maze of Sec. 5.1, for one agent that starts in the centre. Action (2,): move along x and y, in quarters of a
    unit. Observation (4,): see `maze_observation`. Reward: see `maze_reward`; with a goal also info["success"].
    Never terminated; truncated after 50 decisions."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    horizon = MAZE_LENGTH
    object_dim = 2
    action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    observation_space = gym.spaces.Box(-1.0, 1.0, (4,), np.float32)

    def __init__(self, render_mode: str | None = None, options: Sequence[str] = ()) -> None:
        self.render_mode = render_mode
        self.goal = maze_goal(options)
        self.rewards = "sparse" if self.goal else "none"

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._position = np.zeros(2)
        self._decisions = 0
        return maze_observation(self._position), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self._position = maze_move(self._position, action)
        self._decisions += 1
        reward = float(maze_reward(self._position, self.goal))
        info = {}
        if self.goal is not None:
            info["success"] = reward
        return maze_observation(self._position), reward, False, self._decisions >= MAZE_LENGTH, info

    def render(self) -> np.ndarray | None:
        if self.render_mode != "rgb_array":
            return None

        def pixel(units: np.ndarray) -> np.ndarray:
            return ((units + MAZE_HALF) / (2 * MAZE_HALF) * (FRAME_SIZE - 5) + 2).round().astype(int)

        frame = np.full((FRAME_SIZE, FRAME_SIZE, 3), 255, np.uint8)  # [x, y] until the last line
        if self.goal is not None:
            low, high = pixel(np.array([self.goal, np.add(self.goal, 1)]) * 2 - MAZE_HALF)
            frame[low[0] : high[0], low[1] : high[1]] = 160, 220, 160
        for image, walls in zip((frame, frame.swapaxes(0, 1)), MAZE_WALLS):
            for place, low, high in pixel(walls):
                image[place - 1 : place + 2, low - 1 : high + 2] = 0
        x, y = pixel(self._position)
        frame[max(x - 4, 0) : x + 5, max(y - 4, 0) : y + 5] = 200, 30, 30
        return frame.swapaxes(0, 1)[::-1]  # y points up


class VectorMaze(gym.vector.VectorEnv):
    """`num_envs` agents in mazes of their own, moved together: what SyncVectorEnv of `Maze` in its `Standard` wrapper
    does, NEXT_STEP autoreset included, without a loop over the agents."""

    metadata = {**Maze.metadata, "autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP}

    def __init__(self, num_envs: int, options: Sequence[str] = ()) -> None:
        self.num_envs = num_envs
        self.goal = maze_goal(options)
        self.single_action_space = Maze.action_space
        self.single_observation_space = Maze.observation_space
        self.action_space = gym.vector.utils.batch_space(Maze.action_space, num_envs)
        self.observation_space = gym.vector.utils.batch_space(Maze.observation_space, num_envs)

    def reset(self, *, seed: Any = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        self._position = np.zeros((self.num_envs, 2))
        self._decisions = 0
        self._return = np.zeros(self.num_envs)
        self._success_any = np.zeros(self.num_envs)
        return maze_observation(self._position), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict]:
        never = np.zeros(self.num_envs, bool)
        if self._decisions == MAZE_LENGTH:  # episodes all end together
            return self.reset()[0], np.zeros(self.num_envs), never, never, {}
        self._position = maze_move(self._position, actions)
        self._decisions += 1
        reward = maze_reward(self._position, self.goal)
        success = reward
        if self.goal is None:
            success = np.full(self.num_envs, math.nan)
        self._return = self._return + reward
        self._success_any = np.maximum(self._success_any, success)
        if self._decisions < MAZE_LENGTH:
            return maze_observation(self._position), reward, never, never, {}
        length = np.full(self.num_envs, float(MAZE_LENGTH))
        summaries = np.stack([self._return, length, success, self._success_any], -1)  # (num_envs, 4)
        return maze_observation(self._position), reward, never, ~never, {SUMMARY_KEY: summaries}


TASKS = {  # environment id -> its class and what that wants first; and METAWORLD + any of the package's tasks
    "adroit-door": (Adroit, "door"),
    "adroit-hammer": (Adroit, "hammer"),
    "adroit-pen": (Adroit, "pen"),
    "adroit-relocate": (Adroit, "relocate"),
    "ant-push": (AntPush, "dense"),
    "ant-push-sparse": (AntPush, "sparse"),
    "block-push": (BlockPush, 2),
    "block-push-1": (BlockPush, 1),
    "block-push-pixels": (BlockPushPixels,),
    "cabinet-dense": (Cabinet, "dense"),
    "cabinet-sparse": (Cabinet, "sparse"),
    "cheetah-back": (CheetahBack,),
    "maze": (Maze,),
}
METAWORLD = "metaworld-"  # our ids are this and the package's task name without its '-v3' ...
AS_IMAGE = "-pixels"  # ... and with this behind it the same task, seen as an image
SIMILAR = 0.75  # of difflib's ratio: from there on an id may have been meant by another one
OPTIONS = {  # environment id -> its switches
    "adroit-door": ("strict",),  # the package's thresholds of success in place of the official code's
    "adroit-hammer": ("strict",),
    "block-push": ("random-blocks",),  # blocks and goals anywhere, new at every reset
    "block-push-1": ("random-blocks",),
    "block-push-pixels": ("random-blocks",),
    "maze": tuple(f"goal={x},{y}" for x in range(5) for y in range(5)),  # reward 1 in that cell; without: no reward
    "metaworld-basketball-pixels": ("fixed-ball",),
    "metaworld-basketball": ("fixed-ball",),  # ball at (0, .6, .03) m as in the paper's v2 task; the basket is random
}


def one_line(text: Any) -> str:
    return " ".join(str(text).split())


def metaworld_ids() -> list[str]:
    """Those of states."""
    try:
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS
    except ImportError:
        return []
    return [METAWORLD + name.removesuffix("-v3") for name in ALL_V3_ENVIRONMENTS]


def without_version(env_id: str) -> str:
    """'halfcheetah' for 'HalfCheetah-v5': what two ids are compared by."""
    return re.sub(r"-v\d+$", "", env_id).lower()


def similar_ids(env_id: str) -> list[str]:
    """At most three known ids that may have been meant, best first: ours, then Gymnasium's in their newest versions,
    those that cannot be trained left out. Empty if nothing is similar."""
    module, colon, name = env_id.rpartition(":")
    wanted = without_version(name)
    ours = [*TASKS, *metaworld_ids(), *(name + AS_IMAGE for name in metaworld_ids())]
    newest: dict[str, Any] = {}  # id without its version -> gymnasium's spec
    for spec in gym.registry.values():
        key = without_version(spec.id)
        if key not in newest or (spec.version or 0) > (newest[key].version or 0):
            newest[key] = spec
    if not colon:
        found = difflib.get_close_matches(wanted, ours, n=3, cutoff=SIMILAR)
        if METAWORLD + wanted in ours and METAWORLD + wanted not in found:
            found = [METAWORLD + wanted, *found][:3]
        if found:
            return found
    found = []
    for key in difflib.get_close_matches(wanted, newest, n=3, cutoff=SIMILAR):
        if colon or can_be_made(newest[key].id):
            found.append(module + colon + newest[key].id)
    if not found and name.endswith(AS_IMAGE):  # of other ids the states have the same name
        return similar_ids(env_id.removesuffix(AS_IMAGE))
    return found


def ids_of(module: str) -> list[str]:
    """The ids that a module, or the package around it, has registered."""
    package = module.split(".")[0]
    found = []
    for spec in gym.registry.values():
        origin = spec.entry_point
        if not isinstance(origin, str):
            origin = getattr(origin, "__module__", "") or ""
        if re.split("[.:]", origin)[0] == package:
            found.append(spec.id)
    return found


def can_be_made(env_id: str) -> bool:
    """Whether make_gymnasium makes it: its packages are there, its spaces are such as RPG needs."""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            make_gymnasium(env_id, None, {}).close()
    except ValueError:
        return False
    return True


def unknown_id(env_id: str) -> ValueError:
    """The error that says what to do about an id that nobody knows."""
    if env_id.startswith(METAWORLD) and not metaworld_ids():
        return ValueError(f"{env_id} needs Meta-World: pip install metaworld==3.1.1")
    similar = similar_ids(env_id)
    if similar:
        return ValueError(f"unknown environment {env_id!r}; nearest known: {', '.join(similar)}")
    module, colon, _ = env_id.rpartition(":")
    if colon:
        known = ids_of(module)
        registers = "no environment"
        if known:
            registers = ", ".join(known[:6])
        if len(known) > 6:
            registers += f" and {len(known) - 6} more"
        return ValueError(f"unknown environment {env_id!r}; its module registers {registers}")
    return ValueError(
        f"unknown environment {env_id!r}, and none that RPG can train has a similar name; python envs.py lists ours; "
        "an id of another package needs its module in front, as in gymnasium_robotics:FrankaKitchen-v1"
    )


def failure(error: BaseException) -> str:
    """An exception in one line: its type, its message up to 300 characters, and the last line of the user's own code
    (not of this file, nor of a package) on its way."""
    message = one_line(error)
    if len(message) > 300:
        message = message[:300] + "..."
    text = type(error).__name__
    if message:
        text += f": {message}"
    installed = (sys.prefix, sys.base_prefix, "<")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(installed)]
    if frames and frames[-1].filename != __file__:
        text += f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"
    return text


def import_module_of(env_id: str) -> None:
    """Import the module of an id `module:Id`, which registers it. ValueError says why that fails."""
    module, _, name = env_id.partition(":")
    if not module or not name or ":" in name:
        raise ValueError(
            f"{env_id!r} is no id: with a module it is module:Id, as in gymnasium_robotics:FrankaKitchen-v1"
        )
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        is_missing = error.name is not None and f"{module}.".startswith(f"{error.name}.")
        if not is_missing:  # but another one, which it imports itself
            raise ValueError(f"{env_id!r}: its module {module!r} cannot be imported: {failure(error)}") from error
        installed = (sys.prefix, sys.base_prefix)
        places = dict.fromkeys(path or os.getcwd() for path in sys.path if not path.startswith(installed))
        raise ValueError(
            f"{env_id!r}: there is no module {module!r} among the installed packages nor in {', '.join(places)}; "
            "the environment variable PYTHONPATH adds a directory"
        ) from error
    except (Exception, SystemExit) as error:
        raise ValueError(f"{env_id!r}: its module {module!r} cannot be imported: {failure(error)}") from error


def parse_env_kwargs(words: Sequence[str]) -> dict[str, Any]:
    """{key: value} of words `key=value`, for gymnasium.make. A value is a Python literal (0.5, None, (1, 2)), `true` or
    `false`, or else a string. ValueError for a word that is no `key=value`, or whose key is there twice."""
    env_kwargs: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key.isidentifier():
            raise ValueError(f"--env-kwargs {word!r}: an argument is written key=value")
        if key in env_kwargs:
            raise ValueError(f"--env-kwargs {word!r}: {key} is given twice")
        if text in ("true", "false"):
            env_kwargs[key] = text == "true"
            continue
        try:
            env_kwargs[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            env_kwargs[key] = text
    return env_kwargs


class CannotRender(ValueError):
    """One line that says why an environment has no pictures."""


class DrawnByMuJoCo(gym.Wrapper):
    """An environment with a MujocoRenderer of gymnasium's."""

    def render(self) -> Any:
        return draw_by_mujoco(self, self.unwrapped.mujoco_renderer, self.env.render)

    def close(self) -> None:
        close_renderer(self.unwrapped.mujoco_renderer)
        super().close()


def make_gymnasium(env_id: str, render_mode: str | None, env_kwargs: dict[str, Any], images: bool = False) -> gym.Env:
    """An environment of gymnasium.make, its observations one vector, or an image. images: it is going to be seen as
    images, so its observations stay as they are, and if they are none, it can be rendered. ValueError, in one line, for
    all that fails."""
    if not images:
        return with_flat_observations(make_registered(env_id, render_mode, env_kwargs), env_id)
    if render_mode is not None:
        return make_registered(env_id, render_mode, env_kwargs)
    try:
        return make_registered(env_id, "rgb_array", env_kwargs)
    except ValueError as error:
        env = make_registered(env_id, None, env_kwargs)
        if is_image(env.observation_space):
            return env
        if isinstance(error, CannotRender):
            raise
        raise CannotRender(f"{env_id} cannot be rendered: its class refuses the render mode 'rgb_array'") from error


def make_registered(env_id: str, render_mode: str | None, env_kwargs: dict[str, Any]) -> gym.Env:
    """gymnasium.make with actions rescaled to [-1, 1]. ValueError, in one line, for all that fails."""
    if "render_mode" in env_kwargs:
        raise ValueError("--env-kwargs render_mode: frames are drawn with --capture-video")
    if ":" in env_id:
        import_module_of(env_id)
    arguments = dict(env_kwargs)
    if render_mode is not None:  # not every class takes it
        arguments["render_mode"] = render_mode
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*(initialised with render_mode|include `render_modes`)")  # said below
            env = gym.make(env_id, **arguments)
    except gym.error.UnregisteredEnv as error:
        raise unknown_id(env_id) from error
    except Exception as error:  # if a package is missing, it says which to install
        if is_opengl_error(error):
            raise
        if render_mode is not None and isinstance(error, TypeError):
            takes_nothing = "() takes no arguments" in str(error) and not env_kwargs
            if takes_nothing or "argument 'render_mode'" in str(error):
                raise CannotRender(f"{env_id} cannot be rendered: its class takes no render_mode") from error
        if isinstance(error, TypeError) and error.__cause__ is not None:  # gymnasium adds all arguments to the message
            error = error.__cause__
        raise ValueError(f"{env_id!r} cannot be made: {failure(error)}") from error
    if render_mode and render_mode not in (env.metadata.get("render_modes") or ()):
        raise CannotRender(f"{env_id} cannot be rendered: its metadata names no render mode {render_mode!r}")
    skip_check_of_frames(env)
    if hasattr(env.unwrapped, "mujoco_renderer"):
        env = DrawnByMuJoCo(env)
    return with_unit_actions(env, env_id)


def skip_check_of_frames(env: gym.Env) -> None:
    """gymnasium's checker ends a program whose environment says that it draws 0 frames a second; `Video` does not."""
    while isinstance(env, gym.Wrapper):
        if isinstance(env, gym.wrappers.PassiveEnvChecker):
            env.checked_render = True
        env = env.env


def with_unit_actions(env: gym.Env, env_id: str) -> gym.Env:
    """The environment with a bounded action space (A,) rescaled to [-1, 1]. An entry that its environment fixes (low
    equals high) is kept at that value, whatever the action says."""
    space = env.action_space
    Box = gym.spaces.Box
    is_vector = isinstance(space, Box) and np.issubdtype(space.dtype, np.floating) and len(space.shape) == 1
    with np.errstate(over="ignore"):
        is_bounded = is_vector and np.isfinite([space.low, space.high, space.high - space.low]).all()
    if not is_bounded:
        has = f"the action space {one_line(space)}"
        if isinstance(space, (gym.spaces.Discrete, gym.spaces.MultiDiscrete, gym.spaces.MultiBinary)):
            has = "discrete actions"
        raise ValueError(f"{env_id} has {has}; RPG needs a bounded Box action space (for example Pendulum-v1)")
    if (space.low == -1.0).all() and (space.high == 1.0).all():
        return env
    low, high = space.low, space.high
    fixed = low == high
    one = space.dtype.type(1.0)
    wider = Box(np.where(fixed, -one, low), np.where(fixed, one, high), dtype=space.dtype)

    def inside(action: np.ndarray) -> np.ndarray:
        """Within the environment's bounds, which rounding may leave, and which are one value where it is fixed."""
        return np.minimum(np.maximum(action, low), high)

    env = gym.wrappers.TransformAction(env, inside, wider)
    return gym.wrappers.RescaleAction(env, -one, one)


def is_image(space: gym.Space) -> bool:
    """Whether it is that of pictures: uint8, and of two axes (grey) or more."""
    return isinstance(space, gym.spaces.Box) and space.dtype == np.uint8 and len(space.shape) >= 2


def parts_of(space: gym.Space) -> list[gym.Space]:
    """The spaces in a Dict or Tuple, and in those inside it; else the space itself."""
    if isinstance(space, gym.spaces.Dict):
        inner = list(space.values())
    elif isinstance(space, gym.spaces.Tuple):
        inner = list(space)
    else:
        return [space]
    return [part for one in inner for part in parts_of(one)]


def with_flat_observations(env: gym.Env, env_id: str) -> gym.Env:
    """The environment with observations of one axis, by gymnasium's flattening (a Discrete part becomes one-hot);
    images stay as they are."""
    space = env.observation_space
    if is_image(space):
        return env
    spaces = gym.spaces
    flat = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
    for part in parts_of(space):
        if not isinstance(part, flat) or is_image(part):
            raise ValueError(
                f"{env_id} has the observation space {one_line(space)[:200]}; RPG needs numbers: a Box, or a Dict or "
                "Tuple of Boxes and discrete parts, without images"
            )
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        return env
    return gym.wrappers.FlattenObservation(env)


@functools.cache
def area_weights(size: int) -> np.ndarray:
    """(64, size): the share that each of `size` pixels in a row has in each of 64 that cover the same length."""
    borders = np.linspace(0.0, size, PIXELS + 1)[:, None]
    pixels = np.arange(size)
    overlap = np.minimum(borders[1:], pixels + 1.0) - np.maximum(borders[:-1], pixels)
    return (np.maximum(overlap, 0.0) * (PIXELS / size)).astype(np.float32)


def small_frame(frame: Any) -> np.ndarray:
    """(3, 64, 64) uint8 of a frame (see rgb_frame) of any size, squeezed into a square: every pixel the mean over the
    area that it covers, so that small things neither vanish nor flicker. Always a new array."""
    frame = rgb_frame(frame)
    height, width, _ = frame.shape
    if (height, width) == (PIXELS, PIXELS):
        return np.ascontiguousarray(frame.transpose(2, 0, 1))
    rows = area_weights(height) @ frame.reshape(height, 3 * width).astype(np.float32)
    channels = rows.reshape(PIXELS, width, 3).transpose(2, 0, 1)  # (3, 64, width)
    return np.rint(channels @ area_weights(width).T).astype(np.uint8)


def with_images(env: gym.Env, env_id: str, frames: int) -> gym.Env:
    """The environment seen as its last `frames` images, (frames, 3, 64, 64) uint8, newest last, after a reset all the
    same; with frames = 0 as one image (3, 64, 64). An image is its own observation, if that is one, or what it renders;
    then every observation may raise what `draw` raises."""
    task = env.unwrapped

    def image(obs: Any) -> np.ndarray:
        if is_image(env.observation_space):
            return small_frame(obs)
        if isinstance(task, Task):
            return small_frame(task.picture(PIXELS))
        return small_frame(draw(env, env_id))

    space = gym.spaces.Box(0, 255, (3, PIXELS, PIXELS), np.uint8)
    seen = gym.wrappers.TransformObservation(env, image, space)
    if frames > 0:
        seen = gym.wrappers.FrameStackObservation(seen, frames, padding_type="reset")
    return seen


def is_opengl_error(error: Exception) -> bool:
    """MuJoCo, PyOpenGL and GLFW share no exception; without its library, PyOpenGL looks functions up in a None."""
    from_opengl = type(error).__module__.split(".")[0] in ("mujoco", "OpenGL", "glfw")
    return from_opengl or re.search(r"\bEGL|OSMesa|MUJOCO_GL|'(egl|gl)[A-Z]", str(error)) is not None


SUMMARY = ("episodic_return", "episodic_length", "success_final", "success_any")
SUMMARY_HEADER = ",".join(["step", "episode", *(name.replace("episodic_", "") for name in SUMMARY)])  # of an eval.csv


SUMMARY_KEY = "rpg_summary"  # of an info; not "summary", which environments have themselves


def success_of(info: dict) -> float:
    """info["success"], else info["is_success"], as a number; of an array the least one, so that all must succeed.
    nan if there is none, or if it is None or no number."""
    success = info.get("success")
    if type(success) is float:  # the tasks of this file
        return success
    if success is None:
        success = info.get("is_success")
    if success is None:
        return math.nan
    try:
        values = np.asarray(success, np.float64)
    except Exception:  # whatever its own conversion raises
        return math.nan
    if values.size == 0:
        return math.nan
    return float(values.min())


class Standard(gym.Wrapper):
    """What the scripts see of any environment, in training and evaluation alike.

    Observations: cast here and nowhere else, to float32 (images: uint8) of the shape that the space declares.
      ValueError for another shape. Actions: a copy, of the space's dtype. Rewards: float; both ends: bool.
    Info: nothing of the environment's own. At an episode's last step {SUMMARY_KEY: float64 (4,), in the order of
      SUMMARY}, else {}. Success is that of the last step (the paper's curves) and that of any step; nan if unknown.
    reset(seed=) also seeds what an environment may draw from beside its own generator: its spaces, and the global ones
      of Python and NumPy (see own_rng).
    """

    success = math.nan  # of the last step

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        space = env.observation_space
        self._shape = space.shape
        self._dtype = np.float32
        self._action_dtype = env.action_space.dtype
        self._tells_success = False  # whether any info so far did
        if is_image(space):
            self._dtype = np.uint8
        elif space.dtype != np.float32:
            with np.errstate(over="ignore"):  # float64's largest number is an infinite one
                low, high = space.low.astype(np.float32), space.high.astype(np.float32)
            self.observation_space = gym.spaces.Box(low, high)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        if seed is not None:
            seed_global_rng(seed)
            self.unwrapped.observation_space.seed(seed)
            self.unwrapped.action_space.seed(seed)
        try:
            obs, _ = self.env.reset(seed=seed, options=options)
        except SystemExit as error:
            raise RuntimeError("the environment's own code calls sys.exit") from error
        self._return = 0.0
        self._length = 0
        self._success_any = math.nan
        return self._cast(obs), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        action = np.array(action, self._action_dtype)  # a copy, which the environment may write to
        try:
            obs, reward, terminated, truncated, info = self.env.step(action)
        except SystemExit as error:  # it would end the run without a word, perhaps as a success
            raise RuntimeError("the environment's own code calls sys.exit") from error
        if type(reward) is not float:  # of another type, or an array of one
            reward = np.asarray(reward, np.float64)
            if reward.size != 1:
                raise ValueError(f"a reward has the shape {reward.shape}, it must be one number")
            reward = reward.item()
        terminated = bool(terminated)
        truncated = bool(truncated)
        success = success_of(info)
        if success != success and self._tells_success:  # an environment that names it only where it happens
            success = 0.0
        self._tells_success |= success == success
        self.success = success
        self._return += reward
        self._length += 1
        if not success <= self._success_any and success == success:  # more than before (nan at first), and known
            self._success_any = success
        summary = {}
        if terminated or truncated:
            summary[SUMMARY_KEY] = np.array([self._return, self._length, success, self._success_any])
        return self._cast(obs), reward, terminated, truncated, summary

    def _cast(self, obs: Any) -> np.ndarray:
        obs = np.array(obs, self._dtype)  # a copy: an environment may return one array again and again
        if obs.shape != self._shape:
            raise ValueError(f"an observation has the shape {obs.shape}, its space declares {self._shape}")
        return obs


def derive_seeds(n: int, *path: int) -> list[int]:
    """`n` seeds in 0 ... 2**31 - 1 (simulators take 32 bits with a sign) for what `path` names, for example the run's
    seed and the step. The first k of n are the k of derive_seeds(k, *path).

    Sums will not do: with seed + i, or 1000 * seed + step, the environments of neighbouring seeds and steps are the
    same ones (seed 1 at step 50 000 was seed 51 at step 0). Of these seeds any two are unrelated.
    """
    entropy = [len(path), *path]  # the length, because NumPy takes (1,) and (1, 0) for the same
    return [int(word) % 2**31 for word in np.random.SeedSequence(entropy).generate_state(n)]


def seed_global_rng(seed: int) -> None:
    """Seed the global generators of Python and NumPy, from which many environments draw."""
    random.seed(seed)
    np.random.seed(seed % 2**32)


@contextlib.contextmanager
def own_rng() -> Iterator[None]:
    """A block that leaves the global generators of Python, NumPy and torch as it found them: what an evaluation draws,
    and the seeds that it sets, do not change the training beside it."""
    python_state = random.getstate()
    numpy_state = np.random.get_state()
    torch = sys.modules.get("torch")
    torch_state = torch.get_rng_state() if torch is not None else None
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        if torch is not None:
            torch.set_rng_state(torch_state)


VIDEO_FPS = 25.0  # frames a second where an environment does not say
MAX_VIDEO_FPS = 60.0  # browsers drop frames beyond


def frame_rate(fps: Any) -> float:
    """An environment's render_fps as a number of at least 1; VIDEO_FPS for what is none (None, 0, nan, a text)."""
    try:
        fps = float(fps)
    except (TypeError, ValueError):
        return VIDEO_FPS
    if not 0.0 < fps < math.inf:
        return VIDEO_FPS
    return max(fps, 1.0)


def rgb_frame(frame: Any) -> np.ndarray:
    """A copy, (height, width, 3) uint8, of a frame (height, width) or (height, width, 1, 3 or 4) of bytes, of truth
    values, or of floats in 0 ... 1. ValueError for another shape."""
    frame = np.asarray(frame)
    if frame.dtype == bool:
        frame = frame.astype(np.float32)
    if np.issubdtype(frame.dtype, np.floating):
        frame = np.nan_to_num(frame)
        if frame.size > 0 and frame.max() <= 1.5:  # a little above 1, by rounding or a highlight, is not out of 255
            frame = 255.0 * frame
        frame = np.rint(frame)
    if frame.ndim == 2:
        frame = frame[:, :, None]
    if frame.ndim != 3 or frame.shape[2] not in (1, 3, 4) or frame.size == 0:
        raise ValueError(f"a frame of shape {frame.shape} is no picture")
    colours = frame[:, :, :3]  # without its opacity
    if frame.shape[2] == 1:
        colours = np.repeat(frame, 3, 2)
    return np.array(np.clip(colours, 0, 255), np.uint8)


def enlarged(image: np.ndarray, height: int) -> np.ndarray:
    """(height, width, 3) of an image (3, H, W), its pixels as they are."""
    _, rows, columns = image.shape
    row = np.arange(height) * rows // height
    column = np.arange(height * columns // rows) * rows // height
    return image.transpose(1, 2, 0)[row][:, column]


class Video:
    """A film `path` (.mp4, H.264, which browsers and notebooks play) of frames that are encoded as they are added, by
    ffmpeg in a process of its own: memory does not grow with its length.

    It has the size of its first frame, made even; frames of another size are cut or padded with black, None is left
    out. It is written under a temporary name, NAME.part.mp4, until `close`. A video never ends a run: whatever fails is
    one line on standard error, and nothing more is drawn or written.
    """

    warnings: set[str] = set()  # those that this process has printed

    def __init__(self, path: str | Path, fps: Any) -> None:
        self.path = Path(path)
        self._part = self.path.with_name(self.path.stem + ".part.mp4")
        rate = frame_rate(fps)
        self._every = math.ceil(rate / MAX_VIDEO_FPS)  # of so many frames one is kept
        self._fps = rate / self._every
        self._added = 0
        self._size = (0, 0)
        self._writer = None
        self._failed = False

    def draw(self, env: gym.Env, obs: np.ndarray | None = None) -> None:
        """Add what the environment draws now; right of it the newest image of `obs` (frames, 3, H, W), if given, in
        the same height."""
        if self._failed:
            return
        try:
            frame = env.render()
            if obs is not None and frame is not None:
                frame = rgb_frame(frame)
                frame = np.concatenate((frame, enlarged(obs[-1], len(frame))), 1)
        except (Exception, SystemExit) as error:
            self._fail(error)
            return
        self.add(frame)

    def add(self, frame: Any) -> None:
        """Encode a frame (see rgb_frame); nothing keeps it, so that an environment may draw the next one over it."""
        if self._failed or frame is None:
            return
        self._added += 1
        if (self._added - 1) % self._every > 0:
            return
        try:
            frame = rgb_frame(frame)
            if self._writer is None:
                self._open(*frame.shape[:2])
            height, width = (min(have, wanted) for have, wanted in zip(frame.shape, self._size))
            canvas = np.zeros((*self._size, 3), np.uint8)
            canvas[:height, :width] = frame[:height, :width]
            self._writer.append_data(canvas)
        except Exception as error:
            self._fail(error)

    def _open(self, height: int, width: int) -> None:
        import imageio.v2 as imageio  # comes with gymnasium[mujoco]; its plugin is imageio-ffmpeg

        self._size = (height + height % 2, width + width % 2)  # yuv420p halves both
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = imageio.get_writer(
            self._part,
            format="FFMPEG",
            fps=self._fps,
            codec="libx264",
            pixelformat="yuv420p",
            macro_block_size=1,  # no other size than ours
            output_params=["-movflags", "+faststart"],  # it plays before it is loaded
            ffmpeg_log_level="quiet",
        )

    def close(self) -> None:
        """Give the film its name. Without a frame there is none."""
        if self._failed or self._writer is None:
            return
        writer = self._writer
        self._writer = None
        try:
            writer.close()
            if self._part.stat().st_size == 0:
                raise OSError("ffmpeg has written nothing")
            os.replace(self._part, self.path)
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._failed = True
        if self._writer is not None:
            with contextlib.suppress(Exception):
                self._writer.close()
            self._writer = None
        with contextlib.suppress(OSError):
            self._part.unlink()
        message = failure(error)
        if message not in Video.warnings:  # not at every evaluation anew
            Video.warnings.add(message)
            warn(f"no video {self.path}: {message}; the run goes on without it")


def make_task(env_id: str, render_mode: str | None, options: Sequence[str]) -> gym.Env:
    """A task of this file."""
    if env_id.startswith(METAWORLD):
        state_id = env_id.removesuffix(AS_IMAGE)
        if state_id not in metaworld_ids():
            raise unknown_id(env_id)
        return MetaWorld(state_id.removeprefix(METAWORLD), render_mode, options)
    task_class, *arguments = TASKS[env_id]
    if task_class in (Adroit, Cabinet) and importlib.util.find_spec("gymnasium_robotics") is None:
        raise ValueError(f"{env_id} needs gymnasium-robotics: pip install gymnasium-robotics==1.4.2")
    return task_class(*arguments, render_mode, options)


def draw(env: gym.Env, env_id: str) -> Any:
    """What it renders. CannotRender if that fails, but not for want of OpenGL."""
    try:
        return env.render()
    except NotImplementedError as error:
        raise CannotRender(f"{env_id} cannot be rendered: its class has no render()") from error
    except gym.error.DependencyNotInstalled as error:  # a renderer in Python, for example pygame
        raise CannotRender(f"{env_id} cannot be rendered: {one_line(error)}") from error
    except Exception as error:
        if is_opengl_error(error):
            raise
        raise CannotRender(f"{env_id} cannot be rendered: {failure(error)}") from error


def make_env(
    env_id: str,
    seed: int = 0,
    render_mode: str | None = None,
    options: Sequence[str] = (),
    env_kwargs: dict[str, Any] | None = None,
    frames: int = 0,
) -> gym.Env:
    """One environment. All its episodes follow from `seed`, or from the seed of its last reset(seed=).

    render_mode: None or "rgb_array"; a first frame is drawn at once, so that a missing renderer is found early.
    options: switches out of OPTIONS[env_id].
    env_kwargs: arguments of gymnasium.make, for ids that are not of this file.
    frames: how many images are observed, (frames, 3, 64, 64) uint8, newest last (see with_images); 0: what the id
      says, a vector but for those in -pixels.
    Seeds the global generators of Python and NumPy, for constructors that draw from them.
    ValueError, in one line, if the environment cannot be made, reset or drawn.
    """
    if render_mode not in (None, "rgb_array"):
        raise ValueError(f"render_mode {render_mode!r}: frames are drawn with 'rgb_array'; windows: python envs.py ID")
    for option in options:
        if option not in OPTIONS.get(env_id, ()):
            known = "it has no options"
            if env_id in OPTIONS:
                known = f"its options: {', '.join(OPTIONS[env_id])}"
            raise ValueError(f"{env_id} has no option {option!r}; {known}")
    is_ours = env_id in TASKS or env_id.startswith(METAWORLD)
    if is_ours and env_kwargs:
        raise ValueError(
            f"{env_id} takes no --env-kwargs ({', '.join(env_kwargs)}): they are for ids of gymnasium.make"
        )
    images = frames > 0 or (env_id.startswith(METAWORLD) and env_id.endswith(AS_IMAGE))
    seed_global_rng(seed)
    try:
        if is_ours:
            env = make_task(env_id, "rgb_array" if images else render_mode, options)
        else:
            env = make_gymnasium(env_id, render_mode, env_kwargs or {}, images)
        if images:
            env = with_images(env, env_id, frames)
        env = Standard(env)
        try:
            env.reset(seed=seed)
        except Exception as error:
            if is_ours or is_opengl_error(error) or isinstance(error, CannotRender):
                raise
            raise ValueError(f"{env_id}: its first reset fails: {failure(error)}") from error
        env.action_space.seed(seed)
        if render_mode is not None:
            draw(env, env_id)
    except CannotRender as error:
        if not images:
            raise
        raise ValueError(f"{error}; rpg_pixels.py needs pictures, rpg.py learns from states") from error
    except SystemExit as error:  # it would end the program without a word
        raise ValueError(f"{env_id}: its own code calls sys.exit({error})") from error
    except Exception as error:
        if isinstance(error, ValueError) or not is_opengl_error(error):
            raise
        raise ValueError(
            f"no OpenGL ({one_line(error)}): apt install libegl1 libegl-mesa0 libgl1-mesa-dri, or set MUJOCO_GL=osmesa "
            "(apt install libosmesa6); to train on states, without rendering, unset MUJOCO_GL"
        ) from error
    return env


LARGEST = 1e18  # of what is learned from: its square, in a loss, is still a float32


class NotFinite(ArithmeticError):
    """A nan or an infinite number, which ends a run. (An environment's own code may raise a FloatingPointError.)"""


def finite(obs: np.ndarray, rewards: Any = 0.0) -> np.ndarray:
    """obs (or actions), if they and the rewards are numbers up to LARGEST; else NotFinite."""
    if obs.dtype != np.uint8 and not (np.abs(obs) <= LARGEST).all():  # False of a nan
        raise NotFinite(f"an observation or action is nan, infinite or beyond {LARGEST:g}")
    if not (np.abs(rewards) <= LARGEST).all():
        raise NotFinite(f"a reward is nan, infinite or beyond {LARGEST:g}")
    return obs


def state_sizes(env: gym.Env) -> tuple[int, int, int]:
    """Sizes of observation, object coordinates in it (its last entries), and action. ValueError if it is an image, or
    if it has fewer entries than object coordinates."""
    shape = env.observation_space.shape
    if len(shape) != 1:
        raise ValueError(
            f"this environment is seen as an image, {shape}; this script is for state observations, rpg_pixels.py for "
            "images"
        )
    object_dim = getattr(env.unwrapped, "object_dim", 0)
    is_number = isinstance(object_dim, (int, np.integer)) and not isinstance(object_dim, bool)
    if not is_number or not 0 <= object_dim <= shape[0]:
        raise ValueError(
            f"the environment's object_dim, {one_line(repr(object_dim))[:80]}, must be a whole number from 0 to the "
            f"{shape[0]} entries of its observation, of which the last ones are object coordinates"
        )
    return shape[0], int(object_dim), env.action_space.shape[0]


def pixel_sizes(env: gym.Env) -> tuple[tuple[int, int, int, int], int]:
    """Shape of the observation, (frames, 3, 64, 64), and size of the action. ValueError if it is no stack of images."""
    shape = env.observation_space.shape
    if not is_image(env.observation_space) or len(shape) != 4 or shape[1:] != (3, PIXELS, PIXELS):
        raise ValueError(
            f"the observation {one_line(env.observation_space)[:80]} is no stack of images: make_env(..., frames=2)"
        )
    return shape, env.action_space.shape[0]


WORKER_TIMEOUT = os.environ.get("RPG_WORKER_TIMEOUT", "60")  # seconds a worker may take for a step or a reset


class Workers(gym.vector.AsyncVectorEnv):
    """Worker processes, watched: if one dies, ConnectionError; if one hangs, TimeoutError; then none is left."""

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict]:
        return self._watch(super().reset_async, super().reset_wait, **kwargs)

    def step(self, actions: np.ndarray) -> tuple:
        return self._watch(super().step_async, super().step_wait, actions)

    def _watch(self, ask: Callable, answer: Callable, *args: Any, **kwargs: Any) -> tuple:
        try:
            ask(*args, **kwargs)
            seconds = range(int(WORKER_TIMEOUT))  # not one long wait, which Ctrl-Z would end
            for i, pipe in enumerate(self.parent_pipes):
                if not any(pipe.poll(1.0) for _ in seconds):
                    raise TimeoutError(f"worker process {i} gave no answer in {WORKER_TIMEOUT} s (RPG_WORKER_TIMEOUT)")
            return answer()
        except (ConnectionError, EOFError, TimeoutError) as error:
            dead = [i for i, process in enumerate(self.processes) if process.join(0.1) or process.exitcode is not None]
            for process in self.processes:
                process.kill()  # SIGTERM would not end one that is stopped
            self._state = gym.vector.async_vector_env.AsyncState.DEFAULT  # else gymnasium waits for it, and warns
            self.close(terminate=True)
            if isinstance(error, TimeoutError) or raised_by_environment(error):
                raise
            raise ConnectionError(f"worker process {dead[0] if dead else ''} died") from error


class PortableErrors(gym.Wrapper):
    """In a worker process: what an environment raises reaches the main process, which would else wait forever."""

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict]:
        try:
            return self.env.reset(**kwargs)
        except Exception as error:
            raise portable(error) from error

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        try:
            return self.env.step(action)
        except Exception as error:
            raise portable(error) from error


def portable(error: Exception) -> Exception:
    """The error, or its text as a RuntimeError if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {one_line(error)}")
    return error


def make_worker_env(*args: Any) -> gym.Env:
    """make_env in a worker process."""
    return PortableErrors(make_env(*args))


def make_vector_env(
    env_id: str,
    num_envs: int,
    seed: int,
    async_envs: bool = False,
    options: Sequence[str] = (),
    env_kwargs: dict[str, Any] | None = None,
    frames: int = 0,
) -> gym.vector.VectorEnv:
    """`num_envs` environments, the i-th made from derive_seeds(num_envs, seed)[i] (see make_env). The step after an
    episode's last one ignores its action and returns the next episode's first observation with reward 0 (NEXT_STEP)."""
    if env_id == "maze" and not async_envs and frames == 0:
        make_env(env_id, seed, None, options, env_kwargs)  # checks the options
        return VectorMaze(num_envs, options)
    make = make_worker_env if async_envs else make_env
    makers = []
    for env_seed in derive_seeds(num_envs, seed):
        makers.append(functools.partial(make, env_id, env_seed, None, tuple(options), env_kwargs, frames))
    mode = gym.vector.AutoresetMode.NEXT_STEP
    if async_envs:
        if not WORKER_TIMEOUT.isdecimal() or int(WORKER_TIMEOUT) == 0:
            raise ValueError(f"RPG_WORKER_TIMEOUT={WORKER_TIMEOUT}: must be whole seconds, e.g. 300")
        handlers = {}
        for name in ("SIGINT", "SIGHUP"):  # ignored by the workers, to whom a terminal sends them too
            if hasattr(signal, name):
                number = getattr(signal, name)
                handlers[number] = signal.signal(number, signal.SIG_IGN)
        try:
            return Workers(makers, context="spawn", autoreset_mode=mode)
        except (EOFError, ConnectionError) as error:
            raise ValueError(
                f"{env_id}: a worker process ended while it started (its message is above); try it without --async-envs"
            ) from error
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return gym.vector.SyncVectorEnv(makers, autoreset_mode=mode)


# ----------------------------------------------------------------------------------------------------------------------
# What every script needs around its algorithm: the command line, a run's directory and its files, checkpoints, signals,
# and what is printed. Nothing below knows what is learned. torch and tyro are imported where they are used, so that
# `python envs.py` starts without them.
# ----------------------------------------------------------------------------------------------------------------------
def refuse(message: Any, code: int = 2) -> NoReturn:
    """End the program with one line on standard error; exit code 2 is for bad input."""
    say(f"{Path(sys.argv[0]).name}: error: {one_line(message)}", file=sys.stderr)
    sys.exit(code)


def warn(message: Any) -> None:
    """One line on standard error; the program goes on."""
    say(f"{Path(sys.argv[0]).name}: warning: {one_line(message)}", file=sys.stderr)


def say(text: str, end: str = "\n", file: TextIO | None = None) -> None:
    """Print to standard output (or `file`). A pipe or a terminal that has been closed must not end a run."""
    file = sys.stdout if file is None else file
    try:
        print(text, end=end, file=file, flush=True)
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):  # what is still in its buffer must go somewhere at the exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())


def prepare_console() -> None:
    """Let every character be printed: as ? where the console's encoding lacks it (cp1252, latin-1), and as nothing
    where standard output or error is closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  open as long as the program is
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def command_line(description: str) -> argparse.ArgumentParser:
    """The parser of a program of benchmark/, with bad input as one line; its console is prepared."""
    prepare_console()
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = refuse
    return parser


def whole_number(text: str) -> int:
    """The integer of "2000000" or of "2e6". ValueError if it is none."""
    with contextlib.suppress(ValueError):
        return int(text)  # exact also beyond 2**53
    number = float(text)
    if not number.is_integer():
        raise ValueError(f"{text} is not a whole number")
    return int(number)


def parse_flags(args_class: type, script: str, description: str, default: Any) -> Any:
    """An instance of a dataclass from the command line, by tyro. `--help` shows the dataclass's own groups (the
    comments `# --- name` above its fields) and the comment behind each field; integers may be written as 2e6."""
    import tyro

    types = get_type_hints(args_class)
    (tree,) = (node for node in ast.parse(script).body if getattr(node, "name", None) == args_class.__name__)
    heading = "flags"
    groups: dict[str, list] = {}
    for line in script.splitlines()[tree.lineno : tree.end_lineno]:
        marker = re.match(r"    # --- (.*)", line)
        flag = re.match(r"    (\w+): [^#]*(?:# (.*))?", line)
        if marker:
            heading = marker[1]
        elif flag:
            name, help_text = flag.groups()
            kind = Annotated[types[name], tyro.conf.arg(help=help_text or "")]
            field = name, kind, dataclasses.field(default=getattr(default, name))
            groups.setdefault(heading, []).append(field)
    members = []
    for heading, fields in groups.items():
        name = re.sub(r"\W+", "_", heading)
        group = dataclasses.make_dataclass(name, fields)
        members.append((name, group, dataclasses.field(default_factory=group)))
    grouped = dataclasses.make_dataclass("Grouped", members)

    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def integer(info: Any) -> Any:
        if info.type is not int:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="INT",
            instance_from_str=lambda words: whole_number(words[0]),
            is_instance=lambda value: isinstance(value, int),
            str_from_instance=lambda value: [str(value)],
        )

    parsed = tyro.cli(tyro.conf.OmitArgPrefixes[grouped], description=description, registry=registry)
    flat = {}
    for group in vars(parsed).values():
        flat |= vars(group)
    return args_class(**flat)


def flags_read(text: str) -> set[str]:
    """The names that a script, a text, reads as args.name, but for its check_args."""
    parts = [part for part in ast.parse(text).body if getattr(part, "name", None) != "check_args"]
    nodes = [node for part in parts for node in ast.walk(part) if isinstance(node, ast.Attribute)]
    return {node.attr for node in nodes if ast.unparse(node.value).split(".")[-1] == "args"}


def check_flags(args_class: type, script: str, listed: Collection[str]) -> None:
    """Refuse a script, a text, in which no line reads a flag (as args.name) but to check it, or that lists a flag which
    it does not have."""
    names = [field.name for field in dataclasses.fields(args_class)]
    read = flags_read(script) | flags_read(Path(__file__).read_text(encoding="utf-8"))
    for name in names:
        if name not in read:
            refuse(f"--{name.replace('_', '-')}: no line reads args.{name}")
    for name in sorted(set(listed) - set(names)):
        refuse(f"{name!r} is in a list of flags, but is no flag of Args")


def parse_args(
    args_class: type, description: str | None, changeable: Collection[str] = (), listed: Collection[str] = ()
) -> tuple[Any, set[str]]:
    """The script's Args, and the names of those that were typed. With --resume RUN_DIR the others are the run's own,
    and only those that are `changeable` may be typed differently: else one line, exit code 2. `listed`: other flags
    that the script names (see check_flags)."""
    prepare_console()
    global started_in, main_script
    started_in = Path.cwd()
    main_script = os.path.abspath(inspect.currentframe().f_back.f_code.co_filename)  # "__main__" may be a profiler
    script = script_of(args_class).read_text(encoding="utf-8")
    check_flags(args_class, script, {*changeable, *listed})
    description = (description or "").split("\n\n")[0]  # none under python -OO
    words = [word[2:].split("=")[0] for word in sys.argv[1:] if word.startswith("--")]
    names = {field.name for field in dataclasses.fields(args_class)}
    given = set()
    for word in words:
        name = word.replace("-", "_")
        given.add(name if name in names else name.removeprefix("no_"))
    args = parse_flags(args_class, script, description, args_class())
    if getattr(args, "resume", None) is None:  # (rpg_bandit.py has no such flag)
        return args, given
    if Path(args.resume).is_file():
        refuse(f"--resume {args.resume}: a file; give its directory, {Path(args.resume).parent}")
    if not Path(args.resume).is_dir():
        refuse(f"--resume {args.resume}: there is no such directory")
    try:
        saved = load_args(args.resume, args_class)
        args = parse_flags(args_class, script, description, saved)
    except (OSError, ValueError, TypeError) as error:
        refuse(f"--resume {args.resume}: not the directory of a run of this script: {error}")
    for name in sorted((given & names) - set(changeable)):
        value, old = getattr(args, name), getattr(saved, name)
        if value != old:
            refuse(
                f"{flag_text(name, value)}: the run in {args.resume} was started with {flag_text(name, old)} and keeps "
                "it; leave the flag out, or start a new run"
            )
    return args, given


def flag_text(name: str, value: Any) -> str:
    """A flag as it is typed: --hidden-dim 32, --no-autotune."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    if isinstance(value, tuple):
        value = " ".join(map(str, value))
    return f"--{flag} {value}"


started_in = Path.cwd()  # set by parse_args; an environment's code may change the working directory
main_script = ""  # set by parse_args: the script that was typed


def script_of(args_class: type) -> Path:
    """The script that defines these Args."""
    if args_class.__module__ == "__main__":
        return Path(main_script)
    return Path(sys.modules[args_class.__module__].__file__)


def short(path: Path) -> str:
    """A path as a user would type it where the program was started."""
    path = Path(path)
    return str(path.relative_to(started_in) if path.is_relative_to(started_in) else path)


def make_run_dir(runs: Path, env_id: str, exp_name: str, seed: int) -> Path:
    """Make and return `runs`/<env_id>__<exp_name>__<seed>__<time>, without characters that a file system may refuse;
    with a number behind it where another run of the same second has that name."""
    name = re.sub(r"[^\w.+=,@-]+", "-", f"{env_id}__{exp_name}__{seed}__{int(time.time())}")
    try:
        runs.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise OSError(f"{runs} is no directory, but a file or a link to nowhere: move it away") from None
    for attempt in itertools.count(1):
        run_dir = runs / (name if attempt == 1 else f"{name}-{attempt}")
        with contextlib.suppress(FileExistsError):  # another run has it
            run_dir.mkdir()
            return run_dir


def lock(run_dir: Path) -> bool:
    """Whether this process may write to a run: True if no other one trains it. Ends with the process, however that
    ends. (Windows has no such locks: always True there.)"""
    try:
        import fcntl
    except ImportError:
        return True
    descriptor = os.open(run_dir, os.O_RDONLY)  # stays open as long as the process lives
    for attempt in range(10):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if attempt == 9:
                os.close(descriptor)
                return False
            time.sleep(0.01)  # launch.py, which only looks whether the run is training, holds it for a moment
        except OSError:  # a file system without locks
            break
    os.register_at_fork(after_in_child=lambda: os.close(descriptor))  # an environment's child must not hold it
    return True


def replace_file(path: Path, write: Callable) -> None:
    """Let write(file) fill a new binary file, which gets its name when it is complete and on the disk: a kill, a full
    disk or a power cut leaves the old file. Raises OSError."""
    new = path.with_name(path.name + ".new")
    try:
        with open(new, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except Exception as error:
        with contextlib.suppress(OSError):
            new.unlink()
        if isinstance(error.__context__, OSError):  # torch's writer of zips fails once more when it closes
            raise error.__context__ from None
        raise


def write_checkpoint(run_dir: Path, state: dict) -> None:
    """Write model.pt, the weights state["agent"], and then checkpoint.pt, `state` (all that a resumed run needs) and
    torch's RNG: a kill between the two leaves no weights older than the checkpoint. Raises OSError; NotFinite, and
    nothing is written, if a weight is nan or infinite."""
    import torch

    for name, weight in state["agent"].items():
        if not weight.isfinite().all():
            raise NotFinite(f"the weight {name} is nan or infinite")
    rng = [torch.get_rng_state()]
    if torch.cuda.is_initialized():  # by this run
        rng.append(torch.cuda.get_rng_state())
    replace_file(run_dir / "model.pt", lambda file: torch.save(state["agent"], file))
    replace_file(run_dir / "checkpoint.pt", lambda file: torch.save(state | {"rng": rng}, file))


def read_checkpoint(run_dir: Path) -> dict:
    """The newest checkpoint of a run, its tensors mapped from the file: a replay is not held twice. Runs no code from
    the file. An exception (of many kinds) if there is none, or if a bit of it has changed."""
    import torch

    path = Path(run_dir, "checkpoint.pt")
    with zipfile.ZipFile(path) as archive:
        if archive.testzip() is not None:  # torch.load looks at no checksum
            raise ValueError("wrong checksum")
        if any(entry.external_attr != 0 for entry in archive.infolist()):  # a flag there, and torch.load reads nothing
            raise ValueError("damaged directory")
    return torch.load(path, "cpu", weights_only=True, mmap=True)


def restore_rng(states: Sequence[Any]) -> None:
    """Set torch's RNG of the CPU, and of the GPU if the run was on one, as it was at a checkpoint."""
    import torch

    torch.set_rng_state(states[0].cpu())
    if torch.cuda.is_initialized() and len(states) > 1:
        torch.cuda.set_rng_state(states[1].cpu())


def load_args(run_dir: Path, args_class: type) -> Any:
    """The Args of a run. Raises OSError if it has none, ValueError or TypeError if another script made it, by its flags
    or by the copy of the script in it."""
    saved = json.loads(Path(run_dir, "args.json").read_text(encoding="utf-8"))
    if not isinstance(saved, dict):
        raise ValueError("args.json holds no flags")
    script = script_of(args_class).name
    copies = [path.name for path in Path(run_dir).glob("*.py")]
    if copies and script not in copies:
        raise ValueError(f"it is a run of {copies[0]}; if {script} is the same code, rename the copy in it")
    foreign = saved.keys() ^ vars(args_class()).keys()
    if foreign:  # missing ones would be today's defaults
        raise ValueError(f"args.json is of another script or version, by its {', '.join(sorted(foreign)[:4])}")
    hints = get_type_hints(args_class)
    for name, value in saved.items():
        if isinstance(value, list):
            saved[name] = value = tuple(value)
        if not is_of(value, hints[name]):
            raise ValueError(f"args.json has {name} = {one_line(repr(value))[:60]}: edited by hand?")
    return args_class(**saved)


def is_of(value: Any, hint: Any) -> bool:
    """Whether a flag with the annotation `hint` may have the value: a type, Literal[…], tuple[…] or X | None."""
    arms = get_args(hint)
    if get_origin(hint) is Literal:
        return value in arms
    if get_origin(hint) is tuple:
        if not isinstance(value, tuple):
            return False
        if arms[-1] is ...:  # tuple[X, ...], of any length
            arms = arms[:1] * len(value)
        return len(value) == len(arms) and all(map(is_of, value, arms))
    if arms:  # X | None
        return any(is_of(value, arm) for arm in arms)
    if hint is float:
        return type(value) in (int, float)
    return type(value) is hint  # (a bool is no int)


def check_optimizers(agent: Any, optimizers: dict[str, Any]) -> None:
    """ValueError that names a parameter which needs a gradient and belongs to no optimiser: it would never be trained;
    or an optimiser of a parameter that is none of the agent's: it would not be saved; or networks in a plain list or
    dict, or a tensor that is no parameter or buffer: they would be neither."""
    import torch

    registered = {id(item) for item in (*agent.modules(), *agent.parameters(), *agent.buffers())}
    for path, module in agent.named_modules(prefix="Agent"):
        for name, value in vars(module).items():
            items = value if isinstance(value, (list, tuple)) else [value]
            if isinstance(value, dict):
                items = value.values()
            items = [item for item in items if id(item) not in registered]
            if any(isinstance(item, torch.nn.Module) for item in items):
                kind = "nn.ModuleDict" if isinstance(value, dict) else "nn.ModuleList"
                raise ValueError(f"{path}.{name}: networks in a plain container, not trained or saved: use {kind}")
            if any(isinstance(item, torch.Tensor) for item in items):
                raise ValueError(f"{path}.{name}: a tensor that is not saved: use register_buffer or nn.Parameter")
    names = {id(parameter): name for name, parameter in agent.named_parameters()}
    trained = set()
    for optimizer_name, optimizer in optimizers.items():
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if id(parameter) not in names:
                    raise ValueError(
                        f"{optimizer_name} trains a parameter of shape {tuple(parameter.shape)} that is no part of the "
                        "agent, and would not be saved"
                    )
                trained.add(id(parameter))
    for name, parameter in agent.named_parameters():
        if parameter.requires_grad and id(parameter) not in trained:
            raise ValueError(f"no optimiser trains Agent.{name}: give it one, or call requires_grad_(False) on it")


def optimizer_states(agent: Any) -> dict[str, dict]:
    """{optimiser: {parameter: its state}} of agent.optimizers(), by name, for the order of parameters may change."""
    names = {parameter: name for name, parameter in agent.named_parameters()}
    states = {}
    for key, optimizer in agent.optimizers().items():
        states[key] = {names[parameter]: state for parameter, state in optimizer.state.items()}
    return states


def load_optimizer_states(agent: Any, states: dict[str, dict]) -> None:
    """Undo optimizer_states. ValueError if there are other optimisers now, or one does not train what it did."""
    names = {parameter: name for name, parameter in agent.named_parameters()}
    optimizers = agent.optimizers()
    if states.keys() != optimizers.keys():
        raise ValueError(f"the run has {', '.join(sorted(states))}, the script {', '.join(sorted(optimizers))}")
    for key, optimizer in optimizers.items():
        trained = [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
        foreign = states[key].keys() - set(trained)
        if foreign:
            raise ValueError(f"{key} does not train {', '.join(sorted(map(str, foreign))[:3])} here")
        by_index = {index: states[key][name] for index, name in enumerate(trained) if name in states[key]}
        groups = optimizer.state_dict()["param_groups"]  # of today's flags, e.g. --cudagraphs
        optimizer.load_state_dict({"state": by_index, "param_groups": groups})


def check_gradients(agent: Any, optimizers: dict[str, Any]) -> None:
    """A warning, once, that names a parameter of an optimiser which has no gradient after some updates."""
    if getattr(check_gradients, "warned", False):
        return
    names = {id(parameter): name for name, parameter in agent.named_parameters()}
    for optimizer_name, optimizer in optimizers.items():
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None or parameter not in optimizer.state:
                    warn(
                        f"{optimizer_name} has not trained Agent.{names[id(parameter)]} yet: is it in a loss, with "
                        "zero_grad() before backward(), and step() after it?"
                    )
                    check_gradients.warned = True
                    return


class Stop:
    """Ends a run in order. `requested` is True after the first Ctrl-C, SIGTERM or SIGHUP (the terminal is closed); the
    second one ends the process at once, also where an environment or a compiler does not return."""

    def __init__(self) -> None:
        self.requested = False
        self._numbers: set[int] = set()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def listen(self) -> None:
        """Take over the signals; but not a SIGHUP that `nohup` has the process ignore. Again after foreign code has run
        that may have handlers of its own."""
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is not None and (name == "SIGINT" or signal.getsignal(number) is not signal.SIG_IGN):
                self._numbers.add(number)
                signal.signal(number, self._handle)

    def _forget(self) -> None:
        """The default handlers: for a second signal, and in an environment's child processes."""
        for number in self._numbers:
            signal.signal(number, signal.SIG_DFL)

    def _handle(self, number: int, frame: Any) -> None:
        self.requested = True
        self._forget()
        with contextlib.suppress(OSError):  # not print, which may be what was interrupted
            os.write(2, b"\nstopping after this step, with a checkpoint; once more: at once\n")


def free_memory() -> float:
    """Bytes that this process can still take, by the kernel and by its container; infinite where neither tells."""
    free = [math.inf]
    groups = [Path("/sys/fs/cgroup")]
    with contextlib.suppress(OSError, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    with contextlib.suppress(OSError, ValueError):
        own = Path("/proc/self/cgroup").read_text().splitlines()[-1].partition("::")[2].strip("/")
        groups = [Path("/sys/fs/cgroup", own), *Path("/sys/fs/cgroup", own).parents]
    for group in groups:
        free.append(free_in_group(group))
    return min(free)


def free_in_group(group: Path) -> float:
    """Bytes that a container (cgroup v2) can still take; infinite if it has no limit."""
    with contextlib.suppress(OSError, ValueError):
        counts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        used = int((group / "memory.current").read_text()) - int(counts["inactive_file"])
        return int((group / "memory.max").read_text()) - used
    return math.inf


def require_memory(size: float, what: str, device: Any) -> None:
    """ValueError if `size` bytes do not fit into the free memory of a torch device: before they are touched, for else
    the kernel kills the run in the middle of it."""
    import torch

    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
    if size > free:
        raise ValueError(
            f"{what} takes {size / 1e9:,.1f} GB of memory, {free / 1e9:,.1f} GB are free: --buffer-size less"
        )


def choose_device(args: Any, given: set[str]) -> Any:
    """The torch.device of a run: the GPU if there is one (CUDA_VISIBLE_DEVICES chooses it), unless --no-cuda. Else the
    CPU, with --num-threads threads, or as many as OMP_NUM_THREADS says, if it is set and the flag is not typed."""
    import torch

    cores = os.cpu_count() or 1
    if args.num_threads > 16 * cores:  # torch crashes at some number
        refuse(f"--num-threads {args.num_threads}: this machine has {cores} cores")
    if "num_threads" in given or not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(args.num_threads)
    args.num_threads = torch.get_num_threads()
    device = torch.device("cuda" if args.cuda and torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        keep_freed_memory()
        if "cuda" in given and args.cuda:
            warn("--cuda, but torch finds no GPU here: running on the CPU")
        if "cudagraphs" in given and args.cudagraphs:
            say("note: --cudagraphs is for a GPU: off", file=sys.stderr)
    return device


def device_name(device: Any) -> str:
    """The device in words: "CPU (1 thread)", "GPU 0 (NVIDIA H100)"."""
    import torch

    if device.type == "cuda":
        index = torch.cuda.current_device()
        return f"GPU {index} ({torch.cuda.get_device_name(index)})"
    threads = torch.get_num_threads()
    return f"CPU ({threads} thread{'s' * (threads > 1)})"


def introduce(run_dir: Path, env_id: str, sizes: tuple, num_envs: int, device: Any) -> None:
    """The first line that a run prints; sizes as by state_sizes or pixel_sizes."""
    if len(sizes) == 2:
        (frames, _, height, width), act_dim = sizes
        seen = f"{frames} frame{'s' * (frames > 1)} of {height} x {width}"
    else:
        obs_dim, object_dim, act_dim = sizes
        seen = f"observation {obs_dim}, of these {object_dim} object coordinates"
    say(
        f"{short(run_dir)} | "
        f"{env_id}: {seen}, action {act_dim} | "
        f"{num_envs} environment{'s' * (num_envs > 1)} | {device_name(device)} | "
        f"Ctrl-C stops it with a checkpoint, --resume {short(run_dir)} goes on"
    )


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks of up to 32 MB. It would return them to the kernel, which zeroes their pages anew for
    the next update: thousands of them, up to 6 % of its time. Nothing happens where there is no glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(-3, 2**25)  # M_MMAP_THRESHOLD
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def crossed(every: int, before: int, now: int) -> bool:
    """Whether a multiple of `every` lies in (before, now]; never if `every` is 0."""
    return every > 0 and now // every > before // every


def average(summaries: Sequence[Sequence[float]]) -> dict[str, float]:
    """{name of SUMMARY: mean over the episodes}, without what is known of none. A success that is known of others is 0
    where it is not: so say environments that name it only where it happens."""
    if not summaries:
        return {}
    values = np.array(summaries, float)
    unknown = np.isnan(values)
    means = np.where(unknown, 0.0, values).mean(0).tolist()
    return {name: mean for name, mean, none in zip(SUMMARY, means, unknown.all(0)) if not none}


def figures(means: dict[str, float]) -> str:
    """`means` as text: "return 3.20 | length 60.00 | success_final 0.10"."""
    return " | ".join(f"{name.replace('episodic_', '')} {mean:.2f}" for name, mean in means.items())


def read_summaries(path: Path) -> list[list[float]]:
    """The rows [step, episode, *SUMMARY] of an eval.csv; none if there is no such file."""
    if not path.exists():
        return []
    header, *rows = path.read_text(encoding="utf-8").splitlines() or [""]
    try:
        if header != SUMMARY_HEADER:
            raise ValueError(f"its first line is not {SUMMARY_HEADER}")
        return [
            [float(value) for _, value in zip(SUMMARY_HEADER.split(","), row.split(","), strict=True)] for row in rows
        ]
    except ValueError as error:
        raise OSError(f"{path} is no table of evaluations any more: repair it, or move it away ({error})") from error


def evaluated(run_dir: Path, step: int) -> bool:
    """Whether the run's eval.csv has an evaluation at `step`. Raises OSError."""
    return any(row[0] == step for row in read_summaries(run_dir / "eval.csv"))


def save_summaries(path: Path, step: int, summaries: Sequence[Sequence[float]]) -> None:
    """Write the summaries of episodes 0, 1, … of an evaluation at `step` to an eval.csv, in place of rows of the same
    step. Raises OSError."""
    rows = [row for row in read_summaries(path) if row[0] != step]
    rows += [[step, episode, *summary] for episode, summary in enumerate(summaries)]
    write_summaries(path, sorted(rows))


def write_summaries(path: Path, rows: Sequence[Sequence[float]]) -> None:
    """Write an eval.csv with these rows. Raises OSError."""
    replace_file(path, lambda file: np.savetxt(file, rows, "%.10g", ",", header=SUMMARY_HEADER, comments=""))


class Speed:
    """Environment steps a second. The clock is started when updates run at their usual speed; nothing is known
    before."""

    def __init__(self) -> None:
        self._start: tuple[int, float] | None = None

    def start(self, step: int) -> None:
        self._start = step, time.perf_counter()

    def sps(self, step: int) -> float | None:
        """Steps a second since the start, None before there are 20 ms to measure."""
        if self._start is None:
            return None
        seconds = time.perf_counter() - self._start[1]
        if seconds < 0.02:
            return None
        return (step - self._start[0]) / seconds


class Progress:
    """Lines on standard output, or on a terminal one line with a bar, drawn anew in its place."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._printed = -math.inf
        self._on_terminal = sys.stdout.isatty()

    def show(self, step: int, sps: float | None, means: dict[str, float], over: bool = False) -> None:
        """Steps, steps a second, time left, means: if a while has passed since the last line, or if it is the last
        one."""
        now = time.perf_counter()
        if now - self._printed < (0.2 if self._on_terminal else 10) and not over:
            return
        self._printed = now
        parts = [f"step {step:,} of {self.total:,}"]
        if sps is not None:
            left = datetime.timedelta(seconds=int(max(self.total - step, 0) / max(sps, 0.1)))
            parts += [f"{sps:.0f} steps/s", f"{left} left"]
        if means:
            parts.append(figures(means))
        line = " | ".join(parts)
        if self._on_terminal:
            bar = f"{'█' * int(20 * step / self.total):░<20.20}"
            say(f"\r{bar} {line}\x1b[K", end="\n" if over else "")
        else:
            say(line)

    def note(self, text: str) -> None:
        """A line of its own, which stays."""
        say(f"\r{text}\x1b[K" if self._on_terminal else text)


def open_log(run_dir: Path, step: int) -> Any:
    """The SummaryWriter of a run that starts, or goes on, at `step`: TensorBoard and eval.csv lose what is later."""
    from torch.utils.tensorboard import SummaryWriter

    path = run_dir / "eval.csv"
    rows = read_summaries(path)
    kept = [row for row in rows if row[0] <= step]
    if len(kept) < len(rows):
        write_summaries(path, kept)
    threading.excepthook = lambda failure: None  # the writer's thread: its error comes up at the next write or flush
    return SummaryWriter(run_dir, purge_step=step + 1)


def start_log(run_dir: Path, args: Any, step: int) -> Any:
    """Write args.json and, where a run starts, a copy of its script. Returns the SummaryWriter of a run that starts, or
    goes on, at `step`. Raises OSError."""
    writer = open_log(run_dir, step)
    if step == 0:
        script = script_of(type(args))
        replace_file(run_dir / script.name, lambda file: file.write(script.read_bytes()))

    flags = json.dumps(vars(args), indent=2)
    replace_file(run_dir / "args.json", lambda file: file.write(flags.encode()))
    writer.add_text("hyperparameters", "    " + flags.replace("\n", "\n    "), step)
    return writer


def start_wandb(run_dir: Path, args: Any) -> None:
    """--track: mirror the run to Weights & Biases. Before start_log."""
    import wandb

    wandb.init(
        project=args.wandb_project_name,
        entity=args.wandb_entity,
        sync_tensorboard=True,
        config=vars(args),
        name=run_dir.name,
        id=run_dir.name,
        resume="allow",
    )


def log_evaluation(
    run_dir: Path, writer: Any, progress: Progress, step: int, summaries: Sequence, made_up: bool = False
) -> None:
    """The summaries of an evaluation to TensorBoard, eval.csv and standard output; nothing of one that was stopped and
    has none. `made_up`: see log_summaries. Raises OSError."""
    if not summaries:
        return
    log_summaries(run_dir, writer, step, summaries, made_up)
    progress.note(f"step {step:,}: evaluation of {len(summaries)} episodes: {figures(average(summaries))}")


def log_summaries(run_dir: Path, writer: Any, step: int, summaries: Sequence, made_up: bool) -> None:
    """The summaries of an evaluation to TensorBoard and eval.csv. `made_up`: a kill came before they were in eval.csv,
    so TensorBoard may have them. Raises OSError."""
    if not (made_up and in_tensorboard(run_dir, step)):
        for key, mean in average(summaries).items():
            writer.add_scalar(f"eval/{key}", mean, step)
    writer.flush()  # before its rows are in the table, by which a resumed run knows that it was done
    save_summaries(run_dir / "eval.csv", step, summaries)


def in_tensorboard(run_dir: Path, step: int) -> bool:
    """Whether the event files of a run have an evaluation at `step`. All are read: seconds, if the run is long."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it notes each resume as out of order
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0}).Reload()
    tag = f"eval/{SUMMARY[0]}"
    return tag in events.Tags()["scalars"] and any(event.step == step for event in events.Scalars(tag))


def report(
    run_dir: Path, env_id: str, seed: int, step: int, training_episodes: int, summaries: Sequence, **more
) -> None:
    """The last line on standard output: a JSON object with the means of these summaries and `more`."""
    result = {"run_dir": short(run_dir), "env_id": env_id, "seed": seed, "global_step": step}
    result |= {"training_episodes": training_episodes, "episodes": len(summaries)}
    result |= dict.fromkeys(SUMMARY) | average(summaries)
    for name, value in more.items():
        result[name] = round(value, 1) if name == "sps" and value is not None else value
    say(json.dumps(result))


def end_on_nan(error: NotFinite, losses: dict[str, Any], step: int, run_dir: Path) -> NoReturn:
    """One line, exit code 1; `losses`, the sums since the last log, tell of a nan before the actions do."""
    message = str(error)
    for key, total in losses.items():
        if not total.isfinite():
            message = f"losses/{key} is nan or infinite"
    refuse(f"{message}, at step {step}; --resume {short(run_dir)} goes on from the newest checkpoint, if any", 1)


def raised_by_environment(error: BaseException) -> bool:
    """Whether an exception comes out of an environment's own code, in this process or in a worker."""
    codes = (Standard.reset.__code__, Standard.step.__code__, Workers._raise_if_errors.__code__)
    return any(frame.f_code in codes for frame, _ in traceback.walk_tb(error.__traceback__))


def end_on_error(error: BaseException, step: int, run_dir: Path) -> None:
    """One line, exit code 1, where no code is at fault: a full disk, a worker that died, no compiler. Else a line,
    after which the caller raises the error."""
    goes_on = f"at step {step}; --resume {short(run_dir)} goes on from the newest checkpoint, if any"
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):  # a kill while it compiles cuts files
        refuse(
            f"--compile was interrupted, or needs g++, or its cache, /tmp/torchinductor_*, deleted: "
            f"{one_line(error)[:90]}...; {goes_on}",
            1,
        )
    if isinstance(error, OSError) and not raised_by_environment(error):
        refuse(f"{one_line(error)}, {goes_on}", 1)
    warn(f"{type(error).__name__} {goes_on}")
    if isinstance(error, SystemExit):  # its exit code, perhaps 0, is not the run's
        raise RuntimeError("the environment's own code calls sys.exit") from error


def show(env: gym.Env) -> None:
    """MuJoCo's viewer, until it is closed. Random actions, until the arrow keys take over: up and down choose one of
    the action's entries, left and right change it by 0.25. The mouse pulls: double click, then Ctrl and drag."""
    import mujoco.viewer

    action = None
    chosen = 0
    keys: list[int] = []
    task = env.unwrapped
    dt = 1.0 / env.metadata["render_fps"]
    with mujoco.viewer.launch_passive(task.model, task.data, key_callback=keys.append) as viewer:
        env.reset()
        while viewer.is_running():
            start = time.monotonic()
            while keys:
                steps = {262: (0, 0.25), 263: (0, -0.25), 264: (1, 0.0), 265: (-1, 0.0)}  # GLFW: right left down up
                move, change = steps.get(keys.pop(0), (0, 0.0))
                if move or change:
                    if action is None:
                        action = np.zeros(env.action_space.shape, np.float32)
                    chosen = (chosen + move) % len(action)
                    action[chosen] = np.clip(action[chosen] + change, -1.0, 1.0)
                    print(f"action[{chosen}] = {action[chosen]:+.2f}")
            with viewer.lock():
                random_action = env.action_space.sample()
                info = env.step(random_action if action is None else action)[4]
                if SUMMARY_KEY in info:
                    print(dict(zip(SUMMARY, info[SUMMARY_KEY].tolist())))
                    env.reset()
            viewer.sync()
            time.sleep(max(0.0, dt - (time.monotonic() - start)))


def main() -> None:
    prepare_console()
    parser = argparse.ArgumentParser(description="List the environments, or show a random episode of one.")
    parser.add_argument("env_id", nargs="?", help="write videos/ENV_ID.mp4; with a display, also open MuJoCo's viewer")
    parser.add_argument("--env-options", nargs="*", default=(), help="the environment's switches, as for rpg.py")
    parser.add_argument("--env-kwargs", nargs="*", default=(), help="key=value, arguments of gymnasium.make")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if sys.platform.startswith("linux") and ctypes.util.find_library("EGL"):
        os.environ.setdefault("MUJOCO_GL", "egl")  # with a display too: frames by GLFW beside MuJoCo's viewer crash
    if args.env_id is None:
        list_tasks()
        return
    try:
        env = play_random_episode(args.env_id, args.seed, args.env_options, parse_env_kwargs(args.env_kwargs))
    except ValueError as error:
        refuse(error)
    has_display = not sys.platform.startswith("linux") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    if has_display and isinstance(env.unwrapped, Task):
        show(env)


def list_tasks() -> None:
    """Print the ids of this file with their sizes."""
    row = "{:24}{:>14}{:>9}{:>9}{:>10}  {:9}{}".format
    print(row("id", "observation", "encoded", "actions", "decisions", "reward", "options"))
    for env_id in [*TASKS, METAWORLD + "basketball"]:
        try:
            env = make_env(env_id).unwrapped
        except ValueError as error:  # its package is not installed
            print(f"{env_id:24}{error}")
            continue
        shape = "x".join(map(str, env.observation_space.shape))
        names = OPTIONS.get(env_id, ())
        options = ", ".join(names)
        if len(names) > 2:
            options = f"{names[0]} to {names[-1]}"
        print(row(env_id, shape, env.object_dim, env.action_space.shape[0], env.horizon, env.rewards, options))
    print("encoded: how many of the last observations are object coordinates, for the positional encoding")
    print("like metaworld-basketball, without its option:", *metaworld_ids())
    print("seen as images: block-push-pixels, metaworld-basketball-pixels and so on; by rpg_pixels.py all that render")
    print("and every id of gymnasium.make with bounded continuous actions, for example HalfCheetah-v5")


MOST_SHOWN = 1000  # decisions of an episode that does not end by itself


def play_random_episode(env_id: str, seed: int, options: Sequence[str], env_kwargs: dict[str, Any]) -> gym.Env:
    """Play an episode of random actions; write videos/ENV_ID.mp4 if the environment can be drawn, print its summary.
    Returns the environment, closed. ValueError if it cannot be made."""
    video = None
    try:
        env = make_env(env_id, seed, "rgb_array", options, env_kwargs)
        video = Video(Path("videos", re.sub("[:/]", "-", env_id) + ".mp4"), env.metadata.get("render_fps"))
    except ValueError as error:
        env = make_env(env_id, seed, None, options, env_kwargs)  # if that is not to be had either, it says why
        print(f"no pictures: {error}")
    if video is not None:
        video.draw(env)
    info: dict[str, Any] = {}
    decisions = 0
    while SUMMARY_KEY not in info and decisions < MOST_SHOWN:
        info = env.step(env.action_space.sample())[4]
        decisions += 1
        if video is not None:
            video.draw(env)
    shown = env_id
    if video is not None:
        video.close()
        if video.path.exists():
            shown = str(video.path)
    env.close()
    if SUMMARY_KEY in info:
        print(f"{shown}: {dict(zip(SUMMARY, info[SUMMARY_KEY].tolist()))}")
    else:
        print(f"{shown}: no end within {MOST_SHOWN} decisions; --env-kwargs max_episode_steps=N sets one")
    return env


if __name__ == "__main__":
    main()

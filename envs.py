"""Environments for RPG: Meta-World's 50 v3 tasks with a sparse reward, the paper's AntPush and Cabinet tasks, and every
id that gymnasium.make knows.

    make_env("metaworld-basketball", seed=1)        one environment
    make_vector_env("Humanoid-v5", 5, seed=1)       five of them, in this process or in worker processes

Every environment has a 1-D action space [-1, 1] and a 1-D float32 observation. What a user can get wrong (an unknown
id, a missing package, discrete actions, no renderer) raises ValueError with one line that names the fix.
"""

from __future__ import annotations

import ctypes.util
import difflib
import functools
import importlib.util
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


# AntPush: HIRO's maze around the ant; lengths in metres, x to the right, y up, the ant starts at (0, 0)
MAZE = ("#####", "#..##", "#.B.#", "##.##", "#####")  # rows of cells upwards: wall, free, B the block; ant in (1, 2)
CELL = 8.0
WALL_HEIGHT = 4.0
BLOCK_LIFT = 0.05  # off the floor, whose friction would hold it ...
BLOCK_SHRINK = 0.99  # ... and off the walls beside it
BLOCK_MASS = 0.2  # kg; HIRO's 0.0002 kg let a fast ant squeeze it through the wall behind it and reach the goal
ANT_GEAR = 30.0  # N m at an action of 1
UPPER_ROOM, UPPER_ROOM_RADIUS = (0.0, 19.0), 5.0
ANT_EPISODE_LENGTH = 400  # decisions


class AntPush(Scene):
    """HIRO's AntPush with Gymnasium's ant: walk left, up, push the block to the right, and go up into the upper room.

    Straight ahead the distance falls faster at first, but a block pushed up closes the way to the room for good. HIRO's
    block is heavier here and hangs free of floor and walls (see BLOCK_MASS); the maze and the ant are the same.
    Action (8,): torques of the ant's motors, for 5 simulator steps of 20 ms.
    Observation (33,) float32, unscaled as in the official code: qpos 15 (m, quaternion, rad), qvel 14, decisions so far
      times 0.001, block xyz 3 (m). The official code encodes none of it, so `object_dim` = 0.
    Reward: -0.1 x distance (m) of torso to (0, 19), as the official code; the paper's "l2 distance" names no factor.
      sparse: 1.0 if within 5 m of it, else 0.0. info["success"]: within 5 m.
    Never terminated; truncated after 400 decisions. Start: qpos + U(-0.1, 0.1), qvel 0.1 x N(0, 1), block at rest.
    """

    metadata = Scene.metadata | {"render_fps": 10}
    camera = {"lookat": (0.0, 8.0, 0.0), "distance": 38.0, "azimuth": 90.0, "elevation": -75.0}
    object_dim = 0

    def __init__(self, sparse: bool = False, render_mode: str | None = None) -> None:
        import mujoco

        self.sparse, self.render_mode, self._mujoco = sparse, render_mode, mujoco
        spec = mujoco.MjSpec.from_file(str(Path(gym.__file__).parent / "envs/mujoco/assets/ant.xml"))
        spec.option.timestep = 0.02  # HIRO's; with Runge-Kutta, as in the file
        for actuator in spec.actuators:
            actuator.gear[0] = ANT_GEAR
        box = {"type": mujoco.mjtGeom.mjGEOM_BOX, "conaffinity": 1}  # the ant's own parts have 0
        slide = {"type": mujoco.mjtJoint.mjJNT_SLIDE, "limited": False, "damping": 0.0, "armature": 0.0}
        half, z = CELL / 2.0, WALL_HEIGHT / 2.0
        for row, cells in enumerate(MAZE):
            for column, cell in enumerate(cells):
                x, y = (column - 2) * CELL, (row - 1) * CELL
                if cell == "#":
                    spec.worldbody.add_geom(pos=(x, y, z), size=(half, half, z), rgba=(0.4, 0.4, 0.4, 1.0), **box)
                elif cell == "B":
                    self._block_rest = np.array((x, y, z + BLOCK_LIFT))
                    block, side = spec.worldbody.add_body(name="block", pos=self._block_rest), half * BLOCK_SHRINK
                    block.add_joint(name="block_x", axis=(1, 0, 0), **slide)
                    block.add_joint(name="block_y", axis=(0, 1, 0), **slide)
                    block.add_geom(size=(side, side, z), mass=BLOCK_MASS, rgba=(0.9, 0.1, 0.1, 1.0), **box)
        for geom in spec.geoms:
            geom.solimp[:3] = 0.995, 0.995, 0.01  # HIRO's: stiffer contacts
        self.model = spec.compile()
        self.data = mujoco.MjData(self.model)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (8,), np.float32)
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (33,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:15] += self.np_random.uniform(-0.1, 0.1, 15)
        self.data.qvel[:14] = 0.1 * self.np_random.standard_normal(14)
        self._mujoco.mj_forward(self.model, self.data)  # for a frame before the first step
        self._decisions = 0
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.data.ctrl[:] = action  # clipped to [-1, 1] by the simulator
        self._mujoco.mj_step(self.model, self.data, nstep=5)
        self._decisions += 1
        distance = math.dist(self.data.qpos[:2].tolist(), UPPER_ROOM)
        success = float(distance < UPPER_ROOM_RADIUS)
        reward = success if self.sparse else -0.1 * distance
        return self._observation(), reward, False, self._decisions >= ANT_EPISODE_LENGTH, {"success": success}

    def _observation(self) -> np.ndarray:
        block = self._block_rest.copy()
        block[:2] += self.data.qpos[15:]
        time = (0.001 * self._decisions,)
        return np.concatenate((self.data.qpos[:15], self.data.qvel[:14], time, block), dtype=np.float32)


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
FULLY_OPEN, BOTH_OPEN = 0.9, 0.72  # of the range: cabinet-dense, cabinet-sparse
CABINET_OBS_SCALE = 0.05  # official code, cabinet-sparse
CABINET_SUBSTEPS, CABINET_TIMESTEP = 10, 0.005  # 20 decisions a second
CABINET_EPISODE_LENGTH = 60  # decisions


def cabinet_model(mobile: bool) -> Any:
    """mujoco.MjModel: gymnasium-robotics' Franka arm before its kitchen's hinge cabinet, with drives like ManiSkill's.

    Joints and actuators in order: base forward, left, yaw (mobile), arm 7, fingers 2; then the left and right door.
    """
    import mujoco

    package = importlib.util.find_spec("gymnasium_robotics")  # its import takes 0.4 s and is not needed
    if package is None:
        raise ValueError("the cabinet tasks need gymnasium-robotics: pip install gymnasium-robotics==1.4.2")
    kitchen = Path(package.submodule_search_locations[0]) / "envs/assets/kitchen_franka"
    franka, items = kitchen / "franka_assets", kitchen / "kitchen_assets/item_assets"
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
    geoms = [geom for geom in spec.geoms if geom.meshname.endswith("_viz")]
    for part in geoms + [mesh for mesh in spec.meshes if mesh.name.endswith("_viz")]:
        part.delete()  # the shapes to look at take 0.5 s to compile and 30 MB; those that collide look alike
    spec.option.timestep, spec.option.integrator = CABINET_TIMESTEP, mujoco.mjtIntegrator.mjINT_IMPLICITFAST
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
            actuator.biasprm[2], actuator.ctrlrange = -gains[0], (-speed, speed)
        else:  # force = gain (target position - position)
            actuator.biasprm[1], actuator.ctrlrange = -gains[0], (0.0, FINGER_TRAVEL)

    for name, axis, reach, speed in BASE if mobile else ():
        kind = mujoco.mjtJoint.mjJNT_HINGE if name == "yaw" else mujoco.mjtJoint.mjJNT_SLIDE
        drive(base.add_joint(name=name, type=kind, axis=axis, range=(-reach, reach)), speed, BASE_DRIVE)
    for i in range(1, 8):
        joint = spec.joint(f"robot:panda0_joint{i}")
        joint.damping, joint.armature = 2.0, 0.1
        drive(joint, ARM_SPEED, ARM_DRIVE)
    for i in (1, 2):
        joint = spec.joint(f"robot:panda0_finger_joint{i}")
        joint.damping, joint.armature = 5.0, 0.1
        drive(joint, 0.0, FINGER_DRIVE)
    for joint in spec.joints:  # hard ends: with the default ones, doors were pushed 0.17 rad into the cabinet
        joint.solref_limit[0], joint.solimp_limit[:3] = 2.0 * CABINET_TIMESTEP, (0.99, 0.999, 0.001)
    model = spec.compile()
    model.geom_group[model.geom_group == 3] = 2  # groups 0 to 2 are drawn: the robot's collision shapes are to be
    return model


class Cabinet(Scene):
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
      the nearer handle. info["success"] there: right door open by 0.9.
    Never terminated; truncated after 60 decisions. A reset draws the doors' damping and, if mobile, the base's place.
    """

    metadata = Scene.metadata | {"render_fps": 20}
    camera = {"lookat": (-0.1, 0.4, 0.55), "distance": 2.4, "azimuth": 60.0, "elevation": -30.0}

    def __init__(self, mobile: bool = False, render_mode: str | None = None) -> None:
        import mujoco

        self.mobile, self.render_mode, self._mujoco = mobile, render_mode, mujoco
        self.model = model = cabinet_model(mobile)
        self.data = data = mujoco.MjData(model)
        self.object_dim = 0 if mobile else 5
        size = model.nu
        self.action_space = gym.spaces.Box(-1.0, 1.0, (size,), np.float32)
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (13 + 2 * size + self.object_dim,), np.float32)
        low, high = model.actuator_ctrlrange.T
        self._ctrl_mean, self._ctrl_scale = (high + low) / 2.0, (high - low) / 2.0
        self._hand = data.site("end_effector").xpos  # views into the simulator's memory
        self._handles = [data.site(f"hinge_site{i}").xpos for i in (1, 2)]
        self._fingers = [data.site(f"{side}finger").xpos for side in ("left", "right")]
        self._door_dofs = model.jnt_dofadr[-2:]

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._mujoco.mj_resetData(self.model, self.data)
        self.model.dof_damping[self._door_dofs] = self.np_random.uniform(*DOOR_DAMPING, 2)
        robot = self.data.qpos[: self.model.nu]
        if self.mobile:
            back, yaw = self.np_random.uniform((0.0, -BASE_START_YAW), (BASE_START_BACK, BASE_START_YAW))
            robot[:3] = -back, BASE_START_LEFT, yaw
        robot[-9:-2], robot[-2:] = ARM_HOME, FINGER_TRAVEL
        self._mujoco.mj_forward(self.model, self.data)
        self._decisions = 0
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.data.ctrl[:] = self._ctrl_mean + self._ctrl_scale * action  # the simulator clips them to their ranges
        self._mujoco.mj_step(self.model, self.data, nstep=CABINET_SUBSTEPS)
        self._mujoco.mj_kinematics(self.model, self.data)  # mj_step leaves positions one substep behind
        self._decisions += 1
        left, right = (abs(angle) / DOOR_RANGE for angle in self.data.qpos[-2:].tolist())
        if self.mobile:
            success = float(right >= FULLY_OPEN)
            fingers, handles = ([point.tolist() for point in points] for points in (self._fingers, self._handles))
            distances = [sum(math.dist(finger, handle) for finger in fingers) for handle in handles]
            doors = min(left / FULLY_OPEN, 1.0) + min(right / FULLY_OPEN, 1.0)
            reward = doors + 2.0 * success + float(left >= FULLY_OPEN) - min(distances)  # 2 x mean of two fingers
        else:
            reward = success = float(min(left, right) >= BOTH_OPEN)
        return self._observation(), reward, False, self._decisions >= CABINET_EPISODE_LENGTH, {"success": success}

    def _observation(self) -> np.ndarray:
        qpos, qvel, signs = self.data.qpos, self.data.qvel, (-1.0, 1.0)  # the left door opens to negative angles
        state = np.concatenate((self._hand, qpos[-2:] * signs))
        features = np.concatenate((state, qpos[:-2], qvel[:-2], qvel[-2:] * signs, *self._handles))
        if self.mobile:
            return features.astype(np.float32)
        return np.concatenate((features * CABINET_OBS_SCALE, state), dtype=np.float32)


TASKS: dict[str, Any] = {  # environment id -> what makes it; all take render_mode
    "ant-push": AntPush,
    "ant-push-sparse": functools.partial(AntPush, sparse=True),
    "cabinet-sparse": Cabinet,
    "cabinet-dense": functools.partial(Cabinet, mobile=True),
}


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
    nearest = difflib.get_close_matches(env_id, [*TASKS, *metaworld_ids(), *gym.registry], n=3, cutoff=0.0)
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
        elif env_id in TASKS:
            env = TASKS[env_id](render_mode=render_mode)
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

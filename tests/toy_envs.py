"""Environments of a few microseconds a step for the tests of the script: `--env-id toy_envs:Toy-v0`."""

import os
import time

import gymnasium as gym
import numpy as np


class Toy(gym.Env):
    """Move a point on a line to a random goal: success 1 within 0.2 of it; the goal is an object coordinate. The reward
    is the success, or, if dense, the distance gained. If deaf it takes a nan action for none, as MuJoCo does."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}
    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gym.spaces.Box(-2.0, 2.0, (1,), np.float32)
    object_dim = 1

    def __init__(self, render_mode=None, nan_at=None, dense=False, deaf=False):
        self.render_mode, self.nan_at, self.dense, self.deaf, self.steps = render_mode, nan_at, dense, deaf, 0

    def _obs(self):
        return np.array([self.x, np.nan if self.steps == self.nan_at else self.goal], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.goal = 0.0, float(self.np_random.uniform(-1, 1))
        return self._obs(), {}

    def step(self, action):
        self.steps += 1
        before = abs(self.x - self.goal)
        self.x = float(np.clip(self.x + 0.1 * (np.nan_to_num(action[0]) if self.deaf else action[0]), -1, 1))
        distance = abs(self.x - self.goal)
        success = float(distance < 0.2)
        return self._obs(), before - distance if self.dense else success, False, False, {"success": success}

    def render(self):
        frame = np.zeros((32, 64, 3), np.uint8)
        for value, colour in ((self.goal, (0, 255, 0)), (self.x, (255, 0, 0))):
            column = int(32 + 28 * value)
            frame[8:24, column - 2 : column + 2] = colour
        return frame


gym.register("Toy-v0", Toy, max_episode_steps=20)
gym.register("ToyNaN-v0", Toy, max_episode_steps=20, kwargs={"nan_at": 40})
gym.register("ToyDeaf-v0", Toy, max_episode_steps=20, kwargs={"deaf": True})
gym.register("ToyDense-v0", Toy, max_episode_steps=20, kwargs={"dense": True})


class Failing(Toy):
    """Fails in the 60th step of each instance, as `how` says: "exit" ends the process, "hang" never returns; or in the
    `reset_at`-th reset, with a nan."""

    def __init__(self, how=None, reset_at=None, **kwargs):
        super().__init__(**kwargs)
        self.how, self.reset_at, self.resets = how, reset_at, 0

    def reset(self, **kwargs):
        self.resets += 1
        obs, info = super().reset(**kwargs)
        return np.full_like(obs, np.nan) if self.resets == self.reset_at else obs, info

    def step(self, action):
        if self.steps == 60 and self.how == "exit":
            os._exit(3)
        if self.steps == 60 and self.how == "hang":
            time.sleep(1000)
        return super().step(action)


class Counted(Toy):
    """Appends a byte for each training step to the file $TOY_STEPS: how far a killed run had come."""

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.counts = seed < 2**31  # else it is the evaluation's
        return super().reset(seed=seed)

    def step(self, action):
        if self.counts:
            with open(os.environ["TOY_STEPS"], "ab") as file:
                file.write(b".")
        return super().step(action)


gym.register("ToyCounted-v0", Counted, max_episode_steps=20)
gym.register("ToyExit-v0", Failing, max_episode_steps=20, kwargs={"how": "exit"})
gym.register("ToyHang-v0", Failing, max_episode_steps=20, kwargs={"how": "hang"})
gym.register("ToyNaNReset-v0", Failing, max_episode_steps=20, kwargs={"reset_at": 2})

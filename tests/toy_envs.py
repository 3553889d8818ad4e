"""Environments of a few microseconds a step for the tests of the script: `--env-id toy_envs:Toy-v0`."""

import gymnasium as gym
import numpy as np


class Toy(gym.Env):
    """Move a point on a line to a random goal: success 1 within 0.2 of it; the goal is an object coordinate. The reward
    is the success, or, if dense, the distance gained."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}
    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gym.spaces.Box(-2.0, 2.0, (1,), np.float32)
    object_dim = 1

    def __init__(self, render_mode=None, nan_at=None, dense=False):
        self.render_mode, self.nan_at, self.dense, self.steps = render_mode, nan_at, dense, 0

    def _obs(self):
        return np.array([self.x, np.nan if self.steps == self.nan_at else self.goal], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.goal = 0.0, float(self.np_random.uniform(-1, 1))
        return self._obs(), {}

    def step(self, action):
        self.steps += 1
        before = abs(self.x - self.goal)
        self.x = float(np.clip(self.x + 0.1 * action[0], -1, 1))
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
gym.register("ToyDense-v0", Toy, max_episode_steps=20, kwargs={"dense": True})

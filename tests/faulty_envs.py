"""The toy environment that fails, or waits, where a test says so: faulty_envs:Faulty-v0 with --env-kwargs at=9."""

import os
import signal
import time

import gymnasium as gym
from toy_envs import Toy


class SimulatorError(Exception):
    """An exception of a user's own, which wants two arguments."""

    def __init__(self, code, text):
        super().__init__(f"{code}: {text}")


ERRORS = {
    "bug": lambda: {}["no such\nkey"],
    "simulator": SimulatorError(7, "joint 3"),
    "file": FileNotFoundError(2, "No such file or directory", "mesh.stl"),
    "connection": ConnectionResetError("the simulator's server"),
    "float": FloatingPointError("overflow encountered in exp"),
    "exit": SystemExit(0),
    "memory": MemoryError(),
}


class Faulty(Toy):
    """In the `at`-th call of its step or reset it raises ERRORS[error]; or, "signal", sends its process SIGTERM; or,
    "hold", waits while a file of that name is in the working directory."""

    def __init__(self, at, where="step", error="bug", **kwargs):
        super().__init__(**kwargs)
        self.at, self.where, self.error, self.calls = at, where, error, 0

    def count(self, where):
        self.calls += where == self.where
        if where != self.where or self.calls != self.at:
            return
        if self.error == "hold":
            while os.path.exists("hold"):
                time.sleep(0.05)
            return
        if self.error == "signal":
            os.kill(os.getpid(), signal.SIGTERM)
            return
        error = ERRORS[self.error]
        if isinstance(error, BaseException):
            raise error
        error()

    def reset(self, **kwargs):
        self.count("reset")
        return super().reset(**kwargs)

    def step(self, action):
        self.count("step")
        return super().step(action)


gym.register("Faulty-v0", Faulty, max_episode_steps=20)

"""Environments of a few microseconds a step for the tests of the script: `--env-id toy_envs:Toy-v0`."""

import multiprocessing
import os
import random
import signal
import sys
import threading
import time

import gymnasium as gym
import numpy as np
import torch

from envs import derive_seeds


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


EVALUATION_SEEDS = derive_seeds(100, 1)  # rpg.EVALUATION


class Counted(Toy):
    """Appends a byte for each training step to the file $TOY_STEPS: how far a killed run had come."""

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.counts = seed not in EVALUATION_SEEDS
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


# Environments as users write them: each differs from Toy in one thing.


def register(name, cls, steps=20, **kwargs):
    gym.register(name, cls, max_episode_steps=steps, kwargs=kwargs)


class OddObs(Toy):
    """Observations that are not what the space declares, or of spaces that need flattening. By `kind`: space, and what
    becomes of the pair (position, goal)."""

    Box = gym.spaces.Box
    KINDS = {
        "float64": (Box(-2, 2, (2,), np.float32), lambda pair: pair.astype(np.float64)),
        "list": (Box(-2, 2, (2,), np.float32), lambda pair: pair.tolist()),
        "float64 space": (
            Box(-np.inf, np.finfo(np.float64).max, (2,), np.float64),
            lambda pair: pair.astype(np.float64),
        ),
        "integers": (Box(-200, 200, (2,), np.int64), lambda pair: (100 * pair).astype(np.int64)),
        "row": (Box(-2, 2, (2,), np.float32), lambda pair: pair[None]),
        "longer": (Box(-2, 2, (2,), np.float32), lambda pair: np.append(pair, np.float32(0))),
        "scalar": (Box(-2, 2, (), np.float32), lambda pair: pair[0]),
        "matrix": (Box(-2, 2, (2, 2), np.float64), lambda pair: np.outer(pair, [1.0, 2.0])),
        "image": (Box(0, 255, (8, 8, 3), np.uint8), lambda pair: np.full((8, 8, 3), 100 * (pair[0] + 1), np.uint8)),
        "grey image": (Box(0, 255, (8, 8), np.uint8), lambda pair: np.full((8, 8), 100 * (pair[0] + 1), np.uint8)),
        "dict": (
            gym.spaces.Dict(
                a=Box(-2, 2, (), np.float64),
                b=gym.spaces.Dict(matrix=Box(-2, 2, (2, 2), np.float32), bits=gym.spaces.MultiBinary(2)),
                c=gym.spaces.Tuple((gym.spaces.Discrete(3), Box(-2, 2, (1,), np.float32))),
            ),
            lambda pair: {
                "a": np.float64(pair[0]),
                "b": {"matrix": np.full((2, 2), pair[1]), "bits": np.array([1, 0], np.int8)},
                "c": (2, pair[:1]),
            },
        ),
        "dict with an image": (
            gym.spaces.Dict(state=Box(-2, 2, (2,)), camera=Box(0, 255, (8, 8, 3), np.uint8)),
            lambda pair: {"state": pair, "camera": np.zeros((8, 8, 3), np.uint8)},
        ),
        "text": (
            gym.spaces.Dict(state=Box(-2, 2, (2,)), task=gym.spaces.Text(8)),
            lambda pair: {"state": pair, "task": "push"},
        ),
    }
    object_dim = 0

    def __init__(self, kind, **kwargs):
        super().__init__(**kwargs)
        self.observation_space, self.convert = self.KINDS[kind]

    def _obs(self):
        return self.convert(super()._obs())


for name, kind in {
    "ToyFloat64": "float64",
    "ToyList": "list",
    "ToyFloat64Space": "float64 space",
    "ToyIntegers": "integers",
    "ToyRow": "row",
    "ToyLonger": "longer",
    "ToyScalar": "scalar",
    "ToyMatrix": "matrix",
    "ToyImage": "image",
    "ToyGrey": "grey image",
    "ToyDict": "dict",
    "ToyDictImage": "dict with an image",
    "ToyText": "text",
}.items():
    register(f"{name}-v0", OddObs, kind=kind)


class OnlyImages(OddObs):
    """Seen as an image, and has no render()."""

    metadata = {}
    render = gym.Env.render

    def __init__(self):
        super().__init__("image")


register("ToyOnlyImages-v0", OnlyImages)


class FixedAction(Toy):
    """Three actions, of which only the second moves the point: the others are fixed, at -0.3 and at 0."""

    action_space = gym.spaces.Box(np.array([-0.3, -2.0, 0.0]), np.array([-0.3, 2.0, 0.0]), dtype=np.float64)

    def step(self, action):
        self.last_action = action
        return super().step(action[1:2])


register("ToyFixed-v0", FixedAction)


class OddInfo(Toy):
    """Infos by `kind`, with `success` where the kind does not replace it. Every other one differs in type or length."""

    def __init__(self, kind, **kwargs):
        super().__init__(**kwargs)
        self.kind = kind

    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        odd = self.steps % 2 == 1
        success = info["success"]
        info |= {
            "array": {"success": np.array([success])},
            "arrays": {"success": np.array([success > 0, True])},
            "bool": {"success": success > 0},
            "none": {"success": None if odd else success},
            "text": {"success": "yes"},
            "is_success": {"is_success": success},
            "summary": {"summary": {"x": 1} if odd else [1.0] * 4, "rpg": 1},
            "changing": {
                "target": None if odd else np.zeros(self.steps),
                "count": 1 if odd else 1.5,
                "more": [1] * odd,
            },
            "nested": {"odd": {"a": 1} if odd else 1.0, "final_obs": "?", "_final_info": None, "episode": {"r": "?"}},
            "lock": {"handle": threading.Lock(), "function": lambda: None},
        }[self.kind]
        if self.kind == "is_success":
            del info["success"]
        return obs, reward, terminated, truncated, info


for name, kind in {
    "ToySuccessArray": "array",
    "ToySuccessArrays": "arrays",
    "ToySuccessBool": "bool",
    "ToySuccessNone": "none",
    "ToySuccessText": "text",
    "ToyIsSuccess": "is_success",
    "ToyOwnSummary": "summary",
    "ToyInfoChanges": "changing",
    "ToyInfoNested": "nested",
    "ToyInfoLock": "lock",
}.items():
    register(f"{name}-v0", OddInfo, kind=kind)


class GlobalRandom(Toy):
    """Draws from the generators of the whole process and from its spaces, when it is made, at resets and at steps."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.observation_space = gym.spaces.Box(-10.0, 10.0, (5,), np.float32)
        self.constant = np.random.uniform()

    def _obs(self):
        draws = random.uniform(-1, 1), np.random.normal(), self.observation_space.sample()[0], self.constant
        return np.array([self.x, *draws], np.float32)


register("ToyGlobalRandom-v0", GlobalRandom)


class OddReward(Toy):
    """Reward and both ends as arrays of one, where Toy gives a float and bools; the reward is in float32."""

    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, np.array([reward], np.float32), np.array([terminated]), np.array(truncated), info


register("ToyRewardArray-v0", OddReward)


class Seed32(Toy):
    """As a simulator in C++: seeds of 32 bits with a sign."""

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            np.int32(seed)  # OverflowError beyond
        return super().reset(seed=seed)


register("ToySeed32-v0", Seed32)
gym.register("Toy/Endless-v0", Toy)  # no time limit, and a namespace


class OddFrames(Toy):
    """Frames and rates, by `kind`, that a film has to cope with."""

    def __init__(self, kind, fps=20, **kwargs):
        super().__init__(**kwargs)
        self.kind, self.metadata = kind, {"render_modes": ["rgb_array"], "render_fps": fps}
        self.buffer = np.zeros((32, 64, 3), np.uint8)

    def render(self):
        frame = super().render()
        odd = self.steps % 2
        if self.kind == "fails" and self.steps > 5:
            raise RuntimeError("the renderer\nis gone")
        self.buffer[:] = frame
        return {
            "plain": frame,
            "fails": frame,
            "float": frame / 255.0,
            "grey": frame[:, :, 0],
            "one channel": frame[:, :, :1],
            "rgba": np.dstack((frame, np.full((32, 64), 255, np.uint8))),
            "sizes": frame[: 31 - odd, : 63 + odd],
            "none": None if odd else frame,
            "buffer": self.buffer,
            "no picture": np.zeros(3),
        }[self.kind]


for name, kind in {
    "ToyFrameFloat": "float",
    "ToyFrameGrey": "grey",
    "ToyFrameChannel": "one channel",
    "ToyFrameRGBA": "rgba",
    "ToyFrameSizes": "sizes",
    "ToyFrameNone": "none",
    "ToyFrameBuffer": "buffer",
    "ToyFrameFails": "fails",
    "ToyFrameNoPicture": "no picture",
}.items():
    register(f"{name}-v0", OddFrames, kind=kind)
for name, fps in {"None": None, "Zero": 0, "NaN": float("nan"), "Text": "fast", "Tiny": 1e-3, "Many": 500}.items():
    register(f"ToyFps{name}-v0", OddFrames, kind="plain", fps=fps)


class ObjectDim(Toy):
    def __init__(self, object_dim, **kwargs):
        super().__init__(**kwargs)
        self.object_dim = object_dim


for name, object_dim in {"Big": 3, "Negative": -1, "Half": 0.5, "None": None, "True": True, "All": 2}.items():
    register(f"ToyObject{name}-v0", ObjectDim, object_dim=object_dim)


class Broken(Toy):
    """A mistake in the environment's own code, `where` it says."""

    def __init__(self, where, **kwargs):
        super().__init__(**kwargs)
        self.where = where
        if where == "init":
            {}["no such\nkey"]

    def reset(self, *, seed=None, options=None):
        if self.where == "reset":
            raise RuntimeError("no licence\nfor the simulator")
        return super().reset(seed=seed)

    def step(self, action):
        if self.where == "step" and self.steps == 60:
            raise ZeroDivisionError("a mistake in the environment")
        return super().step(action)


for where in ("init", "reset", "step"):
    register(f"ToyBroken{where.title()}-v0", Broken, where=where)


class NoPictures(Toy):
    """Has no render(), and an argument of its own."""

    metadata = {}

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = scale

    def step(self, action):
        return super().step(self.scale * action)


register("ToyNoPictures-v0", NoPictures)


class NoRender(Toy):
    """Says that it can be rendered, and has no render()."""

    render = gym.Env.render


register("ToyNoRender-v0", NoRender)


class HumanOnly(OddObs):
    """Draws into a window alone, and checks its render mode as Gymnasium's own environments do."""

    metadata = {"render_modes": ["human"]}

    def __init__(self, kind, render_mode=None):
        assert render_mode is None or render_mode in self.metadata["render_modes"]
        super().__init__(kind)


for name, kind in {"State": "float64", "Image": "image", "DictImage": "dict with an image"}.items():
    register(f"ToyHuman{name}-v0", HumanOnly, kind=kind)


class Locked(Exception):
    """Cannot be pickled."""

    def __init__(self):
        super().__init__("a mistake with a lock")
        self.lock = threading.Lock()


class RaisesLocked(Toy):
    """Raises in its 5th step what cannot be sent from one process to another."""

    def step(self, action):
        if self.steps == 4:
            raise Locked
        return super().step(action)


gym.register("ToyLocked-v0", RaisesLocked, max_episode_steps=20)


class InPlace(Toy):
    """Writes into the action that it is given."""

    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def step(self, action):
        result = super().step(action)
        action[:] = 0.123
        return result


class Forks(Toy):
    """Each reset ends its helper process, as it is usual, and forks a new one."""

    helper = None

    def reset(self, **kwargs):
        if self.helper is not None:
            self.helper.terminate()
            self.helper.join()
        self.helper = multiprocessing.get_context("fork").Process(target=time.sleep, args=(1000,), daemon=True)
        self.helper.start()
        return super().reset(**kwargs)


class ChangesDirectory(Toy):
    """In its 30th step it goes elsewhere."""

    def step(self, action):
        if self.steps == 30:
            os.chdir("/")
        return super().step(action)


class DrawsFromTorch(Toy):
    """Moves by torch's global generator, too."""

    def step(self, action):
        return super().step(action + 0.1 * torch.randn(1).numpy())


class Exits(Toy):
    """sys.exit(0) in its constructor."""

    def __init__(self, **kwargs):
        sys.exit(0)


class Interrupts(Toy):
    """Takes Ctrl-C for itself, and raises what it makes of it in its 60th step."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def step(self, action):
        if self.steps == 60:
            raise KeyboardInterrupt
        return super().step(action)


for cls in (InPlace, Forks, ChangesDirectory, DrawsFromTorch, Exits, Interrupts):
    gym.register(f"Toy{cls.__name__}-v0", cls, max_episode_steps=20)

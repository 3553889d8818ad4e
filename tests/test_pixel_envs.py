"""Environments seen as images: make_env(..., frames=n)."""

import gc
import os
import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium as gym
import imageio.v2 as imageio
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import envs  # noqa: E402
from envs import make_env, make_vector_env  # noqa: E402

PAINTED = ["block-push-pixels", "toy_envs:Toy-v0"]  # by NumPy, without OpenGL


def python(code, **environment):
    """Run code in a fresh interpreter in the repository's root: (standard output, standard error)."""
    env = {key: value for key, value in {**os.environ, **environment}.items() if value is not None}
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout, run.stderr


def images(env_id, seed=1, steps=8, **kwargs):
    """(steps + 1, frames, 3, 64, 64) observations of random actions, both from `seed`."""
    env = make_env(env_id, seed, **kwargs)
    seen = [env.reset(seed=seed)[0]]
    for _ in range(steps):
        seen.append(env.step(env.action_space.sample())[0])
    env.close()
    return np.array(seen)


# --- stacks


@pytest.mark.parametrize("env_id", [*PAINTED, "block-push", "maze"])
def test_stacks(env_id):
    """Newest last, after a reset the first image three times; in two episodes of one environment."""
    env = make_env(env_id, 1, frames=3)
    single = make_env(env_id, 1, frames=1)
    assert env.observation_space == gym.spaces.Box(0, 255, (3, 3, 64, 64), np.uint8)
    assert envs.pixel_sizes(env) == ((3, 3, 64, 64), len(env.action_space.low))
    kept = []
    for _ in range(2):
        history = [single.reset()[0][0]] * 3
        obs = env.reset()[0]
        for _ in range(5):
            assert obs.dtype == np.uint8 and obs.flags.c_contiguous and env.observation_space.contains(obs)
            np.testing.assert_array_equal(obs, history[-3:])
            kept.append((obs, obs.copy()))
            action = env.action_space.sample()
            obs = env.step(action)[0]
            history.append(single.step(action)[0][0])
        assert not np.array_equal(obs[0], obs[2])
    for obs, copy in kept:  # nothing is written over
        np.testing.assert_array_equal(obs, copy)


@pytest.mark.parametrize("env_id, length", [(PAINTED[0], 60), (PAINTED[1], 20)])
def test_vectors_of_stacks(env_id, length):
    """Next-step autoreset gives the next episode's first image twice. A second vector, in worker processes, sees the
    same."""
    runs = []
    for async_envs in (False, env_id == "block-push-pixels"):  # the other's module imports torch, for seconds
        vector = make_vector_env(env_id, 2, 5, async_envs, frames=2)
        assert vector.single_observation_space.shape == (2, 3, 64, 64)
        rng = np.random.default_rng(0)
        seen = [vector.reset(seed=[7, 8])[0]]
        ends = []
        for step in range(1, length + 4):
            actions = rng.uniform(-1, 1, vector.action_space.shape).astype(np.float32)
            obs, _, terminations, truncations, _ = vector.step(actions)
            assert obs.shape == (2, 2, 3, 64, 64) and obs.dtype == np.uint8
            seen.append(obs)
            if truncations.all():
                ends.append(step)
        assert ends == [length]
        vector.close()
        runs.append(np.array(seen))  # (T, environment, frame, 3, 64, 64)
    np.testing.assert_array_equal(*runs)
    seen = runs[0]
    for step in range(1, length + 4):
        older, newer = seen[step, :, 0], seen[step, :, 1]
        first = step == length + 1
        np.testing.assert_array_equal(older, newer if first else seen[step - 1, :, 1])
        assert first or step > 4 or not np.array_equal(older, newer)
    episode = make_env(env_id, frames=2).reset(seed=7)[0]
    np.testing.assert_array_equal(seen[0, 0], episode)


@pytest.mark.parametrize("env_id", PAINTED)
def test_images_repeat(env_id):
    np.testing.assert_array_equal(images(env_id, 3, frames=2), images(env_id, 3, frames=2))
    assert not np.array_equal(images(env_id, 3, frames=2), images(env_id, 4, frames=2))


def test_channels_come_first():
    """A red pusher below the centre; what is painted, turned."""
    env = make_env("block-push-pixels", 1, frames=1)
    red, green, blue = env.reset()[0][0].astype(int)
    row, column = np.unravel_index((red - green).argmax(), (64, 64))
    assert (red - green)[row, column] > 100 and abs(column - 32) < 4 and 45 < row < 60
    painted = env.unwrapped._observation()
    np.testing.assert_array_equal(np.stack((red, green, blue)), painted.transpose(2, 0, 1))


def test_states_as_images_are_the_same_task():
    """block-push-1 drawn for frames=1 is block-push-pixels."""
    np.testing.assert_array_equal(images("block-push-1", frames=1), images("block-push-pixels", frames=1))


# --- resizing


@pytest.mark.parametrize("height, width", [(64, 64), (32, 64), (8, 8), (100, 70), (320, 320), (96, 400)])
def test_resizing_takes_the_mean_over_an_area(height, width):
    """Against every pixel repeated 64 times, of which then `height` times `width` are averaged."""
    frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    rows = np.repeat(frame, 64, 0).reshape(64, height, width, 3).mean(1)
    means = np.repeat(rows, 64, 1).reshape(64, 64, width, 3).mean(2)
    small = envs.small_frame(frame)
    assert small.shape == (3, 64, 64) and small.dtype == np.uint8 and small.flags.c_contiguous
    assert np.abs(small - means.transpose(2, 0, 1)).max() < 0.51


def test_small_things_neither_vanish_nor_jump():
    """A dot of one pixel out of 5 x 5: its weight stays, and its place moves with it."""
    centres = []
    for x in range(100, 111):
        frame = np.zeros((320, 320, 3), np.uint8)
        frame[150:155, x : x + 5] = 250
        small = envs.small_frame(frame)[0].astype(float)
        assert small.sum() == pytest.approx(250, abs=2)
        centres.append((small.sum(0) * np.arange(64)).sum() / small.sum())
    np.testing.assert_allclose(np.diff(centres), 0.2, atol=0.02)


@pytest.mark.parametrize("kind", ["Float", "Grey", "Channel", "RGBA", "Buffer"])
def test_frames_in_other_forms(kind):
    """What is drawn as floats, in grey, with an opacity, or always into the same array."""
    seen = images(f"toy_envs:ToyFrame{kind}-v0", frames=2)
    plain = images("toy_envs:Toy-v0", frames=2)
    if kind in ("Float", "RGBA", "Buffer"):
        np.testing.assert_array_equal(seen, plain)
    assert np.ptp(seen, 0).max() > 100


def test_a_highlight_does_not_turn_a_float_image_black():
    frame = np.full((64, 64, 3), 0.5)
    frame[3, 3] = 1.0001
    assert envs.small_frame(frame)[:, 10, 10].tolist() == [128] * 3


# --- what is seen


@pytest.mark.parametrize("name", ["Image", "Grey", "OnlyImages", "HumanImage"])
def test_observations_that_are_images_are_seen(name):
    """They get brighter as the point moves to the right, in all channels; drawn would be a green and a red bar."""
    env = make_env(f"toy_envs:Toy{name}-v0", 1, frames=1)
    before = env.reset()[0]
    for _ in range(3):
        after = env.step(np.ones(1, np.float32))[0]
    assert len(np.unique(before)) == 1 and len(np.unique(after)) == 1 and after.max() > before.max() + 20


@pytest.mark.parametrize("name", ["Dict", "DictImage", "Text", "Float64", "Endless"])
def test_other_observations_are_replaced_by_pictures(name):
    env_id = "toy_envs:Toy/Endless-v0" if name == "Endless" else f"toy_envs:Toy{name}-v0"
    np.testing.assert_array_equal(images(env_id, frames=2), images("toy_envs:Toy-v0", frames=2))


def test_only_the_images_change():
    """Rewards, ends and summaries are those of the state version."""
    for env_id, state_id in (("block-push-pixels", "block-push-1"), ("toy_envs:Toy-v0", "toy_envs:Toy-v0")):
        pair = make_env(env_id, 1, frames=2), make_env(state_id, 1)
        for env in pair:
            env.reset(seed=4)
        over = False
        while not over:
            action = pair[0].action_space.sample()
            (_, *ours, info), (_, *theirs, state_info) = (env.step(action) for env in pair)
            assert ours == theirs
            over = ours[1] or ours[2]
        np.testing.assert_array_equal(info[envs.SUMMARY_KEY], state_info[envs.SUMMARY_KEY])


# --- what a user gets wrong


@pytest.mark.parametrize(
    "env_id, words",
    [
        ("toy_envs:ToyNoPictures-v0", ["its class takes no render_mode", "rpg.py"]),
        ("toy_envs:ToyNoRender-v0", ["its class has no render()", "rpg.py"]),
        ("toy_envs:ToyHumanState-v0", ["its class refuses the render mode 'rgb_array'", "rpg.py"]),
        ("toy_envs:ToyHumanDictImage-v0", ["its class refuses the render mode 'rgb_array'"]),
        ("toy_envs:ToyFrameNoPicture-v0", ["a frame of shape (3,) is no picture"]),
        ("toy_envs:ToyBrokenReset-v0", ["its first reset fails: RuntimeError: no licence for the simulator"]),
        ("toy_envs:ToyExits-v0", ["sys.exit"]),
        ("foo-pixels", ["unknown environment 'foo-pixels'"]),
        ("HalfCheetah-v5-pixels", ["nearest known: HalfCheetah-v5"]),
        ("cabinet-sparse-pixels", ["nearest known: cabinet-sparse"]),
        ("metaworld-baskitball-pixels", ["nearest known: metaworld-basketball-pixels"]),
        ("metaworld-pixels", ["unknown environment"]),
        ("CartPole-v1", ["discrete actions"]),
    ],
)
def test_refusals_are_one_line(env_id, words):
    with pytest.raises(ValueError) as caught, warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is printed beside it
        make_env(env_id, frames=2)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    for word in words:
        assert word in message


@pytest.mark.parametrize("env_id, frames", [("metaworld-reach-pixels", 0), ("HalfCheetah-v5", 2)])
def test_no_opengl_is_one_line(env_id, frames):
    """GLFW without a display cannot draw. What NumPy paints needs none."""
    code = (
        "import envs\n"
        "for i in ('block-push-pixels', 'block-push', 'maze'):\n"
        "    envs.make_env(i, 1, 'rgb_array', frames=2).render()\n"
        f"try: envs.make_env('{env_id}', frames={frames})\n"
        "except ValueError as error: print(error)"
    )
    line, errors = python(code, MUJOCO_GL="glfw", DISPLAY=None, WAYLAND_DISPLAY=None)
    assert line.startswith("no OpenGL") and line.count("\n") == 1 and errors == ""
    assert "apt install libegl1" in line and "MUJOCO_GL=osmesa" in line


def test_sizes():
    """state_sizes and pixel_sizes refuse each other's environments, and name what is for them."""
    with pytest.raises(ValueError, match="seen as an image.*rpg_pixels.py"):
        envs.state_sizes(make_env("block-push-pixels"))
    with pytest.raises(ValueError, match="seen as an image.*rpg_pixels.py"):
        envs.state_sizes(make_env("block-push-pixels", frames=2))
    for env_id in ("block-push-1", "block-push-pixels"):
        with pytest.raises(ValueError, match="no stack of images") as caught:
            envs.pixel_sizes(make_env(env_id))
        assert "\n" not in str(caught.value)


def test_first_line(capsys):
    import torch

    for sizes, text in (
        (((2, 3, 64, 64), 4), "metaworld-reach-pixels: 2 frames of 64 x 64, action 4 | 1 environment |"),
        (((1, 3, 64, 64), 4), "metaworld-reach-pixels: 1 frame of 64 x 64, action 4 | 1 environment |"),
        (
            (46, 7, 4),
            "metaworld-reach-pixels: observation 46, of these 7 object coordinates, action 4 | 1 environment |",
        ),
    ):
        envs.introduce(Path("runs/x"), "metaworld-reach-pixels", sizes, 1, torch.device("cpu"))
        assert text in capsys.readouterr().out


def test_bytes_are_finite():
    obs = np.zeros((2, 3, 64, 64), np.uint8)
    assert envs.finite(obs, np.zeros(2)) is obs
    with pytest.raises(envs.NotFinite):
        envs.finite(obs, np.array([0.0, np.nan]))
    with pytest.raises(envs.NotFinite):
        envs.finite(np.array([np.inf], np.float32))
    with pytest.raises(envs.NotFinite, match="reward"):  # its square is no float32
        envs.finite(obs, np.array([0.0, 1e19]))


# --- films


@pytest.mark.parametrize("env_id, size", [("block-push-pixels", 320), ("toy_envs:Toy-v0", 32)])
def test_a_film_shows_what_is_seen_beside_the_view(tmp_path, env_id, size):
    env = make_env(env_id, 1, "rgb_array", frames=2)
    video = envs.Video(tmp_path / "film.mp4", 20)
    obs = env.reset()[0]
    views, seen = [], []
    for _ in range(5):
        video.draw(env, obs)
        views.append(env.render())
        seen.append(obs[-1].transpose(1, 2, 0))
        obs = env.step(env.action_space.sample())[0]
    video.close()
    with imageio.get_reader(tmp_path / "film.mp4") as reader:
        film = np.array([frame for frame in reader]).astype(float)
    width = views[0].shape[1]
    assert film.shape == (5, size, width + size, 3)
    assert np.abs(film[:, :, :width] - views).mean() < 8  # an encoder's loss
    nearest = np.arange(size) * 64 // size
    assert np.abs(film[:, :, width:] - np.array(seen)[:, nearest][:, :, nearest]).mean() < 8


# --- by OpenGL


@pytest.mark.parametrize("task", ["basketball", "stick-pull", "sweep", "button-press-topdown", "pick-place"])
def test_the_camera_sees_hand_objects_and_goal(task):
    """Projected by hand, without OpenGL. (Seen so with ten layouts of each of the 50 tasks.)"""
    env = make_env(f"metaworld-{task}", 1)
    camera = env.unwrapped.camera
    azimuth, elevation = np.radians(camera["azimuth"]), np.radians(camera["elevation"])
    right = np.array([np.sin(azimuth), -np.cos(azimuth), 0.0])
    forward = np.array([*(np.cos(elevation) * np.array([np.cos(azimuth), np.sin(azimuth)])), np.sin(elevation)])
    scale = np.tan(np.radians(env.unwrapped.model.vis.global_.fovy) / 2)
    for _ in range(10):
        raw = env.reset()[0][:39].astype(np.float64) / 0.05
        for point in (raw[:3], raw[4:7], raw[11:14], env.unwrapped.sim._target_pos):
            if point.any():
                offset = point - camera["lookat"] + camera["distance"] * forward
                place = np.array([offset @ right, offset @ np.cross(right, forward)]) / (offset @ forward * scale)
                assert np.abs(place).max() < 0.97


def test_meta_world_as_images(opengl):
    """The state version's rewards and physics; upright; every decision shows; the large view is the same one."""
    env = make_env("metaworld-basketball-pixels", 1, "rgb_array", ("fixed-ball",), frames=2)
    state = make_env("metaworld-basketball", 1, options=("fixed-ball",))
    obs = env.reset(seed=4)[0]
    state.reset(seed=4)
    table = obs[-1, :, 45:, 20:40].astype(float).mean((1, 2))  # red, green, blue below: wood
    wall = obs[-1, :, :8, 52:].astype(float).mean((1, 2))  # and above: grey
    assert table[0] > table[2] + 20 and abs(wall[0] - wall[2]) < 10
    for _ in range(5):
        action = env.action_space.sample()
        obs, *ours = env.step(action)
        _, *theirs = state.step(action)
        assert ours == theirs
        assert (np.abs(obs[1].astype(int) - obs[0]).sum(0) > 60).any()
    np.testing.assert_array_equal(env.unwrapped.data.qpos, state.unwrapped.data.qpos)
    view = env.render()
    assert view.shape == (320, 320, 3)
    assert np.abs(envs.small_frame(view).astype(float) - obs[-1]).mean() < 3
    env.close()
    assert make_env("metaworld-basketball-pixels").reset()[0].shape == (3, 64, 64)


@pytest.mark.parametrize(
    "env_id, kwargs", [("metaworld-reach-pixels", {}), ("HalfCheetah-v5", dict(width=64, height=64))]
)
def test_each_environment_draws_for_itself(opengl, env_id, kwargs):
    """Beside others, and after others were closed or forgotten, it shows what it shows alone; a vector of them, too."""
    alone = images(env_id, 3, 4, env_kwargs=kwargs, frames=1)
    env = make_env(env_id, 3, env_kwargs=kwargs, frames=1)
    seen = [env.reset(seed=3)[0]]
    for end in ("none", "close", "forget", "none"):
        other = make_env(env_id, 4, env_kwargs=kwargs, frames=1)
        other.step(other.action_space.sample())
        seen.append(env.step(env.action_space.sample())[0])
        if end == "close":
            other.close()
            env.render()  # its OpenGL context is in use when what is left of the other goes
        if end != "none":
            del other
            gc.collect()
    np.testing.assert_array_equal(seen, alone)
    vector = make_vector_env(env_id, 2, 3, env_kwargs=kwargs, frames=1)
    np.testing.assert_array_equal(vector.reset(seed=[5, 3])[0][1], alone[0])
    vector.close()
    env.close()


def test_nothing_is_printed_at_the_end(opengl):
    """Not of contexts that are still open, either."""
    code = "import envs; kept = [envs.make_env(i, 1, frames=1) for i in ('ant-push', 'HalfCheetah-v5')]; 1 / 0"
    assert python(f"try: exec({code!r})\nexcept ZeroDivisionError: raise SystemExit") == ("", "")

"""benchmark/modes.py on runs of rpg_pixels.py: which script made a run, positions in images, frames of the replay."""

import json
import sys

import imageio
import numpy as np
import pytest
import torch
from conftest import ROOT, run_script

import envs
import rpg
import rpg_pixels

sys.path.insert(0, str(ROOT / "benchmark"))
import modes  # noqa: E402

CPU = torch.device("cpu")


def make_run(run_dir, env_id, capacity=1000, rows=21):
    """The directory of an untrained agent at step 2 * rows, with a replay of two environments that act at random;
    (agent, environment, the newest frames that the replay was given, with those that `save` adds)."""
    args = rpg_pixels.Args(
        env_id=env_id,
        num_envs=2,
        buffer_size=capacity,
        hidden_dim=8,
        state_dim=4,
        rnd_dim=8,
        latent_dim=3,
        channels=(2, 2, 2, 2),
        strides=(4, 2, 1, 1),
    )
    env = envs.make_env(env_id, 0, frames=2)
    _, act_dim = envs.pixel_sizes(env)
    torch.manual_seed(0)
    agent = rpg_pixels.Agent(act_dim, args.latent_dim, args, CPU)
    replay = rpg_pixels.Replay(capacity, 2, act_dim, args.latent_dim, CPU)
    z, zeros, frames = torch.zeros(2, args.latent_dim), np.zeros(2), []
    obs, _ = env.reset(seed=0)
    for row in range(rows):
        both = np.stack([obs, obs])
        both[1] = both[1][..., ::-1]  # the other environment is seen in a mirror
        frames.extend(both[:, -1])
        a = torch.zeros(2, act_dim)
        replay.add(torch.as_tensor(both), a, z, zeros, zeros, last=zeros, t=zeros + row)
        obs, *_ = env.step(env.action_space.sample())
    run_dir.mkdir(parents=True)
    (run_dir / "args.json").write_text(json.dumps(vars(args)))
    rpg_pixels.save(run_dir, agent, replay, both, z, zeros + rows, (2 * rows, 0, 0, [], False))
    return agent, env, np.stack([*frames, *both[:, -1]])


def test_modes(tmp_path):
    """Picture, video and a line for each z, without a word about the script that made the run."""
    run_dir = tmp_path / "run"
    make_run(run_dir, "block-push-pixels")
    code, out, err = run_script(tmp_path, "benchmark/modes.py", run_dir, "--num-z", 2)
    assert code == 0 and not err, err
    lines = out.splitlines()
    assert lines[-2:] == [str(run_dir / "modes.png"), str(run_dir / "modes.mp4")]
    assert [line.split(":")[0] for line in lines[:-2]] == ["z 1", "z 2"] and "episodic_length 60" in lines[0]
    picture = imageio.v3.imread(run_dir / "modes.png")
    assert picture.shape[0] > 600 and len(np.unique(picture.reshape(-1, picture.shape[-1]), axis=0)) > 100
    assert sum(1 for _ in imageio.get_reader(run_dir / "modes.mp4")) == 61


def test_a_runs_script_is_known_by_its_flags(tmp_path):
    for script in (rpg, rpg_pixels):
        (tmp_path / "args.json").write_text(json.dumps(vars(script.Args(exp_name="any"))))
        assert modes.script_of(tmp_path) == ROOT / f"{script.__name__}.py"
    for foreign in (json.dumps({**vars(rpg.Args()), "new_flag": 1}), "[1]", "{"):
        (tmp_path / "args.json").write_text(foreign)
        with pytest.raises(ValueError, match="--script names what made the run"):
            modes.script_of(tmp_path)


@pytest.mark.parametrize(
    "env_id, options", [("block-push-pixels", ()), ("block-push-pixels", ("random-blocks",)), ("block-push", ())]
)
def test_positions_found_in_images(env_id, options):
    """Within 3 cm of the simulator's, wherever blocks and pusher lie side by side."""
    env = envs.make_env(env_id, 0, options=options, frames=2)
    task = env.unwrapped
    rng = np.random.default_rng(0)
    images, positions = [], []
    for seed in range(10):  # of the goals
        env.reset(seed=seed)
        while len(images) < 40 * (seed + 1):
            places = rng.uniform(-envs.SLIDER_RANGE, envs.SLIDER_RANGE, (task.n + 1, 2))
            gaps = [np.abs(p - q).max() for i, p in enumerate(places) for q in places[:i]]
            if min(gaps) > 2 * envs.BLOCK_HALF:
                task.data.qpos[:] = places.ravel()
                images.append(envs.small_frame(task.picture(64)))
                positions.append(places.ravel())
    found = modes.features(env_id, np.stack(images)[:, None])
    np.testing.assert_allclose(2 * found, positions, atol=0.03)
    panels = modes.panels_of(env_id, 0, found, images=True)
    assert len(panels) == task.n + 1
    for i, panel in enumerate(panels):
        np.testing.assert_array_equal(panel.place(found, None), 2 * found[:, 2 * i : 2 * i + 2])


def test_other_images_by_principal_components(tmp_path):
    """Means of 4 x 4 pixels by loops; of an environment whose states have axes of their own, too."""
    images = np.random.default_rng(0).integers(0, 256, (30, 2, 3, 64, 64), np.uint8)
    images[:, :, 0, :4, :4] = np.linspace(0, 255, 30, dtype=np.uint8)[:, None, None, None]
    images[:, :, 1:] = 0
    found = modes.features("metaworld-basketball-pixels", images)
    assert found.shape == (30, 3 * 16 * 16)
    for channel, row, column in ((0, 0, 0), (0, 3, 7), (2, 15, 15)):
        square = images[4, 1, channel, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        assert found[4, 256 * channel + 16 * row + column] == pytest.approx(square.mean() / 255, rel=1e-5)
    (panel,) = modes.panels_of("metaworld-basketball-pixels", 0, found, images=True)
    places = panel.place(found, None)
    assert abs(np.corrcoef(places[:, 0], found[:, 0])[0, 1]) > 0.9  # the one that varies most


def test_visited_images_and_when(tmp_path, monkeypatch):
    """The ring's frames, oldest first, where it has forgotten some, and a part of them where there are many."""
    capacity = 20
    agent, env, frames = make_run(tmp_path / "run", "toy_envs:Toy-v0", capacity)
    expected = modes.features("toy_envs:Toy-v0", frames[-capacity:, None])
    obs, t, step = modes.read_visits(rpg_pixels, tmp_path / "run", agent, env)
    np.testing.assert_array_equal(obs, expected)
    assert t[::2].tolist() == list(range(12, 22)) and np.array_equal(t[::2], t[1::2])
    assert step[::2].tolist() == [*range(24, 42, 2), 42] and np.array_equal(step[::2], step[1::2])
    monkeypatch.setattr(modes, "ROWS", 3)
    monkeypatch.setattr(modes, "POINTS", 10)
    fewer, *_ = modes.read_visits(rpg_pixels, tmp_path / "run", agent, env)
    np.testing.assert_array_equal(fewer, expected.reshape(10, 2, -1)[::2].reshape(10, -1))

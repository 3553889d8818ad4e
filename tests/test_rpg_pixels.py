"""rpg_pixels.py: what it shares with rpg.py is the same; its frames, encoders and RND against slow references; runs."""

import ast
import difflib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, check_capturable, run_script

import rpg_pixels as pixels

CPU = torch.device("cpu")
TINY = "--rnd-dim 16 --hidden-dim 16 --state-dim 8 --batch-size 16 --learning-starts 50 --channels 4 4 4 4".split()
TINY += "--strides 4 2 1 1 --num-envs 2 --buffer-size 1000 --eval-episodes 2 --eval-frequency 1e6".split()


def small_args(**changes):
    """Settings of networks so small that slow references are quick."""
    sizes = dict(hidden_dim=8, state_dim=5, latent_dim=3, rnd_dim=16, channels=(3, 4, 4, 4), strides=(4, 2, 1, 1))
    return pixels.Args(**sizes | changes)


# the common text
DIFFERENT = """
check_args WorldModel.__init__ RND RND.__init__ RND.error RND.bonus Replay Replay.__init__ Replay.fields Replay.rows
Replay.add Replay.end_episodes Replay.state_dict Replay.load_state_dict
Agent.__init__ Agent.sample_z Agent.act Agent.rnd_loss Agent.model_loss load_policy evaluate Args
""".split()
GONE, NEW = ["PositionalEncoding"], ["cnn", "Encoder", "random_shift", "RND.inputs"]


def definitions(script):
    """{name: source} of a script's functions, classes without their methods, and methods."""
    text = (ROOT / script).read_text()
    found = {}

    def source(node):
        return ast.get_source_segment(text, node)

    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = source(node)
        if isinstance(node, ast.ClassDef):
            methods = [item for item in node.body if isinstance(item, ast.FunctionDef)]
            found[node.name] = "\n".join(source(item) for item in node.body if item not in methods)
            found |= {f"{node.name}.{method.name}": source(method) for method in methods}
    return found


def test_what_stands_in_both_scripts_is_the_same():
    """tests/test_rpg.py holds rpg.py's to their references; here they must not drift apart, in either direction."""
    state, image = definitions("rpg.py"), definitions("rpg_pixels.py")
    assert {name.split(".")[0] for name in state if name not in image} == set(GONE)
    new = [name for name in image if name not in state]
    assert [name for name in new if name in NEW or name.split(".")[0] not in NEW] == NEW
    different = [name for name in state if name in image and state[name] != image[name]]
    assert sorted(different) == sorted(DIFFERENT)


MAIN = """
-         eval_env = make_env(args.env_id, 0, render_mode, args.env_options, env_kwargs)
+         eval_env = make_env(args.env_id, 0, render_mode, args.env_options, env_kwargs, FRAMES)
-         sizes = state_sizes(eval_env)
+         sizes = pixel_sizes(eval_env)
+         _, act_dim = sizes
+         envs = make_vector_env(
-         obs_dim, object_dim, act_dim = sizes
-         if "num_frequencies" in given and object_dim == 0:
-             raise ValueError(f"--num-frequencies: no effect, {args.env_id} has no object coordinates to encode")
-         envs = make_vector_env(args.env_id, args.num_envs, args.seed, args.async_envs, args.env_options, env_kwargs)
+             args.env_id, args.num_envs, args.seed, args.async_envs, args.env_options, env_kwargs, FRAMES
+         )
-         replay = Replay(args.buffer_size, args.num_envs, obs_dim, act_dim, latent_dim, device)
+         replay = Replay(args.buffer_size, args.num_envs, act_dim, latent_dim, device)
-         agent = Agent(*sizes, latent_dim, args, device)
+         agent = Agent(act_dim, latent_dim, args, device)
-     if device.type == "cpu" and args.batch_size * args.hidden_dim >= 512 * 256:
+     if device.type == "cpu" and args.batch_size * sum(args.channels) >= 64 * 512:
-         say("no GPU: 10 steps/s; 100 with --batch-size 64 --hidden-dim 128 --rnd-dim 128 --compile, docs/speed.md")
+         say("no GPU: an update takes seconds at these sizes; docs/speed.md: laptop sizes")
"""


def test_the_main_program_differs_in_making_the_environments_alone():
    scripts = [(ROOT / script).read_text() for script in ("rpg.py", "rpg_pixels.py")]
    lines = [text.split('if __name__ == "__main__":\n')[1].splitlines() for text in scripts]
    changed = [line for line in difflib.ndiff(*lines) if line[0] in "+-"]
    assert sorted(changed) == sorted(MAIN.strip("\n").splitlines())


# replay
NUM_ENVS, ROWS = 2, 16


def frame(number):
    """A frame that no other number has; not symmetric in its axes."""
    image = np.full(pixels.FRAME_SHAPE, number, np.uint8)
    image[1, 3] = 255 - number
    image[2, :, 5] = 0
    return image


def fill_replay(rows, seed=0):
    """A replay and the plain lists that it should mirror: per environment one dict a row, since the start of time."""
    rng, replay = np.random.default_rng(seed), pixels.Replay(NUM_ENVS * ROWS + 1, NUM_ENVS, 1, 2, CPU)
    assert replay.frames.shape == (ROWS, NUM_ENVS, *pixels.FRAME_SHAPE) and replay.frames.dtype == torch.uint8
    stories = [[] for _ in range(NUM_ENVS)]
    for env, story in enumerate(stories):
        while len(story) < rows:
            length = int(rng.choice([0, 1, 2, 5, 9, 30]))
            for t in range(length + 1):
                number = NUM_ENVS * len(story) + env + 1
                before = story[-1]["number"] if t > 0 else number
                story.append(dict(number=number, before=before, t=t, last=t == length, row=len(story)))
        del story[rows:]
    for row in range(rows):
        now = [story[row] for story in stories]
        obs = torch.from_numpy(np.stack([[frame(x["before"]), frame(x["number"])] for x in now]))
        numbers = torch.tensor([[float(x["number"])] for x in now])
        last, t = (np.array([x[key] for x in now]) for key in ("last", "t"))
        replay.add(obs, numbers, numbers.expand(-1, 2), numbers[:, 0].numpy(), np.zeros(NUM_ENVS), last, t)
    return replay, stories


def expected_obs(stories, rows, number):
    """The stack that the replay should make for the row of a frame's number."""
    now = stories[(number - 1) % NUM_ENVS][(number - 1) // NUM_ENVS]
    forgotten = now["row"] - 1 < max(0, rows - ROWS)
    return np.stack([frame(now["number"] if forgotten else now["before"]), frame(now["number"])])


FILLS = [5, ROWS, ROWS + 1, 2 * ROWS + 7, 5 * ROWS + 3]


@pytest.mark.parametrize("rows", FILLS)
def test_stacks_are_those_that_were_acted_on(rows):
    """In segments and states: over episode borders, at the ring's wrap-around, and where it has forgotten a frame."""
    replay, stories = fill_replay(rows)
    torch.manual_seed(0)
    segments, states = replay.sample_segments(300, 3), replay.sample_states(300)
    assert segments.obs.shape == (4, 300, 2, *pixels.FRAME_SHAPE) and segments.obs.dtype == torch.uint8
    seen = set()
    for b in range(300):
        number = int(segments.a[0, b, 0])
        for t in range(4):
            assert np.array_equal(segments.obs[t, b], expected_obs(stories, rows, number + t * NUM_ENVS))
        number = int(states.z[b, 0])
        now = stories[(number - 1) % NUM_ENVS][(number - 1) // NUM_ENVS]
        assert np.array_equal(states.obs[b], expected_obs(stories, rows, number))
        first = now["row"] - now["t"]
        if first < max(0, rows - ROWS):  # forgotten: the state itself
            assert np.array_equal(states.start_obs[b], states.obs[b])
        else:
            start = stories[(number - 1) % NUM_ENVS][first]["number"]
            assert np.array_equal(states.start_obs[b], np.stack([frame(start)] * 2))
        seen.add(number)
    assert len(seen) == NUM_ENVS * min(rows, ROWS)


@pytest.mark.parametrize("rows", FILLS)
def test_replay_in_order_and_its_state(rows):
    """All rows, oldest first. A state is the filled part alone, in the ring's own memory, and makes the same ring."""
    replay, stories = fill_replay(rows)
    first = max(0, rows - ROWS)
    expected = np.stack([[expected_obs(stories, rows, x["number"]) for x in story[first:]] for story in stories], 1)
    assert np.array_equal(replay.in_order().obs, expected)
    state = replay.state_dict()
    assert state["frames"].data_ptr() == replay.frames.data_ptr(), "a copy: a checkpoint would double the memory"
    file = io.BytesIO()
    torch.save(state, file)
    assert file.tell() < 12_288 * NUM_ENVS * min(rows, ROWS) + 5000
    file.seek(0)
    other = pixels.Replay(NUM_ENVS * ROWS + 1, NUM_ENVS, 1, 2, CPU)
    other.load_state_dict(torch.load(file, weights_only=True))
    for name in ("data", "frames", "head", "filled"):
        assert torch.equal(getattr(other, name), getattr(replay, name))
    with pytest.raises(ValueError, match="a replay of shape"):
        pixels.Replay(NUM_ENVS * ROWS + 1, 1, 1, 2, CPU).load_state_dict(state)


def test_stacks_after_the_cut_of_a_checkpoint():
    """end_episodes writes the running episodes' observations as final ones; the next row begins an episode."""
    replay = pixels.Replay(20, 1, 1, 0, CPU)
    for t in range(2):
        obs = torch.from_numpy(np.stack([frame(max(0, t - 1)), frame(t)]))[None]
        replay.add(obs, torch.zeros(1, 1), torch.zeros(1, 0), [0.0], [False], last=[False], t=[t])
    replay.end_episodes(torch.from_numpy(np.stack([frame(1), frame(2)]))[None], torch.zeros(1, 0), np.array([2]))
    replay.add(torch.from_numpy(np.stack([frame(9), frame(9)]))[None], *[torch.zeros(1, n) for n in (1, 0)], *[[0]] * 4)
    rows = replay.in_order()
    assert rows.obs[:, 0, :, 0, 0, 0].tolist() == [[0, 0], [0, 1], [1, 2], [9, 9]]
    assert rows.last[:, 0].tolist() == [0, 0, 1, 0]


# networks
def random_obs(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (*shape, 2, *pixels.FRAME_SHAPE), dtype=torch.uint8, generator=generator)


def test_encoder_has_the_official_sizes_and_sees_both_frames():
    """107 million multiply-adds an image, 2 x 2 x 128 features; all parameters get a gradient."""
    encoder = pixels.Encoder(pixels.Args())
    convolutions = [layer for layer in encoder.net[0] if isinstance(layer, torch.nn.Conv2d)]
    sides = [29, 13, 6, 2]
    products = sum(layer.weight.numel() * side**2 for layer, side in zip(convolutions, sides))
    assert round(products / 1e6) == 107 and encoder.net[1][0].in_features == 2 * 2 * 128
    obs = random_obs(2, 3)
    s = encoder(obs)
    assert s.shape == (2, 3, 100)
    torch.testing.assert_close(s[1, 2], encoder(obs[1, 2]))
    s.square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in encoder.parameters())
    for which in range(2):
        other = obs.clone()
        other[:, :, which] = 255 - other[:, :, which]
        assert not torch.allclose(encoder(other), s, atol=1e-4)


def test_encoder_equals_convolutions_by_hand():
    """One output entry of the first layer, as a sum over the window of both frames, divided by 255."""
    torch.manual_seed(0)
    encoder, obs = pixels.Encoder(small_args()), random_obs()
    layer = encoder.net[0][0]
    out = layer(obs.flatten(0, 1)[None].float() / 255)[0, 1, 2, 3]
    channels = [obs[which, color] for which in range(2) for color in range(3)]
    total = layer.bias[1].item()
    for channel, weights in zip(channels, layer.weight[1]):
        for i in range(7):
            for j in range(7):
                total += weights[i, j].item() * int(channel[4 * 2 + i, 4 * 3 + j]) / 255
    assert out.item() == pytest.approx(total, abs=1e-5)
    torch.testing.assert_close(encoder(obs), encoder.net(obs.flatten(0, 1)[None].float() / 255)[0])


def test_random_shift_moves_each_sample_as_numpy_does():
    """By the same for all of a sample's frames, channels and steps; the edge is repeated."""
    torch.manual_seed(0)
    obs = random_obs(3, 200)  # (H, B, O)
    shifted, shifts = pixels.random_shift(obs), set()
    padded = np.pad(obs[0, :, 0, 0].numpy(), ((0, 0), (4, 4), (4, 4)), mode="edge")
    for b in range(200):
        windows = [(y, x) for y in range(9) for x in range(9)]
        found = [
            w for w in windows if np.array_equal(shifted[0, b, 0, 0], padded[b, w[0] : w[0] + 64, w[1] : w[1] + 64])
        ]
        assert len(found) == 1
        y, x = found[0]
        every = np.pad(obs[:, b].numpy(), ((0, 0),) * 3 + ((4, 4), (4, 4)), mode="edge")
        assert np.array_equal(shifted[:, b], every[..., y : y + 64, x : x + 64])
        shifts.add((y, x))
    assert len(shifts) > 60


# RND
def test_pixel_normaliser_and_error_equal_numpy():
    """The newest frame in blocks of 4 x 4 pixels, each in its own deviations over all that was seen, clipped at ±5."""
    torch.manual_seed(0)
    agent = pixels.Agent(1, 3, small_args(), CPU)
    batches = [random_obs(n, seed=n) for n in (3, 1, 7)]
    for obs in batches:
        obs[:, 1, 0, :4, :4] = 200  # one block never changes
        obs[:, 1, 1] //= 8  # and these change little
        agent.rnd_loss(obs)
    seen = torch.cat(batches)[:, 1].numpy().astype(np.float64) / 255
    seen = seen.reshape(len(seen), 3, 16, 4, 16, 4).mean((3, 5))
    np.testing.assert_allclose(agent.rnd.pixels.mean, seen.mean(0), rtol=1e-6)
    std = np.maximum(seen.std(0), 1 / 255)
    obs = random_obs(4, seed=99)
    x = obs[:, 1].numpy().astype(np.float64).reshape(4, 3, 16, 4, 16, 4).mean((3, 5)) / 255
    x = np.clip((x - seen.mean(0)) / std, -5, 5)
    assert (np.abs(x) == 5).any() and (np.abs(x) < 5).any()
    x = torch.tensor(x.reshape(4, -1), dtype=torch.float32)
    expected = (agent.rnd.g[1](x) - agent.rnd.g_fixed[1](x)).square().mean(-1)
    torch.testing.assert_close(agent.rnd.error(agent.rnd.inputs(obs)), expected)
    older = obs.clone()
    older[:, 0] = 0
    torch.testing.assert_close(agent.rnd.error(agent.rnd.inputs(older)), expected)
    agent.rnd.errors.update(expected)
    bonus = (expected - expected.mean()) / expected.std(correction=0)
    torch.testing.assert_close(agent.rnd.bonus(obs), bonus)
    torch.testing.assert_close(agent.rnd.bonus(obs.view(2, 2, *obs.shape[1:])), bonus.view(2, 2))


@pytest.mark.parametrize("flags", [{}, {"rnd_conv": True, "random_shift": True, "rnd_normalize_obs": False}], ids=str)
def test_updates_are_capturable(flags):
    args = small_args(batch_size=8, latent_dim=2, **flags)
    replay, _ = fill_replay(60)
    check_capturable(pixels.Agent(1, 2, args, CPU), replay)


@pytest.mark.parametrize("conv", [False, True])
def test_rnd_training_lowers_the_bonus_of_seen_frames_only(conv):
    """Frames of block-push-pixels with the pusher anywhere; then the block is moved."""
    from envs import make_env

    env = make_env("block-push-pixels", 0, frames=2)
    torch.manual_seed(0)
    rng, seen = np.random.default_rng(0), []
    while len(seen) < 200:
        env.reset(seed=0)
        for _ in range(3):
            obs = env.step(rng.uniform(-1, 1, 2).astype(np.float32))[0]
            seen.append(torch.from_numpy(obs))
    seen = torch.stack(seen)
    moved = seen[:50].flip(-1)  # the mirrored scene: block and goal on the other side
    args = small_args(rnd_dim=64, rnd_conv=conv, channels=(16, 16, 16, 16), learning_rate=1e-3)
    agent = pixels.Agent(2, 3, args, CPU)
    fixed = [parameter.clone() for parameter in agent.rnd.g_fixed.parameters()]
    for _ in range(250):
        loss = agent.rnd_loss(seen[torch.randint(len(seen), (32,))])
        agent.rnd_optimizer.zero_grad()
        loss.backward()
        agent.rnd_optimizer.step()
    assert agent.rnd.bonus(seen).mean() < 0.5 and agent.rnd.bonus(moved).mean() > 3
    assert all(torch.equal(*pair) for pair in zip(fixed, agent.rnd.g_fixed.parameters()))


# runs
def run(cwd, *flags, before=""):
    """Exit code, standard output, standard error."""
    return run_script(cwd, "rpg_pixels.py", *flags, before=before)


def finish(cwd, *flags):
    """The directory and the last line of a run that must succeed."""
    tiny = TINY[2:] if "--rnd-coef" in flags else TINY
    code, out, err = run(cwd, *tiny, *flags)
    assert code == 0 and err == "", err
    summary = json.loads(out.splitlines()[-1])
    return Path(cwd, summary["run_dir"]), summary


def test_a_resumed_run_is_the_uninterrupted_run_bit_for_bit(tmp_path):
    """Frames, encoders and pixel normaliser included; then its policy plays, and its video shows what it sees."""
    flags = ["--checkpoint-frequency", "160"]
    whole, summary = finish(tmp_path, *flags, "--total-timesteps", "320")
    assert summary["env_id"] == "block-push-pixels" and summary["episodic_length"] == 60
    halves, _ = finish(tmp_path, *flags, "--total-timesteps", "160")
    code, _, err = run(tmp_path, "--resume", halves, "--total-timesteps", "320", "--capture-video")
    assert code == 0, err
    one, two = (torch.load(path / "checkpoint.pt", weights_only=True) for path in (whole, halves))
    assert one["replay"]["frames"].count_nonzero() > 0
    for part in ("agent", "replay"):
        for name, value in one[part].items():
            assert torch.equal(value, two[part][name]), name
    agent = pixels.load_policy(halves)
    obs = random_obs()
    z = agent.sample_z(obs)
    assert agent.act(obs.numpy(), z, greedy=True).shape == (2,)
    import imageio.v2 as imageio

    frames = imageio.mimread(halves / "videos" / "step-320.mp4")
    height, width, _ = frames[0].shape
    assert len(frames) == 60 and width == 2 * height, "a large view, and beside it what the agent sees"


@pytest.mark.parametrize(
    "flags",
    [
        "--latent none --no-rnd-normalize-obs",
        "--latent categorical --rnd-conv --random-shift",
        "--latent categorical --learned-prior --rnd-coef 0",
        "--env-id toy_envs:Toy-v0 --rnd-conv --no-rnd-normalize-obs --num-envs 1",
    ],
)
def test_each_method_runs(tmp_path, flags):
    run_dir, summary = finish(tmp_path, *flags.split(), "--total-timesteps", "140", "--eval-frequency", "140")
    assert summary["global_step"] == 140 and (run_dir / "eval.csv").read_text().count("\n") == 3
    with np.errstate(all="raise"):
        assert pixels.load_policy(run_dir).act(random_obs(), torch.zeros(0 if "none" in flags else 12)).shape[0] > 0


@pytest.mark.parametrize(
    "flags,says",
    [
        ("--env-id metaworld-basketball-v9-pixels", "basketball"),
        ("--channels 8 8 8 0", "--channels"),
        ("--strides 4 4 4 4", "4 2 1 1"),
        ("--buffer-size 1e12", "memory"),
        ("--rnd-coef 0 --rnd-conv", "--rnd-conv: no effect"),
        ("--rnd-coef 0 --no-rnd-normalize-obs", "--rnd-normalize-obs: no effect"),
    ],
)
def test_bad_input_is_one_line(tmp_path, flags, says):
    code, _, err = run(tmp_path, *TINY[2:], *flags.split())
    assert code == 2 and says in err and err.count("\n") == 1, err
    assert not list(tmp_path.glob("runs/*"))

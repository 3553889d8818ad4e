"""rpg.py as a user types it, with tiny flags, looking at what it prints and writes."""

import dataclasses
import functools
import inspect
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from conftest import ROOT, run_script
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import envs
import rpg

ENV = {**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
UNEVALUATED = (
    "--hidden-dim 16 --state-dim 8 --rnd-dim 16 --batch-size 16 --learning-starts 50 --latent-dim 3 --num-envs 4 "
    "--checkpoint-frequency 200 --total-timesteps 400 --eval-frequency 0"
).split()
TINY = [*UNEVALUATED, "--eval-frequency", "200", "--eval-episodes", "2"]
TOY = ["--env-id", "toy_envs:Toy-v0", *TINY]
FAULTY = ["--env-id", "faulty_envs:Faulty-v0"]
FOREVER = ["--total-timesteps", "1e9"]
LOSSES = {
    "consistency_loss",
    "reward_loss",
    "value_loss",
    "model_loss",
    "policy_loss",
    "alpha",
    "alpha_loss",
    "entropy",
    "info_loss",
    "info_reward",
    "rnd_loss",
    "rnd_reward",
    "grad_norm",
    "values",
    "state_std",
}


def start(cwd, *flags, python=(), env=(), **kwargs):
    """rpg.py in a process of its own: for signals, terminals, and what is decided when Python starts."""
    command = [sys.executable, *python, str(ROOT / "rpg.py"), *map(str, flags)]
    streams = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE) | kwargs
    env = {key: value for key, value in (ENV | dict(env)).items() if value is not None}
    return subprocess.Popen(command, cwd=cwd, env=env, text=True, encoding="latin-1", **streams)


def run(cwd, *flags, before=""):
    """Exit code, standard output, standard error."""
    return run_script(cwd, "rpg.py", *flags, before=before)


def is_one_line(text):
    return text.strip().count("\n") == 0 and text != ""


def toy(cwd, *flags, env_id="toy_envs:Toy-v0"):
    """Run a toy environment, which must succeed: (run directory, summary)."""
    code, out, err = run(cwd, "--env-id", env_id, *TINY, *flags)
    assert code == 0, err
    summary = json.loads(out.splitlines()[-1])
    return cwd / summary["run_dir"], summary


def resume(cwd, run_dir, *flags):
    code, out, err = run(cwd, "--resume", run_dir, *flags)
    assert code == 0, err
    return out, json.loads(out.splitlines()[-1])


def wait_for(process, condition, seconds=60):
    """Until condition() holds, while the process lives."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def scalars(run_dir):
    """{key: [(step, value)]} as TensorBoard shows them."""
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0}).Reload()
    return {key: [(e.step, e.value) for e in events.Scalars(key)] for key in events.Tags()["scalars"]}


def eval_rows(run_dir):
    header, *rows = (run_dir / "eval.csv").read_text().splitlines()
    assert header == "step,episode,return,length,success_final,success_any"
    return [tuple(map(float, row.split(","))) for row in rows]


def checkpoint(run_dir):
    return torch.load(run_dir / "checkpoint.pt", weights_only=True)


def saved_step(run_dir):
    return checkpoint(run_dir)["progress"][0]


def same(a, b):
    """Whether two nests of dicts, lists and tensors hold the same bits."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def same_runs(one, two):
    """Two runs with one history: checkpoint, weights, evaluations and log but for their speed."""
    assert same(checkpoint(one), checkpoint(two))
    assert same(torch.load(one / "model.pt"), torch.load(two / "model.pt"))
    assert eval_rows(one) == eval_rows(two)
    logged, other = scalars(one), scalars(two)
    assert logged.pop("charts/SPS") and other.pop("charts/SPS")
    assert logged == other


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of 400 steps with checkpoints at 200 and 400: (directory above runs/, run directory, summary,
    standard output)."""
    cwd = tmp_path_factory.mktemp("finished")
    code, out, err = run(cwd, *TOY, "--capture-video", "--exp-name", "whole")
    assert code == 0 and err == "", err
    summary = json.loads(out.splitlines()[-1])
    return cwd, cwd / summary["run_dir"], summary, out


# what a run writes and prints
def test_files_keys_and_summary(finished):
    _, run_dir, summary, _ = finished
    assert re.fullmatch(r"toy_envs-Toy-v0__whole__1__\d+", run_dir.name), "no colon: Windows"
    names = {"args.json", "rpg.py", "eval.csv", "model.pt", "checkpoint.pt", "videos"}
    assert {path.name for path in run_dir.iterdir() if "tfevents" not in path.name} == names
    assert json.loads((run_dir / "args.json").read_text())["hidden_dim"] == 16
    assert (run_dir / "rpg.py").read_bytes() == (ROOT / "rpg.py").read_bytes()
    state, logged = checkpoint(run_dir), scalars(run_dir)
    assert same(state["agent"], torch.load(run_dir / "model.pt"))
    assert {f"losses/{name}" for name in LOSSES} == {key for key in logged if key.startswith("losses/")}
    assert {"charts/SPS", "charts/episodic_length", "charts/success_final", "charts/success_any"} <= logged.keys()
    assert [ended for _, ended in logged["charts/episodes"]] == [4, 8, 12, 16] and summary["training_episodes"] == 16
    assert {"eval/episodic_return", "eval/success_final", "eval/success_any"} <= logged.keys()
    assert {value for _, value in logged["charts/episodic_length"]} == {20.0}
    assert all(step >= 50 + 4 * rpg.BURN_IN for step, _ in logged["charts/SPS"]), "a speed before it is known"
    keys = ["run_dir", "env_id", "seed", "global_step", "training_episodes", "episodes", *envs.SUMMARY, "sps"]
    assert list(summary) == keys and summary["global_step"] == 400 and summary["seed"] == 1
    assert 0 <= summary["success_final"] <= summary["success_any"] <= 1


def test_episodes_that_end_together_are_one_point_their_mean(finished):
    """Four environments of a fixed length: the checkpoint has every episode, TensorBoard the mean of each four."""
    _, run_dir, summary, _ = finished
    recent = np.array(checkpoint(run_dir)["progress"][3])
    assert len(recent) == summary["episodes"] == summary["training_episodes"] == 16
    logged = scalars(run_dir)
    for column, key in enumerate(envs.SUMMARY):
        points = logged[f"charts/{key}"]
        assert [step for step, _ in points] == sorted({step for step, _ in points}) and len(points) == 4
        assert [value for _, value in points] == pytest.approx(recent[:, column].reshape(4, 4).mean(1))
        assert summary[key] == pytest.approx(recent[:, column].mean())
    assert (np.ptp(recent[:, 0].reshape(4, 4), 1) > 0).any(), "they are all alike"


def test_lines_on_standard_output(finished):
    """The first line introduces the run, the next ones tell its progress and evaluations, the last one is JSON. No
    speed is named before it is known."""
    cwd, run_dir, _, out = finished
    first, *lines, _ = out.splitlines()
    path = run_dir.relative_to(cwd)
    assert first.startswith(f"{path} | toy_envs:Toy-v0: observation 2, of these 1 object coordinates, action 1 | ")
    assert first.endswith(
        f" | 4 environments | CPU (1 thread) | Ctrl-C stops it with a checkpoint, --resume {path} goes on"
    )
    assert lines[0] == "step 4 of 400" and "steps/s" in lines[-2] and "left" in lines[-2]
    for step, line in ((200, lines[1]), (400, lines[-1])):
        means = np.mean([row[2:] for row in eval_rows(run_dir) if row[0] == step], 0)
        names = ("return", "length", "success_final", "success_any")
        figures = " | ".join(f"{name} {mean:.2f}" for name, mean in zip(names, means))
        assert line == f"step {step}: evaluation of 2 episodes: {figures}"


def test_evaluation_table_and_video(finished):
    _, run_dir, *_ = finished
    rows = eval_rows(run_dir)
    assert [(step, episode) for step, episode, *_ in rows] == [(200, 0), (200, 1), (400, 0), (400, 1)]
    assert scalars(run_dir)["eval/episodic_return"][-1] == (400, pytest.approx(np.mean([row[2] for row in rows[2:]])))
    assert sorted(path.name for path in (run_dir / "videos").iterdir()) == ["step-200.mp4", "step-400.mp4"]
    for step in (200, 400):
        path = run_dir / "videos" / f"step-{step}.mp4"
        frames = imageio.imread(path)
        assert frames.shape == (20, 32, 64, 3) and all(frame.max() > frame.min() for frame in frames)
        assert imageio.immeta(path)["codec"] == "h264" and imageio.immeta(path)["fps"] == 20


def test_another_seed_differs(finished):
    cwd, run_dir, *_ = finished
    other, _ = toy(cwd, "--exp-name", "other", "--seed", "2", "--total-timesteps", "200")
    first = checkpoint(other)["replay"]["data"]
    assert not torch.isclose(first[0, :, :2], checkpoint(run_dir)["replay"]["data"][0, :, :2])[:, 1].any()


def test_a_resumed_run_is_the_uninterrupted_run_bit_for_bit(finished):
    """And so two runs of one seed are the same."""
    cwd, run_dir, summary, _ = finished
    halves, first = toy(cwd, "--exp-name", "halves", "--total-timesteps", "200")
    assert first["global_step"] == 200
    _, second = resume(cwd, halves, "--total-timesteps", "400")
    same_runs(run_dir, halves)
    assert second["training_episodes"] == summary["training_episodes"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_too(tmp_path):
    """With its CUDA graphs, each run in a process of its own."""

    def train(*flags):
        call = [sys.executable, ROOT / "rpg.py", *flags]
        out = subprocess.run(call, env=ENV, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        assert "GPU" in out
        return tmp_path / json.loads(out.splitlines()[-1])["run_dir"]

    whole = train(*TOY, "--exp-name", "whole")
    halves = train(*TOY, "--exp-name", "halves", "--total-timesteps", "200")
    train("--resume", str(halves), "--total-timesteps", "400")
    assert same(checkpoint(whole), checkpoint(halves))


@pytest.mark.parametrize("flags", [["--num-envs", "2"], ["--num-envs", "1", "--async-envs"]], ids=["here", "workers"])
def test_environments_that_draw_from_the_global_generators_repeat(tmp_path, flags):
    """From np.random and random, in workers too; over a resume; and whether or not there are evaluations beside."""
    flags = [*flags, "--total-timesteps", "160", "--checkpoint-frequency", "80"]
    env_id = "toy_envs:ToyGlobalRandom-v0"
    whole, _ = toy(tmp_path, *flags, "--eval-frequency", "40", env_id=env_id)
    halves, _ = toy(tmp_path, *flags, "--total-timesteps", "80", "--eval-frequency", "1e6", env_id=env_id)
    resume(tmp_path, halves, "--total-timesteps", "160")
    assert len(eval_rows(whole)) == 8 and same(checkpoint(whole), checkpoint(halves))
    one, two = eval_rows(whole), eval_rows(halves)
    assert one[2:4] + one[6:] == two and one[0][2:] != one[1][2:]


def test_finished_run_resumed_without_steps_is_evaluated(finished):
    """It prints its figures, which are those of episodes 0, 1, ...; of its step they replace the rows, and nothing else
    changes."""
    cwd, run_dir, summary, _ = finished
    text = (run_dir / "eval.csv").read_text()
    before = eval_rows(run_dir)
    kept = {path.name: path.read_bytes() for path in run_dir.iterdir() if path.is_file() and path.name != "eval.csv"}
    out, again = resume(cwd, run_dir, "--total-timesteps", "0", "--eval-episodes", "4")
    lines = out.splitlines()
    assert "no steps to take" in lines[0] and lines[1].startswith("evaluation of 4 episodes: return ")
    assert again["global_step"] == 400 and again["episodes"] == 4 and again["sps"] is None
    assert again["training_episodes"] == summary["training_episodes"]
    rows = eval_rows(run_dir)
    assert rows[: len(before)] == before and len(rows) == len(before) + 2  # the same episodes, and two more
    assert again["episodic_return"] == pytest.approx(np.mean([row[2] for row in rows[2:]]))
    _, fewer = resume(cwd, run_dir, "--total-timesteps", "0", "--eval-episodes", "1")
    assert fewer["episodes"] == 1 and eval_rows(run_dir) == before[:3], "rows of a longer evaluation linger"
    (run_dir / "eval.csv").rename(run_dir / "rows")
    (run_dir / "eval.csv").mkdir()  # root may write to a directory without permission, but not to this file
    code, out, err = run(cwd, "--resume", run_dir, "--total-timesteps", "0", "--eval-episodes", "1")
    (run_dir / "eval.csv").rmdir()
    (run_dir / "rows").unlink()
    (run_dir / "eval.csv").write_text(text)  # as the other tests expect it
    assert code == 0 and "eval.csv stays as it is" in err and is_one_line(err), err
    assert json.loads(out.splitlines()[-1]) == fewer
    assert kept == {path.name: path.read_bytes() for path in run_dir.iterdir() if path.name in kept}
    assert sorted(path.name for path in run_dir.iterdir()) == sorted([*kept, "eval.csv", "videos"])
    assert not list(run_dir.glob("*.new"))


def test_half_written_checkpoints_are_never_used(finished):
    cwd, *_ = finished
    run_dir, _ = toy(cwd, "--exp-name", "torn", "--total-timesteps", "200")
    for name in ("checkpoint.pt.new", "model.pt.new"):
        (run_dir / name).write_bytes(b"half")  # killed while writing
    assert resume(cwd, run_dir)[1]["global_step"] == 200
    assert resume(cwd, run_dir, "--total-timesteps", "240")[1]["global_step"] == 240
    assert not list(run_dir.glob("*.new"))


# errors in an environment's own code
@pytest.mark.parametrize("error", ["bug", "simulator", "file", "connection", "float", "exit", "memory"])
def test_an_error_in_a_training_step_costs_nothing(tmp_path, error):
    """Whatever an environment raises, OSErrors and sys.exit too: its traceback, exit code 1, and a checkpoint of the
    last finished step, which --resume accepts."""
    fails(tmp_path, "step", 60, error, step=236, flags=UNEVALUATED)


@pytest.mark.parametrize("error", ["bug", "file", "exit"])
def test_an_error_in_an_evaluation_costs_nothing(tmp_path, error):
    """The 60th step of the evaluation's environment is in its second evaluation: the checkpoint is of that step, though
    none is due there; what was resumed makes the evaluation up."""
    run_dir = fails(tmp_path, "step", 60, error, step=80, flags=[*TINY, "--eval-frequency", "40"])
    assert [row[:2] for row in eval_rows(run_dir)] == [(40, 0), (40, 1), (80, 0), (80, 1)]
    assert [step for step, _ in scalars(run_dir)["eval/episodic_return"]] == [40, 80]


@pytest.mark.parametrize("more", [(), ("--total-timesteps", "0")])
def test_the_last_evaluation_is_made_up(tmp_path, more):
    """That of the run's last step, of which nothing is left but to evaluate."""
    flags = [*TINY, "--eval-frequency", "40", "--total-timesteps", "80"]
    code, _, err = run(tmp_path, *FAULTY, *flags, "--env-kwargs", "at=60", "error=bug")
    (run_dir,) = tmp_path.glob("runs/*")
    assert code == 1 and "at step 80" in err and [row[0] for row in eval_rows(run_dir)] == [40, 40]
    args = (run_dir / "args.json").read_bytes()
    for _ in range(2):  # the second time there is nothing to make up
        out, _ = resume(tmp_path, run_dir, *more)
        assert "no steps to take" in out and (run_dir / "args.json").read_bytes() == args
        assert [row[:2] for row in eval_rows(run_dir)] == [(40, 0), (40, 1), (80, 0), (80, 1)]
        assert [step for step, _ in scalars(run_dir)["eval/episodic_return"]] == [40, 80]


@pytest.mark.parametrize("steps, logged", [(200, [200]), (240, [200, 240])])
def test_an_evaluation_is_in_the_log_once(finished, steps, logged):
    """A kill came when TensorBoard had it, but not eval.csv."""
    cwd, *_ = finished
    run_dir, _ = toy(cwd, "--exp-name", "twice", "--total-timesteps", "200")
    table = run_dir / "eval.csv"
    before = table.read_text()
    table.write_text(before.splitlines()[0] + "\n")
    code, _, err = run(cwd, "--resume", run_dir, "--total-timesteps", steps, "--eval-frequency", "200")
    assert code == 0 and not err and table.read_text().startswith(before), err
    assert [step for step, _ in scalars(run_dir)["eval/episodic_return"]] == logged


def test_rows_after_the_checkpoint(finished):
    """Of evaluations that a kill left: only evaluating keeps them, going on from the checkpoint does not."""
    cwd, *_ = finished
    run_dir, _ = toy(cwd, "--exp-name", "later", "--total-timesteps", "200")
    table = run_dir / "eval.csv"
    table.write_text(table.read_text() + "300,0,1,20,0,0\n300,1,1,20,0,0\n")
    before = eval_rows(run_dir)
    resume(cwd, run_dir, "--total-timesteps", "0")
    assert eval_rows(run_dir) == before
    resume(cwd, run_dir, "--total-timesteps", "240", "--eval-frequency", "0")
    assert eval_rows(run_dir) == before[:2]


def test_damaged_evaluations_show_before_training(finished):
    cwd, *_ = finished
    run_dir, _ = toy(cwd, "--exp-name", "blank", "--total-timesteps", "200")
    resume(cwd, run_dir, "--total-timesteps", "220", "--eval-frequency", "0")
    table = run_dir / "eval.csv"
    table.write_text(table.read_text() + "no row\n")
    files = {path: path.read_bytes() for path in run_dir.iterdir()}
    code, _, err = run(cwd, "--resume", run_dir, "--total-timesteps", "400")
    assert code == 2 and "is no table of evaluations any more" in err and is_one_line(err), err
    assert files == {path: path.read_bytes() for path in run_dir.iterdir()}


@pytest.mark.parametrize("error, at, step", [("bug", 3, 80), ("file", 5, 200)], ids=["episode", "after a checkpoint"])
def test_an_error_in_a_reset_costs_nothing(tmp_path, error, at, step):
    """The first reset is that of make_env, the second the first of the run, the third that of the second episode; after
    the checkpoint at step 200 all environments are reset."""
    fails(tmp_path, "reset", at, error, step, flags=UNEVALUATED)


def test_an_error_in_a_worker_costs_nothing(tmp_path):
    """Not even one that looks as if the worker had died."""
    fails(tmp_path, "step", 30, "connection", step=58, flags=[*UNEVALUATED, "--num-envs", "2", "--async-envs"])


def fails(cwd, where, at, error, step, flags):
    code, out, err = run(cwd, *FAULTY, *flags, "--env-kwargs", f"where={where}", f"at={at}", f"error={error}")
    (run_dir,) = cwd.glob("runs/*")
    assert code == 1, err
    assert f"at step {step}; --resume runs/{run_dir.name} goes on" in err
    assert "Traceback" in err and "faulty_envs.py" in err and f"in {where}" in err, err
    assert {"bug": "KeyError", "simulator": "SimulatorError: 7: joint 3", "file": "mesh.stl"}.get(error, "Error") in err
    assert saved_step(run_dir) == step
    flags = ["--total-timesteps", step + 36, "--eval-frequency", "0", "--no-async-envs"]
    _, summary = resume(cwd, run_dir, *flags)
    assert summary["global_step"] == step + 36
    episodes = checkpoint(run_dir)["progress"][2]
    ends = [point for point, _ in scalars(run_dir)["charts/episodic_return"]]
    assert ends == sorted(set(ends)) and checkpoint(run_dir)["replay"]["data"].shape[1] * len(ends) == episodes
    return run_dir


@pytest.mark.parametrize("env_id", ["ToyFloat64-v0", "ToyFrameFails-v0", "ToyFpsNone-v0"])
def test_odd_environments_are_evaluated_and_filmed(tmp_path, env_id):
    """Observations that are not of their space's type; frames that fail are one warning line."""
    code, _, err = run(tmp_path, "--env-id", f"toy_envs:{env_id}", *TINY, "--capture-video")
    assert code == 0, err
    (run_dir,) = tmp_path.glob("runs/*")
    assert len(eval_rows(run_dir)) == 4
    fails = env_id == "ToyFrameFails-v0"
    assert err.count("rpg.py: ") == err.count("no video") == fails  # gymnasium warns of float64 itself
    assert len(list(run_dir.glob("videos/*.mp4"))) == (0 if fails else 2)


@pytest.mark.parametrize("error, names", [("file", "mesh.stl' (faulty_envs.py, line "), ("exit", "sys.exit")])
def test_what_is_wrong_in_an_evaluation_shows_before_training(tmp_path, error, names):
    """One decision is evaluated before a run's directory is made."""
    code, _, err = run(tmp_path, *FAULTY, *TINY, "--env-kwargs", "at=1", f"error={error}")
    assert code == 1 and err.startswith("rpg.py: error: faulty_envs:Faulty-v0: its first step fails: ")
    assert names in err and err.count("\n") == 1 and not list(tmp_path.iterdir())


def test_a_killed_evaluation_is_made_up(tmp_path):
    """kill -9 in the evaluation after the checkpoint at step 160: the resumed run is the one that was not killed, with
    no point and no row missing or twice. (In between, it is stopped once more in that evaluation, by Ctrl-C.)"""
    flags = [*FAULTY, *TINY, "--env-kwargs", "at=60", "error=hold", "--eval-frequency", "80"]
    flags += ["--checkpoint-frequency", "80"]
    (tmp_path / "hold").touch()
    process = start(tmp_path, *flags)
    wait_for(process, lambda: any(saved_step(path.parent) == 160 for path in tmp_path.glob("runs/*/checkpoint.pt")))
    (killed,) = tmp_path.glob("runs/*")
    time.sleep(0.3)
    process.kill()
    process.communicate()
    (tmp_path / "hold").unlink()
    assert [row[0] for row in eval_rows(killed)] == [80, 80] and checkpoint(killed)["progress"][-1]
    stopped = "import envs; envs.Stop.listen = lambda stop: setattr(stop, 'requested', True)"
    code, _, err = run(tmp_path, "--resume", killed, before=stopped)
    assert code == 0 and saved_step(killed) == 160 and len(eval_rows(killed)) == 2, err
    resume(tmp_path, killed, "--total-timesteps", "240")
    code, out, err = run(tmp_path, *flags, "--total-timesteps", "240")
    assert code == 0, err
    assert [row[0] for row in eval_rows(killed)] == [80, 80, 160, 160, 240, 240]
    same_runs(tmp_path / json.loads(out.splitlines()[-1])["run_dir"], killed)


@pytest.mark.parametrize(
    "flags, culprit",
    [
        (["--env-id", "toy_envs:ToyNaN-v0", *TINY], "observation"),
        ([*TOY, "--reward-scale", "1e38"], "losses/"),
        (["--env-id", "toy_envs:ToyDeaf-v0", *TINY, "--learning-rate", "1e20"], "action"),  # which takes a nan for none
    ],
)
def test_nan_stops_the_run_and_the_newest_checkpoint_stands(tmp_path, flags, culprit):
    code, _, err = run(tmp_path, *flags, "--checkpoint-frequency", "40")
    (run_dir,) = tmp_path.glob("runs/*")
    assert code == 1 and culprit in err and "step" in err and is_one_line(err)
    state = checkpoint(run_dir)
    assert all(value.isfinite().all() for value in state["agent"].values()) and state["replay"]["data"].isfinite().all()


# two processes and one run
def test_looking_at_a_running_run_does_it_no_harm(tmp_path):
    """--total-timesteps 0 beside the trainer only prints; a second trainer is refused; the first one goes on and ends
    well, its log complete."""
    process = start(tmp_path, *TOY, *FOREVER)
    wait_for(process, lambda: list(tmp_path.glob("runs/*/checkpoint.pt")))
    (run_dir,) = tmp_path.glob("runs/*")
    code, out, err = run(tmp_path, "--resume", run_dir, "--total-timesteps", "0", "--eval-episodes", "3")
    assert code == 0 and "another process" in err and is_one_line(err), err
    assert json.loads(out.splitlines()[-1])["episodes"] == 3
    code, out, err = run(tmp_path, "--resume", run_dir)
    assert code == 2 and "another process" in err and is_one_line(err) and out == ""
    written = (run_dir / "checkpoint.pt").stat().st_mtime_ns
    wait_for(process, lambda: (run_dir / "checkpoint.pt").stat().st_mtime_ns > written)
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in err
    step = json.loads(out.splitlines()[-1])["global_step"]
    assert saved_step(run_dir) == step and len(list(run_dir.glob("events*"))) == 1
    evaluated = list(range(200, step // 200 * 200 + 1, 200))
    logged = scalars(run_dir)
    assert [point // 200 * 200 for point, _ in logged["eval/episodic_return"]] in (evaluated, evaluated[:-1])
    rows = eval_rows(run_dir)
    assert [row[0] for row in rows[::2]] == [point for point, _ in logged["eval/episodic_return"]]
    assert [row[1] for row in rows] == [0, 1] * (len(rows) // 2)
    assert not list(run_dir.glob("*.new"))


def test_runs_of_the_same_second_have_directories_of_their_own(tmp_path, monkeypatch):
    """Made by eight at once in one process; and by a run that finds its name taken."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "time", lambda: 1234.5)
    made = []
    threads = [
        threading.Thread(target=lambda: made.append(envs.make_run_dir(Path("runs"), "a:b/c d", "x", 1)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    name = "a-b-c-d__x__1__1234"
    assert sorted(map(str, made)) == sorted([f"runs/{name}", *(f"runs/{name}-{i}" for i in range(2, 9))])
    flags = ["--env-id", "toy_envs:Toy-v0", *UNEVALUATED, "--total-timesteps", "60"]
    for suffix in ("", "-2"):
        code, out, err = run(tmp_path, *flags, before="import time; time.time = lambda: 77.0")
        assert code == 0 and err == "", err
        assert json.loads(out.splitlines()[-1])["run_dir"] == f"runs/toy_envs-Toy-v0__rpg__1__77{suffix}"


# signals
@pytest.mark.parametrize("frequency", ["0", "40"], ids=["between checkpoints", "at a checkpoint"])
def test_a_signal_in_an_evaluation_loses_nothing(tmp_path, frequency):
    """The run ends at that step, with a checkpoint; the resumed run makes the evaluation up."""
    flags = ["--eval-frequency", "40", "--checkpoint-frequency", frequency, "--env-kwargs", "at=60", "error=signal"]
    code, out, err = run(tmp_path, *FAULTY, *TINY, *flags)
    summary = json.loads(out.splitlines()[-1])
    run_dir = tmp_path / summary["run_dir"]
    assert code == 0 and err == "\nstopping after this step, with a checkpoint; once more: at once\n"
    assert saved_step(run_dir) == summary["global_step"] == 80
    assert [row[:2] for row in eval_rows(run_dir)] == [(40, 0), (40, 1)]
    resume(tmp_path, run_dir, "--total-timesteps", "116", "--eval-frequency", "0")
    assert [row[:2] for row in eval_rows(run_dir)] == [(40, 0), (40, 1), (80, 0), (80, 1)]
    assert [step for step, _ in scalars(run_dir)["eval/episodic_return"]] == [40, 80]


def test_a_signal_in_a_training_step_ends_the_run_after_it(tmp_path):
    flags = [*UNEVALUATED, "--num-envs", "1", "--env-kwargs", "at=60", "error=signal"]  # (of two, the second kills)
    code, out, err = run(tmp_path, *FAULTY, *flags)
    summary = json.loads(out.splitlines()[-1])
    assert code == 0 and err == "\nstopping after this step, with a checkpoint; once more: at once\n"
    assert saved_step(tmp_path / summary["run_dir"]) == summary["global_step"] == 60


def test_the_first_signal_ends_an_endless_evaluation_too(tmp_path):
    """Ctrl-C, SIGTERM and SIGHUP after this step, with a checkpoint, in an environment without a time limit."""
    processes = {}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        cwd = tmp_path / number.name
        cwd.mkdir()
        heard = functools.partial(signal.signal, number, signal.SIG_DFL)  # also if pytest is under nohup
        processes[number] = start(cwd, "--env-id", "toy_envs:Toy/Endless-v0", *TINY, *FOREVER, preexec_fn=heard)
    for number, process in processes.items():
        cwd = tmp_path / number.name
        wait_for(process, lambda: list(cwd.glob("runs/*/checkpoint.pt")))
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(number)
    for number, process in processes.items():
        out, err = process.communicate(timeout=120)
        summary = json.loads(out.splitlines()[-1])
        run_dir = tmp_path / number.name / summary["run_dir"]
        assert process.returncode == 0 and err == (
            "\nstopping after this step, with a checkpoint; once more: at once\n"
        )
        assert saved_step(run_dir) == summary["global_step"] == 200
        assert not (run_dir / "eval.csv").exists() and "eval/episodic_return" not in scalars(run_dir)


def test_ctrl_c_with_workers(tmp_path):
    """To which a terminal sends it too."""
    flags = [*TOY, *FOREVER, "--num-envs", "1", "--async-envs", "--checkpoint-frequency", "0"]
    process = start(tmp_path, *flags, start_new_session=True)
    wait_for(process, lambda: any(scalars(path).get("losses/alpha") for path in tmp_path.glob("runs/*")))
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    summary = json.loads(out.splitlines()[-1])
    assert process.returncode == 0 and "Traceback" not in err
    assert saved_step(tmp_path / summary["run_dir"]) == summary["global_step"] > 0


def test_the_second_signal_ends_a_step_that_hangs(tmp_path):
    """At once, and the newest checkpoint stands."""
    process = start(tmp_path, "--env-id", "toy_envs:ToyHang-v0", *UNEVALUATED)
    wait_for(process, lambda: list(tmp_path.glob("runs/*/checkpoint.pt")))
    (run_dir,) = tmp_path.glob("runs/*")
    time.sleep(1)
    process.terminate()
    time.sleep(0.5)
    assert process.poll() is None
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM and err.count("\n") == 2 and "once more: at once" in err
    assert saved_step(run_dir) == 200
    assert resume(tmp_path, run_dir, "--total-timesteps", "220")[1]["global_step"] == 220


def test_nohup_is_respected():
    """Under it SIGHUP is ignored, and stays so."""
    old = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        stop = envs.Stop()
        stop.listen()
        os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN and not stop.requested
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested and signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


# consoles, memory, threads
def terminal(cwd, *flags, **options):
    """rpg.py on a terminal of its own: (process, the side to read from)."""
    parent, child = pty.openpty()
    process = start(cwd, *flags, stdout=child, stderr=child, **options)
    os.close(child)
    return process, parent


def read_all(descriptor):
    text = b""
    try:
        while chunk := os.read(descriptor, 4096):
            text += chunk
    except OSError:  # the terminal's end, on Linux
        pass
    os.close(descriptor)
    return text


def test_terminals_of_any_encoding(tmp_path):
    """The bar is drawn in UTF-8, and as ? where there is no such character; --help has the groups of Args; python -OO;
    without OMP_NUM_THREADS there is one thread."""
    flags = [*TOY, "--total-timesteps", "200", "--exp-name"]  # (two in one directory)
    runs = {
        "utf-8": terminal(tmp_path, *flags, "one", env={"PYTHONIOENCODING": "utf-8"}),
        "latin-1": terminal(
            tmp_path, *flags, "two", python=["-OO"], env={"PYTHONIOENCODING": "latin-1", "OMP_NUM_THREADS": None}
        ),
    }
    help_ = start(tmp_path, "--help", env={"PYTHONIOENCODING": "cp1252"})
    for encoding, (process, parent) in runs.items():
        text = read_all(parent).decode(encoding).replace("\r\n", "\n")
        assert process.wait() == 0, text
        lines = text.splitlines()
        assert json.loads(lines[-1])["global_step"] == 200
        assert "success_final" in text and "left" in text and "Traceback" not in text
        assert ("█" * 20 if encoding == "utf-8" else "?" * 20) in text
        assert "CPU (1 thread)" in lines[0]
        args = json.loads((tmp_path / json.loads(lines[-1])["run_dir"] / "args.json").read_text())
        assert args["num_threads"] == 1
    out, err = help_.communicate()
    assert help_.returncode == 0 and err == "", err
    headings = re.findall("    # --- (.*)", inspect.getsource(rpg.Args))
    assert re.findall(r"^ *([\w-]+) options *$", out, re.MULTILINE) == [name.replace(" ", "-") for name in headings]
    assert "--hidden-dim INT" in out and "width of all hidden layers" in out


def test_closed_outputs_do_not_end_a_run(tmp_path):
    """Standard output and error closed by the shell, or a reader that has gone: the run ends well."""
    command = f"{sys.executable} {ROOT / 'rpg.py'} {' '.join(TOY)} --exp-name"
    lines = [f"set -o pipefail; {command} gone | head -1", f"{command} closed >&- 2>&-"]
    shells = [
        subprocess.Popen(
            ["bash", "-c", line], cwd=tmp_path, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for line in lines
    ]
    for shell in shells:
        out, err = shell.communicate(timeout=120)
        assert shell.returncode == 0 and err == "", err
        assert out.count("\n") == ("| head" in shell.args[2])
    run_dirs = list(tmp_path.glob("runs/*"))
    assert len(run_dirs) == 2 and all(saved_step(run_dir) == 400 for run_dir in run_dirs)


def test_threads(monkeypatch):
    """--num-threads is 1, unless OMP_NUM_THREADS is set; a typed flag is heard in any case. The Args say what is so."""
    threads = torch.get_num_threads()
    try:
        for typed, omp, flag, expected in ((0, None, 1, 1), (0, "2", 1, 2), (1, "2", 3, 3), (1, None, 3, 3)):
            torch.set_num_threads(2)  # as torch does at its import where OMP_NUM_THREADS says so
            monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
            if omp is not None:
                monkeypatch.setenv("OMP_NUM_THREADS", omp)
            args = rpg.Args(num_threads=flag)
            envs.choose_device(args, {"num_threads"} if typed else set())
            assert torch.get_num_threads() == args.num_threads == expected
        assert rpg.Args().num_threads == 1
    finally:
        torch.set_num_threads(threads)


def test_a_replay_beyond_the_free_memory_is_refused(tmp_path, monkeypatch):
    """Before it is touched, in a line that names both sizes; what fits is fine."""
    monkeypatch.setattr(envs, "free_memory", lambda: 1e6)
    rpg.Replay(10_000, 2, 10, 4, 7, torch.device("cpu"))  # 25 numbers of 4 bytes each
    with pytest.raises(ValueError, match=r"replay of 20,000 transitions takes 2\.0 GB of memory, 1\.0 GB are free"):
        monkeypatch.setattr(envs, "free_memory", lambda: 1e9)
        monkeypatch.setattr(rpg.math, "prod", lambda shape: 500_000_000)
        rpg.Replay(20_000, 2, 10, 4, 7, torch.device("cpu"))
    monkeypatch.undo()
    assert 0 < envs.free_memory() < 1e14


def test_compile_without_a_compiler_is_one_line(tmp_path):
    before = f"import os; os.environ.update(PATH='', CXX='/no/compiler', TORCHINDUCTOR_CACHE_DIR={str(tmp_path)!r})"
    cwd = tmp_path / "run"
    cwd.mkdir()
    code, _, err = run(cwd, *TOY, "--horizon", "1", "--compile", before=before)
    assert code == 1 and "needs g++" in err and is_one_line(err), err


def test_compiling_is_not_in_the_sps(tmp_path):
    """A thousand seconds of what stands for torch.compile do not show in any speed that is logged or printed. On a CPU
    --cudagraphs adds one line and changes nothing."""
    slow = """
import time, torch
clock, ahead, compiled = time.perf_counter, [0], set()
time.perf_counter = lambda: clock() + ahead[0]
def slow_at_first(function, **options):
    def call(*args):
        if function.__name__ not in compiled:
            compiled.add(function.__name__)
            ahead[0] += 1000
        return function(*args)
    return call
torch.compile = slow_at_first
"""
    code, out, err = run(tmp_path, *TOY, "--compile", "--cudagraphs", "--eval-frequency", "40", before=slow)
    assert code == 0 and err == "note: --cudagraphs is for a GPU: off\n", err
    summary = json.loads(out.splitlines()[-1])
    logged = scalars(tmp_path / summary["run_dir"])["charts/SPS"]
    assert summary["global_step"] == 400 and all(value > 5 for _, value in logged)
    assert all(float(speed) > 5 for speed in [summary["sps"], *re.findall(r"(\S+) steps/s", out)])


# flags
@pytest.mark.parametrize(
    "flags, dropped",
    [
        ("--latent none", "--latent-dim"),
        ("--latent categorical --learned-prior --prior-decay-start 100", ""),
        ("--rnd-coef 0 --no-autotune", "--rnd-dim"),
        ("--learned-prior --num-frequencies 0 --horizon 1", ""),
        ("--rnd-buffer-size 100 --beta 0", ""),
    ],
)
def test_every_variant_trains(tmp_path, flags, dropped):
    tiny = list(TINY)
    if dropped:
        del tiny[tiny.index(dropped) : tiny.index(dropped) + 2]
    code, out, err = run(tmp_path, "--env-id", "toy_envs:Toy-v0", *tiny, *flags.split())
    assert code == 0, err
    logged = scalars(tmp_path / json.loads(out.splitlines()[-1])["run_dir"])
    assert all(np.isfinite(value) for key in logged for _, value in logged[key])
    assert ("losses/info_loss" in logged) == ("none" not in flags)
    assert ("losses/rnd_loss" in logged) == ("--rnd-coef" not in flags)
    assert ("losses/prior_loss" in logged) == ("--learned-prior" in flags)
    assert ("losses/alpha_loss" in logged) == ("--no-autotune" not in flags)


def test_the_prior_s_entropy_falls_on_schedule(tmp_path):
    """Rows of losses are means over the updates before them: from step 50 to 200, and to 400."""
    flags = "--latent categorical --learned-prior --prior-decay-start 100 --prior-decay-end 300".split()
    code, out, err = run(tmp_path, *TOY, *flags)
    assert code == 0, err
    rows = scalars(tmp_path / json.loads(out.splitlines()[-1])["run_dir"])["losses/prior_entropy"]
    for (step, entropy), steps in zip(rows, [np.arange(50, 200), np.arange(200, 400)], strict=True):
        target = np.interp(steps, (100, 300), (1, 0)).mean() * np.log(3)
        assert entropy == pytest.approx(target, abs=0.03), step


def test_integers_as_they_are_written(monkeypatch, capsys):
    """2e6 wherever an integer is meant; beyond 2**53 exactly; 1.5 is none."""
    monkeypatch.setattr(sys, "argv", ["rpg.py", *"--total-timesteps 2e6 --seed 9007199254740993 --tau 1e-2".split()])
    args, given = envs.parse_args(rpg.Args, rpg.__doc__, rpg.CHANGEABLE)
    assert (args.total_timesteps, args.seed, args.tau) == (2_000_000, 9007199254740993, 0.01)
    assert type(args.total_timesteps) is int and given == {"total_timesteps", "seed", "tau"}
    monkeypatch.setattr(sys, "argv", ["rpg.py", "--rnd-buffer-size", "1e3", "--buffer-size", "1.5"])
    with pytest.raises(SystemExit) as exit_:
        envs.parse_args(rpg.Args, rpg.__doc__, rpg.CHANGEABLE)
    assert exit_.value.code == 2 and "1.5" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["rpg.py", "--rnd-buffer-size", "1e3"])
    assert envs.parse_args(rpg.Args, rpg.__doc__, rpg.CHANGEABLE)[0].rnd_buffer_size == 1000


def blocks():
    """The code blocks of README.md behind a comment: {comment: code}."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return {name: code for name, code in re.findall(r"<!-- (.*?) -->\n```\w+\n(.*?)```", text, re.DOTALL)}


def test_the_readme_s_own_environment_trains(tmp_path):
    (tmp_path / "mine.py").write_text(blocks()["own environment"])
    flags = ["--env-id", "mine:Mine-v0", *TINY, "--checkpoint-frequency", "0"]
    code, out, err = run(tmp_path, *flags, before=f"import sys; sys.path.append({str(tmp_path)!r})")
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["success_any"] is not None


def test_the_readme_s_trained_policy(finished, tmp_path):
    """The snippet plays an episode with the weights of the run, and what it plays is what the evaluation plays."""
    cwd, run_dir, *_ = finished
    code = blocks()["load policy"]
    assert 0 < code.count("\n") <= 12 and "runs/NAME" in code
    names = {}
    exec(code.replace("runs/NAME", str(run_dir)), names)
    agent = names["agent"]
    assert len(names["summary"]) == 1 and same(dict(agent.state_dict()), torch.load(run_dir / "model.pt"))
    args = dataclasses.replace(agent.args, capture_video=False)
    rows = rpg.evaluate(agent, names["env"], args, envs.Stop(), tmp_path, 0)
    assert rows == [pytest.approx(row[2:]) for row in eval_rows(run_dir)[2:]]
    with pytest.raises(OSError):
        rpg.load_policy(tmp_path)
    (tmp_path / "args.json").write_text('{"depth": 3}')
    with pytest.raises(ValueError):
        rpg.load_policy(tmp_path)


def test_a_fork_does_not_go_on_with_another_script_s_run(finished, tmp_path):
    """Even if it has the same flags and networks: it would train on by another rule. A run of a version that kept no
    copy of its script is taken."""
    _, run_dir, *_ = finished
    mine = tmp_path / "run"
    shutil.copytree(run_dir, mine)
    (mine / "rpg.py").rename(mine / "rpg_fork.py")
    before = {path.name: path.stat().st_mtime_ns for path in mine.iterdir()}
    code, out, err = run(tmp_path, "--resume", mine, "--total-timesteps", 10_000)
    assert code == 2 and out == "" and is_one_line(err) and "a run of rpg_fork.py" in err and "rename" in err
    assert before == {path.name: path.stat().st_mtime_ns for path in mine.iterdir()}
    with pytest.raises(ValueError, match="a run of rpg_fork.py"):
        rpg.load_policy(mine)
    (mine / "rpg_fork.py").unlink()
    rpg.load_policy(mine)


@pytest.mark.parametrize("script", sorted(path.name for path in ROOT.glob("*.py")))
def test_the_scripts_headers_are_the_requirements(script):
    """PEP 723: `uv run` installs the versions of requirements.txt, all of them but those of tests, of benchmark/ and,
    where a script draws none, of figures; the bandit needs no simulators."""
    text = (ROOT / script).read_text(encoding="utf-8")
    if not text.startswith("# /// script\n"):
        pytest.skip("has no header")
    header, body = text.split("# ///\n", 1)
    listed = re.findall(r'^#     "(.*)",$', header, re.MULTILINE)
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    required = [line.split("#")[0].strip() for line in lines if not re.match("#|pytest|ruff|scipy|submitit", line)]
    if "matplotlib" not in body:
        required = [line for line in required if not line.startswith("matplotlib")]
    if script == "rpg_bandit.py":
        required = [line for line in required if not re.match("mujoco|metaworld|gymnasium-robotics|imageio", line)]
    assert sorted(listed) == sorted(required)
    assert '# requires-python = ">=3.10,<3.14"' in header


def test_metaworld_smoke(tmp_path):
    flags = [*TINY, "--checkpoint-frequency", "0", "--total-timesteps", "450", "--eval-episodes", "1"]
    code, out, err = run(tmp_path, "--env-id", "metaworld-basketball", "--env-options", "fixed-ball", *flags)
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["success_final"] == 0.0


@pytest.mark.parametrize(
    "flags, says",
    [
        (["--env-id", "HalfChetah-v5"], "HalfCheetah-v5"),
        (["--env-id", "metaworld-basketbal"], "metaworld-basketball"),
        (["--env-id", "CartPole-v1"], "discrete"),
        (["--env-id", "toy_envs:Toy-v0", "--env-options", "fixed-ball"], "fixed-ball"),
        (["--env-id", "toy_envs:ToyObjectBig-v0"], "object_dim"),
        (["--env-id", "toy_envs:Toy-v0", "--env-kwargs", "wings=2"], "wings"),
        (["--env-id", "Pendulum-v1", "--num-frequencies", "3"], "--num-frequencies"),
        (["--seed", "9223372036854775808"], "--seed 9223372036854775808: must be below 2**63"),
        (["--resume", ""], "--resume"),
        (["--env-id", "Pendulum-v1", "--buffer-size", "1e15"], "a replay of 1,000,000,000,000,000 transitions takes"),
        (["--env-id", "Pendulum-v1", "--hidden-dim", "6000000"], "memory"),
        (["--horizon", "0"], "--horizon 0"),
        (["--num-threads", "100000"], "--num-threads 100000: this machine has"),
        (["--num-frequencies", "129"], "--num-frequencies 129: must be at most 20"),
        (["--latent", "categorical", "--latent-dim", "1"], "needs at least 2"),
        (["--latent", "none", "--latent-dim", "6"], "--latent-dim"),
        (["--batch-size", "4096"], "--learning-starts"),
        (["--resume", "nowhere"], "nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_creates_nothing(tmp_path, flags, says):
    code, _, err = run(tmp_path, *flags)
    assert code == 2 and says in err and is_one_line(err), err
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(find_spec("wandb") is not None, reason="wandb is installed")
def test_track_names_the_package_it_needs(tmp_path):
    code, _, err = run(tmp_path, "--track")
    assert code == 2 and "pip install wandb" in err and is_one_line(err)
    assert not list(tmp_path.iterdir())


def test_a_run_without_an_update_says_so(tmp_path):
    code, _, err = run(tmp_path, *TOY, "--total-timesteps", "50")
    assert code == 0 and "no update: --learning-starts 50 of 50 steps" in err and is_one_line(err), err


def test_track_mirrors_the_run(tmp_path):
    """With what stands for the package: the run's name and flags, before TensorBoard's writer is made."""
    before = """
import sys, types, importlib.machinery, torch.utils.tensorboard as tensorboard
wandb = types.ModuleType("wandb")
wandb.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
wandb.init = lambda project, name, sync_tensorboard, **_: print("wandb", project, name, sync_tensorboard)
sys.modules["wandb"] = wandb
writer = tensorboard.SummaryWriter
tensorboard.SummaryWriter = lambda *args, **kwargs: print("writer") or writer(*args, **kwargs)
"""
    flags = ["--env-id", "toy_envs:Toy-v0", *UNEVALUATED, "--total-timesteps", "60"]
    code, out, err = run(tmp_path, *flags, "--track", before=before)
    assert code == 0 and err == "", err
    (run_dir,) = tmp_path.glob("runs/*")
    assert f"wandb rpg {run_dir.name} True\nwriter\n" in out


def test_bad_resume_is_one_line_and_changes_nothing(finished):
    cwd, run_dir, *_ = finished
    for flags, says in (
        (["--hidden-dim", "32"], "--hidden-dim 32: the run in {} was started with --hidden-dim 16 and keeps it"),
        (["--seed", "9"], "--seed 9: the run in {} was started with --seed 1 and keeps it"),
        (["--no-autotune"], "--no-autotune: the run in {} was started with --autotune and keeps it"),
    ):
        code, _, err = run(cwd, "--resume", run_dir, *flags)
        assert code == 2 and says.format(run_dir) in err and is_one_line(err), err
    code, _, err = run(cwd, "--resume", run_dir / "checkpoint.pt")
    assert code == 2 and f"give its directory, {run_dir}\n" in err and is_one_line(err), err
    broken = cwd / "broken"
    broken.mkdir()
    args = json.loads((run_dir / "args.json").read_text())
    good = (run_dir / "checkpoint.pt").read_bytes()
    for changes, content, says in (
        ({"hidden_dim": 32}, good, "another shape"),
        ({"num_envs": 3}, good, "another shape"),
        ({}, good[:-2000], "damaged"),
        ({}, None, "no checkpoint yet"),
        ({"depth": 3}, good, "not the directory of a run"),
    ):
        (broken / "args.json").write_text(json.dumps(args | changes))
        (broken / "checkpoint.pt").unlink(missing_ok=True)
        if content is not None:
            (broken / "checkpoint.pt").write_bytes(content)
        before = sorted(path.name for path in broken.iterdir())
        code, _, err = run(cwd, "--resume", broken)
        assert code == 2 and says in err and is_one_line(err), err
        assert sorted(path.name for path in broken.iterdir()) == before


def test_unwritable_directory_is_one_line(tmp_path):
    (tmp_path / "runs").write_text("a file")
    code, _, err = run(tmp_path, *TOY)
    assert code == 2 and "runs" in err and is_one_line(err)


def test_cuda_without_a_gpu_is_a_warning(tmp_path):
    code, _, err = run(tmp_path, *TOY, "--total-timesteps", "100", "--cuda")
    assert code == 0 and "no GPU" in err and is_one_line(err)


def test_a_thousand_updates_learn(tmp_path):
    """The success of a dense toy task rises well above that of the first policy."""
    flags = (
        "--hidden-dim 32 --state-dim 16 --batch-size 64 --latent-dim 2 --num-envs 2 --horizon 2 --rnd-coef 0 "
        "--tau 0.02 --learning-rate 3e-3 --reward-scale 20 --consistency-coef 10 --eval-frequency 0 "
        "--learning-starts 100 --total-timesteps 2400"
    ).split()
    code, out, err = run(tmp_path, "--env-id", "toy_envs:ToyDense-v0", *flags)
    assert code == 0, err
    summary = json.loads(out.splitlines()[-1])
    logged = scalars(tmp_path / summary["run_dir"])
    before = np.mean([value for step, value in logged["charts/success_final"] if step <= 400])
    assert summary["success_final"] > max(0.8, before + 0.3)


@pytest.mark.parametrize(
    "edit, says",
    [
        (
            ("    # --- speed", "    action_penalty: float = 0.0  # of a fork\n    # --- speed"),
            "no line reads args.action_penalty",
        ),
        (
            (
                "    # --- speed",
                "    action_penalty: float = 0.0  # of a fork: less args.action_penalty\n    # --- speed",
            ),
            "no line reads args.action_penalty",
        ),
        (
            ("    # --- speed", "    reward_power: float = 1.0  # of a fork\n    # --- speed"),
            "no line reads args.reward_power",
        ),
        (('POSITIVE = {"num_threads"', 'POSITIVE = {"num_thread"'), "'num_thread' is in a list of flags"),
    ],
)
def test_a_fork_s_slip_with_flags_is_one_line(tmp_path, edit, says):
    """A flag that nothing reads, not even where a comment names it or it is only checked, and a list of flags with a
    name that is none."""
    text = (ROOT / "rpg.py").read_text()
    assert edit[0] in text
    checked = '    """Refuse impossible values'
    assert checked in text
    text = text.replace(checked, "    args.reward_power\n" + checked)
    (tmp_path / "fork.py").write_text(text.replace(*edit))
    command = [sys.executable, tmp_path / "fork.py", "--env-id", "toy_envs:Toy-v0"]
    env = ENV | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2 and says in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not list(tmp_path.glob("runs"))


def test_a_flag_that_begins_with_no(tmp_path):
    """--no-bonus of a fork is its own flag, not the opposite of --bonus."""
    script = """
import dataclasses, sys, envs
@dataclasses.dataclass
class Args:
    no_bonus: bool = False  # a flag
    bonus_scale: float = 1.0  # another
    tune: bool = True  # a third
args, given = envs.parse_args(Args, "A script.")
print(args.no_bonus, args.bonus_scale, args.tune, sorted(given))
"""
    (tmp_path / "script.py").write_text(script)
    command = [sys.executable, tmp_path / "script.py", "--no-bonus", "--no-tune"]
    done = subprocess.run(command, env=ENV | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=100)
    assert done.stdout == "True 1.0 False ['no_bonus', 'tune']\n", done.stderr


# what foreign code does to its process
FOREIGN = [*UNEVALUATED, "--num-envs", "2", "--checkpoint-frequency", "100", "--total-timesteps", "200"]


def test_an_action_is_stored_as_it_was_taken(tmp_path):
    """Although the environment writes into it."""
    code, out, err = run(tmp_path, "--env-id", "toy_envs:ToyInPlace-v0", *FOREIGN)
    assert code == 0, err
    saved = torch.load(tmp_path / json.loads(out.splitlines()[-1])["run_dir"] / "checkpoint.pt")["replay"]["data"]
    assert not (saved[..., 2] - 0.123).abs().le(1e-6).any() and saved[..., 2].std() > 0.1


@pytest.mark.parametrize("env_id", ["ToyForks", "ToyChangesDirectory"])
def test_foreign_code_forks_and_changes_the_directory(tmp_path, env_id):
    """Its helper processes end when they are told to, hold no lock, and the run's files stay where they were."""
    command = [sys.executable, ROOT / "rpg.py", "--env-id", f"toy_envs:{env_id}-v0", *FOREIGN]
    done = subprocess.run(command, cwd=tmp_path, env=ENV, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "stopping" not in done.stderr, done.stderr
    run_dir = tmp_path / json.loads(done.stdout.splitlines()[-1])["run_dir"]
    assert saved_step(run_dir) == 200
    _, summary = resume(tmp_path, run_dir, "--total-timesteps", "240")
    assert summary["global_step"] == 240


def test_foreign_code_draws_from_torch_s_generator(tmp_path):
    """A resumed run is the uninterrupted one still, with evaluations in between."""
    flags = ["--env-id", "toy_envs:ToyDrawsFromTorch-v0", *FOREIGN, "--eval-frequency", "50", "--eval-episodes", "1"]
    code, out, err = run(tmp_path, *flags, "--exp-name", "whole")
    assert code == 0, err
    whole = tmp_path / json.loads(out.splitlines()[-1])["run_dir"]
    _, out, _ = run(tmp_path, *flags, "--exp-name", "halves", "--total-timesteps", "100")
    halves = tmp_path / json.loads(out.splitlines()[-1])["run_dir"]
    resume(tmp_path, halves, "--total-timesteps", "200")
    a, b = (torch.load(run_dir / "checkpoint.pt") for run_dir in (whole, halves))
    assert same(a["agent"], b["agent"]) and same(a["replay"], b["replay"])


def test_foreign_code_exits_or_takes_ctrl_c(tmp_path):
    code, out, err = run(tmp_path, "--env-id", "toy_envs:ToyExits-v0", *FOREIGN)
    assert code == 2 and "sys.exit" in err and err.count("\n") == 1 and not out
    code, _, err = run(tmp_path, "--env-id", "toy_envs:ToyInterrupts-v0", *FOREIGN)
    (run_dir,) = tmp_path.glob("runs/*")
    assert code != 0 and saved_step(run_dir) > 100, err


def test_under_a_profiler(tmp_path):
    command = [
        sys.executable,
        "-m",
        "cProfile",
        "-o",
        "profile",
        ROOT / "rpg.py",
        "--env-id",
        "toy_envs:Toy-v0",
        *FOREIGN,
    ]
    done = subprocess.run(command, cwd=tmp_path, env=ENV, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and json.loads(done.stdout.splitlines()[-1])["global_step"] == 200, done.stderr

"""Nothing ends a run for good: kill -9, damaged files, a full disk, workers that die or hang, a simulator's nan."""

import dataclasses
import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, run_script
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

sys.path.insert(0, str(ROOT / "benchmark"))
import fuzz  # noqa: E402
import torture  # noqa: E402

import envs  # noqa: E402
import rpg  # noqa: E402

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
TINY = (
    "--hidden-dim 16 --state-dim 8 --rnd-dim 16 --batch-size 16 --learning-starts 50 --latent-dim 3 --num-envs 2 "
    "--eval-frequency 0 --checkpoint-frequency 80 --total-timesteps 400"
).split()


@pytest.mark.parametrize("async_envs", [False, True])
def test_kill_9_loses_at_most_one_interval(tmp_path, async_envs):
    figures = torture.torture(tmp_path, kills=1 if async_envs else 2, async_envs=async_envs, seed=2)
    assert figures["while_writing"] > 0 and figures["lost_max"] <= 204


def test_damaged_checkpoints_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "rpg", lambda *call: run_script(call[0], "rpg.py", *call[1:])[::2])  # a fork is faster
    wanted = ["no agent", "a weight of another shape", "a ring of one environment", "code", "a flipped bit"]
    figures = fuzz.fuzz(tmp_path, cases=60, wanted=wanted)
    assert figures["refused"] + figures.get("harmless", 0) == 60 and figures["refused"] > 50


def start(cwd, *flags):
    """rpg.py in a process of its own, whose workers may take 2 s for a step."""
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "tests"),
        "OMP_NUM_THREADS": "1",
        "TORTURE": str(cwd),
        "RPG_WORKER_TIMEOUT": "2",
    }
    command = [sys.executable, str(ROOT / "rpg.py"), *map(str, flags)]
    return subprocess.Popen(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ends_in_order(cwd, process, says):
    """One clear line, exit code 1, and no process left; returns the line."""
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1 and err.count("\n") == 1 and says in err, err
    torture.wait_for_workers(str(cwd))  # multiprocessing's own helper ends a moment later
    assert not torture.processes(str(cwd))
    return err


def goes_on(cwd, run_dir):
    """The newest checkpoint is intact, the log has all episodes up to it, --resume accepts it; returns its step."""
    shutil.copytree(run_dir, cwd / "copy")
    step, _, episodes, _, _ = rpg.read_checkpoint(cwd / "copy")["progress"]
    points = EventAccumulator(str(run_dir), size_guidance={"scalars": 0}).Reload().Scalars("charts/episodic_return")
    assert sum(point.step <= step for point in points) == episodes / 2  # both environments end together
    code, _, err = run_script(cwd, "rpg.py", "--resume", run_dir, "--total-timesteps", step + 40, "--no-async-envs")
    assert code == 0 and not err, err
    assert not list(run_dir.glob("*.new"))
    return step


def test_worker_that_dies(tmp_path):
    """In the 60th step of its environment: what came before it is saved."""
    process = start(tmp_path, "--env-id", "toy_envs:ToyExit-v0", *TINY, "--async-envs")
    assert "at step 120;" in ends_in_order(tmp_path, process, "worker process 0 died")
    (run_dir,) = tmp_path.glob("runs/*")
    assert goes_on(tmp_path, run_dir) == 120


def test_a_full_disk_leaves_no_half_file(tmp_path):
    """Nor the second error that torch's writer of zips raises when it closes after the first."""

    class Full(io.RawIOBase):
        def writable(self):
            return True

        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "model.pt"
    path.write_text("old")
    with pytest.raises(OSError, match="No space left"):
        envs.replace_file(path, lambda file: torch.save(torch.zeros(3), Full()))
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "name, value",
    [("latent", "gausian"), ("autotune", 0), ("gamma", "0.99"), ("horizon", 3.0), ("env_options", "fixed-ball")]
    + [("env_kwargs", [1]), ("num_envs", True), ("env_id", None), ("rnd_buffer_size", "all")],
)
def test_flags_of_another_type_are_refused(tmp_path, name, value):
    saved = dataclasses.asdict(rpg.Args())
    (tmp_path / "args.json").write_text(json.dumps(saved | {"rnd_buffer_size": 7, "gamma": 1}))
    assert envs.load_args(tmp_path, rpg.Args).rnd_buffer_size == 7
    (tmp_path / "args.json").write_text(json.dumps(saved | {name: value}))
    with pytest.raises(ValueError, match=name):
        envs.load_args(tmp_path, rpg.Args)


def test_runs_is_no_directory(tmp_path):
    for runs in (tmp_path / "file", tmp_path / "link"):
        (runs.write_text if runs.name == "file" else runs.symlink_to)("nowhere")
        with pytest.raises(OSError, match="no directory"):
            envs.make_run_dir(runs, "e", "x", 1)


def test_nan_in_the_first_observation(tmp_path):
    process = start(tmp_path, "--env-id", "toy_envs:ToyNaNReset-v0", *TINY, "--async-envs")
    assert "at step 0; --resume" in ends_in_order(tmp_path, process, "observation")
    code, _, err = run_script(tmp_path, "rpg.py", "--env-id", "toy_envs:ToyNaNReset-v0", *TINY)
    assert code == 1 and "at step 0; --resume" in err and "observation" in err and err.count("\n") == 1
    assert not list(tmp_path.glob("runs/*/checkpoint.pt"))


def test_worker_that_is_stopped(tmp_path):
    """It gives no answer, and only SIGKILL ends it."""
    flags = ["--env-id", "toy_envs:Toy-v0", *TINY, "--async-envs", "--total-timesteps", "1000000"]
    process = start(tmp_path, *flags)
    while not list(tmp_path.glob("runs/*/checkpoint.pt")):
        assert process.poll() is None
        time.sleep(0.05)
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in torture.processes(str(tmp_path))}
    workers = sorted(pid for pid, command in commands.items() if b"spawn_main" in command)
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGSTOP)
    ends_in_order(tmp_path, process, "worker process 1 gave no answer in 2 s")
    (run_dir,) = tmp_path.glob("runs/*")
    goes_on(tmp_path, run_dir)


@pytest.mark.parametrize("limit", [100_000, 3000], ids=["in the checkpoint", "in the log"])
def test_full_disk(tmp_path, limit):
    code, _, err = run_script(tmp_path, "rpg.py", "--env-id", "toy_envs:Toy-v0", *TINY)
    assert code == 0 and not err, err
    (run_dir,) = tmp_path.glob("runs/*")
    full = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"  # of each file
    code, _, err = run_script(tmp_path, "rpg.py", "--resume", run_dir, "--total-timesteps", "8000", before=full)
    assert code == 1 and err.count("\n") == 1 and "File too large" in err, err
    assert goes_on(tmp_path, run_dir) == 400


def test_directory_that_goes_away(tmp_path):
    process = start(tmp_path, "--env-id", "toy_envs:Toy-v0", *TINY, "--total-timesteps", "1000000")
    while not list(tmp_path.glob("runs/*/checkpoint.pt")):
        assert process.poll() is None
        time.sleep(0.05)
    (run_dir,) = tmp_path.glob("runs/*")
    away = run_dir.rename(tmp_path / "away")
    run_dir.write_text("not a directory any more")
    ends_in_order(tmp_path, process, "Not a directory")
    goes_on(tmp_path, away)

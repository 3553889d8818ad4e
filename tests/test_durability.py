"""Nothing ends a run for good: kill -9, damaged files, a full disk, workers that die or hang, a simulator's nan."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, run_script
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

sys.path.insert(0, str(ROOT / "benchmark"))
import fuzz  # noqa: E402
import torture  # noqa: E402

import rpg  # noqa: E402

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
TINY = (
    "--hidden-dim 16 --state-dim 8 --rnd-dim 16 --batch-size 16 --learning-starts 50 --latent-dim 3 --num-envs 2 "
    "--eval-frequency 0 --checkpoint-frequency 80 --total-timesteps 400"
).split()


@pytest.mark.parametrize("async_envs", [False, True])
def test_kill_9_loses_at_most_one_interval(tmp_path, async_envs):
    figures = torture.torture(tmp_path, kills=2 if async_envs else 3, async_envs=async_envs, seed=2)
    assert figures["while_writing"] > 0 and figures["lost_max"] <= 204


def test_damaged_checkpoints_are_refused(tmp_path):
    wanted = ["no agent", "a weight of another shape", "a ring of one environment", "code", "a flipped bit"]
    figures = fuzz.fuzz(tmp_path, cases=60, wanted=wanted)
    assert figures["refused"] + figures.get("harmless", 0) == 60 and figures["refused"] > 50


def start(cwd, *flags, limit=None, timeout="60"):
    """rpg.py in a process of its own, which can write no file of more than `limit` bytes."""
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "tests"),
        "OMP_NUM_THREADS": "1",
        "TORTURE": str(cwd),
        "RPG_WORKER_TIMEOUT": timeout,
    }
    command = [sys.executable, str(ROOT / "rpg.py"), *map(str, flags)]
    full = limit and (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    return subprocess.Popen(
        command, cwd=cwd, env=env, preexec_fn=full, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ends_in_order(cwd, process, says):
    """One clear line, exit code 1, and no process left; returns the line."""
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1 and err.count("\n") == 1 and says in err, err
    time.sleep(0.2)  # for multiprocessing's own helper
    assert not torture.processes(str(cwd))
    return err


def goes_on(cwd, run_dir):
    """The newest checkpoint is intact, the log has all episodes up to it, --resume accepts it; returns its step."""
    shutil.copytree(run_dir, cwd / "copy")
    step, _, episodes, _, _ = rpg.read_checkpoint(cwd / "copy")["progress"]
    points = EventAccumulator(str(run_dir), size_guidance={"scalars": 0}).Reload().Scalars("charts/episodic_return")
    assert sum(point.step <= step for point in points) == episodes / 2  # both environments end together
    code, _, err = run_script(cwd, "rpg.py", "--resume", run_dir, "--total-timesteps", step + 40)
    assert code == 0 and not err, err
    assert not list(run_dir.glob("*.new"))
    return step


@pytest.mark.parametrize(
    "env_id, flags, says",
    [
        ("ToyExit-v0", ["--async-envs"], "died"),
        ("ToyHang-v0", ["--async-envs"], "worker process 0 gave no answer in 2 s"),
        ("ToyNaN-v0", ["--async-envs"], "observation"),
    ],
)
def test_failing_simulators(tmp_path, env_id, flags, says):
    err = ends_in_order(tmp_path, start(tmp_path, "--env-id", f"toy_envs:{env_id}", *TINY, *flags, timeout="2"), says)
    (run_dir,) = tmp_path.glob("runs/*")
    if env_id == "ToyNaN-v0":  # in the 40th step of each environment, so that the first checkpoint is never written
        assert "at step 78;" in err and not (run_dir / "checkpoint.pt").exists()
    else:  # in the 60th
        assert "at step 120;" in err and goes_on(tmp_path, run_dir) == 80


@pytest.mark.parametrize("flags", [[], ["--async-envs"]], ids=" ".join)
def test_nan_in_the_first_observation(tmp_path, flags):
    process = start(tmp_path, "--env-id", "toy_envs:ToyNaNReset-v0", *TINY, *flags)
    assert "at step 0; --resume" in ends_in_order(tmp_path, process, "observation")
    assert not list(tmp_path.glob("runs/*/checkpoint.pt"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_killed_and_stopped_workers(tmp_path, number):
    process = start(
        tmp_path, "--env-id", "toy_envs:Toy-v0", *TINY, "--async-envs", "--total-timesteps", "1000000", timeout="2"
    )
    while not list(tmp_path.glob("runs/*/model.pt")):
        assert process.poll() is None
        time.sleep(0.05)
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in torture.processes(str(tmp_path))}
    workers = sorted(pid for pid, command in commands.items() if b"spawn_main" in command)
    assert len(workers) == 2
    os.kill(workers[1], number)
    ends_in_order(tmp_path, process, "worker process 1 " + ("died" if number == signal.SIGKILL else "gave"))
    (run_dir,) = tmp_path.glob("runs/*")
    goes_on(tmp_path, run_dir)


@pytest.mark.parametrize("limit", [100_000, 3000], ids=["in the checkpoint", "in the log"])
def test_full_disk(tmp_path, limit):
    code, _, err = run_script(tmp_path, "rpg.py", "--env-id", "toy_envs:Toy-v0", *TINY)
    assert code == 0 and not err, err
    (run_dir,) = tmp_path.glob("runs/*")
    process = start(tmp_path, "--resume", run_dir, "--total-timesteps", "8000", limit=limit)
    ends_in_order(tmp_path, process, "File too large")
    assert goes_on(tmp_path, run_dir) == 400


def test_directory_that_goes_away(tmp_path):
    process = start(tmp_path, "--env-id", "toy_envs:Toy-v0", *TINY, "--total-timesteps", "1000000")
    while not list(tmp_path.glob("runs/*/model.pt")):
        assert process.poll() is None
        time.sleep(0.05)
    (run_dir,) = tmp_path.glob("runs/*")
    away = run_dir.rename(tmp_path / "away")
    run_dir.write_text("not a directory any more")
    ends_in_order(tmp_path, process, "Not a directory")
    goes_on(tmp_path, away)

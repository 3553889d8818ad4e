"""Kill a run 50 times with kill -9, a third of them while it writes a checkpoint, and resume it each time.

    OMP_NUM_THREADS=1 python benchmark/torture.py                 # 5 minutes on idle cores
    OMP_NUM_THREADS=1 python benchmark/torture.py --async-envs    # with worker processes: 10

One line a kill, one JSON line at the end; exit code 1 if anything is wrong. What is checked: after every kill, that no
process of the run is left, that the newest checkpoint can be read and is not older than the one before, and that no
more than one checkpoint interval was lost; at the end, that the run finishes and that its log and its evaluations are
complete, in order, without a row twice, and that no temporary file is left.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
import rpg  # noqa: E402

EVERY, NUM_ENVS, EVAL_EPISODES = 200, 4, 2
FLAGS = (
    f"--env-id toy_envs:ToyCounted-v0 --hidden-dim 64 --state-dim 8 --rnd-dim 64 --batch-size 16 --latent-dim 3 "
    f"--learning-starts 50 --num-envs {NUM_ENVS} --eval-episodes {EVAL_EPISODES} --eval-frequency {EVERY} "
    f"--checkpoint-frequency {EVERY} --total-timesteps 1000000"
).split()


def processes(token):
    """Ids of the living processes that inherited the environment variable TORTURE=token."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            state = (path / "stat").read_text().rpartition(")")[2].split()[0]
            if f"TORTURE={token}".encode() in (path / "environ").read_bytes().split(b"\0") and state != "Z":
                found.append(int(path.name))
        except OSError:  # it has ended meanwhile, or is another user's
            pass
    return found


def start(cwd, steps, token, flags):
    """rpg.py in a process of its own; its standard error goes to a file, to be shown if it fails."""
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "tests"),
        "OMP_NUM_THREADS": "1",
        "TOY_STEPS": str(steps),
        "TORTURE": token,
    }
    command = [sys.executable, str(ROOT / "rpg.py"), *map(str, flags)]
    with open(cwd / "stderr", "wb") as err, open(cwd / "stdout", "wb") as out:
        return subprocess.Popen(command, cwd=cwd, env=env, stdout=out, stderr=err)


def saved_step(cwd, run_dir):
    """Step of the newest checkpoint as rpg.py will find it; on a copy, so that rpg.py does its own repairs."""
    copy = cwd / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run_dir, copy)
    return rpg.read_checkpoint(copy, "cpu")[0]["progress"][0]


def wait_and_kill(process, how, steps, seen, run_dir, rng):
    """Kill the run `how`; returns the .new files that were there then. `seen`: size of the file `steps` at its start."""
    deadline = time.monotonic() + 300
    pause = rng.uniform(0.0, 4.0) if how == "starting" else 0.0
    if how != "starting":
        while steps.stat().st_size == seen:  # until it steps
            assert process.poll() is None and time.monotonic() < deadline, "it ends, or does not start"
            time.sleep(0.005)
        pause = rng.uniform(0.0, 2.0)
    time.sleep(pause)
    if how == "writing":
        while process.poll() is None and time.monotonic() < deadline and not any(run_dir.glob("*.pt.new")):
            time.sleep(0.0002)
        time.sleep(rng.choice([0.0, rng.uniform(0.0, 0.03)]))
    assert process.poll() is None, "the run ended by itself"
    process.kill()
    process.wait()
    return sorted(path.name for path in run_dir.glob("*.new"))


def torture(cwd, kills=50, async_envs=False, seed=1, show=print):
    """Do all that; returns a dict of figures. AssertionError: what is wrong."""
    rng, token, steps = random.Random(seed), f"{os.getpid()}-{time.time()}", cwd / "steps"
    steps.write_bytes(b"")
    process = start(cwd, steps, token, FLAGS + ["--async-envs"] * async_envs)
    try:
        while not list(cwd.glob("runs/*/checkpoint.pt")):  # before its first checkpoint there is nothing to resume
            assert process.poll() is None, (cwd / "stderr").read_text()
            time.sleep(0.01)
        (run_dir,) = cwd.glob("runs/*")
        saved, begun, seen, lost, hit, delays = 0, 0, 0, [], 0, []
        for kill in range(kills):
            how = "writing" if kill % 3 == 0 else "starting" if kill % 10 == 5 else "any time"
            new = wait_and_kill(process, how, steps, seen, run_dir, rng)
            killed = time.monotonic()
            while processes(token):  # workers that are still importing notice only when they are done with it
                assert time.monotonic() < killed + 30, f"processes {processes(token)} outlive the run"
                time.sleep(0.02)
            delays.append(time.monotonic() - killed)
            reached = begun + steps.stat().st_size - seen
            before, saved = saved, saved_step(cwd, run_dir)
            lost.append(reached - saved)
            hit += bool(new)
            show(f"kill {kill + 1} ({how}): reached step {reached}, saved {saved}, lost {lost[-1]}; {' '.join(new)}")
            assert saved >= before, f"the checkpoint went back from step {before} to {saved}"
            assert lost[-1] <= EVERY + NUM_ENVS, f"{lost[-1]} steps lost"
            begun, seen = saved, steps.stat().st_size
            final = (saved // EVERY + 3) * EVERY
            process = start(
                cwd, steps, token, ["--resume", run_dir] + (kill == kills - 1) * ["--total-timesteps", final]
            )
        code, err = process.wait(300), (cwd / "stderr").read_text()
        assert code == 0, err
    finally:
        process.kill(), process.wait()
    assert not processes(token), "processes outlive the finished run"
    summary = json.loads((cwd / "stdout").read_text().splitlines()[-1])
    check_log(run_dir, summary, final)
    return {
        "kills": kills,
        "while_writing": hit,
        "lost_max": max(lost),
        "lost_mean": sum(lost) / kills,
        "interval": EVERY,
        "workers_gone_s": round(max(delays), 2),
        "final_step": summary["global_step"],
        "episodes": summary["episodes"],
    }


def check_log(run_dir, summary, final):
    """Every interval has one row of the log and EVAL_EPISODES of eval.csv, every episode one point."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0}).Reload()
    intervals = list(range(1, final // EVERY + 1))
    for key in ("charts/SPS", "eval/episodic_return", "losses/values"):
        logged = [event.step for event in events.Scalars(key)]
        assert logged == sorted(logged) and [step // EVERY for step in logged] == intervals, f"{key}: {logged}"
    ends = [event.step for event in events.Scalars("charts/episodic_return")]
    assert ends == sorted(ends) and len(ends) == summary["episodes"], f"{len(ends)} of {summary['episodes']} episodes"
    rows = [row.split(",") for row in (run_dir / "eval.csv").read_text().splitlines()[1:]]
    rows = [(int(step) // EVERY, int(episode)) for step, episode, *_ in rows]
    assert rows == [(i, episode) for i in intervals for episode in range(EVAL_EPISODES)], f"eval.csv: {rows}"
    assert not list(run_dir.glob("*.new")), f"left: {list(run_dir.glob('*.new'))}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--async-envs", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            figures, code = torture(Path(folder), args.kills, args.async_envs, args.seed), 0
        except AssertionError as error:
            figures, code = {"wrong": str(error)}, 1
    print(json.dumps(figures))
    sys.exit(code)

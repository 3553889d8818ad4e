"""Kill a run 50 times with kill -9, a third of them while it writes a checkpoint, and resume it each time.

    python benchmark/torture.py                 # 5 minutes on idle cores
    python benchmark/torture.py --async-envs    # with worker processes: 10

One line a kill, one JSON line at the end; exit code 1 if anything is wrong. What is checked: after every kill, that no
process of the run is left, that the newest checkpoint can be read and is not older than the one before, and that no
more than one checkpoint interval was lost; at the end, that the run finishes and that its log and its evaluations are
complete, in order, without a row twice, and that no temporary file is left.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from envs import command_line, read_checkpoint, refuse  # noqa: E402

EVERY = 200  # environment steps between checkpoints, evaluations and rows of the log
NUM_ENVS = 4
EVAL_EPISODES = 2
SECONDS = 300  # for whatever is waited for
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
        "TOY_STEPS": str(steps),
        "TORTURE": token,
    }
    command = [sys.executable, str(ROOT / "rpg.py"), *map(str, flags)]
    with open(cwd / "stderr", "wb") as err, open(cwd / "stdout", "wb") as out:
        return subprocess.Popen(command, cwd=cwd, env=env, stdout=out, stderr=err)


def saved_step(run_dir):
    """Environment step of the newest checkpoint, as rpg.py will find it; reading changes nothing."""
    return read_checkpoint(run_dir)["progress"][0]


def being_written(run_dir, started):
    """Names of the .new files that were written since the time `started`; older ones are left of an earlier kill."""
    found = []
    for path in sorted(run_dir.glob("*.new")):
        try:
            if path.stat().st_mtime > started:
                found.append(path.name)
        except FileNotFoundError:  # it has just got its name
            pass
    return found


def wait_and_kill(process, how, steps, seen, run_dir, rng):
    """Kill the run `how`; returns the .new files that it was writing then. `seen`: bytes of the file `steps` at the
    run's start."""
    started = time.time()
    deadline = time.monotonic() + SECONDS
    if how == "starting":
        time.sleep(rng.uniform(0.0, 4.0))
    else:
        while steps.stat().st_size == seen:  # until it steps
            assert process.poll() is None and time.monotonic() < deadline, "it ends, or does not start"
            time.sleep(0.005)
        time.sleep(rng.uniform(0.0, 2.0))
    if how == "writing":
        while process.poll() is None and time.monotonic() < deadline and not being_written(run_dir, started):
            time.sleep(0.0002)
        time.sleep(rng.choice([0.0, rng.uniform(0.0, 0.03)]))
    assert process.poll() is None, "the run ended by itself"
    process.kill()
    process.wait()
    return being_written(run_dir, started)


def wait_for_workers(token):
    """Seconds until none of the killed run's processes is left: workers that are still importing notice only when they
    are done with it."""
    killed = time.monotonic()
    while processes(token):
        assert time.monotonic() < killed + 30, f"processes {processes(token)} outlive the run"
        time.sleep(0.02)
    return time.monotonic() - killed


def torture(cwd, kills=50, async_envs=False, seed=1, show=print):
    """Do all that; returns a dict of figures. AssertionError: what is wrong."""
    rng = random.Random(seed)
    token = f"{os.getpid()}-{time.time()}"
    steps = cwd / "steps"  # a byte a step
    steps.write_bytes(b"")
    flags = FLAGS
    if async_envs:
        flags = [*FLAGS, "--async-envs"]
    process = start(cwd, steps, token, flags)
    try:
        while not list(cwd.glob("runs/*/checkpoint.pt")):  # before its first checkpoint there is nothing to resume
            assert process.poll() is None, (cwd / "stderr").read_text()
            time.sleep(0.01)
        (run_dir,) = cwd.glob("runs/*")
        saved, begun, seen = 0, 0, 0  # steps: in the checkpoint, at the start of this process; bytes of `steps` then
        lost, delays, hit = [], [], 0
        for kill in range(kills):
            how = "any time"
            if kill % 3 == 0:
                how = "writing"
            elif kill % 10 == 5:
                how = "starting"
            new = wait_and_kill(process, how, steps, seen, run_dir, rng)
            delays.append(wait_for_workers(token))
            reached = begun + steps.stat().st_size - seen
            before = saved
            saved = saved_step(run_dir)
            lost.append(reached - saved)
            if new:
                hit += 1
            show(f"kill {kill + 1} ({how}): reached step {reached}, saved {saved}, lost {lost[-1]}; {' '.join(new)}")
            assert saved >= before, f"the checkpoint went back from step {before} to {saved}"
            assert lost[-1] <= EVERY + NUM_ENVS, f"{lost[-1]} steps lost"
            begun = saved
            seen = steps.stat().st_size
            flags = ["--resume", run_dir]
            if kill == kills - 1:  # the last one is to finish
                final = (saved // EVERY + 3) * EVERY
                flags += ["--total-timesteps", final]
            process = start(cwd, steps, token, flags)
        code = process.wait(SECONDS)
        assert code == 0, (cwd / "stderr").read_text()
    finally:
        process.kill()
        process.wait()
    wait_for_workers(token)  # multiprocessing's own helper ends a moment later
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
        "training_episodes": summary["training_episodes"],
    }


def check_log(run_dir, summary, final):
    """Every interval has one row of the log and EVAL_EPISODES of eval.csv; the episodes, which end together in all
    environments, have one point each time. `summary`: the run's last line; `final`: its --total-timesteps."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0}).Reload()
    intervals = list(range(1, final // EVERY + 1))
    for key in ("charts/SPS", "eval/episodic_return", "losses/values"):
        logged = [event.step for event in events.Scalars(key)]
        assert logged == sorted(logged) and [step // EVERY for step in logged] == intervals, f"{key}: {logged}"
    ends = [event.step for event in events.Scalars("charts/episodic_return")]
    assert ends == sorted(set(ends)), f"episodes: {ends}"
    assert len(ends) * NUM_ENVS == summary["training_episodes"], f"{ends} of {summary['training_episodes']} episodes"
    rows = [row.split(",") for row in (run_dir / "eval.csv").read_text().splitlines()[1:]]
    rows = [(int(step) // EVERY, int(episode)) for step, episode, *_ in rows]
    assert rows == [(i, episode) for i in intervals for episode in range(EVAL_EPISODES)], f"eval.csv: {rows}"
    assert not list(run_dir.glob("*.new")), f"left: {list(run_dir.glob('*.new'))}"


def main():
    parser = command_line(__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--async-envs", action="store_true", help="with worker processes")
    parser.add_argument("--seed", type=int, default=1, help="of when to kill")
    args = parser.parse_args()
    if args.kills < 1:
        refuse("--kills must be at least 1")
    code = 0
    with tempfile.TemporaryDirectory() as folder:
        try:
            figures = torture(Path(folder), args.kills, args.async_envs, args.seed)
        except AssertionError as error:
            figures = {"wrong": str(error)}
            code = 1
    print(json.dumps(figures))
    sys.exit(code)


if __name__ == "__main__":
    main()

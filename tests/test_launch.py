"""benchmark/launch.py: which run belongs to an experiment, jobs that are killed, stopped and continued, Slurm."""

import fcntl
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT, run_script

import envs

sys.path.insert(0, str(ROOT / "benchmark"))
import experiments  # noqa: E402
import launch  # noqa: E402

SMALL = "--hidden-dim 16 --state-dim 8 --rnd-dim 16 --batch-size 16 --learning-starts 5000 --latent-dim 3 --num-envs 4 "
SMALL += "--eval-frequency 0 --checkpoint-frequency 100"
TOY = experiments.Experiment("toy", "trouble:Trouble-v0", "m", "rpg.py", "", SMALL, 600, "", 600)
TROUBLE = """
import os, pathlib, signal, time
import gymnasium as gym
from toy_envs import Toy

os.write(1, b"a simulator's own line, in latin-1: pr\\xeat\\n")
starts = pathlib.Path("starts")  # a letter for each process that was in trouble

class Trouble(Toy):  # the first process is killed; where the second one is, the user presses Ctrl-C
    slow = False

    def step(self, action):
        if self.steps == 40:
            before = starts.read_text() if starts.exists() else ""
            starts.write_text(before + ".")
            if before == "":
                os.kill(os.getpid(), signal.SIGKILL)
            if before == ".":
                Trouble.slow = True  # the end of the run must not come first
                os.killpg(int(os.environ["LAUNCH"]), signal.SIGINT)
        if Trouble.slow:
            time.sleep(0.05)
        return super().step(action)

gym.register("Trouble-v0", Trouble, max_episode_steps=20)
"""


def setup(folder, *rows):
    """Code that has launch.py find these experiments, and its jobs the modules in `folder`."""
    return f"""
import os, sys
sys.path.insert(0, {str(ROOT / "benchmark")!r})
import experiments
experiments.EXPERIMENTS = [experiments.Experiment(*row) for row in {[tuple(row) for row in rows]}]
os.environ["PYTHONPATH"] += ":{folder}"
os.environ["PATH"] = "{folder}:" + os.environ["PATH"]
os.setsid()
os.environ["LAUNCH"] = str(os.getpid())
"""


def write_run(run_dir, args, step=None):
    """The directory of a run with a checkpoint at `step`, or none."""
    run_dir.mkdir(parents=True)
    (run_dir / "args.json").write_text(json.dumps(args))
    if step is not None:
        torch.save({"progress": (step, 0, False)}, run_dir / "checkpoint.pt")


def test_a_run_without_its_last_evaluation_is_unfinished(tmp_path, monkeypatch, capsys):
    """A kill came between the last checkpoint and it. What cannot be continued is said to be so."""
    monkeypatch.chdir(tmp_path)
    run = launch.Run(TOY, 1, False)
    write_run(tmp_path / "runs/a", run.args, 600)
    assert run.state().text == "done"
    torch.save({"progress": (600, 0, True)}, tmp_path / "runs/a/checkpoint.pt")
    assert run.state() == launch.State("unfinished", Path("runs/a"), 600)
    (tmp_path / "runs/a/eval.csv").write_text("step,episode,return,length,success_final,success_any\n600,0,1,20,0,1\n")
    assert run.state().text == "done" and not capsys.readouterr().out
    (tmp_path / "runs/a/eval.csv").write_text("damaged")
    assert run.state() == launch.State("unfinished", Path("runs/a"), 600)
    (tmp_path / "runs/a/checkpoint.pt").write_bytes(b"half")
    assert run.state().text == "not begun" and "runs/a cannot be continued: " in capsys.readouterr().out


def test_a_job_that_is_killed_and_stopped(tmp_path):
    """kill -9 of the script, Ctrl-C at the terminal: each time it goes on from the newest checkpoint, in one run."""
    (tmp_path / "trouble.py").write_text(TROUBLE)
    before = setup(tmp_path, TOY)
    code, out, err = run_script(tmp_path, "benchmark/launch.py", "toy", "--seeds", 1, "--jobs", 1, before=before)
    assert code == 1 and "stopping after this step, with a checkpoint" in err, out + err
    begun, started, interrupted, again, stopped, last = out.splitlines()
    command = "python rpg.py --env-id trouble:Trouble-v0 --exp-name m --seed 1"
    assert begun.startswith("not begun ") and f": {command}" in begun and started.startswith(f"started: {command}")
    (run_dir,) = (tmp_path / "runs").glob("trouble*")
    resume = f"python rpg.py --resume runs/{run_dir.name} --total-timesteps 600 --num-threads 1"
    assert interrupted.startswith("interrupted, goes on: unfinished at step 100 ") and interrupted.endswith(resume)
    assert again.startswith(f"started: {resume}") and last == "0 of 1 done"
    (step,) = re.findall(r"^unfinished at step (\d+) ", stopped)
    assert 200 <= int(step) < 600

    code, out, err = run_script(tmp_path, "benchmark/launch.py", "toy", "--seeds", 1, before=before)
    assert code == 0 and not err and out.splitlines()[0] == stopped and out.endswith("1 of 1 done\n"), out + err
    assert [run_dir] == list((tmp_path / "runs").glob("trouble*"))
    assert launch.read_progress(run_dir) == (600, False) and len((run_dir / "commit.txt").read_text().split()) == 3

    code, out, err = run_script(tmp_path, "benchmark/launch.py", "toy", "--seeds", 1, 2, "--list", before=before)
    assert code == 0 and not err, err
    assert [line.split("trouble")[0].split() for line in out.splitlines()] == [["done", "toy"], ["not", "begun", "toy"]]


def test_a_look_at_a_run_does_not_keep_it_from_starting(tmp_path, monkeypatch):
    """launch.is_training holds a run's lock for a moment; another run's training holds it on."""
    look = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(look, fcntl.LOCK_SH)
    waits = []
    monkeypatch.setattr(envs.time, "sleep", waits.append)
    assert not envs.lock(tmp_path) and len(waits) == 9
    monkeypatch.setattr(envs.time, "sleep", lambda seconds: os.close(look))
    assert envs.lock(tmp_path)


def test_two_launchers_start_a_run_once(tmp_path):
    """Both called at once; the later one's job waits for the other's, and finds its run done."""
    experiment = TOY._replace(task="toy_envs:Toy-v0")
    code = setup(tmp_path, experiment)
    code += f"""
import runpy
sys.argv = ["launch.py", "toy", "--seeds", "1"]
runpy.run_path({str(ROOT / "benchmark/launch.py")!r}, run_name="__main__")
"""
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    launchers = [subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=env, **pipes) for _ in range(2)]
    for launcher in launchers:
        out, err = launcher.communicate(timeout=200)
        assert launcher.returncode == 0 and not err and out.endswith("1 of 1 done\n"), out + err
    (run_dir,) = (tmp_path / "runs").glob("toy*")
    assert len((run_dir / "commit.txt").read_text().split()) == 1


def test_which_run_is_an_experiments(tmp_path, monkeypatch):
    """By flags, --exp-name and seed, whatever the directory is called; the furthest one, or the one that trains."""
    monkeypatch.chdir(tmp_path)
    run = launch.Run(TOY, 3, False)
    assert run.state() == ("not begun", None, 0)
    write_run(tmp_path / "runs/no-checkpoint", run.args)
    write_run(tmp_path / "runs/other-seed", run.args | {"seed": 4}, 600)
    write_run(tmp_path / "runs/other-name", run.args | {"exp_name": "n"}, 600)
    write_run(tmp_path / "runs/other-flag", run.args | {"beta": 0.01}, 600)
    write_run(tmp_path / "runs/no-flags", [1], 600)
    write_run(tmp_path / "runs/damaged", run.args, 600)
    (tmp_path / "runs/damaged/checkpoint.pt").write_text("damaged")
    assert run.state() == ("not begun", None, 0)
    write_run(tmp_path / "runs/a", run.args | {"eval_frequency": 7, "total_timesteps": 1, "new_switch": False}, 200)
    write_run(tmp_path / "runs/b", run.args, 100)
    assert run.state() == ("unfinished", Path("runs/a"), 200)
    assert f"--resume runs/a --total-timesteps {TOY.steps}" in run.line()
    torch.save({"progress": (600, 0, 0)}, tmp_path / "runs/b/checkpoint.pt")
    assert run.state() == ("done", Path("runs/b"), 600) and run.line().endswith(": runs/b")
    open_file = os.open("runs/no-checkpoint", os.O_RDONLY)
    import fcntl

    fcntl.flock(open_file, fcntl.LOCK_EX)
    assert run.state() == ("running", Path("runs/no-checkpoint"), 0)
    os.close(open_file)
    assert launch.Run(TOY, 3, True).state().text == "not begun"  # of the paper's sizes, under a name of its own


@pytest.mark.parametrize("script", ["rpg.py", "rpg_pixels.py", "rpg_maze.py"])
def test_flags_of_experiments(script, monkeypatch):
    """Each script takes them, none is without effect; launch.py knows what the script will write to args.json."""
    module = importlib.import_module(Path(script).stem)
    runs = []
    for paper_settings in (False, True):
        runs += [launch.Run(e, 1, paper_settings) for e in experiments.EXPERIMENTS if e.script == script]
    for run in runs:
        args = module.Args(**{name: tuple(v) if isinstance(v, list) else v for name, v in run.args.items()})
        given = {word[2:].replace("-", "_") for word in run.flags.split() if word.startswith("--")}
        module.check_args(args, given)  # exits if it refuses
    source = (ROOT / script).read_text()
    for run in {(run.figure, run.method): run for run in runs}.values():
        monkeypatch.setattr(sys, "argv", [script, *run.flags.split()])
        args = envs.parse_flags(module.Args, source, "", module.Args())
        assert json.dumps(vars(args), sort_keys=True) == json.dumps(run.args, sort_keys=True)


def test_flags_that_do_not_count():
    """All that --resume may change in some script, and names."""
    changeable = set()
    for script in ("rpg", "rpg_pixels", "rpg_maze"):
        changeable |= importlib.import_module(script).CHANGEABLE
    assert changeable | {"exp_name", "seed"} == launch.UNCOUNTED


class FakeRun:
    """Its `codes` are how its starts end: an exit code, or None if the job is killed. The last one that is 0 is the end
    of the run; "more" is a kill after a checkpoint."""

    def __init__(self, name, *codes):
        self.name, self.codes, self.starts, self.lost, self.step = name, list(codes), 0, 0, 0

    def state(self):
        return launch.State("done" if self.step == 99 else "unfinished", Path("runs") / self.name, self.step)

    def line(self):
        return f"{self.state().text} {self.name}"

    def command(self, run_dir):
        return self.name


class FakeExecutor:
    running, most = 0, 0

    def __init__(self, folder):
        pass

    def update_parameters(self, timeout_min):
        assert timeout_min > 60 * 24 * 30

    def submit(self, run):
        return FakeJob(type(self), run)


class FakeJob:
    job_id = "1"

    def __init__(self, executor, run):
        self.executor, self.run, self.polls = executor, run, 0
        self.code = run.codes[run.starts]
        run.starts += 1
        executor.running += 1
        executor.most = max(executor.most, executor.running)
        killed = self.code in (None, "more")
        result = SimpleNamespace(exists=lambda: not killed)
        self.paths = SimpleNamespace(result_pickle=result, stdout=Path("out"), stderr=Path("err"))

    def done(self):
        self.polls += 1
        if self.polls < 2:
            return False
        self.executor.running -= 1
        if self.code == 0:
            self.run.step = 99
        if self.code == "more":
            self.run.step += 1
        return True

    def exception(self):
        return self.code if isinstance(self.code, Exception) else None

    def result(self):
        if isinstance(self.code, Exception):
            raise self.code
        return self.code


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_jobs_at_a_time_and_tries(jobs, monkeypatch, capsys):
    """Never more than --jobs; a kill is followed by a new start, but not for ever without a checkpoint; an error is
    none."""
    import submitit

    class Executor(FakeExecutor):
        pass

    monkeypatch.setattr(submitit, "LocalExecutor", Executor)
    monkeypatch.setattr(launch.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(launch, "Stop", lambda: SimpleNamespace(requested=False, listen=lambda: None))
    runs = [FakeRun("a", None, -9, 0), FakeRun("b", None, None, None, 0), FakeRun("c", 2, 0), FakeRun("d", 0)]
    runs.append(FakeRun("e", None, "more", None, "more", None, 0))
    runs.append(FakeRun("f", OSError("no space left"), 0))  # of the job itself
    launch.run_here(runs, jobs)
    assert [run.starts for run in runs] == [3, 3, 1, 1, 6, 1] and Executor.most == jobs
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("failed")] == [
        line
        for line in lines
        if line.startswith(("failed, exit code None: b", "failed, exit code 2: c", "failed, exit code 1: f"))
    ]
    assert sum(line.startswith("failed") for line in lines) == 3


def test_runs_of_a_launcher_that_was_killed_count(monkeypatch):
    """The last of the list trains on: no other one starts beside it with --jobs 1."""
    import submitit

    first, last = FakeRun("first", 0), FakeRun("last")
    looks = [True, True, False]

    def is_training(run_dir):
        assert first.starts == 0 and run_dir == Path("runs/last")
        return looks.pop(0)

    last.state = lambda: launch.State("running" if looks else "done", Path("runs/last"), 5)
    monkeypatch.setattr(submitit, "LocalExecutor", FakeExecutor)
    monkeypatch.setattr(launch.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(launch, "Stop", lambda: SimpleNamespace(requested=False, listen=lambda: None))
    monkeypatch.setattr(launch, "is_training", is_training)
    launch.run_here([first, last], 1)
    assert (first.starts, last.starts, looks) == (1, 0, [])


SBATCH = """#!/bin/sh
cp $1 submitted
echo Submitted batch job 12
"""
SACCT = """#!/bin/sh
printf 'JobID|State|NodeList\\n12_0|PENDING|\\n12_1|PENDING|\\n'
"""


def test_submission_to_slurm(tmp_path):
    """Parameters of sbatch, one array of --jobs at a time; what is queued is not submitted again."""
    for name, text in (("sbatch", SBATCH), ("sacct", SACCT), ("srun", "#!/bin/sh\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    call = ["benchmark/launch.py", "toy", "--seeds", 1, 2, "--jobs", 7, "--slurm"]
    before = setup(tmp_path, TOY)
    code, _, err = run_script(tmp_path, *call, "partition=gpu", "colour=red", before=before)
    assert code == 2 and "colour" in err and err.count("\n") == 1, err
    code, out, err = run_script(tmp_path, *call, "partition=gpu", "gpus_per_node=1", before=before)
    assert code == 0 and not err, err
    assert [line.split(":")[0] for line in out.splitlines()] == ["submitted as 12_0", "submitted as 12_1"]
    script = (tmp_path / "submitted").read_text()
    for line in ("partition=gpu", "gpus-per-node=1", "cpus-per-task=1", "time=240", "array=0-1%2", "signal=USR2@90"):
        assert f"#SBATCH --{line}\n" in script
    code, out, err = run_script(tmp_path, *call, "partition=gpu", before=before)
    assert code == 0 and not err, err
    assert [line.split(":")[0] for line in out.splitlines()] == ["queued as 12_0", "queued as 12_1"]


def test_without_submitit(tmp_path):
    before = setup(tmp_path, TOY) + "\nimport sys; sys.modules['submitit'] = None"
    code, out, err = run_script(tmp_path, "benchmark/launch.py", "toy", "--list", before=before)
    assert code == 0 and out.startswith("not begun") and not err
    code, _, err = run_script(tmp_path, "benchmark/launch.py", "toy", before=before)
    assert code == 2 and err == "launch.py: error: launch.py needs submitit: pip install submitit\n"


def test_commit_of_a_run(tmp_path, monkeypatch):
    """A + where the script differs; nothing where there is no git."""
    if shutil.which("git") is None:
        pytest.skip("no git here")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setattr(launch, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    launch.note_commit(tmp_path, "rpg.py")
    assert not (tmp_path / "commit.txt").exists()
    (tmp_path / "rpg.py").write_text("1")
    os.system(f"cd {tmp_path} && git init -q && git add . && git -c user.name=a -c user.email=a@b commit -qm a")
    launch.note_commit(tmp_path, "rpg.py")
    (tmp_path / "other.py").write_text("1")
    launch.note_commit(tmp_path, "rpg.py")
    (tmp_path / "rpg.py").write_text("2")
    launch.note_commit(tmp_path, "rpg.py")
    first, again, second = (tmp_path / "commit.txt").read_text().split()
    assert re.fullmatch(r"[0-9a-f]{10}", first) and (again, second) == (first, first + "+")

"""Run experiments of experiments.py, some at a time, on this machine or on a Slurm cluster, by submitit.

    python benchmark/launch.py fig7 --list                                # every run: done, unfinished, not begun
    python benchmark/launch.py adroit-door --seeds 1 2 3 --jobs 2         # here, one thread each
    python benchmark/launch.py fig7 --paper-settings --jobs 32 --slurm partition=gpu gpus_per_node=1 time=600

Calling it again continues what is unfinished and skips what is done: a run is an experiment's if its args.json has the
same flags, --exp-name and seed. A job that is killed, preempted or out of time goes on by --resume. Here the first
Ctrl-C stops all jobs with a checkpoint. (If this program is killed its jobs go on, and the next call counts them among
those that run.) On a cluster the program ends when the jobs are submitted, and `time` is in minutes. Runs are in
runs/, what they print in runs/.launch/. Each start adds a line to the run's commit.txt.
"""

import ast
import difflib
import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from experiments import EXPERIMENTS  # noqa: E402

from envs import Stop, command_line, evaluated, failure, lock, one_line, refuse, say, short  # noqa: E402

LOGS = Path("runs/.launch")
TRIES = 3  # starts of a job that is killed each time before a new checkpoint
# flags that do not change what a run learns: those that --resume may change; and the names of a run
UNCOUNTED = {"resume", "total_timesteps", "eval_frequency", "eval_episodes", "checkpoint_frequency", "figure_frequency"}
UNCOUNTED |= {"capture_video", "cuda", "torch_deterministic", "num_threads", "async_envs", "compile", "cudagraphs"}
UNCOUNTED |= {"track", "wandb_project_name", "wandb_entity", "exp_name", "seed"}


def flags_hash(args):
    """8 hex digits of the flags, a dict as in args.json, that count. Those that are off (false, 0, null) are left
    out, so that a switch of a later version does not change the hash of older runs."""
    counted = {name: value for name, value in args.items() if value and name not in UNCOUNTED}
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()[:8]


def planned_args(script, flags):
    """What args.json will hold of `python script flags`: a dict. The defaults are read, for an import takes seconds."""
    tree = ast.parse((ROOT / script).read_text(encoding="utf-8"))
    (cls,) = (node for node in tree.body if getattr(node, "name", None) == "Args")
    args = {}
    for field in cls.body:
        if field.target.id != "exp_name":  # which is always typed
            args[field.target.id] = ast.literal_eval(field.value)
    for group in f" {flags}".split(" --")[1:]:
        word, *values = group.split()
        name = word.replace("-", "_")
        default = args.get(name, "")
        if not values:
            args[name.removeprefix("no_")] = not name.startswith("no_")
        elif isinstance(default, tuple):
            args[name] = [type(default[0])(value) if default else value for value in values]
        elif isinstance(default, (int, float)):
            args[name] = type(default)(values[0])
        elif default is None and values[0].isdecimal():  # a number that is off by default
            args[name] = int(values[0])
        else:
            args[name] = values[0]
    return args


class State(NamedTuple):
    text: str  # "done", "running", "unfinished", "not begun"
    run_dir: Path | None
    step: int  # of the newest checkpoint


def is_training(run_dir):
    """Whether a process holds the lock of a run, see envs.lock."""
    import fcntl

    descriptor = os.open(run_dir, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        pass
    finally:
        os.close(descriptor)
    return False


def read_progress(run_dir):
    """(the step that --resume would go on from, whether the evaluation there is still to be made); (0, False) without a
    readable checkpoint, from which no run can go on."""
    path = run_dir / "checkpoint.pt"
    if not path.exists():
        return 0, False
    import torch  # takes seconds

    try:  # (envs.read_checkpoint checks every byte of a replay, too)
        step, *_, eval_due = torch.load(path, "cpu", weights_only=True, mmap=True)["progress"]
    except Exception as error:  # whatever torch raises
        say(f"{run_dir} cannot be continued: {failure(error)}")
        return 0, False
    try:
        return int(step), eval_due is True and not evaluated(run_dir, step)  # rpg_maze.py has another thing there
    except OSError as error:  # a damaged eval.csv
        say(one_line(error))
        return int(step), True


class Run:
    """An experiment with a seed. As a job of submitit it starts the script, or continues it: all that is known of a run
    is on the disk."""

    def __init__(self, experiment, seed, paper_settings):
        self.figure, self.task, self.script = experiment.figure, experiment.task, experiment.script
        self.method, self.seed = experiment.method, seed
        sizes, self.steps = experiment.laptop, experiment.steps
        if paper_settings:
            self.method += "-paper-settings"
            sizes, self.steps = experiment.paper, experiment.paper_steps
        env_id, *options = self.task.split()
        flags = f"--exp-name {self.method} --seed {seed} {experiment.flags} {sizes}"
        if options:
            flags = f"--env-options {' '.join(options)} {flags}"
        if self.script != "rpg_maze.py":  # which has one environment
            flags = f"--env-id {env_id} {flags}"
        self.flags = " ".join(flags.split())
        self.args = planned_args(self.script, self.flags)
        self.name = re.sub(r"\W+", "-", f"{self.task} {self.method} {seed}")
        self.gpus = os.environ.get("CUDA_VISIBLE_DEVICES")
        self.lost = 0  # starts in a row that were killed before a new checkpoint

    def is_mine(self, args):
        """Whether args, read from an args.json, are this run's."""
        return (
            isinstance(args, dict)
            and (args.get("exp_name"), args.get("seed")) == (self.method, self.seed)
            and flags_hash(args) == flags_hash(self.args)
        )

    def state(self):
        """Its State, from runs/. Of several directories the one that trains, or that is furthest."""
        furthest = State("not begun", None, 0)
        for path in sorted(Path("runs").glob("*/args.json")):
            try:
                args = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if not self.is_mine(args):
                continue
            step, to_evaluate = read_progress(path.parent)
            if is_training(path.parent):
                return State("running", path.parent, step)
            if step > furthest.step:
                done = step >= self.steps and not to_evaluate
                furthest = State("done" if done else "unfinished", path.parent, step)
        return furthest

    def command(self, run_dir=None):
        """What is typed to start the run, or to continue it in run_dir."""
        flags = self.flags if run_dir is None else shlex.join(["--resume", str(run_dir)])
        return f"python {self.script} {flags} --total-timesteps {self.steps} --num-threads 1"

    def line(self):
        """A line for the user: state, names, and the command that is due."""
        state = self.state()
        text = state.text
        if state.run_dir is not None and state.text != "done":
            text += f" at step {state.step:,}"
        command = state.run_dir if state.text in ("done", "running") else self.command(state.run_dir)
        return f"{text:28} {self.figure} {self.task} {self.method} seed {self.seed}: {command}"

    def __call__(self):
        """The job. Returns the script's exit code, below 0 if it was killed."""
        on_slurm = os.environ.get("SUBMITIT_EXECUTOR") == "slurm"
        preempt = signal.getsignal(signal.SIGUSR2)  # submitit's: checkpoint() below, then requeue
        received, child = [], None

        def stop(number, frame):
            received.append(number)
            if child is not None and len(received) == 1:  # a second one would end the script at once
                child.send_signal(signal.SIGINT)

        for number in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, stop)
        own = LOGS / f"{self.name}.lock"
        own.touch()
        while not lock(own) and not received:  # another launch.py's job is about to start this run, or runs it
            time.sleep(1)
        state = self.state()
        if state.text in ("done", "running") or received:
            return 0
        env = dict(os.environ)
        if not on_slurm:  # submitit's local executor hides the GPUs
            env.pop("CUDA_VISIBLE_DEVICES", None)
            if self.gpus is not None:
                env["CUDA_VISIBLE_DEVICES"] = self.gpus
        _, _, *flags = shlex.split(self.command(state.run_dir))
        child = subprocess.Popen(
            [sys.executable, ROOT / self.script, *flags],
            stdout=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env=env,
            start_new_session=True,  # a Ctrl-C is not for it, and what Slurm sends to all processes is ignored,
            preexec_fn=ignore_signals,  # so that it gets one SIGINT, from `stop`
        )
        noted = False
        for text in child.stdout:
            say(text, end="")
            if not noted and text.startswith("runs/") and " | " in text:  # an environment may print before
                noted = True
                note_commit(Path(text.split(" | ")[0]), self.script)
        code = child.wait()
        while on_slurm and received == [signal.SIGTERM]:  # preempted: SIGUSR2 follows. Cancelled: a kill
            time.sleep(1)
        if signal.SIGUSR2 in received:
            preempt(signal.SIGUSR2, None)
        return code

    def checkpoint(self):
        """What submitit runs when the job is requeued."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def ignore_signals():
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def note_commit(run_dir, script):
    """Add a line to the run's commit.txt: the commit, with a + if script or envs.py differ from it. Not without git."""

    def git(*words):
        return subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        commit = git("rev-parse", "--short=10", "HEAD")
        changed = git("status", "--porcelain", "--", script, "envs.py")
        with open(run_dir / "commit.txt", "a") as file:
            file.write(f"{commit}{'+' if changed else ''}\n")
    except (OSError, subprocess.CalledProcessError):
        pass


def known_names():
    """All figures and tasks, the latter with and without their options."""
    return list(dict.fromkeys(name for e in EXPERIMENTS for name in (e.figure, e.task, e.task.split()[0])))


def choose(names, methods):
    """The experiments of these figures and tasks, and of these methods if any are given; refuses unknown names."""
    known = known_names()
    for name in names:
        if name not in known:
            similar = [other for other in known if name in other] or difflib.get_close_matches(name, known, 5)
            refuse(f"{name}: no such figure or task; there is {', '.join(similar or known)}")
    chosen = [e for e in EXPERIMENTS if {e.figure, e.task, e.task.split()[0]} & set(names)]
    known = list(dict.fromkeys(e.method for e in chosen))
    for method in methods or ():
        if method not in known:
            refuse(f"--methods {method}: {' '.join(names)} has {', '.join(known)}")
    return [e for e in chosen if not methods or e.method in methods]


def run_here(runs, jobs):
    """Run what is not done, `jobs` at a time."""
    import submitit

    stop = Stop()
    stop.listen()
    waiting, started, elsewhere = list(runs), {}, {}  # runs; {job: (run, step before)}; {run: its directory}
    for run in runs:  # the later ones of the list count among the jobs from the start
        state = run.state()
        if state.text == "running":
            elsewhere[run] = state.run_dir
    told = False
    while started or (waiting and not stop.requested):
        if stop.requested and not told:
            told = True
            for job in started:
                os.kill(int(job.job_id), signal.SIGTERM)  # submitit's controller passes it on
        for job in [job for job in started if job.done()]:
            run, before = started.pop(job)
            state = run.state()
            code = None
            if job.paths.result_pickle.exists():
                code = 1 if job.exception() else job.result()
            if state.text == "done" or stop.requested:
                say(run.line())
                continue
            run.lost = 0 if state.step > before else run.lost + 1
            if (code or 0) > 0 or run.lost == TRIES:
                say(f"failed, exit code {code}: {run.command(state.run_dir)} | {short(job.paths.stderr)}")
            else:
                say(f"interrupted, goes on: {run.line()}")
                waiting.insert(0, run)
        elsewhere = {run: run_dir for run, run_dir in elsewhere.items() if is_training(run_dir)}
        for run in [run for run in waiting if run not in elsewhere]:
            if len(started) + len(elsewhere) >= jobs or stop.requested:
                break
            state = run.state()
            if state.text == "running":
                elsewhere[run] = state.run_dir
                continue
            waiting.remove(run)
            if state.text == "done":
                continue
            executor = submitit.LocalExecutor(LOGS / f"{run.name}-{time.time_ns()}")
            executor.update_parameters(timeout_min=60 * 24 * 365)
            handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
            job = executor.submit(run)  # ignores a Ctrl-C, which is for this program
            for number, handler in handlers.items():
                signal.signal(number, handler)
            started[job] = run, state.step
            say(f"started: {run.command(state.run_dir)} | {short(job.paths.stdout)}")
        time.sleep(0.5)


def submit(runs, jobs, parameters):
    """Submit what is not done, and not queued or running, to Slurm, as one array of which `jobs` run at a time."""
    import submitit

    folder = LOGS / "slurm"
    try:
        executor = submitit.SlurmExecutor(folder, max_num_timeout=1000)
        executor.update_parameters(**{"time": 240, "cpus_per_task": 1, "array_parallelism": jobs} | parameters)
        due = []
        for run in runs:
            record = LOGS / f"{run.name}.job"
            if run.state().text in ("done", "running"):
                say(run.line())
            elif record.exists() and not submitit.SlurmJob(folder, record.read_text()).done(force_check=True):
                say(f"queued as {record.read_text()}: {run.line()}")
            else:
                due.append(run)
        submitted = []
        if due:
            with executor.batch():
                submitted = [executor.submit(run) for run in due]
    except (RuntimeError, ValueError, TypeError) as error:  # no Slurm, no such parameter, refused by sbatch
        refuse(f"--slurm: {error}")
    for run, job in zip(due, submitted):
        (LOGS / f"{run.name}.job").write_text(job.job_id)
        say(f"submitted as {job.job_id}: {run.line()} | {short(job.paths.stdout)}")


def main():
    parser = command_line(__doc__)
    parser.add_argument("names", nargs="+", metavar="FIGURE|TASK", help=f"of {', '.join(known_names())}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=2, help="how many run at a time")
    parser.add_argument("--methods", nargs="+", help="rpg, mbsac, nornd, ...; default: all of the experiments")
    parser.add_argument("--paper-settings", action="store_true", help="the paper's sizes; default: a laptop's")
    parser.add_argument("--list", action="store_true", help="only say how far each run is")
    parser.add_argument("--slurm", nargs="+", metavar="key=value", help="parameters of sbatch, as in submitit")
    args = parser.parse_args()
    if args.list and args.slurm:
        refuse("--slurm: no effect with --list")
    if args.jobs < 1 or min(args.seeds) < 0:
        refuse("--jobs must be at least 1, --seeds at least 0")
    parameters = {}
    for word in args.slurm or ():
        key, equals, value = word.partition("=")
        if not equals:
            refuse(f"--slurm {word}: must be key=value, for example partition=gpu")
        parameters[key] = value if value.startswith("0") or not value.isdecimal() else int(value)
    experiments = choose(args.names, args.methods)
    runs = []
    for task in dict.fromkeys((e.figure, e.task) for e in experiments):
        for seed in dict.fromkeys(args.seeds):
            runs += [Run(e, seed, args.paper_settings) for e in experiments if (e.figure, e.task) == task]
    if not args.list and find_spec("submitit") is None:
        refuse("launch.py needs submitit: pip install submitit")
    if not args.list:
        try:
            LOGS.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            refuse(f"{LOGS} cannot be made: {error}")
    if args.slurm:
        submit(runs, args.jobs, parameters)
        return
    for run in runs:
        say(run.line())
    if not args.list:
        run_here(runs, args.jobs)
        done = sum(run.state().text == "done" for run in runs)
        say(f"{done} of {len(runs)} done")
        sys.exit(done < len(runs))


if __name__ == "__main__":
    main()

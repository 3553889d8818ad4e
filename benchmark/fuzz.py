"""Damage a checkpoint in 1000 random ways: is any damage accepted, does any reading hang, crash or run foreign code?

    python benchmark/fuzz.py            # 3 minutes

Most cases call envs.read_checkpoint, which is what rpg.py reads with, in this process; what only rpg.py itself can
notice, such as a network of another shape, is tried by starting it. Accepted is allowed only where every value is still
the one that was written (a bit of a zip file's padding, say); these are counted as `harmless`. One JSON line at the
end; exit code 1 if anything is wrong.
"""

import copy
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from envs import command_line, read_checkpoint  # noqa: E402

FLAGS = (
    "--env-id toy_envs:Toy-v0 --hidden-dim 16 --state-dim 8 --rnd-dim 16 --batch-size 16 --learning-starts 50 "
    "--latent-dim 3 --num-envs 4 --eval-frequency 0 --checkpoint-frequency 200 --total-timesteps 400"
).split()
SECONDS = 20  # to read a checkpoint of 200 kB
# Ways of damaging a file, the first twice as often as another
KINDS = ["bit", "bit", "bits", "truncated", "zeros", "noise", "cut out", "random", "evil", "evil zip", "directory"]
KINDS += ["flag", "missing"]


class Evil:
    """Unpickled, it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def rpg(cwd, *flags):
    """Exit code, standard error of rpg.py."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    command = [sys.executable, str(ROOT / "rpg.py"), *map(str, flags)]
    run = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120)
    return run.returncode, run.stderr


def same(a, b):
    """Whether two nests of dicts, lists and tensors hold the same bits."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    return a == b


def damage(run_dir, mark, rng):
    """Damage the checkpoint of run_dir; `mark`: what code in the file would create. Returns the kind, one of KINDS."""
    path = run_dir / "checkpoint.pt"
    raw = bytearray(path.read_bytes())
    kind = rng.choice(KINDS)
    at = rng.randrange(len(raw))
    size = rng.choice([1, 16, 512, 4096, 65536])
    if kind == "missing":
        path.unlink()
        return kind
    if kind == "bit":
        raw[at] ^= 1 << rng.randrange(8)
    elif kind == "bits":
        for _ in range(rng.randrange(2, 100)):
            raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    elif kind == "directory":  # of the zip file: its last 2000 bytes
        raw[-rng.randrange(1, 2000)] ^= 1 << rng.randrange(8)
    elif kind == "flag":  # one record is marked as a directory, of which torch.load would read nothing: random memory
        records = [match.start() for match in re.finditer(b"PK\x01\x02", raw)]
        raw[rng.choice(records) + 38] ^= 0x10
    elif kind == "truncated":
        raw = raw[:at]
    elif kind == "zeros":
        raw[at : at + size] = bytes(len(raw[at : at + size]))
    elif kind == "noise":
        raw[at : at + size] = rng.randbytes(len(raw[at : at + size]))
    elif kind == "cut out":
        del raw[at : at + size]
    elif kind == "random":
        raw = rng.randbytes(size)
    elif kind == "evil":  # what torch.save wrote years ago: a pickle alone
        torch.save({"agent": Evil(mark)}, path, _use_new_zipfile_serialization=False)
        return kind
    elif kind == "evil zip":  # with true checksums
        torch.save({"agent": Evil(mark)}, path)
        return kind
    path.write_bytes(raw)
    return kind


def contents(run_dir):
    """{name: bytes} of what is there."""
    return {path.name: path.read_bytes() for path in sorted(run_dir.iterdir())}


def in_process(cwd, run_dir, cases, seed=1):
    """Counter of how `cases` damaged checkpoints were treated. AssertionError: what is wrong."""
    rng = random.Random(seed)
    counts = Counter()
    good = read_checkpoint(run_dir)
    damaged = cwd / "damaged"
    mark = cwd / "code was run"

    def hangs(*_):
        raise SystemExit(f"{kind}: reading takes more than {SECONDS} s")  # not caught by what catches any Exception

    signal.signal(signal.SIGALRM, hangs)
    for _ in range(cases):
        shutil.rmtree(damaged, ignore_errors=True)
        damaged.mkdir()
        shutil.copy(run_dir / "checkpoint.pt", damaged)
        kind = damage(damaged, mark, rng)
        before = contents(damaged)
        counts[kind] += 1
        signal.alarm(SECONDS)
        try:
            accepted = read_checkpoint(damaged)
        except Exception:  # rpg.py prints the first 150 characters of any, and ends
            counts["refused"] += 1
        else:
            assert same(accepted, good), f"{kind}: accepted, with other values"
            counts["harmless"] += 1
        finally:
            signal.alarm(0)
        assert contents(damaged) == before, f"{kind}: something was written"
        assert not mark.exists(), f"{kind}: its code was run"
    return counts


def first_rows(state):
    """Shape its agent's first layers anew: one output each."""
    for key, value in state["agent"].items():
        if key.endswith("encoder.1.0.weight"):
            state["agent"][key] = value[:1]


def narrow(state, rows=slice(None), envs=slice(None), width=slice(None)):
    """Cut the replay's data (rows, N, width)."""
    state["replay"]["data"] = state["replay"]["data"][rows, envs, width].clone()


CHANGES = {  # name -> what to do with the state of a checkpoint, which is then written as rpg.py would
    "no agent": lambda state: state.pop("agent"),
    "no progress": lambda state: state.pop("progress"),
    "no optimisers": lambda state: state.pop("optimizers"),
    "an optimiser missing": lambda state: state["optimizers"].popitem(),
    "no rng": lambda state: state.pop("rng"),
    "a weight missing": lambda state: state["agent"].popitem(),
    "a weight of another shape": first_rows,
    "progress of words": lambda state: state.update(progress=("a", "b", "c", [], "d")),
    "no replay": lambda state: state.pop("replay"),
    "no data": lambda state: state["replay"].pop("data"),
    "a narrow ring": lambda state: narrow(state, width=slice(None, -1)),
    "a ring of one environment": lambda state: narrow(state, envs=slice(1)),
}
OTHER_FILES = ["lists", "code", "a flipped bit", "text"]  # put in its place


def write_other_file(name, path, state, mark):
    """One of OTHER_FILES in place of the checkpoint at `path`, which holds `state`."""
    if name == "lists":
        torch.save([1, 2], path)
    elif name == "code":
        torch.save({**state, "agent": Evil(mark)}, path)
    elif name == "text":
        path.write_text("checkpoint\n" * 100)
    else:  # in the middle of the largest tensor
        entry = max(zipfile.ZipFile(path).infolist(), key=lambda entry: entry.file_size)
        raw = bytearray(path.read_bytes())
        raw[entry.header_offset + entry.file_size // 2] ^= 1
        path.write_bytes(raw)


def by_rpg(cwd, run_dir, wanted=None):
    """Start rpg.py on well-formed files that do not fit the run, and on one of each that is broken: all of CHANGES and
    OTHER_FILES, or those `wanted`. Returns how many. AssertionError: what is wrong."""
    mark = cwd / "code was run"
    names = wanted or [*CHANGES, *OTHER_FILES]
    for name in names:
        damaged = cwd / "by rpg"
        shutil.rmtree(damaged, ignore_errors=True)
        shutil.copytree(run_dir, damaged)
        path = damaged / "checkpoint.pt"
        state = copy.deepcopy(read_checkpoint(damaged))
        if name in CHANGES:
            CHANGES[name](state)
            torch.save(state, path)
        else:
            write_other_file(name, path, state, mark)
        before = contents(damaged)
        code, err = rpg(cwd, "--resume", damaged, "--total-timesteps", "600")
        assert code == 2 and err.startswith("rpg.py: error: --resume") and err.count("\n") == 1, f"{name}: {code} {err}"
        assert contents(damaged) == before, f"{name}: something was written"
        assert not mark.exists(), f"{name}: its code was run"
    return len(names)


def fuzz(cwd, cases=1000, seed=1, wanted=None):
    """All of it, on a run that is made here; returns a dict of figures. AssertionError: what is wrong."""
    code, err = rpg(cwd, *FLAGS)
    assert code == 0, err
    (run_dir,) = cwd.glob("runs/*")
    counts = in_process(cwd, run_dir, cases, seed)
    tried = by_rpg(cwd, run_dir, wanted)
    return {"cases": cases, **dict(counts.most_common()), "by_rpg": tried}


def main():
    parser = command_line(__doc__)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1, help="of the damage")
    args = parser.parse_args()
    code = 0
    with tempfile.TemporaryDirectory() as folder:
        try:
            figures = fuzz(Path(folder), args.cases, args.seed)
        except AssertionError as error:
            figures = {"wrong": str(error)}
            code = 1
    print(json.dumps(figures))
    sys.exit(code)


if __name__ == "__main__":
    main()

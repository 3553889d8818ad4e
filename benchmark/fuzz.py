"""Damage a checkpoint in 1000 random ways: is any damage accepted, does any reading hang, crash or run foreign code?

    OMP_NUM_THREADS=1 python benchmark/fuzz.py            # 3 minutes

Most cases call rpg.read_checkpoint, which is what rpg.py reads with, in this process; what only rpg.py itself can notice,
such as a network of another shape, is tried by starting it. Accepted is allowed only where every value is still the one
that was written (a bit of a zip file's padding, say); these are counted as `harmless`. One JSON line at the end; exit
code 1 if anything is wrong.
"""

import argparse
import copy
import json
import os
import random
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
from rpg import read_checkpoint  # noqa: E402

FLAGS = (
    "--env-id toy_envs:Toy-v0 --hidden-dim 16 --state-dim 8 --rnd-dim 16 --batch-size 16 --learning-starts 50 "
    "--latent-dim 3 --num-envs 4 --eval-frequency 0 --checkpoint-frequency 200 --total-timesteps 400"
).split()
SECONDS = 20  # to read a checkpoint of 200 kB


class Evil:
    """Unpickled, it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def rpg(cwd, *flags):
    """Exit code, standard error of rpg.py."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "OMP_NUM_THREADS": "1"}
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
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def damage(run_dir, other, mark, rng):
    """Damage one of the files of run_dir; `other` is an earlier checkpoint of the same run. Returns what was done."""
    path = run_dir / rng.choice(["checkpoint.pt", "buffer.pt"])
    raw = bytearray(path.read_bytes())
    kind = rng.choice(
        [
            "bit",
            "bit",
            "bits",
            "truncated",
            "zeros",
            "noise",
            "cut out",
            "random",
            "swapped",
            "older",
            "evil",
            "evil zip",
            "directory",
            "missing",
        ]
    )
    at, size = rng.randrange(len(raw)), rng.choice([1, 16, 512, 4096, 65536])
    if kind in ("bit", "bits"):
        for _ in range(1 if kind == "bit" else rng.randrange(2, 100)):
            raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    elif kind == "directory":  # of the zip file: its last 2000 bytes
        raw[-rng.randrange(1, 2000)] ^= 1 << rng.randrange(8)
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
    elif kind == "swapped":
        a, b = run_dir / "checkpoint.pt", run_dir / "buffer.pt"
        raw, other_raw = b.read_bytes(), a.read_bytes()
        path = a
        b.write_bytes(other_raw)
    elif kind == "older":
        raw = (other / path.name).read_bytes()
    elif kind == "evil":  # what torch.save wrote years ago: a pickle alone
        torch.save({"agent": Evil(mark)}, path, _use_new_zipfile_serialization=False)
        raw = path.read_bytes()
    elif kind == "evil zip":  # with true checksums
        torch.save({"agent": Evil(mark)}, path)
        raw = path.read_bytes()
    if kind == "missing":
        path.unlink()
    else:
        path.write_bytes(raw)
    return f"{kind} {path.name}"


def contents(run_dir):
    """{name: bytes} of what is there."""
    return {path.name: path.read_bytes() for path in sorted(run_dir.iterdir())}


def in_process(cwd, run_dir, older, cases, seed=1):
    """Counter of how `cases` damaged checkpoints were treated. AssertionError: what is wrong."""
    rng, counts, good = random.Random(seed), Counter(), read_checkpoint(run_dir, "cpu")
    damaged, mark = cwd / "damaged", cwd / "code was run"

    def hangs(*_):
        raise SystemExit(f"{done}: reading takes more than {SECONDS} s")  # not caught by what catches any Exception

    signal.signal(signal.SIGALRM, hangs)
    for _ in range(cases):
        shutil.rmtree(damaged, ignore_errors=True)
        damaged.mkdir()
        for name in ("checkpoint.pt", "buffer.pt"):
            shutil.copy(run_dir / name, damaged)
        done = damage(damaged, older, mark, rng)
        before = contents(damaged)
        signal.alarm(SECONDS)
        try:
            accepted = read_checkpoint(damaged, "cpu")
            accepted[0]["agent"], accepted[1]["data"]  # what rpg.py looks at next: are the two files swapped?
        except Exception:  # rpg.py prints the first 150 characters of any, and ends
            counts["refused"] += 1
        else:
            assert same(accepted, good), f"{done}: accepted, with other values"
            counts["harmless"] += 1
        finally:
            signal.alarm(0)
        assert contents(damaged) == before, f"{done}: something was written"
        assert not mark.exists(), f"{done}: its code was run"
        counts[done.split()[0]] += 1
    return counts


def by_rpg(cwd, run_dir, wanted=None):
    """Start rpg.py on well-formed files that do not fit the run, and on one of each that is broken."""
    mark, tried = cwd / "code was run", []

    changes = {  # name -> what to do with (state, ring)
        "no agent": lambda state, ring: state.pop("agent"),
        "no progress": lambda state, ring: state.pop("progress"),
        "no optimiser": lambda state, ring: state.pop("adam"),
        "no rng": lambda state, ring: state.pop("rng"),
        "a weight missing": lambda state, ring: state["agent"].popitem(),
        "a weight of another shape": lambda state, ring: state["agent"].update(
            {key: value[:1] for key, value in state["agent"].items() if key.endswith("encoder.1.0.weight")}
        ),
        "progress of words": lambda state, ring: state.update(progress=("a", "b", "c", [])),
        "no data": lambda state, ring: ring.pop("data"),
        "a narrow ring": lambda state, ring: ring.update(data=ring["data"][..., :-1].clone()),
        "a ring of one environment": lambda state, ring: ring.update(data=ring["data"][:, :1].clone()),
        "lists": None,
        "code": None,
        "a flipped bit": None,
        "text": None,
    }
    for name in wanted or changes:
        damaged = cwd / "by rpg"
        shutil.rmtree(damaged, ignore_errors=True)
        shutil.copytree(run_dir, damaged)
        state, ring = copy.deepcopy(read_checkpoint(damaged, "cpu"))
        path = damaged / "checkpoint.pt"
        if changes[name]:
            changes[name](state, ring)
            torch.save(state, path), torch.save(ring, damaged / "buffer.pt")
        elif name == "lists":
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
        before = contents(damaged)
        code, err = rpg(cwd, "--resume", damaged, "--total-timesteps", "600")
        assert code == 2 and err.startswith("rpg.py: error: --resume") and err.count("\n") == 1, f"{name}: {code} {err}"
        assert contents(damaged) == before and not mark.exists(), f"{name}: something was written"
        tried.append(name)
    return tried


def fuzz(cwd, cases=1000, seed=1, wanted=None):
    """All of it, on a run that is made here; returns a dict of figures."""
    code, err = rpg(cwd, *FLAGS, "--total-timesteps", "200")
    assert code == 0, err
    (run_dir,) = cwd.glob("runs/*")
    shutil.copytree(run_dir, cwd / "older")
    code, err = rpg(cwd, "--resume", run_dir, "--total-timesteps", "400")
    assert code == 0, err
    counts = in_process(cwd, run_dir, cwd / "older", cases, seed)
    tried = by_rpg(cwd, run_dir, wanted)
    return {"cases": cases, **dict(counts.most_common()), "by_rpg": len(tried)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            figures, code = fuzz(Path(folder), args.cases, args.seed), 0
        except AssertionError as error:
            figures, code = {"wrong": str(error)}, 1
    print(json.dumps(figures))
    sys.exit(code)

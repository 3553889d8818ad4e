"""Let the tests import the scripts that lie one directory up, wherever pytest is started, and run them as programs."""

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
torch.set_num_threads(1)  # the networks of the tests are tiny: more threads only wait for each other

# Every start of a script imports for three seconds. So one process imports, and forks a child for each run: the child
# takes that run's directory, output and arguments, and runs the script to its exit code. Unlike a process of its own
# it ends without tearing the interpreter down, and inherits the hash seed: some tests start such processes.
FORK_SERVER = """
import json, multiprocessing, os, runpy, signal, sys
reply = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what an import prints is no reply
import rpg, rpg_bandit, rpg_maze, rpg_pixels, torch._dynamo

def play(before, out, err, cwd, script, *flags):
    signal.alarm(300)
    exec(before, {})
    for number, file in enumerate([open(os.devnull), open(out, "w"), open(err, "w")]):
        os.dup2(file.fileno(), number)
    os.chdir(cwd)
    sys.path[0], sys.argv = os.path.dirname(script), [script, *flags]
    try:
        runpy.run_path(script, run_name="__main__")
    except Exception:
        sys.excepthook(*sys.exc_info())  # the script may have set its own
        sys.exit(1)

while line := sys.stdin.readline():
    child = multiprocessing.get_context("fork").Process(target=play, args=json.loads(line))
    child.start(), child.join()
    print(child.exitcode, file=reply, flush=True)
"""


@functools.cache
def fork_server():
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    env["CUDA_VISIBLE_DEVICES"] = ""  # a forked process cannot use a GPU that its parent has looked for
    return subprocess.Popen(
        [sys.executable, "-c", FORK_SERVER], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def run_script(cwd, script, *flags, before=""):
    """`python script flags` in the directory `cwd`: exit code, standard output, standard error. `before` is code that
    the process runs first, to stand in for what the script finds: a clock, a compiler, a directory to import from."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        call = [before, *map(str, (out, err, cwd, ROOT / script, *flags))]
        print(json.dumps(call), file=fork_server().stdin, flush=True)
        code = fork_server().stdout.readline()
        assert code, "the fork server has ended: its error is above"
        return int(code), out.read_text(), err.read_text()


@pytest.fixture(scope="session")
def opengl():
    probe = "import envs, mujoco; mujoco.Renderer(mujoco.MjModel.from_xml_string('<mujoco/>'), 16, 16).render()"
    run = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True)
    if run.returncode != 0:
        pytest.skip("no OpenGL here: apt install libegl1 libegl-mesa0 libgl1-mesa-dri")


WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "lift_fresh", "equal", "bincount"}
WAITING |= {"repeat_interleave"}


class Capturable(TorchDispatchMode):
    """An assert at what no CUDA graph can hold: what makes the host wait for a tensor's numbers, and tensors made from
    Python's numbers, which would be copied to the GPU."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name = operation.overloadpacket.__name__
        assert name not in WAITING, name
        if name in ("index", "index_put_"):
            assert all(index is None or index.dtype != torch.bool for index in args[1]), "a mask as an index"
        return operation(*args, **(kwargs or {}))


def one_hot(index, classes):
    """torch's reads its argument to check it, on a CPU only."""
    return torch.eye(classes, dtype=torch.long).index_select(0, index.flatten()).view(*index.shape, classes)


def check_capturable(agent, replay):
    """Each kind of update, after some that make Adam's state."""
    kinds = [(False, False), (True, True)]
    for kind in 2 * kinds:
        agent.update(replay, *kind)
    for kind in kinds:
        copies = dict.fromkeys(["tolist", "numpy", "cpu", "__array__", "__repr__"])  # to the host: None, no method
        patches = mock.patch.multiple(torch.Tensor, **copies), mock.patch("torch.nn.functional.one_hot", one_hot)
        with Capturable(), patches[0], patches[1]:
            agent.update(replay, *kind)

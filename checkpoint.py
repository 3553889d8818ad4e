"""The files that a run goes on from. They survive a kill at any moment, a power cut and a full disk; a damaged one is
never used.

A checkpoint is checkpoint.pt (networks, optimisers, RNG, step count), buffer.pt (the replay) and model.pt (the networks
alone). While they are written they end in .new; the old ones stay until all of the new ones are complete.
"""

import os
import sys
import threading
import zipfile

import torch

CHECKPOINT, BUFFER = "checkpoint.pt", "buffer.pt"


def write(run_dir, state, ring):
    """Write `state` and the replay's `ring`. Renaming checkpoint.pt, when all files are on the disk, makes them count:
    after a kill at any moment, the files there belong together, or `read` completes the renaming."""
    ring["rng"] = state["rng"][0]  # tells a checkpoint from all others, so that no two can be mixed
    files = {CHECKPOINT: state, BUFFER: ring, "model.pt": state["agent"]}  # in this order: see `read`
    for name, content in files.items():
        with open(run_dir / f"{name}.new", "wb") as file:
            torch.save(content, file)
            file.flush(), os.fsync(file.fileno())  # else a power cut could leave the new name with nothing behind it
    for name in files:
        os.replace(run_dir / f"{name}.new", run_dir / name)


def read(run_dir, device):
    """The newest complete checkpoint: (state, ring). An exception if there is none, or if any of its bits has changed;
    code in the files is never run."""
    complete = not (run_dir / f"{CHECKPOINT}.new").exists()  # else a kill came before the renaming
    for path in sorted(run_dir.glob("*.new"), key=lambda path: CHECKPOINT in path.name):  # that one last
        path.replace(path.with_suffix("")) if complete and path.stem.endswith(".pt") else path.unlink()
    contents = []
    for path in (run_dir / CHECKPOINT, run_dir / BUFFER):
        with zipfile.ZipFile(path) as archive:  # torch.load does not look at the checksums that torch.save wrote
            if any(entry.compress_type for entry in archive.infolist()) or archive.testzip():
                raise ValueError(f"wrong checksum in {path.name}")
        contents.append(torch.load(path, device, weights_only=True))
    state, ring = contents
    if not torch.equal(state["rng"][0].cpu(), ring["rng"].cpu()):
        raise ValueError(f"{CHECKPOINT} and {BUFFER} are of two checkpoints")
    if not 0 <= int(ring["head"]) <= int(ring["filled"]) == len(ring["data"]):
        raise ValueError(f"{BUFFER} is no ring")
    return state, ring


def load_adam(adam, saved):
    """Load the moments: load_state_dict alone would take any shape, and the step size and device flags of the file."""
    for i, moments in saved["state"].items():
        if any(moments[key].shape != adam.param_groups[0]["params"][i].shape for key in ("exp_avg", "exp_avg_sq")):
            raise ValueError("an optimiser's moments have another shape than its network")
    adam.load_state_dict({"state": saved["state"], "param_groups": adam.state_dict()["param_groups"]})


def on_failure(halt):
    """Have Python call halt(error), in the place of printing a traceback, for an error that is no mistake in the code:
    a full disk, a worker process that died or hangs (OSError), a nan (FloatingPointError)."""

    def hook(kind, error, trace):
        if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):
            error = error.__context__  # what torch.save hides
        halt(error) if isinstance(error, (OSError, FloatingPointError)) else sys.__excepthook__(kind, error, trace)

    sys.excepthook = hook
    threading.excepthook = lambda failure: None  # TensorBoard's thread: its error comes up at the next write or flush

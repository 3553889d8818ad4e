"""benchmark/speed.py counts multiply-adds from the layers; torch counts those that really run."""

import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmark"))
import speed  # noqa: E402

CPU = torch.device("cpu")
SIZES = {"batch_size": 16, "hidden_dim": 48, "rnd_dim": 24}
CONVOLUTIONS = {"channels": (3, 5, 7, 4), "strides": (3, 2, 1, 2)}
IMAGES = [CONVOLUTIONS, {**CONVOLUTIONS, "rnd_conv": True}]


def count(work):
    """Floating-point operations that torch counts: (2,), of matrix products and of convolutions."""
    with FlopCounterMode(display=False) as counter:
        work()
    counts = [0, 0]
    for operation, n in counter.get_flop_counts()["Global"].items():
        counts["convolution" in str(operation)] += n
    return counts


@pytest.mark.parametrize(
    "script, flags", [(speed.rpg, {"horizon": 1}), (speed.rpg, {}), *[(speed.rpg_pixels, flags) for flags in IMAGES]]
)
def test_floor_counts_what_runs(script, flags):
    agent, replay = speed.make_agent(CPU, script=script, **SIZES, **flags)
    flops = speed.count_flops(agent)
    flops["whole"] = sum(flops.values())
    for part, work in speed.parts_of_update(agent, replay).items():
        assert count(work) == flops[part].tolist(), part


@pytest.mark.parametrize("channels, largest", [((9, 5, 7, 4), 0), ((3, 90, 7, 4), 1)])
def test_rate_of_convolutions(channels, largest):
    """Measured on the encoder's largest, whose input is the images or not."""
    agent, _ = speed.make_agent(CPU, script=speed.rpg_pixels, **SIZES | CONVOLUTIONS | {"channels": channels})
    assert speed.layers(agent.model.encoder)[:, 1].argmax() == largest
    work, flops = speed.convolve(agent)
    assert count(work) == [0, flops]


def test_costs_of_an_environment():
    cost = speed.measure_env("cheetah-back")
    assert 0 < cost["raw_ms"] < cost["decision_ms"] < 10
    assert speed.measure_env("maze")["raw_ms"] is None  # no simulator

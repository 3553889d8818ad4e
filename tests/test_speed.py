"""benchmark/speed.py counts multiply-adds from the layers; torch counts those of the products that really run."""

import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmark"))
import speed  # noqa: E402


@pytest.mark.parametrize("horizon", [1, 3])
def test_floor_counts_the_products_that_run(horizon):
    sizes = dict(batch_size=16, hidden_dim=48, rnd_dim=24, horizon=horizon)
    agent, replay = speed.make_agent(torch.device("cpu"), **sizes)
    flops = speed.count_flops(agent)
    for part, work in speed.parts_of_update(agent, replay).items():
        with FlopCounterMode(display=False) as counter:
            work()
        assert counter.get_total_flops() == (flops[part] if part in flops else sum(flops.values())), part


def test_costs_of_an_environment():
    cost = speed.measure_env("cheetah-back")
    assert 0 < cost["raw_ms"] < cost["decision_ms"] < 10
    assert speed.measure_env("maze")["raw_ms"] is None  # no simulator

"""benchmark/speed.py counts multiply-adds from the layers; torch counts those that really run."""

import sys
from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmark"))
import speed  # noqa: E402

import envs  # noqa: E402

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


@pytest.mark.parametrize("env_id, tolerance", [("cheetah-back", 1e-12), ("metaworld-basketball", 0.05)])
def test_costs_of_an_environment(monkeypatch, env_id, tolerance):
    """By a clock that a simulator step sets forward by a millisecond, and a decision by one more. (Meta-World's hand is
    led in two halves of a decision, the simulator alone in one.)"""
    substeps = envs.make_env(env_id).unwrapped.substeps
    milliseconds, simulated, decided = 0, [], []

    def simulate(model, data, nstep=1, step=mujoco.mj_step):
        nonlocal milliseconds
        step(model, data, nstep)
        milliseconds += nstep
        simulated.append(data.qpos.copy())

    def make_env(*args, make=speed.make_env, **kwargs):
        env = make(*args, **kwargs)
        decide = env.step

        def step(action):
            nonlocal milliseconds
            milliseconds += 1
            result = decide(action)
            decided.append(simulated[-1])
            return result

        monkeypatch.setattr(env, "step", step)
        return env

    monkeypatch.setattr(mujoco, "mj_step", simulate)
    monkeypatch.setattr(speed, "make_env", make_env)
    monkeypatch.setattr(speed.time, "perf_counter", lambda: milliseconds / 1e3)
    assert speed.measure_env(env_id) == pytest.approx({"decision_ms": substeps + 1, "raw_ms": substeps})
    difference = np.abs(np.subtract(decided[-50:], simulated[-50:])).max()  # the same work, in every round
    assert difference < tolerance and np.ptp(decided[-50:], axis=0).max() > 0.4


def test_costs_of_an_environment_without_a_simulator():
    cost = speed.measure_env("maze")
    assert cost["decision_ms"] > 0 and cost["raw_ms"] is None

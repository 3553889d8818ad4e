"""How fast is an update, and how far from the floor; what does a decision of each environment cost; what bounds a run?

    python benchmark/speed.py            # tables; some minutes, on a machine that does nothing else
    python benchmark/speed.py --json     # and one JSON object as the last line

The floor of an update is the multiply-adds of its matrix products, counted from the layers, at the rate at which this
machine multiplies 512×256 by 256×256 in the same run. Times are those of the fastest of several rounds.
"""

import argparse
import functools
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import rpg  # noqa: E402
from envs import TASKS, make_env, make_vector_env  # noqa: E402

SIZES = {"paper": {}, "laptop": {"batch_size": 128, "hidden_dim": 128, "rnd_dim": 256}}
OBS_DIM, OBJECT_DIM, ACT_DIM = 130, 6, 4  # near basketball's
ROUNDS, SECONDS = 10, 0.3  # rounds of a measurement, and their length


def macs(net):
    """Multiply-adds of a forward pass of one sample: the entries of its weight matrices."""
    return sum(p.numel() for p in net.parameters() if p.ndim == 2)


def first(net):
    """Those of its first layer, whose input needs no gradient."""
    return next(p.numel() for p in net.parameters() if p.ndim == 2)


def count_flops(agent):
    """{part: floating-point operations of the matrix products in one full update}, two for each multiply-add. Trained
    layers take three products (forward, gradients of weights and of inputs), layers that only pass a gradient on two."""
    args, model, policy, posterior, rnd = agent.args, agent.model, agent.policy, agent.posterior, agent.rnd
    rows, value = args.horizon * args.batch_size, macs(model.values[0])
    step = macs(policy) + macs(model.action_encoder) + macs(model.gru) + macs(model.state_head)
    inform = macs(posterior) if posterior else 0
    parts = {"rnd": args.batch_size * (4 * macs(rnd.g) - first(rnd.g)) if rnd else 0}
    target = rows * (macs(model.encoder) + macs(model.init_hidden)
                     + args.horizon * (step + macs(model.reward_head) + 2 * value + inform))
    train = args.batch_size * (3 * macs(model.encoder) - first(model.encoder) + 3 * macs(model.init_hidden))
    train += rows * (3 * macs(model.action_encoder) - first(model.action_encoder))
    train += rows * 3 * (macs(model.gru) + macs(model.state_head) + macs(model.reward_head) + 2 * value)
    parts["model"] = target + train + (rows * 2 * macs(rnd.g) if rnd else 0)
    imagine = rows * (3 * macs(policy) + 2 * (step - macs(policy) + macs(model.reward_head) + value + inform))
    imagine -= args.batch_size * (first(policy) + macs(model.gru) // 2)  # the first s and h need no gradient
    parts["policy"] = args.batch_size * (macs(model.encoder) + macs(model.init_hidden)) + imagine
    parts["policy"] += rows * (3 * inform - first(posterior)) if posterior else 0
    return {part: 2.0 * n for part, n in parts.items()}


def fastest(works):
    """{name: seconds of one call of works[name](), the device's part included, in its fastest round}. Rounds of all take
    turns, so that what disturbs this machine for a while disturbs all of them."""
    best = {}
    for _ in range(ROUNDS):
        for name, work in works.items():
            calls, start = 0, time.perf_counter()
            while calls < 2 or time.perf_counter() - start < SECONDS:
                work()
                calls += 1
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            best[name] = min(best.get(name, np.inf), (time.perf_counter() - start) / calls)
    return best


def multiply(device):
    """What the floor's rate is measured by: 50 products of 512×256 by 256×256."""
    a, b = torch.randn(512, 256, device=device), torch.randn(256, 256, device=device)
    return lambda: [a @ b for _ in range(50)]


MULTIPLY_FLOPS = 50 * 2.0 * 512 * 256 * 256


def make_agent(device, compile=False, **sizes):
    """An agent and a filled replay: (agent, replay)."""
    args = rpg.Args(compile=compile, **sizes)
    torch.manual_seed(0)
    agent = rpg.Agent(OBS_DIM, OBJECT_DIM, ACT_DIM, args.latent_dim, args, device)
    replay = rpg.Replay(20_000, args.num_envs, OBS_DIM, ACT_DIM, args.latent_dim, device)
    for t in range(1000):
        outcome = torch.tensor([0.0, 0.0, t % 101 == 100, t % 101], device=device).expand(args.num_envs, 4)
        obs, a = torch.randn(args.num_envs, OBS_DIM), torch.randn(args.num_envs, ACT_DIM).tanh()
        replay.add(obs.to(device), a.to(device), torch.randn(args.num_envs, args.latent_dim, device=device), outcome)
    return agent, replay


def parts_of_update(agent, replay):
    """{part: a function that does it}."""
    args = agent.args
    return {
        "rnd": lambda: agent.descend(agent.rnd_losses, replay.sample_states(args.batch_size)),
        "model": lambda: agent.descend(agent.model_losses, replay.sample_segments(args.batch_size, args.horizon)),
        "policy": lambda: agent.descend(agent.policy_losses, replay.sample_states(args.batch_size)),
        "whole": lambda: agent.update(replay, True, True),
    }


def measure_update(name, device):
    """Prints the table of one size; returns its entry of the JSON object."""
    works = {("multiply", ""): multiply(device)}
    for mode in ("eager", "compiled"):
        torch.compiler.reset()  # the compiled functions of another agent have other sizes
        agent, replay = make_agent(device, mode == "compiled", **SIZES[name])
        for part, work in parts_of_update(agent, replay).items():
            work(), work()  # compiles
            works[mode, part] = work
    ms = {key: 1e3 * seconds for key, seconds in fastest(works).items()}
    rate = MULTIPLY_FLOPS / ms["multiply", ""]  # a millisecond
    flops = count_flops(agent)
    flops["whole"] = sum(flops.values())
    print(f"\n{name}: batch {agent.args.batch_size}, width {agent.args.hidden_dim}, RND {agent.args.rnd_dim}, horizon "
          f"{agent.args.horizon}; this machine, meanwhile: {rate / 1e6:.0f} GFLOP/s\n"
          f"{'':8}{'GFLOP':>8}{'floor ms':>10}{'eager ms':>10}{'÷ floor':>9}{'compiled':>10}{'÷ floor':>9}")
    for part, n in flops.items():
        eager, compiled = ms["eager", part], ms["compiled", part]
        print(f"{part:8}{n / 1e9:8.2f}{n / rate:10.2f}{eager:10.2f}{eager * rate / n:9.2f}{compiled:10.2f}"
              f"{compiled * rate / n:9.2f}")
    return {"gflop": flops["whole"] / 1e9, "floor_ms": flops["whole"] / rate, "eager_ms": ms["eager", "whole"],
            "compiled_ms": ms["compiled", "whole"]}


def growth(device):
    """How the time of an eager update of laptop size grows with each size."""
    print("\nan eager update of laptop size, ms:")
    for name, values in (("batch_size", (32, 64, 128, 256, 512)), ("hidden_dim", (64, 128, 256, 512)),
                         ("horizon", (1, 3, 5, 10))):
        works = {}
        for value in values:
            agent, replay = make_agent(device, **SIZES["laptop"] | {name: value})
            works[value] = functools.partial(agent.update, replay, True, True)
        print(f"  {name:12}" + "   ".join(f"{value}: {1e3 * seconds:.1f}" for value, seconds in fastest(works).items()))


def measure_env(env_id):
    """{decision_ms, raw_ms}: a random decision, and its simulator steps alone."""
    import mujoco

    env = make_env(env_id, seed=1)
    task, rng = env.unwrapped, np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (50, *env.action_space.shape)).astype(np.float32)
    sim = getattr(task, "sim", task)  # the package's own environment inside some tasks
    substeps = getattr(task, "substeps", 0)  # mj_step calls a decision; the maze has none
    controls, best = [], {}

    def decide():
        for action in actions:
            env.step(action)
            if substeps:
                controls.append((sim.data.ctrl.copy(), sim.data.mocap_pos.copy()))

    def simulate():
        for control, mocap in controls[:50]:
            sim.data.ctrl[:], sim.data.mocap_pos[:] = control, mocap
            mujoco.mj_step(sim.model, sim.data, nstep=substeps)

    for _ in range(20):
        for work in (decide, simulate) if substeps else (decide,):
            env.reset(seed=2)
            start = time.perf_counter()
            work()
            best[work.__name__] = min(best.get(work.__name__, np.inf), 1e3 * (time.perf_counter() - start) / 50)
    env.close()
    return {"decision_ms": best["decide"], "raw_ms": best.get("simulate")}


def end_to_end(device, name="laptop", env_id="metaworld-basketball"):
    """Where the time of a step of all environments goes: acting, the update (every other with policy), the simulators."""
    agent, replay = make_agent(device, **SIZES[name])
    n, calls = agent.args.num_envs, [0]
    obs, z = torch.randn(n, OBS_DIM, device=device), torch.randn(n, agent.args.latent_dim, device=device)
    envs = make_vector_env(env_id, n, seed=1)
    envs.reset(seed=1)

    def act():
        with torch.no_grad():
            agent.policy(agent.model.encoder(obs), z)[0].cpu()

    def update():
        calls[0] += 1
        agent.update(replay, calls[0] % 2 == 0, calls[0] % 2 == 0)

    actions = np.zeros((n, ACT_DIM), np.float32)
    works = {"act": act, "update": update, "simulate": lambda: envs.step(actions)}
    ms = {name: 1e3 * seconds for name, seconds in fastest(works).items()}
    total = sum(ms.values())
    print(f"\n{name} settings, {n} × {env_id}, one after the other: " + ", ".join(f"{k} {v:.2f} ms" for k, v in ms.items())
          + f": {1e3 * n / total:.0f} environment steps a second, bound by {max(ms, key=ms.get)}")


def replay_memory():
    """GB of a full-size replay of this observation's size."""
    width = OBS_DIM + ACT_DIM + 12 + 4
    print(f"\na replay of 800 000 transitions of {width} float32: {800_000 * width * 4 / 1e9:.2f} GB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    wants_json = parser.parse_args().json
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"{device}, {torch.get_num_threads()} threads")
    result = {name: measure_update(name, device) for name in SIZES}
    growth(device)
    end_to_end(device)
    replay_memory()
    print(f"\n{'environment':28}{'decision ms':>12}{'raw ms':>9}{'÷':>7}{'a second':>10}")
    result["envs"] = {}
    for env_id in ("metaworld-basketball", "metaworld-stick-pull", *TASKS):
        cost = result["envs"][env_id] = measure_env(env_id)
        raw = f"{cost['raw_ms']:9.3f}{cost['decision_ms'] / cost['raw_ms']:7.2f}" if cost["raw_ms"] else f"{'-':>9}{'':7}"
        print(f"{env_id:28}{cost['decision_ms']:12.3f}{raw}{1e3 / cost['decision_ms']:10.0f}")
    if wants_json:
        print(json.dumps(result))

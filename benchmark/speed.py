"""How fast is an update, and how far from the floor; what does a decision of each environment cost; what bounds a run?

    python benchmark/speed.py                      # tables; some minutes, on a machine that does nothing else
    python benchmark/speed.py --json               # and one JSON object as the last line
    python benchmark/speed.py --num-threads 2      # as rpg.py, it uses one thread of the CPU else
    python benchmark/speed.py --obs-dim 39 --act-dim 4 --batch-size 256      # only the update of these sizes
    python benchmark/speed.py --script rpg_pixels  # only the updates of rpg_pixels.py
    python benchmark/speed.py --at-once 1 2 4      # only the steps a second of so many runs side by side

The floor of an update is the multiply-adds of its matrix products and convolutions, counted from the layers: products
at the rate at which this machine multiplies 512×256 by 256×256 in the same run; convolutions at that of the encoder's
largest one, forward and backward on a batch. Times are those of the fastest of several rounds.
"""

import functools
import json
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import rpg  # noqa: E402
import rpg_pixels  # noqa: E402
from envs import (  # noqa: E402
    TASKS,
    command_line,
    keep_freed_memory,
    make_env,
    make_vector_env,
    optimizer_states,
    refuse,
    write_checkpoint,
)

OBS_DIM, OBJECT_DIM, ACT_DIM = 130, 6, 4  # near basketball's
NUM_ENVS = 5
PAPER = {"obs_dim": OBS_DIM, "act_dim": ACT_DIM, "batch_size": 512, "hidden_dim": 256, "rnd_dim": 512, "horizon": 3}
SIZES = {"paper": PAPER, "laptop": PAPER | {"batch_size": 128, "hidden_dim": 128, "rnd_dim": 256}}
PIXELS = {key: size for key, size in PAPER.items() if key != "obs_dim"}  # images have one size
PIXELS |= {"channels": (128, 128, 128, 128), "strides": (2, 2, 2, 2)}
PIXELS_LAPTOP = {"batch_size": 64, "hidden_dim": 128, "rnd_dim": 128, "channels": (16, 32, 32, 32)}
PIXELS_SIZES = {"paper": PIXELS, "laptop": PIXELS | PIXELS_LAPTOP | {"strides": (4, 2, 1, 1)}}
PIXELS_CPU_BATCH = 32  # at the paper's other sizes; 512 images take a CPU about ten seconds an update
ROUNDS = 10  # of a measurement
SECONDS = 0.3  # a round, at least
MULTIPLY_FLOPS = 50 * 2.0 * 512 * 256 * 256  # of `multiply`


def layers(net):
    """(layers, 2): each layer's multiply-adds in a forward pass of one sample, as matrix products and as convolutions.
    They are the entries of its weight matrices, or those of its kernels times the positions of its output."""
    counts = []
    side = rpg_pixels.FRAME_SHAPE[-1]
    for module in net.modules():
        entries = sum(p.numel() for p in module.parameters(recurse=False) if p.ndim > 1)
        if isinstance(module, nn.Conv2d):
            side = (side - module.kernel_size[0]) // module.stride[0] + 1
            counts.append((0, entries * side**2))
        elif entries > 0:
            counts.append((entries, 0))
    return np.array(counts)


def macs(net):
    """(2,): those of all layers."""
    return layers(net).sum(0)


def first(net):
    """(2,): those of the first layer, whose input needs no gradient."""
    return layers(net)[0]


def count_flops(agent):
    """{part: floating-point operations in one full update (2,), of matrix products and of convolutions}, two for each
    multiply-add.

    Trained layers take three of them (forward, gradients of weights and of inputs), layers that only pass a gradient
    on two. The part "policy" includes p(z|s,a) and α; a learned prior is not counted.
    """
    args, model, policy, posterior, rnd = agent.args, agent.model, agent.policy, agent.posterior, agent.rnd
    rows = args.horizon * args.batch_size
    value = macs(model.values[0])
    step = macs(policy) + macs(model.action_encoder) + macs(model.gru) + macs(model.state_head)
    inform = macs(posterior) if posterior is not None else 0
    parts = {"rnd": np.zeros(2)}
    if rnd is not None:
        parts["rnd"] = args.batch_size * (4 * macs(rnd.g) - first(rnd.g))
    estimate = args.horizon * (step + macs(model.reward_head) + 2 * value + inform)
    target = rows * (macs(model.encoder) + macs(model.init_hidden) + estimate)
    train = args.batch_size * (3 * macs(model.encoder) - first(model.encoder) + 3 * macs(model.init_hidden))
    train += rows * (3 * macs(model.action_encoder) - first(model.action_encoder))
    train += rows * 3 * (macs(model.gru) + macs(model.state_head) + macs(model.reward_head) + 2 * value)
    parts["model"] = target + train
    if rnd is not None:  # the bonus
        parts["model"] += rows * 2 * macs(rnd.g)
    imagine = rows * (3 * macs(policy) + 2 * (step - macs(policy) + macs(model.reward_head) + value + inform))
    imagine -= args.batch_size * (first(policy) + macs(model.gru) // 2)  # the first s and h need no gradient
    parts["policy"] = args.batch_size * (macs(model.encoder) + macs(model.init_hidden)) + imagine
    if posterior is not None:
        parts["policy"] += rows * (3 * inform - first(posterior))
    return {part: 2.0 * n for part, n in parts.items()}


def fastest(works):
    """{name: seconds of one call of works[name](), the device's part included, in its fastest round}.

    Rounds of all take turns, so that what disturbs this machine for a while disturbs all of them.
    """
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
    """What the floor's rate is measured by: a function that does 50 products of 512×256 by 256×256."""
    a = torch.randn(512, 256, device=device)
    b = torch.randn(256, 256, device=device)

    def products():
        for _ in range(50):
            a @ b

    return products


def convolve(agent):
    """What the floor's rate of convolutions is measured by: (a function that does the encoder's largest one, forward
    and backward, on a batch of images; its floating-point operations)."""
    convolutions = agent.model.encoder.net[0]
    counts = layers(convolutions)[:, 1]
    index = int(counts.argmax())
    largest = convolutions[2 * index]  # behind each is a ReLU
    batch_size = agent.args.batch_size
    x = torch.rand(batch_size, convolutions[0].in_channels, *rpg_pixels.FRAME_SHAPE[1:], device=agent.device)
    with torch.no_grad():
        x = convolutions[: 2 * index](x)
        gradient = torch.randn_like(largest(x))
    inputs = [largest.weight]
    if index > 0:  # the images' gradient is not needed
        inputs.append(x.requires_grad_())

    def forward_and_backward():
        y = nn.functional.conv2d(x, largest.weight, stride=largest.stride)
        torch.autograd.grad(y, inputs, gradient)

    return forward_and_backward, 2.0 * batch_size * counts[index] * (1 + len(inputs))


def make_agent(device, mode="eager", script=rpg, obs_dim=OBS_DIM, act_dim=ACT_DIM, **sizes):
    """(agent, replay): an agent of rpg or rpg_pixels whose updates are eager, compiled, graphed or both, and 1000 rows
    of noise in episodes of 100 transitions. `sizes`: flags of the script."""
    args = script.Args(compile="compiled" in mode, cudagraphs="graphed" in mode, **sizes)
    torch.manual_seed(0)
    if script is rpg:
        shape = [obs_dim]  # of an observation
        agent_sizes = [obs_dim, min(OBJECT_DIM, obs_dim), act_dim]
        replay_sizes = [obs_dim, act_dim]
    else:
        shape = [rpg_pixels.FRAMES, *rpg_pixels.FRAME_SHAPE]
        agent_sizes = replay_sizes = [act_dim]
    agent = script.Agent(*agent_sizes, args.latent_dim, args, device)
    replay = script.Replay(20_000, args.num_envs, *replay_sizes, args.latent_dim, device)
    zeros = np.zeros(args.num_envs)
    for row in range(1000):
        t = row % 101
        if script is rpg:
            obs = torch.randn(args.num_envs, *shape, device=device)
        else:
            obs = torch.randint(256, (args.num_envs, *shape), dtype=torch.uint8, device=device)
        a = torch.randn(args.num_envs, act_dim, device=device).tanh()
        z = torch.randn(args.num_envs, args.latent_dim, device=device)
        replay.add(obs, a, z, reward=zeros, terminated=zeros, last=zeros + (t == 100), t=zeros + t)
    return agent, replay


def descend(loss, optimizer, parameters, args):
    """As in Agent.update: zero_grad, backward, clip, step."""
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, args.max_grad_norm)
    optimizer.step()


def parts_of_update(agent, replay):
    """{part: a function that does it}. The parts are those of Agent.update, which is the "whole" and the same in both
    scripts: what is changed there must be changed here, where tests/test_speed.py counts the same operations."""
    args = agent.args

    def update_rnd():
        states = replay.sample_states(args.batch_size)
        descend(agent.rnd_loss(states.obs), agent.rnd_optimizer, agent.rnd.g.parameters(), args)

    def update_model():
        loss, _ = agent.model_loss(replay.sample_segments(args.batch_size, args.horizon))
        descend(loss, agent.model_optimizer, agent.model.parameters(), args)

    def update_policy():
        states = replay.sample_states(args.batch_size)
        alpha = args.alpha * agent.log_alpha.detach().exp()
        with rpg.frozen(agent.model, agent.posterior):
            loss, s, a, entropy = agent.policy_loss(states.obs, states.z, alpha)
            descend(loss, agent.policy_optimizer, agent.policy.parameters(), args)
        info_loss = agent.posterior_loss(s, a, states.z)
        descend(info_loss, agent.posterior_optimizer, agent.posterior.parameters(), args)
        alpha_loss = args.alpha * agent.log_alpha.exp() * (entropy + agent.act_dim)
        descend(alpha_loss, agent.alpha_optimizer, [agent.log_alpha], args)

    return {
        "rnd": update_rnd,
        "model": update_model,
        "policy": update_policy,
        "whole": lambda: agent.update(replay, True, True),
    }


def measure_update(name, sizes, device, script=rpg):
    """Print the table of an update of these sizes (flags of the script); returns its entry of the JSON object."""
    works = {("multiply", ""): multiply(device)}
    modes = ["eager", "compiled"]
    if device.type == "cuda":
        modes += ["graphed", "compiled+graphed"]
    torch.compiler.reset()  # the compiled functions of an agent of other sizes
    for mode in modes:
        agent, replay = make_agent(device, mode, script, **sizes)
        for part, work in parts_of_update(agent, replay).items():
            if "graphed" in mode and part != "whole":  # a graph is a whole update
                continue
            for _ in range(rpg.GRAPH_WARMUP + 1):  # compiles and captures
                work()
            works[mode, part] = work
    if script is rpg_pixels:
        works["convolve", ""], convolve_flops = convolve(agent)
    ms = {key: 1e3 * seconds for key, seconds in fastest(works).items()}
    rates = np.array([MULTIPLY_FLOPS / ms["multiply", ""], np.inf])  # a millisecond; rpg.py has no convolutions
    meanwhile = f"{rates[0] / 1e6:.0f} GFLOP/s"
    if script is rpg_pixels:
        rates[1] = convolve_flops / ms["convolve", ""]
        meanwhile += f" in products, {rates[1] / 1e6:.0f} in convolutions"
    flops = count_flops(agent)
    flops["whole"] = sum(flops.values())
    floors = {part: (n / rates).sum() for part, n in flops.items()}
    shown = ", ".join(f"{key} {value}" for key, value in sizes.items())
    print(f"\n{name}: {shown}; this machine, meanwhile: {meanwhile}")
    print(f"{'':8}{'GFLOP':>8}{'floor ms':>10}{'eager ms':>10}{'÷ floor':>9}{'compiled':>10}{'÷ floor':>9}")
    for part, n in flops.items():
        eager, compiled, floor = ms["eager", part], ms["compiled", part], floors[part]
        print(
            f"{part:8}{n.sum() / 1e9:8.2f}{floor:10.2f}{eager:10.2f}{eager / floor:9.2f}{compiled:10.2f}"
            f"{compiled / floor:9.2f}"
        )
    for mode in modes[2:]:
        gain = ms["eager", "whole"] / ms[mode, "whole"]
        print(f"whole, {mode}: {ms[mode, 'whole']:.2f} ms, {gain:.1f} × as fast as eager")
    return {
        "gflop": flops["whole"].sum() / 1e9,
        "floor_ms": floors["whole"],
        **{f"{mode.replace('+', '_')}_ms": ms[mode, "whole"] for mode in modes},
    }


def growth(device):
    """Print how the time of an eager update of laptop size grows with each size."""
    print("\nan eager update of laptop size, ms:")
    grown = {"batch_size": (32, 64, 128, 256, 512), "hidden_dim": (64, 128, 256, 512), "horizon": (1, 3, 5, 10)}
    for name, values in grown.items():
        works = {}
        for value in values:
            agent, replay = make_agent(device, **SIZES["laptop"] | {name: value})
            works[value] = functools.partial(agent.update, replay, True, True)
        times = [f"{value}: {1e3 * seconds:.1f}" for value, seconds in fastest(works).items()]
        print(f"  {name:12}{'   '.join(times)}")


def measure_env(env_id):
    """{decision_ms, raw_ms}: milliseconds of a random decision, and of its simulator steps alone; the latter None
    where there is no simulator."""
    import mujoco

    env = make_env(env_id, seed=1)
    task = env.unwrapped
    actions = np.random.default_rng(0).uniform(-1, 1, (50, *env.action_space.shape)).astype(np.float32)
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

    works = [decide]
    if substeps:
        works.append(simulate)
    for _ in range(20):
        for work in works:
            env.reset(seed=2)
            start = time.perf_counter()
            work()
            best[work.__name__] = min(best.get(work.__name__, np.inf), 1e3 * (time.perf_counter() - start) / 50)
    env.close()
    return {"decision_ms": best["decide"], "raw_ms": best.get("simulate")}


def parts_of_step(device, mode, size, num_envs, env_id="metaworld-basketball"):
    """(environments, {part: a function that does it for two steps of all, of which one updates the policy}). The parts
    are those of rpg.py's loop, "together" all of them in its order; episodes, logs and checkpoints are left out."""
    agent, replay = make_agent(device, mode, num_envs=num_envs, **SIZES[size])
    z = torch.randn(num_envs, agent.args.latent_dim, device=device)
    sums = {}  # of the losses, as in rpg.py
    zeros = np.zeros(num_envs)
    actions = np.zeros((num_envs, ACT_DIM), np.float32)
    envs = make_vector_env(env_id, num_envs, seed=1)
    envs.reset(seed=1)
    host_obs = np.random.default_rng(0).standard_normal((num_envs, OBS_DIM), np.float32)

    def act():
        obs = torch.as_tensor(host_obs, device=device)
        a = agent.act(obs, z)
        actions[:] = a.cpu().numpy()
        return obs, a

    def launch(due):
        for key, value in agent.update(replay, due, due).items():
            sums[key] = sums.get(key, 0) + value

    def update(due):
        launch(due)
        if device.type == "cuda":
            torch.cuda.synchronize()

    def all_of_it(due):
        obs, a = act()
        launch(due)
        envs.step(actions)
        replay.add(obs, a, z, reward=zeros, terminated=zeros, last=zeros, t=zeros)

    def both(step):
        """A step with an update without the policy, then one with it."""

        def two_steps():
            step(False)
            step(True)

        return two_steps

    for _ in range(rpg.GRAPH_WARMUP + 1):
        both(update)()
    return envs, {
        "act": both(lambda due: act()),
        "update": both(update),
        "simulate": both(lambda due: envs.step(actions)),
        "together": both(all_of_it),
    }


def end_to_end(device, mode="eager", size="laptop", num_envs=NUM_ENVS):
    """Print the environment steps a second of rpg.py's loop, beside the sum of its parts: where a GPU updates while the
    simulators step, the whole should take less than the sum."""
    envs, works = parts_of_step(device, mode, size, num_envs)
    ms = {part: 1e3 * seconds / 2 for part, seconds in fastest(works).items()}
    together = ms.pop("together")
    parts = ", ".join(f"{part} {t:.2f}" for part, t in ms.items())
    print(
        f"  {num_envs:2} environments, {mode}: {1e3 * num_envs / together:6.0f} a second: a step of all takes "
        f"{together:.2f} ms; its parts, bound by {max(ms, key=ms.get)}: {parts} = {sum(ms.values()):.2f} ms"
    )
    envs.close()


def measure_share(index, counts, barrier, shares):
    """One process of `at_once`: its environment steps a second in each round that it takes part in."""
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    mode, size = "compiled+graphed", "paper"
    if device.type == "cpu":
        keep_freed_memory()
        mode, size = "eager", "laptop"
    envs, works = parts_of_step(device, mode, size, NUM_ENVS)
    for row, count in enumerate(counts):
        barrier.wait()
        if index < count:
            calls, start = 0, time.perf_counter()
            while time.perf_counter() - start < SECONDS * ROUNDS:
                works["together"]()
                calls += 1
            shares[row * max(counts) + index] = 2 * NUM_ENVS * calls / (time.perf_counter() - start)
        barrier.wait()
    envs.close()


def at_once(counts):
    """Print the environment steps a second of 1, 2, ... runs side by side: how many seeds a machine should make at a
    time. On a GPU at the paper's sizes, compiled and graphed; else at laptop sizes, eager."""
    spawn = multiprocessing.get_context("spawn")
    barrier, shares = spawn.Barrier(max(counts)), spawn.Array("d", len(counts) * max(counts))
    processes = [spawn.Process(target=measure_share, args=(i, counts, barrier, shares)) for i in range(max(counts))]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        if any(process.exitcode not in (None, 0) for process in processes):
            barrier.abort()  # the others need not wait for it
        time.sleep(0.1)
    failed = [str(process.exitcode) for process in processes if process.exitcode != 0]
    if failed:
        refuse(f"processes have failed, exit codes {', '.join(failed)}", 1)
    for count, each in zip(counts, np.array(shares).reshape(len(counts), -1)):
        print(f"  {count:2} at once: each {each[:count].mean():5.0f} steps a second, together {each.sum():5.0f}")


class Busy(gym.Env):
    """A simulator that takes `cost` seconds of a core's time for a decision."""

    observation_space = gym.spaces.Box(-1, 1, (OBS_DIM,))
    action_space = gym.spaces.Box(-1, 1, (ACT_DIM,))

    def __init__(self, cost):
        self.cost = cost
        self.obs = np.zeros(OBS_DIM, np.float32)

    def reset(self, seed=None, options=None):
        return self.obs.copy(), {}

    def step(self, action):
        end = time.thread_time() + self.cost  # so that it waits for its core as a simulator does
        while time.thread_time() < end:
            pass
        return self.obs.copy(), 0.0, False, False, {}


COSTS = {f"Busy-{microseconds}us-v0": microseconds for microseconds in (100, 300, 1000, 3000, 10_000)}
for env_id, cost in COSTS.items():
    if env_id not in gym.registry:  # workers import this file twice
        gym.register(env_id, Busy, kwargs={"cost": cost / 1e6}, max_episode_steps=10**9)


def async_break_even(num_envs=5):
    """Print from which cost of a decision on --async-envs is faster than one process; nothing else runs."""
    print(f"\n{num_envs} environments stepped in one process and in workers (--async-envs), by the cost of a decision:")
    actions = np.zeros((num_envs, ACT_DIM), np.float32)
    for env_id, cost in COSTS.items():
        vectors = {
            "one process": make_vector_env(f"speed:{env_id}", num_envs, 1),
            "workers": make_vector_env(f"speed:{env_id}", num_envs, 1, async_envs=True),
        }
        for envs in vectors.values():
            envs.reset(seed=1)
        seconds = fastest({kind: functools.partial(envs.step, actions) for kind, envs in vectors.items()})
        times = ", ".join(f"{kind} {1e3 * t:6.2f} ms" for kind, t in seconds.items())
        gain = seconds["one process"] / seconds["workers"]
        print(f"  {cost / 1e3:4} ms: {times}: {gain:.2f} × as fast with workers")
        for envs in vectors.values():
            envs.close()


def memory(key):
    """MB of this process's memory: VmRSS, now, or VmHWM, its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def full_replay(device):
    """Print what a replay of full size takes, and a checkpoint with it. To be measured first, or memory is there
    already."""
    agent, small = make_agent(device)
    for _ in range(2):
        agent.update(small, True, True)  # makes Adam's state
    before = memory("VmRSS")
    replay = rpg.Replay(agent.args.buffer_size, 5, OBS_DIM, ACT_DIM, agent.args.latent_dim, device)
    replay.data.fill_(1)
    replay.filled.fill_(len(replay.data))
    width = replay.data.shape[-1]
    took = memory("VmRSS") - before
    seconds = []
    with tempfile.TemporaryDirectory(dir=".") as folder:  # where runs would be
        for _ in range(3):
            start = time.perf_counter()
            state = {"agent": agent.state_dict(), "optimizers": optimizer_states(agent), "replay": replay.state_dict()}
            write_checkpoint(Path(folder), state)
            seconds.append(time.perf_counter() - start)
        size = sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e6
    print(
        f"\na full replay, 800 000 transitions of {width} float32: {took:.0f} MB of host memory; a checkpoint of "
        f"{size:.0f} MB takes {min(seconds):.2f} s; this process's peak, while it writes: {memory('VmHWM'):.0f} MB"
    )


def measure_envs():
    """Print the table of decisions; returns its entry of the JSON object, {environment: as `measure_env` returns}."""
    print(f"\n{'environment':28}{'decision ms':>12}{'raw ms':>9}{'÷':>7}{'a second':>10}")
    costs = {}
    for env_id in ("metaworld-basketball", "metaworld-stick-pull", *TASKS):
        costs[env_id] = measure_env(env_id)
        decision, raw = costs[env_id]["decision_ms"], costs[env_id]["raw_ms"]
        ratio = f"{'-':>9}{'':7}"
        if raw is not None:
            ratio = f"{raw:9.3f}{decision / raw:7.2f}"
        print(f"{env_id:28}{decision:12.3f}{ratio}{1e3 / decision:10.0f}")
    return costs


def main():
    parser = command_line(__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--num-threads", type=int, default=1, help="CPU threads of torch (default: 1)")
    parser.add_argument("--script", choices=["rpg", "rpg_pixels"], default="rpg", help="whose updates (default: rpg)")
    parser.add_argument(
        "--at-once", type=int, nargs="+", metavar="N", help="measure only N runs side by side, for each N"
    )
    for key, value in PAPER.items():
        flag = f"--{key.replace('_', '-')}"
        parser.add_argument(flag, type=int, help=f"measure only the update, of this size (else {value})")
    args = vars(parser.parse_args())
    given = {key: args[key] for key in PAPER if args[key] is not None}
    counts = args["at_once"] or []
    if any(value < 1 for value in [args["num_threads"], *counts, *given.values()]):
        refuse("sizes, --num-threads and --at-once must be at least 1")
    if counts and (given or args["json"] or args["script"] != "rpg" or args["num_threads"] != 1):
        refuse("--at-once: measures rpg.py at its own sizes, one thread a run; give no other flag")
    if args["script"] == "rpg_pixels" and "obs_dim" in given:
        refuse("--obs-dim: no effect with --script rpg_pixels")
    torch.set_num_threads(args["num_threads"])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"{device}, {torch.get_num_threads()} threads")
    if counts:
        at_once(counts)
        return
    if device.type == "cpu":
        keep_freed_memory()
    if args["script"] == "rpg_pixels":
        settings = dict(PIXELS_SIZES)
        if device.type == "cpu":
            settings["paper"] = PIXELS | {"batch_size": PIXELS_CPU_BATCH}
            print(f"no GPU: the paper's batch of {PIXELS['batch_size']} is cut to {PIXELS_CPU_BATCH}")
        if given:
            settings = {"given": settings["paper"] | given}
        result = {name: measure_update(name, sizes, device, rpg_pixels) for name, sizes in settings.items()}
    elif given:
        result = {"given": measure_update("given", PAPER | given, device)}
    else:
        full_replay(device)
        result = {name: measure_update(name, sizes, device) for name, sizes in SIZES.items()}
        growth(device)
        print("\nenvironment steps a second at laptop sizes, metaworld-basketball:")
        for num_envs in (1, 2, 5, 10, 20):
            end_to_end(device, num_envs=num_envs)
        if device.type == "cuda":
            for mode in ("eager", "compiled", "graphed", "compiled+graphed"):
                end_to_end(device, mode, "paper")
        async_break_even()
        result["envs"] = measure_envs()
    if args["json"]:
        print(json.dumps(result))


if __name__ == "__main__":
    main()

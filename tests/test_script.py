"""rpg.py as a user types it: a process for each run, with tiny flags, looking at what it prints and writes."""

import json
import os
import pty
import signal
import subprocess
import sys
import time

import imageio
import numpy as np
import pytest
import torch
from conftest import ROOT, run_script
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ENV = {**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
TINY = (
    "--hidden-dim 16 --state-dim 8 --rnd-dim 16 --batch-size 16 --learning-starts 50 --latent-dim 3 --num-envs 4 "
    "--eval-episodes 2 --eval-frequency 200 --checkpoint-frequency 200 --total-timesteps 400"
).split()
LOSSES = {
    "consistency_loss",
    "reward_loss",
    "value_loss",
    "policy_loss",
    "alpha",
    "alpha_loss",
    "entropy",
    "info_loss",
    "info_reward",
    "rnd_loss",
    "rnd_reward",
    "grad_norm",
    "values",
}


def start(cwd, *flags, **kwargs):
    command = [sys.executable, str(ROOT / "rpg.py"), *map(str, flags)]
    return subprocess.Popen(
        command, cwd=cwd, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs
    )


def run(cwd, *flags):
    """Exit code, standard output, standard error."""
    return run_script(cwd, "rpg.py", *flags)


def toy(cwd, *flags):
    """Run the toy environment, which must succeed: (run directory, summary)."""
    code, out, err = run(cwd, "--env-id", "toy_envs:Toy-v0", *TINY, *flags)
    assert code == 0, err
    summary = json.loads(out.splitlines()[-1])
    return cwd / summary["run_dir"], summary


def resume(cwd, run_dir, *flags):
    code, out, err = run(cwd, "--resume", run_dir, *flags)
    assert code == 0, err
    return out, json.loads(out.splitlines()[-1])


def scalars(run_dir):
    """{key: [(step, value)]} as TensorBoard shows them."""
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0}).Reload()
    return {key: [(e.step, e.value) for e in events.Scalars(key)] for key in events.Tags()["scalars"]}


def eval_rows(run_dir):
    header, *rows = (run_dir / "eval.csv").read_text().splitlines()
    assert header == "step,episode,return,length,success_final,success_any"
    return [tuple(map(float, row.split(","))) for row in rows]


def same(a, b):
    """Whether two nests of dicts, lists and tensors hold the same bits."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of 400 steps with checkpoints at 200 and 400: (directory above runs/, run directory, summary)."""
    cwd = tmp_path_factory.mktemp("finished")
    return cwd, *toy(cwd, "--capture-video", "--exp-name", "whole")


def test_files_keys_and_summary(finished):
    _, run_dir, summary = finished
    assert run_dir.name.startswith("toy_envs:Toy-v0__whole__1__")
    for name in ("args.json", "eval.csv", "model.pt", "checkpoint.pt", "buffer.pt"):
        assert (run_dir / name).stat().st_size > 0
    assert not list(run_dir.glob("*.new"))
    assert json.loads((run_dir / "args.json").read_text())["hidden_dim"] == 16
    logged = scalars(run_dir)
    assert {f"losses/{name}" for name in LOSSES} <= logged.keys()
    assert {"charts/SPS", "charts/episodic_length", "charts/success_final", "charts/success_any"} <= logged.keys()
    assert {"eval/episodic_return", "eval/success_final", "eval/success_any"} <= logged.keys()
    returns = logged["charts/episodic_return"]
    assert summary["global_step"] == 400 and summary["episodes"] == len(returns)
    assert [step for step, _ in returns] == sorted(step for step, _ in returns)
    assert summary["episodic_return"] == pytest.approx(np.mean([value for _, value in returns[-50:]]))
    assert {value for _, value in logged["charts/episodic_length"]} == {20.0}
    assert 0 <= summary["success_final"] <= summary["success_any"] <= 1
    assert {"run_dir", "env_id", "seed", "sps"} <= summary.keys()


def test_compile_without_a_compiler_is_one_line(tmp_path):
    env = {**ENV, "PATH": "", "CXX": "/no/compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, ROOT / "rpg.py", "--env-id", "toy_envs:Toy-v0", *TINY, "--compile"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "needs g++" in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_compiling_is_not_in_the_sps(tmp_path):
    """Eight seconds of what stands for torch.compile do not show in the speed that is logged. On a CPU --cudagraphs
    adds one line and changes nothing."""
    slow = f"""
import runpy, sys, time, torch
def slow_at_first(function, **options):
    def compiled(losses_of, *sample):
        time.sleep(0 if losses_of.__name__ in seen else 4)
        seen.add(losses_of.__name__)
        return function(losses_of, *sample)
    seen = {{"policy_losses"}}
    return compiled
torch.compile, sys.argv = slow_at_first, {["rpg.py", "--env-id", "toy_envs:Toy-v0", *TINY, "--compile", "--cudagraphs"]}
runpy.run_path({str(ROOT / "rpg.py")!r}, run_name="__main__")
"""
    env = {**ENV, "PYTHONPATH": f"{ENV['PYTHONPATH']}:{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", slow], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0 and done.stderr == "note: --cudagraphs is for a GPU: off\n", done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["global_step"] == 400 and summary["sps"] > 400 / 8
    assert scalars(tmp_path / summary["run_dir"])["charts/SPS"][-1] == (400, pytest.approx(summary["sps"], abs=0.06))


def test_evaluation_table_and_video(finished):
    _, run_dir, _ = finished
    rows = eval_rows(run_dir)
    assert [(step, episode) for step, episode, *_ in rows] == [(200, 0), (200, 1), (400, 0), (400, 1)]
    assert scalars(run_dir)["eval/episodic_return"][-1] == (400, pytest.approx(np.mean([row[2] for row in rows[2:]])))
    for step in (200, 400):
        frames = imageio.mimread(run_dir / "videos" / f"step-{step}.gif")
        assert 1 < len(frames) <= 20  # equal frames are merged
        assert all(frame.max() > frame.min() for frame in frames)


def test_two_runs_of_one_seed_are_identical_and_another_seed_differs(finished):
    cwd, run_dir, _ = finished
    again, _ = toy(cwd, "--exp-name", "again")
    other, _ = toy(cwd, "--exp-name", "other", "--seed", "2")
    model = torch.load(run_dir / "model.pt")
    assert same(model, torch.load(again / "model.pt")) and not same(model, torch.load(other / "model.pt"))


def test_a_resumed_run_is_the_uninterrupted_run_bit_for_bit(finished):
    cwd, run_dir, summary = finished
    halves, first = toy(cwd, "--exp-name", "halves", "--total-timesteps", "200")
    assert first["global_step"] == 200
    _, second = resume(cwd, halves, "--total-timesteps", "400")
    for name in ("model.pt", "buffer.pt"):
        assert same(torch.load(run_dir / name), torch.load(halves / name))
    for key in ("adam", "rng", "progress"):
        assert same(*(torch.load(path / "checkpoint.pt")[key] for path in (run_dir, halves)))
    assert eval_rows(run_dir) == eval_rows(halves)
    whole, parts = scalars(run_dir), scalars(halves)
    assert whole.pop("charts/SPS") and parts.pop("charts/SPS") and whole == parts
    assert second["episodes"] == summary["episodes"]


def test_finished_run_resumed_without_steps_is_evaluated(finished):
    cwd, run_dir, summary = finished
    before = eval_rows(run_dir)
    out, again = resume(cwd, run_dir, "--total-timesteps", "0", "--eval-episodes", "4")
    assert "no steps to take" in out and again["global_step"] == 400 and again["episodes"] == summary["episodes"]
    rows = eval_rows(run_dir)
    assert rows[: len(before)] == before and len(rows) == len(before) + 2  # the same episodes, and two more
    assert again["episodic_return"] == pytest.approx(np.mean([row[2] for row in rows[2:]]))
    assert [step for step, _ in scalars(run_dir)["eval/episodic_return"]] == [200, 400]  # no point twice
    resume(cwd, run_dir, "--total-timesteps", "0", "--eval-episodes", "1")
    assert eval_rows(run_dir) == rows  # nothing that was logged is lost


def test_half_written_checkpoints_are_never_used(finished):
    cwd, *_ = finished
    run_dir, _ = toy(cwd, "--exp-name", "torn", "--total-timesteps", "200")
    (run_dir / "checkpoint.pt.new").write_bytes(b"half")  # killed while writing: both files are dropped
    (run_dir / "buffer.pt.new").write_bytes(b"half")
    assert resume(cwd, run_dir)[1]["global_step"] == 200
    assert not list(run_dir.glob("*.new"))
    os.rename(run_dir / "buffer.pt", run_dir / "buffer.pt.new")  # killed between the two renamings: they are completed
    assert resume(cwd, run_dir)[1]["global_step"] == 200
    for path in (run_dir / "eval.csv", run_dir / "buffer.pt"):
        assert path.exists()


@pytest.mark.parametrize("flags", [["--eval-episodes", "100"], ["--async-envs"]], ids=" ".join)
def test_ctrl_c_saves_and_ends_in_order(tmp_path, flags):
    """Also in the middle of an evaluation, and with workers, to which a terminal sends it too."""
    process = start(
        tmp_path,
        "--env-id",
        "toy_envs:Toy-v0",
        *TINY,
        "--total-timesteps",
        "1000000",
        *flags,
        "--checkpoint-frequency",
        "0",
        start_new_session=True,
    )
    while not any(scalars(run_dir).get("losses/alpha") for run_dir in tmp_path.glob("runs/*")):
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    summary = json.loads(out.splitlines()[-1])
    assert process.returncode == 0 and "Traceback" not in err
    assert torch.load(tmp_path / summary["run_dir"] / "checkpoint.pt")["progress"][0] == summary["global_step"] > 0


@pytest.mark.parametrize(
    "flags, culprit",
    [
        (["--env-id", "toy_envs:ToyNaN-v0", *TINY], "observation"),
        (["--env-id", "toy_envs:Toy-v0", *TINY, "--reward-scale", "1e38"], "losses/"),
        (["--env-id", "toy_envs:Toy-v0", *TINY, "--learning-rate", "1e20"], "losses/"),
        (["--env-id", "toy_envs:ToyDeaf-v0", *TINY, "--learning-rate", "1e20"], "losses/"),  # nan, in its actions alone
    ],
)
def test_nan_stops_the_run_after_saving_what_is_good(tmp_path, flags, culprit):
    code, _, err = run(tmp_path, *flags, "--checkpoint-frequency", "40")
    (run_dir,) = tmp_path.glob("runs/*")
    assert code == 1 and culprit in err and "step" in err and err.strip().count("\n") == 0
    state, ring = torch.load(run_dir / "checkpoint.pt"), torch.load(run_dir / "buffer.pt")
    assert all(value.isfinite().all() for value in state["agent"].values()) and ring["data"].isfinite().all()


@pytest.mark.parametrize(
    "flags, dropped",
    [
        ("--latent none", "--latent-dim"),
        ("--latent categorical --learned-prior --prior-decay-start 100", ""),
        ("--rnd-coef 0 --no-autotune", "--rnd-dim"),
        ("--learned-prior --num-frequencies 0 --horizon 1", ""),
        ("--async-envs --rnd-buffer-size 100 --beta 0", ""),
    ],
)
def test_every_variant_trains(tmp_path, flags, dropped):
    tiny = list(TINY)
    if dropped:
        del tiny[tiny.index(dropped) : tiny.index(dropped) + 2]
    code, out, err = run(tmp_path, "--env-id", "toy_envs:Toy-v0", *tiny, *flags.split())
    assert code == 0, err
    logged = scalars(tmp_path / json.loads(out.splitlines()[-1])["run_dir"])
    assert all(np.isfinite(value) for key in logged for _, value in logged[key])
    assert ("losses/info_loss" in logged) == ("none" not in flags)
    assert ("losses/rnd_loss" in logged) == ("--rnd-coef" not in flags)
    assert ("losses/prior_loss" in logged) == ("--learned-prior" in flags)
    assert ("losses/alpha_loss" in logged) == ("--no-autotune" not in flags)


def test_the_readme_s_own_environment_trains(tmp_path):
    code = (ROOT / "README.md").read_text().split("```python\n")[1].split("```")[0]
    (tmp_path / "mine.py").write_text(code)
    command = [sys.executable, str(ROOT / "rpg.py"), "--env-id", "mine:Mine-v0", *TINY, "--checkpoint-frequency", "0"]
    out = subprocess.run(command, cwd=tmp_path, env=ENV | {"PYTHONPATH": "."}, check=True, capture_output=True).stdout
    assert json.loads(out.splitlines()[-1])["success_any"] is not None


def test_metaworld_smoke(tmp_path):
    flags = [*TINY[:-4], "--checkpoint-frequency", "0", "--total-timesteps", "450", "--eval-episodes", "1"]
    code, out, err = run(tmp_path, "--env-id", "metaworld-basketball", "--env-options", "fixed-ball", *flags)
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["success_final"] == 0.0


@pytest.mark.parametrize(
    "flags, says",
    [
        (["--env-id", "HalfChetah-v5"], "HalfCheetah-v5"),
        (["--env-id", "metaworld-basketbal"], "metaworld-basketball"),
        (["--env-id", "CartPole-v1"], "discrete"),
        (["--env-id", "toy_envs:Toy-v0", "--env-options", "fixed-ball"], "fixed-ball"),
        (["--env-id", "Pendulum-v1", "--num-frequencies", "3"], "--num-frequencies"),
        (["--seed", "99999999999999999999"], "--seed"),
        (["--resume", ""], "--resume"),
        (["--env-id", "Pendulum-v1", "--buffer-size", "1000000000000000"], "memory"),
        (["--env-id", "Pendulum-v1", "--hidden-dim", "6000000"], "memory"),
        (["--horizon", "0"], "--horizon 0"),
        (["--latent", "none", "--latent-dim", "6"], "--latent-dim"),
        (["--batch-size", "4096"], "--learning-starts"),
        (["--resume", "nowhere"], "nowhere"),
        (["--track"], "wandb"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_creates_nothing(tmp_path, flags, says):
    code, out, err = run(tmp_path, *flags)
    assert code == 2 and says in err and err.strip().count("\n") == 0, err
    assert not list(tmp_path.iterdir())


def test_bad_resume_is_one_line_and_changes_nothing(finished):
    cwd, run_dir, _ = finished
    for flags, says in ((["--hidden-dim", "32"], "--hidden-dim 32"), (["--seed", "9"], "--seed 9")):
        code, _, err = run(cwd, "--resume", run_dir, *flags)
        assert code == 2 and says in err and err.strip().count("\n") == 0
    broken = cwd / "broken"
    broken.mkdir()
    args = json.loads((run_dir / "args.json").read_text())
    for name in ("checkpoint.pt", "buffer.pt"):
        (broken / name).write_bytes((run_dir / name).read_bytes())
    (broken / "args.json").write_text(json.dumps(args | {"hidden_dim": 32}))
    code, _, err = run(cwd, "--resume", broken)
    assert code == 2 and "another shape" in err and err.strip().count("\n") == 0
    (broken / "args.json").write_text(json.dumps(args))
    (broken / "checkpoint.pt").write_bytes((run_dir / "checkpoint.pt").read_bytes()[:-2000])
    code, _, err = run(cwd, "--resume", broken)
    assert code == 2 and "damaged" in err and err.strip().count("\n") == 0
    assert sorted(path.name for path in broken.iterdir()) == ["args.json", "buffer.pt", "checkpoint.pt"]


def test_unwritable_directory_is_one_line(tmp_path):
    (tmp_path / "runs").write_text("a file")
    code, _, err = run(tmp_path, "--env-id", "toy_envs:Toy-v0", *TINY)
    assert code == 2 and "runs" in err and err.strip().count("\n") == 0


def test_cuda_without_a_gpu_is_a_warning(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    code, _, err = run(tmp_path, "--env-id", "toy_envs:Toy-v0", *TINY, "--total-timesteps", "100", "--cuda")
    assert code == 0 and "no GPU" in err and err.strip().count("\n") == 0


def test_progress_bar_on_a_terminal(tmp_path):
    parent, child = pty.openpty()
    command = [sys.executable, str(ROOT / "rpg.py"), "--env-id", "toy_envs:Toy-v0", *TINY]
    process = subprocess.Popen(command, cwd=tmp_path, env=ENV, stdout=child, stderr=child)
    os.close(child)
    text = b""
    try:
        while chunk := os.read(parent, 4096):
            text += chunk
    except OSError:  # the terminal's end, on Linux
        pass
    assert process.wait() == 0
    lines = text.decode().replace("\r\n", "\n").splitlines()
    assert json.loads(lines[-1])["global_step"] == 400
    assert "█" * 20 in text.decode() and "success_final" in text.decode() and "left" in text.decode()


def test_a_thousand_updates_learn(tmp_path):
    """The success of a dense toy task rises well above that of the first policy."""
    flags = (
        "--hidden-dim 32 --state-dim 16 --batch-size 64 --latent-dim 2 --num-envs 2 --horizon 2 --rnd-coef 0 --tau 0.02 "
        "--learning-rate 3e-3 --reward-scale 20 --consistency-coef 10 --eval-frequency 0 --learning-starts 100 "
        "--total-timesteps 2400"
    ).split()
    code, out, err = run(tmp_path, "--env-id", "toy_envs:ToyDense-v0", *flags)
    assert code == 0, err
    summary = json.loads(out.splitlines()[-1])
    logged = scalars(tmp_path / summary["run_dir"])
    before = np.mean([value for step, value in logged["charts/success_final"] if step <= 400])
    assert summary["success_final"] > max(0.8, before + 0.3)

"""benchmark/: curves of runs that are written here, pictures of what z does, the maze's tables; no training."""

import csv
import dataclasses
import json
import math
import os
import re
import subprocess
import sys

import imageio
import numpy as np
import pytest
import torch
import toy_envs
from conftest import ROOT, run_script
from solutions import drag
from torch.utils.tensorboard import SummaryWriter

import envs
import rpg
import rpg_maze

sys.path.insert(0, str(ROOT / "benchmark"))
import ant_gamma  # noqa: E402
import block_bonus  # noqa: E402
import collect  # noqa: E402
import experiments  # noqa: E402
import launch  # noqa: E402
import maze  # noqa: E402
import maze_bonus  # noqa: E402
import modes  # noqa: E402
import optima  # noqa: E402
import plot  # noqa: E402
import smoke  # noqa: E402
import soak  # noqa: E402
import value_bias  # noqa: E402

RESULTS = (ROOT / "docs/results.md").read_text()
SCRIPTS = sorted(path.name for path in (ROOT / "benchmark").glob("*.py") if path.name != "experiments.py")


def write_run(run_dir, points, **changes):
    """The directory of a run with `points` [(step, {key: value})] under charts/ and rpg.py's args.json."""
    run_dir.mkdir(parents=True)
    args = {"env_id": "some-env", "env_options": [], "exp_name": "rpg", "seed": 1, **changes}
    (run_dir / "args.json").write_text(json.dumps(args))
    with SummaryWriter(run_dir) as writer:
        for step, values in points:
            for key, value in values.items():
                writer.add_scalar(f"charts/{key}", value, step)
    return run_dir


def episodes(n=3, length=400, success=None, together=1):
    """Points of n·together episodes of rising return: `together` end at each point, which holds their mean."""
    points = []
    for i in range(n):
        values = {"episodic_return": float(i), "episodic_length": length}
        if success is not None:
            values |= {"success_final": success, "success_any": 1.0}
        points.append(((i + 1) * length * together, values))
    return points


def read_rows(table):
    with open(table, newline="") as file:
        return list(csv.DictReader(file))


# --- collect.py, plot.py


def test_any_users_runs_are_collected_and_drawn(tmp_path):
    """Whatever lies under runs/ is collected, or skipped with a line that says why; the picture shows the rest."""
    runs = tmp_path / "runs"
    write_run(runs / "a", episodes(success=1.0), exp_name="rpg", seed=1)
    write_run(runs / "b", episodes(success=0.0), exp_name="_odd, $name_ §", seed=-2)
    write_run(runs / "c $x' y", episodes(), env_id="Without-Success-v0", exp_name="rpg")
    write_run(runs / "d", episodes(success=0.5), env_id="metaworld-basketball", env_options=["fixed-ball"])
    write_run(runs / "no-episode", [])
    write_run(runs / "bandit", episodes())
    (runs / "bandit" / "bandit.png").touch()
    write_run(runs / "foreign", episodes())
    (runs / "foreign" / "args.json").write_text("[1]")
    (runs / "empty").mkdir()
    (runs / "file").touch()
    arguments = [*sorted(runs.iterdir()), runs / "nowhere"]
    code, out, err = run_script(tmp_path, "benchmark/collect.py", "a table.csv", *arguments)
    assert code == 0 and not err, err
    skipped = dict(line.split(" skipped: ") for line in out.splitlines()[:-1])
    assert {name.rpartition("/")[2]: reason.split(":")[0] for name, reason in skipped.items()} == {
        "no-episode": "no episode has ended yet",
        "bandit": "a run of rpg_bandit.py, whose result is its bandit.png",
        "foreign": "not a run of rpg.py",
        "empty": "not the directory of a run",
        "file": "not a directory",
        "nowhere": "no such directory",
    }
    rows = read_rows(tmp_path / "a table.csv")
    names = {(row["env_id"], row["options"], row["method"], row["seed"]) for row in rows}
    assert names == {
        ("some-env", "", "rpg", "1"),
        ("some-env", "", "_odd, $name_ §", "-2"),
        ("Without-Success-v0", "", "rpg", "1"),
        ("metaworld-basketball", "fixed-ball", "rpg", "1"),
    }
    assert {row["success_final"] for row in rows if row["env_id"] == "Without-Success-v0"} == {""}
    code, out, err = run_script(tmp_path, "benchmark/plot.py", "a table.csv")
    assert code == 0 and not err and out == "a table.png: 3 environments\n", err
    picture = imageio.v3.imread(tmp_path / "a table.png")
    assert picture.shape[1] > 1500 and len(np.unique(picture.reshape(-1, picture.shape[-1]), axis=0)) > 100


@pytest.mark.parametrize("together", [1, 5])
def test_mean_over_the_last_fifty_episodes(tmp_path, together):
    """By loops; a point that stands for five episodes that end together counts five."""
    length = 100
    points = episodes(400 // together, length, together=together)
    rows = collect.curve(write_run(tmp_path / "run", points))
    assert [row[0] for row in rows] == list(range(1000, 40_001, 1000))
    for step, success_final, success_any, episodic_return, coverage, _ in rows:
        returns = []
        for end, values in points:
            if end <= step:
                returns += [values["episodic_return"]] * together
        assert episodic_return == pytest.approx(np.mean(returns[-50:]), abs=1e-4), step
        assert success_final == success_any == coverage == ""


def test_mean_over_episodes_of_different_lengths(tmp_path):
    """Of environments whose episodes end by themselves: how many end together is logged, not guessed of their lengths;
    some points have no success, which is 0 beside others that have one."""
    rng = np.random.default_rng(0)
    step, ended, points, truth = 0, 0, [], []
    for _ in range(400):
        step += int(rng.integers(1, 60))
        n = int(rng.integers(1, 6))
        success = float(rng.random(n).round().mean()) if rng.random() < 0.8 else None
        ended += n
        values = {"episodic_return": n * 1.5, "episodic_length": float(rng.integers(4, 200)), "episodes": ended}
        if success is not None:
            values["success_final"] = values["success_any"] = success
        points.append((step, values))
        truth += [(step, n * 1.5, success)] * n  # an episode each
    rows = collect.curve(write_run(tmp_path / "run", points))
    assert len(rows) > 9
    for at, success_final, _, episodic_return, *_ in rows:
        last = [(value, success) for step, value, success in truth if step <= at][-50:]
        assert episodic_return == pytest.approx(np.mean([value for value, _ in last]), abs=1e-4)
        assert success_final == pytest.approx(np.mean([success or 0.0 for _, success in last]), abs=1e-4)


def test_a_log_that_ends_before_the_checkpoint_is_damaged(tmp_path):
    run_dir = write_run(tmp_path / "run", episodes(5))
    torch.save({"progress": (2900, 0, False)}, run_dir / "checkpoint.pt")
    assert collect.read_curve(run_dir)
    torch.save({"progress": (3100, 0, False)}, run_dir / "checkpoint.pt")
    with pytest.raises(ValueError, match="its log ends at step 2,000, its checkpoint is of 3,100"):
        collect.read_curve(run_dir)


def test_a_table_that_was_cut_is_refused(tmp_path):
    collect.write_table(tmp_path / "t.csv", [dict.fromkeys(collect.HEADER, "1")] * 2)
    (tmp_path / "link.csv").symlink_to(tmp_path / "t.csv")
    collect.write_table(tmp_path / "link.csv", collect.read_table(tmp_path / "t.csv"))
    assert (tmp_path / "link.csv").is_symlink() and len(collect.read_table(tmp_path / "t.csv")) == 2
    text = (tmp_path / "t.csv").read_text()
    (tmp_path / "t.csv").write_text(text[:-8])
    with pytest.raises(ValueError, match="line 3 has not 12 cells"):
        collect.read_table(tmp_path / "t.csv")


def test_a_table_of_runs_keeps_other_runs(tmp_path, capsys):
    """Those of one method and seed are replaced; seeds are in order of their numbers."""
    header, path = "| method | seed | step | x |", tmp_path / "t.md"
    rows = {"a": ("m", 10, ["1", "x, y"]), "b": ("m", 2, ["2", "z"]), "c": ("m", 10, ["3", "w"])}
    collect.write_markdown(path, header, rows.get, ["a"], "none")
    collect.write_markdown(path, header, rows.get, ["b"], "none")
    lines = [header, "|---|---|---|---|", "| m | 2 | 2 | z |", "| m | 10 | 1 | x, y |"]
    assert path.read_text().splitlines() == lines and capsys.readouterr().out.splitlines()[-2:] == lines[2:]
    rows["d"] = "m", 10, ["4", ""]
    collect.write_markdown(path, header, rows.get, ["c", "d"], "none")
    collect.write_markdown(path, header, rows.get, ["b"], "none")
    assert path.read_text().splitlines() == [*lines[:3], "| m | 10 | 4 |  |"]
    assert "d is another m, seed 10: it replaces the first" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        collect.write_markdown(path, "| other |", rows.get, ["a"], "none")
    assert "its first line is not | other |" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["ascii", "cp932"])
def test_consoles_that_lack_a_character(tmp_path, encoding):
    before = f"import sys; sys.stdout.reconfigure(encoding={encoding!r})"
    table = ROOT / "benchmark/results/laptop.csv"
    code, out, _ = run_script(tmp_path, "benchmark/plot.py", table, "--table", before=before)
    assert code == 0 and out.count("| metaworld-button") == 6


def test_rows_begin_with_the_first_episode(tmp_path):
    rows = collect.curve(write_run(tmp_path / "run", episodes(2, 2600, success=1.0)))
    rows = [row[:4] for row in rows]
    assert rows == [[3000, 1.0, 1.0, 0.0], [4000, 1.0, 1.0, 0.0], [5000, 1.0, 1.0, 0.0], [6000, 1.0, 1.0, 0.5]]


def test_rows_become_rarer():
    assert collect.grid(400) == [1000] and collect.grid(1000) == [1000] and collect.grid(1001) == [1000, 2000]
    assert collect.grid(99_999)[-2:] == [99_000, 100_000]
    assert collect.grid(107_000)[-4:] == [99_000, 100_000, 105_000, 110_000]


def test_hours_of_training(tmp_path):
    """By the clock, from the start of the script on; not between the end of a run and its resumption."""
    write_run(tmp_path / "run", [])
    length = {"charts/episodic_length": 1000, "charts/episodic_return": 0.0}
    for start, points in ((0, {1000: 7200, 2000: 10_800, 3000: 11_000}), (50_000, {3000: 57_200, 4000: 64_400})):
        resumed_at = 2000 if start else 0
        with SummaryWriter(tmp_path / "run", purge_step=resumed_at + 1, filename_suffix=str(start)) as writer:
            writer.add_text("hyperparameters", "flags", resumed_at, walltime=start)
            for step, walltime in points.items():
                for key, value in length.items():
                    writer.add_scalar(key, value, step, walltime)
    assert [row[-1] for row in collect.curve(tmp_path / "run")] == [2, 3, 5, 7]


def test_runs_of_the_maze_have_their_coverage(tmp_path):
    points = [(step, {"coverage": step / 10_000}) for step in (1000, 2000)]
    args = {"exp_name": "ours", "seed": 3, "goal": None, "z_baseline": False}
    write_run(tmp_path / "run", [*episodes(3, 500), *points])
    (tmp_path / "run/args.json").write_text(json.dumps(args))
    code, _, err = run_script(tmp_path, "benchmark/collect.py", "t.csv", "run")
    assert code == 0, err
    rows = [[row[key] for key in ("env_id", "options", "step", "coverage")] for row in read_rows(tmp_path / "t.csv")]
    assert rows == [["maze", "", "1000", "0.1"], ["maze", "", "2000", "0.2"]]


def test_runs_that_differ_in_more_than_the_seed_are_not_mixed(tmp_path):
    """Flags that change nothing, and those that are off, make no difference; the commit and the hash are noted."""
    first = write_run(tmp_path / "first", episodes(), batch_size=64, eval_frequency=10, exp_name="m")
    (first / "commit.txt").write_text("abc\nabc\ndef+\n")
    write_run(tmp_path / "second", episodes(), batch_size=64, seed=2, compile=True, new_switch=False, exp_name="m")
    write_run(tmp_path / "third", episodes(), batch_size=128, seed=3, exp_name="m")
    write_run(tmp_path / "other", episodes(), batch_size=128, seed=3, exp_name="n")
    code, out, err = run_script(tmp_path, "benchmark/collect.py", "t.csv", "first", "second", "other")
    assert code == 0, err
    before = (tmp_path / "t.csv").read_text()
    found = {(row["method"], row["seed"]): (row["commit"], row["flags"]) for row in read_rows(tmp_path / "t.csv")}
    assert [commit for commit, _ in found.values()] == ["abc def+", "", ""]
    (a, b), (c, d), (e, f) = found.values()
    assert b == d != f and len(b) == 8
    for arguments, says in (
        (["first", "third"], "first and third are both m on some-env, but differ in --batch-size"),
        (["third"], "table"),
    ):
        code, _, err = run_script(tmp_path, "benchmark/collect.py", "t.csv", *arguments)
        assert code == 2 and says in err and err.count("\n") == 1, err
    assert (tmp_path / "t.csv").read_text() == before
    code, _, err = run_script(tmp_path, "benchmark/collect.py", "u.csv", "third", "other")
    assert code == 0, err
    rows = [row | {"flags": ""} for row in read_rows(tmp_path / "u.csv") if row["method"] == "m"]
    collect.write_table(tmp_path / "u.csv", rows)  # as an older version wrote it
    code, _, err = run_script(tmp_path, "benchmark/collect.py", "u.csv", "first")
    assert code == 2 and "seed 3 in the table" in err and err.count("\n") == 1, err


def test_the_runs_of_a_figure(tmp_path, monkeypatch, capsys):
    """Only those that have the flags of an experiment, at either size."""
    (experiment,) = (e for e in experiments.EXPERIMENTS if (e.figure, e.method) == ("fig11", "rpg"))
    small, full = launch.Run(experiment, 1, False).args, launch.Run(experiment, 1, True).args
    others = {"other": {**small, "seed": 2, "batch_size": 1}, "no-experiment": {**small, "exp_name": "mine"}}
    for name, args in {"small": small, "full": full, **others}.items():
        write_run(tmp_path / "runs" / name, episodes(), **args)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(collect, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["collect.py", "fig11"])
    collect.main()
    first, last = capsys.readouterr().out.splitlines()
    assert first == "runs/other skipped: its flags are not those of rpg on cheetah-back in experiments.py"
    assert "2 runs added" in last
    names = [(row["env_id"], row["method"], row["seed"]) for row in read_rows(tmp_path / "fig11.csv")]
    assert set(names) == {("cheetah-back", "rpg", "1"), ("cheetah-back", "rpg-paper-settings", "1")}


def test_a_run_replaces_its_own_rows_only(tmp_path):
    """If it goes as far as they do."""
    first = write_run(tmp_path / "first", episodes(3), seed=1)
    again = write_run(tmp_path / "again", episodes(6), seed=1)
    other = write_run(tmp_path / "other", episodes(3), seed=2)
    for arguments in ([first, other], [again]):
        code, _, err = run_script(tmp_path, "benchmark/collect.py", "t.csv", *arguments)
        assert code == 0, err
    steps = [(row["seed"], row["step"]) for row in read_rows(tmp_path / "t.csv")]
    assert sorted(steps) == [("1", "1000"), ("1", "2000"), ("1", "3000"), ("2", "1000"), ("2", "2000")]
    code, out, _ = run_script(tmp_path, "benchmark/collect.py", "u.csv", first, again)
    assert f"{first} and {again}" in out and "replaces" in out and len(read_rows(tmp_path / "u.csv")) == 3
    for arguments, known in (([other, first], "its curve in t.csv"), ([again, first], again)):
        code, out, _ = run_script(tmp_path, "benchmark/collect.py", "t.csv", *arguments)
        assert f"{first} skipped: it ends at step 2,000, and {known} at 3,000" in out
        assert max(row["step"] for row in read_rows(tmp_path / "t.csv") if row["seed"] == "1") == "3000"
    larger = write_run(tmp_path / "larger", episodes(3), seed=1, batch_size=64)
    code, out, err = run_script(tmp_path, "benchmark/collect.py", "v.csv", first, larger)
    assert code != 0 and f"{first} and {larger}" in err and "leave one of them out" in err
    assert not (tmp_path / "v.csv").exists()


def test_tables_are_read_and_written_alike(tmp_path):
    """Also the committed ones, which are older than some columns: nothing is lost."""
    for name in ("laptop.csv", "laptop_5envs.csv"):
        table = ROOT / "benchmark/results" / name
        collect.write_table(tmp_path / name, collect.read_table(table))
        for old, new in zip(read_rows(table), read_rows(tmp_path / name), strict=True):
            assert old.pop("episodic_return") == new.pop("return")
            assert old.items() <= new.items() and not any(new[key] for key in new.keys() - old.keys())
        again = tmp_path / "again.csv"
        collect.write_table(again, collect.read_table(tmp_path / name))
        assert again.read_bytes() == (tmp_path / name).read_bytes()


def test_one_legend_in_one_order():
    """Known methods first, each once, with one colour and marker in all panels; the paper's curves of these methods."""
    seed = {"1": {1000: 0.0, 2000: 1.0}}
    curves = {
        ("adroit-door", ""): {"zeta": seed, "mbsac": seed, "rpg": {**seed, "2": {1000: 0.5, 3000: 0.5}}},
        ("other", ""): {"rpg": seed, "$alpha": {"1": {1000: 0.0}}},
        ("third", "an-option"): {"_beta": seed, "zeta": seed},
    }
    keys = dict.fromkeys(curves, "success_final") | {("third", "an-option"): "return"}
    paper, _ = plot.curves_of(plot.read(plot.PAPER))
    figure = plot.draw(curves, keys, paper, {"zeta": (1.234, 1.234), "rpg": (1.0, 2.0)})
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "RPG (1 to 2 seeds)",
        "no latent (MBSAC) (1 seed)",
        r"\$alpha (1 seed)",
        " _beta (1 seed)",
        "zeta (1 seed)",
        "paper, RPG",
        "paper, no latent (MBSAC)",
    ]
    note = " ".join(legend.get_title().get_text().split())
    assert "two simulator calls each in Meta-World and Adroit" in note
    assert note.endswith("Hours per million steps, by task, on the machine that was used: RPG 1.0 to 2.0, zeta 1.2.")
    panels = {axis.get_title(): axis for axis in figure.axes if axis.get_title()}
    assert list(panels) == ["adroit-door", "other", "third an-option"]
    assert not any(axis.get_legend() for axis in figure.axes)
    dashed = {title: [line for line in axis.lines if line.get_linestyle() == "--"] for title, axis in panels.items()}
    assert [len(lines) for lines in dashed.values()] == [2, 0, 0]
    assert "success" in panels["other"].get_ylabel() and "return" in panels["third an-option"].get_ylabel()
    found = {}  # title -> looks of the means
    for title, axis in panels.items():
        found[title] = {(line.get_color(), line.get_marker()) for line in axis.lines if line.get_linewidth() == 2}
    looks = set.union(*found.values())
    assert len(looks) == len({marker for _, marker in looks}) == 5
    assert len(found["adroit-door"] & found["third an-option"]) == 1  # zeta
    assert [len(axis.collections) for axis in panels.values()] == [1, 0, 0]  # an interval where there are two seeds
    many = plot.looks([f"method {i}" for i in range(20)])
    assert len(set(many.values())) == 20
    plot.plt.close("all")


def test_mean_where_all_seeds_have_a_value():
    steps, values = plot.mean_curve({"1": {2000: 1.0, 3000: 2.0, 4000: 3.0}, "2": {1000: 5.0, 2000: 2.0, 3000: 4.0}})
    assert steps.tolist() == [2000, 3000] and values.mean(0).tolist() == [1.5, 3.0]


def test_interval_of_the_mean():
    """Of two seeds: a mean of two draws is the lower value, the middle, or the upper one. Of many: normal."""
    low, high = plot.interval(np.array([[0.0, 5.0], [1.0, 5.0]]))
    assert low.tolist() == [0, 5] and high.tolist() == [1, 5]
    low, high = plot.interval(np.random.default_rng(0).standard_normal((400, 1)))
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.1)


def test_table_of_runs():
    """First steps at a level, and the ends, seed by seed; the paper's between its points."""
    points = {"2": [(1000, 0.0, 0.1), (2000, 0.85, 0.9)], "10": [(1000, 0.5, 0.5), (2000, 0.4, 1.0), (3000, 0.3, 1.0)]}
    rows = []
    for seed, values in points.items():
        for step, final, any_success in values:
            row = ["e", "o", "m", seed, str(step), str(final), str(any_success), "7", "", str(step / 500)]
            rows.append(dict(zip(collect.HEADER, row)))
    rows.append(
        dict.fromkeys(collect.HEADER, "") | {"env_id": "f", "method": "m", "seed": "1", "step": "1", "return": "7"}
    )
    curves, keys = plot.curves_of(rows)
    paper = {("e", ""): {"m": {"": {0: 0.0, 100_000: 0.4, 200_000: 0.6, 300_000: 0.55}}}}
    _, _, *lines = plot.table(rows, curves, keys, paper).splitlines()
    assert lines == [
        "| e o | m | 2 10 | 1k 1k | 2k 1k | 2k – | – – | 0.85/0.90 at 2k, 0.30/1.00 at 3k "
        "| 2k, –, –, 0.62 [0.40, 0.85] at 2k | 150k, –, –, 0.55 at 300k |",
        "| f | m | 1 |  |  |  |  | 7 at 0.001k |  |  |",
    ]
    assert plot.hours_per_million(rows) == {"m": (pytest.approx(2000), pytest.approx(2000))}
    rows.append(dict(zip(collect.HEADER, ["e", "p", "m", "2", "1000", "1", "1", "7", "", "5"])))
    assert plot.rates(plot.hours_per_million(rows)).endswith("was used: m 2000.0 to 5000.0.")


def test_the_papers_figures():
    """What experiments.py says of the paper is what paper.csv shows: steps within 5 %, for its points are far apart."""
    paper, keys = plot.curves_of(plot.read(plot.PAPER))
    known = [e for e in experiments.EXPERIMENTS if e.final is not None and e.figure != "fig8"]
    assert len(known) > 20
    for e in known:
        name = e.task.split()[0], ""
        points = paper[name][e.method][""]
        assert points[max(points)] == pytest.approx(e.final, rel=0.01, abs=0.01), e
        for level, step in ((0.5, e.half), (0.8, e.most)):
            if keys[name] == "success_final":
                text = plot.crossing(points, level)
                assert (text == "–") == (step is None), e
                assert step is None or float(text[:-1]) * 1000 == pytest.approx(step, rel=0.05), (e, text)


@pytest.mark.parametrize("command", re.findall(r"^`python (benchmark/.*)` prints$", RESULTS, re.M))
def test_numbers_of_the_documentation(tmp_path, command):
    """What docs/results.md shows below a command is what the command prints."""
    script, *arguments = command.split()
    arguments = [ROOT / argument if argument.endswith(".csv") else argument for argument in arguments]
    code, out, err = run_script(tmp_path, script, *arguments)
    assert code == 0 and f"`python {command}` prints\n\n{out}\n" in RESULTS, err


def test_numbers_of_the_bandit():
    """The command that stands above the bandit's table prints its rows."""
    command, shown = re.search(r"```bash\n(awk [^`]*)```\n\n.*\n\|---.*\n((?:\|.*\n)+)", RESULTS).groups()
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert sorted(done.stdout.splitlines()) == sorted(shown.splitlines()), done.stderr


# --- wrong input: one line, exit code 2


@pytest.mark.parametrize(
    "script, arguments, says",
    [
        ("collect.py", [], "required"),
        ("collect.py", ["t.csv"], "no run_dir"),
        ("collect.py", ["fig7"], "none of these"),
        ("collect.py", ["runs", "runs/a"], "the first argument is the CSV"),
        ("collect.py", ["t.csv", "nowhere"], "none of these"),
        ("collect.py", ["nowhere/t.csv", "runs/a"], "No such file"),
        ("collect.py", ["foreign.csv", "runs/a"], "not a CSV of collect.py"),
        ("collect.py", ["t.csv", "runs/a", "--bad"], "--bad"),
        ("launch.py", [], "required"),
        (
            "launch.py",
            ["button"],
            "there is metaworld-button-press-topdown-pixels, metaworld-button-press-topdown, "
            "metaworld-button-press-topdown-wall",
        ),
        ("launch.py", ["adroit-dor"], "there is adroit-door"),
        ("launch.py", ["fig11", "--methods", "sac"], "has rpg, mbsac, nornd"),
        ("launch.py", ["fig11", "--jobs", "0"], "--jobs"),
        ("launch.py", ["fig11", "--seeds", "one"], "--seeds"),
        ("launch.py", ["fig11", "--slurm", "gpu"], "partition=gpu"),
        ("plot.py", [], "required"),
        ("plot.py", ["nowhere.csv"], "No such file"),
        ("plot.py", ["empty.csv"], "no curves"),
        ("plot.py", ["header.csv"], "no curves"),
        ("plot.py", ["foreign.csv"], "no column"),
        ("plot.py", ["words.csv"], "could not convert"),
        ("plot.py", ["runs"], "Is a directory"),
        ("plot.py", ["good.csv", "nowhere/p.png"], "No such file"),
        ("plot.py", ["good.csv", "p.txt"], "not supported"),
        ("modes.py", [], "required"),
        ("modes.py", ["nowhere"], "not the directory of a run"),
        ("modes.py", ["runs/a"], "no model.pt"),
        ("modes.py", ["runs/maze"], "its maze.png shows what z does"),
        ("modes.py", ["runs/a", "--num-z", "0"], "--num-z"),
        ("modes.py", ["runs/a", "--num-z", "many"], "--num-z"),
        ("maze.py", ["--bad"], "--bad"),
        ("maze.py", ["--beside"], "--beside"),
        ("maze.py", ["--beside", "runs/a"], "no maze.npz"),
        ("maze.py", ["--beside", "runs/maze"], "runs/maze: "),
        ("maze.py", ["runs/a", "--beside", "runs/a"], "--beside"),
        ("maze.py", ["runs/a"], "none of these is a run"),
        ("plot.py", ["good.csv", "picture.png", "--table"], "--table draws no picture"),
        ("optima.py", ["cut.csv"], "cut.csv has a row"),
        ("maze_bonus.py", ["runs/a"], "no run of rpg_maze.py"),
        ("block_bonus.py", ["runs/a"], "no run of block-push"),
        ("value_bias.py", ["runs/a"], "no run of rpg.py"),
        ("ant_gamma.py", ["--gamma", "0.99"], "--gamma"),
        ("optima.py", [], "required"),
        ("optima.py", ["new.csv", "runs/maze"], "no run of cabinet-dense or ant-push"),
        ("optima.py", ["foreign.csv"], "not a CSV of optima.py"),
        ("smoke.py", ["no-such-env"], "known are"),
        ("speed.py", ["--batch-size", "0"], "at least 1"),
        ("torture.py", ["--kills", "0"], "--kills"),
        ("fuzz.py", ["--cases", "x"], "--cases"),
        ("soak.py", ["--env-id", "maze"], "the CSV"),
    ],
)
def test_wrong_input_is_one_line(tmp_path, script, arguments, says):
    write_run(tmp_path / "runs/a", episodes())
    write_run(tmp_path / "runs/maze", episodes())
    (tmp_path / "runs/maze/maze.npz").touch()
    header = ",".join(collect.HEADER) + "\n"
    for name, content in (
        ("empty.csv", ""),
        ("header.csv", header),
        ("good.csv", header + "e,,m,1,1000,0.5,,1.0,,,,\n"),
        ("words.csv", header + "e,,m,1,1000,half,,1.0,,,,\n"),
        ("foreign.csv", "a,b\n1,2\n"),
        ("cut.csv", ",".join(optima.HEADER) + "\nant-push,rpg,1,20"),
    ):
        (tmp_path / name).write_text(content)
    before = sorted(tmp_path.rglob("*"))
    code, _, err = run_script(tmp_path, f"benchmark/{script}", *arguments)
    assert code == 2 and says in err and len(err.splitlines()) == 1, err
    assert err.startswith(f"{script}: error: ") and sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("script", SCRIPTS)
def test_help(tmp_path, script):
    code, out, err = run_script(tmp_path, f"benchmark/{script}", "--help")
    assert code == 0 and not err and f"python benchmark/{script}" in out
    assert "OMP_NUM_THREADS" not in (ROOT / "benchmark" / script).read_text()


# --- modes.py


def make_agent(run_dir, **changes):
    """The directory of an untrained agent on toy_envs:Toy-v0, at step 60, with a replay of three episodes of ten steps
    in each of two environments; (agent, replay). `changes`: of rpg.py's flags."""
    args = rpg.Args(
        env_id="toy_envs:Toy-v0",
        num_envs=2,
        buffer_size=1000,
        hidden_dim=8,
        state_dim=4,
        rnd_dim=8,
        latent_dim=3,
        num_frequencies=2,
    )
    args = dataclasses.replace(args, **changes)
    torch.manual_seed(0)
    latent_dim = rpg.latent_size(args)
    agent = rpg.Agent(2, 1, 1, latent_dim, args, torch.device("cpu"))
    replay = rpg.Replay(args.buffer_size, 2, 2, 1, latent_dim, torch.device("cpu"))
    zeros = np.zeros(2)
    for row in range(3 * 11):
        t = row % 11
        obs = torch.tensor([[row / 100, 0.1], [-row / 100, 0.2]])
        replay.add(
            obs, torch.zeros(2, 1), torch.zeros(2, latent_dim), zeros, zeros, last=zeros + (t == 10), t=zeros + t
        )
    run_dir.mkdir(parents=True)
    (run_dir / "args.json").write_text(json.dumps(vars(args)))
    rpg.save(run_dir, agent, replay, obs.numpy(), torch.zeros(2, latent_dim), zeros, (60, 0, 6, [], False))
    return agent, replay


@pytest.mark.parametrize("latent, names", [("gaussian", "z 1"), ("categorical", "category 0"), ("none", "episode 1")])
def test_modes(tmp_path, latent, names):
    """Picture, video and a line for each z."""
    run_dir = tmp_path / "a $run"
    make_agent(run_dir, latent=latent)
    code, out, err = run_script(tmp_path, "benchmark/modes.py", run_dir, "--num-z", 5)
    assert code == 0 and not err, err
    lines = out.splitlines()
    assert lines[-2:] == [str(run_dir / "modes.png"), str(run_dir / "modes.mp4")]
    assert len(lines) == 2 + (3 if latent == "categorical" else 5) and lines[0].startswith(f"{names}: episodic_return ")
    assert "episodic_length 20, success_final" in lines[0]
    picture = imageio.v3.imread(run_dir / "modes.png")
    assert picture.shape[0] > 600 and len(np.unique(picture.reshape(-1, picture.shape[-1]), axis=0)) > 100
    assert sum(1 for _ in imageio.get_reader(run_dir / "modes.mp4")) == 21


def test_modes_without_renderer_or_checkpoint(tmp_path):
    make_agent(tmp_path / "run", env_id="toy_envs:Toy-v0")
    (tmp_path / "run/checkpoint.pt").write_bytes(b"damaged")
    before = "import toy_envs\ntoy_envs.Toy.metadata = {'render_modes': []}"
    (tmp_path / "out").mkdir()
    code, out, err = run_script(tmp_path, "benchmark/modes.py", "run", "--num-z", 2, "--out", "out", before=before)
    assert code == 0 and not err, err
    first, _, _, fourth, _ = out.splitlines()
    assert first.startswith("no video: ") and fourth.startswith("states visited in training are left out: ")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["modes.png"]


def test_one_start_state_and_one_z_a_path(tmp_path):
    """Each episode is what the policy does by hand; the same z twice is the same path."""
    agent, _ = make_agent(tmp_path / "run")
    env = envs.make_env("toy_envs:Toy-v0", 0)
    obs, _ = env.reset(seed=5)
    z, _ = modes.choose_z(agent, obs, 4, seed=1)
    again, _ = modes.choose_z(agent, obs, 4, seed=1)
    assert torch.equal(z, again) and len(set(z[:, 0].tolist())) == 4
    paths = [modes.play(agent, env, 5, one, True, False, 1) for one in (z[0], z[1], z[0])]
    assert np.array_equal(paths[0].obs, paths[2].obs) and not np.array_equal(paths[0].obs, paths[1].obs)
    assert paths[0].obs.shape == (21, 2) and np.array_equal(paths[0].obs[0], obs)
    env.reset(seed=5)
    for expected in paths[1].obs[1:]:
        obs, *_ = env.step(agent.act(obs, z[1], greedy=True).numpy())
        np.testing.assert_array_equal(obs, expected)


def test_an_episode_that_does_not_end_is_left(tmp_path, monkeypatch):
    agent, _ = make_agent(tmp_path / "run")
    monkeypatch.setattr(modes, "DECISIONS", 7)
    episode = modes.play(agent, envs.make_env("toy_envs:Toy-v0", 0), 5, torch.zeros(3), True, False, 1)
    assert episode.obs.shape == (8, 2) and episode.summary["episodic_length"] == 7
    assert math.isnan(episode.summary["episodic_return"])


def test_visited_states_and_when(tmp_path, monkeypatch):
    """The whole replay, oldest first, with the environment step of each, which ends at the run's."""
    agent, replay = make_agent(tmp_path / "run")
    env = envs.make_env("toy_envs:Toy-v0", 0)
    obs, t, step = modes.read_visits(rpg, tmp_path / "run", agent, env)
    assert obs.shape == (2 * 34, 2) and np.allclose(obs[0::2, 0], [*(np.arange(33) / 100), 0.32])
    expected = []
    for row in range(34):  # 30 rows in which both environments act; `save` adds the final observations
        expected += [2 * (row - row // 11)] * 2 if row < 33 else [60, 60]
    assert step.tolist() == expected and t[:22:2].tolist() == list(range(11))
    monkeypatch.setattr(modes, "POINTS", 20)
    fewer, *_ = modes.read_visits(rpg, tmp_path / "run", agent, env)
    assert 10 <= len(fewer) <= 20


# --- ant_gamma.py


def test_value_of_a_way_by_steps():
    """A way's value, place by place: the speed is kept around corners, and the walk goes on after the time limit."""
    way, speed, gamma = [(0.0, 0.0), (3.0, 4.0), (3.0, 10.0)], 0.2, 0.99
    place, ahead, total, rewards = np.zeros(2), way[1:], 0.0, []
    for _ in range(3000):
        left = 0.1 * speed
        while left > 0.0 and ahead:
            gap = math.dist(place, ahead[0])
            place = place + (np.array(ahead[0]) - place) * min(1.0, left / gap)
            left -= gap
            if left >= 0.0:
                ahead = ahead[1:]
        rewards.append(-0.1 * math.dist(place, envs.ANT_GOAL))
    for reward in reversed(rewards):
        total = reward + gamma * total
    assert ant_gamma.value(way, speed, gamma) == pytest.approx(total, rel=1e-9)
    assert ant_gamma.value(way, speed, 1.0) == pytest.approx(sum(rewards[:400]), rel=1e-9)


def test_speed_of_ants_in_a_replay(tmp_path, monkeypatch):
    """Of two environments one passes y = 9 m at decision 120, 90, 60, the other never; a checkpoint cuts the last."""
    args = rpg.Args(env_id="ant-push", num_envs=2, buffer_size=4000, latent="none")
    agent = rpg.Agent(33, 0, 8, 0, args, torch.device("cpu"))
    replay = rpg.Replay(4000, 2, 33, 8, 0, torch.device("cpu"))
    zeros = np.zeros(2)
    obs = torch.zeros(2, 33)
    for decision in (120, 90, 60, 30):
        for t in range(401 if decision > 30 else 200):
            obs[0, 1] = 9.0 * (t >= decision)
            replay.add(obs, torch.zeros(2, 8), torch.zeros(2, 0), zeros, zeros, last=zeros + (t == 400), t=zeros + t)
    (tmp_path / "args.json").write_text(json.dumps(vars(args)))
    rpg.save(tmp_path, agent, replay, obs.numpy(), torch.zeros(2, 0), zeros + 200, (2800, 0, 6, [], False))
    speed, passed, episodes = ant_gamma.speed_ahead(tmp_path)
    assert (round(speed, 6), passed, episodes) == (1.0, 3, 6)
    monkeypatch.setattr(ant_gamma, "EPISODES", 4)
    speed, passed, episodes = ant_gamma.speed_ahead(tmp_path)
    assert (round(speed, 6), passed, episodes) == (1.25, 2, 4)


def test_ways_of_an_ant_that_is_dragged():
    """In the simulator, too, γ decides at 1.3 m/s which way is worth more, and the way around leads to the room."""
    rewards = {}
    for way in (ant_gamma.AHEAD, ant_gamma.AROUND):
        rewards[way], successes, _, _ = drag(way[1:], speed=1.3)
        assert successes[-1] == (way is ant_gamma.AROUND)
    for gamma, best in ((0.99, ant_gamma.AHEAD), (0.998, ant_gamma.AROUND)):
        values = {way: gamma ** np.arange(400) @ r + gamma**400 / (1.0 - gamma) * r[-1] for way, r in rewards.items()}
        assert max(values, key=values.get) is best, gamma


# --- optima.py


def test_optima_of_states():
    """Doors open by 0.9 of 1.57 rad; the block 2 m further than at rest, at y = 8 m; the ant within 5 m of (0, 19)."""
    obs = np.zeros((4, 37), np.float32)
    obs[:, 3:5] = [[1.42, 0.0], [1.42, 1.42], [0.0, 1.42], [1.40, 1.40]]
    local, best = optima.doors(obs)
    assert local.tolist() == [True, False, False, False] and best.tolist() == [False, True, True, False]
    obs = np.zeros((4, 33), np.float32)
    obs[:, :2] = [[0.0, 10.0], [0.0, 10.0], [0.0, 14.1], [3.0, 23.1]]
    obs[:, -2] = [10.1, 9.9, 10.1, 8.0]
    local, best = optima.block(obs)
    assert local.tolist() == [True, False, False, False] and best.tolist() == [False, False, True, False]


@pytest.mark.parametrize("latent", ["categorical", "none"])
def test_optima_of_a_run(tmp_path, monkeypatch, latent):
    """Six episodes in two environments, of which the first environment's are in the better optimum; all z are 0. The
    two that `save` ends do not count."""
    monkeypatch.setitem(
        optima.TASKS, "toy_envs:Toy-v0", optima.Optima("-", "+", lambda obs: (obs.T[0] < 0, obs.T[0] > 0))
    )
    monkeypatch.setattr(toy_envs.Toy, "horizon", 10, raising=False)
    monkeypatch.setattr(optima, "EVERY", 40)
    make_agent(tmp_path / "run", latent=latent)
    rows = optima.count(tmp_path / "run")
    first = "0" if latent == "categorical" else ""
    ends = [(row["step"], row["z"], row["episodes"], row["local"], row["best"]) for row in rows]
    assert ends == [("40", first, "4", "0.5", "0.5"), ("80", first, "2", "0.5", "0.5")]
    monkeypatch.setattr(toy_envs.Toy, "horizon", 20)
    with pytest.raises(ValueError, match="no whole episode"):
        optima.count(tmp_path / "run")
    optima.draw("toy_envs:Toy-v0", rows).savefig(tmp_path / "p.png")
    picture = imageio.v3.imread(tmp_path / "p.png")
    assert len(np.unique(picture.reshape(-1, picture.shape[-1]), axis=0)) > 50


def test_a_shorter_run_replaces_no_optima(tmp_path, monkeypatch, capsys):
    values = ["ant-push", "rpg", "1", "40000", "", "1", "0", "0", "", ""]
    longer = dict(zip(optima.HEADER, values))
    collect.write_table(tmp_path / "o.csv", [longer], optima.HEADER)
    runs = {"short": [longer | {"step": "20000"}], "long": [longer | {"local": "1"}]}
    monkeypatch.setattr(optima, "count", lambda run_dir: runs[run_dir.name])
    for names, share in ((["short", "long"], "1"), (["short"], None)):
        monkeypatch.setattr(sys, "argv", ["optima.py", str(tmp_path / "o.csv"), *names, "--table"])
        if share is None:
            with pytest.raises(SystemExit, match="2"):
                optima.main()
        else:
            optima.main()
        out = capsys.readouterr().out
        assert out.startswith("short skipped: ") and "it ends before" in out.splitlines()[0]
        assert [row["local"] for row in optima.read_table(tmp_path / "o.csv")] == ["1"]


def test_table_of_optima():
    """Shares of all episodes of 100 000 steps, however many a z has of them; a step of 100 000 is in the first cell."""
    names = ["step", "z", "episodes", "local", "best"]
    shares = [(20_000, 0, 30, 0.5, 0.0), (100_000, 1, 10, 0.1, 0.2), (220_000, 0, 4, 0.25, 0.75)]
    run = {"env_id": "ant-push", "method": "rpg", "seed": "1"}
    rows = [run | {name: str(value) for name, value in zip(names, values)} for values in shares]
    line = optima.table(rows).splitlines()[-1]
    assert line == "| ant-push | RPG | 1 | 0.40 0.05 |  | 0.25 0.75 |"


@pytest.mark.parametrize("env_id", [*envs.TASKS, "metaworld-basketball"])
def test_panels_show_what_they_say(env_id):
    """Every axis of our environments is an entry that the observation has; places in metres lie in the arena."""
    if env_id == "block-push-pixels":
        return
    env = envs.make_env(env_id, 1)
    obs, _ = env.reset(seed=1)
    states = [obs]
    for _ in range(5):
        states.append(env.step(env.action_space.sample())[0])
    states = np.stack(states)
    panels = modes.panels_of(env_id, env.unwrapped.object_dim, states)
    assert panels and not any("principal" in panel.labels[0] for panel in panels)
    for panel in panels:
        places = panel.place(states, np.arange(6))
        assert places.shape == (6, 2) and np.isfinite(places).all()
        if "x, m" in panel.labels[0]:
            assert np.abs(places).max() < 20
    if env_id == "block-push":
        first, second, pusher = (panel.place(states, None)[0] for panel in panels)
        np.testing.assert_allclose([first, second, pusher], [*envs.BLOCK_STARTS, envs.PUSHER_START], atol=1e-6)
    if env_id == "metaworld-basketball":
        hand = env.unwrapped.sim.data.body("hand").xpos
        np.testing.assert_allclose(panels[0].place(states, None)[-1], hand[:2], atol=1e-5)
        np.testing.assert_allclose(panels[1].place(states, None)[-1], hand[1:], atol=1e-5)
    if env_id == "cheetah-back":
        np.testing.assert_allclose(
            panels[0].place(states, np.arange(6))[-1], [5, env.unwrapped.data.qpos[0]], rtol=1e-5
        )
    env.close()


def test_landmarks():
    """A goal that moves has no place to draw; the ant's walls are the simulator's."""
    (goal,) = modes.landmarks_of("block-push", (), "block 2")
    assert goal.center == (0.0, 1.4) and goal.radius == 0.2
    assert modes.landmarks_of("block-push", (), "pusher") == []
    assert modes.landmarks_of("block-push", ("random-blocks",), "block 2") == []
    goal, *walls = modes.landmarks_of("ant-push", (), "ant, from above")
    assert goal.center == (0.0, 19.0) and goal.radius == 5.0
    model = envs.make_env("ant-push").unwrapped.model  # a wall is a fixed box
    boxes = {tuple(model.geom_pos[i, :2]) for i in range(model.ngeom) if model.geom_bodyid[i] == 0}
    boxes &= {tuple(model.geom_pos[i, :2]) for i in range(model.ngeom) if model.geom_size[i, 0] == 4.0}
    assert {(wall.get_x() + 4.0, wall.get_y() + 4.0) for wall in walls} == boxes and len(walls) > 10


def test_panels_of_other_environments():
    rng = np.random.default_rng(0)
    line = rng.standard_normal(200)
    obs = np.stack([line, 5 * line, np.full(200, 3.0), 0.01 * rng.standard_normal(200)], -1).astype(np.float32)
    (panel,) = modes.panels_of("Other-v0", 0, obs)
    places = panel.place(obs, None)
    assert abs(np.corrcoef(places[:, 0], line)[0, 1]) > 0.99
    variances = np.linalg.eigvalsh(np.corrcoef(obs[:, [0, 1, 3]].T))  # without the entry that never changes
    assert f"({variances[-1] / 3:.0%} of variance)" in panel.labels[0]
    np.testing.assert_allclose(places.var(0), variances[:0:-1], rtol=1e-4)
    (panel,) = modes.panels_of("Other-v0", 2, obs)
    np.testing.assert_array_equal(panel.place(obs, None), obs[:, 2:])
    (panel,) = modes.panels_of("Other-v0", 1, obs)
    np.testing.assert_array_equal(panel.place(obs, np.arange(200))[:, 0], np.arange(200))


def test_frames_shrink_by_means():
    frame = np.zeros((400, 330, 3), np.uint8)
    frame[:3, :3] = 90
    small = modes.shrink(frame)
    assert small.shape == (133, 110, 3) and (small[0, 0] == 90).all() and (small[1:] == 0).all()
    assert modes.shrink(frame[:160, :160]).shape == (160, 160, 3)


# --- the maze's tables


def test_results_hold_one_run_under_each_name(tmp_path):
    """Steps rise and coverage never falls in the committed curves; two runs mixed under one name are refused."""
    for curve in maze.read(maze.RESULTS / "maze.csv", "method", "seed").values():
        assert (np.diff(np.array(curve), axis=0) >= [[1, 0]]).all()
    (tmp_path / "mixed.csv").write_text("method,seed,step,coverage\nours,1,5000,0.2\nours,1,5000,0.3\n")
    with pytest.raises(SystemExit, match="two runs"):
        maze.read(tmp_path / "mixed.csv", "method", "seed")


def test_numbers_of_the_maze(capsys):
    """The table in docs/results.md, and its count of pairs in the paper's order, are what maze.py prints."""
    ours = maze.read(maze.RESULTS / "maze.csv", "method", "seed")
    ours = dict(sorted(ours.items(), key=lambda item: int(item[0][1])))
    paper = maze.read(maze.RESULTS / "paper_maze.csv", "panel", "method")
    maze.table(ours, paper)
    assert capsys.readouterr().out in RESULTS
    maze.order(ours, paper)
    holds, pairs = re.search(r"(\d+) of (\d+) in the paper's order", capsys.readouterr().out).groups()
    assert f"Of the {pairs} pairs of curves" in RESULTS and f"in the paper, {holds} stand in the same order" in RESULTS


def test_order_compares_means_at_the_last_common_step(capsys):
    flat = {
        (maze.panel_letter(title), name): [(0.0, 0.0), (240e3, 0.5)]
        for title, methods in maze.PANELS.items()
        for name in methods.values()
        if name
    }
    paper = flat | {("A", "latent=None"): [(0.0, 0.0), (240e3, 0.38)]}  # behind two curves of its panel, by 0.12
    ours = {
        ("ours", "1"): [(5.0, 0.2), (10.0, 0.9)],
        ("none", "1"): [(5.0, 0.5), (10.0, 0.5)],
        ("none", "2"): [(5.0, 0.1)],
    }  # the last common step is 5, where none's mean is 0.3
    maze.order(ours, paper)
    _, _, *rows = capsys.readouterr().out.strip().splitlines()
    assert rows == [
        "| ours > none | 0.50 > 0.38 | 0.20, 0.30 (1, 2 seeds) | 5 | no |",
        "",
        "0 of 1 in the paper's order",
    ]
    paper = flat | {("D", "No buffer"): [(0.0, 0.0), (240e3, 0.38)]}
    maze.order(ours | {("small-replay", "1"): [(5.0, 0.1)], ("rnd-window-250", "1"): [(5.0, 0.3)]}, paper)
    _, _, *rows = capsys.readouterr().out.strip().splitlines()
    assert [(row.split(" | ")[0], row.split(" | ")[-1]) for row in rows[:1]] == [("| ours > small-replay", "yes |")]
    assert rows[-1] == "1 of 1 in the paper's order"  # RND's window alone is no curve of the paper


def test_collected_mazes(tmp_path, monkeypatch, capsys):
    """Coverage at every 5000th step; what is no run, is shorter, or has other flags, is skipped with a line; others'
    rows stay."""
    monkeypatch.setattr(maze, "RESULTS", tmp_path)
    (tmp_path / "maze.csv").write_text("method,seed,step,coverage\nours,1,5000,0.2\nnone,2,5000,0.1\n")
    (experiment,) = (e for e in experiments.EXPERIMENTS if (e.figure, e.method) == ("fig8", "ours"))
    args = launch.Run(experiment, 1, False).args
    long = [[0, 0.0], [4000, 0.4], [8000, 0.8], [11_000, 0.8]]
    for name, coverage, changes in (
        ("run", long, {}),
        ("short", long[:3], {}),
        ("tiny", long[:2], {"seed": 7}),
        ("other", long, {"seed": 9, "goal": "4,4"}),
        ("mine", long[:3], {"exp_name": "mine", "batch_size": 8}),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "args.json").write_text(json.dumps({**args, **changes}))
        np.savez(tmp_path / name / "maze.npz", coverage=coverage)
    maze.collect([tmp_path / name for name in ("run", "short", "tiny", "other", "mine", "nowhere")])
    out = capsys.readouterr().out.splitlines()
    assert [line.partition(" skipped: ")[0].rpartition("/")[2] for line in out] == ["short", "tiny", "other", "nowhere"]
    curves = maze.read(tmp_path / "maze.csv", "method", "seed")
    ours = [(5000, 0.5), (10_000, 0.8)]
    assert dict(curves) == {("mine", "1"): [(5000, 0.5)], ("none", "2"): [(5000, 0.1)], ("ours", "1"): ours}
    before = (tmp_path / "maze.csv").read_bytes()
    with pytest.raises(ValueError, match="none of these"):
        maze.collect([tmp_path / "short"])
    assert (tmp_path / "maze.csv").read_bytes() == before


def test_blocks_are_placed_as_the_environment_observes_them():
    env = envs.make_env("block-push", 0)
    env.reset(seed=0)
    for _ in range(30):
        obs, *_ = env.step(np.array([0.3, 1.0], np.float32))
    block_push, places = env.unwrapped, np.array([[0.7, -0.3], [0.1, 1.3]])
    for block, on_goal in ((0, [False, False]), (1, [False, True])):
        block_push._positions[block] = places[block]
        block_push._qvel.reshape(-1, 2)[block] = 0
        obs = block_bonus.place(torch.as_tensor(obs)[None], block, torch.as_tensor(places[block]).float())[0]
        np.testing.assert_allclose(obs, block_push._observation(), atol=1e-6)
        assert block_bonus.on_goal(obs).tolist() == on_goal
    env.close()


@pytest.mark.parametrize("latent", ["gaussian", "none"])
def test_value_bias_by_loops(tmp_path, monkeypatch, latent):
    """benchmark/value_bias.py, episode by episode: of the newest ones whose start is in the replay."""
    monkeypatch.setattr(toy_envs.Toy, "horizon", 10, raising=False)
    agent, replay = make_agent(tmp_path / "run", latent=latent, gamma=0.9, reward_scale=2.0)
    torch.nn.init.normal_(agent.model.values[1][0].bias)
    for _ in range(rpg.RND_WARMUP + 5):
        agent.rnd_loss(torch.randn(20, 2))
    replay.fields(replay.data).reward[12:22] = torch.rand(10, 2)  # in two of six episodes
    replay.fields(replay.data).obs[:] = torch.randn(*replay.data.shape[:2], 2)
    replay.fields(replay.data).a[:] = torch.randn(*replay.data.shape[:2], 1)
    rows = rpg.Rows(*[field[1:] for field in replay.in_order()])  # without the first episodes' starts
    expected = []
    with torch.no_grad():
        for start in (10, 21):
            for env in range(2):
                s = agent.model.encoder(rows.obs[start : start + 11, env])
                z = rows.z[start : start + 11, env]
                v = torch.minimum(*agent.model.value(s, z, twins=2))
                sums = [v[0].item(), 0.0, 0.0, 0.0, 0.9**10 * v[10].item()]
                for t in range(10):
                    at = start + t, env
                    sums[1] += 0.9**t * 2.0 * rows.reward[at].item()
                    sums[2] += 0.9**t * 0.1 * agent.rnd.bonus(rows.obs[at[0] + 1, env]).item()
                    if latent != "none":
                        sums[3] += 0.9**t * 0.005 * agent.posterior.log_prob(s[t], rows.a[at], z[t]).item()
                expected.append(sums)
    found = value_bias.parts(agent, value_bias.newest_episodes(rows, 10))
    assert list(found) == ["V", "rewards", "bonus", "log p", "end"]
    np.testing.assert_allclose(torch.stack(list(found.values()), 1), expected, atol=1e-5)
    monkeypatch.setattr(value_bias, "EPISODES", 3)
    assert value_bias.newest_episodes(rows, 10).obs.shape == (11, 3, 2)
    with pytest.raises(ValueError, match="no whole episode"):
        value_bias.newest_episodes(rpg.Rows(*[field[:12] for field in rows]), 10)

    monkeypatch.setattr(value_bias, "EPISODES", 4)
    state = envs.read_checkpoint(tmp_path / "run")
    envs.write_checkpoint(tmp_path / "run", state | {"agent": agent.state_dict(), "replay": replay.state_dict()})
    name, seed, cells = value_bias.row(tmp_path / "run")
    assert (name, seed, *cells[1:3]) == ("toy_envs:Toy-v0 rpg", 1, "4", "0.50")
    means = np.mean(expected, 0)
    np.testing.assert_allclose([float(cell) for cell in cells[3:]], [*means, means[1:].sum()], atol=0.0501)


def test_maze_bonus_by_loops(tmp_path):
    """The cells of benchmark/maze_bonus.py, from a checkpoint square by square."""
    torch.manual_seed(0)
    args = rpg_maze.Args(rnd_dim=32)
    rnd = rpg_maze.RND(4, 2, args)
    for _ in range(rpg_maze.RND_WARMUP + 5):
        rnd.update_normalizer(rnd.error(torch.rand(64, 4)).detach())
    visits = torch.arange(100).view(10, 10) // 7 % 3
    state = {"agent": {f"rnd.{key}": value for key, value in rnd.state_dict().items()}}
    envs.write_checkpoint(tmp_path, {**state, "progress": (3000, 0, 60, [], [], visits, [])})
    (tmp_path / "args.json").write_text(json.dumps(vars(args)))
    visits = visits.numpy()
    bonus = {}
    for x, y in np.ndindex(10, 10):
        points = [(x + (i + 0.5) / 10 - 5, y + (j + 0.5) / 10 - 5) for i in range(10) for j in range(10)]
        with torch.no_grad():
            bonus[x, y] = float(rnd.bonus(torch.tensor([[p / 100, q / 100, p / 5, q / 5] for p, q in points])).mean())
    old, new = ([bonus[xy] for xy in bonus if (visits[xy] > 0) == seen] for seen in (True, False))
    shares = [n / visits.sum() for n in visits.flat if n]
    method, seed, cells = maze_bonus.row(tmp_path)
    assert (method, seed) == ("rpg_maze", 1) and cells[:2] == ("3,000", f"{(visits > 0).mean():.2f}")
    np.testing.assert_allclose([float(cell) for cell in cells[2:4]], (np.mean(new), np.mean(old)), rtol=0.01)
    assert cells[4] == f"{np.mean([b > a for a in old for b in new]):.2f}"
    assert cells[5] == f"{np.exp(-sum(p * np.log(p) for p in shares)):.0f}"


# --- smoke.py, soak.py


def test_unvisited_states_of_the_maze():
    visited = envs.maze_observation(np.random.default_rng(1).uniform(-5, 0, (300, 2)))
    unvisited = smoke.unvisited_states("maze", visited)
    assert 100 < len(unvisited) < smoke.STATES and unvisited.dtype == np.float32
    assert not set(smoke.maze_cells(unvisited)) & set(smoke.maze_cells(visited))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_what_a_run_takes(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert soak.family(os.getpid())[0] == os.getpid() and child.pid in soak.family(os.getpid())
    rss, files, processes, cpu = soak.sample(os.getpid())
    assert rss > 50 and files > 3 and processes >= 2 and cpu > 0.1
    child.communicate(b"\n")
    (tmp_path / "out").write_text("step 2 of 9\nstep 1,234 of 5,678 | 9 steps/s\n")
    assert soak.last_step(tmp_path / "out") == 1234

"""The style of all Python files: ruff's format and checks (ruff.toml), and what this project adds to them."""

import subprocess
import sys

import pytest
from conftest import ROOT

SCRIPTS = sorted(path.name for path in ROOT.glob("rpg*.py"))


@pytest.mark.parametrize("command", ["format --check", "check"])
def test_ruff(command):
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *command.split(), "."], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_import_nothing_of_this_project_but_envs(script):
    imports = [line for line in (ROOT / script).read_text().splitlines() if line.startswith(("import ", "from "))]
    assert any(line.startswith("from envs import") for line in imports)
    assert not [line for line in imports if line.split()[1].split(".")[0].startswith("rpg")]

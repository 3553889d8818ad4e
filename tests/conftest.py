"""Let the tests import the scripts that lie one directory up, wherever pytest is started."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
torch.set_num_threads(1)  # the networks of the tests are tiny: more threads only wait for each other


@pytest.fixture(scope="session")
def opengl():
    probe = "import envs, mujoco; mujoco.Renderer(mujoco.MjModel.from_xml_string('<mujoco/>'), 16, 16).render()"
    run = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True)
    if run.returncode != 0:
        pytest.skip("no OpenGL here: apt install libegl1 libegl-mesa0 libgl1-mesa-dri")

"""Let the tests import the scripts that lie one directory up, wherever pytest is started."""
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
torch.set_num_threads(1)  # the networks of the tests are tiny: more threads only wait for each other

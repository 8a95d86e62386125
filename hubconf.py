"""For torch.hub, with torch alone: `torch.hub.load(DIR, "resnest50", source="local", pretrained=True)`."""

import sys
from pathlib import Path

dependencies = ["torch"]

# torch.hub imports this file from a checkout, where the package is not installed.
sys.path.insert(0, str(Path(__file__).parent / "src"))

from resnest.torch import *  # noqa: E402, F403

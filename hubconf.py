"""For torch.hub, with torch alone: `torch.hub.load(DIR, "resnest50", source="local", pretrained=True)`."""

import sys
from pathlib import Path

dependencies = ["torch"]

# torch.hub imports this file from a checkout, where the package is not installed.
sys.path.insert(0, str(Path(__file__).parent / "src"))

from resnest.torch import (  # noqa: E402
    resnest50,
    resnest50_fast_1s1x64d,
    resnest50_fast_1s2x40d,
    resnest50_fast_1s4x24d,
    resnest50_fast_2s1x64d,
    resnest50_fast_2s2x40d,
    resnest50_fast_4s1x64d,
    resnest50_fast_4s2x40d,
    resnest101,
    resnest200,
    resnest269,
)

__all__ = [
    "resnest50",
    "resnest50_fast_1s1x64d",
    "resnest50_fast_1s2x40d",
    "resnest50_fast_1s4x24d",
    "resnest50_fast_2s1x64d",
    "resnest50_fast_2s2x40d",
    "resnest50_fast_4s1x64d",
    "resnest50_fast_4s2x40d",
    "resnest101",
    "resnest200",
    "resnest269",
]

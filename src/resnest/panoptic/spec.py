"""The structure of a panoptic network in addition to its detector's. Panoptic FPN: arXiv 1901.02446. No torch.

PanopticSpec(channels=128, stuff_area=4096)
"""

from __future__ import annotations

from dataclasses import dataclass

from resnest.errors import ResnestError
from resnest.spec import MOST


@dataclass(frozen=True, kw_only=True)
class PanopticSpec:
    """The panoptic structure in addition to the detector's (arXiv 1901.02446, sections 3 and 4; detectron2's defaults).

    Raises:
        ResnestError: if a value makes no sense.
    """

    channels: int = 128  # of the semantic branch
    semantic_weight: float = 0.5  # of its loss
    instance_weight: float = 1.0  # of the detector's losses
    score: float = 0.5  # objects below are left out when both are joined
    overlap: float = 0.5  # an object is dropped if more than this fraction is under better ones
    stuff_area: int = 4096  # pixels: smaller regions of stuff are dropped

    def __post_init__(self) -> None:
        _require(1 <= self.channels <= MOST, f"channels={self.channels} must lie in 1 to {MOST}")
        for name in ("semantic_weight", "instance_weight"):
            _require(getattr(self, name) >= 0, f"{name}={getattr(self, name)} must be 0 or more")
        for name in ("score", "overlap"):
            _require(0 <= getattr(self, name) <= 1, f"{name}={getattr(self, name)} must lie in [0, 1]")
        _require(self.stuff_area >= 0, f"stuff_area={self.stuff_area} must be 0 or more")


def _require(met: bool, message: str) -> None:
    if not met:
        raise ResnestError(f"this panoptic detector cannot be built: panoptic.{message}")

"""The structure of a panoptic network in addition to its detector's. Panoptic FPN: arXiv 1901.02446. No torch.

PanopticSpec(channels=128, stuff_area=4096)
"""

from __future__ import annotations

from dataclasses import dataclass

from resnest.errors import check_ranges
from resnest.spec import NotNegative, Share, Whole, Width


@dataclass(frozen=True, kw_only=True)
class PanopticSpec:
    """The panoptic structure in addition to the detector's (arXiv 1901.02446, sections 3 and 4; detectron2's defaults).

    Raises:
        ResnestError: if a value makes no sense.
    """

    channels: Width = 128  # of the semantic branch
    semantic_weight: NotNegative = 0.5  # of its loss
    instance_weight: NotNegative = 1.0  # of the detector's losses
    score: Share = 0.5  # objects below are left out when both are joined
    overlap: Share = 0.5  # an object is dropped if more than this fraction is under better ones
    stuff_area: Whole = 4096  # pixels: smaller regions of stuff are dropped

    def __post_init__(self) -> None:
        check_ranges(self, "this panoptic detector cannot be built: panoptic.")

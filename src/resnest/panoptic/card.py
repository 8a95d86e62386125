"""The card of a panoptic network: a detector's, with the semantic branch and the number of things.

card = PanopticCard(..., detector=DetectorSpec(masks=True), panoptic=PanopticSpec(), things=80)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from resnest.detection.card import DetectionCard
from resnest.errors import ResnestError, check_ranges
from resnest.panoptic.result import PanopticClasses
from resnest.runtime.card import parse_integers
from resnest.spec import NotNegative, Share, Whole, Width

# --- The structure of a panoptic network in addition to its detector's. Panoptic FPN: arXiv 1901.02446. No torch.


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


@dataclass(frozen=True, kw_only=True)
class PanopticCard(DetectionCard):
    """The card of a panoptic network."""

    task = "panoptic"
    hub_metric = ("pq", "panoptic-quality")
    figure_titles: ClassVar = {
        "pq": "PQ",
        "sq": "SQ",
        "rq": "RQ",
        "pq_things": "PQ of things",
        "pq_stuff": "PQ of stuff",
    }
    usage = (".counts()", "--draw drawn")

    panoptic: PanopticSpec  # the structure beside the detector
    things: int  # the first so many classes are things, the others stuff

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.things < len(self.class_names):
            raise ResnestError(f"things={self.things} of a model card: some classes must be things, and some stuff")

    @property
    def classes(self) -> PanopticClasses:
        return PanopticClasses(self.class_names, self.category_ids, self.things, self.colours)

    def describe_network(self, paper: str) -> str:
        return f"Panoptic FPN with {super().describe_network(paper)}"

    def describe_purpose(self) -> str:
        stuff = len(self.class_names) - self.things
        return f"segments a picture into objects of {self.things} classes and regions of {stuff}"

    def own_keys(self) -> dict[str, Any]:
        return {"panoptic": dataclasses.asdict(self.panoptic), "things": self.things, **super().own_keys()}

    @classmethod
    def parse_own(cls, ours: Mapping[str, Any]) -> dict[str, Any]:
        things = parse_integers([ours.get("things", 0)], "things")[0]
        return {"panoptic": PanopticSpec(**ours["panoptic"]), "things": things, **super().parse_own(ours)}

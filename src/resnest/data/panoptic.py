"""Images with segments: objects and stuff that share out the pixels. What panoptic segmentation learns from.

    samples = open_dataset("coco", task="panoptic").train                 # PanopticSamples
    samples.truth(0)                                                      # PanopticMap: ids and segments

It is `DetectionSamples` too: `objects` holds the things, with masks made from the maps when they are needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnest.data.detection import DetectionSamples
from resnest.data.samples import Store
from resnest.runtime.panoptic_map import PanopticClasses, PanopticMap


@dataclass(frozen=True, kw_only=True)
class PanopticSamples(DetectionSamples):
    """`class_names` and `category_ids` are those of all classes, things first, as in `classes`."""

    classes: PanopticClasses
    maps: Store
    map_keys: Sequence[str]  # (N,) names of the PNG files
    segments: Sequence[Sequence[dict[str, Any]]]  # (N,) of COCO's json: id, category_id, iscrowd

    def truth(self, index: int) -> PanopticMap:
        """What image `index` shows.

        Raises:
            BadImage: names the map: it cannot be read, has another size than the json says, or an id that the json
                lacks.
        """
        raise NotImplementedError

    def subset(self, indices: NDArray[np.int64]) -> PanopticSamples:
        base = super().subset(indices)
        assert isinstance(base, PanopticSamples)
        return replace(
            base,
            map_keys=[self.map_keys[index] for index in indices],
            segments=[self.segments[index] for index in indices],
        )

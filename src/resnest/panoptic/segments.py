"""The segments of a panoptic json, for all images, in arrays that worker processes share.

table[17]                   # [{"id": 4260, "category_id": 1, "iscrowd": 0, "area": 812, "bbox": [3, 9, 40, 58]}, ...]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnest.detection.data import ImageTable


@dataclass(frozen=True, eq=False)
class SegmentTable(ImageTable[list[dict[str, Any]]]):
    """The segments of a panoptic json, as columns."""

    firsts: NDArray[np.int64]  # (N,)
    counts: NDArray[np.int64]  # (N,)
    ids: NDArray[np.int64]  # (A,)
    labels: NDArray[np.int64]  # (A,) class numbers from 0
    category_ids: NDArray[np.int64]  # (K,) of the classes
    crowd: NDArray[np.bool_]  # (A,)
    areas: NDArray[np.float64]  # (A,) as the json has
    boxes: NDArray[np.float64]  # (A, 4) x, y, width, height, as the json has

    def of_image(self, index: int) -> list[dict[str, Any]]:
        first = int(self.firsts[index])
        return [self._row(row) for row in range(first, first + int(self.counts[index]))]

    def _row(self, row: int) -> dict[str, Any]:
        return {
            "id": int(self.ids[row]),
            "category_id": int(self.category_ids[self.labels[row]]),
            "iscrowd": int(self.crowd[row]),
            "area": float(self.areas[row]),
            "bbox": self.boxes[row].tolist(),
        }

    def take(self, indices: NDArray[np.int64]) -> SegmentTable:
        return replace(self, firsts=self.firsts[indices], counts=self.counts[indices])

    def named_as(self, index: NDArray[np.int64], category_ids: Sequence[int]) -> SegmentTable:
        """With class k numbered `index[k]`."""
        return replace(self, labels=index[self.labels], category_ids=np.array(category_ids, np.int64))

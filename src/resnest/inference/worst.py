"""The worst pictures of an evaluation, with their predictions; those of all pictures would not fit into memory.

worst = WorstPictures()
worst.add(7, 0.31, result)
worst.indices, worst.qualities, worst.results
"""

from __future__ import annotations

import heapq
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnest.errors import ResnestError

COUNT = 12  # pictures whose results are stored


class WorstPictures:
    """The quality of every picture, and the results of the worst ones."""

    def __init__(self) -> None:
        self.quality: dict[int, float] = {}  # by index; NaN if nothing in a picture counts
        self._heap: list[tuple[tuple[bool, float, int], int, Any]] = []  # the best stored picture comes first

    def add(self, index: int, quality: float, result: Any) -> None:
        self.quality[index] = quality
        self._keep(index, result)

    def merge(self, other: WorstPictures) -> None:
        self.quality |= other.quality
        for _, index, result in other._heap:
            self._keep(index, result)

    def _keep(self, index: int, result: Any) -> None:
        quality = self.quality[index]
        known = not math.isnan(quality)
        heapq.heappush(self._heap, ((known, -quality if known else 0.0, -index), index, result))
        if len(self._heap) > COUNT:
            heapq.heappop(self._heap)

    @property
    def indices(self) -> NDArray[np.int64]:
        """(N,) indices of the usable pictures. Raises ResnestError: there is none."""
        if not self.quality:
            raise ResnestError("no image could be used")
        return np.array(sorted(self.quality), np.int64)

    @property
    def qualities(self) -> NDArray[np.float64]:
        """(N,) of each picture alone."""
        return np.array([self.quality[index] for index in self.indices.tolist()], np.float64)

    @property
    def results(self) -> dict[int, Any]:
        """The results of the worst pictures, by position among the indices."""
        position = {index: place for place, index in enumerate(self.indices.tolist())}
        return {position[index]: result for _, index, result in sorted(self._heap, key=lambda entry: entry[1])}


def lowest(qualities: NDArray[np.float64], most: int) -> NDArray[np.int64]:
    """Positions of the lowest, worst first, without pictures that have no error."""
    order = np.argsort(qualities, kind="stable")  # NaN comes last
    return order[qualities[order] < 1][:most].astype(np.int64)

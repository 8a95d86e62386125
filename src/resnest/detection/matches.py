"""Average precision of pictures drawn with replacement: detections are matched once, then precision is accumulated.

matches = Matches(lambda: evaluation, 100)      # faster-coco-eval's, with its data, before `evaluate`
matches.ap(np.array([0, 0, 3]))                 # of the first picture, twice, and the fourth, by their ids
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Matches:
    """The matches of each picture and class, of objects of all sizes; nothing is done before they are needed."""

    def __init__(self, open_evaluation: Callable[[], Any], limit: int) -> None:
        self._open, self._limit = open_evaluation, limit

    @cached_property
    def _images(self) -> tuple[Any, list[list[Any]]]:
        """The parameters, and for each class what was matched in each picture: opaque objects of the package."""
        evaluation = self._open()
        evaluation.separate_eval = True  # keeps what is accumulated
        parameters = evaluation.params
        parameters.maxDets, parameters.areaRng, parameters.areaRngLbl = [self._limit], [parameters.areaRng[0]], ["all"]
        evaluation.evaluate()
        every, count = evaluation._evalImgs_cpp, len(parameters.imgIds)  # class by class
        return evaluation._paramsEval, [every[start : start + count] for start in range(0, len(every), count)]

    def ap(self, rows: NDArray[np.int64]) -> float:
        """AP of the pictures in these places, NaN without an object."""
        from faster_coco_eval import faster_eval_api_cpp

        parameters, classes = self._images
        drawn = [matched[row] for matched in classes for row in rows.tolist()]
        precision = np.asarray(faster_eval_api_cpp.COCOevalAccumulate(parameters, drawn)["precision"])
        return mean_of_known(precision[:, :, :, 0, -1])

    def resampled(self, draws: NDArray[np.int64]) -> Floats:
        """AP of each row of places, (B, n) -> (B,)."""
        return np.array([self.ap(rows) for rows in draws])


def mean_of_known(values: Floats) -> float:
    """Mean of the defined values."""
    known = values[values > -1]
    return float(known.mean()) if known.size else float("nan")

"""Distances between the outlines of true and predicted masks: Hausdorff-95 and surface Dice, in pixels.

metrics = SurfaceMetrics(2, tolerance=2.0)
metrics.update(masks, truth)             # (K, H, W) bool, (K, H, W) uint8: 0, 1, 255
metrics.compute()                        # {"hausdorff95": 3.6, "surface_dice": 0.91}

The outline of a mask are its pixels with a neighbour (of four) outside it, or on the picture's edge. Each has a
distance to the other mask's outline, between centres of pixels. Hausdorff-95 is the larger one of the two directions'
95th percentiles (as MONAI and DeepMind's surface-distance have it; others take one percentile of both together);
surface Dice the share of both outlines that lies within `tolerance` of the other (arXiv 1809.04430). Pixels that do not
count belong to neither mask.

Of a class that is neither true nor predicted in a picture nothing is measured there. Where it is only one of both, its
surface Dice is 0, and its Hausdorff distance is undefined: it is left out of that mean, and counted.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from resnest.errors import ResnestError
from resnest.segmentation.card import IGNORED
from resnest.segmentation.metrics import mean_of_known

Mask = NDArray[np.bool_]


class SurfaceFigures(NamedTuple):
    """By class, NaN where nothing was measured."""

    hausdorff95: NDArray[np.float64]  # (K,) pixels
    surface_dice: NDArray[np.float64]  # (K,)
    undefined: NDArray[np.int64]  # (K,) pictures in which the class is only true, or only predicted


class SurfaceMetrics:
    """Sums over pictures.

    Args:
        tolerance: of surface Dice, in pixels.

    Raises:
        ResnestError: SciPy is not installed.
    """

    def __init__(self, num_classes: int, *, tolerance: float) -> None:
        try:
            import scipy.ndimage  # noqa: F401
        except ModuleNotFoundError:
            raise ResnestError("distances of surfaces need SciPy: pip install 'resnest[surface]'") from None
        self.tolerance = tolerance
        self.distances: list[list[float]] = [[] for _ in range(num_classes)]
        self.dice: list[list[float]] = [[] for _ in range(num_classes)]

    def update(self, masks: Mask, truth: NDArray[np.uint8]) -> None:
        """Add one picture, both (K, H, W)."""
        for k, (found, true) in enumerate(zip(masks & (truth != IGNORED), truth == 1, strict=True)):
            if found.any() or true.any():
                distance, dice = compare_surfaces(found, true, self.tolerance)
                self.distances[k].append(distance)
                self.dice[k].append(dice)

    def merge(self, other: SurfaceMetrics) -> None:
        """Add the state of another process's metrics."""
        for mine, theirs in zip(self.distances + self.dice, other.distances + other.dice, strict=True):
            mine += theirs

    def by_class(self) -> SurfaceFigures:
        undefined = [sum(map(math.isnan, one)) for one in self.distances]
        means = [np.array([_mean(one) for one in part]) for part in (self.distances, self.dice)]
        return SurfaceFigures(means[0], means[1], np.array(undefined, np.int64))

    def compute(self) -> dict[str, float]:
        """Means over the classes in which something was measured."""
        figures = self.by_class()
        return {name: mean_of_known(getattr(figures, name)) for name in ("hausdorff95", "surface_dice")}


def compare_surfaces(one: Mask, other: Mask, tolerance: float) -> tuple[float, float]:
    """Hausdorff-95 in pixels, NaN if one of both masks (H, W) is empty, and surface Dice; not both are empty."""
    if not one.any() or not other.any():
        return math.nan, 0.0
    there, back = surface_distances(one, other)
    near = (there <= tolerance).sum() + (back <= tolerance).sum()
    farthest = max(np.percentile(there, 95), np.percentile(back, 95))
    return float(farthest), float(near / (len(there) + len(back)))


def surface_distances(one: Mask, other: Mask) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each outline's pixels to the other outline, in pixels; neither mask (H, W) is empty."""
    from scipy.ndimage import binary_erosion, distance_transform_edt

    rows, columns = (np.flatnonzero((one | other).any(axis)) for axis in (1, 0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    first, second = (mask[box] & ~binary_erosion(mask[box]) for mask in (one, other))
    return distance_transform_edt(~second)[first], distance_transform_edt(~first)[second]


def _mean(values: list[float]) -> float:
    """Of those that are known, whatever their order."""
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan

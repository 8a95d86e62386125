"""Pictures that show little: blank, dark, bright, blurred.

    looks = Looks()
    looks.add(0, image)
    looks.findings()                     # [Flaw(number=0, kind="dark", score=0.06), ...]

All is measured on the brightness of the picture at 256 pixels of its longer side. What is sharp depends on what is
shown: a picture is called blurred if its sharpness lies far below that of the others, by their median and median
absolute deviation, and below a limit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 256  # pixels
LEAST = 32  # pixels of the longer side below which sharpness says nothing
BLANK = 3.0  # standard deviation of the brightness, of 255; that of data/near_duplicates
DARK = 40.0  # brightness of the 95th percentile: nearly everything is darker
BRIGHT = 230.0  # of the 5th percentile
FAR = 3.5  # deviations from the median (Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993)
BLURRED = 100.0  # variance of the Laplacian below which a picture can be blurred (Pech-Pacheco et al., ICPR 2000)
MAD = 1.4826  # times the median absolute deviation is the standard deviation of a normal distribution


class Flaw(NamedTuple):
    """A flaw of a picture."""

    number: int
    kind: str
    score: float  # brightness of 0 to 1, or for "blurred" the variance of the Laplacian


class Looks:
    """What is measured of each picture."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, float, float, float, float]] = []  # index, std, 95 %, 5 %, sharpness

    def add(self, index: int, image: Image.Image) -> None:
        grey = image.convert("L")
        grey.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
        values = np.asarray(grey, np.float32)
        high, low = np.percentile(values, (95, 5))
        sharp = sharpness(values) if max(grey.size) >= LEAST else np.nan
        self.rows.append((index, float(values.std()), float(high), float(low), sharp))

    def findings(self) -> list[Flaw]:
        """Each picture's first flaw, in the order blank, dark, bright, blurred; within a kind the worst first."""
        found: list[Flaw] = []
        blurred = self._blurred()
        for row, (index, spread, high, low, sharp) in enumerate(self.rows):
            if spread < BLANK:
                found.append(Flaw(index, "blank", spread / 255))
            elif high < DARK:
                found.append(Flaw(index, "dark", high / 255))
            elif low > BRIGHT:
                found.append(Flaw(index, "bright", low / 255))
            elif blurred[row]:
                found.append(Flaw(index, "blurred", sharp))
        return sorted(found, key=lambda flaw: (flaw.kind, -flaw.score if flaw.kind == "bright" else flaw.score))

    def _blurred(self) -> NDArray[np.bool_]:
        """(N,) whether each picture is far less sharp than the others."""
        sharp = np.array([row[-1] for row in self.rows], np.float64)
        known = np.isfinite(sharp)
        if known.sum() < 2:
            return np.zeros(len(sharp), bool)
        logs = np.log(np.where(known, sharp, 1.0) + 1.0)
        middle = np.median(logs[known])
        spread = MAD * float(np.median(np.abs(logs[known] - middle)))
        blurred: NDArray[np.bool_] = known & (sharp < BLURRED) & (logs < middle - FAR * max(spread, 0.1))
        return blurred


def sharpness(values: NDArray[Any]) -> float:
    """The variance of the Laplacian of a picture (H, W) of 0 to 255; NaN of one that is too narrow."""
    if min(values.shape) < 3:
        return float("nan")
    inner = values[1:-1, 1:-1]
    laplacian = values[:-2, 1:-1] + values[2:, 1:-1] + values[1:-1, :-2] + values[1:-1, 2:] - 4 * inner
    return float(laplacian.var())

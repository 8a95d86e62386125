"""What a segmenter gives: a class for every pixel of a picture.

found = segment(engine, image, card.segmenter_input, card.pixel_classes, "x.jpg")        # runtime.segmenting
found.shares()                            # {"road": 0.31, "sky": 0.22}
found.to_dict()                           # ready for json.dumps: a segment for each class that is there
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]


class PixelClasses(NamedTuple):
    """What labels mean."""

    names: tuple[str, ...]  # (K,)
    ids: tuple[int, ...]  # (K,) what the data's masks call them
    colours: tuple[Colour, ...] = ()  # (K,) as the data draws them; none: colours of our own


@dataclass(frozen=True, eq=False)
class LabelMap:
    """The classes of one picture's pixels."""

    name: str  # the picture's path as it was given
    classes: PixelClasses
    labels: NDArray[np.uint8]  # (H, W) class numbers from 0, of every pixel of the picture
    scores: NDArray[np.float32]  # (K,) mean probability of the pixels of each class, 0 where there are none

    def counts(self) -> NDArray[np.int64]:
        """Pixels of each class, (K,)."""
        return np.bincount(self.labels.reshape(-1), minlength=len(self.classes.names))

    def shares(self) -> dict[str, float]:
        """Share of the picture of each class that is there, the largest first."""
        counts = self.counts()
        order = [k for k in np.argsort(-counts, kind="stable") if counts[k]]
        return {self.classes.names[k]: float(counts[k] / counts.sum()) for k in order}

    def to_dict(self) -> dict[str, Any]:
        """For JSON: one segment for each class that is there, the largest first."""
        counts = self.counts()
        segments = [
            {
                "label": self.classes.names[k],
                "category_id": self.classes.ids[k],
                "pixels": int(counts[k]),
                "share": round(float(counts[k] / counts.sum()), 6),
                "score": round(float(self.scores[k]), 6),
            }
            for k in np.argsort(-counts, kind="stable")
            if counts[k]
        ]
        height, width = self.labels.shape
        return {"image": self.name, "width": width, "height": height, "segments": segments}


def in_percent(share: float) -> str:
    """For people, who need no digits here."""
    return f"{share * 100:.0f} %" if share >= 0.005 else "<1 %"

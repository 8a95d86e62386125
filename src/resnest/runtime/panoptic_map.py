"""What panoptic segmentation gives: every pixel belongs to one segment, an object or a region of stuff.

found.ids, found.segments                 # (H, W) numbers of segments, 0 is void; one Segment each
found.to_dict()                           # ready for json.dumps
encode_ids(found.ids)                     # (H, W, 3) uint8: id = R + 256 G + 65536 B, as COCO's PNG files
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from resnest.runtime.label_map import Colour

VOID = 0  # the id of pixels that belong to no segment


class PanopticClasses(NamedTuple):
    """What labels mean: things come first."""

    names: tuple[str, ...]  # (K,)
    ids: tuple[int, ...]  # (K,) what COCO files call them
    things: int  # the first so many of them are things, the others stuff
    colours: tuple[Colour, ...] = ()  # (K,) as the data draws them; none: colours of our own


class Segment(NamedTuple):
    """An object, or all of one kind of stuff."""

    id: int  # of its pixels, from 1
    label: int  # class number from 0
    score: float  # of an object; of stuff the mean probability of its pixels; of ground truth 1
    area: int  # pixels
    box: tuple[int, int, int, int]  # x, y, width, height around its pixels
    crowd: bool = False  # of ground truth: a region of many objects

    @classmethod
    def of(
        cls, mask: NDArray[np.bool_], *, id: int, label: int, score: float = 1.0, crowd: bool = False
    ) -> Segment | None:
        """The segment with these pixels, (H, W); none if there is no pixel."""
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            return None
        left, top = int(columns[0]), int(rows[0])
        box = (left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top)
        return cls(id, label, score, int(np.count_nonzero(mask)), box, crowd)


@dataclass(frozen=True, eq=False)
class PanopticMap:
    """The segments of one picture."""

    name: str  # the picture's path as it was given
    classes: PanopticClasses
    ids: NDArray[np.int32]  # (H, W)
    segments: tuple[Segment, ...]

    def counts(self) -> dict[str, int]:
        """Things of each class that are there, the most frequent first; then stuff, each once."""
        things = [s.label for s in self.segments if s.label < self.classes.things]
        counts = np.bincount(np.array(things, np.int64), minlength=self.classes.things)
        found = {self.classes.names[k]: int(counts[k]) for k in np.argsort(-counts, kind="stable") if counts[k]}
        return found | {self.classes.names[s.label]: 1 for s in self.segments if s.label >= self.classes.things}

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        height, width = self.ids.shape
        segments = [
            {
                "id": one.id,
                "label": self.classes.names[one.label],
                "category_id": self.classes.ids[one.label],
                "thing": one.label < self.classes.things,
                "score": round(float(one.score), 6),
                "area": one.area,
                "bbox": list(one.box),
            }
            for one in self.segments
        ]
        return {"image": self.name, "width": width, "height": height, "segments": segments}


def encode_ids(ids: NDArray[np.int32]) -> NDArray[np.uint8]:
    """(H, W) -> (H, W, 3), COCO's PNG encoding."""
    return np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)


def decode_ids(pixels: NDArray[np.uint8]) -> NDArray[np.int32]:
    """(H, W, 3) -> (H, W)."""
    wide = pixels.astype(np.int32)
    ids: NDArray[np.int32] = wide[..., 0] + 256 * wide[..., 1] + 65536 * wide[..., 2]
    return ids

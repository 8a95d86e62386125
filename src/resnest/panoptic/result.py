"""Panoptic results: every pixel belongs to one segment, an object or a region of stuff.

found.ids, found.segments                 # (H, W) numbers of segments, 0 is void; one Segment each
found.save("ids.png")                     # COCO's PNG, of
encode_ids(found.ids)                     # (H, W, 3) uint8: id = R + 256 G + 65536 B, as COCO's PNG files
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.runtime.palette import Colour, class_colours, encode_ids, shade
from resnest.runtime.results import ALL, LIKELY, Result, Show, in_percent, installed

if TYPE_CHECKING:
    from resnest.runtime.draw import Entry
    from resnest.runtime.draw_regions import Regions

VOID = 0  # the id of pixels that belong to no segment


class PanopticClasses(NamedTuple):
    """Names, ids and colours of the classes: things come first."""

    names: tuple[str, ...]  # (K,)
    ids: tuple[int, ...]  # (K,) what COCO files call them
    things: int  # the first so many of them are things, the others stuff
    colours: tuple[Colour, ...] = ()  # (K,) as the data draws them; none: colours of our own


class Segment(NamedTuple):
    """An object, or all of one stuff class."""

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
        """The segment of these pixels, (H, W); None if there is no pixel."""
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            return None
        left, top = int(columns[0]), int(rows[0])
        box = (left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top)
        return cls(id, label, score, int(np.count_nonzero(mask)), box, crowd)


@dataclass(frozen=True, eq=False)
class PanopticMap(Result):
    """The segments of one picture."""

    COLUMNS: ClassVar = {
        "image": "", "id": "", "label": "", "category_id": "", "thing": "d", "score": ".6f", "area": "",
        "x": "", "y": "", "width": "", "height": "",
    }  # fmt: skip

    name: str  # the picture's path as it was given
    classes: PanopticClasses
    ids: NDArray[np.int32]  # (H, W)
    segments: tuple[Segment, ...]

    def present(self) -> list[int]:
        """Numbers of the classes in the picture."""
        return [segment.label for segment in self.segments]

    def counts(self) -> dict[str, int]:
        """Number of things per class, the most frequent first; then stuff, each once."""
        things = [s.label for s in self.segments if s.label < self.classes.things]
        counts = np.bincount(np.array(things, np.int64), minlength=self.classes.things)
        found = {self.classes.names[k]: int(counts[k]) for k in np.argsort(-counts, kind="stable") if counts[k]}
        return found | {self.classes.names[s.label]: 1 for s in self.segments if s.label >= self.classes.things}

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture."""
        height, width = self.ids.shape
        return width, height

    def rows(self, show: Show = ALL) -> list[dict[str, Any]]:
        """One row per segment."""
        segments = self.to_dict()["segments"]
        boxes = [dict(zip(("x", "y", "width", "height"), one.pop("bbox"), strict=True)) for one in segments]
        return [{"image": self.name, **one, **box} for one, box in zip(segments, boxes, strict=True)]

    def text(self, show: Show = LIKELY) -> str:
        """x.jpg: 2 cat, sky, sea."""
        things = self.classes.names[: self.classes.things]
        told = [f"{count} {name}" if name in things else name for name, count in self.counts().items()]
        return f"{self.name}: {', '.join(told) or '-'}"

    def to_dict(self, show: Show = ALL) -> dict[str, Any]:
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

    def to_supervision(self, show: Show = ALL) -> Any:
        """sv.Detections: a mask for each segment."""
        numbers = np.array([one.id for one in self.segments], self.ids.dtype)
        boxes = np.array([one.box for one in self.segments], np.float32).reshape(-1, 4)
        labels = np.array([one.label for one in self.segments], np.int64)
        return installed("supervision").Detections(
            xyxy=np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1),
            mask=self.ids == numbers[:, None, None],  # (S, H, W)
            confidence=np.array([one.score for one in self.segments], np.float32),
            class_id=labels,
            data={"class_name": np.array([self.classes.names[label] for label in labels], str)},
        )

    def paint(self, picture: Image.Image, side: int) -> Image.Image:
        """A small picture with the segments in their colours; its longer side has at most `side` pixels."""
        from resnest.runtime.draw_regions import paint_regions

        return paint_regions(picture, self._regions(), side)

    def _drawn(self, picture: Image.Image, show: Show) -> Image.Image:
        from resnest.runtime.draw_regions import draw_regions

        return draw_regions(picture, self._regions(), self._legend())

    def _regions(self) -> Regions:
        """The segments: each thing has a shade of its class's colour."""
        from resnest.runtime.draw_regions import Regions

        names, colours = self.classes.names, class_colours(self.classes)
        areas = np.full(self.ids.shape, -1, np.int32)
        regions = Regions(areas, [], [])
        seen = [0] * len(names)
        for number, one in enumerate(self.segments):
            areas[self.ids == one.id] = number
            regions.names.append(names[one.label])
            regions.colours.append(shade(colours[one.label], seen[one.label]))
            seen[one.label] += one.label < self.classes.things
        return regions

    def _legend(self) -> list[Entry]:
        """Things with their number, and stuff with its fraction of the picture."""
        from resnest.runtime.draw import Entry

        names, colours, things = self.classes.names, class_colours(self.classes), self.classes.things
        of_name = dict(zip(names, colours, strict=True))
        counts = [(name, count) for name, count in self.counts().items() if name in names[:things]]
        stuff = [one for one in sorted(self.segments, key=lambda one: -one.area) if one.label >= things]
        parts = [(names[one.label], in_percent(one.area / self.ids.size)) for one in stuff]
        return [Entry(f"{name}  {told}", of_name[name]) for name, told in [*counts, *parts]]

    def _own_picture(self, suffix: str) -> Image.Image | None:
        return Image.fromarray(encode_ids(self.ids)) if suffix == ".png" else None

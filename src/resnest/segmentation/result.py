"""The result of a segmenter: a class for every pixel, and PNG files of label maps.

found = segment(engine, image, card.segmenter_input, card.pixel_classes, "x.jpg")
found.class_fractions()                   # {"road": 0.31, "sky": 0.22}
found.save("mask.png")                    # a PNG of class ids, see LabelFolder
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.errors import ResnestError
from resnest.files import MASKS_MARK, replacing, write_errors
from resnest.runtime.outputs import OutputFolder, Placed, save_marked
from resnest.runtime.palette import Colour, class_colours
from resnest.runtime.results import ALL, LIKELY, Asked, Result, Show, in_percent, installed
from resnest.runtime.rle import box, encode

if TYPE_CHECKING:
    from resnest.runtime.draw import Regions


BACKGROUND = "background"  # a class of this name is not drawn


class PixelClasses(NamedTuple):
    """Names, ids and colours of the classes."""

    names: tuple[str, ...]  # (K,)
    ids: tuple[int, ...]  # (K,) what the data's masks call them
    colours: tuple[Colour, ...] = ()  # (K,) as the data draws them; none: colours of our own


MOST = 2**16  # ids that a PNG can hold
IN_PALETTE = 2**8


@dataclass(frozen=True, eq=False)
class LabelMap(Result):
    """The classes of one picture's pixels."""

    COLUMNS: ClassVar = {"image": "", "label": "", "category_id": "d", "pixels": "d", "share": ".6f", "score": ".6f"}

    name: str  # the picture's path as it was given
    classes: PixelClasses
    labels: NDArray[np.uint8]  # (H, W) class numbers from 0, of every pixel of the picture
    scores: NDArray[np.float32]  # (K,) mean probability of the pixels of each class, 0 where there are none

    def present(self) -> list[int]:
        """Numbers of the classes in the picture."""
        return [int(label) for label in self.counts()[: len(self.classes.names)].nonzero()[0]]

    def counts(self) -> NDArray[np.int64]:
        """Pixels of each class, (K,)."""
        if self.labels.dtype != np.uint8:
            return np.bincount(self.labels.reshape(-1), minlength=len(self.classes.names))
        counts = np.array(Image.fromarray(self.labels).histogram(), np.int64)  # (256), quicker than bincount
        return counts[: max(len(self.classes.names), 1 + counts.nonzero()[0].max(initial=-1))]

    def class_fractions(self) -> dict[str, float]:
        """Fraction of the picture of each present class, the largest first."""
        counts = self.counts()
        return {self.classes.names[k]: float(counts[k] / counts.sum()) for k in _largest(counts)}

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture."""
        height, width = self.labels.shape
        return width, height

    def rows(self, show: Show = ALL) -> list[dict[str, Any]]:
        """One row per present class."""
        return [{"image": self.name, **segment} for segment in self.to_dict()["segments"]]

    def text(self, show: Show = LIKELY) -> str:
        """x.jpg: road 31 %, sky 22 %."""
        fractions = self.class_fractions().items()
        return f"{self.name}: {', '.join(f'{name} {in_percent(fraction)}' for name, fraction in fractions)}"

    def to_dict(self, show: Show = ALL) -> dict[str, Any]:
        """For JSON: one segment for each present class, the largest first."""
        counts = self.counts()
        segments = [
            {
                "label": self.classes.names[k],
                "category_id": self.classes.ids[k],
                "pixels": int(counts[k]),
                "share": round(float(counts[k] / counts.sum()), 6),
                "score": round(float(self.scores[k]), 6),
            }
            for k in _largest(counts)
        ]
        height, width = self.labels.shape
        return {"image": self.name, "width": width, "height": height, "segments": segments}

    def to_supervision(self, show: Show = ALL) -> Any:
        """sv.Detections: a mask for each present class, the largest first."""
        there = np.array(_largest(self.counts()), np.int64)
        masks = self.labels == there[:, None, None].astype(np.uint8)  # (C, H, W)
        boxes = np.array([box(encode(mask)) for mask in masks], np.float32)  # (C, 4) x, y, width, height
        return installed("supervision").Detections(
            xyxy=np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1),
            mask=masks,
            confidence=self.scores[there],
            class_id=there,
            data={"class_name": np.array([self.classes.names[k] for k in there], str)},
        )

    def reduced(self, size: tuple[int, int]) -> LabelMap:
        """The class at the middle of each pixel; counts and shares are those of the reduced picture."""
        columns, rows = (
            ((np.arange(small) + 0.5) * full / small).astype(np.int64)
            for small, full in zip(size, self.size, strict=True)
        )
        return replace(self, labels=self.labels[rows[:, None], columns])

    def paint(self, picture: Image.Image, side: int) -> Image.Image:
        """A small picture with the classes in their colours; its longer side has at most `side` pixels."""
        from resnest.runtime.draw import paint_regions

        return paint_regions(picture, self._regions(), side)

    def _drawn(self, picture: Image.Image, show: Show) -> Image.Image:
        from resnest.runtime.draw import Entry, draw_regions
        from resnest.runtime.fonts import drawn_names

        names, colours, counts = drawn_names(tuple(self.classes.names)), class_colours(self.classes), self.counts()
        there = [k for k in _largest(counts) if _is_drawn(self.classes.names[k])]
        legend = [Entry(f"{names[k]}  {in_percent(float(counts[k] / counts.sum()))}", colours[k]) for k in there]
        return draw_regions(picture, self._regions(), legend)

    def _regions(self) -> Regions:
        """The regions of the classes; labels of no class belong to none."""
        from resnest.runtime.draw import Regions
        from resnest.runtime.fonts import drawn_names

        names = self.classes.names
        shown = np.array([*(number if _is_drawn(name) else -1 for number, name in enumerate(names)), -1], np.int32)
        return Regions(
            shown[np.minimum(self.labels, len(names))], list(drawn_names(tuple(names))), class_colours(self.classes)
        )

    def _own_picture(self, suffix: str) -> Image.Image | None:
        return label_image(self) if suffix == ".png" else None


def _largest(counts: NDArray[np.int64]) -> list[int]:
    """The present classes, the one with the most pixels first."""
    return [int(k) for k in np.argsort(-counts, kind="stable") if counts[k]]


def _is_drawn(name: str) -> bool:
    return name.lower() != BACKGROUND


def file_ids(classes: PixelClasses) -> tuple[int, ...]:
    """Class ids in files: the data set's, or numbers from 0 if a PNG cannot hold those."""
    fits = all(0 <= number < MOST for number in classes.ids)
    return classes.ids if fits else tuple(range(len(classes.names)))


def label_image(label_map: LabelMap) -> Image.Image:
    """The ids of the classes as an image for a PNG."""
    ids = np.array(file_ids(label_map.classes))
    if ids.max() >= IN_PALETTE:
        return Image.fromarray(ids.astype(np.uint16)[label_map.labels])
    image = Image.fromarray(ids.astype(np.uint8)[label_map.labels], "L")
    palette = np.zeros((IN_PALETTE, 3), np.uint8)
    palette[ids] = class_colours(label_map.classes)
    image.putpalette(palette.tobytes())
    return image


# --- Label maps in files, readable as a data set: PNGs with class ids, and the list of classes ---
# The PNG has a palette of the classes' colours: a viewer shows them, and the index of a pixel is the id of its class.
# With ids above 255 it has 16 bits and no colours.


class LabelFolder:
    """Masks named after their pictures, and the list of classes: with the pictures, a data set.

    Args:
        inputs: pictures that must not be replaced.

    Raises:
        ResnestError: as all of its methods: the files cannot be written.
    """

    HAS_IDS: ClassVar = False

    def __init__(self, folder: str | Path, classes: PixelClasses, inputs: Iterable[Path] = ()) -> None:
        self.files = OutputFolder(Path(folder), ".png", inputs)
        self.classes = classes

    @classmethod
    def open(cls, path: Path, card: Any, show: Show, asked: Asked) -> LabelFolder:
        opened = cls(path, card.classes, asked.paths)
        check_class_list(opened.class_list, opened.classes)
        opened.files.check(asked.pictures, MASKS_MARK)
        return opened

    @property
    def class_list(self) -> Path:
        return self.files.folder / "classes.json"

    def add(self, result: LabelMap, picture: Placed | None = None) -> Path:
        """Add a result; without its picture's place, its mask is named after the last part of the result's name."""
        with self.files.writing(picture, result.name) as path:
            save_marked(label_image(result), path)
        return path

    def close(self) -> str:
        """Write the class list, after all masks, so that a refused folder is not changed; returns a summary."""
        write_class_list(self.classes, self.class_list)
        return f"{len(self.files.written)} masks and classes.json in {self.files}"


def check_class_list(path: Path, classes: PixelClasses) -> None:
    """Raises ResnestError if another class list is there: numbers of its masks have other meanings."""
    try:
        same = path.read_text(encoding="utf-8") == class_list_text(classes)
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        same = False
    if not same:
        raise ResnestError(f"{path} is there already, and differs from the model's: name another folder, or remove it")


def write_class_list(classes: PixelClasses, path: Path) -> None:
    """Write it beside masks. Raises ResnestError: another list is there, or it cannot be written."""
    check_class_list(path, classes)
    with write_errors(path):
        save_class_list(classes, path)


def save_class_list(classes: PixelClasses, path: Path) -> None:
    """Raises OSError."""
    with replacing(path) as temporary:
        temporary.write_text(class_list_text(classes), encoding="utf-8")


def class_list_text(classes: PixelClasses) -> str:
    rows = [
        {"index": number, "name": name, "color": list(colour), "ignore": False}
        for number, name, colour in zip(file_ids(classes), classes.names, class_colours(classes), strict=True)
    ]
    return json.dumps(rows, ensure_ascii=False, indent=1) + "\n"

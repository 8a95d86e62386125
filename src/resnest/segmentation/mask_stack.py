"""The result of a multi-label segmenter: a mask for each class, which may overlap; and folders of such masks.

result = predict("x.jpg")                 # MaskStack
result.masks, result.class_fractions()    # (K, H, W) bool; {"vessel": 0.12, "lesion": 0.01}
result.mask("vessel")                     # (H, W) bool
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.errors import unknown
from resnest.files import MASKS_MARK
from resnest.runtime.outputs import OutputFolder, Placed, save_marked
from resnest.runtime.palette import class_colours
from resnest.runtime.results import ALL, LIKELY, Asked, Result, Show, in_percent, installed
from resnest.runtime.rle import box, encode
from resnest.segmentation.result import LabelFolder, LabelMap, PixelClasses, check_class_list, write_class_list

YES = 255  # in PNG files; no is 0
UNSAFE = '/\\:*?"<>|'  # in names of folders, on some systems


@dataclass(frozen=True, eq=False)
class MaskStack(Result):
    """The masks of one picture, one for each class. A pixel is in any number of them, or in none."""

    COLUMNS: ClassVar = LabelMap.COLUMNS

    name: str  # the picture's path as it was given
    classes: PixelClasses
    masks: NDArray[np.bool_]  # (K, H, W) in pixels of the picture
    scores: NDArray[np.float32]  # (K,) mean probability of the pixels of each mask, 0 where there are none

    def mask(self, label: str) -> NDArray[np.bool_]:
        """The mask of a class, (H, W). Raises ResnestError for an unknown class."""
        if label not in self.classes.names:
            raise unknown("class", label, self.classes.names)
        found: NDArray[np.bool_] = self.masks[self.classes.names.index(label)]
        return found

    def present(self) -> list[int]:
        """Numbers of the classes in the picture."""
        return [k for k, count in enumerate(self.counts()) if count]

    def counts(self) -> NDArray[np.int64]:
        """Pixels of each class, (K,)."""
        return np.array([np.count_nonzero(mask) for mask in self.masks], np.int64)

    def class_fractions(self) -> dict[str, float]:
        """Fraction of the picture of each present class, the largest first; with overlaps more than 1 together."""
        counts = self.counts()
        return {self.classes.names[k]: float(counts[k] / self._pixels) for k in _largest(counts)}

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture."""
        _, height, width = self.masks.shape
        return width, height

    @property
    def _pixels(self) -> int:
        return self.size[0] * self.size[1]

    def rows(self, show: Show = ALL) -> list[dict[str, Any]]:
        """One row per present class."""
        return [{"image": self.name, **segment} for segment in self._segments()]

    def text(self, show: Show = LIKELY) -> str:
        """x.jpg: vessel 12 %, lesion 1 %."""
        fractions = self.class_fractions().items()
        return f"{self.name}: {', '.join(f'{name} {in_percent(part)}' for name, part in fractions) or '-'}"

    def to_dict(self, show: Show = ALL) -> dict[str, Any]:
        """For JSON: one segment for each present class, the largest first, with its mask as COCO's RLE."""
        width, height = self.size
        segments = [{**row, "segmentation": encode(self.mask(row["label"]))} for row in self._segments()]
        return {"image": self.name, "width": width, "height": height, "segments": segments}

    def _segments(self) -> list[dict[str, Any]]:
        counts = self.counts()
        return [
            {
                "label": self.classes.names[k],
                "category_id": self.classes.ids[k],
                "pixels": int(counts[k]),
                "share": round(float(counts[k] / self._pixels), 6),
                "score": round(float(self.scores[k]), 6),
            }
            for k in _largest(counts)
        ]

    def to_supervision(self, show: Show = ALL) -> Any:
        """sv.Detections: a mask for each present class, the largest first."""
        there = np.array(_largest(self.counts()), np.int64)
        boxes = np.array([box(encode(mask)) for mask in self.masks[there]], np.float32).reshape(-1, 4)  # x, y, w, h
        return installed("supervision").Detections(
            xyxy=np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1),
            mask=self.masks[there],
            confidence=self.scores[there],
            class_id=there,
            data={"class_name": np.array([self.classes.names[k] for k in there], str)},
        )

    def reduced(self, size: tuple[int, int]) -> MaskStack:
        """The masks at the middle of each pixel; counts and shares are those of the reduced picture."""
        columns, rows = (
            ((np.arange(small) + 0.5) * full / small).astype(np.int64)
            for small, full in zip(size, self.size, strict=True)
        )
        return replace(self, masks=self.masks[:, rows[:, None], columns])

    def paint(self, picture: Image.Image, side: int) -> Image.Image:
        """A small picture with the masks in their colours; its longer side has at most `side` pixels."""
        from resnest.runtime.overlays import paint_masks

        return paint_masks(picture, self.masks, class_colours(self.classes), side)

    def _drawn(self, picture: Image.Image, show: Show) -> Image.Image:
        from resnest.runtime.draw import Entry
        from resnest.runtime.fonts import drawn_names
        from resnest.runtime.overlays import draw_masks

        names, colours, counts = drawn_names(tuple(self.classes.names)), class_colours(self.classes), self.counts()
        there = _largest(counts)  # large ones first, so that small ones lie on top
        legend = [Entry(f"{names[k]}  {in_percent(float(counts[k] / self._pixels))}", colours[k]) for k in there]
        return draw_masks(picture, self.masks[there], [colours[k] for k in there], legend)

    def _own_picture(self, suffix: str) -> Image.Image | None:
        """Of one class its mask."""
        return mask_image(self.masks[0]) if suffix == ".png" and len(self.masks) == 1 else None


def _largest(counts: NDArray[np.int64]) -> list[int]:
    """The present classes, the one with the most pixels first."""
    return [int(k) for k in np.argsort(-counts, kind="stable") if counts[k]]


def mask_image(mask: NDArray[np.bool_]) -> Image.Image:
    """0 and 255, for a PNG."""
    return Image.fromarray(mask.astype(np.uint8) * np.uint8(YES))


# --- Masks in files, readable as a data set: a folder for each class, and the list of classes ---


def class_folders(names: Sequence[str]) -> list[str]:
    """A folder's name for each class: its own, without what a system does not allow, and all different.

    >>> class_folders(["vessel", "left/right", "left_right"])
    ['vessel', 'left_right', 'left_right-2']
    """
    found: list[str] = []
    for name in names:
        safe = "".join("_" if letter in UNSAFE else letter for letter in name).strip(" .") or "_"
        taken = {other.lower() for other in found}
        number, chosen = 2, safe
        while chosen.lower() in taken:
            number, chosen = number + 1, f"{safe}-{number}"
        found.append(chosen)
    return found


class StackFolder:
    """A folder of masks for each class, named after their pictures, and the list of classes.

    Args:
        inputs: pictures that must not be replaced.

    Raises:
        ResnestError: as all of its methods: the files cannot be written.
    """

    HAS_IDS: ClassVar = False

    def __init__(self, folder: str | Path, classes: PixelClasses, inputs: Iterable[Path] = ()) -> None:
        self.folder, self.classes, inputs = Path(folder), classes, list(inputs)
        self.files = [OutputFolder(self.folder / name, ".png", inputs) for name in class_folders(classes.names)]

    @classmethod
    def open(cls, path: Path, card: Any, show: Show, asked: Asked) -> StackFolder:
        opened = cls(path, card.classes, asked.paths)
        check_class_list(opened.class_list, opened.classes)
        for files in opened.files:
            files.check(asked.pictures, MASKS_MARK, root=opened.folder)
        return opened

    @property
    def class_list(self) -> Path:
        return self.folder / "classes.json"

    def add(self, result: MaskStack, picture: Placed | None = None) -> Path | None:
        """Add a result; its path if it is one mask. Absent classes have a mask, too, which says so."""
        for files, mask in zip(self.files, result.masks, strict=True):
            with files.writing(picture, result.name) as path:
                save_marked(mask_image(mask), path)
        return path if len(self.files) == 1 else None

    def close(self) -> str:
        """Write the class list, after all masks, so that a refused folder is not changed; returns a summary."""
        write_class_list(self.classes, self.class_list)
        count = len(self.files[0].written)
        return f"{count * len(self.files)} masks of {count} pictures and classes.json in {self.folder}"


class MaskFiles:
    """What `predict --masks` writes: label maps, or masks of each class."""

    HAS_IDS: ClassVar = False

    @classmethod
    def open(cls, path: Path, card: Any, show: Show, asked: Asked) -> LabelFolder | StackFolder:
        return (StackFolder if card.segmenter.multi_label else LabelFolder).open(path, card, show, asked)

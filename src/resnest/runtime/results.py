"""Results: the methods common to the predictions of every task.

    result = predict("x.jpg")
    print(result)                             # x.jpg: 12 RBC, 1 WBC; the line that `resnest predict` prints
    result.rows()                             # a flat dict for each label, object or segment
    result.to_dict()                          # ready for json.dumps
    result.to_pandas()                        # the rows as a DataFrame
    result.to_supervision()                   # sv.Detections or sv.Classifications
    result.draw("x.jpg", Show(threshold=0.3)).show()
    result.save("drawn.jpg", "x.jpg")         # and without a picture: x.json, x.csv

By default `text` and `draw` show what is likely, and the other methods return everything. `Show` changes that.
"""

from __future__ import annotations

import csv
import importlib
import io
import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, Protocol, Self

from PIL import Image

from resnest.errors import Range, ResnestError, check_ranges, printable
from resnest.files import check_is_not, replacing, write_errors
from resnest.runtime.decode import MAX_PIXELS
from resnest.runtime.inputs import ImageInput
from resnest.runtime.outputs import Placed, save_marked
from resnest.runtime.regions import Regions
from resnest.runtime.shown import drawable, shown
from resnest.runtime.thumbnails import thumbnail

THRESHOLD = 0.5  # the score from which on a label or an object is shown to people
DRAWINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
QUALITY = 90  # of JPEG and WEBP
DRAWN = 4096  # pixels of the longer side of a drawing of a picture that is too large to be drawn in full


@dataclass(frozen=True, kw_only=True)
class Show:
    """Options for showing a result; each result uses those in `Result.OPTIONS`."""

    # labels, best first; None: the best one, of several labels those of `threshold` or more
    top: Annotated[int | None, Range(1)] = None
    threshold: Annotated[float, Range(0, 1)] = THRESHOLD  # the lowest score of an object

    def __post_init__(self) -> None:
        check_ranges(self, "")


LIKELY = Show()  # what people see
ALL = Show(top=sys.maxsize, threshold=0.0)  # what programs get


class ResultFiles(Protocol):
    """Writer of results in another program's file format."""

    HAS_IDS: ClassVar[bool]  # whether it has ids of pictures, which `predict --annotations` gives

    @classmethod
    def open(cls, path: Path, card: Any, show: Show, asked: Asked) -> Self:
        """Open for results of a card's model. Raises ResnestError, also if a picture might be replaced."""

    def add(self, result: Any, picture: Placed | None = None) -> Path | None:
        """Add a result, by default under the last part of its name; returns the picture's file, if it has its own."""

    def close(self) -> str:
        """Write what is left; returns a summary."""


class Asked(NamedTuple):
    """What results are asked for."""

    pictures: Sequence[Placed]
    by_annotations: bool = False  # whether ids of pictures and classes are those of an annotation file

    @property
    def paths(self) -> list[Path]:
        return [picture.path for picture in self.pictures]


class Result(ABC):
    """A model's prediction for one image."""

    COLUMNS: ClassVar[Mapping[str, str]]  # of a row, in order, with their format: "" a text, "d" an integer
    OPTIONS: ClassVar[frozenset[str]] = frozenset()  # fields of `Show` that have a meaning here

    name: str  # the image's path as it was given

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height of the picture, if the result depends on them."""
        return None

    @abstractmethod
    def rows(self, show: Show = ALL) -> list[dict[str, Any]]:
        """A flat dict for each label, object or segment, with the keys of `COLUMNS`."""

    @abstractmethod
    def text(self, show: Show = LIKELY) -> str:
        """One line, with the image's name."""

    @abstractmethod
    def to_dict(self, show: Show = ALL) -> dict[str, Any]:
        """For JSON; scores are fractions 0..1."""

    @abstractmethod
    def to_supervision(self, show: Show = ALL) -> Any:
        """sv.Detections, with `class_name` in its data, or sv.Classifications.

        Raises:
            ResnestError: supervision is not installed.
        """

    @abstractmethod
    def _drawn(self, picture: Image.Image, show: Show) -> Image.Image:
        """Draw the result into an RGB picture of the right size."""

    def __str__(self) -> str:
        return printable(self.text())

    def draw(self, image: ImageInput | Regions, show: Show = LIKELY, bands: Sequence[int] = ()) -> Image.Image:
        """The predicted picture with the result drawn; small ones are enlarged, those above 89 megapixels reduced.

        Args:
            bands: of a picture of other than RGB: three, or one for grey, from 1; none: the first.

        Raises:
            BadImage, WrongInput: as a predictor.
            ResnestError: it is another picture, by its size; it has no such bands.
        """
        if self._is_large:
            small, size = thumbnail(image, DRAWN, bands)
            self._check_size(size)
            return self.reduced(small.size)._drawn(small, show)
        picture = image.read((0, 0, *image.size)) if isinstance(image, Regions) else shown(drawable(image, bands))
        self._check_size(picture.size)
        return self._drawn(picture, show)

    def _check_size(self, size: tuple[int, int]) -> None:
        if self.size is not None and self.size != size:
            sizes = "the picture has {} x {} pixels, and the result is of one with {} x {}"
            raise ResnestError(f"{self.name}: {sizes.format(*size, *self.size)}")

    @property
    def _is_large(self) -> bool:
        return self.size is not None and self.size[0] * self.size[1] > MAX_PIXELS

    def reduced(self, size: tuple[int, int]) -> Self:
        """The same of a smaller picture of this width and height, to be drawn. Of tasks that take tiles."""
        raise NotImplementedError

    def save(
        self,
        path: str | Path,
        image: ImageInput | Regions | None = None,
        show: Show | None = None,
        bands: Sequence[int] = (),
    ) -> None:
        """Write a file, by its suffix: the drawing in `image`, or without one .json, .csv, or the task's own.

        A file that is there is replaced, but never the predicted picture.

        Raises:
            ResnestError: an unknown suffix; the file cannot be written; as `draw`.
        """
        path = Path(path)
        for picture in (self.name, image):
            if isinstance(picture, str | os.PathLike):
                check_is_not(path, os.fspath(picture), "the picture that was predicted")
        suffix = path.suffix.lower()
        if suffix in DRAWINGS:
            drawing = self._own_picture(suffix) if image is None else self.draw(image, show or LIKELY, bands)
            if drawing is None:
                raise ResnestError(f"{path}: a drawing needs the picture, save(path, image)")
            with write_errors(path):
                save_marked(drawing, path, quality=QUALITY)
        elif image is None and suffix in (".json", ".csv"):
            content = self.to_json(show or ALL) + "\n" if suffix == ".json" else self.to_csv(show or ALL)
            with write_errors(path), replacing(path) as temporary:
                temporary.write_text(content, encoding="utf-8", errors="backslashreplace", newline="")
        else:
            raise ResnestError(f"{path}: expected {', '.join(DRAWINGS)} with the picture, or without it .json or .csv")

    def _own_picture(self, suffix: str) -> Image.Image | None:
        """The result itself as a picture of numbers, if it is one and the file format preserves numbers."""
        return None

    def to_json(self, show: Show = ALL) -> str:
        """`to_dict` as one line."""
        return json.dumps(self.to_dict(show), ensure_ascii=False)

    def cells(self, show: Show = ALL) -> list[list[str]]:
        """The rows as in CSV; if there are none, one with only the image's name."""
        rows = [[format(row[key], form) for key, form in self.COLUMNS.items()] for row in self.rows(show)]
        return rows or [[self.name, *[""] * (len(self.COLUMNS) - 1)]]

    def to_csv(self, show: Show = ALL) -> str:
        """The rows as CSV, with a header."""
        text = io.StringIO(newline="")
        csv.writer(text).writerows([[*self.COLUMNS], *self.cells(show)])
        return text.getvalue()

    def to_pandas(self, show: Show = ALL) -> Any:
        """A DataFrame of the rows; use pd.concat for several images.

        Raises:
            ResnestError: pandas is not installed.
        """
        return installed("pandas").DataFrame(self.rows(show), columns=[*self.COLUMNS])


def installed(package: str) -> Any:
    """Import an optional package. Raises ResnestError if it is not installed."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ResnestError(f"{package} is not installed: pip install {package}") from None


def in_percent(fraction: float) -> str:
    """A percentage without decimals."""
    return f"{fraction * 100:.0f} %" if fraction >= 0.005 else "<1 %"

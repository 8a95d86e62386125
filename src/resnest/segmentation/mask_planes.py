"""Where the masks of each class come from: one mask a picture, a file for each class, or a stack in one file.

planes = ClassFiles(FolderStore(root), [("lesion/1.png", "vessel/1.png")], meaning)
planes.read(0, (1, 0))                    # (2, H, W) uint8 of vessel and lesion: 0 no, 1 yes, 255 does not count

A stack is NumPy's (H, W, K) or (K, H, W), or a TIFF file of K pages, in the order of the list of classes. All masks of
a part have 0 and 1, or 0 and 255; 255 does not count where 1 is yes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from resnest.data.stores import FolderStore, read_from
from resnest.errors import ResnestError
from resnest.figures import counted
from resnest.runtime.band_files import NUMPY, read_tiff, stored_array, tiff_size
from resnest.runtime.bands import is_bands_file
from resnest.runtime.decode import BadImage, WrongSize, decode_stored
from resnest.runtime.raster import Raster
from resnest.segmentation.card import IGNORED
from resnest.segmentation.data import PixelSamples
from resnest.segmentation.mask_values import MaskMeaning, StoredMask, read_stored
from resnest.segmentation.survey import Survey, check_parts, spread, with_mask

VALUES = "a mask of one class has 0 and 1, or 0 and 255"
ONE_WAY = "write all masks in one way"

Stack = NDArray[np.uint8]  # (K, H, W)


class Planes(Protocol):
    """The masks of some pictures."""

    def read(self, index: int, order: Sequence[int]) -> Stack:
        """Planes of picture `index`; -1 is none, whose mask is empty. Raises BadImage: names the mask."""

    def size(self, index: int) -> tuple[int, int]:
        """Width and height. Raises BadImage."""

    def name(self, index: int) -> str:
        """Of the mask, or of the first of several."""

    def names(self) -> Sequence[str]:
        """Of all masks."""

    def subset(self, indices: NDArray[np.int64]) -> Self: ...

    def check(self, where: str) -> None:
        """Raises ResnestError for values that seem to mean something else."""

    def check_with(self, other: Any) -> None:
        """Raises ResnestError if the values of another part's masks contradict these."""


@dataclass(frozen=True)
class LabelPlanes:
    """One mask a picture: a plane for each class, of the pixels that have it."""

    samples: PixelSamples

    def read(self, index: int, order: Sequence[int]) -> Stack:
        labels = self.samples.mask(index)
        classes = np.array([k if k >= 0 else IGNORED + 1 for k in order])[:, None, None]
        return np.where(labels == IGNORED, np.uint8(IGNORED), labels == classes).astype(np.uint8)

    def size(self, index: int) -> tuple[int, int]:
        return self.samples.size(index)

    def name(self, index: int) -> str:
        return self.samples.mask_name(index)

    def names(self) -> Sequence[str]:
        return self.samples.mask_keys

    def subset(self, indices: NDArray[np.int64]) -> LabelPlanes:
        return replace(self, samples=self.samples.subset(indices))

    def check(self, where: str) -> None:
        self.samples.check_values(where)

    def check_with(self, other: LabelPlanes) -> None:
        mine, theirs = self.samples, other.samples
        check_parts((mine.survey, theirs.survey), (mine.classes, theirs.classes))


@dataclass(frozen=True)
class FilePlanes:
    """Files with masks of 0 and 1, or of 0 and 255."""

    store: FolderStore
    keys: Sequence[Any]  # (N,)
    meaning: MaskMeaning

    def subset(self, indices: NDArray[np.int64]) -> Self:
        return replace(self, keys=[self.keys[index] for index in indices])

    def check(self, where: str) -> None:
        """Nothing else can be meant."""

    def check_with(self, other: Any) -> None:
        """Each part tells for itself which value is yes."""

    def planes_of(self, key: str, count: int) -> list[Stack]:
        """The masks in a file. Raises BadImage."""
        planes = stored_planes(read_from(self.store, key), count, key)
        return [self.meaning.classes_of(stored, key) for stored in planes]


@dataclass(frozen=True)
class ClassFiles(FilePlanes):
    """A file for each class, in a folder of its own; "" is a class that is absent from the picture."""

    keys: Sequence[tuple[str, ...]]  # (N, P)

    def read(self, index: int, order: Sequence[int]) -> Stack:
        width, height = self.size(index)
        stack = np.zeros((len(order), height, width), np.uint8)
        for place, plane in enumerate(order):
            key = self.keys[index][plane] if plane >= 0 else ""
            if not key:
                continue
            [mask] = self.planes_of(key, 1)
            if mask.shape != (height, width):
                sizes = f"{mask.shape[1]} x {mask.shape[0]} pixels, and {self.name(index)} has {width} x {height}"
                raise WrongSize(key, f"has {sizes}")
            stack[place] = mask
        return stack

    def size(self, index: int) -> tuple[int, int]:
        key = self.name(index)
        if not any(self.keys[index]):
            raise BadImage(key, "is missing, and so are those of the other classes: save an empty one if it shows none")
        return planes_size(read_from(self.store, key), 1, key)

    def name(self, index: int) -> str:
        return next(filter(None, self.keys[index]), "of any class")

    def names(self) -> Sequence[str]:
        return [key for keys in self.keys for key in keys]


@dataclass(frozen=True)
class StackFiles(FilePlanes):
    """All masks of a picture in one file."""

    keys: Sequence[str]  # (N,)
    count: int  # of planes

    def read(self, index: int, order: Sequence[int]) -> Stack:
        planes = self.planes_of(self.keys[index], self.count)
        empty = np.zeros_like(planes[0])
        return np.stack([planes[plane] if plane >= 0 else empty for plane in order])

    def size(self, index: int) -> tuple[int, int]:
        key = self.keys[index]
        return planes_size(read_from(self.store, key), self.count, key)

    def name(self, index: int) -> str:
        return self.keys[index]

    def names(self) -> Sequence[str]:
        return self.keys


# --- The planes of a file, and which value is yes ---


def stored_planes(content: bytes, count: int, name: str) -> list[StoredMask]:
    """The values of a file's planes, as many as are expected. Raises BadImage."""
    if not is_bands_file(content):
        planes = [read_stored(content, name).numbered]
    elif content.startswith(NUMPY):
        planes = [_numbers(plane, name) for plane in _along_first(stored_array(content, name), count, name)]
    else:
        image, _ = read_tiff(content, name)
        bands = image.bands if isinstance(image, Raster) else image.split() if len(image.getbands()) > 1 else [image]
        planes = [_numbers(np.asarray(band), name) for band in bands]
    if len(planes) != count:
        pages = counted(len(planes), "page", "pages")
        raise BadImage(name, f"has {pages}, and there are {count} classes: expected one for each")
    return planes


def planes_size(content: bytes, count: int, name: str) -> tuple[int, int]:
    """Width and height of a file's planes, from its header. Raises BadImage."""
    if content.startswith(NUMPY):
        height, width = _along_first(stored_array(content, name), count, name).shape[1:]
        return width, height
    return tiff_size(content, name) if is_bands_file(content) else decode_stored(content, name=name, pixels=False).size


def _along_first(array: NDArray[Any], count: int, name: str) -> NDArray[Any]:
    """(K, H, W). Raises BadImage for a shape that is none, or that may be two."""
    if array.ndim == 2 and count == 1:
        return array[None]
    first, last = (array.ndim == 3 and array.shape[axis] == count for axis in (0, -1))
    if first and last:
        both = f"may be (H, W, {count}) or ({count}, H, W)"
        raise BadImage(name, f"has the shape {array.shape}, which {both}: save it as TIFF of {count} pages")
    if not (first or last):
        expected = f"(H, W, {count}) or ({count}, H, W)"
        raise BadImage(name, f"has the shape {array.shape}, and there are {count} classes: expected {expected}")
    return array if first else np.moveaxis(array, -1, 0)


def _numbers(plane: NDArray[Any], name: str) -> StoredMask:
    """Raises BadImage for values between whole numbers."""
    if plane.dtype.kind == "f":
        odd = plane[plane != np.rint(plane)]  # NaN too
        if odd.size:
            raise BadImage(name, f"has the value {odd[0]:.4g}: {VALUES}")
    small = plane.dtype in (bool, np.uint8)
    return StoredMask(plane.astype(np.uint8 if small else np.int64), False)


def survey_planes(store: FolderStore, keys: Sequence[str], count: int) -> Survey:
    """A look at some files; those that cannot be read are passed over."""
    found = Survey(total=len(keys))
    for key in spread(keys):
        try:
            planes: Iterable[StoredMask] = stored_planes(read_from(store, key), count, key)
        except BadImage:
            continue
        for stored in planes:
            found = with_mask(found, stored, str(store.root / key), by_palette=False)
    return found


def yes_of(survey: Survey, where: str) -> MaskMeaning:
    """Which values are no, yes, and do not count. Raises ResnestError if 1 and 255 may both be yes."""
    one = survey.first.get(1, "")
    if survey.beside:  # 1 and 255 in one mask
        return MaskMeaning({0: 0, 1: 1}, ("no", "yes"), hint=VALUES)
    if survey.lone and one:
        both = f"{one} has the value 1 and {survey.lone} has 255 beside 0 alone"
        raise ResnestError(f"{where}: {both}, both of which may be yes: {ONE_WAY}")
    if survey.lone:
        return MaskMeaning({0: 0, IGNORED: 1}, ("no", "yes"), hint=f"{VALUES}, and {survey.lone} has 255")
    doubt = f"it may be yes or not count{f', and {one} has 1' if one else ''}: {ONE_WAY}"
    return MaskMeaning({0: 0, 1: 1}, ("no", "yes"), doubt=doubt, hint=VALUES)

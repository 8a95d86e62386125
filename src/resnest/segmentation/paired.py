"""Samples of pictures with annotated pixels: what label maps and stacks of masks have in common.

class MySamples(PairedSamples): ...       # with `mask`, `size`, `mask_name`
samples.pair(0), samples.sizes()          # a picture and its mask, of one size; (N, 2)
"""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.data.samples import Samples
from resnest.errors import ResnestError
from resnest.runtime.bands import read_picture
from resnest.runtime.decode import BadImage, WrongSize
from resnest.segmentation.card import IGNORED
from resnest.segmentation.result import PixelClasses

UNKNOWN = (1, 1)  # the size of a mask that cannot be read
MOST_READ = 2000  # masks, for folds and splits of groups: ten seconds
FIRST = 8  # pairs whose sizes are compared before training

AnyMask = NDArray[np.uint8]


@dataclass(frozen=True)
class PairedSamples(Samples):
    """Images with a mask each; masks are read on demand."""

    task = "segmentation"
    has = "masks of classes"

    classes: PixelClasses

    @abstractmethod
    def mask(self, index: int) -> AnyMask:
        """The mask, its last two sides are the picture's height and width. Raises BadImage."""

    @abstractmethod
    def size(self, index: int) -> tuple[int, int]:
        """Width and height of mask `index`. Raises BadImage."""

    @abstractmethod
    def mask_name(self, index: int) -> str:
        """Of mask `index`, for messages."""

    @abstractmethod
    def shown(self, mask: AnyMask) -> NDArray[np.int64]:
        """The classes in a mask."""

    def sizes(self) -> NDArray[np.int64]:
        """Width and height of every mask, (N, 2), from their headers, read once; 1, 1 if unreadable."""
        return self._sizes

    @cached_property
    def _sizes(self) -> NDArray[np.int64]:
        return np.array([self._size_or_unknown(index) for index in range(len(self))], np.int64).reshape(-1, 2)

    def decode(self, index: int) -> Image.Image:
        """Image `index`, oriented as its mask. Raises BadImage."""
        return self._decode_as(index, self.size(index))

    def pair(self, index: int) -> tuple[Image.Image, AnyMask]:
        """An image and its mask, of one size. Raises BadImage."""
        mask = self.mask(index)
        return self._decode_as(index, (mask.shape[-1], mask.shape[-2])), mask

    def example(self, index: int) -> tuple[Image.Image, AnyMask]:
        return self.pair(index)

    def counts(self) -> NDArray[np.int64]:
        """All images in the first class: the classes in an image are known only from its mask."""
        return np.bincount(np.zeros(len(self), np.int64), minlength=len(self.class_names))

    def known_counts(self) -> None:
        """Not known: the masks are not read yet."""

    def marks(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The classes of the masks, which are read for this; of more than MOST_READ, chance evens them out."""
        if len(self) > MOST_READ:
            return super().marks()
        found = [self._shown_or_none(index) for index in range(len(self))]
        return np.repeat(np.arange(len(self)), list(map(len, found))), np.concatenate(found).astype(np.int64)

    def _shown_or_none(self, index: int) -> NDArray[np.int64]:
        try:
            return self.shown(self.mask(index))
        except BadImage:  # which is counted when it is read again
            return np.empty(0, np.int64)

    def _size_or_unknown(self, index: int) -> tuple[int, int]:
        try:
            return self.size(index)
        except BadImage:
            return UNKNOWN

    def _decode_as(self, index: int, size: tuple[int, int]) -> Image.Image:
        try:
            content = self.read(index)
            return read_picture(content, self.bands, name=self.keys[index], annotated=size, exif=self.exif)
        except WrongSize as error:
            raise WrongSize(self.keys[index], f"{error.reason} by its mask {self.mask_name(index)}") from None


def check_sizes(samples: PairedSamples, where: str) -> None:
    """Raises ResnestError if the first masks that can be read are all of another size than their pictures."""
    wrong: WrongSize | None = None
    for index in range(min(len(samples), FIRST)):
        try:
            samples.decode(index)
            return
        except WrongSize as error:
            wrong = error
        except BadImage:  # which is counted when it is read again
            continue
    if wrong:
        raise ResnestError(
            f"{where}: the masks are of another size than their pictures: {wrong.name} {wrong.reason}. Write masks of"
            " the pictures' own size, resized by the nearest pixel"
        )


def any_counts(mask: AnyMask) -> bool:
    return bool((mask != IGNORED).any())


def check_masks(samples: PairedSamples, message: str, holds: Callable[[AnyMask], Any] = any_counts) -> None:
    """Raises ResnestError with this message if that holds of no mask that can be read."""
    read = 0
    for index in range(len(samples)):
        with contextlib.suppress(BadImage):  # which is counted when it is read again
            if holds(samples.mask(index)):
                return
            read += 1
    if read:
        raise ResnestError(message)

"""Samples of multi-label segmentation: images with a mask for each class, which may overlap, or with one binary mask.

samples = open_dataset("cells", task="segmentation", reading=MULTI_LABEL).train     # MaskStackSamples
samples.mask(0), samples.class_names                  # (K, H, W) uint8: 0 no, 1 yes, 255 does not count
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnest.data.samples import class_indices, describe_classes, describe_notes
from resnest.data.stores import Store
from resnest.errors import ResnestError
from resnest.runtime.decode import BadImage
from resnest.segmentation.binary_lists import FOREGROUND, is_none
from resnest.segmentation.card import IGNORED
from resnest.segmentation.data import some_of
from resnest.segmentation.mask_planes import Planes
from resnest.segmentation.paired import PairedSamples, check_masks, check_sizes
from resnest.segmentation.result import PixelClasses

NOWHERE = -1  # the plane of a class that the data has no masks of


@dataclass(frozen=True)
class MaskStackSamples(PairedSamples):
    """Images with a mask for each class; masks are read on demand."""

    planes: Planes
    order: tuple[int, ...]  # (K,) the plane of each class
    notes: tuple[str, ...] = ()  # what is left out or assumed, and why

    @classmethod
    def build(
        cls,
        images: tuple[Store, Sequence[str]],
        classes: PixelClasses,
        planes: Planes,
        notes: Sequence[str] = (),
        without: Collection[str] = (),
    ) -> MaskStackSamples:
        """With a plane for each of the classes, of which background, and what is in `without`, are left out.

        Raises:
            ResnestError: there is no other class.
        """
        kept = [k for k, name in enumerate(classes.names) if not is_none(name) and name not in without]
        if not kept:
            raise ResnestError(f"the only class is {classes.names[0]!r}, which is no class of its own: name another")
        dropped = [name for name in classes.names if is_none(name)]
        chosen = _chosen(classes, kept)
        said = [f"{dropped[0]!r} is no class of its own: masks of {some_of(chosen.names)}"] if dropped else []
        return cls(*images, chosen.names, chosen, planes, tuple(kept), (*said, *notes))

    def fingerprinted(self) -> tuple[Sequence[str]]:
        return (self.planes.names(),)

    def mask(self, index: int) -> NDArray[np.uint8]:
        """(K, H, W): 0 no, 1 yes, 255 does not count.

        Raises:
            BadImage: names the mask: it cannot be read, has other values, or another size than one beside it.
        """
        try:
            return self.planes.read(index, self.order)
        except BadImage as error:
            raise self._bad_mask(index, error) from None

    def size(self, index: int) -> tuple[int, int]:
        try:
            return self.planes.size(index)
        except BadImage as error:
            raise self._bad_mask(index, error) from None

    def _bad_mask(self, index: int, error: BadImage) -> BadImage:
        key = self.keys[index]
        return error if error.name == key else BadImage(key, f"its mask {error.name}: {error.reason}")

    def mask_name(self, index: int) -> str:
        return self.planes.name(index)

    def shown(self, mask: NDArray[np.uint8]) -> NDArray[np.int64]:
        return np.flatnonzero((mask == 1).any((1, 2)))

    def subset(self, indices: NDArray[np.int64]) -> MaskStackSamples:
        return replace(self, keys=[self.keys[index] for index in indices], planes=self.planes.subset(indices))

    @property
    def left_out(self) -> tuple[str, ...]:
        return self.notes

    def describe(self, val: MaskStackSamples | None = None) -> str:
        return f"{describe_classes(len(self.class_names))}, a mask of each{describe_notes(self, val)}"

    def check(self, where: str) -> None:
        self.planes.check(where)
        check_sizes(self, where)
        check_masks(self, f"{where}: no training mask has a pixel of {some_of(self.class_names)}", _any_yes)

    def check_validation(self, where: str) -> None:
        check_sizes(self, where)
        nothing = f"no validation mask has a pixel of {some_of(self.class_names)}: nothing to measure by"
        check_masks(self, f"{where}: {nothing}", _any_yes)

    def matched(self, val: MaskStackSamples, where: str) -> tuple[MaskStackSamples, MaskStackSamples]:
        """With the training split's classes. Raises ResnestError if the validation split shows others."""
        self.planes.check_with(val.planes)
        val = val.without_unused(self.class_names)
        if unknown := [name for name in val.class_names if name not in self.class_names]:
            raise ResnestError(f"{where}: validation has classes that training has not: {some_of(unknown)}")
        return self, val.ordered(self.classes)

    def aligned(self, card: Any, where: str) -> MaskStackSamples:
        if self.class_names == (FOREGROUND,) and len(card.class_names) == 1:
            return replace(self, class_names=card.class_names, classes=card.classes)
        used = self.without_unused({*card.class_names, *(card.class_keys or ())})
        index = class_indices(used.class_names, card, where)
        names = tuple(card.class_names[place] for place in index)
        return replace(used, class_names=names, classes=used.classes._replace(names=names)).ordered(card.classes)

    def without_unused(self, known: Collection[str]) -> MaskStackSamples:
        """Without the classes that are not among `known` and that no mask shows."""
        unknown = {k for k, name in enumerate(self.class_names) if name not in known}
        if not unknown or len(unknown) == len(self.class_names):
            return self
        for index in range(len(self)):
            with contextlib.suppress(BadImage):  # which is counted when it is read again
                unknown -= set(self.shown(self.mask(index)).tolist())
            if not unknown:
                return self
        kept = [k for k in range(len(self.class_names)) if k not in unknown]
        chosen = _chosen(self.classes, kept)
        left_out = f"classes without a pixel are left out: {some_of([self.class_names[k] for k in sorted(unknown)])}"
        order = tuple(self.order[k] for k in kept)
        return replace(self, class_names=chosen.names, classes=chosen, order=order, notes=(*self.notes, left_out))

    def ordered(self, classes: PixelClasses) -> MaskStackSamples:
        """The same with these classes in this order; one that the data has no masks of is nowhere, which is said."""
        places = {name: plane for name, plane in zip(self.class_names, self.order, strict=True)}
        order = tuple(places.get(name, NOWHERE) for name in classes.names)
        absent = [name for name, plane in zip(classes.names, order, strict=True) if plane == NOWHERE]
        said = (f"no masks of {some_of(absent)}: taken as absent from all pictures",) if absent else ()
        return replace(self, class_names=classes.names, classes=classes, order=order, notes=(*self.notes, *said))


def _any_yes(mask: NDArray[np.uint8]) -> bool:
    return bool((mask == 1).any())


def _chosen(classes: PixelClasses, kept: Sequence[int]) -> PixelClasses:
    names, ids, colours = classes
    return PixelClasses(
        tuple(names[k] for k in kept), tuple(ids[k] for k in kept), tuple(colours[k] for k in kept if colours)
    )


def count_masks(mask: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pixels of each class, and those that count for it, (K,) both, of a mask (K, H, W)."""
    return (mask == 1).sum((1, 2)), (mask != IGNORED).sum((1, 2))

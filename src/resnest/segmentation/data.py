"""Samples of semantic segmentation: images with a mask of classes.

samples = open_dataset("camvid", task="segmentation").train           # PixelSamples
samples.mask(0), samples.class_names, samples.classes.colours         # (H, W) uint8, 255 does not count
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnest.data.class_names import is_number
from resnest.data.samples import class_indices, describe_classes, describe_notes
from resnest.data.stores import FolderStore, Store, read_from
from resnest.errors import ResnestError
from resnest.runtime.decode import BadImage
from resnest.segmentation.card import IGNORED, MULTI_LABEL
from resnest.segmentation.class_lists import ClassList
from resnest.segmentation.mask_values import MaskMeaning, mask_size
from resnest.segmentation.paired import PairedSamples, check_masks, check_sizes
from resnest.segmentation.result import PixelClasses
from resnest.segmentation.survey import (
    CountedFromOne,
    Survey,
    check_parts,
    has_number,
    joined,
    settle,
    survey_masks,
    without_first,
)

MOST_NAMED = 5  # classes in a message
NO_COLOUR = (0, 0, 0)  # of a class that the data has no colour for


@dataclass(frozen=True)
class PixelSamples(PairedSamples):
    """Images with a mask each; masks are read on demand."""

    masks: Store
    mask_keys: Sequence[str]  # (N,) names of the masks in their store
    meaning: MaskMeaning
    notes: tuple[str, ...] = ()  # what is left out or assumed, and why
    survey: Survey = field(default_factory=Survey)  # of some masks, when the part was opened; of both parts in training
    by_place: bool = False  # the class list has no values

    @classmethod
    def build(
        cls,
        images: tuple[Store, Sequence[str]],
        masks: tuple[FolderStore, Sequence[str]],
        listed: ClassList,
        notes: tuple[str, ...] = (),
        survey: Survey | None = None,
    ) -> PixelSamples:
        """From stores with the keys of images and of their masks, some of which are looked at without a `survey`.

        Raises:
            ResnestError: the masks contradict the class list, or each other.
        """
        survey = survey_masks(*masks, listed.meaning) if survey is None else survey
        listed, assumed = settle(listed, survey, masks[0].root)
        names = listed.classes.names
        said = (*assumed, *notes)
        return cls(*images, names, listed.classes, *masks, listed.meaning, said, survey, listed.by_place)

    def fingerprinted(self) -> tuple[Sequence[str]]:
        return (self.mask_keys,)

    def mask(self, index: int) -> NDArray[np.uint8]:
        """The class of every pixel, (H, W), 255 if ignored.

        Raises:
            BadImage: names the mask: it cannot be read, or has a value without a class, or is in colours
                where numbers are expected.
        """
        try:
            return self.meaning.read(read_from(self.masks, self.mask_keys[index]))
        except BadImage as error:
            raise self.bad_mask(index, error) from None

    def size(self, index: int) -> tuple[int, int]:
        """Width and height of mask `index`, from its header. Raises BadImage."""
        try:
            return mask_size(read_from(self.masks, self.mask_keys[index]))
        except BadImage as error:
            raise self.bad_mask(index, error) from None

    def subset(self, indices: NDArray[np.int64]) -> PixelSamples:
        return replace(
            self, keys=[self.keys[index] for index in indices], mask_keys=[self.mask_keys[index] for index in indices]
        )

    def mask_name(self, index: int) -> str:
        return self.mask_keys[index]

    def shown(self, mask: NDArray[np.uint8]) -> NDArray[np.int64]:
        labels = np.unique(mask).astype(np.int64)
        known: NDArray[np.int64] = labels[labels != IGNORED]
        return known

    @property
    def left_out(self) -> tuple[str, ...]:
        return self.notes

    def describe(self, val: PixelSamples | None = None) -> str:
        odd = (self.counted_from_one(),)
        notes = describe_notes(self, val, *(one.told for one in odd if one))
        return f"{describe_classes(len(self.class_names))}, masks{notes}"

    def check(self, where: str) -> None:
        if len(self.class_names) < 2:
            raise ResnestError(
                f"{where} has one class only ({self.class_names[0]}): a segmenter needs two or more, or"
                f" {MULTI_LABEL} to learn where it is"
            )
        self.check_values(where)
        check_sizes(self, where)
        check_masks(self, f"{where}: no pixel of any training mask counts")

    def check_values(self, where: str) -> None:
        """Raises ResnestError if the masks seem to count classes from 1, and the list from 0."""
        odd = self.counted_from_one()
        if odd and (self.by_place or odd.certain) and not self._has_first():
            first = self.meaning.names[self.meaning.lookup[0]]
            raise ResnestError(
                f"{where}: {odd.told}. Are they counted from 1? Give each class its value in the list, from 1"
                f" (`1 {first}`), or from 0 if no mask shows {first!r} (`0 {first}`)"
            )

    def check_validation(self, where: str) -> None:
        check_sizes(self, where)
        check_masks(self, f"{where}: no pixel of any validation mask counts: nothing to measure by")

    def counted_from_one(self) -> CountedFromOne | None:
        """What speaks for that, where the class list counts from 0."""
        return without_first(self.survey, self.meaning)

    def _has_first(self) -> bool:
        """Whether any mask that was not looked at has the value 0."""
        return self.survey.masks < self.survey.total and has_number(self.masks, self.mask_keys, 0)

    def matched(self, val: PixelSamples, where: str) -> tuple[PixelSamples, PixelSamples]:
        """With the training split's classes. Raises ResnestError if the validation split has others."""
        check_parts((self.survey, val.survey), (self.classes, val.classes))
        train = replace(self, survey=joined((self.survey, val.survey)))
        if self.classes == val.classes:
            return train, val
        labels = {name: label for label, name in enumerate(self.class_names)}
        val = val.without_unused(labels)
        if unknown := [name for name in val.class_names if name not in labels]:
            raise ResnestError(f"{where}: validation has classes that training has not: {', '.join(unknown[:5])}")
        index = np.array([labels[name] for name in val.class_names], np.int64)
        return train, replace(val.renumbered(index, self.class_names), classes=self.classes)

    def aligned(self, card: Any, where: str) -> PixelSamples:
        known = {*card.class_names, *(card.class_keys or ())}
        if not known.intersection(self.class_names) and all(map(is_number, self.class_names)):
            return self._aligned_by_values(card, where)
        used = self.without_unused(known)
        index = class_indices(used.class_names, card, where)
        return replace(used.renumbered(index, card.class_names), classes=card.classes)

    def _aligned_by_values(self, card: Any, where: str) -> PixelSamples:
        """With the classes of the model that have the values by which these are called.

        Raises:
            ResnestError: the list gives numbers as names to other values, or the model lacks such values.
        """
        places = {str(value): place for place, value in enumerate(card.classes.ids)}
        given = tuple(map(str, self.classes.ids)) != self.class_names
        if given or not places.keys() >= set(self.class_names):
            names, theirs = (some_of(these) for these in (self.class_names, card.class_names))
            raise ResnestError(
                f"{where}: its classes are called {names}, and the model's {theirs}: write the names of the model into"
                " the list of classes"
            )
        index = np.array([places[name] for name in self.class_names], np.int64)
        told = [f"{name} is {card.class_names[places[name]]}" for name in self.class_names]
        note = f"classes by the values of masks that the model was trained with: {some_of(told)}"
        aligned = replace(self.renumbered(index, card.class_names), classes=card.classes)
        return replace(aligned, notes=(*self.notes, note))

    def without_unused(self, known: Collection[str]) -> PixelSamples:
        """Without the listed classes that are not among `known` and that no mask shows."""
        unknown = {k for k, name in enumerate(self.class_names) if name not in known}
        if not unknown or len(unknown) == len(self.class_names):
            return self
        for index in range(len(self)):
            with contextlib.suppress(BadImage):  # which is counted when it is read again
                unknown -= set(np.unique(self.mask(index)).tolist())
            if not unknown:
                return self
        kept = [k for k in range(len(self.class_names)) if k not in unknown]
        place = {IGNORED: IGNORED, **{k: label for label, k in enumerate(kept)}}
        lookup = {value: place[k] for value, k in self.meaning.lookup.items() if k in place}
        names, ids, colours = self.classes
        classes = PixelClasses(
            tuple(names[k] for k in kept), tuple(ids[k] for k in kept), tuple(colours[k] for k in kept if colours)
        )
        left_out = [name for k, name in enumerate(self.class_names) if k in unknown]
        return replace(
            self,
            class_names=classes.names,
            classes=classes,
            meaning=self.meaning.renamed(lookup, classes.names),
            notes=(*self.notes, f"classes without a pixel are left out: {some_of(left_out)}"),
        )

    def renumbered(self, index: NDArray[np.int64], class_names: tuple[str, ...]) -> PixelSamples:
        """The same images with class k called `class_names[index[k]]`; an unknown class has the id -1."""
        lookup = {value: k if k == IGNORED else int(index[k]) for value, k in self.meaning.lookup.items()}
        previous = {int(label): k for k, label in enumerate(index)}
        ids = tuple(self.classes.ids[previous[k]] if k in previous else -1 for k in range(len(class_names)))
        colours = self.classes.colours and tuple(
            self.classes.colours[previous[k]] if k in previous else NO_COLOUR for k in range(len(class_names))
        )
        classes = PixelClasses(class_names, ids, colours)
        return replace(
            self, class_names=class_names, classes=classes, meaning=self.meaning.renamed(lookup, class_names)
        )

    def bad_mask(self, index: int, error: BadImage) -> BadImage:
        """The error of a mask, with its picture."""
        return BadImage(self.keys[index], f"its mask {self.mask_keys[index]}: {error.reason}")


def some_of(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_NAMED]) + (", ..." if len(names) > MOST_NAMED else "")

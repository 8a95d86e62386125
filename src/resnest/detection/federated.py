"""What LVIS says of images and classes beside objects (Gupta et al., arXiv 1908.03195).

    known = FederatedBuilder(path)
    known.image(item); known.category(item)        # of the json, in its order
    samples = samples.with_federation(known.federation(category_ids), known.frequency(category_ids))

LVIS looks for some classes in each image alone. An image lists those that it was searched for without a find
(`neg_category_ids`), and those of which not every object is annotated (`not_exhaustive_category_ids`). Of all classes
that neither have an object there nor are listed, nothing is known. Classes are rare, common or frequent (r, c, f) by
the number of training images that show them.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from resnest.errors import ResnestError
from resnest.figures import counted

NEGATIVE, PARTIAL = "neg_category_ids", "not_exhaustive_category_ids"
GROUPS = {"r": "rare", "c": "common", "f": "frequent"}
COMMON, FREQUENT = 10, 100  # training images from which on a class is c or f (lvis-api, eval.py)

Numbers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ClassLists:
    """Some classes of each image; a selection of images shares the rows."""

    firsts: Numbers  # (N,)
    counts: Numbers  # (N,)
    labels: Numbers  # (L,) -1: a class that is gone

    def __getitem__(self, index: int) -> Numbers:
        """The classes of image `index`."""
        first = int(self.firsts[index])
        mine = self.labels[first : first + int(self.counts[index])]
        return mine[mine >= 0]

    def subset(self, indices: Numbers) -> ClassLists:
        return replace(self, firsts=self.firsts[indices], counts=self.counts[indices])

    def renumbered(self, index: Numbers) -> ClassLists:
        """With class k called `index[k]`; -1 drops it."""
        return replace(self, labels=np.where(self.labels >= 0, index[self.labels], -1))


@dataclass(frozen=True, eq=False)
class Federation:
    """What is known of each image beside its objects."""

    negative: ClassLists  # searched for, and not there
    partial: ClassLists  # there, and not every object annotated

    def subset(self, indices: Numbers) -> Federation:
        return Federation(self.negative.subset(indices), self.partial.subset(indices))

    def renumbered(self, index: Numbers) -> Federation:
        return Federation(self.negative.renumbered(index), self.partial.renumbered(index))

    def fingerprinted(self) -> tuple[Numbers, ...]:
        """The lists of these images, in their order."""
        lists = (self.negative, self.partial)
        return tuple(np.concatenate([of[image] for image in range(len(of.firsts))]) for of in lists)


class FederatedTruth(Protocol):
    """What is known of one image's classes; None and None: all of them, where data is not federated."""

    @property
    def labels(self) -> NDArray[Any]: ...  # (M,) of its objects
    @property
    def negative(self) -> Numbers | None: ...
    @property
    def partial(self) -> Numbers | None: ...


def is_known(labels: Numbers, truth: FederatedTruth) -> NDArray[np.bool_]:
    """Whether the image shows each of these classes or lists it as absent; else a detection of it says nothing."""
    if truth.negative is None:
        return np.ones(len(labels), bool)
    return np.isin(labels, np.union1d(truth.negative, truth.labels))


def is_exhaustive(labels: Numbers, truth: FederatedTruth) -> NDArray[np.bool_]:
    """Whether every object of each of these classes is annotated; else an unmatched detection says nothing."""
    return np.ones(len(labels), bool) if truth.partial is None else ~np.isin(labels, truth.partial)


@contextmanager
def of_one_version(frequency: Sequence[str]) -> Iterator[None]:
    """Errors about classes that a model lacks name LVIS's versions, if the data has frequencies."""
    try:
        yield
    except ResnestError as error:
        if not frequency:
            raise
        versions = "LVIS v0.5 has 1,230 classes, v1 has 1,203, and some are called otherwise"
        raise ResnestError(f"{error}. {versions}: evaluate a model on the version that it was trained on") from None


class FederatedBuilder:
    """Collects the lists of images and the frequencies of classes from a json file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.images = self.listing = 0
        self.lists = {key: (array("q"), array("q")) for key in (NEGATIVE, PARTIAL)}  # counts, category ids
        self.frequencies: dict[int, str] = {}
        self.counts: dict[int, int] = {}  # training images, by category id

    def image(self, item: dict[str, Any]) -> None:
        """Add an image. Raises ResnestError: one list of the two, or no list of numbers."""
        self.images += 1
        if NEGATIVE not in item and PARTIAL not in item:
            return
        self.listing += 1
        for key, (counts, ids) in self.lists.items():
            listed = item.get(key)
            if not isinstance(listed, list) or not all(type(number) is int for number in listed):
                what = "is missing" if listed is None else "is no list of category ids"
                raise ResnestError(
                    f"{self.path}: image {item.get('id')}: {key} {what}: LVIS evaluation needs {NEGATIVE} and"
                    f" {PARTIAL} of every image"
                )
            counts.append(len(listed))
            ids.extend(listed)

    def category(self, number: int, item: dict[str, Any]) -> None:
        """Add a category. Raises ResnestError for a frequency that is none."""
        if type(count := item.get("image_count")) is int:
            self.counts[number] = count
        given = item.get("frequency")
        if given is None:
            return
        if given not in GROUPS:
            raise ResnestError(
                f"{self.path}: category {number}: frequency {str(given)[:40]!r} is none of r (rare), c (common),"
                " f (frequent)"
            )
        self.frequencies[number] = given

    def federation(self, category_ids: Numbers) -> Federation | None:
        """The lists of all images; None if the file has none. Raises ResnestError if only some images have them."""
        if not self.listing:
            return None
        if self.listing < self.images:
            raise ResnestError(
                f"{self.path}: {self.images - self.listing:,} of {self.images:,} images have no {NEGATIVE}: LVIS"
                " evaluation needs it of every image; without any, AP is COCO's"
            )
        made = []
        for counts, ids in self.lists.values():
            many, listed = np.array(counts, np.int64), np.array(ids, np.int64)
            places = np.searchsorted(category_ids, listed)
            found = np.minimum(places, len(category_ids) - 1)
            labels = np.where(category_ids[found] == listed, found, -1)  # a class that the file does not define
            made.append(ClassLists(np.cumsum(many) - many, many, labels))
        return Federation(*made)

    def frequency(self, category_ids: Numbers) -> tuple[str, ...]:
        """r, c or f of each class, "" where it is not known; () for data without frequencies."""
        if not self.frequencies and not self.listing:
            return ()
        return tuple(self._frequency_of(number) for number in category_ids.tolist())

    def _frequency_of(self, number: int) -> str:
        if number in self.frequencies:
            return self.frequencies[number]
        return frequency_of(self.counts[number]) if number in self.counts else ""

    def notes(self, frequency: Sequence[str]) -> list[str]:
        """What evaluation makes of the file."""
        notes = []
        if self.listing:
            notes.append("LVIS annotates some classes of each image: figures follow its rules (docs/lvis.md)")
        elif self.frequencies:
            notes.append(
                f"classes have LVIS's frequencies, but no image has {NEGATIVE}: all classes count as annotated in"
                " every image, so a detection of a class that was not looked for is a false alarm, and AP is lower than"
                " LVIS's"
            )
        if unknown := sum(not group for group in frequency):
            notes.append(
                f"{counted(unknown, 'class has', 'classes have')} no frequency (r, c, f): part of AP, not of APr, APc"
                " and APf"
            )
        return notes


def frequency_of(images: int) -> str:
    """The group of a class that so many training images show.

    >>> frequency_of(9), frequency_of(10), frequency_of(100)
    ('r', 'c', 'f')
    """
    return "r" if images < COMMON else "c" if images < FREQUENT else "f"

"""Samples: images read one by one with their annotations; each task adds its own, here one or several labels.

samples = open_dataset("flowers").train
image, truth = samples.example(0)
samples.decode(0), samples.class_names[samples.labels[0]]
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.data.class_names import is_number
from resnest.data.stores import Store, read_from
from resnest.errors import ResnestError
from resnest.figures import counted
from resnest.runtime.bands import RGB, Bands, read_picture
from resnest.runtime.decode import Exif
from resnest.tasks import DEFAULT_TASK

CONTROL = ("Cc", "Zl", "Zp")  # Unicode's categories of control characters, line and paragraph separators

MOST_SHOWN = 20  # classes in one line


@dataclass(frozen=True)
class Samples(ABC):
    """Images of one split of a data set; `keys[i]` names image i in the store."""

    task: ClassVar[str]
    has: ClassVar[str]  # what is annotated, in a message: "boxes"

    store: Store
    keys: Sequence[str]
    class_names: tuple[str, ...]  # (K,)
    exif: Exif = field(default="auto", kw_only=True)  # which way up they are annotated, where that matters
    bands: Bands = field(default=RGB, kw_only=True)  # how pictures are read

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, index: int) -> bytes:
        """The bytes of image `index`. Raises BadImage."""
        return read_from(self.store, self.keys[index])

    def decode(self, index: int) -> Image.Image:
        """Image `index`, upright, with the channels of `bands`. Raises BadImage, whatever is wrong with the file."""
        return read_picture(self.read(index), self.bands, name=self.keys[index])

    def is_read_as_stored(self, size: tuple[int, int], upright: tuple[int, int]) -> bool:
        """Whether an image with an EXIF orientation is not turned: its size as decoded, and upright."""
        return self.exif == "stored" or size != upright

    # --- defined by each task ---

    @abstractmethod
    def example(self, index: int) -> tuple[Image.Image, Any]:
        """Image `index` and its ground truth for a scorer. Raises BadImage."""

    @abstractmethod
    def subset(self, indices: NDArray[np.int64]) -> Self:
        """Some of the images, in the order given."""

    @abstractmethod
    def check(self, where: str) -> None:
        """Raises ResnestError if there is nothing to train on."""

    @abstractmethod
    def matched(self, val: Self, where: str) -> tuple[Self, Self]:
        """This training split and a validation split with the same classes. Raises ResnestError where impossible."""

    @abstractmethod
    def aligned(self, card: Any, where: str) -> Self:
        """The samples with a model card's class numbers. Raises ResnestError for classes that it lacks."""

    @abstractmethod
    def counts(self) -> NDArray[np.int64]:
        """Images per class, (K,)."""

    def known_counts(self) -> NDArray[np.int64] | None:
        """Images, or segments, of each class, (K,), as far as they are known without decoding; None: not known."""
        return self.counts()

    def sizes(self) -> NDArray[np.int64] | None:
        """Width and height of every image, (N, 2); None where unknown without decoding, or irrelevant."""
        return None

    def groups(self) -> NDArray[np.int64]:
        """The class of each image, (N,), or its rarest one, for `data.balance` and stratified splits."""
        return np.zeros(len(self), np.int64)

    def presence(self) -> NDArray[np.bool_] | None:
        """(N, K) the classes in each image; None if every image has one, or they are unknown."""
        return None

    def marks(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The classes that images show, (M,) images and (M,) classes, for folds and splits of groups."""
        presence = self.presence()
        if presence is None:
            return np.arange(len(self)), self.groups()
        images, classes = np.nonzero(presence)
        return images, classes

    def names_of(self, index: int) -> tuple[str, ...]:
        """The classes of image `index`, if they are known without decoding."""
        return ()

    def for_training(self, recipe: Any) -> Self:
        """The images to train a recipe on. Raises ResnestError if there is none."""
        return self

    def for_validation(self, recipe: Any) -> Self:
        """The images to evaluate a recipe on. Raises ResnestError if they lack what it is evaluated by."""
        return self

    def check_validation(self, where: str) -> None:
        """Raises ResnestError if there is nothing to evaluate on."""
        return

    def describe(self, val: Self | None = None) -> str:
        """Classes and annotations of this split, or of this training split and its validation split."""
        return f"{describe_classes(len(self.class_names))}{describe_notes(self, val)}"

    @property
    def left_out(self) -> tuple[str, ...]:
        """What was left out or assumed when this split was read, and why."""
        return ()

    def fingerprinted(self) -> Iterable[NDArray[Any] | Sequence[str]]:
        """For `fingerprint`: what is known of the annotations without opening a file for each image."""
        return ()

    @property
    def fingerprint(self) -> str:
        """A hash of the classes, of the images' names in their order, and of `fingerprinted`; no image is read."""
        digest = hashlib.sha256()
        for part in (self.class_names, self.keys, *self.fingerprinted()):
            if isinstance(part, np.ndarray):
                digest.update(f"{part.dtype.str}{part.shape}".encode() + np.ascontiguousarray(part).tobytes())
            else:
                digest.update(f"{len(part)}\0".encode())
                for name in part:
                    digest.update(name.encode(errors="surrogateescape") + b"\0")
        return digest.hexdigest()[:16]


def clean_name(name: Any) -> str:
    """A class's name without space around it, as lists, tables and drawings show it.

    Raises:
        ValueError: it is neither text nor a number, empty, or has line ends or other control characters within.
    """
    if isinstance(name, bool) or not isinstance(name, str | int | float):
        raise ValueError(f"the name {json.dumps(name)} is no text")
    text = str(name).strip().strip("\ufeff\u200b")
    if not text:
        raise ValueError(f"the name {name!r} is empty")
    if any(unicodedata.category(character) in CONTROL for character in text):
        raise ValueError(f"the name {text!r} has a line end or another control character")
    return text


def describe_classes(count: int) -> str:
    return f"{count} class{'es' if count != 1 else ''}"


def describe_counts(samples: Samples, val: Samples | None = None) -> str:
    """Classes with their counts where these are known, the first of many, and those that `val` lacks: "cat 10, dog 8".

    A class that no validation image has is in no figure, so that 100 % of the others says nothing of it.
    """
    counts = samples.known_counts()
    shown = samples.class_names[:MOST_SHOWN]
    named = [name if counts is None else f"{name} {counts[k]}" for k, name in enumerate(shown)]
    left = len(samples.class_names) - len(shown)
    told = ", ".join(named) + (f" and {left} more" if left else "")
    measured = None if val is None or counts is None else val.known_counts()
    if counts is None or measured is None or not (lacking := np.flatnonzero((counts > 0) & (measured == 0))).size:
        return told
    names = ", ".join(samples.class_names[label] for label in lacking[:MOST_SHOWN])
    more = f" and {len(lacking) - MOST_SHOWN} more" if len(lacking) > MOST_SHOWN else ""
    return f"{told}; no validation image has {names}{more}: not measured"


def describe_notes(train: Samples, val: Samples | None = None, *more: str) -> str:
    """Notes on what was left out or decided, and more; once, if both splits are from one file."""
    if val is None or train.left_out == val.left_out:
        notes = list(train.left_out)
    else:
        parts = (("training", train), ("validation", val))
        notes = [f"{name}: {note}" for name, part in parts for note in part.left_out]
    notes += [*more, *([f"data.exif={train.exif}"] if train.exif != "auto" else [])]
    return f" ({'; '.join(dict.fromkeys(notes))})" if notes else ""


@dataclass(frozen=True)
class LabelledSamples(Samples):
    """Labelled images: `labels[i]` is an index into `class_names`, or a row of 0 and 1."""

    task = DEFAULT_TASK
    has = "labels"

    labels: NDArray[Any]  # (N,) int64; multi-label: (N, K) bool
    class_keys: tuple[str, ...] = field(default=(), kw_only=True)  # how the data has the classes, where names differ
    notes: tuple[str, ...] = field(default=(), kw_only=True)  # how the data was read, and what of it was left out

    @property
    def left_out(self) -> tuple[str, ...]:
        return self.notes

    def example(self, index: int) -> tuple[Image.Image, Any]:
        """Image `index` and its label, or its row of labels. Raises BadImage."""
        return self.decode(index), self.labels[index]

    def subset(self, indices: NDArray[np.int64]) -> LabelledSamples:
        return replace(self, keys=[self.keys[index] for index in indices], labels=self.labels[indices])

    @property
    def multi_label(self) -> bool:
        """Whether an image may have any number of labels."""
        return self.labels.ndim == 2

    def presence(self) -> NDArray[np.bool_] | None:
        return self.labels if self.multi_label else None

    def counts(self) -> NDArray[np.int64]:
        if self.multi_label:
            counts: NDArray[np.int64] = self.labels.sum(0, dtype=np.int64)
            return counts
        return np.bincount(self.labels, minlength=len(self.class_names))

    def fingerprinted(self) -> tuple[NDArray[Any]]:
        return (self.labels,)

    def groups(self) -> NDArray[np.int64]:
        """The class of each image; if multi-label the rarest, of equally rare ones the first; without any, K."""
        return rarest(self.labels) if self.multi_label else self.labels

    def names_of(self, index: int) -> tuple[str, ...]:
        if self.multi_label:
            return tuple(self.class_names[label] for label in np.flatnonzero(self.labels[index]))
        return (self.class_names[self.labels[index]],)

    def describe(self, val: LabelledSamples | None = None) -> str:
        several = ", several an image" if self.multi_label and val is not None else ""
        return f"{describe_classes(len(self.class_names))}{several}{describe_notes(self, val)}"

    def check(self, where: str) -> None:
        if not self.class_names:
            raise ResnestError(f"{where} has no label in any line")
        if len(self.class_names) < 2 and not self.multi_label:
            raise ResnestError(f"{where} has one class only ({self.class_names[0]}): a classifier needs two or more")
        empty = [self.class_names[label] for label in np.flatnonzero(self.counts() == 0)]
        if empty:
            raise ResnestError(f"{where}: no training image of class {', '.join(empty[:5])}")

    def check_validation(self, where: str) -> None:
        if self.multi_label and not self.labels.any():
            raise ResnestError(f"{where} has no label on any validation image: nothing to measure by")

    def matched(self, val: LabelledSamples, where: str) -> tuple[LabelledSamples, LabelledSamples]:
        """With the training split's classes, by their names or else their keys; one may have no validation images."""
        index = _places(val.class_names, self.class_names) or _places(
            val.class_keys or val.class_names, self.class_keys or self.class_names
        )
        if index is None:
            unknown = [name for name in val.class_names if name not in self.class_names]
            images = [key for index, key in enumerate(val.keys) if unknown[0] in val.names_of(index)]
            names = ", ".join(unknown[:5]) + (f" (as in {images[0]})" if images else "")
            raise ResnestError(f"{where}: validation has classes that training has not: {names}")
        if val.multi_label and not self.multi_label:
            raise ResnestError(
                f"{where}: validation images have several labels and training images one: call both labels"
            )
        return self, val.renumbered(np.array(index, np.int64), self, multi_label=self.multi_label)

    def aligned(self, card: Any, where: str) -> LabelledSamples:
        match = match_classes(self.class_names, card, where, self.class_keys)
        if self.multi_label and not card.multi_label:
            raise ResnestError(f"{where} has several labels an image, and the model gives one: train one on such data")
        aligned = self.renumbered(match.index, card, multi_label=card.multi_label)
        return replace(aligned, notes=(*self.notes, *match.notes))

    def renumbered(self, index: NDArray[np.int64], like: Any, *, multi_label: bool) -> LabelledSamples:
        """The same images with class k called `like.class_names[index[k]]`; single-label may become multi-label.

        `like` is a model's card, or other samples.
        """
        labels = index[self.labels] if not self.multi_label else self.labels
        if multi_label:
            marks = self.labels if self.multi_label else np.eye(len(index), dtype=bool)[self.labels]
            labels = np.zeros((len(self), len(like.class_names)), bool)
            labels[:, index] = marks
        return replace(self, labels=labels, class_names=like.class_names, class_keys=like.class_keys)


def rarest(labels: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The rarest label of each image, (N, K) -> (N,); of equally rare ones the first, and K of none."""
    rarity = np.where(labels, labels.sum(0, dtype=np.int64), len(labels) + 1)  # (N, K)
    groups: NDArray[np.int64] = np.where(labels.any(1), rarity.argmin(1), labels.shape[1])
    return groups


@dataclass(frozen=True)
class ClassMatch:
    """The index of each class among those of a model."""

    index: NDArray[np.int64]  # (K,)
    notes: tuple[str, ...] = ()  # how they were matched, unless by their names


def match_classes(
    names: Sequence[str], card: Any, where: str, keys: Sequence[str] = (), *, places: bool = True
) -> ClassMatch:
    """Match the classes of data with those of a model's card.

    In turn: by the data's own names for them; by their keys, which name the folders, as the card has them or as its
    names; both mixed; last, numbers that neither has are places in the model's order (ImageNet-V2).

    Args:
        keys: where the data has keys beside names.
        places: whether numbers may be places.

    Raises:
        ResnestError: a class that the model does not know.
    """
    own = card.class_keys or card.class_names
    keyed = ((names, card.class_names), (keys, own)) if keys else ((names, own), (names, card.class_names))
    for mine, theirs in keyed:
        if (index := _places(mine, theirs)) is not None:
            return ClassMatch(np.array(index, np.int64))
    both = {name: index for these in (own, card.class_names) for index, name in enumerate(these)}
    if all(name in both for name in names):
        return ClassMatch(np.array([both[name] for name in names], np.int64))
    count = len(card.class_names)
    numbers = keys or names
    if places and all(map(is_number, numbers)) and not all(map(is_number, own)) and max(map(int, numbers)) < count:
        note = f"classes {numbers[0]} to {numbers[-1]} are taken as places in the model's order, from 0"
        return ClassMatch(np.array([int(name) for name in numbers], np.int64), (note,))
    unknown = [name for name in names if name not in both]
    shown = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
    raise ResnestError(
        f"{where} has {counted(len(unknown), 'class', 'classes')} that the model does not know: {shown}."
        f" The model has {count}: {', '.join(card.class_names[:5])}{', ...' if count > 5 else ''}"
    )


def class_indices(class_names: tuple[str, ...], card: Any, where: str) -> NDArray[np.int64]:
    """The index of each class among those of a model's card, (K,), by their names.

    Raises ResnestError as `match_classes`.
    """
    return match_classes(class_names, card, where, places=False).index


def _places(names: Sequence[str], among: Sequence[str]) -> list[int] | None:
    """The place of each name; None if one is missing."""
    places = {name: index for index, name in enumerate(among)}
    return [places[name] for name in names] if all(name in places for name in names) else None

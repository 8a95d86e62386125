"""Images that are read one by one; each task's data adds what is annotated on them.

samples = open_dataset("flowers").train
image, truth = samples.example(0)
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.data.stores import Store, read_from
from resnest.runtime.decode import decode_image


@dataclass(frozen=True)
class Samples(ABC):
    """Images of one part of a data set; `keys[i]` names image i in the store."""

    task: ClassVar[str]
    has: ClassVar[str]  # what is annotated, in a message: "boxes"

    store: Store
    keys: Sequence[str]
    class_names: tuple[str, ...]  # (K,)

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, index: int) -> bytes:
        """The bytes of image `index`. Raises BadImage."""
        return read_from(self.store, self.keys[index])

    def decode(self, index: int) -> Image.Image:
        """Image `index`, RGB and upright. Raises BadImage, whatever is wrong with the file."""
        return decode_image(self.read(index), name=self.keys[index])

    # --- what a task says ---

    @abstractmethod
    def example(self, index: int) -> tuple[Image.Image, Any]:
        """Image `index` and what it shows, as a scorer compares it. Raises BadImage."""

    @abstractmethod
    def subset(self, indices: NDArray[np.int64]) -> Self:
        """Some of the images, in the order given."""

    @abstractmethod
    def check(self, where: str) -> None:
        """Raises ResnestError where there is nothing to learn."""

    @abstractmethod
    def matched(self, val: Self, where: str) -> tuple[Self, Self]:
        """This training part and a validation part with the same classes. Raises ResnestError where that cannot be."""

    @abstractmethod
    def aligned(self, card: Any, where: str) -> Self:
        """With classes as the model of a card numbers them. Raises ResnestError for classes that it does not know."""

    @abstractmethod
    def counts(self) -> NDArray[np.int64]:
        """Images per class, (K,)."""

    def sizes(self) -> NDArray[np.int64] | None:
        """Width and height of every image, (N, 2), where that is known without decoding or matters."""
        return None

    def groups(self) -> NDArray[np.int64]:
        """What `data.balance` evens out and a split keeps in proportion, (N,)."""
        return np.zeros(len(self), np.int64)

    def presence(self) -> NDArray[np.bool_] | None:
        """(N, K) which classes each image shows; None where every image shows one, or it is not known."""
        return None

    def names_of(self, index: int) -> tuple[str, ...]:
        """The classes of image `index`, where they are known without decoding."""
        return ()

    def for_training(self, recipe: Any) -> Self:
        """The images that a recipe learns from. Raises ResnestError if there is none."""
        return self

    def check_validation(self, where: str) -> None:
        """Raises ResnestError where there is nothing to measure by."""
        return

    def describe(self, val: Self | None = None) -> str:
        """Classes and annotations of this part, or of this training part and its validation part."""
        return f"{describe_classes(len(self.class_names))}{describe_notes(self, val)}"

    @property
    def left_out(self) -> tuple[str, ...]:
        """What was left out when this part was read, and why."""
        return ()


S = TypeVar("S", bound=Samples)


def describe_classes(count: int) -> str:
    return f"{count} class{'es' if count != 1 else ''}"


def describe_notes(train: Samples, val: Samples | None = None) -> str:
    """What was left out when parts were read; once, where both come from one file."""
    if val is None or train.left_out == val.left_out:
        notes = list(train.left_out)
    else:
        parts = (("training", train), ("validation", val))
        notes = [f"{name}: {note}" for name, part in parts for note in part.left_out]
    return f" ({'; '.join(dict.fromkeys(notes))})" if notes else ""


def holdout(samples: S, fraction: float, seed: int) -> tuple[S, S]:
    """Training and validation part of one collection, group by group (`Samples.groups`).

    Whether an image is held out follows from a hash of its key and the seed: the split is the same on every machine and
    in every order of files, and an added image hardly moves the others. A group of one image goes to training, and no
    class of images with several is held out as a whole.
    """
    held_out = np.zeros(len(samples), bool)
    ranks = np.array([_hash(key, seed) for key in samples.keys], np.uint64)
    groups = samples.groups()
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        count = max(1, round(len(members) * fraction)) if len(members) > 1 else 0
        held_out[members[np.argsort(ranks[members], kind="stable")[:count]]] = True
    presence = samples.presence()
    if presence is not None:
        for label in np.flatnonzero(presence.any(0) & ~presence[~held_out].any(0)):
            members = np.flatnonzero(presence[:, label])
            held_out[members[np.argmax(ranks[members])]] = False
    return samples.subset(np.flatnonzero(~held_out)), samples.subset(np.flatnonzero(held_out))


def _hash(key: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{key}".encode()).digest()[:8], "big")

"""Labelled images that are read one by one: where their bytes lie is the business of a store.

samples = open_dataset("flowers").train
samples.decode(0), samples.class_names[samples.labels[0]]
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.runtime.decode import MAX_BYTES, BadImage, decode_image


class Store(Protocol):
    """Reads the bytes of an image by its key; it must survive pickling and forking into worker processes."""

    def read(self, key: str) -> bytes: ...


@dataclass(frozen=True)
class FolderStore:
    """Keys are paths below a folder."""

    root: Path

    def read(self, key: str) -> bytes:
        with (self.root / key).open("rb") as file:
            return file.read(MAX_BYTES + 1)


@dataclass
class ZipStore:
    """Keys are members of a zip file, which is read in place and never unpacked."""

    path: Path
    _handle: tuple[int, zipfile.ZipFile] | None = field(default=None, repr=False, compare=False)

    def read(self, key: str) -> bytes:
        if self._handle is None or self._handle[0] != os.getpid():
            self._handle = (os.getpid(), zipfile.ZipFile(self.path))  # a handle must not be shared across a fork
        with self._handle[1].open(key) as member:
            return member.read(MAX_BYTES + 1)

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "_handle": None}


@dataclass(frozen=True)
class BytesStore:
    """Keys are numbers of records that lie one behind the other in one array."""

    content: NDArray[np.uint8]
    offsets: NDArray[np.int64]  # (N + 1,)

    def read(self, key: str) -> bytes:
        start, end = self.offsets[int(key)], self.offsets[int(key) + 1]
        return self.content[start:end].tobytes()


@dataclass(frozen=True)
class Samples:
    """Images with labels: `labels[i]` indexes `class_names`, or marks several; `keys[i]` names image i in the store."""

    store: Store
    keys: Sequence[str]
    labels: NDArray[Any]  # (N,) int64; multi-label: (N, K) bool
    class_names: tuple[str, ...]  # (K,)

    def __len__(self) -> int:
        return len(self.keys)

    def decode(self, index: int) -> Image.Image:
        """Image `index`, RGB and upright. Raises BadImage, whatever is wrong with the file."""
        key = self.keys[index]
        try:
            content = self.store.read(key)
        except (OSError, KeyError, zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise BadImage(key, f"cannot be read ({reason})") from None
        return decode_image(content, name=key)

    def subset(self, indices: NDArray[np.int64]) -> Samples:
        chosen = [self.keys[index] for index in indices]
        return Samples(self.store, chosen, self.labels[indices], self.class_names)

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several labels, or none."""
        return self.labels.ndim == 2

    def counts(self) -> NDArray[np.int64]:
        """Images per class, (K,)."""
        if self.multi_label:
            counts: NDArray[np.int64] = self.labels.sum(0, dtype=np.int64)
            return counts
        return np.bincount(self.labels, minlength=len(self.class_names))

    def groups(self) -> NDArray[np.int64]:
        """What `data.balance` evens out and a split keeps in proportion: the class of each image, (N,).

        Of several labels the rarest one counts, of equally rare ones the first; an image without any gets K.
        """
        if not self.multi_label:
            return self.labels
        rarity = np.where(self.labels, self.counts(), len(self) + 1)  # (N, K)
        groups: NDArray[np.int64] = np.where(self.labels.any(1), rarity.argmin(1), len(self.class_names))
        return groups

    def names_of(self, index: int) -> tuple[str, ...]:
        """The classes of image `index`: one, or of a multi-label set any number."""
        if self.multi_label:
            return tuple(self.class_names[label] for label in np.flatnonzero(self.labels[index]))
        return (self.class_names[self.labels[index]],)

    def renumbered(self, index: NDArray[np.int64], class_names: tuple[str, ...], *, multi_label: bool) -> Samples:
        """The same images with class k called `class_names[index[k]]`; one label an image may become one of several."""
        labels = index[self.labels] if not self.multi_label else self.labels
        if multi_label:
            marks = self.labels if self.multi_label else np.eye(len(index), dtype=bool)[self.labels]
            labels = np.zeros((len(self), len(class_names)), bool)
            labels[:, index] = marks
        return Samples(self.store, self.keys, labels, class_names)


def split_samples(samples: Samples, share: float, seed: int) -> tuple[Samples, Samples]:
    """Train and validation part of one collection, class by class; of several labels, by the rarest one.

    Each image's place follows from a hash of its key and the seed: the split is the same on every machine and in
    every order of files, and an added image hardly moves the others. A class of one image goes to training, and no
    class of a multi-label set is held back as a whole.
    """
    held_back = np.zeros(len(samples), bool)
    ranks = np.array([_hash(key, seed) for key in samples.keys], np.uint64)
    groups = samples.groups()
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        count = max(1, round(len(members) * share)) if len(members) > 1 else 0
        held_back[members[np.argsort(ranks[members], kind="stable")[:count]]] = True
    if samples.multi_label:
        for label in np.flatnonzero(~samples.labels[~held_back].any(0)):
            members = np.flatnonzero(samples.labels[:, label])
            held_back[members[np.argmax(ranks[members])]] = False
    return samples.subset(np.flatnonzero(~held_back)), samples.subset(np.flatnonzero(held_back))


def _hash(key: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{key}".encode()).digest()[:8], "big")

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
from typing import Protocol

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
    """Images with labels: `labels[i]` indexes `class_names`; `keys[i]` names image i in the store."""

    store: Store
    keys: Sequence[str]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]

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

    def counts(self) -> NDArray[np.int64]:
        """Images per class, (K,)."""
        return np.bincount(self.labels, minlength=len(self.class_names))

    def groups(self) -> NDArray[np.int64]:
        """What `data.balance` evens out and a split keeps in proportion: the class of each image, (N,)."""
        return self.labels


def split_samples(samples: Samples, share: float, seed: int) -> tuple[Samples, Samples]:
    """Train and validation part of one collection, class by class.

    Each image's place follows from a hash of its key and the seed: the split is the same on every machine and in
    every order of files, and an added image hardly moves the others. A class of one image goes to training.
    """
    held_back = np.zeros(len(samples), bool)
    ranks = np.array([_hash(key, seed) for key in samples.keys], np.uint64)
    for label in range(len(samples.class_names)):
        members = np.flatnonzero(samples.labels == label)
        count = max(1, round(len(members) * share)) if len(members) > 1 else 0
        held_back[members[np.argsort(ranks[members], kind="stable")[:count]]] = True
    return samples.subset(np.flatnonzero(~held_back)), samples.subset(np.flatnonzero(held_back))


def _hash(key: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{key}".encode()).digest()[:8], "big")

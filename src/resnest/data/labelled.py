"""Images with labels: one each, or any number. What a classifier is trained and measured on.

samples = open_dataset("flowers").train
samples.decode(0), samples.class_names[samples.labels[0]]
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.data.samples import Samples, describe_classes
from resnest.errors import ResnestError
from resnest.tasks import DEFAULT_TASK


@dataclass(frozen=True)
class LabelledSamples(Samples):
    """`labels[i]` indexes `class_names`, or marks several."""

    task = DEFAULT_TASK
    has = "labels"

    labels: NDArray[Any]  # (N,) int64; multi-label: (N, K) bool

    def example(self, index: int) -> tuple[Image.Image, Any]:
        """Image `index` and its label, or its row of labels. Raises BadImage."""
        return self.decode(index), self.labels[index]

    def subset(self, indices: NDArray[np.int64]) -> LabelledSamples:
        return replace(self, keys=[self.keys[index] for index in indices], labels=self.labels[indices])

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several labels, or none."""
        return self.labels.ndim == 2

    def presence(self) -> NDArray[np.bool_] | None:
        return self.labels if self.multi_label else None

    def counts(self) -> NDArray[np.int64]:
        if self.multi_label:
            counts: NDArray[np.int64] = self.labels.sum(0, dtype=np.int64)
            return counts
        return np.bincount(self.labels, minlength=len(self.class_names))

    def groups(self) -> NDArray[np.int64]:
        """The class of each image; of several labels the rarest, of equally rare ones the first; without any, K."""
        return rarest(self.labels) if self.multi_label else self.labels

    def names_of(self, index: int) -> tuple[str, ...]:
        if self.multi_label:
            return tuple(self.class_names[label] for label in np.flatnonzero(self.labels[index]))
        return (self.class_names[self.labels[index]],)

    def describe(self, val: LabelledSamples | None = None) -> str:
        several = ", several an image" if self.multi_label and val is not None else ""
        return f"{describe_classes(len(self.class_names))}{several}"

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
        """With the training part's classes; a class may lack validation images."""
        unknown = [name for name in val.class_names if name not in self.class_names]
        if unknown:
            images = [key for index, key in enumerate(val.keys) if unknown[0] in val.names_of(index)]
            names = ", ".join(unknown[:5]) + (f" (as in {images[0]})" if images else "")
            raise ResnestError(f"{where}: validation has classes that training has not: {names}")
        if val.multi_label and not self.multi_label:
            raise ResnestError(
                f"{where}: validation images have several labels and training images one: call both labels"
            )
        index = np.array([self.class_names.index(name) for name in val.class_names], np.int64)
        return self, val.renumbered(index, self.class_names, multi_label=self.multi_label)

    def aligned(self, card: Any, where: str) -> LabelledSamples:
        index = class_indices(self.class_names, card, where)
        if self.multi_label and not card.multi_label:
            raise ResnestError(f"{where} has several labels an image, and the model gives one: train one on such data")
        return self.renumbered(index, card.class_names, multi_label=card.multi_label)

    def renumbered(
        self, index: NDArray[np.int64], class_names: tuple[str, ...], *, multi_label: bool
    ) -> LabelledSamples:
        """The same images with class k called `class_names[index[k]]`; one label an image may become one of several."""
        labels = index[self.labels] if not self.multi_label else self.labels
        if multi_label:
            marks = self.labels if self.multi_label else np.eye(len(index), dtype=bool)[self.labels]
            labels = np.zeros((len(self), len(class_names)), bool)
            labels[:, index] = marks
        return replace(self, labels=labels, class_names=class_names)


def rarest(labels: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The rarest label of each image, (N, K) -> (N,); of equally rare ones the first, and K of none."""
    rarity = np.where(labels, labels.sum(0, dtype=np.int64), len(labels) + 1)  # (N, K)
    groups: NDArray[np.int64] = np.where(labels.any(1), rarity.argmin(1), labels.shape[1])
    return groups


def class_indices(class_names: tuple[str, ...], card: Any, where: str) -> NDArray[np.int64]:
    """Where each class is among those of a model's card, (K,).

    A class may be called by the model's name for it, by its key (ImageNet's synset), or, if all of them are numbers,
    by its index (ImageNet-V2).

    Raises:
        ResnestError: a class that the model does not know.
    """
    known = {name: index for names in (card.class_keys, card.class_names) for index, name in enumerate(names)}
    count = len(card.class_names)
    unknown = [name for name in class_names if name not in known]
    if unknown and all(name.isdigit() and int(name) < count for name in class_names):
        known, unknown = {name: int(name) for name in class_names}, []
    if unknown:
        shown = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        raise ResnestError(
            f"{where} has {len(unknown)} classes that the model does not know: {shown}."
            f" The model has {count}: {', '.join(card.class_names[:5])}{', ...' if count > 5 else ''}"
        )
    return np.array([known[name] for name in class_names], np.int64)

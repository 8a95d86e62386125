"""ImageNet-ReaL: several correct labels per image, or none (Beyer et al., arXiv 2006.07159).

samples = relabel(samples, Path("real.json"), card)   # without the images that have no correct label
image, answers = samples.example(0)                   # from the reassessed-imagenet repository
best_answer(answers, logits)                          # the best-ranked correct label
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.classification.card import ClassificationCard
from resnest.data.samples import LabelledSamples
from resnest.errors import ResnestError, parameter

_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})")


@dataclass(frozen=True)
class RealLabels:
    """Correct labels by validation image number, which its file name has; numbers start at 1."""

    answers: Sequence[Sequence[int]]

    @classmethod
    def read(cls, path: Path, num_classes: int) -> RealLabels:
        """Raises ResnestError for a file that is not a list of lists of class indices."""
        try:
            answers = json.loads(path.read_text(encoding="utf-8"))
            for number, row in enumerate(answers, start=1):
                if not isinstance(row, list) or any(
                    type(index) is not int or index not in range(num_classes) for index in row
                ):
                    raise ValueError(
                        f"entry {number} is {json.dumps(row)[:40]}, not a list of indices below {num_classes}"
                    )
        except (OSError, ValueError, TypeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ResnestError(f"{parameter('labels', path)} is not ImageNet-ReaL's real.json: {reason}") from None
        return cls(answers)

    def of(self, key: str) -> Sequence[int]:
        """The correct labels of an image, by its file name."""
        match, given = _NUMBER.search(key), parameter("labels")
        if match is None:
            raise ResnestError(
                f"{given}: {key} has no number of an ImageNet validation image (ILSVRC2012_val_00000001)"
            )
        number = int(match[1])
        if not 1 <= number <= len(self.answers):
            raise ResnestError(f"{given}: {key} is image {number}, and there are labels for {len(self.answers)}")
        return self.answers[number - 1]


class Answers(tuple[int, ...]):
    """The correct labels of an image."""


@dataclass(frozen=True)
class RealSamples(LabelledSamples):
    """Images with several correct labels each, instead of one."""

    real: RealLabels

    def example(self, index: int) -> tuple[Image.Image, Answers]:
        return self.decode(index), Answers(self.real.of(self.keys[index]))


def relabel(samples: LabelledSamples, path: Path, card: ClassificationCard) -> RealSamples:
    """The samples with a correct label in ImageNet-ReaL's file.

    Raises:
        ResnestError: a multi-label model, an invalid file, a file name without the image's number,
            or no image left.
    """
    if samples.multi_label:
        raise ResnestError(f"{parameter('labels')} replaces one label an image: leave it out for a multi-label model")
    real = RealLabels.read(path, len(card.class_names))
    chosen = np.flatnonzero([bool(real.of(key)) for key in samples.keys])
    if not len(chosen):
        raise ResnestError(f"{parameter('labels')}: not one of the images has a label in that file")
    part = samples.subset(chosen)
    return RealSamples(part.store, part.keys, part.class_names, part.labels, real)


def best_answer(answers: Sequence[int], logits: NDArray[np.floating]) -> int:
    """The correct label with the highest of the logits (K,): it is in the top k if any of them is."""
    ordered = sorted(answers)
    return ordered[int(np.argmax(logits[ordered]))]

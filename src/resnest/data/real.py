"""ImageNet-ReaL: several right answers for an image, or none (Beyer et al., arXiv 2006.07159).

real = RealLabels.read(Path("real.json"), 1000)     # from the reassessed-imagenet repository
samples = real.choose(samples)                      # without the images that have no right answer
labels = real.best(keys, logits)                    # each image's best-ranked right answer
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from resnest.data.samples import Samples
from resnest.errors import ResnestError

_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})")


@dataclass(frozen=True)
class RealLabels:
    """Right answers by the number of the validation image, which its file name holds; image 1 comes first."""

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
            raise ResnestError(f"--labels {path} is not ImageNet-ReaL's real.json: {reason}") from None
        return cls(answers)

    def choose(self, samples: Samples) -> Samples:
        """The samples that have a right answer.

        Raises:
            ResnestError: a file name without the image's number, or none left.
        """
        kept = np.flatnonzero([bool(self.of(key)) for key in samples.keys])
        if not len(kept):
            raise ResnestError("--labels: not one of the images has a label in that file")
        return samples.subset(kept)

    def of(self, key: str) -> Sequence[int]:
        """The right answers for an image, by its file name."""
        match = _NUMBER.search(key)
        if match is None:
            raise ResnestError(
                f"--labels: {key} has no number of an ImageNet validation image (ILSVRC2012_val_00000001)"
            )
        number = int(match[1])
        if not 1 <= number <= len(self.answers):
            raise ResnestError(f"--labels: {key} is image {number}, and there are labels for {len(self.answers)}")
        return self.answers[number - 1]

    def best(self, keys: Sequence[str], logits: NDArray[np.floating]) -> NDArray[np.int64]:
        """The right answer that ranks highest: (N,), logits (N, K). It is in the top k if any of them is."""
        chosen = []
        for key, row in zip(keys, logits, strict=True):
            answers = sorted(self.of(key))
            chosen.append(answers[int(np.argmax(row[answers]))])
        return np.array(chosen, np.int64)

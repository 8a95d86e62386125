"""The accuracy lost by int8 on a hold-out set, paired by picture.

    costs = compare(run_float, {"onnxruntime": run_int8}, held_back.batches(card), multi_label=False)
    costs["onnxruntime"].drop, costs["onnxruntime"].interval       # fractions 0..1

Both see the same pictures, so only those count where one is right and the other wrong: the interval is that of the
difference of two paired proportions, with half a picture added to each of the four cells (Agresti and Min, Statistics
in Medicine 24, 2005). Without these the interval would have no width where no picture differs, however few there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]
Batches = Iterable[tuple[NDArray[np.float32], NDArray[np.int64]]]
Z95 = 1.96  # two-sided 95 % of a normal distribution


@dataclass(frozen=True)
class Cost:
    """The accuracy lost by an int8 network against its float one, in one engine."""

    images: int
    right: int  # float's, with labels
    lost: int  # float is right and int8 is wrong; without labels: int8 predicts another label
    won: int  # the other way round; without labels 0
    labelled: bool

    @property
    def drop(self) -> float:
        """Lost accuracy, a fraction; without labels, the fraction of changed labels."""
        return (self.lost - self.won) / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the drop."""
        images = self.images + 2
        middle = (self.lost - self.won) / images
        spread = Z95 * math.sqrt((self.lost + self.won + 1) / images - middle**2) / math.sqrt(images)
        return max(middle - spread, -1.0), min(middle + spread, 1.0)

    def needed(self, allowed: float) -> int:
        """How many pictures would distinguish this drop from the allowed one; 0 if these do."""
        low, high = self.interval
        if not low <= allowed < high:
            return 0
        changing = (self.lost + self.won + 1) / (self.images + 2)
        return math.ceil(changing * (Z95 / max(abs(allowed - self.drop), 0.001)) ** 2)

    def to_dict(self) -> dict[str, Any]:
        both = {"images": self.images, "drop": self.drop, "interval": list(self.interval)}
        if not self.labelled:
            return {"labels_changed": self.lost / self.images, **both}
        return {"float32": self.right / self.images, "int8": (self.right - self.lost + self.won) / self.images, **both}

    def __str__(self) -> str:
        low, high = (100 * value for value in self.interval)
        if not self.labelled:
            return (
                f"{100 * self.drop:.2f} % of {self.images} held-back pictures get another label (at most {high:.2f} %)"
            )
        told = self.to_dict()
        return (
            f"top-1 {100 * told['float32']:.2f} % in float, {100 * told['int8']:.2f} % in int8:"
            f" {-100 * self.drop:+.2f} points ({-high:+.2f} to {-low:+.2f}) on {self.images} held-back pictures"
        )


def compare(run: Run, others: Mapping[str, Run], batches: Batches, *, multi_label: bool) -> dict[str, Cost]:
    """Run every picture through the float network and each of the others."""
    counts = {name: np.zeros(2, int) for name in others}  # lost, won
    images, right, labelled = 0, 0, False
    for pictures, labels in batches:
        expected = _answer(run(pictures), multi_label)
        labelled = bool(labels[0] >= 0)
        images, right = images + len(labels), right + int(_right(expected, labels).sum())
        for name, other in others.items():
            got = _answer(other(pictures), multi_label)
            if labelled:
                before, after = _right(expected, labels), _right(got, labels)
                counts[name] += (before & ~after).sum(), (~before & after).sum()
            else:
                counts[name][0] += (expected != got).any(-1).sum()
    return {name: Cost(images, right, int(lost), int(won), labelled) for name, (lost, won) in counts.items()}


def _answer(logits: NDArray[np.float32], multi_label: bool) -> NDArray[Any]:
    """(N, K) -> (N, 1), the top-1 class, or (N, K), the labels that score 50 % or more."""
    return logits >= 0 if multi_label else logits.argmax(-1)[:, None]


def _right(answer: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    right: NDArray[np.bool_] = answer[:, 0] == labels
    return right

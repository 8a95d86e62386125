"""What a prediction is, for programs and for people.

prediction.top(3)         # [("rose", 0.91), ("tulip", 0.06), ("daisy", 0.02)]
prediction.to_dict(3)     # ready for json.dumps; scores are fractions 0..1
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Result(Protocol):
    """What a picture shows, of any task."""

    @property
    def name(self) -> str: ...  # the picture's path as it was given


@dataclass(frozen=True)
class Classification:
    """Scores of every class for one image."""

    name: str  # the image's path as it was given
    class_names: Sequence[str]
    scores: NDArray[np.float32]  # (K,), they add up to 1
    logits: NDArray[np.float32] | None = field(default=None, repr=False)  # (K,) what the scores were made from

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """The k most likely classes with their scores, best first; ties go to the lower index."""
        order = np.argsort(-self.scores, kind="stable")[:k]
        return [(self.class_names[index], float(self.scores[index])) for index in order]

    @property
    def label(self) -> str:
        return self.top(1)[0][0]

    def shown(self, k: int | None = None) -> list[tuple[str, float]]:
        """What to show to people: the k most likely classes, by default one."""
        return self.top(k or 1)

    def to_dict(self, k: int = 5) -> dict[str, Any]:
        return {"image": self.name, "top": [{"label": label, "score": score} for label, score in self.top(k)]}


THRESHOLD = 0.5  # the score from which on a label is shown


@dataclass(frozen=True)
class MultiLabel(Classification):
    """A score for every class by itself: any number of labels, or none, apply to the image.

    prediction.labels         # ("cat", "sofa"): those that score 0.5 or more, best first
    """

    scores: NDArray[np.float32]  # (K,), each 0..1

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(label for label, _ in self.shown())

    def shown(self, k: int | None = None) -> list[tuple[str, float]]:
        """The k most likely classes, by default those that score 0.5 or more."""
        ranking = self.top(k or len(self.scores))
        return ranking if k else [(label, score) for label, score in ranking if score >= THRESHOLD]

    def to_dict(self, k: int = 5) -> dict[str, Any]:
        """All classes with their scores, whatever `k` says, and the labels that apply."""
        return {**super().to_dict(len(self.scores)), "labels": list(self.labels)}


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of each value, without overflow."""
    small = np.exp(-np.abs(logits))
    scores: NDArray[np.float32] = (np.where(logits >= 0, 1, small) / (1 + small)).astype(np.float32)
    return scores


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Over the last axis, without overflow."""
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    scores: NDArray[np.float32] = (shifted / shifted.sum(-1, keepdims=True)).astype(np.float32)
    return scores

"""What a prediction is, for programs and for people.

prediction.top(3)         # [("rose", 0.91), ("tulip", 0.06), ("daisy", 0.02)]
prediction.to_dict(3)     # ready for json.dumps; scores are fractions 0..1
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Classification:
    """Scores of every class for one image."""

    name: str  # the image's path as it was given
    class_names: Sequence[str]
    scores: NDArray[np.float32]  # (K,), they add up to 1

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """The k most likely classes with their scores, best first; ties go to the lower index."""
        order = np.argsort(-self.scores, kind="stable")[:k]
        return [(self.class_names[index], float(self.scores[index])) for index in order]

    @property
    def label(self) -> str:
        return self.top(1)[0][0]

    def to_dict(self, k: int = 5) -> dict[str, Any]:
        return {"image": self.name, "top": [{"label": label, "score": score} for label, score in self.top(k)]}


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Over the last axis, without overflow."""
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    scores: NDArray[np.float32] = (shifted / shifted.sum(-1, keepdims=True)).astype(np.float32)
    return scores

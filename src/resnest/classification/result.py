"""Classification results: a score for each class of an image.

result.top(3)             # [("rose", 0.91), ("tulip", 0.06), ("daisy", 0.02)]
result.label              # "rose"
result.to_dict(Show(top=3))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.runtime.results import ALL, LIKELY, Result, Show, installed


@dataclass(frozen=True)
class Classification(Result):
    """Scores of every class for one image."""

    COLUMNS: ClassVar = {"image": "", "rank": "d", "label": "", "score": ".6f"}
    OPTIONS: ClassVar = frozenset({"top"})

    name: str  # the image's path as it was given
    class_names: Sequence[str]
    scores: NDArray[np.float32]  # (K,), they add up to 1
    logits: NDArray[np.float32] | None = field(default=None, repr=False)  # (K,) what the scores were made from

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """The k most likely classes with their scores, best first; ties go to the lower index."""
        return [(self.class_names[index], float(self.scores[index])) for index in self._order(k)]

    @property
    def label(self) -> str:
        return self.top(1)[0][0]

    def ranking(self, show: Show = LIKELY) -> list[tuple[str, float]]:
        """The classes to show with their scores, best first: by default one."""
        return self.top(show.top or 1)

    def rows(self, show: Show = ALL) -> list[dict[str, Any]]:
        """One row per class, best first."""
        return [
            {"image": self.name, "rank": rank, "label": label, "score": score}
            for rank, (label, score) in enumerate(self.ranking(show), start=1)
        ]

    def text(self, show: Show = LIKELY) -> str:
        """x.jpg: rose 91.2%  tulip 6.0%  daisy 1.4%."""
        return f"{self.name}: {'  '.join(f'{label} {score:.1%}' for label, score in self.ranking(show)) or '-'}"

    def to_dict(self, show: Show = ALL) -> dict[str, Any]:
        """For JSON."""
        return {"image": self.name, "top": [{"label": label, "score": score} for label, score in self.ranking(show)]}

    def to_supervision(self, show: Show = ALL) -> Any:
        """sv.Classifications: class numbers with their scores, best first."""
        order = self._order(len(self.ranking(show)))
        return installed("supervision").Classifications(class_id=order, confidence=self.scores[order])

    def _drawn(self, picture: Image.Image, show: Show) -> Image.Image:
        from resnest.runtime.draw import draw_labels
        from resnest.runtime.fonts import drawn_names

        names = dict(zip(self.class_names, drawn_names(tuple(self.class_names)), strict=True))
        return draw_labels(picture, [(names[label], score) for label, score in self.ranking(show)])

    def _order(self, k: int) -> NDArray[np.int64]:
        return np.argsort(-self.scores, kind="stable")[:k]


@dataclass(frozen=True)
class MultiLabel(Classification):
    """Multi-label result: an independent score for every class, with any number of labels, or none.

    result.labels             # ("cat", "sofa"): those that score 0.5 or more, best first
    """

    scores: NDArray[np.float32]  # (K,), each 0..1

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(label for label, _ in self.ranking())

    def ranking(self, show: Show = LIKELY) -> list[tuple[str, float]]:
        """The classes to show, best first: by default those that score 0.5 or more."""
        ranking = self.top(show.top or len(self.scores))
        return ranking if show.top else [(label, score) for label, score in ranking if score >= show.threshold]

    def to_dict(self, show: Show = ALL) -> dict[str, Any]:
        """All classes with their scores, whatever `show` is, and the predicted labels."""
        return {**super().to_dict(ALL), "labels": list(self.labels)}


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Elementwise, without overflow."""
    small = np.exp(-np.abs(logits))
    scores: NDArray[np.float32] = (np.where(logits >= 0, 1, small) / (1 + small)).astype(np.float32)
    return scores


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Over the last axis, without overflow."""
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    scores: NDArray[np.float32] = (shifted / shifted.sum(-1, keepdims=True)).astype(np.float32)
    return scores

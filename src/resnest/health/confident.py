"""Likely label errors by confident learning (Northcutt et al., arXiv 1911.00068), on out-of-sample probabilities.

    found = find_label_errors(scores, labels)       # (N, K) and (N,)
    found.indices                                   # most likely first
    found.joint                                     # (K, K) estimated counts: given label, true label

A picture counts for class j if its probability of j is at least the mean probability of j among pictures labelled j.
Counted by given label and by such class, this is the confident joint (section 3.1). Its off-diagonal pictures are the
suspects (the paper's method "confident joint"), ranked by the margin of the given label (normalised margin, appendix).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]  # (N, K)
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class LabelErrors:
    """Suspects, most likely first."""

    indices: NDArray[np.int64]  # (M,)
    guesses: NDArray[np.int64]  # (M,) the classes that they seem to be
    margins: NDArray[np.float64]  # (M,) probability of the given label minus that of the likeliest other; ascending
    joint: Scores  # (K, K) estimated pictures by given label (row) and true label (column)

    @property
    def estimated(self) -> float:
        """Estimated number of label errors in the data: the joint's sum off the diagonal."""
        return float(self.joint.sum() - np.trace(self.joint))


def confident_classes(scores: Scores, labels: Labels) -> NDArray[np.int64]:
    """The class that each picture counts for, (N,); -1: none. Of several, the most probable."""
    classes = scores.shape[1]
    thresholds = np.full(classes, np.inf)  # a class that no picture is labelled with has no confident pictures
    for label in range(classes):
        if (mine := labels == label).any():
            thresholds[label] = scores[mine, label].mean()
    above = np.where(scores >= thresholds - 1e-12, scores, -1.0)
    found: NDArray[np.int64] = np.where(above.max(1) >= 0, above.argmax(1), -1)
    return found


def confident_joint(counted: NDArray[np.int64], labels: Labels, classes: int) -> Scores:
    """(K, K) counts, calibrated so that each row sums to the pictures with that label (equation 3)."""
    joint = np.zeros((classes, classes))
    known = counted >= 0
    np.add.at(joint, (labels[known], counted[known]), 1)
    empty = joint.sum(1) == 0
    joint[empty, empty] = 1  # a label of which nothing is known is taken as right
    given = np.bincount(labels, minlength=classes)
    return joint * (given / joint.sum(1))[:, None]  # type: ignore[no-any-return]


def find_label_errors(scores: Scores, labels: Labels) -> LabelErrors:
    """The suspects among pictures with labels (N,), by probabilities (N, K) of models that did not see them."""
    counted = confident_classes(scores, labels)
    suspects = np.flatnonzero((counted >= 0) & (counted != labels))
    rows = scores[suspects]
    own = rows[np.arange(len(suspects)), labels[suspects]]
    others = rows.copy()
    others[np.arange(len(suspects)), labels[suspects]] = -np.inf
    margins = own - others.max(1, initial=-np.inf)
    order = np.argsort(margins, kind="stable")
    return LabelErrors(
        indices=suspects[order],
        guesses=counted[suspects][order],
        margins=margins[order],
        joint=confident_joint(counted, labels, scores.shape[1]),
    )

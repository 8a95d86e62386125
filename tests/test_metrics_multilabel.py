"""Multi-label figures against a plain restatement and scikit-learn, for any batching and order (P7)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score

from resnest.classification.metrics import MultiLabelMetrics, average_precision

RNG = np.random.default_rng(0)
LABELS = RNG.random((101, 7)) < np.array([0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.0])  # the last class has no image
LOGITS = np.round(RNG.normal(size=(101, 7)) * 2 + 2 * LABELS - 1, 1).astype(np.float32)  # rounded: many ties
LOGITS[:, 5] = -9  # never given


def _figures(batch: int, order: np.ndarray | None = None) -> dict[str, float]:
    metrics = MultiLabelMetrics(7)
    order = np.arange(101) if order is None else order
    for start in range(0, 101, batch):
        rows = order[start : start + batch]
        metrics.update(LOGITS[rows], LABELS[rows].astype(np.float32))
    return metrics.compute()


def _plain_average_precision(scores: list[float], labels: list[bool]) -> float:
    """Straight from the definition: the mean over true images of the precision at the threshold that reaches them."""
    precisions = []
    for score, label in zip(scores, labels, strict=True):
        if label:
            reached = [other for threshold, other in zip(scores, labels, strict=True) if threshold >= score]
            precisions.append(sum(reached) / len(reached))
    return sum(precisions) / len(precisions)


def test_average_precision_is_its_definition() -> None:
    areas = average_precision(LOGITS, LABELS)
    assert math.isnan(areas[6])
    for label in range(6):
        column, truth = LOGITS[:, label], LABELS[:, label]
        assert areas[label] == pytest.approx(_plain_average_precision(column.tolist(), truth.tolist()), abs=1e-12)
        assert areas[label] == pytest.approx(average_precision_score(truth, column), abs=1e-12)


@pytest.mark.parametrize(
    ("scores", "labels", "expected"),
    [
        ([3, 2, 1], [1, 0, 0], 1.0),
        ([3, 2, 1], [0, 0, 1], 1 / 3),
        ([3, 2, 1], [1, 0, 1], (1 + 2 / 3) / 2),
        ([1, 1, 1, 1], [0, 1, 0, 0], 0.25),  # one threshold: the share of images that have it
        ([5], [1], 1.0),
    ],
)
def test_small_cases(scores: list[float], labels: list[int], expected: float) -> None:
    area = average_precision(np.array(scores, np.float32)[:, None], np.array(labels, bool)[:, None])
    assert area.tolist() == pytest.approx([expected])


def test_figures_are_those_of_scikit_learn_and_torch() -> None:
    figures, given = _figures(13), LOGITS >= 0
    assert figures["map"] == pytest.approx(average_precision_score(LABELS[:, :6], LOGITS[:, :6]), abs=1e-12)
    assert figures["f1_micro"] == pytest.approx(f1_score(LABELS, given, average="micro"), abs=1e-12)
    # without zero_division a class that is neither true nor given would count as 0
    macro = f1_score(LABELS, given, average="macro", zero_division=np.nan)
    assert figures["f1_macro"] == pytest.approx(macro, abs=1e-12)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.from_numpy(LOGITS).double(), torch.from_numpy(LABELS).double()
    )
    assert figures["loss"] == pytest.approx(float(loss), abs=1e-12)


@pytest.mark.parametrize("batch", [1, 7, 32, 101])
def test_batching_and_order_change_nothing(batch: int) -> None:
    assert _figures(batch, np.random.default_rng(batch).permutation(101)) == _figures(50)


def test_merged_parts_equal_the_whole() -> None:
    left, right = MultiLabelMetrics(7), MultiLabelMetrics(7)
    left.update(LOGITS[::2], LABELS[::2])
    right.update(LOGITS[1::2], LABELS[1::2])
    right.merge(left)
    assert right.compute() == _figures(10)


def test_nothing_counted() -> None:
    assert all(math.isnan(value) for value in MultiLabelMetrics(3).compute().values())

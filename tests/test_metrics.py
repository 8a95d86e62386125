"""Classification figures against a direct computation, for any batching (P7)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from resnest.classification.metrics import ClassificationMetrics
from resnest.figures import wilson_interval

RNG = np.random.default_rng(0)
LOGITS, LABELS = RNG.normal(size=(101, 12)).astype(np.float32) * 3, RNG.integers(0, 12, 101)


def _figures(batch: int) -> dict[str, float]:
    metrics = ClassificationMetrics(12)
    for start in range(0, len(LABELS), batch):
        metrics.update(LOGITS[start : start + batch], LABELS[start : start + batch])
    return metrics.compute()


def test_equals_torch() -> None:
    logits, labels = torch.from_numpy(LOGITS).double(), torch.from_numpy(LABELS)
    top5 = (logits.topk(5).indices == labels[:, None]).any(1).double().mean().item()
    expected = {
        "top1": (logits.argmax(1) == labels).double().mean().item(),
        "top5": top5,
        "loss": torch.nn.functional.cross_entropy(logits, labels).item(),
    }
    assert _figures(7) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("batch", [1, 7, 32, 101])
def test_batching_changes_nothing(batch: int) -> None:
    assert _figures(batch) == _figures(50)


def test_merged_parts_equal_the_whole() -> None:
    left, right = ClassificationMetrics(12), ClassificationMetrics(12)
    left.update(LOGITS[::2], LABELS[::2])
    right.update(LOGITS[1::2], LABELS[1::2])
    right.merge(left)
    assert right.compute() == _figures(10)
    assert right.confusion.sum() == len(LABELS)


def test_ties_go_to_the_first_class() -> None:
    metrics = ClassificationMetrics(3)
    metrics.update(np.zeros((2, 3), np.float32), np.array([0, 1]))
    assert metrics.confusion.tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert "top5" not in metrics.compute()


def test_nothing_counted() -> None:
    assert math.isnan(ClassificationMetrics(3).compute()["top1"])


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"), [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (1500, 2000, 0.7306, 0.7685)]
)
def test_wilson(successes: int, count: int, low: float, high: float) -> None:
    assert wilson_interval(successes, count) == pytest.approx((low, high), abs=1e-4)

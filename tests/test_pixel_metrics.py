"""Pixel accuracy and mean IoU: cases worked out by hand, and the same figures however pictures are shared out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from resnest.segmentation.metrics import PixelMetrics, confusion_of, intersection_over_union

# labels, truth (255 does not count), mIoU, pixel accuracy, mean accuracy; three classes
CASES: dict[str, tuple[list[list[int]], list[list[int]], float, float, float]] = {
    "perfect": ([[0, 1], [2, 2]], [[0, 1], [2, 2]], 1, 1, 1),
    "a class that is nowhere is left out": ([[0, 1], [1, 1]], [[0, 1], [1, 1]], 1, 1, 1),
    "half": ([[0, 0], [1, 1]], [[0, 1], [0, 1]], 1 / 3, 1 / 2, 1 / 2),
    # class 0: 1 of 1 + 1; class 1: 2 of 3; class 2 is given once and never there: 0
    "given in vain": (
        [[0, 1, 1], [0, 2, 255]],
        [[0, 1, 1], [1, 255, 255]],
        (1 / 2 + 2 / 3) / 2,
        3 / 4,
        (1 + 2 / 3) / 2,
    ),
    "given in vain where it counts": ([[0, 2]], [[0, 0]], 1 / 4, 1 / 2, 1 / 2),
    "nothing counts": ([[0, 1]], [[255, 255]], math.nan, math.nan, math.nan),
}


@pytest.mark.parametrize("case", CASES)
def test_by_hand(case: str) -> None:
    labels, truth, *expected = CASES[case]
    metrics = PixelMetrics(3)
    metrics.update(np.array(labels, np.uint8), np.array(truth, np.uint8))
    figures = metrics.compute()
    assert [figures[name] for name in ("miou", "pixel_accuracy", "mean_accuracy")] == pytest.approx(
        expected, nan_ok=True
    )


def test_against_sets_of_pixels() -> None:
    rng = np.random.default_rng(0)
    labels, truth = rng.integers(0, 5, (2, 40, 30)).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.1] = 255
    known = truth != 255
    slow = [((labels == k) & (truth == k)).sum() / (((labels == k) & known) | (truth == k)).sum() for k in range(5)]
    np.testing.assert_allclose(intersection_over_union(confusion_of(labels, truth, 5)), slow)


def test_shared_out_among_processes() -> None:
    rng = np.random.default_rng(1)
    pictures = rng.integers(0, 7, (9, 2, 11, 13)).astype(np.uint8)
    alone = PixelMetrics(7)
    for labels, truth in pictures:
        alone.update(labels, truth)
    for count in (2, 3):
        parts = [PixelMetrics(7) for _ in range(count)]
        for place, (labels, truth) in enumerate(pictures):
            parts[place % count].update(labels, truth)
        for other in parts[1:]:
            parts[0].merge(other)
        assert parts[0].compute() == alone.compute()

"""Classification figures against a direct computation, for any batching (P7)."""

from __future__ import annotations

import dataclasses
import math
import tracemalloc

import numpy as np
import pytest
import torch

from resnest.classification.card import ClassificationCard
from resnest.classification.evaluation import ClassificationScorer, SingleLabelEvaluation
from resnest.classification.metrics import ClassificationMetrics
from resnest.classification.result import Classification
from resnest.figures import wilson_interval
from resnest.runtime.preprocess import Preprocess

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


def test_many_classes_take_no_room() -> None:
    """Counts are kept, not logits: 20,000 classes and images would take 1.6 GB, their confusion matrix 3.2 GB."""
    classes, images = 20_000, 600
    names = tuple(map(str, range(classes)))
    card = ClassificationCard.of_imagenet("resnest14", Preprocess())
    card = dataclasses.replace(card, class_names=names, class_keys=())
    whole, rng = ClassificationMetrics(classes), np.random.default_rng(0)
    tracemalloc.start()
    scorers = [ClassificationScorer(None, card), ClassificationScorer(None, card)]  # type: ignore[arg-type]
    truths = {}
    for index in range(images):
        logits = rng.integers(0, 20, classes).astype(np.float32)  # ties
        truths[index] = int(rng.integers(classes))
        if index % 3 == 0:
            logits[truths[index]] = 21
        result = Classification("x", names, logits, logits=logits)
        scorers[index % 2].update(index, result, truths[index])
    scorers[0].merge(scorers[1])
    found = scorers[0].result()
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert used < 60 * 2**20 < images * classes * 8
    rng = np.random.default_rng(0)
    for index in range(images):
        logits = rng.integers(0, 20, classes).astype(np.float32)
        rng.integers(classes)
        if index % 3 == 0:
            logits[truths[index]] = 21
        whole.update(logits[None], np.array([truths[index]]))
    assert found.figures == whole.compute()
    assert found.figures["top1"] >= 1 / 3
    assert found.indices.tolist() == list(range(images))
    assert isinstance(found, SingleLabelEvaluation)
    assert found.labels.tolist() == list(truths.values())
    recall, counts = found.class_figures
    assert counts.sum() == images
    assert np.nansum(recall * counts) == pytest.approx(found.figures["top1"] * images)
    assert len(found.worst(5)) == 5


@pytest.mark.parametrize("seed", range(3))
def test_ranks_are_those_of_a_stable_sort(seed: int) -> None:
    """Whatever ties, and whatever is not a number."""
    rng = np.random.default_rng(seed)
    logits = rng.integers(0, 4, (200, 9)).astype(np.float32)
    logits[rng.random(logits.shape) < 0.1] = np.nan
    labels = rng.integers(0, 9, 200)
    metrics = ClassificationMetrics(9)
    with np.errstate(invalid="ignore"):
        metrics.update(logits, labels)
    ranking = np.argsort(-logits.astype(np.float64), axis=1, kind="stable")
    assert np.concatenate(metrics.predicted).tolist() == ranking[:, 0].tolist()
    assert metrics.in_top5 == int((ranking[:, :5] == labels[:, None]).any(1).sum())

"""Pixel accuracy and mean IoU: cases worked out by hand, and the same figures however pictures are shared out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from resnest.segmentation.card import SegmentationCard, SegmentationPreprocess
from resnest.segmentation.evaluation import SegmentationScorer
from resnest.segmentation.metrics import (
    MaskMetrics,
    OverlapMetrics,
    PixelMetrics,
    confusion_of,
    intersection_over_union,
    overlap_of_confusion,
    overlap_of_masks,
)
from resnest.segmentation.result import LabelMap, PixelClasses
from resnest.segmentation.spec import SegmenterSpec
from resnest.segmentation.surface import SurfaceMetrics, compare_surfaces
from resnest.spec import Spec

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
    np.testing.assert_allclose(intersection_over_union(overlap_of_confusion(confusion_of(labels, truth, 5))), slow)


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


# --- Dice and IoU: macro, micro, by picture ---


def test_overlaps_by_hand() -> None:
    """Two pictures of three classes. Class 2 is nowhere; class 1 of the second picture is predicted in vain."""
    metrics = PixelMetrics(3)
    metrics.update(np.array([[0, 1, 1, 1]], np.uint8), np.array([[0, 0, 1, 1]], np.uint8))
    metrics.update(np.array([[0, 0, 1, 0]], np.uint8), np.array([[0, 0, 0, 255]], np.uint8))
    metrics.update(np.array([[2, 2]], np.uint8), np.array([[255, 255]], np.uint8))  # counts in nothing
    # class 0: 1 + 2 right of 1 + 2 predicted and 2 + 3 true; class 1: 2 right of 3 + 1 and 2
    found = metrics.compute()
    assert found["miou"] == pytest.approx((3 / 5 + 2 / 4) / 2)
    assert found["dice"] == pytest.approx((6 / 8 + 4 / 6) / 2)
    assert found["iou_micro"] == pytest.approx(5 / 9)
    assert found["dice_micro"] == pytest.approx(10 / 14)
    assert found["dice_micro"] == found["pixel_accuracy"]  # as always where classes exclude each other
    assert found["iou_image"] == pytest.approx(((1 / 2 + 2 / 3) / 2 + (2 / 3 + 0) / 2) / 2)
    assert found["dice_image"] == pytest.approx(((2 / 3 + 4 / 5) / 2 + (4 / 5 + 0) / 2) / 2)


def test_overlaps_of_masks_by_hand() -> None:
    """A pixel may be of both classes; an empty picture that is found empty is left out by picture."""
    metrics = MaskMetrics(2)
    metrics.update(np.array([[[1, 1, 0]], [[1, 0, 1]]], bool), np.array([[[1, 0, 255]], [[1, 1, 0]]], np.uint8))
    metrics.update(np.zeros((2, 1, 3), bool), np.zeros((2, 1, 3), np.uint8))
    found = metrics.compute()
    assert found["miou"] == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert found["dice"] == pytest.approx((2 / 3 + 2 / 4) / 2)
    assert found["iou_micro"] == pytest.approx(2 / 5)
    assert found["dice_image"] == pytest.approx((2 / 3 + 2 / 4) / 2)
    assert metrics.known.tolist() == [5, 6]
    metrics.update(np.ones((2, 1, 1), bool), np.zeros((2, 1, 1), np.uint8))  # in vain: 0 of that picture
    assert metrics.compute()["dice_image"] == pytest.approx((2 / 3 + 2 / 4) / 4)


def _pictures(several: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(5)
    shape = (4, 20, 15) if several else (20, 15)
    pairs = []
    for _ in range(5):
        truth = rng.integers(0, 2 if several else 4, shape).astype(np.uint8)
        found = np.where(rng.random(shape) < 0.6, truth, rng.integers(0, 2 if several else 4, shape)).astype(np.uint8)
        truth[rng.random(shape) < 0.1] = 255
        pairs.append((found.astype(bool) if several else found, truth))
    return pairs


@pytest.mark.parametrize("several", [False, True])
def test_against_torchmetrics(several: bool) -> None:
    peers = pytest.importorskip("torchmetrics.classification")
    metrics: Any = MaskMetrics(4) if several else PixelMetrics(4)
    kind, options = ("Multilabel", {"num_labels": 4}) if several else ("Multiclass", {"num_classes": 4})
    names = {"miou": ("JaccardIndex", "macro"), "dice": ("F1Score", "macro")}
    names |= {"iou_micro": ("JaccardIndex", "micro"), "dice_micro": ("F1Score", "micro")}
    theirs = {
        key: getattr(peers, f"{kind}{name}")(average=average, ignore_index=255, **options)
        for key, (name, average) in names.items()
    }
    for found, truth in _pictures(several):
        metrics.update(found, truth)
        for peer in theirs.values():
            peer.update(torch.from_numpy(found[None].astype(np.int64)), torch.from_numpy(truth[None].astype(np.int64)))
    ours = metrics.compute()
    for key, peer in theirs.items():
        assert ours[key] == pytest.approx(float(peer.compute()), abs=1e-6), key


@pytest.mark.parametrize("make", [PixelMetrics, MaskMetrics], ids=str)
def test_the_order_of_pictures_changes_nothing(make: Callable[[int], Any]) -> None:
    pictures = _pictures(make is MaskMetrics)
    computed = set()
    for order in itertools.islice(itertools.permutations(pictures), 0, 120, 17):
        first, second = make(4), make(4)
        for place, pair in enumerate(order):
            (first, second)[place % 2].update(*pair)
        first.merge(second)
        computed.add(tuple(first.compute().items()))
    assert len(computed) == 1
    assert issubclass(make, OverlapMetrics)  # type: ignore[arg-type]


def test_overlap_of_masks_and_of_labels_agree() -> None:
    [(labels, truth), *_] = _pictures(False)
    classes = np.arange(4)[:, None, None]
    masks = np.where(truth == 255, 255, truth == classes).astype(np.uint8)
    assert np.array_equal(
        overlap_of_masks(labels == classes, masks), overlap_of_confusion(confusion_of(labels, truth, 4))
    )


# --- distances of outlines ---


def _outline(mask: np.ndarray) -> list[tuple[int, int]]:
    padded = np.pad(mask, 1)
    return [
        (y, x)
        for y, x in np.argwhere(mask).tolist()
        if not all(padded[y + 1 + dy, x + 1 + dx] for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)))
    ]


@pytest.mark.parametrize("seed", range(6))
def test_surfaces_against_all_pairs_of_pixels(seed: int) -> None:
    pytest.importorskip("scipy")
    rng = np.random.default_rng(seed)
    one, other = (np.zeros((17, 23), bool) for _ in range(2))
    for mask in (one, other):
        for _ in range(2):
            y, x = rng.integers(0, 12), rng.integers(0, 16)
            mask[y : y + rng.integers(1, 8), x : x + rng.integers(1, 9)] = True
    ways = [
        [min(math.dist(here, there) for there in _outline(b)) for here in _outline(a)]
        for a, b in ((one, other), (other, one))
    ]
    for tolerance in (0.0, 1.0, 2.5):
        distance, dice = compare_surfaces(one, other, tolerance)
        assert distance == pytest.approx(max(np.percentile(way, 95) for way in ways))
        assert dice == pytest.approx(np.mean([far <= tolerance for far in ways[0] + ways[1]]))


def test_surfaces_by_hand() -> None:
    """Squares of four pixels, moved by three; a class that is missed, and one that is nowhere."""
    pytest.importorskip("scipy")
    metrics = SurfaceMetrics(3, tolerance=1.0)
    found, truth = np.zeros((3, 9, 12), bool), np.zeros((3, 9, 12), np.uint8)
    found[0, 2:6, 1:5], truth[0, 2:6, 4:8] = True, 1
    truth[1, :2, :2] = 1
    metrics.update(found, truth)
    metrics.update(truth == 1, truth)  # all right
    figures = metrics.by_class()
    assert figures.hausdorff95.tolist()[:2] == [1.5, 0.0]
    assert math.isnan(figures.hausdorff95[2])
    # of twelve pixels each, four are at 0, two at 1, two at 2 and four at 3
    assert figures.surface_dice.tolist()[:2] == pytest.approx([(12 / 24 + 1) / 2, 0.5])
    assert figures.undefined.tolist() == [0, 1, 0]
    assert metrics.compute() == pytest.approx({"hausdorff95": 0.75, "surface_dice": (3 / 4 + 1 / 2) / 2})
    ignored = SurfaceMetrics(1, tolerance=0.0)
    ignored.update(np.ones((1, 3, 3), bool), np.array([[[1, 1, 255]] * 3], np.uint8))
    assert ignored.compute() == {"hausdorff95": 0.0, "surface_dice": 1.0}


def _card() -> SegmentationCard:
    return SegmentationCard(
        architecture="resnest",
        spec=Spec(depths=(1, 1, 1, 1)),
        class_names=("a", "b", "c"),
        category_ids=(0, 1, 2),
        preprocess=SegmentationPreprocess(),
        segmenter=SegmenterSpec(),
    )


def test_an_evaluation_says_what_is_left_out() -> None:
    pytest.importorskip("scipy")
    samples: Any = None
    scorer, other = (SegmentationScorer(samples, _card(), surface=2.0) for _ in range(2))
    truth = np.zeros((8, 8), np.uint8)
    truth[2:5, 2:5] = 1
    classes = PixelClasses(("a", "b", "c"), (0, 1, 2))
    scorer.update(0, LabelMap("x", classes, truth, np.ones(3, np.float32)), truth)
    other.update(1, LabelMap("y", classes, truth * 0, np.ones(3, np.float32)), truth)
    scorer.merge(other)
    result = scorer.result()
    text = "\n".join(result.lines())
    assert "mean over 2 classes, without 1 neither true nor predicted" in text
    assert "mean over 2 of 2 pictures" in text
    assert "without 1 of classes only true or only predicted in a picture" in text
    assert "within 2 pixels" in text
    details = result.details()
    assert details["absent_classes"] == ["c"]
    assert details["class_dice"]["b"] == pytest.approx(2 * 9 / (9 + 18))
    assert details["surface"]["undefined"] == {"a": 0, "b": 1, "c": 0}

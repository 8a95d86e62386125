"""Main figures of pictures drawn with replacement are those of the same pictures, scored from the beginning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from resnest.classification.evaluation import MultiLabelEvaluation, SingleLabelEvaluation
from resnest.classification.metrics import average_precision, mean_of_known
from resnest.detection.metrics import CocoMetrics
from resnest.keypoints.metrics import oks_figures, oks_matches
from resnest.keypoints.points import PERSON_SIGMAS
from resnest.panoptic.metrics import PanopticMetrics, mean_quality
from resnest.segmentation.evaluation import MaskEvaluation
from resnest.segmentation.metrics import MaskMetrics
from segments import THINGS, random_pair
from test_coco_metrics import IMAGES
from test_keypoints import random_set

Draw = NDArray[np.int64]
Pair = tuple[Callable[[Draw], float], Callable[[Draw], float], int]  # resampled, scored again, pictures


def single_label(rng: np.random.Generator) -> Pair:
    labels, predicted = rng.integers(0, 3, (2, 40))
    rest: Any = {"scores": np.ones(40, np.float32), "truth_scores": np.ones(40, np.float32), "figures": {}}
    found = SingleLabelEvaluation(
        class_names=("a", "b", "c"), indices=np.arange(40), labels=labels, predicted=predicted, **rest
    )
    again = lambda draw: float(np.mean([labels[k] == predicted[k] for k in draw]))  # noqa: E731
    return (lambda draw: found.resampled(draw[None])[0]), again, 40


def multi_label(rng: np.random.Generator) -> Pair:
    scores, labels = rng.random((30, 4)).astype(np.float32), rng.random((30, 4)) < 0.3
    rest: Any = {"figures": {}, "losses": np.zeros(30), "areas": np.zeros(4)}
    found = MultiLabelEvaluation(class_names=("a",) * 4, indices=np.arange(30), labels=labels, scores=scores, **rest)
    again = lambda draw: mean_of_known(average_precision(scores[draw], labels[draw]))  # noqa: E731
    return (lambda draw: found.resampled(draw[None])[0]), again, 30


def masks(rng: np.random.Generator) -> Pair:
    found, truths = rng.random((12, 3, 8, 9)) < 0.5, (rng.random((12, 3, 8, 9)) < 0.4).astype(np.uint8)

    def scored(draw: Draw) -> MaskMetrics:
        metrics = MaskMetrics(3)
        for k in draw.tolist():
            metrics.update(found[k], truths[k])
        return metrics

    each = np.stack([scored(np.array([k])).overlap for k in range(12)])
    rest: Any = {"figures": {}, "class_iou": None, "image_iou": None, "worst_maps": {}, "pixels": None, "known": None}
    evaluation = MaskEvaluation(class_names=("a", "b", "c"), indices=np.arange(12), image_overlap=each, **rest)
    return (lambda draw: evaluation.resampled(draw[None])[0]), (lambda draw: scored(draw).compute()["miou"]), 12


def panoptic(rng: np.random.Generator) -> Pair:
    pairs = [random_pair(rng) for _ in range(15)]

    def scored(draw: Draw) -> PanopticMetrics:
        metrics = PanopticMetrics(len(pairs[0][0].classes.names), THINGS)
        for k in draw.tolist():
            metrics.update(*pairs[k])
        return metrics

    each = np.stack([scored(np.array([k])).counts for k in range(15)])
    return (lambda draw: mean_quality(each[draw].sum(0))), (lambda draw: scored(draw).compute().figures["pq"]), 15


def boxes(rng: np.random.Generator) -> Pair:
    pytest.importorskip("faster_coco_eval", reason="faster-coco-eval is not installed")
    images = [IMAGES[k] for k in rng.integers(0, len(IMAGES), 25)]

    def scored(draw: Draw) -> CocoMetrics:
        metrics = CocoMetrics(("a", "b", "c", "d"), masks=False)
        for number, k in enumerate(draw.tolist()):
            metrics.update(number, *images[k])
        return metrics

    matches = scored(np.arange(25)).resampling()
    # of equal scores the first picture's come first, as in COCO's evaluation: drawn pictures keep their order
    return (
        (lambda draw: matches.ap(np.sort(draw))),
        (lambda draw: scored(np.sort(draw)).compute().figures["box_ap"]),
        25,
    )


def poses(rng: np.random.Generator) -> Pair:
    pytest.importorskip("faster_coco_eval", reason="faster-coco-eval is not installed")
    images, truths, found = random_set(int(rng.integers(1000)) + 3)
    sigmas = list(PERSON_SIGMAS.values())
    matches = oks_matches(images, truths, found, sigmas=sigmas)

    def again(draw: Draw) -> float:
        drawn: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
        for number, k in enumerate(np.sort(draw).tolist(), start=1):
            drawn[0].append({**images[k], "id": number})
            for kept, every in ((drawn[1], truths), (drawn[2], found)):
                kept += [{**one, "image_id": number} for one in every if one["image_id"] == images[k]["id"]]
        numbered = [{**one, "id": number} for number, one in enumerate(drawn[1], start=1)]
        return oks_figures(drawn[0], numbered, drawn[2], sigmas=sigmas)["ap"]

    return (lambda draw: matches.ap(np.sort(draw))), again, len(images)


@pytest.mark.parametrize("kind", [single_label, multi_label, masks, panoptic, boxes, poses])
def test_a_resample_is_the_same_pictures_scored_again(kind: Callable[[np.random.Generator], Pair]) -> None:
    rng = np.random.default_rng(7)
    resampled, again, pictures = kind(rng)
    for draw in (np.arange(pictures), *rng.integers(pictures, size=(4, pictures))):
        assert resampled(draw) == pytest.approx(again(draw), abs=1e-12, nan_ok=True)

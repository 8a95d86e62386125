"""COCO's average precision and recall of keypoints, as pycocotools computes them, with faster-coco-eval.

    result = oks_figures(truths, found, sigmas=layout.sigmas)          # entries of COCO json, by picture
    result["ap"], result["ap50"], result["arm"]

OKS, the object keypoint similarity, is the mean over annotated points of exp(-d^2 / (2 s^2 k^2)): d is the distance,
s^2 the object's area, k twice the point's sigma. Figures: `ap` (mean over OKS 0.50 to 0.95), `ap50`, `ap75`, `apm`,
`apl` (areas of 32 x 32 to 96 x 96 pixels, above), and `ar` in the same way. What cannot be measured is NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnest.detection.matches import Matches, mean_of_known
from resnest.detection.metrics import coco_library
from resnest.keypoints.result import Poses

OKS50, OKS75 = 0, 5  # places in 0.50, 0.55, ... 0.95
AREAS = ("", "m", "l")  # in the order of pycocotools, which leaves out small persons
EPSILON = float(np.spacing(1))  # pycocotools adds it to areas

Floats = NDArray[np.float64]


def oks(
    points: NDArray[np.floating],
    truth: NDArray[np.floating],
    visible: NDArray[np.integer],
    areas: NDArray[np.floating],
    sigmas: Sequence[float],
) -> Floats:
    """Similarity of poses (M, K, 2) to annotated ones (T, K, 2), (M, T); NaN of an annotation without points."""
    parts = point_similarity(points[:, None], truth[None], areas[None, :, None], sigmas)  # (M, T, K)
    seen = (visible > 0)[None]
    counts = seen.sum(-1)
    sums = np.where(seen, parts, 0).sum(-1)
    result: Floats = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
    return result


def point_similarity(
    points: NDArray[np.floating], truth: NDArray[np.floating], areas: NDArray[np.floating], sigmas: Sequence[float]
) -> Floats:
    """Of each point (..., K, 2), in 0 to 1, (..., K)."""
    squares = ((points - truth) ** 2).sum(-1)
    widths = (2 * np.asarray(sigmas)) ** 2
    similar: Floats = np.exp(-squares / widths / (areas + EPSILON) / 2)
    return similar


def suppress(poses: Poses, limit: float) -> Poses:
    """Without objects as similar as `limit` to a better one (SimpleBaseline, lib/nms: oks_nms)."""
    order = np.argsort(-poses.scores, kind="stable")
    kept: list[int] = []
    sides = poses.boxes[:, 2:] - poses.boxes[:, :2]
    areas = np.maximum(sides.prod(1), 1.0)
    every = np.ones(len(poses.layout.names), int)
    for number in order.tolist():
        if kept:
            both = (areas[kept] + areas[number]) / 2  # oks_iou of SimpleBaseline
            near = oks(poses.points[[number]], poses.points[kept], every[None], both, poses.layout.sigmas)
            if (near > limit).any():
                continue
        kept.append(number)
    return poses[np.array(kept, np.int64)]


def oks_figures(
    images: Sequence[Mapping[str, Any]],
    truths: Sequence[Mapping[str, Any]],
    found: Sequence[Mapping[str, Any]],
    *,
    sigmas: Sequence[float],
    max_objects: int = 20,
) -> dict[str, float]:
    """COCO's ten figures, of entries of COCO json.

    Args:
        images: ids and sizes.
        truths: annotations of one category, numbered from 1.
        found: results.
        max_objects: of a picture, the best; COCO's are 20.

    Raises:
        ResnestError: faster-coco-eval is not installed.
    """
    if not truths or not found:
        nothing = float("nan") if not truths else 0.0
        return {f"{kind}{at}": nothing for kind in ("ap", "ar") for at in ("", "50", "75", "m", "l")}
    evaluation = _evaluator(images, truths, found, sigmas)
    evaluation.params.maxDets = [max_objects]
    evaluation.evaluate()
    evaluation.accumulate()
    precision, recall = (np.asarray(evaluation.eval[name])[..., -1] for name in ("precision", "recall"))
    figures: dict[str, float] = {}  # precision is (10 OKS, 101 recalls, 1 class, 3 areas), recall (10, 1, 3)
    for kind, values in (("ap", precision), ("ar", recall)):
        figures |= {f"{kind}{area}": mean_of_known(values[..., place]) for place, area in enumerate(AREAS)}
        figures |= {
            f"{kind}50": mean_of_known(values[OKS50, ..., 0]),
            f"{kind}75": mean_of_known(values[OKS75, ..., 0]),
        }
    return figures


def oks_matches(
    images: Sequence[Mapping[str, Any]],
    truths: Sequence[Mapping[str, Any]],
    found: Sequence[Mapping[str, Any]],
    *,
    sigmas: Sequence[float],
    max_objects: int = 20,
) -> Matches:
    """What OKS AP is computed from, for resamples of the pictures; arguments as of `oks_figures`, none empty."""
    return Matches(partial(_evaluator, images, truths, found, sigmas), max_objects)


def _evaluator(
    images: Sequence[Mapping[str, Any]],
    truths: Sequence[Mapping[str, Any]],
    found: Sequence[Mapping[str, Any]],
    sigmas: Sequence[float],
) -> Any:
    coco, evaluator = coco_library()
    truth = coco()
    category = truths[0]["category_id"] if truths else 1
    truth.dataset = {
        "images": [dict(image) for image in images],
        "categories": [{"id": category, "name": "object", "keypoints": [str(k) for k in range(len(sigmas))]}],
        "annotations": [dict(one) for one in truths],
    }
    truth.createIndex()
    return evaluator(truth, truth.loadRes([dict(one) for one in found]), "keypoints", kpt_oks_sigmas=list(sigmas))

"""From a panoptic detector's outputs to segments: objects and stuff joined to one map.

predict(engine, card, [Prepared("x.jpg", card.preprocess(image), image.size)])         # [PanopticMap(...)]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.detection.card import Classes, DetectionPreprocess
from resnest.detection.predict import raw_detections, unpadded_sizes
from resnest.detection.result import Detections, RawDetections, RawPanoptic
from resnest.errors import ResnestError
from resnest.panoptic.card import PanopticCard, PanopticSpec
from resnest.panoptic.result import PanopticClasses, PanopticMap, Segment
from resnest.runtime.engines.exported import Engine, Prepared, Views, stack_pixels
from resnest.runtime.rle import decode

# --- Merging objects and stuff into one panoptic map, as in Panoptic FPN (arXiv 1901.02446, section 3; detectron2).
# Objects come first, by descending score: each gets the free pixels of its mask, and is dropped if more than a fraction
# `overlap` of the mask is taken. Then each stuff class gets the free pixels where it has the highest score, if there
# are at least `stuff_area`. The remaining pixels are void.

THING = 0  # the label of pixels of any object; kinds of stuff come behind it


class Semantic(NamedTuple):
    """The most likely class of each pixel by the semantic branch, and its probability."""

    labels: NDArray[np.uint8]  # (H, W): any thing, then S kinds of stuff
    scores: NDArray[np.float32]  # (H, W) probability of that


def panoptic_map(
    raw: RawPanoptic,
    index: int,
    *,
    name: str,
    size: tuple[int, int],
    preprocess: DetectionPreprocess,
    classes: PanopticClasses,
    spec: PanopticSpec,
) -> PanopticMap:
    """The panoptic map of image `index` in an engine's batch, in pixels of the picture of this width and height."""
    things = Classes(classes.names[: classes.things], classes.ids[: classes.things])
    objects = _without_faint(raw.objects, spec.score)
    detections = Detections.of(objects, index, name=name, size=size, preprocess=preprocess, classes=things)
    wide, high = preprocess.scaled_size(*size)
    return merge(detections, semantic_of(raw.semantic[index, :, :high, :wide], size), classes, spec)


def merge(detections: Detections, semantic: Semantic, classes: PanopticClasses, spec: PanopticSpec) -> PanopticMap:
    """Merge objects with masks, and the semantic map, to segments that do not overlap."""
    assert detections.masks is not None
    ids = np.zeros((detections.height, detections.width), np.int32)
    segments: list[Segment] = []

    def add(mask: NDArray[np.bool_], label: int, score: float) -> None:
        segment = Segment.of(mask, id=len(segments) + 1, label=label, score=score)
        if segment is not None:
            ids[mask] = segment.id
            segments.append(segment)

    for number in np.argsort(-detections.scores, kind="stable").tolist():
        if detections.scores[number] < spec.score:
            break
        mask = decode(detections.masks[number])
        free = mask & (ids == 0)
        area = np.count_nonzero(mask)
        if area - np.count_nonzero(free) <= spec.overlap * area:
            add(free, int(detections.labels[number]), float(detections.scores[number]))
    free = ids == 0
    areas = np.bincount(semantic.labels[free], minlength=1 + THING)
    areas[THING] = 0
    for label in np.flatnonzero((areas > 0) & (areas >= spec.stuff_area)).tolist():
        region = free & (semantic.labels == label)
        add(region, classes.things + label - 1, float(semantic.scores[region].mean(dtype=np.float64)))
    return PanopticMap(detections.name, classes, ids, tuple(segments))


def semantic_of(logits: NDArray[np.float32], size: tuple[int, int]) -> Semantic:
    """Logits (1 + S, h, w) of an image without padding, resized to its picture of this width and height.

    One kind after the other is resized and compared with the best so far, so that a large picture fits into memory.
    """
    best = _resized(logits[0], size)
    labels = np.zeros(best.shape, np.uint8)
    total = np.ones(best.shape, np.float32)  # of exp(logit - best)
    for label, plane in enumerate(logits[1:], start=1):
        resized = _resized(plane, size)
        better = resized > best
        smaller = np.exp(-np.abs(resized - best))
        total = np.where(better, total * smaller + 1, total + smaller)
        best = np.where(better, resized, best)
        labels[better] = label
    return Semantic(labels, np.reciprocal(total))


def _resized(plane: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """(h, w) -> (H, W), Pillow's bilinear resizing."""
    image = Image.fromarray(np.ascontiguousarray(plane, np.float32))
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR))


def _without_faint(objects: RawDetections, score: float) -> RawDetections:
    """Skip the masks of objects that the merge would drop anyway."""
    return objects._replace(scores=np.where(objects.scores >= score, objects.scores, 0))


def predict(
    engine: Engine, card: PanopticCard, images: Sequence[Prepared], views: Views | None = None
) -> list[PanopticMap]:
    """A segment for every pixel, an object or a region of stuff; for images of one padded shape."""
    outputs = engine(stack_pixels(images), unpadded_sizes(card.preprocess, images))
    raw = RawPanoptic(raw_detections(outputs), outputs["semantic"])
    return [
        panoptic_map(
            raw,
            index,
            name=image.name,
            size=image.size,
            preprocess=card.preprocess,
            classes=card.classes,
            spec=card.panoptic,
        )
        for index, image in enumerate(images)
    ]


def check_views(views: Views) -> None:
    """Raises ResnestError: there is no test-time augmentation."""
    raise ResnestError("a panoptic detector looks at one view: several scales and mirrored views are for others")

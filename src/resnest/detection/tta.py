"""Test-time augmentation of a detector: several scales and flips, merged (detectron2, GeneralizedRCNNWithTTA).

    raw = predict_augmented(net, image, preprocess, scales=(640, 800), flip=True)      # RawDetections of one image

The boxes of all views are mapped back to the image, followed by NMS per class; masks are the mean of all views within
the remaining boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from resnest.detection import rpn as box_ops
from resnest.detection.card import DetectionPreprocess
from resnest.detection.detector import Detector
from resnest.detection.result import RawDetections
from resnest.errors import ResnestError

LONG = 4000  # pixels of the long side of a view at most (detectron2's TEST.AUG.MAX_SIZE)
MIN_SCORE = 1e-8  # when views are merged; each has applied the detector's own threshold before (detectron2)


@dataclass
class _View:
    """The image at one scale, possibly flipped, and its pyramid, for the masks later."""

    levels: list[Tensor]
    scale: Tensor  # (4,) pixels of the view per pixel of the image, for x1, y1, x2, y2
    width: int  # without padding
    mirrored: bool

    def to_image(self, boxes: Tensor) -> Tensor:
        return self._mirror(boxes) / self.scale

    def from_image(self, boxes: Tensor) -> Tensor:
        return self._mirror(boxes * self.scale)

    def _mirror(self, boxes: Tensor) -> Tensor:
        if not self.mirrored:
            return boxes
        x1, y1, x2, y2 = boxes.unbind(-1)
        return torch.stack([self.width - x2, y1, self.width - x1, y2], dim=-1)


@torch.inference_mode()
def predict_augmented(
    net: Detector,
    image: Image.Image,
    preprocess: DetectionPreprocess,
    *,
    scales: Sequence[int],
    flip: bool,
    long: int = LONG,
) -> RawDetections:
    """Detections of an RGB image with test-time augmentation, in pixels of `preprocess`'s input.

    The pyramids of all views are stored for the masks: 90 MB for one of 800 x 1333 pixels with 256 channels.

    Args:
        scales: pixels of the short side, one view each; in place of `preprocess.short`.
        flip: a mirrored view of each size too.
        long: pixels of the long side of a view, at most.

    Raises:
        ResnestError: if there is no scale.
    """
    if not scales:
        raise ResnestError("test-time augmentation needs a scale: the short side in pixels, such as 800")
    views, detections = [], []
    for scale in scales:
        sized = replace(preprocess, short=scale, long=long, canvas=None)
        for mirrored in (False, True)[: 1 + flip]:
            view, boxes, scores, labels = _predict_view(net, image, sized, mirrored)
            views.append(view)
            detections.append((view.to_image(boxes), scores, labels))
    all_boxes, all_scores, all_labels = (torch.cat(column) for column in zip(*detections, strict=True))
    boxes, scores, labels = _merge(net, all_boxes, all_scores, all_labels, image.size)
    masks = _masks(net, views, boxes, labels) if net.spec.masks else None
    wide, high = preprocess.scaled_size(*image.size)
    shape = np.array([wide / image.width, high / image.height] * 2)
    return RawDetections(
        boxes=(boxes.cpu().numpy() * shape).astype(np.float32)[None],
        scores=scores.cpu().numpy()[None],
        labels=labels.cpu().numpy()[None],
        masks=None if masks is None else masks.cpu().numpy()[None],
    )


def _predict_view(
    net: Detector, image: Image.Image, preprocess: DetectionPreprocess, mirrored: bool
) -> tuple[_View, Tensor, Tensor, Tensor]:
    """One view and its detections: boxes (D, 4) in its pixels, scores (D,), labels (D,)."""
    wide, high = preprocess.scaled_size(*image.size)
    like: dict[str, Any] = {"device": next(net.parameters()).device}
    pixels = torch.from_numpy(preprocess(ImageOps.mirror(image) if mirrored else image)).to(**like)
    levels = net.features(pixels[None])
    size = torch.tensor([[high, wide]], **like)
    found = net.find(levels, pixels[None], size)
    scale = torch.tensor([wide / image.width, high / image.height] * 2, **like)
    return _View(levels, scale, wide, mirrored), found.boxes[0], found.scores[0], found.labels[0]


def _merge(
    net: Detector, boxes: Tensor, scores: Tensor, labels: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Detections of all views after NMS, as many as of one view."""
    width, height = size
    boxes = box_ops.clip(boxes, torch.tensor([height, width], device=boxes.device))
    left = box_ops.nms_per_class(boxes, scores, labels, scores > MIN_SCORE, net.spec.max_iou)
    indices, exists = box_ops.top_k(scores, left, net.spec.max_detections)
    return boxes[indices] * exists[:, None], scores[indices] * exists, labels[indices]


def _masks(net: Detector, views: Sequence[_View], boxes: Tensor, labels: Tensor) -> Tensor:
    """Mean masks over the views: (D, 28, 28)."""
    total: Tensor | None = None
    for view in views:
        masks = net.predict_masks(view.levels, view.from_image(boxes)[None], labels[None])[0]
        masks = masks.flip(2) if view.mirrored else masks
        total = masks if total is None else total + masks
    assert total is not None
    return total / len(views)

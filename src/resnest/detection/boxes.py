"""Box arithmetic: anchors, deltas, non-maximum suppression, matching with ground-truth boxes.

anchors = level_anchors(spec, 0, size=(200, 272), strides=(4, 4), like=p2)       # (200 * 272 * 3, 4)
deltas = encode(proposals, truth, weights)        # (M, 4) each; boxes are x1, y1, x2, y2
decode(deltas, proposals, weights)                # truth again
matched, kind = match(anchors, truth, background=0.3, foreground=0.7, each_has_one=True)
chosen = sample(kind, count=256, positive=0.5)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import box_iou, nms

from resnest.detection.spec import DetectorSpec

Weights = Sequence[float]
RPN_WEIGHTS: Weights = (1.0, 1.0, 1.0, 1.0)
HEAD_WEIGHTS: Weights = (10.0, 10.0, 5.0, 5.0)  # Fast R-CNN: deltas get about unit variance
MAX_LOG_SCALE = math.log(1000 / 16)  # of a size's delta: no box grows more than 62 times (both code bases)
BACKGROUND, IGNORED, FOREGROUND = 0, -1, 1


class Target(NamedTuple):
    """The training target of one image: objects in pixels of the network's input, before padding."""

    boxes: Tensor  # (M, 4) float32: x1, y1, x2, y2; all have an area
    labels: Tensor  # (M,) int64, from 0
    size: tuple[int, int]  # height, width
    masks: Tensor | None = None  # (M, height, width) bool, if the task wants them
    semantic: Tensor | None = None  # (height, width) uint8: 0 any thing, 1.. kinds of stuff, 255 does not count


def level_anchors(
    spec: DetectorSpec, level: int, *, size: tuple[int, int], strides: tuple[int, int], like: Tensor
) -> Tensor:
    """Anchors of one level, ordered by position, then shape: (height * width * A, 4) pixels.

    Their centres are the upper left corners of the grid's cells; torchvision rounds the shapes, detectron2 does not.
    """
    shapes = cell_anchors(spec, level).to(like.device)
    y, x = (
        torch.arange(count, device=like.device, dtype=torch.float32) * stride
        for count, stride in zip(size, strides, strict=True)
    )
    shift_y, shift_x = torch.meshgrid(y, x, indexing="ij")
    shifts = torch.stack([shift_x, shift_y, shift_x, shift_y], dim=-1)  # (H, W, 4)
    return (shifts[:, :, None] + shapes).reshape(-1, 4)


def cell_anchors(spec: DetectorSpec, level: int) -> Tensor:
    """The anchor shapes centred at 0, (A, 4): all of the level's area."""
    ratios = torch.tensor(spec.anchor_ratios).sqrt()
    size = spec.anchor_sizes[level]
    height, width = size * ratios, size / ratios
    shapes = torch.stack([-width, -height, width, height], dim=1) / 2
    return shapes.round() if spec.preset == "torchvision" else shapes


def encode(proposals: Tensor, truth: Tensor, weights: Weights) -> Tensor:
    """Deltas from proposals to ground-truth boxes, (M, 4) each: shifts in fractions of the size, log sizes."""
    (x, y, w, h), (tx, ty, tw, th) = _centred(proposals), _centred(truth)
    wx, wy, ww, wh = weights
    return torch.stack([wx * (tx - x) / w, wy * (ty - y) / h, ww * torch.log(tw / w), wh * torch.log(th / h)], dim=-1)


def decode(deltas: Tensor, proposals: Tensor, weights: Weights) -> Tensor:
    """Boxes from deltas: (..., 4), (..., 4) -> (..., 4), broadcast over the leading axes."""
    x, y, w, h = _centred(proposals)
    wx, wy, ww, wh = weights
    dx, dy, dw, dh = deltas.unbind(-1)
    cx, cy = dx / wx * w + x, dy / wy * h + y
    half_w, half_h = (
        torch.exp((d / weight).clamp(max=MAX_LOG_SCALE)) * side / 2 for d, weight, side in ((dw, ww, w), (dh, wh, h))
    )
    return torch.stack([cx - half_w, cy - half_h, cx + half_w, cy + half_h], dim=-1)


def clip(boxes: Tensor, size: Tensor) -> Tensor:
    """Boxes (..., 4) clipped to an image; `size` is (2,): height, width."""
    height, width = size.to(boxes.dtype).unbind()
    x1, y1, x2, y2 = boxes.unbind(-1)
    zero = torch.zeros_like(width)
    x1, x2 = (torch.minimum(torch.maximum(x, zero), width) for x in (x1, x2))
    y1, y2 = (torch.minimum(torch.maximum(y, zero), height) for y in (y1, y2))
    return torch.stack([x1, y1, x2, y2], dim=-1)


def has_size(boxes: Tensor, min_side: float) -> Tensor:
    """(..., 4) -> (...) bool: both sides longer than `min_side` pixels, or at least as long if it is above 0."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return (sides > 0).all(-1) if min_side == 0 else (sides >= min_side).all(-1)


def nms_per_class(boxes: Tensor, scores: Tensor, classes: Tensor, candidates: Tensor, iou: float) -> Tensor:
    """Non-maximum suppression within each class, or level: (M, 4), (M,), (M,), (M,) bool -> (M,) bool.

    Input and output shapes are fixed, so that it can be exported.
    """
    rows = candidates.nonzero()[:, 0]
    offset = boxes.detach().abs().max() + 1 if len(boxes) else 1.0  # boxes of different classes do not overlap
    shifted = boxes[rows] + (classes[rows].to(boxes.dtype) * offset)[:, None]
    left = nms(shifted.float(), scores[rows].float(), iou)
    return torch.zeros_like(candidates).index_fill(0, rows[left], True)


def top_k(scores: Tensor, left: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` best valid entries: their indices and whether there is one at all, (count,) each."""
    ranked = scores.masked_fill(~left, -math.inf)
    if ranked.shape[0] < count:
        ranked = torch.cat([ranked, ranked.new_full((count - ranked.shape[0],), -math.inf)])
    top, indices = ranked.topk(count)
    return indices.clamp(max=scores.shape[0] - 1), top > -math.inf


def match(
    boxes: Tensor, truth: Tensor, *, background: float, foreground: float, each_has_one: bool
) -> tuple[Tensor, Tensor]:
    """Match boxes with ground truth: index of the highest IoU, (M,), and background, ignored or foreground, (M,).

    Args:
        background, foreground: IoU below the one and from the other on; what is between them is ignored.
        each_has_one: the box that overlaps a true one most is foreground in any case (arXiv 1506.01497, section 3.1.2).
    """
    kind = torch.full((len(boxes),), BACKGROUND, dtype=torch.int64, device=boxes.device)
    if not len(truth):
        return torch.zeros_like(kind), kind
    overlaps = box_iou(truth, boxes)  # (truths, M)
    most, matched = overlaps.max(0)
    kind[most >= background] = IGNORED
    kind[most >= foreground] = FOREGROUND
    if each_has_one:
        is_best = overlaps == overlaps.max(1, keepdim=True).values
        kind[(is_best & (overlaps > 0)).any(0)] = FOREGROUND  # several may be equally good
    return matched, kind


def sample(kind: Tensor, *, count: int, positive: float) -> tuple[Tensor, Tensor]:
    """Sample rows for the loss: at most `positive * count` of the foreground, and background up to `count`."""
    foreground, background = ((kind == which).nonzero()[:, 0] for which in (FOREGROUND, BACKGROUND))
    foreground = _random_rows(foreground, min(len(foreground), int(count * positive)))
    return foreground, _random_rows(background, min(len(background), count - len(foreground)))


def _centred(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x1, y1, x2, y2 = boxes.unbind(-1)
    width, height = x2 - x1, y2 - y1
    return x1 + width / 2, y1 + height / 2, width, height


def _random_rows(rows: Tensor, count: int) -> Tensor:
    """Sampled on the CPU, so that a seed gives the same rows on every device."""
    if count == len(rows):
        return rows
    return rows[torch.randperm(len(rows))[:count].to(rows.device)]

"""Boxes as numbers to learn, and back (Girshick et al., arXiv 1311.2524, appendix C).

deltas = encode(proposals, truth, weights)        # (M, 4) each; boxes are x1, y1, x2, y2
decode(deltas, proposals, weights)                # truth again
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import nms

Weights = Sequence[float]

RPN_WEIGHTS: Weights = (1.0, 1.0, 1.0, 1.0)
HEAD_WEIGHTS: Weights = (10.0, 10.0, 5.0, 5.0)  # Fast R-CNN: deltas get about unit variance
LARGEST = math.log(1000 / 16)  # of a size's delta: no box grows more than 62 times (both code bases)


def encode(proposals: Tensor, truth: Tensor, weights: Weights) -> Tensor:
    """What leads from proposals to true boxes, both (M, 4): shifts in shares of the size, sizes as logarithms."""
    (x, y, w, h), (tx, ty, tw, th) = _centred(proposals), _centred(truth)
    wx, wy, ww, wh = weights
    return torch.stack([wx * (tx - x) / w, wy * (ty - y) / h, ww * torch.log(tw / w), wh * torch.log(th / h)], dim=-1)


def decode(deltas: Tensor, proposals: Tensor, weights: Weights) -> Tensor:
    """(..., 4), (..., 4) -> (..., 4), broadcast over the axes before the last."""
    x, y, w, h = _centred(proposals)
    wx, wy, ww, wh = weights
    dx, dy, dw, dh = deltas.unbind(-1)
    cx, cy = dx / wx * w + x, dy / wy * h + y
    half_w, half_h = (
        torch.exp((d / weight).clamp(max=LARGEST)) * side / 2 for d, weight, side in ((dw, ww, w), (dh, wh, h))
    )
    return torch.stack([cx - half_w, cy - half_h, cx + half_w, cy + half_h], dim=-1)


def clip(boxes: Tensor, size: Tensor) -> Tensor:
    """Boxes (..., 4) cut off at an image's edges; `size` is (2,): height, width."""
    height, width = size.to(boxes.dtype).unbind()
    x1, y1, x2, y2 = boxes.unbind(-1)
    zero = torch.zeros_like(width)
    x1, x2 = (torch.minimum(torch.maximum(x, zero), width) for x in (x1, x2))
    y1, y2 = (torch.minimum(torch.maximum(y, zero), height) for y in (y1, y2))
    return torch.stack([x1, y1, x2, y2], dim=-1)


def has_size(boxes: Tensor, least: float) -> Tensor:
    """(..., 4) -> (...) bool: both sides longer than `least` pixels, or not shorter if that is more than 0."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return (sides > 0).all(-1) if least == 0 else (sides >= least).all(-1)


def survivors(boxes: Tensor, scores: Tensor, kinds: Tensor, candidates: Tensor, overlap: float) -> Tensor:
    """Non-maximum suppression of each kind by itself: (M, 4), (M,), (M,), (M,) bool -> (M,) bool, who is left.

    The shapes of what goes in and comes out are fixed, so that it can be exported.
    """
    found = candidates.nonzero()[:, 0]
    chosen, kind = boxes[found], kinds[found]
    apart = boxes.detach().abs().max() + 1 if len(boxes) else 1.0  # kinds lie side by side and do not meet
    kept = nms((chosen + (kind.to(boxes.dtype) * apart)[:, None]).float(), scores[found].float(), overlap)
    left = torch.zeros_like(candidates)
    return left.index_fill(0, found[kept], True)


def best(scores: Tensor, left: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` best of those that are left: their places and whether there is one at all, (count,) each."""
    ranked = scores.masked_fill(~left, -math.inf)
    if ranked.shape[0] < count:
        ranked = torch.cat([ranked, ranked.new_full((count - ranked.shape[0],), -math.inf)])
    top, places = ranked.topk(count)
    return places.clamp(max=scores.shape[0] - 1), top > -math.inf


def _centred(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x1, y1, x2, y2 = boxes.unbind(-1)
    width, height = x2 - x1, y2 - y1
    return x1 + width / 2, y1 + height / 2, width, height

"""Which true box belongs to which anchor or proposal, and which of them are learnt from.

matched, kind = match(anchors, truth, background=0.3, foreground=0.7, each_has_one=True)
chosen = sample(kind, count=256, positive=0.5)
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_iou

BACKGROUND, IGNORED, FOREGROUND = 0, -1, 1


def match(
    boxes: Tensor, truth: Tensor, *, background: float, foreground: float, each_has_one: bool
) -> tuple[Tensor, Tensor]:
    """The true box that each box overlaps most, (M,), and what the box is, (M,): background, ignored, foreground.

    Args:
        background, foreground: IoU below the one and from the other on; what lies between is ignored.
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
    """Places to learn from, at random: of the foreground at most a share of `count`, and background up to `count`."""
    foreground, background = ((kind == which).nonzero()[:, 0] for which in (FOREGROUND, BACKGROUND))
    foreground = _some(foreground, min(len(foreground), int(count * positive)))
    return foreground, _some(background, min(len(background), count - len(foreground)))


def _some(places: Tensor, count: int) -> Tensor:
    """Drawn on the CPU, so that a seed means the same on every device."""
    if count == len(places):
        return places
    return places[torch.randperm(len(places))[:count].to(places.device)]

"""The region proposal network (Ren et al., arXiv 1506.01497), and box arithmetic: anchors, deltas, NMS, matching.

rpn = ProposalNetwork(256, spec)
proposals = rpn(levels, image_size, sizes)         # Proposals: boxes (N, P, 4), exists (N, P)
losses = rpn.losses(proposals, targets)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import box_iou, nms

from resnest.detection.card import DetectorSpec, Preset
from resnest.detection.object_masks import ObjectMasks
from resnest.network.pyramid import STRIDES

# --- Box arithmetic: anchors, deltas, non-maximum suppression, matching with ground-truth boxes ---

Weights = Sequence[float]
RPN_WEIGHTS: Weights = (1.0, 1.0, 1.0, 1.0)
HEAD_WEIGHTS: Weights = (10.0, 10.0, 5.0, 5.0)  # Fast R-CNN: deltas get about unit variance
MAX_LOG_SCALE = math.log(1000 / 16)  # of a size's delta: no box grows more than 62 times (both code bases)
ACROSS = 64  # classes side by side in one suppression of all
MANY = 40_000  # boxes from which on classes are suppressed one by one (detectron2, layers/nms.py)
BACKGROUND, IGNORED, FOREGROUND = 0, -1, 1
PAIRS = 4_000_000  # of a box and a true one that are compared at once: about 100 MB (box_iou keeps six numbers of each)


class Target(NamedTuple):
    """The training target of one image: objects in pixels of the network's input, before padding."""

    boxes: Tensor  # (M, 4) float32: x1, y1, x2, y2; all have an area
    labels: Tensor  # (M,) int64, from 0
    size: tuple[int, int]  # height, width
    masks: ObjectMasks | None = None  # of M objects, if the task wants them
    semantic: Tensor | None = None  # (height, width) uint8: 0 any thing, 1.. kinds of stuff, 255 does not count


def level_anchors(
    spec: DetectorSpec, level: int, *, size: tuple[int, int], strides: tuple[int, int], like: Tensor
) -> Tensor:
    """Anchors of one level, ordered by position, then shape: (height * width * A, 4) pixels.

    Their centres are the upper left corners of the grid's cells; torchvision rounds the shapes, detectron2 does not.
    """
    return on_grid(anchor_shapes(spec, spec.anchor_sizes[level]), size=size, strides=strides, like=like)


def anchor_shapes(spec: DetectorSpec, size: float) -> Tensor:
    """The anchor shapes centred at 0, (A, 4): all of the area of `size` pixels a side."""
    ratios = torch.tensor(spec.anchor_ratios).sqrt()
    height, width = size * ratios, size / ratios
    shapes = torch.stack([-width, -height, width, height], dim=1) / 2
    return shapes.round() if spec.preset == "torchvision" else shapes


def on_grid(shapes: Tensor, *, size: tuple[int, int], strides: tuple[int, int], like: Tensor) -> Tensor:
    """Boxes (A, 4) around 0, moved to the corners of a grid's cells: (height * width * A, 4)."""
    y, x = (
        torch.arange(count, device=like.device, dtype=torch.float32) * stride
        for count, stride in zip(size, strides, strict=True)
    )
    shift_y, shift_x = torch.meshgrid(y, x, indexing="ij")
    shifts = torch.stack([shift_x, shift_y, shift_x, shift_y], dim=-1)  # (H, W, 4)
    return (shifts[:, :, None] + shapes.to(like.device)).reshape(-1, 4)


def level_strides(preset: Preset, stride: int, level: Tensor, image_size: tuple[int, int]) -> tuple[int, int]:
    """Pixels of the image between neighbours of a level (N, C, H, W), down and across.

    torchvision divides sizes; another number where a level is rounded up.
    """
    if preset == "torchvision":
        return image_size[0] // level.shape[2], image_size[1] // level.shape[3]
    return stride, stride


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
    """Boxes (..., 4) clipped to an image; `size` is (..., 2): height, width."""
    height, width = size.to(boxes.dtype).unbind(-1)
    x1, y1, x2, y2 = boxes.unbind(-1)
    zero = torch.zeros_like(width)
    x1, x2 = (torch.minimum(torch.maximum(x, zero), width) for x in (x1, x2))
    y1, y2 = (torch.minimum(torch.maximum(y, zero), height) for y in (y1, y2))
    return torch.stack([x1, y1, x2, y2], dim=-1)


def nonempty(boxes: Tensor, min_side: float) -> Tensor:
    """(..., 4) -> (...) bool: both sides longer than `min_side` pixels, or at least as long if it is above 0."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return (sides > 0).all(-1) if min_side == 0 else (sides >= min_side).all(-1)


def nms_per_class(boxes: Tensor, scores: Tensor, classes: Tensor, candidates: Tensor, iou: float) -> Tensor:
    """Non-maximum suppression within each class, or level: (M, 4), (M,), (M,), (M,) bool -> (M,) bool.

    Input and output shapes are fixed, so that it can be exported.
    """
    rows = candidates.nonzero()[:, 0]
    exporting = torch.compiler.is_exporting() or torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
    if not exporting and len(rows) > MANY:
        left = _nms_one_by_one(boxes[rows], scores[rows], classes[rows], iou)
    else:
        left = nms(_apart(boxes, classes)[rows].float(), scores[rows].float(), iou)
    return torch.zeros_like(candidates).index_fill(0, rows[left], True)


def _apart(boxes: Tensor, classes: Tensor) -> Tensor:
    """The boxes moved so that those of different classes do not overlap, (M, 4).

    Classes lie in rows of `ACROSS`: side by side, those of LVIS would reach to 1.6 million pixels, where a float32 has
    steps of an eighth.
    """
    offset = boxes.detach().abs().max() + 1 if len(boxes) else 1.0
    places = torch.stack([classes % ACROSS, classes // ACROSS], dim=1).to(boxes.dtype) * offset  # (M, 2) x, y
    return boxes + places.repeat(1, 2)


def _nms_one_by_one(boxes: Tensor, scores: Tensor, classes: Tensor, iou: float) -> Tensor:
    """Indices of the boxes that are left: all classes at once would take memory by the square of their boxes."""
    order = classes.argsort(stable=True)
    parts = order.split(classes.bincount().tolist())
    return torch.cat([part[nms(boxes[part].float(), scores[part].float(), iou)] for part in parts if len(part)])


def top_k(scores: Tensor, left: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` best valid entries of (..., M): indices, and whether there is one at all, (..., count) each."""
    ranked = scores.masked_fill(~left, -math.inf)
    if ranked.shape[-1] < count:
        ranked = F.pad(ranked, (0, count - ranked.shape[-1]), value=-math.inf)
    top, indices = ranked.topk(count)
    return indices.clamp(max=scores.shape[-1] - 1), top > -math.inf


def match(
    boxes: Tensor, truth: Tensor, *, background: float, foreground: float, low_quality: bool
) -> tuple[Tensor, Tensor]:
    """Match boxes with ground truth: index of the highest IoU, (M,), and background, ignored or foreground, (M,).

    Args:
        background, foreground: IoU below the one and from the other on; what is between them is ignored.
        low_quality: the box that overlaps a true one most is foreground in any case (arXiv 1506.01497, section 3.1.2).
    """
    kind = torch.full((len(boxes),), BACKGROUND, dtype=torch.int64, device=boxes.device)
    if not len(truth):
        return torch.zeros_like(kind), kind
    most, matched, best = boxes.new_full((len(boxes),), -1.0), torch.zeros_like(kind), torch.zeros_like(kind).bool()
    rows = max(1, PAIRS // max(len(boxes), 1))
    for start in range(0, len(truth), rows):
        overlaps = box_iou(truth[start : start + rows], boxes)  # (rows, M)
        highest, which = overlaps.max(0)
        better = highest > most  # of equal ones the first
        most, matched = torch.where(better, highest, most), torch.where(better, which + start, matched)
        if low_quality:
            is_best = overlaps == overlaps.max(1, keepdim=True).values
            best |= (is_best & (overlaps > 0)).any(0)  # several may be equally good
    kind[most >= background] = IGNORED
    kind[most >= foreground] = FOREGROUND
    kind[best] = FOREGROUND
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


TORCHVISION_BETA = 1 / 9  # of its smooth L1 losses, here and in the heads; detectron2's are plain L1
MIN_SIDE = {"detectron2": 0.0, "torchvision": 1e-3}  # pixels, of a proposal


class Proposals(NamedTuple):
    """The best boxes of each image, and for the losses the outputs of every anchor."""

    boxes: Tensor  # (N, P, 4)
    exists: Tensor  # (N, P) bool: an image may have fewer
    anchors: Tensor  # (M, 4)
    logits: Tensor  # (N, M)
    deltas: Tensor  # (N, M, 4)


class ProposalNetwork(nn.Module):
    """A 3x3 convolution on every level, then objectness and deltas for each anchor."""

    def __init__(self, channels: int, spec: DetectorSpec) -> None:
        super().__init__()
        self.spec = spec
        shapes = len(spec.anchor_ratios)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.objectness = nn.Conv2d(channels, shapes, 1)
        self.deltas = nn.Conv2d(channels, 4 * shapes, 1)
        for module in (self.conv, self.objectness, self.deltas):
            nn.init.normal_(module.weight, std=0.01)  # Faster R-CNN, section 3.1.3
            assert module.bias is not None
            nn.init.zeros_(module.bias)

    def forward(self, levels: Sequence[Tensor], image_size: tuple[int, int], sizes: Tensor) -> Proposals:
        """Maps P2..P6, height and width of the padded images, (N, 2) heights and widths without padding."""
        logits, deltas = zip(*map(self._score, levels), strict=True)
        anchors = [self._anchors(index, level, image_size) for index, level in enumerate(levels)]
        with torch.no_grad():
            chosen = [
                self._select_proposals(
                    [level[image] for level in logits], [level[image] for level in deltas], anchors, sizes[image]
                )
                for image in range(len(sizes))
            ]
        boxes, exists = (torch.stack(column) for column in zip(*chosen, strict=True))
        return Proposals(boxes, exists, torch.cat(anchors), torch.cat(logits, 1), torch.cat(deltas, 1))

    def losses(self, proposals: Proposals, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Objectness loss and box loss of the anchors."""
        objectness, nearness, count = [], [], 0
        for logits, deltas, target in zip(proposals.logits, proposals.deltas, targets, strict=True):
            matched, kind = match(proposals.anchors, target.boxes, background=0.3, foreground=0.7, low_quality=True)
            spec = self.spec
            foreground, background = sample(kind, count=spec.rpn_batch, positive=spec.rpn_positive)
            wanted = torch.cat([torch.ones_like(foreground), torch.zeros_like(background)]).to(logits.dtype)
            chosen = logits[torch.cat([foreground, background])]
            objectness.append(F.binary_cross_entropy_with_logits(chosen, wanted, reduction="sum"))
            truth = target.boxes[matched[foreground]] if len(foreground) else target.boxes[:0]
            true_deltas = encode(proposals.anchors[foreground], truth, RPN_WEIGHTS)
            nearness.append(box_loss(deltas[foreground], true_deltas, self.spec))
            count += len(wanted)
        # detectron2 divides by what could have been sampled, torchvision by what was
        norm = spec.rpn_batch * len(targets) if spec.preset == "detectron2" else max(count, 1)
        return {"rpn_objectness": torch.stack(objectness).sum() / norm, "rpn_box": torch.stack(nearness).sum() / norm}

    def _score(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) -> logits (N, H*W*A) and deltas (N, H*W*A, 4), ordered by position, then shape."""
        hidden = F.relu(self.conv(level))
        logits = self.objectness(hidden).permute(0, 2, 3, 1).flatten(1).float()
        deltas = self.deltas(hidden).permute(0, 2, 3, 1).reshape(logits.shape[0], -1, 4).float()
        return logits, deltas

    def _anchors(self, index: int, level: Tensor, image_size: tuple[int, int]) -> Tensor:
        strides = level_strides(self.spec.preset, STRIDES[index], level, image_size)
        size = level.shape[2], level.shape[3]
        return level_anchors(self.spec, index, size=size, strides=strides, like=level)

    def _select_proposals(
        self, logits: Sequence[Tensor], deltas: Sequence[Tensor], anchors: Sequence[Tensor], size: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The proposals of one image: the best anchors of each level, decoded, after NMS."""
        spec = self.spec
        before, after = (pair[0 if self.training else 1] for pair in (spec.pre_nms, spec.post_nms))
        scores, boxes, levels = [], [], []
        for index, (logit, delta, anchor) in enumerate(zip(logits, deltas, anchors, strict=True)):
            top, indices = logit.topk(min(before, logit.shape[0]))
            scores.append(top)
            boxes.append(decode(delta[indices], anchor[indices], RPN_WEIGHTS))
            levels.append(torch.full_like(indices, index))
        score, box, level = torch.cat(scores), clip(torch.cat(boxes), size), torch.cat(levels)
        candidates = nonempty(box, MIN_SIDE[spec.preset]) & torch.isfinite(score)
        left = nms_per_class(box, score, level, candidates, spec.rpn_nms)
        indices, exists = top_k(score, left, after)
        return box[indices] * exists[:, None], exists


def box_loss(deltas: Tensor, target: Tensor, spec: DetectorSpec) -> Tensor:
    """L1 loss, summed; torchvision's is smooth near zero."""
    if spec.preset == "torchvision":
        return F.smooth_l1_loss(deltas, target, beta=TORCHVISION_BETA, reduction="sum")
    return F.l1_loss(deltas, target, reduction="sum")

"""What one-stage detectors have in common: levels P3 to P7, a head on every level, and suppression without proposals.

class RetinaNet(OneStage): ...          # adds anchors, scores, boxes and losses

Read `OneStage.find` first. Nothing depends on the number or the size of the images, so that exported files take any.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Hashable, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import nms, sigmoid_focal_loss

from resnest.checkpoints.multipart import Rules, conv_norm
from resnest.detection import rpn as box_ops
from resnest.detection.card import DetectorSpec
from resnest.detection.detector import DetectionOutput, Detector, full_sizes
from resnest.detection.naming import State
from resnest.network.pyramid import FeaturePyramid
from resnest.spec import GROUPS, HeadNorm

STRIDES = (8, 16, 32, 64, 128)  # of P3 to P7
MOMENTUM = 0.9  # of the running number of objects that losses are divided by (detectron2, _ema_update)


class LongPyramid(FeaturePyramid):
    """C3..C5 -> P3..P7: P6 and P7 are convolutions of stride 2 (arXiv 1708.02002, section 4, footnote 2).

    Shapes: [(N, C_i, H/8, W/8), ...] -> [(N, channels, H/8, W/8), ..., (N, channels, H/128, W/128)].
    """

    def __init__(self, in_chans: Sequence[int], spec: DetectorSpec) -> None:
        super().__init__(in_chans, spec.fpn_channels, spec.norm)
        self.from_c5 = spec.p6_source == "c5"
        self.p6 = nn.Conv2d(in_chans[-1] if self.from_c5 else spec.fpn_channels, spec.fpn_channels, 3, 2, 1)
        self.p7 = nn.Conv2d(spec.fpn_channels, spec.fpn_channels, 3, 2, 1)
        for conv in (self.p6, self.p7):
            nn.init.kaiming_uniform_(conv.weight, a=1)  # detectron2's LastLevelP6P7
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        levels = super().forward(maps)[:-1]
        p6 = self.p6(maps[-1] if self.from_c5 else levels[-1])
        return [*levels, p6, self.p7(F.relu(p6))]


class HeadConv(nn.Module):
    """3x3 convolution with a bias, perhaps a group norm, ReLU.

    A group has two channels or more: P7 of a small picture is a single pixel.
    """

    def __init__(self, channels: int, norm: HeadNorm) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        groups = math.gcd(GROUPS, channels)
        groups = groups // 2 if groups == channels > 1 else groups
        self.norm = nn.GroupNorm(groups, channels) if norm == "group" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class LevelOutput(NamedTuple):
    """What the head says of one level, by position, then anchor."""

    logits: Tensor  # (N, M, K)
    deltas: Tensor  # (N, M, 4)
    centerness: Tensor | None = None  # (N, M) logits


class DenseHead(nn.Module):
    """Classes and boxes of every anchor, by two branches that all levels share (arXiv 1708.02002, figure 3)."""

    normaliser: Tensor  # a running mean, of `OneStage.count_objects`

    def __init__(self, spec: DetectorSpec, num_classes: int, anchors: int) -> None:
        super().__init__()
        channels, norm, self.num_classes = spec.fpn_channels, spec.head_norm_kind, num_classes
        self.class_convs = nn.Sequential(*(HeadConv(channels, norm) for _ in range(spec.head_convs)))
        self.box_convs = nn.Sequential(*(HeadConv(channels, norm) for _ in range(spec.head_convs)))
        self.score = nn.Conv2d(channels, anchors * num_classes, 3, padding=1)
        self.deltas = nn.Conv2d(channels, anchors * 4, 3, padding=1)
        self.initialise(spec.prior)

    def initialise(self, prior: float) -> None:
        """Small weights, and every score `prior`, or the background would drown the first steps (section 3.3)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        assert self.score.bias is not None
        nn.init.constant_(self.score.bias, -math.log((1 - prior) / prior))

    def forward(self, level: Tensor) -> LevelOutput:
        """(N, C, H, W) -> (N, H*W*A, ...)."""
        logits = self.score(self.class_convs(level))
        deltas = self.deltas(self.box_convs(level))
        return LevelOutput(by_anchor(logits, self.num_classes), by_anchor(deltas, 4))


def by_anchor(maps: Tensor, values: int) -> Tensor:
    """(N, A * values, H, W) -> (N, H*W*A, values)."""
    parts: Tensor = maps.unflatten(1, (-1, values))
    return parts.permute(0, 3, 4, 1, 2).flatten(1, 3).float()


class OneStage(Detector):
    """Base class: a long pyramid and a dense head; a kind says what anchors are, and what the head's output means."""

    takes: ClassVar = (2, 3, 4)  # C3 to C5
    first_normaliser: ClassVar[float]  # objects that losses are divided by before any was seen

    def __init__(self, backbone: nn.Module, spec: DetectorSpec, num_classes: int) -> None:
        super().__init__(backbone, spec, num_classes)
        self.fpn = LongPyramid(backbone.channels, spec)  # type: ignore[arg-type]
        self.dense = self.build_head()
        self.dense.register_buffer("normaliser", torch.tensor(self.first_normaliser))

    # --- what a kind says ---

    @abstractmethod
    def build_head(self) -> DenseHead: ...

    @abstractmethod
    def shapes(self, level: int) -> Tensor:
        """The anchors of a level around 0, (A, 4)."""

    @abstractmethod
    def scores(self, output: LevelOutput) -> Tensor:
        """(N, M, K) from 0 to 1."""

    @abstractmethod
    def decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        """Boxes, (..., 4) all."""

    # --- using it ---

    def anchors(self, levels: Sequence[Tensor], image_size: tuple[int, int]) -> list[Tensor]:
        """(M, 4) of each level."""
        grids = []
        for index, (level, stride) in enumerate(zip(levels, STRIDES, strict=True)):
            strides = box_ops.level_strides(self.spec.preset, stride, level, image_size)
            size = level.shape[2], level.shape[3]
            grids.append(box_ops.on_grid(self.shapes(index), size=size, strides=strides, like=level))
        return grids

    def find(self, levels: list[Tensor], images: Tensor, sizes: Tensor) -> DetectionOutput:
        canvas = images.shape[2], images.shape[3]
        best = [
            self._best(self.dense(level), anchors)
            for level, anchors in zip(levels, self.anchors(levels, canvas), strict=True)
        ]
        boxes, scores, labels = (torch.cat(column, dim=1) for column in zip(*best, strict=True))  # (N, 5 * count, ...)
        inner = box_ops.clip(boxes, sizes[:, None])
        candidates = (scores > self.spec.min_score) & box_ops.nonempty(inner, 0)
        # an exported file sees the canvas alone, and must suppress what the network does
        compared = inner if self.spec.preset == "torchvision" else box_ops.clip(boxes, full_sizes(images)[:, None])
        left = suppress(compared, scores, labels, candidates, self.spec.max_iou, canvas, self.num_classes)
        rows, exists = box_ops.top_k(scores, left, self.spec.max_detections)
        found = inner.gather(1, rows[..., None].expand(-1, -1, 4)) * exists[..., None]
        return DetectionOutput(found, scores.gather(1, rows) * exists, labels.gather(1, rows))

    def _best(self, output: LevelOutput, anchors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The best pairs of box and class of a level: (N, count, 4), (N, count), (N, count).

        They are among the `count` anchors with the best class of all. Where there are fewer, scores are -1.
        """
        count, scores = self.spec.candidates, self.scores(output)
        top, rows = F.pad(scores.amax(2), (0, count), value=-1).topk(count)
        rows = rows.clamp(max=scores.shape[1] - 1)
        pairs = scores.gather(1, rows[..., None].expand(-1, -1, self.num_classes))
        pairs = pairs.where((top >= 0)[..., None], -1).flatten(1)  # (N, count * K)
        boxes = self.decode(output.deltas.gather(1, rows[..., None].expand(-1, -1, 4)), anchors[rows])
        best, chosen = pairs.topk(count)
        boxes = boxes.gather(1, (chosen // self.num_classes)[..., None].expand(-1, -1, 4))
        return boxes, best, chosen % self.num_classes

    # --- learning ---

    def outputs(self, levels: Sequence[Tensor]) -> LevelOutput:
        """Of all levels, one after the other."""
        parts: list[LevelOutput] = [self.dense(level) for level in levels]
        centers = [part.centerness for part in parts if part.centerness is not None]
        return LevelOutput(
            torch.cat([part.logits for part in parts], dim=1),
            torch.cat([part.deltas for part in parts], dim=1),
            torch.cat(centers, dim=1) if centers else None,
        )

    def focal_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Sum of the focal loss (arXiv 1708.02002, section 3.2): (M, K), (M,) with K for background."""
        spec, objects = self.spec, (labels < self.num_classes).nonzero()[:, 0]
        truth = torch.zeros_like(logits)
        truth[objects, labels[objects]] = 1
        settings = {"alpha": spec.focal_alpha, "gamma": spec.focal_gamma}
        loss: Tensor = sigmoid_focal_loss(logits, truth, **settings, reduction="sum")
        return loss

    def count_objects(self, count: int) -> Tensor:
        """What losses are divided by: anchors with an object in this batch, of detectron2 a running mean.

        A batch may have very few of them.
        """
        if self.spec.preset == "torchvision":
            return self.dense.normaliser.new_tensor(float(max(count, 1)))
        new = MOMENTUM * self.dense.normaliser + (1 - MOMENTUM) * max(count, 1)
        if self.training:
            self.dense.normaliser.copy_(new)
        return new


def suppress(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    candidates: Tensor,
    iou: float,
    canvas: tuple[int, int],
    num_classes: int,
) -> Tensor:
    """Non-maximum suppression within each image and class: (N, M, 4), (N, M) each -> (N, M) bool.

    Boxes lie within the canvas. Images are done one by one, so that none depends on the others' rounding; a file is
    exported for any number of them, and does them at once.
    """
    columns = math.isqrt(num_classes - 1) + 1  # classes are laid out side by side, in a square
    rows = -(-num_classes // columns)

    def at_once(boxes: Tensor, scores: Tensor, labels: Tensor, candidates: Tensor) -> Tensor:
        image = torch.arange(boxes.shape[0], device=boxes.device)[:, None]
        x, y = labels % columns * (canvas[1] + 1), (labels // columns + image * rows) * (canvas[0] + 1)
        moved = (boxes + torch.stack([x, y, x, y], dim=-1).to(boxes.dtype)).flatten(0, 1)
        places = candidates.flatten().nonzero()[:, 0]
        left = nms(moved[places].float(), scores.flatten()[places].float(), iou)
        return torch.zeros_like(candidates.flatten()).index_fill(0, places[left], True).reshape(candidates.shape)

    if torch.compiler.is_exporting():
        return at_once(boxes, scores, labels, candidates)
    parts = zip(*(part.split(1) for part in (boxes, scores, labels, candidates)), strict=True)
    return torch.cat([at_once(*image) for image in parts])


# --- names in other code ---

MOST_CONVS = 16  # of a branch
NOTHING = -20.0  # logit of torchvision's background, which would be found otherwise


def rules_of_levels(layout: str) -> Rules:
    if layout == "detectron2":
        lateral, output, top = "backbone.fpn_lateral{i+3}", "backbone.fpn_output{i+3}", "backbone.top_block"
        norms = f"{lateral}.norm", f"{output}.norm"
    else:
        lateral, output = "backbone.fpn.inner_blocks.{i}.0", "backbone.fpn.layer_blocks.{i}.0"
        norms, top = (lateral[:-1] + "1", output[:-1] + "1"), "backbone.fpn.extra_blocks"
    return [
        *conv_norm("fpn.lateral.{i}", lateral, norms[0]),
        *conv_norm("fpn.output.{i}", output, norms[1]),
        *((f"fpn.{level}.{{leaf}}", f"{top}.{level}.{{leaf}}") for level in ("p6", "p7")),
    ]


def rules_of_branch(ours: str, theirs: str, state: State) -> Rules:
    """The convolutions of a branch, in a list in which norms, if there are any, and ReLUs have a number too."""
    normed = f"{ours}.0.norm.weight" in state or f"{theirs}.1.weight" in state
    step = 3 if normed else 2
    return [
        rule
        for number in range(MOST_CONVS)
        for rule in conv_norm(f"{ours}.{number}", f"{theirs}.{step * number}", f"{theirs}.{step * number + 1}")
    ]


def class_rows(state: State, classes: Sequence[Hashable]) -> dict[str, Sequence[Hashable]]:
    """What the rows of the class predictor stand for: a class at the first anchor, then (class, anchor)."""
    anchors = len(state["dense.deltas.bias"]) // 4
    rows = [(what, anchor) if anchor else what for anchor in range(anchors) for what in classes]
    return {f"dense.score.{leaf}": rows for leaf in ("weight", "bias")}


def without_background(name: str, tensor: Tensor, anchors: int) -> Tensor:
    """A class predictor of torchvision, whose first class is the background."""
    return tensor.unflatten(0, (anchors, -1))[:, 1:].flatten(0, 1) if name.startswith("dense.score.") else tensor


def with_background(name: str, tensor: Tensor, anchors: int) -> Tensor:
    if not name.startswith("dense.score."):
        return tensor
    rows = tensor.unflatten(0, (anchors, -1))
    filling = NOTHING if name.endswith(".bias") else 0.0
    return torch.cat([torch.full_like(rows[:, :1], filling), rows], dim=1).flatten(0, 1)

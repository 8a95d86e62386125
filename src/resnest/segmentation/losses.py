"""Losses of a segmenter, and their weighted sum; pixels with the label 255 count in none of them.

    loss = PixelLosses(LossSettings(loss={"cross_entropy": 1, "dice": 1}))
    loss(logits, targets)                  # (N, K, h, w), (N, H, W) uint8 -> scalar
    loss = PixelLosses(LossSettings(loss={"bce": 1}), multi_label=True)
    loss(logits, targets)                  # (N, K, h, w), (N, K, H, W) uint8: 0 no, 1 yes -> scalar

With p the probabilities (softmax; multi-label: sigmoid) and y the truth:

- cross_entropy, bce: mean over the pixels (bce: and classes) that count. Label smoothing s spreads the share s of the
  truth evenly: over K classes, or over yes and no.
- focal: the same times (1 - probability of the truth) ** gamma (arXiv 1708.02002). Of classes that exclude each other
  by softmax, as they are predicted; some packages ask every class by itself.
- dice, jaccard, tversky: 1 - TP / (TP + a FP + b FN), with a = b = 1/2, a = b = 1, and `tversky` (arXiv 1706.05721),
  where TP = sum p y, FP = sum p (1 - y), FN = sum (1 - p) y are over the batch or each image. A class without a true
  pixel there adds 0, and is counted in the mean over classes.
- lovasz: Lovasz-softmax, mean over the classes with a true pixel; multi-label: the Lovasz hinge, mean over all
  classes (arXiv 1705.08790, and the authors' code).

Class weights: each pixel of cross_entropy and focal has that of its true class, and all means are weighted ones. A
batch is a process's micro-batch. All is computed in float32; in half precision sums over pixels would overflow.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnest.errors import ResnestError
from resnest.segmentation.card import IGNORED
from resnest.segmentation.heads.common import resize
from resnest.segmentation.loss_settings import LossSettings

PIXEL_LOSSES = ("cross_entropy", "bce", "focal")  # sums over pixels
RATIOS = {"dice": (0.5, 0.5), "jaccard": (1.0, 1.0), "tversky": None}  # weights of FP and FN
LEAST = 1e-7  # of a denominator
CERTAIN = 1e-12  # focal: where the derivative of a power below 1 would be infinite


class PixelLosses(nn.Module):
    """The weighted sum of the losses of a batch; see above. Zero, with zero gradient, if no pixel counts.

    Args:
        class_weights: (K,).
    """

    def __init__(
        self, settings: LossSettings, *, multi_label: bool = False, class_weights: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.settings, self.multi_label = settings, multi_label
        self.class_weights = None if class_weights is None else tuple(class_weights)
        self.losses = settings.losses(multi_label=multi_label)
        by_pixel = [name for name in PIXEL_LOSSES if name in self.losses]
        overlaps = any(name in self.losses for name in RATIOS)
        self.sums = ImageSums(by_pixel, overlaps, settings, multi_label, self.class_weights)
        self.lovasz = Lovasz(multi_label, self.class_weights) if "lovasz" in self.losses else None

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        self._check(logits, targets)
        found: dict[str, Tensor] = {}
        by_pixel, overlaps = self.sums.by_pixel, self.sums.overlaps
        if by_pixel or overlaps:
            pairs = zip(logits, targets, strict=True)
            sums = torch.stack([self.sums(scores[None], target[None]) for scores, target in pairs])
            for column, name in enumerate(by_pixel):
                found[name] = _mean(sums[:, column].sum(), self._weight(targets, logits))
            if overlaps:
                table = sums[:, len(by_pixel) :].unflatten(1, (3, -1))  # (N, 3, K)
                table = table.sum(0, keepdim=True) if self.settings.loss_over == "batch" else table
                for name in (name for name in RATIOS if name in self.losses):
                    found[name] = self._ratio(table, *(RATIOS[name] or self.settings.tversky))
        if self.lovasz is not None:
            parts = [logits], [targets]
            if self.settings.loss_over == "image":
                parts = list(logits.split(1)), list(targets.split(1))
            found["lovasz"] = torch.stack([self.lovasz(*part) for part in zip(*parts, strict=True)]).mean()
        return torch.stack([weight * found[name] for name, weight in self.losses.items()]).sum()

    def _check(self, logits: Tensor, targets: Tensor) -> None:
        """Raises ResnestError for targets of another kind, which would be broadcast to wrong numbers."""
        expected = (*logits.shape[: 2 if self.multi_label else 1], *targets.shape[-2:])
        if tuple(targets.shape) != expected:
            kind = "(N, K, H, W) of a multi-label segmenter" if self.multi_label else "(N, H, W)"
            raise ResnestError(
                f"targets of shape {tuple(targets.shape)} for logits of {tuple(logits.shape)}: expected {kind}, here"
                f" {expected}"
            )

    def _weight(self, targets: Tensor, like: Tensor) -> Tensor:
        """The sum of the weights of all that counts."""
        known = targets != IGNORED
        if self.class_weights is None:
            return known.sum()
        weights = like.new_tensor(self.class_weights, dtype=torch.float32)
        if self.multi_label:
            return (known.sum((0, 2, 3)) * weights).sum()
        return F.pad(weights, (0, IGNORED + 1 - len(weights)))[targets.long()].sum()

    def _ratio(self, sums: Tensor, false_positives: float, false_negatives: float) -> Tensor:
        """Of (G, 3, K): true positives, predicted, true; mean over classes and groups."""
        right, predicted, true = sums.unbind(1)  # (G, K)
        total = right + false_positives * (predicted - right) + false_negatives * (true - right)
        losses = (1 - right / total.clamp(min=LEAST)) * (true > 0)
        return _weighted(losses, self.class_weights).mean()


class ImageSums(nn.Module):
    """Sums over the pixels of one image: (1, K, h, w), (1, H, W) or (1, K, H, W) -> those of pixel losses, then 3 K.

    One image at a time, since logits of full size are the largest maps of a training step: to compute them again
    (network/recompute.py) takes the room of one image's.
    """

    checkpointable = True

    def __init__(
        self,
        by_pixel: Sequence[str],
        overlaps: bool,
        settings: LossSettings,
        multi_label: bool,
        class_weights: Sequence[float] | None,
    ) -> None:
        super().__init__()
        self.by_pixel, self.overlaps, self.multi_label = tuple(by_pixel), overlaps, multi_label
        self.smoothing, self.gamma, self.class_weights = settings.label_smoothing, settings.focal_gamma, class_weights

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        large = enlarge(logits, target)
        sums = [self._pixels(name, large, target)[None] for name in self.by_pixel]
        if self.overlaps:
            sums += overlaps(large, target, multi_label=self.multi_label)
        return torch.cat(sums)

    def _pixels(self, name: str, logits: Tensor, target: Tensor) -> Tensor:
        weights = None if self.class_weights is None else logits.new_tensor(self.class_weights)
        if name == "cross_entropy":
            return F.cross_entropy(
                logits, target.long(), weights, ignore_index=IGNORED, reduction="sum", label_smoothing=self.smoothing
            )
        if self.multi_label:
            truth = (target == 1).float()
            truth = truth * (1 - self.smoothing) + self.smoothing / 2 if name == "bce" else truth
            losses = F.binary_cross_entropy_with_logits(logits, truth, reduction="none") * (target != IGNORED)
        else:
            losses = F.cross_entropy(logits, target.long(), ignore_index=IGNORED, reduction="none")
        if name == "focal":
            losses = losses * (-torch.expm1(-losses)).clamp(min=CERTAIN) ** self.gamma
        if weights is None:
            return losses.sum()
        if self.multi_label:
            return (losses.sum((0, 2, 3)) * weights).sum()
        return (losses * F.pad(weights, (0, IGNORED + 1 - len(weights)))[target.long()]).sum()


class Lovasz(nn.Module):
    """Lovasz-softmax or hinge of some images: (N, K, h, w), (N, H, W) or (N, K, H, W) -> scalar.

    Pixels that do not count have no error, and come last where errors are in order: they change nothing.
    """

    checkpointable = True

    def __init__(self, multi_label: bool, class_weights: Sequence[float] | None) -> None:
        super().__init__()
        self.multi_label, self.class_weights = multi_label, class_weights

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        large = enlarge(logits, targets)
        truth, known = truth_of(targets, large.shape[1], multi_label=self.multi_label)
        if self.multi_label:
            errors = 1 - large * torch.where(truth, 1.0, -1.0)
        else:
            errors = (large.softmax(1) - truth.float()).abs()
        errors = torch.where(known, errors, 0).relu()
        ranked, order = errors.transpose(0, 1).flatten(1).sort(1, descending=True)  # (K, pixels)
        ranked_truth = truth.transpose(0, 1).flatten(1).gather(1, order)
        losses = (ranked * _jaccard_steps(ranked_truth)).sum(1)  # (K,)
        if self.multi_label:
            return _weighted(losses[None], self.class_weights)[0]
        present = ranked_truth.any(1).float()
        weights = present if self.class_weights is None else present * losses.new_tensor(self.class_weights)
        return _mean((losses * weights).sum(), weights.sum())


def _jaccard_steps(truth: Tensor) -> Tensor:
    """Growth of the Jaccard loss from each pixel's error, the largest first: (K, P) bool -> (K, P).

    Algorithm 1 of arXiv 1705.08790. Counts are integers, which float32 would round above 16 million.
    """
    found = truth.cumsum(1, dtype=torch.int32)
    strangers = (~truth).cumsum(1, dtype=torch.int32)
    all_true = found[:, -1:]
    losses = 1 - (all_true - found).float() / (all_true + strangers).float()
    return torch.cat([losses[:, :1], losses[:, 1:] - losses[:, :-1]], 1)


def overlaps(logits: Tensor, target: Tensor, *, multi_label: bool) -> tuple[Tensor, Tensor, Tensor]:
    """True positives, predicted and true, (K,) each: sums of probabilities over the pixels of (1, K, H, W)."""
    truth, known = truth_of(target, logits.shape[1], multi_label=multi_label)
    probabilities = (logits.sigmoid() if multi_label else logits.softmax(1)) * known
    sums = (probabilities * truth, probabilities, truth.float())
    right, predicted, true = (part.sum((0, 2, 3)) for part in sums)
    return right, predicted, true


def truth_of(targets: Tensor, num_classes: int, *, multi_label: bool) -> tuple[Tensor, Tensor]:
    """Whether each pixel is of each class, (N, K, H, W), and counts, (N, K or 1, H, W)."""
    if multi_label:
        return targets == 1, targets != IGNORED
    classes = torch.arange(num_classes, dtype=torch.uint8, device=targets.device)[:, None, None]
    return targets[:, None] == classes, (targets != IGNORED)[:, None]


def enlarge(logits: Tensor, targets: Tensor) -> Tensor:
    """Logits of the targets' size, in float32, as they are predicted."""
    size = targets.shape[-2:]
    return (logits if logits.shape[2:] == size else resize(logits, size)).float()


def _mean(total: Tensor, weight: Tensor) -> Tensor:
    """The total by its weight; 0 of nothing."""
    return total / torch.where(weight > 0, weight, 1) * (weight > 0)


def _weighted(values: Tensor, weights: Sequence[float] | None) -> Tensor:
    """Mean over the classes: (G, K) -> (G,)."""
    if weights is None:
        return values.mean(1)
    of = values.new_tensor(weights)
    return (values * of).sum(1) / of.sum()

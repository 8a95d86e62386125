"""Losses of a classifier, also for mixup and CutMix: every image has its own label and its partner's.

loss = cross_entropy(logits, labels, share=0.7, smoothing=0.1)
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from resnest.classification.mixing import mix_targets


def cross_entropy(logits: Tensor, labels: Tensor, *, share: float, smoothing: float) -> Tensor:
    """(N, classes), (N,) -> mean over the batch; for a share below 1, the partner's label has the remaining weight."""
    loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    if share < 1:
        other = F.cross_entropy(logits, labels.flip(0), label_smoothing=smoothing)
        loss = share * loss + (1 - share) * other
    return loss


def binary_cross_entropy(logits: Tensor, labels: Tensor, *, share: float, threshold: float) -> Tensor:
    """Binary cross-entropy: (N, classes), (N,) -> mean over batch and classes, as in timm.

    Both classes of a mixed image are a yes (arXiv 2110.00476, section 3), unless there is `threshold` or less of one.
    The mean over classes makes gradients as many times smaller as there are classes: AdamW does not mind, SGD would
    need a larger learning rate.
    """
    shares = mix_targets(F.one_hot(labels, logits.shape[1]), share)  # (N, classes)
    return F.binary_cross_entropy_with_logits(logits, (shares > threshold).to(logits.dtype))

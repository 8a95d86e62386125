"""Optimiser and learning rate of a recipe.

optimizers = build_optimizers(net, recipe.optim)
set_lr(optimizers, lr_at(step, recipe.optim, total=1000, per_epoch=100))
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from resnest.network.regularize import decay_groups
from resnest.recipes.schema import OptimSettings
from resnest.training.muon import Muon


def build_optimizers(net: nn.Module, settings: OptimSettings) -> list[torch.optim.Optimizer]:
    """Norms and biases are not decayed (paper, section 4.1). Muon takes convolutions, AdamW what is left."""
    groups = decay_groups(net, settings.weight_decay)
    if settings.name == "sgd":
        nesterov = settings.momentum > 0
        return [torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=nesterov)]
    if settings.name == "adamw":
        return [torch.optim.AdamW(groups, lr=settings.lr, betas=(settings.momentum, 0.99))]
    matrices = [{**group, "params": [p for p in group["params"] if p.ndim == 4]} for group in groups]
    others = [{**group, "params": [p for p in group["params"] if p.ndim != 4]} for group in groups]
    return [
        Muon(matrices[:1], lr=settings.lr, momentum=settings.momentum),  # the exempt group has no convolution
        torch.optim.AdamW(others, lr=settings.lr, betas=(0.9, 0.99)),
    ]


def lr_at(step: int, settings: OptimSettings, *, total: int, per_epoch: int, batch: int = 0) -> float:
    """Linear warm-up from zero, then a cosine to zero; both by step, warm-up within the total (facts, section 2.1).

    `batch` is the number of images in a step, which matters to a recipe with `lr_batch`.
    """
    top = settings.lr_for(batch)
    warmup = min(settings.warmup_epochs * per_epoch, total / 2)
    if step < warmup:
        return top * (step + 1) / (warmup + 1)
    return top * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))


def set_lr(optimizers: Sequence[torch.optim.Optimizer], lr: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr

"""Optimiser and learning rate of a recipe.

optimizer = build_optimizer(net, recipe.optim)
set_lr(optimizer, lr_at(step, recipe.optim, total=1000, per_epoch=100))
"""

from __future__ import annotations

import math

import torch
from torch import nn

from resnest.network.regularize import decay_groups
from resnest.recipes.schema import OptimSettings


def build_optimizer(net: nn.Module, settings: OptimSettings) -> torch.optim.Optimizer:
    """Norms and biases are not decayed (paper, section 4.1)."""
    groups = decay_groups(net, settings.weight_decay)
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, lr=settings.lr, betas=(settings.momentum, 0.99))
    return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=settings.momentum > 0)


def lr_at(step: int, settings: OptimSettings, *, total: int, per_epoch: int) -> float:
    """Linear warm-up from zero, then a cosine to zero; both by step, warm-up within the total (facts, section 2.1)."""
    warmup = min(settings.warmup_epochs * per_epoch, total / 2)
    if step < warmup:
        return settings.lr * (step + 1) / (warmup + 1)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr

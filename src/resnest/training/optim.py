"""Optimiser and learning rate of a recipe.

optimizers = build_optimizers(net, recipe.optim)
set_lr(optimizers, lr_at(step, recipe.optim, total=1000, per_epoch=100))
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn

from resnest.network.regularize import decay_groups
from resnest.network.resnest import ResNeSt
from resnest.network.tools import parameter_stages
from resnest.recipes.schema import OptimSettings
from resnest.training.muon import Muon

DECAY = 0.1  # a step's factor (detectron2's SOLVER.GAMMA)


def build_optimizers(net: nn.Module, settings: OptimSettings) -> list[torch.optim.Optimizer]:
    """Norms and biases are not decayed (paper, section 4.1). Muon takes convolutions, AdamW what is left."""
    groups = parameter_groups(net, settings)
    if settings.name == "sgd":
        nesterov = settings.nesterov and settings.momentum > 0
        return [torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=nesterov)]
    if settings.name == "adamw":
        return [torch.optim.AdamW(groups, lr=settings.lr, betas=(settings.momentum, 0.99))]
    matrices = _only(groups, lambda parameter: parameter.ndim == 4)
    others = _only(groups, lambda parameter: parameter.ndim != 4)
    adamw = torch.optim.AdamW(others, lr=settings.lr, betas=(0.9, 0.99))
    # all convolutions may be frozen
    return [Muon(matrices, lr=settings.lr, momentum=settings.momentum), adamw] if matrices else [adamw]


def parameter_groups(net: nn.Module, settings: OptimSettings) -> list[dict[str, Any]]:
    """Groups by decay and, with layer-wise learning rates, by part: each keeps its `lr_factor`, also in checkpoints.

    Layer-wise decay (arXiv 1801.06146, section 3.2): what lies further from the classifier learns more slowly.
    """
    if settings.layer_decay == settings.head_factor == 1:
        return decay_groups(net, settings.weight_decay)
    groups: list[dict[str, Any]] = []
    *body, head = parameter_stages(cast(ResNeSt, net))  # perhaps wrapped, which looks the same
    for distance, part in enumerate((head, *reversed(body))):
        factor = settings.layer_decay**distance if distance else settings.head_factor
        groups += [{**group, "lr_factor": factor} for group in decay_groups(part, settings.weight_decay)]
    return _only(groups, lambda parameter: True)


def lr_at(step: int, settings: OptimSettings, *, total: int, per_epoch: int, batch: int = 0) -> float:
    """Linear warm-up, then down by a cosine (facts, section 2.1), a power, or tenths at some steps; all by step.

    Both follow `total`, of which the warm-up is at most half. `batch` is the number of images in a step, which matters
    to a recipe with `lr_batch`.
    """
    top = settings.lr_for(batch)
    warmup = settings.warmup_epochs * per_epoch if settings.warmup_steps is None else float(settings.warmup_steps)
    warmup = min(warmup, total / 2)
    factor = settings.warmup_factor
    if step < warmup:
        return top * (step + 1) / (warmup + 1) if factor is None else top * (factor + (1 - factor) * step / warmup)
    if settings.schedule == "steps":
        return top * DECAY ** sum(step >= share * total for share in settings.decay_at)
    if settings.schedule == "poly":
        return top * math.pow(max(0.0, (total - step) / max(total - warmup, 1)), settings.power)
    return top * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))


def set_lr(optimizers: Sequence[torch.optim.Optimizer], lr: float) -> None:
    """Give every group the step's learning rate, times its own factor where it has one."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr * group.get("lr_factor", 1.0)


def _only(groups: list[dict[str, Any]], wanted: Any) -> list[dict[str, Any]]:
    """The groups with some of their parameters; empty ones go."""
    chosen = [{**group, "params": [p for p in group["params"] if wanted(p)]} for group in groups]
    return [group for group in chosen if group["params"]]

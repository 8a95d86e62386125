"""Optimisers and learning rate schedule of a recipe; Muon.

    optimizers = build_optimizers(net, recipe.optim)
    set_lr(optimizers, lr_at(step, recipe.optim, total=1000, per_epoch=100))

Muon is momentum whose update of each weight matrix is orthogonalised, so that all its directions learn equally fast:
Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; the scale that lets it share AdamW's
learning rate and decay: Liu et al., arXiv 2502.16982, section 2.2. For short training from scratch. torch's Muon is for
two-dimensional weights and computes in bfloat16, four times slower than this in float32 on a CPU without bfloat16.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from resnest.network.regularize import decay_groups
from resnest.network.tools import parameter_stages
from resnest.recipes.settings import OptimSettings

DECAY = 0.1  # a step's factor (detectron2's SOLVER.GAMMA)
# Newton-Schulz iteration of degree five: drives every singular value into about [0.7, 1.2] (Jordan et al.).
STEPS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ADAM_RMS = 0.2  # root mean square of AdamW's usual update (arXiv 2502.16982)


def build_optimizers(net: nn.Module, settings: OptimSettings) -> list[torch.optim.Optimizer]:
    """Norms and biases have no weight decay (paper, section 4.1). Muon takes convolutions, AdamW the rest."""
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
    """Groups by decay and, with layer-wise learning rates, by stage: each has its `lr_factor`, also in checkpoints.

    Layer-wise decay (arXiv 1801.06146, section 3.2): stages further from the classifier have lower learning rates.
    """
    if settings.layer_decay == settings.head_factor == 1:
        return decay_groups(net, settings.weight_decay)
    groups: list[dict[str, Any]] = []
    *body, head = parameter_stages(net)
    for distance, part in enumerate((head, *reversed(body))):
        factor = settings.layer_decay**distance if distance else settings.head_factor
        groups += [{**group, "lr_factor": factor} for group in decay_groups(part, settings.weight_decay)]
    return _only(groups, lambda parameter: True)


def lr_at(step: int, settings: OptimSettings, *, total: int, per_epoch: int, batch: int = 0) -> float:
    """Linear warm-up, then cosine (facts, section 2.1), polynomial or step decay; all by step.

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
    """Set every group to the step's learning rate, times its own factor if it has one."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr * group.get("lr_factor", 1.0)


def _only(groups: list[dict[str, Any]], wanted: Any) -> list[dict[str, Any]]:
    """The groups, with only some of their parameters, without empty ones."""
    chosen = [{**group, "params": [p for p in group["params"] if wanted(p)]} for group in groups]
    return [group for group in chosen if group["params"]]


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised; for convolution weights: (out, in, height, width)."""

    def __init__(
        self, params: Iterable[dict[str, Any]], *, lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, weight.grad, group)
        return loss

    def _update(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        buffer = state["momentum_buffer"].mul_(group["momentum"]).add_(gradient)
        direction = gradient.add(buffer, alpha=group["momentum"])  # Nesterov
        matrix = direction.flatten(1)  # (out, in * height * width)
        scale = ADAM_RMS * max(matrix.shape) ** 0.5
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(orthogonalise(matrix).view_as(direction), alpha=-group["lr"] * scale)


def orthogonalise(matrix: Tensor) -> Tensor:
    """Approximately the nearest matrix with all singular values 1: U V^T of U S V^T. Shape: (rows, columns)."""
    a, b, c = COEFFICIENTS
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x: Tensor = wide / (wide.norm() + 1e-7)
    for _ in range(STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T

"""Muon: momentum whose update of each weight matrix is orthogonalised, so that all its directions learn equally fast.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; the scale that lets it share AdamW's
learning rate and decay: Liu et al., arXiv 2502.16982, section 2.2. For short training from scratch.

    optimizer = Muon([{"params": convolution_weights, "weight_decay": 0.05}], lr=4e-3)

torch has one for two-dimensional weights that works in bfloat16, which a CPU without such instructions runs four
times slower than this in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

# Newton-Schulz iteration of degree five: drives every singular value into about [0.7, 1.2] (Jordan et al.).
STEPS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ADAM_RMS = 0.2  # root mean square of AdamW's usual update (arXiv 2502.16982)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised; for weights of convolutions: (out, in, height, width)."""

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
    """The nearest matrix, about, with all singular values equal to 1: U V^T of U S V^T. Shape: (rows, columns)."""
    a, b, c = COEFFICIENTS
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x: Tensor = wide / (wide.norm() + 1e-7)
    for _ in range(STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T

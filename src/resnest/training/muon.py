"""Muon: momentum whose update of each weight matrix is orthogonalised, so that all its directions learn equally fast.

    Muon([{"params": convolutions}], lr=2e-3).step()

Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; the scale that lets it share AdamW's
learning rate and decay: Liu et al., arXiv 2502.16982, section 2.2. For short training from scratch. torch's Muon is for
two-dimensional weights and computes in bfloat16, four times slower than this in float32 on a CPU without bfloat16.
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
WIDE = 1.5  # columns by rows from which the iteration on the Gram matrix takes fewer multiplications


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
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T  # (m, n), m <= n
    x: Tensor = wide / (wide.norm() + 1e-7)
    x = on_gram(x) if x.shape[1] > WIDE * x.shape[0] else on_matrix(x)
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


def on_matrix(x: Tensor) -> Tensor:
    """Newton-Schulz iteration of a matrix with norm 1: (m, n) -> (m, n), m <= n."""
    a, b, c = COEFFICIENTS
    for _ in range(STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def on_gram(x: Tensor) -> Tensor:
    """The same on (m, m) matrices: a step multiplies x by Z = a + b G + c G^2, and so its Gram matrix G by Z twice."""
    a, b, c = COEFFICIENTS
    gram = x @ x.T
    product = torch.eye(len(x), dtype=x.dtype, device=x.device)
    for _ in range(STEPS):
        z = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        z.diagonal().add_(a)
        product, gram = z @ product, z @ gram @ z
    return product @ x

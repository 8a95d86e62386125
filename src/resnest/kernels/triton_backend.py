"""The Triton backend: the functions of reference.py, under the same names."""

from __future__ import annotations

from resnest.kernels.forward import moments, pool_splits, split_convolution, weigh_splits
from resnest.kernels.gradients import gradient_sums, input_gradient
from resnest.kernels.layers import attention_logits, first_layer, second_layer

__all__ = [
    "attention_logits",
    "first_layer",
    "gradient_sums",
    "input_gradient",
    "moments",
    "pool_splits",
    "second_layer",
    "split_convolution",
    "weigh_splits",
]

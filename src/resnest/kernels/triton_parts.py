"""The parts of the fused operators by Triton: the functions of plain.py, under the same names."""

from __future__ import annotations

from resnest.kernels.convolution import split_convolution
from resnest.kernels.gradients import gradient_sums, input_gradient
from resnest.kernels.layers import attention_logits, first_layer, second_layer
from resnest.kernels.moments import moments
from resnest.kernels.pool import pool_splits
from resnest.kernels.weigh import weigh_splits

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

"""The fused operators registered with torch: `torch.ops.resnest.*`, with fake tensors and gradients.

    Outcome(*split_attention(*Block(...))).v     # the block after its 3x3 convolution (block.py), with gradients
    attend(y, shift, ...)                        # the same in evaluation with norms folded: three launches
    convolve_attend(x, ...)                      # and with the convolution

Differentiable once. Which implementation runs is decided at each call (backend.py). Sums are taken in a fixed order:
results are the same from run to run, with `torch.use_deterministic_algorithms` and without. Autocast leaves the inputs
as they are: y comes in the type that the convolution gave it, parameters in theirs, and what is small is computed in
float32 (float64 for float64).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from resnest.kernels.backend import choice, chosen, using
from resnest.kernels.block import (
    LAYER,
    TYPES,
    Block,
    Outcome,
    Saved,
    backward,
    check,
    convolved_side,
    empty_v,
    forward,
    pixels,
    pooled_side,
)
from resnest.kernels.reference import accumulator, layout

SCHEMA = (
    "(Tensor y, Tensor gamma0, Tensor beta0, Tensor? mean0, Tensor? var0, Tensor weight1, Tensor bias1, Tensor gamma1,"
    " Tensor beta1, Tensor? mean1, Tensor? var1, Tensor weight2, Tensor bias2, int radix, int cardinality, int pool,"
    " int inner_norm, float eps0, float eps1) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)
NUMBERS = 6  # of the inputs are no tensors: the last ones


@torch.library.custom_op("resnest::split_attention", mutates_args=(), schema=SCHEMA)
def split_attention(*inputs: Any) -> tuple[Tensor, ...]:
    """`Outcome` for the fields of a `Block`.

    Raises:
        ResnestError: for shapes and types that it does not take.
    """
    block = Block(*inputs)
    check(block.y, block.radix)
    with _on(block.y.device):
        return tuple(forward(block, implementation(block.y.device)))


@split_attention.register_fake
def _(*inputs: Any) -> tuple[Tensor, ...]:
    block = Block(*inputs)
    y, inner = block.y, block.bias1.shape[0]
    check(y, block.radix)
    v, small = empty_v(y, block.radix, block.pool), y.new_empty((), dtype=accumulator(y.dtype))
    moments = y.shape[0] if block.inner_norm == LAYER else inner
    channels, logits = y.shape[1], (y.shape[0], y.shape[1])
    shapes = [(channels,), (channels,), (y.shape[0], channels // block.radix), (moments,), (moments,), logits]
    return v, *(small.new_empty(shape) for shape in shapes)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    block, outcome = Block(*inputs), Outcome(*output)
    fields = {**block._asdict(), **outcome._asdict()}  # the moments are those that were used
    ctx.save_for_backward(*(fields[name] for name in Saved._fields))
    ctx.numbers, ctx.batch_moments = inputs[-NUMBERS:], block.mean0 is None
    ctx.choice = choice()  # a GPU's backward pass runs in a thread of autograd
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, d_v: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    none = (None,) * (len(Block._fields) - NUMBERS)
    if d_v is None:
        return none + (None,) * NUMBERS
    how = Block(*none, *ctx.numbers)  # type: ignore[arg-type]
    with torch.autocast(d_v.device.type, enabled=False), using(ctx.choice):
        gradients = backward(
            d_v,
            Saved(*ctx.saved_tensors),
            how,
            batch_moments=ctx.batch_moments,
            gradient_sums=gradient_sums,
            input_gradient=input_gradient,
        )
    return gradients + (None,) * NUMBERS


split_attention.register_autograd(_backward, setup_context=_setup_context)


@torch.library.custom_op("resnest::gradient_sums", mutates_args=())
def gradient_sums(
    d_v: Tensor, y: Tensor, mean: Tensor, rstd: Tensor, scale: Tensor, shift: Tensor, radix: int, pool: int
) -> Tensor:
    """`reference.gradient_sums`, by the selected backend."""
    with _on(y.device):
        sums: Tensor = implementation(y.device).gradient_sums(d_v, y, mean, rstd, scale, shift, radix, pool)
    return sums


@gradient_sums.register_fake
def _(d_v: Tensor, y: Tensor, mean: Tensor, *_: Any) -> Tensor:
    return mean.new_empty((4, y.shape[0], y.shape[1]))


@torch.library.custom_op("resnest::input_gradient", mutates_args=())
def input_gradient(
    d_v: Tensor,
    y: Tensor,
    mean: Tensor,
    rstd: Tensor,
    scale: Tensor,
    shift: Tensor,
    a: Tensor,
    d_pooled: Tensor,
    corrections: Tensor,
    radix: int,
    pool: int,
) -> Tensor:
    """`reference.input_gradient`, by the selected backend."""
    tensors = d_v, y, mean, rstd, scale, shift, a, d_pooled, corrections
    with _on(y.device):
        d_y: Tensor = implementation(y.device).input_gradient(*tensors, radix, pool)
    return d_y


@input_gradient.register_fake
def _(d_v: Tensor, y: Tensor, *_: Any) -> Tensor:
    return torch.empty(y.shape, dtype=y.dtype, device=y.device, memory_format=layout(y))


@torch.library.custom_op("resnest::attend", mutates_args=())
def attend(
    y: Tensor,
    shift0: Tensor | None,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    radix: int,
    cardinality: int,
    pool: int,
) -> Tensor:
    """V in evaluation, with norms folded into convolutions; without gradients.

    Args:
        y: (N, R*C, H, W), the convolution's output without its bias.
        shift0: that bias, (R*C,); None: y has it.
        weight1, bias1, weight2, bias2, radix, cardinality, pool: as in `Block`, the norm folded into fc1.

    Raises:
        ResnestError: for shapes and types that it does not take.
    """
    check(y, radix)
    parts, layers = implementation(y.device), (weight1, bias1, weight2, bias2)
    with _on(y.device):
        sums = parts.pool_splits(y, None, shift0, radix)
        return _weighed(parts, y, shift0, sums, layers, radix, cardinality, pool)


@attend.register_fake
def _(y: Tensor, *inputs: Any) -> Tensor:
    *_, radix, _, pool = inputs
    check(y, radix)
    return empty_v(y, radix, pool)


@torch.library.custom_op("resnest::convolve_attend", mutates_args=())
def convolve_attend(
    x: Tensor,
    weight0: Tensor,
    bias0: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    radix: int,
    cardinality: int,
    stride: int,
    dilation: int,
    pool: int,
) -> Tensor:
    """`attend` with the 3x3 convolution before it, whose epilogue gives the sums over pixels: three launches in all.

    Args:
        x: (N, C, H, W), best in channels_last, in which V is.
        weight0: of the convolution, norm folded, as `reference.packed` lays it: (R*K*9, C/(R*K), C/K).
        bias0: (R*C,).
        stride, dilation: of the convolution; it pads by its dilation.
    """
    check(x, 1)
    parts, layers = implementation(x.device), (weight1, bias1, weight2, bias2)
    with _on(x.device):
        u, sums = parts.split_convolution(x, weight0, bias0, radix, radix * cardinality, stride, dilation)
        return _weighed(parts, u, None, sums, layers, radix, cardinality, pool)


@convolve_attend.register_fake
def _(x: Tensor, *inputs: Any) -> Tensor:
    *_, stride, _, pool = inputs
    check(x, 1)
    height, width = (pooled_side(convolved_side(side, stride), pool) for side in x.shape[2:])
    shape = x.shape[0], x.shape[1], height, width
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def _weighed(
    parts: Any,
    y: Tensor,
    shift0: Tensor | None,
    sums: Tensor,
    layers: tuple[Tensor, Tensor, Tensor, Tensor],
    radix: int,
    cardinality: int,
    pool: int,
) -> Tensor:
    """V from y and its sums over pixels; the attention's layers are given by weight and bias."""
    weight1, bias1, weight2, bias2 = layers
    logits = parts.attention_logits(sums, pixels(y), weight1, None, bias1, weight2, bias2, cardinality)
    v: Tensor = parts.weigh_splits(y, None, shift0, logits, radix, cardinality, pool)
    return v


def takes(x: Tensor) -> bool:
    """Whether kernels run on a tensor: not for other types, nor in an exported graph, which must run anywhere."""
    if torch.compiler.is_exporting() or torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
        return False
    return x.dtype in TYPES and chosen(x.device) == "triton"


def implementation(device: torch.device) -> Any:
    """The backend module for a device: reference.py, or triton_backend.py with the same functions."""
    if chosen(device) == "torch":
        from resnest.kernels import reference

        return reference
    from resnest.kernels import triton_backend

    return triton_backend


@contextmanager
def _on(device: torch.device) -> Iterator[None]:
    """Launch on this GPU, which need not be the current one, and without autocast."""
    with torch.autocast(device.type, enabled=False):
        if device.type == "cuda":
            with torch.cuda.device(device):
                yield
        else:
            yield

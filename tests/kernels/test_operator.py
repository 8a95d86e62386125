"""The operator with gradients against the network's own code, and under torch's tools."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import FULL
from kernels.blocks import apart, as_the_network_does, attention_block, maps, operands, parameters
from resnest.errors import ResnestError
from resnest.kernels.backend import using
from resnest.kernels.block import Outcome

operators = pytest.importorskip("resnest.kernels.operators", reason="triton is not installed")

RADIX_AND_CARDINALITY = list(itertools.product((1, 2, 3, 4), (1, 2, 4)))


def outcome(*given: Any) -> Outcome:
    return Outcome(*operators.split_attention(*given))


def gradients(v: Tensor, d_v: Tensor, of: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(v, of, d_v))


def check_block(norm: str, training: bool, radix: int, cardinality: int, pool: int, layout: str, device: Any) -> None:
    """V, statistics and every gradient, in float64."""
    to = {"dtype": torch.float64, "device": device}
    channels = 2 * radix * cardinality
    block = attention_block(channels, radix=radix, cardinality=cardinality, norm=norm, training=training, **to)
    y = maps(2, channels * radix, 5, 3, layout=layout, **to).requires_grad_()
    expected, own = as_the_network_does(block, y, pool)
    got = outcome(*operands(block, y, pool))
    torch.testing.assert_close(got.v, expected, rtol=1e-9, atol=1e-12)
    if training and norm == "batch":
        kept = 1 - 0.1  # momentum
        was, now = block.bn0.running_mean, own.bn0.running_mean
        assert was is not None
        assert now is not None
        torch.testing.assert_close(got.mean0, (now - was * kept) / 0.1, rtol=1e-9, atol=1e-12)
    d_v = torch.randn_like(expected)
    ours, theirs = (gradients(v, d_v, [y, *parameters(of)]) for v, of in ((got.v, block), (expected, own)))
    for mine, wanted in zip(ours, theirs, strict=True):
        # against the largest: a bias before a batch-norm has a gradient of 0, of which rounding is left
        torch.testing.assert_close(mine, wanted, rtol=1e-9, atol=1e-9 * max(1, float(wanted.abs().max())))


@pytest.mark.parametrize(("radix", "cardinality"), RADIX_AND_CARDINALITY)
def test_every_radix_and_cardinality(radix: int, cardinality: int, device: torch.device) -> None:
    pool, layout = (0, 1, 2)[(radix + cardinality) % 3], ("nchw", "channels_last")[radix % 2]
    check_block("batch", True, radix, cardinality, pool, layout, device)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("norm", ["batch", "frozen", "layer"])
def test_every_norm(norm: str, training: bool, device: torch.device) -> None:
    check_block(norm, training, 2, 2, 2, "channels_last", device)


@pytest.mark.parametrize(("radix", "cardinality", "pool"), [(1, 1, 0), (2, 1, 2), (2, 2, 1)] if FULL else [(2, 1, 2)])
def test_gradients_by_differences(radix: int, cardinality: int, pool: int, device: torch.device) -> None:
    to = {"dtype": torch.float64, "device": device}
    block = attention_block(4, radix=radix, cardinality=cardinality, **to)
    y = maps(2, 4 * radix, 3, 3, **to)
    inputs = [tensor.detach().clone().requires_grad_() for tensor in (y, *parameters(block))]
    assert torch.autograd.gradcheck(
        lambda y, *given: outcome(*operands(block, y, pool, list(given))).v, inputs, fast_mode=True
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_short_types_are_no_less_exact_than_eager(dtype: torch.dtype, device: torch.device) -> None:
    """Relative errors against float64 of V and the gradients, beside those of the network's own code under autocast."""
    block = attention_block(16, radix=2, cardinality=1, device=device)
    exact = attention_block(16, radix=2, cardinality=1, device=device, dtype=torch.float64)
    exact.load_state_dict(block.state_dict())
    y = maps(4, 32, 9, 9, device=device, dtype=dtype).requires_grad_()
    long = y.detach().double().requires_grad_()
    reference, own64 = as_the_network_does(exact, long, 2)
    d_v = torch.randn_like(reference).to(dtype)
    wanted = [reference, *gradients(reference, d_v.double(), [long, *parameters(own64)])]
    with torch.autocast(device.type, dtype):
        theirs, own = as_the_network_does(block, y, 2)
        eager = [theirs, *gradients(theirs, d_v.to(theirs.dtype), [y, *parameters(own)])]
        got = outcome(*operands(block, y, 2)).v
        fused = [got, *gradients(got, d_v, [y, *parameters(block)])]
    assert got.dtype == dtype
    for index, (mine, other, right) in enumerate(zip(fused, eager, wanted, strict=True)):
        if float(right.detach().abs().max()) > 1e-9:  # not fc1's bias
            assert apart(mine, right) <= 1.05 * apart(other, right) + 1e-6, f"gradient {index}"


def test_autocast_does_not_reach_inside(device: torch.device) -> None:
    block = attention_block(8, radix=2, cardinality=1, device=device)
    y = maps(2, 16, 5, 5, device=device, dtype=torch.bfloat16)
    outside = outcome(*operands(block, y, 0))
    with torch.autocast(device.type, torch.bfloat16):
        inside = outcome(*operands(block, y, 0))
    for a, b in zip(outside, inside, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of copies that torch makes
@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_torch_knows_the_operators(backend: str, device: torch.device) -> None:
    """Schema, gradients, fake tensors and tracing with dynamic shapes, by torch's own checks."""
    block = attention_block(8, radix=2, cardinality=2, device=device)
    y = maps(2, 16, 5, 4, device=device).requires_grad_()
    layers = block.fc1.weight, block.fc1.bias, block.fc2.weight, block.fc2.bias
    weight, bias = torch.randn(4 * 9, 2, 4, device=device), torch.randn(16, device=device)
    with using(backend):
        torch.library.opcheck(operators.split_attention, tuple(operands(block, y, 2)))
        with torch.no_grad():
            detached = [each.detach() for each in (y, bias, *layers)]  # type: ignore[union-attr]
            torch.library.opcheck(operators.attend, (*detached, 2, 2, 2))
            x = maps(2, 8, 5, 4, device=device)
            given = (x, weight, *detached[1:], 2, 2, 1, 1, 2)
            torch.library.opcheck(operators.convolve_attend, given)


def test_the_two_implementations_of_one_operator_agree(device: torch.device) -> None:
    block = attention_block(8, radix=2, cardinality=2, device=device)
    x, y = maps(2, 8, 6, 5, device=device), maps(2, 16, 6, 5, device=device)
    weight, bias = torch.randn(4 * 9, 2, 4, device=device), torch.randn(16, device=device)
    layers = block.fc1.weight, block.fc1.bias, block.fc2.weight, block.fc2.bias
    for operator, given in (
        (operators.attend, (y, bias, *layers, 2, 2, 2)),
        (operators.attend, (y, None, *layers, 2, 2, 0)),
        (operators.convolve_attend, (x, weight, bias, *layers, 2, 2, 1, 1, 2)),
        (operators.convolve_attend, (x, weight, bias, *layers, 2, 2, 2, 2, 0)),
    ):
        with torch.no_grad():
            by_triton = operator(*given)
            with using("torch"):
                by_torch = operator(*given)
        assert by_triton.stride() == by_torch.stride()
        assert apart(by_triton, by_torch) < 2e-3 if device.type == "cuda" else 1e-5


@pytest.mark.parametrize(
    ("shape", "dtype", "says"),
    [
        ((0, 8, 4, 4), torch.float32, r"got \(0, 8, 4, 4\): nothing has no mean. Leave empty batches out"),
        ((2, 8, 0, 4), torch.float32, "nothing has no mean"),
        ((2, 7, 4, 4), torch.float32, r"got \(2, 7, 4, 4\): it takes \(N, 2 \* C, H, W\)"),
        ((2, 8, 4), torch.float32, "it takes"),
        ((2, 8, 4, 4), torch.int32, r"got torch.int32: it takes torch.float16"),
    ],
)
def test_what_is_refused(shape: tuple[int, ...], dtype: torch.dtype, says: str, device: torch.device) -> None:
    block = attention_block(4, radix=2, cardinality=1, device=device)
    y = torch.zeros(shape, dtype=dtype, device=device)
    with pytest.raises(ResnestError, match=says):
        outcome(*operands(block, y, 0))


@pytest.mark.parametrize("view", ["every other row", "transposed", "expanded", "a slice of channels"])
def test_inputs_that_are_not_dense(view: str, device: torch.device) -> None:
    block = attention_block(4, radix=2, cardinality=1, device=device)
    y = {
        "every other row": maps(2, 8, 10, 6, layout="nchw", device=device)[:, :, ::2],
        "transposed": maps(2, 8, 6, 5, device=device).transpose(2, 3),
        "expanded": maps(1, 8, 5, 6, device=device).expand(3, -1, -1, -1),
        "a slice of channels": maps(2, 12, 5, 6, device=device)[:, 2:10],
    }[view]
    own = y.detach().clone().contiguous().requires_grad_()
    got, expected = (outcome(*operands(block, each, 2)).v for each in (y.detach().requires_grad_(), own))
    assert apart(got, expected) < 1e-6
    d_v = torch.randn_like(expected)[:, :, :, ::2].repeat_interleave(2, 3)[:, :, :, : expected.shape[3]]
    (wanted,) = gradients(expected, d_v, [own])
    given = y.detach().requires_grad_()
    v = outcome(*operands(block, given, 2)).v
    for gradient in (d_v, d_v.contiguous(memory_format=torch.channels_last)):  # of any layout
        (mine,) = torch.autograd.grad(v, [given], gradient, retain_graph=True)
        assert apart(mine, wanted) < 1e-6


def test_one_image_in_evaluation(device: torch.device) -> None:
    block = attention_block(8, radix=2, cardinality=1, training=False, device=device)
    y = maps(1, 16, 3, 3, device=device)
    assert apart(outcome(*operands(block, y, 0)).v, as_the_network_does(block, y, 0)[0]) < 1e-6


def test_the_same_bits_every_time(device: torch.device) -> None:
    """With the flag that asks for it, and without: no sum depends on who comes first."""
    block = attention_block(8, radix=2, cardinality=1, device=device)
    y = maps(2, 16, 12, 12, device=device).requires_grad_()
    results = []
    for flag in (True, True, False):
        torch.use_deterministic_algorithms(flag)
        try:
            v = outcome(*operands(block, y, 2)).v
            results.append([v, *gradients(v, torch.ones_like(v), [y, *parameters(block)])])
        finally:
            torch.use_deterministic_algorithms(False)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_only_y_is_kept(device: torch.device) -> None:
    """For the backward pass; what else is, has no pixels."""
    block = attention_block(8, radix=2, cardinality=1, device=device)
    y = maps(2, 16, 16, 16, device=device).requires_grad_()
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outcome(*operands(block, y, 2))
    large = [tensor for tensor in kept if tensor.numel() > 1024]
    assert [tensor.data_ptr() for tensor in large] == [y.data_ptr()]


def test_the_second_gradient_is_refused(device: torch.device) -> None:
    block = attention_block(4, radix=2, cardinality=1, device=device)
    y = maps(2, 8, 3, 3, device=device).requires_grad_()
    (first,) = torch.autograd.grad(outcome(*operands(block, y, 0)).v.square().sum(), y, create_graph=True)
    with pytest.raises(RuntimeError, match=r"autograd|differentiat"):
        torch.autograd.grad(first.sum(), y)

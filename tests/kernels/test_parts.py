"""Every kernel against the same in plain torch, in float64: odd sizes, both layouts, radix, cardinality, every type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.blocks import apart, maps
from resnest.kernels import reference

triton_backend = pytest.importorskip("resnest.kernels.triton_backend", reason="triton is not installed")

# Of one rounding of the result to the type; sums have more digits.
TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-6, torch.bfloat16: 5e-3, torch.float16: 6e-4}
SUMS = {torch.float64: 1e-13, torch.float32: 1e-6, torch.bfloat16: 1e-6, torch.float16: 1e-6}


class Case(NamedTuple):
    images: int
    channels: int
    height: int
    width: int
    radix: int = 2
    cardinality: int = 1
    pool: int = 0
    layout: str = "channels_last"
    dtype: torch.dtype = torch.float32

    def __str__(self) -> str:
        split = f"{self.radix}s{self.cardinality}x, pool {self.pool}"
        return f"{self.images}x{self.channels}x{self.height}x{self.width} {split}, {self.layout}, {self.dtype}"


CASES = [
    Case(2, 8, 7, 5),
    Case(2, 8, 7, 5, pool=2, dtype=torch.float64),
    Case(1, 12, 9, 20, radix=4, cardinality=2, pool=1, dtype=torch.bfloat16),
    Case(3, 5, 13, 6, radix=1, layout="nchw"),
    Case(2, 6, 17, 33, radix=3, pool=2, layout="nchw", dtype=torch.float64),
    Case(2, 72, 5, 4, cardinality=4, pool=2, dtype=torch.float16),
    Case(2, 4, 1, 1, pool=2),
    Case(1, 8, 1, 300, layout="nchw", pool=2, dtype=torch.bfloat16),
    Case(2, 130, 2, 3, radix=1, dtype=torch.float64),
    Case(1, 2, 40, 30),
]
each_case = pytest.mark.parametrize("case", CASES, ids=str)


def given(case: Case, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """y, and a scale and a shift."""
    shape = case.images, case.radix * case.channels, case.height, case.width
    y = maps(*shape, layout=case.layout, dtype=case.dtype, device=device)
    sums = reference.accumulator(case.dtype)
    scale, shift = (torch.randn(shape[1], dtype=sums, device=device) for _ in range(2))
    return y, scale, shift


def exact(part: Callable[..., Any], *arguments: Any) -> Any:
    """What reference.py gives in float64."""
    return part(*(each.double() if isinstance(each, Tensor) else each for each in arguments))


def check(name: str, case: Case, *arguments: Any, sums: bool) -> Tensor:
    got = getattr(triton_backend, name)(*arguments)
    expected = exact(getattr(reference, name), *arguments)
    assert got.shape == expected.shape
    assert apart(got, expected) <= (SUMS if sums else TOLERANCE)[case.dtype]
    return got  # type: ignore[no-any-return]


@each_case
def test_moments(case: Case, device: torch.device) -> None:
    y, _, _ = given(case, device)
    for got, expected in zip(triton_backend.moments(y), exact(reference.moments, y), strict=True):
        assert got.dtype == reference.accumulator(case.dtype)
        torch.testing.assert_close(got.double(), expected, rtol=SUMS[case.dtype] * 10, atol=SUMS[case.dtype])


def test_moments_of_values_far_from_zero(device: torch.device) -> None:
    """A sum of squares would have no digit left of a variance of 1 beside a mean of 10,000."""
    y = (torch.randn(4, 6, 9, 9, dtype=torch.float64, device=device) + 1e4).float()
    for got, expected in zip(triton_backend.moments(y), exact(reference.moments, y), strict=True):
        torch.testing.assert_close(got.double(), expected, rtol=1e-3, atol=0)


@each_case
@pytest.mark.parametrize("norm", ["scale and shift", "shift", "neither"])
def test_pool_splits(case: Case, norm: str, device: torch.device) -> None:
    y, scale, shift = given(case, device)
    affine = {"scale and shift": (scale, shift), "shift": (None, shift), "neither": (None, None)}[norm]
    got = triton_backend.pool_splits(y, *affine, case.radix).sum(1)
    assert apart(got, exact(reference.pool_splits, y, *affine, case.radix).sum(1)) <= SUMS[case.dtype]


@each_case
def test_weigh_splits(case: Case, device: torch.device) -> None:
    y, scale, shift = given(case, device)
    logits = torch.randn(y.shape[:2], dtype=scale.dtype, device=device) * 3
    got = check("weigh_splits", case, y, scale, shift, logits, case.radix, case.cardinality, case.pool, sums=False)
    assert got.dtype == case.dtype
    assert reference.layout(got) == reference.layout(y) or 1 in got.shape[1:]


@each_case
def test_the_backward_pass(case: Case, device: torch.device) -> None:
    y, scale, shift = given(case, device)
    mean, rstd = torch.randn_like(scale), torch.rand_like(scale) + 0.5
    d_v = torch.randn_like(reference.weigh_splits(y, scale, shift, y.new_zeros(y.shape[:2]), case.radix, 1, case.pool))
    numbers = d_v, y, mean, rstd, scale, shift
    check("gradient_sums", case, *numbers, case.radix, case.pool, sums=True)
    a, corrections = torch.rand(y.shape[:2]).to(scale), torch.randn(2, len(scale)).to(scale)
    d_pooled = torch.randn(len(y), case.channels).to(scale)
    got = check("input_gradient", case, *numbers, a, d_pooled, corrections, case.radix, case.pool, sums=False)
    assert got.dtype == case.dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("rows", "channels", "inner", "radix", "cardinality", "parts"),
    [(2, 24, 12, 2, 1, 3), (70, 72, 32, 4, 2, 1), (1, 64, 100, 1, 4, 2), (5, 40, 34, 2, 2, 1)],
)
def test_the_layers(
    rows: int, channels: int, inner: int, radix: int, cardinality: int, parts: int, dtype: torch.dtype,
    device: torch.device,
) -> None:  # fmt: skip
    def random(*shape: int) -> Tensor:
        return (torch.randn(shape) / 3).to(device=device, dtype=dtype)

    weight1, bias1 = random(inner, channels // cardinality, 1, 1), random(inner)
    weight2, bias2 = random(radix * channels, inner // cardinality, 1, 1), random(radix * channels)
    rounded = 1e-3 if device.type == "cuda" else 1e-6  # matrix units, where weights are short
    sums, exactly = reference.accumulator(dtype), 1e-12 if dtype == torch.float64 else rounded
    s, partial = random(rows, channels).to(sums), random(rows, parts, channels).to(sums)
    scale, shift = random(inner).to(sums), random(inner).to(sums)
    before, mean, variance = triton_backend.first_layer(s, weight1, bias1, cardinality)
    expected = exact(reference.first_layer, s, weight1, bias1, cardinality)
    assert apart(before, expected[0]) <= exactly
    assert apart(mean, expected[1]) <= exactly
    assert apart(variance + 1, expected[2] + 1) <= exactly
    for name, *arguments in (
        ("second_layer", before, scale, shift, weight2, bias2),
        ("second_layer", before, scale.expand(rows, -1), shift.expand(rows, -1), weight2, bias2),
        ("attention_logits", partial, 7, weight1, None, shift, weight2, bias2),
        ("attention_logits", partial, 7, weight1, scale, shift, weight2, bias2),
    ):
        got = getattr(triton_backend, name)(*arguments, cardinality)
        assert apart(got, exact(getattr(reference, name), *arguments, cardinality)) <= exactly


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("shape", "radix", "cardinality", "stride", "dilation"),
    [
        ((2, 32, 9, 7), 2, 1, 1, 1),
        ((1, 24, 12, 5), 4, 2, 2, 1),
        ((2, 40, 17, 9), 1, 2, 1, 2),
        ((1, 16, 20, 20), 2, 1, 2, 2),
    ],
    ids=["2s1x", "4s2x, stride", "1s2x, dilation", "2s1x, both"],
)
def test_the_convolution(
    shape: tuple[int, ...], radix: int, cardinality: int, stride: int, dilation: int, dtype: torch.dtype,
    device: torch.device,
) -> None:  # fmt: skip
    groups, channels = radix * cardinality, shape[1]
    x = maps(*shape, dtype=dtype, device=device)
    weight = (torch.randn(radix * channels, channels // groups, 3, 3) / 9).to(x)
    bias = torch.randn(radix * channels).to(x)
    tolerance = 2e-3 if dtype == torch.float32 and device.type == "cuda" else TOLERANCE[dtype]
    expected = F.conv2d(x.double(), weight.double(), bias.double(), stride, dilation, dilation, groups).relu()
    sums = reference.pool_splits(expected, None, None, radix).sum(1)
    for parts in (triton_backend, reference):
        u, partial = parts.split_convolution(x, reference.packed(weight, groups), bias, radix, groups, stride, dilation)
        assert u.is_contiguous(memory_format=torch.channels_last)
        assert apart(u, expected) <= tolerance
        assert apart(partial.sum(1), sums) <= (tolerance if parts is reference else max(tolerance / 4, 1e-6))


def test_a_padded_tile_touches_nothing_else(device: torch.device) -> None:
    """What lies beside a tensor stays: y and V are views into larger memory."""
    memory = torch.full((2, 12, 7, 9), float("nan"), device=device).contiguous(memory_format=torch.channels_last)
    y = memory[:, 2:10, :, :]  # channels 0, 1, 10, 11 are somebody else's
    y.copy_(torch.randn(2, 8, 7, 9))
    shift, logits = torch.zeros(8, device=device), torch.zeros(2, 8, device=device)
    assert torch.isfinite(triton_backend.weigh_splits(y, None, shift, logits, 2, 1, 0)).all()
    assert torch.isfinite(triton_backend.pool_splits(y, None, shift, 2)).all()
    assert all(torch.isfinite(moment).all() for moment in triton_backend.moments(y))
    assert torch.isnan(memory[:, [0, 1, 10, 11]]).all()

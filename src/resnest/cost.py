"""Parameters and multiply-accumulates (MACs) of a network from its `Spec`, without building it.

parameters(Spec())            # 27_483_240
macs(Spec(), size=224)        # 5.371e9: convolutions and fully connected layers, as the papers count
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from resnest.spec import EXPANSION, Spec, attention_width


@dataclass(frozen=True)
class _Layer:
    """A convolution or linear layer: its weights, its other parameters, and its output pixels."""

    weights: int
    others: int  # bias, and both parameters of the norm behind it
    pixels: int


def parameters(spec: Spec, *, num_classes: int = 1000, in_chans: int = 3) -> int:
    """Trainable parameters of the network."""
    return sum(layer.weights + layer.others for layer in _layers(spec, 32, num_classes, in_chans))


def macs(spec: Spec, *, size: int, num_classes: int = 1000, in_chans: int = 3) -> int:
    """Multiply-accumulates for one square image of `size` pixels."""
    return sum(layer.weights * layer.pixels for layer in _layers(spec, size, num_classes, in_chans))


def smallest_map(spec: Spec, size: int) -> int:
    """Side of the last stage's map for a square image of `size` pixels.

    >>> smallest_map(Spec(), 224), smallest_map(Spec(stem="small"), 33)
    (7, 5)
    """
    for _ in range(3 if spec.stem == "small" else 5):
        size = _half(size)
    return size


def _layers(spec: Spec, size: int, num_classes: int, in_chans: int) -> Iterator[_Layer]:
    side = size if spec.stem == "small" else _half(size)
    yield from _stem(spec, in_chans, side**2)
    side = side if spec.stem == "small" else _half(side)  # max pool
    chans = 2 * spec.stem_width
    for stage, planes in enumerate(spec.planes):
        out = planes * EXPANSION
        for block in range(spec.depths[stage]):
            strides = stage > 0 and block == 0
            after = _half(side) if strides else side
            in_3x3 = side if strides and spec.avd and not spec.avd_first else after
            yield from _block(spec, chans, planes, side**2, in_3x3**2, after**2)
            if block == 0:
                yield _Layer(chans * out, 2 * out, after**2)  # shortcut
            side, chans = after, out
    yield _Layer(chans * num_classes, num_classes, 1)


def _stem(spec: Spec, in_chans: int, pixels: int) -> Iterator[_Layer]:
    width = spec.stem_width
    if spec.stem == "deep":
        yield _Layer(in_chans * width * 9, 2 * width, pixels)
        yield _Layer(width * width * 9, 2 * width, pixels)
        yield _Layer(width * 2 * width * 9, 4 * width, pixels)
    else:
        kernel = 49 if spec.stem == "conv7" else 9
        yield _Layer(in_chans * 2 * width * kernel, 4 * width, pixels)


def _block(spec: Spec, chans: int, planes: int, before: int, in_3x3: int, after: int) -> Iterator[_Layer]:
    width, splits, groups = spec.group_width(planes), max(spec.radix, 1), spec.cardinality
    out = planes * EXPANSION
    yield _Layer(chans * width, 2 * width, before)
    wide = width * splits
    yield _Layer(wide * (width // (groups * splits)) * 9, 2 * wide, in_3x3)
    if spec.radix:
        inner = attention_width(width, spec.radix)
        yield _Layer(inner * (width // groups), 3 * inner, 1)
        yield _Layer(wide * (inner // groups), wide, 1)
    yield _Layer(width * out, 2 * out, after)


def _half(side: int) -> int:
    return (side + 1) // 2

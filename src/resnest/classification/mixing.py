"""Mixup (arXiv 1710.09412) blends two images; CutMix (arXiv 1905.04899) pastes a box of one into the other.

    mix = sample_mixup((seed, MIX, step, rank), mixup=0.2, cutmix=1.0)
    inputs, share = mix_images(inputs, mix)          # and the loss takes `share` of the first label

Both pair image i with image N - 1 - i of the batch, as the Gluon code does. The random numbers depend on the seed
alone, not on the images, so they are the same for any image size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor


class Mix(NamedTuple):
    """The mixing parameters of a batch."""

    share: float = 1.0  # of the first image; CutMix: before its box is cut off at the image's edges
    centre: tuple[float, float] | None = None  # of the box, from the top and left, shares of the sides; none: mixup


NO_MIX = Mix()  # nothing is mixed


def sample_mixup(seed: Sequence[int], *, mixup: float, cutmix: float) -> Mix:
    """Mixing parameters of a batch, f(seed), from the alphas of the beta distributions; 0 turns one off.

    With both on, a coin decides: half of the batches each (arXiv 2110.00476, as in timm).
    """
    if not (mixup or cutmix):
        return NO_MIX
    generator = np.random.default_rng(list(seed))
    cuts = cutmix > 0 and (not mixup or generator.random() < 0.5)
    alpha = cutmix if cuts else mixup
    share = float(generator.beta(alpha, alpha))
    if not cuts:
        return Mix(share)
    down, right = generator.random(2)
    return Mix(share, (float(down), float(right)))


def mix_images(images: Tensor, mix: Mix) -> tuple[Tensor, float]:
    """The mixed images, (N, C, H, W) floats, and the actual fraction of the first one."""
    if mix.share >= 1:
        return images, 1.0
    if mix.centre is None:
        return mix.share * images + (1 - mix.share) * images.flip(0), mix.share
    height, width = images.shape[2:]
    top, bottom, left, right = cut_box(mix.share, mix.centre, height, width)
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images.flip(0)[:, :, top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (height * width)


def mix_targets(targets: Tensor, share: float) -> Tensor:
    """Targets of mixed images, (N, classes), from 0 and 1 by the fractions of both."""
    return share * targets + (1 - share) * targets.flip(0) if share < 1 else targets


def cut_box(share: float, centre: tuple[float, float], height: int, width: int) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of CutMix's box: 1 - share of the area, of the image's shape, clipped at the edges."""
    ratio = math.sqrt(1 - share)  # arXiv 1905.04899, equation 2
    edges: list[int] = []
    for place, side in zip(centre, (height, width), strict=True):
        length = int(side * ratio)
        start = int(side * place) - length // 2
        edges += [max(start, 0), min(start + length, side)]
    top, bottom, left, right = edges
    return top, bottom, left, right

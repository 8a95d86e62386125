"""What loaders yield.

len(batch.labels), batch.images.shape, batch.bad
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """Some images with their labels; `bad` lists unusable files as (index, key, reason)."""

    images: Tensor  # (N, 3, H, W): uint8 to train on, normalised float32 to evaluate on
    labels: Any  # (N,) int64; multi-label: (N, K) float32, 0 or 1; other tasks as `loading` says
    indices: Tensor  # (N,) into the samples
    bad: list[tuple[int, str, str]]
    sizes: Tensor | None = None  # (N, 2) int64, height and width of each image without its padding


def stack_images(images: list[Tensor]) -> Tensor:
    """(N, 3, H, W) in the memory order of the images, so that no pixel is transposed."""
    if images[0].stride(0) != 1:
        return torch.stack(images)
    return torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)  # (N, H, W, 3) in memory

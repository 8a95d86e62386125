"""What loaders yield.

len(batch.labels), batch.images.shape, batch.bad
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """Some images with their labels; `bad` lists unusable files as (index, key, reason)."""

    images: Tensor  # (N, 3, H, W): uint8 to train on, normalised float32 to evaluate on
    labels: Any  # (N,) int64; multi-label: (N, K) float32, 0 or 1; detection: a list of N `Target`s, or of None
    indices: Tensor  # (N,) into the samples
    bad: list[tuple[int, str, str]]
    sizes: Tensor | None = None  # detection: (N, 2) int64, height and width of each image without its padding

"""What loaders yield, and what a batch of images is made into on a device.

len(batch.labels), batch.images.shape, batch.bad
inputs = normalise(batch.images, mean, std)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from resnest.data.samples import Samples
from resnest.runtime.engines.engine import Prepared


class Batch(NamedTuple):
    """Some augmented images with their labels; `bad` lists unusable files as (index, key, reason)."""

    images: Tensor  # (N, 3, H, W) uint8
    labels: Any  # by the task: (N,) int64, (N, K) float32, (N, H, W) uint8, a list of N targets
    indices: Tensor  # (N,) into the samples
    bad: list[tuple[int, str, str]]


class EvaluationBatch(NamedTuple):
    """Some images as prediction sees them, and what they show; `bad` lists unusable files as (key, reason)."""

    pixels: Tensor  # (N, 3, H, W) float32
    indices: list[int]  # into the samples
    sizes: list[tuple[int, int]]  # width, height of the pictures
    truths: list[Any]
    images: list[Image.Image | None]
    bad: list[tuple[str, str]]

    def prepared(self, samples: Samples) -> list[Prepared]:
        """What a task's `predict` takes."""
        rows = zip(self.indices, self.pixels.numpy(), self.sizes, self.images, strict=True)
        return [Prepared(samples.keys[index], pixels, size, image) for index, pixels, size, image in rows]


def stack_images(images: list[Tensor]) -> Tensor:
    """(N, 3, H, W) in the memory order of the images, so that no pixel is transposed."""
    if not images:
        return torch.empty(0, 3, 1, 1)
    if images[0].stride(0) != 1:
        return torch.stack(images)
    return torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)  # (N, H, W, 3) in memory


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(N, 3, H, W) uint8 -> float32 in channels_last."""
    count, channels, height, width = images.shape
    rows = images.permute(0, 2, 3, 1).reshape(count * height, width * channels)  # long ones: twice as fast on a CPU
    means, stds = (torch.tensor(values, device=images.device).repeat(width) for values in (mean, std))
    normal = rows.float().div_(255).sub_(means).div_(stds)
    return normal.view(count, height, width, channels).permute(0, 3, 1, 2)

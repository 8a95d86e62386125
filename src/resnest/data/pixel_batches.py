"""Images with masks, one by one and as batches: to train on, and to evaluate on.

loader = DataLoader(TrainingPixels(samples, data, segmentation, seed=0, epoch=0), collate_fn=collate_pixels)

`loading` is where batches come from; it calls these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from resnest.data.batch import Batch, stack_images
from resnest.data.pixels import PixelSamples
from resnest.data.seeding import seeded
from resnest.data.settings import DataSettings, SegmentationSettings
from resnest.runtime.decode import BadImage
from resnest.runtime.preprocess import LEAST, SegmentationPreprocess


class Pixels(NamedTuple):
    """An image and its mask."""

    place: int  # in the samples
    image: Tensor  # (3, H, W)
    mask: Any  # (H, W) uint8, a tensor to train on; in evaluation an array in the picture's own size
    size: tuple[int, int]  # height and width of the image without its padding


Item = Pixels | tuple[int, BadImage]


class TrainingPixels(Dataset[Any]):
    """Augmented images of one epoch, by (index, repeat)."""

    def __init__(
        self, samples: PixelSamples, data: DataSettings, segmentation: SegmentationSettings, *, seed: int, epoch: int
    ) -> None:
        from resnest.data.pixel_transforms import PixelTransform  # torchvision, which evaluation can do without

        self.samples = samples
        self.seed = (seed, epoch)
        self.transform = PixelTransform(data, segmentation)

    def __getitem__(self, place: Sequence[int]) -> Item:
        index, repeat = map(int, place)
        try:
            image, mask = self.samples.pair(index)
        except BadImage as error:
            return index, error
        with seeded(*self.seed, index, *([repeat] if repeat else [])):
            pixels, labels = self.transform(image, mask)
        return Pixels(index, pixels, labels, (labels.shape[0], labels.shape[1]))


class EvaluationPixels(Dataset[Any]):
    """Images as prediction sees them, and their masks as they are."""

    def __init__(self, samples: PixelSamples, preprocess: SegmentationPreprocess) -> None:
        self.samples = samples
        self.preprocess = preprocess

    def __getitem__(self, index: int) -> Item:
        try:
            image, mask = self.samples.pair(index)
        except BadImage as error:
            return index, error
        width, height = self.preprocess.scaled_size(*image.size)
        return Pixels(index, torch.from_numpy(self.preprocess(image)), mask, (height, width))


def collate_pixels(items: list[Item]) -> Batch:
    """To train on: labels are (N, H, W) uint8."""
    good, batch = _collate(items)
    masks = [item.mask for item in good]
    return batch._replace(labels=torch.stack(masks) if masks else torch.empty(0, LEAST, LEAST, dtype=torch.uint8))


def collate_truth(items: list[Item]) -> Batch:
    """To evaluate on: labels are a list of (H, W) uint8 arrays."""
    good, batch = _collate(items)
    masks: list[NDArray[np.uint8]] = [item.mask for item in good]
    return batch._replace(labels=masks)


def _collate(items: list[Item]) -> tuple[list[Pixels], Batch]:
    """All images have one shape."""
    good = [item for item in items if isinstance(item, Pixels)]
    bad = [(item[0], item[1].name, item[1].reason) for item in items if not isinstance(item, Pixels)]
    images = [item.image for item in good]
    batch = Batch(
        images=stack_images(images) if images else torch.empty(0, 3, LEAST, LEAST),
        labels=None,
        indices=torch.tensor([item.place for item in good], dtype=torch.int64),
        bad=bad,
        sizes=torch.tensor([item.size for item in good], dtype=torch.int64).reshape(-1, 2),
    )
    return good, batch

"""Training dataset of images with masks: augmented samples and their batches.

dataset = SegmentationDataset(samples, DataSettings(), SegmentationSettings(), seed=0)
"""

from __future__ import annotations

import torch
from torch import Tensor

from resnest.data.loading import TrainingDataset
from resnest.data.settings import DataSettings
from resnest.errors import ResnestError
from resnest.segmentation.data import PixelSamples
from resnest.segmentation.preprocess import LEAST
from resnest.segmentation.recipe import SegmentationSettings


class SegmentationDataset(TrainingDataset):
    """Labels are (N, H, W) uint8, 255 for ignored pixels."""

    samples: PixelSamples

    def __init__(
        self, samples: PixelSamples, data: DataSettings, segmentation: SegmentationSettings, *, seed: int
    ) -> None:
        from resnest.segmentation.transforms import PixelTransform  # torchvision, which evaluation can do without

        if data.balance:
            raise ResnestError(
                f"data.balance={data.balance}: what a mask shows is not known before it is read. Set data.balance=0"
            )
        super().__init__(samples, seed=seed)
        self.transform = PixelTransform(data, segmentation)

    def augment(self, index: int, epoch: int) -> tuple[Tensor, Tensor]:
        return self.transform(*self.samples.pair(index))

    def stack_targets(self, targets: list[Tensor]) -> Tensor:
        return torch.stack(targets) if targets else torch.empty(0, LEAST, LEAST, dtype=torch.uint8)

"""Training dataset of images with objects: augmented samples and their padded batches.

dataset = DetectionDataset(samples, DataSettings(), DetectionSettings(), masks=True, seed=0)
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from resnest.data.loading import TrainingDataset
from resnest.data.settings import DataSettings
from resnest.detection.boxes import Target
from resnest.detection.data import DetectionSamples
from resnest.detection.preprocess import DIVISOR
from resnest.detection.recipe import DetectionSettings


class DetectionDataset(TrainingDataset):
    """Labels are a list of `Target`s; images are padded with zeros at the right and bottom."""

    samples: DetectionSamples

    def __init__(
        self,
        samples: DetectionSamples,
        data: DataSettings,
        detection: DetectionSettings,
        *,
        masks: bool = False,
        seed: int,
    ) -> None:
        from resnest.detection.transforms import DetectionTransform  # torchvision, which evaluation can do without

        if masks:
            samples.check_outlines()
        super().__init__(samples, seed=seed)
        self.transform = DetectionTransform(data, detection, masks=masks)

    def augment(self, index: int, epoch: int) -> tuple[Tensor, Target]:
        content = self.samples.read(index)
        return self.transform(content, self.samples.annotations(index), self.samples.keys[index])

    def stack_images(self, images: list[Tensor]) -> Tensor:
        """(N, 3, H, W), padded to the largest and a multiple of 32; channels last in memory."""
        if not images:
            return torch.empty(0, 3, DIVISOR, DIVISOR)
        sides = np.max([image.shape[1:] for image in images], axis=0)
        height, width = (-(-side // DIVISOR) * DIVISOR for side in sides)
        padded = torch.zeros(len(images), int(height), int(width), 3, dtype=images[0].dtype)
        for place, image in zip(padded, images, strict=True):
            place[: image.shape[1], : image.shape[2]] = image.permute(1, 2, 0)
        return padded.permute(0, 3, 1, 2)

    def stack_targets(self, targets: list[Target]) -> list[Target]:
        return targets

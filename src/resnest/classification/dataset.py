"""Training dataset of labelled images: augmented samples and their batches.

dataset = ClassificationDataset(samples, DataSettings(size=128), seed=0, epochs=5)
"""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import Tensor

from resnest.data.loading import TrainingDataset, labels_to_tensor
from resnest.data.samples import LabelledSamples
from resnest.data.settings import DataSettings


class ClassificationDataset(TrainingDataset):
    """Random crops and colours; labels are (N,) int64, or (N, K) float32 if multi-label."""

    samples: LabelledSamples

    def __init__(self, samples: LabelledSamples, settings: DataSettings, *, seed: int, epochs: int) -> None:
        super().__init__(samples, seed=seed)
        self.settings, self.epochs = settings, epochs

    def augment(self, index: int, epoch: int) -> tuple[Tensor, Any]:
        transform = _transform(self.settings, self.settings.size_at(epoch, self.epochs))
        return transform(self.samples.read(index), self.samples.keys[index]), self.samples.labels[index]

    def stack_targets(self, targets: list[Any]) -> Tensor:
        return labels_to_tensor(targets)


@cache
def _transform(settings: DataSettings, size: int) -> Any:
    from resnest.classification.transforms import training_transform  # torchvision, which evaluation can do without

    return training_transform(settings, size)

"""Counting: a network with one output, which is the count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from counting.card import CountingCard
from counting.info import INFO
from resnest.checkpoints.loading import LoadReport, load_pretrained
from resnest.data.loading import TrainingDataset, normalise
from resnest.inference.prepare import prepared
from resnest.network.resnest import ResNeSt
from resnest.runtime.preprocess import Preprocess
from resnest.tasks import Task


class CountingDataset(TrainingDataset):
    """Whole pictures, half of them mirrored; labels are (N,) float32."""

    def __init__(self, samples: Any, preprocess: Preprocess, *, seed: int) -> None:
        super().__init__(samples, seed=seed)
        self.preprocess = preprocess

    def augment(self, index: int, epoch: int) -> tuple[Tensor, float]:
        image, count = self.samples.example(index)
        pixels = torch.frombuffer(bytearray(self.preprocess.pixels(image).tobytes()), dtype=torch.uint8)
        pixels = pixels.view(self.preprocess.size, self.preprocess.size, 3).permute(2, 0, 1)
        return (pixels.flip(2) if torch.rand(()) < 0.5 else pixels), count

    def stack_targets(self, targets: list[float]) -> Tensor:
        return torch.tensor(targets)


class Counter(ResNeSt):
    """A ResNeSt whose one output is the count."""


class CountingTask(Task):
    """Of a counter."""

    info = INFO
    network_type = Counter
    monitor = "exact"
    monitor_title = "exact"
    min_batch_size = 2  # type: ignore[assignment]

    @classmethod
    def build_network(cls, card: CountingCard) -> Counter:
        return Counter(card.spec, num_classes=1)

    @classmethod
    def card_fields(cls, net: ResNeSt) -> dict[str, Any]:
        return {"spec": net.spec}

    @classmethod
    def prepared(cls, net: ResNeSt, *, memory_format: torch.memory_format, kernels: bool) -> ResNeSt:
        return prepared(net, memory_format=memory_format, kernels=kernels)

    @property
    def preprocess(self) -> Preprocess:
        """The whole picture."""
        return replace(self.recipe.data.preprocess, crop=1.0)

    def build(self) -> Counter:
        return Counter(self.spec, num_classes=1, zero_gamma=self.recipe.model.zero_gamma)

    def load_pretrained(self, net: ResNeSt) -> LoadReport | None:
        return load_pretrained(net, self.recipe.model.pretrained or False, self.recipe.model.name)

    def dataset(self, samples: Any) -> CountingDataset:
        return CountingDataset(samples, self.preprocess, seed=self.recipe.train.seed)

    def loss(self, net: nn.Module, images: Tensor, labels: Tensor, *, seed: Sequence[int] = ()) -> Tensor:
        data = self.recipe.data
        return F.mse_loss(net(normalise(images, data.mean, data.std))[:, 0], labels)

    def card(self, figures: dict[str, float]) -> CountingCard:
        return CountingCard(
            architecture=self.architecture,
            spec=self.spec,
            class_names=self.class_names,
            preprocess=self.preprocess,
            figures=figures,
        )

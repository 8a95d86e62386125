"""The semantic segmentation task: a class for every pixel.

task = SegmentationTask(recipe, samples)
net = task.build()
loss = task.loss(net, batch.images, batch.labels)            # labels: (N, H, W) uint8, 255 does not count
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from resnest.data.loading import TrainingDataset, normalise
from resnest.segmentation.card import SegmentationCard, SegmentationPreprocess
from resnest.segmentation.data import PixelSamples
from resnest.segmentation.info import INFO
from resnest.segmentation.segmenter import Segmenter, build_segmenter, prepared_segmenter
from resnest.training.backbone_task import BackboneTask


class SegmentationTask(BackboneTask):
    """The task of segmenters."""

    info = INFO
    network_type = Segmenter
    monitor = "miou"
    monitor_title = "mIoU"

    def __init__(self, recipe: Any, samples: PixelSamples) -> None:
        super().__init__(recipe, samples)
        self.classes = samples.classes

    @classmethod
    def build_network(cls, card: SegmentationCard) -> Segmenter:
        return build_segmenter(card.spec, card.segmenter, len(card.class_names))

    @classmethod
    def card_fields(cls, net: Segmenter) -> dict[str, Any]:
        ids = tuple(range(net.num_classes))
        return {**super().card_fields(net), "segmenter": net.spec, "category_ids": ids}

    @classmethod
    def prepared(cls, net: Segmenter, **options: Any) -> Segmenter:
        return prepared_segmenter(net, **options)

    @property
    def min_batch_size(self) -> int:
        """Two if a norm that sees one value per image takes its statistics from the batch."""
        return max(super().min_batch_size, int(self.recipe.segmenter.min_batch_size))

    @property
    def preprocess(self) -> SegmentationPreprocess:
        preprocess: SegmentationPreprocess = self.recipe.segmentation.preprocess(self.recipe.data)
        return preprocess

    def network(self) -> Segmenter:
        zero_gamma = self.recipe.model.zero_gamma
        return build_segmenter(self.spec, self.recipe.segmenter, len(self.class_names), zero_gamma=zero_gamma)

    def dataset(self, samples: PixelSamples) -> TrainingDataset:
        from resnest.segmentation.transforms import SegmentationDataset  # torchvision, for training alone

        recipe = self.recipe
        return SegmentationDataset(samples, recipe.data, recipe.segmentation, seed=recipe.train.seed)

    def loss(self, net: nn.Module, images: Tensor, labels: Tensor, *, seed: Sequence[int] = ()) -> Tensor:
        """The sum of all losses: (N, 3, H, W) uint8, (N, H, W) uint8 -> scalar."""
        data = self.recipe.data
        losses: dict[str, Tensor] = net(normalise(images, data.mean, data.std), labels)
        return torch.stack(list(losses.values())).sum()

    def card(self, figures: dict[str, float]) -> SegmentationCard:
        return SegmentationCard(
            architecture=self.architecture,
            spec=self.spec,
            class_names=self.class_names,
            category_ids=self.classes.ids,
            colours=self.classes.colours,
            preprocess=self.preprocess,
            segmenter=self.recipe.segmenter,
            figures=figures,
        )

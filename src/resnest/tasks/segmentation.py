"""Semantic segmentation: a class for every pixel.

task = SegmentationTask(recipe, samples)
net = task.build()
loss = task.loss(net, batch.images, batch.labels)            # labels: (N, H, W) uint8, 255 does not count
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from resnest.checkpoints.loading import LoadReport
from resnest.checkpoints.segmenters import load_segmenter_weights
from resnest.data.pixels import PixelSamples
from resnest.data.transforms import normalise
from resnest.network.initial import initialise_as_gluon
from resnest.network.stages import freeze, hold_statistics
from resnest.recipes.schema import PUBLISHED_WEIGHTS, Recipe
from resnest.runtime.card import ModelCard
from resnest.runtime.preprocess import SegmentationPreprocess
from resnest.segmentation.segmenter import Segmenter, build_segmenter
from resnest.tasks.mixing import WHOLE, Mix


class SegmentationTask:
    """What training needs to know about semantic segmentation."""

    monitor = "miou"
    monitor_title = "mIoU"

    def __init__(self, recipe: Recipe, samples: PixelSamples) -> None:
        assert recipe.segmenter is not None
        assert recipe.segmentation is not None
        self.recipe, self.segmenter, self.settings = recipe, recipe.segmenter, recipe.segmentation
        self.classes = samples.classes
        self.class_names = samples.classes.names
        self.spec, self.architecture = recipe.model.resolve()

    @property
    def least_images(self) -> int:
        """Two where a norm that sees one value an image takes its statistics from the batch."""
        return 2 if self.recipe.attention_needs_batch else self.segmenter.least_images

    @property
    def facts(self) -> dict[str, str]:
        return {"Segmenter": self.segmenter.title}

    @property
    def preprocess(self) -> SegmentationPreprocess:
        return self.settings.preprocess(self.recipe.data)

    def build(self) -> Segmenter:
        """The segmenter with its initial weights, random: `load_pretrained` comes next where the recipe says so."""
        settings = self.recipe.model
        net = build_segmenter(self.spec, self.segmenter, len(self.class_names), zero_gamma=settings.zero_gamma)
        if settings.init == "gluon":
            initialise_as_gluon(net.backbone)
        freeze(net.backbone, settings.freeze)
        if self.settings.backbone_norm == "frozen":
            hold_statistics(net.backbone)
        return net

    def load_pretrained(self, net: Segmenter) -> LoadReport | None:
        """Start from the recipe's weights: a segmenter's go into all parts, a classifier's into the backbone."""
        settings = self.recipe.model
        if settings.pretrained is None:
            return None
        if settings.pretrained == PUBLISHED_WEIGHTS:
            return load_segmenter_weights(net, settings.name, network=settings.name)
        return load_segmenter_weights(net, settings.pretrained)

    def loss(self, net: nn.Module, images: Tensor, labels: Tensor, *, mix: Mix = WHOLE) -> Tensor:
        """The sum of all losses: (N, 3, H, W) uint8, (N, H, W) uint8 -> scalar."""
        data = self.recipe.data
        losses: dict[str, Tensor] = net(normalise(images, data.mean, data.std), labels)
        return torch.stack(list(losses.values())).sum()

    def draw_mix(self, seed: Sequence[int]) -> Mix:
        """Segmenters learn from whole images."""
        return WHOLE

    def card(self, figures: dict[str, float]) -> ModelCard:
        return ModelCard(
            architecture=self.architecture,
            spec=self.spec,
            class_names=self.class_names,
            category_ids=self.classes.ids,
            colours=self.classes.colours,
            preprocess=self.preprocess,
            task="segmentation",
            segmenter=self.segmenter,
            figures=figures,
        )

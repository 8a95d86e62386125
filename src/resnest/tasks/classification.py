"""Image classification: one label an image.

task = ClassificationTask(recipe, class_names)
net = task.build()
loss = task.loss(net, batch.images, batch.labels, mix=task.draw_mix(generator))
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from resnest.checkpoints.create import load_pretrained
from resnest.checkpoints.loading import LoadReport
from resnest.data.transforms import normalise
from resnest.metrics import ClassificationMetrics
from resnest.network.resnest import ResNeSt
from resnest.recipes.schema import PUBLISHED_WEIGHTS, Recipe
from resnest.runtime.card import ModelCard


class ClassificationTask:
    """What training needs to know about classification."""

    monitor = "top1"  # the figure that decides which weights are best
    monitor_title = "top-1"

    def __init__(self, recipe: Recipe, class_names: Sequence[str]) -> None:
        self.recipe = recipe
        self.class_names = tuple(class_names)
        self.spec, self.architecture = recipe.model.resolve()

    def build(self) -> ResNeSt:
        """The network with its initial weights, random: `load_pretrained` comes next where the recipe says so."""
        return ResNeSt(self.spec, num_classes=len(self.class_names), zero_gamma=self.recipe.model.zero_gamma)

    def load_pretrained(self, net: ResNeSt) -> LoadReport | None:
        """Start from the recipe's weights; a head of another size stays untrained."""
        settings = self.recipe.model
        wanted = True if settings.pretrained == PUBLISHED_WEIGHTS else settings.pretrained or False
        return load_pretrained(net, wanted, settings.name)

    def loss(self, net: nn.Module, images: Tensor, labels: Tensor, *, mix: float = 1.0) -> Tensor:
        """Mean cross-entropy with label smoothing: (N, 3, H, W) uint8, (N,) -> scalar.

        `mix` below 1 blends every image and label with its mirror place in the batch (mixup, as in the Gluon code).
        """
        data, smoothing = self.recipe.data, self.recipe.train.label_smoothing
        inputs = normalise(images, data.mean, data.std)
        if mix < 1:
            inputs = mix * inputs + (1 - mix) * inputs.flip(0)
        logits = net(inputs)
        loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        if mix < 1:
            other = F.cross_entropy(logits, labels.flip(0), label_smoothing=smoothing)
            loss = mix * loss + (1 - mix) * other
        return loss

    def draw_mix(self, seed: Sequence[int]) -> float:
        """Mixup's share of the first image for one batch: f(seed); 1 if mixup is off."""
        alpha = self.recipe.train.mixup
        return float(np.random.default_rng(list(seed)).beta(alpha, alpha)) if alpha > 0 else 1.0

    def metrics(self) -> ClassificationMetrics:
        return ClassificationMetrics(len(self.class_names))

    def card(self, figures: dict[str, float]) -> ModelCard:
        return ModelCard(
            architecture=self.architecture,
            spec=self.spec,
            class_names=self.class_names,
            preprocess=self.recipe.data.preprocess,
            figures=figures,
        )

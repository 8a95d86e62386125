"""Multi-label classification: any number of labels an image, each with a score of its own.

task = MultiLabelTask(recipe, class_names)
loss = task.loss(net, batch.images, batch.labels, mix=task.draw_mix(seed))      # labels (N, K), 0 or 1
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn
from torch.nn import functional as F

from resnest.data.transforms import normalise
from resnest.metrics import MultiLabelMetrics
from resnest.runtime.card import ModelCard
from resnest.tasks.classification import ClassificationTask


class MultiLabelTask(ClassificationTask):
    """The network of classification with a sigmoid for each class in place of one softmax."""

    monitor = "map"
    monitor_title = "mAP"

    def loss(self, net: nn.Module, images: Tensor, labels: Tensor, *, mix: float = 1.0) -> Tensor:
        """Binary cross-entropy, mean over images and classes: (N, 3, H, W) uint8, (N, K) float -> scalar.

        Label smoothing moves targets towards 0.5, as Keras' BinaryCrossentropy does; mixup blends images and targets.
        """
        data, smoothing = self.recipe.data, self.recipe.train.label_smoothing
        inputs, targets = normalise(images, data.mean, data.std), labels.float()
        if mix < 1:
            inputs = mix * inputs + (1 - mix) * inputs.flip(0)
            targets = mix * targets + (1 - mix) * targets.flip(0)
        targets = targets * (1 - smoothing) + smoothing / 2
        return F.binary_cross_entropy_with_logits(net(inputs), targets)

    def metrics(self) -> MultiLabelMetrics:  # type: ignore[override]
        return MultiLabelMetrics(len(self.class_names))

    def card(self, figures: dict[str, float]) -> ModelCard:
        return replace(super().card(figures), multi_label=True)

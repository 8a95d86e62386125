"""Multi-label classification: any number of labels an image, each with a score of its own.

task = MultiLabelTask(recipe, class_names)
loss = task.loss(net, batch.images, batch.labels, mix=task.draw_mix(seed))      # labels (N, K), 0 or 1
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn
from torch.nn import functional as F

from resnest.data.transforms import normalise
from resnest.runtime.card import ModelCard
from resnest.tasks.classification import ClassificationTask
from resnest.tasks.mixing import WHOLE, Mix, mix_images, mix_targets


class MultiLabelTask(ClassificationTask):
    """The network of classification with a sigmoid for each class in place of one softmax."""

    monitor = "map"
    monitor_title = "mAP"

    def loss(self, net: nn.Module, images: Tensor, labels: Tensor, *, mix: Mix = WHOLE) -> Tensor:
        """Binary cross-entropy, mean over images and classes: (N, 3, H, W) uint8, (N, K) float -> scalar.

        It is that, whatever `train.loss` says. Mixed images have mixed targets; label smoothing then moves them towards
        0.5, as Keras' BinaryCrossentropy does.
        """
        data, smoothing = self.recipe.data, self.recipe.train.label_smoothing
        inputs, share = mix_images(normalise(images, data.mean, data.std), mix)
        targets = mix_targets(labels, share) * (1 - smoothing) + smoothing / 2
        return F.binary_cross_entropy_with_logits(net(inputs), targets)

    def card(self, figures: dict[str, float]) -> ModelCard:
        return replace(super().card(figures), multi_label=True)

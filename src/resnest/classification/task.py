"""The classification task: one label per image, or multi-label with a score for each class.

task = ClassificationTask.of(recipe, samples)
net = task.build()
loss = task.loss(net, batch.images, batch.labels, seed=(seed, step, rank))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnest.checkpoints.loading import LoadReport, load_pretrained
from resnest.classification.card import ClassificationCard
from resnest.classification.dataset import ClassificationDataset
from resnest.classification.info import INFO
from resnest.classification.losses import binary_cross_entropy, cross_entropy
from resnest.classification.mixing import NO_MIX, Mix, mix_images, mix_targets, sample_mixup
from resnest.cost import smallest_map
from resnest.data.loading import normalise
from resnest.data.samples import LabelledSamples
from resnest.errors import ResnestError
from resnest.inference.prepare import prepared
from resnest.network.resnest import ResNeSt, initialise_as_gluon
from resnest.network.tools import freeze
from resnest.recipes.settings import PUBLISHED_WEIGHTS
from resnest.runtime.preprocess import Preprocess
from resnest.tasks import Task


class ClassificationTask(Task):
    """Single-label classification: softmax."""

    info = INFO
    network_type = ResNeSt
    graphed_images = 16  # with more, a GPU has enough to do between two launches
    monitor = "top1"
    monitor_title = "top-1"
    multi_label = False

    @classmethod
    def build_network(cls, card: ClassificationCard) -> ResNeSt:
        return ResNeSt(card.spec, num_classes=len(card.class_names), in_chans=card.in_chans)

    @classmethod
    def num_classes(cls, net: ResNeSt) -> int:
        """Classes of the classifier, also of one that replaces `fc`."""
        if not isinstance(net.fc, nn.Linear):
            raise ResnestError(f"the classifier `fc` of the network is a {type(net.fc).__name__}: expected a Linear")
        return net.fc.out_features

    @classmethod
    def card_fields(cls, net: ResNeSt) -> dict[str, Any]:
        stem = next(module for module in net.modules() if isinstance(module, nn.Conv2d))
        return {"spec": net.spec, "in_chans": stem.in_channels}

    @classmethod
    def prepared(cls, net: ResNeSt, *, memory_format: torch.memory_format, kernels: bool) -> ResNeSt:
        return prepared(net, memory_format=memory_format, kernels=kernels)

    @classmethod
    def of(cls, recipe: Any, samples: LabelledSamples) -> ClassificationTask:
        return MultiLabelTask(recipe, samples) if samples.multi_label else ClassificationTask(recipe, samples)

    @property
    def min_batch_size(self) -> int:
        """Two if some batch norm would otherwise see one value per channel."""
        data = self.recipe.data
        one_value = self.recipe.attention_needs_batch  # behind the global mean
        return 2 if one_value or smallest_map(self.spec, min(data.size, data.start_size or data.size)) == 1 else 1

    @property
    def preprocess(self) -> Preprocess:
        preprocess: Preprocess = self.recipe.data.preprocess
        return preprocess

    def build(self) -> ResNeSt:
        settings = self.recipe.model
        net = ResNeSt(self.spec, num_classes=len(self.class_names), zero_gamma=settings.zero_gamma)
        if settings.init == "gluon":
            initialise_as_gluon(net)
        freeze(net, settings.freeze)
        return net

    def load_pretrained(self, net: ResNeSt) -> LoadReport | None:
        """A classifier of another size stays untrained."""
        settings = self.recipe.model
        wanted = True if settings.pretrained == PUBLISHED_WEIGHTS else settings.pretrained or False
        return load_pretrained(net, wanted, settings.name)

    def dataset(self, samples: LabelledSamples) -> ClassificationDataset:
        recipe = self.recipe
        return ClassificationDataset(samples, recipe.data, seed=recipe.train.seed, epochs=recipe.train.epochs)

    def loss(
        self, net: nn.Module, images: Tensor, labels: Tensor, *, seed: Sequence[int] = (), mix: Mix | None = None
    ) -> Tensor:
        """Mean loss of a batch: (N, 3, H, W) uint8, (N,) -> scalar. Without a seed images are not mixed."""
        train = self.recipe.train
        inputs, share = self._mixed(images, seed, mix)
        logits = net(inputs)
        if train.loss == "bce":
            return binary_cross_entropy(logits, labels, share=share, threshold=train.bce_threshold)
        return cross_entropy(logits, labels, share=share, smoothing=train.label_smoothing)

    def sample_mixup(self, seed: Sequence[int]) -> Mix:
        """Mixing parameters of one batch, by mixup or CutMix: f(seed); None without a seed."""
        train = self.recipe.train
        return sample_mixup(seed, mixup=train.mixup, cutmix=train.cutmix) if seed else NO_MIX

    def _mixed(self, images: Tensor, seed: Sequence[int], mix: Mix | None) -> tuple[Tensor, float]:
        """Normalised and mixed images, and the fraction of the first one in them."""
        data = self.recipe.data
        return mix_images(normalise(images, data.mean, data.std), mix or self.sample_mixup(seed))

    def card(self, figures: dict[str, float]) -> ClassificationCard:
        return ClassificationCard(
            architecture=self.architecture,
            spec=self.spec,
            class_names=self.class_names,
            preprocess=self.preprocess,
            figures=figures,
            multi_label=self.multi_label,
        )


class MultiLabelTask(ClassificationTask):
    """Multi-label classification: a sigmoid for each class instead of a softmax."""

    monitor = "map"
    monitor_title = "mAP"
    multi_label = True

    def loss(
        self, net: nn.Module, images: Tensor, labels: Tensor, *, seed: Sequence[int] = (), mix: Mix | None = None
    ) -> Tensor:
        """Binary cross-entropy, mean over images and classes: (N, 3, H, W) uint8, (N, K) float -> scalar.

        It is that, whatever `train.loss` says. Mixed images have mixed targets; label smoothing then moves them towards
        0.5, as Keras' BinaryCrossentropy does.
        """
        smoothing = self.recipe.train.label_smoothing
        inputs, share = self._mixed(images, seed, mix)
        targets = mix_targets(labels, share) * (1 - smoothing) + smoothing / 2
        return F.binary_cross_entropy_with_logits(net(inputs), targets)

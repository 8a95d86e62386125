"""Image classification: one label an image, or any number of labels; its losses, mixup and CutMix.

task = ClassificationTask.of(recipe, samples)
net = task.build()
loss = task.loss(net, batch.images, batch.labels, seed=(seed, step, rank))
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnest.checkpoints.class_rows import Classes
from resnest.checkpoints.loading import LoadReport, load_pretrained
from resnest.classification.card import ClassificationCard
from resnest.classification.info import INFO
from resnest.classification.rare_classes import class_balanced_weights, log_priors
from resnest.data.loading import TrainingDataset, normalise
from resnest.data.samples import LabelledSamples
from resnest.errors import ResnestError
from resnest.inference.prepare import prepared
from resnest.network.resnest import ResNeSt, initialise_as_gluon
from resnest.network.tools import freeze
from resnest.recipes.schema import PUBLISHED_WEIGHTS
from resnest.runtime.preprocess import Preprocess
from resnest.spec import smallest_map
from resnest.tasks import Task

# --- Mixup (arXiv 1710.09412) blends two images; CutMix (arXiv 1905.04899) pastes a box of one into the other.
# Both pair image i with image N - 1 - i of the batch, as the Gluon code does. The random numbers depend on the seed
# alone, not on the images, so they are the same for any image size.


class Mix(NamedTuple):
    """The mixing parameters of a batch."""

    lam: float = 1.0  # fraction of the first image; CutMix: before its box is cut off at the image's edges
    centre: tuple[float, float] | None = None  # of the box, from the top and left, fractions of the sides; none: mixup


NO_MIX = Mix()  # nothing is mixed


def sample_mixup(seed: Sequence[int], *, mixup: float, cutmix: float) -> Mix:
    """Mixing parameters of a batch, f(seed), from the alphas of the beta distributions; 0 turns one off.

    With both on, a coin decides: half of the batches each (arXiv 2110.00476, as in timm).
    """
    if not (mixup or cutmix):
        return NO_MIX
    generator = np.random.default_rng(list(seed))
    cuts = cutmix > 0 and (not mixup or generator.random() < 0.5)
    alpha = cutmix if cuts else mixup
    lam = float(generator.beta(alpha, alpha))
    if not cuts:
        return Mix(lam)
    down, right = generator.random(2)
    return Mix(lam, (float(down), float(right)))


def mix_images(images: Tensor, mix: Mix) -> tuple[Tensor, float]:
    """The mixed images, (N, C, H, W) floats, and the actual fraction of the first one."""
    if mix.lam >= 1:
        return images, 1.0
    if mix.centre is None:
        return mix.lam * images + (1 - mix.lam) * images.flip(0), mix.lam
    height, width = images.shape[2:]
    top, bottom, left, right = cut_box(mix.lam, mix.centre, height, width)
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images.flip(0)[:, :, top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (height * width)


def mix_targets(targets: Tensor, fraction: float) -> Tensor:
    """Targets of mixed images, (N, classes), from 0 and 1 by the fractions of both."""
    return fraction * targets + (1 - fraction) * targets.flip(0) if fraction < 1 else targets


def cut_box(lam: float, centre: tuple[float, float], height: int, width: int) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of CutMix's box: 1 - lam of the area, of the image's shape, clipped at the edges."""
    ratio = math.sqrt(1 - lam)  # arXiv 1905.04899, equation 2
    edges: list[int] = []
    for position, side in zip(centre, (height, width), strict=True):
        length = int(side * ratio)
        start = int(side * position) - length // 2
        edges += [max(start, 0), min(start + length, side)]
    top, bottom, left, right = edges
    return top, bottom, left, right


# --- Losses of a classifier, also for mixup and CutMix: every image has its own label and its partner's ---


def cross_entropy(
    logits: Tensor, labels: Tensor, *, fraction: float, smoothing: float, weights: Tensor | None = None
) -> Tensor:
    """(N, classes), (N,) -> mean over the batch; for a fraction < 1, the partner's label has the remaining weight.

    Args:
        weights: (classes,) of each image's loss, by its label.
    """

    def loss_of(labels: Tensor) -> Tensor:
        if weights is None:
            return F.cross_entropy(logits, labels, label_smoothing=smoothing)
        losses = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
        return (losses * weights[labels]).mean()

    loss = loss_of(labels)
    return fraction * loss + (1 - fraction) * loss_of(labels.flip(0)) if fraction < 1 else loss


def binary_cross_entropy(logits: Tensor, labels: Tensor, *, fraction: float, threshold: float) -> Tensor:
    """Binary cross-entropy: (N, classes), (N,) -> mean over batch and classes, as in timm.

    Both classes of a mixed image are a yes (arXiv 2110.00476, section 3), unless there is `threshold` or less of one.
    The mean over classes makes gradients as many times smaller as there are classes: AdamW does not mind, SGD would
    need a larger learning rate.
    """
    fractions = mix_targets(F.one_hot(labels, logits.shape[1]), fraction)  # (N, classes)
    return F.binary_cross_entropy_with_logits(logits, (fractions > threshold).to(logits.dtype))


class ClassificationTask(Task):
    """Single-label classification: softmax."""

    info = INFO
    network_type = ResNeSt
    graphed_images = 16  # with more, a GPU has enough to do between two launches
    monitor = "top1"
    monitor_title = "top-1"
    multi_label = False

    def __init__(self, recipe: Any, samples: LabelledSamples) -> None:
        super().__init__(recipe, samples)
        self.class_keys = samples.class_keys
        train = recipe.train
        self.class_weights = (
            class_balanced_weights(samples.counts(), train.class_balanced) if train.class_balanced else None
        )
        self.log_priors = log_priors(samples.counts()) if train.logit_adjustment else None

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
        stem = {"in_chans": self.recipe.data.in_chans, "zero_gamma": settings.zero_gamma}
        net = ResNeSt(self.spec, num_classes=len(self.class_names), **stem)
        if settings.init == "gluon":
            initialise_as_gluon(net)
        freeze(net, settings.freeze)
        return net

    def load_pretrained(self, net: ResNeSt) -> LoadReport | None:
        """The classifier takes the rows of the classes that the file knows, as `model.pretrained_head` says."""
        settings = self.recipe.model
        wanted = True if settings.pretrained == PUBLISHED_WEIGHTS else settings.pretrained or False
        return load_pretrained(net, wanted, settings.name, Classes(self.class_names, settings.pretrained_head))

    def dataset(self, samples: LabelledSamples) -> TrainingDataset:
        from resnest.classification.transforms import ClassificationDataset  # torchvision, for training alone

        recipe = self.recipe
        return ClassificationDataset(samples, recipe.data, seed=recipe.train.seed, epochs=recipe.train.epochs)

    def loss(
        self, net: nn.Module, images: Tensor, labels: Tensor, *, seed: Sequence[int] = (), mix: Mix | None = None
    ) -> Tensor:
        """Mean loss of a batch: (N, C, H, W) as `normalise` takes them, (N,) -> scalar; mixed only with a seed."""
        train = self.recipe.train
        inputs, fraction = self._mixed(images, seed, mix)
        logits = net(inputs)
        if train.loss == "bce":
            return binary_cross_entropy(logits, labels, fraction=fraction, threshold=train.bce_threshold)
        weights = None
        if self.log_priors is not None:
            logits = logits + train.logit_adjustment * torch.from_numpy(self.log_priors).to(logits)
        if self.class_weights is not None:
            weights = torch.from_numpy(self.class_weights).to(logits)
        return cross_entropy(logits, labels, fraction=fraction, smoothing=train.label_smoothing, weights=weights)

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
            class_keys=self.class_keys,
            preprocess=self.preprocess,
            in_chans=self.recipe.data.in_chans,
            figures=figures,
            multi_label=self.multi_label,
        )


class MultiLabelTask(ClassificationTask):
    """Multi-label classification: a sigmoid for each class instead of a softmax."""

    monitor = "map"
    monitor_title = "mAP"
    multi_label = True

    def __init__(self, recipe: Any, samples: LabelledSamples) -> None:
        super().__init__(recipe, samples)
        for name in ("class_balanced", "logit_adjustment"):
            if value := getattr(recipe.train, name):
                raise ResnestError(
                    f"train.{name}={value}: it is for one label an image, and this data has several. Set"
                    f" train.{name}=0; data.repeat_threshold draws images of rare labels more often"
                )

    def loss(
        self, net: nn.Module, images: Tensor, labels: Tensor, *, seed: Sequence[int] = (), mix: Mix | None = None
    ) -> Tensor:
        """Binary cross-entropy, mean over images and classes: (N, C, H, W), (N, K) float -> scalar.

        It is that, whatever `train.loss` says. Mixed images have mixed targets; label smoothing then moves them towards
        0.5, as Keras' BinaryCrossentropy does.
        """
        smoothing = self.recipe.train.label_smoothing
        inputs, fraction = self._mixed(images, seed, mix)
        targets = mix_targets(labels, fraction) * (1 - smoothing) + smoothing / 2
        return F.binary_cross_entropy_with_logits(net(inputs), targets)

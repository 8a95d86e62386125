"""The semantic segmentation task: a class for every pixel.

task = SegmentationTask(recipe, samples)
net = task.build()
loss = task.loss(net, batch.images, batch.labels)            # labels: (N, H, W) uint8, 255 does not count

Of a multi-label segmenter labels are (N, K, H, W): 0, 1, 255.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from resnest.data.loading import TrainingDataset, normalise
from resnest.runtime.decode import BadImage
from resnest.segmentation.card import IGNORED, SegmentationCard, SegmentationPreprocess
from resnest.segmentation.info import INFO
from resnest.segmentation.loss_settings import FREQUENCY, median_frequency
from resnest.segmentation.losses import PixelLosses
from resnest.segmentation.mask_stacks import count_masks
from resnest.segmentation.paired import PairedSamples
from resnest.segmentation.segmenter import Segmenter, build_segmenter, prepared_segmenter
from resnest.training.backbone_task import BackboneTask

WEIGHTS_KEY = "class weights"  # in what a run keeps


class SegmentationTask(BackboneTask):
    """The task of segmenters."""

    info = INFO
    network_type = Segmenter
    monitor = "miou"
    monitor_title = "mIoU"

    def __init__(self, recipe: Any, samples: PairedSamples) -> None:
        super().__init__(recipe, samples)
        self.classes, self.samples = samples.classes, samples
        self.given_weights: tuple[float, ...] | None = recipe.segmentation.weights_of(self.class_names)

    @classmethod
    def build_network(cls, card: SegmentationCard) -> Segmenter:
        return build_segmenter(card.spec, card.segmenter, len(card.class_names), in_chans=card.in_chans)

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
        segmenter = self.recipe.segmenter
        loss = PixelLosses(
            self.recipe.segmentation, multi_label=segmenter.multi_label, class_weights=self.class_weights
        )
        return build_segmenter(self.spec, segmenter, len(self.class_names), **self.stem, loss=loss)

    @cached_property
    def class_weights(self) -> tuple[float, ...] | None:
        """Weights of the classes in the losses, given or by their frequency in the training masks."""
        if self.recipe.segmentation.class_weights != FREQUENCY:
            return self.given_weights
        if known := self.kept.get(WEIGHTS_KEY):
            return tuple(known[name] for name in self.class_names)
        masks = _readable(self.samples)
        return tuple(median_frequency(*count_pixels(masks, len(self.class_names))).tolist())

    def measured(self) -> dict[str, dict[str, float]]:
        if self.recipe.segmentation.class_weights != FREQUENCY or self.class_weights is None:
            return {}
        return {WEIGHTS_KEY: dict(zip(self.class_names, self.class_weights, strict=True))}

    def dataset(self, samples: PairedSamples) -> TrainingDataset:
        from resnest.segmentation.transforms import SegmentationDataset  # torchvision, for training alone

        recipe = self.recipe
        return SegmentationDataset(samples, recipe.data, recipe.segmentation, seed=recipe.train.seed)

    def loss(self, net: nn.Module, images: Tensor, labels: Tensor, *, seed: Sequence[int] = ()) -> Tensor:
        """The sum of all losses: (N, C, H, W) as `normalise` takes them, (N, H, W) or (N, K, H, W) uint8 -> scalar."""
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
            in_chans=self.recipe.data.in_chans,
            segmenter=self.recipe.segmenter,
            threshold=self.recipe.segmentation.threshold,
            figures=figures,
        )


def count_pixels(masks: Iterable[NDArray[np.uint8]], num_classes: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pixels of each class, and those that count in the masks that show it, (K,) both, of masks (H, W) or (K, H, W)."""
    pixels, of = np.zeros(num_classes, np.int64), np.zeros(num_classes, np.int64)
    for mask in masks:
        if mask.ndim == 3:
            counts, known = count_masks(mask)
            pixels += counts
            of += np.where(counts > 0, known, 0)
            continue
        counts = np.bincount(mask.reshape(-1), minlength=IGNORED + 1)[:num_classes]
        pixels += counts
        of += np.where(counts > 0, counts.sum(), 0)
    return pixels, of


def _readable(samples: PairedSamples) -> Iterator[NDArray[np.uint8]]:
    """All masks that can be read; the others are counted in training."""
    for index in range(len(samples)):
        with contextlib.suppress(BadImage):
            yield samples.mask(index)

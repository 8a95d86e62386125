"""Object detection and instance segmentation: boxes, and perhaps masks, of any number of objects an image.

task = DetectionTask(recipe, samples)
net = task.build()
loss = task.loss(net, batch.images, batch.labels)            # labels: a Target for each image
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from resnest.checkpoints.detectors import load_detector_weights
from resnest.checkpoints.loading import LoadReport
from resnest.data.detection import DetectionSamples
from resnest.data.targets import Target
from resnest.data.transforms import normalise
from resnest.detection.detector import Detector, build_detector
from resnest.network.initial import initialise_as_gluon
from resnest.network.stages import freeze, hold_statistics
from resnest.recipes.schema import PUBLISHED_WEIGHTS, Recipe
from resnest.runtime.card import ModelCard
from resnest.runtime.preprocess import DetectionPreprocess
from resnest.tasks.mixing import WHOLE, Mix


class DetectionTask:
    """What training needs to know about detection."""

    def __init__(self, recipe: Recipe, samples: DetectionSamples) -> None:
        assert recipe.detector is not None
        assert recipe.detection is not None
        self.recipe, self.detector, self.settings = recipe, recipe.detector, recipe.detection
        self.class_names = tuple(samples.class_names)
        self.category_ids = samples.category_ids
        self.spec, self.architecture = recipe.model.resolve()
        self.monitor = "mask_ap" if self.detector.masks else "box_ap"
        self.monitor_title = "mask AP" if self.detector.masks else "box AP"

    @property
    def least_images(self) -> int:
        """Two where the norm inside the split attention takes its statistics from the batch."""
        return 2 if self.recipe.attention_needs_batch else 1

    @property
    def facts(self) -> dict[str, str]:
        return {"Detector": self.detector.title}

    @property
    def preprocess(self) -> DetectionPreprocess:
        return self.settings.preprocess(self.recipe.data)

    def build(self) -> Detector:
        """The detector with its initial weights, random: `load_pretrained` comes next where the recipe says so."""
        settings, net = self.recipe.model, self.network()
        if settings.init == "gluon":
            initialise_as_gluon(net.backbone)
        freeze(net.backbone, settings.freeze)
        if self.settings.backbone_norm == "frozen":
            hold_statistics(net.backbone)
        return net

    def network(self) -> Detector:
        """The bare network."""
        zero_gamma = self.recipe.model.zero_gamma
        return build_detector(self.spec, self.detector, len(self.class_names), zero_gamma=zero_gamma)

    def load_pretrained(self, net: Detector) -> LoadReport | None:
        """Start from the recipe's weights: a detector's go into all parts, a classifier's into the backbone."""
        settings = self.recipe.model
        if settings.pretrained is None:
            return None
        if settings.pretrained == PUBLISHED_WEIGHTS:
            return load_detector_weights(net, settings.name, network=settings.name)
        return load_detector_weights(net, settings.pretrained)

    def loss(self, net: nn.Module, images: Tensor, labels: Sequence[Target], *, mix: Mix = WHOLE) -> Tensor:
        """The sum of all losses: (N, 3, H, W) uint8, a target for each image -> scalar."""
        data = self.recipe.data
        inputs = normalise(images, data.mean, data.std)
        sizes = torch.tensor([target.size for target in labels])
        for image, (height, width) in zip(inputs, sizes.tolist(), strict=True):
            image[:, height:] = 0  # what was padded with black is not black after normalising
            image[:, :, width:] = 0
        losses: dict[str, Tensor] = net(inputs, sizes.to(images.device), labels)
        return torch.stack(list(losses.values())).sum()

    def draw_mix(self, seed: Sequence[int]) -> Mix:
        """Detectors learn from whole images."""
        return WHOLE

    def card(self, figures: dict[str, float]) -> ModelCard:
        return ModelCard(
            architecture=self.architecture,
            spec=self.spec,
            class_names=self.class_names,
            category_ids=self.category_ids,
            preprocess=self.preprocess,
            task="detection",
            detector=self.detector,
            figures=figures,
        )

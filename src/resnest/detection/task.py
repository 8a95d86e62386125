"""The detection task: object detection and instance segmentation.

task = DetectionTask(recipe, samples)
net = task.build()
loss = task.loss(net, batch.images, batch.labels)            # labels: a Target for each image
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from resnest.checkpoints.loading import LoadReport
from resnest.data.loading import TrainingDataset, normalise
from resnest.detection.card import DetectionCard, DetectionPreprocess
from resnest.detection.data import DetectionSamples
from resnest.detection.detector import Detector, build_detector
from resnest.detection.info import INFO
from resnest.detection.rpn import Target
from resnest.training.backbone_task import BackboneTask

MOST_SIZES = 50  # of pictures, in a card


class DetectionTask(BackboneTask):
    """The task of detectors, with masks or without."""

    info = INFO
    network_type: ClassVar[type[nn.Module]] = Detector
    takes_sizes = True
    varying_sizes = True

    def __init__(self, recipe: Any, samples: DetectionSamples) -> None:
        super().__init__(recipe, samples)
        self.category_ids = samples.category_ids
        self.images = torch.from_numpy(samples.counts())  # (K,) that show each class
        sizes = Counter(f"{width}x{height}" for width, height in samples.sizes().tolist())
        self.image_sizes = dict(sizes.most_common(MOST_SIZES))
        masks = recipe.detector.masks
        self.monitor, self.monitor_title = ("mask_ap", "mask AP") if masks else ("box_ap", "box AP")

    @classmethod
    def build_network(cls, card: Any) -> Detector:
        return build_detector(card.spec, card.detector, len(card.class_names), in_chans=card.in_chans)

    @classmethod
    def card_fields(cls, net: Any) -> dict[str, Any]:
        numbers = range(1, cls.num_classes(net) + 1)
        return {**super().card_fields(net), "detector": net.spec, "category_ids": tuple(numbers)}

    @property
    def preprocess(self) -> DetectionPreprocess:
        preprocess: DetectionPreprocess = self.recipe.detection.preprocess(self.recipe.data)
        return preprocess

    def network(self) -> Detector:
        return build_detector(self.spec, self.recipe.detector, len(self.class_names), **self.stem)

    def build(self) -> Detector:
        net: Detector = super().build()
        net.start_training(self.images)
        return net

    def load_pretrained(self, net: Detector) -> LoadReport | None:
        """As of any network with a backbone; what another run's losses have counted is of its data, and left out."""
        report = super().load_pretrained(net)
        net.start_training(self.images)
        return report

    def dataset(self, samples: DetectionSamples) -> TrainingDataset:
        from resnest.detection.transforms import DetectionDataset  # torchvision, for training alone

        recipe = self.recipe
        masks = recipe.detector.masks
        return DetectionDataset(samples, recipe.data, recipe.detection, masks=masks, seed=recipe.train.seed)

    def loss(self, net: nn.Module, images: Tensor, labels: Sequence[Target], *, seed: Sequence[int] = ()) -> Tensor:
        """The sum of all losses: (N, C, H, W) as `normalise` takes them, a target for each image -> scalar."""
        data = self.recipe.data
        inputs = normalise(images, data.mean, data.std)
        sizes = torch.tensor([target.size for target in labels])
        for image, (height, width) in zip(inputs, sizes.tolist(), strict=True):
            image[:, height:] = 0  # what was padded with black is not black after normalising
            image[:, :, width:] = 0
        losses: dict[str, Tensor] = net(inputs, sizes.to(images.device), labels)
        return torch.stack(list(losses.values())).sum()

    def card(self, figures: dict[str, float]) -> DetectionCard:
        return DetectionCard(**self._card_fields(figures))

    def _card_fields(self, figures: dict[str, float]) -> dict[str, Any]:
        return {
            "architecture": self.architecture,
            "spec": self.spec,
            "class_names": self.class_names,
            "category_ids": self.category_ids,
            "preprocess": self.preprocess,
            "in_chans": self.recipe.data.in_chans,
            "detector": self.recipe.detector,
            "image_sizes": self.image_sizes,
            "figures": figures,
        }

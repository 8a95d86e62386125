"""A detector: a backbone, a feature pyramid, and what its kind makes of the levels.

    net = build_detector(find_spec("resnest50")[0], DetectorSpec(masks=True), num_classes=80)
    net.eval()(images)                                 # DetectionOutput: boxes, scores, labels, masks of fixed shapes
    net.train()(images, sizes, targets)                # losses by name

Read `Detector.forward` first; `RCNN`, `RetinaNet` and `FCOS` are the kinds. Inputs are normalised, zero where an image
was padded to a multiple of 32 pixels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from resnest.checkpoints.loading import find_pretrained, find_structure
from resnest.detection.card import DetectorSpec
from resnest.detection.kinds import KINDS
from resnest.detection.rpn import Target
from resnest.detection.weights import WEIGHTS
from resnest.errors import ResnestError
from resnest.network.deform import stage_convs
from resnest.network.resnest import Backbone
from resnest.spec import Spec
from resnest.tasks import load_object


class DetectionOutput(NamedTuple):
    """Detections of N images, D each, best first; padding has the score 0."""

    boxes: Tensor  # (N, D, 4) in pixels of the input
    scores: Tensor  # (N, D)
    labels: Tensor  # (N, D)
    masks: Tensor | None = None  # (N, D, 28, 28) probabilities within the box


class Detector(nn.Module):
    """Base class of the kinds.

    Args:
        backbone: has `channels`, and gives the maps that `takes` names as a list.
    """

    takes: ClassVar[tuple[int, ...]] = (1, 2, 3, 4)  # of a backbone, C2 to C5
    fpn: nn.Module  # maps -> levels, by the kind

    def __init__(self, backbone: nn.Module, spec: DetectorSpec, num_classes: int) -> None:
        super().__init__()
        self.spec, self.num_classes = spec, num_classes
        self.backbone = backbone

    def forward(
        self, images: Tensor, sizes: Tensor | None = None, targets: Sequence[Target] | None = None
    ) -> DetectionOutput | dict[str, Tensor]:
        """Detections, or in training the losses.

        Args:
            images: (N, 3, H, W), both multiples of 32.
            sizes: (N, 2) heights and widths without padding; none: there is none.
            targets: what is in them; for training mode, which gives losses.
        """
        levels = self.features(images)
        if targets is None:
            return self.detect(levels, images, sizes)
        return self.losses(levels, images, full_sizes(images) if sizes is None else sizes, targets)

    def features(self, images: Tensor) -> list[Tensor]:
        """The levels of the pyramid, the finest first."""
        levels: list[Tensor] = self.fpn(self.backbone(images))
        return levels

    def detect(self, levels: list[Tensor], images: Tensor, sizes: Tensor | None = None) -> DetectionOutput:
        """Detections in images (N, 3, H, W) with these levels."""
        found = self.find(levels, images, full_sizes(images) if sizes is None else sizes)
        if not self.spec.masks:
            return found
        return found._replace(masks=self.predict_masks(levels, found.boxes, found.labels))

    def start_training(self, images: Tensor) -> None:
        """Begin training on data in which so many images, (K,), show each class: losses that count begin anew."""

    @abstractmethod
    def find(self, levels: list[Tensor], images: Tensor, sizes: Tensor) -> DetectionOutput:
        """Detections without masks."""

    @abstractmethod
    def losses(
        self, levels: list[Tensor], images: Tensor, sizes: Tensor, targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        """The losses by name."""

    def predict_masks(self, levels: list[Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
        """(N, D, 4), (N, D) -> probabilities (N, D, 28, 28) within the boxes; of kinds with masks."""
        raise NotImplementedError


def full_sizes(images: Tensor) -> Tensor:
    """Heights and widths of images without padding, (N, 2)."""
    count, _, height, width = images.shape
    return torch.stack([torch.full((count,), side, device=images.device) for side in (height, width)], dim=1)


def build_detector(
    spec: Spec, detector: DetectorSpec, num_classes: int, *, in_chans: int = 3, zero_gamma: bool = True
) -> Detector:
    """A detector with random weights."""
    kind: type[Detector] = load_object(KINDS[detector.kind].network)
    convs = stage_convs(detector.deform, detector.deform_groups)
    backbone = Backbone(spec, in_chans=in_chans, out_indices=kind.takes, zero_gamma=zero_gamma, convs=convs)
    return kind(backbone, detector, num_classes)


def create_detector(
    backbone: Spec | str = "resnest50",
    detector: DetectorSpec | None = None,
    *,
    num_classes: int = 80,
    in_chans: int = 3,
    pretrained: bool | str | Path = False,
    **spec: Any,
) -> Detector:
    """A detector on any network.

    Args:
        backbone: a name of `list_models()`, one of timm's names, or a `Spec`.
        detector: Faster R-CNN as in the paper, if not given.
        pretrained: True for the published classifier's weights in the backbone; or whatever `create_model` takes, a
            complete detector too; if its classes differ from `num_classes`, the class predictors start untrained.
        in_chans: of the images; a pretrained stem is adapted to them as by `create_model`.
        spec: fields of `Spec` to change.

    Raises:
        ResnestError: an unknown name or field, a combination that cannot be built, weights that cannot be had or do
            not fit.
    """
    if num_classes < 1:
        raise ResnestError(f"num_classes={num_classes} must be 1 or more: the background is not one of them")
    net = build_detector(find_structure(backbone, spec), detector or DetectorSpec(), num_classes, in_chans=in_chans)
    if pretrained is not False:
        WEIGHTS.load(net, find_pretrained(pretrained, backbone))
    return net

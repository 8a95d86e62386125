"""torchvision's detectors around a small backbone of ours: the peer that tests compare with."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool, LastLevelP6P7

from resnest.detection.card import DetectorSpec
from resnest.network import Backbone
from resnest.spec import Spec

NARROW = Spec(depths=(1, 2, 1, 1), planes=(8, 8, 16, 16), stem_width=4)
SMALL = {"fpn_channels": 8, "box_channels": 8, "box_features": 12, "mask_channels": 8}
TORCHVISION = {
    "Faster R-CNN": {"norm": "none", "box_convs": 0, "box_fcs": 2},
    "Mask R-CNN": {"norm": "none", "box_convs": 0, "box_fcs": 2, "masks": True},
    "Mask R-CNN, v2": {"norm": "batch", "masks": True},
}


def small_spec(**changes: object) -> DetectorSpec:
    return DetectorSpec(**{**SMALL, **changes})  # type: ignore[arg-type]


class Wrapped(nn.Module):
    """torchvision's BackboneWithFPN, its body ours."""

    def __init__(
        self,
        channels: int,
        norm: Callable[..., nn.Module] | None,
        maps: tuple[int, ...] = (1, 2, 3, 4),
        top: ExtraFPNBlock | None = None,
    ) -> None:
        super().__init__()
        self.body, self.out_channels = Backbone(NARROW, out_indices=maps, zero_gamma=False), channels
        self.fpn = FeaturePyramidNetwork(self.body.channels, channels, top or LastLevelMaxPool(), norm_layer=norm)

    def forward(self, x):  # type: ignore[no-untyped-def]
        return self.fpn({str(index): level for index, level in enumerate(self.body(x))})


def torchvisions(spec: DetectorSpec, classes: int, **settings: object) -> FasterRCNN:
    """What torchvision calls the detector of `spec`; `settings` are FasterRCNN's own."""
    norm, width = nn.BatchNorm2d if spec.norm == "batch" else None, spec.fpn_channels
    heads = {
        "box_head": FastRCNNConvFCHead(
            (width, 7, 7), [spec.box_channels] * spec.box_convs, [spec.box_features] * spec.box_fcs, norm_layer=norm
        )
        if spec.box_convs
        else TwoMLPHead(width * 49, spec.box_features),
        "box_predictor": FastRCNNPredictor(spec.box_features, classes + 1),
    }
    if not spec.masks:
        return FasterRCNN(Wrapped(width, norm), **heads, **settings)
    chans = spec.mask_channels
    heads["mask_head"] = MaskRCNNHeads(width, [chans] * spec.mask_convs, 1, norm_layer=norm)
    heads["mask_predictor"] = MaskRCNNPredictor(chans, chans, classes + 1)
    return MaskRCNN(Wrapped(width, norm), **heads, **settings)


def torchvisions_dense(spec: DetectorSpec, classes: int, **settings: object) -> RetinaNet | FCOS:
    """torchvision's RetinaNet or FCOS, on P3 to P7."""
    width = spec.fpn_channels
    inner = Wrapped(width, None, (2, 3, 4), LastLevelP6P7(width, width))
    kind = {"retinanet": RetinaNet, "fcos": FCOS}[spec.kind]
    return kind(inner, classes + 1, **settings)  # the background is the first class


@torch.no_grad()
def spread(module: nn.Module, run: Callable[[], object], deviation: float) -> None:
    """Scale and shift a layer so that what it says is about 0, and differs enough from place to place."""
    outputs: list[Tensor] = []
    handle = module.register_forward_hook(
        lambda _module, _inputs, output: outputs.append(output.movedim(1, -1).flatten(0, -2))  # (places, channels)
    )
    run()
    handle.remove()
    told = torch.cat(outputs) - module.bias  # type: ignore[operator]
    scale = deviation / (told - told.mean(0)).std()
    module.weight *= scale  # type: ignore[operator]
    module.bias.copy_(-told.mean(0) * scale)  # type: ignore[operator, union-attr]

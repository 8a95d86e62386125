"""Feature pyramids for torchvision's detectors.

    FasterRCNN(backbone_with_fpn("resnest50", pretrained=True), num_classes=91)
    RetinaNet(backbone_with_fpn("resnest50", returned_layers=(2, 3, 4), extra_blocks=LastLevelP6P7(256, 256)), 91)

In evaluation any number of images; in training two or more, or `attention_norm="frozen"`: docs/network.md, "Small
batches per device".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN

from resnest.checkpoints.loading import create_backbone
from resnest.errors import ResnestError
from resnest.network.tools import freeze, freeze_bn_statistics


def backbone_with_fpn(
    name: str,
    *,
    returned_layers: Sequence[int] = (1, 2, 3, 4),
    extra_blocks: nn.Module | None = None,
    out_channels: int = 256,
    norm_layer: Callable[..., nn.Module] | None = None,
    trainable_layers: int = 5,
    frozen_norms: bool = False,
    **backbone: Any,
) -> BackboneWithFPN:
    """A network with torchvision's pyramid on it: (N, 3, H, W) -> {"0": (N, out_channels, H/4, W/4), "1": ..., "pool"}.

    Args:
        name: of `list_models()`, or timm's.
        returned_layers: stages of the pyramid, from 1 to 4; RetinaNet and FCOS take 2 to 4.
        extra_blocks: levels on top; torchvision's max pool if not given, `LastLevelP6P7` for RetinaNet and FCOS.
        norm_layer: of the pyramid; none if not given.
        trainable_layers: the last stages that are trained, 5 for all and the stem; the others' norms are frozen, too.
        frozen_norms: keep the statistics of all batch norms, for few images a step.
        backbone: arguments of `create_backbone`, such as `pretrained=True` or `in_chans=4`.

    Raises:
        ResnestError: an unknown name, a stage that does not exist, weights that cannot be had or do not fit.
    """
    if not returned_layers or sorted({*returned_layers} & {1, 2, 3, 4}) != list(returned_layers):
        raise ResnestError(f"returned_layers={tuple(returned_layers)} must name stages from 1 to 4, in order")
    if trainable_layers not in range(6):
        raise ResnestError(f"trainable_layers={trainable_layers} must lie in 0 to 5")
    net = create_backbone(name, **backbone)
    freeze(net, 5 - trainable_layers)
    if frozen_norms:
        freeze_bn_statistics(net)
    layers = {f"layer{stage}": str(level) for level, stage in enumerate(returned_layers)}
    channels = net.feature_info.channels(list(returned_layers))
    return BackboneWithFPN(net, layers, channels, out_channels, extra_blocks, norm_layer)

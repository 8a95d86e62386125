"""Heads of segmenters by name, one file per family.

head = HEADS["unet"]
backbone = Backbone(spec, out_indices=head.takes)
logits = head(backbone.channels, SegmenterSpec(head="unet"), 21)(backbone(images), images.shape[2:])
"""

from __future__ import annotations

from resnest.segmentation.heads.common import Head
from resnest.segmentation.heads.deeplab import DeepLabV3Head, DeepLabV3PlusHead
from resnest.segmentation.heads.fcn import FCNHead, PSPHead
from resnest.segmentation.heads.fpn import FPNHead
from resnest.segmentation.heads.unet import UNetHead
from resnest.segmentation.heads.unetplusplus import UNetPlusPlusHead
from resnest.segmentation.heads.upernet import UPerNetHead

HEADS: dict[str, type[Head]] = {
    "deeplabv3": DeepLabV3Head,
    "deeplabv3plus": DeepLabV3PlusHead,
    "fcn": FCNHead,
    "psp": PSPHead,
    "unet": UNetHead,
    "unetplusplus": UNetPlusPlusHead,
    "fpn": FPNHead,
    "upernet": UPerNetHead,
}

"""Segmenters by name or by structure, with weights where wanted.

net = create_segmenter("resnest50", SegmenterSpec(head="psp"), num_classes=11, pretrained=True)
net.eval()(images)                     # normalised, of any size: logits (N, 11, H, W)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from resnest.checkpoints.create import find_pretrained, find_structure
from resnest.checkpoints.segmenters import load_segmenter_weights
from resnest.errors import ResnestError
from resnest.segmentation.segmenter import Segmenter, build_segmenter
from resnest.segmentation.spec import IGNORED, SegmenterSpec
from resnest.spec import Spec


def create_segmenter(
    backbone: Spec | str = "resnest50",
    segmenter: SegmenterSpec | None = None,
    *,
    num_classes: int = 150,
    pretrained: bool | str | Path = False,
    **spec: Any,
) -> Segmenter:
    """A segmenter on any network.

    Args:
        backbone: a name of `list_models()`, one of timm's names, or a `Spec`.
        segmenter: DeepLabV3 at output stride 8 as in the paper, if not given.
        pretrained: True for the published classifier's weights in the backbone; or whatever `create_model` takes, a
            whole segmenter too: what predicts other classes than `num_classes` then starts untrained.
        spec: fields of `Spec` to change.

    Raises:
        ResnestError: an unknown name or field, a combination that cannot be built, weights that cannot be had or do
            not fit.
    """
    if not 1 <= num_classes <= IGNORED:
        raise ResnestError(f"num_classes={num_classes} must lie in 1 to {IGNORED}: the label 255 does not count")
    net = build_segmenter(find_structure(backbone, spec), segmenter or SegmenterSpec(), num_classes)
    if pretrained is not False:
        load_segmenter_weights(net, find_pretrained(pretrained, backbone))
    return net

"""Detectors by name or by structure, with weights where wanted.

net = create_detector("resnest50", DetectorSpec(cascade=True), num_classes=3, pretrained=True)
net.eval()(images)                     # normalised, sides multiples of 32: boxes, scores, labels
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from resnest.checkpoints.create import find_pretrained, find_structure
from resnest.checkpoints.detectors import load_detector_weights
from resnest.detection.detector import Detector, build_detector
from resnest.detection.spec import DetectorSpec
from resnest.errors import ResnestError
from resnest.spec import Spec


def create_detector(
    backbone: Spec | str = "resnest50",
    detector: DetectorSpec | None = None,
    *,
    num_classes: int = 80,
    pretrained: bool | str | Path = False,
    **spec: Any,
) -> Detector:
    """A detector on any network.

    Args:
        backbone: a name of `list_models()`, one of timm's names, or a `Spec`.
        detector: Faster R-CNN as in the paper, if not given.
        pretrained: True for the published classifier's weights in the backbone; or whatever `create_model` takes, a
            whole detector too: what predicts other classes than `num_classes` then starts untrained.
        spec: fields of `Spec` to change.

    Raises:
        ResnestError: an unknown name or field, a combination that cannot be built, weights that cannot be had or do
            not fit.
    """
    if num_classes < 1:
        raise ResnestError(f"num_classes={num_classes} must be 1 or more: the background is not one of them")
    net = build_detector(find_structure(backbone, spec), detector or DetectorSpec(), num_classes)
    if pretrained is not False:
        load_detector_weights(net, find_pretrained(pretrained, backbone))
    return net

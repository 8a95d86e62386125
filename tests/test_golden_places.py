"""Golden outputs of detectors, segmenters and a panoptic detector: whole networks, from pixels to boxes and labels.

As test_network_golden.py does for classifiers: weights and image follow from names and shapes alone, the network runs
in float64, and what comes out equals what is stored in golden/places.json to 1e-6 of its largest value: anchors, scores
and masks pass through float32 there too.

    python tests/test_golden_places.py       # rewrites golden/places.json

Rewrite it only if the mathematics is meant to change. It is never rewritten to make a test pass.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import resnest
from recorded_runs import unpack
from resnest import DetectorSpec, SegmenterSpec, Spec
from test_network_golden import golden_value, uniform

GOLDEN = Path(__file__).parent / "golden" / "places.json"
SPEC = Spec(depths=(1, 1, 1, 1), planes=(8, 8, 8, 8), stem_width=4)
IMAGES = torch.Size((2, 3, 64, 96))
NARROW: dict[str, Any] = {
    "fpn_channels": 8, "box_channels": 8, "box_features": 8, "mask_channels": 8, "anchor_sizes": (8, 16, 32, 48, 64),
    "pre_nms": (60, 60), "post_nms": (40, 40), "score_threshold": 0.3, "max_detections": 8,
}  # fmt: skip


def _panoptic() -> nn.Module:
    """Of the recorded run: there is no function that creates one."""
    with TemporaryDirectory() as folder:
        return resnest.Model.from_pretrained(unpack("panoptic", Path(folder))).net


def _detector(**settings: Any) -> Callable[[], nn.Module]:
    return lambda: resnest.create_detector(SPEC, DetectorSpec(**NARROW, **settings), num_classes=3)


def _one_stage(kind: str) -> Callable[[], nn.Module]:
    spec = DetectorSpec(kind=kind, fpn_channels=8, head_convs=2, candidates=60, score_threshold=0.3, max_detections=8)
    return lambda: resnest.create_detector(SPEC, spec, num_classes=3)


def _segmenter(**settings: Any) -> Callable[[], nn.Module]:
    return lambda: resnest.create_segmenter(SPEC, SegmenterSpec(channels=8, **settings), num_classes=5)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "boxes": _detector(norm="none", box_convs=0, box_fcs=2),
    "masks": _detector(masks=True, mask_convs=2, box_convs=1),
    "cascade, masks, deformable": _detector(masks=True, cascade=True, deform=(False, True, True, True)),
    "torchvision's conventions": _detector(preset="torchvision", norm="none", box_convs=0, box_fcs=2),
    "retinanet": _one_stage("retinanet"),
    "fcos": _one_stage("fcos"),
    "deeplabv3": _segmenter(),
    "deeplabv3plus": _segmenter(head="deeplabv3plus", output_stride=16, low_channels=8),
    "fcn": _segmenter(head="fcn", output_stride=32),
    "psp": _segmenter(head="psp"),
    "panoptic": _panoptic,
}


def _outputs(found: Any) -> dict[str, Tensor]:
    """By name; of boxes with their scores, labels and masks, and of logits, all that there is."""
    if isinstance(found, Tensor):
        return {"logits": found}
    if hasattr(found, "semantic"):
        return {**_outputs(found.objects), "semantic": found.semantic}
    there = found.scores > 0  # what else is said of other places means nothing
    named = {name: getattr(found, name) for name in ("boxes", "scores", "labels", "masks")}
    return {
        name: tensor * there[(...,) + (None,) * (tensor.ndim - 2)]
        for name, tensor in named.items()
        if tensor is not None
    }


def golden_outputs(name: str) -> dict[str, dict[str, Any]]:
    """Shape, norm, largest value and some values of each output."""
    net = NETWORKS[name]().double().eval()
    net.load_state_dict({key: golden_value(key, value.shape) for key, value in net.state_dict().items()})
    sizes = torch.tensor([[64, 96], [61, 70]])
    with torch.no_grad():
        found = net(uniform("image", IMAGES, -2, 2), *[sizes] * hasattr(net, "detect"))
    rows = {}
    for key, tensor in _outputs(found).items():
        flat = tensor.double().flatten()
        step = max(1, len(flat) // 16 | 1)  # odd, or it would meet the same columns again and again
        values = flat if len(flat) <= 64 else flat[::step]
        rows[key] = {"shape": list(tensor.shape), "norm": flat.norm().item(), "largest": flat.abs().max().item()}
        rows[key]["values"] = values.tolist()
    return rows


def stored() -> dict[str, Any]:
    rows: dict[str, Any] = json.loads(GOLDEN.read_text(encoding="ascii"))
    return rows


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_equal_the_golden_ones(name: str) -> None:
    golden, outputs = stored()[name], golden_outputs(name)
    assert outputs.keys() == golden.keys()
    for key, expected in golden.items():
        assert outputs[key]["shape"] == expected["shape"]
        assert expected["norm"] > 0
        for figure in ("norm", "values"):
            close = pytest.approx(expected[figure], rel=1e-6, abs=1e-6 * expected["largest"])
            assert outputs[key][figure] == close, key


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({name: golden_outputs(name) for name in NETWORKS}, indent=1) + "\n", encoding="ascii")

"""With identical weights and preset="torchvision", ours give what torchvision's detectors give.

Two real photos of different sizes, padded to one, resized once for both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from conftest import shared_data
from peers import NARROW, TORCHVISION, small_spec, spread, torchvisions, torchvisions_dense
from resnest.detection.card import DetectorSpec
from resnest.detection.detector import DetectionOutput, Detector, build_detector
from resnest.detection.object_masks import ObjectMasks
from resnest.detection.rcnn import RCNN
from resnest.detection.rpn import Target
from resnest.detection.weights import to_ours
from resnest.network import Backbone

CLASSES = 4
SIZES = [(224, 320), (256, 208)]  # height, width, before padding to 256 x 320
ALL = 10**6  # anchors and proposals to learn from: whatever there is, so that nothing is drawn
TOLERANCE = 1e-4
WIDTHS = {"fpn_channels": 32, "box_channels": 32, "box_features": 64, "mask_channels": 16}


@pytest.fixture(scope="module")
def images(request: pytest.FixtureRequest) -> Tensor:
    files = sorted((shared_data() / "coco200-panoptic" / "images" / "val").glob("*.jpg"))[:2]
    pictures = [Image.open(file) for file in files]
    pictures = pictures or [image for _, image in request.getfixturevalue("digit_images")[:2]]
    batch = torch.zeros(len(SIZES), 3, 256, 320)
    for place, picture, (height, width) in zip(batch, pictures, SIZES, strict=True):
        pixels = np.asarray(picture.convert("RGB").resize((width, height)), dtype=np.float32)
        place[:, :height, :width] = torch.from_numpy((pixels - 115) / 57).permute(2, 0, 1)
    return batch


@pytest.fixture(scope="module")
def targets() -> list[Target]:
    """Boxes of all sizes, some of them one above the other; their masks are ellipses. The second image has none."""
    boxes = torch.tensor(
        [[10, 20, 60, 90], [12, 25, 70, 80], [100, 40, 310, 200.5], [5, 5, 15, 12], [200, 100, 300, 220]]
    )
    masks = torch.zeros(len(boxes), *SIZES[0], dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        y, x = torch.meshgrid(*map(torch.arange, SIZES[0]), indexing="ij")
        mask |= ((x - x1) / (x2 - x1) * 2 - 1) ** 2 + ((y - y1) / (y2 - y1) * 2 - 1) ** 2 <= 1
    none = Target(
        torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), SIZES[1], ObjectMasks.of(masks.new_zeros(0, *SIZES[1]))
    )
    return [Target(boxes, torch.tensor([0, 3, 1, 2, 3]), SIZES[0], ObjectMasks.of(masks)), none]


@torch.no_grad()
def _pair(kind: str, images: Tensor) -> tuple[FasterRCNN, RCNN]:
    """torchvision's with random weights that find many things, and ours with the same."""
    torch.manual_seed(0)
    spec = small_spec(
        preset="torchvision", **WIDTHS, **TORCHVISION[kind], rpn_batch=ALL, roi_batch=ALL, post_nms=(150, 150)
    )
    theirs = torchvisions(spec, CLASSES, rpn_batch_size_per_image=ALL, box_batch_size_per_image=ALL,
                          rpn_post_nms_top_n_train=150, rpn_post_nms_top_n_test=150)  # fmt: skip
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the statistics of the photos themselves
    theirs.train()
    theirs.backbone(images)
    theirs.eval()

    def run() -> object:
        return _theirs(theirs, images)

    predictor = theirs.roi_heads.box_predictor
    for module, deviation in ((theirs.rpn.head.cls_logits, 2.0), (theirs.rpn.head.bbox_pred, 0.3),
                              (predictor.cls_score, 2.5), (predictor.bbox_pred, 1.0)):  # fmt: skip
        spread(module, run, deviation)
    if spec.masks:
        spread(theirs.roi_heads.mask_predictor.mask_fcn_logits, run, 2.0)
    ours = RCNN(Backbone(NARROW), spec, CLASSES).eval()
    ours.load_state_dict(to_ours(theirs.state_dict(), "torchvision").state)
    return theirs, ours


def _theirs(net: FasterRCNN, images: Tensor, targets: list[dict[str, Tensor]] | None = None) -> object:
    """Without its own resizing; in training mode the losses."""
    features = net.backbone(images)
    proposals, losses = net.rpn(ImageList(images, SIZES), features, targets)
    found, more = net.roi_heads(features, proposals, SIZES, targets)
    return {**losses, **more} if net.training else found


@pytest.mark.parametrize("kind", TORCHVISION)
def test_predictions_are_torchvisions(kind: str, images: Tensor) -> None:
    theirs, ours = _pair(kind, images)
    with torch.no_grad():
        _assert_same(_theirs(theirs, images), ours(images, torch.tensor(SIZES)))


def _assert_same(expected: Any, got: DetectionOutput) -> None:
    """Every box of each image has its own counterpart."""
    for place, image in enumerate(expected):
        count = len(image["boxes"])
        assert count == int((got.scores[place] > 0).sum()) >= 50
        used = set()
        for number in range(count):
            apart = (got.boxes[place, :count] - image["boxes"][number]).abs().amax(1) / max(SIZES[place])
            apart[got.labels[place, :count] != image["labels"][number] - 1] = 1
            other = int(apart.argmin())
            used.add(other)
            assert apart[other] <= TOLERANCE
            assert abs(got.scores[place, other] - image["scores"][number]) <= TOLERANCE
            if "masks" in image:
                assert (got.masks[place, other] - image["masks"][number, 0]).abs().max() <= TOLERANCE
        assert len(used) == count


@pytest.mark.parametrize("kind", TORCHVISION)
def test_losses_are_torchvisions(kind: str, images: Tensor, targets: list[Target]) -> None:
    theirs, ours = _pair(kind, images)
    theirs.train()
    ours.train()
    told = [
        {"boxes": one.boxes, "labels": one.labels + 1, "masks": one.masks.drawn(dtype=torch.uint8)}  # type: ignore[union-attr]
        for one in targets
    ]
    expected: dict[str, Tensor] = _theirs(theirs, images, told)  # type: ignore[assignment]
    got = ours(images, torch.tensor(SIZES), targets)
    names = {
        "rpn_objectness": "loss_objectness",
        "rpn_box": "loss_rpn_box_reg",
        "class": "loss_classifier",
        "box": "loss_box_reg",
        "mask": "loss_mask",
    }
    _assert_same_losses(theirs, ours, expected, {names[name]: loss for name, loss in got.items()})


def _assert_same_losses(
    theirs: nn.Module, ours: Detector, expected: Mapping[str, Tensor], got: Mapping[str, Tensor]
) -> None:
    """And gradients."""
    assert got.keys() == expected.keys()
    for name, loss in got.items():
        assert loss > 1e-3
        assert abs(loss - expected[name]) <= TOLERANCE * loss, name
    sum(expected.values()).backward()  # type: ignore[union-attr]
    sum(got.values()).backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    translated = to_ours(gradients, "torchvision").state
    noise = 1e-6 * max(gradient.abs().max() for gradient in translated.values())  # of a bias before a norm: all it has
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None
        scale = translated[name].abs().max()
        assert scale > 0
        assert (parameter.grad - translated[name]).abs().max() <= 1e-3 * scale + noise, name


# --- RetinaNet and FCOS ---

ONE_STAGE: dict[str, dict[str, Any]] = {
    "retinanet": {"anchor_sizes": (16, 32, 64, 128, 256), "score_threshold": 0.99},
    "fcos": {"score_threshold": 0.8},
}


@torch.no_grad()
def _dense_pair(kind: str, images: Tensor) -> tuple[nn.Module, Detector]:
    """torchvision's with random weights that find many things but no background, and ours with the same."""
    torch.manual_seed(0)
    settings = {"fpn_channels": 64, "max_detections": 3000, "candidates": 2000}
    spec = DetectorSpec(kind=kind, preset="torchvision", norm="none", **settings, **ONE_STAGE[kind])
    told: dict[str, Any] = {"score_thresh": spec.min_score, "detections_per_img": 3000, "topk_candidates": 2000}
    if kind == "retinanet":
        sizes = tuple(tuple(int(size * 2 ** (scale / 3)) for scale in range(3)) for size in spec.anchor_sizes)
        told["anchor_generator"] = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5)
    theirs = torchvisions_dense(spec, CLASSES, **told)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    theirs.train()
    theirs.backbone(images)
    theirs.eval()
    classes, boxes = theirs.head.classification_head, theirs.head.regression_head
    last = [(classes.cls_logits, 2.0), (boxes.bbox_reg, 0.5)]
    for module, deviation in [*last, *([(boxes.bbox_ctrness, 1.0)] if kind == "fcos" else [])]:
        spread(module, lambda: theirs.head(list(theirs.backbone(images).values())), deviation)
    boxes.bbox_reg.bias += 1.0 if kind == "fcos" else 0.0  # distances are positive
    rows = classes.cls_logits.bias.view(-1, CLASSES + 1)
    rows[:, 0] = -100.0
    classes.cls_logits.weight.unflatten(0, rows.shape)[:, 0] = 0.0
    ours = build_detector(NARROW, spec, CLASSES).eval()
    ours.load_state_dict(to_ours(theirs.state_dict(), "torchvision").state)
    return theirs, ours


def _dense_theirs(net: Any, images: Tensor, targets: list[dict[str, Tensor]] | None = None) -> Any:
    """Without its own resizing; in training mode the losses."""
    levels = list(net.backbone(images).values())
    outputs, anchors = net.head(levels), net.anchor_generator(ImageList(images, SIZES), levels)
    places = len(anchors[0]) // sum(level.shape[2] * level.shape[3] for level in levels)
    counts = [level.shape[2] * level.shape[3] * places for level in levels]
    if net.training:
        return net.compute_loss(targets, outputs, anchors, *([counts] if isinstance(net, FCOS) else []))
    split = {name: list(value.split(counts, dim=1)) for name, value in outputs.items()}
    return net.postprocess_detections(split, [list(one.split(counts)) for one in anchors], SIZES)


@pytest.mark.parametrize("kind", ONE_STAGE)
def test_one_stage_predictions_are_torchvisions(kind: str, images: Tensor) -> None:
    theirs, ours = _dense_pair(kind, images)
    with torch.no_grad():
        expected, got = _dense_theirs(theirs, images), ours(images, torch.tensor(SIZES))
    for image in expected:  # what lies in the padding has no area there; ours leaves it out
        real = (image["boxes"][:, 2:] > image["boxes"][:, :2]).all(1)
        assert len(real) < 3000
        image.update({name: value[real] for name, value in image.items()})
    _assert_same(expected, got)


@pytest.mark.parametrize("kind", ONE_STAGE)
def test_one_stage_losses_are_torchvisions(kind: str, images: Tensor, targets: list[Target]) -> None:
    theirs, ours = _dense_pair(kind, images)
    theirs.train()
    ours.train()
    told = [{"boxes": one.boxes, "labels": one.labels + 1} for one in targets]
    expected: dict[str, Tensor] = _dense_theirs(theirs, images, told)
    names = {"class": "classification", "box": "bbox_regression", "centerness": "bbox_ctrness"}
    got = ours(images, torch.tensor(SIZES), targets)
    _assert_same_losses(theirs, ours, expected, {names[name]: loss for name, loss in got.items()})

"""Each default of detectron2 that differs from torchvision's, against its formula, written out here.

Sources: detectron2, modeling/{anchor_generator,poolers,box_regression}.py, proposal_generator/rpn.py and
proposal_utils.py, roi_heads/{fast_rcnn,cascade_rcnn}.py, structures/masks.py. How masks are pasted: tests/test_rle.py.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peers import NARROW, small_spec
from resnest.detection import rcnn as rcnn_module
from resnest.detection.card import DetectorSpec
from resnest.detection.detector import Detector, build_detector
from resnest.detection.heads import BoxHead, box_levels, mask_targets, roi_align_levels
from resnest.detection.object_masks import ObjectMasks
from resnest.detection.rpn import ProposalNetwork, Target, level_anchors

SIZE = (128, 192)
CLASSES = 3
WEIGHTS = ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))  # ROI_BOX_CASCADE_HEAD
IOUS = (0.5, 0.6, 0.7)


# --- formulas ---


def _roi_align(image: Tensor, box: list[float], side: int, scale: float) -> Tensor:
    """(H, W) and a box -> (side, side): half-pixel centres, as many samples as a bin is pixels long (ROIAlignV2)."""
    x1, y1, x2, y2 = (value * scale - 0.5 for value in box)
    bin_h, bin_w = (y2 - y1) / side, (x2 - x1) / side
    count_y, count_x = max(math.ceil(bin_h), 0), max(math.ceil(bin_w), 0)
    out = torch.zeros(side, side)
    for row in range(side):
        for col in range(side):
            for i in range(count_y):
                for j in range(count_x):
                    y = y1 + row * bin_h + (i + 0.5) * bin_h / count_y
                    x = x1 + col * bin_w + (j + 0.5) * bin_w / count_x
                    out[row, col] += _bilinear(image, y, x) / (count_y * count_x)
    return out


def _bilinear(image: Tensor, y: float, x: float) -> float:
    height, width = image.shape
    if y < -1 or y > height or x < -1 or x > width:
        return 0.0
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = int(y), int(x)
    below, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = y - top, x - left
    upper = image[top, left] * (1 - dx) + image[top, right] * dx
    lower = image[below, left] * (1 - dx) + image[below, right] * dx
    return float(upper * (1 - dy) + lower * dy)


def _deltas(source: Tensor, target: Tensor, weights: tuple[float, ...]) -> Tensor:
    """Box2BoxTransform.get_deltas."""
    ws, hs, wt, ht = (box[:, 2 + i] - box[:, i] for box in (source, target) for i in (0, 1))
    xs, ys, xt, yt = (box[:, i] + 0.5 * (box[:, 2 + i] - box[:, i]) for box in (source, target) for i in (0, 1))
    parts = ((xt - xs) / ws, (yt - ys) / hs, torch.log(wt / ws), torch.log(ht / hs))
    return torch.stack([weight * part for weight, part in zip(weights, parts, strict=True)], dim=1)


def _moved(deltas: Tensor, boxes: Tensor, weights: tuple[float, ...]) -> Tensor:
    """Box2BoxTransform.apply_deltas: (M, 4), (M, 4) -> (M, 4)."""
    w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    x, y = boxes[:, 0] + 0.5 * w, boxes[:, 1] + 0.5 * h
    dx, dy, dw, dh = (deltas[:, i] / weights[i] for i in range(4))
    x, y = dx * w + x, dy * h + y
    w, h = (torch.exp(d.clamp(max=math.log(1000.0 / 16))) * side for d, side in ((dw, w), (dh, h)))
    return torch.stack([x - 0.5 * w, y - 0.5 * h, x + 0.5 * w, y + 0.5 * h], dim=1)


def _iou(one: Tensor, other: Tensor) -> float:
    width = max(0.0, float(torch.minimum(one[2], other[2]) - torch.maximum(one[0], other[0])))
    height = max(0.0, float(torch.minimum(one[3], other[3]) - torch.maximum(one[1], other[1])))
    areas = [float((box[2] - box[0]) * (box[3] - box[1])) for box in (one, other)]
    return width * height / (sum(areas) - width * height)


def _clipped(boxes: Tensor) -> Tensor:
    return torch.stack([boxes[:, i].clamp(0, SIZE[1 - i % 2]) for i in range(4)], dim=1)


# --- parts ---


def test_anchors_are_not_rounded_and_begin_at_the_corner() -> None:
    spec = DetectorSpec()
    for level, stride in enumerate((4, 8, 16, 32, 64)):
        got = level_anchors(spec, level, size=(2, 3), strides=(stride, stride), like=torch.zeros(1))
        expected = []
        for row in range(2):
            for col in range(3):
                for ratio in (0.5, 1.0, 2.0):
                    w = math.sqrt(spec.anchor_sizes[level] ** 2 / ratio)
                    h = ratio * w
                    x, y = col * stride, row * stride  # ANCHOR_GENERATOR.OFFSET 0
                    expected.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
        torch.testing.assert_close(got, torch.tensor(expected))
        assert (got - got.round()).abs().max() > 0.01


def test_levels_of_boxes() -> None:
    """Equation 1 of the pyramid's paper, with an epsilon within the logarithm instead of torchvision's behind it."""
    sides = torch.tensor([0.0, 1e-3, 50, 111.9, 112, 223.9999, 224, 447, 448, 5000])
    boxes = torch.stack([sides * 0, sides * 0, sides, sides], dim=1)
    expected = [min(max(math.floor(4 + math.log2(side / 224 + 1e-8)), 2), 5) - 2 for side in sides.tolist()]
    assert box_levels(boxes, "detectron2").tolist() == expected == [0, 0, 0, 0, 1, 1, 2, 2, 3, 3]
    assert box_levels(boxes, "torchvision").tolist()[5] == 2  # a millionth more


@pytest.mark.parametrize(
    "box", [[10.0, 12.0, 61.5, 40.0], [-4.0, 3.0, 30.0, 140.0], [20.0, 20.0, 20.5, 20.5], [0.0, 0.0, 191.0, 127.0]]
)
def test_regions_are_roi_align_levels_at_half_pixels_with_as_many_samples_as_pixels(box: list[float]) -> None:
    torch.manual_seed(0)
    levels = [torch.randn(1, 1, SIZE[0] // stride, SIZE[1] // stride) for stride in (4, 8, 16, 32)]
    got = roi_align_levels(levels, torch.tensor([[box]]), size=7, preset="detectron2")[0, 0]
    level = int(box_levels(torch.tensor([box]), "detectron2"))
    torch.testing.assert_close(got, _roi_align(levels[level][0, 0], box, 7, 1 / (4 << level)), rtol=0, atol=1e-5)


def test_regions_keep_their_place_where_features_have_16_bits() -> None:
    """bfloat16 counts in fours from 512 on: a box must not be rounded to its features' type."""
    torch.manual_seed(0)
    levels = [torch.randn(1, 2, 96 * 4 // stride, 1344 // stride).bfloat16() for stride in (4, 8, 16, 32)]
    box = torch.tensor([[[901.3, 33.2, 1003.7, 80.9]]])
    expected = roi_align_levels([level.float() for level in levels], box, size=7, preset="detectron2")
    with torch.autocast("cpu", torch.bfloat16):
        got = roi_align_levels(levels, box, size=7, preset="detectron2")
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), expected, rtol=2**-8, atol=0)


def test_masks_to_learn_are_roi_align_levels_so_too_and_rounded() -> None:
    """BitMasks.crop_and_resize."""
    torch.manual_seed(0)
    masks = F.interpolate(torch.randn(20, 1, 9, 11), size=SIZE, mode="bilinear")[:, 0] > 0  # more than at once
    boxes = [[3.0, 5.5, 60.0, 70.0], [40.0, 60.0, 55.0, 70.0], [40.0, 60.0, 55.0, 70.0]]
    got = mask_targets(ObjectMasks.of(masks), torch.tensor(boxes), torch.tensor([17, 0, 9]), "detectron2")
    assert got.unique().tolist() == [0, 1]
    for aim, box, matched in zip(got, boxes, (17, 0, 9), strict=True):
        values = _roi_align(masks[matched].float(), box, 28, 1.0)
        clear = (values - 0.5).abs() > 1e-5
        assert torch.equal(aim[clear], (values >= 0.5).float()[clear])


def test_the_background_is_the_last_class() -> None:
    head = BoxHead(8, small_spec(), CLASSES, WEIGHTS[0])
    logits, deltas = torch.zeros(4, CLASSES + 1), torch.zeros(4, CLASSES, 4)
    boxes = torch.tensor([[0.0, 0, 10, 10]]).expand(4, 4)
    logits[:, CLASSES] = 9  # sure that there is nothing
    nothing, somewhere = head.losses(logits, deltas, boxes, torch.full((4,), CLASSES), boxes)
    assert nothing < 1e-3
    assert somewhere == 0
    assert head.losses(logits, deltas, boxes, torch.zeros(4, dtype=torch.int64), boxes)[0] > 8


def test_losses_of_the_box_head() -> None:
    """Cross-entropy, and plain L1 of the deltas of the true class over the number of all sampled regions."""
    torch.manual_seed(0)
    head = BoxHead(8, small_spec(), CLASSES, WEIGHTS[0])
    logits, deltas = torch.randn(6, CLASSES + 1), torch.randn(6, CLASSES, 4) * 0.01  # where smooth L1 would be smooth
    boxes = torch.rand(6, 4) * 20 + torch.tensor([0.0, 0, 30, 30])
    truth = boxes + torch.rand(6, 4) * 0.02
    labels = torch.tensor([0, 2, CLASSES, 1, CLASSES, CLASSES])
    got = head.losses(logits, deltas, boxes, labels, truth)
    wanted, distance = _deltas(boxes, truth, WEIGHTS[0]), 0.0
    for row in (0, 1, 3):
        distance += float((deltas[row, labels[row]] - wanted[row]).abs().sum())
    entropy = -sum(float(logits[row].log_softmax(0)[labels[row]]) for row in range(6)) / 6
    assert got[0].item() == pytest.approx(entropy, rel=1e-5)
    assert got[1].item() == pytest.approx(distance / 6, rel=1e-3)


@torch.no_grad()
def test_losses_of_the_proposals() -> None:
    """Both over what could have been sampled: RPN.BATCH_SIZE_PER_IMAGE times the images, however many there were."""
    torch.manual_seed(0)
    rpn = ProposalNetwork(8, small_spec(rpn_batch=100_000))
    nn.init.normal_(rpn.objectness.weight, std=0.5)
    levels = [torch.randn(2, 8, math.ceil(SIZE[0] / s), math.ceil(SIZE[1] / s)) for s in (4, 8, 16, 32, 64)]
    found = rpn(levels, SIZE, torch.tensor([SIZE, SIZE]))
    truth = torch.tensor([[20.0, 30, 70, 75], [100.0, 10, 180, 120]])
    targets = [Target(truth, torch.zeros(2, dtype=torch.int64), SIZE)] * 2
    got = rpn.losses(found, targets)
    overlaps = torch.tensor([[_iou(box, anchor) for anchor in found.anchors] for box in truth])  # (2, M)
    most, matched = overlaps.max(0)
    positive = (most >= 0.7) | (overlaps == overlaps.amax(1, keepdim=True)).any(0)
    counts = positive | (most < 0.3)
    aim = _deltas(found.anchors[positive], truth[matched[positive]], (1.0, 1.0, 1.0, 1.0))
    entropy, distance = 0.0, 0.0
    for logits, deltas in zip(found.logits, found.deltas, strict=True):
        wanted = positive[counts].float()
        entropy += float(F.binary_cross_entropy_with_logits(logits[counts], wanted, reduction="sum"))
        distance += float((deltas[positive] - aim).abs().sum())
    assert got["rpn_objectness"].item() == pytest.approx(entropy / (100_000 * 2), rel=1e-4)
    assert got["rpn_box"].item() == pytest.approx(distance / (100_000 * 2), rel=1e-4)


def test_no_size_is_too_small() -> None:
    """MIN_SIZE 0: a proposal of a ten-thousandth pixel stays, one without area goes; torchvision drops both."""
    for preset, expected in (("detectron2", 1), ("torchvision", 0)):
        rpn = ProposalNetwork(8, small_spec(preset=preset, pre_nms=(9, 9), post_nms=(9, 9)))
        anchors = torch.tensor([[10.0, 10, 10.0001, 10.0001], [9.0, 9, 9, 12]])
        boxes, exists = rpn._select_proposals([torch.ones(2)], [torch.zeros(2, 4)], [anchors], torch.tensor(SIZE))
        assert int(exists.sum()) == expected
        assert boxes.shape == (9, 4)


# --- the cascade ---


@pytest.fixture
def cascade(monkeypatch: pytest.MonkeyPatch) -> tuple[Detector, list[dict[str, Tensor]]]:
    """With heads that move boxes, and what each of them learned from in the last step."""
    torch.manual_seed(0)
    net = build_detector(NARROW, small_spec(cascade=True, post_nms=(60, 60), roi_batch=64), CLASSES)
    seen: list[dict[str, Tensor]] = []
    for head in net.box_heads:
        nn.init.normal_(head.deltas.weight, std=0.5)  # type: ignore[arg-type]
    original = BoxHead.losses

    def spy(self: BoxHead, *values: Tensor) -> tuple[Tensor, Tensor]:
        names = ("logits", "deltas", "boxes", "labels", "truth")
        seen.append({name: value.detach() for name, value in zip(names, values, strict=True)})
        return original(self, *values)

    monkeypatch.setattr(BoxHead, "losses", spy)
    return net, seen


def _step(net: Detector, truth: Tensor, labels: Tensor) -> dict[str, Tensor]:
    torch.manual_seed(1)
    images = torch.randn(2, 3, *SIZE)
    losses = net.train()(images, None, [Target(truth, labels, SIZE)] * 2)
    assert isinstance(losses, dict)
    return losses


def test_each_head_of_a_cascade_starts_where_the_one_before_ended(
    cascade: tuple[Detector, list[dict[str, Tensor]]],
) -> None:
    """Class-agnostic deltas with each head's own weights, matched anew at 0.5, 0.6 and 0.7, none left out."""
    net, seen = cascade
    truth, labels = torch.tensor([[20.0, 30, 70, 75], [100.0, 10, 180, 120]]), torch.tensor([2, 0])
    _step(net, truth, labels)
    assert len(seen) == 3
    for stage, one in enumerate(seen):
        assert one["deltas"].shape[1:] == (1, 4)
        assert tuple(net.box_heads[stage].weights) == WEIGHTS[stage]  # type: ignore[arg-type]
        if stage:
            before = seen[stage - 1]
            expected = _clipped(_moved(before["deltas"][:, 0], before["boxes"], WEIGHTS[stage - 1]))
            expected = expected[(expected[:, 2] > expected[:, 0]) & (expected[:, 3] > expected[:, 1])]
            torch.testing.assert_close(one["boxes"], expected, rtol=1e-5, atol=1e-3)
        for box, label, aim in zip(one["boxes"], one["labels"], one["truth"], strict=True):
            overlaps = [_iou(box, other) for other in truth]
            matched = overlaps.index(max(overlaps))
            assert torch.equal(aim, truth[matched])
            assert int(label) == (int(labels[matched]) if max(overlaps) >= IOUS[stage] else CLASSES)
    assert any((one["labels"] < CLASSES).any() for one in seen[1:])


def test_a_cascade_moves_the_pyramid_as_far_as_one_head(
    cascade: tuple[Detector, list[dict[str, Tensor]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients of all heads reach the features by a third (_ScaleGradient), and the heads in full."""
    net, _ = cascade
    truth, labels = torch.tensor([[20.0, 30, 70, 75]]), torch.tensor([1])

    def gradients() -> tuple[Tensor, Tensor]:
        losses = _step(net, truth, labels)
        loss = sum(value for name, value in losses.items() if not name.startswith("rpn"))
        wanted = [net.fpn.output[0].conv.weight, net.box_heads[1].score.weight]
        pyramid, head = torch.autograd.grad(loss, wanted)  # type: ignore[arg-type]
        return pyramid, head

    scaled = gradients()
    monkeypatch.setattr(rcnn_module._ScaleGradient, "apply", lambda x, factor: x)
    full = gradients()
    torch.testing.assert_close(scaled[0], full[0] / 3, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(scaled[1], full[1])


@torch.no_grad()
def test_scores_of_a_cascade_are_the_mean_and_boxes_the_last(cascade: tuple[Detector, list[dict[str, Tensor]]]) -> None:
    net, _ = cascade
    net.eval()
    torch.manual_seed(2)
    levels = net.features(torch.randn(1, 3, *SIZE))
    boxes = torch.tensor([[[10.0, 10, 60, 50], [100.0, 20, 190, 120]]])
    scores, moved = net.classify(levels, boxes, torch.tensor([SIZE]))
    expected, current = [], boxes[0]
    for head, weights in zip(net.box_heads, WEIGHTS, strict=True):
        start = current if not expected else _clipped(current)
        logits, deltas = head(roi_align_levels(levels, start[None], size=7, preset="detectron2"))
        expected.append(logits.softmax(1)[:, :CLASSES])
        current = _moved(deltas[:, 0], start, weights)
    torch.testing.assert_close(scores[0], sum(expected) / 3)
    torch.testing.assert_close(moved[0, :, 0], current)

"""RetinaNet and FCOS: losses by hand, what each anchor and each place learns, shapes, suppression."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from one_stage import CASES, SIZES, SMALL, build, target
from painted import TINY
from resnest.detection.card import DetectorSpec
from resnest.detection.detector import build_detector
from resnest.detection.fcos import FCOS, centerness
from resnest.detection.one_stage import suppress
from resnest.detection.retinanet import RetinaNet
from resnest.detection.rpn import nms_per_class
from resnest.inference.prepare import prepared_full_model

PAIRS = {
    "two": (target((8, 8, 40, 40), (50, 20, 90, 60)), target((5, 30, 60, 60), size=(61, 70))),
    "nothing in one": (target((8, 8, 40, 40)), target(size=(61, 70))),
    "nothing in any": (target(), target(size=(61, 70))),
    "one pixel": (target((10, 10, 11, 11)), target((0, 0, 1, 1), size=(61, 70))),
    "one over another": (target((8, 8, 40, 40), (8, 8, 40, 40)), target((0, 0, 70, 61), size=(61, 70))),
}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("case", CASES)
def test_losses_are_finite_and_reach_every_parameter(case: str, pair: str) -> None:
    net = build(case).train()
    losses = net(torch.randn(2, 3, 64, 96), SIZES, PAIRS[pair])
    assert losses.keys() == {"class", "box", *(["centerness"] if "fcos" in case else [])}
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert total.isfinite()
    assert all(one.grad is not None and one.grad.isfinite().all() for one in net.parameters())
    if pair == "two":
        assert all(one.grad.any() for name, one in net.named_parameters() if "dense" in name or "fpn" in name)


@pytest.mark.parametrize("case", CASES)
def test_what_is_found_has_one_shape_and_depends_on_no_other_picture(case: str) -> None:
    net = build(case).eval()
    images = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        found, alone = net(images, SIZES), net(images[1:], SIZES[1:])
        fast = prepared_full_model(net)(images, SIZES)
    assert found.boxes.shape == (2, 12, 4)
    assert found.scores.shape == found.labels.shape == (2, 12)
    assert found.masks is None
    assert ((found.scores > 0.02).sum(1) >= 10).all()
    assert (found.scores.diff(dim=1) <= 0).all()
    assert (found.boxes[1] <= torch.tensor([70, 61, 70, 61])).all()
    assert (found.boxes[..., 2:] > found.boxes[..., :2])[found.scores > 0].all()
    torch.testing.assert_close(alone.scores[0], found.scores[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fast.scores, found.scores, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fast.boxes, found.boxes, rtol=1e-4, atol=1e-2)


def test_prior() -> None:
    net = build_detector(TINY, DetectorSpec(kind="retinanet", prior=0.1, **SMALL), 3)
    scores = net.scores(net.dense(torch.zeros(1, 8, 4, 4)))  # type: ignore[operator]
    torch.testing.assert_close(scores, torch.full((1, 4 * 4 * 9, 3), 0.1))


# --- losses ---


def test_focal_loss_by_hand() -> None:
    """-alpha (1 - p)^gamma log p of the object's class, -(1 - alpha) p^gamma log(1 - p) of all others."""
    net = build("retinanet", focal_alpha=0.4, focal_gamma=1.5)
    logits, labels = torch.tensor([[0.0, 1.0, -2.0], [3.0, 0.5, -1.0]]), torch.tensor([1, 3])  # 3: background
    expected = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        for number, logit in enumerate(row):
            p = 1 / (1 + math.exp(-logit))
            if number == label:
                expected += -0.4 * (1 - p) ** 1.5 * math.log(p)
            else:
                expected += -0.6 * p**1.5 * math.log(1 - p)
    assert net.focal_loss(logits, labels).item() == pytest.approx(expected, rel=1e-5)


def test_what_losses_are_divided_by() -> None:
    """detectron2's running number of objects, which a checkpoint contains; torchvision's is that of the batch."""
    net = build("retinanet").train()
    assert net.count_objects(50).item() == pytest.approx(95)
    assert net.count_objects(0).item() == pytest.approx(85.6)
    assert net.state_dict()["dense.normaliser"].item() == pytest.approx(85.6)
    assert net.eval().count_objects(0).item() == pytest.approx(0.9 * 85.6 + 0.1)
    assert net.state_dict()["dense.normaliser"].item() == pytest.approx(85.6)
    other = build("fcos, torchvision's").train()
    assert [other.count_objects(count).item() for count in (7, 0)] == [7, 1]


def test_what_anchors_learn() -> None:
    """At 0.5 an object, below 0.4 background, between them nothing; the best one in any case."""
    net: RetinaNet = build("retinanet")
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 4.5], [0, 0, 10, 3], [20, 20, 24, 24], [60, 60, 90, 90]])
    labels, objects, truth = net.assign(anchors, target((0, 0, 10, 10), (18, 18, 30, 30)))
    assert labels.tolist() == [0, -1, 3, 1, 3]
    assert objects.tolist() == [0, 3]
    assert truth[1].tolist() == [18, 18, 30, 30]
    assert net.assign(anchors, target())[0].tolist() == [3] * 5


@pytest.mark.parametrize(
    # half a tenth is taken off where a difference is above 0.1
    ("box_loss", "expected"),
    [("l1", 0.1 + math.log(2)), ("smooth_l1", 0.05 + math.log(2) - 0.05), ("giou", 1 - 100 / 200)],
)
def test_box_losses_by_hand(box_loss: str, expected: float) -> None:
    """The anchor itself is predicted; the object is twice as wide, and its centre a tenth aside."""
    net: RetinaNet = build("retinanet", box_loss=box_loss)
    anchor, truth = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[-4.0, 0, 16, 10]])
    loss = net.box_loss(torch.zeros(1, 4), anchor, truth).item()
    assert loss == pytest.approx(expected, rel=1e-4)


# box -> levels on which places learn it, of a canvas of 256 x 256
PLACES = {
    "small, on P3": ((100, 100, 130, 130), {0}),
    "as long as the first level learns": ((64, 64, 160, 160), {0}),
    "farther than 64 and 128 from its sides": ((30, 30, 230, 230), {1, 2}),
    "without a place inside": ((97, 97, 103, 103), set()),
    "thin": ((96, 101, 136, 107), {0}),
    "the whole canvas": ((0, 0, 256, 256), {2}),
}


@pytest.mark.parametrize("case", PLACES)
def test_what_places_learn(case: str) -> None:
    box, levels = PLACES[case]
    net: FCOS = build("fcos")
    anchors = net.anchors([torch.zeros(1, 1, side, side) for side in (32, 16, 8, 4, 2)], (256, 256))
    learnt = net.assign(anchors, target(box, size=(256, 256))).split([len(grid) for grid in anchors])
    counts = [int((part >= 0).sum()) for part in learnt]
    assert counts == [_inside(grid, box, number) for number, grid in enumerate(anchors)]
    assert {number for number, count in enumerate(counts) if count} == levels


def _inside(anchors: Tensor, box: tuple[float, ...], level: int) -> int:
    """Places by the words of arXiv 1904.01355, one by one."""
    stride, count = 8 * 2**level, 0
    for x1, y1, x2, y2 in anchors.tolist():
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        sides = x - box[0], y - box[1], box[2] - x, box[3] - y
        near = max(abs(x - (box[0] + box[2]) / 2), abs(y - (box[1] + box[3]) / 2)) < 1.5 * stride
        fits = (level == 0 or max(sides) > 4 * stride) and (level == 4 or max(sides) < 8 * stride)
        count += min(sides) > 0 and near and fits
    return count


def test_the_smallest_object_takes_a_place() -> None:
    net: FCOS = build("fcos")
    anchors = net.anchors([torch.zeros(1, 1, side, side) for side in (32, 16, 8, 4, 2)], (256, 256))
    matched = net.assign(anchors, target((90, 90, 140, 140), (100, 100, 130, 130), size=(256, 256)))
    assert set(matched[matched >= 0].tolist()) == {1}


def test_centerness_and_distances() -> None:
    places, boxes = (
        torch.tensor([[4.0, 4, 12, 12]] * 3),
        torch.tensor([[0.0, 0, 16, 16], [6, 6, 16, 24], [8, 0, 9, 16]]),
    )
    expected = [1, math.sqrt(2 / 8 * 2 / 16), 0]
    assert centerness(places, boxes).tolist() == pytest.approx(expected)
    net: FCOS = build("fcos")
    decoded = net.decode(torch.tensor([[1.0, 0.5, 2.0, -1.0]]), places[:1])  # in units of 8 pixels, none below 0
    assert decoded.tolist() == [[0, 4, 24, 8]]


def test_scores_are_the_geometric_mean() -> None:
    net = build("fcos").eval()
    output = net.dense(torch.randn(1, 8, 2, 2))
    scores = net.scores(output)
    torch.testing.assert_close(scores[0, :, 0] ** 2, output.logits[0, :, 0].sigmoid() * output.centerness[0].sigmoid())


def test_suppression_is_that_of_each_picture_and_class() -> None:
    rng = torch.Generator().manual_seed(0)
    corners = torch.rand(3, 200, 4, generator=rng) * 50
    boxes = torch.cat([corners[..., :2], (corners[..., :2] + corners[..., 2:] + 1).clamp(max=96)], dim=-1)
    scores, labels = torch.rand(3, 200, generator=rng), torch.randint(0, 7, (3, 200), generator=rng)
    candidates = scores > 0.3
    left = suppress(boxes, scores, labels, candidates, 0.5, (64, 96), 7)
    expected = [nms_per_class(*one, 0.5) for one in zip(boxes, scores, labels, candidates, strict=True)]
    assert torch.equal(left, torch.stack(expected))
    assert 0 < left.sum() < candidates.sum()

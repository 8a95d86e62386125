"""Test-time augmentation: one view is the detector itself, mirrored images mirror, views merge as detectron2 says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from peers import NARROW, small_spec, spread
from resnest.detection.card import DetectionPreprocess
from resnest.detection.detector import Detector, build_detector
from resnest.detection.result import RawDetections
from resnest.detection.tta import predict_augmented
from resnest.errors import ResnestError

WIDE, HIGH = 150, 96
PREPROCESS = DetectionPreprocess(short=96, long=400)


@pytest.fixture(scope="module")
def net(image: Image.Image) -> Detector:
    """With random weights that find many things."""
    torch.manual_seed(0)
    net = build_detector(NARROW, small_spec(masks=True, max_detections=40, score_threshold=0.3), 3).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the statistics of the next two images
    with torch.no_grad():
        images = torch.from_numpy(PREPROCESS(image))[None]
        net.train().features(images.repeat(2, 1, 1, 1))
        net.eval()
        head, masks = net.box_heads[0], net.mask_head
        for module, deviation in ((net.rpn.objectness, 2.0), (net.rpn.deltas, 0.3), (head.score, 2.0),
                                  (head.deltas, 1.0), (masks.logits, 2.0)):  # type: ignore[union-attr]  # fmt: skip
            spread(module, lambda: net(images), deviation)  # type: ignore[arg-type]
    return net


@pytest.fixture(scope="module")
def image() -> Image.Image:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 255, (12, 20, 3), np.uint8))
    return small.resize((WIDE, HIGH), Image.Resampling.BICUBIC)


def test_one_view_is_the_detector_itself(net: Detector, image: Image.Image) -> None:
    got = predict_augmented(net, image, PREPROCESS, scales=[96], flip=False)
    with torch.inference_mode():
        found = net(torch.from_numpy(PREPROCESS(image))[None], torch.tensor([[HIGH, WIDE]]))
    assert (found.scores > 0.3).sum() > 10
    assert found.masks is not None
    assert found.masks.std() > 0.05
    for name in ("boxes", "scores", "masks"):
        np.testing.assert_allclose(getattr(got, name), getattr(found, name), atol=1e-4)
    real = got.scores > 0
    assert np.array_equal(got.labels[real], found.labels.numpy()[real])


def test_boxes_are_those_of_what_the_preprocessing_makes_of_the_image(net: Detector, image: Image.Image) -> None:
    half = DetectionPreprocess(short=48, long=400)
    whole = predict_augmented(net, image, PREPROCESS, scales=[96], flip=True)
    halved = predict_augmented(net, image, half, scales=[96], flip=True)
    np.testing.assert_allclose(halved.boxes, whole.boxes / 2, atol=1e-4)
    np.testing.assert_array_equal(halved.masks, whole.masks)  # type: ignore[arg-type]


def test_a_mirrored_image_gives_mirrored_objects(net: Detector, image: Image.Image) -> None:
    got = predict_augmented(net, image, PREPROCESS, scales=[96], flip=True)
    mirrored = predict_augmented(net, ImageOps.mirror(image), PREPROCESS, scales=[96], flip=True)
    alone = predict_augmented(net, image, PREPROCESS, scales=[96], flip=False)
    assert not np.allclose(got.scores, alone.scores, atol=1e-3)
    real = got.scores[0] > 0
    assert real.sum() > 10
    np.testing.assert_allclose(got.scores, mirrored.scores, atol=1e-5)
    back = mirrored.boxes[..., [2, 1, 0, 3]] * [-1, 1, -1, 1] + [WIDE, 0, WIDE, 0]
    np.testing.assert_allclose(got.boxes[0, real], back[0, real], atol=1e-3)
    assert got.masks is not None
    assert mirrored.masks is not None
    np.testing.assert_allclose(got.masks[0, real], mirrored.masks[0, real, :, ::-1], atol=1e-4)


def test_views_are_merged_as_detectron2_does(net: Detector, image: Image.Image) -> None:
    """Class by class: the best box of all views goes first and takes what it overlaps by more than `nms` with it."""
    scales = [96, 128, 64]
    got = predict_augmented(net, image, PREPROCESS, scales=scales, flip=False)
    views = [
        predict_augmented(net, image, PREPROCESS, scales=[scale], flip=False) for scale in scales
    ]  # each suppressed by itself before
    boxes, scores, labels = (
        np.concatenate([getattr(view, name)[0][view.scores[0] > 0] for view in views])
        for name in ("boxes", "scores", "labels")
    )
    kept: list[int] = []
    for place in np.argsort(-scores, kind="stable"):
        if all(labels[place] != labels[other] or _iou(boxes[place], boxes[other]) <= 0.5 for other in kept):
            kept.append(int(place))
    kept = kept[: net.spec.max_detections]
    assert len(scores) > len(kept) > 10
    _assert_same(got, boxes[kept], scores[kept], labels[kept])


def _assert_same(raw: RawDetections, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> None:
    count = len(scores)
    assert int((raw.scores[0] > 0).sum()) == count
    np.testing.assert_allclose(raw.scores[0, :count], scores, atol=1e-6)
    np.testing.assert_allclose(raw.boxes[0, :count], boxes, atol=1e-3)
    assert np.array_equal(raw.labels[0, :count], labels)


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    width, height = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    inner = max(width, 0) * max(height, 0)
    areas = [np.prod(box[2:] - box[:2]) for box in (one, other)]
    return float(inner / (sum(areas) - inner))


def test_masks_are_the_mean_of_the_views(net: Detector, image: Image.Image) -> None:
    got = predict_augmented(net, image, PREPROCESS, scales=[96, 64], flip=False)
    assert got.masks is not None
    boxes, labels = torch.from_numpy(got.boxes), torch.from_numpy(got.labels)
    means: list[Tensor] = []
    with torch.inference_mode():
        for scale in (96, 64):
            sized = DetectionPreprocess(short=scale, long=400)
            wide, high = sized.scaled_size(WIDE, HIGH)
            levels = net.features(torch.from_numpy(sized(image))[None])
            shape = torch.tensor([wide / WIDE, high / HIGH] * 2)
            means.append(net.predict_masks(levels, boxes * shape, labels))
    np.testing.assert_allclose(got.masks, (means[0] + means[1]) / 2, atol=1e-4)


def test_no_scale_is_refused(net: Detector, image: Image.Image) -> None:
    with pytest.raises(ResnestError, match="needs a scale"):
        predict_augmented(net, image, PREPROCESS, scales=[], flip=True)

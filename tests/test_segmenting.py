"""From logits to labels: windows, views, padding and resizing, against plain restatements."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from resnest.errors import ResnestError
from resnest.runtime.engines.exported import Views
from resnest.segmentation.card import SegmentationPreprocess
from resnest.segmentation.predict import pixel_labels, predict_logits, segment, window_starts
from resnest.segmentation.result import PixelClasses

CLASSES = PixelClasses(("red", "green", "blue"), (7, 1, 4))


class Eye:
    """Logits that are the image itself, so that what a pixel gives does not depend on where it is looked at."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        self.seen.append(images.shape)
        return images.copy()


class Leaning(Eye):
    """Logits that depend on the column."""

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        return super().__call__(images) * np.linspace(-1, 2, images.shape[-1], dtype=np.float32)


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8))


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum(0)


def resized(planes: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    images = [Image.fromarray(plane.astype(np.float32)).resize(size, Image.Resampling.BILINEAR) for plane in planes]
    return np.stack([np.asarray(image, np.float64) for image in images])


@pytest.mark.parametrize("size", [(50, 40), (100, 83), (20, 11), (1, 1)])
def test_labels_are_the_largest_of_the_resized_probabilities(size: tuple[int, int]) -> None:
    logits = np.random.default_rng(0).normal(0, 3, (12, 48, 64)).astype(np.float32)
    logits[5:] -= 9  # hardly ever likely
    labels, best = pixel_labels(logits, (40, 50), size)
    wanted = softmax(logits[:, :40, :50])
    wanted = wanted if size == (50, 40) else resized(wanted, size)
    assert (labels.dtype, best.dtype, labels.shape) == (np.uint8, np.float32, size[::-1])
    assert np.array_equal(labels, wanted.argmax(0))
    assert np.allclose(best, wanted.max(0), rtol=1e-5)


def test_the_first_of_equal_classes_and_huge_logits() -> None:
    labels, best = pixel_labels(np.full((4, 2, 2), 1e30, np.float32), (2, 2), (2, 2))
    assert not labels.any()
    assert np.allclose(best, 0.25)


@pytest.mark.parametrize(
    ("length", "side", "starts"),
    [(480, 480, [0]), (500, 480, [0, 20]), (800, 480, [0, 320]), (1000, 480, [0, 320, 520]), (3, 1, [0, 1, 2])],
)
def test_windows_start_every_two_thirds_and_the_last_is_flush(length: int, side: int, starts: list[int]) -> None:
    assert window_starts(length, side) == starts


@pytest.mark.parametrize("size", [(64, 64), (100, 70), (30, 90), (20, 10), (65, 64)])
def test_windows_cover_every_pixel_and_average(size: tuple[int, int]) -> None:
    eye, image = Eye(), noise(*size)
    preprocess = SegmentationPreprocess(window=64)
    logits = predict_logits(eye, image, preprocess)
    assert logits.shape == (3, *size[::-1])
    assert set(eye.seen) == {(1, 3, 64, 64)}
    seen = preprocess(image)[:, : size[1], : size[0]]
    assert np.allclose(softmax(logits), softmax(seen), atol=1e-6)


def test_windows_average_what_overlaps() -> None:
    """A pixel in two windows, of which one thinks so and the other otherwise."""
    image = noise(96, 64)
    preprocess = SegmentationPreprocess(window=64)
    pixels = preprocess(image)
    first, second = (softmax(Leaning()(pixels[None, :, :, left : left + 64])[0]) for left in (0, 32))
    wanted = np.concatenate([first[..., :32], (first[..., 32:] + second[..., :32]) / 2, second[..., 32:]], -1)
    assert np.allclose(softmax(predict_logits(Leaning(), image, preprocess)), wanted, atol=1e-6)


def test_views_are_the_mean_over_sizes_and_mirrored_images() -> None:
    image = noise(60, 40)
    preprocess = SegmentationPreprocess(long=48)
    views = Views(scales=(0.5, 1.0, 1.75), flip=True)
    total = np.zeros((3, 32, 48))
    for scale, (high, wide) in zip(views.scales, ((16, 24), (32, 48), (56, 84)), strict=True):
        pixels = preprocess(image, scale)
        one = softmax(Leaning()(pixels[None])[0])
        other = softmax(Leaning()(pixels[None, ..., ::-1])[0])[..., ::-1]
        total += resized(((one + other) / 2)[:, :high, :wide], (48, 32))
    assert np.allclose(softmax(predict_logits(Leaning(), image, preprocess, views)), total / 3, atol=1e-6)


def test_one_view_as_it_is_equals_no_views() -> None:
    image = noise(60, 40)
    for preprocess in (SegmentationPreprocess(), SegmentationPreprocess(window=32)):
        plain, viewed = (predict_logits(Leaning(), image, preprocess, views) for views in (None, Views()))
        assert np.allclose(softmax(plain), softmax(viewed), atol=1e-6)


def test_a_certain_view_has_a_finite_logarithm() -> None:
    def certain(images: NDArray[np.float32]) -> NDArray[np.float32]:
        return images * 0 + np.array([900, -900, 0], np.float32)[:, None, None]

    logits = predict_logits(certain, noise(40, 40), SegmentationPreprocess(), Views(flip=True))
    assert np.isfinite(logits).all()
    labels, best = pixel_labels(logits, (40, 40), (80, 20))
    assert not labels.any()
    assert np.allclose(best, 1)


def test_a_fixed_file_has_one_view() -> None:
    preprocess = SegmentationPreprocess(canvas=(64, 64))
    assert predict_logits(Eye(), noise(60, 120), preprocess).shape == (3, 64, 32)
    with pytest.raises(ResnestError, match="several views of a picture need the model itself"):
        predict_logits(Eye(), noise(60, 120), preprocess, Views(flip=True))


def test_a_picture_becomes_a_label_map() -> None:
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :20, 0] = 255
    pixels[:, 20:, 2] = 255
    found = segment(Eye(), Image.fromarray(pixels), SegmentationPreprocess(), CLASSES, "x.png")
    assert found.labels.shape == (40, 60)
    assert found.class_fractions() == {"blue": pytest.approx(2 / 3), "red": pytest.approx(1 / 3)}
    assert found.scores[1] == 0
    assert (found.scores[[0, 2]] > 0.8).all()
    told = found.to_dict()
    assert (told["width"], told["height"]) == (60, 40)
    assert [(one["label"], one["category_id"], one["pixels"]) for one in told["segments"]] == [
        ("blue", 4, 1600), ("red", 7, 800),
    ]  # fmt: skip

"""The evaluation crop of the published networks (facts, section 2.3), the same pixels in every part of the house."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F2

from resnest.data.loading import normalise
from resnest.data.settings import DataSettings
from resnest.runtime.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from resnest.runtime.preprocess import normalise as evaluated


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
    return small.resize((501, 375), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(("size", "share"), [(224, 0.875), (256, 0.8889), (320, 0.9091), (416, 0.9286)])
def test_published_crop_shares(size: int, share: float) -> None:
    assert Preprocess(size=size).crop_fraction == pytest.approx(share, abs=5e-5)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [64, 224, 320])
def test_equals_centre_crop_then_resize(photo: Image.Image, size: int, interpolation: str) -> None:
    side = size / (size + 32) * 375
    left, top = round((501 - side) / 2), round((375 - side) / 2)
    square = photo.crop((left, top, round(left + side), round(top + side)))
    mode = v2.InterpolationMode(interpolation)
    expected = F2.normalize(
        F2.to_dtype(F2.pil_to_tensor(F2.resize(square, [size, size], interpolation=mode)), torch.float32, scale=True),
        list(IMAGENET_MEAN),
        list(IMAGENET_STD),
    )
    ours = Preprocess(size=size, interpolation=interpolation)(photo)  # type: ignore[arg-type]
    assert ours.shape == (3, size, size)
    assert np.abs(ours - expected.numpy()).max() < 1e-5  # of values up to 2.6: float32 rounding


def test_training_normalises_as_evaluation_does(photo: Image.Image) -> None:
    pixels = np.array(photo.resize((32, 32)))
    training = normalise(torch.from_numpy(pixels).permute(2, 0, 1)[None], IMAGENET_MEAN, IMAGENET_STD)
    assert training.is_contiguous(memory_format=torch.channels_last)
    assert np.abs(training[0].numpy() - evaluated(pixels, IMAGENET_MEAN, IMAGENET_STD)).max() < 1e-5


def test_whole_image_when_nothing_is_cropped(photo: Image.Image) -> None:
    square = photo.resize((100, 100))
    assert np.array_equal(np.asarray(Preprocess(size=100, crop=1.0).pixels(square)), np.asarray(square))


@pytest.mark.parametrize(
    ("start", "sizes"), [(None, [128] * 5), (64, [64, 80, 96, 112, 128]), (96, [96, 96, 112, 128, 128])]
)
def test_progressive_sizes(start: int | None, sizes: list[int]) -> None:
    settings = DataSettings(size=128, start_size=start)
    assert [settings.size_at(epoch, 5) for epoch in range(5)] == sizes

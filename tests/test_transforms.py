"""Training transforms: torchvision's crop drawn before decoding, the paper's crop and colour noise, AutoAugment."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from conftest import encoded, shared_data
from resnest.classification.transforms import EIGENVALUES, EIGENVECTORS, HeightCrop, Lighting, training_transform
from resnest.data.loading import normalise
from resnest.data.order import seeded
from resnest.data.settings import DataSettings
from resnest.runtime.decode import decode_image
from resnest.runtime.preprocess import IMAGENET_MEAN, IMAGENET_STD

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3)).astype(np.uint8))
IMAGE = encoded(NOISE)


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        (DataSettings(), [v2.RandomResizedCrop(64), v2.RandomHorizontalFlip()]),
        (DataSettings(min_area=1.0, flip=False, interpolation="bicubic"), [v2.Resize((64, 64), 3)]),
        (
            DataSettings(min_area=0.35, jitter=0.4),
            [v2.RandomResizedCrop(64, (0.35, 1.0)), v2.RandomHorizontalFlip(), v2.ColorJitter(0.4, 0.4, 0.4)],
        ),
    ],
)
@pytest.mark.parametrize("content", [IMAGE, encoded(NOISE, "JPEG")])
def test_pixels_are_those_of_torchvision(settings: DataSettings, steps: list[v2.Transform], content: bytes) -> None:
    """Bit for bit, unless the crop is drawn before another transform, or decoded at a fraction."""
    ours, theirs = training_transform(settings, 64), v2.Compose([*steps, v2.PILToTensor()])
    for seed in range(20):
        with seeded(seed):
            expected = theirs(decode_image(content))
        with seeded(seed):
            assert torch.equal(ours(content), expected)


def test_normalising_equals_torchvision_bit_for_bit() -> None:
    images = torch.arange(256, dtype=torch.uint8).repeat(6).reshape(2, 16, 16, 3).permute(0, 3, 1, 2)
    for batch in (images, images.contiguous(), images[:0]):
        expected = v2.functional.normalize(batch.float() / 255, list(IMAGENET_MEAN), list(IMAGENET_STD))
        normal = normalise(batch, IMAGENET_MEAN, IMAGENET_STD)
        assert torch.equal(normal, expected)
        assert normal.is_contiguous(memory_format=torch.channels_last)


def _mosaic(folder: Path, width: int, height: int) -> bytes:
    """Photographs of 320 pixels side by side, about as they are: with as much detail as they have."""
    whole = Image.new("RGB", (width, height))
    paths = iter(sorted(folder.iterdir()))
    for top in range(0, height, 320):
        for left in range(0, width, 320):
            whole.paste(Image.open(next(paths)).convert("RGB").crop((0, 0, 320, 320)), (left, top))
    return encoded(whole, "JPEG", quality=90)


@pytest.mark.data
def test_a_reduced_crop_is_that_of_the_whole_photograph() -> None:
    """PSNR on real detail, 1920 x 1080 (the file itself is compressed to about 35 dB)."""
    content = _mosaic(shared_data() / "imagenet-sample-320" / "images", 1920, 1080)
    crops = [training_transform(DataSettings(reduced_decode=reduced), 224) for reduced in (True, False)]
    ratios = []
    for seed in range(12):
        pixels = []
        for crop in crops:
            with seeded(seed):
                pixels.append(crop(content).float())
        error = (pixels[0] - pixels[1]).square().mean()
        ratios.append(float(10 * torch.log10(255**2 / error)) if error else math.inf)
    assert sum(ratio < math.inf for ratio in ratios) > 8  # most are reduced at all
    assert min(ratios) > 34
    assert np.median(ratios) > 40


@pytest.mark.parametrize(
    ("settings", "reduced"),
    [
        (DataSettings(), True),
        (DataSettings(crop="height", augment="auto", shift=0.1), True),
        (DataSettings(reduced_decode=False), False),
        (DataSettings(augment="trivial"), False),  # which shifts by 32 pixels of the full image
    ],
)
def test_when_a_photograph_is_decoded_at_a_fraction(settings: DataSettings, reduced: bool) -> None:
    assert training_transform(settings, 64).at_least == (64 if reduced else None)


def _crops(count: int, min_area: float, width: int = 400, height: int = 300) -> list[dict[str, int]]:
    crop = HeightCrop(64, min_area)
    with seeded(0):
        boxes = [crop(width, height) for _ in range(count)]
    names = ("left", "top", "width", "height")
    return [dict(zip(names, (x, y, right - x, low - y), strict=True)) for x, y, right, low in boxes]


def test_height_crops_lie_inside_and_keep_their_bounds() -> None:
    for crop in _crops(2000, 0.1):
        assert 0 <= crop["top"] <= crop["top"] + crop["height"] <= 300
        assert 0 <= crop["left"] <= crop["left"] + crop["width"] <= 400
        assert crop["height"] * crop["width"] >= 0.1 * 400 * 300
        assert 0.74 < crop["width"] / crop["height"] < 1.35


def test_heights_are_drawn_evenly_between_the_smallest_and_the_largest() -> None:
    """Put where it stands between its own bounds, every height is equally likely; areas are then not."""
    places, areas = [], []
    for crop in _crops(4000, 0.1):
        aspect = crop["width"] / crop["height"]
        lowest, highest = math.sqrt(0.1 * 120_000 / aspect), min(math.sqrt(120_000 / aspect), 400 / aspect, 300)
        places.append((crop["height"] - lowest) / (highest - lowest))
        areas.append(crop["height"] * crop["width"] / 120_000)
    counts, _ = np.histogram(np.clip(places, 0, 1), bins=4, range=(0, 1))
    assert counts.min() > 900  # 1000 each, standard deviation 27
    assert np.mean(areas) < 0.5  # RandomResizedCrop's areas have a mean of about 0.55 before those that do not fit go


def test_what_cannot_be_cropped_gives_the_centre() -> None:
    assert _crops(1, 1.0, width=400, height=100) == [{"top": 16, "left": 166, "height": 67, "width": 67}]


def test_lighting_adds_multiples_of_the_principal_colours() -> None:
    grey = torch.full((3, 4, 4), 128, dtype=torch.uint8)
    with seeded(1):
        lit = Lighting(0.1)(grey)
    with seeded(1):
        amounts = torch.randn(3) * 0.1
    shift = [
        255 * sum(EIGENVECTORS[colour][k] * EIGENVALUES[k] * float(amounts[k]) for k in range(3)) for colour in range(3)
    ]
    for colour in range(3):
        assert (lit[colour] == round(128 + shift[colour])).all()
    assert lit.dtype == torch.uint8
    dark = Lighting(100.0)(torch.zeros(3, 4, 4, dtype=torch.uint8))
    assert dark.min() >= 0


def test_directions_are_orthogonal() -> None:
    vectors = torch.tensor(EIGENVECTORS)
    assert torch.allclose(vectors.T @ vectors, torch.eye(3), atol=2e-3)


@pytest.mark.parametrize(
    "settings", [DataSettings(augment="auto"), DataSettings(crop="height", min_area=0.1, lighting=0.1)]
)
def test_randomness_is_a_function_of_the_seed(settings: DataSettings) -> None:
    transform = training_transform(settings, 64)
    seen = set()
    for seed in (1, 1, 2, 3):
        with seeded(seed):
            seen.add(transform(IMAGE).numpy().tobytes())
    assert len(seen) == 3


def test_the_order_is_that_of_the_released_weights() -> None:
    """AutoAugment on the whole image, then crop, mirror, colours, lighting (facts, section 2.1)."""
    settings = DataSettings(augment="auto", jitter=0.4, lighting=0.1, crop="height")
    transform = training_transform(settings, 320)
    steps = (*transform.before, transform.crop, *transform.pixels, *transform.after)
    names = [getattr(step, "__name__", type(step).__name__) for step in steps]
    assert names == ["AutoAugment", "HeightCrop", "mirror", "ColorJitter", "Lighting"]

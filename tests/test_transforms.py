"""Training transforms of the paper's recipe: the crop of EfficientNet, colour noise, AutoAugment."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from resnest.data.loading import seeded
from resnest.data.settings import DataSettings
from resnest.data.transforms import EIGENVALUES, EIGENVECTORS, HeightCrop, Lighting, training_transform

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3)).astype(np.uint8))


def _crops(count: int, min_area: float, width: int = 400, height: int = 300) -> list[dict[str, int]]:
    crop = HeightCrop(64, min_area, v2.InterpolationMode.BICUBIC)
    image = Image.new("RGB", (width, height))
    with seeded(0):
        return [crop.make_params([image]) for _ in range(count)]


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
    names = [type(step).__name__ for step in training_transform(settings, 320).transforms]
    assert names == ["AutoAugment", "HeightCrop", "RandomHorizontalFlip", "ColorJitter", "PILToTensor", "Lighting"]

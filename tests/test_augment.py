"""RandAugment, random erasing, and AutoAugment as the Gluon code had it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from conftest import encoded
from resnest.classification.transforms import OPERATIONS, POLICY, GluonAutoAugment, training_transform
from resnest.data.order import seeded
from resnest.data.settings import DataSettings

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8))


@pytest.mark.parametrize(
    "settings",
    [DataSettings(augment="rand"), DataSettings(augment="auto_gluon"), DataSettings(erase=1.0, min_area=1, flip=False)],
    ids=["rand", "auto_gluon", "erase"],
)
def test_randomness_is_a_function_of_the_seed(settings: DataSettings) -> None:
    transform = training_transform(settings, 32)
    seen = []
    for seed in (1, 1, 2, 3):
        with seeded(seed):
            seen.append(transform(encoded(IMAGE)).numpy().tobytes())
    assert seen[0] == seen[1]
    assert len(set(seen)) == 3


def test_rand_augment_comes_after_the_crop_with_its_settings() -> None:
    settings = DataSettings(augment="rand", rand_ops=3, rand_magnitude=14, erase=0.25, jitter=0.1)
    transform = training_transform(settings, 32)
    names = [getattr(step, "__name__", type(step).__name__) for step in (*transform.pixels, *transform.after)]
    assert names == ["mirror", "RandAugment", "ColorJitter", "RandomErasing"]
    rand = transform.pixels[1]
    assert (rand.num_ops, rand.magnitude, rand.num_magnitude_bins) == (3, 14, 31)


def test_erasing_leaves_the_mean_colour() -> None:
    white = Image.new("RGB", (32, 32), (255, 255, 255))
    with seeded(0):
        erased = training_transform(DataSettings(erase=1.0, min_area=1, flip=False), 32)(encoded(white))
    assert erased.dtype == torch.uint8
    colours = {tuple(colour) for colour in erased.permute(1, 2, 0).reshape(-1, 3).tolist()}
    assert colours == {(255, 255, 255), (124, 116, 104)}


# operation, level, sign, and the same by Pillow with the numbers that the Gluon code's table gives
PILLOW = [
    ("posterize", 8, 1, lambda image: ImageOps.posterize(image, 1)),
    ("posterize", 7, 1, lambda image: ImageOps.posterize(image, 2)),
    ("posterize", 5, 1, lambda image: ImageOps.posterize(image, 2)),
    ("solarize", 5, 1, lambda image: ImageOps.solarize(image, 128)),
    ("solarize", 3, 1, lambda image: ImageOps.solarize(image, 180)),
    ("rotate", 9, -1, lambda image: image.rotate(-27)),
    ("rotate", 8, 1, lambda image: image.rotate(24)),
    ("color", 0, 1, lambda image: ImageEnhance.Color(image).enhance(0.1)),
    ("color", 8, -1, lambda image: ImageEnhance.Color(image).enhance(1.54)),  # the sign does not matter
    ("contrast", 8, 1, lambda image: ImageEnhance.Contrast(image).enhance(1.54)),
    ("sharpness", 7, 1, lambda image: ImageEnhance.Sharpness(image).enhance(1.36)),
    ("equalize", 0, 1, ImageOps.equalize),
    ("autocontrast", 0, 1, ImageOps.autocontrast),
    ("invert", 0, 1, ImageOps.invert),
    ("shear", 5, -1, lambda image: image.transform((64, 48), Image.AFFINE, (1, -0.15, 0, 0, 1, 0), Image.BICUBIC)),
]


@pytest.mark.parametrize(("name", "level", "sign", "same"), PILLOW)
def test_operations_have_the_strength_of_the_gluon_code(name: str, level: int, sign: int, same: object) -> None:
    got, expected = np.asarray(OPERATIONS[name](IMAGE, level, sign)), np.asarray(same(IMAGE))  # type: ignore[operator]
    assert np.array_equal(got, expected)


def test_pairs_are_drawn_evenly_and_run_with_their_probability() -> None:
    transform = GluonAutoAugment()
    with seeded(0):
        drawn = [transform.make_params([IMAGE])["steps"] for _ in range(5000)]
    assert len(POLICY) == 25
    named = [[name for name, _, _ in steps] for steps in drawn]
    expected = sum(p for pair in POLICY for name, p, _ in pair if name == "rotate") / 25
    share = sum("rotate" in names for names in named) / len(named)
    assert share == pytest.approx(expected, abs=0.03)
    signs = [sign for steps in drawn for name, _, sign in steps if name == "rotate"]
    assert abs(np.mean(signs)) < 0.1

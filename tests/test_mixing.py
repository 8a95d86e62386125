"""Mixup, CutMix and the losses of mixed batches, against restatements in plain loops and in float64."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from resnest.classification.task import (
    NO_MIX,
    ClassificationTask,
    Mix,
    binary_cross_entropy,
    cross_entropy,
    cut_box,
    mix_images,
    sample_mixup,
)
from resnest.data.loading import normalise
from resnest.recipes import find_recipe, override

LABELS = torch.tensor([0, 2, 1, 2, 0])


def _logits() -> torch.Tensor:
    return torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3


@pytest.mark.parametrize("share", [1.0, 0.9, 0.5, 0.15])
@pytest.mark.parametrize("threshold", [0.0, 0.2])
def test_bce_asks_every_class(share: float, threshold: float) -> None:
    logits, total = _logits(), 0.0
    for row in range(5):
        for column in range(3):
            part = share * (LABELS[row] == column) + (1 - share) * (LABELS[4 - row] == column)
            chance = 1 / (1 + math.exp(-logits[row, column]))
            total -= math.log(chance if part > threshold else 1 - chance)
    loss = binary_cross_entropy(logits, LABELS, fraction=share, threshold=threshold)
    assert float(loss) == pytest.approx(total / 15, rel=1e-12)


@pytest.mark.parametrize("share", [1.0, 0.7])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_smoothed_and_mixed_labels(share: float, smoothing: float) -> None:
    """Against the Gluon code's way: soft targets, 1 - e + e/K for a class and e/K for the others, blended."""
    logits, total = _logits(), 0.0
    for row in range(5):
        normal = math.log(sum(math.exp(value) for value in logits[row]))
        for column in range(3):
            target = 0.0
            for part, label in ((share, LABELS[row]), (1 - share, LABELS[4 - row])):
                target += part * (smoothing / 3 + (1 - smoothing) * float(label == column))
            total -= target * (float(logits[row, column]) - normal)
    loss = cross_entropy(logits, LABELS, fraction=share, smoothing=smoothing)
    assert float(loss) == pytest.approx(total / 5, rel=1e-12)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("height", "width"), [(20, 33), (8, 8)])
def test_cutmix_pastes_a_box_and_counts_it(seed: int, height: int, width: int) -> None:
    images = torch.randn(4, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    mix = sample_mixup((seed, 2, 3), mixup=0.0, cutmix=1.0)
    mixed, share = mix_images(images, mix)
    top, bottom, left, right = cut_box(mix.lam, mix.centre or (0, 0), height, width)
    assert 0 <= top <= bottom <= height
    assert 0 <= left <= right <= width
    own = 0
    for row in range(height):
        for column in range(width):
            inside = top <= row < bottom and left <= column < right
            own += not inside
            for place in range(4):
                source = 3 - place if inside else place
                assert torch.equal(mixed[place, :, row, column], images[source, :, row, column])
    assert share == pytest.approx(own / (height * width), abs=1e-12)


@pytest.mark.parametrize(
    ("share", "centre", "box"),
    [
        (0.75, (0.5, 0.5), (5, 15, 10, 30)),  # a quarter of the area, half of each side
        (0.75, (0.0, 0.0), (0, 5, 0, 10)),  # cut off at the corner: 1/16 of the area
        (0.75, (0.999, 0.5), (14, 20, 10, 30)),
        (1.0, (0.5, 0.5), (10, 10, 20, 20)),
        (0.0, (0.5, 0.5), (0, 20, 0, 40)),
    ],
)
def test_the_box(share: float, centre: tuple[float, float], box: tuple[int, ...]) -> None:
    assert cut_box(share, centre, 20, 40) == box
    images = torch.zeros(2, 1, 20, 40)
    area = (box[1] - box[0]) * (box[3] - box[2])
    assert mix_images(images, Mix(share, centre))[1] == pytest.approx(1 - area / 800)


def test_mixup_blends_with_the_mirror_place() -> None:
    images = torch.randn(3, 3, 4, 4, dtype=torch.float64)
    mixed, share = mix_images(images, Mix(0.3))
    assert share == 0.3
    for place in range(3):
        assert torch.equal(mixed[place], 0.3 * images[place] + 0.7 * images[2 - place])
    assert mix_images(images, NO_MIX) == (images, 1.0)


def test_a_coin_decides_between_the_two() -> None:
    mixes = [sample_mixup((0, 2, step), mixup=0.1, cutmix=1.0) for step in range(400)]
    cuts = [mix for mix in mixes if mix.centre is not None]
    assert 160 < len(cuts) < 240  # 200, standard deviation 10
    assert 0.45 < np.mean([mix.lam for mix in cuts]) < 0.55  # even, with alpha 1
    blends = np.array([mix.lam for mix in mixes if mix.centre is None])
    assert np.mean((blends < 0.1) | (blends > 0.9)) > 0.6  # at the ends, with alpha 0.1
    assert mixes[:5] == [sample_mixup((0, 2, step), mixup=0.1, cutmix=1.0) for step in range(5)]
    assert sample_mixup((0, 2, 0, 1), mixup=0.1, cutmix=1.0) != mixes[0]  # another process
    assert sample_mixup((0, 2, 0), mixup=0.0, cutmix=0.0) == NO_MIX


class _Line(nn.Module):
    """A network of one layer that a test can restate."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(3, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.fc(x.mean((2, 3)))
        return out


def test_the_papers_mixup_has_not_moved() -> None:
    """Bit for bit what it was before CutMix: the drawn share, and the loss of uint8 images."""
    task = ClassificationTask(
        find_recipe("imagenet_resnest50"), SimpleNamespace(class_names=["a", "b", "c"], class_keys=())
    )
    torch.manual_seed(0)
    net, images = _Line(3), torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)
    for step, stored in ((3, 0.8820293873066036), (7, 0.38855518672137385)):
        share = float(np.random.default_rng([0, 2, step]).beta(0.2, 0.2))
        assert share == pytest.approx(stored, rel=1e-12)
        mix = task.sample_mixup((0, 2, step))
        assert mix == Mix(share)
        inputs = normalise(images, task.recipe.data.mean, task.recipe.data.std)
        logits = net(share * inputs + (1 - share) * inputs.flip(0))
        expected = share * F.cross_entropy(logits, LABELS, label_smoothing=0.1)
        expected = expected + (1 - share) * F.cross_entropy(logits, LABELS.flip(0), label_smoothing=0.1)
        assert torch.equal(task.loss(net, images, LABELS, mix=mix), expected)


def test_a_recipe_chooses_its_loss() -> None:
    settings = ["train.loss=bce", "train.label_smoothing=0", "train.cutmix=1", "train.bce_threshold=0.3"]
    task = ClassificationTask(
        override(find_recipe("imagenette"), settings), SimpleNamespace(class_names=["a", "b", "c"], class_keys=())
    )
    torch.manual_seed(0)
    net, images = _Line(3), torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)
    mix = task.sample_mixup((0, 2, 1))
    inputs, share = mix_images(normalise(images, task.recipe.data.mean, task.recipe.data.std), mix)
    expected = binary_cross_entropy(net(inputs), LABELS, fraction=share, threshold=0.3)
    assert mix.centre is not None
    assert torch.equal(task.loss(net, images, LABELS, mix=mix), expected)
    assert not torch.equal(task.loss(net, images, LABELS), expected)

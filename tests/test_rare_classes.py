"""Losses of a classifier of uneven classes: class-balanced weights and adjusted logits, by their formulas."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from conftest import pico
from resnest.classification.rare_classes import class_balanced_weights, log_priors
from resnest.classification.task import ClassificationTask, MultiLabelTask, cross_entropy
from resnest.errors import ResnestError
from resnest.recipes import find_recipe, override

IMAGES = np.array([900, 90, 10])


def task(*settings: str, images: Any = IMAGES, kind: Any = ClassificationTask) -> Any:
    recipe = override(find_recipe("imagenette"), [*pico("train.label_smoothing=0", *settings)])
    samples: Any = SimpleNamespace(class_names=("a", "b", "c"), class_keys=None, counts=lambda: images)
    return kind(recipe, samples)


@pytest.mark.parametrize("beta", [0.9, 0.999, 0.9999])
def test_weights_by_the_effective_number(beta: float) -> None:
    """arXiv 1901.05555: E(n) = (1 - b^n) / (1 - b), the number of different images among n; weights sum to K."""
    inverse = [1 / sum(beta**k for k in range(n)) for n in IMAGES]  # the sum that (1 - b^n) / (1 - b) is
    assert class_balanced_weights(IMAGES, beta) == pytest.approx(np.array(inverse) * 3 / sum(inverse))


@pytest.mark.parametrize("fraction", [1.0, 0.7])
def test_each_image_weighs_as_its_class(fraction: float) -> None:
    logits, labels = torch.randn(4, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 2])
    weights = torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64)
    total = 0.0
    for row in range(4):
        for part, label in ((fraction, labels[row]), (1 - fraction, labels[3 - row])):
            total -= part * float(weights[label] * logits[row].log_softmax(0)[label])
    loss = cross_entropy(logits, labels, fraction=fraction, smoothing=0, weights=weights)
    assert float(loss) == pytest.approx(total / 4)


def test_adjusted_logits_leave_what_all_classes_share() -> None:
    """arXiv 2007.07314: what a picture says is learned, not how many there are: equal logits are the optimum here."""
    labels = torch.from_numpy(np.repeat(np.arange(3), IMAGES))
    for logit, optimal in ((log_priors(IMAGES), True), (np.zeros(3), False)):
        logits = torch.zeros(len(labels), 3, dtype=torch.float64, requires_grad=True)
        F.cross_entropy(logits + torch.from_numpy(logit), labels).backward()
        assert logits.grad is not None
        assert (float(logits.grad.sum(0).abs().max()) < 1e-12) == optimal


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("train.logit_adjustment=1", -math.log(0.01)),  # equal logits: the share of the class
        ("train.logit_adjustment=0.5", -math.log(0.01**0.5 / (0.9**0.5 + 0.09**0.5 + 0.01**0.5))),
        ("train.class_balanced=0.9", class_balanced_weights(IMAGES, 0.9)[2] * math.log(3)),
        ("train.class_balanced=0", math.log(3)),
    ],
)
def test_the_loss_of_a_recipe(setting: str, expected: float) -> None:
    made = task(setting)
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    loss = made.loss(lambda x: torch.zeros(2, 3), images, torch.tensor([2, 2]))
    assert float(loss) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["train.class_balanced=0.9", "train.logit_adjustment=1"], "each makes up for rare classes by itself"),
        (["train.class_balanced=0.9", "train.loss=bce"], "train.class_balanced=0.9 with train.loss='bce'"),
        (["train.logit_adjustment=1", "train.loss=bce"], "train.logit_adjustment=1.0 with train.loss='bce'"),
        (["train.class_balanced=1"], "train.class_balanced=1.0 must lie in"),
        (["data.balance=0.5", "data.repeat_threshold=0.1"], "both draw rare classes more often"),
    ],
)
def test_settings_that_contradict_each_other(settings: list[str], message: str) -> None:
    with pytest.raises(ResnestError, match=message):
        task(*settings)


def test_several_labels_an_image() -> None:
    with pytest.raises(ResnestError, match=r"train.logit_adjustment=1.0: it is for one label an image"):
        task("train.logit_adjustment=1", kind=MultiLabelTask)


def test_a_detector_has_other_losses_for_that() -> None:
    with pytest.raises(ResnestError, match=r"train.class_balanced=0.9 plays no role with task=detection"):
        override(find_recipe("detect_small"), ["train.class_balanced=0.9"])

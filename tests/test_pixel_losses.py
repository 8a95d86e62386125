"""Losses of a segmenter: against segmentation_models_pytorch and plain restatements, ignored pixels, half precision.

Guards promise P8 for every loss.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from resnest.errors import ResnestError
from resnest.network.recompute import recompute_activations
from resnest.segmentation.card import IGNORED
from resnest.segmentation.loss_settings import LOSSES, LossSettings, median_frequency
from resnest.segmentation.losses import PixelLosses

OF_CLASSES = tuple(name for name in LOSSES if name != "bce")
OF_LABELS = tuple(name for name in LOSSES if name != "cross_entropy")
KINDS = [*((name, False, 4) for name in OF_CLASSES), *((name, True, k) for k in (1, 3) for name in OF_LABELS)]
RATIOS = [kind for kind in KINDS if kind[0] in ("dice", "jaccard", "tversky", "lovasz")]
WEIGHTS = (0.5, 2.0, 1.25, 1.0)


def make(name: str, multi_label: bool = False, weights: tuple[float, ...] | None = None, **settings: Any) -> Any:
    return PixelLosses(LossSettings(loss={name: 1.0}, **settings), multi_label=multi_label, class_weights=weights)


def batch(multi_label: bool, classes: int, *, count: int = 3, ignored: float = 0.2) -> tuple[Tensor, Tensor]:
    """Logits and targets of one size; class 2 is in no picture."""
    generator = torch.Generator().manual_seed(classes)
    logits = 3 * torch.randn(count, classes, 9, 7, generator=generator)
    shape = (count, classes, 9, 7) if multi_label else (count, 9, 7)
    targets = torch.randint(0, 2 if multi_label else classes, shape, generator=generator)
    if multi_label and classes > 2:
        targets[:, 2] = 0
    elif not multi_label:
        targets[targets == 2] = 1
    targets[torch.rand(shape, generator=generator) < ignored] = IGNORED
    return logits, targets.to(torch.uint8)


# --- against the peer, whose own conventions are in losses.py where they differ ---


def peer(name: str, multi_label: bool, classes: int, weights: tuple[float, ...] | None) -> Callable[..., Tensor]:
    smp = pytest.importorskip("segmentation_models_pytorch")
    mode = "multilabel" if multi_label else "multiclass"
    options: dict[str, Any] = {"ignore_index": IGNORED}
    if name != "lovasz":
        options["class_weights"] = weights
    if name == "tversky":
        options |= {"alpha": 0.3, "beta": 0.7}
    if name == "lovasz" and multi_label:
        one = smp.losses.LovaszLoss("binary", **options)
        return lambda logits, truth: torch.stack([one(logits[:, k], truth[:, k]) for k in range(classes)]).mean()
    kinds = {"dice": "DiceLoss", "jaccard": "JaccardLoss", "tversky": "TverskyLoss", "lovasz": "LovaszLoss"}
    return getattr(smp.losses, kinds[name])(mode, **options)  # type: ignore[no-any-return]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("over", ["batch", "image"])
@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind[0] in ("dice", "jaccard", "tversky", "lovasz")], ids=str
)
def test_ratios_are_the_peers(kind: tuple[str, bool, int], over: str, weighted: bool) -> None:
    name, multi_label, classes = kind
    weights = WEIGHTS[:classes] if weighted else None
    if weighted and name == "lovasz":
        return  # which has no class weights there; see below
    logits, targets = batch(multi_label, classes)
    logits.requires_grad_()
    theirs = peer(name, multi_label, classes, weights)
    groups = [(logits, targets)] if over == "batch" else list(zip(logits.split(1), targets.split(1), strict=True))
    wanted = torch.stack([theirs(scores, truth.long()) for scores, truth in groups]).mean()
    mine = make(name, multi_label, weights, loss_over=over)
    found = mine(logits, targets)
    assert found.item() == pytest.approx(wanted.item(), abs=1e-6)
    [gradient] = torch.autograd.grad(found, logits)
    [expected] = torch.autograd.grad(wanted, logits)
    torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("gamma", [1.0, 2.0, 3.5])
def test_focal_is_the_peers(gamma: float) -> None:
    losses = pytest.importorskip("segmentation_models_pytorch").losses
    logits, targets = batch(False, 4)
    known = targets != IGNORED
    flat = logits.movedim(1, -1)[known]
    wanted = losses._functional.softmax_focal_loss_with_logits(flat, targets[known].long(), gamma)
    assert make("focal", focal_gamma=gamma)(logits, targets).item() == pytest.approx(wanted.item(), abs=1e-6)
    logits, targets = batch(True, 1)
    wanted = losses.FocalLoss("binary", gamma=gamma, ignore_index=IGNORED)(logits, targets.long())
    assert make("focal", True, focal_gamma=gamma)(logits, targets).item() == pytest.approx(wanted.item(), abs=1e-6)
    logits, targets = batch(True, 3, ignored=0)
    wanted = losses.FocalLoss("multilabel", gamma=gamma, class_weights=WEIGHTS[:3])(logits, targets.long())
    mine = make("focal", True, WEIGHTS[:3], focal_gamma=gamma)
    assert mine(logits, targets).item() == pytest.approx(wanted.item(), abs=1e-6)


# --- against torch's own, and by hand ---


def test_by_default_it_is_cross_entropy_to_the_last_bit() -> None:
    """As earlier versions computed it: recorded runs give the same numbers."""
    logits, targets = batch(False, 4)
    logits = logits[..., :5, :4].clone().requires_grad_()
    large = [F.interpolate(one[None], (9, 7), mode="bilinear", align_corners=True).float() for one in logits]
    pairs = zip(large, targets, strict=True)
    sums = [F.cross_entropy(one, truth[None].long(), ignore_index=IGNORED, reduction="sum") for one, truth in pairs]
    wanted = torch.stack(sums).sum() / (targets != IGNORED).sum().clamp(min=1)
    found = PixelLosses(LossSettings())(logits, targets)
    assert torch.equal(found, wanted)
    assert torch.equal(torch.autograd.grad(found, logits)[0], torch.autograd.grad(wanted, logits)[0])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_cross_entropy_is_torchs(weights: tuple[float, ...] | None, smoothing: float) -> None:
    logits, targets = batch(False, 4)
    tensor = None if weights is None else torch.tensor(weights)
    wanted = F.cross_entropy(logits, targets.long(), tensor, ignore_index=IGNORED, label_smoothing=smoothing)
    found = make("cross_entropy", weights=weights, label_smoothing=smoothing)(logits, targets)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-6)
    focal = make("focal", weights=weights, focal_gamma=0)(logits, targets)
    if not smoothing:
        assert focal.item() == pytest.approx(wanted.item(), rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_bce_asks_every_class(smoothing: float) -> None:
    logits, targets = batch(True, 3)
    total, weight = 0.0, 0.0
    for _, k, y, x in (targets != IGNORED).nonzero().tolist():
        truth = float(targets[_, k, y, x]) * (1 - smoothing) + smoothing / 2
        p = float(logits[_, k, y, x].double().sigmoid())
        total -= WEIGHTS[k] * (truth * np.log(p) + (1 - truth) * np.log(1 - p))
        weight += WEIGHTS[k]
    found = make("bce", True, WEIGHTS[:3], label_smoothing=smoothing)(logits, targets)
    assert found.item() == pytest.approx(total / weight, rel=1e-5)


@pytest.mark.parametrize("shape", [(3, 9, 7), (3, 1, 9, 7), (2, 3, 9, 7)], ids=str)
def test_targets_of_another_kind(shape: tuple[int, ...]) -> None:
    with pytest.raises(ResnestError, match=r"expected \(N, K, H, W\) of a multi-label segmenter, here \(3, 3, 9, 7\)"):
        make("dice", True)(torch.zeros(3, 3, 9, 7), torch.zeros(shape, dtype=torch.uint8))
    with pytest.raises(ResnestError, match=r"expected \(N, H, W\), here \(3, 9, 7\)"):
        make("dice")(torch.zeros(3, 3, 9, 7), torch.zeros(3, 3, 9, 7, dtype=torch.uint8))


def test_dice_by_hand() -> None:
    """Two pixels of one class, with certain logits: one right, one missed; and the third does not count."""
    logits = torch.tensor([30.0, -30.0, 30.0]).reshape(1, 1, 1, 3)
    targets = torch.tensor([1, 1, IGNORED], dtype=torch.uint8).reshape(1, 1, 1, 3)
    expected = {"dice": 1 - 2 / 3, "jaccard": 1 - 1 / 2, "tversky": 1 - 1 / (1 + 0.7)}
    for name, loss in expected.items():
        assert make(name, True)(logits, targets).item() == pytest.approx(loss, abs=1e-6)


def test_lovasz_weights_are_of_the_present_classes() -> None:
    logits, targets = batch(False, 4)
    alone = [make("lovasz", weights=tuple(float(k == one) for k in range(4)))(logits, targets) for one in range(4)]
    assert alone[2] == 0  # in no picture
    there = [0, 1, 3]
    wanted = sum(WEIGHTS[k] * alone[k] for k in there) / sum(WEIGHTS[k] for k in there)
    assert make("lovasz", weights=WEIGHTS)(logits, targets).item() == pytest.approx(wanted.item(), abs=1e-6)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_perfect_logits_have_no_loss(kind: tuple[str, bool, int]) -> None:
    name, multi_label, classes = kind
    _, targets = batch(multi_label, classes)
    yes = targets == 1 if multi_label else targets[:, None] == torch.arange(classes)[:, None, None]
    loss = make(name, multi_label)(torch.where(yes, 40.0, -40.0), targets)
    assert 0 <= loss.item() <= 1e-6


def test_a_sum_is_the_weighted_sum() -> None:
    logits, targets = batch(False, 4)
    parts = {"cross_entropy": 0.5, "dice": 2.0, "lovasz": 1.0, "focal": 0.25}
    total = PixelLosses(LossSettings(loss={**parts, "jaccard": 0.0}))(logits, targets)
    wanted = sum(weight * make(name)(logits, targets) for name, weight in parts.items())
    assert total.item() == pytest.approx(wanted.item(), rel=1e-6)


# --- sizes, ignored pixels, precision, memory ---


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("over", ["batch", "image"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_nothing_counts(kind: tuple[str, bool, int], over: str, weighted: bool) -> None:
    """Zero, with zero gradient; and an image in which nothing counts changes no sum over pixels."""
    name, multi_label, classes = kind
    settings = {"loss_over": over} if name in ("dice", "jaccard", "tversky", "lovasz") else {}
    loss = make(name, multi_label, WEIGHTS[:classes] if weighted else None, **settings)
    logits, targets = batch(multi_label, classes)
    nothing = loss(logits.requires_grad_(), torch.full_like(targets, IGNORED))
    nothing.backward()
    assert nothing.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()
    if over == "batch":
        more = torch.cat([logits, logits[:1]]), torch.cat([targets, torch.full_like(targets[:1], IGNORED)])
        assert loss(*more).item() == pytest.approx(loss(logits, targets).item(), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_ignored_pixels_have_no_gradient(kind: tuple[str, bool, int]) -> None:
    name, multi_label, classes = kind
    logits, targets = batch(multi_label, classes)
    [gradient] = torch.autograd.grad(make(name, multi_label)(logits.requires_grad_(), targets), logits)
    ignored = (targets == IGNORED).expand_as(logits) if multi_label else (targets == IGNORED)[:, None].expand_as(logits)
    assert not gradient[ignored].any()
    assert gradient.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_half_precision(kind: tuple[str, bool, int], dtype: torch.dtype) -> None:
    """Logits of an autocast network on pictures whose sums float16 could not hold, enlarged as in training."""
    name, multi_label, classes = kind
    weights = torch.ones(classes, 2, 1, 1, requires_grad=True)
    images = torch.randn(2, 2, 100, 100, generator=torch.Generator().manual_seed(0))
    targets = torch.zeros(2, *([classes] * multi_label), 300, 300, dtype=torch.uint8)
    targets[..., :30, :] = 1
    targets[..., 30:40, :] = IGNORED
    loss = make(name, multi_label, WEIGHTS[:classes])
    with torch.autocast("cpu", dtype):
        found = loss(20 * F.conv2d(images, weights), targets)
    (found * 1024).backward()
    assert found.dtype == torch.float32
    assert found.isfinite()
    assert weights.grad is not None
    assert weights.grad.isfinite().all()
    with torch.no_grad():
        plain = loss(20 * F.conv2d(images, weights), targets)
    assert found.item() == pytest.approx(plain.item(), rel=0.02)


def test_extreme_logits_have_finite_gradients() -> None:
    for name, multi_label, classes in KINDS:
        logits, targets = batch(multi_label, classes)
        for scale in (0.0, 1e4):
            for gamma in (0.0, 0.5, 2.0):
                settings = {"focal_gamma": gamma} if name == "focal" else {}
                scaled = (logits * scale).requires_grad_()
                loss = make(name, multi_label, **settings)(scaled, targets)
                [gradient] = torch.autograd.grad(loss, scaled)
                assert gradient.isfinite().all(), (name, scale, gamma)


@pytest.mark.parametrize("name", OF_CLASSES)
def test_one_picture_of_one_pixel(name: str) -> None:
    loss = make(name)(torch.zeros(1, 4, 1, 1), torch.zeros(1, 1, 1, dtype=torch.uint8))
    assert loss.isfinite()


def _gradients(recomputes: bool) -> Iterator[Tensor]:
    loss = PixelLosses(LossSettings(loss={"cross_entropy": 1, "dice": 1, "lovasz": 1})).train()
    if recomputes:
        assert recompute_activations(loss) == 2
    logits, targets = batch(False, 4)
    found = loss(logits.requires_grad_(), targets)
    yield found
    yield from torch.autograd.grad(found, logits)


def test_recomputing_changes_nothing() -> None:
    assert all(torch.equal(one, other) for one, other in zip(_gradients(False), _gradients(True), strict=True))


# --- settings ---

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "nearest": ({"loss": {"dise": 1}}, "'dise' is not a known loss of segmentation.loss. Did you mean 'dice'"),
    "negative": ({"loss": {"dice": -1.0}}, "the weight -1.0 of dice must be a number of 0 or more"),
    "not finite": ({"loss": {"dice": float("nan")}}, "the weight nan of dice"),
    "all zero": ({"loss": {"dice": 0.0}}, "has no loss with a weight"),
    "empty": ({"loss": {}}, "has no loss with a weight"),
    "class weight": ({"class_weights": [1, -2]}, "class_weights: -2 must be a number of 0 or more"),
    "no class": ({"class_weights": [0, 0]}, "has no weight above 0"),
    "word": ({"class_weights": "frequencies"}, "Did you mean 'frequency'"),
    "over": ({"loss_over": "picture"}, "segmentation.loss_over"),
    "tversky": ({"tversky": (0.3,)}, "must be the weights of false positives and of false negatives"),
    "gamma": ({"focal_gamma": -1.0}, "focal_gamma=-1.0 must be 0 or more"),
    "smoothing": ({"label_smoothing": 1.5}, "label_smoothing=1.5 must lie in"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_settings(case: str) -> None:
    settings, message = REFUSED[case]
    with pytest.raises(ResnestError, match=message) as caught:
        LossSettings(**settings)
    assert "\n" not in str(caught.value)


CONTRADICTIONS: dict[str, tuple[dict[str, Any], bool, str]] = {
    "labels": ({"loss": {"cross_entropy": 1, "dice": 1}}, True, "Take bce in its place"),
    "classes": ({"loss": {"bce": 1}}, False, "Take cross_entropy in its place"),
    "smoothing": ({"loss": {"dice": 1}, "label_smoothing": 0.1}, False, "label_smoothing=0.1 plays no role"),
    "gamma": ({"focal_gamma": 3.0}, False, "focal_gamma=3.0 plays no role: it is for focal"),
    "tversky": ({"tversky": (1.0, 1.0)}, False, "tversky=.1.0, 1.0. plays no role"),
    "over": ({"loss_over": "image"}, True, "loss_over=image plays no role"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_contradictions(case: str) -> None:
    settings, multi_label, message = CONTRADICTIONS[case]
    told = list(LossSettings(**settings).contradictions(multi_label=multi_label))
    assert len(told) == 1
    assert re.search(message, told[0])


def test_as_many_weights_as_classes() -> None:
    settings = LossSettings(class_weights=[1, 2])
    assert settings.weights_of(("sky", "road")) == (1, 2)
    with pytest.raises(ResnestError, match=r"has 2 weights, and the data has 3 classes \(sky, road, car\)"):
        settings.weights_of(("sky", "road", "car"))


def test_median_frequency() -> None:
    """Frequencies 0.1, 0.4, 0.2 where the classes are shown; the last is nowhere."""
    weights = median_frequency(np.array([10, 80, 40, 0]), np.array([100, 200, 200, 0]))
    assert weights.tolist() == pytest.approx([2, 0.5, 1, 0])

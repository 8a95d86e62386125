"""Panoptic FPN: the semantic branch against a plain restatement, losses, odd pictures, what it gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from painted import SMALL, TINY
from processes import in_processes
from resnest.detection.card import DetectorSpec
from resnest.detection.detector import build_detector
from resnest.detection.object_masks import ObjectMasks
from resnest.detection.rpn import Target
from resnest.errors import ResnestError
from resnest.inference.torch_engine import TorchEngine
from resnest.network.tools import freeze_bn_statistics, synchronise_norms
from resnest.panoptic.card import PanopticSpec
from resnest.panoptic.model import PanopticFPN, PanopticOutput, SemanticBranch, build_panoptic
from resnest.panoptic.task import PanopticTask

SPEC = replace(TINY, attention_norm="layer")
NARROW = PanopticSpec(channels=8)
SIZES = torch.tensor([[64, 96], [61, 70]])
THINGS, STUFF = 3, 2
KINDS: dict[str, dict[str, Any]] = {
    "mask": {},
    "cascade, deformable": {"cascade": True, "deform": (False, True, True, True)},
    "batch norm": {"norm": "batch", "box_convs": 1, "box_fcs": 1},
}


def build(panoptic: PanopticSpec = NARROW, **changes: Any) -> PanopticFPN:
    torch.manual_seed(0)
    net = build_panoptic(SPEC, replace(SMALL, **changes), panoptic, THINGS + STUFF, THINGS, zero_gamma=False)
    for module in net.modules():  # of small random weights nothing would be found, and little learnt
        if isinstance(module, nn.Linear | nn.Conv2d) and module.weight.std() < 0.02:
            nn.init.normal_(module.weight, std=0.1)
    return net


def target(*boxes: tuple[int, int, int, int], size: tuple[int, int] = (64, 96), semantic: int | None = None) -> Target:
    """Stuff in two halves, things on it; or all of one label."""
    masks = torch.zeros(len(boxes), *size, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = True
    labels = torch.full(size, 1 if semantic is None else semantic, dtype=torch.uint8)
    if semantic is None:
        labels[size[0] // 2 :] = 2
        labels[masks.any(0)] = 0
    kinds = torch.arange(len(boxes)) % THINGS
    return Target(torch.tensor(boxes).reshape(-1, 4).float(), kinds, size, ObjectMasks.of(masks), labels)


TRUTH = target((8, 8, 40, 40), (50, 20, 90, 60)), target((5, 30, 60, 60), size=(61, 70))


def losses(net: PanopticFPN, targets: Any) -> dict[str, Tensor]:
    torch.manual_seed(1)
    found = net.train()(torch.randn(2, 3, 64, 96), SIZES, targets)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_losses_reach_every_parameter(kind: str) -> None:
    net = build(**KINDS[kind])
    found = losses(net, TRUTH)
    assert found.keys() - {"semantic"} == losses(build_twin(net), TRUTH).keys()
    torch.stack(list(found.values())).sum().backward()
    without = [name for name, one in net.named_parameters() if one.grad is None or not one.grad.isfinite().all()]
    assert without == []
    assert all((one.grad != 0).any() for name, one in net.named_parameters() if "semantic" in name and one.ndim == 4)


def build_twin(net: PanopticFPN) -> Any:
    """The detector in it."""
    twin = build_detector(SPEC, net.spec, THINGS)
    twin.load_state_dict({name: value for name, value in net.state_dict().items() if not name.startswith("semantic.")})
    return twin


@pytest.mark.parametrize("kind", ["mask", "cascade, deformable"])
def test_the_detector_in_it_is_one(kind: str) -> None:
    """The same losses and the same objects as a detector of the same weights."""
    net = build(**KINDS[kind])
    twin = build_twin(net)
    ours, theirs = losses(net, TRUTH), losses(twin, TRUTH)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    images = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        found, alone = net.eval()(images, SIZES), twin.eval()(images, SIZES)
    assert isinstance(found, PanopticOutput)
    assert all(torch.equal(one, other) for one, other in zip(found.objects, alone, strict=True))
    assert (alone.scores > 0).any()
    assert found.semantic.shape == (2, 1 + STUFF, 64, 96)


def test_weights_of_the_losses() -> None:
    plain = losses(build(PanopticSpec(channels=8, semantic_weight=1.0)), TRUTH)
    weighed = losses(build(PanopticSpec(channels=8, semantic_weight=0.25, instance_weight=3.0)), TRUTH)
    for name, loss in plain.items():
        torch.testing.assert_close(weighed[name], loss * (0.25 if name == "semantic" else 3.0))


def test_the_branch_restated() -> None:
    """P2 to P5 in one, one, two and three steps to the size of P2; the sum labelled, four times as large."""
    torch.manual_seed(0)
    branch = SemanticBranch(8, 32, 5, "group")
    levels = [torch.randn(2, 8, 64 // 2**k, 96 // 2**k) for k in range(5)]
    state = branch.state_dict()

    def scaled(level: int) -> Tensor:
        x = levels[level]
        for number in range(max(level, 1)):
            prefix = f"scale.{level}.{number}."
            x = F.conv2d(x, state[f"{prefix}conv.weight"], padding=1)
            x = F.relu(F.group_norm(x, 32, state[f"{prefix}norm.weight"], state[f"{prefix}norm.bias"]))
            if level:
                x = nn.Upsample(scale_factor=2, mode="bilinear")(x)
        return x

    summed = scaled(0) + scaled(1) + scaled(2) + scaled(3)
    logits = F.conv2d(summed, state["logits.weight"], state["logits.bias"])
    expected = nn.Upsample(scale_factor=4, mode="bilinear")(logits)
    assert sorted(state)[-1] == "scale.3.2.norm.weight"
    torch.testing.assert_close(branch(levels), expected)


def test_padding_and_ignored_pixels_do_not_count() -> None:
    logits = torch.randn(2, 3, 64, 96, requires_grad=True)
    first, second = TRUTH
    assert first.semantic is not None
    assert second.semantic is not None
    some = first._replace(semantic=first.semantic.clone())
    some.semantic[:, :30] = 255
    loss = SemanticBranch.loss(logits, (some, second))
    each = F.cross_entropy(logits[:1], first.semantic[None].long(), reduction="none")[0, :, 30:]
    other = F.cross_entropy(logits[1:, :, :61, :70], second.semantic[None].long(), reduction="none")
    torch.testing.assert_close(loss, torch.cat([each.flatten(), other.flatten()]).mean())
    loss.backward()
    assert logits.grad is not None
    assert (logits.grad[0, :, :, :30] == 0).all()
    assert (logits.grad[1, :, 61:] == 0).all()
    assert (logits.grad[1, :, :, 70:] == 0).all()


ODD: dict[str, tuple[Target, Target]] = {
    "no things": (target(), target(size=(61, 70))),
    "nothing counts": (target(semantic=255), target(semantic=255, size=(61, 70))),
    "things alone": (target((0, 0, 96, 64)), target((0, 0, 70, 61), size=(61, 70))),
    "things whose stuff does not count": (target((8, 8, 40, 40), semantic=255), TRUTH[1]),
    "one pixel": (target((10, 10, 11, 11)), target((0, 0, 1, 1), size=(61, 70))),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_pictures_have_finite_losses(case: str) -> None:
    net = build(**KINDS["batch norm"])
    total = torch.stack(list(losses(net, ODD[case]).values())).sum()
    total.backward()
    assert total.isfinite()
    assert all(one.grad is not None and one.grad.isfinite().all() for one in net.parameters())


def test_one_picture_smaller_than_any_anchor() -> None:
    net = build()
    freeze_bn_statistics(net.backbone)
    truth = [target((1, 1, 8, 7), size=(9, 11))]
    found = net.train()(torch.randn(1, 3, 32, 32), torch.tensor([[9, 11]]), truth)
    assert all(loss.isfinite() for loss in found.values())
    assert net.eval()(torch.randn(1, 3, 32, 32)).semantic.shape == (1, 1 + STUFF, 32, 32)


def test_processes_do_not_wait_for_one_without_things() -> None:
    def act(rank: int) -> bool:
        net = build(**KINDS["batch norm"]).train()
        synchronise_norms(net)
        found = net(torch.randn(2, 3, 64, 96), SIZES, ODD["no things"] if rank else TRUTH)
        torch.stack(list(found.values())).sum().backward()
        return all(bool(one.grad is not None and one.grad.isfinite().all()) for one in net.parameters())

    assert in_processes(2, act) == [True, True]


def test_the_engine_gives_the_same() -> None:
    net = build(norm="batch").eval()
    images = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        expected = net(images, SIZES)
    found = TorchEngine(net, "cpu", task=PanopticTask)(images.numpy(), SIZES.numpy())
    np.testing.assert_allclose(found["semantic"], expected.semantic, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found["scores"], expected.objects.scores, rtol=1e-4, atol=1e-5)
    assert found["masks"].shape == expected.objects.masks.shape


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "no things": (lambda: build_panoptic(SPEC, SMALL, NARROW, 5, 0), "0 of 5 classes are things: .* both"),
    "no stuff": (lambda: build_panoptic(SPEC, SMALL, NARROW, 5, 5), "5 of 5 classes are things"),
    "no masks": (lambda: build_panoptic(SPEC, DetectorSpec(), NARROW, 5, 3), "set detector.masks=true"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_built(case: str) -> None:
    act, message = REFUSED[case]
    with pytest.raises(ResnestError, match=message):
        act()

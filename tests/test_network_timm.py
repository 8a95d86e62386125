"""Equality with timm in float64, on shared random weights: logits, gradients, running statistics, dilated features.

Guards promise P10 (parity): timm's weights load with `strict=True` and mean the same. Tolerance: 1e-9 of the largest
value, so that a different order of additions passes and a different formula does not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from resnest.network import Backbone, ResNeSt
from resnest.spec import find_spec

timm = pytest.importorskip("timm")

SMALL = ["resnest14d", "resnest26d", "resnest50d", "resnest50d_4s2x40d", "resnest50d_1s4x24d", "resnet50d"]
BIG = ["resnest101e", "resnest200e", "resnest269e"]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Maps this small gain nothing from threads, and lose twofold where others use the same cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def randomise(net: nn.Module, seed: int = 0) -> None:
    """Weights, affine parameters and running statistics at random, with activations that stay near 1.

    Neither network's own start would do: with bn3 at zero the residual branches do not count. The last norm of a
    branch is kept small, because some 80 of them add up, and so is fc2, lest the softmax behind it saturates.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, value in net.state_dict().items():
        if name.endswith("num_batches_tracked"):
            value.zero_()
        elif name.endswith("running_var"):
            value.uniform_(0.5, 1.5, generator=generator)
        elif value.ndim == 1:
            centre = 1.0 if name.endswith("weight") else 0.0
            value.uniform_(centre - 0.2, centre + 0.2, generator=generator)
            value.mul_(0.1 if name.endswith(".bn3.weight") else 1.0)
        else:
            gain = 0.3 if ".fc2." in name else 1.0
            bound = gain * (6 / value[0].numel()) ** 0.5  # variance 2 / fan-in
            value.uniform_(-bound, bound, generator=generator)


def pair(name: str) -> tuple[nn.Module, ResNeSt]:
    """timm's network and ours, with one set of weights."""
    with torch.device("meta"):
        theirs, ours = timm.create_model(name), ResNeSt(find_spec(name)[0])
    share(theirs, ours)
    return theirs, ours


def share(theirs: nn.Module, ours: nn.Module) -> None:
    """Two networks on the meta device get storage in float64 and timm's random weights."""
    theirs.double().to_empty(device="cpu")
    randomise(theirs)
    # A copy of the running statistics; the weights may share memory, nothing here changes them.
    buffers = {key: value.clone() for key, value in theirs.named_buffers()}
    ours.load_state_dict({**theirs.state_dict(), **buffers}, strict=True, assign=True)


def images(batch: int, size: int = 64) -> Tensor:
    return torch.randn(batch, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def assert_equal(actual: Tensor, expected: Tensor, what: str = "", floor: float = 0.0) -> None:
    """Within 1e-9 of the largest expected value, or of `floor` where that is larger."""
    assert actual.shape == expected.shape, what
    scale = max(largest(expected), floor)
    assert scale > 0, f"{what} is all zero: nothing was compared"
    assert torch.dist(actual, expected, math.inf).item() <= 1e-9 * scale, what


def largest(x: Tensor) -> float:
    return torch.linalg.vector_norm(x, math.inf).item()


def logits_and_gradients(net: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    net.zero_grad()
    logits = net(x)
    (logits * torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype).view_as(logits)).sum().backward()
    gradients = {name: parameter.grad for name, parameter in net.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    return logits.detach(), gradients  # type: ignore[return-value]


def assert_same_step(theirs: nn.Module, ours: nn.Module, x: Tensor) -> Tensor:
    """Logits and the gradients of all parameters agree; returns timm's logits."""
    expected, expected_gradients = logits_and_gradients(theirs, x)
    logits, gradients = logits_and_gradients(ours, x)
    assert 1e-2 < expected.std() < 1e2, "activations out of a sane range would hide differences"
    assert_equal(logits, expected, "logits")
    assert list(gradients) == list(expected_gradients)
    # Some gradients are zero but for rounding: a bias in front of a batch-norm in training.
    floor = 1e-3 * max(map(largest, expected_gradients.values()))
    for name, gradient in gradients.items():
        assert_equal(gradient, expected_gradients[name], f"gradient of {name}", floor)
    return expected


@pytest.mark.parametrize("name", [*SMALL, *BIG])
def test_evaluation_equals_timm(name: str) -> None:
    theirs, ours = pair(name)
    x = images(1 if name in BIG else 2)
    expected = assert_same_step(theirs.eval(), ours.eval(), x)
    with torch.no_grad():  # here the batch-norm overwrites its input
        assert_equal(ours(x), expected, "logits without gradients")


@pytest.mark.parametrize("name", ["resnest14d", "resnest26d", "resnest50d_1s4x24d", "resnet50d"])
def test_training_equals_timm(name: str) -> None:
    theirs, ours = pair(name)
    assert_same_step(theirs.train(), ours.train(), images(4))
    for (key, expected), value in zip(theirs.state_dict().items(), ours.state_dict().values(), strict=True):
        assert_equal(value.double(), expected.double(), key)


# output stride -> first of the five maps at which the official dilation differs from timm's
@pytest.mark.parametrize(("output_stride", "first_different"), [(32, 5), (16, 4), (8, 3)])
@pytest.mark.parametrize("name", ["resnest14d", "resnest50d_1s4x24d", "resnet50d"])
def test_dilated_features_equal_timm(name: str, output_stride: int, first_different: int) -> None:
    """The official code keeps the 3x3 average pool of a dilated stage, timm drops it (facts, section 0, point 8)."""
    with torch.device("meta"):
        theirs = timm.create_model(name, features_only=True, output_stride=output_stride)
        arguments = {"out_indices": range(5), "output_stride": output_stride}
        ours = Backbone(find_spec(name)[0], dilation="timm", **arguments)
        official = Backbone(find_spec(name)[0], dilation="official", **arguments)
    share(theirs, ours)
    assert ours.channels == theirs.feature_info.channels()
    assert ours.strides == official.strides == theirs.feature_info.reduction()
    official.load_state_dict(theirs.state_dict(), strict=True, assign=True)
    with torch.no_grad():
        maps = zip(theirs.eval()(images(1)), ours.eval()(images(1)), official.eval()(images(1)), strict=True)
    for index, (expected, equal, other) in enumerate(maps):
        assert_equal(equal, expected, f"map {index}")
        if index < first_different:
            assert_equal(other, expected, f"official map {index}")
        else:
            assert largest(other - expected) > 1e-2 * largest(expected), f"official map {index}"

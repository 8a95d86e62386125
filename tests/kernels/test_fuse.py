"""A fused network is the same network: logits, gradients, statistics, names; and where no kernel runs, bit for bit."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from conftest import FULL
from kernels.blocks import apart
from resnest.errors import ResnestError
from resnest.kernels import backend
from resnest.kernels.backend import using
from resnest.network import ResNeSt, SplitAttention, set_drop_block
from resnest.network.recompute import recompute_activations
from resnest.network.tools import synchronise_norms
from resnest.spec import Spec

fuse = pytest.importorskip("resnest.kernels.fuse", reason="triton is not installed")

TINY = Spec(depths=(1, 1, 1, 1), planes=(8, 16, 16, 16), stem_width=4, stem="small")
SPECS = {
    "2s1x64d": TINY,
    "4s2x, pool first": dataclasses.replace(TINY, radix=4, cardinality=2, avd_first=True),
    "1s1x64d": dataclasses.replace(TINY, radix=1),
    "norms frozen inside": dataclasses.replace(TINY, attention_norm="frozen"),
    "layer norms inside": dataclasses.replace(TINY, attention_norm="layer"),
    "ResNet-D": dataclasses.replace(TINY, radix=0, avd=False),
}
each_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


def network(spec: Spec, device: torch.device, dtype: torch.dtype = torch.float64, **arguments: object) -> ResNeSt:
    net = ResNeSt(spec, num_classes=5, zero_gamma=False, **arguments)  # type: ignore[arg-type]
    return net.to(device=device, dtype=dtype, memory_format=torch.channels_last)


def images(device: torch.device, batch: int = 2, side: int = 8, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(batch, 3, side, side, dtype=dtype, device=device).contiguous(memory_format=torch.channels_last)


def fused_copy(net: ResNeSt) -> ResNeSt:
    other = copy.deepcopy(net)
    fuse.fuse(other)
    return other


def step(net: ResNeSt, x: Tensor) -> Tensor:
    logits: Tensor = net(x)
    F.cross_entropy(logits, torch.arange(len(x), device=x.device) % 5).backward()
    return logits.detach()


def assert_same_step(net: ResNeSt, other: ResNeSt, x: Tensor) -> None:
    """Logits, gradients and statistics of a training step."""
    assert apart(step(other, x), step(net, x)) < 1e-9
    for (name, mine), wanted in zip(other.named_parameters(), net.parameters(), strict=True):
        assert mine.grad is not None
        torch.testing.assert_close(mine.grad, wanted.grad, rtol=1e-7, atol=1e-9, msg=name)
    for (name, buffer), expected in zip(other.named_buffers(), net.buffers(), strict=True):
        torch.testing.assert_close(buffer, expected, rtol=1e-9, atol=1e-12, msg=name)


@each_spec
def test_a_training_step(spec: Spec, device: torch.device) -> None:
    net = network(spec, device).train()
    other = fused_copy(net)
    assert list(other.state_dict()) == list(net.state_dict())
    assert_same_step(net, other, images(device))
    net.eval()
    other.eval()
    x = images(device, batch=1)
    with torch.no_grad():
        assert apart(other(x), net(x)) < 1e-9


def test_what_was_fused(device: torch.device) -> None:
    net = network(TINY, device)
    assert fuse.fuse(net) == 4
    assert fuse.fuse(net) == 0  # already
    blocks = [module for module in net.modules() if isinstance(module, SplitAttention)]
    assert [isinstance(block.pool, nn.AvgPool2d) for block in blocks] == [False, True, True, True]
    assert fuse.fuse(network(SPECS["ResNet-D"], device)) == 0


@pytest.mark.parametrize("rate", [0.0, 0.2])
def test_drop_block_stays_between(rate: float, device: torch.device) -> None:
    """Its rate changes from step to step, in a network that was fused at another."""
    net = network(TINY, device).train()
    other = fused_copy(net)
    assert set_drop_block(net, rate) == set_drop_block(other, rate) == 6  # three in each block of stages 3 and 4
    x, logits = images(device), []
    for each in (net, other):
        torch.manual_seed(1)  # of the masks
        logits.append(step(each, x))
    assert apart(logits[1], logits[0]) < 1e-9
    for mine, wanted in zip(other.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, wanted.grad, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("dilation", ["official", "timm"] if FULL else ["official"])
def test_dilated(dilation: str, device: torch.device) -> None:
    net = network(TINY, device, output_stride=8, dilation=dilation).train()
    assert_same_step(net, fused_copy(net), images(device))


def test_with_gradient_checkpointing(device: torch.device) -> None:
    net = network(TINY, device).train()
    other = fused_copy(net)
    assert recompute_activations(other) == 4
    assert_same_step(net, other, images(device))


def test_statistics_that_are_frozen(device: torch.device) -> None:
    """As fine-tuned detectors have them: norms in evaluation, parameters that learn."""
    net = network(TINY, device).train()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    assert_same_step(net, fused_copy(net), images(device))


def _counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    operator = fuse.split_attention

    def count(*given: object) -> object:
        calls.append(1)
        return operator(*given)

    monkeypatch.setattr(fuse, "split_attention", count)
    return calls


def _synchronised(net: ResNeSt) -> None:
    assert synchronise_norms(net)


def _cumulative(net: ResNeSt) -> None:
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None


@pytest.mark.parametrize("change", [_synchronised, _cumulative])
def test_what_the_operator_cannot_do_the_network_does(
    change: Callable[[ResNeSt], None], device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = network(TINY, device).train()
    change(net)
    other, calls = fused_copy(net), _counted(monkeypatch)
    assert_same_step(net, other, images(device))
    assert not calls


def test_where_no_kernel_runs_nothing_changes(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    net = network(TINY, device, torch.float32).train()
    other, calls = fused_copy(net), _counted(monkeypatch)
    x = images(device, dtype=torch.float32)
    with using("torch"):
        assert torch.equal(step(other, x), step(net, x))
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(other.parameters(), net.parameters(), strict=True))  # type: ignore[arg-type]
    assert not calls
    step(other, x)
    assert len(calls) == 4


def test_one_sample_is_told_what_to_do(device: torch.device) -> None:
    with pytest.raises(ResnestError, match="Use a batch of 2 or more"):
        fused_copy(network(TINY, device).train())(images(device, batch=1))


def test_compiled_without_a_break(device: torch.device) -> None:
    """The whole training step in one graph, through AOTAutograd and its fake tensors."""
    net = network(TINY, device).train()
    other = fused_copy(net)
    torch._dynamo.reset()
    compiled = torch.compile(other, fullgraph=True, backend="aot_eager")
    x = images(device)
    F.cross_entropy(compiled(x), torch.arange(2, device=device)).backward()
    F.cross_entropy(net(x), torch.arange(2, device=device)).backward()
    for mine, wanted in zip(other.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, wanted.grad, rtol=1e-7, atol=1e-9)
    torch._dynamo.reset()


def test_compiled_where_the_choice_asks_the_device(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """What tells a GPU's capability cannot be traced, and need not be."""
    asked = functools.cache(lambda: backend.interpreted())
    monkeypatch.setattr(backend, "why_not", lambda device: None if asked() or device.type == "cuda" else "no")
    net = fused_copy(network(TINY, device).eval())
    torch._dynamo.reset()
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    x = images(device)
    with torch.no_grad():
        assert apart(compiled(x), net(x)) < 1e-9
    torch._dynamo.reset()


def test_exported_without_the_operator(device: torch.device) -> None:
    """An exported graph runs anywhere: it has torch's own operators alone."""
    net = fused_copy(network(TINY, device).eval())
    x = images(device)
    program = torch.export.export(net, (x,))
    names = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not {name for name in names if name.startswith("resnest")}
    with torch.no_grad():
        assert apart(program.module()(x), net(x)) < 1e-9


def test_under_autocast(device: torch.device) -> None:
    net = network(TINY, device, torch.float32).train()
    other, x = fused_copy(net), images(device, dtype=torch.float32)
    exact = net(x).detach()
    with torch.autocast(device.type, torch.bfloat16):
        mine, theirs = other(x), net(x)
    assert mine.dtype == theirs.dtype
    assert apart(mine, exact) <= 1.5 * apart(theirs, exact)  # bfloat16 of the other layers in both


def test_a_state_goes_there_and_back(device: torch.device) -> None:
    net = network(TINY, device)
    other = fused_copy(network(TINY, device))
    other.load_state_dict(net.state_dict(), strict=True)
    x = images(device)
    with torch.no_grad():
        assert apart(copy.deepcopy(other).eval()(x), net.eval()(x)) < 1e-9

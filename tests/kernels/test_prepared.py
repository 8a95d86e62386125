"""Inference with the fused operators: prepared networks, the convolution's algorithms, CUDA graphs, engines."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import torch
from torch import Tensor

from kernels.blocks import apart
from resnest.inference.prepare import prepared
from resnest.kernels import autotune
from resnest.kernels.autotune import ConvAlgorithm
from resnest.kernels.backend import using
from resnest.network import ResNeSt
from resnest.spec import Spec

pytest.importorskip("resnest.kernels.triton_backend", reason="triton is not installed")

TINY = Spec(depths=(1, 1, 1, 1), planes=(8, 16, 16, 16), stem_width=4, stem="small")
SPECS = {
    "2s1x64d": TINY,
    "4s2x, pool first": dataclasses.replace(TINY, radix=4, cardinality=2, avd_first=True),
    "1s2x": dataclasses.replace(TINY, radix=1, cardinality=2),
    "stride in the 3x3": dataclasses.replace(TINY, avd=False),
    "layer norms inside": dataclasses.replace(TINY, attention_norm="layer"),
}
ALGORITHMS: tuple[ConvAlgorithm, ...] = ("grouped", "dense", "triton")
CLOSE = 1e-5 if not torch.cuda.is_available() else 2e-3  # matrix units may round float32


def network(spec: Spec, device: torch.device, **arguments: Any) -> ResNeSt:
    net = ResNeSt(spec, num_classes=5, zero_gamma=False, **arguments).eval()
    generator = torch.Generator().manual_seed(1)
    for name, buffer in net.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.2, generator=generator)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5, generator=generator)
    return net.to(device)


def images(device: torch.device, side: int = 8) -> Tensor:
    return torch.randn(2, 3, side, side, device=device).contiguous(memory_format=torch.channels_last)


def blocks_of(net: torch.nn.Module) -> list[Any]:
    return [module for module in net.modules() if hasattr(module, "runs")]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_every_way_gives_the_networks_logits(spec: Spec, algorithm: ConvAlgorithm, device: torch.device) -> None:
    net = network(spec, device)
    x = images(device)
    with torch.inference_mode():
        expected = net.double()(x.double())
        fast = prepared(net.float(), kernels=True)
        for block in blocks_of(fast):
            block.algorithm = algorithm
        assert len(blocks_of(fast)) == 4
        assert apart(fast(x), expected) < CLOSE
        with using("torch"):
            assert apart(fast(x), expected) < CLOSE


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_short_types_are_no_less_exact_than_without(
    algorithm: ConvAlgorithm, dtype: torch.dtype, device: torch.device
) -> None:
    """V of a block, beside float64."""
    net = network(TINY, device)
    x = torch.randn(2, 16, 12, 12, device=device).to(dtype).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        exact, without, fast = (
            prepared(net, kernels=kernels).layer2[0].to(kind)
            for kernels, kind in ((False, torch.float64), (False, dtype), (True, dtype))
        )
        expected = exact.pool_after(exact.conv2(x.double()))
        fast.conv2.algorithm = algorithm
        mine, other = fast.conv2(x), without.pool_after(without.conv2(x))
        # parameters are rounded to the type in both, which no algorithm can mend
        assert apart(mine, expected) <= 1.05 * apart(other, expected)


def test_one_graph(device: torch.device) -> None:
    fast, x = prepared(network(TINY, device), kernels=True), images(device)
    torch._dynamo.reset()
    compiled = torch.compile(fast, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        assert apart(compiled(x), fast(x)) < 1e-6
        program = torch.export.export(fast, (x,))
    torch._dynamo.reset()
    assert "resnest" not in str(program.graph)


def scripted(seconds: dict[ConvAlgorithm, float]) -> tuple[autotune.Timer, list[str]]:
    """A timer that runs what it is given, and says what it was told to."""
    order: list[str] = []
    names = list(seconds)

    def timer(run: autotune.Run) -> float:
        run()
        order.append(names[len(order) % len(names)])
        return seconds[order[-1]]  # type: ignore[index]

    return timer, order


@pytest.mark.parametrize("fastest", ALGORITHMS)
def test_the_fastest_way_is_taken(fastest: ConvAlgorithm, device: torch.device) -> None:
    fast, x = prepared(network(TINY, device), kernels=True), images(device)
    timer, order = scripted({algorithm: 1.0 if algorithm == fastest else 2.0 for algorithm in ALGORITHMS})
    chosen = autotune.tune(fast, x, timer=timer)
    assert list(chosen) == [f"layer{stage}.0.conv2" for stage in (1, 2, 3, 4)]
    assert set(chosen.values()) == {fastest}
    assert [block.algorithm for block in blocks_of(fast)] == [fastest] * 4
    assert len(order) == 4 * len(ALGORITHMS)


def test_a_shape_is_measured_once(device: torch.device) -> None:
    spec = dataclasses.replace(TINY, depths=(3, 1, 1, 1))
    timer, order = scripted(dict.fromkeys(ALGORITHMS, 1.0))
    assert len(autotune.tune(prepared(network(spec, device), kernels=True), images(device), timer=timer)) == 6
    assert len(order) == 4 * len(ALGORITHMS)


def test_nothing_is_measured_where_results_must_not_change(device: torch.device) -> None:
    fast = prepared(network(TINY, device), kernels=True)
    torch.use_deterministic_algorithms(True)
    try:
        assert autotune.tune(fast, images(device), timer=_never) == {}
    finally:
        torch.use_deterministic_algorithms(False)
    assert autotune.tune(prepared(network(TINY, device)), images(device), timer=_never) == {}  # no kernels in it
    with using("torch"):
        assert autotune.tune(fast, images(device), timer=_never) == {}


def _never(run: autotune.Run) -> float:
    raise AssertionError


def test_in_training_backward_counts_and_statistics_stay(device: torch.device) -> None:
    from resnest.kernels.fuse import fuse

    net = network(TINY, device).train()
    fuse(net)
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    timer, _ = scripted({"grouped": 2.0, "dense": 1.0})
    assert set(autotune.tune(net, images(device), timer=timer).values()) == {"dense"}
    assert all(torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())
    assert all(parameter.grad is None for parameter in net.parameters())
    dense = net(images(device)).sum()
    dense.backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a CUDA device")
def test_graphs() -> None:
    from resnest.inference.graphs import Graphed

    device = torch.device("cuda")
    net = prepared(network(TINY, device), kernels=True)
    fast = Graphed(net, most=2)
    with torch.inference_mode():
        for side in (16, 24, 32, 16):
            for _ in range(3):
                x = images(device, side)
                assert apart(fast(x), net(x)) < 1e-3
    assert len(fast.recorded) == 2


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sides of what is recorded, without a GPU: the recording itself is replaced."""
    from resnest.inference.graphs import Graphed, Recorded

    sides: list[int] = []

    class Graph:
        def __init__(self, net: Callable[[Tensor], Tensor], images: Tensor, outputs: Tensor) -> None:
            self.net, self.images, self.outputs = net, images, outputs

        def replay(self) -> None:
            self.outputs.copy_(self.net(self.images))

    def record(self: Graphed, images: Tensor) -> Recorded:
        sides.append(images.shape[2])
        own, outputs = images.clone(), self.net(images)
        return Recorded(Graph(self.net, own, outputs), own, outputs)  # type: ignore[arg-type]

    monkeypatch.setattr(Graphed, "_record", record)
    return sides


def test_graphs_keep_and_drop_shapes(recorded: list[int]) -> None:
    from resnest.inference.graphs import Graphed

    net = torch.nn.Conv2d(1, 1, 1)
    fast = Graphed(net, most=2)
    first = fast(x := torch.randn(1, 1, 4, 4))
    assert recorded == []  # a shape that comes once
    for side in (4, 4, 5, 5, 6, 6, 4, 4):
        x = torch.randn(1, 1, side, side)
        got = fast(x)
        assert torch.equal(got, net(x))
    assert recorded == [4, 5, 6, 4]  # the third drove out the first, which came again
    assert len(fast.recorded) == 2
    assert first.shape == (1, 1, 4, 4)
    assert not got.requires_grad


def test_shapes_that_come_once_are_forgotten(recorded: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    from resnest.inference import graphs

    monkeypatch.setattr(graphs, "SEEN", 3)
    fast = graphs.Graphed(torch.nn.Conv2d(1, 1, 1))
    for side in (1, 2, 3, 4, 1, 4):
        fast(torch.randn(1, 1, side, side))
        assert len(fast.once) <= 3
    assert recorded == [4]  # the first was too long ago


def test_threads_take_turns_with_a_graphs_memory(recorded: list[int]) -> None:
    from resnest.inference.graphs import Graphed

    net = torch.nn.Conv2d(1, 1, 1)
    fast, together = Graphed(net), Barrier(2)
    inputs = [torch.randn(1, 1, 64, 64) for _ in range(2)]
    for x in inputs:
        fast(x)

    def run(x: Tensor) -> bool:
        together.wait()
        return all(torch.equal(fast(x), net(x)) for _ in range(300))

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(run, inputs)) == [True, True]
    assert recorded == [64]


def test_the_engine_takes_them(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    from resnest.inference import prepare
    from resnest.inference.torch_engine import TorchEngine

    calls: list[int] = []
    attend = prepare.attend
    monkeypatch.setattr(prepare, "attend", lambda *given: (calls.append(1), attend(*given))[1])
    net, x = network(TINY, device), images(device)
    logits = TorchEngine(net, device.type)(x.cpu().numpy())["logits"]
    assert calls
    assert apart(torch.from_numpy(logits), net(x).cpu()) < CLOSE

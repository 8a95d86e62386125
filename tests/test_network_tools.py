"""The network under torch's tools: trace, compile, export, copies, autocast, memory layouts.

Guards the torch half of promise P15 (export parity): what a tool makes of the network gives the network's logits, at
other batches and image sizes too. The networks are tiny, in float32 unless stated.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.feature_extraction import create_feature_extractor

from resnest.network import Backbone, Bottleneck, DropBlock2d, ResNeSt, set_drop_block
from resnest.network.norm import FrozenStatsBatchNorm2d
from resnest.spec import Spec, Stem

TINY = Spec(depths=(1, 1, 1, 1), planes=(8, 16, 32, 64), stem_width=8)
SPECS = {
    "2s1x64d": TINY,
    "4s2x64d, pool first": dataclasses.replace(TINY, radix=4, cardinality=2, avd_first=True),
    "1s1x64d": dataclasses.replace(TINY, radix=1),
    "ResNet-D": dataclasses.replace(TINY, radix=0, avd=False),
}
REGULARISED = dataclasses.replace(TINY, drop_path_rate=0.2, drop_block_rate=0.1)
each_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)

# torch calls tracing deprecated, but tools still build on it. And a trace keeps the outcome of `if`, of which there is
# one on the batch size; it asks for two samples in training, and what is traced is in evaluation.
ignores_trace_warnings = pytest.mark.filterwarnings(
    r"ignore:`torch\.jit\.trace\w*` is deprecated:FutureWarning",
    "ignore:Converting a tensor to a Python boolean:torch.jit.TracerWarning",
)


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    torch._dynamo.reset()


def network(spec: Spec = TINY) -> ResNeSt:
    """A network in evaluation, all of whose branches and statistics count."""
    net = ResNeSt(spec, num_classes=10, zero_gamma=False).eval()
    generator = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return net


def images(batch: int = 2, height: int = 64, width: int = 64) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(2))


def assert_close(actual: Tensor, expected: Tensor, relative: float = 1e-5) -> None:
    """Relative to the largest value."""
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max().item() <= relative * expected.abs().max().item()


@ignores_trace_warnings
@pytest.mark.parametrize("grad", [False, True])
@each_spec
def test_trace(spec: Spec, grad: bool) -> None:
    net = network(spec)
    with torch.set_grad_enabled(grad):
        traced = torch.jit.trace(net, images())
        for x in (images(), images(5, 97, 131)):
            assert_close(traced(x), net(x))
    assert "aten::batch_norm" in str(traced.inlined_graph)


def test_compiled_evaluation() -> None:
    net = network()
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        assert_close(compiled(images()), net(images()))


@each_spec
def test_compiled_block(spec: Spec) -> None:
    """Each kind of split attention and both places of the pool, in one graph."""
    block = network(spec).layer2[0]
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 32, 9, 7)
    with torch.no_grad():
        assert_close(compiled(x.clone()), block(x.clone()))


def gradients(net: nn.Module, call: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    net.zero_grad()
    F.cross_entropy(call(images(4)), torch.arange(4)).backward()
    return {name: parameter.grad.clone() for name, parameter in net.named_parameters() if parameter.grad is not None}


def test_compiled_training_step() -> None:
    eager = network().double().train()
    other = copy.deepcopy(eager)
    compiled = torch.compile(other, fullgraph=True, backend="aot_eager")
    expected = gradients(eager, lambda x: eager(x.double()))
    actual = gradients(other, lambda x: compiled(x.double()))
    assert len(actual) == len(expected) == len(list(eager.parameters()))
    scale = max(value.abs().max().item() for value in expected.values())
    for name, value in expected.items():
        assert (actual[name] - value).abs().max().item() <= 1e-9 * scale, name
    for (key, value), other_value in zip(eager.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(other_value, value, msg=key)


def test_compiled_training_of_a_regularised_block() -> None:
    block = network(REGULARISED).layer4[0].train()
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    x = torch.randn(4, 128, 5, 5, requires_grad=True)
    compiled(x).square().mean().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in block.parameters())


def test_a_compiled_drop_block_follows_the_schedule() -> None:
    """The rate changes every epoch: a stale rate is wrong, and a new compilation each time soon is refused by torch."""
    drop = DropBlock2d(0.0).train()
    compiled = torch.compile(drop, fullgraph=True, backend="eager")
    for epoch in range(1, 13):  # more epochs than torch._dynamo.config.recompile_limit
        set_drop_block(drop, 0.02 * epoch)
        share = (compiled(torch.ones(1, 256, 32, 32)) == 0).float().mean().item()
        assert share == pytest.approx(0.02 * epoch, rel=0.2)


def export(net: nn.Module) -> torch.export.ExportedProgram:
    # DYNAMIC, not Dim("h", min=32): torch cannot prove that the two pools of a stage agree at every height, and
    # instead of a range leaves a check in the program. The last stage must have more than a pixel in the example.
    dynamic = torch.export.Dim.DYNAMIC
    return torch.export.export(net, (images(),), dynamic_shapes=({0: dynamic, 2: dynamic, 3: dynamic},))


@each_spec
def test_export_with_dynamic_batch_and_size(spec: Spec) -> None:
    net = network(spec)
    with torch.no_grad():
        exported = export(net).module()
        for shape in ((1, 64, 64), (5, 97, 131), (3, 160, 64), (2, 33, 47)):
            assert_close(exported(images(*shape)), net(images(*shape)))


@pytest.mark.parametrize("grad", [False, True])
def test_the_exported_graph_keeps_batch_norms(grad: bool) -> None:
    """Exporters fold them into convolutions."""
    net = network()
    with torch.set_grad_enabled(grad):
        operators = [str(node.target) for node in export(net).graph.nodes if node.op == "call_function"]
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len([name for name in operators if "batch_norm" in name]) == len(norms)


def test_a_backbone_exports() -> None:
    backbone = Backbone(TINY, output_stride=16).eval()
    with torch.no_grad():
        exported = export(backbone).module()
        for actual, expected in zip(exported(images(3, 97, 131)), backbone(images(3, 97, 131)), strict=True):
            assert_close(actual, expected)


@each_spec
def test_deep_copy(spec: Spec) -> None:
    net = network(spec)
    twin = copy.deepcopy(net)
    assert torch.equal(twin(images()), net(images()))
    ours, theirs = net.state_dict(), twin.state_dict()
    assert not [key for key in ours if ours[key].data_ptr() == theirs[key].data_ptr()]


# bfloat16 has 8 bits, 0.4 percent per rounding; few samples in the attention's batch-norm magnify that in training.
@pytest.mark.parametrize(
    ("training", "grad", "tolerance"), [(False, False, 0.02), (False, True, 0.02), (True, True, 0.2)]
)
@each_spec
def test_bfloat16_autocast(spec: Spec, training: bool, grad: bool, tolerance: float) -> None:
    net = network(spec).train(training)
    expected = net(images(8)).detach()
    with torch.set_grad_enabled(grad), torch.autocast("cpu", dtype=torch.bfloat16):
        logits = net(images(8))
    assert logits.dtype == torch.bfloat16
    assert_close(logits.detach().float(), expected, tolerance)
    if grad:
        F.cross_entropy(logits.float(), torch.arange(8)).backward()
        for name, parameter in net.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.dtype == torch.float32
            assert parameter.grad.isfinite().all(), name


def watch_layouts(net: nn.Module) -> list[str]:
    """Names of the layers that get or give a map that is not channels_last, filled while `net` runs."""
    strays: list[str] = []

    def check(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            for side, value in (("input", args[0]), ("output", output)):
                if not value.is_contiguous(memory_format=torch.channels_last):
                    strays.append(f"{side} of {name}")

        return hook

    watched = (nn.Conv2d, nn.BatchNorm2d, nn.AvgPool2d, nn.MaxPool2d, DropBlock2d, Bottleneck)
    for name, module in net.named_modules():
        if isinstance(module, watched):
            module.register_forward_hook(check(name))
    return strays


@pytest.mark.parametrize("mode", ["inference", "evaluation", "training"])
@each_spec
def test_channels_last_stays_channels_last(spec: Spec, mode: str) -> None:
    plain = network(spec).double().train(mode == "training")
    net = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    strays = watch_layouts(net)
    x = images(2, 96, 96).double()
    with torch.set_grad_enabled(mode != "inference"):
        features = net.forward_features(x.contiguous(memory_format=torch.channels_last))
        expected = plain.forward_features(x)
    assert strays == []
    assert features.shape[2:] == (3, 3)  # more than a pixel: the layout of a 1x1 map is ambiguous
    assert features.is_contiguous(memory_format=torch.channels_last)
    assert_close(features, expected, 1e-9)


def test_regularisation_keeps_channels_last() -> None:
    net = network(REGULARISED).train().to(memory_format=torch.channels_last)
    strays = watch_layouts(net)
    net(images(2, 96, 96).contiguous(memory_format=torch.channels_last))
    assert strays == []


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode], ids=lambda context: context.__name__)
@pytest.mark.parametrize("stem", ["deep", "conv7", "small"])
def test_the_image_is_not_modified(stem: Stem, context: Callable[[], Any]) -> None:
    net = network(dataclasses.replace(TINY, stem=stem))
    expected = net(images()).detach()
    x = images()
    with context():
        first, second = net(x), net(x)
    assert torch.equal(x, images())
    assert torch.equal(first, second)
    assert_close(first, expected)


def test_feature_maps_are_not_modified_by_later_stages() -> None:
    """The maps a backbone returns are inputs of the next stage, whose ReLUs work in place."""
    backbone = Backbone(TINY, out_indices=range(5)).eval()
    kept: list[Tensor] = []
    for stage in (backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4):
        stage.register_forward_hook(lambda _, args, output: kept.append(output.clone()))
    with torch.no_grad():
        maps = backbone(images())
    for features, early in zip(maps[1:], kept, strict=True):
        assert torch.equal(features, early)


def test_synchronised_norms_leave_the_frozen_ones_frozen() -> None:
    net = nn.SyncBatchNorm.convert_sync_batchnorm(network(dataclasses.replace(TINY, attention_norm="frozen")))
    assert isinstance(net.bn1, nn.SyncBatchNorm)
    assert isinstance(net.layer1[0].conv2.bn0, nn.SyncBatchNorm)
    assert isinstance(net.layer1[0].conv2.bn1, FrozenStatsBatchNorm2d)


@pytest.mark.parametrize("training", [False, True])
@each_spec
def test_symbolic_trace(spec: Spec, training: bool) -> None:
    net = network(spec).train(training)
    twin = copy.deepcopy(net)
    traced = torch.fx.symbolic_trace(twin)
    assert torch.equal(traced(images()), net(images()))
    assert torch.equal(traced.bn1.running_mean, net.bn1.running_mean)


def test_symbolic_trace_of_a_regularised_network() -> None:
    net = network(REGULARISED).train()
    traced = torch.fx.symbolic_trace(copy.deepcopy(net))
    for call in (net, traced):
        torch.manual_seed(3)
        logits = call(images(4))
        assert logits.isfinite().all()
        if call is net:
            expected = logits
    assert torch.equal(logits, expected)


@each_spec
def test_feature_extractor_of_torchvision(spec: Spec) -> None:
    net = network(spec)
    names = {f"layer{index}": f"c{index + 1}" for index in (1, 2, 3, 4)}
    features = create_feature_extractor(net, {**names, "layer1.0.conv1": "conv", "fc": "logits"})
    maps = net.forward_stages(images())
    found = features(images())
    assert list(found) == ["conv", *names.values(), "logits"]
    for value, expected in zip(list(found.values())[1:-1], maps[1:], strict=True):
        assert torch.equal(value, expected)
    assert torch.equal(found["logits"], net(images()))
    assert torch.equal(found["conv"], net.layer1[0].conv1(net.maxpool(maps[0])))
    with torch.no_grad():
        assert torch.equal(features(images())["logits"], net(images()))

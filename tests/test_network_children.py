"""The network as others take it apart: children in the published order, replaced modules, hooks, torch's walkers.

What a package makes of the children equals what the network itself computes, and no hook sees a map that a later
module has overwritten, but by the ReLUs in place that every ResNet of torchvision and timm has, too.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.feature_extraction import create_feature_extractor

from resnest.inference.prepare import PreparedBottleneck, prepare
from resnest.kernels.fuse import fuse
from resnest.network import Backbone, Bottleneck, ResNeSt
from resnest.spec import PUBLISHED, Spec
from small import NETWORKS, small

TINY = Spec(depths=(2, 1, 1, 2), planes=(8, 16, 32, 64), stem_width=8)
SPECS = {
    "2s1x64d": TINY,
    "4s2x64d, pool first": dataclasses.replace(TINY, radix=4, cardinality=2, avd_first=True),
    "1s1x64d": dataclasses.replace(TINY, radix=1),
    "ResNet-D": dataclasses.replace(TINY, radix=0, avd=False),
    "7x7 stem": dataclasses.replace(TINY, stem="conv7"),
    "small stem": dataclasses.replace(TINY, stem="small"),
    "layer norm": dataclasses.replace(TINY, attention_norm="layer"),
    "regularised": dataclasses.replace(TINY, drop_path_rate=0.2, drop_block_rate=0.1),
}
each_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
contexts = pytest.mark.parametrize(
    "context", [torch.enable_grad, torch.no_grad, torch.inference_mode], ids=lambda context: context.__name__
)
STAGES = ("relu", "layer1", "layer2", "layer3", "layer4")
PUBLISHED_ORDER = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool", "fc"]


def network(spec: Spec = TINY, kind: Any = ResNeSt, **arguments: Any) -> Any:
    """In evaluation; all branches, statistics and biases count."""
    torch.manual_seed(0)
    net = kind(spec, zero_gamma=False, **arguments).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    return net


def images(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, 64, 64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", PUBLISHED)
def test_children_are_in_the_published_order(name: str) -> None:
    """Dropout is a child where there is one: the official code has none at rate 0."""
    with torch.device("meta"):
        net = ResNeSt(dataclasses.replace(PUBLISHED[name].spec, depths=(1, 1, 1, 1)))
    expected = PUBLISHED_ORDER.copy()
    if PUBLISHED[name].spec.drop_rate:
        expected.insert(-1, "drop")
    assert [child for child, _ in net.named_children()] == expected
    assert [child for child, _ in Backbone(TINY).named_children()] == PUBLISHED_ORDER[:-2]
    theirs = [child for child, _ in timm.create_model("resnest14d").named_children()]
    assert [{"act1": "relu", "global_pool": "avgpool"}.get(child, child) for child in theirs] == PUBLISHED_ORDER


def test_blocks_are_in_the_published_order() -> None:
    """Of a bottleneck and its split attention; what the published code makes on demand stands in between."""
    block = network(dataclasses.replace(TINY, drop_block_rate=0.1)).layer4[0]
    published = ["conv1", "bn1", "conv2", "conv3", "bn3", "relu", "downsample"]
    assert [name for name, _ in block.named_children() if name in published] == published
    published = ["conv", "bn0", "relu", "fc1", "bn1", "fc2", "rsoftmax"]
    assert [name for name, _ in block.conv2.named_children() if name in published] == published


@pytest.mark.filterwarnings(r"ignore:`torch\.jit\.script\w*` is deprecated")
@pytest.mark.parametrize("out_indices", [(0,), (1,), (0, 3), (-1,), 2], ids=str)
def test_walks_over_a_backbone_that_stops_early(out_indices: Any) -> None:
    net = network(kind=Backbone, out_indices=out_indices)
    expected = net(images())
    for walked in (torch.fx.symbolic_trace(net), torch.jit.script(net)):
        for got, wanted in zip(walked(images()), expected, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


@contexts
@each_spec
def test_a_sequence_of_the_children_is_the_network(spec: Spec, context: Callable[[], Any]) -> None:
    net = network(spec)
    children = list(net.children())
    with context():
        expected = net.forward_stages(images())
        assert torch.equal(nn.Sequential(*children[:-2])(images()), expected[-1])
        assert torch.equal(nn.Sequential(*children[:-1])(images()), net.forward_head(expected[-1], pre_logits=True))
        assert torch.equal(nn.Sequential(*children)(images()), net(images()))


@contexts
@pytest.mark.parametrize("kind", [ResNeSt, Backbone])
@each_spec
def test_torchvisions_layer_getter(spec: Spec, kind: Any, context: Callable[[], Any]) -> None:
    net = network(spec, kind)
    with context():
        maps = net.forward_stages(images())
        found = IntermediateLayerGetter(net, {name: name for name in STAGES})(images())
        assert list(found) == list(STAGES)
        for name, expected in zip(STAGES, maps, strict=True):
            assert torch.equal(found[name], expected), name


def test_torchvisions_pyramid() -> None:
    net = network()
    pyramid = BackboneWithFPN(net, {name: name for name in STAGES[1:]}, [32, 64, 128, 256], 8).eval()
    with torch.no_grad():
        maps = OrderedDict(zip(STAGES[1:], net.forward_stages(images())[1:], strict=True))
        for got, expected in zip(pyramid(images()).values(), pyramid.fpn(maps).values(), strict=True):
            assert torch.equal(got, expected)


def test_the_module_of_every_map_gives_it() -> None:
    """`feature_info`, from which others choose a hook's place."""
    net = network()
    seen: list[Tensor] = []
    for info in net.feature_info:
        net.get_submodule(info["module"]).register_forward_hook(lambda *args: seen.append(args[-1]))
    for got, expected in zip(seen, net.forward_stages(images()), strict=True):
        assert got is expected


# --- Replaced modules ---

REPLACED: dict[str, Callable[[], nn.Module]] = {
    "avgpool": lambda: nn.AdaptiveMaxPool2d(1),
    "relu": nn.SiLU,
    "maxpool": lambda: nn.AvgPool2d(2),
    "bn1": nn.Identity,
    "conv1.2": nn.SiLU,
    "layer1.0.relu": nn.SiLU,
    "layer1.1.relu1": nn.Identity,
    "layer1.1.bn3": nn.Identity,
    "layer2.0.downsample.2": nn.Identity,
    "layer2.0.pool_after": lambda: nn.MaxPool2d(3, 2, 1),
    "layer4.1.conv2.relu": nn.SiLU,
    "layer4.1.conv2.relu1": nn.SiLU,
    "layer4.1.conv2.rsoftmax": nn.Sigmoid,
    "layer4.1.conv2.bn0": nn.Identity,
    "layer4.1.conv2.bn1": nn.Identity,
    "layer4.1.conv2": lambda: nn.Conv2d(64, 64, 3, padding=1),
    "layer4.1.drop2": lambda: nn.Hardtanh(-0.1, 0.1),
}


@pytest.mark.parametrize("name", REPLACED)
def test_a_replaced_module_has_effect_and_stays_in_the_prepared_network(name: str) -> None:
    net = network()
    plain = net(images())
    net.set_submodule(name, REPLACED[name]())
    with torch.no_grad():
        changed, fast = net(images()), prepare(net)(images())
    assert (changed - plain).abs().max() > 1e-3 * plain.abs().max()
    torch.testing.assert_close(fast, changed, rtol=1e-4, atol=1e-5 * changed.abs().max().item())


def test_only_the_replaced_block_is_not_prepared() -> None:
    net = network()
    net.layer1[1].relu = nn.SiLU()
    kinds = [type(block) for stage in (1, 2, 3, 4) for block in prepare(net).get_submodule(f"layer{stage}")]
    assert kinds == [PreparedBottleneck, Bottleneck, *[PreparedBottleneck] * 4]


@pytest.mark.parametrize("change", [fuse, nn.SyncBatchNorm.convert_sync_batchnorm], ids=["fused", "synchronised norms"])
def test_networks_for_training_can_be_prepared(change: Callable[[nn.Module], Any]) -> None:
    net = network(dataclasses.replace(TINY, drop_block_rate=0.1), output_stride=8)
    expected = net(images()).detach()
    change(net)
    with torch.no_grad():
        torch.testing.assert_close(prepare(net)(images()), expected, rtol=1e-4, atol=1e-4)


# --- Hooks ---


@contexts
@each_spec
def test_no_map_that_a_hook_keeps_is_overwritten_by_another_module_than_a_relu(
    spec: Spec, context: Callable[[], Any]
) -> None:
    """Of the norms only the last of a block is: the shortcut is added to its output, as torchvision and timm do."""
    net = network(spec)
    kept: dict[str, Tensor] = {}
    copies: dict[str, Tensor] = {}
    kinds = (nn.Conv2d, nn.Linear, nn.ReLU, nn.MaxPool2d, nn.AvgPool2d, Bottleneck)
    watched = {name: module for name, module in net.named_modules() if isinstance(module, kinds)}
    with context():
        for module in (net, net.layer4[-1].conv2):
            inner = module.forward

            def wrapped(x: Tensor, inner: Callable[[Tensor], Tensor] = inner) -> Tensor:  # what no norm can notice
                return inner(x)

            module.forward = wrapped
        for name, module in watched.items():
            module.register_forward_hook(lambda _, __, out, name=name: kept.update({name: out}))
            module.register_forward_hook(lambda _, __, out, name=name: copies.update({name: out.clone()}))
        net(images())
    assert set(kept) == set(watched)
    for name, value in kept.items():
        assert torch.equal(value, copies[name]), name


@contexts
def test_the_output_of_a_convolution_that_another_walker_kept(context: Callable[[], Any]) -> None:
    """torchvision's getter hooks nothing, and packages put their own forward into a module."""
    net = network()
    with context():
        stem = IntermediateLayerGetter(net, {"conv1": "stem", "layer1": "c2"})(images())["stem"]
        assert torch.equal(stem, net.conv1(images()))
        kept: list[Tensor] = []
        conv = net.layer1[0].conv1
        conv.forward = lambda x: kept.append(conv._conv_forward(x, conv.weight, None)) or kept[-1]
        x = net.maxpool(net.relu(net.bn1(net.conv1(images()))))
        net(images())
        assert torch.equal(kept[0], conv._conv_forward(x, conv.weight, None))


@pytest.mark.parametrize("task", NETWORKS)
def test_convolutions_of_every_task_keep_their_outputs(task: str) -> None:
    net = small(task)
    pairs: list[tuple[str, Tensor, Tensor]] = []
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _, __, out, name=name: pairs.append((name, out, out.clone())))
    with torch.no_grad():
        images = torch.randn(2, 3, 64, 64)
        net(images, torch.tensor([[64, 64]] * 2)) if task in ("detection", "panoptic") else net(images)
    assert pairs
    for name, kept, copied in pairs:
        assert torch.equal(kept, copied), name


def test_hooks_see_the_relus_and_the_attention() -> None:
    """Places where CAM packages look: a block's last ReLU gives its output, and is called once."""
    net = network()
    block = net.layer4[-1]
    seen: dict[str, Tensor] = {}
    for name in ("relu1", "conv2.relu", "conv2.relu1", "conv2.rsoftmax", "relu"):
        block.get_submodule(name).register_forward_hook(
            lambda _, __, out, name=name: seen.setdefault(name, []).append(out)
        )
    features = net.forward_features(images())
    assert {name: len(values) for name, values in seen.items()} == dict.fromkeys(seen, 1)
    assert list(seen) == ["relu1", "conv2.relu", "conv2.relu1", "conv2.rsoftmax", "relu"]
    assert seen["relu"][0] is features
    assert seen["conv2.rsoftmax"][0].shape == (2, 2 * 64, 1, 1)
    torch.testing.assert_close(seen["conv2.rsoftmax"][0].unflatten(1, (2, 64)).sum(1), torch.ones(2, 64, 1, 1))


def test_a_gradient_cam_of_the_last_relu() -> None:
    net = network()
    kept: list[Tensor] = []
    net.layer4[-1].relu.register_forward_hook(lambda _, __, out: kept.append(out))
    logits = net(images())
    (gradient,) = torch.autograd.grad(logits[:, 3].sum(), kept[-1])
    # the mean over the pixels and a linear layer: every pixel has the same gradient
    expected = net.fc.weight[3] / kept[-1][0, 0].numel()
    torch.testing.assert_close(gradient, expected[None, :, None, None].expand_as(gradient))


# --- torch's walkers ---


@pytest.mark.filterwarnings(r"ignore:`torch\.jit\.script\w*` is deprecated")
@pytest.mark.parametrize(("kind", "training"), [(ResNeSt, False), (ResNeSt, True), (Backbone, False)])
@pytest.mark.parametrize("name", ["2s1x64d", "4s2x64d, pool first", "ResNet-D", "small stem", "regularised"])
def test_scripted(name: str, kind: Any, training: bool) -> None:
    net = network(SPECS[name], kind).train(training)
    scripted = torch.jit.script(copy.deepcopy(net))
    for shape in ((2, 3, 64, 64), (3, 3, 97, 71)):
        x = torch.randn(shape)
        torch.manual_seed(5)
        expected = net(x)
        torch.manual_seed(5)
        got = scripted(x)
        pairs = zip(got, expected, strict=True) if kind is Backbone else [(got, expected)]
        for one, other in pairs:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_traced_graph_has_the_modules_of_the_network() -> None:
    """Batch norms, ReLUs and convolutions are calls of modules: torch's passes over graphs look for these."""
    graph = torch.fx.symbolic_trace(network()).graph
    called = {str(node.target) for node in graph.nodes if node.op == "call_module"}
    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU)
    expected = {name for name, module in network().named_modules() if isinstance(module, kinds)}
    assert expected <= called


def test_torchs_pass_that_folds_norms() -> None:
    from torch.fx.experimental.optimization import fuse as fold_norms

    net = network()
    with torch.no_grad():
        expected = net(images())
        folded = fold_norms(copy.deepcopy(net))
        torch.testing.assert_close(folded(images()), expected, rtol=1e-4, atol=1e-5)
    assert not [module for module in folded.modules() if isinstance(module, nn.BatchNorm2d)]


@contexts
def test_torchvisions_feature_extractor(context: Callable[[], Any]) -> None:
    net = network()
    names = ["relu", "layer1", "layer2.0.bn3", "layer4.1.relu", "layer4.1.conv2.rsoftmax", "avgpool", "fc"]
    with context():
        found = create_feature_extractor(net, names)(images())
        maps = net.forward_stages(images())
        assert torch.equal(found["relu"], maps[0])
        assert torch.equal(found["layer1"], maps[1])
        assert torch.equal(found["layer4.1.relu"], maps[4])
        assert torch.equal(found["avgpool"], net.avgpool(maps[4]))
        assert torch.equal(found["fc"], net(images()))

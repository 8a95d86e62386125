"""What the network does besides its logits: regularisation, norms, odd inputs, refused structures, features, heads.

Guards promise P8 (degenerate inputs): one sample per device and tiny or odd images either train with finite loss and
gradients, or raise one clear error that names the fix. All networks are tiny; nothing here depends on trained weights.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnest.errors import ResnestError
from resnest.network import Backbone, Bottleneck, DropBlock2d, DropPath, ResNeSt, decay_groups, set_drop_block
from resnest.spec import PUBLISHED, AttentionNorm, Spec, Stem

PLANES = (8, 16, 32, 64)


def tiny(**fields: Any) -> Spec:
    return Spec(**{"depths": (1, 1, 1, 1), "planes": PLANES, "stem_width": 8, **fields})


def images(batch: int, height: int = 64, width: int = 64, channels: int = 3) -> Tensor:
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(0))


def train_step(net: ResNeSt, x: Tensor) -> Tensor:
    """One step of SGD on made-up labels; returns the loss."""
    labels = torch.arange(len(x)) % net.num_classes
    loss = F.cross_entropy(net.train()(x), labels)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    loss.backward()
    optimizer.step()
    return loss.detach()


def assert_finite_training(net: ResNeSt, x: Tensor) -> None:
    assert train_step(net, x).isfinite()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.isfinite().all(), name


@pytest.mark.parametrize("radix", [0, 2])
def test_zero_gamma_starts_every_residual_branch_at_zero(radix: int) -> None:
    net = ResNeSt(tiny(depths=(2, 1, 1, 1), radix=radix), num_classes=5).eval()
    blocks = [module for module in net.modules() if isinstance(module, Bottleneck)]
    assert len(blocks) == 5
    assert all(block.bn3.weight.count_nonzero() == 0 for block in blocks)
    x = images(2, channels=32)
    assert torch.equal(net.layer1[1](x.clone()), x.relu())


def test_zero_gamma_zeroes_bn3_only_and_can_be_turned_off() -> None:
    for zero_gamma, expected in ((True, [f"layer{stage}.0.bn3.weight" for stage in (1, 2, 3, 4)]), (False, [])):
        norms = dict(ResNeSt(tiny(), zero_gamma=zero_gamma).named_parameters())
        scales = {name: value for name, value in norms.items() if name.endswith("weight") and value.ndim == 1}
        assert [name for name, value in scales.items() if (value == 0).all()] == expected
        assert [name for name, value in scales.items() if (value != 1).any()] == expected


@pytest.mark.parametrize("name", ["conv1.3", "layer4.0.conv2.conv", "layer4.0.conv2.fc2", "layer4.0.conv3"])
def test_convolutions_start_with_he_normal_fan_out_without_groups(name: str) -> None:
    torch.manual_seed(0)
    net = ResNeSt(Spec(depths=(1, 1, 1, 1), cardinality=2), num_classes=0)
    convolution = net.get_submodule(name)
    assert isinstance(convolution, nn.Conv2d)
    expected = math.sqrt(2 / (convolution.kernel_size[0] ** 2 * convolution.out_channels))
    assert convolution.weight.std().item() == pytest.approx(expected, rel=0.05)
    assert abs(convolution.weight.mean().item()) < 0.1 * expected


@pytest.mark.parametrize("norm", ["batch", "frozen", "layer"])
def test_norms_and_biases_are_not_decayed(norm: AttentionNorm) -> None:
    net = ResNeSt(tiny(attention_norm=norm), num_classes=5)
    decayed, exempt = decay_groups(net, 1e-4)
    assert (decayed["weight_decay"], exempt["weight_decay"]) == (1e-4, 0.0)
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    decayed_names = [names.pop(id(parameter)) for parameter in decayed["params"]]
    exempt_names = {names.pop(id(parameter)) for parameter in exempt["params"]}  # pop: each parameter exactly once
    assert not names
    for name in decayed_names:
        assert isinstance(net.get_submodule(name.removesuffix(".weight")), nn.Conv2d | nn.Linear)
    # The official code decays the first four by mistake (facts, section 0, point 5).
    for prefix in ("conv1.1", "conv1.4", "layer1.0.downsample.2", "layer4.0.downsample.2", "bn1"):
        assert {f"{prefix}.weight", f"{prefix}.bias"} <= exempt_names
    attention = {"fc1.bias", "fc2.bias", "bn0.weight", "bn0.bias", "bn1.weight", "bn1.bias"}
    assert {f"layer3.0.conv2.{leaf}" for leaf in attention} <= exempt_names
    assert "fc.bias" in exempt_names
    assert all(name.endswith(("weight", "bias")) for name in exempt_names)


def test_parameters_without_gradient_are_in_no_group() -> None:
    net = ResNeSt(tiny(), num_classes=5)
    net.conv1.requires_grad_(False)
    frozen = {id(parameter) for parameter in net.conv1.parameters()}
    assert not [p for group in decay_groups(net, 0.1) for p in group["params"] if id(p) in frozen]


def test_drop_blocks_are_in_stages_3_and_4_only() -> None:
    net = ResNeSt(tiny(depths=(1, 1, 2, 1), drop_block_rate=0.1))
    names = [name for name, module in net.named_modules() if isinstance(module, DropBlock2d)]
    places = ("layer3.0", "layer3.1", "layer4.0")
    assert names == [f"{place}.drop{index}" for place in places for index in (1, 2, 3)]
    assert all(net.get_submodule(name).rate == 0.1 and net.get_submodule(name).block_size == 3 for name in names)


def test_set_drop_block_sets_all_of_them() -> None:
    net = ResNeSt(tiny())
    assert set_drop_block(net, 0.25) == 6
    assert {module.rate for module in net.modules() if isinstance(module, DropBlock2d)} == {0.25}
    assert set_drop_block(ResNeSt(tiny(radix=0, avd=False)), 0.25) == 0  # the baseline was trained without


def test_drop_blocks_stand_behind_bn1_split_attention_and_bn3() -> None:
    """drop1 sees the output of bn1 itself, before the ReLU; drop3 that of bn3, before the shortcut is added."""
    block = ResNeSt(tiny(drop_block_rate=0.1, avd=False)).layer3[0].train()
    seen: dict[str, tuple[Any, Any]] = {}
    for name in ("bn1", "drop1", "conv2", "drop2", "conv3", "bn3", "drop3"):
        block.get_submodule(name).register_forward_hook(
            lambda _, args, output, name=name: seen.__setitem__(name, (args[0], output))
        )
    block(images(2, channels=64))
    assert list(seen) == ["bn1", "drop1", "conv2", "drop2", "conv3", "bn3", "drop3"]
    for drop, source in (("drop1", "bn1"), ("drop2", "conv2"), ("drop3", "bn3")):
        assert seen[drop][0] is seen[source][1]
    assert seen["conv3"][0] is seen["drop2"][1]


def expected_share(rate: float, size: int) -> float:
    """The exact mean of a mask with block centres all over the map (facts, section 1.4: the Gluon code)."""
    gamma = rate * size**2 / 9 / (size - 2) ** 2
    reach = F.conv2d(torch.ones(1, 1, size, size), torch.ones(1, 1, 3, 3), padding=1)  # centres that cover a pixel
    return (1 - (1 - gamma) ** reach).mean().item()


@pytest.mark.parametrize(("rate", "size"), [(0.02, 64), (0.1, 64), (0.1, 14), (0.1, 7), (0.3, 32)])
def test_share_of_zeros(rate: float, size: int) -> None:
    torch.manual_seed(0)
    drop = DropBlock2d(rate).train()
    out = drop(torch.ones(1, 2**22 // size**2, size, size))
    share = (out == 0).float().mean().item()
    assert share == pytest.approx(expected_share(rate, size), rel=0.03)
    if size == 64 and rate <= 0.1:
        assert share == pytest.approx(rate, rel=0.1)  # on a large map, and while blocks seldom overlap


def test_zeros_come_in_blocks_shared_over_the_batch() -> None:
    torch.manual_seed(0)
    out = DropBlock2d(0.1).train()(torch.ones(3, 8, 16, 16))
    assert torch.equal(out[0], out[1])
    assert torch.equal(out[0], out[2])
    assert not torch.equal(out[0, 0], out[0, 1])
    zeros = (out[:1] == 0).float()
    assert zeros.sum() > 0
    # Every zero belongs to a 3x3 block of zeros (cut off at the border): shrinking and growing changes nothing.
    centres = 1 - F.max_pool2d(1 - zeros, 3, stride=1, padding=1)
    assert torch.equal(F.max_pool2d(centres, 3, stride=1, padding=1), zeros)


# 1024 x 14 x 14 is the output of a stage-3 block at 224 pixels; its pixels outnumber the largest float16.
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(2, 64, 14, 14), (1, 1024, 14, 14)])
def test_drop_block_keeps_the_mean(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    out = DropBlock2d(0.1).train()(torch.ones(shape, dtype=dtype))
    assert out.dtype == dtype
    assert out.double().mean().item() == pytest.approx(1, rel=4 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_drop_block_on_maps_as_small_as_a_block(size: int) -> None:
    torch.manual_seed(0)
    out = DropBlock2d(0.1).train()(torch.ones(1, 4096, size, size))
    assert out.isfinite().all()
    assert 0 < (out == 0).float().mean() < 0.5
    assert out.mean().item() == pytest.approx(1, rel=1e-4)


def test_drop_block_does_nothing_in_evaluation_or_at_rate_zero() -> None:
    x = images(2)
    assert DropBlock2d(0.5).eval()(x) is x
    assert DropBlock2d(0.0).train()(x) is x


def test_drop_path_rates_rise_linearly() -> None:
    net = ResNeSt(tiny(depths=(2, 2, 2, 2), drop_path_rate=0.7))
    blocks = [module for module in net.modules() if isinstance(module, Bottleneck)]
    rates = [block.drop_path.rate if isinstance(block.drop_path, DropPath) else 0.0 for block in blocks]
    assert rates == pytest.approx([0.1 * index for index in range(8)])


@pytest.mark.parametrize("index", [0, 1], ids=["convolution on the shortcut", "identity"])
def test_drop_path_drops_the_residual_branch(index: int) -> None:
    """Dropped samples leave only the shortcut, kept ones have the branch scaled up (timm drops the input instead)."""
    torch.manual_seed(0)
    net = ResNeSt(tiny(depths=(1, 1, 1, 3), drop_path_rate=0.5), zero_gamma=False).train()
    block = net.layer4[index]
    assert isinstance(block.drop_path, DropPath)
    x = images(16, 4, 4, channels=128 if index == 0 else 256)
    shortcut = x if block.downsample is None else block.downsample(x)
    block.drop_path.rate = 0.0
    branches: list[Tensor] = []
    handle = block.drop3.register_forward_hook(lambda _, args, output: branches.append(output.clone()))
    block(x)
    handle.remove()
    block.drop_path.rate = 0.5
    out = block(x)
    dropped = torch.tensor([torch.allclose(a, b, atol=1e-6) for a, b in zip(out, shortcut.relu(), strict=True)])
    assert 0 < dropped.sum() < 16
    expected = (shortcut + 2 * branches[0]).relu()
    torch.testing.assert_close(out[~dropped], expected[~dropped])


def test_drop_path_near_one_leaves_the_shortcut() -> None:
    torch.manual_seed(0)
    block = ResNeSt(tiny(drop_path_rate=0.9999), zero_gamma=False).train().layer4[0]
    x = images(4, 8, 8, channels=128)
    torch.testing.assert_close(block(x), block.downsample(x).relu())


def test_drop_path_keeps_the_mean() -> None:
    torch.manual_seed(0)
    out = DropPath(0.2).train()(torch.ones(20_000, 2, 1, 1))
    assert torch.equal(out.unique(), torch.tensor([0.0, 1.25]))
    assert torch.equal(out[:, 0], out[:, 1])
    assert out.mean().item() == pytest.approx(1, abs=4 * 0.5 / 20_000**0.5)  # four standard errors


def test_drop_path_and_drop_block_do_nothing_in_evaluation() -> None:
    x = images(2)
    assert DropPath(0.5).eval()(x) is x
    plain = ResNeSt(tiny(), num_classes=5, zero_gamma=False).eval()
    noisy = ResNeSt(tiny(drop_path_rate=0.5, drop_block_rate=0.5, drop_rate=0.5), num_classes=5).eval()
    noisy.load_state_dict(plain.state_dict(), strict=True)
    assert torch.equal(noisy(x), plain(x))


def test_everything_on_trains() -> None:
    torch.manual_seed(0)
    net = ResNeSt(tiny(drop_path_rate=0.2, drop_block_rate=0.1, drop_rate=0.2), num_classes=5)
    assert_finite_training(net, images(4))


def test_one_sample_is_refused_with_the_fix() -> None:
    net = ResNeSt(tiny(), num_classes=5)
    with pytest.raises(ResnestError, match="one sample per device") as raised:
        net.train()(images(1))
    message = str(raised.value)
    assert "\n" not in message
    assert all(fix in message for fix in ("batch of 2", "attention_norm='frozen'", "attention_norm='layer'"))
    net.eval()(images(1))


@pytest.mark.parametrize("size", [(64, 64), (33, 31)], ids=["64", "33x31"])
@pytest.mark.parametrize("norm", ["frozen", "layer"])
def test_one_sample_trains_without_batch_statistics(norm: AttentionNorm, size: tuple[int, int]) -> None:
    assert_finite_training(ResNeSt(tiny(attention_norm=norm), num_classes=5), images(1, *size))


@pytest.mark.parametrize("norm", ["batch", "frozen", "layer"])
def test_one_sample_of_one_pixel_is_refused_with_the_fix(norm: AttentionNorm) -> None:
    """At 32 x 32 the last stage has one pixel, so that the batch-norms outside of the attention see one value, too."""
    net = ResNeSt(tiny(attention_norm=norm), num_classes=5).train()
    with pytest.raises(ResnestError, match="2 or more"):
        net(images(1, 32, 32))


@pytest.mark.parametrize("norm", ["batch", "frozen", "layer"])
def test_two_samples_train(norm: AttentionNorm) -> None:
    assert_finite_training(ResNeSt(tiny(attention_norm=norm), num_classes=5), images(2, 32, 32))


def test_frozen_statistics_do_not_move() -> None:
    net = ResNeSt(tiny(attention_norm="frozen"), num_classes=5)
    before = {key: value.clone() for key, value in net.state_dict().items() if "running" in key}
    train_step(net, images(2))
    for key, value in net.state_dict().items():
        if "running" in key:
            assert torch.equal(value, before[key]) == (".conv2.bn1." in key), key


def test_frozen_and_batch_share_their_keys() -> None:
    states = {norm: ResNeSt(tiny(attention_norm=norm)).state_dict() for norm in ("batch", "frozen", "layer")}
    assert list(states["frozen"]) == list(states["batch"])
    assert set(states["layer"]) < set(states["batch"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"depths": (3, 4, 6)}, r"depths=\(3, 4, 6\) has 3 stages, a ResNeSt has 4"),
        ({"planes": (8, 8, 8, 8, 8)}, r"planes=\(8, 8, 8, 8, 8\) has 5 stages"),
        ({"depths": (3, 0, 6, 3)}, r"depths=\(3, 0, 6, 3\) must be 1 or more in each stage"),
        ({"planes": (64, -1, 64, 64)}, r"planes=\(64, -1, 64, 64\) must be 1 or more"),
        ({"cardinality": 0}, "cardinality=0 must be 1 or more"),
        ({"width": 0}, "width=0 must be 1 or more"),
        ({"stem_width": -3}, "stem_width=-3 must be 1 or more"),
        ({"radix": -1}, "radix=-1 must be 0 or more"),
        ({"drop_rate": 1.0}, r"drop_rate=1.0 must lie in \[0, 1\)"),
        ({"drop_path_rate": -0.1}, r"drop_path_rate=-0.1 must lie in \[0, 1\)"),
        ({"drop_block_rate": math.nan}, r"drop_block_rate=nan must lie in \[0, 1\)"),
        ({"stem": "dep"}, "'dep' is not a known stem. Did you mean 'deep'"),
        ({"attention_norm": "bach"}, "'bach' is not a known attention_norm. Did you mean 'batch'"),
        ({"planes": (8, 8, 8, 8), "width": 4}, "planes=8, width=4, cardinality=1 the 3x3 convolution has 0 channels"),
        ({"radix": 3}, r"planes=64, .*radix=3 the 3x3 convolution has 64 channels, which 3 groups"),
        ({"radix": 2, "cardinality": 2, "width": 3}, r"radix=2 the 3x3 convolution has 6 channels, which 4 groups"),
        ({"radix": 1, "cardinality": 12, "width": 1}, "the attention has 32 channels, which 12 cardinal groups"),
    ],
)
def test_impossible_structures_are_refused_with_the_numbers(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ResnestError, match=message) as raised:
        Spec(**fields)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output_stride": 4}, "output_stride=4 is not one of 8, 16, 32"),
        ({"dilation": "tim"}, "dilation='tim' is not one of 'official', 'timm'"),
        ({"out_indices": ()}, r"out_indices=\(\) must name maps from 0"),
        ({"out_indices": (1, 5)}, r"out_indices=\(1, 5\) must name maps from 0"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ResnestError, match=message):
        Backbone(tiny(), **arguments)


@pytest.mark.parametrize("cardinality", [1, 2, 4])
@pytest.mark.parametrize("radix", [0, 1, 2, 4])
def test_every_radix_and_cardinality_runs(radix: int, cardinality: int) -> None:
    net = ResNeSt(tiny(radix=radix, cardinality=cardinality), num_classes=5)
    assert_finite_training(net, images(2))
    assert net.eval()(images(1)).shape == (1, 5)


@pytest.mark.parametrize("stem", ["deep", "conv7", "small"])
@pytest.mark.parametrize("size", [(225, 225), (97, 131), (33, 31), (32, 32)], ids=str)
def test_any_image_size_runs(size: tuple[int, int], stem: Stem) -> None:
    spec = tiny(stem=stem)
    net, backbone = ResNeSt(spec, num_classes=5).eval(), Backbone(spec, out_indices=range(5)).eval()
    assert net(images(1, *size)).isfinite().all()
    for features, stride in zip(backbone(images(1, *size)), backbone.strides, strict=True):
        assert features.shape[2:] == tuple(math.ceil(side / stride) for side in size)


def test_one_input_channel() -> None:
    assert ResNeSt(tiny(), in_chans=1, num_classes=5).eval()(images(2, channels=1)).shape == (2, 5)


@pytest.mark.parametrize(("output_stride", "strides"), [(32, [4, 8, 16, 32]), (16, [4, 8, 16, 16]), (8, [4, 8, 8, 8])])
@pytest.mark.parametrize("dilation", ["official", "timm"])
def test_backbone_maps(output_stride: int, strides: list[int], dilation: Any) -> None:
    net = Backbone(tiny(), output_stride=output_stride, dilation=dilation).eval()
    assert net.channels == [32, 64, 128, 256]
    assert net.strides == strides
    maps = net(images(2, 96, 64))
    assert [tuple(features.shape) for features in maps] == [
        (2, channels, 96 // stride, 64 // stride) for channels, stride in zip(net.channels, strides, strict=True)
    ]
    assert not any(hasattr(net, name) for name in ("fc", "drop", "num_classes", "forward_head", "reset_classifier"))


# output stride -> per stage: dilation of the first block's 3x3, of the others', stride of the first block's pool
DILATIONS = {
    32: [(1, 1, None), (1, 1, 2), (1, 1, 2), (1, 1, 2)],
    16: [(1, 1, None), (1, 1, 2), (1, 1, 2), (1, 2, 1)],
    8: [(1, 1, None), (1, 1, 2), (1, 2, 1), (2, 4, 1)],
}


@pytest.mark.parametrize("output_stride", DILATIONS)
@pytest.mark.parametrize("pool_first", [False, True])
def test_official_dilation(output_stride: int, pool_first: bool) -> None:
    """Where the official code dilates, and that it keeps the 3x3 pool at stride 1 (facts, section 1.3)."""
    net = Backbone(tiny(depths=(2, 2, 2, 2), avd_first=pool_first), output_stride=output_stride)
    for stage, (first, rest, stride) in enumerate(DILATIONS[output_stride], start=1):
        blocks = net.get_submodule(f"layer{stage}")
        assert [block.conv2.conv.dilation[0] for block in blocks] == [first, rest]
        assert all(block.conv2.conv.stride == (1, 1) for block in blocks)
        pools = [m for m in blocks[0].children() if isinstance(m, nn.AvgPool2d)]
        assert [(pool.kernel_size, pool.stride) for pool in pools] == ([(3, stride)] if stride else [])
        assert isinstance(blocks[0].pool_before, nn.AvgPool2d) == bool(pool_first and stride)


def test_out_indices_choose_the_maps() -> None:
    everything, some = Backbone(tiny(), out_indices=range(5)).eval(), Backbone(tiny(), out_indices=(0, 3)).eval()
    some.load_state_dict(everything.state_dict(), strict=True)
    assert (everything.channels, everything.strides) == ([16, 32, 64, 128, 256], [2, 4, 8, 16, 32])
    assert (some.channels, some.strides) == ([16, 128], [2, 16])
    maps, chosen = everything(images(1)), some(images(1))
    assert len(chosen) == 2
    assert torch.equal(chosen[0], maps[0])
    assert torch.equal(chosen[1], maps[3])


def test_feature_info_describes_the_five_maps() -> None:
    net = ResNeSt(tiny(), num_classes=5).eval()
    assert [info["module"] for info in net.feature_info] == ["relu", "layer1", "layer2", "layer3", "layer4"]
    assert all(net.get_submodule(str(info["module"])) is not None for info in net.feature_info)
    for features, info in zip(net.forward_stages(images(1)), net.feature_info, strict=True):
        assert features.shape == (1, info["num_chs"], 64 // int(info["reduction"]), 64 // int(info["reduction"]))


def test_the_forward_is_features_then_head() -> None:
    net = ResNeSt(tiny(), num_classes=5).eval()
    features = net.forward_features(images(2))
    assert features.shape == (2, net.num_features, 2, 2) == (2, 256, 2, 2)
    pooled = net.forward_head(features, pre_logits=True)
    torch.testing.assert_close(pooled, features.mean((2, 3)))
    torch.testing.assert_close(net.forward_head(features), net.fc(pooled))
    assert torch.equal(net(images(2)), net.forward_head(features))


def test_reset_classifier() -> None:
    net = ResNeSt(tiny(), num_classes=5).double().eval()
    assert net.get_classifier() is net.fc
    net.reset_classifier(7)
    assert net.num_classes == net.get_classifier().out_features == 7
    assert net.fc.weight.dtype == torch.float64
    assert net(images(2).double()).shape == (2, 7)
    net.reset_classifier(0)
    assert torch.equal(net(images(2).double()), net.forward_head(net.forward_features(images(2).double()), True))


def test_no_classes_means_pooled_features() -> None:
    net = ResNeSt(tiny(), num_classes=0).eval()
    assert net(images(2)).shape == (2, net.num_features)
    assert not [key for key in net.state_dict() if key.startswith("fc.")]


def test_final_dropout() -> None:
    """Only the two largest were trained with it: 0.2 before the classifier (facts, section 1.3)."""
    rates = {name: published.spec.drop_rate for name, published in PUBLISHED.items() if published.spec.drop_rate}
    assert rates == {"resnest200": 0.2, "resnest269": 0.2}
    torch.manual_seed(0)
    net = ResNeSt(tiny(drop_rate=0.2), num_classes=5).train()
    pooled = net.forward_head(torch.ones(64, net.num_features, 1, 1), pre_logits=True)
    assert (pooled == 0).float().mean().item() == pytest.approx(0.2, abs=0.02)
    assert pooled.mean().item() == pytest.approx(1, abs=0.02)

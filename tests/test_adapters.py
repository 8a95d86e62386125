"""Adapters for torchvision, timm, Hugging Face and detectron2: beside networks of the peer with equal weights."""

from __future__ import annotations

import contextlib
import copy
import itertools
import pickle
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, KeypointRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

import resnest
from resnest.adapters import peer
from resnest.adapters.torchvision import backbone_with_fpn
from resnest.errors import ResnestError
from resnest.network.norm import FrozenStatsBatchNorm2d
from resnest.network.tools import SyncBatchNorm2d
from resnest.spec import PUBLISHED


def randomised(net: Any) -> Any:
    """In evaluation and in float64; every statistic counts, and every branch."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.8, 1.2)
            module.weight.data.uniform_(0.5, 0.8)
            module.bias.data.normal_(0, 0.1)
    return net.double().eval()


def images(channels: int = 3, size: int = 64, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, channels, size, size, generator=generator, dtype=torch.float64)


def assert_same(got: Any, expected: Any, x: Tensor, pick: Callable[[Any], list[Tensor]]) -> None:
    """Maps and the gradients of all parameters and of the images, to 1e-5 of the largest."""
    results = []
    for net in (got, expected):
        net.double().zero_grad()
        own = x.clone().requires_grad_()
        maps = pick(net(own))
        sum((m * torch.linspace(-1, 1, m[0].numel(), dtype=m.dtype).view_as(m[0])).sum() for m in maps).backward()
        gradients = [p.grad for p in net.parameters() if p.grad is not None]
        results.append([*(m.detach() for m in maps), own.grad, *gradients])
    assert len(results[0]) == len(results[1])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * max(1.0, other.abs().max().item()))


# --- torchvision ---

P6P7 = {"returned_layers": (2, 3, 4), "extra_blocks": lambda: LastLevelP6P7(16, 16)}


@pytest.mark.parametrize(
    "arguments", [{}, P6P7, {"in_chans": 4, "norm_layer": nn.BatchNorm2d}], ids=["C2-C5", "P6", "norm"]
)
def test_the_pyramid_is_torchvisions_on_timms_network(arguments: dict[str, Any]) -> None:
    made = {**arguments, "extra_blocks": arguments.get("extra_blocks", lambda: None)()}
    ours = randomised(backbone_with_fpn("resnest14", out_channels=16, **made))
    channels = arguments.get("in_chans", 3)
    layers = {f"layer{stage}": str(level) for level, stage in enumerate(made.get("returned_layers", (1, 2, 3, 4)))}
    counts = [128 * 2 ** int(name[-1]) for name in layers]
    extra = None if made["extra_blocks"] is None else LastLevelP6P7(16, 16)
    body = timm.create_model("resnest14d", in_chans=channels)
    expected = BackboneWithFPN(body, layers, counts, 16, extra, made.get("norm_layer")).eval()
    expected.load_state_dict(ours.state_dict())
    assert ours.out_channels == 16
    assert list(ours(images(channels))) == list(expected.double()(images(channels)))
    assert_same(ours, expected, images(channels), lambda maps: list(maps.values()))


def _targets() -> list[dict[str, Tensor]]:
    boxes = torch.tensor([[8.0, 8.0, 40.0, 50.0]])
    points = torch.tensor([[[20.0, 20.0, 1.0]] * 3])
    target = {"boxes": boxes, "labels": torch.tensor([1]), "masks": torch.ones(1, 64, 64, dtype=torch.uint8)}
    return [{**target, "keypoints": points}] * 2


SIZES = {"min_size": 64, "max_size": 64}
DETECTORS: dict[str, Callable[[], Any]] = {
    "FasterRCNN": lambda: FasterRCNN(backbone_with_fpn("resnest14", out_channels=16), num_classes=3, **SIZES),
    "MaskRCNN": lambda: MaskRCNN(backbone_with_fpn("resnest14", out_channels=16), num_classes=3, **SIZES),
    "KeypointRCNN": lambda: KeypointRCNN(
        backbone_with_fpn("resnest14", out_channels=16), num_classes=2, num_keypoints=3, **SIZES
    ),
    "RetinaNet": lambda: RetinaNet(
        backbone_with_fpn("resnest14", returned_layers=(2, 3, 4), extra_blocks=LastLevelP6P7(32, 32), out_channels=32),
        num_classes=3,
        **SIZES,
    ),
    "FCOS": lambda: FCOS(
        backbone_with_fpn("resnest14", returned_layers=(2, 3, 4), extra_blocks=LastLevelP6P7(32, 32), out_channels=32),
        num_classes=3,
        anchor_generator=AnchorGenerator(((8,), (16,), (32,), (64,), (128,)), ((1.0,),) * 5),
        **SIZES,
    ),
}


@pytest.mark.parametrize("name", DETECTORS)
def test_torchvisions_detectors_are_trained_and_predict(name: str) -> None:
    torch.manual_seed(0)
    net = DETECTORS[name]().train()
    pictures = [torch.rand(3, 64, 64), torch.rand(3, 64, 64)]
    before = net.backbone.body["conv1"][0].weight.detach().clone()
    losses = net(pictures, _targets())
    sum(losses.values()).backward()
    torch.optim.SGD(net.parameters(), lr=0.1).step()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert not torch.equal(net.backbone.body["conv1"][0].weight, before)
    with torch.no_grad():
        found = net.eval()(pictures)
    assert [set(item) >= {"boxes", "scores", "labels"} for item in found] == [True, True]


def test_frozen_parts_of_a_pyramid() -> None:
    body = backbone_with_fpn("resnest14", out_channels=8, trainable_layers=3).body
    assert not any(p.requires_grad for name in ("conv1", "bn1", "layer1") for p in body[name].parameters())
    assert all(p.requires_grad for name in ("layer2", "layer3", "layer4") for p in body[name].parameters())
    norms = backbone_with_fpn("resnest14", out_channels=8, frozen_norms=True).body.modules()
    assert not [module for module in norms if isinstance(module, nn.BatchNorm2d)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"returned_layers": (3, 2)}, r"returned_layers=\(3, 2\) must name stages from 1 to 4, in order"),
        ({"returned_layers": ()}, r"returned_layers=\(\) must name"),
        ({"trainable_layers": 6}, "trainable_layers=6 must lie in 0 to 5"),
    ],
)
def test_impossible_pyramids(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ResnestError, match=message):
        backbone_with_fpn("resnest14", **arguments)


# --- timm ---


@pytest.fixture(scope="module")
def in_timm() -> list[str]:
    from resnest.adapters.timm import register

    assert register() == register()  # twice does no harm
    return register()


FEATURES: list[dict[str, Any]] = [
    {},
    {"out_indices": (-2, -1), "output_stride": 16},
    {"out_indices": (1, 4), "output_stride": 8, "in_chans": 4},
    {"out_indices": 2},
]


@pytest.mark.usefixtures("in_timm")
@pytest.mark.parametrize("arguments", FEATURES, ids=str)
def test_timms_features(arguments: dict[str, Any]) -> None:
    expected = randomised(timm.create_model("resnest14d", features_only=True, **arguments))
    net = timm.create_model("resnest14", features_only=True, **arguments).eval()
    assert net.load_state_dict(expected.state_dict(), strict=False).unexpected_keys == []
    assert net.feature_info.channels() == expected.feature_info.channels()
    assert net.feature_info.reduction() == expected.feature_info.reduction()
    assert_same(net, expected, images(arguments.get("in_chans", 3)), list)


def test_timm_creates_our_networks(in_timm: list[str], tmp_path: Path) -> None:
    assert set(in_timm) == {*PUBLISHED} <= set(timm.list_models())
    expected = randomised(timm.create_model("resnest14d"))
    torch.save(expected.float().state_dict(), tmp_path / "resnest14.pth")
    overlay = {"file": str(tmp_path / "resnest14.pth")}
    arguments = {"pretrained": True, "pretrained_cfg_overlay": overlay, "in_chans": 1, "global_pool": "max"}
    net = timm.create_model("resnest14", **arguments)
    assert isinstance(net, resnest.network.ResNeSt)
    assert_same(net.eval(), timm.create_model("resnest14d", **arguments).eval(), images(1), lambda out: [out])
    config, theirs = (timm.data.resolve_model_data_config(model) for model in (net, timm.create_model("resnest14d")))
    assert config == theirs
    assert timm.create_model("resnest14", num_classes=3, drop_rate=0.1, drop_path_rate=0.1).drop.p == 0.1
    checkpoint = timm.create_model("resnest14", checkpoint_path=str(tmp_path / "resnest14.pth"))
    assert torch.equal(checkpoint.fc.weight, expected.fc.weight)
    with pytest.raises(ResnestError, match="may be a tag"):
        timm.create_model("resnest14", pretrained=True, pretrained_cfg={"url": "somewhere"})


# --- Hugging Face ---

transformers = pytest.importorskip("transformers")
OURS = ["stem", "stage1", "stage2", "stage3", "stage4"]
THEIRS = ["act1", "layer1", "layer2", "layer3", "layer4"]
ADAPTER = pytest.importorskip("resnest.adapters.huggingface")


@pytest.fixture(autouse=True)
def _no_bars() -> None:
    transformers.logging.disable_progress_bar()


@pytest.mark.parametrize(
    ("indices", "arguments"), [((1, 2, 3, 4), {}), ((0, 4), {"output_stride": 16}), ((2,), {"in_chans": 1})], ids=str
)
def test_the_maps_are_those_of_transformers_timm_backbone(indices: tuple[int, ...], arguments: dict[str, Any]) -> None:
    config = transformers.TimmBackboneConfig(
        backbone="resnest14d",
        out_indices=list(indices),
        num_channels=arguments.get("in_chans", 3),
        output_stride=arguments.get("output_stride"),
    )
    expected = randomised(transformers.TimmBackbone(config))
    net = ADAPTER.backbone("resnest14", out_features=[OURS[index] for index in indices], **arguments).eval()
    state = {name.replace("_backbone.", ""): value for name, value in expected.state_dict().items()}
    assert net.backbone.load_state_dict(state, strict=False).unexpected_keys == []
    assert net.channels == expected.channels
    assert [THEIRS[OURS.index(name)] for name in net.out_features] == expected.out_features
    assert_same(net, expected, images(arguments.get("in_chans", 3)), lambda out: list(out.feature_maps))


def test_saved_and_loaded(tmp_path: Path) -> None:
    spec = resnest.Spec(depths=(1, 1, 1, 1), planes=(8, 16, 32, 64), stem_width=4)
    net = ADAPTER.backbone(spec, out_features=["stage2", "stage4"], output_stride=16, in_chans=2).eval()
    net.save_pretrained(tmp_path)
    ADAPTER.register()
    x = images(2).float()
    expected = net(x, output_hidden_states=True)
    assert len(expected.hidden_states) == 5
    others = [ADAPTER.from_pretrained(tmp_path), transformers.AutoModel.from_pretrained(tmp_path)]
    for other in [*others, copy.deepcopy(net), pickle.loads(pickle.dumps(net))]:
        assert isinstance(other, ADAPTER.ResnestBackbone)
        assert not other.training
        assert other.config.to_dict()["out_indices"] == [2, 4]
        for got, wanted in zip(other(x).feature_maps, expected.feature_maps, strict=True):
            assert torch.equal(got, wanted)
        (maps,) = other(x, return_dict=False)
        assert torch.equal(maps[1], expected.feature_maps[1])
    last = ADAPTER.from_pretrained(tmp_path, out_features=["stage4"])
    assert [out.shape[1] for out in last(x).feature_maps] == last.channels == [256]


def test_a_detr_on_it() -> None:
    ADAPTER.register()
    net = ADAPTER.backbone("resnest14", out_features=["stage4"])
    small = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "num_queries": 4}
    small |= dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 16)
    small |= dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2)
    config = transformers.DetrConfig(backbone_config=net.config, use_timm_backbone=False, backbone=None, **small)
    detector = transformers.DetrForObjectDetection(config)
    assert [type(m).__name__ for m in detector.modules() if isinstance(m, ADAPTER.ResnestBackbone)]
    assert detector(images().float()).pred_boxes.shape == (2, 4, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"out_features": ["stage5"]}, "out_features must be a subset of stage_names"),
        ({"out_features": ["stage4", "stem"]}, "must be in the same order as stage_names"),
        ({"output_stride": 4}, "output_stride=4 is not one of 8, 16, 32"),
    ],
)
def test_impossible_backbones(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ResnestError, match=message):
        ADAPTER.backbone("resnest14", **arguments)


def test_published_weights(tmp_path: Path) -> None:
    whole = resnest.create_model("resnest14", zero_gamma=False)
    torch.save(whole.state_dict(), tmp_path / "resnest14.pth")
    net = ADAPTER.backbone("resnest14", pretrained=tmp_path / "resnest14.pth", in_chans=1)
    assert torch.equal(net.backbone.layer4[0].conv1.weight, whole.layer4[0].conv1.weight)
    torch.testing.assert_close(net.backbone.conv1[0].weight, whole.conv1[0].weight.sum(1, keepdim=True))


# --- detectron2: it cannot be installed beside today's torch, so its documented contract stands here ---


@dataclass
class ShapeSpec:
    """detectron2.layers.ShapeSpec."""

    channels: int | None = None
    height: int | None = None
    width: int | None = None
    stride: int | None = None


class Backbone(nn.Module):
    """detectron2.modeling.Backbone, modeling/backbone/backbone.py: what a subclass inherits."""

    @property
    def size_divisibility(self) -> int:
        return 0

    @property
    def padding_constraints(self) -> dict[str, int]:
        return {}


class FPN(Backbone):
    """modeling/backbone/fpn.py, as far as it asks something of its bottom-up network."""

    def __init__(
        self, bottom_up: Any, in_features: Any, out_channels: int, norm: str, top_block: Any, fuse_type: str
    ) -> None:
        super().__init__()
        assert isinstance(bottom_up, Backbone)
        shapes = bottom_up.output_shape()
        strides = [shapes[name].stride for name in in_features]
        assert all(after == 2 * before for before, after in itertools.pairwise(strides))
        self.bottom_up, self.in_features = bottom_up, in_features
        self.lateral = nn.ModuleList(nn.Conv2d(shapes[name].channels, out_channels, 1) for name in in_features)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = self.bottom_up(x)
        return {f"p{name[-1]}": conv(maps[name]) for name, conv in zip(self.in_features, self.lateral, strict=True)}


class Registry(dict[str, Any]):
    def register(self, item: Any) -> None:
        assert item.__name__ not in self
        self[item.__name__] = item


@pytest.fixture
def detectron2(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    contents: dict[str, dict[str, Any]] = {
        "detectron2": {},
        "detectron2.layers": {"ShapeSpec": ShapeSpec},
        "detectron2.modeling": {"Backbone": Backbone, "BACKBONE_REGISTRY": Registry()},
        "detectron2.modeling.backbone": {},
        "detectron2.modeling.backbone.fpn": {"FPN": FPN, "LastLevelMaxPool": nn.Module},
    }
    for name, content in contents.items():
        module = ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    from resnest.adapters import detectron2 as adapter

    adapter._backbone_class.cache_clear()
    yield adapter
    adapter._backbone_class.cache_clear()


def test_what_detectron2_asks_of_a_backbone(detectron2: Any) -> None:
    expected = randomised(timm.create_model("resnest14d", features_only=True))
    net = detectron2.backbone("resnest14", out_features=["stem", "res2", "res3", "res4", "res5"]).eval()
    net.load_state_dict(expected.state_dict())  # plain names are ours
    assert isinstance(net, Backbone)
    assert net.output_shape() == {
        name: ShapeSpec(channels=channels, stride=stride)
        for name, channels, stride in zip(net.out_features, [64, 256, 512, 1024, 2048], [2, 4, 8, 16, 32], strict=True)
    }
    assert (net.size_divisibility, net.padding_constraints) == (0, {})
    assert_same(net, expected, images(), lambda out: list(out.values() if isinstance(out, dict) else out))
    assert {name: (out.shape[1], 64 // out.shape[2]) for name, out in net(images()).items()} == {
        name: (shape.channels, shape.stride) for name, shape in net.output_shape().items()
    }
    same = copy.deepcopy(net), pickle.loads(pickle.dumps(net))
    assert all(torch.equal(other(images())["res5"], net(images())["res5"]) for other in same)


@pytest.mark.parametrize("freeze_at", range(6))
def test_freezing_as_in_detectron2(detectron2: Any, freeze_at: int) -> None:
    net = detectron2.backbone("resnest14").freeze(freeze_at).train()
    parts = [[net.net.conv1, net.net.bn1], *([net.net.get_submodule(f"layer{stage}")] for stage in range(1, 5))]
    trained = [any(p.requires_grad for module in part for p in module.parameters()) for part in parts]
    assert trained == [index >= freeze_at for index in range(5)]
    learning = [any(isinstance(m, nn.BatchNorm2d) for module in part for m in module.modules()) for part in parts]
    assert learning == trained


def config(**changes: Any) -> Any:
    class Node(dict[str, Any]):
        __getattr__ = dict.__getitem__

    resnets = {"DEPTH": 14, "OUT_FEATURES": ["res2", "res3", "res4", "res5"], "NORM": "FrozenBN", "RES5_DILATION": 1}
    resnets |= {"DEFORM_ON_PER_STAGE": [False] * 4, **changes}
    pyramid = {"IN_FEATURES": ["res3", "res4", "res5"], "OUT_CHANNELS": 8, "NORM": "", "FUSE_TYPE": "sum"}
    return Node(MODEL=Node(RESNETS=Node(resnets), BACKBONE=Node(FREEZE_AT=2), FPN=Node(pyramid)))


def test_built_from_a_configuration(detectron2: Any) -> None:
    names = detectron2.register()
    assert names == detectron2.register() == list(sys.modules["detectron2.modeling"].BACKBONE_REGISTRY)
    build = sys.modules["detectron2.modeling"].BACKBONE_REGISTRY["build_resnest_backbone"]
    net = build(config(), ShapeSpec(channels=4))
    assert net.net.conv1[0].in_channels == 4
    frozen = [module for module in net.modules() if isinstance(module, FrozenStatsBatchNorm2d)]
    assert frozen
    assert not any(p.requires_grad for module in frozen for p in module.parameters())
    assert net.net.layer2[0].conv1.weight.requires_grad
    assert any(isinstance(m, SyncBatchNorm2d) for m in build(config(NORM="SyncBN"), ShapeSpec(channels=3)).modules())
    named = build(config(NAME="resnest50_fast_4s2x40d", OUT_FEATURES=["res4"]), ShapeSpec(channels=3))
    assert named.net.layer1[0].conv2.radix == 4
    pyramid = sys.modules["detectron2.modeling"].BACKBONE_REGISTRY["build_resnest_fpn_backbone"]
    maps = pyramid(config(), ShapeSpec(channels=3)).eval()(images().float())
    assert {name: tuple(out.shape) for name, out in maps.items()} == {
        "p3": (2, 8, 8, 8), "p4": (2, 8, 4, 4), "p5": (2, 8, 2, 2),
    }  # fmt: skip


def test_weights_of_the_detectron2_fork(detectron2: Any) -> None:
    """Under its names, within a pyramid, and without strictness, as detectron2's checkpointer loads."""
    from resnest.checkpoints.layouts import LAYOUTS, from_official

    official = resnest.create_backbone("resnest14", zero_gamma=False).state_dict()
    theirs = from_official(official, LAYOUTS["detectron2"], bare=True)
    net = detectron2.build_resnest_fpn_backbone(config(), ShapeSpec(channels=3))
    for layout in (theirs, official, {f"net.{name}": value for name, value in official.items()}):
        state = {f"bottom_up.{name}": value for name, value in layout.items()}
        for tensor in net.bottom_up.state_dict().values():
            tensor.zero_()
        report = net.load_state_dict(state, strict=False)
        assert report.unexpected_keys == []
        assert not [name for name in report.missing_keys if "lateral" not in name and "num_batches" not in name]
        for name, value in official.items():
            assert name.endswith("num_batches_tracked") or torch.equal(net.bottom_up.net.state_dict()[name], value), (
                name
            )


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (
            lambda adapter: adapter.backbone("resnest14", out_features=["res6"]),
            r"out_features=\['res6'\] must be of stem",
        ),
        (lambda adapter: adapter.backbone("resnest14", norm="GN"), "norm='GN' is not one of FrozenBN, BN, SyncBN"),
        (lambda adapter: adapter.backbone("resnest14", freeze_at=7), "7 parts cannot be frozen"),
        (
            lambda adapter: adapter.build_resnest_backbone(config(RES5_DILATION=2), ShapeSpec(channels=3)),
            "MODEL.RESNETS.RES5_DILATION must be 1",
        ),
    ],
)
def test_what_detectron2_cannot_have(detectron2: Any, use: Callable[[Any], object], message: str) -> None:
    with pytest.raises(ResnestError, match=message):
        use(detectron2)


# --- Peers that are not there ---

CALLS: dict[str, tuple[str, Callable[[], object]]] = {
    "segmentation_models_pytorch": (
        "pip install segmentation-models-pytorch",
        lambda: __import__("resnest.adapters.smp", fromlist=["smp"]).register(),
    ),
    "timm": ("pip install timm", lambda: __import__("resnest.adapters.timm", fromlist=["timm"]).register()),
    "transformers": ("pip install transformers", lambda: ADAPTER.backbone("resnest14")),
    "detectron2": (
        r"pip install git\+https://github.com/facebookresearch/detectron2",
        lambda: __import__("resnest.adapters.detectron2", fromlist=["detectron2"]).backbone("resnest14"),
    ),
}


@pytest.mark.parametrize("package", CALLS)
def test_a_missing_peer_is_named_with_its_installation(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hint, use = CALLS[package]
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [SimpleNamespace(find_spec=_refuse(package)), *sys.meta_path])
    with contextlib.suppress(AttributeError):
        ADAPTER._classes.cache_clear()
    with pytest.raises(ResnestError, match=f"{package} is not installed: {hint}"):
        use()


def _refuse(package: str) -> Callable[..., None]:
    def find_spec(name: str, *_: object) -> None:
        if name.split(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    return find_spec


def test_another_version_of_a_peer_is_named() -> None:
    with pytest.raises(
        ResnestError, match=r"timm has no timm\.wings: it is another version than this needs: pip install"
    ):
        peer("timm.wings")


def test_a_fault_within_a_peer_is_not_hidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "halfpeer.py").write_text("import nothing_of_this_name")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="nothing_of_this_name"):
        peer("halfpeer")

"""Encoders for segmentation-models-pytorch, beside smp's own on timm with equal weights; smp's checkpoints."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import resnest
from resnest.adapters.smp import Encoder, encoder, register
from resnest.adapters.smp_checkpoints import open_smp
from resnest.errors import ResnestError
from resnest.spec import list_models

smp = pytest.importorskip("segmentation_models_pytorch")


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    before = dict(smp.encoders.encoders)
    register()
    yield
    smp.encoders.encoders.clear()
    smp.encoders.encoders.update(before)


def theirs(kind: str = "Unet", name: str = "tu-resnest14d", **arguments: Any) -> Any:
    """A network of smp with its own encoder; every weight and statistic counts."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`timm-` encoders are deprecated", category=DeprecationWarning)
        net = getattr(smp, kind)(name, encoder_weights=None, **arguments)
    return randomised(net)


def randomised(net: nn.Module) -> nn.Module:
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.8, 1.2)
            module.weight.data.uniform_(0.4, 0.7)
            module.bias.data.normal_(0, 0.1)
    return net.eval()


def images(channels: int = 3, size: int = 32, batch: int = 2) -> Tensor:
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(1))


def assert_same(got: nn.Module, expected: nn.Module, x: Tensor) -> None:
    """Outputs and gradients of the images and of all parameters, to 1e-5 of the largest."""
    results = []
    for net in (got, expected):
        net.double().zero_grad()
        own = x.double().requires_grad_()
        out = net(own)
        outputs = list(out) if isinstance(out, list | tuple) else [out]
        sum((map_ * torch.linspace(-1, 1, map_[0].numel()).view_as(map_[0])).sum() for map_ in outputs).backward()
        gradients = [parameter.grad for _, parameter in sorted(net.named_parameters(), key=_plain)]
        results.append([*(map_.detach() for map_ in outputs), own.grad, *gradients])
    assert len(results[0]) == len(results[1])
    for one, other in zip(*results, strict=True):
        assert (one is None) == (other is None)
        if other is None:  # smp makes attention for skips that a block does not have
            continue
        scale = max(1.0, other.abs().max().item())
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * scale)
    assert results[1][0].std() > 1e-3


def _plain(item: tuple[str, Any]) -> str:
    return item[0].replace("model.", "")


# --- The encoder ---


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("resnest14d", {}),
        ("resnest14d", {"depth": 3, "in_channels": 1}),
        ("resnest14d", {"depth": 4, "in_channels": 5}),
        ("resnest14d", {"output_stride": 16}),
        ("resnest14d", {"output_stride": 8}),
        ("resnest50d_4s2x40d", {}),
    ],
    ids=str,
)
def test_maps_and_gradients_are_those_of_smps_encoder(name: str, arguments: dict[str, Any]) -> None:
    other = smp.encoders.get_encoder(f"tu-{name}", weights=None, **arguments)
    randomised(other)
    ours = encoder(name, **arguments).eval()
    ours.load_state_dict(other.state_dict())
    assert ours.out_channels == other.out_channels
    assert ours.output_stride == other.output_stride
    assert_same(ours, other, images(arguments.get("in_channels", 3)))


def test_the_wide_stems() -> None:
    with torch.device("meta"):
        assert encoder("resnest101").out_channels == [3, 128, 256, 512, 1024, 2048]


def test_every_network_has_a_name_there() -> None:
    names = register()
    assert names == [f"resnest/{name}" for name in list_models()]
    assert set(names) <= set(smp.encoders.get_encoder_names())


DECODERS: dict[str, dict[str, Any]] = {
    "Unet": {"in_channels": 4, "decoder_attention_type": "scse"},
    "UnetPlusPlus": {"in_channels": 1, "encoder_depth": 4, "decoder_channels": (64, 32, 16, 8)},
    "Linknet": {},
    "FPN": {},
    "PSPNet": {"encoder_depth": 3},
    "DeepLabV3": {"encoder_output_stride": 8},
    "DeepLabV3Plus": {"encoder_output_stride": 16},
    "PAN": {"encoder_output_stride": 16},
    "UPerNet": {},
    "Segformer": {},
}


@pytest.mark.parametrize("kind", DECODERS)
def test_every_decoder_of_smp(kind: str) -> None:
    """Built by name; the weights of the same network with smp's encoder fit as they are. MAnet fits, too, in 20 s."""
    arguments = {"classes": 2, **DECODERS[kind]}
    expected = theirs(kind, **arguments)
    net = getattr(smp, kind)("resnest/resnest14", encoder_weights=None, **arguments).eval()
    assert isinstance(net.encoder, Encoder)
    net.load_state_dict(expected.state_dict())
    x = images(arguments.get("in_channels", 3), size=128 if kind == "PAN" else 32)
    assert_same(net, expected, x)


def test_a_training_step_is_that_of_smps_encoder() -> None:
    """Statistics of the batch, losses, gradients, and the statistics that are kept."""
    expected = theirs(classes=3, decoder_channels=(16, 8, 8, 8, 8))
    net = smp.Unet("resnest/resnest14", encoder_weights=None, classes=3, decoder_channels=(16, 8, 8, 8, 8))
    net.load_state_dict(expected.state_dict())
    assert_same(net.train(), expected.train(), images(size=64, batch=4))
    state = {name.replace("encoder.model.", "encoder."): value for name, value in expected.state_dict().items()}
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=1e-5, atol=1e-6)


def test_trained_a_step_and_scripted() -> None:
    net = smp.Unet("resnest/resnest14", encoder_weights=None, classes=3)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    loss = smp.losses.DiceLoss("multiclass")(net(images()), torch.zeros(2, 32, 32, dtype=torch.long))
    loss.backward()
    optimizer.step()
    assert all(parameter.grad is not None for parameter in net.parameters())
    net.eval()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.script\w*` is deprecated")
        scripted = torch.jit.script(net)
    with torch.no_grad():
        torch.testing.assert_close(scripted(images()), net(images()), rtol=1e-4, atol=1e-5)


def test_weights_from_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """smp's own download of "imagenet", from files that lie here; grey pictures get the summed stem."""
    with torch.random.fork_rng():
        state = resnest.create_model("resnest14", zero_gamma=False).state_dict()
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    asked: list[str] = []

    def local(repo_id: str, filename: str, revision: str) -> str:
        asked.append(repo_id)
        return str(tmp_path / filename)

    monkeypatch.setattr(smp.encoders, "hf_hub_download", local)
    net = smp.Unet("resnest/resnest14", encoder_weights="imagenet", in_channels=1)
    assert set(asked) == {"timm/resnest14d.gluon_in1k"}
    torch.testing.assert_close(net.encoder.conv1[0].weight, state["conv1.0.weight"].sum(1, keepdim=True))
    assert torch.equal(net.encoder.layer4[0].conv1.weight, state["layer4.0.conv1.weight"])


@pytest.mark.parametrize(("channels", "depth"), [(1, 5), (3, 3), (6, 5)])
def test_published_weights_from_our_cache_or_a_file(channels: int, depth: int, tmp_path: Path) -> None:
    whole = resnest.create_model("resnest14", zero_gamma=False)
    torch.save(whole.state_dict(), tmp_path / "resnest14.pth")
    net = encoder("resnest14", depth=depth, in_channels=channels, weights=tmp_path / "resnest14.pth")
    expected = resnest.create_backbone("resnest14", in_chans=channels, pretrained=tmp_path / "resnest14.pth")
    for name, value in net.state_dict().items():
        assert torch.equal(value, expected.state_dict()[name]), name
    assert not [name for name in net.state_dict() if name.startswith("layer4.")] or depth == 5


def test_changed_when_built() -> None:
    """What smp calls after it has built an encoder."""
    torch.manual_seed(0)
    net, other = randomised(encoder("resnest14")), encoder("resnest14", output_stride=8).eval()
    other.load_state_dict(net.state_dict())
    net.make_dilated(8)
    assert (net.output_stride, net.strides) == (other.output_stride, other.strides) == (8, [2, 4, 8, 8, 8])
    assert_same(net, other, images())
    net.set_in_channels(2, pretrained=False)
    assert (net.out_channels[0], net.conv1[0].weight.shape) == (2, (32, 2, 3, 3))
    net.float().set_in_channels(4, pretrained=True)
    assert net(images(4))[0].shape == (2, 4, 32, 32)


# --- Checkpoints of smp ---

CHECKPOINTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "Unet": ("Unet", "timm-resnest14d", {"classes": 3}),
    "Unet with scSE": ("Unet", "tu-resnest50d_4s2x40d", {"in_channels": 4, "decoder_attention_type": "scse"}),
    "Unet, shallow and narrow": (
        "Unet", "timm-resnest26d", {"encoder_depth": 3, "decoder_channels": (32, 16, 8), "decoder_use_norm": False},
    ),
    "Unet with classes": ("Unet", "timm-resnest14d", {"aux_params": {"classes": 4}}),
    "Unet++": ("UnetPlusPlus", "timm-resnest14d", {"in_channels": 1, "decoder_channels": (64, 32, 16, 8, 4)}),
    "FPN": ("FPN", "timm-resnest14d", {"decoder_pyramid_channels": 64, "decoder_segmentation_channels": 32}),
    "FPN that concatenates": ("FPN", "timm-resnest14d", {"decoder_merge_policy": "cat", "classes": 5}),
    "DeepLabV3": ("DeepLabV3", "tu-resnest14d", {"decoder_channels": 32}),
    "on ResNet-D": ("Unet", "tu-resnet50d", {"encoder_depth": 4, "decoder_channels": (16, 8, 8, 8)}),
    "DeepLabV3+": ("DeepLabV3Plus", "tu-resnest50d_1s4x24d", {"decoder_channels": 64, "classes": 2}),
}  # fmt: skip
FORMS: dict[str, Callable[[Any, Path], Path]] = {}


def form(write: Callable[[Any, Path], Path]) -> Callable[[Any, Path], Path]:
    FORMS[write.__name__] = write
    return write


@form
def weights(net: Any, folder: Path) -> Path:
    torch.save(net.state_dict(), folder / "net.pth")
    return folder / "net.pth"


@form
def before_smp_0_5(net: Any, folder: Path) -> Path:
    """smp's own encoders had no `model.`, and DeepLabV3's decoder was a sequence."""
    state = {name.replace("encoder.model.", "encoder."): value for name, value in net.state_dict().items()}
    if isinstance(net, smp.DeepLabV3):
        for number, part in enumerate(("aspp", "conv", "bn")):
            state = {name.replace(f"decoder.{part}.", f"decoder.{number}."): value for name, value in state.items()}
    torch.save(state, folder / "old.pth")
    return folder / "old.pth"


@form
def lightning(net: Any, folder: Path) -> Path:
    state = {f"model.{name}": value for name, value in net.state_dict().items()}
    torch.save(
        {"state_dict": {**state, "loss.weight": torch.ones(2), "model.seen": torch.tensor([3])}, "epoch": 3},
        folder / "last.ckpt",
    )
    return folder / "last.ckpt"


@form
def saved_pretrained(net: Any, folder: Path) -> Path:
    net.save_pretrained(folder / "saved")
    return folder / "saved"


@pytest.mark.parametrize(
    ("name", "write"),
    [
        (name, write)
        for name in CHECKPOINTS
        for write in FORMS
        if name == "Unet" or write in ("weights", "saved_pretrained")
    ]
    + [("DeepLabV3", "before_smp_0_5")],
)
def test_checkpoints_give_smps_logits(name: str, write: str, tmp_path: Path) -> None:
    kind, encoder_name, arguments = CHECKPOINTS[name]
    expected = theirs(kind, encoder_name, **arguments)
    net = open_smp(FORMS[write](expected, tmp_path))
    assert isinstance(net, getattr(smp, kind))
    assert isinstance(net.encoder, Encoder)
    assert not net.training
    x = images(arguments.get("in_channels", 3), size=64 if kind == "FPN" else 32)  # group norms need more than a pixel
    if write == "weights":
        return assert_same(net, expected, x)
    with torch.no_grad():
        got, wanted = (out if isinstance(out, tuple) else (out,) for out in (net(x), expected(x)))
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * max(1.0, other.abs().max().item()))
    return None


def test_a_setting_that_weights_do_not_show(tmp_path: Path) -> None:
    expected = theirs("DeepLabV3", encoder_output_stride=16, activation="sigmoid", decoder_channels=32)
    path = weights(expected, tmp_path)
    assert_same(open_smp(path, encoder_output_stride=16, activation="sigmoid"), expected, images())
    assert not torch.allclose(open_smp(path)(images()), expected.float()(images()))
    psp = theirs("PSPNet")
    assert_same(open_smp(weights(psp, tmp_path), "PSPNet", encoder_depth=3), psp, images())


@pytest.mark.parametrize("norm", [True, False])
def test_a_folder_of_smp_0_4(norm: bool, tmp_path: Path) -> None:
    expected = theirs(decoder_use_norm=norm, decoder_channels=(16, 8, 8, 8, 8))
    path = saved_pretrained(expected, tmp_path)
    config = json.loads((path / "config.json").read_text())
    config |= {"encoder_name": "timm-resnest14d", "decoder_use_batchnorm": config.pop("decoder_use_norm")}
    (path / "config.json").write_text(json.dumps(config))
    assert_same(open_smp(path), expected, images())


@pytest.mark.parametrize(("name", "settings"), [("fast_1s2x40d", {}), ("fast_2s1x64d", "named")])
def test_checkpoints_with_encoders_that_only_we_have(name: str, settings: Any, tmp_path: Path) -> None:
    """Tensors do not show that one of the fast networks is not resnest50: without a name it is what smp has."""
    torch.manual_seed(0)
    given = {"encoder_name": f"resnest/resnest50_{name}"}
    expected = randomised(smp.FPN(encoder_weights=None, encoder_depth=4, **given))
    path = weights(expected, tmp_path)
    net = open_smp(path, **(given if settings else {}))
    assert net.encoder.name == f"resnest50_{name}"
    assert_same(net, expected, images(size=64))
    if settings:
        assert open_smp(path).encoder.name == "resnest50"


def _write(content: Any, folder: Path) -> Path:
    torch.save(content, folder / "net.pth")
    return folder / "net.pth"


LOST = "decoder.blocks.2.conv1.0.weight"
BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "another encoder": (
        lambda folder: _write(smp.Unet("resnet18", encoder_weights=None).state_dict(), folder),
        "holds no ResNeSt as an encoder of smp: it looks like a ResNet without deep stem and split attention",
    ),
    "another encoder with a deep stem": (
        lambda folder: _write(smp.Unet("tu-resnet26d", encoder_weights=None).state_dict(), folder),
        "has an encoder that is none of our networks: it looks like a ResNet without deep stem",
    ),
    "another decoder": (
        lambda folder: _write(theirs("PSPNet").state_dict(), folder),
        "is a PSPNet, whose settings its weights do not show: give architecture='PSPNet' and its settings",
    ),
    "an encoder alone": (
        lambda folder: _write({f"encoder.{k}": v for k, v in theirs().encoder.state_dict().items()}, folder),
        "has an encoder of smp, but no decoder that is known: it has nothing but the encoder",
    ),
    "a classifier": (
        lambda folder: _write(resnest.create_model("resnest14").state_dict(), folder),
        "holds no ResNeSt as an encoder of smp",
    ),
    "a tensor is missing": (
        lambda folder: _write({k: v for k, v in theirs().state_dict().items() if k != LOST}, folder),
        rf"does not fit Unet with resnest/resnest14: .*Missing key.*{LOST}",
    ),
    "not finite": (
        lambda folder: _write({k: v / 0 if v.ndim == 4 else v for k, v in theirs().state_dict().items()}, folder),
        "holds values that are not finite",
    ),
    "no smp config": (lambda folder: _config(folder, {"model_type": "bert"}), "config.json is none that smp writes"),
    "unknown class": (
        lambda folder: _config(folder, {"encoder_name": "tu-resnest14d", "_model_class": "Hypernet"}),
        "is a Hypernet, which segmentation_models_pytorch does not have",
    ),
}  # fmt: skip


def _config(folder: Path, config: dict[str, object]) -> Path:
    save_file(theirs().state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(("write", "message"), BAD.values(), ids=BAD)
def test_bad_checkpoints(write: Callable[[Path], Path], message: str, tmp_path: Path) -> None:
    with pytest.raises(ResnestError, match=message) as caught:
        open_smp(write(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnest51"}, "'resnest51' is not a known model. Did you mean 'resnest50'?"),
        ({"name": "resnest14", "depth": 6}, "depth=6 of an encoder must lie in 1 to 5"),
        ({"name": "resnest14", "output_stride": 4}, "output_stride=4 is not one of 8, 16, 32"),
    ],
)
def test_impossible_encoders(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ResnestError, match=message.replace("?", r"\?")):
        encoder(**arguments)

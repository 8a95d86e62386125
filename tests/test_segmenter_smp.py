"""Networks of segmentation_models_pytorch: they load into ours with their logits and gradients, and go back."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from exports import lively
from resnest.checkpoints.convert import convert
from resnest.errors import ResnestError
from resnest.inference.model import Model
from resnest.segmentation.segmenter import Segmenter, create_segmenter
from resnest.segmentation.spec import SegmenterSpec
from resnest.segmentation.weights import WEIGHTS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    smp = pytest.importorskip("segmentation_models_pytorch")

NETWORK, CLASSES = "resnest14", 5
# smp's class and arguments, our structure
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "unet": ("Unet", {}, {"head": "unet"}),
    "unet, scse": (
        "Unet",
        {"decoder_attention_type": "scse", "decoder_channels": (64, 32, 32, 16, 16)},
        {"head": "unet", "attention": "scse", "decoder_channels": (64, 32, 32, 16, 16)},
    ),
    "unet, no norm": ("Unet", {"decoder_use_norm": False}, {"head": "unet", "norm": "none"}),
    "unet, dilated": (
        "Unet",
        {"output_stride": 16},
        {"head": "unet", "output_stride": 16, "dilation": "timm"},
    ),
    "unet++": (
        "UnetPlusPlus",
        {"decoder_channels": (32, 32, 32, 16, 16)},
        {"head": "unetplusplus", "decoder_channels": (32, 32, 32, 16, 16)},
    ),
    "unet++, scse": (
        "UnetPlusPlus",
        {"decoder_channels": (32, 32, 32, 16, 16), "decoder_attention_type": "scse"},
        {"head": "unetplusplus", "decoder_channels": (32, 32, 32, 16, 16), "attention": "scse"},
    ),
    "fpn": ("FPN", {}, {"head": "fpn"}),
    "fpn, widths": (
        "FPN",
        {"decoder_pyramid_channels": 64, "decoder_segmentation_channels": 32},
        {"head": "fpn", "channels": 64, "segmentation_channels": 32},
    ),
    "upernet": ("UPerNet", {"decoder_channels": 64}, {"head": "upernet", "channels": 64}),
    "deeplabv3": (
        "DeepLabV3",
        {"decoder_channels": 64},
        {"head": "deeplabv3", "channels": 64, "aux": 0, "dilation": "timm"},
    ),
}


def theirs(kind: str, network: str = "timm-resnest14d", **arguments: Any) -> nn.Module:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that `timm-` is deprecated
        net = getattr(smp, kind)(network, encoder_weights=None, classes=CLASSES, **arguments)
    return lively(net)


def ours(pretrained: Any = False, **arguments: Any) -> Segmenter:
    in_chans = arguments.pop("in_chans", 3)
    spec = SegmenterSpec(**arguments)
    net = create_segmenter(NETWORK, spec, num_classes=CLASSES, in_chans=in_chans, pretrained=pretrained)
    return net.eval()


def same(mine: torch.Tensor, other: torch.Tensor) -> None:
    assert mine.shape == other.shape
    assert (mine - other).abs().max() <= 1e-5 * other.abs().max()


@pytest.mark.parametrize("case", CASES)
def test_they_load_with_their_logits(case: str, tmp_path: Path) -> None:
    kind, arguments, structure = CASES[case]
    net = theirs(kind, **arguments)
    torch.save({"state_dict": {f"model.{name}": one for name, one in net.state_dict().items()}}, tmp_path / "last.ckpt")
    mine = ours(**structure)
    report = WEIGHTS.load(mine, tmp_path / "last.ckpt")
    assert (report.layout, report.untrained, report.unexpected, report.reshaped) == ("smp", [], [], [])
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        same(mine(images), net(images))


@pytest.mark.parametrize("case", ["unet, scse", "unet++, scse", "fpn", "upernet", "deeplabv3"])
def test_they_go_back(case: str, tmp_path: Path) -> None:
    """And smp loads them strictly."""
    kind, arguments, structure = CASES[case]
    mine = lively(ours(**structure))
    torch.save(mine.state_dict(), tmp_path / "ours.pth")
    convert(tmp_path / "ours.pth", to="smp", out=tmp_path / "smp.pth", network=NETWORK)
    net = theirs(kind, **arguments)
    net.load_state_dict(torch.load(tmp_path / "smp.pth", weights_only=True))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        same(mine(images), net(images))


def test_gradients_are_the_same(tmp_path: Path) -> None:
    kind, arguments, structure = CASES["unet, scse"]
    net = theirs(kind, **arguments)
    torch.save(net.state_dict(), tmp_path / "net.pth")
    mine = ours(tmp_path / "net.pth", **structure)
    images, weights = torch.randn(2, 3, 64, 64), torch.randn(2, CLASSES, 64, 64)
    for one in (net, mine):
        (one(images) * weights).sum().backward()
    grads = {name: one.grad for name, one in mine.named_parameters()}
    found = WEIGHTS.to_ours({name: one.grad for name, one in net.named_parameters() if one.grad is not None}, "smp")
    assert found.state.keys() == grads.keys()
    for name, grad in found.state.items():
        assert (grads[name] - grad).abs().max() <= 1e-4 * grad.abs().max() + 1e-6, name


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels(channels: int, tmp_path: Path) -> None:
    net = theirs("Unet", in_channels=channels)
    torch.save(net.state_dict(), tmp_path / "net.pth")
    mine = ours(tmp_path / "net.pth", head="unet", in_chans=channels)
    images = torch.randn(1, channels, 64, 64)
    with torch.no_grad():
        same(mine(images), net(images))


def test_names_before_smp_0_4(tmp_path: Path) -> None:
    """The encoder without `model.`, DeepLabV3's decoder as a list; a classifier beside it is left out."""
    net = theirs("DeepLabV3", decoder_channels=64, aux_params={"classes": 2})
    old = {"encoder.model.": "encoder.", "decoder.aspp.": "decoder.0.", "decoder.conv.": "decoder.1."}
    old["decoder.bn."] = "decoder.2."
    state = net.state_dict()
    for new, before in old.items():
        state = {name.replace(new, before): one for name, one in state.items()}
    torch.save(state, tmp_path / "net.pth")
    mine = ours(**CASES["deeplabv3"][2])
    report = WEIGHTS.load(mine, tmp_path / "net.pth")
    assert report.unexpected == ["classification_head.3.weight", "classification_head.3.bias"]
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        same(mine(images), net(images)[0])


def test_a_saved_folder(tmp_path: Path) -> None:
    """Whose config.json tells what the tensors do not."""
    net = theirs("Unet", output_stride=16)
    net.save_pretrained(tmp_path)
    structure = {"head": "unet", "output_stride": 16, "dilation": "timm"}
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        same(ours(tmp_path, **structure)(images), net(images))
    with pytest.raises(ResnestError, match=r"config\.json has output_stride=16, and this segmenter 32"):
        ours(tmp_path, head="unet")
    with pytest.raises(ResnestError, match=r"it dilates as timm, .*segmenter\.dilation=timm"):
        ours(tmp_path, head="unet", output_stride=16)
    told = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(told | {"decoder_interpolation": "bilinear"}))
    with pytest.raises(ResnestError, match=r"decoder_interpolation=bilinear, and this segmenter nearest"):
        ours(tmp_path, **structure)


@pytest.mark.parametrize("kind", ["Unet", "MAnet"])
def test_a_saved_folder_is_no_model_with_names(kind: str, tmp_path: Path) -> None:
    theirs(kind).save_pretrained(tmp_path)
    with pytest.raises(ResnestError, match=rf"is of a {kind} of segmentation_models_pytorch and has no names of cl"):
        Model.from_pretrained(tmp_path)


REFUSED: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "decoder": ("FPN", "timm-resnest14d", {}, r"head is FPN, this one's is U-Net: build it with segmenter\.head=fpn"),
    "MAnet": ("MAnet", "timm-resnest14d", {}, "it is a MAnet of segmentation_models_pytorch"),
    "Linknet": ("Linknet", "timm-resnest14d", {}, "it is a Linknet of"),
    "PAN": ("PAN", "timm-resnest14d", {}, "it is a PAN of"),
    "PSPNet": ("PSPNet", "timm-resnest14d", {}, "it is a PSPNet of"),
    "Segformer": ("Segformer", "timm-resnest14d", {}, "it is a Segformer of"),
    "DeepLabV3+": ("DeepLabV3Plus", "timm-resnest14d", {}, "it is a DeepLabV3Plus of .*resnest.adapters.smp"),
    "separable": (
        "DeepLabV3", "timm-resnest14d", {"decoder_aspp_separable": True}, "DeepLabV3 with separable convolutions",
    ),
    "depth": (
        "Unet", "timm-resnest14d", {"encoder_depth": 4, "decoder_channels": (64, 32, 32, 16)},
        "its encoder has depth 4: ours have 5",
    ),
    "another ResNeSt": ("Unet", "timm-resnest26d", {}, "the file's network is resnest26, this one's is resnest14"),
    "no ResNeSt": (
        "Unet", "resnet18", {}, "U-Net of .* on an encoder that is no ResNeSt: it looks like a ResNet without deep",
    ),
    "widths": ("Unet", "timm-resnest14d", {"decoder_channels": (64, 32, 32, 16, 16)}, r"of another shape: head\.steps"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_named(case: str, tmp_path: Path) -> None:
    kind, network, arguments, message = REFUSED[case]
    torch.save(theirs(kind, network, **arguments).state_dict(), tmp_path / "net.pth")
    with pytest.raises(ResnestError, match=message):
        ours(tmp_path / "net.pth", head="unet")

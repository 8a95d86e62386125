"""Encoders of segmentation-models-pytorch (smp).

register()
net = smp.Unet("resnest/resnest50", encoder_weights=None, in_channels=4, classes=2)
net.load_state_dict(torch.load("old.pth", weights_only=True))    # of smp.Unet("timm-resnest50d") or ("tu-resnest50d")
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from resnest.adapters import peer
from resnest.checkpoints.loading import create_backbone, for_channels
from resnest.checkpoints.manifest import MANIFEST
from resnest.errors import ResnestError
from resnest.network.resnest import Backbone, Dilation
from resnest.spec import find_spec, list_models


class Encoder(Backbone):
    """Images and their maps: (N, in_channels, H, W) -> [the images, C1 at H/2, ..., C5 at H/32], the first depth + 1.

    `out_channels` and `output_stride` describe them. Stages behind the last map are left out. Weights of smp's own
    encoders of these networks fit, those of smp 0.5 and later (`model.conv1`) as well as earlier ones.
    """

    _is_torch_scriptable = _is_torch_exportable = _is_torch_compilable = True  # what smp asks

    def __init__(
        self,
        name: str,
        depth: int = 5,
        in_channels: int = 3,
        output_stride: int = 32,
        *,
        dilation: Dilation = "timm",
    ) -> None:
        if depth not in range(1, 6):
            raise ResnestError(f"depth={depth} of an encoder must lie in 1 to 5")
        arguments: dict[str, Any] = {"output_stride": output_stride, "dilation": dilation}
        super().__init__(find_spec(name)[0], out_indices=range(depth), in_chans=in_channels, **arguments)
        for stage in range(depth, 5):
            setattr(self, f"layer{stage}", nn.Sequential())
        self.name, self.depth, self.dilation, self._stride = name, depth, dilation, output_stride
        self.out_channels = [in_channels, *self.channels]
        self.output_stride = min(output_stride, 2**depth)
        self.register_load_state_dict_pre_hook(_take_names_of_smp)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor) -> list[Tensor]:
        features = [x]
        features.extend(self.forward_stages(x, self.depth - 1))
        return features

    def set_in_channels(self, in_channels: int, pretrained: bool = True) -> None:
        """Another first convolution: adapted as by `create_model` if `pretrained`, else initialised."""
        stem = next(module for module in self.conv1.modules() if isinstance(module, nn.Conv2d))
        if in_channels == stem.in_channels:
            return
        weight = stem.weight.detach()
        if pretrained and stem.in_channels == 3:
            weight = for_channels(weight, in_channels)
        else:
            std = (2 / weight[:, 0].numel()) ** 0.5  # He normal, fan-out
            weight = torch.normal(0.0, std, (weight.shape[0], in_channels, *weight.shape[2:])).to(weight)
        stem.weight, stem.in_channels = nn.Parameter(weight), in_channels
        self.out_channels[0] = in_channels

    def make_dilated(self, output_stride: int) -> None:
        """Stages of another output stride, 8 or 16, with the same weights."""
        if output_stride == self._stride:
            return
        other = Encoder(self.name, self.depth, self.out_channels[0], output_stride, dilation=self.dilation)
        other.load_state_dict(self.state_dict())
        for stage in range(1, self.depth):
            setattr(
                self, f"layer{stage}", other.get_submodule(f"layer{stage}").to(self.bn1.weight).train(self.training)
            )
        self.feature_info, self.strides, self._stride = other.feature_info, other.strides, output_stride
        self.output_stride = other.output_stride


def _take_names_of_smp(encoder: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Before loading: `model.` of smp's encoders on timm goes, and so do a classifier and stages that are left out."""
    assert isinstance(encoder, Encoder)
    unused = ("fc.", *(f"layer{stage}." for stage in range(encoder.depth, 5)))
    for name in [name for name in state if name.startswith(prefix)]:
        tensor, plain = state.pop(name), name.removeprefix(prefix).removeprefix("model.")
        if not plain.startswith(unused):
            state[prefix + plain] = tensor


def encoder(
    name: str,
    *,
    depth: int = 5,
    in_channels: int = 3,
    output_stride: int = 32,
    weights: bool | str | Path | None = None,
    dilation: Dilation = "timm",
) -> Encoder:
    """An encoder for smp's decoders, or for `net.encoder` of a network of smp.

    Args:
        name: of `list_models()`, or timm's.
        depth: 1 to 5 maps.
        weights: "imagenet" or True for the published ones, verified and cached; or what `create_model` takes.
        dilation: "timm" as in smp; "official" as in the published code.

    Raises:
        ResnestError: an unknown name, a depth or stride that is none, weights that cannot be had or do not fit.
    """
    net = Encoder(name, depth, in_channels, output_stride, dilation=dilation)
    if weights:
        pretrained = True if weights == "imagenet" else weights
        net.load_state_dict(create_backbone(name, in_chans=in_channels, pretrained=pretrained).state_dict())
    return net


def register() -> list[str]:
    """Put every network into smp's list of encoders; returns their names there, such as "resnest/resnest50".

    `encoder_weights="imagenet"` then takes timm's copy of the published weights from the hub, where it has one.
    `encoder` has all of them, verified.
    """
    encoders = peer("segmentation_models_pytorch.encoders").encoders
    names = {name: f"resnest/{name}" for name in list_models()}
    for name, theirs in names.items():
        hubs = [mirror.hub for row in MANIFEST if row.network == name for mirror in row.mirrors if mirror.hub]
        settings = {"imagenet": {"repo_id": hubs[0], "revision": "main"}} if hubs else {}
        encoders[theirs] = {"encoder": Encoder, "pretrained_settings": settings, "params": {"name": name}}
    return list(names.values())

"""A backbone of detectron2, and builders for its configuration files.

    register()
    cfg.MODEL.BACKBONE.NAME = "build_resnest_fpn_backbone"      # or build_resnest_backbone
    cfg.MODEL.RESNETS.DEPTH = 50                                # resnest50; another network: MODEL.RESNETS.NAME

MODEL.WEIGHTS may be any checkpoint of a detector whose backbone has names that we know: ours, or the detectron2 fork's
of the published code. Our weights saw RGB: INPUT.FORMAT, MODEL.PIXEL_MEAN and PIXEL_STD have to be theirs.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from resnest.adapters import peer
from resnest.checkpoints.layouts import recognise, to_official
from resnest.checkpoints.loading import create_backbone
from resnest.errors import ResnestError
from resnest.network.norm import FrozenStatsBatchNorm2d
from resnest.network.resnest import Backbone
from resnest.network.tools import freeze, freeze_bn_statistics, synchronise_norms

MAPS = ("stem", "res2", "res3", "res4", "res5")
NORMS = ("FrozenBN", "BN", "SyncBN")


def backbone(
    name: str, *, out_features: Sequence[str] = MAPS[1:], freeze_at: int = 0, norm: str = "BN", **arguments: Any
) -> Any:
    """A `detectron2.modeling.Backbone`: (N, in_chans, H, W) -> {"res2": (N, 256, H/4, W/4), ..., "res5": ...}.

    `output_shape()` describes the maps; `size_divisibility` is 0, as any size will do; `freeze(n)` is detectron2's.

    Args:
        name: of `list_models()`, or timm's.
        out_features: of "stem" and "res2" to "res5".
        freeze_at: how many parts are frozen: 1 the stem, 2 the stem and res2, ...
        norm: "FrozenBN" trains nothing of any batch norm; "BN"; "SyncBN" over processes.
        arguments: of `create_backbone`, such as `pretrained=True`.

    Raises:
        ResnestError: detectron2 is not installed, an unknown name, map or norm, weights that do not fit.
    """
    if not out_features or not {*out_features} <= {*MAPS}:
        raise ResnestError(f"out_features={list(out_features)} must be of {', '.join(MAPS)}")
    if norm not in NORMS:
        raise ResnestError(f"norm={norm!r} is not one of {', '.join(NORMS)}")
    kind = _backbone_class()
    net = create_backbone(name, out_indices=[MAPS.index(feature) for feature in out_features], **arguments)
    if norm == "FrozenBN":
        freeze_bn_statistics(net)
        for module in net.modules():
            if isinstance(module, FrozenStatsBatchNorm2d):
                module.requires_grad_(False)
    elif norm == "SyncBN":
        synchronise_norms(net)
    return kind(net, tuple(out_features)).freeze(freeze_at)


@functools.cache
def _backbone_class() -> Any:
    base, shape_spec = peer("detectron2.modeling").Backbone, peer("detectron2.layers").ShapeSpec

    class ResnestBackbone(base):  # type: ignore[misc, valid-type]
        def __init__(self, net: Backbone, out_features: tuple[str, ...]) -> None:
            super().__init__()
            self.net, self.out_features = net, out_features
            self.register_load_state_dict_pre_hook(_take_known_names)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return dict(zip(self.out_features, self.net(x), strict=True))

        def output_shape(self) -> dict[str, Any]:
            shapes = zip(self.out_features, self.net.channels, self.net.strides, strict=True)
            return {name: shape_spec(channels=channels, stride=stride) for name, channels, stride in shapes}

        def freeze(self, freeze_at: int = 0) -> Any:
            freeze(self.net, freeze_at)
            return self

    ResnestBackbone.__qualname__ = "ResnestBackbone"  # where pickle finds it: `__getattr__`
    return ResnestBackbone


def __getattr__(name: str) -> Any:
    """`ResnestBackbone`, made when it is first asked for."""
    if name != "ResnestBackbone":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _backbone_class()


def _take_known_names(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Before loading: the names of another code base become ours."""
    theirs = {name: state[name] for name in state if name.startswith(prefix)}
    plain = {name.removeprefix(prefix): tensor for name, tensor in theirs.items()}
    if not plain or any(name.startswith("net.") for name in plain) or not (match := recognise(plain)):
        return
    for name in theirs:
        del state[name]
    official = to_official(plain, *match).state
    state.update({f"{prefix}net.{name}": tensor for name, tensor in official.items() if not name.startswith("fc.")})


def build_resnest_backbone(cfg: Any, input_shape: Any) -> Any:
    """The backbone of a configuration: RESNETS.DEPTH, or NAME, OUT_FEATURES and NORM; BACKBONE.FREEZE_AT.

    Raises:
        ResnestError: as `backbone`; for RES5_DILATION and DEFORM_ON_PER_STAGE, which mean something else there.
    """
    settings = cfg.MODEL.RESNETS
    if settings.RES5_DILATION != 1 or any(settings.DEFORM_ON_PER_STAGE):
        raise ResnestError(
            "MODEL.RESNETS.RES5_DILATION must be 1 and DEFORM_ON_PER_STAGE false: create_backbone(output_stride=16) and"
            " create_detector(..., DetectorSpec(deform=...)) have such stages"
        )
    return backbone(
        settings.get("NAME") or f"resnest{settings.DEPTH}",
        out_features=settings.OUT_FEATURES,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        norm=settings.NORM,
        in_chans=input_shape.channels,
    )


def build_resnest_fpn_backbone(cfg: Any, input_shape: Any) -> Any:
    """The same with detectron2's feature pyramid on it, by MODEL.FPN."""
    pyramid, settings = peer("detectron2.modeling.backbone.fpn"), cfg.MODEL.FPN
    return pyramid.FPN(
        bottom_up=build_resnest_backbone(cfg, input_shape),
        in_features=settings.IN_FEATURES,
        out_channels=settings.OUT_CHANNELS,
        norm=settings.NORM,
        top_block=pyramid.LastLevelMaxPool(),
        fuse_type=settings.FUSE_TYPE,
    )


def register() -> list[str]:
    """Put both builders into detectron2's registry; returns their names."""
    registry, builders = (
        peer("detectron2.modeling").BACKBONE_REGISTRY,
        (build_resnest_backbone, build_resnest_fpn_backbone),
    )
    for build in builders:
        if build.__name__ not in registry:
            registry.register(build)
    return [build.__name__ for build in builders]

"""timm: our networks by `timm.create_model`, under the published names, which timm does not have.

    register()
    net = timm.create_model("resnest50", pretrained=True, num_classes=10)
    backbone = timm.create_model("resnest50", features_only=True, out_indices=(-2, -1), output_stride=16)

timm's own names, such as resnest50d, stay timm's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from resnest.adapters import peer
from resnest.checkpoints.loading import create_backbone, create_model
from resnest.checkpoints.manifest import find_weights
from resnest.errors import ResnestError
from resnest.network.resnest import Backbone, Dilation, ResNeSt
from resnest.spec import PUBLISHED

__all__: list[str] = []  # timm's registry adds the names of what is registered


def features(
    name: str,
    *,
    out_indices: int | Sequence[int] = (0, 1, 2, 3, 4),
    output_stride: int = 32,
    dilation: Dilation = "timm",
    **arguments: Any,
) -> Backbone:
    """What `timm.create_model(name, features_only=True)` is: (N, in_chans, H, W) -> a list of maps.

    `feature_info` has timm's `channels()`, `reduction()` and `module_name()`. Needs no timm.

    Args:
        out_indices: 0 is the stem, 1 to 4 the stages; negative ones from the end, an integer is the last so many.
        dilation: "timm" as there; "official" as in the published code. It differs below an output stride of 32 only.
        arguments: of `create_backbone`.

    Raises:
        ResnestError: an unknown name, maps or stride that do not exist, weights that cannot be had or do not fit.
    """
    arguments |= {"output_stride": output_stride, "dilation": dilation, "out_indices": out_indices}
    return create_backbone(name, **arguments)


def register() -> list[str]:
    """Make `timm.create_model` and `timm.list_models` know the published networks; returns their names."""
    models, known = peer("timm.models"), peer("timm").list_models()
    for name in PUBLISHED:
        if name not in known:
            models.register_model(_entry(name))
    return [*PUBLISHED]


def _data_config(name: str) -> dict[str, Any]:
    """What `timm.data.resolve_model_data_config` reads: the preprocessing of the published weights."""
    preprocess = find_weights(name).preprocess()
    return {
        "architecture": name,
        "input_size": (3, preprocess.size, preprocess.size),
        "crop_pct": preprocess.crop_fraction,
        "interpolation": preprocess.interpolation,
        "mean": preprocess.mean,
        "std": preprocess.std,
        "first_conv": "conv1.0",
        "classifier": "fc",
    }


def _weights(tagged: str, pretrained_cfg: Any, overlay: dict[str, Any] | None) -> str:
    """The weights that `create_model(pretrained=...)` takes: a published name, or the file of an overlay."""
    if isinstance(pretrained_cfg, str | None) and set(overlay or {}) <= {"file"}:
        return str((overlay or {}).get("file", tagged))
    raise ResnestError("pretrained_cfg of a network of resnest may be a tag, and pretrained_cfg_overlay a file")


def _entry(name: str) -> Callable[..., ResNeSt | Backbone]:
    """The function that `timm.create_model` calls."""

    def create(
        pretrained: bool = False,
        *,
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: Any = None,
        cache_dir: Any = None,
        features_only: bool = False,
        global_pool: str = "avg",
        dilation: Dilation = "timm",
        **arguments: Any,
    ) -> ResNeSt | Backbone:
        tagged = f"{name}.{pretrained_cfg}" if isinstance(pretrained_cfg, str) else name
        weights = _weights(tagged, pretrained_cfg, pretrained_cfg_overlay) if pretrained else False
        arguments |= {"pretrained": weights, "dilation": dilation}
        net: ResNeSt | Backbone
        if features_only:
            arguments.pop("num_classes", None)
            net = features(name, **arguments)
        else:
            net = create_model(name, **arguments)
            if global_pool != "avg":
                head = net.fc
                net.reset_classifier(net.num_classes, global_pool)
                net.fc = head  # with the weights it has
        net.pretrained_cfg = _data_config(tagged)  # type: ignore[assignment]
        return net

    create.__name__ = create.__qualname__ = name
    create.__module__ = __name__
    setattr(sys.modules[__name__], name, create)
    return create

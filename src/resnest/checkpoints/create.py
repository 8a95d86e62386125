"""Networks by name or by `Spec`, with weights from a file where wanted.

create_model("resnest50", num_classes=10, pretrained="resnest50.safetensors")
create_backbone("resnest101", output_stride=16)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resnest.checkpoints.loading import load_weights
from resnest.checkpoints.reading import read_weights
from resnest.errors import ResnestError
from resnest.network.resnest import Backbone, Dilation, ResNeSt
from resnest.spec import Spec, find_spec, override_spec


def create_model(
    spec_or_name: Spec | str,
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    output_stride: int = 32,
    dilation: Dilation = "official",
    pretrained: bool | str | Path = False,
    zero_gamma: bool = True,
    **spec: Any,
) -> ResNeSt:
    """A classifier: (N, in_chans, H, W) -> logits (N, num_classes).

    Args:
        spec_or_name: a name of `list_models()`, one of timm's names, or a `Spec`.
        pretrained: a checkpoint file, or a directory with model.safetensors. A classifier of another size than
            `num_classes` is left untrained.
        spec: fields of `Spec` to change, such as `attention_norm="layer"` or `drop_path_rate=0.1`.

    Raises:
        ResnestError: an unknown name or field, a combination that cannot be built, weights that do not fit.
    """
    net = ResNeSt(
        _find(spec_or_name, spec),
        num_classes=num_classes,
        in_chans=in_chans,
        output_stride=output_stride,
        dilation=dilation,
        zero_gamma=zero_gamma,
    )
    _load(net, pretrained, spec_or_name)
    return net


def create_backbone(
    spec_or_name: Spec | str,
    *,
    in_chans: int = 3,
    output_stride: int = 32,
    dilation: Dilation = "official",
    out_indices: Sequence[int] = (1, 2, 3, 4),
    pretrained: bool | str | Path = False,
    zero_gamma: bool = True,
    **spec: Any,
) -> Backbone:
    """A feature extractor: (N, in_chans, H, W) -> list of maps, C2..C5 unless `out_indices` says otherwise.

    `.channels` and `.strides` describe the maps. Arguments and errors as for `create_model`.
    """
    net = Backbone(
        _find(spec_or_name, spec),
        in_chans=in_chans,
        output_stride=output_stride,
        dilation=dilation,
        out_indices=out_indices,
        zero_gamma=zero_gamma,
    )
    _load(net, pretrained, spec_or_name)
    return net


def _find(spec_or_name: Spec | str, overrides: dict[str, Any]) -> Spec:
    spec = spec_or_name if isinstance(spec_or_name, Spec) else find_spec(spec_or_name)[0]
    return override_spec(spec, overrides)


def _load(net: ResNeSt, pretrained: bool | str | Path, what: Spec | str) -> None:
    if pretrained is False:
        return
    if pretrained is True:
        name = what if isinstance(what, str) else "a Spec"
        raise ResnestError(
            f"pretrained=True: this version does not download the published weights of {name}."
            " Hand over a file: pretrained='resnest50.safetensors' (official and timm files fit as they are)"
        )
    path = Path(pretrained)
    load_weights(net, read_weights(path), replace_head=True, source=str(path))

"""Networks by name or by `Spec`, with weights where wanted.

create_model("resnest50", pretrained=True, num_classes=10)     # published weights, verified; a new head
create_model("resnest50", pretrained="somewhere/resnest50.pth")
create_backbone("resnest101", output_stride=16)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resnest.checkpoints.loading import LoadReport, load_file
from resnest.checkpoints.references import locate_for
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
        pretrained: True for the published weights that the name means (a tag chooses: "resnest50.gluon"); or a
            checkpoint file of any known layout, a directory (saved model, run, `resnest models fetch --to`), another
            row of weights, a hub id. A classifier of another size than `num_classes` starts untrained, a stem for
            other input channels is adapted.
        spec: fields of `Spec` to change, such as `attention_norm="layer"` or `drop_path_rate=0.1`.

    Raises:
        ResnestError: an unknown name or field, a combination that cannot be built, weights that cannot be had or do
            not fit.
    """
    net = ResNeSt(
        find_structure(spec_or_name, spec),
        num_classes=num_classes,
        in_chans=in_chans,
        output_stride=output_stride,
        dilation=dilation,
        zero_gamma=zero_gamma,
    )
    load_pretrained(net, pretrained, spec_or_name)
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
        find_structure(spec_or_name, spec),
        in_chans=in_chans,
        output_stride=output_stride,
        dilation=dilation,
        out_indices=out_indices,
        zero_gamma=zero_gamma,
    )
    load_pretrained(net, pretrained, spec_or_name)
    return net


def load_pretrained(net: ResNeSt, pretrained: bool | str | Path, what: Spec | str) -> LoadReport | None:
    """Load what `pretrained` of `create_model` means into a network; None for False.

    Raises:
        ResnestError: weights that cannot be had, do not fit, or belong to another network than `what` names.
    """
    return None if pretrained is False else load_file(net, find_pretrained(pretrained, what), replace_head=True)


def find_pretrained(pretrained: bool | str | Path, what: Spec | str) -> Path:
    """The file or directory that `pretrained` of `create_model` means. Raises ResnestError as `load_pretrained`."""
    name = what if isinstance(what, str) else None
    if pretrained is True and name is None:
        raise ResnestError(
            "pretrained=True needs a name, and a Spec has none: pass the file or the name of the weights"
        )
    return locate_for(name, name if pretrained is True else pretrained)  # type: ignore[arg-type]


def find_structure(spec_or_name: Spec | str, overrides: dict[str, Any]) -> Spec:
    """What `create_model` builds, with some fields of `Spec` changed. Raises ResnestError for unknown ones."""
    spec = spec_or_name if isinstance(spec_or_name, Spec) else find_spec(spec_or_name)[0]
    return override_spec(spec, overrides)

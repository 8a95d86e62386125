"""Which network a checkpoint file is, and its tensors into a network.

create_model("resnest50", pretrained=True, num_classes=10)     # published weights, verified; a new head
create_model("resnest50", pretrained="somewhere/resnest50.pth")
create_backbone("resnest101", output_stride=16)

report = load_file(net, Path("resnest50.pth"), replace_head=True)
print(report)                # official layout: 476 tensors matched
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from resnest.checkpoints.class_rows import Classes, match_rows
from resnest.checkpoints.fetch import is_network_name, locate_for
from resnest.checkpoints.layouts import COUNTER, Translated, recognise, to_official
from resnest.checkpoints.manifest import Weights, find_by_hash, find_weights
from resnest.checkpoints.reading import RawCheckpoint, read_checkpoint
from resnest.checkpoints.structure import Structure, looks_like, published_as, read_structure, same_tensors
from resnest.errors import ResnestError, parameter
from resnest.files import digest_of
from resnest.network.resnest import Backbone, Dilation, ResNeSt, Trunk
from resnest.spec import PUBLISHED, Spec, find_spec, override_spec

if TYPE_CHECKING:
    from resnest.runtime.preprocess import Preprocess


# --- Identification of the network in a checkpoint file, by the most reliable evidence in it ---
# In this order: the name given by the user, its metadata, its published hash, the shapes of its tensors. Shapes do not
# distinguish `resnest50` from `resnest50_fast_2s1x64d`; such a file gets an error that names both.

METADATA_KEY = "resnest"  # of a safetensors file: {"name": ..., "spec": {...}} as JSON


@dataclass(frozen=True)
class Identity:
    """A checkpoint under official names, and its network."""

    path: Path
    state: Mapping[str, Tensor]
    seen: Structure
    layout: str
    aside: tuple[str, ...]  # tensors of other parts, such as detection heads
    candidates: tuple[str, ...]  # possible names; several if they cannot be distinguished
    sure: Spec | None  # the structure, if more than shapes spoke for it
    row: Weights | None = None

    @property
    def spec(self) -> Spec:
        """Raises ResnestError if several networks are possible."""
        if self.sure is not None:
            return self.sure
        if len(self.candidates) == 1:
            return find_spec(self.candidates[0])[0]
        raise ResnestError(f"{self.path} {self.doubt()}: name it with {parameter('network', 'NAME')}")

    @property
    def name(self) -> str:
        """Official name, or "resnest" for a free structure."""
        return self.candidates[0] if len(self.candidates) == 1 else "resnest"

    def doubt(self) -> str:
        if self.candidates:
            return f"can be {' or '.join(self.candidates)}, which have the same tensors"
        return "is a free structure, and whether it pools before or after its 3x3 is not in its tensors"


def identify(raw: RawCheckpoint, network: str | None = None) -> Identity:
    """Identify the network of a checkpoint.

    Args:
        network: name of the network, given by the user.

    Raises:
        ResnestError: no ResNeSt (with what it looks like), or not the network that the user named.
    """
    translated = translate(raw)
    seen = read_structure(translated.state, str(raw.path))
    named, row, sure = _named(raw, seen, network)
    candidates = (named,) if named else tuple(published_as(seen.spec))
    if named and sure is None:
        sure = find_spec(named)[0]
    return Identity(raw.path, translated.state, seen, translated.layout, tuple(translated.aside), candidates, sure, row)


def _named(raw: RawCheckpoint, seen: Structure, network: str | None) -> tuple[str | None, Weights | None, Spec | None]:
    if network is not None:
        spec, official = find_spec(network)
        if official not in published_as(seen.spec):
            others = published_as(seen.spec)
            what = f"its tensors are those of {' or '.join(others)}" if others else _describe(seen.spec)
            raise ResnestError(f"{raw.path} is not a {network}: {what}")
        return official, find_weights(network) if official in PUBLISHED and "." in network else None, spec
    if METADATA_KEY in raw.metadata:
        return _from_metadata(raw, seen)
    hashes = raw.hashes or (digest_of(raw.path, "sha256"), digest_of(raw.path, "sha1"))
    row = find_by_hash(*hashes)
    return (row.network, row, None) if row else (None, None, None)


def _from_metadata(raw: RawCheckpoint, seen: Structure) -> tuple[str, None, Spec]:
    """The network in the file's metadata, if its tensors agree."""
    try:
        content = json.loads(raw.metadata[METADATA_KEY])
        name, spec = content["name"], Spec(**content["spec"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ResnestError(f"{raw.path} has metadata that cannot be understood: {error}") from None
    if not isinstance(name, str) or not same_tensors(spec, seen.spec):
        raise ResnestError(f"{raw.path} has metadata of another network: {_describe(seen.spec)}")
    if name in PUBLISHED and (PUBLISHED[name].spec.avd_first, name in published_as(spec)) != (spec.avd_first, True):
        raise ResnestError(f"{raw.path} has metadata that call it {name[:40]}, which its structure is not")
    return name, None, spec


def _describe(spec: Spec) -> str:
    return f"it has depths {spec.depths}, radix {spec.radix}, cardinality {spec.cardinality}, width {spec.width}"


HEAD = ("fc.weight", "fc.bias")
WEIGHT_TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
STEM = ("conv1.0.weight", "conv1.weight")  # the convolution that sees the image: deep stem, 7x7 or small


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

    `net.preprocess` is the evaluation transform of its published weights, None of a network without:
    `net.preprocess(image)` of a Pillow image is (3, H, W), normalised.

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
    net.preprocess = published_preprocess(pretrained, spec_or_name)
    return net


def create_backbone(
    spec_or_name: Spec | str,
    *,
    in_chans: int = 3,
    output_stride: int = 32,
    dilation: Dilation = "official",
    out_indices: int | Sequence[int] = (1, 2, 3, 4),
    pretrained: bool | str | Path = False,
    zero_gamma: bool = True,
    **spec: Any,
) -> Backbone:
    """A feature extractor: (N, in_chans, H, W) -> list of maps, C2..C5 by default.

    `out_indices` counts from 0, the stem, to 4, or from the end; an integer is the last so many. `.channels` and
    `.strides` describe the maps. Other arguments, and errors, as for `create_model`.
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
    net.preprocess = published_preprocess(pretrained, spec_or_name)
    return net


def load_pretrained(
    net: Trunk, pretrained: bool | str | Path, what: Spec | str, classes: Classes | None = None
) -> LoadReport | None:
    """Load the weights given by `pretrained` of `create_model` into a network; None for False.

    Args:
        classes: of the network; its classifier then takes those rows that the file has for them.

    Raises:
        ResnestError: weights that cannot be had, do not fit, or belong to another network than `what` names.
    """
    if pretrained is False:
        return None
    return load_file(net, find_pretrained(pretrained, what), replace_head=True, classes=classes)


def published_preprocess(pretrained: bool | str | Path, what: Spec | str) -> Preprocess | None:
    """The preprocessing of `pretrained` of `create_model`; None if it names no published weights."""
    name = what if pretrained is True else pretrained
    if not isinstance(name, str) or not is_network_name(name) or Path(name).exists():
        return None
    return find_weights(name).preprocess()


def find_pretrained(pretrained: bool | str | Path, what: Spec | str) -> Path:
    """The file or directory given by `pretrained` of `create_model`. Raises ResnestError as `load_pretrained`."""
    name = what if isinstance(what, str) else None
    if pretrained is True and name is None:
        raise ResnestError(
            "pretrained=True needs a name, and a Spec has none: pass the file or the name of the weights"
        )
    return locate_for(name, name if pretrained is True else pretrained)  # type: ignore[arg-type]


def find_structure(spec_or_name: Spec | str, overrides: dict[str, Any]) -> Spec:
    """The structure for `create_model`, with some fields of `Spec` changed. Raises ResnestError for unknown ones."""
    spec = spec_or_name if isinstance(spec_or_name, Spec) else find_spec(spec_or_name)[0]
    return override_spec(spec, overrides)


@dataclass
class LoadReport:
    """Tensor names by outcome: matched, missing, untrained, ..."""

    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # in the network, not in the file
    unexpected: list[str] = field(default_factory=list)  # in the file, not in the network
    reshaped: list[str] = field(default_factory=list)  # in both, of different shapes; with the shapes
    new_head: bool = False  # the classifier starts untrained
    untrained: list[str] = field(default_factory=list)  # parts of a detector that the file has nothing for
    layout: str = "official"
    wrapper: str = ""  # the entry of a training checkpoint that was used
    classes: str = ""  # which rows of class predictors were taken, in words

    def __str__(self) -> str:
        parts = [f"{self.layout} layout: {len(self.matched)} tensors matched"]
        if self.wrapper:
            parts[0] = f"{self.wrapper}, {parts[0]}"
        if self.reshaped:
            parts.append(f"reshaped {'; '.join(self.reshaped)}")
        if self.new_head:
            parts.append("the classifier starts anew")
        if self.classes:
            parts.append(self.classes)
        if self.untrained:
            parts.append(f"untrained: {', '.join(self.untrained)}")
        if self.unexpected:
            parts.append(f"{len(self.unexpected)} of other parts left out ({self.unexpected[0]}, ...)")
        return ", ".join(parts)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a checkpoint file under official names. Raises ResnestError as `translate` does."""
    return translate(read_checkpoint(path)).state


def translate(raw: RawCheckpoint) -> Translated:
    """A checkpoint of any known layout under official names.

    Raises:
        ResnestError: not a ResNeSt; the message has a guess what it is.
    """
    try:
        match = recognise(raw.state)
        if match is not None:
            translated = to_official(raw.state, *match)
            check_values(translated.state)
            return translated
    except ResnestError as error:
        raise ResnestError(f"{raw.path} was not loaded: {error}") from None
    raise ResnestError(f"{raw.path} is not a ResNeSt of any known layout: {looks_like(raw.state)}")


def check_values(state: Mapping[str, Tensor]) -> None:
    """Raises for weights that are not finite floating-point numbers; batch counters may be integers."""
    for name, tensor in state.items():
        if name.endswith(COUNTER):
            continue
        if tensor.dtype not in WEIGHT_TYPES:
            raise ResnestError(
                f"{name} is {str(tensor.dtype).removeprefix('torch.')}, weights are floating-point numbers"
            )
        if not torch.isfinite(tensor).all():
            raise ResnestError(
                f"{name} holds values that are not finite: its training went wrong, or the file is damaged"
            )


def load_file(net: nn.Module, path: Path, *, replace_head: bool = False, classes: Classes | None = None) -> LoadReport:
    """Load a checkpoint file of any kind and layout into `net`; `net` is unchanged if it does not fit.

    Parts of other models around the network, such as detection heads, are reported as unexpected, not refused.

    Args:
        classes: of the network; its classifier then takes those rows that the file has for them.

    Raises:
        ResnestError: unreadable, another architecture, or tensors that do not fit; they are named.
    """
    raw = read_checkpoint(path)
    translated = translate(raw)
    state, note = dict(translated.state), ""
    if classes:
        state, note = match_rows(net.state_dict(), state, classes, rows=_rows_of_classifier, raw=raw)
    report = load_weights(net, state, replace_head=replace_head, source=str(path))
    report.layout, report.wrapper, report.classes = translated.layout, raw.wrapper, note
    report.unexpected += translated.aside
    return report


def _rows_of_classifier(state: Mapping[str, Tensor], classes: Sequence[Hashable]) -> dict[str, Sequence[Hashable]]:
    return {name: classes for name in HEAD if name in state}


def load_weights(
    net: nn.Module, state: Mapping[str, Tensor], *, replace_head: bool = False, source: str = "the checkpoint"
) -> LoadReport:
    """Copy `state`, under official names, into `net`; `net` is unchanged if anything does not fit.

    A stem for another number of input channels is adapted: summed for one channel, repeated and scaled for others.

    Args:
        replace_head: leave a classifier of another size, or a missing one, untrained instead of refusing.

    Raises:
        ResnestError: names every missing, unexpected and misshapen tensor.
    """
    wanted = net.state_dict()
    state = dict(state)
    report = LoadReport(reshaped=adapt_stem(state, wanted))
    misshapen = []
    for name, tensor in wanted.items():
        if name not in state:
            # The batch counter is unused, and converted files omit it.
            (report.matched if name.endswith(COUNTER) else report.missing).append(name)
        elif state[name].shape != tensor.shape and name in HEAD and replace_head:
            report.reshaped.append(f"{name} from {_size(state[name])} to {_size(tensor)}")
        elif state[name].shape != tensor.shape:
            misshapen.append(f"{name} {_size(state[name])} instead of {_size(tensor)}")
        else:
            report.matched.append(name)
    report.unexpected = [name for name in state if name not in wanted]
    if replace_head:
        lost = [name for name in report.missing if name in HEAD]
        report.new_head = bool(lost) or any(entry.split(" ", 1)[0] in HEAD for entry in report.reshaped)
        report.missing = [name for name in report.missing if name not in HEAD]
        report.unexpected = [name for name in report.unexpected if name not in HEAD]
    if report.missing or report.unexpected or misshapen:
        raise ResnestError(_misfit(report, misshapen, source))
    fitting = {name: state[name] if name in state else wanted[name] for name in report.matched}
    net.load_state_dict(fitting, strict=False)
    return report


def adapt_stem(state: dict[str, Tensor], wanted: Mapping[str, Tensor], prefix: str = "") -> list[str]:
    """Adapt the first convolution of `state` to the input channels of `wanted`; in words, what was done."""
    for name in (prefix + stem for stem in STEM):
        if name not in state or name not in wanted or state[name].ndim != 4:
            continue
        ours, theirs = wanted[name].shape[1], state[name].shape[1]
        if ours != theirs and state[name].shape[0] == wanted[name].shape[0] and theirs == 3:
            before, state[name] = _size(state[name]), for_channels(state[name], ours)
            return [f"{name} from {before} to {_size(state[name])}"]
    return []


def for_channels(weight: Tensor, count: int) -> Tensor:
    """A convolution's weight for RGB, (C, 3, h, w), for other channels: (C, count, h, w), as timm adapts it.

    One channel has the sum, so that a grey image gives what it gives as RGB; more are red, green, blue, red, ...,
    scaled so that the mean of the output stays.
    """
    wide = weight.float()
    repeated = wide.repeat(1, -(-count // 3), 1, 1)[:, :count] * (3 / count)
    wide = wide.sum(1, keepdim=True) if count == 1 else repeated
    return wide.to(torch.promote_types(weight.dtype, torch.float32))


def _size(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def _misfit(report: LoadReport, misshapen: list[str], source: str) -> str:
    groups = (("missing", report.missing), ("unexpected", report.unexpected), ("of another shape", misshapen))
    parts = [f"{len(names)} {kind}: {listed(names)}" for kind, names in groups if names]
    heads_only = misshapen and all(entry.split(" ", 1)[0] in HEAD for entry in misshapen)
    advice = ""
    if heads_only and not report.missing and not report.unexpected:
        advice = "; it has another number of classes: ask for that number, or let the head be replaced"
    return f"{source} does not fit this network; {'; '.join(parts)}{advice}"


def listed(names: list[str], most: int = 8) -> str:
    """The first few names, and the number of the others."""
    return ", ".join(names[:most]) + (f", and {len(names) - most} more" if len(names) > most else "")

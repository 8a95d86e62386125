"""Putting weights into a model of several parts: a backbone, and heads for a task.

report = load_multipart(net, state, source="a.pth", by_class=re.compile(...), optional=[Part("mask_head", ...)])
report = load_into_backbone(net, read_checkpoint(path))

What a detector's parts are, and a segmenter's, stands in detectors.py and segmenters.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from resnest.checkpoints.layouts import COUNTER
from resnest.checkpoints.loading import LoadReport, listed, load_weights, translate
from resnest.checkpoints.reading import RawCheckpoint
from resnest.errors import ResnestError


class Part(NamedTuple):
    """What a file may lack, and then starts untrained."""

    title: str
    names: re.Pattern[str]  # of its tensors
    may_be_left: bool = True  # out, where the file has it and the network does not


def load_multipart(
    net: nn.Module,
    state: Mapping[str, Tensor],
    *,
    what: str,
    source: str,
    by_class: re.Pattern[str],
    optional: Sequence[Part],
) -> LoadReport:
    """Copy `state`, under our names, into `net`; nothing is changed if it does not fit.

    Args:
        what: the network, for an error.
        source: the file, for an error.
        by_class: names of what has rows for each class: with other classes it stays untrained.

    Raises:
        ResnestError: names every missing, unexpected and misshapen tensor.
    """
    wanted = net.state_dict()
    report = LoadReport()
    misshapen: list[str] = []
    for name, tensor in wanted.items():
        if name not in state:
            (report.matched if name.endswith(COUNTER) else report.missing).append(name)
        elif state[name].shape == tensor.shape:
            report.matched.append(name)
        else:
            other_classes = by_class.match(name) and state[name].shape[1:] == tensor.shape[1:]
            sizes = f"{name} from {tuple(state[name].shape)} to {tuple(tensor.shape)}"
            (report.reshaped if other_classes else misshapen).append(sizes)
    report.unexpected = [name for name in state if name not in wanted]
    _excuse(report, state, optional)
    _refuse_misfits(report, misshapen, optional, f"{source} does not fit this {what}")
    net.load_state_dict({name: state[name] for name in report.matched if name in state}, strict=False)
    return report


def load_into_backbone(net: nn.Module, raw: RawCheckpoint, *, own: re.Pattern[str] | None = None) -> LoadReport:
    """A classifier's weights, or another model's backbone, into `net.backbone`; the other parts stay untrained.

    Args:
        own: names of tensors that keep their values where the file has none of them.

    Raises:
        ResnestError: it is no ResNeSt, or another one.
    """
    translated, backbone = translate(raw), net.get_submodule("backbone")
    kept = {name: t for name, t in backbone.state_dict().items() if own is not None and own.search(name)}
    report = load_weights(backbone, {**kept, **translated.state}, replace_head=True, source=str(raw.path))
    report.matched = [f"backbone.{name}" for name in report.matched if name not in kept or name in translated.state]
    report.layout, report.unexpected = translated.layout, report.unexpected + translated.aside
    report.untrained = [name for name, part in net.named_children() if name != "backbone" and part.state_dict()]
    report.new_head = False  # a backbone has none
    return report


def _excuse(report: LoadReport, state: Mapping[str, Tensor], optional: Sequence[Part]) -> None:
    """What the file need not have, from `missing` to `untrained`."""
    if report.reshaped:
        report.untrained.append("what predicts classes, since there are others")
    for part in optional:
        lacking = [name for name in report.missing if part.names.search(name)]
        if lacking and not any(part.names.search(name) for name in state):
            report.untrained.append(part.title)
            report.missing = [name for name in report.missing if name not in lacking]


def _refuse_misfits(report: LoadReport, misshapen: list[str], optional: Sequence[Part], refusal: str) -> None:
    left = [part.names for part in optional if part.may_be_left]
    strange = [name for name in report.unexpected if not any(names.search(name) for names in left)]
    groups = (("missing", report.missing), ("unexpected", strange), ("of another shape", misshapen))
    parts = [f"{len(names)} {kind}: {listed(names, 6)}" for kind, names in groups if names]
    if parts:
        raise ResnestError(f"{refusal}; {'; '.join(parts)}")

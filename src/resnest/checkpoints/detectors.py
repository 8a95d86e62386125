"""Putting weights into a detector: a whole detector's of any layout, or a classifier's into its backbone.

    report = load_detector_weights(net, "mask_cascade_rcnn_ResNeSt_50.pth")
    print(report)              # detectron2 layout: 623 tensors matched

`net` is anything with the parts of a detector of ours: `backbone`, `fpn`, `rpn`, `box_heads`, perhaps `mask_head`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from resnest.checkpoints.detector_layouts import PARTS, recognise_detector, to_ours
from resnest.checkpoints.layouts import COUNTER
from resnest.checkpoints.loading import LoadReport, check_values, listed, load_weights, translate
from resnest.checkpoints.reading import RawCheckpoint, read_checkpoint
from resnest.checkpoints.references import locate_for
from resnest.errors import ResnestError

BY_CLASS = re.compile(r"box_heads\.\d\.(score|deltas)\.|mask_head\.logits\.")  # have a row, or four, for each class
OFFSETS = (".offset_weight", ".offset_bias")  # what a deformable convolution has more than a plain one


def load_detector_weights(net: nn.Module, reference: str | Path, *, network: str | None = None) -> LoadReport:
    """Load what a model reference stands for into a detector; nothing is changed if it does not fit.

    A detector's file goes into all parts. With other classes than `net` has, what predicts them stays untrained, and
    so does the mask head if the file has none. A classifier's or a backbone's file goes into the backbone alone.

    Args:
        reference: a file, a directory, a name of published weights, a hub id.
        network: the name of the backbone's network; weights of another published one are refused.

    Raises:
        ResnestError: it cannot be had or read, has another backbone, or tensors that do not fit; they are named.
    """
    raw = read_checkpoint(locate_for(network, reference))
    layout = recognise_detector(raw.state)
    report = _load_backbone(net, raw) if layout is None else _load_whole(net, raw, layout)
    report.wrapper = raw.wrapper
    return report


def read_detector(raw: RawCheckpoint, layout: str) -> tuple[dict[str, Tensor], list[str]]:
    """A detector's tensors under our names, and the names of those that belong to parts that we know nothing of.

    Raises:
        ResnestError: another backbone, parts that are built in another way, or values that are no weights.
    """
    try:
        translated = to_ours(raw.state, layout)
        check_values(translated.state)
    except ResnestError as error:
        raise ResnestError(f"{raw.path} was not loaded: {error}") from None
    return translated.state, translated.aside


def _load_backbone(net: nn.Module, raw: RawCheckpoint) -> LoadReport:
    """A classifier's weights into the backbone; deformable convolutions keep distances of zero."""
    translated, backbone = translate(raw), net.get_submodule("backbone")
    own = {name: tensor for name, tensor in backbone.state_dict().items() if name.endswith(OFFSETS)}
    report = load_weights(backbone, {**own, **translated.state}, replace_head=True, source=str(raw.path))
    report.matched = [f"backbone.{name}" for name in report.matched if name not in own or name in translated.state]
    report.layout, report.unexpected = translated.layout, report.unexpected + translated.aside
    report.untrained = ["deformable offsets"] * (not own.keys() <= translated.state.keys())
    report.untrained += [part for part in PARTS if any(name.startswith(f"{part}.") for name in net.state_dict())]
    return report


def _load_whole(net: nn.Module, raw: RawCheckpoint, layout: str) -> LoadReport:
    state, aside = read_detector(raw, layout)
    wanted = net.state_dict()
    report = LoadReport(layout=layout)
    misshapen: list[str] = []
    for name, tensor in wanted.items():
        if name not in state:
            (report.matched if name.endswith(COUNTER) else report.missing).append(name)
        elif state[name].shape == tensor.shape:
            report.matched.append(name)
        else:
            other_classes = BY_CLASS.match(name) and state[name].shape[1:] == tensor.shape[1:]
            sizes = f"{name} from {tuple(state[name].shape)} to {tuple(tensor.shape)}"
            (report.reshaped if other_classes else misshapen).append(sizes)
    report.unexpected = [name for name in state if name not in wanted]
    _excuse(report, state)
    _refuse_misfits(report, misshapen, str(raw.path))
    report.unexpected += aside
    net.load_state_dict({name: state[name] for name in report.matched if name in state}, strict=False)
    return report


def _excuse(report: LoadReport, state: Mapping[str, Tensor]) -> None:
    """What may be other than in the file, from `missing` to `untrained`: what predicts, a whole mask head, offsets."""
    if report.reshaped:
        report.untrained.append("what predicts classes, since there are others")
    if not any(name.startswith("mask_head.") for name in state):
        _leave(report, "mask_head", [name for name in report.missing if name.startswith("mask_head.")])
    if not any(name.endswith(OFFSETS) for name in state):
        _leave(report, "deformable offsets", [name for name in report.missing if name.endswith(OFFSETS)])


def _leave(report: LoadReport, part: str, names: list[str]) -> None:
    if names:
        report.untrained.append(part)
        report.missing = [name for name in report.missing if name not in names]


def _refuse_misfits(report: LoadReport, misshapen: list[str], source: str) -> None:
    """A mask head that `net` has no place for is left out; everything else must fit."""
    strange = [name for name in report.unexpected if not name.startswith("mask_head.")]
    groups = (("missing", report.missing), ("unexpected", strange), ("of another shape", misshapen))
    parts = [f"{len(names)} {kind}: {listed(names, 6)}" for kind, names in groups if names]
    if parts:
        raise ResnestError(f"{source} does not fit this detector; {'; '.join(parts)}")

"""Putting weights into a detector: a whole detector's of any layout, or a classifier's into its backbone.

    report = load_detector_weights(net, "mask_cascade_rcnn_ResNeSt_50.pth")
    print(report)              # detectron2 layout: 623 tensors matched

`net` is anything with the parts of a detector of ours: `backbone`, `fpn`, `rpn`, `box_heads`, perhaps `mask_head`,
and of a panoptic one `semantic`.
"""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor, nn

from resnest.checkpoints.detector_layouts import recognise_detector, to_ours
from resnest.checkpoints.loading import LoadReport, check_values
from resnest.checkpoints.multipart import Part, load_into_backbone, load_multipart
from resnest.checkpoints.reading import RawCheckpoint, read_checkpoint
from resnest.checkpoints.references import locate_for
from resnest.errors import ResnestError

# have a row, or four, for each class
BY_CLASS = re.compile(r"box_heads\.\d\.(score|deltas)\.|mask_head\.logits\.|semantic\.logits\.")
OFFSETS = re.compile(r"\.offset_(weight|bias)$")  # what a deformable convolution has more than a plain one
OPTIONAL = (
    Part("mask_head", re.compile(r"^mask_head\.")),
    Part("semantic", re.compile(r"^semantic\.")),
    Part("deformable offsets", OFFSETS, may_be_left=False),
)


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
    """Deformable convolutions keep distances of zero where the file has none."""
    report = load_into_backbone(net, raw, own=OFFSETS)
    offsets = {name for name in net.state_dict() if OFFSETS.search(name)}
    report.untrained[:0] = ["deformable offsets"] * (not offsets <= set(report.matched))
    return report


def _load_whole(net: nn.Module, raw: RawCheckpoint, layout: str) -> LoadReport:
    state, aside = read_detector(raw, layout)
    report = load_multipart(net, state, what="detector", source=str(raw.path), by_class=BY_CLASS, optional=OPTIONAL)
    report.layout, report.unexpected = layout, report.unexpected + aside
    return report

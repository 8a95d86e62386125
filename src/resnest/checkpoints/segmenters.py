"""Putting weights into a segmenter: a whole segmenter's of any layout, or a classifier's into its backbone.

    report = load_segmenter_weights(net, "deeplab_resnest50_ade.pth")
    print(report)              # encoding layout: 519 tensors matched

`net` is anything with the parts of a segmenter of ours: `backbone`, `head`, perhaps `auxiliary`.
"""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor, nn

from resnest.checkpoints.loading import LoadReport, check_values
from resnest.checkpoints.multipart import Part, load_into_backbone, load_multipart
from resnest.checkpoints.reading import RawCheckpoint, read_checkpoint
from resnest.checkpoints.references import locate_for
from resnest.checkpoints.segmenter_layouts import recognise_segmenter, to_ours
from resnest.errors import ResnestError

BY_CLASS = re.compile(r"(head|auxiliary)\.predict\.logits\.")  # have a row for each class
OPTIONAL = (Part("auxiliary", re.compile(r"^auxiliary\.")),)


def load_segmenter_weights(net: nn.Module, reference: str | Path, *, network: str | None = None) -> LoadReport:
    """Load what a model reference stands for into a segmenter; nothing is changed if it does not fit.

    A segmenter's file goes into all parts. With other classes than `net` has, what predicts them stays untrained, and
    so does the auxiliary head if the file has none. Of a classifier's, a backbone's or a detector's file the backbone
    is taken alone.

    Args:
        reference: a file, a directory, a name of published weights, a hub id.
        network: the name of the backbone's network; weights of another published one are refused.

    Raises:
        ResnestError: it cannot be had or read, has another backbone or head, or tensors that do not fit; they are
            named.
    """
    raw = read_checkpoint(locate_for(network, reference))
    layout = recognise_segmenter(raw.state)
    report = load_into_backbone(net, raw) if layout is None else _load_whole(net, raw, layout)
    report.wrapper = raw.wrapper
    return report


def read_segmenter(raw: RawCheckpoint, layout: str) -> tuple[dict[str, Tensor], list[str]]:
    """A segmenter's tensors under our names, and the names of those that no segmenter uses.

    Raises:
        ResnestError: a head that is built in another way, or values that are no weights.
    """
    try:
        translated = to_ours(raw.state, layout)
        check_values(translated.state)
    except ResnestError as error:
        raise ResnestError(f"{raw.path} was not loaded: {error}") from None
    return translated.state, translated.aside


def _load_whole(net: nn.Module, raw: RawCheckpoint, layout: str) -> LoadReport:
    state, aside = read_segmenter(raw, layout)
    report = load_multipart(net, state, what="segmenter", source=str(raw.path), by_class=BY_CLASS, optional=OPTIONAL)
    report.layout, report.unexpected = layout, report.unexpected + aside
    return report

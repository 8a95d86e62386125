"""Putting weights into a segmenter: a whole segmenter's, or a classifier's into its backbone.

report = load_segmenter_weights(net, "runs/a")

`net` is anything with the parts of a segmenter of ours: `backbone`, `head`, perhaps `auxiliary`.
"""

from __future__ import annotations

from pathlib import Path

from torch import nn

from resnest.checkpoints.loading import LoadReport, load_weights, translate
from resnest.checkpoints.reading import read_checkpoint
from resnest.checkpoints.references import locate_for


def load_segmenter_weights(net: nn.Module, reference: str | Path, *, network: str | None = None) -> LoadReport:
    """Load what a model reference stands for into a segmenter; nothing is changed if it does not fit.

    Args:
        reference: a file, a directory, a name of published weights, a hub id.
        network: the name of the backbone's network; weights of another published one are refused.

    Raises:
        ResnestError: it cannot be had or read, has another backbone, or tensors that do not fit; they are named.
    """
    raw = read_checkpoint(locate_for(network, reference))
    state = translate(raw).state
    report = load_weights(net.get_submodule("backbone"), state, replace_head=True, source=str(raw.path))
    report.matched = [f"backbone.{name}" for name in report.matched]
    report.wrapper = raw.wrapper
    report.untrained = ["head"]
    return report

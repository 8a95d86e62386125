"""Weights of a keypoint network: a whole one under our names, or a classifier's for its backbone.

report = WEIGHTS.load(net, "runs/a")               # a run of keypoints, or of a classifier
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence

from torch import Tensor

from resnest.checkpoints.layouts import IGNORED, LAYOUTS, Translated
from resnest.checkpoints.multipart import Parts
from resnest.errors import ResnestError

OURS = ("backbone.", "deconvs.", "heatmaps.")


def recognise(names: Iterable[str]) -> str | None:
    """ "official" for a network of ours; None for all else."""
    listed = list(names)
    return "official" if all(any(name.startswith(part) for name in listed) for part in OURS) else None


def to_ours(state: Mapping[str, Tensor], layout: str) -> Translated:
    """The network's tensors; others are separated."""
    result = Translated({}, layout)
    for name, tensor in state.items():
        if name.startswith(OURS) and not IGNORED.search(name):
            result.state[name] = tensor
        else:
            result.aside.append(name)
    return result


def from_ours(state: Mapping[str, Tensor], layout: str) -> dict[str, Tensor]:
    """Under the names of `layout`. Raises ResnestError for any but ours."""
    if layout != "official":
        raise ResnestError(f"the {layout} layout cannot hold a keypoint network")
    return dict(state)


def class_rows(state: Mapping[str, Tensor], classes: Sequence[Hashable]) -> dict[str, Sequence[Hashable]]:
    """What the rows of the last convolution stand for: points."""
    return {name: classes for name in state if name.startswith("heatmaps.")}


WEIGHTS = Parts(
    what="keypoint network",
    layouts={"official": LAYOUTS["official"]},
    recognise=recognise,
    to_ours=to_ours,
    from_ours=from_ours,
    rows=class_rows,
)

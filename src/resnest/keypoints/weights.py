"""Weights of a keypoint network: a whole one under our names or mmpose's, or a classifier's for its backbone.

report = WEIGHTS.load(net, "runs/a")               # a run of keypoints, or of a classifier
report = WEIGHTS.load(net, "td-hm_resnest50.pth")  # SimpleBaseline of mmpose on a ResNeSt

mmpose counts a heatmap's cell from its corner, and we from its middle: until its weights are trained here, points lie
1.5 pixels of the input to the right and below.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence

from torch import Tensor

from resnest.checkpoints.layouts import IGNORED, LAYOUTS, Translated, to_official
from resnest.checkpoints.layouts import recognise as recognise_body
from resnest.checkpoints.multipart import KeyMap, Parts
from resnest.checkpoints.structure import looks_like
from resnest.errors import ResnestError

BODY = "backbone."
OURS = (BODY, "deconvs.", "heatmaps.")
HEADS = ("head.", "keypoint_head.")  # mmpose from version 1.0 on, and before (models/heads/heatmap_heads)
THEIRS = KeyMap(
    [
        *(("deconvs.{i}.{leaf}", f"{head}deconv_layers.{{i}}.{{leaf}}") for head in HEADS),
        *(("heatmaps.{leaf}", f"{head}final_layer.{{leaf}}") for head in HEADS),
    ]
)


def recognise(names: Iterable[str]) -> str | None:
    """ "official" for a network of ours, "mmpose" for one with a head of its heatmaps; None for all else."""
    listed = list(names)

    def has(*parts: str) -> bool:
        return all(any(name.startswith(part) for name in listed) for part in parts)

    if has(*OURS):
        return "official"
    return "mmpose" if any(has(BODY, f"{head}final_layer.") for head in HEADS) else None


def to_ours(state: Mapping[str, Tensor], layout: str) -> Translated:
    """The network's tensors; others are separated.

    Raises:
        ResnestError: mmpose's with another backbone, or with a head that is not SimpleBaseline's.
    """
    if layout == "mmpose":
        return _of_mmpose(state)
    result = Translated({}, layout)
    for name, tensor in state.items():
        if name.startswith(OURS) and not IGNORED.search(name):
            result.state[name] = tensor
        else:
            result.aside.append(name)
    return result


def _of_mmpose(state: Mapping[str, Tensor]) -> Translated:
    body = {name: tensor for name, tensor in state.items() if name.startswith(BODY)}
    head = {name: tensor for name, tensor in state.items() if name.startswith(HEADS)}
    found = recognise_body(body)
    if found is None:
        what = looks_like([name.removeprefix(BODY) for name in body])
        raise ResnestError(f"it is a keypoint network of mmpose, and its backbone ({BODY}*) is no ResNeSt: {what}")
    if not any(".deconv_layers." in name for name in head):
        raise ResnestError(
            "it is a keypoint network of mmpose without deconvolutions (deconv_layers.*): SimpleBaseline has three"
        )
    result = Translated({}, "mmpose", [name for name in state if name not in body and name not in head])
    result.state |= {BODY + name: tensor for name, tensor in to_official(body, *found).state.items()}
    for name, tensor in head.items():
        if (ours := THEIRS.to_ours(name)) is None:
            raise ResnestError(f"it is a keypoint network of mmpose with {name}, which SimpleBaseline's head has not")
        result.state[ours] = tensor
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

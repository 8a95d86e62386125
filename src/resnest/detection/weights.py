"""Weights of a detector: conversion of tensor names to and from detectron2 and torchvision.

    report = WEIGHTS.load(net, "mask_cascade_rcnn_ResNeSt_50.pth")      # or a classifier's, into the backbone
    print(report)                                  # detectron2 layout: 623 tensors matched

    name = recognise(state)                        # "official" (ours), "detectron2", "torchvision", or None
    ours = to_ours(state, name)
    state = from_ours(ours.state, "torchvision")

Ours are the pivot. What is `backbone` is the same for all kinds of detectors; the names of the other parts, and where
other code counts the background, are in the `Naming` of each kind.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence

from torch import Tensor, nn

from resnest.checkpoints import layouts
from resnest.checkpoints.layouts import COUNTER, LAYOUTS, Layout, Translated, from_official, to_official
from resnest.checkpoints.multipart import KeyMap, Part, Parts, Rules
from resnest.checkpoints.reading import RawCheckpoint
from resnest.checkpoints.structure import looks_like
from resnest.detection.kinds import KINDS
from resnest.detection.naming import Naming
from resnest.detection.rcnn_naming import LOSS_COUNTS
from resnest.errors import ResnestError
from resnest.tasks import load_object

TORCHVISION = Layout(name="torchvision", who="torchvision's detectors", prefix="backbone.body.", head=None)
WHOLE = {"official": LAYOUTS["official"], "detectron2": LAYOUTS["detectron2"], "torchvision": TORCHVISION}
BACKBONES = {"official": "backbone.", "detectron2": "backbone.bottom_up.", "torchvision": "backbone.body."}
# not trained: anchors, and the mean and deviation of pixels
CONSTANTS = re.compile(r"((proposal_generator\.)?anchor_generator\.cell_anchors\.\d+|pixel_mean|pixel_std)")


def naming_of(kind: str) -> Naming:
    naming: Naming = load_object(KINDS[kind].naming)
    return naming


def find_kind(names: Iterable[str]) -> tuple[str, str] | None:
    """Kind and layout of a whole detector, by its tensors; None if it is none."""
    listed = list(names)
    found = [
        (len(marks), kind, layout)
        for kind in KINDS
        for layout, marks in naming_of(kind).marks.items()
        if all(any(name.startswith(mark) for name in listed) for mark in marks)
    ]
    return max(found)[1:] if found else None


def recognise(names: Iterable[str]) -> str | None:
    """The layout of a detector; None if it has none."""
    found = find_kind(names)
    return found[1] if found else None


def _naming(state: Mapping[str, Tensor]) -> Naming:
    found = find_kind(state)
    assert found is not None, "recognised before"
    return naming_of(found[0])


def _rules(naming: Naming, layout: str, state: Mapping[str, Tensor]) -> Rules:
    if layout == "official":
        return [(f"{part}.{{any}}", f"{part}.{{any}}") for part in naming.parts]
    return naming.rules(layout, state)


def to_ours(state: Mapping[str, Tensor], layout: str) -> Translated:
    """A complete detector under our names; further heads of other code, such as keypoints, are separated.

    Raises:
        ResnestError: its backbone is no ResNeSt, or an unknown tensor in a known part.
    """
    naming, ours_too = _naming(state), layout == "official"
    if layout == "torchvision":
        state = {_modern(name): tensor for name, tensor in state.items()}
    prefix = BACKBONES[layout]
    body = {name: tensor for name, tensor in state.items() if name.startswith(prefix)}
    rest = {name: tensor for name, tensor in state.items() if name not in body and not CONSTANTS.fullmatch(name)}
    result = Translated({f"backbone.{name}": tensor for name, tensor in _body_to_ours(body, layout).items()}, layout)
    result.state |= {} if ours_too else naming.added
    translator = KeyMap(_rules(naming, layout, state))
    for name, tensor in rest.items():
        ours = translator.to_ours(name)
        if ours is not None:
            result.state[ours] = naming.from_torchvision(ours, tensor, state) if layout == "torchvision" else tensor
        elif name.startswith(("backbone.", *naming.known)):  # leaving it out would change that part's output
            raise ResnestError(f"{name} does not exist in our detectors: {naming.advice(name)}")
        else:
            result.aside.append(name)
    return result


def from_ours(state: Mapping[str, Tensor], layout: str) -> dict[str, Tensor]:
    """A complete detector under the names of `layout`.

    Raises:
        ResnestError: the layout cannot hold it.
    """
    naming = _naming(state)
    if layout != "official" and (what := naming.refusal(layout, state)):
        raise ResnestError(f"the {layout} layout cannot hold this detector: {layout} has no {what}")
    counters = WHOLE[layout].counters
    body = {name.removeprefix("backbone."): tensor for name, tensor in state.items() if name.startswith("backbone.")}
    result = {BACKBONES[layout] + name: tensor for name, tensor in _body_from_ours(body, layout).items()}
    translator = KeyMap(_rules(naming, layout, state))
    left_out = {name for name in state if layout != "official" and naming.is_only_ours(name)}
    for name, tensor in state.items():
        if name.startswith("backbone.") or name in left_out or (name.endswith(COUNTER) and not counters):
            continue
        theirs = translator.to_theirs(name)
        if theirs is None:
            raise ResnestError(f"{name} is no part of a detector of ours")
        result[theirs] = naming.to_torchvision(name, tensor, state) if layout == "torchvision" else tensor
    return result


def _body_to_ours(body: Mapping[str, Tensor], layout: str) -> dict[str, Tensor]:
    """The backbone under official names; those of deformable convolutions' offsets are ours in every layout."""
    prefix = BACKBONES[layout]
    offsets = {name: tensor for name, tensor in body.items() if ".conv2_offset." in name}
    plain = {name: tensor for name, tensor in body.items() if name not in offsets}
    recognised = layouts.recognise(plain)
    if recognised is None:
        bare = [name.removeprefix(prefix) for name in plain]
        raise ResnestError(f"its backbone ({prefix}*) is no ResNeSt: {looks_like(bare)}")
    official = to_official(plain, *recognised).state
    for name, tensor in offsets.items():
        match = re.fullmatch(r"res(\d)\.(\d+)\.conv2_offset\.(weight|bias)", name.removeprefix(prefix))
        if match is None:
            raise ResnestError(f"{name} does not exist in our backbones")
        module = f"layer{int(match[1]) - 1}.{match[2]}.conv2"
        split = f"{module}.conv.weight" in official  # split attention; otherwise it is the convolution itself
        official[f"{module}{'.conv' if split else ''}.offset_{match[3]}"] = tensor
    return official


def _body_from_ours(body: Mapping[str, Tensor], layout: str) -> dict[str, Tensor]:
    if layout != "detectron2":
        return dict(body)
    offsets = {name: tensor for name, tensor in body.items() if ".offset_" in name}
    plain = {name: tensor for name, tensor in body.items() if name not in offsets}
    theirs = from_official(plain, LAYOUTS["detectron2"], bare=True)
    for name, tensor in offsets.items():
        match = re.fullmatch(r"layer(\d)\.(\d+)\.conv2(?:\.conv)?\.offset_(weight|bias)", name)
        assert match
        theirs[f"res{int(match[1]) + 1}.{match[2]}.conv2_offset.{match[3]}"] = tensor
    return theirs


def _modern(name: str) -> str:
    """Names of torchvision before 0.13, with plain convolutions in pyramids and heads, translated to the current ones.

    >>> _modern("backbone.fpn.inner_blocks.1.weight"), _modern("roi_heads.mask_head.mask_fcn2.bias")
    ('backbone.fpn.inner_blocks.1.0.weight', 'roi_heads.mask_head.1.0.bias')
    """
    if match := re.fullmatch(r"roi_heads\.mask_head\.mask_fcn(\d+)\.(weight|bias)", name):
        return f"roi_heads.mask_head.{int(match[1]) - 1}.0.{match[2]}"
    name = re.sub(r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$", r"\1.0.\2", name)
    return re.sub(r"^rpn\.head\.conv\.(weight|bias)$", r"rpn.head.conv.0.0.\1", name)


def class_rows(state: Mapping[str, Tensor], classes: Sequence[Hashable]) -> Mapping[str, Sequence[Hashable]]:
    """What the rows of each class predictor stand for: a class, a side of its boxes, the background, or any object."""
    found = find_kind(state)
    return naming_of(found[0]).rows(state, classes) if found else {}


def _misfit(net: nn.Module, whole: Translated, raw: RawCheckpoint) -> str | None:
    """Another kind of detector; the tensors say what else is different."""
    theirs, ours = find_kind(whole.state), net.spec.kind  # type: ignore[union-attr]
    if theirs is None or theirs[0] == ours:
        return None
    return f"it is a detector of detector.kind={theirs[0]}, and this is one of detector.kind={ours}"


WEIGHTS = Parts(
    what="detector",
    layouts=WHOLE,
    recognise=recognise,
    to_ours=to_ours,
    from_ours=from_ours,
    rows=class_rows,
    optional=(
        Part("mask_head", re.compile(r"^mask_head\.")),
        *(Part(f"what {loss} counts in training", pattern) for loss, pattern in LOSS_COUNTS.items()),
        Part("semantic", re.compile(r"^semantic\.")),
        # what a deformable convolution has more than a plain one: zero where the file has none
        Part("deformable offsets", re.compile(r"\.offset_(weight|bias)$"), in_backbone=True),
    ),
    misfit=_misfit,
)

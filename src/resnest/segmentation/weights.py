"""Weights of a segmenter: conversion of tensor names to and from PyTorch-Encoding and segmentation_models_pytorch.

    report = WEIGHTS.load(net, "deeplab_resnest50_ade.pth")             # or a classifier's, into the backbone
    print(report)                                  # encoding layout: 519 tensors matched

    name = recognise(state)                        # "official" (ours), "encoding", "smp", or None
    ours = to_ours(state, name)
    state = from_ours(ours.state, "encoding")

Ours are the pivot: `backbone`, `head` and `auxiliary`. There the backbone is `pretrained` and the auxiliary head
`auxlayer`; the parts of heads are numbered. Sources: PyTorch-Encoding, models/sseg/base.py, deeplab.py, fcn.py, psp.py.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence

from torch import Tensor, nn

from resnest.checkpoints import layouts
from resnest.checkpoints.layouts import IGNORED, LAYOUTS, Layout, Translated
from resnest.checkpoints.multipart import KeyMap, Part, Parts, Rules, conv_norm
from resnest.checkpoints.reading import RawCheckpoint
from resnest.checkpoints.structure import looks_like, published_as, read_structure, same_tensors
from resnest.errors import ResnestError
from resnest.segmentation.smp_names import (
    is_smp,
    is_unused,
    smp_head,
    smp_misfit,
    smp_refusal,
    smp_rules,
    unused_tensors,
)
from resnest.segmentation.spec import TITLES, Head, SegmenterSpec
from resnest.spec import Spec

SMP = Layout(
    name="smp",
    who="segmentation_models_pytorch",
    prefix="encoder.model.",
    head=None,
    any_channels=True,
    attention_by_8=True,
)
BACKBONES = {"official": "backbone.", "encoding": "pretrained."}
PARTS = {
    "official": ("backbone.", "head.", "auxiliary."),
    "encoding": ("pretrained.", "head.", "auxlayer."),
    "smp": ("encoder.", "decoder.", "segmentation_head."),
}
MARKS = {"official": ("head.predict.logits.",), "encoding": ("head.aspp.b0.", "head.conv5.")}
PREDICTORS = re.compile(r"(head|auxiliary)\.predict\.logits\.")
LEVEL = re.compile(r"head\.pyramid\.\d+\.conv\.weight")


def recognise(names: Iterable[str]) -> str | None:
    """The layout of a segmenter, by the names of its head; None if it has no known one."""
    listed = list(names)
    for layout, prefix in BACKBONES.items():
        if any(name.startswith(prefix) for name in listed) and any(name.startswith(MARKS[layout]) for name in listed):
            return layout
    return "smp" if is_smp(listed) else None


def to_ours(state: Mapping[str, Tensor], layout: str) -> Translated:
    """A complete segmenter under our names; what belongs to no part of one, such as a loss, is separated.

    Raises:
        ResnestError: an unknown tensor in a part: its head has another structure.
    """
    state = {name: tensor for name, tensor in state.items() if not IGNORED.search(name)}
    kind = _kind(state, layout)
    if layout == "smp":
        _check_encoder(state)
        state = {name: tensor for name, tensor in state.items() if not is_unused(name, kind)}
    translator = KeyMap(_rules(layout, kind))
    result = Translated({}, layout)
    for name, tensor in state.items():
        ours = translator.to_ours(name)
        if ours is not None:
            result.state[ours] = tensor
        elif name.startswith(PARTS[layout]):
            raise ResnestError(f"{name} does not exist in our segmenters: the part it belongs to is built differently")
        else:
            result.aside.append(name)
    return result


def from_ours(state: Mapping[str, Tensor], layout: str) -> dict[str, Tensor]:
    """A complete segmenter under the names of `layout`.

    Raises:
        ResnestError: the layout cannot hold it.
    """
    kind = _kind(state)
    refuse = {"encoding": _refusal, "smp": smp_refusal}.get(layout)
    reason = refuse(state, kind) if refuse else None
    if reason:
        raise ResnestError(f"the {layout} layout cannot hold this segmenter: it has {reason}")
    translator = KeyMap(_rules(layout, kind))
    result = {}
    for name, tensor in state.items():
        theirs = translator.to_theirs(name)
        if theirs is None:
            raise ResnestError(f"{name} is no part of a segmenter of ours")
        result[theirs] = tensor
    return result | (unused_tensors(result, kind) if layout == "smp" else {})


def _rules(layout: str, kind: Head) -> Rules:
    if layout == "official":
        return [(f"{part}.{{any}}", f"{part}.{{any}}") for part in ("backbone", "head", "auxiliary")]
    if layout == "smp":
        return smp_rules(kind)
    rules: Rules = [("backbone.{any}", "pretrained.{any}"), *_predictor("auxiliary", "auxlayer.conv5")]
    if kind == "fcn":
        return [*rules, *_predictor("head", "head.conv5")]
    if kind == "psp":
        pyramid = conv_norm("head.pyramid.{i}", "head.conv5.0.conv{i+1}.0", "head.conv5.0.conv{i+1}.1")
        return [*rules, *pyramid, *_predictor("head", "head.conv5", first=1)]
    return [
        *rules,
        *conv_norm("head.aspp.branches.{i}", "head.aspp.b{i}.0", "head.aspp.b{i}.1"),
        *conv_norm("head.aspp.image", "head.aspp.b4.gap.1", "head.aspp.b4.gap.2"),
        *conv_norm("head.aspp.project", "head.aspp.project.0", "head.aspp.project.1"),
        *_predictor("head", "head.block"),
    ]


def _predictor(ours: str, theirs: str, first: int = 0) -> Rules:
    """Rules for a list of convolution, norm, ReLU, dropout, convolution, optionally with a module before it."""
    rules = conv_norm(f"{ours}.predict.conv", f"{theirs}.{first}", f"{theirs}.{first + 1}")
    return [*rules, (f"{ours}.predict.logits.{{leaf}}", f"{theirs}.{first + 4}.{{leaf}}")]


def _kind(state: Mapping[str, Tensor], layout: str = "official") -> Head:
    """The head, by the names of a layout."""
    if layout == "smp":
        return smp_head(state)
    kinds: dict[Head, tuple[str, ...]] = {
        "deeplabv3plus": ("head.low.",),
        "deeplabv3": ("head.aspp.",),
        "unet": ("head.steps.",),
        "unetplusplus": ("head.nodes.",),
        "fpn": ("head.branches.",),
        "upernet": ("head.fuse.",),
        "psp": ("head.pyramid.", "head.conv5.0.conv1."),
    }
    return next((kind for kind, marks in kinds.items() if any(name.startswith(marks) for name in state)), "fcn")


def _check_encoder(state: Mapping[str, Tensor]) -> None:
    """Raises ResnestError if the encoder of a network of smp is no ResNeSt."""
    encoder = {name.removeprefix("encoder.").removeprefix("model."): tensor for name, tensor in state.items()}
    encoder = {name: encoder[name] for name, whole in zip(encoder, state, strict=True) if whole.startswith("encoder.")}
    if layouts.recognise(encoder) is None:
        raise ResnestError(
            f"it is a {TITLES[smp_head(state)]} of segmentation_models_pytorch on an encoder that is no ResNeSt:"
            f" {looks_like(encoder)}"
        )
    stages = sum(f"layer{stage}.0.conv1.weight" in encoder for stage in range(1, 5))
    if stages < 4:
        raise ResnestError(f"its encoder has depth {stages + 1}: ours have 5, with the stem and four stages")


def misfit(net: nn.Module, whole: Translated, raw: RawCheckpoint) -> str | None:
    """Why a file's segmenter is another one: its head, its network, or what its own settings say."""
    spec, backbone = getattr(net, "spec", None), getattr(net.get_submodule("backbone"), "spec", None)
    if not isinstance(spec, SegmenterSpec) or not isinstance(backbone, Spec):
        return None
    kind = _kind(whole.state)
    if kind != spec.head:
        return f"the file's head is {TITLES[kind]}, this one's is {spec.title}: build it with segmenter.head={kind}"
    body = {name.removeprefix("backbone."): one for name, one in whole.state.items() if name.startswith("backbone.")}
    seen = read_structure(body, str(raw.path))
    if not same_tensors(seen.spec, backbone):
        theirs, ours = (" or ".join(published_as(one)) or "a free structure" for one in (seen.spec, backbone))
        if theirs != ours:
            return f"the file's network is {theirs}, this one's is {ours}"
    return smp_misfit(spec, raw.path.parent) if whole.layout == "smp" else None


def _refusal(state: Mapping[str, Tensor], kind: Head) -> str | None:
    """What PyTorch-Encoding cannot build of a spec, if anything."""
    if kind not in ("deeplabv3", "fcn", "psp"):
        return f"a decoder ({TITLES[kind]}), of which it knows nothing"
    if "head.predict.conv.norm.running_mean" not in state:
        return "a head without batch-norm, it builds no other"
    if kind == "psp" and (levels := sum(bool(LEVEL.fullmatch(name)) for name in state)) != 4:
        return f"a pyramid of {levels} levels, it builds 4"
    width, last = state["head.predict.conv.conv.weight"].shape[0], state["backbone.layer4.0.conv3.weight"].shape[0]
    usual = last // (8 if kind == "deeplabv3" else 4)
    return None if width == usual else f"{width} channels in its head, it builds {usual}"


def class_rows(state: Mapping[str, Tensor], classes: Sequence[Hashable]) -> dict[str, Sequence[Hashable]]:
    """What the rows of each predictor stand for."""
    return {name: classes for name in state if PREDICTORS.match(name)}


WEIGHTS = Parts(
    what="segmenter",
    layouts={"official": LAYOUTS["official"], "encoding": LAYOUTS["encoding"], "smp": SMP},
    recognise=recognise,
    to_ours=to_ours,
    from_ours=from_ours,
    rows=class_rows,
    optional=(Part("auxiliary", re.compile(r"^auxiliary\.")),),
    misfit=misfit,
)

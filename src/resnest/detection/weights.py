"""Weights of a detector: conversion of tensor names to and from detectron2 and torchvision.

    report = WEIGHTS.load(net, "mask_cascade_rcnn_ResNeSt_50.pth")      # or a classifier's, into the backbone
    print(report)                                  # detectron2 layout: 623 tensors matched

    name = recognise(state)                        # "official" (ours), "detectron2", "torchvision", or None
    ours = to_ours(state, name)
    state = from_ours(ours.state, "torchvision")

Ours are the pivot: `backbone`, `fpn`, `rpn`, `box_heads.0` to `.2`, `mask_head` and a panoptic one's `semantic`, with
the background as the last class. Sources: detectron2, fpn.py, rpn.py, box_head.py, fast_rcnn.py, cascade_rcnn.py,
mask_head.py and semantic_seg.py; torchvision, models/detection/faster_rcnn.py, mask_rcnn.py and rpn.py. Both flatten a
box head's input as (C, H, W), and order anchors by ratio and their deltas as x, y, w, h, as ours do; what differs is
the place of the background.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from resnest.checkpoints import layouts
from resnest.checkpoints.layouts import COUNTER, LAYOUTS, Layout, Translated, from_official, to_official
from resnest.checkpoints.multipart import KeyMap, Part, Parts, Rules, conv_norm
from resnest.checkpoints.structure import looks_like
from resnest.errors import ResnestError

TORCHVISION = Layout(name="torchvision", who="torchvision's detectors", prefix="backbone.body.", head=None)
WHOLE = {"official": LAYOUTS["official"], "detectron2": LAYOUTS["detectron2"], "torchvision": TORCHVISION}
BACKBONES = {"official": "backbone.", "detectron2": "backbone.bottom_up.", "torchvision": "backbone.body."}
HEADS = ("fpn", "rpn", "box_heads", "mask_head", "semantic")  # of a detector, beside its backbone
# not trained: anchors, and the mean and deviation of pixels
CONSTANTS = re.compile(r"(proposal_generator\.anchor_generator\.cell_anchors\.\d+|pixel_mean|pixel_std)")
PREDICTORS = re.compile(
    r"box_heads\.\d\.(?P<box>score|deltas)\.(?!temperature)|(?P<part>mask_head|semantic)\.logits\."
)  # of classes
COUNTS = {
    "the federated loss": re.compile(r"class_loss\.images$"),
    "EQL v2": re.compile(r"class_loss\.(positive|negative)$"),
    "the Seesaw loss": re.compile(r"class_loss\.samples$"),
}
SEESAW = "box_heads.0.class_loss.samples"  # a detector with this has two outputs in place of the background's
NORMED = "box_heads.0.score.temperature"
MOST_LAYERS = 16  # fully connected ones of a box head


def recognise(names: Iterable[str]) -> str | None:
    """The layout of a detector, by the names of its RPN; None if it has none."""
    marks = {"official": "rpn.objectness.", "detectron2": "proposal_generator.rpn_head.", "torchvision": "rpn.head."}
    listed = list(names)
    return next((layout for layout, mark in marks.items() if any(name.startswith(mark) for name in listed)), None)


def to_ours(state: Mapping[str, Tensor], layout: str) -> Translated:
    """A complete detector under our names; further heads of other code, such as keypoints, are separated.

    Raises:
        ResnestError: its backbone is no ResNeSt, or an unknown tensor in a known part.
    """
    if layout == "torchvision":
        state = {_modern(name): tensor for name, tensor in state.items()}
    prefix = BACKBONES[layout]
    body = {name: tensor for name, tensor in state.items() if name.startswith(prefix)}
    rest = {name: tensor for name, tensor in state.items() if name not in body and not CONSTANTS.fullmatch(name)}
    result = Translated({f"backbone.{name}": tensor for name, tensor in _body_to_ours(body, layout).items()}, layout)
    translator = KeyMap(_rules(layout, _cascade(state), _box_convs(state)))
    for name, tensor in rest.items():
        ours = translator.to_ours(name)
        if ours is not None:
            result.state[ours] = _background_last(ours, tensor) if layout == "torchvision" else tensor
        elif _is_known_part(name):
            raise ResnestError(f"{name} does not exist in our detectors: {_advice(name)}")
        else:
            result.aside.append(name)
    return result


def from_ours(state: Mapping[str, Tensor], layout: str) -> dict[str, Tensor]:
    """A complete detector under the names of `layout`.

    torchvision's box head has deltas and masks for the background too, which nothing reads: they are zeros.

    Raises:
        ResnestError: the layout cannot hold it.
    """
    for strange, what in _only_here(state, layout):
        if strange:
            raise ResnestError(f"the {layout} layout cannot hold this detector: {layout} has no {what}")
    counters = WHOLE[layout].counters
    body = {name.removeprefix("backbone."): tensor for name, tensor in state.items() if name.startswith("backbone.")}
    result = {BACKBONES[layout] + name: tensor for name, tensor in _body_from_ours(body, layout).items()}
    translator = KeyMap(_rules(layout, _cascade(state), _box_convs(state)))
    for name, tensor in state.items():
        counted = layout != "official" and any(names.search(name) for names in COUNTS.values())
        if name.startswith("backbone.") or counted or (name.endswith(COUNTER) and not counters):
            continue
        theirs = translator.to_theirs(name)
        if theirs is None:
            raise ResnestError(f"{name} is no part of a detector of ours")
        result[theirs] = _background_first(name, tensor) if layout == "torchvision" else tensor
    return result


def _only_here(state: Mapping[str, Tensor], layout: str) -> Iterator[tuple[bool, str]]:
    """Whether a detector has it, and what it is, of all that `layout` lacks."""
    if layout == "torchvision":
        yield _cascade(state), "Cascade R-CNN"
        yield "semantic.logits.weight" in state, "Panoptic FPN"
    if layout != "official":
        yield NORMED in state, "normalised classifier"
        for loss, names in COUNTS.items():
            if (loss, layout) != ("the federated loss", "detectron2"):  # its use_fed_loss and use_sigmoid_ce
                yield any(names.search(name) for name in state), loss.removeprefix("the ")


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


# --- rules ---


def _rules(layout: str, cascade: bool, box_convs: int) -> Rules:
    if layout == "official":
        return [(f"{part}.{{any}}", f"{part}.{{any}}") for part in HEADS]
    return _detectron2(cascade) if layout == "detectron2" else _torchvision(box_convs)


def _detectron2(cascade: bool) -> Rules:
    ours, stage = ("box_heads.{s}", "{s}.") if cascade else ("box_heads.0", "")
    box, predictor = f"roi_heads.box_head.{stage}", f"roi_heads.box_predictor.{stage}"
    return [
        *conv_norm("fpn.lateral.{i}", "backbone.fpn_lateral{i+2}", "backbone.fpn_lateral{i+2}.norm"),
        *conv_norm("fpn.output.{i}", "backbone.fpn_output{i+2}", "backbone.fpn_output{i+2}.norm"),
        ("rpn.conv.{leaf}", "proposal_generator.rpn_head.conv.{leaf}"),
        ("rpn.objectness.{leaf}", "proposal_generator.rpn_head.objectness_logits.{leaf}"),
        ("rpn.deltas.{leaf}", "proposal_generator.rpn_head.anchor_deltas.{leaf}"),
        *conv_norm(f"{ours}.convs.{{j}}", f"{box}conv{{j+1}}", f"{box}conv{{j+1}}.norm"),
        (f"{ours}.fcs.{{j}}.{{leaf}}", f"{box}fc{{j+1}}.{{leaf}}"),
        (f"{ours}.score.{{leaf}}", f"{predictor}cls_score.{{leaf}}"),
        (f"{ours}.deltas.{{leaf}}", f"{predictor}bbox_pred.{{leaf}}"),
        *conv_norm(
            "mask_head.convs.{j}", "roi_heads.mask_head.mask_fcn{j+1}", "roi_heads.mask_head.mask_fcn{j+1}.norm"
        ),
        ("mask_head.upsample.{leaf}", "roi_heads.mask_head.deconv.{leaf}"),
        ("mask_head.logits.{leaf}", "roi_heads.mask_head.predictor.{leaf}"),
        *_semantic(),
    ]


def _semantic() -> Rules:
    """For P3 to P5, each convolution of the branch comes before an upsampling, which has a number too."""
    steps = [(level, step) for level in range(4) for step in range(max(1, level))]
    rules: Rules = [("semantic.logits.{leaf}", "sem_seg_head.predictor.{leaf}")]
    for level, step in steps:
        theirs = f"sem_seg_head.p{level + 2}.{2 * step}"
        rules += conv_norm(f"semantic.scale.{level}.{step}", theirs, f"{theirs}.norm")
    return rules


def _torchvision(box_convs: int) -> Rules:
    """With convolutions, torchvision's box head is a list in which Flatten and every ReLU have a number too."""
    fcs: Rules = [("box_heads.0.fcs.0.{leaf}", "roi_heads.box_head.fc6.{leaf}")]
    fcs += [("box_heads.0.fcs.1.{leaf}", "roi_heads.box_head.fc7.{leaf}")]
    if box_convs:
        fcs = [
            (f"box_heads.0.fcs.{layer}.{{leaf}}", f"roi_heads.box_head.{box_convs + 1 + 2 * layer}.{{leaf}}")
            for layer in range(MOST_LAYERS)
        ]
    return [
        *conv_norm("fpn.lateral.{i}", "backbone.fpn.inner_blocks.{i}.0", "backbone.fpn.inner_blocks.{i}.1"),
        *conv_norm("fpn.output.{i}", "backbone.fpn.layer_blocks.{i}.0", "backbone.fpn.layer_blocks.{i}.1"),
        ("rpn.conv.{leaf}", "rpn.head.conv.0.0.{leaf}"),
        ("rpn.objectness.{leaf}", "rpn.head.cls_logits.{leaf}"),
        ("rpn.deltas.{leaf}", "rpn.head.bbox_pred.{leaf}"),
        *conv_norm("box_heads.0.convs.{j}", "roi_heads.box_head.{j}.0", "roi_heads.box_head.{j}.1"),
        *fcs,
        ("box_heads.0.score.{leaf}", "roi_heads.box_predictor.cls_score.{leaf}"),
        ("box_heads.0.deltas.{leaf}", "roi_heads.box_predictor.bbox_pred.{leaf}"),
        *conv_norm("mask_head.convs.{j}", "roi_heads.mask_head.{j}.0", "roi_heads.mask_head.{j}.1"),
        ("mask_head.upsample.{leaf}", "roi_heads.mask_predictor.conv5_mask.{leaf}"),
        ("mask_head.logits.{leaf}", "roi_heads.mask_predictor.mask_fcn_logits.{leaf}"),
    ]


# --- what states say of themselves ---


def _cascade(state: Mapping[str, Tensor]) -> bool:
    return "box_heads.1.score.weight" in state or "roi_heads.box_predictor.1.cls_score.weight" in state


def _box_convs(state: Mapping[str, Tensor]) -> int:
    """Number of convolutions of the box head, which offsets the layers' numbers in torchvision's."""
    forms = ("box_heads.0.convs.{}.conv.weight", "roi_heads.box_head.{}.0.weight")
    return max(next(count for count in range(len(state) + 1) if form.format(count) not in state) for form in forms)


def _modern(name: str) -> str:
    """Names of torchvision before 0.13, with plain convolutions in pyramids and heads, translated to the current ones.

    >>> _modern("backbone.fpn.inner_blocks.1.weight"), _modern("roi_heads.mask_head.mask_fcn2.bias")
    ('backbone.fpn.inner_blocks.1.0.weight', 'roi_heads.mask_head.1.0.bias')
    """
    if match := re.fullmatch(r"roi_heads\.mask_head\.mask_fcn(\d+)\.(weight|bias)", name):
        return f"roi_heads.mask_head.{int(match[1]) - 1}.0.{match[2]}"
    name = re.sub(r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$", r"\1.0.\2", name)
    return re.sub(r"^rpn\.head\.conv\.(weight|bias)$", r"rpn.head.conv.0.0.\1", name)


def _is_known_part(name: str) -> bool:
    """Whether a name without a rule is in a known part; leaving it out would change that part's output."""
    known = ("backbone.", "fpn.", "rpn.", "proposal_generator.", "box_heads.", "mask_head.")
    return name.startswith((*known, "roi_heads.box_", "roi_heads.mask_"))


def _advice(name: str) -> str:
    if name.startswith("rpn.head.conv."):
        return "its proposal network has several convolutions (torchvision's v2), ours has one"
    return "the part it belongs to is built in another way there"


# --- the background class ---


def _background_last(ours: str, tensor: Tensor) -> Tensor:
    """Reorder a predictor's rows from torchvision's order, background first, without unused ones."""
    if re.match(r"box_heads\.0\.score\.", ours):
        return tensor.roll(-1, 0)
    if re.match(r"box_heads\.0\.deltas\.", ours):
        return tensor[4:]
    return tensor[1:] if ours.startswith("mask_head.logits.") else tensor


def _background_first(ours: str, tensor: Tensor) -> Tensor:
    if re.match(r"box_heads\.0\.score\.", ours):
        return tensor.roll(1, 0)
    rows = 4 if re.match(r"box_heads\.0\.deltas\.", ours) else 1 if ours.startswith("mask_head.logits.") else 0
    return torch.cat([tensor.new_zeros(rows, *tensor.shape[1:]), tensor]) if rows else tensor


def class_rows(state: Mapping[str, Tensor], classes: Sequence[Hashable]) -> dict[str, Sequence[Hashable]]:
    """What the rows of each class predictor stand for: a class, a side of its boxes, the background, or any object.

    The classes of a panoptic detector are things, then stuff.
    """
    if "box_heads.0.score.weight" not in state:
        return {}
    seesaw = SEESAW in state
    things = len(state["box_heads.0.score.weight"]) - (2 if seesaw else 1)
    objects, stuff = classes[:things], classes[things:]
    boxes = ["any object"] if _cascade(state) else objects  # a cascade's boxes are those of any class
    kinds: dict[str, Sequence[Hashable]] = {
        "score": [*objects, *(("object", "no object") if seesaw else ("background",))],
        "deltas": [(what, side) for what in boxes for side in range(4)],
        "mask_head": objects,
        "semantic": ["any object", *stuff],
    }
    matches = {name: PREDICTORS.match(name) for name in state}
    return {name: kinds[match["box"] or match["part"]] for name, match in matches.items() if match}


WEIGHTS = Parts(
    what="detector",
    layouts=WHOLE,
    recognise=recognise,
    to_ours=to_ours,
    from_ours=from_ours,
    rows=class_rows,
    optional=(
        Part("mask_head", re.compile(r"^mask_head\.")),
        *(Part(f"what {loss} counts in training", pattern) for loss, pattern in COUNTS.items()),
        Part("semantic", re.compile(r"^semantic\.")),
        # what a deformable convolution has more than a plain one: zero where the file has none
        Part("deformable offsets", re.compile(r"\.offset_(weight|bias)$"), in_backbone=True),
    ),
)

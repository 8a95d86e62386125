"""The names of an R-CNN's tensors: ours, and those of detectron2 and torchvision.

Ours are `fpn`, `rpn`, `box_heads.0` to `.2`, `mask_head` and a panoptic one's `semantic`, with the background as the
last class. Sources: detectron2, fpn.py, rpn.py, box_head.py, fast_rcnn.py, cascade_rcnn.py, mask_head.py and
semantic_seg.py; torchvision, models/detection/faster_rcnn.py, mask_rcnn.py and rpn.py. Both flatten a box head's input
as (C, H, W), and order anchors by ratio and their deltas as x, y, w, h, as ours do; what differs is the place of the
background.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from resnest.checkpoints.multipart import Rules, conv_norm
from resnest.detection.naming import Naming, State, no_advice

PREDICTORS = re.compile(
    r"box_heads\.\d\.(?P<box>score|deltas)\.(?!temperature)|(?P<part>mask_head|semantic)\.logits\."
)  # of classes
LOSS_COUNTS = {
    "the federated loss": re.compile(r"class_loss\.images$"),
    "EQL v2": re.compile(r"class_loss\.(positive|negative)$"),
    "the Seesaw loss": re.compile(r"class_loss\.samples$"),
}
SEESAW = "box_heads.0.class_loss.samples"  # a detector with this has two outputs in place of the background's
NORMED = "box_heads.0.score.temperature"
MOST_LAYERS = 16  # fully connected ones of a box head


def _rules(layout: str, state: State) -> Rules:
    return _detectron2(_cascade(state)) if layout == "detectron2" else _torchvision(_box_convs(state))


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


def _cascade(state: State) -> bool:
    return "box_heads.1.score.weight" in state or "roi_heads.box_predictor.1.cls_score.weight" in state


def _box_convs(state: State) -> int:
    """Number of convolutions of the box head, which offsets the layers' numbers in torchvision's."""
    forms = ("box_heads.0.convs.{}.conv.weight", "roi_heads.box_head.{}.0.weight")
    return max(next(count for count in range(len(state) + 1) if form.format(count) not in state) for form in forms)


def _advice(name: str) -> str:
    if name.startswith("rpn.head.conv."):
        return "its proposal network has several convolutions (torchvision's v2), ours has one"
    return no_advice(name)


# --- the background class ---


def _background_last(ours: str, tensor: Tensor, state: State) -> Tensor:
    """Reorder a predictor's rows from torchvision's order, background first, without unused ones."""
    if re.match(r"box_heads\.0\.score\.", ours):
        return tensor.roll(-1, 0)
    if re.match(r"box_heads\.0\.deltas\.", ours):
        return tensor[4:]
    return tensor[1:] if ours.startswith("mask_head.logits.") else tensor


def _background_first(ours: str, tensor: Tensor, state: State) -> Tensor:
    if re.match(r"box_heads\.0\.score\.", ours):
        return tensor.roll(1, 0)
    rows = 4 if re.match(r"box_heads\.0\.deltas\.", ours) else 1 if ours.startswith("mask_head.logits.") else 0
    return torch.cat([tensor.new_zeros(rows, *tensor.shape[1:]), tensor]) if rows else tensor


def class_rows(state: State, classes: Sequence[Hashable]) -> dict[str, Sequence[Hashable]]:
    """What the rows of each class predictor stand for: a class, a side of its boxes, the background, or any object.

    The classes of a panoptic detector are things, then stuff.
    """
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


def _refusal(layout: str, state: State) -> str | None:
    if layout == "torchvision" and _cascade(state):
        return "Cascade R-CNN"
    if layout == "torchvision" and "semantic.logits.weight" in state:
        return "Panoptic FPN"
    if NORMED in state:
        return "normalised classifier"
    for loss, names in LOSS_COUNTS.items():
        there = (loss, layout) == ("the federated loss", "detectron2")  # its use_fed_loss and use_sigmoid_ce
        if not there and any(names.search(name) for name in state):
            return loss.removeprefix("the ")
    return None


NAMING = Naming(
    parts=("fpn", "rpn", "box_heads", "mask_head", "semantic"),
    known=("fpn.", "rpn.", "proposal_generator.", "box_heads.", "mask_head.", "roi_heads.box_", "roi_heads.mask_"),
    marks={
        "official": ("rpn.objectness.",),
        "detectron2": ("proposal_generator.rpn_head.",),
        "torchvision": ("rpn.head.",),
    },
    rules=_rules,
    rows=class_rows,
    from_torchvision=_background_last,
    to_torchvision=_background_first,
    refusal=_refusal,
    advice=_advice,
    counts=tuple(LOSS_COUNTS.values()),
)

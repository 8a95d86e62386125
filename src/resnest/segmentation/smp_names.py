"""Segmenters of segmentation_models_pytorch (smp) under our names: U-Net, U-Net++, FPN, UPerNet and DeepLabV3.

    head = smp_head(state)                          # "unet"; raises ResnestError for a decoder that we do not have
    rules = smp_rules(head)                         # for a `KeyMap`
    problem = smp_misfit(spec, folder)              # what the config.json of `save_pretrained` tells, or None

There a network is `encoder`, `decoder` and `segmentation_head`. The encoder's tensors begin with `encoder.`, since smp
0.4 with `encoder.model.`. Structures are those of smp 0.6; its interpolation, output stride and dilation rates do not
show in the tensors.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resnest.checkpoints.multipart import Rules, conv_norm
from resnest.errors import ResnestError
from resnest.segmentation.spec import Head, SegmenterSpec

MARKS = ("encoder.", "decoder.", "segmentation_head.0.")
DECODERS: tuple[tuple[Head, tuple[str, ...]], ...] = (  # by names that only this one has
    ("unetplusplus", ("decoder.blocks.x_0_0.",)),
    ("upernet", ("decoder.fpn_lateral_blocks.",)),
    ("fpn", ("decoder.seg_blocks.",)),
    ("unet", ("decoder.blocks.0.conv1.",)),
    ("deeplabv3", ("decoder.aspp.convs.", "decoder.0.convs.")),
)
OTHERS = {  # decoders that we do not have, in this order
    "MAnet": ("decoder.blocks.0.hl_conv.", "decoder.center.top_conv."),
    "Linknet": ("decoder.blocks.0.block.",),
    "PAN": ("decoder.fpa.", "decoder.gau3."),
    "DeepLabV3Plus": ("decoder.block1.", "decoder.aspp.0."),
    "Segformer": ("decoder.mlp_stage.",),
    "DPT": ("decoder.reassemble_blocks.", "decoder.projection_blocks.", "decoder.fusion_blocks."),
    "PSPNet": ("decoder.psp.",),
}
UNUSED = "decoder.blocks.{}.attention1."  # of the last step, which has nothing to append: it is there, and never runs
LAST = {"unet": UNUSED.format(4), "unetplusplus": UNUSED.format("x_0_4")}


def is_smp(names: Iterable[str]) -> bool:
    """Whether a network of smp has these names."""
    listed = list(names)
    return all(any(name.startswith(mark) for name in listed) for mark in MARKS)


def smp_head(names: Iterable[str]) -> Head:
    """Our name of its decoder. Raises ResnestError, with smp's name, if it is none of ours."""
    listed = list(names)

    def has(marks: tuple[str, ...]) -> bool:
        return any(name.startswith(marks) for name in listed)

    found = next((head for head, marks in DECODERS if has(marks)), None)
    other = next((title for title, marks in OTHERS.items() if has(marks)), "")
    separable = found == "deeplabv3" and any(".convs.1.0.1." in name for name in listed)
    if found and not separable and other not in ("MAnet", "DeepLabV3Plus"):
        return found
    title = other or ("DeepLabV3 with separable convolutions" if separable else "network of another decoder")
    raise ResnestError(
        f"it is a {title} of segmentation_models_pytorch: its unet, unetplusplus, fpn, upernet and deeplabv3 are read;"
        " `resnest.adapters.smp` puts our networks below the others"
    )


def smp_rules(head: Head) -> Rules:
    """Names of a segmenter with this head, ours and smp's."""
    rules: Rules = [
        ("backbone.{any}", "encoder.model.{any}"),
        ("backbone.{any}", "encoder.{any}"),
        ("head.predict.logits.{leaf}", "segmentation_head.0.{leaf}"),
    ]
    return [*rules, *RULES[head]]


def _pair(ours: str, theirs: str) -> Rules:
    return conv_norm(ours, f"{theirs}.0", f"{theirs}.1")


def _step(ours: str, theirs: str) -> Rules:
    """Of a step of the U-Nets."""
    rules = [*_pair(f"{ours}.conv1", f"{theirs}.conv1"), *_pair(f"{ours}.conv2", f"{theirs}.conv2")]
    for part, inner in (("reduce", "cSE.1"), ("expand", "cSE.3"), ("pixels", "sSE.0")):
        one = "attention{a}"
        rules.append((f"{ours}.{one}.{part}.{{leaf}}", f"{theirs}.{one}.attention.{inner}.{{leaf}}"))
    return rules


def _aspp(aspp: str, conv: str, norm: str) -> Rules:
    return [
        *conv_norm("head.aspp.image", f"{aspp}.convs.4.1", f"{aspp}.convs.4.2"),
        *_pair("head.aspp.branches.{i}", f"{aspp}.convs.{{i}}"),
        *_pair("head.aspp.project", f"{aspp}.project"),
        *conv_norm("head.predict.conv", conv, norm),
    ]


RULES: dict[Head, Rules] = {
    "unet": _step("head.steps.{i}", "decoder.blocks.{i}"),
    "unetplusplus": _step("head.nodes.{i}_{j}", "decoder.blocks.x_{i}_{j}"),
    "fpn": [
        ("head.lateral.0.{leaf}", "decoder.p5.{leaf}"),
        *((f"head.lateral.{index}.{{leaf}}", f"decoder.p{5 - index}.skip_conv.{{leaf}}") for index in (1, 2, 3)),
        *_pair("head.branches.{i}.convs.{j}", "decoder.seg_blocks.{i}.block.{j}.block"),
    ],
    "upernet": [
        ("head.norms.{i}.{leaf}", "decoder.feature_norms.{i}.{leaf}"),
        *_pair("head.pyramid.{i}", "decoder.psp.blocks.{i}.1"),
        *_pair("head.pooled", "decoder.psp.out_conv"),
        *_pair("head.lateral.{i}", "decoder.fpn_lateral_blocks.{i}.conv_norm_relu"),
        *_pair("head.output.{i}", "decoder.fpn_conv_blocks.{i}"),
        *_pair("head.fuse", "decoder.fusion_block"),
    ],
    # before smp 0.5 it was a list
    "deeplabv3": [
        *_aspp("decoder.aspp", "decoder.conv", "decoder.bn"),
        *_aspp("decoder.0", "decoder.1", "decoder.2"),
    ],
}


def is_unused(name: str, head: Head) -> bool:
    """Whether a tensor of smp takes part in no computation."""
    return head in LAST and name.startswith(LAST[head])


def unused_tensors(state: Mapping[str, Tensor], head: Head) -> dict[str, Tensor]:
    """What smp has in the last step of a U-Net with attention, and never uses; `state` has its names."""
    first = LAST.get(head, "").replace("attention1", "conv1") + "0.weight"
    if first not in state or not any(".attention2.attention.cSE." in name for name in state):
        return {}
    channels = state[first].shape[1]
    inner, place = channels // 16, f"{LAST[head]}attention."
    shapes = {"cSE.1": (inner, channels), "cSE.3": (channels, inner), "sSE.0": (1, channels)}
    weights = {f"{place}{part}.weight": torch.zeros(*shape, 1, 1) for part, shape in shapes.items()}
    return weights | {f"{place}{part}.bias": torch.zeros(shape[0]) for part, shape in shapes.items()}


def smp_refusal(state: Mapping[str, Tensor], head: Head) -> str | None:
    """What smp cannot build of a segmenter of ours, if anything."""
    if head not in RULES:
        return f"a head that it builds otherwise ({head})"
    if any(name.startswith("auxiliary.") for name in state):
        return "an auxiliary head, of which it knows nothing: build it with aux=0"
    grouped = any(name.startswith("head.") and name.endswith("norm.weight") for name in state) and not any(
        name.startswith("head.") and name.endswith("running_mean") for name in state
    )
    if head == "fpn":
        return None if grouped else "an FPN without group norm, it builds no other"
    return f"group norm in its {head}, it has batch norm there" if grouped and head != "upernet" else None


def smp_misfit(spec: SegmenterSpec, folder: Path) -> str | None:
    """Why a network of smp does not compute what a segmenter of this structure does, as far as tensors do not tell.

    Args:
        folder: of the checkpoint; the config.json that smp's `save_pretrained` writes may be in it.
    """
    if spec.stride != 32 and spec.dilation != "timm":
        return (
            f"it dilates as timm, this segmenter at output stride {spec.stride} as the official code: build it with"
            " segmenter.dilation=timm"
        )
    told = _config(folder)
    stride = told.get("encoder_output_stride", told.get("output_stride", spec.stride))
    wanted: dict[str, tuple[Any, Any]] = {  # as it is there, as it is here
        "output_stride": (stride, spec.stride),
        "encoder_depth": (told.get("encoder_depth", 5), 5),
        "decoder_interpolation": (told.get("decoder_interpolation", "nearest"), "nearest"),
        "decoder_merge_policy": (told.get("decoder_merge_policy", "add"), "add"),
    }
    if spec.head == "deeplabv3":
        wanted["decoder_atrous_rates"] = (
            list(told.get("decoder_atrous_rates", spec.branch_rates)),
            [*spec.branch_rates],
        )
    for name, (theirs, ours) in wanted.items():
        if theirs != ours:
            return f"its config.json has {name}={theirs}, and this segmenter {ours}"
    return None


def _config(folder: Path) -> dict[str, Any]:
    """The arguments of a network that smp saved; empty without."""
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) and "_model_class" in content else {}

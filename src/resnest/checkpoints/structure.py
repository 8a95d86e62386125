"""The structure of a network from the shapes of its tensors (official names).

    seen = read_structure(state)                   # spec, input channels, classes
    published_as(seen.spec)                        # ["resnest50", "resnest50_fast_2s1x64d"]

Whether a network pools before or after its 3x3 (`avd_first`) does not show in the weights, so two published networks
have the same names and shapes: a file needs a known hash, metadata or its name from the user to distinguish them.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from resnest.errors import ResnestError
from resnest.spec import BASELINES, EXPANSION, PUBLISHED, Spec

# (a name that only this family has, what it is); the first that is found says what a strange file looks like
FAMILIES = (
    (r"(^|\.)cls_token$|patch_embed\.proj\.", "a vision transformer"),
    (r"relative_position_bias_table", "a Swin transformer"),
    (r"conv_stem\.weight$|_conv_stem\.|blocks\.\d+\.\d+\.conv_pw", "an EfficientNet"),
    (r"stages\.\d+\.blocks\.\d+\.(conv_dw|gamma)|dwconv\.weight$", "a ConvNeXt"),
    (r"denseblock\d", "a DenseNet"),
    (r"layer\d\.\d+\.se(_module)?\.", "a squeeze-and-excitation ResNet"),
    (r"roi_heads?\.|rpn_head\.|proposal_generator\.", "a detector with another backbone"),
    (r"^features\.\d+\.", "a VGG, AlexNet or MobileNet"),
    (r"^cifarresnet", "a Gluon ResNet for CIFAR"),
    (r"_batchnorm\d+_gamma$", "a Gluon network saved by its global names (use save_parameters, not collect_params)"),
    (r"stages\.\d+\.", "a timm network with stages"),
    (r"layer[1-4]\.\d+\.conv\d\.weight$", "a ResNet without deep stem and split attention"),
    (r"res[2-5]\.\d+\.conv\d\.weight$", "a detectron2 ResNet without split attention"),
    (r"encoder\.layers?\.\d+", "a transformer"),
)


@dataclass(frozen=True)
class Structure:
    """The structure visible in the tensors' shapes."""

    spec: Spec  # with avd_first=False, the published default, as tensors do not show it
    in_chans: int
    num_classes: int  # 0: a backbone without head


def looks_like(names: Iterable[str]) -> str:
    """A guess, for an error message, of a state that is no ResNeSt."""
    listed = list(names)
    for pattern, family in FAMILIES:
        if any(re.search(pattern, name) for name in listed):
            return f"it looks like {family}"
    return f"its tensors are called {', '.join(listed[:3])}{', ...' if len(listed) > 3 else ''}"


def read_structure(state: Mapping[str, Tensor], source: str = "the checkpoint") -> Structure:
    """The structure of a state with official names.

    Raises:
        ResnestError: no ResNeSt, or one with impossible or missing shapes.
    """
    empty = [name for name, tensor in state.items() if tensor.numel() == 0]
    if empty:
        raise ResnestError(f"{source} is not a complete ResNeSt: {empty[0]} is empty, {tuple(state[empty[0]].shape)}")
    try:
        spec, in_chans = _read_spec(state)
    except KeyError as error:
        raise ResnestError(f"{source} is not a complete ResNeSt: {error} is missing; {looks_like(state)}") from None
    except (IndexError, ZeroDivisionError, OverflowError):
        raise ResnestError(f"{source} is not a complete ResNeSt: its tensors have impossible shapes") from None
    head = state.get("fc.weight")
    if head is not None and head.ndim != 2:
        raise ResnestError(f"{source} is not a complete ResNeSt: fc.weight has the shape {tuple(head.shape)}")
    return Structure(spec, in_chans, 0 if head is None else int(head.shape[0]))


def published_as(spec: Spec) -> list[str]:
    """Names of the published networks and baselines that have these tensors."""
    nets = {**{name: net.spec for name, net in PUBLISHED.items()}, **BASELINES}
    return [name for name, known in nets.items() if _traceable(known) == _traceable(spec)]


def same_tensors(spec: Spec, other: Spec) -> bool:
    """Whether two structures have tensors of the same names and shapes."""
    return _traceable(spec) == _traceable(other)


def _traceable(spec: Spec) -> Spec:
    """The structure without fields that do not show in the weights."""
    norm = "batch" if spec.attention_norm == "frozen" else spec.attention_norm
    return dataclasses.replace(
        spec,
        avd=spec.radix > 0,
        avd_first=False,
        attention_norm=norm,
        drop_rate=0.0,
        drop_path_rate=0.0,
        drop_block_rate=0.0,
    )


def _read_spec(state: Mapping[str, Tensor]) -> tuple[Spec, int]:
    first = state["conv1.0.weight"] if "conv1.0.weight" in state else state["conv1.weight"]
    deep = "conv1.0.weight" in state
    depths = tuple(_count_blocks(state, stage) for stage in range(1, 5))
    ends = [state[f"layer{stage}.0.conv3.weight"] for stage in range(1, 5)]  # (4 * planes, C, 1, 1)
    channels = int(ends[0].shape[1])
    planes = tuple(int(end.shape[0]) // EXPANSION for end in ends)
    radix, groups = 0, 1
    if "layer1.0.conv2.weight" in state:
        groups = channels // int(state["layer1.0.conv2.weight"].shape[1])
    else:
        conv2 = state["layer1.0.conv2.conv.weight"]  # (R*C, C / (K*R), 3, 3)
        radix = int(conv2.shape[0]) // channels
        groups = channels // int(conv2.shape[1]) // max(radix, 1)
    layer_norm = radix > 0 and "layer1.0.conv2.bn1.running_mean" not in state
    spec = Spec(
        depths=depths,
        planes=planes,
        radix=radix,
        cardinality=groups,
        width=math.ceil(channels / groups * 64 / planes[0]),  # the smallest that gives C by the official rule
        stem="deep" if deep else "conv7" if first.shape[-1] == 7 else "small",
        stem_width=int(first.shape[0]) if deep else int(first.shape[0]) // 2,
        avd=radix > 0,
        attention_norm="layer" if layer_norm else "batch",
    )
    return spec, int(first.shape[1])


def _count_blocks(state: Mapping[str, Tensor], stage: int) -> int:
    blocks = 0
    while f"layer{stage}.{blocks}.conv1.weight" in state:
        blocks += 1
    return blocks

"""Checkpoint layouts: other code bases' names for a ResNeSt's tensors, and what each can hold (facts, section 1.8).

    layout, prefix = recognise(state)              # by the names alone
    official = to_official(state, layout, prefix)
    state = from_official(official.state, LAYOUTS["detectron2"])
    refusal(LAYOUTS["detectron2"], spec)           # a sentence, or None

The official names are the pivot: `conv1.0` to `conv1.6` and `bn1` are the stem, `layer1.0.conv2.fc1` a part of a
block, `fc` the head. A layout has its names of the modules of each, and the modules that it omits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from resnest.errors import ResnestError, unknown
from resnest.spec import Spec, attention_width

NORMS = frozenset(["bn1", "bn2", "bn3", "conv2.bn0", "conv2.bn1", "downsample.2", "conv1.1", "conv1.4"])
COUNTER = "num_batches_tracked"
OPENMMLAB_DEPTHS: dict[tuple[int, ...], int] = {
    (3, 4, 6, 3): 50,
    (3, 4, 23, 3): 101,
    (3, 8, 36, 3): 152,
    (3, 24, 36, 3): 200,
}
DEPTHS: dict[tuple[int, ...], int] = {**OPENMMLAB_DEPTHS, (3, 30, 48, 8): 269}
PLANES = (64, 128, 256, 512)
# PyTorch-Encoding keeps the state of its DropBlock schedule among the weights.
AVERAGED = re.compile(r"(^|[._])ema([._]|$)")  # a prefix of averaged weights
IGNORED = re.compile(r"\.dropblock\d\.(i|drop_prob)$")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A code base's names for the tensors, and the networks it can build."""

    name: str
    who: str  # whose layout it is
    stem: Mapping[str, str] = field(default_factory=dict)  # official module -> theirs, where they differ
    block: Mapping[str, str] = field(default_factory=dict)
    norm: Mapping[str, str] = field(default_factory=dict)  # leaf names of norms
    stage: str = "layer"
    first_stage: int = 1
    prefix: str = ""  # of the backbone in a whole model
    head: str | None = "fc"  # None: it holds backbones only
    counters: bool = True  # keeps `num_batches_tracked`, which no computation uses
    suffixes: tuple[str, ...] = (".safetensors", ".pth", ".pt", ".bin")
    # what its networks can be
    depths: Mapping[tuple[int, ...], int] | None = None
    smallest_radix: int = 0
    plain_below: int = 0  # a radix from 1 to this is built as a plain convolution there
    avd_first: bool = True
    any_width: bool = True  # with one cardinal group, a width other than 64
    any_channels: bool = False  # input other than RGB
    attention_by_8: bool = False  # rounds the attention's width to multiples of 8
    stem_by_depth: bool = False  # stem width 32 for depth 50, 64 for the others


_D2_STEM = {
    "conv1.0": "stem.conv1_1",
    "conv1.1": "stem.conv1_1.norm",
    "conv1.3": "stem.conv1_2",
    "conv1.4": "stem.conv1_2.norm",
    "conv1.6": "stem.conv1_3",
    "bn1": "stem.conv1_3.norm",
}
_D2_BLOCK = {
    "bn1": "conv1.norm",
    "bn2": "conv2.norm",
    "bn3": "conv3.norm",
    "downsample.1": "shortcut",
    "downsample.2": "shortcut.norm",
}
_MMPRETRAIN_STEM = {
    "conv1.0": "stem.0.conv",
    "conv1.1": "stem.0.bn",
    "conv1.3": "stem.1.conv",
    "conv1.4": "stem.1.bn",
    "conv1.6": "stem.2.conv",
    "bn1": "stem.2.bn",
}
_MMDET_STEM = {**{f"conv1.{index}": f"stem.{index}" for index in (0, 1, 3, 4, 6)}, "bn1": "stem.7"}

_ALL = (
    Layout(name="official", who="the official PyTorch code (and ours)"),
    Layout(name="timm", who="timm", any_channels=True, attention_by_8=True),
    Layout(
        name="gluon",
        who="MXNet Gluon",
        block={"conv2.bn0": "conv2.bn"},
        norm={"weight": "gamma", "bias": "beta"},
        counters=False,
        suffixes=(".params",),
    ),
    Layout(name="encoding", who="PyTorch-Encoding", plain_below=1),
    Layout(
        name="detectron2",
        who="the detectron2 fork",
        stem=_D2_STEM,
        block=_D2_BLOCK,
        stage="res",
        first_stage=2,
        prefix="backbone.bottom_up.",
        head=None,
        counters=False,
        suffixes=(".pth", ".pkl"),
        depths=DEPTHS,
        plain_below=1,
        avd_first=False,
        stem_by_depth=True,
    ),
    Layout(
        name="mmpretrain",
        who="mmpretrain",
        stem=_MMPRETRAIN_STEM,
        prefix="backbone.",
        head="head.fc",
        suffixes=(".pth",),
        depths=DEPTHS,
        smallest_radix=1,
        avd_first=False,
        any_width=False,
        any_channels=True,
    ),
    Layout(
        name="mmdetection",
        who="mmdetection and mmsegmentation",
        stem=_MMDET_STEM,
        prefix="backbone.",
        head=None,
        suffixes=(".pth",),
        depths=OPENMMLAB_DEPTHS,
        smallest_radix=1,
        avd_first=False,
        any_width=False,
        any_channels=True,
    ),
)
LAYOUTS = {layout.name: layout for layout in _ALL}
ALIASES = {"mmsegmentation": "mmdetection", "mmseg": "mmdetection", "mmdet": "mmdetection", "mmcls": "mmpretrain"}
ALIASES |= {"d2": "detectron2", "mxnet": "gluon", "gluoncv": "gluon", "resnest": "official"}


@dataclass
class Translated:
    """Tensors under official names, and the rest."""

    state: dict[str, Tensor]
    layout: str
    aside: list[str] = field(default_factory=list)  # of other parts of the model: detection heads and the like


def find_layout(name: str) -> Layout:
    """The layout by name or alias. Raises ResnestError for an unknown one."""
    base = ALIASES.get(name, name)
    if base not in LAYOUTS:
        raise unknown("layout", name, [*LAYOUTS, "mmsegmentation"])
    return LAYOUTS[base]


def recognise(names: Mapping[str, Tensor]) -> tuple[Layout, str] | None:
    """The layout of a checkpoint and the prefix of its backbone's names; None: not a ResNeSt of any.

    The timm and PyTorch-Encoding layouts have the official names. Averaged weights (EMA) go before others.

    Raises:
        ResnestError: two networks in one file, and nothing to choose by.
    """
    matches: list[tuple[Layout, str]] = []
    for layout in _ALL:
        first_conv = f"{layout.stage}{layout.first_stage}.0.conv1.weight"
        for prefix in {name.removesuffix(first_conv) for name in names if _ends(name, first_conv)}:
            if _is_layout(layout, prefix, names):
                matches.append((layout, prefix))
    network = choose_network(prefix for _, prefix in matches)
    chosen = [pair for pair in matches if pair[1] == network]
    if len({tuple(layout.stem.items()) for layout, _ in chosen}) > 1:
        raise ResnestError(f"it mixes the names of two code bases, {' and '.join(layout.name for layout, _ in chosen)}")
    return chosen[0] if chosen else None


def choose_network(prefixes: Iterable[str]) -> str | None:
    """The prefix of the one network in a file, that of the averaged weights if there are others; None without any.

    Raises:
        ResnestError: several, and nothing to choose by.
    """
    found = sorted(set(prefixes))
    chosen = [prefix for prefix in found if AVERAGED.search(prefix)] or found
    if len(chosen) > 1:
        listed = ", ".join(f"{prefix}*" for prefix in chosen[:4])
        raise ResnestError(f"it holds {len(chosen)} networks ({listed}): save the intended one alone")
    return chosen[0] if chosen else None


def to_official(state: Mapping[str, Tensor], layout: Layout, prefix: str) -> Translated:
    """Names of `layout` to official ones; unknown names stay, to be reported."""
    outer = prefix.removesuffix(layout.prefix)
    result = Translated({}, layout.name)
    for name, tensor in state.items():
        if IGNORED.search(name):
            continue
        if layout.prefix and name in (f"{outer}{layout.head}.weight", f"{outer}{layout.head}.bias"):
            official = "fc." + name.rsplit(".", 1)[1]
        elif name.startswith(prefix):
            official = _to_official(name.removeprefix(prefix), layout)
        else:
            result.aside.append(name)
            continue
        if official in result.state:
            raise ResnestError(f"it holds {official} twice, once as {name}: it mixes the names of two code bases")
        result.state[official] = tensor
    return result


def from_official(state: Mapping[str, Tensor], layout: Layout, *, bare: bool = False) -> dict[str, Tensor]:
    """Official names to those of `layout`; `bare` omits the prefix of a backbone inside a larger model.

    What the layout cannot hold must have been refused before: a head or counters are left out here.
    """
    prefix = "" if bare else layout.prefix
    renamed = {}
    for name, tensor in state.items():
        module, leaf = name.rsplit(".", 1)
        if leaf == COUNTER and not layout.counters:
            continue
        if module == "fc":
            if layout.head:
                renamed[f"{layout.head}.{leaf}"] = tensor
            continue
        renamed[prefix + _from_official(module, leaf, layout)] = tensor
    return renamed


def refusal(layout: Layout, spec: Spec, *, in_chans: int = 3, head: bool = False) -> str | None:
    """Why a layout cannot represent a network, as a sentence; None if it can."""
    reasons = (
        (spec.attention_norm == "layer", "attention_norm='layer', of which it knows nothing"),
        (spec.stem == "small", "stem='small', of which it knows nothing"),
        (spec.planes != PLANES, f"planes {spec.planes}, it builds {PLANES} only"),
        (layout.depths is not None and spec.stem == "conv7", "a 7x7 stem, its ResNeSts have the deep one"),
        (
            layout.depths is not None and spec.depths not in layout.depths,
            f"depths {spec.depths}, it knows {', '.join(map(str, (layout.depths or {}).values()))} layers",
        ),
        (
            1 <= spec.radix <= layout.plain_below,
            "radix 1, which it builds as a plain convolution: the attention's weights would be lost",
        ),
        (spec.radix < layout.smallest_radix, f"radix {spec.radix}, it builds split attention everywhere"),
        (spec.avd_first and not layout.avd_first, "pooling before the 3x3 (avd_first), it pools after it"),
        (
            not spec.avd and spec.radix > 0 and layout.depths is not None,
            "striding convolutions (avd=False), it pools instead",
        ),
        (
            spec.cardinality == 1 and spec.width != 64 and not layout.any_width,
            f"width {spec.width} with one cardinal group, it builds 64 then",
        ),
        (layout.attention_by_8 and not _attention_fits_8(spec), "an attention width that it rounds to a multiple of 8"),
        (
            layout.stem_by_depth and spec.stem_width != (32 if spec.depths == (3, 4, 6, 3) else 64),
            f"stem width {spec.stem_width}, it builds 32 for 50 layers and 64 for more",
        ),
        (in_chans != 3 and not layout.any_channels, f"{in_chans} input channels, it reads RGB only"),
        (head and layout.head is None, "a classifier (fc.weight, fc.bias), it keeps backbones only"),
    )
    met = [reason for applies, reason in reasons if applies]
    return f"the {layout.name} layout cannot hold this network: it has {'; and '.join(met)}" if met else None


def _is_layout(layout: Layout, prefix: str, names: Mapping[str, Tensor]) -> bool:
    first = layout.stem.get("conv1.0", "conv1.0")
    if f"{prefix}{first}.weight" not in names and (layout.stem or f"{prefix}conv1.weight" not in names):
        return False
    block = f"{prefix}{layout.stage}{layout.first_stage}.0."
    if f"{block}{layout.block.get('bn1', 'bn1')}.{layout.norm.get('weight', 'weight')}" not in names:
        return False
    if f"{block}conv2.conv.weight" in names:
        return True
    # without split attention it must be a ResNet-D: the shortcut's convolution comes after a pool
    shortcut = names.get(f"{block}{layout.block.get('downsample.1', 'downsample.1')}.weight")
    return shortcut is not None and shortcut.ndim == 4 and f"{block}se.fc1.weight" not in names


def _ends(name: str, part: str) -> bool:
    return name == part or name.endswith("." + part)


def _from_official(module: str, leaf: str, layout: Layout) -> str:
    match = re.fullmatch(r"layer(\d)\.(\d+)\.(.+)", module)
    if match:
        stage, block, part = int(match[1]) + layout.first_stage - 1, match[2], match[3]
        theirs = f"{layout.stage}{stage}.{block}.{layout.block.get(part, part)}"
    else:
        part, theirs = module, layout.stem.get(module, module)
    return f"{theirs}.{layout.norm.get(leaf, leaf) if part in NORMS else leaf}"


def _to_official(name: str, layout: Layout) -> str:
    module, _, leaf = name.rpartition(".")
    match = re.fullmatch(rf"{layout.stage}(\d)\.(\d+)\.(.+)", module)
    if match:
        part = _inverse(layout.block).get(match[3], match[3])
        module = f"layer{int(match[1]) - layout.first_stage + 1}.{match[2]}.{part}"
    else:
        part = module = _inverse(layout.stem).get(module, module)
    return f"{module}.{_inverse(layout.norm).get(leaf, leaf) if part in NORMS else leaf}"


def _inverse(names: Mapping[str, str]) -> dict[str, str]:
    return {theirs: official for official, theirs in names.items()}


def _attention_fits_8(spec: Spec) -> bool:
    """Whether timm's rule gives the official width: rounded to 8, at least 32, not 10 % below."""
    for channels in map(spec.group_width, spec.planes if spec.radix else ()):
        wanted = channels * spec.radix / 4
        rounded = max(32, int(wanted + 4) // 8 * 8)
        if rounded + (8 if rounded < 0.9 * wanted else 0) != attention_width(channels, spec.radix):
            return False
    return True

"""What a ResNeSt is made of (Zhang et al., arXiv 2004.08955, section 3 and table 3), and what it costs.

    Spec(radix=4, cardinality=2, width=40)      # "4s2x40d" in the paper's notation
    find_spec("resnest101e.in1k")               # -> (Spec(depths=(3, 4, 23, 3), stem_width=64), "resnest101")

Nothing here imports torch: the command line lists networks without it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from resnest.errors import Range, ResnestError, call, check_ranges, unknown

GROUPS = 32  # of a group norm in heads (arXiv 1803.08494, section 4)
MOST = 16384  # channels, objects: more fill any memory
EXPANSION = 4  # a bottleneck puts out 4 x planes channels (He et al., arXiv 1512.03385, table 1)

Stem = Literal["deep", "conv7", "small"]
AttentionNorm = Literal["batch", "frozen", "layer"]
HeadNorm = Literal["batch", "group", "none"]  # of what tasks put on a network

Whole = Annotated[int, Range(0)]
Count = Annotated[int, Range(1)]
Width = Annotated[int, Range(1, MOST)]
NotNegative = Annotated[float, Range(0)]
Positive = Annotated[float, Range(0, ends="(]")]
Share = Annotated[float, Range(0, 1.0)]
SomeShare = Annotated[float, Range(0, 1.0, "(]")]
ProperShare = Annotated[float, Range(0, 1, "()")]
Rate = Annotated[float, Range(0, 1.0, "[)")]


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The structure of a network; the defaults are ResNeSt-50.

    Class count, input channels and output stride are arguments of `create_model`, not structure.

    Raises:
        ResnestError: if the combination cannot be built; the message has the numbers.
    """

    depths: tuple[int, ...] = (3, 4, 6, 3)  # blocks per stage
    planes: tuple[int, ...] = (64, 128, 256, 512)  # nominal width per stage; a stage puts out 4 x planes
    radix: Whole = 2  # R: splits per cardinal group; 0 = plain 3x3 convolution, 1 = squeeze-and-excitation like
    cardinality: Count = 1  # K: cardinal groups
    width: Count = 64  # width of one cardinal group at 64 planes: the 64 of "2s1x64d"
    stem: Stem = "deep"  # three 3x3 (ResNet-C), one 7x7, or one 3x3 of stride 1 without pooling (tiny images)
    stem_width: Count = 32  # deep stem: w, w, 2w channels; the others: 2w
    avd: bool = True  # average-pool downsampling in the 3x3 position
    avd_first: bool = False  # before the 3x3 (the "fast" networks) or after it
    attention_norm: AttentionNorm = "batch"  # norm between fc1 and fc2; it sees one value per sample
    drop_rate: Rate = 0.0  # dropout before the classifier
    drop_path_rate: Rate = 0.0  # stochastic depth of the last block, linear from 0 at the first
    drop_block_rate: Rate = 0.0  # DropBlock in stages 3 and 4

    def __post_init__(self) -> None:
        for name in ("depths", "planes"):
            value = getattr(self, name)
            if not isinstance(value, list | tuple):
                raise ResnestError(f"this network cannot be built: {name}={value!r} must be a list of 4 integers")
            object.__setattr__(self, name, tuple(value))
        self._check_ranges()
        for planes in self.planes:
            self._check_groups(planes)

    def group_width(self, planes: int) -> int:
        """C: channels of the 3x3 convolution, `int(planes * width / 64) * cardinality` (official resnet.py)."""
        return int(planes * self.width / 64) * self.cardinality

    def _check_ranges(self) -> None:
        def require(met: bool, message: str) -> None:
            if not met:
                raise ResnestError(f"this network cannot be built: {message}")

        counts = {name: getattr(self, name) for name in ("radix", "cardinality", "width", "stem_width")}
        counts |= {f"{name}[{i}]": v for name in ("depths", "planes") for i, v in enumerate(getattr(self, name))}
        for name, count in counts.items():
            require(type(count) is int, f"{name}={count!r} must be an integer")
            require(count < 2**20, f"{name}={count} is more than any network has")
        for name in ("avd", "avd_first"):
            require(type(getattr(self, name)) is bool, f"{name}={getattr(self, name)!r} must be true or false")
        for name in ("depths", "planes"):
            value = getattr(self, name)
            require(len(value) == 4, f"{name}={value} has {len(value)} stages, a ResNeSt has 4")
            require(min(value) >= 1, f"{name}={value} must be 1 or more in each stage")
        check_ranges(self, "this network cannot be built: ")
        for name, choices in (("stem", ("deep", "conv7", "small")), ("attention_norm", ("batch", "frozen", "layer"))):
            if getattr(self, name) not in choices:
                raise unknown(name, str(getattr(self, name)), choices)

    def _check_groups(self, planes: int) -> None:
        channels, groups = self.group_width(planes), self.cardinality * max(self.radix, 1)
        where = f"this network cannot be built: at planes={planes}, width={self.width}, cardinality={self.cardinality}"
        if channels < 1:
            raise ResnestError(f"{where} the 3x3 convolution has {channels} channels")
        if channels % groups:
            raise ResnestError(
                f"{where}, radix={self.radix} the 3x3 convolution has {channels} channels,"
                f" which {groups} groups (cardinality x radix) do not divide"
            )
        if self.radix and (inner := attention_width(channels, self.radix)) % self.cardinality:
            raise ResnestError(
                f"{where}, radix={self.radix} the attention has {inner} channels,"
                f" which {self.cardinality} cardinal groups do not divide"
            )


def attention_width(channels: int, radix: int) -> int:
    """I: channels between fc1 and fc2. Reduction 4, at least 32: official splat.py; checkpoints depend on it."""
    return max(channels * radix // 4, 32)


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published network: its structure and reported accuracy (facts, section 1.6)."""

    spec: Spec
    crop: int  # evaluation crop, pixels
    top1: float  # ImageNet-1k, percent: the official PyTorch column; resnest14 and 26: GluonCV
    timm: str = ""  # timm's name for the same network


def _fast(radix: int, cardinality: int, width: int) -> Spec:
    """A network of the radix and cardinality ablation (paper, table 2): pooling before the 3x3."""
    return Spec(radix=radix, cardinality=cardinality, width=width, avd_first=True)


PUBLISHED: dict[str, Published] = {
    "resnest14": Published(spec=Spec(depths=(1, 1, 1, 1)), crop=224, top1=75.75, timm="resnest14d"),
    "resnest26": Published(spec=Spec(depths=(2, 2, 2, 2)), crop=224, top1=78.68, timm="resnest26d"),
    "resnest50": Published(spec=Spec(), crop=224, top1=81.03, timm="resnest50d"),
    "resnest101": Published(spec=Spec(depths=(3, 4, 23, 3), stem_width=64), crop=256, top1=82.83, timm="resnest101e"),
    "resnest200": Published(
        spec=Spec(depths=(3, 24, 36, 3), stem_width=64, drop_rate=0.2), crop=320, top1=83.84, timm="resnest200e"
    ),
    "resnest269": Published(
        spec=Spec(depths=(3, 30, 48, 8), stem_width=64, drop_rate=0.2), crop=416, top1=84.54, timm="resnest269e"
    ),
    "resnest50_fast_1s1x64d": Published(spec=_fast(1, 1, 64), crop=224, top1=80.33),
    "resnest50_fast_2s1x64d": Published(spec=_fast(2, 1, 64), crop=224, top1=80.53),
    "resnest50_fast_4s1x64d": Published(spec=_fast(4, 1, 64), crop=224, top1=80.76),
    "resnest50_fast_1s2x40d": Published(spec=_fast(1, 2, 40), crop=224, top1=80.59),
    "resnest50_fast_2s2x40d": Published(spec=_fast(2, 2, 40), crop=224, top1=80.61),
    "resnest50_fast_4s2x40d": Published(spec=_fast(4, 2, 40), crop=224, top1=81.14, timm="resnest50d_4s2x40d"),
    "resnest50_fast_1s4x24d": Published(spec=_fast(1, 4, 24), crop=224, top1=80.99, timm="resnest50d_1s4x24d"),
}

# The baseline of every comparison: ResNet-D (He et al., arXiv 1812.01187), timm's resnet50d and resnet101d.
BASELINES: dict[str, Spec] = {
    "resnet50d": Spec(radix=0, avd=False),
    "resnet101d": Spec(radix=0, avd=False, depths=(3, 4, 23, 3)),
}

ALIASES: dict[str, str] = {net.timm: name for name, net in PUBLISHED.items() if net.timm}


def find_spec(name: str) -> tuple[Spec, str]:
    """The structure and the official name of a network: `resnest50d.in1k` -> (Spec(), "resnest50").

    A tag behind the dot names a row of weights, not another network.

    Raises:
        ResnestError: for an unknown name, with the nearest known one.
    """
    base = name.split(".", 1)[0]
    official = ALIASES.get(base, base)
    if official in PUBLISHED:
        return PUBLISHED[official].spec, official
    if official in BASELINES:
        return BASELINES[official], official
    known = [*PUBLISHED, *ALIASES, *BASELINES]
    raise unknown("model", name, known, like=base, hint=f"`{call('list_models')}` lists them all.")


def name_of(spec: Spec) -> str:
    """The official name of a structure; "resnest" if it has none.

    >>> name_of(Spec())
    'resnest50'
    """
    official = {name: network.spec for name, network in PUBLISHED.items()} | BASELINES
    return next((name for name, known in official.items() if known == spec), "resnest")


def list_models() -> list[str]:
    """Official names of the published networks, then the ResNet-D baselines.

    >>> list_models()[:3]
    ['resnest14', 'resnest26', 'resnest50']
    """
    return [*PUBLISHED, *BASELINES]


def override_spec(spec: Spec, overrides: dict[str, Any]) -> Spec:
    """`spec` with some fields replaced.

    Raises:
        ResnestError: for a field that does not exist, with the nearest that does.
    """
    fields = [field.name for field in dataclasses.fields(Spec)]
    for key in overrides:
        if key not in fields:
            raise unknown("field of Spec", key, fields)
    return dataclasses.replace(spec, **overrides)


# --- Parameters and multiply-accumulates (MACs) of a network from its `Spec`, without building it ---


@dataclass(frozen=True)
class _Layer:
    """A convolution or linear layer: its weights, its other parameters, and its output pixels."""

    weights: int
    others: int  # bias, and both parameters of the norm behind it
    pixels: int


def parameters(spec: Spec, *, num_classes: int = 1000, in_chans: int = 3) -> int:
    """Trainable parameters of the network."""
    return sum(layer.weights + layer.others for layer in _layers(spec, 32, num_classes, in_chans))


def macs(spec: Spec, *, size: int, num_classes: int = 1000, in_chans: int = 3) -> int:
    """Multiply-accumulates for one square image of `size` pixels."""
    return sum(layer.weights * layer.pixels for layer in _layers(spec, size, num_classes, in_chans))


def smallest_map(spec: Spec, size: int) -> int:
    """Side of the last stage's map for a square image of `size` pixels.

    >>> smallest_map(Spec(), 224), smallest_map(Spec(stem="small"), 33)
    (7, 5)
    """
    for _ in range(3 if spec.stem == "small" else 5):
        size = _half(size)
    return size


def _layers(spec: Spec, size: int, num_classes: int, in_chans: int) -> Iterator[_Layer]:
    side = size if spec.stem == "small" else _half(size)
    yield from _stem(spec, in_chans, side**2)
    side = side if spec.stem == "small" else _half(side)  # max pool
    chans = 2 * spec.stem_width
    for stage, planes in enumerate(spec.planes):
        out = planes * EXPANSION
        for block in range(spec.depths[stage]):
            strides = stage > 0 and block == 0
            after = _half(side) if strides else side
            in_3x3 = side if strides and spec.avd and not spec.avd_first else after
            yield from _block(spec, chans, planes, side**2, in_3x3**2, after**2)
            if block == 0:
                yield _Layer(chans * out, 2 * out, after**2)  # shortcut
            side, chans = after, out
    yield _Layer(chans * num_classes, num_classes, 1)


def _stem(spec: Spec, in_chans: int, pixels: int) -> Iterator[_Layer]:
    width = spec.stem_width
    if spec.stem == "deep":
        yield _Layer(in_chans * width * 9, 2 * width, pixels)
        yield _Layer(width * width * 9, 2 * width, pixels)
        yield _Layer(width * 2 * width * 9, 4 * width, pixels)
    else:
        kernel = 49 if spec.stem == "conv7" else 9
        yield _Layer(in_chans * 2 * width * kernel, 4 * width, pixels)


def _block(spec: Spec, chans: int, planes: int, before: int, in_3x3: int, after: int) -> Iterator[_Layer]:
    width, splits, groups = spec.group_width(planes), max(spec.radix, 1), spec.cardinality
    out = planes * EXPANSION
    yield _Layer(chans * width, 2 * width, before)
    wide = width * splits
    yield _Layer(wide * (width // (groups * splits)) * 9, 2 * wide, in_3x3)
    if spec.radix:
        inner = attention_width(width, spec.radix)
        yield _Layer(inner * (width // groups), 3 * inner, 1)
        yield _Layer(wide * (inner // groups), wide, 1)
    yield _Layer(width * out, 2 * out, after)


def _half(side: int) -> int:
    return (side + 1) // 2

"""The structure of a segmenter: its head, and the backbone's resolution below it. No torch.

SegmenterSpec(head="unet", attention="scse").stride            # 32, a U-Net's usual one
SegmenterSpec(head="fpn", norm="batch").to_card()              # all that an FPN has
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from resnest.errors import Range, ResnestError, check_ranges, unknown
from resnest.spec import GROUPS, MOST, Count, HeadNorm, Rate, Width

# DeepLabV3: arXiv 1706.05587. DeepLabV3+: 1802.02611. FCN: 1411.4038. PSPNet: 1612.01105. Their defaults are those that
# the paper's figures rest on (PyTorch-Encoding; arXiv 2004.08955, section 5.3).
# U-Net: 1505.04597. U-Net++: 1807.10165. FPN: 1612.03144, for pixels 1901.02446. UPerNet: 1807.10221. scSE: 1803.02579.
# Their structures and defaults are those of segmentation_models_pytorch 0.6, whose weights load (docs/unet.md).

Head = Literal["deeplabv3", "deeplabv3plus", "fcn", "psp", "unet", "unetplusplus", "fpn", "upernet"]

TITLES: dict[Head, str] = {
    "deeplabv3": "DeepLabV3",
    "deeplabv3plus": "DeepLabV3+",
    "fcn": "FCN",
    "psp": "PSPNet",
    "unet": "U-Net",
    "unetplusplus": "U-Net++",
    "fpn": "FPN",
    "upernet": "UPerNet",
}
STRIDES = (8, 16, 32)
RATES_AT_8 = (12, 24, 36)  # arXiv 1706.05587, section 4.1; halved with the resolution


@dataclass(frozen=True)
class Usual:
    """What a head has where its `SegmenterSpec` says nothing."""

    output_stride: int = 32
    norm: HeadNorm = "batch"
    dropout: float = 0.0
    aux: float = 0.0
    channels: int | None = None


DILATED = Usual(output_stride=8, dropout=0.1, aux=0.2)
USUAL: dict[Head, Usual] = {
    **dict.fromkeys(("deeplabv3", "deeplabv3plus", "fcn", "psp"), DILATED),
    **dict.fromkeys(("unet", "unetplusplus"), Usual()),
    "fpn": Usual(norm="group", dropout=0.2, channels=256),
    "upernet": Usual(channels=256),
}
DEEPLABS, UNETS = ("deeplabv3", "deeplabv3plus"), ("unet", "unetplusplus")
# fields that only some heads have
ONLY_OF: dict[str, tuple[str, ...]] = {
    "rates": DEEPLABS,
    "branch_dropout": DEEPLABS,
    "low_channels": ("deeplabv3plus",),
    "bins": ("psp", "upernet"),
    "channels": tuple(head for head in TITLES if head not in UNETS),
    "decoder_channels": UNETS,
    "attention": UNETS,
    "segmentation_channels": ("fpn",),
}


@dataclass(frozen=True, kw_only=True)
class SegmenterSpec:
    """The structure of a segmenter; what is None has the head's usual value.

    Raises:
        ResnestError: if the combination cannot be built, or a field is set that this head does not have.
    """

    head: Head = "deeplabv3"
    # of the backbone's last map: 8, 16 or 32 pixels; none: 8, of the U-Nets, FPN and UPerNet 32
    output_stride: Count | None = None
    dilation: Literal["official", "timm"] = "official"  # whose backbone below stride 32: see create_backbone
    rates: tuple[int, int, int] | None = None  # of the three dilated branches; none: 12, 24, 36 at stride 8, half at 16
    # inside the head; none: an eighth of the backbone's, of FCN and PSPNet a quarter, 256 of FPN and UPerNet
    channels: Width | None = None
    low_channels: Width = 48  # deeplabv3plus: of the fine map C2 (arXiv 1802.02611, section 4.1)
    bins: tuple[int, ...] = (1, 2, 3, 6)  # psp, upernet: cells a side that the pyramid pools to
    decoder_channels: tuple[Width, ...] = (256, 128, 64, 32, 16)  # unet, unetplusplus: from the coarsest to full size
    attention: Literal["none", "scse"] = "none"  # unet, unetplusplus: around the convolutions of each step
    segmentation_channels: Width = 128  # fpn: of the maps that are added
    norm: HeadNorm | None = (
        None  # of the heads; group: for one device with few images a step; none: batch, of FPN group
    )
    multi_label: bool = False  # a yes or no (sigmoid) for every class of a pixel; of one class: a binary mask
    dropout: Rate | None = None  # before the last layer; none: 0.1, of FPN 0.2, of the U-Nets and UPerNet 0
    branch_dropout: Rate = 0.5  # deeplab: after the branches are joined
    # weight of the loss of an FCN head on C4, which only training has; 0: no such head. None: 0.2, of the U-Nets, FPN
    # and UPerNet 0
    aux: Annotated[float, Range(0, hint="; 0: no auxiliary head")] | None = None

    def __post_init__(self) -> None:
        for name in ("rates", "bins", "decoder_channels"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, choices in (
            ("head", tuple(TITLES)),
            ("dilation", ("official", "timm")),
            ("attention", ("none", "scse")),
            ("norm", ("batch", "group", "none", None)),
        ):
            if getattr(self, name) not in choices:
                raise unknown(f"segmenter.{name}", str(getattr(self, name)), [one for one in choices if one])
        check_ranges(self, "this segmenter cannot be built: segmenter.")
        self._check_fields()
        _require(isinstance(self.multi_label, bool), f"multi_label={self.multi_label!r} must be true or false")
        _require(self.stride in STRIDES, f"output_stride={self.output_stride} must be 8, 16 or 32")
        _require(
            self.rates is None or (len(self.rates) == 3 and all(_counts(rate, MOST) for rate in self.rates)),
            f"rates={self.rates} must be three integers from 1 to {MOST}",
        )
        _require(
            bool(self.bins) and all(_counts(cells, 64) for cells in self.bins),
            f"bins={list(self.bins)} must be integers from 1 to 64",
        )
        _require(len(self.decoder_channels) == 5, f"decoder_channels={list(self.decoder_channels)} must be five widths")
        if self.norm == "group" and self.channels is not None:
            _require(self.channels % GROUPS == 0, f"channels={self.channels} with norm=group: a multiple of {GROUPS}")

    def _check_fields(self) -> None:
        """Raises for a field of another head: nothing would be done with it."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not has_field(self.head, field.name) and value != field.default:
                usual = list(field.default) if isinstance(field.default, tuple) else field.default
                shown = list(value) if isinstance(value, tuple) else value
                owners = ", ".join(ONLY_OF[field.name])
                raise ResnestError(
                    f"segmenter.{field.name}={shown} is a setting of {owners}, and segmenter.head={self.head} has no"
                    f" use for it: leave it out, or set it to {'null' if usual is None else usual}"
                )

    @property
    def title(self) -> str:
        """Its usual name."""
        return TITLES[self.head]

    @property
    def stride(self) -> int:
        """Output stride of the backbone, pixels."""
        return USUAL[self.head].output_stride if self.output_stride is None else self.output_stride

    @property
    def norm_kind(self) -> HeadNorm:
        """Norm of the heads."""
        return USUAL[self.head].norm if self.norm is None else self.norm

    @property
    def drop_rate(self) -> float:
        """Dropout before the last layer."""
        return USUAL[self.head].dropout if self.dropout is None else self.dropout

    @property
    def aux_weight(self) -> float:
        """Weight of the auxiliary head's loss; 0: none."""
        return USUAL[self.head].aux if self.aux is None else self.aux

    @property
    def branch_rates(self) -> tuple[int, int, int]:
        """Dilation rates of the three branches."""
        if self.rates is not None:
            return self.rates
        first, second, third = (rate * STRIDES[0] // self.stride for rate in RATES_AT_8)
        return first, second, third

    @property
    def min_batch_size(self) -> int:
        """Minimum of a training batch: two if a batch norm of the head sees only the mean of each image."""
        pools = self.head in DEEPLABS or (self.head in ONLY_OF["bins"] and 1 in self.bins)
        return 2 if pools and self.norm_kind == "batch" else 1

    def to_card(self) -> dict[str, Any]:
        """What this head has, nothing left to a default of a later version."""
        usual = USUAL[self.head]
        content = {name: value for name, value in dataclasses.asdict(self).items() if has_field(self.head, name)}
        unsaid = {
            name: getattr(usual, name) for name, value in content.items() if value is None and name in vars(usual)
        }
        return {**content, **unsaid}

    @classmethod
    def of_card(cls, content: Mapping[str, Any]) -> SegmenterSpec:
        """From a card, also of versions that wrote, and let be set, fields of other heads."""
        head = content.get("head", "deeplabv3")
        return cls(**{name: value for name, value in content.items() if has_field(head, name)})


def has_field(head: str, name: str) -> bool:
    """Whether a field of `SegmenterSpec` says something of this head."""
    return head in ONLY_OF.get(name, TITLES)


def _counts(value: object, most: int) -> bool:
    """Whether a value, possibly from a file, is an integer from 1 to `most`."""
    return type(value) is int and 1 <= value <= most


def _require(met: bool, message: str) -> None:
    if not met:
        raise ResnestError(f"this segmenter cannot be built: segmenter.{message}")

"""The structure of a segmenter: the heads on its backbone.

DeepLabV3: arXiv 1706.05587. DeepLabV3+: 1802.02611. FCN: 1411.4038. PSPNet: 1612.01105.
The defaults are those that the paper's figures rest on (PyTorch-Encoding; arXiv 2004.08955, section 5.3).

    SegmenterSpec()                                       # DeepLabV3 at output stride 8
    SegmenterSpec(head="deeplabv3plus", output_stride=16)

Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from resnest.errors import Range, ResnestError, check_ranges, unknown
from resnest.spec import GROUPS, MOST, Count, HeadNorm, Rate, Width

Head = Literal["deeplabv3", "deeplabv3plus", "fcn", "psp"]

TITLES = {"deeplabv3": "DeepLabV3", "deeplabv3plus": "DeepLabV3+", "fcn": "FCN", "psp": "PSPNet"}
STRIDES = (8, 16, 32)
RATES_AT_8 = (12, 24, 36)  # arXiv 1706.05587, section 4.1; halved with the resolution
IGNORED = 255  # the label of a pixel that does not count


@dataclass(frozen=True, kw_only=True)
class SegmenterSpec:
    """The structure of a segmenter.

    Raises:
        ResnestError: if the combination cannot be built.
    """

    head: Head = "deeplabv3"
    output_stride: Count = 8  # of the backbone's last map: 8, 16 or 32 pixels
    dilation: Literal["official", "timm"] = "official"  # whose backbone below stride 32: see create_backbone
    rates: tuple[int, int, int] | None = None  # of the three dilated branches; none: 12, 24, 36 at stride 8, half at 16
    channels: Width | None = None  # inside the head; none: an eighth of the backbone's, of FCN and PSPNet a quarter
    low_channels: Width = 48  # deeplabv3plus: of the fine map C2 (arXiv 1802.02611, section 4.1)
    bins: tuple[int, ...] = (1, 2, 3, 6)  # psp: cells a side that the pyramid pools to
    norm: HeadNorm = "batch"  # of the heads; group: for one device with few images a step
    dropout: Rate = 0.1  # before the last layer
    branch_dropout: Rate = 0.5  # deeplab: after the branches are joined
    # weight of the loss of an FCN head on C4, which only training has; 0: no such head
    aux: Annotated[float, Range(0, hint="; 0: no auxiliary head")] = 0.2

    def __post_init__(self) -> None:
        for name in ("rates", "bins"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, choices in (
            ("head", tuple(TITLES)), ("dilation", ("official", "timm")), ("norm", ("batch", "group", "none")),
        ):  # fmt: skip
            if getattr(self, name) not in choices:
                raise unknown(f"segmenter.{name}", str(getattr(self, name)), choices)
        check_ranges(self, "this segmenter cannot be built: segmenter.")
        _require(self.output_stride in STRIDES, f"output_stride={self.output_stride} must be 8, 16 or 32")
        _require(
            self.rates is None or (len(self.rates) == 3 and all(_counts(rate, MOST) for rate in self.rates)),
            f"rates={self.rates} must be three integers from 1 to {MOST}",
        )
        _require(
            bool(self.bins) and all(_counts(cells, 64) for cells in self.bins),
            f"bins={list(self.bins)} must be integers from 1 to 64",
        )
        if self.norm == "group" and self.channels is not None:
            _require(self.channels % GROUPS == 0, f"channels={self.channels} with norm=group: a multiple of {GROUPS}")

    @property
    def title(self) -> str:
        """Its usual name."""
        return TITLES[self.head]

    @property
    def branch_rates(self) -> tuple[int, int, int]:
        """Dilation rates of the three branches."""
        if self.rates is not None:
            return self.rates
        first, second, third = (rate * STRIDES[0] // self.output_stride for rate in RATES_AT_8)
        return first, second, third

    @property
    def min_batch_size(self) -> int:
        """Minimum of a training batch: two if a batch norm of the head sees only the mean of each image."""
        pools = self.head in ("deeplabv3", "deeplabv3plus") or (self.head == "psp" and 1 in self.bins)
        return 2 if pools and self.norm == "batch" else 1


def _counts(value: object, most: int) -> bool:
    """Whether a value, possibly from a file, is an integer from 1 to `most`."""
    return type(value) is int and 1 <= value <= most


def _require(met: bool, message: str) -> None:
    if not met:
        raise ResnestError(f"this segmenter cannot be built: segmenter.{message}")

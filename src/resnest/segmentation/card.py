"""The card of a segmenter: its structure (head, output stride, auxiliary head) and preprocessing.

card = SegmentationCard(..., segmenter=SegmenterSpec(), category_ids=(7, 8), preprocess=SegmentationPreprocess())
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.errors import Range, ResnestError, check_ranges, parameter, unknown
from resnest.runtime.card import AnnotatedCard, parse_integers, parse_sides
from resnest.runtime.decode import MAX_PIXELS
from resnest.runtime.preprocess import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    LARGEST,
    Step,
    check_enlarged,
    normalise,
    normalise_step,
)
from resnest.runtime.tiles import Tiles
from resnest.segmentation.result import PixelClasses
from resnest.spec import GROUPS, MOST, Count, HeadNorm, Rate, Width

# --- The structure of a segmenter: the heads on its backbone ---
# DeepLabV3: arXiv 1706.05587. DeepLabV3+: 1802.02611. FCN: 1411.4038. PSPNet: 1612.01105. The defaults are those that
# the paper's figures rest on (PyTorch-Encoding; arXiv 2004.08955, section 5.3).
# Nothing here imports torch.

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


# --- Preprocessing of a segmenter: image resized by its long side or unchanged, normalised, padded. No torch ---

LEAST = 32  # pixels a side that a segmenter sees at least
USUAL_WINDOWS = 16  # of a small picture: of a strip most of each window is padding
MOST_WINDOW = 2048  # pixels a side of the squares it looks in: windows are there to spare memory


@dataclass(frozen=True, kw_only=True)
class SegmentationPreprocess:
    """Preprocessing of a segmenter: resized to a long side of `long`, or unchanged.

        SegmentationPreprocess(long=520)(image).shape      # (3, 390, 520) of a 640 x 480 photograph

    What is missing at the right and bottom, up to the window's side (or 32 pixels) or to `canvas`, is black before
    normalising, as the authors pad.
    """

    long: int | None = None  # pixels; None: the picture's own size
    window: int | None = None  # side of the sliding windows; None: the full picture at once
    canvas: tuple[int, int] | None = None  # height, width of what an exported file takes; the image fits into it
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def describe(self) -> str:
        """The size, for people."""
        size = f"{self.long} pixels the long side" if self.long else "as the pictures are"
        return f"{size}, in squares of {self.window}" if self.window else size

    def scaled_size(self, width: int, height: int, scale: float = 1.0) -> tuple[int, int]:
        """Resized width and height of an image of this size; for a view times `scale`."""
        factor = scale * (self.long / max(width, height) if self.long else 1.0)
        if self.canvas:
            factor = min(factor, self.canvas[0] / height, self.canvas[1] / width)
        wide, high = int(width * factor + 0.5), int(height * factor + 0.5)
        if self.canvas:
            high, wide = min(high, self.canvas[0]), min(wide, self.canvas[1])
        return max(wide, 1), max(high, 1)

    def padded_size(self, width: int, height: int, scale: float = 1.0) -> tuple[int, int]:
        """Height and width of the network's input for an image of this size, before windows."""
        if self.canvas:
            return self.canvas
        wide, high = self.scaled_size(width, height, scale)
        least = self.window or LEAST
        return max(high, least), max(wide, least)

    def steps(self) -> list[Step]:
        """Of a whole picture, without windows."""
        limit = {"long": self.long} if self.long else {"scale": 1}
        fit: Step = {"do": "fit", **limit, "filter": "bilinear"}
        pad: Step = {"do": "pad", "least": LEAST}
        if self.canvas:
            fit["canvas"] = list(self.canvas)
            pad = {"do": "pad", "height": self.canvas[0], "width": self.canvas[1]}
        return [fit, pad, normalise_step(self.mean, self.std)]

    def pixels(self, image: Image.Image, scale: float = 1.0) -> Image.Image:
        """The resized image, before normalisation."""
        size = self.scaled_size(*image.size, scale)
        return image if size == image.size else image.resize(size, Image.Resampling.BILINEAR)

    def __call__(self, image: Image.Image, scale: float = 1.0) -> NDArray[np.float32]:
        """RGB image -> (3, H, W), normalised. Raises BadImage, without the name of the file."""
        usual = USUAL_WINDOWS * self.window**2 if self.window else MAX_PIXELS
        check_enlarged(image.size, self.padded_size(*image.size, scale)[::-1], usual=usual)
        inner = np.asarray(self.pixels(image, scale))
        padded = np.zeros((*self.padded_size(*image.size, scale), 3), np.uint8)
        padded[: inner.shape[0], : inner.shape[1]] = inner
        return normalise(padded, self.mean, self.std)


@dataclass(frozen=True, kw_only=True)
class SegmentationCard(AnnotatedCard):
    """The card of a segmenter."""

    task = "segmentation"
    pipeline_tag = "image-segmentation"
    hub_metric = ("miou", "mean_iou")
    figure_titles: ClassVar = {
        "miou": "mIoU",
        "pixel_accuracy": "pixel accuracy",
        "mean_accuracy": "mean accuracy of classes",
    }
    usage = (".class_fractions()", "--draw drawn")

    preprocess: SegmentationPreprocess
    segmenter: SegmenterSpec  # the heads on the network

    @classmethod
    def preprocess_type(cls) -> type[SegmentationPreprocess]:
        return SegmentationPreprocess

    @property
    def classes(self) -> PixelClasses:
        """Names, ids and colours of the classes."""
        return PixelClasses(self.class_names, self.category_ids, self.colours)

    def with_window(self, window: int) -> SegmentationCard:
        """The same with sliding windows of side `window` pixels.

        Raises:
            ResnestError: its file takes one size; no such window.
        """
        if self.preprocess.canvas:
            raise ResnestError("this file takes pictures of one size: export it with a free size to use windows")
        if not LEAST <= window <= MOST_WINDOW:
            raise ResnestError(f"{parameter('window', window)}: expected {LEAST} to {MOST_WINDOW} pixels")
        return dataclasses.replace(self, preprocess=dataclasses.replace(self.preprocess, window=window))

    def with_tiles(self, tiles: Tiles) -> SegmentationCard:
        """The same for tiles of a picture, which are looked at without windows. Raises ResnestError."""
        card = super().with_tiles(tiles)
        return dataclasses.replace(card, preprocess=dataclasses.replace(card.preprocess, window=None))

    def describe_network(self, paper: str) -> str:
        head = self.segmenter
        return f"{head.title} on a {paper} (`{self.architecture}`, output stride {head.output_stride})"

    def describe_purpose(self) -> str:
        return f"tells which of {len(self.class_names)} classes every pixel of a picture is"

    def describe_input(self) -> str:
        pixels = self.preprocess
        size = f"the long side is resized to {pixels.long} pixels" if pixels.long else "any size"
        window = f", in sliding windows of {pixels.window} pixels" if pixels.window else ""
        return f"RGB; {size}{window}; mean {pixels.mean}, standard deviation {pixels.std}."

    def own_keys(self) -> dict[str, Any]:
        return {"segmenter": dataclasses.asdict(self.segmenter), **super().own_keys()}

    @classmethod
    def parse_own(cls, ours: Mapping[str, Any]) -> dict[str, Any]:
        return {"segmenter": SegmenterSpec(**ours["segmenter"]), **super().parse_own(ours)}

    @classmethod
    def parse_preprocess(cls, content: dict[str, Any]) -> SegmentationPreprocess:
        content["canvas"] = parse_sides(content["canvas"], "canvas") if content["canvas"] else None
        for key, least, most in (("long", 1, LARGEST), ("window", LEAST, MOST_WINDOW)):
            value = content[key]
            if value is not None and not least <= parse_integers([value], key)[0] <= most:
                raise ValueError(f"{key} is {value}, not a number from {least} to {most}")
        if content["canvas"] and min(content["canvas"]) < LEAST:
            raise ValueError(f"canvas is {content['canvas']}: a segmenter sees {LEAST} pixels a side or more")
        return SegmentationPreprocess(**content)

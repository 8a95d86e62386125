"""The card of a segmenter: its structure (head, output stride, auxiliary head) and preprocessing.

card = SegmentationCard(..., segmenter=SegmenterSpec(), category_ids=(7, 8), preprocess=SegmentationPreprocess())
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.errors import ResnestError, parameter
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
from resnest.runtime.raster import unit_pixels
from resnest.runtime.tiles import Tiles
from resnest.segmentation.activation import SIGMOID, SOFTMAX, Activation
from resnest.segmentation.result import PixelClasses
from resnest.segmentation.spec import SegmenterSpec

IGNORED = 255  # the label of a pixel that does not count
MULTI_LABEL = "segmenter.multi_label=true"  # the setting that reads data as masks of each class
THRESHOLD = 0.5  # the probability from which on a pixel is in a class's mask

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
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    value_range: float | None = None  # the value that is 1.0 before mean and std; None: by each picture's data type

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
        return [fit, pad, normalise_step(self)]

    def pixels(self, image: Image.Image, scale: float = 1.0) -> Image.Image:
        """The resized image, before normalisation."""
        size = self.scaled_size(*image.size, scale)
        return image if size == image.size else image.resize(size, Image.Resampling.BILINEAR)

    def __call__(self, image: Image.Image, scale: float = 1.0) -> NDArray[np.float32]:
        """A picture as the model reads it -> (C, H, W), normalised. Raises BadImage, without the name of the file."""
        usual = USUAL_WINDOWS * self.window**2 if self.window else MAX_PIXELS
        check_enlarged(image.size, self.padded_size(*image.size, scale)[::-1], usual=usual)
        inner = unit_pixels(self.pixels(image, scale), self.value_range)
        padded = np.zeros((*self.padded_size(*image.size, scale), inner.shape[2]), inner.dtype)
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
        "dice": "Dice",
    }
    usage = (".class_fractions()", "--draw drawn")

    preprocess: SegmentationPreprocess
    segmenter: SegmenterSpec  # the heads on the network
    threshold: float = THRESHOLD  # of a multi-label segmenter: the probability from which on a pixel is in a mask

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.threshold < 1:
            raise ResnestError(f"{parameter('threshold', self.threshold)}: expected a probability between 0 and 1")
        object.__setattr__(self, "segmenter", SegmenterSpec.of_card(self.segmenter.to_card()))  # nothing by default

    @classmethod
    def preprocess_type(cls) -> type[SegmentationPreprocess]:
        return SegmentationPreprocess

    @property
    def classes(self) -> PixelClasses:
        """Names, ids and colours of the classes."""
        return PixelClasses(self.class_names, self.category_ids, self.colours)

    @property
    def reading(self) -> str:
        return MULTI_LABEL if self.segmenter.multi_label else ""

    @property
    def predicts_by_threshold(self) -> bool:
        return self.segmenter.multi_label

    @property
    def activation(self) -> Activation:
        """What makes probabilities of the network's logits."""
        return SIGMOID if self.segmenter.multi_label else SOFTMAX

    def with_threshold(self, threshold: float) -> SegmentationCard:
        if not self.predicts_by_threshold:
            return super().with_threshold(threshold)
        return dataclasses.replace(self, threshold=threshold)

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
        return f"{head.title} on a {paper} (`{self.architecture}`, output stride {head.stride})"

    def describe_purpose(self) -> str:
        count = len(self.class_names)
        if not self.segmenter.multi_label:
            return f"tells which of {count} classes every pixel of a picture is"
        return f"finds the pixels of {self.class_names[0] if count == 1 else f'{count} classes, which may overlap'}"

    def describe_input(self) -> str:
        pixels = self.preprocess
        size = f"the long side is resized to {pixels.long} pixels" if pixels.long else "any size"
        window = f", in sliding windows of {pixels.window} pixels" if pixels.window else ""
        return f"{self.describe_pixels()}; {size}{window}; {self.describe_normalisation()}."

    def own_keys(self) -> dict[str, Any]:
        threshold = {"threshold": self.threshold} if self.segmenter.multi_label else {}
        return {"segmenter": self.segmenter.to_card(), **threshold, **super().own_keys()}

    @classmethod
    def parse_own(cls, ours: Mapping[str, Any]) -> dict[str, Any]:
        threshold = ours.get("threshold", THRESHOLD)
        if not isinstance(threshold, int | float) or isinstance(threshold, bool):
            raise ValueError(f"threshold is {threshold!r}, not a number")
        own = {"segmenter": SegmenterSpec.of_card(ours["segmenter"]), "threshold": threshold}
        return {**own, **super().parse_own(ours)}

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

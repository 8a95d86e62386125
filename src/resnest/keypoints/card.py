"""The card of a keypoint model: its points, its head, and how a crop is prepared. No torch.

card = KeypointCard(..., layout=PointLayout.of(names), head=HeadSpec(), preprocess=KeypointPreprocess())
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.errors import ResnestError, check_ranges, unknown
from resnest.keypoints.crops import Frame
from resnest.keypoints.points import PointLayout
from resnest.runtime.card import ModelCard, parse_sides
from resnest.runtime.preprocess import IMAGENET_MEAN, IMAGENET_STD, Step, check_enlarged, normalise, normalise_step
from resnest.runtime.raster import unit_pixels
from resnest.spec import Count, Positive, Share, SomeShare, Width

DIVISOR = 32  # of the input's sides: the last stage's map has this stride, and heatmaps an eighth of it
LEAST_PADDING = 1.0


@dataclass(frozen=True, kw_only=True)
class HeadSpec:
    """The head on the last map, and how its heatmaps are read; defaults are SimpleBaseline's (arXiv 1804.06208).

    Raises:
        ResnestError: it cannot be built.
    """

    deconvs: Count = 3  # each doubles the map: heatmaps of a quarter of the input's side
    channels: Width = 256
    sigma: Positive = 2.0  # of the Gaussians that are learned, in cells of a heatmap; 3 for 384 x 288
    decode: Literal["dark", "quarter"] = "dark"  # arXiv 1910.06278, or a quarter of a cell (arXiv 1603.06937)
    padding: Positive = 1.25  # what a crop shows, times the box
    threshold: Share = 0.2  # least value of a point that counts for its object's score
    nms: SomeShare = 0.9  # OKS from which on the lower of two objects is dropped
    max_objects: Count = 20  # of a picture, that evaluation looks at (COCO's)

    def __post_init__(self) -> None:
        check_ranges(self, "head.")
        if self.decode not in ("dark", "quarter"):
            raise unknown("head.decode", str(self.decode), ("dark", "quarter"))
        if self.deconvs != 3:
            raise ResnestError(f"head.deconvs={self.deconvs}: heatmaps have a quarter of the input's side, which is 3")
        if self.padding < LEAST_PADDING:
            raise ResnestError(
                f"head.padding={self.padding} would cut the box off: it must be {LEAST_PADDING:g} or more"
            )

    @property
    def title(self) -> str:
        return "SimpleBaseline"


@dataclass(frozen=True, kw_only=True)
class KeypointPreprocess:
    """Preprocessing of a crop: resized to fit the input, normalised, zeros at the right and bottom.

    KeypointPreprocess(width=192, height=256)(crop).shape      # (3, 256, 192)

    Crops around boxes have the input's proportions; a whole picture is looked at as if it were such a crop.
    """

    width: int = 192  # pixels
    height: int = 256
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    value_range: float | None = None  # the value that is 1.0 before mean and std; None: by each picture's data type

    def describe(self) -> str:
        return f"crops of {self.width} x {self.height} pixels"

    def scaled_size(self, width: int, height: int) -> tuple[int, int]:
        """Resized width and height of a picture of this size."""
        scale = min(self.width / width, self.height / height)
        wide, high = int(width * scale + 0.5), int(height * scale + 0.5)
        return max(min(wide, self.width), 1), max(min(high, self.height), 1)

    def padded_size(self, width: int, height: int) -> tuple[int, int]:
        return self.height, self.width

    def steps(self) -> list[Step]:
        size = [self.height, self.width]
        fit: Step = {"do": "fit", "long": max(size), "canvas": size, "filter": "bilinear"}
        return [fit, normalise_step(self), {"do": "pad", "height": self.height, "width": self.width}]

    def pixels(self, image: Image.Image) -> Image.Image:
        return image.resize(self.scaled_size(*image.size), Image.Resampling.BILINEAR)

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        """A crop -> (C, H, W), normalised, zero-padded. Raises BadImage, without the name of the file."""
        check_enlarged(image.size, (self.width, self.height), usual=self.width * self.height)
        inner = normalise(unit_pixels(self.pixels(image), self.value_range), self.mean, self.std)
        padded = np.zeros((len(inner), self.height, self.width), np.float32)
        padded[:, : inner.shape[1], : inner.shape[2]] = inner
        return padded


@dataclass(frozen=True, kw_only=True)
class KeypointCard(ModelCard):
    """The card of a keypoint model; its classes are the points of an object."""

    task = "keypoints"
    pipeline_tag = "keypoint-detection"
    hub_metric = ("ap", "OKS AP")
    figure_titles: ClassVar = {"ap": "OKS AP", "ap50": "OKS AP50", "ar": "OKS AR"}
    usage = (".points", "--draw drawn")

    preprocess: KeypointPreprocess
    layout: PointLayout = None  # type: ignore[assignment]  # none: by the names alone
    head: HeadSpec = field(default_factory=HeadSpec)
    thing: str = "object"  # what has these points
    category_id: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layout is None:
            object.__setattr__(self, "layout", PointLayout.of(self.class_names))
        if self.layout.names != self.class_names:
            raise ResnestError("a model card has other points than class names")

    @property
    def frame(self) -> Frame:
        """The crop around a box."""
        return Frame(width=self.preprocess.width, height=self.preprocess.height, padding=self.head.padding)

    @classmethod
    def preprocess_type(cls) -> type[KeypointPreprocess]:
        return KeypointPreprocess

    def describe_network(self, paper: str) -> str:
        return f"{self.head.title} on a {paper} (`{self.architecture}`)"

    def describe_purpose(self) -> str:
        return f"finds {len(self.class_names)} points of a {self.thing} in a crop around its box"

    def describe_input(self) -> str:
        size = f"{self.preprocess.width} x {self.preprocess.height}"
        return f"{self.describe_pixels()}; crops of {size} pixels; {self.describe_normalisation()}."

    def own_keys(self) -> dict[str, Any]:
        own = {"layout": self.layout.to_dict(), "head": dataclasses.asdict(self.head)}
        return {**own, "thing": self.thing, "category_id": self.category_id}

    @classmethod
    def parse_own(cls, ours: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "layout": PointLayout.from_dict(ours["layout"]),
            "head": HeadSpec(**ours["head"]),
            "thing": str(ours["thing"]),
            "category_id": int(ours["category_id"]),
        }

    @classmethod
    def parse_preprocess(cls, content: dict[str, Any]) -> KeypointPreprocess:
        parse_sides([content["width"], content["height"]], "width and height")
        return KeypointPreprocess(**content)

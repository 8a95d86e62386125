"""The card of a segmenter.

card = SegmentationCard(..., segmenter=SegmenterSpec(), category_ids=(7, 8), preprocess=SegmentationPreprocess())
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from resnest.errors import ResnestError
from resnest.runtime.card import AnnotatedCard, parse_sides, whole_numbers
from resnest.runtime.preprocess import LARGEST
from resnest.segmentation.preprocess import LEAST, MOST_WINDOW, SegmentationPreprocess
from resnest.segmentation.result import PixelClasses
from resnest.segmentation.spec import SegmenterSpec


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
            raise ResnestError(f"a window of {window} pixels: expected {LEAST} to {MOST_WINDOW}")
        return dataclasses.replace(self, preprocess=dataclasses.replace(self.preprocess, window=window))

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
            if value is not None and not least <= whole_numbers([value], key)[0] <= most:
                raise ValueError(f"{key} is {value}, not a number from {least} to {most}")
        if content["canvas"] and min(content["canvas"]) < LEAST:
            raise ValueError(f"canvas is {content['canvas']}: a segmenter sees {LEAST} pixels a side or more")
        return SegmentationPreprocess(**content)

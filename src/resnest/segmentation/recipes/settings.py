"""The recipe of a segmenter: the common sections, and `segmenter` and `segmentation`, which is about images.

recipe = SegmentationRecipe(name="streets", segmenter=SegmenterSpec(head="unet"))
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from resnest.data.settings import DataSettings
from resnest.errors import Range, ResnestError
from resnest.recipes.schema import Expect, Recipe
from resnest.runtime.preprocess import LARGEST
from resnest.segmentation.card import LEAST, MOST_WINDOW, MULTI_LABEL, THRESHOLD, SegmentationPreprocess
from resnest.segmentation.loss_settings import LossSettings
from resnest.segmentation.spec import SegmenterSpec, has_field
from resnest.spec import ProperShare

Side = Annotated[int, Range(LEAST, LARGEST, hint=" pixels")]
WINDOWED = " pixels: windows are there to spare memory, and null looks at the whole picture at once"


@dataclass(frozen=True, kw_only=True)
class SegmentationSettings(LossSettings):
    """Settings of a segmenter's losses and images, in addition to `data`, whose size, crop and augment are unused."""

    base: Side = 520  # pixels of the long side, before `scale` (PyTorch-Encoding's base_size)
    scale: tuple[float, float] = (0.5, 2.0)  # the long side of a training image is drawn between these times `base`
    crop: Side = 480  # pixels a side of what is cut out of it; what is missing is black and does not count
    flip_vertical: bool = False  # for pictures without an up and a down: microscopes, satellites
    eval_long: Side | None = None  # pixels of the long side in evaluation; none: every picture in its own size
    # side of the sliding windows; none: the full picture at once
    eval_window: Annotated[int | None, Range(LEAST, MOST_WINDOW, hint=WINDOWED)] = None
    backbone_norm: Literal["batch", "frozen"] = "batch"  # frozen: statistics stay as loaded, for few images a step
    threshold: ProperShare = THRESHOLD  # multi-label: the probability from which on a pixel is in a class's mask

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", tuple(self.scale))
        super().__post_init__()
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1] <= 16:
            raise ResnestError(
                f"segmentation.scale={list(self.scale)} must be the smallest and the largest factor, such as [0.5, 2]"
            )

    def preprocess(self, data: DataSettings) -> SegmentationPreprocess:
        """The preprocessing in evaluation for weights trained with these settings."""
        return SegmentationPreprocess(long=self.eval_long, window=self.eval_window, **data.normalisation)


@dataclass(frozen=True, kw_only=True)
class SegmentationExpect(Expect):
    """Expected accuracy of the recipe, fractions."""

    miou: float | None = None
    pixel_accuracy: float | None = None


@dataclass(frozen=True, kw_only=True)
class SegmentationRecipe(Recipe):
    """The recipe of a segmenter."""

    own_sections: ClassVar[tuple[str, ...]] = ("segmenter", "segmentation")
    image_section: ClassVar[str] = "segmentation"

    task: str = "segmentation"
    segmenter: SegmenterSpec = field(default_factory=SegmenterSpec)
    segmentation: SegmentationSettings = field(default_factory=SegmentationSettings)
    expect: SegmentationExpect | None = None

    @property
    def reading(self) -> str:
        return MULTI_LABEL if self.segmenter.multi_label else ""

    @property
    def frozen_backbone_norm(self) -> bool:
        return self.segmentation.backbone_norm == "frozen"

    def heads(self) -> dict[str, str]:
        return {"Segmenter": self.segmenter.title}

    def settle(self, content: dict[str, Any], given: Container[str]) -> None:
        """Another head than the recipe's: fields that it does not have are left out, unless they are given, too."""
        segmenter = content["segmenter"]
        if isinstance(segmenter, dict) and segmenter["head"] != self.segmenter.head:
            content["segmenter"] = {
                name: value
                for name, value in segmenter.items()
                if has_field(segmenter["head"], name) or f"segmenter.{name}" in given
            }

    def contradictions(self) -> Iterator[str]:
        yield from self.segmentation.contradictions(multi_label=self.segmenter.multi_label)
        if not self.segmenter.multi_label and self.segmentation.threshold != THRESHOLD:
            yield (
                f"segmentation.threshold={self.segmentation.threshold} plays no role with segmenter.multi_label=false:"
                " a pixel has its most likely class. Leave it out"
            )

    def listing(self) -> tuple[str, dict[str, str]]:
        return "Semantic segmentation", {"mIoU": "miou", "pixels": "pixel_accuracy"}

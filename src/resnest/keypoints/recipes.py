"""Keypoint models: SimpleBaseline (arXiv 1804.06208) on a ResNeSt, for COCO's persons and for points of one's own.

torchrun --nproc-per-node 8 -m resnest train simplebaseline_resnest50_coco --data coco --out runs/pose
resnest train keypoints_small --data landmarks --out runs/points --set model.pretrained=runs/a

The rows of persons have the settings of OpenMMLab's mmpose (configs/body_2d_keypoint/topdown_heatmap/coco,
td-hm_resnest*): Adam, 512 crops a step, 210 epochs, the rate divided by ten at 170 and 200, half bodies, turns,
scales. The ResNeSt paper's appendix has pose estimation without settings or code; the figures stated as expectation
are mmpose's, from boxes of a person detector of 56.4 AP, with mirrored views (`evaluate --flip`); they were not
measured here. What differs, on purpose:

- Heatmaps are decoded by DARK; mmpose's rows move a quarter of a cell. `head.decode=quarter` is that.
- Coordinates are continuous, so that mirrored maps need no shift (arXiv 1911.07524).
- AdamW without decay is Adam.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, ClassVar, Literal

from resnest.data.settings import DataSettings
from resnest.errors import Range, ResnestError, check_ranges
from resnest.keypoints.card import DIVISOR, HeadSpec, KeypointPreprocess
from resnest.keypoints.crops import Frame
from resnest.recipes.schema import PUBLISHED_WEIGHTS, Expect, ModelSettings, OptimSettings, Recipe, TrainSettings
from resnest.runtime.preprocess import LARGEST
from resnest.spec import ProperShare, Share

Side = Annotated[int, Range(DIVISOR, LARGEST, hint=" pixels")]
Turn = Annotated[float, Range(0, 180, hint=" degrees")]


@dataclass(frozen=True, kw_only=True)
class KeypointSettings:
    """Settings of crops and points, in addition to `data`, whose size, crop and augment are unused."""

    width: Side = 192  # pixels of the input, multiples of 32
    height: Side = 256
    scale: ProperShare = 0.35  # crops are up to this share larger or smaller, at random
    rotate: Turn = 40.0  # degrees that crops are turned by at most
    rotate_share: Share = 0.6  # of the crops
    shift: Share = 0.1  # of the crop's sides, that it is moved by at most
    half_body: Share = 0.3  # of the crops of persons with enough points, that show the upper or lower half
    # for other points than the data says: a standard deviation each, as a share of the root of the object's area
    sigmas: tuple[Annotated[float, Range(0, ends="(]")], ...] = ()
    flip_pairs: tuple[tuple[str, str], ...] | None = None  # names; none: the data's, or by left and right in names
    backbone_norm: Literal["batch", "frozen"] = "batch"  # frozen: statistics stay as loaded

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigmas", tuple(self.sigmas))
        if self.flip_pairs is not None:
            object.__setattr__(self, "flip_pairs", tuple((one, other) for one, other in self.flip_pairs))
        check_ranges(self, "keypoints.")
        for name in ("width", "height"):
            if getattr(self, name) % DIVISOR:
                raise ResnestError(f"keypoints.{name}={getattr(self, name)} must be a multiple of {DIVISOR}")

    def preprocess(self, data: DataSettings) -> KeypointPreprocess:
        """The preprocessing in evaluation for weights trained with these settings."""
        return KeypointPreprocess(width=self.width, height=self.height, **data.normalisation)


@dataclass(frozen=True, kw_only=True)
class KeypointExpect(Expect):
    """Expected accuracy of the recipe, fractions."""

    ap: float | None = None
    ar: float | None = None


@dataclass(frozen=True, kw_only=True)
class KeypointRecipe(Recipe):
    """The recipe of a keypoint model."""

    own_sections: ClassVar[tuple[str, ...]] = ("head", "keypoints")
    image_section: ClassVar[str] = "keypoints"

    task: str = "keypoints"
    head: HeadSpec = field(default_factory=HeadSpec)
    keypoints: KeypointSettings = field(default_factory=KeypointSettings)
    expect: KeypointExpect | None = None

    @property
    def frozen_backbone_norm(self) -> bool:
        return self.keypoints.backbone_norm == "frozen"

    @property
    def frame(self) -> Frame:
        """The crop around a box."""
        return Frame(width=self.keypoints.width, height=self.keypoints.height, padding=self.head.padding)

    def heads(self) -> dict[str, str]:
        return {"Head": self.head.title}

    def listing(self) -> tuple[str, dict[str, str]]:
        return "Keypoints", {"OKS AP": "ap", "AR": "ar"}


# mmpose, configs/body_2d_keypoint/topdown_heatmap/coco/resnest_coco.md: AP and AR by network and height of the crop
PUBLISHED = {
    ("resnest50", 256): (0.720, 0.775), ("resnest101", 256): (0.725, 0.781), ("resnest200", 256): (0.731, 0.787),
    ("resnest269", 256): (0.737, 0.792), ("resnest50", 384): (0.737, 0.789), ("resnest101", 384): (0.745, 0.798),
    ("resnest200", 384): (0.753, 0.805), ("resnest269", 384): (0.754, 0.805),
}  # fmt: skip
IMAGES = 512  # crops a step, of all processes together
PER_GPU = 64


def row_name(network: str, height: int) -> str:
    return f"simplebaseline_{network}_coco" + ("_384" if height == 384 else "")


def published(network: str, height: int) -> KeypointRecipe:
    """The recipe of one row."""
    ap, ar = PUBLISHED[network, height]
    large = height == 384
    return KeypointRecipe(
        name=row_name(network, height),
        summary=f"17 points of persons, SimpleBaseline on {network}, COCO, {height} x {height * 3 // 4}",
        model=ModelSettings(name=network, pretrained=PUBLISHED_WEIGHTS),
        data=DataSettings(),
        head=HeadSpec(sigma=3.0 if large else 2.0),
        keypoints=KeypointSettings(width=height * 3 // 4, height=height),
        optim=OptimSettings(
            name="adamw",
            lr=5e-4,
            lr_batch=IMAGES,
            weight_decay=0.0,
            schedule="steps",
            decay_at=(170 / 210, 200 / 210),
            warmup_epochs=0.0,
            warmup_steps=500,
            warmup_factor=0.001,
        ),
        train=TrainSettings(epochs=210, batch_size=PER_GPU, log_every=50, save_every=1000),
        expect=KeypointExpect(
            ap=ap,
            ar=ar,
            published=True,
            note="COCO val2017, published by mmpose (not by the paper's authors), boxes of a detector of 56.4 AP, flip",
        ),
    )


def keypoints_small() -> KeypointRecipe:
    """Points of objects of any kind on a CPU."""
    return KeypointRecipe(
        name="keypoints_small",
        summary="points of small objects in crops of 96 pixels, a small network, a CPU",
        model=ModelSettings(name="resnest14", spec={"planes": [32, 64, 128, 256], "stem_width": 16}),
        data=DataSettings(jitter=0.2),
        head=HeadSpec(channels=64, max_objects=1000),
        keypoints=KeypointSettings(width=96, height=96, scale=0.25),
        optim=OptimSettings(name="adamw", lr=1e-3, lr_batch=32, weight_decay=0.01, warmup_epochs=0.0, warmup_steps=50),
        train=TrainSettings(epochs=8, batch_size=32, eval_batch_size=32),
    )


RECIPES: dict[str, Callable[[], KeypointRecipe]] = {
    "keypoints_small": keypoints_small,
    **{row_name(*row): partial(published, *row) for row in PUBLISHED},
}

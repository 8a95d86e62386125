"""Every row of the paper's tables of semantic segmentation (arXiv 2004.08955, section 5.3), from published weights.

torchrun --nproc-per-node 8 -m resnest train deeplabv3_resnest50_ade20k --data ADEChallengeData2016 --out runs/ade

Settings are those of PyTorch-Encoding, with which the authors trained (facts, section 4.4): backbone at output
stride 8, 16 images a step on 8 GPUs, batch norms over all of them, heads ten times as fast as the backbone, crops of
480 out of long sides of 260 to 1,040 pixels. What is stated as expectation they published, for several scales and
mirrored views (`resnest evaluate --scales 0.5,0.75,1,1.25,1.5,1.75 --flip`); it was not measured here. What differs,
on purpose:

- Norms and biases are not decayed (there they are).
- Views are joined by the mean of their probabilities (there by the sum of exp of their scores).
- Baselines are ResNet-D, from GluonCV's weights in timm's repository of the hub, so that both sides have the same stem
  and shortcut; the rows of the paper are another ResNet with other weights.
- The recipe of the Cityscapes rows was never published: those here are ADE20K's with crops of 768 pixels, and the
  epochs and rate that PyTorch-Encoding has for that data.

The small ones are for a few hundred pictures with masks, on a CPU or from a published network:

resnest train segment_small --data streets --out runs/streets --set model.pretrained=runs/a
resnest train finetune_segmentation --data streets --out runs/streets

With few images a step, batch norm would estimate its statistics from too little: here the network keeps those that it
was loaded with, and the heads use group norm (arXiv 1803.08494). Without weights to start from, give the attention a
norm of its own: `model.spec.attention_norm=layer` with `segmentation.backbone_norm=batch`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, ClassVar, Literal

from resnest.data.settings import DataSettings
from resnest.errors import Range, ResnestError
from resnest.recipes.schema import PUBLISHED_WEIGHTS, Expect, ModelSettings, OptimSettings, Recipe, TrainSettings
from resnest.runtime.preprocess import LARGEST
from resnest.segmentation.card import LEAST, MOST_WINDOW, SegmentationPreprocess
from resnest.segmentation.loss_settings import LossSettings
from resnest.segmentation.spec import TITLES, Head, SegmenterSpec

# --- The recipe of a segmenter: the common sections, and `segmenter` and `segmentation`, which is about images.

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
    def frozen_backbone_norm(self) -> bool:
        return self.segmentation.backbone_norm == "frozen"

    def heads(self) -> dict[str, str]:
        return {"Segmenter": self.segmenter.title}

    def contradictions(self) -> Iterator[str]:
        yield from self.segmentation.contradictions(multi_label=self.segmenter.multi_label)

    def listing(self) -> tuple[str, dict[str, str]]:
        return "Semantic segmentation", {"mIoU": "miou", "pixels": "pixel_accuracy"}


HALF_WIDTH = {"planes": [32, 64, 128, 256], "stem_width": 16}  # that of the recipe imagenette
IMAGES = 16  # a step, of all processes together
PER_GPU = 2
GLUON = "hf-hub:timm/{}.gluon_in1k"  # weights of a baseline


@dataclass(frozen=True, kw_only=True)
class Data:
    """The authors' settings by data set (PyTorch-Encoding's train.py)."""

    title: str
    epochs: int
    lr: float  # for 16 images a step
    base: int = 520  # pixels of the long side
    crop: int = 480
    recipe_published: bool = True


DATA = {
    "ade20k": Data(title="ADE20K", epochs=180, lr=0.004),
    "pascal_context": Data(title="Pascal Context", epochs=80, lr=0.001),
    "cityscapes": Data(title="Cityscapes", epochs=240, lr=0.004, base=2048, crop=768, recipe_published=False),
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the paper's tables: percent, on the validation split."""

    network: str
    data: str
    head: Head = "deeplabv3"
    miou: float
    pixels: float | None = None  # accuracy
    remembered: bool = False  # the figure: it was found in no source

    @property
    def baseline(self) -> str:
        """The paper's baseline network, where ours is ResNet-D."""
        return {"resnet50d": "ResNet-50", "resnet101d": "ResNet-101"}.get(self.network, "")


def _named(*rows: Row) -> dict[str, Row]:
    return {f"{row.head}_{row.network}_{row.data}": row for row in rows}


# Facts, section 3.9
ROWS = _named(
    Row(network="resnet50d", data="ade20k", miou=42.1, pixels=80.39),
    Row(network="resnet101d", data="ade20k", miou=44.14, pixels=81.11),
    Row(network="resnest50", data="ade20k", head="fcn", miou=42.94, pixels=80.18),
    Row(network="resnest50", data="ade20k", miou=45.12, pixels=81.17),
    Row(network="resnest101", data="ade20k", miou=46.91, pixels=82.07),
    Row(network="resnest200", data="ade20k", miou=48.36, pixels=82.45),
    Row(network="resnest269", data="ade20k", miou=47.60, pixels=82.62),
    Row(network="resnest50", data="pascal_context", head="fcn", miou=51.98, pixels=79.19),
    Row(network="resnest50", data="pascal_context", miou=53.19, pixels=80.41),
    Row(network="resnest101", data="pascal_context", miou=56.49, pixels=81.91),
    Row(network="resnest200", data="pascal_context", miou=58.37, pixels=82.50),
    Row(network="resnest269", data="pascal_context", miou=58.92, pixels=83.06),
    Row(network="resnest50", data="cityscapes", miou=79.87, remembered=True),
    Row(network="resnest101", data="cityscapes", miou=80.42, remembered=True),
    Row(network="resnest200", data="cityscapes", head="deeplabv3plus", miou=82.7),
)


def paper(name: str) -> SegmentationRecipe:
    """The recipe of one row."""
    row = ROWS[name]
    data = DATA[row.data]
    return SegmentationRecipe(
        name=name,
        summary=_summary(row, data),
        model=ModelSettings(
            name=row.network, pretrained=GLUON.format(row.network) if row.baseline else PUBLISHED_WEIGHTS
        ),
        data=DataSettings(),
        segmenter=SegmenterSpec(head=row.head),
        segmentation=SegmentationSettings(
            base=data.base,
            crop=data.crop,
            eval_long=data.base if data.base < 1000 else None,
            eval_window=data.crop,
        ),
        optim=OptimSettings(
            lr=data.lr,
            lr_batch=IMAGES,
            momentum=0.9,
            nesterov=False,
            weight_decay=1e-4,
            schedule="poly",
            warmup_epochs=0.0,
            head_factor=10.0,
        ),
        train=TrainSettings(
            epochs=data.epochs,
            batch_size=PER_GPU,
            sync_norm=True,
            log_every=20,
            save_every=1000,
            eval_batch_size=PER_GPU,
        ),
        expect=_expected(row, data),
    )


def _summary(row: Row, data: Data) -> str:
    """Head, data and length; for a baseline also the source of its figure."""
    summary = f"{TITLES[row.head]} on {row.network}, {data.title}, {data.epochs} epochs"
    if row.baseline:
        return f"{summary} (baseline; the paper's {row.baseline}: {row.miou:.2f})"
    doubts = ["the figure from memory"] * row.remembered + ["a recipe of our own"] * (not data.recipe_published)
    return f"{summary} ({', '.join(doubts)})" if doubts else summary


def _expected(row: Row, data: Data) -> SegmentationExpect:
    """Published figures; not for baselines, whose network differs from the paper's."""
    note = f"{data.title} validation split, published, six scales from 0.5 to 1.75, each mirrored too"
    if row.baseline:
        return SegmentationExpect(
            published=True, note=f"{note}: mIoU {row.miou:.2f}, pixel accuracy {row.pixels:.2f} of a {row.baseline}"
        )
    if row.remembered:
        note += "; the figure is remembered, and was found in no source"
    if not data.recipe_published:
        note += "; the recipe was never published"
    pixels = round(row.pixels / 100, 4) if row.pixels else None
    return SegmentationExpect(miou=round(row.miou / 100, 4), pixel_accuracy=pixels, published=True, note=note)


def segment_small() -> SegmentationRecipe:
    """Semantic segmentation on a CPU in less than an hour."""
    return SegmentationRecipe(
        name="segment_small",
        summary="a class for every pixel on a few hundred pictures, a small network, a CPU",
        model=ModelSettings(name="resnest14", spec=dict(HALF_WIDTH)),
        data=DataSettings(jitter=0.2),
        segmenter=SegmenterSpec(output_stride=16, channels=64, norm="group"),
        segmentation=SegmentationSettings(base=480, scale=(0.75, 1.5), crop=256, backbone_norm="frozen"),
        optim=OptimSettings(
            name="muon",
            lr=2e-3,
            lr_batch=8,
            momentum=0.95,
            weight_decay=0.05,
            schedule="poly",
            warmup_epochs=0.0,
            warmup_steps=50,
            head_factor=2.0,
        ),
        train=TrainSettings(epochs=16, batch_size=8, clip_norm=10.0, eval_batch_size=8),
        expect=SegmentationExpect(
            miou=0.537,
            pixel_accuracy=0.891,
            tolerance=0.03,
            note="CamVid, seed 0, from a classifier of imagenette128, 36 minutes on one core; results/camvid.csv",
        ),
    )


def finetune_segmentation() -> SegmentationRecipe:
    """DeepLabV3 on the published ResNeSt-50; for a GPU."""
    return SegmentationRecipe(
        name="finetune_segmentation",
        summary="a class for every pixel of your own pictures, from published weights",
        model=ModelSettings(name="resnest50", pretrained=PUBLISHED_WEIGHTS),
        data=DataSettings(jitter=0.2),
        segmenter=SegmenterSpec(norm="group"),
        segmentation=SegmentationSettings(backbone_norm="frozen"),
        optim=OptimSettings(
            lr=0.004,
            lr_batch=16,
            nesterov=False,
            schedule="poly",
            warmup_epochs=0.0,
            warmup_steps=50,
            head_factor=10.0,
        ),
        train=TrainSettings(epochs=60, batch_size=4, patience=12, clip_norm=10.0, eval_batch_size=4),
    )


RECIPES: dict[str, Callable[[], SegmentationRecipe]] = {
    "segment_small": segment_small,
    "finetune_segmentation": finetune_segmentation,
    **{name: partial(paper, name) for name in ROWS},
}

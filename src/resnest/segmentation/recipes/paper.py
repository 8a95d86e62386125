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
"""

from __future__ import annotations

from dataclasses import dataclass

from resnest.data.settings import DataSettings
from resnest.recipes.schema import PUBLISHED_WEIGHTS, ModelSettings, OptimSettings, TrainSettings
from resnest.segmentation.recipes.settings import SegmentationExpect, SegmentationRecipe, SegmentationSettings
from resnest.segmentation.spec import TITLES, Head, SegmenterSpec

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

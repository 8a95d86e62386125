"""Every row of the paper's detection and instance tables (arXiv 2004.08955, section 5.2): COCO, from published weights.

torchrun --nproc-per-node 8 -m resnest train faster_rcnn_resnest50 --data coco --out runs/50

Settings are those of the authors' detectron2 configuration files (facts, section 4.1): 16 images a step on 8 GPUs,
batch norms over all of them, stem and layer1 frozen. What is stated as expectation is the AP that they published on
val2017 at one scale, not one measured here. What differs from them, on purpose or because a run here counts epochs:

- 90,000 steps of 16 images are 12.28 epochs of the 117,266 images with objects; here they are 12, and 270,000 are 37.
  The learning rate falls at the same fractions of the run: 60,000 and 80,000 of 90,000; 240,000 and 255,000 of 270,000.
- Biases are not decayed (there they are), and batch-norm statistics are not estimated anew before evaluation.
- On fewer than 16 images a step the rate is scaled down with them, as usual; the number of epochs stays.
- Baselines are ResNet-D, from GluonCV's weights in timm's repository of the hub, so that both sides have the same stem
  and input; the rows of the paper are plain ResNet-50 and -101 with other weights.

The small ones are for a few hundred annotated pictures, on a CPU or from a published network:

resnest train detect_small --data cells --out runs/cells --set model.pretrained=runs/a
resnest train finetune_detection --data cells --out runs/cells

With few images a step, batch norm would estimate its statistics from too little: here the network keeps those that it
was loaded with, and pyramid and heads use group norm (arXiv 1803.08494). Start from weights: published ones, or those
of a classifier that you trained yourself (`model.pretrained=RUN`).

The choices are usual ones; what was measured is in docs/detection.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, ClassVar, Literal

from resnest.data.settings import DataSettings
from resnest.detection.card import DIVISOR, DetectionPreprocess, DetectorSpec
from resnest.errors import Range, ResnestError, check_ranges
from resnest.recipes.schema import PUBLISHED_WEIGHTS, Expect, ModelSettings, OptimSettings, Recipe, TrainSettings
from resnest.runtime.preprocess import LARGEST

# --- The recipe of a detector: the common sections, and `detector` and `detection`, which is about images ---

Side = Annotated[int, Range(DIVISOR, LARGEST, hint=" pixels")]


@dataclass(frozen=True, kw_only=True)
class DetectionSettings:
    """Settings of a detector's images, in addition to `data`, whose size, crop and augment are unused."""

    short: tuple[Side, ...] = (640, 800)  # pixels of the short side in training (detectron2's INPUT.MIN_SIZE_TRAIN)
    pick: Literal["range", "choice"] = "range"  # any between two of them, or one of those named
    long: Side = 1333  # the long side is not longer, in training
    eval_short: Side = 800
    eval_long: Side = 1333
    # smallest share of both sides that a random crop keeps (relative_range); none: no crop
    crop: Annotated[float | None, Range(0, 1.0, "(]", ", or be null for no crop")] = None
    flip_vertical: bool = False  # for pictures without an up and a down: microscopes, satellites
    rotate: bool = False  # by quarter turns; the same
    keep_empty: bool = False  # train on images without objects too; detectron2 leaves them out
    backbone_norm: Literal["batch", "frozen"] = "batch"  # frozen: statistics stay as loaded, for few images a step

    def __post_init__(self) -> None:
        object.__setattr__(self, "short", tuple(self.short))
        check_ranges(self, "detection.")
        if not self.short:
            raise ResnestError("detection.short=[] must have a value")
        if self.pick == "range" and (len(self.short) > 2 or list(self.short) != sorted(self.short)):
            raise ResnestError(
                f"detection.short={list(self.short)} with detection.pick=range: give the smallest and the largest. For"
                " one of several, set detection.pick=choice"
            )

    def preprocess(self, data: DataSettings) -> DetectionPreprocess:
        """The preprocessing in evaluation for weights trained with these settings."""
        return DetectionPreprocess(short=self.eval_short, long=self.eval_long, **data.normalisation)


@dataclass(frozen=True, kw_only=True)
class DetectionExpect(Expect):
    """Expected accuracy of the recipe, fractions."""

    box_ap: float | None = None
    mask_ap: float | None = None


@dataclass(frozen=True, kw_only=True)
class DetectionRecipe(Recipe):
    """The recipe of a detector, with masks or without."""

    own_sections: ClassVar[tuple[str, ...]] = ("detector", "detection")
    image_section: ClassVar[str] = "detection"

    task: str = "detection"
    detector: DetectorSpec = field(default_factory=DetectorSpec)
    detection: DetectionSettings = field(default_factory=DetectionSettings)
    expect: DetectionExpect | None = None

    @property
    def frozen_backbone_norm(self) -> bool:
        return self.detection.backbone_norm == "frozen"

    def heads(self) -> dict[str, str]:
        return {"Detector": self.detector.title}

    def listing(self) -> tuple[str, dict[str, str]]:
        if self.detector.masks:
            return "Instance segmentation", {"box AP": "box_ap", "mask AP": "mask_ap"}
        return "Object detection", {"box AP": "box_ap"}

    def contradictions(self) -> Iterator[str]:
        settings = self.detection
        for prefix, short in (("", max(settings.short)), ("eval_", settings.eval_short)):
            if short > (long := getattr(settings, f"{prefix}long")):
                shown = list(settings.short) if not prefix else short
                yield (
                    f"detection.{prefix}short={shown} with detection.{prefix}long={long}: the long side would be"
                    f" shorter than the short one. Set detection.{prefix}long to {short} or more"
                )


MEAN = (123.68 / 255, 116.779 / 255, 103.939 / 255)  # not quite ImageNet's usual ones
STD = (58.393 / 255, 57.12 / 255, 57.375 / 255)
IMAGES = 16  # a step, of all processes together
PER_GPU = 2
GLUON = "hf-hub:timm/{}.gluon_in1k"  # weights of a baseline

FASTER = DetectorSpec()
CASCADE = DetectorSpec(cascade=True, post_nms=(2000, 1000))
MASK = DetectorSpec(masks=True)
CASCADE_MASK = replace(CASCADE, masks=True)
TRICKS = replace(CASCADE_MASK, mask_convs=8)
DEFORMED = (False, True, True, True)  # layer2 to layer4, detectron2's res3 to res5


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the paper's tables: a detector on a network, and its published figures in percent."""

    network: str
    detector: DetectorSpec
    box: float
    mask: float | None = None
    long: bool = False  # "3x" with "all tricks"

    @property
    def baseline(self) -> str:
        """The paper's baseline network, where ours is ResNet-D."""
        return {"resnet50d": "ResNet-50", "resnet101d": "ResNet-101"}.get(self.network, "")


def _rows() -> Iterator[tuple[str, Row]]:
    """Recipe names with their rows (facts, sections 3.6 and 3.7)."""
    boxes = {"resnest50": (42.33, 45.41), "resnest101": (44.72, 47.50), "resnet50d": (39.25, 42.52),
             "resnet101d": (41.37, 44.03)}  # fmt: skip
    both = {"resnest50": ((42.81, 38.14), (46.19, 39.55)), "resnest101": ((45.75, 40.65), (48.30, 41.56)),
            "resnet50d": ((39.97, 36.05), (43.06, 37.19)), "resnet101d": ((41.78, 37.51), (44.79, 38.52))}  # fmt: skip
    for network, (faster, _) in boxes.items():
        yield f"faster_rcnn_{network}", Row(network=network, detector=FASTER, box=faster)
    deformed = replace(FASTER, deform=DEFORMED)
    yield "faster_rcnn_resnest50_dcn", Row(network="resnest50", detector=deformed, box=44.11)
    for network, (_, cascade) in boxes.items():
        yield f"cascade_rcnn_{network}", Row(network=network, detector=CASCADE, box=cascade)
    yield "cascade_rcnn_resnest200", Row(network="resnest200", detector=CASCADE, box=49.03)
    for network, ((box, mask), _) in both.items():
        yield f"mask_rcnn_{network}", Row(network=network, detector=MASK, box=box, mask=mask)
    for network, (_, (box, mask)) in both.items():
        yield f"cascade_mask_rcnn_{network}", Row(network=network, detector=CASCADE_MASK, box=box, mask=mask)
    for suffix, detector, box, mask in (
        ("", TRICKS, 50.54, 44.21),
        ("_dcn", replace(TRICKS, deform=DEFORMED), 50.91, 44.50),
    ):
        row = Row(network="resnest200", detector=detector, box=box, mask=mask, long=True)
        yield f"cascade_mask_rcnn_resnest200{suffix}_tricks_3x", row


ROWS: dict[str, Row] = dict(_rows())


def paper(name: str) -> DetectionRecipe:
    """The recipe of one row."""
    row = ROWS[name]
    return DetectionRecipe(
        name=name,
        summary=_summary(row),
        model=ModelSettings(
            name=row.network,
            pretrained=GLUON.format(row.network) if row.baseline else PUBLISHED_WEIGHTS,
            freeze=2,
        ),
        data=DataSettings(mean=MEAN, std=STD),
        detector=row.detector,
        detection=_images(row),
        optim=OptimSettings(
            lr=0.02,
            lr_batch=IMAGES,
            momentum=0.9,
            nesterov=False,
            weight_decay=1e-4,
            schedule="steps",
            decay_at=(0.8889, 0.9444) if row.long else (0.6667, 0.8889),
            warmup_epochs=0.0,
            warmup_steps=1000,
            warmup_factor=0.001,
        ),
        train=TrainSettings(
            epochs=_epochs(row),
            batch_size=PER_GPU,
            sync_norm=True,
            log_every=20,
            save_every=1000,
            eval_batch_size=PER_GPU,
        ),
        expect=_expected(row),
    )


def _images(row: Row) -> DetectionSettings:
    """Sizes of training images: one of a list with masks, any between two otherwise."""
    if row.long:
        return DetectionSettings(short=(640, 864), long=1440, crop=0.9)
    if row.detector.masks:
        return DetectionSettings(short=tuple(range(640, 801, 32)), pick="choice")
    return DetectionSettings()


def _summary(row: Row) -> str:
    """Detector, data and length; for a baseline also the source of its figure."""
    parts = [f"{row.detector.title} on {row.network}", *(["deformable"] if any(row.detector.deform) else [])]
    parts += ["COCO", f"{_epochs(row)} epochs", *(["all tricks"] if row.long else [])]
    figures = f"{row.box:.2f}" + (f", {row.mask:.2f}" if row.mask else "")
    return ", ".join(parts) + (f" (baseline; the paper's {row.baseline}: {figures})" if row.baseline else "")


def _epochs(row: Row) -> int:
    return 37 if row.long else 12


def _expected(row: Row) -> DetectionExpect:
    """Published figures; not for baselines, whose network differs from the paper's."""
    source = "COCO val2017, published (detectron2, 8 GPUs)"
    if row.baseline:
        masks = f", mask AP {row.mask:.2f}" if row.mask else ""
        return DetectionExpect(published=True, note=f"{source} for a plain {row.baseline}: box AP {row.box:.2f}{masks}")
    mask_ap = round(row.mask / 100, 4) if row.mask else None
    return DetectionExpect(box_ap=round(row.box / 100, 4), mask_ap=mask_ap, published=True, note=source)


# A quarter of the paper's widths, a quarter of its proposals, two linear layers in place of four convolutions.
SMALL = DetectorSpec(
    fpn_channels=64,
    norm="group",
    anchor_sizes=(16, 32, 64, 128, 256),
    rpn_batch=128,
    pre_nms=(600, 300),
    post_nms=(300, 300),
    roi_batch=128,
    box_convs=0,
    box_fcs=2,
    box_channels=64,
    box_features=256,
    mask_convs=2,
    mask_channels=64,
)
HALF_WIDTH = {"planes": [32, 64, 128, 256], "stem_width": 16}  # that of the recipe imagenette


def detect_small() -> DetectionRecipe:
    """Box detection on a CPU in half an hour."""
    return DetectionRecipe(
        name="detect_small",
        summary="boxes on a few hundred pictures, a small network, a CPU",
        model=ModelSettings(name="resnest14", spec=dict(HALF_WIDTH)),
        data=DataSettings(),
        detector=SMALL,
        detection=DetectionSettings(short=(224, 288), long=512, eval_short=256, eval_long=512, backbone_norm="frozen"),
        optim=_schedule(lr=0.02, lr_batch=4, warmup_steps=100),
        train=TrainSettings(epochs=24, batch_size=4, clip_norm=10.0, eval_batch_size=8),
        expect=DetectionExpect(
            box_ap=0.573,
            tolerance=0.03,
            note="BCCD, seed 0, from a classifier of imagenette128, 15 minutes on one core; results/bccd.csv",
        ),
    )


def instances_small() -> DetectionRecipe:
    """Many small objects with masks, pictures without a fixed orientation: cells, nuclei, satellite images."""
    return DetectionRecipe(
        name="instances_small",
        summary="masks of many small objects, a small network, a CPU",
        model=ModelSettings(name="resnest14", spec=dict(HALF_WIDTH)),
        data=DataSettings(),
        detector=replace(
            SMALL,
            masks=True,
            anchor_sizes=(8, 16, 32, 64, 128),
            rpn_batch=256,
            pre_nms=(1000, 1000),
            post_nms=(400, 600),
            roi_batch=128,
            max_detections=400,
        ),
        detection=DetectionSettings(
            short=(224, 320),
            long=512,
            eval_short=320,
            eval_long=640,
            flip_vertical=True,
            rotate=True,
            backbone_norm="frozen",
        ),
        optim=_schedule(lr=0.02, lr_batch=4, warmup_steps=100),
        train=TrainSettings(epochs=12, batch_size=4, clip_norm=10.0, eval_batch_size=4),
        expect=DetectionExpect(
            box_ap=0.452,
            mask_ap=0.474,
            tolerance=0.03,
            note="nuclei of the Data Science Bowl, seed 0, from a classifier of imagenette128; results/nuclei.csv",
        ),
    )


def finetune_detection() -> DetectionRecipe:
    """Faster R-CNN on the published ResNeSt-50; for a GPU."""
    return DetectionRecipe(
        name="finetune_detection",
        summary="boxes on your own pictures, from published weights",
        model=ModelSettings(name="resnest50", pretrained=PUBLISHED_WEIGHTS, freeze=2),
        data=DataSettings(),
        detector=DetectorSpec(norm="group"),
        detection=DetectionSettings(
            short=(480, 800), eval_short=640, eval_long=1066, long=1333, backbone_norm="frozen"
        ),
        optim=_schedule(lr=0.02, lr_batch=16, warmup_steps=200),
        train=TrainSettings(epochs=30, batch_size=4, patience=8, eval_batch_size=4),
    )


def finetune_instances() -> DetectionRecipe:
    """Mask R-CNN on the published ResNeSt-50; for a GPU."""
    boxes = finetune_detection()
    return replace(
        boxes,
        name="finetune_instances",
        summary="masks on your own pictures, from published weights",
        detector=DetectorSpec(masks=True, norm="group"),
        train=replace(boxes.train, batch_size=2, eval_batch_size=2),
    )


def _schedule(*, lr: float, lr_batch: int, warmup_steps: int) -> OptimSettings:
    return OptimSettings(
        lr=lr, lr_batch=lr_batch, nesterov=False, warmup_epochs=0.0, warmup_steps=warmup_steps, warmup_factor=0.001
    )


RECIPES: dict[str, Callable[[], DetectionRecipe]] = {
    "detect_small": detect_small,
    "instances_small": instances_small,
    "finetune_detection": finetune_detection,
    "finetune_instances": finetune_instances,
    **{name: partial(paper, name) for name in ROWS},
}

"""Every row of the paper's detection and instance tables (arXiv 2004.08955, section 5.2): COCO, from published weights.

torchrun --nproc-per-node 8 -m resnest train faster_rcnn_resnest50 --data coco --out runs/50

Settings are those of the authors' detectron2 configuration files (facts, section 4.1): 16 images a step on 8 GPUs,
batch norms over all of them, stem and layer1 frozen. What is stated as expectation is the AP that they published on
val2017 at one scale, not one measured here. What differs from them, on purpose or because a run here counts epochs:

- 90,000 steps of 16 images are 12.28 epochs of the 117,266 images with objects; here they are 12, and 270,000 are 37.
  The rate falls at the same shares of the run: 60,000 and 80,000 of 90,000; 240,000 and 255,000 of 270,000.
- Biases are not decayed (there they are), and batch-norm statistics are not estimated anew before evaluation.
- On fewer than 16 images a step the rate is scaled down with them, as usual; the number of epochs stays.
- Baselines are ResNet-D, from GluonCV's weights in timm's repository of the hub, so that both sides have the same stem
  and input; the rows of the paper are plain ResNet-50 and -101 with other weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from resnest.data.settings import DataSettings, DetectionSettings
from resnest.detector_spec import DetectorSpec
from resnest.recipes.schema import PUBLISHED_WEIGHTS, Expect, ModelSettings, OptimSettings, Recipe, TrainSettings

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
    """A line of the tables: a detector on a network, and what the authors published for it, percent."""

    network: str
    detector: DetectorSpec
    box: float
    mask: float | None = None
    long: bool = False  # "3x" with "all tricks"

    @property
    def baseline(self) -> str:
        """The network of the paper's row where ours is ResNet-D."""
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


def paper(name: str) -> Recipe:
    """The recipe of one row."""
    row = ROWS[name]
    return Recipe(
        name=name,
        summary=_summary(row),
        task="detection",
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
    """Sizes of the training images: one of some for masks, any between two otherwise."""
    if row.long:
        return DetectionSettings(short=(640, 864), long=1440, crop=0.9)
    if row.detector.masks:
        return DetectionSettings(short=tuple(range(640, 801, 32)), pick="choice")
    return DetectionSettings()


def _summary(row: Row) -> str:
    """Which detector on what, how long, and of a baseline whose figure there is."""
    parts = [f"{row.detector.title} on {row.network}", *(["deformable"] if any(row.detector.deform) else [])]
    parts += ["COCO", f"{_epochs(row)} epochs", *(["all tricks"] if row.long else [])]
    figures = f"{row.box:.2f}" + (f", {row.mask:.2f}" if row.mask else "")
    return ", ".join(parts) + (f" (baseline; the paper's {row.baseline}: {figures})" if row.baseline else "")


def _epochs(row: Row) -> int:
    return 37 if row.long else 12


def _expected(row: Row) -> Expect:
    """Published figures; of a baseline in words alone, because its network is not the same."""
    told = "COCO val2017, published (detectron2, 8 GPUs)"
    if row.baseline:
        masks = f", mask AP {row.mask:.2f}" if row.mask else ""
        return Expect(published=True, note=f"{told} for a plain {row.baseline}: box AP {row.box:.2f}{masks}")
    mask_ap = round(row.mask / 100, 4) if row.mask else None
    return Expect(box_ap=round(row.box / 100, 4), mask_ap=mask_ap, published=True, note=told)


DETECTION: dict[str, Callable[[], Recipe]] = {name: partial(paper, name) for name in ROWS}

"""The card of a detector: its structure ((cascade) R-CNN with a feature pyramid, perhaps masks) and preprocessing.

card = DetectionCard(..., detector=DetectorSpec(masks=True), category_ids=(1, 2), preprocess=DetectionPreprocess())
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.detection.kinds import KINDS
from resnest.errors import ResnestError, check_ranges, unknown
from resnest.runtime.card import AnnotatedCard, parse_integers, parse_sides
from resnest.runtime.preprocess import IMAGENET_MEAN, IMAGENET_STD, Step, check_enlarged, normalise, normalise_step
from resnest.runtime.raster import unit_pixels
from resnest.spec import (
    GROUPS,
    Count,
    HeadNorm,
    NotNegative,
    Positive,
    ProperShare,
    Rate,
    Share,
    SomeShare,
    Whole,
    Width,
)

# --- The structure of a detector on a backbone: a feature pyramid, and (cascade) R-CNN with or without masks, RetinaNet
# or FCOS on it (papers: kinds.py).
# Settings of the paper (arXiv 2004.08955, section 5.2 and its detectron2 configuration files) are the defaults, those
# of one-stage detectors are detectron2's. Nothing here imports torch.

Preset = Literal["detectron2", "torchvision"]
ClassLossName = Literal["softmax", "federated", "eqlv2", "seesaw"]  # detection/class_losses.py

LEVELS = (
    5  # of the feature pyramid: P2 to P6, where RoIs are cut out of the first four; of one-stage detectors P3 to P7
)
UNBUILDABLE = "this detector cannot be built: detector"
CASCADE_IOUS = (0.5, 0.6, 0.7)  # arXiv 1712.00726, section 5
CASCADE_WEIGHTS = ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))  # detectron2
# fields that are tuples, and how many values each has; none: any number
TUPLES = {"deform": 4, "anchor_sizes": LEVELS, "anchor_ratios": None, "pre_nms": 2, "post_nms": 2, "match_iou": 2}
NORMS = ("batch", "group", "none")
CHOICES: dict[str, tuple[str | None, ...]] = {
    "kind": tuple(KINDS),
    "preset": ("detectron2", "torchvision"),
    "norm": NORMS,
    "class_loss": get_args(ClassLossName),
    "head_norm": (*NORMS, None),
    "p6_from": ("c5", "p5", None),
    "box_loss": ("l1", "smooth_l1", "giou"),
}


@dataclass(frozen=True, kw_only=True)
class DetectorSpec:
    """The structure of a detector and the settings of its boxes; what is None has the kind's usual value.

    Raises:
        ResnestError: if the combination cannot be built, or a field is set that this kind does not have.
    """

    kind: str = "rcnn"  # or retinanet, fcos: one stage, no masks
    cascade: bool = False  # three box heads at IoU 0.5, 0.6, 0.7, each starting from the boxes of the one before
    masks: bool = False  # a mask for each object
    preset: Preset = "detectron2"  # whose conventions where the two differ: see docs/detection.md
    deform: tuple[bool, bool, bool, bool] = (False,) * 4  # deformable 3x3 (v2), by stage of the backbone
    deform_groups: Width = 2
    fpn_channels: Width = 256
    # of pyramid and heads, of one-stage detectors of the pyramid alone; group: for one device with few images a step
    norm: HeadNorm = "batch"
    anchor_sizes: tuple[Positive, ...] = (32, 64, 128, 256, 512)  # pixels, one a level
    anchor_ratios: tuple[Positive, ...] = (0.5, 1.0, 2.0)  # height to width
    rpn_batch: Count = 256  # anchors sampled per image for the RPN's losses
    rpn_positive: SomeShare = 0.5  # of them, at most
    pre_nms: tuple[Count, Count] = (2000, 1000)  # proposals a level before suppression: training, evaluation
    post_nms: tuple[Count, Count] = (1000, 1000)  # an image, after it; the paper's cascades train with 2000
    rpn_nms: SomeShare = 0.7  # IoU
    roi_batch: Count = 512  # proposals sampled per image for the heads' losses
    roi_positive: SomeShare = 0.25
    box_convs: Whole = 4  # 4conv1fc; torchvision's: 0 and 2
    box_fcs: Whole = 1
    box_channels: Width = 256
    box_features: Width = 1024
    mask_convs: Whole = 4  # 8 in the paper's "all tricks"
    mask_channels: Width = 256
    class_loss: ClassLossName = "softmax"  # rcnn: of the box heads; the others are for a long tail: see docs/lvis.md
    normed_classifier: bool = False  # rcnn: class logits from normalised features and weights (arXiv 2008.10032)
    # what P6 is made of; none: c5, of FCOS and with preset=torchvision p5
    p6_from: Literal["c5", "p5"] | None = None
    head_convs: Whole = 4  # one-stage: before classes, and before boxes
    head_norm: HeadNorm | None = None  # one-stage: of these convolutions; none: of RetinaNet none, of FCOS group
    anchor_scales: Count = 3  # retinanet: sizes a level, up to twice its own, which is not among them
    match_iou: tuple[Share, Share] = (0.4, 0.5)  # retinanet: background below the one, object from the other on
    center_radius: Positive = 1.5  # fcos: strides around an object's centre that learn it
    focal_alpha: Share = 0.25  # one-stage: weight of objects in the focal loss, the background's is 1 - alpha
    focal_gamma: NotNegative = 2.0  # one-stage: power that makes what is sure count less
    prior: ProperShare = 0.01  # one-stage: score of everything before training
    box_loss: Literal["l1", "smooth_l1", "giou"] = "l1"  # retinanet
    candidates: Count = 1000  # one-stage: boxes a level before suppression
    score_threshold: Rate | None = None  # of what is kept; none: 0.05, of FCOS 0.2
    nms: SomeShare | None = None  # IoU, class by class; none: 0.5, of FCOS 0.6
    max_detections: Width = 100  # an image

    def __post_init__(self) -> None:
        for name in TUPLES:
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise unknown(f"detector.{name}", str(getattr(self, name)), [one for one in choices if one])
        check_ranges(self, f"{UNBUILDABLE}.")
        self._check_fields()
        for name, count in TUPLES.items():
            value = getattr(self, name)
            if count and len(value) != count:
                raise ResnestError(f"{UNBUILDABLE}.{name}={list(value)} must have {count} values")
        if self.head_norm == "batch":
            raise ResnestError(
                f"{UNBUILDABLE}.head_norm=batch: all levels share these convolutions, and their statistics differ. Set"
                " detector.head_norm to group or none"
            )
        if self.match_iou[0] > self.match_iou[1]:
            raise ResnestError(f"{UNBUILDABLE}.match_iou={list(self.match_iou)} must not fall")
        if not self.anchor_ratios:
            raise ResnestError(f"{UNBUILDABLE}.anchor_ratios=[] must have a value")
        for name in ("fpn_channels", "box_channels", "mask_channels"):
            if self.norm == "group" and getattr(self, name) % GROUPS:
                raise ResnestError(
                    f"{UNBUILDABLE}.{name}={getattr(self, name)} with norm=group must be a multiple of {GROUPS}"
                )

    @property
    def title(self) -> str:
        """Its usual name.

        >>> DetectorSpec(cascade=True, masks=True).title
        'Cascade Mask R-CNN'
        """
        if self.kind != "rcnn":
            return KINDS[self.kind].title
        words = ["Cascade"] * self.cascade + ["Mask"] * self.masks
        return " ".join([*(words or ["Faster"]), "R-CNN"])

    @property
    def min_score(self) -> float:
        """Score of what is kept."""
        return float(self._or_usual("score_threshold"))

    @property
    def max_iou(self) -> float:
        """IoU of two boxes of a class that are both kept, at most."""
        return float(self._or_usual("nms"))

    @property
    def head_norm_kind(self) -> HeadNorm:
        """Norm of a one-stage detector's convolutions."""
        norm: HeadNorm = self._or_usual("head_norm")
        return norm

    @property
    def p6_source(self) -> str:
        """The map that P6 is made of."""
        return self.p6_from or ("p5" if self.preset == "torchvision" else str(self._or_usual("p6_from")))

    @property
    def free_size(self) -> bool:
        """Whether exported files take any number of images, and of any size."""
        return KINDS[self.kind].free_size

    def to_card(self) -> dict[str, Any]:
        """What this kind has, nothing left to a default of a later version."""
        content = {name: value for name, value in dataclasses.asdict(self).items() if self._has(name)}
        resolved = {"p6_from": self.p6_source} if "p6_from" in content else {}
        unsaid = {name: value for name, value in KINDS[self.kind].usual.items() if content[name] is None}
        return {**content, **unsaid, **resolved}

    def _has(self, name: str) -> bool:
        return name in KINDS[self.kind].own or not any(name in kind.own for kind in KINDS.values())

    def _or_usual(self, name: str) -> Any:
        value = getattr(self, name)
        return KINDS[self.kind].usual[name] if value is None else value

    def _check_fields(self) -> None:
        """Raises for a field of another kind: nothing would be done with it."""
        for one in dataclasses.fields(self):
            value = getattr(self, one.name)
            if value != one.default and not self._has(one.name):
                owners = ", ".join(name for name, kind in KINDS.items() if one.name in kind.own)
                raise ResnestError(
                    f"{UNBUILDABLE}.{one.name}={_shown(value)} is a setting of {owners}, and detector.kind={self.kind}"
                    f" has no use for it: leave it out, or set it to {_shown(one.default)}"
                )


def _shown(value: Any) -> str:
    """As settings are written."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(list(value) if isinstance(value, tuple) else value)


# --- Preprocessing of a detector: image resized by its short side, normalised, padded. No torch ---

DIVISOR = 32  # of a detector's input: the coarsest map that its pyramid is built on has this stride


@dataclass(frozen=True, kw_only=True)
class DetectionPreprocess:
    """Preprocessing of a detector: resized to a short side of `short`, and a long side of at most `long`.

    DetectionPreprocess(short=800, long=1333)(image).shape      # (3, 800, 1088) of a 640 x 480 photograph

    What a network gets is padded with zeros at the right and bottom, to a multiple of 32 pixels or to `canvas`.
    """

    short: int = 800  # pixels (detectron2's INPUT.MIN_SIZE_TEST)
    long: int = 1333
    canvas: tuple[int, int] | None = None  # height, width of what an exported file takes; the image fits into it
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    value_range: float | None = None  # the value that is 1.0 before mean and std; None: by each picture's data type

    def describe(self) -> str:
        """The size, for people."""
        return f"{self.short} pixels, the long side {self.long} at most"

    def scaled_size(self, width: int, height: int) -> tuple[int, int]:
        """Resized width and height of an image of this size, with detectron2's rounding."""
        short, long = min(width, height), max(width, height)
        scale = min(self.short / short, self.long / long)
        if self.canvas:
            scale = min(scale, self.canvas[0] / height, self.canvas[1] / width)
        wide, high = int(width * scale + 0.5), int(height * scale + 0.5)
        if self.canvas:
            high, wide = min(high, self.canvas[0]), min(wide, self.canvas[1])
        return max(wide, 1), max(high, 1)

    def padded_size(self, width: int, height: int) -> tuple[int, int]:
        """Height and width of the network's input for an image of this size."""
        if self.canvas:
            return self.canvas
        wide, high = self.scaled_size(width, height)
        return -(-high // DIVISOR) * DIVISOR, -(-wide // DIVISOR) * DIVISOR

    def steps(self) -> list[Step]:
        fit: Step = {"do": "fit", "short": self.short, "long": self.long, "filter": "bilinear"}
        pad: Step = {"do": "pad", "multiple": DIVISOR}
        if self.canvas:
            fit["canvas"] = list(self.canvas)
            pad = {"do": "pad", "height": self.canvas[0], "width": self.canvas[1]}
        return [fit, normalise_step(self), pad]

    def pixels(self, image: Image.Image) -> Image.Image:
        """The resized image, before normalisation."""
        return image.resize(self.scaled_size(*image.size), Image.Resampling.BILINEAR)

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        """A picture -> (C, H, W), normalised, zero-padded. Raises BadImage, without the name of the file."""
        check_enlarged(image.size, self.padded_size(*image.size)[::-1])
        inner = normalise(unit_pixels(self.pixels(image), self.value_range), self.mean, self.std)
        padded = np.zeros((len(inner), *self.padded_size(*image.size)), np.float32)
        padded[:, : inner.shape[1], : inner.shape[2]] = inner
        return padded


class Classes(NamedTuple):
    """Names, ids and colours of the classes."""

    names: tuple[str, ...]  # (K,)
    ids: tuple[int, ...]  # (K,) what COCO files call them


@dataclass(frozen=True, kw_only=True)
class DetectionCard(AnnotatedCard):
    """The card of a detector, with masks or without."""

    task = "detection"
    hub_metric = ("box_ap", "mAP")
    figure_titles: ClassVar = {
        "box_ap": "box AP",
        "box_ap50": "box AP50",
        "mask_ap": "mask AP",
        "mask_ap50": "mask AP50",
    }
    usage = (".shown().counts()", "--draw drawn")

    preprocess: DetectionPreprocess
    detector: DetectorSpec  # the heads on the network
    # the usual sizes of its training pictures, {"640x480": 205}: width x height and how many, the most frequent first
    image_sizes: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "detector", DetectorSpec(**self.detector.to_card()))  # nothing by default

    @classmethod
    def preprocess_type(cls) -> type[DetectionPreprocess]:
        return DetectionPreprocess

    @property
    def classes(self) -> Any:
        """Names, ids and colours of the classes."""
        return Classes(self.class_names, self.category_ids)

    @property
    def pipeline_tag(self) -> str:  # type: ignore[override]
        return "image-segmentation" if self.detector.masks else "object-detection"

    def describe_network(self, paper: str) -> str:
        return f"{self.detector.title} on a {paper} (`{self.architecture}`)"

    def describe_purpose(self) -> str:
        count, what = len(self.class_names), "boxes and masks" if self.detector.masks else "boxes"
        kinds = f"objects of {count} classes" if count > 1 else "one class of objects"
        return f"finds {kinds}, with {what}"

    def describe_input(self) -> str:
        scaled = self.preprocess
        return (
            f"{self.describe_pixels()}; the short side is resized to {scaled.short} pixels, unless the long one would"
            f" pass {scaled.long}; {self.describe_normalisation()}."
        )

    def own_keys(self) -> dict[str, Any]:
        sizes = {"image_sizes": dict(self.image_sizes)} if self.image_sizes else {}
        return {"detector": self.detector.to_card(), **sizes, **super().own_keys()}

    @classmethod
    def parse_own(cls, ours: Mapping[str, Any]) -> dict[str, Any]:
        sizes = {}
        for size, count in dict(ours.get("image_sizes", {})).items():
            parse_sides([int(side) for side in size.split("x")], "image_sizes")
            [sizes[size]] = parse_integers([count], "image_sizes")
        return {"detector": DetectorSpec(**ours["detector"]), "image_sizes": sizes, **super().parse_own(ours)}

    @classmethod
    def parse_preprocess(cls, content: dict[str, Any]) -> DetectionPreprocess:
        content["canvas"] = parse_sides(content["canvas"], "canvas") if content["canvas"] else None
        parse_sides([content["short"], content["long"]], "short and long")
        return DetectionPreprocess(**content)

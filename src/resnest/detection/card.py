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

from resnest.errors import ResnestError, check_ranges, unknown
from resnest.runtime.card import AnnotatedCard, parse_integers, parse_sides
from resnest.runtime.preprocess import IMAGENET_MEAN, IMAGENET_STD, Step, check_enlarged, normalise, normalise_step
from resnest.runtime.raster import unit_pixels
from resnest.spec import GROUPS, Count, HeadNorm, Positive, Rate, SomeShare, Whole, Width

# --- The structure of a detector on a backbone: (cascade) R-CNN with a feature pyramid, with or without masks.
# Faster R-CNN: arXiv 1506.01497. Mask R-CNN: 1703.06870. Cascade R-CNN: 1712.00726. Feature pyramid: 1612.03144.
# Settings of the paper (arXiv 2004.08955, section 5.2 and its detectron2 configuration files) are the defaults.
# Nothing here imports torch.

Preset = Literal["detectron2", "torchvision"]
ClassLossName = Literal["softmax", "federated", "eqlv2", "seesaw"]  # detection/class_losses.py

LEVELS = 5  # P2 to P6 of the feature pyramid; RoIs are cut out of the first four
UNBUILDABLE = "this detector cannot be built: detector"
CASCADE_IOUS = (0.5, 0.6, 0.7)  # arXiv 1712.00726, section 5
CASCADE_WEIGHTS = ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))  # detectron2


@dataclass(frozen=True, kw_only=True)
class DetectorSpec:
    """The structure of a detector and the settings of its boxes; the defaults are the paper's.

    Raises:
        ResnestError: if the combination cannot be built.
    """

    cascade: bool = False  # three box heads at IoU 0.5, 0.6, 0.7, each starting from the boxes of the one before
    masks: bool = False  # a mask for each object
    preset: Preset = "detectron2"  # whose conventions where the two differ: see docs/detection.md
    deform: tuple[bool, bool, bool, bool] = (False,) * 4  # deformable 3x3 (v2), by stage of the backbone
    deform_groups: Width = 2
    fpn_channels: Width = 256
    norm: HeadNorm = "batch"  # of pyramid and heads; group: for one device with few images a step
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
    class_loss: ClassLossName = "softmax"  # of the box heads; the others are for a long tail: see docs/lvis.md
    normed_classifier: bool = False  # class logits from normalised features and weights (arXiv 2008.10032)
    score_threshold: Rate = 0.05  # of what is kept
    nms: SomeShare = 0.5  # IoU, class by class
    max_detections: Width = 100  # an image

    def __post_init__(self) -> None:
        for name in ("deform", "anchor_sizes", "anchor_ratios", "pre_nms", "post_nms"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, choices in (
            ("preset", get_args(Preset)),
            ("norm", ("batch", "group", "none")),
            ("class_loss", get_args(ClassLossName)),
        ):
            if getattr(self, name) not in choices:
                raise unknown(f"detector.{name}", str(getattr(self, name)), choices)
        check_ranges(self, f"{UNBUILDABLE}.")
        for name, count in (("deform", 4), ("anchor_sizes", LEVELS), ("pre_nms", 2), ("post_nms", 2)):
            value = getattr(self, name)
            if len(value) != count:
                raise ResnestError(f"{UNBUILDABLE}.{name}={list(value)} must have {count} values")
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
        words = ["Cascade"] * self.cascade + ["Mask"] * self.masks
        return " ".join([*(words or ["Faster"]), "R-CNN"])


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
        return {"detector": dataclasses.asdict(self.detector), **sizes, **super().own_keys()}

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

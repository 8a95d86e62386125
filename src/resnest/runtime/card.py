"""The model card beside the weights: `config.json`, with what it takes to use them.

The file has the shape that timm's `local-dir:` and the hub read, plus one key `resnest` with our structure.

    card = ModelCard.read(Path("runs/a"))
    card.class_names, card.preprocess

Of what timm cannot build, such as a detector, the file has our key and the names of the classes alone.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resnest.detector_spec import DetectorSpec
from resnest.errors import ResnestError, unknown
from resnest.files import CARD_NAME
from resnest.runtime import imagenet
from resnest.runtime.label_map import PixelClasses
from resnest.runtime.panoptic_map import PanopticClasses
from resnest.runtime.preprocess import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    LEAST,
    MOST_WINDOW,
    AnyPreprocess,
    DetectionPreprocess,
    Preprocess,
    SegmentationPreprocess,
)
from resnest.segmenter_spec import PanopticSpec, SegmenterSpec
from resnest.spec import EXPANSION, PUBLISHED, Spec, find_spec

# What a task's network has beside the backbone, and its preprocessing
KINDS: dict[str, tuple[tuple[str, ...], type]] = {
    "classification": ((), Preprocess),
    "detection": (("detector",), DetectionPreprocess),
    "panoptic": (("detector", "panoptic"), DetectionPreprocess),
    "segmentation": (("segmenter",), SegmentationPreprocess),
}
NOUNS = {
    "classification": "a classifier",
    "detection": "a detector",
    "panoptic": "a panoptic detector",
    "segmentation": "a segmenter",
}
LONGEST = 8192  # pixels of a side that a detector's images may get, as in training's settings


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Structure, classes and preprocessing of one set of weights, and what was measured with them."""

    architecture: str  # official name, or "resnest" for a free spec
    spec: Spec
    class_names: tuple[str, ...]  # for people, all different
    preprocess: AnyPreprocess
    class_keys: tuple[str, ...] = ()  # what data sets call the classes, where that differs: ImageNet's synsets
    task: str = "classification"
    multi_label: bool = False  # a score for each class by itself (sigmoid), not one label (softmax)
    in_chans: int = 3
    figures: dict[str, float] = field(default_factory=dict)  # e.g. {"top1": 0.91}, fractions
    detector: DetectorSpec | None = None  # of tasks detection and panoptic: what stands on the network
    panoptic: PanopticSpec | None = None  # of task panoptic: what it has beside the detector
    segmenter: SegmenterSpec | None = None  # of task segmentation: what stands on the network
    category_ids: tuple[int, ...] = ()  # of all tasks but classification: the data's numbers of the classes
    things: int = 0  # of task panoptic: the first so many classes are things, the others stuff
    colours: tuple[tuple[int, int, int], ...] = ()  # of pixel tasks: the data's, one a class; none: of our own

    def __post_init__(self) -> None:
        if self.task not in KINDS:
            raise unknown("task", self.task, KINDS)
        parts, preprocess = KINDS[self.task]
        for name in ("detector", "panoptic", "segmenter"):
            if (name in parts) != (getattr(self, name) is not None):
                needs = "needs" if name in parts else "has no"
                raise ResnestError(f"a model card of the task {self.task} {needs} {name}")
        if not isinstance(self.preprocess, preprocess):
            raise ResnestError(f"a model card of the task {self.task} has another task's preprocessing")
        if self.panoptic and not 1 <= self.things < len(self.class_names):
            raise ResnestError(f"things={self.things} of a model card: some classes must be things, and some stuff")
        if self.colours and len(self.colours) != len(self.class_names):
            raise ResnestError(f"a model card has {len(self.colours)} colours for {len(self.class_names)} classes")
        if self.in_chans == 3:
            _check_colours(self.preprocess)
        if parts and len(set(self.class_names)) < len(self.class_names):
            raise ResnestError("a model card has two classes of one name")
        if parts and len(set(self.category_ids)) != len(self.class_names):
            raise ResnestError(
                f"category_ids={list(self.category_ids)} of a model card must be {len(self.class_names)} different"
                " numbers, one a class"
            )

    @property
    def classifier_input(self) -> Preprocess:
        """The preprocessing. Raises ResnestError for a detector: what asks for it is for classifiers."""
        if not isinstance(self.preprocess, Preprocess):
            raise ResnestError(f"this model is for {self.task}, and a classifier is needed here")
        return self.preprocess

    @property
    def detector_input(self) -> DetectionPreprocess:
        """The preprocessing. Raises ResnestError for a classifier: what asks for it is for detectors."""
        if not isinstance(self.preprocess, DetectionPreprocess):
            raise ResnestError(f"this model is for {self.task}, and a detector is needed here")
        return self.preprocess

    @property
    def segmenter_input(self) -> SegmentationPreprocess:
        """The preprocessing. Raises ResnestError for all but segmenters: what asks for it is for them."""
        if not isinstance(self.preprocess, SegmentationPreprocess):
            raise ResnestError(f"this model is for {self.task}, and a segmenter is needed here")
        return self.preprocess

    def with_window(self, window: int) -> ModelCard:
        """The same, looking at pictures in squares of `window` pixels a side.

        Raises:
            ResnestError: not a segmenter, or one whose file takes one size; no such window.
        """
        preprocess = self.segmenter_input
        if preprocess.canvas:
            raise ResnestError("this file takes pictures of one size: export it with a free size to use windows")
        if not LEAST <= window <= MOST_WINDOW:
            raise ResnestError(f"a window of {window} pixels: expected {LEAST} to {MOST_WINDOW}")
        return dataclasses.replace(self, preprocess=dataclasses.replace(preprocess, window=window))

    @property
    def pixel_classes(self) -> PixelClasses:
        """Of task segmentation."""
        return PixelClasses(self.class_names, self.category_ids, self.colours)

    @property
    def panoptic_classes(self) -> PanopticClasses:
        """Of task panoptic."""
        return PanopticClasses(self.class_names, self.category_ids, self.things, self.colours)

    @property
    def fits_timm(self) -> bool:
        """Whether timm's `local-dir:` can build the network."""
        return self.task == "classification" and _timm_model(self.architecture, self.spec)["architecture"] != "resnest"

    def to_json(self) -> str:
        ours = {
            "task": self.task,
            "multi_label": self.multi_label,
            "name": self.architecture,
            "in_chans": self.in_chans,
            "spec": dataclasses.asdict(self.spec),
            "preprocess": dataclasses.asdict(self.preprocess),
            "class_keys": list(self.class_keys),
            "figures": {name: value for name, value in self.figures.items() if math.isfinite(value)},  # JSON has no NaN
        }
        parts, _ = KINDS[self.task]
        ours |= {name: dataclasses.asdict(getattr(self, name)) for name in parts}
        if parts:
            ours["category_ids"] = list(self.category_ids)
        if self.panoptic:
            ours["things"] = self.things
        if self.colours:
            ours["colours"] = [list(colour) for colour in self.colours]
        return json.dumps({**self._for_timm(), "resnest": ours}, indent=2) + "\n"

    def _for_timm(self) -> dict[str, Any]:
        names = list(self.class_names)
        if not isinstance(self.preprocess, Preprocess):
            return {"label_names": names}
        side = self.preprocess.size
        return {
            **_timm_model(self.architecture, self.spec),
            "num_classes": len(self.class_names),
            "num_features": self.spec.planes[-1] * EXPANSION,
            "global_pool": "avg",
            "label_names": names,
            "pretrained_cfg": {
                "input_size": [self.in_chans, side, side],
                "crop_pct": self.preprocess.crop_share,
                "crop_mode": "center",
                "interpolation": self.preprocess.interpolation,
                "mean": list(self.preprocess.mean),
                "std": list(self.preprocess.std),
                "num_classes": len(self.class_names),
                "first_conv": "conv1.0" if self.spec.stem == "deep" else "conv1",
                "classifier": "fc",
            },
        }

    @classmethod
    def read(cls, directory: Path) -> ModelCard:
        """Raises ResnestError if the directory has no card, or one that cannot be understood."""
        path = directory / CARD_NAME
        if not path.is_file():
            raise ResnestError(f"{directory} has no {CARD_NAME}: not a finished run or a saved model")
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ResnestError(f"{path} cannot be understood as a model card: {_said(error)}") from None
        return cls.from_json(text, where=str(path))

    @classmethod
    def from_json(cls, text: str, *, where: str) -> ModelCard:
        """The card that `to_json` wrote, or timm; `where` is named in the ResnestError for one that makes no sense."""
        try:
            return cls._parse(json.loads(text))
        except (RecursionError, OverflowError, KeyError, TypeError, AttributeError, ValueError) as error:
            raise ResnestError(f"{where} cannot be understood as a model card: {_said(error)}") from None

    @classmethod
    def _parse(cls, content: dict[str, Any]) -> ModelCard:
        if "resnest" not in content:
            return cls._parse_timm(content)
        ours = content["resnest"]
        return cls(
            architecture=ours["name"],
            spec=Spec(**ours["spec"]),
            class_names=tuple(content["label_names"]),
            preprocess=_preprocess(ours["task"], {**ours["preprocess"]}),
            task=ours["task"],
            multi_label=_claim(ours.get("multi_label", False), "multi_label"),
            in_chans=ours["in_chans"],
            class_keys=tuple(ours.get("class_keys", ())),
            figures=ours["figures"],
            detector=DetectorSpec(**ours["detector"]) if "detector" in ours else None,
            panoptic=PanopticSpec(**ours["panoptic"]) if "panoptic" in ours else None,
            segmenter=SegmenterSpec(**ours["segmenter"]) if "segmenter" in ours else None,
            category_ids=tuple(_whole(ours.get("category_ids", ()), "category_ids")),
            things=_whole([ours.get("things", 0)], "things")[0],
            colours=tuple(_colour(one) for one in ours.get("colours", ())),
        )

    @classmethod
    def _parse_timm(cls, content: dict[str, Any]) -> ModelCard:
        """A card that timm wrote: the network's name, and preprocessing in `pretrained_cfg`."""
        spec, name = find_spec(content["architecture"])
        changed = _apply_timm_arguments(spec, content.get("model_args") or {})
        spec, name = changed, name if changed == spec else "resnest"
        settings = content["pretrained_cfg"]
        channels, size, _ = settings["input_size"]
        names, keys = _timm_classes(content, int(content["num_classes"]))
        return cls(
            architecture=name,
            spec=spec,
            class_names=names,
            class_keys=keys,
            in_chans=channels,
            preprocess=Preprocess(
                size=size,
                crop=settings.get("crop_pct", 0.875),
                interpolation=settings.get("interpolation", "bicubic"),
                mean=tuple(settings.get("mean", IMAGENET_MEAN)),
                std=tuple(settings.get("std", IMAGENET_STD)),
                first="resize",
            ),
        )

    @classmethod
    def of_imagenet(cls, architecture: str, preprocess: Preprocess) -> ModelCard:
        """The card of published weights: the thousand classes of ImageNet-1k."""
        return cls(
            architecture=architecture,
            spec=find_spec(architecture)[0],
            class_names=imagenet.class_names(),
            class_keys=imagenet.synsets(),
            preprocess=preprocess,
        )


def _timm_model(architecture: str, spec: Spec) -> dict[str, Any]:
    """What timm must create: a name of its own, or one with the arguments that make it this network."""
    published = PUBLISHED.get(architecture)
    if published and published.timm:
        return {"architecture": published.timm}
    if spec.radix == 0:
        return {"architecture": architecture}
    arguments = {
        "layers": list(spec.depths),
        "stem_width": spec.stem_width,
        "base_width": spec.width,
        "cardinality": spec.cardinality,
        "block_args": {"radix": spec.radix, "avd": spec.avd, "avd_first": spec.avd_first},
    }
    buildable = spec.planes == Spec().planes and spec.stem == "deep" and spec.attention_norm != "layer"
    return {"architecture": "resnest50d", "model_args": arguments} if buildable else {"architecture": architecture}


def _apply_timm_arguments(spec: Spec, arguments: dict[str, Any]) -> Spec:
    """The structure that timm would build with these arguments of its `create_model`.

    Raises:
        ValueError: an argument that changes the network in a way that is not known here.
    """
    names = {"layers": "depths", "stem_width": "stem_width", "base_width": "width", "cardinality": "cardinality"}
    inner = {name: name for name in ("radix", "avd", "avd_first")}
    harmless = {"num_classes": None, "in_chans": None, "global_pool": "avg", "output_stride": 32}
    changes: dict[str, Any] = {names[key]: value for key, value in arguments.items() if key in names}
    changes |= {inner[key]: value for key, value in arguments.get("block_args", {}).items() if key in inner}
    for key, value in arguments.items():
        if key not in (*names, "block_args") and not (key in harmless and harmless[key] in (None, value)):
            raise ValueError(f"timm's argument {key}={value!r} changes the network in a way that is not known here")
    return dataclasses.replace(spec, **changes)


def _timm_classes(content: dict[str, Any], count: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and keys; timm leaves them out for ImageNet, and its names of ImageNet are the synsets."""
    labels = [str(name) for name in content.get("label_names") or ()]
    if count == imagenet.COUNT and (not labels or labels == list(imagenet.synsets())):
        return imagenet.class_names(), imagenet.synsets()
    if len(labels) != count:
        raise ValueError(f"label_names has {len(labels)} names for {count} classes")
    return tuple(labels), ()


def _preprocess(task: str, told: dict[str, Any]) -> AnyPreprocess:
    for key in ("mean", "std"):
        told[key] = tuple(told[key])
    if task == "classification":
        return Preprocess(**told)
    told["canvas"] = _sides(told["canvas"], "canvas") if told["canvas"] else None
    if task == "segmentation":
        for key, least, most in (("long", 1, LONGEST), ("window", LEAST, MOST_WINDOW)):
            if told[key] is not None and not least <= _whole([told[key]], key)[0] <= most:
                raise ValueError(f"{key} is {told[key]}, not a number from {least} to {most}")
        if told["canvas"] and min(told["canvas"]) < LEAST:
            raise ValueError(f"canvas is {told['canvas']}: a segmenter sees {LEAST} pixels a side or more")
        return SegmentationPreprocess(**told)
    _sides([told["short"], told["long"]], "short and long")
    return DetectionPreprocess(**told)


def _sides(values: Any, name: str) -> tuple[int, ...]:
    sides = tuple(_whole(values, name))
    if len(sides) != 2 or not all(1 <= side <= LONGEST for side in sides):
        raise ValueError(f"{name} is {values!r}, not two numbers from 1 to {LONGEST}")
    return sides


def _check_colours(preprocess: AnyPreprocess) -> None:
    """Raises ResnestError for what pixels cannot be normalised with."""
    for name in ("mean", "std"):
        values = getattr(preprocess, name)
        numbers = all(type(value) in (int, float) and math.isfinite(value) for value in values)
        if len(values) != 3 or not numbers or (name == "std" and min(values) <= 0):
            kind = "numbers above 0" if name == "std" else "numbers"
            raise ResnestError(f"{name}={list(values)} of a model card must be three {kind}, one a channel")


def _colour(value: Any) -> tuple[int, int, int]:
    red, green, blue = _whole(value, "colours")
    if not all(0 <= part <= 255 for part in (red, green, blue)):
        raise ValueError(f"colours has {value!r}, not three numbers from 0 to 255")
    return red, green, blue


def _whole(values: Any, name: str) -> list[int]:
    if not isinstance(values, list | tuple) or not all(type(value) is int for value in values):
        raise ValueError(f"{name} is {values!r}, not whole numbers")
    return list(values)


def _claim(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}, not true or false")
    return value


def _said(error: Exception) -> str:
    return f"the key {error} is missing" if isinstance(error, KeyError) else str(error)

"""The card of a classifier; timm's `local-dir:` reads its file too.

card = ClassificationCard(architecture="resnest50", spec=Spec(), class_names=("rose", "tulip"), preprocess=Preprocess())
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, ClassVar

from resnest.runtime.card import ModelCard, per_channel
from resnest.runtime.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from resnest.spec import EXPANSION, PUBLISHED, Spec, find_spec, macs, parameters

# --- The 1000 classes of ImageNet-1k (ILSVRC 2012) in the order of the published networks' outputs: sorted synsets.

IMAGENET_COUNT = 1000
_TWICE = {"n02012849": "crane (bird)", "n03126707": "crane (machine)"}  # one name for two classes in ImageNet


@cache
def imagenet_synsets() -> tuple[str, ...]:
    """WordNet ids, which name the folders of the data set."""
    return tuple(synset for synset, _ in _lines())


@cache
def imagenet_names() -> tuple[str, ...]:
    """A short name each, all different: the first synonym, or all of them where the first is not enough."""
    first = [names.split(",")[0] for _, names in _lines()]
    shared = {name for name, count in Counter(first).items() if count > 1}
    return tuple(
        _TWICE.get(synset, names if short in shared else short)
        for (synset, names), short in zip(_lines(), first, strict=True)
    )


@cache
def _lines() -> tuple[tuple[str, str], ...]:
    text = files("resnest.classification").joinpath("imagenet.txt").read_text(encoding="utf-8")
    pairs = [line.split(" ", 1) for line in text.splitlines()]
    return tuple((synset, names) for synset, names in pairs)


@dataclass(frozen=True, kw_only=True)
class ClassificationCard(ModelCard):
    """The card of a classifier, single-label or multi-label."""

    task = "classification"
    fits_backbone_layouts = True
    pipeline_tag = "image-classification"
    hub_metric = ("top1", "accuracy")
    figure_titles: ClassVar = {
        "top1": "top-1",
        "top5": "top-5",
        "map": "mAP",
        "f1_micro": "F1, all labels",
        "f1_macro": "F1, mean of classes",
    }
    usage = (".top(3)", "--top 3")

    preprocess: Preprocess
    multi_label: bool = False  # an independent score for each class (sigmoid), not one label (softmax)

    @classmethod
    def preprocess_type(cls) -> type[Preprocess]:
        return Preprocess

    @property
    def fits_timm(self) -> bool:
        return bool(_timm_model(self.architecture, self.spec)["architecture"] != "resnest")

    def own_keys(self) -> dict[str, Any]:
        return {"multi_label": self.multi_label}

    @classmethod
    def parse_own(cls, ours: Mapping[str, Any]) -> dict[str, Any]:
        multi_label = ours.get("multi_label", False)
        if not isinstance(multi_label, bool):
            raise ValueError(f"multi_label is {multi_label!r}, not true or false")
        return {"multi_label": multi_label}

    def hub_keys(self) -> dict[str, Any]:
        return {
            **_timm_model(self.architecture, self.spec),
            "num_classes": len(self.class_names),
            "num_features": self.spec.planes[-1] * EXPANSION,
            "global_pool": "avg",
            "label_names": list(self.class_names),
            "pretrained_cfg": {
                "input_size": [self.in_chans, self.preprocess.size, self.preprocess.size],
                "crop_pct": self.preprocess.crop_fraction,
                "crop_mode": "center",
                "interpolation": self.preprocess.interpolation,
                "mean": list(self.preprocess.mean),
                "std": list(self.preprocess.std),
                "num_classes": len(self.class_names),
                "first_conv": "conv1.0" if self.spec.stem == "deep" else "conv1",
                "classifier": "fc",
            },
        }

    def describe_network(self, paper: str) -> str:
        structure = {"num_classes": len(self.class_names), "in_chans": self.in_chans}
        count = parameters(self.spec, **structure) / 1e6
        cost = macs(self.spec, size=self.preprocess.size, **structure) / 1e9
        return f"{paper} (`{self.architecture}`, {count:.2f} million parameters, {cost:.2f} GMACs)"

    def describe_purpose(self) -> str:
        count = len(self.class_names)
        return f"says which of {count} classes a picture shows" if self.multi_label else f"tells {count} classes apart"

    def describe_input(self) -> str:
        settings = self.preprocess
        order = (
            "the centre is cut out and resized"
            if settings.first == "crop"
            else "the short side is resized and the centre cut out"
        )
        return (
            f"{self.describe_pixels()}, {settings.size} x {settings.size} pixels; {order} ({settings.interpolation}, "
            f"{settings.crop_fraction:.3f} of the short side); {self.describe_normalisation()}."
        )

    @classmethod
    def parse_foreign(cls, content: Mapping[str, Any]) -> ClassificationCard:
        """Parse a card written by timm: the network's name, and preprocessing in `pretrained_cfg`."""
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
                mean=per_channel(settings.get("mean", IMAGENET_MEAN), channels),
                std=per_channel(settings.get("std", IMAGENET_STD), channels),
                first="resize",
            ),
        )

    @classmethod
    def of_imagenet(cls, architecture: str, preprocess: Preprocess) -> ClassificationCard:
        """The card of published weights: the thousand classes of ImageNet-1k."""
        return cls(
            architecture=architecture,
            spec=find_spec(architecture)[0],
            class_names=imagenet_names(),
            class_keys=imagenet_synsets(),
            preprocess=preprocess,
        )


def _timm_model(architecture: str, spec: Spec) -> dict[str, Any]:
    """timm's name for the network, or a name with the arguments that build it."""
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


def _timm_classes(content: Mapping[str, Any], count: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and keys; timm leaves them out for ImageNet, and its names of ImageNet are the synsets."""
    labels = [str(name) for name in content.get("label_names") or ()]
    if count == IMAGENET_COUNT and (not labels or labels == list(imagenet_synsets())):
        return imagenet_names(), imagenet_synsets()
    if len(labels) != count:
        raise ValueError(f"label_names has {len(labels)} names for {count} classes")
    return tuple(labels), ()

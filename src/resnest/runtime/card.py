"""The model card beside the weights: `config.json`, with what it takes to use them.

The file has the shape that timm's `local-dir:` and the hub read, plus one key `resnest` with our structure.

    card = ModelCard.read(Path("runs/a"))
    card.class_names, card.preprocess
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resnest.errors import ResnestError
from resnest.runtime import imagenet
from resnest.runtime.files import CARD_NAME
from resnest.runtime.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from resnest.spec import EXPANSION, PUBLISHED, Spec, find_spec


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Structure, classes and preprocessing of one set of weights, and what was measured with them."""

    architecture: str  # official name, or "resnest" for a free spec
    spec: Spec
    class_names: tuple[str, ...]  # for people, all different
    preprocess: Preprocess
    class_keys: tuple[str, ...] = ()  # what data sets call the classes, where that differs: ImageNet's synsets
    task: str = "classification"
    multi_label: bool = False  # a score for each class by itself (sigmoid), not one label (softmax)
    in_chans: int = 3
    figures: dict[str, float] = field(default_factory=dict)  # e.g. {"top1": 0.91}, fractions

    @property
    def fits_timm(self) -> bool:
        """Whether timm's `local-dir:` can build the network."""
        return bool(_timm_model(self.architecture, self.spec)["architecture"] != "resnest")

    def to_json(self) -> str:
        side = self.preprocess.size
        timm_part = {
            **_timm_model(self.architecture, self.spec),
            "num_classes": len(self.class_names),
            "num_features": self.spec.planes[-1] * EXPANSION,
            "global_pool": "avg",
            "label_names": list(self.class_names),
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
        ours = {
            "task": self.task,
            "multi_label": self.multi_label,
            "name": self.architecture,
            "in_chans": self.in_chans,
            "spec": dataclasses.asdict(self.spec),
            "preprocess": dataclasses.asdict(self.preprocess),
            "class_keys": list(self.class_keys),
            "figures": self.figures,
        }
        return json.dumps({**timm_part, "resnest": ours}, indent=2) + "\n"

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
        preprocess = {**ours["preprocess"]}
        for key in ("mean", "std"):
            preprocess[key] = tuple(preprocess[key])
        return cls(
            architecture=ours["name"],
            spec=Spec(**ours["spec"]),
            class_names=tuple(content["label_names"]),
            preprocess=Preprocess(**preprocess),
            task=ours["task"],
            multi_label=_claim(ours.get("multi_label", False), "multi_label"),
            in_chans=ours["in_chans"],
            class_keys=tuple(ours.get("class_keys", ())),
            figures=ours["figures"],
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


def _claim(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}, not true or false")
    return value


def _said(error: Exception) -> str:
    return f"the key {error} is missing" if isinstance(error, KeyError) else str(error)

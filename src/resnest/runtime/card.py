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
from resnest.runtime.preprocess import Preprocess
from resnest.spec import EXPANSION, PUBLISHED, Spec

FILE_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Structure, classes and preprocessing of one set of weights, and what was measured with them."""

    architecture: str  # official name, or "resnest" for a free spec
    spec: Spec
    class_names: tuple[str, ...]
    preprocess: Preprocess
    task: str = "classification"
    in_chans: int = 3
    figures: dict[str, float] = field(default_factory=dict)  # e.g. {"top1": 0.91}, fractions

    def to_json(self) -> str:
        published = PUBLISHED.get(self.architecture)
        side = self.preprocess.size
        timm_part = {
            "architecture": published.timm if published and published.timm else self.architecture,
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
            "name": self.architecture,
            "in_chans": self.in_chans,
            "spec": dataclasses.asdict(self.spec),
            "preprocess": dataclasses.asdict(self.preprocess),
            "figures": self.figures,
        }
        return json.dumps({**timm_part, "resnest": ours}, indent=2) + "\n"

    @classmethod
    def read(cls, directory: Path) -> ModelCard:
        """Raises ResnestError if the directory has no card, or one that cannot be understood."""
        path = directory / FILE_NAME
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls._parse(content)
        except FileNotFoundError:
            raise ResnestError(f"{directory} has no {FILE_NAME}: not a finished run or a saved model") from None
        except (OSError, json.JSONDecodeError, KeyError, TypeError, AttributeError, ValueError) as error:
            raise ResnestError(f"{path} cannot be understood as a model card: {_said(error)}") from None

    @classmethod
    def _parse(cls, content: dict[str, Any]) -> ModelCard:
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
            in_chans=ours["in_chans"],
            figures=ours["figures"],
        )


def _said(error: Exception) -> str:
    return f"the key {error} is missing" if isinstance(error, KeyError) else str(error)

"""ResNeSt: split-attention networks, trained, evaluated and used.

    import resnest
    net = resnest.create_model("resnest50", num_classes=10)
    predict = resnest.Predictor("runs/flowers")

Names are imported when they are first used, so that `import resnest` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "1.0.0.dev0"

if TYPE_CHECKING:
    from resnest.checkpoints.create import create_backbone, create_model
    from resnest.detection.detector import create_detector
    from resnest.detection.spec import DetectorSpec
    from resnest.errors import ResnestError
    from resnest.exporters.exporting import export
    from resnest.inference.evaluation import evaluate
    from resnest.inference.model import Model
    from resnest.inference.predicting import Predictor
    from resnest.segmentation.segmenter import create_segmenter
    from resnest.segmentation.spec import SegmenterSpec
    from resnest.spec import Spec, list_models
    from resnest.training.train import train

_HOME = {
    "DetectorSpec": "resnest.detection.spec",
    "Model": "resnest.inference.model",
    "Predictor": "resnest.inference.predicting",
    "ResnestError": "resnest.errors",
    "SegmenterSpec": "resnest.segmentation.spec",
    "Spec": "resnest.spec",
    "create_backbone": "resnest.checkpoints.create",
    "create_detector": "resnest.detection.detector",
    "create_model": "resnest.checkpoints.create",
    "create_segmenter": "resnest.segmentation.segmenter",
    "evaluate": "resnest.inference.evaluation",
    "export": "resnest.exporters.exporting",
    "list_models": "resnest.spec",
    "train": "resnest.training",
}

__all__ = [
    "DetectorSpec",
    "Model",
    "Predictor",
    "ResnestError",
    "SegmenterSpec",
    "Spec",
    "create_backbone",
    "create_detector",
    "create_model",
    "create_segmenter",
    "evaluate",
    "export",
    "list_models",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'resnest' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

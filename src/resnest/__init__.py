"""ResNeSt: split-attention networks; training, evaluation, prediction, export.

    import resnest
    net = resnest.create_model("resnest50", num_classes=10)
    predict = resnest.Predictor("runs/flowers")

Names are imported at their first use, so that `import resnest` is cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "1.0.0.dev0"

if TYPE_CHECKING:
    from resnest.checkpoints.convert import convert
    from resnest.checkpoints.loading import create_backbone, create_model
    from resnest.classification.result import Classification, MultiLabel
    from resnest.comparison.comparing import compare
    from resnest.data.sources import open_dataset
    from resnest.detection.card import DetectionPreprocess, DetectorSpec
    from resnest.detection.detector import create_detector
    from resnest.detection.result import Detections
    from resnest.errors import ResnestError
    from resnest.explanation.explaining import Explainer, explain
    from resnest.explanation.result import Explanation
    from resnest.exporters.exporting import export
    from resnest.inference.embedding import embed
    from resnest.inference.evaluation import Evaluation, evaluate
    from resnest.inference.model import Model
    from resnest.inference.predicting import Predictor
    from resnest.inference.prepare import prepare
    from resnest.keypoints.card import KeypointPreprocess
    from resnest.keypoints.network import create_pose_net
    from resnest.keypoints.result import Poses
    from resnest.panoptic.result import PanopticMap
    from resnest.recipes.reading import find_recipe
    from resnest.recipes.schema import Recipe
    from resnest.runtime.card import ModelCard
    from resnest.runtime.decode import BadImage
    from resnest.runtime.preprocess import Preprocess
    from resnest.runtime.results import Result, Show
    from resnest.segmentation.card import SegmentationPreprocess
    from resnest.segmentation.mask_stack import MaskStack
    from resnest.segmentation.result import LabelMap
    from resnest.segmentation.segmenter import create_segmenter
    from resnest.segmentation.spec import SegmenterSpec
    from resnest.spec import Spec, list_models
    from resnest.training.folds import FoldsResult, train_folds
    from resnest.training.train import TrainingResult, resume, train

_HOME = {
    "BadImage": "resnest.runtime.decode",
    "Classification": "resnest.classification.result",
    "DetectionPreprocess": "resnest.detection.card",
    "Detections": "resnest.detection.result",
    "DetectorSpec": "resnest.detection.card",
    "Evaluation": "resnest.inference.evaluation",
    "Explainer": "resnest.explanation.explaining",
    "Explanation": "resnest.explanation.result",
    "FoldsResult": "resnest.training.folds",
    "KeypointPreprocess": "resnest.keypoints.card",
    "LabelMap": "resnest.segmentation.result",
    "MaskStack": "resnest.segmentation.mask_stack",
    "Model": "resnest.inference.model",
    "ModelCard": "resnest.runtime.card",
    "MultiLabel": "resnest.classification.result",
    "PanopticMap": "resnest.panoptic.result",
    "Poses": "resnest.keypoints.result",
    "Predictor": "resnest.inference.predicting",
    "Preprocess": "resnest.runtime.preprocess",
    "Recipe": "resnest.recipes.schema",
    "ResnestError": "resnest.errors",
    "Result": "resnest.runtime.results",
    "SegmentationPreprocess": "resnest.segmentation.card",
    "SegmenterSpec": "resnest.segmentation.spec",
    "Show": "resnest.runtime.results",
    "Spec": "resnest.spec",
    "TrainingResult": "resnest.training.train",
    "compare": "resnest.comparison.comparing",
    "convert": "resnest.checkpoints.convert",
    "create_backbone": "resnest.checkpoints.loading",
    "create_detector": "resnest.detection.detector",
    "create_model": "resnest.checkpoints.loading",
    "create_pose_net": "resnest.keypoints.network",
    "create_segmenter": "resnest.segmentation.segmenter",
    "embed": "resnest.inference.embedding",
    "evaluate": "resnest.inference.evaluation",
    "explain": "resnest.explanation.explaining",
    "export": "resnest.exporters.exporting",
    "find_recipe": "resnest.recipes.reading",
    "list_models": "resnest.spec",
    "open_dataset": "resnest.data.sources",
    "prepare": "resnest.inference.prepare",
    "resume": "resnest.training.train",
    "train": "resnest.training.train",
    "train_folds": "resnest.training.folds",
}

__all__ = [
    "BadImage",
    "Classification",
    "DetectionPreprocess",
    "Detections",
    "DetectorSpec",
    "Evaluation",
    "Explainer",
    "Explanation",
    "FoldsResult",
    "KeypointPreprocess",
    "LabelMap",
    "MaskStack",
    "Model",
    "ModelCard",
    "MultiLabel",
    "PanopticMap",
    "Poses",
    "Predictor",
    "Preprocess",
    "Recipe",
    "ResnestError",
    "Result",
    "SegmentationPreprocess",
    "SegmenterSpec",
    "Show",
    "Spec",
    "TrainingResult",
    "compare",
    "convert",
    "create_backbone",
    "create_detector",
    "create_model",
    "create_pose_net",
    "create_segmenter",
    "embed",
    "evaluate",
    "explain",
    "export",
    "find_recipe",
    "list_models",
    "open_dataset",
    "prepare",
    "resume",
    "train",
    "train_folds",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'resnest' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

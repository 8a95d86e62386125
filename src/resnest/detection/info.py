"""The `TaskInfo` of detection and instance segmentation, without torch."""

from __future__ import annotations

from resnest.detection.card import DetectionCard
from resnest.detection.predict import check_views, gives, predict, takes
from resnest.detection.recipes import DetectionRecipe
from resnest.runtime.engines.exported import IOSpec
from resnest.tasks import TaskInfo

# Sizes and crops of images are in the section `detection`, and detectors have losses of their own.
UNUSED_SETTINGS = {
    "data": (
        "size", "start_size", "eval_size", "eval_crop", "interpolation", "eval_interpolation", "min_area", "crop",
        "shift", "lighting", "augment", "rand_ops", "rand_magnitude", "erase", "reduced_decode",
    ),
    "train": (
        "label_smoothing", "loss", "bce_threshold", "class_balanced", "logit_adjustment", "mixup", "cutmix",
    ),
}  # fmt: skip
BATCH = 4  # images of 800 x 1333 pixels have maps of a gigabyte each

INFO = TaskInfo(
    name="detection",
    noun="a detector",
    card=DetectionCard,
    recipe=DetectionRecipe,
    recipes="resnest.detection.recipe_list:RECIPES",
    unused_settings=UNUSED_SETTINGS,
    task="resnest.detection.task:DetectionTask",
    weights="resnest.detection.weights:WEIGHTS",
    exporter="resnest.detection.export:DetectionExporter",
    inspection="resnest.detection.checks:DetectionInspection",
    data_view="resnest.detection.report:DetectionView",
    joiner="resnest.detection.seams:JoinedObjects",
    scorer="resnest.detection.evaluation:DetectionScorer",
    explained="resnest.detection.explain:ObjectTargets",
    result="resnest.detection.result:Detections",
    files={"coco": "resnest.detection.result:CocoFile"},
    predict=predict,
    check_views=check_views,
    batch_size=BATCH,
    max_batch_size=BATCH,
    exported=IOSpec(takes, gives),
    finders="resnest.detection.checks:FINDERS",
    reads_labels=True,
    needs="data with boxes",
)

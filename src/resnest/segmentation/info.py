"""The `TaskInfo` of semantic segmentation, without torch."""

from __future__ import annotations

from resnest.detection.info import BATCH, UNUSED_SETTINGS
from resnest.runtime.engines.exported import IOSpec
from resnest.segmentation.card import SegmentationCard
from resnest.segmentation.predict import check_views, gives, predict, takes
from resnest.segmentation.recipes.settings import SegmentationRecipe
from resnest.tasks import TaskInfo

INFO = TaskInfo(
    name="segmentation",
    noun="a segmenter",
    card=SegmentationCard,
    recipe=SegmentationRecipe,
    recipes="resnest.segmentation.recipes:RECIPES",
    unused_settings=UNUSED_SETTINGS,
    task="resnest.segmentation.task:SegmentationTask",
    weights="resnest.segmentation.weights:WEIGHTS",
    exporter="resnest.segmentation.export:SegmentationExporter",
    inspection="resnest.segmentation.checks:inspection",
    data_view="resnest.segmentation.report:SegmentationView",
    joiner="resnest.segmentation.blending:blended",
    scorer="resnest.segmentation.evaluation:scorer",
    measures_outlines=True,
    explained="resnest.segmentation.explain:PixelTargets",
    result="resnest.segmentation.result:LabelMap",
    files={"masks": "resnest.segmentation.mask_stack:MaskFiles"},
    predict=predict,
    check_views=check_views,
    batch_size=BATCH,
    max_batch_size=BATCH,
    exported=IOSpec(takes, gives),
    finders="resnest.segmentation.checks:FINDERS",
    annotations="masks",
    needs="pictures with a mask each",
    layout=(
        "folders images and masks, with files of the same names and a list of classes in classes.txt; or ADE20K,"
        " Cityscapes, Pascal VOC with SegmentationClass, COCO panoptic; for multi-label masks also a folder of masks"
        " for each class, or stacks as .npy or TIFF"
    ),
)

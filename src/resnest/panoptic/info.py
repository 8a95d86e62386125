"""The `TaskInfo` of panoptic segmentation, without torch."""

from __future__ import annotations

from resnest.detection.info import BATCH, UNUSED_SETTINGS
from resnest.panoptic.card import PanopticCard
from resnest.panoptic.predict import check_views, predict
from resnest.panoptic.recipes import PanopticRecipe
from resnest.tasks import TaskInfo

INFO = TaskInfo(
    name="panoptic",
    noun="a panoptic detector",
    card=PanopticCard,
    recipe=PanopticRecipe,
    recipes="resnest.panoptic.recipes:RECIPES",
    unused_settings=UNUSED_SETTINGS,
    task="resnest.panoptic.task:PanopticTask",
    weights="resnest.detection.weights:WEIGHTS",
    inspection="resnest.panoptic.checks:PanopticInspection",
    data_view="resnest.panoptic.report:PanopticView",
    scorer="resnest.panoptic.evaluation:PanopticScorer",
    explained="resnest.panoptic.explain:SegmentTargets",
    result="resnest.panoptic.result:PanopticMap",
    files={"masks": "resnest.panoptic.result:PanopticFolder"},
    predict=predict,
    check_views=check_views,
    batch_size=BATCH,
    max_batch_size=BATCH,
    exported=None,
    finders="resnest.panoptic.checks:FINDERS",
    annotations="masks",
    needs="COCO panoptic data",
    layout="annotations/panoptic_train.json and panoptic_val.json with their PNG files, as COCO has them",
)

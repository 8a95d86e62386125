"""The `TaskInfo` of keypoints, without torch."""

from __future__ import annotations

from resnest.detection.info import UNUSED_SETTINGS
from resnest.keypoints.card import KeypointCard
from resnest.keypoints.predict import check_views, gives, predict, takes
from resnest.keypoints.recipes import KeypointRecipe
from resnest.runtime.engines.exported import IOSpec
from resnest.tasks import TaskInfo

INFO = TaskInfo(
    name="keypoints",
    noun="a keypoint model",
    card=KeypointCard,
    recipe=KeypointRecipe,
    recipes="resnest.keypoints.recipes:RECIPES",
    unused_settings=UNUSED_SETTINGS,
    task="resnest.keypoints.task:KeypointTask",
    weights="resnest.keypoints.weights:WEIGHTS",
    exporter="resnest.keypoints.export:KeypointExporter",
    inspection="resnest.keypoints.checks:KeypointInspection",
    data_view="resnest.keypoints.report:KeypointView",
    files={"coco": "resnest.keypoints.pose_file:PoseFile"},
    boxes="resnest.keypoints.top_down:BoxSource",
    scorer="resnest.keypoints.evaluation:KeypointScorer",
    explained="resnest.keypoints.explain:PointTargets",
    result="resnest.keypoints.result:Poses",
    predict=predict,
    check_views=check_views,
    views_in_batches=True,
    batch_size=64,
    exported=IOSpec(takes, gives),
    finders="resnest.keypoints.checks:FINDERS",
    annotations="keypoints",
    needs="data with keypoints",
    layout="COCO json whose categories have keypoints, or YOLO-pose with a data.yaml that has kpt_shape",
)

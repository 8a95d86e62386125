"""The `TaskInfo` of classification, without torch."""

from __future__ import annotations

from resnest.classification.card import ClassificationCard
from resnest.classification.predict import check_views, gives, predict, takes
from resnest.classification.recipes import ClassificationRecipe
from resnest.runtime.engines.exported import IOSpec
from resnest.tasks import TaskInfo

INFO = TaskInfo(
    name="classification",
    noun="a classifier",
    card=ClassificationCard,
    recipe=ClassificationRecipe,
    unused_settings={"data": ("exif",)},  # labels hold whichever way up, and pictures are made upright
    recipes="resnest.classification.recipes:RECIPES",
    task="resnest.classification.task:ClassificationTask",
    exporter="resnest.classification.export:ClassificationExporter",
    inspection="resnest.data.checks:LabelInspection",
    data_view="resnest.classification.report:ClassificationView",
    scorer="resnest.classification.evaluation:ClassificationScorer",
    explained="resnest.classification.explain:LabelTargets",
    result="resnest.classification.result:Classification",
    predict=predict,
    check_views=check_views,
    batch_size=64,
    exported=IOSpec(takes, gives),
    relabel="resnest.classification.evaluation:relabel",
    reads_labels=True,
    needs="images with labels",
)

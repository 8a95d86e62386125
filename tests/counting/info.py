"""What the house knows of counting without torch."""

from __future__ import annotations

from counting.card import CountingCard
from counting.predict import check_views, gives, predict, takes
from counting.recipes import CountingRecipe
from resnest.runtime.engines.exported import IOSpec
from resnest.tasks import TaskInfo

INFO = TaskInfo(
    name="counting",
    noun="a counter",
    card=CountingCard,
    recipe=CountingRecipe,
    recipes="counting.recipes:RECIPES",
    task="counting.task:CountingTask",
    exporter="counting.export:CountingExporter",
    inspection="resnest.data.checks:Inspection",
    scorer="counting.evaluation:CountingScorer",
    result="counting.result:Count",
    predict=predict,
    check_views=check_views,
    batch_size=64,
    exported=IOSpec(takes, gives),
    finders="counting.data:FINDERS",
    annotations="counts",
    needs="pictures with a count each",
    layout="a folder with counts.csv, a line each picture: its path, and how many dots it shows",
)

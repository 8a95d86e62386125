"""The finders of the formats of annotation tools, in the order in which they are tried."""

from __future__ import annotations

from resnest.data.formats import Finder
from resnest.detection.formats.coco_files import find_plain_coco
from resnest.detection.formats.foreign import find_foreign
from resnest.detection.formats.labelme import find_labelme
from resnest.detection.formats.metadata import find_metadata
from resnest.detection.formats.via import find_via
from resnest.detection.formats.yolo import OUTLINES, find_outlines, find_yolo

TASKS = ("detection",)

TOOLS = (
    Finder("labelme", TASKS, find_labelme, suffixes=(".json",)),
    Finder("via", TASKS, find_via, suffixes=(".json",)),
    Finder("metadata", TASKS, find_metadata, suffixes=(".jsonl",)),
    Finder("coco", TASKS, find_plain_coco),
    Finder("yolo", TASKS, find_yolo, suffixes=(".yaml", ".yml")),
    Finder(OUTLINES, TASKS, find_outlines, suffixes=(".yaml", ".yml")),
    Finder(
        "",
        TASKS,
        find_foreign,
        suffixes=(".zip", ".json", ".jsonl", ".ndjson", ".manifest", ".xml", ".csv", ".tfrecord", ".record"),
        last=True,
    ),
)

"""Which tool wrote a json file, by the keys in it: its first and last bytes are read, however large it is.

>>> kind_of_text('{"images": [], "annotations": [], "categories": []}')
'coco'
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from resnest.detection.formats.finding import MOST_LISTED, with_suffix

WINDOW = 64 * 2**10  # bytes at each end
COCO_KEYS = ("images", "annotations", "categories", "image_id", "category_id", "file_name", "bbox")

# kind: how the text starts, and the keys; of "a|b" one is there. First match wins. Each row is the tool's own writer:
# labelme's LabelFile.save; VIA 2's _via_img_metadata and its export; makesense's VGG export has the same regions.
KINDS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("labelme", "{", ("shapes", "imagePath|imageHeight|imageData")),
    ("via3", "{", ("vid_list|vid", "attribute", "metadata", "project")),
    ("via", "{", ("shape_attributes|_via_img_metadata",)),
    ("via", "{", ("regions", "filename", "file_attributes|region_attributes")),
    ("labelstudio", "[", ("from_name|original_width|lead_time|completed_by",)),
    ("labelstudio", "[", ("rectanglelabels|polygonlabels|brushlabels",)),
    ("sagemaker", "{", ("source-ref",)),
    ("labelbox", "[{", ("data_row",)),
    ("scalabel", "[{", ("box2d|poly2d",)),
    ("supervisely", "{", ("objects", "classTitle")),
    ("createml", "[", ("image|imagefilename", "annotations", "coordinates")),
    ("segment_anything", "{", ("segmentation", "predicted_iou|stability_score")),
    ("open_images", "{", ("LabelName", "Subcategory|Part")),
    ("results", "[", ("image_id", "category_id", "score")),
    ("superannotate", "{", ("instances", "className")),
    ("datumaro", "{", ("items", "categories", "label_id|dm_format_version|labels")),
    ("fiftyone", "{", ("samples", "filepath")),
    ("fiftyone", "{", ("labels", "bounding_box")),
)


def kind_of(path: Path) -> str:
    """The kind of a json file: "coco", one of `KINDS`, or "" if it is none of them or cannot be read."""
    try:
        state = path.stat()
        return _kind_of(path, state.st_size, state.st_mtime_ns)
    except OSError:
        return ""


@lru_cache(4096)
def _kind_of(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        content = file.read(WINDOW)
        if size > 2 * WINDOW:
            file.seek(size - WINDOW)
        content += b"\n" + file.read(WINDOW)
    return kind_of_text(content.decode("utf-8", "replace"))


def kind_of_text(text: str) -> str:
    """As `kind_of`, of the file's text or of its start and end."""
    start = text.lstrip("\ufeff \t\r\n")[:1]
    keys = set(re.findall(r'"([^"\\]{1,40})"\s*:', text))
    for kind, starts, wanted in KINDS:
        if start and start in starts and all(keys & set(choice.split("|")) for choice in wanted):
            return kind
    top = keys & {"images", "annotations", "categories"}
    return "coco" if start == "{" and top and len(keys & set(COCO_KEYS)) > 1 else ""


def holds_kind(folder: Path, kind: str) -> bool:
    """Whether one of the first json files in a folder is of a kind."""
    return any(kind_of(file) == kind for file in with_suffix(folder, ".json")[:MOST_LISTED])


def json_of_kind(folder: Path, kind: str) -> list[Path]:
    """The json files of a kind in a folder; none if none of the first few is."""
    return [file for file in with_suffix(folder, ".json") if kind_of(file) == kind] if holds_kind(folder, kind) else []

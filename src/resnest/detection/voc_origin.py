"""Whether a set of xml files in Pascal VOC's form counts pixels from 1, as VOC does, or from 0, as many tools do.

    origin = origin_of([Path("pets/Annotations")])
    origin.first, origin.notes            # 0, ("pixels are counted from 0, as cat.xml has the mark of FiftyOne: ...",)

The marks of the tools that wrote the files tell, or any box that starts at 0; without either it is VOC's way, which is
said. Files that tell 0 beside files that tell 1 are refused. VOC's other corner is the same number either way, as VOC
includes the last pixel. `data.format` decides for all: voc-from-0, voc-from-1.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from resnest.errors import ResnestError
from resnest.figures import counted

FORMATS = {"voc": None, "voc-from-0": 0, "voc-from-1": 1}  # of data: the first pixel's number, if it is told
HEAD = 4096  # bytes that have a tool's mark

STARTS_AT_0 = re.compile(rb"<[xy]min>\s*(?:-|0*(?:\.|\s*<))")  # 0, 0.0, 0.5, -3
# the beginnings of files of tools that count from 0, as their writers have them
MARKS: tuple[tuple[str, re.Pattern[bytes]], ...] = (
    (  # datumaro 1.13, plugins/data_formats/voc/exporter.py; CVAT's PASCAL VOC 1.1 is written by it
        "Datumaro (CVAT)",
        re.compile(rb"<database>Unknown</database>\s*<annotation>Unknown</annotation>\s*<image>Unknown</image>"),
    ),
    (  # label_studio_sdk 2.1, converter/converter.py
        "Label Studio",
        re.compile(rb"<owner>\s*<flickrid>NULL</flickrid>\s*<name>Label Studio</name>"),
    ),
    (  # fiftyone/utils/voc.py and resources/voc_annotation_template.xml
        "FiftyOne",
        re.compile(rb"<source>\s*<database>(?:None)?</database>\s*</source>[\s\S]*<segmented>(?:None)?</segmented>"),
    ),
)
# VOC's own, and Roboflow's and supervision's (supervision 0.31, dataset/formats/pascal_voc.py)
FROM_1 = re.compile(rb"<database>\s*(?:The VOC\d+ Database|roboflow\.(?:ai|com))", re.IGNORECASE)
UNSAID = "pixels are counted from 1, as in Pascal VOC: data.format=voc-from-0 counts them from 0"


class Origin(NamedTuple):
    """The number of the first pixel, and how that is known."""

    first: int
    notes: tuple[str, ...] = ()


def origin_of(folders: Sequence[Path], told: int | None = None) -> Origin:
    """What all xml files in these folders count from.

    Raises:
        ResnestError: files that count from 0 beside files that count from 1.
    """
    if told is not None:
        return Origin(told)
    seen: dict[int, tuple[Path, str]] = {}  # first pixel -> a file that tells it, and how
    contrary = 0  # files with VOC's mark and a box that starts at 0
    for file in (file for folder in folders for file in sorted(folder.iterdir()) if file.suffix.lower() == ".xml"):
        try:
            content = _in_bytes(file.read_bytes())
        except OSError:
            continue  # said by its reader
        first, why = _told_by(content)
        contrary += first == 1 and bool(STARTS_AT_0.search(content))
        if first is not None:
            seen.setdefault(first, (file, why))
    if len(seen) > 1:
        (zero, why), (one, why_not) = seen[0], seen[1]
        raise ResnestError(
            f"{zero} counts pixels from 0 ({why}), and {one} from 1 ({why_not}): read them apart, or let"
            " data.format=voc-from-0 or voc-from-1 decide for all"
        )
    if 0 in seen:
        file, why = seen[0]
        return Origin(
            0, (f"pixels are counted from 0, as {file.name} has {why}: data.format=voc-from-1 counts them from 1",)
        )
    if contrary:
        files = counted(contrary, "file has", "files have")
        return Origin(
            1,
            (
                f"pixels are counted from 1, as {seen[1][1]} tells, but {files} a box that starts at 0:"
                " data.format=voc-from-0 counts them from 0",
            ),
        )
    return Origin(1, () if seen else (UNSAID,))


def _in_bytes(content: bytes) -> bytes:
    """The content as UTF-8, if its mark says that it is UTF-16, as PowerShell writes."""
    return content.decode("utf-16", "replace").encode() if content[:2] in (BOM_UTF16_LE, BOM_UTF16_BE) else content


def _told_by(content: bytes) -> tuple[int | None, str]:
    """The first pixel's number that a file tells, and how."""
    head = content[:HEAD]
    if FROM_1.search(head):
        return 1, "the mark of VOC, Roboflow or supervision"
    if tool := next((name for name, mark in MARKS if mark.search(head)), ""):
        return 0, f"the mark of {tool}"
    return (0, "a box that starts there") if STARTS_AT_0.search(content) else (None, "")

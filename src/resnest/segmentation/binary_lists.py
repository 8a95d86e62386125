"""The classes of masks with one value a pixel, for a multi-label segmenter: a value may be "no class".

listed, notes = with_no_class(find_class_list(folders), survey, root)

Without a list, masks of 0 and 1 or of 0 and 255 have one class, `foreground`. A class called background is no class of
its own: its pixels are those of no class (`is_none`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from resnest.errors import ResnestError
from resnest.segmentation.class_lists import ClassList, Row, other_lists
from resnest.segmentation.result import BACKGROUND
from resnest.segmentation.survey import Survey

FOREGROUND = "foreground"  # the class of binary masks that nobody named


def is_none(name: str) -> bool:
    """Whether a class of this name means that no class is there."""
    return name.lower() == BACKGROUND


def with_no_class(listed: ClassList | None, survey: Survey, where: Path) -> tuple[ClassList, tuple[str, ...]]:
    """The list with a row for the pixels of no class, and what is assumed.

    Raises:
        ResnestError: no list, and masks of other values than a binary one.
    """
    if listed is None:
        return _unlisted(survey, where)
    if any(row.value == 0 and (row.ignore or is_none(row.name)) for row in listed.every):
        return listed, ()
    count = len(listed.every)
    one = listed.by_place and count == 1 and bool(survey.numbers() - {0} or survey.lone)
    if one or (listed.by_place and max(survey.numbers(), default=0) == count and 0 in survey.first):
        rows = [replace(row, value=row.value + 1, placed=False) for row in listed.every]
        return _with_zero(rows, where), (f"0 in the masks is no class, and {rows[0].name!r}, the list's first, is 1",)
    if any(row.value == 0 for row in listed.every):
        return listed, ()
    note = ("0 in the masks, which the list lacks, is no class",) if 0 in survey.first else ()
    return _with_zero(list(listed.every), where), note


def _unlisted(survey: Survey, where: Path) -> tuple[ClassList, tuple[str, ...]]:
    """Background and foreground."""
    if survey.coloured or not survey.numbers() <= {0, 1} or not survey.masks:
        others = sorted(survey.numbers() - {0, 1})
        shown = f"{survey.first[others[0]]} has the value {others[0]}" if others else "they have no values to go by"
        shown = f"{survey.coloured} is in colours" if survey.coloured else shown
        raise ResnestError(
            f"{where} has masks and no list of their classes, and {shown}: binary masks, of 0 and 1 or of 0 and 255,"
            " need none; for others write classes.txt there, with lines such as `1 vessel`"
            f"{other_lists([where])}"
        )
    named = "lines `background` and its name in classes.txt name it"
    return _with_zero([Row(1, FOREGROUND)], where), (f"no list of classes: one class, {FOREGROUND!r}; {named}",)


def _with_zero(rows: list[Row], where: Path) -> ClassList:
    colours = {row.colour for row in rows}
    black = (0, 0, 0) if None not in colours and (0, 0, 0) not in colours else None
    return ClassList.from_rows([Row(0, BACKGROUND, black), *rows], where)

"""Lists of classes for masks, in tables and in lines: the value of a class is what the list says, or it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from masked import text
from resnest.errors import ResnestError
from resnest.segmentation.class_lists import read_class_list

Wanted = tuple[tuple[str, int, Any], ...] | str
SWAPPED = (("sky", 2, None), ("road", 0, None))


def check(folder: Path, file: str, content: str, wanted: Wanted) -> None:
    text(folder / file, content)
    if isinstance(wanted, str):
        with pytest.raises(ResnestError, match=f"{file}: .*{wanted}") as error:
            read_class_list([folder])
        assert len(str(error.value)) < 600
        return
    rows = read_class_list([folder]).every
    assert tuple((row.name, row.value, row.colour) for row in rows) == wanted


NUMBERED = (
    "number", "class_index", "Class Index", "code", "pixel", "gray", "Grey Value", "trainId", "idx", "classId", "label",
    "no.", "Pixel-Value",
)  # fmt: skip
TABLES: dict[str, tuple[str, Wanted]] = {
    **{f"a column {name}": (f"{name},name\n2,sky\n0,road\n", SWAPPED) for name in NUMBERED},
    "behind the name": ("name;code\nsky;2\nroad;0\n", SWAPPED),
    "fractions of pandas": ("name,value\nsky,2.0\nroad,0.0\n", SWAPPED),
    "class and label": ("class,label\nsky,2\nroad,0\n", SWAPPED),
    "label and class": ("class,label\n2,sky\n0,road\n", SWAPPED),
    "an unknown column": ("farbe,name\n2,sky\n0,road\n", "column 'farbe' has whole numbers, which may be the values"),
    "an index of pandas": (",name\n2,sky\n0,road\n", "the column without a name has whole numbers"),
    "an index in order": (",name\n0,sky\n1,road\n", (("sky", 0, None), ("road", 1, None))),
    "unknown in order": ("zeile,name\n0,sky\n1,road\n", (("sky", 0, None), ("road", 1, None))),
    "unknown beside a known one": ("id,name,pixels\n2,sky,900\n0,road,7\n", SWAPPED),
    "values beside numbers of lines": ("index,name,pixel_value\n0,sky,2\n1,road,0\n", SWAPPED),
    "Cityscapes": ("name,id,trainId\nsky,23,10\nroad,7,0\n", "columns 'id' and 'trainId' both may be the values of"),
    "two that agree": ("id,name,code\n2,sky,2\n0,road,0\n", SWAPPED),
    "words in a value": ("name,value\nsky,2\nroad,none\n", "the column 'value' has 'none', which is no whole number"),
    "an empty value": ("name,value\nsky,2\nroad,\n", "the column 'value' has '', which is no whole number"),
    "codes that are words": ("name,code\nsky,SK\nroad,RD\n", (("sky", 0, None), ("road", 1, None))),
    "marks": ("name,id,ignore\nroad,0,true\nsky,2,\n", SWAPPED),
    "bad marks": ("name,id,ignore\nsky,2,perhaps\n", "column 'ignore' has 'perhaps': expected 0, 1, true, false"),
    "a comma in a name": ("id,name\n2,sky, blue\n", "line 2 has more fields than the first line: quote"),
    "a colour and a number": ("name,r,g,b,nr\nsky,1,2,3,2\n", (("sky", 2, (1, 2, 3)),)),
    "numbers as names": ("id,label\n2,7\n0,8\n", (("7", 2, None), ("8", 0, None))),
    "no names": ("id,r,g,b\n0,1,2,3\n", "expected a first line with name, r, g, b; it has id, r, g, b"),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_tables(tmp_path: Path, name: str) -> None:
    check(tmp_path, "classes.csv", *TABLES[name])

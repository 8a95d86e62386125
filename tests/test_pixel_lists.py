"""Lists of classes for masks, in tables and in lines: the value of a class is what the list says, or it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from masked import folders, mask, pairs, picture, text
from resnest.data.checks import check_dataset
from resnest.data.sources import open_dataset, open_split
from resnest.errors import ResnestError
from resnest.segmentation.card import SegmentationCard, SegmentationPreprocess
from resnest.segmentation.class_lists import read_class_list
from resnest.segmentation.data import PixelSamples
from resnest.segmentation.spec import SegmenterSpec
from resnest.spec import Spec

Wanted = tuple[tuple[str, int, Any], ...] | str
SWAPPED = (("sky", 2, None), ("road", 0, None))


def check(folder: Path, file: str, content: str, wanted: Wanted) -> None:
    text(folder / file, content)
    if isinstance(wanted, str):
        with pytest.raises(ResnestError, match=f"{file}:? .*({wanted})") as error:
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
    "a long cell": (f"id,name\n2,{'x' * 200_000}\n", "is no list of classes|a name of"),
    "a long first line": (",".join(f"c{k}" for k in range(9999)), "expected a first line with name, r, g, b; it has c"),
    "a long name": (f"id,name\n2,{'x' * 2000}\n", "a name of 2000 characters: 200 at most"),
    "no names": ("id,r,g,b\n0,1,2,3\n", "expected a first line with name, r, g, b; it has id, r, g, b"),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_tables(tmp_path: Path, name: str) -> None:
    check(tmp_path, "classes.csv", *TABLES[name])


IN_ORDER = (("sky", 0, None), ("road", 1, None))
TWO_WAYS = "can be read in several ways"
OF_NAME = "may be its value or a part of its name"
LINES: dict[str, tuple[str, Wanted]] = {
    "records": ("id: 2, name: sky\nid: 0, name: road\n", SWAPPED),
    "records in braces": ("{'id': 2, 'name': 'sky'},\n{'id': 0, 'name': 'road'}\n", SWAPPED),
    "records of a list": ("[\n{'id': 2, 'name': 'sky'},\n{'id': 0, 'name': 'road'}\n]\n", SWAPPED),
    "records, turned": ("name: sky, id: 2\nname: road, id: 0\n", SWAPPED),
    "arrows": ("2 -> sky\n0 -> road\n", SWAPPED),
    "arrows of Ruby": ("2 => sky\n0 => road\n", SWAPPED),
    "arrows behind": ("sky -> 2\nroad -> 0\n", SWAPPED),
    "a mapping": ("{'sky': 2,\n 'road': 0}\n", SWAPPED),
    "a mapping by number": ("{2: 'sky',\n 0: 'road'}\n", SWAPPED),
    "braces of their own": ("{\n'sky': 2,\n'road': 0,\n}\n", SWAPPED),
    "a list": ("[\n'sky',\n'road',\n]\n", IN_ORDER),
    "a list with a name": ("CLASSES = [\n'sky',\n'road',\n]\n", TWO_WAYS),
    "a mapping of yaml": ("names:\n  sky\n  road\n", "the line 'names:' ends with a sign"),
    "a mapping in one line": ("{'sky': 2, 'road': 0}\n", TWO_WAYS),
    "a word before the number": ("class2: sky\nclass0: road\n", TWO_WAYS),
    "a word and a space": ("class 2 = sky\nclass 0 = road\n", TWO_WAYS),
    "a number behind a comma": ("sky, class 2\nroad, class 0\n", "behind the name|several ways|part of its name"),
    "glued behind": ("sky_2\nroad_0\n", f"'sky_2' {OF_NAME}: write `2 sky`, or `0 sky_2`, and so in every line"),
    "glued before": ("2_sky\n0_road\n", OF_NAME),
    "glued from 1": ("sky_1\nroad_2\n", OF_NAME),
    "glued, with a dash": ("sky-7\nroad-9\n", OF_NAME),
    "glued, without a sign": ("sky1\nroad0\n", OF_NAME),
    "glued before, without a sign": ("1sky\n0road\n", OF_NAME),
    "glued in order": ("sky_0\nroad_1\n", (("sky_0", 0, None), ("road_1", 1, None))),
    "glued to one name": ("zone_2\nzone_1\n", (("zone_2", 0, None), ("zone_1", 1, None))),
    "glued to some": ("sky\nroad_1\n", (("sky", 0, None), ("road_1", 1, None))),
    "glued, quoted": ("'sky_2'\n'road_0'\n", (("sky_2", 0, None), ("road_0", 1, None))),
    "glued, numbered": ("0 sky_2\n1 road_0\n", (("sky_2", 0, None), ("road_0", 1, None))),
    "numbers of models": ("vgg16\nresnet50\n", (("vgg16", 0, None), ("resnet50", 1, None))),
    "commas in names": ("sky, heaven\nroad, route\n", (("sky, heaven", 0, None), ("road, route", 1, None))),
    "a colon in a numbered name": ("2: sky: 4x4\n0: road\n", (("sky: 4x4", 2, None), ("road", 0, None))),
    "numbers of doors": ("2 door\n4 door\n", "with the numbers as values: quote names that begin with a number"),
    "numbers alone": ("1\n2\n0\n", "the line '1' is a number, which may be a value or a name: write `1 1`, or `0 1`"),
    "numbers alone, from 0": ("0\n1\n", (("0", 0, None), ("1", 1, None))),
    "doors, quoted": ('"2 door"\n"4 door"\n', (("2 door", 0, None), ("4 door", 1, None))),
    "comments": ("#2 sky\n#0 road\n", "the line '#2 sky' begins with #, as comments do: write lines without it"),
    "a comment": ("# 1 a line each\nsky\nroad\n", IN_ORDER),
    "one line of numbers": (" ".join(map(str, range(20_000))), "a line has .* expected a class a line"),
    "a long name": ("x" * 999, "a name of 999 characters: 200 at most"),
    "many numbers": (" ".join(map(str, range(250))), TWO_WAYS),
}


@pytest.mark.parametrize("name", LINES)
def test_lines(tmp_path: Path, name: str) -> None:
    check(tmp_path, "classes.txt", *LINES[name])


# --- Classes of data and those of a model ---


def model(ids: tuple[int, ...], names: tuple[str, ...] = ("sky", "road", "tree")) -> SegmentationCard:
    return SegmentationCard(
        architecture="resnest",
        spec=Spec(),
        class_names=names,
        preprocess=SegmentationPreprocess(),
        segmenter=SegmenterSpec(),
        category_ids=ids,
    )


SWAP = (2, 1, 0)
ALIGNED: dict[str, tuple[str, SegmentationCard, tuple[int, ...] | str, str]] = {
    "by name": ("2 sky\n1 road\n0 tree\n", model((0, 1, 2)), SWAP, ""),
    "numbers": ("0 0\n1 1\n2 2\n", model((2, 1, 0)), SWAP, "that the model was trained with: 0 is tree, 1 is road, 2"),
    "numbers of a model from 1": (
        "1 1\n2 2\n0 0\n", model((1, 2, 3)), "its classes are called 1, 2, 0, and the model's sky, road, tree", "",
    ),
    "numbers as names": ('"1"\n"2"\n"0"\n', model((0, 1, 2)), "called 1, 2, 0, .*: write the names of the model", ""),
    "numbers of both": ("0 0\n1 1\n2 2\n", model((0, 1, 2), ("2", "1", "0")), SWAP, ""),
    "a class without a pixel": ("0 sky\n1 road\n2 tree\n7 mud\n", model((0, 1, 2)), (0, 1, 2), "left out: mud"),
    "a class with pixels": ("0 sky\n1 road\n2 mud\n7 tree\n", model((0, 1, 2)), "the model does not know: mud", ""),
    "no class that is known": ("0 a\n1 b\n2 c\n", model((0, 1, 2)), "has 3 classes that the model does not", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", ALIGNED)
def test_classes_of_a_model(tmp_path: Path, name: str) -> None:
    """By name, or by values that the model knows: never by place."""
    listed, card, wanted, said = ALIGNED[name]
    samples = open_split(folders(tmp_path, classes=listed), task="segmentation").samples
    if isinstance(wanted, str):
        with pytest.raises(ResnestError, match=wanted):
            samples.aligned(card, "streets")
        return
    aligned = samples.aligned(card, "streets")
    assert isinstance(samples, PixelSamples)
    assert isinstance(aligned, PixelSamples)
    assert (aligned.classes, aligned.class_names) == (card.classes, card.class_names)
    table = np.array([*wanted, *[255] * (256 - len(wanted))], np.uint8)
    raw = np.asarray(Image.open(tmp_path / "masks" / "val" / "4.png"))
    np.testing.assert_array_equal(aligned.mask(0), table[raw])
    assert said in " ".join(aligned.left_out)
    assert bool(aligned.left_out) == bool(said)


def test_a_validation_class_without_a_pixel(tmp_path: Path) -> None:
    for part, listed in (("train", "sky\nroad\ntree\n"), ("val", "0 sky\n1 road\n2 tree\n7 mud\n")):
        pairs(tmp_path / part / "images", tmp_path / part / "masks", 3, first=len(part))
        text(tmp_path / part / "classes.txt", listed)
    data = open_dataset(tmp_path, task="segmentation")
    assert data.val.class_names == data.train.class_names == ("sky", "road", "tree")


# --- No list of classes ---


def in_folders_of_ade20k(root: Path, stem: str, count: int = 3) -> None:
    for part in ("training", "validation"):
        for number in range(count):
            picture(root / "images" / part / f"{stem}{part}_{number}.png", number + len(part))
            mask(root / "annotations" / part / f"{stem}{part}_{number}.png", number, plus=0)


OTHER = r"\(not read: {}; a list of classes is called classes.txt, .csv or .json\)"
UNLISTED: dict[str, tuple[str, str, str]] = {
    "few masks": ("", "", "named as in ADE20K, but its masks cannot be: .* have the values 0, 1, 2 alone"),
    "a list of another name": ("", "objectInfo.txt", OTHER.format("objectInfo.txt")),
    "files of other names": ("", "README.txt", "in the order of the masks' values from 0$"),
    "ADE20K's files": ("ADE_", "Classes.TXT", ""),
}


@pytest.mark.parametrize("name", UNLISTED)
def test_no_list_in_the_folders_of_ade20k(tmp_path: Path, name: str) -> None:
    stem, other, refused = UNLISTED[name]
    in_folders_of_ade20k(tmp_path, stem)
    for path in tmp_path.glob("annotations/*/*.png"):
        values = np.array(Image.open(path))
        Image.fromarray(np.where(values == 255, 0, values)).save(path)
    if other:
        text(tmp_path / other, "Idx\tName\n0\tsky\n1\troad\n")
    if refused:
        with pytest.raises(ResnestError, match=refused):
            open_dataset(tmp_path, task="segmentation")
    else:
        assert (
            "(ADE20K's classes, by the names of the folders (not read: Classes.TXT" in open_dataset(tmp_path).describe()
        )


@pytest.mark.parametrize("other", ["objects.csv", "names.json", "my.names", "classlist.txt"])
def test_lists_under_other_names(tmp_path: Path, other: str) -> None:
    (folders(tmp_path) / "classes.txt").rename(tmp_path / other)
    text(tmp_path / "train.txt", "0")
    with pytest.raises(ResnestError, match=OTHER.format(other)):
        open_dataset(tmp_path, task="segmentation")


def test_one_picture_in_both_parts(tmp_path: Path) -> None:
    picture(folders(tmp_path) / "images" / "val" / "4.png", 0)
    assert "val: 4.png is the same picture as train: 0.png" in check_dataset(tmp_path, task="segmentation").problems

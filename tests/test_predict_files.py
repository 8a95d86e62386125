"""Which pictures `resnest predict` reads, and where its files lie: folders, lists, names, ids of annotations."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import standins
from conftest import Outcome
from resnest.detection.card import DetectionCard
from resnest.errors import ResnestError
from resnest.files import MASKS_MARK, OUTPUT_MARK
from resnest.runtime.outputs import OutputFolder, place

Cli = Callable[..., Outcome]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def paint(*names: str) -> None:
    for name in names:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if "bad" in path.name:
            path.write_bytes(b"no picture")
        else:
            Image.new("RGB", (32, 24), (0, 0, 255)).save(path)


def files(folder: str) -> set[str]:
    """Without the mark of a folder for output."""
    found = (path for path in Path(folder).rglob("*") if path.is_file() and path.name not in (OUTPUT_MARK, MASKS_MARK))
    return {path.relative_to(folder).as_posix() for path in found}


# Pictures, what is named, and the stems of output files
LAYOUTS: dict[str, tuple[list[str], list[str], set[str]]] = {
    "a file": (["in/a.png"], ["in/a.png"], {"a"}),
    "a folder": (["in/a.png", "in/sub/a.png"], ["in"], {"a", "sub/a"}),
    "a folder of one folder": (["in/sub/a.png"], ["in"], {"sub/a"}),
    "files of two folders": (["x/f.png", "y/f.png"], ["x/f.png", "y/f.png"], {"x/f", "y/f"}),
    "two folders": (["in/x/f.png", "in/y/f.png"], ["in/x", "in/y"], {"x/f", "y/f"}),
    "a folder and its subfolder": (["in/f.png", "in/y/f.png"], ["in/f.png", "in/y"], {"f", "y/f"}),
    "a glob": (["in/x/1/f.png", "in/y/2/f.png"], ["in/*/*/*.png"], {"x/1/f", "y/2/f"}),
    "a glob of one folder": (["in/x/f.png", "in/x/g.png"], ["in/**/*.png"], {"f", "g"}),
    "a deep glob": (["in/x/f.png", "in/x/y/f.png"], ["in/**/*.png"], {"f", "y/f"}),
    "up and down": (["x/f.png", "y/f.png"], ["x/../y/f.png", "./x/f.png"], {"x/f", "y/f"}),
    "equal but for the suffix": (["in/a.png", "in/a.bmp", "in/b.png"], ["in"], {"a.png", "a.bmp", "b"}),
    "suffixes that would meet": (["in/a.png", "in/a.bmp", "in/a.png.jpg"], ["in"], {"a.png", "a.bmp", "a.png.jpg"}),
    "dots in names": (["in/v1.2.png", "in/v1.3.png"], ["in"], {"v1.2", "v1.3"}),
    "twice": (["in/a.png", "in/b.png"], ["in/a.png", "in/b.png", "in/a.png", "in"], {"a", "b"}),
    "an unusable one": (["x/bad.png", "x/f.png", "y/f.png"], ["x", "y"], {"x/f", "y/f"}),
}


@pytest.mark.parametrize("case", LAYOUTS)
@pytest.mark.parametrize("task", ["classification", "segmentation", "panoptic"])
def test_output_lies_as_the_pictures_do(
    cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch, task: str, case: str
) -> None:
    pictures, named, stems = LAYOUTS[case]
    paint(*pictures)
    standins.use(monkeypatch, task)
    masks = [] if task == "classification" else ["--masks", "out/masks"]
    outcome = cli("predict", "model", *named, "--json", "--draw", "out/drawn", *masks)
    assert outcome.code == 2 * any("bad" in name for name in pictures), outcome.err
    assert files("out/drawn") == {f"{stem}.jpg" for stem in stems}
    folder = {"classification": "", "segmentation": "out/masks", "panoptic": "out/masks/panoptic"}[task]
    if folder:
        assert files(folder) - {"classes.json"} == {f"{stem}.png" for stem in stems}
    for line in map(json.loads, outcome.out.splitlines()):
        told = line["files"]
        assert Path(told["draw"]).is_file()
        assert ("masks" in told) == bool(folder)
        assert Path(told.get("masks", told["draw"])).is_file()
        stem = Path(told["draw"]).relative_to("out/drawn").with_suffix("").as_posix()
        assert Path(line["image"]).name.startswith(Path(stem).name)
        if "f" in stem and len(stems) > 1:
            assert Path(line["image"]).resolve().with_suffix("").as_posix().endswith(stem)


def test_placing_is_linear(tmp_path: Path) -> None:
    """Equal names in many folders: each is looked at once, whatever their number."""
    pictures = [(tmp_path / f"{number}" / "frame.jpg", tmp_path) for number in range(3000)]
    placed = place(pictures)
    assert [one.stem.as_posix() for one in placed[:2]] == ["0/frame", "1/frame"]
    assert [one.number for one in placed] == list(range(1, 3001))
    folder = OutputFolder(tmp_path / "out", ".jpg")
    for number in range(3000):  # without places they are numbered
        with folder.writing(None, "x/frame.jpg") as path:
            assert path.name == (f"frame-{number + 1}.jpg" if number else "frame.jpg")
    assert sum(folder._copies.values()) == 2999


def test_a_failing_picture_shifts_nothing(cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paint("in/1.png", "in/2bad.png", "in/3.png")
    for task, option, path in (("panoptic", "--masks", "m/panoptic.json"), ("detection", "--coco", "c.json")):
        standins.use(monkeypatch, task)
        assert cli("predict", "model", "in", option, path.removesuffix("/panoptic.json")).code == 2
        images = json.loads(Path(path).read_text())["images"]
        assert [(image["id"], Path(image["file_name"]).name) for image in images] == [(1, "1.png"), (3, "3.png")]


def test_text_and_csv_are_as_before(cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paint("a.png")
    standins.use(monkeypatch, "detection")
    assert cli("predict", "model", "a.png", "--draw", "o").out == "a.png: 1 cat\n"
    assert "files" not in json.loads(cli("predict", "model", "a.png", "--json").out)
    assert cli("predict", "model", "a.png", "--csv", "--draw", "o").out.splitlines()[0].startswith("image,label,score")


# Pictures, what else is there, and options: what is refused
REFUSED: dict[str, tuple[list[str], list[str], str]] = {
    "the picture itself": (["in/a.jpg"], ["in", "--draw", "in"], "a.jpg is a picture that is looked at"),
    "another photograph": (["a.png", "a.jpg"], ["a.png", "--draw", "."], "a.jpg is there already, and nothing says"),
    "beside the pictures": (["in/a.png"], ["in", "--draw", "in"], "in is not empty, and nothing says that"),
    "below the pictures": (["in/x/a.png"], ["in/x", "--draw", "in"], "that resnest wrote x/a.png"),
    "other masks": (["in/a.jpg", "m/b.png"], ["in", "--masks", "m"], "m is not empty, and nothing says that"),
    "earlier output": (["in/a.png", "in/out/a.jpg"], ["in", "--draw", "in/out"], "in/out is for output, and 1 of"),
    "masks among pictures": (["in/a.jpg", "in/m/a.png"], ["in", "--masks", "in/m"], "in/m is for output, and 1 of"),
    "a list that names nothing": (["a.png"], ["empty.txt"], "empty.txt names no pictures"),
    "a list of what is not there": (["a.png"], ["lost.txt"], "lost.txt: none of its 2 names is a file in . or the"),
    "a table without names": (["a.png"], ["bad.csv"], "needs a column path, file, file_name"),
    "a name of two files": (["a.png", "l/a.png"], ["l/two.txt"], "may be"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_nothing_is_replaced(cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    pictures, options, message = REFUSED[case]
    paint(*pictures)
    Path("l").mkdir(exist_ok=True)
    for name, text in {"empty.txt": "\n", "lost.txt": "x.png\ny.png\n", "bad.csv": "a,b\n1,2\n"}.items():
        Path(name).write_text(text)
    Path("l/two.txt").write_text("a.png\n")
    before = {name: Path(name).read_bytes() for name in pictures}
    standins.use(monkeypatch, "segmentation")
    outcome = cli("predict", "model", *options)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1  # nothing of an engine before it
    assert {name: Path(name).read_bytes() for name in pictures} == before


# A list's name and bytes, and the pictures that it means
LISTS: dict[str, tuple[str, bytes, list[str]]] = {
    "lines": ("l.txt", b"x/a.png\nx/b.png\n", ["x/a.png", "x/b.png"]),
    "of Windows": ("l.txt", b"\xef\xbb\xbfx/a.png\r\n\r\nx/b.png", ["x/a.png", "x/b.png"]),
    "of PowerShell": ("l.txt", "x/a.png\r\nx/b.png\r\n".encode("utf-16"), ["x/a.png", "x/b.png"]),
    "beside the list": ("x/l.txt", b"a.png\nb.png\n", ["x/a.png", "x/b.png"]),
    "with spaces": ("l.lst", b"x/c d.png  \n", ["x/c d.png"]),
    "with brackets": ("l.txt", b"x/[1].png\n", ["x/[1].png"]),
    "a folder": ("l.txt", b"x\n", ["x/[1].png", "x/a.png", "x/b.png", "x/c d.png"]),
    "twice": ("l.txt", b"x/a.png\nx/a.png\n", ["x/a.png", "x/a.png"]),
    "a table": ("l.csv", b"split,path,label\nval,x/a.png,1\nval,x/b.png,2\n", ["x/a.png", "x/b.png"]),
    "our own": ("l.csv", b'image,rank,label,score\nx/a.png,1,"a, b",1\nx/a.png,2,c,0\n', ["x/a.png"]),
    "semicolons": ("l.csv", b"\xef\xbb\xbfFile;Label\r\nx/a.png;1\r\n", ["x/a.png"]),
    "tabs": ("l.tsv", b"file_name\tlabel\nx/a.png\t1\n", ["x/a.png"]),
    "standard input": ("-", b"x/a.png\nx/b.png\n", ["x/a.png", "x/b.png"]),
    "find -print0": ("-", b"x/a.png\0x/c d.png\0", ["x/a.png", "x/c d.png"]),
}  # fmt: skip


@pytest.mark.parametrize("case", LISTS)
def test_lists(cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    name, content, expected = LISTS[case]
    paint("x/a.png", "x/b.png", "x/c d.png", "x/[1].png")
    standins.use(monkeypatch, "classification")
    if name == "-":
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))
    else:
        Path(name).write_bytes(content)
    outcome = cli("predict", "model", name, "--json")
    assert outcome.code == 0, outcome.err
    assert [json.loads(line)["image"] for line in outcome.out.splitlines()] == expected


def test_lists_with_names_that_are_not_there(cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others go on; a text among pictures, as `folder/*` gives, does not end the run."""
    paint("x/a.png")
    Path("l.txt").write_text("x/a.png\nx/lost.png\n")
    Path("readme.txt").write_text("These are photographs.\n")
    standins.use(monkeypatch, "classification")
    outcome = cli("predict", "model", "l.txt", "readme.txt")
    assert outcome.out.startswith("x/a.png: ")
    assert "skipped: x/lost.png: cannot be read" in outcome.err
    assert "skipped: readme.txt: none of its 1 names is a file" in outcome.err
    assert (outcome.code, "2 of 3 images could not be used" in outcome.err) == (2, True)


@pytest.mark.parametrize("option", [[], ["--json"], ["--csv"], ["--coco", "c.json"], ["--draw", "o"], ["--list"]])
def test_names_that_are_not_utf8(cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch, option: list[str]) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    paint("z.png", name)
    standins.use(monkeypatch, "detection")
    words = [".", *option]
    if option == ["--list"]:
        Path("l.txt").write_bytes(b"caf\xe9.png\nz.png\n")
        words = ["l.txt"]
    text = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with contextlib.redirect_stdout(text):
        outcome = cli("predict", "model", *words)
        text.flush()
        said = text.buffer.getvalue().decode()  # type: ignore[attr-defined]
    assert outcome.code == 0, outcome.err
    assert "caf\\udce9.png" in said
    assert "z.png" in said  # the rest is not lost
    if option == ["--json"]:
        assert [os.fsencode(json.loads(line)["image"]) for line in said.splitlines()] == [b"caf\xe9.png", b"z.png"]
    if option == ["--coco", "c.json"]:
        assert os.fsencode(json.loads(Path("c.json").read_text())["images"][0]["file_name"]) == b"caf\xe9.png"
    if option == ["--draw", "o"]:
        assert sorted(os.listdir(b"o")) == [OUTPUT_MARK.encode(), b"caf\xe9.jpg", b"z.jpg"]


def test_standard_output_without_unicode(cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paint("猫😀.png")
    standins.use(monkeypatch, "classification")
    for option in ([], ["--json"], ["--csv"]):
        text = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
        with contextlib.redirect_stdout(text):
            assert cli("predict", "model", ".", *option).code == 0
            text.flush()
            said = text.buffer.getvalue().decode("cp1252")  # type: ignore[attr-defined]
        assert "\\u732b" in said
        if option == ["--json"]:
            assert json.loads(said)["image"] == "猫😀.png"


# --- ids of an annotation file ---


def truth(names: list[str], categories: dict[str, Any] | None = None) -> dict[str, Any]:
    """Pictures with ids from 900 down, and a cat in the left quarter of each."""
    categories = {"cat": 3, "sea": 5, "sky": 9} if categories is None else categories
    box = {"bbox": [0, 0, 8, 24], "area": 192, "iscrowd": 0, "segmentation": [[0, 0, 8, 0, 8, 24, 0, 24]]}
    numbers = [900 - place for place in range(len(names))]
    return {
        "images": [
            {"id": key, "file_name": name, "width": 32, "height": 24} for key, name in zip(numbers, names, strict=True)
        ],
        "annotations": [
            {"id": key, "image_id": key, "category_id": categories.get("cat", 0), **box} for key in numbers
        ],
        "categories": [{"id": key, "name": name} for name, key in categories.items()],
    }


# What `file_name` is: of pictures in data/val; what is said
ANNOTATED: dict[str, tuple[list[str], dict[str, Any] | None, str]] = {
    "names": (["b.png", "a.png"], None, ""),
    "paths": (["val/b.png", "./val/a.png"], None, ""),
    "of Windows": (["data\\val\\b.png", "data\\val\\a.png"], None, ""),
    "another folder": (["2017/b.png", "2017/a.png"], None, "folders in val.json differ from the pictures'"),
    "of another machine": (["/home/x/b.png", "/home/x/a.png"], None, "compared by file names alone"),
    "more images": (["c.png", "b.png", "train/a.png", "val/a.png"], None, ""),
    "a class less": (["b.png", "a.png"], {"cat": 3, "sea": 1}, "does not have the classes sky: what is found of them"),
    "a class more": (["b.png", "a.png"], {"dog": 1, "cat": 2, "sky": 7, "sea": 4}, ""),
    "the model's ids exchanged": (["b.png", "a.png"], {"sky": 17, "cat": 187, "sea": 155}, ""),
}


@pytest.mark.parametrize("case", ANNOTATED)
def test_ids_of_annotations(cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    """COCO's own tools compare the results with the file: a model without faults has an AP of 1."""
    names, categories, note = ANNOTATED[case]
    paint("data/val/a.png", "data/val/b.png")
    Path("val.json").write_text(json.dumps(truth(names, categories)))
    standins.use(monkeypatch, "detection")
    outcome = cli("predict", "model", "data/val", "--coco", "found.json", "--annotations", "val.json")
    assert outcome.code == 0, outcome.err
    assert "2 objects of 2 pictures in found.json, COCO's format of results" in outcome.err
    assert (note in outcome.err) if note else "note:" not in outcome.err
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO("val.json")
        found = known.loadRes("found.json")
        assert sorted(found.getImgIds()) == sorted(known.getImgIds())
        for kind in ("bbox", "segm"):
            compared = COCOeval(known, found, kind)
            compared.params.imgIds = [897, 899] if case == "more images" else [899, 900]
            compared.evaluate()
            compared.accumulate()
            compared.summarize()
            assert compared.stats[0] == pytest.approx(1)


UNFIT: dict[str, tuple[str, list[str], Any, str]] = {
    "no picture": ("detection", ["c.png"], None, "all 2 pictures are not in val.json, such as data/val/a.png: is"),
    "an image twice": ("detection", ["a.png", "a.png", "b.png"], None, "is 2 images of val.json: ids 900 and 899"),
    "no class": ("detection", ["a.png", "b.png"], {"x": 1}, "val.json has none of the model's classes: it has x, and"),
    "no json": ("detection", [], "x", "has no images with file_name and id, as COCO's json has them"),
    "a list": ("detection", [], [1], "has no images with file_name and id, as COCO's json has them"),
    "no names": ("detection", [], {"images": [{"id": 1}]}, "'file_name' is missing"),
    "no file": ("detection", [], None, "val.json cannot be read: No such file"),
    "a classifier": ("classification", ["a.png", "b.png"], None, "gives ids for --coco of a detector or --masks of"),
    "a segmenter": ("segmentation", ["a.png", "b.png"], None, "--annotations val.json gives ids for --coco"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNFIT)
def test_annotations_of_something_else(cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    task, names, given, message = UNFIT[case]
    paint("data/val/a.png", "data/val/b.png")
    if names:
        Path("val.json").write_text(json.dumps(truth(names, given)))
    elif given:
        Path("val.json").write_text(given if isinstance(given, str) else json.dumps(given))
    standins.use(monkeypatch, task)
    option = {"detection": ["--coco", "found.json"], "segmentation": ["--masks", "m"]}.get(task, [])
    outcome = cli("predict", "model", "data/val", *option, "--annotations", "val.json")
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert not Path("found.json").exists()


# Pictures, `file_name`s of the file, and the ids of the pictures that are in it; the others are left out
LEFT_OUT: dict[str, tuple[list[str], list[str], dict[str, int]]] = {
    "images of two parts": (["a", "b", "c"], ["b.png"], {"b": 900}),
    "in folders of equal names": (["train/a", "val/a"], ["val/a.png"], {"val/a": 900}),
    "the folder": (["train/a", "val/a", "val/b"], ["val/a.png", "val/b.png"], {"val/a": 900, "val/b": 899}),
    "other folders": (["a", "b"], ["2017/b.png"], {"b": 900}),
    "some with folders": (["a", "b", "c"], ["a.png", "2017/b.png"], {"a": 900, "b": 899}),
}  # fmt: skip


@pytest.mark.parametrize("case", LEFT_OUT)
@pytest.mark.parametrize(("task", "option"), [("detection", "--coco"), ("panoptic", "--masks")])
def test_pictures_that_are_not_in_the_annotations(
    cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch, task: str, option: str, case: str
) -> None:
    pictures, names, expected = LEFT_OUT[case]
    paint(*(f"images/{name}.png" for name in pictures))
    Path("val.json").write_text(json.dumps(truth(names)))
    standins.use(monkeypatch, task)
    outcome = cli("predict", "model", "images", option, "found", "--annotations", "val.json", "--json")
    assert outcome.code == 0, outcome.err
    left = len(pictures) - len(expected)
    assert f"note: {left} of {len(pictures)} pictures are not in val.json, such as images/" in outcome.err
    seen = [json.loads(line)["image"] for line in outcome.out.splitlines()]
    assert seen == [f"images/{name}.png" for name in expected]
    if task == "detection":
        assert [one["image_id"] for one in json.loads(Path("found").read_text())] == [*expected.values()]


def test_annotations_are_not_replaced(cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paint("a.png")
    Path("m").mkdir()
    for task, option, path in (("detection", "--coco val.json", "val.json"), ("panoptic", "--masks m", "m/val.json")):
        Path(path).write_text(json.dumps(truth(["a.png"])))
        standins.use(monkeypatch, task)
        outcome = cli("predict", "model", "a.png", *option.split(), "--annotations", path)
        assert (outcome.code, f"{option} might replace {path}: write elsewhere" in outcome.err) == (2, True)


def test_pictures_of_one_image(cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paint("new/a.png", "old/a.png")
    Path("val.json").write_text(json.dumps(truth(["a.png"])))
    standins.use(monkeypatch, "detection")
    outcome = cli("predict", "model", "new", "old", "--coco", "found.json", "--annotations", "val.json")
    assert "new/a.png and old/a.png are both the image 900 of val.json" in outcome.err


def test_ids_of_panoptic_annotations(cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paint("data/val/a.png", "data/val/b.png")
    Path("val.json").write_text(json.dumps(truth(["b.png", "a.png"])))
    standins.use(monkeypatch, "panoptic")
    assert cli("predict", "model", "data/val", "--masks", "m", "--annotations", "val.json").code == 0
    content = json.loads(Path("m/panoptic.json").read_text())
    assert [(one["image_id"], one["file_name"]) for one in content["annotations"]] == [(899, "a.png"), (900, "b.png")]
    assert {segment["category_id"] for one in content["annotations"] for segment in one["segments_info"]} == {3, 5}


def test_cards_are_not_changed() -> None:
    card = standins.CARDS["detection"]
    assert isinstance(card, DetectionCard)
    assert card.category_ids == standins.IDS


def test_places_by_hand(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path / "out", ".png", [tmp_path / "out" / "a.png"])
    (placed,) = place([(tmp_path / "in" / "a.jpg", tmp_path / "in")])
    with pytest.raises(ResnestError, match="is a picture that is looked at"), folder.writing(placed):
        pass

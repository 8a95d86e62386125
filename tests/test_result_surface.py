"""Results of every task have one surface: rows, text, JSON, CSV, drawings, files, pandas, supervision."""

from __future__ import annotations

import csv
import importlib
import io
import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resnest.classification.result import Classification, MultiLabel
from resnest.detection.card import Classes
from resnest.detection.result import CocoFile, Detections
from resnest.errors import ResnestError
from resnest.keypoints.points import PointLayout
from resnest.keypoints.result import Poses
from resnest.panoptic.result import PanopticClasses, PanopticFiles, PanopticFolder, PanopticMap, Segment
from resnest.runtime import rle
from resnest.runtime.palette import encode_ids
from resnest.runtime.results import ALL, DRAWINGS, Result, Show
from resnest.segmentation.mask_stack import MaskStack, StackFolder
from resnest.segmentation.result import LabelFolder, LabelMap, PixelClasses
from resnest.tasks import TASKS, load_object, task_info

WIDTH, HEIGHT = 40, 30
PICTURE = Image.new("RGB", (WIDTH, HEIGHT), (90, 120, 150))
LEFT = np.zeros((HEIGHT, WIDTH), bool)
LEFT[:, :10] = True


def classification() -> Classification:
    return Classification("a.jpg", ("rose", "tulip", "daisy"), np.array([0.25, 0.7, 0.05], np.float32))


def multi_label() -> MultiLabel:
    return MultiLabel("a.jpg", ("cat", "sofa", "dog"), np.array([0.75, 0.875, 0.125], np.float32))


def detections(*, masks: bool = True) -> Detections:
    return Detections(
        name="photos/a.jpg",
        width=WIDTH,
        height=HEIGHT,
        classes=Classes(("RBC", "WBC"), (1, 90)),
        boxes=np.array([[0, 0, 10, 30], [20, 5, 30, 15], [1, 1, 3, 3]], np.float32),
        labels=np.array([1, 0, 1]),
        scores=np.array([0.9, 0.6, 0.2], np.float32),
        masks=(rle.encode(LEFT), rle.encode(~LEFT), rle.encode(LEFT)) if masks else None,
    )


def label_map() -> LabelMap:
    classes = PixelClasses(("road", "sky", "pole"), (7, 0, 4))
    return LabelMap("photos/a.jpg", classes, LEFT.astype(np.uint8), np.array([0.5, 0.75, 0], np.float32))


def mask_stack() -> MaskStack:
    masks = np.stack([~LEFT, np.ones_like(LEFT), np.zeros_like(LEFT)])
    return MaskStack("photos/a.jpg", label_map().classes, masks, np.array([0.5, 0.75, 0], np.float32))


def panoptic_map() -> PanopticMap:
    ids = np.where(LEFT, 300, 2).astype(np.int32)
    thing = Segment.of(ids == 300, id=300, label=0, score=0.75)
    stuff = Segment.of(ids == 2, id=2, label=2, score=0.5)
    assert thing
    assert stuff
    return PanopticMap("photos/a.jpg", PanopticClasses(("cat", "sky", "sea"), (17, 187, 155), 1), ids, (thing, stuff))


def poses() -> Poses:
    points = np.array([[[1.5, 2.5], [30, 20]], [[5, 5], [6, 6]], [[1, 1], [2, 2]]], np.float64)
    return Poses(
        name="photos/a.jpg",
        width=WIDTH,
        height=HEIGHT,
        layout=PointLayout(names=("tip", "base"), sigmas=(0.1, 0.1), skeleton=((0, 1),)),
        thing="leaf",
        category_id=4,
        boxes=np.array([[0, 0, 40, 30], [4, 4, 8, 8], [0, 0, 3, 3]], np.float64),
        points=points,
        point_scores=np.array([[0.75, 0.5], [0.9, 0.1], [0.2, 0.2]], np.float32),
        scores=np.array([0.625, 0.5, 0.2]),
    )


MAKE: dict[str, Callable[[], Result]] = {
    "classification": classification,
    "multi-label": multi_label,
    "detection": detections,
    "boxes alone": lambda: detections(masks=False),
    "segmentation": label_map,
    "mask stack": mask_stack,
    "panoptic": panoptic_map,
    "keypoints": poses,
}
every_result = pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)

TEXTS: dict[str, str] = {
    "classification": "a.jpg: tulip 70.0%",
    "multi-label": "a.jpg: sofa 87.5%  cat 75.0%",
    "detection": "photos/a.jpg: 1 RBC, 1 WBC",
    "boxes alone": "photos/a.jpg: 1 RBC, 1 WBC",
    "segmentation": "photos/a.jpg: road 75 %, sky 25 %",
    "mask stack": "photos/a.jpg: sky 100 %, road 75 %",
    "panoptic": "photos/a.jpg: 1 cat, sea",
    "keypoints": "photos/a.jpg: 2 leaf, 3 of 4 points",
}

FIRST_ROWS: dict[str, dict[str, Any]] = {
    "classification": {"image": "a.jpg", "rank": 1, "label": "tulip", "score": pytest.approx(0.7)},
    "multi-label": {"image": "a.jpg", "rank": 1, "label": "sofa", "score": 0.875},
    "detection": {
        "image": "photos/a.jpg", "label": "WBC", "score": 0.9, "x": 0, "y": 0, "width": 10, "height": 30,
    },
    "segmentation": {
        "image": "photos/a.jpg", "label": "road", "category_id": 7, "pixels": 900, "share": 0.75, "score": 0.5,
    },
    "mask stack": {
        "image": "photos/a.jpg", "label": "sky", "category_id": 0, "pixels": 1200, "share": 1, "score": 0.75,
    },
    "panoptic": {
        "image": "photos/a.jpg", "id": 300, "label": "cat", "category_id": 17, "thing": True, "score": 0.75,
        "area": 300, "x": 0, "y": 0, "width": 10, "height": 30,
    },
    "keypoints": {
        "image": "photos/a.jpg", "object": 1, "object_score": 0.625, "label": "tip", "score": 0.75, "x": 1.5, "y": 2.5,
    },
}  # fmt: skip
FIRST_ROWS["boxes alone"] = FIRST_ROWS["detection"]


def test_there_is_a_result_for_each_task() -> None:
    assert {type(make()) for make in MAKE.values()} == {
        *(load_object(task_info(task).result) for task in TASKS),
        MultiLabel,
        MaskStack,
    }


@pytest.mark.parametrize("kind", MAKE)
def test_text_and_rows(kind: str) -> None:
    result = MAKE[kind]()
    assert (str(result), result.text()) == (TEXTS[kind], TEXTS[kind])
    assert result.rows()[0] == FIRST_ROWS[kind]
    for row in result.rows():
        assert [*row] == [*result.COLUMNS]
        assert all(isinstance(value, str | int | float) for value in row.values())
    assert json.loads(result.to_json())["image"] == result.name
    table = list(csv.DictReader(io.StringIO(result.to_csv())))
    assert [row["label"] for row in table] == [row["label"] for row in result.rows()]
    assert float(table[0]["score"]) == pytest.approx(result.rows()[0]["score"])


# what to show: rows, objects or labels in the JSON, names in the text
SHOWN: dict[str, tuple[str, Show, int, int, int]] = {
    "a classifier, its best": ("classification", Show(), 1, 1, 1),
    "a classifier, two": ("classification", Show(top=2), 2, 2, 2),
    "a classifier, all": ("classification", ALL, 3, 3, 3),
    "labels that apply": ("multi-label", Show(), 2, 3, 2),
    "labels from 80 %": ("multi-label", Show(threshold=0.8), 1, 3, 1),
    "labels, one": ("multi-label", Show(top=1), 1, 3, 1),
    "likely objects": ("detection", Show(), 2, 2, 2),
    "objects from 70 %": ("detection", Show(threshold=0.7), 1, 1, 1),
    "all objects": ("detection", ALL, 3, 3, 2),
    "no object": ("detection", Show(threshold=0.95), 0, 0, 0),
    "a detector knows no best ones": ("detection", Show(top=1), 2, 2, 2),
    "segments": ("segmentation", Show(top=1, threshold=0.9), 2, 2, 2),
    "masks that overlap": ("mask stack", Show(top=1, threshold=0.9), 2, 2, 2),
    "panoptic segments": ("panoptic", Show(top=1, threshold=0.9), 2, 2, 2),
}


@pytest.mark.parametrize(("kind", "show", "rows", "entries", "names"), SHOWN.values(), ids=SHOWN)
def test_what_is_shown(kind: str, show: Show, rows: int, entries: int, names: int) -> None:
    result = MAKE[kind]()
    content = result.to_dict(show)
    (found,) = (content[key] for key in ("top", "objects", "segments") if key in content)
    text = result.text(show).partition(": ")[2]
    told = 0 if text == "-" else len([name for name in text.replace("  ", ", ").split(", ") if name])
    assert (len(result.rows(show)), len(found), told) == (rows, entries, names)
    assert len(result.cells(show)) == max(rows, 1)  # a picture without anything has a line, too
    assert [cells[0] for cells in result.cells(show)] == [result.name] * max(rows, 1)
    if not rows:
        assert {*result.cells(show)[0][1:]} == {""}


@pytest.mark.parametrize("kind", MAKE)
def test_drawings_follow_what_is_shown(kind: str) -> None:
    result = MAKE[kind]()
    drawn = result.draw(PICTURE)
    assert drawn.mode == "RGB"
    assert min(drawn.size) > HEIGHT
    same = np.array_equal(drawn, result.draw(np.asarray(PICTURE), ALL))  # an array is as good as an image
    assert same == (kind in ("segmentation", "mask stack", "panoptic"))
    buffer = io.BytesIO()
    PICTURE.save(buffer, "PNG")
    assert np.array_equal(drawn, result.draw(buffer))
    assert PICTURE.getcolors() == [(WIDTH * HEIGHT, (90, 120, 150))]  # it is not drawn into


@every_result
def test_saved_files(make: Callable[[], Result], tmp_path: Path) -> None:
    result = make()
    for suffix in (*DRAWINGS, ".JPG"):
        result.save(tmp_path / f"x{suffix}", PICTURE)
        with Image.open(tmp_path / f"x{suffix}") as drawn:
            assert drawn.size == result.draw(PICTURE).size
    result.save(str(tmp_path / "x.json"))
    assert json.loads((tmp_path / "x.json").read_text()) == json.loads(json.dumps(result.to_dict()))
    result.save(tmp_path / "x.csv", show=Show())
    assert (tmp_path / "x.csv").read_bytes().decode() == result.to_csv(Show())


def test_maps_are_pictures_of_numbers(tmp_path: Path) -> None:
    label_map().save(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as mask:
        assert (mask.mode, np.unique(np.asarray(mask)).tolist()) == ("P", [0, 7])
    one = mask_stack()
    replace(one, masks=one.masks[:1]).save(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as mask:
        assert np.array_equal(np.asarray(mask) == 255, one.masks[0])
    panoptic_map().save(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as ids:
        assert np.array_equal(ids, encode_ids(panoptic_map().ids))


WRONG_FILES: dict[str, tuple[str, str, bool, str]] = {
    "no suffix": ("detection", "x", True, "x: expected .jpg, .jpeg, .png, .webp, .bmp with the picture, or without"),
    "an unknown one": ("panoptic", "x.txt", False, "x.txt: expected .jpg"),
    "numbers with a picture": ("detection", "x.json", True, "x.json: expected .jpg"),
    "a drawing of nothing": ("classification", "x.png", False, "x.png: a drawing needs the picture, save"),
    "several masks": ("mask stack", "x.png", False, "x.png: a drawing needs the picture, save"),
    "a mask that JPEG changes": ("segmentation", "x.jpg", False, "x.jpg: a drawing needs the picture, save"),
    "no folder": ("detection", "no/x.json", False, "no/.*x.json.* cannot be written: No such file"),
    "no folder for a drawing": ("detection", "no/x.jpg", True, "no/x.jpg cannot be written: No such file"),
}


@pytest.mark.parametrize(("kind", "name", "picture", "message"), WRONG_FILES.values(), ids=WRONG_FILES)
def test_files_that_cannot_be(kind: str, name: str, picture: bool, message: str, tmp_path: Path) -> None:
    with pytest.raises(ResnestError, match=message):
        MAKE[kind]().save(tmp_path / name, PICTURE if picture else None)
    assert not list(tmp_path.iterdir())


@every_result
def test_another_picture_is_refused(make: Callable[[], Result]) -> None:
    result, other = make(), Image.new("RGB", (WIDTH, HEIGHT + 1))
    if result.size is None:
        assert result.draw(other).width > WIDTH
    else:
        with pytest.raises(ResnestError, match=r"a.jpg: the picture has 40 x 31 pixels, .* of one with 40 x 30"):
            result.draw(other)


def test_some_of_the_detections() -> None:
    found = detections()
    assert [len(one) for one in (found[0], found[-1], found[:2], found[[2, 0]], found[found.labels == 1])] == [
        1, 1, 2, 2, 2,
    ]  # fmt: skip
    assert found[[2, 0]].masks == (found.masks[2], found.masks[0])  # type: ignore[index,call-overload]
    assert [one.scores.tolist() for one in found] == [[score] for score in found.scores.tolist()]
    with pytest.raises(IndexError):
        found[3]


@every_result
@pytest.mark.parametrize("package", ["pandas", "supervision"])
def test_what_is_not_installed(package: str, make: Callable[[], Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(ResnestError, match=f"^{package} is not installed: pip install {package}$"):
        getattr(make(), f"to_{package}")()


@every_result
def test_pandas(make: Callable[[], Result]) -> None:
    pandas = pytest.importorskip("pandas")
    result = make()
    frame = result.to_pandas()
    assert [*frame.columns] == [*result.COLUMNS]
    assert frame.to_dict("records") == result.rows()
    assert len(pandas.concat([frame, result.to_pandas(Show())])) == len(result.rows()) + len(result.rows(Show()))
    assert [*replace(detections()[:0]).to_pandas().columns] == [*Detections.COLUMNS]


@pytest.fixture
def sv() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has a word to say about OpenCV
        try:
            return importlib.import_module("supervision")
        except ImportError:
            pytest.skip("supervision is not installed")


CLASS_NUMBERS = {
    "detection": [1, 0, 1],
    "boxes alone": [1, 0, 1],
    "segmentation": [0, 1],
    "mask stack": [1, 0],
    "panoptic": [0, 2],
}


@pytest.mark.parametrize("kind", CLASS_NUMBERS)
def test_supervision(kind: str, sv: Any) -> None:
    result: Any = MAKE[kind]()
    found = result.to_supervision()
    assert isinstance(found, sv.Detections)
    assert found.class_id.tolist() == CLASS_NUMBERS[kind]
    assert found.data["class_name"].tolist() == [result.classes.names[number] for number in CLASS_NUMBERS[kind]]
    assert found.confidence == pytest.approx([row["score"] for row in result.rows()])
    if kind == "boxes alone":
        assert found.mask is None
    else:
        assert found.mask.shape == (len(found), HEIGHT, WIDTH)
        assert found.mask.dtype == bool
        assert found.mask[0].sum() == {"detection": 300, "segmentation": 900, "mask stack": 1200, "panoptic": 300}[kind]
    if kind == "mask stack":
        assert found.xyxy.tolist() == [[0, 0, 40, 30], [10, 0, 40, 30]]
    elif kind == "segmentation":
        assert found.xyxy.tolist() == [[10, 0, 40, 30], [0, 0, 10, 30]]
    else:
        assert found.xyxy[0].tolist() == [0, 0, 10, 30]
    likely = found[found.confidence >= 0.5]
    assert len(likely) == len(result.to_supervision(Show()))
    annotated = sv.BoxAnnotator().annotate(np.array(PICTURE), likely)
    assert (annotated != np.array(PICTURE)).any()


def test_supervision_of_nothing(sv: Any) -> None:
    for masks in (True, False):
        found = detections(masks=masks)[:0].to_supervision()
        assert len(found) == 0
        assert len(sv.Detections.merge([found, found])) == 0
    empty = replace(panoptic_map(), ids=np.zeros((HEIGHT, WIDTH), np.int32), segments=())
    assert len(empty.to_supervision()) == 0


def test_supervision_of_classifiers(sv: Any) -> None:
    found = classification().to_supervision()
    assert isinstance(found, sv.Classifications)
    assert found.class_id.tolist() == [1, 0, 2]
    assert found.confidence == pytest.approx([0.7, 0.25, 0.05])
    assert found.get_top_k(1)[0].tolist() == [1]
    assert multi_label().to_supervision(Show()).class_id.tolist() == [1, 0]


def test_files_for_other_programs(tmp_path: Path) -> None:
    """As the command line makes them, from Python: without a card, named after the results."""
    coco = CocoFile(tmp_path / "found.json", threshold=0.5)
    labels = LabelFolder(tmp_path / "labels", label_map().classes)
    maps = PanopticFolder(str(tmp_path / "maps"), panoptic_map().classes)
    stacks = StackFolder(tmp_path / "stacks", mask_stack().classes)
    for _ in range(2):
        coco.add(detections())
        labels.add(label_map())
        maps.add(panoptic_map())
        stacks.add(mask_stack())
    assert stacks.close() == f"6 masks of 2 pictures and classes.json in {tmp_path / 'stacks'}"
    assert {path.name for path in (tmp_path / "stacks" / "sky").iterdir()} == {"a.png", "a-2.png"}
    assert coco.close() == f"4 objects of 2 pictures in {tmp_path / 'found.json'}"
    assert labels.close() == f"2 masks and classes.json in {tmp_path / 'labels'}"
    assert maps.close() == f"2 maps in {tmp_path / 'maps' / 'panoptic'}, and panoptic.json beside it"
    assert json.loads((tmp_path / "found.json").read_text())["categories"][1] == {"id": 90, "name": "WBC"}
    assert {path.name for path in (tmp_path / "labels").iterdir()} == {"a.png", "a-2.png", "classes.json"}
    assert np.array_equal(PanopticFiles.read(tmp_path / "maps" / "panoptic.json").load(2).ids, panoptic_map().ids)


def test_inputs_are_never_replaced(tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    for files in (
        LabelFolder(tmp_path, label_map().classes, inputs=[tmp_path / "a.png"]),
        PanopticFolder(tmp_path, panoptic_map().classes, inputs=[tmp_path / "panoptic" / "a.png"]),
    ):
        with pytest.raises(ResnestError, match=r"a\.png is a picture that is looked at: take another folder than"):
            files.add(label_map() if isinstance(files, LabelFolder) else panoptic_map())
    assert (tmp_path / "a.png").read_bytes() == before

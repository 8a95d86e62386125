"""Data that another task reads, or none: what it is, and how to go on, in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

import masked
from resnest.data.sources import open_dataset, open_split
from resnest.errors import ResnestError
from scenes import HEIGHT, WIDTH, instances, many, picture, voc, voc_object, write
from standins import CARDS


def _coco(root: Path) -> None:
    for part in ("train", "val"):
        instances(root, part, many())


def _labelme(root: Path) -> None:
    shape = {"label": "cat", "points": [[1, 1], [9, 1], [9, 9]], "shape_type": "polygon"}
    for number in range(4):
        picture(root / f"{number}.jpg", number)
        sides = {"imageWidth": WIDTH, "imageHeight": HEIGHT}
        write(root / f"{number}.json", {"shapes": [shape], "imagePath": f"{number}.jpg", **sides})


def _yolo(root: Path) -> None:
    for number in range(4):
        picture(root / "images" / f"{number}.jpg", number)
        masked.text(root / "labels" / f"{number}.txt", "0 0.1 0.1 0.5 0.1 0.5 0.5\n")


def _voc(root: Path) -> None:
    for number in range(4):
        picture(root / f"{number}.png", number)
        masked.text(root / f"{number}.xml", voc(str(number), voc_object("cat", (4, 4, 14, 14))))


@pytest.mark.parametrize("task", ["segmentation", "panoptic"])
@pytest.mark.parametrize(("build", "format"), [(_coco, "coco"), (_labelme, "labelme"), (_yolo, "yolo"), (_voc, "voc")])
def test_outlines_and_boxes_where_masks_are_expected(
    build: Callable[[Path], None], format: str, task: str, tmp_path: Path
) -> None:
    build(tmp_path)
    with pytest.raises(ResnestError, match=f"There is {format} data, which is for detection: export it in that layout"):
        open_dataset(tmp_path, task=task)


def test_masks_where_segments_are_expected(tmp_path: Path) -> None:
    masked.folders(tmp_path)
    with pytest.raises(ResnestError, match="There is masks data, which is for segmentation: export it"):
        open_dataset(tmp_path, task="panoptic")


KAGGLE = ("ImageId,EncodedPixels", "ImageId_ClassId,EncodedPixels", "ImageId,ClassId,EncodedPixels", "id,rle_mask")


@pytest.mark.parametrize("head", KAGGLE)
@pytest.mark.parametrize("task", [None, "segmentation", "panoptic", "detection", "classification"])
def test_run_lengths_of_kaggle(head: str, task: str | None, tmp_path: Path) -> None:
    for folder in ("train_images", "test_images"):
        picture(tmp_path / folder / "0.jpg")
    masked.text(tmp_path / "train.csv", f"{head}\n0.jpg_1{',1' * (head.count(',') - 1)},1 3 40 2\n")
    with pytest.raises(ResnestError, match=r"run lengths, as of Kaggle, which is not read: write its masks as PNG"):
        open_dataset(tmp_path, task=task)


def test_run_lengths_beside_masks_do_not_matter(tmp_path: Path) -> None:
    masked.folders(tmp_path)
    masked.text(tmp_path / "train.csv", "id,rle_mask\n0,1 3 40 2\n")
    assert open_dataset(tmp_path).format == "masks"
    assert open_dataset(tmp_path, task="segmentation").format == "masks"


SIZES = {"larger": (41, 31), "smaller": (39, 29), "half": (20, 15), "turned": (30, 40)}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("part", ["train", "val"])
def test_masks_of_another_size_are_named_before_training(size: str, part: str, tmp_path: Path) -> None:
    masked.folders(tmp_path)
    width, height = SIZES[size]
    for path in (tmp_path / "masks" / part).iterdir():
        Image.open(path).resize((width, height), Image.Resampling.NEAREST).save(path)
    with pytest.raises(ResnestError, match=rf"has 40 x 30 pixels, but is annotated as {width} x {height} by its mask"):
        open_dataset(tmp_path, task="segmentation")


def test_one_mask_of_another_size_is_one_bad_image(tmp_path: Path) -> None:
    masked.folders(tmp_path)
    path = next((tmp_path / "masks" / "train").iterdir())
    Image.open(path).resize((20, 15)).save(path)
    assert len(open_dataset(tmp_path, task="segmentation").train) == 4


def _numbered(root: Path, folders: str, classes: object) -> Path:
    for folder in folders.split():
        for number in range(3):
            picture(root / folder / f"{number}.jpg", number)
    masked.text(root / "classes.json", json.dumps(classes))
    return root


@pytest.mark.parametrize(
    ("folders", "classes", "names"),
    [
        ("0 1 2", ["1", "2", "0"], "0 1 2"),
        ("1 2", ["1", "2", "3"], "1 2"),  # not 2 and 3, by place
        ("1 2", [{"name": "1"}, {"name": "2"}, {"name": "3"}], "1 2"),
        ("0 1 2", ["1", "2", "3"], "1 2 3"),  # 0 is no name: by place
        ("0 1 2", ["a", "b", "c"], "a b c"),
        ("0 1 2", {"0": "1", "1": "2", "2": "0"}, "1 2 0"),  # keys decide
    ],
)
def test_lists_of_numbers_as_a_reader_expects(folders: str, classes: object, names: str, tmp_path: Path) -> None:
    assert open_dataset(_numbered(tmp_path, folders, classes)).train.class_names == tuple(names.split())


def _called(root: Path, names: dict[int, str]) -> Path:
    content = many()
    content["categories"] = [{"id": key, "name": name} for key, name in names.items()]
    instances(root, "val", content)
    return root


def test_categories_called_by_their_ids(tmp_path: Path) -> None:
    """By id where the names are the ids and the model has names; else by name."""
    card = replace(CARDS["detection"], class_names=("dog", "cat"), category_ids=(2, 9))
    samples = open_split(_called(tmp_path / "ids", {9: "9", 2: "2"})).samples.aligned(card, "here")
    assert "classes by the category ids that the model was trained with: 9 is cat" in samples.describe()
    assert samples.object_counts().tolist() == [0, 10]
    samples = open_split(_called(tmp_path / "names", {9: "cat", 2: "dog"})).samples.aligned(card, "here")
    assert samples.object_counts().tolist() == [0, 10]
    with pytest.raises(ResnestError, match="that the model does not know: 7"):
        open_split(_called(tmp_path / "others", {9: "7", 2: "2"})).samples.aligned(card, "here")
    card = replace(card, class_names=("2", "9"), category_ids=(9, 2))  # names come before ids
    samples = open_split(_called(tmp_path / "crossed", {9: "9", 2: "2"})).samples.aligned(card, "here")
    assert samples.object_counts().tolist() == [0, 10]

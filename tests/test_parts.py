"""Parts are recognised by one rule in every form of data: each form with each spelling opens as the same parts."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import masked
from resnest.data.sources import Splits, open_dataset, open_split
from resnest.errors import ResnestError
from scenes import HEIGHT, WIDTH, picture, voc, voc_object, write

SPELLINGS = (
    "train val", "TRAIN VALID", "Training Validation", "trainset valset", "TrainSet DevSet", "my_train my_val",
    "seg_train seg_eval", "pets-training pets-validation", "train2017 val2017", "train_data val_data",
)  # fmt: skip
COUNTS = (3, 2)
CLASSES = ("cat", "dog")


def _pictures(folder: Path, part: int) -> list[str]:
    """The pictures of a part, of other names in each."""
    names = [f"{part}{number}.jpg" for number in range(COUNTS[part])]
    for name in names:
        picture(folder / name, int(name[:2]))
    return names


def _class_folders(root: Path, folder: str, part: int) -> None:
    for label in CLASSES:
        _pictures(root / folder / label, part)


def _tar(root: Path, file: str, part: int) -> None:
    where = root.parent / "unpacked" / str(part)
    _class_folders(where, "", part)
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(root / file, "w") as archive:
        for label in CLASSES:
            archive.add(where / label, label)


def _coco_json(names: list[str]) -> dict[str, Any]:
    images = [{"id": k, "file_name": name, "width": WIDTH, "height": HEIGHT} for k, name in enumerate(names, 1)]
    boxes = [
        {"id": k, "image_id": k, "category_id": k % 2 + 1, "bbox": [4, 4, 9, 9], "area": 81, "iscrowd": 0}
        for k in range(1, len(names) + 1)
    ]
    return {
        "images": images,
        "annotations": boxes,
        "categories": [{"id": k, "name": name} for k, name in enumerate(CLASSES, 1)],
    }


def _coco(file: str, images: str = "{}") -> Callable[[Path, str, int], None]:
    def write_part(root: Path, name: str, part: int) -> None:
        names = _pictures(root / images.format(name), part)
        write(root / file.format(name), _coco_json(names))

    return write_part


def _yolo(images: str, labels: str) -> Callable[[Path, str, int], None]:
    def write_part(root: Path, name: str, part: int) -> None:
        for file in _pictures(root / images.format(name), part):
            masked.text(
                (root / labels.format(name) / file).with_suffix(".txt"), f"{int(file[1]) % 2} 0.5 0.5 0.2 0.2\n"
            )
        masked.text(root / "classes.txt", "\n".join(CLASSES))

    return write_part


def _xml(stem: str, number: int) -> str:
    return voc(stem, voc_object(CLASSES[number % 2], (4, 4, 14, 14)))


def _voc_beside(root: Path, name: str, part: int) -> None:
    for number, file in enumerate(_pictures(root / name, part)):
        masked.text((root / name / file).with_suffix(".xml"), _xml(Path(file).stem, number))


def _voc_apart(images: str, annotations: str) -> Callable[[Path, str, int], None]:
    def write_part(root: Path, name: str, part: int) -> None:
        for number, file in enumerate(_pictures(root / name / images, part)):
            masked.text((root / name / annotations / file).with_suffix(".xml"), _xml(Path(file).stem, number))

    return write_part


def _voc_lists(root: Path, name: str, part: int) -> None:
    names = [Path(file).stem for file in _pictures(root / "JPEGImages", part)]
    for number, stem in enumerate(names):
        masked.text(root / "Annotations" / f"{stem}.xml", _xml(stem, number))
    masked.text(root / "ImageSets" / "Main" / f"{name}.txt", "\n".join(names))
    for label in CLASSES:  # the devkit's lists of classes are no parts
        flags = "".join(f"{stem} {'1' if number else '-1'}\n" for number, stem in enumerate(names))
        masked.text(root / "ImageSets" / "Main" / f"{label}_{name}.txt", flags)


def _voc_masks(root: Path, name: str, part: int) -> None:
    _mask_pairs(root / "JPEGImages", root / "SegmentationClass", part)
    names = [f"{part}{number}" for number in range(COUNTS[part])]
    masked.text(root / "ImageSets" / "Segmentation" / f"{name}.txt", "\n".join(names))
    masked.text(root / "ImageSets" / "Segmentation" / f"cat_{name}.txt", "\n".join(f"{stem} 1" for stem in names))
    masked.text(root / "classes.txt", masked.CLASSES)


def _mask_pairs(images: Path, masks: Path, part: int) -> None:
    for number in range(COUNTS[part]):
        masked.picture(images / f"{part}{number}.jpg", number)
        masked.mask(masks / f"{part}{number}.png", number)


def _masks(images: str, masks: str) -> Callable[[Path, str, int], None]:
    def write_part(root: Path, name: str, part: int) -> None:
        _mask_pairs(root / images.format(name), root / masks.format(name), part)
        masked.text(root / "classes.txt", masked.CLASSES)

    return write_part


def _labelme(root: Path, name: str, part: int) -> None:
    for number, file in enumerate(_pictures(root / name, part)):
        shape = {"label": CLASSES[number % 2], "points": [[4, 4], [14, 14]], "shape_type": "rectangle"}
        sides = {"imageWidth": WIDTH, "imageHeight": HEIGHT}
        write((root / name / file).with_suffix(".json"), {"shapes": [shape], "imagePath": file, **sides})


def _via(root: Path, name: str, part: int) -> None:
    shape = {"name": "rect", "x": 4, "y": 4, "width": 9, "height": 9}
    entries = {
        file: {
            "filename": file,
            "regions": [{"shape_attributes": shape, "region_attributes": {"class": CLASSES[number % 2]}}],
        }
        for number, file in enumerate(_pictures(root / name, part))
    }
    write(root / name / "via_region_data.json", entries)


def _metadata(file: str, inside: str) -> Callable[[Path, str, int], None]:
    def write_part(root: Path, name: str, part: int) -> None:
        path = root / file.format(name)
        lines = [
            json.dumps(
                {"file_name": inside.format(name) + file, "objects": {"bbox": [[4, 4, 9, 9]], "category": [kind]}}
            )
            for file, kind in zip(_pictures(root / name, part), ("cat", "dog", "cat"), strict=False)
        ]
        masked.text(path, (path.read_text() if path.is_file() else "") + "\n".join(lines) + "\n")

    return write_part


FORMS: Mapping[str, Callable[[Path, str, int], None]] = {
    "class folders": _class_folders,
    "tar files": lambda root, name, part: _tar(root, f"{name}-000.tar", part),
    "tar in folders": lambda root, name, part: _tar(root, f"{name}/000.tar", part),
    "coco": _coco("annotations/instances_{}.json", "images/{}"),
    "coco of Roboflow": _coco("{}/_annotations.coco.json"),
    "coco beside the pictures": _coco("{}/labels.json"),
    "coco in annotations in folders": _coco("{0}/annotations/instances.json", "{}/images"),
    "coco files at the top": _coco("{}.json", "images"),
    "yolo, images first": _yolo("images/{}", "labels/{}"),
    "yolo, parts first": _yolo("{}/images", "{}/labels"),
    "yolo beside the pictures": _yolo("{}", "{}"),
    "yolo of FiftyOne": _yolo("{}/data", "{}/data"),
    "voc beside the pictures": _voc_beside,
    "voc of supervision": _voc_apart("images", "annotations"),
    "voc of FiftyOne": _voc_apart("data", "labels"),
    "voc lists": _voc_lists,
    "voc lists of masks": _voc_masks,
    "masks, images first": _masks("images/{}", "masks/{}"),
    "masks, parts first": _masks("{}/images", "{}/masks"),
    "masks in folders of parts": _masks("{}", "{}_masks"),
    "masks of CamVid": _masks("{}", "{}annot"),
    "masks of KITTI": _masks("{}/image_2", "{}/semantic"),
    "masks, parts in names": _masks("{}_images", "{}_masks"),
    "labelme": _labelme,
    "via": _via,
    "metadata in folders": _metadata("{}/metadata.jsonl", ""),
    "metadata of all": _metadata("metadata.jsonl", "{}/"),
}
LISTS = ("voc lists", "voc lists of masks")  # where my_train.txt may be a list of one class
PLAIN = ("train val", "TRAIN VALID", "Training Validation", "trainset valset", "TrainSet DevSet", "train2017 val2017")


def _open(root: Path) -> Splits:
    task = "segmentation" if (root / "classes.txt").is_file() and "tree" in (root / "classes.txt").read_text() else None
    return open_dataset(root, task=task)


@pytest.mark.parametrize(
    ("form", "spelling"),
    [(form, spelling) for form in FORMS for spelling in SPELLINGS if form not in LISTS or spelling in PLAIN],
)
def test_every_form_with_every_spelling(form: str, spelling: str, tmp_path: Path) -> None:
    for part, name in enumerate(spelling.split()):
        FORMS[form](tmp_path / "set", name, part)
    splits = _open(tmp_path / "set")
    times = 2 if "class" in form or "tar" in form else 1  # an image of each class
    assert (len(splits.train), len(splits.val)) == tuple(times * count for count in COUNTS)
    assert not splits.unsplit, splits.describe()
    assert "not read" not in splits.describe()


IN_FOLDERS = (
    "coco of Roboflow", "coco beside the pictures", "yolo, images first", "yolo, parts first",
    "yolo of FiftyOne", "voc beside the pictures", "voc of supervision", "voc of FiftyOne", "masks, images first",
    "masks, parts first", "masks of KITTI", "labelme", "via", "metadata in folders", "metadata of all",
)  # fmt: skip


@pytest.mark.parametrize("form", IN_FOLDERS)
def test_what_is_beside_the_parts_is_named(form: str, tmp_path: Path) -> None:
    for part, name in enumerate(("seg_train", "seg_val", "extra")):
        FORMS[form](tmp_path, name, part % 2)
    assert re.search(r"\(not read, as it is beside the parts: extra[;)]", _open(tmp_path).describe())


@pytest.mark.parametrize("form", IN_FOLDERS)
def test_two_folders_of_one_part_are_refused(form: str, tmp_path: Path) -> None:
    for part, name in enumerate(("train", "val", "valid")):
        FORMS[form](tmp_path, name, part % 2)
    with pytest.raises(ResnestError, match="val and valid are both called the validation part: leave one"):
        _open(tmp_path)


@pytest.mark.parametrize("form", IN_FOLDERS)
def test_a_test_part_is_the_validation_part_only_where_there_is_none(form: str, tmp_path: Path) -> None:
    FORMS[form](tmp_path, "TrainSet", 0)
    FORMS[form](tmp_path, "TestSet", 1)
    assert re.search(r"\((TestSet|test) is the validation part[;)]", _open(tmp_path).describe())
    FORMS[form](tmp_path, "DevSet", 1)
    task = "segmentation" if form.startswith("masks") else None
    assert len(open_split(tmp_path, "test", task=task).samples) == 2
    assert "is the validation part" not in _open(tmp_path).describe()


@pytest.mark.parametrize("form", IN_FOLDERS)
def test_a_training_part_alone_is_the_whole(form: str, tmp_path: Path) -> None:
    FORMS[form](tmp_path, "Training", 0)
    splits = _open(tmp_path)
    assert splits.unsplit is not None
    assert len(splits.train) + len(splits.val) == 3


def test_lists_of_classes_are_no_parts(tmp_path: Path) -> None:
    _voc_lists(tmp_path, "train", 0)
    (tmp_path / "ImageSets" / "Main" / "train.txt").unlink()
    splits = open_dataset(tmp_path)
    assert "(Main has no list of a part, only cat_train.txt, dog_train.txt: not read; " in splits.describe()
    assert (len(splits.train) + len(splits.val), splits.train.class_names) == (3, CLASSES)


def test_files_with_a_part_in_one_word(tmp_path: Path) -> None:
    for part, name in enumerate(("trainset.tar", "valset.tar", "more.tar")):
        _tar(tmp_path / "set", name, part % 2)
    splits = open_dataset(tmp_path / "set")
    assert (len(splits.train), len(splits.val)) == (6, 4)
    assert "(not read, as it is beside the parts: more.tar)" in splits.describe()


@pytest.mark.parametrize("form", IN_FOLDERS)
def test_an_unpacked_folder_may_be_called_as_a_part(form: str, tmp_path: Path) -> None:
    """crash-test-data is no test part: what is in it is read."""
    for part, name in enumerate(("train", "val")):
        FORMS[form](tmp_path / "set" / "crash-test-data", name, part)
    task = "segmentation" if form.startswith("masks") else "detection"
    splits = open_dataset(tmp_path / "set", task=task)
    assert (len(splits.train), len(splits.val)) == COUNTS

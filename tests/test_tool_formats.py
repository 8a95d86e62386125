"""What annotation tools write is read as they mean it, or refused with the tool's name and the export to choose."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resnest.data.sources import Splits, open_dataset, open_split
from resnest.detection.data import DetectionSamples
from resnest.errors import ResnestError
from resnest.segmentation.data import PixelSamples
from scenes import HEIGHT, WIDTH, picture, voc, voc_object, write

# Every set shows the same: a cat in each picture but the fourth, which is empty, a dog too in those of even number
CAT, DOG = (4.0, 4.0, 14.0, 14.0), (20.0, 6.0, 30.0, 26.0)
NUMBERS = {"train": range(4), "valid": range(4, 6)}
NAMES = ("cat", "dog")


def _objects(number: int) -> list[tuple[str, tuple[float, ...]]]:
    return [("cat", CAT), *([("dog", DOG)] if number % 2 == 0 else [])] if number != 3 else []


def _polygon(box: tuple[float, ...]) -> list[float]:
    left, top, right, bottom = box
    return [left, top, right, top, right, bottom, left, bottom]


def _pictures(folder: Path, part: str = "train") -> list[str]:
    names = [f"{number}.png" for number in NUMBERS[part]]
    for name in names:
        picture(folder / name, int(name[0]))
    return names


def _coco(part: str, prefix: str = "", start: int = 1) -> dict[str, Any]:
    images = [
        {"id": number, "file_name": f"{prefix}{number}.png", "width": WIDTH, "height": HEIGHT}
        for number in NUMBERS[part]
    ]
    objects = [
        {
            "image_id": number,
            "category_id": NAMES.index(name) + start,
            "bbox": [*box[:2], box[2] - box[0], box[3] - box[1]],
            "area": (box[2] - box[0]) * (box[3] - box[1]),
            "segmentation": [_polygon(box)],
            "iscrowd": 0,
        }
        for number in NUMBERS[part]
        for name, box in _objects(number)
    ]
    return {
        "info": {},
        "images": images,
        "annotations": [{"id": place, **item} for place, item in enumerate(objects)],
        "categories": [{"id": place, "name": name} for place, name in enumerate(NAMES, start)],
    }


# --- What is read. Each builder writes a set as its tool does, and returns what is given as --data ---


def roboflow_coco(root: Path) -> Path:
    for part in NUMBERS:
        _pictures(root / part, part)
        content = _coco(part)
        content["categories"].insert(0, {"id": 0, "name": "pets", "supercategory": "none"})
        write(root / part / "_annotations.coco.json", content)
    (root / "README.roboflow.txt").write_text("Exported\n")
    return root


def roboflow_voc(root: Path) -> Path:
    for part in NUMBERS:
        for name in _pictures(root / part, part):
            _write_xml(root / part / f"{Path(name).stem}.xml", int(name[0]))
    return root


def _write_xml(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    boxes = [voc_object(name, (box[0] + 1, box[1] + 1, *box[2:])) for name, box in _objects(number)]
    path.write_text(voc(path.stem, "".join(boxes)))


# What a tool's xml has before the objects, and the number of its first pixel
VOC_HEADS = {
    # supervision 0.31.2, dataset/formats/pascal_voc.py; Roboflow's own has its database, too
    "supervision": ("<folder>VOC</folder>{name}<source><database>roboflow.ai</database></source>{size}", 1),
    # datumaro 1.13.12, plugins/data_formats/voc/exporter.py, as CVAT's PASCAL VOC 1.1
    "datumaro": (
        "<folder></folder>{name}<source>\n<database>Unknown</database>\n<annotation>Unknown</annotation>\n"
        "<image>Unknown</image>\n</source>{size}<segmented>0</segmented>",
        0.0,
    ),
    # fiftyone 1.22.1, utils/voc.py
    "fiftyone": (
        "<folder></folder>{name}<path>/tmp/{name}</path><source>\n<database></database>\n</source>{size}"
        "<segmented></segmented>",
        0,
    ),
    # label_studio_sdk 2.1.2, converter/converter.py
    "label_studio": (
        "<folder>images</folder>{name}<source><database>MyDatabase</database><annotation>COCO2017</annotation>"
        "<image>flickr</image><flickrid>NULL</flickrid><annotator>1</annotator></source>\n<owner>\n"
        "<flickrid>NULL</flickrid>\n<name>Label Studio</name></owner>{size}<segmented>0</segmented>",
        0,
    ),
    # globox 2.9.0, annotation.py: nothing tells; nor of many scripts
    "globox": ("{name}{size}", 0),
}


def _tool_xml(path: Path, number: int, tool: str, shift: float = 0.0) -> None:
    head, first = VOC_HEADS[tool]
    path.parent.mkdir(parents=True, exist_ok=True)
    corners = [(name, (*(type(first)(side) - shift + first for side in box[:2]), *map(type(first), box[2:])))
               for name, box in _objects(number)]  # fmt: skip
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    text = head.format(name=f"<filename>{number}.png</filename>", size=size)
    path.write_text(f"<annotation>{text}{''.join(voc_object(*item) for item in corners)}</annotation>")


def supervision_voc(root: Path) -> Path:
    """DetectionDataset.as_pascal_voc with a folder of annotations in each part."""
    for part in NUMBERS:
        for name in _pictures(root / part / "images", part):
            _tool_xml(root / part / "annotations" / f"{Path(name).stem}.xml", int(name[0]), "supervision")
    return root


def fiftyone_voc(root: Path) -> Path:
    for part in NUMBERS:
        for name in _pictures(root / part / "data", part):
            _tool_xml(root / part / "labels" / f"{Path(name).stem}.xml", int(name[0]), "fiftyone")
    return root


def label_studio_voc(root: Path) -> Path:
    for part in NUMBERS:
        for name in _pictures(root / "images", part):
            _tool_xml(root / "Annotations" / f"{Path(name).stem}.xml", int(name[0]), "label_studio")
    return root


def datumaro_voc(root: Path) -> Path:
    """An image without objects is listed, and has no xml file."""
    cvat_voc(root)
    lists = root / "ImageSets" / "Main"
    (lists / "default.txt").unlink()
    for part, name in (("train", "train"), ("valid", "val")):
        (lists / f"{name}.txt").write_text("".join(f"{number}\n" for number in NUMBERS[part]))
    return root


def roboflow_yolo(root: Path) -> Path:
    for part in NUMBERS:
        _yolo(root / part / "images", root / part / "labels", part)
    (root / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\nnames: ['cat', 'dog']\n\n"
        "roboflow:\n  workspace: w\n  project: p\n"
    )
    return root


def _yolo(images: Path, labels: Path, part: str, *, outlines: bool = False) -> list[str]:
    names = _pictures(images, part)
    labels.mkdir(parents=True, exist_ok=True)
    for name in names:
        lines = []
        for label, (left, top, right, bottom) in _objects(int(name[0])):
            numbers = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
            if outlines and label == "dog":
                numbers = [left, top, right, top, right, bottom, (left + right) / 2, bottom, left, bottom]
            scaled = [number / (HEIGHT if place % 2 else WIDTH) for place, number in enumerate(numbers)]
            lines.append(" ".join([str(NAMES.index(label)), *(f"{number:.8f}" for number in scaled)]))
        (labels / f"{Path(name).stem}.txt").write_text("\n".join(lines) + "\n")
    return names


def _ultralytics(root: Path, *, yaml: str, outlines: bool = False) -> Path:
    for part, folder in (("train", "train"), ("valid", "val")):
        _yolo(root / "images" / folder, root / "labels" / folder, part, outlines=outlines)
    (root / "data.yaml").write_text(yaml)
    return root


def ultralytics(root: Path) -> Path:
    root.mkdir()
    (root / "a.txt").write_text("cat\n\ndog\n")
    return _ultralytics(root, yaml=f"path: {root}\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: dog\n")


def ultralytics_segments(root: Path) -> Path:
    return _ultralytics(root, yaml="train: images/train\nval: images/val\nnames: [cat, dog]\n", outlines=True)


def ultralytics_notebook(root: Path) -> Path:
    """Written in a notebook elsewhere; the yaml itself is given."""
    yaml = (
        "path: ../datasets/pets\ntrain: /content/pets/images/train\nval: [/content/pets/images/val]\n"
        "names: {0: cat, 1: dog}\n"
    )
    return _ultralytics(root, yaml=yaml) / "data.yaml"


def ultralytics_lists(root: Path) -> Path:
    _ultralytics(root, yaml="path: .\ntrain: train.txt\nval: val.txt\nnames: [cat, dog]\n")
    (root / "train.txt").write_text("".join(f"./images/train/{number}.png\n" for number in NUMBERS["train"]))
    (root / "val.txt").write_text("".join(f"{root}/images/val/{number}.png\n" for number in NUMBERS["valid"]))
    return root


def cvat_ultralytics(root: Path) -> Path:
    _ultralytics(root, yaml="names:\n  0: cat\n  1: dog\npath: .\ntrain: train.txt\nval: val.txt\n")
    for part, folder in (("train", "train"), ("valid", "val")):
        names = [f"data/images/{folder}/{number}.png\n" for number in NUMBERS[part]]
        (root / f"{folder}.txt").write_text("".join(names))
    return root


def cvat_yolo(root: Path) -> Path:
    names = [name for part in NUMBERS for name in _yolo(root / "obj_train_data", root / "obj_train_data", part)]
    (root / "obj.names").write_text("cat\ndog\n")
    (root / "obj.data").write_text("classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")
    (root / "train.txt").write_text("".join(f"data/obj_train_data/{name}\n" for name in names))
    return root


def label_studio_yolo(root: Path) -> Path:
    for part in NUMBERS:
        _yolo(root / "images", root / "labels", part)
    (root / "classes.txt").write_text("cat\ndog\n")
    write(root / "notes.json", {"categories": [{"id": 0, "name": "cat"}], "info": {"contributor": "Label Studio"}})
    return root


def labelimg_yolo(root: Path) -> Path:
    for part in NUMBERS:
        _yolo(root, root, part)
    (root / "classes.txt").write_text("cat\ndog\n")
    return root


def supervision_yolo(root: Path) -> Path:
    """supervision 0.31.2, dataset/formats/yolo.py: the yaml has no parts."""
    for part in NUMBERS:
        _yolo(root / part / "images", root / part / "labels", part)
    (root / "data.yaml").write_text("nc: 2\nnames: [cat, dog]\n")
    return root


def datumaro_yolo(root: Path) -> Path:
    """datumaro 1.13.12, plugins/data_formats/yolo/exporter.py: lists of images, a folder for each part."""
    for part, name in (("train", "train"), ("valid", "val")):
        names = _yolo(root / f"obj_{name}_data", root / f"obj_{name}_data", part)
        (root / f"{name}.txt").write_text("".join(f"data/obj_{name}_data/{image}\n" for image in names))
    (root / "obj.names").write_text("cat\ndog\n")
    lists = "train = data/train.txt\nvalid = data/val.txt\n"
    (root / "obj.data").write_text(f"classes = 2\n{lists}names = data/obj.names\nbackup = backup/\n")
    return root


def fiftyone_yolo4(root: Path) -> Path:
    """fiftyone 1.22.1, utils/yolo.py, YOLOv4DatasetExporter."""
    for part in NUMBERS:
        _yolo(root / "data", root / "data", part)
    (root / "obj.names").write_text("cat\ndog")
    (root / "images.txt").write_text("\n".join(f"data/{number}.png" for number in range(6)))
    return root


def fiftyone_yolo4_parts(root: Path) -> Path:
    for part in NUMBERS:
        _yolo(root / part / "data", root / part / "data", part)
        (root / part / "obj.names").write_text("cat\ndog")
    return root


def fiftyone_yolo(root: Path) -> Path:
    _ultralytics(root, yaml="").joinpath("data.yaml").unlink()
    (root / "dataset.yaml").write_text(
        "names:\n  0: cat\n  1: dog\npath: .\ntrain: ./images/train/\nval: ./images/val/\n"
    )
    return root


def cvat_coco(root: Path) -> Path:
    for part in NUMBERS:
        _pictures(root / "images" / "default", part)
    write(root / "annotations" / "instances_default.json", _both())
    return root


def _both(prefix: str = "", start: int = 1) -> dict[str, Any]:
    first, second = (_coco(part, prefix, start) for part in NUMBERS)
    objects = [*first["annotations"], *second["annotations"]]
    return {
        **first,
        "images": [*first["images"], *second["images"]],
        "annotations": [{**item, "id": place} for place, item in enumerate(objects)],
    }


def cvat_voc(root: Path) -> Path:
    """Datumaro's writer: no xml file for an image without objects."""
    for part in NUMBERS:
        for number in (int(name[0]) for name in _pictures(root / "JPEGImages", part)):
            if _objects(number):
                _tool_xml(root / "Annotations" / f"{number}.xml", number, "datumaro")
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "ImageSets" / "Main" / "default.txt").write_text("0\n1\n2\n3\n4\n5\n")
    (root / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:1,2,3::\n")
    return root


def vocdevkit(root: Path) -> Path:
    cvat_voc(root / "VOC2012")
    (root / "VOCcode").mkdir()
    lists = root / "VOC2012" / "ImageSets" / "Main"
    (lists / "train.txt").write_text("0\n1\n2\n3\n")
    (lists / "val.txt").write_text("4\n5\n")
    return root


def upper_case_xml(root: Path) -> Path:
    for part in NUMBERS:
        for name in _pictures(root / part, part):
            _write_xml(root / part / f"{Path(name).stem}.XML", int(name[0]))
    return root


def fiftyone_coco(root: Path) -> Path:
    for part in NUMBERS:
        _pictures(root / "data", part)
    write(root / "labels.json", _both())
    return root


def fiftyone_coco_parts(root: Path) -> Path:
    for part in NUMBERS:
        _pictures(root / part / "data", part)
        write(root / part / "labels.json", _coco(part))
    return root


def label_studio_coco(root: Path) -> Path:
    for part in NUMBERS:
        _pictures(root / "images", part)
    write(root / "result.json", _both("images/", 0))
    return root


def label_studio_windows(root: Path) -> Path:
    for part in NUMBERS:
        _pictures(root / "images", part)
    write(root / "result.json", _both("images\\", 0))
    return root


def label_studio_server(root: Path) -> Path:
    """label_studio_sdk 2.1.2, converter/converter.py: names of the server, and no size of an image without objects."""
    for part in NUMBERS:
        _pictures(root / "images", part)
    content = _both("/data/upload/1/ab12cd-", 0)
    for item in content["images"]:
        (root / "images" / f"{item['id']}.png").rename(root / "images" / f"ab12cd-{item['id']}.png")
        if not _objects(item["id"]):
            item.update(width=None, height=None)
    for item in content["annotations"]:
        item["ignore"] = 0
    write(root / "result.json", content)
    return root


def plain_json(root: Path) -> Path:
    for part, name in (("train", "train"), ("valid", "val")):
        _pictures(root / "images", part)
        write(root / f"{name}.json", _coco(part))
    return root


def plain_json_in_parts(root: Path) -> Path:
    for part, name in (("train", "train"), ("valid", "val")):
        _pictures(root / name / "images", part)
        write(root / name / "annotations" / "anything.json", _coco(part))
    return root


def makesense_coco(root: Path) -> Path:
    for part in NUMBERS:
        _pictures(root, part)
    write(root / "labels_my-project-name_2026-11-29-01-02-03.json", _both())
    return root


def lvis(root: Path) -> Path:
    """LVIS v1: images have an address and no file name; validation shows pictures of both of COCO's parts."""
    for part, name in (("train", "train"), ("valid", "val")):
        content = _coco(part)
        for item in content["images"]:
            item["coco_url"] = f"http://images.cocodataset.org/train2017/{item.pop('file_name')}"
            item.update(neg_category_ids=[2], not_exhaustive_category_ids=[])
        _pictures(root / "train2017", part)
        write(root / "annotations" / f"lvis_v1_{name}.json", content)
    return root


def lvis_first(root: Path) -> Path:
    """LVIS v0.5: names of 2014, files of 2017."""
    lvis(root)
    for file in (root / "annotations").iterdir():
        content = json.loads(file.read_text())
        for item in content["images"]:
            item["file_name"] = f"COCO_val2014_{item['id']}.png"
        write(file, content)
    return root


def labelme(root: Path) -> Path:
    for part in NUMBERS:
        for name in _pictures(root, part):
            _labelme_json(root / f"{Path(name).stem}.json", name, int(name[0]))
    return root


def _labelme_json(path: Path, image: str, number: int, **more: Any) -> None:
    shapes = [
        {"label": label, "points": np.reshape(_polygon(box), (-1, 2)).tolist(), "group_id": None, "description": "",
         "shape_type": "polygon", "flags": {}, "mask": None}
        for label, box in _objects(number)
    ]  # fmt: skip
    content = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": image, "imageData": "/9j/4AAQ"}
    write(path, {**content, "imageHeight": HEIGHT, "imageWidth": WIDTH, **more})


def labelme_apart(root: Path) -> Path:
    for part in NUMBERS:
        for name in _pictures(root / part / "images", part):
            _labelme_json(root / part / "annotations" / f"{Path(name).stem}.json", f"..\\images\\{name}", int(name[0]))
    return root


def via_export(root: Path) -> Path:
    for part in NUMBERS:
        names = _pictures(root / part, part)
        write(root / part / "via_region_data.json", dict(_via_entry(name, as_list=False) for name in names))
    return root


def _via_entry(name: str, *, as_list: bool = True) -> tuple[str, dict[str, Any]]:
    regions: list[dict[str, Any]] = []
    for label, (left, top, right, bottom) in _objects(int(name[0])):
        shape: dict[str, Any] = {"name": "rect", "x": left, "y": top, "width": right - left, "height": bottom - top}
        if label == "dog":
            xs, ys = [left, right, right, left], [top, top, bottom, bottom]
            shape = {"name": "polygon", "all_points_x": xs, "all_points_y": ys}
        regions.append({"shape_attributes": shape, "region_attributes": {"kind": label}})
    numbered = {str(place): region for place, region in enumerate(regions)}
    entry = {"filename": name, "size": 99, "regions": regions if as_list else numbered, "file_attributes": {}}
    return f"{name}99", entry


def via_project(root: Path) -> Path:
    names = [name for part in NUMBERS for name in _pictures(root / "images", part)]
    content = {
        "_via_settings": {"core": {"default_filepath": ""}},
        "_via_img_metadata": dict(map(_via_entry, names)),
        "_via_attributes": {"region": {"kind": {"type": "dropdown", "options": {"cat": "", "dog": ""}}}, "file": {}},
    }
    write(root / "via_project.json", content)
    return root


def hugging_face(root: Path) -> Path:
    for part in NUMBERS:
        names = _pictures(root / part, part)
        (root / part / "metadata.jsonl").write_text("".join(_row(name) for name in names))
    return root


def _row(name: str, prefix: str = "", key: str = "categories") -> str:
    boxes = [[*box[:2], box[2] - box[0], box[3] - box[1]] for _, box in _objects(int(name[0]))]
    objects = {"bbox": boxes, key: [label for label, _ in _objects(int(name[0]))]}
    return json.dumps({"file_name": f"{prefix}{name}", "objects": objects}) + "\n"


def hugging_face_root(root: Path) -> Path:
    rows = [_row(name, f"{part}/", "category") for part in NUMBERS for name in _pictures(root / part, part)]
    (root / "metadata.jsonl").write_text("".join(rows))
    return root


def unpacked_zip(root: Path) -> Path:
    roboflow_coco(root / "pets.v1i.coco")
    return root


BOTH, UNSPLIT = (4, 2), (4, 2)  # images: as the tool splits them, or held out
READ: dict[str, tuple[Callable[[Path], Path], str, tuple[int, int]]] = {
    "Roboflow, COCO": (roboflow_coco, "coco", BOTH),
    "Roboflow, VOC": (roboflow_voc, "voc", BOTH),
    "Roboflow, YOLO": (roboflow_yolo, "yolo", BOTH),
    "Ultralytics": (ultralytics, "yolo", BOTH),
    "Ultralytics, outlines": (ultralytics_segments, "yolo", BOTH),
    "Ultralytics, the yaml of another computer": (ultralytics_notebook, "yolo", BOTH),
    "Ultralytics, lists of images": (ultralytics_lists, "yolo", BOTH),
    "CVAT, COCO": (cvat_coco, "coco", UNSPLIT),
    "CVAT, VOC": (cvat_voc, "voc", UNSPLIT),
    "Datumaro, VOC": (datumaro_voc, "voc", BOTH),
    "FiftyOne, VOC": (fiftyone_voc, "voc", BOTH),
    "Label Studio, VOC": (label_studio_voc, "voc", UNSPLIT),
    "supervision, VOC": (supervision_voc, "voc", BOTH),
    "supervision, YOLO": (supervision_yolo, "yolo", BOTH),
    "Datumaro, YOLO": (datumaro_yolo, "yolo", BOTH),
    "FiftyOne, YOLO v4": (fiftyone_yolo4, "yolo", UNSPLIT),
    "FiftyOne, YOLO v4, parts": (fiftyone_yolo4_parts, "yolo", BOTH),
    "CVAT, Ultralytics": (cvat_ultralytics, "yolo", BOTH),
    "CVAT, YOLO 1.1": (cvat_yolo, "yolo", UNSPLIT),
    "Label Studio, COCO": (label_studio_coco, "coco", UNSPLIT),
    "Label Studio, COCO of Windows": (label_studio_windows, "coco", UNSPLIT),
    "Label Studio, COCO without images": (label_studio_server, "coco", UNSPLIT),
    "Label Studio, YOLO": (label_studio_yolo, "yolo", UNSPLIT),
    "labelImg, YOLO": (labelimg_yolo, "yolo", UNSPLIT),
    "FiftyOne, COCO": (fiftyone_coco, "coco", UNSPLIT),
    "FiftyOne, COCO, parts": (fiftyone_coco_parts, "coco", BOTH),
    "FiftyOne, YOLO": (fiftyone_yolo, "yolo", BOTH),
    "makesense, COCO": (makesense_coco, "coco", UNSPLIT),
    "makesense and VIA 1, json": (via_export, "via", BOTH),
    "VIA 2, project": (via_project, "via", UNSPLIT),
    "labelme": (labelme, "labelme", UNSPLIT),
    "labelme, json apart, Windows": (labelme_apart, "labelme", BOTH),
    "datasets, metadata.jsonl": (hugging_face, "metadata", BOTH),
    "datasets, metadata.jsonl in the root": (hugging_face_root, "metadata", BOTH),
    "LVIS v1": (lvis, "coco", BOTH),
    "LVIS v0.5": (lvis_first, "coco", BOTH),
    "train.json and val.json": (plain_json, "coco", BOTH),
    "json in the parts": (plain_json_in_parts, "coco", BOTH),
    "VOCdevkit": (vocdevkit, "voc", BOTH),
    "an unpacked zip": (unpacked_zip, "coco", BOTH),
}


def _seen(splits: Splits) -> dict[str, list[tuple[str, tuple[float, ...]]]]:
    """Of each picture by its name, the objects."""
    seen = {}
    for part in (splits.train, splits.val):
        assert isinstance(part, DetectionSamples)
        for index, key in enumerate(part.keys):
            assert part.decode(index).size == (WIDTH, HEIGHT)
            found = part.objects[index]
            boxes = [tuple(round(float(number), 3) for number in box) for box in found.boxes]
            seen[Path(key).name.removeprefix("ab12cd-")] = sorted(
                zip((part.class_names[k] for k in found.labels), boxes, strict=True)
            )
    return seen


@pytest.mark.parametrize("name", READ)
def test_what_a_tool_writes_is_read_as_it_is(name: str, tmp_path: Path) -> None:
    build, format, images = READ[name]
    splits = open_dataset(build(tmp_path / "pets"))
    assert splits.format == format
    assert (len(splits.train), len(splits.val)) == images
    assert _seen(splits) == {f"{number}.png": sorted(_objects(number)) for number in range(6)}
    assert [name for name in splits.train.class_names if name != "pets"] == list(NAMES)


# --- What xml files count pixels from ---


@pytest.mark.parametrize(
    ("tool", "shift", "format", "left", "note"),
    [
        ("datumaro", 0, "auto", 4, "has the mark of Datumaro (CVAT): data.format=voc-from-1 counts them from 1"),
        ("fiftyone", 0, "auto", 4, "counted from 0, as 0.xml has the mark of FiftyOne"),
        ("label_studio", 0, "auto", 4, "counted from 0, as 0.xml has the mark of Label Studio"),
        ("supervision", 0, "auto", 4, ""),
        ("supervision", 5, "auto", -1, "as the mark of VOC, Roboflow or supervision tells, but 1 file has a box"),
        ("globox", 0, "auto", 3, "counted from 1, as in Pascal VOC: data.format=voc-from-0 counts them from 0"),
        ("globox", 4, "auto", 0, "counted from 0, as 0.xml has a box that starts there"),
        ("globox", 0, "voc-from-0", 4, ""),
        ("datumaro", 0, "voc-from-1", 3, ""),
    ],
)
def test_what_xml_files_count_pixels_from(
    tool: str, shift: float, format: str, left: float, note: str, tmp_path: Path
) -> None:
    for part, name in (("train", "train"), ("valid", "val")):
        for image in _pictures(tmp_path / name, part):
            number = int(image[0])
            _tool_xml(tmp_path / name / f"{number}.xml", number, tool, shift if number == 0 else 0.0)
    splits = open_dataset(tmp_path, format=format)
    assert isinstance(splits.train, DetectionSamples)
    assert splits.train.objects[0].boxes[0, 0] == left
    assert isinstance(splits.val, DetectionSamples)
    assert splits.val.objects[0].boxes[0, 0] == (3 if left == 3 else 4)  # as in the other part
    told = splits.describe()
    assert note in told if note else "pixels are counted" not in told


@pytest.mark.parametrize(
    ("tools", "format", "message"),
    [
        (("supervision", "label_studio"), "auto", r"1\.xml counts pixels from 0 \(the mark of Label Studio\), and "),
        (("fiftyone", "supervision"), "auto", r"0\.xml .* \(the mark of FiftyOne\), and .*1\.xml from 1"),
        (("supervision", "globox"), "auto", r"5\.xml .* \(a box that starts there\), and .*0\.xml from 1"),
        (("fiftyone", "label_studio"), "auto", ""),  # both count from 0
        (("fiftyone", "globox"), "auto", ""),
        (("supervision", "label_studio"), "voc-from-0", ""),
    ],
)
def test_xml_files_of_tools_that_count_differently(
    tools: tuple[str, str], format: str, message: str, tmp_path: Path
) -> None:
    for image in (*_pictures(tmp_path, "train"), *_pictures(tmp_path, "valid")):
        number = int(image[0])
        _tool_xml(tmp_path / f"{number}.xml", number, tools[number % 2], 4.0 if number == 5 else 0.0)
    if message:
        with pytest.raises(ResnestError, match=message):
            open_dataset(tmp_path, format=format)
    else:
        assert len(open_dataset(tmp_path, format=format).train) > 0


def test_xml_files_in_utf_16_tell_as_others(tmp_path: Path) -> None:
    for name in _pictures(tmp_path, "train"):
        stem = name.removesuffix(".png")
        box = voc_object("cat", (0, 2, 9, 9))
        (tmp_path / f"{stem}.xml").write_bytes(f'<?xml version="1.0"?>{voc(stem, box)}'.encode("utf-16"))
    splits = open_dataset(tmp_path)
    assert "counted from 0, as 0.xml has a box that starts there" in splits.describe()
    assert isinstance(splits.train, DetectionSamples)
    assert splits.train.objects[0].boxes.tolist() == [[0, 2, 9, 9]]


def test_listed_images_without_xml_files_have_no_objects(tmp_path: Path) -> None:
    root = datumaro_voc(tmp_path / "pets")
    splits = open_dataset(root)
    assert "1 listed image has no xml file, and no objects" in splits.describe()
    assert isinstance(splits.train, DetectionSamples)
    assert [len(found.ids) for found in splits.train.objects] == [2, 1, 2, 0]
    (root / "JPEGImages" / "3.png").unlink()
    with pytest.raises(ResnestError, match=r"3 is listed, but there is neither a 3\.xml nor a picture of it"):
        open_dataset(root)
    for file in (root / "Annotations").glob("[0-3].xml"):
        file.rename(root / f"{file.stem}.off")
    with pytest.raises(ResnestError, match=r"none of 4 listed images has an xml file: there is no 0\.xml"):
        open_dataset(root)


def test_xml_files_of_a_training_part_alone_are_split(tmp_path: Path) -> None:
    for name in _pictures(tmp_path / "train"):
        _write_xml(tmp_path / "train" / f"{Path(name).stem}.xml", int(name[0]))
    splits = open_dataset(tmp_path)
    assert (splits.format, len(splits.train) + len(splits.val)) == ("voc", 4)


def test_lists_of_two_parts_that_differ_are_refused(tmp_path: Path) -> None:
    root = fiftyone_yolo4_parts(tmp_path / "pets")
    (root / "valid" / "obj.names").write_text("dog\ncat")
    with pytest.raises(ResnestError, match=r"obj.names and .*obj.names have other class names: the numbers of which"):
        open_dataset(root)


def _with_test(root: Path) -> Path:
    roboflow_yolo(root)
    _yolo(root / "test" / "images", root / "test" / "labels", "valid")
    return root


def _coco_with_test(root: Path) -> Path:
    roboflow_coco(root)
    shutil.copytree(root / "valid", root / "test")
    return root


@pytest.mark.parametrize("build", [_with_test, _coco_with_test])
def test_the_test_part_is_one_of_its_own(build: Callable[[Path], Path], tmp_path: Path) -> None:
    data = build(tmp_path / "pets")
    assert "images, " in open_split(data, "test").describe
    assert len(open_split(data, "test").samples) == len(NUMBERS["valid"])
    assert len(open_dataset(data).val) == len(NUMBERS["valid"])


@pytest.mark.parametrize("build", [roboflow_yolo, roboflow_coco, roboflow_voc])
def test_a_test_part_in_place_of_a_validation_part_is_said(build: Callable[[Path], Path], tmp_path: Path) -> None:
    data = build(tmp_path / "pets")
    (data / "data.yaml").unlink(missing_ok=True)
    assert "is the validation part" not in open_dataset(data).describe()
    (data / "valid").rename(data / "test")
    assert "is the validation part" in open_dataset(data).describe()
    assert len(open_split(data, "test").samples) == len(NUMBERS["valid"])


@pytest.mark.parametrize("build", [roboflow_yolo, roboflow_coco, roboflow_voc])
def test_names_of_parts_in_any_case(build: Callable[[Path], Path], tmp_path: Path) -> None:
    data = build(tmp_path / "pets")
    (data / "data.yaml").unlink(missing_ok=True)
    (data / "train").rename(data / "Train")
    (data / "valid").rename(data / "VALID")
    splits = open_dataset(data)
    assert (len(splits.train), len(splits.val)) == (len(NUMBERS["train"]), len(NUMBERS["valid"]))


# --- What is refused: the tool, and what to do ---


def _with_images(root: Path) -> Path:
    for part in NUMBERS:
        _pictures(root / "images", part)
    return root


def cvat_xml(root: Path) -> Path:
    (_with_images(root) / "annotations.xml").write_text(
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n</annotations>'
    )
    return root


def cvat_xml_file(root: Path) -> Path:
    return cvat_xml(root) / "annotations.xml"


def cvat_xml_beside(root: Path) -> Path:
    for part in NUMBERS:
        _pictures(root, part)
    (cvat_xml(root) / "images").rename(root / "more")
    return root


def label_studio(root: Path) -> Path:
    value = {"x": 10, "y": 10, "width": 20, "height": 20, "rotation": 0, "rectanglelabels": ["cat"]}
    result = [{"original_width": WIDTH, "original_height": HEIGHT, "from_name": "label", "value": value}]
    tasks: Any = [{"id": 1, "annotations": [{"id": 1, "result": result}], "data": {"image": "/data/upload/1/0.png"}}]
    write(_with_images(root) / "project-1-at-2026.json", tasks)
    return root


def supervisely(root: Path) -> Path:
    write(root / "meta.json", {"classes": [{"title": "cat", "shape": "rectangle", "color": "#FF0000"}], "tags": []})
    for name in _pictures(root / "ds0" / "img"):
        shape = {"classTitle": "cat", "geometryType": "rectangle", "points": {"exterior": [[4, 4], [14, 14]]}}
        size = {"height": HEIGHT, "width": WIDTH}
        write(root / "ds0" / "ann" / f"{name}.json", {"description": "", "tags": [], "size": size, "objects": [shape]})
    return root


def dota(root: Path) -> Path:
    for part in ("train", "val"):
        for name in _pictures(root / part / "images"):
            (root / part / "labelTxt").mkdir(exist_ok=True)
            text = "imagesource:GoogleEarth\ngsd:0.1\n4.0 4.0 14.0 4.0 14.0 14.0 4.0 14.0 plane 0\n"
            (root / part / "labelTxt" / f"{Path(name).stem}.txt").write_text(text)
    return root


def sagemaker(root: Path) -> Path:
    box = {"class_id": 0, "top": 4, "left": 4, "height": 10, "width": 10}
    line = {"source-ref": "s3://bucket/0.png", "job": {"annotations": [box], "image_size": [{"width": 40}]}}
    (_with_images(root) / "output.manifest").write_text(json.dumps(line) + "\n")
    return root


def sagemaker_file(root: Path) -> Path:
    return sagemaker(root) / "output.manifest"


def zipped(root: Path) -> Path:
    roboflow_coco(root / "in")
    with zipfile.ZipFile(root / "pets.zip", "w") as archive:
        for file in sorted((root / "in").rglob("*.*")):
            archive.write(file, file.relative_to(root / "in").as_posix())
    return root / "pets.zip"


def zipped_in_a_folder(root: Path) -> Path:
    file = zipped(root)
    (root / "data").mkdir()
    file.rename(root / "data" / "pets.zip")
    return root / "data"


def key_points(root: Path) -> Path:
    return _ultralytics(root, yaml="train: images/train\nval: images/val\nkpt_shape: [4, 3]\nnames: [cat, dog]\n")


def rotated(root: Path) -> Path:
    ultralytics(root)
    for file in (root / "labels").rglob("*.txt"):
        file.write_text("0 0.3 0.2 0.6 0.4 0.5 0.7 0.2 0.5\n")
    return root


def create_ml(root: Path) -> Path:
    where = {"x": 9, "y": 9, "width": 10, "height": 10}
    content: Any = [{"image": "0.png", "annotations": [{"label": "cat", "coordinates": where}]}]
    write(_with_images(root) / "_annotations.createml.json", content)
    return root


def datumaro(root: Path) -> Path:
    """datumaro 1.13.12, plugins/data_formats/datumaro/exporter.py"""
    labels = [{"name": "cat", "parent": "", "attributes": []}]
    box = {"id": 1, "type": "bbox", "attributes": {}, "group": 1, "label_id": 0, "z_order": 0, "bbox": [4, 4, 10, 10]}
    content = {
        "dm_format_version": "1.0",
        "media_type": 2,
        "infos": {},
        "categories": {"label": {"labels": labels, "label_groups": [], "attributes": []}},
        "items": [{"id": "0", "annotations": [box], "image": {"path": "0.png", "size": [HEIGHT, WIDTH]}}],
    }
    write(_with_images(root) / "annotations" / "default.json", content)
    return root


def fiftyone_own(root: Path) -> Path:
    """fiftyone 1.22.1, utils/data/exporters.py, FiftyOneImageDetectionDatasetExporter"""
    labels = {"0": [{"label": 0, "bounding_box": [0.1, 0.1, 0.2, 0.2]}]}
    write(_with_images(root) / "labels.json", {"classes": ["cat"], "labels": labels})
    return root


def via_3(root: Path) -> Path:
    view = {"1": {"vid": "1", "xy": [2, 4, 4, 10, 10], "av": {"1": "0"}}}
    content = {"project": {"vid_list": ["1"]}, "config": {}, "attribute": {}, "file": {}, "metadata": view, "view": {}}
    write(_with_images(root) / "via.json", content)
    return root


def tensorflow(root: Path) -> Path:
    for part in NUMBERS:
        _pictures(root / part, part)
        (root / part / "_annotations.csv").write_text("filename,width,height,class,xmin,ymin,xmax,ymax\n")
    return root


def kitti(root: Path) -> Path:
    line = "Car 0.00 0 1.85 387.63 181.54 423.81 203.12 1.67 1.87 3.69 -16.53 2.39 58.49 1.57\n"
    (_with_images(root) / "label_2").mkdir()
    (root / "label_2" / "0.txt").write_text(line)
    return root


def _text(root: Path, name: str, text: str, part: str = "") -> Path:
    """A set of images with a file of a tool, which has this text."""
    for number in range(2):
        picture(root / part / "images" / f"{number}.png", number)
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)
    return root


LABELME_XML = (
    "<annotation><filename>0.jpg</filename><object><name>cat</name><polygon><pt><x>1</x></pt></polygon></object>"
)


def labelme_xml_beside(root: Path) -> Path:
    """CVAT's LabelMe 3.0: xml files beside the images."""
    picture(root / "0.png")
    (root / "0.xml").write_text(f"{LABELME_XML}</annotation>")
    return root


def segment_anything(root: Path) -> Path:
    """datumaro 1.13.12, plugins/data_formats/segment_anything/exporter.py"""
    picture(root / "0.png")
    entry = {"id": 1, "segmentation": {"size": [30, 40], "counts": ""}, "bbox": [1, 2, 3, 4], "predicted_iou": 0}
    write(root / "0.json", {"image": {"image_id": 1, "file_name": "0.png"}, "annotations": [entry]})
    return root


def fiftyone_classes(root: Path) -> Path:
    """fiftyone 1.22.1, utils/data/exporters.py, FiftyOneImageClassificationDatasetExporter"""
    picture(root / "data" / "0.png")
    write(root / "labels.json", {"classes": ["cat", "dog"], "labels": {"0": 1}})
    return root


def datasets_labels(root: Path, name: str, row: str) -> Path:
    for part in NUMBERS:
        _pictures(root / part, part)
        (root / part / name).write_text(row)
    return root


def mvtec(root: Path) -> Path:
    for name in ("train/good/0.png", "test/good/1.png", "test/broken/2.png", "ground_truth/broken/2_mask.png"):
        picture(root / name)
    return root


def yolo_alone(root: Path) -> Path:
    """Label Studio's YOLO without images; four points are no DOTA."""
    root.mkdir()
    (root / "classes.txt").write_text("cat\ndog\n")
    (root / "labels").mkdir()
    (root / "labels" / "0.txt").write_text("1 0.4 0.6 0.5 0.6 0.5 0.9 0.4 0.9\n")
    write(root / "notes.json", {"categories": [{"id": 0, "name": "cat"}], "info": {"contributor": "Label Studio"}})
    return root


# Sets that one file tells, by datumaro 1.13.12 where nothing else is said
OPEN_IMAGES = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf\n"
ONE_FILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "LabelMe's xml": (
        lambda root: _text(root, "Annotations/default/0.xml", LABELME_XML),
        r"default looks like the xml of LabelMe's web tool \(LabelMe 3.0 of CVAT\)",
    ),
    "Open Images": (
        lambda root: _text(root, "annotations/train-annotations-bbox.csv", OPEN_IMAGES),
        "bbox.csv looks like a table of boxes of Open Images",
    ),
    "Open Images, hierarchy": (
        lambda root: _text(root, "annotations/h.json", '{"LabelName": "/m/0bl9f", "Subcategory": []}'),
        "looks like Open Images' hierarchy of classes",
    ),
    "Open Images, labels": (
        lambda root: _text(root, "annotations/labels.csv", "ImageID,Source,LabelName,Confidence\n"),
        "labels.csv looks like a table of Open Images",
    ),
    "WIDER FACE": (
        lambda root: _text(root, "wider_face_split/wider_face_train_bbx_gt.txt", "0.jpg\n0\n"),
        "looks like WIDER FACE's boxes",
    ),
    "MOT": (lambda root: _text(root, "gt/gt.txt", "1,-1,4,4,10,10,1,1,1\n"), "gt.txt looks like MOT's text"),
    "Datumaro, binary": (
        lambda root: _text(root, "annotations/train.datum", "DUM"),
        "train.datum looks like Datumaro's binary annotations, .* export as COCO, in Datumaro as coco_instances",
    ),
    "Datumaro, arrow": (lambda root: _text(root, "datum-0.arrow", "A"), "arrow looks like Datumaro's arrow files"),
    "DOTA without objects": (
        lambda root: _text(root, "train/labelTxt/0.txt", "", "train"),
        "labelTxt looks like DOTA's text of rotated boxes",
    ),
    "FiftyOne, KITTI": (
        lambda root: _text(root, "labels/0.txt", "cat 0 0 0 10 12 40 50 0 0 0 0 0 0 0\n"),
        "labels looks like KITTI's labels",
    ),
    "FiftyOne, CVAT": (
        lambda root: _text(root, "labels.xml", '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n'),
        "labels.xml looks like CVAT's own xml",
    ),
    "datasets, metadata.csv": (
        lambda root: datasets_labels(root, "metadata.csv", "file_name,label\n0.png,cat\n"),
        "metadata.csv looks like labels of the datasets library, .* write them to labels.csv, with the columns path",
    ),
    "datasets, labels in metadata.jsonl": (
        lambda root: datasets_labels(root, "metadata.jsonl", '{"file_name": "0.png", "label": 1}\n'),
        "metadata.jsonl looks like labels of the datasets library",
    ),
}


def results(root: Path) -> Path:
    content: Any = [{"image_id": 1, "category_id": 1, "bbox": [4, 4, 10, 10], "score": 0.5}]
    return write(root / "results.json", content)


def devkits(root: Path) -> Path:
    for year in ("VOC2007", "VOC2012"):
        cvat_voc(root / year)
    return root


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "CVAT's xml": (cvat_xml, r"annotations.xml looks like CVAT's own xml, .* export as COCO 1.0 or PASCAL VOC 1.1"),
    "CVAT's xml, the file": (cvat_xml_file, r"annotations.xml looks like CVAT's own xml, .* export as COCO 1.0"),
    "CVAT's xml beside images": (cvat_xml_beside, r"annotations.xml looks like CVAT's own xml, .* export as COCO 1.0"),
    "Label Studio's json": (label_studio, "looks like Label Studio's own json, which is not read: export as COCO"),
    "Supervisely": (supervisely, "pets looks like Supervisely's own json, which is not read: export as COCO"),
    "DOTA": (dota, "labelTxt looks like DOTA's text of rotated boxes"),
    "SageMaker": (sagemaker, "output.manifest looks like a manifest of SageMaker Ground Truth"),
    "SageMaker, the file": (sagemaker_file, "output.manifest looks like a manifest of SageMaker Ground Truth"),
    "a zip": (zipped, r"pets.zip holds annotations of objects \(train/_annotations.coco.json\): unpack it"),
    "a folder with a zip": (zipped_in_a_folder, "pets.zip holds annotations of objects .*: unpack it"),
    "YOLO pose": (key_points, r"data.yaml has kpt_shape: these are key points \(YOLO pose\)"),
    "YOLO OBB": (rotated, r"Rotated boxes \(YOLO OBB\) .* set data.format=yolo-outlines"),
    "CreateML": (create_ml, "looks like CreateML's json, which is not read: export as COCO or Pascal VOC"),
    "Datumaro": (datumaro, "looks like Datumaro's own json"),
    **ONE_FILE,
    "LabelMe's xml beside images": (labelme_xml_beside, "0.xml looks like the xml of LabelMe's web tool"),
    "Segment Anything": (segment_anything, r"0.json looks like the json of Segment Anything \(SA-1B\)"),
    "MVTec AD": (mvtec, "2_mask.png looks like MVTec AD's masks of defects"),
    "YOLO without images": (yolo_alone, "labels has label files of YOLO, but there are no pictures of them: put these"),
    "FiftyOne's json of classes": (
        fiftyone_classes,
        "labels.json looks like FiftyOne's own json, .* export as fiftyone.types.ImageClassificationDirectoryTree",
    ),
    "FiftyOne's json": (fiftyone_own, "looks like FiftyOne's own json, which is not read: export as fiftyone.types"),
    "VIA 3": (via_3, "looks like json of VGG Image Annotator 3, which is not read: export as COCO"),
    "TensorFlow's csv": (tensorflow, "_annotations.csv looks like a table of boxes for TensorFlow"),
    "KITTI": (kitti, "label_2 looks like KITTI's labels"),
    "two years of Pascal VOC": (devkits, "pets holds several data sets, VOC2007 and VOC2012: give the folder of one"),
    "results": (results, "results.json looks like detections of a model"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_read_is_refused_by_the_name_of_its_tool(name: str, tmp_path: Path) -> None:
    build, message = REFUSED[name]
    with pytest.raises(ResnestError, match=message) as raised:
        open_dataset(build(tmp_path / "pets"))
    assert "folder per class" not in str(raised.value)
    assert "\n" not in str(raised.value)


# --- Masks as tools write them ---


COLOURS = "0 0 0 background\n200 40 40 cat\n40 200 40 dog\n"


def _masks(root: Path, *, images: str, masks: str, parts: tuple[str, ...]) -> Path:
    """Pictures and masks by patterns with `part` and `number`; label_colors.txt as Datumaro writes it."""
    for number in range(6):
        part = parts[number // 4] if len(parts) > 1 else parts[0]
        file = root / masks.format(part=part, number=number)
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(_mask(number)).save(file)
        picture(root / images.format(part=part, number=number), number)
    (root / "label_colors.txt").write_text(COLOURS)
    return root


def _mask(number: int) -> np.ndarray[Any, Any]:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for name, (left, top, right, bottom) in _objects(number):
        mask[int(top) : int(bottom), int(left) : int(right)] = NAMES.index(name) + 1
    return mask


CITY = {"masks": "gtFine/{part}/{number}_gtFine_labelIds.png"}
CAMVID = {"images": "{part}/{number}.jpg", "masks": "{part}annot/{number}.png"}
KITTI_MASKS = {"images": "{part}/image_2/{number}.jpg", "masks": "{part}/semantic/{number}.png"}


@pytest.mark.parametrize("parts", [("train", "val"), ("default",)])
@pytest.mark.parametrize(
    ("format", "patterns"),
    [  # datumaro 1.13.12, plugins/data_formats/camvid.py, cityscapes.py, kitti; the last is CVAT's Cityscapes
        ("masks", CAMVID),
        ("masks", KITTI_MASKS),
        ("cityscapes", {**CITY, "images": "leftImg8bit/{part}/{number}_leftImg8bit.jpg"}),
        ("cityscapes", {**CITY, "images": "imgsFine/leftImg8bit/{part}/{number}_leftImg8bit.png"}),
    ],
)
def test_masks_of_datumaro_and_cvat(
    format: str, patterns: dict[str, str], parts: tuple[str, ...], tmp_path: Path
) -> None:
    splits = open_dataset(_masks(tmp_path / "pets", **patterns, parts=parts), task="segmentation")
    assert (splits.format, splits.train.class_names) == (format, ("background", *NAMES))
    assert len(splits.train) + len(splits.val) == 6
    for part in (splits.train, splits.val):
        assert isinstance(part, PixelSamples)
        for index, key in enumerate(part.keys):
            np.testing.assert_array_equal(part.mask(index), _mask(int(Path(key).name[0])))


def test_masks_in_the_folders_of_cityscapes_without_cities_need_a_list(tmp_path: Path) -> None:
    images = "leftImg8bit/{part}/{number}_leftImg8bit.png"
    root = _masks(tmp_path / "pets", **CITY, images=images, parts=("train", "val"))
    (root / "label_colors.txt").unlink()
    with pytest.raises(ResnestError, match=r"has no folders of cities, as Cityscapes has: write .*classes\.txt"):
        open_dataset(root, task="segmentation")


def test_masks_of_fiftyone_are_no_classes_of_images(tmp_path: Path) -> None:
    """fiftyone 1.22.1, ImageSegmentationDirectory: there is no list of classes."""
    root = _masks(tmp_path / "pets", images="data/{number}.jpg", masks="labels/{number}.png", parts=("",))
    (root / "label_colors.txt").unlink()
    for task in ("segmentation", None):
        with pytest.raises(ResnestError, match="has masks and no list of their classes"):
            open_dataset(root, task=task)


# --- The traps of YOLO ---


def _label(text: str, number: int = 0, part: str = "train") -> Callable[[Path], None]:
    def change(root: Path) -> None:
        (root / "labels" / part / f"{number}.txt").write_text(text)

    return change


def _yaml(text: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        (root / "data.yaml").write_text(text)

    return change


YAML = "train: images/train\nval: images/val\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_label("2 0.5 0.5 0.1 0.1\n"), r"0.txt, line 1: class 2, but .*data.yaml has 2 classes: 0 to 1"),
        (_label("\n0.5 0.5 0.5 0.1 0.1\n"), "0.txt, line 2: .* is not a class number"),
        (_label("cat 0.5 0.5 0.1 0.1\n"), "line 1: 'cat 0.5 0.5 0.1 0.1' is not a class number and fractions"),
        (_label("0 nan 0.5 0.1 0.1\n"), "is not a class number and finite fractions"),
        (_label("0 0.5 0.5 0.1 0.1 0.9\n"), "line 1 has 6 numbers, as predictions with their confidence"),
        (_label("0 20 15 10 10\n"), "line 1: 20 is no fraction of the picture: divide pixels"),
        (_label("0 0.5 0.5 0.1\n"), "line 1 has 4 numbers: a box has 5"),
        (_label("0 0.5 0.5 0.1 0.1 " + "0.5 0.5 2 " * 17), "line 1 has 56 numbers, as of key points"),
        (_yaml(YAML + "names: [cat, dog]\nnc: 3\n"), "data.yaml: nc is 3, but there are 2 names"),
        (_yaml(YAML + "names: {a: cat}\n"), "data.yaml: names is neither a list of class names nor a mapping"),
        (_yaml("train: images/train\nval: images/valid\nnames: [a, b]\n"), "val: images/valid is not there"),
        (_yaml(YAML + "names: a.txt\n"), "a.txt has an empty line: give a class name in each"),
        (_yaml("names: [cat\n"), "data.yaml cannot be read as yaml"),
        (
            lambda root: (root / "labels").rename(root / "texts"),
            "none of 4 images has a label file: there is no .*0.txt",
        ),
    ],
)
def test_yolo_that_does_not_add_up_is_one_line(change: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    change(ultralytics(tmp_path / "pets"))
    with pytest.raises(ResnestError, match=message):
        open_dataset(tmp_path / "pets")


def test_yolo_pictures_without_texts_have_no_objects_and_lines_count_once(tmp_path: Path) -> None:
    root = ultralytics(tmp_path / "pets")
    _label("")(root)
    (root / "labels" / "train" / "1.txt").unlink()
    _label("1 0.5 0.5 0.2 0.2\n" * 3, 2)(root)
    _label("", 77)(root)
    (root / "images" / "train" / "3.png").write_bytes(b"no picture")
    splits = open_dataset(root)
    assert isinstance(splits.train, DetectionSamples)
    assert [len(found.ids) for found in splits.train.objects] == [0, 0, 1]
    told = splits.describe()
    for note in (
        "1 image has no label file, and no objects",
        "2 annotations repeat others",
        "1 label file has no image",
    ):
        assert note in told
    assert "1 image that cannot be read is left out" in told


def test_yolo_says_that_both_parts_are_the_same(tmp_path: Path) -> None:
    root = ultralytics(tmp_path / "pets")
    _yaml("train: images/train\nval: images/train\nnames: [cat, dog]\n")(root)
    assert "in both parts, such as " in open_dataset(root).describe()


def test_yolo_names_are_text_and_keep_their_numbers(tmp_path: Path) -> None:
    root = ultralytics(tmp_path / "pets")
    _yaml(YAML + "names: {1: no, 0: 007}\n")(root)
    train = open_dataset(root).train
    assert isinstance(train, DetectionSamples)
    assert (train.class_names, train.category_ids) == (("007", "no"), (0, 1))


def test_yolo_boxes_are_fractions_of_the_upright_picture(tmp_path: Path) -> None:
    root = ultralytics(tmp_path / "pets")
    exif = Image.Exif()
    exif[0x0112] = 6  # lying on its side
    for file in (root / "images").rglob("*.png"):
        Image.new("RGB", (HEIGHT, WIDTH)).save(file.with_suffix(".jpg"), exif=exif)
        file.unlink()
    train = open_dataset(root).train
    assert isinstance(train, DetectionSamples)
    assert train.objects.sizes.tolist() == [[WIDTH, HEIGHT]] * 4
    assert train.decode(0).size == (WIDTH, HEIGHT)
    np.testing.assert_allclose(train.objects[0].boxes, [CAT, DOG], atol=1e-4)


def test_yolo_outlines_and_boxes_of_one_text_are_each_read_as_such(tmp_path: Path) -> None:
    train = open_dataset(ultralytics_segments(tmp_path / "pets")).train
    assert isinstance(train, DetectionSamples)
    cat, dog = train.objects[0].segmentations
    assert cat is None
    assert isinstance(dog, list)
    np.testing.assert_allclose(dog, [[20, 6, 30, 6, 30, 26, 25, 26, 20, 26]], atol=1e-4)


def test_yolo_outlines_of_four_points_are_read_if_they_are_upright_or_by_name(tmp_path: Path) -> None:
    root = rotated(tmp_path / "pets")
    train = open_dataset(root, format="yolo-outlines").train
    assert isinstance(train, DetectionSamples)
    np.testing.assert_allclose(train.objects[0].boxes, [[8, 6, 24, 21]], atol=1e-4)
    for file in (root / "labels").rglob("*.txt"):
        file.write_text("0 0.1 0.2 0.6 0.2 0.6 0.7 0.1 0.7\n")
    assert open_dataset(root).format == "yolo"


def test_a_part_of_a_yolo_set_has_the_names_of_its_yaml(tmp_path: Path) -> None:
    samples = open_split(roboflow_yolo(tmp_path / "pets") / "valid").samples
    assert (samples.class_names, len(samples)) == (NAMES, 2)


def test_sizes_of_many_pictures_are_kept_until_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from resnest.detection.formats import pictures

    monkeypatch.setattr(pictures, "CACHED", 2)
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    opened: list[str] = []
    real = pictures.upright_size
    monkeypatch.setattr(pictures, "upright_size", lambda path: (opened.append(path.name), real(path))[1])
    for _ in range(2):
        assert pictures.read_sizes(tmp_path, ["a.png", "b.png", "none.png"]) == [(WIDTH, HEIGHT)] * 2 + [None]
    assert sorted(opened) == ["a.png", "b.png"]
    picture(tmp_path / "a.png", size=(WIDTH * 3, HEIGHT))
    assert pictures.read_sizes(tmp_path, ["a.png", "b.png"]) == [(WIDTH * 3, HEIGHT), (WIDTH, HEIGHT)]


# --- The shapes of labelme and VIA ---


def _png(mask: np.ndarray[Any, Any]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _shapes(root: Path, *shapes: dict[str, Any]) -> DetectionSamples:
    picture(root / "0.png")
    _labelme_json(root / "0.json", "0.png", 0, shapes=list(shapes))
    samples = open_split(root / "0.json").samples
    assert isinstance(samples, DetectionSamples)
    return samples


def test_labelme_shapes(tmp_path: Path) -> None:
    hole = np.ones((4, 6), bool)
    hole[1, 1] = False
    samples = _shapes(
        tmp_path,
        {"label": "a", "points": [[4, 5], [10, 9]], "shape_type": "rectangle"},
        {"label": "b", "points": [[20, 15], [25, 15]], "shape_type": "circle", "group_id": None},
        {"label": "c", "points": [[2, 3], [7, 6]], "shape_type": "mask", "mask": _png(hole)},
        {"label": "d", "points": [[1, 1], [4, 1], [4, 4]], "shape_type": "polygon", "group_id": 7},
        {"label": "d", "points": [[11, 1], [14, 1], [14, 4]], "shape_type": "polygon", "group_id": 7},
        {"label": "e", "points": [[1, 1]], "shape_type": "point"},
        {"label": "__ignore__", "points": [[1, 1], [4, 1], [4, 4]]},
        {"label": "f", "points": [[1, 1], [4, 1], [4, 4]], "difficult": True},
    )
    assert samples.class_names == tuple("abcdf")
    found = samples.objects[0]
    np.testing.assert_allclose(
        found.boxes, [[4, 5, 10, 9], [15, 10, 25, 20], [2, 3, 8, 7], [1, 1, 14, 4], [1, 1, 4, 4]], atol=0.3
    )
    assert found.segmentations[0] is None
    mask = found.segmentations[2]
    assert isinstance(mask, dict)
    assert isinstance(found.segmentations[3], list)
    assert len(found.segmentations[3]) == 2
    assert found.crowd.tolist() == [False] * 4 + [True]
    told = samples.describe()
    for note in ("1 object is several shapes with one group_id", "1 point or line is left out", "called __ignore__"):
        assert note in told


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"label": "a", "points": [[1, 1], [2, 2]]}, "a polygon of 2 points is no object"),
        ({"label": "", "points": []}, "without a label.: needed are label"),
        ({"label": "a", "points": [[1, "x"]]}, "points are not pairs of finite numbers"),
        ({"label": "a", "points": [[1, 1]] * 4, "shape_type": "rotation"}, "is a rotated box"),
        ({"label": "a", "points": [[1, 1], [2, 2]], "shape_type": "mask", "mask": "~"}, "its mask cannot be read"),
    ],
)
def test_labelme_shapes_that_are_none_are_one_line(tmp_path: Path, shape: dict[str, Any], message: str) -> None:
    with pytest.raises(ResnestError, match=f"0.json: shape 1 .*{message}"):
        _shapes(tmp_path, shape)


def _regions(root: Path, *regions: tuple[dict[str, Any], dict[str, Any]]) -> DetectionSamples:
    picture(root / "0.png")
    every = [{"shape_attributes": shape, "region_attributes": attributes} for shape, attributes in regions]
    entry = {"filename": "0.png", "size": 9, "regions": every, "file_attributes": {}}
    samples = open_split(write(root / "via.json", {"0.png9": entry})).samples
    assert isinstance(samples, DetectionSamples)
    return samples


RECT = {"name": "rect", "x": 1, "y": 2, "width": 3, "height": 4}


def test_via_shapes_and_classes(tmp_path: Path) -> None:
    samples = _regions(
        tmp_path,
        (RECT, {"Class": "a", "colour": "red"}),
        ({"name": "circle", "cx": 10, "cy": 10, "r": 4}, {"Class": {"b": True, "c": False}}),
        ({"name": "ellipse", "cx": 20, "cy": 15, "rx": 8, "ry": 2, "theta": np.pi / 2}, {"Class": "a"}),
        ({"name": "point", "cx": 1, "cy": 1}, {}),
    )
    assert samples.class_names == ("a", "b")
    np.testing.assert_allclose(samples.objects[0].boxes, [[1, 2, 4, 6], [6, 6, 14, 14], [18, 7, 22, 23]], atol=0.3)
    assert "the class is the attribute 'Class' of Class, colour" in samples.describe()
    assert "1 point or line is left out" in samples.describe()


def test_via_without_attributes_has_one_class(tmp_path: Path) -> None:
    samples = _regions(tmp_path, (RECT, {}))
    assert samples.class_names == ("object",)
    assert "all are of one class, 'object'" in samples.describe()


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ([(RECT, {"kind": "a", "colour": "b"})], "regions have the attributes colour, kind: call the one that is the"),
        ([(RECT, {"kind": "a"}), (RECT, {})], "0.png, region 2 has no kind, the attribute that is the class"),
        ([(RECT, {"kind": {"a": True, "b": True}})], "region 1: kind is a, b: an object has one class"),
        ([({"name": "rect", "x": 1}, {"kind": "a"})], "region 1: .* is no rect, polygon, circle or ellipse"),
    ],
)
def test_via_that_is_ambiguous_is_one_line(tmp_path: Path, regions: list[Any], message: str) -> None:
    with pytest.raises(ResnestError, match=message):
        _regions(tmp_path, *regions)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"objects": {"bbox": [[1, 2, 3, 4]], "categories": []}}, "line 1: objects have lists of different lengths"),
        ({"objects": {"bbox": [[1, 2, 3]], "categories": ["a"]}}, r"line 1: bbox \[1, 2, 3\] is not four finite"),
        ({"objects": {"bbox": [[1, 2, 3, 4]]}}, "line 1: objects have no categories or category"),
        ({"objects": {"bbox": [[1, 2, 3, 4]], "label": [1.5]}}, "line 1: label 1.5 is neither a name nor a number"),
    ],
)
def test_metadata_that_does_not_add_up_is_one_line(tmp_path: Path, line: dict[str, Any], message: str) -> None:
    picture(tmp_path / "0.png")
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "0.png", **line}))
    with pytest.raises(ResnestError, match=message):
        open_split(tmp_path)


def test_metadata_with_numbers_keeps_them_and_takes_names_from_a_list(tmp_path: Path) -> None:
    picture(tmp_path / "0.png")
    row = {
        "file_name": "0.png",
        "objects": [{"bbox": [1, 2, 3, 4], "category": 5}, {"bbox": [1, 2, 9, 9], "category": 0}],
    }
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row))
    samples = open_split(tmp_path).samples
    assert isinstance(samples, DetectionSamples)
    assert (samples.class_names, samples.category_ids) == (("0", "5"), (0, 5))
    assert "classes are called by their numbers" in samples.describe()
    write(tmp_path / "classes.json", {"0": "cat", "5": "dog"})
    assert open_split(tmp_path).samples.class_names == ("cat", "dog")


def test_lvis_is_read_with_a_note(tmp_path: Path) -> None:
    assert re.search(r"LVIS annotates some classes of each image", open_dataset(lvis(tmp_path / "pets")).describe())


def test_marks_do_not_hide_class_folders(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for number in range(4):
            picture(tmp_path / name / f"{number}.png", number)
            (tmp_path / name / f"{number}.txt").write_text("a picture of a pet, 0.5")
    write(tmp_path / "classes.json", {"cat": "Cat", "dog": "Dog"})
    write(tmp_path / "config.json", {"classes": ["cat", "dog"], "labels": {"cat": 0}, "tags": []})
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "cat/0.png", "text": "a cat"}\n')
    with zipfile.ZipFile(tmp_path / "backup.zip", "w") as archive:
        archive.writestr("cat/0.png", b"")
        archive.writestr("classes.json", '["cat", "dog"]')
    assert open_dataset(tmp_path).format == "folder"


def test_class_names_of_the_folder_above(tmp_path: Path) -> None:
    """A part has those of its set; a folder of another name does not."""
    whole = supervision_yolo(tmp_path / "set")
    assert open_dataset(whole / "train").train.class_names == NAMES
    (tmp_path / "classes.txt").write_text("tree\nroad\n")
    assert open_dataset(labelimg_yolo(tmp_path / "pets")).train.class_names == NAMES

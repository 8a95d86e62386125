"""Panoptic data (P2, P11): read as annotated, moved as its pictures are, and one line for what does not add up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import shared_data
from masked import HEIGHT, SEGMENTS, WIDTH, ids, panoptic, panoptic_json
from resnest.data.loading import evaluation_batches, training_batches
from resnest.data.settings import DataSettings
from resnest.data.sources import open_dataset, open_split
from resnest.detection.card import DetectionPreprocess
from resnest.detection.data import DetectionSamples
from resnest.detection.recipes import DetectionSettings
from resnest.detection.transforms import DetectionDataset, DetectionTransform, transform_objects
from resnest.errors import ResnestError
from resnest.panoptic.data import PanopticSamples
from resnest.panoptic.result import PanopticClasses
from resnest.runtime.decode import BadImage
from resnest.runtime.palette import encode_ids
from resnest.runtime.rle import decode
from scenes import as_is

CLASSES = PanopticClasses(
    ("cat", "dog", "sea", "sky"), (7, 3, 20, 11), 2, ((250, 0, 0), (0, 250, 0), (0, 0, 200), (0, 0, 90))
)


def opened(path: Path) -> PanopticSamples:
    samples = open_split(path, task="panoptic").samples
    assert isinstance(samples, PanopticSamples)
    return samples


def test_a_json_is_read_as_annotated(tmp_path: Path) -> None:
    samples = opened(panoptic(tmp_path))
    assert samples.classes == CLASSES  # things first, each in the order of the file
    assert (samples.class_names, samples.category_ids) == (CLASSES.names, CLASSES.ids)
    assert samples.labels.tolist() == [[True] * 4, [False, False, True, True], [True] * 4]
    truth = samples.truth(0)
    np.testing.assert_array_equal(truth.ids, ids())
    assert truth.name == "0.png"
    assert [(one.id, one.label, one.crowd) for one in truth.segments] == [
        (70000, 3, False), (300, 2, False), (5, 0, False), (6, 0, True), (9, 1, False),
    ]  # fmt: skip
    assert [one.area for one in truth.segments] == [np.count_nonzero(ids() == number) for number, *_ in SEGMENTS]
    assert truth.segments[2].box == (4, 6, 10, 14)
    assert samples.segments[1] == panoptic_json()["annotations"][1]["segments_info"]
    things = samples.objects[0]
    assert things.boxes.tolist() == [[4, 6, 14, 20], [20, 6, 30, 12], [30, 3, 38, 23]]
    assert things.ids.tolist() == [5, 6, 9]
    assert samples.object_counts().tolist() == [2, 2, 0, 0]


def test_what_is_learned(tmp_path: Path) -> None:
    """Crowds are no objects, and any thing to the semantic branch; void does not count (detectron2)."""
    samples = opened(panoptic(tmp_path))
    scene = samples.annotations(0)
    assert scene.labels.tolist() == [0, 0, 1]
    assert scene.crowd.tolist() == [False, True, False]
    assert scene.trainable_mask().tolist() == [True, False, True]
    for outline, number in zip(scene.segmentations, (5, 6, 9), strict=True):
        np.testing.assert_array_equal(decode(outline), ids() == number)  # type: ignore[arg-type]
    wanted = np.full((HEIGHT, WIDTH), 255)
    for number, value in ((70000, 2), (300, 1), (5, 0), (6, 0), (9, 0)):
        wanted[ids() == number] = value
    np.testing.assert_array_equal(scene.semantic, wanted)
    target = transform_objects(scene, as_is(), masks=True)
    assert target.labels.tolist() == [0, 1]
    assert target.semantic is not None
    np.testing.assert_array_equal(target.semantic, wanted)
    stuff = samples.annotations(1)
    assert (len(stuff.boxes), len(stuff.segmentations)) == (0, 0)
    assert set(np.unique(stuff.semantic)) == {1, 2, 255}


def test_images_without_things_are_trained_on(tmp_path: Path) -> None:
    content = panoptic_json(4)
    content["annotations"][3]["segments_info"] = []
    Image.new("RGB", (WIDTH, HEIGHT)).save(panoptic(tmp_path, content).with_suffix("") / "3.png")
    samples = opened(tmp_path)
    assert samples.trainable(masks=True).keys == ["0.png", "1.png", "2.png"]
    assert samples.trainable(keep_empty=True).keys == ["0.png", "1.png", "2.png", "3.png"]
    assert (samples.annotations(3).semantic == 255).all()
    with pytest.raises(ResnestError, match="none of the 1 training images has a thing that is no crowd"):
        samples.subset(np.array([1])).trainable()


@pytest.mark.parametrize("seed", range(6))
def test_semantic_maps_stay_on_their_pixels(tmp_path: Path, seed: int) -> None:
    """Objects' masks and the map move alike: a thing is where the map says one is."""
    samples = opened(panoptic(tmp_path))
    varied = DetectionSettings(short=(48, 90), long=120, crop=0.5, flip_vertical=True, rotate=True)
    torch.manual_seed(seed)
    transform = DetectionTransform(DataSettings(), varied, masks=True)
    image, target = transform(samples.read(0), samples.annotations(0), "0.png")
    assert target.semantic is not None
    assert target.masks is not None
    assert tuple(target.semantic.shape) == target.size == tuple(image.shape[1:])
    assert (target.semantic[target.masks.drawn().any(0)] == 0).all()
    flat = {value: number % 251 for number, value in ((70000, 2), (300, 1))}  # as the picture is painted
    for value, red in flat.items():
        there = target.semantic[image[0] == red]
        assert len(there) < 9 or (there == value).float().mean() > 0.95  # the others are mixed at edges


def test_batches(tmp_path: Path) -> None:
    samples = opened(panoptic(tmp_path))
    settings = DetectionSettings(short=(40, 60), long=90)
    dataset = DetectionDataset(samples, DataSettings(), settings, masks=True, seed=0)
    (batch,) = training_batches(dataset, DataSettings(workers=0), batch_size=3, seed=0, epoch=0)
    assert not batch.bad
    for target in batch.labels:
        assert target.semantic.shape == target.size
        assert target.semantic.dtype == torch.uint8
    (batch,) = evaluation_batches(samples, DetectionPreprocess(short=30, long=60), batch_size=4, workers=0)
    assert batch.indices == [0, 1, 2]
    assert batch.pixels.shape == (3, 3, 32, 64)


def _change(place: Callable[[dict[str, Any]], Any], **values: Any) -> Callable[[dict[str, Any]], None]:
    """Set or, with `...`, remove keys of an entry."""

    def change(content: dict[str, Any]) -> None:
        entry = place(content)
        for key, value in values.items():
            if value is ...:
                del entry[key]
            else:
                entry[key] = value

    return change


def _first(content: dict[str, Any]) -> Any:
    return content["annotations"][0]


def _segment(content: dict[str, Any]) -> Any:
    return content["annotations"][2]["segments_info"][1]


def _category(content: dict[str, Any]) -> Any:
    return content["categories"][0]


BROKEN: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (
        _change(_segment, category_id=99),
        "the annotation of image 2: segment 300 has the category_id 99, which is not am",
    ),
    (_change(_segment, id=5), "the annotation of image 2: two segments have one id"),
    (_change(_segment, id=0), "the annotation of image 2: a segment has the id 0, which is void"),
    (_change(_segment, id="a"), 'the annotation of image 2: the segment id "a" is no whole number'),
    (
        _change(_segment, bbox=...),
        "the annotation of image 2: bbox is missing; needed are image_id, file_name and segm",
    ),
    (_change(_segment, bbox=[1, 2]), r"the annotation of image 2: not as expected \(bbox \[1, 2\]\)"),
    (_change(_segment, area=...), "the annotation of image 2: area is missing"),
    (_change(_first, segments_info=...), "the annotation of image 0: segments_info is missing"),
    (_change(_first, segments_info=7), "the annotation of image 0: not as expected"),
    (_change(_first, image_id=77), "image_id 77 of an annotation is not among the images"),
    (_change(_first, image_id=1), "image 1 has 2 annotations"),
    (_change(_category, isthing=...), "category 20: isthing is null: 1 is for things, 0 for stuff"),
    (_change(_category, name="cat"), "two categories are called 'cat'"),
    (_change(_category, id=7), "two categories have the id 7: 'sea' and 'cat'"),
    (lambda content: [item.update(isthing=0) for item in content["categories"]], "lists no category that is a thing"),
    (lambda content: content["annotations"].clear(), "has no annotation"),
    (lambda content: content["images"].clear(), "lists no image"),
    (lambda content: content["images"][0].update(id=1), "two images have the id 1: 0.png and 1.png"),
    (lambda content: content.pop("annotations"), "has no list 'annotations'"),
    (lambda content: [item.update(file_name="x.png") for item in content["annotations"]], "there is no map x.png in "),
    (lambda content: [item.update(file_name="y.png") for item in content["images"]], "there is no image y.png in "),
]


@pytest.mark.parametrize(("change", "message"), BROKEN)
def test_a_json_that_does_not_add_up(tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    path = panoptic(tmp_path)
    content = panoptic_json()
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ResnestError, match=f"panoptic_val2017.json.*{message}"):
        open_split(tmp_path, task="panoptic")


def test_stuff_alone_is_enough_for_masks(tmp_path: Path) -> None:
    """Datumaro writes isthing 0 for all (datumaro 1.13.12, plugins/data_formats/coco/exporter.py)."""
    path = panoptic(tmp_path)
    before = open_split(tmp_path, task="segmentation").samples
    content = panoptic_json()
    for item in content["categories"]:
        item["isthing"] = 0
    path.write_text(json.dumps(content), encoding="utf-8")
    samples = open_split(tmp_path, task="segmentation").samples
    assert sorted(samples.class_names) == sorted(before.class_names)


BAD_MAPS: list[tuple[Callable[[Path], Any], str]] = [
    (lambda path: path.unlink(), r"cannot be read \(No such file or directory\)"),
    (lambda path: path.write_bytes(path.read_bytes()[:80]), "damaged"),
    (
        lambda path: Image.fromarray(encode_ids(ids(SEGMENTS[:-1]))).save(path),
        "segment 9 is in the json and has no pixel",
    ),
    (
        lambda path: Image.fromarray(encode_ids(ids([*SEGMENTS, (77, 3, 0, 27, 4, 2, 0)]))).save(path),
        "segment 77 is in the PNG and not in the json",
    ),
    (lambda path: Image.fromarray(encode_ids(ids())[:-1]).save(path), "has 40 x 29 pixels, and its image 40 x 30"),
    (lambda path: Image.fromarray(ids().astype(np.uint8)).save(path), "is a L image: a map has colours, R"),
    (lambda path: Image.fromarray(encode_ids(ids())).save(path, "JPEG"), "is a JPEG file, which is lossy"),
]


@pytest.mark.parametrize(("spoil", "reason"), BAD_MAPS)
def test_unusable_maps_are_named(tmp_path: Path, spoil: Callable[[Path], Any], reason: str) -> None:
    path = panoptic(tmp_path)
    spoil(path.with_suffix("") / "2.png")
    samples = opened(tmp_path)
    for look in (samples.truth, samples.annotations):
        with pytest.raises(BadImage, match=f"^2.png: its map 2.png: {reason}"):
            look(2)
    dataset = DetectionDataset(samples, DataSettings(), DetectionSettings(), seed=0)
    (batch,) = training_batches(dataset, DataSettings(workers=0), batch_size=3, seed=0, epoch=0)
    assert [key for _, key, _ in batch.bad] == ["2.png"]
    assert len(batch.labels) == len(batch.images) == 2


def test_images_without_annotation_are_left_out(tmp_path: Path) -> None:
    path = panoptic(tmp_path)
    content = panoptic_json()
    del content["annotations"][1]
    path.write_text(json.dumps(content), encoding="utf-8")
    part = open_split(tmp_path, task="panoptic")
    assert part.samples.keys == ["0.png", "2.png"]
    assert part.describe.endswith(
        "2 validation images, 4 classes, 2 of them things, 4 objects (left out: 1 image without annotation;"
        " 2 crowds or difficult objects are ignored)"
    )


def test_parts_with_classes_in_another_order(tmp_path: Path) -> None:
    panoptic(tmp_path, part="train2017")
    content = panoptic_json()
    content["categories"] = [{**item, "id": item["id"]} for item in content["categories"][::-1]]
    path = panoptic(tmp_path, content)
    data = open_dataset(tmp_path, task="panoptic")
    assert isinstance(data.train, PanopticSamples)
    assert isinstance(data.val, PanopticSamples)
    assert data.val.classes == data.train.classes == CLASSES
    assert data.val.category_ids == CLASSES.ids
    assert data.val.truth(0).segments == data.train.truth(0).segments
    assert data.val.segments[0] == data.train.segments[0]
    np.testing.assert_array_equal(data.val.labels, data.train.labels)
    np.testing.assert_array_equal(data.val.objects[0].labels, data.train.objects[0].labels)
    content["categories"][0]["isthing"] = 1
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ResnestError, match="the validation split: sky is a thing there, unlike in the model or data"):
        open_dataset(tmp_path, task="panoptic")
    content["categories"][0]["name"] = "fog"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ResnestError, match="the validation split has classes that are not known: fog"):
        open_dataset(tmp_path, task="panoptic")


def test_a_category_that_no_segment_has_need_not_be_known(tmp_path: Path) -> None:
    panoptic(tmp_path, part="train2017")
    content = panoptic_json()
    more = [{"id": 90, "name": "fog", "isthing": 0}, {"id": 91, "name": "cow", "isthing": 1}]
    content["categories"] = [more[1], *content["categories"], more[0]]
    panoptic(tmp_path, content)
    data = open_dataset(tmp_path, task="panoptic")
    assert isinstance(data.train, PanopticSamples)
    assert isinstance(data.val, PanopticSamples)
    assert data.val.classes == data.train.classes == CLASSES
    assert [data.val.truth(place).segments for place in range(3)] == [
        data.train.truth(place).segments for place in range(3)
    ]
    assert data.val.objects[0].labels.tolist() == data.train.objects[0].labels.tolist()
    np.testing.assert_array_equal(data.val.labels, data.train.labels)


def test_a_validation_split_without_segments_that_count_is_refused(tmp_path: Path) -> None:
    panoptic(tmp_path, part="train2017")
    content = panoptic_json()
    for item in content["annotations"]:
        for segment in item["segments_info"]:
            segment["iscrowd"] = 1
    panoptic(tmp_path, content)
    with pytest.raises(ResnestError, match="has no segment but crowds on any validation image"):
        open_dataset(tmp_path, task="panoptic")


def test_classes_of_a_model(tmp_path: Path) -> None:
    """Which may know more of them."""
    samples = opened(panoptic(tmp_path))
    known = PanopticClasses(("cow", "dog", "cat", "mud", "sky", "sea"), (1, 2, 3, 4, 5, 6), 3)
    moved = samples.named_as(known, "x")
    assert (moved.classes, moved.class_names, moved.category_ids) == (known, known.names, known.ids)
    assert [(one.label, known.names[one.label]) for one in moved.truth(0).segments] == [
        (4, "sky"), (5, "sea"), (2, "cat"), (2, "cat"), (1, "dog"),
    ]  # fmt: skip
    assert moved.annotations(0).labels.tolist() == [2, 2, 1]
    assert set(np.unique(moved.annotations(0).semantic)) == {0, 2, 3, 255}
    assert moved.labels[1].tolist() == [False] * 4 + [True] * 2
    assert moved.objects[0].labels.tolist() == [2, 2, 1]
    assert samples.named_as(CLASSES, "x") is samples


@pytest.mark.data
def test_coco_sample() -> None:
    """Scenes made from maps are what the instance annotations of the same maps say."""
    root = shared_data() / "coco200-panoptic"
    data = open_dataset(root, task="panoptic")
    assert "100 training and 50 validation images, 133 classes, 80 of them things" in data.describe()
    samples = data.train
    assert isinstance(samples, PanopticSamples)
    assert len(samples.trainable()) == 100
    assert sum(len(one.ids) == 0 for one in samples.objects) == 2
    boxes = open_dataset(root).train
    assert isinstance(boxes, DetectionSamples)
    places = {key: place for place, key in enumerate(boxes.keys)}
    for index in range(0, 100, 12):
        scene, wanted = samples.annotations(index), boxes.objects[places[samples.keys[index]]]
        np.testing.assert_array_equal(scene.boxes, wanted.boxes)
        np.testing.assert_array_equal(scene.crowd, wanted.crowd)
        np.testing.assert_array_equal(scene.areas, wanted.areas)
        assert scene.segmentations == wanted.segmentations
        assert [samples.class_names[k] for k in scene.labels] == [boxes.class_names[k] for k in wanted.labels]
        told = samples.segments[index]
        assert [one.area for one in samples.truth(index).segments] == [one["area"] for one in told]

"""Data with objects (P2): formats and their errors, what a training image's target is, batches to evaluate on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from pycocotools import mask as coco
from torchvision import tv_tensors
from torchvision.transforms import v2

from resnest.data.detection import DetectionSamples, Objects
from resnest.data.detection_transforms import Placing, SceneTransform, boxes_of, draw, place_objects
from resnest.data.loading import Batch, evaluation_batches, training_batches
from resnest.data.samples import Samples
from resnest.data.settings import DataSettings, DetectionSettings
from resnest.data.sources import open_dataset, open_part
from resnest.errors import ResnestError
from resnest.runtime.decode import BadImage, decode_image
from resnest.runtime.preprocess import DetectionPreprocess

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools

WIDTH, HEIGHT = 40, 30
SMALL = DetectionSettings(short=(64,), long=128)
SQUARE = [[4, 4, 14, 4, 14, 14, 4, 14]]


def _coco() -> dict[str, Any]:
    """Four images: two kinds of outline, a crowd and a box of one pixel, only a crowd, nothing."""
    runs = {"size": [HEIGHT, WIDTH], "counts": [5 * HEIGHT, 2 * HEIGHT, 33 * HEIGHT]}
    crowd = {
        "size": [HEIGHT, WIDTH],
        "counts": coco.encode(np.ones((HEIGHT, WIDTH), np.uint8, order="F"))["counts"].decode(),
    }
    objects = [
        {"image_id": 40, "category_id": 9, "bbox": [4, 4, 10, 10], "area": 100, "segmentation": SQUARE},
        {"image_id": 7, "category_id": 2, "bbox": [1, 2, 1, 1], "segmentation": [[1, 2, 2, 2, 2, 3, 1, 3]]},
        {"image_id": 40, "category_id": 2, "bbox": [5, 0, 2, 30], "area": 60, "segmentation": runs, "iscrowd": 0},
        {"image_id": 7, "category_id": 9, "bbox": [0, 0, 40, 30], "area": 1200, "segmentation": crowd, "iscrowd": 1},
        {"image_id": 11, "category_id": 9, "bbox": [0, 0, 40, 30], "area": 1200, "segmentation": crowd, "iscrowd": 1},
    ]
    return {
        "images": [
            {"id": number, "file_name": f"{number}.png", "width": WIDTH, "height": HEIGHT} for number in (40, 7, 11, 3)
        ],
        "annotations": [{"id": 100 + place, **item} for place, item in enumerate(objects)],
        "categories": [{"id": 9, "name": "cat"}, {"id": 2, "name": "dog"}],  # holes, and not in order
    }


def _picture(path: Path, number: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (number * 20, 0, 0)).save(path)


def _pictures(folder: Path, content: dict[str, Any]) -> None:
    for item in content["images"]:
        _picture(folder / item["file_name"], item["id"], (item["width"], item["height"]))


def _write(path: Path, content: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def _voc(stem: str, boxes: str = "", size: str = f"<width>{WIDTH}</width><height>{HEIGHT}</height>") -> str:
    return f"<annotation><filename>{stem}.png</filename><size>{size}</size>{boxes}</annotation>"


def _object(name: str, corners: tuple[Any, ...], more: str = "") -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=False)
    box = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    return f"<object><name>{name}</name>{more}<bndbox>{box}</bndbox></object>"


@pytest.fixture
def data(tmp_path: Path) -> DetectionSamples:
    _pictures(tmp_path / "images", _coco())
    samples = open_part(_write(tmp_path / "all.json", _coco())).samples
    assert isinstance(samples, DetectionSamples)
    return samples


def test_a_json_file_is_read_as_annotated(data: DetectionSamples) -> None:
    assert data.class_names == ("dog", "cat")
    assert data.category_ids == (2, 9)
    assert data.labels.tolist() == [[True, True], [True, False], [False, False], [False, False]]
    first, second, third, fourth = data.objects
    assert first.boxes.tolist() == [[4, 4, 14, 14], [5, 0, 7, 30]]
    assert first.ids.tolist() == [100, 102]
    assert first.labels.tolist() == [1, 0]
    assert first.segmentations[0] == SQUARE
    assert second.areas.tolist() == [1, 1200]  # the first has none: its box's
    assert second.usable().tolist() == [True, False]
    assert [len(third.ids), len(fourth.ids), fourth.image_id] == [1, 0, 3]
    wanted = [coco.decode(coco.frPyObjects(SQUARE, HEIGHT, WIDTH))[..., 0], np.zeros((HEIGHT, WIDTH))]
    wanted[1][:, 5:7] = 1
    drawn = place_objects(first, _as_is(), masks=True).masks
    assert drawn is not None
    np.testing.assert_array_equal(drawn.numpy(), np.stack(wanted))


def _as_is(**changes: Any) -> Placing:
    whole = {"left": 0, "top": 0, "right": WIDTH, "bottom": HEIGHT, "width": WIDTH, "height": HEIGHT}
    return Placing(**{**whole, **changes})


def _pair(make: Callable[[Path, str, dict[str, Any]], Path]) -> Callable[[Path], Path]:
    def build(root: Path) -> Path:
        for part in ("train", "val"):
            make(root, part, _coco())
        return root

    return build


def _instances(root: Path, part: str, content: dict[str, Any]) -> Path:
    _pictures(root / "images" / part, content)
    return _write(root / "annotations" / f"instances_{part}.json", content)


def _alone(root: Path) -> Path:
    return _instances(root, "train", _many())


def _many() -> dict[str, Any]:
    """Ten images with an object each."""
    content = _coco()
    content["images"] = [{**content["images"][0], "id": number, "file_name": f"{number}.png"} for number in range(10)]
    content["annotations"] = [{**content["annotations"][0], "id": number, "image_id": number} for number in range(10)]
    return content


def _original(root: Path, part: str, content: dict[str, Any]) -> Path:
    _pictures(root / f"{part}2017", content)
    _write(root / "annotations" / f"captions_{part}2017.json", {})
    return _write(root / "annotations" / f"instances_{part}2017.json", content)


def _with_prefix(root: Path, part: str, content: dict[str, Any]) -> Path:
    for item in content["images"]:
        item["file_name"] = f"{part}/{item['file_name']}"
    _pictures(root / "images", content)
    _write(root / "annotations" / f"panoptic_{part}.json", {})
    return _write(root / "annotations" / f"instances_{part}.json", content)


def _roboflow(root: Path, part: str, content: dict[str, Any]) -> Path:
    folder = root / ("valid" if part == "val" else part)
    _pictures(folder, content)
    return _write(folder / "_annotations.coco.json", content)


def _devkit(root: Path) -> Path:
    for part, stems in (("train", ("a", "b")), ("val", ("c",))):
        (root / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        (root / "ImageSets" / "Main" / f"{part}.txt").write_text("\n".join(stems))
        for stem in stems:
            _picture(root / "JPEGImages" / f"{stem}.png")
            (root / "Annotations").mkdir(exist_ok=True)
            cat = _object("cat", (2, 3, 10, 12))
            (root / "Annotations" / f"{stem}.xml").write_text(_voc(stem, cat if part == "train" else cat * 2))
    return root


def _flat(root: Path) -> Path:
    for stem in "abcde":
        _picture(root / f"{stem}.png")
        (root / f"{stem}.xml").write_text(_voc(stem, _object("cat", (1, 1, 9, 9))))
    return root


def _by_part(root: Path) -> Path:
    for part in ("train", "valid"):
        (root / part).mkdir()
        _flat(root / part)
    return root


@pytest.mark.parametrize(
    ("build", "format", "images", "objects"),
    [
        (_pair(_instances), "coco", (4, 4), (3, 3)),
        (_pair(_original), "coco", (4, 4), (3, 3)),
        (_pair(_with_prefix), "coco", (4, 4), (3, 3)),
        (_pair(_roboflow), "coco", (4, 4), (3, 3)),
        (_alone, "coco", (8, 2), (8, 2)),
        (_devkit, "voc", (2, 1), (2, 2)),
        (_flat, "voc", (4, 1), (4, 1)),
        (_by_part, "voc", (5, 5), (5, 5)),
    ],
    ids=[
        "annotations",
        "as COCO has it",
        "folder in the name",
        "roboflow",
        "one json",
        "devkit",
        "flat xml",
        "xml by part",
    ],
)
def test_layouts(
    tmp_path: Path,
    build: Callable[[Path], Path],
    format: str,
    images: tuple[int, int],
    objects: tuple[int, int],
) -> None:
    splits = open_dataset(build(tmp_path))
    assert splits.format == format
    assert (len(splits.train), len(splits.val)) == images
    assert isinstance(splits.train, DetectionSamples)
    assert isinstance(splits.val, DetectionSamples)
    assert (splits.train.object_counts().sum(), splits.val.object_counts().sum()) == objects
    for part in (splits.train, splits.val):
        assert [part.decode(index).size for index in range(len(part))] == [(WIDTH, HEIGHT)] * len(part)


def test_voc_counts_from_one_and_difficult_is_not_learned(tmp_path: Path) -> None:
    _picture(tmp_path / "a.png")
    boxes = _object("dog", (1, 1, 40, 30)) + _object("cat", (3, 4, 3, 4), "<difficult>1</difficult>")
    (tmp_path / "a.xml").write_text(_voc("a", boxes, size=""))  # without its size, which the image knows
    samples = open_part(tmp_path).samples
    assert isinstance(samples, DetectionSamples)
    assert samples.class_names == ("cat", "dog")
    assert samples.objects[0].boxes.tolist() == [[0, 0, 40, 30], [2, 3, 3, 4]]
    assert samples.objects[0].usable().tolist() == [True, False]


def test_incomplete_images_are_left_out_of_both_parts_and_named(tmp_path: Path) -> None:
    content = _coco()
    content["images"][3]["suspect_incomplete"] = True
    for part in ("train", "val"):
        _instances(tmp_path, part, content)
    splits = open_dataset(tmp_path)
    assert (len(splits.train), len(splits.val)) == (3, 3)
    assert "1 images marked suspect_incomplete are left out" in splits.describe()


def test_parts_agree_on_classes_whatever_their_ids(tmp_path: Path) -> None:
    for part, categories in (("train", {9: "cat", 2: "dog"}), ("val", {2: "cat", 9: "dog", 5: "emu"})):
        content = _coco()
        content["categories"] = [{"id": number, "name": name} for number, name in categories.items()]
        _instances(tmp_path, part, content)
    splits = open_dataset(tmp_path)
    assert splits.train.class_names == splits.val.class_names == ("dog", "cat", "emu")
    assert splits.train.objects[0].labels.tolist() == [1, 0]  # type: ignore[attr-defined]
    assert splits.val.objects[0].labels.tolist() == [0, 1]  # type: ignore[attr-defined]
    assert splits.val.category_ids == (2, 9, 5)  # type: ignore[attr-defined]


def _set(*place: Any) -> Callable[[dict[str, Any]], Any]:
    *path, last, value = place

    def change(content: dict[str, Any]) -> None:
        for key in path:
            content = content[key]
        content[last] = value

    return change


def _drop(*place: Any) -> Callable[[dict[str, Any]], Any]:
    *path, last = place

    def change(content: dict[str, Any]) -> None:
        for key in path:
            content = content[key]
        del content[last]

    return change


FIRST = ("annotations", 0)
RUNS = {"size": [HEIGHT, WIDTH], "counts": [1, 2]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop("images"), "has no list 'images'"),
        (_drop("annotations"), "has no list 'annotations'"),
        (_drop("categories"), "has no list 'categories'"),
        (_set("categories", []), "lists no category"),
        (_set("images", []), "lists no image"),
        (_set("categories", 0, "id", 2), "two categories have the id 2: 'cat' and 'dog'"),
        (_set("categories", 0, "name", "dog"), "two categories are called 'dog': 2 and 9"),
        (_set("images", 1, "id", 40), "two images have the id 40: 40.png and 7.png"),
        (_drop("images", 0, "width"), "image 40: width is missing"),
        (_set("images", 0, "height", 0), "image 40: width and height must be 1 pixel or more"),
        (_set("images", 0, "id", "x"), "image x: not as expected"),
        (_set(*FIRST, "image_id", 5), "annotation 100: image_id 5 is not among the images"),
        (_set(*FIRST, "category_id", 1), "annotation 100: category_id 1 is not among the categories"),
        (_set(*FIRST, "category_id", 2**70), "annotation 100 (image id 40): not as expected"),
        (_drop(*FIRST, "bbox"), "annotation 100 (image id 40): bbox is missing"),
        (_set(*FIRST, "bbox", [1, 2, 3]), "annotation 100 (image id 40): bbox [1, 2, 3] is not four numbers"),
        (_set(*FIRST, "bbox", [1, 2, "3", 4]), "annotation 100 (image id 40): not as expected"),
        (_set(*FIRST, "bbox", [1, 2, float("nan"), 4]), "annotation 100: bbox [1.0, 2.0, nan, 4.0] is not four finite"),
        (_set(*FIRST, "segmentation", [[1, 1, 2, 2]]), "annotation 100 (image id 40): polygon 0 has 2 points: three"),
        (_set(*FIRST, "segmentation", [[1, 1, 2, 2, 3, 3, 4]]), "polygon 0 has 7 coordinates"),
        (_set(*FIRST, "segmentation", [1, 1, 2, 2, 3, 3]), "polygon 0 is not a list of coordinates"),
        (_set(*FIRST, "segmentation", [[1, 1, 2, float("inf"), 3, 3]]), "a coordinate that is not finite"),
        (_set(*FIRST, "segmentation", {"counts": "11"}), "RLE needs counts and size"),
        (_set(*FIRST, "segmentation", {**RUNS, "size": [HEIGHT, 3]}), "annotation 100: RLE of 3 x 30 pixels (width x"),
        (_set(*FIRST, "segmentation", RUNS), "annotation 100: RLE: a mask of 30 x 40 pixels"),
        (_set(*FIRST, "segmentation", {**RUNS, "counts": "~~"}), "annotation 100: RLE: '~~' is not a packed mask"),
        (_set("annotations", 1, 3), "annotation 3: not as expected"),
        (_set("annotations", []), "no training image has an object with an area"),
        (lambda content: [item.update(iscrowd=1) for item in content["annotations"]], "(crowds do not count)"),
        (
            lambda content: [item.update(file_name="x/" + item["file_name"]) for item in content["images"]],
            "there is no image x/40.png in ",
        ),
    ],
)
def test_coco_that_does_not_add_up_is_one_line(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    content = _coco()
    _pictures(tmp_path / "images", content)
    change(content)
    with pytest.raises(ResnestError, match=re.escape(message)) as caught:
        open_dataset(_write(tmp_path / "all.json", content))
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "all.json") in str(caught.value)


@pytest.mark.parametrize(("share", "within"), [(0.01, ""), (0.1, "images"), (0.6, "annotations"), (1, "categories")])
def test_json_that_is_cut_off(tmp_path: Path, share: float, within: str) -> None:
    _pictures(tmp_path / "images", _coco())
    text = json.dumps(_coco())
    path = tmp_path / "all.json"
    path.write_text(text[: int(len(text) * share) - 3])
    with pytest.raises(ResnestError, match=r"all\.json is cut off or damaged at character [0-9,]+ of") as caught:
        open_dataset(path)
    assert (f"in {within!r}, after" in str(caught.value)) == bool(within)


BOMB = '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB + _voc("a", _object("&c;", (1, 1, 9, 9))), "is refused: it has a DOCTYPE"),
        (_voc("a", _object("cat", (1, 1, 9, 9)))[:-20], "a.xml is cut off or not xml (unclosed token"),
        ("<svg/>", "a.xml is not Pascal VOC's: it starts with <svg>"),
        (
            _voc("a", _object("cat", (1, 1, 9))),
            "object 1 (cat): bndbox ['1', '1', '9', None] is not four finite numbers",
        ),
        (_voc("a", _object("cat", (1, "x", 9, 9))), "is not four finite numbers"),
        (_voc("a", _object("", (1, 1, 9, 9))), "object 1 (without a name): needed are name"),
        (_voc("a"), "no training image has an object with an area"),
    ],
)
def test_voc_that_does_not_add_up_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    for stem in "ab":
        _picture(tmp_path / f"{stem}.png")
        (tmp_path / f"{stem}.xml").write_text(text if stem == "a" else _voc("b"))
    with pytest.raises(ResnestError, match=re.escape(message)) as caught:
        open_dataset(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("orientation", "annotated", "turned"),
    [(6, (30, 40), True), (6, (40, 30), False), (3, (40, 30), False), (1, (40, 30), False), (6, (40, 31), None)],
)
def test_exif_is_applied_if_the_annotated_size_says_so(
    tmp_path: Path, orientation: int, annotated: tuple[int, int], turned: bool | None
) -> None:
    image = Image.new("RGB", (40, 30))
    image.paste((255, 255, 255), (0, 0, 20, 30))  # the left half
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.png", exif=exif)
    if turned is None:
        with pytest.raises(BadImage, match=r"40 x 30 pixels \(30 x 40 upright\), but is annotated as 40 x 31"):
            decode_image(tmp_path / "a.png", annotated=annotated)
        return
    seen = np.asarray(decode_image(tmp_path / "a.png", annotated=annotated))[..., 0]
    np.testing.assert_array_equal(
        seen, np.rot90(np.asarray(image)[..., 0], -1) if turned else np.asarray(image)[..., 0]
    )


VARIED = DetectionSettings(short=(48, 90), long=120, crop=0.5, flip_vertical=True, rotate=True)


def _scene(rng: np.random.Generator) -> tuple[Image.Image, Objects]:
    """A white rectangle on black, as a box, a polygon and run lengths."""
    width, height = map(int, rng.integers(30, 80, 2))
    left, top = rng.integers(0, (width - 8, height - 8))
    right, bottom = rng.integers((left + 8, top + 8), (width + 1, height + 1))
    image = Image.new("RGB", (width, height))
    ImageDraw.Draw(image).rectangle((left, top, right - 1, bottom - 1), (255, 255, 255))
    runs = coco.encode(np.asfortranarray(np.asarray(image)[..., 0] // 255))
    outlines = [
        [[float(value) for value in (left, top, right, top, right, bottom, left, bottom)]],
        {"size": [height, width], "counts": runs["counts"].decode()},
    ]
    box = np.array([[left, top, right, bottom]] * 2, np.float32)
    nothing = np.zeros(2, bool)
    return image, Objects(1, width, height, box, np.zeros(2, np.int64), nothing, np.ones(2), outlines, np.arange(2))


@pytest.mark.parametrize("seed", range(12))
def test_boxes_and_masks_stay_on_their_pixels(seed: int) -> None:
    image, objects = _scene(np.random.default_rng(seed))
    torch.manual_seed(seed)
    transform = SceneTransform(DataSettings(), VARIED, masks=True)
    placing = transform.draw(objects.width, objects.height)
    pixels = np.asarray(placing.picture(image))[..., 0]
    assert pixels.shape == placing.size
    assert max(placing.size) <= 120
    target = place_objects(objects, placing, masks=True)
    assert target.masks is not None
    if not (pixels > 127).any():  # cut away
        assert len(target.boxes) == 0
        return
    rows, columns = np.nonzero(pixels > 127)
    seen = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    for box, mask in zip(target.boxes.numpy(), target.masks.numpy(), strict=True):
        np.testing.assert_allclose(box, seen, atol=1)
        np.testing.assert_allclose(boxes_of(mask[None])[0], seen, atol=1)
        assert mask[pixels > 254].all()
    tight = place_objects(objects, placing, masks=True, tighten=True)
    np.testing.assert_allclose(tight.boxes[1], seen, atol=1)


def test_placing_is_as_in_torchvision() -> None:
    rng = np.random.default_rng(3)
    image, objects = _scene(rng)
    place = {"left": 3, "top": 5, "right": objects.width, "bottom": 27}
    placing = Placing(**place, width=61, height=52, mirror=True, upend=True)
    size = (objects.height, objects.width)
    boxes: Any = tv_tensors.BoundingBoxes(torch.from_numpy(objects.boxes), format="XYXY", canvas_size=size)
    boxes = v2.functional.crop(boxes, placing.top, placing.left, placing.bottom - 5, placing.right - 3)
    boxes = v2.functional.resize(boxes, [52, 61])
    boxes = v2.functional.vertical_flip(v2.functional.horizontal_flip(boxes))
    np.testing.assert_allclose(placing.boxes(objects.boxes), v2.functional.clamp_bounding_boxes(boxes), atol=1e-4)
    picture: Any = v2.functional.crop(image, placing.top, placing.left, placing.bottom - 5, placing.right - 3)
    picture = v2.functional.vertical_flip(v2.functional.horizontal_flip(v2.functional.resize(picture, [52, 61])))
    np.testing.assert_array_equal(np.asarray(placing.picture(image)), np.asarray(picture))


def test_polygons_are_drawn_as_pycocotools_draws_them() -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        polygons = [
            rng.uniform(-8, 48, 2 * count).round(2).tolist() for count in rng.integers(3, 8, rng.integers(1, 3))
        ]
        mask = np.zeros((HEIGHT, WIDTH), bool)
        seen = draw(polygons, _as_is(), mask)
        wanted = coco.decode(coco.merge(coco.frPyObjects(polygons, HEIGHT, WIDTH)))
        np.testing.assert_array_equal(mask, wanted)
        assert seen == wanted.any()


def _digest(batch: Batch) -> list[Any]:
    return [batch.images.numpy().tobytes(), batch.indices.tolist(), *(target.boxes.tolist() for target in batch.labels)]


def test_training_batches(data: DetectionSamples) -> None:
    images = data.trainable(masks=True)
    assert [images.keys, len(data.trainable(keep_empty=True))] == [["40.png", "7.png"], 4]
    runs = [
        [
            _digest(batch)
            for batch in training_batches(
                images,
                DataSettings(workers=workers, jitter=0.3),
                batch_size=2,
                seed=seed,
                epoch=0,
                epochs=1,
                detection=VARIED,
                masks=True,
            )
        ]
        for workers, seed in ((0, 0), (1, 0), (0, 1))
    ]
    assert runs[0] == runs[1] != runs[2]
    (batch,) = training_batches(
        data.trainable(keep_empty=True),
        DataSettings(workers=0, flip=False),
        batch_size=4,
        seed=0,
        epoch=0,
        epochs=1,
        detection=SMALL,
        masks=True,
    )
    assert batch.images.shape == (4, 3, 64, 96)  # 85 x 64 pixels, padded
    assert batch.images.dtype == torch.uint8
    assert not batch.images[:, :, :, 85:].any()
    found = {int(index): target for index, target in zip(batch.indices, batch.labels, strict=True)}
    assert {index: len(target.boxes) for index, target in found.items()} == {0: 2, 1: 1, 2: 0, 3: 0}
    np.testing.assert_allclose(found[1].boxes, [[2.125, 2 * 64 / 30, 4.25, 3 * 64 / 30]], rtol=1e-5)
    assert found[3].masks.shape == (0, 64, 85)
    assert [target.size for target in batch.labels] == batch.sizes.tolist() == [
        (64, 85)
    ] * 4 or batch.sizes.tolist() == [[64, 85]] * 4


def test_objects_without_outlines_cannot_train_masks(tmp_path: Path) -> None:
    content = _coco()
    content["annotations"][1]["segmentation"] = []
    _pictures(tmp_path / "images", content)
    samples = open_part(_write(tmp_path / "all.json", content)).samples
    assert isinstance(samples, DetectionSamples)
    with pytest.raises(ResnestError, match=r"1 of 3 objects have no segmentation, as annotation 101 of 7\.png"):
        samples.trainable(masks=True)
    assert len(samples.trainable()) == 2


def test_classes_and_objects_are_not_mixed_up(data: DetectionSamples) -> None:
    with pytest.raises(ResnestError, match="a recipe for a detector is needed"):
        training_batches(data, DataSettings(workers=0), batch_size=2, seed=0, epoch=0, epochs=1)
    with pytest.raises(ResnestError, match="this data has classes only"):
        evaluation_batches(
            Samples(data.store, data.keys, np.arange(4), tuple("abcd")), DetectionPreprocess(), batch_size=2
        )


def test_evaluation_comes_one_shape_at_a_time_and_every_image_once(tmp_path: Path) -> None:
    content = _coco()
    for item, size in zip(content["images"], ((40, 30), (30, 40), (40, 30), (40, 36)), strict=True):
        item["width"], item["height"] = size
    for item in content["annotations"]:
        item["segmentation"] = []
    _pictures(tmp_path / "images", content)
    (tmp_path / "images" / "3.png").write_bytes(b"no image")
    samples = open_part(_write(tmp_path / "all.json", content)).samples
    preprocess = DetectionPreprocess(short=60, long=100)
    for world in (1, 2, 3):
        seen: list[int] = []
        for rank in range(world):
            for batch in evaluation_batches(samples, preprocess, batch_size=2, workers=0, rank=rank, world_size=world):
                seen += [*batch.indices.tolist(), *(index for index, _, _ in batch.bad)]
                for place, index in enumerate(batch.indices.tolist()):
                    image = samples.decode(index)
                    np.testing.assert_array_equal(batch.images[place], preprocess(image))
                    assert tuple(batch.sizes[place]) == preprocess.scaled_size(*image.size)[::-1]
        assert sorted(seen) == [0, 1, 2, 3]


def test_the_split_is_reproducible(tmp_path: Path) -> None:
    content = _many()
    path = _instances(tmp_path, "train", content)
    one = open_dataset(path)
    content["images"].reverse()
    assert sorted(one.val.keys) == sorted(open_dataset(_write(path, content)).val.keys)

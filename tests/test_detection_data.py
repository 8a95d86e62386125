"""Training images with objects (P2), and batches to train and to evaluate on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageOps
from pycocotools import mask as coco
from torchvision import tv_tensors
from torchvision.transforms import v2

from resnest.data.loading import Batch, evaluation_batches, training_batches
from resnest.data.samples import LabelledSamples
from resnest.data.settings import DataSettings
from resnest.data.sources import open_split
from resnest.data.stores import FolderStore
from resnest.detection.card import DetectionPreprocess
from resnest.detection.data import DetectionSamples, Objects
from resnest.detection.object_masks import ObjectMasks
from resnest.detection.recipes import DetectionSettings
from resnest.detection.transforms import (
    DetectionDataset,
    DetectionTransform,
    Geometry,
    draw,
    transform_objects,
)
from resnest.errors import ResnestError
from resnest.recipes import find_recipe
from resnest.runtime.decode import BadImage, Exif, decode_image
from resnest.tasks import open_task
from scenes import HEIGHT, WIDTH, as_is, coco_json, picture, pictures, write

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools

SMALL = DetectionSettings(short=(64,), long=128)


@pytest.fixture
def data(tmp_path: Path) -> DetectionSamples:
    pictures(tmp_path / "images", coco_json())
    samples = open_split(write(tmp_path / "all.json", coco_json())).samples
    assert isinstance(samples, DetectionSamples)
    return samples


WRONG_SIZE = r"40 x 30 pixels( \(30 x 40 upright\))?, but is annotated as "


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("exif", ["auto", "upright", "stored"])
@pytest.mark.parametrize("annotated", [(40, 30), (30, 40), (40, 31)])
def test_exif_is_applied_as_annotated(tmp_path: Path, orientation: int, exif: Exif, annotated: tuple[int, int]) -> None:
    """By the annotated size; where stored and upright pixels are of one size, upright as annotation tools show them."""
    image = Image.new("RGB", (40, 30))
    image.paste((255, 255, 255), (0, 0, 10, 20))  # the upper left
    image.getexif()[0x0112] = orientation
    image.save(tmp_path / "a.png", exif=image.getexif())
    upright = ImageOps.exif_transpose(image)
    meant = [upright, image] if exif == "auto" else [upright if exif == "upright" else image]
    expected = next((picture for picture in meant if picture.size == annotated), None)
    if expected is None:
        said = f", and data.exif={exif}$" if annotated in (image.size, upright.size) else "$"
        with pytest.raises(BadImage, match=f"{WRONG_SIZE}{annotated[0]} x {annotated[1]}{said}"):
            decode_image(tmp_path / "a.png", annotated=annotated, exif=exif)
        return
    seen = decode_image(tmp_path / "a.png", annotated=annotated, exif=exif)
    np.testing.assert_array_equal(np.asarray(seen), np.asarray(expected))


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
    transform = DetectionTransform(DataSettings(), VARIED, masks=True)
    placing = transform.draw(objects.width, objects.height)
    pixels = np.asarray(placing.picture(image))[..., 0]
    assert pixels.shape == placing.size
    assert max(placing.size) <= 120
    target = transform_objects(objects, placing, masks=True)
    assert target.masks is not None
    if not (pixels > 127).any():  # cut away
        assert len(target.boxes) == 0
        return
    rows, columns = np.nonzero(pixels > 127)
    seen = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    for box, mask in zip(target.boxes.numpy(), target.masks.drawn().numpy(), strict=True):
        np.testing.assert_allclose(box, seen, atol=1)
        np.testing.assert_allclose(ObjectMasks.of(torch.from_numpy(mask)[None]).boxes[0], seen, atol=1)
        assert mask[pixels > 254].all()
    tight = transform_objects(objects, placing, masks=True, tighten=True)
    np.testing.assert_allclose(tight.boxes[1], seen, atol=1)


def test_placing_is_as_in_torchvision() -> None:
    rng = np.random.default_rng(3)
    image, objects = _scene(rng)
    place = {"left": 3, "top": 5, "right": objects.width, "bottom": 27}
    placing = Geometry(**place, width=61, height=52, mirror=True, flip_vertical=True)
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
        part = draw(polygons, as_is())
        wanted = coco.decode(coco.merge(coco.frPyObjects(polygons, HEIGHT, WIDTH)))
        np.testing.assert_array_equal(ObjectMasks.pack([part], (HEIGHT, WIDTH)).drawn()[0], wanted)
        assert bool(part.pixels.size) == wanted.any()


def _digest(batch: Batch) -> list[Any]:
    return [batch.images.numpy().tobytes(), batch.indices.tolist(), *(target.boxes.tolist() for target in batch.labels)]


def test_training_batches(data: DetectionSamples) -> None:
    images = data.trainable(masks=True)
    assert [images.keys, len(data.trainable(keep_empty=True))] == [["40.png", "7.png"], 4]
    runs = [
        [
            _digest(batch)
            for batch in training_batches(
                DetectionDataset(images, DataSettings(jitter=0.3), VARIED, masks=True, seed=seed),
                DataSettings(workers=workers, jitter=0.3),
                batch_size=2,
                seed=seed,
                epoch=0,
            )
        ]
        for workers, seed in ((0, 0), (1, 0), (0, 1))
    ]
    assert runs[0] == runs[1] != runs[2]
    settings = DataSettings(workers=0, flip=False)
    (batch,) = training_batches(
        DetectionDataset(data.trainable(keep_empty=True), settings, SMALL, masks=True, seed=0),
        settings,
        batch_size=4,
        seed=0,
        epoch=0,
    )
    assert batch.images.shape == (4, 3, 64, 96)  # 85 x 64 pixels, padded
    assert batch.images.dtype == torch.uint8
    assert not batch.images[:, :, :, 85:].any()
    found = {int(index): target for index, target in zip(batch.indices, batch.labels, strict=True)}
    assert {index: len(target.boxes) for index, target in found.items()} == {0: 2, 1: 1, 2: 0, 3: 0}
    np.testing.assert_allclose(found[1].boxes, [[2.125, 2 * 64 / 30, 4.25, 3 * 64 / 30]], rtol=1e-5)
    assert found[3].masks.drawn().shape == (0, 64, 85)
    assert [target.size for target in batch.labels] == [(64, 85)] * 4


def test_unusable_images_are_named_and_left_out(data: DetectionSamples, tmp_path: Path) -> None:
    def batch() -> Batch:
        settings = DataSettings(workers=0)
        order = {"batch_size": 2, "seed": 0, "epoch": 0}
        return next(training_batches(DetectionDataset(data.trainable(), settings, SMALL, seed=0), settings, **order))

    (tmp_path / "images" / "7.png").unlink()
    assert batch().bad == [(1, "7.png", "cannot be read (No such file or directory)")]
    assert [target.labels.tolist() for target in batch().labels] == [[1, 0]]
    picture(tmp_path / "images" / "40.png", size=(41, 30))
    assert (len(batch().labels), len(batch().bad)) == (0, 2)
    with pytest.raises(BadImage, match=r"cannot be read \(embedded null byte\)"):
        LabelledSamples(FolderStore(tmp_path), ["a\0.png"], data.class_names, data.labels).read(0)


def test_objects_without_outlines_cannot_train_masks(tmp_path: Path) -> None:
    content = coco_json()
    content["annotations"][1]["segmentation"] = []
    pictures(tmp_path / "images", content)
    samples = open_split(write(tmp_path / "all.json", content)).samples
    assert isinstance(samples, DetectionSamples)
    with pytest.raises(ResnestError, match=r"1 of 3 objects have no segmentation, as annotation 101 of 7\.png"):
        samples.trainable(masks=True)
    assert len(samples.trainable()) == 2


def test_classes_and_objects_are_not_mixed_up(data: DetectionSamples) -> None:
    with pytest.raises(ResnestError, match=r"it has boxes, and recipe 'imagenette' is for classification: give images"):
        open_task(find_recipe("imagenette"), data, "it")
    labelled = LabelledSamples(data.store, data.keys, tuple("abcd"), np.arange(4))
    with pytest.raises(ResnestError, match="it has labels, and recipe 'detect_small' is for detection: give data with"):
        open_task(find_recipe("detect_small"), labelled, "it")


def test_evaluation_comes_one_shape_at_a_time_and_every_image_once(tmp_path: Path) -> None:
    content = coco_json()
    for item, size in zip(content["images"], ((40, 30), (30, 40), (40, 30), (40, 36)), strict=True):
        item["width"], item["height"] = size
    for item in content["annotations"]:
        item["segmentation"] = []
    pictures(tmp_path / "images", content)
    (tmp_path / "images" / "3.png").write_bytes(b"no image")
    samples = open_split(write(tmp_path / "all.json", content)).samples
    preprocess = DetectionPreprocess(short=60, long=100)
    for world in (1, 2, 3):
        seen: list[int] = []
        bad: list[str] = []
        for rank in range(world):
            for batch in evaluation_batches(samples, preprocess, batch_size=2, workers=0, rank=rank, world_size=world):
                seen += batch.indices
                bad += [name for name, _ in batch.bad]
                for place, index in enumerate(batch.indices):
                    image = samples.decode(index)
                    np.testing.assert_array_equal(batch.pixels[place], preprocess(image))
                    assert batch.sizes[place] == image.size
        assert (sorted(seen), bad) == ([0, 1, 2], ["3.png"])

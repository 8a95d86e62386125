"""Images with masks (P2, P11): how they are varied, batched and divided, and what happens to unusable ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from masked import HEIGHT, WIDTH, folders, labels, mask, panoptic, picture, scene
from resnest.data.loading import Batch, evaluation_batches, training_batches
from resnest.data.order import seeded
from resnest.data.samples import LabelledSamples
from resnest.data.settings import DataSettings
from resnest.data.sources import open_dataset, open_split
from resnest.data.splitting import Holdout
from resnest.errors import ResnestError
from resnest.panoptic.json_files import PanopticPixels
from resnest.recipes import find_recipe
from resnest.runtime.decode import BadImage
from resnest.segmentation.card import SegmentationCard, SegmentationPreprocess
from resnest.segmentation.data import PixelSamples
from resnest.segmentation.recipes.settings import SegmentationSettings
from resnest.segmentation.spec import SegmenterSpec
from resnest.segmentation.transforms import Geometry, PixelTransform, SegmentationDataset
from resnest.spec import Spec
from resnest.tasks import check_task, open_task

SMALL = SegmentationSettings(base=48, crop=32)
VARIED = SegmentationSettings(base=64, crop=48, scale=(0.3, 2.0), flip_vertical=True)


@pytest.fixture
def data(tmp_path: Path) -> PixelSamples:
    train = open_dataset(folders(tmp_path, train=6), task="segmentation").train
    assert isinstance(train, PixelSamples)
    return train


@pytest.mark.parametrize(
    ("orientation", "size", "exif", "turns"),  # quarter turns against the clock; None: refused
    [
        (6, (30, 40), "auto", 3),
        (6, (40, 30), "auto", 0),
        (3, (40, 30), "auto", 2),
        (3, (40, 30), "upright", 2),
        (3, (40, 30), "stored", 0),
        (6, (40, 30), "stored", 0),
        (6, (40, 31), "auto", None),
    ],
)
def test_pictures_are_turned_as_their_masks_are(
    tmp_path: Path, orientation: int, size: tuple[int, int], exif: str, turns: int | None
) -> None:
    folders(tmp_path)
    tags = Image.Exif()
    tags[0x0112] = orientation
    scene(labels()).save(tmp_path / "images" / "train" / "0.png", exif=tags)
    mask(tmp_path / "masks" / "train" / "0.png", size=size)
    train = open_dataset(tmp_path, task="segmentation", exif=exif).train
    assert isinstance(train, PixelSamples)
    if turns is None:
        with pytest.raises(
            BadImage, match=r"40 x 30 pixels \(30 x 40 upright\), but is annotated as 40 x 31 by its mask"
        ):
            train.pair(0)
        return
    expected = np.rot90(np.asarray(scene(labels())), turns)
    np.testing.assert_array_equal(np.asarray(train.pair(0)[0]), expected)
    np.testing.assert_array_equal(np.asarray(train.decode(0)), expected)


def test_a_cut_is_a_part_of_the_whole_resized() -> None:
    """Pixels at its edges too: the filter looks beyond them."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (61, 83, 3), dtype=np.uint8))
    for wide, high in ((131, 97), (83, 61), (40, 29)):
        left, top, width, height = 7, 5, 30, 22
        box = (left * 83 / wide, top * 61 / high, (left + width) * 83 / wide, (top + height) * 61 / high)
        for method in (Image.Resampling.BILINEAR, Image.Resampling.NEAREST):
            whole = image.resize((wide, high), method).crop((left, top, left + width, top + height))
            seen = Geometry(box=box, width=width, height=height)(image, method)
            differ = np.abs(np.asarray(seen).astype(int) - np.asarray(whole))
            assert differ.max() <= 1  # rounding of the box
            assert (differ > 0).mean() < 0.01
    mirrored = Geometry(box=box, width=width, height=height, mirror=True, flip_vertical=True)(image, method)
    np.testing.assert_array_equal(np.asarray(mirrored), np.asarray(seen)[::-1, ::-1])


@pytest.mark.parametrize("seed", range(8))
def test_masks_stay_on_their_pixels(seed: int) -> None:
    """The picture shows its mask in colours: away from edges they agree wherever both are moved to."""
    truth = labels(size=(90, 60))
    with seeded(seed):
        image, moved = PixelTransform(DataSettings(), VARIED)(scene(truth), truth)
    assert image.shape == (3, 48, 48)
    assert image.dtype == moved.dtype == torch.uint8
    colours = {0: (0, 0, 200), 1: (128, 64, 128), 2: (0, 160, 0)}
    for label, colour in colours.items():
        there = (image == torch.tensor(colours[label], dtype=torch.uint8)[:, None, None]).all(0)
        assert (moved[there] == label).all(), colour
    known = sum((moved == label).sum() for label in colours)
    assert known + (moved == 255).sum() == moved.numel()


def test_what_is_missing_is_black_and_does_not_count() -> None:
    truth = np.ones((40, 60), np.uint8)
    small = SegmentationSettings(base=60, crop=80, scale=(0.5, 0.5))
    image, moved = PixelTransform(DataSettings(), small)(Image.new("RGB", (60, 40), (9, 9, 9)), truth)
    assert (moved == 1).sum() == 30 * 20
    assert (moved[:20, :30] == 1).all()
    assert (image[:, :20, :30] == 9).all()
    assert image.sum() == 9 * 3 * 30 * 20


def test_sizes_and_places_are_drawn_as_the_authors_draw_them() -> None:
    """The long side evenly between the bounds, each place equally often, half mirrored."""
    transform = PixelTransform(DataSettings(), SegmentationSettings(base=100, crop=64, scale=(0.5, 2.0)))
    with seeded(0):
        cuts = [transform.draw(200, 100) for _ in range(2000)]
    sides = np.array([200 * cut.width / (cut.box[2] - cut.box[0]) for cut in cuts])  # of the whole, resized
    assert (sides.min().round(), sides.max().round()) == (50, 200)
    np.testing.assert_allclose(np.histogram(sides, 5, (50, 200))[0] / len(cuts), 0.2, atol=0.03)
    assert all(
        cut.height == min(64, round(side / 2 + 1e-9)) for cut, side in zip(cuts, sides, strict=True) if side > 129
    )
    assert 0.45 < np.mean([cut.mirror for cut in cuts]) < 0.55
    assert not any(cut.flip_vertical for cut in cuts)
    assert max(cut.box[2] for cut in cuts) <= 200
    assert max(cut.box[3] for cut in cuts) <= 100


def _digest(batch: Batch) -> list[Any]:
    return [batch.images.numpy().tobytes(), batch.labels.numpy().tobytes(), batch.indices.tolist()]


def test_training_batches(data: PixelSamples) -> None:
    def run(workers: int, seed: int = 0, epoch: int = 0, repeats: int = 1) -> list[list[Any]]:
        settings = DataSettings(workers=workers, jitter=0.3, repeats=repeats)
        dataset = SegmentationDataset(data, settings, SMALL, seed=seed)
        batches = training_batches(dataset, settings, batch_size=2, seed=seed, epoch=epoch)
        return [_digest(batch) for batch in batches]

    first = run(0)
    assert first == run(2)
    assert first not in (run(0, seed=1), run(0, epoch=1))
    twice = next(
        iter(
            training_batches(
                SegmentationDataset(data, DataSettings(), SMALL, seed=0),
                DataSettings(workers=0, repeats=2),
                batch_size=2,
                seed=0,
                epoch=0,
            )
        )
    )
    assert twice.indices[0] == twice.indices[1]
    assert not torch.equal(twice.images[0], twice.images[1])
    assert twice.images.shape == (2, 3, 32, 32)
    assert twice.images.is_contiguous(memory_format=torch.channels_last)
    assert twice.labels.shape == (2, 32, 32)
    assert twice.labels.dtype == torch.uint8


def test_a_batch_of_unusable_images(data: PixelSamples, tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / "masks" / "train" / f"{number}.png").write_bytes(b"x")
    (batch, *_) = training_batches(
        SegmentationDataset(data, DataSettings(), SMALL, seed=0),
        DataSettings(workers=0),
        batch_size=2,
        seed=0,
        epoch=0,
    )
    assert (len(batch.labels), len(batch.images), len(batch.bad)) == (0, 0, 2)
    (batch,) = evaluation_batches(data, SegmentationPreprocess(), batch_size=8, workers=0)
    assert (len(batch.truths), len(batch.pixels), len(batch.bad)) == (0, 0, 6)


def test_masks_without_a_pixel_that_counts_are_data(data: PixelSamples, tmp_path: Path) -> None:
    Image.fromarray(np.full((HEIGHT, WIDTH), 255, np.uint8)).save(tmp_path / "masks" / "train" / "0.png")
    batches = training_batches(
        SegmentationDataset(data, DataSettings(), SMALL, seed=0),
        DataSettings(workers=0),
        batch_size=6,
        seed=0,
        epoch=0,
    )
    (batch,) = batches
    assert not batch.bad
    assert (batch.labels[batch.indices == 0] == 255).all()


def test_wrong_settings_for_masks(data: PixelSamples) -> None:
    with pytest.raises(ResnestError, match=r"it has masks of classes, and recipe 'imagenette' is for classification"):
        open_task(find_recipe("imagenette"), data, "it")
    for name in ("balance", "repeat_threshold"):
        with pytest.raises(ResnestError, match=rf"data.{name}=0.5: what a mask shows is not known before it is read"):
            SegmentationDataset(data, DataSettings(**{name: 0.5}), SMALL, seed=0)
    with pytest.raises(
        ResnestError, match="it has masks of classes, and the model is for detection: give data with boxes"
    ):
        check_task(data, "detection", "it", "the model")
    labelled = LabelledSamples(data.store, data.keys, ("a", "b"), np.zeros(len(data), int))
    with pytest.raises(
        ResnestError, match="it has labels, and the model is for segmentation: give pictures with a mask"
    ):
        check_task(labelled, "segmentation", "it", "the model")


SIZES = ((40, 30), (52, 30), (40, 30), (60, 41), (52, 30), (40, 30), (30, 40))


@pytest.mark.parametrize(
    ("preprocess", "shapes"),
    [
        (SegmentationPreprocess(), {(32, 40): (0, 2, 5), (40, 32): (6,), (32, 52): (1, 4), (41, 60): (3,)}),
        (SegmentationPreprocess(long=80), {(60, 80): (0, 2, 5), (80, 60): (6,), (46, 80): (1, 4), (55, 80): (3,)}),
        (SegmentationPreprocess(window=64), {(64, 64): (0, 1, 2, 3, 4, 5, 6)}),
    ],
)
@pytest.mark.parametrize("world_size", [1, 3])
def test_evaluation_batches(
    tmp_path: Path, preprocess: SegmentationPreprocess, shapes: dict[Any, tuple[int, ...]], world_size: int
) -> None:
    """Each image once, in its own size, with others of its shape only; truth as it is stored."""
    folders(tmp_path, val=7, train=2)
    for number, size in enumerate(SIZES, 2):
        picture(tmp_path / "images" / "val" / f"{number}.png", number - 2, size)
        mask(tmp_path / "masks" / "val" / f"{number}.png", number - 2, size=size)
    samples = open_split(tmp_path, task="segmentation").samples
    assert isinstance(samples, PixelSamples)
    seen: dict[tuple[int, int], list[int]] = {}
    for rank in range(world_size):
        for batch in evaluation_batches(samples, preprocess, batch_size=2, workers=0, rank=rank, world_size=world_size):
            assert len(batch.truths) == len(batch.pixels) <= 2
            for place, index in enumerate(batch.indices):
                seen.setdefault(tuple(batch.pixels.shape[2:]), []).append(index)
                truth, image = labels(index, SIZES[index]), scene(labels(index, SIZES[index]), index)
                np.testing.assert_array_equal(batch.truths[place], truth)
                np.testing.assert_array_equal(batch.pixels[place].numpy(), preprocess(image))
                assert batch.sizes[place] == image.size
    assert {shape: tuple(sorted(indices)) for shape, indices in seen.items()} == shapes


def test_the_split_is_by_name(tmp_path: Path) -> None:
    folders(tmp_path, train=20, val=0)
    data = open_dataset(tmp_path, task="segmentation", val_fraction=0.25)
    assert (len(data.train), len(data.val), len(data.unsplit or ())) == (15, 5, 20)
    assert "15 training and 5 validation images held out, 3 classes, masks" in data.describe()
    assert isinstance(data.val, PixelSamples)
    for index, key in enumerate(data.val.keys):
        assert data.val.mask_keys[index] == key
        np.testing.assert_array_equal(data.val.mask(index), labels(int(Path(key).stem)))
    assert open_split(tmp_path, task="segmentation", holdout=Holdout(0.25, 0)).samples.keys == data.val.keys


def test_classes_in_the_order_of_a_model(data: PixelSamples, tmp_path: Path) -> None:
    moved = data.renumbered(np.array([3, 0, 1]), ("road", "tree", "mud", "sky"))
    table = np.array([3, 0, 1, *[255] * 253], np.uint8)
    np.testing.assert_array_equal(moved.mask(1), table[data.mask(1)])
    assert moved.class_names == moved.classes.names == ("road", "tree", "mud", "sky")
    assert moved.classes.ids == (1, 2, -1, 0)
    pixels = open_split(panoptic(tmp_path / "p"), task="segmentation").samples
    assert isinstance(pixels, PanopticPixels)
    assert pixels.class_names == ("cat", "dog", "sea", "sky")
    turned = pixels.renumbered(np.array([3, 2, 1, 0]), ("sky", "sea", "dog", "cat"))
    table = np.array([3, 2, 1, 0, *[255] * 252], np.uint8)
    np.testing.assert_array_equal(turned.subset(np.array([2])).mask(0), table[pixels.mask(2)])


def test_panoptic_maps_are_for_segmenters_too(tmp_path: Path) -> None:
    """What was trained on them is evaluated on them."""
    pixels = open_split(panoptic(tmp_path), task="segmentation").samples
    assert isinstance(pixels, PanopticPixels)
    card = SegmentationCard(
        architecture="resnest",
        spec=Spec(),
        class_names=pixels.class_names[::-1],
        preprocess=SegmentationPreprocess(),
        segmenter=SegmenterSpec(),
        category_ids=pixels.classes.ids[::-1],
    )
    turned = pixels.aligned(card, "here")
    assert isinstance(turned, PanopticPixels)
    assert turned.classes == card.classes
    table = np.array([3, 2, 1, 0, *[255] * 252], np.uint8)
    np.testing.assert_array_equal(turned.mask(0), table[pixels.mask(0)])


def test_panoptic_maps_as_masks(tmp_path: Path) -> None:
    samples = open_split(panoptic(tmp_path), task="segmentation").samples
    assert isinstance(samples, PanopticPixels)
    assert samples.classes.colours[0] == (250, 0, 0)
    seen = samples.mask(0)
    assert seen[0, 0] == 3  # sky
    assert seen[20, 0] == 2  # sea
    assert seen[10, 5] == seen[8, 21] == 0  # a cat, and a crowd of them
    assert seen[5, 31] == 1
    assert (seen[25:] == 255).all()
    assert samples.sizes().tolist() == [[40, 30]] * 3
    image, _ = samples.pair(1)
    assert image.size == (40, 30)

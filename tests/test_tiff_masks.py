"""Masks in TIFF files, and training crops of large TIFF pictures: exactly what whole pictures and PNG masks give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from masked import COLOURED, COLOURS, folders, labels
from resnest.data.settings import DataSettings
from resnest.data.sources import open_dataset
from resnest.runtime.decode import BadImage
from resnest.segmentation import windows
from resnest.segmentation.data import PixelSamples
from resnest.segmentation.recipes.settings import SegmentationSettings
from resnest.segmentation.transforms import PixelTransform, SegmentationDataset
from resnest.segmentation.windows import open_pair

tifffile = pytest.importorskip("tifffile")
NUMBERS = np.where(labels() == 255, 0, labels()).astype(np.uint8)


def with_tifffile(pixels: Any, **how: Any) -> Callable[[Path], None]:
    return lambda path: tifffile.imwrite(path, pixels, **how)


def with_pillow(image: Image.Image, **how: Any) -> Callable[[Path], None]:
    return lambda path: image.save(path, **how)


def with_palette() -> Image.Image:
    image = Image.fromarray(NUMBERS, "P")
    image.putpalette([part for colour in COLOURS for part in colour])
    return image


GREY = {"photometric": "minisblack"}
WRITTEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "8 bits": (with_tifffile(NUMBERS, **GREY), ""),
    "white is zero": (with_tifffile(NUMBERS, photometric="miniswhite"), ""),
    "16 bits, tiles": (with_tifffile(NUMBERS.astype(np.uint16), compression="zlib", tile=(16, 16), **GREY), ""),
    "32 bits with a sign": (with_tifffile(NUMBERS.astype(np.int32), **GREY), ""),
    "64 bits": (with_tifffile(NUMBERS.astype(np.uint64), **GREY), ""),
    "lying on a side": (with_tifffile(NUMBERS, extratags=[(274, "H", 1, 6, True)], **GREY), ""),  # values as stored
    "LZW": (with_pillow(Image.fromarray(NUMBERS), compression="tiff_lzw"), ""),
    "a palette": (with_pillow(with_palette()), ""),
    "colours": (with_tifffile(np.array(COLOURS, np.uint8)[NUMBERS], photometric="rgb"), ""),
    "float": (with_tifffile(NUMBERS.astype(np.float32), **GREY), "has float values: save class numbers as integers"),
    "JPEG": (with_pillow(Image.fromarray(NUMBERS), compression="jpeg"), "compressed as JPEG, which is lossy"),
    "large numbers": (with_tifffile(NUMBERS.astype(np.int32) + 2**24, **GREY), "number the classes from 0"),
    "bands": (with_tifffile(np.dstack([NUMBERS] * 2), planarconfig="contig", **GREY), "has 2 bands of uint8: a mask"),
    "other numbers": (with_tifffile(NUMBERS + np.uint8(7), **GREY), "which no class has"),
    "no TIFF": (lambda path: path.write_bytes(b"II*\0 nothing"), "damaged"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_masks_are_read_exactly_or_refused(name: str, tmp_path: Path) -> None:
    write, refused = WRITTEN[name]
    folders(tmp_path, classes=COLOURED)
    (tmp_path / "masks" / "train" / "0.png").unlink()
    write(tmp_path / "masks" / "train" / "0.tif")
    train = open_dataset(tmp_path, task="segmentation").train
    assert isinstance(train, PixelSamples)
    assert train.mask_keys[0] == "0.tif"
    if refused:
        with pytest.raises(BadImage, match=rf"0.png: its mask 0.tif: .*{refused}"):
            train.mask(0)
    else:
        np.testing.assert_array_equal(train.mask(0), NUMBERS)
        assert train.size(0) == NUMBERS.shape[::-1]


def test_a_tiff_copy_of_a_mask_is_passed_over(tmp_path: Path) -> None:
    folders(tmp_path, classes=COLOURED)
    tifffile.imwrite(tmp_path / "masks" / "train" / "0.tif", NUMBERS, **GREY)
    train = open_dataset(tmp_path, task="segmentation").train
    assert isinstance(train, PixelSamples)
    assert train.mask_keys[0] == "0.png"


# --- Crops ---


@pytest.mark.parametrize("seed", range(20))
def test_a_crop_is_that_of_the_resized_picture(seed: int) -> None:
    """Enlarged and reduced, at the borders; the order of Pillow's two passes rounds otherwise, by one."""
    draw = np.random.default_rng(seed)
    width, height = (int(side) for side in draw.integers(40, 1500, 2))
    image = Image.fromarray(draw.integers(0, 256, (height, width, 3), np.uint8))
    torch.manual_seed(seed)
    transform = PixelTransform(DataSettings(), SegmentationSettings(base=500, crop=96, scale=(0.2, 3.0)))
    for _ in range(20):
        cut = transform.draw(*image.size)
        window = cut.window(image.size)
        found = cut.within(window)(image.crop(window), Image.Resampling.BILINEAR)
        wanted = cut(image, Image.Resampling.BILINEAR)
        assert np.abs(np.asarray(found).astype(int) - np.asarray(wanted)).max() <= 1
        assert window[2] - window[0] <= 2 + (cut.box[2] - cut.box[0]) + 2 * max(
            1, (cut.box[2] - cut.box[0]) / cut.width
        )


def large(root: Path, kind: str, mask_suffix: str) -> PixelSamples:
    """Two large pictures as TIFF in tiles, and one as PNG, with masks."""
    draw = np.random.default_rng(0)
    for part in ("images", "masks"):
        for split in ("train", "val"):
            (root / part / split).mkdir(parents=True)
    (root / "classes.txt").write_text("a\nb\nc\n")
    for split, count in (("train", 3), ("val", 1)):
        for number in range(count):
            pixels = draw.integers(0, 200, (420, 610, 3)).astype(kind)
            mask = np.repeat(np.repeat(draw.integers(0, 3, (42, 61), np.uint8), 10, 0), 10, 1)
            if number == 2:
                Image.fromarray(pixels.astype(np.uint8)).save(root / "images" / split / "2.png")
            else:
                tifffile.imwrite(
                    root / "images" / split / f"{number}.tif",
                    pixels,
                    photometric="rgb",
                    tile=(64, 64),
                    compression="zlib",
                )
            if mask_suffix == ".tif":
                tifffile.imwrite(root / "masks" / split / f"{number}.tif", mask, tile=(64, 64), **GREY)
            else:
                Image.fromarray(mask).save(root / "masks" / split / f"{number}{mask_suffix}")
    samples = open_dataset(root, task="segmentation").train
    assert isinstance(samples, PixelSamples)
    return samples


@pytest.mark.parametrize("mask_suffix", [".tif", ".png"])
def test_training_crops_are_those_of_whole_pictures(
    mask_suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = large(tmp_path, "uint8", mask_suffix)
    settings = SegmentationSettings(base=400, crop=96, scale=(0.4, 3.0), flip_vertical=True)
    data = DataSettings(jitter=0.3)
    whole = PixelTransform(data, settings)
    monkeypatch.setattr(windows, "LARGE", 1)
    dataset = SegmentationDataset(samples, data, settings, seed=0)
    for index, windowed in enumerate((True, True, False)):
        pair = open_pair(samples, index)
        assert (pair is not None) == windowed
        if pair:
            pair.close()
        for seed in range(12):
            torch.manual_seed(seed)
            image, mask = dataset.augment(index, 0)
            torch.manual_seed(seed)
            wanted, truth = whole(*samples.pair(index))
            assert torch.equal(image, wanted)
            assert torch.equal(mask, truth)


def test_less_of_a_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = large(tmp_path, "uint8", ".tif")
    monkeypatch.setattr(windows, "LARGE", 1)
    pair = open_pair(samples, 0)
    assert pair
    pair.read((70, 70, 100, 100))
    assert len(pair.picture.cache) == 1  # of 70 tiles
    pair.close()


def test_a_mask_of_another_size_and_an_unknown_value_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = large(tmp_path, "uint8", ".tif")
    monkeypatch.setattr(windows, "LARGE", 1)
    mask = np.zeros((420, 610), np.uint8)
    mask[5, 5] = 9
    tifffile.imwrite(tmp_path / "masks" / "train" / "0.tif", mask, tile=(64, 64), **GREY)
    tifffile.imwrite(tmp_path / "masks" / "train" / "1.tif", np.zeros((419, 610), np.uint8), **GREY)
    pair = open_pair(samples, 0)
    assert pair
    with pytest.raises(BadImage, match=r"0.tif: its mask 0.tif: has the value 9, which no class has"):
        pair.read((0, 0, 20, 20))
    pair.close()
    assert open_pair(samples, 1) is None
    with pytest.raises(BadImage, match=r"is annotated as 610 x 419 by its mask 1.tif"):
        samples.pair(1)

"""The doctor's near duplicates: what is found, what is not, and pictures of it on the page."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from conftest import Outcome, shared_data
from resnest.data.checks import check_dataset
from resnest.data.near_duplicates import Prints, find_pairs


def _scene(seed: int, size: tuple[int, int] = (96, 72)) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def _jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=30)
    return Image.open(buffer).convert("RGB")


ALIKE: dict[str, Callable[[Image.Image], Image.Image]] = {
    "compression": _jpeg,
    "size": lambda image: image.resize((60, 45)),
    "brightness": lambda image: ImageEnhance.Brightness(image).enhance(0.7),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "a little of the edge": lambda image: image.crop((2, 1, 94, 71)),
}


@pytest.mark.parametrize("change", ALIKE.values(), ids=ALIKE)
def test_alike(change: Callable[[Image.Image], Image.Image]) -> None:
    train, val = Prints(), Prints()
    for seed in range(20):
        train.add(seed, _scene(seed))
    val.add(0, change(_scene(7)))
    assert [(pair.train, pair.val) for pair in find_pairs(train, val)] == [(7, 0)]


OTHERS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "another scene": lambda image: _scene(100),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "negative": lambda image: Image.fromarray(255 - np.asarray(image)),
    "black": lambda image: Image.new("RGB", image.size),
}


@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS)
def test_not_alike(change: Callable[[Image.Image], Image.Image]) -> None:
    train, val = Prints(), Prints()
    train.add(0, _scene(7))
    val.add(0, change(_scene(7)))
    assert not find_pairs(train, val)


def test_nearly_uniform_pictures_are_set_aside() -> None:
    prints = Prints()
    rng = np.random.default_rng(0)
    for index in range(3):  # black frames with the noise of a sensor
        prints.add(index, Image.fromarray(rng.integers(0, 12, (72, 96, 3), np.uint8)))
    assert (prints.uniform, prints.indices) == ([0, 1, 2], [])
    assert not find_pairs(prints, prints)


def _data(folder: Path, *, pairs: int) -> Path:
    """Twenty training and ten validation pictures, some of which are training pictures once more."""
    for part, count in (("train", 20), ("val", 10)):
        for number in range(count):
            again = part == "val" and number < pairs
            image = _jpeg(_scene(number)) if again else _scene(number + (1000 if part == "val" else 0))
            path = folder / part / ("cat", "dog")[number % 2] / f"{part}{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
    return folder


def test_they_are_named_and_shown(tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    data, page = _data(tmp_path / "set", pairs=3), tmp_path / "data.html"
    told = cli("doctor", "--data", data, "--html", page, "--json")
    assert told.code == 0
    report = json.loads(told.out)
    [note] = [note for note in report["notes"] if "almost like" in note]
    assert "3 validation images look almost like a training image, such as" in note
    assert "figures of these (30.0%) say little about new scenes or patients; data.group keeps" in note
    found = {(pair["train"].rsplit("/", 1)[-1], pair["val"].rsplit("/", 1)[-1]) for pair in report["near_duplicates"]}
    assert found == {(f"train{k}.png", f"val{k}.png") for k in range(3)}
    text = page.read_text()
    assert "Near duplicates" in text
    assert text.count("training: ") >= 3


def test_none(tmp_path: Path) -> None:
    report = check_dataset(_data(tmp_path / "set", pairs=0))
    assert not report.near
    assert not report.problems


def test_equal_pictures_are_named_once(tmp_path: Path) -> None:
    data = _data(tmp_path / "set", pairs=0)
    (data / "train" / "cat" / "train0.png").replace(data / "val" / "cat" / "val0.png")
    _scene(1000).save(data / "train" / "cat" / "train0.png")
    _scene(0).save(data / "train" / "cat" / "same.png")
    report = check_dataset(data)
    assert len(report.problems) == 1
    assert "is the same picture as" in report.problems[0]
    assert not report.near


def test_groups_keep_them_in_one_part(tmp_path: Path) -> None:
    """What looks alike because it is of one scene, in a random split and in one by scenes."""
    for scene in range(24):
        for frame in range(5):
            path = tmp_path / "set" / ("cat", "dog")[scene % 2] / f"s{scene}" / f"{frame}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            ImageEnhance.Brightness(_scene(scene)).enhance(1 - 0.05 * frame).save(path)
    assert len(check_dataset(tmp_path / "set").near) > 10
    by_scene = check_dataset(tmp_path / "set", group="folder:1")
    assert not by_scene.near
    assert "groups by folder 1" in by_scene.description


@pytest.mark.data
@pytest.mark.parametrize(("name", "task", "count"), [("bccd", "detection", 1), ("camvid", "segmentation", 0)])
def test_real_data(name: str, task: str, count: int) -> None:
    assert len(check_dataset(shared_data() / name, task=task).near) == count

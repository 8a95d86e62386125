"""YOLO's data.yaml, lists and label files as people have them: Windows, other folders, gaps, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from conftest import Outcome
from resnest.data.sources import Splits, open_dataset
from resnest.detection.data import DetectionSamples
from resnest.errors import ResnestError

YAML = "train: images/train\nval: images/val\nnames: [cat, dog]\n"
LISTS = "train: train.txt\nval: images/val\nnames: [cat, dog]\n"
BOX = "1 0.5 0.5 0.5 0.25\n"
BOM = b"\xef\xbb\xbf"


def write(root: Path, yaml: str | bytes | None = YAML, *, labels: str | bytes = BOX, listed: str | bytes = "") -> Path:
    """Two pictures of 40 x 20 in each part; `labels` are of train/0, `listed` is train.txt."""
    for part in ("train", "val"):
        for number in range(2):
            picture, label = root / "images" / part / f"{number}.png", root / "labels" / part / f"{number}.txt"
            for file in (picture, label):
                file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 20), (number, 9, len(part))).save(picture)
            label.write_text(BOX)
    for name, content in (("data.yaml", yaml), ("labels/train/0.txt", labels), ("train.txt", listed)):
        if content is not None:
            (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def read(path: Path) -> tuple[Splits, DetectionSamples]:
    splits = open_dataset(path)
    assert isinstance(splits.train, DetectionSamples)
    return splits, splits.train


# --- what is read ---

SETS: dict[str, dict[str, Any]] = {
    "names as a map": {"yaml": "train: images/train\nval: images/val\nnames:\n  0: cat\n  1: dog\n"},
    "a list of folders": {"yaml": "train: [images/train]\nval:\n  - images/val\nnames: [cat, dog]\n"},
    "yaml of Windows": {
        "yaml": BOM + b"path: .\\\r\ntrain: images\\train\r\nval: images\\val\r\nnames:\r\n  0: cat\r\n  1: dog\r\n"
    },
    "labels of Windows": {"labels": BOM + b"1 0.5 0.5 0.5 0.25\r\n\r\n"},
    "labels of an old Mac": {"labels": b"1 0.5 0.5 0.5 0.25\r"},
    "a list": {"yaml": LISTS, "listed": "./images/train/0.png\nimages/train/1.png\n"},
    "a list of Windows": {"yaml": LISTS, "listed": BOM + b"images\\train\\0.png\r\n.\\images\\train\\1.png\r\n"},
    "a list of another computer": {
        "yaml": LISTS,
        "listed": "D:\\me\\images\\train\\0.png\nD:\\me\\images\\train\\1.png",
    },
    "a list and a folder": {
        "yaml": "train: [train.txt, images/train]\nval: images/val\nnames: [cat, dog]\n",
        "listed": "./images/train/0.png",
    },
    "a path of another computer": {"yaml": "path: /content/pets\n" + YAML},
    "nothing as test": {"yaml": YAML + "test: null\n"},
    "nothing as path": {"yaml": "path: ~\n" + YAML},
    "numbers from 1": {"yaml": "train: images/train\nval: images/val\nnames: {0: cat, 1: dog, 7: hen}\n"},
}


@pytest.mark.parametrize("case", SETS)
def test_one_set_in_many_forms(case: str, tmp_path: Path) -> None:
    _, train = read(write(tmp_path / "pets", **SETS[case]))
    assert len(train) == 2
    for objects in train.objects:
        assert objects.boxes.tolist() == [[10, 7.5, 30, 12.5]]
        assert [train.class_names[label] for label in objects.labels] == ["dog"]


def test_path_is_relative_to_the_yaml_or_to_where_the_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ultralytics reads the latter; what is beside the yaml comes first here, and a note says so where both are."""
    write(tmp_path / "datasets" / "pets", None)
    config = tmp_path / "settings" / "deep" / "pets.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("path: datasets/pets\n" + YAML)
    monkeypatch.chdir(tmp_path)
    splits, train = read(Path("settings/deep/pets.yaml"))
    assert len(train) == 2
    assert "is read, and not" not in splits.describe()
    write(config.parent / "datasets" / "pets", None, labels="")
    splits, train = read(config)
    assert [len(objects.ids) for objects in train.objects] == [0, 1]
    beside, here = (folder / "datasets/pets/images/train" for folder in (config.parent, tmp_path))
    assert f"train: {beside} is read, and not {here}" in splits.describe()


def test_listed_images_that_are_not_there_are_counted(tmp_path: Path) -> None:
    """The first one is no worse than another."""
    for gone, name in (("first", "{}/gone.png\n{}/0.png\n"), ("last", "{}/0.png\n{}/gone.png\n")):
        listed = name.replace("{}", "images/train")
        splits, train = read(write(tmp_path / gone, LISTS, listed=listed))
        assert len(train) == 1
        assert "1 image that cannot be read is left out" in splits.describe()


# --- what is refused ---

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "path that is a list": ({"yaml": "path: [a, b]\n" + YAML}, "data.yaml: path is not a path"),
    "path that is a map": ({"yaml": "path: {a: b}\n" + YAML}, "data.yaml: path is not a path"),
    "part that is a map": (
        {"yaml": "train: {a: b}\nval: images/val\nnames: [a, b]\n"}, "train is neither a path nor a list of paths",
    ),
    "a part in a list": ({"yaml": "train: [[a]]\nval: x\nnames: [a]\n"}, "train is neither a path nor a list of paths"),
    "a part that is not there": (
        {"yaml": "path: gone\ntrain: images/training\nval: images/val\nnames: [a, b]\n"},
        "train: images/training is not there, looked for in .*pets",
    ),
    "a name twice": (
        {"yaml": "train: images/train\nval: images/val\nnames:\n  0: cat\n  0: dog\n  1: hen\n"},
        "data.yaml cannot be read as yaml .key '0' comes twice",
    ),
    "numbers with gaps": (
        {"yaml": "train: images/train\nval: images/val\nnames: {0: cat, 2: dog}\n"},
        "0.txt, line 1: class 1, but .*data.yaml has 2 classes: 0, 2$",
    ),
    "a list of nothing that is there": (
        {"yaml": LISTS, "listed": "a/1.png\na/2.png\n"}, "train.txt: none of its images is there, such as a/1.png",
    ),
    "an empty list": ({"yaml": LISTS, "listed": "\r\n"}, "data.yaml: there is no image in .*train.txt"),
    "four numbers": ({"labels": b"1 .5 .5 .2 .2\r\n1 .5 .5 .2\r\n"}, "0.txt, line 2 has 4 numbers"),
    "a class below 0": ({"labels": "-1 .5 .5 .2 .2"}, "line 1: .* is not a class number and finite fractions"),
    "commas": ({"labels": "1,.5,.5,.2,.2"}, "line 1: '1,.5,.5,.2,.2' is not a class number and fractions"),
    "UTF-16": ({"labels": BOX.encode("utf-16")}, "0.txt cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_add_up_is_one_line(case: str, tmp_path: Path) -> None:
    settings, message = REFUSED[case]
    with pytest.raises(ResnestError, match=message) as caught:
        open_dataset(write(tmp_path / "pets", **settings))
    assert "\n" not in str(caught.value)


def test_the_command_line_says_it(tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    data, out = write(tmp_path / "pets", labels="2 .5 .5 .2 .2"), tmp_path / "run"
    done = cli("train", "detect_small", "--data", data, "--out", out)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert "labels/train/0.txt, line 1: class 2" in done.err
    assert not out.exists()

"""Parts of folders with masks by words in any case, and the test part."""

from __future__ import annotations

from pathlib import Path

import pytest

from resnest.data.sources import open_dataset, open_split
from streets import NAMES, write_streets


@pytest.mark.parametrize(
    ("train", "val"),
    [("images/Train masks/Train", "images/VAL masks/VAL"), ("Images/train Masks/train", "Images/val Masks/val"),
     ("Train/Images Train/Masks", "Valid/Images Valid/Masks"), ("TRAIN TRAIN_masks", "Val Val_Masks"),
     ("images/training masks/training", "images/Validation masks/Validation")],
)  # fmt: skip
def test_names_in_any_case(train: str, val: str, tmp_path: Path) -> None:
    plain = write_streets(tmp_path / "plain", train=3, val=2, size=(48, 32))
    root = tmp_path / "streets"
    for part, names in (("train", train), ("val", val)):
        for kind, name in zip(("images", "masks"), names.split(), strict=True):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (plain / kind / part).rename(root / name)
    (plain / "classes.json").rename(root / "classes.json")
    splits = open_dataset(root)
    assert (len(splits.train), len(splits.val), splits.train.class_names) == (3, 2, NAMES)


def test_the_test_part_can_be_evaluated(tmp_path: Path) -> None:
    root = write_streets(tmp_path / "streets", train=3, val=2, size=(48, 32))
    more = write_streets(tmp_path / "more", train=1, val=1, size=(48, 32))
    for kind in ("images", "masks"):
        (more / kind / "train").rename(root / kind / "Test")
    assert len(open_split(root, "val", task="segmentation").samples) == 2
    assert len(open_split(root, "test", task="segmentation").samples) == 1


def test_a_test_part_alone_is_the_validation_part_which_is_said(tmp_path: Path) -> None:
    root = write_streets(tmp_path / "streets", train=3, val=2, size=(48, 32))
    for kind in ("images", "masks"):
        (root / kind / "val").rename(root / kind / "test")
    assert "(test is the validation part)" in open_dataset(root).describe()
    assert len(open_split(root, "test", task="segmentation").samples) == 2

"""nnU-Net's folders of pictures: named as its documentation says, or refused with what they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resnest.data.sources import open_dataset, open_split
from resnest.errors import ResnestError

LABELS = {"background": 0, "road": 1, "roof": 2}


def raw(root: Path, *parts: str, labels: Any = LABELS, suffix: str = ".png", channels: int = 1) -> Path:
    for part in parts:
        for kind in ("images", "labels"):
            (root / f"{kind}{part}").mkdir(parents=True)
        for case in range(6):
            mask = np.zeros((8, 12), np.uint8)
            mask[:3], mask[:, case] = 1, 2
            for channel in range(channels):
                Image.fromarray(mask * 90 + case).save(root / f"images{part}" / f"case_{case}_{channel:04}{suffix}")
            Image.fromarray(mask).save(root / f"labels{part}" / f"case_{case}{suffix}")
    if labels is not None:
        (root / "dataset.json").write_text(json.dumps({"channel_names": {"0": "R"}, "labels": labels}))
    return root


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (LABELS, tuple(LABELS)),
        ({"0": "background", "1": "road", "2": "roof"}, tuple(LABELS)),
        ({"background": 0, "roof": 2, "ignore": 1}, ("background", "roof")),
    ],
)
def test_labels_of_both_versions(labels: Any, names: tuple[str, ...], tmp_path: Path) -> None:
    splits = open_dataset(raw(tmp_path, "Tr", labels=labels), task="segmentation")
    assert splits.train.class_names == names
    assert len(splits.train) + len(splits.val) == 6
    samples = open_split(tmp_path, "all", task="segmentation").samples
    assert samples.keys[0] == "case_0_0000.png"
    counted = {int(value) for value in np.unique(samples.mask(0))} - {255}
    assert counted == set(range(len(names)))


def test_the_test_part_and_no_description(tmp_path: Path) -> None:
    raw(tmp_path, "Tr", "Ts", labels=None)
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    splits = open_dataset(tmp_path, task="segmentation")
    assert (len(splits.train), len(splits.val)) == (6, 6)
    assert "the test part is the validation part" in splits.describe()


def test_pictures_called_as_their_masks(tmp_path: Path) -> None:
    raw(tmp_path, "Tr")
    for case in range(6):
        (tmp_path / "imagesTr" / f"case_{case}_0000.png").rename(tmp_path / "imagesTr" / f"case_{case:04}.png")
        (tmp_path / "labelsTr" / f"case_{case}.png").rename(tmp_path / "labelsTr" / f"case_{case:04}.png")
    (tmp_path / "imagesTr" / "case_0000.png").rename(tmp_path / "imagesTr" / "case_0009.png")
    (tmp_path / "labelsTr" / "case_0000.png").rename(tmp_path / "labelsTr" / "case_0009.png")
    assert len(open_split(tmp_path, "all", task="segmentation").samples) == 6


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            {"suffix": ".jp2"},
            "nnU-Net data with files such as case_0_0000.jp2: pictures and masks are read as PNG",
        ),
        ({"channels": 3}, "channels in files of their own, such as case_0_0001.png: save colour pictures"),
        ({"labels": {"background": 0, "all": [1, 2]}}, "'all' is a region of several values: name each value"),
        ({"labels": 3}, "does not say which classes its masks have, as `labels`"),
        ({"labels": {"background": 0, "road": 0}}, "have the same value: 0"),
    ],
)
def test_one_line(how: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ResnestError, match=message):
        open_dataset(raw(tmp_path, "Tr", **how), task="segmentation")

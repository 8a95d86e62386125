"""Masks whose values can be read in two ways, and masks of which nothing counts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from conftest import Outcome
from resnest.data.sources import open_dataset, open_split
from resnest.errors import ResnestError
from streets import IGNORED, NAMES, write_streets

Masks = NDArray[np.uint8]
Change = Callable[[Masks], Any]
SIZE = (48, 32)


def streets(root: Path, change: Change, parts: tuple[str, ...] = ("train", "val"), names: Any = None) -> Path:
    write_streets(root, train=3, val=2, size=SIZE)
    for path in (file for part in parts for file in sorted((root / "masks" / part).iterdir())):
        Image.fromarray(np.asarray(change(np.asarray(Image.open(path)))).astype(np.uint8)).save(path)
    if names is not None:
        (root / "classes.json").unlink()
        (root / ("classes.txt" if isinstance(names, str) else "classes.json")).write_text(
            names if isinstance(names, str) else json.dumps(names)
        )
    return root


def from_one(mask: Masks) -> Any:
    """Counted from 1; the last class is in no mask."""
    return np.where(mask == IGNORED, IGNORED, np.where(mask == 3, 0, mask) + 1)


def all_from_one(mask: Masks) -> Any:
    return np.where(mask == IGNORED, IGNORED, mask + 1)


def without_sky(mask: Masks) -> Any:
    return np.where(mask == 0, 1, mask)


TEXT = "\n".join(NAMES)
REFUSED = "all 5 masks have the values 1, 2, 3 and none has 0, which is 'sky' by the list of classes. Are they"


@pytest.mark.parametrize("names", [TEXT, list(NAMES), [{"name": name} for name in NAMES]])
@pytest.mark.parametrize("change", [from_one, without_sky])
def test_a_list_without_values_does_not_tell_where_masks_count_from(change: Change, names: Any, tmp_path: Path) -> None:
    with pytest.raises(ResnestError, match=REFUSED):
        open_dataset(streets(tmp_path, change, names=names))


@pytest.mark.parametrize("names", [TEXT, None])
def test_a_number_behind_the_last_class_and_no_first_is_refused(names: Any, tmp_path: Path) -> None:
    with pytest.raises(ResnestError, match=r"all 5 masks have the values 1, 2, 3, 4 and none has 0"):
        open_dataset(streets(tmp_path, all_from_one, names=names))


@pytest.mark.parametrize(
    ("change", "names", "classes"),
    [
        (from_one, "\n".join(f"{value} {name}" for value, name in enumerate(NAMES, 1)), NAMES),
        (from_one, "void\n" + TEXT, NAMES),  # 0 does not count
        (lambda mask: np.where(mask == 3, 0, from_one(mask)), "nothing\n" + TEXT, ("nothing", *NAMES)),
    ],
)
def test_a_list_that_says_where_masks_count_from(
    change: Change, names: str, classes: tuple[str, ...], tmp_path: Path
) -> None:
    splits = open_dataset(streets(tmp_path, change, names=names))
    assert splits.train.class_names == classes
    assert "none has 0" not in splits.describe()


def test_values_in_the_list_are_believed_and_the_doctor_asks(tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    root = streets(tmp_path, from_one)  # its classes.json has values
    assert "(all 5 masks have the values 1, 2, 3 and none has 0" in open_dataset(root).describe()
    outcome = cli("doctor", "--data", root)
    assert outcome.code == 2
    assert "problem: all 5 masks have the values 1, 2, 3 and none has 0, which is 'sky'" in outcome.out
    assert "counted from 1" in outcome.out


@pytest.mark.parametrize(("change", "parts"), [(without_sky, ("train",)), (without_sky, ("val",))])
def test_the_first_class_in_one_part_tells(change: Change, parts: tuple[str, ...], tmp_path: Path) -> None:
    root = streets(tmp_path, change, parts, names=TEXT)
    assert "none has 0" not in open_dataset(root).describe()
    told = "none has 0" in open_split(root, "val", task="segmentation").describe
    assert told == ("val" in parts)


def test_a_first_class_that_few_masks_have_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = streets(tmp_path, without_sky, names=TEXT)
    write_streets(tmp_path / "other", train=3, val=1, size=SIZE)
    (tmp_path / "other" / "masks" / "train" / "02.png").replace(root / "masks" / "train" / "02.png")
    monkeypatch.setattr("resnest.segmentation.survey.SAMPLE", 1)  # the first of each part
    assert open_dataset(root).train.class_names == NAMES


def _nothing(mask: Masks) -> Any:
    return np.full_like(mask, IGNORED)


def _void(mask: Masks) -> Any:
    return np.full_like(mask, 4)


LISTED = [{"name": name} for name in NAMES] + [{"name": "other", "ignore": True}]


@pytest.mark.parametrize("part", ["train", "val"])
@pytest.mark.parametrize(("change", "names"), [(_nothing, None), (_void, LISTED)])
def test_a_part_of_which_nothing_counts_is_refused(part: str, change: Change, names: Any, tmp_path: Path) -> None:
    title = {"train": "training", "val": "validation"}[part]
    with pytest.raises(ResnestError, match=f"no pixel of any {title} mask counts"):
        open_dataset(streets(tmp_path, change, (part,), names=names))


def test_one_pixel_that_counts_is_enough(tmp_path: Path) -> None:
    def corner(mask: Masks) -> Any:
        changed = np.full_like(mask, IGNORED)
        changed[0, 0] = 1
        return changed

    assert len(open_dataset(streets(tmp_path, corner, ("val",))).val) == 2


def _channels(mask: Masks) -> Any:
    return np.stack([mask] * 3, -1)


def _with_alpha(mask: Masks) -> Any:
    return np.stack([mask] * 3 + [np.full_like(mask, 255)], -1)


@pytest.mark.parametrize("change", [_channels, _with_alpha])
def test_three_equal_channels_are_values_where_the_list_has_no_colours(change: Change, tmp_path: Path) -> None:
    plain = open_dataset(streets(tmp_path / "plain", lambda mask: mask, names=TEXT))
    splits = open_dataset(streets(tmp_path / "three", change, names=TEXT))
    for place in range(3):
        np.testing.assert_array_equal(splits.train.mask(place), plain.train.mask(place))  # type: ignore[attr-defined]
    assert "3 of 3 masks looked at have three equal channels, which are the values" in splits.describe()


def test_a_grey_among_colours_is_a_colour(tmp_path: Path) -> None:
    colours = np.array([(0, 0, 0), (90, 0, 0), (0, 90, 0), (0, 0, 90)], np.uint8)
    root = streets(tmp_path, lambda mask: colours[np.where(mask > 3, 0, mask)], names=TEXT)
    Image.new("RGB", SIZE).save(root / "masks" / "train" / "00.png")
    with pytest.raises(ResnestError, match="is in colours, and the class list has none"):
        open_dataset(root)
    (root / "classes.txt").write_text(
        "\n".join(f"{name} {r} {g} {b}" for name, (r, g, b) in zip(NAMES, colours, strict=True))
    )
    samples = open_dataset(root).train
    assert set(np.unique(samples.mask(0))) == {0}  # type: ignore[attr-defined]


def test_three_equal_channels_without_a_list(tmp_path: Path) -> None:
    root = streets(tmp_path / "streets", _channels)
    for kind, name in (("images", "JPEGImages"), ("masks", "SegmentationClass")):
        (root / kind / "train").rename(tmp_path / name)
    splits = open_dataset(tmp_path)
    assert splits.train.class_names == ("0", "1", "2", "3")
    assert "three equal channels" in splits.describe()


def test_numbers_and_equal_channels_may_be_mixed(tmp_path: Path) -> None:
    root = streets(tmp_path, lambda mask: mask, names=TEXT)
    path = root / "masks" / "train" / "00.png"
    mask = np.asarray(Image.open(path))
    Image.fromarray(_channels(mask)).save(path)
    np.testing.assert_array_equal(open_dataset(root).train.mask(0), mask)  # type: ignore[attr-defined]


def test_nothing_is_said_of_pixels_where_no_mask_can_be_used(tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    root = streets(tmp_path, lambda mask: mask)
    for path in (root / "masks").rglob("*.png"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    outcome = cli("doctor", "--data", root)
    assert outcome.code == 2
    assert "note: no training mask can be used, so nothing is said of their pixels" in outcome.out
    assert "pixels by class" not in outcome.out
    assert "0.0%" not in outcome.out


@pytest.mark.parametrize(
    ("names", "hint"),
    [
        (TEXT, "if they are 1 to 4, begin its lines with them, and add `0 ignore` if 0 is no class"),
        (
            "\n".join(f"{value} {name}" for value, name in enumerate(NAMES, 1)),
            "a line `0 ignore` in the class list leaves",
        ),
    ],
)
def test_a_background_without_a_name(names: str, hint: str, tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    """Each line says the next step; with both the masks are read."""
    root = streets(tmp_path, lambda mask: np.where(mask == IGNORED, 0, mask + 1), names=names)
    assert hint in cli("doctor", "--data", root).out
    told = "\n".join(["0 ignore", *(f"{value} {name}" for value, name in enumerate(NAMES, 1))])
    (root / "classes.txt").write_text(told)
    assert cli("doctor", "--data", root).code == 0
    assert open_dataset(root).train.class_names == NAMES

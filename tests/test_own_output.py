"""Our own output among the pictures: run directories and drawn pictures are no classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import standins
from conftest import Outcome
from resnest.data.listing import list_images
from resnest.data.sources import open_dataset
from resnest.files import OUTPUT_MARK, RUN_FILES, is_output, mark_output

Cli = Callable[..., Outcome]


def photos(root: Path, *parts: str) -> Path:
    for part in parts or ("",):
        for label, colour in (("cat", 30), ("dog", 200)):
            for number in range(6):
                path = root / part / label / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (16, 12), (colour, number * 9, len(part))).save(path)
    return root


def run_directory(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in RUN_FILES:
        (folder / name).write_text("{}")
    (folder / "examples").mkdir()
    Image.new("RGB", (16, 12)).save(folder / "examples" / "1.png")


def drawn(folder: Path) -> None:
    folder.mkdir(parents=True)
    mark_output(folder)
    Image.new("RGB", (16, 12)).save(folder / "1.jpg")


@pytest.mark.parametrize("parts", [(), ("train", "val")])
@pytest.mark.parametrize(
    ("make", "name", "said"),
    [
        (run_directory, "a", "3 files of a (output of resnest)"),
        (run_directory, "runs/a", "3 files of runs (output of resnest)"),
        (run_directory, "cat/run", "3 files of cat/run (output of resnest)"),
        (drawn, "drawn", "2 files of drawn (output of resnest)"),
        (drawn, "cat/drawn", "2 files of cat/drawn (output of resnest)"),
    ],
)
def test_is_no_class(
    make: Callable[[Path], None], name: str, said: str, parts: tuple[str, ...], tmp_path: Path
) -> None:
    root = photos(tmp_path, *parts)
    make(root / (parts[0] if parts else "") / name)
    splits = open_dataset(root)
    assert splits.train.class_names == ("cat", "dog")
    assert len(splits.train) + len(splits.val) == 12 * len(parts or (1,))
    assert f"ignored: {said}" in splits.describe()


def test_beside_the_parts(tmp_path: Path) -> None:
    root = photos(tmp_path, "train", "val")
    run_directory(root / "runs" / "a")
    drawn(root / "drawn")
    assert open_dataset(root).train.class_names == ("cat", "dog")


def test_a_folder_with_anything_else_is_the_users(tmp_path: Path) -> None:
    root = photos(tmp_path)
    run_directory(root / "both" / "run")
    Image.new("RGB", (16, 12)).save(root / "both" / "mine.png")
    (root / "fox").mkdir()
    Image.new("RGB", (16, 12)).save(root / "fox" / "1.png")
    mark_output(root / "fox")  # not empty: it has the user's pictures
    assert not (root / "fox" / OUTPUT_MARK).exists()
    assert open_dataset(root).train.class_names == ("both", "cat", "dog", "fox")
    (root / "empty").mkdir()
    assert not is_output(root / "empty")


def test_predictions_draw_into_the_pictures_again_and_again(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = photos(tmp_path)
    standins.use(monkeypatch, "classification")
    for _ in range(2):
        outcome = cli("predict", "model", root, "--draw", root / "drawn")
        assert (outcome.code, len(outcome.out.splitlines())) == (0, 12)
    assert open_dataset(root).train.class_names == ("cat", "dog")
    listing = list_images(root / "drawn")  # named itself, it is read
    assert len(listing.images) == 12

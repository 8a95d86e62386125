"""Our own output: run directories and drawn pictures are no classes; only our own files are replaced."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import standins
from conftest import Outcome
from resnest.data.listing import list_images
from resnest.data.sources import open_dataset
from resnest.errors import ResnestError
from resnest.files import OUTPUT_MARK, RUN_FILES, is_output, use_for_output

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
    use_for_output(folder, OUTPUT_MARK)
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
    with pytest.raises(ResnestError, match=r"fox is not empty, and nothing says that resnest wrote 1\.png"):
        use_for_output(root / "fox", OUTPUT_MARK)
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


# --- What is replaced ---

ANNOTATIONS = '{"images": [], "categories": [], "annotations": []}'
LIST = '[{"id": 0, "name": "cat"}]'
# Task, options of `predict`, the user's file, and its content: a picture if it is empty. The file stays as it is
KEPT: dict[str, tuple[str, list[str], str, str]] = {
    "annotations": ("detection", ["--coco", "val.json"], "val.json", ANNOTATIONS),
    "a picture": ("detection", ["--coco", "b.png"], "b.png", ""),
    "a list of objects": ("detection", ["--coco", "val.json"], "val.json", '[{"image_id": 1, "category_id": 1}]'),
    "masks": ("segmentation", ["--masks", "m"], "m/0.png", ""),
    "masks of others": ("segmentation", ["--masks", "m"], "m/sub/9.png", ""),
    "the class list": ("segmentation", ["--masks", "m"], "m/classes.json", LIST),
    "the data set": ("segmentation", ["--masks", "m"], "m/masks/val/9.png", ""),
    "panoptic json": ("panoptic", ["--masks", "m"], "m/panoptic.json", ANNOTATIONS),
    "panoptic maps": ("panoptic", ["--masks", "m"], "m/panoptic/0.png", ""),
    "a drawing": ("classification", ["--draw", "m"], "m/0.jpg", ""),
    "text": ("classification", ["--draw", "m"], "m/notes.txt", "mine"),
}


@pytest.mark.parametrize("case", KEPT)
@pytest.mark.parametrize("before", [False, True], ids=["new", "after predictions"])
def test_files_of_others_are_kept(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, before: bool
) -> None:
    """Also where they took the place of our own."""
    task, options, name, content = KEPT[case]
    monkeypatch.chdir(tmp_path)
    standins.use(monkeypatch, task)
    Path("in").mkdir()
    Image.new("RGB", (32, 24)).save("in/0.png")
    if before:
        assert cli("predict", "model", "in", *options).code == 0
    path = Path(name)
    replaced = path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    if content:
        path.write_text(content)
    else:
        Image.new("RGB", (8, 8)).save(path)
    held = path.read_bytes()
    there = sorted(Path().rglob("*"))
    outcome = cli("predict", "model", "in", *options)
    assert path.read_bytes() == held
    if not before or replaced:
        assert (outcome.code, outcome.out, len(outcome.err.splitlines())) == (2, "", 1)
        assert sorted(Path().rglob("*")) == there
        assert "nothing says that resnest wrote" in outcome.err or "differs from the model's" in outcome.err


# Options that are used twice, and then with another model: the second run replaces the first one's files
AGAIN: dict[str, tuple[str, list[str]]] = {
    "json": ("detection", ["--coco", "o.json"]),
    "results": ("detection", ["--coco", "o.json", "--annotations", "val.json"]),
    "all in a folder": ("detection", ["--coco", "out/o.json", "--draw", "out"]),
    "masks": ("segmentation", ["--masks", "out"]),
    "masks below drawings": ("segmentation", ["--draw", "out", "--masks", "out/masks"]),
    "drawings below masks": ("segmentation", ["--masks", "out", "--draw", "out/drawn"]),
    "masks beside drawings": ("segmentation", ["--masks", "out", "--draw", "out"]),
    "panoptic": ("panoptic", ["--masks", "out", "--draw", "out/panoptic"]),
}


@pytest.mark.parametrize("case", AGAIN)
def test_the_same_command_again(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    task, options = AGAIN[case]
    monkeypatch.chdir(tmp_path)
    standins.use(monkeypatch, task)
    for folder in ("in", "out"):
        Path(folder).mkdir()
    Image.new("RGB", (32, 24)).save("in/0.png")
    image = {"id": 7, "file_name": "0.png", "width": 32, "height": 24}
    Path("val.json").write_text(json.dumps({"images": [image], "categories": [], "annotations": []}))
    for _ in range(3):
        outcome = cli("predict", "model", "in", *options)
        assert outcome.code == 0, outcome.err
    if options[0] == "--coco":  # later drawings join what is ours
        assert cli("predict", "model", "in", *options, "--draw", str(Path(options[1]).parent / "drawn")).code == 0


def test_predicted_masks_are_data(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    standins.use(monkeypatch, "segmentation")
    (tmp_path / "images").mkdir()
    for number in range(4):
        Image.new("RGB", (32, 24), (number, 90, 200)).save(tmp_path / "images" / f"{number}.png")
    assert cli("predict", "model", tmp_path / "images", "--masks", tmp_path / "masks").code == 0
    assert open_dataset(tmp_path, task="segmentation").train.class_names == standins.NAMES


@pytest.mark.parametrize("inside", ["images/val", "images", ".", "masks/val"])
def test_drawings_among_masks_and_boxes(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str) -> None:
    standins.use(monkeypatch, "segmentation")
    for part in ("train", "val"):
        for kind in ("images", "masks", "labels"):
            (tmp_path / kind / part).mkdir(parents=True)
        for number in range(3):
            picture = Image.new("RGB", (32, 24), (number, 90, len(part)))
            picture.save(tmp_path / "images" / part / f"{number}.png")
            picture.getchannel(0).point(lambda _: 1).save(tmp_path / "masks" / part / f"{number}.png")
            (tmp_path / "labels" / part / f"{number}.txt").write_text("0 .5 .5 .5 .5\n")
    (tmp_path / "classes.json").write_text(LIST.replace("]", ', {"id": 1, "name": "dog"}]'))
    (tmp_path / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat, dog]\n")
    folder = tmp_path / inside
    assert cli("predict", "model", tmp_path / "images", "--draw", folder / "drawn").code == 0
    for task in ("segmentation", "detection"):
        splits = open_dataset(tmp_path, task=task)
        assert (len(splits.train), len(splits.val)) == (3, 3), task


def test_the_page_is_named_and_replaces_pages(cli: Cli, tmp_path: Path) -> None:
    root, page = photos(tmp_path / "data"), tmp_path / "page.html"
    for form, stream in ([], "out"), (["--json"], "err"):
        outcome = cli("doctor", "--data", root, "--html", page, *form)
        assert (outcome.code, f"page: {page}" in getattr(outcome, stream)) == (0, True)
    page.write_text("<!DOCTYPE html><p>mine</p>")
    outcome = cli("doctor", "--data", root, "--html", page)
    assert (outcome.code, outcome.out) == (2, "")
    assert "page.html is there already, and nothing says that resnest wrote it: name another file" in outcome.err
    assert page.read_text() == "<!DOCTYPE html><p>mine</p>"

"""Labelled images as people have them: names of parts, nested folders, what systems leave behind, odd files, lists."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from conftest import Outcome, pico
from resnest.data.class_names import in_order, read_class_names
from resnest.data.listing import list_images
from resnest.data.parts import choose_parts, choose_splits
from resnest.data.samples import match_classes
from resnest.data.sources import Splits, open_dataset, open_split
from resnest.data.splitting import Holdout
from resnest.errors import ResnestError
from resnest.inference.evaluation import evaluate
from resnest.training.train import train

Cli = Callable[..., Outcome]
Pack = Callable[[Path], Path]
TWO = ("cat/0.jpg", "cat/1.jpg", "cat/2.jpg", "dog/0.jpg", "dog/1.jpg", "dog/2.jpg")


def _write(root: Path, names: Sequence[str]) -> Path:
    """Pictures that all differ, of the format that the suffix says; other files where it says none."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = {".tif": "TIFF", ".png": "PNG", ".txt": "", ".db": ""}.get(path.suffix, "JPEG")
        if path.suffix == ".heic":
            path.write_bytes(b"\0\0\0\x18ftypheic")
        elif kind:
            Image.new("RGB", (24, 24), (number * 7 % 256, number % 256, 90)).save(path, kind)
        else:
            path.write_text("no picture")
    return root


def _parts(*parts: str) -> list[str]:
    return [f"{part}/{name}" for part in parts for name in TWO]


def _unpacked(root: Path) -> Path:
    return root


def _zip(root: Path) -> Path:
    with zipfile.ZipFile(root.with_suffix(".zip"), "w") as archive:
        for path in sorted(root.rglob("*")):
            archive.write(path, path.relative_to(root))
    return root.with_suffix(".zip")


def _tar(root: Path) -> Path:
    with tarfile.open(root.with_suffix(".tar"), "w", dereference=True) as archive:
        archive.add(root, ".")
    return root.with_suffix(".tar")


PACKS: dict[str, Pack] = {"folder": _unpacked, "zip": _zip, "tar": _tar}


@pytest.fixture(params=PACKS)
def pack(request: pytest.FixtureRequest) -> Pack:
    return PACKS[request.param]


def _sizes(splits: Splits) -> tuple[int, int, tuple[str, ...]]:
    return len(splits.train), len(splits.val), splits.train.class_names


# --- parts ---

PARTS: dict[str, tuple[list[str], str]] = {  # names, and what is said beside the numbers
    "Training Testing": (_parts("Training", "Testing"), "Testing is the validation part"),
    "Train Test": (_parts("Train", "Test"), "Test is the validation part"),
    "TRAIN VAL": (_parts("TRAIN", "VAL"), ""),
    "train dev": (_parts("train", "dev"), ""),
    "seg": (_parts("seg_train", "seg_test"), "seg_test is the validation part"),
    "twice": (_parts("seg_train/seg_train", "seg_test/seg_test"), "seg_test is the validation part"),
    "images": (_parts("train_images", "val_images"), ""),
    "TrainSet": (_parts("TrainSet", "ValSet"), ""),
    "trainset testset": (_parts("trainset", "testset"), "testset is the validation part"),
    "2017": (_parts("train2017", "val2017"), ""),
    "test1": (_parts("train", "test1"), "test1 is the validation part"),
    "within a folder": (_parts("chest/train", "chest/val"), ""),
    "beside others": (
        [*_parts("seg_train", "seg_test"), "seg_pred/1.jpg"],
        "not read, as it is beside the parts: seg_pred",
    ),
    "with a list in it": ([*_parts("train", "val"), "train/notes.txt"], "left out: notes.txt (no image (.txt))"),
}


@pytest.mark.parametrize("case", PARTS)
def test_parts_by_their_words(case: str, pack: Pack, tmp_path: Path) -> None:
    names, said = PARTS[case]
    splits = open_dataset(pack(_write(tmp_path / "set", names)))
    assert _sizes(splits) == (6, 6, ("cat", "dog"))
    assert said.removeprefix("left out: ") in splits.describe()
    assert ("(" in splits.describe().partition("classes")[2]) == bool(said)


def test_test_is_a_part_of_its_own(pack: Pack, tmp_path: Path) -> None:
    names = [*_parts("train", "valid"), "test/cat/0.jpg", "test/dog/0.jpg"]
    where = pack(_write(tmp_path / "set", names))
    sizes = {split: len(open_split(where, split).samples) for split in ("train", "auto", "val", "test")}
    assert sizes == {"train": 6, "auto": 6, "val": 6, "test": 2}
    assert "2 test images" in open_split(where, "test").describe


def test_a_part_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ResnestError, match=r'split="test"`: .*set has no test split'):
        open_split(_write(tmp_path / "set", _parts("train", "val")), "test")
    with pytest.raises(ResnestError, match="has no test split; choose val or all"):
        open_split(_write(tmp_path / "whole", TWO), "test")


@pytest.mark.parametrize(
    ("classes", "names"),
    [
        (("bus", "car", "train"), ("bus/0.jpg", "bus/1.jpg", "car/0.jpg", "car/1.jpg", "train/0.jpg", "train/1.jpg")),
        (
            ("bullet_train", "crash_test"),
            [f"{name}/{i}.jpg" for name in ("bullet_train", "crash_test") for i in (0, 1)],
        ),
        (("test_tube", "train"), [f"{name}/{i}.jpg" for name in ("test_tube", "train") for i in (0, 1)]),
        (
            ("bus", "car", "train"),
            [f"{name}/{i}.jpg" for name in ("bus", "car", "train/diesel", "train/steam") for i in (0, 1)],
        ),
        (
            ("bus", "train"),
            [f"{name}/{year}/{i}.jpg" for name in ("bus", "train") for year in (2023, 2024) for i in (0, 1)],
        ),
    ],
)
def test_classes_that_are_called_so(classes: tuple[str, ...], names: Sequence[str], pack: Pack, tmp_path: Path) -> None:
    assert open_dataset(pack(_write(tmp_path / "set", names))).train.class_names == classes


AMBIGUOUS: dict[str, tuple[list[str], str]] = {
    "a part beside something": (
        [*_parts("train"), "unlabeled/0.jpg"],
        "has the folder train with cat, dog in it, beside unlabeled: training part or class",
    ),
    "an unknown name": (
        _parts("train", "holdout"),
        r"the folders holdout, train have the same folders in them \(cat, dog\). If they are parts, call them train",
    ),
    "a mistyped name": (_parts("train", "valdation"), "the folders train, valdation have the same folders"),
    "another language": (_parts("Training", "Validierung"), "the folders Training, Validierung have the same folders"),
    "numbered parts": (_parts("train1", "train2", "val"), "train1, train2, val have the same folders"),
    "trainval": (_parts("trainval", "test"), "the folders test, trainval have the same folders"),
    "folds": (
        _parts("fold0", "fold1", "fold2"),
        "the folders fold0, fold1, fold2 have .* are classes, rename fold0",
    ),
    "a part of the classes": ([*_parts("val"), "more/cat/0.jpg", "bird/0.jpg"], "the folders more, val have the same"),
    "short for parts": (_parts("trn", "tst"), "the folders trn, tst have .* call them train, val and test"),
    "shorter": (_parts("tr", "va", "ts"), "the folders tr, ts, va have .* call them train, val and test"),
    "within a folder": (_parts("photos/train", "photos/holdout"), "photos: the folders holdout, train have the same"),
    "no class beside": (
        [*_parts("train"), "unlabeled/0.jpg", "bird/0.jpg"],
        "beside bird, unlabeled: training part or",
    ),
    "two training parts": (_parts("train", "Training", "val"), "Training and train are both called the training part"),
    "two pairs": (_parts("a_train", "a_val", "b_train", "b_val"), "several training parts, each with another part"),
    "parts without classes": (["train/0.jpg", "test/0.jpg"], "train and test have no folders of classes in them"),
    "parts below the classes": (
        [f"{label}/{part}/0.jpg" for label in ("cat", "dog") for part in ("train", "val")],
        "the folders train and val lie below others, as in cat: expected train/CLASS",
    ),
    "an empty class": ([*TWO, "bird/a.heic"], r"class 'bird' has no image in .*bird/a.heic \(HEIC, which is not read"),
    "no class folder": (["0.jpg", "1.jpg"], "expected|neither a .cls or .json of its name nor a class folder"),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_one_clear_line(case: str, pack: Pack, tmp_path: Path) -> None:
    names, message = AMBIGUOUS[case]
    with pytest.raises(ResnestError, match=message) as caught:
        open_dataset(pack(_write(tmp_path / "set", names)))
    assert "\n" not in str(caught.value)


def test_parts_of_files_by_their_words(tmp_path: Path) -> None:
    for name in ("Train", "Test"):
        _zip(_write(tmp_path / "unpacked" / name, TWO)).rename(tmp_path / f"{name}.zip")
    splits = open_dataset(tmp_path)
    assert (splits.format, *_sizes(splits)) == ("zip", 6, 6, ("cat", "dog"))
    assert "(Test.zip is the validation part)" in splits.describe()
    assert choose_splits(["b-Testing.tar", "a-training.tar", "c-DEV.tar", "d.tar"]) == (
        ["a-training.tar"], ["c-DEV.tar"], [], ["b-Testing.tar"],
    )  # fmt: skip
    assert choose_splits(["train.tar", "test.tar"]).val == ["test.tar"]


def test_what_shards_are_taken_for_is_said(tmp_path: Path) -> None:
    for name in ("train-0", "other-0"):
        _tar(_write(tmp_path / "unpacked" / name, TWO)).rename(tmp_path / f"{name}.tar")
    shutil.rmtree(tmp_path / "unpacked")
    assert "held out, 2 classes (not read, as it is beside the parts: other-0.tar)" in open_dataset(tmp_path).describe()
    (tmp_path / "other-0.tar").rename(tmp_path / "test-0.tar")
    splits = open_dataset(tmp_path)
    assert (splits.format, *_sizes(splits)) == ("tar", 6, 6, ("cat", "dog"))
    assert "(test-0.tar is the validation part)" in splits.describe()


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        ("train val test extra", ("train", "val", "test", ("extra",))),
        ("train valid train_masks valid_masks", ("train", "valid", None, ("train_masks", "valid_masks"))),
        ("val", (None, "val", None, ())),
        ("val photos", None),
        ("train photos", None),
        ("rose tulip", None),
    ],
)
def test_names_of_parts(names: str, chosen: tuple[object, ...] | None) -> None:
    parts = choose_parts(names.split(), "photos")
    assert (parts and (parts.train, parts.val, parts.test, parts.others)) == chosen


# --- class folders, and what is in them ---


def test_the_class_is_the_first_folder(pack: Pack, tmp_path: Path) -> None:
    names = [f"{label}/{year}/{i}.jpg" for label in ("cat", "dog") for year in (2023, 2024) for i in range(3)]
    splits = open_dataset(pack(_write(tmp_path / "set", names)))
    assert splits.train.class_names == ("cat", "dog")
    assert "(the class is the first folder, and folders in it are part of it: cat/2023, cat/2024)" in splits.describe()


def _in_sites(*sites: str) -> list[str]:
    return [f"{site}/{label}/{i}.jpg" for site in sites for label in ("cat", "dog") for i in range(3)]


@pytest.mark.parametrize("sites", ["siteA siteB", "camera1 camera2 camera3", "train/a train/b val/a val/b"])
def test_classes_with_the_same_folders_in_them_are_said(sites: str, pack: Pack, tmp_path: Path) -> None:
    """As torchvision's ImageFolder takes them; a setting takes the inner ones."""
    where = pack(_write(tmp_path / "set", _in_sites(*sites.split())))
    splits = open_dataset(where)
    assert (
        "which all have the folders cat, dog in them: if these are the classes, set data.format=" in splits.describe()
    )
    assert "cat" not in splits.train.class_names
    if pack is _tar:
        with pytest.raises(ResnestError, match="inner-folders reads folders and zip files: unpack it"):
            open_dataset(where, format="inner-folders")
        return
    splits = open_dataset(where, format="inner-folders")
    assert splits.train.class_names == ("cat", "dog")
    assert "(the class is the last folder)" in splits.describe()


def test_inner_folders_where_the_first_may_be_parts(tmp_path: Path) -> None:
    where = _write(tmp_path, _in_sites("fold1", "fold2"))
    with pytest.raises(ResnestError, match=r"if the inner ones are the classes, set data\.format=inner-folders"):
        open_dataset(where)
    assert open_dataset(where, format="inner-folders").train.class_names == ("cat", "dog")


def test_inner_folders_are_equally_deep(tmp_path: Path) -> None:
    where = _write(tmp_path, [*_in_sites("siteA", "siteB"), "siteA/0.jpg"])
    with pytest.raises(ResnestError, match=r"all images equally deep, and there are siteA/0.jpg and siteA/cat/0.jpg"):
        open_dataset(where, format="inner-folders")


@pytest.mark.parametrize("inside", ["2020 2021", "a", ""])
def test_other_folders_in_classes_are_no_doubt(inside: str, tmp_path: Path) -> None:
    names = [f"{label}/{name}/{i}.jpg" for label in ("cat", "dog") for name in inside.split() or [""] for i in range(3)]
    assert "data.format" not in open_dataset(_write(tmp_path, names)).describe()


def test_the_class_is_the_first_folder_in_parts_too(pack: Pack, tmp_path: Path) -> None:
    names = [f"{part}/{label}/2023/{i}.jpg" for part in ("train", "val") for label in ("cat", "dog") for i in range(2)]
    assert _sizes(open_dataset(pack(_write(tmp_path / "set", names)))) == (4, 4, ("cat", "dog"))


LEFT_BEHIND = (
    "__MACOSX/cat/._0.jpg", "@eaDir/0.jpg", "cat/@eaDir/0.jpg", "cat/.ipynb_checkpoints/0-checkpoint.jpg",
    "dog/._0.jpg", ".ipynb_checkpoints/1.jpg", "Thumbs.db", "cat/thumbs.db", "dog/.DS_Store.txt", "$RECYCLE.BIN/1.jpg",
)  # fmt: skip


def test_what_systems_leave_behind_is_ignored_and_counted(pack: Pack, tmp_path: Path) -> None:
    splits = open_dataset(pack(_write(tmp_path / "set", [*TWO, *LEFT_BEHIND])))
    assert (len(splits.train) + len(splits.val), splits.train.class_names) == (6, ("cat", "dog"))
    assert "(ignored: 10 files of " in splits.describe()
    assert splits.describe().count("ignored") == 1


def test_a_zip_of_a_mac(tmp_path: Path) -> None:
    where = _zip(_write(tmp_path / "set", [*_parts("photos/train", "photos/val"), "__MACOSX/photos/train/cat/._0.jpg"]))
    assert _sizes(open_dataset(where)) == (6, 6, ("cat", "dog"))


ODD = (
    "cat/a.jfif", "cat/b.jpe", "cat/noend", "cat/c.tif", "cat/d.heic", "dog/D.JPG", "dog/e.img", "dog/f.txt", "dog/g",
    "above.jpg",
)  # fmt: skip


def test_images_by_content_and_the_others_by_reason(tmp_path: Path) -> None:
    root = _write(tmp_path / "set", ODD)
    for pack in (_unpacked, _zip):
        whole = open_dataset(pack(root)).unsplit
        assert whole is not None
        assert sorted(whole.keys) == [
            "cat/a.jfif", "cat/b.jpe", "cat/c.tif", "cat/noend", "dog/D.JPG", "dog/e.img", "dog/g",
        ]  # fmt: skip
        notes = whole.describe()
        assert "cat/d.heic (HEIC, which is not read: save as PNG or JPEG)" in notes
        assert "dog/f.txt (no image (.txt))" in notes
        assert "1 image in no class folder, such as above.jpg" in notes


def test_links_are_followed_and_broken_ones_named(tmp_path: Path) -> None:
    root = _write(tmp_path / "set", TWO)
    _write(tmp_path / "elsewhere", ["1.jpg", "more/2.jpg"])
    (root / "cat" / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "bird").symlink_to(tmp_path / "elsewhere")
    (root / "dog" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (root / "dog" / "round").symlink_to(root)
    whole = open_dataset(root).unsplit
    assert whole is not None
    assert [key for key in whole.keys if "/linked/" in key] == ["cat/linked/1.jpg", "cat/linked/more/2.jpg"]
    assert whole.counts().tolist() == [2, 5, 3]
    assert "left out: dog/gone.jpg (a broken link)" in whole.describe()
    assert "left out: dog/round (a link to a folder that it lies in)" in whole.describe()


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = _write(tmp_path / "set", TWO)
    scan = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ResnestError, match="dog cannot be read: Permission denied"):
        list_images(root)


def test_predict_looks_at_a_folder_in_the_same_way(cli: Cli, tmp_path: Path) -> None:
    from resnest.cli.pictures import find_pictures

    root = _write(tmp_path / "set", [*ODD, *LEFT_BEHIND])
    (root / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    found = [picture.relative.as_posix() for picture in find_pictures([str(root)])]
    assert found == [
        "above.jpg", "cat/a.jfif", "cat/b.jpe", "cat/noend", "dog/D.JPG", "dog/e.img", "dog/g",
    ]  # fmt: skip
    with pytest.raises(ResnestError, match=r"no images in .*only \(left out: a.tif \(TIFF, which is not read"):
        list(find_pictures([str(_write(tmp_path / "only", ["a.tif"]))]))


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_lists_and_licences_are_not_counted_as_lost(form: str, tmp_path: Path) -> None:
    """They are no images that somebody misses; an image of such a name is an image."""
    root = _write(tmp_path / "set", TWO)
    (root / "classes.json").write_text('{"cat": 0, "dog": 1}')
    for name in ("README.md", "LICENSE", "README.dataset.txt"):
        (root / name).write_text("text")
    shutil.copy(root / "cat" / "0.jpg", root / "cat" / "license.jpg")
    whole = open_dataset(PACKS[form](root)).unsplit
    assert whole is not None
    assert "cat/license.jpg" in [key.removeprefix("set/") for key in whole.keys]
    assert "left out" not in whole.describe()


@pytest.mark.parametrize("form", ["folder", "tar"])  # zipfile writes no such names
def test_names_that_are_not_utf8(form: str, tmp_path: Path) -> None:
    root = _write(tmp_path / "set", TWO)
    for name in (b"caf\xe9/0.jpg", b"caf\xe9/1.jpg", b"cat/\xe9.jpg"):
        path = os.path.join(os.fsencode(root), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write((root / "cat/0.jpg").read_bytes())
    splits = open_dataset(PACKS[form](root))
    assert splits.train.class_names == ("caf\\xe9", "cat", "dog")
    for part in (splits.train, splits.val):
        assert [part.decode(index).size for index in range(len(part))] == [(24, 24)] * len(part)


@pytest.mark.parametrize(
    ("names", "file", "content"),
    [
        (TWO, "labels.csv", "id,name"),
        (TWO, "_annotations.coco.json", ""),
        (TWO, "_annotations.coco.json", '{"images": [], "annotations": [], "categories": []}'),
        (_parts("train", "val"), "train/_annotations.coco.json", ""),
    ],
)
def test_class_folders_beside_a_file_that_cannot_be_read(
    names: Sequence[str], file: str, content: str, tmp_path: Path
) -> None:
    root = _write(tmp_path / "set", names)
    (root / file).write_text(content)
    if file.startswith("train"):
        shutil.copy(root / file, root / "val" / "_annotations.coco.json")
    with pytest.raises(
        ResnestError, match=f"{Path(file).name} .*to read the folders of classes there, set data.format=f"
    ):
        open_dataset(root)
    assert open_dataset(root, format="folder").train.class_names == ("cat", "dog")


def test_other_folders_are_not_taken_for_classes(tmp_path: Path) -> None:
    root = _write(tmp_path / "set", ["images/0.jpg", "masks/0.png"])
    (root / "_annotations.coco.json").write_text("")
    with pytest.raises(ResnestError, match=r"copy it again$"):
        open_dataset(root)


# --- the order of classes ---


@pytest.mark.parametrize(
    ("classes", "ordered"),
    [
        ("2 10 1 01", "01 1 2 10"),
        ("0 00 000", "0 00 000"),
        ("10 9 b", "10 9 b"),
        ("² 1", "1 ²"),
        (f"{'9' * 5000} 1", f"1 {'9' * 5000}"),
    ],
)
def test_one_order(classes: str, ordered: str) -> None:
    assert in_order(classes.split()) == in_order(reversed(classes.split())) == ordered.split()


# --- lists of class names ---


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "Expecting value"),
        ("7", "expected a list of classes"),
        ("{}", "it is empty"),
        ('[{"index": 0}]', "has no name"),
        ('{"a": [1, 2]}', "expected {key: name} or {name: number}"),
        ('[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]', "two of its classes have the key 1"),
        ('{"cat": 0, "dog": 0}', "two of its classes have the key 0"),
        ('{"0": ""}', "no name|expected"),
    ],
)
def test_a_list_that_cannot_be_understood_is_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "classes.json").write_text(content)
    with pytest.raises(ResnestError, match=f"classes.json is no list of class names: .*({message})"):
        read_class_names(tmp_path)


@pytest.mark.parametrize(
    ("content", "names", "said"),
    [
        ({"cat": 0, "dog": 1}, ("cat", "dog"), ""),
        (["dog", "cat"], ("cat", "dog"), ""),
        ({"cat": "Felis", "dog": "Canis"}, ("Felis", "Canis"), ""),
        ([{"synset": "cat", "name": "Felis"}], ("cat", "dog"), "not used: it has no name for dog"),
        ({"cat": "pet", "dog": "pet"}, ("cat", "dog"), "not used: it names two classes pet"),
    ],
)
def test_names_of_folders(content: object, names: tuple[str, ...], said: str, pack: Pack, tmp_path: Path) -> None:
    where = pack(_write(tmp_path / "set", TWO))
    (where if where.is_dir() else where.parent).joinpath("classes.json").write_text(json.dumps(content))
    splits = open_dataset(where)
    assert splits.train.class_names == names
    assert said in splits.describe()
    assert splits.train.class_keys == (("cat", "dog") if names[0] == "Felis" else ())


@pytest.mark.parametrize(
    ("folders", "lines", "names", "said"),
    [
        (("0", "1"), "1 dog\n0 cat\n", ("cat", "dog"), ""),
        (("0", "1"), "1: dog\n0: cat\n", ("cat", "dog"), ""),
        (("0", "1"), "dog,1\ncat,0\n", ("cat", "dog"), ""),
        (("1", "2"), "1) cat\n2) dog\n", ("cat", "dog"), ""),
        (("0", "1"), "1 cat\n2 dog\n", ("0", "1"), "not used: it has no name for 0"),
        (("0", "1"), "box 1\nbox 2\n", ("box 1", "box 2"), ""),  # the numbers are parts of the names
        (("0", "1"), "2012 Audi\n1998 Saab\n", ("2012 Audi", "1998 Saab"), ""),
        (("0", "1"), "hot dog\ncat\n", ("hot dog", "cat"), ""),
        (("0", "1"), "1 cat\ndog\n", ("1 cat", "dog"), ""),
    ],
)
def test_numbered_lines_of_names(
    folders: tuple[str, ...], lines: str, names: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    _write(tmp_path, [f"{folder}/{number}.png" for folder in folders for number in range(2)])
    (tmp_path / "classnames.txt").write_text(lines)
    splits = open_dataset(tmp_path)
    assert splits.train.class_names == names
    assert said in splits.describe()


def test_a_list_of_files_beside_parts_is_named(tmp_path: Path) -> None:
    _write(tmp_path, [f"{part}/{name}/{part}.png" for part in ("train", "val") for name in ("cat", "dog")])
    assert "labels.csv" not in open_dataset(tmp_path).describe()
    rows = [f"{part}/{name}/{part}.png,{name},{part}" for part in ("train", "val") for name in ("cat", "dog")]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,split", *rows]))
    assert "not read: labels.csv, as the folders have parts and classes" in open_dataset(tmp_path).describe()
    assert open_dataset(tmp_path, format="csv").format == "csv"


def test_a_list_within_a_zip(tmp_path: Path) -> None:
    root = _write(tmp_path / "set", [f"photos/{name}" for name in TWO])
    (root / "photos" / "classes.json").write_text('{"cat": "Felis", "dog": "Canis"}')
    assert open_dataset(_zip(root)).train.class_names == ("Felis", "Canis")


# --- classes of a model and of data ---

ABC = ("cat", "dog", "bird")


@pytest.mark.parametrize(
    ("card", "data", "index", "said"),
    [  # names and keys of the model, names and keys of the data
        ((ABC, ()), (("bird", "cat"), ()), [2, 0], False),
        ((ABC, ("1", "2", "3")), (("1", "2", "3"), ()), [0, 1, 2], False),
        ((ABC, ("1", "2", "3")), (("2", "3"), ()), [1, 2], False),
        ((ABC, ("001", "002", "003")), (("002",), ()), [1], False),
        ((("1", "2", "3"), ()), (("2", "3"), ()), [1, 2], False),
        ((ABC, ("n1", "n2", "n3")), (("n3", "n1"), ()), [2, 0], False),
        ((ABC, ("n1", "n2", "n3")), (("n3", "dog"), ()), [2, 1], False),
        ((("2", "1"), ("1", "2")), (("1", "2"), ()), [0, 1], False),  # folders are keys
        ((ABC, ("0", "1", "2")), (("bird", "cat"), ("0", "1")), [2, 0], False),  # the data's own names come first
        ((ABC, ("0", "1", "2")), (("Vogel", "Katze"), ("2", "0")), [2, 0], False),
        ((ABC, ()), (("0", "2"), ()), [0, 2], True),
        ((ABC, ("n1", "n2", "n3")), (("0", "2"), ()), [0, 2], True),
    ],
)
def test_classes_are_matched_by_names_and_keys_first(
    card: tuple[tuple[str, ...], tuple[str, ...]],
    data: tuple[tuple[str, ...], tuple[str, ...]],
    index: list[int],
    said: bool,
) -> None:
    model = SimpleNamespace(class_names=card[0], class_keys=card[1])
    match = match_classes(data[0], model, "photos", data[1])
    assert match.index.tolist() == index
    assert bool(match.notes) == said
    assert not said or "taken as places in the model's order, from 0" in match.notes[0]


@pytest.mark.parametrize(
    ("names", "keys", "data"),
    [
        (ABC, ("1", "2", "3"), ("0", "1")),
        (("1", "2", "3"), (), ("0", "1")),
        (ABC, (), ("1", "2", "3")),
        (ABC, (), ("x",)),
    ],
)
def test_classes_that_a_model_does_not_know(
    names: tuple[str, ...], keys: tuple[str, ...], data: tuple[str, ...]
) -> None:
    with pytest.raises(ResnestError, match=r"class(es)? that the model does not know"):
        match_classes(tuple(data), SimpleNamespace(class_names=names, class_keys=keys), "photos")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run on synset folders with names, and their folder; it has a validation part of its own."""
    root = tmp_path_factory.mktemp("run")
    _write(
        root / "set", [f"{part}/{k}/{i}.jpg" for part in ("train", "val") for k in ("1", "2", "3") for i in range(4)]
    )
    (root / "set" / "classes.json").write_text('{"1": "cat", "2": "dog", "3": "bird"}')
    train("imagenette", data=root / "set", out=root / "out", settings=pico("train.epochs=1"))
    return root / "out", root / "set"


def test_folders_are_keys_of_the_card(run: tuple[Path, Path], tmp_path: Path) -> None:
    out, data = run
    card = json.loads((out / "config.json").read_text())
    assert card["label_names"] == ["cat", "dog", "bird"]
    assert card["resnest"]["class_keys"] == ["1", "2", "3"]
    (tmp_path / "plain").mkdir()
    for label in ("2", "3"):  # without the list, a subset from 1
        (tmp_path / "plain" / label).symlink_to(data / "val" / label)
    seen: list[np.ndarray] = []
    evaluate(out, tmp_path / "plain", on_open=lambda samples, where: seen.append(samples.labels))  # type: ignore[attr-defined]
    assert seen[0].tolist() == [1] * 4 + [2] * 4


def test_nothing_is_held_back_of_other_data(run: tuple[Path, Path]) -> None:
    out, data = run
    said: list[str] = []
    evaluate(out, data / "val", on_open=lambda samples, where: said.append(where))
    assert "12 images, all there are" in said[0]


def test_training_data_is_held_back_wherever_it_is(tmp_path: Path) -> None:
    data = _write(tmp_path / "set", [f"{k}/{i}.jpg" for k in ("cat", "dog") for i in range(10)])
    train("imagenette", data=data, out=tmp_path / "out", settings=pico("train.epochs=1"))
    account = json.loads((tmp_path / "out" / "run.json").read_text())
    assert account["held_out_of"] == 20
    moved = data.rename(tmp_path / "moved")
    other = _write(tmp_path / "other", [f"{k}/{i}.jpg" for k in ("cat", "dog") for i in range(5)])
    sizes = {}
    for where in (moved, other):
        part = open_split(where, holdout=Holdout(0.2, 0), trained_on=account)
        sizes[where.name] = len(part.samples)
    assert sizes == {"moved": 4, "other": 10}
    grown = _write(tmp_path / "above" / "set", [f"{k}/{i}.jpg" for k in ("cat", "dog") for i in range(15)]).parent
    assert len(open_split(grown, holdout=Holdout(0.2, 0), trained_on={**account, "data": str(grown)}).samples) == 6
    assert len(open_split(other, holdout=Holdout(0.2, 0)).samples) == 2  # of an unknown run: it may be its data


@pytest.mark.parametrize("pack", [_unpacked, _zip])
@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_an_empty_class_folder_matters_in_training_alone(pack: Pack, part: str, tmp_path: Path) -> None:
    names = [*_parts("train", "val", "test"), "train/bird/9.jpg"]
    root = _write(tmp_path / "photos", names)
    (root / part / "fox").mkdir()
    (root / "val" / "bird").mkdir()
    where = pack(root)
    if part == "train":
        with pytest.raises(ResnestError, match="class 'fox' has no image in"):
            open_dataset(where)
        return
    splits = open_dataset(where)
    assert splits.train.class_names == splits.val.class_names == ("bird", "cat", "dog")
    assert splits.val.counts().tolist() == [0, 3, 3]
    empty = "'bird', 'fox'" if part == "val" else "'bird'"
    assert f"validation: empty: the folder of class {empty}" in splits.describe()
    if part == "test":
        assert "empty: the folder of class 'fox'" in open_split(where, "test").describe


def test_a_validation_class_of_which_no_image_can_be_read_is_refused(tmp_path: Path) -> None:
    root = _write(tmp_path, [*_parts("train", "val"), "train/bird/1.jpg", "val/bird/1.heic"])
    with pytest.raises(ResnestError, match=r"class 'bird' has no image in .*bird/1.heic \(HEIC"):
        open_dataset(root)

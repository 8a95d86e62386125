"""Data set formats: one rule, the same samples from every form, and one clear line for what cannot be used."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from conftest import shared_data
from forms import Labelled, class_folders, webdataset, write_parquet, write_saved, write_tar
from resnest.data.readers import read_class_names, read_zip
from resnest.data.sources import Splits, open_dataset
from resnest.errors import ResnestError
from scenes import many, picture, voc, voc_object, write


def _parts(photos: Path, root: Path) -> Path:
    """The photos as train/CLASS and val/CLASS: every fourth file is for validation."""
    for path in photos.rglob("*.jpg"):
        part = "val" if int(path.stem) % 4 == 0 else "train"
        target = root / part / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return root


def _zip_parts(photos: Path, root: Path) -> Path:
    parts = _parts(photos, root / "unpacked")
    for part in ("train", "val"):
        with zipfile.ZipFile(root / f"{part}.zip", "w") as archive:
            for path in sorted((parts / part).rglob("*.jpg")):
                archive.write(path, f"{part}/{path.relative_to(parts / part)}")
    return root


def _one_zip(photos: Path, root: Path) -> Path:
    parts = _parts(photos, root / "unpacked")
    with zipfile.ZipFile(root / "all.zip", "w") as archive:
        for path in sorted(parts.rglob("*.jpg")):
            archive.write(path, f"set/{path.relative_to(parts)}")
    return root / "all.zip"


def _csv(photos: Path, root: Path) -> Path:
    parts = _parts(photos, root)
    with (root / "all.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "split"])
        for path in sorted(parts.rglob("*.jpg")):
            table.writerow([path.relative_to(root), path.parent.name, path.parent.parent.name])
    return root / "all.csv"


def _npz(photos: Path, root: Path) -> Path:
    parts, classes = _parts(photos, root / "unpacked"), sorted(path.name for path in photos.iterdir())
    for part in ("train", "val"):
        files = sorted((parts / part).rglob("*.jpg"))
        records = [path.read_bytes() for path in files]
        np.savez(
            root / f"{part}.npz",
            jpeg=np.frombuffer(b"".join(records), np.uint8),
            offsets=np.cumsum([0, *map(len, records)]),
            labels=[classes.index(path.parent.name) for path in files],
            classes=classes,
        )
    return root


def _labelled(parts: Path) -> tuple[list[str], dict[str, Labelled]]:
    """Class names, and (name, class, bytes) of every image of a part."""
    found = {
        part: [
            (path.stem, path.parent.name, path.read_bytes()) for path in sorted((parts / part).rglob("*.jpg"), key=str)
        ]
        for part in ("train", "val")
    }
    return sorted({label for _, label, _ in found["train"]}), found


def _shards(photos: Path, root: Path) -> Path:
    """Shards of seven samples, the last one shorter; class names beside them."""
    classes, parts = _labelled(_parts(photos, root.parent / "unpacked"))
    for part, rows in parts.items():
        for start in range(0, len(rows), 7):
            write_tar(root / f"{part}-{start // 7:06d}.tar", webdataset(rows[start : start + 7], classes))
    (root / "classnames.txt").write_text("\n".join(classes))
    return root


def _shards_in_folders(photos: Path, root: Path) -> Path:
    """Labels by name in .json files, in folders train and val."""
    classes, parts = _labelled(_parts(photos, root.parent / "unpacked"))
    for part, rows in parts.items():
        (root / part).mkdir()
        write_tar(root / part / "0.tar", webdataset(rows[:5], classes, json_of="label"))
        write_tar(root / part / "1.tar", webdataset(rows[5:], classes, json_of="cls"))
    return root


def _one_tar(photos: Path, root: Path) -> Path:
    """Class folders in folders train and val, in one file."""
    _, parts = _labelled(_parts(photos, root.parent / "unpacked"))
    members = [row for part, rows in parts.items() for row in class_folders(rows, f"./set/{part}/")]
    write_tar(root / "all.tar", members)
    return root / "all.tar"


def _parquet(photos: Path, root: Path) -> Path:
    """As the hub has it: in a folder data, with the notes of `datasets`, several files a part."""
    classes, parts = _labelled(_parts(photos, root.parent / "unpacked"))
    for part, name in (("train", "train"), ("val", "validation")):
        for number, rows in enumerate((parts[part][:5], parts[part][5:])):
            write_parquet(root / "data" / f"{name}-{number:05d}-of-00002.parquet", rows, classes)
    return root


def _plain_parquet(photos: Path, root: Path) -> Path:
    """Bytes and text, no notes."""
    _, parts = _labelled(_parts(photos, root.parent / "unpacked"))
    for part, rows in parts.items():
        write_parquet(root / f"{part}.parquet", rows)
    return root


def _saved(photos: Path, root: Path) -> Path:
    classes, parts = _labelled(_parts(photos, root.parent / "unpacked"))
    write_saved(root, {"train": parts["train"], "test": parts["val"]}, classes)
    return root


FORMS: dict[str, Callable[[Path, Path], Path]] = {
    "folder": _parts,
    "zip": _zip_parts,
    "one zip": _one_zip,
    "csv": _csv,
    "npz": _npz,
    "shards in a tar": _shards,
    "folders of tar": _shards_in_folders,
    "one tar": _one_tar,
    "parquet": _parquet,
    "plain parquet": _plain_parquet,
    "arrow": _saved,
}


def _content(splits: Splits) -> list[list[tuple[str, bytes]]]:
    """Class and pixels of every sample, in an order that does not depend on names."""
    return [
        sorted((part.class_names[part.labels[index]], part.decode(index).tobytes()) for index in range(len(part)))
        for part in (splits.train, splits.val)
    ]


@pytest.mark.parametrize("form", FORMS)
def test_every_format_gives_the_same_samples(form: str, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    reference = open_dataset(_parts(photos, tmp_path / "reference"))
    splits = open_dataset(FORMS[form](photos, tmp_path / "set"))
    assert splits.format == form.split()[-1]
    assert splits.train.class_names == ("digit-0", "digit-1", "digit-2", "digit-3")
    assert _content(splits) == _content(reference)


def test_one_folder_is_split_reproducibly(photos: Path) -> None:
    first, again = open_dataset(photos), open_dataset(photos)
    assert first.val.keys == again.val.keys
    assert not set(first.val.keys) & set(first.train.keys)
    assert (first.val.counts() > 0).all()
    assert open_dataset(photos, seed=1).val.keys != first.val.keys


def test_an_added_image_hardly_moves_the_split(photos: Path) -> None:
    before = set(open_dataset(photos).val.keys)
    newcomer = photos / "digit-1" / "newcomer.jpg"
    newcomer.write_bytes(next((photos / "digit-1").glob("*.jpg")).read_bytes())
    assert len(before - set(open_dataset(photos).val.keys)) <= 1


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ('[{"index": 1, "name": "a", "color": [1, 2, 3]}, {"id": "4", "name": "b"}]', {"1": "a", "4": "b"}),
        ('[{"name": "a"}, {"value": 7, "name": "b"}]', {"0": "a", "7": "b"}),
        ('[{"synset": "n", "name": "a"}, {"synset": "m", "index": 5, "name": "b"}]', {"n": "a", "m": "b", "5": "b"}),
        ('\ufeff["a", "b"]', {"0": "a", "1": "b"}),
        ('{"x": "a", "4": "b"}', {"x": "a", "4": "b"}),
        ('{"cat": 0, "dog": 1}', {"0": "cat", "1": "dog"}),
        ('{"cat": "0", "dog": "1"}', {"0": "cat", "1": "dog"}),
        ('[{"cat": 0}, {"dog": 1}]', {"0": "cat", "1": "dog"}),
        ('{"names": {"0": " cat "}, "count": 1}', {"0": "cat"}),
        ('{"classes": ["a", "b"]}', {"0": "a", "1": "b"}),
        ('{"id2label": {"0": "a"}, "label2id": {"a": 0}}', {"0": "a"}),
        ('{"0": ["n01440764", "tench"]}', {"0": "tench", "n01440764": "tench"}),
        ('{"0": {"name": "a"}, "4": {"name": "b"}}', {"0": "a", "4": "b"}),
        ('[{"id": 3, "label": "a"}]', {"3": "a"}),
    ],
)
def test_lists_of_class_names(content: str, names: dict[str, str], tmp_path: Path) -> None:
    """The rows that lists of masks have, too (test_pixel_formats.py), and those that other tools write."""
    (tmp_path / "classes.json").write_text(content, encoding="utf-8")
    assert read_class_names(tmp_path) == names


def test_readable_class_names(photos: Path) -> None:
    rows = [{"index": k, "synset": f"digit-{k}", "name": name} for k, name in enumerate(["nil", "one", "two", "three"])]
    (photos.parent / "classes.json").write_text(json.dumps(rows))
    parts = _parts(photos, photos.parent / "parts")
    (parts / "classes.json").write_text(json.dumps(rows))
    assert open_dataset(parts).train.class_names == ("nil", "one", "two", "three")


def test_digits() -> None:
    splits = open_dataset("digits")
    assert len(splits.train) + len(splits.val) == 1797
    assert splits.train.decode(0).size == (8, 8)


def _empty(photos: Path) -> Path:
    empty = photos.parent / "empty"
    empty.mkdir()
    return empty


def _class_without_image(photos: Path) -> Path:
    (photos / "digit-9").mkdir()
    return photos


def _one_image(photos: Path) -> Path:
    alone = photos.parent / "alone" / "digit-0"
    alone.mkdir(parents=True)
    next(photos.rglob("*.jpg")).rename(alone / "one.jpg")
    return alone.parent


def _one_class(photos: Path) -> Path:
    (photos.parent / "single").mkdir()
    (photos / "digit-0").rename(photos.parent / "single" / "digit-0")
    return photos.parent / "single"


def _strange_validation(photos: Path) -> Path:
    parts = _parts(photos, photos.parent / "parts")
    (parts / "val" / "digit-0").rename(parts / "val" / "digit-7")
    return parts


def _csv_without_label(photos: Path) -> Path:
    path = photos / "all.csv"
    path.write_text("path,class\na.jpg,cat\n")
    return path


def _broken_zip(photos: Path) -> Path:
    path = photos / "all.zip"
    path.write_bytes(b"PK\x03\x04 no zip")
    return path


def _npz_with_pickle(photos: Path) -> Path:
    path = photos / "all.npz"
    np.savez(path, jpeg=np.array([{}], object))
    return path


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "nothing there": (lambda photos: photos / "nowhere", "there is no data at .*nowhere"),
    "an empty folder": (_empty, "no images in .*empty: expected one folder per class"),
    "a class without image": (_class_without_image, "class 'digit-9' has no image"),
    "one image": (_one_image, "one image only"),
    "one class": (_one_class, "one class only"),
    "validation classes unknown to training": (_strange_validation, "training has not: digit-7"),
    "csv without label": (_csv_without_label, "needs the columns path and label"),
    "a broken zip": (_broken_zip, "not a readable zip file"),
    "npz with Python objects": (_npz_with_pickle, "is not a data set"),
    "an image as data set": (lambda photos: next(photos.rglob("*.jpg")), "is not a data set"),
}


@pytest.mark.parametrize("case", BAD)
def test_one_clear_line(case: str, photos: Path) -> None:
    make, message = BAD[case]
    with pytest.raises(ResnestError, match=message) as caught:
        open_dataset(make(photos))
    assert "\n" not in str(caught.value)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "format", "train", "val", "first"),
    [
        ("imagenette128", "zip", 9469, 1966, "tench"),
        ("cifar10-jpeg", "npz", 50_000, 5_000, "airplane"),
    ],
)
def test_shared_sets(name: str, format: str, train: int, val: int, first: str) -> None:
    splits = open_dataset(shared_data() / name)
    assert (splits.format, len(splits.train), len(splits.val)) == (format, train, val)
    assert splits.train.class_names[0] == first
    assert splits.train.decode(0).mode == "RGB"


@pytest.mark.data
def test_real_photographs_packed_anew_are_the_same(tmp_path: Path) -> None:
    """A real zip as shards, the last one shorter, and as parquet: bytes, labels, names and order."""
    source = read_zip(shared_data() / "imagenette128" / "val.zip")
    named = [(f"{index:06d}-{Path(key).stem}", int(source.labels[index])) for index, key in enumerate(source.keys)]
    rows = [
        (name, source.class_names[label], source.store.read(key))
        for (name, label), key in zip(named, source.keys, strict=True)
    ]
    for start in range(0, len(rows), 500):
        part = webdataset(rows[start : start + 500], source.class_names)
        write_tar(tmp_path / "shards" / f"{start // 500:06d}.tar", part)
    (tmp_path / "shards" / "classnames.txt").write_text("\n".join(source.class_names))
    write_parquet(tmp_path / "all.parquet", rows, source.class_names, group=100)
    for place in (tmp_path / "shards", tmp_path / "all.parquet"):
        whole = open_dataset(place).unsplit
        assert whole is not None
        assert whole.class_names == source.class_names
        assert (whole.labels == source.labels).all()
        assert [Path(key).stem for key in whole.keys] == [name for name, _ in named]
        assert [whole.store.read(key) for key in whole.keys] == [content for *_, content in rows]


def _text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


@pytest.mark.parametrize(
    ("train", "val", "said"),
    [
        ("012", "345", ""),
        ("0123", "345", "1 image is in both parts, such as 3.png: figures of these say nothing about new ones"),
        ("012", "012", "3 images are in both parts, such as 0.png"),
    ],
)
@pytest.mark.parametrize("kind", ["voc", "coco", "yolo"])
def test_images_of_both_parts_are_counted(kind: str, train: str, val: str, said: str, tmp_path: Path) -> None:
    parts = {"train": train, "val": val}
    for stem in sorted({*train, *val}):
        picture(tmp_path / ("JPEGImages" if kind == "voc" else "images") / f"{stem}.png", int(stem))
        if kind == "voc":
            _text(tmp_path / "Annotations" / f"{stem}.xml", voc(stem, voc_object("cat", (2, 2, 9, 9))))
        elif kind == "yolo":
            _text(tmp_path / "labels" / f"{stem}.txt", "0 .5 .5 .2 .2\n")
    for part, stems in parts.items():
        if kind == "voc":
            _text(tmp_path / "ImageSets" / "Main" / f"{part}.txt", "\n".join(stems))
        elif kind == "yolo":
            _text(tmp_path / f"{part}.txt", "".join(f"images/{stem}.png\n" for stem in stems))
        else:
            content = many()
            content["images"] = [row for row in content["images"] if str(row["id"]) in stems]
            content["annotations"] = [row for row in content["annotations"] if str(row["image_id"]) in stems]
            write(tmp_path / f"{part}.json", content)
    if kind == "yolo":
        _text(tmp_path / "data.yaml", "train: train.txt\nval: val.txt\nnames: [cat]\n")
    told = open_dataset(tmp_path).describe()
    assert said in told
    assert bool(said) == ("in both parts" in told)


def test_a_part_that_is_a_link_to_another(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        picture(tmp_path / "train" / name / "0.png")
    (tmp_path / "val").symlink_to("train")
    assert "2 images are in both parts, such as 0.png" in open_dataset(tmp_path).describe()

"""Tar shards: read in place by an index that is kept, trained on as from a folder, and never half-read in silence."""

from __future__ import annotations

import gzip
import io
import json
import multiprocessing
import os
import pickle
import random
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from conftest import pico
from forms import Labelled, class_folders, webdataset, write_tar
from resnest import progress
from resnest.data import shards, stores
from resnest.data.shards import INDEX_FOLDER, open_index, read_members, read_shards
from resnest.data.sources import open_dataset, open_split
from resnest.errors import Preempted, ResnestError
from resnest.training.loop import Loop
from resnest.training.train import resume, train
from runs import checkpoint

CLASSES = ["digit-0", "digit-1", "digit-2", "digit-3"]


def _rows(photos: Path) -> Labelled:
    return [(path.stem, path.parent.name, path.read_bytes()) for path in sorted(photos.rglob("*.jpg"))]


@pytest.fixture
def rows(photos: Path) -> Labelled:
    return _rows(photos)


@pytest.fixture
def sharded(rows: Labelled, tmp_path: Path) -> Path:
    """Shards of nine samples, the last one shorter."""
    folder = tmp_path / "shards"
    for start in range(0, len(rows), 9):
        write_tar(folder / f"part-{start // 9:06d}.tar", webdataset(rows[start : start + 9], CLASSES))
    (folder / "classes.json").write_text(json.dumps(CLASSES))
    return folder


def _all(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.tar"))


# --- reading ---


def test_samples_keep_their_order_and_name_their_shard(rows: Labelled, sharded: Path) -> None:
    read = read_shards(_all(sharded))
    assert [read.store.read(key) for key in read.keys] == [content for *_, content in rows]
    assert [read.class_names[label] for label in read.labels] == [label for _, label, _ in rows]
    assert read.keys[9] == f"part-000001.tar/{rows[9][0]}.jpg"
    assert len(rows) % 9  # the last shard is shorter
    whole = open_dataset(sharded)
    assert (whole.format, len(whole.train) + len(whole.val)) == ("tar", len(rows))


def _read_all(store: stores.Store, keys: list[str], queue: multiprocessing.Queue[list[bytes]]) -> None:
    queue.put([store.read(key) for key in keys])


def test_a_store_goes_to_other_processes(rows: Labelled, sharded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "MOST_OPEN", 2)  # fewer than there are shards
    read = read_shards(_all(sharded))
    before = len(os.listdir("/proc/self/fd"))
    assert [read.store.read(key) for key in read.keys] == [content for *_, content in rows]
    assert len(os.listdir("/proc/self/fd")) == before + 2
    context = multiprocessing.get_context("fork")
    queues = [context.Queue() for _ in range(2)]
    orders = [random.Random(seed).sample(list(read.keys), len(rows)) for seed in range(2)]
    workers = [
        context.Process(target=_read_all, args=(read.store, order, queue))
        for order, queue in zip(orders, queues, strict=True)
    ]
    for worker in workers:
        worker.start()
    here = dict(zip(read.keys, (content for *_, content in rows), strict=True))
    for order, queue in zip(orders, queues, strict=True):
        assert queue.get(timeout=60) == [here[key] for key in order]
    for worker in workers:
        worker.join(60)
    assert pickle.loads(pickle.dumps(read.store)).read(read.keys[3]) == rows[3][2]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_in_every_dialect(format: int, tmp_path: Path) -> None:
    deep = "/".join(["folder-of-thirty-three-characters"] * (6 if format == tarfile.USTAR_FORMAT else 12))
    members = [(f"{deep}/a.jpg", b"first"), (f"{deep}/a.cls", b"0"), ("b.jpg", b"second" * 200), ("b.cls", b"1")]
    path = write_tar(tmp_path / "0.tar", members, format)
    assert [(member.name, member.size) for member in read_members(path)] == [(name, len(raw)) for name, raw in members]
    read = read_shards([path])
    assert [read.store.read(key) for key in read.keys] == [b"first", b"second" * 200]
    with tarfile.open(path) as archive:  # the standard library agrees on every place
        assert [(info.name, info.offset_data) for info in archive] == [
            (member.name, member.start) for member in read_members(path)
        ]


def test_a_key_ends_at_the_first_dot_of_the_base_name(tmp_path: Path) -> None:
    members = [
        ("v1.0/a.jpg", b"A"), ("v1.0/a.seg.png", b"no image of its own"), ("v1.0/a.cls", b"7"),
        ("v1.0/b.JPEG", b"B"), ("v1.0/b.json", b'{"label": 12}'), ("v1.0/._b.jpg", b"macOS"), ("README", b""),
    ]  # fmt: skip
    read = read_shards([write_tar(tmp_path / "0.tar", members)])
    assert list(read.keys) == ["0.tar/v1.0/a.jpg", "0.tar/v1.0/b.JPEG"]
    assert read.class_names == ("7", "12")  # numbers by value


def test_labels_in_two_files_that_agree(tmp_path: Path) -> None:
    """A .json may have the name of the class, its number, or none; one of another kind is not read."""
    told = (b'{"label": "cat", "cls": 0}', b'{"label": "01", "size": 3}', b'{"label": "cat"}', b"no json")
    members = [
        member
        for key, number, text in zip("abcd", "0101", told, strict=True)
        for member in ((f"{key}.jpg", b"J"), (f"{key}.cls", number.encode()), (f"{key}.json", text))
    ]
    assert read_shards([write_tar(tmp_path / "0.tar", members)]).labels.tolist() == [0, 1, 0, 1]


def test_what_plain_tar_writes_of_class_folders(photos: Path, tmp_path: Path) -> None:
    (photos / "digit-0" / "dots.in.name.jpg").write_bytes(next(photos.rglob("*.jpg")).read_bytes())
    subprocess.run(["tar", "-cf", tmp_path / "photos.tar", "-C", photos, "."], check=True)
    opened = open_dataset(tmp_path / "photos.tar").unsplit
    assert opened is not None
    assert opened.class_names == tuple(CLASSES)
    contents = sorted(opened.store.read(key) for key in opened.keys)
    assert contents == sorted(path.read_bytes() for path in photos.rglob("*.jpg"))


def test_only_the_part_that_is_asked_for_is_read(rows: Labelled, tmp_path: Path) -> None:
    write_tar(tmp_path / "val-0.tar", webdataset(rows, CLASSES))
    (tmp_path / "train-0.tar").write_bytes(b"broken")
    assert len(open_split(tmp_path, "val").samples) == len(rows)
    with pytest.raises(ResnestError, match="cut off at byte 6"):
        open_split(tmp_path, "train")


def test_class_folders_win_over_a_stray_tar(photos: Path) -> None:
    write_tar(photos / "backup.tar", [("x.txt", b"")])
    assert open_dataset(photos).format == "folder"


def test_parts_of_one_tar_with_labels_in_files(rows: Labelled, tmp_path: Path) -> None:
    members = [
        (f"{part}/{name}", raw)
        for part, some in (("train", rows[::2]), ("val", rows[1::2]))
        for name, raw in webdataset(some, CLASSES)
    ]
    splits = open_dataset(write_tar(tmp_path / "all.tar", members))
    assert (len(splits.train), len(splits.val), splits.unsplit) == (len(rows[::2]), len(rows[1::2]), None)


# --- the index ---


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the shards whose headers were read."""
    names: list[str] = []
    original = shards.build_index

    def build(path: Path, *arguments: object) -> shards.Index:
        names.append(path.name)
        return original(path, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(shards, "build_index", build)
    return names


def test_an_index_is_built_once_and_anew_for_a_changed_shard(rows: Labelled, sharded: Path, built: list[str]) -> None:
    paths = _all(sharded)
    first = read_shards(paths)
    assert built == [path.name for path in paths]
    again = read_shards(paths)
    assert len(built) == len(paths)
    assert list(again.keys) == list(first.keys)
    write_tar(paths[1], webdataset(rows[9:17], CLASSES))
    changed = read_shards(paths)
    assert built[len(paths) :] == [paths[1].name]
    assert len(changed) == len(first) - 1
    os.utime(paths[0], ns=(1, 1))  # the same size, another time
    read_shards(paths)
    assert built[len(paths) + 1 :] == [paths[0].name]


def test_an_index_goes_to_the_cache_where_it_cannot_lie_beside(
    sharded: Path, built: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESNEST_HOME", str(tmp_path / "home"))
    (sharded / INDEX_FOLDER).write_text("in the way, as a read-only folder is")
    paths = _all(sharded)
    read_shards(paths)
    read_shards(paths)
    assert len(built) == len(paths)
    assert len(list((tmp_path / "home" / "index").rglob("*.json"))) == len(paths)
    (tmp_path / "home").rename(tmp_path / "away")
    (tmp_path / "home").write_text("in the way too")
    assert len(read_shards(paths)) == len(read_shards(paths))  # works, at the price of reading the headers again
    assert len(built) == 3 * len(paths)


SPOILT: dict[str, Callable[[dict[str, object]], object]] = {
    "of another version": lambda index: {**index, "version": -1},
    "a list": lambda index: [index],
    "without sizes": lambda index: {name: value for name, value in index.items() if name != "sizes"},
    "one label short": lambda index: {**index, "labels": index["labels"][1:]},  # type: ignore[index]
    "text for numbers": lambda index: {**index, "starts": ["x" for _ in index["starts"]]},  # type: ignore[attr-defined]
    "before the file": lambda index: {**index, "starts": [-1 for _ in index["starts"]]},  # type: ignore[attr-defined]
    "no columns": lambda index: {**index, "members": 3},
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_spoilt_index_is_built_anew(case: str, sharded: Path) -> None:
    path = _all(sharded)[0]
    good = open_index(path)
    file = sharded / INDEX_FOLDER / f"{path.name}.json"
    file.write_text(json.dumps(SPOILT[case](json.loads(file.read_text()))))
    assert open_index(path) == good
    file.write_bytes(file.read_bytes()[:50])
    assert open_index(path) == good


def test_long_work_says_that_it_goes_on(
    sharded: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read_shards(_all(sharded))
    assert not capsys.readouterr().err
    shutil.rmtree(sharded / INDEX_FOLDER)
    monkeypatch.setattr(progress, "SLOW_SECONDS", 0.0)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    read_shards(_all(sharded))
    assert "indexing shards, bytes: " in capsys.readouterr().err


# --- training ---


def test_training_on_shards_equals_training_on_the_folder(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the middle of an epoch and resumed, with two workers; the folder's run goes straight through."""
    rows = _rows(photos)
    for part, some in (("train", rows[::2]), ("val", rows[1::2])):
        for number, start in enumerate(range(0, len(some), 6)):
            write_tar(tmp_path / "tars" / f"{part}-{number}.tar", webdataset(some[start : start + 6], CLASSES))
        for name, label, content in some:
            target = tmp_path / "folder" / part / label / f"{name}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    (tmp_path / "tars" / "classes.json").write_text(json.dumps(dict(enumerate(CLASSES))))
    settings = pico("data.augment=trivial", "train.mixup=0.2", "train.batch_size=6")
    train("imagenette", data=tmp_path / "folder", out=tmp_path / "straight", settings=settings)
    original = Loop._train_step

    def stepping(self: Loop, *arguments: object) -> tuple[float, float]:
        if self.step + 1 == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_train_step", stepping)
        with pytest.raises(Preempted):
            train(
                "imagenette", data=tmp_path / "tars", out=tmp_path / "stopped", settings=[*settings, "data.workers=2"]
            )
    resume(tmp_path / "stopped")
    states = [checkpoint(tmp_path / run)["model"] for run in ("straight", "stopped")]
    assert states[0].keys() == states[1].keys()
    assert [name for name in states[0] if not torch.equal(states[0][name], states[1][name])] == []


# --- what cannot be used ---


def _tar_bytes(members: list[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _special(kind: bytes, name: str = "c.jpg", target: str = "../../etc/passwd") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        archive.addfile(info)
    return buffer.getvalue()


GOOD = [("a.jpg", b"A" * 700), ("a.cls", b"0"), ("b.jpg", b"B" * 700), ("b.cls", b"1")]
# GOOD takes 512 + 1024 + 512 + 512 bytes for a, and as many for b, which begins at byte 2560
BAD: dict[str, tuple[bytes, str]] = {
    "cut in an image": (_tar_bytes(GOOD)[:3400], r"cut off in b\.jpg, 372 bytes short; the last whole .* a: copy"),
    "cut before a label": (_tar_bytes(GOOD)[:4096], r"cut off at byte 4,096, before its end mark; .* is a: copy"),
    "cut in a header": (_tar_bytes(GOOD)[:2700], r"cut off at byte 2,700, .* the last whole sample is a:"),
    "cut before the end mark": (_tar_bytes(GOOD)[:5120], r"cut off at byte 5,120, .* the last whole sample is b:"),
    "cut in the first sample": (_tar_bytes(GOOD)[:900], r"cut off in a\.jpg, .* no sample is whole: copy"),
    "no label": (_tar_bytes([*GOOD, ("c.jpg", b"C")]), r"sample c has no label: neither c\.cls nor c\.json"),
    "no image": (_tar_bytes([*GOOD, ("c.cls", b"1")]), r"sample c has no image, only \.cls"),
    "two images": (_tar_bytes([*GOOD, ("b.png", b"C")]), r"sample b has 2 images"),
    "no label at all": (_tar_bytes([("a.jpg", b"A")]), r"a\.jpg has no label: .* nor a class folder"),
    "a label outside the classes": (
        _tar_bytes([*GOOD, ("c.jpg", b"C"), ("c.cls", b"2")]), r"0\.tar: sample c\.jpg has the label '2', .* 2 classes",
    ),
    "an unknown name": (
        _tar_bytes([*GOOD, ("c.jpg", b"C"), ("c.json", b'{"label": "cow"}')]), r"sample c\.jpg has the label 'cow'",
    ),
    "two numbers": (
        _tar_bytes([*GOOD, ("b.json", b'{"label": 0}')]), r"sample b has two labels, 1 in \.cls, and 0 in \.json",
    ),
    "two numbers, one of them a text": (_tar_bytes([*GOOD, ("b.json", b'{"cls": "0"}')]), r"sample b has two labels"),
    "two names": (
        _tar_bytes([
            ("a.jpg", b"A"), ("a.cls", b"1"), ("a.json", b'{"label": "dog", "cls": 1}'),
            ("b.jpg", b"B"), ("b.cls", b"1"), ("b.json", b'{"label": "cat"}'),
        ]),
        r"sample b has two labels, 1 in \.cls, which was 'dog' before, and 'cat' in \.json",
    ),
    "a negative label": (_tar_bytes([("a.jpg", b"A"), ("a.cls", b"-1")]), r"a\.cls holds '-1', not an integer"),
    "words in a .cls": (_tar_bytes([("a.jpg", b"A"), ("a.cls", b"cat")]), r"a\.cls holds 'cat', not an integer"),
    "JSON without a label": (_tar_bytes([("a.jpg", b"A"), ("a.json", b'{"size": 3}')]), r"a\.json has no label or cls"),
    "a label of another type": (_tar_bytes([("a.jpg", b"A"), ("a.json", b'{"label": 1.5}')]), r"has the label 1\.5"),
    "no JSON": (_tar_bytes([("a.jpg", b"A"), ("a.json", b"{")]), r"a\.json is not JSON"),
    "a key twice": (_tar_bytes([*GOOD, ("a.jpg", b"other")]), r"a\.jpg is in it twice"),
    "an empty tar": (_tar_bytes([]), r"0\.tar holds no image"),
    "no byte": (b"", r"0\.tar is empty \(0 bytes\)"),
    "no tar": (b"PK\x03\x04" + bytes(600), r"0\.tar is not a tar file"),
    "compressed": (gzip.compress(_tar_bytes(GOOD)), r"0\.tar is compressed, .*: gunzip it first"),
    "joined by cat": (_tar_bytes(GOOD) * 2, r"goes on after its end mark"),
    "a symbolic link": (_special(tarfile.SYMTYPE), r"c\.jpg is a symbolic link, which is never followed"),
    "a hard link": (_special(tarfile.LNKTYPE), r"c\.jpg is a hard link \(tar --hard-dereference"),
    "a device": (_special(tarfile.CHRTYPE), r"c\.jpg is neither a file nor a folder"),
    "a way out": (_tar_bytes([("x/../../c.jpg", b"C")]), r"leads out of the tar file"),
    "an absolute name": (_tar_bytes([("/c.jpg", b"C")]), r"leads out of the tar file"),
    "a flipped bit in a header": (
        _tar_bytes(GOOD)[:2570] + b"\xff" + _tar_bytes(GOOD)[2571:], r"is damaged at byte 2,560",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_one_clear_line_and_nothing_half_read(case: str, tmp_path: Path) -> None:
    content, message = BAD[case]
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "0.tar").write_bytes(content)
    (folder / "classes.json").write_text('["cat", "dog"]')
    with pytest.raises(ResnestError, match=message) as caught:
        open_dataset(folder)
    assert "\n" not in str(caught.value)
    assert "0.tar" in str(caught.value)
    assert {path.name for path in tmp_path.rglob("*")} <= {"set", "0.tar", "classes.json", INDEX_FOLDER, "0.tar.json"}


def test_a_packed_shard_is_named_and_not_overlooked(tmp_path: Path) -> None:
    (tmp_path / "train-0.tar.gz").write_bytes(gzip.compress(_tar_bytes(GOOD)))
    with pytest.raises(ResnestError, match="gunzip it first"):
        open_dataset(tmp_path)


def test_no_damage_is_worse_than_an_error(tmp_path: Path) -> None:
    """Every cut is noticed; a flipped byte is noticed, or it lies in a label or an image."""
    whole = _tar_bytes(class_folders([(f"{number}", f"c{number % 2}", b"x" * 300 * number) for number in range(8)]))
    end = len(whole.rstrip(b"\0"))
    chance = random.Random(0)
    path = tmp_path / "0.tar"
    for length in (chance.randrange(1, end) for _ in range(100)):
        path.write_bytes(whole[:length])
        with pytest.raises(ResnestError, match="cut off"):
            shards.build_index(path)
    for _ in range(300):
        place = chance.randrange(end)
        path.write_bytes(whole[:place] + bytes([chance.randrange(256)]) + whole[place + 1 :])
        try:
            assert len(shards.build_index(path).members) == 8
        except ResnestError:
            continue


def test_two_shards_of_one_name(rows: Labelled, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for place in (folder, folder / "train"):
        write_tar(place / "train-0.tar", webdataset(rows, CLASSES))
    with pytest.raises(ResnestError, match=r"two images are called train-0\.tar/"):
        open_dataset(folder)


def test_a_shard_cut_after_it_was_opened(sharded: Path, rows: Labelled) -> None:
    read = read_shards(_all(sharded))
    last = _all(sharded)[-1]
    last.write_bytes(last.read_bytes()[:600])
    with pytest.raises(Exception, match="is shorter than when it was opened"):
        read.decode(len(rows) - 1)


def test_the_doctor_looks_through_shards(sharded: Path, rows: Labelled, cli: Callable[..., object]) -> None:
    write_tar(sharded / "part-9.tar", [("odd.jpg", b"no photo"), ("odd.cls", b"1")])
    told = cli("doctor", "--data", sharded)
    assert told.code == 2  # type: ignore[attr-defined]
    assert "(tar)" in told.out  # type: ignore[attr-defined]
    assert "part-9.tar/odd.jpg: not a JPEG" in told.out  # type: ignore[attr-defined]

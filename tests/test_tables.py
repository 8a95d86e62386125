"""Parquet and Arrow: images become ranges of bytes, copied once from parquet; what a table lacks is named."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import serving
from forms import Labelled, table_of, webdataset, write_parquet, write_saved, write_tar
from resnest.data import parquet
from resnest.data.parquet import read_arrow, read_parquet
from resnest.data.sources import open_dataset, open_split
from resnest.errors import ResnestError

CLASSES = ["digit-0", "digit-1", "digit-2", "digit-3"]


@pytest.fixture
def rows(photos: Path) -> Labelled:
    return [(path.stem, path.parent.name, path.read_bytes()) for path in sorted(photos.rglob("*.jpg"))]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESNEST_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize("kind", ["struct", "binary", "large", "dictionary"])
@pytest.mark.parametrize("group", [3, 1000])
def test_rows_in_order_whatever_their_types(kind: str, group: int, rows: Labelled, tmp_path: Path) -> None:
    table = table_of(rows, CLASSES if kind == "struct" else ())
    if kind == "large":
        table = table.cast(pa.schema([("jpg", pa.large_binary()), ("label", pa.large_string())]))
    if kind == "dictionary":
        table = table.set_column(1, "label", table.column("label").dictionary_encode())
    path = tmp_path / "all.parquet"
    pq.write_table(table, path, row_group_size=group, compression="snappy" if group == 3 else "none")
    read = read_parquet([path])
    assert [read.store.read(key) for key in read.keys] == [content for *_, content in rows]
    assert [read.class_names[label] for label in read.labels] == [label for _, label, _ in rows]
    assert read.keys[5] == "all.parquet/000005" + (f"/{rows[5][0]}.jpg" if kind == "struct" else "")
    assert pickle.loads(pickle.dumps(read.store)).read(read.keys[5]) == rows[5][2]


def test_numbers_are_classes_where_there_are_no_names(rows: Labelled, tmp_path: Path) -> None:
    plain = table_of(rows, CLASSES).replace_schema_metadata(None)
    pq.write_table(plain, tmp_path / "train.parquet")
    splits = open_dataset(tmp_path / "train.parquet")
    assert (splits.format, splits.train.class_names) == ("parquet", ("0", "1", "2", "3"))
    assert splits.unsplit is not None


def test_images_are_copied_once_and_anew_for_a_changed_file(
    rows: Labelled, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Path] = []
    original = parquet._copy_images
    monkeypatch.setattr(parquet, "_copy_images", lambda path, file: (calls.append(path), original(path, file))[1])
    path = write_parquet(tmp_path / "all.parquet", rows, CLASSES)
    for _ in range(2):
        assert len(read_parquet([path])) == len(rows)
    assert len(calls) == 1
    write_parquet(path, rows[:-1], CLASSES)
    assert len(read_parquet([path])) == len(rows) - 1
    copies = list((home / "tables").glob("*.bin"))
    assert [copy.stat().st_size for copy in copies] == [sum(len(content) for *_, content in rows[:-1])]
    copies[0].write_bytes(copies[0].read_bytes()[:100])  # a copy that was cut off is made again
    read = read_parquet([path])
    assert read.store.read(read.keys[-1]) == rows[-2][2]
    home.rename(tmp_path / "moved")
    monkeypatch.setenv("RESNEST_HOME", str(tmp_path / "moved"))
    calls.clear()
    read = read_parquet([path])
    assert read.store.read(read.keys[0]) == rows[0][2]
    assert not calls


def test_where_the_copy_does_not_fit(
    rows: Labelled, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_parquet(tmp_path / "all.parquet", rows, CLASSES)
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda folder: full)
        with pytest.raises(ResnestError, match="RESNEST_HOME=FOLDER moves it"):
            read_parquet([path])
    assert not list((home / "tables").glob("[!.]*"))
    shutil.rmtree(home)
    home.write_text("in the way")
    with pytest.raises(ResnestError, match=r"cannot be unpacked into .*RESNEST_HOME=FOLDER moves it"):
        read_parquet([path])


def test_a_saved_data_set_is_read_in_place(rows: Labelled, tmp_path: Path, home: Path) -> None:
    saved = write_saved(tmp_path / "saved", {"train": rows}, CLASSES)
    for place in ("saved", "saved", "elsewhere"):
        if place == "elsewhere":
            saved.rename(tmp_path / place)
        whole = open_dataset(tmp_path / place).unsplit
        assert whole is not None
        assert [whole.store.read(key) for key in whole.keys] == [content for *_, content in rows]
    assert open_dataset(tmp_path / "elsewhere" / "train").format == "arrow"  # one part alone
    assert not (home / "tables").exists()


def test_several_files_must_agree(rows: Labelled, tmp_path: Path) -> None:
    write_parquet(tmp_path / "set" / "train-0.parquet", rows, CLASSES)
    write_parquet(tmp_path / "set" / "train-1.parquet", rows, CLASSES[::-1])
    with pytest.raises(ResnestError, match=r"train-1\.parquet has other class names than .*train-0\.parquet"):
        open_dataset(tmp_path / "set")


# --- what cannot be used ---


def _changed(**columns: Any) -> Callable[[Labelled], pa.Table]:
    """The table with columns replaced, or dropped by None."""

    def make(rows: Labelled) -> pa.Table:
        table = table_of(rows, CLASSES)
        for name, values in columns.items():
            table = table.drop_columns([name])
            if values is not None:
                column = pa.array(values(rows) if callable(values) else values)
                table = table.append_column(name, column)
        return table

    return make


def _with(place: int, value: Any) -> Callable[[Labelled], list[Any]]:
    def make(rows: Labelled) -> list[Any]:
        labels: list[Any] = [CLASSES.index(label) for _, label, _ in rows]
        labels[place] = value
        return labels

    return make


def _images(value: Any) -> Callable[[Labelled], list[Any]]:
    return lambda rows: [
        {"bytes": rows[0][2], "path": None},
        value,
        *({"bytes": raw, "path": None} for *_, raw in rows[2:]),
    ]


BAD: dict[str, tuple[Callable[[Labelled], pa.Table], str]] = {
    "no image column": (
        lambda rows: pa.table({"text": ["a"], "label": [0]}),
        r"no image column: expected one of image, .*; it has text \(string\), label \(int64\)",
    ),
    "no label column": (
        lambda rows: pa.table({"image": [b"x"], "score": [0.5]}),
        r"no label column: .*; it has image \(binary\), score \(double\)",
    ),
    "two image columns": (
        lambda rows: pa.table({"left": [b"x"], "right": [b"x"], "label": [0]}),
        r"2 image columns \(left, right\): call the one meant 'image'",
    ),
    "an empty label": (_changed(label=_with(1, None)), r"row 1: column label is empty"),
    "an empty image": (_changed(image=_images(None)), r"row 1: column image is empty"),
    "a path without bytes": (
        _changed(image=_images({"bytes": None, "path": "far/away.jpg"})),
        r"row 1: .* names the file away\.jpg but holds no bytes: embed",
    ),
    "a label outside the names": (_changed(label=_with(2, 4)), r"row 2: label 4 is none of the 4 classes"),
    "a hidden label": (_changed(label=_with(2, -1)), r"label -1 is none of .*hidden label"),
    "a negative label": (lambda rows: pa.table({"image": [b"x"], "label": [-3]}), r"row 0: label -3 is negative"),
    "no rows": (lambda rows: table_of(rows, CLASSES).slice(0, 0), r"has no rows"),
}


@pytest.mark.parametrize("case", BAD)
def test_one_clear_line(case: str, rows: Labelled, tmp_path: Path) -> None:
    make, message = BAD[case]
    pq.write_table(make(rows), tmp_path / "all.parquet")
    with pytest.raises(ResnestError, match=message) as caught:
        open_dataset(tmp_path / "all.parquet")
    assert "all.parquet" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_files_that_are_cut_off(share: float, rows: Labelled, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "all.parquet", rows, CLASSES)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    saved = write_saved(tmp_path / "saved", {"train": rows}, CLASSES)
    part = saved / "train" / "data-00001-of-00002.arrow"
    part.write_bytes(part.read_bytes()[: int(part.stat().st_size * share)])
    for where in (path, saved):
        with pytest.raises(ResnestError, match=r"(all\.parquet|00002\.arrow) is cut off or damaged") as caught:
            open_dataset(where)
        assert "\n" not in str(caught.value)


def test_damage_in_the_middle_of_a_parquet_file(rows: Labelled, tmp_path: Path, home: Path) -> None:
    path = write_parquet(tmp_path / "all.parquet", rows, CLASSES)
    raw = path.read_bytes()
    path.write_bytes(raw[:3000] + bytes(2000) + raw[5000:])
    with pytest.raises(ResnestError, match=r"all\.parquet is cut off or damaged"):
        read_parquet([path])
    assert not list((home / "tables").glob("[!.]*"))


def test_compressed_arrow_cannot_be_read_in_place(rows: Labelled, tmp_path: Path) -> None:
    saved = write_saved(tmp_path / "saved", {"train": rows}, CLASSES)
    table = table_of(rows, CLASSES)
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    path = str(saved / "train" / "data-00000-of-00002.arrow")
    with pa.OSFile(path, "wb") as file, pa.ipc.new_stream(file, table.schema, options=options) as stream:
        stream.write_table(table)
    with pytest.raises(ResnestError, match="is compressed"):
        read_arrow([saved / "train"])


@pytest.mark.parametrize("name", ["state.json", "dataset_dict.json"])
def test_notes_of_a_saved_data_set_that_say_nothing(name: str, rows: Labelled, tmp_path: Path) -> None:
    saved = write_saved(tmp_path / "saved", {"train": rows}, CLASSES)
    place = saved if name.startswith("dataset") else saved / "train"
    (place / name).write_text("[]")
    with pytest.raises(ResnestError, match=name):
        open_dataset(saved)


# --- the hub ---

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, list[str]]]:
    """The hub's two addresses for data sets on a real server: the folder of repositories, and what was fetched."""
    import huggingface_hub.constants as constants

    root, fetched = tmp_path / "hub", list[str]()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, *, with_body: bool) -> None:
            head, _, rest = self.path.lstrip("/").partition("/resolve/")
            if head.startswith("api/datasets/"):
                repo, _, revision = head.removeprefix("api/datasets/").partition("/revision/")
                files = sorted(file for file in (root / repo).rglob("*") if file.is_file())
                if not files or revision not in ("", "v1", COMMIT):
                    self._send(404, b"", {"X-Error-Code": "RevisionNotFound" if files else "RepoNotFound"})
                    return
                names = [{"rfilename": file.relative_to(root / repo).as_posix()} for file in files]
                self._send(200, json.dumps({"id": repo, "sha": COMMIT, "siblings": names}).encode(), {})
                return
            commit, _, name = rest.partition("/")
            if not name:  # what else huggingface_hub asks for
                self._send(404, b"", {})
                return
            content = (root / head.removeprefix("datasets/") / name).read_bytes() if commit == COMMIT else b""
            if with_body:
                fetched.append(name)
            self._send(
                200, content if with_body else b"", {"X-Repo-Commit": commit, "ETag": f'"{len(content)}"'}, len(content)
            )

        def _send(self, status: int, body: bytes, headers: dict[str, str], length: int | None = None) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body) if length is None else length)}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    with serving(Handler) as url:
        monkeypatch.delenv("RESNEST_OFFLINE")
        monkeypatch.setenv("HF_ENDPOINT", url)
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
        yield root, fetched


def test_a_data_set_of_the_hub(
    hub: tuple[Path, list[str]], rows: Labelled, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, fetched = hub
    write_parquet(root / "me/digits/data/train-00000-of-00002.parquet", rows[:20], CLASSES)
    write_parquet(root / "me/digits/data/train-00001-of-00002.parquet", rows[20:], CLASSES)
    write_parquet(root / "me/digits/data/validation-00000-of-00001.parquet", rows[::3], CLASSES)
    (root / "me/digits/README.md").write_text("card")
    part = open_split("hf:me/digits", "val")
    assert fetched == ["data/validation-00000-of-00001.parquet"]  # nothing that is not asked for
    assert part.describe.startswith(f"hf:me/digits@{COMMIT} (parquet): {len(rows[::3])} validation images")
    with monkeypatch.context() as offline:
        offline.setenv("RESNEST_OFFLINE", "1")
        for reference in ("hf:me/digits", f"hf:me/digits@{COMMIT}"):
            assert len(open_split(reference, "val").samples) == len(rows[::3])
        with pytest.raises(ResnestError, match=r"train-0+-of-00002\.parquet is not in the hub's cache"):
            open_dataset("hf:me/digits")
        with pytest.raises(ResnestError, match="hf:me/digits@v1 has not been opened before, and the network is off"):
            open_dataset("hf:me/digits@v1")
    splits = open_dataset("hf:me/digits@v1")
    assert (splits.format, len(splits.train), len(splits.val)) == ("parquet", len(rows), len(rows[::3]))
    assert [splits.train.store.read(key) for key in splits.train.keys] == [content for *_, content in rows]
    assert len(fetched) == 3


def test_shards_of_the_hub(hub: tuple[Path, list[str]], rows: Labelled, home: Path) -> None:
    root, _ = hub
    for part, some in (("train", rows[::2]), ("validation", rows[1::2])):
        write_tar(root / f"me/shards/set-{part}-0000.tar", webdataset(some, CLASSES))
    splits = open_dataset("hf:me/shards")
    assert (splits.format, len(splits.train), len(splits.val)) == ("tar", len(rows[::2]), len(rows[1::2]))
    assert splits.train.class_names == ("0", "1", "2", "3")
    assert not list((home.parent / "hf").rglob(".resnest-index"))  # the hub's cache is left as it was
    assert list((home / "index").rglob("*.json"))


def test_what_the_hub_cannot_give(hub: tuple[Path, list[str]], rows: Labelled, monkeypatch: pytest.MonkeyPatch) -> None:
    root, _ = hub
    for name in ("small", "large"):
        write_parquet(root / f"me/two/{name}/train/0000.parquet", rows, CLASSES)
    (root / "me/none").mkdir()
    (root / "me/none/README.md").write_text("card")
    where = open_dataset("hf:me/two/small").where
    assert where == f"hf:me/two/small@{COMMIT}"
    assert open_dataset(where).where == where
    for reference, message in {
        "hf:me/two": r"holds 2 data sets: choose one, as in hf:me/two/large \(large, small\)",
        "hf:me/two/medium": r"no parquet or tar file in its folder medium",
        "hf:me/none": r"no parquet or tar file; .* hf:me/none@refs/convert/parquet",
        "hf:me/nothing": r"hf:me/nothing cannot be opened: .*",
        "hf:me/two@v9": r"hf:me/two@v9 cannot be opened: .*",
        "hf:digits": r"expected hf:OWNER/NAME",
    }.items():
        with pytest.raises(ResnestError, match=message) as caught:
            open_dataset(reference)
        assert "\n" not in str(caught.value)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ResnestError, match="no connection"):
        open_dataset("hf:me/two/small")

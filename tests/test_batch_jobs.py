"""Batch jobs: every picture once, whatever happens to the process; what a job refuses; its forms and its lists."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from conftest import Outcome, small_file_system
from resnest import Model
from resnest.batch.parts import Part, find_parts, gaps
from resnest.exporters.exporting import export
from servers import CLASSES, PREPROCESS, until
from small import small

COUNT = 120
BAD = {"broken.jpg": b"\xff\xd8\xff no picture", "empty.png": b""}
PART = ("--part-size", "4", "--batch-size", "4")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small model of each task; the classifier as an exported file."""
    folder = tmp_path_factory.mktemp("models")
    saved = {
        task: Model.of(small(task), CLASSES, PREPROCESS[task]).save_pretrained(folder / task) for task in PREPROCESS
    }
    saved["classification"] = export(saved["classification"], out=folder / "small.onnx", format="onnx").path
    return saved


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures that differ, and two files that are none."""
    folder = tmp_path_factory.mktemp("batch") / "photos"
    (folder / "more").mkdir(parents=True)
    for number in range(COUNT):
        colour = (number * 2, 255 - number, number * 7 % 256)
        Image.new("RGB", (20 + number % 9, 24), colour).save(folder / ("more" if number % 3 else "") / f"{number}.jpg")
    for name, content in BAD.items():
        (folder / name).write_bytes(content)
    return folder


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "resnest", "predict", *map(str, words)]


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of any form."""
    if path.suffix == ".parquet":
        return pq.ParquetFile(path).read().to_pylist()
    text = path.read_bytes().decode()
    if path.suffix == ".csv":
        return [*csv.DictReader(io.StringIO(text, newline=""))]
    return [json.loads(line) for line in text.splitlines()]


def names_of(path: Path) -> list[str]:
    return [row["image"] for row in rows_of(path)]


def left(out: Path) -> list[str]:
    """What a job leaves beside its results."""
    return sorted(path.name for path in out.parent.iterdir() if path.name.startswith(".") or path.name == out.name)


# --- Killed again and again: the same file as without ---


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
def test_kill_9_loses_and_repeats_nothing(
    suffix: str, found: dict[str, Path], photos: Path, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    whole, out = tmp_path / f"whole{suffix}", tmp_path / f"out{suffix}"
    assert cli("predict", found["classification"], photos, "--out", whole, *PART).code == 2
    folder = tmp_path / f".{out.name}.parts"
    random.seed(suffix)
    kills, reached = 0, -1
    while kills < 4:
        process = subprocess.Popen(
            command(found["classification"], photos, "--out", out, *PART), stderr=subprocess.DEVNULL
        )
        until(lambda process=process, reached=reached: process.poll() is not None or parts_in(folder) > reached)
        time.sleep(random.uniform(0, 0.02))
        process.kill()
        if process.wait() != -signal.SIGKILL:
            break  # it was quicker
        kills, reached = kills + 1, parts_in(folder)
    assert kills >= 2, "it was quicker than kills"
    outcome = cli("predict", found["classification"], photos, "--out", out, *PART)
    assert (outcome.code, "2 of 122 images could not be used" in outcome.err) == (2, True)
    assert out.read_bytes() == whole.read_bytes()
    names = names_of(out)
    assert len(names) == len(set(names)) == COUNT + len(BAD)
    assert left(out) == sorted([f".{out.name}.json", f".{whole.name}.json", out.name])


def parts_in(folder: Path) -> int:
    return len([*folder.glob("part-*")])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_after_the_batch(number: int, found: dict[str, Path], photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    line = command(found["classification"], photos, "--out", out, "--batch-size", "2")
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
    with process:
        assert process.stderr
        for text in process.stderr:
            if text.startswith("skipped:"):  # it is predicting
                break
        process.send_signal(number)
        said = process.stderr.read()
        assert (process.wait(60), "resnest: stopped after" in said) == (75, True), said
    assert "the same command goes on" in said
    again = subprocess.run(line, stderr=subprocess.PIPE, text=True)
    assert "going on after" in again.stderr
    assert len(set(names_of(out))) == len(names_of(out)) == COUNT + len(BAD)


def test_a_full_disk_keeps_what_is_finished(
    found: dict[str, Path], photos: Path, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    with small_file_system(tmp_path / "disk", "256k") as disk:
        out, filler = disk / "out.jsonl", disk / "filler"
        line = ("predict", found["classification"], photos, "--out", out, *PART)
        filler.write_bytes(bytes(4096 * 40))
        outcome = cli(*line)
        assert outcome.code == 2
        assert outcome.err.splitlines()[-1] == (
            f"resnest: {out} cannot be written: No space left on device. Finished parts are kept: the same command"
            " goes on"
        )
        assert parts_in(disk / ".out.jsonl.parts") > 1
        filler.unlink()
        outcome = cli(*line)
        assert "going on after" in outcome.err
        assert len(set(names_of(out))) == len(names_of(out)) == COUNT + len(BAD)


# --- Rows ---


@pytest.mark.parametrize("task", ["classification", "detection", "segmentation", "panoptic"])
def test_rows_are_those_of_predict(
    task: str, found: dict[str, Path], photos: Path, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    some = [photos / "0.jpg", photos / "3.jpg", photos / "broken.jpg"]
    options = ["--threshold", "0"] if task == "detection" else []
    printed = [json.loads(line) for line in cli("predict", found[task], *some, "--json", *options).out.splitlines()]
    for suffix in (".jsonl", ".csv", ".parquet"):
        out = tmp_path / f"o{suffix}"
        outcome = cli("predict", found[task], *some, "--out", out, "--json", *options)
        assert (outcome.code, json.loads(outcome.out)) == (2, {"out": str(out), "pictures": 3, "unusable": 1})
    *good, bad = rows_of(tmp_path / "o.jsonl")
    assert good == printed
    assert list(bad) == ["image", "error"]
    assert bad["error"] == "not a JPEG, PNG, WEBP, BMP or GIF image"
    table = cli("predict", found[task], *some, "--csv", *options).out.splitlines()
    rows = rows_of(tmp_path / "o.csv")
    assert [*rows[0]] == [*table[0].split(","), "error"]
    assert [",".join([*row.values()][:-1]) for row in rows[:-1]] == table[1:]
    typed = rows_of(tmp_path / "o.parquet")
    for row, text in zip(typed, rows, strict=True):
        for name, value in row.items():
            assert (
                float(text[name]) == pytest.approx(value, abs=0.006)
                if isinstance(value, int | float)
                else text[name] == (value or "")
            )


def test_a_picture_without_objects_has_a_row(
    found: dict[str, Path], photos: Path, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    out = tmp_path / "o.parquet"
    assert cli("predict", found["detection"], photos / "0.jpg", "--threshold", "1", "--out", out).code == 0
    [row] = rows_of(out)
    assert row.pop("image") == str(photos / "0.jpg")
    assert {*row.values()} == {None}
    assert str(pq.read_schema(out).field("score").type) == "double"


# --- Lists ---


def _tar(path: Path, files: list[Path]) -> Path:
    with tarfile.open(path, "w") as archive:
        for file in files:
            archive.add(file, file.name)
            archive.addfile(tarfile.TarInfo(f"{file.stem}.cls"))
    return path


def _text(path: Path, files: list[Path]) -> Path:
    path.write_text("".join(f"{file}\n" for file in files))
    return path


def _zeros(path: Path, files: list[Path]) -> Path:
    path.write_bytes(b"".join(bytes(file) + b"\0" for file in files))
    return path


def _table(path: Path, files: list[Path]) -> Path:
    path.write_text("label,path\n" + "".join(f"a,{file}\nb,{file}\n" for file in files))
    return path


LISTS: dict[str, tuple[str, Callable[[Path, list[Path]], Path]]] = {
    "text": ("l.txt", _text),
    "find -print0": ("l.lst", _zeros),
    "table, each file twice": ("l.csv", _table),
    "tar with labels": ("l.tar", _tar),
}


@pytest.mark.parametrize(("name", "write"), LISTS.values(), ids=LISTS)
def test_lists(
    name: str,
    write: Callable[[Path, list[Path]], Path],
    found: dict[str, Path],
    photos: Path,
    tmp_path: Path,
    cli: Callable[..., Outcome],
) -> None:
    files = [photos / f"{number}.jpg" for number in (6, 0, 3)]
    listed, out = write(tmp_path / name, files), tmp_path / "o.parquet"
    assert cli("predict", found["classification"], listed, "--out", out).code == 0
    expected = [f"{listed}/{file.name}" if name.endswith(".tar") else str(file) for file in files]
    assert names_of(out) == expected
    direct = tmp_path / "direct.parquet"
    cli("predict", found["classification"], *files, "--out", direct)
    assert [row["score"] for row in rows_of(out)] == [row["score"] for row in rows_of(direct)]


@pytest.mark.parametrize("name", ["photos.tar.gz", "photos.tgz", "photos.tar.bz2", "photos.tar.xz", "photos.tar"])
def test_compressed_tars_are_refused(
    name: str, found: dict[str, Path], photos: Path, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    kind = {"bz2": "w:bz2", "xz": "w:xz"}.get(name.rpartition(".")[2], "w:gz")
    with tarfile.open(tmp_path / name, kind) as archive:  # type: ignore[call-overload]
        archive.add(photos / "0.jpg", "0.jpg")
    outcome = cli("predict", found["classification"], tmp_path / name, "--out", tmp_path / "o.csv")
    assert (outcome.code, "is compressed" in outcome.err) == (2, True), outcome.err
    assert not (tmp_path / "o.csv").exists()


def test_standard_input_and_repeated_names(found: dict[str, Path], photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.csv"
    names = "\n".join(str(photos / name) for name in ("0.jpg", "3.jpg", "0.jpg", "6.jpg", "3.jpg"))
    line = command(found["classification"], "-", "--out", out)
    first = subprocess.run(line, input=names, capture_output=True, text=True)
    assert (first.returncode, "note: 2 names occur again: each picture counts once" in first.stderr) == (0, True)
    assert names_of(out) == [str(photos / name) for name in ("0.jpg", "3.jpg", "6.jpg")]
    again = subprocess.run(line, input=names, capture_output=True, text=True)
    assert f"{out} was finished before" in again.stderr
    other = subprocess.run(line, input=names[: names.index("\n")], capture_output=True, text=True)
    assert (other.returncode, "another list (3 pictures then, 1 pictures now)" in other.stderr) == (2, True)


def test_odd_names_and_a_deep_tar(
    found: dict[str, Path], photos: Path, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    """Names that are no text, with a new line, with commas; in every form."""
    odd = tmp_path / "odd"
    odd.mkdir()
    for name in (b"\xff.jpg", b"a\nb.jpg", b'c,"d".jpg', "é.jpg".encode()):
        shutil.copy(photos / "0.jpg", os.path.join(os.fsencode(odd), name))
    for suffix in (".parquet", ".jsonl", ".csv"):
        out = tmp_path / f"o{suffix}"
        assert cli("predict", found["classification"], odd, "--out", out).code == 0
        assert [name.removeprefix(f"{odd}/") for name in names_of(out)] == [
            "a\nb.jpg", 'c,"d".jpg', "é.jpg", "\\udcff.jpg" if suffix != ".jsonl" else "\udcff.jpg",
        ]  # fmt: skip


# --- Shards ---


@pytest.mark.parametrize("count", [1, 3, 7, 200])
def test_shards_have_each_picture_once(
    count: int, found: dict[str, Path], photos: Path, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    files = [photos / f"{number}.jpg" for number in range(0, 60, 3)]
    chosen = [1, 7, count] if count == 200 else range(1, count + 1)
    names = []
    for number in chosen:
        for _ in range(2):  # again: nothing happens
            outcome = cli(
                "predict", found["classification"], *files, "--out", tmp_path / "o.csv", "--shard", f"{number}/{count}"
            )
            assert outcome.code == 0, outcome.err
        out = tmp_path / ("o.csv" if count == 1 else f"o-{number:05}-of-{count:05}.csv")
        assert "was finished before" in outcome.err
        names += names_of(out)
    if count < 200:
        assert names == [str(file) for file in files]
    else:
        assert names == [str(files[-1])]  # a shard without pictures is an empty table


def test_a_folder_of_shards_is_one_table(
    found: dict[str, Path], photos: Path, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    """One of them without pictures, one without objects, and one whose job still runs."""
    folder = tmp_path / "results"
    folder.mkdir()
    words = ("predict", found["detection"], photos / "0.jpg", photos / "3.jpg", "--out", folder / "o.parquet")
    for number, threshold in ((1, 0), (2, 0), (3, 1)):
        assert cli(*words, "--shard", f"{number}/3", "--threshold", threshold).code == 0
    running = folder / ".p.parquet.parts"
    running.mkdir()
    shutil.copy(folder / "o-00003-of-00003.parquet", running / f"{Part(0, 1, 0).stem}.parquet")
    table = pq.read_table(folder)
    assert [*dict.fromkeys(table.column("image").to_pylist())] == [str(photos / "0.jpg"), str(photos / "3.jpg")]
    assert str(table.schema.field("x").type) == "double"


# --- What is refused, and goes on only with --overwrite ---


def as_begun(out: Path) -> None:
    """What a kill just before the end leaves of a finished job."""
    finished, parts = out.with_name(f".{out.name}.json"), out.with_name(f".{out.name}.parts")
    record = json.loads(finished.read_text())
    parts.mkdir()
    (parts / "job.json").write_text(json.dumps(record["job"]))
    finished.unlink()
    out.unlink()


def _other_model(found: dict[str, Path], photos: Path, tmp_path: Path) -> list[object]:
    return [found["segmentation"], photos / "0.jpg"]


REFUSED: dict[str, tuple[Callable[[dict[str, Path], Path, Path], list[object]], str]] = {
    "other model": (
        _other_model,
        "was begun with another engine (onnxruntime then, torch now), another model: repeat that command",
    ),
    "other option": (
        lambda found, photos, tmp_path: [found["classification"], photos / "0.jpg", "--top", 2],
        "another choice of results (none then, top 2 now)",
    ),
    "other list": (
        lambda found, photos, tmp_path: [found["classification"], photos / "0.jpg", photos / "3.jpg"],
        "another list (1 pictures then, 2 pictures now)",
    ),
    "same length": (
        lambda found, photos, tmp_path: [found["classification"], photos / "3.jpg"],
        "was begun with another list: repeat that command",
    ),
}


@pytest.mark.parametrize("begun", [False, True], ids=["finished", "begun"])
@pytest.mark.parametrize(("words", "message"), REFUSED.values(), ids=REFUSED)
def test_another_job_is_refused(
    words: Callable[[dict[str, Path], Path, Path], list[object]],
    message: str,
    begun: bool,
    found: dict[str, Path],
    photos: Path,
    tmp_path: Path,
    cli: Callable[..., Outcome],
) -> None:
    out = tmp_path / "o.csv"
    assert cli("predict", found["classification"], photos / "0.jpg", "--out", out).code == 0
    if begun:
        as_begun(out)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != "lock"}
    line = ("predict", *words(found, photos, tmp_path), "--out", out)
    outcome = cli(*line)
    assert (outcome.code, message in outcome.err) == (2, True), outcome.err
    assert {path: path.read_bytes() for path in before} == before
    assert cli(*line, "--overwrite").code == 0
    assert "was finished before" in cli(*line, "--overwrite").err


@pytest.mark.parametrize("begun", [False, True], ids=["finished", "begun"])
@pytest.mark.parametrize(
    ("tiles", "now"),
    [
        (["--tile", "40"], "tile 40, overlap 0.2"),
        (["--tile", "32", "--overlap", "0.5"], "tile 32, overlap 0.5"),
        ([], "none"),
    ],
)
def test_other_tiles_are_another_job(
    tiles: list[str],
    now: str,
    begun: bool,
    found: dict[str, Path],
    photos: Path,
    tmp_path: Path,
    cli: Callable[..., Outcome],
) -> None:
    out = tmp_path / "o.jsonl"
    line = ("predict", found["segmentation"], photos / "0.jpg", photos / "3.jpg", "--out", out)
    assert cli(*line, "--tile", 32).code == 0
    if begun:
        as_begun(out)
    outcome = cli(*line, *tiles)
    assert outcome.code == 2
    assert f"was begun with another choice of tiles (tile 32, overlap 0.2 then, {now} now)" in outcome.err
    assert cli(*line, "--tile", 32).code == 0


BAD_OPTIONS: dict[str, tuple[list[str], str]] = {
    "suffix": (["--out", "o.xlsx"], "o.xlsx: expected a file whose name ends with .parquet, .jsonl, .csv"),
    "no folder": (["--out", "none/o.csv"], "none/o.csv cannot be written: there is no folder none"),
    "folder": (["--out", "folder.csv"], "folder.csv is a folder: name a file"),
    "somebody's": (["--out", "mine.csv", "--overwrite"], "mine.csv is there already, and nothing says that resnest"),
    "shard 0": (["--out", "o.csv", "--shard", "0/4"], "--shard 0/4: expected i/n, from 1/4 to 4/4"),
    "shard 5": (["--out", "o.csv", "--shard", "5/4"], "--shard 5/4: expected i/n, from 1/4 to 4/4"),
    "shard of none": (["--out", "o.csv", "--shard", "three"], "--shard three: expected i/n, from 1/16 to 16/16"),
    "shard alone": (["--shard", "1/2"], "--shard is for a batch job: name its results with --out"),
    "ray alone": (["--ray"], "--ray is for a batch job"),
    "drawings": (["--out", "o.csv", "--draw", "d"], "--out writes rows alone: leave out --draw"),
    "csv": (["--out", "o.csv", "--csv"], "--out writes rows alone: leave out --csv"),
    "of another task": (["--out", "o.csv", "--threshold", "0.1"], "--threshold is for"),
}


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS.values(), ids=BAD_OPTIONS)
def test_bad_options(
    options: list[str],
    message: str,
    found: dict[str, Path],
    photos: Path,
    tmp_path: Path,
    cli: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.csv").write_text("by hand\n")
    (tmp_path / "folder.csv").mkdir()
    outcome = cli("predict", found["classification"], photos / "0.jpg", *options)
    assert (outcome.code, len(outcome.err.splitlines()), outcome.out) == (2, 1 + ("engine:" in outcome.err), "")
    assert message in outcome.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.csv", "mine.csv"]


def test_results_that_were_changed_afterwards_are_somebody_elses(
    found: dict[str, Path], photos: Path, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    out = tmp_path / "o.csv"
    line = ("predict", found["classification"], photos / "0.jpg", "--out", out)
    assert cli(*line).code == 0
    out.write_text(out.read_text() + "a note\n")
    outcome = cli(*line, "--overwrite")
    assert (outcome.code, "nothing says that resnest wrote it" in outcome.err) == (2, True)
    assert out.read_text().endswith("a note\n")


def test_two_processes_at_once(
    found: dict[str, Path], photos: Path, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    out = tmp_path / "o.csv"
    line = command(found["classification"], "-", "--out", out)
    process = subprocess.Popen(line, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    until(lambda: (tmp_path / ".o.csv.parts").exists())
    outcome = cli("predict", found["classification"], photos / "0.jpg", "--out", out)
    assert (outcome.code, f"another process is writing {out}" in outcome.err) == (2, True)
    process.communicate(str(photos / "0.jpg"), timeout=60)
    assert process.returncode == 0
    assert names_of(out) == [str(photos / "0.jpg")]


# --- Parts ---

GAPS: dict[str, tuple[list[tuple[int, int]], list[tuple[int, int]]]] = {
    "none": ([], [(0, 10)]),
    "all": ([(0, 10)], []),
    "a hole": ([(0, 3), (5, 10)], [(3, 5)]),
    "start and end": ([(2, 4), (6, 8)], [(0, 2), (4, 6), (8, 10)]),
    "overlap: the longer": ([(0, 3), (0, 6), (3, 7)], [(6, 10)]),
    "overlap in the middle": ([(0, 4), (2, 6), (4, 10)], []),
}


@pytest.mark.parametrize(("parts", "missing"), GAPS.values(), ids=GAPS)
def test_gaps(parts: list[tuple[int, int]], missing: list[tuple[int, int]], tmp_path: Path) -> None:
    for start, stop in parts:
        (tmp_path / f"{Part(start, stop, 0).stem}.csv").touch()
    (tmp_path / f".{Part(0, 10, 0).stem}.csv.17.tmp").touch()  # of a process that was killed
    assert gaps(find_parts(tmp_path, ".csv"), 0, 10) == missing


# --- Ray ---


def workers(process: int) -> list[int]:
    """The processes that run tasks below a process."""
    return [pid for pid in _below(process) if b"ray::work" in _line(pid)]


def _below(process: int) -> list[int]:
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = [process]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]


def _line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.timeout(200)
def test_ray_with_a_worker_that_is_killed(
    found: dict[str, Path],
    photos: Path,
    tmp_path: Path,
    cli: Callable[..., Outcome],
) -> None:
    if not importlib.util.find_spec("ray"):
        pytest.skip("needs ray, the extra `cluster`")
    whole, out = tmp_path / "whole.csv", tmp_path / "out.csv"
    small = ("--part-size", "1", "--batch-size", "1")
    assert cli("predict", found["classification"], photos, "--out", whole, *small).code == 2
    process = subprocess.Popen(
        command(found["classification"], photos, "--out", out, "--ray", *small), stderr=subprocess.PIPE, text=True
    )
    folder = tmp_path / ".out.csv.parts"
    until(lambda: process.poll() is not None or (parts_in(folder) > 8 and workers(process.pid)))
    killed = workers(process.pid)[:1]
    assert killed, process.stderr and process.stderr.read()
    os.kill(killed[0], signal.SIGKILL)
    said = process.communicate(timeout=150)[1]
    assert (process.returncode, "2 of 122 images could not be used" in said) == (2, True), said
    assert out.read_bytes() == whole.read_bytes()

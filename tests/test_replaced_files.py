"""Files that are there: the input is never replaced, commands replace what resnest wrote, and nobody else's files.

`predict --draw`, `--masks`, `--coco` and `doctor --html`: tests/test_own_output.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import Outcome, pico
from resnest.bench.table import Table, is_table, write_table
from resnest.checkpoints.convert import convert
from resnest.classification.result import Classification
from resnest.detection.result import CocoFile
from resnest.errors import ResnestError
from resnest.exporters.formats import FORMATS
from resnest.exporters.writing import check_target
from resnest.panoptic.result import PanopticClasses, PanopticFolder
from resnest.training.run import RunDirectory
from resnest.training.train import train

Cli = Callable[..., Outcome]
MINE = b"mine, and of nobody else"
RUN = {"data": "photos", "class_names": ["a"], "train_images": 1}


@pytest.mark.parametrize("suffix", [".png", ".json", ".csv"])
@pytest.mark.parametrize("way", ["itself", "by a relative path", "link", "hard link"])
def test_a_result_is_never_saved_over_its_picture(
    way: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    picture = tmp_path / f"photo{suffix}"  # whatever it is called
    Image.new("RGB", (32, 24), (9, 9, 9)).save(picture, "PNG")
    held = picture.read_bytes()
    out = tmp_path / f"out{suffix}"
    if way == "link":
        out.symlink_to(picture)
    elif way == "hard link":
        os.link(picture, out)
    else:
        out = Path(picture.name) if way == "by a relative path" else picture
    result = Classification(str(picture), ("a", "b"), np.array([0.4, 0.6], np.float32))
    with pytest.raises(ResnestError, match="is the picture that was predicted: name another"):
        result.save(out, picture if suffix == ".png" else None)
    assert picture.read_bytes() == held
    other = tmp_path / f"other{suffix}"
    for _ in range(2):  # as Pillow's save and pandas' to_csv do, a path that is named is replaced
        result.save(other, picture if suffix == ".png" else None)
    assert other.stat().st_size > 0


# Format, the files that are there, and the one that is not an export's; "": all may be replaced
TARGETS: dict[str, tuple[str, dict[str, bytes], str]] = {
    "nothing": ("onnx", {}, ""),
    "an export": ("onnx", {"m.onnx": b"graph resnest_origin {}"}, ""),
    "an empty file": ("onnx", {"m.onnx": b""}, ""),
    "a network of others": ("onnx", {"m.onnx": MINE}, "m.onnx"),
    "a program of others": ("torch", {"m.pt2": MINE}, "m.pt2"),
    "another export's weights": ("openvino", {"m.xml": b"<resnest_origin/>", "m.bin": MINE}, ""),
    "weights of others": ("openvino", {"m.bin": MINE}, "m.bin"),
    "both of others": ("openvino", {"m.xml": MINE, "m.bin": MINE}, "m.xml"),
    "a file beside it": ("onnx", {"m.bin": MINE}, ""),
}


@pytest.mark.parametrize("case", TARGETS)
def test_an_export_replaces_exports(case: str, tmp_path: Path) -> None:
    name, there, kept = TARGETS[case]
    form = FORMATS[name]
    for file, content in there.items():
        (tmp_path / file).write_bytes(content)
    out = (tmp_path / "m").with_suffix(form.suffix)
    if kept:
        with pytest.raises(ResnestError, match=rf"{kept} is there already, and nothing says that resnest wrote it"):
            check_target(out, form.suffix, name, form.companion)
    else:
        check_target(out, form.suffix, name, form.companion)


@pytest.mark.parametrize("name", ["onnx", "openvino", "torch"])
def test_real_exports_are_known_again(name: str, real_exports: dict[str, Path]) -> None:
    form = FORMATS[name]
    check_target(real_exports[name], form.suffix, name, form.companion)


def _coco(path: Path) -> None:
    CocoFile(path).close()


def _panoptic(path: Path) -> None:
    PanopticFolder(path.parent, PanopticClasses(("a",), (1,), 1)).close()


def _table(path: Path) -> None:
    write_table(path, Table(["cpu: x"]))


WRITERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "coco": (_coco, "val.json"),
    "panoptic": (_panoptic, "panoptic.json"),
    "table": (_table, "speed.csv"),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_writers_in_python_keep_files_of_others(writer: str, tmp_path: Path) -> None:
    write, name = WRITERS[writer]
    path = tmp_path / name
    for _ in range(2):  # what it wrote itself is replaced
        write(path)
    path.write_bytes(MINE)
    with pytest.raises(ResnestError, match="nothing says that resnest wrote it"):
        write(path)
    path.unlink()
    path.symlink_to(tmp_path / "photo.jpg")
    (tmp_path / "photo.jpg").write_bytes(MINE)
    with pytest.raises(ResnestError, match="nothing says that resnest wrote it"):
        write(path)
    assert (tmp_path / "photo.jpg").read_bytes() == MINE


@pytest.mark.parametrize(("option", "name"), [("--out", "data.csv"), ("--plot", "mine.svg"), ("--out", "old.csv")])
def test_bench_keeps_files_of_others(option: str, name: str, cli: Cli, tmp_path: Path) -> None:
    """And the table that it compares with; nothing is measured."""
    old, path = tmp_path / "old.csv", tmp_path / name
    write_table(old, Table(["cpu: x"]))
    assert is_table(old)
    if path != old:
        path.write_bytes(MINE)
    held = path.read_bytes()
    done = cli("bench", "resnest14", option, path, "--compare", old, "--rounds", "1")
    assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1)
    assert f"{path} is " in done.err
    assert path.read_bytes() == held


@pytest.mark.parametrize("linked", [False, True])
def test_a_checkpoint_is_not_converted_into_itself(linked: bool, saved_model: Path, tmp_path: Path) -> None:
    source = tmp_path / "a.safetensors"
    source.write_bytes((saved_model / "model.safetensors").read_bytes())
    out = tmp_path / "b.safetensors" if linked else source
    if linked:
        out.symlink_to(source)
    held = source.read_bytes()
    with pytest.raises(ResnestError, match="is the checkpoint that is converted: name another"):
        convert(source, to="timm", out=out, overwrite=True)
    assert source.read_bytes() == held


def test_data_is_no_folder_for_a_run(photos: Path) -> None:
    """It would be left out as output of ours when the folder above it is read."""
    before = sorted(photos.rglob("*"))
    with pytest.raises(ResnestError, match=r"is the data, and no folder for a run \(`out`\): name another"):
        train("imagenette", data=photos, out=photos, settings=pico())
    assert sorted(photos.rglob("*")) == before


def test_the_demo_replaces_demos_alone(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps(RUN))
    (tmp_path / "model.safetensors").write_bytes(MINE)
    done = cli("demo", "--out", tmp_path)
    assert (done.code, done.out) == (2, "")
    assert "holds a run on other data than the demo's" in done.err
    assert (tmp_path / "model.safetensors").read_bytes() == MINE
    assert RunDirectory(tmp_path).is_run()

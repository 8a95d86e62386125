"""The hand-over kit: its programs give what the network gives, in Python, JavaScript and C++."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import painted
import resnest
from conftest import Outcome
from exports import save_segmenter, saved
from kits import node_packages, preprocess_program, run_node, run_python, write_pictures
from resnest.detection.card import DetectionPreprocess
from resnest.errors import ResnestError
from resnest.exporters.kit import stored
from resnest.exporters.parcels import FILES, describe_preprocessing, template, vertical_first
from resnest.inference.model import Model
from resnest.runtime.decode import decode_image
from resnest.runtime.engines.onnxruntime import open_session
from resnest.runtime.preprocess import Preprocess
from resnest.segmentation.card import SegmentationPreprocess

Cli = Callable[..., Outcome]
KINDS = ("one label", "several labels", "masks", "pixels", "pixels of a size", "pixels of several masks")
SIDES = dict.fromkeys(("masks", "pixels of a size", "pixels of several masks"), (64, 96))


def save_model(kind: str, folder: Path) -> Path:
    if kind == "masks":
        model = painted.real_model()
        torch.manual_seed(1)
        nn.init.normal_(model.net.box_heads[0].score.weight, std=0.5)
        return model.save_pretrained(folder)
    if kind.startswith("pixels"):
        return save_segmenter(folder, multi_label="several" in kind)
    return saved(folder, multi_label=kind == "several labels")


@pytest.fixture(scope="module", params=KINDS)
def kit(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kit of a kind of model, on a painted picture."""
    folder = tmp_path_factory.mktemp("kit")
    painted.paint(folder / "data", 4)
    model = save_model(request.param, folder / "model")
    resnest.export(model, kit=folder / "kit", size=SIDES.get(request.param), images=folder / "data" / "images" / "val")
    return folder / "kit"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_pictures(tmp_path_factory.mktemp("pictures") / "all")


def test_the_reference_is_given_back(kit: Path) -> None:
    done = run_python(kit / "predict.py", "--check")
    assert done.returncode == 0, done.stderr
    assert {line.split(":")[0] for line in done.stdout.splitlines()} == {
        "input", *json.loads((kit / "kit.json").read_text())["outputs"]
    }  # fmt: skip
    changed = np.load(kit / "reference" / "input.npy")
    changed[0, 0, 0, 0] += 0.01
    broken = kit.with_name("broken")
    shutil.copytree(kit, broken, dirs_exist_ok=True)
    np.save(broken / "reference" / "input.npy", changed)
    done = run_python(broken / "predict.py", "--check")
    assert (done.returncode, done.stderr) == (1, "the reference picture gives something else here\n")


def test_python_says_what_predict_says(kit: Path, pictures: list[Path], cli: Cli) -> None:
    done = run_python(kit / "predict.py", *pictures)
    assert done.returncode == 0, done.stderr
    settings = json.loads((kit / "kit.json").read_text())["settings"]
    top = [] if settings.get("multi_label", True) else ["--top", "4"]
    ours = cli("predict", kit / "model.onnx", *pictures, "--json", *top)
    assert ours.code == 0, ours.err
    expected = [json.loads(line) for line in ours.out.splitlines()]
    got = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(expected) == len(got) == len(pictures)
    for one, other in zip(expected, got, strict=True):
        _same_results(one, other)


def _same_results(expected: dict[str, Any], got: dict[str, Any]) -> None:
    if "top" in expected:
        shown = expected["top"][: len(expected.get("labels", expected["top"]))]
        count = len(shown) if "labels" in expected else len(got["top"])
        assert [entry["label"] for entry in got["top"]] == [entry["label"] for entry in shown][:count]
        assert all(abs(one["score"] - other["score"]) < 2e-6 for one, other in zip(shown, got["top"], strict=True))
    elif "segments" in expected:
        beside = ("score", "segmentation")
        drop = [{key: value for key, value in one.items() if key not in beside} for one in expected["segments"]]
        assert got["segments"] == drop
    else:
        boxes = [(one["label"], one["score"]) for one in expected["objects"]]
        assert [one["label"] for one in got["objects"]] == [label for label, _ in boxes]


def test_javascript_says_what_python_says(kit: Path, pictures: list[Path]) -> None:
    """Bit for bit, from JPEG, PNG and WebP: sharp decodes with the same library as Pillow."""
    node_packages()
    done = run_node(kit / "predict.mjs", "--check")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "input: largest difference 0.0e+0," in done.stdout
    python = run_python(kit / "predict.py", *pictures).stdout.splitlines()
    node = run_node(kit / "predict.mjs", *pictures)
    assert node.returncode == 0, node.stderr
    assert [json.loads(line) for line in node.stdout.splitlines()] == [json.loads(line) for line in python]


@pytest.mark.parametrize("program", ["predict.py", "predict.mjs"])
def test_bad_pictures_get_one_line(program: str, kit: Path, pictures: list[Path], tmp_path: Path) -> None:
    run = run_python if program.endswith("py") else run_node
    frames = {"save_all": True, "append_images": [Image.new("RGB", (9, 9), 9)]}
    for name in ("animated.gif", "animated.png", "animated.webp"):
        Image.new("RGB", (9, 9)).save(tmp_path / name, **frames)
    (tmp_path / "page.jpg").write_text("<html>")
    (tmp_path / "empty.jpg").touch()
    content = bytearray((pictures[0].parent / "progressive.jpg").read_bytes())
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    content = bytearray((pictures[0].parent / "grey.jpg").read_bytes())
    content[len(content) // 2 : len(content) // 2 + 20] = b"\xff" * 20
    (tmp_path / "damaged.jpg").write_bytes(content)
    for file in [*tmp_path.iterdir(), tmp_path / "missing.jpg"]:
        done = run(kit / program, file)
        assert (done.returncode, done.stdout) == (1, ""), file
        assert file.name in done.stderr.splitlines()[0]
        assert len(done.stderr.splitlines()) == 1
        assert " at 0x" not in done.stderr


# --- Preprocessing alone: every program, every setting, many sizes ---

SETTINGS: list[Any] = [
    *(
        Preprocess(size=size, crop=crop, interpolation=kind, first=first)  # type: ignore[arg-type]
        for size, crop, kind, first in product(
            (24, 57), (None, 0.875, 1.0), ("bilinear", "bicubic"), ("crop", "resize")
        )
    ),
    DetectionPreprocess(short=60, long=100),
    DetectionPreprocess(short=60, long=100, canvas=(64, 96)),
    SegmentationPreprocess(),
    SegmentationPreprocess(long=52),
    SegmentationPreprocess(canvas=(64, 96)),
    SegmentationPreprocess(long=120, canvas=(64, 96)),
]
SIZES = [(1, 1), (3, 2), (24, 24), (57, 57), (64, 96), (97, 61), (60, 100), (101, 33), (5, 130), (200, 150)]


def _pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (high, wide, 3), np.uint8)) for wide, high in SIZES]


def _usable(settings: Any) -> list[Image.Image]:
    """Pictures of a size for which the settings work: of one pixel there may be no centre."""
    usable = []
    for picture in _pictures():
        try:
            settings(picture)
        except (ValueError, ResnestError, ZeroDivisionError):
            continue
        usable.append(picture)
    return usable


def _spec(settings: Any) -> dict[str, Any]:
    steps = json.loads(json.dumps(settings.steps()))
    return {"input": {"layout": "NCHW", "dtype": "float32"}, "steps": steps, "vertical_first": vertical_first()}


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_steps_are_all_that_preprocessing_does(settings: Any) -> None:
    prepare = preprocess_program()["prepare"]
    usable = _usable(settings)
    assert len(usable) > 7
    for picture in usable:
        got, sizes = prepare(picture, _spec(settings))
        np.testing.assert_array_equal(got[0], settings(picture))
        assert got.dtype == np.float32
        assert sizes == (*picture.size, *settings.scaled_size(*picture.size))


def test_python_decodes_as_predict(pictures: list[Path]) -> None:
    decode = preprocess_program()["decode"]
    for path in pictures:
        np.testing.assert_array_equal(np.asarray(decode(path.read_bytes())), np.asarray(decode_image(path)))


DRIVER = """
import { readFile, writeFile } from "node:fs/promises";
import { prepare } from "./preprocess.mjs";
const cases = JSON.parse(await readFile("cases.json"));
for (const { name, width, height, spec } of cases) {
  const bytes = await readFile(name + ".rgb");
  const { data } = prepare({ data: new Uint8Array(bytes), width, height }, spec);
  await writeFile(name + ".out", Buffer.from(data.buffer));
}
"""


@pytest.fixture
def cases(tmp_path: Path) -> dict[str, np.ndarray]:
    """Files with pixels, and what each setting makes of them."""
    expected, listed = {}, []
    for number, settings in enumerate(SETTINGS):
        for picture in _usable(settings):
            name = f"{number}-{picture.width}x{picture.height}"
            (tmp_path / f"{name}.rgb").write_bytes(picture.tobytes())
            listed.append({"name": name, "width": picture.width, "height": picture.height, "spec": _spec(settings)})
            expected[name] = settings(picture)
    (tmp_path / "cases.json").write_text(json.dumps(listed))
    return expected


def test_javascript_prepares_bit_for_bit(cases: dict[str, np.ndarray], tmp_path: Path) -> None:
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    (tmp_path / "preprocess.mjs").write_text(template(FILES, "preprocess.mjs"))
    (tmp_path / "driver.mjs").write_text(DRIVER)
    subprocess.run(["node", "driver.mjs"], cwd=tmp_path, check=True, timeout=120)
    for name, expected in cases.items():
        got = np.frombuffer((tmp_path / f"{name}.out").read_bytes(), np.float32)
        np.testing.assert_array_equal(got, expected.reshape(-1), err_msg=name)


# --- Where it lies, and what is refused ---


def test_an_older_kit_is_replaced_and_others_files_are_not(tmp_path: Path, cli: Cli) -> None:
    model = saved(tmp_path / "model")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "thesis.txt").write_text("years of work")
    done = cli("export", model, "--kit", theirs)
    assert (done.code, "nothing says that resnest wrote thesis.txt" in done.err) == (2, True)
    assert [path.name for path in theirs.iterdir()] == ["thesis.txt"]
    for _ in range(2):
        done = cli("export", model, "--kit", tmp_path / "kit", "--json")
        assert done.code == 0, done.err
        assert json.loads(done.out)["out"] == str(tmp_path / "kit" / "model.onnx")
        assert {path.name for path in tmp_path.iterdir()} == {"model", "theirs", "kit"}
    assert not [path.name for path in (tmp_path / "kit").rglob("*") if path.suffix == ".txt" and not path.read_text()]


REFUSED = {
    "two places": (["--out", "m.onnx"], "--kit kit has the file in it: leave out --out m.onnx"),
    "another format": (["--format", "openvino"], "--kit kit has an ONNX file: leave out --format openvino"),
    "a repository": (["--format", "triton"], "--kit kit has an ONNX file: leave out --format triton"),
    "no folder": ([], "there is no folder"),
    "a file": ([], "is a file, and a folder is to be written there"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved(Path("model"))
    arguments, message = REFUSED[case]
    place = {"no folder": "nowhere/kit", "a file": "taken"}.get(case, "kit")
    Path("taken").touch()
    done = cli("export", "model", "--kit", place, *arguments)
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert message in done.err
    assert {path.name for path in tmp_path.iterdir()} == {"model", "taken"}


def test_windows_are_refused(tmp_path: Path) -> None:
    model = Model.from_pretrained(save_segmenter(tmp_path / "model"))
    windowed = replace(model, card=model.card.with_window(64))
    with pytest.raises(ResnestError, match="in windows of 64 pixels, which other programs do not"):
        resnest.export(windowed, kit=tmp_path / "kit")
    describe_preprocessing(model, None)


def test_a_baked_kit(tmp_path: Path) -> None:
    """Its input is 8-bit pixels, in both programs."""
    painted.paint(tmp_path / "data", 4)
    model = save_model("masks", tmp_path / "model")
    kit, images = tmp_path / "kit", tmp_path / "data" / "images" / "val"
    resnest.export(model, kit=kit, size=(64, 96), images=images, bake_preprocessing="nhwc")
    spec = json.loads((kit / "preprocessing.json").read_text())
    assert spec["input"] == {"name": "pixels", "dtype": "uint8", "layout": "NHWC"}
    assert [step["do"] for step in spec["steps"]] == ["decode", "fit"]
    assert run_python(kit / "predict.py", "--check").returncode == 0
    node_packages()
    done = run_node(kit / "predict.mjs", "--check")
    assert done.returncode == 0, done.stderr
    assert open_session(str(kit / "model.onnx"), threads=1).get_inputs()[0].shape == [1, "H", "W", 3]


def test_programs_are_tidy() -> None:
    """Python's are linted as ours, though they are stored as text."""
    rooms = [FILES, "resnest.classification", "resnest.detection", "resnest.segmentation"]
    names = [(room, name) for room in rooms for name in ("result.py",)] + [
        (FILES, "preprocess.py"),
        (FILES, "predict.py"),
    ]
    for room, name in names:
        text = template(room, stored(name))
        compile(text, name, "exec")
        assert max(map(len, text.splitlines())) <= 120, (room, name)

"""Exported files in every engine, and `Predictor` on any reference: same numbers, the right engine, clear mistakes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto
from PIL import Image

import resnest
from conftest import Outcome
from resnest.errors import ResnestError
from resnest.inference.model import Model
from resnest.inference.torch_engine import TorchEngine
from resnest.runtime import hardware
from resnest.runtime.card import ModelCard
from resnest.runtime.engines import onnxruntime
from resnest.runtime.engines.choosing import open_engine
from shipped import as_openvino, changed, foreign, make_run

FORMS = [("model.onnx", "onnxruntime"), ("model.onnx", "openvino"), ("model.xml", "openvino")]


@pytest.fixture(scope="session")
def shipped(tmp_path_factory: pytest.TempPathFactory, digit_images: list[tuple[str, Image.Image]]) -> Path:
    """A run with model.onnx and model.xml, beside the photos that it was trained on. Not to be changed."""
    run = make_run(tmp_path_factory.mktemp("shipped"), digit_images)
    as_openvino(run / "model.onnx", run / "model.xml")
    return run


@pytest.fixture
def run(shipped: Path, tmp_path: Path) -> Path:
    """A copy of the run with model.onnx alone."""
    skipped = shutil.ignore_patterns("checkpoints", "model.xml", "model.bin")
    return Path(shutil.copytree(shipped, tmp_path / "run", ignore=skipped))


@pytest.fixture
def pictures(shipped: Path) -> list[Path]:
    return sorted((shipped.parent / "photos").rglob("*.jpg"))


@pytest.mark.parametrize(("file", "name"), FORMS)
def test_engines_compute_what_the_network_does(file: str, name: str, shipped: Path) -> None:
    model = Model.from_pretrained(shipped)
    engine = open_engine(shipped / file, name, threads=1)
    for shape in [(1, 3, 32, 32), (5, 3, 64, 64), (2, 3, 33, 47), (1, 3, 32, 32)]:
        images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        with torch.inference_mode():
            expected = model.net(torch.from_numpy(images)).numpy()
        assert np.abs(engine(images)["logits"] - expected).max() <= 1e-5 * np.abs(expected).max()
    assert engine.name == f"{name}, 1 thread"
    assert engine.card == model.card
    assert engine.origin["precision"] == "float32"


def test_results_of_an_engine_stay(shipped: Path) -> None:
    """The next call does not write over them."""
    images = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    for file, name in FORMS:
        engine = open_engine(shipped / file, name, threads=1)
        first = engine(images[:1])["logits"]
        kept = first.copy()
        engine(images[1:])
        assert np.array_equal(first, kept)


def test_torch_engine_keeps_to_the_network(shipped: Path) -> None:
    net = Model.from_pretrained(shipped).net
    images = np.random.default_rng(0).normal(size=(3, 3, 32, 32)).astype(np.float32)
    with torch.inference_mode():
        expected = net(torch.from_numpy(images)).numpy()
    engine = TorchEngine(net, "cpu")
    assert np.abs(engine(images)["logits"] - expected).max() <= 1e-5 * np.abs(expected).max()
    assert engine.name.startswith("torch, ")
    with torch.inference_mode():
        assert np.array_equal(net(torch.from_numpy(images)).numpy(), expected)  # the network itself is as before


@pytest.mark.parametrize("engine", ["torch", "onnxruntime", "openvino"])
def test_threads_predict_with_one_predictor(engine: str, shipped: Path, pictures: list[Path]) -> None:
    """The same bits as in one thread, whoever comes between."""
    predictor = resnest.Predictor(shipped, engine=engine, device="cpu")
    orders = [pictures, pictures[::-1]]
    expected = [[predictor(path).scores for path in order] for order in orders]
    together = Barrier(len(orders))

    def predict(order: list[Path]) -> list[np.ndarray[Any, Any]]:
        together.wait()
        return [predictor(path).scores for path in order for _ in range(3)][::3]

    with ThreadPoolExecutor(len(orders)) as threads:
        found = list(threads.map(predict, orders))
    for mine, alone in zip(found, expected, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(mine, alone, strict=True))


@pytest.mark.parametrize(("engine", "used"), [("auto", "onnxruntime"), ("openvino", "openvino"), ("torch", "torch")])
def test_a_run_is_predicted_by_any_engine(engine: str, used: str, run: Path, pictures: list[Path]) -> None:
    reference = resnest.Predictor(run, engine="torch", device="cpu")
    predictor = resnest.Predictor(run, engine=engine, device="cpu")
    assert predictor.engine.name.startswith(used)
    for expected, got in zip(reference.stream(pictures), predictor.stream(pictures), strict=True):
        assert np.abs(got.scores - expected.scores).max() < 1e-5


@pytest.mark.parametrize(
    ("origin", "note"),
    [
        ({}, ""),
        ({"weights_sha256": "0" * 64}, "holds other weights than model.safetensors there"),
        ({"weights_sha256": None}, "holds other weights than model.safetensors there"),
        ({"precision": "int8"}, "is int8, so other scores"),
    ],
)
def test_auto_takes_an_export_of_the_same_weights_only(
    origin: dict[str, object], note: str, run: Path, pictures: list[Path]
) -> None:
    changed(run / "model.onnx", run / "model.onnx", **origin)
    predictor = resnest.Predictor(run, device="cpu")
    assert predictor.engine.name.startswith("torch" if note else "onnxruntime")
    assert note in predictor.note
    assert predictor(pictures[0]).label in predictor.card.class_names


def test_auto_without_a_usable_export_is_torch(run: Path) -> None:
    (run / "model.onnx").write_bytes((run / "model.onnx").read_bytes()[:5000])
    predictor = resnest.Predictor(run, device="cpu")
    assert predictor.engine.name.startswith("torch")
    assert "cannot be read as an ONNX file" in predictor.note
    (run / "model.onnx").unlink()
    predictor = resnest.Predictor(run, device="cpu")
    assert predictor.engine.name.startswith("torch")
    assert not predictor.note
    assert not list(run.glob("*.onnx"))  # nothing is exported here


def test_evaluate_an_exported_file(cli: Callable[..., Outcome], run: Path, shipped: Path, tmp_path: Path) -> None:
    """The run's figures, on the same held-back part, wherever the file lies."""
    data = shipped.parent / "photos"
    figures = json.loads(cli("evaluate", run, "--data", data, "--json").out)
    for place in (run / "model.onnx", shutil.copy(run / "model.onnx", tmp_path / "m.onnx")):
        got = json.loads(cli("evaluate", place, "--data", data, "--json").out)
        assert got["images"] == figures["images"] < len(list(data.rglob("*.jpg")))
        assert got["top1"] == figures["top1"]
        assert got["loss"] == pytest.approx(figures["loss"], abs=1e-5)


@pytest.mark.parametrize("shape", [("N", 3, "H", "W"), (1, 3, 32, 32), (4, 3, 32, 32)])
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_file_of_another_program_works_with_a_card(
    shape: tuple[int, ...], engine: str, shipped: Path, tmp_path: Path, pictures: list[Path]
) -> None:
    path, card = foreign(tmp_path / "other.onnx", images=shape), ModelCard.read(shipped)
    given = {"card itself": card, "directory": shipped, "file": str(shipped / "config.json")}
    results = [resnest.Predictor(path, engine=engine, card=told, batch_size=3) for told in given.values()]
    weight = np.array([float(index % 7) for index in range(12)], np.float32).reshape(3, 4)
    for picture, result in zip(pictures[:7], results[0].stream(pictures[:7]), strict=True):
        with Image.open(picture) as image:
            means = card.preprocess(image).mean((1, 2))
        logits = means @ weight
        expected = np.exp(logits - logits.max())
        assert np.abs(result.scores - expected / expected.sum()).max() < 1e-5
    assert len({predictor(pictures[0]).label for predictor in results}) == 1


# name: (what to make, arguments, what is said)
CARD = '{"resnest": 1}'
FOREIGN: dict[str, tuple[dict[str, object], list[str], str]] = {
    "no metadata": ({}, [], "has no metadata 'resnest'.*Give a config.json that does, with --card"),
    "metadata that make no sense": ({"metadata": {"resnest": CARD}}, [], "cannot be understood as a model card"),
    "other classes": ({"classes": 7}, ["--card", "RUN"], r"gives \(any, 7\), and its card names 4 classes"),
    "another size": (
        {"images": ("N", 3, 64, 64)},
        ["--card", "RUN/config.json"],
        r"takes images \(any, 3, 64, 64\), and its card prepares \(any, 3, 32, 32\)",
    ),
    "other channels": ({"images": ("N", 1, "H", "W")}, ["--card", "RUN"], r"takes images \(any, 1, any, any\)"),
    "not four axes": ({"images": ("N", 3, "L")}, ["--card", "RUN"], r"takes images \(any, 3, any\)"),
    "bytes instead of floats": ({"kind": TensorProto.UINT8}, ["--card", "RUN"], "has inputs of .*: expected images"),
    "two inputs": ({"inputs": 2}, ["--card", "RUN"], "has 2 inputs: expected one"),
    "no card there": ({}, ["--card", "OUT"], "the card OUT cannot be read: No such file"),
    "a card that is none": ({}, ["--card", "PHOTO"], "the card PHOTO cannot be read: not text"),
    "a directory without a card": ({}, ["--card", "PHOTOS"], "PHOTOS has no config.json"),
}


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("case", FOREIGN)
def test_files_of_other_programs_that_do_not_fit(
    case: str, engine: str, cli: Callable[..., Outcome], shipped: Path, tmp_path: Path, pictures: list[Path]
) -> None:
    made, arguments, message = FOREIGN[case]
    path = foreign(tmp_path / "other.onnx", **made)  # type: ignore[arg-type]
    places = {"RUN": shipped, "OUT": tmp_path / "out", "PHOTOS": pictures[0].parent, "PHOTO": pictures[0]}
    for word, place in places.items():
        arguments = [re.sub(rf"^{word}\b", str(place), argument) for argument in arguments]
        message = re.sub(rf"\b{word}\b", re.escape(str(place)), message)
    _one_line(cli("predict", path, pictures[0], "--engine", engine, *arguments), message)


def _cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut off early": lambda path: _cut(path, 0.01),
    "cut off in the middle": lambda path: _cut(path, 0.5),
    "cut off late": lambda path: _cut(path, 0.999),
    "a picture": lambda path: Image.new("RGB", (8, 8)).save(path, "PNG"),
    "text": lambda path: path.write_text("<html><body>404</body></html>"),
}


@pytest.mark.parametrize(("file", "engine"), FORMS)
@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files(
    damage: str,
    file: str,
    engine: str,
    cli: Callable[..., Outcome],
    shipped: Path,
    tmp_path: Path,
    pictures: list[Path],
) -> None:
    for name in (file, "model.bin"):
        shutil.copy(shipped / name, tmp_path / name)
    DAMAGE[damage](tmp_path / file)
    outcome = cli("predict", tmp_path / file, pictures[0], "--engine", engine)
    _one_line(outcome, f"{file} (cannot be read as an (ONNX|OpenVINO) file|has no metadata)")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "model.xml lacks model.bin beside it"),
        (lambda path: _cut(path, 0.5), "model.xml cannot be read as an OpenVINO file"),
        (lambda path: path.write_bytes(b""), "model.xml cannot be read as an OpenVINO file"),
    ],
)
def test_openvino_without_its_weights(
    damage: Callable[[Path], object], message: str, cli: Callable[..., Outcome], shipped: Path, tmp_path: Path
) -> None:
    for name in ("model.xml", "model.bin"):
        shutil.copy(shipped / name, tmp_path / name)
    damage(tmp_path / "model.bin")
    _one_line(cli("predict", tmp_path / "model.xml", next(shipped.parent.rglob("*.jpg"))), message)


MISTAKES: dict[str, tuple[list[str], str]] = {
    "no such engine": (["RUN", "--engine", "onnxruntme"], "Did you mean 'onnxruntime'"),
    "an engine that cannot read it": (
        ["RUN/model.xml", "--engine", "onnxruntime"],
        "onnxruntime cannot read .*model.xml: openvino can",
    ),
    "torch for an exported file": (["RUN/model.onnx", "--engine", "torch"], "torch does not run exported files"),
    "no such file": (["RUN/gone.onnx"], "there is no model at .*gone.onnx: expected an exported file"),
    "a directory of that name": (["DIR/folder.onnx"], "there is no model at .*folder.onnx"),
    "exported files on a gpu": (["RUN/model.onnx", "--device", "cuda"], "exported files run on the CPU here"),
    "nothing exported": (
        ["BARE", "--engine", "onnxruntime"],
        "onnxruntime runs exported files, and .*bare has none: `resnest export .*bare --format onnx`$",
    ),
    "nothing exported for openvino": (["BARE", "--engine", "openvino"], "export .*bare --format openvino`$"),
    "a published name": (
        ["resnest50", "--engine", "onnxruntime"],
        "`resnest export resnest50 --format onnx --out resnest50.onnx`$",
    ),
    "exported from other weights": (
        ["STALE", "--engine", "onnxruntime"],
        "holds other weights than .*model.safetensors: export it anew, `resnest export .*stale --format onnx`$",
    ),
    "a card for a run": (["RUN", "--card", "RUN"], "has its own card"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes(case: str, cli: Callable[..., Outcome], shipped: Path, tmp_path: Path, pictures: list[Path]) -> None:
    arguments, message = MISTAKES[case]
    (tmp_path / "folder.onnx").mkdir()
    for name in ("bare", "stale"):
        (tmp_path / name).mkdir()
        for file in ("config.json", "model.safetensors"):
            shutil.copy(shipped / file, tmp_path / name / file)
    changed(shipped / "model.onnx", tmp_path / "stale" / "model.onnx", weights_sha256="1" * 64)
    places = {"RUN": shipped, "DIR": tmp_path, "BARE": tmp_path / "bare", "STALE": tmp_path / "stale"}
    for word, place in places.items():
        arguments = [re.sub(rf"^{word}\b", str(place), argument) for argument in arguments]
    _one_line(cli("predict", arguments[0], pictures[0], *arguments[1:]), message)


def _one_line(outcome: Outcome, message: str) -> None:
    told = outcome.err.strip().splitlines()
    assert outcome.code == 2, outcome
    assert len(told) == 1, told
    assert re.search(message, told[0]), told[0]
    assert not outcome.out


BLOCKER = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refuse())
"""


def in_process_without(names: list[str], folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """`resnest ...` in a process of its own, where these packages cannot be imported."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(BLOCKER.format(names=names))
    path = os.pathsep.join([str(folder), str(Path(resnest.__file__).parents[1])])
    command = [sys.executable, "-m", "resnest", *map(str, arguments)]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("reference", ["", "model.onnx", "model.xml"])
def test_prediction_needs_no_torch(reference: str, shipped: Path, tmp_path: Path, pictures: list[Path]) -> None:
    """A run with an exported file, too, as no GPU could be better."""
    names = ["torch", "torchvision", "lightning_fabric", "onnx"]
    done = in_process_without(names, tmp_path / "site", "predict", shipped / reference, pictures[0], "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["top"]
    assert re.fullmatch(r"engine: (onnxruntime|openvino), \d+ threads?\n", done.stderr)


@pytest.mark.parametrize(
    ("missing", "file", "engine", "told"),
    [
        (["onnxruntime"], "model.onnx", "onnxruntime", "onnxruntime is not installed.*pip install onnxruntime$"),
        (["openvino"], "model.xml", "auto", "openvino is not installed.*pip install openvino$"),
        (["onnxruntime", "openvino"], "model.onnx", "auto", "pip install onnxruntime; or .*pip install openvino$"),
        (["onnxruntime"], "model.onnx", "auto", r"^engine: openvino, \d+ threads?$"),
    ],
)
def test_engines_that_are_not_installed(
    missing: list[str], file: str, engine: str, told: str, shipped: Path, tmp_path: Path, pictures: list[Path]
) -> None:
    done = in_process_without(missing, tmp_path / "site", "predict", shipped / file, pictures[0], "--engine", engine)
    assert re.search(told, done.stderr.strip()), done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.returncode == (2 if "pip" in told else 0)


def test_doctor_lists_engines(cli: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata

    rows = json.loads(cli("doctor", "--json").out)
    assert {"onnxruntime", "openvino", "processor", "instructions", "cores for engines"} <= rows.keys()
    assert re.match(r"\d+\.\d+", rows["onnxruntime"])

    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert "pip install onnxruntime" in json.loads(cli("doctor", "--json").out)["onnxruntime"]


@pytest.mark.parametrize(
    ("flags", "sets"),
    [
        ("flags\t\t: fpu avx2 fma", ("avx2",)),
        ("flags\t\t: avx2 avx512f avx512_vnni avx512_bf16 amx_int8", ("avx2", "avx512", "vnni", "bf16", "amx")),
        ("flags\t\t: avx2 avx_vnni", ("avx2", "vnni")),
        ("Features\t: fp asimd asimddp i8mm", ("neon", "dotprod", "i8mm")),
        ("", ()),
    ],
)
def test_instruction_sets(flags: str, sets: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: A CPU\n{flags}\n")
    monkeypatch.setattr(hardware, "_INFO", tmp_path / "cpuinfo")
    assert hardware.instruction_sets() == sets
    assert hardware.processor() == "A CPU"
    monkeypatch.setattr(hardware, "_INFO", tmp_path / "none")
    assert hardware.instruction_sets() == ()
    assert hardware.processor()


@pytest.mark.parametrize(
    ("omp", "quota", "siblings", "expected"),
    [
        ("", "max 100000", {0: "0", 1: "1", 2: "2", 3: "3"}, 4),
        ("", "max 100000", {0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3"}, 2),  # hyper-threads
        ("", "150000 100000", {0: "0", 1: "1", 2: "2", 3: "3"}, 2),  # a container with one and a half
        ("", "", {}, 4),  # not told
        ("3", "max 100000", {0: "0"}, 3),
        ("3,2", "max 100000", {0: "0"}, 3),
        ("many", "max 100000", {}, 4),
        ("0", "10000 100000", {}, 1),
    ],
)
def test_usable_cores(
    omp: str, quota: str, siblings: dict[int, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", omp)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(hardware, "_CPUS", tmp_path)
    monkeypatch.setattr(hardware, "_QUOTA", tmp_path / "cpu.max")
    if quota:
        (tmp_path / "cpu.max").write_text(f"{quota}\n")
    for cpu, text in siblings.items():
        (tmp_path / f"cpu{cpu}" / "topology").mkdir(parents=True)
        (tmp_path / f"cpu{cpu}" / "topology" / "thread_siblings_list").write_text(f"{text}\n")
    assert hardware.usable_cores() == expected


def test_open_engine_from_python(shipped: Path) -> None:
    with pytest.raises(ResnestError, match="threads=0: expected 1 or more"):
        open_engine(shipped / "model.onnx", threads=0)
    with pytest.raises(ResnestError, match=r"not an exported file that engines read \(those are .onnx, .xml\)"):
        open_engine(shipped / "model.safetensors")
    engine = open_engine(shipped / "model.onnx", threads=1)
    assert engine(np.zeros((0, 3, 32, 32), np.float32))["logits"].shape == (0, 4)
    with pytest.raises(ResnestError, match=r"cannot take images \(1, 4, 32, 32\)"):
        engine(np.zeros((1, 4, 32, 32), np.float32))


@pytest.mark.parametrize(("asked", "kept"), [(None, "1"), ("0", "0")])
def test_onnxruntime_sends_no_usage_data(asked: str | None, kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its packages from 1.29 on do unless the variable says no before it is imported; the user's own choice stays."""
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    if asked is not None:
        monkeypatch.setenv("ORT_DISABLE_TELEMETRY", asked)
    onnxruntime.package()
    assert os.environ["ORT_DISABLE_TELEMETRY"] == kept


def test_nothing_imports_onnxruntime_or_converts_by_openvino_otherwise() -> None:
    """openvino.convert_model sends usage data unless its own command turned that off."""
    sources = {path: path.read_text() for path in Path(resnest.__file__).parent.rglob("*.py")}
    importing = [path.name for path, text in sources.items() if re.search(r"^ *import onnxruntime\b", text, re.M)]
    assert importing == ["onnxruntime.py"]
    assert not [path.name for path, text in sources.items() if "openvino.convert_model(" in text]


def test_a_model_in_a_folder_whose_name_is_not_utf8(run: Path, pictures: list[Path]) -> None:
    """Bytes of another encoding are surrogates in Python's text, which onnxruntime cannot open."""
    odd = os.fsencode(run.parent) + b"/\xfc n\xf6"
    os.rename(run, odd)
    path = Path(os.fsdecode(odd)) / "model.onnx"
    engine = open_engine(path, "onnxruntime", threads=1)
    assert engine(np.zeros((1, 3, 32, 32), np.float32))["logits"].shape[0] == 1


def test_no_order_comes_from_the_clock() -> None:
    """A clock may jump: progress counts on perf_counter, checkpoints are numbered by step, run folders by count."""
    sources = {path: path.read_text() for path in Path(resnest.__file__).parent.rglob("*.py")}
    for word in ("time.time(", "st_mtime)", "getmtime", "st_ctime"):
        assert not [path.name for path, text in sources.items() if word in text], word

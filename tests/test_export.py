"""Export: what a delivered file carries, where it goes, what is refused, and that a wrong one is never delivered."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import resnest
from conftest import Outcome, small_file_system
from exports import CLASSES, PICO, broken, saved, use
from resnest.classification.task import ClassificationTask
from resnest.errors import ParityFailure, ResnestError
from resnest.exporters import exporting, gate, onnx, writing
from resnest.exporters.capture import Interface, first_difference, module_outputs
from resnest.exporters.formats import FORMATS, find_exporter, find_format
from resnest.exporters.int8 import same_label, same_labels
from resnest.exporters.writing import where_it_differs
from resnest.files import sha256_of
from resnest.inference.model import Model
from resnest.inference.prepare import prepared
from resnest.runtime.card import ModelCard
from resnest.runtime.engines import choosing
from resnest.runtime.engines.exported import Loaded

Cli = Callable[..., Outcome]

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def _beside(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_command(cli: Cli, saved_model: Path, real_exports: dict[str, Path], monkeypatch: Any) -> None:
    use(monkeypatch, _copying("onnx", real_exports))
    path = saved_model / "model.onnx"
    done = cli("export", saved_model, "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["out"] == str(path)
    assert told["bytes"] == path.stat().st_size
    assert told["largest_difference"] <= 1e-5
    assert (told["agreeing"], told["pictures"]) == (64, 64)
    checked = {tuple(row["shape"]) for row in told["differences"]}
    assert {(n, 3, h, w) for n in (1, 2, 5) for h, w in [(64, 64), (97, 131), (160, 160), (40, 40)]} <= checked
    path.unlink()


def test_what_the_file_carries(saved_model: Path, real_exports: dict[str, Path]) -> None:
    """For a reader that has onnxruntime alone."""
    import onnxruntime

    session = onnxruntime.InferenceSession(real_exports["onnx"])
    strings = session.get_modelmeta().custom_metadata_map
    assert ModelCard.from_json(strings["resnest"], where="the file") == ModelCard.read(saved_model)
    assert json.loads(strings["resnest_origin"]) == {
        "source": str(saved_model),
        "weights_sha256": sha256_of(saved_model / "model.safetensors"),
        "resnest": resnest.__version__,
        "torch": torch.__version__,
        "precision": "float32",
        "sizes": {"batch": "any", "height": "any", "width": "any"},
    }
    assert [(one.name, one.shape) for one in session.get_inputs()] == [("images", ["N", 3, "H", "W"])]
    assert [(one.name, one.shape) for one in session.get_outputs()] == [("logits", ["N", len(CLASSES)])]
    for path in real_exports.values():
        assert b"site-packages" not in path.read_bytes()  # no traces of the machine that it was made on


def test_the_text(cli: Cli, saved_model: Path, real_exports: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, _copying("onnx", real_exports))
    done = cli("export", saved_model, "--format", "onnx", "--out", saved_model.parent / "text.onnx")
    assert done.code == 0, done.err
    assert "batches of 1, 2, 5 at 64x64, 97x131, 160x160, 40x40" in done.out
    assert "the same for 64 of 64 synthetic pictures" in done.out
    assert [path for path in saved_model.parent.iterdir() if path.suffix == ".tmp"] == []


def test_every_format_knows_where_it_comes_from(saved_model: Path, real_exports: dict[str, Path]) -> None:
    import openvino

    names = ("resnest", "resnest_origin")
    extra = dict.fromkeys(names, "")
    torch.export.load(real_exports["torch"], extra_files=extra)
    read = openvino.Core().read_model(real_exports["openvino"])
    for strings in (extra, {name: read.get_rt_info(name).astype(str) for name in names}):
        assert ModelCard.from_json(strings["resnest"], where="").class_names == CLASSES
        assert json.loads(strings["resnest_origin"])["precision"] == "float32"
    kinds = {value.get_element_type().get_type_name() for step in read.get_ordered_ops() for value in step.outputs()}
    assert "f16" not in kinds


def _copying(name: str, real_exports: dict[str, Path]) -> Any:
    """The format with a writer that copies the real_exports file: for tests of what comes after writing."""

    def write(net: Any, path: Path, strings: Any, takes: Any) -> None:
        form, real = FORMATS[name], real_exports[name]
        for suffix in filter(None, (form.suffix, form.companion)):
            shutil.copy(real.with_suffix(suffix), path.with_suffix(suffix))

    return replace(FORMATS[name], write=write)


def test_pictures_of_a_folder(
    cli: Cli, saved_model: Path, real_exports: dict[str, Path], photos: Path, monkeypatch: Any
) -> None:
    use(monkeypatch, _copying("onnx", real_exports))
    (photos / "broken.jpg").write_bytes(b"\xff\xd8 nothing")
    count = len(list(photos.rglob("*.jpg"))) - 1
    done = cli("export", saved_model, "--out", photos.parent / "m.onnx", "--images", photos, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["compared"] == f"{count} pictures of {photos}"
    done = cli("export", saved_model, "--out", photos.parent / "m.onnx", "--images", "digits", "--json")
    assert json.loads(done.out)["compared"] == "64 pictures of digits"


def test_which_runtimes_read_the_onnx_file(real_exports: dict[str, Path]) -> None:
    """onnxruntime 1.17 and all that take opset 20; an IR version of 10 asks for 1.18."""
    import onnx

    model = onnx.load(real_exports["onnx"])
    assert (model.ir_version, [(entry.domain, entry.version) for entry in model.opset_import]) == (9, [("", 20)])
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize("name", ["onnx", "openvino", "torch"])
def test_a_sound_file_has_no_layer_that_differs(name: str, saved_model: Path, real_exports: dict[str, Path]) -> None:
    """So a layer that is named is really the one; and every layer can be."""
    fast = prepared(Model.from_pretrained(saved_model).net, memory_format=torch.contiguous_format)
    images = np.random.default_rng(0).standard_normal((2, 3, 41, 56), np.float32)
    ours, theirs = module_outputs(fast, images), FORMATS[name].layers(real_exports[name], images)
    assert first_difference(ours, theirs, 1e-5) is None
    computing = {key for key, module in fast.named_modules() if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)}
    assert computing <= {key for key in theirs if key in ours and theirs[key].shape == ours[key].shape}
    assert "layer2.0.conv2" in theirs


LAYERS = ("conv1", "layer1.0.conv2.fc1", "layer2.0.conv2.conv", "layer3.0.downsample.1", "layer4.0.conv3", "fc")


@pytest.mark.parametrize(
    ("name", "layer"),
    [*(("onnx", layer) for layer in LAYERS), *(("openvino", layer) for layer in LAYERS), ("torch", LAYERS[2])],
)
def test_a_disturbed_layer_is_named(
    name: str, layer: str, saved_model: Path, real_exports: dict[str, Path], tmp_path: Path
) -> None:
    opened = Model.from_pretrained(saved_model)
    fast = prepared(opened.net, memory_format=torch.contiguous_format)
    form = broken(FORMATS[name], real_exports[name], layer)
    path = tmp_path / f"m{form.suffix}"
    takes = find_exporter(opened).interface(opened.card, form)
    form.write(fast, path, {}, takes)
    parity = gate.compare(
        writing.reference(opened.net), form.load(path), shapes=[(2, 3, 41, 40)], pictures=(), agree=same_label
    )
    assert not parity.ok
    told = where_it_differs(opened.net, fast, form, path, parity, takes)
    assert f"the first layer that differs is {layer} (by " in told


@pytest.mark.parametrize("name", ["onnx", "openvino", "torch"])
def test_a_wrong_file_is_not_delivered(
    name: str,
    cli: Cli,
    saved_model: Path,
    real_exports: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    form = broken(FORMATS[name], real_exports[name], "layer2.0.conv2.conv")
    use(monkeypatch, form)
    out = tmp_path / f"m{form.suffix}"
    done = cli("export", saved_model, "--format", name, "--out", out)
    assert done.code == 5
    assert "the first layer that differs is layer2.0.conv2.conv" in done.err
    assert len([line for line in done.err.splitlines() if line.startswith("resnest:")]) == 1
    assert _beside(tmp_path) == set()
    out.write_bytes(b"resnest_origin of what was there before")
    with pytest.raises(ParityFailure, match=r"logits differ by .* \(allowed: 1e-04\)"):
        resnest.export(saved_model, format=name, out=out)
    assert out.read_bytes() == b"resnest_origin of what was there before"
    assert _beside(tmp_path) == {out.name}


def test_a_preparation_that_changes_the_network(
    saved_model: Path, real_exports: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is compared with the network as it was opened, not with what it was made from."""

    prepare = ClassificationTask.prepared

    def wrong(net: Any, **options: Any) -> Any:
        fast = prepare(net, **options)
        with torch.no_grad():
            fast.layer3[0].conv3.bias.add_(0.1)
        return fast

    monkeypatch.setattr(ClassificationTask, "prepared", wrong)
    with pytest.raises(ParityFailure, match=r"already when prepared for inference, is layer3\.0 "):
        resnest.export(saved_model, format="torch", out=tmp_path / "m.pt2")
    assert _beside(tmp_path) == set()


def test_a_failure_that_cannot_be_placed_is_still_told(
    saved_model: Path, real_exports: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def layers(path: Path, images: Any) -> Any:
        raise RuntimeError("cannot look inside\nat all")

    use(monkeypatch, replace(broken(FORMATS["onnx"], real_exports["onnx"], "conv1"), layers=layers))
    with pytest.raises(ParityFailure, match=r"logits differ .* could not be determined \(cannot look inside\)"):
        resnest.export(saved_model, out=tmp_path / "m.onnx")


def test_other_labels_are_a_failure(saved_model: Path) -> None:
    """Differences within the tolerance that turn a clear winner do not exist; a tie may go either way."""
    logits = np.array([[1.0, 0.5, 0.0], [1.0, 1.0 - 1e-5, 0.0], [-1.0, 2.0, 1.9]], np.float32)
    turned = logits[:, [1, 0, 2]]
    assert same_label({"logits": logits}, {"logits": turned}).tolist() == [False, True, False]
    assert same_label({"logits": logits}, {"logits": logits * np.nan}).tolist() == [False] * 3
    several = np.array([[3.0, -2.0], [1e-5, -3.0], [0.5, 4.0]], np.float32)
    changed = several * np.array([[1, 1], [-1, 1], [-1, 1]], np.float32)
    assert same_labels({"logits": several}, {"logits": changed}).tolist() == [True, True, False]


NOT_DELIVERED = {
    "garbage": (lambda path: path.write_bytes(b"garbage"), "onnxruntime cannot read the file"),
    "cut short": (lambda path: path.write_bytes(path.read_bytes()[:-5000]), "onnxruntime cannot read the file"),
}


@pytest.mark.parametrize("case", NOT_DELIVERED)
def test_a_file_that_its_engine_refuses(
    case: str, saved_model: Path, real_exports: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil, message = NOT_DELIVERED[case]
    copying = _copying("onnx", real_exports)

    def write(net: Any, path: Path, strings: Any, takes: Interface) -> None:
        copying.write(net, path, strings, takes)
        spoil(path)

    use(monkeypatch, replace(copying, write=write))
    with pytest.raises(ParityFailure, match=message):
        resnest.export(saved_model, out=tmp_path / "m.onnx")
    assert _beside(tmp_path) == set()


def test_a_size_that_the_engine_refuses(
    saved_model: Path, real_exports: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copying = _copying("onnx", real_exports)

    def load(path: Path) -> Any:
        run = onnx.load(path)
        return lambda images: run(images[:, :2] if images.shape[2] == 97 else images)

    use(monkeypatch, replace(copying, load=load))
    with pytest.raises(ParityFailure, match=r"cannot run 1 x 3 x 97 x 131: .*Got: 2 Expected: 3"):
        resnest.export(saved_model, out=tmp_path / "m.onnx")
    assert _beside(tmp_path) == set()


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_what_is_compared_is_what_users_run(
    name: str, saved_model: Path, real_exports: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader, settings or a choice of outputs that spoils the file in `Predictor` spoils the comparison."""
    form = FORMATS[name]
    engine = choosing.ENGINES[form.engine]
    load = engine.load

    def loading(path: Path, *, threads: int) -> Loaded:
        loaded = load(path, threads=threads)
        return replace(loaded, compute=lambda images, names: [value * 1.01 for value in loaded.compute(images, names)])

    monkeypatch.setattr(engine, "load", loading)
    use(monkeypatch, _copying(name, real_exports))
    with pytest.raises(ParityFailure, match=r"logits differ by 1\.0e-02"):
        resnest.export(saved_model, out=tmp_path / f"m{form.suffix}")
    assert _beside(tmp_path) == set()


def test_a_file_that_users_could_not_open(
    saved_model: Path, real_exports: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It computes the same, and says nothing of its classes."""
    import onnx as package

    def write(net: Any, path: Path, strings: Any, takes: Interface) -> None:
        model = package.load(real_exports["onnx"])
        del model.metadata_props[:]
        package.save(model, path)

    use(monkeypatch, replace(FORMATS["onnx"], write=write))
    with pytest.raises(ParityFailure, match=r"onnxruntime cannot read the file: .* has no metadata 'resnest'"):
        resnest.export(saved_model, out=tmp_path / "m.onnx")
    assert _beside(tmp_path) == set()


def test_an_engine_that_refuses_everything(
    cli: Cli, saved_model: Path, real_exports: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first shape already: there is not a single difference to speak of."""

    def run(images: Any) -> Any:
        raise RuntimeError("no kernel for Conv")

    use(monkeypatch, replace(_copying("onnx", real_exports), load=lambda path: run))
    done = cli("export", saved_model, "--out", tmp_path / "m.onnx")
    assert (done.code, "cannot run 1 x 3 x 64 x 64: no kernel for Conv" in done.err) == (5, True), done.err
    assert _beside(tmp_path) == set()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, also where the tests run in the background of a shell, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_leaves_nothing(
    cli: Cli, saved_model: Path, real_exports: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle: the file is written aside, and not compared yet."""
    seen = []

    def load(path: Path) -> Any:
        seen.append(path.is_file())
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)

    use(monkeypatch, replace(_copying("onnx", real_exports), load=load))
    done = cli("export", saved_model, "--out", tmp_path / "m.onnx")
    assert (done.code, seen) == (130, [True])
    assert _beside(tmp_path) == set()


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """400 kB: less than the weights."""
    with small_file_system(tmp_path / "small", "400k") as place:
        yield place


@pytest.mark.parametrize("name", ["onnx", "torch"])
def test_a_full_disk(name: str, cli: Cli, saved_model: Path, full_disk: Path) -> None:
    done = cli("export", saved_model, "--format", name, "--out", full_disk / f"m{FORMATS[name].suffix}")
    assert done.code == 2
    assert re.search("cannot be written: no space left on device", done.err.splitlines()[-1], re.IGNORECASE)
    assert _beside(full_disk) == set()


# arguments after the model, and what is said
BAD = {
    "unknown format": (["--format", "onxx"], "'onxx' is not a known format. Did you mean 'onnx'?"),
    "a suffix of no format": (["--out", "m.tflite"], "its suffix names no format; known: .onnx (onnx)"),
    "over weights": (["--out", "pico/model.safetensors"], "its suffix names no format"),
    "over weights, by name": (
        ["--format", "onnx", "--out", "pico/model.safetensors"],
        "is written to a file that ends in .onnx",
    ),
    "another format's suffix": (["--format", "openvino", "--out", "m.onnx"], "ends in .xml"),
    "a folder": (["--out", "taken.onnx"], "is a folder: name a file in it, such as taken.onnx/model.onnx"),
    "no such folder": (["--out", "nowhere/m.onnx"], "there is no folder nowhere"),
    "a folder that is a file": (["--out", "file/m.onnx"], "there is no folder file"),
    "a folder that takes no files": (["--out", "/proc/m.onnx"], "--out /proc/m.onnx cannot be written"),
    "no pictures": (["--images", "taken.onnx"], "no images"),
    "no such pictures": (["--images", "nowhere"], "nowhere"),
    "no size": (["--size", "0"], "--size 0: to export this network, images must have 5 to 2048 pixels a side"),
    "too small a size": (["--size", "4"], "--size 4: to export this network, images must have 5 to 2048"),
    "a giant size": (
        ["--size", "100000"],
        "--size 100000: to export this network, images must have 5 to 2048 pixels a side",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved(Path("pico"))
    Path("taken.onnx").mkdir()
    Path("file").write_text("")
    weights = Path("pico/model.safetensors").read_bytes()
    arguments, message = BAD[case]
    done = cli("export", "pico", *arguments)
    assert done.code == 2
    assert message in done.err
    assert len(done.err.splitlines()) == 1
    assert Path("pico/model.safetensors").read_bytes() == weights
    assert not list(tmp_path.rglob("*.tmp"))


def test_references_without_a_classifier(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    state = resnest.create_model("resnest14", num_classes=7).state_dict()
    torch.save(state, "seven.pth")
    torch.save({name: value for name, value in state.items() if not name.startswith("fc.")}, "backbone.pth")
    for file, message in (("seven.pth", "7 classes but does not name them"), ("backbone.pth", "no classifier")):
        done = cli("export", file, "--model", "resnest14")
        assert done.code == 2
        assert message in done.err
    assert _beside(tmp_path) == {"seven.pth", "backbone.pth"}


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("onnx", "pip install 'resnest[onnx]'"),
        ("openvino", "pip install 'resnest[openvino,onnx]'"),
        ("executorch", "pip install 'resnest[executorch]'"),
    ],
)
def test_missing_packages(
    name: str, command: str, cli: Cli, saved_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resnest.exporters.formats.importlib.util.find_spec", lambda package: None)
    done = cli("export", saved_model, "--format", name)
    assert done.code == 2
    assert command in done.err


def test_small_pictures(cli: Cli, tmp_path: Path) -> None:
    """A run on tiny pictures works in torch, and engines would refuse the shortcut's pooling of one pixel."""
    done = cli("export", saved(tmp_path / "tiny", size=4))
    assert done.code == 2
    assert f"{tmp_path / 'tiny'} takes images of 4 x 4 pixels: to export" in done.err
    done = cli("export", tmp_path / "tiny", "--size", "5", "--format", "openvino")
    assert done.code == 0, done.err


@pytest.mark.parametrize(("compiler", "told"), [(None, "looked for g++ and clang++"), ("false", "CXX=false is none")])
def test_no_compiler(
    compiler: str | None, told: str, cli: Cli, saved_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if compiler:
        monkeypatch.setenv("CXX", compiler)
    else:
        monkeypatch.delenv("CXX", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
    done = cli("export", saved_model, "--format", "aotinductor", "--out", tmp_path / "m.pt2")
    assert done.code == 2
    assert f"found no compiler ({told})" in done.err
    assert _beside(tmp_path) == set()


def test_formats_by_suffix() -> None:
    named = {path: find_format(None, Path(path)).name for path in ("a.onnx", "a.xml", "a.pt2", "a.pte")}
    assert named == {"a.onnx": "onnx", "a.xml": "openvino", "a.pt2": "torch", "a.pte": "executorch"}
    assert find_format(None).name == "onnx"
    with pytest.raises(ResnestError, match="not a known format"):
        find_format("tensorrt")


def test_default_places(saved_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = {
        (str(saved_model), "onnx"): saved_model / "model.onnx",
        (str(saved_model), "aotinductor"): saved_model / "model.aoti.pt2",
        ("resnest50.in1k", "openvino"): Path("resnest50.in1k.xml"),
        ("someone/flowers", "torch"): Path("flowers.pt2"),
        (str(saved_model / "model.safetensors"), "executorch"): Path("model.pte"),
    }
    found = {key: exporting.default_target(key[0], FORMATS[key[1]]) for key in places}
    assert found == places


def test_an_opened_model_with_several_labels_and_another_size(tmp_path: Path) -> None:
    """From Python; the card in the file says the size that was asked for, and no hash: the weights may be anyone's."""
    import onnxruntime

    spec = replace(PICO, radix=4, cardinality=2, attention_norm="layer")
    opened = Model.from_pretrained(saved(tmp_path / "several", spec, multi_label=True))
    done = resnest.export(opened, out=tmp_path / "m.onnx", size=48)
    assert done.parity.worst.value <= 1e-5
    assert (5, 3, 48, 48) in done.parity.shapes
    strings = onnxruntime.InferenceSession(tmp_path / "m.onnx").get_modelmeta().custom_metadata_map
    card = ModelCard.from_json(strings["resnest"], where="")
    assert (card.preprocess.size, card.multi_label) == (48, True)
    assert "weights_sha256" not in json.loads(strings["resnest_origin"])


def test_two_gigabytes_do_not_fit(monkeypatch: pytest.MonkeyPatch, saved_model: Path, tmp_path: Path) -> None:
    monkeypatch.setattr(onnx, "MOST_BYTES", 100_000)
    with pytest.raises(ResnestError, match="an ONNX file holds 2 at most"):
        resnest.export(saved_model, out=tmp_path / "m.onnx")

"""int8: accurate on unseen pictures or refused; integers where they should be, and float where they should not."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import resnest
from conftest import FULL, Outcome
from resnest.data.sources import open_dataset
from resnest.exporters import int8
from resnest.exporters.calibration import find_photos
from resnest.exporters.int8 import AccuracyCost, compare
from resnest.exporters.quantize import Choices, pool_before_relu, quantize
from resnest.inference.model import Model
from resnest.runtime.engines.choosing import open_engine
from resnest.runtime.hardware import instruction_sets

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

Cli = Callable[..., Outcome]
MEAN = (124, 116, 104)  # of ImageNet: nothing is left of it after preprocessing


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that has learnt the handwritten digits well enough to lose something."""
    out = tmp_path_factory.mktemp("int8") / "run"
    half = ["data.workers=0", "train.epochs=3", "model.spec.planes=[8, 16, 32, 64]", "model.spec.stem_width=4"]
    resnest.train("digits", data="digits", out=out, settings=["train.epochs=4"] if FULL else half)
    return out


@pytest.fixture(scope="module")
def files(run: Path) -> tuple[Path, Path, dict[str, Any]]:
    """The float file, the int8 file, and what the export told."""
    from resnest.exporters.exporting import export
    from resnest.exporters.int8 import Int8

    float_file = export(run).path
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8, "SECONDS", 0.2)
        exported = export(run, format="onnx", int8=Int8("digits"))
    return float_file, exported.path, exported.to_dict()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "SECONDS", 0.2)


def digits_folder(folder: Path, *, part: str = "val", blank: bool = False, most: int = 400) -> Path:
    samples = getattr(open_dataset("digits"), part)
    for index in range(min(most, len(samples))):
        target = folder / samples.class_names[samples.labels[index]] / f"{index:04d}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        image = samples.decode(index)
        (Image.new("RGB", image.size, MEAN) if blank else image).save(target)
    return folder


def test_what_it_costs_is_measured_and_told(files: tuple[Path, Path, dict[str, Any]]) -> None:
    float_file, int8_file, told = files
    assert (float_file.name, int8_file.name) == ("model.onnx", "model.int8.onnx")  # neither replaces the other
    accuracy = told["int8"]["accuracy"]
    assert accuracy["images"] == 359
    assert accuracy["float32"] > 0.8
    assert accuracy["drop"] == pytest.approx(accuracy["float32"] - accuracy["int8"])
    assert accuracy["interval"][0] <= accuracy["drop"] <= accuracy["interval"][1]
    assert accuracy["drop"] <= 0.01
    assert told["int8"]["instruction_set"] == " ".join(instruction_sets())
    times = told["int8"]["milliseconds"]
    assert set(times) == {"1", "16"}
    for batch, best in told["int8"]["fastest"].items():
        assert times[batch][best] == min(times[batch].values())


def test_the_file_says_so_too(files: tuple[Path, Path, dict[str, Any]], run: Path) -> None:
    properties = {entry.key: entry.value for entry in onnx.load(files[1]).metadata_props}
    origin = json.loads(properties["resnest_origin"])
    assert origin["precision"] == "int8"
    assert origin["accuracy"] == files[2]["int8"]["accuracy"]
    assert origin["fastest"] == files[2]["int8"]["fastest"]
    assert json.loads(properties["resnest"])["label_names"] == list(Model.from_pretrained(run).card.class_names)


def test_weights_are_int8_per_channel_and_sensitive_parts_float(files: tuple[Path, Path, dict[str, Any]]) -> None:
    graph = onnx.load(files[1]).graph
    values = {value.name: onnx.numpy_helper.to_array(value) for value in graph.initializer}
    scales = {node.input[0]: node.input[1] for node in graph.node if node.op_type == "DequantizeLinear"}
    made_by = {node.output[0]: node for node in graph.node}
    kinds: dict[str, str] = {}
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm"):
            continue
        name = node.input[1]
        if name in values:
            kinds[name] = str(values[name].dtype)
            continue
        stored = made_by[name].input[0]  # the weight goes through DequantizeLinear
        kinds[stored.removesuffix("_quantized")] = str(values[stored].dtype)
        assert values[scales[stored]].shape == (values[stored].shape[0],)
    sensitive = {name for name in kinds if name.startswith("conv1.") or ".fc1." in name or ".fc2." in name}
    assert len(sensitive) == 1 + 2 * 4  # the stem of one convolution, two layers in each of four attentions
    assert {kinds[name] for name in sensitive} == {"float32"}
    assert {kind for name, kind in kinds.items() if name not in sensitive} == {"int8"}


def test_narrow_weights_use_seven_bits(files: tuple[Path, Path, dict[str, Any]], tmp_path: Path) -> None:
    """Without VNNI the sum of two products of eight bits saturates."""
    images = [np.random.default_rng(0).standard_normal((8, 3, 32, 32), np.float32)]
    largest = {}
    for narrow in (False, True):
        target = tmp_path / f"{narrow}.onnx"
        quantize(files[0], target, images, Choices(narrow=narrow))
        weights = [onnx.numpy_helper.to_array(value) for value in onnx.load(target).graph.initializer]
        largest[narrow] = max(np.abs(w.astype(int)).max() for w in weights if w.dtype == np.int8 and w.ndim == 4)
    assert largest[False] == 127
    assert largest[True] in (63, 64)


def test_useless_calibration_is_refused(cli: Cli, run: Path, tmp_path: Path) -> None:
    """Pictures of one grey span no range: accuracy is gone, and so is the file; an older one stays."""
    data = tmp_path / "data"
    digits_folder(data / "train", part="train", blank=True, most=80)
    digits_folder(data / "val")
    target = tmp_path / "q.onnx"
    target.write_bytes(b"resnest_origin, older")
    done = cli("export", run, "--int8", "--calibrate", data, "--out", target)
    assert done.code == 5, done.out + done.err
    assert "allowed are 1 (--max-drop)" in done.err
    assert "359 held-back pictures" in done.err
    assert target.read_bytes() == b"resnest_origin, older"
    assert {path.name for path in tmp_path.iterdir()} == {"data", "q.onnx"}


def test_pictures_without_labels_and_damaged_ones(cli: Cli, run: Path, tmp_path: Path) -> None:
    """A plain folder: how often the label changes stands in for accuracy."""
    samples = open_dataset("digits").train
    photos = tmp_path / "photos"
    photos.mkdir()
    for index in range(280):
        samples.decode(index).save(photos / f"{index:03d}.png")
    (photos / "broken.png").write_bytes((photos / "000.png").read_bytes()[:60])
    done = cli("export", run, "--int8", "--calibrate", photos, "--out", tmp_path / "q.onnx")
    assert done.code == 0, done.err
    assert "held-back pictures get another label" in done.out
    assert "skipped    1 pictures" in done.out
    assert "broken.png" in done.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--int8"], "--int8 needs --calibrate PHOTOS"),
        (["--int8", "--max-drop", "1"], "--int8 needs --calibrate PHOTOS"),
        (["--calibrate", "digits"], "--calibrate is for 8-bit integers: add --int8, or leave it out"),
        (["--max-drop", "1"], "--max-drop is for 8-bit integers: add --int8, or leave it out"),
        (
            ["--int8", "--calibrate", "digits", "--format", "torch"],
            "--int8 is written to onnx or openvino, not to torch",
        ),
        (["--int8", "--calibrate", "digits", "--max-drop", "-1"], "--max-drop -1: expected points of accuracy"),
        (["--int8", "--calibrate", "few"], "are too few; it takes 32 and 100"),
        (["--int8", "--calibrate", "nowhere"], "nowhere"),
    ],
)
def test_mistakes(
    cli: Cli, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    digits_folder(tmp_path / "few", most=60)
    done = cli("export", run, *arguments)
    assert done.code == 2
    assert said in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"few"}


def test_what_is_held_back_is_not_calibrated_on(run: Path, tmp_path: Path) -> None:
    for where in ("digits", digits_folder(tmp_path / "photos")):
        calibration, held_back = find_photos(where, Model.from_pretrained(run))
        found = len(calibration.reads), len(held_back.reads)
        assert found in {(256, 359), (179, 180)}  # what training held out; of other data one half
        assert calibration.labels is not None
        seen, others = ({id_of(read) for read in photos.reads} for photos in (calibration, held_back))
        assert not seen & others


def id_of(read: Any) -> tuple[str, int]:
    """The key of the sample that a reader reads."""
    samples = read.func.__self__
    return samples.keys[read.args[0]], 0


def test_costs_count_picture_by_picture() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2])
    before, after = np.array([0, 1, 1, 1, 2, 0]), np.array([0, 0, 1, 2, 2, 0])  # one won, one lost
    run, other = (lambda _, answers=answers: np.eye(3, dtype=np.float32)[answers] for answers in (before, after))
    batches = [(np.zeros((6, 3, 4, 4), np.float32), labels)]
    cost = compare(run, {"engine": other}, batches, multi_label=False)["engine"]
    assert (cost.right, cost.lost, cost.won, cost.drop) == (4, 1, 1, 0)
    low, high = cost.interval
    assert (low, high) == (pytest.approx(-1.96 * 3**0.5 / 8), pytest.approx(1.96 * 3**0.5 / 8))
    unlabelled = [(np.zeros((6, 3, 4, 4), np.float32), np.full(6, -1))]
    assert compare(run, {"engine": other}, unlabelled, multi_label=False)["engine"].lost == 2


@pytest.mark.parametrize(("count", "lost", "won"), [(200, 0.04, 0.03), (100, 0.05, 0.0), (1000, 0.01, 0.01)])
def test_the_interval_holds_the_true_drop_as_often_as_it_says(count: int, lost: float, won: float) -> None:
    draws = np.random.default_rng(0).multinomial(count, [lost, won, 1 - lost - won], size=2000)
    intervals = [AccuracyCost(count, count, int(a), int(b), True).interval for a, b, _ in draws]
    assert 0.93 <= np.mean([low <= lost - won <= high for low, high in intervals]) <= 0.995


def test_few_pictures_are_called_few() -> None:
    assert AccuracyCost(100, 90, 0, 0, True).needed(0.01) > 100  # no picture differs, yet up to two in a hundred may
    assert AccuracyCost(2000, 1700, 5, 4, True).needed(0.01) == 0
    assert AccuracyCost(2000, 1700, 100, 4, True).needed(0.01) == 0  # surely more
    assert AccuracyCost(100, 90, 2, 0, True).needed(0.01) > 100


def test_max_pool_comes_before_its_relu() -> None:
    """The same function; and where something else reads the ReLU, too, nothing is moved."""
    for shared in (False, True):
        model = _stem(shared)
        before = {name: _run(model, name) for name in ("out", "skip")}
        assert pool_before_relu(model.graph) is not shared
        kinds = [node.op_type for node in model.graph.node]
        assert kinds.index("MaxPool") < kinds.index("Relu") or shared
        onnx.checker.check_model(model)
        for name, values in before.items():
            assert np.array_equal(values, _run(model, name))


def _stem(shared: bool) -> Any:
    """A convolution, its ReLU and a max-pool; `skip` is read from the ReLU or from the convolution."""
    node, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    graph = onnx.helper.make_graph(
        [
            node("Conv", ["x", "w"], ["c"]),
            node("Relu", ["c"], ["r"]),
            node("MaxPool", ["r"], ["out"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
            node("Identity", ["r" if shared else "c"], ["skip"]),
        ],
        "stem",
        [info("x", onnx.TensorProto.FLOAT, [1, 3, 9, 9])],
        [info(name, onnx.TensorProto.FLOAT, ["N", "C", "H", "W"]) for name in ("out", "skip")],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)


def _run(model: Any, name: str) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run([name], {"x": np.random.default_rng(1).standard_normal((1, 3, 9, 9)).astype(np.float32)})[0]


def test_openvino_too(cli: Cli, run: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    target = tmp_path / "q.xml"
    done = cli("export", run, "--int8", "--calibrate", "digits", "--out", target, "--json")
    assert done.code == 0, done.err
    assert target.with_suffix(".bin").stat().st_size < (run / "model.safetensors").stat().st_size / 2
    digit = digits_folder(tmp_path / "some", most=1)
    shown = cli("predict", target, digit, "--json")
    assert shown.code == 0, shown.err
    assert json.loads(shown.out)["top"][0]["score"] > 0


def test_auto_takes_the_engine_that_was_quickest_here(files: tuple[Path, Path, dict[str, Any]], tmp_path: Path) -> None:
    """And not what was quickest on a machine with other instructions, or what is no engine."""
    pytest.importorskip("openvino")
    model = onnx.load(files[1])
    origin = {entry.key: entry.value for entry in model.metadata_props}["resnest_origin"]
    here = {**json.loads(origin), "fastest": {"1": "openvino int8", "16": "onnxruntime int8", "x": 3}}
    cases = [(here, 1, "openvino"), (here, 8, "openvino"), (here, 64, "onnxruntime")]
    cases += [({**here, "instruction_set": "mmx"}, 1, "onnxruntime"), ({**here, "fastest": 7}, 1, "onnxruntime")]
    for told, batch, expected in cases:
        onnx.helper.set_model_props(model, {"resnest_origin": json.dumps(told), **_card_of(model)})
        onnx.save(model, tmp_path / "q.onnx")
        assert open_engine(tmp_path / "q.onnx", batch_size=batch).name.startswith(expected)


def _card_of(model: Any) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props if entry.key == "resnest"}


def test_the_page_shows_what_was_measured() -> None:
    root = Path(__file__).parents[1]
    script = runpy.run_path(str(root / "benchmarks" / "int8.py"))
    results = (script["read"](root / "results" / name) for name in ("int8-accuracy.csv", "int8-cpu.csv"))
    assert "\n".join(script["summary"](*results)) in (root / "docs" / "int8.md").read_text(encoding="utf-8")

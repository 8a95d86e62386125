"""Triton's model repository: read back by Triton's protobuf, its preprocessing run, its ONNX file too.

The server itself is not run here.
"""

from __future__ import annotations

import json
import runpy
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import painted
import resnest
from conftest import Outcome
from exports import saved
from kits import write_pictures
from resnest.runtime.decode import decode_image
from resnest.runtime.engines.onnxruntime import open_session
from test_kit import save_model

config_pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2")
Cli = Callable[..., Outcome]
KINDS = {  # size, most images of the network, most of the ensemble
    "one label": (None, 32, 32),
    "several labels": (None, 32, 32),
    "masks": ((64, 96), 0, 0),
    "pixels": (None, 4, 1),
    "pixels of a size": ((64, 96), 4, 4),
}
TYPES = {"tensor(float)": "TYPE_FP32", "tensor(int64)": "TYPE_INT64", "tensor(uint8)": "TYPE_UINT8"}


def read(folder: Path) -> Any:
    from google.protobuf import text_format

    return text_format.Parse((folder / "config.pbtxt").read_text(encoding="utf-8"), config_pb2.ModelConfig())


def type_name(tensor: Any) -> str:
    return str(config_pb2.DataType.Name(tensor.data_type))


@pytest.fixture(scope="module", params=KINDS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("triton")
    painted.paint(folder / "data", 4)
    images = folder / "data" / "images" / "val"
    model = save_model(request.param, folder / "net")
    resnest.export(model, format="triton", out=folder / "repository", size=KINDS[request.param][0], images=images)
    return request.param, folder / "repository"


def test_configurations(exported: tuple[str, Path]) -> None:
    kind, root = exported
    _, most, together = KINDS[kind]
    assert {path.name for path in root.iterdir()} == {"net", "net_preprocess", "net_ensemble"}
    network, preprocess, ensemble = (read(root / name) for name in ("net", "net_preprocess", "net_ensemble"))
    assert [config.name for config in (network, preprocess, ensemble)] == ["net", "net_preprocess", "net_ensemble"]
    assert (network.backend, preprocess.backend, ensemble.platform) == ("onnxruntime", "python", "ensemble")
    assert [config.max_batch_size for config in (network, preprocess, ensemble)] == [most, together, together]
    assert network.HasField("dynamic_batching") == (most > 0)
    assert all((root / name / "1").is_dir() for name in ("net", "net_preprocess", "net_ensemble"))
    _check_tensors(network, open_session(str(root / "net" / "1" / network.default_model_filename), threads=1))
    labels = (root / "net" / "labels.txt").read_text(encoding="utf-8").splitlines()
    named = [output for output in network.output if output.label_filename]
    assert len(named) == (kind in ("one label", "several labels"))
    assert all(list(output.dims) == [len(labels)] for output in named)
    assert [(one.name, type_name(one), list(one.dims)) for one in preprocess.input] == [("image", "TYPE_STRING", [1])]
    assert list(ensemble.input) == list(preprocess.input)
    assert [output.name for output in ensemble.output] == [*(output.name for output in network.output), "sizes"]


def _check_tensors(config: Any, session: Any) -> None:
    """Names, types and shapes are those of the file."""
    batched = config.max_batch_size > 0
    for declared, there in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        assert {one.name for one in declared} == {one.name for one in there}
        for one in there:
            [mine] = [other for other in declared if other.name == one.name]
            sides = [side if isinstance(side, int) else -1 for side in one.shape]
            assert (type_name(mine), [-1, *mine.dims] if batched else list(mine.dims)) == (TYPES[one.type], sides)


def test_the_ensemble_is_connected(exported: tuple[str, Path]) -> None:
    """Every tensor that a step takes is an input of the ensemble or given by a step before it, with its shape."""
    _, root = exported
    ensemble = read(root / "net_ensemble")
    known = {tensor.name: tensor for tensor in ensemble.input}
    for step in ensemble.ensemble_scheduling.step:
        model = read(root / step.model_name)
        assert set(step.input_map) == {tensor.name for tensor in model.input}
        assert set(step.output_map) == {tensor.name for tensor in model.output}
        for tensor in model.input:
            before = known[step.input_map[tensor.name]]
            assert (before.data_type, list(before.dims)) == (tensor.data_type, list(tensor.dims))
        known |= {step.output_map[tensor.name]: tensor for tensor in model.output}
    for tensor in ensemble.output:
        assert list(known[tensor.name].dims) == list(tensor.dims)


# --- The preprocessing, with the part of Triton's module that it uses ---


class Tensor:
    def __init__(self, name: str, values: np.ndarray) -> None:
        self.name, self.values = name, values

    def as_numpy(self) -> np.ndarray:
        return self.values


class Response:
    def __init__(self, output_tensors: list[Tensor], error: Any = None) -> None:
        self.outputs, self.error = {tensor.name: tensor.values for tensor in output_tensors}, error


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> None:
    utils = types.ModuleType("triton_python_backend_utils")
    names = {
        "Tensor": Tensor,
        "InferenceResponse": Response,
        "TritonError": str,
        "get_input_tensor_by_name": lambda request, name: request[name],
    }
    for name, value in names.items():
        setattr(utils, name, value)
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", utils)
    monkeypatch.setitem(sys.modules, "resnest", None)  # it is not there


def start(root: Path) -> Any:
    from google.protobuf import json_format

    folder = root / "net_preprocess"
    config = json_format.MessageToDict(
        read(folder), preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    model = runpy.run_path(str(folder / "1" / "model.py"))["TritonPythonModel"]()
    model.initialize({"model_config": json.dumps(config)})
    return model


def ask(*pictures: bytes, batched: bool) -> dict[str, Tensor]:
    values = np.array(pictures, np.object_)
    return {"image": Tensor("image", values[:, None] if batched else values)}


@pytest.mark.usefixtures("backend")
def test_preprocessing_gives_our_tensors(exported: tuple[str, Path], tmp_path: Path) -> None:
    kind, root = exported
    batched = KINDS[kind][2] > 0
    session = open_session(str(root / "net" / "1" / "model.onnx"), threads=1)
    card = resnest.Predictor(root / "net" / "1" / "model.onnx").card
    files = write_pictures(tmp_path / "pictures")
    model = start(root)
    responses = model.execute([ask(path.read_bytes(), batched=batched) for path in files])
    for path, response in zip(files, responses, strict=True):
        assert response.error is None
        picture = decode_image(path)
        np.testing.assert_array_equal(response.outputs["images"], card.preprocess(picture)[None])
        sizes = [*picture.size, *card.preprocess.scaled_size(*picture.size)]
        np.testing.assert_array_equal(response.outputs["sizes"], [sizes] if batched else sizes)
        assert session.run(None, {"images": response.outputs["images"]})
    if KINDS[kind][2] > 1:
        [response] = model.execute([ask(*(path.read_bytes() for path in files), batched=True)])
        expected = np.stack([card.preprocess(decode_image(path)) for path in files])
        np.testing.assert_array_equal(response.outputs["images"], expected)


@pytest.mark.usefixtures("backend")
def test_a_bad_picture_fails_its_own_request(exported: tuple[str, Path], tmp_path: Path) -> None:
    kind, root = exported
    good = write_pictures(tmp_path / "pictures")[0].read_bytes()
    requests = [ask(content, batched=KINDS[kind][2] > 0) for content in (b"<html>", good, b"", good[:300])]
    first, second, third, fourth = start(root).execute(requests)
    assert second.error is None
    assert first.error == third.error == "not a JPEG, PNG, WEBP, BMP or GIF picture"
    assert "no picture that can be used" in fourth.error


def test_baked(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    model = save_model("masks", tmp_path / "net")
    resnest.export(model, format="triton", out=tmp_path / "repository", size=(64, 96), bake_preprocessing="nhwc")
    root = tmp_path / "repository"
    request.getfixturevalue("backend")
    [taken] = read(root / "net").input
    assert (taken.name, type_name(taken), list(taken.dims)) == ("pixels", "TYPE_UINT8", [1, -1, -1, 3])
    path = write_pictures(tmp_path / "pictures")[0]
    [response] = start(root).execute([ask(path.read_bytes(), batched=False)])
    assert response.outputs["pixels"].dtype == np.uint8
    session = open_session(str(root / "net" / "1" / "model.onnx"), threads=1)
    assert session.run(None, {"pixels": response.outputs["pixels"]})


def test_beside_other_models(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repository has several; ours are replaced, others' are not touched."""
    monkeypatch.chdir(tmp_path)
    saved(Path("a b.c"))
    saved(Path("roses"))
    for name in ("a b.c", "roses", "roses"):
        done = cli("export", name, "--format", "triton", "--out", "all", "--json")
        assert done.code == 0, done.err
    assert json.loads(done.out)["out"] == "all/roses/1/model.onnx"
    assert {path.name for path in Path("all").iterdir()} == {
        f"{name}{part}" for name in ("a_b.c", "roses") for part in ("", "_preprocess", "_ensemble")
    }
    (tmp_path / "theirs" / "roses").mkdir(parents=True)
    (tmp_path / "theirs" / "roses" / "config.pbtxt").write_text("name: 'roses'")
    done = cli("export", "roses", "--format", "triton", "--out", "theirs")
    assert (done.code, "nothing says that resnest wrote config.pbtxt" in done.err) == (2, True), done.err
    done = cli("export", "roses", "--format", "triton")
    assert done.code == 0, done.err
    assert Path("roses/triton/roses/config.pbtxt").is_file()

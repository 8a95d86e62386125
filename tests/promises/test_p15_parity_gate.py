"""P15, parity gate: what is delivered computes what the network computes, in its own engine; what does not is refused.

Measured here without the gate's own code. How a disturbed file is refused and its layer named: tests/test_export.py,
and here for the formats whose files nobody can look into. `make promises`: the published ResNeSt-50 in every format.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

import resnest
from conftest import FULL, Outcome
from exports import CLASSES, lively, use
from resnest.exporters import pt2
from resnest.exporters.calibration import synthetic
from resnest.exporters.capture import BlockOutputs, Interface
from resnest.exporters.formats import FORMATS, find_exporter
from resnest.inference.model import Model
from resnest.runtime.card import ModelCard

Cli = Callable[..., Outcome]

ANY_SIZE = ("onnx", "openvino", "torch")
ONE_SIZE = ("aotinductor", "executorch")
PROMISED = [(n, h, w) for n in (1, 2, 5) for h, w in ((64, 64), (97, 131), (160, 160))]
LIMIT = 1e-4  # of the largest logit


def _ready(name: str) -> None:
    for package in FORMATS[name].needs:
        pytest.importorskip(package)
    if name == "aotinductor":
        try:
            pt2.check_compiler()
        except resnest.ResnestError as error:
            pytest.skip(str(error))


def _engine(name: str, path: Path) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """The file in its engine, by the engine's own few lines, as docs/export.md has them."""
    if name == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        return lambda images: session.run(["logits"], {"images": images})[0]
    if name == "openvino":
        import openvino

        compiled = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return lambda images: compiled({"images": images})["logits"]
    if name == "torch":
        module = torch.export.load(path).module()
        return lambda images: module(torch.from_numpy(images)).detach().numpy()
    if name == "aotinductor":
        package = torch._inductor.aoti_load_package(str(path))
        return lambda images: package(torch.from_numpy(images)).numpy()
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(path).load_method("forward")
    return lambda images: np.concatenate([method.execute([torch.from_numpy(one[None])])[0].numpy() for one in images])


def _check(name: str, path: Path, opened: Model) -> None:
    """The promise's figures, with noise of another seed than the gate's."""
    run, side = _engine(name, path), opened.card.preprocess.size
    shapes = PROMISED if FORMATS[name].any_size else [(n, side, side) for n in (1, 2, 5)]
    batches = [np.random.default_rng(n * h).standard_normal((n, 3, h, w), np.float32) for n, h, w in shapes]
    pictures = [*find_exporter(opened).batches(opened.card, synthetic().images, 8)]
    assert sum(len(batch) for batch in pictures) == 64
    for images in [*batches, *pictures]:
        with torch.inference_mode():
            expected = opened.net(torch.from_numpy(images)).numpy()
        got = run(images)
        assert np.abs(got - expected).max() <= LIMIT * np.abs(expected).max(), images.shape
        assert (got.argmax(1) == expected.argmax(1)).all()


@pytest.mark.parametrize("name", ANY_SIZE)
def test_any_size(name: str, saved_model: Path, real_exports: dict[str, Path]) -> None:
    _check(name, real_exports[name], Model.from_pretrained(saved_model))


@pytest.mark.parametrize("name", ANY_SIZE)
def test_a_segmenter_of_any_size(name: str, saved_segmenter: Path, segmenter_exports: dict[str, Path]) -> None:
    """Its logits have the size of the images, and every pixel gets the label that the network gives it."""
    run, net = _engine(name, segmenter_exports[name]), Model.from_pretrained(saved_segmenter).net
    for n, h, w in ((1, 64, 64), (2, 97, 131), (5, 160, 64), (1, 33, 40)):
        images = np.random.default_rng(n * h).standard_normal((n, 3, h, w), np.float32)
        with torch.inference_mode():
            expected = net(torch.from_numpy(images)).numpy()
        got = run(images)
        assert expected.shape == got.shape == (n, len(CLASSES), h, w)
        largest = np.abs(expected).max()
        assert np.abs(got - expected).max() <= LIMIT * largest
        second, best = np.sort(expected, axis=1)[:, -2:].swapaxes(0, 1)
        clear = best - second > 2 * LIMIT * largest
        assert clear.mean() > 0.99
        assert (got.argmax(1) == expected.argmax(1))[clear].all()


@pytest.mark.parametrize("name", ONE_SIZE)
def test_one_size(name: str, cli: Cli, saved_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _ready(name)
    # Precompiled headers pay from the second export on, which no test has: a fifth of the time.
    monkeypatch.setattr(torch._inductor.config.aot_inductor, "precompile_headers", False)
    out = tmp_path / f"m{FORMATS[name].suffix}"
    done = cli("export", saved_model, "--format", name, "--out", out)
    assert done.code == 0, done.err
    assert "height 40, width 40" in done.out
    _check(name, out, Model.from_pretrained(saved_model))
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    strings = _strings(name, out)
    assert ModelCard.from_json(strings["resnest"], where="").class_names == CLASSES
    assert json.loads(strings["resnest_origin"])["sizes"]["height"] == 40
    if name == "executorch":
        assert "XNNPACK    runs " in done.out


def _strings(name: str, path: Path) -> dict[str, str]:
    if name == "aotinductor":
        return dict(torch._inductor.aoti_load_package(str(path)).get_metadata())
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(path)
    return {key: program.load_method(key).execute([])[0] for key in ("resnest", "resnest_origin")}


@pytest.mark.skipif(not FULL, reason="compiles twice; with `make promises`")
@pytest.mark.parametrize("name", ONE_SIZE)
def test_a_wrong_one_is_refused(name: str, cli: Cli, saved_model: Path, tmp_path: Path, monkeypatch: Any) -> None:
    _ready(name)
    form = FORMATS[name]

    def write(net: Any, path: Path, strings: Any, takes: Interface) -> Any:
        wrong = copy.deepcopy(net)
        with torch.no_grad():
            (wrong.net if isinstance(wrong, BlockOutputs) else wrong).layer3[0].conv2.fc1.bias.add_(1)
        return form.write(wrong, path, strings, takes)

    use(monkeypatch, replace(form, write=write))
    done = cli("export", saved_model, "--format", name, "--out", tmp_path / f"m{form.suffix}")
    assert done.code == 5
    assert "the first layer that differs is layer3.0.conv2 (by " in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not FULL, reason="minutes; with `make promises`")
@pytest.mark.parametrize("name", [*ANY_SIZE, *ONE_SIZE])
def test_the_published_network(name: str, cli: Cli, tmp_path: Path) -> None:
    """ResNeSt-50 with random weights: the files of the published ones are not part of the tests."""
    _ready(name)
    net = lively(resnest.create_model("resnest50", zero_gamma=False))
    save_file(net.state_dict(), tmp_path / "weights.safetensors")
    out = tmp_path / f"m{FORMATS[name].suffix}"
    done = cli("export", tmp_path / "weights.safetensors", "--model", "resnest50", "--format", name, "--out", out)
    assert done.code == 0, done.err
    _check(name, out, Model.from_pretrained(tmp_path / "weights.safetensors", network="resnest50"))


def test_tensorrt(saved_model: Path, real_exports: dict[str, Path]) -> None:
    """The recipe of docs/export.md, where there are a GPU and TensorRT."""
    tensorrt = pytest.importorskip("tensorrt")
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(0)
    parser = tensorrt.OnnxParser(network, logger)
    assert parser.parse_from_file(str(real_exports["onnx"]))
    settings = builder.create_builder_config()
    settings.clear_flag(tensorrt.BuilderFlag.TF32)
    profile = builder.create_optimization_profile()
    profile.set_shape("images", (1, 3, 64, 64), (2, 3, 64, 64), (5, 3, 160, 160))
    settings.add_optimization_profile(profile)
    engine = tensorrt.Runtime(logger).deserialize_cuda_engine(builder.build_serialized_network(network, settings))
    context = engine.create_execution_context()
    net = Model.from_pretrained(saved_model).net
    for n, h, w in PROMISED:
        images = torch.randn(n, 3, h, w)
        logits = torch.empty(n, len(CLASSES), device="cuda")
        given = images.cuda()
        context.set_input_shape("images", tuple(images.shape))
        context.set_tensor_address("images", given.data_ptr())
        context.set_tensor_address("logits", logits.data_ptr())
        assert context.execute_async_v3(torch.cuda.current_stream().cuda_stream)
        torch.cuda.synchronize()
        with torch.inference_mode():
            expected = net(images)
        assert (logits.cpu() - expected).abs().max() <= LIMIT * expected.abs().max()

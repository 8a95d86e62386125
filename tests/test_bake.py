"""Files that take 8-bit pixels and normalise them themselves: compared, described, predicted with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import painted
import resnest
from conftest import Outcome
from exports import saved
from kits import write_pictures
from resnest.errors import ParityFailure
from resnest.exporters import baking
from resnest.runtime.engines.choosing import open_engine
from resnest.runtime.engines.onnxruntime import open_session
from resnest.runtime.preprocess import IMAGENET_MEAN, IMAGENET_STD, denormalise, normalise
from test_kit import save_model

Cli = Callable[..., Outcome]
KINDS = {"one label": None, "masks": "64x96", "pixels": None}  # and the size of the file


def test_every_pixel_comes_back() -> None:
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    for mean, std in ((IMAGENET_MEAN, IMAGENET_STD), ((0.5,) * 3, (0.5,) * 3), ((0.0,) * 3, (1.0,) * 3)):
        images = normalise(pixels, mean, std)
        np.testing.assert_array_equal(denormalise(images, mean, std), pixels.transpose(2, 0, 1))


@pytest.mark.parametrize(("kind", "layout"), [(kind, "nhwc") for kind in KINDS] + [("masks", "nchw")])
def test_the_same_as_without(kind: str, layout: str, tmp_path: Path, cli: Cli) -> None:
    painted.paint(tmp_path / "data", 4)
    images = tmp_path / "data" / "images" / "val"
    model = save_model(kind, tmp_path / "model")
    words = ["--images", images, *(["--size", KINDS[kind]] if KINDS[kind] else [])]
    for name, more in (("plain", []), ("baked", ["--bake-preprocessing", layout])):
        done = cli("export", model, "--out", tmp_path / f"{name}.onnx", *words, *more)
        assert done.code == 0, done.err
    assert f"; 8-bit pixels, {layout}" in done.out
    [taken] = open_session(str(tmp_path / "baked.onnx"), threads=1).get_inputs()
    assert (taken.name, taken.type) == ("pixels", "tensor(uint8)")
    assert taken.shape.index(3) == (3 if layout == "nhwc" else 1)
    strings = open_engine(tmp_path / "baked.onnx")._loaded.metadata
    assert all(json.loads(strings[key])["input"]["layout"] == layout for key in ("resnest", "resnest_origin"))
    pictures = sorted(images.glob("*.png"))
    plain, baked = (cli("predict", tmp_path / f"{name}.onnx", *pictures, "--json") for name in ("plain", "baked"))
    assert baked.code == 0, baked.err
    assert plain.out == baked.out


def test_a_picture_too_large_is_an_error(tmp_path: Path) -> None:
    """Not cut off in silence."""
    resnest.export(
        save_model("masks", tmp_path / "m"), out=tmp_path / "m.onnx", size=(64, 96), bake_preprocessing="nhwc"
    )
    session = open_session(str(tmp_path / "m.onnx"), threads=1)
    for shape in ((64, 96), (1, 1), (64, 5)):
        session.run(None, {"pixels": np.zeros((1, *shape, 3), np.uint8)})
    for shape in ((65, 96), (64, 97), (128, 48)):
        with pytest.raises(Exception, match="reshape"):
            session.run(None, {"pixels": np.zeros((1, *shape, 3), np.uint8)})


def test_the_comparison_is_with_the_baked_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = baking.write_baked

    def write(path: Path, steps: list, layout: str, strings: dict) -> None:
        real(
            path,
            [{**step, **({"shift": [2.0, 2.0, 2.0]} if "shift" in step else {})} for step in steps],
            layout,
            strings,
        )

    monkeypatch.setattr(baking, "write_baked", write)
    with pytest.raises(
        ParityFailure, match="with its preprocessing, the file computes something else: logits differ by"
    ):
        resnest.export(saved(tmp_path / "m"), out=tmp_path / "m.onnx", bake_preprocessing="nhwc")
    assert {path.name for path in tmp_path.iterdir()} == {"m"}


REFUSED = {
    "another layout": (["--bake-preprocessing", "hwc"], "'hwc' is not a known layout. Did you mean 'nhwc'?"),
    "another format": (
        ["--bake-preprocessing", "nhwc", "--format", "openvino"],
        "--bake-preprocessing nhwc is for the formats onnx and triton, not openvino",
    ),
    "int8": (
        ["--bake-preprocessing", "nchw", "--int8", "--calibrate", "nowhere"],
        "--bake-preprocessing nchw is for files of floats: leave out --int8",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, message = REFUSED[case]
    done = cli("export", saved(Path("m")), *arguments)
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert message in done.err


def test_pixels_of_others_are_refused(tmp_path: Path, cli: Cli) -> None:
    """A file that takes 8-bit pixels and does not say how they lie."""
    import onnx

    resnest.export(saved(tmp_path / "m"), out=tmp_path / "m.onnx", bake_preprocessing="nhwc")
    model = onnx.load(tmp_path / "m.onnx")
    [entry] = [entry for entry in model.metadata_props if entry.key == "resnest_origin"]
    entry.value = "{}"
    onnx.save(model, tmp_path / "m.onnx")
    done = cli("predict", tmp_path / "m.onnx", write_pictures(tmp_path / "pictures")[0])
    assert done.code == 2
    assert "has inputs of uint8: expected images (N, 3, H, W) of float32" in done.err

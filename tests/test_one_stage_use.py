"""RetinaNet and FCOS in use: augmented, in tiles, exported, trained by the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import resnest
from conftest import Outcome
from one_stage import ONE_STAGE, build, card_of
from painted import PREPROCESS, paint
from resnest.detection.export import DetectionExporter
from resnest.detection.tta import predict_augmented
from resnest.exporters.formats import FORMATS
from resnest.inference.model import Model
from resnest.runtime.tiles import Tiles


@pytest.mark.parametrize("kind", ONE_STAGE)
def test_test_time_augmentation(kind: str) -> None:
    net = build(kind).eval()
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (12, 20, 3), np.uint8)).resize((96, 64), Image.Resampling.BICUBIC)
    preprocess = replace(PREPROCESS, short=64, long=400)
    once = predict_augmented(net, image, preprocess, scales=[64], flip=False)
    with torch.inference_mode():
        found = net(torch.from_numpy(preprocess(image))[None], torch.tensor([[64, 96]]))
    np.testing.assert_allclose(once.scores, found.scores, atol=1e-5)
    np.testing.assert_allclose(once.boxes, found.boxes, atol=1e-3)
    several = predict_augmented(net, image, preprocess, scales=[64, 96], flip=True)
    assert several.scores[0, 0] >= once.scores[0, 0]
    assert several.masks is None


def test_tiles(tmp_path: Path) -> None:
    """A large picture gets objects in more than one of them."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (16, 32, 3), np.uint8)).resize((256, 128), Image.Resampling.BICUBIC)
    net = build("fcos").eval()
    saved = Model(net, card_of(net.spec), "random").save_pretrained(tmp_path / "model")
    predict = resnest.Predictor(saved, device="cpu", tiles=Tiles(64, 0.2))
    boxes = predict(image).boxes
    assert len(boxes) > net.spec.max_detections
    assert boxes[:, 0].min() < 64 < 192 < boxes[:, 2].max()


@pytest.mark.parametrize("kind", ONE_STAGE)
def test_exported_to_any_number_and_size(kind: str, tmp_path: Path) -> None:
    """By the gate; and the file, which no torch runs, finds what the network finds."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    net, rng = build(kind).eval(), np.random.default_rng(0)
    sizes = [(64, 96), (64, 96), (128, 64)]  # all as they are resized, no padding
    files = [tmp_path / f"{number}.png" for number in range(len(sizes))]
    for file, (height, width) in zip(files, sizes, strict=True):
        Image.fromarray(rng.integers(0, 255, (height, width, 3), np.uint8)).save(file)
    model = Model(net, card_of(net.spec), "random")
    done = resnest.export(model, format="onnx", out=tmp_path / "m.onnx", images=tmp_path)
    assert done.origin["sizes"] == {"batch": "any", "height": "any", "width": "any"}
    assert done.parity.agreeing + done.parity.unstable == done.parity.pictures == 3
    compared = {(gap.shape[0], *gap.shape[2:]) for gap in done.parity.differences}
    assert {(1, 64, 64), (2, 64, 64), (1, 96, 160), (2, 96, 160), (1, 128, 64)} <= compared
    ours, exported = model.predictor(device="cpu"), resnest.Predictor(tmp_path / "m.onnx")
    for before, after in zip(ours(files), exported(files), strict=True):
        assert len(before) == len(after) >= 10
        np.testing.assert_allclose(after.scores, before.scores, atol=1e-4)
        np.testing.assert_allclose(after.boxes, before.boxes, atol=0.05)


def test_a_file_for_one_size(tmp_path: Path) -> None:
    exporter, model = DetectionExporter(), Model(build("fcos"), card_of(build("fcos").spec), "random")
    form = FORMATS["onnx"]
    assert exporter.sized(model, None, form) is model
    card = exporter.sized(model, (64, 96), form).card
    assert exporter.interface(card, form).size == card.preprocess.canvas == (64, 96)
    assert {shape[2:] for shape in exporter.shapes(card, form)} == {(64, 96)}
    assert exporter.interface(card, form).batch is None


@pytest.mark.parametrize("recipe", ["retinanet_small", "fcos_small"])
def test_a_run(recipe: str, tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    data, out = paint(tmp_path / "data", 3), tmp_path / "run"
    settings = (
        "model.spec={planes: [8, 8, 8, 8], stem_width: 4}", "detector.fpn_channels=32", "detector.head_convs=1",
        "detector.max_detections=20", "detection.short=[48, 64]", "detection.eval_short=64", "train.epochs=2",
        "train.log_every=1", "train.batch_size=2", "data.workers=0", "optim.warmup_steps=2",
        "detector.score_threshold=0.001",
    )  # fmt: skip
    done = cli("train", recipe, "--data", data, "--out", out, *(part for one in settings for part in ("--set", one)))
    assert done.code == 0, done.err
    assert (out / "report.html").is_file()
    done = cli("predict", out, data / "images" / "val", "--json", "--threshold", "0.002")
    assert done.code == 0, done.err
    assert all("objects" in json.loads(line) for line in done.out.splitlines())

"""Segmenters as files: prepared, opened by their card, exported at one size or any, used by every engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import resnest
from conftest import Outcome
from exports import CLASSES, broken, save_segmenter, use
from painted import real_model
from resnest.classification.card import ClassificationCard
from resnest.errors import ResnestError
from resnest.exporters.exporting import export
from resnest.exporters.formats import FORMATS
from resnest.exporters.int8 import same_label
from resnest.inference.model import Model
from resnest.inference.readme import model_card_text
from resnest.inference.torch_engine import TorchEngine, open_torch_engine
from resnest.network.tools import freeze_bn_statistics
from resnest.runtime.engines.choosing import open_engine
from resnest.runtime.preprocess import Preprocess
from resnest.segmentation.result import LabelMap
from resnest.segmentation.segmenter import Segmenter, prepared_segmenter
from resnest.segmentation.task import SegmentationTask

Cli = Callable[..., Outcome]
HEADS: dict[str, dict[str, Any]] = {
    "deeplabv3": {},
    "deeplabv3plus": {"head": "deeplabv3plus", "output_stride": 16},
    "psp, timm's dilation": {"head": "psp", "dilation": "timm"},
    "fcn, group norm": {"head": "fcn", "norm": "group", "output_stride": 32},
}


def segmenter_of(head: str, folder: Path) -> Path:
    return save_segmenter(folder / "net", **HEADS[head])


@pytest.fixture
def streets(saved_segmenter: Path) -> Path:
    return saved_segmenter.with_name("streets")


@pytest.mark.parametrize("head", HEADS)
def test_prepared_is_the_same(head: str, tmp_path: Path) -> None:
    """And without what only training needs; norms with frozen statistics are folded too."""
    net = Model.from_pretrained(segmenter_of(head, tmp_path)).net
    freeze_bn_statistics(net.head)
    images = torch.randn(2, 3, 49, 71)
    fast = prepared_segmenter(net)
    engine = TorchEngine(net, "cpu", task=SegmentationTask)
    with torch.inference_mode():
        expected = net(images)
        for got in (fast(images), torch.from_numpy(engine(images.numpy())["logits"])):
            assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert not any("auxiliary" in name for name in fast.state_dict())
    assert any("auxiliary" in name for name in net.state_dict())
    kinds = {type(module).__name__ for module in fast.modules()}
    assert not kinds & {"BatchNorm2d", "FrozenStatsBatchNorm2d"}


def test_a_saved_segmenter_opens_as_one(saved_segmenter: Path, streets: Path) -> None:
    model = Model.from_pretrained(saved_segmenter)
    assert open_torch_engine(model, "cpu").name.startswith("torch")
    assert isinstance(model.net, Segmenter)
    pictures = sorted((streets / "images" / "val").iterdir())
    found = resnest.Predictor(saved_segmenter, engine="torch")(pictures[0])
    assert isinstance(found, LabelMap)
    assert found.labels.shape == (64, 96)


def test_its_readme(saved_segmenter: Path) -> None:
    text = (saved_segmenter / "README.md").read_text()
    assert "A DeepLabV3 on a [ResNeSt](https://arxiv.org/abs/2004.08955) (`resnest`, output stride 8)" in text
    assert "tells which of 4 classes every pixel of a picture is" in text
    assert 'predict("photo.jpg").class_fractions()' in text
    assert "pipeline_tag: image-segmentation" in text
    card = replace(Model.from_pretrained(saved_segmenter).card, figures={"miou": 0.5, "pixel_accuracy": 0.75})
    text = model_card_text(replace(card, preprocess=replace(card.preprocess, long=520, window=480)), "streets")
    assert "| mIoU | 50.00% |" in text
    assert "- type: mean_iou\n      value: 0.5\n" in text
    assert "the long side is resized to 520 pixels, in sliding windows of 480 pixels" in text


@pytest.mark.parametrize("change", [{"channels": 24}, {"aux": 0}, {"head": "fcn"}, {"channels": 16_000}], ids=str)
def test_a_card_of_another_segmenter(change: dict[str, Any], saved_segmenter: Path, tmp_path: Path) -> None:
    """Refused by the shapes alone: nothing of the size that the card tells is built."""
    for file in saved_segmenter.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    told = json.loads((tmp_path / "config.json").read_text())
    told["resnest"]["segmenter"] |= change
    (tmp_path / "config.json").write_text(json.dumps(told))
    with pytest.raises(ResnestError, match=r"holds another segmenter than its config\.json or recipe describes: "):
        Model.from_pretrained(tmp_path)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_exported_one_predicts_as_the_run(
    engine: str, saved_segmenter: Path, segmenter_exports: dict[str, Path], streets: Path
) -> None:
    """Every pixel's label; figures are the same too."""
    pictures = sorted((streets / "images" / "val").iterdir())
    before, after = resnest.Predictor(saved_segmenter), resnest.Predictor(segmenter_exports["onnx"], engine=engine)
    assert after.engine.name.startswith(engine)
    for ours, theirs in zip(before.stream(pictures), after.stream(pictures), strict=True):
        assert isinstance(ours, LabelMap)
        assert isinstance(theirs, LabelMap)
        assert len(ours.class_fractions()) > 1
        assert (ours.labels == theirs.labels).mean() > 0.999
    if engine == "onnxruntime":
        results = [resnest.evaluate(path, streets) for path in (saved_segmenter, segmenter_exports["onnx"])]
        assert results[0].figures["miou"] == pytest.approx(results[1].figures["miou"], abs=1e-3)
        assert results[1].figures["miou"] > 0


def test_pooling_into_cells_takes_any_size(tmp_path: Path, streets: Path) -> None:
    """Which engines have no operator for."""
    done = export(segmenter_of("psp, timm's dilation", tmp_path), out=tmp_path / "m.onnx", images=streets / "images")
    assert done.parity.ok
    assert {shape[2:] for shape in done.parity.shapes} == {(64, 64), (97, 131), (160, 160)}
    assert done.origin["sizes"] == {"batch": "any", "height": "any", "width": "any"}


def test_one_size(saved_segmenter: Path, streets: Path, tmp_path: Path, cli: Cli) -> None:
    """Pictures are fitted into it; the file says what it takes."""
    pictures = streets / "images" / "val"
    out = tmp_path / "m.onnx"
    done = cli("export", saved_segmenter, "--out", out, "--size", "48x80", "--images", pictures)
    assert done.code == 0, done.err
    assert "takes      batch any, height 48, width 80" in done.out
    assert "batches of 1, 2 at 48x80" in done.out
    assert "labels     the same for 3 of 3 pictures" in done.out
    engine = open_engine(out)
    assert engine.card.preprocess.canvas == (48, 80)
    assert engine(np.zeros((3, 3, 48, 80), np.float32))["logits"].shape == (3, len(CLASSES), 48, 80)  # type: ignore[call-arg]
    told = json.loads(cli("predict", out, next(pictures.iterdir()), "--json").out)
    assert (told["width"], told["height"]) == (96, 64)
    free = replace(engine.card, preprocess=replace(engine.card.preprocess, canvas=None))
    wrong = {
        r"takes images \(any, 3, 48, 80\), and its card prepares \(any, 3, any, any\)": free,
        r"gives \(any, 4, 48, 80\), and its card names 2 classes": replace(
            engine.card, class_names=("a", "b"), category_ids=(1, 2)
        ),
        r"its card prepares \(any, 3, 224, 224\)": ClassificationCard.of_imagenet("resnest14", Preprocess()),
        "its card is that of a detector": real_model().card,
    }
    for message, card in wrong.items():
        for name in ("onnxruntime", "openvino"):
            with pytest.raises(ResnestError, match=message):
                resnest.Predictor(out, engine=name, card=card)


def test_a_wrong_file_is_refused(
    saved_segmenter: Path,
    segmenter_exports: dict[str, Path],
    streets: Path,
    tmp_path: Path,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layer = "head.aspp.project.conv"
    use(monkeypatch, broken(FORMATS["onnx"], segmenter_exports["onnx"], layer))
    done = cli("export", saved_segmenter, "--out", tmp_path / "m.onnx", "--images", streets / "images" / "val")
    assert done.code == 5
    assert f"the first layer that differs is {layer}" in done.err
    assert list(tmp_path.iterdir()) == []


REFUSED = {
    "no size": (["--format", "aotinductor"], ".pt2", "aotinductor is made for one size of image: give it with --size"),
    "too small": (["--size", "16x64"], ".onnx", "the sides of a segmenter's image must be 32 to 2048 pixels"),
    "integers": (["--int8", "--calibrate", "digits"], ".onnx", "--int8 is for classifiers, and "),
}


@pytest.mark.parametrize("case", REFUSED)
def test_export_refuses(case: str, saved_segmenter: Path, tmp_path: Path, cli: Cli) -> None:
    arguments, suffix, message = REFUSED[case]
    done = cli("export", saved_segmenter, "--out", tmp_path / f"m{suffix}", *arguments)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1


def test_labels_agree_where_one_is_clearly_best() -> None:
    ours = np.zeros((2, 3, 2, 2), np.float32)
    ours[:, 0], ours[:, 1] = 10, 9
    ours[1, 1, 0, 0] = 10 - 1e-3  # as good, within the tolerance
    theirs = ours.copy()
    theirs[1, 1, 0, 0] = 10.001
    assert same_label({"logits": ours}, {"logits": theirs}).tolist() == [True, True]
    theirs[0, 1, 1, 1] = 11
    assert same_label({"logits": ours}, {"logits": theirs}).tolist() == [False, True]
    theirs[1, 2, 0, 1] = np.nan
    assert same_label({"logits": ours}, {"logits": theirs}).tolist() == [False, False]


@pytest.mark.parametrize(
    ("head", "file"), [("unet", "m.xml"), *((head, "m.onnx") for head in ("unet", "unetplusplus", "fpn", "upernet"))]
)
def test_heads_of_the_u_net_family_take_any_size(head: str, file: str, tmp_path: Path, streets: Path) -> None:
    pytest.importorskip("openvino" if file == "m.xml" else "onnxscript")
    changes: dict[str, Any] = {"fpn": {"channels": 32}, "upernet": {"channels": 32}}.get(
        head, {"decoder_channels": (32, 16, 16, 8, 8), "attention": "scse"}
    )
    done = export(
        save_segmenter(tmp_path / "net", head=head, **changes), out=tmp_path / file, images=streets / "images"
    )
    assert done.parity.ok
    assert {shape[2:] for shape in done.parity.shapes} == {(64, 64), (97, 131), (160, 160)}

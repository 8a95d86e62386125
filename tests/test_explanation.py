"""Explanations of a classifier: maps that add up, peers' maps, split attention, deletion and insertion, the command."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_grad_cam import GradCAM, HiResCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

import resnest
from conftest import Outcome, pico
from resnest.explanation.attention import average_of, blocks_of, entropy, recorded
from resnest.explanation.maps import explain_value, watched
from resnest.network.split_attention import SplitAttention
from small import SPEC
from spotted import COLOURS, spotted, write_spotted

NAMES = ("rose", "tulip", "daisy")
SIDE = 96
STRUCTURES: dict[str, dict[str, Any]] = {
    "radix 2": {},
    "radix 1": {"radix": 1},
    "radix 0": {"radix": 0},
    "radix 4, two groups": {"radix": 4, "cardinality": 2},
    "fast": {"avd_first": True},
}


def _model(multi_label: bool = False, **structure: Any) -> resnest.Model:
    torch.manual_seed(0)
    net = resnest.create_model(replace(SPEC, **structure), num_classes=3)
    for norm in (module for module in net.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 1.5)  # branches that start at zero would hide an error
    preprocess = resnest.Preprocess(size=SIDE)
    return resnest.Model.of(net, NAMES, preprocess, multi_label=multi_label)


def _picture(size: tuple[int, int] = (120, 100), mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(1).integers(0, 256, (7, 9, 3), np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).convert(mode)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of spots, trained for seconds."""
    folder = tmp_path_factory.mktemp("spotted")
    settings = pico("data.size=32", "train.epochs=6", "train.batch_size=16")
    resnest.train("imagenette", data=write_spotted(folder / "photos", 32), out=folder / "run", settings=settings)
    return folder / "run"


# --- Maps ---


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("structure", STRUCTURES.values(), ids=STRUCTURES)
def test_the_exact_map_and_the_bias_add_up_to_the_logit(structure: dict[str, Any], multi_label: bool) -> None:
    model = _model(multi_label, **structure)
    nn.init.uniform_(model.net.fc.bias, -1, 1)
    explanation = resnest.explain(model, _picture(), classes=NAMES)
    assert explanation.method == "exact"
    result = model.predictor("cpu")(_picture())
    assert isinstance(result, resnest.Classification)
    assert result.logits is not None
    for k, target in enumerate(explanation.targets):
        assert target.map.shape == (SIDE // 32, SIDE // 32)
        assert target.bias is not None
        total = float(target.map.sum(dtype=np.float64)) + target.bias
        assert total == pytest.approx(float(result.logits[k]), rel=1e-4)  # the engine's, of a fused network
        assert target.value == pytest.approx(total, rel=1e-4)
        assert target.score == pytest.approx(float(result.scores[k]), rel=1e-3)


@pytest.mark.parametrize("layer", ["layer3", "layer4"])
@pytest.mark.parametrize(("method", "peer"), [("grad-cam", GradCAM), ("hires-cam", HiResCAM)])
def test_maps_equal_a_peers(method: str, peer: Any, layer: str) -> None:
    net = _model().net
    images = torch.randn(1, 3, SIDE, SIDE)
    with watched(net, [layer]) as maps:
        ours = explain_value(net(images)[0, 1], maps, method)
    with peer(net, [getattr(net, layer)]) as theirs:
        theirs(images, [ClassifierOutputTarget(1)])  # keeps what its map is made of
        values, gradients = (part[0].numpy() for part in (theirs.activations_and_grads.activations[0],
                                                          theirs.activations_and_grads.gradients[0]))  # fmt: skip
        plain = theirs.get_cam_image(images, [getattr(net, layer)], None, values[None], gradients[None], False)[0]
    expected = np.maximum(plain, 0) if method == "grad-cam" else plain
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-4, atol=1e-7)


def test_three_methods_agree_where_the_head_is_linear() -> None:
    maps = {
        method: resnest.explain(_model(), _picture(), method=method, classes=["tulip"]).targets[0].map
        for method in ("exact", "hires-cam", "grad-cam")
    }
    np.testing.assert_allclose(maps["hires-cam"], maps["exact"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(maps["grad-cam"], np.maximum(maps["exact"], 0), rtol=1e-4, atol=1e-6)


def test_a_layer_that_counts_through_another_is_refused() -> None:
    with pytest.raises(resnest.ResnestError, match="layer3 reaches the score through later layers alone"):
        resnest.explain(_model(), _picture(), method="hires-cam", layers=["layer4", "layer3"])


def test_the_network_is_as_before() -> None:
    net = _model().net
    images = torch.randn(1, 3, SIDE, SIDE)
    net.conv1.requires_grad_(False)
    before = [(name, parameter.requires_grad) for name, parameter in net.named_parameters()]
    hooks = [len(module._forward_hooks) for module in net.modules()]
    expected = net(images)
    with pytest.raises(RuntimeError, match="channels"), watched(net, ["layer4"]), recorded(net):
        net(images[:, :2])
    assert [(name, parameter.requires_grad) for name, parameter in net.named_parameters()] == before
    assert [len(module._forward_hooks) for module in net.modules()] == hooks
    assert torch.equal(net(images), expected)


# --- Split attention ---


@pytest.mark.parametrize("structure", STRUCTURES.values(), ids=STRUCTURES)
def test_recorded_attention_is_what_blocks_use(structure: dict[str, Any]) -> None:
    """Splits weighed by it give the blocks' outputs."""
    net = _model(**structure).net
    outputs: list[torch.Tensor] = []
    splits: list[torch.Tensor] = []
    for module in net.modules():
        if isinstance(module, SplitAttention):
            module.register_forward_hook(lambda _, inputs, output: outputs.append(output))
            module.relu.register_forward_hook(lambda _, inputs, output: splits.append(output.clone()))
    with torch.no_grad(), recorded(net) as blocks:
        net(torch.randn(2, 3, SIDE, SIDE))
    radix = structure.get("radix", 2)
    assert [block.name for block in blocks] == ([f"layer{stage}.0" for stage in range(1, 5)] if radix else [])
    for block, own, weighed in zip(blocks, splits, outputs, strict=True):
        parts = own.unflatten(1, (radix, -1)).numpy()  # (N, R, C, h, w)
        summed = (parts * block.weights[..., None, None]).sum(1)
        np.testing.assert_allclose(summed, weighed.numpy(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(block.maps, parts.mean(2), rtol=1e-4, atol=1e-6)
        if radix > 1:
            np.testing.assert_allclose(block.weights.sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([[0.5, 0.5], [0.5, 0.5]], 1.0),
        ([[1.0, 0.0], [0.0, 1.0]], 0.0),
        ([[1.0, 0.25], [0.0, 0.25], [0.0, 0.25], [0.0, 0.25]], 0.5),
        ([[0.3, 0.9]], float("nan")),
    ],
)
def test_entropy(weights: list[list[float]], expected: float) -> None:
    assert entropy(np.array(weights, np.float32)) == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_a_usual_picture_is_as_far_from_the_average_as_others() -> None:
    net = _model().net
    with torch.no_grad(), recorded(net) as together:
        net(torch.randn(8, 3, SIDE, SIDE))
    average = average_of([together])
    assert average.count == 8
    unusual = []
    for index in range(8):
        alone = [replace(block, weights=block.weights[[index]], maps=block.maps[[index]]) for block in together]
        unusual.append([block.unusual for block in blocks_of(alone, average)])
    np.testing.assert_allclose(np.mean(unusual, axis=0), 1, rtol=1e-4)


# --- Whether maps mean something ---


def test_maps_find_what_decides_and_beat_random_ones(run: Path) -> None:
    explainer = resnest.Explainer(run, check=True)
    inside, better = [], []
    for label in COLOURS:
        for seed in range(100, 103):  # not among those of training
            picture, (left, top, right, bottom) = spotted(label, seed)
            explanation = explainer(picture)
            target = explanation.targets[0]
            assert target.label == label
            heat = explanation.heat(target)
            row, column = np.unravel_index(heat.argmax(), heat.shape)
            margin = 4  # a cell of the map has 8 pixels, and half the picture's border is cut off
            inside.append(left - margin <= column < right + margin and top - margin <= row < bottom + margin)
            assert target.check is not None
            better.append(target.check.better)
            areas = target.check.areas
            assert areas["deletion"] < areas["random_deletion"], (label, seed)
    assert np.mean(inside) >= 5 / 6
    assert np.mean(better) >= 5 / 6


# --- Results and the command ---


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
@pytest.mark.parametrize("size", [(1, 1), (300, 20), (33, 97)])
def test_pictures_of_any_size_and_mode(size: tuple[int, int], mode: str, tmp_path: Path) -> None:
    explanation = resnest.explain(_model(), _picture(size, mode))
    assert explanation.picture.size == (SIDE, SIDE)
    explanation.save(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as drawn:
        assert drawn.width > 3 * 360


@pytest.mark.parametrize("structure", STRUCTURES.values(), ids=STRUCTURES)
def test_the_page_shows_all_and_fetches_nothing(structure: dict[str, Any], tmp_path: Path) -> None:
    model = _model(**structure)
    write_spotted(tmp_path / "photos", 2)
    explanation = resnest.explain(model, _picture(), data=tmp_path / "photos", check=structure == {})
    explanation.save(tmp_path / "x.html")
    text = (tmp_path / "x.html").read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)="([^"]{,12})', text)
    assert all(source.startswith("data:") for source in sources)
    radix = structure.get("radix", 2)
    blocks = 4 if radix else 0
    assert explanation.averaged == (4 if radix else 0)
    assert text.count('<div class="splits">') == blocks
    assert text.count(": picture") == text.count(": average") == blocks
    assert ("Radix 1:" in text, "Radix 0:" in text) == (radix == 1, radix == 0)
    assert text.count("deletion") == (4 if structure == {} else 0)


def test_json_has_the_numbers(tmp_path: Path) -> None:
    explanation = resnest.explain(_model(), _picture(), classes="daisy")
    explanation.save(tmp_path / "x.json")
    content = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
    [target] = content["targets"]
    assert target["label"] == "daisy"
    assert np.sum(target["map"]) + target["bias"] == pytest.approx(target["logit"], rel=1e-4)
    assert [block["block"] for block in content["split_attention"]] == [block.name for block in explanation.blocks]
    np.testing.assert_allclose(content["split_attention"][0]["weights"], explanation.blocks[0].weights, atol=1e-4)


def test_the_command(run: Path, tmp_path: Path, cli: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    photos = write_spotted(tmp_path / "photos", 2)
    (photos / "broken.png").write_bytes(b"no picture")
    outcome = cli("explain", run, photos / "red", photos / "broken.png", "--data", run.parent / "photos", "--sample", 8)
    assert outcome.code == 2
    assert outcome.err.count("skipped:") == 1
    assert "page: explain.html" in outcome.out
    assert (tmp_path / "explain.html").read_text(encoding="utf-8").count("<h2>") == 2
    outcome = cli("explain", run, photos / "red", "--draw", "drawn", "--json", "--class", "blue")
    assert outcome.code == 0
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    assert [row["targets"][0]["label"] for row in rows] == ["blue", "blue"]
    assert sorted(path.name for path in (tmp_path / "drawn").glob("*.png")) == ["000.png", "001.png"]


BAD = {
    "exported file": (["{folder}/model.onnx", "{photo}"], "is an exported file, which gives no maps: explain the run"),
    "unknown class": (["{run}", "{photo}", "--class", "bleu"], "'bleu' is not a known class of this model. Did you"),
    "unknown method": (["{run}", "{photo}", "--method", "gradcam"], "Did you mean 'grad-cam'?"),
    "unknown layer": (["{run}", "{photo}", "--layers", "layer5"], "'layer5' is not a known layer"),
    "no such sum": (["{run}", "{photo}", "--layers", "layer3", "--method", "exact"], "linear in layer4 alone"),
    "no data": (["{run}", "{photo}", "--data", "{folder}/nothing"], "nothing"),
    "somebody's page": (["{run}", "{photo}", "--html", "{folder}/mine.html"], "mine.html is there already"),
    "no picture": (["{run}", "{folder}/none.jpg"], "skipped: "),
}


@pytest.mark.parametrize(("words", "message"), BAD.values(), ids=BAD)
def test_bad_input(words: list[str], message: str, run: Path, tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    spotted("red", 0)[0].save(tmp_path / "photo.png")
    (tmp_path / "model.onnx").write_bytes(b"")
    (tmp_path / "mine.html").write_text("mine")
    places = {"run": run, "photo": tmp_path / "photo.png", "folder": tmp_path}
    where = [] if "--html" in words else ["--html", str(tmp_path / "page.html")]
    outcome = cli("explain", *[word.format(**places) for word in words], *where)
    assert outcome.code == 2
    assert message in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1
    assert not (tmp_path / "page.html").exists()
    assert (tmp_path / "mine.html").read_text() == "mine"


@pytest.mark.parametrize(
    ("pool", "head", "message"),
    [(nn.AdaptiveMaxPool2d(1), None, "AdaptiveMaxPool2d"), (None, nn.Sequential(nn.Linear(256, 3)), "no linear head")],
)
def test_exact_needs_a_linear_head(pool: nn.Module | None, head: nn.Module | None, message: str) -> None:
    model = _model()
    model.net.avgpool = pool or model.net.avgpool
    model.net.fc = head or model.net.fc
    with pytest.raises(resnest.ResnestError, match=message):
        resnest.explain(model, _picture(), method="exact")
    explanation = resnest.explain(model, _picture())
    assert explanation.method == "hires-cam"  # what is possible is chosen where nothing is asked for
    assert explanation.targets[0].bias is None

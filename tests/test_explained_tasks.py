"""What is explained in each task is what `predict` finds, and the map of a number says how it changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import resnest
from resnest.explanation.maps import watched
from resnest.explanation.targets import Asked
from resnest.runtime.engines.exported import Prepared
from small import SPEC, small

NAMES = ("ant", "bee", "sky")
PREPROCESS: dict[str, Any] = {
    "classification": resnest.Preprocess(size=64),
    "detection": resnest.DetectionPreprocess(short=64, long=128),
    "segmentation": resnest.SegmentationPreprocess(long=64),
    "panoptic": resnest.DetectionPreprocess(short=64, long=128),
    "keypoints": resnest.KeypointPreprocess(width=64, height=64),
}
TASKS = [*PREPROCESS]


def _retinanet() -> nn.Module:
    """Unlike those of an R-CNN, its scores do not hang on boxes, which are held fixed."""
    torch.manual_seed(0)
    spec = resnest.DetectorSpec(kind="retinanet", fpn_channels=32, score_threshold=0.0, max_detections=5)
    net = resnest.create_detector(SPEC, spec, num_classes=3).eval()
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d) and not name.startswith("backbone"):
            nn.init.normal_(module.weight, std=0.1)  # at first a score hardly hangs on the maps
    return net


def _model(task: str, net: nn.Module | None = None) -> resnest.Model:
    net = net or small(task)
    for norm in (module for module in net.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 1.5)  # branches that start at zero would hide an error
    return resnest.Model.of(net, NAMES, PREPROCESS[task])


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 10, 3), np.uint8)
    return Image.fromarray(pixels).resize((100, 80), Image.Resampling.BICUBIC)


def _explained(task: str, picture: Image.Image, **options: Any) -> resnest.Explanation:
    return resnest.explain(_model(task), picture, classes=NAMES, top=20, **options)


def test_objects_are_those_of_the_predictor(picture: Image.Image) -> None:
    result = _model("detection").predictor("cpu")(picture)
    assert isinstance(result, resnest.Detections)
    targets = _explained("detection", picture).targets
    assert len(targets) == len(result) > 1
    factor = 80 / 100  # the short side is resized to 64
    for target, label, score, box in zip(targets, result.class_names, result.scores, result.boxes, strict=True):
        assert (target.label, target.what) == (label, "log odds")
        assert target.score == pytest.approx(float(score), rel=1e-3)
        assert target.value == pytest.approx(np.log(target.score / (1 - target.score)), rel=1e-3)
        assert target.box is not None
        np.testing.assert_allclose(target.box, box * factor, atol=0.5)


def test_regions_are_those_of_the_predictor(picture: Image.Image) -> None:
    result = _model("segmentation").predictor("cpu")(picture)
    assert isinstance(result, resnest.LabelMap)
    explanation = _explained("segmentation", picture)
    assert explanation.method == "grad-cam"
    found = np.full(explanation.picture.size[::-1], -1)
    for target in explanation.targets:
        assert target.region is not None
        found[target.region] = NAMES.index(target.label)
    assert (found >= 0).all()
    small_labels = np.asarray(Image.fromarray(result.labels).resize(explanation.picture.size, Image.Resampling.NEAREST))
    assert (found == small_labels).mean() > 0.9  # borders move where probabilities are resized


def test_points_are_those_of_the_predictor(picture: Image.Image) -> None:
    result = _model("keypoints").predictor("cpu")(picture)
    assert isinstance(result, resnest.Poses)
    explanation = _explained("keypoints", picture)
    assert [target.label for target in explanation.targets] == [*NAMES]
    assert any("one object" in note for note in explanation.notes)
    scale = explanation.picture.width / picture.width
    for target, point in zip(explanation.targets, result.points[0], strict=True):
        assert target.box is not None
        middle = np.array([target.box[0] + target.box[2], target.box[1] + target.box[3]]) / 2
        np.testing.assert_allclose(middle, point * scale, atol=5)


def test_things_and_stuff(picture: Image.Image) -> None:
    explanation = _explained("panoptic", picture)
    kinds = {(target.label == "sky", target.box is None, target.region is None) for target in explanation.targets}
    assert kinds == {(False, False, True), (True, True, False)}
    only = resnest.explain(_model("panoptic"), picture, classes="sky")
    assert all(target.label == "sky" and target.box is None for target in only.targets)
    assert len(only.targets) == 1 or "sky" in only.notes[0]


@pytest.mark.parametrize("task", TASKS)
def test_a_map_says_how_its_number_changes(task: str, picture: Image.Image) -> None:
    """The sum of HiResCAM is the number's derivative as the maps grow, each by what passes no later one."""
    model = _model(task, _retinanet() if task == "detection" else None)
    model.net.double()
    explainer = resnest.Explainer(model, method="hires-cam", top=1)
    prepared = Prepared("x", model.card.preprocess(picture), picture.size)  # type: ignore[operator]
    pixels = torch.from_numpy(prepared.pixels)[None].double()
    finder, asked = explainer.finder, Asked((2,) if task == "panoptic" else (0, 1, 2))
    prefix, _ = finder.trunk
    names = [f"{prefix}{layer}" for layer in explainer.layers]
    with watched(explainer.net, names) as maps:
        target = finder.targets(finder.run(pixels, prepared), prepared, asked)[0]
        gradients = torch.autograd.grad(target.value, list(maps.values()))
        expected = sum(float((g * a.detach()).sum()) for g, a in zip(gradients, maps.values(), strict=True))
    kept = {name: tensor.detach() for name, tensor in maps.items()}
    values = []
    for factor in (1 - 1e-4, 1 + 1e-4):
        modules = dict(explainer.net.named_modules())
        hooks = [
            modules[name].register_forward_hook(lambda *_, own=own, by=factor: own * by) for name, own in kept.items()
        ]
        targets = finder.targets(finder.run(pixels, prepared), prepared, asked)
        values.append(float(targets[0].value.detach()))
        for hook in hooks:
            hook.remove()
    assert (values[1] - values[0]) / 2e-4 == pytest.approx(expected, rel=1e-2, abs=1e-6)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_draws_checks_and_writes(task: str, picture: Image.Image, tmp_path: Path) -> None:
    explanation = resnest.explain(_model(task), picture, top=1, classes=NAMES, check=True)
    [target] = explanation.targets
    assert target.check is not None
    # nothing deleted is everything inserted
    assert target.check.deletion[0] == pytest.approx(target.check.insertion[-1], rel=1e-3, abs=1e-6)
    assert explanation.blocks
    for suffix in ("png", "json", "html"):
        explanation.save(tmp_path / f"x.{suffix}")
        assert (tmp_path / f"x.{suffix}").stat().st_size > 1000


@pytest.mark.parametrize("task", ["detection", "segmentation", "panoptic", "keypoints"])
def test_exact_is_for_linear_heads(task: str) -> None:
    with pytest.raises(resnest.ResnestError, match="whose head is not linear behind a mean: take grad-cam or hires"):
        resnest.Explainer(_model(task), method="exact")


def test_what_is_not_there_is_said(picture: Image.Image) -> None:
    net = small("detection")
    net.spec = type(net.spec)(**{**vars(net.spec), "max_detections": 1})
    model = resnest.Model.of(net, NAMES, PREPROCESS["detection"])
    explanation = resnest.explain(model, picture, classes=NAMES)
    [target] = explanation.targets
    assert explanation.notes == (f"not found in this picture: {', '.join(n for n in NAMES if n != target.label)}",)
    left_out = resnest.explain(_model("detection"), picture, classes=NAMES, top=1)
    assert any("more found and not explained" in note for note in left_out.notes)

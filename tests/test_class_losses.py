"""Losses for a long tail, against their papers' formulas written out, and in a detector: resuming, processes, files."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from conftest import Outcome
from painted import TINY, TINY_RUN, paint, real_model
from processes import alone, in_processes
from resnest.data.sources import open_dataset
from resnest.detection.card import DetectorSpec
from resnest.detection.class_losses import (
    EqualizationLoss,
    FederatedLoss,
    NormedLinear,
    SeesawLoss,
    build_class_loss,
)
from resnest.detection.detector import build_detector, create_detector
from resnest.detection.weights import from_ours
from resnest.errors import ResnestError
from resnest.inference.model import Model
from resnest.recipes import find_recipe, override
from resnest.tasks import open_task
from resnest.training.train import resume, train
from runs import checkpoint, losses

K = 6
LONG = ("federated", "eqlv2", "seesaw")


def batch(seed: int, count: int = 40) -> tuple[Tensor, Tensor]:
    """Logits for K + 2 outputs, and labels of which half are background, 0 is frequent and 5 never there."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(K + 1, count, p=[0.3, 0.1, 0.05, 0.03, 0.02, 0, 0.5])
    return torch.from_numpy(rng.normal(0, 3, (count, K + 2))), torch.from_numpy(labels)


def test_seesaw_is_its_formula() -> None:
    """arXiv 2008.10032: softmax with S_ij = M_ij C_ij, proposal by proposal."""
    loss = SeesawLoss(K).double()
    seen = torch.zeros(K, dtype=torch.float64)
    for seed in range(3):
        logits, labels = batch(seed)
        seen += torch.bincount(labels, minlength=K + 1)[:K]
        expected = 0.0
        for z, label in zip(logits, labels.tolist(), strict=True):
            expected += F.cross_entropy(z[None, -2:], torch.tensor([int(label == K)])).item()
            if label == K:
                continue
            sigma, total = z[:-2].softmax(0), z[label].exp()
            for other in range(K):
                if other != label:
                    rarer = max(1.0, seen[other].item()) / max(1.0, seen[label].item())
                    mitigation = rarer**0.8 if rarer < 1 else 1.0
                    ratio = (sigma[other] / sigma[label].clamp(min=1e-2)).item()
                    total = total + mitigation * max(1.0, ratio) ** 2 * z[other].exp()
            expected -= (z[label].exp() / total).log().item()
        assert loss(logits, labels).item() == pytest.approx(expected, rel=1e-9)
        assert torch.equal(loss.samples, seen)
    scores = loss.scores(logits)
    expected_scores = logits[:, :K].softmax(1) * torch.sigmoid(logits[:, K] - logits[:, K + 1])[:, None]
    assert torch.allclose(scores, expected_scores)


def test_eqlv2_is_its_formula() -> None:
    """arXiv 2012.08548: weights from the sums of weighted gradients of the steps before."""
    loss = EqualizationLoss(K).double()
    positive, negative = torch.zeros(K, dtype=torch.float64), torch.zeros(K, dtype=torch.float64)
    for seed in range(3):
        logits, labels = batch(seed)
        logits = logits[:, : K + 1].clone().requires_grad_()
        down = 1 / (1 + (-12 * (positive / negative - 0.8)).exp()) if seed else torch.ones(K, dtype=torch.float64)
        down = torch.cat([down, torch.ones(1)])
        truth = F.one_hot(labels, K + 1)
        weights = torch.where(truth == 1, 1 + 4 * (1 - down), down)
        expected = F.binary_cross_entropy_with_logits(logits, truth.double(), weight=weights, reduction="sum")
        total = loss(logits, labels)
        assert total.item() == pytest.approx(expected.item(), rel=1e-9)
        total.backward()
        assert logits.grad is not None
        size = logits.grad.abs()  # the weighted gradients are those of the loss itself
        positive += (size * truth).sum(0)[:K]
        negative += (size * (1 - truth)).sum(0)[:K]
        assert torch.allclose(loss.positive, positive)
        assert torch.allclose(loss.negative, negative)
    assert loss.factors()[1][5] < 1e-3  # a class that is always a negative is hardly pushed down
    scores = loss.scores(logits)
    assert torch.allclose(scores, logits[:, :K].sigmoid() * (1 - logits[:, K:].sigmoid()))


def test_a_federated_loss_touches_the_drawn_classes_alone() -> None:
    loss = FederatedLoss(200)
    images = torch.zeros(200)
    images[:100], images[150] = 1.0, 1e6
    loss.start_training(images)
    labels = torch.tensor([3, 120, 200, 200, 3])  # 120 was never seen before; 200 is background
    drawn_before: list[list[int]] = []
    for seed in range(20):
        logits = torch.zeros(5, 201, requires_grad=True)
        torch.manual_seed(seed)
        loss(logits, labels).backward()
        torch.manual_seed(seed)
        drawn = loss.draw(labels)
        assert len(drawn) == len(set(drawn.tolist())) == 49  # the background counts, and is not drawn
        assert {3, 120, 150} <= {*drawn.tolist()}  # those there are, and what is frequent nearly always
        assert not {*range(100, 200)} - {120, 150} & {*drawn.tolist()}  # not what no picture shows
        assert logits.grad is not None
        touched = logits.grad.abs().sum(0).nonzero()[:, 0]
        assert touched.tolist() == sorted(drawn.tolist())
        drawn_before.append(sorted(drawn.tolist()))
    assert len({*map(tuple, drawn_before)}) == 20
    few = FederatedLoss(4)  # fewer than are drawn: all
    assert sorted(few.draw(torch.tensor([1, 4])).tolist()) == [0, 1, 2, 3]


def test_frequent_classes_are_drawn_by_the_root_of_their_frequency() -> None:
    loss = FederatedLoss(400)
    loss.start_training(torch.tensor([4.0, 1.0]).repeat_interleave(200))
    torch.manual_seed(0)
    drawn = torch.cat([loss.draw(torch.tensor([400])) for _ in range(300)])
    share = (drawn < 200).double().mean().item()
    assert share == pytest.approx(2 / 3, abs=0.02)  # a little less: without replacement


def test_a_normalised_classifier() -> None:
    torch.manual_seed(0)
    layer = NormedLinear(8, 3)
    torch.nn.init.zeros_(layer.bias)
    x = torch.randn(5, 8)
    cosines = F.cosine_similarity(x[:, None], layer.weight[None], dim=2)
    assert torch.allclose(layer(x), 20 * cosines, atol=1e-5)
    assert torch.allclose(layer(7 * x), layer(x), atol=1e-5)


@pytest.mark.parametrize("name", LONG)
def test_no_object_and_no_proposal(name: Any) -> None:
    """A step without objects, or without any proposal at all, gives a number that gradients pass."""
    for labels in (torch.full((3,), K), torch.zeros(0, dtype=torch.int64)):
        loss = build_class_loss(name, K)
        logits = torch.zeros(len(labels), loss.outputs, requires_grad=True)
        total = loss(logits, labels)
        total.backward()
        assert math.isfinite(total.item())
        assert logits.grad is not None


@pytest.mark.parametrize("name", ["eqlv2", "seesaw"])
def test_counts_are_of_all_processes(name: Any) -> None:
    """Two with half of the proposals each count what one with all of them counts."""

    def act(rank: int | None) -> list[list[float]]:
        loss = build_class_loss(name, K).double()
        for seed in range(2):
            logits, labels = batch(seed)
            mine = slice(None) if rank is None else slice(rank, None, 2)
            loss(logits[mine, : loss.outputs], labels[mine])
        return [buffer.tolist() for buffer in loss.buffers()]

    whole = act(None)
    for part in in_processes(2, act):
        assert np.allclose(part, whole, rtol=1e-12)


# --- in a detector ---


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint(tmp_path_factory.mktemp("scenes") / "data", 3)


def settings(name: str, *more: str) -> list[str]:
    return [*TINY_RUN, f"detector.class_loss={name}", "detector.normed_classifier=true", *more]


@pytest.mark.parametrize("name", LONG)
def test_a_run_and_its_resumption(name: str, scenes: Path, tmp_path: Path) -> None:
    """What a loss has counted is part of a checkpoint: what stopped goes on as if nothing had been."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    rare = settings(name, "data.repeat_threshold=0.9", "train.ema=0.9", "train.epochs=1")
    for out in (whole, parts):
        alone(lambda rank, out=out: train("detect_small", data=scenes, out=out, settings=rare).figures)
    max((parts / "checkpoints").glob("step-*.pt")).unlink()
    alone(lambda rank: resume(parts).figures)
    ours, theirs = checkpoint(parts)["model"], checkpoint(whole)["model"]
    counts = [key for key in ours if "class_loss" in key]
    assert counts
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())
    assert losses(parts) == losses(whole)
    assert all(float(ours[key].abs().sum()) > 0 for key in counts)
    opened = Model.from_pretrained(whole)
    assert opened.card.detector.class_loss == name
    found = opened.net.eval()(torch.zeros(1, 3, 64, 64))
    assert ((found.scores >= 0) & (found.scores <= 1)).all()


def test_two_processes(scenes: Path, tmp_path: Path) -> None:
    few = settings("seesaw", "train.batch_size=1", "train.max_steps=2")

    def act(rank: int) -> list[str]:
        figures = train("detect_small", data=scenes, out=tmp_path / "run", settings=few).figures
        return [f"{key}={value}" for key, value in figures.items()]

    first, second = in_processes(2, act, group=False)
    assert isinstance(first, list), first
    assert first == second


def test_a_detector_starts_from_one_with_another_loss(scenes: Path, tmp_path: Path) -> None:
    """Class rows are taken by name; counts start anew, as they are of the other run's data."""
    first = settings("seesaw", "train.max_steps=1")
    alone(lambda rank: train("detect_small", data=scenes, out=tmp_path / "a", settings=first).figures)
    state = Model.from_pretrained(tmp_path / "a").net.state_dict()
    score, counted = "box_heads.0.score.weight", "box_heads.0.class_loss.samples"
    assert state[counted].sum() > 0
    samples = open_dataset(scenes).train
    for name in ("softmax", "federated", "eqlv2", "seesaw"):
        recipe = override(find_recipe("detect_small"), settings(name, f"model.pretrained={tmp_path / 'a'}"))
        task = open_task(recipe, samples)
        net = task.build()
        task.load_pretrained(net)
        made = net.state_dict()
        assert torch.equal(made[score][:3], state[score][:3])
        assert len(made[score]) == len(state[score]) - (name != "seesaw")
        if name == "seesaw":
            assert made[counted].sum() == 0
        if name == "federated":
            assert made["box_heads.0.class_loss.images"].tolist() == samples.counts().tolist()
    plain = open_task(override(find_recipe("detect_small"), [*TINY_RUN, f"model.pretrained={tmp_path / 'a'}"]), samples)
    with pytest.raises(
        ResnestError, match=r"does not fit this detector; 1 unexpected: box_heads\.0\.score\.temperature"
    ):
        plain.load_pretrained(plain.build())


@pytest.mark.parametrize(
    ("spec", "layout", "message"),
    [
        ({"class_loss": "seesaw"}, "detectron2", "detectron2 has no Seesaw loss"),
        ({"class_loss": "eqlv2"}, "detectron2", "detectron2 has no EQL v2"),
        ({"class_loss": "federated"}, "torchvision", "torchvision has no federated loss"),
        ({"normed_classifier": True}, "detectron2", "detectron2 has no normalised classifier"),
        ({"class_loss": "federated"}, "detectron2", ""),
    ],
)
def test_other_code_bases(spec: dict[str, Any], layout: str, message: str) -> None:
    """What they would read as softmax of a plain layer is not written for them."""
    state = create_detector("resnest14", DetectorSpec(**spec), num_classes=3).state_dict()
    if message:
        with pytest.raises(ResnestError, match=f"the {layout} layout cannot hold this detector: {message}"):
            from_ours(state, layout)
    else:
        assert not any("class_loss" in name for name in from_ours(state, layout))


def test_an_exported_detector_has_the_same_scores(tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    """What the gate compares: two softmaxes and normalised weights are part of the file."""
    model = real_model()
    spec = replace(model.card.detector, class_loss="seesaw", normed_classifier=True)
    torch.manual_seed(0)
    changed = Model(build_detector(TINY, spec, 3).eval(), replace(model.card, detector=spec), "random")
    torch.nn.init.normal_(changed.net.box_heads[0].score.weight, std=0.5)
    changed.save_pretrained(tmp_path / "saved")
    pictures = paint(tmp_path / "data", 4) / "images" / "val"
    done = cli("export", tmp_path / "saved", "--out", tmp_path / "m.onnx", "--size", "64", "--images", pictures)
    assert done.code == 0, done.err
    found = cli("predict", tmp_path / "m.onnx", pictures / "0.png", "--json", "--threshold", "0.001")
    assert found.code == 0, found.err


def test_an_unknown_loss() -> None:
    with pytest.raises(ResnestError, match=r"detector\.class_loss.*seesaw"):
        DetectorSpec(class_loss="seasaw")  # type: ignore[arg-type]

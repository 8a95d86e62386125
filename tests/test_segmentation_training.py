"""Training a segmenter end to end: run directory, exact resuming, several processes, first weights, odd masks."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import Outcome
from processes import alone, in_processes
from resnest.data.sources import open_dataset
from resnest.errors import ResnestError
from resnest.inference.evaluation import evaluate
from resnest.inference.model import Model
from resnest.recipes import find_recipe, override
from resnest.segmentation.evaluation import PixelEvaluation
from resnest.segmentation.metrics import PixelMetrics
from resnest.tasks import open_task
from resnest.training.train import resume, train
from runs import checkpoint, lines, losses
from streets import NAMES, write_streets

# Settings of a run of seconds, for `segment_small`
TINY_RUN = (
    "model.spec={planes: [8, 8, 8, 8], stem_width: 4}", "segmenter.channels=32", "segmentation.base=96",
    "segmentation.crop=48", "segmentation.backbone_norm=batch", "train.epochs=2", "train.batch_size=4",
    "train.log_every=1", "train.save_every=1", "data.workers=0", "optim.warmup_steps=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def streets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_streets(tmp_path_factory.mktemp("streets") / "data")


def test_a_run_and_its_resumption(streets: Path, tmp_path: Path) -> None:
    """What stopped before its last step goes on as if nothing had been."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"

    def run(out: Path) -> dict[str, float]:
        figures: dict[str, float] = alone(
            lambda rank: train("segment_small", data=streets, out=out, settings=TINY_RUN).figures
        )
        return figures

    assert math.isfinite(run(whole)["miou"])
    for name in ("model.safetensors", "config.json", "recipe.yaml", "metrics.jsonl"):
        assert (whole / name).is_file()
    assert "Semantic segmentation" in (whole / "report.html").read_text()
    assert all(math.isfinite(loss) for loss in losses(whole))
    assert {"miou", "pixel_accuracy", "mean_accuracy"} <= lines(whole, "eval")[0].keys()
    opened = Model.from_pretrained(whole)
    stopped = Model.from_pretrained(max((whole / "checkpoints").glob("step-*.pt")))
    assert opened.card.classes == stopped.card.classes
    assert opened.card.class_names == NAMES
    assert opened.card.segmenter == stopped.card.segmenter
    assert opened.net.num_classes == len(NAMES)

    run(parts)
    max((parts / "checkpoints").glob("step-*.pt")).unlink()
    assert checkpoint(parts)["step"] == checkpoint(whole)["step"] - 1
    alone(lambda rank: resume(parts).figures)
    ours, theirs = checkpoint(parts), checkpoint(whole)
    assert ours["step"] == theirs["step"]
    assert all(torch.equal(tensor, theirs["model"][name]) for name, tensor in ours["model"].items())
    assert losses(parts) == losses(whole)


WEIGHED = (
    *TINY_RUN, "segmentation.loss={cross_entropy: 1, dice: 0.5, lovasz: 0.5}", "segmentation.class_weights=frequency",
    "train.checkpoint_activations=true",
)  # fmt: skip


def test_class_weights_are_measured_once(streets: Path, tmp_path: Path) -> None:
    """By median frequency, and kept: what goes on weighs by what run.json says."""
    whole, parts, other = tmp_path / "whole", tmp_path / "parts", tmp_path / "other"
    masks = [np.asarray(Image.open(path)) for path in sorted((streets / "masks" / "train").iterdir())]
    of = [[(mask == k).sum() / (mask != 255).sum() for mask in masks if (mask == k).any()] for k in range(4)]
    frequencies = [float(np.mean(one)) for one in of]  # the masks are of one size, and count alike
    alone(lambda rank: train("segment_small", data=streets, out=whole, settings=WEIGHED).figures)
    kept = json.loads((whole / "run.json").read_text())["measured"]["class weights"]
    assert list(kept) == list(NAMES)
    assert list(kept.values()) == pytest.approx([float(np.median(frequencies)) / one for one in frequencies])
    for out in (parts, other):
        shutil.copytree(whole, out)
        max((out / "checkpoints").glob("step-*.pt")).unlink()
    account = json.loads((other / "run.json").read_text())
    account["measured"]["class weights"] = dict.fromkeys(NAMES, 1.0) | {"sky": 3.0}
    (other / "run.json").write_text(json.dumps(account))
    for out in (parts, other):
        alone(lambda rank, out=out: resume(out, data=streets).figures)
    assert losses(parts) == losses(whole)
    assert losses(other)[:-1] == losses(whole)[:-1]
    assert losses(other)[-1] != losses(whole)[-1]
    with pytest.raises(ResnestError, match="class_weights has 2 weights, and the data has 4 classes"):
        train(
            "segment_small", data=streets, out=tmp_path / "x", settings=[*TINY_RUN, "segmentation.class_weights=[1, 2]"]
        )
    assert not (tmp_path / "x").exists()


def test_learns_and_says_so(streets: Path, tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    """Evaluation from outside gives the figures of the run, and those of counting the written masks by hand."""
    out = tmp_path / "run"
    quick = ["train.epochs=20", "train.save_every=100", "optim.lr=0.02", "segmenter.output_stride=8"]
    result = train("segment_small", data=streets, out=out, settings=[*TINY_RUN, *quick])
    assert result.figures["miou"] > 0.6
    again = evaluate(out, data=streets)
    assert isinstance(again, PixelEvaluation)
    assert again.figures == pytest.approx(result.figures, abs=1e-3)  # prepared or not, with other batches
    told = cli("predict", out, streets / "images" / "val", "--masks", tmp_path / "found")
    assert told.code == 0, told.err
    by_hand = PixelMetrics(len(NAMES))
    for path in sorted((streets / "masks" / "val").iterdir()):
        found = np.asarray(Image.open(tmp_path / "found" / path.name))
        by_hand.update(found.astype(np.uint8), np.asarray(Image.open(path)))
    assert by_hand.compute() == pytest.approx(again.figures, abs=1e-3)
    squares = write_streets(tmp_path / "squares", train=2, val=3, size=(64, 64))
    whole, windowed = evaluate(out, data=squares).figures, evaluate(out, data=squares, window=64).figures
    assert windowed == pytest.approx(whole, abs=1e-6)  # a window as large as the pictures sees what they are
    assert cli("evaluate", out, "--data", streets, "--window", "64", "--json").code == 0
    refused = cli("predict", out, streets / "images" / "val", "--window", "9000")
    assert refused.code == 2
    assert "--window 9000: expected 32 to 2048 pixels" in refused.err
    worst = again.worst(2)
    assert set(worst.tolist()) <= again.worst_maps.keys()
    assert again.image_iou[worst[0]] == again.image_iou.min()


def test_two_processes(streets: Path, tmp_path: Path) -> None:
    """Both come to the same figures."""

    def act(rank: int) -> dict[str, float]:
        settings = [*TINY_RUN, "train.batch_size=2", "train.max_steps=1"]
        return train("segment_small", data=streets, out=tmp_path / "run", settings=settings).figures

    first, second = in_processes(2, act, group=False)
    assert isinstance(first, dict), first
    assert first == second


def test_starts_from_another_segmenter(streets: Path, tmp_path: Path) -> None:
    """All of its weights; one with another head is refused by name, and nothing of it is taken."""
    train("segment_small", data=streets, out=tmp_path / "a", settings=[*TINY_RUN, "train.max_steps=1"])
    before = Model.from_pretrained(tmp_path / "a").net.state_dict()
    recipe = override(find_recipe("segment_small"), [*TINY_RUN, f"model.pretrained={tmp_path / 'a'}"])
    data = open_dataset(streets, task="segmentation").train
    task = open_task(recipe, data)
    net = task.build()
    assert "untrained" not in str(task.load_pretrained(net))
    after = net.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    other = open_task(override(recipe, ["segmenter.head=fcn"]), data)
    with pytest.raises(ResnestError, match="does not fit this segmenter"):
        other.load_pretrained(other.build())


def _masks(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def act(streets: Path) -> None:
        for path in (streets / "masks" / "train").iterdir():
            Image.fromarray(change(np.asarray(Image.open(path)))).save(path)

    return act


def _one_mask(streets: Path) -> None:
    """The other masks are ignored as a whole."""
    for path in sorted((streets / "masks" / "train").iterdir())[1:]:
        Image.fromarray(np.full_like(np.asarray(Image.open(path)), 255)).save(path)


def _pictures(streets: Path) -> None:
    """33 x 31 pixels, and one class."""
    for part in ("train", "val"):
        for path in (streets / "images" / part).iterdir():
            Image.new("RGB", (33, 31), (90, 40, 140)).save(path)
            Image.new("L", (33, 31), 2).save(streets / "masks" / part / path.name)


ODD: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "batches in which nothing counts": (_one_mask, ["train.batch_size=2", "train.epochs=2"]),
    "one class": (_masks(lambda mask: np.ones_like(mask)), []),
    "small pictures": (_pictures, []),
    "one picture a step": (
        lambda streets: None,
        ["train.batch_size=1", "model.spec.attention_norm=layer", "train.max_steps=2"],
    ),
    "no auxiliary head": (lambda streets: None, ["segmenter.aux=0", "train.max_steps=2"]),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_data_gives_a_finite_loss(case: str, tmp_path: Path) -> None:
    """Promise P8."""
    change, settings = ODD[case]
    data = write_streets(tmp_path / "data", train=4, val=2)
    change(data)
    train("segment_small", data=data, out=tmp_path / "run", settings=[*TINY_RUN, *settings])
    steps = lines(tmp_path / "run", "train")
    assert all(math.isfinite(line["loss"]) and math.isfinite(line["gradient_norm"]) for line in steps)
    assert not any(line["skipped"] for line in steps)


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "another size": (_masks(lambda mask: mask[:32]), "96 x 64"),
    "an id that is no class": (_masks(lambda mask: np.where(mask == 2, 9, mask).astype(np.uint8)), "9"),
    "colours in place of ids": (_masks(lambda mask: np.stack([mask] * 3, -1) + 7), "colour"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_masks_end_the_run_with_one_line(case: str, tmp_path: Path) -> None:
    change, told = REFUSED[case]
    data = write_streets(tmp_path / "data", train=4, val=2)
    change(data)
    with pytest.raises(ResnestError) as caught:
        train("segment_small", data=data, out=tmp_path / "run", settings=TINY_RUN)
    assert "\n" not in str(caught.value)
    assert told in str(caught.value)
    assert ".png" in str(caught.value)


def test_a_recipe_and_data_of_different_kinds(streets: Path, photos: Path, tmp_path: Path) -> None:
    for recipe, data, message in (
        ("segment_small", photos, "holds no images with masks"),
        ("imagenette", streets, "masks|segmentation|folder"),
    ):
        with pytest.raises(ResnestError, match=message) as caught:
            train(recipe, data=data, out=tmp_path / "run", settings=["train.max_steps=1"])
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "run").exists()

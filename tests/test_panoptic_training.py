"""Training a panoptic detector end to end: run directory, exact resuming, several processes, prediction, odd data."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from painted import TINY_RUN
from painted_segments import TINY_PANOPTIC, paint_segments
from processes import alone, in_processes
from resnest.data.samples import LabelledSamples
from resnest.data.sources import open_dataset
from resnest.data.stores import FolderStore
from resnest.errors import ResnestError
from resnest.inference.evaluation import evaluate
from resnest.inference.model import Model
from resnest.inference.predicting import Predictor
from resnest.panoptic.data import PanopticSamples
from resnest.panoptic.evaluation import PanopticEvaluation
from resnest.panoptic.result import PanopticMap
from resnest.panoptic.task import PanopticTask
from resnest.recipes import find_recipe, override
from resnest.runtime.engines.exported import Views
from resnest.tasks import open_task
from resnest.training.train import resume, train
from runs import checkpoint, lines, losses
from segments import CLASSES

SETTINGS = [*TINY_RUN, *TINY_PANOPTIC, "train.epochs=1"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint_segments(tmp_path_factory.mktemp("segments") / "data", 4)


@pytest.fixture(scope="module")
def whole(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    alone(lambda rank: train("panoptic_small", data=scenes, out=out, settings=SETTINGS).figures)
    return out


def test_a_run_and_what_it_leaves(whole: Path) -> None:
    for name in ("model.safetensors", "config.json", "recipe.yaml", "metrics.jsonl"):
        assert (whole / name).is_file()
    assert all(math.isfinite(loss) for loss in losses(whole))
    told = lines(whole, "eval")[0]
    assert {f"{name}{kind}" for name in ("pq", "sq", "rq") for kind in ("", "_things", "_stuff")} <= told.keys()
    opened = Model.from_pretrained(whole)
    assert opened.card.task == "panoptic"
    assert opened.card.classes == CLASSES
    assert opened.net.num_classes == CLASSES.things
    stopped = Model.from_pretrained(max((whole / "checkpoints").glob("step-*.pt")))
    assert stopped.card.classes == CLASSES
    assert (stopped.card.detector, stopped.card.panoptic) == (opened.card.detector, opened.card.panoptic)


def test_its_resumption(whole: Path, tmp_path: Path) -> None:
    """What stopped before its last step goes on as if nothing had been."""
    parts = tmp_path / "parts"
    shutil.copytree(whole, parts)
    max((parts / "checkpoints").glob("step-*.pt")).unlink()
    assert checkpoint(parts)["step"] == checkpoint(whole)["step"] - 1
    alone(lambda rank: resume(parts).figures)
    ours, theirs = checkpoint(parts), checkpoint(whole)
    assert all(torch.equal(tensor, theirs["model"][name]) for name, tensor in ours["model"].items())
    assert losses(parts) == losses(whole)


def test_evaluation_and_prediction(scenes: Path, whole: Path) -> None:
    result = evaluate(whole, scenes, workers=0)
    assert isinstance(result, PanopticEvaluation)
    assert result.count == 4
    best = max(lines(whole, "eval"), key=lambda line: line["pq"])
    for name, value in result.figures.items():
        assert value == pytest.approx(best[name], abs=1e-6, nan_ok=True), name
    assert len(result.lines()) == 4
    assert result.headline.startswith("PQ ")
    assert [name for name, *_ in result.per_class()] == list(CLASSES.names)
    found = Predictor(whole)(scenes / "val" / "1.png")
    assert isinstance(found, PanopticMap)
    assert found.ids.shape == (96, 64)
    assert set(np.unique(found.ids)) - {0} == {one.id for one in found.segments}
    with pytest.raises(ResnestError, match="several scales and mirrored views are for"):
        evaluate(whole, scenes, views=Views(scales=(64,), flip=True))


def test_two_processes(scenes: Path, tmp_path: Path) -> None:
    """Both come to the same figures."""

    def act(rank: int) -> dict[str, float]:
        settings = [*SETTINGS, "train.batch_size=1", "train.max_steps=1"]
        return train("panoptic_small", data=scenes, out=tmp_path / "run", settings=settings).figures

    first, second = in_processes(2, act, group=False)
    assert isinstance(first, dict), first
    assert first.keys() == second.keys()
    assert all(first[name] == second[name] or math.isnan(first[name]) for name in first)


def test_recipes_and_data_that_do_not_go_together(scenes: Path) -> None:
    samples = open_dataset(scenes, task="panoptic").train
    assert isinstance(samples, PanopticSamples)
    task = open_task(find_recipe("panoptic_small"), samples)
    assert isinstance(task, PanopticTask)
    assert (task.monitor, task.monitor_title, task.min_batch_size) == ("pq", "PQ", 1)
    held = override(find_recipe("panoptic_small"), ["detection.backbone_norm=batch"])
    assert open_task(held, samples).min_batch_size == 2
    with pytest.raises(ResnestError, match="has segments, and recipe 'imagenette' is for classification"):
        open_task(find_recipe("imagenette"), samples)
    with pytest.raises(ResnestError, match="has labels, and recipe 'panoptic_small' is for panoptic"):
        open_task(
            find_recipe("panoptic_small"), LabelledSamples(FolderStore(scenes), ["a.jpg"], ("a",), np.zeros(1, int))
        )

"""Training a detector end to end: run directory, exact resuming, several processes, first weights, odd data."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import pico
from painted import TINY_RUN, paint
from processes import alone, in_processes
from resnest.data.sources import open_dataset
from resnest.detection.data import DetectionSamples
from resnest.errors import ResnestError
from resnest.inference.model import Model
from resnest.recipes import find_recipe, override
from resnest.tasks import open_task
from resnest.training.train import resume, train
from runs import checkpoint, lines, losses


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint(tmp_path_factory.mktemp("scenes") / "data", 3)


def test_a_run_and_its_resumption(scenes: Path, tmp_path: Path) -> None:
    """A detector with masks; what stopped before its last step goes on as if nothing had been."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"

    def run(out: Path) -> dict[str, float]:
        figures: dict[str, float] = alone(
            lambda rank: train("instances_small", data=scenes, out=out, settings=TINY_RUN).figures
        )
        return figures

    assert math.isfinite(run(whole)["mask_ap"])
    for name in ("model.safetensors", "config.json", "recipe.yaml", "metrics.jsonl"):
        assert (whole / name).is_file()
    assert "Instance segmentation" in (whole / "report.html").read_text()
    assert all(math.isfinite(loss) for loss in losses(whole))
    assert {"box_ap", "box_ap50", "mask_ap", "mask_arl"} <= lines(whole, "eval")[0].keys()
    opened = Model.from_pretrained(whole)
    assert opened.card.category_ids == (3, 7, 20)
    assert opened.net.num_classes == 3
    stopped = Model.from_pretrained(max((whole / "checkpoints").glob("step-*.pt")))
    assert stopped.card.category_ids == (3, 7, 20)
    assert stopped.card.detector == opened.card.detector

    run(parts)
    max((parts / "checkpoints").glob("step-*.pt")).unlink()
    assert checkpoint(parts)["step"] == checkpoint(whole)["step"] - 1
    alone(lambda rank: resume(parts).figures)
    ours, theirs = checkpoint(parts), checkpoint(whole)
    assert ours["step"] == theirs["step"]
    assert all(torch.equal(tensor, theirs["model"][name]) for name, tensor in ours["model"].items())
    assert losses(parts) == losses(whole)


def test_two_processes(scenes: Path, tmp_path: Path) -> None:
    """Both come to the same figures, and to those of one process with the same pictures in a step."""

    def act(rank: int) -> dict[str, float]:
        settings = [*TINY_RUN, "train.batch_size=1", "train.max_steps=1"]
        return train("instances_small", data=scenes, out=tmp_path / "run", settings=settings).figures

    first, second = in_processes(2, act, group=False)
    assert isinstance(first, dict), first
    assert first.keys() == second.keys()
    assert all(first[name] == second[name] or math.isnan(first[name]) for name in first)


def test_starts_from_another_detector(scenes: Path, tmp_path: Path) -> None:
    train("detect_small", data=scenes, out=tmp_path / "a", settings=[*TINY_RUN, "train.max_steps=1"])
    recipe = override(find_recipe("instances_small"), [*TINY_RUN, f"model.pretrained={tmp_path / 'a'}"])
    task = open_task(recipe, open_dataset(scenes).train)
    net = task.build()
    told = str(task.load_pretrained(net))
    before = Model.from_pretrained(tmp_path / "a").net.state_dict()
    after = net.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert "untrained: mask_head" in told


def _without(scenes: Path, target: Path, change: Any, changed: str = "train") -> Path:
    """A copy of the data with other annotations to train on, or to validate on."""
    for part in ("train", "val"):
        content = json.loads((scenes / "annotations" / f"instances_{part}.json").read_text())
        if part == changed:
            change(content)
        for image in content["images"]:
            image["file_name"] = str((scenes / "images" / image["file_name"]).resolve())
        (target / "annotations").mkdir(parents=True, exist_ok=True)
        (target / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))
    (target / "images").symlink_to(scenes / "images")
    return target


def _crowds(content: dict[str, Any], first: int = 0) -> None:
    for one in content["annotations"][first:]:
        one["iscrowd"] = 1


def _none(content: dict[str, Any]) -> None:
    content.update(annotations=[])


REFUSED = {
    "no boxes": ("train", _none, "no training image has an object with an area"),
    "only crowds": ("train", _crowds, r"an object with an area \(crowds do not count\)"),
    "crowds and one object": (
        "train",
        lambda content: _crowds(content, 1),
        r"has 1 training image \(3 images .* not trained on\): two or more",
    ),
    "nothing to validate": ("val", _none, "no validation image has an object: nothing to measure by"),
    "only crowds to validate": ("val", _crowds, r"no validation image has an object \(crowds do not count\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_nothing_to_learn(case: str, scenes: Path, tmp_path: Path) -> None:
    part, change, message = REFUSED[case]
    data = _without(scenes, tmp_path / "data", change, part)
    with pytest.raises(ResnestError, match=message):
        train("detect_small", data=data, out=tmp_path / "run", settings=list(TINY_RUN))
    assert not (tmp_path / "run").exists()


def test_a_recipe_for_other_data(scenes: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ResnestError, match="has boxes, and recipe 'imagenette' is for classification: give "):
        train("imagenette", data=scenes, out=tmp_path / "run", settings=pico())
    with pytest.raises(ResnestError, match="has labels, and recipe 'detect_small' is for detection: give data"):
        train("detect_small", data=photos, out=tmp_path / "run", settings=list(TINY_RUN))
    assert isinstance(open_dataset(scenes).train, DetectionSamples)

"""Class predictors of pretrained weights: rows go to the classes of the same name, and never by number unasked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import resnest
from conftest import pico
from painted import TINY_RUN, paint
from resnest.checkpoints.class_rows import Classes, PretrainedHead
from resnest.checkpoints.loading import LoadReport, load_pretrained
from resnest.data.sources import open_dataset
from resnest.errors import ResnestError
from resnest.inference.model import Model
from resnest.recipes import find_recipe, override
from resnest.tasks import load_object, open_task, task_info, task_type
from small import SPEC, small

TASKS = ("classification", "detection", "segmentation", "panoptic", "keypoints")
NAMES = ("rose", "tulip", "sky")  # of the panoptic one, the last is stuff
# predictors that every task's network of three classes has, and the rows of the class "tulip" in them
ROWS: dict[str, dict[str, list[int]]] = {
    "classification": {"fc.weight": [1], "fc.bias": [1]},
    "detection": {"box_heads.0.score.weight": [1], "box_heads.0.deltas.bias": [4, 5, 6, 7]},
    "segmentation": {"head.predict.logits.weight": [1], "auxiliary.predict.logits.bias": [1]},
    "panoptic": {
        "box_heads.0.score.bias": [1],
        "box_heads.0.deltas.weight": [4, 5, 6, 7],
        "mask_head.logits.bias": [1],
    },
    "keypoints": {"heatmaps.weight": [1], "heatmaps.bias": [1]},
}
FIRST = {task: {name: [row - rows[0] for row in rows] for name, rows in ROWS[task].items()} for task in TASKS}


def saved(task: str, folder: Path, names: Sequence[str] = NAMES) -> Path:
    net = small(task)
    fill(net)
    return Model.of(net, list(names), task_info(task).card.preprocess_type()()).save_pretrained(folder)


def fill(net: Any) -> None:
    """Every row of every tensor is another one; not what a network starts with."""
    with torch.no_grad():
        for number, (name, tensor) in enumerate(net.state_dict().items()):
            if "logits" in name or "heatmaps" in name or "score" in name or "deltas" in name or name.startswith("fc."):
                tensor.copy_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(number)) + 3)


def load(task: str, net: Any, path: Path, names: Sequence[str], rows: PretrainedHead = "by_name") -> LoadReport:
    classes = Classes(tuple(names), rows)
    if task == "classification":
        report = load_pretrained(net, path, SPEC, classes)
        assert report is not None
        return report
    loaded: LoadReport = load_object(task_info(task).weights).load(net, path, classes=classes)
    return loaded


# the classes of the network -> the row of the file for each of them (none: untrained), what is said
CASES: dict[str, tuple[Sequence[str], Sequence[int | None], str]] = {
    "the same": (NAMES, (0, 1, 2), "classes by name: 3 of 3 from the file's 3"),
    "another order": (("tulip", "rose", "sky"), (1, 0, 2), "classes by name: 3 of 3 from the file's 3"),
    "one is new": (
        ("tulip", "lily", "sky"),
        (1, None, 2),
        "classes by name: 2 of 3 from the file's 3, untrained: lily",
    ),
    "all are new": (
        ("a", "b", "c"),
        (None, None, None),
        "starts untrained: the file's classes are others (rose, tulip, s",
    ),
    "in other letters": (
        ("Rose", "TULIP", "Sky"),
        (None, None, None),
        "what predicts classes starts untrained: the file's",
    ),
}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("case", CASES)
def test_rows_go_by_name(case: str, task: str, tmp_path: Path) -> None:
    names, sources, told = CASES[case]
    path, net = saved(task, tmp_path / "file"), small(task)
    theirs, initial = Model.from_pretrained(path).net.state_dict(), {k: v.clone() for k, v in net.state_dict().items()}
    report = load(task, net, path, names)
    assert told in str(report)
    for name, rows in FIRST[task].items():
        per, ours = len(rows), net.state_dict()[name]
        for row, source in enumerate(sources):
            if row == 2 and task == "panoptic":
                break  # the third class is stuff, below
            here = ours[row * per : (row + 1) * per]
            whole = initial[name] if source is None else theirs[name]
            start = (row if source is None else source) * per
            assert torch.equal(here, whole[start : start + per]), name
    taken = any(source is not None for source in sources)
    if "box_heads.0.score.bias" in theirs:  # the background
        assert (net.state_dict()["box_heads.0.score.bias"][-1] == theirs["box_heads.0.score.bias"][-1]) == taken
    if task == "panoptic":  # row 0: any object
        semantic = net.state_dict()["semantic.logits.weight"]
        assert torch.equal(semantic[0], theirs["semantic.logits.weight"][0]) == taken
        assert torch.equal(semantic[1], theirs["semantic.logits.weight"][1]) == (sources[2] == 2)


@pytest.mark.parametrize("task", [task for task in TASKS if task != "panoptic"])  # there, things are structure
def test_another_number_of_classes(task: str, tmp_path: Path) -> None:
    """Those that both have are taken all the same."""
    path, names = saved(task, tmp_path / "file"), ("tree", "tulip", "rose", "sky")
    theirs = Model.from_pretrained(path)
    ids: dict[str, Any] = {"category_ids": (1, 2, 3, 4)} if hasattr(theirs.card, "category_ids") else {}
    ids |= {"layout": None} if task == "keypoints" else {}  # of the names
    net = task_type(task).build_network(replace(theirs.card, class_names=names, **ids))
    report = load(task, net, path, names)
    assert report.classes == "classes by name: 3 of 4 from the file's 3, untrained: tree"
    for name, rows in FIRST[task].items():
        per = len(rows)
        for row, source in ((1, 1), (2, 0), (3, 2)):
            here = net.state_dict()[name][row * per : (row + 1) * per]
            assert torch.equal(here, theirs.net.state_dict()[name][source * per : (source + 1) * per])


SETTINGS: dict[PretrainedHead, tuple[bool, str]] = {
    "by_name": (
        False,
        "the file names no classes, so what predicts classes starts untrained (model.pretrained_head=by_",
    ),
    "by_number": (True, "classes by number (model.pretrained_head=by_number)"),
    "untrained": (False, "what predicts classes starts untrained (model.pretrained_head=untrained)"),
}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("rows", SETTINGS)
def test_a_file_without_names(rows: PretrainedHead, task: str, tmp_path: Path) -> None:
    """The same number of classes says nothing of which they are."""
    taken, told = SETTINGS[rows]
    net, before = small(task), small(task)
    fill(before)
    save_file(before.state_dict(), tmp_path / "bare.safetensors")
    assert told in str(load(task, net, tmp_path / "bare.safetensors", NAMES, rows))
    for name in ROWS[task]:
        assert torch.equal(net.state_dict()[name], before.state_dict()[name]) == taken


def test_openmmlab_names_its_classes(tmp_path: Path) -> None:
    for number, meta in enumerate([{"CLASSES": NAMES}, {"dataset_meta": {"classes": list(NAMES)}}]):
        before, net = small("segmentation"), small("segmentation")
        fill(before)
        torch.save({"meta": meta, "state_dict": before.state_dict()}, tmp_path / f"{number}.pth")
        assert "3 of 3" in load("segmentation", net, tmp_path / f"{number}.pth", NAMES[::-1]).classes
        name = "head.predict.logits.weight"
        assert torch.equal(net.state_dict()[name], before.state_dict()[name].flip(0))


def test_a_card_that_names_too_few(tmp_path: Path) -> None:
    """It stands beside a file that it does not describe."""
    path, net, other = saved("classification", tmp_path / "a"), small("classification"), small("classification")
    card = Model.from_pretrained(path).card
    (path / "config.json").write_text(replace(card, class_names=("rose", "tulip")).to_json())
    initial = other.fc.weight.clone()
    report = load("classification", net, path, NAMES)
    assert "the file's card names 2 classes, which its tensors do not have" in str(report)
    assert torch.equal(net.fc.weight, initial)


def test_a_thing_that_was_stuff(tmp_path: Path) -> None:
    """Panoptic networks predict things and stuff in different places; the message counts what has rows."""
    path, net, names = saved("panoptic", tmp_path / "file"), small("panoptic"), ("rose", "sky", "tulip")
    theirs = Model.from_pretrained(path).net.state_dict()
    report = load("panoptic", net, path, names)
    assert report.classes == "classes by name: 1 of 3 from the file's 3, untrained: sky, tulip"
    ours = net.state_dict()
    assert torch.equal(ours["box_heads.0.score.weight"][0], theirs["box_heads.0.score.weight"][0])
    assert not torch.equal(ours["box_heads.0.score.weight"][1], theirs["box_heads.0.score.weight"][1])


def _told(result: Any) -> str:
    """A result without class numbers, to five decimals: softmax adds classes up in their order."""
    told = re.sub("'category_id': [0-9]+", "", str(result.to_dict()))
    return re.sub(r"\d+\.\d+(e-\d+)?", lambda number: f"{float(number[0]):.5f}", told)


def test_the_first_predictions_are_those_of_the_file(tmp_path: Path) -> None:
    """Whatever the order of the classes: the same answers, by name, before the first step."""
    pixels = torch.randint(0, 255, (64, 96, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    picture = Image.fromarray(pixels.numpy())
    for task in ("classification", "detection", "segmentation"):
        path, net, turned = saved(task, tmp_path / task), small(task), (NAMES[1], NAMES[0], NAMES[2])
        load(task, net, path, turned)
        before = Model.from_pretrained(path)
        after = Model.of(net, list(turned), before.card.preprocess)
        first, second = (_told(one.predictor(device="cpu")(picture)) for one in (before, after))
        assert "tulip" in first
        assert first == second


def test_by_number_takes_as_many(tmp_path: Path) -> None:
    net = resnest.create_model(SPEC, num_classes=2)
    with pytest.raises(ResnestError, match="has another number of classes than the data"):
        load("classification", net, saved("classification", tmp_path / "a"), ("a", "b"), "by_number")


def test_a_classifier_in_training(photos: Path, tmp_path: Path) -> None:
    """The data's classes are the network's, and a setting of the recipe decides."""
    names = tuple(open_dataset(photos).train.class_names)
    recipe = override(find_recipe("imagenette"), pico())
    task = open_task(recipe, open_dataset(photos).train)
    net = task.build()
    path = Model.of(net, list(names[::-1]), task.preprocess).save_pretrained(tmp_path / "turned")
    for setting, turned in (("by_name", True), ("by_number", False)):
        settings = [f"model.pretrained={path}", f"model.pretrained_head={setting}"]
        again = open_task(override(recipe, settings), open_dataset(photos).train)
        loaded = again.build()
        again.load_pretrained(loaded)
        assert torch.equal(loaded.state_dict()["fc.weight"], net.state_dict()["fc.weight"].flip(0)) == turned


def test_a_detector_in_training(tmp_path: Path) -> None:
    scenes = paint(tmp_path / "data", 3)
    recipe = override(find_recipe("detect_small"), TINY_RUN)
    task = open_task(recipe, open_dataset(scenes).train)
    net, names = task.build(), task.class_names
    path = Model.of(net, list(names[::-1]), task.preprocess).save_pretrained(tmp_path / "turned")
    again = open_task(override(recipe, [f"model.pretrained={path}"]), open_dataset(scenes).train)
    loaded = again.build()
    again.load_pretrained(loaded)
    weight, theirs = (each.state_dict()["box_heads.0.score.weight"] for each in (loaded, net))
    assert torch.equal(weight, theirs[[2, 1, 0, 3]])

"""Exports beside the model as it was evaluated: the size of the data's pictures, and what a file gives for them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import resnest
from exports import save_segmenter
from painted import TINY_RUN, paint, real_model
from resnest.cli.export import _to_text
from resnest.data.sources import open_dataset
from resnest.detection.card import DetectionCard, DetectionPreprocess
from resnest.detection.export import DetectionExporter, usual_canvas
from resnest.detection.result import Detections
from resnest.errors import ResnestError
from resnest.exporters.exporting import export
from resnest.inference.model import Model
from resnest.recipes import find_recipe, override, to_yaml
from resnest.runtime.card import ModelCard
from resnest.tasks import open_task
from streets import write_streets

# sizes of the training pictures, preprocessing -> height and width of the file, why
CANVASES: dict[str, tuple[dict[str, int], dict[str, int], tuple[int, int], str]] = {
    "one size": ({"640x480": 205}, {"short": 256, "long": 448}, (256, 352), "holds 100% of the training pictures"),
    "portrait": ({"480x640": 9}, {"short": 256, "long": 448}, (352, 256), "holds 100% of"),
    "both orientations": ({"640x480": 5, "480x640": 5}, {"short": 256, "long": 448}, (352, 352), "holds 100% of"),
    "one odd panorama": ({"640x480": 99, "3000x300": 1}, {"short": 256, "long": 448}, (256, 352), "holds 99% of"),
    "many panoramas": ({"640x480": 9, "3000x300": 1}, {"short": 256, "long": 448}, (256, 448), "holds 100% of"),
    "a smaller one fits": ({"640x480": 99, "500x500": 1}, {"short": 256, "long": 448}, (256, 352), "holds 100% of"),
    "square pictures": ({"512x512": 4}, {"short": 800, "long": 1333}, (800, 800), "holds 100% of"),
    "larger than files": ({"1x1": 4}, {"short": 4000, "long": 4000}, (2048, 2048), "holds 100% of"),
    "not recorded": ({}, {"short": 256, "long": 448}, (352, 352), "a square, since the model does not record"),
}


@pytest.mark.parametrize("case", CANVASES)
def test_the_size_of_a_file(case: str) -> None:
    sizes, settings, canvas, why = CANVASES[case]
    card = replace(real_model().card, image_sizes=sizes, preprocess=DetectionPreprocess(**settings))
    assert usual_canvas(card)[0] == canvas
    assert usual_canvas(card)[1].startswith(why)
    for size in (size for size, count in sizes.items() if count > 1 and size != "1x1"):  # as they are evaluated
        width, height = map(int, size.split("x"))
        fixed = replace(card.preprocess, canvas=canvas)
        assert fixed.scaled_size(width, height) == card.preprocess.scaled_size(width, height)


def test_a_card_with_sizes(tmp_path: Path) -> None:
    card = replace(real_model().card, image_sizes={"640x480": 205, "480x640": 3})
    read = ModelCard.from_json(card.to_json(), where="card")
    assert isinstance(read, DetectionCard)
    assert read == card
    assert "image_sizes" not in json.loads(real_model().card.to_json())["resnest"]  # as before
    for bad in ({"640": 1}, {"axb": 1}, {"640x480": "many"}, {"0x5": 1}, 7):
        told = json.loads(card.to_json())
        told["resnest"]["image_sizes"] = bad
        with pytest.raises(ResnestError, match="cannot be understood as a model card"):
            ModelCard.from_json(json.dumps(told), where="card")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run leaves behind: weights that find something, its recipe, where its data is."""
    folder = tmp_path_factory.mktemp("run")
    data = paint(folder / "data", 7)
    (data / "images" / "val" / "6.png").write_bytes(b"no picture")  # is passed over
    recipe = override(find_recipe("detect_small"), TINY_RUN)
    task = open_task(recipe, open_dataset(data).train)
    torch.manual_seed(1)
    net = task.build()
    nn.init.normal_(net.box_heads[0].score.weight, std=0.5)
    Model(net.eval(), task.card({}), "run").save_pretrained(folder / "run")
    (folder / "run" / "recipe.yaml").write_text(to_yaml(recipe))
    (folder / "run" / "run.json").write_text(json.dumps({"data": str(data)}))
    return folder / "run"


def test_a_detector_beside_its_data(run: Path, tmp_path: Path) -> None:
    card = Model.from_pretrained(run).card
    assert sum(card.image_sizes.values()) == 4
    done = export(run, format="torch", out=tmp_path / "m.pt2")
    found = done.notes["as_evaluated"]
    assert done.pictures == f"6 validation pictures of {run.parent / 'data'}"
    assert (found["pictures"], found["labelled"], found["figure"]) == (6, 6, "box AP")
    assert found["before"] == pytest.approx(found["after"], abs=1e-3) or found["same"] < 6
    lines = _to_text(done).splitlines()
    assert any(line.startswith("evaluated  as the model was: objects of 50% and more the same on ") for line in lines)
    assert any(" -> " in line and line.endswith("on 6 labelled ones") for line in lines)
    assert any(
        line.startswith("takes ") and "of the training pictures at the size of evaluation)" in line for line in lines
    )
    assert any(line.endswith(f"the same on 6 of 6 validation pictures of {run.parent / 'data'}") for line in lines)


def test_a_detector_without_its_data(run: Path, tmp_path: Path) -> None:
    """Of synthetic pictures nothing follows for photographs."""
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    (moved / "run.json").write_text(json.dumps({"data": str(tmp_path / "gone")}))
    done = export(moved, format="torch", out=tmp_path / "m.pt2", size=64)
    assert done.pictures == "16 synthetic pictures"
    assert done.notes["as_evaluated"]["text"].startswith("not compared: no pictures of its data are here, `images=")


def test_a_segmenter_on_synthetic_pictures(tmp_path: Path) -> None:
    """As many as were compared; of the run's data, where it is."""
    folder = save_segmenter(tmp_path / "run")
    done = export(folder, format="torch", out=tmp_path / "m.pt2")
    assert "labels     the same for 16 of 16 synthetic pictures" in _to_text(done)
    assert "as_evaluated" not in done.notes  # of any size: prepared as the model
    data = write_streets(tmp_path / "streets", train=2, val=3)
    classes = tuple(open_dataset(data).train.class_names)
    if len(classes) == len(Model.from_pretrained(folder).card.class_names):
        images = data / "images" / "val"
        sized = export(folder, format="torch", out=tmp_path / "m.pt2", size=(64, 64), images=images)
        assert "labels of 99% of the pixels the same on" in sized.notes["as_evaluated"]["text"]


def _found(*objects: tuple[list[float], float, int]) -> Detections:
    boxes, scores, labels = zip(*objects, strict=True) if objects else ((), (), ())
    classes: Any = real_model().card.classes
    return Detections(
        name="x.png",
        width=100,
        height=100,
        classes=classes,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.array(labels, np.int64),
        scores=np.array(scores, np.float32),
    )


BOX, BESIDE, FAR = [10.0, 10, 30, 30], [12.0, 10, 32, 30], [60.0, 60, 80, 80]
RESULTS = {
    "nothing": ([], [], True),
    "about the same place": ([(BOX, 0.9, 0)], [(BESIDE, 0.6, 0)], True),
    "another class": ([(BOX, 0.9, 0)], [(BOX, 0.9, 1)], False),
    "another place": ([(BOX, 0.9, 0)], [(FAR, 0.9, 0)], False),
    "one is missing": ([(BOX, 0.9, 0), (FAR, 0.9, 0)], [(BOX, 0.9, 0)], False),
    "what is missing is not shown": ([(BOX, 0.9, 0), (FAR, 0.4, 0)], [(BOX, 0.9, 0)], True),
}


@pytest.mark.parametrize("case", RESULTS)
def test_the_same_objects(case: str) -> None:
    ours, theirs, same = RESULTS[case]
    assert DetectionExporter().same_result(_found(*ours), _found(*theirs)) == same


def test_auto_takes_no_file_that_prepares_otherwise(
    real_exports: dict[str, Path], saved_model: Path, tmp_path: Path
) -> None:
    """`predict RUN` gives what `evaluate RUN` measured; a file that is asked for is used, and said to differ."""
    shutil.copytree(saved_model, tmp_path / "run")
    shutil.copy(real_exports["onnx"], tmp_path / "run" / "model.onnx")
    assert resnest.Predictor(tmp_path / "run", device="cpu").engine.name.startswith("onnxruntime")
    card = ModelCard.read(tmp_path / "run")
    other = replace(card, preprocess=replace(card.preprocess, size=48, crop=1.0))  # type: ignore[type-var, call-arg]
    (tmp_path / "run" / "config.json").write_text(other.to_json())
    told = "prepares pictures otherwise than the run (size=40, crop=None)"
    auto = resnest.Predictor(tmp_path / "run", device="cpu")
    assert auto.engine.name.startswith("torch")
    assert auto.note.endswith(f"model.onnx {told}: name it to use it")
    named = resnest.Predictor(tmp_path / "run", engine="onnxruntime", device="cpu")
    assert named.engine.name.startswith("onnxruntime")
    assert named.note.endswith(told)

"""What a detector gives: its card, its results, pictures of them, and the commands that make them."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image

import resnest
from conftest import Outcome
from painted import IDS, NAMES, PREPROCESS, paint, real_model
from resnest.classification.card import ClassificationCard
from resnest.data.samples import LabelledSamples
from resnest.data.stores import FolderStore
from resnest.detection.card import Classes, DetectionCard, DetectionPreprocess, DetectorSpec
from resnest.detection.evaluation import match_detections
from resnest.detection.result import Detections, RawDetections
from resnest.errors import ResnestError
from resnest.inference.model import Model
from resnest.runtime import rle
from resnest.runtime.card import ModelCard
from resnest.runtime.decode import BadImage
from resnest.runtime.draw import _spot, overlap
from resnest.runtime.engines.exported import Views
from resnest.runtime.palette import colour
from resnest.runtime.predictor import ImagePredictor
from resnest.runtime.preprocess import Preprocess
from resnest.spec import Spec
from resnest.tasks import check_task

CARD = DetectionCard(
    architecture="resnest14",
    spec=Spec(depths=(1, 1, 1, 1)),
    class_names=("RBC", "WBC", "Platelets"),
    preprocess=DetectionPreprocess(short=480, long=640, canvas=(480, 640)),
    detector=DetectorSpec(cascade=True, masks=True, max_detections=300),
    category_ids=(1, 2, 90),
    figures={"box_ap": 0.5},
)


def test_a_detectors_card_comes_back() -> None:
    for card in (CARD, replace(CARD, preprocess=DetectionPreprocess())):
        assert ModelCard.from_json(card.to_json(), where="") == card
    assert set(json.loads(CARD.to_json())) == {"label_names", "resnest"}  # nothing that timm would build
    assert not CARD.fits_timm
    told = json.loads(ClassificationCard.of_imagenet("resnest14", Preprocess()).to_json())["resnest"]
    assert not {"detector", "category_ids"} & told.keys()


WRONG_CARDS: dict[str, tuple[dict[str, Any], str]] = {
    "no detector": ({"detector": None}, "model card"),
    "an unknown setting": ({"detector": {"heads": 3}}, "heads"),
    "one that cannot be built": ({"detector": {"nms": 2}}, r"detector.nms=2 must lie in \(0, 1\]"),
    "an id too few": ({"category_ids": [1, 2]}, "3 different numbers"),
    "an id twice": ({"category_ids": [1, 2, 2]}, "3 different numbers"),
    "an id of text": ({"category_ids": [1, 2, "3"]}, "not integers"),
    "another task": ({"task": "classification"}, "RESULT.json cannot be understood as a model card"),
    "a classifier's size": ({"preprocess": {"size": 224, "mean": [0, 0, 0], "std": [1, 1, 1]}}, "canvas"),
    "a negative canvas": (
        {"preprocess": {"short": 64, "long": 96, "canvas": [-1, 5], "mean": [0], "std": [1]}},
        "not two numbers from 1 to 8192",
    ),
    "a size without end": (
        {"preprocess": {"short": 10**9, "long": 10**9, "canvas": None, "mean": [0], "std": [1]}},
        "not two numbers from 1 to 8192",
    ),
    "a size of text": (
        {"preprocess": {"short": "a", "long": 5, "canvas": None, "mean": [0], "std": [1]}},
        "not integers",
    ),
}


@pytest.mark.parametrize(("change", "message"), WRONG_CARDS.values(), ids=WRONG_CARDS)
def test_a_card_that_makes_no_sense(change: dict[str, Any], message: str) -> None:
    content = json.loads(CARD.to_json())
    content["resnest"] |= change
    with pytest.raises(ResnestError, match=message):
        ModelCard.from_json(json.dumps(content), where="RESULT.json")


def test_what_is_for_the_other_task_says_so() -> None:
    with pytest.raises(ResnestError, match="a model card of the task detection has another task's preprocessing"):
        replace(CARD, preprocess=Preprocess())
    with pytest.raises(ResnestError, match="`window=64` is for segmenters, and this model is a detector"):
        CARD.with_window(64)


def _found(boxes: list[list[float]], labels: list[int], scores: list[float], **changes: Any) -> Detections:
    classes = changes.pop("classes", Classes(NAMES, IDS))
    arrays = np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64), np.array(scores, np.float32)
    width, height = changes.pop("size", (200, 100))
    return Detections("a.jpg", width, height, classes, *arrays, **changes)


def test_boxes_go_back_to_the_picture() -> None:
    """By what each side was really scaled by, clipped, without what has no area or no score."""
    preprocess = DetectionPreprocess(short=50, long=1000)
    assert preprocess.scaled_size(101, 67) == (75, 50)
    boxes = [[7.5, 5, 15, 10], [-10, -10, 400, 400], [3, 3, 3, 9], [80, 3, 90, 9], [1, 1, 2, 2]]
    raw = RawDetections(
        np.array([boxes], np.float32),
        np.array([[0.9, 0.8, 0.7, 0.6, 0]], np.float32),
        np.array([[1, 0, 2, 2, 2]]),
        np.ones((1, 5, 28, 28), np.float32),
    )
    found = Detections.of(raw, 0, name="x", size=(101, 67), preprocess=preprocess, classes=Classes(NAMES, IDS))
    assert found.boxes == pytest.approx(np.array([[10.1, 6.7, 20.2, 13.4], [0, 0, 101, 67]]), abs=1e-4)
    assert found.labels.tolist() == [1, 0]
    assert found.masks is not None
    assert rle.box(found.masks[0]) == (10, 7, 10, 6)  # the pixels whose centres lie in the box
    assert rle.area(found.masks[1]) == 101 * 67 - 4  # towards a corner the map fades in both directions


def test_what_programs_get() -> None:
    mask = rle.encode(np.ones((100, 200), bool))
    found = _found([[10, 20, 40, 60], [0, 0, 1, 1], [5, 5, 9, 9]], [2, 0, 2], [0.9, 0.5, 0.1], masks=(mask,) * 3)
    assert found.shown().counts() == {"red": 1, "blue": 1}
    assert found.shown(0.05).counts() == {"blue": 2, "red": 1}
    one = {"category_id": 20, "score": 0.9, "bbox": [10.0, 20.0, 30.0, 40.0], "segmentation": mask}
    told = json.loads(json.dumps(found.shown(0.6).to_dict()))
    assert told == {"image": "a.jpg", "width": 200, "height": 100, "objects": [{"label": "blue", **one}]}
    assert found.to_coco(5)[0] == {"image_id": 5, **one}
    assert "segmentation" not in replace(found, masks=None).to_coco(5)[0]


def test_drawings() -> None:
    image = Image.new("RGB", (200, 100), (200, 200, 200))
    for found in (_found([], [], []), _found([[-5, -5, 300, 300], [3, 3, 3.5, 4]], [0, 1], [1, 0.5])):
        assert found.draw(image).size[0] == 800  # enlarged
    large = image.resize((800, 400))
    drawn = np.asarray(_found([[100, 100, 300, 200]], [1], [0.9], size=large.size).draw(large))
    assert tuple(drawn[199, 200]) == colour(1)
    assert tuple(drawn[150, 200]) == (200, 200, 200)  # nothing is written into the box
    assert drawn.shape[0] > 400  # the legend
    mask = np.zeros((400, 800), bool)
    mask[100:200, 100:300] = True
    alone = Classes(("cell",), (1,))
    masks = (rle.encode(mask),) * 30
    many = _found([[100, 100, 300, 200]] * 30, [0] * 30, [1] * 30, masks=masks, classes=alone, size=large.size)
    filled = np.asarray(many.draw(large)).astype(int)
    assert (filled[150, 200] != 200).any()
    assert (filled[:90] == 200).all()  # of many objects of one class, none has a text


def test_texts_do_not_lie_on_each_other() -> None:
    taken: list[tuple[float, float, float, float]] = []
    for _ in range(12):
        spot = _spot(np.array([50, 50, 200, 200], np.float32), 60, 15, (400, 300), taken)
        if spot:
            assert not any(overlap(spot, other) for other in taken)
            taken.append(spot)
    assert 3 <= len(taken) < 12


class _Corners:
    """An engine that finds the whole image, and notes its batches."""

    name = "corners"

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, images: NDArray[np.float32], sizes: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        self.shapes.append(images.shape)
        boxes = np.zeros((len(images), 1, 4), np.float32)
        boxes[:, 0, 2:] = sizes[:, ::-1]
        scores, labels = np.ones((len(images), 1), np.float32), np.zeros((len(images), 1), np.int64)
        return {"boxes": boxes, "scores": scores, "labels": labels}


def test_streams_group_neighbours_of_one_shape(tmp_path: Path) -> None:
    wide, high = (96, 64), (64, 96)
    sizes = [wide, wide, high, high, high, wide, wide, wide, wide, wide, high]
    for number, size in enumerate(sizes):
        Image.new("RGB", size).save(tmp_path / f"{number}.png")
    (tmp_path / "4.png").write_bytes(b"no")
    engine = _Corners()
    predictor = ImagePredictor(engine, replace(real_model().card), batch_size=16)
    results = list(predictor.stream([tmp_path / f"{number}.png" for number in range(len(sizes))]))
    assert [len(shape) and (shape[0], shape[3]) for shape in engine.shapes] == [
        (2, 96), (2, 64), (3, 96), (2, 96), (1, 64)
    ]  # fmt: skip
    assert isinstance(results[4], BadImage)
    for number, (size, result) in enumerate(zip(sizes, results, strict=True)):
        assert result.name == str(tmp_path / f"{number}.png")
        if isinstance(result, Detections):
            assert result.boxes.tolist() == [[0, 0, *size]]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real detector, saved, and pictures."""
    folder = tmp_path_factory.mktemp("saved")
    real_model({"box_ap": 0.25, "mask_ap50": 0.5, "box_apl": float("nan")}).save_pretrained(folder / "model")
    paint(folder / "data", 7)
    return folder


def test_a_saved_detector_is_the_same(saved: Path) -> None:
    model, before = Model.from_pretrained(saved / "model"), real_model()
    assert model.card.figures == {"box_ap": 0.25, "mask_ap50": 0.5}
    state = model.net.state_dict()
    assert all((state[name] == tensor).all() for name, tensor in before.net.state_dict().items())
    text = (saved / "model" / "README.md").read_text()
    assert "pipeline_tag: image-segmentation" in text
    assert "| box AP | 25.00% |" in text
    assert "nan" not in text


def test_a_detector_of_another_structure_is_refused(saved: Path, tmp_path: Path) -> None:
    card = real_model().card
    assert card.detector is not None
    (tmp_path / "config.json").write_text(replace(card, detector=replace(card.detector, fpn_channels=16384)).to_json())
    (tmp_path / "model.safetensors").write_bytes((saved / "model" / "model.safetensors").read_bytes())
    with pytest.raises(ResnestError, match="holds another detector than its"):
        Model.from_pretrained(tmp_path)


def test_predict(cli: Callable[..., Outcome], saved: Path, tmp_path: Path) -> None:
    model, pictures = saved / "model", sorted((saved / "data" / "images" / "val").glob("*.png"))
    every = ["--threshold", "0"]
    expected = [resnest.Predictor(model)(picture) for picture in pictures]
    assert all(isinstance(found, Detections) and len(found) for found in expected)
    outcome = cli("predict", model, *pictures, "--draw", tmp_path / "drawn", "--coco", tmp_path / "found.json")
    assert outcome.code == 0, outcome.err
    for line, found in zip(outcome.out.splitlines(), expected, strict=True):
        counts = found.shown().counts()  # type: ignore[union-attr]
        assert line == f"{found.name}: {', '.join(f'{n} {name}' for name, n in counts.items()) or '-'}"
    assert len(list((tmp_path / "drawn").glob("*.jpg"))) == len(pictures)
    told = [json.loads(line) for line in cli("predict", model, *pictures, "--json", *every).out.splitlines()]
    assert [len(one["objects"]) for one in told] == [len(found) for found in expected]  # type: ignore[arg-type]
    rows = list(csv.DictReader(io.StringIO(cli("predict", model, *pictures, "--csv", *every).out)))
    assert len(rows) == sum(len(one["objects"]) for one in told)
    assert {row["label"] for row in rows} <= set(NAMES)
    content = json.loads((tmp_path / "found.json").read_text())
    assert [image["file_name"] for image in content["images"]] == [str(picture) for picture in pictures]
    assert [category["id"] for category in content["categories"]] == list(IDS)
    assert len(content["annotations"]) == len(rows)  # all that it keeps
    first = content["annotations"][0]
    assert first["area"] == rle.area(first["segmentation"])
    for options, message in (
        (["--top", "2"], "--top is for classifiers"),
        (["--coco", "no/x.json"], "no folder no"),
        (["--coco", "."], "is a folder"),
    ):
        outcome = cli("predict", model, pictures[0], *options)
        assert (outcome.code, message in outcome.err) == (2, True)


def test_evaluate(cli: Callable[..., Outcome], saved: Path) -> None:
    outcome = cli("evaluate", saved / "model", "--data", saved / "data")
    assert outcome.code == 0, outcome.err
    assert "AP50" in outcome.out
    assert "mask" in outcome.out
    assert "objects)" in outcome.out
    told = json.loads(cli("evaluate", saved / "model", "--data", saved / "data", "--json").out)
    assert told["images"] == 7
    assert told["box_apl"] is None
    assert 0 <= told["mask_ap"] < 1
    assert set(told["class_ap"]) == {"box", "mask"}
    assert told["per_class"] == told["class_ap"]["box"]


def test_evaluate_in_several_views(cli: Callable[..., Outcome], saved: Path) -> None:
    """What the views give is tested in test_detection_augmented.py."""
    where = ("evaluate", saved / "model", "--data", saved / "data", "--json")
    told = json.loads(cli(*where, "--scales", "64,96", "--flip").out)
    assert told["images"] == 7
    assert 0 <= told["mask_ap"] < 1
    refused = cli(*where, "--scales", "64,big")
    assert refused.code == 2
    assert "--scales 64,big: expected pixels of the short side, such as 640,800" in refused.err


@pytest.mark.parametrize("views", [None, Views((64,))])
def test_too_many_unusable_pictures(views: Views | None, saved: Path, tmp_path: Path) -> None:
    """One of seven is more than 5 %, however pictures are looked at."""
    data = tmp_path / "data"
    shutil.copytree(saved / "data", data)
    (data / "images" / "val" / "0.png").write_bytes(b"no picture")
    with pytest.raises(ResnestError, match="1 of 7 images cannot be used, more than 5%"):
        resnest.evaluate(saved / "model", data, views=views)


def test_data_that_does_not_fit(saved: Path) -> None:
    data = resnest_data(saved)
    card = real_model().card
    other = replace(card, class_names=("red", "green", "violet"))
    with pytest.raises(ResnestError, match="1 class that the model does not know: blue"):
        data.aligned(other, "data")
    turned = data.aligned(replace(card, class_names=NAMES[::-1], category_ids=(5, 6, 8)), "data")
    assert turned.category_ids == (5, 6, 8)
    assert turned.objects[0].labels.tolist() == [2 - label for label in data.objects[0].labels]
    labelled = LabelledSamples(FolderStore(saved), ["a"], NAMES, np.array([0]))
    with pytest.raises(ResnestError, match="data has labels, and the model is for detection: give data with boxes"):
        check_task(labelled, card.task, "data", "the model")
    with pytest.raises(
        ResnestError, match="data has boxes, and the model is for classification: give images with labels"
    ):
        check_task(data, "classification", "data", "the model")


def resnest_data(saved: Path) -> Any:
    from resnest.data.sources import open_dataset

    return open_dataset(saved / "data").val


def test_mistakes_of_one_image() -> None:
    class Truth:
        width = height = 100
        boxes = np.array([[0, 0, 10, 10], [20, 20, 40, 40], [50, 50, 100, 100]], np.float32)
        labels = np.array([0, 1, 0])
        crowd = np.array([False, False, True])
        areas = np.array([100, 400, 2500])
        segmentations = (None,) * 3
        negative = partial = None

    boxes = [[0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 40, 40], [55, 55, 60, 60], [60, 60, 70, 70]]
    found = _found(boxes, [0, 0, 0, 0, 1], [0.6, 0.9, 0.8, 0.8, 0.8])
    mistakes = match_detections(found, Truth)  # type: ignore[arg-type]
    assert mistakes.missed.tolist() == [1]  # found as another class
    assert sorted(mistakes.false) == [0, 2, 4]  # twice, of another class, in a crowd of others
    nothing = match_detections(_found([], [], []), Truth)  # type: ignore[arg-type]
    assert (nothing.missed.tolist(), nothing.false.tolist()) == ([0, 1], [])


def _exported(path: Path, *, card: ModelCard | None, canvas: tuple[int, int], leave_out: str = "") -> Path:
    """A file with a detector's inputs and outputs, which finds the same whatever it sees."""
    values = {
        "boxes": np.array([[[0, 0, 32, 16], [0, 0, 64, 32], [0, 0, 0, 0]]], np.float32),
        "scores": np.array([[0.75, 0.25, 0]], np.float32),
        "labels": np.array([[2, 0, 0]], np.int64),
        "masks": np.ones((1, 3, 28, 28), np.float32),
    }
    values.pop(leave_out, None)
    kinds = {name: helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in values.items()}
    nodes = [
        helper.make_node("ReduceMin", ["images"], ["least"], keepdims=0),
        helper.make_node("Mul", ["least", "none"], ["zero"]),
    ]
    constants = [helper.make_tensor("none", TensorProto.FLOAT, [], [0.0])]
    for name, value in values.items():
        constants.append(onnx.numpy_helper.from_array(value, f"{name}_"))
        nodes.append(helper.make_node("Cast", ["zero"], [f"{name}0"], to=kinds[name]))
        nodes.append(helper.make_node("Add", [f"{name}_", f"{name}0"], [name]))
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, *canvas])],
        [helper.make_tensor_value_info(name, kinds[name], value.shape) for name, value in values.items()],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    if card:
        helper.set_model_props(model, {"resnest": card.to_json()})
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_exported_detectors(engine: str, saved: Path, tmp_path: Path) -> None:
    card = replace(real_model().card, preprocess=replace(PREPROCESS, canvas=(64, 128)))
    path = _exported(tmp_path / "m.onnx", card=card, canvas=(64, 128))
    picture = tmp_path / "picture.png"
    Image.new("RGB", (48, 32)).save(picture)
    predictor = resnest.Predictor(path, engine=engine)
    assert predictor.engine.name.startswith(engine)
    for found in [predictor(picture), *predictor.stream([picture] * 3)]:
        assert isinstance(found, Detections)
        assert found.boxes.tolist() == [[0, 0, 16, 8], [0, 0, 32, 16]]  # the picture was doubled
        assert found.shown().counts() == {"blue": 1}
        assert found.masks is not None
        assert rle.area(found.masks[0]) == 16 * 8
    result = resnest.evaluate(path, saved / "data")
    assert result.count == 7
    assert result.figures["box_ap"] == result.figures["mask_ap"] == 0
    wrong = {
        "takes images \\(1, 3, 64, 128\\), and its card prepares \\(1, 3, 64, 96\\)": (
            replace(card, preprocess=replace(PREPROCESS, canvas=(64, 96))), ""
        ),
        "its card prepares \\(1, 3, any, any\\)": (replace(card, preprocess=PREPROCESS), ""),
        "lacks masks": (card, "masks"),
        "its card is that of a classifier": (ClassificationCard.of_imagenet("resnest14", Preprocess()), ""),
    }  # fmt: skip
    for message, (told, leave_out) in wrong.items():
        bad = _exported(tmp_path / "bad.onnx", card=told, canvas=(64, 128), leave_out=leave_out)
        with pytest.raises(ResnestError, match=message):
            resnest.Predictor(bad, engine=engine)

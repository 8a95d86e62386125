"""Predicting segments: batches, files of masks, text, JSON and CSV, with an engine that looks at colours."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from conftest import Outcome
from resnest.cli.evaluate import _views
from resnest.data.sources import open_split
from resnest.detection.card import DetectionPreprocess, DetectorSpec
from resnest.errors import ResnestError
from resnest.inference.predicting import Predictor
from resnest.panoptic.card import PanopticCard, PanopticSpec
from resnest.panoptic.data import PanopticSamples
from resnest.panoptic.result import PanopticFiles
from resnest.runtime.card import ModelCard
from resnest.runtime.decode import BadImage
from resnest.runtime.engines.exported import Views
from resnest.runtime.palette import colour
from resnest.runtime.predictor import ImagePredictor
from resnest.segmentation.card import SegmentationCard, SegmentationPreprocess
from resnest.segmentation.data import PixelSamples
from resnest.segmentation.result import LabelMap, PixelClasses, label_image, save_class_list
from resnest.segmentation.spec import SegmenterSpec
from resnest.spec import Spec
from resnest.tasks import task_info

CARD = SegmentationCard(
    architecture="resnest14",
    spec=Spec(depths=(1, 1, 1, 1)),
    class_names=("red", "green", "blue"),
    preprocess=SegmentationPreprocess(mean=(0, 0, 0), std=(1, 1, 1)),
    segmenter=SegmenterSpec(),
    category_ids=(7, 0, 4),
    colours=((200, 0, 0), (0, 200, 0), (0, 0, 200)),
)


class Colours:
    """Logits that are ten times the image."""

    name = "colours"

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, images: NDArray[np.float32], sizes: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
        self.shapes.append(images.shape)
        return {"logits": images * 10}


PANOPTIC = PanopticCard(
    architecture="resnest14",
    spec=Spec(depths=(1, 1, 1, 1)),
    class_names=("cat", "sky", "sea"),
    preprocess=DetectionPreprocess(short=64, long=128, mean=(0, 0, 0), std=(1, 1, 1)),
    detector=DetectorSpec(masks=True),
    panoptic=PanopticSpec(stuff_area=100),
    things=1,
    category_ids=(17, 187, 155),
)


class Sharing:
    """A cat in the left quarter, and the logits of stuff from the colours: any thing, sky, sea."""

    name = "sharing"

    def __call__(self, images: NDArray[np.float32], sizes: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        boxes = np.zeros((len(images), 1, 4), np.float32)
        boxes[:, 0, 2:] = sizes[:, ::-1] * [0.25, 1]
        ones = np.ones((len(images), 1), np.float32)
        masks = np.ones((len(images), 1, 28, 28), np.float32)
        labels = np.zeros((len(images), 1), np.int64)
        return {"boxes": boxes, "scores": ones, "labels": labels, "masks": masks, "semantic": images * 10}


def halves(path: Path, size: tuple[int, int], *, suffix: str = ".png") -> Path:
    """A picture whose left quarter is red and the rest blue."""
    image = Image.new("RGB", size, (0, 0, 255))
    image.paste((255, 0, 0), (0, 0, size[0] // 4, size[1]))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path.with_suffix(suffix))
    return path.with_suffix(suffix)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Pictures of three sizes, two of them with one name, and one that is none."""
    folder = tmp_path / "images"
    for place, size in (("a", (64, 40)), ("b", (64, 40)), ("sub/a", (40, 64)), ("c", (16, 8))):
        halves(folder / place, size)
    (folder / "bad.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Colours:
    """What `resnest predict` runs, whatever model it is told."""
    colours = Colours()

    def opened(self: Predictor, reference: str, *, batch_size: int, **_: object) -> None:
        ImagePredictor.__init__(self, colours, CARD, batch_size=batch_size)

    monkeypatch.setattr(Predictor, "__init__", opened)
    return colours


@pytest.fixture
def sharing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for a panoptic detector."""

    def opened(self: Predictor, reference: str, *, batch_size: int, **_: object) -> None:
        ImagePredictor.__init__(self, Sharing(), PANOPTIC, batch_size=batch_size)

    monkeypatch.setattr(Predictor, "__init__", opened)


WRONG_CARDS: dict[str, tuple[dict[str, object], str]] = {
    "a rate between two": ({"segmenter": {"rates": [1.5, 2, 3]}}, "must be three integers from 1 to"),
    "a stride of a point": ({"segmenter": {"output_stride": 16.0}}, "output_stride=16.0 must be an integer"),
    "cells of half": ({"segmenter": {"head": "psp", "bins": [0.5]}}, "must be integers from 1 to 64"),
    "a window that nets cannot see": ({"window": 1}, "window is 1, not a number from 32 to 2048"),
    "a canvas of the kind": ({"canvas": [10, 40]}, r"canvas is \(10, 40\): a segmenter sees 32 pixels a side or more"),
    "a mean of two": ({"mean": [0, 0]}, r"mean=\[0, 0\] of a model card must be three numbers"),
    "a mean of text": ({"mean": ["a", 0, 0]}, "must be three numbers"),
    "a mean without value": ({"mean": [float("nan"), 0, 0]}, "must be three numbers"),
    "no spread": ({"std": [0, 1, 1]}, r"std=\[0, 1, 1\] of a model card must be three numbers above 0"),
    "a name twice": ({"label_names": ["a", "b", "a"]}, "two classes of one name"),
}


@pytest.mark.parametrize("case", WRONG_CARDS)
def test_a_card_that_cannot_work_is_refused(case: str) -> None:
    changes, message = WRONG_CARDS[case]
    told = json.loads(CARD.to_json())
    for key, value in changes.items():
        place = told if key in told else told["resnest"] if key in told["resnest"] else told["resnest"]["preprocess"]
        place[key] = {**place[key], **value} if isinstance(value, dict) else value
    with pytest.raises(ResnestError, match=f"here cannot be understood as a model card: .*{message}"):
        ModelCard.from_json(json.dumps(told), where="here")


def test_streams_group_pictures_of_one_shape(pictures: Path) -> None:
    engine = Colours()
    paths = [pictures / name for name in ("a.png", "b.png", "bad.png", "sub/a.png", "c.png")]
    results = list(ImagePredictor(engine, CARD, batch_size=16).stream(paths))
    assert engine.shapes == [(2, 3, 40, 64), (1, 3, 64, 40), (1, 3, 32, 32)]  # four paths at a time; the least is 32
    assert isinstance(results.pop(2), BadImage)
    for result in results:
        assert isinstance(result, LabelMap)
        assert result.class_fractions() == {"blue": 0.75, "red": 0.25}
    assert results[-1].labels.shape == (8, 16)  # type: ignore[union-attr]


def test_windows_are_looked_at_one_by_one(pictures: Path) -> None:
    engine = Colours()
    card = replace(CARD, preprocess=replace(CARD.preprocess, window=48))
    paths = [pictures / "a.png", pictures / "b.png"]
    for result in ImagePredictor(engine, card).stream(paths):
        assert isinstance(result, LabelMap)
        assert result.class_fractions() == {"blue": 0.75, "red": 0.25}
    assert engine.shapes == [(1, 3, 48, 48)] * 4


def test_text_json_and_csv(cli: Callable[..., Outcome], pictures: Path, engine: Colours) -> None:
    outcome = cli("predict", "model", pictures)
    assert outcome.code == 2
    assert f"skipped: {pictures / 'bad.png'}" in outcome.err
    assert outcome.out.splitlines()[0] == f"{pictures / 'a.png'}: blue 75 %, red 25 %"
    told = [json.loads(line) for line in cli("predict", "model", pictures / "c.png", "--json").out.splitlines()]
    assert (told[0]["width"], told[0]["height"]) == (16, 8)
    assert told[0]["segments"][0] == {
        "label": "blue", "category_id": 4, "pixels": 96, "share": 0.75, "score": pytest.approx(0.99991, abs=1e-4),
    }  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(cli("predict", "model", pictures / "c.png", "--csv").out)))
    assert [(row["label"], row["category_id"], row["pixels"], row["share"]) for row in rows] == [
        ("blue", "4", "96", "0.750000"), ("red", "7", "32", "0.250000"),
    ]  # fmt: skip


def test_masks_lie_as_their_pictures_do(
    cli: Callable[..., Outcome], pictures: Path, engine: Colours, tmp_path: Path
) -> None:
    halves(pictures / "a", (64, 40), suffix=".bmp")  # would have the same mask as a.png: both keep their suffix
    outcome = cli("predict", "model", pictures, "--masks", tmp_path / "masks", "--draw", tmp_path / "drawn")
    assert "5 masks and classes.json" in outcome.err
    found = {file.relative_to(tmp_path / "masks").as_posix() for file in (tmp_path / "masks").rglob("[!.]*.*")}
    assert found == {"a.png.png", "a.bmp.png", "b.png", "c.png", "sub/a.png", "classes.json"}
    drawn = {file.relative_to(tmp_path / "drawn").as_posix() for file in (tmp_path / "drawn").rglob("*.jpg")}
    assert drawn == {"a.png.jpg", "a.bmp.jpg", "b.jpg", "c.jpg", "sub/a.jpg"}
    with Image.open(tmp_path / "masks" / "sub" / "a.png") as mask:
        assert (mask.mode, mask.size) == ("P", (40, 64))
        ids = np.asarray(mask)
        assert (ids[:, :10] == 7).all()
        assert (ids[:, 10:] == 4).all()
        assert mask.convert("RGB").getpixel((20, 20)) == (0, 0, 200)
    rows = json.loads((tmp_path / "masks" / "classes.json").read_text())
    assert rows[0] == {"index": 7, "name": "red", "color": [200, 0, 0], "ignore": False}


def test_masks_beside_their_pictures_are_a_data_set(
    cli: Callable[..., Outcome], pictures: Path, engine: Colours
) -> None:
    (pictures / "bad.png").unlink()
    assert cli("predict", "model", pictures, "--masks", pictures.parent / "masks").code == 0
    samples = open_split(pictures.parent, "all", task="segmentation").samples
    assert isinstance(samples, PixelSamples)
    assert samples.classes == CARD.classes
    assert sorted(samples.keys) == ["a.png", "b.png", "c.png", "sub/a.png"]
    for index, key in enumerate(samples.keys):
        found = ImagePredictor(engine, CARD)(pictures / key)
        assert isinstance(found, LabelMap)
        assert np.array_equal(samples.mask(index), found.labels)


def test_pictures_are_never_replaced(cli: Callable[..., Outcome], pictures: Path, engine: Colours) -> None:
    before = (pictures / "c.png").read_bytes()
    outcome = cli("predict", "model", pictures / "c.png", "--masks", pictures)
    assert outcome.code == 2
    assert "is a picture that is looked at: take another folder" in outcome.err
    assert (pictures / "c.png").read_bytes() == before
    assert not (pictures / "classes.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--top", "2"], "--top is for classifiers, and this model is a segmenter: leave it out"),
        (["--threshold", "0.2"], "--threshold is for detectors and keypoint models, and this model is a segmenter"),
        (["--coco", "x.json"], "--coco is for detectors and keypoint models, and this model is a segmenter"),
        (["--masks", "PICTURE"], "cannot be written"),
    ],
)
def test_options_of_other_tasks(
    cli: Callable[..., Outcome], pictures: Path, engine: Colours, options: list[str], message: str
) -> None:
    picture = str(pictures / "c.png")
    outcome = cli("predict", "model", picture, *(picture if word == "PICTURE" else word for word in options))
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err


@pytest.mark.parametrize(
    ("ids", "mode", "stored"),
    [((5, 255), "P", (5, 255)), ((1, 300), "I;16", (1, 300)), ((-1, 9), "P", (0, 1)), ((9, 70_000), "P", (0, 1))],
)
def test_ids_of_any_size(tmp_path: Path, ids: tuple[int, int], mode: str, stored: tuple[int, int]) -> None:
    classes = PixelClasses(("a", "b"), ids)
    found = LabelMap("x", classes, np.array([[0, 1], [1, 1]], np.uint8), np.ones(2, np.float32))
    label_image(found).save(tmp_path / "x.png")
    save_class_list(classes, tmp_path / "classes.json")
    with Image.open(tmp_path / "x.png") as mask:
        assert mask.mode == mode
        assert np.asarray(mask).tolist() == [[stored[0], stored[1]], [stored[1], stored[1]]]
    rows = json.loads((tmp_path / "classes.json").read_text())
    assert [(row["index"], tuple(row["color"])) for row in rows] == [(stored[0], colour(0)), (stored[1], colour(1))]


@pytest.mark.usefixtures("sharing")
def test_panoptic_detectors_write_cocos_files(cli: Callable[..., Outcome], pictures: Path, tmp_path: Path) -> None:
    good = [pictures / "a.png", pictures / "b.png", pictures / "sub"]
    outcome = cli("predict", "model", *good, "--masks", tmp_path / "masks", "--draw", tmp_path / "drawn")
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines()[0] == f"{pictures / 'a.png'}: 1 cat, sea"
    files = PanopticFiles.read(tmp_path / "masks" / "panoptic.json")
    assert files.classes == PANOPTIC.classes._replace(colours=(colour(0), colour(1), colour(2)))
    found_files = sorted(file.relative_to(files.folder).as_posix() for file in files.folder.rglob("*.png"))
    assert found_files == ["a.png", "b.png", "sub/a.png"]
    for number, (name, size) in enumerate((("a.png", (40, 64)), ("b.png", (40, 64)), ("sub/a.png", (64, 40))), 1):
        found = files.load(number)
        assert (found.name, found.ids.shape) == (str(pictures / name), size)
        assert [(one.label, one.area) for one in found.segments] == [(0, 640), (2, 1920)]
    assert len(list((tmp_path / "drawn").rglob("*.jpg"))) == 3
    samples = open_split(tmp_path / "masks" / "panoptic.json", "all", task="panoptic").samples
    assert isinstance(samples, PanopticSamples)
    assert np.array_equal(samples.truth(2).ids, files.load(3).ids)
    assert samples.decode(2).size == (40, 64)
    told = json.loads(cli("predict", "model", good[0], "--json").out)
    assert [(one["label"], one["category_id"], one["thing"]) for one in told["segments"]] == [
        ("cat", 17, True), ("sea", 155, False),
    ]  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(cli("predict", "model", good[0], "--csv").out)))
    assert [(row["label"], row["area"], row["width"]) for row in rows] == [("cat", "640", "16"), ("sea", "1920", "48")]
    outcome = cli("predict", "model", good[0], "--coco", tmp_path / "x.json")
    assert (
        "--coco is for detectors and keypoint models, and this model is a panoptic detector: leave it out"
        in outcome.err
    )


VIEWS: dict[str, tuple[str | None, bool, Views | Views | None]] = {
    "one look": (None, False, None),
    "mirrored": (None, True, Views(flip=True)),
    "pixels": ("640, 800", False, Views((640, 800))),
    "factors": ("0.5,1,1.75", True, Views((0.5, 1.0, 1.75), flip=True)),
}


@pytest.mark.parametrize(("scales", "flip", "expected"), VIEWS.values(), ids=VIEWS)
def test_scales_are_pixels_or_factors(scales: str | None, flip: bool, expected: Views | Views | None) -> None:
    assert _views(scales, flip) == expected


@pytest.mark.parametrize("scales", ["", "640,0.5", "0", "-1", "640.5", "9999", "nan", "inf", "0.5,"])
def test_other_scales_are_refused(scales: str) -> None:
    with pytest.raises(ResnestError, match=f"--scales {re.escape(scales)}: expected pixels of the short side"):
        _views(scales, False)


@pytest.mark.parametrize(
    ("views", "task", "expected"),
    [
        (Views(flip=True), "segmentation", ""),
        (Views((0.5, 1)), "segmentation", ""),
        (Views(flip=True), "detection", ""),
        (Views((640,)), "detection", ""),
        (Views((640,)), "segmentation", "factors of its own size, such as"),
        (Views((0.5, 1)), "detection", "pixels of the short side, such as"),
        (Views(flip=True), "classification", "are for detectors and segmenters, and this is a classifier"),
        (Views(flip=True), "panoptic", "a panoptic detector looks at one view"),
    ],
)
def test_views_are_for_their_task(views: Views, task: str, expected: str) -> None:
    if expected:
        with pytest.raises(ResnestError, match=expected):
            task_info(task).check_views(views)
    else:
        task_info(task).check_views(views)

"""The reports of segmenters and panoptic detectors: they agree with their input, and no input can break them."""

from __future__ import annotations

import dataclasses
import io
import re
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resnest.report import (
    Comparison,
    PanopticClass,
    PanopticMiss,
    PanopticReport,
    SegmentationReport,
    write_panoptic_report,
    write_segmentation_report,
)
from resnest.report.confusion import confusion_view
from resnest.runtime.label_map import LabelMap, PixelClasses
from resnest.runtime.panoptic_map import PanopticClasses, PanopticMap, Segment
from test_report import HOSTILE, NAN, Page, read_page, train

CLASSES = PixelClasses(
    ("road", "sky", "pole", "bus"), (0, 1, 2, 3), ((128, 64, 128), (70, 130, 180), (0, 0, 0), (9, 9, 9))
)
CONFUSION = np.array([[600, 0, 0, 0], [100, 199, 1, 0], [30, 10, 60, 0], [0, 0, 0, 0]])
IOU = (600 / 730, 199 / 310, 60 / 101, NAN)
FIGURES = {"miou": 0.685, "pixel_accuracy": 0.859, "mean_accuracy": 0.754}
PANOPTIC = {
    "pq": 0.4, "sq": 0.8, "rq": 0.5, "pq_things": 0.3, "sq_things": 0.75, "rq_things": 0.4,
    "pq_stuff": NAN, "sq_stuff": NAN, "rq_stuff": NAN,
}  # fmt: skip


def _labels(labels: np.ndarray, classes: PixelClasses = CLASSES) -> LabelMap:
    return LabelMap("x", classes, labels.astype(np.uint8), np.ones(len(classes.names), np.float32))


def _comparison(**changes: Any) -> Comparison:
    """Thirty pixels do not count, ten are taken for sky, which is wrong."""
    truth, found = np.zeros((10, 20)), np.zeros((10, 20))
    truth[:3, :10] = 255
    found[5, 5:15] = 1
    image = Image.new("RGB", (20, 10), (90, 90, 90))
    one = Comparison(image=image, name="val/1.png", truth=_labels(truth), found=_labels(found))
    return dataclasses.replace(one, **changes)


def _evaluation(step: int, **figures: float) -> dict[str, Any]:
    return {"kind": "eval", "step": step, "epoch": step / 10, **figures}


def _report(**changes: Any) -> SegmentationReport:
    metrics = [
        train(5, 1.2),
        *(_evaluation(k, miou=m, pixel_accuracy=0.9) for k, m in ((10, 0.3), (20, 0.5), (30, 0.4))),
    ]
    report = SegmentationReport(
        title="streets",
        metrics=metrics,
        figures=FIGURES,
        classes=CLASSES,
        confusion=CONFUSION,
        class_iou=IOU,
        images=50,
        worst=[_comparison()],
        worst_iou=[0.474],
        facts={"Network": "resnest50"},
        recipe="epochs: 2\n",
    )
    return dataclasses.replace(report, **changes)


Render = Callable[..., Page]


@pytest.fixture
def render(tmp_path: Path) -> Render:
    def run(**changes: Any) -> Page:
        write_segmentation_report(tmp_path / "report.html", _report(**changes))
        page = read_page(tmp_path / "report.html")
        assert "nan" not in page.text.lower().split()
        return page

    return run


def test_numbers_agree_with_the_input(render: Render) -> None:
    page = render(bad_images=1)
    for text in (
        "68.5 % Mean IoU, epoch 2 of 3 on 50 pictures 85.9 % Pixel accuracy mean of classes 75.4 %",
        "1 image was skipped",
        "mIoU mIoU, % pixels, %",
        "pole 10.0 % 59.4 % 60.0 % 98.4 % sky 30.0 % 64.2 % 66.3 % 95.2 % road 60.0 % 82.2 % 100.0 % 82.2 %",
        "bus 0.0 % - - -",
        "1 class has no pixels.",
        "Cells hold percent of the row.",
        "sky 33 66 0 0",  # of 300 pixels of sky, 100, 199 and 1
        "road sky",  # the colours that the pictures have
        "IoU 47.4 % 5.9 % of the pixels wrong most often road taken for sky",  # ten of 170 that count
    ):
        assert text in page.text, text
    assert (page.count("svg"), page.count("img"), page.count("script")) == (3, 3, 0)


def test_pictures_lie_beside_their_truth(render: Render) -> None:
    page = render()
    picture, truth, found = (
        np.asarray(Image.open(io.BytesIO(b64decode(data))), int)
        for data in re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', page.source)
    )
    assert picture.shape == truth.shape == found.shape == (10, 20, 3)
    assert np.ptp(picture) < 8
    assert truth[9, 10, 0] > picture[9, 10, 0]  # the red of roads
    assert found[5, 10, 2] > truth[5, 10, 2]  # the blue of the sky
    assert truth[0, 3, 0] < picture[0, 3, 0]  # what does not count is darker


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"metrics": [], "figures": {}}, "No evaluation yet."),
        ({"metrics": []}, "68.5 % Mean IoU on 50 pictures"),
        ({"figures": {}}, "50.0 % Mean IoU, epoch 2 of 3"),
        ({"worst": [], "worst_iou": [], "confusion": np.diag([9, 9, 9, 9])}, "No mistakes on 50 images."),
        ({"worst": [], "worst_iou": [], "confusion": np.zeros((4, 4), int), "images": 0}, "No image was evaluated."),
        ({"worst": [], "worst_iou": []}, "No picture was kept."),
        ({"worst": [_comparison(found=_labels(np.zeros((10, 20))))]}, "IoU 47.4 % 0.0 % of the pixels wrong"),
        ({"worst": [_comparison(truth=_labels(np.full((10, 20), 255)))]}, "IoU 47.4 % 0.0 % of the pixels wrong"),
    ],
)
def test_unusual_inputs(render: Render, changes: dict[str, Any], expected: str) -> None:
    assert expected in render(**changes).text


def test_many_classes_are_told_in_pairs(render: Render) -> None:
    names = tuple(f"class {k}" for k in range(170))
    confusion = np.diag(np.arange(170)) * 10
    confusion[40, 41] = 7
    classes = PixelClasses(names, tuple(range(170)))
    page = render(classes=classes, confusion=confusion, class_iou=np.ones(170), worst=[], worst_iou=[])
    assert "The 1 most frequent pair, with the share of the true class's pixels." in page.text
    assert "Truth Predicted Pixels Share class 40 class 41 7 1.7 %" in page.text
    assert "160 of 170 classes are shown, 10 are left out." in page.text


def test_cells_never_say_all_of_what_is_not(render: Render) -> None:
    _, table = confusion_view(np.array([[9999, 1], [0, 5]]), ("a", "b"), counted="pixels")
    assert [cell for cell in re.findall(r">(\d+)</td>", table)] == ["99", "0", "0", "100"]


def test_hostile_names_stay_text(render: Render) -> None:
    classes = PixelClasses((HOSTILE, "{0}", "b", "c"), (0, 1, 2, 3))
    truth, found = _labels(np.zeros((10, 20)), classes), _labels(np.ones((10, 20)), classes)
    page = render(title=HOSTILE, classes=classes, worst=[_comparison(name=HOSTILE, truth=truth, found=found)])
    assert page.count("script") == 0
    assert page.text.count(HOSTILE) >= 5


def _panoptic(ids: np.ndarray, labels: dict[int, int]) -> PanopticMap:
    classes = PanopticClasses(("cat", "sky"), (17, 187), 1)
    segments = [Segment(id, label, 1.0, int((ids == id).sum()), (0, 0, 1, 1)) for id, label in labels.items()]
    return PanopticMap("x", classes, ids.astype(np.int32), tuple(segments))


@pytest.mark.parametrize("evaluated", [True, False])
def test_the_panoptic_page(tmp_path: Path, evaluated: bool) -> None:
    ids = np.ones((10, 20))
    ids[:, :5], ids[:, 15:] = 2, 0
    regions = _comparison(truth=_panoptic(ids, {1: 1, 2: 0}), found=_panoptic(np.zeros((10, 20)), {}))
    report = PanopticReport(
        title="rooms",
        metrics=[_evaluation(10, pq=0.2, rq=0.3), _evaluation(20, pq=0.4, rq=0.5)] if evaluated else [],
        figures=PANOPTIC if evaluated else {},
        classes=[
            PanopticClass(name="cat", thing=True, colour=(1, 2, 3), segments=12, pq=0.3, sq=0.75, rq=0.4),
            PanopticClass(name=HOSTILE, thing=False, colour=(9, 9, 9), segments=0, pq=NAN, sq=NAN, rq=NAN),
        ],
        images=3 if evaluated else 0,
        misses=[PanopticMiss(regions=regions, pq=0.0, missed=2, false=1)] if evaluated else [],
        facts={},
        recipe="",
    )
    write_panoptic_report(tmp_path / "report.html", report)
    page = read_page(tmp_path / "report.html")
    assert "nan" not in page.text.lower().split()
    assert page.count("script") == 0
    for text in (
        [
            "40.0 % Panoptic quality, epoch 2 of 2 things 30.0 %, stuff - on 3 pictures",
            "Figure All Things Stuff What it is PQ 40.0 % 30.0 % - panoptic quality",
            "cat thing 12 30.0 % 75.0 % 40.0 %",
            f"{HOSTILE} stuff 0 - - -",
            "PQ 0.0 % 2 missed, 1 false segment val/1.png",
        ]
        if evaluated
        else ["No evaluation yet.", "No image was evaluated."]
    ):
        assert text in page.text, text

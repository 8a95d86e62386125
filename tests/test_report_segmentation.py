"""The reports of segmenters and panoptic detectors: they agree with their input, and no input can break them."""

from __future__ import annotations

import io
import re
from base64 import b64decode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resnest.panoptic.evaluation import PanopticEvaluation
from resnest.panoptic.report import panoptic_report
from resnest.panoptic.result import PanopticClasses, PanopticMap, Segment
from resnest.report.confusions import Confusions, confusion_section
from resnest.segmentation.evaluation import PixelEvaluation
from resnest.segmentation.report import segmentation_report
from resnest.segmentation.result import LabelMap, PixelClasses
from test_report import HOSTILE, NAN, Page, Pictures, run_log, train, write

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


TRUTH, FOUND = np.zeros((10, 20), np.uint8), np.zeros((10, 20), np.uint8)
TRUTH[:3, :10] = 255  # thirty pixels do not count
FOUND[5, 5:15] = 1  # ten are taken for sky, which is wrong
GREY = Image.new("RGB", (20, 10), (90, 90, 90))


@dataclass
class Masks(Pictures):
    """What the page reads of pictures with masks, or with segments: the same truth for all of them."""

    classes: Any = CLASSES
    answer: Any = None

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.classes.names

    def pair(self, index: int) -> tuple[Image.Image, Any]:
        return self.image, self.answer

    def truth(self, index: int) -> Any:
        return self.answer


def _evaluation(step: int, **figures: float) -> dict[str, Any]:
    return {"kind": "eval", "step": step, "epoch": step / 10, **figures}


LINES = (
    train(5, 1.2),
    *(_evaluation(k, miou=m, pixel_accuracy=0.9) for k, m in ((10, 0.3), (20, 0.5), (30, 0.4))),
)
Render = Callable[..., Page]


@pytest.fixture
def render(tmp_path: Path) -> Render:
    def run(
        *,
        figures: dict[str, float] = FIGURES,
        classes: PixelClasses = CLASSES,
        confusion: np.ndarray = CONFUSION,
        class_iou: Sequence[float] = IOU,
        images: int = 50,
        truth: np.ndarray = TRUTH,
        found: np.ndarray | None = FOUND,
        name: str = "val/1.png",
        **log: Any,
    ) -> Page:
        """The first picture has an IoU of 47.4 %, the others are without a mistake."""
        ones = np.ones(len(classes.names), np.float32)
        evaluation = PixelEvaluation(
            figures=figures,
            class_names=classes.names,
            indices=np.arange(images),
            confusion=confusion,
            class_iou=np.array(class_iou),
            image_iou=np.array([0.474, *np.ones(49)])[:images],
            image_overlap=np.zeros((images, 2, 3), np.int64),
            worst_maps={} if found is None else {0: LabelMap("x", classes, found, ones)},
        )
        samples = Masks([name] * images, GREY, classes, truth)
        page = write(
            tmp_path / "report.html",
            run_log(**{"metrics": LINES, **log}),
            "miou",
            lambda history: segmentation_report(evaluation, samples, history),
        )
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
        ({"found": None, "confusion": np.diag([9, 9, 9, 9])}, "No mistakes on 50 images."),
        ({"found": None, "confusion": np.zeros((4, 4), int), "images": 0}, "No image was evaluated."),
        ({"found": None}, "No picture was kept."),
        ({"found": np.zeros((10, 20), np.uint8)}, "IoU 47.4 % 0.0 % of the pixels wrong"),
        ({"truth": np.full((10, 20), 255, np.uint8)}, "IoU 47.4 % 0.0 % of the pixels wrong"),
    ],
)
def test_unusual_inputs(render: Render, changes: dict[str, Any], expected: str) -> None:
    assert expected in render(**changes).text


def test_many_classes_are_told_in_pairs(render: Render) -> None:
    names = tuple(f"class {k}" for k in range(170))
    confusion = np.diag(np.arange(170)) * 10
    confusion[40, 41] = 7
    classes = PixelClasses(names, tuple(range(170)))
    page = render(classes=classes, confusion=confusion, class_iou=np.ones(170), found=None)
    assert "The 1 most frequent pair, with the share of the true class's pixels." in page.text
    assert "Truth Predicted Pixels Share class 40 class 41 7 1.7 %" in page.text
    assert "160 of 170 classes are shown, 10 are left out." in page.text


def test_cells_never_say_all_of_what_is_not(render: Render) -> None:
    table = confusion_section(Confusions.of_matrix(np.array([[9999, 1], [0, 5]])), ("a", "b"), counted="pixels").body
    assert [cell for cell in re.findall(r">(\d+)</td>", table)] == ["99", "0", "0", "100"]


def test_hostile_names_stay_text(render: Render) -> None:
    classes = PixelClasses((HOSTILE, "{0}", "b", "c"), (0, 1, 2, 3))
    page = render(title=HOSTILE, classes=classes, name=HOSTILE, truth=np.zeros_like(TRUTH), found=np.ones_like(FOUND))
    assert page.count("script") == 0
    assert page.text.count(HOSTILE) >= 5


PANOPTIC_CLASSES = PanopticClasses(("cat", HOSTILE), (17, 187), 1)


def _panoptic(ids: np.ndarray, labels: dict[int, int]) -> PanopticMap:
    segments = [Segment(id, label, 1.0, int((ids == id).sum()), (0, 0, 1, 1)) for id, label in labels.items()]
    return PanopticMap("x", PANOPTIC_CLASSES, ids.astype(np.int32), tuple(segments))


@pytest.mark.parametrize("evaluated", [True, False])
def test_the_panoptic_page(tmp_path: Path, evaluated: bool) -> None:
    ids = np.ones((10, 20))
    ids[:, :5], ids[:, 15:] = 2, 0
    images = 3 if evaluated else 0
    evaluation = PanopticEvaluation(
        figures=PANOPTIC if evaluated else {},
        class_names=PANOPTIC_CLASSES.names,
        indices=np.arange(images),
        class_pq=np.array([0.3, NAN]),
        class_sq=np.array([0.75, NAN]),
        class_rq=np.array([0.4, NAN]),
        segments=np.array([12, 0]),
        things=1,
        image_pq=np.array([0.0, 1, 1])[:images],
        image_counts=np.zeros((images, 2, 2)),
        worst_maps={0: _panoptic(np.full((10, 20), 7), {7: 0})} if evaluated else {},
    )
    samples = Masks(["val/1.png"] * images, GREY, PANOPTIC_CLASSES, _panoptic(ids, {1: 1, 2: 0}))
    lines = [_evaluation(10, pq=0.2, rq=0.3), _evaluation(20, pq=0.4, rq=0.5)] if evaluated else []
    page = write(
        tmp_path / "report.html",
        run_log(metrics=lines, facts={}, recipe=""),
        "pq",
        lambda history: panoptic_report(evaluation, samples, history),
    )
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

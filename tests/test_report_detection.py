"""The report of a detector: it agrees with its input, needs nothing else, and no input can break it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resnest.report import DetectionClass, DetectionReport, Mark, Miss, write_detection_report
from test_report import HOSTILE, NAN, Page, read_page, train

CURVE = [*np.linspace(1, 0.6, 80), *np.zeros(21)]
MARKS = (
    Mark(box=(10.5, 20, 30, 60), kind="missed", text="cat"),
    Mark(box=(0, 0, 100, 80), kind="false", text="dog 91 %"),
    Mark(box=(5, 5, 9, 9), kind="false", text="cat 60 %"),
)
KEYS = ("ap", "ap50", "ap75", "aps", "apm", "apl", "ar1", "ar10", "ar100", "ars", "arm", "arl")
SHARES = (0.4, 0.7, 0.45, -1, 0.35, 0.5, 0.3, 0.5, 0.55, -1, 0.5, 0.6)
BOX = {f"box_{key}": share for key, share in zip(KEYS, SHARES, strict=True)}


def _miss(**changes: Any) -> Miss:
    image = Image.fromarray(np.full((80, 100, 3), 200, np.uint8))
    return dataclasses.replace(Miss(image=image, name="val/1.jpg", marks=MARKS, caption="7 found"), **changes)


def _evaluation(step: int, box_ap: float, **more: float) -> dict[str, Any]:
    return {"kind": "eval", "step": step, "epoch": step / 10, "box_ap": box_ap, "box_ap50": box_ap + 0.3, **more}


def _class(name: str, objects: int, ap: float, **more: Any) -> DetectionClass:
    return DetectionClass(name=name, objects=objects, box_ap=ap, box_ap50=ap + 0.3, **more)


def _report(**changes: Any) -> DetectionReport:
    report = DetectionReport(
        title="cells",
        metrics=[train(5, 1.2), _evaluation(10, 0.3), train(15, 0.6), _evaluation(20, 0.4), _evaluation(30, 0.38)],
        figures=BOX,
        classes=[
            _class("cat", 40, 0.5, precision=CURVE),
            _class("dog", 10, 0.3, precision=CURVE[::-1]),
            _class("emu", 0, NAN),
        ],
        images=50,
        misses=[_miss(), _miss(marks=MARKS[:1], caption="")],
        facts={"Network": "resnest50"},
        recipe="epochs: 2\n",
    )
    return dataclasses.replace(report, **changes)


MASKS = {
    "figures": BOX | {key.replace("box", "mask"): share / 2 for key, share in BOX.items()},
    "metrics": [train(5, 1.2), _evaluation(10, 0.3, mask_ap=0.2, mask_ap50=0.35)],
    "classes": [_class("cat", 40, 0.5, mask_ap=0.25, mask_ap50=0.4)],
}


@pytest.fixture
def render(tmp_path: Path):
    def run(**changes: Any) -> Page:
        write_detection_report(tmp_path / "report.html", _report(**changes))
        page = read_page(tmp_path / "report.html")
        assert "nan" not in page.text.lower().split()
        return page

    return run


def test_numbers_agree_with_the_input(render) -> None:
    figures = {key.replace("ar100", "ar400"): share for key, share in BOX.items()}  # as the metrics name them
    page = render(bad_images=2, figures=figures, max_detections=400)
    for text in (
        "40.0 % Box AP, epoch 2 of 3 AP50 70.0 %, AP75 45.0 % on 50 images",
        "2 images were skipped",
        "Loss training",  # a detector has no validation loss
        "Box AP AP, % AP50, %",
        "AP 40.0 % average precision, mean over overlaps (IoU) of 0.50, 0.55, ... 0.95",
        "AP small - objects of less than 32 x 32 pixels",
        "AR 400 55.0 % with 400",
        "dog 10 30.0 % 60.0 % cat 40 50.0 % 80.0 % emu 0 - -",  # the worst first, without objects last
        "1 class has no objects.",
        "mean cat dog",
        "The 2 pictures with the most errors.",
        "1 missed, 2 false alarms 7 found val/1.jpg",
        "1 missed val/1.jpg",
    ):
        assert text in page.text, text
    assert "Mask" not in page.text
    # three curves, precision over recall, two pictures with frames
    assert (page.count("svg"), page.count("img"), page.count("script")) == (6, 2, 0)


def test_frames_lie_where_the_objects_are(render) -> None:
    page = render(misses=[_miss()])
    frames = re.findall(r'<g class="(\w+)"><title>\w+: ([^<]*)</title><rect x="([^"]*)" y="([^"]*)" width="([^"]*)"',
                        page.source)  # fmt: skip
    assert frames == [  # the largest first, so that the others lie above it
        ("false", "dog 91 %", "0", "0", "100"),
        ("missed", "cat", "10.5", "20", "19.5"),
        ("false", "cat 60 %", "5", "5", "4"),
    ]
    assert 'viewBox="0 0 100 80"' in page.source


def test_masks_have_figures_of_their_own(render) -> None:
    page = render(**MASKS)
    for text in (
        "Instance segmentation",
        "40.0 % Box AP, epoch 1 of 1 AP50 70.0 %, AP75 45.0 % on 50 images 20.0 % Mask AP AP50 35.0 %, AP75 22.5 %",
        "Figure Boxes Masks What it is AP 40.0 % 20.0 %",
        "AR 100 55.0 % 27.5 % with 100",
        "cat 40 50.0 % 80.0 % 25.0 % 40.0 %",
        "Mask AP AP, % AP50, %",
    ):
        assert text in page.text, text
    assert page.count("svg") == 6  # four curves and two pictures
    ids = re.findall(r' id="([^"]*)"', page.source)
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"metrics": [], "figures": {}}, "No evaluation yet."),
        ({"metrics": []}, "40.0 % Box AP AP50 70.0 %"),
        ({"figures": {}}, "40.0 % Box AP, epoch 2 of 3 AP50 70.0 %, AP75 -"),
        ({"misses": []}, "No mistakes on 50 images."),
        ({"misses": [], "images": 0}, "No image was evaluated."),
        ({"misses": [_miss(marks=())]}, "7 found val/1.jpg"),
        ({"misses": [_miss(marks=[Mark(box=(NAN, 0, 5, 5), kind="false")])]}, "1 false alarm 7 found"),
        ({"classes": []}, "Lowest box AP first."),
        ({"classes": [_class("cat", 4, 0.2)] * 130}, "100 of 130 classes are shown, 30 are left out."),
        ({"classes": [_class("cat", 4, 0.2, precision=CURVE)] * 11}, "The mean of 11 classes."),
        ({"classes": [_class("cat", 4, 0.0, precision=[-1.0, NAN] * 50)]}, "cat 4 0.0 %"),
    ],
)
def test_unusual_inputs(render, changes: dict[str, Any], expected: str) -> None:
    assert expected in render(**changes).text


def test_hostile_names_stay_text(render) -> None:
    mark = Mark(box=(0, 0, 5, 5), kind="false", text=HOSTILE)
    page = render(
        title=HOSTILE,
        classes=[_class(HOSTILE + "{0}", 3, 0.5, precision=CURVE)],
        misses=[_miss(name=HOSTILE, caption=HOSTILE, marks=[mark])],
    )
    assert page.count("script") == 0
    assert page.text.count(HOSTILE) >= 5


def test_lines_follow_the_page(render) -> None:
    """No colour is fixed in a plot: dark mode would not reach it."""
    plots = re.findall(r"<svg xmlns.*?</svg>", render().source, re.DOTALL)
    assert len(plots) == 4
    assert "var(--line-1)" in plots[3]
    for plot in plots:
        assert not re.search(r"#[0-9a-f]{6}", plot.replace("href=", ""))

"""The report of a multi-label run: it agrees with its input, needs nothing else, and no input can break it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resnest.report import ClassRow, LabelMistake, MultiLabelReport, write_multi_label_report
from test_report import HOSTILE, NAN, Page, read_page, train

IMAGE = Image.fromarray(np.full((9, 8, 3), 200, np.uint8))


def _mistake(**changes: Any) -> LabelMistake:
    mistake = LabelMistake(
        image=IMAGE, name="val/1.jpg", wrong=[("dog", 0.9)], missed=[("cat", 0.05)], right=["sofa", "rug"]
    )
    return dataclasses.replace(mistake, **changes)


def _evaluation(step: int, map: float) -> dict[str, Any]:
    return {"kind": "eval", "step": step, "epoch": step / 10, "map": map, "f1_micro": map - 0.1, "loss": 0.3}


def _report(**changes: Any) -> MultiLabelReport:
    rows = [("cat", 40, 0.9, 0.8, 0.7), ("dog", 10, 0.5, 0.25, NAN), ("emu", 0, NAN, NAN, 0.0)]
    report = MultiLabelReport(
        title="rooms",
        metrics=[train(5, 1.2), _evaluation(10, 0.6), train(15, 0.6), _evaluation(20, 0.7), _evaluation(30, 0.65)],
        figures={"map": 0.7, "f1_micro": 0.61, "f1_macro": 0.52},
        classes=[
            ClassRow(name=name, images=images, average_precision=area, recall=recall, precision=precision)
            for name, images, area, recall, precision in rows
        ],
        images=50,
        errors=12,
        mistakes=[_mistake(), _mistake(wrong=[], right=[])],
        facts={"Network": "resnest50"},
        recipe="epochs: 2\n",
    )
    return dataclasses.replace(report, **changes)


@pytest.fixture
def render(tmp_path: Path):
    def run(**changes: Any) -> Page:
        write_multi_label_report(tmp_path / "report.html", _report(**changes))
        page = read_page(tmp_path / "report.html")
        assert "nan" not in page.text.lower().split()
        return page

    return run


def test_numbers_agree_with_the_input(render) -> None:
    page = render(bad_images=2)
    for text in (
        "70.0 % Mean average precision, epoch 2 of 3 F1 61.0 % of all labels, 52.0 % mean of classes",
        "2 images were skipped",
        "dog 10 50.0 % 25.0 % - cat 40 90.0 % 80.0 % 70.0 % emu 0 - - 0.0 %",  # the worst first, without images last
        "1 class has no images.",
        "12 images of 50 with a wrong or a missing label. Here are the 2 with the highest loss.",
        "dog 90.0 % misses cat 5.0 % right: sofa, rug",
    ):
        assert text in page.text, text
    assert (page.count("svg"), page.count("img"), page.count("script")) == (3, 2, 0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"metrics": [], "figures": {}}, "No evaluation yet."),
        ({"metrics": []}, "70.0 % Mean average precision F1"),
        ({"mistakes": [], "errors": 0}, "No mistakes on 50 images."),
        ({"mistakes": [], "errors": 0, "images": 0}, "No image was evaluated."),
        ({"mistakes": []}, "No picture was kept."),
        ({"classes": []}, "Lowest average precision first."),
        ({"classes": [_report().classes[0]] * 130}, "100 of 130 classes are shown, 30 are left out."),
        ({"mistakes": [_mistake(wrong=[(f"c{k}", 0.9) for k in range(9)])]}, "c2 90.0 % and 6 more wrong misses cat"),
    ],
)
def test_unusual_inputs(render, changes: dict[str, Any], expected: str) -> None:
    assert expected in render(**changes).text


def test_hostile_names_stay_text(render) -> None:
    row = dataclasses.replace(_report().classes[0], name=HOSTILE + "{0}")
    page = render(
        title=HOSTILE,
        classes=[row],
        mistakes=[_mistake(name=HOSTILE, wrong=[(HOSTILE + "{1}", 0.5)], missed=[(HOSTILE, 0.1)], right=[HOSTILE])],
    )
    assert page.count("script") == 0
    assert page.text.count(HOSTILE) >= 6

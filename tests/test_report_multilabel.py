"""The report of a multi-label run: it agrees with its input, needs nothing else, and no input can break it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resnest.classification.evaluation import MultiLabelEvaluation
from resnest.classification.report import multi_label_report
from test_report import HOSTILE, NAN, Page, Pictures, run_log, train, write

NAMES = ("cat", "dog", "emu", "sofa", "rug")


def _evaluation(step: int, map: float) -> dict[str, Any]:
    return {"kind": "eval", "step": step, "epoch": step / 10, "map": map, "f1_micro": map - 0.1, "loss": 0.3}


LINES = (train(5, 1.2), _evaluation(10, 0.6), train(15, 0.6), _evaluation(20, 0.7), _evaluation(30, 0.65))
FIGURES = {"map": 0.7, "f1_micro": 0.61, "f1_macro": 0.52}


def _labelled(
    *, names: Sequence[str] = NAMES, figures: dict[str, float] = FIGURES, areas: Sequence[float] | None = None,
    images: int = 50, wrong: int = 12,
) -> MultiLabelEvaluation:  # fmt: skip
    """Images of a cat, a sofa and a rug, in the first of which a dog is found and no cat; no emu is ever found."""
    labels = np.zeros((images, len(names)), bool)
    labels[:, [0, 3, 4]] = True
    scores = np.where(labels, np.linspace(0.95, 0.9, len(names)), 0.1).astype(np.float32)
    scores[:wrong, :2] = 0.05, 0.9
    return MultiLabelEvaluation(
        figures=figures,
        class_names=tuple(names),
        indices=np.arange(images),
        labels=labels,
        scores=scores,
        losses=np.linspace(1, 0, images),
        areas=np.array(areas if areas is not None else (0.9, 0.5, NAN, 0.8, 0.85)),
    )


@pytest.fixture
def render(tmp_path: Path):
    def run(evaluation: MultiLabelEvaluation | None = None, *, keys: Sequence[str] | None = None, **log: Any) -> Page:
        result = evaluation or _labelled()
        pictures = Pictures(keys or [f"val/{index + 1}.jpg" for index in range(result.count)])
        page = write(
            tmp_path / "report.html",
            run_log(**{"metrics": LINES, **log}),
            "map",
            lambda history: multi_label_report(result, pictures, history),
        )
        assert "nan" not in page.text.lower().split()
        return page

    return run


def test_numbers_agree_with_the_input(render) -> None:
    page = render(bad_images=2)
    for text in (
        "70.0 % Mean average precision, epoch 2 of 3 F1 61.0 % of all labels, 52.0 % mean of classes",
        "2 images were skipped",
        # the worst first, without images last: images, average precision, recall and precision of the labels given
        "dog 0 50.0 % - 0.0 % sofa 50 80.0 % 100.0 % 100.0 % rug 50 85.0 % 100.0 % 100.0 % cat 50 90.0 % 76.0 % 100.0 %"
        " emu 0 - - -",
        "2 classes have no images.",
        "12 images of 50 with a wrong or a missing label. Here are the 12 with the highest loss.",
        "dog 90.0 % misses cat 5.0 % right: sofa, rug val/1.jpg",
    ):
        assert text in page.text, text
    assert (page.count("svg"), page.count("img"), page.count("script")) == (3, 12, 0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"metrics": [], "evaluation": _labelled(figures={})}, "No evaluation yet."),
        ({"metrics": []}, "70.0 % Mean average precision F1"),
        ({"evaluation": _labelled(wrong=0)}, "No mistakes on 50 images."),
        ({"evaluation": _labelled(images=0)}, "No image was evaluated."),
        ({"evaluation": _labelled(names=["c"] * 130, areas=[0.9] * 130)}, "100 of 130 classes are shown, 30 are left"),
    ],
)
def test_unusual_inputs(render, changes: dict[str, Any], expected: str) -> None:
    assert expected in render(**changes).text


def test_many_wrong_labels_are_counted(render) -> None:
    evaluation = _labelled(names=[f"c{k}" for k in range(12)], areas=[0.9] * 12)
    evaluation.scores[0, 5:] = 0.9
    text = render(evaluation).text
    assert "Lowest average precision first." in text
    assert "c5 90.0 % c6 90.0 % and 5 more wrong misses c0" in text


def test_hostile_names_stay_text(render) -> None:
    evaluation = _labelled(names=[HOSTILE + "{0}", HOSTILE + "{1}", "c", HOSTILE, "e"], wrong=1)
    page = render(evaluation, title=HOSTILE, keys=[HOSTILE] * 50)
    assert page.count("script") == 0
    assert page.text.count(HOSTILE) >= 6

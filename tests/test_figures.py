"""Each task's table of figures names what its metrics compute, and nothing twice."""

from __future__ import annotations

import math

import numpy as np
import pytest

from resnest.classification import evaluation
from resnest.classification.metrics import ClassificationMetrics, MultiLabelMetrics
from resnest.detection import evaluation as detection_outcome
from resnest.figures import Figure, percent
from resnest.panoptic import evaluation as panoptic_outcome
from resnest.panoptic.metrics import PanopticMetrics
from resnest.segmentation import evaluation as pixel_outcome
from resnest.segmentation.metrics import PixelMetrics


def _computed(task: str) -> dict[str, float]:
    """What the metrics of a task give after one image."""
    if task == "segmentation":
        return PixelMetrics(3).compute()
    if task == "panoptic":
        return PanopticMetrics(3, 1).compute().figures
    metrics = MultiLabelMetrics(6) if task == "multi-label" else ClassificationMetrics(6)
    metrics.update(np.eye(6, dtype=np.float32), np.eye(6) if task == "multi-label" else np.arange(6))
    return metrics.compute()


@pytest.mark.parametrize(
    ("task", "table"),
    [
        ("classification", evaluation.FIGURES),
        ("multi-label", evaluation.MULTI_LABEL_FIGURES),
        ("segmentation", pixel_outcome.FIGURES),
        ("panoptic", panoptic_outcome.FIGURES),
    ],
)
def test_a_table_names_what_is_computed(task: str, table: tuple[Figure, ...]) -> None:
    assert [figure.key for figure in table] == list(_computed(task))
    assert len({figure.title for figure in table}) == len(table)
    assert [figure.key for figure in table if not figure.higher_is_better] == (
        ["loss"] if "classification" in task or task == "multi-label" else []
    )


@pytest.mark.parametrize(("most", "last"), [(100, "ar100"), (1200, "ar1200"), (10, "ar10")])
def test_figures_of_detectors_are_cocos(most: int, last: str) -> None:
    keys = dict.fromkeys(["ap", "ap50", "ap75", "aps", "apm", "apl", "ar1", "ar10", last, "ars", "arm", "arl"])
    table = detection_outcome.coco_figures("mask", most)
    assert [figure.key for figure in table] == [f"mask_{key}" for key in keys]
    assert [figure.title for figure in table if figure.key == f"mask_{last}"] == [f"mask AR {most:,}"]


def test_percent() -> None:
    assert [percent(fraction) for fraction in (0, 0.12345, 0.999999, 1, math.nan)] == [
        "0.00%", "12.35%", "100.00%", "100.00%", "-",
    ]  # fmt: skip
    assert [percent(fraction, 1, unit=" %", exact_ends=True) for fraction in (1e-9, 0.99999, 1)] == [
        "0.1 %", "99.9 %", "100.0 %",
    ]  # fmt: skip

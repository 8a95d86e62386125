"""LVIS's figures against the package `lvis`, on random federated sets, and its rules one by one (promise P7)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from conftest import FULL, shared_data
from federated_sets import FederatedSet, of_reference, random_set
from resnest.detection.card import Classes
from resnest.detection.data import Objects
from resnest.detection.lvis import LvisMetrics, best_of_classes
from resnest.detection.result import Detections

SETS = 200 if FULL else 8


@pytest.fixture(scope="module")
def lvis100() -> Path:
    file = shared_data() / "lvis100" / "lvis_val_100.json"
    if not file.is_file():
        pytest.skip(f"needs {file}")
    return file


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lvis", reason="the oracle: pip install --no-deps lvis==0.5.3")
    monkeypatch.setattr(np, "float", float, raising=False)  # 0.5.3 is of 2020; numpy 1.24 has removed that name


@pytest.mark.usefixtures("reference")
@pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated:DeprecationWarning")
@pytest.mark.parametrize("seed", range(SETS))
def test_a_random_set_is_equal_to_the_package_lvis(lvis100: Path, seed: int) -> None:
    made = random_set(lvis100, seed)
    assert max(map(len, made.found.values())) > 300
    ours = made.metrics().compute().figures
    for kind in ("box", "mask"):
        for key, value in of_reference(made, kind).items():
            assert ours[key] == pytest.approx(value, abs=1e-9, nan_ok=True), key
        # without a limit per image; no class has 10,000 detections
        fixed = of_reference(made, kind, most=100_000)[f"{kind}_ap"]
        assert ours[f"{kind}_ap_fixed"] == pytest.approx(fixed, abs=1e-9)
    assert ours["box_ap_fixed"] != ours["box_ap"]


# --- its rules, one by one: an image with objects of class 0, which lists 1 as absent; of 2 nothing is known ---

NAMES, FREQUENCY = ("here", "absent", "unknown"), ("r", "c", "f")


def detections(*rows: tuple[float, int, int]) -> Detections:
    """Score, class, and left end of boxes of 10 x 10 pixels."""
    boxes = np.array([[left, 0, left + 10, 10] for *_, left in rows], np.float32).reshape(-1, 4)
    scores, labels = (np.array([row[k] for row in rows]) for k in (0, 1))
    classes = Classes(NAMES, (1, 2, 3))
    return Detections("", 90, 90, classes, boxes, labels.astype(np.int64), scores.astype(np.float32))


def truth(partial: list[int]) -> Objects:
    return Objects(
        image_id=1,
        width=90,
        height=90,
        boxes=np.array([[0, 0, 10, 10], [20, 0, 30, 10]], np.float32),
        labels=np.zeros(2, np.int64),
        crowd=np.zeros(2, bool),
        areas=np.full(2, 100.0),
        segmentations=[None, None],
        ids=np.arange(2),
        negative=np.array([1]),
        partial=np.array(partial, np.int64),
    )


def figures(found: Detections, *, partial: list[int] | None = None, limit: int = 300) -> dict[str, float]:
    ours = LvisMetrics(NAMES, FREQUENCY, masks=False, limit=limit)
    ours.update(0, found, truth(partial or []))
    return ours.compute().figures


FOUND, FALSE = (0.5, 0, 0), (0.9, 0, 50)
HALF = 51 / 101  # one of two objects at precision 1: recalls 0.00 to 0.50


@pytest.mark.parametrize(
    ("rows", "partial", "ap"),
    [
        ([FOUND], [], HALF),
        ([FOUND, (0.9, 2, 50)], [], HALF),  # nothing is known of its class
        ([FOUND, (0.9, 1, 50)], [], HALF),  # of an absent class: no object, so no AP of its own
        ([FOUND, FALSE], [], HALF / 2),
        ([FOUND, FALSE], [0], HALF),  # not every object is annotated: an unmatched one does not count
        ([FOUND, (0.4, 0, 20)], [0], 1.0),  # and a matched one does
    ],
)
def test_a_rule(rows: list[tuple[float, int, int]], partial: list[int], ap: float) -> None:
    found = figures(detections(*rows), partial=partial)
    assert found["box_ap"] == found["box_apr"] == found["box_ap_fixed"] == pytest.approx(ap)
    assert math.isnan(found["box_apc"])
    assert math.isnan(found["box_apf"])


def test_a_false_detection_of_an_absent_class_costs_that_class_precision() -> None:
    """The image that shows it has it found; another one lists it as absent."""
    ours = LvisMetrics(NAMES, FREQUENCY, masks=False)
    shown = truth([])._replace(labels=np.ones(2, np.int64), negative=np.array([], np.int64))
    ours.update(0, detections((0.5, 1, 0), (0.4, 1, 20)), shown)
    assert ours.compute().figures["box_ap"] == pytest.approx(1)
    ours.update(1, detections((0.9, 1, 0), (0.9, 1, 20)), truth([]))
    assert ours.compute().figures["box_apc"] == pytest.approx(0.5)


def test_the_limit_is_per_image_over_all_classes() -> None:
    """Three better ones of a class that does not count push the found one out; COCO's limit per class would not."""
    rows = [(0.9, 2, 50), (0.9, 2, 60), (0.9, 2, 70), FOUND]
    assert figures(detections(*rows), limit=3)["box_ap"] == 0
    limited = figures(detections(*rows), limit=4)
    assert limited["box_ap"] == limited["box_ap_fixed"] == pytest.approx(HALF)
    assert figures(detections(*rows), limit=3)["box_ap_fixed"] == pytest.approx(HALF)


def test_the_best_of_each_class_over_all_images() -> None:
    images = {
        2: (detections((0.9, 0, 0), (0.5, 1, 0)), truth([])),
        5: (detections((0.9, 0, 10), (0.8, 0, 20)), truth([])),
        7: (detections(), truth([])),
    }
    kept = best_of_classes(images, 1)
    assert [found.boxes[:, 0].tolist() for found, _ in kept.values()] == [[0, 0], [], []]  # of equal ones the first


def test_parts_of_the_images_make_the_same_figures(lvis100: Path) -> None:
    """Each of several processes has some of the images (promise P7)."""
    whole = random_set(lvis100, 0).metrics()
    parts = [LvisMetrics(whole.class_names, whole.frequency.tolist(), masks=True) for _ in range(3)]
    for number in sorted(whole.images, reverse=True):
        parts[number % 3].update(number, *whole.images[number])
    for part in parts[1:]:
        parts[0].merge(part)
    assert parts[0].compute().figures == pytest.approx(whole.compute().figures, abs=0, nan_ok=True)


def test_no_detection_at_all(lvis100: Path) -> None:
    made = random_set(lvis100, 1)
    empty = FederatedSet(made.content, {number: found[:0] for number, found in made.found.items()})
    found = empty.metrics().compute().figures
    assert found["box_ap"] == found["mask_ap_fixed"] == 0

"""The report of a detector: it agrees with its input, needs nothing else, and no input can break it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from resnest.detection.card import Classes
from resnest.detection.evaluation import DetectionErrors, DetectionEvaluation
from resnest.detection.matches import Matches
from resnest.detection.report import detection_report
from resnest.detection.result import Detections
from test_report import HOSTILE, NAN, Page, Pictures, run_log, train, write

NAMES = ("cat", "dog", "emu")
CURVE = np.array([*np.linspace(1, 0.6, 80), *np.zeros(21)])
NOTHING = np.full(101, NAN)
KEYS = ("ap", "ap50", "ap75", "aps", "apm", "apl", "ar1", "ar10", "ar100", "ars", "arm", "arl")
SHARES = (0.4, 0.7, 0.45, NAN, 0.35, 0.5, 0.3, 0.5, 0.55, NAN, 0.5, 0.6)
BOX = {f"box_{key}": share for key, share in zip(KEYS, SHARES, strict=True)}


class Truth(NamedTuple):
    """What the page reads of a picture's annotations."""

    boxes: Any
    labels: Any


@dataclasses.dataclass
class Scenes(Pictures):
    """Pictures with the same objects."""

    objects: Sequence[Truth] = ()


class Found(NamedTuple):
    """What was missed, and what is not there, in one picture: boxes with label and, of the latter, score."""

    missed: Sequence[tuple[Any, int]] = ()
    false: Sequence[tuple[Any, int, float]] = ()


FOUND = Found(
    missed=[((10.5, 20, 30, 60), 0)],
    false=[((0, 0, 100, 80), 1, 0.91), ((5, 5, 9, 9), 0, 0.6)],
)


def _evaluation(step: int, box_ap: float, **more: float) -> dict[str, Any]:
    return {"kind": "eval", "step": step, "epoch": step / 10, "box_ap": box_ap, "box_ap50": box_ap + 0.3, **more}


LINES = (train(5, 1.2), _evaluation(10, 0.3), train(15, 0.6), _evaluation(20, 0.4), _evaluation(30, 0.38))


def _level(ap50: float) -> np.ndarray:
    """A curve whose mean it is."""
    return np.full(101, ap50)


def _detected(
    found: Sequence[Found] = (FOUND, Found(missed=FOUND.missed)),
    *,
    figures: dict[str, float] = BOX,
    names: Sequence[str] = NAMES,
    objects: Sequence[int] = (40, 10, 0),
    class_ap: dict[str, Sequence[float]] | None = None,
    curves: dict[str, Any] | None = None,
    images: int = 50,
) -> tuple[DetectionEvaluation, Scenes]:
    """50 images, the first of them with these errors."""
    everything = [*found, *[Found()] * (images - len(found))]
    classes = Classes(tuple(names), tuple(range(len(names))))

    def shown(one: Found) -> Detections:
        boxes = np.array([box for box, *_ in one.false], np.float32).reshape(-1, 4)
        labels, scores = (np.array([row[k] for row in one.false], kind) for k, kind in ((1, np.int64), (2, np.float32)))
        return Detections("x", 100, 80, classes, boxes, labels, scores)

    truths = [
        Truth(np.array([box for box, _ in one.missed]).reshape(-1, 4), [label for _, label in one.missed])
        for one in everything
    ]
    evaluation = DetectionEvaluation(
        figures=figures,
        class_names=tuple(names),
        indices=np.arange(images),
        class_ap={kind: np.array(values) for kind, values in (class_ap or {"box": (0.5, 0.3, NAN)}).items()},
        curves={kind: np.array(values) for kind, values in (curves or {"box": [CURVE, CURVE[::-1], NOTHING]}).items()},
        objects=np.array(objects),
        shown=[shown(one) for one in everything],
        matches=Matches(lambda: None, 100),
        mistakes=[DetectionErrors(np.arange(len(one.missed)), np.arange(len(one.false))) for one in everything],
    )
    keys = [f"val/{index + 1}.jpg" for index in range(images)]
    return evaluation, Scenes(keys, Image.new("RGB", (100, 80), (200, 200, 200)), truths)


MASKS = {
    "figures": BOX | {key.replace("box", "mask"): share / 2 for key, share in BOX.items()},
    "metrics": [train(5, 1.2), _evaluation(10, 0.3, mask_ap=0.2, mask_ap50=0.35)],
    "class_ap": {"box": [0.5, 0.3, NAN], "mask": [0.25, 0.2, NAN]},
    "curves": {kind: [_level(ap50), CURVE, NOTHING] for kind, ap50 in (("box", 0.8), ("mask", 0.4))},
}


@pytest.fixture
def render(tmp_path: Path):
    def run(found: Sequence[Found] | None = None, **changes: Any) -> Page:
        log = {key: changes.pop(key) for key in ("title", "metrics", "bad_images") if key in changes}
        keys = changes.pop("keys", None)
        evaluation, scenes = _detected(**({} if found is None else {"found": found}), **changes)
        scenes.keys = keys or scenes.keys
        page = write(
            tmp_path / "report.html",
            run_log(**{"metrics": LINES, **log}),
            "box_ap",
            lambda history: detection_report(evaluation, scenes, history),
        )
        assert "nan" not in page.text.lower().split()
        return page

    return run


def test_numbers_agree_with_the_input(render) -> None:
    figures = {key.replace("ar100", "ar400"): share for key, share in BOX.items()}  # as the metrics name them
    curves = {"box": [_level(0.8), _level(0.6), NOTHING]}
    page = render(bad_images=2, figures=figures, curves=curves)
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
        "1 missed, 2 false alarms val/1.jpg",
        "1 missed val/2.jpg",
    ):
        assert text in page.text, text
    assert "Mask" not in page.text
    # three curves, precision over recall, two pictures with frames
    assert (page.count("svg"), page.count("img"), page.count("script")) == (6, 2, 0)


def test_frames_lie_where_the_objects_are(render) -> None:
    page = render([FOUND])
    frames = re.findall(r'<g class="(\w+)"><title>\w+: ([^<]*)</title><rect x="([^"]*)" y="([^"]*)" width="([^"]*)"',
                        page.source)  # fmt: skip
    assert frames == [  # the largest first, so that the others lie above it
        ("false", "dog 91&nbsp;%", "0", "0", "100"),
        ("missed", "cat", "10.5", "20", "19.5"),
        ("false", "cat 60&nbsp;%", "5", "5", "4"),
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
    assert page.count("svg") == 7  # four curves, precision over recall, and two pictures
    ids = re.findall(r' id="([^"]*)"', page.source)
    assert len(ids) == len(set(ids))


def _many(count: int) -> dict[str, Any]:
    names, objects = ["cat"] * count, [4] * count
    return {"names": names, "objects": objects, "class_ap": {"box": [0.2] * count}, "curves": {"box": [CURVE] * count}}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"metrics": [], "figures": {}}, "No evaluation yet."),
        ({"metrics": []}, "40.0 % Box AP AP50 70.0 %"),
        ({"figures": {}}, "40.0 % Box AP, epoch 2 of 3 AP50 70.0 %, AP75 -"),
        ({"found": []}, "No mistakes on 50 images."),
        ({"found": [], "images": 0}, "No image was evaluated."),
        ({"found": [Found(false=[((NAN, 0, 5, 5), 0, 0.9)])]}, "1 false alarm val/1.jpg"),
        (
            {"names": (), "objects": (), "class_ap": {"box": []}, "curves": {"box": np.zeros((0, 101))}, "found": []},
            "Lowest box AP first.",
        ),
        (_many(130), "100 of 130 classes are shown, 30 are left out."),
        (_many(11), "The mean of 11 classes."),
        ({"curves": {"box": [[-1.0, NAN] * 50] * 3}, "class_ap": {"box": [0.0, 0.3, NAN]}}, "cat 40 0.0 %"),
    ],
)
def test_unusual_inputs(render, changes: dict[str, Any], expected: str) -> None:
    assert expected in render(**changes).text


def test_hostile_names_stay_text(render) -> None:
    page = render(title=HOSTILE, names=[HOSTILE + "{0}", "b", "c"], keys=[HOSTILE] * 50)
    assert page.count("script") == 0
    assert page.text.count(HOSTILE) >= 5


def test_lines_follow_the_page(render) -> None:
    """No colour is fixed in a plot: dark mode would not reach it."""
    plots = re.findall(r'<svg class="chart".*?</svg>', render().source, re.DOTALL)
    assert len(plots) == 4
    assert "var(--line-1)" in plots[3]
    for plot in plots:
        assert not re.search(r"#[0-9a-f]{6}", plot.replace("href=", ""))

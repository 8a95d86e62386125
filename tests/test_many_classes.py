"""Thousands of classes: memory, time and what is printed grow with the data, not with its square."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnest import create_model
from resnest.classification.evaluation import SingleLabelEvaluation
from resnest.classification.report import classification_report
from resnest.data.checks import check_dataset
from resnest.data.class_names import name_classes
from resnest.data.layout import find_layout
from resnest.data.samples import LabelledSamples
from resnest.data.stores import FolderStore
from resnest.errors import ResnestError
from resnest.inference.model import Model
from resnest.report.charts import read_history
from resnest.report.page import RunLog, write_page
from resnest.runtime.preprocess import Preprocess
from small import SPEC

MANY = 20_000
NAMES = tuple(f"class_{number:05d}" for number in range(MANY))


class ManyFolders:
    """A folder for each class, as `layout.Tree`."""

    where = "photos"

    def folders(self, inside: str) -> list[str]:
        return [] if inside else list(NAMES)

    def holds_images(self, inside: str) -> bool:
        return bool(inside)


def test_the_report_takes_no_room(tmp_path: Path) -> None:
    """A full matrix of 20,000 classes is 3.2 GB, and the page had several."""
    rng = np.random.default_rng(0)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    labels = np.arange(MANY)
    predicted = np.where(rng.random(MANY) < 0.5, labels, rng.integers(0, MANY, MANY))
    predicted[:5] = 7
    scores = rng.random(MANY).astype(np.float32)
    evaluation = SingleLabelEvaluation(
        figures={"top1": float((labels == predicted).mean()), "loss": 1.0},
        class_names=NAMES, indices=labels, labels=labels, predicted=predicted, scores=scores, truth_scores=scores,
    )  # fmt: skip
    samples = LabelledSamples(FolderStore(tmp_path), ["a.png"] * MANY, NAMES, labels)
    tracemalloc.start()
    report = classification_report(evaluation, samples, read_history([], "top1"))
    write_page(tmp_path / "report.html", RunLog(title="a", metrics=[], facts={}, recipe=""), report)
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert used < 60 * 2**20
    text = (tmp_path / "report.html").read_text()
    assert len(text) < 2**20
    assert "class_00001" in text
    assert "30 of 20,000 classes are shown, 19,970 are left out." in text


def test_nothing_is_quadratic() -> None:
    """Each of these took 7 to 80 seconds of processor time."""
    started = time.process_time()
    assert find_layout(ManyFolders()).base == ""
    net = create_model(SPEC, num_classes=MANY).eval()
    with pytest.raises(ResnestError, match="class_names has 'class_19998' twice"):
        Model.of(net, class_names=[*NAMES[:-1], NAMES[-2]], preprocess=Preprocess())
    known = {name: name.upper() for name in NAMES} | {NAMES[-1]: NAMES[-2].upper()}
    assert name_classes(NAMES, known).notes == ("the list of classes is not used: it names two classes CLASS_19998",)
    assert time.process_time() - started < 5


def test_the_doctor_has_one_note_for_many_classes(tmp_path: Path) -> None:
    """Else there would be two lines for each of 10,000 classes, on the page as well."""
    for number in range(40):
        folder = tmp_path / f"class_{number:02d}"
        folder.mkdir()
        Image.new("RGB", (4, 4), (number, 0, 0)).save(folder / "a.png")
    for number in range(12):
        Image.new("RGB", (4, 4), (number, 9, 0)).save(tmp_path / f"class_{number:02d}" / "b.png")
    few, unseen, even = check_dataset(tmp_path).notes
    names = ", ".join(f"class_{number:02d}" for number in range(10))
    assert few == f"40 classes have fewer than 10 training images: {names} and 30 more"
    names = ", ".join(f"class_{number:02d}" for number in range(12, 22))
    assert unseen == f"28 classes have no validation image: {names} and 18 more"
    assert even.startswith("52 ")  # pictures of one colour

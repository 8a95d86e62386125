"""The report of a run: it agrees with its input, needs nothing else, and no input can break it.

Pages are read back with the standard library's parser, which decodes entities: what a reader sees is what is compared.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resnest.classification.evaluation import SingleLabelEvaluation
from resnest.classification.report import classification_report
from resnest.figures import wilson_interval
from resnest.files import write_atomically
from resnest.report.charts import History, Series, loss_chart, nice_ticks, rate_chart, read_history, series, thin
from resnest.report.confusions import Confusions, largest_confusions, recall_and_precision, taken_for
from resnest.report.page import NO_BREAK, Report, RunLog, percent, write_page
from resnest.report.parts import data_uri, worst_first
from resnest.runtime.decode import BadImage

VOID = {"meta", "link", "img", "br", "hr", "input"}
HOSTILE = "<script>alert('x')</script>\"&"
NAN = float("nan")


class Page(HTMLParser):
    """A parsed page: its text without styles, its elements, and whether every one of them was closed in order."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)
        self.close()
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data + " "

    def count(self, name: str, cls: str = "") -> int:
        return sum(tag == name and cls in ["", *(attrs.get("class") or "").split()] for tag, attrs in self.elements)


def train(step: int, loss: Any, epoch: float | None = None) -> dict[str, Any]:
    return {"kind": "train", "step": step, "epoch": step / 10 if epoch is None else epoch, "loss": loss, "lr": 0.1}


def evaluation(step: int, top1: Any, **more: Any) -> dict[str, Any]:
    return {"kind": "eval", "step": step, "epoch": step / 10, "top1": top1, "loss": 0.5, **more}


@dataclasses.dataclass
class Pictures:
    """What a page reads of validation samples: the same picture under many names."""

    keys: Sequence[str]
    image: Image.Image = dataclasses.field(default_factory=lambda: Image.new("RGB", (8, 9), (200, 200, 200)))

    def decode(self, index: int) -> Image.Image:
        return self.image


NAMES = ("cat", "dog", "emu")
MATRIX = np.array([[45, 5, 0], [3, 27, 0], [1, 1, 18]])
LINES = (train(5, 1.2), evaluation(10, 0.7, top5=0.95), train(15, 0.6), evaluation(20, 0.9, top5=0.99))


def classified(matrix: Any = MATRIX, names: Sequence[str] = NAMES) -> SingleLabelEvaluation:
    """100 images of three classes, 90 of them right."""
    truth, predicted = np.nonzero(matrix)
    counts = matrix[truth, predicted]
    labels, guesses = np.repeat(truth, counts), np.repeat(predicted, counts)
    total = int(matrix.sum())
    return SingleLabelEvaluation(
        figures={"top1": float(np.trace(matrix) / total)} if total else {},
        class_names=tuple(names),
        indices=np.arange(total),
        labels=labels,
        predicted=guesses,
        scores=np.full(total, 0.9, np.float32),
        truth_scores=np.where(labels == guesses, 0.9, 0.05).astype(np.float32),
    )


def run_log(**changes: Any) -> RunLog:
    log = RunLog(title="pets", metrics=LINES, facts={"Network": "resnest50"}, recipe="epochs: 2\n")
    return dataclasses.replace(log, **changes)


def write(path: Path, log: RunLog, monitor: str, build: Callable[[History], Report]) -> Page:
    """The page of a report, read back."""
    write_page(path, log, build(read_history(log.metrics, monitor)))
    return read_page(path)


def read_page(path: Path) -> Page:
    """Every element of it is closed."""
    page = Page(path.read_text(encoding="utf-8"))
    assert page.open == []
    return page


@pytest.fixture
def render(tmp_path: Path):
    def run(
        *,
        matrix: Any = MATRIX,
        names: Sequence[str] = NAMES,
        keys: Sequence[str] | None = None,
        image: Image.Image | None = None,
        **changes: Any,
    ) -> Page:
        result = classified(matrix, names)
        pictures = Pictures(keys or [f"val/cat/{index}.jpg" for index in range(result.count)])
        if image is not None:
            pictures.image = image
        page = write(
            tmp_path / "report.html",
            run_log(**changes),
            "top1",
            lambda history: classification_report(result, pictures, history),
        )
        assert os.listdir(tmp_path) == ["report.html"]
        return page

    return run


def test_numbers_agree_with_the_input(render) -> None:
    page = render(bad_images=3)
    assert "90.0 %" in page.text
    assert "Top-1 accuracy, epoch 2 of 2; top-5 99.0 %" in page.text
    assert "95 % interval 82.6 to 94.5 % on 100 images" in page.text  # Wilson, 90 of 100: 0.8256 .. 0.9448
    assert "3 images were skipped" in page.text
    assert "dog 30 90.0 % 81.8 % cat 3" in page.text  # images, recall 27/30, precision 27/33, most often taken for
    assert "10 mistakes on 100 images. Here are the 10 most confident." in page.text
    assert "dog 90.0 % is cat 5.0 % val/cat/45.jpg" in page.text
    assert page.text.index("cat 50 90.0 %") < page.text.index("dog 30") < page.text.index("emu 20 90.0 %")
    assert {attrs.get("title") for tag, attrs in page.elements if tag == "td"} >= {
        "truth cat, predicted dog: 5 of 50 (10.0\xa0%)",
        "truth dog, predicted emu: 0 of 30",
    }
    assert "epochs: 2" in page.text
    assert "Network resnest50" in page.text
    assert "another evaluation" not in page.text
    assert page.count("svg") == 3


def test_page_is_self_contained(render) -> None:
    page = render()
    bare = re.sub(r'xmlns(:xlink)?="[^"]*"', "", page.source)
    assert "http:" not in bare
    assert "https:" not in bare
    assert "url(" not in re.sub(r"url\(#[\w-]+\)", "", bare)
    assert page.count("script") == 0
    for _, attrs in page.elements:
        for name in ("src", "href", "xlink:href"):
            assert (attrs.get(name) or "#").startswith(("data:", "#"))
    ids = re.findall(r' id="([^"]*)"', page.source)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:url\(|href=")#([\w-]+)', page.source)) <= set(ids)
    assert page.source.isascii()


def test_hostile_text_is_escaped(render) -> None:
    page = render(
        title=HOSTILE,
        names=[HOSTILE, "x" * 10_000, "d\u00fcrer\udcff" + HOSTILE],
        keys=[HOSTILE] * 100,
        facts={HOSTILE: HOSTILE},
        recipe=HOSTILE,
    )
    assert page.count("script") == 0
    assert page.text.count(HOSTILE) >= 8
    assert "d\u00fcrer?" in page.text
    assert len(page.source) < 100_000
    assert all(name.startswith("on") is False for _, attrs in page.elements for name in attrs)


@pytest.mark.parametrize(
    "name", ["a: b # 'c'", "{{ 7 * 7 }}{% raw %}", "\u05e9\u05dc\u05d5\u05dd \u202e x", "</style></pre>&lt;"]
)
def test_names_come_back_as_they_are(render, name: str) -> None:
    page = render(title=name, names=[name, "b", "c"], keys=[name] * 100, facts={name: name}, recipe=name)
    assert page.text.count(re.sub(r"\s+", " ", name)) >= 9
    assert {attrs.get("alt") for tag, attrs in page.elements if tag == "img"} == {name}


def test_a_thousand_classes(render) -> None:
    matrix = np.eye(1000, dtype=np.int64) * 10
    matrix[7, 3], matrix[999, 0] = 4, 6
    page = render(matrix=matrix, names=[f"class {i}" for i in range(1000)])
    assert page.count("table", "heat") == 0
    assert "The 2 most frequent pairs" in page.text
    assert page.text.index("class 999 class 0 6 37.5 %") < page.text.index("class 7 class 3 4 28.6 %")
    assert "30 of 1,000 classes are shown, 970 are left out." in page.text
    assert page.count("tr") == 1 + 2 + 1 + 30


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"metrics": []}, ["90.0 % Top-1 accuracy 95 % interval", "Nothing to draw was logged."]),
        ({"metrics": [train(1, NAN), evaluation(2, None)]}, ["1 loss is not finite", "90.0 % Top-1 accuracy 95 %"]),
        ({"metrics": [train(1, NAN), evaluation(2, NAN, loss=NAN)]}, ["2 losses are not finite"]),
        ({"metrics": [train(1, "NaN"), train(2, float("inf")), train(3, 1e300)]}, ["2 losses are not finite"]),
        ({"metrics": [train(1, 0.0), train(2, 1e-30), evaluation(2, 0.9)]}, ["epoch 0.2 of 0.2"]),
        ({"metrics": [{"kind": "test"}, {"kind": "train"}, {}]}, ["Nothing to draw was logged."]),
        ({"metrics": [evaluation(10, 0.5)]}, ["50.0 %", "The matrix below is another evaluation: 90.0 %"]),
        ({"matrix": np.diag([5, 3, 0])}, ["No mistakes on 8 images.", "1 class has no images."]),
        ({"matrix": np.diag([5, 3, 0])}, ["emu 0 - - -"]),
        ({"matrix": np.zeros((3, 3), np.int64)}, ["epoch 2 of 2", "No image was evaluated."]),
        ({"matrix": np.zeros((3, 3), np.int64), "metrics": []}, ["No evaluation yet."]),
        ({"matrix": np.zeros((0, 0), np.int64), "names": []}, ["90.0 %"]),
        ({"matrix": np.diag([7]), "names": ["one"]}, ["one 7 100.0 % 100.0 % -"]),
        ({"matrix": np.eye(26, dtype=int), "names": list("abcdefghijklmnopqrstuvwxyz")}, ["None."]),
        ({"facts": {}, "recipe": ""}, ["Recipe"]),
        ({"bad_images": 1}, ["1 image was skipped"]),
    ],
)
def test_unusual_inputs(render, changes: dict[str, Any], expected: list[str]) -> None:
    page = render(**changes)
    for text in expected:
        assert text in page.text
    assert "nan" not in page.text.lower().split()


def test_pages_stay_small(render) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    lines = [train(i, 1 + i % 7, i / 1000) for i in range(30_000)]
    page = render(matrix=MATRIX * 3, image=Image.fromarray(noise), metrics=lines)
    assert len(page.source) < 2_000_000
    assert page.count("img") == 24


@pytest.mark.parametrize(
    ("size", "mode"), [((8, 8), "RGB"), ((4000, 3), "RGB"), ((1, 1), "RGB"), ((300, 200), "L"), ((90, 90), "RGBA")]
)
def test_thumbnails_of_any_size(size: tuple[int, int], mode: str) -> None:
    image = Image.new(mode, size)
    assert data_uri(image).startswith("data:image/jpeg;base64,")
    assert (image.size, image.mode) == (size, mode)  # the caller's picture is left alone


def test_same_run_same_bytes(render) -> None:
    assert render().source == render().source


def test_a_failed_write_keeps_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    write_atomically(path, b"old")

    def fail(source: Path, target: Path) -> None:
        raise OSError(f"no space left for {target}")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        write_atomically(path, b"new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.html"]


def test_a_resumed_run_takes_the_later_line() -> None:
    lines = [train(2, 9.0), train(1, 3.0), evaluation(2, 0.9), train(2, 2.0), evaluation(2, 0.4)]
    history = read_history(lines, "top1")
    assert series(history.train, "loss").values.tolist() == [3.0, 2.0]
    assert history.best is not None
    assert history.best["top1"] == 0.4


def test_best_is_the_earliest_of_equals() -> None:
    lines = [evaluation(10, 0.5), evaluation(20, 0.8), evaluation(30, 0.8), evaluation(40, NAN)]
    history = read_history(lines, "top1")
    assert history.best is not None
    assert (history.best["epoch"], history.last_epoch) == (2.0, 4.0)
    assert history.when == ", epoch 2 of 4"


@pytest.mark.parametrize(
    ("share", "total", "low", "high"),
    [(0.9, 100, 0.82563, 0.94477), (0.0, 10, 0.0, 0.27753), (1.0, 10, 0.72247, 1.0), (0.5, 1, 0.05462, 0.94538)],
)
def test_wilson_interval(share: float, total: int, low: float, high: float) -> None:
    assert wilson_interval(share * total, total) == pytest.approx((low, high), abs=1e-5)


@pytest.mark.parametrize(
    ("share", "digits", "text"),
    [(0.5, 1, "50.0"), (1.0, 1, "100.0"), (0.99999, 1, "99.9"), (0.99999, 2, "99.99"), (1e-9, 1, "0.1"), (0, 1, "0.0")],
)
def test_percent_never_overstates(share: float, digits: int, text: str) -> None:
    assert percent(share, digits) == f"{text}{NO_BREAK}%"


def test_figures_of_a_matrix() -> None:
    matrix = np.array([[8, 2, 0, 0], [5, 5, 0, 0], [0, 0, 0, 0], [0, 0, 0, 20]])
    confusions = Confusions.of_matrix(matrix)
    recall, precision = recall_and_precision(confusions)
    np.testing.assert_allclose(recall, [0.8, 0.5, np.nan, 1.0])
    np.testing.assert_allclose(precision, [8 / 13, 5 / 7, np.nan, 1.0])
    assert largest_confusions(confusions) == [(1, 0, 5), (0, 1, 2)]
    assert largest_confusions(confusions, limit=1) == [(1, 0, 5)]
    assert confusions.matrix().tolist() == matrix.tolist()
    labels, predicted = (part.repeat(matrix.reshape(-1)) for part in np.divmod(np.arange(16), 4))
    pairs = Confusions.of_pairs(labels, predicted, 4)
    assert pairs.matrix().tolist() == matrix.tolist()
    assert taken_for(pairs, ("a", "b", "c", "d")) == [("b", "2"), ("a", "5"), ("", "-"), ("", "-")]
    assert worst_first(recall, matrix.sum(1)) == [1, 0, 3, 2]
    assert matrix[0, 0] == 8  # the input is not changed


def curve(*values: float) -> Series:
    return Series(epochs=np.arange(1.0, 1 + len(values)), values=np.array(values, np.float64))


def test_charts_follow_the_page() -> None:
    svg = loss_chart(curve(2, NAN, 1), curve(2, NAN, 1))
    assert svg.startswith("<svg")
    assert "var(--accent)" in svg
    assert not re.search(r"#[0-9a-f]{6}", svg.replace("href=", ""))  # no fixed colour: dark mode would not reach it
    assert loss_chart(curve(), curve()) == ""


def test_a_curve_goes_through_its_points() -> None:
    """Epochs lie between 40 and 284, values between 179 and 8; what is not finite is a gap, alone a dot."""
    [path] = re.findall(r'<path style[^>]* d="([^"]*)"', rate_chart(curve(1, NAN, 0, 0.5)))
    assert path.startswith("M101,")  # epoch 1 of 4
    assert path.count("M") == 2
    points = [(float(x), float(y)) for x, y in re.findall(r"([\d.]+),([\d.]+)", path)]
    assert [x for x, _ in points] == [101, 223, 284]
    assert points[1][1] == 179  # zero is at the bottom
    assert points[0][1] < points[2][1] < points[1][1]
    [dot] = re.findall(r"<circle[^>]*>", rate_chart(curve(NAN, 0.5)))
    assert 'cx="284.0"' in dot


@pytest.mark.parametrize(
    ("low", "high", "integers", "ticks"),
    [
        (0, 0.0108, False, [0, 0.005, 0.01]),
        (2.55, 3.12, False, [2.6, 2.8, 3.0]),
        (0, 1, True, [0, 1]),
        (0, 12, True, [0, 5, 10]),
        (0, 90, True, [0, 20, 40, 60, 80]),
        (5, 5, False, [5]),
        (-1e308, 1e308, False, [-1e308]),
    ],
)
def test_ticks_are_round(low: float, high: float, integers: bool, ticks: list[float]) -> None:
    assert nice_ticks(low, high, integers=integers, intervals=5 if integers else 4) == pytest.approx(ticks)


@pytest.mark.parametrize(
    ("values", "labels"),
    [((5, 0.04), ["0.1", "1"]), ((9, 0.8, 0.05), ["0.1", "0.3", "1", "3"]), ((2, 1e-9), ["1e-08"])],
)
def test_losses_of_many_decades_have_a_logarithmic_axis(values: tuple[float, ...], labels: list[str]) -> None:
    shown = re.findall(r'<text x="0"[^>]*>([^<]*)<', loss_chart(curve(*values), curve()))
    assert set(labels) <= set(shown)
    assert all(float(small) < float(large) for small, large in itertools.pairwise(shown))


def test_thin_keeps_the_mean_and_the_gaps() -> None:
    values = np.r_[np.full(500, np.nan), np.arange(500.0)]
    thinned = thin(Series(epochs=np.arange(1000.0), values=values), limit=100)
    assert len(thinned.values) == 100
    assert np.isnan(thinned.values[:50]).all()
    assert np.nanmean(thinned.values) == pytest.approx(249.5)


class Gone(Pictures):
    """Every second picture was removed or damaged since it was evaluated."""

    def decode(self, index: int) -> Image.Image:
        if index % 2:
            raise BadImage(self.keys[index], "cannot be read (No such file or directory)")
        return self.image


@pytest.mark.parametrize("samples", [Pictures, Gone])
def test_pictures_that_vanish_before_the_report(samples: type[Pictures]) -> None:
    """The run is over and its figures are known: the page lacks the pictures."""
    report = classification_report(classified(), samples([f"{n}.png" for n in range(100)]), read_history(LINES, "top1"))  # type: ignore[arg-type]
    last = report.sections[-1]
    assert last.body.count("<img") == (10 if samples is Pictures else 5)
    assert "Here are the 10" in last.notes[0] or "Here are the 5" in last.notes[0]

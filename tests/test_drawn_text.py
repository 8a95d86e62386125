"""Class names of any script and form in drawings and text; large pictures with many masks."""

from __future__ import annotations

import json
import time
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

import standins
from conftest import Outcome
from resnest.classification.result import Classification
from resnest.detection.card import Classes
from resnest.detection.result import Detections
from resnest.errors import ResnestError
from resnest.keypoints.points import PointLayout
from resnest.keypoints.result import Poses
from resnest.panoptic.result import PanopticClasses, PanopticMap, Segment
from resnest.runtime import fonts, rle
from resnest.runtime.card import ModelCard
from resnest.runtime.fonts import drawn_names, text_width, write
from resnest.runtime.results import Result
from resnest.segmentation.result import LabelMap, PixelClasses

DEJAVU = Path("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf")
CACHED = ("_fonts", "_font_for", "_has", "_absent", "_opened", "drawn_names")


@pytest.fixture(autouse=True)
def _fresh_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(fonts.VARIABLE, raising=False)
    _clear()
    yield
    _clear()


def _clear() -> None:
    for name in CACHED:
        getattr(getattr(fonts, name), "cache_clear", lambda: None)()  # a test may have replaced it


def results(names: tuple[str, ...]) -> list[Result]:
    """Of every task, each with all classes."""
    count, numbers = len(names), np.arange(len(names))
    labels = np.repeat(numbers[None].astype(np.uint8), 40, 0).repeat(40, 1)
    boxes = np.array([[40 * k, 4, 40 * k + 36, 36] for k in numbers], np.float32)
    segments = tuple(Segment(int(k) + 1, int(k), 1.0, 1600, (0, 0, 1, 1)) for k in numbers)
    return [
        Classification("x.jpg", names, np.ones(count, np.float32) / count),
        Detections("x.jpg", 40 * count, 40, Classes(names, tuple(range(count))), boxes, numbers, np.ones(count)),  # type: ignore[arg-type]
        LabelMap("x.jpg", PixelClasses(names, tuple(range(count))), labels, np.ones(count, np.float32)),
        PanopticMap("x.jpg", PanopticClasses(names, tuple(range(count)), 1), labels.astype(np.int32) + 1, segments),
        Poses(
            name="x.jpg",
            width=40 * count,
            height=40,
            layout=PointLayout.of(names),
            thing=names[0],
            category_id=1,
            boxes=boxes[:1].astype(np.float64),
            points=boxes[None, :, :2].astype(np.float64),
            point_scores=np.ones((1, count), np.float32),
            scores=np.ones(1),
        ),
    ]


ODD = ("a\nb", "c\td", "  e", "f\r\n", "\x1b[1mg", "h\u2028i", "", "100 %", "x" * 300)


def test_odd_names_break_nothing() -> None:
    picture = Image.new("RGB", (40 * len(ODD), 40), (90, 120, 150))
    for result in results(ODD):
        assert result.draw(picture).width
        assert len(str(result).splitlines()) == 1
        assert result.to_csv().count("\r\n") >= 2


NAMES = {
    "stripped": (" cat ", "cat"),
    "a line end": ("cat\n", "cat"),
    "a tab within": ("a\tcat", "a cat"),
    "an escape": ("\x1bcat", " cat"),
    "spaces within": ("a  cat", "a  cat"),
    "no ASCII": ("猫\u3000", "猫"),
}


@pytest.mark.parametrize("case", NAMES)
def test_names_of_cards(case: str) -> None:
    given, expected = NAMES[case]
    content = json.loads(standins.CARDS["detection"].to_json())
    content["label_names"][0] = given
    card = ModelCard.from_json(json.dumps(content), where="here")
    assert card.class_names == (expected, "sky", "sea")
    content["label_names"][0] = None
    with pytest.raises(ResnestError, match="label_names of a model card has None, which is no name"):
        ModelCard.from_json(json.dumps(content), where="here")


@pytest.mark.skipif(not DEJAVU.is_file(), reason="needs a system's font")
@pytest.mark.parametrize("name", ["ü", "кот", "γάτα", "قط", "mačka €", "naïve", "e\u0301", "a\u200db"])
def test_names_in_other_scripts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A font of the system has them; what is drawn differs from the box for letters that a font does not have."""
    monkeypatch.setattr(fonts, "_folders", lambda: [DEJAVU.parent])
    assert drawn_names((name, "dog")) == (name, "dog")
    plain, other = drawn(f"{name} 91%"), drawn("\U0010fffe" * len(name) + " 91%")
    assert not np.array_equal(plain, other)
    assert text_width(f"{name} 91%", 20) > text_width(" 91%", 20)


def drawn(text: str) -> np.ndarray:
    image = Image.new("L", (300, 40))
    write(ImageDraw.Draw(image), (5, 5), text, 20, fill=255)
    return np.asarray(image)


def test_names_that_no_font_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_folders", list)
    names = ("cat", "猫", "дом")
    with pytest.warns(
        UserWarning, match=r"no font here has the letters of 2 classes.*: 1 猫, 2 дом\. Set RESNEST_FONT="
    ):
        assert drawn_names(names) == ("cat", "1", "2")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # one warning, however many pictures
        pictures = [result.draw(Image.new("RGB", (120, 40))) for result in results(names)]
    numbered = [result.draw(Image.new("RGB", (120, 40))) for result in results(("cat", "1", "2"))]
    for one, other in zip(pictures, numbered, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.skipif(not DEJAVU.is_file(), reason="needs a system's font")
def test_a_font_of_ones_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fonts, "_folders", list)
    before = drawn("cat")
    fonts._fonts.cache_clear()
    fonts._font_for.cache_clear()
    monkeypatch.setenv(fonts.VARIABLE, str(DEJAVU))
    assert drawn_names(("дом",)) == ("дом",)
    assert not np.array_equal(drawn("cat"), before)  # for all texts
    fonts._fonts.cache_clear()
    fonts._font_for.cache_clear()
    (tmp_path / "x.ttf").write_bytes(b"no font")
    monkeypatch.setenv(fonts.VARIABLE, str(tmp_path / "x.ttf"))
    with pytest.raises(ResnestError, match=r"RESNEST_FONT=.*x\.ttf is not a font that can be opened"):
        text_width("猫", 20)


def test_broken_fonts_are_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.ttf").write_bytes(b"no font")
    monkeypatch.setattr(fonts, "_folders", lambda: [tmp_path, tmp_path / "none"])
    assert fonts._fonts() == (fonts.BUILT_IN,)


def test_the_command_line_says_it_once(
    cli: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in "ab":
        Image.new("RGB", (32, 24)).save(tmp_path / f"{name}.png")
    standins.use(monkeypatch, "detection", replace(standins.CARDS["detection"], class_names=("猫", "sky", "sea")))
    monkeypatch.setattr(fonts, "_folders", list)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        outcome = cli("predict", "model", tmp_path, "--draw", tmp_path / "out")
    assert outcome.code == 0
    assert outcome.out.splitlines()[0].endswith("a.png: 1 猫")
    notes = [line for line in outcome.err.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1
    assert notes[0].startswith("note: no font here has the letters of 1 classes, which are drawn as numbers: 0 猫.")


def test_texts_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name of two scripts that no single font has is in two fonts."""
    has = {"latin": "ABC 1%", "cyrillic": "ЖДЮ"}
    monkeypatch.setattr(fonts, "_fonts", lambda: tuple(has))
    monkeypatch.setattr(fonts, "_has", lambda path, letter: letter in has[path])
    monkeypatch.setattr(fonts, "_opened", lambda path, size: path)
    fonts._font_for.cache_clear()
    assert fonts._runs("AЖ Д1%", 20) == [("latin", "A"), ("cyrillic", "Ж Д"), ("latin", "1%")]
    assert fonts._runs("ЖД", 20) == [("cyrillic", "ЖД")]
    assert fonts._can_draw("AЖ")
    assert not fonts._can_draw("AΩ")
    assert unicodedata.bidirectional("ع") in fonts.RIGHT_TO_LEFT


# --- masks ---


def squares(count: int, side: int, size: tuple[int, int]) -> Detections:
    rng = np.random.default_rng(0)
    boxes = [[x, y, x + side, y + side] for x, y in rng.integers(0, np.array(size) - side, (count, 2))]
    whole = np.ones((side, side), bool)
    masks = [rle.encode(whole, left=int(box[0]), top=int(box[1]), size=size[::-1]) for box in boxes]
    labels, scores = np.arange(count) % 3, np.linspace(1, 0.6, count).astype(np.float32)
    classes = Classes(("a", "b", "c"), (1, 2, 3))
    return Detections("x", *size, classes, np.array(boxes, np.float32), labels, scores, tuple(masks))


def test_many_masks_on_a_large_picture_are_quick() -> None:
    """Processor time by the size of the picture and of the masks' boxes: 300 masks were 50 s on 6000 x 4000."""
    size = (1500, 1000)  # a sixteenth
    picture, found = Image.new("RGB", size, (90, 120, 150)), squares(300, 100, size)
    found.draw(picture)
    start = time.process_time()
    found.draw(picture)
    assert time.process_time() - start < 1.5  # it takes a tenth


def test_small_masks_are_on_top() -> None:
    large, small = np.zeros((400, 800), bool), np.zeros((400, 800), bool)
    large[50:350, 100:700], small[150:250, 300:500] = True, True
    for order in ((large, small), (small, large)):
        masks = tuple(map(rle.encode, order))
        boxes = np.array([[x, y, x + w, y + h] for x, y, w, h in map(rle.box, masks)], np.float32)
        names = ("large", "small") if order[0] is large else ("small", "large")
        labels, scores = np.arange(2), np.array([0.9, 0.8], np.float32)
        found = Detections("x", 800, 400, Classes(names, (1, 2)), boxes, labels, scores, masks)
        pixels = np.asarray(found.draw(Image.new("RGB", (800, 400), (200, 200, 200)))).astype(int)
        assert np.abs(pixels[200, 400] - pixels[100, 600]).max() > 20  # the small one's colour is seen in the large one
        assert (pixels[20, 50] == 200).all()


@pytest.mark.parametrize("seed", range(5))
def test_crops_of_masks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros((17, 23), bool)
    rows, columns = sorted(rng.integers(0, 17, 2)), sorted(rng.integers(0, 23, 2))
    mask[rows[0] : rows[1], columns[0] : columns[1]] = rng.random((rows[1] - rows[0], columns[1] - columns[0])) > 0.4
    for one in (mask, np.ones_like(mask), np.zeros_like(mask)):
        left, top, inner = rle.crop(rle.encode(one))
        pasted = np.zeros_like(one)
        pasted[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
        assert np.array_equal(pasted, one)

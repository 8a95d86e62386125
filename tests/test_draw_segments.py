"""Pictures with regions: colours, borders, names where there is room, legends; and a palette for many classes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from resnest.panoptic.result import PanopticClasses, PanopticMap, Segment
from resnest.runtime import draw as module
from resnest.runtime.draw import Entry, with_legend
from resnest.runtime.palette import FIRST, MOST, _colours, _gaps, _seen, colour, shade
from resnest.segmentation.result import LabelMap, PixelClasses

GREY = (120, 120, 120)


def label_map(labels: np.ndarray, *, colours: tuple[tuple[int, int, int], ...] = ()) -> LabelMap:
    classes = PixelClasses(("road", "sky", "pole"), (0, 1, 2), colours)
    return LabelMap("x", classes, labels.astype(np.uint8), np.ones(3, np.float32))


def panoptic_map(ids: np.ndarray, labels: dict[int, int]) -> PanopticMap:
    classes = PanopticClasses(("car", "dog", "sky"), (3, 18, 187), 2)
    segments = [Segment(id, label, 0.9, int((ids == id).sum()), (0, 0, 1, 1)) for id, label in labels.items()]
    return PanopticMap("x", classes, ids.astype(np.int32), tuple(segments))


def halves(width: int = 800, height: int = 400) -> np.ndarray:
    labels = np.zeros((height, width))
    labels[:, width // 2 :] = 1
    return labels


def near(pixel: np.ndarray, wanted: tuple[int, int, int], share: float) -> bool:
    mixed = np.array(GREY) * (1 - share) + np.array(wanted) * share
    return bool(np.abs(pixel.astype(float) - mixed).max() <= 1.5)


@pytest.mark.parametrize("colours", [(), ((128, 64, 128), (70, 130, 180), (0, 0, 0))])
def test_regions_have_the_colours_of_their_classes(colours: tuple[tuple[int, int, int], ...]) -> None:
    picture = label_map(halves(), colours=colours).draw(Image.new("RGB", (800, 400), GREY))
    drawn = np.asarray(picture)
    assert picture.width == 800
    assert picture.height > 400  # the legend
    known = colours or (colour(0), colour(1))
    assert near(drawn[5, 5], known[0], module.REGION_FILL)
    assert near(drawn[5, 795], known[1], module.REGION_FILL)
    assert (drawn[:400, 399] == 235).all()  # the border
    assert drawn[5, 398].max() < 100  # and its rim


def test_background_is_left_as_the_picture_is() -> None:
    found = label_map(halves())
    found = replace(found, classes=found.classes._replace(names=("Background", "sky", "pole")))
    drawn = np.asarray(found.draw(Image.new("RGB", (800, 400), GREY)))
    assert near(drawn[5, 5], module.RIM, module.REGION_FILL / 2)
    assert near(drawn[5, 795], colour(1), module.REGION_FILL)
    plain = np.asarray(label_map(halves()).draw(Image.new("RGB", (800, 400), GREY)))
    assert drawn[400:].sum() < plain[400:].sum()  # one entry fewer in the legend


def test_small_pictures_are_enlarged() -> None:
    picture = label_map(halves(100, 50)).draw(Image.new("RGB", (100, 50), GREY))
    assert picture.width == 700
    assert near(np.asarray(picture)[5, 690], colour(1), module.REGION_FILL)


def test_objects_have_shades_and_void_is_left() -> None:
    ids = np.zeros((400, 800))
    ids[:200, :300], ids[:200, 300:600], ids[200:, :600] = 7, 9, 300
    found = panoptic_map(ids, {7: 0, 9: 0, 300: 2})
    drawn = np.asarray(found.draw(Image.new("RGB", (800, 400), GREY)))
    assert near(drawn[5, 5], colour(0), module.REGION_FILL)
    assert near(drawn[5, 595], shade(colour(0), 1), module.REGION_FILL)
    assert near(drawn[395, 5], colour(2), module.REGION_FILL)
    assert near(drawn[5, 795], module.RIM, module.REGION_FILL / 2)
    assert found._legend() == [Entry("car  2", colour(0)), Entry("sky  38 %", colour(2))]


def test_thumbnails_are_painted_without_names() -> None:
    labels = halves(90, 45)
    labels[:, 80:] = 255  # does not count
    small = np.asarray(label_map(labels).paint(Image.new("RGB", (90, 45), GREY), 40))
    assert small.shape == (20, 40, 3)
    assert near(small[5, 2], colour(0), module.REGION_FILL)
    assert near(small[5, 30], colour(1), module.REGION_FILL)
    assert near(small[5, 39], module.RIM, module.REGION_FILL / 2)


def test_nothing_found_is_drawn_too() -> None:
    picture = panoptic_map(np.zeros((64, 640)), {}).draw(Image.new("RGB", (640, 64), GREY))
    assert picture.height > 64
    one = label_map(np.zeros((1, 1))).draw(Image.new("RGB", (1, 1), GREY))
    assert one.width == 640


def test_names_stand_where_there_is_room() -> None:
    """A name lies in its region; where there is none of its size it is left out."""
    mask = np.zeros((100, 200), bool)
    mask[10:40, 20:120] = True
    mask[40:, 60] = True  # a thin tail
    middle = module._roomiest(mask, 40, 10, 0.97)
    assert middle is not None
    assert 40 <= middle[0] <= 100
    assert 15 <= middle[1] <= 35
    assert module._roomiest(mask, 130, 10, 0.97) is None
    assert module._roomiest(mask[:5, :5], 40, 10, 0.97) is None


def test_legends_break_lines() -> None:
    picture = Image.new("RGB", (640, 10))
    heights = [with_legend(picture, [Entry("a long name", GREY)] * count).height for count in (0, 1, 3, 30)]
    assert heights[0] == heights[1] == heights[2] < heights[3]


def test_colours_are_apart_for_every_eye() -> None:
    assert [colour(number) for number in range(len(FIRST))] == list(FIRST)
    assert len(set(_colours())) == MOST
    assert colour(MOST) == colour(0)
    first = np.array([colour(number) for number in range(19)], float)
    seen = _seen(first)
    gaps = [_gaps(np.delete(seen, place, 1), seen[:, place : place + 1]).min() for place in range(len(first))]
    assert min(gaps) > 0.07  # Okabe and Ito's closest ones are 0.076 apart; a just noticeable difference is about 0.02


def test_the_shades_of_a_colour_differ() -> None:
    for base in (colour(0), (0, 0, 0), (255, 255, 255), (128, 64, 128)):
        shades = [shade(base, number) for number in range(3)]
        assert shades[0] == base
        assert len(set(shades)) >= 2


def test_regions_look_as_by_the_plain_arithmetic() -> None:
    """Colours, half of them where there is no region, and the two lines; 16-bit numbers round by 1 at most."""
    random = np.random.default_rng(0)
    picture = Image.fromarray(random.integers(0, 256, (150, 700, 3), np.uint8))
    areas = np.kron(random.integers(-1, 4, (5, 20)), np.ones((30, 35))).astype(np.int32)
    own = [colour(number) for number in range(4)]
    for line in (1, 3):
        pixels, shown = picture.resize((700 * line, 150 * line)), np.kron(areas, np.ones((line, line), int))
        known = np.asarray(pixels, float)
        grey, fill = np.asarray(pixels.convert("L"), float)[..., None], np.where(shown < 0, 0.275, 0.55)[..., None]
        wanted = (known * 0.4 + grey * 0.6) * (1 - fill) + np.array([*own, module.RIM])[shown] * fill
        there = np.abs(np.asarray(module._painted(pixels, shown, own)).astype(int) - wanted.astype(int))
        inside = ~module._grown(module._edges(shown), max(1, round(0.7 * line)))
        assert there[inside].max() <= 1
        assert inside.mean() > 0.5

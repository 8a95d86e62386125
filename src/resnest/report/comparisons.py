"""Pictures beside their ground truth and prediction, in the colours of their classes.

comparisons_section(comparisons, "The twelve with the lowest IoU.", images=120, errors=4711)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from resnest.report.page import Section
from resnest.report.parts import SIDES, Caption, Key, Picture, css_colour, mistakes_section
from resnest.runtime.palette import class_colours


class Regions(Protocol):
    """The regions of one picture, each of a class."""

    @property
    def classes(self) -> Any: ...
    def present(self) -> Iterable[int]: ...  # numbers of the classes that are there
    def paint(self, image: Image.Image, side: int, /) -> Image.Image: ...


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One picture with its ground truth and prediction, without drawings."""

    name: str  # path relative to the data set
    image: Image.Image
    truth: Regions  # labels of no class: pixels that do not count
    found: Regions
    captions: Sequence[Caption]


def comparisons_section(comparisons: Sequence[Comparison], note: str, *, images: int, errors: int) -> Section:
    """The worst pictures, with a legend of their colours; arguments as for `mistakes_section`."""
    pictures, keys = [_compared(one) for one in comparisons], _colour_keys(comparisons)
    return mistakes_section(pictures, note, images=images, errors=errors, layout="compared", keys=keys)


def _compared(one: Comparison) -> Picture:
    """Three pictures in a row."""
    painted = [regions.paint(one.image, SIDES["compared"]) for regions in (one.truth, one.found)]
    return Picture(name=one.name, images=[one.image, *painted], captions=one.captions)


def _colour_keys(comparisons: Sequence[Comparison]) -> list[Key]:
    """Legend of the colours in the pictures, in the order of the classes."""
    if not comparisons:
        return []
    classes = comparisons[0].found.classes
    colours = class_colours(classes)
    there = {label for one in comparisons for regions in (one.truth, one.found) for label in regions.present()}
    return [Key(classes.names[label], "patch", css_colour(colours[label])) for label in sorted(there)]

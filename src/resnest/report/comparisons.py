"""Pictures of the page with regions on them: the picture, what is there, and what was found.

    compared_picture(Comparison(image=image, name="val/1.png", truth=truth, found=found), "<b>34 %</b>")

The regions are painted here, in the colours of their classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from PIL import Image

from resnest.report.page import clip, clip_path
from resnest.report.parts import data_uri
from resnest.runtime.label_map import LabelMap
from resnest.runtime.palette import class_colours
from resnest.runtime.panoptic_map import PanopticMap

SIDE = 400  # pixels of the longer side of each of the three


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One picture with what is there and what was found, without drawings."""

    image: Image.Image
    name: str  # path relative to the data set
    truth: LabelMap | PanopticMap  # labels of no class: pixels that do not count
    found: LabelMap | PanopticMap


def compared_picture(one: Comparison, caption: str) -> str:
    """Three pictures in a row, and the file's name; `caption` is HTML."""
    images = [one.image, *(regions.paint(one.image, SIDE) for regions in (one.truth, one.found))]
    told = ("picture", "truth", "prediction")
    shown = "".join(
        f'<img src="{data_uri(image, SIDE)}" alt="{clip(one.name, 200)}: {what}" title="{what}">'
        for image, what in zip(images, told, strict=True)
    )
    return f"""<figure>
<div class="three">{shown}</div>
<figcaption>{caption}<div class="file cut" title="{clip_path(one.name)}"><bdi>{clip_path(one.name)}</bdi></div>
</figcaption>
</figure>
"""


def colour_keys(comparisons: Sequence[Comparison]) -> str:
    """What the colours mean that the pictures have, in the order of the classes."""
    if not comparisons:
        return ""
    classes = comparisons[0].found.classes
    there = sorted({label for one in comparisons for regions in (one.truth, one.found) for label in _labels(regions)})
    colours = class_colours(classes)
    keys = " ".join(
        f'<span class="key patch" style="{patch_colour(colours[label])}">{clip(classes.names[label], 40)}</span>'
        for label in there
    )
    return f'<p class="patches">{keys}</p>'


def patch_colour(colour: tuple[int, int, int]) -> str:
    """As a CSS variable that `.patch` takes."""
    return "--line: rgb({} {} {})".format(*colour)


def _labels(regions: LabelMap | PanopticMap) -> Iterable[int]:
    if isinstance(regions, LabelMap):
        return [int(label) for label in regions.counts()[: len(regions.classes.names)].nonzero()[0]]
    return [segment.label for segment in regions.segments]

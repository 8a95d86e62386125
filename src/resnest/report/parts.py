"""Sections that the pages of several tasks share: curves, tables, pictures with mistakes.

curves_section(history, ("Accuracy", ("top1", "top-1, %"), ("top5", "top-5, %")))
table([Column("Class", "name", names), Column("Recall", "share", recall)], rows=[1, 0])
"""

from __future__ import annotations

import base64
import contextlib
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from resnest.report.charts import History, fraction_chart, loss_chart, rate_chart, series
from resnest.report.page import Headline, Section, count, render
from resnest.runtime.decode import BadImage
from resnest.runtime.palette import Colour, class_colours
from resnest.runtime.shown import shown

T = TypeVar("T")
Keyed = tuple[str, str]  # a figure's key in metrics.jsonl, and its caption
Layout = Literal["small", "large", "compared", "beside", "pair"]

SIDES = {"small": 160, "large": 480, "compared": 400, "beside": 400, "pair": 320}  # pixels of a picture's longer side
TINY = 64  # below this a picture is enlarged with visible pixels instead of blurred
MOST_FRAMES = 400  # of a picture


class Key(NamedTuple):
    """One entry of a legend."""

    name: str
    mark: str = ""  # class of its mark
    colour: str = ""  # of a mark that has one of its own


class Chart(NamedTuple):
    """A chart with its legend."""

    title: str
    keys: Sequence[Key]
    svg: Markup


class Column(NamedTuple):
    """One column of a table, with the values of all rows."""

    title: str
    kind: Literal["name", "count", "percent", "share", "extra", "meaning"]  # "share": with a bar
    values: Sequence[Any] | NDArray[Any]


class Caption(NamedTuple):
    """A line below a picture."""

    text: str
    fraction: float | None = None
    strong: bool = False


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A rectangle on a picture, in pixels."""

    box: Sequence[float]  # x1, y1, x2, y2
    kind: Literal["missed", "false"]
    text: str  # class and score

    @property
    def area(self) -> float:
        left, top, right, bottom = self._corners()
        return (right - left) * (bottom - top)

    @property
    def attributes(self) -> Mapping[str, str]:
        """Attributes of an SVG rectangle."""
        left, top, right, bottom = self._corners()
        sides = {"x": left, "y": top, "width": max(right - left, 0), "height": max(bottom - top, 0)}
        return {name: f"{side:.5g}" for name, side in sides.items()}

    def _corners(self) -> list[float]:
        return [float(side) if np.isfinite(side) else 0.0 for side in self.box]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture with errors."""

    name: str  # path relative to the data set
    images: Sequence[
        Image.Image
    ]  # RGB, any size; compared: the picture, the truth, the prediction; beside: without the prediction
    captions: Sequence[Caption]
    frames: Sequence[Frame] = ()

    @property
    def tiny(self) -> bool:
        return max(self.images[0].size) < TINY

    def ordered_frames(self) -> list[Frame]:
        """Sorted, so that small frames are drawn above large ones."""
        return sorted(self.frames[:MOST_FRAMES], key=lambda frame: frame.area, reverse=True)


def headlines(fraction: float, *lines: str, digits: int = 1) -> list[Headline]:
    """Large figures with their titles; none before the first evaluation."""
    return [Headline(fraction, lines, digits)] if np.isfinite(fraction) else []


def curves_section(history: History, *fractions: tuple[str, Keyed, Keyed]) -> Section:
    """Charts over epochs: losses, fractions by title with their main line and another one, the learning rate."""
    train, validation = series(history.train, "loss"), series(history.evals, "loss")
    keys = [Key("training")]
    if validation.finite or not train.finite:  # a detector has no validation loss
        keys.insert(0, Key("validation", "main"))
    charts = [
        Chart("Loss", keys, loss_chart(train, validation)),
        *(_fraction_chart(history, *fraction) for fraction in fractions),
        Chart("Learning rate", [], rate_chart(series(history.train, "lr"))),
    ]
    known = any(series(history.evals, key).finite for _, (key, _), _ in fractions)
    note = "Over epochs." + (" The dot is the best evaluation." if known else "")
    lost = len(train.values) + len(validation.values) - train.finite - validation.finite
    if lost:
        note += f" {count(lost, 'loss is', 'losses are')} not finite and not drawn."
    drawn = [chart for chart in charts if chart.svg]
    if not drawn:
        return Section("Curves", empty("Nothing to draw was logged."), [note] if lost else [])
    return Section("Curves", render("charts.html", charts=drawn, large=False), [note])


def _fraction_chart(history: History, title: str, main: Keyed, other: Keyed) -> Chart:
    first, second = series(history.evals, main[0]), series(history.evals, other[0])
    keys = [Key(main[1], "main"), *([Key(other[1])] if second.finite else [])]
    return Chart(title, keys, fraction_chart(first, second, label=f"{title} in percent over epochs"))


def table(columns: Sequence[Column], rows: Iterable[int], colours: Sequence[Colour] = ()) -> Markup:
    """A table with these rows, in this order; with `colours` a patch before each name."""
    return render("table.html", columns=columns, rows=rows, colours=[css_colour(colour) for colour in colours])


def classes_section(
    columns: Sequence[Column],
    *notes: str,
    counts: NDArray[np.int64],
    counted: str = "images",
    most: int = 100,
    colours: Sequence[Colour] = (),
) -> Section:
    """Figures of every class: the lowest "share" first, of equal ones the one with more `counted`; at most `most`."""
    [figures] = (np.asarray(column.values, np.float64) for column in columns if column.kind == "share")
    order = worst_first(figures, counts)
    all_notes = list(notes)
    if left_out := len(order[most:]):
        classes = count(len(order), "class", "classes")
        all_notes.append(f"{most} of {classes} are shown, {left_out:,} are left out.")
    if without := int((counts == 0).sum()):
        all_notes.append(f"{count(without, 'class has', 'classes have')} no {counted}.")
    return Section("Classes", table(columns, order[:most], colours), all_notes)


def worst_first(figures: NDArray[np.float64], counts: NDArray[np.int64]) -> list[int]:
    """The lowest figure first; of equal ones the larger class, and NaN last."""
    order: list[int] = np.lexsort((-counts, np.nan_to_num(figures, nan=np.inf))).tolist()
    return order


def mistakes_section(
    pictures: Sequence[Picture],
    note: str,
    *,
    images: int,
    errors: int,
    layout: Layout = "small",
    keys: Sequence[Key] = (),
) -> Section:
    """The worst pictures; `images` were evaluated, with `errors` in total."""
    title = "Worst mistakes"
    if not errors and not pictures:
        return Section(
            title, empty(f"No mistakes on {count(images, 'image')}." if images else "No image was evaluated.")
        )
    if not pictures:
        return Section(title, empty("No picture was kept."), [note] if note else [])
    return Section(title, pictures_of(pictures, layout, keys), [note])


def readable(positions: Iterable[int], make: Callable[[int], T]) -> list[T]:
    """What is made of each image, without those that were removed or damaged since they were evaluated."""
    made = []
    for position in positions:
        with contextlib.suppress(BadImage):
            made.append(make(position))
    return made


def pictures_of(pictures: Sequence[Picture], layout: Layout, keys: Sequence[Key] = ()) -> Markup:
    """Pictures with their captions, and a legend above them."""
    uris = [[data_uri(image, SIDES[layout]) for image in picture.images] for picture in pictures]
    return render("pictures.html", pictures=list(zip(pictures, uris, strict=True)), layout=layout, keys=keys)


def empty(text: str) -> Markup:
    """The text for an empty section."""
    return Markup('<p class="empty">{}</p>').format(text)


def css_colour(colour: Colour) -> str:
    return "rgb({} {} {})".format(*colour)


def data_uri(image: Image.Image, side: int = SIDES["small"]) -> str:
    """A JPEG thumbnail inside a URI; small pictures keep their size and their full colour resolution."""
    thumbnail = shown(image)
    thumbnail.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    thumbnail.save(buffer, "JPEG", quality=85, optimize=True, subsampling=0 if max(image.size) < TINY else 2)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


# --- Pictures beside their ground truth and prediction, in the colours of their classes ---


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
    prediction: Regions
    captions: Sequence[Caption]


def comparisons_section(comparisons: Sequence[Comparison], note: str, *, images: int, errors: int) -> Section:
    """The worst pictures, with a legend of their colours; arguments as for `mistakes_section`."""
    pictures, keys = [_compared(comparison) for comparison in comparisons], _colour_keys(comparisons)
    return mistakes_section(pictures, note, images=images, errors=errors, layout="compared", keys=keys)


def _compared(row: Comparison) -> Picture:
    """Three pictures in a row."""
    painted = [regions.paint(row.image, SIDES["compared"]) for regions in (row.truth, row.prediction)]
    return Picture(name=row.name, images=[row.image, *painted], captions=row.captions)


def _colour_keys(comparisons: Sequence[Comparison]) -> list[Key]:
    """Legend of the colours in the pictures, in the order of the classes."""
    if not comparisons:
        return []
    classes = comparisons[0].prediction.classes
    colours = class_colours(classes)
    there = {label for row in comparisons for regions in (row.truth, row.prediction) for label in regions.present()}
    return [Key(classes.names[label], "patch", css_colour(colours[label])) for label in sorted(there)]

"""Sections that the pages of several tasks share: curves, tables, confusions, pictures with mistakes.

curves_section(history, ("Accuracy", ("top1", "top-1, %"), ("top5", "top-5, %")))
table([Column("Class", "name", names), Column("Recall", "share", recall)], rows=[1, 0])
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from resnest.report.charts import History, fraction_chart, loss_chart, rate_chart, series
from resnest.report.page import Headline, Section, clip, count, percent, render
from resnest.runtime.palette import Colour, class_colours

Keyed = tuple[str, str]  # a figure's key in metrics.jsonl, and its caption
Layout = Literal["small", "large", "compared", "beside"]

SIDES = {"small": 160, "large": 480, "compared": 400, "beside": 400}  # pixels of a picture's longer side
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
    thumbnail = image.convert("RGB")
    thumbnail.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    thumbnail.save(buffer, "JPEG", quality=85, optimize=True, subsampling=0 if max(image.size) < TINY else 2)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


# --- Report of a confusion matrix: the matrix or its largest entries, recall and precision of each class ---
# Rows are the truth, columns the prediction. Cells hold numbers of images; for pixels, percentages of the row. A class
# without images has no recall, and a class that was never predicted no precision: both are NaN, printed as "-".

MAX_MATRIX = 25  # classes; beyond that the cells no longer hold their counts
MAX_PAIRS = 20

Counted = Literal["images", "pixels"]
Matrix = NDArray[np.int64]
Fractions = NDArray[np.float64]


class Cell(NamedTuple):
    """One entry of the drawn matrix."""

    text: str
    title: str
    shade: str  # opacity
    kind: Literal["none", "", "mid", "full"]  # decides the colour of the text


def recall_and_precision(matrix: Matrix) -> tuple[Fractions, Fractions]:
    """Two arrays (K,) of fractions, NaN where undefined."""
    right = matrix.diagonal()
    return _divide(right, matrix.sum(axis=1)), _divide(right, matrix.sum(axis=0))


def largest_confusions(matrix: Matrix, limit: int = MAX_PAIRS) -> list[tuple[int, int]]:
    """The pairs (truth, prediction) of the most frequent confusions, the most frequent first."""
    wrong = _wrong(matrix)
    order = np.argsort(-wrong, axis=None, kind="stable")[:limit]
    pairs = [divmod(int(index), wrong.shape[1]) for index in order]
    return [(truth, predicted) for truth, predicted in pairs if wrong[truth, predicted]]


def taken_for(matrix: Matrix, names: Sequence[str]) -> list[tuple[str, str]]:
    """For each class its most frequent wrong prediction, and the count; blank and "-" if there is none."""
    wrong = _wrong(matrix)
    return [(names[row.argmax()], f"{row.max():,}") if row.any() else ("", "-") for row in wrong]


def confusion_section(matrix: Matrix, names: Sequence[str], *, counted: Counted = "images") -> Section:
    """The confusion matrix; with many classes, the most frequent confusions."""
    title = "Confusions"
    if len(names) <= MAX_MATRIX:
        cells = "" if counted == "images" else " Cells hold percent of the row."
        note = (
            f"Rows are the truth, columns the prediction.{cells} The shade is the share of the row, on a square-root"
            " scale, so that rare confusions show."
        )
        return Section(title, _heat_map(matrix, names, counted), [note])
    pairs = largest_confusions(matrix)
    if not pairs:
        return Section(title, empty("None."), ["Pairs of classes that were confused."])
    totals = matrix.sum(axis=1)
    columns = [
        Column("Truth", "name", [names[i] for i, _ in pairs]),
        Column("Predicted", "name", [names[j] for _, j in pairs]),
        Column(counted.capitalize(), "count", [int(matrix[pair]) for pair in pairs]),
        Column("Share", "share", [matrix[i, j] / totals[i] for i, j in pairs]),
    ]
    note = f"The {count(len(pairs), 'most frequent pair')}, with the share of the true class's {counted}."
    return Section(title, table(columns, range(len(pairs))), [note])


def _wrong(matrix: Matrix) -> Matrix:
    """The matrix without its diagonal."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    return wrong


def _divide(part: Matrix, total: Matrix) -> Fractions:
    fractions: Fractions = np.divide(part, total, out=np.full(len(total), np.nan), where=total > 0)
    return fractions


def _heat_map(matrix: Matrix, names: Sequence[str], counted: Counted) -> Markup:
    digits = len(str(int(matrix.max(initial=0)))) if counted == "images" else len("100")
    longest = max((len(name) for name in names), default=0)
    rows = [
        [_cell(int(cell), int(row.sum()), name, other, counted) for cell, other in zip(row, names, strict=True)]
        for name, row in zip(names, matrix, strict=True)
    ]
    return render(
        "confusion.html",
        names=names,
        rows=zip(names, rows, strict=True),
        turned=longest > (6 if len(names) <= 5 else 3),  # characters that fit a cell on a phone
        longest=longest,
        narrowest=f"{max(1.75, 0.55 * digits + 0.5):g}",
    )


def _cell(cell: int, total: int, truth: str, predicted: str, counted: Counted) -> Cell:
    title = f"truth {clip(truth)}, predicted {clip(predicted)}: {cell} of {total}"
    if not cell:
        return Cell("0", title, "", "none")
    fraction = cell / total
    # What is not all never reads 100
    text = str(cell) if counted == "images" else str(min(round(100 * fraction), 100 if cell == total else 99))
    shade = float(np.sqrt(fraction))
    kind: Literal["", "mid", "full"] = "full" if shade > 0.82 else "mid" if shade > 0.6 else ""
    return Cell(text, f"{title} ({percent(fraction)})", f"{shade:.2f}", kind)


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

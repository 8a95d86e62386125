"""`data.html`: what was read of a data set, and pictures with their annotations as the network gets them.

    write_data_page(run / "data.html", splits)               # `train` writes it into the run directory
    write_data_page(Path("data.html"), splits, report)       # `doctor --html data.html`, with its findings

Pictures are shown after reading and before augmentation: upright, with the boxes, masks or labels that training uses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from resnest.data.checks import DatasetReport
from resnest.data.samples import Samples
from resnest.data.sources import Splits
from resnest.report.page import Section, count, write_html
from resnest.report.parts import Caption, Column, Layout, Picture, empty, pictures_of, table
from resnest.runtime.bands import orientation_of
from resnest.runtime.decode import BadImage
from resnest.runtime.palette import Colour
from resnest.tasks import load_object, task_info

SHOWN = {"train": 12, "val": 8}  # pictures of each split
MOST_CLASSES = 200
MOST_PAIRS = 12  # near duplicates
TITLES = {"train": "Training pictures", "val": "Validation pictures"}


class DataView:
    """Pictures with their annotations, and the table of classes; the base class of each task's own."""

    layout: Layout = "small"

    def picture(self, samples: Any, index: int) -> Picture:
        """Image `index` with its annotations. Raises BadImage."""
        caption = Caption(", ".join(samples.names_of(index)), strong=True)
        return Picture(name=samples.keys[index], images=[samples.decode(index)], captions=[caption])

    def columns(self, train: Any, val: Any) -> list[Column]:
        """What is known of each class before an image is decoded."""
        return [
            Column("Class", "name", train.class_names),
            Column("Training images", "count", train.counts()),
            Column("Validation images", "count", val.counts()),
        ]

    def colours(self, samples: Any) -> Sequence[Colour]:
        """Of the classes in the pictures, if they have any."""
        return ()


def write_data_page(
    path: Path,
    splits: Splits,
    report: DatasetReport | None = None,
    *,
    first: Sequence[Section] = (),
    script: str = "",
) -> None:
    """Write the page atomically. Images that cannot be used are listed.

    Args:
        first: sections before the others, and the script that they need.
    """
    view: DataView = load_object(task_info(splits.train.task).data_view or f"{__name__}:DataView")()
    parts: dict[str, Samples] = {"train": splits.train, "val": splits.val}
    sections = [_pictures_section(view, name, samples) for name, samples in parts.items()]
    write_html(
        path,
        "data.html",
        kind="Data",
        title=PurePath(splits.where).name or splits.where,
        description=report.description if report else splits.describe(),
        facts=_facts(splits, report),
        script=script,
        sections=[
            *first,
            *_findings(report),
            _classes_section(view, splits),
            *sections,
            *_near_section(splits, report),
        ],
        footnote="Pictures are shown as they are read, before augmentation: upright, with the annotations that training"
        " uses.",
    )


def _facts(splits: Splits, report: DatasetReport | None) -> dict[str, str]:
    facts = {
        "Format": splits.format,
        "Training images": f"{len(splits.train):,}",
        "Validation images": f"{len(splits.val):,}{' (held out)' if splits.unsplit else ''}",
        "Classes": f"{len(splits.train.class_names):,}",
    }
    return {**facts, "Sizes": report.sizes} if report and report.sizes else facts


def _findings(report: DatasetReport | None) -> list[Section]:
    """The doctor's problems and notes."""
    if report is None:
        return []
    problems = _lines(report.problems) if report.problems else empty("No problems found.")
    return [Section("Problems", problems), *([Section("Notes", _lines(report.notes))] if report.notes else [])]


def _near_section(splits: Splits, report: DatasetReport | None) -> list[Section]:
    """Pictures of both parts that look alike, side by side."""
    if report is None or not report.near:
        return []
    pictures = []
    for pair in report.near[:MOST_PAIRS]:
        with contextlib.suppress(BadImage):  # removed since
            images = [splits.train.decode(pair.train), splits.val.decode(pair.val)]
            caption = Caption(f"training: {splits.train.keys[pair.train]}")
            pictures.append(Picture(name=splits.val.keys[pair.val], images=images, captions=[caption]))
    notes = [
        f"{count(len(report.near), 'validation picture looks', 'validation pictures look')} almost like a training"
        " picture. Left the training picture, right the validation picture."
    ]
    return [Section("Near duplicates", pictures_of(pictures, "pair"), notes)]


def _lines(lines: Sequence[str]) -> Markup:
    return Markup('<ul class="lines">{}</ul>').format(Markup("").join(Markup("<li>{}</li>").format(i) for i in lines))


def _classes_section(view: DataView, splits: Splits) -> Section:
    columns, classes = view.columns(splits.train, splits.val), len(splits.train.class_names)
    notes = [f"{MOST_CLASSES} of {count(classes, 'class', 'classes')} are listed."] if classes > MOST_CLASSES else []
    shown = range(min(classes, MOST_CLASSES))
    return Section("Classes", table(columns, shown, view.colours(splits.train)), notes)


def _pictures_section(view: DataView, split: str, samples: Samples) -> Section:
    pictures, bad = [], []
    for index in spread(samples.groups(), SHOWN[split]).tolist():
        try:
            pictures.append(_with_orientation(view.picture(samples, index), samples, index))
        except BadImage as error:
            bad.append(str(error))
    body = pictures_of(pictures, view.layout) if pictures else empty("None of the chosen pictures can be read.")
    note = f"{count(len(pictures), 'picture')} of {len(samples):,}, spread over all of them."
    return Section(TITLES[split], body + (_lines(bad) if bad else Markup("")), [note])


def _with_orientation(picture: Picture, samples: Samples, index: int) -> Picture:
    """With a caption that names the EXIF orientation, where the file has one."""
    orientation, upright = orientation_of(samples.read(index))
    if orientation == 1:
        return picture
    how = "read as stored" if samples.is_read_as_stored(samples.decode(index).size, upright) else "read upright"
    return replace(picture, captions=[*picture.captions, Caption(f"EXIF orientation {orientation}, {how}")])


def spread(groups: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Indices of at most so many images, of each group in turn and evenly within each; ascending.

    >>> spread(np.array([0, 0, 0, 0, 0, 0, 1]), 3)
    array([0, 5, 6])
    """
    order = np.argsort(groups, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1) if len(order) else []
    members = [members[number] for number in _evenly(len(members), most)]
    chosen: list[int] = []
    for number, own in enumerate(sorted(members, key=len)):
        wanted = -(-(most - len(chosen)) // (len(members) - number))  # what small groups lack, larger ones give
        chosen += own[_evenly(len(own), wanted)].tolist()
    return np.array(sorted(chosen), np.int64)


def _evenly(count: int, most: int) -> NDArray[np.int64]:
    """At most so many of the numbers below `count`."""
    return np.linspace(0, max(count - 1, 0), min(count, most)).round().astype(np.int64)

"""The page to go through: pictures of each kind of finding, with keys for decisions and a list to save.

write_review(Path("page.html"), report, review)      # page.html, and page.csv beside it
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from resnest.data.checks import DatasetReport
from resnest.data.sources import Splits
from resnest.health.findings import KINDS, Finding, Place, Review, check_decisions, row_of, write_decisions
from resnest.report.data_page import DataView, write_data_page
from resnest.report.page import Section, count, render
from resnest.report.parts import data_uri, empty
from resnest.runtime.decode import BadImage
from resnest.tasks import load_object, task_info

SHOWN = 100  # pictures of a kind on the page; the list has all
SCRIPT = "review.js"
SIDE = 320  # pixels of a picture's longer side


def list_of(page: Path) -> Path:
    """The list of decisions beside a page."""
    return page.with_suffix(".csv")


def check_review(page: Path) -> None:
    """Raises ResnestError if the list beside a page cannot be replaced."""
    check_decisions(list_of(page))


def write_review(page: Path, report: DatasetReport, review: Review) -> Path:
    """Write the page and the list beside it; returns the list's path. Raises ResnestError: one cannot be written."""
    splits = report.splits
    assert splits is not None
    sections = [section for kind in KINDS if (section := _section(kind, review.of(kind), splits))]
    items = sum(min(len(review.of(kind)), SHOWN) for kind in KINDS)
    bar = render("review_bar.html", total=items, name=list_of(page).name) if items else empty("Nothing to look at.")
    notes = [*review.notes, "The list that is saved is for training: data.exclude."]
    first = [Section("To go through", bar, notes), *sections]
    write_data_page(page, splits, report, first=first, script=SCRIPT if items else "")
    write_decisions(list_of(page), review, splits)
    return list_of(page)


def _section(kind: str, findings: list[Finding], splits: Splits) -> Section | None:
    view: DataView = load_object(task_info(splits.train.task).data_view or "resnest.report.data_page:DataView")()
    items = [item for finding in findings[:SHOWN] if (item := _item(finding, splits, view))]
    if not items:
        return None
    known = KINDS[kind]
    shown = (
        f"{count(len(items), 'picture')} of {len(findings):,}; the list has all." if len(items) < len(findings) else ""
    )
    notes = [f"{count(len(findings), 'picture')}. The number is the {known.score}.", *([shown] if shown else [])]
    return Section(known.title, render("review.html", kind=kind, items=items), notes)


def _item(finding: Finding, splits: Splits, view: DataView) -> dict[str, Any] | None:
    """What the page shows of a finding; None if its picture cannot be read any more."""
    places = [finding.place, *([finding.other] if finding.other else [])]
    try:
        images = [_drawn(place, splits, view) for place in places]
    except BadImage:
        return None
    row = row_of(finding, splits)
    return {
        "row": row,
        "uris": [data_uri(image, SIDE) for image in images],
        "names": [f"{place.part}: {getattr(splits, place.part).keys[place.index]}" for place in places],
        "text": _text(row),
        "score": f"{finding.score:.3g}",
    }


def _drawn(place: Place, splits: Splits, view: DataView) -> Image.Image:
    """The picture with its annotations, as the page about the data shows it."""
    return view.picture(getattr(splits, place.part), place.index).images[-1]


def _text(row: dict[str, Any]) -> str:
    if row["suggestion"]:
        return f"{row['label']}, or {row['suggestion']}?"
    return str(row["label"])

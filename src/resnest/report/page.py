"""Writing the report: one self-contained HTML file, from a task's sections.

    write_page(run / "report.html", RunLog(title="flowers", metrics=lines, facts={}, recipe=yaml), report)

Templates are in `templates/`, styles in `style.css`. Templates escape all text except `Markup`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from resnest import figures
from resnest.files import WRITTEN, write_atomically

NO_BREAK = "\u00a0"  # the space that keeps a number and its unit on one line


@dataclass(frozen=True)
class Headline:
    """One large figure."""

    fraction: float
    lines: Sequence[str]  # the first one names it
    digits: int = 1


@dataclass(frozen=True)
class Section:
    """A titled part of the page."""

    title: str
    body: Markup
    notes: Sequence[str] = ()  # paragraphs that say how to read it


@dataclass(frozen=True, kw_only=True)
class Report:
    """A task's sections of the report."""

    kind: str  # "Image classification"
    headlines: Sequence[Headline]  # none before the first evaluation
    sections: Sequence[Section]
    footnote: str


@dataclass(frozen=True, kw_only=True)
class RunLog:
    """The contents of every page, for any task."""

    title: str  # the run's name
    metrics: Sequence[Mapping[str, Any]]  # the lines of metrics.jsonl
    facts: Mapping[str, str]  # short label -> value, in order
    recipe: str  # the resolved recipe as YAML text
    bad_images: int = 0  # images skipped because they could not be read
    data_page: str = ""  # the page about the data, relative to this one


def write_page(path: Path, run: RunLog, report: Report) -> None:
    """Write the page atomically."""
    write_html(
        path,
        "page.html",
        kind=report.kind,
        title=run.title,
        facts=run.facts,
        sections=report.sections,
        footnote=report.footnote,
        run=run,
        report=report,
    )


def write_html(path: Path, template: str, *, script: str = "", **values: Any) -> None:
    """Write a page that extends `base.html` atomically.

    Args:
        script: a file beside `style.css`; the page runs it, and by its hash nothing else.
    """
    code = files(__package__).joinpath(script).read_text(encoding="utf-8").strip() if script else ""
    digest = base64.b64encode(hashlib.sha256(f"\n{code}\n".encode()).digest()).decode()
    style = Markup(files(__package__).joinpath("style.css").read_text(encoding="utf-8"))
    may_run = Markup(f"; script-src 'sha256-{digest}'") if code else ""
    text = render(template, style=style, generator=WRITTEN, script=Markup(code), may_run=may_run, **values)
    write_atomically(path, text.encode(errors="replace"))  # a file name that is no UTF-8 has lone surrogates


def render(template: str, **values: Any) -> Markup:
    """One template as HTML."""
    html = _environment().get_template(template).render(values)
    return Markup(html.replace(NO_BREAK, "&nbsp;"))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("resnest.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"clip": clip, "clip_path": clip_path, "percent": percent, "count": count}
    return environment


def percent(fraction: float, digits: int = 1) -> str:
    """A fraction in percent, as on the page: only 1 is shown as 100 %."""
    return figures.percent(fraction, digits, unit=f"{NO_BREAK}%", exact_ends=True)


def clip(text: str, limit: int = 60) -> str:
    """Text of at most `limit` characters: names of folders may have any length."""
    return text if len(text) <= limit else text[: limit - 1] + "\u2026"


def clip_path(text: str, limit: int = 120) -> str:
    """A path of at most `limit` characters; its end is kept."""
    return text if len(text) <= limit else "\u2026" + text[1 - limit :]


def count(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun: "1 image", "1,797 images"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"

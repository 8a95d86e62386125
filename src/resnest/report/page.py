"""The page around the evidence: skeleton, sections, and how text and numbers are written in HTML.

    write_atomically(path, page("flowers", [header, section("Curves", "Loss and accuracy.", plots)]))

Functions return HTML. Arguments called `body`, `note`, `header`, `footer` and `sections` are HTML already; any other
text is escaped.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable
from pathlib import Path

from resnest.files import replacing
from resnest.report.style import CSS

# The page fetches nothing and runs nothing, whatever a file name or a recipe may contain: the browser sees to it.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(title: str, header: str, sections: Iterable[str], *, footer: str) -> str:
    """The whole document. The empty icon keeps browsers from asking the server for one."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{clip(title, 200)}</title>
<link rel="icon" href="data:,">
<style>{CSS}</style>
</head>
<body>
<main>
{header}
{"".join(sections)}
</main>
<footer>{footer}</footer>
</body>
</html>
"""


def section(title: str, note: str, body: str) -> str:
    """A titled part of the page, with a note that says how to read it."""
    return f"""<section>
<div class="side"><h2>{escape(title)}</h2><p class="note">{note}</p></div>
<div class="body">{body}</div>
</section>
"""


def facts(items: Iterable[tuple[str, str]]) -> str:
    """Short labels with their values."""
    rows = "".join(f"<div><dt>{clip(label)}</dt><dd>{escape(value)}</dd></div>" for label, value in items)
    return f'<dl class="facts">{rows}</dl>' if rows else ""


def escape(text: str) -> str:
    """Text as HTML, also inside a quoted attribute."""
    return html.escape(text, quote=True)


def clip(text: str, limit: int = 60) -> str:
    """Escaped text of at most `limit` characters: names come from folders and may be of any length."""
    return escape(text if len(text) <= limit else text[: limit - 1] + "\u2026")


def clip_path(text: str, limit: int = 120) -> str:
    """Escaped text of at most `limit` characters; of a path, the end tells more than the beginning."""
    return escape(text if len(text) <= limit else "\u2026" + text[1 - limit :])


def percent(share: float, digits: int = 1) -> str:
    """A fraction as percent; NaN is "-". What is not everything never reads 100 %, nor what is something 0 %."""
    if math.isnan(share):
        return "-"
    shown, unit = round(100 * share, digits), 10.0**-digits
    if 0 < share < 1:
        shown = min(max(shown, unit), 100 - unit)
    return f"{shown:.{digits}f}&nbsp;%"


def count(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun: "1 image", "1,797 images"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def class_notes(*first: str, classes: int, shown: int, without: int, things: str = "images") -> str:
    """The note beside a table of classes: what is said first, how many are left out, how many have no `things`."""
    notes = list(first)
    if left_out := classes - shown:
        notes.append(f"{shown} of {count(classes, 'class', 'classes')} are shown, {left_out:,} are left out.")
    if without:
        notes.append(f"{count(without, 'class has', 'classes have')} no {things}.")
    return '</p><p class="note">'.join(notes)


def write_atomically(path: Path, text: str) -> None:
    """Readers see the old file or the whole new one. A lone surrogate (a file name that is no UTF-8) becomes "?"."""
    with replacing(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", errors="replace"))

"""Texts in fonts that have their letters: Pillow's own font, else one of the system or matplotlib's DejaVu.

    drawn_names(("кот", "猫"))                    # the names, or numbers of those that no font here has
    width = text_width("кот 91%", 20)
    write(pen, (x, y), "кот 91%", 20, fill=INK, anchor="lm")

RESNEST_FONT names a file to use first (.ttf, .otf, .ttc). A text is in one font if one has all of its letters.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

from PIL import ImageDraw, ImageFont, features

from resnest.errors import ResnestError, printable

VARIABLE = "RESNEST_FONT"
BUILT_IN = ""  # Pillow's own font, which has the letters of English
SUFFIXES = (".ttf", ".otf", ".ttc")
FAMILIES = ("dejavusans", "notosanscjk", "notosans", "arialunicode", "arial", "liberationsans", "msgothic", "malgun")
STYLES = ("bold", "italic", "oblique", "mono", "serif", "condensed", "light", "thin", "black", "medium")
NO_FONTS = ("lastresort", "adobeblank")  # they have a box, or nothing, for every letter
ABSENT = "\U0010fffe"  # no character: what a font shows for a letter that it does not have
RIGHT_TO_LEFT = ("R", "AL")  # letters that Pillow puts into order with raqm alone
LIST = 5  # names in the warning

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@lru_cache(maxsize=64)
def drawn_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names on one line each; the number of a class whose letters no font has, with one warning for all."""
    lines = [printable(" ".join(name.split())) for name in names]
    lacking = {number: line for number, line in enumerate(lines) if not _can_draw(line)}
    if lacking:
        told = ", ".join(f"{number} {line}" for number, line in [*lacking.items()][:LIST])
        warnings.warn(
            f"no font here has the letters of {len(lacking)} classes, which are drawn as numbers:"
            f" {told}{', ...' if len(lacking) > LIST else ''}. Set {VARIABLE}=FILE.ttf to a font that has them",
            stacklevel=2,
        )
    return tuple(str(number) if number in lacking else line for number, line in enumerate(lines))


def _can_draw(text: str) -> bool:
    return all(_font_for(frozenset(letter)) is not None for letter in _letters(text))


def text_width(text: str, size: float) -> float:
    """Pixels."""
    return sum(font.getlength(part) for font, part in _runs(text, size))


def write(
    pen: ImageDraw.ImageDraw, place: tuple[float, float], text: str, size: float, *, anchor: str = "la", **style: Any
) -> None:
    """Write a text at `place`, which `anchor` is of as in Pillow."""
    runs = _runs(text, size)
    shift = {"l": 0.0, "m": 0.5, "r": 1.0}[anchor[0]] * (text_width(text, size) if anchor[0] != "l" else 0)
    x = place[0] - shift
    for font, part in runs:
        pen.text((x, place[1]), part, font=font, anchor=f"l{anchor[1]}", **style)
        x += font.getlength(part)


def _runs(text: str, size: float) -> list[tuple[Font, str]]:
    """The text in one font, or if none has all letters, in parts."""
    whole = _font_for(frozenset(_letters(text)))
    if whole is not None:
        return [(_opened(whole, size), text)]
    found: list[tuple[str, str]] = []
    for letter in text:  # spaces and marks go with what they follow
        own = _font_for(frozenset(letter)) if _letters(letter) else None
        before = found[-1][0] if found else BUILT_IN
        found.append((before if own is None else own, letter))
    parts = [(path, "".join(letter for _, letter in run)) for path, run in groupby(found, key=lambda one: one[0])]
    return [(_opened(path, size), part) for path, part in parts]


@lru_cache(maxsize=4096)
def _font_for(letters: frozenset[str]) -> str | None:
    """The first font that has these letters."""
    if any(unicodedata.bidirectional(letter) in RIGHT_TO_LEFT for letter in letters) and not features.check("raqm"):
        return None
    return next((path for path in _fonts() if all(_has(path, letter) for letter in letters)), None)


def _letters(text: str) -> Sequence[str]:
    """What needs a shape of its own: no spaces, marks, joiners."""
    return [letter for letter in text if unicodedata.category(letter)[0] not in "CMZ"]


@cache
def _has(path: str, letter: str) -> bool:
    font = _opened(path, 16)
    if not isinstance(font, ImageFont.FreeTypeFont):
        return letter.isascii()
    shape, absent = font.getmask(letter), _absent(path)
    return (shape.size, bytes(shape)) != absent


@cache
def _absent(path: str) -> tuple[tuple[int, int], bytes]:
    shape = _opened(path, 16).getmask(ABSENT)
    return shape.size, bytes(shape)


@lru_cache(maxsize=64)
def _opened(path: str, size: float) -> Font:
    return ImageFont.load_default(size) if path == BUILT_IN else ImageFont.truetype(path, size)


@cache
def _fonts() -> tuple[str, ...]:
    """All fonts that can be used, in order of preference."""
    own = os.environ.get(VARIABLE)
    if own and not _usable(own):
        raise ResnestError(f"{VARIABLE}={own} is not a font that can be opened")
    rest = sorted({path for folder in _folders() for path in _files(folder)}, key=_preference)
    return (*([own] if own else []), BUILT_IN, *filter(_usable, map(str, rest)))


def _usable(path: str) -> bool:
    try:
        ImageFont.truetype(path, 16).getmask("a")
    except (OSError, ValueError):
        return False
    return True


def _preference(path: Path) -> tuple[int, int, str]:
    name = path.stem.lower().replace("-", "").replace("_", "").replace(" ", "")
    family = next((place for place, known in enumerate(FAMILIES) if name.startswith(known)), len(FAMILIES))
    return sum(style in name for style in STYLES), family, str(path)


def _files(folder: Path) -> Iterator[Path]:
    for top, _, names in os.walk(folder):
        for name in names:
            if name.lower().endswith(SUFFIXES) and not name.lower().startswith(NO_FONTS):
                yield Path(top, name)


def _folders() -> Iterator[Path]:
    """Where systems have fonts (fontconfig's usual folders; macOS; Windows), and matplotlib's."""
    home = Path(os.path.expanduser("~"))
    if sys.platform == "win32":
        yield Path(os.environ.get("WINDIR", r"C:\Windows"), "Fonts")
        yield home / "AppData/Local/Microsoft/Windows/Fonts"
    elif sys.platform == "darwin":
        yield from (Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library/Fonts")
    else:
        shared = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
        yield from (Path(folder, "fonts") for folder in shared.split(":") if folder)
        yield from (home / ".local/share/fonts", home / ".fonts")
    plots = importlib.util.find_spec("matplotlib")
    if plots and plots.origin:
        yield Path(plots.origin).parent / "mpl-data/fonts/ttf"

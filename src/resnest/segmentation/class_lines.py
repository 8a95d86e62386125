"""Text files of classes, a class a line: name, value and colour in the orders that tools write them.

    parse_lines("0: sky\\n1: road")                      # [Line("0: sky", "sky", 0), Line("1: road", "road", 1)]

Numbers before and behind a name tell what they are by how many there are, see `FORMS`. Lines of one file must agree;
what could be read in two ways is refused, with the line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from resnest.errors import ResnestError
from resnest.runtime.palette import Colour

# CVAT's labelmap.txt, label:color_rgb:parts:actions (its documentation, "Segmentation mask"): parts and actions are
# no classes of pixels.
CVAT = re.compile(r"(?P<name>[^:]+):(?P<colour>(?:\d+\s*,\s*\d+\s*,\s*\d+)?)(?P<rest>:[^:]*:[^:]*|:[^:]*)")
NUMBER_FIRST = re.compile(r"[\[({]?(\d+)(\s*[:=,;|.)\]}]+\s*|\s+-\s+|\s+)(?=\S)")
NUMBER_LAST = re.compile(r"(?<=[^\s,:;=|(\[{])([\s,:;=|(\[{]+)(\d+)[\s,;:)\]}]*$")
HEX_LAST = re.compile(r"[\s,:;=]+#([0-9a-fA-F]{6})$")
BORDER = 255  # the value of pixels that do not count, by custom
UNNUMBERED = "__ignore__"  # of labelme's labels.txt, without a value: it is written as 255

FORMS = "`name`, `value name`, `name r g b`, `r g b name`, `value name r g b`"


@dataclass(frozen=True)
class Line:
    """A class; without a value, its place in the file is its value."""

    text: str  # the line
    name: str
    value: int | None = None
    colour: Colour | None = None
    # a number behind the name, with what parts them: a value or a part of the name, as the other lines have it
    last: tuple[str, int] | None = None
    alpha: bool = False  # a fourth number behind the colour, which another line's name may end with


def parse_lines(text: str) -> list[Line]:
    """The classes of a file. Raises ResnestError: lines that can be read in two ways, or not at all."""
    stripped = [raw.strip().rstrip(",") for raw in text.splitlines()]
    lines = [_parse(line.removeprefix("- ")) for line in stripped if line and not line.startswith("#")]
    return _agreed(_number_last(lines))


def _parse(text: str) -> Line:
    if (match := CVAT.fullmatch(text)) and (match["colour"] or match["rest"].count(":") > 1):
        parts = [int(part) for part in re.findall(r"\d+", match["colour"])]
        return Line(text, _name(match["name"]), colour=_triple(parts) if parts else None)
    rest = text
    first: list[int] = []
    while match := NUMBER_FIRST.match(rest):
        first.append(int(match[1]))
        rest = rest[match.end() :]
    hexadecimal = HEX_LAST.search(rest)
    if hexadecimal:
        rest = rest[: hexadecimal.start()]
    bare, separators = rest, ""
    last: list[int] = []
    while match := NUMBER_LAST.search(bare):
        last.insert(0, int(match[2]))
        separators = match[1] + separators
        bare = bare[: match.start()]
    if hexadecimal and len(first) < 2:
        code = int(hexadecimal[1], 16)
        return Line(text, _name(rest), first[0] if first else None, (code >> 16, code >> 8 & 255, code & 255))
    return _by_counts(text, first, last, bare, rest, separators)


def _by_counts(text: str, first: list[int], last: list[int], bare: str, rest: str, separators: str) -> Line:
    """What the numbers before and behind a name are.

    Args:
        bare: without the numbers behind it.
        rest: with them.
        separators: between those.
    """
    plain = not separators.strip(" ")  # spaces alone: perhaps numbers of the name
    value = first[0] if first else None
    if len(first) in (0, 1) and len(last) == 3:
        return Line(text, _name(bare), value, _triple(last))
    if len(first) == 1 and len(last) == 4:  # FreeSurfer: value, name, red, green, blue, alpha
        return Line(text, _name(bare), value, _triple(last[:3]), alpha=True)
    if len(first) == 7 and not last:  # ITK-SNAP: value, red, green, blue, alpha, visibility, mesh
        return Line(text, _name(bare), value, _triple(first[1:4]))
    if len(first) == 3 and not last:
        return Line(text, _name(rest), colour=_triple(first))
    of_name = not last or (len(last) < 3 and plain)
    if of_name and (len(first) == 1 or (not first and len(last) != 1)):
        return Line(text, _name(rest), value)
    if not first and len(last) == 1:
        return Line(text, _name(rest), last=(separators.strip(" "), last[0]))
    raise ResnestError(f"the line {text!r} can be read in several ways: expected {FORMS}")


def _name(text: str) -> str:
    name = text.strip().rstrip(":;,=").strip()
    return name[1:-1].strip() if len(name) > 1 and name[0] == name[-1] and name[0] in "\"'" else name


def _triple(parts: Sequence[int]) -> Colour:
    return parts[0], parts[1], parts[2]


def _number_last(lines: list[Line]) -> list[Line]:
    """Numbers behind the names: values, or parts of the names. Raises ResnestError where both is possible."""
    numbered = [line for line in lines if line.last]
    firm = next((line for line in numbered if line.last and line.last[0]), None)
    other = next((line for line in lines if not line.last or (firm and not line.last[0])), None)
    if firm and other:
        raise ResnestError(f"the line {firm.text!r} has a value behind the name, and {other.text!r} has none")
    if not numbered or other:
        return lines
    bare = [_name(line.text[: match.start()]) for line in lines if (match := NUMBER_LAST.search(line.text))]
    values = [line.last[1] for line in numbered if line.last]
    if not firm and (len(set(bare)) < len(lines) or len(set(values)) < len(lines)):
        return lines
    if not firm and values != list(range(len(lines))):
        raise ResnestError(
            f"the number in the line {lines[0].text!r} may be its value or a part of its name: write"
            f" `{values[0]} {bare[0]}`, or `0 {lines[0].name}`, and so in every line"
        )
    return [Line(line.text, name, value) for line, name, value in zip(lines, bare, values, strict=True)]


def _agreed(lines: list[Line]) -> list[Line]:
    """Raises ResnestError if only some lines have a value, but for 255, which is no line's place, or an alpha."""
    valued = next((line for line in lines if line.value not in (None, BORDER)), None)
    bare = next((line for line in lines if line.value is None and line.name != UNNUMBERED), None)
    coloured = next((line for line in lines if line.colour and not line.alpha), None)
    other = next((line for line in lines if line.alpha), None)
    if coloured and other:
        raise ResnestError(f"the line {coloured.text!r} has three numbers behind the name, and {other.text!r} four")
    if valued and bare:
        raise ResnestError(
            f"the line {valued.text!r} begins with a number and {bare.text!r} does not: begin every line with its"
            " value, or none"
        )
    return lines

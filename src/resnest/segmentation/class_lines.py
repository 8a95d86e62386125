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
ARROW = re.compile(r"\s*(?:[-=]+>|\u2192)\s*")
VALUE_KEY = r"[\"']?(?:id|index|value|label[ _]?id|class[ _]?id)[\"']?\s*[:=]\s*[\"']?(?P<value>\d+)[\"']?"
NAME_KEY = r"[\"']?(?:name|class|class[ _]?name|label)[\"']?\s*[:=]\s*(?P<name>[^,;{}]+?)"
RECORD = re.compile(rf"\{{?\s*{VALUE_KEY}\s*[,; ]\s*{NAME_KEY}\s*\}}?", re.IGNORECASE)  # id: 2, name: sky
RECORD_TURNED = re.compile(rf"\{{?\s*{NAME_KEY}\s*[,; ]\s*{VALUE_KEY}\s*\}}?", re.IGNORECASE)
BRACKETS = ("{", "}", "[", "]", "(", ")")  # lines that begin or end a mapping
COMMENT = re.compile(r"#")
NUMBERED_COMMENT = re.compile(r"#\s*\d+\s*[:=,.]?\s*\S+.*")
# A number and a sign that parts it from a name, in what would be a name: `class2: sky`, `sky, class 2`
STRUCTURED = re.compile(r"\d.*[:=,;|\t]|[:=,;|\t].*\d")
BRACKET = re.compile(r"^[\[{(]|[\[{(=:]$|[{}]")
# Names with a number at an end, without a space; of the last ones only numbers that may be places count
GLUED = tuple(
    (re.compile(pattern), permuted)
    for pattern, permuted in (
        (r"(?P<name>.*?[^\d_-])[_-](?P<value>\d{1,9})", False),
        (r"(?P<value>\d{1,9})_(?P<name>.*)", False),
        (r"(?P<name>.*?[^\d_-])(?P<value>\d{1,9})", True),
        (r"(?P<value>\d{1,9})-?(?P<name>[^\d_-].*)", True),
    )
)
QUOTES = "\"'"
LONGEST, MOST_SHOWN = 1000, 80  # characters of a line, and of one in a message
BORDER = 255  # the value of pixels that do not count, by custom
UNNUMBERED = "__ignore__"  # of labelme's labels.txt, without a value: it is written as 255

UNCOUNTED = ("void", "ignore", "ignored", "unlabelled", "unlabeled", UNNUMBERED)

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
    written = [line for line in stripped if line and line not in BRACKETS]
    _check_written(written)
    if (first := NUMBERED_COMMENT.match(written[0] if written else "")) and all(map(COMMENT.match, written)):
        raise ResnestError(f"the line {shown(first[0])} begins with #, as comments do: write lines without it")
    if written and written[0][0] in "{[" and written[-1][-1] in "}]" and written[0][-1] not in "}])":
        written = [written[0][1:].strip(), *written[1:-1], written[-1][:-1].strip()]  # of a Python or JSON mapping
    lines = [_parse(line.removeprefix("- ")) for line in written if not COMMENT.match(line)]
    lines = _agreed(_number_last(lines))
    _check_names(lines)
    return lines


def _check_written(lines: Sequence[str]) -> None:
    """Raises ResnestError for a line that is none of a list."""
    for line in lines:
        if len(line) > LONGEST:
            raise ResnestError(f"a line has {len(line)} characters ({shown(line)}): expected a class a line")


def _check_names(lines: Sequence[Line]) -> None:
    """Raises ResnestError for names that seem to have a value in them, which the order of lines may contradict."""
    for line in lines:
        quoted = line.text[0] == line.text[-1] and line.text[0] in QUOTES
        number_first = line.value is not None and NUMBER_FIRST.match(line.text)
        odd = BRACKET.search(line.name) or (not number_first and STRUCTURED.search(line.name))
        if odd and not quoted:
            raise ResnestError(f"the line {shown(line.text)} can be read in several ways: expected {FORMS}")
    heads = [line for line in lines if line.text[-1] in ":=" and not CVAT.fullmatch(line.text)]
    if heads and len(heads) < len(lines):
        raise ResnestError(f"the line {shown(heads[0].text)} ends with a sign and others do not: expected {FORMS}")
    named: dict[str, Line] = {}
    for line in lines:
        before = named.setdefault(line.name, line)
        if before is not line and line.text[0].isdigit() and line.name.lower() not in UNCOUNTED:
            raise ResnestError(
                f"{shown(before.text)} and {shown(line.text)} are both {shown(line.name)} with the numbers as values:"
                " quote names that begin with a number"
            )
    unvalued = [line for line in lines if line.value is None and line.name != UNNUMBERED]
    if any(line.text[0] in QUOTES for line in unvalued):
        return
    numbers = [int(line.name) for line in unvalued if line.name.isdecimal()]
    if unvalued and len(numbers) == len(unvalued) and numbers != list(range(len(numbers))):
        raise ResnestError(
            f"the line {shown(unvalued[0].text)} is a number, which may be a value or a name: write"
            f" `{numbers[0]} {numbers[0]}`, or `0 {numbers[0]}`, and so in every line"
        )
    for pattern, permuted in GLUED:
        found = [match for line in unvalued if (match := pattern.fullmatch(line.name))]
        numbers = [int(match["value"]) for match in found]
        count = len(unvalued)
        if len(found) < max(2, count) or len({match["name"] for match in found}) < count or len(set(numbers)) < count:
            continue
        places = sorted(numbers) in (list(range(count)), list(range(1, count + 1)))
        if numbers != list(range(count)) and (places or not permuted):
            raise ResnestError(
                f"the number in the line {shown(unvalued[0].text)} may be its value or a part of its name: write"
                f" `{numbers[0]} {found[0]['name']}`, or `0 {unvalued[0].name}`, and so in every line"
            )


def shown(text: str) -> str:
    """A text in a message."""
    return repr(text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}...")


def _parse(text: str) -> Line:
    if match := RECORD.fullmatch(text) or RECORD_TURNED.fullmatch(text):
        return Line(text, _name(match["name"]), int(match["value"]))
    text = ARROW.sub(": ", text)
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
    raise ResnestError(f"the line {shown(text)} can be read in several ways: expected {FORMS}")


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
        raise ResnestError(f"the line {shown(firm.text)} has a value behind the name, and {shown(other.text)} has none")
    if not numbered or other:
        return lines
    bare = [_name(line.text[: match.start()]) for line in lines if (match := NUMBER_LAST.search(line.text))]
    values = [line.last[1] for line in numbered if line.last]
    if not firm and (len(set(bare)) < len(lines) or len(set(values)) < len(lines)):
        return lines
    if not firm and values != list(range(len(lines))):
        raise ResnestError(
            f"the number in the line {shown(lines[0].text)} may be its value or a part of its name: write"
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
        raise ResnestError(
            f"the line {shown(coloured.text)} has three numbers behind the name, and {shown(other.text)} four"
        )
    if valued and bare:
        raise ResnestError(
            f"the line {shown(valued.text)} begins with a number and {shown(bare.text)} does not: begin every line"
            " with its value, or none"
        )
    return lines

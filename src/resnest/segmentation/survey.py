"""A look at some masks of a part before anything is trained: what their values tell about the class list.

    survey = survey_masks(store, keys)                     # Survey
    listed, notes = settle(listed, survey, "streets")      # the list, with 255 as a class where it must be one

At most SAMPLE masks are read, spread over the part. What a mask that was not looked at contradicts is found when it is
read (`MaskMeaning.read`), so in training and by the doctor.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

from resnest.data.stores import FolderStore, Store, read_from
from resnest.errors import ResnestError
from resnest.runtime.decode import BadImage
from resnest.segmentation.card import IGNORED
from resnest.segmentation.class_lists import ClassList
from resnest.segmentation.mask_values import NO_COLOURS, MaskMeaning, StoredMask, read_stored
from resnest.segmentation.result import PixelClasses

T = TypeVar("T")

SAMPLE, LEAST = 64, 16  # masks: at most, and at least of large ones
SAMPLE_BYTES = 50_000_000  # of values, after which large ones end the look: half a second of decoding
MOST_SHOWN = 5  # values in a message
STRIDE = 8  # the look goes over the part this many times, so that it is spread wherever it ends
NOTHING = ", and add `0 ignore` if 0 is no class"
ONE_WAY = "write all masks in one way, or list 255 too, as `255 ignore` if it does not count"


@dataclass(frozen=True)
class Survey:
    """What the masks that were looked at have; numbers only, of masks whose palette does not decide."""

    masks: int = 0  # that were looked at
    total: int = 0
    first: dict[int, str] = field(default_factory=dict)  # number -> the first mask with it
    lone: str = ""  # a mask with 255 and no number but 0
    beside: str = ""  # a mask with 255 and another number than 0
    coloured: str = ""  # a mask of colours
    grey: int = 0  # masks of three equal channels, of a list without colours
    by_palette: int = 0  # masks whose palette has the list's colours at other numbers

    @property
    def looked(self) -> str:
        """How many were looked at, for messages."""
        return f"all {self.total} masks" if self.masks == self.total else f"{self.masks} of {self.total} masks"

    def numbers(self) -> set[int]:
        """Without 255."""
        return set(self.first) - {IGNORED}


def survey_masks(
    store: FolderStore, keys: Sequence[str], meaning: MaskMeaning | None = None, *, whole: bool = False
) -> Survey:
    """Look at masks spread over a part, or at all; those that cannot be read are passed over."""
    found = Survey(total=len(keys))
    left = SAMPLE_BYTES
    for key in spread(keys, whole=whole):
        try:
            stored = read_stored(read_from(store, key), key)
            by_palette = bool(meaning and meaning.by_palette(stored, key))
        except BadImage:
            continue
        if stored.coloured and not (meaning and meaning.has_colours):
            stored = stored.numbered
            found = dataclasses.replace(found, grey=found.grey + (not stored.coloured))
        found = with_mask(found, stored, str(store.root / key), by_palette=by_palette)
        left -= stored.values.nbytes
        if left < 0 and found.masks >= LEAST and not whole:
            break
    return found


def spread(keys: Sequence[T], *, whole: bool = False) -> Iterator[T]:
    """SAMPLE of them, or all, in an order in which the first ones are spread over the part."""
    some = keys if whole else keys[:: max(1, -(-len(keys) // SAMPLE))]
    return (key for first in range(STRIDE) for key in some[first::STRIDE])


def with_mask(found: Survey, stored: StoredMask, name: str, *, by_palette: bool) -> Survey:
    """With one mask more."""
    found = dataclasses.replace(found, masks=found.masks + 1)
    if by_palette:
        return dataclasses.replace(found, by_palette=found.by_palette + 1)
    if stored.coloured:
        return dataclasses.replace(found, coloured=found.coloured or name)
    present = set(stored.present.tolist())
    for number in present:
        found.first.setdefault(number, name)
    if IGNORED in present:
        lone = present <= {0, IGNORED}
        return dataclasses.replace(
            found, lone=found.lone or (name if lone else ""), beside=found.beside or ("" if lone else name)
        )
    return found


def settle(listed: ClassList, survey: Survey, where: Path) -> tuple[ClassList, tuple[str, ...]]:
    """The class list as the masks use it, and what is assumed or odd.

    Where the masks have the greys that the list has as colours, these are its values. In a list of two classes that
    lacks 255, it is the second class where it is beside 0 alone. It does not count where the second class's own number
    is in the same mask, and in lists of more classes.

    Raises:
        ResnestError: masks in colours, and a list without; 255 stands for a class in some masks and its own number in
            others; a list of more classes, and masks of 0 and 255 alone.
    """
    notes = []
    if survey.by_palette:
        notes.append(
            f"classes by the colours of palettes, whose numbers are in another order than in the list, in"
            f" {survey.by_palette} of {survey.masks} masks looked at"
        )
    if survey.coloured and (survey.grey or not survey.first) and not any(row.colour for row in listed.every):
        raise ResnestError(f"{survey.coloured} {NO_COLOURS}")
    if survey.grey:
        notes.append(f"{survey.grey} of {survey.masks} masks looked at have three equal channels, which are the values")
    listed = dataclasses.replace(listed, in_colours=bool(survey.coloured))
    for step in (_by_grey, _with_255):
        listed, said = step(listed, survey, where)
        notes += said
    count = len(listed.every)
    if max(survey.numbers(), default=0) == count and sorted(row.value for row in listed.every) == list(range(count)):
        hint = f"the list's values are 0 to {count - 1}"
        if listed.by_place:
            hint += f": if they are 1 to {count}, begin its lines with them" + NOTHING * (0 in survey.first)
        listed = dataclasses.replace(listed, hint=hint)
    elif 0 in survey.first and 0 not in {row.value for row in listed.every} and not listed.hint:
        listed = dataclasses.replace(listed, hint="a line `0 ignore` in the class list leaves 0 out")
    return listed, (*notes, *_one_class(listed, survey))


def _by_grey(listed: ClassList, survey: Survey, where: Path) -> tuple[ClassList, list[str]]:
    """With the grey of each class as its value, where all have one and the masks have these and not the values."""
    greys = [row.colour[0] if row.colour and len(set(row.colour)) == 1 else None for row in listed.every]
    seen = set(survey.first)
    if None in greys or not seen or not seen <= set(greys) or seen <= {row.value for row in listed.every}:
        return listed, []
    rows = [dataclasses.replace(row, value=row.colour[0]) for row in listed.every if row.colour]
    settled = ClassList.from_rows(rows, where)
    listed = dataclasses.replace(listed, rows=settled.rows, ignored=settled.ignored)
    return listed, ["masks have the greys of the class list, not its values"]


def _with_255(listed: ClassList, survey: Survey, where: Path) -> tuple[ClassList, list[str]]:
    """With 255 as the second class, or with the doubt that it may be."""
    values = {row.value: row for row in listed.every}
    if IGNORED in values or 0 not in values or values[0].ignore or len(listed.rows) < 2 or survey.beside:
        return listed, []
    lone = survey.lone if 0 in survey.first else ""  # 255 alone, everywhere: no pixel counts
    if len(listed.rows) > 2:
        if lone and survey.numbers() == {0}:
            raise ResnestError(
                f"{where}: {survey.looked} have the values 0 and 255 alone, such as {lone}, and the list has"
                f" {len(listed.rows)} classes: list 255 with its class, or `255 ignore` if it does not count"
            )
        return listed, []
    second = next(row for row in listed.rows if row.value)
    own = survey.first.get(second.value, "")
    if lone and own:
        raise ResnestError(_mixed(own, second.value, lone, second.name))
    if lone:
        rows = [dataclasses.replace(row, value=IGNORED) if row is second else row for row in listed.every]
        settled = dataclasses.replace(listed, rows=ClassList.from_rows(rows, where).rows)
        note = f"255 beside 0 alone is {second.name!r}; a line `255 ignore` in the class list would leave it out"
        return dataclasses.replace(settled, hint=f"255 is {second.name!r}, as in {lone}"), [note]
    doubt = f"it may be {second.name!r} or not count{f', and {own} has {second.value}' if own else ''}: {ONE_WAY}"
    return dataclasses.replace(listed, doubt=doubt, partner=second.value), []


def _one_class(listed: ClassList, survey: Survey) -> list[str]:
    """What is odd where no two classes are seen."""
    listed_values = {row.value for row in listed.every} | {IGNORED}
    if survey.coloured or survey.by_palette or not survey.masks or not set(survey.first) <= listed_values:
        return []
    shown = [row.name for row in listed.rows if row.value in survey.first]
    if len(shown) > 1:
        return []
    return [f"{survey.looked} show {f'{shown[0]!r} alone' if shown else 'no class'}: nothing can be learned from that"]


def _mixed(own: str, value: int, other: str, name: str) -> str:
    return f"{own} has the value {value} and {other} has 255 beside 0 alone, both of which may be {name!r}: {ONE_WAY}"


def check_parts(surveys: Sequence[Survey], classes: Sequence[PixelClasses]) -> None:
    """Raises ResnestError if one part of a data set writes a class as 255, by `settle`, and the other by its number."""
    for here, there in ((0, 1), (1, 0)):
        lone, names = surveys[here].lone, classes[here].names
        if not lone or surveys[here].beside or IGNORED not in classes[here].ids:
            continue
        name = names[classes[here].ids.index(IGNORED)]
        value = classes[there].ids[classes[there].names.index(name)] if name in classes[there].names else IGNORED
        if value != IGNORED and (own := surveys[there].first.get(value)):
            raise ResnestError(_mixed(own, value, lone, name))


def has_number(store: Store, keys: Sequence[str], number: int) -> bool:
    """Whether any mask that can be read has it."""
    for key in keys:
        with contextlib.suppress(BadImage):
            stored = read_stored(read_from(store, key), key).numbered
            if not stored.coloured and number in stored.present:
                return True
    return False


class CountedFromOne(NamedTuple):
    """Signs that classes are counted from 1."""

    told: str
    certain: bool  # there is the number behind the list's last one, too


def joined(surveys: Sequence[Survey]) -> Survey:
    """What the masks of several parts have."""
    one, *others = surveys
    for other in others:
        one = dataclasses.replace(
            one,
            masks=one.masks + other.masks,
            total=one.total + other.total,
            first={**other.first, **one.first},
            lone=one.lone or other.lone,
            beside=one.beside or other.beside,
            coloured=one.coloured or other.coloured,
            by_palette=one.by_palette + other.by_palette,
        )
    return one


def without_first(survey: Survey, meaning: MaskMeaning) -> CountedFromOne | None:
    """What speaks for classes that are counted from 1, by masks of a list whose values are 0, 1, ...

    Where no mask shows the last class, such masks have no value that the list lacks: each class would be taken for the
    next one.
    """
    values = sorted(value for value in meaning.lookup if isinstance(value, int) and value != IGNORED)
    numbers, count = survey.numbers(), len(values)
    if survey.coloured or survey.by_palette or len(numbers) < 2 or 0 in numbers or not numbers <= {*values, count}:
        return None
    if values != list(range(count)) or meaning.lookup[0] == IGNORED:
        return None
    seen = ", ".join(map(str, sorted(numbers)[:MOST_SHOWN])) + (", ..." if len(numbers) > MOST_SHOWN else "")
    name = meaning.names[meaning.lookup[0]]
    told = f"{survey.looked} have the values {seen} and none has 0, which is {name!r} by the list of classes"
    return CountedFromOne(told, certain=count in numbers)

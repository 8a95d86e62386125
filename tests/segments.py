"""Small panoptic maps: drawn with letters, or at random with everything that occurs.

truth = drawn("aab", "a.b", {"a": 0, "b": 3})                  # a segment a letter, void where there is a dot
pairs = [random_pair(np.random.default_rng(n)) for n in range(200)]
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from resnest.detection.card import Classes
from resnest.detection.result import Detections
from resnest.panoptic.predict import Semantic
from resnest.panoptic.result import PanopticClasses, PanopticMap, Segment
from resnest.runtime.rle import encode

THINGS = 3
CLASSES = PanopticClasses(
    names=("cat", "dog", "cow", "sky", "sea", "mud", "fog"),
    ids=(1, 2, 17, 92, 100, 101, 184),
    things=THINGS,
    colours=((220, 20, 60), (119, 11, 32), (0, 0, 142), (70, 130, 180), (0, 82, 0), (9, 9, 9), (120, 166, 157)),
)


def described(
    ids: NDArray[np.int32], labels: Mapping[int, int], crowd: frozenset[int] = frozenset(), name: str = "x.png"
) -> PanopticMap:
    """The map of these ids, whose segments have these labels; what has no pixel is left out."""
    found = (
        Segment.of(ids == number, id=number, label=label, crowd=number in crowd) for number, label in labels.items()
    )
    return PanopticMap(name, CLASSES, ids.astype(np.int32), tuple(one for one in found if one is not None))


def drawn(*rows: str, labels: Mapping[str, int], crowd: str = "") -> PanopticMap:
    """One letter a pixel, "." for void."""
    ids = np.array([[0 if letter == "." else ord(letter) for letter in row] for row in rows], np.int32)
    return described(ids, {ord(letter): label for letter, label in labels.items()}, frozenset(map(ord, crowd)))


def random_truth(rng: np.random.Generator, size: tuple[int, int] = (20, 24), *, name: str = "x.png") -> PanopticMap:
    """Stuff in stripes, objects on it, void, now and then a crowd; ids of up to three bytes."""
    height, width = size
    ids = np.zeros(size, np.int32)
    numbers = iter(rng.choice(2**24 - 1, 12, replace=False) + 1)
    labels: dict[int, int] = {}
    crowd = set()
    stuff = rng.permutation(np.arange(THINGS, len(CLASSES.names)))[: rng.integers(0, 4)]
    for label in stuff:
        top = int(rng.integers(0, height))
        number = int(next(numbers))
        labels[number] = int(label)
        ids[top : top + int(rng.integers(2, height))] = number
    crowded = int(rng.integers(0, 3 * THINGS))  # of this class, if it is a thing
    for place in range(int(rng.integers(0, 6))):
        top, left = int(rng.integers(0, height - 2)), int(rng.integers(0, width - 2))
        number = int(next(numbers))
        labels[number] = crowded if place == 0 and crowded < THINGS else int(rng.integers(0, THINGS))
        if place == 0 and crowded < THINGS:
            crowd.add(number)
        ids[top : top + int(rng.integers(2, 12)), left : left + int(rng.integers(2, 12))] = number
    ids[:, : int(rng.integers(0, 4))] = 0
    return described(ids, labels, frozenset(crowd), name)


def random_pair(rng: np.random.Generator) -> tuple[PanopticMap, PanopticMap]:
    """What was found and what is true: the one from the other by moving, splitting, merging, renaming, or by chance."""
    truth = random_truth(rng)
    if rng.random() < 0.2 or not truth.segments:
        return random_truth(rng), truth
    ids = np.roll(truth.ids, rng.integers(-3, 4, 2), (0, 1))
    labels = {one.id: one.label for one in truth.segments}
    numbers = list(labels)
    if rng.random() < 0.5:  # half of a segment is another one
        halved = numbers[rng.integers(len(numbers))]
        ids[:, : ids.shape[1] // 2][ids[:, : ids.shape[1] // 2] == halved] = 7
        labels[7] = labels[halved]
    if rng.random() < 0.5:  # two segments are one
        one, other = rng.choice(numbers, 2)
        ids[ids == one] = other
    if rng.random() < 0.5:
        labels[numbers[0]] = int(rng.integers(0, len(CLASSES.names)))
    if rng.random() < 0.5:  # something where the truth is void
        ids[truth.ids == 0] = 9
        labels[9] = int(rng.integers(0, len(CLASSES.names)))
    return described(ids, labels), truth


def as_predicted(truth: PanopticMap) -> tuple[Detections, Semantic]:
    """What a perfect network would have said: its things as objects of score 1, its stuff as labels."""
    things = [one for one in truth.segments if one.label < truth.classes.things]
    height, width = truth.ids.shape
    boxes = np.array([one.box for one in things], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    detections = Detections(
        name=truth.name,
        width=width,
        height=height,
        classes=Classes(truth.classes.names, truth.classes.ids),
        boxes=boxes,
        labels=np.array([one.label for one in things], np.int64),
        scores=np.ones(len(things), np.float32),
        masks=tuple(encode(truth.ids == one.id) for one in things),
    )
    labels = np.zeros(truth.ids.shape, np.uint8)
    for one in truth.segments:
        if one.label >= truth.classes.things:
            labels[truth.ids == one.id] = 1 + one.label - truth.classes.things
    return detections, Semantic(labels, np.ones(labels.shape, np.float32))

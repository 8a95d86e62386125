"""Panoptic quality: cases worked out by hand, and a slow restatement of the definition on random maps (promise P7)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction

import numpy as np
import pytest

from resnest.panoptic.metrics import PanopticMetrics
from resnest.panoptic.result import PanopticMap
from segments import CLASSES, THINGS, drawn, random_pair

CAT, DOG, SKY, SEA = 0, 1, 3, 4
COUNT = len(CLASSES.names)
PAIRS = [random_pair(np.random.default_rng(seed)) for seed in range(200)]


def measured(pairs: Iterable[tuple[PanopticMap, PanopticMap]]) -> PanopticMetrics:
    metrics = PanopticMetrics(COUNT, THINGS)
    for found, truth in pairs:
        metrics.update(found, truth)
    return metrics


# the truth; what is found; by class: IoU of the pairs, false ones, missed ones
SCENE = drawn("aaaabbbb", "aaaabbbb", "ssssssss", labels={"a": CAT, "b": CAT, "s": SKY})
CASES: dict[str, tuple[PanopticMap, PanopticMap, dict[int, tuple[list[Fraction], int, int]]]] = {
    "perfect, other ids": (
        SCENE,
        drawn("xxxxyyyy", "xxxxyyyy", "zzzzzzzz", labels={"x": CAT, "y": CAT, "z": SKY}),
        {CAT: ([Fraction(1)] * 2, 0, 0), SKY: ([Fraction(1)], 0, 0)},
    ),
    "nothing found": (
        SCENE,
        drawn("........", "........", "........", labels={}),
        {CAT: ([], 0, 2), SKY: ([], 0, 1)},
    ),
    "wrong class": (
        SCENE,
        drawn("aaaabbbb", "aaaabbbb", "ssssssss", labels={"a": CAT, "b": DOG, "s": SKY}),
        {CAT: ([Fraction(1)], 0, 1), DOG: ([], 1, 0), SKY: ([Fraction(1)], 0, 0)},
    ),
    "split: the larger part still is the segment": (
        SCENE,  # x has 6 of a's 8 pixels
        drawn("xxxabbbb", "xxxabbbb", "ssssssss", labels={"x": CAT, "a": CAT, "b": CAT, "s": SKY}),
        {CAT: ([Fraction(6, 8), Fraction(1)], 1, 0), SKY: ([Fraction(1)], 0, 0)},
    ),
    "split in halves: an IoU of one half is not enough": (
        SCENE,
        drawn("xxaabbbb", "xxaabbbb", "ssssssss", labels={"x": CAT, "a": CAT, "b": CAT, "s": SKY}),
        {CAT: ([Fraction(1)], 2, 1), SKY: ([Fraction(1)], 0, 0)},
    ),
    "two merged": (
        SCENE,
        drawn("aaaaaaaa", "aaaaaaaa", "ssssssss", labels={"a": CAT, "s": SKY}),
        {CAT: ([], 1, 2), SKY: ([Fraction(1)], 0, 0)},
    ),
    "two merged, one far larger": (
        drawn("aaaaaabb", labels={"a": CAT, "b": CAT}),
        drawn("xxxxxxxx", labels={"x": CAT}),
        {CAT: ([Fraction(6, 8)], 0, 1)},
    ),
    "found over void: it belongs to no union": (
        drawn("aaa..sss", labels={"a": CAT, "s": SKY}),
        drawn("xxxxxsss", labels={"x": CAT, "s": SKY}),
        {CAT: ([Fraction(1)], 0, 0), SKY: ([Fraction(1)], 0, 0)},
    ),
    "void in what is found: it does": (
        drawn("aaaasss.", labels={"a": CAT, "s": SKY}),
        drawn("aaa.ss..", labels={"a": CAT, "s": SKY}),
        {CAT: ([Fraction(3, 4)], 0, 0), SKY: ([Fraction(2, 3)], 0, 0)},
    ),
    "more than half in void: not false": (
        drawn("...aaass", labels={"a": CAT, "s": SKY}),
        drawn("xxxx..ss", labels={"x": DOG, "s": SKY}),
        {CAT: ([], 0, 1), SKY: ([Fraction(1)], 0, 0)},
    ),
    "half in void: false": (
        drawn("..aaaass", labels={"a": CAT, "s": SKY}),
        drawn("xxxx..ss", labels={"x": DOG, "s": SKY}),
        {CAT: ([], 0, 1), DOG: ([], 1, 0), SKY: ([Fraction(1)], 0, 0)},
    ),
    "a crowd is neither missed nor false": (
        drawn("ccccccss", labels={"c": CAT, "s": SKY}, crowd="c"),
        drawn("xxxyyyss", labels={"x": CAT, "y": CAT, "s": SKY}),
        {SKY: ([Fraction(1)], 0, 0)},
    ),
    "a crowd is no partner": (
        drawn("ccccccss", labels={"c": CAT, "s": SKY}, crowd="c"),
        drawn("ccccccss", labels={"c": CAT, "s": SKY}),
        {SKY: ([Fraction(1)], 0, 0)},
    ),
    "a crowd of another class forgives nothing": (
        drawn("ccccccss", labels={"c": CAT, "s": SKY}, crowd="c"),
        drawn("xxxxxxss", labels={"x": DOG, "s": SKY}),
        {DOG: ([], 1, 0), SKY: ([Fraction(1)], 0, 0)},
    ),
    "void and crowd together": (
        drawn(".cccaass", labels={"c": CAT, "a": DOG, "s": SKY}, crowd="c"),
        drawn("xx..xx.s", labels={"x": CAT, "s": SKY}),  # 1 of 4 pixels void, 1 crowd: half
        {CAT: ([], 1, 0), DOG: ([], 0, 1), SKY: ([], 1, 1)},
    ),
    "stuff of which nothing is left": (
        drawn("ssssmmmm", labels={"s": SKY, "m": SEA}),
        drawn("ssssssss", labels={"s": SKY}),
        {SKY: ([], 1, 1), SEA: ([], 0, 1)},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_worked_out_by_hand(case: str) -> None:
    truth, found, expected = CASES[case]
    metrics = measured([(found, truth)])
    for label in range(COUNT):
        ious, false, missed = expected.get(label, ([], 0, 0))
        assert sorted(metrics.ious[label]) == sorted(map(float, ious)), CLASSES.names[label]
        assert (metrics.false[label], metrics.missed[label]) == (false, missed), CLASSES.names[label]


def test_figures() -> None:
    """A pair of cats of IoU 3/4, one false, one missed; one dog missed; the sky found, a sea that is not there."""
    truth = drawn("aaaabb", "ddddss", labels={"a": CAT, "b": CAT, "d": DOG, "s": SKY})
    found = drawn("aaaxx.", "eeeess", labels={"a": CAT, "x": CAT, "e": SEA, "s": SKY})
    result = measured([(found, truth)]).compute()
    expected = {
        "pq": (Fraction(3, 8) + 0 + 1 + 0) / 4,
        "sq": (Fraction(3, 4) + 0 + 1 + 0) / 4,
        "rq": (Fraction(1, 2) + 0 + 1 + 0) / 4,
        "pq_things": Fraction(3, 16),
        "sq_things": Fraction(3, 8),
        "rq_things": Fraction(1, 4),
        "pq_stuff": Fraction(1, 2),
        "sq_stuff": Fraction(1, 2),
        "rq_stuff": Fraction(1, 2),
    }
    assert result.figures == {name: float(value) for name, value in expected.items()}
    np.testing.assert_array_equal(result.class_pq, [0.375, 0, np.nan, 1, 0, np.nan, np.nan])
    np.testing.assert_array_equal(result.class_rq, [0.5, 0, np.nan, 1, 0, np.nan, np.nan])


def test_only_things_and_nothing_at_all() -> None:
    truth = drawn("aa", labels={"a": CAT})
    figures = measured([(truth, truth)]).compute().figures
    assert figures["pq"] == figures["pq_things"] == 1
    assert math.isnan(figures["pq_stuff"])
    assert all(map(math.isnan, PanopticMetrics(COUNT, THINGS).compute().figures.values()))


def restated(pairs: Iterable[tuple[PanopticMap, PanopticMap]]) -> dict[str, float]:
    """Section 4 of the paper with sets of pixels."""
    per_class: dict[int, tuple[list[float], list[int], list[int]]] = {k: ([], [], []) for k in range(COUNT)}
    for found, truth in pairs:
        pixels = [{one.id: set(np.flatnonzero(each.ids == one.id)) for one in each.segments} for each in (found, truth)]
        void = set(np.flatnonzero(truth.ids == 0))
        taken = set()
        for other in truth.segments:
            hits = []
            for one in found.segments:
                mine, theirs = pixels[0][one.id], pixels[1][other.id]
                iou = len(mine & theirs) / len((mine | theirs) - void)
                if one.label == other.label and iou > 0.5 and not other.crowd:
                    hits.append((one.id, iou))
            assert len(hits) <= 1
            for number, iou in hits:
                per_class[other.label][0].append(iou)
                taken.add(number)
            if not hits and not other.crowd:
                per_class[other.label][2].append(other.id)
        for one in found.segments:
            excused = set(void)
            for other in truth.segments:
                if other.crowd and other.label == one.label:
                    excused |= pixels[1][other.id]
            if one.id not in taken and len(pixels[0][one.id] & excused) <= len(pixels[0][one.id]) / 2:
                per_class[one.label][1].append(one.id)
    figures = {}
    groups = (("", range(COUNT)), ("_things", range(THINGS)), ("_stuff", range(THINGS, COUNT)))
    for kind, group in groups:
        counted = [per_class[k] for k in group if any(per_class[k])]
        weights = [len(tp) + len(fp) / 2 + len(fn) / 2 for tp, fp, fn in counted]
        each = {
            "pq": [sum(tp) / weight for (tp, *_), weight in zip(counted, weights, strict=True)],
            "sq": [sum(tp) / len(tp) if tp else 0.0 for tp, *_ in counted],
            "rq": [len(tp) / weight for (tp, *_), weight in zip(counted, weights, strict=True)],
        }
        figures |= {f"{name}{kind}": float(np.mean(values)) if values else math.nan for name, values in each.items()}
    return figures


def test_equals_the_definition_on_random_maps() -> None:
    assert sum(any(one.crowd for one in truth.segments) for _, truth in PAIRS) > 20
    assert measured(PAIRS).compute().figures == pytest.approx(restated(PAIRS), abs=1e-12)
    for pair in PAIRS[:40]:
        assert measured([pair]).compute().figures == pytest.approx(restated([pair]), abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("backwards", [False, True])
def test_however_the_pictures_are_shared_out(processes: int, backwards: bool) -> None:
    """To the last bit (promise P7)."""
    parts = [measured(PAIRS[rank::processes]) for rank in range(processes)]
    parts = parts[::-1] if backwards else parts
    for other in parts[1:]:
        parts[0].merge(other)
    assert parts[0].compute().figures == measured(PAIRS).compute().figures

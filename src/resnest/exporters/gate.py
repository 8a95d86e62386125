"""The parity gate: compares an exported file, run in its engine, with its network (promise P15).

    parity = compare(reference, run, shapes=exporter.shapes(card, form), pictures=batches, agree=exporter.agree(card))
    parity.ok, parity.worst, str(parity)

Both sides are functions from images (N, C, H, W) to named outputs. A classifier's output is `logits`; other tasks name
theirs, with a tolerance for each, and define with `agree` when two outputs are equivalent.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnest.errors import one_line
from resnest.exporters.capture import Arrays, Runner, difference

TOLERANCE = 1e-4  # of the largest logit: promise P15
ROUNDING = (1 - 1e-6, 1 + 1e-6, 1 - 1e-7, 1 + 1e-7)  # factors of an input: what a sum in another order may change
SIZES: Sequence[tuple[int, int]] = ((64, 64), (97, 131), (160, 160))

Shape = tuple[int, int, int, int]  # N, C, H, W
Agree = Callable[[Arrays, Arrays], NDArray[np.bool_]]  # of two outputs for N images, which of them mean the same
Noise = Callable[[np.random.Generator, Shape], NDArray[np.float32]]
Measure = Callable[[Arrays, Arrays], Mapping[str, float]]  # how far apart two outputs are, by name


@dataclass(frozen=True)
class Difference:
    """The largest difference at a shape; of logits relative to the largest value there."""

    shape: Shape
    output: str
    value: float


@dataclass(frozen=True)
class Parity:
    """The comparison of two networks, and its differences."""

    differences: tuple[Difference, ...]  # one for each shape and output, pictures too
    shapes: tuple[Shape, ...]
    tolerances: Mapping[str, float]
    agreeing: int
    pictures: int
    seconds: float
    unlike: str = "another label"  # what pictures get that do not agree
    refused: str = ""  # the engine's message if it could not run at all
    unstable: int = 0  # pictures that do not agree, as the reference does not with itself after rounding its input

    @property
    def worst(self) -> Difference:
        return max(self.differences, key=lambda gap: gap.value / self.tolerances[gap.output])

    @property
    def ok(self) -> bool:
        if self.refused:  # perhaps before there was anything to compare
            return False
        apart = self.worst
        return apart.value <= self.tolerances[apart.output] and not self.unlike_pictures

    @property
    def unlike_pictures(self) -> int:
        """Pictures that get something else. Where no picture agrees, an unstable reference is no excuse."""
        return self.pictures - self.agreeing - (self.unstable if self.agreeing else 0)

    def __str__(self) -> str:
        """Why it fails, or how closely it agrees, in a few words."""
        if self.refused:
            return self.refused
        apart = self.worst
        if apart.value > self.tolerances[apart.output]:
            return (
                f"{apart.output} differ by {apart.value:.1e}{self.unit} at {by(apart.shape)}"
                f" (allowed: {self.tolerances[apart.output]:.0e})"
            )
        if self.unlike_pictures:
            return f"{self.unlike_pictures} of {self.pictures} pictures get {self.unlike}"
        return f"largest difference {apart.value:.1e}{self.unit}"

    @property
    def unit(self) -> str:
        return " of the largest" if "logits" in self.tolerances else ""

    def to_dict(self) -> dict[str, Any]:
        return {
            "differences": [
                {"shape": list(gap.shape), "output": gap.output, "difference": gap.value} for gap in self.differences
            ],
            "largest_difference": self.worst.value,
            "tolerances": dict(self.tolerances),
            "agreeing": self.agreeing,
            "unstable": self.unstable,
            "pictures": self.pictures,
            "seconds": round(self.seconds, 3),
        }


def gaussian(rng: np.random.Generator, shape: Shape) -> NDArray[np.float32]:
    """Images of normally distributed values."""
    return rng.standard_normal(shape, np.float32)


def compare(
    reference: Runner,
    run: Runner,
    *,
    shapes: Sequence[Shape],
    pictures: Iterable[NDArray[np.float32]],
    agree: Agree,
    unlike: str = "another label",
    measure: Measure | None = None,
    tolerances: Mapping[str, float] | None = None,
    noise: Noise = gaussian,
) -> Parity:
    """Run both on seeded noise of every shape, and on pictures; stops at the first shape that the engine refuses."""
    started = time.perf_counter()
    tolerances = tolerances or {"logits": TOLERANCE}
    rng = np.random.default_rng(0)
    noises = (noise(rng, shape) for shape in shapes)
    apart: dict[tuple[Shape, str], float] = {}
    refused, agreeing, unstable, count = "", 0, 0, 0
    try:
        for images, is_picture in chain(((batch, False) for batch in noises), ((batch, True) for batch in pictures)):
            expected, got = reference(images), _run(run, images)
            measured = measure(expected, got) if measure else _differences(expected, got, tolerances)
            for output, value in measured.items():
                key = (_shape(images), output)
                apart[key] = max(value, apart.get(key, 0.0))
            if is_picture:
                same = agree(expected, got)
                agreeing, count = agreeing + int(same.sum()), count + len(images)
                if not same.all():
                    unstable += int((~same & ~_is_stable(reference, images, expected, agree)).sum())
    except _Refusal as error:
        refused = str(error)
    differences = tuple(Difference(shape, output, value) for (shape, output), value in apart.items())
    return Parity(
        differences,
        tuple(shapes),
        tolerances,
        agreeing,
        count,
        time.perf_counter() - started,
        unlike,
        refused,
        unstable,
    )


def _is_stable(reference: Runner, images: NDArray[np.float32], expected: Arrays, agree: Agree) -> NDArray[np.bool_]:
    """For each image, whether the reference means the same after its input is rounded otherwise, (N,).

    Where two boxes nearly tie in non-maximum suppression, or two classes in a logit, the last bit decides.
    """
    stable = np.ones(len(images), bool)
    for factor in ROUNDING:
        stable &= agree(expected, reference(images * np.float32(factor)))
    return stable


def _differences(expected: Arrays, got: Arrays, names: Iterable[str]) -> dict[str, float]:
    return {name: difference(expected[name], got[name]) if name in got else math.inf for name in names}


def _shape(images: NDArray[np.float32]) -> Shape:
    n, c, h, w = images.shape
    return n, c, h, w


class _Refusal(Exception):
    """An engine refuses to run its file."""


def _run(run: Runner, images: NDArray[np.float32]) -> Arrays:
    try:
        return run(images)
    except Exception as error:  # engines have errors of their own, which have nothing else in common
        raise _Refusal(f"cannot run {by(images.shape)}: {one_line(error)}") from None


def by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))

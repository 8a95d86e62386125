"""The points of an object: their names, how exactly people place them, which are mirror images, what lines join them.

    layout = PointLayout.of(("nose", "left_eye", "right_eye"))
    layout.pairs                       # ((1, 2),): by their names
    layout.mirrored                    # [0, 2, 1]: the row of each point in a mirrored picture
    layout.sigmas                      # (0.026, 0.025, 0.025): COCO's, as these are points of its persons

A sigma is the standard deviation of a point's place among annotators, as a share of the root of the object's area; OKS
measures distances by it (cocodataset.org, keypoints-eval).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from resnest.errors import ResnestError

# pycocotools, cocoeval.py: kpt_oks_sigmas, of the points of a person in COCO's order
PERSON_SIGMAS = {
    "nose": 0.026, "left_eye": 0.025, "right_eye": 0.025, "left_ear": 0.035, "right_ear": 0.035,
    "left_shoulder": 0.079, "right_shoulder": 0.079, "left_elbow": 0.072, "right_elbow": 0.072, "left_wrist": 0.062,
    "right_wrist": 0.062, "left_hip": 0.107, "right_hip": 0.107, "left_knee": 0.087, "right_knee": 0.087,
    "left_ankle": 0.089, "right_ankle": 0.089,
}  # fmt: skip
USUAL_SIGMA = 0.062  # of points that nobody has measured: the mean of COCO's
SIDES = re.compile(r"(?<![a-z])(l|r)(?![a-z])|(left|right)", re.IGNORECASE)  # l_eye, eye-r; left_eye, leftEye
OTHER_SIDE = {"l": "r", "r": "l", "left": "right", "right": "left"}
UPPER_BODY = ("nose", "eye", "ear", "shoulder", "elbow", "wrist")  # of persons, for crops of half a body
LOWER_BODY = ("hip", "knee", "ankle")

Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class PointLayout:
    """K named points.

    Raises:
        ResnestError: two of one name; sigmas, pairs or a skeleton that do not fit.
    """

    names: tuple[str, ...]  # (K,)
    sigmas: tuple[float, ...]  # (K,)
    pairs: Pairs | None = ()  # mirror images of each other; None: not known, so that nothing is mirrored
    skeleton: Pairs = ()  # lines that are drawn

    def __post_init__(self) -> None:
        count = len(self.names)
        if not count:
            raise ResnestError("an object has no points: name at least one")
        if twice := [name for name in dict.fromkeys(self.names) if self.names.count(name) > 1]:
            raise ResnestError(f"two points are called {twice[0]!r}: names must differ")
        if len(self.sigmas) != count:
            raise ResnestError(f"{len(self.sigmas)} sigmas for {count} points: give one a point")
        if wrong := [sigma for sigma in self.sigmas if not (math.isfinite(sigma) and sigma > 0)]:
            raise ResnestError(f"a sigma of {wrong[0]} for a point: it must be a number above 0")
        for what, ends in (("flip pairs", self.pairs or ()), ("the skeleton", self.skeleton)):
            if far := next((end for pair in ends for end in pair if not 0 <= end < count), None):
                raise ResnestError(f"{what} name point {far + 1} of {count}: there is none")
            if alone := next((pair for pair in ends if pair[0] == pair[1]), None):
                raise ResnestError(f"{what} join {self.names[alone[0]]!r} with itself: name two points")
        paired = [end for pair in self.pairs or () for end in pair]
        if again := [end for end in paired if paired.count(end) > 1]:
            raise ResnestError(f"flip pairs name {self.names[again[0]]!r} twice: a point has one mirror image")

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        *,
        sigmas: Sequence[float] = (),
        skeleton: Pairs = (),
    ) -> PointLayout:
        """With pairs by the words left and right in names; without sigmas COCO's of persons, or `USUAL_SIGMA`."""
        known = tuple(PERSON_SIGMAS.get(name, USUAL_SIGMA) for name in names)
        pairs = mirror_pairs(names)
        return cls(names=tuple(names), sigmas=tuple(sigmas) or known, pairs=pairs, skeleton=tuple(skeleton))

    @property
    def mirrored(self) -> list[int]:
        """(K,) the point that each one is in a mirrored picture: itself without a pair.

        Raises:
            ResnestError: it is not known.
        """
        if self.pairs is None:
            raise ResnestError(
                "which points are mirror images of each other is not known: set keypoints.flip_pairs when training, or"
                " leave mirrored views out"
            )
        order = list(range(len(self.names)))
        for one, other in self.pairs:
            order[one], order[other] = other, one
        return order

    @property
    def halves(self) -> tuple[list[int], list[int]] | None:
        """The points of a person's upper and lower body; None: these are no persons."""
        upper, lower = (
            [number for number, name in enumerate(self.names) if any(word in name.lower() for word in words)]
            for words in (UPPER_BODY, LOWER_BODY)
        )
        return (upper, lower) if upper and lower and len(upper) + len(lower) == len(self.names) else None

    def unpaired(self) -> list[str]:
        """Points called left or right whose counterpart is missing."""
        paired = {end for pair in self.pairs or () for end in pair}
        return [n for k, n in enumerate(self.names) if k not in paired and other_side(n) != n]

    def to_dict(self) -> dict[str, Any]:
        """For a card: pairs and skeleton by number from 0."""
        pairs = None if self.pairs is None else [list(pair) for pair in self.pairs]
        skeleton = [list(pair) for pair in self.skeleton]
        return {"names": list(self.names), "sigmas": list(self.sigmas), "pairs": pairs, "skeleton": skeleton}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> PointLayout:
        """What `to_dict` wrote. Raises ResnestError, KeyError, TypeError, ValueError."""
        known = content["pairs"] is not None
        pairs, skeleton = (tuple((int(a), int(b)) for a, b in content[name] or ()) for name in ("pairs", "skeleton"))
        names, sigmas = tuple(map(str, content["names"])), tuple(map(float, content["sigmas"]))
        return cls(names=names, sigmas=sigmas, pairs=pairs if known else None, skeleton=skeleton)


def mirror_pairs(names: Sequence[str]) -> Pairs:
    """Points whose names differ in left and right.

    >>> mirror_pairs(["nose", "left_eye", "right_eye", "L-ear", "R-ear"])
    ((1, 2), (3, 4))
    """
    place = {name: number for number, name in enumerate(names)}
    found = ((number, place.get(other_side(name), number)) for number, name in enumerate(names))
    return tuple((one, other) for one, other in found if one < other)


def other_side(name: str) -> str:
    """The name on the other side; of a point without a side its own.

    >>> other_side("leftEye"), other_side("r_hip"), other_side("nose")
    ('rightEye', 'l_hip', 'nose')
    """
    return SIDES.sub(_swapped, name)


def _swapped(side: re.Match[str]) -> str:
    word = side[0]
    other = OTHER_SIDE[word.lower()]
    return other.upper() if word.isupper() else other.title() if word[0].isupper() else other

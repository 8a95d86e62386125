"""What evaluating a panoptic detector gave: how well the segments of every class are found and outlined.

result.figures["pq"], result.headline, result.class_pq, result.segments
for place in result.worst(12): result.indices[place], result.kept[place].segments
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from resnest.errors import ResnestError
from resnest.inference.detection_outcome import percent
from resnest.inference.outcome import Evaluation, Indices
from resnest.metrics.panoptic import KINDS, Counts, Floats, PanopticMetrics
from resnest.runtime.panoptic_map import PanopticMap

KEPT = 12  # pictures of which the segments are kept, the worst ones: those of all would fill the memory
ROWS = dict(zip(KINDS, ("all", "things", "stuff"), strict=True))


class Seen(NamedTuple):
    """One picture."""

    pq: float  # of this picture alone; NaN if it shows nothing and nothing was found
    found: PanopticMap | None  # none: it was not among the worst


@dataclass(kw_only=True)
class PanopticEvaluation(Evaluation):
    """Of a panoptic detector."""

    counted = "segments"

    class_pq: Floats  # (K,), NaN for a class that is neither there nor found
    class_sq: Floats  # (K,)
    class_rq: Floats  # (K,)
    segments: Counts  # (K,) true ones, without crowds
    things: int  # the first so many classes
    image_pq: Floats  # (N,) of each picture alone
    kept: dict[int, PanopticMap]  # by position: what was found in the worst pictures

    @property
    def headline(self) -> str:
        things, stuff = (percent(self.figures[f"pq_{kind}"]) for kind in ("things", "stuff"))
        return f"PQ {percent(self.figures['pq'])} (things {things}, stuff {stuff})"

    def lines(self) -> list[str]:
        groups = (slice(None), slice(self.things), slice(self.things, None))
        lines = [f"{'':<6}{'PQ':>9}{'SQ':>9}{'RQ':>9}"]
        for (kind, title), group in zip(ROWS.items(), groups, strict=True):
            values = "".join(f"{percent(self.figures[f'{name}{kind}']):>9}" for name in ("pq", "sq", "rq"))
            lines.append(f"{title:<6}{values}   mean over {np.isfinite(self.class_pq[group]).sum()} classes")
        return lines

    def per_class(self) -> list[tuple[str, float | None, int]]:
        """Name, PQ and number of true segments of each class; None where it is neither there nor found."""
        return [
            (name, None if math.isnan(quality) else float(quality), int(count))
            for name, quality, count in zip(self.class_names, self.class_pq, self.segments, strict=True)
        ]

    def worst(self, most: int) -> Indices:
        """Positions of the pictures with the lowest PQ, worst first; none without a mistake."""
        order = np.argsort(self.image_pq, kind="stable")  # NaN comes last
        return order[self.image_pq[order] < 1][:most].astype(np.int64)


def keep_worst(seen: dict[int, Seen]) -> None:
    """Forget what was found in all pictures but the worst."""
    holding = [index for index, one in seen.items() if one.found is not None]
    holding.sort(key=lambda index: (math.isnan(seen[index].pq), seen[index].pq, index))
    for index in holding[KEPT:]:
        seen[index] = seen[index]._replace(found=None)


def collect_panoptic(
    metrics: PanopticMetrics,
    seen: Mapping[int, Seen],
    class_names: tuple[str, ...],
    *,
    bad: list[tuple[str, str]],
    seconds: float,
) -> PanopticEvaluation:
    """The evaluation of all pictures together.

    Raises:
        ResnestError: there is none.
    """
    if not seen:
        raise ResnestError("not one image could be used")
    indices, result = sorted(seen), metrics.compute()
    return PanopticEvaluation(
        figures=result.figures,
        class_names=class_names,
        indices=np.array(indices, np.int64),
        bad=bad,
        seconds=seconds,
        class_pq=result.class_pq,
        class_sq=result.class_sq,
        class_rq=result.class_rq,
        segments=metrics.matched + metrics.missed,
        things=metrics.things,
        image_pq=np.array([seen[index].pq for index in indices], np.float64),
        kept={place: found for place, index in enumerate(indices) if (found := seen[index].found) is not None},
    )

"""What evaluating a panoptic detector gave: how well the segments of every class are found and outlined.

result.figures["pq"], result.headline, result.class_pq, result.segments
for place in result.worst(12): result.indices[place], result.kept[place].segments
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from resnest.inference.detection_outcome import percent
from resnest.inference.outcome import Evaluation, Indices
from resnest.inference.worst import WorstPictures, lowest
from resnest.metrics.panoptic import KINDS, Counts, Floats, PanopticMetrics
from resnest.runtime.panoptic_map import PanopticMap

ROWS = dict(zip(KINDS, ("all", "things", "stuff"), strict=True))


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
        return lowest(self.image_pq, most)


def collect_panoptic(
    metrics: PanopticMetrics, worst: WorstPictures, class_names: tuple[str, ...]
) -> PanopticEvaluation:
    """The evaluation of all pictures together.

    Raises:
        ResnestError: there is none.
    """
    result = metrics.compute()
    return PanopticEvaluation(
        figures=result.figures,
        class_names=class_names,
        indices=worst.indices,
        class_pq=result.class_pq,
        class_sq=result.class_sq,
        class_rq=result.class_rq,
        segments=metrics.matched + metrics.missed,
        things=metrics.things,
        image_pq=worst.qualities,
        kept=worst.results,
    )

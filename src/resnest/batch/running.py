"""Predict a range of a job's pictures, in parts that are finished one by one.

run(job, predictor, 0, job.pictures.count, ends=ends)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from resnest.batch.job import Job
from resnest.batch.parts import Part
from resnest.batch.pictures import source
from resnest.runtime.decode import BadImage
from resnest.runtime.predictor import ImagePredictor

PART = 1000  # pictures
PART_SECONDS = 30.0


@dataclass(frozen=True)
class Ends:
    """When a part ends: with a batch, after so many pictures or seconds, or because the job shall stop."""

    pictures: int = PART
    seconds: float = PART_SECONDS
    stop: Callable[[], bool] = lambda: False


def run(
    job: Job,
    predictor: ImagePredictor,
    start: int,
    stop: int,
    *,
    ends: Ends,
    on_result: Callable[[BadImage | None], None] = lambda bad: None,
) -> bool:
    """Predict the pictures that have no result yet; returns False if it was stopped.

    Parts end with a batch, so that a picture is in the same batch, and has the same digits, whenever a job was killed.
    """
    for first, last in job.gaps(start, stop):
        position = begun = first
        unusable, since = 0, time.monotonic()
        pictures = map(source, job.pictures.read(first, last))
        with closing(predictor.stream(pictures)) as results:  # type: ignore[type-var]
            for result in results:
                job.form.add(result)
                bad = result if isinstance(result, BadImage) else None
                unusable += bad is not None
                position += 1
                on_result(bad)
                if (position - first) % predictor.batch_size and position < last:
                    continue
                stopping = ends.stop()
                late = time.monotonic() - since >= ends.seconds
                if position == last or stopping or late or position - begun >= ends.pictures:
                    job.write(Part(begun, position, unusable), job.form.take())
                    begun, unusable, since = position, 0, time.monotonic()
                if stopping:
                    return not job.gaps(start, stop)
    return True

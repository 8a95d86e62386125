"""A job on the machines of a Ray cluster, which share a file system: Ray hands out ranges of pictures, and no more.

    with cluster():
        run_on_ray(job, opening, ends=ends, on_done=bar.update)

A task predicts its range as `running.run` does, in parts. When its worker dies Ray starts it again, on any machine, and
it goes on after the parts that are finished. So nothing is lost or repeated, whatever Ray retries.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from resnest.batch.forms import form_of
from resnest.batch.identity import identity_of
from resnest.batch.job import JOB, LIST, Job, parts_folder, read_json
from resnest.batch.pictures import PictureList
from resnest.batch.running import Ends, run
from resnest.errors import ResnestError, one_line
from resnest.inference.predicting import Predictor
from resnest.runtime.predictor import ImagePredictor
from resnest.runtime.results import Show
from resnest.tasks import box_source, load_object

STOP = "stop"  # in the folder of parts: tasks end after their batch
RETRIES = 3  # of a range whose worker dies: more, and a picture that kills it would keep the cluster busy for ever
WAIT = 1.0  # seconds between looks at the finished parts
SPAN = 4  # parts of a task


@dataclass(frozen=True)
class Opening:
    """How a worker opens the model; the arguments are those of `Predictor` and `boxes`, what finds them, in
    the form of its items.
    """

    model: str
    arguments: tuple[tuple[str, Any], ...]
    limits: tuple[tuple[str, Any], ...]  # of `Show`

    @property
    def batch_size(self) -> int:
        return int(dict(self.arguments)["batch_size"])


def run_on_ray(job: Job, opening: Opening, *, ends: Ends, on_done: Callable[[int], None]) -> bool:
    """Predict all pictures that have no result yet; returns False if it was stopped.

    Raises:
        ResnestError: a range failed, or killed its worker again and again.
    """
    import ray

    marker = job.folder / STOP
    marker.unlink(missing_ok=True)
    gpus = 1 if str(dict(opening.arguments).get("device", "")).startswith("cuda") else 0
    task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(work)
    size = SPAN * max(ends.pictures, opening.batch_size)
    size -= size % opening.batch_size  # whole batches, as without Ray
    ranges = [(at, min(at + size, last)) for first, last in job.gaps() for at in range(first, last, size)]
    out = os.path.abspath(job.out)
    waiting = [
        task.remote(out, os.getcwd(), start, stop, opening, ends.pictures, ends.seconds) for start, stop in ranges
    ]
    try:
        while waiting:
            ready, waiting = ray.wait(waiting, timeout=WAIT)
            _checked(ray, ready)
            on_done(job.done)
            if ends.stop():
                marker.touch()
    finally:
        for reference in waiting:
            ray.cancel(reference)
    return not job.gaps()


@contextmanager
def cluster() -> Iterator[None]:
    """Within, Ray runs: that of RAY_ADDRESS, or one on this machine. It takes the signals, so handle them within.

    Raises:
        ResnestError: Ray is not installed, or there is none at RAY_ADDRESS.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would send statistics to its makers
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # its default from a later version on
    try:
        import ray
    except ModuleNotFoundError:
        raise ResnestError("ray is not installed: pip install '.[cluster]'") from None
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ResnestError(f"Ray cannot be reached: {one_line(error)}") from None
    try:
        yield
    finally:
        ray.shutdown()


def _checked(ray: Any, ready: list[Any]) -> None:
    try:
        ray.get(ready)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, ResnestError):
            raise ResnestError(str(cause)) from None
        raise
    except ray.exceptions.RayError as error:
        reason = str(error).strip().partition("\n")[0]
        raise ResnestError(
            f"a range of pictures ended its worker {RETRIES + 1} times ({reason}). Finished parts are kept: the same"
            " command goes on"
        ) from None


def work(out: str, folder: str, start: int, stop: int, opening: Opening, pictures: int, seconds: float) -> None:
    """In a worker: the pictures of a range."""
    os.chdir(folder)  # paths in the list may be relative to it
    path = Path(out)
    place = parts_folder(path)
    begun = read_json(place / JOB)
    if not begun:
        raise ResnestError(f"there is no {place / JOB} on this machine: the cluster needs a file system that it shares")
    predictor = _open(opening)
    mine = identity_of(predictor, dict(opening.limits))
    other = [name for name in mine if begun[name] != mine[name]]
    if other:
        raise ResnestError(f"{opening.model} is another {' and '.join(other)} on one of the machines")
    form = form_of(path)(load_object(predictor.card.info.result), Show(**dict(opening.limits)))
    job = Job(path, PictureList(place / LIST, begun["pictures"]["count"]), form)
    marker = place / STOP
    run(job, predictor, start, stop, ends=Ends(pictures, seconds, marker.exists))


@cache
def _open(opening: Opening) -> ImagePredictor:
    """Once in a worker, which gets several ranges."""
    arguments = dict(opening.arguments)
    boxes = arguments.pop("boxes", None)
    predictor = Predictor(opening.model, **arguments)
    if boxes is None:
        return predictor
    source = box_source(predictor.card.info).open(boxes, predictor.card, device=arguments["device"])
    found: ImagePredictor = source.predictor(predictor)
    return found


def opening_of(model: str, arguments: Mapping[str, Any], limits: Mapping[str, Any]) -> Opening:
    return Opening(model, tuple(arguments.items()), tuple(limits.items()))

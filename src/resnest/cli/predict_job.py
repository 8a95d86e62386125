"""`resnest predict --out`: a batch job."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from resnest.cli.pictures import entries
from resnest.cli.task_options import check_options, predict_by_threshold, read_boxes
from resnest.errors import Preempted, ResnestError, parameter
from resnest.figures import counted

if TYPE_CHECKING:
    from resnest.batch.job import Job, Shard
    from resnest.batch.pictures import Entry
    from resnest.inference.predicting import Predictor
    from resnest.runtime.decode import BadImage

NAMED = 20  # unusable pictures that are named on standard error; the results name all


@dataclass(frozen=True)
class JobOptions:
    """The options of a batch job."""

    out: Path
    shard: str | None
    ray: bool
    overwrite: bool
    part_size: int
    as_json: bool = False  # print the summary, for programs


def run_job(
    model: str,
    words: list[str],
    options: JobOptions,
    arguments: Mapping[str, Any],
    limits: dict[str, Any],
    *,
    boxes: str | None = None,
) -> None:
    """Begin a job or go on with it.

    Args:
        arguments: of `Predictor`.
        limits: fields of `Show`.
        boxes: what finds them, of a model that looks at boxes.

    Raises:
        Preempted: it was asked to stop.
        ResnestError: as `open_job`; or pictures are unusable, and the results are complete.
    """
    from resnest.batch.forms import form_of
    from resnest.batch.identity import identity_of
    from resnest.batch.job import open_job, shard_name
    from resnest.batch.running import Ends
    from resnest.runtime.results import Show
    from resnest.tasks import load_object
    from resnest.training.stopping import StopRequests

    shard = read_shard(options.shard)
    out = shard_name(options.out, shard)
    kind = form_of(out)
    predictor, arguments = _opened(model, arguments, limits, boxes)
    form = kind(load_object(predictor.card.info.result), Show(**limits))
    with _on_ray(options.ray), StopRequests() as stop:
        listed = _until(entries(words, bands_of(predictor)), lambda: stop.requested)
        identity = identity_of(predictor, limits)
        with open_job(out, listed, identity, form, shard=shard, overwrite=options.overwrite) as job:
            if job.pictures.repeated:
                typer.echo(f"note: {job.pictures.repeated:,} names occur again: each picture counts once", err=True)
            ends = Ends(options.part_size, stop=lambda: stop.requested)
            summary = job.finished
            if summary is None:
                on_ray = (model, {**arguments, "boxes": boxes}, limits) if options.ray else None
                if not _predict(job, predictor, ends, on_ray):
                    raise Preempted(
                        f"stopped after {job.done:,} of {job.pictures.count:,} pictures: the same command goes on"
                    )
                summary = job.finish()
            else:
                typer.echo(f"{out} was finished before", err=True)
    typer.echo(f"{counted(summary.pictures, 'picture', 'pictures')} in {out}", err=True)
    if options.as_json:
        typer.echo(json.dumps({"out": str(out), **summary._asdict()}))
    if summary.unusable:
        raise ResnestError(
            f"{summary.unusable:,} of {summary.pictures:,} images could not be used: {out} says why, in error"
        )


def _opened(
    model: str, arguments: Mapping[str, Any], limits: dict[str, Any], boxes: str | None
) -> tuple[Predictor, dict[str, Any]]:
    """The predictor, and the arguments that open it elsewhere."""
    from resnest.inference.predicting import Predictor

    predictor = Predictor(model, **arguments)
    whole = {**arguments, **predict_by_threshold(predictor, limits)}
    check_options(predictor.card.task, limits)
    typer.echo(f"engine: {predictor.engine.name}{f' ({predictor.note})' if predictor.note else ''}", err=True)
    return read_boxes(predictor, boxes, arguments["device"]), whole


def bands_of(predictor: Predictor) -> Callable[[str, bytes], object] | None:
    """What a model of other pictures than photographs takes of folders beside the usual files."""
    from resnest.data.listing import is_bands_start

    return None if predictor.card.bands.plain else is_bands_start


def _on_ray(wanted: bool) -> AbstractContextManager[None]:
    if not wanted:
        return nullcontext()
    from resnest.batch.cluster import cluster

    return cluster()


def _predict(job: Job, predictor: Predictor, ends: Any, on_ray: tuple[Any, ...] | None) -> bool:
    """All pictures without a result; returns False if it was stopped."""
    from resnest.progress import Progress

    done = job.done
    again = f"going on after {done:,} of {job.pictures.count:,} pictures" if done else ""
    with Progress("predicting:", rate="images", lines=True) as bar:
        bar.start(job.pictures.count, again, done=done)
        if on_ray:
            from resnest.batch.cluster import opening_of, run_on_ray

            return run_on_ray(job, opening_of(*on_ray), ends=ends, on_done=bar.update)
        from resnest.batch.running import run

        named = 0

        def on_result(bad: BadImage | None) -> None:
            nonlocal named
            bar.advance()
            if bad is None:
                return
            named += 1
            if named <= NAMED:
                bar.say(f"skipped: {bad}")
            elif named == NAMED + 1:
                bar.say("skipped: further ones are named in the results alone")

        return run(job, predictor, 0, job.pictures.count, ends=ends, on_result=on_result)


def _until(listed: Iterable[Entry], stopped: Callable[[], bool]) -> Iterator[Entry]:
    """A list of millions of pictures takes a while, too."""
    for entry in listed:
        if stopped():
            raise Preempted("stopped while pictures were listed: the same command begins anew")
        yield entry


def read_shard(text: str | None) -> Shard:
    """ "3/16" -> (3, 16)."""
    if text is None:
        return 1, 1
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    number, count = map(int, match.groups()) if match else (0, 0)
    if not 1 <= number <= count:
        most = f"{count}/{count}" if count else "16/16"
        raise ResnestError(f"{parameter('shard', text)}: expected i/n, from 1/{most.partition('/')[2]} to {most}")
    return number, count

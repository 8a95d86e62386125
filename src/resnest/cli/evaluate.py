"""`resnest evaluate`: a model's figures on an annotated data set."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resnest.cli.task_options import read_tiles, refuse, set_options
from resnest.cli.words import DATA_HELP, EXIF_HELP, MODEL_HELP, NETWORK_HELP, OVERLAP_HELP, TILE_HELP, WINDOW_HELP
from resnest.errors import ResnestError

if TYPE_CHECKING:
    from resnest.inference.evaluation import Evaluation
    from resnest.runtime.engines.exported import Views

SCALES_HELP = (
    "Test-time augmentation at several scales. Detectors: short sides of A and of B pixels; segmenters: A and B times"
    " the image's own size."
)
FLIP_HELP = "Test-time augmentation of detectors and segmenters by horizontal flips."
SURFACE_HELP = "Of a segmenter, also Hausdorff-95 and surface Dice of the outlines within so many pixels."
THRESHOLD_HELP = "Of multi-label masks, the probability from which on a pixel is in one; by default the model's."
BOXES_HELP = "Of a keypoint model: look at boxes of a detector, or of json of detections, in place of annotated ones."
KNN_HELP = "Classes by the votes of the nearest training images, by the cosine of the model's features."
PROBE_HELP = "Classes by a linear classifier that is fitted to the features of the training images."
NEIGHBOURS_HELP = "With --knn: how many vote; by default 20."
TEMPERATURE_HELP = "With --knn: a vote counts exp(cosine / temperature); by default 0.07."
SPLIT_HELP = "val, test, train, all; auto: val, or what training held out, or all for published weights."


def evaluate(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    data: Annotated[str, typer.Option(help=DATA_HELP)],
    split: Annotated[str, typer.Option(help=SPLIT_HELP)] = "auto",
    network: Annotated[str | None, typer.Option("--model", metavar="NAME", help=NETWORK_HELP)] = None,
    labels: Annotated[str | None, typer.Option(metavar="FILE", help="ImageNet-ReaL's real.json.")] = None,
    tile: Annotated[int | None, typer.Option(metavar="PIXELS", help=TILE_HELP)] = None,
    overlap: Annotated[float | None, typer.Option(metavar="FRACTION", help=OVERLAP_HELP)] = None,
    window: Annotated[int | None, typer.Option(metavar="PIXELS", help=WINDOW_HELP)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Figures as JSON, fractions 0..1.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    batch_size: Annotated[int | None, typer.Option(min=1, help="By default 64 for classification, else 4.")] = None,
    scales: Annotated[str | None, typer.Option(metavar="A,B", help=SCALES_HELP)] = None,
    flip: Annotated[bool, typer.Option("--flip", help=FLIP_HELP)] = False,
    surface: Annotated[float | None, typer.Option(metavar="PIXELS", help=SURFACE_HELP)] = None,
    threshold: Annotated[float | None, typer.Option(min=0, max=1, help=THRESHOLD_HELP)] = None,
    boxes: Annotated[str | None, typer.Option(metavar="MODEL|FILE", help=BOXES_HELP)] = None,
    exif: Annotated[str | None, typer.Option(help=EXIF_HELP)] = None,
    knn: Annotated[bool, typer.Option("--knn", help=KNN_HELP)] = False,
    probe: Annotated[bool, typer.Option("--probe", help=PROBE_HELP)] = False,
    neighbours: Annotated[int | None, typer.Option(metavar="K", min=1, help=NEIGHBOURS_HELP)] = None,
    temperature: Annotated[float | None, typer.Option(min=0.001, help=TEMPERATURE_HELP)] = None,
) -> None:
    """Evaluate a model: top-1, top-5, loss, accuracy of each class.

    Of a multi-label model: mean average precision, F1, loss, average precision of each class. Of a detector: COCO's
    twelve figures of boxes, and of masks, or LVIS's for its data, and the average precision of each class. Of a
    segmenter: IoU and Dice over all pixels and by picture, IoU of each class, and accuracy of pixels, unless masks may
    overlap. Of a keypoint model: OKS AP. Of a panoptic detector: PQ, SQ, RQ, of things and of stuff too, PQ of each
    class. With --knn or --probe how well classes can be read off the features of any model.
    """
    given = {"neighbours": neighbours, "temperature": temperature}
    how: dict[str, Any] = {"split": split, "network": network, "device": device, "batch_size": batch_size}
    if knn or probe:
        others = {"labels": labels, "tile": tile, "overlap": overlap, "window": window, "scales": scales, "flip": flip}
        others |= {"surface": surface, "threshold": threshold, "boxes": boxes, "exif": exif}
        return _tell(model, data, split, _by_features(model, data, knn, probe, others, given, how), as_json)
    refuse(given, "--{} is for --knn")
    views, tiles = _views(scales, flip), read_tiles(tile, overlap)
    from resnest.inference.evaluation import evaluate as run
    from resnest.progress import Progress

    with Progress("evaluating:", rate="images", lines=False) as bar:
        result = run(
            model,
            data,
            **how,
            labels=labels,
            views=views,
            window=window,
            surface=surface,
            threshold=threshold,
            tiles=tiles,
            boxes=boxes,
            exif=exif,
            on_open=lambda samples, where: bar.start(len(samples), where),
            on_batch=bar.advance,
        )
    return _tell(model, data, split, result, as_json)


def _by_features(
    model: str,
    data: str,
    knn: bool,
    probe: bool,
    others: dict[str, Any],
    given: dict[str, Any],
    how: dict[str, Any],
) -> Evaluation:
    """By nearest neighbours or a linear probe. Raises ResnestError for options of other evaluations."""
    refuse(others, "--knn and --probe look at features alone: leave out --{}")
    refuse({"knn": knn, **given} if probe else {}, "--probe stands alone: leave out --{}")
    from resnest.inference.feature_evaluation import evaluate_features
    from resnest.progress import Progress

    with Progress("embedding:", rate="images", lines=False) as bar:
        return evaluate_features(
            model,
            data,
            method="knn" if knn else "probe",
            **how,
            **set_options(**given),
            on_open=bar.start,
            on_batch=bar.advance,
        )


def _tell(model: str, data: str, split: str, result: Evaluation, as_json: bool) -> None:
    for key, reason in result.bad:
        typer.echo(f"skipped: {key}: {reason}", err=True)
    if as_json:
        typer.echo(json.dumps(_to_dict(model, data, split, result), indent=2))
    else:
        _print(result)


def _views(scales: str | None, flip: bool) -> Views | None:
    """Views of test-time augmentation; whether the model supports them is checked once it is open."""
    from resnest.runtime.engines.exported import Views
    from resnest.tasks import TASKS

    if scales is None:
        return Views(flip=True) if flip else None
    try:
        sizes = tuple(float(size) for size in scales.split(","))
    except ValueError:
        sizes = ()
    views = Views(sizes, flip)
    if not sizes or not any(_are_for(task, views) for task in TASKS):
        raise ResnestError(
            f"--scales {scales}: expected pixels of the short side, such as 640,800, or of a segmenter factors, such as"
            " 0.75,1,1.25"
        )
    return views


def _are_for(task: str, views: Views) -> bool:
    from resnest.tasks import task_info

    try:
        task_info(task).check_views(views)
    except ResnestError:
        return False
    return True


def _to_dict(model: str, data: str, split: str, result: Evaluation) -> dict[str, object]:
    return {
        "model": model,
        "data": data,
        "split": split,
        "images": result.count,
        **{name: _or_null(value) for name, value in result.figures.items()},
        **{f"{name}_interval": list(interval) for name, interval in result.intervals().items()},
        "per_class": {name: value for name, value, _ in result.per_class()},
        **_finite(result.details()),
        "bad_images": [{"image": key, "reason": reason} for key, reason in result.bad],
        "seconds": round(result.seconds, 3),
    }


def _finite(value: Any) -> Any:
    """A copy with None for each NaN."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    return _or_null(value) if isinstance(value, float) else value


def _or_null(value: float) -> float | None:
    """NaN as null, as JSON has no NaN."""
    return float(value) if math.isfinite(value) else None


def _print(result: Evaluation) -> None:
    for text in result.lines():
        typer.echo(text)
    if "loss" in result.figures:
        typer.echo(f"loss   {result.figures['loss']:7.4f}")
    rate = result.count / result.seconds
    typer.echo(f"images {result.count:7d}   {rate:.{0 if rate >= 10 else 1}f} a second")
    known = [(name, value, count) for name, value, count in result.per_class() if value is not None]
    typer.echo("worst classes")
    for name, value, count in sorted(known, key=lambda row: (row[1], row[0]))[:5]:
        counted = result.counted if count != 1 else result.counted.removesuffix("s")
        typer.echo(f"  {value:7.2%}  {name} ({count} {counted})")

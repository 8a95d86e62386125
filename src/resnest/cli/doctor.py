"""`resnest doctor`: what is installed and usable, and what is wrong with a data set."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resnest.cli.words import EXIF_HELP, is_runtime
from resnest.errors import ResnestError

if TYPE_CHECKING:
    import torch

    from resnest.data.checks import DatasetReport
    from resnest.health.findings import Review
    from resnest.health.survey import Survey

PARTS = (
    ("torch", "networks"),
    ("torchvision", "training transforms"),
    ("lightning-fabric", "training"),
    ("numpy", "everything"),
    ("pillow", "images"),
    ("safetensors", "weights"),
    ("huggingface_hub", "weights of the hub"),
    ("jinja2", "reports"),
    ("matplotlib", "the figure of bench --plot: pip install 'resnest[bench]'"),
    ("scikit-learn", "the demo's digits"),
    ("pyarrow", "data in parquet files"),
    ("tifffile", "TIFF of bands: pip install 'resnest[tiff]'"),
    ("faster-coco-eval", "figures of detectors: pip install 'resnest[detection]'"),
    ("timm", "comparisons only"),
    ("onnxruntime", "engine for exported files: pip install onnxruntime"),
    ("openvino", "engine for exported files: pip install openvino"),
)


GROUP_HELP = "What training holds out together, as its setting data.group: a column, folder:N or a regular expression."
STATS_HELP = "Mean and std of all training pictures, as settings of `resnest train`."
CHANNELS_HELP = "Channels to read pictures with; by default RGB, or those that most pictures have."
RANGE_HELP = "The value that counts as 1.0; by default by the data type."
RECIPE_HELP = "Read the data as training with this recipe does; other options come first."
SET_HELP = "A setting of that recipe, or without one of --task, that says how data is read: segmenter.multi_label=true."
HTML_HELP = (
    "Write a page with the findings, pictures to go through (copies, blank, dark or blurred ones) with a list of"
    " decisions beside it (.csv, for train --exclude), and 20 pictures with their annotations as training gets them."
)
MODEL_HELP = (
    "Look for label errors, outliers and annotations that disagree with this model, too; or a folder of"
    " `resnest train --folds`."
)
SAMPLE_HELP = (
    "Where predictions of pictures that a model has not seen come from: folds, probe (a linear probe on its features,"
    " by folds), or predictions (the model's own); auto: folds if there are any, else probe."
)


def doctor(
    data: Annotated[str | None, typer.Option(help="A data set to check.")] = None,
    task: Annotated[
        str | None,
        typer.Option(help="The task, if the data has annotations for several: detection, segmentation, ..."),
    ] = None,
    recipe: Annotated[str | None, typer.Option(metavar="NAME", help=RECIPE_HELP)] = None,
    set: Annotated[list[str] | None, typer.Option(metavar="A.B=C", help=SET_HELP)] = None,
    format: Annotated[str, typer.Option(help="Its format, if it is not detected correctly.")] = "auto",
    html: Annotated[Path | None, typer.Option(metavar="FILE", help=HTML_HELP)] = None,
    model: Annotated[str | None, typer.Option(metavar="MODEL", help=MODEL_HELP)] = None,
    out_of_sample: Annotated[str, typer.Option(metavar="WAY", help=SAMPLE_HELP)] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda, of --model.")] = "auto",
    exif: Annotated[str, typer.Option(help=EXIF_HELP)] = "auto",
    group: Annotated[str | None, typer.Option(help=GROUP_HELP)] = None,
    stats: Annotated[bool, typer.Option("--stats", help=STATS_HELP)] = False,
    in_chans: Annotated[int | None, typer.Option(min=1, max=1024, help=CHANNELS_HELP)] = None,
    value_range: Annotated[float | None, typer.Option(min=0, help=RANGE_HELP)] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Check the installation, or a data set.

    With --data every image is decoded, and what is wrong is named; exit code 2 then.
    """
    if data is None:
        _refuse_alone(
            task, recipe, set, format != "auto", exif != "auto", html, model, group, stats, in_chans, value_range
        )
        rows = dict(_environment())
        typer.echo(
            json.dumps(rows, indent=2) if as_json else "\n".join(f"{key:<18} {row}" for key, row in rows.items())
        )
        return
    from resnest.data.checks import check_dataset
    from resnest.files import check_replaceable
    from resnest.progress import Progress
    from resnest.runtime.bands import Bands

    if model is None and out_of_sample != "auto":
        raise ResnestError("--out-of-sample is for --model: name one")
    if html:
        check_replaceable(html)
    survey = _survey(html) if html or model else None
    bands = Bands(in_chans or 3, value_range or None) if in_chans or value_range else None
    own: dict[str, Any] = {"format": format, "task": task, "group": group, "exif": exif, "bands": bands}
    how = {**own, **_as_trained(task, recipe, set or [], own), "stats": stats}
    with Progress("reading:", rate="images", lines=False) as bar:
        hear = survey.add if survey else None
        report = check_dataset(data, **how, on_open=bar.start, on_image=bar.advance, on_picture=hear)
    review = _review(survey, report, model, device, out_of_sample) if survey else None
    _tell(report, review, html, stats=stats, as_json=as_json)
    if report.problems:
        raise typer.Exit(2)


def _refuse_alone(*given: object) -> None:
    """Raises ResnestError for options of data without data."""
    if any(given):
        raise ResnestError(
            "--task, --recipe, --set, --format, --group, --html, --model, --exif, --stats, --in-chans and --value-range"
            " need --data"
        )


def _tell(report: DatasetReport, review: Review | None, html: Path | None, *, stats: bool, as_json: bool) -> None:
    """Print the findings, and write the page and its list."""
    if as_json:
        more = {"review": review.to_dict(report.splits)} if review and report.splits else {}
        typer.echo(json.dumps({**report.to_dict(), **more}, indent=2))
    else:
        typer.echo(report.to_text(" (--json lists them all)"))
        for line in review.lines() if review else ():
            typer.echo(f"look: {line}")
    if stats and report.meter and report.meter.count and not as_json:
        words = " ".join(f"--set '{setting}'" for setting in report.meter.settings())
        typer.echo(f"for resnest train: {words}")
    if html and review:
        from resnest.files import write_errors
        from resnest.health.page import write_review

        with write_errors(html):
            listed = write_review(html, report, review)
        typer.echo(f"page: {html}", err=as_json)
        typer.echo(f"list: {listed}", err=as_json)


def _survey(html: Path | None) -> Survey:
    """What looks at pictures while they are read. Raises ResnestError: its list cannot be written beside the page."""
    from resnest.health.page import check_review
    from resnest.health.survey import Survey

    if html:
        check_review(html)
    return Survey()


def _review(survey: Survey, report: DatasetReport, model: str | None, device: str, out_of_sample: str) -> Review:
    from resnest.progress import Progress

    assert report.splits is not None
    with Progress("looking with the model:", rate="images", lines=False) as bar:
        return survey.review(
            report.splits,
            model=model,
            device=device,
            out_of_sample=out_of_sample,
            on_start=bar.start,
            on_batch=bar.advance,
        )


def _as_trained(task: str | None, recipe: str | None, settings: list[str], given: dict[str, Any]) -> dict[str, Any]:
    """How training with a recipe, or any of a task, reads data, but for what is given. Raises ResnestError."""
    if recipe is None and not settings:
        return {}
    from resnest.recipes import find_recipe, override
    from resnest.runtime.bands import RGB
    from resnest.tasks import load_object, task_info

    if recipe is None and task is None:
        raise ResnestError("--set is for a recipe: name it with --recipe, or its task with --task")
    base = find_recipe(recipe) if recipe else next(iter(load_object(task_info(str(task)).recipes).values()))()
    chosen = override(base, settings)
    if task not in (None, chosen.task):
        raise ResnestError(f"--task {task} and --recipe {recipe} contradict each other: it is for {chosen.task}")
    data = chosen.data
    own = {
        "format": data.format,
        "group": data.group,
        "exif": data.exif,
        "bands": None if data.bands == RGB else data.bands,
    }
    own = {name: value for name, value in own.items() if given[name] in (None, "auto")}
    return {"task": chosen.task, "reading": chosen.reading, **own}


def _environment() -> Iterator[tuple[str, str]]:
    import resnest
    from resnest.runtime.hardware import instruction_sets, processor, usable_cores

    yield "resnest", f"{resnest.__version__}{', the runtime without torch' if is_runtime() else ''}"
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    for name, purpose in PARTS:
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield name, f"not installed ({purpose})"
    yield "processor", processor()
    yield "instructions", ", ".join(instruction_sets()) or "not known on this system"
    yield "cores for engines", str(usable_cores())
    yield from _devices()


def _devices() -> Iterator[tuple[str, str]]:
    try:
        import torch
    except ImportError:
        return
    yield "cpu threads", str(torch.get_num_threads())
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            yield f"gpu {index}", torch.cuda.get_device_name(index)
            yield f"fused kernels {index}", _kernels(torch.device("cuda", index))
    else:
        yield "gpu", "none that torch can use"


def _kernels(device: torch.device) -> str:
    """Whether the fused operators run on a GPU."""
    from resnest.kernels.backend import VARIABLE, choice, why_not

    if choice() == "torch":
        return f"not used: {VARIABLE}=torch"
    obstacle = why_not(device)
    return "used" if obstacle is None else f"not used: {obstacle}"

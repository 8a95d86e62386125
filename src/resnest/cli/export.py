"""`resnest export` and `resnest convert`: files for other runtimes, checkpoints in other layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resnest.cli.words import MODEL_HELP, NETWORK_HELP
from resnest.errors import ResnestError

if TYPE_CHECKING:
    from resnest.exporters.exporting import Exported


# --- `resnest export`: writes a model in another engine's format, run there and compared first ---

FORMAT_HELP = (
    "onnx, openvino, torch, aotinductor, executorch, or triton, a model repository; by default from the suffix of"
    " --out, else onnx."
)
OUT_HELP = (
    "By default model.onnx (.xml, .pt2, .pte) in a run's directory, else NAME.onnx here. An older file is replaced."
)
SIZE_HELP = "Side of the images in pixels, instead of the model's own; detectors and segmenters also take HxW."
IMAGES_HELP = "Compare on pictures of this folder or data set, instead of a detector's own data or synthetic ones."
INT8_HELP = "8-bit integers: smaller, and faster where the processor has instructions for them."
CALIBRATE_HELP = "For --int8: a folder or data set of pictures like those that the model will be used on."
KIT_HELP = "Folder for hand-over: an ONNX file with its preprocessing, a reference and programs that use it."
BAKE_HELP = "The file takes 8-bit pixels, nhwc or nchw, and normalises them itself (onnx, triton)."
FEATURES_HELP = "Of a classifier: a further output with the pooled features, for `resnest embed`."
DROP_HELP = "For --int8: allowed loss of top-1 in points (1); without labels, allowed changes of top-1 in % (5)."


def export(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    format: Annotated[str | None, typer.Option(help=FORMAT_HELP)] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help=OUT_HELP)] = None,
    size: Annotated[str | None, typer.Option(metavar="PIXELS", help=SIZE_HELP)] = None,
    images: Annotated[str | None, typer.Option(metavar="PHOTOS", help=IMAGES_HELP)] = None,
    int8: Annotated[bool, typer.Option("--int8", help=INT8_HELP)] = False,
    calibrate: Annotated[str | None, typer.Option(metavar="PHOTOS", help=CALIBRATE_HELP)] = None,
    max_drop: Annotated[float | None, typer.Option(metavar="POINTS", help=DROP_HELP)] = None,
    kit: Annotated[Path | None, typer.Option(metavar="DIR", help=KIT_HELP)] = None,
    bake_preprocessing: Annotated[str | None, typer.Option(metavar="LAYOUT", help=BAKE_HELP)] = None,
    features: Annotated[bool, typer.Option("--features", help=FEATURES_HELP)] = False,
    network: Annotated[str | None, typer.Option("--model", metavar="NAME", help=NETWORK_HELP)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Result of the comparison as JSON.")] = False,
) -> None:
    """Export a model to another engine, verified.

    The file is run in that engine and compared with the network. If it differs, exit code 5, and nothing is written.
    """
    _check_int8(int8, calibrate=calibrate, max_drop=max_drop)
    from resnest.exporters.exporting import export as run
    from resnest.exporters.int8 import Int8

    done = run(
        model,
        format=format,
        out=out,
        network=network,
        size=_sides(size) if size else None,
        images=images,
        int8=Int8(calibrate, max_drop) if calibrate is not None else None,
        kit=kit,
        bake_preprocessing=bake_preprocessing,
        features=features,
        on_step=lambda step: typer.echo(step, err=True),
    )
    typer.echo(json.dumps(done.to_dict(), indent=2) if as_json else _to_text(done))


def _check_int8(int8: bool, **of_it: object) -> None:
    """Raises ResnestError for --int8 without pictures, and for options of it without it."""
    given = [f"--{name.replace('_', '-')}" for name, value in of_it.items() if value is not None]
    if given and not int8:
        raise ResnestError(f"{' and '.join(given)} is for 8-bit integers: add --int8, or leave it out")
    if int8 and "--calibrate" not in given:
        raise ResnestError("--int8 needs --calibrate PHOTOS, pictures like those that the model will be used on")


def _sides(text: str) -> int | tuple[int, int]:
    """ "224" -> 224, "480x640" -> (480, 640), height first."""
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isascii() and side.isdigit() and len(side) < 12 for side in sides):
        raise ResnestError(f"--size {text}: expected pixels, such as 224, or height and width, such as 480x640")
    high, *wide = map(int, sides)
    return (high, *wide) if wide else high  # type: ignore[return-value]


def _to_text(done: Exported) -> str:
    parity, shapes = done.parity, done.parity.shapes
    batches = ", ".join(str(count) for count in dict.fromkeys(shape[0] for shape in shapes))
    sizes = ", ".join(f"{high}x{wide}" for high, wide in dict.fromkeys(shape[2:] for shape in shapes))
    takes = done.origin["sizes"]
    lines = [
        f"written    {done.path} ({done.bytes / 2**20:.1f} MiB)",
        f"takes      batch {takes['batch']}, height {takes['height']}, width {takes['width']}"
        + (f" ({done.notes['size']})" if "size" in done.notes else "")
        + (f"; 8-bit pixels, {done.origin['input']['layout']}" if "input" in done.origin else ""),
        f"run in     {done.engine}, batches of {batches} at {sizes}",
        *_compared(done),
    ]
    if "as_evaluated" in done.notes:
        lines.append(f"evaluated  as the model was: {done.notes['as_evaluated']['text']}")
    if "steps" in done.notes:
        left = ", ".join(f"{count} {name}" for name, count in done.notes["not_in_xnnpack"].items())
        lines.append(
            f"XNNPACK    runs {done.notes['xnnpack']} of {done.notes['steps']} steps; not {left or 'anything else'}"
        )
    if "int8" in done.notes:
        from resnest.exporters.int8 import in_text

        lines += in_text(done.notes["int8"])
    lines.append(f"compared   in {parity.seconds:.1f} s")
    return "\n".join(lines)


def _compared(done: Exported) -> list[str]:
    parity = done.parity
    unstable = f"; on {parity.unstable} the network differs from itself after rounding" if parity.unstable else ""
    if "logits" in parity.tolerances:
        allowed = parity.tolerances["logits"]
        return [
            f"difference {parity.worst.value:.1e} of the largest logit (allowed {allowed:.0e})",
            f"labels     the same for {parity.agreeing} of {done.pictures}{unstable}",
        ]
    apart = {name: max(gap.value for gap in parity.differences if gap.output == name) for name in parity.tolerances}
    gaps = ", ".join(f"{name} {value:.1e} (allowed {parity.tolerances[name]:.0e})" for name, value in apart.items())
    return [f"difference {gaps}", f"objects    the same on {parity.agreeing} of {done.pictures}{unstable}"]


# --- `resnest convert`: a checkpoint from one layout into another ---

HEAD_HELP = "Leave out the classifier, or a detector's or segmenter's heads."
TO_HELP = (
    "official, timm, gluon, encoding, detectron2, mmpretrain, mmdetection or mmsegmentation; whole detectors: official,"
    " detectron2 or torchvision; whole segmenters: official or encoding."
)


def convert(
    checkpoint: Annotated[str, typer.Argument(help="Checkpoint file of any layout, or a name of published weights.")],
    to: Annotated[str, typer.Option(metavar="LAYOUT", help=TO_HELP)],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Its suffix chooses the format: .safetensors, .pth, ...")],
    network: Annotated[str | None, typer.Option("--model", metavar="NAME", help=NETWORK_HELP)] = None,
    drop_head: Annotated[bool, typer.Option("--drop-head", help=HEAD_HELP)] = False,
    bare: Annotated[
        bool, typer.Option("--bare", help="Without the prefix of a backbone inside a larger model.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE if it exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Summary as JSON.")] = False,
) -> None:
    """Convert a checkpoint to another code base's layout.

    What the layout cannot hold is named, and nothing is written then.
    """
    from resnest.checkpoints.convert import convert as run
    from resnest.checkpoints.fetch import locate

    source, row = locate(checkpoint)
    named = network or (row.network if row else None)
    done = run(source, to=to, out=out, network=named, drop_head=drop_head, bare=bare, overwrite=overwrite)
    typer.echo(json.dumps(done.to_dict(), indent=2) if as_json else str(done))

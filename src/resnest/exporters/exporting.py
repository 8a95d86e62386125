"""`export`: writes a model as a verified file.

    exported = export("runs/a", format="onnx", out="model.onnx")
    exported.path, exported.parity.worst.value, exported.origin

Steps: open, prepare, write beside the target, run and compare (`gate`), move to the target. int8 comes before the last
step: it quantizes the verified float file and refuses the result if it loses too much accuracy.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from resnest.errors import ResnestError, parameter
from resnest.exporters import gate
from resnest.exporters.baking import bake, check_baking
from resnest.exporters.calibration import find_pictures
from resnest.exporters.capture import Runner
from resnest.exporters.evaluated import Data, compare_as_evaluated, find_data
from resnest.exporters.formats import FORMATS, Format, Size, find_exporter, find_format
from resnest.exporters.int8 import INT8, Int8
from resnest.exporters.kit import Kit
from resnest.exporters.parcels import Parcel
from resnest.exporters.triton import TRITON, find_repository
from resnest.exporters.writing import check_target, delivering, metadata, weights_hash, written
from resnest.inference.model import Model
from resnest.runtime.engines.exported import ORIGIN_KEY


@dataclass(frozen=True)
class Exported:
    """An exported file, and the result of its comparison."""

    path: Path
    format: str
    engine: str
    parity: gate.Parity
    pictures: str  # which ones were compared
    bytes: int  # of all of its files
    origin: dict[str, Any]
    notes: dict[str, Any]  # by the format: what runs where

    def to_dict(self) -> dict[str, Any]:
        return {
            "out": str(self.path),
            "format": self.format,
            "engine": self.engine,
            "bytes": self.bytes,
            **self.parity.to_dict(),
            "compared": self.pictures,
            "origin": self.origin,
            **self.notes,
        }


def export(
    model: str | Path | Model,
    *,
    format: str | None = None,
    out: str | Path | None = None,
    network: str | None = None,
    size: Size = None,
    images: str | Path | None = None,
    int8: Int8 | None = None,
    kit: str | Path | None = None,
    bake_preprocessing: str | None = None,
    features: bool = False,
    on_step: Callable[[str], None] = lambda step: None,
) -> Exported:
    """Export a model to another engine's format, compare it there, and write the file if the outputs agree.

    Args:
        model: any reference, or an opened model.
        format: "onnx", "openvino", "torch", "aotinductor" or "executorch"; None: what `out` ends in, else "onnx".
            "triton" is a model repository around an ONNX file.
        out: the file; by default model.SUFFIX in a run's directory, else NAME.SUFFIX here. Of "triton" the repository.
        network: name of the network in a checkpoint file that does not identify it.
        size: pixels of a side, instead of the model card's; or height and width of what a detector's or a segmenter's
            file takes. A segmenter's takes any without it.
        images: a folder of pictures, or a data set, to compare on. By default synthetic ones; of a detector or
            segmenter those that its run was validated on, where they still are.
        int8: photographs to calibrate on, for 8-bit integers (formats onnx and openvino); None keeps float.
        kit: a folder for hand-over, with an ONNX file and programs that use it, in place of `out`.
        bake_preprocessing: "nhwc" or "nchw": the file takes 8-bit pixels in this order, and normalises them itself.
        features: of a classifier, the pooled features as a further output.
        on_step: hears what is being done.

    Raises:
        ParityFailure: it does not compute the same, or int8 loses too much: nothing is delivered, an older file stays.
        ResnestError: no such model or format, a missing package, a place that cannot be written.
    """
    _check_types(size, int8)
    parcel, layout = _find_parcel(model, format, out, kit), bake_preprocessing
    form = find_format("onnx" if parcel else format, Path(out) if out else None)
    target = _check_place(model, form, out, int8, parcel)
    _check_form(form, int8, layout)
    opened = _with_features(_open(model, network), form, features, int8, kit, layout, parcel)
    named = find_pictures(images, bands=opened.card.bands) if images else None
    sha = None if isinstance(model, Model) else weights_hash(model)  # an opened network may have been changed since
    as_evaluated, opened = opened, _sized(opened, size, form, int8, layout, parcel)
    data = find_data(as_evaluated, find_exporter(as_evaluated), images, named)
    some = data.pictures
    with parcel.delivering() if parcel else delivering(target) as temporary:
        if int8:
            parity, notes, strings = int8.write(opened, form, temporary, some, weights_sha256=sha, on_step=on_step)
        else:
            on_step(f"writing {target} ({form.name})")
            strings = metadata(opened, form, weights_sha256=sha)
            parity, notes = written(opened, form, temporary, strings, some, on_step=on_step)
            notes |= _notes_on_size(as_evaluated, opened, size, lambda: form.load(temporary), data, on_step)
        if layout:
            parity, strings = bake(opened, form, temporary, strings, some, layout, on_step=on_step)
        if parcel:
            parcel.fill(temporary, opened, some, layout)
        return _exported(target, form, parity, data, temporary, strings, notes)


def _check_place(
    model: str | Path | Model, form: Format, out: str | Path | None, int8: Int8 | None, parcel: Parcel | None
) -> Path:
    """The path of the file. Raises ResnestError for one that cannot be written."""
    if parcel:
        parcel.check()
        return parcel.path
    target = Path(out) if out else default_target(model, form, INT8 if int8 else "")
    check_target(target, form.suffix, form.name, form.companion)
    return target


def _sized(
    model: Model, size: Size, form: Format, int8: Int8 | None, layout: str | None, parcel: Parcel | None
) -> Model:
    """The model with the card of its file. Raises ResnestError for a size, an int8 or folders that it cannot have."""
    exporter = find_exporter(model)
    if layout and not model.card.bands.plain:
        takes = f"{model.source} takes {model.card.bands.describe()}"
        raise ResnestError(f"{parameter('bake_preprocessing', layout)} is for RGB of 8 bits, and {takes}: leave it out")
    if int8 and not exporter.int8:
        raise ResnestError(f"{parameter('int8')} is for classifiers, and {model.source} is {model.card.info.noun}")
    sized = exporter.sized(model, size, form)
    if parcel:
        parcel.check_model(sized)
    return sized


def _check_form(form: Format, int8: Int8 | None, layout: str | None) -> None:
    """Raises ResnestError for what is not installed, and for what the format cannot hold."""
    form.check_installed()
    if int8:
        int8.check(form)
    if layout is not None:
        check_baking(layout, form, bool(int8))


def _exported(
    target: Path,
    form: Format,
    parity: gate.Parity,
    data: Data,
    temporary: Path,
    strings: Mapping[str, str],
    notes: dict[str, Any],
) -> Exported:
    file_bytes = sum(file.stat().st_size for file in temporary.parent.iterdir() if file.is_file())
    compared, origin = f"{parity.pictures} {data.pictures.kind}", json.loads(strings[ORIGIN_KEY])
    return Exported(target, form.name, form.engine, parity, compared, file_bytes, origin, notes)


def _find_parcel(
    model: str | Path | Model, format: str | None, out: str | Path | None, kit: str | Path | None
) -> Parcel | None:
    """The folders to write around the file, if any."""
    if kit is not None and out is not None:
        raise ResnestError(f"{parameter('kit', kit)} has the file in it: leave out {parameter('out', out)}")
    if kit is not None and format not in (None, "onnx"):
        raise ResnestError(f"{parameter('kit', kit)} has an ONNX file: leave out {parameter('format', format)}")
    if kit is not None:
        return Kit(Path(kit))
    if format == TRITON:
        return find_repository(Path(out) if out else None, model.source if isinstance(model, Model) else str(model))
    return None


def _notes_on_size(
    model: Model, sized: Model, size: Size, load: Callable[[], Runner], data: Data, on_step: Callable[[str], None]
) -> dict[str, Any]:
    """Why the file has its size, and what it gives for pictures that it does not take as the model was evaluated on."""
    exporter = find_exporter(model)
    why = exporter.explain_size(model, size)
    notes: dict[str, Any] = {"size": why} if why else {}
    if model.card.preprocess != sized.card.preprocess and exporter.on_data:
        on_step("comparing it with the model as it was evaluated")
        notes["as_evaluated"] = compare_as_evaluated(model, sized, load(), exporter, data)
    return notes


def _open(model: str | Path | Model, network: str | None) -> Model:
    return model if isinstance(model, Model) else Model.from_pretrained(model, network=network)


def _with_features(
    model: Model,
    form: Format,
    features: bool,
    int8: Int8 | None,
    kit: str | Path | None,
    layout: str | None,
    parcel: Parcel | None,
) -> Model:
    """The model for a file with features, if wanted. Raises ResnestError for what cannot have them."""
    if not features:
        return model
    option = parameter("features", True)
    others = (
        (int8, parameter("int8")),
        (kit, parameter("kit")),
        (layout, parameter("bake_preprocessing")),
        (parcel, parameter("format")),
    )
    if given := [name for value, name in others if value]:
        raise ResnestError(f"{option} is for a plain file: leave out {given[0]}")
    if not form.many_outputs:
        able = ", ".join(name for name, other in FORMATS.items() if other.many_outputs)
        raise ResnestError(f"{option}: a file of {form.name} has one output; take {able}")
    if not find_exporter(model).can_give_features:
        raise ResnestError(f"{option} is for classifiers, and {model.source} is {model.card.info.noun}")
    return replace(model, features=True)


def _check_types(size: Size, int8: Int8 | None) -> None:
    sides = size if isinstance(size, tuple) and len(size) == 2 else (size,)
    if size is not None and not all(type(side) is int for side in sides):
        raise ResnestError(f"{parameter('size', size)}: expected pixels, such as 224, or (height, width)")
    if int8 is not None and not isinstance(int8, Int8):
        raise ResnestError(
            f"{parameter('int8', int8)}: expected an Int8 of resnest.exporters.int8 with pictures to calibrate on"
        )


def default_target(model: str | Path | Model, form: Format, kind: str = "") -> Path:
    """model.SUFFIX in a run's or a saved model's directory, else NAME.SUFFIX in the current one."""
    source = model.source if isinstance(model, Model) else str(model)
    suffix = ".aoti.pt2" if form.name == "aotinductor" else f".{kind}{form.suffix}" if kind else form.suffix
    folder = Path(source)
    if folder.is_dir():
        return folder / f"model{suffix}"
    name = folder.stem if folder.is_file() else source.rpartition("/")[2]
    return Path(f"{name or 'model'}{suffix}")

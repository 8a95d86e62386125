"""`export`: from a model reference to a file that has been verified.

    exported = export("runs/a", format="onnx", out="model.onnx")
    exported.path, exported.parity.worst.value, exported.origin

Steps: open, prepare, write beside the target, run and compare (`gate`), put in place. Quantization steps in between
the last two: `written` gives it a verified float file, and what it makes of that is delivered if its accuracy is kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from resnest.errors import ParityFailure, ResnestError
from resnest.export import gate
from resnest.export.diagnosis import where_it_differs
from resnest.export.formats import Format, find_format
from resnest.export.layers import Arrays, Runner
from resnest.export.origin import CARD_KEY, ORIGIN_KEY, origin, weights_hash
from resnest.export.pictures import Pictures, find_pictures, synthetic
from resnest.export.target import check_room, check_target, delivering
from resnest.inference.model import Model
from resnest.inference.prepare import prepared
from resnest.network.resnest import ResNeSt
from resnest.runtime.card import ModelCard

NOTHING = "Nothing was delivered"
MOST_PIXELS = 2048  # of a side: the gate runs five such images at once


@dataclass(frozen=True)
class Exported:
    """A delivered file, and what was checked."""

    path: Path
    format: str
    engine: str
    parity: gate.Parity
    pictures: str  # which ones were compared
    bytes: int  # of all of its files
    origin: dict[str, Any]
    told: dict[str, Any]  # by the format: what runs where

    def to_dict(self) -> dict[str, Any]:
        return {
            "out": str(self.path),
            "format": self.format,
            "engine": self.engine,
            "bytes": self.bytes,
            **self.parity.to_dict(),
            "compared": self.pictures,
            "origin": self.origin,
            **self.told,
        }


def export(
    model: str | Path | Model,
    *,
    format: str | None = None,
    out: str | Path | None = None,
    network: str | None = None,
    size: int | None = None,
    images: str | Path | None = None,
    on_step: Callable[[str], None] = lambda step: None,
) -> Exported:
    """Write a model in another engine's format, run it there, and deliver it if it computes the same.

    Args:
        model: any reference, or an opened model.
        format: "onnx", "openvino", "torch", "aotinductor" or "executorch"; None: what `out` ends in, else "onnx".
        out: the file; by default model.SUFFIX in a run's directory, else NAME.SUFFIX here.
        network: what a checkpoint file is, where it does not say so itself.
        size: pixels of a side, instead of the model card's.
        images: a folder of pictures, or a data set, to compare on instead of synthetic ones.
        on_step: hears what is being done.

    Raises:
        ParityFailure: it does not compute the same; nothing is delivered then, and an older file stays.
        ResnestError: no such model or format, a missing package, a place that cannot be written.
    """
    form = find_format(format, Path(out) if out else None)
    target = Path(out) if out else default_target(model, form)
    check_target(target, form.suffix, form.name)
    form.check_installed()
    pictures = find_pictures(images) if images else synthetic()
    opened = model if isinstance(model, Model) else Model.from_pretrained(model, network=network)
    sha = None if isinstance(model, Model) else weights_hash(model)  # an opened network may have been changed since
    opened = _with_size(opened, size)
    with delivering(target) as temporary:
        on_step(f"writing {target} ({form.name})")
        strings = metadata(opened, form, weights_sha256=sha)
        parity, told = written(opened, form, temporary, strings, pictures, on_step=on_step)
        size_on_disk = sum(file.stat().st_size for file in temporary.parent.iterdir())
    return Exported(
        target, form.name, form.engine, parity, pictures.told, size_on_disk, json.loads(strings[ORIGIN_KEY]), told
    )


def metadata(
    model: Model,
    form: Format,
    *,
    weights_sha256: str | None,
    precision: str = "float32",
    told: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """The two strings that a file carries; `told` goes into the origin, such as int8's `accuracy`."""
    sizes = sizes_of(form, model.card)
    source = origin(model.source, weights_sha256=weights_sha256, precision=precision, sizes=sizes, told=told)
    return {CARD_KEY: model.card.to_json(), ORIGIN_KEY: source}


def written(
    model: Model,
    form: Format,
    path: Path,
    strings: dict[str, str],
    pictures: Pictures,
    *,
    on_step: Callable[[str], None] = lambda step: None,
) -> tuple[gate.Parity, dict[str, Any]]:
    """Write a model's network to `path` and compare the file with the network: a verified file, or an error.

    Raises:
        ParityFailure: it computes something else; the message names the first layer that does.
    """
    card = model.card
    fast = prepared(model.net, memory_format=torch.contiguous_format)
    told = _write(form, fast, path, strings, card)
    on_step(f"comparing it with the network, in {form.engine}")
    parity = gate.compare(
        reference(model.net),
        _load(form, path),
        shapes=gate.shapes_for(card, batch=form.batch, any_size=form.any_size),
        pictures=pictures.batches(card),
        agree=gate.same_labels if card.multi_label else gate.same_label,
    )
    if not parity.ok:
        if parity.refused:
            raise ParityFailure(f"{form.name}: {form.engine} {parity.refused}. {NOTHING}")
        place = where_it_differs(model.net, fast, form, path, parity, card)
        raise ParityFailure(f"{form.name}: the file does not compute what the network does: {parity}{place}. {NOTHING}")
    return parity, dict(told)


def _write(form: Format, net: ResNeSt, path: Path, strings: dict[str, str], card: ModelCard) -> dict[str, Any]:
    try:
        return form.write(net, path, strings, in_chans=card.in_chans, size=card.preprocess.size) or {}
    except ImportError as error:  # installed, and made for another torch
        raise ResnestError(f"--format {form.name} does not work here: {error}") from None


def _load(form: Format, path: Path) -> Runner:
    try:
        return form.load(path)
    except Exception as error:  # every engine has errors of its own
        check_room(path)
        said = gate.first_line(error)
        raise ParityFailure(f"{form.name}: {form.engine} cannot read the file: {said}. {NOTHING}") from None


def reference(net: ResNeSt) -> Runner:
    """The network as it was opened, run by torch without any preparation."""
    net.eval()

    def run(images: NDArray[np.float32]) -> Arrays:
        with torch.inference_mode():
            return {"logits": net(torch.from_numpy(images)).numpy()}

    return run


def sizes_of(form: Format, card: ModelCard) -> dict[str, Any]:
    """What images the file takes."""
    side = card.preprocess.size
    return {
        "batch": form.batch or "any",
        "height": "any" if form.any_size else side,
        "width": "any" if form.any_size else side,
    }


def default_target(model: str | Path | Model, form: Format) -> Path:
    """model.SUFFIX in a run's or a saved model's directory, else NAME.SUFFIX in the current one."""
    source = model.source if isinstance(model, Model) else str(model)
    suffix = ".aoti.pt2" if form.name == "aotinductor" else form.suffix
    folder = Path(source)
    if folder.is_dir():
        return folder / f"model{suffix}"
    name = folder.stem if folder.is_file() else source.rpartition("/")[2]
    return Path(f"{name or 'model'}{suffix}")


def _with_size(model: Model, size: int | None) -> Model:
    """The model with a card for another size of image.

    The shortcut of the last stage pools 2 x 2 pixels, and engines want them to be there; torch itself does not.
    """
    side = size if size is not None else model.card.preprocess.size
    least = model.net.feature_info[-2]["reduction"] + 1
    if not least <= side <= MOST_PIXELS:
        given = f"--size {side}" if size is not None else f"{model.source} takes images of {side} x {side} pixels"
        raise ResnestError(f"{given}: to export this network, images must have {least} to {MOST_PIXELS} pixels a side")
    return replace(model, card=replace(model.card, preprocess=replace(model.card.preprocess, size=side)))

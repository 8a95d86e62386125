"""`export`: from a model reference to a file that has been verified.

    exported = export("runs/a", format="onnx", out="model.onnx")
    exported.path, exported.parity.worst.value, exported.origin

Steps: open, prepare, write beside the target, run and compare (`gate`), put in place. Quantization steps in between
the last two: `written` gives it a verified float file, and what it makes of that is delivered if its accuracy is kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable
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
from resnest.export.pictures import Pictures, from_folder, synthetic
from resnest.export.target import check_target, delivering
from resnest.inference.model import Model
from resnest.inference.prepare import prepared
from resnest.network.resnest import ResNeSt
from resnest.runtime.card import ModelCard

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
        images: a folder of pictures to compare on, instead of synthetic ones.
        on_step: hears what is being done.

    Raises:
        ParityFailure: it does not compute the same; nothing is delivered then, and an older file stays.
        ResnestError: no such model or format, a missing package, a place that cannot be written.
    """
    form = find_format(format, Path(out) if out else None)
    target = Path(out) if out else default_target(model, form)
    check_target(target, form.suffix, form.name)
    form.check_installed()
    pictures = from_folder(Path(images)) if images else synthetic()
    opened = model if isinstance(model, Model) else Model.from_pretrained(model, network=network)
    sha = None if isinstance(model, Model) else weights_hash(model)  # an opened network may have been changed since
    opened = _with_size(opened, size)
    on_step(f"writing {target} ({form.name})")
    with delivering(target) as temporary:
        strings = {
            CARD_KEY: opened.card.to_json(),
            ORIGIN_KEY: origin(
                opened.source, weights_sha256=sha, precision="float32", sizes=sizes_of(form, opened.card)
            ),
        }
        parity, told = written(opened, form, temporary, strings, pictures, on_step=on_step)
        size_on_disk = sum(file.stat().st_size for file in temporary.parent.iterdir())
    return Exported(
        target, form.name, form.engine, parity, pictures.told, size_on_disk, json.loads(strings[ORIGIN_KEY]), told
    )


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
    told = form.write(fast, path, strings, in_chans=card.in_chans, size=card.preprocess.size) or {}
    on_step(f"comparing it with the network, in {form.engine}")
    parity = gate.compare(
        reference(model.net),
        form.load(path),
        shapes=gate.shapes_for(card, batch=form.batch, any_size=form.any_size),
        pictures=pictures.batches(card),
        agree=gate.same_labels if card.multi_label else gate.same_label,
    )
    if not parity.ok:
        place = "" if parity.refused else where_it_differs(model.net, fast, form, path, parity, card)
        raise ParityFailure(f"{model.source} as {form.name} is not what it was: {parity}{place}; no file was written")
    return parity, dict(told)


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
    """The model with a card for another size of image, which the network is tried with."""
    side = size if size is not None else model.card.preprocess.size
    if not 1 <= side <= MOST_PIXELS:
        raise ResnestError(f"--size {side}: a side has 1 to {MOST_PIXELS} pixels")
    try:
        reference(model.net)(np.zeros((1, model.card.in_chans, side, side), np.float32))
    except RuntimeError as error:
        raise ResnestError(
            f"--size {side}: the network cannot take such images ({str(error).splitlines()[0]})"
        ) from None
    return replace(model, card=replace(model.card, preprocess=replace(model.card.preprocess, size=side)))

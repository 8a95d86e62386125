"""Writing a file and comparing it with the network: every export, and the first step of int8.

parity, told = written(model, find_format("onnx"), path, metadata(model, form, weights_sha256=None), pictures)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from resnest.errors import ParityFailure, ResnestError, one_line, parameter
from resnest.exporters import gate
from resnest.exporters.capture import Interface
from resnest.exporters.diagnosis import where_it_differs
from resnest.exporters.exporter import find_exporter
from resnest.exporters.formats import Format
from resnest.exporters.layers import Arrays, Runner
from resnest.exporters.origin import origin
from resnest.exporters.pictures import BATCH, Pictures
from resnest.exporters.target import check_room
from resnest.inference.model import Model
from resnest.inference.torch_engine import to_arrays
from resnest.runtime.engines.exported import CARD_KEY, ORIGIN_KEY

NOTHING = "Nothing was delivered"


def metadata(
    model: Model,
    form: Format,
    *,
    weights_sha256: str | None,
    precision: str = "float32",
    told: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """The two metadata strings of a file; `told` is added to the provenance, such as int8's `accuracy`."""
    takes = find_exporter(model).interface(model.card, form)
    high, wide = takes.size or ("any", "any")
    sizes = {"batch": takes.batch or "any", "height": high, "width": wide}
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
    """Write a model's network to `path` and compare the file with the network; raises if they differ.

    Raises:
        ParityFailure: it computes something else; the message names the first layer that does.
    """
    card, exporter = model.card, find_exporter(model)
    takes, fast = exporter.interface(card, form), exporter.module(model)
    told = _write(form, fast, path, strings, takes)
    on_step(f"comparing it with the network, in {form.engine}")
    parity = gate.compare(
        reference(model.net),
        _load(form, path),
        shapes=exporter.shapes(card, form),
        pictures=exporter.batches(card, pictures.images, BATCH),
        agree=exporter.agree(card),
        unlike=exporter.unlike,
        measure=exporter.measure(card),
        tolerances=exporter.tolerances(card),
    )
    if not parity.ok:
        if parity.refused:
            raise ParityFailure(f"{form.name}: {form.engine} {parity.refused}. {NOTHING}")
        place = where_it_differs(model.net, fast, form, path, parity, takes) if exporter.by_layers else ""
        raise ParityFailure(f"{form.name}: the file does not compute what the network does: {parity}{place}. {NOTHING}")
    return parity, dict(told)


def _write(form: Format, net: nn.Module, path: Path, strings: dict[str, str], takes: Interface) -> dict[str, Any]:
    try:
        return form.write(net, path, strings, takes) or {}
    except ImportError as error:  # installed, and made for another torch
        raise ResnestError(f"{parameter('format', form.name)} does not work here: {error}") from None


def _load(form: Format, path: Path) -> Runner:
    try:
        return form.load(path)
    except Exception as error:  # every engine has errors of its own
        check_room(path)
        said = one_line(error)
        raise ParityFailure(f"{form.name}: {form.engine} cannot read the file: {said}. {NOTHING}") from None


def reference(net: nn.Module) -> Runner:
    """The original network, run by torch without preparation."""
    net.eval()

    def run(images: NDArray[np.float32]) -> Arrays:
        with torch.inference_mode():
            return to_arrays(net(torch.from_numpy(images)))

    return run

"""Writing a file and comparing it with the network: what every export does, and what int8 begins with.

parity, told = written(model, find_format("onnx"), path, metadata(model, form, weights_sha256=None), pictures)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from resnest.errors import ParityFailure, ResnestError, one_line
from resnest.export import gate
from resnest.export.detections import DETECTION_TOLERANCES, detection_differences, same_objects
from resnest.export.diagnosis import where_it_differs
from resnest.export.formats import Format, detection_outputs
from resnest.export.layers import Arrays, Runner
from resnest.export.origin import origin
from resnest.export.pictures import Pictures
from resnest.export.target import check_room
from resnest.inference.model import Model
from resnest.inference.prepare import prepared, prepared_segmenter, prepared_whole
from resnest.runtime.card import ModelCard
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
    fast = _prepared(model)
    told = _write(form, fast, path, strings, card)
    on_step(f"comparing it with the network, in {form.engine}")
    parity = gate.compare(
        reference(model.net),
        _load(form, path),
        shapes=gate.shapes_for(card, batch=form.batch, any_size=form.any_size),
        pictures=pictures.batches(card),
        **_meaning(card),
    )
    if not parity.ok:
        if parity.refused:
            raise ParityFailure(f"{form.name}: {form.engine} {parity.refused}. {NOTHING}")
        place = "" if card.detector else where_it_differs(model.net, fast, form, path, parity, card)
        raise ParityFailure(f"{form.name}: the file does not compute what the network does: {parity}{place}. {NOTHING}")
    return parity, dict(told)


def _prepared(model: Model) -> nn.Module:
    plain = torch.contiguous_format
    if model.card.task == "detection":
        return AsFile(prepared_whole(model.detector, memory_format=plain))
    if model.card.task == "segmentation":
        return prepared_segmenter(model.segmenter, memory_format=plain)
    return prepared(model.classifier, memory_format=plain)


class AsFile(nn.Module):
    """A detector as an exported file holds it: one image of one size, plain outputs in their order."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(1, 3, H, W) -> boxes, scores, labels, and masks if it has them."""
        return tuple(value for value in self.net(images) if value is not None)


def _meaning(card: ModelCard) -> dict[str, Any]:
    """How `compare` tells whether two outputs are the same."""
    if card.detector is None:
        return {"agree": gate.same_labels if card.multi_label else gate.same_label}
    tolerances = {name: DETECTION_TOLERANCES[name] for name in detection_outputs(card) if name in DETECTION_TOLERANCES}
    agree = partial(same_objects, threshold=card.detector.score_threshold)
    return {"agree": agree, "measure": detection_differences, "tolerances": tolerances}


def _write(form: Format, net: nn.Module, path: Path, strings: dict[str, str], card: ModelCard) -> dict[str, Any]:
    try:
        return form.write(net, path, strings, form.takes(card)) or {}
    except ImportError as error:  # installed, and made for another torch
        raise ResnestError(f"--format {form.name} does not work here: {error}") from None


def _load(form: Format, path: Path) -> Runner:
    try:
        return form.load(path)
    except Exception as error:  # every engine has errors of its own
        check_room(path)
        said = one_line(error)
        raise ParityFailure(f"{form.name}: {form.engine} cannot read the file: {said}. {NOTHING}") from None


def reference(net: nn.Module) -> Runner:
    """The network as it was opened, run by torch without any preparation."""
    net.eval()

    def run(images: NDArray[np.float32]) -> Arrays:
        with torch.inference_mode():
            outputs = net(torch.from_numpy(images))
        if isinstance(outputs, torch.Tensor):
            return {"logits": outputs.numpy()}
        return {name: value.numpy() for name, value in outputs._asdict().items() if value is not None}

    return run


def sizes_of(form: Format, card: ModelCard) -> dict[str, Any]:
    """What images the file takes."""
    takes = form.takes(card)
    high, wide = takes.size or ("any", "any")
    return {"batch": takes.batch or "any", "height": high, "width": wide}

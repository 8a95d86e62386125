"""Diagnosis of a failed comparison: the first layer that differs, for the message.

where_it_differs(net, fast, form, path, parity, takes)
# "; the first layer that differs is layer2.0.conv2.conv (by 0.31 of its largest value)"
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from torch import nn

from resnest.errors import one_line
from resnest.exporters.capture import Interface
from resnest.exporters.formats import Format
from resnest.exporters.gate import TOLERANCE, Parity
from resnest.exporters.layers import Arrays, Tapped, blocks, first_difference, module_outputs


def where_it_differs(
    net: nn.Module, fast: nn.Module, form: Format, path: Path, parity: Parity, takes: Interface
) -> str:
    """Compares by layer: the file with the prepared network, then that with the original network.

    The order is from the input on, and what is inside a module comes before it.
    """
    images = np.random.default_rng(0).standard_normal(parity.worst.shape, np.float32)
    names = blocks(net)
    before, ours = module_outputs(net, images), module_outputs(fast, images)
    try:
        theirs = form.layers(path, images) if form.layers else _tapped(fast, names, form, path, images, takes)
    except Exception as error:  # of an exporter or engine, about a file that is wrong anyway: the failure comes first
        return f"; the layer that differs could not be determined ({one_line(error)})"
    found = first_difference(ours, theirs, TOLERANCE)
    if found:
        return f"; the first layer that differs is {_told(*found)}"
    found = first_difference({name: before[name] for name in names}, ours, TOLERANCE)
    if found:
        return f"; the first layer that differs, already when prepared for inference, is {_told(*found)}"
    return "; no single layer differs by more than that"


def _told(layer: str, apart: float) -> str:
    return f"{layer} (by {apart:.1e} of its largest value)"


def _tapped(
    fast: nn.Module, names: list[str], form: Format, path: Path, images: NDArray[np.float32], takes: Interface
) -> Arrays:
    """Outputs of blocks, from another file of the same network that returns them; the last ones are its logits."""
    *inner, last = names
    with TemporaryDirectory(dir=path.parent) as folder:
        other = Path(folder, path.name)
        form.write(Tapped(fast, inner), other, {}, takes)
        outputs = form.load(other)(images)
    return {name: outputs[str(index)] for index, name in enumerate(inner, start=1)} | {last: outputs["logits"]}

"""After a failed comparison: the first layer that differs, for the message.

where_it_differs(net, fast, form, path, parity, card)
# "; the first layer that differs is layer2.0.conv2.conv (by 0.31 of its largest value)"
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import nn

from resnest.export.formats import Format
from resnest.export.gate import TOLERANCE, Parity
from resnest.export.layers import blocks, first_difference, module_outputs
from resnest.runtime.card import ModelCard


def where_it_differs(net: nn.Module, fast: nn.Module, form: Format, path: Path, parity: Parity, card: ModelCard) -> str:
    """Compares layer by layer: the file with the prepared network, then that with the network as it was opened.

    The order is from the input on, and what is inside a module comes before it.
    """
    images = np.random.default_rng(0).standard_normal(parity.worst.shape, np.float32)
    ours = module_outputs(fast, images)
    if form.layers:
        found = first_difference(ours, form.layers(path, images), TOLERANCE)
        if found:
            return f"; the first layer that differs is {found[0]} (by {found[1]:.1e} of its largest value)"
    before = module_outputs(net, images)
    found = first_difference({name: before[name] for name in blocks(net)}, ours, TOLERANCE)
    if found:
        return f"; preparing the network changed it, from {found[0]} on (by {found[1]:.1e} of its largest value)"
    return "; no single layer differs by more than that" if form.layers else ""

"""Golden logits of all published networks: a change that must not alter the numbers proves it here.

Guards the network under promises P10 and P15: weights, running statistics and the image follow from names and shapes
alone, the network runs in float64, and its logits equal the stored ones to 1e-9.

    python tests/test_network_golden.py      # rewrites golden/logits.json

Rewrite it only if the mathematics is meant to change, and say so where the change is described: then released weights
mean something else than before. It is never rewritten to make a test pass.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from resnest.network import ResNeSt
from resnest.spec import PUBLISHED

GOLDEN = Path(__file__).parent / "golden" / "logits.json"
SIZE = 64  # two pixels a side in the last stage
POSITIONS = [0, 1, 137, 285, 402, 611, 770, 999]  # which of the 1000 logits are stored


def uniform(name: str, shape: torch.Size, low: float, high: float) -> Tensor:
    """Numbers that depend on nothing but the arguments.

    RandomState, not default_rng: numpy promises that its stream stays the same in every version (NEP 19).
    """
    stream = np.random.RandomState(zlib.crc32(name.encode()))
    return torch.from_numpy(stream.uniform(low, high, tuple(shape)))


def golden_value(name: str, shape: torch.Size) -> Tensor:
    """A parameter or buffer, scaled so that activations stay near 1 through all of the blocks."""
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.long)
    if name.endswith("running_var"):
        return uniform(name, shape, 0.5, 1.5)
    if len(shape) == 1:
        centre = 1.0 if name.endswith("weight") else 0.0
        scale = 0.1 if ".bn3.weight" in name else 1.0  # up to 89 residual branches add up
        return scale * uniform(name, shape, centre - 0.2, centre + 0.2)
    gain = 0.3 if ".fc2." in name else 1.0  # lest the softmax behind fc2 saturates
    bound = gain * (6 / shape[1:].numel()) ** 0.5  # variance 2 / fan-in
    return uniform(name, shape, -bound, bound)


def golden_logits(name: str) -> Tensor:
    with torch.device("meta"):
        net = ResNeSt(PUBLISHED[name].spec)
    values = {key: golden_value(key, value.shape) for key, value in net.state_dict().items()}
    net.load_state_dict(values, assign=True)
    with torch.no_grad():
        return net.eval()(uniform("image", torch.Size((1, 3, SIZE, SIZE)), -2, 2))[0]


def write() -> None:
    rows = {}
    for name in PUBLISHED:
        logits = golden_logits(name)
        rows[name] = {"norm": logits.norm().item(), "largest": logits.abs().max().item()}
        rows[name]["logits"] = logits[POSITIONS].tolist()
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(rows, indent=1) + "\n", encoding="ascii")


def stored() -> dict[str, dict]:
    return json.loads(GOLDEN.read_text(encoding="ascii"))


def test_every_published_network_has_golden_logits() -> None:
    rows = stored()
    assert list(rows) == list(PUBLISHED)
    for row in rows.values():
        assert len(row["logits"]) == len(POSITIONS)
        assert 1 < row["norm"] < 1e4, "values out of a sane range hide differences"
    # resnest50 and its fast twin have equal weights here: only the place of the average pool tells them apart.
    assert len({row["norm"] for row in rows.values()}) == len(rows)


@pytest.mark.parametrize("name", PUBLISHED)
def test_logits_equal_the_golden_ones(name: str) -> None:
    row, logits = stored()[name], golden_logits(name)
    assert logits.shape == (1000,)
    assert logits.norm().item() == pytest.approx(row["norm"], rel=1e-9)
    assert logits[POSITIONS].tolist() == pytest.approx(row["logits"], rel=0, abs=1e-9 * row["largest"])


if __name__ == "__main__":
    write()

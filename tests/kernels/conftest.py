"""Every test here runs the Triton kernels: on a GPU where there is one, else in Triton's interpreter.

tests/conftest.py turns that on, before triton is imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from resnest.kernels.backend import using, why_not

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    obstacle = why_not(DEVICE)
    if obstacle:
        for item in items:
            if "tests/kernels" in item.path.as_posix():
                item.add_marker(pytest.mark.skip(reason=f"the Triton kernels cannot run here: {obstacle}"))


@pytest.fixture(autouse=True)
def _kernels() -> Iterator[None]:
    torch.manual_seed(0)
    with using("triton"):
        yield


@pytest.fixture(autouse=True)
def _rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter (triton 3.9) cuts float32 down to bfloat16; a GPU rounds to nearest, and so does this."""
    if DEVICE.type == "cuda" or why_not(DEVICE):
        return
    import triton.language as tl
    from triton.runtime import interpreter

    convert = interpreter._convert_float

    def rounding(values: Any, source: Any, target: Any, mode: Any) -> Any:
        if (source, target) != (tl.float32, tl.bfloat16):
            return convert(values, source, target, mode)
        bits = np.ascontiguousarray(values).view(np.uint32).astype(np.uint64)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)  # ties to even

    monkeypatch.setattr(interpreter, "_convert_float", rounding)


@pytest.fixture
def device() -> torch.device:
    return DEVICE

"""Every test here runs the Triton kernels: on a GPU where there is one, else in Triton's interpreter.

tests/conftest.py turns that on, before triton is imported.
"""

from __future__ import annotations

from collections.abc import Iterator

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


@pytest.fixture
def device() -> torch.device:
    return DEVICE

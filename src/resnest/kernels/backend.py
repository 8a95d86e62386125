"""Backend of the operators: Triton kernels where they run, else plain torch.

    chosen(y.device)                     # "triton" or "torch"
    with using("torch"): ...             # for a while; RESNEST_KERNELS=torch for the process

"auto" is Triton on an NVIDIA GPU of compute capability 8.0 or more (bfloat16 in its matrix units). On a CPU Triton runs
in its interpreter alone, which is for tests: TRITON_INTERPRET=1, set before triton is imported, and "triton".
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Literal, get_args

import torch

from resnest.errors import ResnestError, unknown

Backend = Literal["triton", "torch"]
Choice = Literal["auto", "triton", "torch"]
CHOICES: tuple[Choice, ...] = get_args(Choice)
VARIABLE = "RESNEST_KERNELS"
LEAST_CAPABILITY = (8, 0)
_set: ContextVar[Choice | None] = ContextVar("_set", default=None)  # by `using`


def choice() -> Choice:
    """The requested backend: by `using`, else by the environment, else "auto"."""
    return _set.get() or _check(os.environ.get(VARIABLE) or "auto", where=VARIABLE)


@contextmanager
def using(wanted: str) -> Iterator[None]:
    """Select a backend within the block, in this thread and in backward passes of what is computed in it.

    Raises:
        ResnestError: for one that does not exist.
    """
    token = _set.set(_check(wanted, where="kernels"))
    try:
        yield
    finally:
        _set.reset(token)


def chosen(device: torch.device) -> Backend:
    """The backend for tensors of a device. A compiled graph keeps that of its tracing.

    Raises:
        ResnestError: Triton was asked for by name, and cannot run there.
    """
    wanted = choice()
    if wanted == "torch":
        return "torch"
    obstacle = why_not(device)
    if obstacle is None and (wanted == "triton" or device.type == "cuda"):
        return "triton"
    if wanted == "triton":
        raise ResnestError(f"the Triton kernels cannot run on {device}: {obstacle}. Choose kernels 'auto' or 'torch'")
    return "torch"


chosen._dynamo_marked_constant = True  # type: ignore[attr-defined]  # assume_constant_result, without its imports


def why_not(device: torch.device) -> str | None:
    """The reason against Triton on a device; None: there is none."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed (pip install triton)"
    if device.type == "cpu":
        return None if interpreted() else "on a CPU they run in Triton's interpreter alone (TRITON_INTERPRET=1)"
    if device.type != "cuda":
        return "they are for NVIDIA GPUs"
    if torch.version.hip:
        return "they were never tried on an AMD GPU"
    capability = _capability(device)
    if capability < LEAST_CAPABILITY:
        has, least = (".".join(map(str, numbers)) for numbers in (capability, LEAST_CAPABILITY))
        return f"it has compute capability {has}, and they need {least}"
    return None


def interpreted() -> bool:
    """Whether Triton was imported, or will be, in its interpreter mode."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def _check(wanted: str, *, where: str) -> Choice:
    if wanted not in CHOICES:
        raise unknown(f"choice of {where}", wanted, CHOICES)
    return wanted

"""Every test here runs the Triton kernels: on a GPU where there is one, else in Triton's interpreter.

tests/conftest.py turns that on, before triton is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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


@pytest.fixture(autouse=True)
def _memoized(monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches for the interpreter, which makes types anew for each operation and operators for each call: a third."""
    if DEVICE.type == "cuda" or why_not(DEVICE):
        return
    import triton.language as tl
    from triton.runtime import interpreter

    types: dict[str, np.dtype[Any]] = {}
    np_dtype = interpreter._get_np_dtype

    def dtype_of(kind: Any) -> np.dtype[Any]:
        if kind.name not in types:
            types[kind.name] = np_dtype(kind)
        return types[kind.name]

    monkeypatch.setattr(interpreter, "_get_np_dtype", dtype_of)
    monkeypatch.setattr(tl.block_type, "__init__", _memoized_block_type(tl.block_type.__init__))
    monkeypatch.setattr(tl.tensor, "__init__", _memoized_tensor(tl.tensor.__init__))
    monkeypatch.setattr(interpreter, "_patch_lang", _once_a_launch(interpreter._patch_lang))


def _memoized_block_type(init: Callable[..., None]) -> Callable[..., None]:
    """A type of blocks with the same numbers is the same."""
    import triton.language as tl

    known: dict[tuple[Any, ...], dict[str, Any]] = {}

    def __init__(self: Any, element_ty: Any, shape: Any) -> None:
        if type(element_ty) is not tl.dtype or any(type(size) is not int for size in shape):
            return init(self, element_ty, shape)
        key = element_ty.name, *shape
        if key not in known:
            init(self, element_ty, shape)
            known[key] = {**vars(self), "sizes": tuple(shape)}
        vars(self).update(known[key])

    return __init__


def _memoized_tensor(init: Callable[..., None]) -> Callable[..., None]:
    """Of tensors of one shape, all but the values and the type is the same."""
    known: dict[tuple[int, ...], dict[str, Any]] = {}

    def __init__(self: Any, handle: Any, type: Any) -> None:
        shape = (vars(type).get("sizes") or tuple(type.shape)) if type.is_block() else ()
        if shape not in known:
            init(self, handle, type)
            known[shape] = {name: value for name, value in vars(self).items() if name in ("shape", "numel")}
        vars(self).update(known[shape], handle=handle, type=type, dtype=type.scalar)

    return __init__


def _once_a_launch(patch: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`patch` replaces the operators that a kernel sees; functions that it calls see the same ones."""
    import triton.language as tl
    from triton.runtime import interpreter

    done: list[tuple[bool, bool]] = []

    def once(function: Any) -> Any:
        sees = tuple(any(value is lang for value in function.__globals__.values()) for lang in (tl, tl.core))
        if sees in done:
            return interpreter._LangPatchScope()  # nothing to restore
        done.append(sees)
        scope = patch(function)
        if len(done) == 1:  # the launch itself
            restore = scope.restore
            scope.restore = lambda: (done.clear(), restore())
        return scope

    return once


@pytest.fixture
def device() -> torch.device:
    return DEVICE

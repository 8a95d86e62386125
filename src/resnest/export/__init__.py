"""Verified export: a file is run in its own engine and compared with the network before it is delivered (promise P15).

    report = resnest.export("runs/a", format="onnx", out="model.onnx")

`exporting` joins the parts: a module per format, `gate` (the comparison), `layers` (which layer differs), `target`.

`resnest.export` is this package and can be called: Python gives a package the name of its folder in the one above,
whatever else has that name there.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *arguments: Any, **named: Any) -> Any:
        from resnest.export.exporting import export

        return export(*arguments, **named)


sys.modules[__name__].__class__ = _Callable

"""AOTInductor: the network compiled to machine code by torch's compiler, in one .pt2 file that also C++ programs load.

    run = load(Path("model.pt2"))
    run(images)["logits"]                       # any batch, of the size that it was compiled for

Made for one size of image: compiled for any size, torch 2.15 gave wrong numbers in silence at sides that are no
multiple of 8 (found by the gate; tests/test_export.py looks whether that still is so). The code is for this kind of
processor, and a package given another size than its own computes nonsense without a word: look at `sizes` in its
metadata first.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from resnest.errors import ResnestError
from resnest.export.capture import capture, quiet
from resnest.export.layers import Arrays, Runner

COMPILERS = ("g++", "clang++")  # what torch looks for, unless CXX names one


def write(net: nn.Module, path: Path, strings: Mapping[str, str], *, in_chans: int, size: int) -> None:
    """Compile a prepared network for images of `size`; `strings` go into the package's metadata."""
    check_compiler()
    program = capture(net, in_chans=in_chans, batch=None, size=size)
    settings = {"aot_inductor.metadata": dict(strings)}
    with quiet():
        torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=settings)


def check_compiler() -> None:
    """Raises ResnestError if there is no C++ compiler."""
    named = os.environ.get("CXX")
    if not any(shutil.which(name) for name in ((named,) if named else COMPILERS)):
        told = f"CXX={named} is none" if named else f"looked for {' and '.join(COMPILERS)}"
        raise ResnestError(f"AOTInductor compiles C++ and found no compiler ({told}): install one, or set CXX")


def load(path: Path) -> Runner:
    """The package in torch, on the CPU."""
    with quiet():
        package = torch._inductor.aoti_load_package(str(path))

    def run(images: NDArray[np.float32]) -> Arrays:
        with torch.no_grad():
            return {"logits": package(torch.from_numpy(images)).numpy()}

    return run

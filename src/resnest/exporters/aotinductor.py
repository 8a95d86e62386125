"""AOTInductor: the network compiled to machine code by torch's compiler, in one .pt2 file that also C++ programs load.

    run = load(Path("model.pt2"))
    run(images)["logits"]                       # any batch, of the size that it was compiled for

For a fixed image size: compiled for any size, torch 2.15.0 gave wrong numbers silently at sides that are no multiple
of 8 (detected by the gate). The code is for this type of processor, and images of another size than its own give wrong
results without an error: check `sizes` in the metadata first.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch._inductor import exc

from resnest.errors import ResnestError
from resnest.exporters.capture import Interface, capture, quiet
from resnest.exporters.layers import Arrays, Runner, named

COMPILERS = ("g++", "clang++")  # what torch looks for, unless CXX names one


def write(net: nn.Module, path: Path, strings: Mapping[str, str], takes: Interface) -> None:
    """Compile a prepared network for images of one size; `strings` become the package's metadata."""
    check_compiler()
    program = capture(net, takes)
    settings = {"aot_inductor.metadata": dict(strings)}
    content = io.BytesIO()  # written straight to a disk that is full, torch ends the process
    try:
        with quiet():
            torch._inductor.aoti_compile_and_package(program, package_path=content, inductor_configs=settings)
    except (exc.InductorError, exc.CppCompileError) as error:
        said = next((line for line in str(error).splitlines() if line.strip()), "")[:300]
        raise ResnestError(f"AOTInductor could not compile the network: {said}") from None
    path.write_bytes(content.getbuffer())


def check_compiler() -> None:
    """Raises ResnestError if there is no C++ compiler."""
    named = os.environ.get("CXX")
    if not any(_compiles(name) for name in ((named,) if named else COMPILERS)):
        told = f"CXX={named} is none" if named else f"looked for {' and '.join(COMPILERS)}"
        raise ResnestError(f"AOTInductor compiles C++ and found no compiler ({told}): install one, or set CXX")


def _compiles(name: str) -> bool:
    return shutil.which(name) is not None and not subprocess.run([name, "--version"], capture_output=True).returncode


def load(path: Path) -> Runner:
    """The package in torch, on the CPU."""
    with quiet():
        package = torch._inductor.aoti_load_package(str(path))

    def run(images: NDArray[np.float32]) -> Arrays:
        with torch.no_grad():
            return named(package(torch.from_numpy(images)))

    return run

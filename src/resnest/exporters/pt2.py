"""The .pt2 files of torch: an exported program (torch.export), and a package of machine code (AOTInductor).

    write_program(prepared(net), Path("model.pt2"), strings, Interface(3))         # any batch and size
    compile_package(prepared(net), Path("model.pt2"), strings, Interface(3))       # one size; C++ programs load it, too
    load_program(path)(images)["logits"], load_package(path)(images)["logits"]

Reading a .pt2 can run code that is in it (torch unpickles parts of it): load only files that you made. That is why
`resnest predict` does not take one.

A package is made for one size of image: compiled for any size, torch 2.15.0 gave wrong numbers in silence at sides that
are no multiple of 8 (the gate found it). The code is for this kind of processor, and a package given another size than
its own computes nonsense without a word: look at `sizes` in its metadata first.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._inductor import exc

from resnest.errors import ResnestError
from resnest.exporters.capture import Arrays, Interface, Runner, capture, named, quiet

OUTPUTS = "resnest_outputs"  # of the archive's extra files: names of what the network gives, as JSON


def write_program(net: nn.Module, path: Path, strings: Mapping[str, str], takes: Interface) -> None:
    """Write a prepared network; `strings` become extra files in the archive."""
    program = capture(net, takes)
    content = io.BytesIO()  # written straight to a disk that is full, torch ends the process
    with quiet():
        torch.export.save(program, content, extra_files={**strings, OUTPUTS: json.dumps(takes.outputs)})
    path.write_bytes(content.getbuffer())


def load_program(path: Path) -> Runner:
    """The file in torch, on the CPU."""
    extra = {OUTPUTS: ""}
    module = _module(path, extra)
    names = json.loads(extra[OUTPUTS] or "[]")

    def run(images: NDArray[np.float32]) -> Arrays:
        with torch.no_grad():
            outputs = module(torch.from_numpy(images))
        if isinstance(outputs, Tensor):
            return {"logits": outputs.numpy()}
        return {name: value.numpy() for name, value in zip(names, outputs, strict=True)}

    return run


def layers(path: Path, images: NDArray[np.float32]) -> Arrays:
    """The outputs of all modules of the network inside the file, by name."""
    recorder = _Recorder(_module(path))
    with torch.no_grad():
        recorder.run(torch.from_numpy(images))
    return {name: tensor.numpy() for name, tensor in recorder.seen.items()}


def _module(path: Path, extra: dict[str, str] | None = None) -> torch.fx.GraphModule:
    """The network; the archive's extra files replace the values of `extra`."""
    with quiet():
        module = torch.export.load(path, extra_files=extra).module()
    assert isinstance(module, torch.fx.GraphModule)
    return module


class _Recorder(torch.fx.Interpreter):
    """Runs a graph by node, and stores the output of every module's last node."""

    def __init__(self, module: torch.fx.GraphModule) -> None:
        super().__init__(module)
        self.seen: dict[str, Tensor] = {}

    def run_node(self, n: torch.fx.Node) -> Any:
        result = super().run_node(n)
        stack = n.meta.get("nn_module_stack") or {}
        for name in (str(path) for path, _ in reversed(stack.values())):
            self.seen.pop(name, None)
            if name and isinstance(result, Tensor):
                self.seen[name] = result.clone()  # later steps may write over it
        return result


COMPILERS = ("g++", "clang++")  # what torch looks for, unless CXX names one


def compile_package(net: nn.Module, path: Path, strings: Mapping[str, str], takes: Interface) -> None:
    """Compile a prepared network for images of one size; `strings` become the package's metadata."""
    check_compiler()
    program = capture(net, takes)
    settings = {"aot_inductor.metadata": dict(strings)}
    content = io.BytesIO()  # written straight to a disk that is full, torch ends the process
    try:
        with quiet():
            torch._inductor.aoti_compile_and_package(program, package_path=content, inductor_configs=settings)
    except (exc.InductorError, exc.CppCompileError) as error:
        message = next((line for line in str(error).splitlines() if line.strip()), "")[:300]
        raise ResnestError(f"AOTInductor could not compile the network: {message}") from None
    path.write_bytes(content.getbuffer())


def check_compiler() -> None:
    """Raises ResnestError if there is no C++ compiler."""
    named = os.environ.get("CXX")
    if not any(_compiles(name) for name in ((named,) if named else COMPILERS)):
        tried = f"CXX={named} is none" if named else f"looked for {' and '.join(COMPILERS)}"
        raise ResnestError(f"AOTInductor compiles C++ and found no compiler ({tried}): install one, or set CXX")


def _compiles(name: str) -> bool:
    return shutil.which(name) is not None and not subprocess.run([name, "--version"], capture_output=True).returncode


def load_package(path: Path) -> Runner:
    """The package in torch, on the CPU."""
    with quiet():
        package = torch._inductor.aoti_load_package(str(path))

    def run(images: NDArray[np.float32]) -> Arrays:
        with torch.no_grad():
            return named(package(torch.from_numpy(images)))

    return run

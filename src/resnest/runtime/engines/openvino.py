"""OpenVINO on the CPU: reads .onnx and its own .xml with .bin.

loaded = load(Path("model.xml"), threads=2)

Computed in float32: OpenVINO's default is bfloat16 where the processor supports it, which is faster and changes logits
by 0.4 % of the largest (ResNeSt-50, AVX-512 with bf16); an exported network must compute what was trained.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnest.errors import ResnestError
from resnest.runtime.engines.exported import CARD_KEY, ORIGIN_KEY, Loaded, Output, Shape

SUFFIXES = (".onnx", ".xml")


def version() -> str:
    import openvino

    return str(openvino.__version__).split("-")[0]


@cache
def core() -> Any:
    """The only core of this process, never released.

    A core gives its thread a signal stack, and restores the previous one when it is destroyed. Of two that overlap, the
    last to go leaves the stack of the other, which is gone, and the next signal ends the process (seen in 2026.4.1: a
    SIGCHLD after a few exported files were opened).
    """
    import openvino

    return openvino.Core()


def settings(threads: int, precision: str = "f32") -> dict[str, Any]:
    """Compilation settings of a graph; precision is f32 or bf16."""
    return {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision}


def load(path: Path, *, threads: int) -> Loaded:
    """Raises ResnestError if the file cannot be read, and ImportError if there is no openvino."""
    core()  # whether it is installed
    if path.suffix.lower() == ".xml" and not path.with_suffix(".bin").is_file():
        raise ResnestError(f"{path} lacks {path.with_suffix('.bin').name} beside it, which holds its weights")
    try:
        model = read(path)
        if not model.inputs:  # what its readers make of an empty file, or of another kind of XML
            raise RuntimeError("there is no network in it")
        images = _only_input(model.inputs, path)
        names = [_names(output, index) for index, output in enumerate(model.outputs)]
        indices = {name: index for index, all_names in enumerate(names) for name in all_names}
        request = core().compile_model(model, "CPU", settings(threads)).create_infer_request()
    except ResnestError:
        raise
    except Exception as error:  # RuntimeError with pages of text, or one of Python's own
        kind = "an ONNX" if path.suffix.lower() == ".onnx" else "an OpenVINO"
        raise ResnestError(
            f"{path} cannot be read as {kind} file: it was cut off, is damaged, or something else ({_message(error)})"
        ) from None

    turn = threading.Lock()  # with the hint of LATENCY, two requests would wait for each other all the same

    def compute(batch: NDArray[np.float32], names: Sequence[str]) -> list[NDArray[Any]]:
        with turn:
            try:
                request.infer([batch], share_inputs=True)
            except RuntimeError as error:
                raise ResnestError(f"{path} cannot take images {batch.shape} ({_message(error)})") from None
            # the next run overwrites them
            return [np.array(request.get_output_tensor(indices[name]).data) for name in names]

    plural = "s" if threads > 1 else ""
    outputs = {first: Output(_shape(model.outputs[k]), _dtype(model.outputs[k])) for k, (first, *_) in enumerate(names)}
    aliases = {other: first for first, *others in names for other in others}
    return Loaded(f"openvino, {threads} thread{plural}", compute, _shape(images), outputs, metadata(model), aliases)


def read(path: Path) -> Any:
    """The graph, by the reader for the file's suffix.

    `Core.read_model` offers what that one refuses to all the others; TensorFlow's writes on standard error then.
    Weights are read, not mapped: a file written over later would change results, one cut short end the process.
    """
    from openvino.frontend import FrontEndManager

    reader = FrontEndManager().load_by_framework("ir" if path.suffix.lower() == ".xml" else "onnx")
    return reader.convert(reader.load(str(path), enable_mmap=False))


def _only_input(values: list[Any], path: Path) -> Any:
    """The only input, of 32-bit floats."""
    expected = "images (N, 3, H, W)"
    if len(values) != 1:
        raise ResnestError(f"{path} has {len(values)} inputs: expected one, {expected}")
    kind = values[0].get_element_type().get_type_name()
    if kind != "f32":
        raise ResnestError(f"{path} has inputs of {kind}: expected {expected} of f32")
    return values[0]


def _names(output: Any, index: int) -> list[str]:
    """All names of an output; its number, if it has none."""
    return sorted(output.names) or [str(index)]


def _dtype(value: Any) -> str:
    """ "f32" -> "float32"."""
    kind = str(value.get_element_type().get_type_name())
    return {"f64": "float64", "f32": "float32", "f16": "float16", "i64": "int64", "i32": "int32"}.get(kind, kind)


def _shape(value: Any) -> Shape:
    """None for dynamic dimensions."""
    shape = value.get_partial_shape()
    if shape.rank.is_dynamic:
        return ()
    return tuple(side.get_length() if side.is_static else None for side in shape)


def metadata(model: Any) -> dict[str, str]:
    """In its own files it is the model's information; the metadata of an ONNX file is below "framework"."""
    strings = {}
    for key in (CARD_KEY, ORIGIN_KEY):
        for key_path in ([key], ["framework", key]):
            if model.has_rt_info(key_path):
                strings[key] = str(model.get_rt_info(key_path).value)
                break
    return strings


def _message(error: Exception) -> str:
    """OpenVINO's message without the places in its source; the last part is the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__

"""A model repository for NVIDIA's Triton Inference Server.

    REPOSITORY/NAME/config.pbtxt, labels.txt, 1/model.onnx              # the network: normalised images, or pixels
    REPOSITORY/NAME_preprocess/config.pbtxt, 1/model.py                 # encoded pictures -> its input, and sizes
    REPOSITORY/NAME_ensemble/config.pbtxt                               # one after the other: what clients ask

Fields: docs/user_guide/model_configuration.md and ensemble_models.md of triton-inference-server/server, and README.md
of its python_backend.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnest.errors import ResnestError, parameter
from resnest.exporters.calibration import Pictures
from resnest.exporters.kit import stored
from resnest.exporters.parcels import FILES, Parcel, clean_name, describe_preprocessing, free_sides, template
from resnest.inference.model import Model
from resnest.runtime.engines import onnxruntime as engine
from resnest.runtime.engines.exported import Shape

TRITON = "triton"  # what the format is called
MOST = 32  # images of a batch
DELAY = 1000  # microseconds that a request may wait for others
TYPES = {
    "float32": "TYPE_FP32", "uint8": "TYPE_UINT8", "int64": "TYPE_INT64", "int32": "TYPE_INT32", "bytes": "TYPE_STRING"
}  # fmt: skip
SIZES = 4  # numbers of the output `sizes`


@dataclass(frozen=True)
class Tensor:
    """An input or an output."""

    name: str
    dtype: str  # of numpy
    shape: Shape  # with the batch
    labels: bool = False  # whether labels.txt has a name for each value

    def config(self, batched: bool) -> dict[str, Any]:
        dims = [-1 if side is None else side for side in (self.shape[1:] if batched else self.shape)]
        labels = {"label_filename": "labels.txt"} if self.labels else {}
        return {"name": self.name, "data_type": Word(TYPES[self.dtype]), "dims": dims, **labels}


class Word(str):
    """A value of protobuf's text format that is written without quotes."""


class Repository(Parcel):
    """The three models of a Triton repository, which may have others beside them."""

    def __init__(self, root: Path, name: str) -> None:
        self.network, self.preprocess, self.ensemble = name, f"{name}_preprocess", f"{name}_ensemble"
        super().__init__(root, (self.network, self.preprocess, self.ensemble), parameter("out", root))
        self.model_file = f"{name}/1/model.onnx"

    def check(self) -> None:
        if self.root.exists() and not self.root.is_dir():
            raise ResnestError(f"{self.option} is a file: name a folder, a model repository")
        if not self.root.exists() and self.root.parent.is_dir():
            self.root.mkdir()
        super().check()

    def fill(self, file: Path, model: Model, pictures: Pictures, layout: str | None) -> None:
        temporary = file.parents[2]
        spec = describe_preprocessing(model, layout)
        loaded = engine.load(file, threads=1)
        free = loaded.images[0] is None
        most = min(MOST, model.card.info.max_batch_size or MOST) if free else 0
        together = 0 if not free else 1 if free_sides(model) else most  # pictures of one request
        batch = None if free else 1
        taken = Tensor(spec["input"]["name"], loaded.dtype, loaded.images)
        given = [
            Tensor(name, dtype, shape, labels=len(shape) == 2 and shape[1] == len(model.card.class_names) and free)
            for name, (shape, dtype) in loaded.outputs.items()
        ]
        encoded = Tensor("image", "bytes", (batch, 1) if free else (1,))
        sizes = Tensor("sizes", "int64", (batch, SIZES) if free else (SIZES,))
        batching = {"dynamic_batching": {"max_queue_delay_microseconds": DELAY}} if free else {}
        network = {"backend": "onnxruntime", "default_model_filename": file.name, **batching}
        _write(temporary / self.network, network, most, [taken], given)
        _write_labels(temporary / self.network, model)
        python = {"backend": "python", **({"dynamic_batching": {}} if together > 1 else {})}
        _write(temporary / self.preprocess, python, together, [encoded], [taken, sizes])
        (temporary / self.preprocess / "1").mkdir()
        (temporary / self.preprocess / "1" / "model.py").write_text(_program(), encoding="utf-8")
        content = json.dumps(spec, indent=2) + "\n"
        (temporary / self.preprocess / "1" / "preprocessing.json").write_text(content, encoding="utf-8")
        steps = {"platform": "ensemble", "ensemble_scheduling": {"step": self._steps(taken, given)}}
        _write(temporary / self.ensemble, steps, together, [encoded], [*given, sizes])
        _write_labels(temporary / self.ensemble, model)
        (temporary / self.ensemble / "1").mkdir()  # Triton asks for a version, which has no file
        (temporary / self.ensemble / "1" / ".keep").touch()

    def _steps(self, taken: Tensor, given: Sequence[Tensor]) -> list[dict[str, Any]]:
        """Keys are names of tensors in a model, values those in the ensemble."""

        def step(name: str, takes: dict[str, str], gives: dict[str, str]) -> dict[str, Any]:
            maps = {
                field: [{"key": key, "value": value} for key, value in names.items()]
                for field, names in (("input_map", takes), ("output_map", gives))
            }
            return {"model_name": name, "model_version": -1, **maps}

        prepared = {taken.name: "prepared"}
        return [
            step(self.preprocess, {"image": "image"}, {**prepared, "sizes": "sizes"}),
            step(self.network, prepared, {tensor.name: tensor.name for tensor in given}),
        ]


def find_repository(out: Path | None, source: str) -> Repository:
    """The repository to write: `out`, or the folder `triton` of a run, else in the current folder."""
    folder = Path(source)
    root = out or (folder / "triton" if folder.is_dir() else Path("triton"))
    return Repository(root, clean_name(source) or "model")


def _program() -> str:
    return template(FILES, stored("preprocess.py")) + template(FILES, "triton_model.py.txt")


def _write_labels(folder: Path, model: Model) -> None:
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in model.card.class_names), encoding="utf-8")


def _write(folder: Path, what: dict[str, Any], most: int, takes: Sequence[Tensor], gives: Sequence[Tensor]) -> None:
    tensors = {
        field: [tensor.config(most > 0) for tensor in tensors]
        for field, tensors in (("input", takes), ("output", gives))
    }
    folder.mkdir(exist_ok=True)
    text = "".join(_lines({"name": folder.name, "max_batch_size": most, **tensors, **what}))
    (folder / "config.pbtxt").write_text(text, encoding="utf-8")


def _lines(message: dict[str, Any], indent: str = "") -> list[str]:
    """Protobuf's text format: repeated messages one by one, lists of numbers in brackets."""
    lines = []
    for field, value in message.items():
        several = value if isinstance(value, list) and value and isinstance(value[0], dict) else [value]
        for one in several:
            if isinstance(one, dict):
                lines += [f"{indent}{field} {{\n", *_lines(one, f"{indent}  "), f"{indent}}}\n"]
            else:
                lines.append(f"{indent}{field}: {one if isinstance(one, Word) else json.dumps(one)}\n")
    return lines

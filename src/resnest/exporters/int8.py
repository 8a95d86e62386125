"""int8 export: quantizes a verified float file, checks its accuracy, times it in each engine.

    step = Int8("photos", max_drop=1.0)
    parity, told, strings = step.write(model, find_format("onnx"), path, pictures, weights_sha256=None)

This is `resnest export --int8 --calibrate photos`. docs/int8.md has its accuracy and speed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnest.errors import ParityFailure, ResnestError, parameter
from resnest.exporters.accuracy import Cost, compare
from resnest.exporters.calibration import Photos, check_enough, find_photos
from resnest.exporters.formats import FORMATS, Format
from resnest.exporters.gate import Parity
from resnest.exporters.pictures import Pictures
from resnest.exporters.quantize import Choices, Quantized, quantize
from resnest.exporters.speed import measure
from resnest.exporters.writing import NOTHING, metadata, written
from resnest.inference.model import Model
from resnest.runtime.engines.choosing import ENGINES
from resnest.runtime.engines.engine import Loaded
from resnest.runtime.hardware import instruction_sets, usable_cores

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]
FLOAT, INT8 = "float32", "int8"
MAX_DROP = 1.0  # points of top-1: promise P15
MAX_CHANGED = 5.0  # % of labels, where pictures have none: of a changed label the old one may have been wrong, too
BATCHES = (1, 16)
WIDE = ("vnni", "amx", "dotprod", "i8mm", "neon")  # products of 8 bits are summed in 32: nothing saturates


@dataclass(frozen=True)
class Int8:
    """A user's request for int8."""

    photos: str | Path
    max_drop: float | None = None  # points of accuracy, or % of labels; None: 1 and 5

    def check(self, form: Format) -> None:
        """Raises ResnestError for models and formats without int8."""
        if form.name not in ("onnx", "openvino"):
            raise ResnestError(f"{parameter('int8')} is written to onnx or openvino, not to {form.name}")
        FORMATS["onnx"].check_installed()
        if self.max_drop is not None and not 0 <= self.max_drop <= 100:
            raise ResnestError(f"{parameter('max_drop', self.max_drop)}: expected points of accuracy, 0 to 100")

    def write(
        self,
        model: Model,
        form: Format,
        path: Path,
        pictures: Pictures,
        *,
        weights_sha256: str | None,
        on_step: Callable[[str], None] = lambda step: None,
    ) -> tuple[Parity, dict[str, Any], dict[str, str]]:
        """Write an int8 file; returns the parity of its float file, notes, and its metadata.

        Raises:
            ParityFailure: it is less accurate than allowed, or already its float file computes something else.
            ResnestError: too few images.
        """
        calibration, held_back = find_photos(self.photos, model)
        with TemporaryDirectory(dir=path.parent) as folder:
            float_file, int8_file = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
            onnx = FORMATS["onnx"]
            on_step(f"writing {path.name} ({form.name}), first in float")
            strings = metadata(model, onnx, weights_sha256=weights_sha256)
            parity, _ = written(model, onnx, float_file, strings, pictures, on_step=on_step)
            on_step(f"calibrating on {len(calibration.reads)} pictures of {self.photos}")
            batches = [images for images, _ in calibration.batches(model.card)]
            usable = sum(map(len, batches))
            check_enough(self.photos, usable, len(held_back.reads))
            parts = quantize(float_file, int8_file, batches, choices_here())
            runs = runners({FLOAT: float_file, INT8: int8_file})
            on_step(f"comparing float and int8 on {len(held_back.reads)} others")
            costs = self._costs(model, runs, held_back, usable)
            on_step("timing both")
            engine = max(costs, key=lambda name: costs[name].drop)  # where accuracy is lowest
            told = {
                **account(parts, engine, costs[engine], runs, model),
                "needed": costs[engine].needed(self._allowed(costs[engine])),
                "skipped": [*calibration.bad, *held_back.bad],
            }
            kept = {key: told[key] for key in ("accuracy", "instruction_set", "fastest")}
            strings = metadata(model, form, weights_sha256=weights_sha256, precision=INT8, told=kept)
            place(form, int8_file, path, strings)
        return parity, {"int8": told}, strings

    def _costs(
        self, model: Model, runs: dict[tuple[str, str], Run], photos: Photos, calibrated: int
    ) -> dict[str, Cost]:
        others = {engine: run for (engine, kind), run in runs.items() if kind == INT8}
        costs = compare(
            runs["onnxruntime", FLOAT],
            others,
            photos.batches(model.card),
            multi_label=model.card.multi_label,  # type: ignore[attr-defined]
        )
        for engine, cost in costs.items():
            check_enough(self.photos, calibrated, cost.images)
            allowed = self._allowed(cost)
            if cost.drop > allowed:
                more = cost.needed(allowed)
                doubt = f" {cost.images} pictures are too few to be sure, about {more} are needed." if more else ""
                raise ParityFailure(
                    f"int8 in {engine}: {cost}; allowed are {100 * allowed:g} ({parameter('max_drop')}).{doubt} More"
                    f" pictures to calibrate on may help, like those that it will be used on. {NOTHING}"
                )
        return costs

    def _allowed(self, cost: Cost) -> float:
        """The allowed drop."""
        return (self.max_drop if self.max_drop is not None else MAX_DROP if cost.labelled else MAX_CHANGED) / 100


def choices_here() -> Choices:
    """Quantization choices for the processor of this machine."""
    return Choices(narrow=not set(WIDE) & set(instruction_sets()))


def runners(files: dict[str, Path]) -> dict[tuple[str, str], Run]:
    """Every file in every engine that is installed, by engine and kind."""
    found: dict[tuple[str, str], Run] = {}
    for name, engine in ENGINES.items():
        for kind, file in files.items():
            try:
                found[name, kind] = _logits_of(engine.load(file, threads=usable_cores()))
            except ImportError:
                break
    return found


def _logits_of(loaded: Loaded) -> Run:
    first = next(iter(loaded.outputs))
    return lambda images: loaded.compute(images, [first])[0]


def account(
    parts: Quantized, engine: str, cost: Cost, runs: dict[tuple[str, str], Run], model: Model
) -> dict[str, Any]:
    """The findings, ready for JSON; the cost is that in `engine`."""
    side = model.card.preprocess.size  # type: ignore[attr-defined]
    rng = np.random.default_rng(0)
    milliseconds: dict[str, dict[str, float]] = {}
    for batch in BATCHES:
        images = rng.standard_normal((batch, model.card.in_chans, side, side), np.float32)
        times = measure({" ".join(key): run for key, run in runs.items()}, images)
        milliseconds[str(batch)] = {name: round(1000 * seconds, 3) for name, seconds in times.items()}
    return {
        "layers": {"int8": parts.int8, "float32": parts.float32},
        "accuracy": {"engine": engine, **cost.to_dict()},
        "in_words": str(cost),
        "milliseconds": milliseconds,
        "fastest": {batch: min(times, key=lambda name: times[name]) for batch, times in milliseconds.items()},
        "instruction_set": " ".join(instruction_sets()),
    }


def place(form: Format, source: Path, path: Path, strings: dict[str, str]) -> None:
    """Convert the quantized ONNX file to the requested format, with its metadata."""
    if form.name == "openvino":
        import openvino

        converted = openvino.convert_model(source)
        for name, text in strings.items():
            converted.set_rt_info(text, name)
        openvino.save_model(converted, path, compress_to_fp16=False)
        return
    import onnx

    model = onnx.load(source)
    onnx.helper.set_model_props(model, strings)
    onnx.save(model, path)


def in_text(told: dict[str, Any]) -> list[str]:
    """Lines to print."""
    lines = [
        f"int8       {told['layers']['int8']} layers, {told['layers']['float32']} stay in float",
        f"accuracy   {told['in_words']}",
    ]
    if told["needed"]:
        lines.append(f"           too few pictures to be sure that it is allowed, about {told['needed']} are needed")
    for batch, times in told["milliseconds"].items():
        base = times["onnxruntime float32"]
        each = ", ".join(f"{name} {value:.1f} ms ({base / value:.2f}x)" for name, value in times.items())
        lines.append(f"batch {batch:<4} {each}")
    fastest, sets = told["fastest"], told["instruction_set"] or "unknown instructions"
    chosen = " and ".join(f"{name} at batch {batch}" for batch, name in fastest.items())
    slower = all(INT8 not in name for name in fastest.values())
    verdict = "int8 is not faster here: the fastest is" if slower else "fastest on this machine:"
    lines.append(f"speed      {verdict} {chosen} ({sets})")
    if told["skipped"]:
        lines.append(f"skipped    {len(told['skipped'])} pictures that cannot be used, such as {told['skipped'][0]}")
    return lines

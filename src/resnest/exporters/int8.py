"""int8 export: quantizes a verified float file, checks its accuracy, times it in each engine.

    step = Int8("photos", max_drop=1.0)
    parity, notes, strings = step.write(model, find_format("onnx"), path, pictures, weights_sha256=None)

This is `resnest export --int8 --calibrate photos`. docs/int8.md has its accuracy and speed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnest.errors import ParityFailure, ResnestError, parameter
from resnest.exporters.calibration import Photos, Pictures, check_enough, find_photos
from resnest.exporters.capture import Arrays
from resnest.exporters.formats import FORMATS, Format
from resnest.exporters.gate import TOLERANCE, Parity
from resnest.exporters.quantize import Choices, Quantized, quantize
from resnest.exporters.writing import NOTHING, metadata, written
from resnest.inference.model import Model
from resnest.runtime.engines.choosing import ENGINES
from resnest.runtime.engines.exported import Loaded
from resnest.runtime.hardware import instruction_sets, usable_cores

# --- Timing of exported files in the installed engines, alternately, as the speed of a machine drifts ---

Call = Callable[[NDArray[np.float32]], object]
SECONDS = 4.0  # for all contenders together
LEAST_ROUNDS, MOST_ROUNDS = 3, 30


def measure(runs: Mapping[str, Call], images: NDArray[np.float32], *, seconds: float | None = None) -> dict[str, float]:
    """Median seconds per call with `images`, by name; the first round is a warm-up."""
    names, seconds = list(runs), SECONDS if seconds is None else seconds
    durations: dict[str, list[float]] = {name: [] for name in names}
    started, rounds = time.perf_counter(), -1
    while rounds < LEAST_ROUNDS or (rounds < MOST_ROUNDS and time.perf_counter() - started < seconds):
        first = (rounds + 1) % len(names)
        for name in names[first:] + names[:first]:
            begin = time.perf_counter()
            runs[name](images)
            durations[name].append(time.perf_counter() - begin)
        rounds += 1
    return {name: median(times[1:]) for name, times in durations.items()}


# --- Agreement of two networks' labels, except for ties within the tolerance ---


def same_label(expected: Arrays, got: Arrays) -> NDArray[np.bool_]:
    """Whether the top-1 class, for a segmenter at every pixel, is the same or tied within the tolerance."""
    ours, theirs = expected["logits"], got["logits"]  # (N, K), or (N, K, H, W)
    chosen = np.take_along_axis(ours, theirs.argmax(1, keepdims=True), 1)[:, 0]  # what we give to their best class
    largest = np.abs(ours).reshape(len(ours), -1).max(1)  # (N,)
    short = (ours.max(1) - chosen).reshape(len(ours), -1).max(1)
    allowed: NDArray[np.bool_] = short <= 2 * TOLERANCE * largest
    return allowed & np.isfinite(theirs).reshape(len(ours), -1).all(1)


def same_labels(expected: Arrays, got: Arrays) -> NDArray[np.bool_]:
    """Whether the same classes score 50 % or more, except those within the tolerance of it."""
    ours, theirs = expected["logits"], got["logits"]  # (N, K)
    border = np.abs(ours) <= TOLERANCE * np.abs(ours).max(-1, keepdims=True)
    same: NDArray[np.bool_] = (((ours >= 0) == (theirs >= 0)) | border).all(-1) & np.isfinite(theirs).all(-1)
    return same


# --- The accuracy lost by int8 on a hold-out set, paired by picture ---
# Both see the same pictures, so only those count where one is right and the other wrong: the interval is that of the
# difference of two paired proportions, with half a picture added to each of the four cells (Agresti and Min, Statistics
# in Medicine 24, 2005). Without these the interval would have no width where no picture differs, however few there are.

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]
Batches = Iterable[tuple[NDArray[np.float32], NDArray[np.int64]]]
Z95 = 1.96  # two-sided 95 % of a normal distribution


@dataclass(frozen=True)
class AccuracyCost:
    """The accuracy lost by an int8 network against its float one, in one engine."""

    images: int
    right: int  # float's, with labels
    lost: int  # float is right and int8 is wrong; without labels: int8 predicts another label
    won: int  # the other way round; without labels 0
    labelled: bool

    @property
    def drop(self) -> float:
        """Lost accuracy, a fraction; without labels, the fraction of changed labels."""
        return (self.lost - self.won) / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the drop."""
        images = self.images + 2
        middle = (self.lost - self.won) / images
        spread = Z95 * math.sqrt((self.lost + self.won + 1) / images - middle**2) / math.sqrt(images)
        return max(middle - spread, -1.0), min(middle + spread, 1.0)

    def needed(self, allowed: float) -> int:
        """How many pictures would distinguish this drop from the allowed one; 0 if these do."""
        low, high = self.interval
        if not low <= allowed < high:
            return 0
        changing = (self.lost + self.won + 1) / (self.images + 2)
        return math.ceil(changing * (Z95 / max(abs(allowed - self.drop), 0.001)) ** 2)

    def to_dict(self) -> dict[str, Any]:
        both = {"images": self.images, "drop": self.drop, "interval": list(self.interval)}
        if not self.labelled:
            return {"labels_changed": self.lost / self.images, **both}
        return {"float32": self.right / self.images, "int8": (self.right - self.lost + self.won) / self.images, **both}

    def __str__(self) -> str:
        low, high = (100 * value for value in self.interval)
        if not self.labelled:
            return (
                f"{100 * self.drop:.2f} % of {self.images} held-back pictures get another label (at most {high:.2f} %)"
            )
        values = self.to_dict()
        return (
            f"top-1 {100 * values['float32']:.2f} % in float, {100 * values['int8']:.2f} % in int8:"
            f" {-100 * self.drop:+.2f} points ({-high:+.2f} to {-low:+.2f}) on {self.images} held-back pictures"
        )


def compare(run: Run, others: Mapping[str, Run], batches: Batches, *, multi_label: bool) -> dict[str, AccuracyCost]:
    """Run every picture through the float network and each of the others."""
    counts = {name: np.zeros(2, int) for name in others}  # lost, won
    images, right, labelled = 0, 0, False
    for pictures, labels in batches:
        expected = _answer(run(pictures), multi_label)
        labelled = bool(labels[0] >= 0)
        images, right = images + len(labels), right + int(_right(expected, labels).sum())
        for name, other in others.items():
            got = _answer(other(pictures), multi_label)
            if labelled:
                before, after = _right(expected, labels), _right(got, labels)
                counts[name] += (before & ~after).sum(), (~before & after).sum()
            else:
                counts[name][0] += (expected != got).any(-1).sum()
    return {name: AccuracyCost(images, right, int(lost), int(won), labelled) for name, (lost, won) in counts.items()}


def _answer(logits: NDArray[np.float32], multi_label: bool) -> NDArray[Any]:
    """(N, K) -> (N, 1), the top-1 class, or (N, K), the labels that score 50 % or more."""
    return logits >= 0 if multi_label else logits.argmax(-1)[:, None]


def _right(answer: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    right: NDArray[np.bool_] = answer[:, 0] == labels
    return right


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
            report = {
                **account(parts, engine, costs[engine], runs, model),
                "needed": costs[engine].needed(self._allowed(costs[engine])),
                "skipped": [*calibration.bad, *held_back.bad],
            }
            summary = {key: report[key] for key in ("accuracy", "instruction_set", "fastest")}
            strings = metadata(model, form, weights_sha256=weights_sha256, precision=INT8, extra=summary)
            write_quantized(form, int8_file, path, strings)
        return parity, {"int8": report}, strings

    def _costs(
        self, model: Model, runs: dict[tuple[str, str], Run], photos: Photos, calibrated: int
    ) -> dict[str, AccuracyCost]:
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

    def _allowed(self, cost: AccuracyCost) -> float:
        """The allowed drop."""
        return (self.max_drop if self.max_drop is not None else MAX_DROP if cost.labelled else MAX_CHANGED) / 100


def choices_here() -> Choices:
    """Quantization choices for the processor of this machine."""
    return Choices(narrow=not set(WIDE) & set(instruction_sets()))


def runners(files: dict[str, Path]) -> dict[tuple[str, str], Run]:
    """Every file in every engine that is installed, by engine and kind."""
    runs: dict[tuple[str, str], Run] = {}
    for name, engine in ENGINES.items():
        for kind, file in files.items():
            try:
                runs[name, kind] = _logits_of(engine.load(file, threads=usable_cores()))
            except ImportError:
                break
    return runs


def _logits_of(loaded: Loaded) -> Run:
    first = next(iter(loaded.outputs))
    return lambda images: loaded.compute(images, [first])[0]


def account(
    parts: Quantized, engine: str, cost: AccuracyCost, runs: dict[tuple[str, str], Run], model: Model
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


def write_quantized(form: Format, source: Path, path: Path, strings: dict[str, str]) -> None:
    """Convert the quantized ONNX file to the requested format, with its metadata."""
    if form.name == "openvino":
        import openvino

        from resnest.runtime.engines.openvino import read

        converted = read(source)
        for name, text in strings.items():
            converted.set_rt_info(text, name)
        openvino.save_model(converted, path, compress_to_fp16=False)
        return
    import onnx

    model = onnx.load(source)
    onnx.helper.set_model_props(model, strings)
    onnx.save(model, path)


def in_text(facts: dict[str, Any]) -> list[str]:
    """Lines to print."""
    lines = [
        f"int8       {facts['layers']['int8']} layers, {facts['layers']['float32']} stay in float",
        f"accuracy   {facts['in_words']}",
    ]
    if facts["needed"]:
        lines.append(f"           too few pictures to be sure that it is allowed, about {facts['needed']} are needed")
    for batch, times in facts["milliseconds"].items():
        base = times["onnxruntime float32"]
        each = ", ".join(f"{name} {value:.1f} ms ({base / value:.2f}x)" for name, value in times.items())
        lines.append(f"batch {batch:<4} {each}")
    fastest, sets = facts["fastest"], facts["instruction_set"] or "unknown instructions"
    chosen = " and ".join(f"{name} at batch {batch}" for batch, name in fastest.items())
    slower = all(INT8 not in name for name in fastest.values())
    verdict = "int8 is not faster here: the fastest is" if slower else "fastest on this machine:"
    lines.append(f"speed      {verdict} {chosen} ({sets})")
    if facts["skipped"]:
        lines.append(f"skipped    {len(facts['skipped'])} pictures that cannot be used, such as {facts['skipped'][0]}")
    return lines

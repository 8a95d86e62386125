"""Contenders of a benchmark: our networks, timm's, torchvision's and exported files, in each engine that runs them.

    entrant = find_entrant("timm:resnest50d")          # kind, engines, its own evaluation crop
    contenders([entrant], engines=["eager"], layouts=["nchw"], batch=1, size=None)

A contender is one network in one engine, layout and batch: one line of the table.
"""

from __future__ import annotations

import difflib
import importlib.util
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from resnest.bench.plot import figure_of
from resnest.errors import ResnestError, parameter, unknown
from resnest.runtime.card import ModelCard
from resnest.runtime.engines.choosing import ENGINES as READERS
from resnest.runtime.engines.exported import CARD_KEY
from resnest.spec import PUBLISHED, find_spec
from resnest.tasks import DEFAULT_TASK

Kind = Literal["ours", "saved", "timm", "torchvision", "file"]

# eager-kept: with freed memory retained, as on the command line; torch: TorchEngine with that;
# compiled: torch.compile, of ours what `prepared` gives
TORCH_ENGINES = ("eager", "eager-kept", "prepared", "torch", "compiled")
FILE_ENGINES = ("onnxruntime", "openvino", "predictor")  # predictor: the engine and settings of resnest.Predictor
ENGINES = (*TORCH_ENGINES, *FILE_ENGINES)
LAYOUTS = ("nchw", "channels_last")
SUFFIXES = {".onnx": FILE_ENGINES, ".xml": ("openvino", "predictor")}
LEAST_SIZE = 32  # these networks halve an image five times
_PEERS = ("timm", "torchvision")


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """A named network, before its engines are chosen."""

    name: str  # in tables
    reference: str  # as it was given: a name, a path
    kind: Kind
    size: int  # its own evaluation crop
    engines: tuple[str, ...]  # that can run it

    @property
    def is_peer(self) -> bool:
        return self.kind in _PEERS


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One network in one engine, layout, batch and size."""

    entrant: Entrant
    engine: str
    layout: str
    batch: int
    size: int


def find_entrant(reference: str, *, name: str = "") -> Entrant:
    """The network behind a reference.

    Args:
        reference: a name of ours, "timm:NAME", "torchvision:NAME", a run or saved model, a checkpoint or exported file.
        name: what tables call it; the reference where empty.

    Raises:
        ResnestError: there is no such network, with the nearest name; a package that is not installed.
    """
    prefix, colon, rest = reference.partition(":")
    kind: Kind
    if colon and prefix in _PEERS:
        kind, size = ("timm", _timm_size(rest)) if prefix == "timm" else ("torchvision", _torchvision_size(rest))
        engines: tuple[str, ...] = ("eager", "eager-kept", "compiled", "onnxruntime", "openvino")
    elif Path(reference).suffix in SUFFIXES:
        if not Path(reference).is_file():
            raise ResnestError(f"there is no file {reference}")
        kind, size, engines = "file", _file_size(Path(reference)), SUFFIXES[Path(reference).suffix]
    elif Path(reference).exists():
        kind, size, engines = "saved", _saved_size(reference), ENGINES
    else:
        kind, size, engines = "ours", _own_size(reference), ENGINES
    return Entrant(name=name or reference, reference=reference, kind=kind, size=size, engines=engines)


def contenders(
    entrants: Sequence[Entrant],
    *,
    engines: Sequence[str],
    layouts: Sequence[str],
    batch: int,
    size: int | None,
) -> list[Contender]:
    """Every entrant in every engine that runs it; layouts differ only for torch's engines.

    Raises:
        ResnestError: an entrant that none of the engines takes.
    """
    result = []
    for entrant in entrants:
        fitting = [engine for engine in engines if engine in entrant.engines]
        if not fitting:
            raise ResnestError(f"{entrant.name} runs in {_listed(entrant.engines)}, not in {_listed(engines)}")
        for engine in fitting:
            for layout in layouts_of(engine, layouts):
                fields = {"engine": engine, "layout": layout, "batch": batch}
                result.append(Contender(entrant=entrant, size=size or entrant.size, **fields))  # type: ignore[arg-type]
    return result


def layouts_of(engine: str, layouts: Sequence[str]) -> Sequence[str]:
    """The memory layouts to measure of an engine: `torch` and exported files have one."""
    if layouts and engine in TORCH_ENGINES and engine != "torch":
        return layouts
    if engine == "eager":
        return LAYOUTS
    return ("channels_last",) if engine in TORCH_ENGINES else ("nchw",)


def check_engine(engine: str, *, device: str) -> None:
    """Raises ResnestError for an engine that does not exist, or that this machine cannot run."""
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    if engine in FILE_ENGINES:
        package = "onnxruntime" if engine == "predictor" else engine
        _check_package(f"the engine {engine}", package, "onnx" if package == "onnxruntime" else package)
    if engine in ("openvino", "predictor") and device == "cuda":
        cpu = parameter("device", "cpu")
        raise ResnestError(f"the engine {engine} has no CUDA: leave it out, or measure with {cpu}")
    if engine == "compiled" and device == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        raise ResnestError("the engine compiled needs a C++ compiler on a CPU, and there is none on the path")


def check_export(entrant: Entrant, engine: str) -> None:
    """Raises ResnestError if a network cannot become a file for an engine that reads files."""
    if engine in FILE_ENGINES and entrant.kind != "file":
        for package in ("onnx", "onnxscript"):
            _check_package(f"{entrant.name} in {engine}", package, "onnx")


def _check_package(what: str, package: str, extra: str) -> None:
    if not has(package):
        raise ResnestError(f"{what} needs the package {package}: pip install 'resnest[{extra}]'")


def has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _own_size(name: str) -> int:
    if name.isdigit():
        raise ResnestError(f"{name} is no network; several batches are given as {parameter('batches', [1, 16])}")
    try:
        _, official = find_spec(name)
    except ResnestError as error:
        raise ResnestError(f"{error} Others: timm:NAME, torchvision:NAME, a run, an .onnx or .xml file.") from None
    return PUBLISHED[official].crop if official in PUBLISHED else 224


def classifier_size(card: ModelCard, where: object) -> int:
    """Side in pixels of a classifier's images. Raises ResnestError for another task's model."""
    if card.task != DEFAULT_TASK:
        raise ResnestError(f"{where} is {card.info.noun}, and bench times classifiers")
    return card.preprocess.padded_size(1, 1)[0]


def _saved_size(reference: str) -> int:
    from resnest.inference.model import Model

    return classifier_size(Model.from_pretrained(reference).card, reference)


def _file_size(path: Path) -> int:
    """The size fixed in the file, or its card's; else 224.

    Raises:
        ResnestError: the file cannot be read.
    """

    for reader in READERS.values():
        if path.suffix not in reader.SUFFIXES:
            continue
        try:
            loaded = reader.load(path, threads=1)
        except ImportError:
            continue
        if len(loaded.images) == 4 and loaded.images[2]:
            return loaded.images[2]
        if CARD_KEY in loaded.metadata:
            card = ModelCard.from_json(loaded.metadata[CARD_KEY], where=f"the metadata of {path}")
            return classifier_size(card, path)
    return 224


def _timm_size(name: str) -> int:
    if not has("timm"):
        raise ResnestError("timm is not installed: pip install timm")
    import timm

    if not timm.is_model(name):
        raise _no_such("timm", name, timm.list_models())
    published = figure_of(f"timm:{name}")
    settings = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return published.size if published else int(settings.input_size[-1]) if settings else 224


def _torchvision_size(name: str) -> int:
    from torchvision import models

    if name not in models.list_models(models):
        raise _no_such("torchvision", name, models.list_models(models))
    return 224


def _no_such(package: str, name: str, known: Sequence[str]) -> ResnestError:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    advice = f" Did you mean '{package}:{near[0]}'?" if near else ""
    return ResnestError(f"'{package}:{name}' is not a network of {package}.{advice}")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else names[0]

"""`Predictor`: prediction with any model reference in a suitable engine. torch is imported only if that needs it.

predict = Predictor("runs/a")                # or "resnest50", a checkpoint file, a hub id
predict = Predictor("m.onnx")                # an exported file, without torch
predict("rose.jpg").top(3)
predict.engine.name                          # "onnxruntime, 2 threads"
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from resnest.errors import ResnestError, call, parameter, unknown
from resnest.files import CARD_NAME, WEIGHTS_NAME, sha256_of
from resnest.runtime.card import ModelCard
from resnest.runtime.engines.choosing import ENGINES, is_exported, open_engine
from resnest.runtime.engines.exported import Engine, ExportedEngine
from resnest.runtime.predictor import ImagePredictor
from resnest.runtime.tiles import Tiles

FORMATS = {".onnx": "onnx", ".xml": "openvino"}  # what `resnest export` calls them; it writes RUN/model.SUFFIX
_GPUS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # where Linux has one that torch may use: CUDA, ROCm, WSL


class Predictor(ImagePredictor):
    """`ImagePredictor` for any model reference.

    Args:
        engine: "torch", "onnxruntime" or "openvino". "auto": an exported file is run by the fastest of those
            installed; a run by the file exported into its directory, on a CPU, if that holds the run's weights and
            prepares pictures as the run does, and by torch otherwise. Nothing is exported here.
        network: name of the network in a checkpoint file that does not identify it.
        card: of an exported file without classes and preprocessing: config.json, the directory
            with it, or the card itself.
        window: of a segmenter, side of the squares that a large picture is looked at in, pixels: less memory.
        tiles: cut large pictures into tiles, of a detector or a segmenter.
        threshold: of a model that predicts by one (multi-label masks), in place of its card's.

    >>> Predictor("no/such/run")
    Traceback (most recent call last):
    resnest.errors.ResnestError: there is no model at no/such/run: expected a run directory or a checkpoint file
    """

    note: str = ""  # why a file exported into the run's directory is not used, or how it differs from the run

    def __init__(
        self,
        reference: str | Path,
        *,
        engine: str = "auto",
        network: str | None = None,
        device: str = "auto",
        batch_size: int = 16,
        card: ModelCard | str | Path | None = None,
        window: int | None = None,
        tiles: Tiles | None = None,
        threshold: float | None = None,
    ) -> None:
        if engine not in ("auto", "torch", *ENGINES):
            raise unknown("engine", engine, ["auto", "torch", *ENGINES])
        exported, run = is_exported(reference), Path(reference)
        if card is not None and not exported:
            option = parameter("card")
            raise ResnestError(f"{reference} has its own card: {option} is for exported files that have none")
        opened: ExportedEngine | None = None
        if exported:
            opened = _open_exported(run, engine, device, batch_size, card)
        elif engine in ENGINES:
            opened = _open_beside(run, engine, device, batch_size)
            self.note = _other_preprocessing(run, opened)
        elif engine == "auto" and network is None and run.is_dir() and _means_cpu(device):
            opened, self.note = _try_beside(run, batch_size)
        chosen: tuple[Engine, ModelCard]
        chosen = (opened, opened.card) if opened else _with_torch(reference, network, device)
        runs, its_card = chosen
        its_card = cut(its_card, window, tiles)
        its_card = its_card if threshold is None else its_card.with_threshold(threshold)
        super().__init__(runs, its_card, batch_size=batch_size, tiles=tiles)


def cut(card: ModelCard, window: int | None, tiles: Tiles | None) -> ModelCard:
    """A model's card for windows or tiles, if any. Raises ResnestError: it takes none, or both are asked for."""
    if window is not None and tiles:
        both = f"{parameter('window', window)} and {parameter('tile', tiles.tile)}"
        raise ResnestError(f"{both} exclude each other: tiles are of the picture, windows of the resized one")
    if tiles:
        return card.with_tiles(tiles)
    return card if window is None else card.with_window(window)


def _with_torch(reference: str | Path, network: str | None, device: str) -> tuple[Engine, ModelCard]:
    from resnest.inference.model import Model
    from resnest.inference.torch_engine import open_torch_engine

    model = Model.from_pretrained(reference, network=network)
    return open_torch_engine(model, device), model.card


def _open_exported(
    path: Path, engine: str, device: str, batch_size: int, card: ModelCard | str | Path | None
) -> ExportedEngine:
    if engine == "torch":
        raise ResnestError(f"torch does not run exported files such as {path}: use auto, {' or '.join(ENGINES)}")
    model_card = read_card(card) if isinstance(card, str | Path) else card
    return open_engine(path, engine, device, batch_size=batch_size, card=model_card)


def read_card(where: str | Path) -> ModelCard:
    """The card in a file, or in a directory's config.json.

    Raises:
        ResnestError: there is none, or one that makes no sense.
    """
    path = Path(where)
    if path.is_dir():
        return ModelCard.read(path)
    try:
        return ModelCard.from_json(path.read_text(encoding="utf-8"), where=str(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise ResnestError(f"the card {path} cannot be read: {reason}. Expected a {CARD_NAME}") from None


def _open_beside(run: Path, engine: str, device: str, batch_size: int) -> ExportedEngine:
    """The file exported into a run's directory, with the requested engine."""
    suffixes = [suffix for suffix in ENGINES[engine].SUFFIXES[::-1] if suffix in FORMATS]  # its own form before others
    path = next((run / f"model{suffix}" for suffix in suffixes if (run / f"model{suffix}").is_file()), None)
    aim = {} if run.is_dir() else {"out": f"{run.name}{suffixes[0]}"}
    command = call("export", run, format=FORMATS[suffixes[0]], **aim)
    if path is None:
        raise ResnestError(f"{engine} runs exported files, and {run} has none: `{command}`")
    opened = open_engine(path, engine, device, batch_size=batch_size)
    if not _holds_weights_of(run, opened):
        raise ResnestError(f"{path} holds other weights than {run / WEIGHTS_NAME}: export it anew, `{command}`")
    return opened


def _try_beside(run: Path, batch_size: int) -> tuple[ExportedEngine | None, str]:
    """The file exported into a run's directory if it has the run's weights, or why it is not used."""
    notes = []
    for path in (run / f"model{suffix}" for suffix in FORMATS):
        if not path.is_file():
            continue
        try:
            opened = open_engine(path, device="cpu", batch_size=batch_size)
        except ResnestError as error:
            notes.append(str(error))
            continue
        if not _holds_weights_of(run, opened):
            notes.append(f"{path} holds other weights than {WEIGHTS_NAME} there: export it anew to use it")
        elif opened.origin.get("precision", "float32") != "float32":
            notes.append(f"{path} is {opened.origin['precision']}, so other scores: name it to use it")
        elif other := _other_preprocessing(run, opened):
            notes.append(f"{other}: name it to use it")
        else:
            return opened, ""
    return None, "; ".join(notes)


def _holds_weights_of(run: Path, engine: ExportedEngine) -> bool:
    weights = run / WEIGHTS_NAME
    return weights.is_file() and engine.origin.get("weights_sha256") == sha256_of(weights)


def _other_preprocessing(run: Path, engine: ExportedEngine) -> str:
    """How a file prepares pictures, if not as the run beside it, which then may find other things; else ""."""
    if not (run / CARD_NAME).is_file():
        return ""
    ours, theirs = (dataclasses.asdict(card.preprocess) for card in (ModelCard.read(run), engine.card))  # type: ignore[call-overload]
    other = [f"{name}={theirs[name]}" for name in theirs if theirs[name] != ours.get(name)]
    return f"{engine.path} prepares pictures otherwise than the run ({', '.join(other)})" if other else ""


def _means_cpu(device: str) -> bool:
    """Whether torch would run on the CPU; torch is not imported if the system shows no GPU."""
    if device != "auto":
        return device == "cpu"
    if sys.platform == "linux" and not any(Path(name).exists() for name in _GPUS):
        return True
    try:
        import torch
    except ImportError:
        return True
    return sys.platform == "darwin" or not torch.cuda.is_available()

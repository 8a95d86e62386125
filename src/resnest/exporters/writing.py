"""Writing a file: checked beforehand, written aside, compared with the network, put in place.

parity, notes = written(model, find_format("onnx"), path, metadata(model, form, weights_sha256=None), pictures)
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from resnest import __version__
from resnest.checkpoints.fetch import locate
from resnest.checkpoints.folders import find_weights_file
from resnest.errors import ParityFailure, ResnestError, one_line, parameter
from resnest.exporters import gate
from resnest.exporters.calibration import BATCH, Pictures
from resnest.exporters.capture import Arrays, BlockOutputs, Interface, Runner, blocks, first_difference, module_outputs
from resnest.exporters.formats import Format, find_exporter
from resnest.exporters.gate import TOLERANCE, Parity
from resnest.files import check_replaceable, holds, is_full, sha256_of, write_errors
from resnest.inference.model import Model
from resnest.inference.torch_engine import to_arrays
from resnest.runtime.engines.exported import CARD_KEY, ORIGIN_KEY

# --- Provenance of an exported file: the string `resnest_origin` in its metadata, beside the model card ---


def origin(
    source: str,
    *,
    weights_sha256: str | None,
    precision: str,
    sizes: Mapping[str, Any],
    extra: Mapping[str, Any] | None = None,
) -> str:
    """JSON of the provenance; `extra` has further entries of some exports, such as int8's `accuracy`."""
    content = {
        "source": source,
        "weights_sha256": weights_sha256,
        "resnest": __version__,
        "torch": torch.__version__,
        "precision": precision,
        "sizes": dict(sizes),
        **(extra or {}),
    }
    return json.dumps({key: value for key, value in content.items() if value is not None})


def weights_hash(reference: str | Path) -> str | None:
    """Hash of the file that a reference's weights are in."""
    path, _ = locate(reference)
    file = find_weights_file(path) if path.is_dir() else path
    return sha256_of(file) if file and file.is_file() else None


# --- The target of an export: checked first, written to a temporary folder, moved into place once verified ---


def check_target(out: Path, suffix: str, kind: str, companion: str = "") -> None:
    """Raises ResnestError for an impossible path of an exported file, or one where somebody else's file is."""
    option = parameter("out", out)
    if out.suffix != suffix:
        raise ResnestError(f"{option}: the format {kind} is written to a file that ends in {suffix}")
    if out.is_dir():
        raise ResnestError(f"{option} is a folder: name a file in it, such as {out / ('model' + suffix)}")
    if out.exists() and not out.is_file():
        raise ResnestError(f"{option} is no file that could be replaced")
    if not out.parent.is_dir():
        raise ResnestError(f"{option}: there is no folder {out.parent}")
    for path in (out, out.with_suffix(companion)) if companion else (out,):
        check_replaceable(path, lambda path: _is_export(path, out))


def _is_export(path: Path, out: Path) -> bool:
    """Whether there is no file, or one of an export; the companion of one has no mark of its own."""
    return holds(out, ORIGIN_KEY.encode()) and (path == out or not path.exists() or out.exists())


@contextmanager
def delivering(out: Path) -> Iterator[Path]:
    """Gives a temporary path; at the end all in its folder moves beside `out`, `out` itself last.

    Raises:
        ResnestError: the folder cannot be written, or the disk is full.
    """
    with write_errors(parameter("out", out)):
        folder = Path(mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent))
    try:
        with write_errors(parameter("out", out)):
            yield folder / out.name
            for file in sorted(folder.iterdir(), key=lambda file: file.name == out.name):
                with file.open("rb+") as opened:
                    os.fsync(opened.fileno())
                file.chmod(0o644)
                file.replace(out.with_name(file.name))
    except Exception as error:
        if not isinstance(error, ResnestError):
            check_room(out)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_room(path: Path) -> None:
    """Raises ResnestError if the disk is full, which exporters' own errors rarely say."""
    if is_full(path.parent):
        raise ResnestError(f"{parameter('out', path)} cannot be written: no space left on device") from None


# --- Diagnosis of a failed comparison: the first layer that differs, for the message ---


def where_it_differs(
    net: nn.Module, fast: nn.Module, form: Format, path: Path, parity: Parity, takes: Interface
) -> str:
    """Compares by layer: the file with the prepared network, then that with the original network.

    The order is from the input on, and what is inside a module comes before it.
    """
    images = np.random.default_rng(0).standard_normal(parity.worst.shape, np.float32)
    names = blocks(net)
    before, ours = module_outputs(net, images), module_outputs(fast, images)
    try:
        theirs = form.layers(path, images) if form.layers else _tapped(fast, names, form, path, images, takes)
    except Exception as error:  # of an exporter or engine, about a file that is wrong anyway: the failure comes first
        return f"; the layer that differs could not be determined ({one_line(error)})"
    difference = first_difference(ours, theirs, TOLERANCE)
    if difference:
        return f"; the first layer that differs is {_describe(*difference)}"
    difference = first_difference({name: before[name] for name in names}, ours, TOLERANCE)
    if difference:
        return f"; the first layer that differs, already when prepared for inference, is {_describe(*difference)}"
    return "; no single layer differs by more than that"


def _describe(layer: str, apart: float) -> str:
    return f"{layer} (by {apart:.1e} of its largest value)"


def _tapped(
    fast: nn.Module, names: list[str], form: Format, path: Path, images: NDArray[np.float32], takes: Interface
) -> Arrays:
    """Outputs of blocks, from another file of the same network that returns them; the last ones are its logits."""
    *inner, last = names
    with TemporaryDirectory(dir=path.parent) as folder:
        other = Path(folder, path.name)
        form.write(BlockOutputs(fast, inner), other, {}, takes)
        outputs = form.load(other)(images)
    return {name: outputs[str(index)] for index, name in enumerate(inner, start=1)} | {last: outputs["logits"]}


NOTHING = "Nothing was delivered"


def metadata(
    model: Model,
    form: Format,
    *,
    weights_sha256: str | None,
    precision: str = "float32",
    extra: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """The two metadata strings of a file; `extra` is added to the provenance, such as int8's `accuracy`."""
    takes = find_exporter(model).interface(model.card, form)
    high, wide = takes.size or ("any", "any")
    sizes = {"batch": takes.batch or "any", "height": high, "width": wide}
    source = origin(model.source, weights_sha256=weights_sha256, precision=precision, sizes=sizes, extra=extra)
    return {CARD_KEY: model.card.to_json(), ORIGIN_KEY: source}


def written(
    model: Model,
    form: Format,
    path: Path,
    strings: dict[str, str],
    pictures: Pictures,
    *,
    on_step: Callable[[str], None] = lambda step: None,
) -> tuple[gate.Parity, dict[str, Any]]:
    """Write a model's network to `path` and compare the file with the network; raises if they differ.

    Raises:
        ParityFailure: it computes something else; the message names the first layer that does.
    """
    exporter = find_exporter(model)
    takes, fast = exporter.interface(model.card, form), exporter.module(model)
    notes = _write(form, fast, path, strings, takes)
    on_step(f"comparing it with the network, in {form.engine}")
    parity = compare(model, form, _load(form, path), pictures)
    if not parity.ok:
        if parity.refused:
            raise ParityFailure(f"{form.name}: {form.engine} {parity.refused}. {NOTHING}")
        by_layers = exporter.by_layers and not exporter.features
        layer = where_it_differs(model.net, fast, form, path, parity, takes) if by_layers else ""
        raise ParityFailure(f"{form.name}: the file does not compute what the network does: {parity}{layer}. {NOTHING}")
    return parity, dict(notes)


def compare(model: Model, form: Format, run: Runner, pictures: Pictures, noise: gate.Noise = gate.gaussian) -> Parity:
    """A model's network and what runs its file, as the task compares them."""
    card, exporter = model.card, find_exporter(model)
    return gate.compare(
        reference(exporter.reference(model)),
        run,
        shapes=exporter.shapes(card, form),
        pictures=exporter.batches(card, pictures.images, BATCH),
        agree=exporter.agree(card),
        unlike=exporter.unlike,
        measure=exporter.measure(card),
        tolerances=exporter.tolerances(card),
        noise=noise,
    )


def _write(form: Format, net: nn.Module, path: Path, strings: dict[str, str], takes: Interface) -> dict[str, Any]:
    try:
        return form.write(net, path, strings, takes) or {}
    except ImportError as error:  # installed, and made for another torch
        raise ResnestError(f"{parameter('format', form.name)} does not work here: {error}") from None


def _load(form: Format, path: Path) -> Runner:
    try:
        return form.load(path)
    except Exception as error:  # every engine has errors of its own
        check_room(path)
        raise ParityFailure(f"{form.name}: {form.engine} cannot read the file: {one_line(error)}. {NOTHING}") from None


def reference(net: nn.Module) -> Runner:
    """The original network, run by torch without preparation."""
    net.eval()

    def run(images: NDArray[np.float32]) -> Arrays:
        with torch.inference_mode():
            return to_arrays(net(torch.from_numpy(images)))

    return run

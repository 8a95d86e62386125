"""Runs of the version before: they open, predict, evaluate and go on to their end as they did when they were recorded.

Guards the run directory, its checkpoints, its card and its recipe, and an exported file, as an earlier version wrote
them (recorded_runs.py says how). What is compared was computed on another machine, so to a tolerance; that bits do not
move is test_golden_training.py's matter.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import resnest
from golden_runs import logged
from recorded_runs import EXPECTED, FOLDER, RECORDED, outcome, unpack
from resnest.training.train import resume

MOST = 1_000_000  # bytes of all that is recorded
FIGURE = 2e-3  # absolute: a detection that comes out on the other side of a threshold moves it by more
RELATIVE = {"loss": 1e-3, "gradient_norm": 2e-2}  # as in test_golden_training.py


@dataclass(frozen=True)
class Before:
    """A recorded run, unpacked, with the data that it was trained on and what is expected of it."""

    run: Path
    data: Path
    picture: Path
    expected: dict[str, Any]


@pytest.fixture(scope="module", params=RECORDED)
def before(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Before:
    name, folder = request.param, tmp_path_factory.mktemp("before")
    recorded, root = RECORDED[name], folder / "data"
    expected = json.loads(EXPECTED.read_text(encoding="ascii"))[name]
    return Before(unpack(name, folder), recorded.data(root), root / recorded.picture, expected)


def _same_figures(figures: dict[str, Any], expected: dict[str, Any]) -> None:
    assert figures.keys() >= expected.keys()  # an evaluation may have got more since
    for name, value in expected.items():
        relative, absolute = RELATIVE.get(name), None if name in RELATIVE else FIGURE
        close = value if isinstance(value, str | None) else pytest.approx(value, relative, absolute, nan_ok=True)
        assert figures[name] == close, name


def _same_prediction(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if name == "pixels":  # a row of digits each
            ours, theirs = ("".join(rows["pixels"]) for rows in (found, expected))
            assert len(found[name][0]) == len(value[0])
            assert sum(a != b for a, b in zip(ours, theirs, strict=True)) <= 0.002 * len(theirs)
        elif name in ("boxes", "scores", "areas"):
            tolerance = {"boxes": 0.05, "scores": 1e-4, "areas": 3}[name]
            assert np.array(found[name]) == pytest.approx(np.array(value), rel=0, abs=tolerance)
        else:
            assert found[name] == value


def test_it_opens_evaluates_and_predicts(before: Before) -> None:
    model = resnest.Model.from_pretrained(before.run)
    newest = resnest.Model.from_pretrained(next(before.run.glob("checkpoints/*.pt")))
    assert newest.card.class_names == model.card.class_names
    assert newest.net.state_dict().keys() == model.net.state_dict().keys()
    found = outcome(before.run, before.data, before.picture)
    _same_figures(found["figures"], before.expected["figures"])
    _same_prediction(found["prediction"], before.expected["prediction"])


def test_it_goes_on_to_its_end(before: Before) -> None:
    """As the version that recorded it went on."""
    resume(before.run, data=before.data, device="cpu")
    rest = [line for line in logged(before.run) if line["step"] > before.expected["stopped"]]
    assert len(rest) == len(before.expected["rest"]) > 2
    for line, expected in zip(rest, before.expected["rest"], strict=True):
        _same_figures(line, expected)


def test_an_exported_file(tmp_path: Path) -> None:
    """Says what the weights say that it was exported from."""
    pytest.importorskip("onnxruntime")
    recorded = RECORDED["classification"]
    data = recorded.data(tmp_path)
    found = outcome(FOLDER / "classification.onnx", data, tmp_path / recorded.picture)
    expected = json.loads(EXPECTED.read_text(encoding="ascii"))["classification"]
    _same_figures(found["figures"], expected["figures"])
    _same_prediction(found["prediction"], expected["prediction"])


def test_nothing_of_a_machine_is_in_them(tmp_path: Path) -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < MOST
    exported = FOLDER / "classification.onnx"
    for name in RECORDED:
        files = [path for path in unpack(name, tmp_path).rglob("*") if path.is_file()]
        assert {"recipe.yaml", "run.json", "config.json", "model.safetensors"} < {path.name for path in files}
        for word in (b"/tmp", b"/home", b"/root", b"/work"):
            assert not [path for path in (*files, exported) if word in path.read_bytes()]

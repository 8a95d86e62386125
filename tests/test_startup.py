"""Start-up: `resnest --help` under 0.4 s and `import resnest` under 0.1 s, since torch comes in where it is used.

And a picture's label from an exported file in 1.5 s, the whole process: torch does not come in at all.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

import resnest
from resnest.classification.card import ClassificationCard
from resnest.inference.model import Model
from resnest.runtime.preprocess import Preprocess
from resnest.segmentation.card import SegmentationPreprocess
from resnest.spec import Spec
from shipped import foreign
from small import small


def _best_of(count: int, command: list[str]) -> float:
    """Seconds of the quickest run: what the machine can do when nobody disturbs it."""
    times = []
    for _ in range(count):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    return min(times)


def test_import_is_quick() -> None:
    bare = _best_of(5, [sys.executable, "-c", "pass"])
    assert _best_of(5, [sys.executable, "-c", "import resnest"]) - bare < 0.1


def test_help_is_quick() -> None:
    assert _best_of(7, [sys.executable, "-m", "resnest", "--help"]) < 0.4


@pytest.fixture
def picture_and_model(tmp_path: Path) -> list[str]:
    """Arguments for predict: a file for onnxruntime and a photograph's worth of pixels."""
    card = ClassificationCard(architecture="resnest", spec=Spec(), class_names=tuple("abcd"), preprocess=Preprocess())
    model = foreign(tmp_path / "model.onnx", metadata={"resnest": card.to_json()})
    Image.effect_mandelbrot((427, 320), (-2, -1.5, 1, 1.5), 40).convert("RGB").save(tmp_path / "one.jpg")
    return [str(model), str(tmp_path / "one.jpg")]


def test_predicting_with_an_exported_file_is_quick(picture_and_model: list[str]) -> None:
    assert _best_of(3, [sys.executable, "-m", "resnest", "predict", *picture_and_model]) < 1.5


def test_predicting_with_an_exported_file_does_not_import_torch_or_other_tasks(picture_and_model: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['resnest', 'predict', *{picture_and_model!r}]\n"
        "from resnest.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "assert not {'torch', 'torchvision', 'onnx', 'openvino'} & sys.modules.keys()\n"
        "assert 'onnxruntime' in sys.modules\n"
        "from resnest.tasks import TASKS\n"
        "others = tuple(package for task, package in TASKS.items() if task != 'classification')\n"
        "assert not [name for name in sys.modules if name.startswith(others)]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["models"], ["recipes"], ["recipes", "show", "digits"], ["train", "-h"]]
)
def test_torch_is_not_imported(arguments: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['resnest', *{arguments!r}]\n"
        "from resnest.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("task", ["classification", "segmentation"])  # torchvision, which detectors need, imports it
def test_opening_a_model_does_not_import_torchs_compiler(task: str, tmp_path: Path) -> None:
    """It is 5 seconds and 250 MB, and was imported to draw weights of tensors without memory."""
    preprocess = Preprocess() if task == "classification" else SegmentationPreprocess()
    Model.of(small(task), tuple("abc"), preprocess).save_pretrained(tmp_path)
    code = f"import sys, resnest; resnest.Predictor({str(tmp_path)!r}); assert 'torch._dynamo' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_public_names_exist() -> None:
    assert {name for name in resnest.__all__ if not hasattr(resnest, name)} == set()
    with pytest.raises(AttributeError, match="create_modle"):
        _ = resnest.create_modle

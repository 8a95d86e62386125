"""The hand-over kit: an ONNX file with all that another program needs to use it, and programs that do.

    resnest.export("runs/a", kit="kit")        # then: python kit/predict.py photo.jpg, node kit/predict.mjs photo.jpg

A task's package has the programs that turn its outputs into results, in its folder `kit_files`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.errors import parameter
from resnest.exporters.calibration import Pictures
from resnest.exporters.formats import find_exporter
from resnest.exporters.parcels import FILES, Parcel, describe_preprocessing, template
from resnest.inference.model import Model
from resnest.runtime.engines import onnxruntime as engine
from resnest.runtime.preprocess import denormalise
from resnest.tasks import find_task

PROGRAMS = ("preprocess.py", "predict.py", "preprocess.mjs", "predict.mjs")
RESULTS = ("result.py", "result.mjs")  # of the task, or those for any
LARGEST = 1024  # pixels of a side of the reference picture
MODEL = "model.onnx"


class Kit(Parcel):
    """A folder with a model's file and programs."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder.absolute().parent, (folder.absolute().name,), parameter("kit", folder))
        self.model_file = f"{self.names[0]}/{MODEL}"
        self.shown = folder / MODEL

    @property
    def path(self) -> Path:
        return self.shown

    def fill(self, file: Path, model: Model, pictures: Pictures, layout: str | None) -> None:
        folder, card = file.parent, model.card
        spec = describe_preprocessing(model, layout)
        outputs = list(find_exporter(model).interface(card, _onnx()).outputs)
        kit = {
            "model": MODEL,
            "task": card.task,
            "says": card.describe_purpose(),
            "outputs": outputs,
            "settings": dict(find_exporter(model).settings(card)),
        }
        _write_json(folder / "preprocessing.json", spec)
        _write_json(folder / "kit.json", kit)
        (folder / "labels.txt").write_text("".join(f"{name}\n" for name in card.class_names), encoding="utf-8")
        for name in PROGRAMS:
            (folder / name).write_text(template(FILES, stored(name)), encoding="utf-8")
        for name in RESULTS:
            (folder / name).write_text(template(_room_of(card.task, name), stored(name)), encoding="utf-8")
        (folder / "README.md").write_text(_readme(model, spec, pictures), encoding="utf-8")
        (folder / "LICENSE.txt").write_text(template(FILES, "LICENSE.txt"), encoding="utf-8")
        _write_reference(folder / "reference", file, model, pictures.images[0], layout, outputs)


def stored(name: str) -> str:
    """Python is stored as text: it is not part of this package, and imports what lies beside it in a kit."""
    return f"{name}.txt" if name.endswith(".py") else name


def _room_of(task: str, name: str) -> str:
    """The package whose program reads results: the task's if it has one."""
    package = find_task(task)
    return package if (files(package) / "kit_files" / stored(name)).is_file() else FILES


def _onnx() -> Any:
    from resnest.exporters.formats import FORMATS

    return FORMATS["onnx"]


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_reference(
    folder: Path, file: Path, model: Model, picture: Image.Image, layout: str | None, outputs: list[str]
) -> None:
    """A picture, the input that it becomes, and what the file gives for it: lossless, so that decoders agree."""
    folder.mkdir()
    if max(picture.size) > LARGEST:
        picture = picture.copy()
        picture.thumbnail((LARGEST, LARGEST))
    picture.save(folder / "picture.png")
    card = model.card
    images: NDArray[Any] = card.preprocess(picture)[None]
    if layout:
        images = _pixels(images, model, picture, layout)
    values = engine.load(file, threads=1).compute(images, outputs)
    for name, value in {"input": images, **dict(zip(outputs, values, strict=True))}.items():
        np.save(folder / f"{name}.npy", value)


def _pixels(images: NDArray[np.float32], model: Model, picture: Image.Image, layout: str) -> NDArray[np.uint8]:
    """The 8-bit input of a file with its normalisation, which pads itself if the task pads after it."""
    from resnest.exporters.baking import pads_after

    preprocess = model.card.preprocess
    if pads_after(preprocess.steps()):
        wide, high = preprocess.scaled_size(*picture.size)
        images = images[:, :, :high, :wide]
    pixels = denormalise(images, preprocess.mean, preprocess.std)
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1) if layout == "nhwc" else pixels)


def _readme(model: Model, spec: Mapping[str, Any], pictures: Pictures) -> str:
    card = model.card
    taken = spec["input"]
    return template(FILES, "README.md").format(
        noun=card.info.noun,
        purpose=card.describe_purpose(),
        source=model.source,
        name=taken["name"],
        dtype=taken["dtype"],
        layout=taken["layout"],
        steps="\n".join(f"{number}. `{json.dumps(step)}`" for number, step in enumerate(spec["steps"], start=1)),
        picture=pictures.kind,
        pillow=spec["pillow"],
    )

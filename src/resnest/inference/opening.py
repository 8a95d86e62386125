"""One kind of model reference for every command: a run directory, a saved model, or a checkpoint of a run.

model = open_model("runs/a")                 # network in eval mode, and its card
predict = Predictor("runs/a")
predict("rose.jpg").top(3)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from resnest.checkpoints.loading import load_weights
from resnest.checkpoints.reading import read_torch_file, read_weights
from resnest.errors import ResnestError
from resnest.network.resnest import ResNeSt
from resnest.recipes.reading import build
from resnest.recipes.schema import Recipe
from resnest.runtime.card import FILE_NAME, WEIGHTS_NAME, ModelCard
from resnest.runtime.predictor import ImagePredictor
from resnest.spec import find_spec


@dataclass(frozen=True)
class Model:
    """A network with its weights, ready to be used, and its card."""

    net: ResNeSt
    card: ModelCard
    source: str


def open_model(reference: str | Path) -> Model:
    """The model behind a reference, on the CPU and in eval mode.

    Raises:
        ResnestError: nothing there, an unfinished run, weights that do not fit, a file without a card.
    """
    path = Path(reference)
    if path.is_dir():
        return _open_directory(path)
    if path.suffix == ".safetensors" and path.is_file():
        return _open_weights(path, ModelCard.read(path.parent))
    if path.is_file():
        return _open_checkpoint(path)
    if any(mark in str(reference) for mark in "/\\.") and not _is_name(str(reference)):
        raise ResnestError(f"there is no model at {reference}: expected a run directory or a checkpoint file")
    _, name = find_spec(str(reference))  # an unknown name ends here, with the nearest one
    raise ResnestError(
        f"{name} names a published network, whose weights this version does not download;"
        f" train or fine-tune it first (--set model.name={name}) and give the run directory"
    )


class Predictor(ImagePredictor):
    """`ImagePredictor` for any model reference, run by torch.

    >>> Predictor("no/such/run")
    Traceback (most recent call last):
    resnest.errors.ResnestError: there is no model at no/such/run: expected a run directory or a checkpoint file
    """

    def __init__(self, reference: str | Path, *, device: str = "auto", batch_size: int = 16) -> None:
        model = open_model(reference)
        super().__init__(TorchEngine(model.net, device), model.card, batch_size=batch_size)


class TorchEngine:
    """Runs a network on a device: (N, 3, H, W) -> logits (N, K), numpy float32."""

    def __init__(self, net: ResNeSt, device: str = "auto") -> None:
        self.device = choose_device(device)
        self.net = net.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        inputs = torch.from_numpy(images).to(self.device).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            logits: NDArray[np.float32] = self.net(inputs).float().cpu().numpy()
        return logits


def choose_device(name: str) -> torch.device:
    """ "auto" takes a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ResnestError("--device cuda: no usable GPU here (`resnest doctor` says what torch sees); use cpu")
    try:
        return torch.device(name)
    except RuntimeError:
        raise ResnestError(f"--device {name}: expected auto, cpu or cuda") from None


def _open_directory(path: Path) -> Model:
    if not (path / FILE_NAME).exists() and (path / "recipe.yaml").exists():
        raise ResnestError(f"{path} has no weights yet: finish it with `resnest train --resume {path}`")
    return _open_weights(path / WEIGHTS_NAME, ModelCard.read(path))


def _open_weights(path: Path, card: ModelCard) -> Model:
    net = ResNeSt(card.spec, num_classes=len(card.class_names), in_chans=card.in_chans)
    load_weights(net, read_weights(path), source=str(path))
    return Model(net.eval(), card, str(path))


def _open_checkpoint(path: Path) -> Model:
    """A checkpoint of a run knows its recipe and classes; any other file of weights does not say what it is."""
    content = read_torch_file(path)
    if not isinstance(content, dict) or not {"recipe", "class_names", "model"} <= content.keys():
        raise ResnestError(
            f"{path} holds weights but not what they belong to: fine-tune from it with"
            f" --set model.pretrained={path}, or put its {FILE_NAME} beside it as .safetensors"
        )
    card = _card_of(content, path)
    net = ResNeSt(card.spec, num_classes=len(card.class_names))
    load_weights(net, content["model"], source=str(path))
    return Model(net.eval(), card, str(path))


def _card_of(content: dict[str, Any], path: Path) -> ModelCard:
    recipe: Recipe = build(content["recipe"], where=str(path))
    spec, name = recipe.model.resolve()
    return ModelCard(
        architecture=name,
        spec=spec,
        class_names=tuple(content["class_names"]),
        preprocess=recipe.data.preprocess,
    )


def _is_name(reference: str) -> bool:
    try:
        find_spec(reference)
    except ResnestError:
        return False
    return True

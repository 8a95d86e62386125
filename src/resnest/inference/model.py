"""A network with its weights and its card: opened from any reference, saved and shared in the hub's format.

model = Model.from_pretrained("runs/a")                 # or "resnest50", a checkpoint file, "someone/flowers"
model = Model.of(net, class_names=["rose", "tulip"])    # from your own training loop
model.net, model.card
model.save_pretrained("flowers")                        # config.json, model.safetensors, README.md
model.push_to_hub("me/flowers")
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn

from resnest.checkpoints import hub
from resnest.checkpoints.identify import identify
from resnest.checkpoints.loading import load_file, load_weights, translate
from resnest.checkpoints.manifest import Weights, find_weights
from resnest.checkpoints.multipart import all_parts
from resnest.checkpoints.reading import RawCheckpoint, read_checkpoint
from resnest.checkpoints.references import is_network_name, locate
from resnest.checkpoints.structure import read_structure, same_tensors
from resnest.errors import ResnestError, call, parameter
from resnest.files import CARD_NAME, WEIGHTS_NAME, replacing, sha256_of, write_errors
from resnest.inference.building import build_from_card, card_of, rebuilt
from resnest.inference.readme import model_card_text
from resnest.inference.torch_engine import open_torch_engine
from resnest.recipes.reading import build, read_recipe
from resnest.recipes.schema import Recipe
from resnest.runtime import imagenet
from resnest.runtime.card import ModelCard
from resnest.runtime.predictor import ImagePredictor
from resnest.runtime.preprocess import ImageTransform, Preprocess
from resnest.spec import PUBLISHED
from resnest.tasks import DEFAULT_TASK, task_info, task_type

RECIPE_NAME = "recipe.yaml"


@dataclass(frozen=True)
class Model:
    """A network of any task in eval mode on the CPU, with its card."""

    net: Any  # ResNeSt, Detector, Segmenter, ...
    card: ModelCard
    source: str
    holdout: tuple[float, int] | None = None  # fraction and seed of what its training held out of data without parts

    @classmethod
    def from_pretrained(cls, reference: str | Path, *, network: str | None = None) -> Model:
        """Open the model of a reference.

        Args:
            reference: a name of published weights, a run or saved model, a checkpoint file of any layout, a hub id.
            network: name of the network in a checkpoint file that does not identify it.

        Raises:
            ResnestError: nothing there, an unfinished run, weights that do not fit, an unknown file.
        """
        path, row = locate(reference)
        if row is not None:
            return _open_published(path, row, str(reference))
        if path.is_dir():
            return _open_directory(path, str(reference))
        if path.name == WEIGHTS_NAME and (path.parent / CARD_NAME).is_file() and network is None:
            return _open_directory(path.parent, str(reference))
        return _open_file(path, network)

    @classmethod
    def of(
        cls, net: nn.Module, class_names: Sequence[str], preprocess: ImageTransform | None = None, **fields: Any
    ) -> Model:
        """The model of a network from your own training loop, for any task; `net` is not changed.

            model = Model.of(net, class_names=["rose", "tulip"], preprocess=Preprocess(size=224))
            model.save_pretrained("flowers")

        Args:
            net: of `create_model`, `create_detector` or `create_segmenter`, without what is wrapped around it.
            class_names: in the order of its outputs.
            preprocess: what it was trained with; by default that of its published weights, `net.preprocess`.
            fields: of the card of its task, such as `multi_label`, `category_ids` or `figures`.

        Raises:
            ResnestError: a network of no task, another number of classes than it has, layers that no card describes.
        """
        card = card_of(net, class_names, preprocess, **fields)
        return cls(rebuilt(net, card), card, "network")

    def predictor(self, device: str = "auto", *, batch_size: int = 16) -> ImagePredictor:
        """A predictor in torch, as `Predictor` of a saved model."""
        return ImagePredictor(open_torch_engine(self, device), self.card, batch_size=batch_size)

    def save_pretrained(self, directory: str | Path) -> Path:
        """Write config.json, model.safetensors and README.md, which timm's `local-dir:` and the hub read.

        Raises:
            ResnestError: the directory cannot be written.
        """
        from safetensors.torch import save_file

        folder = Path(directory)
        with write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            state = {name: tensor.detach().cpu().contiguous() for name, tensor in self.net.state_dict().items()}
            with replacing(folder / WEIGHTS_NAME) as temporary:
                save_file(state, temporary, {"format": "pt"})
                temporary.chmod(0o644)
            (folder / CARD_NAME).write_text(self.card.to_json(), encoding="utf-8")
            (folder / "README.md").write_text(self.readme(folder.resolve().name), encoding="utf-8")
        return folder

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Save and upload to the hub as `user/name`, created if it does not exist; returns its address.

        Raises:
            ResnestError: not logged in, no network, no such user.
        """
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            Path(folder, "README.md").write_text(self.readme(repo_id, repo_id=repo_id), encoding="utf-8")
            try:
                return hub.upload(repo_id, Path(folder), private=private, token=token)
            except hub.HubError as error:
                raise ResnestError(
                    f"{repo_id} could not be uploaded: {error} (log in with `hf auth login`, or set HF_TOKEN)"
                ) from None

    def readme(self, title: str, *, repo_id: str | None = None) -> str:
        """The text of the README, with this model's figures."""
        return model_card_text(self.card, title, account=account_of(Path(self.source)), repo_id=repo_id)


def account_of(run: Path) -> dict[str, object]:
    """The data and versions of a run (run.json); empty for other models."""
    try:
        content = json.loads((run / "run.json").read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    except (OSError, ValueError):
        return {}


def _open_published(path: Path, row: Weights, reference: str) -> Model:
    if not row.head:
        raise ResnestError(f"{row.name} is a backbone without classifier: use it with create_backbone(pretrained=...)")
    card = published_card(row.network, row.preprocess())
    net = task_type(card.task).build_network(card)
    load_file(net, path)
    return Model(net.eval(), card, reference)


def _open_directory(folder: Path, reference: str) -> Model:
    recipe = folder / RECIPE_NAME
    if not (folder / CARD_NAME).exists() and recipe.exists():
        raise ResnestError(f"{folder} has no weights yet: finish it with `{call('resume', folder)}`")
    card = ModelCard.read(folder)
    holdout = holdout_of(read_recipe(recipe)) if recipe.exists() else None
    raw, source = read_checkpoint(folder / WEIGHTS_NAME), str(folder / WEIGHTS_NAME)
    if not card.fits_backbone_layouts:
        return Model(build_from_card(card, raw.state, source=source), card, reference, holdout=holdout)
    state = translate(raw).state
    if not same_tensors(card.spec, read_structure(state, source).spec):  # before anything of that size is built
        raise ResnestError(f"{folder / CARD_NAME} describes another network than {WEIGHTS_NAME} holds")
    net = task_type(card.task).build_network(card)
    load_weights(net, state, source=source)
    return Model(net.eval(), card, reference, holdout=holdout)


def _open_file(path: Path, network: str | None) -> Model:
    raw = read_checkpoint(path)
    if {"recipe", "card", "model"} <= raw.content.keys():
        return _open_training_checkpoint(raw)
    for parts in all_parts():
        if parts.recognise(raw.state):
            raise ResnestError(f"{path} holds a {parts.what} but does not name its classes: {_to_name(path)}")
    identity = identify(raw, network)
    spec = identity.spec  # raises if two networks have the same tensors
    if identity.name not in PUBLISHED:
        raise ResnestError(f"{path} is a {identity.name} without its {CARD_NAME}: put that beside it, or name the run")
    if identity.seen.num_classes != imagenet.COUNT:
        heads = f"{identity.seen.num_classes} classes" if identity.seen.num_classes else "no classifier"
        raise ResnestError(f"{path} holds weights with {heads} but does not name them: {_to_name(path)}")
    row = identity.row or find_weights(network if network and is_network_name(network) else identity.name)
    card = published_card(identity.name, row.preprocess())
    net = task_type(card.task).build_network(replace(card, spec=spec, in_chans=identity.seen.in_chans))
    load_weights(net, identity.state, source=str(path))
    return Model(net.eval(), card, str(path))


def _to_name(path: Path) -> str:
    """What to do with weights of unknown classes."""
    settings = parameter("settings", {"model.pretrained": path})
    return f"put its {CARD_NAME} beside it and call it {WEIGHTS_NAME}, or fine-tune from it with {settings}"


def _open_training_checkpoint(raw: RawCheckpoint) -> Model:
    """Open a checkpoint of a run, which contains its recipe and its card."""
    recipe, card = raw.content["recipe"], raw.content["card"]
    if not isinstance(recipe, dict) or not isinstance(card, str):
        raise ResnestError(f"{raw.path} is no checkpoint of a run: its recipe or card are not what runs write")
    holdout = holdout_of(build(recipe, where=str(raw.path)))
    parsed = ModelCard.from_json(card, where=str(raw.path))
    return Model(build_from_card(parsed, raw.state, source=str(raw.path)), parsed, str(raw.path), holdout=holdout)


def published_card(architecture: str, preprocess: Preprocess) -> Any:
    """The card of published weights: classifiers of ImageNet."""
    card: Any = task_info(DEFAULT_TASK).card
    return card.of_imagenet(architecture, preprocess)


def holdout_of(recipe: Recipe) -> tuple[float, int]:
    """Fraction and seed of the hold-out split that training used for data without splits."""
    return recipe.data.val_share, recipe.train.seed


def holdout_of_run(run: Path, weights_sha256: str) -> tuple[float, int] | None:
    """The same for a run's directory, if its weights have this hash."""
    weights, recipe = run / WEIGHTS_NAME, run / RECIPE_NAME
    if weights.is_file() and recipe.is_file() and sha256_of(weights) == weights_sha256:
        return holdout_of(read_recipe(recipe))
    return None

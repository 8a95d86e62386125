"""A network with its weights and its card: opened from any reference, saved and shared in the hub's usual form.

model = Model.from_pretrained("runs/a")                 # or "resnest50", a checkpoint file, "someone/flowers"
model.net, model.card
model.save_pretrained("flowers")                        # config.json, model.safetensors, README.md
model.push_to_hub("me/flowers")
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from resnest.checkpoints import hub
from resnest.checkpoints.identify import identify
from resnest.checkpoints.loading import load_file, load_weights, translate
from resnest.checkpoints.manifest import Weights, find_weights
from resnest.checkpoints.reading import RawCheckpoint, read_checkpoint
from resnest.checkpoints.references import is_network_name, locate
from resnest.checkpoints.structure import read_structure, same_tensors
from resnest.errors import ResnestError
from resnest.inference.readme import model_card_text
from resnest.network.resnest import ResNeSt
from resnest.recipes.reading import build, read_recipe
from resnest.recipes.schema import Recipe
from resnest.runtime import imagenet
from resnest.runtime.card import ModelCard
from resnest.runtime.files import CARD_NAME, WEIGHTS_NAME, replacing
from resnest.spec import PUBLISHED

if TYPE_CHECKING:
    from resnest.detection.detector import Detector
    from resnest.panoptic.panoptic import PanopticFPN


@dataclass(frozen=True)
class Model:
    """A network in eval mode on the CPU, and what it takes to use it."""

    net: ResNeSt | Detector
    card: ModelCard
    source: str
    held_back: tuple[float, int] | None = None  # share and seed of what its training held back of data without parts

    @property
    def classifier(self) -> ResNeSt:
        """The network. Raises ResnestError for a detector: what asks for it is for classifiers."""
        if not isinstance(self.net, ResNeSt):
            raise ResnestError(f"{self.source} is a detector, and a classifier is needed here")
        return self.net

    @property
    def detector(self) -> Detector:
        """The network. Raises ResnestError for a classifier: what asks for it is for detectors."""
        if isinstance(self.net, ResNeSt):
            raise ResnestError(f"{self.source} is a classifier, and a detector is needed here")
        return self.net

    @property
    def panoptic(self) -> PanopticFPN:
        """The network. Raises ResnestError for all but panoptic detectors: what asks for it is for them."""
        from resnest.panoptic.panoptic import PanopticFPN  # torchvision, which classifiers can do without

        if not isinstance(self.net, PanopticFPN):
            raise ResnestError(f"{self.source} is for {self.card.task}, and a panoptic detector is needed here")
        return self.net

    @classmethod
    def from_pretrained(cls, reference: str | Path, *, network: str | None = None) -> Model:
        """The model behind a reference.

        Args:
            reference: a name of published weights, a run or saved model, a checkpoint file of any layout, a hub id.
            network: what a checkpoint file is, where it does not say so itself.

        Raises:
            ResnestError: nothing there, an unfinished run, weights that do not fit, a file that cannot be told.
        """
        path, row = locate(reference)
        if row is not None:
            return _open_published(path, row, str(reference))
        if path.is_dir():
            return _open_directory(path, str(reference))
        if path.name == WEIGHTS_NAME and (path.parent / CARD_NAME).is_file() and network is None:
            return _open_directory(path.parent, str(reference))
        return _open_file(path, network)

    def save_pretrained(self, directory: str | Path) -> Path:
        """Write config.json, model.safetensors and README.md, which timm's `local-dir:` and the hub read.

        Raises:
            ResnestError: the directory cannot be written.
        """
        from safetensors.torch import save_file

        folder = Path(directory)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            state = {name: tensor.detach().cpu().contiguous() for name, tensor in self.net.state_dict().items()}
            with replacing(folder / WEIGHTS_NAME) as temporary:
                save_file(state, temporary, {"format": "pt"})
                temporary.chmod(0o644)
            (folder / CARD_NAME).write_text(self.card.to_json(), encoding="utf-8")
            (folder / "README.md").write_text(self.readme(folder.resolve().name), encoding="utf-8")
        except OSError as error:
            raise ResnestError(f"{folder} cannot be written: {error.strerror or error}") from None
        return folder

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Save and upload to the hub as `user/name`, which is made if it is not there; returns its address.

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
        """The text of the model card, from this model's own figures."""
        return model_card_text(self.card, title, account=account_of(Path(self.source)), repo_id=repo_id)


def account_of(run: Path) -> dict[str, object]:
    """What a run says of its data and versions (run.json); nothing for other models."""
    try:
        content = json.loads((run / "run.json").read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    except (OSError, ValueError):
        return {}


def _open_published(path: Path, row: Weights, reference: str) -> Model:
    if not row.head:
        raise ResnestError(f"{row.name} is a backbone without classifier: use it with create_backbone(pretrained=...)")
    card = ModelCard.of_imagenet(row.network, row.preprocess())
    net = ResNeSt(card.spec)
    load_file(net, path)
    return Model(net.eval(), card, reference)


def _open_directory(folder: Path, reference: str) -> Model:
    if not (folder / CARD_NAME).exists() and (folder / "recipe.yaml").exists():
        raise ResnestError(f"{folder} has no weights yet: finish it with `resnest train --resume {folder}`")
    card = ModelCard.read(folder)
    recipe = folder / "recipe.yaml"
    held_back = held_back_by(read_recipe(recipe)) if recipe.exists() else None
    if card.detector is not None:
        weights = read_checkpoint(folder / WEIGHTS_NAME)
        return Model(_detector(card, weights.state, str(weights.path)), card, reference, held_back=held_back)
    state = translate(read_checkpoint(folder / WEIGHTS_NAME)).state
    seen = read_structure(state, str(folder / WEIGHTS_NAME))
    if not same_tensors(card.spec, seen.spec):  # before anything of that size is built
        raise ResnestError(f"{folder / CARD_NAME} describes another network than {WEIGHTS_NAME} holds")
    net = ResNeSt(card.spec, num_classes=len(card.class_names), in_chans=card.in_chans)
    load_weights(net, state, source=str(folder / WEIGHTS_NAME))
    return Model(net.eval(), card, reference, held_back=held_back)


def _detector(card: ModelCard, state: dict[str, Tensor], source: str) -> Detector:
    """Built only once the shapes in the file are known to be those of the card."""
    with torch.device("meta"):
        wanted = _random_detector(card).state_dict()
    if {name: tensor.shape for name, tensor in wanted.items()} != {
        name: tensor.shape for name, tensor in state.items()
    }:
        wrong = sorted(name for name in wanted.keys() | state.keys() if _shape(wanted, name) != _shape(state, name))
        raise ResnestError(
            f"{source} holds another detector than its {CARD_NAME} or recipe describes: {wrong[0]} differs"
        )
    net = _random_detector(card)
    load_weights(net, state, source=source)
    return net.eval()


def _random_detector(card: ModelCard) -> Detector:
    """What the card describes, perhaps with a semantic branch."""
    from resnest.detection.detector import build_detector  # torchvision, which classifiers can do without
    from resnest.panoptic.panoptic import build_panoptic

    assert card.detector is not None
    classes = len(card.class_names)
    if card.panoptic is not None:
        return build_panoptic(card.spec, card.detector, card.panoptic, classes, card.things)
    return build_detector(card.spec, card.detector, classes)


def _shape(state: dict[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(state[name].shape) if name in state else None


def _open_file(path: Path, network: str | None) -> Model:
    raw = read_checkpoint(path)
    if {"recipe", "class_names", "model"} <= raw.content.keys():
        return _open_training_checkpoint(raw)
    identity = identify(raw, network)
    spec = identity.spec
    if identity.name not in PUBLISHED:
        raise ResnestError(f"{path} is a {identity.name} without its {CARD_NAME}: put that beside it, or name the run")
    if identity.seen.num_classes != imagenet.COUNT:
        heads = f"{identity.seen.num_classes} classes" if identity.seen.num_classes else "no classifier"
        raise ResnestError(
            f"{path} holds weights with {heads} but does not name them: put its {CARD_NAME} beside it and call it"
            f" {WEIGHTS_NAME}, or fine-tune from it with --set model.pretrained={path}"
        )
    row = identity.row or find_weights(network if network and is_network_name(network) else identity.name)
    card = ModelCard.of_imagenet(identity.name, row.preprocess())
    net = ResNeSt(spec, in_chans=identity.seen.in_chans)
    load_weights(net, identity.state, source=str(path))
    return Model(net.eval(), card, str(path))


def _open_training_checkpoint(raw: RawCheckpoint) -> Model:
    """A checkpoint of a run knows its recipe and classes."""
    told, names = raw.content["recipe"], raw.content["class_names"]
    if not isinstance(told, dict) or not isinstance(names, list | tuple) or not all(isinstance(n, str) for n in names):
        raise ResnestError(f"{raw.path} is no checkpoint of a run: its recipe or class names are not what runs write")
    recipe: Recipe = build(told, where=str(raw.path))
    if isinstance(text := raw.content.get("card"), str) and recipe.detector is not None:
        card = ModelCard.from_json(text, where=str(raw.path))
        return Model(_detector(card, raw.state, str(raw.path)), card, str(raw.path), held_back=held_back_by(recipe))
    if recipe.task == "detection":  # of a version that kept no card
        return _open_detector_checkpoint(raw, recipe, tuple(names))
    spec, name = recipe.model.resolve()
    card = ModelCard(
        architecture=name,
        spec=spec,
        class_names=tuple(names),
        preprocess=recipe.data.preprocess,
        multi_label=raw.content.get("multi_label") is True,
    )
    if not same_tensors(spec, read_structure(raw.state, str(raw.path)).spec):
        raise ResnestError(f"{raw.path} holds another network than its recipe describes")
    net = ResNeSt(card.spec, num_classes=len(card.class_names))
    load_weights(net, raw.state, source=str(raw.path))
    return Model(net.eval(), card, str(raw.path), held_back=held_back_by(recipe))


def _open_detector_checkpoint(raw: RawCheckpoint, recipe: Recipe, names: tuple[str, ...]) -> Model:
    ids = raw.content.get("category_ids")
    if not isinstance(ids, list | tuple) or not all(type(number) is int for number in ids):
        raise ResnestError(f"{raw.path} is no checkpoint of a run: its category_ids are not what runs write")
    assert recipe.detector is not None
    assert recipe.detection is not None
    spec, name = recipe.model.resolve()
    card = ModelCard(
        architecture=name,
        spec=spec,
        class_names=names,
        preprocess=recipe.detection.preprocess(recipe.data),
        task="detection",
        detector=recipe.detector,
        category_ids=tuple(ids),
    )
    net = _detector(card, raw.state, str(raw.path))
    return Model(net, card, str(raw.path), held_back=held_back_by(recipe))


def held_back_by(recipe: Recipe) -> tuple[float, int]:
    """Share and seed of what training held back of data without parts."""
    return recipe.data.val_share, recipe.train.seed

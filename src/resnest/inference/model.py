"""A network with its weights and its card: opened from any reference, saved and shared in the hub's format.

model = Model.from_pretrained("runs/a")                 # or "resnest50", a checkpoint file, "someone/flowers"
model = Model.of(net, class_names=["rose", "tulip"])    # from your own training loop
model.net, model.card
model.save_pretrained("flowers")                        # config.json, model.safetensors, README.md
model.push_to_hub("me/flowers")
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.pooling import _AvgPoolNd, _MaxPoolNd

from resnest.checkpoints import hub
from resnest.checkpoints.fetch import is_network_name, locate
from resnest.checkpoints.loading import check_values, identify, load_file, load_weights, translate
from resnest.checkpoints.manifest import Weights, find_weights
from resnest.checkpoints.multipart import all_parts
from resnest.checkpoints.reading import RawCheckpoint, read_checkpoint
from resnest.checkpoints.structure import read_structure, same_tensors
from resnest.data.splitting import Holdout
from resnest.errors import ResnestError, call, parameter, unknown
from resnest.files import CARD_NAME, WEIGHTS_NAME, replacing, sha256_of, write_atomically, write_errors
from resnest.inference.readme import model_card_text
from resnest.inference.torch_engine import open_torch_engine
from resnest.network.tools import shapes_only
from resnest.recipes.reading import build, read_recipe
from resnest.recipes.schema import Recipe
from resnest.runtime.card import ModelCard
from resnest.runtime.predictor import ImagePredictor
from resnest.runtime.preprocess import ImageTransform, Preprocess
from resnest.spec import PUBLISHED, name_of
from resnest.tasks import DEFAULT_TASK, load_object, task_info, task_of_network, task_type

# --- Building the network of a model card, for any task, and the card of a network ---


def build_from_card(card: ModelCard, state: Mapping[str, Tensor], *, source: str) -> Any:
    """Build the network of a card with the weights of a file, in eval mode, after checking the shapes in the file.

    Raises:
        ResnestError: it holds another network.
    """
    task = task_type(card.task)
    if wrong := _differing(_without_weights(card), state):
        raise ResnestError(
            f"{source} holds {card.info.noun.replace('a ', 'another ', 1)} than its {CARD_NAME} or recipe describes:"
            f" {wrong[0]} differs"
        )
    net = task.build_network(card)
    load_weights(net, state, source=source)
    return net.eval()


def _without_weights(card: ModelCard) -> nn.Module:
    """The network of a card, whose tensors have only shapes (meta device)."""
    with shapes_only():
        return task_type(card.task).build_network(card)


def _differing(net: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Names of tensors that only one of the two has, or that differ in shape."""
    wanted = net.state_dict()
    return sorted(name for name in wanted.keys() | state.keys() if _shape(wanted, name) != _shape(state, name))


def _shape(state: Mapping[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(state[name].shape) if name in state else None


def card_of(
    net: nn.Module, class_names: Sequence[str], preprocess: ImageTransform | None = None, **fields: Any
) -> ModelCard:
    """The card of a network that was built here and trained elsewhere.

    Args:
        class_names: in the order of the network's outputs.
        preprocess: what it was trained with; by default what the network itself has, `net.preprocess`.
        fields: of the task's card, such as `category_ids` or `multi_label`.

    Raises:
        ResnestError: a network of no task, another number of classes than it has, an unknown field.
    """
    task = task_of_network(net)
    kind = task.info.card
    known = [field.name for field in dataclasses.fields(kind)]
    for name in fields:
        if name not in known:
            raise unknown(f"field of {kind.__name__}", name, known)
    names = _checked_names(class_names, task.num_classes(net))
    chosen = preprocess or getattr(net, "preprocess", None)
    if not isinstance(chosen, kind.preprocess_type()):
        what = "is missing" if chosen is None else f"is a {type(chosen).__name__}"
        raise ResnestError(
            f"preprocess {what}: {task.info.noun} takes the {kind.preprocess_type().__name__} that it was trained with"
        )
    own = task.card_fields(net)
    content = {"architecture": name_of(own["spec"]), "class_names": names, "preprocess": chosen, **own, **fields}
    return kind(**content)


def _checked_names(class_names: Sequence[str], count: int) -> tuple[str, ...]:
    names = () if isinstance(class_names, str) else tuple(class_names)
    if not all(isinstance(name, str) for name in names) or isinstance(class_names, str):
        raise ResnestError("class_names must be a list of names, in the order of the network's outputs")
    if len(names) != count:
        raise ResnestError(f"class_names has {len(names)} names, and the network has {count} classes")
    if len(set(names)) < len(names):
        [(twice, _)] = Counter(names).most_common(1)
        raise ResnestError(f"class_names has {twice!r} twice")
    return names


def rebuilt(net: nn.Module, card: ModelCard) -> Any:
    """A new network by the card, with the weights of `net`, on the CPU in eval mode.

    Raises:
        ResnestError: `net` is another network than its card says, or has weights that are not finite.
    """
    described, state = _without_weights(card), net.state_dict()
    wrong = _differing(described, state)
    if not wrong:
        wrong = [
            f"a {mine}" for mine, theirs in zip(_windows(net), _windows(described), strict=False) if mine != theirs
        ]
    if wrong:
        raise ResnestError(
            f"the network is not what its structure (`spec`) and the card say: {wrong[0]} differs. A saved model is"
            " built anew from them: no other layers, strides or dilation than `create_model` and its like give"
        )
    check_values(state)
    copy = task_type(card.task).build_network(card)
    copy.load_state_dict({name: tensor.detach().cpu() for name, tensor in state.items()})
    return copy.eval()


def _windows(net: nn.Module) -> list[str]:
    """Strides, padding and dilation of convolutions and pools in order, which no tensor shows."""
    kinds = nn.Conv2d | _AvgPoolNd | _MaxPoolNd
    found = [str(module) for module in net.modules() if isinstance(module, kinds)]
    return [*found, str(getattr(net, "avgpool", ""))]  # a classifier's pool may be of any kind


RECIPE_NAME = "recipe.yaml"


@dataclass(frozen=True)
class Model:
    """A network of any task in eval mode on the CPU, with its card."""

    net: Any  # ResNeSt, Detector, Segmenter, ...
    card: ModelCard
    source: str
    holdout: Holdout | None = None  # what its training held out of data without parts
    features: bool = False  # whether its exported files give the pooled features, too

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
            write_atomically(folder / CARD_NAME, self.card.to_json().encode())
            write_atomically(folder / "README.md", self.readme(folder.resolve().name).encode(errors="backslashreplace"))
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
                advice = " (log in with `hf auth login`, or set HF_TOKEN)"
                if isinstance(error, hub.NoConnection):
                    advice = ""
                raise ResnestError(f"{repo_id} could not be uploaded: {error}{advice}") from None

    def readme(self, title: str, *, repo_id: str | None = None) -> str:
        """The text of the README, with this model's figures."""
        return model_card_text(self.card, title, account=provenance_of(Path(self.source)), repo_id=repo_id)


def provenance_of(run: Path) -> dict[str, object]:
    """The data and versions of a run (run.json); empty for other models."""
    try:
        content = json.loads((run / "run.json").read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    except (OSError, ValueError):
        return {}


def account_of(source: str) -> dict[str, object]:
    """The same of the run that a model's source is, or is a file of."""
    return next((account for folder in run_folders(Path(source)) if (account := provenance_of(folder))), {})


def run_folders(model: Path) -> tuple[Path, ...]:
    """Where a run's own files are looked for: in the folder that a model is, or in the two above its file."""
    if model.is_dir():
        return (model,)
    return tuple(model.parents[:2]) if model.is_file() else ()


def data_of_run(run: Path) -> tuple[Path | None, str]:
    """Where the data of a run is and its format, if it is still there on this machine."""
    where, recipe = provenance_of(run).get("data"), run / RECIPE_NAME
    if not isinstance(where, str) or not Path(where).exists() or not recipe.is_file():
        return None, ""
    return Path(where), read_recipe(recipe).data.format


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
    raw = read_checkpoint(folder)
    source = str(raw.path)
    if not card.fits_backbone_layouts:
        return Model(build_from_card(card, _of_parts(card, raw), source=source), card, reference, holdout=holdout)
    state = translate(raw).state
    if not same_tensors(card.spec, read_structure(state, source).spec):  # before anything of that size is built
        raise ResnestError(f"{folder / CARD_NAME} describes another network than {raw.path.name} holds")
    net = task_type(card.task).build_network(card)
    load_weights(net, state, source=source)
    return Model(net.eval(), card, reference, holdout=holdout)


def _of_parts(card: ModelCard, raw: RawCheckpoint) -> Mapping[str, Tensor]:
    """The tensors of a network with backbone and heads under our names; as they are if the file has more than that."""
    whole = load_object(card.info.weights).read(raw) if card.info.weights else None
    return whole.state if whole and not whole.aside else raw.state


def _open_file(path: Path, network: str | None) -> Model:
    raw = read_checkpoint(path)
    if {"recipe", "card", "model"} <= raw.content.keys():
        return _open_training_checkpoint(raw)
    for parts in all_parts():
        if parts.find(raw):
            raise ResnestError(f"{path} holds a {parts.what} but does not name its classes: {_to_name(path)}")
    identity = identify(raw, network)
    spec = identity.spec  # raises if two networks have the same tensors
    if identity.name not in PUBLISHED:
        raise ResnestError(f"{path} is a {identity.name} without its {CARD_NAME}: put that beside it, or name the run")
    row = identity.row or find_weights(network if network and is_network_name(network) else identity.name)
    card = published_card(identity.name, row.preprocess())
    if identity.seen.num_classes != len(card.class_names):
        heads = f"{identity.seen.num_classes} classes" if identity.seen.num_classes else "no classifier"
        raise ResnestError(f"{path} holds weights with {heads} but does not name them: {_to_name(path)}")
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


def holdout_of(recipe: Recipe) -> Holdout:
    """What training holds out of data without splits."""
    return recipe.data.holdout(recipe.train.seed)


def holdout_of_run(run: Path, weights_sha256: str) -> Holdout | None:
    """The same for a run's directory, if its weights have this hash."""
    weights, recipe = run / WEIGHTS_NAME, run / RECIPE_NAME
    if weights.is_file() and recipe.is_file() and sha256_of(weights) == weights_sha256:
        return holdout_of(read_recipe(recipe))
    return None

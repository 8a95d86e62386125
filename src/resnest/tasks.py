"""The table of tasks, and their interface to the generic packages, with and without torch.

    info = task_info("detection")        # TaskInfo: card, recipe, results, figures. Imports no torch
    task = task_type("detection")        # the Task: networks, losses, batches. Imports torch

A task is a package with `info.py`, whose INFO is its `TaskInfo`, and `task.py` with its `Task`. A new one adds a line
to `TASKS`, and no other room changes (docs/architecture.md).
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from resnest.errors import ResnestError, parameter, unknown

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from resnest.checkpoints.loading import LoadReport
    from resnest.data.loading import TrainingDataset
    from resnest.data.samples import Samples
    from resnest.recipes.schema import Recipe
    from resnest.runtime.card import ModelCard
    from resnest.runtime.engines.exported import Engine, IOSpec, Prepared, Views
    from resnest.runtime.preprocess import ImageTransform
    from resnest.runtime.results import Result
    from resnest.spec import Spec

TASKS: dict[str, str] = {  # name -> package
    "classification": "resnest.classification",
    "detection": "resnest.detection",
    "segmentation": "resnest.segmentation",
    "panoptic": "resnest.panoptic",
    "keypoints": "resnest.keypoints",
}
DEFAULT_TASK = next(iter(TASKS))  # of recipes, cards and data that name none


@dataclass(frozen=True, kw_only=True)
class TaskInfo:
    """The part of a task that needs no torch. Strings such as "package.module:NAME" are imported when needed."""

    name: str
    noun: str  # of a model: "a detector"
    card: type[ModelCard]
    recipe: type[Recipe]
    unused_settings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by section of a recipe
    recipes: str  # Mapping[str, Callable[[], Recipe]]: those that come with the package
    task: str  # the Task
    result: str  # the Result that `predict` gives, or their base class
    files: Mapping[str, str] = field(default_factory=dict)  # ResultFiles for other programs, by option of `predict`
    predict: Callable[[Engine, Any, Sequence[Prepared], Views | None], Sequence[Result]]
    views_in_batches: bool = (
        False  # whether `predict` takes several pictures with views, and not the pictures' own pixels
    )
    check_views: Callable[[Views], None]  # raises ResnestError for those that such a model does not take
    batch_size: int  # images of a call of an engine, in evaluation
    max_batch_size: int | None = None  # in prediction, whatever is asked for
    exported: IOSpec | None  # None: no format can hold such a model
    exporter: str = ""  # the Exporter; "": no format can hold such a model
    joiner: str = ""  # the Joiner of tiles of a large picture (runtime/tiles); "": it is not looked at in tiles
    scorer: str  # Callable[[Samples, ModelCard], Scorer]: what compares results with what pictures show
    measures_outlines: bool = False  # whether the scorer takes `surface`, a tolerance of outlines in pixels
    inspection: str  # the Inspection: the doctor's look at the task's data
    data_view: str = ""  # the DataView: its annotations on the page about the data; "": that has pictures alone
    explained: str = ""  # the TargetFinder: what of its results can be explained; "": nothing
    boxes: str = ""  # what finds the boxes that it looks at in a picture, by `open`; "": it looks at the picture
    weights: str = ""  # the Parts: names of a network's tensors in other code; "": those of a ResNeSt alone
    relabel: str = ""  # (samples, file, card) -> samples with other labels
    finders: str = ""  # Sequence[Finder]: the task's own formats of data sets
    reads_labels: bool = False  # whether folders of labelled images are looked through for it, too
    annotations: str = ""  # what data of its own formats has beside pictures, for a message: "masks"
    needs: str  # of data, for a message: "data with boxes"
    layout: str = ""  # the layout of such a data set, if labelled images are not enough


class Task(ABC):
    """A task with a recipe and its data, for training. Its class methods are for models of the task."""

    info: ClassVar[TaskInfo]
    network_type: ClassVar[type[nn.Module]]  # of its networks
    takes_sizes: ClassVar[bool] = False  # whether the network takes the sizes of images without padding, too
    varying_sizes: ClassVar[bool] = False  # of training images
    graphed_images: ClassVar[int] = 0  # a GPU's launches are recorded for batches of up to so many (inference/graphs)

    recipe: Any
    class_names: tuple[str, ...]
    spec: Spec
    monitor: str  # key of the figure that decides which weights are best
    monitor_title: str
    kept: Mapping[str, Mapping[str, float]] = {}  # `measured` of the run that goes on, so that it is not done again

    # --- models ---

    @classmethod
    @abstractmethod
    def build_network(cls, card: Any) -> nn.Module:
        """The network of a card, with random weights."""

    @classmethod
    @abstractmethod
    def prepared(cls, net: Any, *, memory_format: torch.memory_format, kernels: bool) -> nn.Module:
        """A copy of a network for inference only; `net` is not changed."""

    @classmethod
    def num_classes(cls, net: Any) -> int:
        """Number of classes of a network."""
        return int(net.num_classes)

    @classmethod
    @abstractmethod
    def card_fields(cls, net: Any) -> dict[str, Any]:
        """Card fields of a network: its structure, and defaults for what classes have besides their names."""

    # --- training ---

    @classmethod
    def of(cls, recipe: Any, samples: Any) -> Task:
        """The task of a recipe for these samples."""
        return cls(recipe, samples)

    def __init__(self, recipe: Any, samples: Samples) -> None:
        self.recipe = recipe
        self.class_names = tuple(samples.class_names)
        self.spec, self.architecture = recipe.model.resolve()

    def measured(self) -> dict[str, dict[str, float]]:
        """What training depends on and was measured in its data, numbers by name: a run keeps it."""
        return {}

    @property
    @abstractmethod
    def min_batch_size(self) -> int:
        """Minimum number of images in a process's training batch."""

    @property
    @abstractmethod
    def preprocess(self) -> ImageTransform:
        """The preprocessing in evaluation."""

    @abstractmethod
    def build(self) -> nn.Module:
        """The network with random initial weights; `load_pretrained` follows if the recipe asks for it."""

    @abstractmethod
    def load_pretrained(self, net: Any) -> LoadReport | None:
        """Load the recipe's pretrained weights; None if it names none."""

    @abstractmethod
    def dataset(self, samples: Any) -> TrainingDataset:
        """The dataset of training batches."""

    @abstractmethod
    def loss(self, net: nn.Module, images: Tensor, labels: Any, *, seed: Sequence[int] = ()) -> Tensor:
        """Loss of a batch, (N, C, H, W) as of its dataset; its randomness outside the network is f(seed)."""

    @abstractmethod
    def card(self, figures: dict[str, float]) -> ModelCard:
        """The model card for the weights."""


def find_task(name: str) -> str:
    """The package of a task. Raises ResnestError for an unknown one."""
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    return TASKS[name]


@cache
def _info(package: str) -> TaskInfo:
    info: TaskInfo = importlib.import_module(f"{package}.info").INFO
    return info


def task_info(name: str) -> TaskInfo:
    """The `TaskInfo` of a task. Raises ResnestError for an unknown task."""
    return _info(find_task(name))


def task_type(name: str) -> type[Task]:
    """The class of a task's `task.py`. Imports torch. Raises ResnestError for an unknown task."""
    task: type[Task] = load_object(task_info(name).task)
    return task


def task_of_network(net: nn.Module) -> type[Task]:
    """The task of a network, by its type. Imports torch. Raises ResnestError for a network of no task."""
    fitting = [task for task in map(task_type, TASKS) if isinstance(net, task.network_type)]
    if not fitting:
        known = ", ".join(task_type(name).network_type.__name__ for name in TASKS)
        raise ResnestError(
            f"a {type(net).__name__} is a network of no task: expected one of {known}, without what is wrapped around"
            " it, such as DistributedDataParallel (its .module) or torch.compile (its ._orig_mod)"
        )
    return max(fitting, key=lambda task: len(task.network_type.__mro__))  # a panoptic detector is a detector, too


def open_task(recipe: Recipe, samples: Samples, where: str = "the data") -> Task:
    """The task of a recipe, with its training data. Raises ResnestError for data of another task."""
    check_task(samples, recipe.task, where, f"recipe {recipe.name!r}")
    return task_type(recipe.task).of(recipe, samples)


def check_task(samples: Samples, task: str, where: str, what: str) -> None:
    """Raises ResnestError for data of another task than that of `what`, such as a recipe or a model."""
    if samples.task != task:
        raise ResnestError(
            f"{where} has {samples.has}, and {what} is for {task}: give {task_info(task).needs}, or take a model or a"
            f" recipe for {samples.task} (`resnest recipes`)"
        )


def box_source(info: TaskInfo) -> Any:
    """What opens the boxes of pictures, `TaskInfo.boxes`. Raises ResnestError for a task that looks at no boxes."""
    if not info.boxes:
        nouns = [known.noun.removeprefix("a ") for known in map(task_info, TASKS) if known.boxes]
        raise ResnestError(f"{parameter('boxes')} is for {' and '.join(nouns)}s, and this model is {info.noun}")
    return load_object(info.boxes)


def load_object(where: str) -> Any:
    """Import "package.module:NAME"."""
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name)

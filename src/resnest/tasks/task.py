"""What the training loop needs of a task, whatever it is.

task = task_for(recipe, splits.train)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from resnest.checkpoints.loading import LoadReport
from resnest.recipes.schema import Recipe
from resnest.runtime.card import ModelCard
from resnest.runtime.preprocess import AnyPreprocess
from resnest.spec import Spec
from resnest.tasks.mixing import Mix


class Task(Protocol):
    """Network, loss, and what its weights need to be used."""

    recipe: Recipe
    class_names: tuple[str, ...]
    spec: Spec
    monitor: str  # the figure that decides which weights are best
    monitor_title: str

    @property
    def least_images(self) -> int: ...  # of a training batch

    @property
    def facts(self) -> Mapping[str, str]: ...  # of the report, beside those of every task

    @property
    def preprocess(self) -> AnyPreprocess: ...  # for evaluation

    def build(self) -> nn.Module: ...  # with its initial weights

    def load_pretrained(self, net: Any) -> LoadReport | None: ...  # those that the recipe starts from

    def draw_mix(self, seed: Sequence[int]) -> Mix: ...  # what mixes a batch

    def loss(self, net: nn.Module, images: Tensor, labels: Any, *, mix: Mix) -> Tensor: ...  # of a batch of uint8

    def card(self, figures: dict[str, float]) -> ModelCard: ...  # goes with the weights

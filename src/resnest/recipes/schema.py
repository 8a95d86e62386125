"""The schema of recipes: the common sections; the recipe of each task adds its own.

recipe = DetectionRecipe(name="cells", model=ModelSettings(name="resnest50"), train=TrainSettings(epochs=10))
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from resnest.data.settings import DataSettings
from resnest.errors import ResnestError
from resnest.recipes.checks import contradictions
from resnest.recipes.settings import ModelSettings, OptimSettings, TrainerSettings, TrainSettings
from resnest.tasks import TaskInfo, task_info


@dataclass(frozen=True, kw_only=True)
class Expect:
    """Expected accuracy: measured here, with a file in results/, or published. A task adds its figures."""

    tolerance: float = 0.003  # of a repetition on another machine
    published: bool = False  # by the authors; not repeated here
    note: str  # data, hardware, time; and what a baseline without a figure of its own stands beside


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All settings of a training run, except the data. Each task has a recipe of its own."""

    own_sections: ClassVar[tuple[str, ...]] = ()  # that other tasks do not have
    image_section: ClassVar[str] = ""  # of them, the one that says what happens to images; none: `data`

    name: str
    summary: str = ""
    task: str
    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    optim: OptimSettings = field(default_factory=OptimSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    expect: Expect | None = None

    def __post_init__(self) -> None:
        """Raises ResnestError for the first pair of contradictory settings."""
        if not isinstance(self, self.info.recipe):
            raise ResnestError(
                f"a recipe for {self.task} is a {self.info.recipe.__name__}, not a {type(self).__name__}"
            )
        for problem in (*self._unused(), *contradictions(self), *self.contradictions()):
            raise ResnestError(problem)

    @property
    def info(self) -> TaskInfo:
        """The `TaskInfo` of its task."""
        return task_info(self.task)

    @property
    def frozen_backbone_norm(self) -> bool:
        """Whether all norms of the backbone keep their statistics."""
        return False

    @property
    def attention_needs_batch(self) -> bool:
        """Whether the norm inside split attention, which sees one value per image, uses statistics of the batch."""
        spec, _ = self.model.resolve()
        return spec.radix > 0 and spec.attention_norm == "batch" and not self.frozen_backbone_norm

    def listing(self) -> tuple[str, dict[str, str]]:
        """The heading in `resnest recipes`, and its columns: title, field of `expect`."""
        raise NotImplementedError

    def heads(self) -> dict[str, str]:
        """The heads on the network: kind and title, for the report."""
        return {}

    def contradictions(self) -> Iterator[str]:
        """Contradictions in the task's own sections."""
        yield from ()

    def _unused(self) -> Iterator[str]:
        for name, value in unused_settings(self):
            yield (
                f"{name}={value} plays no role with task={self.task}: leave it out. Sizes, crops and turns of its"
                f" images are settings of `{self.image_section}`"
            )


def unused_settings(recipe: Recipe) -> Iterator[tuple[str, object]]:
    """Settings that the task does not use and that are not at their defaults: (section.field, value)."""
    for section, names in recipe.info.unused_settings.items():
        settings = getattr(recipe, section)
        defaults = {field.name: field.default for field in dataclasses.fields(settings)}
        for name in names:
            if getattr(settings, name) != defaults[name]:
                yield f"{section}.{name}", getattr(settings, name)

"""Panoptic segmentation: objects and stuff that share out the pixels of a picture.

task = PanopticTask(recipe, samples)
net = task.build()
loss = task.loss(net, batch.images, batch.labels)            # labels: a Target for each image, with its semantic map
"""

from __future__ import annotations

from dataclasses import replace

from resnest.data.panoptic import PanopticSamples
from resnest.panoptic.panoptic import PanopticFPN, build_panoptic
from resnest.recipes.schema import Recipe
from resnest.runtime.card import ModelCard
from resnest.tasks.detection import DetectionTask


class PanopticTask(DetectionTask):
    """A detector's task with a semantic branch beside the detector."""

    def __init__(self, recipe: Recipe, samples: PanopticSamples) -> None:
        super().__init__(recipe, samples)
        assert recipe.panoptic is not None
        self.panoptic, self.classes = recipe.panoptic, samples.classes
        self.monitor, self.monitor_title = "pq", "PQ"

    @property
    def facts(self) -> dict[str, str]:
        return {**super().facts, "Stuff": "semantic branch of Panoptic FPN"}

    def network(self) -> PanopticFPN:
        return build_panoptic(
            self.spec,
            self.detector,
            self.panoptic,
            len(self.class_names),
            self.classes.things,
            zero_gamma=self.recipe.model.zero_gamma,
        )

    def card(self, figures: dict[str, float]) -> ModelCard:
        return replace(
            super().card(figures),
            task="panoptic",
            panoptic=self.panoptic,
            things=self.classes.things,
            colours=self.classes.colours,
        )

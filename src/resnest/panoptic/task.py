"""The panoptic segmentation task: every pixel belongs to an object or a region of stuff.

task = PanopticTask(recipe, samples)
net = task.build()
loss = task.loss(net, batch.images, batch.labels)            # labels: a Target for each image, with its semantic map
"""

from __future__ import annotations

from typing import Any

from resnest.detection.task import DetectionTask
from resnest.panoptic.card import PanopticCard
from resnest.panoptic.data import PanopticSamples
from resnest.panoptic.info import INFO
from resnest.panoptic.model import PanopticFPN, build_panoptic


class PanopticTask(DetectionTask):
    """The task of panoptic networks: a detector's, with a semantic branch."""

    info = INFO
    network_type = PanopticFPN

    def __init__(self, recipe: Any, samples: PanopticSamples) -> None:
        super().__init__(recipe, samples)
        self.classes = samples.classes
        self.monitor, self.monitor_title = "pq", "PQ"

    @classmethod
    def build_network(cls, card: PanopticCard) -> PanopticFPN:
        heads = card.detector, card.panoptic
        return build_panoptic(card.spec, *heads, len(card.class_names), card.things, in_chans=card.in_chans)

    @classmethod
    def num_classes(cls, net: PanopticFPN) -> int:
        return net.num_classes + net.semantic.logits.out_channels - 1

    @classmethod
    def card_fields(cls, net: PanopticFPN) -> dict[str, Any]:
        return {**super().card_fields(net), "panoptic": net.panoptic, "things": net.num_classes}

    def network(self) -> PanopticFPN:
        return build_panoptic(
            self.spec,
            self.recipe.detector,
            self.recipe.panoptic,
            len(self.class_names),
            self.classes.things,
            **self.stem,
        )

    def card(self, figures: dict[str, float]) -> PanopticCard:
        things, colours = self.classes.things, self.classes.colours
        return PanopticCard(**self._card_fields(figures), panoptic=self.recipe.panoptic, things=things, colours=colours)

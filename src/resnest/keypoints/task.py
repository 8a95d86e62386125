"""The keypoint task: heatmaps of an object's points, by mean squared error.

task = KeypointTask(recipe, samples)
net = task.build()
loss = task.loss(net, batch.images, batch.labels)            # labels: heatmaps (N, K, h, w), NaN of what does not count
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from resnest.data.loading import TrainingDataset, normalise
from resnest.keypoints.card import KeypointCard, KeypointPreprocess
from resnest.keypoints.data import KeypointSamples
from resnest.keypoints.info import INFO
from resnest.keypoints.network import PoseNet, build_pose_net
from resnest.training.backbone_task import BackboneTask


class KeypointTask(BackboneTask):
    """The task of keypoint models."""

    info = INFO
    network_type = PoseNet
    monitor = "ap"
    monitor_title = "OKS AP"

    def __init__(self, recipe: Any, samples: KeypointSamples) -> None:
        super().__init__(recipe, samples)
        self.layout, self.thing, self.category_id = samples.layout, samples.thing, samples.category_id

    @classmethod
    def build_network(cls, card: KeypointCard) -> PoseNet:
        return build_pose_net(card.spec, card.head, len(card.class_names), in_chans=card.in_chans)

    @classmethod
    def card_fields(cls, net: PoseNet) -> dict[str, Any]:
        return {**super().card_fields(net), "head": net.spec}

    @property
    def preprocess(self) -> KeypointPreprocess:
        preprocess: KeypointPreprocess = self.recipe.keypoints.preprocess(self.recipe.data)
        return preprocess

    def network(self) -> PoseNet:
        return build_pose_net(self.spec, self.recipe.head, len(self.class_names), **self.stem)

    def dataset(self, samples: KeypointSamples) -> TrainingDataset:
        from resnest.keypoints.transforms import KeypointDataset  # torchvision, for training alone

        recipe = self.recipe
        return KeypointDataset(samples, recipe.data, recipe.keypoints, recipe.head, seed=recipe.train.seed)

    def loss(self, net: nn.Module, images: Tensor, labels: Tensor, *, seed: Sequence[int] = ()) -> Tensor:
        """Mean squared error of the annotated points' heatmaps, over all cells (mmpose, KeypointMSELoss)."""
        data = self.recipe.data
        found: Tensor = net(normalise(images, data.mean, data.std))  # (N, K, h, w)
        counts = ~labels[..., 0, 0].isnan()  # (N, K)
        squares = (found - labels.nan_to_num()).square().mean((2, 3))
        return (squares * counts).mean()

    def card(self, figures: dict[str, float]) -> KeypointCard:
        return KeypointCard(
            architecture=self.architecture,
            spec=self.spec,
            class_names=self.class_names,
            preprocess=self.preprocess,
            in_chans=self.recipe.data.in_chans,
            layout=self.layout,
            head=self.recipe.head,
            thing=self.thing,
            category_id=self.category_id,
            figures=figures,
        )

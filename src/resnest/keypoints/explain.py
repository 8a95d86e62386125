"""What of a keypoint model can be explained: each point, by the peak of its heatmap. A picture counts as one object."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from resnest.explanation.targets import Asked, Target, TargetFinder
from resnest.keypoints.heatmaps import STRIDE
from resnest.runtime.engines.exported import Prepared

REACH = 2  # cells of a heatmap to each side of its peak, which are framed


class PointTargets(TargetFinder):
    """Points in the order of the object's."""

    most: ClassVar[int] = 17  # a person's

    def targets(self, outputs: Tensor, image: Prepared, asked: Asked) -> list[Target]:
        chosen = asked.classes or range(outputs.shape[1])
        return [self._target(outputs[0, k], k) for k in chosen]

    def _target(self, heat: Tensor, k: int) -> Target:
        row, column = divmod(int(heat.detach().argmax()), heat.shape[1])
        left, top, right, bottom = column - REACH, row - REACH, column + REACH + 1, row + REACH + 1
        value = heat[row, column]
        return Target(
            label=self.card.class_names[k],
            index=k,
            score=min(max(float(value.detach()), 0.0), 1.0),
            value=value,
            what="peak",
            box=(left * STRIDE, top * STRIDE, right * STRIDE, bottom * STRIDE),
        )

    def likelihoods(self, outputs: Tensor, target: Target) -> Tensor:
        """The heatmaps' values where the peak was."""
        assert target.box is not None
        column, row = (round(side / STRIDE) + REACH for side in target.box[:2])
        return outputs[:, target.index, row, column].clamp(0, 1)

    def notes(self) -> list[str]:
        return ["the whole picture is taken for one object"]

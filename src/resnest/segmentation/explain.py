"""What of a segmenter can be explained: each class of pixels that it finds (Seg-Grad-CAM, arXiv 2002.11434).

The number is the mean logit of a class in its predicted pixels. The picture is looked at whole, not in windows.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from resnest.explanation.maps import GRAD_CAM
from resnest.explanation.targets import Asked, Target, TargetFinder, region_targets
from resnest.runtime.engines.exported import Prepared


class PixelTargets(TargetFinder):
    """Classes, the one with the most pixels first."""

    method: ClassVar[str] = GRAD_CAM

    def targets(self, outputs: Tensor, image: Prepared, asked: Asked) -> list[Target]:
        high, wide = self.inner(image)
        logits = outputs[0, :, :high, :wide]
        likely = self._probabilities(outputs)[0, :, :high, :wide].detach()
        if self.card.segmenter.multi_label:
            regions = [plane >= self.card.threshold for plane in likely]
        else:
            labels = logits.detach().argmax(0)
            regions = [labels == k for k in range(len(logits))]
        masks = [region.cpu().numpy() for region in regions]
        return region_targets(logits, masks, likely, self.card.class_names, asked)

    def likelihoods(self, outputs: Tensor, target: Target) -> Tensor:
        assert target.region is not None
        high, wide = target.region.shape
        inside = torch.from_numpy(target.region).to(outputs.device)
        return self._probabilities(outputs)[:, target.index, :high, :wide][:, inside].mean(1)

    def notes(self) -> list[str]:
        window = self.card.preprocess.window
        return [f"predicted in windows of {window} pixels, explained as a whole"] if window else []

    def _probabilities(self, logits: Tensor) -> Tensor:
        return logits.sigmoid() if self.card.segmenter.multi_label else logits.softmax(1)

"""What of a panoptic detector can be explained: its objects as a detector's, its stuff as a segmenter's classes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from resnest.detection.explain import ObjectTargets, object_likelihoods, object_targets
from resnest.explanation.targets import Asked, Target, region_targets
from resnest.runtime.engines.exported import Prepared


class SegmentTargets(ObjectTargets):
    """Objects, the highest score first, then stuff, the one with the most pixels first."""

    def targets(self, outputs: Any, image: Prepared, asked: Asked) -> list[Target]:
        things = self.net.num_classes
        names = self.card.class_names
        found = []
        if not asked.classes or any(k < things for k in asked.classes):
            found = object_targets(outputs.objects, names, asked)
        high, wide = self.inner(image)
        logits = outputs.semantic[0, :, :high, :wide]  # any thing, then the kinds of stuff
        labels = logits.detach().argmax(0)
        regions = [(labels == 1 + k).cpu().numpy() for k in range(len(logits) - 1)]
        wanted = tuple(k - things for k in asked.classes if k >= things)
        if asked.classes and not wanted:
            return found
        likely = logits.detach().softmax(0)[1:]
        stuff = region_targets(logits[1:], regions, likely, names[things:], Asked(wanted), first=things)
        return [*found, *stuff]

    def likelihoods(self, outputs: Any, target: Target) -> Tensor:
        if target.region is None:
            return object_likelihoods(outputs.objects, target)
        high, wide = target.region.shape
        inside = torch.from_numpy(target.region).to(outputs.semantic.device)
        plane = 1 + target.index - self.net.num_classes
        shares: Tensor = outputs.semantic.softmax(1)[:, plane, :high, :wide][:, inside].mean(1)
        return shares

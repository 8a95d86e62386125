"""What of a classifier can be explained: its labels, by the pixels of its last map."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from resnest.explanation.maps import EXACT, STAGES, Linear
from resnest.explanation.targets import Asked, Target, TargetFinder
from resnest.network.resnest import GlobalAvgPool2d
from resnest.runtime.engines.exported import Prepared

THRESHOLD = 0.5  # from which on a label of several is given


class LabelTargets(TargetFinder):
    """Classes of a picture: the most likely two, or of a multi-label model those that it gives, at least one."""

    method: ClassVar[str] = EXACT
    most: ClassVar[int] = 2

    def targets(self, outputs: Tensor, image: Prepared, asked: Asked) -> list[Target]:
        logits, scores = outputs[0], self._scores(outputs)[0].detach()
        order = scores.argsort(descending=True, stable=True).tolist()
        chosen = list(asked.classes) or order[: asked.top or self.most]
        if self.card.multi_label and not asked.classes and asked.top is None:
            chosen = [k for k in order if scores[k] >= THRESHOLD] or order[:1]
        return [
            Target(
                label=self.card.class_names[k],
                index=k,
                score=float(scores[k]),
                value=logits[k],
                what="logit",
                linear=self._linear(k),
            )
            for k in chosen
        ]

    def likelihoods(self, outputs: Tensor, target: Target) -> Tensor:
        return self._scores(outputs)[:, target.index]

    def why_not_exact(self, layers: tuple[str, ...]) -> str:
        if layers != STAGES[-1:]:
            return f"logits are linear in {STAGES[-1]} alone, not in {', '.join(layers)}"
        if not isinstance(self.net.fc, nn.Linear):
            return "this network has no linear head"
        if not isinstance(self.net.avgpool, GlobalAvgPool2d | nn.AdaptiveAvgPool2d):
            return f"the head stands behind {type(self.net.avgpool).__name__}, not behind a mean"
        return ""

    def _scores(self, logits: Tensor) -> Tensor:
        return logits.sigmoid() if self.card.multi_label else logits.softmax(1)

    def _linear(self, k: int) -> Linear | None:
        head = self.net.fc
        if not isinstance(head, nn.Linear):
            return None
        bias = 0.0 if head.bias is None else float(head.bias[k].detach())
        return Linear(head.weight[k].detach(), bias)

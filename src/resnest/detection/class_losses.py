"""How a box head learns classes: softmax, or losses for hundreds of classes with a long tail.

    loss = build_class_loss("seesaw", num_classes=1203)
    head = NormedLinear(1024, loss.outputs)                 # logits (M, outputs)
    total = loss(logits, labels)                            # sum over the proposals; label K is the background
    scores = loss.scores(logits)                            # (M, K) probabilities

In a data set with a long tail, a rare class is almost always a negative: softmax and plain sigmoids push its score down
with every object of another class. The losses here weaken that, each by what it counts in training. Counts are of all
processes, and part of the network's state, so that a resumed run goes on with them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnest.detection.card import ClassLossName
from resnest.network.tools import sum_over_processes

PRIOR = 0.01  # probability that a sigmoid starts with (arXiv 1708.02002, section 4.1; CenterNet2's PRIOR_PROB)
FEDERATED_CLASSES = 50  # that learn in a step (detectron2's FED_LOSS_NUM_CLASSES; arXiv 2103.07461)
FREQUENCY_POWER = 0.5  # negatives are drawn by the frequency to this power (detectron2's FED_LOSS_FREQ_WEIGHT_POWER)
GAMMA, MU, ALPHA = 12.0, 0.8, 4.0  # EQL v2 (arXiv 2012.08548 and its code)
P, Q, SMALLEST = 0.8, 2.0, 1e-2  # Seesaw (arXiv 2008.10032, mmdet); the last is mmdet's `eps`
TEMPERATURE = 20.0  # of the normalised classifier (arXiv 2008.10032)


class ClassLoss(nn.Module):
    """Softmax cross-entropy over the classes and the background, the last output."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    @property
    def outputs(self) -> int:
        """Logits of a proposal."""
        return self.num_classes + 1

    @property
    def bias(self) -> float:
        """What the classifier's bias starts with."""
        return 0.0

    def start_training(self, images: Tensor) -> None:
        """Begin training on data in which so many images, (K,), show each class."""
        return

    def scores(self, logits: Tensor) -> Tensor:
        """(M, outputs) -> (M, K)."""
        return logits.softmax(1)[:, :-1]

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(M, outputs), (M,) with K for background -> the sum over the proposals."""
        return F.cross_entropy(logits, labels, reduction="sum")


class SigmoidLoss(ClassLoss):
    """Base of losses that ask every class by itself."""

    @property
    def bias(self) -> float:
        return -math.log((1 - PRIOR) / PRIOR)

    @staticmethod
    def weighted(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return (losses * weights).sum()


class FederatedLoss(SigmoidLoss):
    """Binary cross-entropy of some classes: those of the proposals, and others drawn by their frequency.

    (Zhou et al., arXiv 2103.07461, as in detectron2: the background is one of the classes counted, and its
    output is unused.)
    """

    images: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.register_buffer("images", torch.ones(num_classes))

    def start_training(self, images: Tensor) -> None:
        self.images.copy_(images)

    def scores(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()[:, :-1]

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        classes = self.draw(labels)
        targets = F.one_hot(labels, self.outputs).to(logits.dtype)
        return self.weighted(logits[:, classes], targets[:, classes], torch.ones_like(logits[:, classes]))

    def draw(self, labels: Tensor) -> Tensor:
        """The classes that learn from these proposals."""
        present = labels.unique()
        weights = F.pad(self.images, (0, 1)) ** FREQUENCY_POWER  # (K + 1,) the background is never drawn
        weights[present] = 0
        wanted = min(FEDERATED_CLASSES - len(present), int((weights > 0).sum()))
        drawn = weights.multinomial(wanted) if wanted > 0 else present[:0]
        return torch.cat([present[present < self.num_classes], drawn])


class EqualizationLoss(SigmoidLoss):
    """EQL v2: weights positives more and negatives less, the less of the gradient so far came from positives.

    (Tan et al., arXiv 2012.08548) The last output says whether it is the background, and is not weighted.
    The authors start all sigmoids at one half, and clip gradients for that; here they start at `PRIOR`.
    """

    positive: Tensor
    negative: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.register_buffer("positive", torch.zeros(num_classes))  # sums of absolute gradients
        self.register_buffer("negative", torch.zeros(num_classes))

    def start_training(self, images: Tensor) -> None:
        self.positive.zero_()
        self.negative.zero_()

    def scores(self, logits: Tensor) -> Tensor:
        scores = logits.sigmoid()
        return scores[:, :-1] * (1 - scores[:, -1:])

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        targets = F.one_hot(labels, self.outputs).to(logits.dtype)
        positive, negative = self.factors()
        weights = targets * positive + (1 - targets) * negative
        self._count(logits.detach(), targets, weights)
        return self.weighted(logits, targets, weights)

    def factors(self) -> tuple[Tensor, Tensor]:
        """Weights of positives and of negatives, (K + 1,) each; 1 before the first step."""
        ratio = self.positive / (self.negative + 1e-10)
        negative = torch.sigmoid(GAMMA * (ratio - MU)).where(self.negative > 0, 1)
        negative = F.pad(negative, (0, 1), value=1.0)
        return 1 + ALPHA * (1 - negative), negative

    @torch.no_grad()
    def _count(self, logits: Tensor, targets: Tensor, weights: Tensor) -> None:
        gradients = (logits.sigmoid() - targets).abs() * weights
        sums = torch.stack([(gradients * targets).sum(0), (gradients * (1 - targets)).sum(0)])
        positive, negative = sum_over_processes(sums)[:, :-1]
        self.positive += positive
        self.negative += negative


class SeesawLoss(ClassLoss):
    """Seesaw: softmax among objects, in which a class pushes rarer ones down less.

    (Wang et al., arXiv 2008.10032) The two last outputs, "object" and "no object", have a softmax of their
    own.
    """

    samples: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.register_buffer("samples", torch.zeros(num_classes))  # proposals of each class so far

    @property
    def outputs(self) -> int:
        return self.num_classes + 2

    def start_training(self, images: Tensor) -> None:
        self.samples.zero_()

    def scores(self, logits: Tensor) -> Tensor:
        return logits[:, :-2].softmax(1) * logits[:, -2:].softmax(1)[:, :1]

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        objects = labels < self.num_classes
        self._count(labels[objects])
        classes, kinds = logits[objects, :-2], labels[objects]
        moved = classes + self.factors(classes.detach(), kinds).log()
        objectness = F.cross_entropy(logits[:, -2:], (~objects).long(), reduction="sum")
        return F.cross_entropy(moved, kinds, reduction="sum") + objectness

    def factors(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Factors of each class's share in the softmax: mitigation times compensation, (M, K); 1 of the true class."""
        counts = self.samples.clamp(min=1)
        mitigation = (counts / counts[labels, None]).clamp(max=1) ** P  # (M, K)
        probabilities = logits.softmax(1)
        own = probabilities.gather(1, labels[:, None]).clamp(min=SMALLEST)
        compensation = (probabilities / own).clamp(min=1) ** Q
        return (mitigation * compensation).scatter(1, labels[:, None], 1.0)

    @torch.no_grad()
    def _count(self, labels: Tensor) -> None:
        self.samples += sum_over_processes(torch.bincount(labels, minlength=self.num_classes).to(self.samples))


class NormedLinear(nn.Linear):
    """A linear layer of normalised inputs and weights: the logits are cosines times the temperature, plus bias.

    (arXiv 2008.10032) The temperature is part of the state, so that no plain layer takes these weights.
    """

    temperature: Tensor

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.register_buffer("temperature", torch.tensor(TEMPERATURE))

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(self.temperature * F.normalize(input), F.normalize(self.weight), self.bias)


LOSSES: dict[ClassLossName, type[ClassLoss]] = {
    "softmax": ClassLoss,
    "federated": FederatedLoss,
    "eqlv2": EqualizationLoss,
    "seesaw": SeesawLoss,
}


def build_class_loss(name: ClassLossName, num_classes: int) -> ClassLoss:
    return LOSSES[name](num_classes)

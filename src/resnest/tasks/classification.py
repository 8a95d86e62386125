"""Image classification: one label an image.

task = ClassificationTask(recipe, class_names)
net = task.build()
loss = task.loss(net, batch.images, batch.labels, mix=task.draw_mix((seed, step, rank)))
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from resnest.checkpoints.create import load_pretrained
from resnest.checkpoints.loading import LoadReport
from resnest.cost import smallest_map
from resnest.data.transforms import normalise
from resnest.network.initial import initialise_as_gluon
from resnest.network.resnest import ResNeSt
from resnest.network.stages import freeze
from resnest.recipes.schema import PUBLISHED_WEIGHTS, Recipe
from resnest.runtime.card import ModelCard
from resnest.runtime.preprocess import Preprocess
from resnest.tasks.losses import binary_cross_entropy, cross_entropy
from resnest.tasks.mixing import WHOLE, Mix, draw_mix, mix_images


class ClassificationTask:
    """What training needs to know about classification."""

    monitor = "top1"  # the figure that decides which weights are best
    monitor_title = "top-1"

    def __init__(self, recipe: Recipe, class_names: Sequence[str]) -> None:
        self.recipe = recipe
        self.class_names = tuple(class_names)
        self.spec, self.architecture = recipe.model.resolve()

    @property
    def least_images(self) -> int:
        """Images that a training batch needs, so that every batch-norm sees two values or more."""
        data = self.recipe.data
        one_value = self.recipe.attention_needs_batch  # behind the global mean
        return 2 if one_value or smallest_map(self.spec, min(data.size, data.start_size or data.size)) == 1 else 1

    @property
    def facts(self) -> dict[str, str]:
        return {}

    @property
    def preprocess(self) -> Preprocess:
        return self.recipe.data.preprocess

    def build(self) -> ResNeSt:
        """The network with its initial weights, random: `load_pretrained` comes next where the recipe says so."""
        settings = self.recipe.model
        net = ResNeSt(self.spec, num_classes=len(self.class_names), zero_gamma=settings.zero_gamma)
        if settings.init == "gluon":
            initialise_as_gluon(net)
        freeze(net, settings.freeze)
        return net

    def load_pretrained(self, net: ResNeSt) -> LoadReport | None:
        """Start from the recipe's weights; a head of another size stays untrained."""
        settings = self.recipe.model
        wanted = True if settings.pretrained == PUBLISHED_WEIGHTS else settings.pretrained or False
        return load_pretrained(net, wanted, settings.name)

    def loss(self, net: nn.Module, images: Tensor, labels: Tensor, *, mix: Mix = WHOLE) -> Tensor:
        """Mean loss of a batch, mixed or whole: (N, 3, H, W) uint8, (N,) -> scalar."""
        data, train = self.recipe.data, self.recipe.train
        inputs, share = mix_images(normalise(images, data.mean, data.std), mix)
        logits = net(inputs)
        if train.loss == "bce":
            return binary_cross_entropy(logits, labels, share=share, threshold=train.bce_threshold)
        return cross_entropy(logits, labels, share=share, smoothing=train.label_smoothing)

    def draw_mix(self, seed: Sequence[int]) -> Mix:
        """What mixes one batch, by mixup or CutMix: f(seed)."""
        return draw_mix(seed, mixup=self.recipe.train.mixup, cutmix=self.recipe.train.cutmix)

    def card(self, figures: dict[str, float]) -> ModelCard:
        return ModelCard(
            architecture=self.architecture,
            spec=self.spec,
            class_names=self.class_names,
            preprocess=self.preprocess,
            figures=figures,
        )

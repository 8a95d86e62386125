"""A photo folder of one's own, from published weights: few images, so most of the network moves little.

resnest train finetune --data DIR --out runs/flowers

- The classifier is new and learns at the full rate; every part before it at 0.7 of the next one's (arXiv 1801.06146),
  the stem at 0.17. `--set model.freeze=3` leaves stem, layer1 and layer2 as they are: quicker, and for a few dozen
  images a class often as good; 5 trains the classifier alone.
- The norm inside the split attention keeps its published statistics, so that small batches train.
- It ends after 5 evaluations without improvement.

The choices are usual ones, not measured on published weights here.
"""

from __future__ import annotations

from resnest.data.settings import DataSettings
from resnest.recipes.schema import PUBLISHED_WEIGHTS, ModelSettings, OptimSettings, Recipe, TrainSettings


def finetune() -> Recipe:
    """Up to 20 epochs from the published ResNeSt-50."""
    return Recipe(
        name="finetune",
        summary="your own photographs, starting from published weights",
        model=ModelSettings(name="resnest50", spec={"attention_norm": "frozen"}, pretrained=PUBLISHED_WEIGHTS),
        data=DataSettings(size=224, min_area=0.35, jitter=0.2),
        optim=OptimSettings(lr=0.02, weight_decay=1e-4, warmup_epochs=1.0, layer_decay=0.7),
        train=TrainSettings(epochs=20, batch_size=32, patience=5),
    )

"""A recipe of today from scratch on ImageNet: RandAugment, mixup and CutMix, BCE, AdamW, averaged weights.

resnest train modern_resnest50 --data DIR --out runs/50

After A2 of "ResNet strikes back" (arXiv 2110.00476, table 2): 300 epochs, loss and threshold, mixup 0.1 and CutMix 1.0
by turns, three repeats of an image, 5 epochs of warm-up, stochastic depth, bicubic crops, evaluated at 95 % of the
short side. What differs, and why:

- AdamW with learning rate, decay and average of ConvNeXt (arXiv 2201.03545, appendix A.1: 4e-3 for 4096 images, 0.05,
  0.9999) instead of LAMB: torch has it. `--set optim.name=sgd` works too; take `train.loss=cross_entropy` with it.
- RandAugment is torchvision's, 2 operations at 9 of 30 as torchvision trains (references/classification), because
  timm's has other operations and magnitudes.
- Stochastic depth grows with the depth of the network, as in ConvNeXt; 0.05 at 50 layers is A2's. Dropout stays what
  the published networks have.
- A class with at most 0.2 of a mixed image is not asked for: timm's option, the value from memory.

Nothing here was measured on ImageNet. A3, the short one: `--set train.epochs=100 --set data.size=160
--set data.repeats=1 --set model.spec.drop_path_rate=0`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from resnest.data.settings import DataSettings
from resnest.recipes.schema import ModelSettings, OptimSettings, Recipe, TrainSettings

# images a GPU, and stochastic depth of the last block
DEPTHS: dict[str, tuple[int, float]] = {
    "resnest14": (256, 0.0),
    "resnest26": (256, 0.0),
    "resnest50": (256, 0.05),
    "resnest101": (128, 0.1),
    "resnest200": (64, 0.2),
    "resnest269": (32, 0.3),
}


def modern(network: str) -> Recipe:
    """300 epochs from scratch at 224 pixels."""
    batch, drop_path = DEPTHS[network]
    return Recipe(
        name=f"modern_{network}",
        summary=f"{network} from scratch on ImageNet, as one trains today",
        model=ModelSettings(name=network, spec={"drop_path_rate": drop_path} if drop_path else {}),
        data=DataSettings(size=224, eval_crop=0.95, interpolation="bicubic", augment="rand", repeats=3),
        optim=OptimSettings(name="adamw", lr=1e-3, lr_batch=1024, momentum=0.9, weight_decay=0.05, warmup_epochs=5.0),
        train=TrainSettings(
            epochs=300,
            batch_size=batch,
            loss="bce",
            label_smoothing=0.0,
            mixup=0.1,
            cutmix=1.0,
            ema=0.9999,
            log_every=50,
            save_every=1000,
        ),
    )


MODERN: dict[str, Callable[[], Recipe]] = {f"modern_{network}": partial(modern, network) for network in DEPTHS}

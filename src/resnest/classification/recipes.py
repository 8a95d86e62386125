"""Recipes of classifiers: small ones for a CPU, photographs of one's own, ImageNet as published and as it is done now.

resnest train imagenette --data DIR --out runs/a
resnest train finetune --data DIR --out runs/flowers
resnest train imagenet_resnest50 --data DIR --out runs/50
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from resnest.data.settings import DataSettings
from resnest.recipes.schema import PUBLISHED_WEIGHTS, Expect, ModelSettings, OptimSettings, Recipe, TrainSettings
from resnest.spec import PUBLISHED

# --- The recipe of a classifier ---


@dataclass(frozen=True, kw_only=True)
class ClassificationExpect(Expect):
    """Expected accuracy of the recipe, a fraction."""

    top1: float | None = None


@dataclass(frozen=True, kw_only=True)
class ClassificationRecipe(Recipe):
    """The recipe of a classifier: only the common sections."""

    task: str = "classification"
    expect: ClassificationExpect | None = None

    def listing(self) -> tuple[str, dict[str, str]]:
        return "Image classification", {"top-1": "top1"}


# images a GPU and training crop; all others, the ablation among them: those of ResNeSt-50
_SIZES = {"resnest101": (64, 224), "resnest200": (32, 256), "resnest269": (32, 320)}
_OFFICIAL = (128, 224)
DROP_BLOCK = 0.1  # of the last step; the Gluon code leaves it out for 14 layers
# images a GPU, and stochastic depth of the last block
RSB_SIZES: dict[str, tuple[int, float]] = {
    "resnest14": (256, 0.0),
    "resnest26": (256, 0.0),
    "resnest50": (256, 0.05),
    "resnest101": (128, 0.1),
    "resnest200": (64, 0.2),
    "resnest269": (32, 0.3),
}


def digits() -> ClassificationRecipe:
    """Handwritten digits on a CPU in a minute; used by `resnest demo`.

    resnest train digits --data digits --out runs/digits
    """
    return ClassificationRecipe(
        name="digits",
        summary="handwritten digits (8 x 8 pixels) from scratch, a minute on a CPU",
        model=ModelSettings(name="resnest14", spec={"planes": [16, 32, 64, 128], "stem": "small", "stem_width": 8}),
        data=DataSettings(size=16, eval_crop=1.0, min_area=1.0, flip=False, shift=0.1),
        optim=OptimSettings(lr=0.1, weight_decay=5e-4, warmup_epochs=1.0),
        train=TrainSettings(epochs=6, batch_size=32),
    )


def imagenette() -> ClassificationRecipe:
    """Small photographs from scratch on a CPU.

    resnest train imagenette --data DIR --out runs/a
    """
    return ClassificationRecipe(
        name="imagenette",
        summary="photographs of 128 pixels from scratch, on a CPU",
        model=ModelSettings(name="resnest14", spec={"planes": [32, 64, 128, 256], "stem_width": 16}),
        data=DataSettings(size=112, eval_size=128, eval_crop=1.0, min_area=0.35),
        optim=OptimSettings(name="muon", lr=4e-3, momentum=0.95, weight_decay=0.05, warmup_epochs=1.0),
        train=TrainSettings(epochs=5, batch_size=32),
        expect=ClassificationExpect(
            top1=0.835, tolerance=0.02, note="imagenette128, seed 0, 17 minutes on two cores; results/imagenette128.csv"
        ),
    )


def finetune() -> ClassificationRecipe:
    """Fine-tuning on your own photographs, up to 20 epochs from the published ResNeSt-50; most layers change little.

    - The classifier is new and learns at the full rate; every part before it at 0.7 of the next one's (arXiv
      1801.06146), the stem at 0.17. `model.freeze=3` leaves stem, layer1 and layer2 as they are: quicker, and
      for a few dozen images a class often as good; 5 trains the classifier alone.
    - The norm inside the split attention keeps its published statistics, so that small batches train.
    - It ends after 5 evaluations without improvement.

    The choices are usual ones, not measured on published weights here.
    """
    return ClassificationRecipe(
        name="finetune",
        summary="your own photographs, starting from published weights",
        model=ModelSettings(name="resnest50", spec={"attention_norm": "frozen"}, pretrained=PUBLISHED_WEIGHTS),
        data=DataSettings(size=224, min_area=0.35, jitter=0.2),
        optim=OptimSettings(lr=0.02, weight_decay=1e-4, warmup_epochs=1.0, layer_decay=0.7),
        train=TrainSettings(epochs=20, batch_size=32, patience=5),
    )


def modern(network: str) -> ClassificationRecipe:
    """Current methods: 300 epochs from scratch at 224 pixels, after A2 of "ResNet strikes back".

    After A2 of "ResNet strikes back" (arXiv 2110.00476, table 2): 300 epochs, loss and threshold, mixup 0.1 and CutMix
    1.0 alternately, three repeats of an image, 5 epochs of warm-up, stochastic depth, bicubic crops, evaluation crop
    of 95 %. The differences:

    - AdamW with learning rate, decay and average of ConvNeXt (arXiv 2201.03545, appendix A.1: 4e-3 for 4096 images,
      0.05, 0.9999) instead of LAMB: torch has it. `optim.name=sgd` works too; take `train.loss=cross_entropy` with it.
    - RandAugment is torchvision's, 2 operations at 9 of 30 as torchvision trains (references/classification), because
      timm's has other operations and magnitudes.
    - Stochastic depth grows with the depth of the network, as in ConvNeXt; 0.05 at 50 layers is A2's. Dropout stays
      what the published networks have.
    - A class with at most 0.2 of a mixed image is not asked for: timm's option, the value from memory.

    Nothing here was measured on ImageNet. A3, the short one: `train.epochs=100`, `data.size=160`, `data.repeats=1`,
    `model.spec.drop_path_rate=0`.
    """
    batch, drop_path = RSB_SIZES[network]
    return ClassificationRecipe(
        name=f"modern_{network}",
        summary=f"{network} from scratch on ImageNet, with current methods",
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


def imagenet(network: str) -> ClassificationRecipe:
    """270 epochs from scratch on ImageNet, the recipe of the published weights of `network` (facts, section 2.1).

    Trained by the authors with MXNet on 64 GPUs; what is stated as expectation is the accuracy they published, not one
    measured here. Numbers, initial weights (He by fan-in), AutoAugment and evaluation pixels are those of the Gluon
    code. What differs from it, on purpose or because it depends on MXNet:

    - The rate of DropBlock rises step by step, not epoch by epoch; the learning rate's first step is not exactly 0.
    - All images are shuffled every epoch; there every process shuffles a fixed subset.
    - Images are resized and jittered by Pillow, with antialiasing; below 320 pixels there by MXNet, without.
    - A random crop of 320 pixels and more may be the full image; there it is replaced by the centre crop.
    - Evaluation crops first and resizes then, at every size; there, below 320 pixels, the other way round.
    """
    published = PUBLISHED[network]
    batch, crop = _SIZES.get(network, _OFFICIAL)
    drop_block = 0.0 if network == "resnest14" else DROP_BLOCK
    large = crop >= 320
    return ClassificationRecipe(
        name=f"imagenet_{network}",
        summary=f"{network} from scratch on ImageNet, as its published weights were made",
        model=ModelSettings(name=network, spec={"drop_block_rate": drop_block} if drop_block else {}, init="gluon"),
        data=DataSettings(
            size=crop,
            eval_size=published.crop,
            interpolation="bicubic" if large else "bilinear",
            eval_interpolation="bicubic" if published.crop >= 320 else "bilinear",
            crop="height" if large else "area",
            min_area=0.1 if large else 0.08,
            augment="auto_gluon",
            jitter=0.4,
            lighting=0.1,
        ),
        optim=OptimSettings(name="sgd", lr=0.1, lr_batch=256, momentum=0.9, weight_decay=1e-4, warmup_epochs=5.0),
        train=TrainSettings(
            epochs=270,
            batch_size=batch,
            label_smoothing=0.1,
            mixup=0.2,
            drop_block=drop_block,
            log_every=50,
            save_every=1000,
        ),
        expect=ClassificationExpect(
            top1=round(published.top1 / 100, 4),
            tolerance=0.003,
            published=True,
            note="ImageNet-1k, published (official PyTorch column; 14 and 26: GluonCV), 64 GPUs",
        ),
    )


RECIPES: dict[str, Callable[[], ClassificationRecipe]] = {
    "digits": digits,
    "imagenette": imagenette,
    "finetune": finetune,
    **{f"modern_{network}": partial(modern, network) for network in RSB_SIZES},
    **{f"imagenet_{network}": partial(imagenet, network) for network in PUBLISHED},
}

"""The recipe that made the published weights, for each of them (paper, section 4.1; facts, section 2.1).

resnest train imagenet_resnest50 --data DIR --out runs/50

Trained by the authors with MXNet on 64 GPUs; what is stated as expectation is the accuracy they published, not one
measured here. Numbers, initial weights (He by fan-in), AutoAugment and evaluation pixels are those of the Gluon code.
What differs from it, on purpose or because it depends on MXNet:

- The rate of DropBlock rises step by step, not epoch by epoch; the learning rate's first step is not exactly 0.
- An epoch is shuffled as a whole; there every process shuffles a fixed share of the images.
- Images are resized and jittered by Pillow, with antialiasing; below 320 pixels there by MXNet, without.
- A random crop of 320 pixels and more may be the whole image; there that one becomes the centre crop.
- Evaluation crops first and resizes then, at every size; there, below 320 pixels, the other way round.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from resnest.data.settings import DataSettings
from resnest.recipes.schema import Expect, ModelSettings, OptimSettings, Recipe, TrainSettings
from resnest.spec import PUBLISHED

# images a GPU and training crop; all others, the ablation among them: those of ResNeSt-50
_SIZES = {"resnest101": (64, 224), "resnest200": (32, 256), "resnest269": (32, 320)}
_OFFICIAL = (128, 224)
DROP_BLOCK = 0.1  # of the last step; the Gluon code leaves it out for 14 layers


def imagenet(network: str) -> Recipe:
    """270 epochs from scratch on ImageNet, as the published weights of `network` were made."""
    published = PUBLISHED[network]
    batch, crop = _SIZES.get(network, _OFFICIAL)
    drop_block = 0.0 if network == "resnest14" else DROP_BLOCK
    large = crop >= 320
    return Recipe(
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
        expect=Expect(
            top1=round(published.top1 / 100, 4),
            within=0.003,
            published=True,
            note="ImageNet-1k, published (official PyTorch column; 14 and 26: GluonCV), 64 GPUs",
        ),
    )


IMAGENET: dict[str, Callable[[], Recipe]] = {f"imagenet_{network}": partial(imagenet, network) for network in PUBLISHED}

"""Settings that are right by themselves and contradict each other: one line with both of them and the way out.

check(recipe)        # raises ResnestError
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from resnest.errors import ResnestError
from resnest.recipes.idle import SECTIONS, SECTIONS_OF, set_in_vain
from resnest.spec import Spec

if TYPE_CHECKING:
    from resnest.recipes.schema import Recipe


def check(recipe: Recipe) -> None:
    """Refuse a network that cannot be built, and the first pair of settings that do not go together."""
    spec, _ = recipe.model.resolve()
    for problems in (
        _task(recipe),
        _finite(recipe),
        _network(recipe, spec),
        _loss(recipe),
        _schedule(recipe),
        _images(recipe),
        _machine(recipe),
    ):
        for problem in problems:
            raise ResnestError(problem)


def _task(recipe: Recipe) -> Iterator[str]:
    own = SECTIONS_OF.get(recipe.task, ())
    for name in SECTIONS:
        if name not in own and getattr(recipe, name) is not None:
            tasks = " or ".join(task for task, names in SECTIONS_OF.items() if name in names)
            yield f"{name} belongs to recipes with task={tasks}, this one has task={recipe.task}: leave it out"
    for name, value in set_in_vain(recipe):
        yield (
            f"{name}={value} plays no role with task={recipe.task}: leave it out. Sizes, crops and turns of its images"
            f" are settings of `{own[1]}`"
        )
    if recipe.panoptic and recipe.detector and not recipe.detector.masks:
        yield "detector.masks=false with task=panoptic: things need masks. Set detector.masks=true"


def _finite(recipe: Recipe) -> Iterator[str]:
    for section in ("data", "optim", "train", "trainer", *SECTIONS_OF.get(recipe.task, ())):
        for name, value in dataclasses.asdict(getattr(recipe, section)).items():
            for number in value if isinstance(value, list | tuple) else (value,):
                if isinstance(number, float) and not math.isfinite(number):
                    yield f"{section}.{name}={value} must be finite"


def _network(recipe: Recipe, spec: Spec) -> Iterator[str]:
    model, train = recipe.model, recipe.train
    if train.batch_size == 1 and recipe.attention_needs_batch:
        images = "detection" if recipe.detection else "segmentation" if recipe.segmentation else ""
        also = f", or {images}.backbone_norm to frozen" if images else ""
        yield (
            "train.batch_size=1 with model.spec.attention_norm='batch': the norm inside the split attention sees"
            " one value per sample. Set train.batch_size to 2 or more, or model.spec.attention_norm to"
            f" frozen (fine-tuning) or layer (from scratch){also}"
        )
    if train.drop_block and not spec.drop_block_rate:
        yield (
            f"train.drop_block={train.drop_block} with model.spec.drop_block_rate=0: the network has no DropBlock to"
            f" schedule. Set model.spec.drop_block_rate={train.drop_block}, or train.drop_block=0"
        )
    if spec.drop_block_rate and not train.drop_block:
        yield (
            f"model.spec.drop_block_rate={spec.drop_block_rate} with train.drop_block=0: the schedule would never drop"
            f" anything. Set train.drop_block={spec.drop_block_rate}, or model.spec.drop_block_rate=0"
        )
    if model.freeze and model.pretrained is None:
        yield (
            f"model.freeze={model.freeze} with model.pretrained=null: what is frozen would stay random. Set"
            " model.pretrained=published or to a file, or model.freeze=0"
        )


def _loss(recipe: Recipe) -> Iterator[str]:
    train = recipe.train
    if train.loss == "bce" and train.label_smoothing:
        yield (
            f"train.label_smoothing={train.label_smoothing} with train.loss='bce': smoothing shares one truth among the"
            " classes, and bce asks every class by itself. Set train.label_smoothing=0, or train.loss=cross_entropy"
        )
    for name in ("mixup", "cutmix"):
        if train.batch_size == 1 and getattr(train, name):
            yield (
                f"train.{name}={getattr(train, name)} with train.batch_size=1: an image has no partner. Set"
                f" train.{name}=0, or train.batch_size to 2 or more"
            )


def _schedule(recipe: Recipe) -> Iterator[str]:
    repeats, batch = recipe.data.repeats, recipe.train.batch_size
    if repeats > batch:
        yield (
            f"data.repeats={repeats} with train.batch_size={batch}: a batch would be one image over and over. Set"
            f" data.repeats=1, or a larger train.batch_size"
        )
    optim = recipe.optim
    if bool(optim.decay_at) != (optim.schedule == "steps"):
        yield (
            f"optim.schedule={optim.schedule} with optim.decay_at={list(optim.decay_at)}: only steps has places to step"
            " down at, and needs them. Set optim.schedule=steps and optim.decay_at='[0.6667, 0.8889]', or"
            " optim.schedule=cosine and optim.decay_at='[]'"
        )
    if optim.warmup_steps is not None and optim.warmup_epochs:
        yield (
            f"optim.warmup_steps={optim.warmup_steps} with optim.warmup_epochs={optim.warmup_epochs:g}: a warm-up has"
            " one length. Set optim.warmup_epochs=0, or optim.warmup_steps=null"
        )
    if not optim.nesterov and optim.name != "sgd":
        yield f"optim.nesterov=false with optim.name={optim.name}: only sgd has the choice. Set optim.nesterov=true"
    warmup, epochs = optim.warmup_epochs, recipe.train.epochs
    if warmup > epochs:
        yield (
            f"optim.warmup_epochs={warmup:g} with train.epochs={epochs}: the learning rate would never reach its top."
            f" Set optim.warmup_epochs to less than {epochs}, or more train.epochs"
        )


def _images(recipe: Recipe) -> Iterator[str]:
    """Of a detector."""
    settings = recipe.detection
    if settings is None:
        return
    for prefix, short in (("", max(settings.short)), ("eval_", settings.eval_short)):
        if short > (long := getattr(settings, f"{prefix}long")):
            shown = list(settings.short) if not prefix else short
            yield (
                f"detection.{prefix}short={shown} with detection.{prefix}long={long}: the long side would be shorter"
                f" than the short one. Set detection.{prefix}long to {short} or more"
            )


def _machine(recipe: Recipe) -> Iterator[str]:
    if recipe.train.precision == "16-mixed" and recipe.trainer.accelerator == "cpu":
        yield (
            "train.precision=16-mixed with trainer.accelerator=cpu: float16 needs a GPU. Set"
            " train.precision=bf16-mixed or 32-true, or trainer.accelerator=auto"
        )
    if recipe.optim.name == "muon" and recipe.trainer.strategy == "fsdp":
        yield (
            "optim.name=muon with trainer.strategy=fsdp: Muon needs whole weight matrices, and fsdp cuts them up. Set"
            " optim.name=adamw, or trainer.strategy=ddp"
        )

"""Contradictory settings: one line that names both and a solution.

for problem in contradictions(recipe): ...
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Protocol

from resnest.data.settings import DataSettings
from resnest.recipes.settings import ModelSettings, OptimSettings, TrainerSettings, TrainSettings
from resnest.spec import Spec


class Sections(Protocol):
    """The sections of a recipe that are checked here."""

    @property
    def own_sections(self) -> tuple[str, ...]: ...
    @property
    def image_section(self) -> str: ...
    @property
    def model(self) -> ModelSettings: ...
    @property
    def data(self) -> DataSettings: ...
    @property
    def optim(self) -> OptimSettings: ...
    @property
    def train(self) -> TrainSettings: ...
    @property
    def trainer(self) -> TrainerSettings: ...
    @property
    def attention_needs_batch(self) -> bool: ...


def contradictions(recipe: Sections) -> Iterator[str]:
    """Contradictions of the common sections. Raises ResnestError for a network that cannot be built."""
    spec, _ = recipe.model.resolve()
    yield from _finite(recipe)
    yield from _network(recipe, spec)
    yield from _loss(recipe)
    yield from _schedule(recipe)
    yield from _machine(recipe)


def _finite(recipe: Sections) -> Iterator[str]:
    for section in ("data", "optim", "train", "trainer", *recipe.own_sections):
        for name, value in dataclasses.asdict(getattr(recipe, section)).items():
            for number in value if isinstance(value, list | tuple) else (value,):
                if isinstance(number, float) and not math.isfinite(number):
                    yield f"{section}.{name}={value} must be finite"


def _network(recipe: Sections, spec: Spec) -> Iterator[str]:
    model, train = recipe.model, recipe.train
    if train.batch_size == 1 and recipe.attention_needs_batch:
        also = f", or {recipe.image_section}.backbone_norm to frozen" if recipe.image_section else ""
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


def _loss(recipe: Sections) -> Iterator[str]:
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


def _schedule(recipe: Sections) -> Iterator[str]:
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


def _machine(recipe: Sections) -> Iterator[str]:
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

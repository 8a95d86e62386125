"""Recipes: each is complete, survives YAML, and tells of a wrong setting in one line with the nearest right one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from resnest.classification.task import ClassificationTask
from resnest.classification.transforms import training_transform
from resnest.errors import ResnestError
from resnest.recipes import all_recipes, find_recipe, override, read_recipe, to_yaml
from resnest.recipes.reading import Settings
from resnest.training.step import build_optimizers


@pytest.mark.parametrize("name", all_recipes())
def test_round_trip(name: str, tmp_path: Path) -> None:
    recipe = find_recipe(name)
    assert recipe.name == name
    assert recipe.summary
    path = tmp_path / "copy.yaml"
    path.write_text(to_yaml(recipe))
    assert read_recipe(path) == recipe


@pytest.mark.parametrize("name", [name for name in all_recipes() if find_recipe(name).task == "classification"])
def test_every_recipe_can_be_built(name: str) -> None:
    """On the meta device: structure, optimiser groups, schedule."""
    recipe = find_recipe(name)
    task = ClassificationTask(
        recipe, SimpleNamespace(class_names=[f"class {index}" for index in range(1000)], class_keys=())
    )
    with torch.device("meta"):
        net = task.build()
    for optimizer in build_optimizers(net, recipe.optim):
        assert sum(len(group["params"]) for group in optimizer.param_groups) > 10
    assert training_transform(recipe.data, recipe.data.size)


# images on all GPUs, peak learning rate, training crop, evaluation crop (facts, sections 1.6 and 2.1)
PAPER = {
    "resnest50": (8192, 3.2, 224, 224),
    "resnest101": (4096, 1.6, 224, 256),
    "resnest200": (2048, 0.8, 256, 320),
    "resnest269": (2048, 0.8, 320, 416),
    "resnest14": (1024, 0.4, 224, 224),
}


@pytest.mark.parametrize("network", PAPER)
def test_the_recipe_that_made_the_weights(network: str) -> None:
    batch, lr, crop, evaluated = PAPER[network]
    recipe = find_recipe(f"imagenet_{network}")
    assert recipe.optim.lr_for(batch) == pytest.approx(lr)
    assert batch % recipe.train.batch_size == 0
    assert (recipe.data.size, recipe.data.preprocess.size) == (crop, evaluated)
    assert (recipe.train.epochs, recipe.train.mixup, recipe.train.label_smoothing) == (270, 0.2, 0.1)
    assert (recipe.optim.warmup_epochs, recipe.optim.weight_decay, recipe.optim.momentum) == (5, 1e-4, 0.9)
    assert recipe.model.zero_gamma
    assert recipe.model.init == "gluon"
    assert recipe.data.augment == "auto_gluon"
    assert (recipe.data.interpolation == "bicubic") == (crop >= 320)
    assert (recipe.data.preprocess.interpolation == "bicubic") == (evaluated >= 320)
    assert recipe.data.crop == ("height" if crop >= 320 else "area")
    spec, _ = recipe.model.resolve()
    assert spec.drop_rate == (0.2 if network in ("resnest200", "resnest269") else 0)
    assert spec.drop_block_rate == recipe.train.drop_block == (0 if network == "resnest14" else 0.1)


@pytest.mark.parametrize(
    ("setting", "section", "field", "value"),
    [
        ("train.epochs=7", "train", "epochs", 7),
        ("optim.lr=1e-2", "optim", "lr", 0.01),  # YAML reads 1e-2 as text
        ("data.flip=false", "data", "flip", False),
        ("data.eval_crop=null", "data", "eval_crop", None),
        ("model.pretrained=a.safetensors", "model", "pretrained", "a.safetensors"),
        ("model.spec={radix: 4}", "model", "spec", {"radix": 4}),
    ],
)
def test_settings(setting: str, section: str, field: str, value: object) -> None:
    changed = override(find_recipe("imagenette"), [setting])
    assert getattr(getattr(changed, section), field) == value
    assert changed.expect is None  # what was measured was measured for the recipe as it is


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.epoch=5", "Did you mean 'train.epochs'"),
        ("trian.epochs=5", "Did you mean 'train'"),
        ("model.spec.radx=4", "Did you mean 'model.spec.radix'"),
        ("train.epochs", "expected section.field=value"),
        ("train=5", "train is a section"),
        ("data.format.x=1", "data.format is a single value"),
        ("optim.lr=fast", r"optim.lr: .*valid number.*'fast'"),
        ("optim.name=adam", r"optim.name: .*'sgd', 'adamw' or 'muon'"),
        ("train.epochs=0", "train.epochs=0 must be 1 or more"),
        ("train.epochs=2.5", "train.epochs: .*integer"),
        ("model.name=resnest51", "Did you mean 'resnest50'"),
        ("model.spec.radix=3", "radix=3 the 3x3 convolution has 32 channels, which 3 groups"),
        ("train.batch_size=1", "Set train.batch_size to 2 or more"),
        ("data.min_area=0", "data.min_area=0.0 must lie in"),
        ("data.rand_ops=0", "data.rand_ops=0 must be 1 or more"),
        ("data.rand_magnitude=31", "data.rand_magnitude=31 must lie in 0 to 30"),
        ("data.erase=1.5", "data.erase=1.5 must lie in"),
        ("data.augment=randaugment", "data.augment: .*'rand'"),
        ("model.freeze=6", "model.freeze=6 must lie in 0 to 5"),
        ("model.freeze=-1", "model.freeze=-1 must lie in 0 to 5"),
        ("optim.layer_decay=0", "optim.layer_decay=0.0 must lie in"),
        ("optim.layer_decay=1.1", "optim.layer_decay=1.1 must lie in"),
        ("optim.head_factor=0", "optim.head_factor=0.0 must be more than 0"),
        ("optim.lr=-1", "optim.lr=-1.0 must be 0 or more"),
        ("optim.lr=.nan", "optim.lr=nan must be 0 or more"),
        ("optim.momentum=1", "optim.momentum=1.0 must lie in"),
        ("optim.lr_batch=0", "optim.lr_batch=0 must be 1 or more"),
        ("train.accumulate=0", "train.accumulate=0 must be 1 or more"),
        ("train.patience=0", "train.patience=0 must be 1 or more"),
        ("train.ema=1", "train.ema=1.0 must lie between 0 and 1"),
        ("train.mixup=-0.1", "train.mixup=-0.1 must be 0"),
        ("train.cutmix=-1", "train.cutmix=-1.0 must be 0"),
        ("train.label_smoothing=1", "train.label_smoothing=1.0 must lie in"),
        ("train.drop_block=1", "train.drop_block=1.0 must lie in"),
        ("train.bce_threshold=1", "train.bce_threshold=1.0 must lie in"),
        ("train.clip_norm=0", "train.clip_norm=0.0 must be more than 0"),
        ("train.wandb=''", "train.wandb is empty"),
        ("train.loss=focal", "train.loss: .*'cross_entropy' or 'bce'"),
        ("trainer.devices=0", "trainer.devices=0 must be 1 or more"),
        ("trainer.num_nodes=0", "trainer.num_nodes=0 must be 1 or more"),
        ("trainer.timeout_seconds=0", "trainer.timeout_seconds=0.0 must be more than 0"),
        ("trainer.strategy=deepspeed", "trainer.strategy: .*'ddp' or 'fsdp'"),
        ("data.balance=2", "data.balance=2.0 must lie in"),
        ("data.repeats=0", "data.repeats=0 must be 1 or more"),
        ("data.size=100000", "data.size=100000 must lie in 8 to 8192 pixels"),
        ("data.val_share=1", "data.val_share=1.0 must lie between 0 and 1"),
        ("data.shift=3", "data.shift=3.0 must lie in"),
        ("data.jitter=-1", "data.jitter=-1.0 must lie in"),
        ("data.lighting=-1", "data.lighting=-1.0 must be 0"),
        ("data.std=[0, 1, 1]", "data.std=.* must be more than 0 in each channel"),
        ("data.mean=[.nan, 0, 0]", "data.mean=.* must be finite"),
        ("data.workers=-1", "data.workers=-1 must be 0"),
        ("optim.lr=.inf", "optim.lr=inf must be finite"),
        ("optim.weight_decay=inf", "optim.weight_decay=inf must be finite"),
        ("train.seed=-1", "train.seed=-1 must be 0 or more"),
        ("trainer.timeout_seconds=.inf", "trainer.timeout_seconds=inf must be finite"),
        ("model.spec.planes=5", "planes=5 must be a list of 4 integers"),
        ("model.spec.drop_rate=much", "drop_rate='much' must be a number"),
    ],
)
def test_wrong_settings(setting: str, message: str) -> None:
    with pytest.raises(ResnestError, match=message) as caught:
        override(find_recipe("imagenette"), [setting])
    assert "\n" not in str(caught.value)


CONTRADICTIONS: dict[str, tuple[list[str], str]] = {
    "bce smooths": (
        ["train.loss=bce"],
        r"train.label_smoothing=0.1 with train.loss='bce': .* Set train.label_smoothing=0, or train.loss=cross_entropy",
    ),
    "no DropBlock": (
        ["train.drop_block=0.1"],
        r"train.drop_block=0.1 with model.spec.drop_block_rate=0: .* Set model.spec.drop_block_rate=0.1, or",
    ),
    "DropBlock that never drops": (
        ["model.spec.drop_block_rate=0.1"],
        r"model.spec.drop_block_rate=0.1 with train.drop_block=0: .* Set train.drop_block=0.1, or",
    ),
    "frozen and random": (
        ["model.freeze=2"],
        r"model.freeze=2 with model.pretrained=null: .* Set model.pretrained=published or to a file, or model.freeze=0",
    ),
    "warm-up to the end": (
        ["train.epochs=3", "optim.warmup_epochs=5"],
        r"optim.warmup_epochs=5 with train.epochs=3: .* Set optim.warmup_epochs to less than 3, or more train.epochs",
    ),
    "one sample": (["train.batch_size=1"], r"train.batch_size=1 with model.spec.attention_norm='batch': .* Set"),
    "no partner to blend": (
        ["train.batch_size=1", "model.spec.attention_norm=layer", "train.mixup=0.2"],
        r"train.mixup=0.2 with train.batch_size=1: an image has no partner. Set train.mixup=0, or",
    ),
    "no partner to cut": (
        ["train.batch_size=1", "model.spec.attention_norm=layer", "train.cutmix=1"],
        r"train.cutmix=1.0 with train.batch_size=1: an image has no partner. Set train.cutmix=0, or",
    ),
    "one image": (
        ["data.repeats=8", "train.batch_size=4"],
        r"data.repeats=8 with train.batch_size=4: .* Set data.repeats=1, or",
    ),
    "float16": (
        ["train.precision=16-mixed", "trainer.accelerator=cpu"],
        r"train.precision=16-mixed with trainer.accelerator=cpu: .* Set train.precision=bf16-mixed",
    ),
    "cut matrices": (["trainer.strategy=fsdp"], r"optim.name=muon with trainer.strategy=fsdp: .* Set optim.name=adamw"),
    "crops that shrink": (
        ["data.size=64", "data.start_size=96"],
        r"data.start_size=96 with data.size=64: .* Set data.start_size to 64 or less",
    ),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_settings_that_contradict_each_other(case: str) -> None:
    settings, message = CONTRADICTIONS[case]
    with pytest.raises(ResnestError, match=message) as caught:
        override(find_recipe("imagenette"), settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        ["train.loss=bce", "train.label_smoothing=0", "train.mixup=0.1", "train.cutmix=1"],
        ["train.drop_block=0.1", "model.spec.drop_block_rate=0.1"],
        ["model.freeze=5", "model.pretrained=published"],
        ["train.epochs=1"],  # as long as its warm-up
        ["train.batch_size=1", "model.spec.attention_norm=frozen"],
        ["train.precision=16-mixed"],
        ["trainer.strategy=fsdp", "optim.name=sgd"],
        ["data.start_size=112"],
    ],
)
def test_the_way_out_is_one(settings: list[str]) -> None:
    override(find_recipe("imagenette"), settings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: [", "cannot be read as YAML"),
        ("just text", "is not a recipe"),
        ("train: {epochs: 5, batch: 3}", "Did you mean 'train.batch_size'"),
        ("model: {spec: {depth: [1, 1, 1, 1]}}", "Did you mean 'model.spec.depths'"),
        ("model: 5", "model: .*5"),
    ],
)
def test_wrong_files(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ResnestError, match=message) as caught:
        read_recipe(path)
    assert "\n" not in str(caught.value)


def test_unknown_recipe() -> None:
    with pytest.raises(ResnestError, match="Did you mean 'imagenette'"):
        find_recipe("imagenet")
    with pytest.raises(ResnestError, match="cannot be read"):
        find_recipe("nowhere.yaml")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"train": {"epochs": 5, "ema": None}}, ["train.epochs=5", "train.ema=null"]),
        ({"train.epochs": 5, "optim": {"lr": 0.2}}, ["train.epochs=5", "optim.lr=0.2"]),
        ({"model": {"spec": {"radix": 1}}}, ["model.spec={radix: 1}"]),
        ({"model.spec.radix": 1}, ["model.spec.radix=1"]),
        ({"model.pretrained": Path("runs/a")}, ["model.pretrained=runs/a"]),
        ({"data": {"mean": (0.5, 0.5, 0.5)}}, ["data.mean=[0.5, 0.5, 0.5]"]),
        ("train.epochs=5", ["train.epochs=5"]),
        ({}, []),
        ({"train": {}}, []),
    ],
)
def test_settings_as_a_dictionary(settings: Settings, text: list[str]) -> None:
    recipe = find_recipe("imagenette")
    assert override(recipe, settings) == override(recipe, text)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": {"epoch": 5}}, r"'train.epoch' is not a known setting .*Did you mean 'train.epochs'"),
        ({"trian": {"epochs": 5}}, r"'trian' is not a known setting .*Did you mean 'train'"),
        ({"train": 5}, "train is a section: set one of its fields, such as train.epochs"),
        ({"train": {"epochs": "many"}}, r"train.epochs: .*it is 'many'"),
        (
            {"detector": {"masks": True}},
            r'`settings={"detector": {"masks": True}}`: .* recipes for detection and panoptic have one',
        ),
        ({3: 5}, "'3' is not a known setting"),
    ],
)
def test_mistakes_in_a_dictionary(settings: Settings, message: str) -> None:
    with pytest.raises(ResnestError, match=message):
        override(find_recipe("imagenette"), settings)

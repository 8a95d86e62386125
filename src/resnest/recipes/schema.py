"""Schema of a recipe: its sections, and settings that contradict each other.

recipe = DetectionRecipe(name="cells", model=ModelSettings(name="resnest50"), train=TrainSettings(epochs=10))
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, Protocol

from resnest.data.settings import DataSettings
from resnest.errors import Range, ResnestError, check_ranges
from resnest.spec import (
    Count,
    NotNegative,
    Positive,
    ProperShare,
    Rate,
    SomeShare,
    Spec,
    Whole,
    find_spec,
    override_spec,
)
from resnest.tasks import TaskInfo, task_info

# --- The common sections of a recipe. Every field is a setting, section.field ---

PARTS = 6  # of a network: stem, layer1 to layer4, classifier
FREEZABLE = ": a network is a stem, four stages and a classifier, and the classifier always learns"
PUBLISHED_WEIGHTS = "published"  # model.pretrained: the published weights of model.name


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The network to train and its initial weights."""

    name: str = "resnest50"  # see `resnest models`
    spec: dict[str, Any] = field(default_factory=dict)  # fields of Spec that differ from the named network
    pretrained: str | None = None  # "published", or a name, file, run or hub id
    # rows of its class predictors: those of the same classes, or all in their order, or none
    pretrained_head: Literal["by_name", "by_number", "untrained"] = "by_name"
    zero_gamma: bool = True  # start residual branches at zero (paper, section 4.1)
    init: Literal["torch", "gluon"] = "torch"  # He normal by fan-out, as the official code; by fan-in, biases 0
    # parts that stay as they are: 1 the stem, 2 layer1 too, ... 5 all but the classifier
    freeze: Annotated[int, Range(0, PARTS - 1, hint=FREEZABLE)] = 0

    def __post_init__(self) -> None:
        check_ranges(self, "model.")

    def resolve(self) -> tuple[Spec, str]:
        """The structure, and the network's official name ("resnest" if fields differ from the named network)."""
        spec, name = find_spec(self.name)
        changed = override_spec(spec, self.spec)
        return changed, name if changed == spec else "resnest"


@dataclass(frozen=True, kw_only=True)
class OptimSettings:
    """Optimiser and learning rate: linear warm-up, then cosine, polynomial or step decay; updated every step."""

    name: Literal["sgd", "adamw", "muon"] = "sgd"  # muon: convolutions by Muon, the rest by AdamW
    lr: NotNegative = 0.1  # at the top of the schedule, for the recipe's own batch size or `lr_batch`
    # lr is for this many images a step, and scaled to those there are (arXiv 1706.02677); none: not scaled
    lr_batch: Count | None = None
    momentum: Rate = 0.9  # sgd and muon: Nesterov; adamw: beta1
    nesterov: bool = True  # sgd; false: plain momentum, as detectron2's
    weight_decay: NotNegative = 1e-4  # convolution and linear weights only
    schedule: Literal["cosine", "steps", "poly"] = "cosine"  # after the warm-up
    power: NotNegative = 0.9  # poly: of the share of the run that is left (arXiv 1706.05587, section 4)
    decay_at: tuple[float, ...] = ()  # steps: shares of the run at which lr is divided by 10, such as 2/3 and 8/9
    warmup_epochs: NotNegative = 5.0
    warmup_steps: Whole | None = None  # the length of the warm-up in steps, in place of epochs
    warmup_factor: SomeShare | None = None  # share of the top that the warm-up begins with; none: an even part of it
    layer_decay: SomeShare = 1.0  # from the classifier towards the stem, each part's lr is this times the next one's
    head_factor: Positive = 1.0  # the classifier's lr, times this: an untrained one may go faster than the rest

    def __post_init__(self) -> None:
        object.__setattr__(self, "decay_at", tuple(self.decay_at))
        check_ranges(self, "optim.")
        if any(not 0 < fraction < 1 for fraction in self.decay_at) or list(self.decay_at) != sorted(set(self.decay_at)):
            raise ResnestError(
                f"optim.decay_at={list(self.decay_at)} must be fractions of the run between 0 and 1, the smallest"
                " first, such as [0.6667, 0.8889]"
            )

    def lr_for(self, batch: int) -> float:
        """The learning rate for a global batch size."""
        return self.lr * batch / self.lr_batch if self.lr_batch else self.lr


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Settings of the training loop."""

    epochs: Count = 10
    max_steps: Count | None = None  # end there, wherever the epoch stands; the schedule is that of all epochs
    batch_size: Count = 64  # per device
    accumulate: Count = 1  # batches per step: gradients add up to those of one batch that would not fit
    label_smoothing: Rate = 0.1
    loss: Literal["cross_entropy", "bce"] = "cross_entropy"  # bce: a yes or no for every class (arXiv 2110.00476)
    bce_threshold: Rate = 0.2  # bce: a class with no more of a mixed image than this is a no
    # beta of class-balanced weights, such as 0.9999: images of rare classes weigh more; 0: all alike (arXiv 1901.05555)
    class_balanced: Rate = 0.0
    # times the log of each class's share, added to its logit in training, usually 1: rare classes are found more often
    logit_adjustment: NotNegative = 0.0  # (arXiv 2007.07314)
    mixup: NotNegative = 0.0  # alpha of the beta distribution; 0: off (arXiv 1710.09412)
    cutmix: NotNegative = 0.0  # the same for CutMix; with mixup, a coin decides for every batch (arXiv 1905.04899)
    drop_block: Rate = 0.0  # DropBlock rate of the last step; rises linearly from 0 (spec.drop_block_rate > 0 needed)
    clip_norm: Positive | None = None  # largest gradient norm; none: no limit
    ema: ProperShare | None = None  # decay per step of the EMA, whose weights are evaluated and saved; none: off
    patience: Count | None = None  # evaluations in a row without improvement before the run ends; none: all epochs
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    sync_norm: bool = False  # batch-norm statistics over all processes
    compile: bool = False  # torch.compile
    kernels: bool = True  # fused operators for split attention, on GPUs that support them; no effect elsewhere
    checkpoint_activations: bool = False  # compute activations again in the backward pass: less memory, a third slower
    seed: Whole = 0
    log_every: Count = 10  # steps between lines of metrics.jsonl
    save_every: Count = 200  # steps between checkpoints; one more at each epoch's end
    eval_batch_size: Count = 64
    tensorboard: bool = False  # event files in the run directory besides metrics.jsonl
    wandb: str | None = None  # Weights & Biases: the project to log to

    def __post_init__(self) -> None:
        check_ranges(self, "train.")
        if self.wandb == "":
            raise ResnestError("train.wandb is empty: name the project, or set it to null")


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """Processes and devices of a run, and their communication."""

    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    devices: Count | None = None  # per machine; none: as many as torchrun started, or one
    num_nodes: Count = 1  # machines
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"  # auto: ddp where there is more than one process
    timeout_seconds: Positive = 30.0  # without a sign of another process, then the run ends

    def __post_init__(self) -> None:
        check_ranges(self, "trainer.")


@dataclass(frozen=True, kw_only=True)
class Expect:
    """Expected accuracy: measured here, with a file in results/, or published. A task adds its figures."""

    tolerance: float = 0.003  # of a repetition on another machine
    published: bool = False  # elsewhere, `note` says by whom; not repeated here
    note: str  # data, hardware, time; and what a baseline without a figure of its own stands beside


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All settings of a training run, except the data. Each task has a recipe of its own."""

    own_sections: ClassVar[tuple[str, ...]] = ()  # that other tasks do not have
    image_section: ClassVar[str] = ""  # of them, the one that says what happens to images; none: `data`

    name: str
    summary: str = ""
    task: str
    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    optim: OptimSettings = field(default_factory=OptimSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    expect: Expect | None = None

    def __post_init__(self) -> None:
        """Raises ResnestError for the first pair of contradictory settings."""
        if not isinstance(self, self.info.recipe):
            raise ResnestError(
                f"a recipe for {self.task} is a {self.info.recipe.__name__}, not a {type(self).__name__}"
            )
        for problem in (*self._unused(), *contradictions(self), *self.contradictions()):
            raise ResnestError(problem)

    @property
    def info(self) -> TaskInfo:
        """The `TaskInfo` of its task."""
        return task_info(self.task)

    @property
    def reading(self) -> str:
        """How the task reads data where it can in several ways, as the setting that says so; "": the usual one."""
        return ""

    @property
    def frozen_backbone_norm(self) -> bool:
        """Whether all norms of the backbone keep their statistics."""
        return False

    @property
    def attention_needs_batch(self) -> bool:
        """Whether the norm inside split attention, which sees one value per image, uses statistics of the batch."""
        spec, _ = self.model.resolve()
        return spec.radix > 0 and spec.attention_norm == "batch" and not self.frozen_backbone_norm

    def listing(self) -> tuple[str, dict[str, str]]:
        """The heading in `resnest recipes`, and its columns: title, field of `expect`."""
        raise NotImplementedError

    def heads(self) -> dict[str, str]:
        """The heads on the network: kind and title, for the report."""
        return {}

    def settle(self, content: dict[str, Any], given: Container[str]) -> None:
        """Change what must follow from changed settings in `content`, the sections; `given` are theirs, dotted."""

    def contradictions(self) -> Iterator[str]:
        """Contradictions in the task's own sections."""
        yield from ()

    def _unused(self) -> Iterator[str]:
        for name, value in unused_settings(self):
            yield (
                f"{name}={value} plays no role with task={self.task}: leave it out. Sizes, crops and turns of its"
                f" images are settings of `{self.image_section}`"
            )


def unused_settings(recipe: Recipe) -> Iterator[tuple[str, object]]:
    """Settings that the task does not use and that are not at their defaults: (section.field, value)."""
    for section, names in recipe.info.unused_settings.items():
        settings = getattr(recipe, section)
        defaults = {field.name: field.default for field in dataclasses.fields(settings)}
        for name in names:
            if getattr(settings, name) != defaults[name]:
                yield f"{section}.{name}", getattr(settings, name)


# --- Contradictory settings: one line that names both and a solution ---


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
    uneven = {name: getattr(train, name) for name in ("class_balanced", "logit_adjustment") if getattr(train, name)}
    if len(uneven) > 1:
        yield (
            f"train.class_balanced={train.class_balanced} with train.logit_adjustment={train.logit_adjustment}: each"
            " makes up for rare classes by itself. Set one of them to 0"
        )
    for name, value in uneven.items():
        if train.loss == "bce":
            yield f"train.{name}={value} with train.loss='bce': it is for cross-entropy. Set train.loss=cross_entropy"
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

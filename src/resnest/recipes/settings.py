"""The common sections of a recipe. Every field is a setting, section.field.

ModelSettings(name="resnest50"), OptimSettings(lr=0.1), TrainSettings(epochs=10), TrainerSettings(devices=8)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

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

PARTS = 6  # of a network: stem, layer1 to layer4, classifier
FREEZABLE = ": a network is a stem, four stages and a classifier, and the classifier always learns"
PUBLISHED_WEIGHTS = "published"  # model.pretrained: the published weights of model.name


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The network to train and its initial weights."""

    name: str = "resnest50"  # see `resnest models`
    spec: dict[str, Any] = field(default_factory=dict)  # fields of Spec that differ from the named network
    pretrained: str | None = None  # "published", or a name, file, run or hub id; another head is replaced
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
        if any(not 0 < share < 1 for share in self.decay_at) or list(self.decay_at) != sorted(set(self.decay_at)):
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

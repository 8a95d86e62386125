"""The common sections of a recipe. Every field is a setting, section.field.

ModelSettings(name="resnest50"), OptimSettings(lr=0.1), TrainSettings(epochs=10), TrainerSettings(devices=8)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from resnest.errors import ResnestError
from resnest.spec import Spec, find_spec, override_spec

PARTS = 6  # of a network: stem, layer1 to layer4, classifier
PUBLISHED_WEIGHTS = "published"  # model.pretrained: the published weights of model.name


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The network to train and its initial weights."""

    name: str = "resnest50"  # see `resnest models`
    spec: dict[str, Any] = field(default_factory=dict)  # fields of Spec that differ from the named network
    pretrained: str | None = None  # "published", or a name, file, run or hub id; another head is replaced
    zero_gamma: bool = True  # start residual branches at zero (paper, section 4.1)
    init: Literal["torch", "gluon"] = "torch"  # He normal by fan-out, as the official code; by fan-in, biases 0
    freeze: int = 0  # parts that stay as they are: 1 the stem, 2 layer1 too, ... 5 all but the classifier

    def __post_init__(self) -> None:
        if not 0 <= self.freeze <= PARTS - 1:
            raise ResnestError(
                f"model.freeze={self.freeze} must lie in 0 to {PARTS - 1}: a network is a stem, four stages and a"
                f" classifier, and the classifier is always trained"
            )

    def resolve(self) -> tuple[Spec, str]:
        """The structure, and the network's official name ("resnest" if fields differ from the named network)."""
        spec, name = find_spec(self.name)
        changed = override_spec(spec, self.spec)
        return changed, name if changed == spec else "resnest"


@dataclass(frozen=True, kw_only=True)
class OptimSettings:
    """Optimiser and learning rate: linear warm-up, then cosine, polynomial or step decay; updated every step."""

    name: Literal["sgd", "adamw", "muon"] = "sgd"  # muon: convolutions by Muon, the rest by AdamW
    lr: float = 0.1  # at the top of the schedule, for the recipe's own batch size or `lr_batch`
    lr_batch: int | None = None  # lr is for this many images a step, and scaled to those there are (arXiv 1706.02677)
    momentum: float = 0.9  # sgd and muon: Nesterov; adamw: beta1
    nesterov: bool = True  # sgd; false: plain momentum, as detectron2's
    weight_decay: float = 1e-4  # convolution and linear weights only
    schedule: Literal["cosine", "steps", "poly"] = "cosine"  # after the warm-up
    power: float = 0.9  # poly: of the share of the run that is left (arXiv 1706.05587, section 4)
    decay_at: tuple[float, ...] = ()  # steps: shares of the run at which lr is divided by 10, such as 2/3 and 8/9
    warmup_epochs: float = 5.0
    warmup_steps: int | None = None  # the length of the warm-up in steps, in place of epochs
    warmup_factor: float | None = None  # share of the top that the warm-up begins with; none: an even part of it
    layer_decay: float = 1.0  # from the classifier towards the stem, each part's lr is this times the next one's
    head_factor: float = 1.0  # the classifier's lr, times this: an untrained one may go faster than what is before it

    def __post_init__(self) -> None:
        object.__setattr__(self, "decay_at", tuple(self.decay_at))
        for name in ("lr", "weight_decay", "power", "warmup_epochs", "warmup_steps"):
            if getattr(self, name) is not None and not getattr(self, name) >= 0:
                raise ResnestError(f"optim.{name}={getattr(self, name)} must be 0 or more")
        if self.warmup_factor is not None and not 0 < self.warmup_factor <= 1:
            raise ResnestError(f"optim.warmup_factor={self.warmup_factor} must lie in (0, 1], or be null")
        if any(not 0 < share < 1 for share in self.decay_at) or list(self.decay_at) != sorted(set(self.decay_at)):
            raise ResnestError(
                f"optim.decay_at={list(self.decay_at)} must be fractions of the run between 0 and 1, the smallest"
                " first, such as [0.6667, 0.8889]"
            )
        if not 0 <= self.momentum < 1:
            raise ResnestError(f"optim.momentum={self.momentum} must lie in [0, 1)")
        if self.lr_batch is not None and self.lr_batch < 1:
            raise ResnestError(
                f"optim.lr_batch={self.lr_batch} must be 1 or more, or null for an lr that is not scaled"
            )
        if not 0 < self.layer_decay <= 1:
            raise ResnestError(f"optim.layer_decay={self.layer_decay} must lie in (0, 1]; 1: one lr for all parts")
        if not self.head_factor > 0:
            raise ResnestError(f"optim.head_factor={self.head_factor} must be more than 0")

    def lr_for(self, batch: int) -> float:
        """The learning rate for a global batch size."""
        return self.lr * batch / self.lr_batch if self.lr_batch else self.lr


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Settings of the training loop."""

    epochs: int = 10
    max_steps: int | None = None  # end there, wherever the epoch stands; the schedule is that of all epochs
    batch_size: int = 64  # per device
    accumulate: int = 1  # batches per step: gradients add up to those of one batch that would not fit
    label_smoothing: float = 0.1
    loss: Literal["cross_entropy", "bce"] = "cross_entropy"  # bce: a yes or no for every class (arXiv 2110.00476)
    bce_threshold: float = 0.2  # bce: a class with no more of a mixed image than this is a no
    mixup: float = 0.0  # alpha of the beta distribution; 0: off (arXiv 1710.09412)
    cutmix: float = 0.0  # the same for CutMix; with mixup, a coin decides for every batch (arXiv 1905.04899)
    drop_block: float = 0.0  # DropBlock rate of the last step; rises linearly from 0 (spec.drop_block_rate > 0 needed)
    clip_norm: float | None = None  # largest gradient norm
    ema: float | None = None  # decay per step of the EMA, whose weights are evaluated and saved; none: off
    patience: int | None = None  # evaluations in a row without improvement before the run ends; none: all epochs
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    sync_norm: bool = False  # batch-norm statistics over all processes
    compile: bool = False  # torch.compile
    kernels: bool = True  # fused operators for split attention, on GPUs that support them; no effect elsewhere
    checkpoint_activations: bool = False  # compute activations again in the backward pass: less memory, a third slower
    seed: int = 0
    log_every: int = 10  # steps between lines of metrics.jsonl
    save_every: int = 200  # steps between checkpoints; one more at each epoch's end
    eval_batch_size: int = 64
    tensorboard: bool = False  # event files in the run directory besides metrics.jsonl
    wandb: str | None = None  # Weights & Biases: the project to log to

    def __post_init__(self) -> None:
        for name in ("epochs", "max_steps", "batch_size", "accumulate", "patience", "log_every", "save_every",
                     "eval_batch_size"):  # fmt: skip
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ResnestError(f"train.{name}={getattr(self, name)} must be 1 or more")
        for name in ("mixup", "cutmix"):
            if not getattr(self, name) >= 0:
                raise ResnestError(f"train.{name}={getattr(self, name)} must be 0 (off) or more")
        if self.seed < 0:
            raise ResnestError(f"train.seed={self.seed} must be 0 or more")
        for name in ("label_smoothing", "drop_block", "bce_threshold"):
            if not 0 <= getattr(self, name) < 1:
                raise ResnestError(f"train.{name}={getattr(self, name)} must lie in [0, 1)")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ResnestError(f"train.ema={self.ema} must lie between 0 and 1, or be null for no average")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ResnestError(f"train.clip_norm={self.clip_norm} must be more than 0, or null for no limit")
        if self.wandb == "":
            raise ResnestError("train.wandb is empty: name the project, or set it to null")


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """Processes and devices of a run, and their communication."""

    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int | None = None  # per machine; none: as many as torchrun started, or one
    num_nodes: int = 1  # machines
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"  # auto: ddp where there is more than one process
    timeout_seconds: float = 30.0  # without a sign of another process, then the run ends

    def __post_init__(self) -> None:
        for name in ("devices", "num_nodes"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ResnestError(f"trainer.{name}={getattr(self, name)} must be 1 or more")
        if not self.timeout_seconds > 0:
            raise ResnestError(f"trainer.timeout_seconds={self.timeout_seconds} must be more than 0")

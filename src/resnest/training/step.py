"""One optimisation step: learning rate, forward and backward over its micro-batches, the guard, the update.

    stepper = Stepper(fabric, world, state, task, schedule)
    done = stepper(step, batches, asked_to_stop=False)
    done.loss, done.gradient_norm, done.skipped

A step with a non-finite loss or gradient changes nothing at all (promise P6). All processes decide alike, by an
all-reduce of the criterion.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from resnest.data.loading import Batch
from resnest.data.order import seeded
from resnest.network.regularize import decay_groups, set_drop_block
from resnest.network.tools import parameter_stages
from resnest.recipes.schema import OptimSettings
from resnest.tasks import Task
from resnest.training.distributed import ProcessGroup
from resnest.training.muon import Muon
from resnest.training.state import State

# --- Optimisers and learning rate schedule of a recipe ---

DECAY = 0.1  # a step's factor (detectron2's SOLVER.GAMMA)


def build_optimizers(net: nn.Module, settings: OptimSettings) -> list[torch.optim.Optimizer]:
    """Norms and biases have no weight decay (paper, section 4.1). Muon takes convolutions, AdamW the rest."""
    groups = parameter_groups(net, settings)
    if settings.name == "sgd":
        nesterov = settings.nesterov and settings.momentum > 0
        return [torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=nesterov)]
    if settings.name == "adamw":
        return [torch.optim.AdamW(groups, lr=settings.lr, betas=(settings.momentum, 0.99))]
    matrices = _only(groups, lambda parameter: parameter.ndim == 4)
    others = _only(groups, lambda parameter: parameter.ndim != 4)
    adamw = torch.optim.AdamW(others, lr=settings.lr, betas=(0.9, 0.99))
    # all convolutions may be frozen
    return [Muon(matrices, lr=settings.lr, momentum=settings.momentum), adamw] if matrices else [adamw]


def parameter_groups(net: nn.Module, settings: OptimSettings) -> list[dict[str, Any]]:
    """Groups by decay and, with layer-wise learning rates, by stage: each has its `lr_factor`, also in checkpoints.

    Layer-wise decay (arXiv 1801.06146, section 3.2): stages further from the classifier have lower learning rates.
    """
    if settings.layer_decay == settings.head_factor == 1:
        return decay_groups(net, settings.weight_decay)
    groups: list[dict[str, Any]] = []
    *body, head = parameter_stages(net)
    for distance, part in enumerate((head, *reversed(body))):
        factor = settings.layer_decay**distance if distance else settings.head_factor
        groups += [{**group, "lr_factor": factor} for group in decay_groups(part, settings.weight_decay)]
    return _only(groups, lambda parameter: True)


def lr_at(step: int, settings: OptimSettings, *, total: int, per_epoch: int, batch: int = 0) -> float:
    """Linear warm-up, then cosine (facts, section 2.1), polynomial or step decay; all by step.

    Both follow `total`, of which the warm-up is at most half. `batch` is the number of images in a step, which matters
    to a recipe with `lr_batch`.
    """
    top = settings.lr_for(batch)
    warmup = settings.warmup_epochs * per_epoch if settings.warmup_steps is None else float(settings.warmup_steps)
    warmup = min(warmup, total / 2)
    factor = settings.warmup_factor
    if step < warmup:
        return top * (step + 1) / (warmup + 1) if factor is None else top * (factor + (1 - factor) * step / warmup)
    if settings.schedule == "steps":
        return top * DECAY ** sum(step >= fraction * total for fraction in settings.decay_at)
    if settings.schedule == "poly":
        return top * math.pow(max(0.0, (total - step) / max(total - warmup, 1)), settings.power)
    return top * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))


def set_lr(optimizers: Sequence[torch.optim.Optimizer], lr: float) -> None:
    """Set every group to the step's learning rate, times its own factor if it has one."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr * group.get("lr_factor", 1.0)


def _only(groups: list[dict[str, Any]], wanted: Any) -> list[dict[str, Any]]:
    """The groups, with only some of their parameters, without empty ones."""
    chosen = [{**group, "params": [p for p in group["params"] if wanted(p)]} for group in groups]
    return [group for group in chosen if group["params"]]


# --- Startup messages of a run: the learning rate for its global batch size, how the batch is composed, and warnings.

FEW_SAMPLES = 8  # in a statistic, for a batch-norm that sees one value per sample


def startup_messages(task: Task, schedule: Schedule, *, processes: int, images: int) -> Iterator[str]:
    """Messages for `images` to train on, distributed over so many processes."""
    optim, train, batch = task.recipe.optim, task.recipe.train, schedule.batch
    together = batch if train.sync_norm else batch // processes
    seen = together // train.accumulate  # values in a statistic of the attention's norm
    if seen < FEW_SAMPLES and task.recipe.attention_needs_batch:
        yield (
            f"warning: the norm inside the split attention sees {seen} values per step;"
            f" with fewer than {FEW_SAMPLES}, model.spec.attention_norm=frozen or layer trains more steadily"
        )
    if optim.lr_batch:
        yield f"learning rate {optim.lr_for(batch):g}: {optim.lr:g} for {optim.lr_batch} images a step, here {batch}"
    if processes > 1 or train.accumulate > 1:
        parts = [f"{processes} processes"] * (processes > 1)
        parts += [f"{train.accumulate} micro-batches"] * (train.accumulate > 1)
        yield f"a step: {batch} images in {' of '.join(parts)}"
    if train.batch_size > images:
        yield f"warning: a batch of {train.batch_size} is more than the {images} training images: all are in it"


INIT, STEP, MIX = 0, 1, 2  # first word of a seed: what it is for


@dataclass(frozen=True)
class Schedule:
    """The length of a run, in steps and epochs."""

    per_epoch: int  # steps
    total: int  # steps of all epochs, what learning rate and DropBlock follow
    end: int  # the step to end at
    batch: int  # images of a step, on all processes


@dataclass(frozen=True)
class Step:
    """The outcome of one step; the same on every process."""

    lr: float
    loss: float  # mean over the images of all processes
    gradient_norm: float  # before clipping
    images: int
    skipped: bool  # not finite: nothing has changed
    stop: bool  # some process was asked to stop


class Stepper:
    """Trains `net` step by step."""

    def __init__(self, fabric: Fabric, world: ProcessGroup, state: State, task: Task, schedule: Schedule) -> None:
        self.fabric, self.world, self.state, self.task, self.schedule = fabric, world, state, task, schedule
        self.net = state.net
        self.settings = task.recipe.train
        self.statistics = list(self.net.buffers())  # of the batch-norms, which a forward pass changes
        self.saved = [buffer.clone() for buffer in self.statistics]

    def __call__(self, step: int, batches: Sequence[Batch], *, asked_to_stop: bool) -> Step:
        """`batches` are this process's micro-batches of step number `step`, from 0 on."""
        lr = self._prepare(step)
        usable = self._without_bad_batches(batches)
        torch._foreach_copy_(self.saved, self.statistics)
        losses = []
        for number, batch in enumerate(usable):
            waits = self.world.size > 1 and number < len(usable) - 1  # gradients are exchanged once a step
            with self.fabric.no_backward_sync(self.net, enabled=waits):
                losses.append(self._backward(step, number, batch, weight=1 / len(usable)))
        loss, norm = self._loss_and_norm(losses) if usable else (0.0, math.nan)
        images = sum(len(batch.labels) for batch in usable)
        loss, stop, images_of_all = self.world.all_reduce_sum(loss, float(asked_to_stop), float(images))
        loss = loss / self.world.size if usable else math.nan
        # with float16 the scaler looks for itself, and skips steps in the ordinary course of things
        finite = math.isfinite(loss) and (math.isfinite(norm) or self.settings.precision == "16-mixed")
        if finite:
            self._update(step, norm)
        else:
            torch._foreach_copy_(self.statistics, self.saved)
        self.net.zero_grad()
        return Step(lr, loss, norm, int(images_of_all), skipped=not finite and bool(usable), stop=stop > 0)

    def _prepare(self, step: int) -> float:
        schedule = self.schedule
        lr = lr_at(
            step, self.task.recipe.optim, total=schedule.total, per_epoch=schedule.per_epoch, batch=schedule.batch
        )
        set_lr(self.state.optimizers, lr)
        if self.task.spec.drop_block_rate:
            set_drop_block(self.net, self.settings.drop_block * step / schedule.total)
        return lr

    def _without_bad_batches(self, batches: Sequence[Batch]) -> list[Batch]:
        """Without micro-batches of which nearly all files were unusable, on any process; `bad_images.jsonl` has them.

        All processes leave out the same ones: each waits for the others' gradients, and perhaps for their statistics.
        """
        # synchronised norms see the images of all processes, so that one on each is two or more values
        least = 1 if self.world.size > 1 and self.settings.sync_norm else self.task.min_batch_size
        short = self.world.all_reduce_sum(*(float(len(batch.labels) < least) for batch in batches))
        return [batch for batch, processes in zip(batches, short, strict=True) if not processes]

    def _backward(self, step: int, number: int, batch: Batch, *, weight: float) -> Tensor:
        """Forward and backward of one micro-batch; its part of the step's loss."""
        with seeded(self.settings.seed, STEP, step, self._index_in_step(number)) as seed:
            if self.fabric.device.type == "cuda":
                torch.cuda.manual_seed(seed)
            images, labels = self.fabric.to_device((batch.images, batch.labels))
            mix = (self.settings.seed, MIX, step, self._index_in_step(number))
            loss = self.task.loss(self.net, images, labels, seed=mix) * weight
            self.fabric.backward(loss)
        return loss.detach()

    def _index_in_step(self, number: int) -> int:
        """Index of a micro-batch among all of the step's, over all processes."""
        return number * self.world.size + self.world.rank

    def _loss_and_norm(self, losses: Sequence[Tensor]) -> tuple[float, float]:
        """The summed losses and the gradient norm, read together: one synchronisation with the GPU."""
        norm = torch.nn.utils.get_total_norm(self._gradients())
        if isinstance(norm, DTensor):  # FSDP
            norm = norm.full_tensor()
        *parts, total = torch.stack([*losses, norm]).tolist()
        return sum(parts), total / (self.state.scaler.get_scale() if self.state.scaler else 1.0)

    def _gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self.net.parameters() if parameter.grad is not None]

    def _update(self, step: int, norm: float) -> None:
        limit, scaler = self.settings.clip_norm, self.state.scaler
        if limit is not None and limit < norm < math.inf:  # with float16 it may be more: the scaler's business
            torch._foreach_mul_(self._gradients(), limit / norm)
        for optimizer in self.state.optimizers:
            if scaler is None:
                optimizer.step()
            else:  # Fabric's own step would change the scale before the second optimiser has taken its gradients
                scaler.step(optimizer.optimizer)  # type: ignore[attr-defined]
        if scaler is not None:
            scaler.update()
        if self.state.ema is not None:
            self.state.ema.update(self.state.module, step)

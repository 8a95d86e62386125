"""One optimisation step: learning rate, forward and backward over its micro-batches, the guard, the update.

    stepper = Stepper(fabric, world, state, task, schedule)
    done = stepper(step, batches, asked_to_stop=False)
    done.loss, done.gradient_norm, done.skipped

A step with a non-finite loss or gradient changes nothing at all (promise P6). All processes decide alike, by an
all-reduce of the criterion.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.distributed.tensor import DTensor

from resnest.data.loading import Batch
from resnest.data.order import seeded
from resnest.network.regularize import set_drop_block
from resnest.tasks import Task
from resnest.training.distributed import ProcessGroup
from resnest.training.optim import lr_at, set_lr
from resnest.training.state import State

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
        self.kept = [buffer.clone() for buffer in self.statistics]

    def __call__(self, step: int, batches: Sequence[Batch], *, asked_to_stop: bool) -> Step:
        """`batches` are this process's micro-batches of step number `step`, from 0 on."""
        lr = self._prepare(step)
        usable = self._usable(batches)
        torch._foreach_copy_(self.kept, self.statistics)
        losses = []
        for number, batch in enumerate(usable):
            waits = self.world.size > 1 and number < len(usable) - 1  # gradients are exchanged once a step
            with self.fabric.no_backward_sync(self.net, enabled=waits):
                losses.append(self._backward(step, number, batch, share=1 / len(usable)))
        loss, norm = self._loss_and_norm(losses) if usable else (0.0, math.nan)
        images = sum(len(batch.labels) for batch in usable)
        loss, stop, images_of_all = self.world.total(loss, float(asked_to_stop), float(images))
        loss = loss / self.world.size if usable else math.nan
        # with float16 the scaler looks for itself, and skips steps in the ordinary course of things
        finite = math.isfinite(loss) and (math.isfinite(norm) or self.settings.precision == "16-mixed")
        if finite:
            self._update(step, norm)
        else:
            torch._foreach_copy_(self.statistics, self.kept)
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

    def _usable(self, batches: Sequence[Batch]) -> list[Batch]:
        """Without micro-batches of which nearly all files were unusable, on any process; `bad_images.jsonl` has them.

        All processes leave out the same ones: each waits for the others' gradients, and perhaps for their statistics.
        """
        # synchronised norms see the images of all processes, so that one on each is two or more values
        least = 1 if self.world.size > 1 and self.settings.sync_norm else self.task.min_batch_size
        short = self.world.total(*(float(len(batch.labels) < least) for batch in batches))
        return [batch for batch, processes in zip(batches, short, strict=True) if not processes]

    def _backward(self, step: int, number: int, batch: Batch, *, share: float) -> Tensor:
        """Forward and backward of one micro-batch; its part of the step's loss."""
        with seeded(self.settings.seed, STEP, step, self._place(number)) as seed:
            if self.fabric.device.type == "cuda":
                torch.cuda.manual_seed(seed)
            images, labels = self.fabric.to_device((batch.images, batch.labels))
            mix = (self.settings.seed, MIX, step, self._place(number))
            loss = self.task.loss(self.net, images, labels, seed=mix) * share
            self.fabric.backward(loss)
        return loss.detach()

    def _place(self, number: int) -> int:
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

"""The training loop: one step, one epoch, evaluation, checkpoints. Read it from `Loop.run_to_end` down.

Everything random in step s is f(seed, s), so a resumed run repeats what an uninterrupted one would have done.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from resnest.checkpoints.loading import load_file
from resnest.data.loading import Batch, seeded, training_batches
from resnest.data.sources import Splits
from resnest.errors import NumericalStop, Preempted, ResnestError
from resnest.inference.evaluation import Evaluation, check_bad_share, evaluate_network
from resnest.network.regularize import set_drop_block
from resnest.tasks import ClassificationTask
from resnest.training.optim import build_optimizers, lr_at, set_lr
from resnest.training.progress import Plain, Progress, clock, progress
from resnest.training.run import RunDirectory
from resnest.training.stopping import StopRequests

NON_FINITE_IN_A_ROW = 5  # then the run stops (promise P6)
FEW_SAMPLES = 8  # per device, for a batch-norm that sees one value per sample
INIT, STEP, MIX = 0, 1, 2  # first word of a seed: what it is for


class Loop:
    """Trains one task on one data set into one run directory."""

    def __init__(
        self, task: ClassificationTask, splits: Splits, run: RunDirectory, device: torch.device, *, quiet: bool
    ) -> None:
        self.task, self.splits, self.run, self.quiet = task, splits, run, quiet
        self.settings = task.recipe.train
        self.fabric = Fabric(accelerator=device.type, devices=1, precision=self.settings.precision)
        with seeded(self.settings.seed, INIT):
            net = task.build()
        self.loaded = task.load_pretrained(net)
        net = net.to(memory_format=torch.channels_last)
        self.net, *self.optimizers = self.fabric.setup(net, *build_optimizers(net, task.recipe.optim))
        self.per_epoch = max(len(splits.train) // self.settings.batch_size, 1)
        self.total = self.per_epoch * self.settings.epochs
        self.end = min(self.total, self.settings.max_steps or self.total)
        if len(splits.train) < 2:
            raise ResnestError(f"{splits.where} has {len(splits.train)} training image: two or more are needed")
        self.step = 0
        self.best = -math.inf
        self.best_figures: dict[str, float] = {}
        self.best_evaluation: Evaluation | None = None
        self.gradient_norm = math.nan  # of the last step, before clipping
        self.seconds = 0.0  # of training, before and after every resumption
        self.non_finite = 0  # steps in a row
        self.skipped = 0  # steps in all
        self.statistics = list(self.net.buffers())  # of the batch-norms, which a forward pass changes
        self.kept = [buffer.clone() for buffer in self.statistics]
        self.bad_keys: set[tuple[str, str]] = set()

    # --- the whole run ---

    def run_to_end(self) -> Evaluation:
        """Train what is left; the evaluation of the best weights."""
        began = time.monotonic() - self.seconds
        with StopRequests() as stop, progress(self.end, start=self.step, quiet=self.quiet) as show:
            self._say_at_start(show)
            while self.step < self.end:
                self._train_epoch(show, stop, began)
                self._evaluate_epoch(show, began)
                self._save()
                self._leave_if_asked(stop)
        return self._evaluate_best()

    def _train_epoch(self, show: Progress, stop: StopRequests, began: float) -> None:
        """The rest of the current epoch."""
        epoch, skip = divmod(self.step, self.per_epoch)
        batches = training_batches(
            self.splits.train,
            self.task.recipe.data,
            batch_size=self.settings.batch_size,
            seed=self.settings.seed,
            epoch=epoch,
            epochs=self.settings.epochs,
            skip=skip,
        )
        losses: list[float] = []
        images, since = 0, time.monotonic()
        for batch in batches:
            self._note_bad(batch, "train", len(self.splits.train))
            lr, loss = self._train_step(batch)
            losses.append(loss)
            images += len(batch.labels)
            self.step += 1
            self.seconds = time.monotonic() - began
            speed = images / (time.monotonic() - since)
            show.step(step=self.step, epoch=self.step / self.per_epoch, loss=loss, speed=speed)
            if self.step % self.settings.log_every == 0:
                told = {"gradient_norm": self.gradient_norm, "skipped": self.skipped}
                self._log("train", loss=_mean(losses), lr=lr, images_per_second=round(speed, 1), **told)
                losses, images, since = [], 0, time.monotonic()
            # then it is evaluated first and saved afterwards
            ends_epoch = self.step % self.per_epoch == 0 or self.step == self.end
            if not ends_epoch and (self.step % self.settings.save_every == 0 or stop.requested):
                self._save()
                self._leave_if_asked(stop)
            if self.step == self.end:
                return

    # --- one step ---

    def _train_step(self, batch: Batch) -> tuple[float, float]:
        """Learning rate and loss of one step; one that is not finite is counted and changes nothing (promise P6)."""
        settings = self.settings
        lr = lr_at(
            self.step, self.task.recipe.optim, total=self.total, per_epoch=self.per_epoch, batch=settings.batch_size
        )
        set_lr(self.optimizers, lr)
        if self.task.spec.drop_block_rate:
            set_drop_block(self.net, settings.drop_block * self.step / self.total)
        if len(batch.labels) < 2:
            return lr, math.nan  # nearly all of this batch was unusable; `bad_images.jsonl` has it
        torch._foreach_copy_(self.kept, self.statistics)
        seed = (settings.seed, STEP, self.step)
        with seeded(*seed):
            if self.fabric.device.type == "cuda":
                torch.cuda.manual_seed(hash(seed) & 0xFFFFFFFF)
            images, labels = self.fabric.to_device((batch.images, batch.labels))
            mix = self.task.draw_mix((settings.seed, MIX, self.step))
            loss = self.task.loss(self.net, images, labels, mix=mix)
        value = float(loss.detach())
        self.gradient_norm = math.nan
        if math.isfinite(value):
            self.fabric.backward(loss)
            self.gradient_norm = float(torch.nn.utils.get_total_norm(self._gradients()))
        # with float16 the scaler looks for itself, and skips steps in the ordinary course of things
        usable = math.isfinite(self.gradient_norm) or (settings.precision == "16-mixed" and math.isfinite(value))
        if usable:
            self.non_finite = 0
            for optimizer in self.optimizers:
                if settings.clip_norm is not None:
                    self.fabric.clip_gradients(self.net, optimizer, max_norm=settings.clip_norm)
                optimizer.step()
        else:
            self._skip(batch, value)
        self.net.zero_grad()
        return lr, value

    def _gradients(self) -> list[torch.Tensor]:
        return [parameter.grad for parameter in self.net.parameters() if parameter.grad is not None]

    def _skip(self, batch: Batch, loss: float) -> None:
        """Undo what the forward pass did to the statistics, note the batch, and stop after some in a row."""
        torch._foreach_copy_(self.statistics, self.kept)
        self.non_finite += 1
        self.skipped += 1
        keys = [self.splits.train.keys[int(index)] for index in batch.indices]
        told = {"step": self.step + 1, "loss": str(loss), "gradient_norm": str(self.gradient_norm), "images": keys}
        self.run.append(self.run.non_finite, told)
        if self.non_finite >= NON_FINITE_IN_A_ROW:
            raise NumericalStop(
                f"the loss or its gradient was not finite {NON_FINITE_IN_A_ROW} steps in a row, the last one step"
                f" {self.step + 1} ({self.run.non_finite} lists their images):"
                " lower optim.lr, lengthen optim.warmup_epochs, or set train.clip_norm=1"
            )

    # --- evaluation ---

    def _evaluate_epoch(self, show: Progress, began: float) -> None:
        result = self._evaluate()
        self.seconds = time.monotonic() - began
        self._log("eval", **result.figures)
        for key, reason in result.bad:
            self._record_bad(key, reason, "val")
        monitored = result.figures[self.task.monitor]
        mark = ""
        if monitored > self.best:
            self.best, self.best_figures, self.best_evaluation = monitored, result.figures, result
            self.run.save_weights(self.net.module.state_dict(), self.task.card(result.figures))
            mark = "  best so far"
        epoch = f"{self.step / self.per_epoch:.3g}/{self.settings.epochs}"
        figures = f"{self.task.monitor_title} {monitored:.2%}  loss {result.figures['loss']:.3f}"
        show.say(f"epoch {epoch}  {figures}  {clock(self.seconds)}{mark}")

    def _evaluate(self) -> Evaluation:
        return evaluate_network(
            self.net.module,
            self.splits.val,
            self.task.recipe.data.preprocess,
            device=self.fabric.device,
            batch_size=self.settings.eval_batch_size,
            workers=self.task.recipe.data.workers,
        )

    def _evaluate_best(self) -> Evaluation:
        """Of the best weights; evaluated once more only if they are from before a resumption."""
        if self.best_evaluation is None:
            load_file(self.net.module, self.run.path)
            self.best_evaluation = self._evaluate()
        return self.best_evaluation

    # --- keeping and restoring ---

    def _save(self) -> None:
        self.run.save_checkpoint(
            {
                "recipe": _plain(asdict(self.task.recipe)),
                "class_names": list(self.task.class_names),
                "multi_label": self.splits.train.multi_label,
                "step": self.step,
                "model": self.net.module.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                "best": self.best,
                "best_figures": self.best_figures,
                "seconds": self.seconds,
                "skipped": self.skipped,
            }
        )

    def restore(self) -> None:
        """Go back to the newest good checkpoint."""
        self.run.sweep()
        content, warnings = self.run.load_checkpoint()
        for warning in warnings:
            self.say(f"warning: {warning}")
        self.net.module.load_state_dict(content["model"])
        for optimizer, state in zip(self.optimizers, content["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.step, self.best, self.seconds = content["step"], content["best"], content["seconds"]
        self.best_figures, self.skipped = content["best_figures"], content.get("skipped", 0)
        self.run.forget_after(self.step)
        self.bad_keys = {(line["split"], line["image"]) for line in self.run.read_lines(self.run.bad_images)}
        self.say(f"resumed at step {self.step} of {self.end}")

    def _leave_if_asked(self, stop: StopRequests) -> None:
        if stop.requested and self.step < self.end:
            raise Preempted(
                f"stopped at step {self.step} of {self.end}, everything is saved;"
                f" go on with: resnest train --resume {self.run.path}"
            )

    # --- telling ---

    def _say_at_start(self, show: Progress) -> None:
        spec = self.task.spec
        if self.settings.batch_size < FEW_SAMPLES and spec.radix and spec.attention_norm == "batch":
            show.say(
                f"warning: the norm inside the split attention sees {self.settings.batch_size} values per step;"
                f" with fewer than {FEW_SAMPLES}, model.spec.attention_norm=frozen or layer trains more steadily"
            )
        optim, batch = self.task.recipe.optim, self.settings.batch_size
        if optim.lr_batch:
            show.say(
                f"learning rate {optim.lr_for(batch):g}: {optim.lr:g} for {optim.lr_batch} images a step, here {batch}"
            )
        if batch > len(self.splits.train):
            show.say(
                f"warning: a batch of {batch} is more than the {len(self.splits.train)} training images: all are in it"
            )
        if self.loaded is not None and self.step == 0:
            show.say(f"start: {self.task.recipe.model.pretrained}, {self.loaded}")

    def say(self, text: str) -> None:
        if not self.quiet:
            Plain(self.end, self.step).say(text)

    def _log(self, kind: str, **values: float) -> None:
        place = {"kind": kind, "step": self.step, "epoch": round(self.step / self.per_epoch, 4)}
        told = {key: value if math.isfinite(value) else None for key, value in values.items()}  # JSON has no NaN
        self.run.append(self.run.metrics, {**place, **told, "seconds": round(self.seconds, 2)})

    def _note_bad(self, batch: Batch, split: str, total: int) -> None:
        for _, key, reason in batch.bad:
            self._record_bad(key, reason, split)
            check_bad_share(sum(part == split for part, _ in self.bad_keys), total, (key, reason))

    def _record_bad(self, key: str, reason: str, split: str) -> None:
        if (split, key) not in self.bad_keys:
            self.bad_keys.add((split, key))
            self.run.append(self.run.bad_images, {"image": key, "split": split, "reason": reason})


def _mean(values: list[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return float(np.mean(finite)) if finite else math.nan


def _plain(value: Any) -> Any:
    """Tuples as lists: what `torch.load(weights_only=True)` and pydantic both take."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value

"""The training loop: epochs, evaluation, checkpoints. Read it from `Loop.run_to_end` down; one step is in step.py.

All randomness of step s is a function of (seed, s), so a resumed run equals an uninterrupted one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import islice
from typing import Any

import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file
from torch import nn

from resnest.data.loading import Batch, EvaluationDataset, loading, training_batches
from resnest.data.order import epoch_steps, seeded
from resnest.data.samples import describe_notes
from resnest.data.sources import Splits
from resnest.errors import NoValidCheckpoint, NumericalStop, Preempted, ResnestError, call, parameter
from resnest.figures import percent
from resnest.files import WEIGHTS_NAME
from resnest.inference.evaluation import Evaluation, evaluate_network
from resnest.kernels.backend import chosen
from resnest.kernels.fuse import fuse
from resnest.network.recompute import recompute_activations
from resnest.network.tools import synchronise_norms
from resnest.progress import Progress, clock, say
from resnest.recipes.reading import build, check_resumable, plain_values
from resnest.runtime.hardware import malloc_trim
from resnest.tasks import Task
from resnest.training.distributed import ProcessGroup
from resnest.training.run import RunDirectory
from resnest.training.run_logger import BadImages, Meter, RunLogger
from resnest.training.state import EMA, State
from resnest.training.step import INIT, Schedule, Step, Stepper, build_optimizers, startup_messages
from resnest.training.stopping import StopRequests

NEEDED = ("recipe", "model", "optimizers", "average", "best", "best_figures", "seconds")  # in a checkpoint
OnEvaluation = Callable[[int, dict[str, float]], bool | None]  # step, figures -> True ends the run

GIVE_BACK_EVERY = 10  # steps; takes milliseconds
NON_FINITE_IN_A_ROW = 5  # then the run stops (promise P6)


class Loop:
    """Trains one task on one data set into one run directory, as one process of possibly many."""

    def __init__(
        self,
        task: Task,
        splits: Splits,
        run: RunDirectory,
        fabric: Fabric,
        *,
        quiet: bool,
        on_evaluation: OnEvaluation | None = None,
    ) -> None:
        self.task, self.splits, self.run, self.fabric = task, splits, run, fabric
        self.settings = task.recipe.train
        self.world = ProcessGroup(fabric)
        self.quiet = quiet or not self.world.is_rank_zero
        self.on_evaluation, self.stopped = on_evaluation, False
        self.schedule = self._plan()
        with seeded(self.settings.seed, INIT):
            net = task.build()
        self.loaded = task.load_pretrained(net)
        self.state = State(fabric, *self._prepare(net), EMA(net, self.settings.ema) if self.settings.ema else None)
        self.stepper = Stepper(fabric, self.world, self.state, task, self.schedule)
        self.step = 0
        self.best = -math.inf
        self.best_figures: dict[str, float] = {}
        self.best_evaluation: Evaluation | None = None
        self.since_best = 0  # evaluations
        self.seconds = 0.0  # of training, before and after every resumption
        self.non_finite = 0  # steps in a row
        self.skipped = 0  # steps in all
        self.bad_images = BadImages(run, self.world, {"train": len(splits.train), "val": len(splits.val)})
        self.logger: RunLogger | None = None

    def _plan(self) -> Schedule:
        """The schedule. Raises ResnestError if there are too few images for these processes."""
        settings, count = self.settings, len(self.splits.train)
        if count < 2:
            notes = describe_notes(self.splits.train)  # perhaps others were left out
            raise ResnestError(f"{self.splits.where} has {count} training image{notes}: two or more are needed")
        parts = settings.accumulate * self.world.size
        per_epoch, batch = epoch_steps(
            count, batch_size=settings.batch_size, accumulate=settings.accumulate, world_size=self.world.size
        )
        if batch < self.task.min_batch_size:
            raise ResnestError(
                f"a batch of {batch} image: a batch-norm at the end of the network would see one value per channel."
                " Use train.batch_size=2 or more, or larger images"
            )
        total = per_epoch * settings.epochs
        return Schedule(per_epoch, total, min(total, settings.max_steps or total), batch=batch * parts)

    def _prepare(self, net: Any) -> tuple[Any, ...]:
        """Network and optimisers, set up for device and processes."""
        if self.settings.sync_norm:
            synchronise_norms(net)
        if self.settings.kernels and chosen(self.fabric.device) == "triton":
            fuse(net)
        if self.settings.checkpoint_activations:
            recompute_activations(net)
        optim, shards = self.task.recipe.optim, self.task.recipe.trainer.strategy == "fsdp"
        if not shards:  # which must be contiguous
            net = net.to(memory_format=torch.channels_last)
        if self.settings.compile:
            net.compile()
        if not shards:
            return self.fabric.setup(net, *build_optimizers(net, optim))  # type: ignore[no-any-return]
        wrapped = self.fabric.setup_module(net)  # its parameters are others then, so that optimisers come after
        optimizers = [self.fabric.setup_optimizers(o) for o in build_optimizers(wrapped.module, optim)]
        return wrapped, *optimizers

    # --- the run ---

    def run_to_end(self) -> Evaluation:
        """Train the remaining steps; returns the evaluation of the best weights."""
        self.dataset = self.task.dataset(self.splits.train)
        val = EvaluationDataset(self.splits.val, self.task.preprocess)
        most = max(
            self.schedule.per_epoch * self.settings.accumulate, len(val.samples) // self.settings.eval_batch_size
        )
        again, fewer = call("resume", self.run.path), parameter("settings", {"data.workers": 1})
        advice = f"resume from the last checkpoint: {again}, perhaps with fewer workers: {fewer}"
        with loading(self.task.recipe.data.workers, most, advice=advice, train=self.dataset, val=val) as self.load:
            self._train_to_end()
            return self._evaluate_best()

    def _train_to_end(self) -> None:
        began = time.monotonic() - self.seconds
        self.world.on_rank_zero(self._open_logger)
        with StopRequests() as stop, Progress("step", quiet=self.quiet) as show:
            show.start(self.schedule.end, done=self.step)
            self._say_at_start(show)
            while not self._why_over():
                self._train_epoch(show, stop, began)
                figures = self._evaluate_epoch(show, began)
                self._save()
                self._ask_callback(show, figures)
                self._stop_if_requested(bool(self.world.all_reduce_sum(float(stop.requested))[0]))
        if self.logger:
            self.logger.close()

    def _open_logger(self) -> None:
        self.logger = RunLogger(self.run, self.task.recipe, start=self.step)

    def _train_epoch(self, show: Progress, stop: StopRequests, began: float) -> None:
        """The rest of the current epoch."""
        meter = Meter()
        for batches in meter.waiting_for(self._batches()):
            for batch in batches:
                self.bad_images.add("train", [(key, reason) for _, key, reason in batch.bad])
            done = self._train_step(batches, stop)
            meter.losses.append(done.loss)
            meter.images += done.images
            self.step += 1
            self.seconds = time.monotonic() - began
            at = self.step / self.schedule.per_epoch
            show.update(self.step, f"epoch {at:.2f}  loss {done.loss:.3f}  {meter.images_per_second:.0f} images/s")
            if self.task.varying_sizes and self.step % GIVE_BACK_EVERY == 0:
                malloc_trim()
            if self.step % self.settings.log_every == 0:
                self._log(
                    "train",
                    lr=done.lr,
                    gradient_norm=done.gradient_norm,
                    skipped=self.skipped,
                    **meter.figures(self.fabric.device),
                )
                meter.reset()
            # then it is evaluated first and saved afterwards
            ends_epoch = self.step % self.schedule.per_epoch == 0 or self.step == self.schedule.end
            if not ends_epoch and (self.step % self.settings.save_every == 0 or done.stop):
                self._save()
                self._stop_if_requested(done.stop)
            if self.step == self.schedule.end:
                return

    def _batches(self) -> Iterator[list[Batch]]:
        """This process's micro-batches of the remaining steps of the epoch."""
        epoch, skip = divmod(self.step, self.schedule.per_epoch)
        source = training_batches(
            self.dataset,
            self.task.recipe.data,
            batch_size=self.settings.batch_size,
            accumulate=self.settings.accumulate,
            rank=self.world.rank,
            world_size=self.world.size,
            seed=self.settings.seed,
            epoch=epoch,
            skip=skip,
            load=self.load,
        )
        try:
            yield from iter(lambda: list(islice(source, self.settings.accumulate)), [])
        except RuntimeError:  # usually a worker died; between two steps, so that all can be saved
            if self.world.size == 1:  # which needs all processes
                self._save()
            raise

    # --- one step ---

    def _train_step(self, batches: list[Batch], stop: StopRequests) -> Step:
        """A non-finite step is counted, and its images are listed; several in a row end the run."""
        done = self.stepper(self.step, batches, asked_to_stop=stop.requested)
        self.non_finite = self.non_finite + 1 if done.skipped else 0
        if done.skipped:
            self.skipped += 1
            mine = [self.splits.train.keys[int(index)] for batch in batches for index in batch.indices]
            record = {
                "step": self.step + 1,
                "loss": str(done.loss),
                "gradient_norm": str(done.gradient_norm),
                "images": [key for keys in self.world.all_gather(mine) for key in keys],
            }
            if self.world.is_rank_zero:
                self.run.append(self.run.non_finite, record)
        if self.non_finite >= NON_FINITE_IN_A_ROW:
            raise self._diverged(
                f"the loss or its gradient was not finite {NON_FINITE_IN_A_ROW} steps in a row, the last one step"
                f" {self.step + 1} ({self.run.non_finite} lists their images)"
            )
        return done

    def _diverged(self, what: str) -> NumericalStop:
        return NumericalStop(f"{what}: lower optim.lr, lengthen optim.warmup_epochs, or set train.clip_norm=1")

    # --- evaluation ---

    def _evaluate_epoch(self, show: Progress, began: float) -> dict[str, float]:
        with self.state.with_ema():
            result = self._evaluate()
            self.seconds = time.monotonic() - began
            self._log("eval", **result.figures)
            self.bad_images.add("val", result.bad)
            if not math.isfinite(result.figures.get("loss", 0)):  # only classifiers have one
                raise self._diverged(
                    f"the evaluation at step {self.step} gave no finite loss, the weights have diverged"
                )
            monitored = result.figures[self.task.monitor]
            mark = ""
            self.since_best += 1
            unknown = not self.best > -math.inf  # none so far, or all NaN: then the newest weights are the best guess
            if monitored > self.best or unknown:
                mark = "  newest weights kept" if math.isnan(monitored) else "  best so far"
                if math.isnan(monitored) and not self.best_figures:
                    show.say(
                        f"warning: {self.task.monitor_title} cannot be measured on these validation images: the newest"
                        " weights are kept, not the best"
                    )
                self.best = -math.inf if math.isnan(monitored) else monitored
                self.best_figures, self.best_evaluation, self.since_best = result.figures, result, 0
                weights, card = self.state.network(), self.task.card(result.figures)
                self.world.on_rank_zero(lambda: self.run.save_weights(weights, card))
        epoch = f"{self.step / self.schedule.per_epoch:.3g}/{self.settings.epochs}"
        loss = f"  loss {result.figures['loss']:.3f}" if "loss" in result.figures else ""
        show.say(f"epoch {epoch}  {self.task.monitor_title} {percent(monitored)}{loss}  {clock(self.seconds)}{mark}")
        if self._is_patience_over() and self.step < self.schedule.end:
            show.say(f"no better in {self.since_best} evaluations (train.patience): the run ends here")
        return result.figures

    def _ask_callback(self, show: Progress, figures: dict[str, float]) -> None:
        """Call `on_evaluation`, which may end the run on all processes; if it raises, everything is already saved."""

        def ask() -> bool:
            return bool(self.on_evaluation and self.on_evaluation(self.step, dict(figures)))

        self.stopped = self.world.broadcast_result(ask)
        if self.stopped and self.step < self.schedule.end:
            self.world.on_rank_zero(lambda: self.run.note(stopped=self.step))  # by the caller's function
            show.say("on_evaluation stops the run: it ends here")

    def _evaluate(self) -> Evaluation:
        self.bad_images.all_gather()
        self.world.broadcast(self.state.buffers())
        return self._evaluate_network(self.state.unsharded(self.task))

    def _evaluate_network(self, net: nn.Module) -> Evaluation:
        return evaluate_network(
            net,
            self.splits.val,
            self.task.card({}),
            device=self.fabric.device,
            batch_size=self.settings.eval_batch_size,
            workers=self.load,
            rank=self.world.rank,
            world_size=self.world.size,
            gather=self.world.all_gather,
        )

    def _evaluate_best(self) -> Evaluation:
        """Evaluate the best weights, unless that was done since the last resumption."""
        if self.best_evaluation is None:
            net = self.task.build().to(self.fabric.device)
            net.load_state_dict(load_file(self.run.path / WEIGHTS_NAME))
            self.best_evaluation = self._evaluate_network(net)
        return self.best_evaluation

    def _is_patience_over(self) -> bool:
        return self.settings.patience is not None and self.since_best >= self.settings.patience

    def _why_over(self) -> str:
        """What ended the run, and what trains on; empty while there is more to train."""
        if self.step >= self.schedule.end:
            is_cut = self.schedule.end < self.schedule.total
            how = "a larger train.max_steps" if is_cut else f"a new run with model.pretrained={self.run.path}"
            return f"the run is finished; {how} trains on"
        by = "on_evaluation" if self.stopped else "train.patience" if self._is_patience_over() else ""
        return by and f"{by} ended the run there; {parameter('go_on', True)} trains on"

    # --- keeping and restoring ---

    def _save(self) -> None:
        self.world.broadcast(self.state.buffers())
        content = {
            "recipe": plain_values(asdict(self.task.recipe)),
            "card": self.task.card({}).to_json(),
            "step": self.step,
            "batch": self.schedule.batch,
            **self.state.content(),
            "best": self.best,
            "best_figures": self.best_figures,
            "since_best": self.since_best,
            "seconds": self.seconds,
            "skipped": self.skipped,
            "non_finite": self.non_finite,
        }
        self.world.on_rank_zero(lambda: self.run.save_checkpoint(content))

    def restore(self, *, go_on: bool = False) -> None:
        """Restore the newest valid checkpoint; `go_on` as for `resume`.

        Raises:
            NoValidCheckpoint: there is none.
            ResnestError: it was made by another recipe, or for steps of another size.
        """
        self.world.on_rank_zero(self.run.remove_partial_files)
        content, warnings = self.run.load_checkpoint()
        for warning in warnings:
            self.say(f"warning: {warning}")
        if missing := [name for name in NEEDED if name not in content]:
            raise self._misfit(content, f"it has no {missing[0]}")
        check_resumable(build(content["recipe"], where=str(self.run.path)), self.task.recipe, where=str(self.run.path))
        self._check_batch(content.get("batch", self.schedule.batch))
        try:
            self.state.load(content)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:  # torch has many
            raise self._misfit(content, " ".join(str(error).split())[:150]) from error
        self.step, self.best, self.seconds = content["step"], content["best"], content["seconds"]
        self.best_figures, self.skipped = content["best_figures"], content.get("skipped", 0)
        self.since_best, self.non_finite = content.get("since_best", 0), content.get("non_finite", 0)
        self.stopped = self.run.read_provenance().get("stopped") == self.step
        if go_on:
            self.stopped, self.since_best = False, 0
        self.world.on_rank_zero(lambda: self.run.truncate_logs_after(self.step))
        self.bad_images.restore()
        over = self._why_over()
        self.say(f"resumed at step {self.step} of {self.schedule.end}" + (f": {over}" if over else ""))

    def _misfit(self, content: dict[str, Any], why: str) -> NoValidCheckpoint:
        return NoValidCheckpoint(
            f"the checkpoint of step {content['step']} in {self.run.path} does not fit its recipe, perhaps it is of"
            f" another version of resnest ({why}): start the run anew ({parameter('overwrite', True)})"
        )

    def _check_batch(self, before: int) -> None:
        if before != self.schedule.batch:
            settings = self.settings
            raise ResnestError(
                f"{self.run.path} was trained with {before} images a step, here it would be {self.schedule.batch}"
                f" ({self.world.size} processes x {settings.batch_size} x {settings.accumulate} micro-batches):"
                " start it on as many processes as before"
            )

    def _stop_if_requested(self, asked: bool) -> None:
        if asked and not self._why_over():
            if self.logger:
                self.logger.close()
            raise Preempted(
                f"stopped at step {self.step} of {self.schedule.end}, everything is saved;"
                f" resume with: {call('resume', self.run.path)}"
            )

    # --- telling ---

    def _say_at_start(self, show: Progress) -> None:
        for line in startup_messages(
            self.task, self.schedule, processes=self.world.size, images=len(self.splits.train)
        ):
            show.say(line)
        if self.loaded is not None and self.step == 0:
            show.say(f"start: {self.task.recipe.model.pretrained}, {self.loaded}")

    def say(self, text: str) -> None:
        if not self.quiet:
            say(text)

    def _log(self, kind: str, **values: float) -> None:
        if self.logger:
            epoch = self.step / self.schedule.per_epoch
            self.logger.write(kind, step=self.step, epoch=epoch, seconds=self.seconds, **values)

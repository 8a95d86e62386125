"""Startup messages of a run: the learning rate for its global batch size, how the batch is composed, and warnings.

for line in startup_messages(task, schedule, processes=2, images=9469):
    show.say(line)
"""

from __future__ import annotations

from collections.abc import Iterator

from resnest.tasks import Task
from resnest.training.step import Schedule

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

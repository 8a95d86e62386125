"""Evaluating a panoptic detector on pictures with segments, in one process or in several.

result = evaluate_panoptic(net, samples, preprocess, device=device)
result.figures["pq"]

Objects and stuff are joined in each picture's own size, by the function that prediction uses, and compared there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from resnest.data.batch import Batch
from resnest.data.loading import evaluation_batches
from resnest.data.panoptic import PanopticSamples
from resnest.errors import ResnestError
from resnest.inference.counting import Look, Network, count_pictures
from resnest.inference.panoptic_outcome import PanopticEvaluation, collect_panoptic
from resnest.inference.torch_engine import panoptic_to_numpy
from resnest.metrics.panoptic import PanopticMetrics
from resnest.panoptic.panoptic import DetectedPanoptic
from resnest.runtime.decode import BadImage
from resnest.runtime.detections import Views
from resnest.runtime.panoptic_merge import panoptic_map
from resnest.runtime.preprocess import DetectionPreprocess
from resnest.segmenter_spec import PanopticSpec


class Panoptic(Network, Protocol):
    """A panoptic detector, ours or one that an engine runs."""

    panoptic: PanopticSpec

    def __call__(self, images: Tensor, sizes: Tensor, /) -> DetectedPanoptic: ...


def evaluate_panoptic(
    net: Panoptic,
    samples: PanopticSamples,
    preprocess: DetectionPreprocess,
    *,
    device: torch.device,
    batch_size: int = 4,
    workers: int | None = None,
    on_batch: Callable[[int], None] = lambda seen: None,
    rank: int = 0,
    world_size: int = 1,
    gather: Callable[[Any], list[Any]] = lambda mine: [mine],
    views: Views | None = None,
) -> PanopticEvaluation:
    """Run `net` over all samples, each once; see `evaluate_network`, which calls this for samples with segments.

    Batches hold images of one shape, since padding changes what a detector finds. Processes exchange what they counted
    once, at the end, and each works out the same figures.

    Raises:
        ResnestError: for views, which are for detectors without stuff; more than 5 % of the images are unusable.
    """
    if views is not None:
        raise ResnestError("a panoptic detector looks at one view: several scales and mirrored views are for others")
    share = {"rank": rank, "world_size": world_size}
    counted = count_pictures(
        net,
        _looks(net, samples, preprocess, device, batch_size=batch_size, workers=workers, **share),
        PanopticMetrics(len(samples.class_names), samples.classes.things),
        _count,
        total=len(samples),
        on_batch=on_batch,
        world_size=world_size,
        gather=gather,
    )
    return collect_panoptic(counted, samples.class_names)


def _count(metrics: PanopticMetrics, look: Look) -> float:
    """PQ of the picture alone; NaN if it shows nothing and nothing was found."""
    one = PanopticMetrics(len(metrics.ious), metrics.things)
    one.update(look.found, look.truth)
    metrics.merge(one)
    return one.compute().figures["pq"]


def _looks(
    net: Panoptic, samples: PanopticSamples, preprocess: DetectionPreprocess, device: torch.device, **how: Any
) -> Iterator[Look | BadImage]:
    """At this process's pictures; `how` is that of `evaluation_batches`."""
    for batch in evaluation_batches(samples, preprocess, **how):
        yield from (BadImage(key, reason) for _, key, reason in batch.bad)
        if len(batch.labels):
            yield from _look(net, batch, samples, preprocess, device)


def _look(
    net: Panoptic, batch: Batch, samples: PanopticSamples, preprocess: DetectionPreprocess, device: torch.device
) -> Iterator[Look | BadImage]:
    """At pictures of one shape."""
    assert batch.sizes is not None
    with torch.inference_mode():
        images = batch.images.to(device).contiguous(memory_format=torch.channels_last)
        raw = panoptic_to_numpy(net(images, batch.sizes.to(device)))
    for place, index in enumerate(batch.indices.tolist()):
        try:
            truth = samples.truth(index)
        except BadImage as error:
            yield error
            continue
        width, height = map(int, samples.objects.sizes[index])
        found = panoptic_map(
            raw,
            place,
            name=samples.keys[index],
            size=(width, height),
            preprocess=preprocess,
            classes=samples.classes,
            spec=net.panoptic,
        )
        yield Look(index, found, truth)

"""Evaluating a detector on images with objects, in one process or in several.

result = evaluate_detector(net, samples, preprocess, device=device)
result.figures["box_ap"]
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from resnest.data.batch import Batch
from resnest.data.detection import DetectionSamples
from resnest.data.loading import evaluation_batches
from resnest.detection.augmented import predict_augmented
from resnest.detection.detector import Detector
from resnest.errors import ResnestError
from resnest.inference.detection_outcome import DetectionEvaluation, collect_detections
from resnest.inference.outcome import check_bad_share
from resnest.inference.torch_engine import to_numpy
from resnest.runtime.decode import BadImage
from resnest.runtime.detections import Classes, Detections, RawDetections, Views
from resnest.runtime.preprocess import DetectionPreprocess


def evaluate_detector(
    net: nn.Module,
    samples: DetectionSamples,
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
) -> DetectionEvaluation:
    """Run `net` over all samples, each once; see `evaluate_network`, which calls this for samples with objects.

    Batches hold images of one shape, since padding changes what a detector finds. Processes exchange what they found
    once, at the end, and each works out the same figures. With `views`, each image is looked at by itself, several
    times.
    """
    started = time.perf_counter()
    found: dict[int, Detections] = {}
    bad: list[tuple[str, str]] = []
    limit = 0  # objects an image, at most
    was_training = net.training
    net.eval()
    share = {"rank": rank, "world_size": world_size}
    if views is not None:
        found, bad, limit = _detect_in_views(net, samples, preprocess, views, on_batch, **share)
        batches: Iterator[Batch] = iter(())
    else:
        batches = evaluation_batches(samples, preprocess, batch_size=batch_size, workers=workers, **share)
    for batch in batches:
        bad += [(key, reason) for _, key, reason in batch.bad]
        if world_size == 1:  # else together, below: the others wait there
            check_bad_share(len(bad), len(samples), bad[-1] if bad else None)
        if len(batch.labels):
            here, limit = _detect(net, batch, samples, preprocess, device)
            found |= here
        on_batch(len(batch.labels) + len(batch.bad))
    net.train(was_training)
    if world_size > 1:
        parts = gather((found, bad, limit))
        found = {index: one for part in parts for index, one in part[0].items()}
        bad = [entry for part in parts for entry in part[1]]
        limit = max(part[2] for part in parts)
        check_bad_share(len(bad), len(samples), bad[-1] if bad else None)
    result = collect_detections(found, samples.objects, samples.class_names, max_detections=limit, bad=bad, seconds=0.0)
    result.seconds = time.perf_counter() - started
    return result


def _detect(
    net: nn.Module, batch: Batch, samples: DetectionSamples, preprocess: DetectionPreprocess, device: torch.device
) -> tuple[dict[int, Detections], int]:
    """What is in the images of a batch, by index, and how many objects there could have been in each."""
    assert batch.sizes is not None
    with torch.inference_mode():
        images = batch.images.to(device).contiguous(memory_format=torch.channels_last)
        raw = to_numpy(net(images, batch.sizes.to(device)))
    found = {
        index: _of_image(raw, place, samples, index, preprocess) for place, index in enumerate(batch.indices.tolist())
    }
    return found, raw.scores.shape[1]


def _detect_in_views(
    net: nn.Module,
    samples: DetectionSamples,
    preprocess: DetectionPreprocess,
    views: Views,
    on_image: Callable[[int], None],
    *,
    rank: int,
    world_size: int,
) -> tuple[dict[int, Detections], list[tuple[str, str]], int]:
    """What is in this process's images, those that cannot be used, and how many objects there could have been."""
    if not isinstance(net, Detector):
        raise ResnestError("several views of an image need the model itself: an exported file takes one size")
    found: dict[int, Detections] = {}
    bad: list[tuple[str, str]] = []
    for index in range(rank, len(samples), world_size):
        try:
            image = samples.decode(index)
        except BadImage as error:
            bad.append((error.name, error.reason))
        else:
            raw = predict_augmented(net, image, preprocess, scales=views.scales or (preprocess.short,), flip=views.flip)
            found[index] = _of_image(raw, 0, samples, index, preprocess)
        on_image(1)
    return found, bad, net.spec.max_detections


def _of_image(
    raw: RawDetections, place: int, samples: DetectionSamples, index: int, preprocess: DetectionPreprocess
) -> Detections:
    width, height = map(int, samples.objects.sizes[index])
    return Detections.of(
        raw,
        place,
        name=samples.keys[index],
        size=(width, height),
        preprocess=preprocess,
        classes=Classes(samples.class_names, samples.category_ids),
    )

"""Images with objects, one by one and as batches: to train on, and to evaluate on.

    loader = DataLoader(TrainingScenes(samples, data, detection, seed=0, epoch=0), collate_fn=collate_scenes)
    places = evaluation_places(objects.sizes, preprocess, batch_size=4)        # images of one padded shape at a time

`loading` is where batches come from; it calls these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from resnest.data.batch import Batch
from resnest.data.detection import DetectionSamples
from resnest.data.seeding import seeded
from resnest.data.settings import DataSettings, DetectionSettings
from resnest.data.targets import Target
from resnest.runtime.decode import BadImage
from resnest.runtime.preprocess import DIVISOR, DetectionPreprocess, SegmentationPreprocess

Item = tuple[int, Tensor | BadImage, Target | None, tuple[int, int]]  # index, image, target, height and width


class TrainingScenes(Dataset[Any]):
    """Augmented images of one epoch, by (index, repeat)."""

    def __init__(
        self,
        samples: DetectionSamples,
        data: DataSettings,
        detection: DetectionSettings,
        *,
        masks: bool = False,
        seed: int,
        epoch: int,
    ) -> None:
        from resnest.data.detection_transforms import SceneTransform  # torchvision, which evaluation can do without

        if masks:
            samples.check_outlines()
        self.samples = samples
        self.seed = (seed, epoch)
        self.transform = SceneTransform(data, detection, masks=masks)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, place: Sequence[int]) -> Item:
        index, repeat = map(int, place)
        try:
            content = self.samples.read(index)
            with seeded(*self.seed, index, *([repeat] if repeat else [])):
                image, target = self.transform(content, self.samples.scene(index), self.samples.keys[index])
        except BadImage as error:
            return index, error, None, (0, 0)
        return index, image, target, target.size


class EvaluationScenes(Dataset[Any]):
    """Images as prediction sees them."""

    def __init__(self, samples: DetectionSamples, preprocess: DetectionPreprocess) -> None:
        self.samples = samples
        self.preprocess = preprocess

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Item:
        try:
            image = self.samples.decode(index)
        except BadImage as error:
            return index, error, None, (0, 0)
        width, height = self.preprocess.scaled_size(*image.size)
        return index, torch.from_numpy(self.preprocess(image)), None, (height, width)


def evaluation_places(
    sizes: NDArray[Any],
    preprocess: DetectionPreprocess | SegmentationPreprocess,
    *,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
) -> list[list[int]]:
    """Batches of one process, each of one padded shape; every image comes once in one of the processes.

    `sizes` are width and height of each image, (N, 2).
    """
    by_shape: dict[tuple[int, int], list[int]] = {}
    for index, (width, height) in enumerate(sizes.tolist()):
        by_shape.setdefault(preprocess.padded_size(width, height), []).append(index)
    order = [(shape, index) for shape in sorted(by_shape) for index in by_shape[shape]]
    batches: list[list[int]] = []
    last = None
    for shape, index in order[rank::world_size]:
        if shape != last or len(batches[-1]) == batch_size:
            batches.append([])
        batches[-1].append(index)
        last = shape
    return batches


def collate_scenes(items: list[Item]) -> Batch:
    """Images at the top left of zeros, as large as the largest and a multiple of 32."""
    good = [(index, image, target, size) for index, image, target, size in items if isinstance(image, Tensor)]
    bad = [(index, error.name, error.reason) for index, error, *_ in items if isinstance(error, BadImage)]
    return Batch(
        images=_pad([image for _, image, *_ in good]),
        labels=[target for _, _, target, _ in good],
        indices=torch.tensor([index for index, *_ in good], dtype=torch.int64),
        bad=bad,
        sizes=torch.tensor([size for *_, size in good], dtype=torch.int64).reshape(-1, 2),
    )


def _pad(images: list[Tensor]) -> Tensor:
    """(N, 3, H, W), channels last in memory as uint8 comes."""
    if not images:
        return torch.empty(0, 3, DIVISOR, DIVISOR)
    height, width = (-(-side // DIVISOR) * DIVISOR for side in np.max([image.shape[1:] for image in images], axis=0))
    padded = torch.zeros(len(images), int(height), int(width), 3, dtype=images[0].dtype)
    for place, image in zip(padded, images, strict=True):
        place[: image.shape[1], : image.shape[2]] = image.permute(1, 2, 0)
    return padded.permute(0, 3, 1, 2)

"""Training crops: an object scaled, turned, moved and mirrored at random, sometimes half of a person; their heatmaps.

    dataset = KeypointDataset(samples, recipe.data, recipe.keypoints, recipe.head, seed=0)
    pixels, maps = dataset.augment(0, epoch=0)           # (3, 256, 192) uint8; (17, 64, 48)

Sources: mmpose, RandomHalfBody, RandomBBoxTransform; scales and angles are normal draws cut off at two deviations.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resnest.data.colour import ColorJitter, to_tensor
from resnest.data.loading import TrainingDataset
from resnest.data.order import random_int
from resnest.data.settings import DataSettings
from resnest.keypoints.card import HeadSpec
from resnest.keypoints.crops import Affine
from resnest.keypoints.data import KeypointSamples
from resnest.keypoints.heatmaps import STRIDE, encode
from resnest.keypoints.recipes import KeypointSettings

FEWEST = 8  # points of a whole person, and
FEWEST_OF_HALF = 2  # of the half that is shown (mmpose's min_total_keypoints, min_half_keypoints: 9 and 3, both above)
HALF_PADDING = 1.5  # of the box around half a person's points (RandomHalfBody)


class KeypointDataset(TrainingDataset):
    """Labels are heatmaps (N, K, h, w) float32; NaN of points that do not count."""

    samples: KeypointSamples

    def __init__(
        self,
        samples: KeypointSamples,
        data: DataSettings,
        keypoints: KeypointSettings,
        head: HeadSpec,
        *,
        seed: int,
    ) -> None:
        super().__init__(samples, seed=seed)
        self.data, self.settings, self.head = data, keypoints, head
        self.colour = ColorJitter(data.jitter)
        self.mirrors = data.flip and samples.layout.pairs is not None

    def augment(self, index: int, epoch: int) -> tuple[Tensor, Tensor]:
        samples = self.samples
        row = int(samples.rows[index])
        points, visible = samples.people.points[row], samples.people.visible[row] > 0
        picture = samples.picture(index)
        view, mirror = self.draw(samples.boxes[index], points, visible)
        places = view.points(points)
        if mirror:
            order = samples.layout.mirrored
            places, visible = places[order], visible[order]
        pixels = to_tensor(self.colour(view.pixels(picture)), self.data.value_range)
        return pixels, self.target(places, visible)

    def draw(
        self, box: NDArray[np.float64], points: NDArray[np.float64], visible: NDArray[np.bool_]
    ) -> tuple[Affine, bool]:
        """A random view of an object, and whether it is mirrored."""
        settings, frame = self.settings, self.samples.frame
        half = self._half_body(points, visible)
        centre, size = frame.region(box if half is None else half)
        size = size * (1 + settings.scale * _normal())
        turn = settings.rotate * _normal() if float(torch.rand(())) < settings.rotate_share else 0.0
        moved = (torch.rand(2, dtype=torch.float64).numpy() * 2 - 1) * settings.shift * size
        mirror = self.mirrors and random_int(2) == 1
        return Affine.of(centre + moved, size, frame, turn=turn, mirror=mirror), mirror

    def _half_body(self, points: NDArray[np.float64], visible: NDArray[np.bool_]) -> NDArray[np.float64] | None:
        """The box around the upper or lower half of a person, sometimes; None: the whole."""
        halves = self.samples.layout.halves
        if halves is None or visible.sum() <= FEWEST or float(torch.rand(())) >= self.settings.half_body:
            return None
        chosen = [[k for k in half if visible[k]] for half in halves]
        first = random_int(2)
        for half in (chosen[first], chosen[1 - first]):
            if len(half) > FEWEST_OF_HALF:
                low, high = points[half].min(0), points[half].max(0)
                grown = (high - low) * HALF_PADDING / self.head.padding
                return np.concatenate([(low + high - grown) / 2, (low + high + grown) / 2])
        return None

    def target(self, places: NDArray[np.float64], visible: NDArray[np.bool_]) -> Tensor:
        """Heatmaps of points in pixels of the crop; those outside it do not count."""
        frame = self.samples.frame
        inside = ((places >= 0) & (places < (frame.width, frame.height))).all(1)
        seen = visible & inside
        maps = encode(places, seen, (frame.height // STRIDE, frame.width // STRIDE), sigma=self.head.sigma)
        maps[~seen] = np.nan
        return torch.from_numpy(maps)

    def stack_targets(self, targets: list[Tensor]) -> Tensor:
        return torch.stack(targets) if targets else torch.empty(0)


def _normal() -> float:
    """A normal draw, cut off at two deviations, in -1 to 1."""
    return float(torch.randn(()).clamp(-2, 2)) / 2

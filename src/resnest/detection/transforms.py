"""Training transforms with objects: crop, resize, flip, rotation, colour (detectron2's augmentations).

    image, target = DetectionTransform(DataSettings(), DetectionSettings())(content, objects, "1.jpg")

One `Geometry` transforms pixels, boxes and outlines consistently. Masks are rasterised at the size of the
result, one by one, from polygons or run lengths, and what lies around each object is kept (`object_masks`):
torchvision's transforms v2 would take all of them in the size of the photograph, which are half a gigabyte for 375
objects on 1388 x 1040 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from resnest.data.colour import ColorJitter, to_tensor
from resnest.data.loading import TrainingDataset, of_one_type
from resnest.data.order import random_int
from resnest.data.settings import DataSettings
from resnest.detection.card import DIVISOR, DetectionPreprocess
from resnest.detection.data import DetectionSamples, Objects, clip, has_area
from resnest.detection.object_masks import ObjectMasks, Part
from resnest.detection.recipes import DetectionSettings
from resnest.detection.rpn import Target
from resnest.detection.segmentations import Segmentation, decode_rle_columns, rasterise_polygons
from resnest.errors import ResnestError
from resnest.runtime.bands import read_picture

Transpose = Image.Transpose
Points = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """The transform of an image for training: crop, resize, flip, rotate, in this order."""

    left: int
    top: int
    right: int
    bottom: int
    width: int  # of the cut after resizing, before turning
    height: int
    mirror: bool = False  # left and right
    flip_vertical: bool = False  # top and bottom
    turns: int = 0  # quarter turns against the clock

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the result."""
        return (self.width, self.height) if self.turns % 2 else (self.height, self.width)

    def picture(self, image: Image.Image) -> Image.Image:
        """The transformed picture, with Pillow's bilinear resizing, as in evaluation."""
        box = (self.left, self.top, self.right, self.bottom)
        cut = image if box == (0, 0, *image.size) else image.crop(box)
        cut = cut.resize((self.width, self.height), Image.Resampling.BILINEAR)
        for move in self._moves():
            cut = cut.transpose(move)
        return cut

    def _moves(self) -> list[Transpose]:
        moves = [Transpose.FLIP_LEFT_RIGHT] * self.mirror + [Transpose.FLIP_TOP_BOTTOM] * self.flip_vertical
        turn = (None, Transpose.ROTATE_90, Transpose.ROTATE_180, Transpose.ROTATE_270)[self.turns % 4]
        return moves + ([turn] if turn else [])

    def points(self, points: Points) -> Points:
        """Points (P, 2), x and y, from the image to the result; not clipped."""
        scale = np.array([self.width / (self.right - self.left), self.height / (self.bottom - self.top)])
        x, y = ((points - (self.left, self.top)) * scale).T
        x = self.width - x if self.mirror else x
        y = self.height - y if self.flip_vertical else y
        width, height = self.width, self.height
        for _ in range(self.turns % 4):
            x, y = y, width - x
            width, height = height, width
        return np.stack([x, y], axis=1)

    def boxes(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes (M, 4) in the result, clipped."""
        ends = self.points(boxes.astype(np.float64).reshape(-1, 2)).reshape(-1, 2, 2)  # (M, corner, xy)
        moved = np.concatenate([ends.min(1), ends.max(1)], axis=1).astype(np.float32)
        return clip(moved, self.size[1], self.size[0])

    def labels(self, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A label map (H, W) of the image in the result, nearest neighbour."""
        moved = np.empty(self.size, labels.dtype)
        self.unflipped_view(moved)[:] = labels[self.rows[:, None], self.columns]
        return moved

    def placed(self, part: Part) -> Part:
        """A part of a mask of the resized cut, as it lies in the result after flips and rotation."""
        pixels, top, left = part
        bottom, right = top + pixels.shape[0], left + pixels.shape[1]
        width, height = self.width, self.height
        if self.mirror:
            pixels, left, right = pixels[:, ::-1], width - right, width - left
        if self.flip_vertical:
            pixels, top, bottom = pixels[::-1], height - bottom, height - top
        for _ in range(self.turns % 4):
            left, right, top, bottom = top, bottom, width - right, width - left
            width, height = height, width
        return Part(np.rot90(pixels, self.turns), top, left)

    def unflipped_view(self, mask: NDArray[Any]) -> NDArray[Any]:
        """A view of a mask of the result before flips and rotation: (height, width)."""
        view = np.rot90(mask, -self.turns)
        view = view[::-1] if self.flip_vertical else view
        return view[:, ::-1] if self.mirror else view

    @property
    def rows(self) -> NDArray[np.int64]:
        """Nearest rows of the image for those of the resized crop, (height,)."""
        return _nearest(self.top, self.bottom, self.height)

    @property
    def columns(self) -> NDArray[np.int64]:
        return _nearest(self.left, self.right, self.width)


def _nearest(start: int, end: int, count: int) -> NDArray[np.int64]:
    """Nearest pixels between start and end for `count` new ones."""
    return start + ((np.arange(count) + 0.5) * ((end - start) / count)).astype(np.int64)


class DetectionTransform:
    """Bytes and objects of an image -> (C, H, W), bytes or floats, and its target; by torch's default generator."""

    def __init__(self, data: DataSettings, detection: DetectionSettings, *, masks: bool = False) -> None:
        self.data = data
        self.detection = detection
        self.masks = masks
        self.colour = ColorJitter(data.jitter)

    def __call__(self, content: bytes, objects: Objects, name: str = "image") -> tuple[Tensor, Target]:
        """Raises BadImage."""
        size = (objects.width, objects.height)
        image = read_picture(content, self.data.bands, name=name, annotated=size, exif=self.data.exif)
        geometry = self.draw(objects.width, objects.height)
        image = self.colour(geometry.picture(image))
        pixels = to_tensor(image, self.data.value_range)
        return pixels, transform_objects(objects, geometry, masks=self.masks, tighten=self.detection.crop is not None)

    def draw(self, width: int, height: int) -> Geometry:
        """Draw a random geometry."""
        left, top, right, bottom = self._crop(width, height)
        rule = DetectionPreprocess(short=self._short(), long=self.detection.long)
        wide, high = rule.scaled_size(right - left, bottom - top)
        return Geometry(
            left=left,
            top=top,
            right=right,
            bottom=bottom,
            width=wide,
            height=high,
            mirror=self.data.flip and random_int(2) == 1,
            flip_vertical=self.detection.flip_vertical and random_int(2) == 1,
            turns=random_int(4) if self.detection.rotate else 0,
        )

    def _short(self) -> int:
        short = self.detection.short
        if self.detection.pick == "choice":
            return short[random_int(len(short))]
        return short[0] + random_int(short[-1] - short[0] + 1)

    def _crop(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Random sides, then a random position (detectron2's RandomCrop, relative_range)."""
        least = self.detection.crop
        if least is None:
            return 0, 0, width, height
        fractions = least + torch.rand(2) * (1 - least)
        high, wide = (
            max(1, int(side * part + 0.5)) for side, part in zip((height, width), fractions.tolist(), strict=True)
        )
        top, left = random_int(height - high + 1), random_int(width - wide + 1)
        return left, top, left + wide, top + high


def transform_objects(objects: Objects, geometry: Geometry, *, masks: bool = False, tighten: bool = False) -> Target:
    """The objects for training, in pixels of the result: without crowds and without objects outside.

    Args:
        masks: with outlines.
        tighten: boxes around what is left of the masks, as a cut may leave less than the box (detectron2 too).
    """
    boxes = geometry.boxes(objects.inside())
    chosen = np.flatnonzero(objects.trainable_mask() & has_area(boxes))
    outlines = None
    if masks:
        parts = [draw(objects.segmentations[i], geometry) for i in chosen]
        chosen = chosen[[part.pixels.size > 0 for part in parts]]
        outlines = ObjectMasks.pack([part for part in parts if part.pixels.size], geometry.size)
        if tighten:
            boxes[chosen] = outlines.boxes.numpy()
    labels = torch.from_numpy(objects.labels[chosen].astype(np.int64))
    semantic = torch.from_numpy(geometry.labels(objects.semantic)) if objects.semantic is not None else None
    return Target(torch.from_numpy(boxes[chosen]), labels, geometry.size, outlines, semantic)


def draw(outline: Segmentation, geometry: Geometry) -> Part:
    """Rasterise an object: its pixels in the result, in the smallest window; an empty one if it is not visible."""
    if outline is None:
        raise ResnestError("an object has no segmentation: choose a detector without masks")
    if isinstance(outline, dict):
        columns, part = decode_rle_columns(outline)
        first, last = np.searchsorted(geometry.columns, (columns.start, columns.stop))
        small = part[geometry.rows[:, None], geometry.columns[first:last] - columns.start]
        return geometry.placed(Part(small, 0, int(first)).trimmed())
    moved = [geometry.points(np.reshape(polygon, (-1, 2))) for polygon in outline]
    rows, columns, small = rasterise_polygons(moved, *geometry.size)
    return Part(small, rows.start, columns.start).trimmed()


# --- Training dataset of images with objects: augmented samples and their padded batches ---


class DetectionDataset(TrainingDataset):
    """Labels are a list of `Target`s; images are padded with zeros at the right and bottom."""

    samples: DetectionSamples

    def __init__(
        self,
        samples: DetectionSamples,
        data: DataSettings,
        detection: DetectionSettings,
        *,
        masks: bool = False,
        seed: int,
    ) -> None:
        if masks:
            samples.check_outlines()
        super().__init__(samples, seed=seed)
        self.transform = DetectionTransform(data, detection, masks=masks)

    def augment(self, index: int, epoch: int) -> tuple[Tensor, Target]:
        content = self.samples.read(index)
        return self.transform(content, self.samples.annotations(index), self.samples.keys[index])

    def stack_images(self, images: list[Tensor]) -> Tensor:
        """(N, C, H, W), padded to the largest and a multiple of 32; channels last in memory."""
        if not images:
            return torch.empty(0, 3, DIVISOR, DIVISOR)
        images = of_one_type(images)
        sides = np.max([image.shape[1:] for image in images], axis=0)
        height, width = (-(-side // DIVISOR) * DIVISOR for side in sides)
        padded = torch.zeros(len(images), int(height), int(width), len(images[0]), dtype=images[0].dtype)
        for canvas, image in zip(padded, images, strict=True):
            canvas[: image.shape[1], : image.shape[2]] = image.permute(1, 2, 0)
        return padded.permute(0, 3, 1, 2)

    def stack_targets(self, targets: list[Target]) -> list[Target]:
        return targets

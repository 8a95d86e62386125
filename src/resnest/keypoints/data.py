"""Samples of keypoints: objects with named points, each cut out of its picture.

    samples = open_dataset("hands", task="keypoints").train        # KeypointSamples
    crop, view = samples.example(0)                                # view: the object's points in the crop
    samples.layout.names, samples.people.points[samples.rows[0]]

A sample is an object, not a picture: several have the same key. Its image is the window around its box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.data.samples import Samples, class_indices, describe_notes
from resnest.errors import ResnestError, unknown
from resnest.figures import counted
from resnest.keypoints.crops import Frame
from resnest.keypoints.points import PointLayout
from resnest.runtime.bands import Bands, read_picture
from resnest.runtime.decode import Exif

if TYPE_CHECKING:
    from resnest.keypoints.recipes import KeypointRecipe

Indices = NDArray[np.int64]


class PictureTable(NamedTuple):
    """All pictures of a split, those without an object too."""

    keys: Sequence[str]  # (P,)
    ids: Indices  # (P,)
    sizes: NDArray[np.int64]  # (P, 2) width, height


class PeopleTable(NamedTuple):
    """All annotated objects of all pictures: persons, most often."""

    pictures: Indices  # (A,) into the pictures
    boxes: NDArray[np.float64]  # (A, 4) x1, y1, x2, y2
    points: NDArray[np.float64]  # (A, K, 2) continuous: the middle of the first pixel is 0.5
    visible: NDArray[np.int8]  # (A, K) 0: not annotated, 1: hidden, 2: visible
    areas: NDArray[np.float64]  # (A,)
    crowd: NDArray[np.bool_]  # (A,)
    ids: Indices  # (A,)

    def usable(self) -> Indices:
        """Rows to train and evaluate on: no crowd, with a point."""
        return np.flatnonzero(~self.crowd & (self.visible > 0).any(1))

    def reordered(self, index: Indices, count: int) -> PeopleTable:
        """With point k at place index[k] of `count`; the others are not annotated."""
        points = np.zeros((len(self.ids), count, 2))
        visible = np.zeros((len(self.ids), count), np.int8)
        points[:, index], visible[:, index] = self.points, self.visible
        return self._replace(points=points, visible=visible)


class View(NamedTuple):
    """An object as its sample shows it."""

    points: NDArray[np.float64]  # (K, 2) in the crop
    visible: NDArray[np.int8]  # (K,)


@lru_cache(maxsize=2)
def _decoded(content: bytes, bands: Bands, name: str, size: tuple[int, int], exif: Exif) -> Image.Image:
    """A picture; the next sample often is another object of it. It is not changed."""
    return read_picture(content, bands, name=name, annotated=size, exif=exif)


@dataclass(frozen=True)
class KeypointSamples(Samples):
    """Objects with points; the classes are the points."""

    task = "keypoints"
    has = "keypoints"

    layout: PointLayout
    thing: str  # what has the points: "person"
    category_id: int
    pictures: PictureTable
    people: PeopleTable
    owners: Indices  # (N,) the picture of each sample
    boxes: NDArray[np.float64]  # (N, 4) that it is cut out by
    rows: Indices  # (N,) among the people; -1: a detection
    scores: NDArray[np.float64]  # (N,) of the boxes; 1 of annotated ones
    measured: Indices  # pictures whose objects evaluation counts
    frame: Frame = field(default_factory=Frame)
    notes: tuple[str, ...] = ()

    @classmethod
    def build(
        cls,
        store: Any,
        layout: PointLayout,
        pictures: PictureTable,
        people: PeopleTable,
        *,
        thing: str,
        category_id: int,
        notes: Sequence[str] = (),
    ) -> KeypointSamples:
        """A sample for each usable object."""
        rows = people.usable()
        owners = people.pictures[rows]
        return cls(
            store,
            [pictures.keys[owner] for owner in owners.tolist()],
            layout.names,
            layout,
            thing,
            category_id,
            pictures,
            people,
            owners,
            people.boxes[rows],
            rows,
            np.ones(len(rows)),
            np.arange(len(pictures.keys)),
            notes=tuple(notes),
        )

    # --- images ---

    def picture(self, index: int) -> Image.Image:
        """The whole picture of sample `index`, oriented as its annotations. Raises BadImage."""
        width, height = map(int, self.pictures.sizes[self.owners[index]])
        return _decoded(self.read(index), self.bands, self.keys[index], (width, height), self.exif)

    def window(self, index: int) -> tuple[int, int, int, int]:
        """The sample's window in its picture."""
        return self.frame.window(self.boxes[index])

    def decode(self, index: int) -> Image.Image:
        """The window around an object's box, black outside the picture. Raises BadImage."""
        return self.picture(index).crop(self.window(index))

    def example(self, index: int) -> tuple[Image.Image, View]:
        return self.decode(index), self.view(index)

    def view(self, index: int) -> View:
        """The object's points in its crop; of a detection none."""
        row = int(self.rows[index])
        if row < 0:
            count = len(self.class_names)
            return View(np.zeros((count, 2)), np.zeros(count, np.int8))
        return View(self.people.points[row] - self.window(index)[:2], self.people.visible[row])

    # --- which ---

    def subset(self, indices: Indices) -> KeypointSamples:
        return replace(
            self,
            keys=[self.keys[index] for index in indices],
            owners=self.owners[indices],
            boxes=self.boxes[indices],
            rows=self.rows[indices],
            scores=self.scores[indices],
            measured=np.unique(self.owners[indices]),
        )

    def with_boxes(self, owners: Indices, boxes: NDArray[np.float64], scores: NDArray[np.float64]) -> KeypointSamples:
        """The same pictures with these boxes, of a detector, in place of the annotated ones."""
        order = np.argsort(owners, kind="stable")
        owners = owners[order]
        return replace(
            self,
            keys=[self.pictures.keys[owner] for owner in owners.tolist()],
            owners=owners,
            boxes=boxes[order],
            rows=np.full(len(order), -1),
            scores=scores[order],
        )

    def for_training(self, recipe: KeypointRecipe) -> KeypointSamples:
        return self._as(recipe)

    def for_validation(self, recipe: KeypointRecipe) -> KeypointSamples:
        return self._as(recipe)

    def _as(self, recipe: KeypointRecipe) -> KeypointSamples:
        """With the recipe's crops, sigmas and pairs. Raises ResnestError: they do not fit the points."""
        settings, layout = recipe.keypoints, self.layout
        if settings.sigmas and len(settings.sigmas) != len(layout.names):
            raise ResnestError(
                f"keypoints.sigmas has {len(settings.sigmas)} values for {len(layout.names)} points:"
                f" {', '.join(layout.names)}"
            )
        pairs = layout.pairs
        if settings.flip_pairs is not None:
            place = {name: number for number, name in enumerate(layout.names)}
            for name in (name for pair in settings.flip_pairs for name in pair if name not in place):
                raise unknown("point", name, place, hint="It is in keypoints.flip_pairs")
            pairs = tuple((place[one], place[other]) for one, other in settings.flip_pairs)
        layout = replace(layout, sigmas=settings.sigmas or layout.sigmas, pairs=pairs)
        return replace(self, layout=layout, frame=recipe.frame)

    def matched(self, val: KeypointSamples, where: str) -> tuple[KeypointSamples, KeypointSamples]:
        if set(val.class_names) != set(self.class_names):
            odd = sorted(set(val.class_names) ^ set(self.class_names))
            raise ResnestError(f"{where}: training and validation differ in the points {', '.join(odd[:5])}")
        place = {name: number for number, name in enumerate(self.class_names)}
        return self, val._like(self, np.array([place[name] for name in val.class_names], np.int64))

    def aligned(self, card: Any, where: str) -> KeypointSamples:
        """With the model's points, sigmas and crops."""
        index = class_indices(self.class_names, card, where)
        return replace(self._like(card, index), frame=card.frame)

    def _like(self, other: Any, index: Indices) -> KeypointSamples:
        people = self.people.reordered(index, len(other.class_names))
        return replace(self, class_names=other.class_names, layout=other.layout, people=people)

    # --- what is known ---

    def check(self, where: str) -> None:
        if not len(self):
            raise ResnestError(f"{where} has no object with an annotated point: nothing to train on")

    def check_validation(self, where: str) -> None:
        if not len(self):
            raise ResnestError(f"{where}: no validation image has an object with a point: nothing to measure by")

    def counts(self) -> Indices:
        """Annotated points of each name, (K,)."""
        rows = self.rows[self.rows >= 0]
        counts: Indices = (self.people.visible[rows] > 0).sum(0, dtype=np.int64)
        return counts

    def fingerprinted(self) -> tuple[NDArray[Any], ...]:
        known = self.rows[self.rows >= 0]
        return self.boxes, self.people.points[known], self.people.visible[known]

    @property
    def left_out(self) -> tuple[str, ...]:
        return self.notes

    def describe(self, val: KeypointSamples | None = None) -> str:
        parts = (self,) if val is None else (self, val)
        pictures = " and ".join(f"{len(np.unique(part.owners)):,}" for part in parts)
        of = f"{counted(len(self.class_names), 'point', 'points')} of each {self.thing}"
        return f"{of}, an image here is one {self.thing} in {pictures} pictures{describe_notes(self, val)}"

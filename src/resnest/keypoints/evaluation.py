"""Evaluation of a keypoint model: COCO's OKS figures, and how near each point is.

result.figures["ap"], result.headline, result.similarity        # (K,) mean of each point's part in OKS
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnest.errors import ResnestError
from resnest.figures import Figure, percent
from resnest.inference.evaluation import Evaluation, Floats, Indices, WorstPictures, lowest
from resnest.keypoints.card import KeypointCard
from resnest.keypoints.data import KeypointSamples, View
from resnest.keypoints.metrics import oks, oks_figures, point_similarity, suppress
from resnest.keypoints.result import Poses

MEAN = "mean over OKS 0.50 to 0.95"
FIGURES = (
    Figure("ap", "OKS AP", f"average precision, {MEAN}"),
    Figure("ap50", "OKS AP50", "at OKS 0.50"),
    Figure("ap75", "OKS AP75", "at OKS 0.75"),
    Figure("apm", "OKS AP medium", "of objects of 32 x 32 to 96 x 96 pixels"),
    Figure("apl", "OKS AP large", "of larger ones"),
    Figure("ar", "OKS AR", f"average recall, {MEAN}"),
    Figure("ar50", "OKS AR50", "at OKS 0.50"),
    Figure("ar75", "OKS AR75", "at OKS 0.75"),
    Figure("arm", "OKS AR medium", "of objects of 32 x 32 to 96 x 96 pixels"),
    Figure("arl", "OKS AR large", "of larger ones"),
)
ANNOTATED, DETECTED = "annotated boxes", "boxes of a detector"


@dataclass(kw_only=True)
class KeypointEvaluation(Evaluation):
    """Evaluation of a keypoint model."""

    table = FIGURES
    report = "resnest.keypoints.report:keypoint_report"
    counted = "points"

    similarity: Floats  # (K,) of each point to the annotated one, mean; NaN of one that is never annotated
    annotated: Indices  # (K,) points
    sample_oks: Floats  # (N,) of each crop to its object; NaN of a detection
    worst_poses: dict[int, Poses] = field(default_factory=dict)  # by position: results in the crop
    boxes: str = ANNOTATED
    crowded: int = 0  # pictures with more objects than are looked at
    max_objects: int = 20

    @property
    def headline(self) -> str:
        return f"{self.titled('ap')}, AP50 {percent(self.figures['ap50'])}, AR {percent(self.figures['ar'])}"

    def lines(self) -> list[str]:
        lines = [f"{one.title:<14}{percent(self.figures[one.key]):>8}   {one.meaning}" for one in self.table]
        lines.append(f"crops around {self.boxes}")
        if self.crowded:
            lines.append(
                f"{self.crowded} pictures have more than {self.max_objects} objects, of which the best"
                f" {self.max_objects} are looked at, as COCO does: train with a larger head.max_objects"
            )
        return lines

    @property
    def class_figures(self) -> tuple[Floats, Indices]:
        return self.similarity, self.annotated

    def details(self) -> dict[str, Any]:
        return {"boxes": self.boxes, "point_similarity": self.by_class(self.similarity)}

    def worst(self, most: int) -> Indices:
        return lowest(self.sample_oks, most)

    @property
    def qualities(self) -> Floats:
        """(N,) OKS of each picture alone."""
        return self.sample_oks


class KeypointScorer:
    """Keeps every pose found, by the sample's number."""

    def __init__(self, samples: KeypointSamples, card: KeypointCard) -> None:
        self.samples, self.card = samples, card
        self.found: dict[int, Poses] = {}  # in pixels of the pictures
        self.worst = WorstPictures()

    def update(self, index: int, result: Poses, truth: View) -> None:
        similar = np.full((1, 1), np.nan)
        row = int(self.samples.rows[index])
        if row >= 0:
            area = self.samples.people.areas[[row]]
            similar = oks(result.points, truth.points[None], truth.visible[None], area, self.card.layout.sigmas)
        self.worst.add(index, float(similar[0, 0]), result)
        self.found[index] = self._placed(index, result)

    def _placed(self, index: int, result: Poses) -> Poses:
        """A crop's pose in its picture, with the box's score."""
        left, top, _, _ = self.samples.window(index)
        return replace(
            result,
            boxes=self.samples.boxes[[index]],
            points=result.points + np.array([left, top]),
            scores=result.scores * self.samples.scores[index],
        )

    def merge(self, other: KeypointScorer) -> None:
        self.found |= other.found
        self.worst.merge(other.worst)

    def result(self) -> KeypointEvaluation:
        """Raises ResnestError: there is no image, or faster-coco-eval is not installed."""
        if not self.found:
            raise ResnestError("no image could be used")
        samples, card, most = self.samples, self.card, self.card.head.max_objects
        by_picture: dict[int, list[Poses]] = {}
        for index in sorted(self.found):
            by_picture.setdefault(int(samples.owners[index]), []).append(self.found[index])
        poses = {owner: suppress(joined(parts), card.head.nms) for owner, parts in by_picture.items()}
        counted = np.isin(samples.people.pictures, samples.measured)
        images, truths = self._truths(counted)
        found = [
            # COCO's measure is the same of continuous coordinates on both sides
            {**entry, "category_id": 1, "keypoints": np.insert(points, 2, 1.0, axis=1).ravel().tolist()}
            for owner, own in poses.items()
            for entry, points in zip(own.to_coco(int(owner) + 1), own.points, strict=True)
        ]
        similarity, annotated = self._similarity(poses, counted)
        objects = np.bincount(samples.people.pictures[counted & ~samples.people.crowd], minlength=1)
        return KeypointEvaluation(
            figures=oks_figures(images, truths, found, sigmas=card.layout.sigmas, max_objects=most),
            class_names=card.class_names,
            indices=self.worst.indices,
            similarity=similarity,
            annotated=annotated,
            sample_oks=self.worst.qualities,
            worst_poses=self.worst.results,
            boxes=ANNOTATED if (samples.rows >= 0).all() else DETECTED,
            crowded=int((objects > most).sum()),
            max_objects=most,
        )

    def _truths(self, counted: NDArray[np.bool_]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Pictures, numbered from 1, and their annotated objects, as of COCO json."""
        people, pictures = self.samples.people, self.samples.pictures
        images = [
            {"id": owner + 1, "width": int(pictures.sizes[owner][0]), "height": int(pictures.sizes[owner][1])}
            for owner in self.samples.measured.tolist()
        ]
        truths = []
        for row in np.flatnonzero(counted).tolist():
            x1, y1, x2, y2 = people.boxes[row].tolist()
            visible = people.visible[row]
            truths.append(
                {
                    "id": row + 1,
                    "image_id": int(people.pictures[row]) + 1,
                    "category_id": 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": float(people.areas[row]),
                    "iscrowd": int(people.crowd[row]),
                    "num_keypoints": int((visible > 0).sum()),
                    "keypoints": np.column_stack([people.points[row], visible]).ravel().tolist(),
                }
            )
        return images, truths

    def _similarity(self, poses: dict[int, Poses], counted: NDArray[np.bool_]) -> tuple[Floats, Indices]:
        """Of each point, in the pose nearest to each annotated object, and how many there are; 0 of a missed object."""
        people, sigmas = self.samples.people, self.card.layout.sigmas
        sums, counts = np.zeros(len(sigmas)), np.zeros(len(sigmas), np.int64)
        for row in np.flatnonzero(counted & ~people.crowd).tolist():
            seen = people.visible[row] > 0
            counts += seen
            own = poses.get(int(people.pictures[row]))
            if own is None or not seen.any() or not len(own):
                continue
            truth, area = people.points[[row]], people.areas[[row]]
            nearest = int(oks(own.points, truth, people.visible[[row]], area, sigmas)[:, 0].argmax())
            sums += np.where(seen, point_similarity(own.points[nearest], truth[0], area, sigmas), 0)
        return np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0), counts


def joined(parts: list[Poses]) -> Poses:
    """The objects of one picture, the best first."""
    names = ("boxes", "points", "point_scores", "scores")
    rows: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    whole = replace(parts[0], **rows)
    return whole[np.argsort(-whole.scores, kind="stable")]

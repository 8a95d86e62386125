"""COCO json of poses: a data set for labelling programs and for training.

file = PoseFile(Path("poses.json"))
file.add(poses)
file.close()
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from resnest.detection.result import CocoFile
from resnest.keypoints.coco import AREA_OF_BOX
from resnest.keypoints.result import Poses
from resnest.runtime.outputs import Placed


class PoseFile(CocoFile):
    """COCO json with the pictures as `images` and objects with their points as `annotations`, each with its `score`."""

    HAS_IDS: ClassVar = False

    def add(self, result: Poses, picture: Placed | None = None) -> None:  # type: ignore[override]
        """Add the objects of a picture that score at least `threshold`."""
        number = picture.number if picture else len(self.images) + 1
        self.images.append({"id": number, "file_name": result.name, "width": result.width, "height": result.height})
        self.categories = [_category(result)]
        shown = result.shown(self.threshold)
        for entry, (x1, y1, x2, y2) in zip(shown.to_coco(number), shown.boxes.tolist(), strict=True):
            box = [round(float(side), 2) for side in (x1, y1, x2 - x1, y2 - y1)]
            area = AREA_OF_BOX * max(box[2] * box[3], 1.0)
            points = np.reshape(entry["keypoints"], (-1, 3))
            points[:, 2] = 2  # of an annotation: visible
            own: dict[str, Any] = {"bbox": box, "area": area, "iscrowd": 0, "num_keypoints": len(points)}
            row = {"id": len(self.annotations) + 1, **entry, **own, "keypoints": points.ravel().tolist()}
            self.annotations.append(row)


def _category(result: Poses) -> dict[str, Any]:
    layout = result.layout
    skeleton = [[one + 1, other + 1] for one, other in layout.skeleton]
    names = {"id": result.category_id, "name": result.thing, "keypoints": list(layout.names)}
    return {**names, "skeleton": skeleton, "sigmas": list(layout.sigmas)}

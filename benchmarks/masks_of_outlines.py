"""COCO outlines as masks of classes: what the pictures of docs/segmentation.md were trained on.

python benchmarks/masks_of_outlines.py ../shared/data/nuclei --out runs/nuclei-masks
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

from resnest.data.sources import open_dataset
from resnest.detection.data import DetectionSamples, Objects
from resnest.detection.segmentations import decode_rle_columns, rasterise_polygons


def mask_of(objects: Objects) -> Image.Image:
    """0 is background, class k of the objects is k + 1; later ones lie on earlier ones."""
    mask = np.zeros((objects.height, objects.width), np.uint8)
    for label, outline in zip(objects.labels, objects.segmentations, strict=True):
        if isinstance(outline, dict):
            columns, part = decode_rle_columns(outline)
            mask[:, columns][part] = label + 1
        elif outline:
            polygons = [np.reshape(polygon, (-1, 2)) for polygon in outline]
            rows, columns, part = rasterise_polygons(polygons, *mask.shape)
            mask[rows, columns][part] = label + 1
    return Image.fromarray(mask)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    data = open_dataset(options.data)
    for part, samples in (("train", data.train), ("val", data.val)):
        assert isinstance(samples, DetectionSamples)
        for kind in ("images", "masks"):
            (options.out / kind / part).mkdir(parents=True, exist_ok=True)
        for index, key in enumerate(samples.keys):
            name = f"{Path(key).stem}.png"
            samples.decode(index).save(options.out / "images" / part / name)
            mask_of(samples.objects[index]).save(options.out / "masks" / part / name)
    names = ("background", *data.train.class_names)
    classes = [{"index": k, "name": name} for k, name in enumerate(names)]
    (options.out / "classes.json").write_text(json.dumps(classes), encoding="utf-8")
    print(f"{options.out}: {len(data.train)} and {len(data.val)} pictures, {len(names)} classes")


if __name__ == "__main__":
    main()

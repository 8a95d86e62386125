"""What a detector or a segmenter finds on some pictures, side by side in one picture for the docs.

python benchmarks/pictures.py runs/bccd A.jpg B.jpg C.jpg --out docs/bccd.jpg
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

import resnest

HEIGHT, GAP, QUALITY = 300, 6, 82  # pixels; so that three pictures are about 100 kB


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    predict = resnest.Predictor(options.model)
    drawn = []
    for path in options.pictures:
        picture = predict(path).draw(path)
        drawn.append(picture.resize((round(picture.width * HEIGHT / picture.height), HEIGHT), Image.Resampling.LANCZOS))
    width = sum(one.width for one in drawn) + GAP * (len(drawn) - 1)
    whole = Image.new("RGB", (width, HEIGHT), "white")
    left = 0
    for one in drawn:
        whole.paste(one, (left, 0))
        left += one.width + GAP
    whole.save(options.out, quality=QUALITY, optimize=True)
    print(f"{options.out}: {whole.width} x {whole.height}, {options.out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()

"""What values pictures have: their data types and ranges, and mean and std of each channel.

meter = measure(samples)                         # some of the pictures, always the same
meter.mean, meter.std                            # of channels in 0..1, as data.mean and data.std
meter.describe()                                 # "4 channels of uint16, values from 0 to 10832"
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.data.samples import Samples
from resnest.errors import ResnestError
from resnest.figures import counted
from resnest.runtime.band_files import SUFFIXES
from resnest.runtime.bands import AS_IS, RGB, Bands, read_picture
from resnest.runtime.decode import BadImage
from resnest.runtime.raster import FULL, Raster, unit_pixels

LOOKED = 8  # pictures that say how many bands are usual
MOST = 128  # pictures that are looked at when training starts
DIGITS = 6  # of mean and std, so that every machine has the same
LITTLE = 8  # times the range's share that is used, below which it is said


class Meter:
    """Sums over the pictures that are added."""

    def __init__(self, bands: Bands) -> None:
        self.bands = bands
        self.count = 0
        self.kinds: Counter[str] = Counter()  # data type -> pictures
        self.lowest: dict[str, float] = {}  # data type -> value in a file
        self.highest: dict[str, float] = {}
        self.made_grey = 0  # pictures in colours
        self._pixels = 0
        self._sums: NDArray[np.float64] = np.zeros((2, 0))

    def add(self, image: Image.Image) -> None:
        """A picture as it was read."""
        kind = image.kind if isinstance(image, Raster) else "uint8"
        values: NDArray[Any] = np.asarray(image)
        self.count += 1
        self.kinds[kind] += 1
        self.made_grey += image.info.get("made_grey", False)
        self.lowest[kind] = min(self.lowest.get(kind, np.inf), float(values.min()))
        self.highest[kind] = max(self.highest.get(kind, -np.inf), float(values.max()))
        units = unit_pixels(image, self.bands.value_range)
        flat = units.reshape(-1, units.shape[2]).astype(np.float64) / (255 if units.dtype == np.uint8 else 1)  # (P, C)
        sums = np.stack([flat.sum(0), np.square(flat).sum(0)])
        self._sums = sums if not self._pixels else self._sums + sums
        self._pixels += len(flat)

    @property
    def mean(self) -> tuple[float, ...]:
        """Of each channel in 0..1, over all pixels."""
        return tuple(map(_rounded, self._sums[0] / self._pixels))

    @property
    def std(self) -> tuple[float, ...]:
        """The same; 1 of a channel that has one value only."""
        mean, square = self._sums / self._pixels
        std = np.sqrt(np.maximum(square - mean**2, 0))
        return tuple(_rounded(value) if value > 1e-6 else 1.0 for value in std)

    @property
    def plain(self) -> bool:
        """Whether all pictures are RGB of 8 bits, to be read as such."""
        return self.bands.plain and set(self.kinds) <= {"uint8"}

    @property
    def value_range(self) -> float | None:
        """The value that counts as 1.0 by the data type of all pictures; None of bytes, and of several types."""
        kinds = [*self.kinds]
        return FULL.get(kinds[0]) if len(kinds) == 1 and kinds[0] != "uint8" else None

    def describe(self) -> str:
        """Channels, data types and values."""
        parts = []
        for kind, count in self.kinds.most_common():
            share = f" ({count} of {self.count})" if len(self.kinds) > 1 else ""
            parts.append(f"{kind}{share}, values from {self.lowest[kind]:g} to {self.highest[kind]:g}")
        channels = counted(self.bands.channels, "channel", "channels")
        return f"{channels} of {' and '.join(parts)}"

    def notes(self) -> Iterator[str]:
        """What of it is worth a look."""
        for kind, highest in self.highest.items():
            full = self.bands.value_range or FULL.get(kind, np.inf)
            if highest > full * 1.001:
                yield f"{kind} values go up to {highest:g}, and {full:g} counts as 1.0 (data.value_range)"
            elif kind == "uint16" and 0 < highest * LITTLE < full:
                bits = int(highest).bit_length()
                yield f"16-bit values go up to {highest:g} only: data.value_range={2**bits - 1} is for {bits} bits"
        if self.made_grey:
            yield f"{counted(self.made_grey, 'picture', 'pictures')} in colours read as grey (data.in_chans=1)"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        kinds = {
            kind: {"images": count, "min": self.lowest[kind], "max": self.highest[kind]}
            for kind, count in self.kinds.items()
        }
        return {"in_chans": self.bands.channels, "types": kinds, "mean": list(self.mean), "std": list(self.std)}

    def settings(self) -> tuple[str, ...]:
        """For `resnest.train`; the channels and the range where they are no photographs'."""
        more = [f"data.in_chans={self.bands.channels}"] * (self.bands.channels != 3)
        if full := self.bands.value_range:
            more.append(f"data.value_range={full:g}")
        mean, std = (",".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
        return (*more, f"data.mean=[{mean}]", f"data.std=[{std}]")


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def measure(samples: Samples, most: int = MOST) -> Meter:
    """Of at most so many pictures, spread over all.

    Raises:
        ResnestError: none of them can be used.
    """
    meter, bad = Meter(samples.bands), []
    for index in np.linspace(0, len(samples) - 1, min(most, len(samples))).round().astype(int).tolist():
        try:
            meter.add(samples.decode(index))
        except BadImage as error:
            bad.append(error)
    if not meter.count:
        raise ResnestError(
            f"none of {counted(len(bad), 'training picture', 'training pictures')} can be used: {bad[0]}"
        )
    return meter


def usual_bands(samples: Samples) -> Bands:
    """How most of some pictures can be read: as RGB where their names or their bands say nothing else."""
    if not any(key.lower().endswith(SUFFIXES) for key in samples.keys):
        return RGB
    counts: Counter[int] = Counter()
    for index in np.linspace(0, len(samples) - 1, min(LOOKED, len(samples))).round().astype(int).tolist():
        with contextlib.suppress(BadImage):
            image = read_picture(samples.read(index), AS_IS, name=samples.keys[index])
            counts[_channels(image)] += 1
    return Bands(max(counts, key=lambda count: counts[count])) if counts else RGB


def _channels(image: Image.Image) -> int:
    """Three for what is read as RGB, else the bands."""
    bands = len(image.bands) if isinstance(image, Raster) else 3
    colours = image.colours if isinstance(image, Raster) else "RGB"
    return 3 if bands == 1 or colours in ("RGB", "RGBA", "L", "LA") else bands


def needs_look(samples: Samples) -> bool:
    """Whether the values of pictures are not known to be bytes, by how they are read and by their names."""
    return not samples.bands.plain or any(key.lower().endswith(SUFFIXES) for key in samples.keys)

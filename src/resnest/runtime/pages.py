"""Pages of a TIFF file as pictures, for prediction with models of RGB; for others they are bands (`bands`).

    for frame in TiffPages(Path("scan.tif")): ...       # scan.tif[0], scan.tif[1], ...

Pages are read one after the other, each under the cap of pixels; one that cannot be used does not affect the others. A
file with a single page has the plain name, as any picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from resnest.runtime.decode import MAX_PIXELS, BadImage, to_rgb
from resnest.runtime.frames import Frame
from resnest.runtime.regions import TiffPage
from resnest.runtime.tiff import (
    BITS,
    FORMATS,
    PHOTOMETRIC,
    SAMPLE_FORMAT,
    STARTS,
    SUBFILE,
    UNSIGNED,
    WHITE_IS_ZERO,
    is_copy,
    refusing_tiff,
)

NOT_TIFF = "not a TIFF file, or one that is damaged"
NOT_READ = "a TIFF file that is damaged, or whose pixels are not read as RGB: save it with 8 bits, grey or RGB"


class TiffPages:
    """The pages of a file.

    Raises:
        BadImage: it cannot be read, or is no TIFF file.
    """

    live = False

    def __init__(self, path: Path, name: str = "") -> None:
        self.name = name or str(path)
        self.problem = ""  # why the file ends early
        self.stopped = False
        try:
            if not path.stat().st_size:
                raise BadImage(self.name, "empty file")
            self.file = path.open("rb")
        except OSError as error:
            raise BadImage(self.name, f"cannot be read ({error.strerror or error})") from None
        try:
            with refusing_tiff(self.name):
                self.image = Image.open(self.file, formats=FORMATS)
            try:
                with refusing_tiff(self.name):
                    self.single = not self._seek(1)
            except BadImage:
                self.single = False  # said when the page is read
            with refusing_tiff(self.name):
                self._seek(0)
        except BadImage as error:
            self.file.seek(0)
            unknown = NOT_READ if self.file.read(4) in STARTS else NOT_TIFF
            self.file.close()
            known = error.reason if "pixels" in error.reason else unknown
            raise BadImage(self.name, known) from None
        self.size = self.image.size

    def stop(self) -> None:
        """End after the page that is being read."""
        self.stopped = True

    def close(self) -> None:
        self.file.close()

    def __iter__(self) -> Iterator[Frame]:
        number = 0
        while not self.stopped:
            name = self.name if self.single else f"{self.name}[{number}]"
            try:
                with refusing_tiff(name):
                    if not self._seek(number):
                        return
            except BadImage as error:
                self.problem = f"no page can be read after page {number - 1}: {error.reason}"
                return
            subfile = self.image.tag_v2.get(SUBFILE, 0)  # type: ignore[attr-defined]
            if number == 0 or not is_copy(subfile):
                yield Frame(name, number, None, self._page(name))
            number += 1

    def _seek(self, number: int) -> bool:
        """Go to a page; returns whether there is one."""
        try:
            self.image.seek(number)
        except EOFError:
            return False
        except Image.DecompressionBombError:  # said of the page when it is read
            return True
        return True

    def _page(self, name: str) -> Image.Image | BadImage:
        width, height = self.image.size
        if width * height > MAX_PIXELS:
            most = f"at most {MAX_PIXELS / 1e6:.0f} megapixels"
            return BadImage(name, f"too many pixels ({width} x {height}, {most})")
        try:
            with refusing_tiff(name):
                return _to_rgb(self.image, name)
        except BadImage as error:
            return error


class RegionPages:
    """The pages of a file whose pixels are read when they are needed, so of any size."""

    live = False

    def __init__(self, path: Path, pages: Sequence[TiffPage]) -> None:
        self.name, self.problem, self.pages = str(path), "", pages
        self.size = pages[0].size
        self.stopped = False

    def stop(self) -> None:
        """End after the page that is being read."""
        self.stopped = True

    def close(self) -> None:
        self.pages[0].close()

    def __iter__(self) -> Iterator[Frame]:
        for page in self.pages:
            if self.stopped:
                return
            yield Frame(page.name, page.number, None, page)


def _to_rgb(page: Image.Image, name: str) -> Image.Image:
    """A page's pixels as 8-bit RGB; of 16 bits the upper 8, as of PNG. What has no known range is refused."""
    tags = page.tag_v2  # type: ignore[attr-defined]
    bits, kind = tags.get(BITS, (1,))[0], tags.get(SAMPLE_FORMAT, (1,))[0]
    if page.mode == "F" or kind not in UNSIGNED or bits > 16:
        form = {2: "signed ", 3: "floating-point "}.get(kind, "")
        raise BadImage(name, f"has {bits}-bit {form}pixels, whose black and white are not known: save it with 8 bits")
    if bits not in (1, 2, 4, 8, 16):
        raise BadImage(name, f"has {bits} bits in each pixel, of which the upper 8 are not read: save it with 8 or 16")
    if page.mode == "LAB":
        raise BadImage(name, "has LAB colours: save it as RGB")
    page.load()  # turned upright by Pillow
    if page.mode.startswith("I") and tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:  # Pillow inverts 8 bits only
        return to_rgb(Image.fromarray((65535 - np.asarray(page).astype(np.uint16)).astype(np.uint16)))
    rgb = to_rgb(page)
    return rgb.copy() if rgb is page else rgb  # the next page is read into the same object

"""Panoptic results: every pixel belongs to one segment, an object or a region of stuff.

found.ids, found.segments                 # (H, W) numbers of segments, 0 is void; one Segment each
found.save("ids.png")                     # COCO's PNG, of
encode_ids(found.ids)                     # (H, W, 3) uint8: id = R + 256 G + 65536 B, as COCO's PNG files
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnest.errors import ResnestError
from resnest.files import MASKS_MARK, WRITTEN, check_for_output, check_replaceable, replacing, write_errors
from resnest.runtime.decode import BadImage, decode_image
from resnest.runtime.outputs import OutputFolder, Placed, save_marked
from resnest.runtime.palette import Colour, class_colours, decode_ids, encode_ids, shade
from resnest.runtime.results import ALL, LIKELY, Asked, Result, Show, in_percent, installed

if TYPE_CHECKING:
    from resnest.runtime.draw import Entry, Regions


VOID = 0  # the id of pixels that belong to no segment


class PanopticClasses(NamedTuple):
    """Names, ids and colours of the classes: things come first."""

    names: tuple[str, ...]  # (K,)
    ids: tuple[int, ...]  # (K,) what COCO files call them
    things: int  # the first so many of them are things, the others stuff
    colours: tuple[Colour, ...] = ()  # (K,) as the data draws them; none: colours of our own


class Segment(NamedTuple):
    """An object, or all of one stuff class."""

    id: int  # of its pixels, from 1
    label: int  # class number from 0
    score: float  # of an object; of stuff the mean probability of its pixels; of ground truth 1
    area: int  # pixels
    box: tuple[int, int, int, int]  # x, y, width, height around its pixels
    crowd: bool = False  # of ground truth: a region of many objects

    @classmethod
    def of(
        cls, mask: NDArray[np.bool_], *, id: int, label: int, score: float = 1.0, crowd: bool = False
    ) -> Segment | None:
        """The segment of these pixels, (H, W); None if there is no pixel."""
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            return None
        left, top = int(columns[0]), int(rows[0])
        box = (left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top)
        return cls(id, label, score, int(np.count_nonzero(mask)), box, crowd)


@dataclass(frozen=True, eq=False)
class PanopticMap(Result):
    """The segments of one picture."""

    COLUMNS: ClassVar = {
        "image": "", "id": "d", "label": "", "category_id": "d", "thing": "d", "score": ".6f", "area": "d",
        "x": "d", "y": "d", "width": "d", "height": "d",
    }  # fmt: skip

    name: str  # the picture's path as it was given
    classes: PanopticClasses
    ids: NDArray[np.int32]  # (H, W)
    segments: tuple[Segment, ...]

    def present(self) -> list[int]:
        """Numbers of the classes in the picture."""
        return [segment.label for segment in self.segments]

    def counts(self) -> dict[str, int]:
        """Number of things per class, the most frequent first; then stuff, each once."""
        things = [s.label for s in self.segments if s.label < self.classes.things]
        counts = np.bincount(np.array(things, np.int64), minlength=self.classes.things)
        counted = {self.classes.names[k]: int(counts[k]) for k in np.argsort(-counts, kind="stable") if counts[k]}
        return counted | {self.classes.names[s.label]: 1 for s in self.segments if s.label >= self.classes.things}

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture."""
        height, width = self.ids.shape
        return width, height

    def rows(self, show: Show = ALL) -> list[dict[str, Any]]:
        """One row per segment."""
        segments = self.to_dict()["segments"]
        boxes = [dict(zip(("x", "y", "width", "height"), entry.pop("bbox"), strict=True)) for entry in segments]
        return [{"image": self.name, **entry, **box} for entry, box in zip(segments, boxes, strict=True)]

    def text(self, show: Show = LIKELY) -> str:
        """x.jpg: 2 cat, sky, sea."""
        things = self.classes.names[: self.classes.things]
        parts = [f"{count} {name}" if name in things else name for name, count in self.counts().items()]
        return f"{self.name}: {', '.join(parts) or '-'}"

    def to_dict(self, show: Show = ALL) -> dict[str, Any]:
        """For JSON."""
        height, width = self.ids.shape
        segments = [
            {
                "id": segment.id,
                "label": self.classes.names[segment.label],
                "category_id": self.classes.ids[segment.label],
                "thing": segment.label < self.classes.things,
                "score": round(float(segment.score), 6),
                "area": segment.area,
                "bbox": list(segment.box),
            }
            for segment in self.segments
        ]
        return {"image": self.name, "width": width, "height": height, "segments": segments}

    def to_supervision(self, show: Show = ALL) -> Any:
        """sv.Detections: a mask for each segment."""
        numbers = np.array([segment.id for segment in self.segments], self.ids.dtype)
        boxes = np.array([segment.box for segment in self.segments], np.float32).reshape(-1, 4)
        labels = np.array([segment.label for segment in self.segments], np.int64)
        return installed("supervision").Detections(
            xyxy=np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1),
            mask=self.ids == numbers[:, None, None],  # (S, H, W)
            confidence=np.array([segment.score for segment in self.segments], np.float32),
            class_id=labels,
            data={"class_name": np.array([self.classes.names[label] for label in labels], str)},
        )

    def paint(self, picture: Image.Image, side: int) -> Image.Image:
        """A small picture with the segments in their colours; its longer side has at most `side` pixels."""
        from resnest.runtime.draw import paint_regions

        return paint_regions(picture, self._regions(), side)

    def _drawn(self, picture: Image.Image, show: Show) -> Image.Image:
        from resnest.runtime.draw import draw_regions

        return draw_regions(picture, self._regions(), self._legend())

    def _regions(self) -> Regions:
        """The segments: each thing has a shade of its class's colour."""
        from resnest.runtime.draw import Regions
        from resnest.runtime.fonts import drawn_names

        names, colours = drawn_names(tuple(self.classes.names)), class_colours(self.classes)
        regions = Regions(self._numbers(), [], [])
        seen = [0] * len(names)
        for segment in self.segments:
            regions.names.append(names[segment.label])
            regions.colours.append(shade(colours[segment.label], seen[segment.label]))
            seen[segment.label] += segment.label < self.classes.things
        return regions

    def _numbers(self) -> NDArray[np.int32]:
        """(H, W) the place of each pixel's segment in `segments`, -1 where there is none."""
        keys = np.array([segment.id for segment in self.segments], np.int64)
        table = np.full(max(int(self.ids.max()), *keys, 0) + 1, -1, np.int32)
        table[keys] = np.arange(len(keys))
        return table[self.ids]

    def _legend(self) -> list[Entry]:
        """Things with their number, and stuff with its fraction of the picture."""
        from resnest.runtime.draw import Entry
        from resnest.runtime.fonts import drawn_names

        names, colours, things = (
            drawn_names(tuple(self.classes.names)),
            class_colours(self.classes),
            self.classes.things,
        )
        of_name = dict(zip(names, colours, strict=True))
        shown = dict(zip(self.classes.names[:things], names, strict=False))
        counts = [(shown[name], count) for name, count in self.counts().items() if name in shown]
        stuff = [s for s in sorted(self.segments, key=lambda s: -s.area) if s.label >= things]
        parts = [(names[s.label], in_percent(s.area / self.ids.size)) for s in stuff]
        return [Entry(f"{name}  {amount}", of_name[name]) for name, amount in [*counts, *parts]]

    def _own_picture(self, suffix: str) -> Image.Image | None:
        return Image.fromarray(encode_ids(self.ids)) if suffix == ".png" else None


# --- Panoptic maps in COCO's files, predicted or ground truth: a folder of PNGs, and a json of their segments.
# The colour of a pixel is the number of its segment: R + 256 G + 65536 B, black is void.


def write_panoptic(path: Path, maps: Iterable[tuple[int, PanopticMap]], classes: PanopticClasses) -> None:
    """Write maps with their image numbers into `path` and the folder of its name.

    Raises:
        ResnestError: the files cannot be written.
    """
    writer = PanopticWriter(path, classes)
    for number, panoptic in maps:
        writer.add(number, panoptic)
    writer.close()


class PanopticWriter:
    """Writes maps one by one: a PNG at once, the json at the end.

    Raises:
        ResnestError: as all of its methods: the files cannot be written.
    """

    def __init__(self, path: Path, classes: PanopticClasses) -> None:
        self.path, self.folder, self.classes = path, path.with_suffix(""), classes
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        check_replaceable(path)
        with write_errors(path):
            self.folder.mkdir(parents=True, exist_ok=True)

    def add(self, number: int, panoptic: PanopticMap, file_name: str = "") -> None:
        """Add a map; `file_name` of its PNG is by default the image's number, as in COCO."""
        file_name = file_name or f"{number:012d}.png"
        with write_errors(self.path):
            save_marked(Image.fromarray(encode_ids(panoptic.ids)), self.folder / file_name)
        height, width = panoptic.ids.shape
        self.images.append({"id": number, "file_name": panoptic.name, "width": width, "height": height})
        self.annotations.append({"image_id": number, "file_name": file_name, "segments_info": _infos(panoptic)})

    def close(self) -> None:
        content = {
            "info": {"description": WRITTEN},  # at the start
            "images": self.images,
            "annotations": self.annotations,
            "categories": _categories(self.classes),
        }
        with write_errors(self.path), replacing(self.path) as temporary:
            temporary.write_text(json.dumps(content), encoding="utf-8")


class PanopticFolder:
    """COCO's files in a folder: panoptic.json with the segments, and in panoptic/ a PNG of their ids for each picture.

    Args:
        inputs: pictures that must not be replaced.

    Raises:
        ResnestError: as all of its methods: the files cannot be written.
    """

    HAS_IDS: ClassVar = True

    def __init__(self, folder: str | Path, classes: PanopticClasses, inputs: Iterable[Path] = ()) -> None:
        self.files = OutputFolder(Path(folder) / "panoptic", ".png", inputs)
        self.writer = PanopticWriter(Path(folder) / "panoptic.json", classes)

    @classmethod
    def open(cls, path: Path, card: Any, show: Show, asked: Asked) -> PanopticFolder:
        check_for_output(path)  # before a folder is made in it
        opened = cls(path, card.classes, asked.paths)
        opened.files.check(asked.pictures, MASKS_MARK, root=path)
        return opened

    def add(self, result: PanopticMap, picture: Placed | None = None) -> Path:
        """Add a result; without its picture's place, its PNG is named after the last part of the result's name."""
        with self.files.writing(picture, result.name) as path:
            number = picture.number if picture else len(self.files.written)
            self.writer.add(number, result, path.relative_to(self.writer.folder).as_posix())
        return path

    def close(self) -> str:
        """Write the json; returns a summary."""
        self.writer.close()
        return f"{len(self.files.written)} maps in {self.files}, and {self.writer.path.name} beside it"


def _infos(panoptic: PanopticMap) -> list[dict[str, Any]]:
    return [
        {
            "id": segment.id,
            "category_id": panoptic.classes.ids[segment.label],
            "area": segment.area,
            "bbox": list(segment.box),
            "iscrowd": int(segment.crowd),
            "score": segment.score,
        }
        for segment in panoptic.segments
    ]


def _categories(classes: PanopticClasses) -> list[dict[str, Any]]:
    colours = [list(colour) for colour in class_colours(classes)]
    return [
        {"id": key, "name": name, "isthing": int(label < classes.things), "color": colour}
        for label, (key, name, colour) in enumerate(zip(classes.ids, classes.names, colours, strict=True))
    ]


@dataclass(frozen=True)
class PanopticFiles:
    """A panoptic json; its PNGs are read on demand."""

    path: Path
    folder: Path
    classes: PanopticClasses  # things first, otherwise in the file's order
    entries: dict[int, dict[str, Any]]  # by image: file_name and segments_info
    names: dict[int, str]  # of the pictures

    @classmethod
    def read(cls, path: Path, folder: Path | None = None) -> PanopticFiles:
        """Read a json; `folder` of the PNGs is by default that of the json's name.

        Raises:
            ResnestError: the file cannot be read, or is no panoptic json.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            entries = {int(entry["image_id"]): entry for entry in content["annotations"]}
            names = {int(entry["id"]): str(entry["file_name"]) for entry in content["images"]}
            return cls(path, folder or path.with_suffix(""), _classes(content["categories"]), entries, names)
        except OSError as error:
            raise ResnestError(f"{path} cannot be read: {error.strerror or error}") from None
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            why = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise ResnestError(f"{path} is not a panoptic json as COCO has it: {why}") from None

    def load(self, image: int) -> PanopticMap:
        """The map of one image.

        Raises:
            ResnestError: there is none; its PNG cannot be read, or has other segments than the json.
        """
        if image not in self.entries:
            raise ResnestError(f"{self.path} has no segments of the image {image}")
        entry = self.entries[image]
        try:
            file = self.folder / str(entry["file_name"])
            ids = decode_ids(np.asarray(decode_image(file, formats=("PNG",))))
            return described(ids, entry["segments_info"], self.classes, self.names.get(image, str(image)))
        except BadImage:
            raise
        except ResnestError as error:
            raise ResnestError(f"{file}: {error}") from None
        except (KeyError, TypeError, ValueError) as error:
            raise ResnestError(f"{self.path}: what it says of the image {image} is not as expected ({error})") from None


def described(
    ids: NDArray[np.int32], infos: Iterable[dict[str, Any]], classes: PanopticClasses, name: str
) -> PanopticMap:
    """A map of ids (H, W) with the segments of a json.

    Raises:
        ResnestError: an id that only one of the two has, or a duplicate; an unknown category.
        KeyError, TypeError, ValueError: the json has something else.
    """
    labels = {number: label for label, number in enumerate(classes.ids)}
    segments: dict[int, Segment] = {}
    for info in infos:
        number, category = int(info["id"]), int(info["category_id"])
        if category not in labels:
            raise ResnestError(f"segment {number} has the category {category}, which is not among the categories")
        if number in (VOID, *segments):
            defect = "occurs twice in the json" if number else "cannot be: black is void"
            raise ResnestError(f"segment {number} {defect}")
        score, crowd = float(info.get("score", 1.0)), bool(info.get("iscrowd", 0))
        segment = Segment.of(ids == number, id=number, label=labels[category], score=score, crowd=crowd)
        if segment is None:
            raise ResnestError(f"segment {number} is in the json and has no pixel in the PNG")
        segments[number] = segment
    if sum(segment.area for segment in segments.values()) < np.count_nonzero(ids != VOID):
        strange = np.setdiff1d(ids, [VOID, *segments])
        more = f" (and {len(strange) - 1} more)" if len(strange) > 1 else ""
        raise ResnestError(f"segment {strange[0]} is in the PNG and not in the json{more}")
    return PanopticMap(name, classes, ids, tuple(segments.values()))


def _classes(categories: list[dict[str, Any]]) -> PanopticClasses:
    """Classes of the json. Raises ValueError for none, or duplicate numbers."""
    ordered = sorted(categories, key=lambda category: not category["isthing"])
    if not ordered or len({category["id"] for category in ordered}) < len(ordered):
        raise ValueError("its categories are none, or two have one id")
    coloured = all("color" in category for category in ordered)
    return PanopticClasses(
        names=tuple(str(category["name"]) for category in ordered),
        ids=tuple(int(category["id"]) for category in ordered),
        things=sum(bool(category["isthing"]) for category in ordered),
        colours=tuple((int(r), int(g), int(b)) for r, g, b in (c["color"] for c in ordered)) if coloured else (),
    )

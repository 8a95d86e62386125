"""Pascal VOC: one xml file of boxes for each image (host.robots.ox.ac.uk/pascal/VOC, devkit, section 5).

    samples = read_voc(Path("VOC2012/Annotations"), stems=["2008_000008"])

VOC counts pixels from 1 and includes the last one, so a box starts at xmin - 1; where a tool counts from 0
(`voc_origin`), at xmin. `difficult` objects are treated as crowds: ignored in training, and neither true nor false
positives. Classes are in the order of their names. An xml file is of the picture with its own name, as in the devkit;
`<filename>` decides between several.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

import numpy as np

from resnest.data.folders import locate_pictures
from resnest.data.samples import clean_name
from resnest.data.stores import FolderStore
from resnest.detection.data import DetectionSamples, ObjectTable, is_marked
from resnest.detection.formats.foreign import CVAT, LABELME_XML, refusal
from resnest.detection.repeats import without_repeats
from resnest.detection.segmentations import Segmentations
from resnest.errors import ResnestError
from resnest.figures import counted
from resnest.runtime.bands import AS_IS, read_picture

MAX_BYTES = 16 * 2**20  # of one xml file; those of VOC have some kilobytes
CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass
class _Scene:
    """The content of one xml file."""

    size: tuple[int, int] | None  # width, height
    picture: str  # the file's name, without its folder
    names: list[str] = field(default_factory=list)
    boxes: list[tuple[float, ...]] = field(default_factory=list)
    difficult: list[bool] = field(default_factory=list)


def read_voc(folder: Path, stems: Sequence[str] | None = None, *, first: int = 1) -> DetectionSamples:
    """The xml files of a folder, all or those of the images that are listed.

    A listed image without an xml file has no objects: Datumaro and CVAT write none for it.

    Args:
        first: the number of the first pixel, as `voc_origin` finds it.

    Raises:
        ResnestError: with the file and the object.
    """
    chosen = list(stems) if stems is not None else sorted(xml_stems(folder))
    if not chosen:
        raise ResnestError(f"{folder}: no image is listed")
    known = xml_stems(folder)
    empty = [stem for stem in chosen if stem not in known]
    if len(empty) == len(chosen):
        raise ResnestError(f"{folder}: none of {len(chosen)} listed images has an xml file: there is no {empty[0]}.xml")
    scenes = [_read(folder / known[stem]) if stem in known else _Scene(None, "") for stem in chosen]
    pictures = locate_pictures(folder, [(stem, scene.picture) for stem, scene in zip(chosen, scenes, strict=True)])
    root, keys, notes = pictures.root, pictures.names, pictures.notes
    for stem, key in zip(chosen, keys, strict=True):
        if stem not in known and not (root / key).is_file():
            raise ResnestError(f"{folder}: {stem} is listed, but there is neither a {stem}.xml nor a picture of it")
    sizes = [scene.size or read_picture(root / key, AS_IS).size for scene, key in zip(scenes, keys, strict=True)]
    names = tuple(sorted({name for scene in scenes for name in scene.names}))
    if stems is None and pictures.alone:
        notes = (*notes, f"left out: {counted(pictures.alone, 'image', 'images')} without an xml file")
    if empty:
        notes = (*notes, f"{counted(len(empty), 'listed image has', 'listed images have')} no xml file, and no objects")
    table, repeated = without_repeats(_table(scenes, sizes, names, first), keys)
    return DetectionSamples.build(
        FolderStore(root), keys, names, tuple(range(1, len(names) + 1)), table, (*notes, *repeated)
    )


def xml_stems(folder: Path) -> dict[str, str]:
    """The xml files of a folder: stem -> name."""
    return {file.stem: file.name for file in folder.iterdir() if file.suffix.lower() == ".xml"}


def _table(scenes: list[_Scene], sizes: list[tuple[int, int]], names: tuple[str, ...], first: int) -> ObjectTable:
    """The objects of all files, whose pixels are counted from `first`."""
    counts = np.array([len(scene.names) for scene in scenes], np.int64)
    boxes = np.array([box for scene in scenes for box in scene.boxes], np.float32).reshape(-1, 4)
    boxes[:, :2] -= first
    number = {name: label for label, name in enumerate(names)}
    labels = [number[name] for scene in scenes for name in scene.names]
    return ObjectTable(
        image_ids=np.arange(1, len(scenes) + 1),
        sizes=np.array(sizes, np.int32),
        firsts=np.cumsum(counts) - counts,
        counts=counts,
        boxes=boxes,
        labels=np.array(labels, np.int64),
        crowd=np.array([mark for scene in scenes for mark in scene.difficult], bool),
        areas=np.prod(boxes[:, 2:] - boxes[:, :2], axis=1, dtype=np.float64),
        ids=np.arange(1, len(boxes) + 1),
        segmentations=Segmentations.build(None for _ in labels),
    )


def _read(path: Path) -> _Scene:
    root = _parse(path)
    scene = _Scene(_size(root), PurePosixPath((root.findtext("filename") or "").strip().replace("\\", "/")).name)
    for number, item in enumerate(root.findall("object"), 1):
        name, box = (item.findtext("name") or "").strip(), item.find("bndbox")
        where = f"{path}: object {number} ({name or 'without a name'})"
        if box is None and item.find("polygon") is not None:
            raise refusal(path, LABELME_XML)
        if not name or box is None:
            raise ResnestError(f"{where}: needed are name, and bndbox with {', '.join(CORNERS)}")
        values = [box.findtext(corner) for corner in CORNERS]
        corners = tuple(_number(text) for text in values)
        if not np.isfinite(corners).all():
            raise ResnestError(f"{where}: bndbox {values} is not four finite numbers {', '.join(CORNERS)}")
        scene.boxes.append(corners)
        try:
            scene.names.append(clean_name(name))
            scene.difficult.append(is_marked(item.findtext("difficult")))
        except ValueError as error:
            raise ResnestError(f"{where}: {error}") from None
    return scene


def _size(root: ElementTree.Element) -> tuple[int, int] | None:
    width, height = (_number(root.findtext(f"size/{side}")) for side in ("width", "height"))
    return (int(width), int(height)) if width >= 1 and height >= 1 else None  # some tools write 0


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")


class _Builder(ElementTree.TreeBuilder):
    """Refuses a document type, which could declare entities that grow without limit."""

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        raise ResnestError("it has a DOCTYPE, which annotations do not need")


def _parse(path: Path) -> ElementTree.Element:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ResnestError(f"{path} cannot be read ({error.strerror or error})") from None
    if len(content) > MAX_BYTES:
        raise ResnestError(f"{path} is larger than {MAX_BYTES / 2**20:g} MiB: it is no annotation")
    try:
        root = ElementTree.fromstring(content, ElementTree.XMLParser(target=_Builder()))
    except ElementTree.ParseError as error:
        raise ResnestError(f"{path} is cut off or not xml ({error})") from None
    except ResnestError as error:
        raise ResnestError(f"{path} is refused: {error}") from None
    if root.tag != "annotation":
        if root.tag == "annotations":
            raise refusal(path, CVAT)
        raise ResnestError(f"{path} is not Pascal VOC's: it starts with <{root.tag}>, not <annotation>")
    return root

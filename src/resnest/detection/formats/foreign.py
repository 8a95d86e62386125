"""Data of annotation tools that is not read: recognised by the tool's marks, with the export to choose instead.

    find_foreign(Path("export"))        # raises ResnestError: ... looks like CVAT's own xml: export as COCO 1.0 ...

It is looked for after all formats that are read, so that no mark here can hide data that is understood.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from resnest.data.folders import has_class_folders, part_folders
from resnest.data.formats import DatasetHandle
from resnest.data.parts import WHOLE
from resnest.detection.formats.finding import MOST_LISTED, visible, with_suffix
from resnest.detection.formats.marks import kind_of, kind_of_text
from resnest.detection.formats.yolo_files import looks_like_yolo
from resnest.errors import ResnestError

PLACES = ("", "annotations", "Annotations", "manifests/output")
HEAD = 4096  # bytes of a text
HEAD_OF_JSON = 64 * 2**10

# kind of a json file (marks.KINDS): what it looks like, what to do
JSON = {
    "labelstudio": ("Label Studio's own json", "export as COCO"),
    "supervisely": ("Supervisely's own json", "export as COCO"),
    "sagemaker": ("a manifest of SageMaker Ground Truth", "write its boxes as COCO json"),
    "labelbox": ("Labelbox's own json", "convert it to COCO json"),
    "scalabel": ("Scalabel's json, as of BDD100K", "convert it to COCO json, with its to_coco"),
    "createml": ("CreateML's json", "export as COCO or Pascal VOC"),
    "results": ("detections of a model, COCO's format of results", "give the annotations of the images"),
    "superannotate": ("SuperAnnotate's own json", "export as COCO"),
    "datumaro": ("Datumaro's own json", "export as COCO, in Datumaro as coco_instances"),
    "fiftyone": ("FiftyOne's own json", "export as fiftyone.types.COCODetectionDataset"),
    "segment_anything": ("the json of Segment Anything (SA-1B)", "write its objects, with a class each, as COCO json"),
    "open_images": ("Open Images' hierarchy of classes", "convert the boxes to COCO json"),
    "via3": ("json of VGG Image Annotator 3", "export as COCO"),
}
CVAT = ("CVAT's own xml", "export as COCO 1.0 or PASCAL VOC 1.1")
DOTA = ("DOTA's text of rotated boxes", "detectors here have upright boxes: write these, as COCO json")
KITTI = ("KITTI's labels", "convert them to COCO json")
RECORDS = ("TensorFlow records", "export as COCO json")
RUNS = ("a table of run lengths, as of Kaggle", "write its masks as PNG files, or as COCO json")
LABELME_XML = ("the xml of LabelMe's web tool (LabelMe 3.0 of CVAT)", "export as COCO 1.0, or draw in labelme 5")
LABELME_SHAPE = re.compile("<(polygon|segm)>")
LABELS_ALONE = "has label files of YOLO, but there are no pictures of them: put these in {}"
METADATA = ("labels of the datasets library", "write them to labels.csv, with the columns path, label and split")
LABELLED_ROW = re.compile(r'(?=.*\bfile_name\b).*(^|[,;\t"])(label|labels|class|category)([,;\t\r]|"\s*[:,]|"?\s*$)')
FIFTYONE_CLASSES = "export as fiftyone.types.ImageClassificationDirectoryTree"
# files and folders that one tool alone writes: how they are found, what they look like, what to do
LAYOUTS: tuple[tuple[str, tuple[str, str]], ...] = (
    ("wider_face_split", ("WIDER FACE's boxes", "convert them to COCO json")),
    ("*/wider_face_split", ("WIDER FACE's boxes", "convert them to COCO json")),
    ("gt/gt.txt", ("MOT's text of tracked boxes", "export as COCO json")),
    ("*/gt/gt.txt", ("MOT's text of tracked boxes", "export as COCO json")),
    ("*/ground_truth/*/*_mask.png", ("MVTec AD's masks of defects", "write images/ and masks/, or class folders")),
    ("ground_truth/**/*_mask.png", ("MVTec AD's masks of defects", "write images/ and masks/, or class folders")),
    ("annotations/*.datum", ("Datumaro's binary annotations", "export as COCO, in Datumaro as coco_instances")),
    ("datum-*.arrow", ("Datumaro's arrow files", "export as COCO, in Datumaro as coco_instances")),
)
# first line of a csv file
TABLES = (
    (r"(?=.*\bfilename\b)(?=.*\bxmin\b)(?=.*\bymax\b)", ("a table of boxes for TensorFlow", "export as COCO json")),
    (r"(?=.*region_shape_attributes)", ("the csv of VGG Image Annotator", "export as json, which is read")),
    (r"(?=.*\bImageID\b)(?=.*\bXMin\b)", ("a table of boxes of Open Images", "convert it to COCO json")),
    (r"(?=.*\bImageID\b)(?=.*\bLabelName\b)", ("a table of Open Images", "convert it to COCO json, or a labels.csv")),
    (r"(?=.*\b(EncodedPixels|rle_mask|rle)\b)(?=.*\b(ImageId(_ClassId)?|id|img)\b)", RUNS),
)  # fmt: skip
# names in a zip file that only annotations of objects have
IN_ZIP = re.compile(
    r"(_annotations\.coco\.json|annotations/(instances|person)[^/]*\.json|(^|/)annotations\.xml|(^|/)obj\.data"
    r"|(^|/)labels/(.*/)?[^/]+\.txt|(^|/)Annotations/[^/]+\.xml|(^|/)ann/[^/]+\.json|(^|/)labelTxt/[^/]+\.txt)$"
)
DOTA_LINE = re.compile(r"^(-?[\d.]+\s+){8}(?![-\d.]+(\s|$))\S+(\s+[012])?\s*$")  # four corners, class, difficult
DOTA_HEAD = re.compile(r"^\s*(imagesource|gsd)\s*:", re.IGNORECASE)
KITTI_LINE = re.compile(r"^[A-Za-z]\w*(\s+-?[\d.]+(e-?\d+)?){14,15}\s*$")
DOTA_FOLDER = "labelTxt"
TEXTS = (
    DOTA_FOLDER,
    "labelTxt-v1.0",
    "labelTxt-v1.5",
    "labels",
    "label_2",
    "annotations",
    "annfiles",
    "labels/original",
)


def find_foreign(path: Path, task: str | None = None) -> DatasetHandle | None:
    """Raises ResnestError for data of objects that is recognised; else None: it is something else."""
    listing = Listing(path)
    for mark in MARKS:
        mark(listing)
    return None


class Listing:
    """The file, or the files of a folder, of `annotations` in it, and of folders named by part."""

    def __init__(self, path: Path) -> None:
        self.path = path
        folders = [path / place for place in (*PLACES, *part_folders(path))] if path.is_dir() else []
        self.groups = [visible(folder) for folder in folders] or [[path]]

    def files(self, *suffixes: str) -> list[Path]:
        """Those with a suffix, a few of each folder."""
        return [
            file
            for group in self.groups
            for file in [file for file in group if file.suffix.lower() in suffixes][:MOST_LISTED]
            if file.is_file()
        ]


def refusal(path: Path, looks: tuple[str, str]) -> ResnestError:
    """The error for a file that looks like something, and what to do."""
    return ResnestError(f"{path} looks like {looks[0]}, which is not read: {looks[1]}")


def _zips(listing: Listing) -> None:
    """A zip with annotations, or a folder with some and no data."""
    for file in listing.files(".zip"):
        try:
            with zipfile.ZipFile(file) as archive:
                found = _annotations_in(archive)
        except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError):
            continue
        if found:
            raise ResnestError(f"{file} holds annotations of objects ({found}): unpack it, and give the folder")


def _annotations_in(archive: zipfile.ZipFile) -> str:
    """The name of a file of annotations in it, or ""."""
    names = [info.filename for info in archive.infolist() if not info.is_dir() and "__MACOSX" not in info.filename]
    if named := next((name for name in names if IN_ZIP.search(name)), ""):
        return named
    if len([name for name in names if name.lower().endswith(".xml")]) * 2 > len(names):
        return next(name for name in names if name.lower().endswith(".xml"))
    for name in [name for name in names if name.lower().endswith((".json", ".jsonl"))][:MOST_LISTED]:
        with archive.open(name) as member:
            text = member.read(HEAD_OF_JSON).decode("utf-8", "replace")
        if kind_of_text(text) or (PurePosixPath(name).name == "metadata.jsonl" and '"objects"' in text):
            return name
    return ""


def _jsons(listing: Listing) -> None:
    for file in listing.files(".json", ".jsonl", ".ndjson", ".manifest"):
        if (kind := kind_of(file)) in JSON:
            raise refusal(file, JSON[kind])


def _supervisely(listing: Listing) -> None:
    """A project has meta.json, and folders of data sets with `ann` and `img`."""
    path = listing.path
    folders = [path, *(child for child in listing.groups[0][:MOST_LISTED] if child.is_dir())]
    if any((folder / "ann").is_dir() and (folder / "img").is_dir() for folder in folders):
        raise refusal(path, JSON["supervisely"])


def _devkits(listing: Listing) -> None:
    """Several of Pascal VOC's years."""
    found = [child.name for child in listing.groups[0][:MOST_LISTED] if (child / "Annotations").is_dir()]
    if len(found) > 1 and all(with_suffix(listing.path / name / "Annotations", ".xml") for name in found):
        raise ResnestError(f"{listing.path} holds several data sets, {' and '.join(found)}: give the folder of one")


def _xmls(listing: Listing) -> None:
    """CVAT's begins with <annotations>; an unknown xml file is refused if it is given itself."""
    apart = [file for folder in sorted(listing.path.glob("[Aa]nnotations/*/")) for file in with_suffix(folder, ".xml")]
    if apart and LABELME_SHAPE.search(_head(apart[0])):
        raise refusal(apart[0].parent, LABELME_XML)
    for file in listing.files(".xml")[:MOST_LISTED]:
        text = re.sub(r"<\?.*?\?>|<!--.*?-->", "", _head(file), flags=re.DOTALL).lstrip("\ufeff \t\r\n")
        if text.startswith("<annotations"):
            raise refusal(file, CVAT)
        if listing.path.is_file() and text.startswith("<annotation"):
            raise ResnestError(f"{file} is the xml of one picture: give its folder")


def _texts(listing: Listing) -> None:
    """Labels of DOTA and KITTI, each picture's in a text."""
    folders = [listing.path, *(listing.path / part for part in (*part_folders(listing.path), WHOLE))]
    for folder in [folder / name for folder in folders for name in TEXTS]:
        for file in with_suffix(folder, ".txt")[:MOST_LISTED]:
            lines = [line for line in _head(file).splitlines() if line.strip()]
            if folder.name.startswith(DOTA_FOLDER) or any(
                DOTA_HEAD.match(line) or DOTA_LINE.match(line) for line in lines[:3]
            ):
                raise refusal(folder, DOTA)
            if lines and KITTI_LINE.match(lines[0]):
                raise refusal(folder, KITTI)


def _layouts(listing: Listing) -> None:
    """Files and folders by their names."""
    for pattern, looks in LAYOUTS if listing.path.is_dir() else ():
        if found := next(iter(sorted(listing.path.glob(pattern))), None):
            raise refusal(found, looks)


def _metadata(listing: Listing) -> None:
    """Labels in the metadata of the datasets library's ImageFolder; beside class folders these are read."""
    folders = [listing.path, *(listing.path / part for part in part_folders(listing.path))]
    for file in (folder / name for folder in folders for name in ("metadata.csv", "metadata.jsonl")):
        first = _head(file).lstrip("\ufeff").partition("\n")[0]
        if LABELLED_ROW.match(first) and not has_class_folders(listing.path):
            raise refusal(file, METADATA)


def _fiftyone(listing: Listing) -> None:
    """Classes of FiftyOne's images, by name, beside `data`."""
    for folder in (listing.path, *(listing.path / part for part in part_folders(listing.path))):
        text = _head(folder / "labels.json").lstrip() if (folder / "data").is_dir() else ""
        if text.startswith("{") and '"classes"' in text and '"labels"' in text:
            raise refusal(folder / "labels.json", ("FiftyOne's own json", FIFTYONE_CLASSES))


def _labels_alone(listing: Listing) -> None:
    """YOLO's label files without pictures, as Label Studio exports them unless asked for images."""
    folder = listing.path / "labels"
    texts = [file for file in with_suffix(folder, ".txt")[:MOST_LISTED] if looks_like_yolo(file)]
    if texts and not (listing.path / "images").is_dir():
        raise ResnestError(f"{folder} {LABELS_ALONE.format(listing.path / 'images')}")


def _tables(listing: Listing) -> None:
    for file in listing.files(".csv"):
        first = _head(file).lstrip("\ufeff").partition("\n")[0]
        for pattern, looks in TABLES:
            if re.match(pattern, first):
                raise refusal(file, looks)


def _records(listing: Listing) -> None:
    if found := listing.files(".tfrecord", ".tfrecords", ".record"):
        raise refusal(found[0], RECORDS)


MARKS: tuple[Callable[[Listing], None], ...] = (
    _zips,
    _supervisely,
    _devkits,
    _jsons,
    _xmls,
    _texts,
    _tables,
    _records,
    _metadata,
    _layouts,
    _fiftyone,
    _labels_alone,
)


def _head(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(HEAD).decode("utf-8", "replace")
    except OSError:
        return ""

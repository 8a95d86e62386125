"""nnU-Net's raw data, as far as it is pictures: imagesTr/CASE_0000.png, labelsTr/CASE.png and dataset.json.

    handle = find_nnunet(Path("nnUNet_raw/Dataset120_Roads"))      # DatasetHandle, or None

Source: nnU-Net's documentation/dataset_format.md. `_0000` is the first channel, or all three of a colour picture.
imagesTs with labelsTs is the test part; the training part is split for you.
"""

from __future__ import annotations

import json
import re
from collections.abc import Set
from functools import partial
from pathlib import Path

from resnest.data.formats import DatasetHandle
from resnest.errors import ResnestError
from resnest.runtime.decode import SUFFIXES
from resnest.segmentation.class_lists import ClassList, parse_json_rows
from resnest.segmentation.data import PixelSamples
from resnest.segmentation.mask_folders import MASK_SUFFIXES, Pairs, read_masks

DESCRIPTION = "dataset.json"
FIRST = "_0000"  # ends the names of pictures
CHANNEL = re.compile(r"_\d{4}$")


def find_nnunet(root: Path) -> DatasetHandle | None:
    """None without such folders."""
    pairs = {part: Pairs(root / f"images{part}", root / f"labels{part}", image_ending=FIRST) for part in ("Tr", "Ts")}
    there = {part: pair for part, pair in pairs.items() if pair.images.is_dir() and pair.masks.is_dir()}
    if "Tr" not in there:
        return None
    if "Ts" in there and any(there["Ts"].masks.iterdir()):
        note = ("the test part is the validation part",)
        reads = {part: partial(read_nnunet, pair, root) for part, pair in there.items()}
        return DatasetHandle("nnunet", str(root), train=reads["Tr"], val=reads["Ts"], test=reads["Ts"], notes=note)
    return DatasetHandle("nnunet", str(root), unsplit=partial(read_nnunet, there["Tr"], root))


def read_nnunet(pairs: Pairs, root: Path) -> PixelSamples:
    """One part.

    Raises:
        ResnestError: volumes, channels in several files, or a dataset.json that does not name the classes.
    """
    files = sorted(file.name for file in pairs.images.iterdir() if not file.name.startswith("."))
    strange = next((name for name in files if Path(name).suffix.lower() not in SUFFIXES), "")
    masks = (file.name for file in sorted(pairs.masks.iterdir()) if not file.name.startswith("."))
    strange = strange or next((name for name in masks if Path(name).suffix.lower() not in MASK_SUFFIXES), "")
    if strange:
        raise ResnestError(
            f"{root} is nnU-Net data with files such as {strange}: pictures and masks are read as PNG or TIFF, volumes"
            " are not"
        )
    cases = {stem.removesuffix(FIRST) for name in files if (stem := Path(name).stem).endswith(FIRST)}
    other = next((name for name in files if _channel_of(Path(name).stem, cases)), "")
    if other:
        raise ResnestError(f"{pairs.images} has channels in files of their own, such as {other}: save colour pictures")
    return read_masks(pairs, root, _read_classes(root / DESCRIPTION) if (root / DESCRIPTION).is_file() else None)


def _channel_of(stem: str, cases: Set[str]) -> bool:
    """Whether it names another channel than the first of one of these."""
    return not stem.endswith(FIRST) and bool(CHANNEL.search(stem)) and CHANNEL.sub("", stem) in cases


def _read_classes(path: Path) -> ClassList:
    """`labels` of dataset.json: {"background": 0, "road": 1}, in version 1 {"0": "background"}."""
    try:
        labels = json.loads(path.read_text(encoding="utf-8-sig"))["labels"]
        region = next((name for name, value in labels.items() if isinstance(value, list)), None)
        if region is None:
            return ClassList.from_rows(parse_json_rows(json.dumps(labels)), path)
    except ResnestError as error:
        raise ResnestError(f"{path}: {error}") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ResnestError(f"{path} does not say which classes its masks have, as `labels`") from None
    raise ResnestError(f"{path}: {region!r} is a region of several values: name each value by itself")

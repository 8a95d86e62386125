"""Opening a data set of any format, with its training and validation splits.

    data = open_dataset(Path("flowers"))               # data.format, data.train, data.val: to train on
    val = open_split(Path("imagenet"), split="val")    # one split alone: to evaluate on

The format is detected by `formats`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from resnest.data.formats import DatasetHandle, Read, detect_format
from resnest.data.parts import TITLES
from resnest.data.samples import Samples
from resnest.data.splitting import Holdout, note_of_leaks, split
from resnest.data.stores import FolderStore
from resnest.errors import ResnestError, parameter
from resnest.figures import counted
from resnest.runtime.bands import RGB, Bands
from resnest.runtime.decode import as_exif
from resnest.tasks import check_task


@dataclass(frozen=True)
class Splits:
    """The training and validation split of a data set, with the same classes."""

    format: str  # one of `all_formats()`
    where: str
    train: Samples
    val: Samples
    unsplit: Samples | None = None  # both splits together, where the validation split was held out here
    notes: tuple[str, ...] = ()  # on the parts, and what is beside them

    def __post_init__(self) -> None:
        self.train.check(self.where)
        if len(self.val) == 0:
            raise ResnestError(f"{self.where} has no validation image: every class has one image only")
        self.val.check_validation(self.where)

    def describe(self) -> str:
        held = " held out" if self.unsplit else ""
        return (
            f"{self.where} ({self.format}): {len(self.train)} training and {len(self.val)} validation images{held},"
            f" {self.train.describe(self.val)}{_in_brackets((*self.notes, *_note_of_shared(self)))}"
        )


@dataclass(frozen=True)
class EvaluationSplit:
    """The images to evaluate on, and their description."""

    samples: Samples
    describe: str


def open_dataset(
    where: str | Path,
    *,
    format: str = "auto",
    task: str | None = None,
    reading: str = "",
    val_fraction: float = 0.2,
    seed: int = 0,
    group: str | None = None,
    fold: str | None = None,
    exif: str = "auto",
    bands: Bands = RGB,
) -> Splits:
    """Open a data set of any format for training.

    Args:
        where: a folder, a file, "hf:owner/name" or "digits".
        format: one of FORMATS where the rule above would choose another.
        task: what it is for, where it has annotations of several kinds: "segmentation", "panoptic", ...
        reading: how the task reads its annotations, as `Recipe.reading`; "": the usual way.
        val_fraction: fraction of each class that is held out if the data set has no validation split.
        seed: of that split.
        group: what belongs together and is held out together, as `data.group`.
        fold: hold out a fold, as `data.fold`; of data with a validation part, one of its training part.
        exif: which way up pictures with an EXIF orientation were annotated, as `data.exif`.
        bands: how pictures are read, as `data.in_chans` and `data.value_range`.

    Raises:
        ResnestError: nothing there, no images, one class, a class without images, classes that do not agree; images
            without a group, too few groups.
    """
    how: dict[str, Any] = {"exif": as_exif(exif), "bands": bands}
    handle = detect_format(where, format, task, reading)
    rule = Holdout(val_fraction, seed, group, fold)
    if handle.unsplit is not None or (fold and handle.train):
        return _split(handle, replace(_undivided(handle)(), **how), rule)
    if handle.train is None or handle.val is None:
        raise ResnestError(f"{handle.where} has a validation split but no folder train beside it: nothing to train on")
    train, val = replace(handle.train(), **how), replace(handle.val(), **how)
    check_task(val, train.task, f"the validation split of {handle.where}", "its training split")
    train, val = train.matched(val, handle.where)
    leaks = note_of_leaks(train, val, group, handle.columns, handle.where) if group else ()
    return Splits(handle.format, handle.where, train, val, notes=(*handle.notes, *leaks))


def _undivided(handle: DatasetHandle) -> Read:
    """What is split here: all of data without parts, of others the training part, which folds divide."""
    read = handle.unsplit or handle.train
    assert read is not None
    return read


def open_split(
    where: str | Path,
    split: str = "auto",
    *,
    format: str = "auto",
    task: str | None = None,
    reading: str = "",
    holdout: Holdout | None = None,
    trained_on: Mapping[str, Any] | None = None,
    exif: str = "auto",
    bands: Bands = RGB,
) -> EvaluationSplit:
    """Open one split of a data set for evaluation; the other is not read.

    Args:
        split: "val", "test", "train", "all" of a data set without splits; "auto" is the validation split, and for a
            data set without splits the hold-out set of training, or everything if the model was not trained here. For a
            model trained on folds of a training part, "auto" is its fold, and "train" the others.
        task, reading: what it is for, and how it is read, as in `open_dataset`.
        holdout: what training held out; None for a model that was not trained here.
        trained_on: the run's account of its data (run.json): of other data nothing was held out.
        exif, bands: as in `open_dataset`.

    Raises:
        ResnestError: as `open_dataset`; a split that the data set does not have.
    """
    if split not in ("auto", "val", "test", "train", "all"):
        raise ResnestError(f"{parameter('split', split)}: expected auto, val, test, train or all")
    how: dict[str, Any] = {"exif": as_exif(exif), "bands": bands}
    handle = detect_format(where, format, task, reading)
    if handle.unsplit is None:
        if split == "all":
            option = parameter("split", split)
            raise ResnestError(f"{option}: {handle.where} comes with its own validation split; choose val or train")
        if holdout and holdout.fold and split in ("auto", "train") and handle.train:
            trained = replace(handle.train(), **how)
            if _is_training_data((str(where), handle.where), trained, trained_on or {}):
                return _side(handle, _split(handle, trained, holdout), split)
        part = "val" if split == "auto" else split
        read, name = getattr(handle, part), TITLES[part]
        if read is None:
            raise ResnestError(f"{parameter('split', split)}: {handle.where} has no {name} split")
        return _evaluation_split(handle, replace(read(), **how), f"{name} images")
    if split == "test":
        raise ResnestError(f"{parameter('split', split)}: {handle.where} has no test split; choose val or all")
    unsplit = replace(handle.unsplit(), **how)
    held_out = holdout is not None and _is_training_data((str(where), handle.where), unsplit, trained_on or {})
    if split == "all" or (split == "auto" and not held_out):
        return _evaluation_split(handle, unsplit, "images, all there are")
    return _side(handle, _split(handle, unsplit, holdout or Holdout()), split)


def _side(handle: DatasetHandle, splits: Splits, split: str) -> EvaluationSplit:
    if split == "train":
        return _evaluation_split(handle, splits.train, "images, without those held out", splits.notes)
    return _evaluation_split(handle, splits.val, "images held out", splits.notes)


def _evaluation_split(
    handle: DatasetHandle, samples: Samples, what: str, notes: tuple[str, ...] | None = None
) -> EvaluationSplit:
    about = f"{len(samples)} {what}, {samples.describe()}{_in_brackets(handle.notes if notes is None else notes)}"
    return EvaluationSplit(samples, f"{handle.where} ({handle.format}): {about}")


def _is_training_data(names: tuple[str, ...], samples: Samples, account: Mapping[str, Any]) -> bool:
    """Whether these are the images of which training held some out; also if they are at another place now."""
    counted = account.get("held_out_of", account.get("train_images", 0) + account.get("val_images", 0))
    if not account or not counted:
        return not account  # without an account it may be; or the data had a validation part of its own
    if account.get("data") in (*names, *(str(Path(name).resolve()) for name in names)):
        return True
    return bool(counted == len(samples) and set(account.get("class_names", ())) <= set(samples.class_names))


def _note_of_shared(splits: Splits) -> tuple[str, ...]:
    """A note on files that both splits have, of which validation says nothing about new ones."""
    both = (splits.train, splits.val)
    folders = [(part.store.root, part.keys) for part in both if isinstance(part.store, FolderStore)]
    if len(folders) < len(both):
        return ()
    train, val = (_files(root, keys) for root, keys in folders)
    shared = train & val
    if not shared:
        return ()
    many = counted(len(shared), "image is", "images are")
    return (f"{many} in both parts, such as {Path(min(shared)).name}: figures of these say nothing about new ones",)


def _files(root: Path, keys: Iterable[str]) -> set[str]:
    """Paths; of links among files, which cost a look at each, their own."""
    resolved = os.path.realpath(root)
    return {os.path.normpath(os.path.join(resolved, key)) for key in keys}


def _in_brackets(notes: tuple[str, ...]) -> str:
    return f" ({'; '.join(notes)})" if notes else ""


def _split(handle: DatasetHandle, samples: Samples, rule: Holdout) -> Splits:
    if len(samples) == 1:
        raise ResnestError(f"{handle.where} has one image only: nothing would be left to validate on")
    samples.check(handle.where)
    train, val, notes = split(samples, rule, handle.columns, handle.where)
    if handle.unsplit is None:
        notes = (*notes, "of the training part; the validation part is left for a last test")
    return Splits(handle.format, handle.where, train, val, samples, (*handle.notes, *notes))

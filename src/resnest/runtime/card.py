"""The model card beside the weights: `config.json`, with all that is needed to use them.

The file has the hub's format, plus one key `resnest` with our structure. Each task has a card of its own, which adds
its fields (`detection/card.py`, ...).

    card = ModelCard.read(Path("runs/a"))
    card.task, card.class_names, card.preprocess
"""

from __future__ import annotations

import dataclasses
import json
import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from resnest.errors import BREAKING, ResnestError, parameter
from resnest.files import CARD_NAME
from resnest.runtime.bands import Bands
from resnest.runtime.preprocess import LARGEST, ImageTransform
from resnest.runtime.tiles import Tiles
from resnest.spec import Spec
from resnest.tasks import DEFAULT_TASK, TASKS, TaskInfo, task_info


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Structure, classes and preprocessing of a model, and its measured figures."""

    task: ClassVar[str]
    fits_backbone_layouts: ClassVar[bool] = False  # whether files of the network alone, in any layout, are read, too

    architecture: str  # official name, or "resnest" for a free spec
    spec: Spec
    class_names: tuple[str, ...]  # for people, all different
    preprocess: ImageTransform
    class_keys: tuple[str, ...] = ()  # what data sets call the classes, where that differs: ImageNet's synsets
    in_chans: int = 3
    figures: dict[str, float] = field(default_factory=dict)  # e.g. {"top1": 0.91}, fractions

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", tuple(map(_clean_name, self.class_names)))
        if not isinstance(self.preprocess, self.preprocess_type()):
            raise ResnestError(f"a model card of the task {self.task} has another task's preprocessing")
        _check_normalisation(self.preprocess, self.in_chans)

    @property
    def info(self) -> TaskInfo:
        """The `TaskInfo` of its task."""
        return task_info(self.task)

    @property
    def bands(self) -> Bands:
        """How the model reads pictures."""
        return Bands(self.in_chans, self.preprocess.value_range)

    @property
    def fits_timm(self) -> bool:
        """Whether timm's `local-dir:` can build the network."""
        return False

    @property
    def reading(self) -> str:
        """How the model's task reads data where it can in several ways, as the setting of a recipe; "": the usual."""
        return ""

    @property
    def predicts_by_threshold(self) -> bool:
        """Whether a threshold is part of the prediction, and not of what is shown of it."""
        return False

    def with_threshold(self, threshold: float) -> Self:
        """The same that predicts by another threshold. Raises ResnestError if it predicts by none."""
        raise ResnestError(
            f"{parameter('threshold', threshold)} is no part of what this model, {self.info.noun}, predicts"
        )

    def with_window(self, window: int) -> ModelCard:
        """The same with sliding windows. Raises ResnestError if the task has none."""
        raise ResnestError(f"{parameter('window', window)} is for segmenters, and this model is {self.info.noun}")

    def with_tiles(self, tiles: Tiles) -> Self:
        """The same for tiles of a picture.

        Raises:
            ResnestError: the task takes none; a file of one size would get them smaller than the model does.
        """
        option = parameter("tile", tiles.tile)
        if not self.info.joiner:
            known = [task_info(name) for name in TASKS]
            nouns = " and ".join(f"{info.noun.removeprefix('a ')}s" for info in known if info.joiner)
            raise ResnestError(f"{option} is for {nouns}, and this model is {self.info.noun}: leave it out")
        if canvas := getattr(self.preprocess, "canvas", None):
            side, free = tiles.tile, dataclasses.replace(self.preprocess, canvas=None)  # type: ignore[type-var]
            (wide, _), (wanted, _) = (form.scaled_size(side, side) for form in (self.preprocess, free))
            if wide != wanted:
                raise ResnestError(
                    f"{option}: this file takes {canvas[1]} x {canvas[0]} pixels, into which tiles would be shrunk to"
                    f" {wide} pixels, and the model itself gets {wanted}: take smaller tiles, or export it with another"
                    " size"
                )
        return self

    # --- defined by each task ---

    @classmethod
    def preprocess_type(cls) -> type[ImageTransform]:
        """The class of `preprocess`."""
        raise NotImplementedError

    def own_keys(self) -> dict[str, Any]:
        """The task's own entries of the file's key `resnest`."""
        return {}

    @classmethod
    def parse_own(cls, ours: Mapping[str, Any]) -> dict[str, Any]:
        """Parse these entries to arguments of the class. Raises what `from_json` handles: ValueError, KeyError, ..."""
        return {}

    @classmethod
    def parse_preprocess(cls, content: dict[str, Any]) -> ImageTransform:
        """Parse `dataclasses.asdict`; `mean` and `std` become tuples again."""
        return cls.preprocess_type()(**content)

    @classmethod
    def parse_foreign(cls, content: Mapping[str, Any]) -> ModelCard:
        """Parse a card of other software."""
        raise ValueError("it has no key 'resnest'")

    def hub_keys(self) -> dict[str, Any]:
        """Entries for other software, beside the key `resnest`."""
        return {"label_names": list(self.class_names)}

    # --- what people read of it, on the hub ---

    pipeline_tag: ClassVar[str]  # the hub's word for the task
    hub_metric: ClassVar[tuple[str, str]]  # the figure that the hub shows, and its word for it
    figure_titles: ClassVar[Mapping[str, str]]  # of the figures that its README lists, by key
    usage: ClassVar[tuple[str, str]]  # what is printed of a result in Python, and options of `resnest predict`

    def describe_network(self, paper: str) -> str:
        """Such as "Faster R-CNN on a ResNeSt"; `paper` is a link."""
        raise NotImplementedError

    def describe_purpose(self) -> str:
        """Such as "finds objects of 3 classes, with boxes"."""
        raise NotImplementedError

    def describe_input(self) -> str:
        """Description of the network's input."""
        raise NotImplementedError

    def describe_pixels(self) -> str:
        """Such as "RGB"."""
        return self.bands.describe()

    def describe_normalisation(self) -> str:
        return f"mean {self.preprocess.mean}, standard deviation {self.preprocess.std}"

    # --- files ---

    def to_json(self) -> str:
        ours = {
            "task": self.task,
            "name": self.architecture,
            "in_chans": self.in_chans,
            "spec": dataclasses.asdict(self.spec),
            "preprocess": self._preprocess_keys(),
            "class_keys": list(self.class_keys),
            "figures": {name: value for name, value in self.figures.items() if math.isfinite(value)},  # JSON has no NaN
            **self.own_keys(),
        }
        return json.dumps({**self.hub_keys(), "resnest": ours}, indent=2) + "\n"

    def _preprocess_keys(self) -> dict[str, Any]:
        keys: dict[str, Any] = dataclasses.asdict(self.preprocess)  # type: ignore[call-overload]
        if keys["value_range"] is None:  # so that earlier versions read cards of RGB
            del keys["value_range"]
        return keys

    @classmethod
    def read(cls, directory: Path) -> ModelCard:
        """Raises ResnestError if the directory has no card, or an invalid one."""
        path = directory / CARD_NAME
        if not path.is_file():
            raise ResnestError(f"{directory} has no {CARD_NAME}: not a finished run or a saved model")
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ResnestError(f"{path} cannot be understood as a model card: {_reason(error)}") from None
        return cls.from_json(text, where=str(path))

    @classmethod
    def from_json(cls, text: str, *, where: str) -> ModelCard:
        """Parse a card that `to_json` wrote, or timm; the ResnestError for an invalid one names `where`."""
        try:
            content = json.loads(text)
            if "_model_class" in content:
                raise ResnestError(
                    f"{where} is of a {content['_model_class']} of segmentation_models_pytorch and has no names of"
                    " classes: `resnest.create_segmenter(NETWORK, SPEC, num_classes=K, pretrained=FOLDER)` loads it,"
                    " and `resnest.Model.of(NET, NAMES, PREPROCESS).save_pretrained(FOLDER)` makes a model of it"
                )
            if "resnest" not in content:
                return task_info(DEFAULT_TASK).card.parse_foreign(content)
            return task_info(content["resnest"]["task"]).card._parse(content)
        except (RecursionError, OverflowError, KeyError, TypeError, AttributeError, ValueError) as error:
            raise ResnestError(f"{where} cannot be understood as a model card: {_reason(error)}") from None

    @classmethod
    def _parse(cls, content: Mapping[str, Any]) -> Self:
        ours = content["resnest"]
        preprocess = dict(ours["preprocess"])
        for key in ("mean", "std"):
            preprocess[key] = per_channel(preprocess[key], ours["in_chans"])
        return cls(
            architecture=ours["name"],
            spec=Spec(**ours["spec"]),
            class_names=tuple(content["label_names"]),
            preprocess=cls.parse_preprocess(preprocess),
            in_chans=ours["in_chans"],
            class_keys=tuple(ours.get("class_keys", ())),
            figures=ours["figures"],
            **cls.parse_own(ours),
        )


@dataclass(frozen=True, kw_only=True)
class AnnotatedCard(ModelCard):
    """Cards of tasks whose classes have ids of the data set, and optionally colours."""

    category_ids: tuple[int, ...]  # the data's numbers of the classes
    colours: tuple[tuple[int, int, int], ...] = ()  # the data's, one a class; none: of our own

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.colours and len(self.colours) != len(self.class_names):
            raise ResnestError(f"a model card has {len(self.colours)} colours for {len(self.class_names)} classes")
        if len(set(self.class_names)) < len(self.class_names):
            raise ResnestError("a model card has two classes of one name")
        if len(set(self.category_ids)) != len(self.class_names):
            raise ResnestError(
                f"category_ids={list(self.category_ids)} of a model card must be {len(self.class_names)} different"
                " numbers, one a class"
            )

    def own_keys(self) -> dict[str, Any]:
        colours = {"colours": [list(colour) for colour in self.colours]} if self.colours else {}
        return {"category_ids": list(self.category_ids), **colours}

    @classmethod
    def parse_own(cls, ours: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "category_ids": tuple(parse_integers(ours.get("category_ids", ()), "category_ids")),
            "colours": tuple(_parse_colour(colour) for colour in ours.get("colours", ())),
        }


def per_channel(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """Numbers of a card; those of RGB for other channels, as of timm and earlier versions, become their mean."""
    of_colours = len(values) == 3 != channels
    return (sum(values) / len(values),) * channels if of_colours else tuple(values)


def parse_sides(values: Any, name: str) -> tuple[int, ...]:
    """Two side lengths in pixels. Raises ValueError."""
    sides = tuple(parse_integers(values, name))
    if len(sides) != 2 or not all(1 <= side <= LARGEST for side in sides):
        raise ValueError(f"{name} is {values!r}, not two numbers from 1 to {LARGEST}")
    return sides


def parse_integers(values: Any, name: str) -> list[int]:
    """Raises ValueError for anything else."""
    if not isinstance(values, list | tuple) or not all(type(value) is int for value in values):
        raise ValueError(f"{name} is {values!r}, not integers")
    return list(values)


def _clean_name(name: Any) -> str:
    """A class's name without spaces around it, on one line: data sets are read so, and older cards may have others."""
    if not isinstance(name, str):
        raise ResnestError(f"label_names of a model card has {name!r}, which is no name")
    return "".join(" " if unicodedata.category(letter) in BREAKING else letter for letter in name.strip())


def _check_normalisation(preprocess: ImageTransform, channels: int) -> None:
    """Raises ResnestError for invalid mean or std, or an invalid range of values."""
    for name in ("mean", "std"):
        values = getattr(preprocess, name)
        numbers = all(type(value) in (int, float) and math.isfinite(value) for value in values)
        if len(values) != channels or not numbers or (name == "std" and min(values) <= 0):
            count = "three" if channels == 3 else str(channels)
            kind = f"{'number' if channels == 1 else 'numbers'}{' above 0' if name == 'std' else ''}"
            raise ResnestError(f"{name}={list(values)} of a model card must be {count} {kind}, one a channel")
    full = preprocess.value_range
    if full is not None and not (type(full) in (int, float) and math.isfinite(full) and full > 0):
        raise ResnestError(f"value_range={full!r} of a model card must be a number above 0")


def _parse_colour(value: Any) -> tuple[int, int, int]:
    red, green, blue = parse_integers(value, "colours")
    if not all(0 <= part <= 255 for part in (red, green, blue)):
        raise ValueError(f"colours has {value!r}, not three numbers from 0 to 255")
    return red, green, blue


def _reason(error: Exception) -> str:
    return f"the key {error} is missing" if isinstance(error, KeyError) else str(error)

"""Options that are for models of some tasks alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import typer

from resnest.errors import ResnestError

if TYPE_CHECKING:
    from resnest.inference.predicting import Predictor
    from resnest.runtime.predictor import ImagePredictor
    from resnest.runtime.tiles import Tiles


def set_options(**options: Any) -> dict[str, Any]:
    """Options that are set."""
    return {name: value for name, value in options.items() if value is not None}


def refuse(options: Mapping[str, Any], message: str) -> None:
    """Raises ResnestError for the first option that is set."""
    for name, value in options.items():
        if value:
            raise ResnestError(message.format(name.replace("_", "-")))


def read_tiles(tile: int | None, overlap: float | None) -> Tiles | None:
    """What --tile and --overlap ask for. Raises ResnestError."""
    from resnest.runtime.tiles import Tiles

    return Tiles.of(tile, overlap)


def predict_by_threshold(predictor: ImagePredictor, limits: dict[str, Any]) -> dict[str, Any]:
    """Let a model that predicts by a threshold have that of `limits`; returns it as an argument of `Predictor`."""
    if "threshold" not in limits or not predictor.card.predicts_by_threshold:
        return {}
    given = {"threshold": limits.pop("threshold")}
    predictor.card = predictor.card.with_threshold(**given)
    return given


def read_boxes(predictor: Predictor, boxes: str | None, device: str) -> Any:
    """The predictor with what finds its boxes, as --boxes says. Raises ResnestError."""
    from resnest.tasks import box_source

    if boxes is not None:
        return box_source(predictor.card.info).open(boxes, predictor.card, device=device).predictor(predictor)
    if predictor.card.info.boxes:
        typer.echo("note: without --boxes each picture is looked at as the crop of one object", err=True)
    return predictor


def check_options(task: str, options: Iterable[str]) -> None:
    """Raises ResnestError for an option that is for another kind of model."""
    from resnest.tasks import TASKS, load_object, task_info

    def takes(name: str, option: str) -> bool:
        return option in {*load_object(task_info(name).result).OPTIONS, *task_info(name).files}

    for option in options:
        if not takes(task, option):
            owners = [task_info(name) for name in TASKS if takes(name, option)]
            others = " and ".join(f"{owner.noun.removeprefix('a ')}s" for owner in owners)
            raise ResnestError(f"--{option} is for {others}, and this model is {task_info(task).noun}: leave it out")

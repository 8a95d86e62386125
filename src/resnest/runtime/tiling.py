"""Prediction of a large picture in tiles: each is read, prepared and predicted, and the task joins what is found.

predict_in_tiles(engine, card.with_tiles(tiles), open_regions("big.jpg"), "big.jpg", tiles)      # one result
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Protocol

from resnest.runtime.decode import BadImage
from resnest.runtime.engines.exported import Engine, Prepared, Views
from resnest.runtime.regions import Regions
from resnest.runtime.results import Result
from resnest.runtime.tiles import Grid, Tile, Tiles
from resnest.tasks import load_object

AT_ONCE = 2**19  # pixels of tiles in the network at once, however many are a batch: one of 640 x 640

Count = Callable[[int, int], None]  # tiles that are done, of how many


def silent(done: int, of: int) -> None:
    """Tells nobody."""


class Joiner(Protocol):
    """Makes the result of a picture from its tiles, which come row by row."""

    def __init__(self, engine: Engine, card: Any, grid: Grid, name: str, views: Views | None) -> None: ...

    def add(self, images: Sequence[Prepared], tiles: Sequence[Tile]) -> None:
        """Run the network on some tiles, all of one shape."""

    def result(self) -> Result:
        """The result, after the last tile."""


def predict_in_tiles(
    engine: Engine,
    card: Any,
    picture: Regions,
    name: str,
    tiles: Tiles,
    *,
    batch_size: int = 1,
    views: Views | None = None,
    on_tile: Count = silent,
) -> Result:
    """The result of a picture.

    Args:
        card: `ModelCard.with_tiles`.
        batch_size: tiles in the engine at once, at most; of large tiles fewer.
        views: test-time augmentation, of each tile.
        on_tile: is told when the picture is open, and after each batch of tiles.

    Raises:
        BadImage: the picture cannot be used.
    """
    grid = tiles.grid(*picture.size)
    on_tile(0, len(grid))

    def prepared(tile: Tile) -> Prepared:
        image = picture.read(tile.box)
        try:
            return Prepared(name, card.preprocess(image), image.size, image if views else None)
        except BadImage as error:
            raise BadImage(name, error.reason) from None

    if len(grid) == 1:
        result: Result = card.info.predict(engine, card, [prepared(next(grid.tiles()))], views)[0]
        on_tile(1, 1)
        return result
    joiner: Joiner = load_object(card.info.joiner)(engine, card, grid, name, views)
    high, wide = card.preprocess.padded_size(*(stop - start for start, stop in (grid.columns[0], grid.rows[0])))
    at_once = max(1, min(batch_size, AT_ONCE // (high * wide)))
    waiting, done = grid.tiles(), 0
    while batch := list(islice(waiting, at_once)):
        joiner.add([prepared(tile) for tile in batch], batch)
        done += len(batch)
        on_tile(done, len(grid))
    return joiner.result()

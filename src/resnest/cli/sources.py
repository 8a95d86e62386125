"""Videos, cameras, streams and TIFF files for `resnest predict`: frame by frame, with drawings as a video.

Ctrl-C ends a source after the frames that were read; what was written until then is complete.
"""

from __future__ import annotations

import re
import signal
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import typer

from resnest.errors import ResnestError, parameter

if TYPE_CHECKING:
    from resnest.inference.predicting import Predictor
    from resnest.runtime.bands import Bands
    from resnest.runtime.frames import Every, Frame
    from resnest.runtime.outputs import OutputFolder, Placed
    from resnest.runtime.results import Asked, Result
    from resnest.runtime.sources import Frames

HELD = 48_000_000  # pixels of all frames in memory, those of three batches: 144 MB
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Sources:
    """The sources among the pictures of a command."""

    wanted: Every
    addresses: dict[Path, str] = field(default_factory=dict)  # of what has no path, by the path that stands for it
    found: dict[Path, str] = field(default_factory=dict)  # each source's kind
    videos: OutputFolder | None = None  # of drawings
    next_number: int = 0  # of a frame, in files of many pictures
    more: int = 0  # images beyond one for each source
    interrupted: bool = False
    in_folders: bool = False  # whether videos in folders are taken: that a folder of photos has some is no wish
    left: int = 0  # videos in folders that were not

    @classmethod
    def every(cls, text: str | None) -> Self:
        """Raises ResnestError."""
        from resnest.runtime.frames import Every

        return cls(Every() if text is None else Every.of(text), in_folders=text is not None)

    def takes(self, name: str, start: bytes) -> bool:
        """Whether a file of a folder is taken, by its name and first bytes: TIFF, and with --every videos."""
        from resnest.runtime.sources import VIDEO, kind_of

        kind = kind_of(name, start)
        self.left += kind == VIDEO and not self.in_folders
        return kind != "" and (kind != VIDEO or self.in_folders)

    def stand_in(self, address: str) -> Path:
        """A path in the current folder for an address, so that its output has a place: camera-0, host-live.m3u8."""
        for path, known in self.addresses.items():
            if known == address:
                return path
        bare = re.sub(r"[^\w.-]+", "-", re.sub(r"^\w+://([^/@]*@)?|[?#].*$", "", address)).strip("-.") or "stream"
        path, count = Path(bare), 1
        while path in self.addresses:
            count += 1
            path = Path(f"{bare}-{count}")
        self.addresses[path] = address
        return path

    def find(self, pictures: list[Placed], annotations: Path | None) -> None:
        """Recognise the sources. Raises ResnestError for options that do not fit them."""
        from resnest.runtime.sources import VIDEO, kind_of_file

        for picture in pictures:
            kind = VIDEO if picture.path in self.addresses else kind_of_file(picture.path)
            if kind:
                self.found[picture.path] = kind
        self.next_number = max((picture.number for picture in pictures), default=0) + 1
        if annotations and self.found:
            option = parameter("annotations", annotations)
            raise ResnestError(f"{option} is for pictures, and {next(iter(self.found))} has several: leave one out")
        if self.wanted != type(self.wanted)() and VIDEO not in self.found.values():
            raise ResnestError(f"{parameter('every')} is for videos, cameras and streams, and there is none")

    def read_as(self, bands: Bands) -> None:
        """For a model of other pictures than photographs, the pages of a TIFF file are bands of one picture."""
        from resnest.runtime.sources import PAGES

        if not bands.plain:
            self.found = {path: kind for path, kind in self.found.items() if kind != PAGES}

    def has(self, picture: Placed) -> bool:
        return picture.path in self.found

    @property
    def columns(self) -> tuple[str, ...]:
        """Of CSV, beside the task's."""
        return ("frame", "time") if self.found else ()

    def drawn_as_pictures(self, asked: Asked, draw: Path) -> list[Placed]:
        """The pictures whose drawings are pictures; opens the folder for those that are videos.

        Raises:
            ResnestError: a video would replace a file of somebody else.
        """
        from resnest.files import OUTPUT_MARK
        from resnest.runtime.outputs import OutputFolder
        from resnest.runtime.sources import VIDEO

        moving = [picture for picture in asked.pictures if self.found.get(picture.path) == VIDEO]
        if moving:
            self.videos = OutputFolder(draw, ".mp4", asked.paths)
            self.videos.check(moving, OUTPUT_MARK)
        return [picture for picture in asked.pictures if self.found.get(picture.path) != VIDEO]

    def predict(self, source: Placed, predictor: Predictor, printer: Any, outputs: Any) -> int:
        """Predict the frames of a source; returns how many images are unusable: a video that ends early is one."""
        from resnest.runtime.decode import BadImage
        from resnest.runtime.sources import open_source

        if self.interrupted:
            return 0
        try:
            where = self.addresses.get(source.path, source.path)
            frames = open_source(where, self.wanted, regions=predictor.tiles is not None)
        except BadImage as error:
            typer.echo(f"skipped: {error}", err=True)
            return 1
        try:
            with self._ending(frames):
                bad, seen = self._frames(frames, source, predictor, printer, outputs)
        finally:
            frames.close()
        self.more += max(seen, 1) - 1
        if frames.problem:
            typer.echo(f"{frames.name}: {frames.problem}", err=True)
            self.more += min(seen, 1)
            return bad + 1
        if frames.live and not self.interrupted:
            typer.echo(f"{frames.name}: the stream has ended", err=True)
        return bad

    def _frames(
        self, frames: Frames, source: Placed, predictor: Predictor, printer: Any, outputs: Any
    ) -> tuple[int, int]:
        """How many images are unusable, and how many there are."""
        from resnest.runtime.decode import BadImage

        bad = seen = 0
        with ExitStack() as stack:
            video = None
            for frame, result in _predicted(frames, predictor):
                seen += 1
                if isinstance(result, BadImage):
                    bad += 1
                    typer.echo(f"skipped: {result}", err=True)
                    continue
                files = self._write(result, frame, source, outputs)
                if self.videos and frame.time is not None:
                    if video is None:
                        video = stack.enter_context(_drawing(self.videos, source, frames))
                    video.add(result.draw(frame.image, outputs.show), frame.time)
                    files["draw"] = str(self.videos.path_of(source.stem))
                printer.write(result, files, _place(frame))
        return bad, seen

    def _write(self, result: Result, frame: Frame, source: Placed, outputs: Any) -> dict[str, str]:
        """The files of a frame: clip/000120.png, of a single page as of a picture."""
        from resnest.runtime.outputs import Placed

        single = frame.name == str(source.path)
        stem = source.stem if single else source.stem / f"{frame.number:06}"
        number = source.number if single else self.next_number
        self.next_number += not single
        image = frame.image if frame.time is None else None
        files: dict[str, str] = outputs.write(result, Placed(Path(frame.name), stem, number), image)
        return files

    @contextmanager
    def _ending(self, frames: Frames) -> Iterator[None]:
        """The first Ctrl-C, or the signal to end, stops the frames; the second acts as usual."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, _: object) -> None:
            self.interrupted = True
            frames.stop()
            restore()

        before = {number: signal.signal(number, stop) for number in SIGNALS}

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        try:
            yield
        finally:
            restore()


def _predicted(frames: Frames, predictor: Predictor) -> Iterator[tuple[Frame, Any]]:
    """Frames with their results. Live ones one by one, others in batches within HELD."""
    waiting: deque[Frame] = deque()

    def read() -> Iterator[tuple[str, Any]]:
        for frame in frames:
            waiting.append(frame)
            yield frame.name, frame.image

    usual = predictor.batch_size
    fitting = HELD // (3 * max(1, frames.size[0] * frames.size[1]))
    predictor.batch_size = 1 if frames.live else max(1, min(usual, fitting))
    try:
        for result in predictor.stream_named(read()):
            yield waiting.popleft(), result
    finally:
        predictor.batch_size = usual


@contextmanager
def _drawing(folder: OutputFolder, source: Placed, frames: Any) -> Iterator[Any]:
    from resnest.runtime.video_file import VideoFile

    with folder.writing(source) as path, VideoFile.writing(path, frames.rate) as video:
        yield video
    typer.echo(f"drawn: {path}", err=True)


def _place(frame: Frame) -> dict[str, float]:
    return {"frame": frame.number} if frame.time is None else {"frame": frame.number, "time": round(frame.time, 6)}

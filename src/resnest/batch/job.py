"""A job: a list of pictures, the parts that are finished, and the file that they become.

    with open_job(Path("results.parquet"), entries, identity, form) as job:
        for start, stop in job.gaps():
            job.write(Part(start, stop, unusable), content)
        print(job.finish().unusable)

Until then, everything lies in the hidden folder `.results.parquet.parts`: the list, what the job is, and finished
parts. Then `results.parquet` is written in one step, and `.results.parquet.json` says what made it. Both names begin
with a dot, so that nobody who reads the folder of the results takes them for results.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from resnest.batch.forms import Form
from resnest.batch.identity import Identity, other_job, with_pictures
from resnest.batch.parts import Part, find_parts, gaps, write_part
from resnest.batch.pictures import Entry, PictureList, write_list
from resnest.errors import ResnestError
from resnest.files import WRITTEN, check_replaceable, write_atomically, write_errors

JOB, LIST = "job.json", "pictures.jsonl"  # in the folder of parts; a folder without the first is nobody's
Shard = tuple[int, int]  # i of n, from 1
WHOLE: Shard = (1, 1)


class Summary(NamedTuple):
    """What became of the pictures."""

    pictures: int
    unusable: int


@dataclass(frozen=True)
class Job:
    """A job that is open in this process, or on this machine."""

    out: Path
    pictures: PictureList
    form: Form
    identity: Identity = field(default_factory=dict)
    finished: Summary | None = None  # there is nothing left to do

    @property
    def folder(self) -> Path:
        return parts_folder(self.out)

    def gaps(self, start: int = 0, stop: int | None = None) -> list[tuple[int, int]]:
        """The pictures that have no result yet, as ranges."""
        return gaps(self._parts(), start, self.pictures.count if stop is None else stop)

    @property
    def done(self) -> int:
        """Pictures in finished parts."""
        return sum(part.stop - part.start for part in self._parts())

    def write(self, part: Part, content: bytes) -> None:
        """Finish a part. Raises ResnestError: it cannot be written."""
        with kept(self.out):
            write_part(self.folder, part, self.out.suffix, content)

    def finish(self) -> Summary:
        """Write the file from all parts, and remove them."""
        parts = self._parts()
        assert not gaps(parts, 0, self.pictures.count)
        summary = Summary(self.pictures.count, sum(part.unusable for part in parts))
        joined = self.folder / "joined"
        with kept(self.out):
            with joined.open("wb") as file:
                self.form.join((self.folder / f"{part.stem}{self.out.suffix}" for part in parts), file)
                file.flush()
                os.fsync(file.fileno())
            record = {"by": WRITTEN, "job": self.identity, "size": joined.stat().st_size, **summary._asdict()}
            write_atomically(record_of(self.out), json.dumps(record, indent=1).encode())
            joined.replace(self.out)
            (self.folder / JOB).unlink()
        return summary

    def _parts(self) -> list[Part]:
        return find_parts(self.folder, self.out.suffix)


def parts_folder(out: Path) -> Path:
    return out.with_name(f".{out.name}.parts")


def record_of(out: Path) -> Path:
    return out.with_name(f".{out.name}.json")


def shard_name(out: Path, shard: Shard) -> Path:
    """results.parquet -> results-00003-of-00016.parquet."""
    number, count = shard
    return out if shard == WHOLE else out.with_name(f"{out.stem}-{number:05}-of-{count:05}{out.suffix}")


@contextmanager
def kept(out: Path) -> Iterator[None]:
    """Turns an OSError within into a ResnestError that says that the job can go on."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise ResnestError(
            f"{out} cannot be written: {reason}. Finished parts are kept: the same command goes on"
        ) from None


@contextmanager
def open_job(
    out: Path,
    entries: Iterable[Entry],
    identity: Identity,
    form: Form,
    *,
    shard: Shard = WHOLE,
    overwrite: bool = False,
) -> Iterator[Job]:
    """The job that writes `out`: a new one, or the same as before with its finished parts.

    Args:
        identity: of model and options, `identity_of`.
        overwrite: begin anew if another job was begun or finished there; it never replaces what resnest did not write.

    Raises:
        ResnestError: `out` is somebody else's, or another job's, or another process writes it; no pictures.
    """
    _check_out(out)
    folder = parts_folder(out)
    with write_errors(out):
        folder.mkdir(exist_ok=True)
        lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ResnestError(f"another process is writing {out}: wait for its end") from None
    try:
        yield _opened(out, entries, identity, form, shard, overwrite)
    finally:
        lock.release()
        if not (folder / JOB).exists():
            shutil.rmtree(folder, ignore_errors=True)


def _opened(out: Path, entries: Iterable[Entry], identity: Identity, form: Form, shard: Shard, overwrite: bool) -> Job:
    folder = parts_folder(out)
    listed = folder / f"{LIST}.new"
    try:
        with write_errors(out):
            pictures = write_list(entries, listed, shard)
        now = with_pictures(identity, pictures, shard)
        begun, record = read_json(folder / JOB), read_json(record_of(out))
        if record.get("job") == now and _is_whole(out, record):
            (folder / JOB).unlink(missing_ok=True)
            return Job(out, pictures, form, now, Summary(record["pictures"], record["unusable"]))
        then = begun or (record.get("job", {}) if out.exists() else {})
        if then and then != now and not overwrite:
            raise other_job(str(out), then, now)
        with write_errors(out):
            if begun != now:
                for file in folder.glob("part-*"):
                    file.unlink()
            listed.replace(folder / LIST)
            write_atomically(folder / JOB, json.dumps(now).encode())
    finally:
        listed.unlink(missing_ok=True)
    return Job(out, PictureList(folder / LIST, pictures.count, repeated=pictures.repeated), form, now)


def _check_out(out: Path) -> None:
    if not out.parent.is_dir():
        raise ResnestError(f"{out} cannot be written: there is no folder {out.parent}")
    if out.is_dir():
        raise ResnestError(f"{out} is a folder: name a file")
    record = read_json(record_of(out))
    just_finished = record and read_json(parts_folder(out) / JOB) == record["job"]  # and died before the last step
    if not (_is_whole(out, record) or just_finished):
        check_replaceable(out)


def _is_whole(out: Path, record: Mapping[str, Any]) -> bool:
    """Whether a file is the one that a job finished."""
    with contextlib.suppress(OSError):
        return bool(record) and out.stat().st_size == record.get("size")
    return False


def read_json(path: Path) -> dict[str, Any]:
    """What a file of ours says; nothing if it is missing or damaged."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}

"""Data sets of the Hugging Face hub: their parquet files, or tar shards, downloaded into the hub's own cache.

    look_up("hf:owner/name", ["parquet", "tar"])        # Remote: the files, at one commit

`hf:OWNER/NAME`, with `/FOLDER` where the repository holds several data sets, and `@REVISION`. The hub's listing of a
repository is cached, so that it opens without the network once its files are there (RESNEST_OFFLINE, HF_HUB_OFFLINE).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from resnest.checkpoints import hub
from resnest.checkpoints.fetch import is_offline
from resnest.data.folders import is_of
from resnest.data.parts import PART_OF
from resnest.errors import ResnestError
from resnest.files import cache_folder, write_atomically, write_errors

PREFIX = "hf:"
_REFERENCE = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+?)(?:/(?P<folder>[^@]+?))?/?(?:@(?P<revision>.+))?")


@dataclass(frozen=True)
class Remote:
    """Files of one format in a repository, at one commit."""

    kind: str
    repo: str
    folder: str
    commit: str
    names: list[str]

    @property
    def where(self) -> str:
        """A reference pinned to this commit."""
        return f"{PREFIX}{self.repo}{self.folder and '/'}{self.folder}@{self.commit}"

    def fetch(self, name: str) -> Path:
        """The local path of a file, downloaded if it is not in the hub's cache."""
        try:
            return hub.download(self.repo, name, revision=self.commit, kind="dataset", offline=is_offline())
        except hub.HubError as error:
            what = "is not in the hub's cache, and the network is off" if is_offline() else f"did not come: {error}"
            raise ResnestError(f"{self.where}: {name} {what}") from None


def look_up(reference: str, kinds: Sequence[str]) -> Remote:
    """The files of the first kind in the repository.

    Raises:
        ResnestError: not such a reference, no such repository, no network and not looked up before, no files of these
            kinds, or several data sets in it.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise ResnestError(f"{reference} is no data set of the hub: expected hf:OWNER/NAME, hf:OWNER/NAME@REVISION")
    repo, folder, revision = match["repo"], match["folder"] or "", match["revision"]
    commit, names = _listing(reference, repo, revision)
    for kind in kinds:
        files = [name for name in names if is_of(kind, name) and (not folder or name.startswith(f"{folder}/"))]
        if files:
            _check_single_folder(reference, repo, files)
            return Remote(kind, repo, folder, commit, files)
    within = f" in its folder {folder}" if folder else ""
    raise ResnestError(
        f"{reference} has no {' or '.join(kinds)} file{within}; the hub converts many data sets to parquet at"
        f" {PREFIX}{repo}@refs/convert/parquet"
    )


def _check_single_folder(reference: str, repo: str, names: Sequence[str]) -> None:
    folders = {PurePosixPath(name).parent for name in names}
    bases = sorted({str(folder.parent if folder.name.lower() in PART_OF else folder) for folder in folders})
    if len(bases) > 1:
        raise ResnestError(
            f"{reference} holds {len(bases)} data sets: choose one, as in {PREFIX}{repo}/{bases[0]}"
            f" ({', '.join(bases[:5])}{', ...' if len(bases) > 5 else ''})"
        )


def _listing(reference: str, repo: str, revision: str | None) -> tuple[str, list[str]]:
    """Commit and file names of a repository: from the hub, or as cached if offline."""
    note = _note(repo, revision or "main")
    if not is_offline():
        try:
            commit, names = hub.dataset_files(repo, revision)
        except hub.HubError as error:
            raise ResnestError(f"{reference} cannot be opened: {error}") from None
        with write_errors(note.parent):
            for path in (note, _note(repo, commit)):
                write_atomically(path, json.dumps({"commit": commit, "files": names}).encode())
        return commit, names
    try:
        content = json.loads(note.read_bytes())
        return str(content["commit"]), [str(name) for name in content["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        raise ResnestError(f"{reference} has not been opened before, and the network is off") from None


def _note(repo: str, revision: str) -> Path:
    return cache_folder() / "hub" / (re.sub(r"[^\w.-]", "--", f"{repo}@{revision}") + ".json")

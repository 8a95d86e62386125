"""Weights to files: from what a user writes (a path, a published name, the hub) to a file, fetched and verified.

    path = fetch(find_weights("resnest50"))                  # in $RESNEST_HOME/weights, ~/.cache/resnest by default
    path = fetch(find_weights("resnest50"), Path("weights")) # in a folder of yours, to carry elsewhere

Mirrors are tried in the order of trust. A file is compared with its published hash; its full sha256 is then pinned
in the folder's SHA256SUMS (`sha256sum -c` reads it) and compared at every later use. Needs the standard
library and filelock, which torch brings; the hub's rows need huggingface_hub.

    RESNEST_HOME       the cache                     RESNEST_OFFLINE=1   never use the network (HF_HUB_OFFLINE too)
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from resnest.checkpoints import hub
from resnest.checkpoints.folders import INDEX, USUAL, find_weights_file, shard_names
from resnest.checkpoints.manifest import MANIFEST, Mirror, Weights, find_weights
from resnest.errors import ResnestError, one_line
from resnest.files import CARD_NAME, WEIGHTS_NAME, cache_folder, digest_of, replacing, sha256_of
from resnest.progress import Progress
from resnest.spec import ALIASES, BASELINES, PUBLISHED, find_spec

ATTEMPTS = 3  # at one mirror, going on where the last one broke off
TIMEOUT = 30  # seconds without a byte
BLOCK = 1 << 18
SUMS = "SHA256SUMS"
HAND_OVER = "download it elsewhere and give the file in place of the name"

OnBytes = Callable[[str, int, int | None], None]  # file, bytes so far, bytes in all if known


class DownloadFailed(Exception):
    """A mirror failed; the next one is tried."""


def weights_folder() -> Path:
    """The folder of downloaded weights."""
    return cache_folder() / "weights"


def is_offline() -> bool:
    """Whether the user forbade the network."""
    return any(os.environ.get(name, "").lower() in ("1", "true", "yes", "on") for name in OFFLINE)


OFFLINE = ("RESNEST_OFFLINE", "HF_HUB_OFFLINE")


def fetch(row: Weights, folder: Path | None = None, *, progress: OnBytes | None = None) -> Path:
    """The file of a row, verified; downloaded if it is not in the folder yet.

    Raises:
        ResnestError: no mirror delivered (with their errors, and how to provide the file), offline, a file in the
            folder that is not the published one, a folder that cannot be written.
    """
    folder = weights_folder() if folder is None else folder
    target = folder / row.file
    try:
        if target.is_file():
            return _verified(target, row)
        cached = weights_folder() / row.file
        if cached.is_file() and cached != target:
            folder.mkdir(parents=True, exist_ok=True)
            return _copy(_verified(cached, row), target, row)
        if is_offline():
            raise ResnestError(
                f"{row.name} is not in {folder}, and the network is off ({_offline_because()}): {HAND_OVER}"
                f" or put it there as {row.file}"
            )
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{row.file}.lock"):
            if not target.is_file():  # another process may have fetched it meanwhile
                with Progress(f"{target.name}:", megabytes=True, lines=False) as bar:
                    _download(row, target, progress or _shown(bar))
    except OSError as error:
        moved = "; RESNEST_HOME=FOLDER moves it" if folder == weights_folder() else ""
        raise ResnestError(f"{folder} cannot be used for weights: {error.strerror or error}{moved}") from None
    return _verified(target, row)


def _copy(source: Path, target: Path, row: Weights) -> Path:
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
    _pin(target, sha256_of(source))
    return _verified(target, row)


def _download(row: Weights, target: Path, progress: OnBytes) -> None:
    """Fetch from the first mirror that delivers the right bytes, and place them at `target`."""
    failures = []
    for mirror in row.mirrors:
        try:
            part = _from_hub(mirror, target, progress) if mirror.hub else _from_url(mirror.url, target, progress)
            if part.suffix == ".zip":
                part = _unpack(part)
            _check_published(part, row)
        except DownloadFailed as error:
            failures.append(f"{mirror}: {error}")
            continue
        part.replace(target)
        _pin(target, sha256_of(target))
        shutil.rmtree(_hub_folder(target), ignore_errors=True)
        return
    known = " All its links are known to be dead." if row.dead else ""
    raise ResnestError(
        f"{row.name} could not be fetched; tried {'; '.join(failures)}.{known}"
        f" To use it without this network, {HAND_OVER}; `resnest models show {row.network}` lists other rows"
    )


def _check_published(path: Path, row: Weights) -> None:
    """Compare with the published hash. A wrong file is deleted, so that it is not resumed."""
    if row.sha256 and not (digest := sha256_of(path)).startswith(row.sha256):
        expected = f"sha256 {row.sha256}..."
    elif row.sha1 and (digest := digest_of(path, "sha1")) != row.sha1:
        expected = f"sha1 {row.sha1[:8]}..."
    else:
        if _is_page(path):
            path.unlink()
            raise DownloadFailed("a web page came instead of the file")
        return
    what = "a web page came instead of the file" if _is_page(path) else f"other bytes ({digest[:8]}..., not {expected})"
    path.unlink()
    raise DownloadFailed(what)


def _verified(path: Path, row: Weights) -> Path:
    """A file of the folder, compared with its pinned hash; pinned now if a user put it there."""
    digest, pinned = sha256_of(path), read_sums(path.parent).get(path.name)
    if pinned is None:
        wrong = (row.sha256 and not digest.startswith(row.sha256)) or (row.sha1 and digest_of(path, "sha1") != row.sha1)
        if wrong:
            raise ResnestError(f"{path} is not the published {row.name}: its hash is another; delete it to fetch it")
        _pin(path, digest)
    elif pinned != digest:
        raise ResnestError(
            f"{path} has changed since it was fetched (sha256 {digest[:8]}..., pinned {pinned[:8]}... in"
            f" {path.parent / SUMS}): delete it to fetch it again"
        )
    return path


# --- one mirror ---


def _from_url(url: str, target: Path, progress: OnBytes) -> Path:
    """Download to a file beside `target`, resuming an earlier attempt."""
    part = target.with_name(f".{target.name}.part{'.zip' if url.endswith('.zip') else ''}")
    note = part.with_name(f"{part.name}.json")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _receive(url, part, note, target.name, progress)
            note.unlink(missing_ok=True)
            return part
        except DownloadFailed as error:
            if attempt == ATTEMPTS:
                raise DownloadFailed(f"{error}, {ATTEMPTS} times") from None
        except urllib.error.HTTPError as error:
            if error.code == 416:  # nothing is left to download, or the remote file has changed: start anew
                part.unlink(missing_ok=True)
            elif error.code < 500 or attempt == ATTEMPTS:
                raise DownloadFailed(f"HTTP {error.code} {error.reason}") from None
        except urllib.error.URLError as error:
            raise DownloadFailed(f"no connection ({one_line(error.reason)})") from None
        except (OSError, http.client.HTTPException) as error:
            if attempt == ATTEMPTS:
                raise DownloadFailed(f"the connection broke ({one_line(error)}), {ATTEMPTS} times") from None
        time.sleep(0.5 * (attempt - 1))
    raise DownloadFailed("gave up")


def _receive(url: str, part: Path, note: Path, name: str, progress: OnBytes) -> None:
    """One request; appends to `part` if that is the beginning of the same file at the same address."""
    headers = {"User-Agent": "resnest", "Accept-Encoding": "identity"}
    before = _read_note(note)
    have = part.stat().st_size if part.is_file() and before.get("url") == url else 0
    if have and before.get("etag"):
        headers |= {"Range": f"bytes={have}-", "If-Range": before["etag"]}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as answer:
        resumed = answer.status == 206 and str(answer.headers.get("Content-Range", "")).startswith(f"bytes {have}-")
        have = have if resumed else 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        note.write_text(json.dumps({"url": url, "etag": answer.headers.get("ETag", "")}), encoding="utf-8")
        with part.open("ab" if resumed else "wb") as file:
            while block := answer.read(BLOCK):
                file.write(block)
                have += len(block)
                progress(name, have, total)
            file.flush()
            os.fsync(file.fileno())
    if total is not None and have < total:
        raise DownloadFailed(f"cut off after {have:,} of {total:,} bytes")


def _from_hub(mirror: Mirror, target: Path, progress: OnBytes) -> Path:
    """By huggingface_hub, which resumes downloads; the hub's own sha256 of the file is compared."""
    from resnest.checkpoints import hub

    try:
        path = hub.download(mirror.hub, WEIGHTS_NAME, folder=_hub_folder(target))
        announced = hub.announced_sha256(mirror.hub, WEIGHTS_NAME)
    except hub.HubError as error:
        raise DownloadFailed(str(error)) from None
    if announced and sha256_of(path) != announced:
        path.unlink()
        raise DownloadFailed(f"other bytes than the hub announced (sha256 {announced[:8]}...)")
    progress(target.name, path.stat().st_size, path.stat().st_size)
    return path


def _hub_folder(target: Path) -> Path:
    return target.with_name(f".{target.name}.hub")


def _unpack(part: Path) -> Path:
    """The checkpoint inside a published zip file. Its hash is all that was published, so the container comes first."""
    from resnest.checkpoints.reading import unpack_member

    if not zipfile.is_zipfile(part):
        page = _is_page(part)
        part.unlink()
        raise DownloadFailed("a web page came instead of the file" if page else "not a zip file")
    try:
        inner = unpack_member(part, part.with_suffix(""))
    except ResnestError as error:
        raise DownloadFailed(str(error)) from None
    finally:
        part.unlink(missing_ok=True)
    return inner


# --- hashes ---


def read_sums(folder: Path) -> dict[str, str]:
    """The pinned hashes of a folder: file name -> sha256."""
    if not (folder / SUMS).is_file():
        return {}
    lines = (folder / SUMS).read_text(encoding="utf-8", errors="replace").splitlines()
    pairs = (line.split(maxsplit=1) for line in lines if line.strip())
    return {pair[1].lstrip("*"): pair[0] for pair in pairs if len(pair) == 2}


def _pin(path: Path, digest: str) -> None:
    with FileLock(path.parent / f".{SUMS}.lock"):
        sums = {**read_sums(path.parent), path.name: digest}
        with replacing(path.parent / SUMS) as temporary:
            temporary.write_text("".join(f"{sums[name]}  {name}\n" for name in sorted(sums)), encoding="utf-8")


# --- small things ---


def _is_page(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(256).lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml"))


def _read_note(note: Path) -> dict[str, Any]:
    try:
        content = json.loads(note.read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    except (OSError, ValueError):
        return {}


def _offline_because() -> str:
    return ", ".join(f"{name}={os.environ[name]}" for name in OFFLINE if os.environ.get(name))


def _shown(bar: Progress) -> OnBytes:
    """Progress in bytes, from the offset at which the download starts."""

    def show(name: str, have: int, total: int | None) -> None:
        if bar.total != total or not bar.started:
            bar.start(total, done=0 if total == have else have)
        bar.update(have)

    return show


# --- Resolving a model reference to a file: a path, a name of published weights, or a repository of the hub ---

HUB_PREFIX = "hf-hub:"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


def is_network_name(reference: str) -> bool:
    """Whether it is the name of a published network, with or without a tag, or of a baseline."""
    base = reference.split(".", 1)[0]
    return base in PUBLISHED or base in ALIASES or base in BASELINES


def locate(reference: str | Path, *, network: str | None = None) -> tuple[Path, Weights | None]:
    """The checkpoint file, or the directory of a saved model, behind a reference; and the published row if it is one.

    Args:
        network: the name of the network that weights are wanted for, where the reference is a folder of many.

    Raises:
        ResnestError: nothing there, or it could not be fetched.
    """
    path = Path(reference)
    text = str(reference)
    if not text:
        raise ResnestError("the name of the model is empty")
    if path.is_file():
        return path, None
    if path.is_dir():
        return _in_folder(path, network)
    if is_network_name(text):
        row = find_weights(text)
        return fetch(row), row
    if text.startswith(HUB_PREFIX) or _HUB_ID.fullmatch(text):
        return from_hub(text), None
    if path.suffix or len(path.parts) > 1:
        raise ResnestError(f"there is no model at {reference}: expected a run directory or a checkpoint file")
    find_weights(text)  # an unknown name ends here, with the nearest one
    raise AssertionError(text)


def locate_for(network: str | None, reference: str | Path) -> Path:
    """The file or directory of a reference, for a named network. Raises ResnestError for another network's weights."""
    path, row = locate(reference, network=network)
    if row and network and find_spec(network)[1] != row.network:
        raise ResnestError(f"{row.name} are weights of {row.network}, not of {find_spec(network)[1]}")
    return path


def _in_folder(folder: Path, network: str | None) -> tuple[Path, Weights | None]:
    """A saved model, a file downloaded by `resnest models fetch --to`, or the only checkpoint in a folder."""
    if (folder / WEIGHTS_NAME).exists() or (folder / CARD_NAME).exists() or (folder / "recipe.yaml").exists():
        return folder, None
    held = [row for row in MANIFEST if (folder / row.file).is_file()]
    if not held and not read_sums(folder):
        file = find_weights_file(folder)
        if file is None:
            raise ResnestError(f"{folder} has neither {WEIGHTS_NAME} nor another checkpoint")
        return file, None
    if network is None:
        raise ResnestError(f"{folder} holds {', '.join(row.name for row in held)}: give the file instead of the folder")
    wanted = find_weights(network)
    fitting = [row for row in held if row.network == wanted.network and row.head]
    if not fitting:
        raise ResnestError(
            f"{folder} has no weights of {wanted.network}: `resnest models fetch {wanted.name} --to {folder}`"
        )
    row = wanted if wanted in fitting else fitting[0]
    return fetch(row, folder), row


def _download_model(repo: str, revision: str | None) -> Path:
    """The card of a repository, and the first file of weights with a usual name; with a list, all the files in it."""

    def download(name: str) -> Path:
        return hub.download(repo, name, revision=revision, offline=is_offline())

    card = download(CARD_NAME)
    for name in USUAL:
        with contextlib.suppress(hub.NoSuchFile):
            file = download(name)
            if name.endswith(INDEX):
                for part in shard_names(file):
                    download(part)
            return card
    download(WEIGHTS_NAME)  # whose error is the one to tell
    raise AssertionError(repo)


def from_hub(reference: str) -> Path:
    """The folder with weights and card of a repository of the hub, `user/name` or `user/name@revision`.

    Raises:
        ResnestError: no such repository, no network, offline and not in the hub's cache.
    """
    repo, _, revision = reference.removeprefix(HUB_PREFIX).partition("@")
    try:
        path = _download_model(repo, revision or None)
    except hub.HubError as error:
        raise ResnestError(
            f"there is no model at {reference}, and as a repository of the hub it could not be fetched: {error}."
            f" Without a network, {HAND_OVER}"
        ) from None
    return path.parent

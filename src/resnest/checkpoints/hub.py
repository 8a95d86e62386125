"""Access to the Hugging Face hub by huggingface_hub, with its errors in one line each.

path = download("timm/resnest50d.in1k", "model.safetensors")        # into the hub's own cache
"""

from __future__ import annotations

import os
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from resnest.errors import ResnestError, one_line

ENDPOINT = "https://huggingface.co"


class HubError(ResnestError):
    """An error of the hub or the connection."""


class NoSuchFile(HubError):
    """A repository without this file."""


class NoConnection(HubError):
    """There is no network, or the hub does not answer."""


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns the errors of huggingface_hub into a HubError of one line."""
    try:
        from huggingface_hub import errors
    except ModuleNotFoundError:
        raise HubError("huggingface_hub is not installed (pip install huggingface_hub)") from None
    # its base class for requests that got no answer is another library's, which changes between its versions
    kinds: tuple[type[Exception], ...] = (errors.HfHubHTTPError, errors.HfHubHTTPError.__mro__[1], OSError, ValueError)
    missing = getattr(errors, "RemoteEntryNotFoundError", errors.EntryNotFoundError)  # the former since 1.0
    try:
        yield
    except missing as error:
        raise NoSuchFile(one_line(str(error)).rstrip(".")) from None
    except kinds as error:
        raise HubError(one_line(str(error) or type(error).__name__).rstrip(".")) from None


def _check_connection() -> None:
    """A quick connection test: huggingface_hub retries for half a minute without a network."""
    address = urlsplit(os.environ.get("HF_ENDPOINT") or ENDPOINT)
    if urllib.request.getproxies().get(address.scheme):
        return
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((address.hostname or "", port), timeout=10).close()
    except OSError as error:
        raise NoConnection(f"no connection to {address.hostname} ({error.strerror or error})") from None


def download(
    repo: str,
    name: str,
    *,
    revision: str | None = None,
    folder: Path | None = None,
    kind: str = "model",
    offline: bool = False,
) -> Path:
    """One file of a repository, resumed after an interruption.

    Args:
        folder: where to put it; by default the hub's own cache, which other programs share.
        kind: "model" or "dataset".

    Raises:
        HubError: no such repository or file, no network, or offline and not in the cache.
    """
    if not offline:
        _check_connection()
    with one_line_errors():
        from huggingface_hub import hf_hub_download

        path = hf_hub_download(
            repo, name, repo_type=kind, revision=revision, local_dir=folder, local_files_only=offline
        )
    return Path(path)


def dataset_files(repo: str, revision: str | None = None) -> tuple[str, list[str]]:
    """The commit of a data set's revision, and its files.

    Raises:
        HubError: no such repository or revision, no access, no network.
    """
    _check_connection()
    with one_line_errors():
        from huggingface_hub import HfApi

        info = HfApi().dataset_info(repo, revision=revision)
    return info.sha or "main", [file.rfilename for file in info.siblings or []]


def announced_sha256(repo: str, name: str) -> str:
    """The sha256 that the hub gives for a file, "" if there is none (files outside its large storage)."""
    with one_line_errors():
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        etag = get_hf_file_metadata(hf_hub_url(repo, name)).etag or ""
    return etag if len(etag) == 64 else ""


def upload(repo_id: str, folder: Path, *, private: bool = False, token: str | None = None) -> str:
    """Upload a folder as a repository, created if it does not exist; returns its address.

    Raises:
        HubError: not logged in, no network, no such user.
    """
    _check_connection()
    with one_line_errors():
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        repo = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo.repo_id, folder_path=folder, commit_message="Upload by resnest")
    return str(repo)

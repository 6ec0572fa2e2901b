"""Getting files of other people's onto this machine: download, checksum, cache."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .errors import InputError, ResourceError
from .files import atomic_path

_TIMEOUT_S = 30
_PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_WORDS = {"sha256": "SHA-256", "md5": "MD5"}


@dataclass(frozen=True)
class Pinned:
    """A file that lies elsewhere, and the bytes that it must have."""

    what: str  # how messages call it, e.g. "atlas A424"
    url: str
    digest: str  # hex
    command: str  # gets it from a file: `brainlm atlas get A424 --from FILE`
    algorithm: Literal["sha256", "md5"] = "sha256"

    def digest_of(self, path: Path) -> str:
        """The digest of the file at `path`, by the algorithm of this one."""
        with path.open("rb") as handle:
            made = hashlib.file_digest(
                handle, lambda: hashlib.new(self.algorithm, usedforsecurity=False)
            )
            return made.hexdigest()

    def is_at(self, path: Path) -> bool:
        """Whether `path` holds these bytes."""
        return path.is_file() and self.digest_of(path) == self.digest


def cache_dir(kind: str) -> Path:
    """Where fetched files of one kind are kept: BRAINLM_CACHE, else the user's cache folder."""
    if chosen := os.environ.get("BRAINLM_CACHE"):
        return Path(chosen) / kind
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "brainlm" / kind


def fetch(
    wanted: Pinned,
    path: Path,
    source: str | None = None,
    *,
    attempts: int = 4,
    pause_s: float = 1.0,
) -> None:
    """Bring `wanted` to `path`; whatever is not these very bytes is refused and not kept.

    `source` (a file or a URL) replaces the registered address, for machines without a
    network. Failures that may pass are tried again, `attempts` times in all, after `pause_s`,
    twice that, four times that ...
    """
    origin = source or wanted.url
    with atomic_path(path) as temporary:
        if "://" in origin:
            _download(wanted, origin, path, temporary, attempts, pause_s)
        else:
            _copy(origin, temporary)
        found = wanted.digest_of(temporary)
        if found != wanted.digest:
            raise InputError(
                f"This is not {wanted.what}: its {_WORDS[wanted.algorithm]} is {found}, "
                f"not {wanted.digest}",
                file=origin,
                fix=f"nothing was kept; get the file from its registered source: {wanted.url}",
            )


def _copy(origin: str, temporary: Path) -> None:
    try:
        shutil.copyfile(origin, temporary)
    except FileNotFoundError:
        raise InputError("The file given with --from does not exist", file=origin) from None


def _download(
    wanted: Pinned, url: str, path: Path, temporary: Path, attempts: int, pause_s: float
) -> None:
    reason = ""
    for attempt in range(attempts):
        if attempt:
            time.sleep(pause_s * 2 ** (attempt - 1))
        try:
            with (
                urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response,
                temporary.open("wb") as handle,
            ):
                shutil.copyfileobj(response, handle)
                announced = response.headers.get("Content-Length")
            if announced is None or int(announced) == temporary.stat().st_size:
                return
            reason = "the connection broke off"
        except urllib.error.HTTPError as error:
            reason = f"the server answered {error.code} {error.reason}"
            if error.code not in _PASSING_STATUS:
                break
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            reason = str(getattr(error, "reason", error))
        except http.client.HTTPException as error:
            reason = f"the connection broke off ({type(error).__name__})"
        except ValueError as error:
            raise InputError(f"This address cannot be read: {error}", file=url) from None
    raise ResourceError(
        f"{wanted.what[0].upper()}{wanted.what[1:]} could not be downloaded: {reason}",
        file=url,
        fix=f"fetch {wanted.url} ({wanted.algorithm} {wanted.digest}) on another machine, bring "
        f"it here and run `{wanted.command}` (it goes to {path})",
    )

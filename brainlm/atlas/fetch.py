"""Getting an atlas onto this machine: download, checksum, cache."""

from __future__ import annotations

import http.client
import os
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path

from ..errors import InputError, ResourceError
from ..files import atomic_path
from ..provenance import sha256_file
from .registry import APPROXIMATE, Atlas, find_atlas

_TIMEOUT_S = 30
_PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


def cache_dir() -> Path:
    """Where fetched atlases are kept: BRAINLM_CACHE, else the user's cache folder."""
    if chosen := os.environ.get("BRAINLM_CACHE"):
        return Path(chosen) / "atlases"
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "brainlm" / "atlases"


def cached_path(atlas: Atlas) -> Path:
    """Where the image of `atlas` lies, or will lie once fetched."""
    return atlas.path or cache_dir() / f"{atlas.name}.nii.gz"


def available_atlas(name: str = "A424") -> str:
    """`name` if that atlas is on this machine, else the name of the stand-in."""
    return name if cached_path(find_atlas(name)).exists() else APPROXIMATE


def locate(atlas: Atlas) -> Path:
    """The image of `atlas` on this disk, its checksum verified; or say how to get it."""
    path = cached_path(atlas)
    if not path.exists():
        if atlas.path:
            raise InputError(f"The image of atlas {atlas.name} does not exist", file=path)
        raise InputError(
            f"Atlas {atlas.name} is not on this machine yet",
            file=path,
            fix=f"`brainlm atlas get {atlas.name}` where there is a network, or set "
            f"atlas.name: {APPROXIMATE} in config/config.yaml to go on with the stand-in",
        )
    if atlas.sha256 and sha256_file(path) != atlas.sha256:
        raise InputError(
            f"The image of atlas {atlas.name} is not the registered one (checksum differs)",
            file=path,
            fix="delete it and get it anew" if atlas.url else "correct sha256 in your registry",
        )
    return path


def atlas_problems(atlas: Atlas, template: str, space_ok: bool) -> list[InputError]:
    """What keeps `atlas` from being used with data in `template`: nothing, one thing or two."""
    problems = []
    if atlas.space not in (None, template) and not space_ok:
        problems.append(
            InputError(
                f"Atlas {atlas.name} is drawn in {atlas.space}, the data is normalised to "
                f"{template}: the two differ by some mm at places",
                fix="set atlas.space_ok: true in config/config.yaml to accept that, or atlas.name: "
                f"{APPROXIMATE}, which is built in the data's own space",
            )
        )
    if not atlas.built:
        try:
            locate(atlas)
        except InputError as error:
            problems.append(error)
    return problems


def get_atlas(
    atlas: Atlas, source: str | None = None, *, attempts: int = 4, pause_s: float = 1.0
) -> Path:
    """Fetch `atlas` into the cache, unless it is there, and return its path.

    `source` (a file or a URL) replaces the registered address, for machines without a
    network; the checksum must be right all the same. Failures that may pass are tried
    again, `attempts` times in all, after `pause_s`, twice that, four times that ...
    """
    if atlas.built:
        raise InputError(
            f"{atlas.name} is not fetched but built",
            fix="use `brainlm atlas build`, or nothing: the workflow builds it by itself",
        )
    path = cached_path(atlas)
    if atlas.path or (path.exists() and sha256_file(path) == atlas.sha256):
        return locate(atlas)
    origin = source or atlas.url
    assert origin is not None
    with atomic_path(path) as temporary:
        if "://" in origin:
            _download(atlas, origin, temporary, attempts, pause_s)
        else:
            _copy(origin, temporary)
        found = sha256_file(temporary)
        if found != atlas.sha256:
            raise InputError(
                f"This is not atlas {atlas.name}: its SHA-256 is {found}, not {atlas.sha256}",
                file=origin,
                fix=f"nothing was kept; get the file from its registered source: {atlas.url}",
            )
    return path


def _copy(origin: str, temporary: Path) -> None:
    try:
        shutil.copyfile(origin, temporary)
    except FileNotFoundError:
        raise InputError("The file given with --from does not exist", file=origin) from None


def _download(atlas: Atlas, url: str, temporary: Path, attempts: int, pause_s: float) -> None:
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
        f"Atlas {atlas.name} could not be downloaded: {reason}",
        file=url,
        fix=f"fetch {atlas.url} (sha256 {atlas.sha256}) on another machine, bring it here and "
        f"run `brainlm atlas get {atlas.name} --from FILE` (it goes to {cached_path(atlas)})",
    )

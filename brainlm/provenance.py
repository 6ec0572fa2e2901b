"""What made a file: hashes, sidecars, software versions.

Every output has a JSON sidecar of the same name. A sidecar holds no clock time, host name
or absolute path: equal inputs give equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from . import __version__
from .errors import DataError, NotMadeError, UpstreamError
from .files import read_json, write_json

#: Longest first: `.nii.gz` must be cut as one.
_EXTENSIONS = (".nii.gz", ".tsv.gz", ".dtseries.nii", ".dlabel.nii")

#: Bytes that are looked at on either end of a file.
_END = 1 << 16


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_ends(path: str | Path) -> str:
    """SHA-256 of a file's first and last 64 KiB, as hex: a glance that costs the same at any size.

    With the size it tells our files apart: a gzip file ends with the CRC of all that it holds, and
    tables and tensors begin or end with what describes them.
    """
    return read_ends(Path(path)).sha256()


class Ends(NamedTuple):
    """What a glance at a file shows."""

    size: int  # bytes
    mtime_ns: int
    head: bytes  # the first 64 KiB
    tail: bytes  # the last of what follows them

    def sha256(self) -> str:
        """Of both ends, as hex."""
        digest = hashlib.sha256(self.head)
        digest.update(self.tail)
        return digest.hexdigest()

    def fingerprint(self) -> str:
        """`fast:SIZE:MTIME_NS:ENDS`."""
        return f"fast:{self.size}:{self.mtime_ns}:{self.sha256()}"


def read_ends(path: Path) -> Ends:
    """Look at a file's size, time and both ends."""
    with path.open("rb") as handle:
        status = os.fstat(handle.fileno())
        head = handle.read(_END)
        handle.seek(max(len(head), status.st_size - _END))
        return Ends(status.st_size, status.st_mtime_ns, head, handle.read())


def fast_fingerprint(path: Path) -> str:
    """`fast:SIZE:MTIME_NS:ENDS` of a raw file that is not read whole."""
    return read_ends(path).fingerprint()


def still_is(path: Path, fingerprint: str) -> bool:
    """Whether a raw file is the one that onboarding saw.

    `fingerprint` is its SHA-256, or that of `fast_fingerprint` (earlier versions left out the
    ends): then size and ends are compared, not the time, which file systems and copies keep
    differently.
    """
    if fingerprint.startswith("fast:"):
        _, size, *further = fingerprint.split(":")
        same_ends = len(further) < 2 or further[1] == sha256_ends(path)
        return path.stat().st_size == int(size) and same_ends
    return sha256_file(path) == fingerprint


def sha256_json(content: Any) -> str:
    """SHA-256 of the canonical JSON of `content`, as hex."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def sidecar_path(path: str | Path) -> Path:
    """The sidecar of a data file: `x_bold.nii.gz` -> `x_bold.json`."""
    path = Path(path)
    for extension in _EXTENSIONS:
        if path.name.endswith(extension):
            return path.with_name(path.name.removesuffix(extension) + ".json")
    return path.with_suffix(".json")


def software_versions(packages: Iterable[str] = ()) -> dict[str, str]:
    """Versions of Python, of this package and of the installed `packages` named."""
    versions = {"brainlm": __version__, "python": platform.python_version()}
    for name in packages:
        versions[name] = metadata.version(name)
    return versions


def write_sidecar(
    data_path: str | Path,
    *,
    stage: str,
    code_digest: str,
    entities: Mapping[str, str],
    sources: Mapping[str, str],
    parameters: Mapping[str, Any],
    software: Mapping[str, str],
    fields: Mapping[str, Any] | None = None,
    written: Path | None = None,
) -> None:
    """Write the sidecar of `data_path`. Call it BEFORE the data file gets its final name.

    `sources` maps a path relative to the study (or `bids::path`) to its SHA-256;
    `fields` are further BIDS-style fields of this kind of file (RepetitionTime, ...); `written` is
    the data under their temporary name, which ties the sidecar to them.
    """
    content = {
        **(fields or {}),
        "Stage": stage,
        "CodeDigest": code_digest,
        "Entities": dict(entities),
        "Sources": dict(sources),
        "Parameters": dict(parameters),
        "Software": dict(software),
    }
    if written is not None:
        content["Data"] = _data_of(written)
    write_json(sidecar_path(data_path), content)


def read_sidecar(data_path: str | Path) -> dict[str, Any]:
    """Read the sidecar of `data_path`, or say clearly what is missing."""
    path = sidecar_path(data_path)
    try:
        return dict(read_json(path))
    except FileNotFoundError:
        raise NotMadeError(
            f"{Path(data_path).name} has no sidecar, so its origin is unknown",
            file=path,
            fix="delete the data file and rerun the stage that makes it",
        ) from None
    except (ValueError, TypeError) as error:  # no JSON, no text, or no object
        raise DataError(
            f"The sidecar is not valid JSON ({error})",
            file=path,
            fix="delete the data file and its sidecar, then rerun the stage that makes them",
        ) from None


def is_tombstone(path: str | Path) -> bool:
    """Whether `path` is the empty file that stands for an output given up on bad data."""
    path = Path(path)
    return path.exists() and path.stat().st_size == 0


def check_input(path: str | Path, entities: Mapping[str, str]) -> dict[str, Any]:
    """Verify that `path` is whole and belongs to `entities`; return its sidecar.

    This is what keeps one subject's data out of another subject's file: the sidecar names whose
    data it describes, and knows them by their size and ends.
    """
    path = Path(path)
    if not path.exists():
        raise NotMadeError(
            f"{path.name} does not exist yet",
            file=path,
            fix="run the stage that makes it, or let Snakemake do so",
        )
    if is_tombstone(path):
        raise UpstreamError(f"An earlier stage gave up on {path.name}", file=path)
    sidecar = read_sidecar(path)
    if sidecar.get("Entities") != dict(entities):
        raise DataError(
            f"{path.name} says that it is of {sidecar.get('Entities')}, not of {dict(entities)}",
            file=path,
            fix="delete it and rerun the stage that makes it; never rename derivatives by hand",
        )
    # Sidecars of earlier versions, and those of the cohort's files, do not describe their data.
    if sidecar.get("Data") not in (None, _data_of(path)):
        raise DataError(
            f"{path.name} is not the file that its sidecar describes: it was changed or exchanged",
            file=path,
            fix="delete it and rerun the stage that makes it; never edit derivatives by hand",
        )
    return sidecar


def _data_of(path: Path) -> dict[str, Any]:
    return {"Size": path.stat().st_size, "EndsSHA256": sha256_ends(path)}

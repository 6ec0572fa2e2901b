"""What made a file: hashes, sidecars, software versions.

Every output has a JSON sidecar of the same name. A sidecar holds no clock time, host name
or absolute path: equal inputs give equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from . import __version__
from .errors import DataError, NotMadeError, UpstreamError
from .files import read_json, write_json

#: Longest first: `.nii.gz` must be cut as one.
_EXTENSIONS = (".nii.gz", ".tsv.gz", ".dtseries.nii", ".dlabel.nii")


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def still_is(path: Path, fingerprint: str) -> bool:
    """Whether a raw file is the one that onboarding saw.

    `fingerprint` is its SHA-256, or `fast:SIZE:MTIME_NS`: then only the size is compared, since
    file systems and copies differ in how they keep times.
    """
    if fingerprint.startswith("fast:"):
        return path.stat().st_size == int(fingerprint.split(":")[1])
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
) -> None:
    """Write the sidecar of `data_path`. Call it BEFORE the data file gets its final name.

    `sources` maps a path relative to the study (or `bids::path`) to its SHA-256;
    `fields` are further BIDS-style fields of this kind of file (RepetitionTime, ...).
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

    This is what keeps one subject's data out of another subject's file.
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
    return sidecar

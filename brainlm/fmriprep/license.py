"""FreeSurfer's licence file: where it is looked for, and when it is asked for at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from ..errors import InputError

#: Lines of a licence: an e-mail address, a number, and one or more keys.
_FEWEST_LINES = 3


def needs_license(tested: Literal["always", "surfaces"], freesurfer: bool) -> bool:
    """Whether a run stops without a licence: `tested` says when this version looks for it."""
    return freesurfer or tested == "always"


def find_license(
    chosen: Path | None, study: Path, environment: Mapping[str, str] = os.environ
) -> Path:
    """The licence file: the config's, else $FS_LICENSE, else $FREESURFER_HOME/license.txt."""
    if chosen is not None:
        return _checked((study / chosen).resolve(), "containers.fs_license")
    if given := environment.get("FS_LICENSE"):
        return _checked(Path(given).resolve(), "$FS_LICENSE")
    if home := environment.get("FREESURFER_HOME"):
        path = Path(home).resolve() / "license.txt"
        if path.exists():
            return _checked(path, "$FREESURFER_HOME")
    raise _needed("No FreeSurfer licence was found, and this version of fMRIPrep tests for one")


def _checked(path: Path, named_by: str) -> Path:
    if not path.is_file():
        raise _needed(f"The FreeSurfer licence that {named_by} names does not exist", path)
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    if sum(bool(line.strip()) for line in lines) < _FEWEST_LINES or "@" not in lines[0]:
        raise _needed(f"The file that {named_by} names is not a FreeSurfer licence", path)
    return path


def _needed(what: str, path: Path | None = None) -> InputError:
    return InputError(
        what,
        file=path,
        fix="it is free: register at https://surfer.nmr.mgh.harvard.edu/registration.html and set "
        "containers.fs_license to the file",
    )

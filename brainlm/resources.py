"""Where the files that are not Python stand: workflow, default config, atlas registry, pins."""

from __future__ import annotations

import hashlib
from pathlib import Path

#: The variable by which a workflow tells its containers which brainlm planned their jobs.
PLANNED_BY = "BRAINLM_PLANNED_BY"

_PACKAGE = Path(__file__).resolve().parent


def share_dir() -> Path:
    """The folder with `Snakefile`, `workflow/`, `config/`, `atlases/` and `containers/`.

    In a clone that is its root; in an installed wheel, `brainlm/_share`.
    """
    bundled = _PACKAGE / "_share"
    return bundled if bundled.is_dir() else _PACKAGE.parent


def package_dir() -> Path:
    """The folder of the Python package itself."""
    return _PACKAGE


def package_digest() -> str:
    """A digest of all of this brainlm's source: that of the package and that of the workflow."""
    share = share_dir()
    python = [path for path in _PACKAGE.rglob("*.py") if "_share" not in path.parts]
    rules = [share / "Snakefile", *(share / "workflow").rglob("*.smk")]
    digest = hashlib.sha256()
    for base, paths in ((_PACKAGE, python), (share, rules)):
        for path in sorted(paths):
            digest.update(f"{path.relative_to(base)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]

"""Where the files that are not Python stand: workflow, default config, atlas registry, pins."""

from __future__ import annotations

from pathlib import Path

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

"""Which atlases there are, where each comes from, and which bytes are the right ones."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..config.strict_yaml import read_yaml
from ..errors import InputError
from ..resources import share_dir

#: The name of the stand-in that is built here and never fetched.
APPROXIMATE = "A424approx"
#: How the names of CIFTI label files end.
DENSE = ".dlabel.nii"


@dataclass(frozen=True)
class Atlas:
    """One entry of a registry: a labelled image and the table that names its labels."""

    name: str
    table: Path
    n_labels: int
    licence: str = "not stated"
    citation: str = "not stated"
    description: str = ""
    aliases: tuple[str, ...] = ()
    space: str | None = None  # None: built in whatever space is asked for
    url: str | None = None
    path: Path | None = None  # an atlas of the user's own, on this disk
    sha256: str | None = None
    built: bool = False
    dense: str | None = None  # name of the atlas that holds the same parcels on grayordinates

    @property
    def answers_to(self) -> tuple[str, ...]:
        """Its name and its other names."""
        return (self.name, *self.aliases)

    @property
    def extension(self) -> str:
        """`.dlabel.nii` for labels of grayordinates, `.nii.gz` for an image of voxels."""
        source = self.url or (self.path.name if self.path else "")
        return DENSE if source.endswith(DENSE) else ".nii.gz"


def read_registry(path: str | Path) -> tuple[Atlas, ...]:
    """Read one registry file; its paths are relative to its own folder."""
    path = Path(path)
    try:
        content = read_yaml(path, "The atlas registry", fix="mend the line named")
        entries = content["atlases"]
        return tuple(_parse(entry, path) for entry in entries)
    except FileNotFoundError:
        raise InputError(
            "The atlas registry does not exist", file=path, fix="correct or unset BRAINLM_REGISTRY"
        ) from None
    except (KeyError, TypeError):
        raise InputError(
            "An atlas registry is a mapping with a list called `atlases`",
            file=path,
            fix="see atlases/registry.yaml for the form",
        ) from None


def load_registry() -> dict[str, Atlas]:
    """All atlases by name: those of the package and of the file at BRAINLM_REGISTRY."""
    files = [share_dir() / "atlases" / "registry.yaml"]
    if own := os.environ.get("BRAINLM_REGISTRY"):
        files.append(Path(own))
    atlases: dict[str, Atlas] = {}
    taken: set[str] = set()
    for file in files:
        for atlas in read_registry(file):
            for name in atlas.answers_to:
                if name in taken:
                    raise InputError(
                        f"Two atlases are called {name}", file=file, fix="rename one of them"
                    )
                taken.add(name)
            atlases[atlas.name] = atlas
    return atlases


def find_atlas(name: str) -> Atlas:
    """The atlas of that name or alias."""
    atlases = load_registry()
    for atlas in atlases.values():
        if name in atlas.answers_to:
            return atlas
    raise InputError(
        f"There is no atlas called {name!r}",
        fix=f"choose of {', '.join(atlases)}, or register your own with BRAINLM_REGISTRY",
    )


def find_dense(name: str) -> Atlas:
    """The atlas for dense series that goes by `name`: its own, or that of the image's parcels."""
    atlas = find_atlas(name)
    if atlas.extension == DENSE:
        return atlas
    if atlas.dense is None:
        raise InputError(
            f"Atlas {atlas.name} has no labels for grayordinates",
            fix="take another one, or give a .dlabel.nii file",
        )
    return find_atlas(atlas.dense)


def _parse(entry: dict[str, Any], registry: Path) -> Atlas:
    known = {field.name for field in fields(Atlas)}
    label = f"Atlas {entry.get('name', 'without a name')}"
    if unknown := set(entry) - known:
        raise InputError(f"{label} has unknown keys: {', '.join(sorted(unknown))}", file=registry)
    if absent := {"name", "table", "n_labels"} - set(entry):
        raise InputError(f"{label} lacks: {', '.join(sorted(absent))}", file=registry)
    sources = [key for key in ("url", "path", "built") if entry.get(key)]
    if len(sources) != 1:
        raise InputError(f"{label} needs one of url, path or built", file=registry)
    if sources == ["url"] and not entry.get("sha256"):
        raise InputError(f"{label} has a url but no sha256 to check it by", file=registry)
    if sources != ["built"] and not entry.get("space"):
        raise InputError(f"{label} does not say in which space it is drawn", file=registry)
    folder = registry.resolve().parent
    content = {**entry, "table": folder / entry["table"]}
    content["aliases"] = tuple(entry.get("aliases", ()))
    if entry.get("path"):
        content["path"] = folder / entry["path"]
    return Atlas(**content)

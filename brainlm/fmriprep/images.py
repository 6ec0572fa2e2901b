"""Which container image is run: pinned by digest in a lock file, or a file of the user's own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from ..config.strict_yaml import read_yaml
from ..errors import InputError
from ..fetch import cache_dir
from ..files import write_text
from ..provenance import sha256_file
from ..resources import share_dir

#: Where a study keeps pins of its own, below its folder.
STUDY_LOCK = Path("config") / "images.lock.yaml"

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_KEYS = {"repository", "tag", "digest", "version", "license"}


@dataclass(frozen=True)
class Image:
    """One image: a tag of a repository and the digest that the tag had when it was pinned."""

    name: str
    repository: str  # with its registry: docker.io/nipreps/fmriprep
    tag: str
    digest: str | None  # sha256:...
    version: str | None  # what the program calls itself; None: not known
    license: Literal["always", "surfaces"]  # when it tests for a FreeSurfer licence

    @property
    def reference(self) -> str:
        """`repository@digest`, by which Docker and Apptainer take these very bytes."""
        if self.digest is None:
            raise InputError(
                f"The image {self.repository}:{self.tag} is not pinned by a digest",
                fix=f"run `brainlm containers pin {self.name}` where there is a network, or name a "
                "file: `fmriprep.image: /path/to.sif`",
            )
        return f"{self.repository}@{self.digest}"

    @property
    def cached_sif(self) -> Path:
        """Where `brainlm containers pull` keeps this image as one file, for Apptainer."""
        digest = self.reference.rpartition(":")[2]
        return cache_dir("images") / f"{self.name}-{self.tag}-{digest[:12]}.sif"


@dataclass(frozen=True)
class LocalImage:
    """A .sif file on this machine, and what is known of it."""

    path: Path
    digest: str  # what goes into the manifest: the pinned digest, or the file's own SHA-256
    version: str | None  # that its outputs must name; None: whatever they name
    license: Literal["always", "surfaces"]


def find_image(name: str, study: Path | None = None) -> Image:
    """The pinned image of that name: the study's own pin first, then that of this release."""
    locks = [study / STUDY_LOCK] if study else []
    locks.append(share_dir() / "containers" / "images.lock.yaml")
    for lock in locks:
        images = _read_lock(lock) if lock.exists() else {}
        if name in images:
            return images[name]
    raise InputError(f"No lock file knows an image called {name!r}", file=locks[-1])


def known_images(study: Path | None = None) -> list[Image]:
    """Every image of this release, by the study's own pin where it has one."""
    names = _read_lock(share_dir() / "containers" / "images.lock.yaml")
    return [find_image(name, study) for name in names]


def write_pin(image: Image, study: Path) -> Path:
    """Write `image` into the study's own lock file; other pins in it stay."""
    path = study / STUDY_LOCK
    pinned = {**(_read_lock(path) if path.exists() else {}), image.name: image}
    content = {
        "images": {
            name: {key: getattr(one, key) for key in sorted(_KEYS)} for name, one in pinned.items()
        }
    }
    header = "# Written by `brainlm containers pin`; goes before the lock file of brainlm itself.\n"
    write_text(path, header + yaml.safe_dump(content, sort_keys=True))
    return path


def local_image(image: Image, own: Path | None) -> LocalImage:
    """The .sif file to run: the user's `own`, whose bytes are hashed, else the pulled one."""
    if own is not None:
        if not own.is_file():
            raise InputError("The image file does not exist", file=own, fix="mend fmriprep.image")
        return LocalImage(own, f"sha256:{sha256_file(own)}", None, image.license)
    path = image.cached_sif
    if not path.is_file():
        raise not_pulled(image, path)
    return LocalImage(path, str(image.digest), image.version, image.license)


def not_pulled(image: Image, where: Path | None = None) -> InputError:
    """What to say where an image must still be brought to this machine."""
    return InputError(
        f"The image {image.repository}:{image.tag} is not on this machine",
        file=where,
        fix=f"run `brainlm containers pull {image.name}` once, where there is a network; or name "
        "a file: `fmriprep.image: /path/to.sif`",
    )


def _read_lock(path: Path) -> dict[str, Image]:
    try:
        content = read_yaml(path, "The lock file of images")
        return {name: _parse(name, entry) for name, entry in content["images"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"The lock file of images cannot be read: {' '.join(str(error).split())}", file=path
        ) from None


def _parse(name: str, entry: dict[str, Any]) -> Image:
    unknown, missing = set(entry) - _KEYS, _KEYS - set(entry)
    if unknown or missing:
        raise ValueError(f"{name} has unknown or missing keys: {sorted(unknown | missing)}")
    digest = entry["digest"]
    if digest is not None and not _DIGEST.fullmatch(str(digest)):
        raise ValueError(f"the digest of {name} is not sha256: and 64 hex digits")
    if entry["license"] not in ("always", "surfaces"):
        raise ValueError(f"license of {name} must be always or surfaces")
    version = None if entry["version"] is None else str(entry["version"])
    return Image(name=name, **{**entry, "tag": str(entry["tag"]), "version": version})

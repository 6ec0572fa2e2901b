"""Which atlas is on this machine, and getting one that is not."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from ..fetch import Pinned, cache_dir, fetch
from ..provenance import sha256_file
from ..templates import TEMPLATES, is_here
from .registry import APPROXIMATE, DENSE, Atlas, find_atlas, find_dense


def cached_path(atlas: Atlas) -> Path:
    """Where the image of `atlas` lies, or will lie once fetched."""
    return atlas.path or cache_dir("atlases") / f"{atlas.name}{atlas.extension}"


def available_atlas(name: str = "A424") -> str:
    """`name` if that atlas is on this machine, else the name of the stand-in."""
    return name if cached_path(find_atlas(name)).exists() else APPROXIMATE


def available_space(atlas: Atlas, otherwise: str) -> str:
    """The template in which `atlas` is drawn if that is on this machine, else `otherwise`."""
    space = atlas.space
    return space if space is not None and space in TEMPLATES and is_here(space) else otherwise


def locate(atlas: Atlas) -> Path:
    """The image of `atlas` on this disk, its checksum verified; or say how to get it."""
    path = cached_path(atlas)
    if not path.exists():
        if atlas.path:
            raise InputError(f"The image of atlas {atlas.name} does not exist", file=path)
        stand_in = (
            f", or set atlas.name: {APPROXIMATE} in config/config.yaml to go on with the stand-in"
        )
        raise InputError(
            f"Atlas {atlas.name} is not on this machine yet",
            file=path,
            fix=f"`brainlm atlas get {atlas.name}` where there is a network"
            + ("" if atlas.extension == DENSE else stand_in),
        )
    if atlas.sha256 and sha256_file(path) != atlas.sha256:
        raise InputError(
            f"The image of atlas {atlas.name} is not the registered one (checksum differs)",
            file=path,
            fix="delete it and get it anew" if atlas.url else "correct sha256 in your registry",
        )
    return path


def dense_problem(name: str) -> InputError | None:
    """What keeps the atlas called `name` from being used with dense series, if anything does."""
    try:
        locate(find_dense(name))
    except InputError as problem:
        return problem
    return None


def atlas_problems(atlas: Atlas, template: str, space_ok: bool) -> list[InputError]:
    """What keeps `atlas` from being used with data in `template`: nothing, one thing or two."""
    if atlas.extension == DENSE:
        return [
            InputError(
                f"Atlas {atlas.name} labels grayordinates, the data is normalised in volumes",
                fix="set atlas.name in config/config.yaml to an atlas with an image",
            )
        ]
    problems = []
    if atlas.space not in (None, template) and not space_ok:
        problems.append(
            InputError(
                f"Atlas {atlas.name} is drawn in {atlas.space}, the data is normalised to "
                f"{template}: the two differ by some mm at places",
                fix=f"{_own_space(atlas)}set atlas.space_ok: true in config/config.yaml to accept "
                f"that, or atlas.name: {APPROXIMATE}, which is built in the data's own space",
            )
        )
    if not atlas.built:
        try:
            locate(atlas)
        except InputError as error:
            problems.append(error)
    return problems


def _own_space(atlas: Atlas) -> str:
    """How to bring the data to the atlas's own space, where that can be had."""
    if atlas.space not in TEMPLATES:
        return ""
    return (
        f"`brainlm template get {atlas.space}` and space.template: {atlas.space} bring the data to "
        "the atlas; or "
    )


def get_atlas(
    atlas: Atlas, source: str | None = None, *, attempts: int = 4, pause_s: float = 1.0
) -> Path:
    """Fetch `atlas` into the cache, unless it is there, and return its path.

    `source` (a file or a URL) replaces the registered address; see `brainlm.fetch`.
    """
    if atlas.built:
        raise InputError(
            f"{atlas.name} is not fetched but built",
            fix="use `brainlm atlas build`, or nothing: the workflow builds it by itself",
        )
    path = cached_path(atlas)
    if atlas.path or (path.exists() and sha256_file(path) == atlas.sha256):
        return locate(atlas)
    assert atlas.url is not None and atlas.sha256 is not None  # the registry demands both
    wanted = Pinned(
        what=f"atlas {atlas.name}",
        url=atlas.url,
        digest=atlas.sha256,
        command=f"brainlm atlas get {atlas.name} --from FILE",
    )
    fetch(wanted, path, source, attempts=attempts, pause_s=pause_s)
    return path

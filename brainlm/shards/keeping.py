"""A finished shard is not written twice.

When a cohort grows, Snakemake runs every job behind the cohort again and deletes what the job is
to make before it starts. So each finished shard has a second name in shards/.kept: a hard link,
which takes no space. If what it was made of is still what it would be made of, and its bytes are
whole, it gets its first name back instead of being written anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import DataError
from .tensorfile import about_of, open_tensors

FOLDER = ".kept"


def kept_path(shard: Path) -> Path:
    """The second name of a shard."""
    return shard.parent / FOLDER / shard.name


def keep(shard: Path) -> None:
    """Give a finished shard its second name; where the file system has no links, there is none."""
    second = kept_path(shard)
    with contextlib.suppress(OSError):
        second.parent.mkdir(exist_ok=True)
        second.unlink(missing_ok=True)
        second.hardlink_to(shard)


def recover(shard: Path, header: Mapping[str, Any]) -> dict[str, Any] | None:
    """The whole header of a shard that is right as it is, under its first name again; else None.

    `header` (`writer.shard_header`) is what it would be made of now. The time of the file becomes
    that of now: what is older than its inputs counts as stale.
    """
    for path in (shard, kept_path(shard)):
        about = still_right(path, header)
        if about is None:
            continue
        if path != shard:
            shard.unlink(missing_ok=True)
            shard.hardlink_to(path)
        elif not (kept_path(shard).exists() and kept_path(shard).samefile(shard)):
            keep(shard)  # .kept was deleted, or the job was killed before it gave a second name
        os.utime(shard)
        return about
    return None


def still_right(path: Path, header: Mapping[str, Any]) -> dict[str, Any] | None:
    """The header of the shard at `path` if it was made of this and each tensor has its hash."""
    try:
        handle = open_tensors(path)
        about = about_of(handle, path)
    except DataError:  # not there, cut short, or no shard
        return None
    facts = about.pop("facts", None)
    if about != header or set(handle.keys()) != set(facts or {}):
        return None
    for name, fact in (facts or {}).items():
        if hashlib.sha256(handle.get_tensor(name)).hexdigest() != fact["sha256"]:
            return None
    return {**about, "facts": facts}


def forget_others(folder: Path, current: set[str]) -> None:
    """Remove what is kept of shards (by name, without suffix) that the plan names no more."""
    for path in sorted((folder / FOLDER).glob("*.safetensors")):
        if path.stem not in current:
            path.unlink()

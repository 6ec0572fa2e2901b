"""What a training is made of, and going on from one that was made of something else.

Checkpoints belong to exactly one mixture of options, data, code and machine; with any other a
training starts afresh. Who knows better may go on all the same: what had changed is then kept with
the checkpoints, and goes into the model's provenance.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import atomic_path, read_json, write_json

_MADE_OF, _INHERITED = "made-of.json", "inherited.json"


def note_made_of(folder: Path, made_of: Mapping[str, Any]) -> None:
    """Keep with a training's checkpoints what it is made of."""
    write_json(folder / _MADE_OF, made_of)


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of what differs, e.g. options.pretrain.epochs."""
    names = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            names += [f"{key}.{name}" for name in changed(old, new)]
        elif old != new:
            names.append(key)
    return names


def inherit(folder: Path, other: Path, made_of: Mapping[str, Any]) -> None:
    """Take over the checkpoints of `other` into `folder`, unless it has some of its own.

    The newest one appears first, after the note of where it is from: whenever this is killed, there
    is either no checkpoint yet, or a training goes on from the newest and tells its origin.
    """
    found = sorted(other.glob("step-*.safetensors"))
    if not found or not (other / _MADE_OF).exists():
        raise InputError(
            "There is no checkpoint to go on from here",
            file=other,
            fix="name a folder below models/RUN/checkpoints",
        )
    if list(folder.glob("step-*.safetensors")) or folder.resolve() == other.resolve():
        return
    *older, newest = found
    about = {
        "From": other.name,
        "AtMostStep": int(newest.stem.removeprefix("step-")),
        "Changed": changed(read_json(other / _MADE_OF), made_of),
        "Before": inherited(other),
    }
    _copy(other / "metrics.jsonl", folder)
    with atomic_path(folder / newest.name) as temporary:
        shutil.copyfile(newest, temporary)
        write_json(folder / _INHERITED, about)
    for path in older:
        _copy(path, folder)


def _copy(path: Path, folder: Path) -> None:
    with atomic_path(folder / path.name) as temporary:
        shutil.copyfile(path, temporary)


def inherited(folder: Path) -> dict[str, Any] | None:
    """What `inherit` noted; None for a training that began with an untrained model."""
    path = folder / _INHERITED
    return dict(read_json(path)) if path.exists() else None

"""Hashes of files, each taken once for as long as the file is left alone."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ...files import read_json, write_json
from ...provenance import sha256_file
from .options import Options

#: A file younger than this is hashed each time: it may change again within one tick of its clock.
_SETTLED_S = 2.0
#: What `--fast` still reads whole, bytes.
SMALL = 8 << 20
#: Files that are read at the same time; hashing leaves the interpreter to others.
_AT_ONCE = 4


class Hashes:
    """SHA-256 of files below a folder; what is known is kept in a file between reports."""

    def __init__(self, root: Path, cache: Path):
        """`cache` may be missing or spoilt: then all is hashed anew."""
        self._root, self._cache = root, cache
        self._known = _read(cache)
        self._found: dict[str, list[Any]] = {}

    def take(self, names: list[str], options: Options, what: str) -> dict[str, str | None]:
        """SHA-256 of each file, by its path relative to the folder; None: it cannot be read."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            told = pool.map(self._take, names)
            return dict(
                zip(names, options.progress(told, what, len(names)), strict=True),
            )

    def keep(self) -> None:
        """Write down what was found; of files that nobody asked for, nothing is kept."""
        if self._found != self._known:
            write_json(self._cache, {"format": 1, "files": self._found})

    def _take(self, name: str) -> str | None:
        path = self._root / name
        try:
            key = _state_of(path)
            known = self._known.get(name)
            if known is not None and known[:-1] == key:
                self._found[name] = known
                return str(known[-1])
            digest = sha256_file(path)
            if _state_of(path) == key and time.time() - key[1] / 1e9 > _SETTLED_S:
                self._found[name] = [*key, digest]
        except OSError:
            return None
        return digest


def _state_of(path: Path) -> list[int]:
    """What changes when a file does; the last is not to be set back by any program."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns]


def _read(cache: Path) -> dict[str, list[Any]]:
    try:
        content = read_json(cache)
        files: dict[str, list[Any]] = content["files"] if content["format"] == 1 else {}
        if any(len(entry) != 5 or not isinstance(entry[-1], str) for entry in files.values()):
            return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return files

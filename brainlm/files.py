"""Writing files so that what stands under its final name is always whole.

Everything is written to a temporary name in the same folder, flushed to the disk and then
renamed: a killed job leaves at most a `.tmp-` file, which the next writer of the same name
sweeps away.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import InputError, ResourceError

_HOST = socket.gethostname().split(".")[0]


@contextlib.contextmanager
def atomic_path(final: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `final`; on success it becomes `final`, else it goes.

    The temporary name keeps the extension, for writers that look at it.
    """
    final = Path(final)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _explain(error, final) from error
    _sweep_stale(final)
    temporary = final.with_name(f".tmp-{_HOST}-{os.getpid()}-{final.name}")
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(final)
        _fsync_folder(final.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _explain(error, final) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def whole_folder(final: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside `final`; on success it becomes `final`, else it goes.

    What was called `final` before is replaced: whether it may be is for the caller to check.
    """
    final = Path(final)
    temporary = final.with_name(f".tmp-{_HOST}-{os.getpid()}-{final.name}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise _explain(error, final) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextlib.contextmanager
def explained(file: str | Path) -> Iterator[None]:
    """Tell what the disk refuses within the block, of `file`, with its name and what to do."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(file)
        raise _explain(error, Path(file)) from error


@contextlib.contextmanager
def exclusive(lock: Path, *, what: str) -> Iterator[None]:
    """Hold a lock that ends with the process, however that ends; refuse if it is held."""
    with lock.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(what, file=lock, fix="wait for it, or use another folder") from None
        yield


def write_text(path: str | Path, text: str) -> None:
    """Write `text` (UTF-8) atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON atomically: sorted keys and two spaces, so that equal content is equal bytes."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def _explain(error: OSError, final: Path) -> BaseException:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceError(
            "No space is left on the disk (or the quota is used up)",
            file=final,
            fix="free some space, or set TMPDIR and the study folder to a larger disk; then rerun",
        )
    if error.errno in (errno.EROFS, errno.EACCES):
        return ResourceError(
            "The output folder cannot be written",
            file=final,
            fix="check its permissions, or choose a study folder that you own",
        )
    return error


def _fsync_folder(folder: Path) -> None:
    """Make the rename itself durable; some network file systems refuse, which is harmless."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _sweep_stale(final: Path) -> None:
    """Remove temporaries of `final` left by processes of this host that are dead."""
    prefix = f".tmp-{_HOST}-"
    for stale in final.parent.glob(f"{prefix}*-{final.name}"):
        pid = stale.name.removeprefix(prefix).split("-", 1)[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists():
            stale.unlink(missing_ok=True)

"""Ending processes together with all that they have started.

Slurm's jobs end so by themselves. What a user or the kernel ends alone must not leave others behind
that write on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..signals import end_with_parent, stopping_on_signals

#: To save and to clean up; Slurm kills after 30 s where nobody said otherwise.
_GRACE_S = 20.0


def run_with_family(command: Sequence[str]) -> int:
    """Run a command; its exit code. A signal that ends this process ends all of its children first.

    They stay in this process's group, by which some clusters find a job's processes.
    """
    with stopping_on_signals(fix="run it again: it goes on where it stopped"):
        process = subprocess.Popen(command, preexec_fn=end_with_parent)
        try:
            return process.wait()
        except BaseException:
            end([process.pid, *descendants(process.pid)])
            process.wait()
            raise


def descendants(pid: int) -> list[int]:
    """Processes that this one has started, and that those have started, and so on."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        fields = _stat(int(folder.name))
        if fields is not None:
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    found, left = [], [pid]
    while left:
        new = children.get(left.pop(), [])
        found += new
        left += new
    return found


def end(pids: Iterable[int], grace_s: float = _GRACE_S) -> None:
    """End processes: by SIGTERM, so that a training saves; those that do not obey, by SIGKILL."""
    left = {pid: started(pid) for pid in pids}
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        until = time.monotonic() + grace_s
        while left and time.monotonic() < until:
            left = {pid: then for pid, then in left.items() if started(pid) == then is not None}
            time.sleep(0.05)


def started(pid: int) -> str | None:
    """When a process began, in ticks since the boot; None where there is none (any more).

    Where there is no /proc: nothing, for a process that is there.
    """
    if Path("/proc/self/stat").exists():
        fields = _stat(pid)
        return None if fields is None else fields[19]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return ""


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on; None of one that has ended."""
    try:
        # Before them stands the program's name, in brackets, with whatever in it.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields

"""Running a container: its words passed on, its scratch cleaned, its life tied to ours."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path

from ..errors import InputError, ResourceError
from ..signals import end_with_parent

#: Last lines of the log that are kept to judge the run by.
_KEPT_LINES = 400
#: Time for a container to end by itself once it is asked to, s; Slurm kills after 30.
_GRACE_S = 20.0


def run_streaming(
    command: Sequence[str],
    say: Callable[[str], None],
    on_stop: Sequence[str] = (),
) -> tuple[int, list[str]]:
    """Run a command, pass each line that it says to `say`; its code and its last lines.

    It has a process group of its own, which is ended if this process is asked to end, and is
    asked to end itself if this process is killed; `on_stop` is a command that ends what the
    group does not hold: a container that a daemon runs.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
            preexec_fn=end_with_parent,
        )
    except FileNotFoundError:
        raise InputError("The program is not on this machine", file=command[0]) from None
    last: deque[str] = deque(maxlen=_KEPT_LINES)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            last.append(line.rstrip("\n"))
            say(last[-1])
        return process.wait(), list(last)
    except BaseException:
        _end(process, on_stop)
        raise


def _end(process: subprocess.Popen[str], on_stop: Sequence[str]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)
            break
    if on_stop:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(on_stop, capture_output=True, check=False, timeout=_GRACE_S)


def scratch_folder(job: str, study: Path, chosen: Path | None) -> Path:
    """The folder of one job's scratch, below `chosen` or $TMPDIR.

    Its name is that of study and job, so that the next run finds what a killed one left.
    """
    base = (study / chosen).resolve() if chosen else Path(tempfile.gettempdir()).resolve()
    digest = sha256(str(study).encode()).hexdigest()[:8]
    return base / f"brainlm-fmriprep-{digest}-{job}"


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """Make a scratch folder, emptied of what is in it, and remove it in the end."""
    remove(folder)
    try:
        for part in ("home", "tmp"):
            (folder / part).mkdir(parents=True)
    except OSError as error:
        raise ResourceError(
            f"The scratch folder cannot be made: {error.strerror}",
            file=folder,
            fix="set containers.work_dir, or TMPDIR, to a folder that you may write to",
        ) from None
    try:
        yield folder
    finally:
        remove(folder)


def remove(folder: Path) -> None:
    """Remove a folder with all in it, also what was left without the right to write."""

    def open_up(function: Callable[..., object], path: str, error: object) -> None:
        for one in (Path(path).parent, Path(path)):
            with contextlib.suppress(OSError):
                one.chmod(0o700)
        with contextlib.suppress(OSError):
            function(path)

    if folder.exists():
        shutil.rmtree(folder, onerror=open_up)

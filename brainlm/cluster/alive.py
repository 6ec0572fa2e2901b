"""Whether the Snakemake that once said "I work on this study" is still there.

Each run keeps a small file in the study that names its process. On the same machine that process
can be looked up: number, time of its start and of the machine's boot, so that another one of the
same number is not taken for it. Of another machine only the file's age tells: a run that lives
touches it every half minute.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from ..errors import InputError
from ..files import write_text
from .family import started

#: Names the run in the environment of everything that it starts.
RUN_VARIABLE = "BRAINLM_RUN"
_FOLDER = Path(".snakemake") / "brainlm-runs"
_BEAT_S = 30.0
#: Without a sign of life for so long, a run on another machine is taken for dead.
DEAD_AFTER_S = 300.0


@dataclass(frozen=True)
class Process:
    """A process, among all that there have ever been."""

    host: str
    boot: str
    namespace: str  # of process numbers: containers have their own
    pid: int
    started: str  # in the kernel's ticks since the boot

    @classmethod
    def this(cls) -> Process:
        """The running one."""
        return cls(
            socket.gethostname(), _boot(), _namespace(), os.getpid(), started(os.getpid()) or ""
        )

    @property
    def is_of_this_machine(self) -> bool:
        """Whether its number means something here, or would if it had not ended."""
        return self.host == socket.gethostname() and (
            self.boot != _boot() or self.namespace == _namespace()
        )

    @property
    def lives(self) -> bool:
        """Whether it is there still; of processes of this machine."""
        return self.boot == _boot() and started(self.pid) == self.started

    @property
    def is_hidden(self) -> bool:
        """Whether its number is that of somebody else's process, which /proc hides (hidepid)."""
        if self.boot != _boot() or started(self.pid) is not None:
            return False
        try:
            os.kill(self.pid, 0)
        except OSError as error:
            return isinstance(error, PermissionError)
        return False  # our own, which has ended


@dataclass(frozen=True)
class Marker:
    """What a run of the workflow says of itself, in a file of its own."""

    process: Process
    user: str
    since: str
    executor: str
    slurm_name: str | None = None  # that all its jobs in Slurm's queue have
    slurm_job: str | None = None  # in which the run itself is, where it is
    run: str = field(default_factory=lambda: uuid.uuid4().hex)

    def path(self, study: Path) -> Path:
        """The file."""
        return study / _FOLDER / f"{self.run}.json"

    def write(self, study: Path) -> None:
        """Make the file, or replace it."""
        write_text(self.path(study), json.dumps(asdict(self), indent=2) + "\n")

    def named(self, slurm_name: str | None) -> Marker:
        """The same run, once Snakemake has drawn a name for its jobs."""
        return replace(self, slurm_name=slurm_name)

    def age(self, study: Path, mine: Marker) -> float:
        """Seconds since its last sign of life, by the clock of the disk that both files are on."""
        os.utime(mine.path(study))
        return mine.path(study).stat().st_mtime - self.path(study).stat().st_mtime

    def __str__(self) -> str:
        """Who it is."""
        return (
            f"process {self.process.pid} of {self.user} on {self.process.host}, since {self.since}"
        )


def markers(study: Path) -> list[Marker]:
    """Of all runs that have not ended as they should, or not ended at all."""
    found = []
    for path in sorted((study / _FOLDER).glob("[!.]*.json")):
        # A run that ends meanwhile takes its file away.
        with contextlib.suppress(FileNotFoundError):
            try:
                content = json.loads(path.read_text())
                found.append(Marker(**{**content, "process": Process(**content["process"])}))
            except (ValueError, TypeError, KeyError):
                raise InputError(
                    "This file does not say which run of the workflow left it",
                    file=path,
                    fix="delete it, if no Snakemake works on this study",
                ) from None
    return found


class Heart:
    """Touches a run's file while the run lives; tells it when another run has taken its place."""

    def __init__(self, path: Path, replaced: Callable[[], None], beat_s: float = _BEAT_S):
        """Beat from now on; `replaced` is called, once, when the file is gone."""
        self._path, self._replaced, self._beat_s = path, replaced, beat_s
        self._stop = threading.Event()
        threading.Thread(target=self._beat, name="sign of life", daemon=True).start()

    def stop(self) -> None:
        """No more."""
        self._stop.set()

    def _beat(self) -> None:
        while not self._stop.wait(self._beat_s):
            try:
                os.utime(self._path)
            except FileNotFoundError:
                if not self._stop.is_set():
                    self._replaced()
                return
            except OSError:
                continue  # a file system that is away for a while


def left_behind(run: str) -> list[int]:
    """Processes of this machine that a run has started, but for those inside of Slurm's jobs."""
    wanted = f"{RUN_VARIABLE}={run}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            variables = (folder / "environ").read_bytes().split(b"\0")
            in_a_job = any(one.startswith(b"SLURM_JOB_ID=") for one in variables)
            if wanted in variables and not in_a_job and int(folder.name) != os.getpid():
                found.append(int(folder.name))
    return found


def now() -> str:
    """The time, for people."""
    return time.strftime("%Y-%m-%d %H:%M:%S")


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""

"""Small studies for the cluster of the tests, runs of the workflow on it, and jobs that wait.

A study of ready tables needs no imaging: its batches go from tables to parcel series in seconds.
`Gates` holds its jobs where a test wants them, so that a fault strikes running work and not before
or behind it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..e2e import runner
from .slurm import Cluster, ClusterError

SETTINGS = (
    "derivatives.tr=0.735",
    "eligibility.min_volumes=40",
    "model.overrides={timepoints: 40, patch: 20}",
    "pretrain={epochs: 1, device: cpu}",
    "split={train: 0.5, val: 0.25}",
)
#: The plugin looks at jobs after so many seconds, and 10 s later each time that none has ended.
_QUICK = (
    *("--slurm-status-command", "squeue"),
    *("--slurm-init-seconds-before-status-checks", "1"),
    *("--max-status-checks-per-second", "10"),
    *("--latency-wait", "3"),
)


def make_tables_study(folder: Path, recordings: int = 4, *settings: str) -> Path:
    """A study of parcel series that somebody else made: `folder`/tables and `folder`/study."""
    tables, study = folder / "tables", folder / "study"
    tables.mkdir(parents=True)
    random = np.random.default_rng(0)
    mixing = random.normal(size=(10, 424))
    for number in range(recordings):
        course = random.normal(size=(50, 10)).cumsum(axis=0)
        series = 1000 + course @ mixing + random.normal(size=(50, 424))
        np.save(tables / f"{1000 + number}.npy", series.astype(np.float32))
    options = [part for setting in (*SETTINGS, *settings) for part in ("--set", setting)]
    onboarded = ("onboard", tables, "--study", study, "--engine", "derivatives", *options)
    done = runner.brainlm(*onboarded)
    assert done.returncode == 0, done.stderr
    return study


def copy_study(study: Path, folder: Path) -> Path:
    """Another one like it, with its tables, in a folder of its own."""
    shutil.copytree(study.parent, folder, symlinks=True)
    return folder / study.name


def slurm_command(*arguments: str, per_job: int = 2) -> list[str]:
    """`snakemake --profile slurm`, in a hurry, with batches of `per_job` recordings."""
    batches = f"jobs={{recordings_per_job: {per_job}, cores_per_job: 1}}"
    small = ("--default-resources", "mem_mb=1500", "runtime=10")
    command = ("snakemake", "--profile", "slurm", *_QUICK, *small, "--config", batches)
    # What `--config` and its like take ends where the targets begin.
    return [*command, "--jobs", "8", *arguments]


def environment(lab: Cluster, gates: Gates | None = None) -> dict[str, str]:
    """What a user of the lab has set, this environment's programs among it."""
    found = lab.environment
    programs = Path(sys.executable).parent
    found["PATH"] = f"{lab.folder / 'bin'}:{programs}:{os.environ['PATH']}"
    if gates is not None:
        path = [str(gates.folder), *filter(None, [os.environ.get("PYTHONPATH")])]
        found["PYTHONPATH"] = os.pathsep.join(path)
    return found


@dataclass
class Run:
    """A workflow run in the background, its lines in a file."""

    process: subprocess.Popen[bytes]
    log: Path

    def said(self) -> str:
        """What it has printed until now."""
        return self.log.read_text(errors="replace")

    def end(self, timeout: float = 240.0) -> int:
        """Its exit code; an error with its lines when it does not end."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise ClusterError(f"the workflow did not end:\n{self.said()[-5000:]}") from None

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to this very process, as `kill` does."""
        self.process.send_signal(number)


@contextlib.contextmanager
def running(
    lab: Cluster, study: Path, *arguments: str, gates: Gates | None = None, per_job: int = 2
) -> Iterator[Run]:
    """The workflow on the lab, for as long as the block; killed at its end if it runs still."""
    log = study.parent / f"snakemake-{time.monotonic_ns()}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            slurm_command(*arguments, per_job=per_job),
            cwd=study,
            env=environment(lab, gates),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Run(process, log)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run(lab: Cluster, study: Path, *arguments: str, per_job: int = 2) -> Run:
    """The workflow on the lab, to its end."""
    with running(lab, study, *arguments, per_job=per_job) as found:
        found.end()
        return found


def workflow_jobs(lab: Cluster, states: str = "all") -> list[dict[str, str]]:
    """Slurm jobs of batches that the controller remembers."""
    return [job for job in lab.jobs(states) if job["comment"].startswith("rule_process_batch")]


#: Python runs this file at its start when the folder is on PYTHONPATH.
_SITECUSTOMIZE = '''\
"""Hold processes of the workflow that a test wants to find running."""
import sys
from pathlib import Path

for _gate in Path(__file__).parent.glob("*.hold"):
    if all(_word in sys.orig_argv for _word in _gate.stem.split("+")):
        import os
        import time

        _gate.with_name(f"{_gate.stem}.{os.getpid()}.held").touch()
        while _gate.exists():
            time.sleep(0.1)
'''


@dataclass
class Gates:
    """Processes of certain words on their command lines wait until a test lets them go on."""

    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "sitecustomize.py").write_text(_SITECUSTOMIZE)

    def hold(self, *words: str) -> str:
        """From now on, processes with all these words wait; returns the gate's name."""
        name = "+".join(words)
        (self.folder / f"{name}.hold").touch()
        return name

    def held(self, name: str) -> list[int]:
        """Processes that have come to this gate, on whichever node, dead ones too."""
        return [int(path.suffixes[-2][1:]) for path in self.folder.glob(f"{name}.*.held")]

    def wait(self, name: str, count: int = 1, seconds: float = 120.0) -> list[int]:
        """Wait until so many have come."""
        end = time.monotonic() + seconds
        while len(found := self.held(name)) < count:
            if time.monotonic() > end:
                raise ClusterError(f"only {len(found)} of {count} processes came to {name}")
            time.sleep(0.1)
        return found

    def open(self, name: str) -> None:
        """Let all that wait there go on, and nobody wait any more."""
        (self.folder / f"{name}.hold").unlink()


def bytes_of(study: Path) -> dict[str, str]:
    """Path -> digest of every file that two runs must agree in."""
    return runner.digest_tree(study)

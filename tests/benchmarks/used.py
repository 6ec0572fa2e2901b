"""What a command uses, as the kernel counted it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

#: The kernel counts as a process's own memory what the process that began it had. So a small one
#: begins it, and writes what it took into a file.
_BETWEEN = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[2:]).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
with open(sys.argv[1], "w") as file:
    print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, file=file)
sys.exit(code)
"""


@dataclass(frozen=True)
class Used:
    """By a command and all that it began and waited for."""

    cpu_s: float
    peak_mb: float
    text: str  # what it wrote, errors among it


def measure(command: list[str], folder: Path) -> Used:
    """Run a command in a folder, where its notes are left; `SystemExit` when it fails."""
    notes = folder / "used.txt"
    done = subprocess.run(
        [sys.executable, "-c", _BETWEEN, str(notes), *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=folder,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-3000:]}")
    cpu, peak = map(float, notes.read_text().split())
    return Used(cpu, peak, done.stdout)

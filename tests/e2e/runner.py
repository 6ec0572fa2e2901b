"""Running the pipeline in tests as a user runs it: by its commands."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from brainlm.resources import share_dir
from brainlm.threads import ONE_THREAD

from ..forked_snakemake import run_snakemake

#: What may differ between two runs: logs, timings, and Snakemake's own bookkeeping.
_VOLATILE = re.compile(
    r"^(study/)?(logs|benchmarks|\.snakemake|models/[^/]+/checkpoints|evaluation/.+/checkpoints)(/|$)"
)


def brainlm(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a verb to its end; the caller looks at the return code."""
    command = [sys.executable, "-m", "brainlm", *(str(argument) for argument in arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=cwd, env=environment()
    )


def environment() -> dict[str, str]:
    """A user's: whatever fixes threads or seeds here, the commands must fix them themselves."""
    return {name: value for name, value in os.environ.items() if name not in ONE_THREAD}


def demo_command(folder: Path) -> list[str]:
    """`brainlm demo --small` in `folder`: its datasets are in bids/, its study in study/."""
    command = [sys.executable, "-m", "brainlm", "demo", "--small", "--cores", "2"]
    return [*command, "--directory", str(folder)]


def onboard(bids: Path, study: Path, *settings: str) -> str:
    """Set the study up, or look at its dataset again; returns what the command printed."""
    options = [part for setting in settings for part in ("--set", setting)]
    done = brainlm("onboard", bids, "--study", study, *options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def snakemake_command(study: Path, *arguments: str, source: Path | None = None) -> list[str]:
    """The command line of a workflow run with the local profile."""
    root = source or share_dir()
    command = [sys.executable, "-m", "snakemake", "--directory", str(study), "--cores", "2"]
    command += ["--profile", str(root / "config" / "profiles" / "local")]
    return [*command, "--snakefile", str(root / "Snakefile"), *arguments]


def snakemake(
    study: Path, *arguments: str, source: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the workflow; with `source`, that copy of the repository instead of this one."""
    said = environment()
    if source is not None:
        said["PYTHONPATH"] = str(source)
    command = snakemake_command(study, *arguments, source=source)
    # In the study, not the repository, whose own package `python -m` would find first.
    if "--dry-run" in arguments:
        return run_snakemake(*command[3:], env=said, cwd=study)
    return subprocess.run(command, capture_output=True, text=True, check=False, env=said, cwd=study)


def planned_jobs(output: str) -> dict[str, int]:
    """Rule -> number of jobs, from a dry run's output."""
    if "Job stats:" not in output:
        return {}
    table = output[output.rindex("Job stats:") :]
    found = dict(re.findall(r"^([a-z_]+)\s+(\d+)$", table, re.M))
    return {rule: int(count) for rule, count in found.items() if rule not in ("total", "all")}


def digest_tree(folder: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of every file that must not differ between two runs."""
    digests = {}
    for path in sorted(_files_below(folder)):
        name = path.relative_to(folder).as_posix()
        if not _VOLATILE.match(name):
            digests[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digests


def _files_below(folder: Path) -> Iterable[Path]:
    return (path for path in folder.rglob("*") if path.is_file())

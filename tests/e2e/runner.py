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

#: Small enough for a test: 5 mm voxels, 60 volumes, a window of 40.
PHANTOM = ("--subjects", "5", "--volumes", "60", "--voxel-mm", "5", "--t1w-mm", "3", "--seed", "3")
SETTINGS = (
    "name=test",
    "atlas.name=A424approx",
    "space.resolution_mm=5",
    "eligibility.min_volumes=50",
    "quality.max_mean_fd_mm=5",
    "split.train=0.5",
    "split.val=0.2",
    "split.salt=demo-8",
    "model.overrides={timepoints: 40, hidden: 16, heads: 2, mlp: 32, decoder_hidden: 16}",
    "pretrain.run=tiny",
    "pretrain.epochs=3",
    "pretrain.batch_size=2",
    "pretrain.checkpoint_every=1",
    "pretrain.device=cpu",
    "finetune.epochs=2",
    "finetune.targets=[{name: age}]",
    "evaluate.bootstrap=100",
    "keep_intermediates=true",
)

#: What may differ between two runs: logs, timings, and Snakemake's own bookkeeping.
_VOLATILE = re.compile(r"^(logs|benchmarks|\.snakemake|models/[^/]+/checkpoints)(/|$)")


def brainlm(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a verb to its end; the caller looks at the return code."""
    command = [sys.executable, "-m", "brainlm", *(str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def make_phantom(folder: Path, *options: str) -> None:
    """Write the test phantom."""
    done = brainlm("phantom", folder, *PHANTOM, *options, "--threads", 2)
    assert done.returncode == 0, done.stderr


def onboard(bids: Path, study: Path, *settings: str) -> str:
    """Set the study up; returns what the command printed."""
    options = [part for setting in (*SETTINGS, *settings) for part in ("--set", setting)]
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
    environment = dict(os.environ)
    if source is not None:
        environment["PYTHONPATH"] = str(source)
    return subprocess.run(
        snakemake_command(study, *arguments, source=source),
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


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

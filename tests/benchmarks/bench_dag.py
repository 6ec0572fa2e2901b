"""Parsing and dry-running the workflow: time and memory over the number of recordings."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from brainlm.resources import share_dir
from tests.workflow.empty_study import make_study


def main(sizes: tuple[int, ...] = (100, 1000, 10_000)) -> None:
    """Print one line per size."""
    print("recordings  wall s  CPU s  peak MB  CPU ms per recording")
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            make_study(Path(folder), size)
            command = [sys.executable, "-m", "snakemake", "--dry-run", "--quiet", "--cores", "2"]
            command += ["--snakefile", str(share_dir() / "Snakefile"), "--directory", folder]
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            wall = time.perf_counter() - start
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            print(
                f"{size:10d}  {wall:6.1f}  {cpu:5.1f}  {after.ru_maxrss / 1024:7.0f}"
                f"  {1000 * cpu / size:.2f}"
            )


if __name__ == "__main__":
    main()

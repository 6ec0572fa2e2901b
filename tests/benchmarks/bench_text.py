"""Reading tables of parcels as text: `python -m tests.benchmarks.bench_text`.

490 x 424 numbers as `numpy.savetxt` writes them ("%.18e", 5.2 MB), as "%.6f", and with names of
parcels above as XCP-D writes them: `numpy.loadtxt`, pyarrow's CSV reader (types given, one thread),
our careful reader, and `load` once compiled code pays. All in one run on one core, CPU time, the
best of fifteen; every reader must give the same numbers. Then one file in a process of its own,
start included, and a cohort's worth of files through `read_parcels`, checks and notes included.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc

from brainlm.parcellate import plain_text, ready_files
from brainlm.parcellate.ready import read_parcels

TIMES, PARCELS, FILES = 490, 424, 60
NAMES = [f"P{number}" for number in range(PARCELS)]
_ALONE = """
import sys, time
began = time.perf_counter()
import numpy, pandas, pyarrow, nibabel
from brainlm.parcellate import plain_text
from brainlm.parcellate.ready_files import load
from pathlib import Path
if sys.argv[2] == "compiled": plain_text.PAYS_FROM = 0
ready = time.perf_counter()
load(Path(sys.argv[1]))
print(time.perf_counter() - ready)
"""


def main() -> None:
    series = np.random.default_rng(0).normal(1000, 20, (TIMES, PARCELS))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for what, form, head in (
            ("savetxt, %.18e", "%.18e", ""),
            ("%.6f", "%.6f", ""),
            ("names, 17 digits", "%.17g", "\t".join(NAMES)),
        ):
            path = folder / f"{form[1:]}.dat"
            np.savetxt(path, series, form, delimiter="\t", header=head, comments="")
            _against_others(what, path, int(bool(head)))
        _alone(folder / ".18e.dat")
        _cohort(folder / ".18e.dat")


def _against_others(what: str, path: Path, skipped: int) -> None:
    theirs, expected = _best(lambda: np.loadtxt(path, skiprows=skipped))
    arrow, by_arrow = _best(lambda: _by_arrow(path, skipped))
    plain_text.PAYS_FROM = 10**12
    careful, by_care = _best(lambda: ready_files.load(path).values, times=3)
    plain_text.PAYS_FROM = 0
    ready_files.load(path)  # compiled now
    ours, found = _best(lambda: ready_files.load(path).values)
    for values in (by_arrow, by_care, found):
        np.testing.assert_array_equal(values, expected)
    print(
        f"{what}, {path.stat().st_size / 1e6:.1f} MB: loadtxt {theirs * 1e3:.1f} ms, pyarrow "
        f"{arrow * 1e3:.1f} ms, careful {careful * 1e3:.1f} ms, ours {ours * 1e3:.1f} ms: "
        f"{theirs / ours:.1f}x loadtxt, {arrow / ours:.1f}x pyarrow"
    )


def _by_arrow(path: Path, skipped: int) -> np.ndarray:
    names = [f"f{number}" for number in range(PARCELS)]
    table = pc.read_csv(
        path,
        read_options=pc.ReadOptions(
            use_threads=False, column_names=names, skip_rows=skipped, block_size=1 << 25
        ),
        parse_options=pc.ParseOptions(delimiter="\t", quote_char=False),
        convert_options=pc.ConvertOptions(column_types=dict.fromkeys(names, pa.float64())),
    )
    return np.column_stack([column.to_numpy() for column in table.columns])


def _alone(path: Path) -> None:
    """What one file takes in a process that reads nothing else."""
    seconds = {}
    for how in ("careful", "compiled"):
        runs = [
            subprocess.run(
                [sys.executable, "-c", _ALONE, str(path), how],
                capture_output=True,
                text=True,
                check=True,
            )
            for _ in range(3)
        ]
        seconds[how] = min(float(run.stdout) for run in runs)
    pays = seconds["compiled"] / seconds["careful"] * path.stat().st_size
    print(
        f"one file in a new process: careful {seconds['careful']:.2f} s (what happens), compiled "
        f"{seconds['compiled']:.2f} s; compiled code pays from about {pays / 1e6:.0f} MB on, used "
        f"from {_PAYS_FROM / 1e6:.0f} MB"
    )


_PAYS_FROM = plain_text.PAYS_FROM


def _cohort(path: Path) -> None:
    """Many files: `read_parcels` as onboarding and adoption call it, against loadtxt alone."""
    plain_text.PAYS_FROM = _PAYS_FROM
    began = time.process_time()
    for _ in range(FILES):
        read_parcels(path, NAMES)
    ours = (time.process_time() - began) / FILES
    began = time.process_time()
    for _ in range(FILES // 4):
        np.loadtxt(path)
    theirs = (time.process_time() - began) / (FILES // 4)
    print(
        f"{FILES} files, read and checked: {ours * 1e3:.1f} ms each, loadtxt alone "
        f"{theirs * 1e3:.1f} ms ({theirs / ours:.1f}x)"
    )


def _best(function: Callable[[], Any], times: int = 15) -> tuple[float, Any]:
    seconds = []
    for _ in range(times):
        began = time.process_time()
        result = function()
        seconds.append(time.process_time() - began)
    return min(seconds), result


if __name__ == "__main__":
    main()

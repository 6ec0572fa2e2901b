"""How near the estimates before a run come to what the stages take: predicted over actual.

`python -m tests.benchmarks.bench_estimates [SIZES]`: a phantom run with its T1w for each of the
first so many of `SIZES`, each stage a process of its own on one thread. For each stage: CPU seconds,
peak memory and bytes left on the disk.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.benchmarks.used import Used, measure


@dataclass(frozen=True)
class Size:
    """A run, its T1w and the grid that it is brought to."""

    volumes: int
    voxel_mm: float
    t1w_mm: float
    resolution_mm: float


SIZES = (Size(80, 4.0, 2.0, 4.0), Size(160, 4.0, 2.0, 3.0), Size(100, 3.0, 1.0, 2.0))


def measured(folder: Path, size: Size) -> tuple[Path, dict[str, tuple[Used, int]]]:
    """The study made of a phantom run, and what each stage used and left there (bytes)."""
    bids, study = folder / "bids", folder / "study"
    _brainlm(
        folder,
        *("phantom", bids, "--subjects", 1, "--volumes", size.volumes, "--threads", 1),
        *("--voxel-mm", size.voxel_mm, "--t1w-mm", size.t1w_mm, "--sites", 1),
        *("--two-runs", 0, "--two-sessions", 0),
    )
    settings = (f"space.resolution_mm={size.resolution_mm:g}", "eligibility.min_volumes=50")
    _brainlm(
        folder,
        *("onboard", bids, "--study", study, "--hash", "fast", "--atlas", "A424approx"),
        *(word for setting in settings for word in ("--set", setting)),
    )
    run, anat = "sub-01_task-rest", "sub-01"
    commands = {
        "prepare-atlas": (),
        "motion": (run,),
        "normalize-anat": (anat,),
        "coregister-bold": (run,),
        "normalize-bold": (run,),
        "resample": (run,),
        "confounds": (run,),
        "ica": (run,),
        "denoise": (run,),
        "parcellate": (run,),
        "qc-figure": (run, "--batch", "0000"),
    }
    found, before = {}, _size_of(study)
    for verb, arguments in commands.items():
        used = _brainlm(folder, verb, *arguments, "--study", study)
        after = _size_of(study)
        found[verb] = (used, after - before)
        before = after
    straight = ("resample-to-parcels", run, "--study", study)
    found["resample-to-parcels"] = (_brainlm(folder, *straight), 0)
    return study, found


def _brainlm(folder: Path, *arguments: object) -> Used:
    return measure([sys.executable, "-m", "brainlm", *map(str, arguments)], folder)


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main(sizes: int = len(SIZES)) -> None:
    for size in SIZES[:sizes]:
        with tempfile.TemporaryDirectory() as folder:
            study, found = measured(Path(folder), size)
            import pandas as pd

            row = pd.read_parquet(study / "onboarding/recordings.parquet").iloc[0]
            print(
                json.dumps(
                    {
                        **asdict(size),
                        "shape": row["shape"],
                        "tr": row["tr"],
                        "n": int(row["n_volumes"]),
                        "stages": {
                            k: [round(u.cpu_s, 2), round(u.peak_mb), b]
                            for k, (u, b) in found.items()
                        },
                    }
                ),
                flush=True,
            )
            for p in sorted(study.rglob("*")):
                if p.is_file() and p.stat().st_size > 20000:
                    print("   ", p.relative_to(study), p.stat().st_size)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

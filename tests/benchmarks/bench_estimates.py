"""How near the estimates before a run come to what the stages take.

`python -m tests.benchmarks.bench_estimates [SIZES]`: a phantom run with its T1w for each of the
first so many of `SIZES`, each stage a process of its own on one thread. For each stage, expected /
actual: CPU seconds and their ratio, memory (what its rule asks for / peak), kB left on the disk.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from brainlm.config import Config, load_config
from brainlm.estimates.plan import estimate
from brainlm.estimates.takes import StageTakes
from brainlm.recordings import read_rows
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
    """Print a line for each stage of each size."""
    for size in SIZES[:sizes]:
        with tempfile.TemporaryDirectory() as folder:
            study, found = measured(Path(folder), size)
            config = load_config(study / "config/config.yaml")
            rows = read_rows(study / "onboarding/recordings.parquet")
            straight = Config.model_validate(
                {**config.model_dump(), "resample": {"output": "parcels"}}
            )
            asked = {
                stage.stage: stage
                for one in (config, straight)
                for stage in estimate(one, rows, Path(folder), 424).stages
            }
            print(f"\n{size}\n{'stage':<21}{'CPU s':>15}{'ratio':>7}{'MB':>14}{'kB left':>18}")
            for verb, (used, left) in found.items():
                if verb in asked:
                    _print(asked[verb], used, left)


def _print(stage: StageTakes, used: Used, left: int) -> None:
    """Expected / actual: seconds and bytes; memory asked for / taken."""
    seconds, kept = 3600 * (stage.cpu_h or 0), (stage.kept + stage.passing) / 1e3
    print(
        f"{stage.stage:<21}{seconds:7.1f} /{used.cpu_s:6.1f}{seconds / used.cpu_s:7.2f}"
        f"{stage.mem_mb:7d} /{used.peak_mb:5.0f}{kept:9.0f} /{left / 1e3:7.0f}",
        flush=True,
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

"""What the reproducibility page costs: `python -m tests.benchmarks.bench_reproducibility [PEOPLE]`.

Studies are made up: four runs of each person, and of each run three derivatives with their
sidecars, rows in the tables of onboarding, cohort and shards, and a benchmark of three stages.
`brainlm reproducibility --shareable` writes both pages, twice: the second time the hashes of the
files are known. CPU seconds and peak memory are those of the process, those of its imports told
apart.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from brainlm.layout import folder_of
from tests.unit.named_study import FAILED, INELIGIBLE, MOVED, NamedStudy

from .used import measure

PEOPLE, RUNS = (50, 500, 5_000), 4
STAGES = ("motion", "denoise", "parcellate")
KINDS = ("reproducibility", "shareable", "crate", "lineage_table")

COMMAND = """
import sys
from pathlib import Path
import matplotlib.figure, pandas, pyarrow.parquet, scipy.stats
from brainlm.cli.reproducibility import reproducibility
from brainlm.report.gather import gather
from brainlm.report.reproducibility import crate, page, sharing
if len(sys.argv) > 1:
    reproducibility(study=Path(sys.argv[1]), shareable=True)
"""


class LargeStudy(NamedStudy):
    """`NamedStudy`, of more people and of four runs each."""

    def __init__(self, root: Path, people: int):
        super().__init__(root)
        numbers = range(RUNS * people)
        self.subjects = [f"X{number // RUNS:05d}" for number in numbers]
        self.ids = [
            f"sub-{name}_ses-S1_task-rest_run-{number % RUNS + 1}"
            for number, name in enumerate(self.subjects)
        ]
        self.ages = [20 + number // RUNS / 100 for number in numbers]
        self.included = [n for n in numbers if n not in {*INELIGIBLE, *FAILED, *MOVED}]
        places = [number // RUNS % 10 for number in self.included]
        self.splits = [{8: "val", 9: "test"}.get(place, "train") for place in places]

    def _series(self, name: str) -> None:
        super()._series(name)
        fields = {"recording": name, "folder": folder_of(name)}
        raw = {f"bids::{folder_of(name)}/func/{name}_bold.nii.gz": self.raw_hash(name)}
        for kind, stage in (("motion", "motion"), ("coverage", "parcellate")):
            path = self.path(kind, **fields)
            path.write_text(f"{kind} of {name}")
            self._sidecar(path, stage, raw)
        for stage in STAGES:
            path = self.study.root / "benchmarks" / stage / f"{name}.tsv"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("s\tmax_rss\tcpu_time\n12.5\t700.0\t11.0\n")


def main(people: tuple[int, ...] = PEOPLE) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, "-c", COMMAND]
        bare = measure(command, folder)
        print(f"imports: {bare.cpu_s:.1f} CPU s, {bare.peak_mb:.0f} MiB")
        for count in people:
            made = LargeStudy(folder / str(count), count).write()
            first, again = (measure([*command, str(made.study.root)], folder) for _ in range(2))
            sizes = {kind: made.path(kind).stat().st_size / 1e3 for kind in KINDS}
            print(
                f"{count:,} people, {len(made.ids):,} runs: {first.cpu_s - bare.cpu_s:.1f} CPU s, "
                f"again {again.cpu_s - bare.cpu_s:.1f}; {again.peak_mb:.0f} MiB; "
                + ", ".join(f"{kind} {size:,.0f} kB" for kind, size in sizes.items()),
                flush=True,
            )


if __name__ == "__main__":
    main(tuple(map(int, sys.argv[1:])) or PEOPLE)

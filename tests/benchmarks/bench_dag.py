"""What Snakemake itself costs over the number of recordings: planning them, and handing out jobs.

    python -m tests.benchmarks.bench_dag                         dry runs, to 10,000 recordings
    python -m tests.benchmarks.bench_dag --sizes 77298 --ways batches
    python -m tests.benchmarks.bench_dag --plot docs/images/dry-runs.png   and a drawing of them
    python -m tests.benchmarks.bench_dag --simulate 10000        a run whose jobs only touch files

Raw files are empty, one run and one T1w each. CPU seconds and memory are those of Snakemake's
process and its children, as the kernel counted them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from brainlm.resources import share_dir
from tests.benchmarks.used import measure
from tests.workflow.empty_study import make_study

#: How recordings become jobs -> what the command line has besides the Slurm profile.
WAYS = {
    "batches": (),  # of 25, as the profile says
    "stages": ("--config", "jobs={recordings_per_job: 1}"),
}
SIZES = (1000, 10_000)

#: A workflow in which every rule makes its files and does nothing else. What the scheduler and
#: Snakemake's bookkeeping do stays as it is.
_STUBS = """
include: {snakefile!r}


def _touch(input, output, *_):
    for path in output:
        open(path, "w").close()


for _rule in workflow.rules:
    if not _rule.norun:
        _rule.run_func, _rule._benchmark = _touch, None  # nothing that could be measured
"""


@dataclass(frozen=True)
class Cost:
    """What one run of Snakemake took."""

    way: str
    recordings: int
    jobs: int
    cpu_s: float
    peak_mb: float


def dry_run(way: str, recordings: int) -> Cost:
    """Plan a study of so many recordings, with the Slurm profile's own settings."""
    with tempfile.TemporaryDirectory() as folder:
        make_study(Path(folder), recordings)
        command = [*_snakemake(share_dir() / "Snakefile"), "--dry-run", "--quiet", "rules", "host"]
        command += ["--profile", str(share_dir() / "config" / "profiles" / "slurm"), *WAYS[way]]
        used = measure(command, Path(folder))
    return Cost(way, recordings, _total(used.text), used.cpu_s, used.peak_mb)


def simulate(way: str, recordings: int, further: tuple[str, ...]) -> Cost:
    """Run that study on this machine, each job touching what it would make."""
    with tempfile.TemporaryDirectory() as folder:
        make_study(Path(folder), recordings)
        stubs = Path(folder) / "Stubs.smk"
        stubs.write_text(_STUBS.format(snakefile=str(share_dir() / "Snakefile")))
        command = [*_snakemake(stubs), "all", "--cores", "8", "--quiet", "rules", "host", "reason"]
        command += ["--set-threads", "process_batch=1", *further]
        batches = ("--config", "jobs={recordings_per_job: 25, cores_per_job: 4}")
        used = measure([*command, *(WAYS[way] or batches)], Path(folder))
    return Cost(way, recordings, _total(used.text), used.cpu_s, used.peak_mb)


def _snakemake(snakefile: Path) -> list[str]:
    return [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile)]


def _total(text: str) -> int:
    """Jobs, from the statistics that Snakemake prints before it starts."""
    return int(text[text.index("Job stats:") :].partition("\ntotal")[2].split()[0])


def draw(costs: list[Cost], path: Path) -> None:
    """CPU and memory of dry runs over the number of recordings, with straight lines beside them."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    names = {"batches": "25 recordings a job", "stages": "a job per stage"}
    for axis, (field, label) in zip(
        axes, (("cpu_s", "CPU seconds"), ("peak_mb", "memory, MB")), strict=True
    ):
        for way, marker in zip(names, "os", strict=True):
            mine = sorted((c for c in costs if c.way == way), key=lambda c: c.recordings)
            if not mine:
                continue
            sizes, values = [c.recordings for c in mine], [getattr(c, field) for c in mine]
            (line,) = axis.plot(sizes, values, marker, label=names[way])
            slope = (values[-1] - values[0]) / max(1, sizes[-1] - sizes[0])
            ends = [sizes[0], sizes[-1]]
            straight = [values[0], values[0] + slope * (sizes[-1] - sizes[0])]
            axis.plot(ends, straight, "--", color=line.get_color(), linewidth=1)
        axis.set(xlabel="recordings", ylabel=label, xlim=0, ylim=0)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=110)


def _tell(cost: Cost) -> None:
    print(
        f"{cost.way:8}  {cost.recordings:10d}  {cost.jobs:7d}  {cost.cpu_s:7.1f}  "
        f"{cost.peak_mb:7.0f}  {1000 * cost.cpu_s / cost.recordings:8.2f}  "
        f"{1000 * cost.cpu_s / cost.jobs:7.1f}",
        flush=True,
    )


def main(arguments: list[str] | None = None) -> None:
    """Print one line for each run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--simulate", type=int, nargs="+", default=[], metavar="RECORDINGS")
    parser.add_argument("--with", dest="further", default="", help="further Snakemake options")
    parser.add_argument("--plot", type=Path, help="draw the dry runs into this file")
    parser.add_argument("--keep", type=Path, help="a file of JSON lines, to add the numbers to")
    given = parser.parse_args([] if arguments is None else arguments)
    print("way       recordings     jobs    CPU s       MB  ms/recor.  ms/job")
    costs = []
    for way in given.ways:
        for size in given.simulate or given.sizes:
            if given.simulate:
                cost = simulate(way, size, tuple(given.further.split()))
            else:
                cost = dry_run(way, size)
            costs.append(cost)
            _tell(cost)
            if given.keep:
                with given.keep.open("a") as file:
                    file.write(json.dumps(asdict(cost)) + "\n")
    if given.plot:
        draw(_kept(given.keep) if given.keep else costs, given.plot)


def _kept(path: Path) -> list[Cost]:
    return [Cost(**json.loads(line)) for line in path.read_text().splitlines()]


if __name__ == "__main__":
    main(sys.argv[1:])

"""A phantom cohort of 20 subjects on a real Slurm: jobs, wall time, what jobs cost besides work.

    python -m tests.benchmarks.bench_cluster           in batches of 5, and a job per stage
    python -m tests.benchmarks.bench_cluster --subjects 8 --ways batches

The cluster is that of the tests: pretended nodes on this machine, so wall times are those of its
cores. Images are the smallest that the stages accept. One recording is broken after onboarding: the
others must come through, the exit code must tell, and both ways must end with the same parcels.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.slurm import Cluster, cluster, why_not
from tests.e2e import runner

_SIZE = (
    *("--two-runs", 0, "--two-sessions", 0),
    *("--volumes", 50, "--voxel-mm", 6, "--t1w-mm", 4, "--atlas", "A424approx"),
)
_SETTINGS = (
    "atlas.name=A424approx",
    "space.template=MNI152NLin2009aSym",
    "space.resolution_mm=6",
    "eligibility.min_volumes=50",
    "normalize.transform=affine",
    "denoise.method=motion24",
    "split={train: 0.6, val: 0.2}",
)
WAYS = {"batches": 5, "stages": 1}


@dataclass(frozen=True)
class Found:
    """What one run of the workflow took."""

    way: str
    exit_code: int
    wall_s: float
    cpu_s: float  # of the Snakemake that hands out the jobs
    jobs: int
    job_s: float  # from start to end of all jobs, together
    work_s: float  # of that, in the stages' commands
    parcels: dict[str, str]  # recording -> digest of its series

    @property
    def overhead_s(self) -> float:
        """What a job took besides the commands that it ran."""
        return (self.job_s - self.work_s) / max(1, self.jobs)


def run(lab: Cluster, study: Path, way: str) -> Found:
    """Take a study to its shards."""
    batches = f"jobs={{recordings_per_job: {WAYS[way]}, cores_per_job: 1}}"
    command = ["snakemake", "--profile", "slurm", "--config", batches, "--jobs", "8"]
    command += ["--slurm-status-command", "squeue", "--latency-wait", "5", "--retries", "0"]
    command += ["--slurm-init-seconds-before-status-checks", "5"]
    command += ["--default-resources", "mem_mb=1500", "runtime=60", "--", "shards"]
    environment = lab.environment
    programs = Path(sys.executable).parent
    environment["PATH"] = f"{lab.folder / 'bin'}:{programs}:{os.environ['PATH']}"
    before, start, used = _ended(lab), time.perf_counter(), _cpu()
    with (study / "snakemake.txt").open("wb") as out:
        done = subprocess.run(command, cwd=study, env=environment, stdout=out, stderr=out)
    wall, cpu = time.perf_counter() - start, _cpu() - used
    mine = {job: seconds for job, seconds in _ended(lab).items() if job not in before}
    parcels = {
        path.name.partition("_space-")[0]: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in study.rglob("*_timeseries.parquet")
        if path.stat().st_size
    }
    job_s, work_s = sum(mine.values()), _work(study)
    return Found(way, done.returncode, wall, cpu, len(mine), job_s, work_s, parcels)


def _cpu() -> float:
    """CPU seconds of processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _ended(lab: Cluster) -> dict[str, float]:
    """Slurm's job id -> seconds that it ran."""
    text = lab.run("squeue", "-h", "--states=all", "-o", "%A|%S|%e")
    lines = [line.split("|") for line in text.splitlines()]
    return {job: _at(end) - _at(start) for job, start, end in lines if "N/A" not in (start, end)}


def _at(stamp: str) -> float:
    return time.mktime(time.strptime(stamp, "%Y-%m-%dT%H:%M:%S"))


def _work(study: Path) -> float:
    """Seconds of all commands that computed something, as Snakemake measured them."""
    files = [
        path for path in (study / "benchmarks").rglob("*.tsv") if "run-batch" not in path.parts
    ]
    return sum(float(path.read_text().splitlines()[1].split("\t")[0]) for path in files)


def main(arguments: list[str] | None = None) -> None:
    """Print one line for each way."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--subjects", type=int, default=20)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    given = parser.parse_args([] if arguments is None else arguments)
    if reason := why_not():
        print(f"no Slurm: {reason}")
        return
    with tempfile.TemporaryDirectory() as folder, cluster(Path(folder) / "lab") as lab:
        bids, found = Path(folder) / "bids", []
        made = runner.brainlm("phantom", bids, "--subjects", given.subjects, *_SIZE)
        assert made.returncode == 0, made.stderr
        for way in given.ways:
            runner.onboard(bids, Path(folder) / way, *_SETTINGS)
        victim = next(bids.glob("sub-*3/func/*_bold.nii.gz"))
        victim.write_bytes(victim.read_bytes()[:5000])
        print("way       exit  recordings  jobs   wall s  CPU s here  s of a job besides its work")
        for way in given.ways:
            found.append(run(lab, Path(folder) / way, way))
            last = found[-1]
            print(
                f"{way:8}  {last.exit_code:4d}  {len(last.parcels):10d}  {last.jobs:4d}  "
                f"{last.wall_s:7.0f}  {last.cpu_s:10.1f}  {last.overhead_s:6.1f}",
                flush=True,
            )
            told = (Path(folder) / way / "snakemake.txt").read_text()
            assert last.exit_code and len(last.parcels) == given.subjects - 1, told[-3000:]
            assert victim.name.removesuffix("_bold.nii.gz") in told
    assert all(one.parcels == found[0].parcels for one in found)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Estimates as lines of text."""

from __future__ import annotations

from collections.abc import Sequence

from ..cluster.site import Site
from ..config import Config
from .fit import partition_fits
from .takes import Estimate, StageTakes
from .training import Training

#: Jobs of a cluster at a time, for which the time is told.
JOBS = (10, 50, 200)


def size_text(count: float) -> str:
    """Bytes as people say them."""
    for unit, bytes_ in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= bytes_:
            return f"{number_text(count / bytes_)} {unit}"
    return f"{count / 1e3:.0f} kB"


def number_text(value: float) -> str:
    """Three digits where there are not more before the point: never 1.46e+03 or 2.8e-05."""
    if 0 < value < 0.001:
        return "<0.001"
    return f"{value:,.0f}" if value >= 999.5 else f"{value:.3g}"


def jobs_text(count: int) -> str:
    """So many jobs."""
    return "1 job" if count == 1 else f"{count} jobs"


def hours_text(hours: float) -> str:
    """A time as people say it."""
    if hours < 1:
        return f"{max(1, round(60 * hours))} min"
    return f"{hours:.3g} h" if hours < 72 else f"{number_text(hours / 24)} days"


def short(found: Estimate, cores: int) -> list[str]:
    """The three lines that onboarding prints."""
    jobs = min(max(JOBS), len(found.batches))
    largest = max((mb for _, mb in found.batches), default=0)
    return [
        f"{number_text(found.cpu_h)} CPU-hours to the shards, to a factor of {found.factor:g}: "
        f"about {hours_text(found.local_h(cores))} on {cores} cores here, "
        f"{hours_text(found.cluster_h(jobs))} on a cluster, {jobs_text(jobs)} at a time; models "
        "and their evaluation come on top",
        f"{size_text(found.kept)} on the disk in the end, {size_text(found.passing(cores))} more "
        f"while {cores} recordings are worked on at a time; {size_text(found.free)} are free",
        f"a job of the cluster asks for {largest / 1000:.1f} GB at most; "
        "`brainlm estimate` tells all of it",
    ]


def table(found: Estimate) -> list[str]:
    """A line for each stage."""
    lines = [
        f"{'stage':<21}{'times':>7}{'CPU h':>9}{'on disk':>10}{'meanwhile':>11}{'memory':>9}  from"
    ]
    for stage in found.stages:
        cpu = "-" if stage.cpu_h is None else number_text(stage.cpu_h)
        kept = size_text(stage.kept) if stage.kept else "-"
        passing = size_text(stage.passing) if stage.passing else "-"
        memory = f"{stage.mem_mb / 1000:.1f} GB" if stage.mem_mb else "-"
        lines.append(
            f"{stage.stage:<21}{stage.times:>7}{cpu:>9}{kept:>10}{passing:>11}{memory:>9}  "
            f"{source_of(stage)}"
        )
    return lines


def source_of(stage: StageTakes) -> str:
    """Where a stage's time is from."""
    if stage.took is not None:
        peak = stage.took.peak_mb
        used = "" if peak is None else f", largest {peak / 1000:.1f} GB"
        return f"{stage.took.jobs} earlier jobs here{used}"
    return "not measured" if stage.cpu_h is None else "model"


def whole(found: Estimate, cores: int, jobs: Sequence[int] = JOBS) -> list[str]:
    """Time, disk and memory of all of it."""
    lines = [
        f"{number_text(found.cpu_h)} CPU-hours in all; the truth may be {found.factor:g} times as "
        f"much, or {found.factor:g} times less (models, networks and evaluation not counted)"
    ]
    if found.done:
        lines.append(
            f"{found.done} of {found.runs} recordings are in parcels already; what is left takes "
            f"{number_text(found.left_h)} CPU-hours"
        )
    lines.append(f"This machine, {cores} at a time: {hours_text(found.local_h(cores))}")
    most = len(found.batches)
    counts = sorted({min(count, most) for count in jobs if most})
    if counts:
        told = ", ".join(f"{hours_text(found.cluster_h(count))} with {count}" for count in counts)
        lines.append(
            f"A cluster: {jobs_text(most)} of {found.cores_per_job} cores; {told} at a time, "
            "waiting in the queue not counted"
        )
    return [*lines, *disk(found, cores)]


def disk(found: Estimate, cores: int) -> list[str]:
    """Room on the disk, with a warning where it is too little."""
    needed = found.needed(cores)
    line = (
        f"Disk: {size_text(found.kept)} stay, {size_text(found.passing(cores))} come and go with "
        f"{cores} recordings at a time; {size_text(found.free)} are free"
    )
    return [line, *(f"Warning: {one}" for one in disk_warnings(found, needed))]


def disk_warnings(found: Estimate, needed: float) -> list[str]:
    """What to do where the disk is too small for what is still to come."""
    if needed <= found.free:
        return []
    way_out = "move the study to a larger disk"
    if sum(stage.passing for stage in found.stages):
        way_out += ", or set resample.output: parcels, which writes no 4-D files"
    return [
        f"{size_text(needed)} are needed on the disk, {size_text(found.free)} are free: {way_out}"
    ]


def partitions(found: Estimate, site: Site | None, config: Config) -> list[str]:
    """Which partitions of the cluster fit the jobs."""
    if site is None:
        return ["Slurm: none answers here; a login node tells which partitions fit"]
    mem_mb = next((one.mem_mb for one in found.stages if one.stage == "pretrain"), 0)
    told = partition_fits(site, found.asked(config, mem_mb))
    lines = [f"Slurm, cluster {site.name}:"]
    for name, fits, why in told:
        lines.append(f"  partition {name}: {why}" + ("" if fits else " (does not fit)"))
    if not any(fits for _, fits, _ in told):
        lines.append("  no partition fits: make jobs smaller (jobs in slurm/config.yaml)")
    return lines


def training(found: Training | None) -> list[str]:
    """What a pretraining computes."""
    if found is None:
        return ["Training: none, released.source is taken"]
    total = found.flops * found.epochs
    return [
        f"Training (preset {found.preset}): {found.flops:.2g} operations an epoch of "
        f"{found.windows} windows, {total:.2g} in {found.epochs} epochs",
        "  How long that takes is measured on your GPU: from its first steps on `brainlm pretrain` "
        "prints recordings/s, the share of the GPU's peak and the time left",
    ]

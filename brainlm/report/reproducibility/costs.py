"""What the stages used: Snakemake's benchmark of each job, and Slurm's accounting where it is."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from ...files import read_json
from ...stages import STAGES
from .jobs import History, Job
from .options import Energy

_HOUR = 3600.0
#: Stages of one recording, which a batch runs inside a job of its own.
_OF_BATCHES = (frozenset(list(STAGES)[: list(STAGES).index("cohort")]) | {"qc-figure"}) - {
    "prepare-atlas",
    "fmriprep",
}
_BATCH = "run-batch"
#: States of Slurm in which a job was put off its node.
_PREEMPTED = frozenset({"PREEMPTED", "NODE_FAIL"})


@dataclass
class Cost:
    """What a stage used; times in hours. Sums may be added up, peaks not."""

    stage: str
    jobs: int = 0
    wall_h: float = 0.0
    cpu_h: float = 0.0
    gpu_h: float = 0.0
    gpu_wh: float = 0.0  # at the power limits that trainings recorded
    peak_mb: float = 0.0
    memory_gbh: float = 0.0  # peak memory of each job, for as long as it ran
    retries: int = 0
    requeues: int = 0
    preemptions: int = 0
    measured_kwh: float | None = None  # by Slurm, where the centre's machines measure it
    inside: bool = False  # within jobs of batches: counted there
    lost_h: float = 0.0  # of starts of jobs that did not end well, by accounting

    def kwh(self, energy: Energy) -> float:
        """An estimate: no meter was read."""
        parts = (
            self.cpu_h * energy.cpu_w_per_core,
            self.memory_gbh * energy.memory_w_per_gb,
            self.gpu_wh,
        )
        return energy.pue * sum(parts) / 1000

    def add(self, other: Cost) -> None:
        """Add another's hours to these, as of a whole."""
        for one in fields(self):
            mine, theirs = getattr(self, one.name), getattr(other, one.name)
            if one.name == "peak_mb":
                self.peak_mb = max(self.peak_mb, other.peak_mb)
            elif isinstance(theirs, (int, float)) and not isinstance(theirs, bool):
                setattr(self, one.name, (mine or 0) + theirs)


@dataclass
class Costs:
    """All stages in the pipeline's order, their sum, and the benchmarks that could not be read."""

    stages: list[Cost] = field(default_factory=list)
    total: Cost = field(default_factory=lambda: Cost("total"))
    damaged: list[str] = field(default_factory=list)
    accounted: bool = False  # whether Slurm's accounting told of jobs


def read_costs(
    root: Path,
    history: History,
    watts: Mapping[str, float],
    gpus: Mapping[str, int],
    energy: Energy,
) -> Costs:
    """Join what is known.

    `watts` and `gpus` are those of the jobs (`pretrain`, `finetune-age`) that ran on GPUs.
    """
    costs = Costs()
    found: dict[str, Cost] = {}
    for name, row in _benchmarks(root, costs.damaged):
        stage, job = _stage_of(name), Path(name).stem
        cost = found.setdefault(stage, Cost(stage))
        wall, peak = row["s"] / _HOUR, row["max_rss"]
        count = gpus.get(job, 0)
        cost.jobs += 1
        cost.wall_h += wall
        cost.cpu_h += row["cpu_time"] / _HOUR
        cost.peak_mb = max(cost.peak_mb, peak)
        cost.memory_gbh += wall * peak / 1000
        cost.gpu_h += wall * count
        cost.gpu_wh += wall * watts.get(job, count * energy.gpu_w)
    if _BATCH in found:
        inside = [found[stage] for stage in _OF_BATCHES & found.keys()]
        for cost in inside:
            cost.inside = True
        # Snakemake looks at a batch's processes now and then, and misses what lives shortly.
        whole = found[_BATCH]
        whole.cpu_h = max(whole.cpu_h, sum(cost.cpu_h for cost in inside))
    _add_history(found, history)
    _add_requeues(found, root)
    order = {stage: place for place, stage in enumerate([_BATCH, *STAGES])}
    costs.stages = sorted(
        found.values(), key=lambda cost: (order.get(cost.stage, len(order)), cost.stage)
    )
    for cost in costs.stages:
        if not cost.inside:
            costs.total.add(cost)
    costs.accounted = any(job.states for job in history.jobs)
    return costs


def _benchmarks(root: Path, damaged: list[str]) -> Iterator[tuple[str, dict[str, float]]]:
    """Each row of each benchmark, by the file's path below benchmarks/."""
    top = root / "benchmarks"
    for folder, folders, files in os.walk(top):
        folders.sort()
        for file in sorted(name for name in files if name.endswith(".tsv")):
            path = Path(folder) / file
            name = path.relative_to(top).as_posix()
            try:
                with path.open(encoding="utf-8", newline="") as lines:
                    rows = list(csv.DictReader(lines, delimiter="\t"))
                # Very short jobs are not looked at: Snakemake writes NA or -.
                told = [
                    {key: _number(row[key]) for key in ("s", "max_rss", "cpu_time")} for row in rows
                ]
            except (OSError, ValueError, KeyError):
                damaged.append(f"benchmarks/{name}")
                continue
            if not told:
                damaged.append(f"benchmarks/{name}")
            yield from ((name, row) for row in told)


def _number(told: str | None) -> float:
    if told is None:
        raise ValueError("a line ends too early")
    return 0.0 if told in ("NA", "-", "") else float(told)


def _stage_of(name: str) -> str:
    """The stage of a benchmark: of `motion/sub-01/...` and of `finetune-age.tsv`."""
    first = name.partition("/")[0].removesuffix(".tsv")
    if first in STAGES or first == _BATCH:
        return first
    return max((stage for stage in STAGES if first.startswith(f"{stage}-")), key=len, default=first)


#: Rules whose stage is not in their name.
_RULES = {
    "process_batch": _BATCH,
    "check_phantom": "phantom-check",
    "compute_confounds": "confounds",
    "estimate_fieldmap": "fieldmap",
    "run_fmriprep": "fmriprep",
    "write_evaluation_page": "evaluation-page",
    "write_quality_page": "qc-page",
    "write_reproducibility": "reproducibility",
    "pretrain_model": "pretrain",
    "finetune_model": "finetune",
    "finetune_forecast": "finetune",
    "finetune_forecast_untrained": "finetune",
    "estimate_motion": "motion",
    "select_cohort": "cohort",
    "bracket_scaler": "scale-brackets",
    "fit_scaler": "scale",
    "find_components": "ica",
    "draw_qc": "qc-figure",
    "write_report": "report",
}


def stage_of_rule(rule: str) -> str:
    """The stage that a rule runs, as far as its name tells it."""
    if rule in _RULES:
        return _RULES[rule]
    name = rule.replace("_", "-")
    verb = name.partition("-")[0]
    return name if name in STAGES else verb if verb in STAGES else name


def _add_history(found: dict[str, Cost], history: History) -> None:
    for rule, count in history.retries.items():
        stage = stage_of_rule(rule)
        found.setdefault(stage, Cost(stage)).retries += count
    for job in history.jobs:
        stage = stage_of_rule(job.rule)
        cost = found.setdefault(stage, Cost(stage))
        cost.requeues += max(0, len(job.states) - 1)
        cost.preemptions += sum(state in _PREEMPTED for state in job.states)
        cost.lost_h += _lost(job)
        if job.energy_j:
            cost.measured_kwh = (cost.measured_kwh or 0.0) + job.energy_j / 3.6e6
        if job.max_rss_mb:
            cost.peak_mb = max(cost.peak_mb, job.max_rss_mb)


def _lost(job: Job) -> float:
    """Hours of a job that ended badly; of one that was requeued its benchmark tells the last."""
    ended_badly = job.states and job.states[-1] not in ("COMPLETED", "RUNNING", "PENDING")
    return (job.elapsed_s or 0.0) / _HOUR if ended_badly else 0.0


def _add_requeues(found: dict[str, Cost], root: Path) -> None:
    """What trainings note of their way back into the queue, where accounting tells nothing."""
    noted: dict[str, int] = {}
    for note in sorted((root / "models").glob("*/checkpoints/**/requeued.json")):
        try:
            times = int(read_json(note)["times"])
            stage = str(read_json(note.parents[_depth(note)] / "model.json")["Stage"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        noted[stage] = noted.get(stage, 0) + times
    for stage, times in noted.items():
        cost = found.setdefault(stage, Cost(stage))
        cost.requeues = max(cost.requeues, times)


def _depth(note: Path) -> int:
    """How many folders above a note the model's own is."""
    return list(reversed(note.parent.parts)).index("checkpoints") + 1

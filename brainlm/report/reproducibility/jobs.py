"""What ran where: Snakemake's own logs, what is left of jobs' logs, and Slurm's accounting."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...cluster.ask import answer

_SUBMITTED = re.compile(
    r"Job (\d+) has been submitted with SLURM jobid (\w+) \(log: (?:.*/)?rule_(\w+?)(?:/[^)]*)?\)"
)
_FINISHED = re.compile(r"Finished jobid: (\d+) \(Rule: (\w+)\)")
_AGAIN = re.compile(r"Trying to restart job (\d+)\.")
_FACT = re.compile(r"^  (Date|Host|User|Snakemake version|Command): (.*)$")
_RUN = re.compile(r"SLURM run ID: (\S+)")
#: Job ids that sacct is asked for at once.
_AT_ONCE = 500
_FIELDS = (
    *("JobIDRaw", "JobName", "Partition", "NodeList", "State", "ElapsedRaw"),
    *("TotalCPU", "AllocCPUS", "MaxRSS", "AllocTRES", "ConsumedEnergyRaw", "JobID"),
)
_UNITS = {"": 1 / 1e6, "K": 1.024e-3, "M": 1.048576, "G": 1073.741824, "T": 1099511.627776}


@dataclass(frozen=True)
class Run:
    """One start of Snakemake."""

    date: str
    host: str
    user: str
    version: str
    run_id: str | None  # its jobs' name in Slurm
    inside: bool  # one that a job started: the rules of a batch


@dataclass(frozen=True)
class Job:
    """A job of Slurm; None stands for what nobody tells."""

    id: str
    rule: str
    run_id: str | None
    partition: str | None = None
    nodes: str | None = None
    states: tuple[str, ...] = ()  # of each time that it was started
    elapsed_s: float | None = None  # of all these times
    cpu_s: float | None = None
    cpus: int | None = None
    max_rss_mb: float | None = None
    gpus: int = 0
    energy_j: float | None = None


@dataclass
class History:
    """All starts of Snakemake, all jobs, and what went wrong on the way, by rule."""

    runs: list[Run] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    retries: Counter[str] = field(default_factory=Counter)
    preemptions: int = 0  # that Snakemake told of
    no_accounting: str | None = None  # why Slurm's accounting was not asked


def read_history(root: Path) -> History:
    """From `.snakemake/log`, from the logs of jobs that are still there, and from sacct."""
    history = History()
    for log in sorted((root / ".snakemake" / "log").glob("*.snakemake.log")):
        try:
            text = log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        _read_log(text, history)
    nodes = dict(_nodes(root))
    history.jobs = [replace(job, nodes=nodes.get(job.id)) for job in history.jobs]
    if history.jobs:
        _ask_accounting(history)
    return history


def _read_log(text: str, history: History) -> None:
    facts: dict[str, str] = {}
    rules: dict[str, str] = {}
    again: list[str] = []
    run_id: str | None = None
    for line in text.splitlines():
        if match := _FACT.match(line):
            facts.setdefault(match[1], match[2])
        elif match := _RUN.match(line):
            run_id = match[1]
        elif match := _SUBMITTED.match(line):
            rules[match[1]] = match[3]
            history.jobs.append(Job(match[2], match[3], run_id))
        elif match := _FINISHED.match(line):
            rules[match[1]] = match[2]
        elif match := _AGAIN.match(line):
            again.append(match[1])
        elif line.startswith("===== A Job preemption"):
            history.preemptions += 1
    history.retries.update(rules.get(job, "n/a") for job in again)
    if "Date" in facts:
        command = facts.get("Command", "")
        history.runs.append(
            Run(
                facts["Date"],
                facts.get("Host", "n/a"),
                facts.get("User", "n/a"),
                facts.get("Snakemake version", "n/a"),
                run_id,
                "Batch.smk" in command or "--mode remote" in command,
            )
        )


def _nodes(root: Path) -> Iterator[tuple[str, str]]:
    """The node that a job's own log names; Snakemake removes logs of jobs that went well."""
    for folder in ("logs/slurm", ".snakemake/slurm_logs"):
        for log in sorted((root / folder).glob("rule_*/**/*.log")):
            try:
                with log.open(encoding="utf-8", errors="replace") as lines:
                    head = [line for line, _ in zip(lines, range(40), strict=False)]
            except OSError:
                continue
            if match := re.search(r"^(?:  Host|host): (\S+)$", "".join(head), re.M):
                yield log.stem, match[1]


def _ask_accounting(history: History) -> None:
    """Add what sacct tells; ids of another cluster are told by the name of the job."""
    runs = {job.id: job.run_id for job in history.jobs}
    ids = sorted(runs)
    found: dict[str, Job] = {}
    for start in range(0, len(ids), _AT_ONCE):
        told = answer(
            *("sacct", "--parsable2", "--noheader", "--duplicates"),
            f"--jobs={','.join(ids[start : start + _AT_ONCE])}",
            f"--format={','.join(_FIELDS)}",
        )
        if not told.ok:
            history.no_accounting = told.error
            return
        for id_, job in accounted([line.split("|") for line in told.text.splitlines()], runs):
            found[id_] = job
    if not found:
        history.no_accounting = "sacct knows none of these jobs"
    history.jobs = [
        replace(found[job.id], rule=job.rule, run_id=job.run_id) if job.id in found else job
        for job in history.jobs
    ]


def accounted(
    rows: Sequence[Sequence[str]], runs: dict[str, str | None]
) -> Iterator[tuple[str, Job]]:
    """Jobs from rows of sacct, each start of a job and each of its steps a row; `runs`: names."""
    starts: dict[str, list[dict[str, str]]] = {}
    steps: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        if len(row) != len(_FIELDS):
            continue
        told = dict(zip(_FIELDS, row, strict=True))
        job, _, step = told["JobID"].partition(".")
        (steps if step else starts).setdefault(job, []).append(told)
    for id_, times in starts.items():
        if id_ not in runs or any(one["JobName"] != runs[id_] for one in times):
            continue
        used = [_mb(one["MaxRSS"]) for one in steps.get(id_, [])]
        joules = [float(one["ConsumedEnergyRaw"] or 0) for one in times if one["ConsumedEnergyRaw"]]
        gpus = re.search(r"gres/gpu=(\d+)", times[-1]["AllocTRES"])
        yield (
            id_,
            Job(
                id_,
                "",
                None,
                times[-1]["Partition"] or None,
                times[-1]["NodeList"] or None,
                tuple(one["State"].split()[0] if one["State"] else "n/a" for one in times),
                sum(float(one["ElapsedRaw"] or 0) for one in times),
                sum(_seconds(one["TotalCPU"]) for one in times),
                int(times[-1]["AllocCPUS"] or 0) or None,
                max((one for one in used if one is not None), default=None),
                int(gpus[1]) if gpus else 0,
                sum(joules) if any(joules) else None,
            ),
        )


def _seconds(told: str) -> float:
    """A time as sacct tells it: [days-][hours:]minutes:seconds[.parts]."""
    days, _, rest = told.rpartition("-")
    total = 0.0
    for part in rest.split(":"):
        try:
            total = 60 * total + float(part)
        except ValueError:
            return 0.0
    return total + 86400 * float(days or 0)


def _mb(told: str) -> float | None:
    match = re.fullmatch(r"([0-9.]+)([KMGT]?)", told)
    return float(match[1]) * _UNITS[match[2]] if match else None

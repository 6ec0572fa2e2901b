"""Whether Slurm would take the jobs of a run, and whether Snakemake would hear of their end.

Slurm itself is asked (`sbatch --test-only`: nothing is submitted) with what the jobs will ask for.
Looked at here is only what it takes and never starts (more time than the partition gives), what
its plugin for Snakemake refuses, and ways to wait for ever.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import BrainLMError, InputError, ResourceError
from .ask import Answer, answer
from .site import Partition, Site

PROFILE = "slurm/config.yaml"
_FILL = "`brainlm cluster profile` fills in the profile of this cluster"
#: Snakemake looks at most so many seconds apart; the controller must remember jobs for longer.
_BETWEEN_LOOKS_S = 200
#: What passes by itself: such a job waits in the queue.
_PASSES = r"down|drain|reserved|inactive|busy|temporarily|not available now"
_AWAY = r"contact slurm controller|timed out|connection refused|did not answer"


@dataclass(frozen=True)
class Request:
    """What a job asks Slurm for."""

    rule: str
    partition: str = ""  # empty: Slurm's default
    account: str = ""
    minutes: int = 0
    last_minutes: int = 0  # when it is tried for the last time
    gpus: int = 0
    #: Further options of sbatch.
    options: tuple[str, ...] = ()

    @property
    def arguments(self) -> list[str]:
        """Options of sbatch."""
        named = {"--partition": self.partition, "--account": self.account}
        told = [f"{option}={value}" for option, value in named.items() if value]
        time = [f"--time={self.minutes}"] if self.minutes else []
        return [*told, *time, *self.options]


@dataclass(frozen=True)
class Following:
    """How Snakemake follows its jobs."""

    command: str  # sacct or squeue
    first_look_s: int = 40
    array_jobs: str = ""


def problems(site: Site, following: Following, requests: Iterable[Request]) -> list[BrainLMError]:
    """Why these jobs would be refused, wait for ever, or not be followed; each reason once."""
    asked = list(requests)
    found = [following_problem(site, following), _array_problem(following)]
    found += [_account_problem(site, account) for account in {one.account for one in asked}]
    tried: dict[tuple[str, ...], Answer] = {}
    for one in asked:
        local = _place_problem(site, one) or _gpu_problem(site, one) or _time_problem(site, one)
        if local is None:
            key = tuple(one.arguments)
            if key not in tried:
                tried[key] = answer("sbatch", "--test-only", *key, "--wrap", "true")
            local = _refusal(site, one, tried[key])
        found.append(local)
    return list({error.what: error for error in found if error is not None}.values())


def raise_all(found: list[BrainLMError]) -> None:
    """Raise what is wrong as one error."""
    if len(found) == 1:
        raise found[0]
    if found:
        parts = "\n".join(f"{number}. {error}" for number, error in enumerate(found, start=1))
        raise InputError(f"Slurm would not run these jobs, for {len(found)} reasons:\n{parts}")


def following_problem(site: Site, following: Following) -> BrainLMError | None:
    """Why Snakemake would not hear, or hear falsely, that a job has ended."""
    books = site.no_accounting is None
    squeue = following.command == "squeue" or shutil.which("sacct") is None
    first, age = 3 * following.first_look_s, site.min_job_age_s
    if squeue and books and (age is None or age < first):
        squeue = False  # the plugin takes sacct then, by itself
    if squeue and (age is None or age < max(_BETWEEN_LOOKS_S, first)):
        return InputError(
            f"This cluster forgets a job {age} s after its end (MinJobAge), and Snakemake, whose "
            "looks at the queue are up to 3 minutes apart, would wait for it for ever",
            file=PROFILE,
            fix="slurm-status-command: sacct"
            if books
            else "ask your cluster's staff for MinJobAge=300, Slurm's default, or for accounting",
        )
    if not squeue and not books:
        return InputError(
            f"sacct cannot tell how jobs fare ({site.no_accounting}): Snakemake would wait for "
            "them for ever",
            file=PROFILE,
            fix=f"slurm-status-command: squeue; {_FILL}",
        )
    return None


def _array_problem(following: Following) -> BrainLMError | None:
    if not following.array_jobs:
        return None
    return InputError(
        "slurm-array-jobs: Snakemake's Slurm plugin looks for the first task's files after each "
        "task, and with sacct takes the state of one task for that of all",
        file=PROFILE,
        fix="leave it out; jobs.recordings_per_job is what keeps the number of jobs small",
    )


def first_account(said: object) -> str:
    """The account that the plugin takes, of a list in one word."""
    return next((name for name in re.split(r"[,\s]+", str(said or "")) if name), "")


def _account_problem(site: Site, account: str) -> BrainLMError | None:
    """Why Snakemake's plugin would refuse an account before Slurm is asked."""
    if not account:
        return None
    if site.accounts:
        if account.lower() in map(str.lower, site.accounts):
            return None
        return InputError(
            f"Account {account} is not among yours on this cluster",
            file=PROFILE,
            fix=f"slurm_account: one of {', '.join(site.accounts)}",
        )
    told = answer("sacctmgr", "--noheader", "--readonly", "show", "cluster")
    if not told.ok:
        return InputError(
            f"Snakemake's plugin checks slurm_account with sacctmgr, and it gives no answer here: "
            f"{told.error}",
            file=PROFILE,
            fix=f"leave slurm_account out; where Slurm wants one, export SBATCH_ACCOUNT={account}",
        )
    return None


def _place(site: Site, one: Request) -> Partition | None:
    """Where a job would go."""
    return site.partition(one.partition) if one.partition else site.default


def _place_problem(site: Site, one: Request) -> BrainLMError | None:
    """Why a partition would never start a job: Slurm may take it all the same."""
    place = _place(site, one)
    if place is None:
        return None
    if not place.usable:
        names = ", ".join(part.name for part in site.partitions if part.usable)
        return InputError(
            f"Partition {place.name} is closed, or not for your groups and accounts",
            file=PROFILE,
            fix=f"one of {names}; {_FILL}",
        )
    account = one.account or next(iter(site.accounts), "")
    if account and place.accounts and account.lower() not in map(str.lower, place.accounts):
        yours = ", ".join(site.accounts_for(place))
        return InputError(
            f"Partition {place.name} takes no jobs of account {account}",
            file=PROFILE,
            fix=f"slurm_account: {yours} below default-resources, or another partition",
        )
    return None


def _gpu_problem(site: Site, one: Request) -> BrainLMError | None:
    place = _place(site, one)
    if not one.gpus or place is None or place.gpus >= one.gpus:
        return None
    there = ", ".join(f"{p.name} ({p.gpus})" for p in site.with_gpus) or "none that you may use"
    has = f"{place.gpus} GPUs" if place.gpus else "no GPUs"
    return InputError(
        f"Rule {one.rule} asks for {one.gpus} GPUs, and partition {place.name} has {has}; "
        f"partitions with GPUs: {there}",
        file=PROFILE,
        fix=_FILL if site.with_gpus else "pretrain.device: cpu in config/config.yaml",
    )


def _time_problem(site: Site, one: Request) -> BrainLMError | None:
    place = _place(site, one)
    limit = place.max_minutes if place else None
    if place is None or limit is None or max(one.minutes, one.last_minutes) <= limit:
        return None
    tries = "" if one.minutes > limit else f", when tried again {one.last_minutes}"
    return InputError(
        f"Rule {one.rule} asks for {one.minutes} minutes{tries}, but partition {place.name} gives "
        f"{limit}: Slurm would keep the job in the queue for ever",
        file=PROFILE,
        fix=f"cut it down by `resources: {{runtime: {limit}}}` and `set-resource-scopes: "
        f"{{runtime: local}}`; {_FILL}",
    )


def _refusal(site: Site, one: Request, said: Answer) -> BrainLMError | None:
    """What Slurm has against a job, and what helps."""
    if said.ok or re.search(_PASSES, said.error, re.I):
        return None
    if re.search(_AWAY, said.error, re.I):
        return ResourceError(
            f"Slurm does not answer: {said.error}", fix="try again when `sinfo` works here"
        )
    names = ", ".join(part.name for part in site.partitions if part.usable)
    reason = re.sub(r"(sbatch: error: |allocation failure: )", "", said.error)
    if re.search("account|association", reason, re.I):
        yours = f" ({', '.join(site.accounts)})" if site.accounts else ""
        fix = f"slurm_account, an account of yours{yours}, below default-resources; {_FILL}"
    elif re.search("partition", reason, re.I):
        fix = f"slurm_partition below default-resources: one of {names}; {_FILL}"
    elif re.search("qos", reason, re.I):
        fix = "slurm-qos, or qos below set-resources"
    elif "gpu" in " ".join(one.options):
        fix = (
            "gpu_model below set-resources (or jobs.gpu_gres) as `sinfo -o %G` calls the GPUs, or "
            "none; or ask for less, or name a partition of larger nodes"
        )
    else:
        fix = "ask for less below set-resources, or name a partition of larger nodes"
    what = shlex.join(one.arguments) or "nothing in particular"
    return InputError(
        f"Slurm refuses rule {one.rule}, which asks for {what}: {reason}", file=PROFILE, fix=fix
    )

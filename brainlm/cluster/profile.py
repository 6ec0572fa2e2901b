"""The profile of a Slurm cluster, filled in from what the site offers; a user's edits are kept."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.strict_yaml import read_yaml
from ..errors import InputError
from ..files import write_text
from ..resources import share_dir
from .admission import Following, Request, first_account
from .site import Partition, Site

#: The file's last line, by which one that nobody has edited is known.
_MARK = "# While no line is changed, brainlm may make this file anew ({digest}).\n"
_DIGEST_DIGITS = 12
_TABLE = "partitions.yaml"
_OF_A_STUDY = "config.yaml"
#: A clone's `config.yaml` belongs to git, and new studies are made from it: what a site fills in
#: goes beside it, into a file that Snakemake prefers.
_OF_A_CLONE = "config.v9+.yaml"
#: What only this machine's site has in a clone, and no new study is to inherit.
OF_THE_SITE = (_TABLE, _OF_A_CLONE)


@dataclass(frozen=True)
class Choice:
    """Where the jobs go and who pays."""

    cpu: Partition | None  # of jobs without GPUs; None: whatever Slurm says
    gpu: Partition | None  # of jobs with GPUs; None: there are none
    account: str | None

    def __str__(self) -> str:
        """Say it in a line."""
        cpu = f"CPU jobs to partition {self.cpu.name}" if self.cpu else "no partition without GPUs"
        gpu = f"GPU jobs to {self.gpu.name}" if self.gpu else "no partition with GPUs"
        return ", ".join([cpu, gpu, f"account {self.account}" if self.account else "no account"])


def choose(
    site: Site,
    partition: str | None = None,
    gpu_partition: str | None = None,
    account: str | None = None,
) -> Choice:
    """The partitions and the account of a site that fit, unless they are given.

    Without GPUs: the default partition, else the largest; a site may have GPUs in all nodes, then
    the default one serves both.
    """
    cpu = _named(site, partition) or next(iter(site.without_gpus), None) or site.default
    gpu = _named(site, gpu_partition) or next(iter(site.with_gpus), None)
    fitting = [*site.accounts_for(cpu, gpu), *site.accounts_for(cpu), *site.accounts]
    return Choice(cpu, gpu, account or next(iter(fitting), None))


def fill(template: str, site: Site, choice: Choice, table: str = _TABLE) -> str:
    """The profile with the site's values in the lines that wait for them.

    Where somebody has edited the template (the clone's profile), what stands there is kept.
    """
    blocks: list[dict[str, str]] = []  # waiting lines -> filled ones; a block is filled as a whole
    if choice.account is not None:
        blocks.append({"  # slurm_account: ACCOUNT": f"  slurm_account: {_yaml(choice.account)}"})
    if choice.cpu or choice.gpu:
        named = f"slurm-partition-config: {_yaml(table)}"
        blocks.append({"# slurm-partition-config: PARTITIONS": named})
    limits = {"runtime: MINUTES": longest(choice), "mem_mb: LARGEST": largest(choice)}
    given = {line: limit for line, limit in limits.items() if limit is not None}
    if given:
        filled = {f"#   {line}": f"  {line.split()[0]} {limit}" for line, limit in given.items()}
        commented = ("# resources:", "# set-resource-scopes:", "#   runtime: local")
        blocks.append({**filled, **{line: line.replace("# ", "", 1) for line in commented}})
    told = "squeue" if site.no_accounting else "sacct"
    blocks.append({"# slurm-status-command: COMMAND": f"slurm-status-command: {told}"})
    if not site.no_accounting:
        lines = ("slurm-efficiency-report: true", "slurm-efficiency-report-path: logs/efficiency")
        blocks.append({f"# {line}": line for line in lines})
    text = template.splitlines()
    for block in blocks:
        if set(block) <= set(text):
            text = [block.get(line, line) for line in text]
    return "\n".join(text) + "\n"


def longest(choice: Choice) -> int | None:
    """Minutes that a job may ask for wherever it goes; None: no limit."""
    limits = [one.max_minutes for one in (choice.cpu, choice.gpu) if one]
    return min((limit for limit in limits if limit is not None), default=None)


def largest(choice: Choice) -> int | None:
    """MB that a job may ask for wherever it goes: the largest node's; None: not known."""
    return min((one.mem_mb for one in (choice.cpu, choice.gpu) if one and one.mem_mb), default=None)


def partitions_text(choice: Choice) -> str:
    """The table of partitions from which the Slurm plugin takes the one that fits a job."""
    lines = [
        "# Each job gets the partition that fits: where it asks for GPUs one with max_gpu, else",
        "# one without. More partitions, and limits like max_runtime and max_mem_mb, may be added.",
        "partitions:",
    ]
    for one in dict.fromkeys(part for part in (choice.cpu, choice.gpu) if part):
        limits = f"{{max_gpu: {one.gpus}}}" if one is choice.gpu else "{}"
        lines.append(f"  {_yaml(one.name)}: {limits}")
    return "\n".join(lines) + "\n"


def write_profile(
    folder: Path, site: Site, choice: Choice, *, force: bool = False, clone: bool = False
) -> list[Path]:
    """Write a site's profile into `folder`; what was written.

    The table's whole path is written: with --directory, Snakemake would look for it elsewhere. A
    study that was moved needs its profile anew.

    A file that a user has edited stays as it is, and the new one goes beside it (`.new`), unless
    `force`.
    """
    template = template_folder() / _OF_A_STUDY
    table = str((folder / _TABLE).resolve())
    made = {_OF_A_CLONE if clone else _OF_A_STUDY: fill(template.read_text(), site, choice, table)}
    if choice.cpu or choice.gpu:
        made[_TABLE] = partitions_text(choice)
    written = []
    for name, text in made.items():
        path, text = folder / name, marked(text)
        if path.exists():
            now = path.read_text()
            if now == text:
                continue
            if not (force or is_ours(now) or now == template.read_text()):
                path = folder / f"{name}.new"
        write_text(path, text)
        written.append(path)
    return written


def profile_file(folder: Path) -> Path:
    """The file of a profile that Snakemake reads."""
    clones = folder / _OF_A_CLONE
    return clones if clones.is_file() else folder / _OF_A_STUDY


def read_profile(folder: Path, site: Site) -> tuple[Following, list[Request]]:
    """How a profile follows its jobs, and a job without and one with a GPU, as it would ask."""
    content = _mapping(read_yaml(profile_file(folder), "The profile", fix="mend the line named"))
    common = _mapping(content.get("default-resources"))
    table = folder / str(content.get("slurm-partition-config", _TABLE))
    places = {}
    if "slurm-partition-config" in content and table.is_file():
        said = read_yaml(table, "The table of partitions", fix="mend the line named")
        places = _mapping(_mapping(said).get("partitions"))
    samples = []
    for gpus in (0, 1) if site.with_gpus else (0,):
        fitting = [name for name, limits in places.items() if bool(_gpus_of(limits)) == gpus]
        samples.append(
            Request(
                "with a GPU" if gpus else "without GPUs",
                str(common.get("slurm_partition") or next(iter(fitting), "")),
                first_account(common.get("slurm_account")),
                minutes=_minutes(common.get("runtime", 0)),
                gpus=gpus,
                options=("--gpus=1",) if gpus else (f"--mem={common.get('mem_mb', 2000)}",),
            )
        )
    following = Following(
        str(content.get("slurm-status-command", "sacct")),
        int(content.get("slurm-init-seconds-before-status-checks", 40)),
        str(content.get("slurm-array-jobs", "")),
    )
    return following, samples


def template_folder() -> Path:
    """Where the profile lies that knows of no site."""
    return share_dir() / "config" / "profiles" / "slurm"


def marked(text: str) -> str:
    """The text with a last line that tells later whether it was edited."""
    return text + _MARK.format(digest=_digest(text))


def is_ours(text: str) -> bool:
    """Whether a file is as it was made."""
    body, newline, mark = text.removesuffix("\n").rpartition("\n")
    return mark + "\n" == _MARK.format(digest=_digest(body + newline))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_DIGITS]


def _mapping(value: Any) -> dict[str, Any]:
    """A mapping, also where it is written as a list of key=value."""
    if isinstance(value, list):
        return dict(str(part).split("=", 1) for part in value)
    return value if isinstance(value, dict) else {}


def _gpus_of(limits: Any) -> int:
    return int(_mapping(limits).get("max_gpu", 0))


def _minutes(said: Any) -> int:
    """Minutes; 0 for a time with a unit (1h), which a run looks at when Snakemake has read it."""
    return int(said) if str(said).isdigit() else 0


def _named(site: Site, name: str | None) -> Partition | None:
    if name is None:
        return None
    found = site.partition(name)
    if found is None:
        there = ", ".join(one.name for one in site.partitions)
        raise InputError(f"There is no partition {name} on this cluster", fix=f"one of: {there}")
    return found


def _yaml(value: str | None) -> str:
    """A scalar that YAML reads as this string; account numbers would else become integers."""
    plain = value is not None and re.fullmatch(r"[A-Za-z][\w.-]*", value)
    reserved = str(value).lower() in ("yes", "no", "on", "off", "true", "false", "null", "y", "n")
    return str(value) if plain and not reserved else json.dumps(value)

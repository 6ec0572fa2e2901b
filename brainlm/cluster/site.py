"""What a Slurm cluster offers to this user: partitions, GPUs, accounts, and its books of jobs."""

from __future__ import annotations

import contextlib
import grp
import os
import re
import shutil
from dataclasses import dataclass, replace

from .ask import answer
from .queue import me

#: How Slurm says that all groups or accounts may use a partition.
_ANY = (None, "ALL", "(null)")


@dataclass(frozen=True)
class Partition:
    """A partition, as far as it matters where a job is sent to."""

    name: str
    default: bool = False
    #: It takes jobs, and those of this user's groups and accounts.
    usable: bool = True
    accounts: tuple[str, ...] = ()  # the only ones that it takes; empty: any
    max_minutes: int | None = None  # None: no limit
    mem_mb: int = 0  # of the largest node
    nodes: int = 0
    gpu_nodes: int = 0
    gpus: int = 0  # of all nodes
    models: tuple[str, ...] = ()  # types of GPUs, where the site names them
    tier: int = 1  # jobs of a higher one go first, and may stop those of a lower one


@dataclass(frozen=True)
class Site:
    """A cluster, as this user sees it."""

    name: str
    partitions: tuple[Partition, ...]
    #: Accounts of this user, the default one first; empty where none are kept.
    accounts: tuple[str, ...] = ()
    #: Why `sacct` cannot tell how jobs fare; None when it can.
    no_accounting: str | None = None
    #: The least seconds for which the controller remembers an ended job, for `squeue`.
    min_job_age_s: int | None = None

    def accounts_for(self, *places: Partition | None) -> list[str]:
        """Accounts of this user that all of these partitions take."""
        wanted = [one.accounts for one in places if one and one.accounts]
        return [name for name in self.accounts if all(name in names for names in wanted)]

    @property
    def default(self) -> Partition | None:
        """The partition of jobs that name none."""
        return next((one for one in self.partitions if one.default), None)

    def partition(self, name: str) -> Partition | None:
        """The partition of this name."""
        return next((one for one in self.partitions if one.name == name), None)

    @property
    def with_gpus(self) -> list[Partition]:
        """Usable partitions that have GPUs, those for long and ordinary GPU jobs first."""
        found = [one for one in self.partitions if one.usable and one.gpus]
        return sorted(found, key=_how_much_for_gpus, reverse=True)

    @property
    def without_gpus(self) -> list[Partition]:
        """Usable partitions with nodes that have no GPU: the default one, then the largest."""
        found = [one for one in self.partitions if one.usable and one.nodes > one.gpu_nodes]
        return sorted(found, key=lambda one: (one.default, _ordinary(one), one.nodes), reverse=True)


def find_site() -> Site | None:
    """The Slurm cluster that this machine belongs to; None where there is none that answers."""
    if shutil.which("sbatch") is None:
        return None
    nodes = answer("sinfo", "--noheader", "--exact", "--format", "%R|%D|%m|%G")
    if not nodes.ok:  # each further question could take as long
        return None
    told = answer("scontrol", "show", "partition", "--oneliner")
    config = read_config(answer("scontrol", "show", "config").text)
    accounts = find_accounts()
    partitions = read_partitions(told.text, nodes.text, own_groups(), accounts)
    return Site(
        config.get("ClusterName", "slurm"),
        partitions,
        accounts,
        _no_accounting(config),
        _leading_number(config.get("MinJobAge", "")),
    )


def own_groups() -> set[str]:
    """The names of this user's groups.

    Each is looked up by its number: directories of large sites do not list all that there are.
    """
    names = set()
    for number in {os.getgid(), *os.getgroups()}:
        with contextlib.suppress(KeyError):
            names.add(grp.getgrgid(number).gr_name)
    return names


def read_config(text: str) -> dict[str, str]:
    """The lines of `scontrol show config`."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def find_accounts() -> tuple[str, ...]:
    """Accounts that this user may charge, the default one first."""
    ask = ("sacctmgr", "--noheader", "--parsable2", "--readonly", "show")
    told = answer(*ask, "associations", f"user={me()}", "format=account")
    if not told.ok:
        return ()
    accounts = dict.fromkeys(line.strip() for line in told.text.splitlines() if line.strip())
    default = answer(*ask, "user", me(), "format=defaultaccount").text.strip()
    return tuple(sorted(accounts, key=lambda name: name != default))


def read_partitions(
    partitions: str, nodes: str, groups: set[str], accounts: tuple[str, ...]
) -> tuple[Partition, ...]:
    """Partitions from what `scontrol show partition --oneliner` and `sinfo` (%R|%D|%m|%G) say."""
    found: dict[str, Partition] = {}
    for line in partitions.splitlines():
        told = dict(part.split("=", 1) for part in line.split() if "=" in part)
        if "PartitionName" not in told:
            continue
        usable = (
            told.get("State", "UP") == "UP"
            and told.get("RootOnly", "NO") == "NO"
            and _admits(told.get("AllowGroups"), groups)
            and (not accounts or _admits(told.get("AllowAccounts"), set(accounts)))
        )
        takes = told.get("AllowAccounts", "ALL")
        found[told["PartitionName"]] = Partition(
            told["PartitionName"],
            default=told.get("Default") == "YES",
            usable=usable,
            accounts=() if takes in _ANY else tuple(takes.split(",")),
            max_minutes=minutes(told.get("MaxTime", "UNLIMITED")),
            tier=_leading_number(told.get("PriorityTier", "1")) or 0,
        )
    for line in nodes.splitlines():
        name, count, mem_mb, gres = (part.strip() for part in line.split("|"))
        if name in found:
            found[name] = _with_nodes(found[name], int(count), int(mem_mb), gres)
    return tuple(found.values())


def minutes(time: str) -> int | None:
    """A time of Slurm (days-hours:minutes:seconds and shorter) in minutes; None: no limit."""
    if time.upper() in ("UNLIMITED", "INFINITE", "NONE", ""):
        return None
    days, dash, rest = time.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:  # D-H, D-H:M, D-H:M:S
        hours, mins, _ = (*parts, 0, 0)[:3]
        return int(days) * 1440 + hours * 60 + mins
    if len(parts) == 3:
        return parts[0] * 60 + parts[1]
    return parts[0]  # M, M:S


def _with_nodes(one: Partition, count: int, mem_mb: int, gres: str) -> Partition:
    """The partition with these nodes besides, of which each has the generic resources `gres`."""
    each, models = 0, list(one.models)
    for part in re.sub(r"\([^)]*\)", "", gres).split(","):  # gpu:a100:4(S:0-1),nvme:1
        name, *rest = part.split(":")
        if name != "gpu":
            continue
        each += int(rest[-1]) if rest and rest[-1].isdigit() else 1
        models += [model for model in rest[:1] if not model.isdigit() and model not in models]
    return replace(
        one,
        mem_mb=max(one.mem_mb, mem_mb),
        nodes=one.nodes + count,
        gpu_nodes=one.gpu_nodes + (count if each else 0),
        gpus=one.gpus + each * count,
        models=tuple(models),
    )


def _admits(allowed: str | None, own: set[str]) -> bool:
    return allowed in _ANY or bool(own & set(str(allowed).split(",")))


def _ordinary(one: Partition) -> bool:
    """Whether a partition's name promises neither short tests nor jobs that others may stop."""
    special = r"debug|test|dev|interactive|jupyter|preempt|scaveng|backfill|idle|urgent|express"
    return re.search(special, one.name, re.I) is None


def _how_much_for_gpus(one: Partition) -> tuple[bool, float, int, float, int]:
    """Partitions made for GPUs come before those that have some nodes with GPUs among others."""
    limit = float("inf") if one.max_minutes is None else one.max_minutes
    return _ordinary(one), one.gpu_nodes / one.nodes, one.tier, limit, one.gpus


def _no_accounting(config: dict[str, str]) -> str | None:
    if config.get("AccountingStorageType", "").endswith("/none"):
        return "this cluster keeps no accounting"
    told = answer("sacct", "--allocations", "--noheader", "--starttime", "now-1minute")
    return None if told.ok else told.error


def _leading_number(text: str) -> int | None:
    found = re.match(r"\d+", text)
    return int(found[0]) if found else None

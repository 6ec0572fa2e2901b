"""The code that makes the report, and that which made each file."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from ... import __version__
from ...provenance import sha256_file
from ...resources import package_digest, share_dir
from ...stages import STAGES, code_digest
from .graph import Graph

_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Code:
    """What runs here."""

    version: str
    digest: str  # of all source files, package and workflow
    commit: str | None  # None: it is no clone
    dirty: tuple[str, ...]  # files that are not as in that commit
    lock_sha256: str | None
    as_locked: int  # packages that are installed in the version that the lock names
    otherwise: tuple[str, ...]  # those that are installed in another one


@dataclass(frozen=True)
class StageCode:
    """The source of one stage: what its files say, and what it is now."""

    stage: str
    digests: tuple[tuple[str, int], ...]  # with the number of files that tell it
    now: str | None  # None: no stage of this version

    @property
    def verdict(self) -> str:
        """In a word or two."""
        if self.now is None:
            return "no stage of this version"
        if len(self.digests) > 1:
            return "several versions"
        return "as now" if self.digests[0][0] == self.now else "another version"


def read_code() -> Code:
    """The version, the commit, and how the installed packages compare with the lock."""
    share = share_dir()
    commit, dirty = _git(share)
    lock = share / "requirements.lock"
    here, otherwise = _compare(lock)
    digest = sha256_file(lock) if lock.is_file() else None
    return Code(__version__, package_digest(), commit, dirty, digest, here, otherwise)


def stage_codes(graph: Graph) -> list[StageCode]:
    """Each stage that made something, in the pipeline's order."""
    found: dict[str, Counter[str]] = {}
    for node in graph.nodes.values():
        if node.made_by and node.about.get("code") and node.kind != "checkpoint":
            found.setdefault(node.made_by, Counter())[str(node.about["code"])] += 1
    order = [*(stage for stage in STAGES if stage in found), *sorted(found.keys() - STAGES.keys())]
    return [
        StageCode(
            stage,
            tuple(sorted(found[stage].items(), key=lambda item: (-item[1], item[0]))),
            code_digest(stage) if stage in STAGES else None,
        )
        for stage in order
    ]


def _git(folder: Path) -> tuple[str | None, tuple[str, ...]]:
    """The commit of a clone, and what was changed since; an environment inside one is no clone."""
    top = _ask_git(folder, "rev-parse", "--show-toplevel")
    if top is None or Path(top.strip()).resolve() != folder.resolve():
        return None, ()
    commit = _ask_git(folder, "rev-parse", "HEAD")
    told = _ask_git(folder, "status", "--porcelain", "--", "brainlm", "workflow", "Snakefile")
    changed = tuple(line[3:] for line in (told or "").splitlines())
    return (commit or "").strip() or None, changed


def _ask_git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _compare(lock: Path) -> tuple[int, tuple[str, ...]]:
    """How many packages are as the lock says, and which are not; those not installed are not."""
    if not lock.is_file():
        return 0, ()
    same, otherwise = 0, []
    for line in lock.read_text(encoding="utf-8").splitlines():
        match = re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)", line)
        if match is None:
            continue
        try:
            version = metadata.version(match[1])
        except metadata.PackageNotFoundError:
            continue
        # A build for a certain GPU has a suffix of its own.
        if version.partition("+")[0] == match[2].partition("+")[0]:
            same += 1
        else:
            otherwise.append(f"{match[1]} {version} (lock: {match[2]})")
    return same, tuple(otherwise)

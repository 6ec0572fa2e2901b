"""Fetching a dataset with the tool that serves it: what will be run, and running it."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

from ...errors import InputError, ResourceError
from .model import Dataset, Way

#: How to get the tools.
INSTALL = {
    "datalad": "pip install datalad, and git-annex (apt install git-annex, or conda install -c "
    "conda-forge git-annex datalad)",
    "aws": "pip install awscli (no account is needed)",
    "nilearn": "pip install 'brainlm[imaging]'",
}
#: What the tools say where there is no way out of this machine.
_OFFLINE = (
    "could not resolve host",
    "could not connect to the endpoint",
    "name or service not known",
    "temporary failure in name resolution",
    "network is unreachable",
    "failed to establish a new connection",
    "max retries exceeded",
    "connection refused",
    "no route to host",
    "could not be resolved",
)
#: Runs one function of nilearn.datasets: its name, then its options as JSON.
_NILEARN = """
import json, sys
from nilearn import datasets
getattr(datasets, sys.argv[1])(**json.loads(sys.argv[2]))
"""
_KEPT_LINES = 30


def choose_way(dataset: Dataset, tool: str | None) -> Way:
    """The way to fetch it: by the tool that the user names, else the first whose tool is here."""
    if not dataset.fetch:
        raise InputError(
            f"{dataset.name} cannot be fetched by a command: {dataset.access.licence}",
            fix=f"{dataset.access.how} ({dataset.access.portal})",
        )
    ways = {way.tool: way for way in dataset.fetch}
    if tool is not None:
        if tool not in ways:
            raise InputError(
                f"There is no way to fetch {dataset.name} with {tool}",
                fix=f"choose of {', '.join(ways)}",
            )
        return ways[tool]
    return next((way for way in dataset.fetch if is_here(way.tool)), dataset.fetch[0])


def is_here(tool: str) -> bool:
    """Whether the tool is installed."""
    if tool == "nilearn":
        return True  # imported in a process of its own, which says what is missing
    return shutil.which(tool) is not None


def check_tool(way: Way) -> None:
    """Refuse to begin without the tool."""
    if not is_here(way.tool):
        raise InputError(f"{way.tool} is not installed", fix=INSTALL[way.tool])


def commands_now(way: Way, to: Path, count: int | None) -> list[list[str]]:
    """What can be run at once: all, unless single subjects are wanted that are to be listed."""
    if count is None:
        return [argv(way, command, to) for command in (*way.first, *way.everything)]
    if way.some:
        return [argv(way, command, to, count=count) for command in (*way.first, *way.some)]
    if not way.subject:
        raise InputError(
            f"{way.tool} fetches this dataset as a whole only",
            fix="leave --subjects out, or choose another tool with --with",
        )
    return [argv(way, command, to) for command in way.first]


def commands_for(way: Way, to: Path, subjects: Iterable[str]) -> list[list[str]]:
    """What gets these subjects."""
    return [argv(way, line, to, subject=name) for name in subjects for line in way.subject]


def argv(
    way: Way, command: Iterable[str], to: Path, *, subject: str = "", count: int = 0
) -> list[str]:
    """The arguments of one command, its places filled in."""
    filled = [
        word.replace("{to}", str(to)).replace("{subject}", subject).replace("{count}", str(count))
        for word in command
    ]
    if way.tool != "nilearn":
        return filled
    options = dict(word.split("=", 1) for word in filled[1:])
    typed = {name: int(text) if text.isdigit() else text for name, text in options.items()}
    return [sys.executable, "-c", _NILEARN, filled[0], json.dumps(typed, sort_keys=True)]


def first_subjects(to: Path, count: int) -> list[str]:
    """The first `count` subjects of what has been fetched so far, such as sub-01."""
    folders = sorted(path.name for path in to.glob("sub-*") if path.is_dir())
    listed = to / "participants.tsv"
    names = folders
    if listed.is_file():
        with listed.open(encoding="utf-8-sig", newline="") as handle:
            rows = list(csv.DictReader(handle, delimiter="\t"))
        named = sorted({row.get("participant_id") or "" for row in rows} - {""})
        names = [name if name.startswith("sub-") else f"sub-{name}" for name in named]
        if set(folders) & set(names) and len(folders) > count:
            names = [name for name in names if name in set(folders)]
    if not names:
        raise InputError(
            "Which subjects there are cannot be told: no sub-* folder, no participants.tsv",
            file=to,
            fix="fetch the whole dataset: leave --subjects out",
        )
    return names[:count]


def run_command(command: list[str], show: Callable[[str], None]) -> None:
    """Run one command, its words shown as they come; an error says what it last said.

    What has been fetched stays where it is: all of the tools go on from there.
    """
    last: deque[str] = deque(maxlen=_KEPT_LINES)
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise InputError(f"{command[0]} cannot be run: {error.strerror}") from None
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            last.append(line.strip())
            show(line.rstrip("\n"))
    if not process.returncode:
        return
    said = next((line for line in reversed(last) if line), "it said nothing")
    words = " ".join(last).lower()
    tool = "nilearn" if command[0] == sys.executable else command[0]
    if any(phrase in words for phrase in _OFFLINE):
        raise ResourceError(
            f"{tool} could not reach the server: {said}",
            fix="check the network (on a cluster: fetch on a login or transfer node), then run "
            "this again: it goes on from where it stopped",
        )
    raise ResourceError(
        f"{tool} ended with exit code {process.returncode}: {said}",
        fix="mend what it says, then run this again: it goes on from where it stopped",
    )

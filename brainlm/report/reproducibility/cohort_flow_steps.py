"""The way from all recordings that were found to the splits, with each exclusion's reason."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from ...shards.datasheet import without_names
from ...shards.splits import SPLITS
from ...wording import Tell, counted, exactly
from ..gather import Findings
from .base import Sharing
from .sharing import Cell, tell_chain
from .sharing import Told as Chain

#: Reasons told of one step; the others are counted together.
MOST_REASONS = 8

#: How reasons that quality control gives begin (shards/selection.py).
_QUALITY = ("mean FD above", "parcels with a series below", "scrubbing leaves")

#: What the shareable variant says of a reason: its own words may hold anybody's name.
_IN_PUBLIC = (
    (r"mean FD above", "too much motion"),
    (r"parcels with a series below", "too few parcels covered"),
    (r"scrubbing leaves|volumes; at least|too short", "too few volumes"),
    (r"\bTR\b|RepetitionTime", "repetition time missing or not usable"),
    (r"\bT1w\b", "no usable T1w"),
    (r"\bNaN\b|\binf\b", "values that are no numbers"),
    (r"changed since|does not describe|exchanged", "a file was changed"),
)


@dataclass(frozen=True)
class Group:
    """Recordings that left at one step for one reason."""

    reason: str
    cell: Cell


@dataclass(frozen=True)
class Step:
    """A stop on the way: what left before it, and what is there."""

    title: str
    out: tuple[Group, ...]
    left: Cell


@dataclass(frozen=True)
class Split:
    """One of train, val and test."""

    name: str
    cell: Cell
    minutes: float


@dataclass(frozen=True)
class Flow:
    """All of it; `splits` is empty while there is no cohort."""

    steps: tuple[Step, ...]
    splits: tuple[Split, ...]


def read_flow(findings: Findings, *, public: bool) -> Flow:
    """The flow; `public` tells kinds of reasons instead of their words."""
    table = findings.outcomes.merge(
        findings.recordings[["recording_id", "subject"]], on="recording_id"
    )
    table["words"] = [
        _words(str(row.status), str(row.stage), str(row.reason), public)
        for row in table.itertuples()
    ]
    first = table["reason"].fillna("").str.split("; ").str[0]
    quality = first.str.startswith(_QUALITY)
    leaves = (
        ("eligible", table["status"] == "ineligible"),
        ("processed", table["status"].isin(["failed", "unfinished"])),
        ("passed quality control", (table["status"] == "excluded") & quality),
        ("in the cohort", (table["status"] == "excluded") & ~quality),
    )
    there = table
    steps = [Step("found", (), _cell(there))]
    for title, out in leaves[: 4 if findings.cohort is not None else 2]:
        gone = table[out]
        there = there[~there["recording_id"].isin(gone["recording_id"])]
        steps.append(Step(title, _groups(gone), _cell(there)))
    return Flow(tuple(steps), tuple(_splits(findings)))


def _splits(findings: Findings) -> Iterator[Split]:
    if findings.cohort is None:
        return
    for name in SPLITS:
        part = findings.cohort[findings.cohort["split"] == name]
        seconds = part["n_volumes"].astype(float) * part["tr"].astype(float)
        yield Split(name, _cell(part), float(seconds.sum()) / 60)


def _cell(table: pd.DataFrame) -> Cell:
    return Cell(len(table), frozenset(table["subject"].astype(str)))


def _words(status: str, stage: str, reason: str, public: bool) -> str:
    """A reason as it is counted: of those that the cohort's rules join, the first."""
    if status == "unfinished":
        return "not processed to the end yet"
    first = reason.split("; ")[0] if status == "excluded" else reason
    where = {"ineligible": "", "excluded": ""}.get(status, f"{stage}: ")
    if not public:
        return where + without_names(first)
    for pattern, told in _IN_PUBLIC:
        if re.search(pattern, first):
            return where + told
    return where + "another reason"


def _groups(gone: pd.DataFrame) -> tuple[Group, ...]:
    """By reason, the most frequent first; reasons that differ in numbers alone are one."""
    key = gone["words"].str.replace(r"\d+(?:\.\d+)?", "…", regex=True)
    groups = []
    for same, part in gone.groupby(key, sort=True):
        words = part["words"].iloc[0] if part["words"].nunique() == 1 else str(same)
        groups.append(Group(words, _cell(part)))
    groups.sort(key=lambda group: -group.cell.recordings)
    kept, rest = groups[:MOST_REASONS], groups[MOST_REASONS:]
    if rest:
        people = frozenset[str]().union(*(group.cell.subjects for group in rest))
        cell = Cell(sum(group.cell.recordings for group in rest), people)
        kept.append(Group(f"{len(rest)} other reasons", cell))
    return tuple(kept)


Line = tuple[str, str, str, list[tuple[str, str]]]  # title, number, of whom, what left before it


@dataclass(frozen=True)
class Told:
    """A flow in words, ready to draw."""

    steps: list[Line]
    splits: list[dict[str, str]]


def tell(flow: Flow, sharing: Sharing | None, k: int) -> Told:
    """Numbers as text: all of them, or those that may be told where there is a `sharing`."""
    last = [split.cell for split in flow.splits] or [flow.steps[-1].left]
    chain = [[group.cell for group in step.out] for step in flow.steps[1:]] + [last]
    if sharing is None:
        everything = tuple((True,) * len(step) for step in chain)
        told = Chain(True, everything, (True,) * len(chain))
    else:
        told = tell_chain(chain, k)
    found, cells = flow.steps[0].left, told.cells
    # Elsewhere the same numbers are rounded: beside an exact one, that would narrow hidden ones.
    say = exactly if sharing is None else sharing.count
    lines: list[Line] = [
        ("found", _number(found, told.found, say), _people(found, sharing is None, say), [])
    ]
    for place, step in enumerate(flow.steps[1:]):
        out = [
            (_number(group.cell, is_told, say), group.reason)
            for group, is_told in zip(step.out, cells[place], strict=True)
        ]
        is_told = told.totals[place] and told.found
        whole = sharing is None or (
            is_told and place == len(flow.steps) - 2 and all(cells[-1])  # the sum of the splits
        )
        lines.append(
            (step.title, _number(step.left, is_told, say), _people(step.left, whole, say), out)
        )
    splits = [
        {
            "name": split.name,
            "subjects": say(len(split.cell.subjects)) if is_told else "not told",
            "people": _people(split.cell, is_told, say),
            "recordings": say(split.cell.recordings) if is_told else "not told",
            "minutes": f"{split.minutes:,.0f}" if sharing is None else "not told",
        }
        for split, is_told in zip(flow.splits, cells[-1], strict=False)
    ]
    return Told(lines, splits)


def _number(cell: Cell, is_told: bool, say: Tell) -> str:
    return say(cell.recordings) if is_told else "not told"


def _people(cell: Cell, is_told: bool, say: Tell) -> str:
    if not is_told:
        return ""
    return counted(len(cell.subjects), "subject", say)

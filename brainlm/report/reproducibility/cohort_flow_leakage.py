"""The proof that nobody is on both sides, made anew from the files as they are now.

What `brainlm cohort` wrote in cohort/leakage.json is one of the things that are checked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from ...files import read_json
from ...provenance import is_tombstone
from ...shards.fingerprint import split_sha256
from ...shards.splits import in_two_splits
from ...wording import counted
from .base import About


@dataclass(frozen=True)
class Check:
    """One question, and the answer."""

    question: str
    file: str  # relative to the study
    state: str  # "holds", "broken" or "not checked"
    told: str  # how many of what, or why not
    count: int = 0  # of what breaks it


def check_leakage(about: About) -> list[Check]:
    """All checks that the files of the study allow; none before there is a cohort."""
    cohort = about.findings.cohort
    if cohort is None:
        return []
    name = about.study.relative(about.path("cohort"))
    found = [*_torn(cohort, name, "cohort")]
    found += _splits_table(about, cohort)
    found.append(_written_proof(about, cohort))
    if about.findings.shards is not None:
        index = about.study.relative(about.path("shards_index"))
        found += _torn(about.findings.shards, index, "shards' index")
        found += _shards(about.findings.shards, cohort, index)
    found += _models(about, cohort)
    found += _predictions(about, cohort)
    return found


def alarms(checks: list[Check]) -> list[str]:
    """What must not be, in sentences."""
    return [
        f"Leakage, {check.file}: {check.question} No: {check.told}"
        for check in checks
        if check.state == "broken"
    ]


def _answer(question: str, file: str, broken: int, held: str, if_broken: str) -> Check:
    state = "broken" if broken else "holds"
    return Check(question, file, state, if_broken if broken else held, broken)


def _torn(table: pd.DataFrame, file: str, what: str) -> Iterator[Check]:
    """Subjects, families, equal scans in more than one split of a table."""
    for column, noun in (
        ("subject", "subject"),
        ("family", "family"),
        ("timeseries_sha256", "scan (by its bytes)"),
    ):
        question = f"Is each {noun} of the {what} in one split only?"
        if column not in table.columns:
            if column == "subject":
                yield Check(question, file, "not checked", "there is no such column")
            continue
        known = table[column].dropna()
        if column == "family" and known.empty:
            yield Check(question, file, "not checked", "split.family names no label")
            continue
        torn = in_two_splits(table, column)
        yield _answer(
            question,
            file,
            len(torn),
            f"{known.nunique():,} in one split each",
            f"{len(torn)} are in several",
        )


def _splits_table(about: About, cohort: pd.DataFrame) -> Iterator[Check]:
    path = about.path("splits")
    file = about.study.relative(path)
    table = _read(path, lambda one: pd.read_csv(one, sep="\t", dtype="string"))
    question = "Does the table of splits say of every subject what the cohort says?"
    if table is None or not {"subject", "split"} <= set(table.columns):
        yield Check(question, file, "not checked", "it is missing or cannot be read")
        return
    yield from _torn(table, file, "table of splits")
    said = dict(zip(table["subject"], table["split"], strict=True))
    pairs = cohort[["subject", "split"]].drop_duplicates()
    other = sum(said.get(str(row.subject)) != row.split for row in pairs.itertuples())
    yield _answer(
        question, file, other, counted(len(pairs), "subject"), f"not of {counted(other, 'subject')}"
    )


def _written_proof(about: About, cohort: pd.DataFrame) -> Check:
    """What the cohort's command proved, beside what is there now."""
    path = about.path("leakage")
    file = about.study.relative(path)
    question = "Is the proof that the cohort's command wrote of these splits, without overlaps?"
    proof = _read(path, read_json)
    if not isinstance(proof, dict) or "split_sha256" not in proof:
        return Check(question, file, "not checked", "it is missing or cannot be read")
    if proof["split_sha256"] != split_sha256(cohort):
        return _answer(question, file, 1, "", "it is of other splits")
    overlaps = sum(int(count) for count in proof.get("in_two_splits", {}).values())
    return _answer(
        question, file, overlaps, "same splits, no overlap", counted(overlaps, "overlap")
    )


def _shards(index: pd.DataFrame, cohort: pd.DataFrame, file: str) -> Iterator[Check]:
    """Do the shards hold the cohort, each recording in a shard of its split?"""
    pairs = {"recording_id", "split"}
    if not pairs <= set(index.columns):
        yield Check("Do the shards hold the cohort?", file, "not checked", "columns are missing")
        return
    here = dict(zip(index["recording_id"], index["split"], strict=True))
    there = dict(zip(cohort["recording_id"], cohort["split"], strict=True))
    other = sum(here.get(name) != there.get(name) for name in here.keys() | there.keys())
    yield _answer(
        "Is each recording of the cohort in the shards, in its split, and no other?",
        file,
        other,
        counted(len(here), "recording"),
        f"not {counted(other, 'recording')}",
    )
    wrong = sum(not str(row.shard).startswith(f"{row.split}-") for row in index.itertuples())
    yield _answer(
        "Is each recording in a shard that is named after its split?",
        file,
        wrong,
        counted(index["shard"].nunique(), "shard"),
        f"not {counted(wrong, 'recording')}",
    )


def _models(about: About, cohort: pd.DataFrame) -> Iterator[Check]:
    """Were models trained, and scores made, with the splits of now?"""
    now = split_sha256(cohort)
    root = about.study.root
    files = [
        *sorted(root.glob("models/*/config.json")),
        *sorted(root.glob(f"evaluation/{about.fields['run']}/*/metrics.json")),
    ]
    other, held, silent = [], 0, 0
    for path in files:
        content = _read(path, read_json)
        said = content.get("split_sha256") if isinstance(content, dict) else None
        if said is None:
            silent += 1  # trained on none of the study's subjects, or not to be read
        elif said == now:
            held += 1
        else:
            other.append(about.study.relative(path))
    question = "Were all models and scores made with the splits of now?"
    if not held and not other:
        yield Check(question, "models, evaluation", "not checked", "none says with which")
        return
    yield _answer(
        question,
        ", ".join(other[:3]) or "models, evaluation",
        len(other),
        f"{held:,} say so" + (f", {silent:,} say nothing" if silent else ""),
        f"{len(other)} were made with others",
    )


def _predictions(about: About, cohort: pd.DataFrame) -> Iterator[Check]:
    """Is nobody scored whom, or whose family, the models learned from?"""
    learned = cohort[cohort["split"] == "train"]
    people = set(learned["subject"].astype(str))
    families = set(learned["family"].dropna()) if "family" in learned.columns else set()
    whose = cohort.set_index("recording_id")
    for target in about.targets:
        path = about.path("clinical_predictions", target=target)
        if not path.exists():
            continue
        file = about.study.relative(path)
        question = f"Is nobody scored in {target} who, or whose family, was learned from?"
        table = _read(path, lambda one: pq.read_table(one, columns=["recording_id"]).to_pandas())
        if table is None:
            yield Check(question, file, "not checked", "it cannot be read")
            continue
        names = [name for name in table["recording_id"].unique() if name in whose.index]
        scored = whose.loc[names]
        torn = scored["subject"].astype(str).isin(people)
        if families:
            torn |= scored["family"].isin(families)
        count = int(torn.sum())
        held = f"{counted(len(scored), 'recording')} scored"
        yield _answer(question, file, count, held, f"{counted(count, 'recording')} of such people")


def _read(path: Path, how: Callable[[Path], Any]) -> Any:
    """What `how` makes of a file, or None: damaged files are told elsewhere on the page."""
    if not path.exists() or is_tombstone(path):
        return None
    try:
        return how(path)
    except (ValueError, KeyError, OSError, json.JSONDecodeError):
        return None

"""What onboarding reads and tells of the recordings that it found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..wording import counted
from ._console import progress, say, warn

if TYPE_CHECKING:
    import pandas as pd

    from ..config import Config


def tell_lost_labels(earlier: Path, table: pd.DataFrame) -> None:
    """Warn of labels that the recordings table of an earlier onboarding had, and this one not."""
    import pyarrow.parquet as pq

    from ..recordings import LABEL_PREFIX

    if not earlier.exists():
        return
    gone = [name for name in pq.read_schema(earlier).names if name not in table.columns]
    lost = [name.removeprefix(LABEL_PREFIX) for name in gone if name.startswith(LABEL_PREFIX)]
    if lost:
        warn(f"labels that are gone: {', '.join(lost)}. Were they in another table?")


def problems(config: Config, table: pd.DataFrame) -> list[str]:
    """What is still to be done before the first run."""
    from ._problems import problems_of, target_problems

    kinds = set(table["kind"].dropna())
    found = [*problems_of(config, kinds), *target_problems(config, table)]
    told = [str(problem) for problem in found]
    if config.engine == "fmriprep":
        first = str(table.loc[table["eligible"], "subject"].iloc[0])
        told.append(
            "`brainlm containers pull fmriprep` and `brainlm containers prepare`; then "
            f"`brainlm fmriprep sub-{first} --dry-run` checks engine, image, licence, templates"
        )
    cleaned = table["ready_about"].str.contains('"cleaned": true').fillna(False)
    if cleaned.any() and kinds == {"volume"} and config.denoise.method not in ("fix", "none"):
        told.append(
            f"{counted(int(cleaned.sum()), 'run')} denoised already: set denoise.method: fix, "
            f"unless {config.denoise.method} is meant to come on top"
        )
    return told


def read_source(
    source: Path,
    config: Config,
    study: Path,
    participants: Path | None,
    full: bool,
    threads: int,
) -> tuple[pd.DataFrame, list[str]]:
    """The recordings table, of raw runs or of those that another pipeline preprocessed."""
    from ..bids.dataset import read_dataset
    from ..bids.ready.dataset import read_ready
    from ..bids.ready.detect import look_at
    from ..bids.table import Limits
    from ..errors import InputError
    from ._measure import measure, parcel_names_of

    if config.engine == "derivatives":
        names = parcel_names_of(config.atlas.name)
        return read_ready(
            source,
            config,
            study,
            participants=participants,
            measure=lambda kind, path: measure(kind, path, names),
            full=full,
            threads=threads,
            progress=progress,
        )
    if participants is not None:
        raise InputError(
            "--participants is for derivatives",
            fix="a BIDS dataset has its own participants.tsv",
        )
    seen = look_at(source)
    if seen is not None and seen.layout != "bids":
        raise InputError(
            f"This folder holds no raw BIDS runs, but files of layout {seen.layout} ({seen.sign})",
            file=source,
            fix="engine derivatives reads them: leave --engine out for a new study",
        )
    limits = Limits(**config.eligibility.model_dump())
    return read_dataset(source, limits, full=full, threads=threads, progress=progress)


def summarise(table: pd.DataFrame) -> None:
    """Print what was found, with each reason once."""
    eligible = table[table["eligible"]]
    say(
        f"{counted(len(table), 'recording')} of {counted(table['subject'].nunique(), 'subject')}; "
        f"{len(eligible):,} eligible, of {counted(eligible['subject'].nunique(), 'subject')}"
    )
    for reason, rows in table[~table["eligible"]].groupby("reason"):
        example = rows["recording_id"].iloc[0]
        others = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
        say(f"  not eligible: {example}{others}: {reason}")
    last = int(eligible["wave"].max()) if len(eligible) else 0
    if last:
        new = int((table["wave"] == last).sum())
        say(f"  waves: {last + 1}; the last one brought {counted(new, 'recording')}")
    times = ", ".join(
        f"{tr:g} s ({count})" for tr, count in eligible["tr"].value_counts().sort_index().items()
    )
    say(f"  TR: {times or 'none'}")
    with_t1w = int(eligible["t1w"].notna().sum())
    say(f"  T1w: {with_t1w:,} of {counted(len(eligible), 'recording')}")
    repaired = int(table["notes"].notna().sum())
    if repaired:
        say(
            f"  notes on {counted(repaired, 'recording')}: "
            "column `notes` of onboarding/recordings.tsv"
        )

"""README.md and croissant.json beside the shards: what they hold, in numbers, naming nobody.

Equal shards give equal bytes: there is no date in them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from .. import __version__
from ..files import write_json, write_text
from ..provenance import sha256_file
from .croissant import croissant
from .reader import NORMALIZATION_NAME, PARCELS_NAME
from .scaler import Scaler, load_scaler
from .splits import SPLITS
from .summary import summarise

README_NAME = "README.md"
CROISSANT_NAME = "croissant.json"
NOT_STATED = "not stated"

#: A recording, a subject or a file of theirs, wherever a reason names one.
_NAMES = re.compile(r"sub-[A-Za-z0-9+]+(?:[_/.][A-Za-z0-9+.-]+)*")
#: Any other file, since people call their tables by subjects: 1234567_20227_2_0.dat.
#: With blanks in it only where the reason begins with it: "Anna B.csv: whose table this is ...".
_ENDING = r"\.(?:nii\.gz|nii|gii|json|tsv|csv|txt|dat|npy|mat|parquet|h5|hdf5)\b"
_FILES = re.compile(rf"(?:^|(?<=; ))[^:;]*{_ENDING}(?=:)|(?<![\w.])[\w./+-]*{_ENDING}")
#: Files of a whole study.
_NO_NAMES = frozenset({"recordings.tsv", "participants.tsv", "dataset_description.json"})


@dataclass(frozen=True)
class Source:
    """What the dataset that the shards were made of says of itself."""

    name: str
    licence: str = NOT_STATED
    citation: str = NOT_STATED

    @classmethod
    def of(cls, description: Mapping[str, Any], *, name: str) -> Source:
        """From a BIDS dataset_description.json; `name` stands in for a missing one."""
        cite = description.get("HowToAcknowledge") or description.get("DatasetDOI")
        return cls(
            name=str(description.get("Name") or name),
            licence=str(description.get("License") or NOT_STATED),
            citation=str(cite or NOT_STATED),
        )


@dataclass(frozen=True, eq=False)
class Sheet:
    """All that a datasheet tells."""

    source: Source
    summary: dict[str, Any]  # `summarise`
    excluded: list[tuple[str, str, int]]  # stage, reason, recordings
    scaler: Scaler
    columns: dict[str, str]  # of the index, and their types
    parcels: int


def describe(
    folder: Path, index: pd.DataFrame, exclusions: pd.DataFrame, source: Source, *, dtype: str
) -> Sheet:
    """Gather what there is to tell of the shards in `folder`, whose parcels and scaler are there.

    `exclusions` has the columns recording_id, stage and reason.
    """
    parcels = len(pd.read_csv(folder / PARCELS_NAME, sep="\t"))
    return Sheet(
        source=source,
        summary=summarise(index, parcels=parcels, dtype=dtype),
        excluded=count_reasons(exclusions),
        scaler=load_scaler(folder / NORMALIZATION_NAME),
        columns={str(name): str(kind) for name, kind in index.dtypes.items()},
        parcels=parcels,
    )


def count_reasons(exclusions: pd.DataFrame) -> list[tuple[str, str, int]]:
    """Stage, reason and number of recordings, the most frequent first; names are taken out."""
    pairs = Counter(
        (str(row.stage), without_names(str(row.reason))) for row in exclusions.itertuples()
    )
    return sorted(
        ((stage, reason, count) for (stage, reason), count in pairs.items()),
        key=lambda found: (-found[2], found[0], found[1]),
    )


def without_names(reason: str) -> str:
    """A reason without the recordings and files that it names."""
    reason = _NAMES.sub("(a recording)", reason)
    return _FILES.sub(
        lambda found: found[0] if found[0] in _NO_NAMES else "(a file)",
        reason,
    )


def write_datasheet(folder: Path, sheet: Sheet, files: Mapping[str, str], index: Path) -> None:
    """Write both; `files` maps each file's name to its SHA-256.

    `index` is where the index lies now, which gets its name last.
    """
    write_text(folder / README_NAME, readme(sheet))
    files = {**files, README_NAME: sha256_file(folder / README_NAME)}
    sizes = {
        name: (folder / name if (folder / name).exists() else index).stat().st_size
        for name in files
    }
    content = croissant(
        name=sheet.source.name,
        description=_in_short(sheet),
        licence=sheet.source.licence,
        citation=sheet.source.citation,
        files={name: (files[name], sizes[name]) for name in sorted(files)},
        columns=sheet.columns,
    )
    write_json(folder / CROISSANT_NAME, content)


def readme(sheet: Sheet) -> str:
    """The datasheet as Markdown."""
    storage, about = sheet.summary["storage"], sheet.scaler.about
    clipped = storage["clipped_values"]
    parts = [
        f"# Shards of {sheet.source.name}\n\n{_in_short(sheet)}",
        "## What is here\n\n" + _table(sheet.summary["splits"]),
        "Motion is the mean framewise displacement of a recording, coverage the share of parcels "
        "with data: median over recordings (5th to 95th percentile). Each subject is in one split.",
        "## Left out\n\n" + _exclusions(sheet.excluded),
        "## Values\n\n"
        f"Normalisation: {sheet.scaler.method}. Median and interquartile range of each "
        f"parcel are those of {about['n_recordings']:,} train recordings of "
        f"{about['n_subjects']:,} subjects (`{NORMALIZATION_NAME}`). NaN marks a parcel that a "
        "recording does not cover.\n\n"
        f"Stored as {storage['dtype']}; stored minus exact value, in units of the stored values: "
        f"root mean square {storage['error_rms']:g}, at most {storage['error_max']:g}. "
        + (
            f"{clipped:,} values in {storage['clipped_recordings']:,} recordings were too large "
            "for that and became its largest."
            if clipped
            else "No value was too large for that."
        ),
        "## Labels\n\n" + _labels(sheet.summary["labels"]),
        "## To read them\n\n" + _HOW_TO_READ,
        "## Terms\n\n"
        f"Licence: {sheet.source.licence}. To cite: {sheet.source.citation}. The index names "
        "subjects as the dataset does: mind its terms before passing it on.",
    ]
    return "\n\n".join(parts) + "\n"


_HOW_TO_READ = f"""```python
import pandas as pd
from safetensors import safe_open

row = pd.read_parquet("index.parquet").iloc[0]
with safe_open(row["shard"], framework="numpy") as shard:
    window = shard.get_slice(row["recording_id"])[0:200]  # (time, parcels)
```

`{PARCELS_NAME}` names the parcels, in the order of the columns; `croissant.json` describes the
files and the index for machines. `brainlm shards verify` checks every byte, `brainlm shards info`
counts."""


def _in_short(sheet: Sheet) -> str:
    whole = sheet.summary["splits"]["all"]
    return (
        f"Scaled parcel time series of {whole['recordings']:,} fMRI recordings of "
        f"{whole['subjects']:,} subjects: {whole['hours']:,.1f} hours, {whole['volumes']:,} "
        f"volumes of {sheet.parcels} parcels. One tensor (time, parcels) per recording, in "
        "safetensors files; index.parquet says which file holds which. "
        f"Made by brainlm {__version__}."
    )


def _table(splits: Mapping[str, Mapping[str, Any]]) -> str:
    names = [*SPLITS, "all"]
    rows = [
        ("shards", [f"{splits[name]['shards']:,}" for name in names]),
        ("recordings", [f"{splits[name]['recordings']:,}" for name in names]),
        ("subjects", [f"{splits[name]['subjects']:,}" for name in names]),
        ("sites", [f"{splits[name]['sites'] or 'not known'}" for name in names]),
        ("hours", [f"{splits[name]['hours']:,.1f}" for name in names]),
        ("volumes", [f"{splits[name]['volumes']:,}" for name in names]),
        ("MB", [f"{splits[name]['megabytes']:,.1f}" for name in names]),
        ("TR, s (recordings)", [_trs(splits[name]["tr"]) for name in names]),
        ("motion, mm", [_range(splits[name]["mean_fd_mm"], "{:.3f}") for name in names]),
        ("coverage", [_range(splits[name]["share_of_parcels"], "{:.1%}") for name in names]),
    ]
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    lines += ["| " + " | ".join([what, *cells]) + " |" for what, cells in rows]
    return "\n".join(lines)


def _trs(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{tr} ({count:,})" for tr, count in counts.items()) or "–"


def _range(spread: Mapping[str, float | None], form: str) -> str:
    if spread["median"] is None:
        return "not known"
    low, middle, high = (form.format(spread[name]) for name in ("p5", "median", "p95"))
    return f"{middle} ({low} to {high})"


def _exclusions(excluded: list[tuple[str, str, int]]) -> str:
    if not excluded:
        return "No recording was left out."
    lines = ["| recordings | stage | reason |", "|---|---|---|"]
    lines += [
        f"| {count:,} | {stage} | {reason.replace('|', '/')} |" for stage, reason, count in excluded
    ]
    return "\n".join(lines)


def _labels(labels: Mapping[str, int]) -> str:
    told = ", ".join(f"`{name}` ({count:,} recordings)" for name, count in labels.items())
    return f"Columns `label_<name>` of the index: {told}." if told else "None."

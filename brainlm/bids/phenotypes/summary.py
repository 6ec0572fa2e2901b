"""What each label is like: `onboarding/labels.tsv`, written by onboarding, read by its page."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...config.base import LABEL_NAME
from ...errors import InputError
from ...layout import Study
from .dictionary import Column
from .tables import Source
from .values import Parsed
from .wanted import Wanted

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

#: Levels that are counted one by one; the others are counted together.
MOST_LEVELS = 20
_BINS = 20
_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True)
class LabelSummary:
    """One label: where it is from and how its values are spread over people.

    Of a subject with several recordings each different value counts once. All counts are over the
    recordings table, whether eligible or not.
    """

    name: str  # without `label_`
    type: str  # number, category, ordinal or binary
    stored: str  # number or text, in the recordings table
    unit: str | None
    table: str
    column: str
    file: str
    sha256: str  # of that file (of the sessions files, of the list of their hashes)
    subjects: int  # with a value
    recordings: int  # with a value
    missing: dict[str, int]  # reason -> subjects without any value
    mean: float | None
    sd: float | None
    quantiles: dict[str, float]  # of a number: "0", "0.05", ... "1" -> value; else empty
    histogram: dict[str, list[float]]  # of a number: edges and counts; else empty
    levels: list[dict[str, Any]]  # of other types: value, name, subjects; most frequent first
    other_levels: int  # subjects with a level that is not listed
    notes: list[str]  # what was decided
    suspicions: list[str]  # what may be wrong, and was left as it is
    description: str | None
    term_url: str | None
    derived: bool
    can_be_target: bool  # of fine-tuning, by its name


def summarise(
    label: Wanted,
    source: Source,
    sha256: str,
    about: Column,
    parsed: Parsed,
    values: pd.Series,
    why: pd.Series,
    who: NDArray[np.intp],
    told: list[str],
) -> LabelSummary:
    """Count a label's `values`, one for each recording; `why` says why one is missing.

    `who` is the number of each recording's subject.
    """
    import numpy as np
    import pandas as pd

    is_number = values.dtype != "string"
    present = values.notna().to_numpy()
    one_each = values[present].astype("float64" if is_number else "string")
    repeated = pd.DataFrame({"who": who[present], "value": one_each.to_numpy()}).duplicated()
    one_each = one_each[~repeated.to_numpy()]
    has_one = np.zeros(who.max(initial=-1) + 1, dtype=bool)
    has_one[who[present]] = True
    lacking = ~has_one[who]
    first = np.unique(who[lacking], return_index=True)[1]
    missing = Counter(str(reason) for reason in why.to_numpy()[lacking][first])
    spread = _spread(one_each) if parsed.type == "number" else {}
    levels, others = ([], 0) if parsed.type == "number" else _levels(one_each, parsed.names)
    return LabelSummary(
        name=label.name,
        type=parsed.type,
        stored="number" if is_number else "text",
        unit=parsed.unit,
        table=source.name,
        column=label.column,
        file=source.shown,
        sha256=sha256,
        subjects=int(has_one.sum()),
        recordings=int(present.sum()),
        missing=dict(sorted(missing.items(), key=lambda item: (-item[1], item[0]))),
        mean=spread.get("mean"),
        sd=spread.get("sd"),
        quantiles=spread.get("quantiles", {}),
        histogram=spread.get("histogram", {}),
        levels=levels,
        other_levels=others,
        notes=parsed.notes,
        suspicions=told,
        description=about.description,
        term_url=about.term_url,
        derived=about.derived,
        can_be_target=bool(re.fullmatch(LABEL_NAME, label.name)) and label.name != "forecast",
    )


def _spread(numbers: pd.Series) -> dict[str, Any]:
    import numpy as np

    if numbers.empty:
        return {}
    counts, edges = np.histogram(numbers.to_numpy(), bins=min(_BINS, max(1, numbers.nunique())))
    return {
        "mean": _short(float(numbers.mean())),
        "sd": _short(float(numbers.std(ddof=0))),
        "quantiles": {f"{q:g}": _short(float(numbers.quantile(q))) for q in _QUANTILES},
        "histogram": {
            "edges": [_short(float(edge)) for edge in edges],
            "counts": [int(n) for n in counts],
        },
    }


def _levels(values: pd.Series, names: Mapping[str, str]) -> tuple[list[dict[str, Any]], int]:
    """The most frequent levels, with their names, and how often there is another one."""
    text = values.dtype == "string"
    named = names if text else {_level(code): name for code, name in names.items()}
    counted = (values if text else values.map(_level)).value_counts()
    found = sorted(counted.items(), key=lambda item: (-int(item[1]), str(item[0])))
    listed = [
        {"value": str(value), "name": named.get(str(value), str(value)), "subjects": int(count)}
        for value, count in found[:MOST_LEVELS]
    ]
    return listed, sum(int(count) for _, count in found[MOST_LEVELS:])


def _level(value: object) -> str:
    """A level as text: 1 and 1.0 are the same."""
    try:
        return f"{float(str(value)):g}"
    except ValueError:
        return str(value)


def _short(value: float) -> float:
    """Seven digits, so that the last bits of a sum do not change the file."""
    return float(f"{value:.7g}")


def summary_bytes(labels: Iterable[LabelSummary]) -> bytes:
    """The table of labels; lists and mappings are JSON."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(field.name for field in fields(LabelSummary))
    for label in labels:
        writer.writerow(_to_cell(value) for value in asdict(label).values())
    return text.getvalue().encode()


def _to_cell(value: Any) -> str:
    if value is None:
        return "n/a"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def label_summaries(study_root: Path) -> list[LabelSummary]:
    """The labels of a study as its last onboarding found them."""
    path = Study(study_root).path("labels")
    again = "run `brainlm onboard` again"
    try:
        with path.open(encoding="utf-8", newline="") as handle:
            rows = list(csv.DictReader(handle, delimiter="\t"))
        return [_from_row(row) for row in rows]
    except FileNotFoundError:
        raise InputError("There is no table of labels yet", file=path, fix=again) from None
    except (ValueError, KeyError, TypeError):
        raise InputError("This is no table of labels", file=path, fix=again) from None


def _from_row(row: dict[str, str]) -> LabelSummary:
    content: dict[str, Any] = {}
    for field in fields(LabelSummary):
        cell = row[field.name]
        plain = field.type in ("str", "str | None")
        content[field.name] = (
            (None if cell == "n/a" and "None" in str(field.type) else cell)
            if plain
            else (None if cell == "n/a" else json.loads(cell))
        )
    return LabelSummary(**content)


def told_briefly(label: LabelSummary) -> str:
    """One line for the terminal."""
    unit = f" {label.unit}" if label.unit else ""
    if label.quantiles:
        low, middle, high = (label.quantiles[q] for q in ("0", "0.5", "1"))
        spread = f"{low:g} to {high:g}{unit}, median {middle:g}"
    else:
        spread = ", ".join(f"{level['name']} {level['subjects']}" for level in label.levels[:4])
        spread += ", ..." if len(label.levels) > 4 else ""
    lacking = sum(label.missing.values())
    return (
        f"{label.name}: {label.type}, {label.subjects} subjects"
        + (f" ({lacking} without)" if lacking else "")
        + (f": {spread}" if spread else "")
    )

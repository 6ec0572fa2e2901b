"""What the files of a study say they were made from: their sidecars, one record each."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .base import About
from .kinds import Kinds

#: Folders of a study in which stages write.
FOLDERS = (
    *("atlas/", "cohort/", "derivatives/brainlm/", "embeddings/", "evaluation/", "models/"),
    *("qc/", "reports/", "shards/"),
)
#: Metrics of one file that become nodes of their own, at most.
_METRICS = 300
#: Hashes that the index of the shards notes of what lies beside it.
_COPIES = ("scaler_sha256", "atlas_sha256")
#: What a sidecar says of its making; other fields of a JSON result are results.
_MAKING = frozenset(
    {"CodeDigest", "Entities", "Parameters", "Software", "Sources", "Stage", "Data"}
)


@dataclass
class Record:
    """A file, and what is recorded of it; `sources` maps each thing it was made from to a hash."""

    id: str
    kind: str
    sources: dict[str, str]
    stage: str | None = None
    of: str | None = None  # recording_id or anat_id
    data: tuple[int, str] | None = None  # size, and SHA-256 of both ends
    about: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)  # by JSON pointer
    people: int | None = None  # whom the metrics are of, where the file says it


def read_sidecars(about: About, kinds: Kinds) -> tuple[list[Record], list[str]]:
    """A record of each file that has a sidecar, in order, and what could not be read."""
    root, records, damaged = about.study.root, [], []
    seen: dict[str, Mapping[str, str]] = {}
    for name in about.options.progress(list(_json_files(root)), "reading what files say", None):
        named = kinds.of_sidecar(name)
        if named is None:
            continue
        try:
            content = json.loads((root / name).read_bytes())
        except (OSError, ValueError):
            damaged.append(name)
            continue
        if not isinstance(content, dict) or not isinstance(content.get("Sources"), dict):
            if name != named.path:  # a JSON result need not say anything
                damaged.append(name)
            continue
        data = content.get("Data") or {}
        software = json.dumps(content.get("Software", {}), sort_keys=True)
        record = Record(
            named.path,
            named.kind,
            {str(key): str(value) for key, value in content["Sources"].items()},
            str(content.get("Stage", "")) or None,
            named.of,
            (data["Size"], data["EndsSHA256"]) if {"Size", "EndsSHA256"} <= data.keys() else None,
            {
                "code": content.get("CodeDigest"),
                # Thousands of files share one list of versions.
                "software": seen.setdefault(software, content.get("Software", {})),
            },
        )
        for key in ("Device", "Threads", "Torch", "WentOnFrom", "ShardSha256", *_COPIES):
            if key in content:
                record.about[key] = content[key]
        if record.kind in (
            "model",
            "finetuned",
            "forecaster",
            "untrained_forecaster",
            "scaled_model",
        ):
            record.about["parameters"] = content.get("Parameters", {})
        if name == named.path:
            results = {key: value for key, value in content.items() if key not in _MAKING}
            record.metrics = dict(_first(_metrics(results, ""), _METRICS))
            record.people = results.get("n_subjects")
        records.append(record)
    return records, damaged


def _json_files(root: Path) -> Iterator[str]:
    for top in FOLDERS:
        for folder, folders, files in os.walk(root / top):
            folders[:] = sorted(
                name for name in folders if not name.startswith(".") and name != "checkpoints"
            )
            place = Path(folder).relative_to(root).as_posix()
            yield from (f"{place}/{name}" for name in sorted(files) if _is_json(name))


def _is_json(name: str) -> bool:
    return name.endswith(".json") and not name.startswith(".")


def _metrics(content: Any, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each thing in a result that has a value, by its JSON pointer."""
    if not isinstance(content, dict):
        return
    value = content.get("value")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        told = {name: content[name] for name in ("ci_low", "ci_high") if name in content}
        yield f"{place}/value", {"value": value, **told}
        return
    for key in sorted(content):
        part = str(key).replace("~", "~0").replace("/", "~1")
        yield from _metrics(content[key], f"{place}/{part}")


def _first(items: Iterator[Any], most: int) -> Iterator[Any]:
    for _, item in zip(range(most), items, strict=False):
        yield item

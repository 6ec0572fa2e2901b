"""Hashes that stand in tables, shards and checkpoints, as records like those of the sidecars."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...files import read_json
from ...provenance import is_tombstone, sha256_json
from .base import About
from .records import Record

#: Columns of the recordings table: a raw file, and its fingerprint.
_RAW = (("bold", "bold_sha256"), ("t1w", "t1w_sha256"))
#: Kinds that a training makes: beside them lie checkpoints.
TRAINED = ("model", "finetuned", "forecaster", "untrained_forecaster", "scaled_model")


def of_recordings_table(about: About) -> Record | None:
    """The table that onboarding made: every raw file with the fingerprint it had then."""
    table = _columns(
        about.path("recordings"),
        ("recording_id", "fmap", "fmap_sha256", "ready", "ready_sha256", *sum(_RAW, ())),
    )
    if table is None:
        return None
    sources: dict[str, str] = {}
    for row in table:
        for path, fingerprint in _raw_files(row):
            sources[f"bids::{path}"] = fingerprint
    return Record(about.study.relative(about.path("recordings")), "recordings", sources, "onboard")


def _raw_files(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for path, fingerprint in _RAW:
        if row.get(path) and row.get(fingerprint):
            yield row[path], row[fingerprint]
    maps, prints = (json.loads(row.get(key) or "[]") for key in ("fmap", "fmap_sha256"))
    yield from zip(maps, prints, strict=False)
    ready, prints = (json.loads(row.get(key) or "{}") for key in ("ready", "ready_sha256"))
    yield from ((path, prints[role]) for role, path in ready.items() if role in prints)


def of_series(about: About, records: Mapping[str, Record]) -> list[Record]:
    """The cohort and the plans of its shards, which name each parcel series with its hash."""
    found = []
    folder = about.path("shard_plan", shard="any").parent
    paths = [(about.path("cohort"), "cohort")]
    paths += [(path, "shard_plan") for path in sorted(folder.glob("*.parquet"))]
    for path, kind in paths:
        table = _columns(path, ("timeseries", "timeseries_sha256"))
        if table is None:
            continue
        name = about.study.relative(path)
        series = {
            row["timeseries"]: row["timeseries_sha256"] for row in table if "timeseries" in row
        }
        if kind == "cohort" and name in records:
            records[name].sources.update(series)
        else:
            found.append(Record(name, kind, series, "cohort"))
    return found


def of_shards(records: Mapping[str, Record]) -> list[Record]:
    """Each shard, of which the sidecar of its rows in the index tells the hash."""
    found = []
    for part in [one for one in records.values() if one.kind == "shard_part"]:
        digest = part.about.pop("ShardSha256", None)
        if digest is None:
            continue
        name = f"shards/{Path(part.id).stem}.safetensors"
        found.append(Record(name, "shard", dict(part.sources), part.stage, about=part.about))
        part.sources[name] = str(digest)
    return found


def of_copies(about: About, records: Mapping[str, Record]) -> list[Record]:
    """The scaling and parcels that lie beside the shards, by what the index says of them."""
    index = records.get(about.study.relative(about.path("shards_index")))
    found = []
    for kind, name, key in (
        ("scaler", "normalization.safetensors", "scaler_sha256"),
        ("atlas_table", "parcels.tsv", "atlas_sha256"),
    ):
        if index is not None and index.about.get(key):
            digest = str(index.about[key])
            copy = f"{index.id.rpartition('/')[0]}/{name}"
            index.sources[copy] = digest
            original = about.study.relative(about.path(kind))
            found.append(Record(copy, kind, {original: digest}, index.stage))
    return found


def of_models(about: About, records: Mapping[str, Record]) -> list[Record]:
    """What lies beside the weights: the scaling and parcels that they were trained with."""
    found: list[Record] = []
    for model in [one for one in records.values() if one.kind in TRAINED]:
        folder = (about.study.root / model.id).parent
        try:
            named = read_json(folder / "config.json").get("sha256", {})
        except (OSError, ValueError, AttributeError):
            named = {}
        for name, digest in sorted(named.items()):
            copy = about.study.relative(folder / name)
            kind = "scaler" if name.startswith("normalization") else "atlas_table"
            original = about.study.relative(about.path(kind))
            model.sources[copy] = str(digest)
            if not any(one.id == copy for one in found):
                found.append(Record(copy, kind, {original: str(digest)}, model.stage))
        found += _checkpoints(about, model, folder)
    return found


def _checkpoints(about: About, model: Record, folder: Path) -> list[Record]:
    """The training that ended in the model, by its note of what it was made of."""
    found = []
    for note in sorted(folder.glob("checkpoints/*/made-of.json")):
        try:
            made_of = read_json(note)
            if not _fits(made_of, model):
                continue
            # The folder is named after the hash of the note's content.
            whole = sha256_json(made_of)[:16] == note.parent.name
        except (OSError, ValueError, AttributeError, TypeError):
            continue
        name = about.study.relative(note)
        shards = about.study.relative(about.path("shards_index").parent)
        sources = {f"{shards}/{key}": str(value) for key, value in made_of.get("data", {}).items()}
        sources |= {key: str(value) for key, value in made_of.get("sources", {}).items()}
        steps = sorted(note.parent.rglob("step-*.safetensors"))
        told = {
            "code": str(made_of.get("code", ""))[:16],
            "machine": made_of.get("machine"),
            "checkpoints": len(steps),
            "fingerprint": note.parent.name,
            "whole": whole,
        }
        found.append(Record(name, "checkpoint", sources, model.stage, about=told))
    for one in found:
        # Linked by the fingerprint: the note's own bytes are nobody's source.
        model.sources.setdefault(one.id, "fingerprint")
    return found


def _fits(made_of: Mapping[str, Any], model: Record) -> bool:
    """Whether a training with this note may have ended in this model."""
    machine = made_of.get("machine", {})
    data = {str(value) for value in made_of.get("data", {}).values()}
    data |= {str(value) for value in made_of.get("sources", {}).values()}
    return (
        str(made_of.get("code", "")).startswith(str(model.about.get("code")))
        and all(model.about.get(key) == value for key, value in machine.items())
        and {value for name, value in model.sources.items() if name.endswith("index.parquet")}
        <= data
        and _agree(made_of.get("options", {}), model.about.get("parameters", {}))
    )


def _agree(one: Any, other: Any) -> bool:
    """Whether what both tell is the same; either may tell more."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return all(_agree(one[key], other[key]) for key in one.keys() & other.keys())
    return bool(one == other)


def _columns(path: Path, names: tuple[str, ...]) -> list[dict[str, Any]] | None:
    """The columns of a table that it has; None where there is none that can be read."""
    if not path.exists() or is_tombstone(path):
        return None
    try:
        there = set(pq.read_schema(path).names)
        table: list[dict[str, Any]] = pq.read_table(
            path, columns=[name for name in names if name in there]
        ).to_pylist()
    except (OSError, pa.ArrowInvalid):
        return None
    return table

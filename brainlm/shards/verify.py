"""Every byte of a folder of shards, against what the folder says about itself."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DataError
from ..provenance import sha256_file
from .datasheet import CROISSANT_NAME, README_NAME
from .index import check_columns
from .keeping import FOLDER as KEPT
from .plan import SHARD_REGEX, split_of
from .reader import INDEX_NAME, NORMALIZATION_NAME, PARCELS_NAME
from .scaler import load_scaler
from .splits import SPLITS, check_leakage
from .tensorfile import about_of, open_tensors
from .writer import SCHEMA_VERSION

#: What may lie beside the shards.
_BELONGING = frozenset(
    {
        *(INDEX_NAME, "index.json", NORMALIZATION_NAME, PARCELS_NAME, README_NAME, CROISSANT_NAME),
        *(KEPT, "parts"),
    }
)
#: Facts of a recording that both its shard's header and the index hold.
_IN_BOTH = (
    *("n_timepoints", "n_parcels", "n_clipped", "error_rms", "error_max", "sha256"),
    *("split", "tr"),
)
_SHARD_FILE = rf"{SHARD_REGEX}\.safetensors"
_STRAY = "does not belong here: the index knows nothing of it"
_REMOVE = "delete it, or run `brainlm index-shards` again"
_RESTORE = "copy this file anew from where it is whole, or delete it and run the workflow again"
_REMAKE = "run `brainlm index-shards` in the study, or copy the folder anew"


@dataclass(frozen=True)
class Fault:
    """Something that is not as it should be."""

    file: Path
    what: str
    fix: str


def verify_all(
    folder: Path,
    each: Callable[[Callable[[str], list[Fault]], list[str]], Iterable[list[Fault]]],
) -> tuple[pd.DataFrame, list[Fault]]:
    """The index of `folder`, and every fault; `each` maps a function over the names of shards.

    The small files come first: were they not whole, nothing could be compared with them.
    """
    hashes, faults = _described(folder)
    faults += [
        Fault(folder / name, f"is not the one that {CROISSANT_NAME} describes", _REMAKE)
        for name in (INDEX_NAME, NORMALIZATION_NAME, PARCELS_NAME, README_NAME)
        if name in hashes and _sha256(folder / name) != hashes[name]
    ]
    if faults:
        return pd.DataFrame(), faults
    try:
        index = pd.read_parquet(folder / INDEX_NAME)
        check_columns(index, folder / INDEX_NAME)
        scaler = load_scaler(folder / NORMALIZATION_NAME)
        parcels = len(pd.read_csv(folder / PARCELS_NAME, sep="\t"))
    except DataError as error:
        return pd.DataFrame(), [Fault(Path(error.file or folder), error.what, error.fix or _REMAKE)]
    except (OSError, ValueError, KeyError) as error:
        return pd.DataFrame(), [Fault(folder, f"its small files cannot be read: {error}", _REMAKE)]
    faults = _folder_faults(folder, index, scaler.about)
    expected = {
        "method": scaler.method,
        "atlas_sha256": sha256_file(folder / PARCELS_NAME),
        "scaler_sha256": sha256_file(folder / NORMALIZATION_NAME),
    }
    groups = {str(name): rows for name, rows in index.groupby("shard")}
    for path in folder.glob("*.safetensors"):
        if re.fullmatch(_SHARD_FILE, path.name):  # quality control may leave a shard empty
            groups.setdefault(path.name, index[:0])

    def one(name: str) -> list[Fault]:
        found = verify_shard(folder / name, groups[name], expected, parcels)
        if not found and name in hashes and _sha256(folder / name) != hashes[name]:
            found = [Fault(folder / name, "its header has been changed (SHA-256)", _RESTORE)]
        return found

    for found in each(one, sorted(groups)):
        faults += found
    return index, faults


def _described(folder: Path) -> tuple[dict[str, str], list[Fault]]:
    """File -> SHA-256 as croissant.json has them; none where it is not there."""
    path = folder / CROISSANT_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {str(item["@id"]): str(item["sha256"]) for item in content["distribution"]}, []
    except FileNotFoundError:
        return {}, []
    except (ValueError, KeyError, TypeError):
        return {}, [Fault(path, "this description cannot be read", _REMAKE)]


def _sha256(path: Path) -> str | None:
    return sha256_file(path) if path.exists() else None


def _folder_faults(folder: Path, index: pd.DataFrame, scaler: Mapping[str, Any]) -> list[Fault]:
    """What can be told without reading the tensors: splits, names, parcels, stray files."""
    faults, path = [], folder / INDEX_NAME
    try:
        check_leakage(index, path)
    except DataError as error:
        faults.append(Fault(path, error.what, error.fix or _REMAKE))
    twice = index["recording_id"][index["recording_id"].duplicated()]
    if len(twice):
        what = f"names {twice.nunique()} recordings twice, e.g. {twice.iloc[0]}"
        faults.append(Fault(path, what, _REMAKE))
    if unknown := sorted(set(index["split"].astype(str)) - set(SPLITS)):
        what = f"names splits that are none: {', '.join(unknown[:5])}"
        faults.append(Fault(path, what, _REMAKE))
    if scaler.get("atlas_sha256") != sha256_file(folder / PARCELS_NAME):
        what = f"was fitted on other parcels than {PARCELS_NAME}"
        faults.append(Fault(folder / NORMALIZATION_NAME, what, _REMAKE))
    faults += [
        Fault(other, _STRAY, _REMOVE)
        for other in sorted(folder.iterdir())
        if other.name not in _BELONGING and not re.fullmatch(_SHARD_FILE, other.name)
    ]
    return faults


def verify_shard(
    path: Path, rows: pd.DataFrame, expected: Mapping[str, Any], parcels: int
) -> list[Fault]:
    """Read one shard whole and compare it with its header and its `rows` of the index.

    `expected` are fields of the header as the folder has them.
    """
    try:
        handle = open_tensors(path)
        about = about_of(handle, path)
        if about["schema_version"] != SCHEMA_VERSION:
            what = f"has schema {about['schema_version']}; this program reads {SCHEMA_VERSION}"
            return [Fault(path, what, "make the shards anew with this version of brainlm")]
        facts, trs, dtype = about["facts"], about["tr"], about["dtype"]
    except DataError as error:
        return [Fault(path, error.what, _RESTORE)]
    except (ValueError, KeyError, TypeError):
        return [Fault(path, "its header cannot be read", _RESTORE)]
    faults = [
        Fault(path, f"its {field} is not that of the folder", _REMAKE)
        for field, value in {"split": split_of(path.stem), **expected}.items()
        if about.get(field) != value
    ]
    listed = {
        str(row["recording_id"]): {str(name): value for name, value in row.items()}
        for row in rows.to_dict("records")
    }
    held: set[str] = set(handle.keys())
    if held and not listed:
        return [Fault(path, _STRAY, _REMOVE)]
    noted = set(facts) & set(trs)
    for names, what in (
        (set(listed) - held, "that the index names are not in it"),
        (held - set(listed), "in it are not named by the index"),
        (held ^ noted, "are only in its header, or only among its tensors"),
    ):
        if names:
            faults.append(
                Fault(path, f"{len(names)} recordings {what}, e.g. {min(names)}", _REMAKE)
            )
    for name in sorted(held & set(listed) & noted):
        header = {**facts[name], "split": about.get("split"), "tr": trs[name]}
        found = [
            *_tensor_faults(handle.get_tensor(name), header, dtype, parcels),
            *_row_faults(listed[name], header),
        ]
        faults += [Fault(path, f"{name}: {what}", fix) for what, fix in found]
    return faults


def _tensor_faults(
    tensor: NDArray[Any], fact: Mapping[str, Any], dtype: str, parcels: int
) -> list[tuple[str, str]]:
    """What is wrong with a tensor (time, parcels), and what to do."""
    shape = (fact.get("n_timepoints"), parcels)
    if tensor.shape != shape or tensor.dtype != dtype:
        return [(f"{tensor.dtype} {tensor.shape}, not {dtype} {shape}", _RESTORE)]
    if hashlib.sha256(np.ascontiguousarray(tensor).data).hexdigest() != fact.get("sha256"):
        return [("its bytes have changed since it was written (SHA-256)", _RESTORE)]
    found = []
    missing = np.isnan(tensor)
    partly = missing.any(axis=0) & ~missing.all(axis=0)
    remake = "delete the shard and run the workflow again; should it come back, tell us"
    if partly.any():
        found.append((f"{int(partly.sum())} parcels are NaN at some volumes only", remake))
    if np.isinf(tensor).any():
        found.append((f"{int(np.isinf(tensor).sum())} values are infinite", remake))
    if (covered := int((~missing.any(axis=0)).sum())) != fact.get("n_parcels"):
        found.append((f"{covered} parcels with data, {fact.get('n_parcels')} noted", remake))
    return found


def _row_faults(row: Mapping[str, Any], header: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Where the index says something else than the shard's header."""
    return [
        (f"{field} is {row[field]} in the index, {header.get(field)} in the shard", _REMAKE)
        for field in _IN_BOTH
        if row[field] != header.get(field)
    ]

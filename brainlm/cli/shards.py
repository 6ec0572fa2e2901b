"""`brainlm shards`: the scaled cohort as a few large files that training reads windows from."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import typer

from ._console import progress, say, warn
from ._stage import HERE, ParamsOption, StageRun, StudyOption

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from ..shards.scaler import Scaler
    from ..shards.writer import Packed, Shard


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("shards")(shards)


def shards(study: StudyOption = HERE, params: ParamsOption = None) -> None:
    """Write the scaled recordings into sharded safetensors.

    Each recording becomes one tensor (time, parcels), scaled by the median and IQR of the
    train split; parcels without data are NaN. shards/index.parquet says which shard holds
    which recording, with its split, TR, motion, coverage, hash and labels. The scaler and
    the parcels' table are copied beside it, so that the folder is whole in itself.
    """
    import pandas as pd

    from ..files import atomic_path
    from ..provenance import sha256_file
    from ..shards.reader import NORMALIZATION_NAME, PARCELS_NAME
    from ..shards.scaler import load_scaler
    from ..shards.splits import check_leakage
    from ..shards.writer import index_table, pack, plan_shards, shard_header, write_shard
    from ._parcel_series import parcel_names

    run = StageRun("shards", study, params, software=("numpy", "pyarrow", "safetensors"))
    cohort_path = run.input("cohort")
    cohort = pd.read_parquet(cohort_path)
    check_leakage(cohort, cohort_path)
    copies = {
        NORMALIZATION_NAME: run.input("scaler"),
        PARCELS_NAME: run.source(run.path("atlas_table")),
    }
    scaler = load_scaler(copies[NORMALIZATION_NAME])
    hashes = {
        "atlas_sha256": sha256_file(copies[PARCELS_NAME]),
        "scaler_sha256": sha256_file(copies[NORMALIZATION_NAME]),
    }
    names = parcel_names(copies[PARCELS_NAME])
    _check_scaler(scaler, cohort, hashes["atlas_sha256"], copies[NORMALIZATION_NAME])

    dtype = run.params["shards"]["dtype"]
    plan = plan_shards(
        cohort,
        parcels=len(names),
        dtype=dtype,
        target_mb=run.params["shards"]["target_mb"],
    )
    index_path = run.path("shards_index")
    folder = index_path.parent
    rows = {row["recording_id"]: row for row in cohort.to_dict("records")}
    written: list[dict[str, Any]] = []
    for shard in progress(plan, "writing shards"):
        packed = {
            name: pack(_read_checked(run, rows[name], names), scaler, dtype)
            for name in shard.recording_ids
        }
        tr = {name: float(rows[name]["tr"]) for name in shard.recording_ids}
        header = shard_header(split=shard.split, dtype=dtype, tr=tr, **hashes)
        # From here until all is written no index may stand: it would describe other shards.
        index_path.unlink(missing_ok=True)
        with atomic_path(folder / shard.name) as path:
            write_shard(path, packed, header)
        written += _rows_of(shard, packed)
    for name, source in copies.items():
        with atomic_path(folder / name) as path:
            shutil.copyfile(source, path)
    index = index_table(cohort, written)
    with run.output("shards_index", about={**hashes, "dtype": dtype}) as path:
        index.to_parquet(path, index=False)
    _remove_stale(folder, {shard.name for shard in plan})
    if clipped := int((index["n_clipped"] > 0).sum()):
        worst = index.sort_values("n_clipped")["recording_id"].iloc[-1]
        warn(f"{clipped} recordings hold values too large for {dtype}, most of them in {worst}")
    say(f"{len(plan)} shards, {len(index)} recordings, {int(index['n_timepoints'].sum())} volumes")


def _check_scaler(scaler: Scaler, cohort: pd.DataFrame, atlas: str, path: Path) -> None:
    """Refuse a scaler that was fitted on other data than this cohort's train split."""
    from ..errors import DataError
    from ..provenance import sha256_json

    train = cohort.loc[cohort["split"] == "train", "timeseries_sha256"].astype(str)
    if (scaler.about["data_sha256"], scaler.about["atlas_sha256"]) != (
        sha256_json(sorted(train)),
        atlas,
    ):
        raise DataError(
            "The scaler was fitted on another cohort or another atlas than the present ones",
            file=path,
            fix="run `brainlm scale` again, then this",
        )


def _read_checked(run: StageRun, row: dict[Any, Any], names: list[str]) -> Any:
    """One recording (parcels, time), whose bytes are still those that the cohort was made of."""
    from ..errors import DataError
    from ..provenance import sha256_file
    from ._parcel_series import read_parcels

    path = run.study.root / str(row["timeseries"])
    if not path.exists() or sha256_file(path) != row["timeseries_sha256"]:
        raise DataError(
            "This parcel series is missing or has changed since the cohort was selected",
            file=path,
            fix="run `brainlm cohort` and `brainlm scale` again, then this",
        )
    return read_parcels(path, names, 0, len(names))


def _rows_of(shard: Shard, packed: dict[str, Packed]) -> list[dict[str, Any]]:
    return [
        {
            "recording_id": name,
            "shard": shard.name,
            "n_timepoints": len(item.values),
            "n_parcels": item.n_parcels,
            "n_clipped": item.n_clipped,
            "sha256": item.sha256,
        }
        for name, item in packed.items()
    ]


def _remove_stale(folder: Path, current: set[str]) -> None:
    """Drop the shards of an earlier run that the index does not name any more."""
    for path in sorted(folder.glob("*-of-*.safetensors")):
        if path.name not in current and not path.name.startswith(".tmp-"):
            path.unlink()

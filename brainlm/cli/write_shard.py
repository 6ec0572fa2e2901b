"""`brainlm write-shard`: the scaled recordings of one shard, in one file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._console import progress, say
from ._parcel_series import parcel_names, planned_shards, read_plan, read_recording
from ._stage import HERE, ParamsOption, StageRun, StudyOption

if TYPE_CHECKING:
    from ..shards.scaler import Scaler


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("write-shard")(write_shard)


def write_shard(
    shard: Annotated[
        str | None, typer.Argument(help="e.g. train-00003; default: every shard of the cohort")
    ] = None,
    study: StudyOption = HERE,
    params: ParamsOption = None,
) -> None:
    """Write the scaled recordings of a shard.

    Each recording becomes one tensor (time, parcels), scaled by the statistics of the train split;
    parcels without data are NaN. `brainlm index-shards` then makes the folder whole.
    """
    software = ("numpy", "pyarrow", "safetensors")
    run = StageRun("write-shard", study, params, software=software)
    for name in [shard] if shard else planned_shards(run):
        _write(StageRun("write-shard", study, params, software=software), name)


def _write(run: StageRun, shard: str) -> None:
    import pandas as pd

    from ..files import atomic_path
    from ..provenance import sha256_file
    from ..shards.plan import split_of
    from ..shards.scaler import load_scaler
    from ..shards.writer import pack, shard_header, write_tensors

    plan = read_plan(run, shard)
    atlas_table, scaler_path = run.source(run.path("atlas_table")), run.input("scaler")
    hashes = {
        "atlas_sha256": sha256_file(atlas_table),
        "scaler_sha256": sha256_file(scaler_path),
    }
    scaler = load_scaler(scaler_path)
    _check_scaler(scaler, shard, run)
    parcels, dtype = parcel_names(atlas_table), run.params["shards"]["dtype"]
    packed = {
        str(row["recording_id"]): pack(
            read_recording(run.study.root, row, parcels).values, scaler, dtype
        )
        for row in progress(plan, shard)
    }
    header = shard_header(
        split=split_of(shard),
        dtype=dtype,
        tr={row["recording_id"]: row["tr"] for row in plan},
        **hashes,
    )
    final = run.path("shard", shard=shard)
    rows = [
        {
            "recording_id": name,
            "shard": final.name,
            "n_timepoints": len(item.values),
            "n_parcels": item.n_parcels,
            "n_clipped": item.n_clipped,
            "sha256": item.sha256,
        }
        for name, item in packed.items()
    ]
    with atomic_path(final) as path:
        write_tensors(path, packed, header)
    with run.output("shard_part", shard=shard) as path:
        pd.DataFrame(rows).to_parquet(path, index=False)
    say(f"{shard}: {len(plan)} recordings, {sum(row['n_timepoints'] for row in plan)} volumes")


def _check_scaler(scaler: Scaler, shard: str, run: StageRun) -> None:
    """Refuse a scaler that was fitted on other data than this train shard's."""
    from ..errors import DataError
    from ..provenance import sha256_file

    plans: dict[str, Any] = scaler.about["plans"]
    expected = plans.get(shard)
    if shard.startswith("train") and expected != sha256_file(run.path("shard_plan", shard=shard)):
        raise DataError(
            "The scaler was fitted on another cohort than the present one",
            file=run.path("scaler"),
            fix="run `brainlm scale` again, then this",
        )

"""`brainlm write-shard`: the scaled recordings of one shard, in one file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..wording import counted
from ._console import progress, say
from ._parcel_series import parcel_names, planned_shards, read_plan, read_recording
from ._stage import HERE, ParamsOption, StageRun, StudyOption

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from ..shards.packing import Packed
    from ..shards.scaler import Scaler

_SOFTWARE = ("numpy", "pyarrow")


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
    parcels without data are NaN. One recording is held at a time. A shard whose recordings, scaler,
    parcels, type and program are what they were is kept as it is. `brainlm index-shards` then makes
    the folder whole.
    """
    run = StageRun("write-shard", study, params, software=_SOFTWARE)
    for name in [shard] if shard else planned_shards(run):
        _write(StageRun("write-shard", study, params, software=_SOFTWARE), name)


def _write(run: StageRun, shard: str) -> None:
    from ..files import atomic_path
    from ..shards.keeping import keep, recover
    from ..shards.writer import part_rows, write_tensors

    plan = read_plan(run, shard)
    final = run.path("shard", shard=shard)
    lengths = _lengths(plan, run.path("shard_plan", shard=shard))
    atlas_table, scaler_path = run.source(run.path("atlas_table")), run.input("scaler")
    scaler, header = _what_it_is_made_of(run, shard, plan, atlas_table, scaler_path)
    about = recover(final, header)
    recovered = about is not None
    if about is None:
        names = parcel_names(atlas_table)
        packed = _packed(run, plan, names, scaler, shard)
        with atomic_path(final) as path:
            about = write_tensors(path, lengths, len(names), packed, header)
            # An index never stands over a shard that it was not made of.
            run.path("shards_index").unlink(missing_ok=True)
        keep(final)
    _write_part(run, shard, part_rows(final.name, about))
    say(
        f"{shard}: {counted(len(plan), 'recording')}, {sum(lengths.values())} volumes"
        + (", kept as it was" if recovered else "")
    )


def _lengths(plan: list[dict[str, Any]], source: Path) -> dict[str, int]:
    """Volumes of each recording."""
    from ..errors import DataError

    lengths = {str(row["recording_id"]): int(row["n_timepoints"]) for row in plan}
    if len(lengths) < len(plan) or list(lengths) != sorted(lengths):
        raise DataError(
            "The plan of this shard names a recording twice, or not in order",
            file=source,
            fix="run `brainlm cohort` again; never edit its files by hand",
        )
    return lengths


def _what_it_is_made_of(
    run: StageRun, shard: str, plan: list[dict[str, Any]], atlas_table: Path, scaler_path: Path
) -> tuple[Scaler, dict[str, Any]]:
    """The scaler, which fits the cohort and its parcels, and the shard's header."""
    from ..provenance import read_sidecar, sha256_file
    from ..shards.plan import split_of
    from ..shards.scaler import load_scaler
    from ..shards.writer import shard_header

    scaler = load_scaler(scaler_path)
    plan_sha256 = sha256_file(run.path("shard_plan", shard=shard))
    atlas_sha256 = sha256_file(atlas_table)
    elsewhere = bool(read_sidecar(scaler_path).get("fitted_elsewhere"))
    fitted_on = None if elsewhere else scaler.about["plans"]
    _check_scaler(scaler.about, fitted_on, shard, plan_sha256, atlas_sha256, scaler_path)
    return scaler, shard_header(
        split=split_of(shard),
        dtype=run.params["shards"]["dtype"],
        method=scaler.method,
        tr={str(row["recording_id"]): row["tr"] for row in plan},
        atlas_sha256=atlas_sha256,
        scaler_sha256=sha256_file(scaler_path),
        plan_sha256=plan_sha256,
        code=run.code,
    )


def _check_scaler(
    about: Mapping[str, Any],
    fitted_on: Mapping[str, str] | None,
    shard: str,
    plan_sha256: str,
    atlas_sha256: str,
    source: Path,
) -> None:
    """Refuse a scaler of other parcels, or one fitted on other data than this train shard's.

    `fitted_on` are the plans of the train shards it was fitted on; None: it comes from elsewhere.
    """
    from ..errors import DataError

    fix = "run `brainlm scale` again, then this"
    if about["atlas_sha256"] != atlas_sha256:
        raise DataError("The scaler was fitted on parcels of another atlas", file=source, fix=fix)
    if fitted_on is None or not shard.startswith("train"):
        return
    if fitted_on.get(shard) != plan_sha256:
        raise DataError(
            "The scaler was fitted on another cohort than the present one", file=source, fix=fix
        )


def _packed(
    run: StageRun, plan: list[dict[str, Any]], names: list[str], scaler: Scaler, shard: str
) -> Iterator[Packed]:
    """The recordings of the plan in their stored form, read one by one."""
    from ..shards.packing import pack

    dtype = run.params["shards"]["dtype"]
    for row in progress(plan, shard):
        yield pack(read_recording(run.study.root, row, names), scaler, dtype)


def _write_part(run: StageRun, shard: str, rows: list[dict[str, Any]]) -> None:
    """What the index will say of the shard's recordings; its sidecar holds the file's own hash."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ..provenance import sha256_file
    from ..shards.writer import PART_SCHEMA

    about = {"ShardSha256": sha256_file(run.path("shard", shard=shard))}
    with run.output("shard_part", shard=shard, about=about) as path:
        pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(PART_SCHEMA)), path)

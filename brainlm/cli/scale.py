"""`brainlm scale`: median and interquartile range of each parcel, of the train split."""

from __future__ import annotations

import typer

from ._console import progress, say, warn
from ._stage import HERE, ParamsOption, StageRun, StudyOption


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("scale")(scale)


def scale(study: StudyOption = HERE, params: ParamsOption = None) -> None:
    """Fit the robust scaler on the train split.

    Each recording loses its own mean over time; then the exact median and interquartile
    range of each parcel are taken over all time points of all train recordings. Parcels
    that a recording does not cover do not count; parcels without data, or that never vary,
    are flagged and stay missing. Validation and test subjects are never seen. Writes
    cohort/scaler.safetensors.
    """
    from ..provenance import sha256_file, sha256_json
    from ..shards.plan import split_of
    from ..shards.scaler import fit_block, make_scaler, save_scaler
    from ._parcel_series import parcel_names, planned_shards, read_plan, read_recording

    run = StageRun("scale", study, params, software=("numpy", "pyarrow", "safetensors"))
    shards = [shard for shard in planned_shards(run) if split_of(shard) == "train"]
    train = [row for shard in shards for row in read_plan(run, shard)]
    atlas_table = run.source(run.path("atlas_table"))
    names = parcel_names(atlas_table)
    rows = progress(train, "reading the train split")
    median, iqr = fit_block(read_recording(run.study.root, row, names).values for row in rows)
    subjects = sorted({row["subject"] for row in train})
    scaler = make_scaler(
        median,
        iqr,
        {
            "atlas_sha256": sha256_file(atlas_table),
            "subjects_sha256": sha256_json(subjects),
            "data_sha256": sha256_json(sorted(row["timeseries_sha256"] for row in train)),
            "plans": {s: sha256_file(run.path("shard_plan", shard=s)) for s in shards},
            "n_subjects": len(subjects),
            "n_recordings": len(train),
            "n_volumes": sum(row["n_timepoints"] for row in train),
        },
    )
    unusable = [name for name, usable in zip(names, scaler.usable, strict=True) if not usable]
    if unusable:
        warn(
            f"{len(unusable)} parcels have no data or never vary in the train split and stay "
            f"missing everywhere: {', '.join(unusable[:5])}{', ...' if len(unusable) > 5 else ''}"
        )
    with run.output("scaler", about={**scaler.about, "UnusableParcels": unusable}) as path:
        save_scaler(path, scaler)
    say(f"scaler: {len(names) - len(unusable)} parcels, {len(train)} train recordings")

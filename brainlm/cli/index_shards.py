"""`brainlm index-shards`: what the shards hold, and all that is needed to use them beside them."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import typer

from ._console import say, warn
from ._parcel_series import planned_shards
from ._stage import HERE, ParamsOption, StageRun, StudyOption

if TYPE_CHECKING:
    from pathlib import Path


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("index-shards")(index_shards)


def index_shards(study: StudyOption = HERE, params: ParamsOption = None) -> None:
    """Make the shards' folder whole: its index, the scaler and the parcels' table.

    shards/index.parquet says which shard holds which recording, with its split, TR, motion,
    coverage, hash and labels.
    """
    import pandas as pd

    from ..files import atomic_path
    from ..provenance import sha256_file
    from ..shards.reader import NORMALIZATION_NAME, PARCELS_NAME
    from ..shards.splits import check_leakage
    from ..shards.writer import index_table

    run = StageRun("index-shards", study, params, software=("numpy", "pyarrow"))
    cohort_path = run.input("cohort")
    cohort = pd.read_parquet(cohort_path)
    check_leakage(cohort, cohort_path)
    copies = {
        NORMALIZATION_NAME: run.input("scaler"),
        PARCELS_NAME: run.source(run.path("atlas_table")),
    }
    index_path = run.path("shards_index")
    folder = index_path.parent
    shards = planned_shards(run)
    parts = [pd.read_parquet(run.input("shard_part", shard=shard)) for shard in shards]
    for name, source in copies.items():
        with atomic_path(folder / name) as path:
            shutil.copyfile(source, path)
    written = pd.concat([part for part in parts if len(part)], ignore_index=True)
    index = index_table(cohort, written)
    dtype = run.params["shards"]["dtype"]
    about = {
        "atlas_sha256": sha256_file(copies[PARCELS_NAME]),
        "scaler_sha256": sha256_file(copies[NORMALIZATION_NAME]),
        "dtype": dtype,
    }
    with run.output("shards_index", about=about) as path:
        index.to_parquet(path, index=False)
    _remove_stale(folder, set(shards))
    if clipped := int((index["n_clipped"] > 0).sum()):
        worst = index.sort_values("n_clipped")["recording_id"].iloc[-1]
        warn(f"{clipped} recordings hold values too large for {dtype}, most of them in {worst}")
    say(f"{len(parts)} shards, {len(index)} recordings, {int(index['n_timepoints'].sum())} volumes")


def _remove_stale(folder: Path, current: set[str]) -> None:
    """Drop the shards of an earlier cohort that the plan does not name any more."""
    for split in ("train", "val", "test"):
        for path in sorted(folder.glob(f"{split}-*.safetensors")):
            if path.stem not in current:
                path.unlink()

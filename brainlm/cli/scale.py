"""`brainlm scale`: median and interquartile range of each parcel, of the train split."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from ._console import progress, say, warn
from ._stage import HERE, ParamsOption, StageRun, StudyOption

if TYPE_CHECKING:
    import pandas as pd

#: Memory for one block of parcels over all train recordings, in values of 8 bytes (three
#: copies live at the same time, so about 0.75 GB).
_BLOCK_VALUES = 32_000_000


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
    import numpy as np
    import pandas as pd

    from ..provenance import sha256_file, sha256_json
    from ..shards.scaler import fit_block, make_scaler, save_scaler
    from ._parcel_series import parcel_names, read_parcels

    run = StageRun("scale", study, params, software=("numpy", "pyarrow", "safetensors"))
    train = pd.read_parquet(run.input("cohort"))
    train = train[train["split"] == "train"].sort_values("recording_id")
    atlas_table = run.source(run.path("atlas_table"))
    names = parcel_names(atlas_table)
    paths = [run.study.root / str(path) for path in train["timeseries"]]

    width = _block_width(train, len(names))
    starts = list(range(0, len(names), width))
    blocks = []
    for first in starts:
        last = min(first + width, len(names))
        what = f"reading parcels {first + 1} to {last}"
        blocks.append(fit_block(read_parcels(p, names, first, last) for p in progress(paths, what)))
    subjects = sorted({str(subject) for subject in train["subject"]})
    scaler = make_scaler(
        np.concatenate([median for median, _ in blocks]),
        np.concatenate([iqr for _, iqr in blocks]),
        {
            "atlas_sha256": sha256_file(atlas_table),
            "subjects_sha256": sha256_json(subjects),
            "data_sha256": sha256_json(sorted(train["timeseries_sha256"].astype(str))),
            "n_subjects": len(subjects),
            "n_recordings": len(train),
            "n_volumes": int(train["n_timepoints"].sum()),
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


def _block_width(train: pd.DataFrame, parcels: int) -> int:
    """How many parcels to take at a time, so that memory stays bounded whatever the cohort."""
    return max(1, min(parcels, _BLOCK_VALUES // max(1, int(train["n_timepoints"].sum()))))

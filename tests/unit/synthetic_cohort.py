"""A study as the preprocessing leaves it: parcel series with known structure, no images.

Eight parcels on a line follow two slow factors, each parcel by how near it is to either end,
plus a little noise: hidden patches can be guessed from neighbours. The label `score` sets how
strongly the two ends move together, so that it can be read from the correlations.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.ndimage import gaussian_filter1d

from brainlm.config import load_config
from brainlm.layout import Study, entities_of, folder_of
from brainlm.provenance import write_sidecar
from brainlm.recordings import COLUMNS
from brainlm.stages import params_to_json, stage_params

PARCELS = 8
FIELDS = {"space": "MNI152NLin2009aSym", "res": "2", "atlas": "A424", "estimator": "mean"}
NETWORK = {
    "parcels": PARCELS,
    "timepoints": 40,
    "patch": 10,
    "hidden": 32,
    "layers": 1,
    "heads": 1,
    "mlp": 32,
    "decoder_hidden": 32,
    "decoder_heads": 1,
    "decoder_mlp": 32,
}


def write_study(
    root: Path,
    splits: dict[str, int],
    *,
    volumes: int = 60,
    runs: int = 1,
    options: dict[str, Any] | None = None,
    seed: int = 0,
) -> Study:
    """A study with `splits` (split -> number of subjects) and `runs` recordings of each."""
    study = Study(root)
    rng = np.random.default_rng(seed)
    assigned = [split for split, count in splits.items() for _ in range(count)]
    subjects = [f"{number:02d}" for number in range(1, len(assigned) + 1)]
    (root / "config").mkdir(parents=True)
    table = pd.DataFrame({"subject": subjects, "split": assigned})
    table.to_csv(root / "config/splits.tsv", sep="\t", index=False)
    config: dict[str, Any] = {
        "split": {"table": "config/splits.tsv"},
        "model": {"overrides": NETWORK},
        "pretrain": {"epochs": 2, "batch_size": 2, "learning_rate": 0.005, "device": "cpu"},
        "finetune": {
            "epochs": 2,
            "targets": [
                {"name": "score"},
                {"name": "group", "kind": "binary", "positive": "patient"},
            ],
        },
        "evaluate": {"bootstrap": 100},
        "networks": {"methods": []},
        "tracking": {"tensorboard": False, "figures": 0},  # which take longer than the training
    }
    for section, changes in (options or {}).items():
        config[section] = {**config.get(section, {}), **changes}
    (root / "config/config.yaml").write_text(json.dumps(config))

    atlas = study.path("atlas_table", **FIELDS)
    atlas.parent.mkdir(parents=True)
    parcels = parcel_table()
    parcels.to_csv(atlas, sep="\t", index=False)
    rows = []
    for subject in subjects:
        score = rng.uniform(-1, 1)
        for run in range(1, runs + 1):
            recording = f"sub-{subject}_task-rest_run-{run}"
            series = simulate(score, volumes, rng)
            write_recording(study, recording, series)
            rows.append(
                {
                    "recording_id": recording,
                    "subject": subject,
                    "task": "rest",
                    "dataset": "synthetic",
                    "bold": f"sub-{subject}/func/{recording}_bold.nii.gz",
                    "n_volumes": volumes,
                    "tr": 2.0,
                    "eligible": True,
                    "label_score": score,
                    "label_group": "patient" if score > 0 else "control",
                }
            )
    write_recordings(study, pd.DataFrame(rows))
    return study


def parcel_table() -> pd.DataFrame:
    """Parcels on a line from -70 to 70 mm."""
    return pd.DataFrame(
        {
            "index": np.arange(1, PARCELS + 1),
            "name": [f"P{number}" for number in range(1, PARCELS + 1)],
            "x": np.linspace(-70, 70, PARCELS),
            "y": 0.0,
            "z": 0.0,
        }
    )


def simulate(score: float, volumes: int, rng: np.random.Generator) -> np.ndarray:
    """Series (volumes, parcels) around a large mean, as float32."""
    factors = gaussian_filter1d(rng.standard_normal((volumes + 40, 2)), 2.0, axis=0)[20:-20]
    factors /= factors.std(axis=0)
    factors[:, 1] = score * factors[:, 0] + np.sqrt(1 - score**2) * factors[:, 1]
    near = np.linspace(1, 0, PARCELS)
    signal = factors[:, :1] * near + factors[:, 1:] * (1 - near)
    noise = 0.1 * rng.standard_normal((volumes, PARCELS))
    return (1000 + 10 * (signal + noise)).astype(np.float32)


def write_recording(
    study: Study,
    recording: str,
    series: np.ndarray,
    *,
    mean_fd: float = 0.1,
    parcels: pd.DataFrame | None = None,
    labels: dict[str, str] = FIELDS,
) -> None:
    """The three files that the cohort reads, with sidecars; NaN columns lose their coverage."""
    fields = {"recording": recording, "folder": folder_of(recording), **labels}
    parcels = parcel_table() if parcels is None else parcels
    path = study.path("timeseries", **fields)
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = [pa.array(column) for column in series.T.copy()]
    pq.write_table(pa.table(columns, names=list(parcels["name"])), path)
    coverage = np.where(np.isnan(series).all(axis=0), 0.1, 1.0)
    parcels[["index", "name"]].assign(coverage=coverage).to_csv(
        study.path("coverage", **fields), sep="\t", index=False
    )
    fd = np.full(len(series), mean_fd)
    fd[0] = np.nan
    pd.DataFrame({"trans_x": 0.0, "framewise_displacement": fd}).to_csv(
        study.path("motion", **fields), sep="\t", index=False, na_rep="n/a"
    )
    for kind in ("timeseries", "coverage", "motion"):
        write_sidecar(
            study.path(kind, **fields),
            stage="parcellate",
            code_digest="0",
            entities=entities_of(recording),
            sources={},
            parameters={"parcellate": {"min_coverage": 0.5}},
            software={},
        )


def write_recordings(study: Study, table: pd.DataFrame) -> None:
    """The recordings table, with all its columns."""
    labels = [name for name in table.columns if name.startswith("label_")]
    for column, dtype in COLUMNS.items():
        table[column] = (table[column] if column in table else pd.Series(pd.NA)).astype(dtype)
    path = study.path("recordings")
    path.parent.mkdir(parents=True, exist_ok=True)
    table[[*COLUMNS, *labels]].to_parquet(path, index=False)


def params(study: Study, stage: str) -> str:
    """What the workflow would pass as --params."""
    return params_to_json(stage_params(stage, load_config(study.path("config"))))


def series_path(study: Study, recording: str) -> Path:
    """The parcel series of a recording."""
    return study.path("timeseries", recording=recording, folder=folder_of(recording), **FIELDS)


def make_shards(study: Study) -> Path:
    """Run cohort, scale and shards; return the index."""
    from brainlm.cli.cohort import cohort
    from brainlm.cli.index_shards import index_shards
    from brainlm.cli.scale import scale
    from brainlm.cli.write_shard import write_shard

    cohort(study.root)
    scale(study.root)
    write_shard(None, study.root)
    index_shards(study.root)
    return study.path("shards_index")


def add_wave(study: Study, splits: list[str], wave: int = 1) -> None:
    """A later onboarding finds one subject more for each of these splits."""
    table = pd.read_parquet(study.path("recordings"))
    table["wave"] = table["wave"].fillna(0)
    subjects = pd.read_csv(study.root / "config/splits.tsv", sep="\t", dtype=str)
    rng = np.random.default_rng(7)
    for number, split in enumerate(splits, start=80 + 10 * wave):
        row = table.iloc[0].copy()
        row["recording_id"], row["subject"] = f"sub-{number}_task-rest_run-1", str(number)
        row["wave"] = wave
        table.loc[len(table)] = row
        subjects.loc[len(subjects)] = [str(number), split]
        write_recording(study, row["recording_id"], simulate(0.3, 60, rng))
    subjects.to_csv(study.root / "config/splits.tsv", sep="\t", index=False)
    write_recordings(study, table)

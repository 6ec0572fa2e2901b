"""A small BIDS dataset on disk, and what onboarding makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from brainlm.bids.dataset import read_dataset
from brainlm.bids.phenotypes.read import read_phenotypes
from brainlm.bids.table import Limits
from brainlm.config import Phenotypes

SHAPE, N_VOLUMES, TR = (6, 7, 4), 20, 2.0
AFFINE = np.array([[4.0, 0, 0, -12], [0, 4, 0, -14], [0, 0, 4, -8], [0, 0, 0, 1]])
LIMITS = Limits(min_volumes=10, tr_min=0.3, tr_max=5.0)
BOLD = "sub-01/func/sub-01_task-rest_bold"


def write_bold(
    path: Path, n_volumes: int = N_VOLUMES, affine=AFFINE, dtype=np.int16, data=None, tr=TR
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if data is None:
        data = np.random.default_rng(len(path.name)).integers(0, 900, (*SHAPE, n_volumes))
    image = nib.Nifti1Image(data.astype(dtype), affine)
    image.header.set_xyzt_units("mm", "sec")
    if data.ndim == 4:
        image.header.set_zooms((*image.header.get_zooms()[:3], tr))
    nib.save(image, path)


def write_t1w(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.arange(12 * 14 * 8, dtype=np.int16).reshape(12, 14, 8)
    nib.save(nib.Nifti1Image(data, AFFINE @ np.diag([0.5] * 3 + [1])), path)


def write_json(path: Path, **fields) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(fields))


def make_bids(root: Path) -> Path:
    """Three subjects: 01 plain, 02 with two sessions, 03 without T1w."""
    write_json(root / "dataset_description.json", Name="Small", BIDSVersion="1.10.0")
    write_json(root / "task-rest_bold.json", RepetitionTime=TR)
    (root / "participants.tsv").write_text(
        "participant_id\tage\tgroup\tsite\n"
        "sub-01\t30.5\tpatient\tA\nsub-02\tn/a\tcontrol\tB\nsub-03\t41\tcontrol\tn/a\n"
    )
    write_bold(root / f"{BOLD}.nii.gz")
    write_t1w(root / "sub-01/anat/sub-01_T1w.nii.gz")
    for session in ("1", "2"):
        write_bold(root / f"sub-02/ses-{session}/func/sub-02_ses-{session}_task-rest_bold.nii.gz")
    write_t1w(root / "sub-02/ses-1/anat/sub-02_ses-1_T1w.nii.gz")
    write_bold(root / "sub-03/func/sub-03_task-rest_run-1_bold.nii")
    return root


def table_of(bids: Path, *, full: bool = True) -> pd.DataFrame:
    table, _ = read_dataset(
        bids, LIMITS, full=full, threads=2, progress=lambda items, what, total: iter(items)
    )
    labelled = read_phenotypes(bids, bids, Phenotypes()).label(table)
    return labelled.table.set_index("recording_id")


def row_of(bids: Path, recording: str = "sub-01_task-rest", *, full: bool = True) -> pd.Series:
    row = table_of(bids, full=full).loc[recording]
    assert row.eligible == pd.isna(row.reason)
    return row

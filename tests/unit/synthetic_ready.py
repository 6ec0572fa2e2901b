"""Datasets as other pipelines leave them: names and tables of theirs, small series of ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from brainlm.geometry import MOTION_NAMES
from brainlm.images import Image, load_template, write_image

SPACE = "MNI152NLin2009aSym"
ZOOM = 6.0
COUNT = 60


def template() -> Image:
    """The brain of the bundled template, 0 or 1, on a coarse grid."""
    image = load_template(SPACE, "brain", ZOOM)
    return Image((image.data > 0.5).astype(np.float32), image.affine)


def series_of(image: Image, seed: int = 0, count: int = COUNT) -> np.ndarray:
    """A run (x, y, z, T) in which every voxel differs: level by place, and noise in time."""
    random = np.random.default_rng(seed)
    level = 1000 + np.arange(image.data.size).reshape(image.data.shape) % 97
    noise = random.normal(0, 20, (*image.data.shape, count))
    return (level[..., None] + noise).astype(np.float32)


def las(data: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same voxels stored from right to left, as FSL and TemplateFlow do."""
    turned = affine.copy()
    turned[:, 0] *= -1
    turned[:3, 3] = affine[:3, 3] + affine[:3, 0] * (data.shape[0] - 1)
    return np.flip(data, 0), turned


def motion(count: int = COUNT, seed: int = 5) -> pd.DataFrame:
    """Six parameters (mm, rad) that wander a little, and FD."""
    random = np.random.default_rng(seed)
    steps = random.normal(0, [0.02] * 3 + [0.0003] * 3, (count, 6))
    table = pd.DataFrame(steps.cumsum(axis=0), columns=list(MOTION_NAMES))
    moved = np.abs(np.diff(table.to_numpy(), axis=0)) @ [1, 1, 1, 50, 50, 50]
    table["framewise_displacement"] = [np.nan, *moved]
    return table


def confounds(count: int = COUNT) -> pd.DataFrame:
    """A table in fMRIPrep's names: motion with its expansions, tissues, CompCor."""
    random = np.random.default_rng(7)
    table = motion(count)
    for name in MOTION_NAMES:
        change = table[name].diff()
        table[f"{name}_derivative1"] = change
        table[f"{name}_derivative1_power2"] = change**2
        table[f"{name}_power2"] = table[name] ** 2
    for name in ("csf", "white_matter", "global_signal", "std_dvars", "rmsd"):
        table[name] = np.abs(random.normal(size=count)) + 1
    for name in ("a_comp_cor_00", "c_comp_cor_00", "w_comp_cor_00", "cosine00"):
        table[name] = random.normal(size=count)
    return table


def describe(root: Path, name: str, version: str) -> None:
    """What the pipeline says of itself."""
    root.mkdir(parents=True, exist_ok=True)
    content = {
        "Name": f"{name} of a test",
        "BIDSVersion": "1.9.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": name, "Version": version}],
    }
    (root / "dataset_description.json").write_text(json.dumps(content))


def write_run(
    root: Path,
    recording: str,
    *,
    space: str = SPACE,
    res: str | None = None,
    image: tuple[np.ndarray, np.ndarray] | None = None,
    tr: float = 2.0,
    desc: str = "preproc",
) -> Path:
    """A series and its mask in fMRIPrep's names; returns the path of the series."""
    brain = template()
    data, affine = (series_of(brain), brain.affine) if image is None else image
    folder = root / recording.split("_")[0] / "func"
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{recording}_space-{space}" + (f"_res-{res}" if res else "")
    path = folder / f"{stem}_desc-{desc}_bold.nii.gz"
    write_image(path, data, affine, tr=tr, in_mni=True)
    path.with_name(f"{stem}_desc-{desc}_bold.json").write_text(json.dumps({"RepetitionTime": tr}))
    mask = brain.data if image is None else (data.std(axis=-1) > 0).astype(np.float32)
    write_image(
        folder / f"{stem}_desc-brain_mask.nii.gz", mask.astype(np.uint8), affine, in_mni=True
    )
    return path


def write_table(path: Path, table: pd.DataFrame) -> Path:
    """A TSV table, `n/a` where a value is undefined."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, sep="\t", index=False, na_rep="n/a")
    return path


def fmriprep(root: Path, recordings: Mapping[str, int], version: str = "25.1.3") -> Path:
    """An fMRIPrep dataset with these recordings and their seeds."""
    describe(root, "fMRIPrep", version)
    brain = template()
    for recording, seed in recordings.items():
        write_run(
            root, recording, image=(series_of(brain, seed) * brain.data[..., None], brain.affine)
        )
        folder = root / recording.split("_")[0] / "func"
        write_table(folder / f"{recording}_desc-confounds_timeseries.tsv", confounds())
    return root

"""Heads with known poses, and small studies on disk, for the tests of the imaging stages."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage

from brainlm.geometry import grid_center, pose_from_params
from brainlm.images import write_image
from brainlm.provenance import sha256_file
from brainlm.recordings import COLUMNS, anat_id_of
from brainlm.tissues import Tissues, load_tissues

TEMPLATE = "MNI152NLin2009aSym"
SHAPE, ZOOM = (46, 55, 46), 4.0


@cache
def tissues(zoom: float) -> Tissues:
    return load_tissues(TEMPLATE, zoom)


@cache
def epi_source(sharpness_mm: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Spline coefficients and affine of a 2 mm head, made left-right asymmetric."""
    fine = tissues(2.0)
    data = 1000 * fine.epi_contrast()
    x = fine.affine[0, 0] * np.arange(data.shape[0]) + fine.affine[0, 3]
    data *= (1 + 0.002 * x)[:, None, None]
    if sharpness_mm:
        data = ndimage.gaussian_filter(data, sharpness_mm / 2 / 2.355)
    return ndimage.spline_filter(data, 3), fine.affine


def centered_affine(
    shape: tuple[int, ...], zoom: float, center: tuple[float, ...] = (0, -18, 10)
) -> np.ndarray:
    affine = np.diag([zoom, zoom, zoom, 1.0])
    affine[:3, 3] = np.array(center) - zoom * (np.array(shape[:3]) - 1) / 2
    return affine


def sample_head(pose: np.ndarray, affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The volume V(x) = R(inv(pose) x) of the head on a grid."""
    coefficients, source_affine = epi_source(4.0)
    pull = np.linalg.inv(source_affine) @ np.linalg.inv(pose) @ affine
    volume = ndimage.affine_transform(
        coefficients, pull[:3, :3], pull[:3, 3], shape, order=3, prefilter=False, mode="constant"
    )
    return np.clip(volume, 0, None)


def moving_run(
    params: np.ndarray,
    *,
    affine: np.ndarray | None = None,
    shape: tuple[int, ...] = SHAPE,
    noise: float = 15.0,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """A run (x, y, z, T) whose head has the six `params` (T, 6) about the grid's centre."""
    if affine is None:
        affine = centered_affine(shape, ZOOM)
    center = grid_center(shape, affine)
    rng = np.random.default_rng(seed)
    volumes = [sample_head(pose_from_params(row, center), affine, shape) for row in params]
    run = np.stack(volumes, axis=-1)
    return np.abs(run + rng.normal(0, noise, run.shape)).astype(np.float32), affine


def mean_displacement(
    found: np.ndarray, true: np.ndarray, points: np.ndarray, *, relative_to: int | None = None
) -> float:
    """Mean distance (mm) between where two transforms put the points (4, n)."""
    if relative_to is not None:
        found = found @ np.linalg.inv(found[relative_to])
        true = true @ np.linalg.inv(true[relative_to])
    gap = (found - true) @ points
    return float(np.linalg.norm(gap[..., :3, :], axis=-2).mean())


def brain_points(zoom: float = 4.0) -> np.ndarray:
    """World points (4, n) of the template's brain."""
    grid = tissues(zoom)
    voxels = np.argwhere(grid.brain).T
    return grid.affine @ np.vstack([voxels, np.ones(voxels.shape[1])])


def make_study(
    root: Path,
    bold: np.ndarray,
    affine: np.ndarray,
    *,
    t1w: tuple[np.ndarray, np.ndarray] | None = None,
    tr: float = 2.0,
    config: str = "space: {resolution_mm: 4}\nnormalize: {resolution_mm: 4, transform: affine}\n",
) -> tuple[Path, str]:
    """A BIDS folder with one run, a study folder beside it, and the recording's id."""
    bids, study, identifier = root / "bids", root / "study", "sub-01_task-rest"
    row: dict[str, object] = dict.fromkeys(COLUMNS)
    row |= {
        "recording_id": identifier,
        "subject": "01",
        "task": "rest",
        "bold": f"sub-01/func/{identifier}_bold.nii.gz",
        "n_volumes": bold.shape[-1],
        "tr": tr,
        "eligible": True,
    }
    write_image(bids / str(row["bold"]), bold.round().astype(np.int16), affine, tr=tr)
    row["bold_sha256"] = sha256_file(bids / str(row["bold"]))
    if t1w is not None:
        row["t1w"] = "sub-01/anat/sub-01_T1w.nii.gz"
        row["anat_id"] = anat_id_of(str(row["t1w"]))
        write_image(bids / str(row["t1w"]), *t1w)
        row["t1w_sha256"] = sha256_file(bids / str(row["t1w"]))
    (study / "config").mkdir(parents=True)
    (study / "onboarding").mkdir()
    (study / "config/config.yaml").write_text(f"bids_dir: ../bids\n{config}")
    table = pd.DataFrame([row])[list(COLUMNS)].astype(COLUMNS)
    table.to_parquet(study / "onboarding/recordings.parquet")
    return study, identifier


def brainlm(*args: str | Path, code: int = 0) -> str:
    """Run a command in its own process; return what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "brainlm", *map(str, args)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def bytes_below(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

"""Speed of parcellation: `python tests/benchmarks/bench_parcellate.py`.

A 91 x 109 x 91 x 100 series, 0 outside the brain as denoised series are, stored as float32 and as
scaled int16: our mean, unpacking the file with isal and doing nothing else, and nilearn's masker
on the same atlas (its labels as int16, and as float32, as A424 is published), in one run; CPU
seconds, the best of three (nilearn: once). Then the largest
memory of a process that parcellates, and a CIFTI series against reading it whole.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from isal import igzip
from scipy.ndimage import binary_dilation

from brainlm.atlas import load_table
from brainlm.atlas.build import approximate_labels
from brainlm.atlas.labels import read_labels, resample_labels
from brainlm.images import write_image
from brainlm.parcellate.cifti import dense_parcels, open_dtseries
from brainlm.parcellate.extract import mean_series
from brainlm.parcellate.stream import open_series

SHAPE, N_VOLUMES = (91, 109, 91), 100
N_GRAYORDINATES, N_TIMES = 91_282, 400
_ALONE = """
import re, sys
from tests.benchmarks.bench_parcellate import ours
ours(sys.argv[1], sys.argv[2])
print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024)
"""


def main() -> None:
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = -90, -126, -72
    table = load_table()
    labels = resample_labels(approximate_labels(table, "MNI152NLin2009aSym", 2), affine, SHAPE)
    brain = binary_dilation(labels > 0, iterations=2)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        atlas, bold = folder / "atlas.nii.gz", folder / "bold.nii.gz"
        write_image(atlas, labels, affine)
        data = np.zeros((*SHAPE, N_VOLUMES), np.float32)
        data[brain] = rng.normal(1000, 20, (int(brain.sum()), N_VOLUMES))
        write_image(bold, data, affine, tr=2.0)
        _against_others("float32", bold, atlas, data, labels)
        scaled = np.round((data - 1000) / 0.01).clip(-32768, 32767).astype(np.int16)
        image = nib.Nifti1Image(scaled, affine)
        image.header.set_slope_inter(0.01, 1000)
        bold = folder / "bold_int16.nii.gz"
        with igzip.open(bold, "wb", compresslevel=1) as handle:
            image.to_stream(handle)
        np.multiply(scaled, np.float32(0.01), out=data)
        data += 1000
        _against_others("int16", bold, atlas, data, labels)
        peak = subprocess.run(
            [sys.executable, "-c", _ALONE, str(folder / "bold.nii.gz"), str(atlas)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        print(f"largest memory of a process that does nothing else: {peak.strip()} MB")
        del data
        _grayordinates(folder, rng)


def ours(bold: str | Path, atlas: str | Path) -> np.ndarray:
    """Parcel means of a file, (time, parcels)."""
    labels, parcels = read_labels(atlas).data, load_table()["index"].to_numpy()
    return mean_series(open_series(bold), labels, np.ones(labels.shape), parcels, 0.5).series


def _against_others(
    kind: str, bold: Path, atlas: Path, data: np.ndarray, labels: np.ndarray
) -> None:
    from nilearn.maskers import NiftiLabelsMasker

    mine, series = _best_of(3, lambda: ours(bold, atlas))
    unpacking, _ = _best_of(3, lambda: _unpack(bold))
    image = nib.load(atlas)
    as_float = nib.Nifti1Image(np.asarray(image.dataobj, dtype=np.float32), image.affine)
    theirs = []
    for given in (image, as_float):
        masker = NiftiLabelsMasker(given, standardize=None, resampling_target=None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs.append(_best_of(1, partial(masker.fit_transform, str(bold)))[0])
    voxels = np.flatnonzero(labels)
    sums = np.zeros((425, data.shape[3]))
    np.add.at(sums, labels.ravel()[voxels], data.reshape(-1, data.shape[3])[voxels])
    reference = (sums / np.bincount(labels.ravel(), minlength=425)[:, None])[1:].T
    print(
        f"{kind}: brainlm {mine:.2f} s   unpacking alone {unpacking:.2f} s "
        f"({mine / unpacking:.2f}x)   nilearn {theirs[0]:.2f} s ({theirs[0] / mine:.1f}x), float "
        f"labels {theirs[1]:.2f} s ({theirs[1] / mine:.1f}x)   "
        f"largest relative error {np.abs(series / reference - 1).max():.1e}"
    )


def _unpack(bold: Path) -> None:
    buffer = bytearray(1 << 22)
    with igzip.open(bold) as handle:
        while handle.readinto(buffer):
            pass


def _grayordinates(folder: Path, rng: np.random.Generator) -> None:
    axis = nib.cifti2.BrainModelAxis.from_surface(np.arange(N_GRAYORDINATES), N_GRAYORDINATES)
    times = nib.cifti2.SeriesAxis(0, 0.72, N_TIMES)
    values = rng.normal(1000, 20, (N_TIMES, N_GRAYORDINATES)).astype(np.float32)
    path = folder / "x.dtseries.nii"
    header = nib.cifti2.Cifti2Header.from_axes((times, axis))
    nib.cifti2.Cifti2Image(values, header).to_filename(path)
    numbers = rng.integers(0, 425, N_GRAYORDINATES)
    series = open_dtseries(path)
    mine, _ = _best_of(3, lambda: dense_parcels(series, numbers, np.arange(1, 425), 0.5))
    reading, _ = _best_of(3, path.read_bytes)
    whole, _ = _best_of(3, lambda: nib.load(path).get_fdata())
    print(
        f"CIFTI {N_GRAYORDINATES} x {N_TIMES}: brainlm {mine:.2f} s   reading the bytes "
        f"{reading:.2f} s   nibabel's get_fdata {whole:.2f} s"
    )


def _best_of(times: int, function: Callable[[], Any]) -> tuple[float, Any]:
    seconds = []
    for _ in range(times):
        began = time.process_time()
        result = function()
        seconds.append(time.process_time() - began)
    return min(seconds), result


if __name__ == "__main__":
    main()

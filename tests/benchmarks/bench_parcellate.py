"""Speed and memory of parcellation: `python -m tests.benchmarks.bench_parcellate`.

A 91 x 109 x 91 x 100 series, 0 outside the brain as denoised series are, stored as float32 and as
scaled int16, packed and not: our mean; reading (and unpacking) the file and doing nothing else;
and nilearn's masker with its labels as int16, and as float32, as A424 is published. All in one
run, CPU seconds, the best of three (nilearn: once). "At most" is what nobody could exceed: what
nilearn takes over what reading alone takes. Then the command `brainlm parcellate` on that file as
a process, imports included; and a CIFTI series against reading it alone.
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
from brainlm.layout import Study
from brainlm.parcellate.cifti import dense_parcels, open_dtseries
from brainlm.parcellate.extract import mean_series
from brainlm.parcellate.stream import open_bytes, open_series
from tests.unit.test_parcellate import ID, write_image_of, write_small_study

SHAPE, N_VOLUMES = (91, 109, 91), 100
N_GRAYORDINATES, N_TIMES = 91_282, 400
#: A command, then the largest memory of its process, kB, and its CPU time. `getrusage` would tell
#: of the process that started it.
_THEN_PEAK = """
import atexit, re, time
peak = lambda: re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]
atexit.register(lambda: print(peak(), time.process_time()))
from brainlm.cli import main
main()
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
        atlas, bold, plain = (folder / n for n in ("atlas.nii.gz", "bold.nii.gz", "bold.nii"))
        write_image(atlas, labels, affine)
        data = np.zeros((*SHAPE, N_VOLUMES), np.float32)
        data[brain] = rng.normal(1000, 20, (int(brain.sum()), N_VOLUMES))
        write_image(bold, data, affine, tr=2.0)
        nib.save(nib.Nifti1Image(data, affine), plain)
        reference = _reference(data, labels)
        _against_others("float32 .nii.gz", bold, atlas, reference)
        _against_others("float32 .nii", plain, atlas, reference)
        plain.unlink()
        scaled = np.round((data - 1000) / 0.01).clip(-32768, 32767).astype(np.int16)
        image = nib.Nifti1Image(scaled, affine)
        image.header.set_slope_inter(0.01, 1000)
        packed = folder / "bold_int16.nii.gz"
        with igzip.open(packed, "wb", compresslevel=1) as handle:
            image.to_stream(handle)
        np.multiply(scaled, np.float32(0.01), out=data)
        data += 1000
        _against_others("int16 .nii.gz", packed, atlas, _reference(data, labels))
        del data, scaled, image
        _the_command(folder / "study", bold, labels, brain, affine)
        _grayordinates(folder, rng)


def ours(bold: str | Path, atlas: str | Path) -> np.ndarray:
    """Parcel means of a file, (time, parcels)."""
    labels, parcels = read_labels(atlas).data, load_table()["index"].to_numpy()
    return mean_series(open_series(bold), labels, np.ones(labels.shape), parcels, 0.5).series


def _reference(data: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Parcel means (time, parcels) of (x, y, z, time), summed in float64."""
    voxels = np.flatnonzero(labels)
    sums = np.zeros((425, data.shape[3]))
    np.add.at(sums, labels.ravel()[voxels], data.reshape(-1, data.shape[3])[voxels])
    return (sums / np.bincount(labels.ravel(), minlength=425)[:, None])[1:].T


def _against_others(kind: str, bold: Path, atlas: Path, reference: np.ndarray) -> None:
    from nilearn.maskers import NiftiLabelsMasker

    mine, series = _best_of(3, lambda: ours(bold, atlas))
    reading, _ = _best_of(3, lambda: _read(bold))
    image = nib.load(atlas)
    as_float = nib.Nifti1Image(np.asarray(image.dataobj, dtype=np.float32), image.affine)
    print(
        f"{kind}: brainlm {mine:.2f} s   reading alone {reading:.2f} s ({mine / reading:.2f}x)   "
        f"largest relative error {np.abs(series / reference - 1).max():.1e}"
    )
    for what, given in (("int16", image), ("float32", as_float)):
        masker = NiftiLabelsMasker(given, standardize=None, resampling_target=None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs, _ = _best_of(1, partial(masker.fit_transform, str(bold)))
        print(
            f"    nilearn, {what} labels {theirs:.2f} s: {theirs / mine:.1f}x (at most "
            f"{theirs / reading:.1f}x)"
        )


def _read(path: Path) -> None:
    buffer = bytearray(1 << 22)
    with open_bytes(path) as handle:
        while handle.readinto(buffer):
            pass


def _the_command(
    root: Path, bold: Path, labels: np.ndarray, brain: np.ndarray, affine: np.ndarray
) -> None:
    """`brainlm parcellate` on a study of that one run: time and memory of the process."""
    root.mkdir()
    study = Study(root)
    write_image_of(study, "denoised_bold", bold, affine, res="2")
    write_image_of(study, "mni_mask", brain.astype(np.uint8), affine, res="2")
    write_image_of(study, "atlas_image", labels.astype(np.int16), affine, {}, res="2")
    params = write_small_study(study, n_labels=424, zoom=2.0)
    began = time.perf_counter()
    arguments = ["parcellate", ID, "--study", str(root), "--params", params]
    done = subprocess.run(
        [sys.executable, "-c", _THEN_PEAK, *arguments], capture_output=True, text=True, check=True
    )
    wall = time.perf_counter() - began
    peak, cpu = done.stdout.split()[-2:]
    print(
        f"brainlm parcellate, float32 .nii.gz: {wall:.1f} s, of which CPU {float(cpu):.1f} s, at "
        f"most {int(peak) / 1024:.0f} MB"
    )


def _grayordinates(folder: Path, rng: np.random.Generator) -> None:
    axis = nib.cifti2.BrainModelAxis.from_surface(np.arange(N_GRAYORDINATES), N_GRAYORDINATES)
    times = nib.cifti2.SeriesAxis(0, 0.72, N_TIMES)
    values = rng.normal(1000, 20, (N_TIMES, N_GRAYORDINATES)).astype(np.float32)
    path = folder / "x.dtseries.nii"
    header = nib.cifti2.Cifti2Header.from_axes((times, axis))
    nib.cifti2.Cifti2Image(values, header).to_filename(path)
    numbers = rng.integers(0, 425, N_GRAYORDINATES)

    opening, series = _best_of(3, lambda: open_dtseries(path))
    mine, _ = _best_of(3, lambda: dense_parcels(series, numbers, np.arange(1, 425), 0.5))
    reading, _ = _best_of(3, lambda: _read(path))
    whole, _ = _best_of(3, lambda: nib.load(path).get_fdata())
    size = path.stat().st_size / 1e6
    print(
        f"CIFTI {N_GRAYORDINATES} x {N_TIMES} ({size:.0f} MB): header {opening:.2f} s   parcels "
        f"{mine:.2f} s ({size / mine:.0f} MB/s)   reading alone, from memory, {reading:.2f} s "
        f"({mine / reading:.1f}x)   nibabel's get_fdata {whole:.2f} s"
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

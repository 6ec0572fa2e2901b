"""Speed of parcellation against nilearn's masker: `python tests/benchmarks/bench_parcellate.py`.

One 91 x 109 x 91 x 50 float32 series, both in one process, the same atlas; CPU seconds.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np

from brainlm.atlas import load_table
from brainlm.atlas.build import approximate_labels
from brainlm.atlas.labels import resample_labels
from brainlm.images import write_image
from brainlm.parcellate.extract import mean_series
from brainlm.parcellate.stream import open_series

SHAPE, N_VOLUMES = (91, 109, 91), 50


def main() -> None:
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = -90, -126, -72
    table = load_table()
    labels = resample_labels(approximate_labels(table, "MNI152NLin2009aSym", 2), affine, SHAPE)
    rng = np.random.default_rng(0)
    data = rng.normal(1000, 20, (*SHAPE, N_VOLUMES)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        bold, atlas = Path(folder) / "bold.nii.gz", Path(folder) / "atlas.nii.gz"
        write_image(bold, data, affine, tr=2.0)
        write_image(atlas, labels, affine)
        del data

        began = time.process_time()
        ours = mean_series(
            open_series(bold), labels, np.ones(SHAPE), table["index"].to_numpy(), 0.5
        ).series
        our_time = time.process_time() - began

        from nilearn.maskers import NiftiLabelsMasker

        began = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            masker = NiftiLabelsMasker(nib.load(atlas), standardize=None, resampling_target=None)
            theirs = masker.fit_transform(str(bold))
        their_time = time.process_time() - began
    print(f"brainlm {our_time:.2f} s   nilearn {their_time:.2f} s   {their_time / our_time:.1f}x")
    print(f"largest relative difference {np.abs(ours / theirs - 1).max():.1e}")


if __name__ == "__main__":
    main()

"""The steps from a raw run to its normalised series and confounds, from files to files.

Each does what the command of the same name does, without a study around it: the inputs are named
one by one, the outputs lie in one folder, and what a command writes into sidecars is returned.
Every function takes the folder, the config (for its options) and its inputs, and returns plain
JSON types; `brainlm.pinned` calls them in a process of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..config import Config
from ..errors import InputError
from ..geometry import read_itk_affines, write_itk_affines
from ..images import Image, load_template, read_image, write_image
from ..series import open_series, read_bold, read_mask, write_series
from ..tissues import Tissues, load_tissues, tissues_on
from ..warps import read_warp, write_warp
from .checks import check_anatomy, check_bold, check_mask, check_poses
from .confounds import confounds_table, tissue_voxels
from .distortion import Shift, shift_from_field
from .motion import estimate_motion as estimate
from .resample import Resampler, StandardGrid
from .slicetiming import to_one_moment
from .tables import write_confounds, write_motion

Answer = dict[str, Any]


def estimate_motion(folder: Path, config: Config, *, bold: str, num_threads: int) -> Answer:
    """The head's pose in every volume."""
    series = read_bold(bold)
    check_bold(series, bold)
    found = estimate(series, threads=num_threads, **config.motion.model_dump())
    files = {
        "motion": folder / "motion.tsv",
        "hmc_xfm": folder / "hmc_xfm.txt",
        "boldref": folder / "boldref.nii.gz",
        "foreground_mask": folder / "foreground_mask.nii.gz",
    }
    write_motion(files["motion"], found.table)
    write_itk_affines(files["hmc_xfm"], list(found.poses))
    write_image(files["boldref"], found.boldref, series.affine)
    write_image(files["foreground_mask"], found.mask.astype(np.uint8), series.affine)
    return {
        **_names(files),
        "non_steady_volumes": int(found.unsteady),
        "mean_fd": float(np.nanmean(found.framewise_displacement)),
    }


def correct_slice_timing(
    folder: Path,
    config: Config,
    *,
    bold: str,
    slice_times: Sequence[float],
    tr: float,
    non_steady_volumes: int,
) -> Answer:
    """The run with its slices at one moment; unchanged where they cannot be moved."""
    raw = open_series(bold)
    reference = config.resample.slice_reference
    moved, about = to_one_moment(
        raw, slice_times, tr=tr, reference=reference, ignored=non_steady_volumes
    )
    path = folder / "slice_timed_bold.nii.gz"
    write_series(path, moved.volumes(), raw.shape, raw.affine, tr=tr, in_mni=False)
    return {"slice_timed_bold": str(path), "about": about}


def resample_to_standard(
    folder: Path,
    config: Config,
    *,
    bold: str,
    hmc_xfm: str,
    boldref_to_mni: str,
    tr: float,
    non_steady_volumes: int,
    num_threads: int,
    slice_times: Sequence[float] | None = None,
    warp: str | None = None,
    fieldmap: str | None = None,
    pe_direction: str | None = None,
    total_readout_time: float | None = None,
) -> Answer:
    """Every raw volume on the template's grid, interpolated once."""
    raw, options, space = open_series(bold), config.resample, config.space
    poses = np.array(read_itk_affines(hmc_xfm))
    check_poses(len(poses), raw.shape[3], bold)
    (to_mni,) = read_itk_affines(boldref_to_mni)
    template = load_template(space.template, "brain", space.resolution_mm)
    source, timing = to_one_moment(
        raw,
        slice_times,
        tr=tr,
        reference=options.slice_reference,
        ignored=non_steady_volumes,
        switched_off=options.slice_timing == "off",
    )
    resampler = Resampler(
        source,
        poses,
        to_mni,
        StandardGrid(template.affine, template.data > 0.5),
        order=options.order,
        warp=None if warp is None else read_warp(warp),
        shift=_shift(fieldmap, pe_direction, total_readout_time),
        modulate=config.distortion.modulate,
    )
    files = {"preproc_bold": folder / "preproc_bold.nii.gz", "mni_mask": folder / "mni_mask.nii.gz"}
    volumes, affine = resampler.volumes(num_threads), resampler.grid.affine
    write_series(files["preproc_bold"], volumes, resampler.shape, affine, tr=tr)
    mask = resampler.mask()
    check_mask(mask, bold)
    write_image(files["mni_mask"], mask.astype(np.uint8), affine, in_mni=True)
    return {**_names(files), "about": timing}


def compute_confounds(
    folder: Path, config: Config, *, preproc_bold: str, mni_mask: str, motion: str, tr: float
) -> Answer:
    """The confounds of a normalised run, in fMRIPrep's names."""
    series = open_series(preproc_bold)
    image = read_mask(mni_mask, series.affine, series.shape)
    mask = image.data
    voxels = tissue_voxels(tissues_on(image, config.space.template, mni_mask), mask)
    table, components = confounds_table(
        series.in_mask(mask),
        pd.read_csv(motion, sep="\t", na_values="n/a"),
        voxels,
        tr=tr,
        **config.confounds.model_dump(),
    )
    path = folder / "confounds.tsv"
    write_confounds(path, table)
    return {"confounds": str(path), "about": components}


def normalize_anat(folder: Path, config: Config, *, t1w: str) -> Answer:
    """A T1w to the template."""
    from .normalize import check_anatomy_quality
    from .normalize import normalize_anat as normalize

    image = check_anatomy(read_image(t1w), t1w)
    found = normalize(image, _tissues(config), config.normalize.transform)
    check_anatomy_quality(found, t1w)
    files = {"t1w_to_mni": folder / "t1w_to_mni.txt", "t1w_brain": folder / "t1w_brain.nii.gz"}
    write_itk_affines(files["t1w_to_mni"], [found.t1w_to_mni])
    write_image(files["t1w_brain"], found.brain, image.affine)
    quality: Answer = dict(found.quality())
    if found.nonlinear is not None:
        files["t1w_to_mni_warp"] = folder / "t1w_to_mni_warp.nii.gz"
        write_warp(files["t1w_to_mni_warp"], found.nonlinear.warp)
        quality |= found.nonlinear.quality()
    return {**_names(files), "quality": quality}


def coregister_bold(
    folder: Path,
    config: Config,
    *,
    boldref: str,
    foreground_mask: str,
    t1w_brain: str,
    t1w_to_mni: str,
) -> Answer:
    """A run's reference to the T1w of the same head."""
    from .coregister import check_coregistration, coregister
    from .normalize import bold_to_t1w, check_same_place, even_out

    mask, brain = read_image(foreground_mask).data > 0, read_image(t1w_brain)
    even = even_out(read_image(boldref), mask)
    (to_mni,) = read_itk_affines(t1w_to_mni)
    start = bold_to_t1w(even, brain, config.normalize.resolution_mm)
    check_same_place(start, brain, boldref)
    found = coregister(even, mask, brain, to_mni, _tissues(config), start)
    check_coregistration(found, boldref)
    path = folder / "boldref_to_t1w.txt"
    write_itk_affines(path, [found.boldref_to_t1w])
    return {"boldref_to_t1w": str(path), "quality": found.quality()}


def normalize_bold(
    folder: Path,
    config: Config,
    *,
    boldref: str,
    foreground_mask: str,
    boldref_to_t1w: str | None = None,
    t1w_to_mni: str | None = None,
    t1w_brain: str | None = None,
) -> Answer:
    """A run's reference to the template, and the brain on its grid."""
    from .place import Through, place_bold

    through = None
    if boldref_to_t1w and t1w_to_mni and t1w_brain:
        (to_t1w,), (to_mni,) = read_itk_affines(boldref_to_t1w), read_itk_affines(t1w_to_mni)
        through = Through(to_t1w, to_mni, read_image(t1w_brain))
    image, foreground = read_image(boldref), read_image(foreground_mask).data > 0
    found = place_bold(image, foreground, _tissues(config), through, boldref)
    files = {
        "boldref_to_mni": folder / "boldref_to_mni.txt",
        "bold_mask": folder / "bold_mask.nii.gz",
    }
    write_itk_affines(files["boldref_to_mni"], [found.boldref_to_mni])
    write_image(files["bold_mask"], found.mask.astype(np.uint8), image.affine)
    return {**_names(files), "quality": found.quality()}


def warp_bold(
    folder: Path, config: Config, *, boldref: str, foreground_mask: str, boldref_to_mni: str
) -> Answer:
    """A run without a T1w to the template, beyond the affine."""
    from .nonlinear import warp_boldref
    from .normalize import even_out

    even = even_out(read_image(boldref), read_image(foreground_mask).data > 0)
    (to_mni,) = read_itk_affines(boldref_to_mni)
    found = warp_boldref(even, to_mni, _tissues(config))
    path = folder / "boldref_to_mni_warp.nii.gz"
    write_warp(path, found.warp)
    return {"boldref_to_mni_warp": str(path), "quality": found.quality()}


def _tissues(config: Config) -> Tissues:
    return load_tissues(config.space.template, config.normalize.resolution_mm)


def _shift(field: str | None, direction: str | None, readout_s: float | None) -> Shift | None:
    if field is None:
        return None
    if direction is None or readout_s is None:
        raise InputError(
            "A field without PhaseEncodingDirection and TotalReadoutTime moves nothing",
            file=field,
            fix="set pe_direction and total_readout_time as EstimateFieldmap puts them out",
        )
    image: Image = read_image(field)
    return shift_from_field(image, direction, readout_s)


def _names(files: dict[str, Path]) -> Answer:
    return {name: str(path) for name, path in files.items()}

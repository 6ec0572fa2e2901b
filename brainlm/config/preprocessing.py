"""Options from the raw run to its confounds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .base import NonNegative, OrOff, Positive, Section, Share


class Eligibility(Section):
    """Which BOLD runs enter the pipeline; the others stay in the table with their reason."""

    min_volumes: Annotated[int, Field(ge=5)] = Field(
        200, description="shortest run, in volumes; BrainLM reads windows of 200"
    )
    tr_min: Positive = Field(0.3, description="shortest believable repetition time, s")
    tr_max: Positive = Field(5.0, description="longest believable repetition time, s")


class Space(Section):
    """The standard space in which parcels are read."""

    template: Literal["MNI152NLin2009aSym", "MNI152NLin6Asym", "fsLR"] = Field(
        "MNI152NLin2009aSym",
        description="template to normalise to; MNI152NLin6Asym is A424's own space and must be "
        "fetched (`brainlm template get`), MNI152NLin2009aSym ships with nilearn; fsLR: for CIFTI "
        "dense series alone",
    )
    resolution_mm: Positive = Field(2.0, description="voxel size of the normalised series, mm")


class AtlasChoice(Section):
    """The parcellation."""

    name: str = Field(
        "A424",
        pattern=r"^[A-Za-z0-9+]+$",
        description="a name from `brainlm atlas list`; A424approx is the offline stand-in",
    )
    space_ok: bool = Field(
        False,
        description="use the atlas although it was drawn in another MNI space than the data's",
    )


class Motion(Section):
    """Head motion: rigid registration of every volume to the run's reference."""

    iterations: Annotated[int, Field(ge=1)] = Field(
        12, description="most Gauss-Newton steps at each of the two resolution levels"
    )
    tolerance_mm: Positive = Field(
        0.001, description="stop when a step moves no voxel of the brain by more than this, mm"
    )
    fd_radius_mm: Positive = Field(
        50.0, description="head radius that turns rotations into mm for FD (Power et al. 2012)"
    )


class Normalize(Section):
    """Registration of T1w to the template and of BOLD to T1w (ANTs)."""

    transform: Literal["affine", "syn"] = Field(
        "syn",
        description="to the template; syn goes on from the affine by a nonlinear warp (ANTs SyN), "
        "affine stops there and saves half a minute per T1w",
    )
    resolution_mm: Positive = Field(
        3.0, description="grid on which registration metrics are computed, mm"
    )


class Distortion(Section):
    """Susceptibility distortion of EPI: where it comes from and how far it is undone."""

    method: Annotated[Literal["auto", "fieldmap", "syn", "off"], OrOff] = Field(
        "auto",
        description="auto: by a field map where there is one; fieldmap: give up runs without; "
        "syn: runs without by a warp to their T1w along the phase-encoding axis; off",
    )
    modulate: bool = Field(
        False,
        description="also undo the pile-up of signal in the series; a constant factor per voxel",
    )


class Resample(Section):
    """The one interpolation from raw BOLD to standard space."""

    order: Annotated[int, Field(ge=1, le=5)] = Field(
        3, description="B-spline order; 1 is linear, 3 is cubic"
    )
    slice_timing: Annotated[Literal["auto", "off"], OrOff] = Field(
        "auto",
        description="auto: bring the slices of a volume to one moment where SliceTiming is known",
    )
    slice_reference: Share = Field(
        0.5, description="that moment: 0 is the first slice's, 1 the last one's, 0.5 between them"
    )
    output: Literal["series", "parcels"] = Field(
        "series",
        description="series: 4-D files between the steps up to parcels; parcels: all these steps "
        "in memory, the same results without the 4-D files (large cohorts)",
    )


class Confounds(Section):
    """Confound time series, in fMRIPrep's names."""

    fd_threshold_mm: Positive = Field(0.5, description="FD above which a volume is an outlier, mm")
    dvars_threshold: Positive = Field(
        1.5, description="standardised DVARS above which a volume is an outlier"
    )
    high_pass_s: NonNegative = Field(
        100.0, description="cut-off period of the cosine columns, s; denoise makes its own"
    )
    compcor_components: Annotated[int, Field(ge=0)] | Literal["half"] = Field(
        10,
        description="most components of each CompCor kind, fewer if they explain half of the "
        "variance; half: as many as do (denoise.method acompcor50 needs that)",
    )

"""The Nipype interface of parcel means. Needs nipype (`pip install 'brainlm[nipype]'`).

As those of `brainlm.preproc.interfaces`: it computes in a process of its own and writes the same
bytes as the command, with the default of `brainlm.config`.
"""

from __future__ import annotations

from ..nodes import BaseInterfaceInputSpec, File, StepInterface, TraitedSpec, option, traits


class _ParcelMeansInputs(BaseInterfaceInputSpec):
    bold = File(exists=True, mandatory=True, desc="of Denoise, or any 4-D series in MNI space")
    mni_mask = File(exists=True, mandatory=True, desc="its brain, on the same grid")
    atlas_image = File(exists=True, mandatory=True, desc="label numbers, 3-D, on any grid")
    atlas_table = File(exists=True, mandatory=True, desc="TSV with index, name, x, y, z")
    template = option("space", "template")
    estimator = option("parcellate", "estimator")
    min_coverage = option("parcellate", "min_coverage")


class _ParcelMeansOutputs(TraitedSpec):
    timeseries = File(exists=True, desc="Parquet: a row per volume, a float32 column per parcel")
    coverage = File(exists=True, desc="TSV: the usable share of each parcel's voxels")
    about = traits.Dict(desc="whether the labels were moved, how many parcels are not covered")


class ParcelMeans(StepInterface):
    """The series of each parcel, by default its mean; NaN where too little of it is covered."""

    input_spec = _ParcelMeansInputs
    output_spec = _ParcelMeansOutputs
    _step = "brainlm.parcellate.steps:parcel_means"

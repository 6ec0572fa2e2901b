"""Nipype interfaces of the steps from a raw run to its normalised series and confounds.

Needs nipype (`pip install 'brainlm[nipype]'`). Each interface does what the command of the same
name does and writes the same bytes, since it computes in a process of its own: ANTs repeats
itself only where the environment named in `brainlm.threads.ONE_THREAD` was set before it was
loaded, and a Nipype process may long have loaded it. Defaults are those of `brainlm.config`.

Files are named after the outputs (`boldref.nii.gz`) and lie in the node's folder, without
sidecars: what a command writes there, an interface puts out (`quality`, `about`).
"""

from __future__ import annotations

from ..nodes import (
    BaseInterfaceInputSpec,
    File,
    InputMultiPath,
    StepInterface,
    TraitedSpec,
    option,
    threads,
    traits,
)

_DIRECTIONS = ["i", "i-", "j", "j-", "k", "k-"]
_TR_IS = "repetition time, s"
_AXIS_IS = "PhaseEncodingDirection of the run"
_READOUT_IS = "TotalReadoutTime of the run, s"


class _EstimateMotionInputs(BaseInterfaceInputSpec):
    bold = File(exists=True, mandatory=True, desc="raw BOLD run, 4-D")
    iterations = option("motion", "iterations")
    tolerance_mm = option("motion", "tolerance_mm")
    fd_radius_mm = option("motion", "fd_radius_mm")
    num_threads = threads()


class _EstimateMotionOutputs(TraitedSpec):
    motion = File(exists=True, desc="six parameters, FD and rmsd, a row per volume")
    hmc_xfm = File(exists=True, desc="the head's poses, ITK text")
    boldref = File(exists=True, desc="reference volume")
    foreground_mask = File(exists=True, desc="its bright object")
    non_steady_volumes = traits.Int(desc="volumes at the start before the steady state")
    mean_fd = traits.Float(desc="mean framewise displacement, mm")


class EstimateMotion(StepInterface):
    """Where the head was in every volume of a run; nothing is resampled."""

    input_spec = _EstimateMotionInputs
    output_spec = _EstimateMotionOutputs
    _step = "brainlm.preproc.steps:estimate_motion"


class _CorrectSliceTimingInputs(BaseInterfaceInputSpec):
    bold = File(exists=True, mandatory=True, desc="raw BOLD run, 4-D")
    slice_times = traits.List(
        traits.Float(), mandatory=True, desc="SliceTiming: s, along the third stored axis"
    )
    tr = traits.Range(low=0.0, exclude_low=True, value=None, mandatory=True, desc=_TR_IS)
    non_steady_volumes = traits.Range(low=0, value=0, usedefault=True, desc="left as they are")
    slice_reference = option("resample", "slice_reference")


class _CorrectSliceTimingOutputs(TraitedSpec):
    slice_timed_bold = File(exists=True, desc="float32, 4-D")
    about = traits.Dict(desc="the moment, or why nothing was moved")


class CorrectSliceTiming(StepInterface):
    """Bring the slices of each volume to one moment, in a file.

    ResampleToStandard does the same on its way, without a file between, if it is given the slice
    times; after this interface it must not be.
    """

    input_spec = _CorrectSliceTimingInputs
    output_spec = _CorrectSliceTimingOutputs
    _step = "brainlm.preproc.steps:correct_slice_timing"


class _EstimateFieldmapInputs(BaseInterfaceInputSpec):
    boldref = File(exists=True, mandatory=True, desc="of EstimateMotion")
    foreground_mask = File(exists=True, mandatory=True, desc="of EstimateMotion")
    kind = traits.Enum(
        None,
        ["phasediff", "phases", "fieldmap", "pepolar", "syn"],
        mandatory=True,
        desc="what was measured; syn: nothing, the T1w tells",
    )
    pe_direction = traits.Enum(None, _DIRECTIONS, mandatory=True, desc=_AXIS_IS)
    total_readout_time = traits.Float(desc=_READOUT_IS + "; needed but for syn")
    files = InputMultiPath(
        File(exists=True), desc="phases or field, then the magnitude; for pepolar one or two EPIs"
    )
    hz_per_unit = traits.Float(desc="for fieldmap: 1 if it is in Hz, 1 / (2 pi) if in rad/s")
    echo_gap = traits.Float(desc="for phasediff and phases: EchoTime2 - EchoTime1, s")
    epi_directions = traits.List(traits.Enum(*_DIRECTIONS), desc="for pepolar: of each EPI")
    epi_readout_times = traits.List(traits.Float(), desc="for pepolar: of each EPI, s")
    t1w_brain = File(exists=True, desc="for syn: of NormalizeAnat")
    registration_mm = option("normalize", "resolution_mm")


class _EstimateFieldmapOutputs(TraitedSpec):
    fieldmap = File(exists=True, desc="Hz, on the grid of boldref")
    unwarped_boldref = File(exists=True, desc="takes the place of boldref in what follows")
    unwarped_mask = File(exists=True, desc="takes the place of foreground_mask")
    pe_direction = traits.Str(desc="for ResampleToStandard")
    total_readout_time = traits.Float(desc="for ResampleToStandard, s")
    quality = traits.Dict(desc="how large the shifts are, how alike the EPIs")


class EstimateFieldmap(StepInterface):
    """The off-resonance of a run, and its reference undistorted."""

    input_spec = _EstimateFieldmapInputs
    output_spec = _EstimateFieldmapOutputs
    _step = "brainlm.preproc.fieldmap_step:estimate_fieldmap"


class _NormalizeAnatInputs(BaseInterfaceInputSpec):
    t1w = File(exists=True, mandatory=True, desc="T1w, with or without its skull")
    template = option("space", "template")
    transform = option("normalize", "transform")
    registration_mm = option("normalize", "resolution_mm")


class _NormalizeAnatOutputs(TraitedSpec):
    t1w_to_mni = File(exists=True, desc="affine, ITK text")
    t1w_to_mni_warp = File(desc="ITK displacement field; undefined where transform is affine")
    t1w_brain = File(exists=True, desc="bias-corrected, 0 outside the brain")
    quality = traits.Dict(desc="likeness to the template, how the warp behaves")


class NormalizeAnat(StepInterface):
    """A T1w to the template, and its brain (ANTs)."""

    input_spec = _NormalizeAnatInputs
    output_spec = _NormalizeAnatOutputs
    _step = "brainlm.preproc.steps:normalize_anat"


class _ReferenceInputs(BaseInterfaceInputSpec):
    boldref = File(exists=True, mandatory=True, desc="of EstimateMotion, or undistorted")
    foreground_mask = File(exists=True, mandatory=True, desc="its bright object")
    template = option("space", "template")
    registration_mm = option("normalize", "resolution_mm")


class _CoregisterBoldInputs(_ReferenceInputs):
    t1w_brain = File(exists=True, mandatory=True, desc="of NormalizeAnat")
    t1w_to_mni = File(exists=True, mandatory=True, desc="of NormalizeAnat")


class _CoregisterBoldOutputs(TraitedSpec):
    boldref_to_t1w = File(exists=True, desc="rigid, ITK text")
    quality = traits.Dict(desc="how well the white matter's boundary fits")


class CoregisterBold(StepInterface):
    """A run's reference to the T1w of the same head (ANTs, then the white matter's boundary)."""

    input_spec = _CoregisterBoldInputs
    output_spec = _CoregisterBoldOutputs
    _step = "brainlm.preproc.steps:coregister_bold"


class _NormalizeBoldInputs(_ReferenceInputs):
    boldref_to_t1w = File(
        exists=True, requires=["t1w_to_mni", "t1w_brain"], desc="of CoregisterBold"
    )
    t1w_to_mni = File(
        exists=True, requires=["boldref_to_t1w", "t1w_brain"], desc="of NormalizeAnat"
    )
    t1w_brain = File(
        exists=True, requires=["boldref_to_t1w", "t1w_to_mni"], desc="of NormalizeAnat"
    )


class _NormalizeBoldOutputs(TraitedSpec):
    boldref_to_mni = File(exists=True, desc="affine, ITK text")
    bold_mask = File(exists=True, desc="the brain, on the run's own grid")
    quality = traits.Dict(desc="overlap with the template")


class NormalizeBold(StepInterface):
    """A run to the template: through its T1w, or straight where none is given (ANTs)."""

    input_spec = _NormalizeBoldInputs
    output_spec = _NormalizeBoldOutputs
    _step = "brainlm.preproc.steps:normalize_bold"


class _WarpBoldInputs(_ReferenceInputs):
    boldref_to_mni = File(exists=True, mandatory=True, desc="of NormalizeBold, without a T1w")


class _WarpBoldOutputs(TraitedSpec):
    boldref_to_mni_warp = File(exists=True, desc="ITK displacement field")
    quality = traits.Dict(desc="how the warp behaves")


class WarpBold(StepInterface):
    """A run without a T1w to the template, beyond the affine (ANTs)."""

    input_spec = _WarpBoldInputs
    output_spec = _WarpBoldOutputs
    _step = "brainlm.preproc.steps:warp_bold"


class _ResampleInputs(BaseInterfaceInputSpec):
    bold = File(exists=True, mandatory=True, desc="raw BOLD run, 4-D")
    hmc_xfm = File(exists=True, mandatory=True, desc="of EstimateMotion")
    boldref_to_mni = File(exists=True, mandatory=True, desc="of NormalizeBold")
    warp = File(exists=True, desc="t1w_to_mni_warp, or boldref_to_mni_warp without a T1w")
    fieldmap = File(
        exists=True, requires=["pe_direction", "total_readout_time"], desc="of EstimateFieldmap"
    )
    pe_direction = traits.Enum(None, _DIRECTIONS, desc=_AXIS_IS)
    total_readout_time = traits.Float(desc=_READOUT_IS)
    tr = traits.Range(low=0.0, exclude_low=True, value=None, mandatory=True, desc=_TR_IS)
    slice_times = traits.List(traits.Float(), desc="SliceTiming, s; left out: not corrected")
    non_steady_volumes = traits.Range(low=0, value=0, usedefault=True, desc="of EstimateMotion")
    template = option("space", "template")
    resolution_mm = option("space", "resolution_mm")
    order = option("resample", "order")
    slice_timing = option("resample", "slice_timing")
    slice_reference = option("resample", "slice_reference")
    modulate = option("distortion", "modulate")
    num_threads = threads()


class _ResampleOutputs(TraitedSpec):
    preproc_bold = File(exists=True, desc="float32, 4-D, on the template's grid")
    mni_mask = File(exists=True, desc="brain voxels that every volume shows")
    about = traits.Dict(desc="what became of slice timing")


class ResampleToStandard(StepInterface):
    """Interpolate every raw volume once, with all transforms composed."""

    input_spec = _ResampleInputs
    output_spec = _ResampleOutputs
    _step = "brainlm.preproc.steps:resample_to_standard"


class _ComputeConfoundsInputs(BaseInterfaceInputSpec):
    preproc_bold = File(exists=True, mandatory=True, desc="of ResampleToStandard")
    mni_mask = File(exists=True, mandatory=True, desc="of ResampleToStandard")
    motion = File(exists=True, mandatory=True, desc="of EstimateMotion")
    tr = traits.Range(low=0.0, exclude_low=True, value=None, mandatory=True, desc=_TR_IS)
    template = option("space", "template")
    fd_threshold_mm = option("confounds", "fd_threshold_mm")
    dvars_threshold = option("confounds", "dvars_threshold")
    high_pass_s = option("confounds", "high_pass_s")
    compcor_components = option("confounds", "compcor_components")


class _ComputeConfoundsOutputs(TraitedSpec):
    confounds = File(exists=True, desc="in fMRIPrep's names")
    about = traits.Dict(desc="of each CompCor column")


class ComputeConfounds(StepInterface):
    """The confounds of a normalised run."""

    input_spec = _ComputeConfoundsInputs
    output_spec = _ComputeConfoundsOutputs
    _step = "brainlm.preproc.steps:compute_confounds"

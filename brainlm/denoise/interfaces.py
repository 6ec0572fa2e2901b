"""Nipype interfaces of ICA-AROMA and denoising. Needs nipype (`pip install 'brainlm[nipype]'`).

As those of `brainlm.preproc.interfaces`: they compute in a process of their own and write the
same bytes as the commands, with the defaults of `brainlm.config`.
"""

from __future__ import annotations

from ..nodes import BaseInterfaceInputSpec, File, StepInterface, TraitedSpec, option, traits


class _NormalisedRun(BaseInterfaceInputSpec):
    preproc_bold = File(exists=True, mandatory=True, desc="of ResampleToStandard")
    mni_mask = File(exists=True, mandatory=True, desc="of ResampleToStandard")
    confounds = File(exists=True, mandatory=True, desc="of ComputeConfounds")
    tr = traits.Range(
        low=0.0, exclude_low=True, value=None, mandatory=True, desc="repetition time, s"
    )


class _FindComponentsInputs(_NormalisedRun):
    template = option("space", "template")
    smoothing_mm = option("ica", "smoothing_mm")
    high_pass_s = option("ica", "high_pass_s")
    components = option("ica", "components")
    restarts = option("ica", "restarts")
    masks = option("ica", "masks")
    masks_space_ok = option("ica", "masks_space_ok")
    rule = option("ica", "rule")
    classifier = option("ica", "classifier")
    seed = option("ica", "seed")


class _FindComponentsOutputs(TraitedSpec):
    ica_mixing = File(exists=True, desc="courses, a row per volume")
    ica_maps = File(exists=True, desc="where each component is active, 4-D")
    aroma_metrics = File(exists=True, desc="the four features and the classification")
    about = traits.Dict(desc="how many components, how many are noise")


class FindComponents(StepInterface):
    """The independent components of a run, each judged by ICA-AROMA; nothing is taken out."""

    input_spec = _FindComponentsInputs
    output_spec = _FindComponentsOutputs
    _step = "brainlm.denoise.steps:find_components"


class _DenoiseInputs(_NormalisedRun):
    ica_mixing = File(exists=True, requires=["aroma_metrics"], desc="for method aroma")
    aroma_metrics = File(
        exists=True, requires=["ica_mixing"], desc="for method aroma; edit it to overrule it"
    )
    method = option("denoise", "method")
    mean_signals = option("denoise", "mean_signals")
    tissue_components = option("denoise", "tissue_components")
    compcor_components = option("confounds", "compcor_components")
    aroma = option("denoise", "aroma")
    high_pass = option("denoise", "high_pass")
    high_pass_s = option("denoise", "high_pass_s")
    low_pass_s = option("denoise", "low_pass_s")
    scrub = option("denoise", "scrub")
    scrub_fd_mm = option("denoise", "scrub_fd_mm")
    scrub_dvars = option("denoise", "scrub_dvars")
    scrub_pad = option("denoise", "scrub_pad")


class _DenoiseOutputs(TraitedSpec):
    denoised_bold = File(exists=True, desc="float32, 4-D, each voxel's mean kept")
    about = traits.Dict(desc="what was fitted, which volumes were scrubbed")


class Denoise(StepInterface):
    """Drifts, nuisance columns or noise components, and spoilt volumes taken out of a run."""

    input_spec = _DenoiseInputs
    output_spec = _DenoiseOutputs
    _step = "brainlm.denoise.steps:denoise"

"""The native preprocessing of one run as a Nipype workflow: an example to take and to change.

Needs nipype (`pip install 'brainlm[nipype]'`). It holds no more than the way of a run with a T1w
and without a field map; Snakemake, with `brainlm` as its commands, brings a whole cohort there.
"""

from __future__ import annotations

from .denoise.interfaces import Denoise, FindComponents
from .nodes import IdentityInterface, Node, Workflow
from .parcellate.interfaces import ParcelMeans
from .preproc.interfaces import (
    ComputeConfounds,
    CoregisterBold,
    EstimateMotion,
    NormalizeAnat,
    NormalizeBold,
    ResampleToStandard,
)

_INPUTS = ["bold", "t1w", "tr", "slice_times", "atlas_image", "atlas_table"]
_OUTPUTS = ["timeseries", "coverage", "denoised_bold", "mni_mask", "confounds", "motion"]


def native_workflow(name: str = "native", *, slice_timing: bool = False) -> Workflow:
    """From the raw `bold` and `t1w` of `inputnode` to the parcel series of `outputnode`.

    With `slice_timing`, `inputnode.slice_times` must be set. Options are set at the nodes:
    `workflow.get_node("anat").inputs.transform = "affine"`; whoever changes template or
    `registration_mm` does so at all nodes that have it. With "affine" there is no warp to connect,
    and Nipype leaves that input undefined.
    """
    given = Node(IdentityInterface(fields=_INPUTS), "inputnode")
    made = Node(IdentityInterface(fields=_OUTPUTS), "outputnode")
    motion, anat = Node(EstimateMotion(), "motion"), Node(NormalizeAnat(), "anat")
    coregister, place = Node(CoregisterBold(), "coregister"), Node(NormalizeBold(), "place")
    resample = Node(ResampleToStandard(), "resample")
    confounds, clean = Node(ComputeConfounds(), "confounds"), Node(Denoise(), "denoise")
    components, parcels = Node(FindComponents(), "components"), Node(ParcelMeans(), "parcels")

    reference = [("boldref", "boldref"), ("foreground_mask", "foreground_mask")]
    anatomy = [("t1w_to_mni", "t1w_to_mni"), ("t1w_brain", "t1w_brain")]
    normalised = [("preproc_bold", "preproc_bold"), ("mni_mask", "mni_mask")]
    of_run = [("bold", "bold"), ("tr", "tr")]
    workflow = Workflow(name)
    workflow.connect(
        [
            (given, motion, [("bold", "bold")]),
            (given, anat, [("t1w", "t1w")]),
            (motion, coregister, reference),
            (anat, coregister, anatomy),
            (motion, place, reference),
            (anat, place, anatomy),
            (coregister, place, [("boldref_to_t1w", "boldref_to_t1w")]),
            (given, resample, [*of_run, *[("slice_times", "slice_times")] * slice_timing]),
            (motion, resample, [(each, each) for each in ("hmc_xfm", "non_steady_volumes")]),
            (anat, resample, [("t1w_to_mni_warp", "warp")]),
            (place, resample, [("boldref_to_mni", "boldref_to_mni")]),
            (given, confounds, [("tr", "tr")]),
            (motion, confounds, [("motion", "motion")]),
            (resample, confounds, normalised),
            (given, components, [("tr", "tr")]),
            (resample, components, normalised),
            (confounds, components, [("confounds", "confounds")]),
            (given, clean, [("tr", "tr")]),
            (components, clean, [(each, each) for each in ("ica_mixing", "aroma_metrics")]),
            (resample, clean, normalised),
            (confounds, clean, [("confounds", "confounds")]),
            (given, parcels, [(each, each) for each in ("atlas_image", "atlas_table")]),
            (resample, parcels, [("mni_mask", "mni_mask")]),
            (clean, parcels, [("denoised_bold", "bold")]),
            (parcels, made, [(each, each) for each in ("timeseries", "coverage")]),
            (clean, made, [("denoised_bold", "denoised_bold")]),
            (resample, made, [("mni_mask", "mni_mask")]),
            (confounds, made, [("confounds", "confounds")]),
            (motion, made, [("motion", "motion")]),
        ]
    )
    return workflow

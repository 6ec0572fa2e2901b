"""Sentences of the report that depend on what was found: what is thin, what to cite."""

from __future__ import annotations

from .gather import Findings

#: Test subjects below which an evaluation shows that the pipeline works, and little else.
FEW_SUBJECTS = 30


def limits(findings: Findings) -> list[str]:
    """Which parts of the pipeline are still thin, in plain words."""
    found = []
    if is_standin(findings.atlas):
        found.append(
            "The atlas is a stand-in: each voxel of grey matter went to the nearest A424 "
            "centroid. Its parcels only resemble A424, so neither the series nor a model "
            "trained on them may be compared with results on A424."
        )
    if not is_nonlinear(findings):
        found.append(
            "Normalisation to the template is affine: cortical folds are not matched one to one, "
            "which blurs small parcels."
        )
    found += [
        "No correction of susceptibility distortion.",
        "Denoising is motion regression and a high-pass filter; there is no ICA denoising yet.",
        "Fine-tuning trains one model for each label with fixed settings; there is no search "
        "over them, and no repetition over seeds.",
    ]
    subjects = _test_subjects(findings)
    if subjects is not None and subjects < FEW_SUBJECTS:
        found.append(
            f"{subjects} test subject{'s' * (subjects != 1)}: the evaluation shows that the "
            "pipeline runs from end to end. It says next to nothing about how well such a "
            "model does in general."
        )
    return found


def is_standin(atlas: str) -> bool:
    """Whether an atlas is the offline approximation."""
    return atlas.endswith("approx")


def is_nonlinear(findings: Findings) -> bool:
    """Whether the runs were resampled through a nonlinear warp."""
    normalize = findings.provenance.parameters.get("resample", {}).get("normalize", {})
    return bool(normalize.get("transform") == "syn")


def _test_subjects(findings: Findings) -> int | None:
    if findings.cohort is None:
        return None
    test = findings.cohort["split"] == "test"
    return int(findings.cohort.loc[test, "subject"].nunique())


def citations(findings: Findings) -> list[tuple[str, str]]:
    """What to cite for what was used: (for what, reference)."""
    found = [
        (
            "The model",
            "Ortega Caro J, Fonseca AHO, et al. BrainLM: A foundation model for brain activity "
            "recordings. International Conference on Learning Representations (ICLR), 2024.",
        ),
        (
            "The A424 parcellation",
            "Nemati S, et al. A unique brain connectome fingerprint predates and predicts "
            "response to antidepressants. iScience 23:100800, 2020.",
        ),
        (
            "Framewise displacement and DVARS",
            "Power JD, et al. Spurious but systematic correlations in functional connectivity "
            "MRI networks arise from subject motion. NeuroImage 59:2142-2154, 2012.",
        ),
        (
            "Registration (ANTs)",
            "Avants BB, et al. A reproducible evaluation of ANTs similarity metric performance "
            "in brain image registration. NeuroImage 54:2033-2044, 2011.",
        ),
        (
            "The boundary of the white matter in coregistration",
            "Greve DN, Fischl B. Accurate and robust brain image alignment using boundary-based "
            "registration. NeuroImage 48:63-72, 2009.",
        ),
        (
            "The template",
            "Fonov V, et al. Unbiased average age-appropriate atlases for pediatric studies. "
            "NeuroImage 54:313-327, 2011.",
        ),
        (
            "The workflow engine",
            "Mölder F, et al. Sustainable data analysis with Snakemake. F1000Research 10:33, 2021.",
        ),
    ]
    if is_nonlinear(findings):
        found.append(
            (
                "Nonlinear registration (SyN)",
                "Avants BB, et al. Symmetric diffeomorphic image registration with "
                "cross-correlation. Medical Image Analysis 12:26-41, 2008.",
            )
        )
    denoise = findings.provenance.parameters.get("denoise", {}).get("denoise", {})
    if denoise.get("method") == "motion24":
        found.insert(
            3,
            (
                "24-parameter motion regression",
                "Friston KJ, et al. Movement-related effects in fMRI time-series. Magnetic "
                "Resonance in Medicine 35:346-355, 1996.",
            ),
        )
    return found

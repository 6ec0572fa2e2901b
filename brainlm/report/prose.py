"""Sentences of the report that depend on what was found: what is thin, what to cite."""

from __future__ import annotations

from typing import Any

from ..recordings import correction_of
from ..templates import BUNDLED, TEMPLATES, find_template
from .gather import Findings
from .methods import denoising_options, denoising_references

#: Test subjects below which an evaluation shows that the pipeline works, and little else.
FEW_SUBJECTS = 30
#: Names in one sentence; the sidecars hold all.
MOST_NAMED = 10

#: How other pipelines' names begin, in small letters and without underscores -> what to cite.
_PIPELINES = (
    (
        "fmriprep",
        "fMRIPrep",
        "Esteban O, et al. fMRIPrep: a robust preprocessing pipeline for functional MRI. Nature "
        "Methods 16:111-116, 2019.",
    ),
    (
        "xcp-d",
        "XCP-D",
        "Mehta K, et al. XCP-D: A robust pipeline for the post-processing of fMRI data. Imaging "
        "Neuroscience 2:1-26, 2024.",
    ),
    (
        "hcp",
        "The preprocessing of the Human Connectome Project",
        "Glasser MF, et al. The minimal preprocessing pipelines for the Human Connectome Project. "
        "NeuroImage 80:105-124, 2013.",
    ),
    (
        "uk biobank",
        "The preprocessing of UK Biobank",
        "Alfaro-Almagro F, et al. Image processing and quality control for the first 10,000 brain "
        "imaging datasets from UK Biobank. NeuroImage 166:400-424, 2018.",
    ),
)


def limits(findings: Findings) -> list[str]:
    """Which parts of the pipeline are still thin, in plain words."""
    found = []
    if is_standin(findings.atlas):
        found.append(
            "The atlas is a stand-in: each voxel of grey matter went to the nearest A424 "
            "centroid. Its parcels only resemble A424, so neither the series nor a model "
            "trained on them may be compared with results on A424."
        )
    if findings.atlas_space not in (None, findings.template):
        found.append(
            f"The atlas is drawn in {findings.atlas_space}, the data is in {findings.template}: "
            "the two differ by some mm at places, and so do its parcels."
        )
    if findings.doubtful:
        found.append(
            f"{len(findings.doubtful)} T1w {'image' if len(findings.doubtful) == 1 else 'images'} "
            "may be cropped, no head, or wrongly registered; look at "
            f"{', '.join(findings.doubtful[:MOST_NAMED])}"
            f"{' and others' if len(findings.doubtful) > MOST_NAMED else ''}."
        )
    if findings.unsettled:
        found.append(
            "Where the search for components did not settle, 24 motion columns were taken out "
            f"instead ({len(findings.unsettled)}): {', '.join(findings.unsettled[:MOST_NAMED])}"
            f"{' and others' if len(findings.unsettled) > MOST_NAMED else ''}."
        )
    native = not findings.provenance.adopted
    if native and not is_nonlinear(findings):
        found.append(
            "Normalisation to the template is affine: cortical folds are not matched one to one, "
            "which blurs small parcels."
        )
    distorted, runs = _left_distorted(findings)
    if native and distorted:
        found.append(
            f"Susceptibility distortion is left as it is in {distorted} of {runs} runs: near the "
            "sinuses and the ears their parcels see tissue from some millimetres away."
        )
    cleaned = "denoising" in findings.provenance.processed_by
    if not cleaned and denoising_options(findings).get("method") not in ("aroma", "fix"):
        found.append("Denoising is by regression, without independent components (ICA-AROMA).")
    found += [
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
    resampled = _resampled(findings)
    return any(found.get("normalize", {}).get("transform") == "syn" for found in resampled)


def _resampled(findings: Findings) -> list[dict[str, Any]]:
    """The options with which runs were resampled, whichever stage did it."""
    stages = findings.provenance.parameters
    return [stages[name] for name in ("resample", "resample-to-parcels") if name in stages]


def _template_citations(name: str) -> list[tuple[str, str]]:
    """A fetched template borrows its tissue maps from the bundled one; fsLR is no template."""
    if name not in TEMPLATES:
        return []
    found = [(f"The template, {name}", find_template(name).citation)]
    if name != BUNDLED:
        found.append(
            (f"Its tissue maps, carried over from {BUNDLED}", find_template(BUNDLED).citation)
        )
    return found


def corrected_runs(findings: Findings) -> tuple[int, int]:
    """How many eligible runs were corrected for distortion, and of how many."""
    left, total = _left_distorted(findings)
    return total - left, total


def _left_distorted(findings: Findings) -> tuple[int, int]:
    """How many eligible runs are not corrected for distortion, and of how many."""
    method = "off"
    for found in _resampled(findings):
        method = found.get("distortion", {}).get("method", method)
    runs = findings.recordings[findings.recordings["eligible"].fillna(False)]
    about = runs[["fmap_kind", "pe_direction", "t1w"]].astype(object)
    rows = about.where(about.notna(), None).to_dict("records")
    corrected = [correction_of(method, **{str(k): v for k, v in row.items()}) for row in rows]
    return corrected.count(None), len(corrected)


def _test_subjects(findings: Findings) -> int | None:
    if findings.cohort is None:
        return None
    test = findings.cohort["split"] == "test"
    return int(findings.cohort.loc[test, "subject"].nunique())


def _preprocessing_citations(findings: Findings) -> list[tuple[str, str]]:
    """Of the tools that brought the runs to the template: ours, or those of other pipelines."""
    if findings.provenance.adopted:
        names = {name for found in findings.provenance.processed_by.values() for name in found}
        return [
            (what, reference)
            for start, what, reference in _PIPELINES
            if any(name.lower().replace("_", "-").startswith(start) for name in names)
        ]
    found = [
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
    ]
    if is_nonlinear(findings):
        found.append(
            (
                "Nonlinear registration (SyN)",
                "Avants BB, et al. Symmetric diffeomorphic image registration with "
                "cross-correlation. Medical Image Analysis 12:26-41, 2008.",
            )
        )
    return found


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
        *_preprocessing_citations(findings),
        *_template_citations(findings.template),
        (
            "The workflow engine",
            "Mölder F, et al. Sustainable data analysis with Snakemake. F1000Research 10:33, 2021.",
        ),
    ]
    return [*found[:3], *denoising_references(findings), *found[3:]]

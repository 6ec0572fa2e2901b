"""What was done to the recordings, in sentences that can go into a paper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config.cleaning import chosen_components, chosen_means
from .gather import Findings
from .reproducibility.wording import listed

#: Stages that denoise -> their name in sidecars.
_DENOISING = ("denoise", "resample-to-parcels", "adopt-to-parcels")
#: And those that judge components.
_SEEKING = ("ica", "resample-to-parcels", "adopt-to-parcels")

_REGRESSORS = {
    "motion6": "the six head-motion parameters",
    "motion24": "the six head-motion parameters, their backward differences and the squares of "
    "both (24 columns)",
    "36p": "the six head-motion parameters and the mean signals of the brain, CSF and white "
    "matter, their backward differences and the squares of both (36 columns)",
    "acompcor": "the six head-motion parameters, their backward differences and the squares of "
    "both (24 columns), and the leading five principal components each of CSF and of white "
    "matter (aCompCor)",
    "acompcor50": "the six head-motion parameters, their backward differences and the squares of "
    "both (24 columns), and as many principal components of CSF and of white matter as explain "
    "half of the variance of each (aCompCor50)",
}

_MEANS = {"global_signal": "the brain", "csf": "CSF", "white_matter": "white matter"}

_AROMA = {
    "nonaggressive": "Of a joint fit of all components, what the noise components explained was "
    "subtracted (non-aggressive regression).",
    "aggressive": "The courses of the noise components were regressed out together with the "
    "filter (aggressive regression).",
    "orthogonal": "The courses of the noise components, made orthogonal to those of the others, "
    "were regressed out together with the filter.",
}

_REFERENCES: dict[str, tuple[str, str]] = {
    "motion24": (
        "24-parameter motion regression",
        "Friston KJ, et al. Movement-related effects in fMRI time-series. Magnetic "
        "Resonance in Medicine 35:346-355, 1996.",
    ),
    "36p": (
        "36-parameter regression",
        "Satterthwaite TD, et al. An improved framework for confound regression and filtering "
        "for control of motion artifact in the preprocessing of resting-state functional "
        "connectivity data. NeuroImage 64:240-256, 2013.",
    ),
    "acompcor": (
        "aCompCor",
        "Behzadi Y, et al. A component based noise correction method (CompCor) for BOLD and "
        "perfusion based fMRI. NeuroImage 37:90-101, 2007.",
    ),
    "acompcor50": (
        "aCompCor50",
        "Muschelli J, et al. Reduction of motion-related artifacts in resting state fMRI using "
        "aCompCor. NeuroImage 96:22-35, 2014.",
    ),
    "fix": (
        "FIX",
        "Salimi-Khorshidi G, et al. Automatic denoising of functional MRI data: combining "
        "independent component analysis and hierarchical fusion of classifiers. NeuroImage "
        "90:449-468, 2014.",
    ),
    "aroma": (
        "ICA-AROMA",
        "Pruim RHR, et al. ICA-AROMA: a robust ICA-based strategy for removing motion artifacts "
        "from fMRI data. NeuroImage 112:267-277, 2015.",
    ),
    "filter": (
        "Filters and regression in one step",
        "Lindquist MA, et al. Modular preprocessing pipelines can reintroduce artifacts into "
        "fMRI data. Human Brain Mapping 40:2358-2376, 2019.",
    ),
    "scrub": (
        "Scrubbing",
        "Power JD, et al. Methods to detect, characterize, and remove motion artifact in "
        "resting state fMRI. NeuroImage 84:320-341, 2014.",
    ),
}


def denoising_options(findings: Findings) -> Mapping[str, Any]:
    """The `denoise` options of the recordings that are done; empty before the first is."""
    for stage in _DENOISING:
        if found := findings.provenance.parameters.get(stage, {}).get("denoise"):
            return dict(found)
    return {}


def methods(findings: Findings, *, others: bool = True) -> list[str]:
    """Sentences about what others had done, and about denoising; none before it has been done.

    Without those about others, where `others` is false.
    """
    options = denoising_options(findings)
    done_before = _done_by_others(findings) if others else []
    if not options:
        return done_before
    done = findings.provenance.parameters
    seeking = (done[stage]["ica"] for stage in _SEEKING if "ica" in done.get(stage, {}))
    ica: Mapping[str, Any] = next(seeking, {})
    by = findings.provenance.processed_by
    sentences = [
        _components(options, ica, by.get("components", [])),
        _fit(options),
        _scrubbing(options),
    ]
    return [*done_before, *(sentence for sentence in sentences if sentence)]


def _done_by_others(findings: Findings) -> list[str]:
    """Which steps had been done before the data came to us, and by whom."""
    steps_of: dict[str, list[str]] = {}
    for step, pipelines in findings.provenance.processed_by.items():
        steps_of.setdefault(" or ".join(pipelines), []).append(step)
    if not steps_of:
        return []
    told = [f"{listed(steps)} by {who}" for who, steps in sorted(steps_of.items())]
    return [f"Not done by this workflow, but before: {'; '.join(told)}."]


def denoising_references(findings: Findings) -> list[tuple[str, str]]:
    """What to cite for the denoising that was done: (for what, reference)."""
    return [_REFERENCES[key] for key in denoising_keys(findings) if key in _REFERENCES]


def denoising_keys(findings: Findings) -> list[str]:
    """Short names of what was done to denoise and has a publication of its own."""
    options = denoising_options(findings)
    keys = [options.get("method", "")]
    cleaners = findings.provenance.processed_by.get("denoising", [])
    if keys == ["fix"] and cleaners and not any("FIX" in name for name in cleaners):
        keys = []  # other pipelines clean otherwise
    filtered = options.get("high_pass_s") or options.get("low_pass_s")
    if filtered and options.get("method") != "fix":
        keys.append("filter")
    if options and chosen_components(options):
        keys.append("acompcor")
    if options.get("scrub", "off") != "off":
        keys.append("scrub")
    return list(dict.fromkeys(keys))


def _components(options: Mapping[str, Any], ica: Mapping[str, Any], theirs: list[str]) -> str:
    """How components were found and judged; `theirs` are the pipelines some were taken from."""
    if options.get("method") != "aroma":
        return ""
    judge = "the features and thresholds of ICA-AROMA"
    if ica.get("rule"):
        judge = f"a rule of the study's own on the features of ICA-AROMA ({ica['rule']})"
    if ica.get("classifier"):
        judge = f"a program of the study's own ({' '.join(ica['classifier'])})"
    found = f"Each run was decomposed by spatial ICA, and its components were classified by {judge}"
    if theirs:
        own = bool(ica.get("rule") or ica.get("classifier"))
        found = (
            f"Independent components were taken from {' or '.join(theirs)} where it had left them"
            f"{', without' if own else ', with'} its verdict. Other runs were decomposed by "
            f"spatial ICA, and {'all' if own else 'their'} components were classified by {judge}"
        )
    return (
        f"{found} or, where a table in review/ says otherwise, by eye. {_AROMA[options['aroma']]}"
    )


def _fit(options: Mapping[str, Any]) -> str:
    if options.get("method") == "fix":
        return (
            "The series had been cleaned before: they were checked and passed on without any "
            "filter or regression."
        )
    slow, fast = options.get("high_pass_s", 0), options.get("low_pass_s", 0)
    gaussian = options.get("high_pass") == "gaussian" and slow
    terms = []
    if options.get("method") in _REGRESSORS:
        terms.append(_REGRESSORS[options["method"]])
    if means := chosen_means(options):
        terms.append(f"the mean signal of {' and of '.join(_MEANS[name] for name in means)}")
    if count := chosen_components(options):
        terms.append(f"the leading {count} principal components each of CSF and of white matter")
    if slow and not gaussian:
        terms.append(f"discrete cosines with periods of {slow:g} s or more")
    if fast:
        terms.append(f"discrete cosines with periods below {fast:g} s")
    begin = ""
    if gaussian:
        also = " and from the nuisance regressors" if options["method"] in _REGRESSORS else ""
        begin = (
            f"A running straight line, fitted with Gaussian weights (sigma {slow / 2:g} s), was "
            f"subtracted from each voxel's series{also}. "
        )
    if not terms:
        return begin.strip() or "No filter and no nuisance regression was applied."
    removed = listed(terms)
    return (
        f"{begin}From each voxel's series {removed} were removed in one least-squares fit; the "
        "voxel's mean was kept. Volumes before the steady state had no part in it."
    )


def _scrubbing(options: Mapping[str, Any]) -> str:
    how = {
        "mark": "were marked, and left as they are",
        "censor": "had no part in the fit and were left out of the series",
        "interpolate": "had no part in the fit and were replaced by a cubic spline in time "
        "through the cleaned others",
    }.get(options.get("scrub", "off"))
    if how is None:
        return ""
    rule = f"framewise displacement above {options['scrub_fd_mm']:g} mm"
    if options.get("scrub_dvars"):
        rule += f" or standardised DVARS above {options['scrub_dvars']:g}"
    before, after = options.get("scrub_pad", (0, 0))
    around = f", with {before} before and {after} after each," if before or after else ""
    return f"Volumes with {rule}{around} {how}."

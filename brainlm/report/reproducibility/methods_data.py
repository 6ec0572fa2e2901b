"""What was done to the recordings, up to the cohort, in paragraphs for a paper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ...wording import Tell, counted
from ..gather import Findings
from ..methods import denoising_keys, methods
from ..prose import corrected_runs, is_standin
from .groups import common
from .public_names import public_pipeline
from .wording import listed, number, span

#: denoising_keys -> what a text cites for them.
_CITED = {
    "motion24": "friston1996",
    "36p": "satterthwaite2013",
    "acompcor": "behzadi2007",
    "acompcor50": "muschelli2014",
    "fix": "salimikhorshidi2014",
    "aroma": "pruim2015",
    "filter": "lindquist2019",
    "scrub": "power2014",
}
#: How other pipelines' names begin, in small letters and without underscores -> what to cite.
_PIPELINES = {
    "fmriprep": "esteban2019",
    "xcp-d": "mehta2024",
    "hcp": "glasser2013",
    "uk biobank": "alfaroalmagro2018",
}
_SEEKING = ("ica", "resample-to-parcels", "adopt-to-parcels")
_SERIES = {
    "mean": "the mean over its usable voxels",
    "median": "the median over its usable voxels",
    "eigenvariate": "the first principal component of its usable voxels, at their mean level",
    "weighted": "the mean over its usable voxels, weighted by the template's share of grey matter",
}


def options(findings: Findings, section: str, *stages: str) -> Mapping[str, Any]:
    """A section of the config, as the first of these stages that ran recorded it; else nothing."""
    for stage in stages:
        if found := findings.provenance.parameters.get(stage, {}).get(section):
            return dict(found)
    return {}


def data(findings: Findings, tell: Tell, k: int) -> str:
    """Who was recorded, and how."""
    table = findings.recordings
    eligible = table[table["eligible"].fillna(False).astype(bool)]
    text = (
        f"The dataset comprised {counted(len(table), 'BOLD run', tell)} of "
        f"{counted(table['subject'].nunique(), 'participant', tell)}"
    )
    limits = options(findings, "eligibility", "cohort")
    if limits:
        which = "all" if len(eligible) == len(table) else tell(len(eligible))
        text += (
            f", {which} of which had at least {limits['min_volumes']} "
            f"volumes, a repetition time between {number(limits['tr_min'])} and "
            f"{number(limits['tr_max'])} s and readable data"
        )
    if eligible.empty:
        return f"{text}."
    tr, volumes = eligible["tr"].dropna().astype(float), eligible["n_volumes"].dropna().astype(int)
    people = eligible["subject"]
    times, lengths = span(tr, people, k), span(volumes, people, k)
    text += (
        f". These runs had {f'a repetition time of {times} s' if times else 'several TRs'} and "
        f"{f'{lengths} volumes' if lengths else 'several lengths'}"
    )
    if with_t1w := int(eligible["t1w"].notna().sum()):
        every = with_t1w == len(eligible)
        text += (
            "; a T1-weighted image was available for each"
            if every
            else f"; for {tell(with_t1w)} a T1-weighted image was available"
        )
    if any(len(common(values, people, k)) < len(values) for values in (tr, volumes)):
        text += f". Values that fewer than {k} participants had are left out here"
    return f"{text}."


def done_before(findings: Findings, *, whole: bool = True) -> str:
    """What other pipelines had done; not `whole`: those that not everybody knows have no name."""
    steps_of: dict[str, set[str]] = {}
    for step, pipelines in findings.provenance.processed_by.items():
        for name in pipelines:
            steps_of.setdefault(name if whole else public_pipeline(name), set()).add(step)
    sentences = []
    for name, steps in sorted(steps_of.items()):
        plain = name.lower().replace("_", "-")
        cited = [key for start, key in _PIPELINES.items() if plain.startswith(start)]
        source = f"{name} [@{cited[0]}]" if cited else name
        sentences.append(
            f"The data had been processed before by {source}, from which the following was "
            f"taken over: {listed(sorted(steps))}."
        )
    return " ".join(sentences)


def motion(findings: Findings) -> str:
    """Head motion."""
    if not (found := options(findings, "motion", "motion")):
        return ""
    return (
        "Head motion was estimated by rigid registration of each volume to a reference made of "
        "the run's best-agreeing volumes (inverse-compositional Gauss-Newton, at most "
        f"{found['iterations']} iterations at each of two levels of smoothness, until no voxel of "
        f"the brain moved by more than {number(found['tolerance_mm'])} mm). Framewise displacement "
        "(FD) is the sum of the absolute changes of the six parameters, with rotations turned into "
        f"millimetres on a sphere of radius {number(found['fd_radius_mm'])} mm [@power2012]."
    )


def registration(findings: Findings, tell: Tell) -> str:
    """Distortion, and the way to the template."""
    stages = ("resample", "resample-to-parcels")
    found = options(findings, "normalize", "normalize-anat", "normalize-bold", *stages)
    done = findings.provenance.parameters
    sentences = []
    if "fieldmap" in done:
        fixed, total = corrected_runs(findings)
        runs = f"{tell(fixed)} of {counted(total, 'run', tell)}"
        sentences.append(
            f"Susceptibility distortion was corrected in {runs}, by a field estimated from field "
            "maps"
            + (
                " or, where there was none, by a warp to the T1-weighted image along the "
                "phase-encoding axis."
                if done["fieldmap"]["distortion"]["method"] == "syn"
                else "."
            )
        )
    if "normalize-anat" in done:
        how = "an affine transformation found by mutual information"
        if found["transform"] == "syn":
            how += ", followed by a nonlinear symmetric diffeomorphic one (SyN) [@avants2008]"
        sentences.append(
            "T1-weighted images were corrected for intensity bias and registered to the template "
            f"{findings.template} with ANTs [@avants2011], by {how}."
        )
    if "coregister-bold" in done:
        sentences.append(
            "Each run's reference volume was registered rigidly to its T1-weighted image by mutual "
            "information; a refinement at the boundary of the white matter [@greve2009] was kept "
            "where it held on either hemisphere when fitted to the other."
        )
    if sampled := options(findings, "resample", *stages):
        grid = options(findings, "space", *stages)["resolution_mm"]
        sentences.append(
            "All transformations of a volume were composed, and the data interpolated once, by "
            f"B-splines of order {sampled['order']}, on a grid of {number(grid)} mm in "
            f"{findings.template}."
        )
        timed = int(findings.recordings["slice_timing"].notna().sum())
        if sampled["slice_timing"] == "auto" and timed:
            sentences.append(
                f"Where slice times were known ({counted(timed, 'run', tell)}), slices were "
                "brought to one moment of the volume "
                f"(at {number(sampled['slice_reference'])} of the span from the first slice to the "
                "last)."
            )
    return " ".join(sentences)


def denoising(findings: Findings, *, whole: bool = True) -> str:
    """Components, filters, regression, scrubbing; not `whole`: without names of the user's own."""
    text = methods(findings, others=False)
    program = " ".join(options(findings, "ica", *_SEEKING).get("classifier", ()))
    if not whole:
        if program:
            text = [sentence.replace(f" ({program})", "") for sentence in text]
        for name in findings.provenance.processed_by.get("components", ()):
            text = [sentence.replace(name, public_pipeline(name)) for sentence in text]
    if not text:
        return ""
    keys = [key for key in denoising_keys(findings) if key in _CITED]
    return " ".join(_cite(sentence, keys) for sentence in text)


def _cite(text: str, keys: list[str]) -> str:
    """The text with what is to be cited for it at the end of its first sentence."""
    if text.startswith("Volumes with"):
        own = {"scrub"}
    elif " ICA" in text or "Independent components" in text:
        own = {"aroma"}
    else:
        own = set(keys) - {"scrub", "aroma"}
    if not (cited := [f"@{_CITED[key]}" for key in keys if key in own]):
        return text
    first, stop, rest = text.partition(". ")
    return f"{first.removesuffix('.')} [{'; '.join(cited)}].{' ' if stop else ''}{rest}"


def parcellation(findings: Findings) -> str:
    """From voxels to parcels."""
    stages = ("parcellate", "resample-to-parcels", "adopt-to-parcels", "adopt-parcels")
    found = options(findings, "parcellate", *stages)
    if not found:
        return ""
    count = None if findings.scaler is None else len(findings.scaler["median"])
    name = (
        f"the {count} parcels of {findings.atlas}" if count else f"the parcels of {findings.atlas}"
    )
    cited = " [@nemati2020]" if findings.atlas.startswith("A424") else ""
    if is_standin(findings.atlas):
        cited = f", an approximation to A424{cited},"
    if findings.recordings["kind"].isin(["parcels"]).any():
        return f"The series of {name}{cited} were read as they had been provided."
    return (
        f"The series of each of {name}{cited} was {_SERIES[found['estimator']]}. Parcels with "
        f"usable data in less than {found['min_coverage']:.0%} of their voxels were treated as "
        "missing."
    )


def cohort(findings: Findings, tell: Tell, k: int) -> str:
    """Who was kept, and who trains."""
    table = findings.cohort
    quality = options(findings, "quality", "cohort")
    if table is None or not quality:
        return ""
    excluded = int((findings.outcomes["status"] == "excluded").sum())
    text = (
        f"Runs with a mean FD above {number(quality['max_mean_fd_mm'])} mm, or with data in less "
        f"than {quality['min_parcels']:.0%} of the parcels, were excluded (n = {tell(excluded)}); "
        f"{_runs_of_people(table, tell)} remained"
    )
    known = table.dropna(subset=["mean_fd"])
    if known["subject"].nunique() >= k:
        fd = known["mean_fd"].astype(float)
        text += f" (mean FD {fd.mean():.2f} mm"
        # The ends of a range are people.
        text += f", range {fd.min():.2f} to {fd.max():.2f} mm)" if k == 1 else ")"
    return f"{text}. {_splits(findings, table, tell)}"


def _runs_of_people(table: pd.DataFrame, tell: Tell) -> str:
    people = table["subject"].nunique()
    return f"{counted(len(table), 'run', tell)} of {counted(people, 'participant', tell)}"


def _splits(findings: Findings, table: pd.DataFrame, tell: Tell) -> str:
    split = options(findings, "split", "cohort")
    parts = [
        f"{told} ({_runs_of_people(own, tell)})"
        for name, told in (("train", "training"), ("val", "validation"), ("test", "test"))
        if len(own := table[table["split"] == name])
    ]
    if split["table"]:
        how = "by a table fixed beforehand"
    elif split["stratify"]:
        how = f"at random, stratified by {listed(split['stratify'])}"
    else:
        how = "by a salted hash of their identifiers"
    together = " and all members of a family" if split["family"] else ""
    return (
        f"Participants were assigned to {listed(parts)} {how}; all runs of a participant{together} "
        "were kept in the same split."
    )


def scaling(findings: Findings, about: Mapping[str, Any], tell: Tell) -> str:
    """One scale for all; `about` is the scaler's sidecar."""
    found = options(findings, "scale", "scale")
    if not found:
        return ""
    sentences = []
    timing = options(findings, "timing", "scale")
    if timing.get("tr"):
        sentences.append(
            f"Series with another repetition time were resampled to {number(timing['tr'])} s."
        )
    centred = "centred on the run's own mean and " if found["remove_mean"] else ""
    if found["fitted"]:
        return " ".join([*sentences, "Parcels were scaled by statistics fitted on another cohort."])
    if found["method"] == "robust":
        how = "by the median and the interquartile range of that parcel"
    else:
        how = f"by statistics of the method {found['method']}"
    where = ""
    if "n_recordings" in about:
        runs, people = int(about["n_recordings"]), int(about["n_subjects"])
        where = f" ({counted(runs, 'run', tell)} of {counted(people, 'participant', tell)})"
    sentences.append(
        f"Each parcel's series was {centred}scaled {how}, estimated on the training split "
        f"alone{where}."
    )
    return " ".join(sentences)

"""Runs that fMRIPrep (20 to 25) has preprocessed, or fMRIPost-AROMA has denoised.

Both write BIDS derivatives. fMRIPrep's series are not denoised; its confounds go with them.
fMRIPrep up to 23.0 ran ICA-AROMA where asked (`desc-MELODIC_mixing`, `AROMAnoiseICs`); since then
fMRIPost-AROMA does (`desc-melodic_mixing`, `desc-aroma_metrics`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from .choice import Wanted, choose_series
from .names import Derived, files_by_run, generated_by
from .run import ReadyRun

_IMAGES = (".nii.gz", ".nii")
#: fMRIPost-AROMA's denoised series; the non-aggressive one is what ICA-AROMA recommends.
_DENOISED = "nonaggrDenoised"
_CONFOUNDS = ("timeseries", "regressors")  # since 20.2, and before


def find_runs(
    root: Path, wanted: Wanted, *, aroma: Path | None = None, subject: str = "sub-*"
) -> list[ReadyRun]:
    """Every run of an fMRIPrep (or fMRIPost-AROMA) dataset.

    `aroma` is a dataset of fMRIPost-AROMA whose components belong to these runs; paths of its
    files are then absolute. `subject` narrows the search: sub-01.
    """
    components = files_by_run(aroma, subject) if aroma else {}
    name, version = generated_by(root)
    pipeline = f"{name or 'fMRIPrep'} {version}".strip()
    runs = []
    for recording_id, files in files_by_run(root, subject).items():
        theirs = _components(components.get(recording_id, []), aroma)
        run = _run(recording_id, files, root, wanted, pipeline)
        if run is None:
            continue
        if theirs:
            about = " ".join(generated_by(aroma)) if aroma else ""
            by = {**run.by, "components": about or "fMRIPost-AROMA"}
            run = replace(run, files={**run.files, **theirs}, by=by)
        runs.append(run)
    return runs


def _run(
    recording_id: str, files: list[Derived], root: Path, wanted: Wanted, pipeline: str
) -> ReadyRun | None:
    """One run; None where the files are of another kind (one echo, surfaces alone)."""
    series = [f for f in files if f.has("bold", *_IMAGES) and "space" in f.further]
    preprocessed = [f for f in series if f.further.get("desc") == "preproc"]
    denoised = [f for f in series if f.further.get("desc") == _DENOISED]
    in_mni = [f for f in preprocessed or denoised if f.further["space"] != "T1w"]
    confounds = [
        f.path for f in files for s in _CONFOUNDS if f.has(s, ".tsv", desc="confounds", space=None)
    ]
    if "echo-" in recording_id or not (series or confounds):
        return None
    chosen, faults, notes = choose_series(in_mni, root, wanted)
    found = {**_components(files, None)}
    if chosen is not None:
        found["series"] = chosen.path
        masks = _beside(chosen, files)
        found |= {"mask": masks[0].path} if masks else {}
        if not masks and preprocessed:
            faults.append(f"no brain mask (desc-brain_mask) beside {chosen.path}")
        elif not masks:  # fMRIPost-AROMA leaves it with the series that it was given
            notes.append("no brain mask: voxels count that vary within the template's brain")
    if len(confounds) > 1:
        faults.append(f"two candidate files for one run: {' and '.join(confounds)}")
    elif confounds:
        found["confounds"] = confounds[0]
    elif preprocessed:
        faults.append("no table of confounds (desc-confounds_timeseries.tsv)")
    by = dict.fromkeys(("motion", "normalisation", "resampling"), pipeline)
    if confounds:
        by["confounds"] = pipeline
    cleaned = bool(denoised) and not preprocessed
    if cleaned:
        by["denoising"] = pipeline
    if "mixing" in found:
        by["components"] = pipeline
    return ReadyRun(
        recording_id,
        layout="fmriprep",
        kind="volume",
        files=found,
        by=by,
        space=None if chosen is None else chosen.further["space"],
        cleaned=cleaned,
        faults=tuple(faults),
        notes=tuple(notes),
    )


def _beside(chosen: Derived, files: list[Derived]) -> list[Derived]:
    """The brain masks on the grid of the chosen series: of the same space and resolution."""
    same = {key: chosen.further.get(key) for key in ("space", "res", "cohort")}
    return [f for f in files if f.has("mask", *_IMAGES, desc="brain", **same)]


def _components(files: list[Derived], root: Path | None) -> dict[str, str]:
    """Courses of independent components and which of them are noise, where both are there."""

    def first(*kinds: tuple[str, str | None, str]) -> str | None:
        for suffix, desc, extension in kinds:
            for file in files:
                if file.has(suffix, extension, desc=desc):
                    return file.path if root is None else str(root.resolve() / file.path)
        return None

    mixing = first(("mixing", "melodic", ".tsv"), ("mixing", "MELODIC", ".tsv"))
    judged = first(("metrics", "aroma", ".tsv"), ("AROMAnoiseICs", None, ".csv"))
    return {"mixing": mixing, "components": judged} if mixing and judged else {}

"""Runs that XCP-D has denoised, and where wanted parcellated.

XCP-D leaves censored volumes out of its series (mode linc) or fills them (abcd, hbcd);
`_outliers.tsv` and `_motion.tsv` have a row for every volume all the same. With `--combine-runs` it
also writes all runs of a task in one chain, under their name without `run` and `dir`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from .choice import Wanted, choose_series
from .names import Derived, files_by_run, generated_by
from .run import Kind, ReadyRun

_IMAGES = (".nii.gz", ".nii")
_DENSE = ".dtseries.nii"
#: Beginnings of entities that the name of a chain of runs does not have.
_LEFT_OUT = ("run-", "dir-")


def find_runs(root: Path, wanted: Wanted, kind: Kind, atlas: str) -> list[ReadyRun]:
    """Every run of an XCP-D dataset, as volumes, dense series or parcels of the `atlas`."""
    name, version = generated_by(root)
    pipeline = f"{name or 'XCP-D'} {version}".strip()
    runs = []
    for recording_id, files in files_by_run(root).items():
        found: dict[str, str] = {}
        faults: list[str] = []
        notes: list[str] = []
        space = None
        if kind == "volume":
            volumes = [f for f in _denoised(files, *_IMAGES) if "space" in f.further]
            chosen, faults, notes = choose_series(volumes, root, wanted)
            if chosen is not None:
                found["series"], space = chosen.path, chosen.further["space"]
            if not volumes:
                continue
        else:
            series = _denoised(files, _DENSE) if kind == "dense" else _parcels(files, atlas)
            if len(series) > 1:
                names = " and ".join(f.path for f in series)
                faults = [f"two candidate files for one run: {names}"]
            elif series:
                found["series"] = series[0].path
                found |= _coverage(series[0], files)
            else:
                continue
        found |= _motion(files)
        if "_desc-filtered_" in found.get("motion", ""):
            notes.append("motion parameters are filtered: the head's true FD is larger")
        by = dict.fromkeys(("denoising", "censoring"), pipeline)
        by |= {"parcellation": pipeline} if kind == "parcels" else {}
        by |= dict.fromkeys(("motion", "normalisation"), "the preprocessing that XCP-D was given")
        runs.append(
            ReadyRun(
                recording_id,
                layout="xcpd",
                kind=kind,
                files=found,
                by=by,
                space=space,
                cleaned=True,
                faults=tuple(faults),
                notes=tuple(notes),
            )
        )
    return _without_chains(runs)


def _without_chains(runs: list[ReadyRun]) -> list[ReadyRun]:
    """The runs; one that is the others in a chain has that fault: its volumes would count twice."""
    chains: dict[str, list[str]] = {}
    for run in runs:
        parts = run.recording_id.split("_")
        chain = "_".join(part for part in parts if not part.startswith(_LEFT_OUT))
        if chain != run.recording_id:
            chains.setdefault(chain, []).append(run.recording_id)
    return [
        replace(run, faults=(*run.faults, f"a chain of {' and '.join(chains[run.recording_id])}"))
        if run.recording_id in chains
        else run
        for run in runs
    ]


def _denoised(files: list[Derived], *extensions: str) -> list[Derived]:
    return [f for f in files if f.has("bold", *extensions, desc="denoised")]


def _parcels(files: list[Derived], atlas: str) -> list[Derived]:
    """Tables of mean series in the atlas; its entity is `atlas` or, in some versions, `seg`.

    Those of CIFTI are taken only where there are none of volumes.
    """
    tables = [
        f
        for f in files
        if f.has("timeseries", ".tsv", stat="mean")
        and atlas in (f.further.get("atlas"), f.further.get("seg"))
    ]
    return [f for f in tables if f.further.get("space") != "fsLR"] or tables


def _coverage(series: Derived, files: list[Derived]) -> dict[str, str]:
    """The table of coverage that belongs to a table of series."""
    same = {**series.further, "stat": "coverage"}
    found = [f.path for f in files if f.has("bold", ".tsv") and f.further == same]
    return {"coverage": found[0]} if found else {}


def _motion(files: list[Derived]) -> dict[str, str]:
    """Motion parameters as they were estimated, else filtered; and which volumes were censored."""
    tables = [f for f in files if f.has("motion", ".tsv")]
    motion = [f.path for f in sorted(tables, key=lambda f: f.further.get("desc") == "filtered")]
    outliers = [f.path for f in files if f.has("outliers", ".tsv")]
    found = {"motion": motion[0]} if motion else {}
    return found | ({"outliers": outliers[0]} if outliers else {})

"""Reading a study for its report: what is there, what is not yet, what is damaged.

Everything is optional but the recordings table: a report can be made at any time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from ..files import read_json
from ..layout import Study
from ..provenance import is_tombstone, sha256_file, sidecar_path
from ..recordings import read_table
from .ledger import LASTING, lasting_path, read_exclusions, read_failures, read_included
from .outcome import outcomes

Result = TypeVar("Result")

#: Sidecars of at most so many recordings are read for code digests and software versions.
_SIDECARS = 200


@dataclass(frozen=True)
class Progress:
    """How far a stage has come: files that are whole, given up, not there yet."""

    whole: int
    given_up: int
    missing: int


@dataclass(frozen=True)
class Provenance:
    """What the sidecars say, and hashes of the files that decide the results."""

    code: dict[str, list[str]]  # stage -> code digests
    parameters: dict[str, dict[str, Any]]  # stage -> options
    software: dict[str, list[str]]  # package -> versions
    hashes: list[tuple[str, str, str]]  # (what, path, SHA-256)
    #: step -> other pipelines that did it, of runs that were adopted
    processed_by: dict[str, list[str]] = field(default_factory=dict)

    @property
    def adopted(self) -> bool:
        """Whether another pipeline preprocessed the runs."""
        return any(stage.startswith("adopt") for stage in self.parameters)


@dataclass(frozen=True)
class Clinical:
    """The evaluation of one label."""

    metrics: dict[str, Any] | None
    predictions: pd.DataFrame | None


@dataclass(frozen=True)
class Findings:
    """All that the report tells, as read; None stands for what has not been made yet."""

    name: str
    atlas: str
    atlas_space: str | None  # in which it is drawn; None: in the study's own, or not made yet
    template: str
    run: str
    recordings: pd.DataFrame
    outcomes: pd.DataFrame
    failures: dict[str, dict[str, Any]]  # the live failures ledger
    progress: dict[str, Progress]
    qc: dict[str, dict[str, Any]]  # recording_id -> numbers of its QC figure
    cohort: pd.DataFrame | None
    shards: pd.DataFrame | None
    scaler: dict[str, NDArray] | None
    model: dict[str, Any] | None
    parameters: int | None  # numbers in the model's weights
    log: list[dict[str, Any]] | None
    reconstruction: dict[str, Any] | None
    traces: pd.DataFrame | None
    clinical: dict[str, Clinical]
    forecast: dict[str, Any] | None
    evaluation: dict[str, Any] | None  # what is noted beside the evaluation's page
    phantom: dict[str, Any] | None
    doubtful: list[str]  # T1w images (anat_id) that may not lie where the template does
    unsettled: list[str]  # recordings whose ICA did not settle, denoised otherwise
    provenance: Provenance
    damaged: list[str] = field(default_factory=list)


class _Reader:
    """Reads optional files; notes which ones it read and which ones are damaged."""

    def __init__(self, study: Study, fields: Mapping[str, str]):
        self.study = study
        self.fields = fields
        self.damaged: list[str] = []

    def path(self, kind: str, **fields: str) -> Path:
        return self.study.path(kind, **{**self.fields, **fields})

    def read(self, path: Path, how: Callable[[Path], Result]) -> Result | None:
        """What `how` makes of the file; None if it is absent, given up or damaged."""
        if not path.exists() or is_tombstone(path):
            return None
        try:
            return how(path)
        except (ValueError, KeyError, OSError, SafetensorError) as error:
            note = f"{self.study.relative(path)}: {error}".split("\n")[0]
            self.damaged += [note] * (note not in self.damaged)
            return None


def gather(study: Study, fields: Mapping[str, str], targets: Sequence[str], name: str) -> Findings:
    """Read the study; `fields` are the labels of file names (space, res, atlas, run)."""
    reader = _Reader(study, fields)
    recordings = read_table(study.path("recordings"))
    failures = read_failures(study, fields)
    atlas_record = sidecar_path(reader.path("atlas_table"))
    clinical = {
        target: Clinical(
            reader.read(reader.path("clinical", target=target), _json_object),
            reader.read(reader.path("clinical_predictions", target=target), pd.read_parquet),
        )
        for target in targets
    }
    return Findings(
        name=name,
        atlas=fields["atlas"],
        atlas_space=(reader.read(atlas_record, _json_object) or {}).get("DrawnInSpace"),
        template=fields["space"],
        run=fields["run"],
        recordings=recordings,
        outcomes=outcomes(recordings, failures, read_included(study), read_exclusions(study)),
        failures=failures,
        progress=_progress(study, fields, recordings),
        qc=_qc_numbers(reader, recordings),
        cohort=reader.read(reader.path("cohort"), pd.read_parquet),
        shards=reader.read(reader.path("shards_index"), pd.read_parquet),
        scaler=reader.read(reader.path("scaler"), _tensors),
        model=reader.read(reader.path("model").parent / "config.json", _json_object),
        parameters=reader.read(reader.path("model"), _count_numbers),
        log=reader.read(reader.path("model_log"), _json_lines),
        reconstruction=reader.read(reader.path("reconstruction"), _json_object),
        traces=reader.read(reader.path("reconstruction_traces"), pd.read_parquet),
        forecast=reader.read(reader.path("forecast"), _json_object),
        evaluation=reader.read(sidecar_path(reader.path("evaluation_page")), _json_object),
        clinical=clinical,
        phantom=reader.read(reader.path("phantom_check"), _json_object),
        doubtful=_doubtful_anatomies(reader, recordings),
        unsettled=_denoised_otherwise(reader, recordings) if _of_volumes(recordings) else [],
        provenance=_provenance(reader, recordings, targets),
        damaged=reader.damaged,
    )


def _json_object(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError("it holds no JSON object")
    return content


def _json_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; a last line that is still being written is left out."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line.strip()]


def _tensors(path: Path) -> dict[str, NDArray]:
    with safe_open(path, framework="numpy") as file:
        return {key: np.asarray(file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118


def _count_numbers(path: Path) -> int:
    """Numbers in a weights file, from its header alone."""
    with safe_open(path, framework="numpy") as file:
        shapes = [file.get_slice(key).get_shape() for key in file.keys()]  # noqa: SIM118
    return sum(int(np.prod(shape)) for shape in shapes)


def _progress(
    study: Study, fields: Mapping[str, str], recordings: pd.DataFrame
) -> dict[str, Progress]:
    """Count the lasting file of each stage over the eligible recordings or their T1w images."""
    eligible = recordings[recordings["eligible"].fillna(False).astype(bool)]
    found = {}
    for stage, kind in LASTING.items():
        column = "anat_id" if stage == "normalize-anat" else "recording_id"
        states = [
            path.stat().st_size > 0 if path.exists() else None
            for path in (
                lasting_path(study, kind, identifier, fields)
                for identifier in eligible[column].dropna().unique()
            )
        ]
        found[stage] = Progress(states.count(True), states.count(False), states.count(None))
    return found


def _doubtful_anatomies(reader: _Reader, recordings: pd.DataFrame) -> list[str]:
    """The T1w images whose registration calls itself doubtful."""
    eligible = recordings[recordings["eligible"].fillna(False).astype(bool)]
    found = []
    for name in sorted(eligible["anat_id"].dropna().unique()):
        path = lasting_path(reader.study, LASTING["normalize-anat"], name, reader.fields)
        if (reader.read(sidecar_path(path), _json_object) or {}).get("Doubtful"):
            found.append(str(name))
    return found


def _denoised_otherwise(reader: _Reader, recordings: pd.DataFrame) -> list[str]:
    """The recordings that were denoised by another method than was asked for."""
    eligible = recordings[recordings["eligible"].fillna(False).astype(bool)]
    found = []
    for name in eligible["recording_id"]:
        path = lasting_path(reader.study, LASTING["denoise"], name, reader.fields)
        if (reader.read(sidecar_path(path), _json_object) or {}).get("Fallback"):
            found.append(str(name))
    return found


def _qc_numbers(reader: _Reader, recordings: pd.DataFrame) -> dict[str, dict[str, Any]]:
    numbers = {}
    for name in recordings["recording_id"]:
        path = reader.path("qc_figure", recording=name)
        sidecar = reader.read(sidecar_path(path), _json_object)
        if sidecar is not None and path.exists() and not is_tombstone(path):
            numbers[str(name)] = sidecar
    return numbers


def _provenance(reader: _Reader, recordings: pd.DataFrame, targets: Sequence[str]) -> Provenance:
    """Join the sidecars of the cohort's and models' files and of the first recordings."""
    weights = [reader.path("finetuned", target=target) for target in targets]
    tests = [reader.path("clinical", target=target) for target in targets]
    common = {
        "Configuration": reader.path("config"),
        "Recordings table": reader.path("recordings"),
        "Atlas table": reader.path("atlas_table"),
        "Atlas image": reader.path("atlas_image"),
        "Cohort": reader.path("cohort"),
        "Splits": reader.path("splits"),
        "Scaler": reader.path("scaler"),
        "Shards index": reader.path("shards_index"),
        "Pretrained model": reader.path("model"),
        **{f"Model for {t}": path for t, path in zip(targets, weights, strict=True)},
        "Reconstruction": reader.path("reconstruction"),
        **{f"Evaluation of {t}": path for t, path in zip(targets, tests, strict=True)},
    }
    code: dict[str, set[str]] = {}
    software: dict[str, set[str]] = {}
    parameters: dict[str, dict[str, Any]] = {}
    others: dict[str, set[str]] = {}
    for path in [*common.values(), *_first_part(reader), *_recording_files(reader, recordings)]:
        sidecar = reader.read(sidecar_path(path), _json_object)
        if sidecar and "Stage" in sidecar:
            stage = str(sidecar["Stage"])
            code.setdefault(stage, set()).add(str(sidecar.get("CodeDigest", "")))
            parameters.setdefault(stage, sidecar.get("Parameters", {}))
            for package, version in sidecar.get("Software", {}).items():
                software.setdefault(package, set()).add(str(version))
            for step, pipeline in sidecar.get("ProcessedBy", {}).items():
                others.setdefault(step, set()).add(str(pipeline))
    return Provenance(
        code={stage: sorted(found) for stage, found in code.items()},
        parameters=parameters,
        software={package: sorted(software[package]) for package in sorted(software)},
        hashes=[
            (what, reader.study.relative(path), sha256_file(path))
            for what, path in common.items()
            if path.exists() and not is_tombstone(path)
        ],
        processed_by={step: sorted(found) for step, found in sorted(others.items())},
    )


def _of_volumes(recordings: pd.DataFrame) -> bool:
    """Whether runs were denoised here as 4-D images, and did not come as parcels or dense series.

    Of a study that read volumes before, files of steps that it no longer has are still there.
    """
    return not recordings["kind"].isin(["parcels", "dense"]).any()


def _first_part(reader: _Reader) -> list[Path]:
    """One shard's rows of the index: its sidecar says how all shards were written."""
    folder = reader.path("shard_part", shard="any").parent
    return sorted(folder.glob("*.parquet"))[:1]


def _recording_files(reader: _Reader, recordings: pd.DataFrame) -> list[Path]:
    """The lasting files of the first eligible recordings and of their T1w images."""
    ready = ("adopt-parcels", "qc-figure")
    eligible = recordings[recordings["eligible"].fillna(False).astype(bool)].head(_SIDECARS)
    return [
        lasting_path(reader.study, kind, str(name), reader.fields)
        for stage, kind in LASTING.items()
        if _of_volumes(recordings) or stage in ready
        for name in eligible["anat_id" if stage == "normalize-anat" else "recording_id"]
        .dropna()
        .unique()
    ]

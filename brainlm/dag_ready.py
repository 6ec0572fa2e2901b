"""What the workflow knows of runs that another pipeline preprocessed."""

from __future__ import annotations

import json
from typing import Any

from .dag import Dag
from .fmriprep.jobs import job_of
from .layout import TEMPLATES
from .provenance import sha256_json

#: Columns of the recordings table that, when they change, make such a recording's jobs stale.
_CONTENT = ("ready", "ready_sha256", "ready_about", "tr", "n_volumes")


def ready_inputs(study: Dag, wildcards: Any) -> list[str]:
    """The files that a recording starts from, or what says that fMRIPrep has written them."""
    if study.config.engine == "fmriprep":
        job = job_of(wildcards.recording, study.config.fmriprep.level)
        return [TEMPLATES["fmriprep_manifest"].format(job=job)]
    files = json.loads(study.row(wildcards.recording)["ready"])
    return [str(study.config.bids_dir / path) for path in sorted(files.values())]


def ready_content(study: Dag, wildcards: Any) -> str:
    """A digest of what onboarding knows of these files."""
    row = study.row(wildcards.recording)
    return sha256_json([row[column] for column in _CONTENT])[:16]


def reused_components(study: Dag, wildcards: Any) -> list[str]:
    """Components that another pipeline found, where the config wants them and they are there."""
    files = json.loads(study.row(wildcards.recording)["ready"] or "{}")
    if study.config.derivatives.components != "reuse":
        return []
    roles = [role for role in ("mixing", "components") if role in files]
    return [str(study.config.bids_dir / files[role]) for role in roles]

"""Where every file of a study stands. The workflow, the commands and the report all ask here.

Two folders are in play: the BIDS dataset, which is only ever read, and the study folder,
where everything is written.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

_FUNC = "derivatives/brainlm/{folder}/func/{recording}"
_ANAT = "derivatives/brainlm/{anat_folder}/anat/{anat}"
_GRID = "_space-{space}_res-{res}"

#: Name of each kind of file -> its path below the study folder. The fields in braces are
#: those of `Recording.wildcards` (folder, recording, anat, anat_folder), of `Config.labels`
#: (space, res, atlas, estimator) and, for models, `run`, `target` and `method`, for fMRIPrep `job`,
#: for shards `shard`, for scaling curves `point`.
TEMPLATES: dict[str, str] = {
    "config": "config/config.yaml",
    "recordings": "onboarding/recordings.parquet",
    "recordings_tsv": "onboarding/recordings.tsv",
    "labels": "onboarding/labels.tsv",
    "sources": "onboarding/sources.json",
    "bids_validator": "onboarding/bids-validator.json",
    "onboarding_page": "onboarding/report.html",
    # one recording
    "motion": _FUNC + "_desc-motion_timeseries.tsv",
    "hmc_xfm": _FUNC + "_from-orig_to-boldref_mode-image_desc-hmc_xfm.txt",
    "boldref": _FUNC + "_boldref.nii.gz",
    "foreground_mask": _FUNC + "_desc-foreground_mask.nii.gz",
    "bold_mask": _FUNC + "_desc-brain_mask.nii.gz",
    "fieldmap": _FUNC + "_desc-distortion_fieldmap.nii.gz",
    "unwarped_boldref": _FUNC + "_desc-unwarped_boldref.nii.gz",
    "unwarped_mask": _FUNC + "_desc-unwarped_mask.nii.gz",
    "t1w_to_mni": _ANAT + "_from-T1w_to-{space}_mode-image_xfm.txt",
    "t1w_to_mni_warp": _ANAT + "_from-T1w_to-{space}_mode-image_desc-syn_xfm.nii.gz",
    "t1w_brain": _ANAT + "_desc-brain_T1w.nii.gz",
    "boldref_to_t1w": _FUNC + "_from-boldref_to-T1w_mode-image_xfm.txt",
    "boldref_to_mni": _FUNC + "_from-boldref_to-{space}_mode-image_xfm.txt",
    "boldref_to_mni_warp": _FUNC + "_from-boldref_to-{space}_mode-image_desc-syn_xfm.nii.gz",
    "mni_boldref": _FUNC + _GRID + "_boldref.nii.gz",
    "preproc_bold": _FUNC + _GRID + "_desc-preproc_bold.nii.gz",
    "mni_mask": _FUNC + _GRID + "_desc-brain_mask.nii.gz",
    "confounds": _FUNC + "_desc-confounds_timeseries.tsv",
    "ica_mixing": _FUNC + "_desc-ica_mixing.tsv",
    "ica_maps": _FUNC + _GRID + "_desc-ica_components.nii.gz",
    "aroma_metrics": _FUNC + "_desc-aroma_metrics.tsv",
    "aroma_review": "review/{recording}_desc-aroma_metrics.tsv",
    "denoised_bold": _FUNC + _GRID + "_desc-denoised_bold.nii.gz",
    "carpet": _FUNC + _GRID + "_desc-carpet_bold.safetensors",
    "timeseries": _FUNC + _GRID + "_atlas-{atlas}_stat-{estimator}_timeseries.parquet",
    "coverage": _FUNC + _GRID + "_atlas-{atlas}_stat-coverage_timeseries.tsv",
    "timeseries_tsv": _FUNC + _GRID + "_seg-{atlas}_stat-{estimator}_timeseries.tsv",
    "coverage_tsv": _FUNC + _GRID + "_seg-{atlas}_stat-coverage_bold.tsv",
    # one job of fMRIPrep: a subject or a session
    "fmriprep_manifest": "derivatives/fmriprep-jobs/{job}.json",
    "fmriprep_outputs": "derivatives/fmriprep",
    "fmriprep_crashes": "qc/fmriprep/{job}",
    "qc_figure": "reports/figures/{recording}_qc.png",
    "qc_page": "reports/qc/recordings/{recording}.html",
    "qc_batch": "reports/figures/batch-{batch}.tsv",
    "batch": "jobs/batch-{batch}.tsv",
    "failure": "qc/failures/{recording}.json",
    # the cohort
    "atlas_image": "atlas/atlas-{atlas}_space-{space}_res-{res}_dseg.nii.gz",
    "atlas_table": "atlas/atlas-{atlas}_dseg.tsv",
    "cohort": "cohort/recordings.parquet",
    "exclusions": "cohort/exclusions.tsv",
    "splits": "cohort/splits.tsv",
    "split_ledger": "config/split-ledger.tsv",
    "exclude_list": "config/exclude.tsv",
    "leakage": "cohort/leakage.json",
    "shard_plan": "cohort/plan/{shard}.parquet",
    "scaler_brackets": "cohort/scaler/brackets.safetensors",
    "scaler_part": "cohort/scaler/{shard}.safetensors",
    "scaler": "cohort/scaler.safetensors",
    "shard": "shards/{shard}.safetensors",
    "shard_part": "shards/parts/{shard}.parquet",
    "shards_index": "shards/index.parquet",
    # models
    "model": "models/{run}/model.safetensors",
    "model_log": "models/{run}/metrics.jsonl",
    "finetuned": "models/{run}-{target}/model.safetensors",
    "repeats": "models/{run}-{target}/repeats.parquet",
    "forecaster": "models/{run}-forecast/model.safetensors",
    "forecast_sums": "evaluation/{run}/forecast/{method}.parquet",
    "forecast": "evaluation/{run}/forecast/metrics.json",
    "forecast_scores": "evaluation/{run}/forecast/scores.tsv",
    "untrained_forecaster": "models/{run}-forecast-untrained/model.safetensors",
    "embeddings": "embeddings/{run}.parquet",
    "reconstruction": "evaluation/{run}/reconstruction/metrics.json",
    "reconstruction_traces": "evaluation/{run}/reconstruction/predictions.parquet",
    "reconstruction_whole": "evaluation/{run}/reconstruction/whole.parquet",
    "scaled_model": "models/{run}-scale-{point}/model.safetensors",
    "scaled_log": "models/{run}-scale-{point}/metrics.jsonl",
    "scaling_sums": "evaluation/{run}/scaling/{point}.parquet",
    "scaling": "evaluation/{run}/scaling/metrics.json",
    "clinical": "evaluation/{run}/clinical-{target}/metrics.json",
    "label_network": "evaluation/{run}/clinical-{target}/network-{method}.parquet",
    "clinical_predictions": "evaluation/{run}/clinical-{target}/predictions.parquet",
    "probe": "evaluation/{run}/probe-{target}/metrics.json",
    "probe_predictions": "evaluation/{run}/probe-{target}/predictions.parquet",
    "networks": "evaluation/{run}/networks/metrics.json",
    "networks_predictions": "evaluation/{run}/networks/predictions.parquet",
    "attention": "evaluation/{run}/attention/metrics.json",
    "attention_maps": "evaluation/{run}/attention/maps.parquet",
    "latent": "evaluation/{run}/latent/metrics.json",
    "latent_coordinates": "evaluation/{run}/latent/coordinates.parquet",
    "perturbation": "evaluation/{run}/perturbation/metrics.json",
    "perturbation_effects": "evaluation/{run}/perturbation/effects.parquet",
    "evaluation_page": "evaluation/{run}/index.html",
    "results": "evaluation/{run}/results.tsv",
    "quality_page": "reports/qc/index.html",
    "quality_table": "reports/qc/metrics.tsv",
    "report": "reports/report.html",
    "lineage_table": "reports/lineage.tsv",
    "hashes": "logs/hashes.json",
    "machine_log": "logs/machines/{job}.jsonl",
    "reproducibility": "reports/reproducibility.html",
    "crate": "ro-crate-metadata.json",
    "crate_workflow": "reports/workflow",
    "shareable": "reports/shareable/reproducibility.html",
    "shareable_crate": "reports/shareable/ro-crate-metadata.json",
    "shareable_workflow": "reports/shareable/workflow",
    "sharing_key": "onboarding/sharing.key",
    "reproduced": "reports/reproduce.json",
    "methods": "reports/methods.md",
    "references": "reports/references.bib",
    "audit": "qc/audit.tsv",
    "phantom_check": "qc/phantom_truth.json",
}

#: Methods of forecasting that are models of this study -> the kind of file that holds them.
FORECAST_MODELS = {
    "brainlm": "forecaster",
    "untrained": "untrained_forecaster",
    "zero-shot": "model",
}

#: A key that `brainlm run-batch` adds to the config of a workflow run: the batch (its number and
#: recordings) that the run is about, and nothing else.
ONLY_BATCH = "only_batch"

_ENTITY = re.compile(r"^[a-z0-9]+-[a-zA-Z0-9+]+$")


@dataclass(frozen=True)
class Study:
    """A study folder."""

    root: Path

    def path(self, kind: str, **fields: str) -> Path:
        """The path of one `kind` of file (a key of `TEMPLATES`)."""
        return self.root / TEMPLATES[kind].format(**fields)

    def relative(self, path: Path) -> str:
        """`path` as written into sidecars: relative to the study, with forward slashes."""
        return path.relative_to(self.root).as_posix()


def entities_of(identifier: str) -> dict[str, str]:
    """Split `sub-01_ses-1_task-rest` into `{"sub": "01", "ses": "1", "task": "rest"}`."""
    entities = {}
    for part in identifier.split("_"):
        if not _ENTITY.match(part):
            raise ValueError(f"{identifier!r} is not made of BIDS entities (key-value)")
        key, value = part.split("-", 1)
        entities[key] = value
    return entities


def recording_of(path: Path) -> str:
    """The recording that a file on the standard grid is named after."""
    return path.name.partition("_space-")[0]


def folder_of(identifier: str) -> str:
    """The subject (and session) folder of an identifier: `sub-01/ses-1`."""
    entities = entities_of(identifier)
    folder = f"sub-{entities['sub']}"
    return f"{folder}/ses-{entities['ses']}" if "ses" in entities else folder


def path_from(study: Path, path: Path) -> str:
    """`path` relative to the study where both share a folder other than the root."""
    if os.path.commonpath([study, path]) == os.sep:
        return str(path)
    return os.path.relpath(path, study)

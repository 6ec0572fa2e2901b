"""What the Snakefile knows: the config, the eligible recordings, and the paths of each.

The rules stay declarations; everything that they look up is computed here once, when the
workflow is parsed. Every cluster job parses it again, so it must stay cheap.
"""

from __future__ import annotations

import getpass
import json
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .atlas.registry import find_atlas
from .config import Config, parse_config
from .dag_batches import Batches
from .dag_cohort import Cohort
from .dag_containers import Images
from .dag_evaluation import Evaluation
from .dag_training import Training
from .errors import InputError
from .layout import FORECAST_MODELS, ONLY_BATCH, TEMPLATES, folder_of
from .provenance import sha256_file, sha256_json
from .recordings import LABEL_PREFIX, RAW_ENTITIES, REFERENCE, correction_of, qc_kinds, read_rows
from .shards.splits import assign_splits
from .shards.subjects import columns_asked
from .stages import code_digest, params_to_json, stage_params

#: Entities of a raw BOLD or T1w file: what a recording's name may hold, so that the name of
#: a derivative (`..._space-...`) is never mistaken for a recording.
RECORDING_REGEX = rf"sub-[^/_]+(?:_(?:{'|'.join(RAW_ENTITIES[1:])})-[^/_]+)*"

#: Columns of the recordings table that, when they change, make a recording's jobs stale.
_CONTENT = ("bold", "bold_sha256", "t1w", "t1w_sha256", "tr", "n_volumes", "slice_timing")

#: And those that make its field stale.
_DISTORTION = ("pe_direction", "total_readout_time", "fmap", "fmap_sha256", "fmap_about")


def prepare_environment() -> None:
    """Set what every job inherits.

    Jobs find `brainlm` of this environment, also when that is not activated. Numerical
    libraries use one thread unless a command asks for more, so that a rule's `threads` is
    the truth. ANTs gives the same bytes only single-threaded and with its seed set before
    the process starts. Slurm sends SIGUSR1 (`--signal`) to all processes of a job's step: it is
    for trainings, and would end a Snakemake. Snakemake also wants a name of the user, which a
    container started as any number has not.
    """
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = str(os.getuid())
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    os.environ.update(
        OMP_NUM_THREADS="1",
        OPENBLAS_NUM_THREADS="1",
        MKL_NUM_THREADS="1",
        ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS="1",
        ANTS_RANDOM_SEED="1",
    )


def _reviewed(study: Path) -> frozenset[str]:
    """The recordings whose components a person has classified."""
    ending = Path(TEMPLATES["aroma_review"].format(recording="")).name
    folder = (study / TEMPLATES["aroma_review"]).parent
    names = [entry.name for entry in os.scandir(folder)] if folder.is_dir() else []
    return frozenset(name.removesuffix(ending) for name in names if name.endswith(ending))


def _kind_of(rows: Iterable[Mapping[str, Any]], engine: str, study: Path) -> str:
    """What the stages after preprocessing start from: volume, dense or parcels."""
    kinds = {row["kind"] for row in rows}
    if (kinds == {None}) == (engine == "derivatives") or len(kinds) > 1:
        is_what = "raw runs" if None in kinds else "runs that another pipeline preprocessed"
        raise InputError(
            f"The recordings table holds {is_what}, which engine: {engine} does not start from",
            file=study / TEMPLATES["config"],
            fix="correct engine there, then `brainlm onboard` again",
        )
    return kinds.pop() or "volume"


class _Recording(NamedTuple):
    """What stands in for the wildcards of a rule of one recording."""

    recording: str


class Dag(Cohort, Training, Evaluation, Batches, Images):
    """The study that a workflow run works on."""

    def __init__(self, content: dict[str, Any], study: Path):
        """Validate the config `content` and read the recordings table of `study`."""
        self.study = study
        self.only_batch = content.get(ONLY_BATCH)
        said = {key: value for key, value in content.items() if key != ONLY_BATCH}
        self.config: Config = parse_config(said, source=study / TEMPLATES["config"])
        split = self.config.split.model_dump(mode="json")
        self.targets = [target.name for target in self.config.finetune.targets]
        # A target that no recording has is told here, not when a pretraining has ended.
        whole = self.only_batch is None
        labels = [LABEL_PREFIX + target for target in self.targets] if whole else []
        rows = read_rows(study / TEMPLATES["recordings"], [*columns_asked(split), *labels])
        self.rows = {row["recording_id"]: row for row in rows if row["eligible"]}
        if not self.rows:
            raise InputError(
                f"None of the {len(rows)} recordings of this study is eligible",
                file=study / TEMPLATES["recordings_tsv"],
                fix="its column `reason` says why; mend the data or the config, onboard again",
            )
        self.kind = _kind_of(self.rows.values(), self.config.engine, study)
        if self.only_batch is not None:
            self._keep_only(**self.only_batch)
        self.anats = {row["anat_id"]: row for row in self.rows.values() if row["anat_id"]}
        # A batch knows too little of the cohort to draw splits from, and needs none.
        self.splits = assign_splits(self.rows.values(), split, study) if whole else {}
        self._check_fitted()
        self.shards = self._shards() if whole else []
        self.reviewed = _reviewed(study)
        self.has_truth = (
            self.config.resolve_bids_dir(study) / "derivatives" / "phantom-truth"
        ).is_dir()

    # --- paths ---------------------------------------------------------------------------

    def pattern(self, kind: str) -> str:
        """The path of a kind of file, with Snakemake's wildcards left in it."""
        wildcards = (
            "folder",
            "recording",
            "anat",
            "anat_folder",
            "target",
            "batch",
            "shard",
            "method",
            "point",
        )
        fields = {name: f"{{{name}}}" for name in wildcards}
        return TEMPLATES[kind].format(**fields, **self.config.labels, run=self.config.pretrain.run)

    def each(self, kind: str, names: Iterable[str] | None = None) -> list[str]:
        """The path of a kind of file for these recordings, or for every eligible one."""
        pattern = self.pattern(kind)
        chosen = self.rows if names is None else names
        return [pattern.format(recording=name, folder=folder_of(name)) for name in chosen]

    @property
    def parcellations(self) -> list[str]:
        """What says that all recordings are parcels: their files, or the lists of the batches."""
        if self.batched:
            return [self.pattern("batch").format(batch=number) for number in self.batches()]
        return self.each("timeseries") + self.each("motion")

    def each_target(self, kind: str) -> list[str]:
        """The path of a kind of file for every label to predict."""
        return [self.pattern(kind).format(target=target) for target in self.targets]

    @property
    def finetuned(self) -> list[str]:
        """The fine-tuned models: one for each label, and for forecasting where it is wanted."""
        forecast = [self.pattern("forecaster")] if self.config.finetune.forecast else []
        return self.each_target("finetuned") + forecast

    def forecast_model(self, wildcards: Any) -> list[str]:
        """The model that a method of forecasting needs; none to be fitted without one."""
        if wildcards.method in FORECAST_MODELS:
            return [self.pattern(FORECAST_MODELS[wildcards.method])]
        return self.windows_of(wildcards)

    def label_networks(self, wildcards: Any) -> list[str]:
        """Predictions of a label by networks that were trained from nothing."""
        pattern = self.pattern("label_network")
        methods = self.config.networks.methods
        return [pattern.format(target=wildcards.target, method=method) for method in methods]

    def windows_of(self, wildcards: Any) -> list[str]:
        """The model whose windows are taken: none where the config says how long they are."""
        return [self.pattern("model")] if self.config.released.source else []

    @property
    def forecast_sums(self) -> list[str]:
        """What each method's forecasts were worth."""
        pattern = self.pattern("forecast_sums")
        return [pattern.format(method=method) for method in self.config.forecasts.methods]

    def batch_inputs(self, wildcards: Any) -> list[str]:
        """What the figures and pages of a batch are made from."""
        names = self.batch(wildcards)
        kinds = qc_kinds(self.config.engine, self.kind)
        paths = [path for kind in kinds for path in self.each(kind, names)]
        if "boldref_to_mni" in kinds:
            for name in names:
                paths += [self._reference(name)[0], *self.warp_of(_Recording(name))]
        if self.kind == "volume":
            for name in names:
                paths += self.review_of(_Recording(name))
            for kind in self.component_files():
                paths += self.each(kind, names)
        return [*dict.fromkeys(paths), *self.atlas_files()]

    def raw_bold(self, wildcards: Any) -> str:
        """The raw BOLD file of a recording, as the config names the dataset.

        Relative to the study where the config is, so that the two may be moved together.
        """
        return str(self.config.bids_dir / self.row(wildcards.recording)["bold"])

    def raw_t1w(self, wildcards: Any) -> str:
        """The raw T1w file."""
        if wildcards.anat not in self.anats:
            raise InputError(f"No eligible recording uses the T1w {wildcards.anat}")
        return str(self.config.bids_dir / self.anats[wildcards.anat]["t1w"])

    def anat_of(self, wildcards: Any) -> list[str]:
        """The T1w outputs that a recording's normalisation needs: none without a T1w."""
        anat = self.row(wildcards.recording)["anat_id"]
        if not anat:
            return []
        fields = {"anat": anat, "anat_folder": folder_of(anat)}
        return [self.pattern(kind).format(**fields) for kind in ("t1w_to_mni", "t1w_brain")]

    def correction(self, recording: str) -> str | None:
        """How a recording's distortion is corrected: by "fieldmap", "syn" or not at all."""
        row = self.row(recording)
        return correction_of(
            self.config.distortion.method,
            fmap_kind=row["fmap_kind"],
            pe_direction=row["pe_direction"],
            t1w=row["t1w"],
        )

    def field_sources(self, wildcards: Any) -> list[str]:
        """What a recording's field is estimated from: its field map's files, or its T1w."""
        if self.correction(wildcards.recording) == "syn":
            return self.anat_of(wildcards)
        files = json.loads(self.row(wildcards.recording)["fmap"] or "[]")
        return [str(self.config.bids_dir / path) for path in files]

    def field_of(self, wildcards: Any) -> list[str]:
        """The field that a recording is resampled with: none where nothing is corrected."""
        corrected = self.correction(wildcards.recording)
        return self.each("fieldmap", [wildcards.recording]) if corrected else []

    def reference_of(self, wildcards: Any) -> list[str]:
        """The reference and brain mask to normalise: undistorted where there is a field."""
        return self._reference(wildcards.recording)

    def _reference(self, recording: str) -> list[str]:
        kinds = REFERENCE[self.correction(recording) is not None]
        return [path for kind in kinds for path in self.each(kind, [recording])]

    def coregistration_of(self, wildcards: Any) -> list[str]:
        """The way of a recording to its T1w: none without a T1w."""
        if not self.row(wildcards.recording)["anat_id"]:
            return []
        return self.each("boldref_to_t1w", [wildcards.recording])

    def anat_warp(self) -> list[str]:
        """The pattern of a T1w's nonlinear warp; none where the config says affine."""
        return [self.pattern("t1w_to_mni_warp")] if self.config.normalize.transform == "syn" else []

    def warp_of(self, wildcards: Any) -> list[str]:
        """The nonlinear warp that a recording is resampled with: its T1w's, else its own."""
        if self.config.normalize.transform != "syn":
            return []
        anat = self.row(wildcards.recording)["anat_id"]
        if anat:
            fields = {"anat": anat, "anat_folder": folder_of(anat)}
            return [self.pattern("t1w_to_mni_warp").format(**fields)]
        return self.each("boldref_to_mni_warp", [wildcards.recording])

    def components_of(self, wildcards: Any) -> list[str]:
        """What denoising by components needs besides; none for the other methods."""
        if self.config.denoise.method != "aroma":
            return []
        names, kinds = [wildcards.recording], ("ica_mixing", "aroma_metrics")
        return [path for kind in kinds for path in self.each(kind, names)] + self.review_of(
            wildcards
        )

    def review_of(self, wildcards: Any) -> list[str]:
        """A table in review/, made by hand, where there is one: denoising must follow it."""
        asked = self.config.denoise.method == "aroma" and wildcards.recording in self.reviewed
        return self.each("aroma_review", [wildcards.recording]) if asked else []

    def component_files(self) -> dict[str, str]:
        """Patterns of the components' files, by kind; none where nothing asks for them."""
        if self.config.denoise.method != "aroma":
            return {}
        return {kind: self.pattern(kind) for kind in ("ica_mixing", "ica_maps", "aroma_metrics")}

    def row(self, recording: str) -> dict[str, Any]:
        """The row of the recordings table of an eligible recording."""
        if recording not in self.rows:
            raise InputError(
                f"{recording} is not an eligible recording of this study",
                fix="look into onboarding/recordings.tsv for its name or its reason",
            )
        return self.rows[recording]

    # --- what makes a job stale ----------------------------------------------------------

    def options(self, stage: str) -> str:
        """The stage's options as the JSON that its command gets."""
        return params_to_json(stage_params(stage, self.config))

    def code(self, stage: str) -> str:
        """The digest of the stage's source files."""
        return code_digest(stage)

    def content(self, wildcards: Any) -> str:
        """A digest of what onboarding knows of this recording's raw data."""
        row = self.row(wildcards.recording)
        return sha256_json([row[column] for column in _CONTENT])[:16]

    def field_content(self, wildcards: Any) -> str:
        """A digest of what onboarding knows of this recording's distortion."""
        row = self.row(wildcards.recording)
        return sha256_json([row[column] for column in _DISTORTION])[:16]

    def anat_content(self, wildcards: Any) -> str:
        """A digest of what onboarding knows of this T1w."""
        row = self.anats.get(wildcards.anat, {})
        return sha256_json([row.get("t1w"), row.get("t1w_sha256")])[:16]

    def classifier_content(self) -> str:
        """A digest of the files of the study that ica.classifier names; none: empty."""
        command = self.config.ica.classifier if self.config.denoise.method == "aroma" else ()
        files = [self.study / part for part in command if (self.study / part).is_file()]
        return sha256_json([sha256_file(path) for path in files])[:16] if files else ""

    def atlas_files(self) -> list[str]:
        """What the atlas consists of on this study's grid."""
        kinds = ("atlas_image", "atlas_table") if self.kind == "volume" else ("atlas_table",)
        return [self.pattern(kind) for kind in kinds]

    def atlas_content(self) -> str:
        """A digest of the atlas behind its name: its table and its image."""
        atlas = find_atlas(self.config.atlas.name)
        files = [path for path in (atlas.table, atlas.path) if path and path.exists()]
        return sha256_json([atlas.sha256, *map(sha256_file, files)])[:16]

"""What reruns after a change, and what does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from brainlm.resources import share_dir

from . import runner

AFTER_PARCELLATION = {
    "select_cohort",
    "fit_scaler",
    "bracket_scaler",
    "scale_part",
    "write_shard",
    "index_shards",
    "pretrain_model",
    "finetune_model",
    "evaluate_reconstruction",
    "evaluate_clinical",
    "embed_recordings",
    "finetune_forecast",
    "finetune_forecast_untrained",
    "evaluate_latent",
    "evaluate_networks",
    "evaluate_attention",
    "evaluate_perturbation",
    "score_forecast",
    "compare_forecasts",
    "predict_label",
    "write_evaluation_page",
    "check_phantom",
    "write_quality_page",
    "write_report",
    "write_reproducibility",
    "audit_recordings",
}
PER_RECORDING = (
    "estimate_motion",
    "coregister_bold",
    "normalize_bold",
    "resample_bold",
    "compute_confounds",
    "denoise_bold",
    "parcellate_bold",
)


def _source_with_edit(folder: Path, module: str) -> Path:
    """A copy of the repository in which `module` has one more comment."""
    root = share_dir()
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("brainlm", "workflow", "config", "atlases"):
        shutil.copytree(root / name, folder / name, ignore=ignore)
    for name in ("Snakefile", "environment.yml"):
        shutil.copy(root / name, folder / name)
    path = folder / module
    path.write_text(path.read_text() + "\n# an edit\n")
    return folder


def test_a_second_run_does_nothing(demo: Path) -> None:
    finished = demo / "study"
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*.parquet")}
    done = runner.snakemake(finished)
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout + done.stderr
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*.parquet")}


def test_onboarding_again_reruns_nothing(demo_copy: Path) -> None:
    runner.onboard(demo_copy / "bids", demo_copy / "study")
    done = runner.snakemake(demo_copy / "study", "--dry-run")
    assert runner.planned_jobs(done.stdout + done.stderr) == {}


def test_a_deleted_parcellation_reruns_that_recording_and_the_cohort(demo_copy: Path) -> None:
    study = demo_copy / "study"
    victim = sorted(study.rglob("*_timeseries.parquet"))[2]
    content = victim.read_bytes()
    victim.unlink()
    done = runner.snakemake(study, "--dry-run")
    planned = runner.planned_jobs(done.stdout + done.stderr)
    assert planned["parcellate_bold"] == 1
    assert not {"estimate_motion", "normalize_anat", "normalize_bold"} & set(planned)
    assert set(planned) - {"parcellate_bold"} <= AFTER_PARCELLATION | {"draw_qc"}
    done = runner.snakemake(study, "parcellations")
    assert done.returncode == 0, done.stderr[-3000:]
    assert victim.read_bytes() == content


@pytest.mark.parametrize(
    ("module", "reruns", "keeps"),
    [
        (
            "brainlm/denoise/regression.py",
            {"denoise_bold", "parcellate_bold"},
            {"estimate_motion", "normalize_bold", "resample_bold", "compute_confounds"},
        ),
        (
            "brainlm/preproc/resample.py",
            {"resample_bold", "compute_confounds", "denoise_bold", "parcellate_bold"},
            {"estimate_motion", "normalize_anat", "normalize_bold"},
        ),
        (
            "brainlm/shards/scaler.py",
            {"fit_scaler", "write_shard", "index_shards", "pretrain_model"},
            {*PER_RECORDING, "select_cohort"},
        ),
        (
            "brainlm/shards/packing.py",
            {"write_shard", "index_shards", "pretrain_model"},
            {*PER_RECORDING, "select_cohort", "fit_scaler"},
        ),
        (
            "brainlm/shards/datasheet.py",
            {"index_shards", "pretrain_model"},
            {*PER_RECORDING, "select_cohort", "fit_scaler", "write_shard"},
        ),
        (
            "brainlm/train/finetune.py",
            {"finetune_model", "evaluate_clinical"},
            {*PER_RECORDING, "select_cohort", "fit_scaler", "pretrain_model"},
        ),
    ],
)
def test_an_edited_stage_reruns_itself_and_what_follows_only(
    demo: Path, tmp_path: Path, module: str, reruns: set[str], keeps: set[str]
) -> None:
    finished = demo / "study"
    source = _source_with_edit(tmp_path, module)
    done = runner.snakemake(finished, "--dry-run", source=source)
    planned = runner.planned_jobs(done.stdout + done.stderr)
    assert reruns <= set(planned), done.stdout[-3000:] + done.stderr[-3000:]
    assert not keeps & set(planned)
    n_recordings = len(list(finished.rglob("*_timeseries.parquet")))
    for rule in reruns & set(PER_RECORDING):
        assert planned[rule] == n_recordings


def test_a_changed_option_reruns_its_stage_only(demo_copy: Path) -> None:
    study = demo_copy / "study"
    config = study / "config" / "config.yaml"
    text = config.read_text()
    assert "min_coverage: 0.5" in text
    config.write_text(text.replace("min_coverage: 0.5", "min_coverage: 0.4"))
    done = runner.snakemake(study, "--dry-run")
    planned = runner.planned_jobs(done.stdout + done.stderr)
    assert "parcellate_bold" in planned
    assert not set(PER_RECORDING[:-1]) & set(planned)


def test_going_straight_into_parcels_reruns_one_rule_of_each_recording(demo_copy: Path) -> None:
    study = demo_copy / "study"
    config = study / "config" / "config.yaml"
    text = config.read_text()
    assert "output: series" in text
    config.write_text(text.replace("output: series", "output: parcels"))
    done = runner.snakemake(study, "--dry-run")
    planned = runner.planned_jobs(done.stdout + done.stderr)
    assert planned["resample_to_parcels"] == len(list(study.rglob("*_timeseries.parquet")))
    assert not set(PER_RECORDING) & set(planned)


def test_a_stage_by_hand_gives_the_same_bytes(demo_copy: Path) -> None:
    study = demo_copy / "study"
    recording = sorted(study.rglob("*_timeseries.parquet"))[0].name.split("_space-")[0]
    before = runner.digest_tree(study)
    verbs = ("motion", "coregister-bold", "normalize-bold", "resample")
    for verb in (*verbs, "confounds", "denoise", "parcellate"):
        done = runner.brainlm(verb, recording, "--study", study)
        assert done.returncode == 0, (verb, done.stderr)
    after = runner.digest_tree(study)
    assert {name for name in before if before[name] != after.get(name)} == set()

"""What would run: dry runs on studies whose raw files are empty."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from brainlm.dag import Dag
from brainlm.dag_batches import QC_BATCH
from brainlm.errors import InputError
from brainlm.layout import TEMPLATES, folder_of
from brainlm.resources import share_dir
from brainlm.stages import STAGES

from ..forked_snakemake import run_snakemake
from .empty_study import make_study


def snakemake(study: Path, *arguments: str) -> str:
    where = ("--snakefile", str(share_dir() / "Snakefile"), "--directory", str(study))
    done = run_snakemake(*where, "--dry-run", *arguments)
    return done.stdout + done.stderr


def counts(output: str) -> dict[str, int]:
    table = output[output.rindex("Job stats:") :]
    found = dict(re.findall(r"^([a-z_]+)\s+(\d+)$", table, re.M))
    return {rule: int(number) for rule, number in found.items() if rule != "total"}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    make_study(folder, 20)
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More than a batch, a page of figures and a small shard hold."""
    folder = tmp_path_factory.mktemp("many")
    make_study(folder, 60)
    return folder


_PROFILES = share_dir() / "config" / "profiles"


def test_on_a_cluster_recordings_go_in_batches(many: Path) -> None:
    """Jobs do not grow with the stages, and hardly with the recordings; figures are theirs."""
    planned = counts(snakemake(many, "--profile", str(_PROFILES / "slurm")))
    assert planned["process_batch"] == -(-60 // 25)
    alone = {"estimate_motion", "normalize_anat", "parcellate_bold", "draw_qc"}
    assert not alone & set(planned)
    assert planned["prepare_atlas"] == planned["select_cohort"] == planned["write_report"] == 1


def test_everything_is_planned(many: Path) -> None:
    planned = counts(snakemake(many, "--profile", str(_PROFILES / "local")))
    for rule in (
        "estimate_motion",
        "normalize_anat",
        "coregister_bold",
        "normalize_bold",
        "resample_bold",
        "compute_confounds",
        "denoise_bold",
        "parcellate_bold",
    ):
        assert planned[rule] == 60, rule
    assert planned["draw_qc"] == -(-60 // QC_BATCH)
    once = ("prepare_atlas", "select_cohort", "fit_scaler", "index_shards", "write_report")
    for rule in once:
        assert planned[rule] == 1, rule
    assert planned["write_shard"] == len(_dag(many).shards) == 3
    assert planned["audit_recordings"] == 1


@pytest.mark.parametrize(
    ("target", "last", "absent"),
    [
        ("parcellations", "parcellate_bold", "select_cohort"),
        ("shards", "index_shards", "pretrain_model"),
        ("pretrain", "pretrain_model", "finetune_model"),
        ("finetune", "finetune_model", "evaluate_clinical"),
        ("embed", "embed_recordings", "finetune_model"),
        ("probe", "probe_label", "finetune_model"),
        ("evaluate", "evaluate_clinical", "write_report"),
        ("report", "write_report", ""),
        ("report", "write_reproducibility", ""),
    ],
)
def test_targets_stop_where_their_name_says(
    study: Path, target: str, last: str, absent: str
) -> None:
    planned = counts(snakemake(study, "--cores", "2", target))
    assert last in planned
    assert absent not in planned


def test_a_key_that_stands_twice_in_a_config_is_refused(study: Path, tmp_path: Path) -> None:
    """Snakemake itself would take the second."""
    own = tmp_path / "own.yaml"
    own.write_text("seed: 1\nname: x\nseed: 2\n")
    output = snakemake(study, "--cores", "1", "parcellations", "--configfile", str(own))
    assert "line 3: the key 'seed' stands there once more, first in line 1" in output
    assert f"file: {own}" in output and "Job stats" not in output


def test_forecasting_is_learned_where_it_is_asked_for(study: Path) -> None:
    """Among the fine-tuned models, by the rule that is made for it."""
    assert "finetune_forecast" not in counts(snakemake(study, "--cores", "2", "finetune"))
    asked = ("--cores", "2", "finetune", "--config", "finetune={forecast: true, targets: []}")
    output = snakemake(study, *asked, "--printshellcmds")
    planned = counts(output)
    assert planned["finetune_forecast"] == planned["pretrain_model"] == 1
    assert "finetune_model" not in planned
    assert "brainlm finetune --task forecast --requeue --threads 1" in output


def test_each_method_of_forecasting_is_a_job_beside_the_model(study: Path) -> None:
    """What a method needs is made for it, and nothing for methods that are not asked for."""
    forecasts = "forecasts={methods: [brainlm, untrained, ar, lstm]}"
    asked = ("--config", "finetune={forecast: true, targets: []}", forecasts)
    planned = counts(snakemake(study, "--cores", "2", "evaluate", *asked))
    assert planned["score_forecast"] == 4
    assert planned["compare_forecasts"] == planned["finetune_forecast"] == 1
    assert planned["finetune_forecast_untrained"] == 1
    alone = "evaluation/brainlm/forecast/ar.parquet"
    planned = counts(snakemake(study, "--cores", "2", alone, *asked))
    assert planned["score_forecast"] == 1
    assert not {"pretrain_model", "finetune_forecast"} & set(planned)
    assert "score_forecast" not in counts(snakemake(study, "--cores", "2", "evaluate"))


def test_the_evaluation_ends_with_its_page_of_the_tasks_that_are_asked_for(study: Path) -> None:
    planned = counts(snakemake(study, "--cores", "2", "evaluate"))
    default = {"evaluate_reconstruction", "evaluate_latent", "evaluate_networks"}
    default |= {"evaluate_attention", "evaluate_perturbation", "evaluate_clinical"}
    assert default | {"write_evaluation_page"} <= set(planned)
    assert not {"train_scaling", "compare_scaling", "score_forecast"} & set(planned)
    few = ("--config", "evaluate={tasks: [reconstruction]}")
    planned = counts(snakemake(study, "--cores", "2", "evaluate", *few))
    assert planned["write_evaluation_page"] == 1
    assert default & set(planned) == {"evaluate_reconstruction"}
    assert "finetune_model" not in planned


def test_networks_and_attention_need_the_model_alone(study: Path) -> None:
    for task in ("networks", "attention"):
        wanted = ("--config", f"evaluate={{tasks: [{task}]}}")
        planned = counts(snakemake(study, "--cores", "2", "evaluate", *wanted))
        assert planned[f"evaluate_{task}"] == planned["pretrain_model"] == 1
        other = {"networks": "attention", "attention": "networks"}[task]
        assert not {f"evaluate_{other}", "finetune_model", "evaluate_clinical"} & set(planned)


def test_each_point_of_the_scaling_curves_is_a_job_where_they_are_asked_for(study: Path) -> None:
    grid = "scaling={sizes: [{name: s}, {name: m, overrides: {hidden: 96}}], shares: [0.1, 1]}"
    output = snakemake(study, "--cores", "2", "scaling", "--config", grid, "--printshellcmds")
    planned = counts(output)
    assert (planned["train_scaling"], planned["compare_scaling"]) == (4, 1)
    assert not {"pretrain_model", "evaluate_reconstruction"} & set(planned)
    assert "brainlm train-scaling --point m-0.1 --requeue --threads 1" in output
    assert "train_scaling" not in counts(snakemake(study, "--cores", "2", "evaluate"))
    none = snakemake(study, "--cores", "2", "scaling")
    assert "scaling.sizes is empty" in none
    released = ("--config", grid, "released={source: somewhere}")
    assert "scaling trains models of several sizes" in snakemake(study, "scaling", *released)


def test_each_network_on_a_label_is_a_job_beside_the_model(study: Path) -> None:
    targets = "finetune={targets: [{name: bdi_total}, {name: sex, kind: binary, positive: F}]}"
    planned = counts(snakemake(study, "--cores", "2", "evaluate", "--config", targets))
    assert planned["evaluate_clinical"] == 2
    assert planned["predict_label"] == 6
    none = ("--config", targets, "networks={methods: []}")
    assert "predict_label" not in counts(snakemake(study, "--cores", "2", "evaluate", *none))


def test_vectors_are_made_once_and_processes_are_started_by_torchrun(study: Path) -> None:
    asked = (
        "finetune={processes: 4, forecast: true, "
        "targets: [{name: age}, {name: sex, kind: binary, positive: F}]}"
    )
    goals = ("finetune", "probe", "--printshellcmds", "--config", asked)
    output = snakemake(study, "--cores", "2", *goals)
    planned = counts(output)
    assert planned["probe_label"] == planned["finetune_model"] == 2
    assert planned["embed_recordings"] == planned["pretrain_model"] == 1
    assert output.count("torchrun --standalone --nproc-per-node 4 --signals-to-handle ") == 3
    assert " -m brainlm finetune --target age --requeue --threads 1" in output
    shared = Dag({"finetune": {"processes": 4}}, study)
    launches = (shared.evaluating, shared.pretraining, shared.finetuning)
    assert [launch.resources["gpu"] for launch in launches] == [1, 1, 4]


def test_each_shard_is_a_job_and_many_train_shards_are_fitted_in_parts(many: Path) -> None:
    """With a scaler that was fitted elsewhere, nothing of the train split is counted."""
    small = "shards={target_mb: 4}"
    output = snakemake(many, "--cores", "2", "shards", "--config", small)
    planned = counts(output)
    shards = set(re.findall(r"shards/((?:train|val|test)-[0-9]{5})\.safetensors", output))
    train = {name for name in shards if name.startswith("train")}
    assert planned["write_shard"] == len(shards) > 5
    assert planned["scale_part"] == len(train) > 2
    assert planned["bracket_scaler"] == planned["fit_scaler"] == planned["index_shards"] == 1
    scaler = many / "elsewhere.safetensors"
    scaler.touch()
    fitted = ("--config", small, f"scale={{fitted: {scaler.name}}}")
    planned = counts(snakemake(many, "--cores", "2", "shards", *fitted))
    assert planned["write_shard"] == len(shards)
    assert not {"scale_part", "bracket_scaler"} & set(planned)


def test_one_recording_can_be_asked_for(study: Path) -> None:
    dag = _dag(study)
    path = dag.each("timeseries", ["sub-000007_task-rest"])[0]
    planned = counts(snakemake(study, "--cores", "2", path))
    assert planned["parcellate_bold"] == planned["estimate_motion"] == 1


def test_syn_plans_a_warp_of_their_own_for_runs_without_a_t1w(tmp_path: Path) -> None:
    import pandas as pd

    make_study(tmp_path, 3)
    path = tmp_path / "onboarding" / "recordings.parquet"
    table = pd.read_parquet(path)
    table.loc[0, ["t1w", "anat_id", "t1w_sha256"]] = None
    table.to_parquet(path)
    target = ["--cores", "1", "parcellations"]
    planned = counts(snakemake(tmp_path, *target, "--config", "normalize={transform: affine}"))
    assert "warp_bold" not in planned and planned["normalize_anat"] == 2
    assert planned["coregister_bold"] == 2 and planned["normalize_bold"] == 3
    output = snakemake(tmp_path, *target)
    planned = counts(output)
    assert planned["warp_bold"] == 1 and planned["normalize_anat"] == 2
    assert planned["resample_bold"] == 3
    assert output.count("sub-000002_from-T1w_to-MNI152NLin2009aSym_mode-image_desc-syn_xfm") >= 2


def test_straight_into_parcels_plans_no_4d_file(tmp_path: Path) -> None:
    make_study(tmp_path, 3)
    straight = ["--config", "resample={output: parcels}"]
    output = snakemake(tmp_path, "--cores", "1", *straight)
    planned = counts(output)
    assert planned["resample_to_parcels"] == planned["estimate_motion"] == 3
    assert planned["draw_qc"] == planned["write_report"] == 1
    for rule in ("resample_bold", "compute_confounds", "denoise_bold", "parcellate_bold"):
        assert rule not in planned
    assert "preproc_bold" not in output and "denoised_bold" not in output
    assert "resample_to_parcels" not in counts(snakemake(tmp_path, "--cores", "1"))


def test_a_table_made_by_hand_is_an_input_of_denoising_alone(tmp_path: Path) -> None:
    make_study(tmp_path, 3)
    target = ("--cores", "1", "parcellations")
    plain = snakemake(tmp_path, *target)
    planned = counts(plain)
    assert planned["find_components"] == planned["denoise_bold"] == 3
    motion = snakemake(tmp_path, *target, "--config", "denoise={method: motion24}")
    assert "find_components" not in counts(motion)

    name = "sub-000001_task-rest"
    review = tmp_path / "review" / f"{name}_desc-aroma_metrics.tsv"
    review.parent.mkdir()
    review.write_text("component\tclassification\n")
    dag = _dag(tmp_path)
    inputs = {
        recording: dag.components_of(type("W", (), {"recording": recording}))
        for recording in (name, "sub-000002_task-rest")
    }
    assert inputs[name][-1] == f"review/{review.name}" and len(inputs[name]) == 3
    assert len(inputs["sub-000002_task-rest"]) == 2


def test_a_table_made_by_hand_reruns_denoising_and_what_follows(tmp_path: Path) -> None:
    """All else is there and older than the table; only the one recording's jobs are planned."""
    make_study(tmp_path, 2)
    dag = _dag(tmp_path)
    target = ("--cores", "1", "--rerun-triggers", "mtime", "--", "parcellations")
    kinds = [kind for kind in TEMPLATES if "{recording}" in TEMPLATES[kind]]
    made = [path for kind in kinds for path in dag.each(kind) if not path.startswith("review")]
    for kind in ("t1w_to_mni", "t1w_to_mni_warp", "t1w_brain"):
        made += [
            dag.pattern(kind).format(anat=name, anat_folder=folder_of(name)) for name in dag.anats
        ]
    made += [dag.pattern("atlas_image"), dag.pattern("atlas_table")]
    for path in made:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("x")
        os.utime(tmp_path / path, (2e9, 2e9))
    assert "Nothing to be done" in snakemake(tmp_path, *target)
    review = tmp_path / "review" / "sub-000001_task-rest_desc-aroma_metrics.tsv"
    review.parent.mkdir()
    review.write_text("component\tclassification\n")
    os.utime(review, (2e9 + 60, 2e9 + 60))
    assert counts(snakemake(tmp_path, *target)) == {
        "denoise_bold": 1,
        "parcellate_bold": 1,
        "parcellations": 1,
    }


def test_a_corrected_label_makes_nothing_before_the_cohort_stale(tmp_path: Path) -> None:
    """All is there and older than the recordings table, in which one label is another."""
    import pandas as pd

    make_study(tmp_path, 2)
    path = tmp_path / "onboarding" / "recordings.parquet"
    table = pd.read_parquet(path)
    table.assign(label_age=[30.0, 40.0]).to_parquet(path)
    wildcards = type("W", (), {"recording": "sub-000001_task-rest"})
    dag = _dag(tmp_path)
    before = dag.content(wildcards)
    kinds = [kind for kind in TEMPLATES if "{recording}" in TEMPLATES[kind]]
    made = [name for kind in kinds for name in dag.each(kind) if not name.startswith("review")]
    for kind in ("t1w_to_mni", "t1w_to_mni_warp", "t1w_brain"):
        made += [
            dag.pattern(kind).format(anat=name, anat_folder=folder_of(name)) for name in dag.anats
        ]
    made += [dag.pattern("atlas_image"), dag.pattern("atlas_table")]
    for name in made:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (2e9, 2e9))
    table.assign(label_age=[30.0, 41.0]).to_parquet(path)
    os.utime(path, (2e9 + 60, 2e9 + 60))
    assert _dag(tmp_path).content(wildcards) == before
    planned = counts(
        snakemake(tmp_path, "--cores", "1", "--rerun-triggers", "mtime", "--", "shards")
    )
    assert planned["select_cohort"] == planned["index_shards"] == 1
    of_recordings = {"estimate_motion", "normalize_anat", "parcellate_bold", "draw_qc"}
    assert not {*of_recordings, "prepare_atlas"} & set(planned)
    assert not any("phenotypes" in stage.sections for stage in STAGES.values())


def test_the_literal_slurm_profile_resolves_in_a_clone(study: Path) -> None:
    if not (share_dir() / "slurm").exists():
        pytest.skip("not a clone")
    command = [sys.executable, "-m", "snakemake", "--profile", "slurm", "--dry-run", "--quiet"]
    done = subprocess.run(
        [*command, "--directory", str(study)],
        cwd=share_dir(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_without_a_study_the_message_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text("name: x\n")
    output = snakemake(tmp_path, "--cores", "1")
    assert "There is no recordings table yet" in output
    assert "brainlm onboard" in output
    assert "Traceback" not in output


def test_a_config_fault_is_told_before_anything_runs(study: Path) -> None:
    output = snakemake(study, "--cores", "1", "--config", "motion={iteratons: 3}")
    assert "motion.iteratons" in output
    assert "Traceback" not in output


def test_options_and_code_are_parameters_of_every_stage(study: Path) -> None:
    rules = "".join(path.read_text() for path in (share_dir() / "workflow/rules").glob("*.smk"))
    stages = re.findall(r"^rule (\w+):(.*?)(?=^rule |\Z)", rules, re.M | re.S)
    assert len(stages) > 15
    without = ("audit_recordings", "process_batch")  # has those of all its stages in a digest
    for name, body in stages:
        assert "log:" in body and "message:" in body, name
        assert "--params {params.options:q}" in body or name in without, name
        if name not in without:
            verb = re.search(r'options=study.options(?:_of_point)?\("([a-z-]+)"\)', body)
            assert verb is not None, name
            assert f'code=study.code("{verb[1]}")' in body, name
            # A training may be torchrun's; with one process its launcher is `brainlm`, too.
            trains = verb[1] in ("pretrain", "finetune", "train-scaling")
            launcher = "{params.launcher}" if trains else "brainlm"
            assert f'"{launcher} {verb[1]} ' in body, name
            for directive in ("benchmark:", "threads:", "mem_mb", "runtime"):
                assert directive in body, (name, directive)
        assert "script:" not in body and "retries" not in body, name


def test_a_study_without_eligible_recordings_is_refused(tmp_path: Path) -> None:
    import pandas as pd

    make_study(tmp_path, 3)
    path = tmp_path / "onboarding" / "recordings.parquet"
    table = pd.read_parquet(path)
    table["eligible"] = False
    table.to_parquet(path)
    with pytest.raises(InputError, match="None of the 3 recordings"):
        _dag(tmp_path)


def test_content_changes_when_onboarding_sees_another_file(tmp_path: Path) -> None:
    import pandas as pd

    make_study(tmp_path, 3)
    wildcards = type("W", (), {"recording": "sub-000001_task-rest"})
    before = _dag(tmp_path).content(wildcards)
    path = tmp_path / "onboarding" / "recordings.parquet"
    table = pd.read_parquet(path)
    table.loc[table["recording_id"] == "sub-000001_task-rest", "tr"] = 2.0
    table.to_parquet(path)
    assert _dag(tmp_path).content(wildcards) != before


def test_the_users_table_of_splits_is_an_input_of_the_cohort(tmp_path: Path) -> None:
    make_study(tmp_path, 3)
    assert _dag(tmp_path).split_table() == []
    config = tmp_path / "config" / "config.yaml"
    config.write_text(config.read_text().replace("table: null", "table: config/mine.tsv"))
    target = ("--cores", "1", "cohort/splits.tsv")
    missing = snakemake(tmp_path, *target)
    assert "The table of splits does not exist" in missing and "config/mine.tsv" in missing
    assert "Traceback" not in missing
    lines = [f"{number:06d}\ttest" for number in range(3)]
    (tmp_path / "config" / "mine.tsv").write_text("\n".join(["subject\tsplit", *lines]))
    assert _dag(tmp_path).split_table() == ["config/mine.tsv"]
    assert _dag(tmp_path).shards == ["test-00000"]
    assert counts(snakemake(tmp_path, *target))["select_cohort"] == 1


def test_who_is_in_which_split_makes_the_cohort_stale(tmp_path: Path) -> None:
    """Labels, families and the ledger change it without a change of any option."""
    import pandas as pd

    from brainlm.shards.splits import assign

    make_study(tmp_path, 20)
    config = tmp_path / "config" / "config.yaml"
    config.write_text(config.read_text().replace("stratify: []", "stratify: [group]"))
    assert "labels group, which no recording has" in snakemake(tmp_path, "--cores", "1")
    path = tmp_path / "onboarding" / "recordings.parquet"
    table = pd.read_parquet(path)
    table.assign(label_group=["F", "M"] * 10).to_parquet(path)
    dag = _dag(tmp_path)
    options = dag.config.split.model_dump(mode="json")
    ledger = assign(dag.rows.values(), options, tmp_path).ledger
    assert ledger is not None
    (tmp_path / "config" / "split-ledger.tsv").write_text(ledger.text())
    assert _dag(tmp_path).split_content() == dag.split_content()
    table.assign(label_group=["F"] * 3 + ["M"] * 17).to_parquet(path)
    assert _dag(tmp_path).splits == dag.splits
    (tmp_path / "config" / "split-ledger.tsv").unlink()
    assert _dag(tmp_path).split_content() != dag.split_content()


def test_a_table_that_holds_a_recording_twice_is_refused(tmp_path: Path) -> None:
    import pandas as pd

    make_study(tmp_path, 3)
    path = tmp_path / "onboarding" / "recordings.parquet"
    table = pd.read_parquet(path)
    pd.concat([table, table[:1]]).to_parquet(path)
    with pytest.raises(InputError, match="holds sub-000000_task-rest more than once"):
        _dag(tmp_path)


def _dag(study: Path) -> Dag:
    import yaml

    return Dag(yaml.safe_load((study / "config" / "config.yaml").read_text()), study)


# --- runs that another pipeline preprocessed ---------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "settings", "rules"),
    [
        ("volume", "denoise={method: fix}", {"adopt_bold", "denoise_bold", "parcellate_bold"}),
        (
            "volume",
            "denoise={method: aroma}",
            {"adopt_bold", "find_components", "denoise_bold", "parcellate_bold"},
        ),
        ("volume", "resample={output: parcels}", {"adopt_to_parcels"}),
        ("dense", "denoise={method: fix}", {"adopt_parcels"}),
        ("dense", "resample={output: parcels}", {"adopt_parcels"}),
        ("parcels", "denoise={method: fix}", {"adopt_parcels"}),
    ],
)
def test_runs_of_other_pipelines_are_adopted(
    tmp_path: Path, kind: str, settings: str, rules: set[str]
) -> None:
    make_study(tmp_path, 3, kind)
    planned = counts(snakemake(tmp_path, "--config", settings, "networks={methods: []}"))
    assert {rule for rule, number in planned.items() if number == 3} == rules
    atlas = "prepare_atlas" if kind == "volume" else "prepare_atlas_table"
    for rule in (atlas, "select_cohort", "fit_scaler", "index_shards", "write_report", "draw_qc"):
        assert planned[rule] == 1, rule
    assert planned["write_shard"] == len(_dag(tmp_path).shards)


def test_an_engine_that_does_not_fit_the_table_is_refused(tmp_path: Path) -> None:
    make_study(tmp_path, 2, "volume")
    output = snakemake(tmp_path, "--config", "engine=native")
    assert "holds runs that another pipeline preprocessed, which engine: native" in output
    make_study(tmp_path / "raw", 2)
    output = snakemake(tmp_path / "raw", "--config", "engine=derivatives")
    assert "holds raw runs, which engine: derivatives does not start from" in output


def test_fmriprep_runs_before_its_files_are_adopted(tmp_path: Path) -> None:
    make_study(tmp_path, 3)
    options = ("engine=fmriprep", "space={template: MNI152NLin6Asym}")
    options += ("denoise={method: motion24}", "networks={methods: []}")
    planned = counts(snakemake(tmp_path, "--config", *options))
    three = {"run_fmriprep", "adopt_bold", "denoise_bold", "parcellate_bold"}
    assert {rule for rule, number in planned.items() if number == 3} == three
    assert "estimate_motion" not in planned


def test_processes_of_pretraining_get_a_gpu_each_and_torchrun(study: Path) -> None:
    alone = snakemake(study, "--cores", "2", "-p", "pretrain")
    assert "Shell command: brainlm pretrain --requeue --threads 1" in alone
    several = ("--config", "pretrain={processes: 4, device: auto}")
    shared = snakemake(study, "--cores", "2", "-p", "pretrain", *several)
    assert re.search(r"torchrun --standalone --nproc-per-node 4 .* -m brainlm pretrain", shared)
    nodes = ("--config", "pretrain={processes: 4, nodes: 2}")
    apart = snakemake(study, "--cores", "2", "-p", "pretrain", *nodes)
    assert "Shell command: srun --jobid ${SLURM_JOB_ID:?a training on several nodes" in apart
    assert "--ntasks-per-node=4 --cpus-per-task=8 --kill-on-bad-exit=1 brainlm pretrain" in apart

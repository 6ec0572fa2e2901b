"""Onboarding: the command, and the study folder that it makes."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from brainlm.bids.phenotypes.summary import label_summaries, summary_bytes
from brainlm.cli.config import check
from brainlm.cli.onboard import HashMode, onboard
from brainlm.config import Config, load_config, load_study_preset, parse_config, study_presets
from brainlm.dag import Dag
from brainlm.errors import InputError
from brainlm.recordings import (
    COLUMNS,
    load_recording,
    load_recording_of_anat,
    read_rows,
    read_table,
)

from .small_bids import (
    BOLD,
    make_bids,
    table_of,
    write_bold,
)


@pytest.fixture
def bids(tmp_path, monkeypatch):
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path / "no templates"))
    monkeypatch.setenv("BRAINLM_CACHE", str(tmp_path / "empty"))
    return make_bids(tmp_path / "bids")


def run(bids: Path, study: Path, *settings: str, atlas: str | None = None) -> None:
    settings = settings or ("eligibility.min_volumes=10",)
    onboard(bids, study, HashMode.full, atlas, list(settings), 1)


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_labels_that_a_second_onboarding_loses_are_named(bids, tmp_path, capsys):
    """As where --participants was given the first time alone."""
    run(bids, tmp_path / "study")
    (bids / "participants.tsv").unlink()
    assert "labels that are gone" not in capsys.readouterr().err
    run(bids, tmp_path / "study")
    assert "labels that are gone: age, group." in capsys.readouterr().err


def test_further_tables_are_kept_in_the_config_and_give_the_same_bytes_again(
    bids, tmp_path, capsys
):
    other, study = tmp_path / "other.csv", tmp_path / "study"
    other.write_text("subject,visit,iq\n1,01,101\n02,01,102\n02,02,103\n9,01,99\n")
    settings = ["eligibility.min_volumes=10"]
    onboard(bids, study, HashMode.full, None, settings, 1, phenotypes=[other])
    said = capsys.readouterr()
    assert "other_iq: number, 2 subjects (1 without): 101 to 103, median 102" in said.out
    assert "other.csv: 1 subjects have no recording here" in said.err
    assert "other.csv: 1 subjects are written otherwise" in said.err  # 02 is the dataset's own
    labels = read_table(study / "onboarding/recordings.parquet")["label_other_iq"]
    assert labels.fillna(0).tolist() == [101, 102, 103, 0]
    assert load_config(study / "config/config.yaml").phenotypes.files[0].path == "../other.csv"
    before = snapshot(study)
    onboard(bids, study, HashMode.full, None, [], 1)
    assert snapshot(study) == before
    found = label_summaries(study)
    assert [label.name for label in found] == ["age", "group", "other_iq"]
    assert found[0].quantiles["1"] == 41 and found[0].unit is None and found[0].suspicions == []
    assert found[2].missing == {"no row": 1} and found[2].can_be_target
    assert summary_bytes(found) == (study / "onboarding/labels.tsv").read_bytes()
    other.write_text(other.read_text().replace("103", "104"))
    onboard(bids, study, HashMode.full, None, [], 1)
    changed = {name for name, content in snapshot(study).items() if content != before[name]}
    assert changed == {
        f"onboarding/{n}"
        for n in (
            "labels.tsv",
            "recordings.parquet",
            "recordings.tsv",
            "report.html",
            "sources.json",
        )
    }
    (study / "onboarding/labels.tsv").write_text("name\nage\n")
    with pytest.raises(InputError, match="no table of labels"):
        label_summaries(study)


def test_a_fault_of_the_mapping_is_told_before_an_image_is_read(bids, tmp_path, monkeypatch):
    monkeypatch.setattr("brainlm.bids.dataset.scan_image", lambda *a, **k: pytest.fail("read"))
    mapping = "phenotypes.labels=[{name: iq, column: eye_queue}]"
    with pytest.raises(InputError, match="no column 'eye_queue'"):
        run(bids, tmp_path / "study", mapping)
    assert not (tmp_path / "study").exists()


def test_a_recording_keeps_the_wave_of_the_onboarding_that_found_it(bids, tmp_path):
    """Shards are dealt wave by wave, so that old ones stay when a dataset grows."""

    def waves() -> dict[str, int]:
        table = read_table(path)
        assert table["wave"].dtype == "Int64"
        return dict(zip(table["recording_id"], table["wave"], strict=True))

    path = tmp_path / "study/onboarding/recordings.parquet"
    run(bids, tmp_path / "study")
    first = waves()
    assert set(first.values()) == {0}
    write_bold(bids / "sub-02/ses-2/func/sub-02_ses-2_task-new_bold.nii.gz")
    run(bids, tmp_path / "study")
    second = waves()
    assert second == {**first, "sub-02_ses-2_task-new": 1}
    before = path.read_bytes()
    run(bids, tmp_path / "study")
    assert path.read_bytes() == before
    (bids / "sub-02/ses-2/func/sub-02_ses-2_task-new_bold.nii.gz").unlink()
    write_bold(bids / "sub-02/ses-2/func/sub-02_ses-2_task-other_bold.nii.gz")
    run(bids, tmp_path / "study")
    assert waves() == {**first, "sub-02_ses-2_task-other": 2}
    pd.read_parquet(path).drop(columns="wave").to_parquet(path, index=False)
    run(bids, tmp_path / "study")
    assert set(waves().values()) == {0}


def test_the_study_is_complete_and_a_rerun_touches_nothing(bids, tmp_path, capsys):
    study = tmp_path / "study"
    run(bids, study)
    assert "4 recordings of 3 subjects; 4 eligible" in capsys.readouterr().out
    table = read_table(study / "onboarding/recordings.parquet")
    assert list(table.columns) == [*COLUMNS, "label_age", "label_group"]
    assert table.dtypes.astype(str).to_dict().items() >= COLUMNS.items()
    text = pd.read_csv(study / "onboarding/recordings.tsv", sep="\t", dtype=str)
    assert text["recording_id"].tolist() == table["recording_id"].tolist()
    recording = load_recording(
        study / "onboarding/recordings.parquet", "sub-02_ses-2_task-rest", bids
    )
    assert recording.bold_path.exists() and recording.t1w_path.exists()
    assert load_recording_of_anat(
        study / "onboarding/recordings.parquet", "sub-02_ses-1", bids
    ).id.startswith("sub-02")
    config = load_config(study / "config/config.yaml")
    assert config.eligibility.min_volumes == 10
    assert config.resolve_bids_dir(study) == bids.resolve()
    assert not config.bids_dir.is_absolute()
    for profile in ("local", "slurm"):
        assert (study / profile / "config.yaml").is_file()
    described = json.loads((study / "derivatives/brainlm/dataset_description.json").read_text())
    assert described["DatasetType"] == "derivative"
    before = snapshot(study)
    assert str(tmp_path).encode() not in b"".join(content for content, _ in before.values())
    run(bids, study)
    assert snapshot(study) == before


def test_a_damaged_table_is_told_by_all_that_read_it(bids, tmp_path):
    run(bids, tmp_path / "study")
    path = tmp_path / "study/onboarding/recordings.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    for read in (read_table, read_rows, lambda path: load_recording(path, "sub-1", bids)):
        with pytest.raises(InputError, match="table is damaged"):
            read(path)


def test_a_changed_dataset_changes_the_table_and_its_page_alone(bids, tmp_path):
    study = tmp_path / "study"
    run(bids, study)
    (study / "config/profiles/slurm/config.yaml").write_text("# mine\n")
    before = snapshot(study)
    write_bold(bids / f"{BOLD}.nii.gz", 12)
    run(bids, study)
    changed = {name for name, state in snapshot(study).items() if before[name] != state}
    names = {"recordings.parquet", "recordings.tsv", "report.html"}
    assert changed == {f"onboarding/{name}" for name in names}


def test_an_atlas_that_is_not_ready_is_told_before_the_first_run(
    bids, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("BRAINLM_CACHE", str(tmp_path / "empty"))
    run(bids, tmp_path / "study", atlas="A424")
    told = capsys.readouterr().err
    assert "brainlm atlas get A424" in told
    assert "atlas.space_ok: true" in told
    run(bids, tmp_path / "other", atlas="A424approx")
    assert "before the first run" not in capsys.readouterr().err


def test_a_target_that_the_labels_do_not_serve_is_told_before_the_first_run(bids, tmp_path, capsys):
    """Not by the fine-tuning, which begins when a pretraining has ended."""
    study = tmp_path / "study"
    told = {
        "{name: IQ}": "No recording has a label 'IQ'.*choose of age, group",
        "{name: group}": "label group is no number",
        "{name: group, kind: binary, positive: Patient}": "label group of .* one value alone",
    }
    for target, problem in told.items():
        run(bids, study, "eligibility.min_volumes=10", f"finetune.targets=[{target}]")
        said = " ".join(capsys.readouterr().err.split())
        assert re.search(f"before the first run: .*{problem}", said), (target, said)
        shutil.rmtree(study)
    settings = ("eligibility.min_volumes=10", "finetune.targets=[{name: IQ}]")
    run(bids, study, *settings, atlas="A424approx")
    with pytest.raises(InputError, match="No recording has a label 'IQ'"):
        check(study)
    config = study / "config/config.yaml"
    with pytest.raises(InputError, match="labels IQ, which no recording has"):
        Dag(yaml.safe_load(config.read_text()), study)


def test_a_new_study_takes_the_space_of_its_atlas_where_that_is_here(
    bids, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("brainlm.atlas.fetch.is_here", lambda name: True)
    for settings, template in [
        ((), "MNI152NLin6Asym"),
        (("space.template=MNI152NLin2009aSym",), "MNI152NLin2009aSym"),
        (("atlas.name=A424approx",), "MNI152NLin2009aSym"),
    ]:
        study = tmp_path / template / str(len(settings)) / "-".join(settings)[:5]
        for _ in range(2):  # the second time, the config is the user's
            run(bids, study, "eligibility.min_volumes=10", *settings)
        assert load_config(study / "config/config.yaml").space.template == template
        assert f"space: {template}" in capsys.readouterr().out
    monkeypatch.setattr("brainlm.atlas.fetch.is_here", lambda name: False)
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path / "none"))
    monkeypatch.setenv("BRAINLM_CACHE", str(tmp_path / "none"))
    run(bids, tmp_path / "asked", "eligibility.min_volumes=10", "space.template=MNI152NLin6Asym")
    assert "brainlm template get MNI152NLin6Asym" in capsys.readouterr().err


def test_a_preset_sets_what_goes_together_and_a_setting_overrules_it(bids, tmp_path):
    study = tmp_path / "study"
    with pytest.raises(InputError, match="no preset called 'xcpd'") as told:
        onboard(bids, study, preset="xcpd")
    assert told.value.fix == f"choose of {', '.join(study_presets())}"
    assert not study.exists()
    settings = ["eligibility.min_volumes=10", "denoise.scrub_fd_mm=0.4"]
    onboard(bids, study, settings=settings, preset="xcpd-abcd")
    made = load_config(study / "config" / "config.yaml").denoise
    assert (made.method, made.low_pass_s, made.scrub) == ("36p", 12.5, "interpolate")
    assert made.scrub_fd_mm == 0.4
    onboard(bids, study, preset="xcpd-abcd", settings=settings)  # it holds that already
    for name in study_presets():
        parse_config(load_study_preset(name), source=name)


def test_an_existing_config_is_kept(bids, tmp_path):
    study = tmp_path / "study"
    run(bids, study, "seed=3", atlas="A424approx")
    path = study / "config/config.yaml"
    path.write_text(path.read_text() + "# mine\n")
    onboard(bids, study)
    assert path.read_text().endswith("# mine\n")
    run(bids, study, "seed=3")
    with pytest.raises(InputError, match="has a config already"):
        run(bids, study, "seed=4")
    with pytest.raises(InputError, match="motoin"):
        path.write_text("motoin: {}\n")
        run(bids, study, "seed=3")
    path.write_text("bids_dir: elsewhere\n")
    with pytest.raises(InputError, match="another BIDS dataset"):
        run(bids, study, "seed=3")


def test_what_the_user_gives_wrong_is_told_before_anything_is_written(bids, tmp_path):
    study = tmp_path / "study"
    for folder, settings, fault in [
        (tmp_path / "absent", (), "does not exist"),
        (tmp_path, (), "no folder called sub-"),
        (bids, ("motion.iteration=3",), "motion.iteration"),
        (bids, ("seed=one",), "seed"),
    ]:
        with pytest.raises(InputError, match=fault):
            run(folder, study, *settings)
        assert not study.exists()
    with pytest.raises(InputError, match="only ever read"):
        run(bids, bids)
    for image in bids.rglob("*_bold.nii*"):
        image.unlink()
    with pytest.raises(InputError, match="holds no BOLD run"):
        run(bids, study)


def test_a_study_without_eligible_runs_is_written_and_says_why(bids, tmp_path, capsys):
    onboard(bids, tmp_path / "study")  # all shorter than the 200 of the defaults
    printed = capsys.readouterr()
    assert "0 eligible" in printed.out
    assert "and 3 more: too short: 20 volumes, at least 200 are needed" in printed.out
    assert "no recording is eligible" in printed.err
    assert Config().eligibility.min_volumes == 200


def test_real_data_with_its_real_quirks(shared_data):
    source = shared_data / "real" / "studyforrest"
    if not source.is_dir():
        pytest.skip("no real fMRI here")
    row = table_of(source).iloc[0]
    assert row.eligible
    assert (row.n_volumes, row.tr) == (156, 1.79355)
    assert row.anat_id == "sub-01"
    assert "RepetitionTimeExcitation (2 s) is longer" in row.notes

"""What the workflow looks up: memory of a run, and what makes the atlas stale."""

from __future__ import annotations

import getpass
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from brainlm.dag import Dag, prepare_environment
from brainlm.errors import InputError
from brainlm.layout import ONLY_BATCH
from brainlm.recordings import COLUMNS
from brainlm.resources import share_dir

ID = "sub-01_task-rest"
RUN = SimpleNamespace(recording=ID)


def study_of(root: Path, shape: str = "[104, 90, 72]", n_volumes: int = 1200) -> Path:
    row: dict[str, object] = dict.fromkeys(COLUMNS)
    row |= {"recording_id": ID, "subject": "01", "bold": "x_bold.nii.gz", "eligible": True}
    row |= {"shape": shape, "n_volumes": n_volumes, "tr": 0.72}
    (root / "onboarding").mkdir(parents=True)
    table = pd.DataFrame([row])[list(COLUMNS)].astype(COLUMNS).assign(label_age=40, label_sex="F")
    table.to_parquet(root / "onboarding" / "recordings.parquet")
    return root


def test_memory_follows_the_size_of_the_run(tmp_path: Path) -> None:
    """A run of the Human Connectome Project does not fit where one of 200 volumes does."""
    long = Dag({}, study_of(tmp_path / "long"))
    assert long.raw_mb(RUN) == pytest.approx(1000 + 104 * 90 * 72 * 1200 * 4 / 1e6, abs=1)
    assert long.brain_mb(RUN, 2) == pytest.approx(1000 + 2 * 237_500 * 1200 * 4 / 1e6, abs=1)
    aroma = Dag({"denoise": {"method": "aroma"}}, tmp_path / "long")
    assert aroma.straight_mb(RUN) > aroma.brain_mb(RUN, 3)  # as much as `ica` by itself
    plain = Dag({"denoise": {"method": "motion24"}}, tmp_path / "long")
    assert plain.straight_mb(RUN) < plain.brain_mb(RUN, 2)
    short = Dag({}, study_of(tmp_path / "short", "[64, 64, 36]", 200))
    assert short.raw_mb(RUN) == 1118
    fine = Dag({"space": {"resolution_mm": 1}}, tmp_path / "short")
    assert fine.brain_mb(RUN, 1) == short.brain_mb(RUN, 8)


def test_tasks_are_run_where_the_config_names_them_and_a_model_is_made(tmp_path: Path) -> None:
    targets = [{"name": "age"}, {"name": "sex", "kind": "binary", "positive": "F"}]
    every = Dag({"finetune": {"targets": targets, "forecast": True}}, study_of(tmp_path))
    assert every.wants("forecast")
    assert not every.wants("scaling")
    assert sum("/clinical-" in path for path in every.evaluations) >= 2
    assert not any("{" in path for path in every.evaluations)
    assert not Dag({"finetune": {"targets": targets}}, tmp_path).wants("forecast")
    only = Dag({"evaluate": {"tasks": ["reconstruction"]}}, tmp_path)
    assert only.evaluations == ["evaluation/brainlm/reconstruction/metrics.json"]
    assert only.evaluation_ends == [*only.evaluations, "evaluation/brainlm/index.html"]
    assert Dag({"evaluate": {"tasks": []}}, tmp_path).evaluation_ends == []
    with pytest.raises(InputError, match="twice"):
        Dag({"evaluate": {"tasks": ["clinical", "clinical"]}}, tmp_path)


def test_a_table_made_by_hand_is_an_input_of_denoising_both_ways(tmp_path: Path) -> None:
    review = f"review/{ID}_desc-aroma_metrics.tsv"
    study, aroma = study_of(tmp_path), {"denoise": {"method": "aroma"}}
    assert Dag(aroma, study).review_of(RUN) == []
    (study / review).parent.mkdir()
    (study / review).touch()
    assert Dag(aroma, study).review_of(RUN) == [review]
    assert review in Dag(aroma, study).components_of(RUN)
    assert Dag({"denoise": {"method": "motion24"}}, study).review_of(RUN) == []
    straight = (share_dir() / "workflow/rules/straight.smk").read_text()
    assert "=study.review_of," in straight.split("    output:")[0]


def _batch(study: Path, content: dict[str, Any]) -> Dag:
    """The workflow run of a batch of one recording."""
    return Dag({**content, ONLY_BATCH: {"number": "0000", "recordings": [ID]}}, study)


def _with_another(study: Path, **columns: object) -> Path:
    """The study with a second subject, whose row differs in these columns."""
    path = study / "onboarding" / "recordings.parquet"
    table = pd.read_parquet(path)
    other = {"recording_id": "sub-02_task-rest", "subject": "02", **columns}
    rows = [*table.to_dict("records"), {**table.to_dict("records")[0], **other}]
    pd.DataFrame(rows).to_parquet(path)
    return study


def test_a_batch_needs_nothing_of_the_cohort(tmp_path: Path) -> None:
    """An external cohort may be in other batches, and so may all families."""
    study = _with_another(study_of(tmp_path), dataset="elsewhere", label_family="x")
    for split in ({"external": {"dataset": ["elsewhere"]}}, {"family": "family"}):
        assert set(Dag({"split": split}, study).splits) == {"01", "02"}
        assert _batch(study, {"split": split}).each("timeseries")


def test_a_batch_is_stale_with_its_recordings_options_and_classifier(tmp_path: Path) -> None:
    study = _with_another(study_of(tmp_path))
    (study / "own.py").write_text("one")
    ica = {"denoise": {"method": "aroma"}, "ica": {"classifier": ["own.py"]}}
    first = SimpleNamespace(batch="0000")

    def content(**changed: Any) -> str:
        return Dag({"jobs": {"recordings_per_job": 2}, **ica, **changed}, study).batch_content(
            first
        )

    seen = [content()]
    assert content(pretrain={"epochs": 7}) == seen[0]
    (study / "own.py").write_text("two")
    seen += [content(), content(motion={"iterations": 1})]
    path = study / "onboarding" / "recordings.parquet"
    table = pd.read_parquet(path)
    table.assign(bold_sha256=["another", None]).astype({"bold_sha256": "string"}).to_parquet(path)
    seen.append(content())
    assert len(set(seen)) == len(seen)


def test_a_series_that_was_lost_makes_its_batch_stale(tmp_path: Path) -> None:
    dag = Dag({"jobs": {"recordings_per_job": 2}}, study_of(tmp_path))
    batch = SimpleNamespace(batch="0000")
    first = dag.batch_content(batch)  # nothing has been made yet, and so nothing lost
    made = [*dag.parcellations, *dag.each("timeseries"), *dag.each("motion")]
    for path in made:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert dag.batch_content(batch) == first
    (tmp_path / dag.each("timeseries")[0]).unlink()
    assert dag.batch_content(batch) != first


def test_a_batch_has_the_memory_of_its_hungriest_stage(tmp_path: Path) -> None:
    options = {"jobs": {"recordings_per_job": 2}, "denoise": {"method": "motion24"}}
    long = Dag(options, study_of(tmp_path, "[10, 10, 10]", 4000))
    assert long.batch_mb(SimpleNamespace(batch="0000")) >= long.brain_mb(RUN, 2)


def test_an_atlas_that_changed_under_its_name_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of(tmp_path / "study")
    registry, table, image = (tmp_path / name for name in ("own.yaml", "own.tsv", "own.nii.gz"))
    registry.write_text(
        "atlases: [{name: own, table: own.tsv, path: own.nii.gz, n_labels: 1, space: MNI}]"
    )
    table.write_text("index\tname\tx\ty\tz\n1\tA\t0\t0\t0\n")
    image.write_bytes(b"one")
    monkeypatch.setenv("BRAINLM_REGISTRY", str(registry))

    def content(name: str) -> str:
        return Dag({"atlas": {"name": name}}, study).atlas_content()

    seen = [content("own")]
    assert content("own") == seen[0]
    image.write_bytes(b"two")
    seen.append(content("own"))
    table.write_text(table.read_text() + "2\tB\t1\t1\t1\n")
    seen += [content("own"), content("A424"), content("A424thin")]
    assert len(set(seen)) == len(seen)


def test_a_scaler_cannot_be_fitted_from_itself(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    with pytest.raises(InputError, match="the very file"):
        Dag({"scale": {"fitted": "cohort/scaler.safetensors"}}, study)
    assert Dag({"scale": {"fitted": "config/frozen.safetensors"}}, study).fit_shards == []


def test_a_user_without_a_name_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that is started as any number: Snakemake would end with a KeyError."""

    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    for name in ("LOGNAME", "PATH", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, os.environ.get(name, "1"))
    for name in ("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "ANTS_RANDOM_SEED"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(getpass, "getuser", nobody)
    prepare_environment()
    assert os.environ["LOGNAME"] == str(os.getuid())

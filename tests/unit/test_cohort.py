"""Who enters the cohort, and who trains, validates and tests."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from brainlm.cli._parcel_series import parcel_names, planned_shards, read_recording
from brainlm.cli._stage import StageRun
from brainlm.cli.cohort import cohort
from brainlm.errors import DataError, InputError
from brainlm.files import write_json
from brainlm.layout import Study, folder_of
from brainlm.shards.harmonise import Timing
from brainlm.shards.selection import Finished, Quality, check_enough_is_left, select
from brainlm.shards.timing import resample

from .synthetic_cohort import (
    FIELDS,
    series_path,
    simulate,
    write_recording,
    write_recordings,
    write_study,
)

QUALITY = Quality(min_volumes=200, max_mean_fd_mm=0.5, min_parcels=0.8, max_excluded=0.5)


def _recordings(n: int) -> pd.DataFrame:
    ids = [f"sub-{number}_task-rest" for number in range(n)]
    return pd.DataFrame(
        {"recording_id": ids, "eligible": True, "reason": None, "n_volumes": 300, "tr": 2.0}
    )


def test_the_rules_of_quality() -> None:
    recordings = _recordings(4)
    ids = list(recordings["recording_id"])
    finished = {
        ids[0]: Finished(ids[0], mean_fd=0.5, share_parcels=0.8),  # on both limits: in
        ids[1]: Finished(ids[1], mean_fd=0.51, share_parcels=0.79),
        ids[2]: Finished(ids[2], "motion", "the image is blank"),
        ids[3]: Finished(ids[3], mean_fd=float("nan"), share_parcels=1.0),
    }
    selection = select(recordings, finished, QUALITY)
    assert list(selection.included["recording_id"]) == ids[:1]
    reasons = dict(
        zip(selection.exclusions["recording_id"], selection.exclusions["reason"], strict=True)
    )
    assert reasons[ids[1]] == "mean FD above 0.5 mm; parcels with a series below 80%"
    assert reasons[ids[2]] == "the image is blank"
    assert reasons[ids[3]] == "mean FD above 0.5 mm"
    with pytest.raises(DataError, match="75% of 4 eligible"):
        check_enough_is_left(selection, QUALITY)


def test_a_run_that_scrubbing_left_too_short_is_out() -> None:
    recordings = _recordings(3)
    finished = {
        name: Finished(name, mean_fd=0.1, share_parcels=1, n_left=left)
        for name, left in zip(recordings["recording_id"], (200, 199, None), strict=True)
    }
    selection = select(recordings, finished, QUALITY)
    assert list(selection.included["n_timepoints"]) == [200, 300]
    assert list(selection.exclusions["reason"]) == ["scrubbing leaves 199 volumes, fewer than 200"]


def test_losing_too_many_tells_the_most_frequent_reasons() -> None:
    recordings = _recordings(10)
    finished = {
        name: Finished(name, "motion", "blank") if number < 6 else Finished(name, mean_fd=9)
        for number, name in enumerate(recordings["recording_id"])
    }
    with pytest.raises(DataError, match="Most frequent: 6 x motion: blank; 4 x cohort: mean FD"):
        check_enough_is_left(select(recordings, finished, QUALITY), QUALITY)


def test_the_command_lists_each_exclusion_with_its_reason(tmp_path) -> None:
    study = write_study(tmp_path / "study", {"train": 4, "val": 2, "test": 2}, runs=2)
    table = pd.read_parquet(study.path("recordings"))
    table.loc[0, ["eligible", "reason"]] = [False, "TR is missing"]
    write_recordings(study, table)
    ids = list(table["recording_id"])
    rng = np.random.default_rng(0)
    series_path(study, ids[1]).write_bytes(b"")
    ledger = study.path("failure", recording=ids[1])
    failure = {"stage": "motion", "what": "the head left the field of view"}
    write_json(ledger, {**failure, "file": "bold.nii.gz", "fix": "scan again"})
    write_recording(study, ids[2], simulate(0, 60, rng), mean_fd=2.0)
    covered = simulate(0, 60, rng)
    covered[:, :4] = np.nan
    write_recording(study, ids[3], covered)
    series_path(study, ids[4]).unlink()
    stranger = study.path("coverage", recording=ids[5], folder=folder_of(ids[5]), **FIELDS)
    sidecar = stranger.with_suffix(".json")
    sidecar.write_text(sidecar.read_text().replace('"sub": "03"', '"sub": "99"'))

    cohort(study.root)

    lost = pd.read_csv(study.path("exclusions"), sep="\t").set_index("recording_id")
    assert list(lost.index) == ids[:6]
    assert list(lost["stage"]) == ["onboard", "motion", "cohort", "cohort", "parcellate", "cohort"]
    assert lost.loc[ids[0], "reason"] == "TR is missing"
    assert lost.loc[ids[1], "reason"] == "the head left the field of view"
    assert list(lost.loc[ids[1], ["file", "fix"]]) == ["bold.nii.gz", "scan again"]
    assert "mean FD" in lost.loc[ids[2], "reason"]
    assert "parcels" in lost.loc[ids[3], "reason"]
    assert "has not been made" in lost.loc[ids[4], "reason"]
    assert "'99'" in lost.loc[ids[5], "reason"]

    kept = pd.read_parquet(study.path("cohort"))
    assert list(kept["recording_id"]) == ids[6:]
    first = kept.iloc[0]
    assert first["mean_fd"] == pytest.approx(0.1)
    assert first["share_parcels"] == 1.0
    data = (study.root / first["timeseries"]).read_bytes()
    assert first["timeseries_sha256"] == hashlib.sha256(data).hexdigest()
    splits = pd.read_csv(study.path("splits"), sep="\t", dtype=str)
    assert set(splits["subject"]) == set(kept["subject"])
    assert {"label_score", "label_group", "split"} <= set(kept.columns)

    kinds = ("cohort", "splits", "exclusions")
    before = [study.path(kind).read_bytes() for kind in kinds]
    cohort(study.root)
    assert [study.path(kind).read_bytes() for kind in kinds] == before


def _replace_in_sidecar(path: Path, **changes: Any) -> None:
    sidecar = path.with_suffix(".json")
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), **changes}))


def test_files_that_cannot_be_used_are_left_out_with_file_and_fix(tmp_path) -> None:
    """One recording each; the rest of the cohort goes on."""
    study = write_study(tmp_path / "study", {"train": 8, "val": 2, "test": 2})
    ids = [f"sub-{number:02d}_task-rest_run-1" for number in range(1, 13)]
    rng = np.random.default_rng(0)
    write_recording(study, ids[0], simulate(0, 60, rng)[:59])
    path = series_path(study, ids[1])
    path.write_bytes(path.read_bytes()[:-100])
    path = series_path(study, ids[2])
    table = pq.read_table(path)
    pq.write_table(table.select(table.column_names[:-1]), path)
    _replace_in_sidecar(series_path(study, ids[3]), Atlas="Schaefer400")
    coverage = study.path("coverage", recording=ids[4], folder=folder_of(ids[4]), **FIELDS)
    coverage.write_text("\n".join(coverage.read_text().splitlines()[:-1]) + "\n")
    series_path(study, ids[5]).with_suffix(".json").unlink()

    cohort(study.root)

    lost = pd.read_csv(study.path("exclusions"), sep="\t").set_index("recording_id")
    assert list(lost.index) == ids[:6]
    for name, told in zip(
        ids,
        (
            "not as many volumes as the run",
            "cannot be read",
            "has 7 parcels that are not the 8",
            "is of the atlas Schaefer400, the study's is A424",
            "table of coverage has 7 parcels",
            "has no sidecar",
        ),
        strict=False,
    ):
        row = lost.loc[name]
        assert told in row["reason"], name
        if name == ids[0]:
            assert "delete it and rerun" in row["reason"]
        else:
            assert row["file"].startswith(f"derivatives/brainlm/{name[:6]}/func/{name}_space-")
            assert "rerun" in row["fix"], name
    assert len(pd.read_parquet(study.path("cohort"))) == 6


def test_damaged_tables_and_sidecars_lose_their_recording_alone(tmp_path) -> None:
    """Whatever bytes a disk left: the others go on."""
    study = write_study(tmp_path / "study", {"train": 14, "val": 2, "test": 2})
    ids = [f"sub-{number:02d}_task-rest_run-1" for number in range(1, 9)]

    def file(name: str, kind: str) -> Path:
        return study.path(kind, recording=name, folder=folder_of(name), **FIELDS)

    file(ids[0], "coverage").write_bytes(b"\xff\xfe\x00x")
    file(ids[1], "coverage").write_text("\n")
    coverage = file(ids[2], "coverage")
    coverage.write_text(coverage.read_text().replace("1.0", "x"))
    file(ids[3], "motion").write_bytes(b"framewise_displacement\n\xff\xfe\n")
    series_path(study, ids[4]).with_suffix(".json").write_bytes(b"\xff\xfe")
    series_path(study, ids[5]).with_suffix(".json").write_text("[1, 2]")
    _replace_in_sidecar(file(ids[6], "coverage"), Parameters={})
    series_path(study, ids[7]).write_bytes(b"")
    write_json(study.path("failure", recording=ids[7]), ["not a failure"])

    cohort(study.root)

    lost = pd.read_csv(study.path("exclusions"), sep="\t").set_index("recording_id")
    told = ["no usable column coverage"] * 3 + ["no usable column framewise_displacement"]
    told += ["not valid JSON"] * 2 + ["what coverage was asked for", "qc/failures is missing"]
    for name, why in zip(ids, told, strict=True):
        assert why in lost.loc[name, "reason"], name
    assert list(lost.index) == ids
    assert lost.loc[ids[:7], ["file", "fix"]].notna().all(axis=None)


def test_values_that_broke_later_are_told_when_they_are_read(tmp_path) -> None:
    """The stage that makes a series refuses them; whoever reads it looks at every value again."""
    study = write_study(tmp_path / "study", {"train": 2, "val": 1, "test": 1})
    ids = [f"sub-{number:02d}_task-rest_run-1" for number in range(1, 5)]
    rng = np.random.default_rng(0)
    for name, value in zip(ids, (np.inf, np.nan), strict=False):
        series = simulate(0, 60, rng)
        series[3, 2] = value
        write_recording(study, name, series)
    cohort(study.root)
    rows = {r["recording_id"]: r for path in plans(study) for r in pq.read_table(path).to_pylist()}
    names = parcel_names(study.path("atlas_table", **FIELDS))
    for name, told in zip(ids, ("infinite values", "NaN at some time points"), strict=False):
        with pytest.raises(DataError, match=told) as caught:
            read_recording(study.root, rows[name], names)
        assert name in str(caught.value.file) and "rerun" in str(caught.value.fix)
    path = series_path(study, ids[2])
    path.write_bytes(path.read_bytes() + b"0")
    with pytest.raises(DataError, match="has changed since the cohort was selected"):
        read_recording(study.root, rows[ids[2]], names)
    data = bytearray(path.read_bytes())
    data[20:400] = bytes(380)
    path.write_bytes(data)
    damaged = {**rows[ids[2]], "timeseries_sha256": hashlib.sha256(data).hexdigest()}
    with pytest.raises(DataError, match="cannot be read") as caught:
        read_recording(study.root, damaged, names)
    assert ids[2] in str(caught.value.file)


OTHER_TR = ("sub-01_task-rest_run-1", "sub-02_task-rest_run-1", "sub-03_task-rest_run-1")


def _study_of_many_trs(root: Path, timing: dict[str, Any]) -> Study:
    """TR 2 s; but 2.01 s, 1 s and 4 s of the first three subjects."""
    options = {"timing": timing, "eligibility": {"min_volumes": 35}}
    study = write_study(root, {"train": 6, "val": 2, "test": 2}, options=options)
    table = pd.read_parquet(study.path("recordings"))
    table.loc[:2, "tr"] = [2.01, 1.0, 4.0]
    write_recordings(study, table)
    return study


def test_one_tr_for_all(tmp_path, capsys) -> None:
    study = _study_of_many_trs(tmp_path / "study", {"tr": 2.0})
    path = series_path(study, OTHER_TR[2])
    _replace_in_sidecar(path, CensoredVolumes=[10], Scrubbing="interpolate")

    cohort(study.root)

    told = capsys.readouterr().out
    assert "TR 2 s for all; recorded: 2 s (7), 2.01 s (1), 4 s (1); 1 resampled" in told
    assert "1 of them from a longer TR: that adds samples, but no information" in told
    lost = pd.read_csv(study.path("exclusions"), sep="\t").set_index("recording_id")["reason"]
    assert dict(lost) == {OTHER_TR[1]: "fewer than 35 volumes at the 2 s of timing.tr"}
    table = pd.read_parquet(study.path("cohort")).set_index("recording_id")
    assert set(table["tr"]) == {2.0}
    taken = table.loc[[OTHER_TR[0], OTHER_TR[2]], ["source_tr", "resampled", "n_timepoints"]]
    assert taken.to_numpy().tolist() == [[2.01, False, 60], [4.0, True, 119]]

    rows = {
        r["recording_id"]: r for f in sorted(plans(study)) for r in pq.read_table(f).to_pylist()
    }
    assert set(rows) == set(table.index)
    names = parcel_names(study.path("atlas_table", **FIELDS))
    same = read_recording(study.root, rows[OTHER_TR[0]], names)
    stored = pq.read_table(series_path(study, OTHER_TR[0])).to_pandas().to_numpy().T
    assert (same.values == stored).all() and same.counted.all()
    other = read_recording(study.root, rows[OTHER_TR[2]], names)
    stored = pq.read_table(path).to_pandas().to_numpy().T
    assert other.values == pytest.approx(resample(stored, 4.0, 2.0))
    assert np.flatnonzero(~other.counted).tolist() == [19, 20, 21]
    wrong = {**rows[OTHER_TR[2]], "n_timepoints": 60}
    with pytest.raises(DataError, match="gives 119 volumes, the cohort's plan says 60"):
        read_recording(study.root, wrong, names)


def plans(study: Study) -> list[Path]:
    return list(study.path("shard_plan", shard="any").parent.glob("*.parquet"))


def test_other_trs_can_be_left_out(tmp_path) -> None:
    study = _study_of_many_trs(tmp_path / "study", {"tr": 2.0, "other": "exclude"})
    cohort(study.root)
    lost = pd.read_csv(study.path("exclusions"), sep="\t").set_index("recording_id")["reason"]
    assert dict(lost) == {
        OTHER_TR[1]: "TR 1 s is not the 2 s of timing.tr",
        OTHER_TR[2]: "TR 4 s is not the 2 s of timing.tr",
    }


def test_without_a_tr_for_all_differing_ones_are_told(tmp_path, capsys) -> None:
    study = _study_of_many_trs(tmp_path / "study", {})
    cohort(study.root)
    assert "different TRs: 1 s (1), 2 s (7), 2.01 s (1), 4 s (1)" in capsys.readouterr().err
    table = pd.read_parquet(study.path("cohort"))
    assert (table["tr"] == table["source_tr"]).all() and not table["resampled"].any()
    alike = write_study(tmp_path / "alike", {"train": 2, "val": 1, "test": 1})
    cohort(alike.root)
    assert "TRs" not in capsys.readouterr().err


def test_what_scrubbing_shortened_cannot_be_resampled() -> None:
    recordings = _recordings(4).assign(tr=[2.0, 1.0, 1.0, None], n_volumes=[300, 300, 600, 300])
    recordings["tr"] = recordings["tr"].astype("Float64")
    finished = {
        name: Finished(name, mean_fd=0.1, share_parcels=1, n_left=left, gaps=left is not None)
        for name, left in zip(recordings["recording_id"], (250, 250, None, None), strict=True)
    }
    selection = select(recordings, finished, QUALITY, Timing(2.0, 0.01, "resample"))
    assert list(selection.included["n_timepoints"]) == [250, 300]
    reasons = list(selection.exclusions["reason"])
    assert "set denoise.scrub: interpolate" in reasons[0] and "TR is unknown" in reasons[1]


def test_censored_volumes_are_those_of_the_stored_series(tmp_path) -> None:
    """Sidecars count in the raw run; another program may have shortened it before."""
    study = _study_of_many_trs(tmp_path / "study", {"tr": 2.0})
    table = pd.read_parquet(study.path("recordings"))
    ids = list(table["recording_id"])
    table.loc[[4, 5, 6], "n_volumes"] = 66
    table.loc[[5, 6], "tr"] = 4.0
    write_recordings(study, table)
    shortened = [*range(10), *range(16, 66)]
    for name, kept, marked in (
        (ids[4], shortened, [*range(10, 16), 20, 21]),  # cut there, then filled in here
        (ids[5], list(range(3, 63)), [0, 1, 2, 63, 64, 65]),  # nothing is missing between
        (ids[6], shortened, list(range(10, 16))),
    ):
        _replace_in_sidecar(series_path(study, name), KeptVolumes=kept, CensoredVolumes=marked)
    cohort(study.root)
    found = pd.read_parquet(study.path("cohort")).set_index("recording_id")
    assert list(found.loc[ids[4], "censored"]) == [14, 15]
    assert list(found.loc[ids[5], "censored"]) == []
    assert found.loc[ids[5], "resampled"] and found.loc[ids[5], "n_timepoints"] == 119
    lost = pd.read_csv(study.path("exclusions"), sep="\t").set_index("recording_id")
    assert "since scrubbing left volumes out" in lost.loc[ids[6], "reason"]


def test_strata_families_and_external_cohorts_through_the_command(tmp_path) -> None:
    options = {
        "split": {
            "table": None,
            "stratify": ["sex"],
            "family": "fam",
            "external": {"site": ["HCP"]},
        }
    }
    study = write_study(tmp_path / "study", {"train": 24}, options=options)
    table = pd.read_parquet(study.path("recordings"))
    table["label_sex"] = ["F", "M"] * 12
    table["label_fam"] = pd.array([1, 1, *range(2, 23), None], dtype="Float64")
    table["site"] = ["A"] * 21 + ["HCP"] * 3
    write_recordings(study, table)
    series_path(study, table["recording_id"][4]).write_bytes(b"")  # is drawn all the same

    cohort(study.root)

    made = pd.read_parquet(study.path("cohort"))
    assert len(made) == 23
    assert made.groupby("family")["split"].nunique().max() == 1
    assert set(made.loc[made["site"] == "HCP", "split"]) == {"test"}
    ledger = study.path("split_ledger")
    kept = pd.read_csv(ledger, sep="\t", comment="#", dtype=str)
    assert len(kept) == 21 and "05" in set(kept["subject"])
    drawn = dict(zip(kept["subject"], kept["split"], strict=True))
    inside = made[made["site"] != "HCP"]
    assert dict(zip(inside["subject"], inside["split"], strict=True)).items() <= drawn.items()
    proof = json.loads(study.path("leakage").read_text())
    assert proof["in_two_splits"] == {"families": 0, "series": 0, "subjects": 0}
    assert proof["decided_by"] == "stratified draw and ledger" and proof["family"] == "fam"
    assert sum(counts["recordings"] for counts in proof["splits"].values()) == 23
    planned = [row for path in plans(study) for row in pq.read_table(path).to_pylist()]
    assert {row["family"] for row in planned} == {None, *map(str, range(1, 23))} - {"4"}

    files = [ledger, study.path("leakage"), *plans(study)]
    before = {path: path.read_bytes() for path in files}
    written = ledger.stat().st_mtime_ns
    cohort(study.root)
    assert {path: path.read_bytes() for path in [*files[:2], *plans(study)]} == before
    assert ledger.stat().st_mtime_ns == written


def test_one_scan_under_two_names_is_told(tmp_path, capsys) -> None:
    """As where two releases of a dataset were put together."""
    study = write_study(tmp_path / "study", {"train": 2, "val": 1, "test": 1})
    series = simulate(0, 60, np.random.default_rng(0))
    for name in ("sub-01_task-rest_run-1", "sub-02_task-rest_run-1"):
        write_recording(study, name, series)
    cohort(study.root)
    assert "under different names" not in capsys.readouterr().err
    write_recording(study, "sub-04_task-rest_run-1", series)
    cohort(study.root)
    told = capsys.readouterr().err
    assert "1 parcel series stand in two splits under different names, e.g. sub-0" in told
    assert json.loads(study.path("leakage").read_text())["in_two_splits"]["series"] == 1


def test_a_ledger_that_is_not_used_is_told(tmp_path, capsys) -> None:
    study = write_study(tmp_path / "study", {"train": 2, "val": 1, "test": 1})
    study.path("split_ledger").write_text("")
    cohort(study.root)
    assert "split.stratify is empty" in capsys.readouterr().err


def test_labels_that_do_not_exist_are_told_with_those_that_do(tmp_path) -> None:
    options = {"split": {"table": None, "family": "clan"}}
    study = write_study(tmp_path / "study", {"train": 6}, options=options)
    with pytest.raises(InputError, match="labels clan, which no recording has") as caught:
        cohort(study.root)
    assert "site, dataset, score, group" in str(caught.value.fix)


def test_an_external_cohort_alone_needs_a_scaler_that_was_fitted_elsewhere(tmp_path) -> None:
    study = write_study(tmp_path / "study", {"test": 3})
    with pytest.raises(DataError, match="splits train and val"):
        cohort(study.root)
    config = study.path("config")
    config.write_text(json.dumps({**json.loads(config.read_text()), "scale": {"fitted": "x"}}))
    cohort(study.root)
    assert json.loads(study.path("leakage").read_text())["splits"]["train"]["subjects"] == 0


def test_parcels_are_counted_by_the_coverage_that_parcellation_asked_for(tmp_path) -> None:
    from brainlm.cli._cohort_files import mean_fd, share_of_parcels

    path = tmp_path / "coverage.tsv"
    pd.DataFrame({"coverage": [1.0, 0.5, 0.49, 0.0, np.nan]}).to_csv(path, sep="\t", na_rep="n/a")
    assert share_of_parcels(path, 0.5, 5) == pytest.approx(2 / 5)
    assert share_of_parcels(path, 0.0, 5) == pytest.approx(3 / 5)  # none at all is no series
    with pytest.raises(DataError, match="has 5 parcels, the study's atlas 8"):
        share_of_parcels(path, 0.5, 8)
    text = "trans_x\tframewise_displacement\n0\tn/a\n0\t0.1\n0\t0.3\n"
    assert mean_fd(text, path) == pytest.approx(0.2)
    with pytest.raises(DataError, match="framewise_displacement"):
        mean_fd("trans_x\n0\n", path)


def test_a_cohort_that_was_killed_between_its_plans_is_none(tmp_path, monkeypatch) -> None:
    study = write_study(tmp_path / "study", {"train": 4, "val": 2, "test": 2})
    cohort(study.root)
    written = []

    def killed(path: Path, rows: pd.DataFrame) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(path)
        path.write_bytes(b"x")

    with monkeypatch.context() as patch:
        patch.setattr("brainlm.shards.plan.write_plan", killed)
        with pytest.raises(KeyboardInterrupt):
            cohort(study.root)
    assert not study.path("cohort").exists()
    leftover = plans(study)[0].with_name(f".tmp-elsewhere-1-{plans(study)[0].name}")
    leftover.write_bytes(b"x")
    run = StageRun("scale", study.root, None)
    assert planned_shards(run) == ["test-00000", "train-00000", "val-00000"]
    cohort(study.root)
    assert not leftover.exists()


def test_an_empty_split_ends_with_a_salt_that_works(tmp_path) -> None:
    options = {"split": {"table": None, "train": 0.9, "val": 0.05, "salt": "x"}}
    study = write_study(tmp_path / "study", {"train": 6}, options=options)
    with pytest.raises(DataError, match="in the split") as caught:
        cohort(study.root)
    assert caught.value.fix is not None
    salt = caught.value.fix.rpartition("split.salt: ")[2]
    config = study.path("config")
    config.write_text(config.read_text().replace('"salt": "x"', f'"salt": "{salt}"'))
    cohort(study.root)
    assert set(pd.read_parquet(study.path("cohort"))["split"]) == {"train", "val", "test"}

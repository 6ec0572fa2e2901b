"""The comparison with the truth, against cases whose scores are known."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from brainlm.atlas import load_table
from brainlm.errors import DataError
from brainlm.files import write_json, write_text
from brainlm.geometry import params_from_pose, pose_from_params
from brainlm.layout import Study, entities_of
from brainlm.phantom import network, score
from brainlm.phantom.motion import motion_table
from brainlm.phantom.parameters import TRUTH, stream
from brainlm.phantom.traits import Traits
from brainlm.provenance import write_sidecar
from brainlm.recordings import COLUMNS

NAMES = list(load_table()["name"])


def true_motion(volumes: int = 50) -> np.ndarray:
    params = stream(1, "true motion").standard_normal((volumes, 6)) * 0.3
    params[:, 3:] /= 50
    return params - params[0]


def seen_from(reference: int, params: np.ndarray) -> np.ndarray:
    """The same movement as an estimate relative to another volume has it."""
    poses = [pose_from_params(row, np.zeros(3)) for row in params]
    back = np.linalg.inv(poses[reference])
    return np.array([params_from_pose(pose @ back, np.zeros(3)) for pose in poses])


@pytest.mark.parametrize("reference", [0, 25])
def test_the_choice_of_the_reference_volume_is_no_error(reference: int) -> None:
    params = true_motion()
    found = score.score_motion(motion_table(seen_from(reference, params)), motion_table(params))
    assert found.displacement_mm == pytest.approx(0, abs=1e-6)
    assert found.rot_deg == pytest.approx(0, abs=1e-6)
    assert found.fd_r > 0.999


def test_known_errors_are_measured() -> None:
    params = true_motion()
    wrong = params.copy()
    wrong[1:, 0] += 0.1
    wrong[1:, 5] += 0.01
    found = score.score_motion(motion_table(wrong), motion_table(params))
    share = 49 / 50  # the reference volume itself is right
    expected = np.sqrt(0.1**2 + 80**2 / 5 * 2 * 0.01**2) * share
    assert found.displacement_mm == pytest.approx(expected, rel=0.02)
    assert found.trans_mm == pytest.approx(0.1 * share / 3, rel=0.1)
    assert found.rot_deg == pytest.approx(np.rad2deg(0.01) * share / 3, rel=0.05)


def test_the_opposite_movement_scores_badly() -> None:
    params = true_motion()
    found = score.score_motion(motion_table(-params), motion_table(params))
    assert found.displacement_mm > 0.5
    with pytest.raises(DataError, match="50 volumes, the truth has 40"):
        score.score_motion(motion_table(params), motion_table(params[:40]))


def test_rms_displacement_is_that_of_points_in_a_sphere() -> None:
    rng = stream(1, "sphere")
    points = rng.uniform(-80, 80, (200_000, 3))
    points = points[np.linalg.norm(points, axis=1) <= 80]
    pose = pose_from_params([0.4, -0.2, 0.1, 0.01, 0.02, -0.015], np.zeros(3))
    moved = points @ pose[:3, :3].T + pose[:3, 3]
    expected = np.sqrt(((moved - points) ** 2).sum(axis=1).mean())
    assert score.rms_displacement((pose - np.eye(4))[None])[0] == pytest.approx(expected, rel=0.01)


def frame(values: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(values.astype(np.float32), columns=NAMES)


def true_series(volumes: int = 150, traits: Traits | None = None) -> pd.DataFrame:
    drawn = network.simulate(
        load_table(), traits or Traits(50, "F", 20), volumes * 2, 2.0, stream(1, "series")
    )
    return frame(drawn.at(np.arange(volumes) * 2.0))


def test_slow_drifts_and_gains_are_no_error_but_noise_is() -> None:
    truth = true_series()
    time = (np.arange(150) + 0.5) / 150
    drift = 50 * np.cos(np.pi * time * 5) + 7  # 120 s: slower than the cut-off
    noise = stream(1, "noise").standard_normal(truth.shape)
    same = score.score_series(frame(truth.to_numpy() * 3 + drift[:, None]), truth, 2.0, 100)
    assert same.min() > 0.999
    noisy = score.score_series(truth + 2 * noise, truth, 2.0, 100)
    assert 0.4 < noisy.median() < 0.8
    kept = score.score_series(frame(truth.to_numpy() + drift[:, None]), truth, 2.0, 0)
    assert kept.median() < 0.5


def test_the_high_pass_takes_what_is_slower_and_keeps_what_is_faster() -> None:
    time = (np.arange(100) + 0.5) / 100
    waves = np.cos(np.pi * time[:, None] * np.array([0, 1, 4, 5, 30]))
    left = score.high_passed(waves, 2.0, 100)  # 200 s: up to order 4
    assert left[:, :3] == pytest.approx(0, abs=1e-12)
    assert left[:, 3:] == pytest.approx(waves[:, 3:])


def test_parcels_left_out_stay_left_out() -> None:
    truth = true_series()
    recovered = truth.copy()
    recovered[NAMES[3]] = np.nan
    recovered[NAMES[5]] = 0.0
    r = score.score_series(recovered, truth, 2.0, 100)
    assert r.isna().sum() == 2
    assert r.drop([NAMES[3], NAMES[5]]).min() > 0.999
    with pytest.raises(DataError, match="lacks 1 parcels"):
        score.score_series(truth.drop(columns=NAMES[0]), truth, 2.0, 100)
    with pytest.raises(DataError, match="volumes"):
        score.score_series(truth.iloc[:-1], truth, 2.0, 100)


def test_the_order_of_parcels_is_taken_by_name() -> None:
    truth = true_series()
    assert score.score_series(truth[NAMES[::-1]], truth, 2.0, 100).min() > 0.999


def test_a_flip_is_noticed() -> None:
    truth = true_series()
    noise = stream(1, "flip").standard_normal(truth.shape)
    mirrored = truth.rename(columns={n: score.mirror_name(n) or n for n in NAMES})
    assert not score.looks_flipped(truth + noise, truth)
    assert score.looks_flipped(mirrored[NAMES] + noise, truth)


def test_every_parcel_off_the_midline_has_a_mirror() -> None:
    table = load_table()
    for name, side in zip(table["name"], table["hemisphere"], strict=True):
        other = score.mirror_name(name)
        assert (other in NAMES) == (side != "M")
        if other:
            assert score.mirror_name(other) == name


# --- the command --------------------------------------------------------------------------------

RUNS = ("sub-01_task-rest", "sub-02_task-rest", "sub-03_task-rest", "sub-04_task-rest")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study whose results are the truth itself, plus an early end and a broken subject."""
    bids, root = tmp_path / "bids", Study(tmp_path / "study")
    rows, traits = [], []
    for number, run in enumerate(RUNS):
        person = Traits(25.0 + 15 * number, "FM"[number % 2], 10.0 * number)
        series, motion = true_series(traits=person), motion_table(true_motion(150))
        folder = bids / TRUTH / run.split("_")[0] / "func"
        folder.mkdir(parents=True)
        motion.to_csv(folder / f"{run}_desc-truth_motion.tsv", sep="\t", index=False, na_rep="n/a")
        series.to_parquet(folder / f"{run}_desc-truth_timeseries.parquet")
        write_json(folder / f"{run}_desc-truth_timeseries.json", {"SamplingFrequency": 0.5})
        fields = {"recording": run, "folder": run.split("_")[0]}
        grid = {
            "space": "MNI152NLin2009aSym",
            "res": "2",
            "atlas": "A424approx",
            "estimator": "mean",
        }
        results = {"motion": root.path("motion", **fields)}
        results["timeseries"] = root.path("timeseries", **fields, **grid)
        results["motion"].parent.mkdir(parents=True)
        motion.to_csv(results["motion"], sep="\t", index=False, na_rep="n/a")
        if number == 1:  # given up at parcellation
            results.pop("timeseries").write_bytes(b"")
        else:
            sign = -1 if number == 3 else 1
            (series * sign).to_parquet(results["timeseries"])
        for path in results.values():
            write_sidecar(
                path,
                stage="test",
                code_digest="",
                entities=entities_of(run),
                sources={},
                parameters={},
                software={},
            )
        rows.append({**dict.fromkeys(COLUMNS), "recording_id": run, "subject": run[4:6]})
        traits.append(
            {
                "participant_id": run.split("_")[0],
                "age": person.age,
                "sex": person.sex,
                "score": person.score,
            }
        )
    pd.DataFrame(traits).to_csv(bids / TRUTH / "traits.tsv", sep="\t", index=False)
    broken = {"subject": "sub-04", "recordings": [RUNS[3]], "fault": "upside down"}
    write_json(
        bids / TRUTH / "phantom.json",
        {"recordings": list(RUNS), "corrupted": {"nan-volumes": broken}},
    )
    root.path("recordings").parent.mkdir(parents=True)
    pd.DataFrame(rows).to_parquet(root.path("recordings"))
    write_text(root.path("config"), "bids_dir: ../bids\natlas: {name: A424approx}\n")
    return root.root


def check(study: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "brainlm", "phantom-check", "--study", str(study)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_scores_what_is_there(study: Path) -> None:
    done = check(study)
    assert done.returncode == 0, done.stderr
    result = json.loads((study / "qc" / "phantom_truth.json").read_text())
    rows = {row["recording_id"]: row for row in result["recordings"]}
    assert rows[RUNS[0]]["parcel_r"] == pytest.approx(1)
    assert rows[RUNS[0]]["fd_r"] == pytest.approx(1)
    assert rows[RUNS[1]]["parcel_r"] is None
    assert rows[RUNS[1]]["displacement_mm"] == pytest.approx(0, abs=1e-5)
    assert rows[RUNS[3]]["parcel_r"] == pytest.approx(-1)
    assert rows[RUNS[3]]["corrupted"] == "nan-volumes"
    # The broken subject is in the table, not in the medians.
    assert result["median"]["parcel_r"] == pytest.approx(1)
    assert result["recordings_with_motion"] == 3
    assert result["recordings_with_series"] == 2
    assert result["traits"]["n"] == 2
    assert len(result["parcel_r"]) == 424
    assert result["Stage"] == "phantom-check"
    assert "onboarding/recordings.parquet" in result["Sources"]
    assert str(study) not in json.dumps(result)
    assert all(run in done.stdout for run in RUNS)
    assert result["space"]["study"] == result["space"]["truth"]
    assert "for that alone" not in done.stdout


def test_a_study_in_another_space_is_told_apart(study: Path) -> None:
    with (study / "config" / "config.yaml").open("a") as config:
        config.write("space: {template: MNI152NLin6Asym}\n")
    assert "parcel r is lower for that alone" in check(study).stdout
    before = (study / "qc" / "phantom_truth.json").read_bytes()
    assert check(study).returncode == 0
    assert (study / "qc" / "phantom_truth.json").read_bytes() == before


def test_another_subjects_file_is_refused(study: Path) -> None:
    func = study / "derivatives" / "brainlm"
    names = [func / run.split("_")[0] / "func" / f"{run}_desc-motion_timeseries" for run in RUNS]
    for extension in (".tsv", ".json"):
        swapped = Path(f"{names[0]}{extension}")
        swapped.write_bytes(Path(f"{names[1]}{extension}").read_bytes())
    done = check(study)
    assert done.returncode == 3
    assert "never rename" in done.stderr


def test_a_study_of_real_data_is_told_so(study: Path) -> None:
    (study.parent / "bids" / TRUTH / "phantom.json").unlink()
    done = check(study)
    assert done.returncode == 2
    assert "not a (complete) phantom" in done.stderr

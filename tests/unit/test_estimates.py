"""Estimates before a run follow the config, the rules, earlier jobs, the cluster and the disk."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from brainlm.cli.estimate import estimate as command
from brainlm.cluster.site import Partition, Site
from brainlm.config import Config, parse_config
from brainlm.errors import InputError
from brainlm.estimates import text
from brainlm.estimates.fit import Asked, partition_fits
from brainlm.estimates.plan import FIXED_MB, estimate
from brainlm.estimates.takes import Estimate
from brainlm.estimates.training import training_of
from brainlm.resources import share_dir
from tests.workflow.empty_study import make_study

ROW = {
    "recording_id": "sub-01_task-rest",
    "subject": "01",
    "anat_id": "sub-01",
    "t1w": "sub-01/anat/sub-01_T1w.nii.gz",
    "n_volumes": 200,
    "shape": "[64, 64, 36]",
    "kind": None,
    "fmap_kind": None,
    "pe_direction": "j",
    "wave": 0,
    "eligible": True,
}


def rows(count: int = 1, **changes) -> list[dict]:
    return [
        ROW
        | {
            "recording_id": f"sub-{n:03d}_task-rest",
            "subject": f"{n:03d}",
            "anat_id": f"sub-{n:03d}",
            "t1w": f"sub-{n:03d}/anat/sub-{n:03d}_T1w.nii.gz",
        }
        | changes
        for n in range(count)
    ]


def of(config: dict, runs: list[dict], study: Path = Path("nowhere")) -> Estimate:
    return estimate(parse_config(config, source="test"), runs, study, 424)


def stages(found: Estimate) -> dict:
    return {stage.stage: stage for stage in found.stages}


def test_time_and_disk_grow_with_the_runs_and_their_length():
    short, long = (stages(of({}, rows(n_volumes=n))) for n in (200, 400))
    for name in ("motion", "resample", "confounds", "denoise"):
        assert short[name].cpu_h < long[name].cpu_h < 2 * short[name].cpu_h
    assert long["resample"].passing == 2 * short["resample"].passing
    one, ten = of({}, rows(1)), of({}, rows(10))
    assert sum(ten.run_s) == pytest.approx(10 * sum(one.run_s))


def test_stages_are_those_of_the_options():
    assert "ica" not in stages(of({"denoise": {"method": "36p"}}, rows()))
    straight = of({"resample": {"output": "parcels"}}, rows())
    assert "resample-to-parcels" in stages(straight)
    assert straight.passing(8) == 0
    assert of({}, rows()).passing(8) > 5e7
    kept = of({"keep_intermediates": True}, rows())
    assert kept.kept > 5e7
    assert kept.passing(8) == 0
    without = stages(of({}, rows(t1w=None, anat_id=None)))
    assert "warp-bold" in without
    assert "coregister-bold" not in without
    finer = stages(of({"space": {"resolution_mm": 1}}, rows()))
    assert finer["denoise"].mem_mb > stages(of({}, rows()))["denoise"].mem_mb


def test_a_t1w_that_two_runs_share_is_normalised_once():
    runs = rows(2, t1w="sub-000/anat/sub-000_T1w.nii.gz", anat_id="sub-000")
    assert stages(of({}, runs))["normalize-anat"].times == 1


def test_files_of_other_pipelines_have_other_stages():
    parcels = rows(kind="parcels", shape=None, t1w=None, anat_id=None, n_volumes=None)
    assert "adopt-parcels" in stages(of({"engine": "derivatives"}, parcels))
    found = of({"engine": "fmriprep", "space": {"template": "MNI152NLin6Asym"}}, rows())
    assert stages(found)["fmriprep"].cpu_h is None
    assert "not measured" in "\n".join(text.table(found))


def test_memory_is_what_the_rules_ask_for():
    """A number that is changed in a rule must be changed here too."""
    asked = {}
    for path in sorted((share_dir() / "workflow/rules").glob("*.smk")):
        for part in re.split(r"^ *rule ", path.read_text(), flags=re.M):
            stage = re.search(r'"benchmarks/([a-z-]+)[./]', part)
            mem = re.search(r"mem_mb=lambda wildcards, attempt: (\d+) \* attempt", part)
            if stage and mem:
                asked[stage[1]] = int(mem[1])
    assert asked.items() >= FIXED_MB.items()


def benchmark(study: Path, stage: str, name: str, seconds: float, rss: str = "512.00") -> None:
    path = study / "benchmarks" / stage / name.split("_")[0] / f"{name}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"s\th:m:s\tmax_rss\n{seconds}\t0:00:10\t{rss}\n")


def test_earlier_jobs_of_the_study_count_more_than_the_model(tmp_path):
    runs = rows(5)
    model = stages(of({}, runs, tmp_path))["motion"]
    seconds = model.cpu_h * 3600 / 5
    for run, factor, rss in zip(runs, (3, 3, 30, 3), ("512.0", "NA", "700.5", "3.0"), strict=False):
        benchmark(tmp_path, "motion", run["recording_id"], factor * seconds, rss)
    (tmp_path / "benchmarks/motion/sub-004").mkdir()
    (tmp_path / "benchmarks/motion/sub-004/sub-004_task-rest.tsv").write_text("s\th:m:s\n")
    found = of({}, runs, tmp_path)
    motion = stages(found)["motion"]
    assert motion.cpu_h == pytest.approx(3 * model.cpu_h)
    assert motion.took.jobs == 4
    assert motion.took.peak_mb == 700.5
    assert sum(found.run_s) > sum(of({}, runs).run_s)
    assert "4 earlier jobs here" in "\n".join(text.table(found))


def test_a_few_earlier_jobs_tell_too_little(tmp_path):
    runs = rows(5)
    for run in runs[:2]:
        benchmark(tmp_path, "motion", run["recording_id"], 1e6)
    assert stages(of({}, runs, tmp_path))["motion"].took is None


def test_runs_that_are_done_are_not_counted_again(tmp_path):
    runs = rows(4)
    labels = Config().labels
    func = tmp_path / "derivatives/brainlm/sub-000/func"
    func.mkdir(parents=True)
    name = "sub-000_task-rest_space-{space}_res-{res}_atlas-{atlas}_stat-{estimator}_timeseries"
    (func / f"{name.format(**labels)}.parquet").touch()
    found = of({}, runs, tmp_path)
    assert found.done == 1
    assert found.left_h < 0.8 * found.cpu_h
    assert found.needed(1) < found.kept + found.passing(1)


def test_large_numbers_are_told_as_people_write_them():
    assert [text.number_text(value) for value in (0, 2.8e-5, 0.0312, 999.7, 1462.3)] == [
        *("0", "<0.001", "0.0312", "1,000", "1,462")
    ]
    assert text.size_text(999.7e9) == "1,000 GB"
    assert "e+" not in " ".join(text.short(of({}, rows(20_000)), 2))


def test_more_jobs_end_sooner_down_to_one_job():
    found = of({}, rows(75))  # the profile's batches are of 25
    assert len(found.batches) == 3
    assert found.cluster_h(1) == pytest.approx(3 * found.cluster_h(3), rel=0.1)
    assert found.cluster_h(2) == pytest.approx(2 * found.cluster_h(3), rel=0.1)
    assert found.cluster_h(3) == found.cluster_h(300)


def test_partitions_fit_or_say_why_not():
    site = Site(
        "lab",
        (
            Partition("long", nodes=4, mem_mb=64000, max_minutes=10000),
            Partition("short", nodes=4, mem_mb=64000, max_minutes=60),
            Partition("small", nodes=4, mem_mb=8000),
            Partition("gpu", nodes=2, gpu_nodes=2, gpus=8, mem_mb=64000, max_minutes=60),
            Partition("closed", usable=False, nodes=4),
        ),
    )
    jobs = [Asked("a batch", 12000, 345), Asked("a training", 16000, float("nan"), 1)]
    told = {name: (fits, why) for name, fits, why in partition_fits(site, jobs)}
    assert set(told) == {"long", "short", "small", "gpu"}
    assert told["long"] == (True, "a batch fit")
    assert told["gpu"] == (True, "a training fit")
    assert told["short"] == (False, "a batch may take 345 minutes, its limit is 60")
    assert "asks for 12.0 GB, its largest node has 8.0" in told["small"][1]


def test_too_little_room_is_told():
    found = of({}, rows(100))
    assert text.disk_warnings(found, found.free - 1) == []
    (warning,) = text.disk_warnings(found, found.free + 1e9)
    assert "resample.output: parcels" in warning


def test_a_training_is_counted_in_operations():
    small = training_of(Config(), 100)
    twice = training_of(parse_config({"pretrain": {"windows_per_recording": 2}}, source="t"), 100)
    assert small.windows == 80
    assert twice.flops == 2 * small.flops
    assert training_of(parse_config({"released": {"source": "x/y"}}, source="t"), 100) is None


def test_the_command_follows_edits_of_the_config(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # no Slurm
    make_study(tmp_path / "study", 30)
    command(tmp_path / "study", jobs=[2], cores=4)
    before = capsys.readouterr().out
    assert "30 recordings of 30 subjects" in before
    assert re.search(r"^resample +30 .* model$", before, re.M)
    assert "This machine, 4 at a time" in before
    assert "with 2 at a time" in before
    config = tmp_path / "study/config/config.yaml"
    config.write_text(config.read_text().replace("output: series", "output: parcels"))
    command(tmp_path / "study", jobs=None, cores=4)
    after = capsys.readouterr().out
    assert "resample-to-parcels" in after
    assert not (tmp_path / "study/onboarding/report.html").exists()


def test_a_study_with_nothing_eligible_says_so(tmp_path):
    make_study(tmp_path, 2)
    path = tmp_path / "onboarding/recordings.parquet"
    table = pd.read_parquet(path)
    table["eligible"] = False
    table.to_parquet(path)
    with pytest.raises(InputError, match="None of the 2 recordings"):
        command(tmp_path)


def test_the_jobs_are_those_of_the_studys_slurm_profile(tmp_path):
    profile = tmp_path / "config/profiles/slurm/config.yaml"
    profile.parent.mkdir(parents=True)
    profile.write_text('config:\n  - "jobs={recordings_per_job: 5, cores_per_job: 2}"\n')
    found = of({}, rows(20), tmp_path)
    assert len(found.batches) == 4
    assert found.cores_per_job == 2

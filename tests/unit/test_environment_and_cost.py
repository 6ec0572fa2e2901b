"""What the reproducibility report tells of machines, jobs, versions, hours and energy."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from brainlm.files import read_json, write_json, write_text
from brainlm.layout import Study
from brainlm.provenance import sidecar_path
from brainlm.report.reproducibility import code, cost, environment, jobs, known_bad
from brainlm.report.reproducibility.costs import read_costs, stage_of_rule
from brainlm.report.reproducibility.jobs import Job, accounted, read_history
from brainlm.report.reproducibility.options import Energy
from brainlm.resources import share_dir
from brainlm.stages import STAGES, code_digest
from brainlm.train import machine
from brainlm.train.machine import note_machine

from .traced_study import Aliases, TracedStudy

LOG = """\
SNAKEMAKE
=========
  Date: 2026-11-22 13:11:23
  Host: login1
  User: anna
  Snakemake version: 9.27.1
  Command: snakemake --profile slurm
SLURM run ID: run-of-anna
Job 3 has been submitted with SLURM jobid 5 (log: /data/study/logs/slurm/rule_pretrain_model/5.log).
Job 7 has been submitted with SLURM jobid 42_1 (log: /d/slurm/rule_process_batch/0003/42_1.log).
Trying to restart job 3.
Job 3 has been submitted with SLURM jobid 9 (log: /data/study/logs/slurm/rule_pretrain_model/9.log).
===== A Job preemption  occured! =====
Finished jobid: 3 (Rule: pretrain_model)
Job 8 has been subm"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> TracedStudy:
    study = TracedStudy(tmp_path_factory.mktemp("traced"), subjects=2).write()
    write_text(study.study.root / ".snakemake/log/a.snakemake.log", LOG)
    study.about()
    return study


@pytest.fixture
def study(written: TracedStudy, tmp_path: Path) -> TracedStudy:
    return written.copy_to(tmp_path)


@pytest.fixture(autouse=True)
def _no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine has, it knows nothing of these jobs."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(
        jobs, "answer", lambda *words, **_: jobs_answer(False, "", "sacct is not installed")
    )


def jobs_answer(ok: bool, text: str, error: str = "") -> object:
    from brainlm.cluster.ask import Answer

    return Answer(ok, text, error)


def test_snakemakes_log_tells_runs_jobs_and_retries(study: TracedStudy) -> None:
    history = read_history(study.study.root)
    assert [(run.host, run.user, run.run_id) for run in history.runs] == [
        ("login1", "anna", "run-of-anna")
    ]
    assert [(job.id, job.rule) for job in history.jobs] == [
        ("5", "pretrain_model"),
        ("42_1", "process_batch"),
        ("9", "pretrain_model"),
    ]
    assert history.retries == {"pretrain_model": 1}
    assert history.preemptions == 1
    assert history.no_accounting == "sacct is not installed"


def test_the_node_that_a_jobs_own_log_names(study: TracedStudy) -> None:
    log = study.study.root / "logs/slurm/rule_pretrain_model/5.log"
    write_text(log, "SNAKEMAKE\n  Host: gpu07\n")
    told = {job.id: job.nodes for job in read_history(study.study.root).jobs}
    assert told == {"5": "gpu07", "42_1": None, "9": None}


def test_accounting_of_requeued_and_foreign_jobs() -> None:
    def row(job: str, name: str, state: str, seconds: str, rss: str = "") -> list[str]:
        tres = "billing=2,gres/gpu=2,mem=8G"
        return [
            *(job, name, "gpu", "gpu1", state, seconds, "01:00:30", "4", rss, tres, "7200000", job)
        ]

    rows = [
        row("5", "run-1", "PREEMPTED", "600"),
        row("5", "run-1", "COMPLETED", "1200"),
        row("5.batch", "batch", "COMPLETED", "1200", "2048K"),
        row("5.0", "python", "COMPLETED", "1200", "1.5G"),
        row("6", "somebody-elses", "COMPLETED", "10"),
        ["half a line"],
    ]
    ((name, job),) = accounted(rows, {"5": "run-1", "6": "run-1"})
    assert name == "5"
    assert job.states == ("PREEMPTED", "COMPLETED")
    assert (job.elapsed_s, job.cpus, job.gpus) == (1800, 4, 2)
    assert job.cpu_s == 2 * 3630
    assert job.max_rss_mb == pytest.approx(1610.6, abs=0.1)
    assert job.energy_j == 2 * 7.2e6


def test_sacct_is_asked_for_our_jobs(study: TracedStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answer(*words: str, **_: object) -> object:
        asked.extend(words)
        told = "9|run-of-anna|gpu|gpu1|COMPLETED|60|00:30|1|||0|9\n"
        return jobs_answer(True, told)

    monkeypatch.setattr(jobs, "answer", answer)
    history = read_history(study.study.root)
    assert "--jobs=42_1,5,9" in asked and "--duplicates" in asked
    assert [job.partition for job in history.jobs] == [None, None, "gpu"]
    assert history.jobs[2].rule == "pretrain_model"
    assert history.no_accounting is None


def test_a_benchmark_of_a_batch_is_not_counted_twice(study: TracedStudy) -> None:
    study.benchmark("run-batch/0000.tsv", 3600, 2000, 600)
    study.benchmark("motion/sub-01/sub-01_task-rest.tsv", 1800, 500, 1200)
    study.benchmark("normalize-anat/sub-01/sub-01.tsv", 1800, 900, 600)
    study.benchmark("finetune-age.tsv", 7200, 4000, 3600)
    study.benchmark("scale-brackets.tsv", 36, 100, 36)
    energy = Energy(cpu_w_per_core=10, memory_w_per_gb=1, gpu_w=300, pue=2)
    costs = read_costs(
        study.study.root, read_history(study.study.root), {}, {"finetune-age": 1}, energy
    )
    found = {one.stage: one for one in costs.stages}
    assert list(found)[:3] == ["run-batch", "motion", "normalize-anat"]
    assert [found[name].inside for name in ("motion", "normalize-anat", "finetune")] == [
        *(True, True, False)
    ]
    # What a batch's benchmark missed, those of its stages tell.
    assert found["run-batch"].cpu_h == pytest.approx(0.5)
    assert costs.total.wall_h == pytest.approx(1 + 2 + 0.01)
    assert costs.total.cpu_h == pytest.approx(0.5 + 1 + 0.01)
    assert costs.total.peak_mb == 4000
    assert found["finetune"].gpu_h == pytest.approx(2)
    # PUE x (1 h x 10 W + 8 GB h x 1 W + 2 h x 300 W)
    assert found["finetune"].kwh(energy) == pytest.approx(2 * (10 + 8 + 600) / 1000)
    assert found["pretrain"].retries == 1


def test_half_written_benchmarks_are_told(study: TracedStudy) -> None:
    study.benchmark("motion/sub-01/a.tsv", 10, 100, 5)
    write_text(study.study.root / "benchmarks/motion/sub-01/b.tsv", "s\th:m:s\tmax_rss\n12\t0:0")
    write_text(study.study.root / "benchmarks/scale.tsv", "")
    text = study.study.root / "benchmarks/denoise.tsv"
    study.benchmark("denoise.tsv", 1, 1, 1)
    text.write_text(text.read_text().replace("50\t1", "NA\tNA"))  # too short to be looked at
    section = cost.section(study.about(), None)
    assert "benchmarks/scale.tsv, benchmarks/motion/sub-01/b.tsv" in section.html
    assert "denoise" in section.html


def test_what_a_training_noted_of_its_requeues(study: TracedStudy) -> None:
    (folder,) = study.path("model").parent.glob("checkpoints/[!0]*")
    write_json(folder / "requeued.json", {"times": 2, "step": 7})
    costs = read_costs(study.study.root, jobs.History(), {}, {}, Energy())
    assert [(one.stage, one.requeues) for one in costs.stages] == [("pretrain", 2)]


def test_lost_hours_are_those_of_jobs_that_ended_badly(study: TracedStudy) -> None:
    history = jobs.History(
        jobs=[
            Job("1", "pretrain_model", None, states=("TIMEOUT",), elapsed_s=7200),
            Job("2", "pretrain_model", None, states=("PREEMPTED", "COMPLETED"), elapsed_s=600),
        ]
    )
    (one,) = read_costs(study.study.root, history, {}, {}, Energy()).stages
    assert (one.lost_h, one.requeues, one.preemptions) == (2, 1, 1)


def test_each_rule_has_its_stage() -> None:
    rules = {
        name
        for path in (share_dir() / "workflow").rglob("*.smk")
        for name in re.findall(r"^(?:use )?rule (\w+)", path.read_text(), re.M)
    }
    known = {"batch": "batch", "audit_recordings": "audit-recordings", "process_batch": "run-batch"}
    for rule in rules:
        assert stage_of_rule(rule) == known.get(rule) or stage_of_rule(rule) in STAGES, rule


def test_a_training_notes_its_machine_and_the_report_tells_it(study: TracedStudy) -> None:
    log = study.path("machine_log", job="pretrain")
    note_machine(log, stage="pretrain", device="cpu", processes=1)
    note_machine(log, stage="pretrain", device="cpu", processes=1)
    with log.open("a") as out:
        out.write('{"stage": "pretr')  # killed while it wrote
    (told, again) = (json.loads(line) for line in log.read_text().splitlines()[:2])
    assert told["torch"] and told["cpu"] and told["threads"] == again["threads"]
    html = str(environment.section(study.about(), None).html)
    assert told["host"] in html
    assert f"<td>pretrain</td><td>2</td><td>{told['host']}</td><td>cpu</td>" in html
    assert told["host"] not in str(environment.section(study.about(), Aliases()).html)


def test_a_training_that_changed_its_gpu_is_told(study: TracedStudy) -> None:
    for gpu in ("H100", "A100"):
        study.machine("finetune-age", device="cuda", gpus=[gpu], gpu_w=[700.0], processes=2)
    html = str(environment.section(study.about(), None).html)
    assert "went on with another: finetune-age" in html
    study.benchmark("finetune-age.tsv", 3600, 0, 0)
    (row,) = (
        line
        for line in str(cost.section(study.about(), None).html).splitlines()
        if "finetune" in line
    )
    assert ">2.000<" in row  # GPU hours of two processes
    assert ">2.100<" in row  # kWh: PUE 1.5 x 2 h x 700 W


def test_the_driver_is_asked_of_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nprintf '570.1, 700.00\\n570.1, [N/A]\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert machine._driver() == {"driver": "570.1", "gpu_w": [700.0]}
    program.write_text("#!/bin/sh\necho no driver; exit 9\n")
    assert machine._driver() == {"driver": None, "gpu_w": []}


def test_a_place_that_cannot_be_written_stops_no_training(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file")
    note_machine(tmp_path / "logs" / "machines" / "pretrain.jsonl", stage="pretrain")


def test_stages_of_other_source_are_told(study: TracedStudy) -> None:
    record = sidecar_path(study.path("motion", "sub-02_task-rest"))
    write_json(record, {**read_json(record), "CodeDigest": "0123456789abcdef"})
    found = {one.stage: one for one in code.stage_codes(study.about().graph)}
    assert found["motion"].verdict == "several versions"
    assert found["pretrain"].verdict == "as now"
    assert found["pretrain"].now == code_digest("pretrain")
    assert list(found) == [stage for stage in STAGES if stage in found]


def test_known_bad_versions() -> None:
    software = {"aroma": {"1.0"}, "numpy": {"2.0.0"}}
    pipelines = {"fMRIPrep 1.1.4", "fMRIPrep 20.2.3", "fMRIPrep 25.2.5", "XCP-D"}
    found = {(one.program, one.version): one for one in known_bad.defects(software, pipelines)}
    assert {key: one.is_alarm for key, one in found.items()} == {
        ("aroma", "1.0"): True,
        ("fmriprep", "1.1.4"): True,
        ("fmriprep", "20.2.3"): False,
    }
    assert all(one.source and one.what for one in found.values())


def test_a_bad_version_in_a_sidecar_is_an_alarm(study: TracedStudy) -> None:
    assert environment.section(study.about(), None).alarms == ()
    record = sidecar_path(study.path("motion"))
    content = read_json(record)
    write_json(record, {**content, "Software": {**content["Software"], "aroma": "0.1"}})
    (alarm,) = environment.section(study.about(), None).alarms
    assert alarm.startswith("aroma 0.1 made files of this study")


def test_of_a_shareable_page_hosts_users_and_jobs_are_left_out(study: TracedStudy) -> None:
    study.benchmark("motion/sub-01/sub-01_task-rest.tsv", 1, 1, 1)
    write_text(study.study.root / "benchmarks/motion/sub-02/half.tsv", "s\n1")
    full = str(environment.section(study.about(), None).html)
    assert all(word in full for word in ("login1", "anna", "42_1", "run-of-anna"))
    shared = str(environment.section(study.about(), Aliases()).html)
    shared += str(cost.section(study.about(), Aliases()).html)
    assert not [
        word
        for word in ("login1", "anna", "42_1", "run-of-anna", "sub-0", str(study.study.root))
        if word in shared
    ]


def test_an_image_is_told_by_the_hash_of_its_file(study: TracedStudy) -> None:
    image = study.study.root / "brainlm.sif"
    image.write_bytes(b"image")
    config = study.config.model_copy(
        update={"containers": study.config.containers.model_copy(update={"image": str(image)})}
    )
    study.config = config
    html = str(environment.section(study.about(), None).html)
    assert "6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d" in html
    assert str(image) not in str(environment.section(study.about(), Aliases()).html)
    image.unlink()
    assert "not there any more" in environment.section(study.about(), None).html


def test_before_anything_ran(tmp_path: Path) -> None:
    study = TracedStudy(tmp_path)
    history = read_history(Study(tmp_path / "study").root)
    assert history == jobs.History()
    costs = read_costs(study.study.root, history, {}, {}, Energy())
    assert costs.stages == []

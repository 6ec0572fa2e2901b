"""The lineage: every recorded hash is an arrow, and every file that is not as recorded is told."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

import pytest

from brainlm.files import read_json, write_json, write_text
from brainlm.provenance import sha256_file, sidecar_path
from brainlm.report.reproducibility import hashes, lineage
from brainlm.report.reproducibility.base import Section
from brainlm.report.reproducibility.graph import State
from brainlm.report.reproducibility.kinds import Kinds

from .traced_study import Aliases, TracedStudy


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> TracedStudy:
    study = TracedStudy(tmp_path_factory.mktemp("traced")).write()
    study.about()
    return study


@pytest.fixture
def study(written: TracedStudy, tmp_path: Path) -> TracedStudy:
    return written.copy_to(tmp_path)


def data_of(section: Section) -> dict:
    found = re.search(r'id="lineage-data">(.*?)</script>', str(section.html), re.S)
    assert found is not None
    return json.loads(found[1])


def test_a_metric_leads_back_to_each_raw_file(study: TracedStudy) -> None:
    graph = study.about(raw=True).graph
    way, waiting = set(), ["evaluation/brainlm/reconstruction/metrics.json#/metrics/r2/value"]
    while waiting:
        name = waiting.pop()
        if name not in way:
            way.add(name)
            waiting += graph.sources.get(name, ())
    kinds = {graph.nodes[name].kind for name in way}
    assert kinds == {
        *("metric", "reconstruction", "model", "checkpoint", "shards_index", "shard_part", "shard"),
        *("shard_plan", "scaler", "cohort", "recordings", "timeseries", "denoised_bold", "motion"),
        "raw",
    }
    assert sum(graph.nodes[name].kind == "raw" for name in way) == 3
    for name in way:
        wanted = State.temporary if "denoised" in name else State.whole
        if "metrics.json" in name:  # nobody read it, so nobody knows what it was
            wanted = State.unread
        assert graph.nodes[name].state is wanted, name
    metric = graph.nodes["evaluation/brainlm/reconstruction/metrics.json#/metrics/r2/value"]
    assert metric.about["value"] == 0.4


def test_a_whole_study_gives_no_alarm_and_its_arrows_stand_beside(study: TracedStudy) -> None:
    section = lineage.section(study.about(), None)
    assert section.alarms == ()
    rows = study.path("lineage_table").read_text().splitlines()
    graph = study.about().graph
    assert len(rows) == 1 + sum(len(sources) for sources in graph.sources.values())
    assert any(row.startswith("models/brainlm/model.safetensors\tpretrain\t") for row in rows)
    # Of raw files nothing is claimed that was not looked at.
    assert {n.state for n in graph.nodes.values() if n.kind == "raw"} == {State.unread}


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("model", {}),
        ("shard", {"shard": "train-00000"}),
        ("scaler", {}),
        ("timeseries", {"name": "sub-02_task-rest"}),
        ("recordings", {}),
        ("shard_plan", {"shard": "train-00000"}),
    ],
)
def test_another_byte_is_an_alarm(study: TracedStudy, kind: str, fields: dict[str, str]) -> None:
    path = study.path(kind, **fields)
    content = bytearray(path.read_bytes())
    content[-1 if kind != "recordings" else 5] ^= 1  # the table's footer has to be read
    path.write_bytes(content)
    alarms = lineage.section(study.about(), None).alarms
    name = study.study.relative(path)
    assert [alarm for alarm in alarms if name in alarm and "run the workflow again" in alarm]
    assert study.about().graph.nodes[name].state is State.changed


def test_missing_changed_raw_and_edited_notes(study: TracedStudy) -> None:
    study.path("model").unlink()
    study.path("motion", "sub-03_task-rest").write_text("edited")
    (study.raw / "sub-01/func/sub-01_task-rest_bold.nii.gz").write_text("another scan")
    (note,) = study.path("model").parent.glob("checkpoints/[!0]*/made-of.json")
    write_json(note, {**read_json(note), "note": "edited"})
    assert not any("bids::" in alarm for alarm in lineage.section(study.about(), None).alarms)
    alarms = "\n".join(lineage.section(study.about(raw=True), None).alarms)
    assert "models/brainlm/model.safetensors: it is not there" in alarms
    assert "sub-03_task-rest_desc-motion_timeseries.tsv: its bytes" in alarms
    assert "bids::sub-01/func/sub-01_task-rest_bold.nii.gz: it was changed since" in alarms
    assert "checkpoints: its note was edited" in alarms
    assert len(alarms.splitlines()) == 4


def test_a_tombstone_is_no_alarm_and_a_broken_sidecar_is(study: TracedStudy) -> None:
    lost = study.path("motion", "sub-03_task-rest")
    was, now = sha256_file(lost), hashlib.sha256(b"").hexdigest()
    lost.write_bytes(b"")
    for reader in study.study.root.rglob("*.json"):  # they met it empty: else it is an alarm
        reader.write_text(reader.read_text().replace(was, now))
    broken = sidecar_path(study.path("scaler"))
    broken.write_text(broken.read_text()[:40])
    section = lineage.section(study.about(), None)
    assert [alarm.split(":")[0] for alarm in section.alarms] == ["cohort/scaler.json"]
    name = study.study.relative(study.path("motion", "sub-03_task-rest"))
    assert study.about().graph.nodes[name].state is State.given_up


def test_readers_of_two_versions_are_told_apart(study: TracedStudy) -> None:
    record = sidecar_path(study.path("model"))
    content = read_json(record)
    content["Sources"]["shards/index.parquet"] = "0" * 64
    write_json(record, content)
    (alarm,) = (a for a in lineage.section(study.about(), None).alarms if "index" in a)
    assert "some of what was made from it" in alarm
    assert "read by models/brainlm/model.safetensors." in alarm


def test_a_second_report_reads_only_what_was_touched(
    study: TracedStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in study.study.root.rglob("*.*"):
        os.utime(path, (1e9, 1e9))
    read: list[str] = []
    take = hashes.sha256_file
    monkeypatch.setattr(hashes, "sha256_file", lambda path: read.append(path.name) or take(path))
    first = study.about().graph
    assert "model.safetensors" in read
    read.clear()
    assert study.about().graph == first
    assert read == []
    model = study.path("model")
    content = model.read_bytes()
    model.write_bytes(content[:-1] + b"!")
    os.utime(model, (1e9, 1e9))  # same size and time as before
    assert study.about().graph.nodes[study.study.relative(model)].state is State.changed
    assert read == ["model.safetensors"]
    study.path("hashes").write_text("{half a fi")
    assert study.about().graph.nodes[study.study.relative(model)].state is State.changed


def test_fast_compares_ends_and_says_so(
    study: TracedStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brainlm.report.reproducibility.lineage_graph.SMALL", 0)
    about = study.about(fast=True)
    states = {node.id: node.state for node in about.graph.nodes.values()}
    assert states[study.study.relative(study.path("timeseries"))] is State.whole
    assert states["models/brainlm/model.safetensors"] is State.unread
    assert "--fast" in lineage.section(about, None).html
    study.path("timeseries").write_text("other")
    assert len(lineage.section(study.about(fast=True), None).alarms) == 1


def test_many_recordings_share_a_box(study: TracedStudy) -> None:
    page = data_of(lineage.section(study.about(), None))
    boxes = {box["name"]: box for box in page["boxes"]}
    assert boxes["timeseries"]["count"] == "3"
    assert len(boxes["timeseries"]["rows"]) == 3
    assert page["starts"][0]["value"] == "0.4 [0.3, 0.5]"
    start = page["boxes"][page["starts"][0]["box"]]
    assert start["name"] == "evaluation/brainlm/reconstruction/metrics.json"
    levels = [box["level"] for box in page["boxes"]]
    assert all(levels[one] < levels[other] for one, other, _ in page["arrows"])


def test_what_is_shared_names_nobody(study: TracedStudy) -> None:
    study.path("motion", "sub-03_task-rest").write_text("edited")
    section = lineage.section(study.about(), Aliases())
    told = str(section.html) + "".join(section.alarms)
    assert "sub-" not in told
    assert str(study.study.root) not in told
    assert len(section.alarms) == 1
    raw = {node.sha256 for node in study.about().graph.nodes.values() if node.kind == "raw"}
    assert not any(digest in told for digest in raw)  # a hash tells whose an open file is
    assert "3 files" not in told and '"count":"3"' not in told
    assert not study.path("lineage_table").exists()


def test_before_anything_ran(written: TracedStudy, tmp_path: Path) -> None:
    study = TracedStudy(tmp_path)
    study.findings = written.findings
    section = lineage.section(study.about(), None)
    assert "Nothing has been made" in section.html
    assert section.alarms == ()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("models/brainlm/model.safetensors", "model"),
        ("models/brainlm-age/model.safetensors", "finetuned"),
        ("models/brainlm-forecast/model.safetensors", "forecaster"),
        ("models/brainlm-forecast-untrained/model.safetensors", "untrained_forecaster"),
        ("models/brainlm-scale-tiny-0.5/model.safetensors", "scaled_model"),
        ("models/older/model.safetensors", "model"),
        ("shards/index.parquet", "shards_index"),
        ("shards/train-w1-00000.safetensors", "shard"),
        (
            "derivatives/brainlm/sub-1/ses-2/func/sub-1_ses-2_task-r_desc-motion_timeseries.tsv",
            "motion",
        ),
    ],
)
def test_a_path_tells_its_kind(path: str, kind: str) -> None:
    named = Kinds({"run": "brainlm"}).of_data(path)
    assert named is not None
    assert (named.kind, named.path) == (kind, path)


def test_a_run_with_a_dash_in_its_name_is_no_label() -> None:
    named = Kinds({"run": "tiny-old"}).of_data("models/tiny-old/model.safetensors")
    assert named is not None
    assert named.kind == "model"


def test_a_name_cannot_end_the_script(study: TracedStudy) -> None:
    record = sidecar_path(study.path("scaler"))
    content = read_json(record)
    content["Stage"] = "</script><script>alert(1)</script>"
    write_text(record, json.dumps(content))
    assert "<script>alert" not in lineage.section(study.about(), None).html


@pytest.mark.parametrize("how", ["emptied", "without its record"])
def test_a_model_that_tells_nothing_any_more_is_an_alarm(study: TracedStudy, how: str) -> None:
    model = study.path("model")
    if how == "emptied":
        model.write_bytes(b"")
    else:
        sidecar_path(model).unlink()
    told = [
        one for one in lineage.section(study.about(), None).alarms if "model.safetensors" in one
    ]
    assert len(told) == 1
    assert ("it is empty" if how == "emptied" else "its sidecar is gone") in told[0]

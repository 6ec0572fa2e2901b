"""Accounting for every recording, and the audit's exit code."""

from __future__ import annotations

import pandas as pd
import pytest

from brainlm.cli.audit import audit
from brainlm.errors import DataError
from brainlm.files import write_json
from brainlm.report.ledger import read_failures
from brainlm.report.outcome import count_statuses, left_out, outcomes

from .report_study import EXCLUDED, FAILED, SHORT, FinishedStudy

NO_EXCLUSIONS = pd.DataFrame(columns=["recording_id", "stage", "reason"], dtype="string")


def table_of(**eligible: bool | None) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "recording_id": [f"sub-{name}_task-rest" for name in eligible],
            "anat_id": [f"sub-{name}" for name in eligible],
            "eligible": pd.array(list(eligible.values()), dtype="boolean"),
            "reason": [None if fine else "too short" for fine in eligible.values()],
        }
    )


def failure(stage: str, what: str = "broken") -> dict[str, str]:
    return {"stage": stage, "what": what}


def test_each_status_has_its_stage_and_reason():
    table = outcomes(
        table_of(a=True, b=True, c=True, d=False, e=True, f=None),
        {"sub-b_task-rest": failure("motion", "NaN in\tvolume 3\n")},
        {"sub-a_task-rest"},
        pd.DataFrame([("sub-c_task-rest", "cohort", "moved")], columns=NO_EXCLUSIONS.columns),
    )
    assert table.to_numpy().tolist() == [
        ["sub-a_task-rest", "included", "", ""],
        ["sub-b_task-rest", "failed", "motion", "NaN in volume 3"],
        ["sub-c_task-rest", "excluded", "cohort", "moved"],
        ["sub-d_task-rest", "ineligible", "onboard", "too short"],
        ["sub-e_task-rest", "unfinished", "", "not processed to the end yet"],
        ["sub-f_task-rest", "ineligible", "onboard", "too short"],
    ]
    assert list(count_statuses(table).values()) == [1, 1, 1, 2, 1]
    assert left_out(table)["status"].tolist() == [
        "excluded",
        "failed",
        "ineligible",
        "ineligible",
        "unfinished",
    ]


def test_a_failed_t1w_fails_its_recordings_and_is_named_as_the_root():
    failures = {
        "sub-a": failure("normalize-anat", "empty T1w"),
        "sub-a_task-rest": failure("normalize-bold", "An earlier stage gave up"),
    }
    row = outcomes(table_of(a=True), failures, set(), NO_EXCLUSIONS).iloc[0]
    assert (row["status"], row["stage"], row["reason"]) == ("failed", "normalize-anat", "empty T1w")


def test_the_recordings_own_earlier_failure_comes_first():
    failures = {
        "sub-a": failure("normalize-anat", "empty T1w"),
        "sub-a_task-rest": failure("motion", "NaN"),
    }
    assert outcomes(table_of(a=True), failures, set(), NO_EXCLUSIONS).iloc[0]["stage"] == "motion"


def test_a_failure_is_no_quality_exclusion_even_when_the_ledger_is_gone():
    gone = pd.DataFrame([("sub-a_task-rest", "denoise", "x")], columns=NO_EXCLUSIONS.columns)
    assert outcomes(table_of(a=True), {}, set(), gone).iloc[0]["status"] == "failed"


def test_an_ineligible_recording_is_never_failed():
    failures = {"sub-a_task-rest": failure("motion")}
    found = outcomes(table_of(a=False), failures, {"sub-a_task-rest"}, NO_EXCLUSIONS)
    assert found.iloc[0]["status"] == "ineligible"


# --- the ledger and the audit ----------------------------------------------------------------


@pytest.fixture
def finished(tmp_path) -> FinishedStudy:
    made = FinishedStudy(tmp_path)
    made.write()
    return made


def test_audit_tells_lists_and_fails(finished, capsys):
    with pytest.raises(DataError, match="1 of 8 eligible") as caught:
        audit(study=finished.study.root)
    assert caught.value.exit_code == 3
    rows = pd.read_csv(finished.path("audit"), sep="\t", keep_default_na=False)
    status = dict(zip(rows["recording_id"], rows["status"], strict=True))
    assert status == {
        **dict.fromkeys(finished.included, "included"),
        EXCLUDED: "excluded",
        FAILED: "failed",
        SHORT: "ineligible",
    }
    printed = capsys.readouterr().out
    assert f"{FAILED}  failed at motion: 3 of 240 volumes hold NaN" in printed
    assert finished.included[0] not in printed


def test_audit_no_strict_only_lists(finished):
    audit(study=finished.study.root, strict=False)
    first = finished.path("audit").read_bytes()
    audit(study=finished.study.root, strict=False)
    assert finished.path("audit").read_bytes() == first


def test_audit_passes_with_ineligible_and_excluded_recordings(finished):
    finished.path("failure", recording=FAILED).unlink()
    finished.write_derivatives(FAILED)
    cohort = pd.read_parquet(finished.path("cohort"))
    extra = cohort.tail(1).assign(recording_id=FAILED)
    pd.concat([cohort, extra]).to_parquet(finished.path("cohort"))
    audit(study=finished.study.root)


def test_audit_fails_while_recordings_are_unfinished(finished):
    finished.path("cohort").unlink()
    with pytest.raises(DataError, match="6 unfinished"):
        audit(study=finished.study.root)


def test_a_failure_whose_file_was_made_since_is_stale(finished):
    fields = finished.config.labels
    assert list(read_failures(finished.study, fields)) == [FAILED]
    finished.of_recording("motion", FAILED).write_text("whole now")
    assert read_failures(finished.study, fields) == {}


def test_a_damaged_ledger_entry_still_counts(finished):
    finished.path("failure", recording=FAILED).write_text("{")
    with pytest.raises(DataError):
        audit(study=finished.study.root)
    assert "cannot be read" in finished.path("audit").read_text()


def test_a_failed_t1w_is_found_in_the_ledger(finished):
    anat = FAILED.split("_")[0]
    path = finished.path("failure", recording=anat)
    write_json(path, {"stage": "normalize-anat", "what": "empty T1w", "fix": None})
    finished.of_recording("t1w_to_mni", FAILED).write_bytes(b"")
    finished.path("failure", recording=FAILED).unlink()
    with pytest.raises(DataError):
        audit(study=finished.study.root)
    assert f"{FAILED}\tfailed\tnormalize-anat\tempty T1w" in finished.path("audit").read_text()

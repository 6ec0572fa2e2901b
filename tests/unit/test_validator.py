"""`brainlm onboard --validate`: the public validator run on a dataset, old and new."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from brainlm.bids import validator
from brainlm.cli.onboard import Engine, onboard
from brainlm.errors import InputError, ResourceError

from .small_bids import make_bids, write_json

#: Stands for a validator: prints what the file beside it holds.
PRINTER = """#!{python}
import pathlib, sys
name = "help" if "--help" in sys.argv else "report"
print((pathlib.Path(__file__).parent / name).read_text())
sys.exit(16)
"""
OLD = {
    "issues": {
        "errors": [
            {
                "key": "NIFTI_UNIT",
                "reason": "Units are\n missing.",
                "files": [{"file": {"relativePath": f"/sub-{n}.nii"}} for n in range(5)],
            }
        ],
        "warnings": [{"key": "NO_AUTHORS", "reason": "Who?", "files": [{"file": None}]}],
    }
}


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """A PATH on which a stand-in called `bids-validator` is all there is."""
    place = tmp_path / "bin"
    place.mkdir()
    monkeypatch.setenv("PATH", str(place))
    monkeypatch.setattr(sys, "executable", str(place / "python"))

    def put(report: str, helped: str = "--json") -> Path:
        path = place / "bids-validator"
        path.write_text(PRINTER.format(python=Path(sys.prefix) / "bin" / "python"))
        path.chmod(0o755)
        (place / "report").write_text(report)
        (place / "help").write_text(helped)
        return place

    return put


def test_the_real_validator_finds_what_is_wrong(tmp_path, capsys, monkeypatch):
    if validator.find_validator() is None:
        pytest.skip("bids-validator-deno is not installed")
    for name in ("TEMPLATEFLOW_HOME", "BRAINLM_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    bids = make_bids(tmp_path / "bids")
    write_json(bids / "sub-01/func/sub-01_task-rest_bold.json", RepetitionTime="two")
    onboard(bids, tmp_path / "study", validator=True)
    text = (tmp_path / "study/onboarding/bids-validator.json").read_text()
    content = json.loads(text)
    assert content["validator"].startswith("bids-validator-deno, schema ")
    wrong = [entry for entry in content["errors"] if "RepetitionTime" in json.dumps(entry)]
    assert wrong or any("sub-01_task-rest_bold" in str(e["files"]) for e in content["errors"])
    assert any(entry["code"].startswith("README") for entry in content["warnings"])
    told = capsys.readouterr().out
    assert f"{len(content['errors'])} kinds of errors, {len(content['warnings'])} of" in told
    assert f"error {content['errors'][0]['code']}" in told
    assert str(tmp_path) not in text


def test_the_report_of_the_older_one_is_read_too(alone, tmp_path):
    alone(json.dumps(OLD))
    verdict = validator.validate(tmp_path, 20)
    (error,), (warning,) = verdict.of("error"), verdict.of("warning")
    assert (error.code, error.count, error.what) == ("NIFTI_UNIT", 5, "Units are missing.")
    assert error.files == ("sub-0.nii", "sub-1.nii", "sub-2.nii")
    assert str(error).endswith("5x: sub-0.nii, sub-1.nii, sub-2.nii, ...")
    assert str(warning) == "NO_AUTHORS (Who?), 1x"
    assert verdict.validator == "bids-validator"


def test_what_goes_wrong_with_it_is_told(alone, tmp_path):
    place = alone("Segmentation fault")
    with pytest.raises(ResourceError, match="exit code 16 and gave no report: Segmentation fault"):
        validator.validate(tmp_path, 20)
    (place / "bids-validator").write_text(f"#!{Path(sys.prefix) / 'bin' / 'python'}\nwhile 1: 0\n")
    with pytest.raises(ResourceError, match=r"took longer than 0\.3 s"):
        validator.validate(tmp_path, 0.3)


def test_it_is_asked_for_only_where_it_can_answer(alone, tmp_path):
    bids = make_bids(tmp_path / "bids")
    with pytest.raises(InputError, match="validator is not installed") as told:
        onboard(bids, tmp_path / "study", validator=True)
    assert "pip install bids-validator-deno" in told.value.fix
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/sub-01_task-rest_timeseries.csv").write_text("1,2\n")
    with pytest.raises(InputError, match="--validate is for raw BIDS"):
        onboard(tmp_path / "tables", tmp_path / "study", engine=Engine.derivatives, validator=True)
    assert not (tmp_path / "study").exists()

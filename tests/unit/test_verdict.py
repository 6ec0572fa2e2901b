"""Who judges components: a user's rule, a user's program, the published masks; and giving up."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from brainlm.cli._stage import OnDataError
from brainlm.cli.confounds import confounds
from brainlm.cli.denoise import denoise
from brainlm.cli.ica import ica
from brainlm.cli.prepare_atlas import prepare_atlas
from brainlm.cli.resample import resample
from brainlm.cli.resample_to_parcels import resample_to_parcels
from brainlm.config import Ica
from brainlm.config.rule import FEATURES, parse_rule
from brainlm.dag import Dag
from brainlm.denoise.verdict import holds
from brainlm.errors import InputError
from brainlm.layout import Study
from brainlm.provenance import sidecar_path

from .synthetic_head import brainlm, centered_affine
from .synthetic_registered import fields_of, registered_study
from .test_dag import study_of

METRICS = pd.DataFrame(
    {
        "component": ["ica_000", "ica_001", "ica_002"],
        "edge_fract": [0.9, 0.2, 0.5],
        "csf_fract": [0.0, 0.3, 0.0],
        "max_RP_corr": [0.8, 0.1, 0.0],
        "HFC": [0.2, 0.2, 0.9],
        "variance_explained": [0.5, 0.3, 0.2],
    }
)


@pytest.mark.parametrize(
    ("text", "noise"),
    [
        ("HFC > 0.35 or csf_fract > 0.1", [0, 1, 1]),
        ("-19.975 + 9.951 * max_RP_corr + 24.833 * edge_fract > 0", [1, 0, 0]),
        ("not (HFC > 0.35 and edge_fract < 0.6)", [1, 1, 0]),
        ("0.1 < edge_fract / 2 <= 0.25", [0, 0, 1]),
        ("HFC / csf_fract == 1", [0, 0, 0]),  # a division by 0 holds for nothing
        ("1 < 2", [1, 1, 1]),
    ],
)
def test_a_rule_means_what_it_says(text: str, noise: list[int]) -> None:
    assert holds(parse_rule(text), METRICS).tolist() == [bool(each) for each in noise]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("HFC", "is a number"),
        ("HFC + 1", "is a number"),
        ("HF > 1", "'HF', which is none of edge_fract"),
        ("HFC > True", "no number"),
        ("(HFC > 1) + 1 > 0", "no number"),
        ("HFC.max() > 1", "may hold comparisons"),
        ("__import__('os').system('true') > 0", "may hold comparisons"),
        ("HFC > [1][0]", "may hold comparisons"),
        ("HFC ** 9 > 1", "'Pow'"),
        ("HFC >", "cannot be read"),
        ("HFC if HFC > 1 else HFC > 2", "may hold comparisons"),
    ],
)
def test_a_rule_that_is_none_is_refused_with_the_config(text: str, word: str) -> None:
    with pytest.raises(ValueError, match=word.replace("(", r"\(")):
        Ica(rule=text)


def test_a_rule_and_a_program_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        Ica(rule="HFC > 1", classifier=["judge"])
    assert set(FEATURES) <= set(METRICS.columns)


# --- the commands ------------------------------------------------------------------------

CONFIG = """
bids_dir: ../bids
space: {resolution_mm: 6}
normalize: {resolution_mm: 6, transform: affine}
atlas: {name: A424approx}
confounds: {compcor_components: 0}
"""
COUNT = 60
#: Calls every second component noise; its verdict is in an order of its own.
JUDGE = """
import os, sys
import pandas as pd
mixing, maps, metrics, verdict = sys.argv[-4:]
assert float(os.environ["BRAINLM_TR"]) == 2.0 and maps.endswith(".nii.gz")
table = pd.read_csv(metrics, sep="\\t")
assert list(pd.read_csv(mixing, sep="\\t")) == list(table["component"])
said = ["rejected" if number % 2 else "accepted" for number in range(len(table))]
table = table.assign(classification=said, rationale="odd")[::-1]
table[["component", "classification", "rationale"]].to_csv(verdict, sep="\\t", index=False)
"""


@pytest.fixture(autouse=True)
def _python_is_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the workflow's jobs (`brainlm.dag.prepare_environment`)."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, str]:
    """A moving run on a grid of 6 mm, resampled, with its confounds and an atlas."""
    params = np.random.default_rng(0).normal(0, [0.2] * 3 + [0.003] * 3, (COUNT, 6))
    shape = (31, 37, 31)
    study, identifier = registered_study(
        tmp_path_factory.mktemp("verdict"),
        params,
        affine=centered_affine(shape, 6.0),
        shape=shape,
        config=CONFIG.replace("bids_dir: ../bids", ""),
    )
    prepare_atlas(study.root)
    for stage in (resample, confounds):
        stage(identifier, study.root)
    return study, identifier


def judged(study: Study, identifier: str, options: str) -> tuple[pd.DataFrame, dict]:
    """The table of components under these `ica` options, and its sidecar."""
    study.path("config").write_text(f"{CONFIG}ica: {{components: 4, {options}}}\n")
    ica(identifier, study.root)
    path = study.path("aroma_metrics", **fields_of(study, identifier))
    table = pd.read_csv(path, sep="\t", keep_default_na=False)
    return table, json.loads(sidecar_path(path).read_text())


def test_the_rule_decides_and_is_recorded(prepared: tuple[Study, str]) -> None:
    study, identifier = prepared
    plain, about = judged(study, identifier, "")
    assert "Rule" not in about
    middle = plain["HFC"].median()
    table, about = judged(study, identifier, f"rule: HFC > {middle}")
    expected = np.where(plain["HFC"] > middle, "rejected", "accepted")
    assert table["classification"].tolist() == expected.tolist()
    assert set(table["rationale"]) == {"rule", ""}
    assert about["Rule"] == f"HFC > {middle}" and about["Rejected"] == 2
    pd.testing.assert_frame_equal(table[list(FEATURES)], plain[list(FEATURES)])
    denoise(identifier, study.root)
    sidecar = sidecar_path(study.path("denoised_bold", **fields_of(study, identifier)))
    said = json.loads(sidecar.read_text())["Confounds"]
    rejected = table["component"][table["classification"] == "rejected"].tolist()
    assert said[: len(rejected)] == rejected and "ica_000" not in said[len(rejected) :]


def test_the_program_decides_both_ways_and_is_recorded(prepared: tuple[Study, str]) -> None:
    study, identifier = prepared
    (study.root / "judge.py").write_text(JUDGE)
    table, about = judged(study, identifier, "classifier: [python, judge.py, --fast]")
    assert table["classification"].tolist() == ["accepted", "rejected"] * 2
    assert table["rationale"].tolist() == ["odd"] * 4
    assert about["Classifier"] == {
        "Command": ["python", "judge.py", "--fast"],
        "SHA256": {"judge.py": hashlib.sha256(JUDGE.encode()).hexdigest()},
    }
    path = study.path("aroma_metrics", **fields_of(study, identifier))
    before = path.read_bytes()
    path.unlink()
    resample_to_parcels(identifier, study.root)
    again = pd.read_csv(path, sep="\t")
    assert again["classification"].tolist() == table["classification"].tolist()
    assert json.loads(sidecar_path(path).read_text())["Classifier"] == about["Classifier"]
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("script", "word"),
    [
        ("import sys; sys.exit('no model')", "ended with 1: no model"),
        ("print('nothing to do')", "wrote no verdict: nothing to do"),
        ("import sys; open(sys.argv[-1], 'w').write('a\\tb\\n')", "needs the columns component"),
        (
            "import sys; open(sys.argv[-1], 'w').write("
            "'component\\tclassification\\nica_000\\taccepted\\n')",
            "Its components are not those of the run",
        ),
        (None, "a program that is not there: tools/none"),
    ],
)
def test_a_program_that_fails_is_told_and_gives_no_recording_up(
    prepared: tuple[Study, str], script: str | None, word: str
) -> None:
    study, identifier = prepared
    command = "tools/none"
    if script is not None:
        (study.root / "faulty.py").write_text(script)
        command = "python, faulty.py"
    options = f"{CONFIG}ica: {{components: 3, classifier: [{command}]}}\n"
    study.path("config").write_text(options)
    with pytest.raises(InputError, match=r"ica\.classifier") as told:
        ica(identifier, study.root, on_data_error=OnDataError.record)
    assert word in str(told.value)
    if script is None:
        assert word in brainlm("config", "check", "--study", study.root, code=2)
    assert not study.path("failure", recording=identifier).exists()


def test_an_edited_program_makes_components_stale(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    config = {"ica": {"classifier": ["python", "judge.py"]}}
    assert Dag({}, study).classifier_content() == ""
    (study / "judge.py").write_text("one")
    first = Dag(config, study).classifier_content()
    (study / "judge.py").write_text("two")
    assert first and Dag(config, study).classifier_content() not in ("", first)
    assert Dag(config | {"denoise": {"method": "fix"}}, study).classifier_content() == ""


def test_the_command_with_the_published_masks(
    prepared: tuple[Study, str],
    shared_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without them, or in another space than theirs, it says what to do; then it uses them."""
    study, identifier = prepared
    plain, _ = judged(study, identifier, "")
    monkeypatch.setenv("BRAINLM_CACHE", str(tmp_path))
    config = study.path("config")
    config.write_text(f"{CONFIG}ica: {{components: 4, masks: aroma}}\n")
    run = ("ica", identifier, "--study", study.root, "--on-data-error", "record")
    assert "drawn in MNI152NLin6Asym" in brainlm(*run, code=2)
    config.write_text(f"{CONFIG}ica: {{components: 4, masks: aroma, masks_space_ok: true}}\n")
    assert "brainlm masks get" in brainlm(*run, code=2)
    shutil.copytree(shared_data / "aroma", tmp_path / "from")
    brainlm("masks", "get", "--from", tmp_path / "from")
    assert "components are noise" in brainlm(*run)
    path = study.path("aroma_metrics", **fields_of(study, identifier))
    about = json.loads(sidecar_path(path).read_text())
    assert about["Masks"] == "aroma"
    assert {"masks::mask_csf.nii.gz", "masks::mask_edge.nii.gz"} <= set(about["Sources"])
    table = pd.read_csv(path, sep="\t")
    np.testing.assert_allclose(table["HFC"], plain["HFC"])
    assert not np.allclose(table["edge_fract"], plain["edge_fract"], atol=1e-3)
    np.testing.assert_allclose(table["edge_fract"], plain["edge_fract"], atol=0.3)


def cleaned(study: Study, identifier: str) -> tuple[np.ndarray, dict]:
    """The series that `brainlm denoise` writes, and its sidecar."""
    denoise(identifier, study.root)
    path = study.path("denoised_bold", **fields_of(study, identifier))
    return nib.load(path).get_fdata(), json.loads(sidecar_path(path).read_text())


def taken_out(about: dict) -> list[str]:
    return [name for name in about["Confounds"] if name.startswith("ica_")]


def test_a_table_made_by_hand_overrules_and_components_stay(prepared: tuple[Study, str]) -> None:
    study, identifier = prepared
    table, _ = judged(study, identifier, "rule: HFC < 0")
    plain, about = cleaned(study, identifier)
    assert taken_out(about) == []
    review = study.path("aroma_review", **fields_of(study, identifier))
    review.parent.mkdir(exist_ok=True)
    try:
        table["classification"] = ["accepted", "rejected", "accepted", "rejected"]
        table.to_csv(review, sep="\t", index=False)
        other, about = cleaned(study, identifier)
        assert taken_out(about) == ["ica_001", "ica_003"]
        assert f"review/{review.name}" in about["Sources"]
        assert np.abs(other - plain).max() > 0.1
    finally:
        review.unlink()
    again, about = cleaned(study, identifier)
    assert taken_out(about) == [] and (again == plain).all()


def test_a_search_that_does_not_settle_ends_in_motion24_unless_reviewed(
    prepared: tuple[Study, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study, identifier = prepared
    monkeypatch.setattr("brainlm.denoise.ica._ITERATIONS", 1)
    table, about = judged(study, identifier, "")
    assert about["Converged"] is False and len(table) < about["ComponentsEstimated"] == 4
    assert set(table["classification"]) == {"accepted"}
    assert set(table["rationale"]) == {"search did not settle"}
    assert "did not settle; denoising will take out motion24" in capsys.readouterr().err
    _, about = cleaned(study, identifier)
    assert about["Fallback"] == "motion24" and taken_out(about) == []
    assert {"trans_x", "rot_z_derivative1_power2"} <= set(about["Confounds"])
    review = study.path("aroma_review", **fields_of(study, identifier))
    review.parent.mkdir(exist_ok=True)
    try:
        table.assign(classification="rejected").to_csv(review, sep="\t", index=False)
        _, about = cleaned(study, identifier)
    finally:
        review.unlink()
    assert "Fallback" not in about and taken_out(about) == table["component"].tolist()


def test_a_given_up_decomposition_is_passed_on_and_the_audit_names_it(
    prepared: tuple[Study, str],
) -> None:
    study, identifier = prepared
    study.path("config").write_text(f"{CONFIG}ica: {{components: 4}}\n")
    fields = fields_of(study, identifier)
    bold = study.path("preproc_bold", **fields)
    content, about = bold.read_bytes(), sidecar_path(bold).read_bytes()
    bold.write_bytes(content[:4000])
    record = ("--study", study.root, "--on-data-error", "record")
    assert "given up at ica" in brainlm("ica", identifier, *record)
    kinds = ("ica_mixing", "ica_maps", "aroma_metrics")
    assert all(study.path(kind, **fields).stat().st_size == 0 for kind in kinds)
    bold.write_bytes(content)
    sidecar_path(bold).write_bytes(about)
    brainlm("denoise", identifier, *record)
    for kind in ("denoised_bold", "carpet"):
        assert study.path(kind, **fields).stat().st_size == 0, kind
    failure = json.loads(study.path("failure", recording=identifier).read_text())
    assert failure["stage"] == "ica"
    said = brainlm("audit", "--study", study.root, code=3)
    assert identifier in said and "ica" in said

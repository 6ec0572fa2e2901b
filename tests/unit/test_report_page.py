"""The page: whole, self-contained, true, and the same bytes every time."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from brainlm.cli.qc_figure import qc_figure
from brainlm.cli.report import report
from brainlm.config import Denoise
from brainlm.errors import DataError
from brainlm.files import read_json, write_json, write_text
from brainlm.provenance import sidecar_path
from brainlm.report import recordings
from brainlm.report.flow import boxes
from brainlm.report.gather import gather
from brainlm.report.methods import methods
from brainlm.report.page import render_page
from brainlm.report.prose import citations, limits

from .report_study import EXCLUDED, FAILED, SHORT, FinishedStudy

VOID = {"meta", "img", "link", "br", "hr", "path", "rect", "input"}


class Page(HTMLParser):
    """Text, links and ids of a page; complains of unbalanced tags."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.links += [found[key] for key in ("src", "href") if key in found]
        self.ids += [found["id"]] if "id" in found else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> FinishedStudy:
    made = FinishedStudy(tmp_path_factory.mktemp("study")).write()
    made.write_quality([made.ids[0], EXCLUDED])
    qc_figure([made.ids[0], EXCLUDED, FAILED], study=made.study.root, batch="0000")
    report(study=made.study.root)
    return made


@pytest.fixture(scope="module")
def html(finished) -> str:
    return finished.path("report").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html) -> Page:
    return Page(html)


@pytest.fixture
def copied(finished, tmp_path) -> FinishedStudy:
    """A copy of the finished study, to be changed."""
    shutil.copytree(finished.study.root, tmp_path / "copy")
    return FinishedStudy(tmp_path / "copy")


def rendered(made: FinishedStudy) -> str:
    targets = [target.name for target in made.config.finetune.targets]
    return render_page(gather(made.study, made.fields, targets, made.config.name), {})


def test_page_needs_nothing_from_outside(page, html):
    for link in page.links:
        assert link.startswith(("#", "data:image/"))
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)


def test_links_inside_the_page_have_their_ends(page):
    assert len(page.ids) == len(set(page.ids))
    for link in page.links:
        if link.startswith("#"):
            assert link[1:] in page.ids


def test_page_names_no_folder_of_this_machine(html, finished):
    assert str(finished.study.root) not in html
    assert "/tmp" not in html


def test_head_tells_name_and_status(page, html):
    assert "<h1>Test &amp; study</h1>" in html
    assert "Complete, but 1 recording was given up" in page.text


def test_stand_in_atlas_is_called_so(page):
    assert "A424approx is a stand-in, not A424." in page.text


def test_limits_and_citations_follow_the_normalisation(finished):
    found = gather(finished.study, finished.fields, [], finished.config.name)
    assert not any("is affine" in text for text in limits(found))
    assert any("SyN" in what for what, _ in citations(found))
    resample = {"normalize": {"transform": "affine"}}
    known = replace(found.provenance, parameters={"resample": resample})
    linear = replace(found, provenance=known)
    assert any("is affine" in text for text in limits(linear))
    assert not any("SyN" in what for what, _ in citations(linear))


def test_methods_say_what_was_done(finished, page):
    assert "ICA-AROMA" in page.text and "periods of 100 s or more" in page.text
    found = gather(finished.study, finished.fields, [], finished.config.name)
    options = Denoise(
        method="36p",
        high_pass="gaussian",
        low_pass_s=10,
        scrub="censor",
        scrub_fd_mm=0.25,
        scrub_pad=(1, 2),
    ).model_dump(mode="json")
    known = {"resample-to-parcels": {"denoise": options, "normalize": {"transform": "syn"}}}
    other = replace(found, provenance=replace(found.provenance, parameters=known))
    text = " ".join(methods(other))
    for words in (
        "sigma 50 s",
        "and from the nuisance regressors",
        "36 columns",
        "periods below 10 s",
        "framewise displacement above 0.25 mm, with 1 before and 2 after each, had no part",
        "left out of the series",
    ):
        assert words in text
    assert "periods of 100 s or more" not in text
    cited = [what for what, _ in citations(other)]
    assert {"36-parameter regression", "Scrubbing", "Nonlinear registration (SyN)"} < set(cited)
    assert methods(replace(found, provenance=replace(found.provenance, parameters={}))) == []
    for denoise, ica, words in (
        ({"method": "fix"}, {}, "passed on without any filter or regression"),
        ({"mean_signals": ["csf"]}, {"rule": "HFC > 0.4"}, "a rule of the study's own"),
        ({}, {"classifier": ["python", "judge.py"]}, "a program of the study's own (python judge"),
    ):
        known = {"denoise": {"denoise": Denoise(**denoise).model_dump()}, "ica": {"ica": ica}}
        other = replace(found, provenance=replace(found.provenance, parameters=known))
        text = " ".join(methods(other))
        assert words in text
        assert ("the mean signal of CSF" in text) == ("mean_signals" in denoise)
        cited = [what for what, _ in citations(other)]
        assert ("FIX" in cited) == ("Filters and regression in one step" not in cited)


def test_what_others_did_is_told_and_cited(finished):
    found = gather(finished.study, finished.fields, [], finished.config.name)
    done = {"motion": ["fMRIPrep 25.1.3"], "resampling": ["fMRIPrep 25.1.3"]}
    known = replace(found.provenance, processed_by=done, parameters={"adopt": {}})
    theirs = replace(found, provenance=known)
    assert methods(theirs)[0] == (
        "Not done by this workflow, but before: motion and resampling by fMRIPrep 25.1.3."
    )
    assert not any("affine" in text or "istortion" in text for text in limits(theirs))
    cited = dict(citations(theirs))
    assert "Esteban" in cited["fMRIPrep"] and "Registration (ANTs)" not in cited
    assert "Registration (ANTs)" in dict(citations(found))
    assert "fMRIPrep" not in dict(citations(found))


def test_what_a_study_of_parcels_left_behind_is_not_told(finished, monkeypatch):
    """It read volumes before: the files of denoising are still there."""
    found = gather(finished.study, finished.fields, [], "x")
    assert "denoise" in found.provenance.parameters and methods(found)
    table = found.recordings.assign(kind="parcels")
    monkeypatch.setattr("brainlm.report.gather.read_table", lambda path: table)
    now = gather(finished.study, finished.fields, [], "x")
    assert "denoise" not in now.provenance.parameters and methods(now) == []


def test_what_others_cleaned_or_decomposed_is_not_called_fix_or_ours(finished):
    found = gather(finished.study, finished.fields, [], "x")

    def told(denoise, **done):
        known = {"denoise": {"denoise": Denoise(**denoise).model_dump()}, "ica": {"ica": {}}}
        about = replace(found.provenance, processed_by=done, parameters=known)
        other = replace(found, provenance=about)
        return " ".join(methods(other)), [what for what, _ in citations(other)]

    text, cited = told({"method": "fix"}, denoising=["XCP-D 0.10.7"])
    assert "FIX" not in text and "FIX" not in cited and "XCP-D" in text
    for who in ("FSL FIX (high-pass 2000 s)", "UK Biobank pipeline (FSL MELODIC and FIX)"):
        text, cited = told({"method": "fix"}, denoising=[who])
        assert "FIX" in text and "FIX" in cited
    text, _ = told({"method": "aroma"}, components=["fMRIPost-AROMA 0.0.10"])
    assert "components were taken from fMRIPost-AROMA 0.0.10" in text
    assert "Each run was decomposed" not in text


def test_an_atlas_of_another_space_is_told_and_its_template_cited(finished):
    found = gather(finished.study, finished.fields, [], "x")
    assert found.atlas_space is None
    assert not any("is drawn in" in text for text in limits(found))
    other = replace(found, atlas_space="MNI152NLin6Asym")
    assert any("MNI152NLin6Asym, the data is in MNI152NLin2009aSym" in t for t in limits(other))
    same = replace(other, template="MNI152NLin6Asym")
    assert not any("is drawn in" in text for text in limits(same))
    assert any("MNI152NLin6Asym" in what and "2012" in ref for what, ref in citations(same))


def test_doubtful_anatomies_are_named(copied):
    assert gather(copied.study, copied.fields, [], "x").doubtful == []
    record = sidecar_path(copied.of_recording("t1w_to_mni", "sub-02_task-rest"))
    write_json(record, {"Doubtful": True})
    found = gather(copied.study, copied.fields, [], "x")
    assert found.doubtful == ["sub-02"]
    assert any("1 T1w image may be cropped" in t and "sub-02" in t for t in limits(found))


def test_runs_denoised_otherwise_are_named(copied):
    assert gather(copied.study, copied.fields, [], "x").unsettled == []
    write_json(
        sidecar_path(copied.of_recording("carpet", "sub-02_task-rest")), {"Fallback": "motion24"}
    )
    found = gather(copied.study, copied.fields, [], "x")
    assert found.unsettled == ["sub-02_task-rest"]
    assert any("did not settle" in t and "sub-02_task-rest" in t for t in limits(found))


@pytest.mark.parametrize("stage", ["resample", "resample-to-parcels"])
def test_limits_tell_how_many_runs_are_left_distorted(finished, stage):
    found = gather(finished.study, finished.fields, [], finished.config.name)
    assert any("left as it is in 8 of 8 runs" in text for text in limits(found))
    resample = {"distortion": {"method": "auto"}}
    known = replace(found.provenance, parameters={stage: resample})
    mapped = found.recordings.assign(fmap_kind="phasediff")
    assert not any(
        "left as it is" in t for t in limits(replace(found, recordings=mapped, provenance=known))
    )


def test_every_lost_recording_has_its_reason(page):
    for words in (
        f"failed motion 3 of 240 volumes hold NaN or inf (first: volume 7) To mend: convert it "
        f"anew from DICOM, or exclude the run 1 {FAILED}",
        f"excluded cohort mean FD 0.71 mm is above 0.55 mm 1 {EXCLUDED}",
        f"ineligible onboard 60 volumes; at least 200 are needed 1 {SHORT}",
    ):
        assert words in page.text


def test_counts_follow_the_recordings(page):
    steps = "9 found 8 eligible −1 ineligible 7 processed −1 given up 6 in the cohort −1 excluded"
    assert steps in page.text
    assert "Motion 7 done, 1 given up" in page.text
    assert "4 train / 1 val / 1 test" in page.text
    assert "2.56 k model parameters" in page.text


def test_words_fit_into_the_boxes_of_the_pipeline(finished):
    """Twenty letters do, as seen in a browser; thousands of recordings take no more."""
    found = gather(finished.study, finished.fields, [], "study")
    cohort = pd.concat([found.cohort] * 2000, ignore_index=True)
    many = replace(found, cohort=cohort.assign(subject=cohort.index))
    for box in (*boxes(found), *boxes(many)):
        assert len(box.detail) <= 20, box


def test_table_joins_cohort_and_figures(page):
    # From the cohort's table; from the QC figure's sidecar; from nowhere.
    assert "sub-01_task-rest train 240 0.8 0.080 100.0 included" in page.text
    assert re.search(rf"{EXCLUDED} 240 0\.8 0\.\d{{3}} \d\d\.\d excluded", page.text)
    assert f"{SHORT} 60 0.8 ineligible" in page.text


def test_figures_are_embedded_and_linked(page, html, finished):
    assert f"#qc-{finished.ids[0]}" in page.links
    assert f"qc-{FAILED}" not in page.ids
    assert html.count("data:image/png;base64,") == 2


def test_results_are_told_with_their_baselines(page):
    assert "BrainLM 0.412 0.382 to 0.442" in page.text
    assert "Linear interpolation 0.120 0.090 to 0.150" in page.text
    assert "the prediction is constant" in page.text
    note = re.search(r"Head motion alone n/a (\d) ", page.text)
    assert note
    assert f"{note[1]} 4 train subjects, 5 are needed" in page.text
    assert "1 test subject: the evaluation shows that the pipeline runs" in page.text


def test_phantom_truth_is_told(page):
    assert "Recovery of the phantom's truth" in page.text
    assert "parcel signals, r with truth 0.620" in page.text


def test_provenance_holds_hashes_digests_and_versions(page, finished):
    sidecar = read_json(finished.path("scaler").with_suffix(".json"))
    assert f"scale {sidecar['CodeDigest']}" in page.text
    from brainlm.provenance import sha256_file

    assert sha256_file(finished.path("model")) in page.text
    assert "Ortega Caro" in page.text


def test_same_study_elsewhere_gives_the_same_bytes(tmp_path, finished, html):
    twin = FinishedStudy(tmp_path / "elsewhere").write()
    twin.write_quality([twin.ids[0], EXCLUDED])
    qc_figure([twin.ids[0], EXCLUDED, FAILED], study=twin.study.root, batch="0000")
    report(study=twin.study.root)
    assert twin.path("report").read_text(encoding="utf-8") == html
    sidecars = [made.path("report").with_suffix(".json").read_bytes() for made in (twin, finished)]
    assert sidecars[0] == sidecars[1]


def test_report_before_anything_ran_tells_how_to_go_on(tmp_path):
    made = FinishedStudy(tmp_path)
    from brainlm.config import to_commented_yaml

    write_text(made.study.path("config"), to_commented_yaml(made.config))
    made.write_recordings()
    report(study=tmp_path)
    text = Page(made.path("report").read_text(encoding="utf-8")).text
    assert "In progress: cohort, shards, pretraining, reconstruction, age, sex not run yet" in text
    for target in ("shards", "pretrain", "evaluate", "report"):
        assert f"snakemake --profile local {target}" in text
    assert "Motion – not run yet" in text
    assert "8 unfinished" in text


def test_damaged_files_are_told_and_the_rest_is_shown(copied):
    copied.path("reconstruction").write_text("{")
    copied.path("model").write_bytes(b"not safetensors")
    text = Page(rendered(copied)).text
    assert "evaluation/brainlm/reconstruction/metrics.json" in text
    assert "models/brainlm/model.safetensors" in text
    assert "6 recordings in the cohort" in text


def test_a_training_that_is_still_writing_its_log(copied):
    log = copied.path("model_log")
    write_text(log, log.read_text() + '{"step": 101, "epo')
    assert "steps 100" in Page(rendered(copied)).text


def test_of_a_resumed_training_the_last_lines_count(copied):
    again = {"step": 100, "epoch": 20, "loss": 0.12345, "lr": 0, "grad_norm": 1}
    log = copied.path("model_log")
    write_text(log, log.read_text() + json.dumps(again) + "\n")
    text = Page(rendered(copied)).text
    assert "steps 100" in text
    assert "last training loss 0.1235" in text


def test_real_atlas_has_no_banner(tmp_path):
    made = FinishedStudy(tmp_path)
    made.config = made.config.model_copy(
        update={"atlas": made.config.atlas.model_copy(update={"name": "A424"})}
    )
    made.fields["atlas"] = "A424"
    made.write()
    assert "stand-in" not in Page(rendered(made)).text


def test_names_and_reasons_cannot_inject_markup(copied):
    copied.config = copied.config.model_copy(update={"name": "<script>alert(1)</script>"})
    copied.path("exclusions").write_text(
        f"recording_id\tstage\treason\n{EXCLUDED}\tcohort\t<img src=x onerror=alert(1)>\n"
    )
    html = rendered(copied)
    assert "<script>alert" not in html
    assert "<img src=x" not in html


def test_large_studies_embed_the_worst_figures_only(copied, monkeypatch):
    copied.path("qc_figure", recording=EXCLUDED).unlink()
    for number, name in enumerate(copied.included):
        path = copied.path("qc_figure", recording=name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"png")
        copied.sidecar(path, "qc-figure", name, MeanFramewiseDisplacement=number / 10)
    monkeypatch.setattr(recordings, "EMBED", 2)
    findings = gather(copied.study, copied.fields, ["age", "sex"], "x")
    chosen = recordings.figures_to_embed(findings)
    assert chosen == copied.included[:3:-1]
    page = Page(render_page(findings, dict.fromkeys(chosen, b"png")))
    assert "The 2 of 6 recordings with the largest mean FD" in page.text
    assert f"figures/{copied.included[0]}_qc.png" in page.links


def test_a_figure_of_another_recording_is_refused(copied):
    own, other = (copied.path("qc_figure", recording=name) for name in (copied.ids[0], EXCLUDED))
    own.write_bytes(other.read_bytes())
    with pytest.raises(DataError, match="not the file that its sidecar describes"):
        report(study=copied.study.root)
    sidecar_path(own).write_bytes(sidecar_path(other).read_bytes())
    with pytest.raises(DataError, match="says that it is of"):
        report(study=copied.study.root)


def test_very_large_studies_show_the_odd_and_the_worst_rows(copied, monkeypatch):
    monkeypatch.setattr(recordings, "_TABLE_ROWS", 4)
    findings = gather(copied.study, copied.fields, [], "x")
    rows = recordings.recordings_table(findings, {})["rows"]
    assert {row["name"] for row in rows[:3]} == {EXCLUDED, FAILED, SHORT}
    assert rows[3]["name"] == copied.included[int(np.argmax([0.08, 0.12, 0.31, 0.1, 0.22, 0.15]))]


def test_templates_are_part_of_the_package():
    folder = Path(recordings.__file__).parent
    there = {path.name for path in (folder / "templates").iterdir()}
    texts = [path.read_text() for path in (*folder.rglob("*.py"), *folder.rglob("*.j2"))]
    named = set(re.findall(r"\b[a-z_]+\.(?:html\.j2|css|js)\b", "\n".join(texts)))
    assert there == named

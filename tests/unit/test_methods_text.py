"""The methods in words: what ran and nothing else, in sentences that can be printed."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from brainlm.files import write_json
from brainlm.report.gather import Provenance
from brainlm.report.reproducibility import cards, methods_text, reruns
from brainlm.report.reproducibility.about import about_study
from brainlm.report.reproducibility.base import About
from brainlm.report.reproducibility.bibliography import ENTRIES, bibtex, in_brackets, keys_in
from brainlm.stages import stage_params

from .report_study import FinishedStudy


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> About:
    """Six runs denoised by ICA-AROMA, a model and two labels."""
    study = FinishedStudy(tmp_path_factory.mktemp("methods")).write()
    return about_study(study.study.root)


@pytest.fixture(scope="module")
def adopted(native: About) -> About:
    """The same runs as fMRIPrep left them, cleaned with 24 motion parameters and scrubbed."""
    config = native.config.model_copy(
        update={
            "engine": "derivatives",
            "denoise": native.config.denoise.model_copy(
                update={"method": "motion24", "low_pass_s": 10.0, "scrub": "censor"}
            ),
        }
    )
    stages = ("adopt", "denoise", "parcellate", "cohort", "scale")
    provenance = Provenance(
        code={},
        parameters={stage: stage_params(stage, config) for stage in stages},
        software={"brainlm": ["0.1.0"], "numpy": ["2.0.0"], "python": ["3.11.0"]},
        hashes=[],
        processed_by={
            step: ["fMRIPrep 25.1.3"] for step in ("motion", "registration", "slice timing")
        },
    )
    findings = replace(
        native.findings,
        provenance=provenance,
        parameters=None,
        reconstruction=None,
        clinical={},
    )
    return replace(native, findings=findings)


def told(about: About) -> dict[str, str]:
    return {one.title: one.text for one in methods_text.paragraphs(about)}


NATIVE = {
    "Participants and acquisition": "The dataset comprised 9 BOLD runs of 9 participants, 8 of "
    "which had at least 200 volumes, a repetition time between 0.3 and 5 s and readable data. "
    "These runs had a repetition time of 0.8 s and 240 volumes; a T1-weighted image was available "
    "for each.",
    "Denoising": "Each run was decomposed by spatial ICA, and its components were classified by "
    "the features and thresholds of ICA-AROMA or, where a table in review/ says otherwise, by eye "
    "[@pruim2015]. Of a joint fit of all components, what the noise components explained was "
    "subtracted (non-aggressive regression). From each voxel's series the mean signal of white "
    "matter and of CSF, the leading 2 principal components each of CSF and of white matter and "
    "discrete cosines with periods of 100 s or more were removed in one least-squares fit; the "
    "voxel's mean was kept [@lindquist2019; @behzadi2007]. Volumes before the steady state had no "
    "part in it.",
    "Quality control and splits": "Runs with a mean FD above 0.55 mm, or with data in less than "
    "80% of the parcels, were excluded (n = 1); 6 runs of 6 participants remained (mean FD 0.16 "
    "mm, range 0.08 to 0.31 mm). Participants were assigned to training (4 runs of 4 "
    "participants), validation (1 run of 1 participant) and test (1 run of 1 participant) by a "
    "salted hash of their identifiers; all runs of a participant were kept in the same split.",
    "Evaluation": "In 1 test participant, hidden tokens (75% of a window) were reconstructed with "
    "an R² of 0.412 (95% CI 0.382 to 0.442). Age of 1 test participant was predicted with an R² of "
    "0.700 (95% CI 0.600 to 0.800); for comparison, the same participants were predicted by the "
    "method connectivity. Sex of 1 test participant was predicted with an AUROC of 0.700 (95% CI "
    "0.600 to 0.800); for comparison, the same participants were predicted by the method "
    "connectivity.",
}
ADOPTED = {
    "Earlier processing": "The data had been processed before by fMRIPrep 25.1.3 [@esteban2019], "
    "from which the following was taken over: motion, registration and slice timing.",
    "Denoising": "From each voxel's series the six head-motion parameters, their backward "
    "differences and the squares of both (24 columns), discrete cosines with periods of 100 s or "
    "more and discrete cosines with periods below 10 s were removed in one least-squares fit; the "
    "voxel's mean was kept [@friston1996; @lindquist2019]. Volumes before the steady state had no "
    "part in it. Volumes with framewise displacement above 0.5 mm had no part in the fit and were "
    "left out of the series [@power2014].",
    "Scaling": "Each parcel's series was centred on the run's own mean and scaled by the median "
    "and the interquartile range of that parcel, estimated on the training split alone.",
    "Software": "All steps were run by the BrainLM pipeline 0.1.0 under Snakemake [@moelder2021] "
    "with Python 3.11.0 and NumPy 2.0.0 [@harris2020].",
}


def test_golden_text_of_a_native_study(native: About) -> None:
    found = told(native)
    assert {title: found[title] for title in NATIVE} == NATIVE
    assert "Earlier processing" not in found
    assert "[This paragraph" not in "".join(found.values())


def test_golden_text_of_an_adopted_study_tells_nothing_that_did_not_run(adopted: About) -> None:
    found = told(adopted)
    assert {title: found[title] for title in ADOPTED} == ADOPTED
    expected = ["Participants and acquisition", "Earlier processing", "Denoising", "Parcellation"]
    assert list(found) == [*expected, "Quality control and splits", "Scaling", "Software"]


def test_sentences_are_whole(native: About, adopted: About) -> None:
    for text in [*told(native).values(), *told(adopted).values()]:
        assert text.endswith(".") and "  " not in text and ".." not in text
        assert not re.search(r"None|nan|\{|\}|\b1 \w+s\b| ,| \.", text), text


def test_options_that_an_earlier_version_did_not_record(native: About) -> None:
    parameters = json.loads(json.dumps(native.findings.provenance.parameters))
    del parameters["motion"]["motion"]["fd_radius_mm"]
    provenance = replace(native.findings.provenance, parameters=parameters)
    about = replace(native, findings=replace(native.findings, provenance=provenance))
    assert "'fd_radius_mm' was not recorded" in told(about)["Head motion"]


def parse(text: str) -> dict[str, dict[str, str]]:
    """BibTeX by its grammar: entries of `name = {balanced}` fields and nothing between them."""
    entries: dict[str, dict[str, str]] = {}
    place = 0
    while found := re.compile(r"\s*@(\w+)\{([\w-]+),\s*").match(text, place):
        place, fields = found.end(), {"": found[1]}
        while field := re.compile(r"(\w+) = \{").match(text, place):
            depth, place = 1, field.end()
            start = place
            while depth:
                depth += {"{": 1, "}": -1}.get(text[place], 0)
                place += 1
            assert field[1] not in fields
            fields[field[1]] = text[start : place - 1]
            place = re.compile(r",?\s*").match(text, place).end()
        assert text[place] == "}" and found[2] not in entries
        entries[found[2]], place = fields, place + 1
    assert not text[place:].strip()
    return entries


def test_the_bibliography_is_bibtex_and_holds_what_is_cited(native: About) -> None:
    text, references = methods_text.methods_files(native)
    entries = parse(references)
    assert sorted(entries) == keys_in([text]) and {"pruim2015", "efron1987"} <= set(entries)
    assert entries["power2012"]["pages"] == "2142--2154"
    whole = parse(bibtex(ENTRIES))
    needed = {"article": {"author", "title", "journal", "year"}}
    needed["inproceedings"] = {"author", "title", "booktitle", "year"}
    for fields in whole.values():
        assert needed[fields[""]] <= set(fields) and re.fullmatch(r"\d{4}", fields["year"])
    assert in_brackets("x [@greve2009; @power2012].") == (
        "x (Greve and Fischl, 2009; Power et al., 2012)."
    )
    assert in_brackets("[@moelder2021] [@holm1979]") == "(Mölder et al., 2021) (Holm, 1979)"


class Hidden:
    """A `Sharing` that hides all."""

    k = 7

    def recording(self, recording_id: str) -> str:
        return "recording A"

    def subject(self, subject: str) -> str:
        return "person A"

    def path(self, path: str) -> str:
        return "a file"

    def count(self, number: int) -> str:
        return "few" if number < 7 else str(number)


def test_small_counts_are_not_told_where_that_is_asked_for(native: About) -> None:
    text = methods_text.section(native, Hidden()).html
    assert "few runs of few participants remained." in text
    assert "mean FD 0.16" not in text and "a mean FD 0.16" not in text
    assert "(n = few)" in text and "6 runs" not in text and "1 participant" not in text


# --- done again, and cards ---------------------------------------------------------------


def rerun(about: About, verdict: str) -> None:
    what = "derivatives/brainlm/sub-01/func/sub-01_task-rest_desc-motion_timeseries.tsv"
    one = {"stage": "motion", "what": what, "verdict": verdict, "note": "in /home/anna/x"}
    tolerance = {"relative": 0.05, "correlation": 0.999, "why": "a search"}
    stage = {"stage": "motion", "counts": {verdict: 1}, "max_abs": 0.1, "max_relative": 0.3}
    write_json(
        about.study.path("reproduced"),
        {
            "kind": "comparison",
            "verdict": verdict,
            "seed": 1,
            "training": "Not asked for.",
            "sample": [{"recording": "sub-01_task-rest", "split": "train"}],
            "of": {"cohort/recordings.parquet": "0" * 64},
            "other_code": [{"stage": "motion", "recorded": ["abc"], "now": "def"}],
            "other_software": [],
            "other_options": [{"option": "motion.iterations", "recorded": 9, "now": 12}],
            "stages": [{**stage, "min_correlation": 0.9, "tolerance": tolerance}],
            "differences": [{**one, "max_abs": 0.1, "max_relative": 0.3, "min_correlation": 0.9}],
        },
    )


def test_what_was_done_again_is_shown_and_raises_alarms(native: About) -> None:
    path: Path = native.study.path("reproduced")
    assert "brainlm reproduce --sample 3" in reruns.section(native, None).html
    rerun(native, "within tolerance")
    found = reruns.section(native, None)
    assert found.alarms == () and "0.3 SD" in found.html
    assert "motion.iterations: 9, now 12" in found.html and "code abc, now def" in found.html
    assert "have changed since" in found.html
    rerun(native, "beyond tolerance")
    (alarm,) = reruns.section(native, None).alarms
    assert "sub-01_task-rest_desc-motion" in alarm
    shared = reruns.section(native, Hidden())
    assert not re.search("sub-01|anna", shared.html + "".join(shared.alarms))
    path.write_text('{"verdict": ')
    (alarm,) = reruns.section(native, None).alarms
    assert "cannot be read" in alarm
    path.unlink()


def test_cards_and_the_hashes_of_the_datasheet(native: About) -> None:
    folder = native.path("shards_index").parent
    (folder / "README.md").write_text("# Shards <of> 6\n")
    (folder / "parcels.tsv").write_text("index\n")
    entry = {"contentUrl": "parcels.tsv", "sha256": "0" * 64}
    write_json(folder / "croissant.json", {"distribution": [entry]})
    card = native.path("model").parent / "README.md"
    card.write_text('---\nlibrary_name: "brainlm"\n---\n\n# brainlm\n')
    found = cards.section(native, None)
    assert "Shards &lt;of&gt; 6" in found.html and "library_name" not in found.html
    assert found.alarms[0].startswith("shards/parcels.tsv is not the file")
    assert "of&gt; 6" not in cards.section(native, Hidden()).html
    (folder / "croissant.json").write_text("{}")
    assert "cannot be read" in cards.section(native, None).alarms[0]

"""The evaluation's page, its tables, figures and results.tsv."""

from __future__ import annotations

import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from brainlm.cli.evaluation_page import evaluation_page
from brainlm.cli.report import report
from brainlm.config import Config, Evaluate, to_commented_yaml
from brainlm.errors import DataError
from brainlm.evaluate.forecast_scores import compare_forecasts
from brainlm.evaluate.paired import holm
from brainlm.files import read_json, write_json
from brainlm.layout import Study
from brainlm.report.evaluation.forecasts import ORDER
from brainlm.report.evaluation.parts import Material, Picture, Row, Section, Table, stem_of
from brainlm.report.evaluation.printed import numeric_columns, to_html, to_latex, to_markdown
from brainlm.report.evaluation.published import published
from brainlm.report.evaluation.results_table import COLUMNS, results_table, to_tsv
from brainlm.report.evaluation.sections import TITLES, Missing, gather_sections
from brainlm.report.evaluation.write import draw, write_parts
from brainlm.report.forecasts import METHODS

from .report_study import FinishedStudy
from .test_report_forecasts import SUBJECTS, _table

NASTY = r"50% of R&D_x {a} #1 ~ ^ \ $5 | <b> *"


def _files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> FinishedStudy:
    """A study that has compared its forecasts, of two datasets."""
    finished = FinishedStudy(tmp_path_factory.mktemp("page") / "study").write()
    tuning = finished.config.finetune.model_copy(update={"forecast": True})
    config = finished.config.model_copy(update={"finetune": tuning})
    finished.study.path("config").write_text(to_commented_yaml(config))
    finished.path("reconstruction").unlink()
    for target in ("age", "sex"):
        finished.path("clinical", target=target).unlink()
    tables = {
        method: pd.concat([_table(error), _table(error, "HCP").assign(subject=_others())])
        for method, error in {"brainlm": 0.3, "lstm": 0.5, "ar": 0.9, "mean": 1.2}.items()
    }
    content = compare_forecasts(
        tables, reference="brainlm", trained_on={"ukb"}, bootstrap=100, seed=0
    )
    write_json(finished.path("forecast"), content.metrics)
    evaluation_page(finished.study.root)
    return finished


def _others() -> list[str]:
    return [f"other{number:02d}" for number in range(SUBJECTS) for _ in range(6)]


@pytest.fixture(scope="module")
def folder(finished) -> Path:
    return finished.path("evaluation_page").parent


def test_equal_results_give_equal_bytes_and_nothing_stale_stays(finished, folder) -> None:
    before = _files(folder)
    (folder / "tables" / "of-a-label-that-is-gone.md").write_text("old")
    evaluation_page(finished.study.root)
    assert _files(folder) == before


def test_the_page_holds_all_that_it_shows(folder) -> None:
    """No script, font, picture or style from elsewhere; every link leads to a file of the study."""
    text = (folder / "index.html").read_text()
    assert text.count("data:image/") >= 3  # all subjects and each dataset
    loaded = re.findall(r"<(?:script|link|iframe)|url\((?!data:)|@import|src=\"(?!data:)", text)
    assert not loaded
    assert "http" not in re.sub(r"data:image/[^\"]+", "", text)
    links = set(re.findall(r'href="([^"#]+)"', text)) - {"../../reports/report.html"}
    assert len(links) > 10
    for link in links:
        assert (folder / link).is_file(), link
    anchors = re.findall(r'href="#([^"]+)"', text)
    assert anchors == list(TITLES)
    for anchor in anchors:
        assert f'id="{anchor}"' in text


def test_the_page_is_well_formed(folder) -> None:
    class Balance(HTMLParser):
        stack: list[str] = []  # noqa: RUF012

        def handle_starttag(self, tag, attrs):
            if tag not in ("meta", "img", "br", "hr", "link"):
                self.stack.append(tag)

        def handle_endtag(self, tag):
            assert self.stack.pop() == tag

    for path in (folder / "index.html", *(folder / "tables").glob("*.html")):
        parser = Balance()
        parser.feed(path.read_text())
        assert not parser.stack


def test_no_subject_and_no_recording_is_named(finished, folder) -> None:
    own = [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "forecast"]
    own = [
        path
        for path in own
        if path.name in ("index.html", "index.json", "results.tsv", "results.json")
        or path.parent.name in ("tables", "figures", "views")
    ]
    assert len(own) > 15
    names = [*finished.ids, *(name[:6] for name in finished.ids), "other0"]
    for path in own:
        content = path.read_bytes()
        for name in names:
            assert name.encode() not in content, (path, name)


def test_what_was_not_run_is_told_with_its_command(folder) -> None:
    text = (folder / "index.html").read_text()
    for task in set(TITLES) - {"forecast"}:
        part = text[text.index(f'id="{task}"') :].partition("</section>")[0]
        assert 'class="pending"' in part
        assert "<code>snakemake evaluate</code>" in part
    assert "add <code>scaling</code> to <code>evaluate.tasks</code>" in text


def test_every_task_of_the_config_has_its_place() -> None:
    known = Evaluate.model_json_schema()["properties"]["tasks"]["items"]["enum"]
    assert set(known) == set(TITLES)
    assert set(ORDER) == set(METHODS)


def test_numbers_are_those_of_the_comparison(finished, folder) -> None:
    content = read_json(finished.path("forecast"))
    table = pd.read_csv(folder / "results.tsv", sep="\t", na_values="n/a", keep_default_na=False)
    assert tuple(table.columns) == COLUMNS
    assert set(table["cohort"]) == {"all", "HCP", "ukb"}
    chosen = table.set_index(["cohort", "method", "condition", "metric"]).sort_index()
    for part in content["cohorts"]:
        for method, found in part["methods"].items():
            row = chosen.loc[(part["cohort"], method, "all steps", "mse")]
            assert row["value"] == pytest.approx(found["metrics"]["mse"]["value"], rel=1e-5)
            assert row["n_subjects"] == part["n_subjects"]
            if method != "brainlm":
                assert row["p"] == pytest.approx(found["p"], rel=1e-5)
                assert row["p_corrected"] == pytest.approx(found["p_holm"], rel=1e-5)
            step = chosen.loc[(part["cohort"], method, "step 2", "r2")]
            assert step["value"] == pytest.approx(found["by_step"][1]["r2"]["value"], rel=1e-5)
    text = (folder / "tables" / "table-2-forecast.md").read_text()
    assert "HCP (external), R²" in text
    assert "ukb, R²" in text
    first = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")][2:]
    assert first == [METHODS[name][0] for name in ("brainlm", "lstm", "ar", "mean")]
    assert "**" in text


def test_the_report_leads_to_the_page(finished) -> None:
    report(finished.study.root)
    path = finished.study.path("report")
    [link] = re.findall(r'href="([^"]+index\.html)"', path.read_text())
    assert (path.parent / link).resolve() == finished.path("evaluation_page").resolve()
    headline = read_json(finished.path("evaluation_page").with_suffix(".json"))["Headlines"]
    assert headline[0][0] == "Forecasts"
    assert headline[0][1].split("; ")[0] in path.read_text()


def test_results_that_nothing_keeps_up_to_date_are_left_out(finished) -> None:
    material = Material(finished.study, finished.fields, ())
    every = Config().evaluate.tasks
    shown = gather_sections(material, every, forecasts=True)
    assert [part.name for part in shown if isinstance(part, Section)] == ["forecast"]
    for tasks, forecasts in (((), True), (every, False)):
        parts = gather_sections(material, tasks, forecasts=forecasts)
        assert all(isinstance(part, Missing) for part in parts)


def test_results_of_another_version_are_refused(tmp_path) -> None:
    old = FinishedStudy(tmp_path / "study").write()
    with pytest.raises(DataError, match="reconstruction hold no 'conditions'"):
        evaluation_page(old.study.root)
    assert not old.path("evaluation_page").exists()


# --- tables ---------------------------------------------------------------------------------


def _any_table(cells: list[list[str]], **fields) -> Table:
    rows = tuple(tuple(row) for row in cells)
    return Table("t", NASTY, ("Method", "R² & more"), rows, note=NASTY, **fields)


def test_latex_is_escaped_and_marks_the_best_and_the_published() -> None:
    table = _any_table([[NASTY, "−0.1"], ["a", "0.5"]], best={(1, 1)}, published=frozenset({0}))
    text = to_latex(table)
    assert r"\textbf{0.5}" in text
    assert r"\textit{$-$0.1}" in text
    assert r"50\% of R\&D\_x \{a\} \#1" in text
    bare = re.sub(r"\\[&%#_{}$]|\\text\w+\{\}|\$[^$]*\$", "", text)
    assert not re.search(r"[%#_~^|<]", bare)
    assert bare.count("&") == 3  # one for each line of two cells
    assert bare.isascii()
    for rule in ("toprule", "midrule", "bottomrule"):
        assert text.count(f"\\{rule}") == 1


@given(st.lists(st.text(max_size=12), min_size=2, max_size=8))
def test_whatever_is_in_a_cell_the_tables_keep_their_shape(words: list[str]) -> None:
    cells = [[word, word] for word in words]
    table = _any_table(cells, best=frozenset({(0, 1)}))
    latex, markdown, html = to_latex(table), to_markdown(table), to_html(table)
    depth = 0
    for match in re.finditer(r"\\\\|\\[{}]|[{}]", latex):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        assert depth >= 0
    assert depth == 0
    assert html.count("<tr") == len(cells) + 1
    assert html.count("</td>") == 2 * len(cells)
    lines = [line for line in markdown.split("\n") if line.startswith("| ")]
    assert len(lines) == len(cells) + 2
    for line in lines:
        assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 3


def test_columns_of_numbers_are_set_flush_right() -> None:
    table = _any_table([["AR(2)", "−0.1 (−0.2 to 0.0)"], ["b", "n/a"], ["c", ""]])
    assert numeric_columns(table) == (False, True)
    assert r"\begin{tabular}{lr}" in to_latex(table)
    assert "| --- | ---: |" in to_markdown(table)


def test_published_values_are_marked_and_never_rows_of_ours(folder) -> None:
    tsv = (folder / "results.tsv").read_text()
    assert "650M" not in tsv
    ours = (folder / "tables" / "table-2-forecast.md").read_text()
    assert "650M" not in ours
    text = (folder / "tables" / "published-forecast.md").read_text()
    assert "Ortega Caro et al., ICLR 2024" in text
    assert "| *BrainLM 13M* | *0.086* | *0.280* | *0.648* |" in text
    for task in ("reconstruction", "clinical", "forecast", "networks"):
        others, theirs = published(task, ["mine"]), published(task, ["Hcp", "mine"])
        assert "are others" in others.note
        assert "is named Hcp too" in theirs.note
        assert others.published == frozenset(range(len(others.rows)))
        assert {len(row) for row in others.rows} == {len(others.columns)}
    assert published("scaling", []) is None


@pytest.mark.parametrize("kind", ["latent", "latent_coordinates"])
def test_a_broken_file_is_named_with_what_makes_it_anew(tmp_path, kind) -> None:
    material = Material(Study(tmp_path), {"run": "brainlm"}, ())
    path = material.study.path(kind, run="brainlm")
    path.parent.mkdir(parents=True)
    path.write_text('{"n_subjects": ')
    with pytest.raises(DataError, match="cannot be read") as caught:
        material.json(kind) if path.suffix == ".json" else material.table(kind)
    assert Path(str(caught.value.file)) == path
    assert f"snakemake --force {material.study.relative(path)}" in str(caught.value)


# --- results.tsv ----------------------------------------------------------------------------


def test_tests_of_labels_are_one_family() -> None:
    p = [0.001, 0.01, 0.02, 0.04, None]
    rows = [
        Row("clinical", f"m{place % 2}", "mse", 1.0, target=f"label{place // 2}", p=value)
        for place, value in enumerate(p)
    ]
    shared = Row("clinical", "m0", "r2", 0.3, target="label0", p=0.001)  # of the same test
    other = Row("forecast", "ar", "mse", 1.0, p=0.0001)
    beside = [
        Row("clinical", f"m{n}", "error_more", 1.0, condition="beside brainlm", p=0.002)
        for n in range(3)
    ]
    table = results_table([*rows, shared, other, *beside])
    expected = holm(np.array([np.nan if value is None else value for value in p]))
    assert table["p_holm_all"][:5].to_numpy() == pytest.approx(expected, nan_ok=True)
    assert table["p_holm_all"][5] == table["p_holm_all"][0] == pytest.approx(0.004)
    assert np.isnan(table["p_holm_all"][6])
    assert table["p_holm_all"][7:].to_numpy() == pytest.approx(0.006)  # a family of their own


def test_tests_beside_the_model_are_a_family_of_their_own() -> None:
    against = [Row("clinical", f"m{n}", "r2", 0.1, p=0.01) for n in range(3)]
    about = {"condition": "beside brainlm", "target": "age"}
    beside = [Row("clinical", f"m{n}", "error_more", 0.1, p=0.02, **about) for n in range(2)]
    table = results_table([against[0], beside[0], *against[1:], beside[1]])
    assert table["p_holm_all"].tolist() == pytest.approx([0.03, 0.04, 0.03, 0.03, 0.04])


def test_results_are_tidy_even_when_there_are_none() -> None:
    assert to_tsv(results_table([])).split("\n") == ["\t".join(COLUMNS), ""]
    row = Row("networks", "attention", "accuracy", 1 / 3, note="no interval: 3 subjects")
    line = to_tsv(results_table([row])).split("\n")[1].split("\t")
    found = dict(zip(COLUMNS, line, strict=True))
    assert (found["value"], found["low"], found["n_subjects"]) == ("0.333333", "n/a", "n/a")
    assert found["note"] == "no interval: 3 subjects"


# --- files ----------------------------------------------------------------------------------


def test_views_and_names_of_any_kind_become_files(tmp_path) -> None:
    picture = Picture("steps-my data/set", "a caption", Figure(figsize=(1, 1)))
    table = Table("scores of ../x", "t", ("a",), (("1",),))
    section = Section(
        "latent", "t", "x", tables=(table,), pictures=(picture,), views={"map": "<html>turn</html>"}
    )
    write_parts(tmp_path, [section], draw([picture]), [])
    assert set(_files(tmp_path)) == {
        *(f"tables/{stem_of(table.name)}.{ending}" for ending in ("md", "tex", "html")),
        "figures/steps-my-data-set.svg",
        "figures/steps-my-data-set.png",
        "views/map.html",
    }


def test_two_parts_of_one_name_are_refused(tmp_path) -> None:
    table = Table("scores", "t", ("a",), (("1",),))
    sections = [Section("a", "a", "x", tables=(table,)), Section("b", "b", "x", tables=(table,))]
    with pytest.raises(DataError, match="named scores"):
        write_parts(tmp_path, sections, {}, [])
    assert not _files(tmp_path)

"""Labels: which row is about whom, what is missing, and what is only told."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from brainlm.bids.participants import read_participants
from brainlm.bids.phenotypes.people import match_ids
from brainlm.bids.phenotypes.read import Labelled, read_phenotypes
from brainlm.bids.phenotypes.summary import LabelSummary
from brainlm.config import Phenotypes
from brainlm.errors import InputError

SUBJECTS = [f"{number:02d}" for number in range(1, 31)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for subject in SUBJECTS:
        (tmp_path / f"sub-{subject}").mkdir()
    return tmp_path


def write(path: Path, **columns: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    separator = "," if path.suffix == ".csv" else "\t"
    pd.DataFrame(columns).to_csv(path, sep=separator, index=False)


def recordings(sessions: tuple[str | None, ...] = (None,)) -> pd.DataFrame:
    rows = [(subject, session) for subject in SUBJECTS for session in sessions]
    return pd.DataFrame(rows, columns=["subject", "session"]).astype("string")


def labelled(root: Path, table: pd.DataFrame | None = None, **options) -> Labelled:
    tables = read_phenotypes(root, root, Phenotypes.model_validate(options))
    return tables.label(recordings() if table is None else table)


def one(
    root: Path, cells: list, about: dict | None = None, **rule
) -> tuple[pd.Series, LabelSummary]:
    """A label `age` of participants.tsv: its column of the recordings table, and its summary."""
    write(root / "participants.tsv", participant_id=[f"sub-{s}" for s in SUBJECTS], age=cells)
    (root / "participants.json").write_text(json.dumps({"age": about or {}}))
    labels = [{"name": "age", **rule}] if rule else []
    found = labelled(root, labels=labels)
    return found.table["label_age"], found.labels[0]


def test_plain_columns_keep_their_names_and_types(root):
    ids = [f"sub-{s}" for s in SUBJECTS]
    write(
        root / "participants.tsv",
        participant_id=ids,
        age=[str(20 + n) for n in range(29)] + ["n/a"],
        group=["a", "b"] * 15,
        site=["X"] * 30,
    )
    write(root / "phenotype/bdi.tsv", participant_id=ids, total=list(range(30)))
    found = labelled(root)
    assert list(found.table.columns) == ["subject", "session", "label_age", "label_group"]
    assert found.table["label_age"].dtype == "Float64"
    assert found.table["label_age"].tolist()[:29] == [20.0 + n for n in range(29)]
    assert found.table["label_group"].dtype == "string"
    assert found.labels[0].missing == {"empty": 1}
    assert found.labels[0].quantiles["1"] == 48 and sum(found.labels[0].histogram["counts"]) == 29
    assert [level["subjects"] for level in found.labels[1].levels] == [15, 15]
    assert found.notes == [
        "no labels are taken of bdi (1 columns): phenotypes.tables or .labels names them"
    ]


@pytest.mark.parametrize(
    ("about", "codes", "taken_out"),
    [
        ({"Levels": {"-9": "Prefer not to say", "1": "low"}}, ["-9"], 1),
        ({"Levels": {"-9": {"Description": "missing"}}}, ["-9.0"], 1),
        ({"MissingValues": [-9]}, ["-9"], 1),
        ({"MissingValues": {"-9": "lost"}}, ["-9"], 1),
        ({"MissingValues": "lost"}, ["lost"], 1),
        ({}, ["NA", "", "n/a"], 3),
        ({"Levels": {"-9": "Unknowns among friends", "1": "low"}}, ["-9"], 0),
        ({"Levels": {"-9": "No problem"}}, ["-9"], 0),
        ({"Levels": {"-9": "No response", "1": "Response"}}, ["-9"], 0),  # to a treatment
        ({}, ["-9"], 0),
    ],
)
def test_only_what_the_dictionary_calls_missing_is(root, about, codes, taken_out):
    cells = [*codes, *(str(n % 5) for n in range(30 - len(codes)))]
    column, label = one(root, cells, about)
    assert int(column.isna().sum()) == taken_out == sum(label.missing.values())
    assert column.tolist()[len(codes) :] == [n % 5 for n in range(30 - len(codes))]
    if not taken_out:
        assert column[0] == -9


@pytest.mark.parametrize(
    ("cells", "codes", "gone"),
    [
        (range(28), (-999, 9999), True),
        (range(28), (999,), True),
        (range(28), (-9,), False),  # near: told, not touched
        (range(0, 84, 3), (-1,), False),
        (range(4), (-1,), False),
        ([n % 2 for n in range(28)], (-7,), False),  # too small to be beyond doubt
    ],
)
def test_a_code_is_taken_out_only_beyond_doubt(root, cells, codes, gone):
    others = list(cells)
    cells = [*codes, *others, *others[: 30 - len(codes) - len(others)]]
    cells += [others[0]] * (30 - len(cells))
    column, label = one(root, [str(cell) for cell in cells])
    kept = column.tolist()[: len(codes)]
    if gone:
        assert column.isna().sum() == len(codes) and pd.isna(kept).all()
        assert len(label.notes) == len(codes) and "far from all other" in label.notes[0]
        assert not label.suspicions
    else:
        assert kept == list(codes)
        assert not label.missing and "It was left in" in label.suspicions[0]


def test_a_number_among_the_others_is_no_code(root):
    _, label = one(root, [str(n - 9) for n in range(30)])
    assert label.suspicions == [] and label.missing == {}
    _, label = one(root, [str(n) for n in [99, *range(80, 109)]])
    assert label.suspicions == []


def test_the_mapping_decides(root):
    cells = ["-9", "-3", "130", *(str(20 + n) for n in range(27))]
    column, label = one(
        root,
        cells,
        {"Units": "months"},
        missing=[-9, -3],
        unit="years",
        range=[1.7, 10.5],
    )
    assert column.tolist()[4:] == pytest.approx([(20 + n) / 12 for n in range(1, 27)])
    assert label.missing == {"code -3": 1, "code -9": 1, "outside of the range": 2}
    assert column[:4].isna().all() and label.unit == "years"


@pytest.mark.parametrize(
    ("rule", "first", "stored", "kind"),
    [
        ({"type": "binary", "positive": 2}, [0, 1, 0], "number", "binary"),
        ({"type": "category", "levels": {1: "m", 2: "f", 3: "x"}}, ["m", "f", "x"], "text",
         "category"),
        ({"type": "ordinal", "levels": {3: "low", 1: "mid", 2: "high"}}, [1, 2, 0], "number",
         "ordinal"),
        ({"type": "ordinal"}, [1, 2, 3], "number", "ordinal"),
        ({"type": "category"}, ["1", "2", "3"], "text", "category"),
    ],
)  # fmt: skip
def test_types(root, rule, first, stored, kind):
    column, label = one(root, ["1", "2", "3"] * 10, **rule)
    assert column.tolist()[:3] == first
    assert (label.stored, label.type) == (stored, kind)
    assert sum(level["subjects"] for level in label.levels) == 30


@pytest.mark.parametrize(
    ("cell", "rule", "told"),
    [
        ("many", {"type": "number"}, "1 of 30 values of participants.age are not: 'many'"),
        ("5", {"type": "binary"}, "other values than 0 and 1"),
        ("5", {"type": "binary", "positive": "yes"}, "is 'yes', which the label age names"),
        ("5", {"type": "category", "levels": {"1": "one"}}, "leave out 1 of 30 values: '5'"),
        ("many", {"type": "ordinal"}, "its values are text"),
        ("5", {"source_unit": "kg", "unit": "year"}, "'kg' cannot be brought to 'year'"),
        ("5", {"column": "eta"}, "has no column 'eta'|column eta"),
        ("5", {"table": "bdi"}, "a table 'bdi', which is not there"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused(root, cell, rule, told):
    with pytest.raises(InputError, match=told):
        one(root, [cell, *["1"] * 29], **rule)


def test_bounds_are_missing_unless_asked_for(root):
    cells = ["89+", ">90", *(str(50 + n) for n in range(28))]
    column, label = one(root, cells, {"Units": "years"})
    assert column.isna().sum() == 2 and "89+" in label.notes[0]
    column, _ = one(root, cells, censored="bound")
    assert column.tolist()[:3] == [89, 90, 50]


@pytest.mark.parametrize(
    ("cells", "about", "told"),
    [
        ([str(200 + n) for n in range(30)], {}, "ages up to 229: no unit is told"),
        ([str(200 + n) for n in range(30)], {"Units": "years"}, "said to be years"),
        ([str(20 + n) for n in range(30)], {"Units": "months"}, "look like years"),
        (["89"] * 3 + [str(60 + n) for n in range(27)], {}, "89 may stand for that age and all"),
        (["2020-01-02"] * 15 + ["2021-03-04"] * 15, {}, "these are dates"),
        (["3,5"] * 15 + ["4,5"] * 15, {}, "decimal comma"),
        (["7"] * 30, {}, "one value only"),
        (["n/a"] * 30, {}, "no value at all"),
        (["low"] * 3 + [str(n) for n in range(27)], {}, "3 of 30 values are no numbers"),
        (["F", "f"] * 15, {}, "differ in capitals"),
        (["F", "M", "NULL"] * 10, {}, "'NULL' stand 10 times, and look like no answer"),
        (["R", "L", "unknown"] * 10, {}, "'unknown' stand 10 times"),
        (["1", "2", "3"] * 10, {"Levels": {"1": "a", "2": "b"}}, "1 values are not among the Lev"),
        ([f"name {n}" for n in range(30)], {}, "may identify people"),
    ],
)
def test_what_looks_wrong_is_told_and_left(root, cells, about, told):
    column, label = one(root, cells, about)
    assert told in " | ".join(label.suspicions)
    left = column.astype("string").str.removesuffix(".0").fillna("n/a").tolist()
    assert left == cells


def test_ids_are_matched_only_where_nothing_else_can_be_meant():
    match = match_ids(
        ["sub-01", "2", "3.0", "AB_4", "5", "05", "9"], ["01", "02", "03", "ab4", "005"]
    )
    assert match.known == {"sub-01": "01", "2": "02", "3.0": "03", "AB_4": "ab4"}
    assert (match.respelled, match.ambiguous, match.unknown) == (3, 2, 1)
    match = match_ids(["1", "01"], ["01", "001"])
    assert match.known == {"01": "01"} and match.ambiguous == 1


def test_a_column_without_a_name_is_no_label(root):
    """Spreadsheets leave a tab at the end of each line."""
    (root / "participants.tsv").write_text("participant_id\tage\t\nsub-01\t30\t\n")
    assert [label.name for label in labelled(root).labels] == ["age"]


def test_sessions(root):
    rows = [(s, v) for s in SUBJECTS for v in ("ses-1", "ses-2", "ses-10")]
    write(
        root / "phenotype/bdi.tsv",
        participant_id=[f"sub-{s}" for s, _ in rows],
        session_id=[v for _, v in rows],
        total=[int(s) * 100 + int(v[4:]) for s, v in rows],
    )

    def values(session: str | None, of: tuple[str | None, ...] = ("01", "10", "3")) -> list:
        label = {"name": "bdi", "table": "bdi", "column": "total", "session": session}
        found = labelled(root, recordings(of), labels=[label])
        return [None if pd.isna(v) else v for v in found.table["label_bdi"][: len(of)]]

    assert values(None) == [101, 110, None]
    assert values("first") == [101] * 3
    assert values("last") == [110] * 3
    assert values("02") == [102] * 3
    assert values(None, (None,)) == [None]
    assert values("ses-10", (None,)) == [110]


def test_participants_with_a_row_of_each_session_contradict_nobody(root):
    path = root / "participants.tsv"
    ids = ["sub-01", "sub-01", "sub-02", "sub-02"]
    write(path, participant_id=ids, session=["1", "2", "1", "2"], age=[30, 32, 40, 41])
    found = labelled(root, recordings(("1", "2")))
    assert found.table["label_age"].tolist()[:4] == [30, 32, 40, 41]
    assert read_participants(path, SUBJECTS).contradictory == frozenset()
    write(path, participant_id=ids, session=["1", "1", "1", "2"], age=[30, 32, 40, 41])
    assert read_participants(path, SUBJECTS).contradictory == {"01", "02"}


def test_two_spellings_of_a_session_are_told(root):
    write(root / "x.csv", subject=["01", "02"], visit=["1", "01"], a=[1, 2])
    found = labelled(root, recordings(("1",)), files=[{"path": "x.csv"}])
    assert found.table["label_x_a"].tolist()[:1] == [1] and pd.isna(found.table["label_x_a"][1])
    assert "1 sessions could be more than one" in " ".join(found.notes)
    assert found.labels[0].missing["no row of this session"] == 1


def test_sessions_files_of_each_subject(root):
    write(root / "sub-01/sub-01_sessions.tsv", session_id=["ses-1", "ses-2"], weight=[70, 72])
    write(root / "sub-02/sub-02_sessions.tsv", session_id=["ses-1"], height=[180])
    table = recordings(("1", "2"))
    assert "sessions (2 columns)" in labelled(root, table).notes[0]
    found = labelled(root, table, tables=["sessions.w*"])
    assert list(found.table.columns[2:]) == ["label_sessions_weight"]
    assert found.table["label_sessions_weight"].tolist()[:2] == [70, 72]
    assert found.table["label_sessions_weight"].isna().sum() == 58


def test_rows_that_contradict_each_other_give_no_value(root):
    ids = ["sub-01", "sub-01", "sub-02", "sub-02", "sub-03", "sub-99"]
    write(root / "x.csv", participant_id=ids, a=[1, 2, 3, 3, 4, 5], b=[1, "", 2, 2, 4, 5])
    found = labelled(root, files=[{"path": "x.csv"}])
    assert found.table["label_x_a"][0] is pd.NA
    assert found.table["label_x_a"].tolist()[1:3] == [3, 4]
    assert found.table["label_x_b"].tolist()[:3] == [1, 2, 4]
    assert found.labels[0].missing == {"no row": 27, "rows that contradict each other": 1}
    told = " | ".join(found.notes)
    assert "2 subjects (or sessions) have several rows" in told
    assert "1 subjects have no recording here" in told and "27 of 30 subjects have no row" in told
    assert "99" not in told


def test_columns_of_other_tables_are_taken_only_when_named(root):
    ids = [f"sub-{s}" for s in SUBJECTS]
    wide = {f"f{n}": list(range(30)) for n in range(300)}
    write(root / "ukb.csv", eid=[s.lstrip("0") for s in SUBJECTS], **wide)
    write(root / "phenotype/bdi.tsv", participant_id=ids, total=list(range(30)))
    files = [{"path": "ukb.csv"}]
    with pytest.raises(InputError, match=r"ukb.csv has 300 columns, which would all be labels"):
        labelled(root, files=files)
    found = labelled(root, files=files, tables=["ukb.f29?", "bdi"])
    assert len(found.labels) == 11 and found.labels[0].name == "bdi_total"
    found = labelled(root, files=files, labels=[{"name": "iq", "table": "ukb", "column": "f7"}])
    assert [label.name for label in found.labels] == ["iq"]
    assert found.table["label_iq"].tolist() == list(range(30)) and found.labels[0].can_be_target
    with pytest.raises(InputError, match="no table or column fits 'bid'"):
        labelled(root, tables=["bid"])


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("x.tsv", b"participant_id\ta\nsub-01\t1\nsub-02\t2\t3\n", "Row #3: Expected 2 columns"),
        ("x.tsv", b"participant_id\ta\nsub-01\n", "Row #2: Expected 2 columns, got 1"),
        ("x.csv", b"participant_id,a,a\n", "two columns 'a'"),
        ("x.csv", b"who,a\n1,2\n", "no column participant_id"),
        ("x.csv", b"", "is empty"),
        ("x.csv", b"participant_id,a\n1,\xe9\n", "UTF-8"),
        ("x.xlsx", b"PK", "must be text"),
        ("y.csv", None, "does not exist"),
    ],
)  # fmt: skip
def test_a_table_that_is_none_is_refused(root, name, content, told):
    if content is not None:
        (root / name).write_bytes(content)
    with pytest.raises(InputError, match=told) as error:
        labelled(root, files=[{"path": name}])
    assert error.value.fix and "sub-0" not in str(error.value)


def test_a_dictionary_that_cannot_be_read_is_told(root):
    write(root / "participants.tsv", participant_id=SUBJECTS, age=list(range(30)))
    (root / "participants.json").write_text("{")
    assert "codes of missing values are not known" in labelled(root).notes[0]

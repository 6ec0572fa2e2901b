"""Units in many spellings, columns without a name, and labels whose name has an underscore."""

from __future__ import annotations

import pytest
import yaml

from brainlm.bids.participants import read_participants
from brainlm.bids.phenotypes.units import known_unit
from brainlm.config import Config
from brainlm.errors import InputError
from brainlm.report.evaluation.parts import stem_of
from brainlm.report.onboarding.suggestions import target_of

from .test_phenotypes import SUBJECTS, labelled, one, root  # noqa: F401

YEARS = ["yrs", "Years old", "y", "Year(s)", "age (in years)", "YRS. OLD", "years of age", "Y/O"]
OTHERS = {"months": 1 / 12, "Month(s)": 1 / 12, "weeks": 7 / 365.25, "Age in days": 1 / 365.25}


@pytest.mark.parametrize(("unit", "factor"), [*((u, 1) for u in YEARS), *OTHERS.items()])
def test_a_unit_is_known_in_many_spellings(unit, factor):
    assert known_unit(unit)[1] / known_unit("year")[1] == pytest.approx(factor)


@pytest.mark.parametrize("unit", ["Inches", "inch", "in"])
def test_inches_are_known_whatever_their_plural(unit):
    assert known_unit(unit)[1] / known_unit("cm")[1] == pytest.approx(2.54)


@pytest.mark.parametrize("unit", ["kg/m2", "m2", "mm Hg", "years since onset", "10 years", "age"])
def test_what_only_looks_like_a_unit_is_none(unit):
    assert known_unit(unit) is None


def test_an_unknown_unit_is_refused_with_the_line_that_mends_it(root):  # noqa: F811
    with pytest.raises(InputError, match="'score' cannot be brought to 'year'") as told:
        one(root, list(range(20, 50)), {"Units": "score"}, unit="year")
    assert told.value.file == str(root / "participants.tsv")
    line = told.value.fix.partition("- ")[2].partition("; for")[0]
    assert "of day, week, month, year" in told.value.fix
    rule = yaml.safe_load(line)
    column, _ = one(root, list(range(20, 50)), {"Units": "score"}, **rule)
    assert column.tolist() == list(range(20, 50))


def participants(root, *rows: str) -> None:  # noqa: F811
    table = "\t\tUnnamed: 0\tparticipant_id\tage\n" + "".join(f"{row}\n" for row in rows)
    (root / "participants.tsv").write_text(table)


def test_columns_without_a_name_are_passed_over_unless_asked_for(root):  # noqa: F811
    participants(root, *(f"{n}\t{n}\t{n}\tsub-{s}\t{30 + n}" for n, s in enumerate(SUBJECTS)))
    found = labelled(root)
    assert [label.name for label in found.labels] == ["age"]
    assert found.table["label_age"].tolist()[:2] == [30, 31]
    assert any("3 columns without a name" in note for note in found.notes)
    found = labelled(root, labels=[{"name": "order", "column": "Unnamed: 0"}])
    assert sorted(label.name for label in found.labels) == ["age", "order"]


def test_a_saved_index_makes_no_rows_contradictory(root):  # noqa: F811
    participants(root, "0\t0\t0\tsub-01\t30", "1\t1\t1\tsub-01\t30", "2\t2\t2\tsub-02\t30")
    assert not read_participants(root / "participants.tsv", SUBJECTS).contradictory


def test_a_label_with_an_underscore_can_be_learned(root):  # noqa: F811
    (root / "participants.tsv").write_text(
        "participant_id\tbdi_total\tbdi-sum\n"
        + "".join(f"sub-{s}\t{n}\t{n}\n" for n, s in enumerate(SUBJECTS))
    )
    labels = {label.name: label for label in labelled(root).labels}
    assert labels["bdi_total"].can_be_target and not labels["bdi-sum"].can_be_target
    assert target_of(labels["bdi-sum"]) is None
    asked = target_of(labels["bdi_total"])
    assert asked == {"name": "bdi_total", "kind": "regression"}
    assert Config.model_validate({"finetune": {"targets": [asked]}})
    assert len({stem_of(name) for name in ("bdi_total", "bdi__total", "bdi_total_")}) == 3

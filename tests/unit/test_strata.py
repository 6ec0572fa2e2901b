"""Stratified draws, and the ledger that lets a cohort grow with them."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brainlm.errors import InputError
from brainlm.shards.splits import Assignment, assign
from brainlm.shards.strata import bin_edges, fill_strata

from .test_splits import options

LEDGER = "config/split-ledger.tsv"
SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}


def row(subject: int | str, site: str | None = "A", **labels: Any) -> dict[str, Any]:
    found = {f"label_{name}": value for name, value in labels.items()}
    return {"subject": str(subject), "site": site, **found}


def write(study: Path, found: Assignment) -> None:
    assert found.ledger is not None
    (study / "config").mkdir(exist_ok=True)
    (study / LEDGER).write_text(found.ledger.text(), encoding="utf-8")


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.integers(0, 3), st.integers(1, 60), min_size=1),
    st.sampled_from([(0.8, 0.1, 0.1), (0.5, 0.25, 0.25), (0.34, 0.33, 0.33), (0.9, 0.05, 0.05)]),
)
def test_every_stratum_gives_every_split_its_share(counts: dict, shares: tuple) -> None:
    """To one subject; and so does the whole, however small the strata are."""
    named = dict(zip(("train", "val", "test"), shares, strict=True))
    strata = {(f"{s}-{n}",): (s,) for s, count in counts.items() for n in range(count)}
    order = {group: random.Random(group[0]).random() for group in strata}
    drawn = fill_strata(dict.fromkeys(strata, 1), strata, {}, named, order.__getitem__)
    for stratum, count in counts.items():
        inside = Counter(split for group, split in drawn.items() if strata[group] == (stratum,))
        for split, share in named.items():
            assert abs(inside[split] - share * count) < 1 + 1e-6
    total = Counter(drawn.values())
    for split, share in named.items():
        assert abs(total[split] - share * len(strata)) <= 1.5


def test_tiny_strata_do_not_all_end_up_in_train() -> None:
    strata = {(str(n),): (n // 2,) for n in range(400)}
    drawn = fill_strata(dict.fromkeys(strata, 1), strata, {}, SHARES, lambda one: float(one[0]))
    assert Counter(drawn.values()) == {"train": 320, "val": 40, "test": 40}


def test_numeric_labels_are_cut_at_quantiles() -> None:
    assert bin_edges([1.0, 2.0, 3.0, 4.0, 5.0, None], 4) == [2.0, 3.0, 4.0]
    assert bin_edges([1.0, 0.0, 1.0, None], 4) == [0.5]  # two values stay apart
    assert bin_edges([7.0, 7.0], 4) == []
    assert bin_edges(["F", None, "M"], 4) is None


def test_strata_are_of_sites_and_bins_of_age_and_a_missing_age_is_one(tmp_path: Path) -> None:
    rng = random.Random(0)
    rows = [
        row(n, "AB"[n % 2], age=rng.gauss(60, 8) if n % 5 else None, sex="FM"[n % 3 == 0])
        for n in range(3000)
    ]
    found = assign(rows, options(stratify=["site", "age", "sex"]), tmp_path)
    ages = sorted(r["label_age"] for r in rows if r["label_age"] is not None)
    quarter = {age: number * 4 // len(ages) for number, age in enumerate(ages)}
    inside: dict[Any, Counter] = defaultdict(Counter)
    for r in rows:
        key = r["site"], quarter.get(r["label_age"]), r["label_sex"]
        inside[key][found.splits[r["subject"]]] += 1
    assert len(inside) == 20
    for counts in inside.values():
        for split, share in SHARES.items():
            assert abs(counts[split] - share * counts.total()) < 1 + 2  # 2: ages at a bin's edge


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(
            st.integers(0, 40),  # subject
            st.sampled_from(["A", "B", None]),
            st.none() | st.floats(20, 80),
            st.sampled_from(["x", "y", None, None, None]),  # family
        ),
        min_size=4,
        max_size=30,
        unique_by=lambda item: item[0],
    ),
    st.data(),
)
def test_who_has_been_drawn_never_moves(tmp_path_factory, subjects, data) -> None:
    """Drawn, written, drawn again; then some leave, others come, in any order."""
    study = tmp_path_factory.mktemp("study")
    asked = options(stratify=["site", "age"], bins=2, family="fam")
    extra = [row("z", "A", age=50.0, fam="x")]  # somebody who has all
    rows = [row(n, site, age=age, fam=fam) for n, site, age, fam in subjects]
    cut = data.draw(st.integers(1, len(rows)))
    first = extra + rows[:cut]
    drawn = assign(first, asked, study)
    write(study, drawn)
    again = assign(data.draw(st.permutations(first)), asked, study)
    assert again.splits == drawn.splits
    assert again.ledger.text() == drawn.ledger.text()
    gone = data.draw(st.sets(st.integers(0, cut - 1)))
    later = extra + [r for n, r in enumerate(rows) if n not in gone]
    grown = assign(data.draw(st.permutations(later)), asked, study)
    for subject, split in grown.splits.items():
        assert split == drawn.splits.get(subject, split)
    assert grown == assign(later, asked, study)
    write(study, grown)
    assert assign(later, asked, study).splits == grown.splits
    everybody = assign(extra + rows, asked, study)
    for found in (grown, everybody):
        assert drawn.splits.items() <= found.ledger.splits.items()  # nobody is forgotten
        for family in "xy":
            members = [s for s, f in found.families.items() if f == family]
            assert len({found.splits[subject] for subject in members}) <= 1


def test_newcomers_fill_what_their_stratum_lacks(tmp_path: Path) -> None:
    asked = options(stratify=["site"])
    write(tmp_path, assign([row(n, "A") for n in range(10)], asked, tmp_path))
    text = (tmp_path / LEDGER).read_text()
    skewed = text.replace("\tval", "\ttrain").replace("\ttest", "\ttrain")
    (tmp_path / LEDGER).write_text(skewed)
    found = assign([row(n, "A") for n in range(20)], asked, tmp_path)
    assert {found.splits[str(n)] for n in range(10)} == {"train"}
    assert Counter(found.splits.values()) == {"train": 16, "val": 2, "test": 2}


def test_bins_of_age_stay_where_the_first_draw_cut_them(tmp_path: Path) -> None:
    asked = options(stratify=["age"], bins=2)
    young = [row(n, age=20.0 + n) for n in range(20)]
    found = assign(young, asked, tmp_path)
    assert found.ledger.edges == {"age": [29.5]}
    write(tmp_path, found)
    old = [row(100 + n, age=70.0 + n) for n in range(100)]
    assert assign(young + old, asked, tmp_path).ledger.edges == {"age": [29.5]}


def test_a_family_follows_a_member_who_has_left(tmp_path: Path) -> None:
    """A model may have been trained on them."""
    asked = options(stratify=["site"], family="fam")
    everybody = [row(n, fam=f"f{n}") for n in range(30)]
    found = assign(everybody, asked, tmp_path)
    write(tmp_path, found)
    held_out = [subject for subject, split in found.splits.items() if split == "test"]
    siblings = [row(f"sibling{n}", fam=f"f{n}") for n in held_out]
    later = assign(siblings, asked, tmp_path)
    assert len(held_out) == 3 and set(later.splits.values()) == {"test"}


def test_kin_that_is_found_out_later_follows_who_has_been_drawn(tmp_path: Path) -> None:
    asked = options(stratify=["site"], family="fam")
    found = assign([row("z", fam="f"), *(row(n, fam=None) for n in range(29))], asked, tmp_path)
    write(tmp_path, found)
    held_out = [s for s, split in found.splits.items() if split == "test" and s != "z"]
    rows = [row(s, fam=f"f{s}") for s in held_out]
    kin = [row(f"sibling{s}", fam=f"f{s}") for s in held_out]
    assert kin and set(assign([*rows, *kin], asked, tmp_path).splits.values()) == {"test"}


def test_an_external_cohort_goes_before_the_ledger_and_is_not_in_it(tmp_path: Path) -> None:
    rows = [row(n, "AB"[n % 2]) for n in range(40)]
    asked = options(stratify=["site"], external={"site": ["B"]})
    found = assign(rows, asked, tmp_path)
    assert Counter(found.splits.values()) == {"test": 22, "train": 16, "val": 2}
    assert set(found.ledger.splits) == {str(n) for n in range(0, 40, 2)}
    traveller = row("0", "B")  # of both sites: its strata would contradict each other
    assert "0" in assign([*rows, traveller], asked, tmp_path).external
    write(tmp_path, assign(rows, options(stratify=["site"]), tmp_path))
    assert assign(rows, asked, tmp_path).external == {str(n) for n in range(1, 40, 2)}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"salt": "t"}, 'split.salt was "s"'),
        ({"train": 0.7}, "split.train was 0.8"),
        ({"stratify": ["site", "age"]}, r'split.stratify was \["site"\]'),
        ({"bins": 3}, "split.bins was 4"),
        ({"family": "fam"}, "split.family was null"),
    ],
)
def test_a_ledger_of_other_options_is_refused(tmp_path: Path, changes: dict, told: str) -> None:
    rows = [row(n, age=20.0, fam="x") for n in range(5)]
    write(tmp_path, assign(rows, options(stratify=["site"]), tmp_path))
    with pytest.raises(InputError, match=told):
        assign(rows, options(**{"stratify": ["site"], **changes}), tmp_path)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda text: "", "cannot be read"),
        (lambda text: text.replace("split\n", "fold\n"), "cannot be read"),
        (lambda text: text.replace("\ttrain", "\tdev"), "unknown splits: dev"),
        (lambda text: text + "1\tn/a\ttest\n", "a subject twice"),
        (lambda text: text + "99\n", "cannot be read"),
    ],
)
def test_a_damaged_ledger_is_refused(tmp_path: Path, damage, told: str) -> None:
    rows = [row(n) for n in range(5)]
    write(tmp_path, assign(rows, options(stratify=["site"]), tmp_path))
    (tmp_path / LEDGER).write_text(damage((tmp_path / LEDGER).read_text()))
    with pytest.raises(InputError, match=told):
        assign(rows, options(stratify=["site"]), tmp_path)
    (tmp_path / LEDGER).write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot be read"):
        assign(rows, options(stratify=["site"]), tmp_path)


def test_a_label_that_became_text_is_refused(tmp_path: Path) -> None:
    """Its bins would mean nothing any more."""
    asked = options(stratify=["age"], bins=2)
    write(tmp_path, assign([row(n, age=20.0 + n) for n in range(10)], asked, tmp_path))
    with pytest.raises(InputError, match=r"age held numbers .* now it is text"):
        assign([row(n, age="20-30") for n in range(11)], asked, tmp_path)


def test_labels_that_make_kin_of_two_splits_are_refused(tmp_path: Path) -> None:
    asked = options(stratify=["site"], family="fam")
    found = assign([row(n, fam=f"f{n}") for n in range(30)], asked, tmp_path)
    write(tmp_path, found)
    test = next(subject for subject, split in found.splits.items() if split == "test")
    train = next(subject for subject, split in found.splits.items() if split == "train")
    kin = [row(subject, fam="same") for subject in (train, test)]
    with pytest.raises(InputError, match="1 families are in more than one split of the ledger"):
        assign(kin, asked, tmp_path)


def test_strata_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    rows = [row(1, "A"), row(1, "B"), row(2, "B")]
    with pytest.raises(InputError, match=r"sub-1 has different values of site.*split\.stratify"):
        assign(rows, options(stratify=["site"]), tmp_path)
    with pytest.raises(InputError, match="No eligible recording has a value of site"):
        assign([row(1, None)], options(stratify=["site"]), tmp_path)

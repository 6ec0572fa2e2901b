"""What is shareable names nobody: the files, and the rules that they are made by."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainlm.cli.reproducibility import reproducibility
from brainlm.errors import DataError
from brainlm.report.reproducibility.crate import describe
from brainlm.report.reproducibility.crate_files import Files
from brainlm.report.reproducibility.crate_parameters import public
from brainlm.report.reproducibility.graph import Graph, Node, State
from brainlm.report.reproducibility.groups import common, quantile
from brainlm.report.reproducibility.lineage import section
from brainlm.report.reproducibility.lineage_view import view
from brainlm.report.reproducibility.page import make_sections, render_page
from brainlm.report.reproducibility.public_names import public_image, public_pipeline
from brainlm.report.reproducibility.sharing import ELSEWHERE, Aliases, Cell, read_key, tell_chain
from brainlm.report.reproducibility.wording import span

from .named_study import HOST, LONGEST, PATH, SHORTEST, SITE, NamedStudy
from .test_report_page import Page
from .test_reproducibility_page import about_named

ALIASES = Aliases(b"k" * 32, 5)
HERE = "brainlm.report.reproducibility"
RAW_HASH = hashlib.sha256(b"sub-XQZ000_ses-SESQ0_task-rest").hexdigest()
DIGEST = f"sha256:{'a' * 64}"
NAME = "sub-XQZ001_ses-SESQ1_task-rest"


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> NamedStudy:
    made = NamedStudy(tmp_path_factory.mktemp("study")).write()
    reproducibility(study=made.study.root, shareable=True)
    return made


def texts(made: NamedStudy) -> dict[str, str]:
    """All that lies in the folder, but for the workflow, which is the program's."""
    folder = made.path("shareable").parent
    return {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file() and "workflow" not in path.relative_to(folder).parts
    }


def leaks(text: str, secrets: Sequence[str]) -> list[str]:
    return [secret for secret in secrets if secret.lower() in text.lower()]


def test_no_name_place_or_value_is_in_what_is_shareable(shared):
    outside = ["/home/", "/tmp/", str(shared.study.root.parent)]
    found = {name: leaks(text, [*shared.secrets, *outside]) for name, text in texts(shared).items()}
    assert found == {"reproducibility.html": [], "ro-crate-metadata.json": []}


@pytest.mark.parametrize(
    ("where", "as_it_is", "found"),
    [
        (f"{HERE}.crate_files.Files._is_of_somebody", lambda self, node: False, RAW_HASH),
        (f"{HERE}.crate.public", lambda options: options, SITE),
        (f"{HERE}.cohort_flow_steps._IN_PUBLIC", ((".*", PATH),), PATH),
        (f"{HERE}.wording.common", lambda values, people, k: values, f"{LONGEST:g}"),
        (f"{HERE}.wording.common", lambda values, people, k: values, f"{SHORTEST:g}"),
        (f"{HERE}.environment.public_image", lambda image: image, HOST),
        (f"{HERE}.methods_data.public_pipeline", lambda name: name, SITE),
        (f"{HERE}.page.status", lambda findings, tell=str: {"kind": "done", "text": SITE}, SITE),
    ],
)
def test_the_search_finds_what_is_not_hidden(shared, monkeypatch, where, as_it_is, found):
    """One by one: the parts that hide, each replaced by one that does not."""
    monkeypatch.setattr(f"{HERE}.crate_files.MOST_NAMED", 1000)
    assert leaks(made_anew(shared), shared.secrets) == []
    monkeypatch.setattr(where, as_it_is)
    assert found in leaks(made_anew(shared), shared.secrets)


def made_anew(shared: NamedStudy) -> str:
    about = about_named(shared)
    crate = describe(
        about,
        about.graph,
        ALIASES,
        page=shared.path("shareable"),
        workflow=shared.path("shareable_workflow"),
        root=shared.path("shareable").parent,
    )
    return render_page(about, make_sections(about, ALIASES), ALIASES) + json.dumps(crate)


def test_small_groups_are_not_told(shared):
    text = Page(texts(shared)["reproducibility.html"]).text
    assert "too much motion" in text and "not told too much motion" in text
    assert "about 60 found" in text  # everybody
    assert "about 60 eligible" not in text  # or the 2 that were not could be guessed
    assert "about 50 in the cohort" in text  # 8 people, at three steps, are between
    assert "train about 40 about 40 not told" in text and "test about 5 about 5 not told" in text


def test_what_many_have_and_everybody_knows_is_told(shared):
    text = Page(texts(shared)["reproducibility.html"]).text
    assert "a repetition time of 2 s and 240 volumes" in text
    assert "Values that fewer than 5 participants had are left out here" in text
    assert f"brainlm of a private registry, sha256:{'d' * 64}" in text
    assert "processed before by another pipeline" in text
    assert "processed before by fMRIPrep 23.1" in text


def test_scores_and_quartiles_of_few_people_are_not_told(shared):
    """Six people are in each small split: enough for the scores, not for a median of theirs."""
    text = Page(texts(shared)["reproducibility.html"]).text
    assert re.search(r"mean FD \(mm\) train [\d.]+ [\d.]+ to [\d.]+ share", text)
    assert "Age of about 5 test participants was predicted with an R² of 0.500" in text
    about = about_named(shared)
    many = Page(render_page(about, make_sections(about, Aliases(b"k" * 32, 7)), None)).text
    assert "was predicted with" not in many


@given(
    st.lists(st.floats(0, 1), min_size=8, max_size=60),
    st.sampled_from([0.25, 0.5, 0.75]),
    st.data(),
)
def test_no_quantile_is_a_person_s_own(values, share, data):
    """With k = 4, whoever changes by 1 moves it by a quarter at most."""
    known = np.array(values)
    told = quantile(known, share, 4)
    assert (told is None) == (len(known) * min(share, 1 - share) < 4)
    assert quantile(known, share, 1) == pytest.approx(float(np.quantile(known, share)))
    if told is not None:
        place = data.draw(st.integers(0, len(known) - 1))
        moved = quantile(np.r_[np.delete(known, place), data.draw(st.floats(0, 1))], share, 4)
        assert abs(moved - told) <= 0.25 + 1e-9


def test_a_value_is_told_of_people_not_of_runs():
    values = pd.Series([1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0])
    people = pd.Series(["a", "a", "a", "a", "b", "c", "d"])
    assert set(common(values, people, 3)) == {2.0}
    assert span(values, people, 3) == "2"
    assert span(values, people, 1) == "1 to 2 (median 2)"
    assert span(values, people, 9) is None


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (
            f"docker://ghcr.io/group/brainlm:1@{DIGEST}",
            f"docker://ghcr.io/group/brainlm:1@{DIGEST}",
        ),
        ("docker://nipreps/fmriprep:25.1.0", "docker://nipreps/fmriprep:25.1.0"),
        (f"docker.io/nipreps/fmriprep:25@{DIGEST}", f"docker.io/nipreps/fmriprep:25@{DIGEST}"),
        (f"docker://reg.siteq.org:5000/lab/b:1@{DIGEST}", f"b of a private registry, {DIGEST}"),
        ("docker://userq:word@ghcr.io/x/b:1", "b of a private registry, not pinned by a digest"),
        ("localhost/siteq/b", "b of a private registry, not pinned by a digest"),
        ("https://siteq.org/b.sif", "an image of the site, not pinned by a digest"),
    ],
)
def test_a_private_registry_is_not_named(image, told):
    assert public_image(image) == told


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("fMRIPrep 23.1.0+siteq", "fMRIPrep 23.1.0"),
        ("HCP Pipelines", "HCP Pipelines"),
        ("xcp_d 0.10.1", "XCP-D 0.10.1"),
        ("xcpEngine 1.2.3", "another pipeline"),  # the one before XCP-D
        ("fMRIPost-AROMA 0.0.12", "fMRIPost-AROMA 0.0.12"),
        ("siteq's own 1.0", "another pipeline"),
    ],
)
def test_a_pipeline_that_nobody_knows_is_not_named(name, told):
    assert public_pipeline(name) == told


def test_a_small_number_is_told_nowhere_beside_the_flow(shared, monkeypatch):
    def told(findings, tell=str):
        return {"kind": "partly", "text": f"Complete, but {tell(1)} recordings were given up"}

    monkeypatch.setattr(f"{HERE}.page.status", told)
    text = made_anew(shared)
    assert "Complete, but &lt;5 recordings were given up" in text
    salt = about_named(shared).config.split.salt
    assert salt and f"<dd>{salt}</dd>" not in text


def test_what_may_be_of_few_people_has_no_hash(shared):
    """Neither in the lineage, nor in the crate, nor where a file is not what it was."""
    kinds = {
        "cohort": "cohort/recordings.parquet",
        "recordings": "onboarding/recordings.parquet",
        "splits": "cohort/splits.tsv",
        "shard": "shards/val-00000.safetensors",
        "shard_plan": "cohort/plan/val-00000.parquet",
        "scaler_part": "cohort/scaler/train-00000.safetensors",
    }
    changed = {"now": "e" * 64}
    nodes = {
        name: Node(name, kind, State.changed, "f" * 64, about=changed)
        for kind, name in kinds.items()
    }
    boxes = {box["kind"]: box["sha256"] for box in view(Graph(nodes, {}), ALIASES)["boxes"]}
    assert boxes == {kind: "f" * 64 if kind == "cohort" else None for kind in kinds}
    files = Files(shared.study.root, ALIASES)
    files.refer(list(nodes.values()))
    assert [one["name"] for one in files.others if "sha256" in one] == [kinds["cohort"]]
    about = about_named(shared)
    about.__dict__["graph"] = Graph(nodes, {})
    alarms = section(about, ALIASES).alarms
    assert [kinds["cohort"] in alarm for alarm in alarms if "ffff" in alarm or "eeee" in alarm] == [
        True
    ]


def test_the_key_stays_in_the_study_and_keeps_the_aliases(shared, tmp_path):
    path = shared.path("sharing_key")
    assert path.stat().st_mode & 0o077 == 0
    assert not any(path.read_text().strip() in text for text in texts(shared).values())
    before = texts(shared)
    reproducibility(study=shared.study.root, shareable=True)
    assert texts(shared) == before
    assert read_key(tmp_path / "a.key") != read_key(tmp_path / "b.key")
    (tmp_path / "a.key").write_text("cut off")
    with pytest.raises(DataError, match="key of the aliases is damaged"):
        read_key(tmp_path / "a.key")


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("cohort/recordings.parquet", "cohort/recordings.parquet"),
        ("shards/train-00000.safetensors", "shards/train-00000.safetensors"),
        *(
            (path, path)
            for path in (
                "shards/normalization.safetensors",
                "models/brainlm-age/parcels.tsv",
                "models/brainlm/checkpoints/0123456789abcdef/made-of.json",
            )
        ),
        ("models/brainlm/checkpoints/XQZ001/made-of.json", ELSEWHERE),
        (f"reports/figures/{NAME}_qc.json", f"reports/figures/{ALIASES.recording(NAME)}_qc.json"),
        (
            f"derivatives/brainlm/sub-XQZ001/ses-SESQ1/func/{NAME}_boldref.nii.gz",
            f"derivatives/brainlm/{ALIASES.subject('XQZ001')}/func/"
            f"{ALIASES.recording(NAME)}_boldref.nii.gz",
        ),
        (f"bids::sub-XQZ001/func/{NAME}_bold.nii.gz", "(raw data)"),
        (f"/PATHQ/{NAME}", ELSEWHERE),
        (f"cohort/../../{NAME}.tsv", ELSEWHERE),
        ("config/list of XQZ001.tsv", ELSEWHERE),
    ],
)
def test_paths_keep_the_layout_and_lose_the_names(path, told):
    assert ALIASES.path(path) == told
    assert "XQZ" not in told and "SESQ" not in told


def test_every_kind_of_file_loses_its_names():
    from brainlm.layout import TEMPLATES

    from .test_layout import FIELDS

    fields = {**FIELDS, "recording": NAME, "anat": NAME, "job": "sub-XQZ001"}
    fields |= {"folder": "sub-XQZ001/ses-SESQ1", "anat_folder": "sub-XQZ001/ses-SESQ1"}
    for kind, template in TEMPLATES.items():
        told = ALIASES.path(template.format(**fields))
        assert "XQZ" not in told and "SESQ" not in told, kind
        assert told != ELSEWHERE, kind


def test_aliases_hang_on_the_key():
    other = Aliases(b"l" * 32, 5)
    assert ALIASES.recording(NAME) == ALIASES.recording(NAME) != other.recording(NAME)
    assert ALIASES.subject("01") == ALIASES.subject("sub-01") != ALIASES.subject("02")


@pytest.mark.parametrize(
    ("number", "told"), [(0, "0"), (1, "<5"), (4, "<5"), (5, "about 5"), (98, "about 100")]
)
def test_counts_cannot_be_taken_from_each_other(number, told):
    assert ALIASES.count(number) == told


def test_options_keep_numbers_alone():
    given = {
        "split": {"train": 0.8, "external": {"site": ["SITEQ"]}, "salt": "x"},
        "targets": [{"positive": 71}],
        "keep": True,
        "sizes": [1, 2],
    }
    assert public(given) == {"split": {"train": 0.8}, "keep": True, "sizes": [1, 2]}


def _cells(sizes: Sequence[int], start: int) -> list[Cell]:
    cells = []
    for size in sizes:
        cells.append(Cell(size, frozenset(map(str, range(start, start + size)))))
        start += size
    return cells


def _chain(sizes: Sequence[Sequence[int]]) -> list[list[Cell]]:
    starts = [sum(map(sum, sizes[:place])) for place in range(len(sizes))]
    return [_cells(part, start) for part, start in zip(sizes, starts, strict=True)]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 6), min_size=0, max_size=2), min_size=1, max_size=2),
    st.lists(st.integers(1, 7), min_size=2, max_size=3),
)
def test_no_hidden_number_can_be_worked_out(steps, splits):
    """All ways to fill the hidden cells that fit what is told: each cell has several values."""
    k, sizes = 3, [*steps, splits]
    told = tell_chain(_chain(sizes), k)
    where = [
        (s, c) for s, part in enumerate(told.cells) for c, is_told in enumerate(part) if not is_told
    ]
    for place, cell in where:
        assert not told.cells[place][cell]
    assert all(
        size >= k or not told.cells[place][cell]
        for place, part in enumerate(sizes)
        for cell, size in enumerate(part)
    )
    total = sum(map(sum, sizes))
    if not told.found or not where:
        return
    after = [total - sum(map(sum, sizes[: place + 1])) for place in range(len(sizes))]
    possible: dict[tuple[int, int], set[int]] = {one: set() for one in where}
    for guess in product(range(1, 10), repeat=len(where)) if len(where) <= 4 else ():
        filled = dict(zip(where, guess, strict=True))
        left = total
        fits = True
        for place, part in enumerate(sizes):
            left -= sum(filled.get((place, cell), size) for cell, size in enumerate(part))
            if place < len(sizes) - 1 and told.totals[place]:
                fits &= left == after[place]
        if fits and left == 0:
            for one, value in filled.items():
                possible[one].add(value)
    if len(where) <= 4:
        assert all(len(values) > 1 for values in possible.values())


def test_what_is_large_is_told_and_a_lone_small_group_takes_another_with_it():
    told = tell_chain(_chain([[20, 2], [50, 30, 20]]), 5)
    assert told.cells == ((False, False), (True, True, True))
    assert told.totals[0]
    told = tell_chain(_chain([[20, 12], [50, 30, 20]]), 5)
    assert all(map(all, told.cells)) and told.totals[0]
    told = tell_chain(_chain([[2], [50, 30, 20]]), 5)
    assert told.cells == ((False,), (True, True, False)) and not told.totals[0]

"""The page's sections on reconstruction and on scaling: every number in its place, nobody named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from brainlm.evaluate.scaling import compare_scaling
from brainlm.files import write_json
from brainlm.layout import Study
from brainlm.report.evaluation import reconstruction, scaling
from brainlm.report.evaluation.parts import Material, Section
from brainlm.report.evaluation.write import draw

from .synthetic_cohort import PARCELS, parcel_table
from .test_scaling import _point

RUN = {"run": "brainlm", "space": "none", "res": "2", "atlas": "A424"}


def _score(value: float | None, width: float | None = 0.1) -> dict[str, Any]:
    if value is None or width is None:
        return {"value": value, "ci_low": None, "ci_high": None, "reason": "too few people"}
    return {"value": value, "ci_low": value - width, "ci_high": value + width}


def _cohorts(r2: float, other: str, width: float | None = 0.1) -> list[dict[str, Any]]:
    def scores(value: float) -> dict[str, Any]:
        return {
            "r2": _score(value, width),
            "mse": _score(1 - value, width),
            "pearson": _score(None if value == 0 else value, width),
        }

    methods = {"brainlm": scores(r2), "zero": scores(0.0), other: scores(r2 - 0.2)}
    about = {"n_subjects": 12, "n_recordings": 24, "methods": methods}
    return [{"cohort": name, "external": name == "far", **about} for name in ("all", "far", "near")]


def _content(**changes: Any) -> dict[str, Any]:
    shares = {0.9: 0.1, 0.75: 0.5, 0.2: 0.8}
    conditions = [
        {"kind": "random", "share": share, "cohorts": _cohorts(r2, "interpolation")}
        for share, r2 in shares.items()
    ]
    future = {"kind": "future", "share": 0.1, "cohorts": _cohorts(0.0, "persistence")}
    whole = _cohorts(0.7, "interpolation")
    for cohort in whole:
        cohort["per_parcel_r2"] = [None, *np.linspace(-0.1, 0.9, PARCELS - 1)]
    main = conditions[1]["cohorts"][0]["methods"]
    return {
        "metrics": main["brainlm"],
        "baselines": {name: main[name] for name in ("zero", "interpolation")},
        "per_parcel_r2": [0.5] * PARCELS,
        "n_subjects": 12,
        "n_recordings": 24,
        "n_windows": 48,
        "mask_ratio": 0.75,
        "conditions": [*conditions, future],
        "whole": {"masks": 5, "most_recordings": 10, "cohorts": whole},
        **changes,
    }


@pytest.fixture
def material(tmp_path) -> Material:
    return _material(tmp_path)


@pytest.fixture(scope="module")
def section(tmp_path_factory) -> Section:
    return _written(_material(tmp_path_factory.mktemp("page")), _content())


def _material(root: Path) -> Material:
    material = Material(Study(root), RUN, ())
    folder = material.study.path("model", **RUN).parent
    folder.mkdir(parents=True)
    parcel_table().to_csv(folder / "parcels.tsv", sep="\t", index=False)
    return material


def _written(material: Material, content: dict[str, Any], *, traces: bool = True) -> Section:
    write_json(material.study.path("reconstruction", **RUN), content)
    if traces:
        parts = [
            pd.DataFrame(
                {
                    "how": how,
                    "recording_id": "sub-77_task-rest",
                    "parcel": place,
                    "r2": 0.5 - place,
                    "t": np.arange(90),
                    "true": np.sin(np.arange(90.0)),
                    "predicted": np.cos(np.arange(90.0)),
                }
            )
            for place, how in enumerate(("well", "middling", "badly"))
        ]
        pd.concat(parts).to_parquet(material.study.path("reconstruction_whole", **RUN))
    found = reconstruction.section(material)
    assert found is not None
    return found


def test_conditions_and_cohorts_are_told_in_order(section) -> None:
    masked, whole = section.tables
    assert [row[0] for row in masked.rows if row[0]] == [
        "random 20%",
        "random 75%",
        "random 90%",
        "future 10%",
    ]
    assert masked.columns[2:] == tuple(
        f"{cohort}, {metric}"
        for cohort in ("All test subjects", "far (external)", "near")
        for metric in ("R²", "Pearson r", "MSE")
    )
    assert masked.rows[3][:3] == ("random 75%", "BrainLM", "0.50 (0.40 to 0.60)")
    assert masked.rows[4][1:3] == ("Linear interpolation", "0.30 (0.20 to 0.40)")
    assert masked.rows[-2][1] == "Last value"
    assert masked.rows[5][3] == "n/a"  # the mean has no r
    assert {(row, column) for row, column in masked.best if row < 3} == {
        (0, column) for column in range(2, 11)
    }
    assert (11, 2) not in masked.best  # of a tie, the first
    assert len(whole.rows) == 3 and "in 5 turns" in whole.title
    assert len(section.rows) == (3 + 3 + 3 + 3 + 3) * 3 * 3
    told = next(
        row
        for row in section.rows
        if (row.method, row.metric, row.cohort, row.condition)
        == ("brainlm", "r2", "far", "random 75%")
    )
    assert (told.value, told.low, told.high, told.n_subjects) == (0.5, 0.4, 0.6, 12)
    assert "nobody was trained on" in section.text
    assert "random 75% of the tokens in the main condition; besides: " in section.text
    assert "random 20%" in section.text and "future 10%" in section.text
    assert section.headline == "R² 0.50 (0.40 to 0.60) of 75% hidden; linear interpolation 0.30"


def test_no_condition_is_told_that_was_not_scored() -> None:
    content = {"mask_ratio": 0.125, "n_windows": 3, "n_subjects": 2, "n_recordings": 2}
    only = {**content, "conditions": [{"kind": "random", "share": 0.125}]}
    text = reconstruction._text(only, [], None)
    assert "random 12.5% of the tokens in the main condition. Each" in text
    assert "future" not in text and "end" not in text.split("Each window's")[0]


def test_pictures_show_traces_and_parcels_and_name_nobody(section) -> None:
    assert [picture.name for picture in section.pictures] == [
        "reconstruction-by-share",
        "reconstruction-traces",
        "reconstruction-parcels",
        "reconstruction-parcels-glass",
    ]
    drawn = draw(section.pictures[:2])
    assert "Badly: parcel P3, R² −1.500" in drawn["reconstruction-traces"].svg
    assert "sub-77" not in "".join(one.svg for one in drawn.values()) + section.text
    assert set(section.views) == {"reconstruction-parcels"}


def test_what_is_not_known_is_left_out(material) -> None:
    few = _content(whole=None)
    few["conditions"] = [
        {"kind": "random", "share": 0.75, "cohorts": _cohorts(0.5, "interpolation", None)[:1]}
    ]
    section = _written(material, few, traces=False)
    assert [table.name for table in section.tables] == ["figure-4-reconstruction"]
    assert [picture.name for picture in section.pictures] == [
        "reconstruction-parcels",
        "reconstruction-parcels-glass",
    ]
    assert section.tables[0].rows[0][:3] == ("random 75%", "BrainLM", "0.500")
    assert "too few people" in section.tables[0].note
    assert {row.note for row in section.rows} == {"too few people"}


def test_sections_that_were_not_run_are_none(material) -> None:
    assert reconstruction.section(material) is None
    assert scaling.section(material) is None


def test_scaling_tells_each_point_and_its_laws(material) -> None:
    grid = [
        _point(f"{size}-{share:g}", int(100 * share), count, np.ones(12), size=size, share=share)
        for size, count in (("s", 1000), ("l", 2_000_000))
        for share in (0.1, 0.5, 1.0)
    ]
    for number, (_, table) in enumerate(grid):
        table["guess2"] = 100.0 * (0.9 - 0.1 * number)
        plain = table.assign(method="interpolation", guess2=150.0)
        table.loc[:, "product"] = 0.0
        grid[number] = (grid[number][0], pd.concat([table, plain], ignore_index=True))
    write_json(material.study.path("scaling", **RUN), compare_scaling(grid, bootstrap=100, seed=0))
    section = scaling.section(material)
    assert section is not None
    points, laws = section.tables
    assert [row[0] + row[3] for row in points.rows] == ["s10", "s50", "s100", "l10", "l50", "l100"]
    assert points.best == {(5, 6)}
    assert [row[1:4] for row in laws.rows] == [
        ("train subjects", "size s", "3"),
        ("train subjects", "size l", "3"),
    ]
    assert laws.rows[0][4].startswith("0.0")  # the error falls, as told in words
    assert {row.metric for row in section.rows} == {"r2", "pearson", "mse", "exponent"}
    assert {row.method for row in section.rows} >= {"brainlm s-0.1", "interpolation", "power law"}
    (drawn,) = draw(section.pictures).values()
    assert "2M" in drawn.svg and "50% of subjects" in drawn.svg

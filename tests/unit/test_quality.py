"""Pages of quality control: the numbers, the slices, what goes with motion, the two commands."""

from __future__ import annotations

import io
import json
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image as Picture

from brainlm.atlas.table import load_table
from brainlm.cli.qc_figure import qc_figure
from brainlm.cli.qc_page import qc_page
from brainlm.dag import Dag
from brainlm.denoise.snr import temporal_snr
from brainlm.errors import InputError
from brainlm.files import read_json
from brainlm.report.quality.cuts import cuts_of, grey_png, outline
from brainlm.report.quality.group import for_motion, metrics_table, page_data, rules_of
from brainlm.report.quality.measures import by_network, connectivity, correlation_ratio
from brainlm.report.quality.motion_links import motion_links
from brainlm.report.quality.page import GroupPage

from .report_study import FAILED, FinishedStudy

RULES = rules_of({"max_mean_fd_mm": 0.5, "min_parcels": 0.8}, 100)


# --- numbers ---------------------------------------------------------------------------------


def test_temporal_snr_is_the_mean_over_the_deviation_of_the_kept_volumes():
    series = (1e5 + np.random.default_rng(0).normal(0, 50, (60, 9))).astype(np.float32)
    series[:, 3] = 7  # a voxel without any change
    kept = np.arange(60) > 4
    series[0] *= 3  # before the steady state
    found = temporal_snr(series, kept).astype(float)
    steady = series[kept].astype(float)
    steady, others = np.delete(steady, 3, axis=1), np.delete(found, 3)
    np.testing.assert_allclose(others, steady.mean(axis=0) / steady.std(axis=0), rtol=1e-3)
    assert found[3] == 0


def test_the_correlation_ratio_falls_when_images_do_not_lie_on_each_other():
    random = np.random.default_rng(1)
    at = np.indices((30, 30, 30)) / 5
    template = np.sin(at[0]) + np.cos(at[1]) * np.sin(at[2])
    epi = np.abs(template - 0.3) + random.normal(0, 0.05, template.shape)  # not a linear relation
    within = np.ones(template.shape, bool)
    found = [correlation_ratio(np.roll(epi, by, axis=0), template, within) for by in (0, 2, 5)]
    assert found[0] > 0.9 > found[1] > found[2]
    assert correlation_ratio(np.ones_like(epi), template, within) is None


def test_connectivity_is_numpys_and_unknown_parcels_stay_unknown():
    series = np.random.default_rng(2).normal(size=(80, 5)).astype(np.float32)
    series[:, 4] = np.nan
    found = connectivity(series)
    np.testing.assert_allclose(found[:4, :4], np.corrcoef(series[:, :4].T), atol=1e-5)
    assert np.isnan(found[4]).all()


def test_networks_stand_together_before_what_is_no_cortex():
    table = load_table()
    order, networks = by_network(table)
    assert sorted(order) == list(range(424))
    assert sum(size for _, size in networks) == 424
    start = 0
    for name, size in networks:
        part = table.iloc[order[start : start + size]]
        assert (part["yeo7_network"].eq(name) | part["structure"].eq(name)).all()
        start += size
    assert networks[-1][0] in {"subcortex", "cerebellum"}
    plain = table[["index", "name"]]
    assert by_network(plain)[1] == []


# --- slices ----------------------------------------------------------------------------------


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1), (1, -1, -1)])
def test_left_is_left_and_up_is_up_however_the_file_is_stored(signs):
    shape = np.array([20, 24, 22])
    affine = np.diag([*(4.0 * np.array(signs)), 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((shape - 1) / 2)
    world = (
        np.einsum("ij,jxyz->ixyz", affine[:3, :3], np.indices(shape))
        + affine[:3, 3, None, None, None]
    )
    cuts = cuts_of(np.ones(shape, bool), affine)
    right, front, up = (cuts.lay_out(part.astype(float), outside=np.nan) for part in world)
    assert right[5, 0] < 0 < right[5, 19]  # the first axial slice
    assert front[0, 5] > 0 > front[23, 5]
    assert up[26, 3] > 0 > up[-1, 3]  # the first sagittal slice, below
    assert cuts.heights_mm == sorted(cuts.heights_mm)
    assert cuts.heights_mm[0] == pytest.approx(up[5, 5], abs=1)


def test_an_outline_is_the_edge_alone():
    mask = np.zeros((7, 7), bool)
    mask[1:6, 1:6] = True
    assert outline(mask).sum() == 16
    picture = Picture.open(io.BytesIO(grey_png(mask.astype(float), 1.0)))
    assert picture.size == (7, 7)


# --- motion and connectivity -----------------------------------------------------------------


def _run(coupling: float, random: np.random.Generator) -> np.ndarray:
    """Four parcels; the first two, near each other, share a signal of this strength."""
    own, shared = random.normal(size=(300, 4)), random.normal(size=300)
    own[:, :2] += coupling * shared[:, None]
    return own


def test_edges_that_follow_motion_are_found_and_depend_on_distance():
    random = np.random.default_rng(3)
    centres = np.array([[0, 0, 0], [5, 0, 0], [60, 0, 0], [0, 90, 0]], float)
    moved = np.linspace(0.1, 0.6, 40)
    links = motion_links(((fd, _run(4 * fd, random)) for fd in moved), centres)
    assert links is not None and links.subjects == 40
    assert links.r[0] > 0.8 and np.abs(links.r[1:]).max() < 0.6
    assert links.p[0] < 1e-6
    assert links.distance[0] == 5 and links.distance_dependence < 0
    by_hand = [
        np.arctanh(connectivity(_run(4 * fd, np.random.default_rng(n)))[0, 1])
        for n, fd in enumerate(moved)
    ]
    again = motion_links(
        ((fd, _run(4 * fd, np.random.default_rng(n))) for n, fd in enumerate(moved)), centres
    )
    assert again is not None
    assert again.r[0] == pytest.approx(np.corrcoef(moved, by_hand)[0, 1])


def test_too_few_or_equal_subjects_tell_nothing():
    random = np.random.default_rng(4)
    centres = np.eye(4)[:, :3]
    assert motion_links([(0.1 * n, _run(0, random)) for n in range(9)], centres) is None
    assert motion_links([(0.1, _run(0, random)) for _ in range(12)], centres) is None


# --- all recordings --------------------------------------------------------------------------


def eligible(count: int) -> pd.DataFrame:
    ids = [f"sub-{n // 2:02d}_task-rest_run-{n % 2 + 1}" for n in range(count)]
    return pd.DataFrame(
        {
            "recording_id": ids,
            "subject": [name[4:6] for name in ids],
            "site": None,
            "dataset": "d",
            "task": "rest",
            "notes": None,
        }
    ).astype("string")


def test_for_motion_takes_one_run_of_each_subject_that_stays_in():
    rows = eligible(8)
    ids = rows["recording_id"].tolist()
    numbers = {n: {"MeanFramewiseDisplacement": 0.2, "ParcelsCovered": 0.9} for n in ids}
    numbers[ids[0]] = {"MeanFramewiseDisplacement": 0.9, "ParcelsCovered": 0.9}
    states = {ids[2]: "given up", ids[3]: "given up"}
    table = metrics_table(rows, numbers, states, {"00": "train"}, {ids[4]: "ghosts"})
    assert list(for_motion(table, RULES, 9)["recording_id"]) == [ids[1], ids[5], ids[6]]
    assert list(for_motion(table, RULES, 2)["recording_id"]) == [ids[1], ids[6]]
    assert table["split"].tolist()[:3] == ["train", "train", ""]
    data = page_data(table, RULES)
    assert [column["key"] for column in data["columns"]] == ["mean_fd", "coverage"]
    assert data["rules"][0]["limit"] == 0.5 and len(data["rules"]) == 2


def test_nothing_in_the_data_ends_the_script():
    rows = eligible(2)
    rows.loc[0, "notes"] = "</script><script>alert(1)</script>\u2028&amp;"
    table = metrics_table(rows, {}, {}, {}, {})
    text = GroupPage("A & B", page_data(table, RULES), 0, None, {}).render()
    inside = text.split('id="data">')[1].split("</script>")[0]
    assert json.loads(inside)["notes"][0].startswith("</script><script>")
    assert "A &amp; B" in text


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> FinishedStudy:
    made = FinishedStudy(tmp_path_factory.mktemp("study"), resolution_mm=6.0).write()
    made.write_quality(made.ids[:2])
    review = made.path("aroma_review", recording=made.ids[1])
    review.parent.mkdir()
    metrics = pd.read_csv(made.of_recording("aroma_metrics", made.ids[1]), sep="\t")
    metrics.assign(classification=["rejected", "accepted", "rejected"]).to_csv(
        review, sep="\t", index=False
    )
    qc_figure([*made.ids[:2], FAILED], study=made.study.root, batch="0000")
    return made


def test_the_page_of_a_recording_shows_all_panels_and_needs_nothing_else(study):
    page = study.path("qc_page", recording=study.ids[0])
    text = page.read_text()
    for title in (
        "Registration",
        "signal-to-noise ratio, after",
        "Coverage",
        "connectivity",
        "Independent",
    ):
        assert re.search(f"<h2>[^<]*{title}", text), title
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    assert text.count('class="noise"') == 2 and text.count("csf_fract</small>") == 1
    about = read_json(page.with_suffix(".json"))
    assert (about["Components"], about["ComponentsRemoved"]) == (3, 2)
    assert about["TsnrAfter"] == pytest.approx(2 * about["TsnrBefore"], rel=0.01)
    assert about["FreedomLost"] == pytest.approx(1 - 180 / 240)
    assert 0 <= about["Registration"] <= 1


def test_the_page_follows_who_overruled_the_components(study):
    text = study.path("qc_page", recording=study.ids[1]).read_text()
    assert text.count("by hand (review/)") == 2


def test_what_the_page_reads_is_asked_for_in_the_workflow(study):
    """Each source is an input of the rule: it is there, and makes the page stale."""
    root = study.study.root
    dag = Dag(yaml.safe_load(study.path("config").read_text()), root)
    asked = set(dag.batch_inputs(SimpleNamespace(batch="0000")))
    for name in study.ids[:2]:
        read = set(read_json(study.path("qc_page", recording=name).with_suffix(".json"))["Sources"])
        assert read <= asked, read - asked


def test_the_page_of_all_tells_what_became_of_each(study):
    root = study.study.root
    listed = study.path("exclude_list")
    listed.write_text(f"recording_id\treason\n{study.ids[1]}\tspikes\n")
    qc_page(study=root)
    table = pd.read_csv(study.path("quality_table"), sep="\t", keep_default_na=False).set_index(
        "recording_id"
    )
    assert table.loc[FAILED, "state"].startswith("given up: 3 of 240 volumes")
    assert table.loc[study.ids[2], "state"].startswith("not made yet")
    assert table.loc[study.ids[1], "excluded_by_hand"] == "spikes"
    assert float(table.loc[study.ids[0], "freedom_lost"]) == 0.25
    first = study.path("quality_page").read_bytes()
    qc_page(study=root)
    assert study.path("quality_page").read_bytes() == first
    listed.write_text("recording_id\treason\nsub-none\tx\n")
    with pytest.raises(InputError, match="sub-none"):
        qc_page(study=root)
    listed.unlink()

"""The page of all recordings in a real browser, opened from the disk: sort, filter, open, save."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from brainlm.report.quality.cuts import cuts_of
from brainlm.report.quality.group import metrics_table, page_data, rules_of
from brainlm.report.quality.page import GroupPage
from brainlm.report.quality.recording import RecordingPage, Volumes
from brainlm.shards.exclude_list import read_exclude_list

from .chromium import Page, browser, needs_chromium

pytestmark = needs_chromium
COUNT = 1000
SHOWN = "[...document.querySelectorAll('tr[data-row]')].map(r => r.children[1].textContent)"


def written(folder: Path, count: int) -> pd.DataFrame:
    """A page of made-up recordings, and one page of a recording."""
    random = np.random.default_rng(0)
    ids = [f"sub-{number:05d}_task-rest" for number in range(count)]
    recordings = pd.DataFrame(
        {
            "recording_id": ids,
            "subject": [name[4:9] for name in ids],
            "site": random.choice(["A", "B"], count, p=[0.85, 0.15]),
            "dataset": "d",
            "task": "rest",
            "notes": None,
        }
    ).astype("string")
    # The small site B moves more: an outlier among all, but not there.
    fd = random.uniform(0.1, 0.3, count) + 0.6 * (recordings["site"] == "B").to_numpy(float)
    fd[7], fd[8] = 2.5, np.nan
    numbers = {
        name: {"MeanFramewiseDisplacement": fd[n], "TsnrBefore": 40 + 20 * random.random()}
        for n, name in enumerate(ids)
    }
    by_hand = {ids[3]: "ghost & <b>spikes</b>"}
    table = metrics_table(recordings, numbers, {ids[5]: "given up: blank"}, {}, by_hand)
    rules = rules_of({"max_mean_fd_mm": 1.5, "min_parcels": 0.8}, 100)
    page = GroupPage("Test", page_data(table, rules), 0, None, {"sub-gone_task-rest": "old"})
    (folder / "recordings").mkdir()
    (folder / "index.html").write_text(page.render(), encoding="utf-8")
    (folder / "recordings" / f"{ids[7]}.html").write_text("<title>seven</title>", encoding="utf-8")
    return table


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qc")
    table = written(folder, COUNT)
    with browser(tmp_path_factory.mktemp("profile")) as page:
        page.open(folder / "index.html", folder)
        yield page, table, folder


def set_to(page: Page, name: str, value: str, event: str = "input") -> None:
    page.run(
        f"(() => {{ const e = document.getElementById({name!r}); e.value = {value!r};"
        f" e.dispatchEvent(new Event({event!r})); }})()"
    )


def click(page: Page, selector: str) -> None:
    page.run(f"document.querySelector({selector!r}).click()")


def shown(page: Page) -> int:
    return int(page.run("document.getElementById('count').textContent").split()[0].replace(",", ""))


def test_the_table_takes_what_the_window_leaves(opened):
    """As in a tall window: with the other sections away, it reaches the lower edge."""
    page, _, _ = opened
    others = "document.querySelectorAll('section:not(#recordings)').forEach(s => s.hidden = {})"
    page.run(others.format("true"))
    left = "innerHeight - document.getElementById('table').getBoundingClientRect().bottom"
    assert 0 <= page.run(left) < 60
    page.run(others.format("false"))
    high = "document.getElementById('table').clientHeight / innerHeight"
    assert page.run(high) >= 0.6


def test_a_click_on_a_heading_sorts_with_the_unknown_last(opened):
    page, table, _ = opened
    click(page, "th[data-key=mean_fd] button")
    wanted = table.sort_values("mean_fd", kind="stable")["recording_id"].tolist()
    first = page.run(SHOWN)
    assert first == wanted[: len(first)] and 10 < len(first) < 80  # rows in view alone
    click(page, "th[data-key=mean_fd] button")
    assert page.run(SHOWN)[0] == table.loc[7, "recording_id"]
    scroll = (
        "new Promise(done => { const t = document.getElementById('table');"
        " t.scrollTop = t.scrollHeight; setTimeout(done, 200); })"
    )
    page.run(scroll)
    assert page.run(SHOWN)[-1] == table.loc[8, "recording_id"]  # its motion is not known
    page.run(scroll.replace("t.scrollHeight", "0"))
    click(page, "th[data-key=id] button")


def test_filters_leave_what_is_asked_for(opened):
    page, table, _ = opened
    set_to(page, "site", "=B", "change")
    assert shown(page) == (table["site"] == "B").sum()
    set_to(page, "site", "", "change")
    set_to(page, "search", "00042")
    assert page.run(SHOWN) == ["sub-00042_task-rest"]
    set_to(page, "search", "SPIKES")  # a reason
    assert page.run(SHOWN) == ["sub-00003_task-rest"]
    set_to(page, "search", "")
    set_to(page, "show", "missing", "change")
    assert page.run(SHOWN) == ["sub-00005_task-rest"]
    set_to(page, "show", "rules", "change")
    assert page.run(SHOWN) == ["sub-00007_task-rest"]
    set_to(page, "show", "odd", "change")
    assert page.run(SHOWN) == ["sub-00007_task-rest"]  # of its site; all of B move more than A
    set_to(page, "show", "", "change")
    assert shown(page) == COUNT


def test_a_recording_opens_beside_the_table(opened):
    page, table, _ = opened
    set_to(page, "search", "00007")
    click(page, "tr[data-row='7'] button")
    name = table.loc[7, "recording_id"]
    assert page.run("document.getElementById('frame').src").endswith(f"recordings/{name}.html")
    assert page.run("!document.getElementById('panel').hidden")
    tree = []
    for _ in range(100):  # the frame is loaded by and by
        frames = page.send("Page.getFrameTree")["frameTree"].get("childFrames", [])
        tree = [frame["frame"]["url"] for frame in frames]
        if any(url.endswith(f"{name}.html") for url in tree):
            break
        time.sleep(0.05)
    assert any(url.endswith(f"{name}.html") for url in tree), tree
    set_to(page, "search", "")
    back = "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'k', bubbles: true}))"
    for _ in range(2):
        page.run(back)
    assert page.run("document.getElementById('opened').textContent") == "sub-00005_task-rest"
    assert page.run("document.getElementById('absent').textContent") == "given up: blank"
    click(page, "#close")
    assert page.run("document.getElementById('panel').hidden")


def test_limits_flag_at_once_and_the_saved_list_is_what_the_cohort_reads(opened):
    page, table, folder = opened
    set_to(page, "limit-mean_fd", "0.85")
    beyond = set(table.loc[table["mean_fd"] > 0.85, "recording_id"])
    set_to(page, "show", "flagged", "change")
    assert shown(page) == len(beyond)
    set_to(page, "show", "", "change")
    click(page, "tr[data-row='0'] input")  # by eye
    kept = next(row for row in range(30) if table.loc[row, "mean_fd"] > 0.85)
    set_to(page, "search", table.loc[kept, "recording_id"])
    click(page, f"tr[data-row='{kept}'] input")  # and kept in spite of the limit
    set_to(page, "search", "")
    click(page, "#export")
    saved = folder / "exclude.tsv"
    for _ in range(100):
        if saved.exists():
            break
        time.sleep(0.05)
    known = {*table["recording_id"], "sub-gone_task-rest"}
    listed = read_exclude_list(saved, known)
    first, third, gone = "sub-00000_task-rest", "sub-00003_task-rest", "sub-gone_task-rest"
    flagged = beyond - {table.loc[kept, "recording_id"]}
    assert set(listed) == flagged | {first, third, gone}
    assert listed[first] in {"left out by eye"} or first in beyond
    assert listed[third] == "ghost & <b>spikes</b>"
    assert listed["sub-00007_task-rest"] == "mean FD 2.500 above 0.850"
    click(page, "#clear")


def test_twenty_times_as_many_recordings_still_sort_and_filter(opened, tmp_path):
    """Of 20,000 rows no more are in the document than of 1,000."""
    page, _, _ = opened
    in_view = len(page.run(SHOWN))
    written(tmp_path, 20 * COUNT)
    page.send("Page.navigate", url=(tmp_path / "index.html").as_uri())
    for _ in range(200):
        if page.run("document.getElementById('count')?.textContent || ''").startswith("20,000"):
            break
        time.sleep(0.05)
    click(page, "th[data-key=tsnr] button")
    assert len(page.run(SHOWN)) <= in_view
    set_to(page, "search", "19999")
    assert page.run(SHOWN) == ["sub-19999_task-rest"]


def test_the_reference_volume_and_the_template_change_places(opened, tmp_path):
    page, _, _ = opened
    shape, affine = (12, 14, 12), np.diag([6.0, 6.0, 6.0, 1.0])
    brain, values = np.ones(shape, bool), np.random.default_rng(0).random(shape)
    volumes = Volumes(
        cuts_of(brain, affine), values, values > 0.5, values, brain, np.ones(shape, np.int32)
    )
    coverage = pd.DataFrame({"index": [1, 2], "name": ["one", "two"], "coverage": [1.0, 0.1]})
    made = RecordingPage("sub-1_task-rest", b"", {}, [], coverage, 0.5, "A", np.eye(2), [], volumes)
    (tmp_path / "one.html").write_text(made.render(), encoding="utf-8")
    page.send("Page.navigate", url=(tmp_path / "one.html").as_uri())
    for _ in range(200):
        if page.run("document.readyState === 'complete' && !!document.querySelector('.stack')"):
            break
        time.sleep(0.05)
    seen = (
        "[...document.querySelectorAll('[data-image]')].filter(i => !i.hidden)"
        ".map(i => i.dataset.image).join()"
    )
    assert page.run(seen) == "bold,edges"
    click(page, "[data-flicker]")
    click(page, "[data-layer=mask]")
    assert page.run(seen) == "template,edges,mask"
    click(page, "[data-flicker]")
    assert page.run(seen) == "bold,edges,mask"
    assert "Without a series: two." in page.run("document.body.innerText")

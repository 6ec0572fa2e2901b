"""One thing is told as one, wherever things are counted."""

from __future__ import annotations

import pandas as pd
import pytest

from brainlm.cli._found import summarise
from brainlm.report.reproducibility.sharing import Aliases
from brainlm.wording import counted


@pytest.mark.parametrize(
    ("count", "told"), [(0, "0 runs"), (1, "1 run"), (2, "2 runs"), (12000, "12,000 runs")]
)
def test_a_noun_follows_its_number(count, told):
    assert counted(count, "run") == told


def test_a_number_that_is_not_told_exactly_is_of_several():
    assert counted(1, "run", Aliases(b"k" * 32, 5).count) == "<5 runs"


def test_a_dataset_of_one_recording_is_told_in_the_singular(capsys):
    table = pd.DataFrame(
        {
            "recording_id": ["sub-1_task-rest", "sub-1_task-a"],
            "subject": "1",
            "eligible": [True, False],
            "reason": [None, "no T1w"],
            "wave": 0,
            "tr": 2.0,
            "t1w": ["a.nii.gz", None],
            "notes": [None, "mended"],
        }
    )
    summarise(table)
    said = capsys.readouterr().out
    assert "2 recordings of 1 subject; 1 eligible, of 1 subject\n" in said
    assert "notes on 1 recording:" in said
    assert "1 of 1 recordings" not in said and "T1w: 1 of 1 recording" in said

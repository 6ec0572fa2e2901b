"""The page docs/using-models.md is run as it stands, from the first block to the last."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from brainlm.atlas.table import load_table
from brainlm.resources import share_dir

from . import small_model, synthetic_cohort
from .small_model import AGE, write_model

PAGE = Path(__file__).parents[2] / "docs" / "using-models.md"


def test_every_block_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic_cohort, "PARCELS", 424)
    atlas = share_dir() / "atlases/A424/parcels.tsv"
    monkeypatch.chdir(tmp_path)
    mpl.use("Agg")
    sizes = {"parcels": 424, "timepoints": 200, "patch": 50}
    for name, head in (("brainlm", None), ("brainlm-age", AGE)):
        write_model(Path("models") / name, head, table=atlas, **sizes)
    for seed, name in enumerate(("series", "second")):
        raw = small_model.series(210, seed)
        pd.DataFrame(raw, columns=load_table()["name"]).to_parquet(f"{name}.parquet")
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S)
    assert len(blocks) >= 6
    names: dict = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert names["vector"].shape == (32,) and names["future"].shape == (20, 424)
    assert names["guessed"].hidden.all()
    assert np.abs(names["error"]).max() < 100 and len(names["error"]) == 210
    assert names["layers"].shape == (2, 424) and names["between"].shape == (424, 424)
    assert Path("attention.png").stat().st_size > 1000
    assert 0 < names["age"] < 100 and Path("models/mine/config.json").exists()

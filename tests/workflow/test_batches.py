"""Many recordings in one job: which ones, and what makes their job stale."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainlm.dag import Dag
from brainlm.dag_batches import _pack
from brainlm.errors import InputError

from .empty_study import make_study

_BATCHED = {"jobs": {"recordings_per_job": 4}}


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=40), most=st.integers(1, 12))
def test_subjects_stay_together_in_batches_of_a_bounded_size(sizes: list[int], most: int) -> None:
    groups = [[f"{number}-{run}" for run in range(size)] for number, size in enumerate(sizes)]
    packed = _pack(groups, most)
    assert [name for batch in packed for name in batch] == [name for one in groups for name in one]
    for batch in packed:
        subjects = {name.partition("-")[0] for name in batch}
        assert len(batch) <= most or len(subjects) == 1
        assert len(batch) == sum(sizes[int(subject)] for subject in subjects)
    for batch, after in itertools.pairwise(packed):
        subject = int(after[0].partition("-")[0])
        assert len(batch) + sizes[subject] > most  # no job more than is needed


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    make_study(folder, 10)
    return folder


def _contents(study: Path, **said: object) -> list[str]:
    dag = Dag({**_BATCHED, **said}, study)
    return [dag.batch_content(SimpleNamespace(batch=number)) for number in dag.batches()]


def test_a_batch_is_stale_for_what_its_recordings_are_made_by_and_for_nothing_else(
    study: Path,
) -> None:
    asis = _contents(study)
    assert len(set(asis)) == len(asis) == 3
    assert all(
        a != b for a, b in zip(asis, _contents(study, motion={"iterations": 9}), strict=True)
    )
    assert _contents(study, pretrain={"epochs": 7}, evaluate={"bootstrap": 200}) == asis

    def config(**said: object) -> str:
        return Dag({**_BATCHED, **said}, study).batch_config

    assert config(pretrain={"epochs": 7}) == config(split={"val": 0.05}) == config()
    assert config(motion={"iterations": 9}) != config()


def test_a_changed_file_makes_its_own_batch_stale(study: Path, tmp_path: Path) -> None:
    asis = _contents(study)
    make_study(tmp_path, 10)
    path = tmp_path / "onboarding" / "recordings.parquet"
    table = pd.read_parquet(path)
    table.loc[5, "bold_sha256"] = "f" * 64
    table.to_parquet(path, index=False)
    assert [a == b for a, b in zip(asis, _contents(tmp_path), strict=True)] == [True, False, True]


def test_recordings_that_come_later_make_batches_of_their_own_after_the_others(
    tmp_path: Path,
) -> None:
    """However their names sort: the batches that are done stay as they are."""
    make_study(tmp_path, 10)
    path = tmp_path / "onboarding" / "recordings.parquet"
    table = pd.read_parquet(path)
    table["wave"] = pd.array([1, 1] + [0] * 8, dtype="Int64")
    table.to_parquet(path, index=False)
    dag = Dag(_BATCHED, tmp_path)
    found = [dag.batch(SimpleNamespace(batch=number)) for number in dag.batches()]
    assert found[0] + found[1] == table["recording_id"].tolist()[2:]
    assert found[2] == table["recording_id"].tolist()[:2]


def test_a_batchs_own_run_knows_its_recordings_alone(study: Path) -> None:
    names = list(Dag(_BATCHED, study).rows)[4:6]
    about = {"only_batch": {"number": "0001", "recordings": names}}
    dag = Dag({**_BATCHED, **about}, study)
    assert list(dag.rows) == names
    assert dag.batches() == ["0001"]
    assert not dag.batched
    assert len(dag.each("timeseries")) == 2
    about["only_batch"]["recordings"] = ["sub-x_task-rest"]
    with pytest.raises(InputError, match="sub-x_task-rest is not an eligible recording"):
        Dag({**_BATCHED, **about}, study)

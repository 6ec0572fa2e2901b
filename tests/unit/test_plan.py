"""Which shard a recording goes to, as a cohort grows."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from brainlm.shards.plan import plan_shards, split_of

OPTIONS = {"dtype": "float16", "target_mb": 2.0, "by_wave": True}
ROWS = st.lists(
    st.tuples(
        st.integers(0, 99),  # subject
        st.integers(0, 2),  # wave
        st.none() | st.integers(50, 500),  # volumes
        st.none() | st.sampled_from([0.72, 2.0]),
    ),
    max_size=40,
    unique_by=lambda row: row[0],
)


def rows_of(items) -> list[dict[str, Any]]:
    return [
        {
            "recording_id": f"sub-{subject}_task-rest",
            "subject": str(subject),
            "wave": wave,
            "n_volumes": volumes,
            "tr": tr,
        }
        for subject, wave, volumes, tr in items
    ]


def planned(rows, tr: float | None = None, **changes: Any) -> dict[str, tuple[str, ...]]:
    splits = {str(n): ("train", "train", "train", "val", "test")[n % 5] for n in range(100)}
    return plan_shards(rows, splits, parcels=424, options={**OPTIONS, **changes}, tr=tr)


@settings(max_examples=60, deadline=None)
@given(ROWS, st.sampled_from([None, 0.735]))
def test_every_recording_has_one_shard_of_its_split_and_wave(items, tr: float | None) -> None:
    """Also one without TR or length, which will not be in the cohort."""
    rows = rows_of(items)
    plan = planned(rows, tr)
    assert sorted(sum(plan.values(), ())) == sorted(row["recording_id"] for row in rows)
    for row in rows:
        (shard,) = (name for name, ids in plan.items() if row["recording_id"] in ids)
        number = int(row["subject"])
        assert split_of(shard) == ("train", "train", "train", "val", "test")[number % 5]
        assert (f"-w{row['wave']}-" in shard) == (row["wave"] > 0)


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_a_later_wave_moves_nobody(items) -> None:
    rows = rows_of(items)
    earlier = planned([row for row in rows if row["wave"] < 2])
    assert earlier.items() <= planned(rows).items()


def test_shards_come_near_the_size_that_is_asked_for() -> None:
    """By their length at the TR that they will have."""
    rows = rows_of((n, n % 2, 500, 2.0) for n in range(100) if n % 5 < 3)  # 60 x 0.424 MB, train
    one = {"target_mb": 5.0, "by_wave": False}
    assert len(planned(rows, **one)) == 5
    assert len(planned(rows, tr=1.0, **one)) == 10
    assert len(planned(rows, **{**one, "dtype": "float32"})) == 10
    assert len(planned(rows, target_mb=5.0)) == 6  # each wave has 12.7 MB

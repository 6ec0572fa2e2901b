"""The comparison of denoising with a phantom's truth finds what was put in, and what was taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from brainlm.config import Denoise
from brainlm.denoise.design import Design, Noise, make_design
from brainlm.geometry import MOTION_NAMES
from brainlm.phantom.denoising import (
    agreement,
    left_of,
    neural_error,
    planted_causes,
    planted_noise,
    qc_fc,
    split_parcels,
)
from brainlm.phantom.parameters import Parameters, plan_runs
from brainlm.phantom.scanner import rhythms

COUNT, TR, PARCELS = 300, 2.0, 60


def design(noise: Noise | None = None, aroma: str = "aggressive") -> Design:
    method = "none" if noise is None else "aroma"
    options = Denoise(method=method, aroma=aroma, mean_signals=(), tissue_components=0)  # type: ignore[arg-type]
    motion = np.random.default_rng(0).standard_normal((COUNT, 6))
    table = pd.DataFrame(motion, columns=list(MOTION_NAMES))
    return make_design(
        table, tr=TR, options=options.model_dump(mode="json"), file=Path("x"), components=noise
    )


def planted(seed: int = 1, size: float = 0.5) -> tuple[np.ndarray, ...]:
    """Parcels (T, n) of neural signal, one cause of known size, and white noise."""
    rng = np.random.default_rng(seed)
    neural = rng.standard_normal((COUNT, 5)) @ rng.standard_normal((5, PARCELS))
    cause = rng.standard_normal((COUNT, 2))
    weights = size * rng.standard_normal((2, PARCELS))
    series = 0.9 * neural + cause @ weights + rng.standard_normal((COUNT, PARCELS))
    return series, neural, cause, weights


def test_parts_are_split_and_followed() -> None:
    series, neural, cause, weights = planted()
    filters = design()
    absent = np.random.default_rng(8).standard_normal((COUNT, 9))
    parts = split_parcels(series, neural, {"there": cause, "absent": absent}, filters)
    before = left_of(parts, filters)
    lost = 1 - filters.basis.shape[1] / COUNT  # to the slow cosines
    assert before["there"] == pytest.approx(lost * ((cause @ weights) ** 2).sum(), rel=0.1)
    assert before["neural"] == pytest.approx(lost * ((0.9 * neural) ** 2).sum(), rel=0.1)
    # 9 columns of 300 would take 3% of the noise by chance; that has been taken off.
    assert abs(before["absent"]) < 0.006 * lost * COUNT * PARCELS

    mixing = pd.DataFrame(np.hstack([cause[:, :1], neural[:, :3]]))
    after = left_of(parts, design(Noise(mixing, np.array([True, False, False, False]))))
    share = (weights[1] ** 2).sum() / (weights**2).sum()
    assert after["there"] / before["there"] == pytest.approx(share, abs=0.06)
    assert after["neural"] / before["neural"] > 0.97


def test_an_error_counts_what_is_added_as_well() -> None:
    """Oblique components: signal that leans on the noise grows, and grows into an error."""
    series, neural, cause, _ = planted(seed=5)
    filters = design()
    parts = split_parcels(series, neural, {"there": cause}, filters)
    mixing = pd.DataFrame(np.column_stack([cause[:, 0] + 2 * neural[:, 0], neural[:, 0]]))
    how = design(Noise(mixing, np.array([True, False])), aroma="nonaggressive")
    gone = design(Noise(mixing, np.array([True, True])))
    size = left_of(parts, filters)["neural"]
    assert neural_error(parts, filters, filters) == 0
    lost = 1 - left_of(parts, gone)["neural"] / size
    assert neural_error(parts, gone, filters) / size == pytest.approx(lost, rel=1e-3)
    assert neural_error(parts, how, filters) > 0


def test_components_are_judged_by_what_explains_them() -> None:
    _, neural, cause, _ = planted(seed=2)
    rng = np.random.default_rng(3)
    mixing = np.column_stack([cause[:, 0], neural[:, 0], cause[:, 1] + 0.4 * neural[:, 1]])
    mixing += 0.3 * rng.standard_normal(mixing.shape)
    found = planted_noise(mixing, neural, {"there": cause}, design())
    assert found.tolist() == [True, False, True]


def test_rhythms_are_found_at_any_phase() -> None:
    """What a slice measured late shows is explained by the run's columns."""
    (run,) = plan_runs(Parameters(subjects=1, volumes=COUNT, tr=TR))
    artefacts = pd.DataFrame(
        np.zeros((COUNT, 4)), columns=["edge", "spin_history_mm", "spike_percent", "slice_dropout"]
    )
    artefacts.loc[7, "spike_percent"] = 5.0
    causes = planted_causes(artefacts, run, seed=1)
    assert causes["motion"].shape[1] == 0
    assert np.flatnonzero(causes["single volumes"]).tolist() == [7]
    for rhythm, kind in zip(rhythms(run, 1), ("heart", "breath"), strict=True):
        late = rhythm.at(TR * np.arange(COUNT) + 0.3 * TR)
        late -= late.mean()
        fit = np.linalg.lstsq(causes[kind], late, rcond=None)[0]
        assert ((causes[kind] @ fit) ** 2).sum() / (late**2).sum() > 0.95


def test_qc_fc_and_agreement() -> None:
    rng = np.random.default_rng(4)
    fd = rng.random(12)
    tied = np.outer(fd, [1.0, -2.0, 3.0])
    assert qc_fc(tied, fd) == pytest.approx(1)
    assert qc_fc(np.column_stack([tied, np.full(12, np.nan)]), fd) == pytest.approx(1)
    assert qc_fc(rng.standard_normal((12, 4000)), fd) < 0.3
    called, true = np.array([1, 1, 0, 0], dtype=bool), np.array([1, 0, 1, 1], dtype=bool)
    found = agreement(called, true)
    assert found == pytest.approx({"precision": 1 / 2, "recall": 1 / 3, "f1": 2 / 5})

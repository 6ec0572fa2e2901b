"""Series that are clean already, and the methods with mean signals or aCompCor50."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from brainlm.config import Config, Denoise
from brainlm.denoise.design import Noise
from brainlm.denoise.given import look_at_given
from brainlm.denoise.regression import clean
from brainlm.denoise.regressors import nuisance_columns
from brainlm.errors import DataError
from brainlm.geometry import MOTION_NAMES

from .test_components import plan
from .test_denoise import COUNT, cleaned, confounds, design

BOLD = Path("bold.nii.gz")
ALL = np.ones(COUNT, dtype=bool)


def voxels(seed: int = 0, n: int = 300) -> np.ndarray:
    return np.random.default_rng(seed).normal(1000, 10, (COUNT, n)).astype(np.float32)


def test_a_clean_series_is_passed_on_to_the_last_bit() -> None:
    """Also its volumes before the steady state, and whatever filter the config has for others."""
    table = confounds()
    table["non_steady_state_outlier00"] = (np.arange(COUNT) == 0).astype(int)
    series = voxels()
    series[:, 0] = np.float32(1e-9)
    plans = {"high_pass": "gaussian", "low_pass_s": 10.0, "scrub": "mark"}
    np.testing.assert_array_equal(cleaned(series, table, method="fix", **plans), series)
    about = design(table, method="fix").about("off")
    assert about["Confounds"] == [] and "DegreesOfFreedom" not in about
    assert (cleaned(series, table, method="none") != series).any()


def test_scrubbing_a_clean_series_changes_no_other_volume() -> None:
    table = confounds()
    table.loc[[40, 41, 90], "framewise_displacement"] = 2.0
    series = voxels()
    series[[40, 41, 90]] += 100
    kept = np.setdiff1d(np.arange(COUNT), [40, 41, 90])
    filled = cleaned(series, table, method="fix", scrub="interpolate")
    np.testing.assert_array_equal(filled[kept], series[kept])
    assert filled[90].mean() == pytest.approx(1000, abs=5)
    shorter = cleaned(series, table, method="fix", scrub="censor")
    assert np.isnan(shorter[[40, 41, 90]]).all()


def test_motion_left_in_a_series_that_is_called_clean_is_measured() -> None:
    """Noise alone gives about 0, however many columns there are; motion gives its share."""
    table = confounds()
    assert look_at_given(voxels(), table, ALL, BOLD) == {
        "Denoising": "fix: passed on as given",
        "VoxelsVarying": 1.0,
        "MotionVarianceShare": pytest.approx(0, abs=0.01),
        "LooksCleaned": True,
    }
    moved = voxels()
    motion = table[list(MOTION_NAMES)].to_numpy()
    motion = (motion - motion.mean(axis=0)) / motion.std(axis=0)
    moved += (10 * motion[:, :1]).astype(np.float32)  # as much as the noise
    look = look_at_given(moved, table, ALL, BOLD)
    assert look["MotionVarianceShare"] == pytest.approx(0.5, abs=0.02)
    assert look["LooksCleaned"] is False
    clean(moved, design(table, method="motion24"))
    assert look_at_given(moved, table, ALL, BOLD)["MotionVarianceShare"] < 0.01


def test_a_handful_of_volumes_is_not_judged() -> None:
    look = look_at_given(voxels()[:20], confounds()[:20], ALL[:20], BOLD)
    assert "LooksCleaned" not in look and look["VoxelsVarying"] == 1.0


@pytest.mark.parametrize(("fault", "word"), [(np.nan, "NaN or inf"), (0.0, "does not change")])
def test_what_cannot_be_clean_is_refused(fault: float, word: str) -> None:
    series = voxels()
    series[:] = 5.0
    series[3, 7] += fault
    with pytest.raises(DataError, match=word):
        look_at_given(series, confounds(), ALL, BOLD)


def test_mean_signals_go_with_any_method() -> None:
    """Global signal regression alone, and beside the components: it is gone either way."""
    table = confounds()
    signal = table["global_signal"].to_numpy() - table["global_signal"].mean()
    series = voxels(1) + (4 * signal[:, None]).astype(np.float32)
    for how in (
        design(table, method="none", mean_signals=["global_signal"]),
        _beside_components(table, aroma="nonaggressive"),
        _beside_components(table, aroma="aggressive"),
        _beside_components(table, aroma="orthogonal"),
    ):
        left = series.copy()
        clean(left, how)
        r = np.corrcoef(left[:, 5], signal)[0, 1]
        assert abs(r) < 0.01, how.names
        assert "global_signal" in how.names
    twice = design(table, method="36p", mean_signals=["csf"])
    assert twice.names.count("csf") == 1
    assert twice.freedom == design(table, method="36p").freedom


def _beside_components(table: pd.DataFrame, aroma: str):
    rng = np.random.default_rng(3)
    mixing = pd.DataFrame(rng.standard_normal((COUNT, 4)), columns=list("abcd"))
    noise = Noise(mixing, np.array([True, False, False, True]))
    return plan(noise, aroma=aroma, mean_signals=["global_signal"])


def test_acompcor50_takes_all_that_the_table_has() -> None:
    table = confounds()  # seven components of each tissue
    assert nuisance_columns(table, "acompcor").shape[1] == 24 + 10
    assert nuisance_columns(table, "acompcor50").shape[1] == 24 + 14


def test_methods_that_lack_what_they_need_are_refused() -> None:
    with pytest.raises(ValueError, match="compcor_components: half"):
        Config(denoise={"method": "acompcor50"})
    Config(denoise={"method": "acompcor50"}, confounds={"compcor_components": "half"})
    with pytest.raises(ValueError, match="fix takes nothing out"):
        Denoise(method="fix", mean_signals=["csf"])


def test_a_gap_in_a_column_is_no_zero() -> None:
    """A volume without a CSF signal would become the run's largest spike."""
    table = confounds()
    table.loc[7, "csf"] = np.nan
    with pytest.raises(DataError, match=r"Column csf .* volume 7"):
        design(table, method="36p")
    with pytest.raises(DataError, match=r"Column csf .* volume 7"):
        design(table, method="none", mean_signals=("csf",))
    design(table, method="motion24")


@pytest.mark.parametrize("scrub", ["mark", "censor", "interpolate"])
def test_scrubbing_without_what_it_judges_by_is_refused(scrub: str) -> None:
    """A run of unknown motion would pass for one without motion."""
    table = confounds().assign(framewise_displacement=np.nan)
    with pytest.raises(DataError, match="framewise_displacement"):
        design(table, method="fix", scrub=scrub)
    lacking = confounds().drop(columns="std_dvars")
    with pytest.raises(DataError, match="std_dvars"):
        design(lacking, method="fix", scrub=scrub, scrub_dvars=1.5)
    design(lacking, method="fix", scrub=scrub)


def test_a_clean_series_needs_no_expanded_motion() -> None:
    table = confounds().filter(regex="^(trans|rot)_.$")
    about = look_at_given(voxels(), table, ALL, BOLD)
    assert about == {"Denoising": "fix: passed on as given", "VoxelsVarying": 1.0}

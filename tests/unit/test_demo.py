"""What the demo runs."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from brainlm.bids.study import merge, parse_settings
from brainlm.cli.demo import demo_settings
from brainlm.config import Config
from brainlm.config.forecasting import Forecasts, Networks


def _demo(*, small: bool) -> Config:
    settings = demo_settings("A424approx", "MNI152NLin2009aSym", small=small)
    return Config.model_validate(merge({}, parse_settings(settings)))


@pytest.mark.parametrize("small", [False, True])
def test_the_demo_runs_every_task(small: bool) -> None:
    config = _demo(small=small)
    assert config.evaluate.tasks == Config().evaluate.tasks
    assert config.finetune.forecast
    assert config.finetune.targets
    assert config.forecasts.methods and config.networks.methods


def test_the_demo_runs_every_method() -> None:
    config = _demo(small=False)
    known = Forecasts.model_json_schema()["properties"]["methods"]["items"]["enum"]
    odes = {"neural-ode", "latent-ode"} if find_spec("torchdiffeq") is None else set()
    assert set(config.forecasts.methods) == set(known) - odes
    assert config.networks.methods == Networks().methods

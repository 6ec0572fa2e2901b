"""What the methods of forecasting reach: `python -m tests.benchmarks.bench_forecasts`.

Subjects of the phantom's network model (106 parcels, 300 volumes at 0.72 s, white noise of a
quarter of the signal's variance; 160 to train on, 24 to validate and 64 to test on: the cohort of
bench_transfer), the last 10 of 100 time points from those before. Each method but the models, with
its whole search or with the first setting alone; R2, r and MSE over all steps, and the CPU seconds
of fitting. What is to be beaten is in the same table: the recording's mean and the last value.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

from brainlm.evaluate.forecast_networks import NETWORKS, fit_network
from brainlm.evaluate.forecast_scores import compare_forecasts
from brainlm.evaluate.forecasters import LINEAR, Horizon, fit_linear
from brainlm.evaluate.forecasts import forecast_table
from brainlm.shards.reader import ShardReader
from brainlm.shards.sampler import even_windows
from tests.benchmarks.bench_transfer import phantom_cohort
from tests.unit.tuning_study import around_of

WINDOW, FUTURE, BATCH = 100, 10, 16
#: Beaten by every network and every linear method that is no straw man.
NAIVE = ("mean", "persistence")


def main(epochs: int = 120, *, search: bool = False) -> None:
    torch.set_num_threads(1)
    horizon = Horizon(WINDOW, FUTURE, BATCH, torch.device("cpu"))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        reader = phantom_cohort(folder / "shards", seed=0)
        windows = even_windows(reader.lengths("test"), WINDOW)
        tables, spent = {}, {}
        for method in (*LINEAR, *NETWORKS):
            began = time.process_time()
            forecaster = _fitted(method, reader, horizon, folder, epochs, search)
            spent[method] = time.process_time() - began
            tables[method] = forecast_table(forecaster, reader, windows, **horizon.how)
    found = compare_forecasts(
        tables, reference="ar", trained_on={"phantom"}, bootstrap=1000, seed=0
    ).metrics["cohorts"][0]["methods"]
    for method, part in found.items():
        told = ", ".join(
            f"{name} {score['value']:.3f} [{score['ci_low']:.3f}, {score['ci_high']:.3f}]"
            for name, score in part["metrics"].items()
            if score["value"] is not None
        )
        print(f"    {method:12s} {told}; {spent[method]:.0f} CPU s")
    error = {method: part["metrics"]["mse"]["value"] for method, part in found.items()}
    floor = min(error[name] for name in NAIVE)
    for method in sorted(set(error) - set(NAIVE), key=error.__getitem__):
        print(f"squared error of {method} / the better of {', '.join(NAIVE)}: ", end="")
        print(f"{error[method] / floor:.3f}")


def _fitted(
    method: str, reader: ShardReader, horizon: Horizon, folder: Path, epochs: int, search: bool
):
    if method in LINEAR:
        return fit_linear(method, reader, horizon)[0]
    network, _ = fit_network(
        method,
        reader,
        horizon,
        epochs=epochs,
        patience=15,
        search=search,
        seed=0,
        around=lambda name: around_of(folder / method / name),
    )
    return network


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=120, help="most epochs of a network")
    parser.add_argument("--search", action="store_true", help="every setting of each network")
    given = parser.parse_args()
    main(given.epochs, search=given.search)

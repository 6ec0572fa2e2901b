"""A run on an MLflow server, or in a local store.

MLflow cannot forget values. After a stop the store says how far it is, and steps that are done anew
are not told anew (they give the same numbers).
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .notes import Notes

#: Values in one message; the server takes no more than 1,000.
_BATCH = 1000
#: Its own environment variables, unless the user has set them: no usage statistics, no long waits.
_MANNERS = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}


class MlflowRun:
    """A run of `experiment`."""

    name = "MLflow"

    def __init__(
        self, store: str, experiment: str, run_name: str, about: Mapping[str, Any], notes: Notes
    ):
        """`store` is the address of a server or database, or a folder for a local one."""
        self._store, self._experiment, self._run_name = store, experiment, run_name
        self._about, self._notes = dict(about), notes
        self._client: Any = None
        self._run = ""
        self._waiting: list[Any] = []

    def start(self, step: int) -> int:
        """Take the run up, or begin it."""
        for name, value in _MANNERS.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        folder = None if is_address(self._store) else Path(self._store)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self._client = MlflowClient(
            self._store if folder is None else f"sqlite:///{folder / 'mlflow.db'}"
        )
        noted = self._notes.of(self.name)
        if noted.get("store") == self._store:
            self._run = noted["run"]
            self._client.update_run(self._run, status="RUNNING")
            history = self._client.get_metric_history(self._run, "train/loss")
            return max((metric.step for metric in history), default=0)
        self._begin(folder)
        return 0

    def _begin(self, folder: Path | None) -> None:
        known = self._client.get_experiment_by_name(self._experiment)
        place = None if folder is None else (folder / "artifacts").resolve().as_uri()
        experiment = (
            known.experiment_id
            if known
            else self._client.create_experiment(self._experiment, artifact_location=place)
        )
        self._run = self._client.create_run(experiment, run_name=self._run_name).info.run_id
        for name, value in self._about.items():
            self._client.log_param(self._run, name, value)
        self._notes.note(self.name, store=self._store, run=self._run)

    def values(self, step: int, values: Mapping[str, float]) -> None:
        """Keep them until there are enough."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        if len(self._waiting) >= _BATCH:
            self.flush(step - 1)
        self._waiting += [Metric(name, value, now, step) for name, value in values.items()]

    def picture(self, step: int, name: str, png: bytes) -> None:
        """An artifact figures/NAME-STEP.png."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name.replace('/', '-')}-{step:08d}.png"
            path.write_bytes(png)
            self._client.log_artifact(self._run, str(path), "figures")

    def flush(self, told: int) -> None:
        """Send the values of all whole steps, so that what the store has of a step is all of it."""
        now = [metric for metric in self._waiting if metric.step <= told]
        self._waiting = [metric for metric in self._waiting if metric.step > told]
        for first in range(0, len(now), _BATCH):
            self._client.log_batch(self._run, metrics=now[first : first + _BATCH])

    def close(self, told: int) -> None:
        """Send what is left."""
        self.flush(told)
        self._client.set_terminated(self._run)


def is_address(store: str) -> bool:
    """Whether it is the address of a server or database, not a folder."""
    return "://" in store or store.partition(":")[0] in ("databricks", "databricks-uc", "uc")

"""The report's sections on models: training, evaluation, the phantom's truth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..layout import TEMPLATES
from . import charts
from .gather import Clinical, Findings
from .learning_curve import learning_curve
from .metrics import MetricTable, metric_name, metric_table, pretty, smaller_is_better


def training(findings: Findings) -> dict[str, Any] | None:
    """The training curve and the network's settings."""
    if not findings.log:
        return None
    lines = pd.DataFrame(findings.log)
    steps = _last(lines, "loss", "step")
    validations = _last(lines, "val_loss", "step")
    epochs = validations["epoch"].nunique()
    facts = [("steps", f"{len(steps):,}"), ("epochs", f"{epochs:,}")]
    if len(steps):
        facts.append(("last training loss", f"{steps['loss'].iloc[-1]:.4f}"))
    if len(validations):
        facts.append(("best validation loss", f"{validations['val_loss'].min():.4f}"))
    if "val_r2" in validations and validations["val_r2"].notna().any():
        best = float(validations["val_r2"].max())
        facts.append(("best validation R²", f"{best:.4f}".replace("-", "−")))
    settings = (findings.model or {}).get("model") or {}
    options = findings.provenance.parameters.get("pretrain", {}).get("pretrain", {})
    loss = options.get("loss", "mse")
    return {
        "curve": {
            "uri": learning_curve(steps, validations, _levels(findings), loss),
            "alt": "Training and validation loss by step, and R² on the validation split",
        },
        "facts": facts,
        "settings": [
            (key, value)
            for key, value in settings.items()
            if isinstance(value, str | int | float | bool)
        ],
        "scaler": _scaler(findings),
    }


def _last(lines: pd.DataFrame, value: str, key: str) -> pd.DataFrame:
    """The lines that hold `value`; of a resumed training, the last line for each `key`."""
    if value not in lines or key not in lines:
        return pd.DataFrame(columns=[key, value, "epoch"])
    part = lines[lines[value].notna()].drop_duplicates(key, keep="last")
    return part.sort_values(key, ignore_index=True)


def _levels(findings: Findings) -> list[tuple[str, float]]:
    """What predicting the mean (0 after scaling) costs, if the evaluation measured it."""
    baselines = (findings.reconstruction or {}).get("baselines") or {}
    value = baselines.get("zero", {}).get("mse", {}).get("value")
    return [] if value is None else [("predicting each recording's mean (test)", value)]


def _scaler(findings: Findings) -> dict[str, str] | None:
    if findings.scaler is None or not {"median", "iqr"} <= set(findings.scaler):
        return None
    usable = findings.scaler.get("usable", np.ones(len(findings.scaler["iqr"]))).astype(bool)
    chart = charts.scaler_plot(
        np.where(usable, findings.scaler["median"], np.nan),
        np.where(usable, findings.scaler["iqr"], np.nan),
    )
    return {"uri": chart, "alt": "Median and interquartile range of each parcel"}


def reconstruction(findings: Findings) -> dict[str, Any] | None:
    """Masked reconstruction against its baselines."""
    content = findings.reconstruction
    if content is None:
        return None
    table = metric_table(content, "BrainLM")
    traces = findings.traces
    return {
        "table": metric_rows(table),
        "chart": {
            "uri": charts.dots(table),
            "alt": "Metrics of the model and of the baselines with 95% confidence intervals",
        },
        "traces": None
        if traces is None or traces.empty
        else {
            "uri": charts.reconstruction_traces(traces),
            "alt": "True and predicted parcel series with the masked spans shaded",
        },
        "subjects": content.get("n_subjects"),
        "recordings": content.get("n_recordings"),
        "masked": content.get("mask_ratio"),
    }


def evaluation(findings: Findings) -> dict[str, Any] | None:
    """Where the evaluation's own page stands, and each task's result in a line."""
    if findings.evaluation is None:
        return None
    page = TEMPLATES["evaluation_page"].format(run=findings.run)
    report = Path(TEMPLATES["report"])
    return {
        "link": "../" * (len(report.parts) - 1) + page,
        "headlines": findings.evaluation.get("Headlines") or [],
    }


def clinical(findings: Findings) -> list[dict[str, Any]]:
    """One block for each label; those not evaluated yet say so."""
    return [_clinical_block(target, part) for target, part in findings.clinical.items()]


def _clinical_block(target: str, part: Clinical) -> dict[str, Any]:
    if part.metrics is None:
        return {"target": target, "table": None}
    table = metric_table(part.metrics, "BrainLM, fine-tuned")
    return {
        "target": target,
        "kind": part.metrics.get("kind", ""),
        "counts": [
            f"{noun}: {number}"
            for key, noun in (
                ("n_train_subjects", "train subjects"),
                ("n_subjects", "test subjects"),
                ("n_recordings", "test recordings"),
                ("n_missing_label", "recordings without this label"),
            )
            if (number := part.metrics.get(key))
        ],
        "table": metric_rows(table),
        "chart": _scatter(target, part),
    }


def _scatter(target: str, part: Clinical) -> dict[str, str] | None:
    table = part.predictions
    if table is None or not {"true", "brainlm"} <= set(table.columns):
        return None
    known = table[["true", "brainlm"]].astype(float).dropna()
    if known.empty:
        return None
    binary = (part.metrics or {}).get("kind") == "binary"
    chart = charts.prediction_scatter(
        known["true"].to_numpy(), known["brainlm"].to_numpy(), target, binary
    )
    return {"uri": chart, "alt": f"Predicted against true {target}"}


def metric_rows(table: MetricTable) -> dict[str, Any]:
    """A metric table with its best values marked."""
    best = {metric: table.best(metric) for metric in table.metrics}
    estimates = [estimate for method in table.methods for estimate in method.estimates.values()]
    of_values = {estimate.reason for estimate in estimates if estimate.value is not None}
    # What holds for the whole table needs no mark on each number.
    common = next(iter(of_values)) if len(of_values) == 1 else ""
    return {
        "intervals": any(estimate.interval for estimate in estimates),
        "common": common,
        "notes": list(dict.fromkeys(e.reason for e in estimates if e.reason not in ("", common))),
        "columns": [
            (metric_name(metric), "↓" if smaller_is_better(metric) else "↑")
            for metric in table.metrics
        ],
        "rows": [
            {
                "name": method.name,
                "is_model": method.is_model,
                "cells": [
                    (method.estimates[metric], best[metric] == method.name)
                    for metric in table.metrics
                ],
            }
            for method in table.methods
        ],
    }


def phantom(findings: Findings) -> dict[str, Any] | None:
    """How well the known truth of a phantom dataset was recovered."""
    content = findings.phantom
    if content is None:
        return None
    medians = content.get("median") or {}
    parcels = np.array([r for r in content.get("parcel_r") or [] if r is not None])
    traits = content.get("traits") or {}
    return {
        "medians": [
            (name, _signed(medians[key], digits))
            for key, name, digits in _MEDIANS
            if medians.get(key) is not None
        ],
        "chart": None
        if len(parcels) < 2
        else {
            "uri": charts.parcel_histogram(parcels, "correlation with the true parcel signal"),
            "alt": "Histogram of parcels by correlation of recovered with true signal",
        },
        "n": traits.get("n"),
        "traits": [
            (
                pretty(trait),
                _signed(found.get("marker_r_true"), 2),
                _signed(found.get("marker_r_recovered"), 2),
            )
            for trait, found in traits.items()
            if isinstance(found, Mapping)
        ],
        "recordings": [_phantom_row(found) for found in content.get("recordings") or []],
    }


_MEDIANS = (
    ("parcel_r", "parcel signals, r with truth", 3),
    ("fd_r", "framewise displacement, r with truth", 4),
    ("displacement_mm", "error of the head's position (mm)", 3),
    ("trans_mm", "error of translations (mm)", 3),
    ("rot_deg", "error of rotations (deg)", 3),
)


def _phantom_row(found: Mapping[str, Any]) -> dict[str, str]:
    note = found.get("corrupted") or ""
    if found.get("looks_flipped"):
        note = f"{note}; left and right look exchanged".lstrip("; ")
    return {
        "name": found["recording_id"],
        "fd_r": _signed(found.get("fd_r"), 4),
        "error": _signed(found.get("displacement_mm"), 3),
        "parcel_r": _signed(found.get("parcel_r"), 3),
        "parcels": str(found.get("parcels") or ""),
        "note": note,
    }


def _signed(value: float | None, digits: int) -> str:
    """A number with a true minus sign; n/a where there is none."""
    return "n/a" if value is None else f"{value:.{digits}f}".replace("-", "−")

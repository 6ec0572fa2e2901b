"""The numbers of the evaluation files in one shape: rows of methods, columns of metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: metric -> (name in print, whether smaller is better)
NAMES: dict[str, tuple[str, bool]] = {
    "r2": ("R²", False),
    "pearson": ("Pearson r", False),
    "mse": ("MSE", True),
    "mse_scaled": ("MSE (scaled)", True),
    "mae": ("MAE", True),
    "rmse": ("RMSE", True),
    "spearman": ("Spearman ρ", False),
    "auc": ("ROC AUC", False),
    "auroc": ("ROC AUC", False),
    "auprc": ("AUPRC", False),
    "roc_auc": ("ROC AUC", False),
    "average_precision": ("Average precision", False),
    "accuracy": ("Accuracy", False),
    "balanced_accuracy": ("Balanced accuracy", False),
    "f1": ("F1", False),
    "brier": ("Brier score", True),
    "log_loss": ("Log loss", True),
    "bce": ("Cross-entropy", True),
}


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% confidence interval; None where it could not be computed."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str = ""

    @property
    def text(self) -> str:
        """The value, rounded to what its interval can carry."""
        return "n/a" if self.value is None else _number(self.value, self._digits)

    @property
    def interval(self) -> str:
        """The interval as `0.38 to 0.44`, or nothing."""
        if self.low is None or self.high is None:
            return ""
        return f"{_number(self.low, self._digits)} to {_number(self.high, self._digits)}"

    @property
    def _digits(self) -> int:
        """Decimals: enough to show the interval's width, two to four."""
        if self.low is None or self.high is None or self.high <= self.low:
            return 3
        return min(4, max(2, 1 - math.floor(math.log10(self.high - self.low))))


@dataclass(frozen=True)
class Method:
    """The model or one baseline, with an estimate for each metric."""

    name: str
    is_model: bool
    estimates: dict[str, Estimate]


@dataclass(frozen=True)
class MetricTable:
    """The model first, then the baselines from the best to the worst by the first metric."""

    metrics: tuple[str, ...]
    methods: tuple[Method, ...]

    def best(self, metric: str) -> str | None:
        """Name of the method with the best value, if any two can be compared."""
        found = {
            method.name: estimate.value
            for method in self.methods
            if (estimate := method.estimates[metric]).value is not None
        }
        if len(found) < 2:
            return None
        return (min if smaller_is_better(metric) else max)(found, key=lambda name: found[name])


def metric_table(content: Mapping[str, Any], model_name: str) -> MetricTable:
    """Read the `metrics` and `baselines` of an evaluation's metrics.json."""
    own = content.get("metrics") or {}
    baselines = content.get("baselines") or {}
    known = list(NAMES)
    metrics = sorted(
        {key for block in (own, *baselines.values()) for key in block if key != "reason"},
        key=lambda metric: (known.index(metric) if metric in known else len(known), metric),
    )

    def method(name: str, block: Mapping[str, Any]) -> Method:
        # A baseline that could not be fitted has nothing but its reason.
        missing = {"reason": block.get("reason")}
        estimates = {metric: _estimate(block.get(metric, missing)) for metric in metrics}
        return Method(name, block is own, estimates)

    others = [method(baseline_name(name), baselines[name]) for name in sorted(baselines)]
    if metrics:
        others.sort(key=lambda other: _rank(other.estimates[metrics[0]], metrics[0]))
    return MetricTable(tuple(metrics), (method(model_name, own), *others))


def baseline_name(name: str) -> str:
    """What a baseline is, in print."""
    return _BASELINES.get(name, pretty(name))


_BASELINES = {
    "zero": "Recording's own mean",
    "interpolation": "Linear interpolation",
    "constant": "Constant (from train labels)",
    "connectivity": "Functional connectivity, linear",
    "tangent": "Connectivity in tangent space, linear",
    "svm": "Connectivity, support vectors",
    "mlp": "Connectivity, perceptron",
    "lstm": "LSTM on recordings",
    "gcn": "Graph convolutions on recordings",
    "mlp-raw": "Perceptron on recordings",
    "frozen-mlp": "BrainLM, frozen, perceptron",
    "frozen-linear": "BrainLM, frozen, linear",
    "frozen-neighbours": "BrainLM, frozen, nearest neighbours",
    "motion": "Head motion alone",
    "site": "Site alone",
    "demographics": "Age and sex alone",
}


def metric_name(metric: str) -> str:
    """A metric's name in print."""
    return NAMES.get(metric, (pretty(metric), False))[0]


def smaller_is_better(metric: str) -> bool:
    """Whether a smaller value of this metric is the better one."""
    return NAMES.get(metric, ("", False))[1]


def pretty(name: str) -> str:
    """`linear_fc` -> `Linear FC`: names of files and keys as words."""
    words = str(name).replace("_", " ").replace("-", " ").split()
    spelled = [_ABBREVIATIONS.get(word.lower(), word) for word in words]
    text = " ".join(spelled)
    return text[:1].upper() + text[1:]


_ABBREVIATIONS = {
    "fc": "FC",
    "fd": "FD",
    "pca": "PCA",
    "knn": "kNN",
    "svm": "SVM",
    "lstm": "LSTM",
    "ar": "AR",
    "r2": "R²",
    "mlp": "MLP",
    "dvars": "DVARS",
}


def _rank(estimate: Estimate, metric: str) -> float:
    """Sorts the best value first, missing ones last."""
    if estimate.value is None:
        return math.inf
    return estimate.value if smaller_is_better(metric) else -estimate.value


def _estimate(content: Any) -> Estimate:
    if isinstance(content, Mapping):
        return Estimate(
            _finite(content.get("value")),
            _finite(content.get("ci_low")),
            _finite(content.get("ci_high")),
            str(content.get("reason") or ""),
        )
    return Estimate(_finite(content))


def _finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _number(value: float, digits: int) -> str:
    """Fixed decimals with a true minus sign; large values without needless decimals."""
    if abs(value) >= 1000:
        digits = 0
    elif abs(value) >= 100:
        digits = min(digits, 1)
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "−")

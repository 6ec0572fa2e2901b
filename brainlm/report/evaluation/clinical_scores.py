"""What the metrics.json of a label says of each method, and how it is printed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..metrics import NAMES, Estimate, baseline_name, smaller_is_better
from . import wording
from .parts import Row

Content = Mapping[str, Any]

#: The paper's order; then what the paper lacks.
ORDER = (
    *("brainlm", "frozen-mlp", "svm", "mlp", "lstm", "gcn", "mlp-raw"),
    *("connectivity", "tangent", "demographics", "motion", "site", "constant"),
)
#: Zero-shot: the network itself never saw a label.
ZERO_SHOT = ("frozen-neighbours", "frozen-linear", "constant")


def methods_of(content: Content) -> list[str]:
    """All that were asked, in the order of the tables, those not known to it last."""
    names = ["brainlm", *content["baselines"]]
    order = dict.fromkeys((*ORDER, *ZERO_SHOT))
    return [*(name for name in order if name in names), *(n for n in names if n not in order)]


def metrics_of(content: Content) -> list[str]:
    """In the order of the tables."""
    known = {name: place for place, name in enumerate(NAMES)}
    return sorted(content["metrics"], key=lambda name: known.get(name, len(known)))


def rows_of(target: str, content: Content) -> Iterator[Row]:
    """Each score; p goes with the score that labels were permuted for."""
    statistic, p = content["permutation"]["statistic"], content["permutation"]["methods"]
    own = {"target": target, "cohort": "all", "n_subjects": content["n_subjects"]}
    for method in methods_of(content):
        for metric in metrics_of(content):
            repeats = over_repeats(content, metric)
            tested = p.get(method, {}) if metric == statistic else {}
            yield _row(
                method,
                metric,
                estimate_of(content, method, metric),
                sd=repeats[1] if method == "brainlm" and repeats else None,
                p=tested.get("p"),
                p_corrected=tested.get("p_holm"),
                **own,
            )
        if (test := content["tests"].get(method)) is not None:
            more = Estimate(test["error_more"])
            tested = {"p": test["p"], "p_corrected": test["p_holm"]}
            yield _row(method, "error_more", more, condition="beside brainlm", **tested, **own)
    for cohort in content["cohorts"]:
        own |= {"cohort": cohort["cohort"], "n_subjects": cohort["n_subjects"]}
        yield from _of_methods(cohort["methods"], **own)
    left = content["leave_site_out"] or {}
    own |= {"cohort": "all", "n_subjects": content["n_subjects"]}
    yield from _of_methods(left.get("methods", {}), condition="sites left out", **own)


def _of_methods(methods: Content, **about: Any) -> Iterator[Row]:
    for method, block in methods.items():
        for metric in block:
            if metric != "reason":
                yield _row(method, metric, of_block(block, metric), **about)


def _row(method: str, metric: str, found: Estimate, **about: Any) -> Row:
    return Row(
        task="clinical",
        method=method,
        metric=metric,
        value=found.value,
        low=found.low,
        high=found.high,
        note=found.reason,
        **about,
    )


def estimate_of(content: Content, method: str, metric: str) -> Estimate:
    block = content["metrics"] if method == "brainlm" else content["baselines"].get(method, {})
    return of_block(block, metric)


def of_block(block: Content, metric: str) -> Estimate:
    """A score; a method that could not be fitted has nothing but its reason."""
    score = block.get(metric)
    if score is None:
        return Estimate(reason=str(block.get("reason") or ""))
    return wording.estimate_of(score)


def over_repeats(content: Content, metric: str) -> tuple[float, float] | None:
    """Mean and SD over the repeats of the fine-tuning."""
    repeats = content["repeats"]
    if not repeats or repeats["metrics"][metric]["sd"] is None:
        return None
    return repeats["metrics"][metric]["mean"], repeats["metrics"][metric]["sd"]


def printed(found: Estimate) -> str:
    """A score with its interval."""
    return found.text + (f" ({found.interval})" if found.interval else "")


def best_of(values: Sequence[float | None], metric: str) -> int | None:
    known = [(value, row) for row, value in enumerate(values) if value is not None]
    if len(known) < 2:
        return None
    return (min if smaller_is_better(metric) else max)(known)[1]


def printed_p(value: float | None) -> str:
    if value is None:
        return "n/a"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def method_name(method: str) -> str:
    return "BrainLM, fine-tuned" if method == "brainlm" else baseline_name(method)

"""Table 1 of the paper, and its zero-shot table: labels of test subjects, by each method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...wording import counted
from .. import charts
from ..label_figures import curves_figure
from ..metrics import Estimate, metric_name, metric_table
from .clinical_scores import (
    ORDER,
    ZERO_SHOT,
    Content,
    best_of,
    estimate_of,
    method_name,
    methods_of,
    metrics_of,
    of_block,
    over_repeats,
    printed,
    printed_p,
    rows_of,
)
from .parts import Material, Picture, Section, Table, stem_of

#: By the kind of label: what the paper tells of it, and what is drawn.
_HEADLINE = {"regression": "mse_scaled", "binary": "auroc", "classes": "auroc"}
_DRAWN = {
    "regression": ("r2", "pearson", "mse_scaled"),
    "binary": ("auroc", "auprc", "balanced_accuracy"),
    "classes": ("auroc", "auprc", "balanced_accuracy"),
}


def section(material: Material) -> Section | None:
    """The labels' part of the page; None where none was evaluated."""
    every = {name: material.json("clinical", target=name) for name in material.targets}
    found = {name: content for name, content in every.items() if content is not None}
    if not found:
        return None
    numbers = {name: one for name, one in found.items() if one["kind"] == "regression"}
    classes = {name: one for name, one in found.items() if one["kind"] != "regression"}
    tables = [
        _overview("table-1-clinical", "Labels that are numbers, MSE", numbers, ORDER),
        _overview("table-1-classes", "Labels that are classes, ROC AUC", classes, ORDER),
        _overview("zero-shot-clinical", "Zero-shot: numbers, MSE", numbers, ZERO_SHOT),
        _overview("zero-shot-classes", "Zero-shot: classes, ROC AUC", classes, ZERO_SHOT),
    ]
    return Section(
        name="clinical",
        title="Labels",
        text=(
            "Labels of test subjects, predicted by the fine-tuned model and by methods fitted on "
            "the same train subjects. Intervals (95%) resample subjects, whole families where the "
            "study tells them; tests do alike. p: labels permuted between subjects; p beside the "
            "model: sign flips of the subjects' errors; both "
            "corrected by Holm over the methods of a label. A model that does not beat "
            "connectivity, head motion, site, and age and sex alone has learned nothing of its own."
        ),
        rows=tuple(row for name, one in found.items() for row in rows_of(name, one)),
        tables=(
            *(table for table in tables if table is not None),
            *(table for name, one in found.items() for table in _of_label(name, one)),
        ),
        pictures=tuple(
            picture for name, one in found.items() for picture in _pictures(material, name, one)
        ),
        headline="; ".join(_headline(name, one) for name, one in found.items()),
    )


def _overview(
    name: str, title: str, found: Mapping[str, Content], order: Sequence[str]
) -> Table | None:
    """Methods by labels, in the paper's order; None without such labels."""
    methods = [method for method in order if any(method in methods_of(o) for o in found.values())]
    if not found or not methods:
        return None
    metric = _HEADLINE[next(iter(found.values()))["kind"]]
    cells = {
        label: [_cell(one, method, metric) for method in methods] for label, one in found.items()
    }
    best = [best_of([value for value, _ in column], metric) for column in cells.values()]
    return Table(
        name=name,
        title=title,
        columns=("Method", *found),
        rows=tuple(
            (method_name(method), *(cells[label][place][1] for label in found))
            for place, method in enumerate(methods)
        ),
        note=(
            "MSE on the scale that the model is trained on (z-scores, or between 0 and 1). "
            if metric == "mse_scaled"
            else ""
        )
        + "In brackets: 95% intervals over subjects; with ±: mean and SD over all repeats of the "
        "fine-tuning. " + _subjects(found) + " Bold: the best of a column.",
        best=frozenset((row, column) for column, row in enumerate(best, 1) if row is not None),
    )


def _cell(content: Content, method: str, metric: str) -> tuple[float | None, str]:
    """Value and print: of a fine-tuning with repeats their mean and SD."""
    repeats = over_repeats(content, metric) if method == "brainlm" else None
    if repeats is not None:
        mean, sd = repeats
        return mean, f"{Estimate(mean).text} ± {Estimate(sd).text}"
    found = estimate_of(content, method, metric)
    return found.value, printed(found)


def _of_label(target: str, content: Content) -> Iterator[Table]:
    """All scores of a label with their tests; then each cohort, and each site left out."""
    stem, methods = f"clinical-{stem_of(target)}", methods_of(content)
    metrics = metrics_of(content)
    p, tests = content["permutation"]["methods"], content["tests"]
    yield Table(
        name=f"{stem}-scores",
        title=f"{target}: all scores",
        columns=(
            "Method",
            *map(metric_name, metrics),
            *("p", "p (Holm)", "p beside the model (Holm)"),
        ),
        rows=tuple(
            (
                method_name(method),
                *(printed(estimate_of(content, method, metric)) for metric in metrics),
                printed_p(p.get(method, {}).get("p")),
                printed_p(p.get(method, {}).get("p_holm")),
                printed_p(tests.get(method, {}).get("p_holm")),
            )
            for method in methods
        ),
        note=_told(content, methods, metrics),
    )
    for cohort in content["cohorts"]:
        whose = f"{cohort['cohort']}{' (external)' if cohort['external'] else ''}"
        title = f"{target} in {whose}, {counted(cohort['n_subjects'], 'subject')}"
        yield _scores(f"{stem}-{stem_of(cohort['cohort'])}", title, cohort["methods"], metrics)
    left = content["leave_site_out"]
    if left and "methods" in left:
        title = f"{target}: sites that nothing was fitted on"
        note = (
            f"{len(left['sites'])} sites, each predicted by methods fitted on the others; r, areas "
            "and balanced accuracy are those among people of one site. The fine-tuned model and "
            "the networks are not here: they saw all sites."
        )
        yield _scores(f"{stem}-sites", title, left["methods"], metrics, note)


def _scores(
    name: str, title: str, methods: Content, metrics: Sequence[str], note: str = ""
) -> Table:
    chosen = [*(one for one in ORDER if one in methods), *(m for m in methods if m not in ORDER)]
    return Table(
        name=name,
        title=title,
        columns=("Method", *map(metric_name, metrics)),
        rows=tuple(
            (method_name(one), *(printed(of_block(methods[one], metric)) for metric in metrics))
            for one in chosen
        ),
        note=note,
    )


def _pictures(material: Material, target: str, content: Content) -> Iterator[Picture]:
    stem, kind = f"clinical-{stem_of(target)}", content["kind"]
    drawn = _DRAWN[kind]

    def only(block: Content) -> dict[str, Any]:
        return {name: one for name, one in block.items() if name in (*drawn, "reason")}

    table = metric_table(
        {
            "metrics": only(content["metrics"]),
            "baselines": {name: only(one) for name, one in content["baselines"].items()},
        },
        method_name("brainlm"),
    )
    yield Picture(
        name=f"{stem}-methods",
        caption=f"{target}: all methods, the best first; lines: 95% intervals over subjects.",
        figure=charts.dots_figure(table),
    )
    told = material.table("clinical_predictions", target=target)
    if told is None or kind == "classes":
        return
    true, guess = (told[name].to_numpy(dtype=float) for name in ("true", "brainlm"))
    yield Picture(
        name=f"{stem}-predictions",
        caption=f"{target} of test recordings, by the fine-tuned model.",
        figure=charts.scatter_figure(true, guess, target, kind == "binary"),
    )
    if kind == "binary" and 0 < (true == 1).sum() < len(true):
        yield Picture(
            name=f"{stem}-curves",
            caption=f"{target} by the fine-tuned model, at each threshold. Dashed: guessing at "
            "random; for precision that is the share of positives.",
            figure=curves_figure(true, guess, target),
        )


def _headline(target: str, content: Content) -> str:
    metric = "r2" if content["kind"] == "regression" else "auroc"
    own, beside = (estimate_of(content, name, metric) for name in ("brainlm", "connectivity"))
    return f"{target}: {metric_name(metric)} {printed(own)}, connectivity {beside.text}"


def _subjects(found: Mapping[str, Content]) -> str:
    counts = ", ".join(f"{name} {one['n_subjects']}" for name, one in found.items())
    return f"Test subjects: {counts}."


def _told(content: Content, methods: Sequence[str], metrics: Sequence[str]) -> str:
    """What knowing nothing scores, and why some have no number."""
    chance = ", ".join(
        f"{metric_name(name)} {Estimate(value).text}" for name, value in content["chance"].items()
    )
    reasons = {
        f"{method_name(method)}: {reason}"
        for method in methods
        if (reason := content["baselines"].get(method, {}).get("reason"))
    }
    common = {
        reason
        for method in methods
        for metric in metrics
        if (found := estimate_of(content, method, metric)).value is not None
        and (reason := found.reason)
    }
    return ". ".join([f"By chance: {chance}", *sorted(reasons), *sorted(common), ""]).strip()

"""The sections of the page in the paper's order, and what is said of those not run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...errors import DataError
from .parts import Material, Section


@dataclass(frozen=True)
class Missing:
    """A task without results, and how to get them."""

    name: str
    title: str
    how: str


#: Task -> its title where there is nothing to show; the paper's order.
TITLES = {
    "reconstruction": "Masked reconstruction",
    "scaling": "Scaling",
    "clinical": "Labels",
    "latent": "Latent space",
    "forecast": "Forecasts",
    "networks": "Functional networks",
    "attention": "Attention",
    "perturbation": "Perturbation",
}


def gather_sections(
    material: Material, tasks: tuple[str, ...], *, forecasts: bool
) -> list[Section | Missing]:
    """Each task's section; `forecasts`: whether a model is fine-tuned to forecast.

    Results of a task that is not asked for any more are left out: nothing keeps them up to date.
    """
    makers = _makers()
    asked = {task for task in tasks if task != "forecast" or forecasts}
    return [
        (_made(task, makers[task], material) if task in asked else None)
        or Missing(task, title, _how(task, tasks, forecasts=forecasts))
        for task, title in TITLES.items()
    ]


def _made(
    task: str, make: Callable[[Material], Section | None], material: Material
) -> Section | None:
    try:
        return make(material)
    except KeyError as error:
        raise DataError(
            f"The results of {task} hold no {error}: another version made them",
            fix="run `snakemake evaluate`, which makes them anew",
        ) from error


def _how(task: str, tasks: tuple[str, ...], *, forecasts: bool) -> str:
    """What to do for a task's results; code is between backticks."""
    if task == "scaling" and task not in tasks:
        return (
            "Not asked for: name `scaling.sizes` and add `scaling` to `evaluate.tasks`, then "
            "`snakemake evaluate` trains a model for each"
        )
    if task not in tasks:
        return f"Not asked for: add `{task}` to `evaluate.tasks`, then `snakemake evaluate`"
    if task == "forecast" and not forecasts:
        return "Not asked for: set `finetune.forecast: true`, then `snakemake evaluate`"
    if task == "scaling":
        return "Not run: name `scaling.sizes`, then `snakemake scaling` trains a model for each"
    if task == "clinical":
        return "Not run: name labels in `finetune.targets`, then `snakemake evaluate` makes it"
    return "Not run: `snakemake evaluate` makes it"


def _makers() -> dict[str, Callable[[Material], Section | None]]:
    """Imported here, so that a page is all that loads them."""
    from . import (
        attention,
        clinical,
        forecasts,
        latent,
        networks,
        perturbation,
        reconstruction,
        scaling,
    )

    return {
        "reconstruction": reconstruction.section,
        "scaling": scaling.section,
        "clinical": clinical.section,
        "latent": latent.section,
        "forecast": forecasts.section,
        "networks": networks.section,
        "attention": attention.section,
        "perturbation": perturbation.section,
    }

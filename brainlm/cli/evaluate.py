"""`brainlm evaluate TASK`: the evaluation's stages under one door, in the paper's order."""

from __future__ import annotations

from collections.abc import Callable

import typer

from ._help import SpelledGroup
from .compare_forecasts import compare_forecasts
from .compare_scaling import compare_scaling
from .evaluate_attention import evaluate_attention
from .evaluate_clinical import evaluate_clinical
from .evaluate_latent import evaluate_latent
from .evaluate_networks import evaluate_networks
from .evaluate_perturbation import evaluate_perturbation
from .evaluate_reconstruction import evaluate_reconstruction
from .evaluation_page import evaluation_page

#: Task -> what the verb of its stage runs, and where the paper has it.
TASKS: dict[str, tuple[Callable[..., None], str]] = {
    "reconstruction": (
        evaluate_reconstruction,
        "Figures 3 and 4: masked entries guessed (evaluate-reconstruction).",
    ),
    "scaling": (
        compare_scaling,
        "Figure 4: model size and train subjects, each point that train-scaling has made "
        "(compare-scaling).",
    ),
    "clinical": (
        evaluate_clinical,
        "Table 1 and zero-shot: a label, beside every other method (evaluate-clinical).",
    ),
    "latent": (
        evaluate_latent,
        "Figure 5: maps of the recordings' vectors, and what neighbours share (evaluate-latent).",
    ),
    "forecast": (
        compare_forecasts,
        "Table 2, Figure 6: what follows, each method that score-forecast has scored "
        "(compare-forecasts).",
    ),
    "networks": (
        evaluate_networks,
        "Table 3: the functional network of a parcel, beside other methods (evaluate-networks).",
    ),
    "attention": (
        evaluate_attention,
        "Figure 8: what CLS attends to, and how groups differ in it (evaluate-attention).",
    ),
    "perturbation": (
        evaluate_perturbation,
        "Prompting: forecasts after a change of the past (evaluate-perturbation).",
    ),
    "page": (evaluation_page, "All of them on one page, and results.tsv (evaluation-page)."),
}

evaluate_app = typer.Typer(
    cls=SpelledGroup,
    help="Run one task of the evaluation by itself; they stand in the paper's order.\n\n"
    "Each is a stage of the workflow under another name (in brackets), with the same options and "
    "the same bytes. What a task reads must have been made before: `snakemake evaluate` makes "
    "that too, for all that evaluate.tasks of the config names.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def register(app: typer.Typer) -> None:
    """Add the group to the command line."""
    for task, (verb, place) in TASKS.items():
        evaluate_app.command(task, short_help=place)(verb)
    app.add_typer(evaluate_app, name="evaluate")

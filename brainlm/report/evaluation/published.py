"""What the paper published of its own cohorts, printed beside a study's results.

Ortega Caro et al., BrainLM: A foundation model for brain activity recordings, ICLR 2024. UK Biobank
(UKB): models were trained on others of it; Human Connectome Project (HCP): external to them.
"""

from __future__ import annotations

from collections.abc import Iterable

from .parts import Table

_CITATION = "Ortega Caro et al., ICLR 2024"
#: Datasets of the authors, as a study may call its own.
_THEIRS = frozenset({"ukb", "hcp"})


def published(task: str, datasets: Iterable[str]) -> Table | None:
    """The paper's table of a task, in its order; `datasets` are the study's own."""
    if task not in _TABLES:
        return None
    title, columns, rows, note = _TABLES[task]
    return Table(
        name=f"published-{task}",
        title=f"As published: {title} ({_CITATION})",
        columns=columns,
        rows=rows,
        note=" ".join(filter(None, (note, _whose(datasets)))),
        published=frozenset(range(len(rows))),
    )


def _whose(datasets: Iterable[str]) -> str:
    """How far these numbers may be held against the study's."""
    named = sorted({name for name in datasets if name.lower() in _THEIRS})
    if not named:
        return (
            "The authors' numbers, of their cohorts (UKB, HCP) and their preprocessing; this "
            "study's subjects are others, so that no number here is a target for one above."
        )
    return (
        f"The authors' numbers. A dataset of this study is named {' and '.join(named)} too; "
        "whether its recordings and their preprocessing are the authors', a name does not tell."
    )


_TABLES: dict[str, tuple[str, tuple[str, ...], tuple[tuple[str, ...], ...], str]] = {
    "reconstruction": (
        "R² of masked entries",
        ("Method", "UKB R²", "HCP R²"),
        (("BrainLM", "0.464", "0.278"),),
        "",
    ),
    "clinical": (
        "MSE of labels, UKB",
        ("Method", "Age", "PTSD", "Anxiety", "Neuroticism"),
        (
            ("BrainLM, best", "0.464 ± 0.025", "0.015", "0.073", "0.069"),
            ("Best other method", "0.596", "0.019", "0.081", "0.076"),
        ),
        "Age as z-scores, PTSD (PCL-5) and anxiety (GAD-7) as logarithms between 0 and 1, "
        "neuroticism between 0 and 1: an MSE holds for its own unit alone.",
    ),
    "forecast": (
        "forecasts of 20 time points from 180",
        ("Method", "UKB R²", "UKB r", "UKB MSE", "HCP R²", "HCP r", "HCP MSE"),
        (
            ("BrainLM 650M", "0.098", "0.313", "0.019 *", "0.061", "0.253", "0.018 *"),
            ("BrainLM 111M", "0.095", "0.309", "0.020 *", "0.056", "0.244", "0.018 *"),
            ("BrainLM 13M", "0.086", "0.280", "0.648", "0.028", "0.185", "0.568"),
            ("BrainLM, not pretrained", "0.012", "0.112", "0.695", "0.007", "0.090", "0.583"),
            ("LSTM", "−0.001", "0.151", "0.704", "−0.020", "0.049", "0.598"),
            ("Neural ODE", "−0.577", "0.001", "1.083", "−0.469", "0.000", "0.857"),
            ("Latent ODE", "0.001", "0.023", "0.703", "−0.003", "−0.000", "0.588"),
        ),
        "* of another normalisation than the others.",
    ),
    "networks": (
        "accuracy of 7 networks by nearest neighbours, UKB",
        ("Representation", "Accuracy"),
        (
            ("BrainLM, attention weights", "58.8%"),
            ("Raw series", "39.2%"),
            ("VAE", "49.4%"),
            ("GCN", "25.9%"),
        ),
        "1,000 recordings, 80% of the parcels of each known.",
    ),
}

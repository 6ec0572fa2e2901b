"""Forecasts after a change of the past: which parcels answer, and how much more than by chance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from ...wording import counted
from ..metrics import Estimate
from .parts import Material, Picture, Row, Section, Table, stem_of
from .perturbation_charts import network_matrix, steps_figure
from .wording import estimate_of, printed

_MOST_MAPS = 8
_FORECASTERS = {
    "fine-tuned": "the model that was fine-tuned to forecast",
    "zero-shot": "the pretrained model as it is (zero-shot: it was not fine-tuned to forecast)",
}


def section(material: Material) -> Section | None:
    """The perturbations' part of the page; None where none were made."""
    content = material.json("perturbation")
    effects = material.table("perturbation_effects")
    if content is None or effects is None:
        return None
    if not content["experiments"]:
        text = f"Not made: {content['reason']}."
        return Section(name="perturbation", title="Perturbation", text=text)
    experiments = content["experiments"]
    strongest = max(experiments, key=_above)
    shown = _mapped(experiments)
    brain = material.brain_map()
    maps = [
        Picture(
            name=f"perturbation-map-{stem_of(one['name']).lower()}",
            caption=f"{one['name']}: {_quantity(one)} of the forecast at each parcel of the cortex "
            f"({content['steps']} steps together). The perturbed parcels are left blank.",
            figure=brain.surface(_values(effects, one), _unit(one)),
            raster=True,
        )
        for one in shown
    ]
    view = f"perturbation-{stem_of(strongest['name']).lower()}"
    return Section(
        name="perturbation",
        title="Perturbation",
        text=_text(content),
        rows=tuple(_rows(content, effects)),
        tables=(_experiments(content),),
        pictures=(*_charts(content), *maps),
        links={f"{strongest['name']}, to turn": f"views/{view}.html"},
        views={view: brain.interactive(_values(effects, strongest), _unit(strongest))},
        headline=_headline(strongest),
    )


def _text(content: Mapping[str, Any]) -> str:
    return (
        f"The past ({content['past']} volumes) of some parcels is changed, and the "
        f"{content['steps']} volumes that follow are forecast by "
        f"{_FORECASTERS[content['forecaster']]}. The effect is this forecast less the one as it "
        f"was, in {counted(content['n_windows'], 'window')} of "
        f"{counted(content['n_subjects'], 'test subject')}; it is "
        "averaged per subject, then over subjects. Silenced: held at the recording's own mean; "
        "doubled: twice as far from it. Its size is the root mean square (scaled units), beside "
        "that of the same change of as many random parcels (shams; scattered as they are, they "
        "touch every network, so that a network's own change may well have less effect elsewhere). "
        "The mean effect, with its "
        "sign, is about 0 wherever activity fluctuates evenly around its mean. As a control, a "
        f"change of nothing had an effect of {content['null_effect']:g}. This shows what the "
        "network has learned to expect of an input that no brain produced: it is no evidence of "
        "what causes what in a brain, nor of what a lesion or a stimulation would do."
    )


def _experiments(content: Mapping[str, Any]) -> Table:
    rows = []
    for one in content["experiments"]:
        sham = one["sham"]
        beside = Estimate(sham["mean"], sham["low"], sham["high"])
        rows.append(
            (
                one["name"],
                str(one["n_parcels"]),
                printed(estimate_of(one["size"])),
                printed(beside),
                "n/a" if sham.get("p_holm") is None else f"{sham['p_holm']:.3f}",
                _above_shams(one),
                _share(one["n_significant"], one["n_tested"]),
            )
        )
    reasons = dict.fromkeys(
        one["size"]["reason"] for one in content["experiments"] if one["size"].get("reason")
    )
    shams = content["experiments"][0]["sham"]["n"]
    return Table(
        name="perturbation-experiments",
        title="Size of the effect on the parcels that were left alone",
        columns=(
            "Experiment",
            "Parcels",
            "Size",
            f"{shams} shams",
            "p (Holm)",
            "Parcels that answer more than to any sham",
            "Parcels with a mean effect",
        ),
        rows=tuple(rows),
        note="; ".join(
            [
                *reasons,
                "Size: 95% intervals over subjects; shams: mean and 95% of them; p: share of shams "
                f"as large{_least_p(shams, len(rows))}; parcels that answer more than to any sham: "
                "beside it how many would if the experiment were one more sham; parcels with a "
                "mean effect: false discovery rate below 0.05 among those left alone, n/a where "
                "too few subjects test none",
            ]
        )
        + ".",
    )


def _above_shams(experiment: Mapping[str, Any]) -> str:
    """How many parcels answer more than to any sham, and how many would by chance."""
    if not experiment["sham"]["n"]:
        return "n/a"
    chance = experiment["n_above_shams_by_chance"]
    return f"{experiment['n_above_shams']} (chance {chance:.1f}) of {experiment['n_beside_shams']}"


def _share(found: int, tested: int) -> str:
    return f"{found} of {tested}" if tested else "n/a"


def _least_p(shams: int, experiments: int) -> str:
    """What shams cannot tell, however large the effect: their number is in their p."""
    least = min(experiments / (shams + 1), 1.0)
    if not shams or least <= 0.05:
        return ""
    return (
        f" (of so few shams and so many experiments at least {least:.2g} after Holm's correction)"
    )


def _charts(content: Mapping[str, Any]) -> Iterator[Picture]:
    experiments = content["experiments"]
    if experiments[0]["by_network"]:
        yield Picture(
            name="perturbation-networks",
            caption="Size of the effect by network: as it is, and less that of the shams. Framed: "
            "the network whose own past was changed.",
            figure=network_matrix(experiments),
        )
    yield Picture(
        name="perturbation-steps",
        caption="Size of the effect at each step into the future, on the parcels that were left "
        "alone and on the perturbed ones.",
        figure=steps_figure(experiments),
    )


def _rows(content: Mapping[str, Any], effects: pd.DataFrame) -> Iterator[Row]:
    method = content["forecaster"]
    n_subjects = content["n_subjects"]
    yield Row("perturbation", method, "null effect", content["null_effect"], n_subjects=n_subjects)
    for one in content["experiments"]:
        size, sham = one["size"], one["sham"]
        yield Row.of(
            size,
            task="perturbation",
            method=method,
            metric="size",
            condition=one["name"],
            n_subjects=n_subjects,
            p=sham["p"],
            p_corrected=sham.get("p_holm"),
        )
        yield Row(
            "perturbation",
            f"{method}, shams",
            "size",
            sham["mean"],
            sham["low"],
            sham["high"],
            condition=one["name"],
            n_subjects=n_subjects,
        )
        for network, found in one["by_network"].items():
            for metric in ("size", "effect"):
                yield Row(
                    "perturbation",
                    method,
                    metric,
                    found[metric],
                    target=network,
                    condition=one["name"],
                    n_subjects=n_subjects,
                    note="its own past was changed" if found["perturbed"] else "",
                )


def _mapped(experiments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that get a brain: what only doubles others that are silenced looks the same."""
    chosen = [one for one in experiments if one["factor"] != 2] or experiments
    return sorted(chosen, key=_above, reverse=True)[:_MOST_MAPS]


def _values(effects: pd.DataFrame, experiment: Mapping[str, Any]) -> np.ndarray:
    """(parcels,) what the map shows; NaN where it was perturbed."""
    own = effects[effects["experiment"] == experiment["name"]]
    column = "effect" if experiment["value"] is not None else "size"
    return own[column].where(~own["perturbed"]).to_numpy(dtype=np.float64)


def _quantity(experiment: Mapping[str, Any]) -> str:
    return "mean effect" if experiment["value"] is not None else "size of the effect"


def _unit(experiment: Mapping[str, Any]) -> str:
    return "mean effect (scaled)" if experiment["value"] is not None else "size (scaled)"


def _above(experiment: Mapping[str, Any]) -> float:
    """By how much it is more than its shams."""
    return float(experiment["size"]["value"] or 0) - float(experiment["sham"]["mean"] or 0)


def _headline(strongest: Mapping[str, Any]) -> str:
    sham = strongest["sham"]["mean"]
    beside = "" if sham is None else f"; shams {Estimate(sham).text}"
    return (
        f"{strongest['name']}: size of the effect {printed(estimate_of(strongest['size']))}{beside}"
    )

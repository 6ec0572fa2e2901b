"""What a phantom dataset says about itself: descriptions, sidecars, participants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .. import __version__
from ..files import write_json, write_text
from . import network
from .distortion import READOUT_S, phase_encoding
from .fieldmaps import field_map_kind, identifier
from .parameters import TRUTH, Parameters, Run, Session, site_name
from .scene import slice_times
from .traits import AGE_RANGE, SCORE_RANGE, traits_of

_README = """# A phantom

Every number here was made by `brainlm phantom`; no person was scanned. What is true of each
scan (motion, deformation, parcel signals, traits, artefacts) stands in
`{truth}`, and how it was made in `{truth}/phantom.json`.
"""


def write_descriptions(out: Path, traits: pd.DataFrame) -> None:
    """Write what stands at the top of the dataset and of its truth."""
    made_by = [{"Name": "brainlm phantom", "Version": __version__}]
    description = {
        "Name": "Phantom with known truth",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "License": "CC0",
        "Authors": ["brainlm phantom"],
        "GeneratedBy": made_by,
    }
    # The truth's description first: it is how a later call knows this folder as a phantom.
    write_json(out / TRUTH / "dataset_description.json", description)
    write_json(out / "dataset_description.json", {**description, "DatasetType": "raw"})
    write_text(out / "README.md", _README.format(truth=TRUTH))
    write_tsv(out / "participants.tsv", traits)
    write_json(
        out / "participants.json",
        {
            "age": {"Description": "Age of the simulated subject", "Units": "year"},
            "sex": {"Description": "Sex", "Levels": {"F": "female", "M": "male"}},
            "score": {
                "Description": "Score in a clinical questionnaire that does not exist, "
                f"{SCORE_RANGE[0]:g} to {SCORE_RANGE[1]:g}"
            },
            "site": {"Description": "Scanner site"},
        },
    )
    write_tsv(out / TRUTH / "traits.tsv", _with_parameters(traits))
    write_json(
        out / TRUTH / "traits.json",
        {
            "age": f"years, uniform from {AGE_RANGE[0]:g} to {AGE_RANGE[1]:g}",
            "amplitude_*": "amplitude of the network relative to a subject of mean traits",
            "weight_default_state": "share of time in the default state, in the long run",
        },
    )


def _with_parameters(traits: pd.DataFrame) -> pd.DataFrame:
    """The traits with the network parameters that follow from them."""
    table = traits.copy()
    each = [traits_of(traits, name.removeprefix("sub-")) for name in traits["participant_id"]]
    amplitudes = np.array([network.network_amplitudes(one) for one in each])
    for name in ("Default", "Somatomotor", "Limbic", "subcortex"):
        table[f"amplitude_{name}"] = amplitudes[:, network.GROUPS.index(name)].round(4)
    table["weight_default_state"] = [network.state_weights(one)[2].round(4) for one in each]
    return table


def t1w_sidecar(session: Session) -> dict[str, Any]:
    """The JSON of a T1w image."""
    return {
        **_machine(session.site),
        "EchoTime": 0.003,
        "FlipAngle": 9,
        "InversionTime": 0.9,
        "RepetitionTime": 2.3,
        "PulseSequenceType": "MPRAGE",
    }


def bold_sidecar(run: Run, shape: tuple[int, ...], parameters: Parameters) -> dict[str, Any]:
    """The JSON of a BOLD run of `shape` (x, y, z, volumes)."""
    times, together = slice_times(shape[2], run.tr, run.session.site)
    return {
        **_machine(run.session.site),
        "TaskName": "rest",
        "Instructions": "None: this is a phantom.",
        "RepetitionTime": run.tr,
        "SliceTiming": times,
        "EchoTime": 0.03,
        "FlipAngle": 75,
        "PulseSequenceType": "Gradient Echo EPI",
        "PhaseEncodingDirection": "j-",
        "MultibandAccelerationFactor": together,
        **(_readout(run, shape[1], parameters) if parameters.distortion_mm else {}),
    }


def _readout(run: Run, lines: int, parameters: Parameters) -> dict[str, Any]:
    """What tells how a distorted run is displaced, in the two ways that scanners tell it."""
    about: dict[str, Any] = {"PhaseEncodingDirection": phase_encoding(run.session.site)}
    if field_map_kind(parameters, run.session) == "pepolar":
        about["B0FieldSource"] = identifier(run.session)
        about["EffectiveEchoSpacing"] = READOUT_S / (lines - 1)
    else:
        about["TotalReadoutTime"] = READOUT_S
    return about


def _machine(site: int) -> dict[str, Any]:
    return {
        "InstitutionName": f"Site {site_name(site)}",
        "Manufacturer": "brainlm",
        "ManufacturersModelName": "phantom",
        "MagneticFieldStrength": 3,
    }


def measured_effects(
    markers: dict[str, dict[str, float]], traits: pd.DataFrame, runs: list[Run]
) -> dict[str, Any]:
    """The planted effects, each with the correlation of trait and marker over these subjects."""
    subjects = sorted({run.session.subject for run in runs})
    effects: dict[str, Any] = {}
    for position, (trait, effect) in enumerate(network.EFFECTS.items()):
        shown = [
            np.mean([markers[run.id][trait] for run in runs if run.session.subject == subject])
            for subject in subjects
        ]
        planted = [traits_of(traits, subject).standard[position] for subject in subjects]
        varies = len(subjects) > 2 and np.ptp(planted) > 0
        r = float(np.corrcoef(shown, planted)[0, 1]) if varies else None
        effects[trait] = {**effect, "marker_r": None if r is None else round(r, 4)}
    return effects


def write_tsv(path: str | Path, table: pd.DataFrame) -> None:
    """Write a BIDS table."""
    text = table.to_csv(sep="\t", index=False, na_rep="n/a", float_format="%.8g")
    write_text(path, text)

"""What models were trained, and how they were judged, in paragraphs for a paper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...wording import Tell, counted
from ..gather import Findings
from .bibliography import PACKAGES
from .methods_data import options
from .wording import listed, number, score

_OPTIMIZERS = {"adamw": "AdamW", "adam": "Adam", "muon": "Muon"}
_MASKS = {
    "random": "chosen at random",
    "future": "at the end of the window",
    "parcels": "of whole parcels",
    "networks": "of whole networks",
}
_MODES = {
    "full": "all weights were trained",
    "head": "the encoder was kept as it was, and the head alone was trained",
    "lora": "the head and low-rank changes of the encoder's matrices were trained",
}
_SCORES = {
    "r2": "an R²",
    "mae": "a mean absolute error",
    "pearson": "a Pearson correlation",
    "auroc": "an AUROC",
    "auc": "an AUROC",
    "balanced_accuracy": "a balanced accuracy",
}


def pretraining(findings: Findings, about: Mapping[str, Any]) -> str:
    """The masked autoencoder; `about` is its sidecar."""
    done = findings.provenance.parameters
    if findings.parameters is None:
        return ""
    if "import-checkpoint" in done:
        source = done["import-checkpoint"]["released"]
        place = str(source["source"]).rstrip("/").split("/")
        # Of a folder on this machine the name alone is told.
        name = "/".join(place if len(place) == 2 else place[-1:])
        name += f"/{source['subfolder']}" if source["subfolder"] else ""
        return (
            "The model was not trained on these data: weights that BrainLM's authors released "
            f"({name}) were taken over [@ortegacaro2024]."
        )
    network = options(findings, "model", "pretrain")
    found = options(findings, "pretrain", "pretrain")
    if not network or not found:
        return ""
    text = (
        f"A masked autoencoder of {counted(findings.parameters, 'parameter')} was pretrained in "
        f"the manner of BrainLM [@ortegacaro2024; @he2022]: {counted(network['layers'], 'layer')} "
        f"of width {network['hidden']} in the encoder and "
        f"{counted(network['decoder_layers'], 'layer')} of width {network['decoder_hidden']} in "
        f"the decoder, on windows of {network['timepoints']} volumes cut into tokens of "
        f"{network['patch']} volumes"
    )
    text += (
        f" and {network['patch']} parcels. "
        if network.get("tokenizer") == "image"
        else " of one parcel. "
    )
    text += (
        f"Of the tokens of a window {found['mask_ratio']:.0%}, "
        f"{_MASKS.get(found['mask'], found['mask'])}, were hidden and guessed from the others "
        f"(mean {'squared' if found['loss'] == 'mse' else 'absolute'} error). "
    )
    per_256 = found["base_learning_rate"] is not None
    rate = found["base_learning_rate"] if per_256 else found["learning_rate"]
    steps = max((int(row["step"]) for row in findings.log or ()), default=0)
    text += (
        f"Training took {counted(found['epochs'], 'epoch')}"
        + (f" ({counted(steps, 'step')})" if steps else "")
        + f" with {_OPTIMIZERS.get(found['optimizer'], found['optimizer'])}, batches of "
        f"{counted(found['batch_size'], 'window')}, a peak learning rate of {number(rate)}"
        f"{' for 256 windows' if per_256 else ''} after a warm-up over {found['warmup']:.0%} of "
        f"the steps, and a weight decay of {number(found['weight_decay'])}"
    )
    if "Device" in about:
        device = "a GPU" if about["Device"] == "cuda" else "CPUs"
        text += f"; it ran on {device} with PyTorch {about['Torch']} [@paszke2019]"
    return f"{text}. All random draws derive from the seed {done['pretrain']['seed']}."


def finetuning(findings: Findings) -> str:
    """The labels that were learned."""
    found = options(findings, "finetune", "finetune")
    if not found:
        return ""
    targets = [
        f"{one['name']} ({'regression' if one['kind'] == 'regression' else 'classification'})"
        for one in found["targets"]
    ]
    if found["forecast"]:
        targets.append("the continuation of the series")
    if not targets:
        return ""
    rate = ""
    if found["learning_rate"] is not None:
        rate = f", a peak learning rate of {number(found['learning_rate'])}"
    return (
        f"The model was fine-tuned to predict {listed(targets)}, each by a copy of its own: "
        f"{_MODES[found['mode']]}, for at most {counted(found['epochs'], 'epoch')}, with batches "
        f"of {counted(found['batch_size'], 'window')}{rate} and a weight decay of "
        f"{number(found['weight_decay'])}. The weights of the epoch with the best validation score "
        "were kept."
    )


def evaluation(findings: Findings, tell: Tell, k: int) -> str:
    """What came of it on the test split; scores of fewer than `k` people are not told."""
    sentences = []
    if (told := findings.reconstruction) is not None and told["n_subjects"] >= k:
        sentences.append(
            f"In {counted(told['n_subjects'], 'test participant', tell)}, hidden tokens "
            f"({told['mask_ratio']:.0%} of a window) were reconstructed with an R² of "
            f"{score(told['metrics']['r2'])}."
        )
    for target, part in findings.clinical.items():
        if (metrics := part.metrics) is None or metrics["n_subjects"] < k:
            continue
        known = metrics["metrics"]
        shown = [
            f"{told} of {score(known[name])}"
            for name, told in _SCORES.items()
            if name in known and known[name]["value"] is not None
        ]
        if not shown:
            continue
        beside = [name for name, found in metrics["baselines"].items() if "reason" not in found]
        compared = (
            f"; for comparison, the same participants were predicted by the "
            f"{'method' if len(beside) == 1 else 'methods'} {listed(sorted(beside))}"
            if beside
            else ""
        )
        people = counted(metrics["n_subjects"], "test participant", tell)
        sentences.append(
            f"{target[0].upper()}{target[1:]} of {people} was predicted with {listed(shown)}"
            f"{compared}."
        )
    return " ".join(sentences)


def statistics(findings: Findings) -> str:
    """Intervals and tests; those of what was evaluated."""
    blocks = [part.metrics for part in findings.clinical.values() if part.metrics is not None]
    if findings.reconstruction is not None:
        blocks.append(findings.reconstruction)
    draws = {found["bootstrap"] for found in blocks if "bootstrap" in found}
    whom = "families" if any("n_units" in found for found in blocks) else "participants"
    sentences = []
    if any(one.get("ci_low") is not None for found in blocks for one in found["metrics"].values()):
        how = f" ({listed([f'{count:,}' for count in sorted(draws)])} draws)" if draws else ""
        sentences.append(
            f"Confidence intervals are 95% bootstrap intervals over {whom}{how}, corrected "
            "for bias and skew [@efron1987], those of mean errors studentised on logarithms "
            f"[@diciccio1996], and widened for the number of {whom}."
        )
    permuted = [
        found["permutation"]
        for found in blocks
        if any(_known(one) for one in found.get("permutation", {}).get("methods", {}).values())
    ]
    if permuted:
        sentences.append(
            f"Predictions of labels were tested against {permuted[0]['draws']:,} permutations of "
            f"the labels between {whom}"
            + (" of the same site" if permuted[0]["within_sites"] else "")
            + ", with Holm's correction for the number of methods [@holm1979]."
        )
    if any(_known(one) for found in blocks for one in found.get("tests", {}).values()):
        sentences.append(
            "Methods were compared with the model by random sign flips of the participants' "
            "differences in error, corrected alike [@holm1979]."
        )
    return " ".join(sentences)


def _known(test: Mapping[str, Any]) -> bool:
    return test.get("p") is not None


def software(findings: Findings) -> str:
    """Versions of what ran."""
    versions = findings.provenance.software
    if "brainlm" not in versions:
        return ""
    named = [f"Python {' and '.join(versions['python'])}"] if "python" in versions else []
    for package, (name, key) in sorted(PACKAGES.items()):
        if package in versions:
            cited = "" if package == "antspyx" else f" [@{key}]"
            named.append(f"{name} {' and '.join(versions[package])}{cited}")
    text = (
        f"All steps were run by the BrainLM pipeline {' and '.join(versions['brainlm'])} under "
        "Snakemake [@moelder2021]"
    )
    return f"{text}{' with ' + listed(named) if named else ''}."

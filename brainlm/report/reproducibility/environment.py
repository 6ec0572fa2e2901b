"""Section "environment": code, libraries, images, machines, jobs, seeds; versions known as bad."""

from __future__ import annotations

from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

from ...errors import BrainLMError
from ...fmriprep.images import known_images
from ...provenance import sha256_file
from .base import About, Section, Sharing, render
from .code import read_code, stage_codes
from .jobs import History
from .known_bad import Defect, defects
from .machines import grouped, read_machines, several
from .public_names import public_image

#: Packages that no sidecar names, and that may go wrong all the same.
_AROUND = ("aroma", "snakemake", "snakemake-executor-plugin-slurm")


def section(about: About, sharing: Sharing | None) -> Section:
    """All that a rerun needs to be the same, and what is known to be wrong with it."""
    software = _software(about)
    found = sorted(
        defects(software, _pipelines(about)), key=lambda one: (not one.is_alarm, one.program)
    )
    machines, history = read_machines(about), about.history
    code = read_code()
    html = render(
        "environment.html.j2",
        code=code,
        dirty=len(code.dirty) if sharing else ", ".join(code.dirty[:12]),
        stages=stage_codes(about.graph),
        software=[(name, sorted(versions)) for name, versions in sorted(software.items())],
        images=_images(about, sharing),
        machines=grouped(machines, hosts=sharing is None),
        moved=several(machines),
        runs=_runs(history, sharing),
        jobs=_jobs(history, sharing),
        history=history,
        seeds=_seeds(about, sharing),
        defects=found,
        shared=sharing is not None,
        many=_many,
    )
    alarms = tuple(_alarm(one) for one in found if one.is_alarm)
    return Section("environment", "Environment", html, alarms)


def _alarm(defect: Defect) -> str:
    return (
        f"{defect.program} {defect.version} made files of this study, and {defect.what} "
        f"({defect.source}). Install another version and run these stages again"
    )


def _software(about: About) -> dict[str, set[str]]:
    """Versions that sidecars tell, and those around the workflow that are installed here."""
    found: dict[str, set[str]] = {}
    seen: set[int] = set()
    for node in about.graph.nodes.values():
        told = node.about.get("software")
        if told and id(told) not in seen:  # thousands of files share one list
            seen.add(id(told))
            for name, version in told.items():
                found.setdefault(str(name), set()).add(str(version))
    for name in _AROUND:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        if name != "snakemake-executor-plugin-slurm" or about.history.jobs:
            found.setdefault(name, set()).add(version)
    for run in about.history.runs:
        found.setdefault("snakemake", set()).add(run.version)
    return found


def _pipelines(about: About) -> set[str]:
    """Other pipelines that did steps of ours, as sidecars call them."""
    told = about.findings.provenance.processed_by.values()
    return {name for names in told for name in names}


def _images(about: About, sharing: Sharing | None) -> list[tuple[str, str]]:
    """Container images by what they are used for, with the digest of their bytes."""
    found = []
    containers = about.config.containers
    named = [("rules (--sdm apptainer)", containers.image), ("GPU rules", containers.gpu_image)]
    if about.config.engine == "fmriprep":
        own = about.config.fmriprep.image
        named.append(("fMRIPrep", str(own) if own else None))
        if own is None:
            found += _pinned(about, sharing)
    for use, image in named:
        if image is None:
            continue
        path = Path(image) if Path(image).is_absolute() else about.study.root / image
        name = "a file of the site" if sharing else image
        if "://" in image:
            found.append((use, public_image(image) if sharing else image))
        elif path.is_file():
            found.append((use, f"{name}, SHA-256 {sha256_file(path)}"))
        else:
            found.append((use, f"{name}, which is not there any more"))
    return found


def _pinned(about: About, sharing: Sharing | None) -> list[tuple[str, str]]:
    try:
        images = known_images(about.study.root)
    except BrainLMError as error:
        return [("fMRIPrep", "not known" if sharing else f"not known: {error.what}")]
    told = [
        f"{image.repository}:{image.tag}{f'@{image.digest}' if image.digest else ''}"
        for image in images
        if image.name == "fmriprep"
    ]
    return [("fMRIPrep", public_image(name) if sharing else name) for name in told]


def _runs(history: History, sharing: Sharing | None) -> list[tuple[str, ...]]:
    """Starts of Snakemake by hand: when, where, by whom, which version."""
    runs = [run for run in history.runs if not run.inside]
    if sharing:
        return []
    return [(run.date, run.host, run.user, run.version, run.run_id or "") for run in runs[-20:]]


def _jobs(history: History, sharing: Sharing | None) -> list[dict[str, Any]]:
    """Slurm's jobs by rule."""
    by_rule: dict[str, list[Any]] = {}
    for job in history.jobs:
        by_rule.setdefault(job.rule, []).append(job)
    rows = []
    for rule, jobs in sorted(by_rule.items()):
        states = Counter(state for job in jobs for state in job.states)
        rows.append(
            {
                "rule": rule,
                "count": sharing.count(len(jobs)) if sharing else str(len(jobs)),
                "ids": "" if sharing else _many([job.id for job in jobs]),
                "nodes": "" if sharing else _many(sorted({j.nodes for j in jobs if j.nodes})),
                "partitions": ""
                if sharing
                else _many(sorted({j.partition for j in jobs if j.partition})),
                "gpus": "n/a" if history.no_accounting else max(job.gpus for job in jobs),
                "states": ", ".join(
                    f"{sharing.count(count) if sharing else count} {state}"
                    for state, count in sorted(states.items())
                ),
            }
        )
    return rows


def _many(names: list[str]) -> str:
    """Names, or the first of them and how many there are."""
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more


def _seeds(about: About, sharing: Sharing | None) -> list[tuple[str, str]]:
    """What makes chance and rounding repeat themselves."""
    config = about.config
    # With the salt, whoever knows a person's identifier knows the split.
    salt = config.split.salt if sharing is None else "stays with the data"
    found = [
        ("seed of training, masks and bootstrap", str(config.seed)),
        ("salt of the split", salt if config.split.table is None else "a table"),
        ("deterministic algorithms in pretraining", str(config.pretrain.deterministic)),
        ("precision", str(config.pretrain.precision)),
        ("ANTs", "one thread, ANTS_RANDOM_SEED=1, set by the workflow and by each command"),
    ]
    for node in about.graph.nodes.values():
        if node.about.get("WentOnFrom"):
            told = node.about["WentOnFrom"]
            found.append(
                (
                    f"{node.made_by} went on from another training",
                    f"changed: {_many(told['Changed'])}",
                )
            )
    return found

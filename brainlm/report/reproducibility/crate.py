"""The study as an RO-Crate 1.1: its workflow, what each stage made from what, with hashes.

It follows the profiles Process Run Crate and Workflow Run Crate 0.5. A study of any size gives a
small file: where a stage reads or makes many files of one kind, one Collection stands for them,
with their number and one hash over all of theirs.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ... import __version__
from ...files import whole_folder
from ...provenance import sha256_file
from ...resources import share_dir
from ...wording import counted
from .base import About, Sharing
from .crate_files import Files
from .crate_parameters import plain, public
from .graph import Graph, Node

NAME = "ro-crate-metadata.json"
_PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
_RO_CRATE = "https://w3id.org/ro/crate/1.1"
_SNAKEMAKE = "https://w3id.org/workflowhub/workflow-ro-crate#snakemake"
#: The context of RO-Crate 1.1 has no word for a hash; this is that of the profiles.
_CONTEXT = [f"{_RO_CRATE}/context", {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"}]
_NO_LICENCE = "#licence-not-stated"

Entity = dict[str, Any]


def read_graph(about: About) -> Graph:
    """The lineage; where a damaged file forbids it, which the page tells, the crate is without."""
    try:
        return about.graph
    except Exception:  # as the page does with its sections
        return Graph({}, {})


def copy_workflow(folder: Path) -> None:
    """The workflow as it is now, so that the crate holds what it describes."""
    share = share_dir()
    with whole_folder(folder) as temporary:
        shutil.copy(share / "Snakefile", temporary / "Snakefile")
        for path in sorted((share / "workflow").rglob("*.smk")):
            to = temporary / path.relative_to(share)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, to)


def describe(
    about: About, graph: Graph, sharing: Sharing | None, *, page: Path, workflow: Path, root: Path
) -> dict[str, Any]:
    """The crate at `root`, of the `page` and the copied `workflow` in it, as JSON-LD."""
    files = Files(about.study.root, sharing)
    actions = _actions(about, graph, files, sharing)
    snakefile, rules = _workflow(workflow, root)
    report = _file(page, root, "Reproducibility report", "text/html")
    run = {
        "@id": "#run",
        "@type": "CreateAction",
        "name": f"The workflow of {about.findings.name}",
        "description": "All stages below, in the order that the workflow's rules give them.",
        "instrument": _ref(snakefile["@id"]),
        "object": [_ref(name) for name in files.raw],
        "result": [_ref(report["@id"])],
    }
    licence = about.config.report.licence
    parts = [snakefile, *rules, report, *files.data]
    dataset = {
        "@id": "./",
        "@type": "Dataset",
        "name": f"{about.findings.name}: from fMRI to BrainLM",
        "description": _description(about, sharing),
        "datePublished": about.config.report.published or datetime.now(UTC).strftime("%Y-%m-%d"),
        "license": _ref(licence or _NO_LICENCE),
        "conformsTo": [_ref(address) for address in _PROFILES],
        "hasPart": [_ref(part["@id"]) for part in parts],
        "mainEntity": _ref(snakefile["@id"]),
        "mentions": [_ref(one["@id"]) for one in (run, *actions, *files.collections)],
    }
    graph_of = [
        {
            "@id": NAME,
            "@type": "CreativeWork",
            "about": _ref("./"),
            "conformsTo": [_ref(_RO_CRATE), _ref(list(_PROFILES)[-1])],
        },
        dataset,
        *(
            {"@id": address, "@type": "CreativeWork", "name": name, "version": address[-3:]}
            for address, name in _PROFILES.items()
        ),
        _licence(licence),
        {
            "@id": _SNAKEMAKE,
            "@type": "ComputerLanguage",
            "name": "Snakemake",
            "url": _ref("https://snakemake.github.io"),
        },
        *parts,
        run,
        *actions,
        *files.others,
        *files.collections,
        *_tools(about, actions),
        *_parameters(about, actions, sharing),
    ]
    return {"@context": _CONTEXT, "@graph": graph_of}


def _ref(name: str) -> dict[str, str]:
    return {"@id": name}


def _description(about: About, sharing: Sharing | None) -> str:
    told = (
        "Functional MRI preprocessed to parcel time series, a BrainLM trained on them and its "
        f"evaluation, by the BrainLM pipeline {__version__}."
    )
    if sharing is not None:
        told += (
            " This variant names no participant: what stays with the data is described, not here."
        )
    return told


def _licence(address: str | None) -> Entity:
    if address is not None:
        return {"@id": address, "@type": "CreativeWork", "name": address, "url": _ref(address)}
    return {
        "@id": _NO_LICENCE,
        "@type": "CreativeWork",
        "name": "No licence is stated",
        "description": "Ask whoever holds the data before you use any of this.",
    }


def _file(path: Path, root: Path, name: str, form: str) -> Entity:
    return {
        "@id": path.relative_to(root).as_posix(),
        "@type": "File",
        "name": name,
        "encodingFormat": form,
        "contentSize": str(path.stat().st_size),
        "sha256": sha256_file(path),
    }


def _workflow(folder: Path, root: Path) -> tuple[Entity, list[Entity]]:
    """The Snakefile, and the files of rules that it includes."""
    rules = [
        _file(path, root, f"Rules: {path.stem}", "text/plain")
        for path in sorted(folder.rglob("*.smk"))
    ]
    main = _file(folder / "Snakefile", root, "The BrainLM workflow", "text/plain") | {
        "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow"],
        "programmingLanguage": _ref(_SNAKEMAKE),
        "version": __version__,
        "hasPart": [_ref(rule["@id"]) for rule in rules],
    }
    return main, rules


def _actions(about: About, graph: Graph, files: Files, sharing: Sharing | None) -> list[Entity]:
    """One for each stage that made something: all its runs together."""
    made: dict[str, list[Node]] = {}
    for node in graph.nodes.values():
        if node.made_by and node.kind != "metric":
            made.setdefault(node.made_by, []).append(node)
    raw = [node for node in graph.nodes.values() if "::" in node.id]
    files.raw.extend(files.refer(raw))
    actions = []
    for stage, results in sorted(made.items()):
        given = {source for node in results for source in graph.sources.get(node.id, ())}
        objects = [graph.nodes[name] for name in sorted(given) if name in graph.nodes]
        options = about.findings.provenance.parameters.get(stage)
        named = [*files.refer(objects), *([f"#{stage}-parameters"] if options else [])]
        count = len({node.recording for node in results if node.recording})
        told = f" for {counted(count, 'recording')}" if count and sharing is None else ""
        actions.append(
            {
                "@id": f"#{stage}",
                "@type": "CreateAction",
                "name": f"brainlm {stage}",
                "description": f"Stage {stage} of the workflow{told}.",
                "instrument": _ref(f"#brainlm-{stage}"),
                "object": [_ref(name) for name in named],
                "result": [_ref(name) for name in files.refer(results)],
            }
        )
    return actions


def _tools(about: About, actions: list[Entity]) -> list[Entity]:
    """The command of each stage, and the libraries that were recorded."""
    libraries = {
        name: f"https://pypi.org/project/{name}/{versions[0]}/"
        for name, versions in about.findings.provenance.software.items()
        if name not in ("brainlm", "python")
    }
    code = about.findings.provenance.code
    found: list[Entity] = [
        {
            "@id": action["instrument"]["@id"],
            "@type": "SoftwareApplication",
            "name": action["name"],
            "softwareVersion": "+".join([__version__, *code.get(action["@id"][1:], [])]),
            "softwareRequirements": [_ref(address) for address in libraries.values()],
        }
        for action in actions
    ]
    found += [
        {
            "@id": address,
            "@type": "SoftwareApplication",
            "name": name,
            "url": _ref(address),
            "softwareVersion": ", ".join(about.findings.provenance.software[name]),
        }
        for name, address in libraries.items()
    ]
    return found


def _parameters(about: About, actions: list[Entity], sharing: Sharing | None) -> list[Entity]:
    """The recorded options of each stage."""
    recorded: Mapping[str, Any] = about.findings.provenance.parameters
    return [
        {
            "@id": f"#{stage}-parameters",
            "@type": "PropertyValue",
            "name": f"options of {stage}",
            "value": plain(recorded[stage] if sharing is None else public(recorded[stage])),
        }
        for stage in sorted(action["@id"][1:] for action in actions)
        if recorded.get(stage)
    ]

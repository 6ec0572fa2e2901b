"""Section "lineage": from any number back to raw files, by recorded hashes that are compared."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from itertools import groupby

from markupsafe import Markup

from ...files import atomic_path
from ...wording import exactly
from .base import About, Section, Sharing, render
from .graph import GUESSABLE, Graph, Node, State
from .lineage_graph import read_graph
from .lineage_view import view

__all__ = ["read_graph", "section", "write_table"]

#: Files that are wrong in the same way are named one by one up to so many.
_NAMED = 3

#: What a state means, on the page.
_MEANING = {
    State.whole: "the bytes that are recorded",
    State.changed: "other bytes than are recorded",
    State.missing: "gone, though something was made from it",
    State.temporary: "removed by the workflow, as it should be",
    State.given_up: "an empty file in place of a recording that could not be used",
    State.unread: "not compared",
}


def section(about: About, sharing: Sharing | None) -> Section:
    """The section; the full report's writes the whole table beside the page."""
    graph = about.graph
    if sharing is None and graph.nodes:
        write_table(about)
    content = view(graph, sharing)
    # `<` is written so that no name can end the script.
    data = Markup(
        json.dumps(content, separators=(",", ":"), sort_keys=True).replace("<", "\\u003c")
    )
    html = render(
        "lineage.html.j2",
        kinds=_by_kind(graph, sharing),
        states=[(state.value, meaning) for state, meaning in _MEANING.items()],
        data=data,
        starts=content["starts"],
        table=about.path("lineage_table").name if sharing is None else None,
        fast=about.options.fast,
        raw=about.options.raw,
        unread=sum(node.state is State.unread for node in graph.nodes.values()) > 0,
        arrows=_count(sum(len(sources) for sources in graph.sources.values()), sharing),
        shared=sharing is not None,
    )
    return Section("lineage", "Lineage", html, tuple(_alarms(graph, sharing)))


def write_table(about: About) -> None:
    """Every arrow of the lineage, with what is recorded of the file that it starts at."""
    graph = about.graph
    with atomic_path(about.path("lineage_table")) as path, path.open("w", encoding="utf-8") as out:
        out.write("file\tmade_by\tcode\tmade_from\tsha256\tstate\n")
        for name in sorted(graph.sources):
            node = graph.nodes[name]
            for source in graph.sources[name]:
                one = graph.nodes[source]
                cells = (
                    *(name, node.made_by or "n/a", str(node.about.get("code") or "n/a")),
                    *(source, one.sha256 or "n/a", one.state.value),
                )
                out.write("\t".join(" ".join(cell.split()) for cell in cells) + "\n")


def _by_kind(graph: Graph, sharing: Sharing | None) -> list[dict[str, object]]:
    """How many files of each kind are in which state."""
    found: dict[str, Counter[State]] = {}
    for node in graph.nodes.values():
        if node.kind != "metric":
            found.setdefault(node.kind, Counter())[node.state] += 1
    return [
        {
            "kind": kind.replace("_", " "),
            "counts": [_count(counts[state], sharing) if counts[state] else "" for state in State],
            "wrong": bool(counts[State.changed] or counts[State.missing]),
        }
        for kind, counts in sorted(found.items())
    ]


def _count(number: int, sharing: Sharing | None) -> str:
    return sharing.count(number) if sharing else exactly(number)


def _alarms(graph: Graph, sharing: Sharing | None) -> Iterator[str]:
    wrong = [
        node
        for node in graph.nodes.values()
        if node.kind != "metric" and node.state in (State.changed, State.missing)
    ]
    wrong.sort(key=lambda node: (_way(node), node.id))
    for way, group in groupby(wrong, _way):
        nodes = list(group)
        hidden = sharing is not None and (nodes[0].recording or way[0] in ("raw", "outside"))
        if hidden or len(nodes) > _NAMED:
            first = "" if sharing else f", first {nodes[0].id}"
            kind = way[0].replace("_", " ")
            many = f"Files of kind {kind} ({_count(len(nodes), sharing)}{first})"
            yield f"{many}: {way[2]}. {_fix(nodes[0])}"
            continue
        for node in nodes:
            name = sharing.path(node.id) if sharing else node.id
            yield f"{name}: {way[2]}{_hashes(node, sharing)}. {_fix(node)}"


def _way(node: Node) -> tuple[str, str, str]:
    return node.kind, node.state.value, str(node.about.get("why", ""))


def _hashes(node: Node, sharing: Sharing | None) -> str:
    if sharing is not None and node.kind in GUESSABLE:
        return ""
    now, readers = node.about.get("now"), node.about.get("readers", [])
    told = f" (recorded {(node.sha256 or '')[:12]}, now {now[:12]})" if now else ""
    if now and now == node.sha256:  # some reader knows these bytes, others do not
        told = ""
    if not readers or sharing is not None:
        return told
    more = f" and {len(readers) - 1} more" if len(readers) > 1 else ""
    return f"{told}; read by {readers[0]}{more}"


def _fix(node: Node) -> str:
    if node.kind == "raw":
        return "Restore the raw file, or run `brainlm onboard` and the workflow again"
    if node.kind == "checkpoint":
        return "Delete this folder of checkpoints: its note was edited"
    return "Restore the file, or delete it and run the workflow again: what follows is made anew"

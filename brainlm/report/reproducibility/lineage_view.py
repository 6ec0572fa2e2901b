"""The lineage as the page shows it: files of all recordings in one box, the rest one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ...wording import exactly
from .base import Sharing
from .graph import GUESSABLE, Graph, Node, State

#: More files of one kind than this share a box.
_APART = 8
#: Rows of the table of a box, at most; what is wrong comes first. All is in the table beside.
_ROWS = 100
#: Such boxes never name what they hold.
_MANY = frozenset({"raw", "outside", "shard_plan", "shard_part", "qc_batch"})
_WRONG = (State.changed, State.missing)
#: Results that are told of a shareable page: others may be named after sites or groups.
_PLAIN = ("/metrics/", "/baselines/")


def view(graph: Graph, sharing: Sharing | None) -> dict[str, Any]:
    """Boxes, arrows between them and the numbers to start from, as plain JSON types."""
    files = {name: node for name, node in graph.nodes.items() if node.kind != "metric"}
    box_of = _boxes(files)
    members: dict[str, list[Node]] = {}
    for name, node in files.items():
        members.setdefault(box_of[name], []).append(node)
    arrows: Counter[tuple[str, str]] = Counter()
    for name, sources in graph.sources.items():
        if name in box_of:
            arrows.update((box_of[source], box_of[name]) for source in sources)
    levels = _levels(members, [pair for pair in arrows if pair[0] != pair[1]])
    order = sorted(members, key=lambda box: (levels[box], box))
    number = {box: place for place, box in enumerate(order)}
    return {
        "boxes": [{**_box(box, members[box], sharing), "level": levels[box]} for box in order],
        "arrows": [
            [number[one], number[other], count if sharing is None else 0]
            for (one, other), count in sorted(arrows.items())
            if one != other
        ],
        "starts": _starts(graph, box_of, number, levels, sharing),
    }


def _boxes(files: Mapping[str, Node]) -> dict[str, str]:
    counts = Counter(node.kind for node in files.values())
    return {
        name: node.kind
        if node.recording or node.kind in _MANY or counts[node.kind] > _APART
        else name
        for name, node in files.items()
    }


def _levels(boxes: Mapping[str, Any], arrows: list[tuple[str, str]]) -> dict[str, int]:
    """How many steps each box is from what was given; a circle, which none should be, is cut."""
    before: dict[str, list[str]] = {box: [] for box in boxes}
    for one, other in arrows:
        before[other].append(one)
    levels: dict[str, int] = {}
    for start in sorted(boxes):
        waiting, begun = [start], set()
        while waiting:
            box = waiting[-1]
            if box in levels:
                waiting.pop()
                continue
            open_ones = [one for one in before[box] if one not in levels and one not in begun]
            begun.add(box)
            if open_ones:
                waiting += open_ones
            else:
                levels[box] = 1 + max((levels.get(one, -1) for one in before[box]), default=-1)
    return levels


def _box(name: str, nodes: list[Node], sharing: Sharing | None) -> dict[str, Any]:
    single = nodes[0] if len(nodes) == 1 and nodes[0].id == name else None
    states = Counter(node.state.value for node in nodes)
    wrong = [node for node in nodes if node.state in _WRONG]
    told = sharing.count if sharing else exactly
    codes = sorted({str(node.about["code"]) for node in nodes if node.about.get("code")})
    kind = nodes[0].kind
    return {
        "name": _name(single, sharing) if single else kind.replace("_", " "),
        "kind": kind,
        "state": wrong[0].state.value if wrong else max(states, key=lambda one: states[one]),
        "states": [[state, told(count)] for state, count in sorted(states.items())],
        "count": "" if single else told(len(nodes)),
        "sha256": single.sha256 if single and (not sharing or kind not in GUESSABLE) else None,
        "stage": next((node.made_by for node in nodes if node.made_by), None),
        "code": codes,
        "why": single.about.get("why", "") if single else "",
        "rows": [] if single or sharing else _rows(nodes),
    }


def _name(node: Node, sharing: Sharing | None) -> str:
    return sharing.path(node.id) if sharing else node.id


def _rows(nodes: list[Node]) -> list[list[str]]:
    ordered = sorted(nodes, key=lambda node: (node.state not in _WRONG, node.id))[:_ROWS]
    return [[node.id, node.state.value, node.sha256 or ""] for node in ordered]


def _is_public(node: Node, pointer: str, sharing: Sharing) -> bool:
    """A score of so few people is nearly their own."""
    return pointer.startswith(_PLAIN) and (node.about.get("people") or 0) >= sharing.k


def _starts(
    graph: Graph,
    box_of: Mapping[str, str],
    number: Mapping[str, int],
    levels: Mapping[str, int],
    sharing: Sharing | None,
) -> list[dict[str, Any]]:
    """The numbers, then the files that nothing was made from: from where a way back begins."""
    starts = []
    for node in graph.nodes.values():
        file, _, pointer = node.id.partition("#")
        if node.kind != "metric" or (sharing and not _is_public(node, pointer, sharing)):
            continue
        low, high = node.about.get("ci_low"), node.about.get("ci_high")
        interval = f" [{low:.3g}, {high:.3g}]" if low is not None and high is not None else ""
        starts.append(
            {
                "name": " · ".join([*file.split("/")[1:-1], *pointer.split("/")[1:-1]]),
                "value": f"{node.about['value']:.4g}{interval}",
                "box": number[box_of[file]],
            }
        )
    used = {
        box_of[source] for name in graph.sources for source in graph.sources[name] if name in box_of
    }
    ends = sorted((box for box in number if box not in used), key=lambda box: (-levels[box], box))
    for box in ends:
        name = box.replace("_", " ") if "/" not in box else sharing.path(box) if sharing else box
        starts.append({"name": name, "value": "", "box": number[box]})
    return starts

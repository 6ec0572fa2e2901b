"""From what files say they were made from to a graph; each is compared with what is said of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...errors import BrainLMError
from ...provenance import sha256_ends, sidecar_path, still_is
from .base import About
from .graph import Graph, Node, State
from .hashes import SMALL, Hashes
from .kinds import VOLATILE, Kinds
from .records import FOLDERS, Record, read_sidecars
from .tabled import of_copies, of_models, of_recordings_table, of_series, of_shards

#: What stands in the place of a hash where there is none to compare.
_EMPTY = hashlib.sha256(b"").hexdigest()
_NO_HASH = frozenset({"not hashed", "fingerprint", ""})


def read_graph(about: About) -> Graph:
    """Every file and number of the study, what it was made from, and whether it still is.

    A hash is compared with that which each reader of the file recorded. `options.fast` compares
    the size and both ends of what is large, `options.raw` reads raw files too.
    """
    kinds = Kinds(about.fields)
    records, damaged = _all_records(about, kinds)
    recorded: dict[str, dict[str, list[str]]] = {}  # file -> hash -> who recorded it
    for record in records.values():
        for name, digest in record.sources.items():
            recorded.setdefault(name, {}).setdefault(digest, []).append(record.id)
    inside = sorted({*records, *(name for name in recorded if "::" not in name)})
    actual = _hash(about, [name for name in inside if _is_to_be_read(about, name)])
    nodes: dict[str, Node] = {}
    for name in inside:
        nodes[name] = _node(about, kinds, name, records.get(name), recorded.get(name, {}), actual)
    outside = sorted(name for name in recorded if "::" in name)
    doing = "reading raw files" if about.options.raw else "listing raw files"
    for name in about.options.progress(outside, doing, None):
        nodes[name] = _outside(about, name, recorded[name])
    sources = {name: tuple(sorted(record.sources)) for name, record in records.items()}
    for record in list(records.values()):
        for pointer, value in record.metrics.items():
            name = f"{record.id}#{pointer}"
            told = {**value, "people": record.people}
            state = nodes[record.id].state
            nodes[name] = Node(name, "metric", state, made_by=record.stage, about=told)
            sources[name] = (record.id,)
    for name in damaged:
        nodes[name] = Node(name, "sidecar", State.changed, about={"why": "it cannot be read"})
    return Graph(nodes, sources)


def _all_records(about: About, kinds: Kinds) -> tuple[dict[str, Record], list[str]]:
    found, damaged = read_sidecars(about, kinds)
    records = {record.id: record for record in found}
    for record in (
        *filter(None, [of_recordings_table(about)]),
        *of_series(about, records),
        *of_shards(records),
        *of_models(about, records),
        *of_copies(about, records),
    ):
        records[record.id] = record
    return records, damaged


def _is_to_be_read(about: About, name: str) -> bool:
    path = about.study.root / name
    try:
        return not about.options.fast or path.stat().st_size <= SMALL
    except OSError:
        return False


def _hash(about: About, names: list[str]) -> dict[str, str | None]:
    hashes = Hashes(about.study.root, about.path("hashes"))
    taken = hashes.take(names, about.options, "hashing files")
    hashes.keep()
    return taken


def _node(
    about: About,
    kinds: Kinds,
    name: str,
    record: Record | None,
    recorded: dict[str, list[str]],
    actual: dict[str, str | None],
) -> Node:
    named = kinds.of_data(name)
    kind = record.kind if record else named.kind if named else "config"
    of = record.of if record else named.of if named else None
    digests = {digest: who for digest, who in recorded.items() if digest not in _NO_HASH}
    now = actual.get(name)
    state, why = _compare(about.study.root, name, kind, record, of, digests, now)
    told: dict[str, Any] = dict(record.about) if record else {}
    told.pop("parameters", None)
    named_after_content = told.pop("whole", None)
    if named_after_content and state is State.unread:
        state, why = State.whole, ""
    if named_after_content is False:
        state, why = State.changed, "it is not what the name of its folder stands for"
    if why:
        told["why"] = why
    if state is State.changed and digests:
        told["now"] = now
        told["readers"] = sorted(
            who for one, all_of in digests.items() if one != now for who in all_of
        )
    digest = min(digests, key=lambda one: (one != now, one)) if digests else now
    return Node(name, kind, state, digest, record.stage if record else None, of, told)


def _compare(
    root: Path,
    name: str,
    kind: str,
    record: Record | None,
    of: str | None,
    digests: Iterable[str],
    now: str | None,
) -> tuple[State, str]:
    """The state of a file, and why it is so where that is not plain."""
    path, digests = root / name, set(digests)
    try:
        size = path.stat().st_size
    except OSError:
        if kind in VOLATILE:
            return State.temporary, ""
        return State.missing, "it is not there"
    if size == 0:
        # Its readers have seen it empty, or it is of one recording that a stage gave up.
        if (digests <= {_EMPTY}) if digests else of is not None:
            return State.given_up, ""
        return State.changed, "it is empty"
    if record is None and name.startswith(FOLDERS) and not sidecar_path(path).exists():
        return State.changed, "nothing beside it says what it was made from: its sidecar is gone"
    if digests and now is not None:
        if digests == {now}:
            return State.whole, ""
        some = "some of what was made from it" if now in digests else "what was made from it"
        return State.changed, f"its bytes are not those that {some} had read"
    if record is not None and record.data is not None:
        try:
            same = (size, sha256_ends(path)) == record.data
        except OSError:
            return State.unread, "it cannot be read"
        if not same:
            return State.changed, "its size or ends are not those that its sidecar describes"
        # Without a reader this is all that is known of it, whatever its middle is.
        return State.whole, "size and ends compared"
    if now is None:
        return State.unread, "not read: it is large, and nothing tells its ends"
    return State.unread, "nobody recorded its bytes"


def _outside(about: About, name: str, recorded: dict[str, list[str]]) -> Node:
    """A file that is not the study's own: raw data, a template, an atlas."""
    digests = sorted(digest for digest in recorded if digest not in _NO_HASH)
    raw = name.startswith("bids::")
    kind = "raw" if raw else "outside"
    first = digests[0] if digests else None
    if len(digests) > 1:
        readers = sorted(who for all_of in recorded.values() for who in all_of)
        why = "what was made from it had read different bytes"
        return Node(name, kind, State.changed, first, about={"why": why, "readers": readers})
    if not raw or not about.options.raw or first is None:
        return Node(name, kind, State.unread, first)
    try:
        path = about.config.resolve_bids_dir(about.study.root) / name.removeprefix("bids::")
        if not path.exists():
            return Node(name, kind, State.missing, first, about={"why": "it is not there"})
        same = still_is(path, first)
    except (OSError, ValueError, BrainLMError):
        return Node(name, kind, State.unread, first, about={"why": "it cannot be read"})
    if same:
        return Node(name, kind, State.whole, first)
    return Node(name, kind, State.changed, first, about={"why": "it was changed since onboarding"})
